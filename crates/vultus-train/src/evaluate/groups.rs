//! How groups of images fare: people by age, pictures by camera, whatever a table says of them.
//!
//! In: a csv table of attributes by image, and predictions. Out: the figures of each group of each attribute. It asks for no
//! difference to be large or small: groups are as alike as the intervals say.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vultus::labels::Labels;

use super::{Evaluation, EvaluationError, PredictionRow, Predictions, wilson_interval};
use crate::source::header_hint;

/// The column that names images as `predictions.csv` does.
const ORIGIN: &str = "origin";

/// What tables call all images, and those of no group.
pub const RESERVED: [&str; 2] = ["all images", "(not known)"];

/// Groups by one attribute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attribute {
    /// Its column in the table.
    pub name: String,
    /// The groups, by the number that they begin with (10-19 comes after 3-9), those without one behind, in alphabetical order.
    pub groups: Vec<GroupScores>,
    /// Images of which the table does not say it.
    pub unknown: usize,
}

/// Figures of one group, defined as those of [`Evaluation`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupScores {
    /// The cell in the table.
    pub group: String,
    /// Number of images.
    pub n: usize,
    /// Number of classes that they have.
    pub classes: usize,
    /// Share of images that are classified correctly.
    pub accuracy: f64,
    /// Its 95 % confidence interval `[low, high]`.
    pub accuracy_interval: [f64; 2],
    /// Mean recall over the classes that the group has images of: groups with other shares of the classes compare in it sooner
    /// than in the accuracy.
    pub balanced_accuracy: f64,
    /// Its 95 % confidence interval `[low, high]`, from those of the recalls (Zou & Donner 2008, "Construction of confidence limits
    /// about effect measures", for a mean of independent shares). Evaluations of earlier versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balanced_accuracy_interval: Option<[f64; 2]>,
    /// Mean F1 over the classes that have images or were predicted.
    pub macro_f1: f64,
    /// Mean cross-entropy of the true class.
    pub log_loss: f64,
    /// Expected calibration error.
    pub ece: f64,
    /// What chance makes of it with so few images. Evaluations of earlier versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ece_by_chance: Option<f64>,
    /// Mean of the highest probability: above the accuracy, the model is too sure of this group.
    pub mean_confidence: f64,
    /// `mean_confidence` less the ends of `accuracy_interval`, `[low, high]`: how much too sure the model is, the scores taken as
    /// given. Unlike a calibration error its middle does not grow as groups get smaller. Evaluations of earlier versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overconfidence_interval: Option<[f64; 2]>,
    /// Of each class that the group has images of, in the order of the labels, the share of them that is called so (the recall, or
    /// true positive rate). Evaluations of earlier versions have none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recalls: Vec<ClassRate>,
    /// Of each class, the share of the group's images of other classes that is called so: whom the model takes for angry who is
    /// not. Evaluations of earlier versions have none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub false_positive_rates: Vec<ClassRate>,
    /// How the group compares with the others of its attribute; none where there is no other, or none with one of its classes.
    /// Evaluations of earlier versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub difference: Option<Difference>,
}

/// What share of some images is called one class. Hardt et al. (2016) call it equalized odds where a class's recall and its false
/// positive rate are alike for all groups, and equal opportunity where its recall is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassRate {
    /// Name of the class.
    pub label: String,
    /// Number of images.
    pub support: usize,
    /// Share of them that is called so.
    #[serde(alias = "recall")]
    pub rate: f64,
    /// Its 95 % confidence interval `[low, high]`.
    #[serde(alias = "recall_interval")]
    pub rate_interval: [f64; 2],
}

impl ClassRate {
    fn new(label: &str, called: usize, support: usize) -> Self {
        let rate = called as f64 / support as f64;
        Self { label: label.to_owned(), support, rate, rate_interval: wilson_interval(called, support) }
    }
}

/// The balanced accuracy of a group less that of the images of all other groups together.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// The difference of the mean recalls.
    pub balanced_accuracy: f64,
    /// Its 95 % confidence interval `[low, high]`, from those of the two means, which are independent (Zou & Donner 2008). It says
    /// nothing of how many groups were compared.
    pub interval: [f64; 2],
    /// Number of classes that both have images of, over which the means are.
    pub classes: usize,
}

