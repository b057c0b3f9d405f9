//! Dropout without a stored mask.
//!
//! In: values and a key. Out: the values with a share of them set to zero. Whether element `i` stays is a function of
//! the key and of `i` alone, so that the backward pass draws the same mask again, and any number of threads draws
//! the same. Choosing a fresh key for each layer and step is the caller's.

use crate::ELEMENTS_PER_TASK;
use crate::simd::{InstructionSet, Kernel, Lanes};
use crate::threads::share_chunks;

/// Which elements are dropped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// Probability of zero, from 0 up to below 1.
    pub rate: f32,
    /// Decides the mask.
    pub key: u64,
}

impl Dropout {
    /// Drops nothing.
    pub const NONE: Self = Self { rate: 0.0, key: 0 };

    pub(crate) fn mask(self) -> Mask {
        assert!((0.0..1.0).contains(&self.rate), "a dropout rate is from 0 up to below 1, not {}", self.rate);
        let stream = mix(self.key ^ 0x6a09_e667_f3bc_c908);
        Mask {
            first: stream as u32,
            second: (stream >> 32) as u32,
            threshold: (f64::from(self.rate) * 2_f64.powi(32)).round().min(f64::from(u32::MAX)) as u32,
            scale: 1.0 / (1.0 - self.rate),
        }
    }
}

/// The mask of one key: the factor of every element, zero or `1 / (1 - rate)`.
#[derive(Clone, Copy)]
pub(crate) struct Mask {
    first: u32,
    second: u32,
    threshold: u32,
    scale: f32,
}

impl Mask {
    /// Factors of the elements from `index` on. Drawn by a counter: one 32-bit hash with two multiplications an
    /// element (the constants are those of Wellons' "lowbias32"), all lanes at once.
    #[inline(always)]
    pub(crate) fn factors<L: Lanes>(&self, index: usize) -> L {
        let high = (index as u64 >> 32) as u32;
        let mut factors = [0.0_f32; 16];
        for (lane, factor) in factors.iter_mut().enumerate().take(L::WIDTH) {
            let mut hash = (index as u32).wrapping_add(lane as u32) ^ self.first;
            hash = (hash ^ (hash >> 16)).wrapping_mul(0x7feb_352d) ^ high;
            hash = hash.wrapping_add(self.second);
            hash = (hash ^ (hash >> 15)).wrapping_mul(0x846c_a68b);
            hash ^= hash >> 16;
            *factor = if hash < self.threshold { 0.0 } else { self.scale };
        }
        // SAFETY: sixteen numbers are there, no vector has more lanes.
        unsafe { L::load(factors.as_ptr()) }
    }
}

/// Sets each element of `x` to zero with probability `rate` and multiplies the others by `1 / (1 - rate)`. Applied to an
/// output it is the forward pass, to a gradient with the same key the backward pass. A dropped NaN stays NaN.
///
/// # Panics
/// If the rate is not from 0 up to below 1.
pub fn apply(dropout: Dropout, x: &mut [f32]) {
    let mask = dropout.mask();
    if dropout.rate == 0.0 {
        return;
    }
    let set = InstructionSet::best();
    share_chunks(x, ELEMENTS_PER_TASK, |task, x| {
        set.run(Apply { mask, first: task * ELEMENTS_PER_TASK, x });
    });
}

struct Apply<'a> {
    mask: Mask,
    first: usize,
    x: &'a mut [f32],
}

impl Kernel for Apply<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let length = self.x.len();
        let x = self.x.as_mut_ptr();
        for place in (0..length).step_by(L::WIDTH) {
            // SAFETY: the numbers from `place` on, up to the end of the slice.
            unsafe {
                L::load_within(x, place, length)
                    .mul(self.mask.factors(self.first + place))
                    .store_within(x, place, length);
            }
        }
    }
}

/// Finaliser of SplitMix64 (Steele, Lea & Flood 2014): every bit of the result depends on every bit of the input.
fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{same_for_any_thread_count, with_every_instruction_set};

    fn kept(rate: f32, key: u64, length: usize) -> Vec<f32> {
        let mut x = vec![1.0; length];
        apply(Dropout { rate, key }, &mut x);
        x
    }

    #[test]
    fn the_rate_and_the_scale_are_those_asked_for() {
        for rate in [0.1_f32, 0.25, 0.5, 0.9] {
            let x = kept(rate, 7, 200_000);
            let zeros = x.iter().filter(|&&value| value == 0.0).count() as f64 / x.len() as f64;
            assert!((zeros - f64::from(rate)).abs() < 0.005, "{zeros} instead of {rate}");
            assert!(x.iter().all(|&value| value == 0.0 || value == 1.0 / (1.0 - rate)));
        }
        assert_eq!(kept(0.0, 7, 100), vec![1.0; 100]);
    }

    #[test]
    fn neighbours_near_and_far_and_other_keys_are_independent() {
        let x = kept(0.5, 1, 1 << 18);
        for distance in [1, 2, 7, 8, 16, 64, 128, 1024, 6400] {
            let equal = x.iter().zip(&x[distance..]).filter(|(a, b)| a == b).count() as f64;
            let share = equal / (x.len() - distance) as f64;
            assert!((share - 0.5).abs() < 0.006, "{share} at distance {distance}");
        }
        for key in [2, 3, 1 << 40] {
            let share =
                x.iter().zip(kept(0.5, key, 1 << 18)).filter(|(a, b)| **a == *b).count() as f64 / x.len() as f64;
            assert!((share - 0.5).abs() < 0.006, "{share} with key {key}");
        }
    }

    #[test]
    fn every_instruction_set_and_thread_count_draws_the_same_mask() {
        let expected = same_for_any_thread_count(|| kept(0.3, 5, 3 * ELEMENTS_PER_TASK + 5));
        for set in InstructionSet::available() {
            let mut x = vec![1.0; expected.len()];
            set.run(Apply { mask: Dropout { rate: 0.3, key: 5 }.mask(), first: 0, x: &mut x });
            assert_eq!(x, expected);
        }
    }

    #[test]
    fn what_is_no_number_shows_also_where_it_is_dropped() {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            with_every_instruction_set(|| {
                let mut x: Vec<f32> = (0..99).map(|index| if index % 3 == 0 { value } else { 1.0 }).collect();
                apply(Dropout { rate: 0.5, key: 1 }, &mut x);
                assert!(x.iter().enumerate().all(|(index, x)| x.is_finite() == (index % 3 > 0)), "{value}: {x:?}");
            });
        }
    }
}
