//! Stratified, shuffled, seeded parts of a list of labels.
//!
//! In: the class index of each sample. Out: positions in that list, in ascending order, parted so that every part has
//! each class in its share, within one image, and none goes without. It does not look at images or at the names of splits; the same labels
//! and seed give the same parts on every machine.

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use vultus::labels::Labels;
use vultus::wording::counted;

/// Two lists of positions: what is trained on, and what is held out of it.
pub type Parts = (Vec<usize>, Vec<usize>);

/// Why labels cannot be parted.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SplitError {
    /// There are no labels.
    #[error("there are no images to split")]
    Empty,
    /// A part that would be nothing or everything.
    #[error("the validation fraction is {fraction}: it must lie between 0 and 1")]
    Fraction {
        /// The fraction given.
        fraction: f64,
    },
    /// Fewer than two folds.
    #[error("{folds} folds cannot be cross-validated: use at least 2")]
    Folds {
        /// The number given.
        folds: usize,
    },
    /// A class too small for a validation split.
    #[error("class {class} has {}, a validation split needs at least 2: add images, or leave such classes out \
             (cleaning.minimum_count=2)", counted(*count, "image"))]
    TooFewForSplit {
        /// Index of the class.
        class: usize,
        /// Its images.
        count: usize,
    },
    /// A class that cannot be in every fold.
    #[error("class {class} has {}, {folds} folds need at least {folds}: use fewer folds, or leave such classes out \
             (cleaning.minimum_count={folds})", counted(*count, "image"))]
    TooFewForFolds {
        /// Index of the class.
        class: usize,
        /// Its images.
        count: usize,
        /// Folds wanted.
        folds: usize,
    },
}

impl SplitError {
    /// The message with the name of the class in place of its index, such as
    /// `class "disgust" has 1 image, 5 folds need at least 5: ...`.
    pub fn message(&self, labels: &Labels) -> String {
        let message = self.to_string();
        match self {
            Self::TooFewForSplit { class, .. } | Self::TooFewForFolds { class, .. } if *class < labels.len() => {
                message.replacen(&format!("class {class} "), &format!("class \"{}\" ", labels.name(*class)), 1)
            }
            _ => message,
        }
    }
}

/// Holds out about `fraction` of each class: returns (train, validation). Sizes are within one image of the exact share
/// in every class. Every class stands in both parts, for which small ones give more than their share: only where none has
/// to is the whole within one image of `fraction`.
///
/// # Errors
/// No labels, a fraction outside (0, 1), or a class with one image.
pub fn stratified_split(labels: &[usize], fraction: f64, seed: u64) -> Result<Parts, SplitError> {
    if !(fraction > 0.0 && fraction < 1.0) {
        return Err(SplitError::Fraction { fraction });
    }
    let classes = shuffled_classes(labels, seed)?;
    if let Some((&class, members)) = classes.iter().find(|(_, members)| members.len() < 2) {
        return Err(SplitError::TooFewForSplit { class, count: members.len() });
    }
    let counts: Vec<usize> = classes.values().map(Vec::len).collect();
    let quotas = quotas(&counts, fraction);
    let (mut train, mut validation) = (Vec::new(), Vec::new());
    for (members, quota) in classes.values().zip(quotas) {
        let held_out = quota.clamp(1, members.len() - 1);
        validation.extend_from_slice(&members[..held_out]);
        train.extend_from_slice(&members[held_out..]);
    }
    train.sort_unstable();
    validation.sort_unstable();
    Ok((train, validation))
}