impl Difference {
    fn between(group: &[ClassRate], others: &[ClassRate]) -> Option<Self> {
        let of_both = |rates: &[ClassRate], other: &[ClassRate]| -> Vec<ClassRate> {
            rates.iter().filter(|rate| other.iter().any(|it| it.label == rate.label)).cloned().collect()
        };
        let (group, others) = (of_both(group, others), of_both(others, group));
        if group.is_empty() {
            return None;
        }
        let (one, [one_low, one_high]) = (mean(&group), mean_interval(&group));
        let (other, [other_low, other_high]) = (mean(&others), mean_interval(&others));
        let balanced_accuracy = one - other;
        let interval = [
            balanced_accuracy - (one - one_low).hypot(other_high - other),
            balanced_accuracy + (one_high - one).hypot(other - other_low),
        ];
        Some(Self { balanced_accuracy, interval, classes: group.len() })
    }
}

/// Attributes of images, by their origin or the end of it.
#[derive(Clone, Debug)]
pub struct GroupTable {
    path: PathBuf,
    attributes: Vec<String>,
    cells: HashMap<String, Vec<String>>,
    /// Origin of the first row.
    first: String,
}

/// A table that is of no use.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// The system's refusal, naming the path.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// No table, or none of images.
    #[error("{path}: {detail}")]
    Table {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the row where it is one.
        detail: String,
    },
    /// None of the images is in it.
    #[error("{path} has none of the images: its first origin is {first:?}, that of the images {origin:?}")]
    NoImage {
        /// The file.
        path: PathBuf,
        /// Of its first row.
        first: String,
        /// Of the first image.
        origin: String,
    },
    /// A row names several images.
    #[error("{path}: {row:?} names both {one:?} and {other:?}: name images by more of their paths")]
    Ambiguous {
        /// The file.
        path: PathBuf,
        /// Origin in the table.
        row: String,
        /// One image.
        one: String,
        /// Another.
        other: String,
    },
    /// Predictions that cannot be evaluated.
    #[error(transparent)]
    Evaluation(#[from] EvaluationError),
}

impl GroupTable {
    /// Reads a csv file with the column `origin`, as in `predictions.csv`, and one for each attribute. An empty cell says nothing.
    ///
    /// # Errors
    /// A file that cannot be read, without these columns or rows, or with an image that has two different rows.
    pub fn read(path: &Path) -> Result<Self, GroupError> {
        let fault = |detail: String| GroupError::Table { path: path.to_owned(), detail };
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(fs_err::File::open(path)?);
        let header = reader.headers().map_err(|error| fault(error.to_string()))?.clone();
        let name = |text: &str| text.trim_start_matches('\u{feff}').to_owned();
        let names: Vec<String> = header.iter().map(name).collect();
        if let Some(twice) = (1..names.len()).find(|&column| names[..column].contains(&names[column])) {
            return Err(fault(format!("two columns are called {:?}", names[twice])));
        }
        if let Some(name) = names.iter().find(|name| RESERVED.contains(&name.as_str())) {
            return Err(fault(format!("a column is called {name:?}, as a row of the tables is")));
        }
        let place = names.iter().position(|name| name.eq_ignore_ascii_case(ORIGIN));
        let place = place.ok_or_else(|| {
            let hint = header_hint(&names.join(""));
            fault(format!("column {ORIGIN} is missing; it has: {}{hint}", names.join(", ")))
        })?;
        // A column without a name is the number of the row, as pandas writes it.
        let groups_by = |column: usize| column != place && !names[column].is_empty();
        let attributes: Vec<String> =
            names.iter().enumerate().filter(|(column, _)| groups_by(*column)).map(|(_, name)| name.clone()).collect();
        if attributes.is_empty() {
            return Err(fault(format!("beside {ORIGIN} there is no column to group by")));
        }
        let (mut cells, mut first) = (HashMap::new(), None);
        for (row, record) in (2..).zip(reader.records()) {
            let record = record.map_err(|error| fault(error.to_string()))?;
            first.get_or_insert_with(|| record[place].to_owned());
            if record.iter().any(|cell| cell.contains('\n')) {
                let line = record.position().map_or(row, csv::Position::line);
                return Err(fault(format!(
                    "the row that begins in line {line} goes on over line ends: a quote in it is not closed"
                )));
            }
            let others = record.iter().enumerate().filter(|(column, _)| groups_by(*column));
            let values: Vec<String> = others.map(|(_, cell)| cell.to_owned()).collect();
            if let Some(name) = values.iter().find(|value| RESERVED.contains(&value.as_str())) {
                return Err(fault(format!("line {row}: a group is called {name:?}, as a row of the tables is")));
            }
            if let Some(earlier) = cells.insert(record[place].to_owned(), values.clone())
                && earlier != values
            {
                return Err(fault(format!("line {row}: {} stands there twice, with other values", &record[place])));
            }
        }
        let first = first.ok_or_else(|| fault("it has no rows".to_owned()))?;
        Ok(Self { path: path.to_owned(), attributes, cells, first })
    }

