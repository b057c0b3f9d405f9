//! What is taken out of a data set before training, as configuration.
//!
//! In: a [`Dataset`] and a [`CleaningConfig`]. Out: the data set without what the policies drop, its classes indexed
//! anew, and one row in [`Dataset::removed`] for each image taken out. The defaults take out nothing. Pixels are never
//! changed. Steps run in the order of the fields of [`CleaningConfig`]: each sees what the ones before it left.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vultus::labels::Labels;
use vultus::wording::counted;

use crate::audit::{Blank, blank, groups_of_equal_pixels, has_conflict};
use crate::dataset::{DataError, Dataset, Removal, RemovalReason, Sample};
use crate::source::ferplus::{NOT_A_FACE, is_not_a_face};
use crate::split::{SplitError, shuffled_classes, stratified_subset};

/// Whether images with some fault stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// They stay.
    #[default]
    Keep,
    /// They go.
    Drop,
}

/// Which splits the policies on blank images, conflicts and duplicates touch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Only the split that is trained on: test sets stay comparable with everybody else's.
    #[default]
    Train,
    /// Every split.
    All,
}

/// How classes of different size are evened out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// They are not.
    #[default]
    None,
    /// Every class of the split that is trained on is reduced to the size of its smallest, by seeded choice.
    UnderSample,
}

/// What to take out. See the module for the order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CleaningConfig {
    /// Classes to drop from all splits, by any spelling.
    pub drop_classes: Vec<String>,
    /// Splits that `blank`, `not_a_face`, `conflicts` and `duplicates` touch.
    pub scope: Scope,
    /// Images that are black or nearly flat, see [`crate::audit::blank`].
    pub blank: Policy,
    /// Images that most of FER+'s taggers call no face; without votes, nothing.
    pub not_a_face: Policy,
    /// All images of one split that have the same pixels and different labels.
    pub conflicts: Policy,
    /// Later copies of an image in the same split.
    pub duplicates: Policy,
    /// Images of the split that is trained on that also stand in another one.
    pub leaks: Policy,
    /// Classes with fewer images than this in the split that is trained on are dropped from all splits; 0 drops none.
    /// Without such a split nothing is dropped.
    pub minimum_count: usize,
    /// Part of the split that is trained on that is used, above 0 up to 1: a seeded choice in proportion to the classes.
    pub fraction: f64,
    /// How classes are evened out.
    pub balance: Balance,
    /// Seed of `fraction` and `balance`.
    pub seed: u64,
}

impl Default for CleaningConfig {
    fn default() -> Self {
        Self {
            drop_classes: Vec::new(),
            scope: Scope::Train,
            blank: Policy::Keep,
            not_a_face: Policy::Keep,
            conflicts: Policy::Keep,
            duplicates: Policy::Keep,
            leaks: Policy::Keep,
            minimum_count: 0,
            fraction: 1.0,
            balance: Balance::None,
            seed: 1,
        }
    }
}

/// Why one sample goes, `None` for those that stay; as many as there are samples.
type Verdicts = Vec<Option<Verdict>>;

/// Why a sample goes, and the particulars.
type Verdict = (RemovalReason, String);

