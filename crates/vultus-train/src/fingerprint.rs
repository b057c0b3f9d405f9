//! SHA-256 of data sets and files, by which checkpoints, journals and models know again what they were made with.
//!
//! In: a [`Dataset`], or a file. Out: hexadecimal digits that are equal exactly for equal contents, wherever these lie.

use std::collections::BTreeSet;
use std::path::Path;

use sha2::{Digest, Sha256};
use vultus::weights::Weights;

use crate::dataset::Dataset;

/// Of labels, splits, sizes and pixels of all samples in order: two runs with the same value have seen the same images.
/// Votes are not in it, see [`votes_fingerprint`].
pub fn fingerprint(dataset: &Dataset) -> String {
    fingerprint_of(dataset, 0..dataset.samples.len())
}

/// As [`fingerprint`], over the samples of `split`.
pub fn split_fingerprint(dataset: &Dataset, split: &str) -> String {
    fingerprint_of(dataset, dataset.indices_of(split))
}

/// As [`fingerprint`], over the samples at `indices` in that order.
pub fn fingerprint_of(dataset: &Dataset, indices: impl IntoIterator<Item = usize>) -> String {
    let mut hash = Sha256::new();
    let mut text = |text: &str| {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    };
    dataset.labels.names().iter().for_each(|name| text(name));
    for sample in indices.into_iter().map(|index| &dataset.samples[index]) {
        hash.update((sample.label as u64).to_le_bytes());
        hash.update((sample.split.len() as u64).to_le_bytes());
        hash.update(sample.split.as_bytes());
        hash.update(sample.image.width().to_le_bytes());
        hash.update(sample.image.height().to_le_bytes());
        hash.update(sample.image.as_raw());
    }
    hexadecimal(&hash.finalize())
}

/// Of sizes, pixels and classes of the samples at `indices`, in whatever order they are and whatever their split is called.
pub fn images_fingerprint(dataset: &Dataset, indices: &[usize]) -> String {
    let one = |&index: &usize| {
        let mut hash = pixels(dataset, index);
        hash.update(dataset.labels.name(dataset.samples[index].label).as_bytes());
        hash.finalize()
    };
    let mut all: Vec<_> = indices.iter().map(one).collect();
    all.sort_unstable();
    hexadecimal(&of_all(all).finalize())
}

/// Of the different sizes and pixels among the samples at `indices`, whatever their order, splits and classes are.
pub fn pixels_fingerprint(dataset: &Dataset, indices: &[usize]) -> String {
    let different: BTreeSet<_> = indices.iter().map(|&index| pixels(dataset, index).finalize()).collect();
    hexadecimal(&of_all(different).finalize())
}

fn pixels(dataset: &Dataset, index: usize) -> Sha256 {
    let image = &dataset.samples[index].image;
    let mut hash = Sha256::new();
    hash.update(image.width().to_le_bytes());
    hash.update(image.height().to_le_bytes());
    hash.update(image.as_raw());
    hash
}

fn of_all(hashes: impl IntoIterator<Item: AsRef<[u8]>>) -> Sha256 {
    hashes.into_iter().fold(Sha256::new(), |hash, one| hash.chain_update(one))
}

/// Of the names, shapes and values of all tensors.
pub fn weights_fingerprint(weights: &Weights) -> String {
    let mut hash = Sha256::new();
    for (name, tensor) in weights.iter() {
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name.as_bytes());
        hash.update((tensor.shape.len() as u64).to_le_bytes());
        tensor.shape.iter().for_each(|&extent| hash.update((extent as u64).to_le_bytes()));
        tensor.data.iter().for_each(|value| hash.update(value.to_le_bytes()));
    }
    hexadecimal(&hash.finalize())
}

/// Of the FER+ votes of the samples at `indices` in that order. What does not learn from votes does not depend on it.
pub fn votes_fingerprint(dataset: &Dataset, indices: impl IntoIterator<Item = usize>) -> String {
    let mut hash = Sha256::new();
    for votes in indices.into_iter().map(|index| dataset.samples[index].votes) {
        hash.update([u8::from(votes.is_some())]);
        hash.update(votes.unwrap_or_default());
    }
    hexadecimal(&hash.finalize())
}

/// Of a file's bytes.
///
/// # Errors
/// The system's refusal, naming the path.
pub fn file_fingerprint(path: &Path) -> std::io::Result<String> {
    Ok(hexadecimal(&Sha256::digest(fs_err::read(path)?)))
}

/// Two digits a byte.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use image::{GrayImage, Luma};
    use vultus::labels::Labels;

    use super::*;
    use crate::dataset::Sample;

    fn dataset() -> Dataset {
        let sample = |value: u8, label: usize, split: &str| Sample {
            image: GrayImage::from_pixel(2, 1, Luma([value])),
            label,
            split: split.to_owned(),
            origin: String::new(),
            votes: None,
        };
        Dataset {
            labels: Labels::new(["happy", "sad"]).unwrap(),
            samples: vec![sample(0, 0, "train"), sample(200, 1, "train"), sample(100, 1, "test")],
            removed: Vec::new(),
        }
    }

    #[test]
    fn images_are_pixels_labels_and_splits() {
        let original = fingerprint(&dataset());
        assert_eq!(original.len(), 64);
        let changed = |change: fn(&mut Dataset)| {
            let mut other = dataset();
            change(&mut other);
            fingerprint(&other)
        };
        assert_eq!(changed(|other| other.samples[0].origin.push_str("elsewhere")), original);
        assert_eq!(changed(|other| other.samples[0].votes = Some([1; 10])), original);
        assert_ne!(changed(|other| other.samples[0].image.put_pixel(0, 0, Luma([1]))), original);
        assert_ne!(changed(|other| other.samples[0].label = 1), original);
        assert_ne!(changed(|other| other.samples[0].split.push('s')), original);
    }

    #[test]
    fn the_same_images_in_another_order_are_the_same() {
        let mut other = dataset();
        other.samples.reverse();
        other.samples[0].split.push('s');
        let all = images_fingerprint(&dataset(), &[0, 1, 2]);
        assert_eq!(images_fingerprint(&other, &[0, 1, 2]), all);
        other.samples[2].label = 1;
        assert_ne!(images_fingerprint(&other, &[0, 1, 2]), all);
        assert_ne!(images_fingerprint(&dataset(), &[0, 1]), all);
        let pixels = pixels_fingerprint(&dataset(), &[0, 1, 2]);
        assert_eq!(pixels_fingerprint(&dataset(), &[2, 0, 1, 0]), pixels);
        assert_ne!(pixels_fingerprint(&dataset(), &[0, 1]), pixels);
    }

    #[test]
    fn votes_are_told_apart() {
        let of = |votes: [Option<[u8; 10]>; 3]| {
            let mut data = dataset();
            data.samples.iter_mut().zip(votes).for_each(|(sample, votes)| sample.votes = votes);
            votes_fingerprint(&data, 0..3)
        };
        let none = of([None; 3]);
        assert_eq!(none, of([None; 3]));
        let zeros = of([Some([0; 10]), None, None]);
        let all =
            [none, zeros, of([None, Some([0; 10]), None]), of([Some([0, 0, 0, 0, 0, 0, 0, 0, 0, 1]), None, None])];
        for (index, one) in all.iter().enumerate() {
            assert!(!all[..index].contains(one), "{index}");
        }
    }
}