    /// The rows of the images that come from `origins`.
    ///
    /// # Errors
    /// Not one row, or one for two images.
    pub fn rows<'a>(
        &self,
        origins: impl Iterator<Item = &'a str> + Clone,
    ) -> Result<Vec<Option<&[String]>>, GroupError> {
        let mut named: HashMap<&str, &str> = HashMap::new();
        let mut rows = Vec::new();
        for origin in origins.clone() {
            let row = self.row(origin);
            if let Some((row, _)) = row
                && *named.entry(row).or_insert(origin) != origin
            {
                let (row, one, other) = (row.clone(), named[row.as_str()].to_owned(), origin.to_owned());
                return Err(GroupError::Ambiguous { path: self.path.clone(), row, one, other });
            }
            rows.push(row.map(|(_, cells)| cells.as_slice()));
        }
        if named.is_empty() {
            let origin = origins.clone().next().unwrap_or_default().to_owned();
            return Err(GroupError::NoImage { path: self.path.clone(), first: self.first.clone(), origin });
        }
        Ok(rows)
    }

    /// The row of the image that comes from `origin`, with the name that it has there.
    fn row(&self, origin: &str) -> Option<(&String, &Vec<String>)> {
        ends(origin).find_map(|end| self.cells.get_key_value(end))
    }

    /// What to say of rows that name none of the images of `split`, which come from `origins`, if there are any.
    pub fn unused<'a>(&self, split: &str, origins: impl Iterator<Item = &'a str>) -> Option<String> {
        let used: HashSet<&String> = origins.filter_map(|origin| self.row(origin)).map(|(name, _)| name).collect();
        let (rows, unused) = (self.cells.len(), self.cells.len() - used.len());
        let path = self.path.display();
        (unused > 0).then(|| format!("{path}: origins that name no image of {split} that was read: {unused} of {rows}"))
    }

    /// The figures of each group of `predictions` of `split`.
    ///
    /// # Errors
    /// No image of the table, or predictions that cannot be evaluated.
    pub fn scores(&self, split: &str, predictions: &Predictions) -> Result<Vec<Attribute>, GroupError> {
        let rows = self.rows(predictions.rows.iter().map(|row| row.origin.as_str()))?;
        let labels = Labels::new(&predictions.labels)
            .map_err(|error| GroupError::Table { path: self.path.clone(), detail: error.to_string() })?;
        let one = |(column, name): (usize, &String)| {
            let mut groups: BTreeMap<&str, Vec<&PredictionRow>> = BTreeMap::new();
            let mut unknown = 0;
            for (cells, prediction) in rows.iter().zip(&predictions.rows) {
                match cells.map(|cells| cells[column].as_str()) {
                    None | Some("") => unknown += 1,
                    Some(group) => groups.entry(group).or_default().push(prediction),
                }
            }
            let mut groups: Vec<_> = groups.into_iter().collect();
            groups.sort_by(|(one, _), (other, _)| number_of(one).total_cmp(&number_of(other)));
            let groups = groups.into_iter().map(|(group, rows)| Ok((group, evaluated(split, &labels, &rows)?)));
            let groups: Vec<(&str, Evaluation)> = groups.collect::<Result<_, EvaluationError>>()?;
            let scores = |(index, (group, evaluation)): (usize, &(&str, Evaluation))| {
                let others = groups.iter().enumerate().filter(|&(other, _)| other != index);
                let others = others.map(|(_, (_, evaluation))| evaluation.confusion.as_slice());
                let mut scores = GroupScores::new(group, evaluation);
                scores.difference = Difference::between(&scores.recalls, &recalls(&evaluation.labels, &sum(others)));
                scores
            };
            Ok(Attribute { name: name.clone(), groups: groups.iter().enumerate().map(scores).collect(), unknown })
        };
        self.attributes.iter().enumerate().map(one).collect()
    }
}