/// Applies the policies; `train_split` is the split that is trained on.
///
/// # Errors
/// A class to drop that the data do not have, a fraction outside (0, 1], or nothing left.
pub fn clean(mut dataset: Dataset, config: &CleaningConfig, train_split: &str) -> Result<Dataset, DataError> {
    if !(config.fraction > 0.0 && config.fraction <= 1.0) {
        let detail = format!("it is {}, and must be above 0 and at most 1", config.fraction);
        return Err(DataError::Setting { key: "cleaning.fraction", detail });
    }
    drop_named_classes(&mut dataset, &config.drop_classes)?;
    let splits: Vec<String> = match config.scope {
        Scope::Train => vec![train_split.to_owned()],
        Scope::All => dataset.splits(),
    };
    if config.blank == Policy::Drop {
        let verdicts = blank_verdicts(&dataset, &splits);
        remove(&mut dataset, verdicts);
    }
    if config.not_a_face == Policy::Drop {
        let verdicts = not_a_face_verdicts(&dataset, &splits);
        remove(&mut dataset, verdicts);
    }
    if config.conflicts == Policy::Drop {
        let verdicts = group_verdicts(&dataset, &splits, conflict_verdicts);
        remove(&mut dataset, verdicts);
    }
    if config.duplicates == Policy::Drop {
        let verdicts = group_verdicts(&dataset, &splits, duplicate_verdicts);
        remove(&mut dataset, verdicts);
    }
    if config.leaks == Policy::Drop {
        let groups = groups_of_equal_pixels(&dataset, 0..dataset.samples.len());
        let verdicts = leak_verdicts(&dataset, &groups, train_split);
        remove(&mut dataset, verdicts);
    }
    drop_small_classes(&mut dataset, config.minimum_count, train_split)?;
    if config.fraction < 1.0 {
        keep_fraction(&mut dataset, config.fraction, config.seed, train_split)?;
    }
    if config.balance == Balance::UnderSample {
        under_sample(&mut dataset, config.seed, train_split)?;
    }
    if dataset.samples.is_empty() { Err(DataError::NothingLeft { what: "images" }) } else { Ok(dataset) }
}

/// What every policy finds in `dataset`, in all splits: a row for each image and fault, besides the images that could not be
/// used. An image with several faults has several rows; of copies, all but the first of each split have one. Nothing is
/// removed.
pub fn faults(dataset: &Dataset) -> Vec<Removal> {
    let splits = dataset.splits();
    let mut verdicts = vec![
        blank_verdicts(dataset, &splits),
        not_a_face_verdicts(dataset, &splits),
        group_verdicts(dataset, &splits, conflict_verdicts),
        group_verdicts(dataset, &splits, duplicate_verdicts),
    ];
    let groups = groups_of_equal_pixels(dataset, 0..dataset.samples.len());
    verdicts.extend(splits.iter().map(|split| leak_verdicts(dataset, &groups, split)));
    let mut faults = dataset.removed.clone();
    for (index, sample) in dataset.samples.iter().enumerate() {
        let found = verdicts.iter_mut().filter_map(|verdicts| verdicts[index].take());
        faults.extend(found.map(|verdict| removal(sample, &dataset.labels, verdict)));
    }
    faults
}

/// The rows as csv with a header.
///
/// # Errors
/// None is known.
pub fn rows_of_removed(removed: &[Removal]) -> std::io::Result<Vec<u8>> {
    let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
    writer.write_record(["origin", "split", "label", "reason", "detail"]).map_err(std::io::Error::other)?;
    for removal in removed {
        writer.serialize(removal).map_err(std::io::Error::other)?;
    }
    writer.into_inner().map_err(|error| error.into_error())
}

/// Class weights as scikit-learn's 'balanced': all images / (classes * images of the class). A class without images
/// has weight 0 and does not count as a class.
pub fn class_weights(counts: &[usize]) -> Vec<f32> {
    let images = counts.iter().sum::<usize>() as f64;
    let classes = counts.iter().filter(|&&count| count > 0).count() as f64;
    counts.iter().map(|&count| if count == 0 { 0.0 } else { (images / (classes * count as f64)) as f32 }).collect()
}

/// Takes out the samples with a verdict and writes their rows.
fn remove(dataset: &mut Dataset, verdicts: Verdicts) {
    let samples = std::mem::take(&mut dataset.samples);
    for (sample, verdict) in samples.into_iter().zip(verdicts) {
        match verdict {
            None => dataset.samples.push(sample),
            Some(verdict) => dataset.removed.push(removal(&sample, &dataset.labels, verdict)),
        }
    }
}

