//! A finished model, or several as one, on a split of some data set.
//!
//! In: bundles and a data set. Out: metrics, predictions and the pictures worth looking at, in memory and as the files
//! of `evaluation/<split>/`. It selects nothing and changes no model.

use std::path::Path;

use vultus::bundle::{Bundle, BundleFault};
use vultus::classifier::Classifier;

use crate::batches::dataset_probabilities;
use crate::dataset::{Dataset, split_name};
use crate::evaluate::pictures::Pictures;
use crate::evaluate::{Evaluation, EvaluationError, Predictions};
use crate::prepare::{NoSplit, split_indices};
use crate::run::write_json;

/// Metrics, predictions and pictures of one split.
#[derive(Clone, Debug)]
pub struct Assessment {
    /// The metrics.
    pub evaluation: Evaluation,
    /// Every image's probabilities.
    pub predictions: Predictions,
    /// Pictures worth looking at.
    pub pictures: Pictures,
    /// Images of classes that the model does not know, by class.
    pub ignored: Vec<(String, usize)>,
}

/// A model or data that do not go together.
#[derive(Debug, thiserror::Error)]
pub enum AssessError {
    /// The split is not there.
    #[error(transparent)]
    NoSplit(#[from] NoSplit),
    /// The metrics cannot be computed.
    #[error(transparent)]
    Evaluation(#[from] EvaluationError),
    /// The bundle's parts do not belong together.
    #[error(transparent)]
    Bundle(#[from] BundleFault),
    /// Models that cannot answer together.
    #[error("the models of an ensemble need the same classes and preprocessing: {0}")]
    Ensemble(String),
    /// The data have a class that the model was never taught.
    #[error(
        "split {split} has {count} images of class \"{class}\", which the model does not know (it knows: {known}): \
         remove them with --drop-class {class}, or use a model that was trained on them"
    )]
    UnknownClass {
        /// The split.
        split: String,
        /// The class.
        class: String,
        /// Its images.
        count: usize,
        /// Classes of the model.
        known: String,
    },
    /// A picture cannot be encoded.
    #[error("a picture cannot be encoded: {0}")]
    Picture(#[from] image::ImageError),
    /// The system's refusal, naming the path.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Runs `bundles` on `split`, in any spelling; the probabilities of several are averaged. Images of classes in `dropped` that the model does not know are left out and counted; any
/// other class it does not know is an error.
///
/// # Errors
/// See [`AssessError`].
pub fn assess(
    bundles: &[Bundle],
    dataset: &Dataset,
    split: &str,
    dropped: &[String],
) -> Result<Assessment, AssessError> {
    let split = split_name::meant_by(split);
    let Some((bundle, others)) = bundles.split_first() else {
        return Err(AssessError::Ensemble("there are none".to_owned()));
    };
    for other in others {
        if other.labels != bundle.labels {
            return Err(AssessError::Ensemble(format!("{} and {}", bundle.labels, other.labels)));
        }
        if other.preprocessing != bundle.preprocessing {
            return Err(AssessError::Ensemble(format!("{:?} and {:?}", bundle.preprocessing, other.preprocessing)));
        }
    }
    let label_of: Vec<Option<usize>> = dataset.labels.names().iter().map(|name| bundle.labels.index_of(name)).collect();
    let all = split_indices(dataset, split)?;
    let mut ignored = Vec::new();
    for (index, count) in dataset.class_counts(&all).into_iter().enumerate() {
        let class = dataset.labels.name(index);
        if label_of[index].is_some() || count == 0 {
            continue;
        }
        if !dropped.iter().any(|name| vultus::labels::canonical(name) == class) {
            return Err(AssessError::UnknownClass {
                split: split.to_owned(),
                class: class.to_owned(),
                count,
                known: bundle.labels.names().join(", "),
            });
        }
        ignored.push((class.to_owned(), count));
    }
    let mut indices = Vec::with_capacity(all.len());
    let mut truth = Vec::with_capacity(all.len());
    for index in all {
        if let Some(label) = label_of[dataset.samples[index].label] {
            indices.push(index);
            truth.push(label);
        }
    }
    let origins: Vec<String> = indices.iter().map(|&index| dataset.samples[index].origin.clone()).collect();
    let members = bundles.iter().cloned().map(Classifier::from_bundle).collect::<Result<Vec<_>, _>>()?;
    let classify = |pixels: &[f32]| mean_of(members.iter().map(|member| member.probabilities(pixels)));
    let probabilities = dataset_probabilities(classify, &bundle.preprocessing, dataset, &indices);
    let evaluation = Evaluation::compute(split, &bundle.labels, &truth, &probabilities)?;
    let predictions = Predictions::new(&bundle.labels, &origins, &truth, &probabilities)?;
    let face = |row: usize| &dataset.samples[indices[row]].image;
    let pictures = Pictures::pick(&predictions, face)?;
    Ok(Assessment { evaluation, predictions, pictures, ignored })
}

/// The mean of equally long lists.
fn mean_of(lists: impl ExactSizeIterator<Item = Vec<f32>>) -> Vec<f32> {
    let part = 1.0 / lists.len() as f32;
    let sum = lists.reduce(|mut sum, list| {
        sum.iter_mut().zip(list).for_each(|(sum, value)| *sum += value);
        sum
    });
    sum.unwrap_or_default().into_iter().map(|value| value * part).collect()
}

impl Assessment {
    /// Writes `evaluation.json`, `predictions.csv` and the pictures into `directory`.
    ///
    /// # Errors
    /// The system's refusal, naming the path.
    pub fn save(&self, directory: &Path) -> Result<(), AssessError> {
        fs_err::create_dir_all(directory)?;
        self.predictions.write_csv(&directory.join("predictions.csv"))?;
        self.pictures.save(directory)?;
        Ok(write_json(&directory.join("evaluation.json"), &self.evaluation)?)
    }
}
