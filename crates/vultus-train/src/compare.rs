//! Finished runs beside each other.
//!
//! In: directories of runs. Out: a [`Comparison`], whose rows are runs that differ in nothing but their seed, with the mean
//! and the deviation of their results; and its files. It trains and evaluates nothing, and ranks nothing: rows stay in the
//! order in which they were named.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, Serializer};
use serde_json::json;
use vultus::bundle::BundleError;
use vultus::labels::canonical;
use vultus::persist::write_atomically;
use vultus::persist::write_together;

use crate::config::TrainConfig;
use crate::evaluate::Evaluation;
use crate::facts::load_with_facts;
use crate::figure::{self, FigureError};
use crate::history::{self, HistoryError};
use crate::run::{
    RunDirectory, RunError, bundle_path, environment_path, evaluation_directories, is_search, metrics_path, read_json,
    write_json,
};
use crate::spread::{mean, standard_deviation};
use crate::train::Choice;
use crate::validation::Validation;

/// One result of the runs of a row.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Of each run, in order.
    pub values: Vec<f64>,
    /// Their mean.
    pub mean: f64,
    /// Their sample standard deviation; a single run has none.
    pub standard_deviation: Option<f64>,
}

impl Spread {
    /// Nothing if there is no value, or one is missing.
    fn of(values: impl Iterator<Item = Option<f64>>) -> Option<Self> {
        let values = values.collect::<Option<Vec<f64>>>().filter(|values| !values.is_empty())?;
        let deviation = (values.len() > 1).then(|| standard_deviation(&values));
        Some(Self { mean: mean(&values), standard_deviation: deviation, values })
    }
}

/// Runs that differ by their seed alone.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// What the names of the directories have in common.
    pub name: String,
    /// The directories.
    #[serde(serialize_with = "as_texts")]
    pub runs: Vec<PathBuf>,
    /// The seed of each.
    pub seeds: Vec<u64>,
    /// Keys of the configuration that are not those of the first row, and their values; none in the first row.
    pub changes: Vec<(String, String)>,
    /// Accuracy on the validation part at the epoch whose weights the model has, where there is such a part.
    pub validation: Option<Spread>,
    /// Accuracy on each split that all the runs were evaluated on.
    pub splits: BTreeMap<String, Spread>,
    /// Wall-clock minutes of all epochs, where the runs have a history.
    pub minutes: Option<Spread>,
}

/// Runs beside each other, in the order in which they were given.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// A row for each configuration.
    pub rows: Vec<Row>,
    /// Splits on which not all runs saw the same images of the same classes, as far as that is known: their figures do not
    /// compare.
    pub unequal: Vec<String>,
    /// Whether rows may have validated on other images, by their configurations and data: their validation accuracies do not compare then.
    pub unequal_validation: bool,
    /// Runs whose images or classes, perhaps only those of a test, are not those of the first run of their row, though their
    /// configuration is.
    #[serde(serialize_with = "as_texts")]
    pub other_images: Vec<PathBuf>,
    /// Runs without a model: they are not finished.
    #[serde(serialize_with = "as_texts")]
    pub unfinished: Vec<PathBuf>,
    /// Runs without an evaluation on a split that others have one on: the rows of these runs have no figure for it.
    #[serde(serialize_with = "as_pairs_of_texts")]
    pub missing: Vec<(PathBuf, String)>,
    /// Runs whose configuration and seed are those of an earlier one: no second sample.
    #[serde(serialize_with = "as_texts")]
    pub repeated: Vec<PathBuf>,
}

/// Paths as they are shown: JSON has no others.
fn as_texts<S: Serializer>(paths: &[PathBuf], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(paths.iter().map(|path| path.to_string_lossy()))
}