/// The row of a sample.
fn removal(sample: &Sample, labels: &Labels, (reason, detail): Verdict) -> Removal {
    let label = Some(labels.name(sample.label).to_owned());
    Removal { origin: sample.origin.clone(), split: sample.split.clone(), label, reason, detail }
}

/// Drops the classes given by name.
fn drop_named_classes(dataset: &mut Dataset, names: &[String]) -> Result<(), DataError> {
    let mut dropped = BTreeMap::new();
    for name in names {
        let Some(class) = dataset.labels.index_of(name) else {
            let known = dataset.labels.to_string();
            return Err(DataError::UnknownClass { key: "cleaning.drop_classes", name: name.clone(), known });
        };
        dropped.insert(class, "the configuration drops this class".to_owned());
    }
    drop_classes(dataset, &dropped)
}

/// Drops the classes with fewer than `minimum` images in `train_split`.
fn drop_small_classes(dataset: &mut Dataset, minimum: usize, train_split: &str) -> Result<(), DataError> {
    let train = dataset.indices_of(train_split);
    if train.is_empty() {
        return Ok(());
    }
    let counts = dataset.class_counts(&train);
    let dropped = counts
        .iter()
        .enumerate()
        .filter(|&(_, &count)| count < minimum)
        .map(|(class, count)| {
            (class, format!("the class has {}, fewer than {minimum}", counted(*count, "training image")))
        })
        .collect();
    drop_classes(dataset, &dropped)
}

/// Drops classes from all splits and indexes the remaining ones anew.
fn drop_classes(dataset: &mut Dataset, dropped: &BTreeMap<usize, String>) -> Result<(), DataError> {
    if dropped.is_empty() {
        return Ok(());
    }
    let kept: Vec<usize> = (0..dataset.labels.len()).filter(|class| !dropped.contains_key(class)).collect();
    if kept.is_empty() {
        return Err(DataError::NothingLeft { what: "classes" });
    }
    let verdicts = dataset
        .samples
        .iter()
        .map(|sample| dropped.get(&sample.label).map(|detail| (RemovalReason::ClassDropped, detail.clone())))
        .collect();
    remove(dataset, verdicts);
    let names: Vec<String> = kept.iter().map(|&class| dataset.labels.name(class).to_owned()).collect();
    let mut new_index = vec![0; dataset.labels.len()];
    for (place, &class) in kept.iter().enumerate() {
        new_index[class] = place;
    }
    for sample in &mut dataset.samples {
        sample.label = new_index[sample.label];
    }
    dataset.labels = Labels::new(names)?;
    Ok(())
}

/// Verdicts on images with nothing on them.
fn blank_verdicts(dataset: &Dataset, splits: &[String]) -> Verdicts {
    let verdict = |sample: &Sample| {
        let detail = match blank(&sample.image).filter(|_| splits.contains(&sample.split))? {
            Blank::Black => "every pixel is 0",
            Blank::NearlyFlat => "the pixels are nearly all the same",
        };
        Some((RemovalReason::Blank, detail.to_owned()))
    };
    dataset.samples.iter().map(verdict).collect()
}

/// Verdicts on images that most taggers call no face.
fn not_a_face_verdicts(dataset: &Dataset, splits: &[String]) -> Verdicts {
    let verdict = |sample: &Sample| {
        let votes = sample.votes.as_ref().filter(|_| splits.contains(&sample.split))?;
        let detail = format!("{} of {} taggers", votes[NOT_A_FACE], votes.iter().map(|&n| u32::from(n)).sum::<u32>());
        is_not_a_face(votes).then_some((RemovalReason::NotAFace, detail))
    };
    dataset.samples.iter().map(verdict).collect()
}

/// Verdicts of `judge` on each group of equal images within each of `splits`.
fn group_verdicts(dataset: &Dataset, splits: &[String], judge: fn(&Dataset, &[usize], &mut Verdicts)) -> Verdicts {
    let mut verdicts = vec![None; dataset.samples.len()];
    for split in splits {
        for group in groups_of_equal_pixels(dataset, dataset.indices_of(split)) {
            judge(dataset, &group, &mut verdicts);
        }
    }
    verdicts
}

