//! Seeds derived from seeds, so that nothing depends on how many numbers were drawn before.

/// What a derived seed is for; the first part of its path.
pub mod purpose {
    /// Initial weights.
    pub const WEIGHTS: u64 = 1;
    /// Order of the images in an epoch.
    pub const ORDER: u64 = 2;
    /// Dropout masks of a step.
    pub const DROPOUT: u64 = 3;
    /// Changes to training images.
    pub const AUGMENTATION: u64 = 4;
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
