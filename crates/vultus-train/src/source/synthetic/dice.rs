//! Random draws of one picture.
//!
//! In: what identifies the picture. Out: numbers that depend on nothing else, neither on threads nor on the other
//! pictures. It knows no face.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

/// The source of every random number of one picture.
pub struct Dice(ChaCha8Rng);

impl Dice {
    /// The dice of picture `index` of `class` in `split`, under `seed`.
    pub fn of_picture(seed: u64, split: &str, class: &str, index: usize) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(seed.to_le_bytes());
        for name in [split, class] {
            hasher.update((name.len() as u64).to_le_bytes());
            hasher.update(name.as_bytes());
        }
        hasher.update((index as u64).to_le_bytes());
        Self(ChaCha8Rng::from_seed(hasher.finalize().into()))
    }

    /// A number from `low` up to `high`, all equally likely.
    pub fn uniform(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.0.random::<f32>()
    }

    /// A bell-shaped number around `mean`, never further away than 3.5 standard deviations.
    pub fn normal(&mut self, mean: f32, standard_deviation: f32) -> f32 {
        // Twelve uniform numbers have a sum of variance 1; unlike Box-Muller's, the tails end.
        let sum: f32 = (0..12).map(|_| self.0.random::<f32>() - 0.5).sum();
        mean + standard_deviation * sum.clamp(-3.5, 3.5)
    }

    /// True with the given probability.
    pub fn chance(&mut self, probability: f32) -> bool {
        self.0.random::<f32>() < probability
    }

    /// An index below `count`; 0 when `count` is 0.
    pub fn pick(&mut self, count: usize) -> usize {
        if count == 0 { 0 } else { self.0.random_range(0..count) }
    }
}
