//! What a search found: a ranked table of settings, as values, CSV, JSON and figure.
//!
//! In: a plan and the journal's records. Out: [`SearchResults`], and its files. Only settings whose every fold has a
//! score are compared; nothing here looks at test images.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use vultus::persist::write_atomically;

use super::config::{Score, SearchConfig, SearchMethod};
use super::error::SearchError;
use super::journal::{Journal, TrialRecord};
use super::plan::SearchPlan;
use super::space::texts;
use crate::config::Monitor;
use crate::figure::{self, search::TrialSummary};
use crate::run::{read_json, write_json};
use crate::spread::{mean, standard_deviation};

/// In the directory of the winner's run: a [`SearchTable`].
const TABLE: &str = "search-results.json";

/// File names of the results.
const CSV: &str = "search.csv";
const JSON: &str = "search.json";
const FIGURES: &str = "figures";
const FIGURE: &str = "search";

/// What a setting was chosen among.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SearchTable {
    /// What chose it.
    pub monitor: Monitor,
    /// Which epoch of a trial counted, where that is known.
    pub score: Option<Score>,
    /// Settings in all, also those whose loss became no number.
    pub settings: usize,
    /// Those with a score on every fold, best first.
    pub complete: Vec<TrialSummary>,
}

impl SearchTable {
    /// The one in the directory of a winner's run; `None` in other runs'. Older versions left a list of the settings, of accuracies.
    ///
    /// # Errors
    /// A file that is none.
    pub fn of_run(run: &Path) -> io::Result<Option<Self>> {
        if run.join(TABLE).exists() {
            return read_json(&run.join(TABLE)).map(Some);
        }
        let list = run.join("search-table.json");
        if !list.exists() {
            return Ok(None);
        }
        let complete: Vec<TrialSummary> = read_json(&list)?;
        Ok(Some(Self { monitor: Monitor::ValAccuracy, score: None, settings: complete.len(), complete }))
    }
}

/// How far a setting has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SettingStatus {
    /// Every fold has a score.
    Complete,
    /// Folds are missing.
    Incomplete,
    /// The loss became no number on at least one fold; such a setting cannot win.
    Diverged,
}

/// A setting and its scores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SettingResult {
    /// Name of each axis and its value.
    pub setting: Map<String, Value>,
    /// How far it has come.
    pub status: SettingStatus,
    /// Mean of the scores of a complete setting.
    pub mean: Option<f64>,
    /// Sample standard deviation of the scores of a complete setting.
    pub standard_deviation: Option<f64>,
    /// Mean of how far the score of each fold lies above that of the first complete setting; nothing for that one, for what is not
    /// complete, and where the folds are others.
    #[serde(default)]
    pub difference: Option<f64>,
    /// Sample standard deviation of these differences.
    #[serde(default)]
    pub difference_deviation: Option<f64>,
    /// Score of each fold in order; nothing where the trial is missing or diverged.
    pub scores: Vec<Option<f64>>,
    /// Why folds diverged.
    pub diverged: Vec<String>,
    /// Seconds of all its trials.
    pub seconds: f64,
}

impl SettingResult {
    /// The setting in one line, as in `F=64/128, k=3`.
    pub fn name(&self) -> String {
        let parts = texts(&self.setting).into_iter().map(|(name, value)| format!("{name}={value}"));
        parts.collect::<Vec<_>>().join(", ")
    }

    /// Folds are the same for all settings, and so are those that are hard: differences fold by fold are without that.
    fn compare_with(&mut self, best: &[f64]) {
        let scores: Option<Vec<f64>> = self.scores.iter().copied().collect();
        let Some(scores) = scores.filter(|scores| !scores.is_empty() && scores.len() == best.len()) else { return };
        let differences: Vec<f64> = scores.iter().zip(best).map(|(score, best)| score - best).collect();
        self.difference = Some(mean(&differences));
        self.difference_deviation = Some(standard_deviation(&differences));
    }
}