/// `origin`, and what of it follows each separator of folders, the longest first.
fn ends(origin: &str) -> impl Iterator<Item = &str> {
    let separated = origin.match_indices(['/', '\\']).map(|(place, separator)| &origin[place + separator.len()..]);
    std::iter::once(origin).chain(separated)
}

/// The number that a group's name begins with, or infinity.
fn number_of(group: &str) -> f64 {
    let ends = group.char_indices().map(|(place, letter)| place + letter.len_utf8());
    let number = |end: usize| {
        let start = &group[..end];
        let plain = start.chars().all(|letter| letter.is_ascii_digit() || matches!(letter, '.' | '-'));
        if plain { start.parse().ok() } else { None }
    };
    ends.rev().find_map(number).unwrap_or(f64::INFINITY)
}

fn evaluated(split: &str, labels: &Labels, rows: &[&PredictionRow]) -> Result<Evaluation, EvaluationError> {
    let truth: Vec<usize> = rows.iter().map(|row| row.truth).collect();
    let probabilities: Vec<f32> = rows.iter().flat_map(|row| row.probabilities.iter().copied()).collect();
    Evaluation::compute(split, labels, &truth, &probabilities)
}

/// Confusion matrices added up; empty of none.
fn sum<'a>(confusions: impl Iterator<Item = &'a [Vec<usize>]>) -> Vec<Vec<usize>> {
    let mut sum: Vec<Vec<usize>> = Vec::new();
    for confusion in confusions {
        if sum.is_empty() {
            sum = confusion.to_vec();
            continue;
        }
        for (sum, count) in sum.iter_mut().flatten().zip(confusion.iter().flatten()) {
            *sum += count;
        }
    }
    sum
}

/// See [`GroupScores::recalls`]; `confusion[true class][predicted class]` counts images.
fn recalls(labels: &[String], confusion: &[Vec<usize>]) -> Vec<ClassRate> {
    let rate = |(class, (label, row)): (usize, (&String, &Vec<usize>))| {
        let support = row.iter().sum();
        (support > 0).then(|| ClassRate::new(label, row[class], support))
    };
    labels.iter().zip(confusion).enumerate().filter_map(rate).collect()
}

/// See [`GroupScores::false_positive_rates`].
fn false_positive_rates(labels: &[String], confusion: &[Vec<usize>]) -> Vec<ClassRate> {
    let rate = |(class, label): (usize, &String)| {
        let others = || confusion.iter().enumerate().filter(|&(truth, _)| truth != class).map(|(_, row)| row);
        let support = others().flatten().sum();
        (support > 0).then(|| ClassRate::new(label, others().map(|row| row[class]).sum(), support))
    };
    labels.iter().enumerate().filter_map(rate).collect()
}

impl GroupScores {
    /// The figures of all images of `evaluation`, as those of a group.
    pub fn new(group: &str, evaluation: &Evaluation) -> Self {
        let confidence = evaluation.mean_confidence;
        let [low, high] = evaluation.accuracy_interval;
        let recalls = recalls(&evaluation.labels, &evaluation.confusion);
        Self {
            group: group.to_owned(),
            n: evaluation.n,
            classes: recalls.len(),
            accuracy: evaluation.accuracy,
            accuracy_interval: evaluation.accuracy_interval,
            balanced_accuracy: evaluation.balanced_accuracy,
            balanced_accuracy_interval: Some(mean_interval(&recalls)),
            macro_f1: evaluation.macro_f1,
            log_loss: evaluation.log_loss,
            ece: evaluation.ece,
            ece_by_chance: evaluation.ece_by_chance,
            mean_confidence: confidence,
            overconfidence_interval: Some([confidence - high, confidence - low]),
            recalls,
            false_positive_rates: false_positive_rates(&evaluation.labels, &evaluation.confusion),
            difference: None,
        }
    }
}

