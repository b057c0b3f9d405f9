//! Random changes to training images, so that a network learns what does not matter.
//!
//! In: a face and a seed. Out: the face, changed. Each change has a strength from 0 (off) to 1; what an image becomes is
//! a function of the run's seed, the epoch and the image's place in its split, never of threads. Validation and
//! prediction do not come here.

mod geometry;
mod mix;
pub mod sheet;

use image::{GrayImage, Luma, imageops};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use serde::{Deserialize, Serialize};

use self::geometry::Map;
pub use self::mix::{Mixing, mix};
use crate::seed::{derive_seed, purpose};

/// Turns a mapping of a face onto itself by 45 degrees at most.
const LARGEST_ANGLE: f64 = std::f64::consts::FRAC_PI_4;

/// Part of a side by which a face is shifted at most.
const LARGEST_SHIFT: f64 = 0.25;

/// Part of a side that a crop takes away at most.
const LARGEST_CROP: f64 = 0.5;

/// Shear, and logarithm of the change of proportions, at most.
const LARGEST_AFFINE: f64 = 0.3;

/// Grey levels that brightness adds or takes at most.
const LARGEST_BRIGHTNESS: f64 = 128.0;

/// Logarithm of contrast and gamma at most.
const LARGEST_TONE: f64 = 1.0;

/// Standard deviation of the blur in pixels at most.
const LARGEST_BLUR: f64 = 2.0;

/// Standard deviation of the noise in grey levels at most.
const LARGEST_NOISE: f64 = 50.0;

/// Parts of a face's area that are erased (after Zhong et al. 2020, who draw a rectangle again that does not fit; this one's sides
/// are cut).
const ERASED_AREA: std::ops::Range<f64> = 0.02..0.33;

/// Logarithm of the proportions of an erased rectangle at most, either way.
const ERASED_PROPORTION: f64 = 1.2;

/// Strengths of the changes, each from 0 (off) to 1. What is drawn at random is uniform over the range given, unless
/// stated otherwise.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AugmentConfig {
    /// Share of the images that are mirrored in every second epoch, half of them in even and half in odd ones (Jordan
    /// 2024: an image is never seen the same way round twice in a row).
    pub flip: f64,
    /// Shifts by up to a quarter of a side, in each direction.
    pub shift: f64,
    /// Crops to a part at a random place, with sides of 1 down to 0.5 of the face's, both alike, and enlarges it again.
    pub crop: f64,
    /// Turns by up to 45 degrees, either way.
    pub rotation: f64,
    /// Shears, and stretches one side against the other, by up to 0.3.
    pub affine: f64,
    /// Adds or takes up to 128 grey levels.
    pub brightness: f64,
    /// Multiplies the distance to the mean by a factor between 1 / e and e, uniform in its logarithm.
    pub contrast: f64,
    /// Raises the unit grey to a power between 1 / e and e, uniform in its logarithm.
    pub gamma: f64,
    /// Blurs with a Gaussian of up to 2 pixels.
    pub blur: f64,
    /// Adds Gaussian noise of a standard deviation up to 50 grey levels.
    pub noise: f64,
    /// Probability that a rectangle of 2 to 33 % of the face is filled with random pixels (after Zhong et al. 2020).
    pub erasing: f64,
    /// Mixes each image with another of its batch, pixels and targets alike, by a share from Beta(mixup, mixup) (Zhang et
    /// al. 2018).
    pub mixup: f64,
    /// Probability that a rectangle is taken from another image of the batch, and the targets in proportion (Yun et al.
    /// 2019). Such an image takes no part in mixup.
    pub cutmix: f64,
}

