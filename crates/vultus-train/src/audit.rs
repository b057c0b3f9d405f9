//! What is wrong with a data set, counted and with examples.
//!
//! In: a [`Dataset`]. Out: an [`Audit`]: blank images, exact duplicates, duplicates with different labels, images that
//! stand in more than one split, images that most FER+ taggers call no face. Identity is exact: the same size and the
//! same pixels. It removes nothing: see [`crate::clean`].

use std::collections::{BTreeMap, BTreeSet, HashMap};

use image::GrayImage;
use rayon::prelude::*;
use serde::Serialize;

use crate::dataset::{Dataset, Removal};
use crate::source::ferplus::is_not_a_face;

/// Below this standard deviation of its pixels (0..255) an image is nearly flat. In FER-2013 the two flat images lie
/// at 0.6 and 4.1, the darkest real faces at 9.1 and above.
pub const FLAT_STANDARD_DEVIATION: f64 = 5.0;

/// Examples that are listed for each finding.
const EXAMPLES: usize = 10;

/// How an image can have nothing on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Blank {
    /// Every pixel is 0.
    Black,
    /// The standard deviation is below [`FLAT_STANDARD_DEVIATION`].
    NearlyFlat,
}

/// Whether there is nothing on an image.
pub fn blank(image: &GrayImage) -> Option<Blank> {
    if image.iter().all(|&pixel| pixel == 0) {
        return Some(Blank::Black);
    }
    (standard_deviation(image) < FLAT_STANDARD_DEVIATION).then_some(Blank::NearlyFlat)
}

/// Standard deviation of the pixels (0..255) of one image.
fn standard_deviation(image: &GrayImage) -> f64 {
    let count = image.len().max(1) as f64;
    let (sum, squares) = image.iter().fold((0_u64, 0_u64), |(sum, squares), &pixel| {
        (sum + u64::from(pixel), squares + u64::from(pixel) * u64::from(pixel))
    });
    let mean = sum as f64 / count;
    (squares as f64 / count - mean * mean).max(0.0).sqrt()
}

/// Images with some fault.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How many.
    pub images: usize,
    /// Origins of the first of them.
    pub examples: Vec<String>,
}

impl Finding {
    fn of<'a>(origins: impl Iterator<Item = &'a str>) -> Self {
        let mut finding = Self::default();
        for origin in origins {
            finding.images += 1;
            if finding.examples.len() < EXAMPLES {
                finding.examples.push(origin.to_owned());
            }
        }
        finding
    }
}

/// Groups of images with the same pixels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Groups {
    /// Groups of two or more.
    pub groups: usize,
    /// Images in these groups.
    pub images: usize,
    /// Images that would go if one of each group stayed.
    pub redundant: usize,
    /// Origins of the members of the first groups.
    pub examples: Vec<Vec<String>>,
}

/// Findings within one split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SplitAudit {
    /// Split name.
    pub split: String,
    /// Images in it.
    pub images: usize,
    /// Images with every pixel 0.
    pub black: Finding,
    /// Other images below [`FLAT_STANDARD_DEVIATION`].
    pub nearly_flat: Finding,
    /// Images that stand more than once in this split.
    pub duplicates: Groups,
    /// Those of the duplicates that carry different labels.
    pub conflicts: Groups,
    /// Images whose majority of FER+ votes calls them no face, which are those that `cleaning.not_a_face` drops; `None` if no
    /// image of the split has votes.
    pub not_a_face: Option<Finding>,
}

/// Images that stand in two splits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Leak {
    /// The one split (`train`, where it takes part).
    pub first: String,
    /// The other split.
    pub second: String,
    /// Images of the second split that also stand in the first.
    pub images_of_second: usize,
    /// Images of the first split that also stand in the second.
    pub images_of_first: usize,
    /// Images of the second split that stand in the first with another label.
    pub conflicting: usize,
    /// Origins of the first pairs: one in the first split, one in the second.
    pub examples: Vec<(String, String)>,
}

/// All findings.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Audit {
    /// Usable images.
    pub images: usize,
    /// Images that would go if one copy of each stayed, over all splits.
    pub redundant: usize,
    /// Findings for each split, `train` first.
    pub splits: Vec<SplitAudit>,
    /// Each pair of splits, with or without common images.
    pub leaks: Vec<Leak>,
    /// Images that were taken out while reading.
    pub removed: Vec<Removal>,
}

