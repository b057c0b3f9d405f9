//! From the configuration to samples that are ready for training: read, clean, split. What can be wrong with a
//! configuration in the light of its data is found here, before a run begins.

use vultus::network::NetworkError;

use crate::clean::clean;
use crate::config::{ConfigError, LabelSource, TrainConfig};
use crate::dataset::{DataError, Dataset, split_name};
use crate::device::{DeviceError, device};
use crate::source::ferplus;
use crate::source::{LoadOptions, Source, load};
use crate::split::stratified_split;
use crate::validation::{Validation, held_out_split};

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

impl Prepared {
    /// The data set, with the images that validate in a split of their own, and its name: `train-validation` where they
    /// are a part of `train`. Nothing where no image validates.
    #[must_use]
    pub fn with_validation_split(self) -> Option<(Dataset, String)> {
        let Self { mut dataset, train, validation } = self;
        let split = dataset.samples[*validation.first()?].split.clone();
        if train.first().is_none_or(|&index| dataset.samples[index].split != split) {
            return Some((dataset, split));
        }
        let split = held_out_split(&split);
        for index in validation {
            dataset.samples[index].split.clone_from(&split);
        }
        Some((dataset, split))
    }
}

/// Data that cannot be prepared.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The configuration asks for what it gives no images for.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Reading or cleaning failed.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A split that the configuration names is not in the data.
    #[error("{key}: {missing}")]
    NoConfiguredSplit {
        /// The key that names it.
        key: &'static str,
        /// What is not there, and what is.
        missing: NoSplit,
        /// An assignment that fits the data, if there is a good one.
        remedy: Option<String>,
    },
    /// A class that could be predicted and never learnt.
    #[error(
        "class \"{class}\" has {}: name it in cleaning.drop_classes, or add training images",
        if *elsewhere { format!("images, but none in split {split}, which is trained on") } else { "no images".to_owned() }
    )]
    Untrained {
        /// The class.
        class: String,
        /// The split.
        split: String,
        /// Whether another split has images of it.
        elsewhere: bool,
    },
    /// There is nothing to tell apart.
    #[error(
        "all images are of one class, {0}, and a classifier needs two or more; in a folder, train/ and test/ may lie \
         further down"
    )]
    OneClass(String),
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

/// A split without images.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there are no images in split {split}; the data has: {}", present.join(", "))]
pub struct NoSplit {
    /// Name that was asked for.
    pub split: String,
    /// Names of those that have images.
    pub present: Vec<String>,
}

/// Reads and cleans the configured sources.
///
/// # Errors
/// See [`DataError`].
pub fn read(config: &TrainConfig) -> Result<Dataset, DataError> {
    let sources = config.data.sources.iter().map(|text| Source::parse(text)).collect::<Result<Vec<_>, _>>()?;
    let options = LoadOptions::of(&config.data);
    let dataset = with_labels(load(&sources, &config.preprocessing, &options)?, config.data.labels)?;
    clean(dataset, &config.cleaning, &config.data.train_split)
}

/// The data set with the classes that `labels` says.
///
/// # Errors
/// As [`ferplus::relabel`].
pub fn with_labels(dataset: Dataset, labels: LabelSource) -> Result<Dataset, DataError> {
    match labels {
        LabelSource::Own => Ok(dataset),
        LabelSource::Ferplus => ferplus::relabel(dataset),
    }
}