/// Parts the samples into `folds` validation sets: returns (train, validation) for each fold. Folds differ by at most
/// one image in every class and by at most one in size.
///
/// # Errors
/// No labels, fewer than two folds, or a class with fewer images than folds.
pub fn stratified_folds(labels: &[usize], folds: usize, seed: u64) -> Result<Vec<Parts>, SplitError> {
    if folds < 2 {
        return Err(SplitError::Folds { folds });
    }
    let classes = shuffled_classes(labels, seed)?;
    if let Some((&class, members)) = classes.iter().find(|(_, members)| members.len() < folds) {
        return Err(SplitError::TooFewForFolds { class, count: members.len(), folds });
    }
    // Dealt like cards, without starting again at the first fold for the next class.
    let mut fold_of = vec![0; labels.len()];
    for (turn, &position) in classes.values().flatten().enumerate() {
        fold_of[position] = turn % folds;
    }
    Ok((0..folds).map(|fold| (0..labels.len()).partition(|&position| fold_of[position] != fold)).collect())
}

/// About `fraction` of each class, at least one image of each, in ascending order; all of them for 1.
///
/// # Errors
/// No labels, or a fraction outside (0, 1].
pub fn stratified_subset(labels: &[usize], fraction: f64, seed: u64) -> Result<Vec<usize>, SplitError> {
    if !(fraction > 0.0 && fraction <= 1.0) {
        return Err(SplitError::Fraction { fraction });
    }
    let classes = shuffled_classes(labels, seed)?;
    let counts: Vec<usize> = classes.values().map(Vec::len).collect();
    let mut kept: Vec<usize> = classes
        .values()
        .zip(quotas(&counts, fraction))
        .flat_map(|(members, quota)| members[..quota.max(1)].iter().copied())
        .collect();
    kept.sort_unstable();
    Ok(kept)
}

/// The positions of each class, shuffled; the classes by index.
pub(crate) fn shuffled_classes(labels: &[usize], seed: u64) -> Result<BTreeMap<usize, Vec<usize>>, SplitError> {
    if labels.is_empty() {
        return Err(SplitError::Empty);
    }
    let mut classes: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (position, &label) in labels.iter().enumerate() {
        classes.entry(label).or_default().push(position);
    }
    for (&class, members) in &mut classes {
        // Each class has its own stream: images added to one class do not reshuffle the others.
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        generator.set_stream(class as u64);
        members.shuffle(&mut generator);
    }
    Ok(classes)
}

