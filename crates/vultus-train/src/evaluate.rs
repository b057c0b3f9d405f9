//! What a classifier is worth, in numbers.
//!
//! In: the true classes of a split and one row of probabilities an image. Out: an [`Evaluation`], which every table and
//! figure of the report is made from, also back from its file, and [`Predictions`], the same rows one by one. It runs no
//! network, chooses no threshold and selects nothing.
//!
//! Definitions are those of scikit-learn where it has them, against which a golden test holds them: a ratio without cases is 0
//! (`zero_division=0`), macro averages run over the classes that have images or were predicted, balanced accuracy over those
//! that have images.

pub mod groups;
pub mod pictures;
mod predictions;
mod reliability;

use std::ffi::OsStr;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use vultus::classifier::highest;
use vultus::inference::Inference;
use vultus::labels::Labels;

use crate::run::{EVALUATION, check_lengths, read_json, refuse};

use groups::Attribute;
pub use predictions::{ConfusedPair, PredictionRow, Predictions};
use reliability::Reliability;
pub use reliability::ReliabilityBin;

/// The table of [`Predictions`] in the directory of an evaluation.
pub(crate) const PREDICTIONS: &str = "predictions.csv";

/// How far the probabilities of one image may be from the sum 1.
const SUM_TOLERANCE: f32 = 1e-3;

/// The least probability that the log loss tells apart: f32's epsilon, as in scikit-learn.
pub const LEAST_PROBABILITY: f32 = f32::EPSILON;

/// Two-sided 95 % quantile of the normal distribution.
pub(crate) const NORMAL_QUANTILE: f64 = 1.959_963_984_540_054;

/// Precision, recall and F1 of one class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassScores {
    /// Class name.
    pub label: String,
    /// Number of images that truly are of this class.
    pub support: usize,
    /// Share of the images called this class that are of it; 0 when none is called so.
    pub precision: f64,
    /// Share of this class's images that are called so; 0 when there are none.
    pub recall: f64,
    /// Harmonic mean of precision and recall; 0 when both are 0.
    pub f1: f64,
    /// Mean over all images of the probability of this class: above the class's share of the images by more than chance, the
    /// model gives it too much. Evaluations of earlier versions have none, nor the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean_probability: Option<f64>,
    /// Expected calibration error of this class's probabilities, of all images (one class's part of the class-wise error of Kull
    /// et al. 2019, "Beyond temperature scaling").
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ece: Option<f64>,
}

/// How near the answers come to the shares of several people's votes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VoteScores {
    /// Number of images that have votes.
    pub n: usize,
    /// Mean over them of the cross-entropy of the votes, `-sum(q ln p)` with shares q of the votes and p as in `log_loss`
    /// (Barsoum et al. 2016, "cross-entropy loss").
    pub log_loss: f64,
    /// The least that it can be: the mean entropy of the votes, `-sum(q ln q)`.
    pub entropy: f64,
}

impl VoteScores {
    /// From rows of votes' shares and of probabilities, both `[classes]`; `None` without any.
    pub fn compute<'a>(rows: impl Iterator<Item = (Vec<f32>, &'a [f32])>) -> Option<Self> {
        let (mut n, mut loss, mut entropy) = (0, 0.0, 0.0);
        for (shares, probabilities) in rows {
            n += 1;
            for (&share, &p) in shares.iter().zip(probabilities).filter(|&(&share, _)| share > 0.0) {
                loss += f64::from(share) * cross_entropy(p, LEAST_PROBABILITY);
                entropy += f64::from(share) * cross_entropy(share, LEAST_PROBABILITY);
            }
        }
        let mean = |sum: f64| sum / n as f64;
        (n > 0).then(|| Self { n, log_loss: mean(loss), entropy: mean(entropy) })
    }
}

/// A model that an evaluation is of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvaluatedModel {
    /// The run's directory or the model's file, and the folder that it lies in. Evaluations of earlier versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// SHA-256 of its weights, see [`crate::fingerprint::weights_fingerprint`].
    pub weights_sha256: String,
    /// Its views and its temperature.
    pub inference: Inference,
}

/// Images of the split that were not counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// How many.
    pub images: usize,
    /// Their class, which the model does not know or was not asked for, in the form `class disgust`; or why they were removed, see
    /// [`crate::dataset::RemovalReason::name`].
    pub reason: String,
}