fn as_pairs_of_texts<S: Serializer>(pairs: &[(PathBuf, String)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(pairs.iter().map(|(path, text)| (path.to_string_lossy(), text)))
}

/// Why runs cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// It is no run.
    #[error(transparent)]
    Run(#[from] RunError),
    /// Its history is damaged.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// Its model is damaged.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// A file cannot be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// There is nothing to draw, or it cannot be written.
    #[error(transparent)]
    Figure(#[from] FigureError),
    /// The table cannot be written.
    #[error("{path}: {detail}")]
    Table {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
}

/// What is read of a run.
struct Run {
    path: PathBuf,
    seed: u64,
    /// The configuration with the default's seed and search, so that runs that differ by these alone are alike.
    config: TrainConfig,
    /// Of all its images; `None` where nothing was noted.
    data_sha256: Option<String>,
    /// Of its training split, which a finished model tells.
    train_sha256: Option<String>,
    finished: bool,
    validation: Option<f64>,
    evaluations: BTreeMap<String, Evaluation>,
    minutes: Option<f64>,
}

/// What is read of `environment.json`, which a later version may tell more in.
#[derive(Deserialize)]
struct Made {
    data_sha256: String,
}

impl Run {
    /// What decides which images of some validate: cleaning, labels and split, and of a part of the training split its size and
    /// seed. `None` where none do.
    fn validating_part(&self) -> Option<String> {
        let config = TrainConfig { seed: self.seed, ..self.config.clone() };
        let TrainConfig { data, mut cleaning, .. } = config.clone();
        cleaning.drop_classes = cleaning.drop_classes.iter().map(|class| canonical(class)).collect();
        cleaning.drop_classes.sort();
        let part = match config.validation() {
            Validation::Nothing => return None,
            Validation::Split(_) => None,
            Validation::Part { .. } => Some(&data.train_split),
        };
        Some(json!((part, config.validation(), data.labels, cleaning)).to_string())
    }

    /// What the images are brought to, and their fingerprint: of the training split, where those that validate are a part of it and
    /// all runs tell that (`by_split`), else of all. `None` where it is not known, or none validate.
    fn validating_images(&self, by_split: bool) -> Option<(String, &String)> {
        let known = match self.config.validation() {
            Validation::Nothing => return None,
            Validation::Part { .. } if by_split => &self.train_sha256,
            Validation::Split(_) | Validation::Part { .. } => &self.data_sha256,
        };
        Some((json!(self.config.preprocessing).to_string(), known.as_ref()?))
    }

    fn read(path: &Path) -> Result<Self, CompareError> {
        let config = RunDirectory::config_of(path)?;
        let history = if metrics_path(path).exists() { history::read(&metrics_path(path))? } else { Vec::new() };
        let Choice { epoch: chosen, finished, .. } = Choice::of_run(path, &config, &history)?;
        let validation =
            history.iter().find(|record| Some(record.epoch) == chosen).and_then(|record| record.val_accuracy);
        let mut evaluations = BTreeMap::new();
        for directory in evaluation_directories(path, &config.data.train_split)? {
            let evaluation = Evaluation::load(&directory)?;
            evaluations.insert(evaluation.split.clone(), evaluation);
        }
        let minutes = (!history.is_empty()).then(|| history.iter().map(|record| record.seconds).sum::<f64>() / 60.0);
        let seed = config.seed;
        let TrainConfig { seed: same, search, .. } = TrainConfig::default();
        let config = TrainConfig { seed: same, search, ..config };
        let environment = environment_path(path);
        let data_sha256 = if environment.exists() { Some(read_json::<Made>(&environment)?.data_sha256) } else { None };
        let train_sha256 = load_with_facts(&bundle_path(path)).ok().and_then(|(_, facts)| facts.train_sha256);
        let path = path.to_owned();
        Ok(Self { path, seed, config, data_sha256, train_sha256, finished, validation, evaluations, minutes })
    }
}

/// Puts the runs in `directories` beside each other.
///
/// # Errors
/// A directory that holds no run, or a file of one that cannot be read; the message names it.
pub fn compare(directories: &[PathBuf]) -> Result<Comparison, CompareError> {
    let mut groups: Vec<Vec<Run>> = Vec::new();
    let mut known = BTreeSet::new();
    for directory in directories {
        // Named twice, as patterns of a shell may do, it is one run all the same.
        if !known.insert(fs_err::canonicalize(directory).unwrap_or_else(|_| directory.clone())) {
            continue;
        }
        let run = Run::read(directory)?;
        match groups.iter_mut().find(|group| group[0].config == run.config) {
            Some(group) => group.push(run),
            None => groups.push(vec![run]),
        }
    }
    let mut rows: Vec<Row> = groups.iter().map(|group| row(group, &groups[0][0].config)).collect();
    name_apart(&mut rows);
    let runs: Vec<&Run> = groups.iter().flatten().collect();
    let mut seen: BTreeMap<&str, Vec<(&Run, &Evaluation)>> = BTreeMap::new();
    for (run, evaluation) in runs.iter().flat_map(|run| run.evaluations.values().map(move |it| (*run, it))) {
        seen.entry(&evaluation.split).or_default().push((run, evaluation));
    }
    let differ = |seen: &[(&Run, &Evaluation)]| {
        (1..seen.len()).any(|index| seen[..index].iter().any(|&earlier| !saw_the_same(earlier, seen[index])))
    };
    let unequal = seen.iter().filter(|(_, seen)| differ(seen)).map(|(split, _)| (*split).to_owned()).collect();
    let missing = runs.iter().flat_map(|run| {
        let absent = seen.keys().filter(|split| !run.evaluations.contains_key(**split));
        absent.map(|split| (run.path.clone(), (*split).to_owned()))
    });
    let repeated = groups.iter().flat_map(|group| {
        let earlier = |index: usize| group[..index].iter().any(|run| run.seed == group[index].seed);
        (0..group.len()).filter(move |&index| earlier(index)).map(|index| group[index].path.clone())
    });
    let other_images = groups.iter().flat_map(|group| {
        let known = move |run: &&Run| matches!((&group[0].data_sha256, &run.data_sha256), (Some(a), Some(b)) if a != b);
        group.iter().filter(known).map(|run| run.path.clone())
    });
    let parts: Vec<BTreeSet<String>> =
        groups.iter().map(|group| group.iter().filter_map(Run::validating_part).collect()).collect();
    let validated: Vec<_> = parts.iter().filter(|parts| !parts.is_empty()).collect();
    let mut images: BTreeMap<String, BTreeSet<&String>> = BTreeMap::new();
    // Those that are not finished do not.
    let by_split = runs.iter().all(|run| run.train_sha256.is_some());
    for (brought_to, known) in runs.iter().filter_map(|run| run.validating_images(by_split)) {
        images.entry(brought_to).or_default().insert(known);
    }
    let other_parts = validated.windows(2).any(|pair| pair[0] != pair[1]);
    let unfinished = runs.iter().filter(|run| !run.finished).map(|run| run.path.clone());
    Ok(Comparison {
        unequal,
        unequal_validation: other_parts || images.values().any(|known| known.len() > 1),
        other_images: other_images.collect(),
        unfinished: unfinished.collect(),
        missing: missing.collect(),
        repeated: repeated.collect(),
        rows,
    })
}

/// Whether two evaluations are of the same images, as far as that is known: pictures brought to other sizes are not told
/// apart from other pictures.
fn saw_the_same((run, a): (&Run, &Evaluation), (other_run, b): (&Run, &Evaluation)) -> bool {
    let size = |run: &Run| (run.config.preprocessing.width, run.config.preprocessing.height);
    let same_size = size(run) == size(other_run);
    let known = [a, b].map(|evaluation| evaluation.images_sha256.as_ref());
    (a.n, &a.labels) == (b.n, &b.labels) && !(same_size && matches!(known, [Some(a), Some(b)] if a != b))
}

fn row(group: &[Run], first: &TrainConfig) -> Row {
    let splits: BTreeSet<&String> = group.iter().flat_map(|run| run.evaluations.keys()).collect();
    let accuracy = |split: &str| Spread::of(group.iter().map(|run| Some(run.evaluations.get(split)?.accuracy)));
    Row {
        name: common_name(group),
        runs: group.iter().map(|run| run.path.clone()).collect(),
        seeds: group.iter().map(|run| run.seed).collect(),
        changes: first.changes_to(&group[0].config),
        validation: Spread::of(group.iter().map(|run| run.validation)),
        splits: splits.into_iter().filter_map(|split| Some((split.clone(), accuracy(split)?))).collect(),
        minutes: Spread::of(group.iter().map(|run| run.minutes)),
    }
}

/// Name of the run's directory; the winner of a search has the search's.
fn name_of(path: &Path) -> String {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let search = path.parent().filter(|parent| path.ends_with("winner") && is_search(parent));
    let path = search.unwrap_or(&path);
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// The beginning that the names of the directories have in common, without what separates it from the rest and never cut
/// within a number; all names, where they have none.
fn common_name(group: &[Run]) -> String {
    let names: Vec<String> = group.iter().map(|run| name_of(&run.path)).collect();
    let [first, others @ ..] = &names[..] else { return String::new() };
    if others.is_empty() {
        return first.clone();
    }
    let common = others.iter().fold(first.as_str(), |common, other| {
        let same = common.chars().zip(other.chars()).take_while(|(a, b)| a == b);
        &common[..same.map(|(a, _)| a.len_utf8()).sum()]
    });
    let goes_on = |name: &String| name[common.len()..].starts_with(|c: char| c.is_ascii_digit());
    let whole = if names.iter().any(goes_on) { common.trim_end_matches(|c: char| c.is_ascii_digit()) } else { common };
    match whole.trim_end_matches(|c: char| !c.is_alphanumeric()) {
        "" => names.join(", "),
        name => name.to_owned(),
    }
}

/// Tells rows of the same name apart: by the first of their runs, and where that is no help by the folder above.
fn name_apart(rows: &mut [Row]) {
    rename_doubles(rows, |row| match row.runs.len() {
        1 => row.name.clone(),
        runs => format!("{} and {} more", name_of(&row.runs[0]), runs - 1),
    });
    rename_doubles(rows, |row| {
        let path = std::path::absolute(&row.runs[0]).unwrap_or_else(|_| row.runs[0].clone());
        let folder = path.parent().and_then(Path::file_name);
        folder.map_or_else(|| row.name.clone(), |folder| format!("{}/{}", folder.to_string_lossy(), row.name))
    });
}

/// Gives another name to rows whose name is not theirs alone.
fn rename_doubles(rows: &mut [Row], name: impl Fn(&Row) -> String) {
    let names: Vec<String> = rows.iter().map(|row| row.name.clone()).collect();
    for row in rows.iter_mut().filter(|row| names.iter().filter(|name| **name == row.name).count() > 1) {
        row.name = name(row);
    }
}

impl Comparison {
    /// Every split on which a row has a figure.
    pub fn splits(&self) -> Vec<&str> {
        let splits: BTreeSet<&str> = self.rows.iter().flat_map(|row| row.splits.keys().map(String::as_str)).collect();
        splits.into_iter().collect()
    }

    /// Writes `comparison.csv`, `comparison.json` and a figure of each split, as SVG and PNG, into `directory`.
    ///
    /// # Errors
    /// A failed write, which names the file.
    pub fn write(&self, directory: &Path) -> Result<(), CompareError> {
        write_together(directory, |folder| {
            self.write_csv(&folder.join("comparison.csv"))?;
            write_json(&folder.join("comparison.json"), self)?;
            for split in self.splits() {
                let svg = figure::comparison::draw(split, &self.rows)?;
                figure::save(&svg, folder, &format!("comparison-{split}"))?;
            }
            Ok(())
        })
    }

    fn write_csv(&self, path: &Path) -> Result<(), CompareError> {
        let failed = |detail: String| CompareError::Table { path: path.to_owned(), detail };
        let mut writer = csv::Writer::from_writer(Vec::new());
        let splits = self.splits();
        let mut heading: Vec<String> = ["name", "runs", "seeds"].map(str::to_owned).into();
        for column in ["val_accuracy"].iter().chain(&splits).chain(&["minutes"]) {
            heading.extend([(*column).to_owned(), format!("{column}_standard_deviation")]);
        }
        heading.push("changes".to_owned());
        writer.write_record(&heading).map_err(|error| failed(error.to_string()))?;
        for row in &self.rows {
            let seeds: Vec<String> = row.seeds.iter().map(u64::to_string).collect();
            let mut cells = vec![row.name.clone(), row.runs.len().to_string(), seeds.join(" ")];
            let splits = splits.iter().map(|split| row.splits.get(*split));
            for spread in [row.validation.as_ref()].into_iter().chain(splits).chain([row.minutes.as_ref()]) {
                cells.extend(spread.map_or_else(Default::default, |spread| {
                    [
                        spread.mean.to_string(),
                        spread.standard_deviation.map_or_else(String::new, |value| value.to_string()),
                    ]
                }));
            }
            cells.push(row.changes_in_words());
            writer.write_record(&cells).map_err(|error| failed(error.to_string()))?;
        }
        let bytes = writer.into_inner().map_err(|error| failed(error.to_string()))?;
        Ok(write_atomically(path, |file| file.write_all(&bytes))?)
    }
}

impl Row {
    /// The changes in one line, `key=value, ...`.
    pub fn changes_in_words(&self) -> String {
        let changes: Vec<String> = self.changes.iter().map(|(key, value)| format!("{key}={value}")).collect();
        changes.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_the_same_name_are_told_apart() {
        let row = |name: &str, runs: &[&str]| Row {
            name: name.to_owned(),
            runs: runs.iter().map(PathBuf::from).collect(),
            seeds: Vec::new(),
            changes: Vec::new(),
            validation: None,
            splits: BTreeMap::new(),
            minutes: None,
        };
        let mut rows = [
            row("train", &["runs/train-001", "runs/train-002"]),
            row("train", &["runs/train-003", "runs/train-004"]),
            row("a", &["one/a"]),
            row("a", &["two/a"]),
            row("b", &["b"]),
        ];
        name_apart(&mut rows);
        assert_eq!(
            rows.map(|row| row.name),
            ["train-001 and 1 more", "train-003 and 1 more", "one/a", "two/a", "b"].map(str::to_owned)
        );
    }

    #[test]
    fn names_are_what_directories_have_in_common() {
        let named = |names: &[&str]| {
            let run = |name: &&str| Run {
                path: PathBuf::from("runs").join(name),
                seed: 1,
                config: TrainConfig::default(),
                data_sha256: None,
                train_sha256: None,
                finished: true,
                validation: None,
                evaluations: BTreeMap::new(),
                minutes: None,
            };
            common_name(&names.iter().map(run).collect::<Vec<_>>())
        };
        assert_eq!(named(&["flip-1", "flip-2", "flip-10"]), "flip");
        assert_eq!(named(&["flip-1"]), "flip-1");
        assert_eq!(named(&["x-10", "x-11"]), "x");
        assert_eq!(named(&["x-1", "x-10"]), "x");
        assert_eq!(named(&["resnet18-1", "resnet18-2"]), "resnet18");
        assert_eq!(named(&["a", "b"]), "a, b");
        assert_eq!(named(&["größe-1", "größe-2"]), "größe");
    }

    #[test]
    fn a_missing_value_leaves_no_mean() {
        assert_eq!(Spread::of([Some(0.5), None].into_iter()), None);
        assert_eq!(Spread::of(std::iter::empty()), None);
        assert_eq!(Spread::of([Some(0.5), Some(0.7)].into_iter()).unwrap().mean, 0.6);
        assert_eq!(Spread::of([Some(0.5)].into_iter()).unwrap().standard_deviation, None);
    }
}