/// Reads, cleans and splits.
///
/// # Errors
/// See [`PrepareError`].
pub fn prepare(config: &TrainConfig) -> Result<Prepared, PrepareError> {
    config.check_stopping()?;
    device(&config.device)?;
    let dataset = read(config)?;
    if let [only] = dataset.labels.names() {
        return Err(PrepareError::OneClass(only.clone()));
    }
    let (height, width) = (config.preprocessing.height as usize, config.preprocessing.width as usize);
    config.network.resolve(height, width, dataset.labels.len())?;
    for split in &config.data.evaluate_splits {
        split_indices(&dataset, split).map_err(|missing| {
            let chosen = [&config.data.train_split, &config.data.validation_split];
            let others: Vec<&String> = missing.present.iter().filter(|split| !chosen.contains(split)).collect();
            let remedy = Some(format!("data.evaluate_splits={others:?}"));
            PrepareError::NoConfiguredSplit { key: "data.evaluate_splits", missing, remedy }
        })?;
    }
    let indices = training_indices(config, &dataset)?;
    let (train, validation) = match config.validation() {
        Validation::Nothing => return Ok(Prepared { train: indices, validation: Vec::new(), dataset }),
        Validation::Split(split) => {
            let validation = split_indices(&dataset, split).map_err(|missing| {
                let remedy = Some("data.validation_split=\"\"".to_owned());
                PrepareError::NoConfiguredSplit { key: "data.validation_split", missing, remedy }
            })?;
            return Ok(Prepared { train: indices, validation, dataset });
        }
        Validation::Part { fraction, seed } => {
            let labels: Vec<usize> = indices.iter().map(|&index| dataset.samples[index].label).collect();
            stratified_split(&labels, fraction, seed).map_err(|error| PrepareError::Split {
                split: config.data.train_split.clone(),
                reason: error.message(&dataset.labels),
            })?
        }
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
    let indices = split_indices(dataset, split).map_err(|missing| {
        // Nobody should be told to train on what tests.
        let other = missing.present.iter().find(|split| !split_name::is_for_tests(split));
        let remedy = other.map(|split| format!("data.train_split={split}"));
        PrepareError::NoConfiguredSplit { key: "data.train_split", missing, remedy }
    })?;
    match dataset.class_counts(&indices).iter().position(|&count| count == 0) {
        None => Ok(indices),
        Some(class) => Err(PrepareError::Untrained {
            class: dataset.labels.name(class).to_owned(),
            split: split.clone(),
            elsewhere: dataset.samples.iter().any(|sample| sample.label == class),
        }),
    }
}

/// Indices of `split`.
///
/// # Errors
/// A split without images names those that have some.
pub fn split_indices(dataset: &Dataset, split: &str) -> Result<Vec<usize>, NoSplit> {
    let indices = dataset.indices_of(split);
    if indices.is_empty() {
        return Err(NoSplit { split: split.to_owned(), present: dataset.splits() });
    }
    Ok(indices)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use image::{GrayImage, Luma};

    use super::*;
    use crate::clean::Balance;

    /// `split/class/<n>.png` for each entry, all different.
    fn folder(root: &Path, entries: &[(&str, &str, usize)]) -> TrainConfig {
        let mut number = 0_u32;
        for (split, class, count) in entries {
            let directory = root.join(split).join(class);
            fs_err::create_dir_all(&directory).unwrap();
            for index in 0..*count {
                number += 1;
                let face = GrayImage::from_fn(8, 8, |x, y| Luma([(number * 37 + x * y * 5 + x * 11) as u8]));
                face.save(directory.join(format!("{index}.png"))).unwrap();
            }
        }
        let mut config = TrainConfig::default();
        config.data.sources = vec![root.display().to_string()];
        config.train.validation_fraction = 0.0;
        config
    }

    #[test]
    fn a_class_that_only_a_test_set_has_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let entries = [("train", "happy", 3), ("train", "sad", 3), ("test", "happy", 1), ("test", "bored", 1)];
        let mut config = folder(place.path(), &entries);
        let message = prepare(&config).unwrap_err().to_string();
        assert!(message.contains("\"bored\" has images, but none in split train"), "{message}");
        assert!(message.contains("cleaning.drop_classes"), "{message}");
        let mut dataset = read(&config).unwrap();
        dataset.samples.retain(|sample| sample.split == "train");
        let message = training_indices(&config, &dataset).unwrap_err().to_string();
        assert!(message.starts_with("class \"bored\" has no images: "), "{message}");
        config.cleaning.drop_classes = vec!["bored".to_owned()];
        let prepared = prepare(&config).unwrap();
        assert_eq!(prepared.dataset.labels.names(), ["happy", "sad"]);
        assert_eq!(prepared.train.len(), 6);
    }

    #[test]
    fn cleaning_is_about_the_split_that_is_trained_on() {
        let place = tempfile::tempdir().unwrap();
        let entries =
            [("train", "happy", 5), ("train", "sad", 2), ("validation", "happy", 4), ("validation", "sad", 3)];
        let mut config = folder(place.path(), &entries);
        config.data.train_split = "validation".to_owned();
        config.cleaning.balance = Balance::UnderSample;
        let prepared = prepare(&config).unwrap();
        assert_eq!(prepared.dataset.class_counts(&prepared.train), [3, 3]);
        assert_eq!(prepared.dataset.indices_of("train").len(), 7);
    }

    #[test]
    fn a_split_of_its_own_validates_in_place_of_a_part_of_the_training_images() {
        let place = tempfile::tempdir().unwrap();
        let entries = [("train", "happy", 5), ("train", "sad", 2), ("val", "happy", 4), ("val", "sad", 3)];
        let mut config = folder(place.path(), &entries);
        config.train.validation_fraction = 0.4;
        config.data.validation_split = "validation".to_owned();
        let prepared = prepare(&config).unwrap();
        assert_eq!((prepared.train.len(), prepared.validation.len()), (7, 7));
        let (dataset, split) = prepared.with_validation_split().unwrap();
        assert_eq!((split.as_str(), dataset.indices_of("validation").len()), ("validation", 7));
        config.data.validation_split = "test".to_owned();
        let message = prepare(&config).unwrap_err().to_string();
        assert!(message.starts_with("data.validation_split: there are no images in split test"), "{message}");
    }

    #[test]
    fn what_would_fail_later_fails_at_once() {
        let place = tempfile::tempdir().unwrap();
        let config = folder(place.path(), &[("train", "happy", 2), ("train", "sad", 2), ("test", "sad", 1)]);
        let mut other = config.clone();
        other.data.evaluate_splits = vec!["public_test".to_owned()];
        assert_eq!(
            prepare(&other).unwrap_err().to_string(),
            "data.evaluate_splits: there are no images in split public_test; the data has: train, test"
        );
        other.data = config.data.clone();
        other.data.train_split = "validation".to_owned();
        assert!(matches!(
            prepare(&other),
            Err(PrepareError::NoConfiguredSplit { key: "data.train_split", remedy, .. }) if remedy.as_deref() == Some("data.train_split=train")
        ));
        // Nobody is told to train on what tests.
        let tests = tempfile::tempdir().unwrap();
        let error = prepare(&folder(tests.path(), &[("test", "happy", 2), ("test", "sad", 2)])).unwrap_err();
        assert!(
            matches!(error, PrepareError::NoConfiguredSplit { key: "data.train_split", remedy: None, .. }),
            "{error}"
        );
        let mut other = config.clone();
        other.device = "tpu".to_owned();
        assert!(matches!(prepare(&other), Err(PrepareError::Device(_))));
        let mut other = config.clone();
        other.preprocessing.width = 3;
        assert!(matches!(prepare(&other), Err(PrepareError::Network(_))));
        prepare(&config).unwrap();
    }
}