/// All of a group go if their labels differ.
fn conflict_verdicts(dataset: &Dataset, group: &[usize], verdicts: &mut Verdicts) {
    if !has_conflict(dataset, group) {
        return;
    }
    let name = |index: usize| dataset.labels.name(dataset.samples[index].label);
    for &index in group {
        let other = group.iter().find(|&&other| name(other) != name(index)).unwrap_or(&index);
        let detail = format!("{} has the same pixels and the label {}", dataset.samples[*other].origin, name(*other));
        verdicts[index] = Some((RemovalReason::Conflict, detail));
    }
}

/// All of a group but the first go.
fn duplicate_verdicts(dataset: &Dataset, group: &[usize], verdicts: &mut Verdicts) {
    if let Some((&first, copies)) = group.split_first() {
        let detail = format!("the same pixels as {}", dataset.samples[first].origin);
        for &copy in copies {
            verdicts[copy] = Some((RemovalReason::Duplicate, detail.clone()));
        }
    }
}

/// Verdicts on images of `split` that also stand in another one; `groups` are those of equal pixels.
fn leak_verdicts(dataset: &Dataset, groups: &[Vec<usize>], split: &str) -> Verdicts {
    let mut verdicts = vec![None; dataset.samples.len()];
    for group in groups {
        let (inside, others): (Vec<usize>, Vec<usize>) =
            group.iter().partition(|&&index| dataset.samples[index].split == split);
        let Some(other) = others.first().map(|&index| &dataset.samples[index]) else { continue };
        for index in inside {
            let detail = format!("the same pixels as {} of {}", other.origin, other.split);
            verdicts[index] = Some((RemovalReason::Leak, detail));
        }
    }
    verdicts
}

/// Keeps a part of `train_split`.
fn keep_fraction(dataset: &mut Dataset, fraction: f64, seed: u64, train_split: &str) -> Result<(), DataError> {
    let train = dataset.indices_of(train_split);
    let labels: Vec<usize> = train.iter().map(|&index| dataset.samples[index].label).collect();
    let kept = stratified_subset(&labels, fraction, seed)
        .map_err(|error| setting("cleaning.fraction", &error, train_split))?;
    let kept: Vec<usize> = kept.into_iter().map(|position| train[position]).collect();
    keep_of_train(dataset, &kept, RemovalReason::Subset, "not in the chosen part of the training images", train_split);
    Ok(())
}

/// Keeps as many of each class of `train_split` as the smallest one has.
fn under_sample(dataset: &mut Dataset, seed: u64, train_split: &str) -> Result<(), DataError> {
    let train = dataset.indices_of(train_split);
    let labels: Vec<usize> = train.iter().map(|&index| dataset.samples[index].label).collect();
    let classes = shuffled_classes(&labels, seed).map_err(|error| setting("cleaning.balance", &error, train_split))?;
    let smallest = classes.values().map(Vec::len).min().unwrap_or(0);
    let kept: Vec<usize> =
        classes.values().flat_map(|members| &members[..smallest]).map(|&position| train[position]).collect();
    keep_of_train(
        dataset,
        &kept,
        RemovalReason::UnderSampled,
        "left out to give every class the same count",
        train_split,
    );
    Ok(())
}

fn setting(key: &'static str, error: &SplitError, train_split: &str) -> DataError {
    DataError::Setting { key, detail: format!("{error} in {train_split}") }
}