impl AugmentConfig {
    /// Every strength with its key in the configuration.
    pub fn strengths(&self) -> [(&'static str, f64); 13] {
        [
            ("train.augmentation.flip", self.flip),
            ("train.augmentation.shift", self.shift),
            ("train.augmentation.crop", self.crop),
            ("train.augmentation.rotation", self.rotation),
            ("train.augmentation.affine", self.affine),
            ("train.augmentation.brightness", self.brightness),
            ("train.augmentation.contrast", self.contrast),
            ("train.augmentation.gamma", self.gamma),
            ("train.augmentation.blur", self.blur),
            ("train.augmentation.noise", self.noise),
            ("train.augmentation.erasing", self.erasing),
            ("train.augmentation.mixup", self.mixup),
            ("train.augmentation.cutmix", self.cutmix),
        ]
    }

    /// Strengths in the order of [`AugmentConfig::strengths`].
    pub fn from_strengths(strengths: [f64; 13]) -> Self {
        let [flip, shift, crop, rotation, affine, brightness, contrast, gamma, blur, noise, erasing, mixup, cutmix] =
            strengths;
        Self { flip, shift, crop, rotation, affine, brightness, contrast, gamma, blur, noise, erasing, mixup, cutmix }
    }

    /// The image at `index` of its split as `epoch` (from 0) shows it. Mixing with others is [`mix`]'s work.
    pub fn apply(&self, face: &GrayImage, seed: u64, epoch: usize, index: usize) -> GrayImage {
        let mut dice = Dice::new(seed, &[epoch as u64, index as u64]);
        let mut changed = self.moved(face, seed, epoch, index, &mut dice);
        self.retone(&mut changed, &mut dice);
        if self.blur > 0.0 {
            let sigma = dice.up_to(self.blur * LARGEST_BLUR);
            // A narrower kernel has one pixel.
            if sigma > 0.2 {
                changed = imageops::blur(&changed, sigma as f32);
            }
        }
        if self.noise > 0.0 {
            let deviation = dice.up_to(self.noise * LARGEST_NOISE);
            for value in changed.iter_mut() {
                let normal: f64 = StandardNormal.sample(&mut dice.generator);
                *value = (f64::from(*value) + deviation * normal).round().clamp(0.0, 255.0) as u8;
            }
        }
        if self.erasing > 0.0 && dice.happens(self.erasing) {
            erase(&mut changed, &mut dice);
        }
        changed
    }

    /// Everything that moves pixels, as one mapping, so that they are interpolated once.
    fn moved(&self, face: &GrayImage, seed: u64, epoch: usize, index: usize, dice: &mut Dice) -> GrayImage {
        // The same in all epochs: whether the image is ever mirrored, and in which half of the epochs.
        let mut fixed = Dice::new(seed, &[u64::MAX, index as u64]);
        let mirrors = self.flip > 0.0 && fixed.happens(self.flip);
        let mirrored = mirrors && (usize::from(fixed.happens(0.5)) + epoch).is_multiple_of(2);
        let (width, height) = (f64::from(face.width()), f64::from(face.height()));
        let mut map = Map::identity();
        if self.shift > 0.0 {
            let part = self.shift * LARGEST_SHIFT;
            // Whole pixels, so that a shift alone blurs nothing.
            map =
                map.then(Map::shift((dice.either_way(part) * width).round(), (dice.either_way(part) * height).round()));
        }
        if self.crop > 0.0 {
            let side = 1.0 - dice.up_to(self.crop * LARGEST_CROP);
            let free = (1.0 - side) / 2.0;
            map = map
                .then(Map::scale(side, side))
                .then(Map::shift(dice.either_way(free) * width, dice.either_way(free) * height));
        }
        if self.rotation > 0.0 {
            map = map.then(Map::rotation(dice.either_way(self.rotation * LARGEST_ANGLE)));
        }
        if self.affine > 0.0 {
            let largest = self.affine * LARGEST_AFFINE;
            let stretch = dice.either_way(largest).exp().sqrt();
            map = map.then(Map::shear(dice.either_way(largest))).then(Map::scale(stretch, 1.0 / stretch));
        }
        if mirrored {
            map = map.then(Map::mirror());
        }
        if map == Map::identity() { face.clone() } else { map.apply(face) }
    }

    /// Contrast, brightness and gamma through one table.
    fn retone(&self, face: &mut GrayImage, dice: &mut Dice) {
        if self.brightness == 0.0 && self.contrast == 0.0 && self.gamma == 0.0 {
            return;
        }
        let mean = face.iter().map(|&value| f64::from(value)).sum::<f64>() / face.len() as f64;
        let contrast = dice.either_way(self.contrast * LARGEST_TONE).exp();
        let brightness = dice.either_way(self.brightness * LARGEST_BRIGHTNESS);
        let gamma = dice.either_way(self.gamma * LARGEST_TONE).exp();
        let table: Vec<u8> = (0..=255)
            .map(|grey| {
                let unit = (((f64::from(grey) - mean) * contrast + mean + brightness) / 255.0).clamp(0.0, 1.0);
                (unit.powf(gamma) * 255.0).round() as u8
            })
            .collect();
        for value in face.iter_mut() {
            *value = table[usize::from(*value)];
        }
    }
}

/// Fills a random rectangle with random pixels.
fn erase(face: &mut GrayImage, dice: &mut Dice) {
    let (width, height) = face.dimensions();
    let area = dice.generator.random_range(ERASED_AREA) * f64::from(width) * f64::from(height);
    let proportion = dice.either_way(ERASED_PROPORTION).exp();
    let side = |length: f64, whole: u32| (length.round() as u32).clamp(1, whole);
    let (wide, high) = (side((area * proportion).sqrt(), width), side((area / proportion).sqrt(), height));
    let left = dice.generator.random_range(0..=width - wide);
    let top = dice.generator.random_range(0..=height - high);
    for y in top..top + high {
        for x in left..left + wide {
            face.put_pixel(x, y, Luma([dice.generator.random()]));
        }
    }
}

/// Random numbers for one image of one epoch.
struct Dice {
    generator: ChaCha8Rng,
}

impl Dice {
    fn new(seed: u64, place: &[u64]) -> Self {
        let seed = derive_seed(derive_seed(seed, &[purpose::AUGMENTATION]), place);
        Self { generator: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// From 0 to `most`.
    fn up_to(&mut self, most: f64) -> f64 {
        self.generator.random_range(0.0..=most)
    }

    /// From `-most` to `most`.
    fn either_way(&mut self, most: f64) -> f64 {
        self.generator.random_range(-most..=most)
    }

    fn happens(&mut self, probability: f64) -> bool {
        self.generator.random_bool(probability)
    }
}

#[cfg(test)]
mod tests;