/// All metrics of one split. Shares and scores are between 0 and 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Name of the split that was evaluated.
    pub split: String,
    /// Number of images.
    pub n: usize,
    /// SHA-256 of the images and their classes, see [`crate::fingerprint::images_fingerprint`]: equal for equal images that were
    /// brought to the same size. Evaluations of earlier versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images_sha256: Option<String>,
    /// Version of the program that made it. Evaluations of earlier versions have none, and no models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The models whose probabilities were averaged; mostly one.
    #[serde(default)]
    pub models: Vec<EvaluatedModel>,
    /// Images of the split that were not counted; none where all were.
    #[serde(default)]
    pub left_out: Vec<LeftOut>,
    /// What makes the figures doubtful, such as images that were learnt or that stand there twice; each a sentence.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// The same figures for groups of images, where a table told of some.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Attribute>,
    /// Class names, in the order of all rows and columns below.
    pub labels: Vec<String>,
    /// Share of images whose highest probability is that of their true class.
    pub accuracy: f64,
    /// 95 % confidence interval of the accuracy `[low, high]` (Wilson's score interval).
    pub accuracy_interval: [f64; 2],
    /// Mean F1 over the classes that have images or were predicted.
    pub macro_f1: f64,
    /// Mean recall over the classes that have images.
    pub balanced_accuracy: f64,
    /// Share of images whose true class is among the two highest probabilities.
    pub top2_accuracy: f64,
    /// Mean [`cross_entropy`] of the true class, with p taken for [`LEAST_PROBABILITY`] below that.
    pub log_loss: f64,
    /// Mean over the images of the sum over the classes of (p - y)^2, where y is 1 for the true class and 0 for others (Brier
    /// 1950): 0 at best, 2 at worst. Evaluations of earlier versions have none, nor `ece_by_chance`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brier_score: Option<f64>,
    /// Expected calibration error: mean |accuracy - confidence| over the bins, weighted by their counts.
    pub ece: f64,
    /// What `ece` stays below in about 95 of 100 samples of as many images if the highest probabilities are exact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ece_by_chance: Option<f64>,
    /// Mean of the highest probability.
    pub mean_confidence: f64,
    /// The same answers against FER+'s votes, where the classes are FER+'s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub votes: Option<VoteScores>,
    /// Counts `[classes][classes]`: rows are true classes, columns predicted ones.
    pub confusion: Vec<Vec<usize>>,
    /// The same, each row divided by its sum; a row without images stays 0.
    pub confusion_normalized: Vec<Vec<f64>>,
    /// One entry a class, in label order.
    pub per_class: Vec<ClassScores>,
    /// 15 bins of the top score.
    pub reliability: Vec<ReliabilityBin>,
}

/// Why there is no evaluation.
#[derive(Debug, thiserror::Error)]
pub enum EvaluationError {
    /// The split holds no image.
    #[error("split {0:?} has no images to evaluate")]
    Empty(String),
    /// The slices do not belong together.
    #[error("{images} images and {classes} classes need {expected} probabilities, not {found}")]
    Length {
        /// Number of true classes given.
        images: usize,
        /// Number of labels.
        classes: usize,
        /// Product of the two.
        expected: usize,
        /// Number of probabilities given.
        found: usize,
    },
    /// As many origins as images are needed.
    #[error("{images} images need as many origins, not {origins}")]
    Origins {
        /// Number of true classes given.
        images: usize,
        /// Number of origins given.
        origins: usize,
    },
    /// A true class beyond the label list.
    #[error("row {row}: true class {truth} is beyond the {classes} labels")]
    Truth {
        /// Index of the image.
        row: usize,
        /// Its class index.
        truth: usize,
        /// Number of labels.
        classes: usize,
    },
    /// A value that is no probability.
    #[error("row {row}: {value} is no probability (class {label:?}): the model may have diverged")]
    NotAProbability {
        /// Index of the image.
        row: usize,
        /// Class of the value.
        label: String,
        /// The value.
        value: f32,
    },
    /// The probabilities of an image do not sum to 1.
    #[error("row {row}: probabilities sum to {sum}, not to 1: pass the output of a softmax")]
    Sum {
        /// Index of the image.
        row: usize,
        /// What they sum to.
        sum: f32,
    },
    /// The table of predictions could not be written; the system's message names the path.
    #[error("predictions: {0}")]
    Write(#[from] io::Error),
}

impl EvaluationError {
    /// Index of the image that is at fault, where it is one.
    pub fn row(&self) -> Option<usize> {
        match self {
            Self::Truth { row, .. } | Self::NotAProbability { row, .. } | Self::Sum { row, .. } => Some(*row),
            _ => None,
        }
    }
}

/// Cross-entropy of one image whose true class has probability `p`: `-ln p`, with p taken for `least` below that, so that
/// one probability of 0 does not make a mean infinite. What is no number stays none. As a metric it is scikit-learn's, with
/// [`LEAST_PROBABILITY`]; what is minimised or monitored tells all normal numbers apart, with [`f32::MIN_POSITIVE`].
pub fn cross_entropy(p: f32, least: f32) -> f64 {
    // `f32::max` would turn NaN into the other value.
    -f64::from(if p < least { least } else { p }).ln()
}

impl Evaluation {
    /// Reads `evaluation.json` from `directory`, which is called as the split.
    ///
    /// # Errors
    /// As [`Evaluation::read`], and another split.
    pub fn load(directory: &Path) -> io::Result<Self> {
        let evaluation = Self::read(directory)?;
        if directory.file_name() != Some(OsStr::new(&evaluation.split)) {
            let fault = format!("is {:?}, and not the name of its directory", evaluation.split);
            return refuse(&directory.join(EVALUATION), "split", &fault);
        }
        Ok(evaluation)
    }

