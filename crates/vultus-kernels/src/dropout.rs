//! Dropout without a stored mask.
//!
//! In: values and a key. Out: the values with a share of them set to zero. Whether element `i` stays is a function of
//! the key and of `i` alone, so the backward pass is the same call with the same key, and any number of threads draws
//! the same mask. Choosing a fresh key for each layer and step is the caller's.

use crate::ELEMENTS_PER_TASK;
use rayon::prelude::*;

/// Elements that share one 64-bit draw.
const LANES: usize = 4;

/// Sets each element of `x` to zero with probability `rate` (to within 1/65536) and multiplies the others by
/// `1 / (1 - rate)`. Applied to an output it is the forward pass, to a gradient with the same key the backward pass. A
/// dropped NaN stays NaN.
///
/// # Panics
/// If `rate` is not from 0 up to below 1.
pub fn apply(rate: f32, key: u64, x: &mut [f32]) {
    assert!((0.0..1.0).contains(&rate), "a dropout rate is from 0 up to below 1, not {rate}");
    if rate == 0.0 {
        return;
    }
    let threshold = (rate as f64 * 65536.0).round().min(65535.0) as u16;
    let scale = 1.0 / (1.0 - rate);
    let stream = mix(key ^ 0x6a09_e667_f3bc_c908);
    x.par_chunks_mut(ELEMENTS_PER_TASK).enumerate().for_each(|(task, x)| {
        let first = task * ELEMENTS_PER_TASK / LANES;
        for (position, x) in x.chunks_mut(LANES).enumerate() {
            let counter = (first + position) as u64 + 1;
            let draw = mix(stream.wrapping_add(counter.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
            for (lane, x) in x.iter_mut().enumerate() {
                let kept = (draw >> (16 * lane)) as u16 >= threshold;
                *x *= if kept { scale } else { 0.0 };
            }
        }
    });
}

/// The finaliser of the SplitMix64 generator: every input bit changes every output bit with probability one half.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::same_for_any_thread_count;

    fn mask(rate: f32, key: u64, length: usize) -> Vec<f32> {
        let mut x = vec![1.0; length];
        apply(rate, key, &mut x);
        x
    }

    #[test]
    fn the_share_of_zeros_is_the_rate_and_the_mean_is_kept() {
        for rate in [0.1, 0.25, 0.5, 0.9] {
            let length = 400_000;
            let x = mask(rate, 7, length);
            let zeros = x.iter().filter(|&&value| value == 0.0).count() as f64 / length as f64;
            // Four standard deviations of a binomial share.
            let margin = 4.0 * (rate as f64 * (1.0 - rate as f64) / length as f64).sqrt();
            assert!((zeros - rate as f64).abs() < margin, "{zeros} of {rate}");
            assert!(x.iter().all(|&value| value == 0.0 || value == 1.0 / (1.0 - rate)));
        }
    }

    #[test]
    fn masks_of_neighbouring_keys_and_elements_are_independent() {
        let length = 200_000;
        let (a, b) = (mask(0.5, 41, length), mask(0.5, 42, length));
        let agree = |pairs: usize, same: usize| (same as f64 / pairs as f64 - 0.5).abs() < 0.006;
        assert!(agree(length, a.iter().zip(&b).filter(|(a, b)| a == b).count()));
        for distance in [1, 2, 4, 64] {
            let same = a.iter().zip(&a[distance..]).filter(|(a, b)| a == b).count();
            assert!(agree(length - distance, same), "elements {distance} apart");
        }
    }

    #[test]
    fn same_key_same_mask_for_any_thread_count() {
        let mask = same_for_any_thread_count(|| mask(0.3, 9, 5 * ELEMENTS_PER_TASK + 3));
        let mut gradient = vec![2.0; mask.len()];
        apply(0.3, 9, &mut gradient);
        assert!(mask.iter().zip(&gradient).all(|(mask, gradient)| 2.0 * mask == *gradient));
        let mut prefix = vec![1.0; 1001];
        apply(0.3, 9, &mut prefix);
        assert_eq!(prefix, mask[..1001]);
    }

    #[test]
    fn rate_zero_changes_nothing_and_nan_stays() {
        assert_eq!(mask(0.0, 1, 10), [1.0; 10]);
        let mut x = [f32::NAN; 100];
        apply(0.5, 1, &mut x);
        assert!(x.iter().all(|value| value.is_nan()));
    }
}