/// The table of a search.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SearchResults {
    /// How the settings were made.
    pub method: SearchMethod,
    /// Which epoch counted.
    pub score: Score,
    /// What its score was.
    pub monitor: Monitor,
    /// Trials in all.
    pub trials: usize,
    /// Trials with a result.
    pub finished: usize,
    /// Lines of the journals that belong to no trial of this search.
    pub ignored: usize,
    /// Complete settings, best first; then those with missing folds, then those that diverged.
    pub settings: Vec<SettingResult>,
}

impl SearchResults {
    /// Puts the table together; also returns, for each row, the setting's position in the plan.
    pub(super) fn new(search: &SearchConfig, plan: &SearchPlan, journal: &Journal) -> (Self, Vec<usize>) {
        let mut trials: Vec<Vec<Option<&TrialRecord>>> = vec![Vec::new(); plan.settings.len()];
        for trial in &plan.trials {
            trials[trial.setting].push(journal.get(&trial.key));
        }
        let finished = trials.iter().flatten().flatten().count();
        // Losses with penalties and without do not compare.
        let all_tell = trials.iter().flatten().flatten().all(|trial| trial.tells_cross_entropy());
        let score = |trial: &TrialRecord| {
            let older = (!all_tell).then(|| trial.clone().with_penalties());
            older.as_ref().unwrap_or(trial).score(search.score, search.monitor)
        };
        let mut rows: Vec<(usize, SettingResult)> = plan
            .settings
            .iter()
            .zip(&trials)
            .map(|(planned, trials)| setting_result(planned.setting.to_json(), trials, score))
            .enumerate()
            .collect();
        let better_first = |mean: Option<f64>| match (mean, search.monitor) {
            (None, _) => f64::INFINITY,
            (Some(mean), Monitor::ValAccuracy) => -mean,
            (Some(mean), Monitor::ValLoss) => mean,
        };
        rows.sort_by(|(_, a), (_, b)| {
            let by_status = (a.status as u8).cmp(&(b.status as u8));
            by_status.then(better_first(a.mean).total_cmp(&better_first(b.mean)))
        });
        if let Some((best, others)) = rows.split_first_mut()
            && let Some(scores) = best.1.scores.iter().copied().collect::<Option<Vec<f64>>>()
        {
            let folds = |place: usize| (plan.settings[place].folds, plan.settings[place].fold_seed);
            let on_the_same = others.iter_mut().filter(|(place, _)| folds(*place) == folds(best.0));
            on_the_same.for_each(|(_, row)| row.compare_with(&scores));
        }
        let ignored = journal.foreign(plan.trials.iter().map(|trial| trial.key.as_str()));
        let (order, settings) = rows.into_iter().unzip();
        let SearchConfig { method, score, monitor, .. } = *search;
        (Self { method, score, monitor, trials: plan.trials.len(), finished, ignored, settings }, order)
    }

    /// Whether every trial has a result.
    pub fn is_complete(&self) -> bool {
        self.finished == self.trials
    }

    /// The rows for figures and reports, best first; without a mean (NaN) where a setting is not complete.
    pub fn summaries(&self) -> Vec<TrialSummary> {
        let summary = |row: &SettingResult| TrialSummary {
            setting: texts(&row.setting),
            scores: row.scores.iter().flatten().copied().collect(),
            mean: row.mean.unwrap_or(f64::NAN),
            standard_deviation: row.standard_deviation.unwrap_or(f64::NAN),
        };
        self.settings.iter().map(summary).collect()
    }

    /// Writes a [`SearchTable`] into the directory of the winner's run, for its report.
    ///
    /// # Errors
    /// A failed write, which names the file.
    pub fn write_for_report(&self, run: &Path) -> Result<(), SearchError> {
        let mut complete = self.summaries();
        complete.retain(|summary| summary.mean.is_finite());
        let (monitor, score, settings) = (self.monitor, Some(self.score), self.settings.len());
        Ok(write_json(&run.join(TABLE), &SearchTable { monitor, score, settings, complete })?)
    }