/// Whole numbers near `fraction` of each count that add up to `fraction` of the sum, rounded: each share is rounded
/// down, and the classes with the largest remainders get the rest.
fn quotas(counts: &[usize], fraction: f64) -> Vec<usize> {
    let total = counts.iter().sum::<usize>() as f64 * fraction;
    let shares: Vec<f64> = counts.iter().map(|&count| count as f64 * fraction).collect();
    let mut quotas: Vec<usize> = shares.iter().map(|share| share.floor() as usize).collect();
    let missing = (total.round() as usize).saturating_sub(quotas.iter().sum());
    let mut order: Vec<usize> = (0..counts.len()).collect();
    order.sort_by(|&a, &b| shares[b].fract().total_cmp(&shares[a].fract()).then(a.cmp(&b)));
    for &class in order.iter().take(missing) {
        quotas[class] = (quotas[class] + 1).min(counts[class]);
    }
    quotas
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn count(labels: &[usize], positions: &[usize], class: usize) -> usize {
        positions.iter().filter(|&&position| labels[position] == class).count()
    }

    fn is_partition(length: usize, (train, validation): &Parts) -> bool {
        let mut all: Vec<usize> = train.iter().chain(validation).copied().collect();
        all.sort_unstable();
        all == (0..length).collect::<Vec<_>>()
    }

    #[test]
    fn the_seed_decides() {
        let labels: Vec<usize> = (0..200).map(|position| position % 3).collect();
        assert_eq!(stratified_split(&labels, 0.2, 1), stratified_split(&labels, 0.2, 1));
        assert_ne!(stratified_split(&labels, 0.2, 1), stratified_split(&labels, 0.2, 2));
        assert_ne!(stratified_folds(&labels, 5, 1), stratified_folds(&labels, 5, 2));
        let (_, validation) = stratified_split(&labels, 0.2, 1).unwrap();
        assert_eq!(validation.len(), 40);
        assert_ne!(validation, (0..40).collect::<Vec<_>>(), "shuffled");
    }

    #[test]
    fn a_class_that_is_too_small_is_named() {
        let labels = Labels::new(["happy", "disgust"]).unwrap();
        let error = stratified_folds(&[0, 0, 0, 0, 0, 1], 5, 1).unwrap_err();
        assert_eq!(error, SplitError::TooFewForFolds { class: 1, count: 1, folds: 5 });
        assert!(
            error.message(&labels).starts_with("class \"disgust\" has 1 image, 5 folds need at least 5"),
            "{error}"
        );
        let error = stratified_split(&[0, 0, 1], 0.2, 1).unwrap_err();
        assert_eq!(error, SplitError::TooFewForSplit { class: 1, count: 1 });
        assert_eq!(stratified_split(&[], 0.2, 1), Err(SplitError::Empty));
        assert_eq!(stratified_split(&[0, 0], 1.0, 1), Err(SplitError::Fraction { fraction: 1.0 }));
        assert_eq!(stratified_folds(&[0, 0], 1, 1), Err(SplitError::Folds { folds: 1 }));
    }

    /// Labels of up to five classes with 5 to 40 images each, mixed.
    fn some_labels() -> impl Strategy<Value = Vec<usize>> {
        proptest::collection::vec(5..40_usize, 1..6)
            .prop_map(|counts| {
                counts.iter().enumerate().flat_map(|(class, &count)| vec![class * 2; count]).collect::<Vec<_>>()
            })
            .prop_shuffle()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_split_is_a_partition_in_proportion(labels in some_labels(), fraction in 0.05..0.95_f64, seed in any::<u64>()) {
            let parts = stratified_split(&labels, fraction, seed).unwrap();
            prop_assert!(is_partition(labels.len(), &parts));
            for class in [0, 2, 4, 6, 8] {
                let share = count(&labels, &parts.0, class) + count(&labels, &parts.1, class);
                if share > 0 {
                    let held_out = count(&labels, &parts.1, class);
                    prop_assert!((held_out as f64 - fraction * share as f64).abs() <= 1.0);
                    prop_assert!(held_out > 0 && held_out < share);
                }
            }
        }

        #[test]
        fn folds_are_disjoint_and_balanced_within_one(labels in some_labels(), folds in 2..6_usize, seed in any::<u64>()) {
            let parts = stratified_folds(&labels, folds, seed).unwrap();
            prop_assert_eq!(parts.len(), folds);
            let mut seen = vec![0; labels.len()];
            for part in &parts {
                prop_assert!(is_partition(labels.len(), part));
                part.1.iter().for_each(|&position| seen[position] += 1);
            }
            prop_assert!(seen.iter().all(|&times| times == 1));
            let spread = |sizes: Vec<usize>| sizes.iter().max().unwrap() - sizes.iter().min().unwrap();
            prop_assert!(spread(parts.iter().map(|part| part.1.len()).collect()) <= 1);
            for class in [0, 2, 4, 6, 8] {
                prop_assert!(spread(parts.iter().map(|part| count(&labels, &part.1, class)).collect()) <= 1);
            }
        }

        #[test]
        fn a_subset_keeps_every_class(labels in some_labels(), fraction in 0.01..1.0_f64, seed in any::<u64>()) {
            let kept = stratified_subset(&labels, fraction, seed).unwrap();
            prop_assert!(kept.windows(2).all(|pair| pair[0] < pair[1]));
            let everything: Vec<usize> = (0..labels.len()).collect();
            for class in [0, 2, 4, 6, 8] {
                let share = count(&labels, &everything, class);
                let rest = count(&labels, &kept, class);
                prop_assert!((rest as f64 - fraction * share as f64).abs() <= 1.0);
                prop_assert!(share == 0 || rest > 0);
            }
            prop_assert_eq!(stratified_subset(&labels, 1.0, seed).unwrap(), everything);
        }
    }
}
