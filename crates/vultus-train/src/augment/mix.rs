//! Mixup and cutmix: images of one batch mixed with one another, targets alike.
//!
//! In: a batch's pixels and targets. Out: the same, each row mixed with the one behind it (the last with the first); the
//! order of a batch is random already.

use rand::RngExt;
use rand_distr::{Beta, Distribution};

use super::{AugmentConfig, Dice};

/// How one row is mixed with the next.
#[derive(Clone, Debug, PartialEq)]
pub enum Mixing {
    /// It is not.
    None,
    /// Its share in the mixture.
    Whole(f32),
    /// A rectangle comes from the other: left, top, width and height in pixels.
    Rectangle([usize; 4]),
}

impl Mixing {
    /// What happens to the image at `index` of its split in `epoch`, for pictures of `width` x `height`.
    pub fn draw(config: &AugmentConfig, seed: u64, epoch: usize, index: usize, width: usize, height: usize) -> Self {
        // Another place than that of the changes to the image alone.
        let mut dice = Dice::new(seed, &[epoch as u64, index as u64, 1]);
        if config.cutmix > 0.0 && dice.happens(config.cutmix) {
            // The side that leaves a uniform share of the area.
            let side = dice.up_to(1.0).sqrt();
            let (wide, high) = ((side * width as f64).round() as usize, (side * height as f64).round() as usize);
            let left = dice.generator.random_range(0..=width - wide);
            let top = dice.generator.random_range(0..=height - high);
            return Self::Rectangle([left, top, wide, high]);
        }
        match Beta::new(config.mixup, config.mixup) {
            Ok(beta) if config.mixup > 0.0 => Self::Whole(beta.sample(&mut dice.generator) as f32),
            _ => Self::None,
        }
    }

    /// Share of the row itself in its target, for pictures of `pixels` numbers.
    pub fn share(&self, pixels: usize) -> f32 {
        match self {
            Self::None => 1.0,
            Self::Whole(share) => *share,
            Self::Rectangle([_, _, wide, high]) => 1.0 - (wide * high) as f32 / pixels as f32,
        }
    }
}

/// Mixes each row with the next: `pixels` `[rows * pixels of one]` with rows of `width` pixels, `targets` `[rows *
/// classes]`, `weights` `[rows]`.
pub fn mix(mixings: &[Mixing], width: usize, pixels: &mut [f32], targets: &mut [f32], weights: &mut [f32]) {
    let rows = mixings.len();
    if rows < 2 || mixings.iter().all(|mixing| *mixing == Mixing::None) {
        return;
    }
    let (size, classes) = (pixels.len() / rows, targets.len() / rows);
    let (old_pixels, old_targets, old_weights) = (pixels.to_vec(), targets.to_vec(), weights.to_vec());
    for (row, mixing) in mixings.iter().enumerate() {
        let other = (row + 1) % rows;
        let share = mixing.share(size);
        let own = &mut pixels[row * size..][..size];
        let others = &old_pixels[other * size..][..size];
        match mixing {
            Mixing::None => continue,
            Mixing::Whole(_) => {
                own.iter_mut().zip(others).for_each(|(own, &other)| *own = *own * share + other * (1.0 - share));
            }
            Mixing::Rectangle([left, top, wide, high]) => {
                for y in *top..top + high {
                    let line = y * width + left..y * width + left + wide;
                    own[line.clone()].copy_from_slice(&others[line]);
                }
            }
        }
        // The weights are factors on the losses of the two targets, each on its own.
        let (own_weight, other_weight) = (weights[row] * share, old_weights[other] * (1.0 - share));
        weights[row] = own_weight + other_weight;
        let share = if weights[row] > 0.0 { own_weight / weights[row] } else { share };
        let own = &mut targets[row * classes..][..classes];
        let others = &old_targets[other * classes..][..classes];
        own.iter_mut().zip(others).for_each(|(own, &other)| *own = *own * share + other * (1.0 - share));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_mixture_and_a_rectangle() {
        let mixings = [Mixing::Whole(0.75), Mixing::Rectangle([1, 0, 1, 2]), Mixing::None];
        let mut pixels: Vec<f32> = vec![0.0; 6].into_iter().chain(vec![4.0; 6]).chain(vec![8.0; 6]).collect();
        let mut targets = vec![1.0, 0.0, 0.0, 1.0, 1.0, 0.0];
        let mut weights = vec![1.0, 2.0, 5.0];
        mix(&mixings, 3, &mut pixels, &mut targets, &mut weights);
        assert_eq!(pixels[..6], [1.0; 6]);
        assert_eq!(pixels[6..12], [4.0, 8.0, 4.0, 4.0, 8.0, 4.0]);
        assert_eq!(pixels[12..], [8.0; 6]);
        // Of 0.75 and 2 x 0.25; of 2 x 2/3 and 5 x 1/3.
        let other = 5.0 / 9.0;
        for (found, expected) in targets.iter().zip([0.6, 0.4, other, 1.0 - other, 1.0, 0.0]) {
            assert!((found - expected).abs() < 1e-6, "{targets:?}");
        }
        assert!((weights[0] - 1.25).abs() < 1e-6 && (weights[1] - 3.0).abs() < 1e-6 && weights[2] == 5.0);
    }

    #[test]
    fn shares_follow_their_distributions() {
        let draw = |mixup: f64, cutmix: f64| -> Vec<Mixing> {
            let config = AugmentConfig { mixup, cutmix, ..AugmentConfig::default() };
            (0..2000).map(|index| Mixing::draw(&config, 1, 0, index, 48, 48)).collect()
        };
        assert!(draw(0.0, 0.0).iter().all(|mixing| *mixing == Mixing::None));
        let shares: Vec<f32> = draw(0.2, 0.0).iter().map(|mixing| mixing.share(48 * 48)).collect();
        let mean = shares.iter().sum::<f32>() / 2000.0;
        let extreme = shares.iter().filter(|share| **share < 0.1 || **share > 0.9).count();
        assert!((mean - 0.5).abs() < 0.03, "{mean}");
        // Beta(0.2, 0.2) has 66 % of its mass there.
        assert!((1200..1450).contains(&extreme), "{extreme}");
        let cut = draw(0.0, 0.5);
        let cuts = cut.iter().filter(|mixing| matches!(mixing, Mixing::Rectangle(_))).count();
        assert!((900..1100).contains(&cuts), "{cuts}");
        let shares = cut.iter().filter(|mixing| **mixing != Mixing::None).map(|mixing| mixing.share(48 * 48));
        let mean = shares.sum::<f32>() / cuts as f32;
        assert!((mean - 0.5).abs() < 0.04, "{mean}");
    }
}