/// Removes the samples of `train_split` that are not in `kept`.
fn keep_of_train(dataset: &mut Dataset, kept: &[usize], reason: RemovalReason, detail: &str, train_split: &str) {
    let mut stays: Vec<bool> = dataset.samples.iter().map(|sample| sample.split != train_split).collect();
    for &index in kept {
        stays[index] = true;
    }
    let verdicts = stays.into_iter().map(|stays| (!stays).then(|| (reason, detail.to_owned()))).collect();
    remove(dataset, verdicts);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::split_name;
    use image::{GrayImage, Luma};

    fn sample(number: usize, label: usize, split: &str) -> Sample {
        let image = GrayImage::from_fn(4, 4, |x, y| Luma([(number * 7) as u8 ^ (x * 60 + y * 9) as u8]));
        Sample { image, label, split: split.to_owned(), origin: format!("{split}/{number}"), votes: None }
    }

    /// Ten angry, four disgust, six happy in train; one of each in test.
    fn dataset() -> Dataset {
        let labels = Labels::new(["angry", "disgust", "happy"]).unwrap();
        let classes = [vec![0; 10], vec![1; 4], vec![2; 6]].concat();
        let mut samples: Vec<Sample> =
            classes.into_iter().enumerate().map(|(number, label)| sample(number, label, "train")).collect();
        samples.extend((0..3).map(|label| sample(30 + label, label, "test")));
        Dataset { labels, samples, removed: Vec::new() }
    }

    fn counts(dataset: &Dataset, split: &str) -> Vec<usize> {
        dataset.class_counts(&dataset.indices_of(split))
    }

    fn removed(dataset: &Dataset) -> Vec<(&str, RemovalReason)> {
        dataset.removed.iter().map(|removal| (removal.origin.as_str(), removal.reason)).collect()
    }

    #[test]
    fn the_default_takes_out_nothing() {
        let cleaned = clean(dataset(), &CleaningConfig::default(), split_name::TRAIN).unwrap();
        assert_eq!((cleaned.samples.len(), cleaned.removed.len()), (23, 0));
        let config: CleaningConfig =
            toml::from_str("drop_classes = [\"disgusted\"]\nbalance = \"under_sample\"").unwrap();
        assert_eq!(config.balance, Balance::UnderSample);
        assert!(toml::from_str::<CleaningConfig>("duplicate = \"drop\"").is_err());
    }

    #[test]
    fn dropped_classes_leave_a_new_order_and_rows() {
        let by_name = CleaningConfig { drop_classes: vec!["Disgusted".to_owned()], ..CleaningConfig::default() };
        let by_count = CleaningConfig { minimum_count: 5, ..CleaningConfig::default() };
        for config in [by_name, by_count] {
            let cleaned = clean(dataset(), &config, split_name::TRAIN).unwrap();
            assert_eq!(cleaned.labels.names(), ["angry", "happy"]);
            assert_eq!((counts(&cleaned, "train"), counts(&cleaned, "test")), (vec![10, 6], vec![1, 1]));
            assert_eq!(cleaned.removed.len(), 5);
            assert!(cleaned.removed.iter().all(|row| row.label.as_deref() == Some("disgust")));
        }
        let unknown = CleaningConfig { drop_classes: vec!["bored".to_owned()], ..CleaningConfig::default() };
        let message = clean(dataset(), &unknown, split_name::TRAIN).unwrap_err().to_string();
        assert!(message.contains("no class \"bored\"; the classes are: angry, disgust, happy"), "{message}");
        let all = CleaningConfig { minimum_count: 99, ..CleaningConfig::default() };
        assert!(matches!(clean(dataset(), &all, split_name::TRAIN), Err(DataError::NothingLeft { what: "classes" })));
    }

    #[test]
    fn blank_conflicting_doubled_and_leaked_images_go() {
        let mut data = dataset();
        let pixels = |data: &Dataset, index: usize| data.samples[index].image.clone();
        data.samples[0].image = GrayImage::new(4, 4); // blank
        data.samples[20].image = GrayImage::new(4, 4); // blank, in test
        data.samples[2].image = pixels(&data, 1); // copy with the same label
        data.samples[14].image = pixels(&data, 3); // copy with another label
        data.samples[22].image = pixels(&data, 4); // stands in train and in test
        let config = CleaningConfig {
            blank: Policy::Drop,
            conflicts: Policy::Drop,
            duplicates: Policy::Drop,
            leaks: Policy::Drop,
            ..CleaningConfig::default()
        };
        let cleaned = clean(data.clone(), &config, split_name::TRAIN).unwrap();
        use RemovalReason::{Blank, Conflict, Duplicate, Leak};
        let expected = [
            ("train/0", Blank),
            ("train/3", Conflict),
            ("train/14", Conflict),
            ("train/2", Duplicate),
            ("train/4", Leak),
        ];
        assert_eq!(removed(&cleaned), expected);
        assert_eq!(cleaned.removed[3].detail, "the same pixels as train/1");
        let faults = faults(&data);
        let found: Vec<(&str, RemovalReason)> = faults.iter().map(|row| (row.origin.as_str(), row.reason)).collect();
        // Both sides of what stands in two splits, and every fault of an image that has two.
        let expected = [
            ("train/0", Blank),
            ("train/0", Leak),
            ("train/2", Duplicate),
            ("train/3", Conflict),
            ("train/4", Leak),
            ("train/14", Conflict),
            ("train/14", Duplicate),
            ("test/30", Blank),
            ("test/30", Leak),
            ("test/32", Leak),
        ];
        assert_eq!(found, expected);
        assert_eq!(faults[9].detail, "the same pixels as train/4 of train");
        let cleaned = clean(data, &CleaningConfig { scope: Scope::All, ..config }, split_name::TRAIN).unwrap();
        assert_eq!(removed(&cleaned)[1], ("test/30", Blank));
    }

    #[test]
    fn parts_of_train_are_seeded_and_leave_the_test_alone() {
        let config = CleaningConfig { fraction: 0.5, seed: 3, ..CleaningConfig::default() };
        let cleaned = clean(dataset(), &config, split_name::TRAIN).unwrap();
        assert_eq!((counts(&cleaned, "train"), counts(&cleaned, "test")), (vec![5, 2, 3], vec![1; 3]));
        assert_eq!(cleaned.removed.len(), 10);
        assert_eq!(removed(&cleaned), removed(&clean(dataset(), &config, split_name::TRAIN).unwrap()));
        let other = clean(dataset(), &CleaningConfig { seed: 4, ..config.clone() }, split_name::TRAIN).unwrap();
        assert_ne!(removed(&cleaned), removed(&other));
        assert!(clean(dataset(), &CleaningConfig { fraction: 0.0, ..config }, split_name::TRAIN).is_err());

        let config = CleaningConfig { balance: Balance::UnderSample, ..CleaningConfig::default() };
        let cleaned = clean(dataset(), &config, split_name::TRAIN).unwrap();
        assert_eq!((counts(&cleaned, "train"), counts(&cleaned, "test")), (vec![4; 3], vec![1; 3]));
        assert!(cleaned.removed.iter().all(|row| row.reason == RemovalReason::UnderSampled));
    }

    #[test]
    fn class_weights_agree_with_scikit_learn() {
        // python -c "import numpy as np; from sklearn.utils.class_weight import compute_class_weight as w
        // c=[3995,4097,7215,4965,4830,3171]; y=np.repeat(range(6),c); print(w('balanced',classes=np.unique(y),y=y).round(6))"
        let expected = [1.179516, 1.150151, 0.653107, 0.949077, 0.975604, 1.486019];
        let weights = class_weights(&[3995, 4097, 7215, 4965, 4830, 3171]);
        assert_eq!(weights.len(), expected.len());
        for (weight, expected) in weights.iter().zip(expected) {
            assert!((weight - expected).abs() < 1e-6, "{weights:?}");
        }
        assert_eq!(class_weights(&[2, 0, 6]), [2.0, 0.0, 2.0 / 3.0]);
    }
}
