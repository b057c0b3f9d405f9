//! Seeds derived from seeds, so that nothing depends on how many numbers were drawn before.

/// What a derived seed is for; the first part of its path. Finished runs and searches rest on the numbers.
pub mod purpose {
    /// Initial weights.
    pub const WEIGHTS: u64 = 1;
    /// Order of the images in an epoch.
    pub const ORDER: u64 = 2;
    /// Dropout masks of a step.
    pub const DROPOUT: u64 = 3;
    /// Changes to training images.
    pub const AUGMENTATION: u64 = 4;
    /// Random settings of a search. The number is also that of [`AUGMENTATION`], which does no harm: this one is used with
    /// `search.seed` to draw values of keys, that one with a run's seed to change images.
    pub const SETTING: u64 = 4;
    /// The run of a fold.
    pub const TRIAL: u64 = 5;
}

/// A seed for the place `path` below `seed`. Different paths give unrelated seeds (SplitMix64's finaliser, Steele et
/// al. 2014, over each part in turn).
pub fn derive_seed(seed: u64, path: &[u64]) -> u64 {
    path.iter().fold(mix(seed), |state, part| mix(state ^ mix(part.wrapping_add(0x9E37_79B9_7F4A_7C15))))
}

fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn purposes_keep_their_numbers() {
        use purpose::{AUGMENTATION, DROPOUT, ORDER, SETTING, TRIAL, WEIGHTS};
        assert_eq!([WEIGHTS, ORDER, DROPOUT, AUGMENTATION, SETTING, TRIAL], [1, 2, 3, 4, 4, 5]);
    }

    #[test]
    fn places_have_their_own_seeds() {
        let mut seen = HashSet::new();
        for seed in 0..10 {
            for first in 0..10 {
                assert!(seen.insert(derive_seed(seed, &[first])));
                for second in 0..10 {
                    assert!(seen.insert(derive_seed(seed, &[first, second])));
                }
            }
        }
    }
}
