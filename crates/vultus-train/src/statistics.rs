//! What a data set consists of, in numbers.
//!
//! In: a [`Dataset`]. Out: [`Statistics`]: images of each class and split, brightness, and what was removed for which
//! reason. It judges nothing (see [`crate::audit`]) and renders nothing.

use std::collections::BTreeMap;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::dataset::{Dataset, RemovalReason};

/// Images of each class in one split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitCounts {
    /// Split name.
    pub split: String,
    /// All images of the split.
    pub images: usize,
    /// Images of each class, in label order.
    pub classes: Vec<usize>,
}

/// Images removed for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovalCount {
    /// The reason.
    pub reason: RemovalReason,
    /// Images removed for it.
    pub images: usize,
}

/// The numbers of a data set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    /// Class names in index order.
    pub labels: Vec<String>,
    /// Usable images.
    pub images: usize,
    /// Counts of each split, `train` first.
    pub splits: Vec<SplitCounts>,
    /// Images of each class over all splits, in label order.
    pub classes: Vec<usize>,
    /// Mean of all pixels, 0..255; 0 without images.
    pub pixel_mean: f64,
    /// Standard deviation of all pixels, 0..255.
    pub pixel_standard_deviation: f64,
    /// Images that carry FER+ votes.
    pub with_votes: usize,
    /// Removed images by reason; reasons without images are left out.
    pub removed: Vec<RemovalCount>,
}

impl Statistics {
    /// Counts.
    pub fn compute(dataset: &Dataset) -> Self {
        let mut reasons: BTreeMap<RemovalReason, usize> = BTreeMap::new();
        for removal in &dataset.removed {
            *reasons.entry(removal.reason).or_default() += 1;
        }
        let splits: Vec<SplitCounts> = dataset
            .splits()
            .into_iter()
            .map(|split| {
                let members = dataset.indices_of(&split);
                SplitCounts { images: members.len(), classes: dataset.class_counts(&members), split }
            })
            .collect();
        let everything: Vec<usize> = (0..dataset.samples.len()).collect();
        let (pixel_mean, pixel_standard_deviation) = pixel_moments(dataset);
        Self {
            labels: dataset.labels.names().to_vec(),
            images: dataset.samples.len(),
            splits,
            classes: dataset.class_counts(&everything),
            pixel_mean,
            pixel_standard_deviation,
            with_votes: dataset.samples.iter().filter(|sample| sample.votes.is_some()).count(),
            removed: reasons.into_iter().map(|(reason, images)| RemovalCount { reason, images }).collect(),
        }
    }
}

/// Mean and standard deviation of all pixels, from sums of whole numbers: the order of addition does not matter.
fn pixel_moments(dataset: &Dataset) -> (f64, f64) {
    let (count, sum, squares) = dataset
        .samples
        .par_iter()
        .map(|sample| {
            sample.image.iter().fold((0_u64, 0_u64, 0_u64), |(count, sum, squares), &pixel| {
                (count + 1, sum + u64::from(pixel), squares + u64::from(pixel) * u64::from(pixel))
            })
        })
        .reduce(|| (0, 0, 0), |a, b| (a.0 + b.0, a.1 + b.1, a.2 + b.2));
    if count == 0 {
        return (0.0, 0.0);
    }
    let mean = sum as f64 / count as f64;
    (mean, (squares as f64 / count as f64 - mean * mean).max(0.0).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::{Removal, Sample};
    use image::{GrayImage, Luma};
    use vultus::labels::Labels;

    fn dataset() -> Dataset {
        let sample = |value: u8, label: usize, split: &str| Sample {
            image: GrayImage::from_pixel(2, 1, Luma([value])),
            label,
            split: split.to_owned(),
            origin: String::new(),
            votes: None,
        };
        let removal = |reason| Removal {
            origin: "x.png".to_owned(),
            split: "train".to_owned(),
            label: None,
            reason,
            detail: String::new(),
        };
        Dataset {
            labels: Labels::new(["happy", "sad"]).unwrap(),
            samples: vec![sample(0, 0, "train"), sample(200, 1, "train"), sample(100, 1, "test")],
            removed: vec![
                removal(RemovalReason::Missing),
                removal(RemovalReason::Unreadable),
                removal(RemovalReason::Missing),
            ],
        }
    }

    #[test]
    fn everything_is_counted() {
        let statistics = Statistics::compute(&dataset());
        let splits: Vec<(&str, usize, &[usize])> =
            statistics.splits.iter().map(|split| (split.split.as_str(), split.images, &split.classes[..])).collect();
        assert_eq!(splits, [("train", 2, &[1, 1][..]), ("test", 1, &[0, 1][..])]);
        assert_eq!(statistics.classes, [1, 2]);
        assert!((statistics.pixel_mean - 100.0).abs() < 1e-9);
        assert!((statistics.pixel_standard_deviation - (20_000.0_f64 / 3.0).sqrt()).abs() < 1e-9);
        let reasons: Vec<(RemovalReason, usize)> =
            statistics.removed.iter().map(|count| (count.reason, count.images)).collect();
        assert_eq!(reasons, [(RemovalReason::Unreadable, 1), (RemovalReason::Missing, 2)]);
        let json = serde_json::to_value(&statistics).unwrap();
        assert_eq!(json["removed"][1]["reason"], "missing");
    }
}