fn mean(rates: &[ClassRate]) -> f64 {
    rates.iter().map(|class| class.rate).sum::<f64>() / rates.len() as f64
}

/// See [`GroupScores::balanced_accuracy_interval`].
fn mean_interval(rates: &[ClassRate]) -> [f64; 2] {
    let reach = |end: usize| {
        let squares = rates.iter().map(|class| (class.rate - class.rate_interval[end]).powi(2));
        squares.sum::<f64>().sqrt() / rates.len() as f64
    };
    [mean(rates) - reach(0), mean(rates) + reach(1)]
}

impl Attribute {
    /// Whether its groups have images of the same classes, without which their balanced accuracies are means of different things.
    pub fn same_classes(&self) -> bool {
        let classes = |group: &GroupScores| group.recalls.iter().map(|class| class.label.clone()).collect::<Vec<_>>();
        self.groups.windows(2).all(|pair| classes(&pair[0]) == classes(&pair[1]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Result<GroupTable, GroupError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("groups.csv");
        fs_err::write(&path, text).unwrap();
        GroupTable::read(&path)
    }

    fn predictions() -> Predictions {
        let labels = Labels::new(["happy", "sad"]).unwrap();
        let origins = ["a.png", "b.png", "c.png", "d.png"].map(str::to_owned);
        let probabilities = [0.9, 0.1, 0.2, 0.8, 0.6, 0.4, 0.5, 0.5];
        Predictions::new(&labels, &origins, &[0, 0, 0, 1], &probabilities).unwrap()
    }

    /// All images of [`predictions`], of which one is wrong of either class.
    fn all() -> GroupScores {
        let labels = Labels::new(["happy", "sad"]).unwrap();
        let probabilities = [0.9, 0.1, 0.2, 0.8, 0.6, 0.4, 0.5, 0.5];
        GroupScores::new("all", &Evaluation::compute("test", &labels, &[0, 0, 0, 1], &probabilities).unwrap())
    }

    fn both(one: &GroupScores, other: &GroupScores) -> Attribute {
        Attribute { name: "either".to_owned(), groups: vec![one.clone(), other.clone()], unknown: 0 }
    }

    #[test]
    fn columns_without_a_name_are_passed_over_and_what_cannot_be_told_apart_is_refused() {
        // As pandas writes a table, with its index.
        let with_index = table(",Origin,age\n0,a,young\n1,b,old\n").unwrap();
        assert_eq!(
            (with_index.attributes, with_index.cells["b"].clone()),
            (vec!["age".to_owned()], vec!["old".to_owned()])
        );
        for (text, message) in [
            (",origin\n0,a\n", "no column to group by"),
            ("origin,all images\na,b\n", "a column is called \"all images\""),
            ("origin,age\na,young\nb,(not known)\n", "line 3: a group is called \"(not known)\""),
            ("origin,age\na,young\nb,\"old\nc,old\n", "begins in line 3 goes on over line ends"),
        ] {
            let found = table(text).map(drop).unwrap_err().to_string();
            assert!(found.contains(message), "{found}");
        }
    }

    #[test]
    fn each_group_has_its_own_figures() {
        let table =
            table("\u{feff}age,origin, camera\nold,a.png,x\nold,\"b.png\",\nyoung,c.png,x\n,zzz.png,y\n").unwrap();
        let [age, camera] = &table.scores("test", &predictions()).unwrap()[..] else { panic!() };
        assert_eq!((age.name.as_str(), age.unknown, camera.name.as_str(), camera.unknown), ("age", 1, "camera", 2));
        let facts = |attribute: &Attribute| {
            attribute.groups.iter().map(|it| (it.group.clone(), it.n, it.accuracy)).collect::<Vec<_>>()
        };
        assert_eq!(facts(age), [("old".to_owned(), 2, 0.5), ("young".to_owned(), 1, 1.0)]);
        assert_eq!(facts(camera), [("x".to_owned(), 2, 1.0)]);
        assert!((age.groups[0].mean_confidence - 0.85).abs() < 1e-6);
        assert!(age.groups[1].accuracy_interval[0] < 0.3, "{:?}", age.groups[1]);
        let recalls = |group: &GroupScores| {
            group.recalls.iter().map(|it| (it.label.clone(), it.support, it.rate)).collect::<Vec<_>>()
        };
        assert_eq!(recalls(&age.groups[0]), [("happy".to_owned(), 2, 0.5)]);
        assert_eq!(age.groups[0].recalls[0].rate_interval, age.groups[0].accuracy_interval);
        let [low, high] = age.groups[0].balanced_accuracy_interval.unwrap();
        let [of_one_low, of_one_high] = age.groups[0].accuracy_interval;
        assert!((low - of_one_low).abs() < 1e-12 && (high - of_one_high).abs() < 1e-12, "a mean of one class");
        assert!(age.same_classes() && !both(&age.groups[0], &all()).same_classes());
        // Recalls of 2 in 3 (Wilson: 0.2077 to 0.9385) and 0 in 1 (0 to 0.7935), by hand.
        let [low, high] = all().balanced_accuracy_interval.unwrap();
        assert!((low - (2.0 / 3.0 - 0.458_92) / 2.0).abs() < 1e-4, "{low}");
        assert!(
            (high - (2.0 / 3.0 + (0.271_86_f64.powi(2) + 0.793_45_f64.powi(2)).sqrt()) / 2.0).abs() < 1e-4,
            "{high}"
        );
        // Of the three happy images one is called sad; of the one sad image none is not called happy.
        let false_positives: Vec<_> =
            all().false_positive_rates.iter().map(|it| (it.label.clone(), it.support, it.rate)).collect();
        assert_eq!(false_positives, [("happy".to_owned(), 1, 1.0), ("sad".to_owned(), 3, 1.0 / 3.0)]);
        let rows = &predictions().rows;
        let unused = table.unused("test", rows.iter().map(|row| row.origin.as_str())).unwrap();
        assert!(unused.ends_with("groups.csv: origins that name no image of test that was read: 1 of 4"), "{unused}");
    }

    #[test]
    fn a_group_is_compared_with_the_images_of_all_others() {
        let labels = Labels::new(["happy", "sad"]).unwrap();
        // Happy: 8 of 10 right in a, 3 of 10 in b, 1 of 10 in c. Sad: all of 2 right, in a alone.
        let right = [(0, 0, 8), (0, 1, 3), (0, 2, 1)];
        let mut images: Vec<(usize, &str, bool)> = vec![(1, "a", true); 2];
        for (truth, group, count) in right {
            images.extend((0..10).map(|image| (truth, ["a", "b", "c"][group], image < count)));
        }
        let origins: Vec<String> = (0..images.len()).map(|image| format!("{image}.png")).collect();
        let truth: Vec<usize> = images.iter().map(|image| image.0).collect();
        let happy = images.iter().map(|&(truth, _, right)| if (truth == 0) == right { 0.9 } else { 0.1 });
        let probabilities: Vec<f32> = happy.flat_map(|happy| [happy, 1.0 - happy]).collect();
        let predictions = Predictions::new(&labels, &origins, &truth, &probabilities).unwrap();
        let mut text = "origin,age\n".to_owned();
        text.extend(images.iter().zip(&origins).map(|((_, group, _), origin)| format!("{origin},{group}\n")));
        let groups = &table(&text).unwrap().scores("test", &predictions).unwrap()[0].groups;
        // 8 of 10 against 4 of 20, without the class that the others have not: Newcombe (1998), method 10, by hand from Wilson's
        // intervals 0.4902 to 0.9433 and 0.0807 to 0.4160.
        let difference = groups[0].difference.unwrap();
        let [low, high] = difference.interval;
        assert_eq!(difference.classes, 1);
        assert!((difference.balanced_accuracy - 0.6).abs() < 1e-12, "{difference:?}");
        assert!((low - (0.6 - 0.3098_f64.hypot(0.2160))).abs() < 1e-4, "{low}");
        assert!((high - (0.6 + 0.1433_f64.hypot(0.1193))).abs() < 1e-4, "{high}");
        // 3 of 10 against 9 of 20.
        assert!((groups[1].difference.unwrap().balanced_accuracy + 0.15).abs() < 1e-12);
        // One group has no others.
        let alone = table(&text.replace(",b", ",a").replace(",c", ",a")).unwrap().scores("test", &predictions).unwrap();
        assert_eq!(alone[0].groups[0].difference, None);
    }

    /// Where all are right, too, which no deviation of the images would tell.
    #[test]
    fn how_much_too_sure_a_model_is_of_a_group_has_an_interval() {
        let labels = Labels::new(["happy", "sad"]).unwrap();
        let origins: Vec<String> = (0..20).map(|image| format!("{image}.png")).collect();
        let truth: Vec<usize> = (0..20).map(|image| if image < 10 { image % 2 } else { 0 }).collect();
        let predictions = Predictions::new(&labels, &origins, &truth, &[0.75, 0.25].repeat(20)).unwrap();
        let mut text = "origin,age\n".to_owned();
        text.extend((0..20).map(|image| format!("{image}.png,{}\n", if image < 10 { "half right" } else { "right" })));
        let scores = table(&text).unwrap().scores("test", &predictions).unwrap();
        let intervals: Vec<[f64; 2]> = scores[0].groups.iter().map(|it| it.overconfidence_interval.unwrap()).collect();
        // Wilson's intervals of 5 and of 10 in 10: 0.2366 to 0.7634, and 0.7225 to 1.
        let expected = [[0.75 - 0.7634, 0.75 - 0.2366], [0.75 - 1.0, 0.75 - 0.7225]];
        let near = |(one, other): (&f64, &f64)| (one - other).abs() < 1e-4;
        assert!(intervals.as_flattened().iter().zip(expected.as_flattened()).all(near), "{intervals:?}");
    }

    #[test]
    fn groups_that_begin_with_numbers_are_in_their_order() {
        let table = table("origin,age\na.png,10-19\nb.png,old\nc.png,3-9\nd.png,-1.5\n").unwrap();
        let scores = table.scores("test", &predictions()).unwrap();
        let names: Vec<&str> = scores[0].groups.iter().map(|it| it.group.as_str()).collect();
        assert_eq!(names, ["-1.5", "3-9", "10-19", "old"]);
        assert!(["", "-", ".", "é1", "old-3"].iter().all(|name| number_of(name) == f64::INFINITY));
        assert_eq!(["1.2.3", "2..5", "18+", "-2-1"].map(number_of), [1.2, 2.0, 18.0, -2.0]);
    }

    #[test]
    fn tables_of_no_use_are_refused_with_what_is_wrong() {
        for (text, says) in [
            ("path,age\na.png,old\n", "column origin is missing; it has: path, age"),
            ("origin;age\na.png;old\n", "it has: origin;age; commas must separate them"),
            ("origin\na.png\n", "no column to group by"),
            ("origin,age\n", "it has no rows"),
            ("origin,age\na.png,old\na.png,young\n", "line 3: a.png stands there twice"),
            ("origin,age\na.png\n", "line: 2"),
            ("origin,age,age\na.png,old,old\n", "two columns are called \"age\""),
        ] {
            let message = table(text).unwrap_err().to_string();
            assert!(message.contains(says) && message.contains("groups.csv"), "{message}");
        }
        let all = table("origin,age\n1.png,old\nb/2.png,young\n").unwrap();
        let origins = ["/data/a/1.png", "/data/b/2.png", "/data/a/2.png", "/data/a/1.png"];
        let ages = all.rows(origins.into_iter()).unwrap().into_iter().map(|cells| cells.map(|cells| cells[0].as_str()));
        assert_eq!(ages.collect::<Vec<_>>(), [Some("old"), Some("young"), None, Some("old")]);
        let message = all.rows(["a/1.png", "b/1.png"].into_iter()).unwrap_err().to_string();
        assert!(message.contains("\"1.png\" names both \"a/1.png\" and \"b/1.png\""), "{message}");
        let message = table("origin,age\nx.png,old\n").unwrap().scores("test", &predictions()).unwrap_err().to_string();
        assert!(message.contains("\"x.png\"") && message.contains("\"a.png\""), "{message}");
    }
}