    /// Reads `evaluation.json` from `directory`.
    ///
    /// # Errors
    /// A file that is missing or damaged, or lists of other lengths than the labels; the message names file and key.
    pub fn read(directory: &Path) -> io::Result<Self> {
        let path = directory.join(EVALUATION);
        let evaluation: Self = read_json(&path)?;
        let Self { confusion, confusion_normalized, per_class, .. } = &evaluation;
        let rows = |key: &str, index: usize, length: usize| (format!("{key}[{index}]"), length);
        let counts = confusion.iter().enumerate().map(|(index, row)| rows("confusion", index, row.len()));
        let shares = confusion_normalized.iter().enumerate();
        let shares = shares.map(|(index, row)| rows("confusion_normalized", index, row.len()));
        let whole = [
            ("confusion".to_owned(), confusion.len()),
            ("confusion_normalized".to_owned(), confusion_normalized.len()),
            ("per_class".to_owned(), per_class.len()),
        ];
        check_lengths(&path, evaluation.labels.len(), whole.into_iter().chain(counts).chain(shares))?;
        Ok(evaluation)
    }

    /// Precision, recall and F1 of class number `class`: no precision if no image is called so, no recall if none is of it, and no
    /// F1 if neither.
    ///
    /// # Panics
    /// If there is no such class.
    pub fn class_scores(&self, class: usize) -> [Option<f64>; 3] {
        let scores = &self.per_class[class];
        let called: usize = self.confusion.iter().map(|row| row[class]).sum();
        let (has_images, is_called) = (scores.support > 0, called > 0);
        [
            is_called.then_some(scores.precision),
            has_images.then_some(scores.recall),
            (has_images || is_called).then_some(scores.f1),
        ]
    }

