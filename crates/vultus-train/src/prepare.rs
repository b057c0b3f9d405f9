//! From the configuration to samples that are ready for training: read, clean, split. What can be wrong with a
//! configuration in the light of its data is found here, before a run begins.

use vultus::network::NetworkError;

use crate::clean::clean;
use crate::config::TrainConfig;
use crate::dataset::{DataError, Dataset};
use crate::device::{DeviceError, device};
use crate::source::{LoadOptions, Source, load};
use crate::split::stratified_split;

/// A cleaned data set and the indices of its training and validation parts.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// All samples that are left.
    pub dataset: Dataset,
    /// Indices that are trained on, in reading order.
    pub train: Vec<usize>,
    /// Indices that validate.
    pub validation: Vec<usize>,
}

/// Data that cannot be prepared.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// Reading or cleaning failed.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The split is not in the data.
    #[error("there are no images in split {split}; the data has: {present}")]
    NoSplit {
        /// Name that was asked for.
        split: String,
        /// Names that are there.
        present: String,
    },
    /// A class that could be predicted and never learnt.
    #[error(
        "class \"{class}\" has images, but none in split {split}, which is trained on: name it in cleaning.drop_classes, \
         or add training images"
    )]
    Untrained {
        /// The class.
        class: String,
        /// The split.
        split: String,
    },
    /// The network does not fit the pictures or the classes.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// There is no such device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The training images cannot be split.
    #[error("split {split}: {reason}")]
    Split {
        /// The split that is trained on.
        split: String,
        /// Why, with the class's name.
        reason: String,
    },
}

/// Reads and cleans the configured sources.
///
/// # Errors
/// See [`DataError`].
pub fn read(config: &TrainConfig) -> Result<Dataset, DataError> {
    let sources = config.data.sources.iter().map(|text| Source::parse(text)).collect::<Result<Vec<_>, _>>()?;
    let options = LoadOptions { synthetic: config.data.synthetic.clone(), ..LoadOptions::default() };
    let dataset = load(&sources, &config.preprocessing, &options)?;
    clean(dataset, &config.cleaning, &config.data.train_split)
}

/// Reads, cleans and splits.
///
/// # Errors
/// See [`PrepareError`].
pub fn prepare(config: &TrainConfig) -> Result<Prepared, PrepareError> {
    device(&config.device)?;
    let dataset = read(config)?;
    let (height, width) = (config.preprocessing.height as usize, config.preprocessing.width as usize);
    config.network.resolve(height, width, dataset.labels.len())?;
    for split in &config.data.evaluate_splits {
        split_indices(&dataset, split)?;
    }
    let indices = training_indices(config, &dataset)?;
    let labels: Vec<usize> = indices.iter().map(|&index| dataset.samples[index].label).collect();
    let (train, validation) = if config.train.validation_fraction > 0.0 {
        stratified_split(&labels, config.train.validation_fraction, config.seed).map_err(|error| {
            PrepareError::Split { split: config.data.train_split.clone(), reason: error.message(&dataset.labels) }
        })?
    } else {
        ((0..labels.len()).collect(), Vec::new())
    };
    let pick = |positions: Vec<usize>| positions.into_iter().map(|position| indices[position]).collect();
    Ok(Prepared { train: pick(train), validation: pick(validation), dataset })
}

/// Indices of the split that is trained on, in which every class must have images.
///
/// # Errors
/// No such split, or a class that only other splits have.
pub fn training_indices(config: &TrainConfig, dataset: &Dataset) -> Result<Vec<usize>, PrepareError> {
    let split = &config.data.train_split;
    let indices = split_indices(dataset, split)?;
    match dataset.class_counts(&indices).iter().position(|&count| count == 0) {
        None => Ok(indices),
        Some(class) => {
            Err(PrepareError::Untrained { class: dataset.labels.name(class).to_owned(), split: split.clone() })
        }
    }
}

/// Indices of `split`.
///
/// # Errors
/// A split without images names those that have some.
pub fn split_indices(dataset: &Dataset, split: &str) -> Result<Vec<usize>, PrepareError> {
    let indices = dataset.indices_of(split);
    if indices.is_empty() {
        let present = dataset.splits().join(", ");
        return Err(PrepareError::NoSplit { split: split.to_owned(), present });
    }
    Ok(indices)
}
