//! Figure of a hyperparameter search: mean and standard deviation over the folds for every setting.
//!
//! In: finished trials. Out: one SVG, best setting first. It does not rank by anything but the mean.

use serde::{Deserialize, Serialize};

use super::chart::{Axis, Interval, Ticks, intervals};
use super::{FigureError, shortened_within};

/// So many settings are drawn at most; the table lists all.
const SETTINGS_DRAWN: usize = 40;

/// Characters of a setting's name before it is cut.
const LABEL_LIMIT: usize = 60;

/// A setting and how well it did on every fold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrialSummary {
    /// Configuration keys and their values, as searched.
    pub setting: Vec<(String, String)>,
    /// Validation score of each fold: accuracy from 0 to 1, or loss.
    pub scores: Vec<f64>,
    /// Mean of the scores.
    pub mean: f64,
    /// Their sample standard deviation; 0 for a single fold.
    pub standard_deviation: f64,
}

impl TrialSummary {
    /// The setting in one line, each key as short as it can be without meeting another one: `filters=64, kernel=3`.
    pub fn name(&self) -> String {
        let short = |key: &str| {
            let starts = key.rmatch_indices('.').map(|(dot, _)| dot + 1).chain([0]);
            let unique = |end: &&str| self.setting.iter().filter(|(other, _)| ends_with_key(other, end)).count() == 1;
            starts.map(|start| &key[start..]).find(unique).unwrap_or(key).to_owned()
        };
        let parts: Vec<String> = self.setting.iter().map(|(key, value)| format!("{}={value}", short(key))).collect();
        parts.join(", ")
    }
}

fn ends_with_key(key: &str, end: &str) -> bool {
    key.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// The trials by mean score, best first; equal means stay in order and a mean that is no number comes last.
pub fn ranked(trials: &[TrialSummary]) -> Vec<&TrialSummary> {
    let mut ranked: Vec<&TrialSummary> = trials.iter().collect();
    let key = |trial: &TrialSummary| if trial.mean.is_nan() { f64::NEG_INFINITY } else { trial.mean };
    ranked.sort_by(|a, b| key(b).total_cmp(&key(a)));
    ranked
}

/// Draws mean and standard deviation of the best 40 `trials`, of so many settings in `all`.
///
/// # Errors
/// No trial with a finite mean.
pub fn draw(trials: &[TrialSummary], all: usize) -> Result<String, FigureError> {
    let finite = |trial: &&TrialSummary| trial.mean.is_finite() && trial.standard_deviation.is_finite();
    let rows: Vec<Interval> = ranked(trials).into_iter().filter(finite).take(SETTINGS_DRAWN).map(interval).collect();
    if rows.is_empty() {
        return Err(FigureError::Nothing { figure: "search", needed: "at least one finished trial" });
    }
    let best = &rows[0].label;
    let title = format!("Validation accuracy of {} of {all} settings; best: {best}", rows.len());
    let axis = Axis {
        label: "validation accuracy: mean and standard deviation over folds",
        range: Some(Interval::range(&rows)),
        ticks: Ticks::Percent,
    };
    Ok(intervals(&title, axis, &rows, 1000.0))
}

fn interval(trial: &TrialSummary) -> Interval {
    let numbers = format!("{:.2} ± {:.2} %", trial.mean * 100.0, trial.standard_deviation * 100.0);
    let label = format!("{} · {numbers}", shortened_within(&trial.name(), LABEL_LIMIT));
    Interval { label, centre: trial.mean, half_width: trial.standard_deviation }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(filters: usize, mean: f64) -> TrialSummary {
        TrialSummary {
            setting: vec![("network.filters".into(), filters.to_string()), ("train.rate".into(), "$1$".into())],
            scores: vec![mean; 5],
            mean,
            standard_deviation: 0.0125,
        }
    }

    #[test]
    fn best_comes_first_with_its_numbers() {
        let svg = draw(&[trial(32, 0.5259), trial(64, 0.5345), trial(16, f64::NAN)], 3).unwrap();
        let numbers = ["52.59 ± 1.25 %", "53.45 ± 1.25 %"];
        assert!(numbers.iter().all(|text| svg.contains(text)), "{svg}");
        assert!(svg.contains("2 of 3 settings; best: filters=64, rate=$1$"), "{svg}");
        assert!(!svg.contains("NaN"));
        let names: Vec<String> =
            ranked(&[trial(1, f64::NAN), trial(2, 0.1), trial(3, 0.2)]).iter().map(|trial| trial.name()).collect();
        assert_eq!(names, ["filters=3, rate=$1$", "filters=2, rate=$1$", "filters=1, rate=$1$"]);
    }

    #[test]
    fn keys_stay_distinct() {
        let setting = [("network.layers.0.filters", "64"), ("network.layers.4.filters", "128"), ("seed", "1")];
        let setting = setting.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let trial = TrialSummary { setting, ..trial(0, 0.5) };
        assert_eq!(trial.name(), "0.filters=64, 4.filters=128, seed=1");
    }

    #[test]
    fn no_trial_is_an_error() {
        assert!(draw(&[], 0).unwrap_err().to_string().contains("at least one finished trial"));
    }
}