impl Audit {
    /// Looks at every image of the data set.
    pub fn compute(dataset: &Dataset) -> Self {
        let groups = groups_of_equal_pixels(dataset, 0..dataset.samples.len());
        let blanks: Vec<Option<Blank>> = dataset.samples.par_iter().map(|sample| blank(&sample.image)).collect();
        let names = dataset.splits();
        let splits = names.iter().map(|split| SplitAudit::compute(dataset, split, &blanks, &groups)).collect();
        let mut leaks = Vec::new();
        for (place, first) in names.iter().enumerate() {
            for second in &names[place + 1..] {
                leaks.push(Leak::compute(dataset, first, second, &groups));
            }
        }
        Self {
            images: dataset.samples.len(),
            redundant: groups.iter().map(|group| group.len() - 1).sum(),
            splits,
            leaks,
            removed: dataset.removed.clone(),
        }
    }
}

impl SplitAudit {
    fn compute(dataset: &Dataset, split: &str, blanks: &[Option<Blank>], groups: &[Vec<usize>]) -> Self {
        let members = dataset.indices_of(split);
        let with = |kind: Blank| {
            let found = members.iter().filter(|&&index| blanks[index] == Some(kind));
            Finding::of(found.map(|&index| dataset.samples[index].origin.as_str()))
        };
        let inside: Vec<Vec<usize>> = groups
            .iter()
            .map(|group| group.iter().copied().filter(|&index| dataset.samples[index].split == split).collect())
            .filter(|group: &Vec<usize>| group.len() > 1)
            .collect();
        let has_votes = members.iter().any(|&index| dataset.samples[index].votes.is_some());
        let not_a_face = has_votes.then(|| {
            let samples = members.iter().map(|&index| &dataset.samples[index]);
            let found = samples.filter(|sample| sample.votes.as_ref().is_some_and(is_not_a_face));
            Finding::of(found.map(|sample| sample.origin.as_str()))
        });
        Self {
            split: split.to_owned(),
            images: members.len(),
            black: with(Blank::Black),
            nearly_flat: with(Blank::NearlyFlat),
            conflicts: Groups::of(dataset, inside.iter().filter(|group| has_conflict(dataset, group))),
            duplicates: Groups::of(dataset, inside.iter()),
            not_a_face,
        }
    }
}

impl Groups {
    fn of<'a>(dataset: &Dataset, groups: impl Iterator<Item = &'a Vec<usize>>) -> Self {
        let mut found = Self::default();
        for group in groups {
            found.groups += 1;
            found.images += group.len();
            found.redundant += group.len() - 1;
            if found.examples.len() < EXAMPLES {
                found.examples.push(group.iter().map(|&index| dataset.samples[index].origin.clone()).collect());
            }
        }
        found
    }
}

impl Leak {
    fn compute(dataset: &Dataset, first: &str, second: &str, groups: &[Vec<usize>]) -> Self {
        let mut leak = Self {
            first: first.to_owned(),
            second: second.to_owned(),
            images_of_second: 0,
            images_of_first: 0,
            conflicting: 0,
            examples: Vec::new(),
        };
        for group in groups {
            let of_split = |split: &str| -> Vec<usize> {
                group.iter().copied().filter(|&index| dataset.samples[index].split == split).collect()
            };
            let (in_first, in_second) = (of_split(first), of_split(second));
            let (Some(&example_first), Some(&example_second)) = (in_first.first(), in_second.first()) else {
                continue;
            };
            leak.images_of_first += in_first.len();
            leak.images_of_second += in_second.len();
            let label = |index: usize| dataset.samples[index].label;
            let first_labels: BTreeSet<usize> = in_first.iter().map(|&index| label(index)).collect();
            leak.conflicting +=
                in_second.iter().filter(|&&index| first_labels.iter().any(|&other| other != label(index))).count();
            if leak.examples.len() < EXAMPLES {
                let origin = |index: usize| dataset.samples[index].origin.clone();
                leak.examples.push((origin(example_first), origin(example_second)));
            }
        }
        leak
    }
}

/// Whether the members of a group carry different labels.
pub(crate) fn has_conflict(dataset: &Dataset, group: &[usize]) -> bool {
    group.windows(2).any(|pair| dataset.samples[pair[0]].label != dataset.samples[pair[1]].label)
}