    /// Computes all metrics of a split from true class indices `truth` `[n]` and row-major `probabilities`
    /// `[n, classes]`. Of equal probabilities the class with the lower index ranks higher.
    ///
    /// # Errors
    /// No image, slices that do not fit together, a class index beyond the labels, NaN or another value outside 0..1,
    /// a row that does not sum to 1; each names the row.
    pub fn compute(
        split: &str,
        labels: &Labels,
        truth: &[usize],
        probabilities: &[f32],
    ) -> Result<Self, EvaluationError> {
        if truth.is_empty() {
            return Err(EvaluationError::Empty(split.to_owned()));
        }
        check(labels, truth, probabilities)?;
        let classes = labels.len();
        let mut confusion = vec![vec![0_usize; classes]; classes];
        let (mut within_two, mut loss, mut squares, mut confidence_sum) = (0_usize, 0.0_f64, 0.0_f64, 0.0_f64);
        let rows = || truth.iter().copied().zip(probabilities.chunks_exact(classes));
        for (truth, row) in rows() {
            let predicted = highest(row);
            confusion[truth][predicted] += 1;
            within_two += usize::from(rank(row, truth) < 2);
            loss += cross_entropy(row[truth], LEAST_PROBABILITY);
            squares += squared_distance(row, truth);
            confidence_sum += f64::from(row[predicted]);
        }
        let n = truth.len();
        let correct: usize = (0..classes).map(|class| confusion[class][class]).sum();
        let of_class = |class: usize| rows().map(move |(truth, row)| (f64::from(row[class]), truth == class));
        let per_class: Vec<ClassScores> = (labels.names().iter().enumerate())
            .map(|(class, label)| class_scores(class, label, &confusion, of_class(class)))
            .collect();
        let with_images: Vec<f64> =
            per_class.iter().filter(|scores| scores.support > 0).map(|scores| scores.recall).collect();
        // As scikit-learn has it where nobody names the classes.
        let answered = |class: usize| confusion.iter().any(|row| row[class] > 0);
        let with_answers: Vec<f64> = (0..classes)
            .filter(|&class| per_class[class].support > 0 || answered(class))
            .map(|class| per_class[class].f1)
            .collect();
        let top = |(truth, row): (usize, &[f32])| (f64::from(row[highest(row)]), highest(row) == truth);
        let reliability = Reliability::of(rows().map(top));
        Ok(Self {
            split: split.to_owned(),
            n,
            images_sha256: None,
            version: None,
            models: Vec::new(),
            left_out: Vec::new(),
            notes: Vec::new(),
            groups: Vec::new(),
            labels: labels.names().to_vec(),
            accuracy: ratio(correct, n),
            accuracy_interval: wilson_interval(correct, n),
            macro_f1: mean(&with_answers),
            balanced_accuracy: mean(&with_images),
            top2_accuracy: ratio(within_two, n),
            log_loss: loss / n as f64,
            brier_score: Some(squares / n as f64),
            ece: reliability.error(),
            ece_by_chance: Some(reliability.error_by_chance()),
            mean_confidence: confidence_sum / n as f64,
            votes: None,
            confusion_normalized: confusion
                .iter()
                .map(|row| row.iter().map(|&count| ratio(count, row.iter().sum())).collect())
                .collect(),
            confusion,
            per_class,
            reliability: reliability.bins(),
        })
    }
}

/// Wilson's 95 % score interval `[low, high]` of `successes` out of `trials`; `[0, 1]` without trials.
pub fn wilson_interval(successes: usize, trials: usize) -> [f64; 2] {
    if trials == 0 {
        return [0.0, 1.0];
    }
    let n = trials as f64;
    let share = successes as f64 / n;
    let square = NORMAL_QUANTILE * NORMAL_QUANTILE;
    let centre = share + square / (2.0 * n);
    let margin = NORMAL_QUANTILE * (share * (1.0 - share) / n + square / (4.0 * n * n)).sqrt();
    let scale = 1.0 + square / n;
    // The exact ends at 0 and 1 are met only up to rounding.
    let low = if successes == 0 { 0.0 } else { (centre - margin) / scale };
    let high = if successes == trials { 1.0 } else { (centre + margin) / scale };
    [low, high]
}

/// Refuses slices that do not fit together and rows that are no probabilities.
fn check(labels: &Labels, truth: &[usize], probabilities: &[f32]) -> Result<(), EvaluationError> {
    let (images, classes, found) = (truth.len(), labels.len(), probabilities.len());
    let expected = images * classes;
    if found != expected {
        return Err(EvaluationError::Length { images, classes, expected, found });
    }
    for (row, (&truth, values)) in truth.iter().zip(probabilities.chunks_exact(classes)).enumerate() {
        if truth >= classes {
            return Err(EvaluationError::Truth { row, truth, classes });
        }
        if let Some(class) = values.iter().position(|&value| !is_probability(value)) {
            let (label, value) = (labels.name(class).to_owned(), values[class]);
            return Err(EvaluationError::NotAProbability { row, label, value });
        }
        let sum: f32 = values.iter().sum();
        if (sum - 1.0).abs() > SUM_TOLERANCE {
            return Err(EvaluationError::Sum { row, sum });
        }
    }
    Ok(())
}

/// Whether it is one, but for rounding.
fn is_probability(value: f32) -> bool {
    (-SUM_TOLERANCE..=1.0 + SUM_TOLERANCE).contains(&value)
}

/// Number of classes that rank above `class`.
fn rank(row: &[f32], class: usize) -> usize {
    let above = |(other, &value): (usize, &f32)| value > row[class] || (value == row[class] && other < class);
    row.iter().enumerate().filter(|&entry| above(entry)).count()
}

/// Sum over the classes of (p - y)^2, where y is 1 for the class `truth` and 0 for others.
fn squared_distance(row: &[f32], truth: usize) -> f64 {
    let square = |(class, &p): (usize, &f32)| (f64::from(p) - f64::from(u8::from(class == truth))).powi(2);
    row.iter().enumerate().map(square).sum()
}

/// `probabilities` are those of the class for all images, each with whether the image is of it.
fn class_scores(
    class: usize,
    label: &str,
    confusion: &[Vec<usize>],
    probabilities: impl Iterator<Item = (f64, bool)> + Clone,
) -> ClassScores {
    let correct = confusion[class][class];
    let support: usize = confusion[class].iter().sum();
    let called: usize = confusion.iter().map(|row| row[class]).sum();
    let n: usize = confusion.iter().flatten().sum();
    ClassScores {
        label: label.to_owned(),
        support,
        precision: ratio(correct, called),
        recall: ratio(correct, support),
        f1: ratio(2 * correct, support + called),
        mean_probability: Some(probabilities.clone().map(|(p, _)| p).sum::<f64>() / n as f64),
        ece: Some(Reliability::of(probabilities).error()),
    }
}

fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}

#[cfg(test)]
mod tests;