    /// Writes `search.csv`, `search.json` and `figures/search.svg` and `.png` into `directory` and returns the paths.
    /// The figure shows accuracies: it is left out when the score is a loss, or no setting is complete.
    ///
    /// # Errors
    /// A failed write, which names the file.
    pub fn write(&self, directory: &Path) -> Result<Vec<PathBuf>, SearchError> {
        fs_err::create_dir_all(directory)?;
        let csv = directory.join(CSV);
        self.write_table_csv(&csv)?;
        let json = directory.join(JSON);
        write_json(&json, self)?;
        let mut paths = vec![csv, json];
        let drawable = self.settings.iter().any(|row| row.status == SettingStatus::Complete);
        if drawable && self.monitor == Monitor::ValAccuracy {
            let figures = directory.join(FIGURES);
            fs_err::create_dir_all(&figures)?;
            paths.extend(figure::save(
                &figure::search::draw(&self.summaries(), self.settings.len())?,
                &figures,
                FIGURE,
            )?);
        }
        Ok(paths)
    }

    /// Writes the table: rank, a column for each axis, status, mean, standard deviation, difference and its deviation, a column for
    /// each fold, seconds. Scores are fractions; cells without a value are empty, and only complete settings have a rank.
    ///
    /// # Errors
    /// A failed write, which names the file.
    fn write_table_csv(&self, path: &Path) -> Result<(), SearchError> {
        let failed = |detail: String| SearchError::Table { path: path.to_owned(), detail };
        let mut writer = csv::Writer::from_writer(Vec::new());
        let folds = self.settings.iter().map(|row| row.scores.len()).max().unwrap_or(0);
        let axes = self.settings.first().map_or_else(Vec::new, |row| texts(&row.setting));
        let mut heading = vec!["rank".to_owned()];
        heading.extend(axes.into_iter().map(|(name, _)| name));
        let figures = ["status", "mean", "standard_deviation", "difference", "difference_deviation"];
        heading.extend(figures.map(str::to_owned));
        heading.extend((1..=folds).map(|fold| format!("fold_{fold}")));
        heading.push("seconds".to_owned());
        writer.write_record(&heading).map_err(|error| failed(error.to_string()))?;
        for (index, row) in self.settings.iter().enumerate() {
            writer.write_record(cells(index, row, folds)).map_err(|error| failed(error.to_string()))?;
        }
        let bytes = writer.into_inner().map_err(|error| failed(error.to_string()))?;
        Ok(write_atomically(path, |file| file.write_all(&bytes))?)
    }
}

fn cells(index: usize, row: &SettingResult, folds: usize) -> Vec<String> {
    let number = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
    let (rank, status) = match row.status {
        SettingStatus::Complete => ((index + 1).to_string(), "complete"),
        SettingStatus::Incomplete => (String::new(), "incomplete"),
        SettingStatus::Diverged => (String::new(), "diverged"),
    };
    let mut cells = vec![rank];
    cells.extend(texts(&row.setting).into_iter().map(|(_, value)| value));
    cells.push(status.to_owned());
    let figures = [row.mean, row.standard_deviation, row.difference, row.difference_deviation];
    cells.extend(figures.map(number));
    cells.extend((0..folds).map(|fold| number(row.scores.get(fold).copied().flatten())));
    cells.push(format!("{:.1}", row.seconds));
    cells
}