/// The groups of two or more samples among `indices` with the same pixels, each in the order of `indices`, ordered by
/// their first members.
pub(crate) fn groups_of_equal_pixels(dataset: &Dataset, indices: impl IntoIterator<Item = usize>) -> Vec<Vec<usize>> {
    let mut by_pixels: HashMap<(u32, u32, &[u8]), Vec<usize>> = HashMap::new();
    for index in indices {
        let image = &dataset.samples[index].image;
        by_pixels.entry((image.width(), image.height(), image.as_raw())).or_default().push(index);
    }
    let ordered: BTreeMap<usize, Vec<usize>> =
        by_pixels.into_values().filter(|group| group.len() > 1).map(|group| (group[0], group)).collect();
    ordered.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clean::{CleaningConfig, Policy, Scope, clean};
    use crate::dataset::Sample;
    use crate::source::{LoadOptions, Source, load};
    use image::Luma;
    use vultus::labels::Labels;
    use vultus::preprocess::Preprocessing;

    fn sample(number: u8, label: usize, split: &str) -> Sample {
        // Faces with a different pattern for each number.
        let image =
            GrayImage::from_fn(4, 4, |x, y| Luma([number.wrapping_mul(37).wrapping_add((x * 60 + y * 9) as u8)]));
        Sample { image, label, split: split.to_owned(), origin: format!("{split} {number} {label}"), votes: None }
    }

    fn dataset(samples: Vec<Sample>) -> Dataset {
        Dataset { labels: Labels::new(["angry", "happy"]).unwrap(), samples, removed: Vec::new() }
    }

    #[test]
    fn duplicates_conflicts_and_leaks_are_counted_apart() {
        let audit = Audit::compute(&dataset(vec![
            sample(1, 0, "train"),
            sample(2, 0, "train"),
            sample(1, 0, "train"),
            sample(3, 0, "train"),
            sample(3, 1, "train"),
            sample(3, 1, "train"),
            sample(3, 1, "test"),
            sample(2, 0, "test"),
            sample(9, 0, "test"),
        ]));
        let train = &audit.splits[0];
        let numbers = |groups: &Groups| (groups.groups, groups.images, groups.redundant);
        assert_eq!((train.split.as_str(), train.images), ("train", 6));
        assert_eq!(numbers(&train.duplicates), (2, 5, 3));
        assert_eq!(numbers(&train.conflicts), (1, 3, 2));
        assert_eq!(train.duplicates.examples[0], ["train 1 0", "train 1 0"]);
        assert_eq!(numbers(&audit.splits[1].duplicates), (0, 0, 0));
        let leak = &audit.leaks[0];
        assert_eq!((leak.images_of_first, leak.images_of_second, leak.conflicting), (4, 2, 1));
        assert_eq!(audit.redundant, 5);
        assert_eq!(train.not_a_face, None);
    }

    #[test]
    fn blank_images_and_non_faces_are_found() {
        let mut samples: Vec<Sample> = (1..6).map(|number| sample(number, 0, "train")).collect();
        samples[0].image = GrayImage::new(4, 4);
        samples[1].image = GrayImage::from_fn(4, 4, |x, _| Luma([100 + x as u8]));
        samples[2].votes = Some([0, 0, 0, 0, 0, 0, 0, 0, 0, 10]);
        samples[3].votes = Some([0, 0, 0, 0, 0, 0, 0, 0, 1, 9]);
        samples[4].votes = Some([5, 0, 0, 0, 0, 0, 0, 0, 0, 5]);
        let audit = Audit::compute(&dataset(samples));
        let train = &audit.splits[0];
        assert_eq!(train.black.examples, ["train 1 0"]);
        assert_eq!(train.nearly_flat.examples, ["train 2 0"]);
        assert_eq!(train.not_a_face.as_ref().unwrap().examples, ["train 3 0", "train 4 0"]);
    }

    #[test]
    fn the_known_faults_of_fer2013_come_out() {
        let Some(path) = crate::dataset::fer2013() else { return };
        let dataset = load(&[Source::Parquet(path)], &Preprocessing::default(), &LoadOptions::default()).unwrap();
        let audit = Audit::compute(&dataset);
        let [train, public] = &audit.splits[..] else { panic!("two splits") };
        assert_eq!((train.images, public.images), (28_709, 3_589));
        assert_eq!((train.duplicates.groups, train.duplicates.images), (1_035, 2_271));
        assert_eq!((train.conflicts.groups, train.conflicts.images), (39, 107));
        assert_eq!(audit.leaks[0].images_of_second, 280);
        // Of all 35,887 images 12 are black, 2 nearly flat and 176 no faces, as all ten taggers say; the rest are in the private split.
        assert_eq!((train.black.images, public.black.images), (11, 1));
        assert_eq!((train.nearly_flat.images, public.nearly_flat.images), (1, 1));
        let not_a_face = |split: &SplitAudit| split.not_a_face.as_ref().unwrap().images;
        assert_eq!((not_a_face(train), not_a_face(public)), (150, 10));
        let policy = CleaningConfig { not_a_face: Policy::Drop, scope: Scope::All, ..CleaningConfig::default() };
        let removed = clean(dataset, &policy, "train").unwrap().removed;
        assert_eq!(removed.iter().filter(|row| row.split == "train").count(), not_a_face(train));
        assert_eq!(removed.iter().filter(|row| row.split == "public_test").count(), not_a_face(public));
        assert!(removed.iter().all(|row| row.detail == "10 of 10 taggers"), "{removed:?}");
    }
}