fn setting_result(
    setting: Map<String, Value>,
    trials: &[Option<&TrialRecord>],
    score: impl Fn(&TrialRecord) -> Option<f64>,
) -> SettingResult {
    let scores: Vec<Option<f64>> = trials.iter().map(|trial| trial.and_then(&score)).collect();
    let known: Option<Vec<f64>> = scores.iter().copied().collect();
    let diverged: Vec<String> = trials.iter().flatten().filter_map(|trial| trial.diverged.clone()).collect();
    let status = match &known {
        Some(_) => SettingStatus::Complete,
        None if diverged.is_empty() => SettingStatus::Incomplete,
        None => SettingStatus::Diverged,
    };
    SettingResult {
        setting,
        status,
        mean: known.as_deref().map(mean),
        standard_deviation: known.as_deref().map(standard_deviation),
        difference: None,
        difference_deviation: None,
        scores,
        diverged,
        seconds: trials.iter().flatten().fold(0.0, |sum, trial| sum + trial.seconds),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(filters: usize, status: SettingStatus, scores: Vec<Option<f64>>) -> SettingResult {
        let mut setting = Map::new();
        setting.insert("F".to_owned(), serde_json::json!([filters, 2 * filters]));
        setting.insert("note".to_owned(), serde_json::json!("a, \"b\""));
        let complete = status == SettingStatus::Complete;
        SettingResult {
            setting,
            status,
            mean: complete.then_some(0.5),
            standard_deviation: complete.then_some(0.125),
            difference: None,
            difference_deviation: None,
            scores,
            diverged: Vec::new(),
            seconds: 12.345,
        }
    }

    fn results() -> SearchResults {
        SearchResults {
            method: SearchMethod::Grid,
            score: Score::Last,
            monitor: Monitor::ValAccuracy,
            trials: 5,
            finished: 3,
            ignored: 0,
            settings: vec![
                row(32, SettingStatus::Complete, vec![Some(0.375), Some(0.625)]),
                row(64, SettingStatus::Incomplete, vec![None, Some(0.25), None]),
            ],
        }
    }

    #[test]
    fn the_table_says_what_is_known() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("table.csv");
        results().write_table_csv(&path).unwrap();
        let expected = "rank,F,note,status,mean,standard_deviation,difference,difference_deviation,fold_1,fold_2,fold_3,seconds\n\
                        1,32/64,\"a, \"\"b\"\"\",complete,0.5,0.125,,,0.375,0.625,,12.3\n\
                        ,64/128,\"a, \"\"b\"\"\",incomplete,,,,,,0.25,,12.3\n";
        assert_eq!(fs_err::read_to_string(path).unwrap(), expected);
    }

    #[test]
    fn settings_are_compared_with_the_best_fold_by_fold() {
        let with = |scores: Vec<Option<f64>>| row(32, SettingStatus::Complete, scores);
        let best = [0.375, 0.625, 0.75];
        // python3 -c "import statistics as s; d = [-.125, -.25, 0]; print(s.mean(d), s.stdev(d))"
        let mut other = with(vec![Some(0.25), Some(0.375), Some(0.75)]);
        other.compare_with(&best);
        assert_eq!((other.difference, other.difference_deviation), (Some(-0.125), Some(0.125)));
        for scores in [vec![Some(0.5), None, Some(0.5)], vec![Some(0.5), Some(0.5)], Vec::new()] {
            let mut other = with(scores);
            other.compare_with(&best);
            assert_eq!((other.difference, other.difference_deviation), (None, None));
        }
    }

    #[test]
    fn files_come_back() {
        let directory = tempfile::tempdir().unwrap();
        let paths = results().write(directory.path()).unwrap();
        let names = ["search.csv", "search.json", "figures/search.svg", "figures/search.png"];
        assert_eq!(paths, names.map(|name| directory.path().join(name)));
        assert!(paths.iter().all(|path| path.is_file()));
        let read = serde_json::from_slice::<SearchResults>(&fs_err::read(&paths[1]).unwrap());
        assert_eq!(read.unwrap(), results());
        let by_loss = SearchResults { monitor: Monitor::ValLoss, ..results() };
        assert_eq!(by_loss.write(directory.path()).unwrap().len(), 2);
    }

    #[test]
    fn a_report_gets_the_complete_settings() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(TABLE);
        results().write_for_report(directory.path()).unwrap();
        let table: SearchTable = serde_json::from_slice(&fs_err::read(&path).unwrap()).unwrap();
        assert_eq!((table.monitor, table.score), (results().monitor, Some(results().score)));
        assert_eq!((table.settings, &table.complete[..]), (results().settings.len(), &results().summaries()[..1]));
        assert_eq!(table.complete[0].scores, [0.375, 0.625]);
        assert_eq!(SearchTable::of_run(directory.path()).unwrap(), Some(table.clone()));
        // As an older version left it.
        fs_err::remove_file(&path).unwrap();
        assert_eq!(SearchTable::of_run(directory.path()).unwrap(), None);
        let list = serde_json::to_string(&table.complete).unwrap();
        fs_err::write(directory.path().join("search-table.json"), list).unwrap();
        let older = SearchTable { score: None, settings: 1, ..table };
        assert_eq!(SearchTable::of_run(directory.path()).unwrap(), Some(older));
    }
}
