//! Drawn faces: a data set that needs no download.
//!
//! In: a [`SyntheticConfig`]. Out: grey pictures of seven expressions in two splits, the same for the same
//! configuration. The pictures exist to run and to test the program; a classifier trained on them says nothing about
//! people.
//!
//! A picture is a person (`person`) with an expression (`expression`) in a scene, drawn at a larger size
//! (`portrait`, `canvas`), then reduced, blurred and made noisy here.

mod canvas;
mod dice;
mod expression;
mod person;
mod portrait;

pub use expression::CLASSES;

use crate::dataset::{DataError, split_name};
use canvas::Canvas;
use dice::Dice;
use expression::Expression;
use image::GrayImage;
use image::imageops::{self, FilterType};
use person::{Person, Scene};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Most pictures of a class and split: more would not fit into the memory of an ordinary machine.
pub const MOST_PER_CLASS: usize = 100_000;

/// Largest side that is drawn, pixels; pictures above half of it are enlarged.
const LARGEST_CANVAS: u32 = 1024;
/// Smallest side that is drawn, pixels: below it lines would vanish between pixels.
const SMALLEST_CANVAS: u32 = 64;

/// What to draw.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SyntheticConfig {
    /// Training pictures of each class.
    pub train_per_class: usize,
    /// Test pictures of each class.
    pub test_per_class: usize,
    /// Another seed draws other pictures.
    pub seed: u64,
    /// 0: strong, clear expressions seen from the front. 1: weak, mixed ones under any pose, light and cover.
    pub difficulty: f32,
    /// Blur and grain of the camera; 0 is off, 1 strong.
    pub noise: f32,
}

impl Default for SyntheticConfig {
    fn default() -> Self {
        Self { train_per_class: 300, test_per_class: 60, seed: 1, difficulty: 0.5, noise: 0.5 }
    }
}

impl SyntheticConfig {
    /// Checks the counts and the strengths.
    ///
    /// # Errors
    /// No training pictures, more than [`MOST_PER_CLASS`] of either split, or a strength that lies outside 0..1 or is no
    /// number; each names its key.
    pub fn validate(&self) -> Result<(), DataError> {
        let counts = [
            ("data.synthetic.train_per_class", self.train_per_class, 1),
            ("data.synthetic.test_per_class", self.test_per_class, 0),
        ];
        for (key, value, least) in counts {
            if !(least..=MOST_PER_CLASS).contains(&value) {
                let detail = format!("it is {value}, and must be from {least} to {MOST_PER_CLASS}");
                return Err(DataError::Setting { key, detail });
            }
        }
        for (key, value) in [("data.synthetic.difficulty", self.difficulty), ("data.synthetic.noise", self.noise)] {
            if !(0.0..=1.0).contains(&value) {
                return Err(DataError::Setting { key, detail: format!("it is {value}, and must be from 0 to 1") });
            }
        }
        Ok(())
    }
}

/// One drawn face.
#[derive(Clone, Debug, PartialEq)]
pub struct SyntheticFace {
    /// 8-bit grey pixels, square.
    pub image: GrayImage,
    /// One of [`CLASSES`].
    pub class: &'static str,
    /// `train` or `test`, see [`split_name`].
    pub split: &'static str,
    /// Number of the picture within its class and split, from 0.
    pub index: usize,
}

/// Draws all pictures, `size` x `size` pixels: first the training ones, then the test ones, the classes taking turns.
///
/// A picture depends on the seed, the strengths, its split, class and index alone: neither the number of threads nor
/// the number of pictures changes it. Strengths outside 0..1 are taken as the nearest allowed ones; use
/// [`SyntheticConfig::validate`] to refuse them.
pub fn generate(config: &SyntheticConfig, size: u32) -> Vec<SyntheticFace> {
    let splits = [(split_name::TRAIN, config.train_per_class), (split_name::TEST, config.test_per_class)];
    let pictures: Vec<(&'static str, usize, usize)> = splits
        .into_iter()
        .flat_map(|(split, count)| {
            (0..count).flat_map(move |index| (0..CLASSES.len()).map(move |class| (split, class, index)))
        })
        .collect();
    pictures
        .into_par_iter()
        .map(|(split, class, index)| {
            let name = CLASSES[class];
            let mut dice = Dice::of_picture(config.seed, split, name, index);
            SyntheticFace { image: draw_face(config, class, size, &mut dice), class: name, split, index }
        })
        .collect()
}

/// One picture, `size` x `size`.
fn draw_face(config: &SyntheticConfig, class: usize, size: u32, dice: &mut Dice) -> GrayImage {
    let (difficulty, noise) = (strength(config.difficulty), strength(config.noise));
    let person = Person::draw(difficulty, dice);
    let expression = Expression::draw(class, difficulty, dice);
    let scene = Scene::draw(difficulty, noise, dice);
    let side = size.saturating_mul(2).clamp(SMALLEST_CANVAS, LARGEST_CANVAS);
    let Some(mut canvas) = Canvas::new(side, &scene, expression.downcast) else { return GrayImage::new(size, size) };
    portrait::draw(&mut canvas, &person, &expression, &scene);
    let width = side as usize;
    let blurred = blur(canvas.greys(), width, scene.blur);
    let mut photograph =
        if side == size.saturating_mul(2) { halve(&blurred, width) } else { resized(&blurred, side, size) };
    for value in &mut photograph {
        let exposed = 0.5 + (*value - 0.5) * scene.contrast + scene.brightness;
        *value = exposed + dice.normal(0.0, scene.grain);
    }
    let bytes = photograph.into_iter().map(byte).collect();
    GrayImage::from_raw(size, size, bytes).unwrap_or_else(|| GrayImage::new(size, size))
}

/// A strength as it is used: within 0..1, and 0 for what is no number.
fn strength(value: f32) -> f32 {
    if value.is_nan() { 0.0 } else { value.clamp(0.0, 1.0) }
}

fn byte(value: f32) -> u8 {
    (value.clamp(0.0, 1.0) * 255.0).round() as u8
}

/// Two passes of a small box in each direction, mixed with the sharp picture by `amount` (0..1).
fn blur(mut greys: Vec<f32>, width: usize, amount: f32) -> Vec<f32> {
    if amount <= 0.0 || width == 0 {
        return greys;
    }
    let sharp = greys.clone();
    let mut line = vec![0.0; width];
    for _ in 0..2 {
        for (step, start_step) in [(1, width), (width, 1)] {
            for start in (0..width).map(|index| index * start_step) {
                for (index, value) in line.iter_mut().enumerate() {
                    *value = greys[start + index * step];
                }
                for index in 0..width {
                    let (before, after) = (line[index.saturating_sub(1)], line[(index + 1).min(width - 1)]);
                    greys[start + index * step] = (before + line[index] + after) / 3.0;
                }
            }
        }
    }
    greys.iter().zip(&sharp).map(|(soft, sharp)| amount * soft + (1.0 - amount) * sharp).collect()
}

/// Half the side, each pixel the mean of four.
fn halve(greys: &[f32], width: usize) -> Vec<f32> {
    let rows = greys.chunks_exact(2 * width);
    rows.flat_map(|rows| {
        let (upper, lower) = rows.split_at(width);
        upper.chunks_exact(2).zip(lower.chunks_exact(2)).map(|(a, b)| (a[0] + a[1] + b[0] + b[1]) / 4.0)
    })
    .collect()
}

/// Any other size, through 8 bits.
fn resized(greys: &[f32], side: u32, size: u32) -> Vec<f32> {
    let bytes = greys.iter().map(|&value| byte(value)).collect();
    let large = GrayImage::from_raw(side, side, bytes).unwrap_or_else(|| GrayImage::new(side, side));
    let small = imageops::resize(&large, size, size, FilterType::Triangle);
    small.into_raw().into_iter().map(|value| f32::from(value) / 255.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn few(seed: u64) -> SyntheticConfig {
        SyntheticConfig { train_per_class: 6, test_per_class: 3, seed, ..SyntheticConfig::default() }
    }

    fn generate_with_threads(threads: usize) -> Vec<SyntheticFace> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| generate(&few(3), 48))
    }

    #[test]
    fn the_number_of_threads_changes_nothing() {
        assert_eq!(generate_with_threads(1), generate_with_threads(3));
    }

    #[test]
    fn the_number_of_pictures_changes_no_picture() {
        let more = SyntheticConfig { train_per_class: 8, ..few(3) };
        let few = generate(&few(3), 48);
        assert_eq!(few[..6 * 7], generate(&more, 48)[..6 * 7]);
    }

    #[test]
    fn every_class_has_its_pictures_in_both_splits() {
        let faces = generate(&few(1), 48);
        assert_eq!(faces.len(), 7 * 9);
        for class in CLASSES {
            let count = |split: &str| faces.iter().filter(|face| face.class == class && face.split == split).count();
            assert_eq!((count("train"), count("test")), (6, 3), "{class}");
        }
    }

    #[test]
    fn no_two_pictures_are_alike() {
        let faces: Vec<_> = [1, 2].iter().flat_map(|&seed| generate(&few(seed), 48)).collect();
        let distinct: HashSet<Vec<u8>> = faces.iter().map(|face| face.image.as_raw().clone()).collect();
        assert_eq!(distinct.len(), faces.len());
    }

    #[test]
    fn pictures_are_neither_blank_nor_of_the_wrong_size() {
        for size in [1, 31, 48, 600] {
            let config = SyntheticConfig { train_per_class: 1, test_per_class: 0, ..few(5) };
            for face in generate(&config, size) {
                assert_eq!(face.image.dimensions(), (size, size));
                let (low, high) = (face.image.as_raw().iter().min(), face.image.as_raw().iter().max());
                assert!(size == 1 || high > low.map(|low| low + 40).as_ref(), "{size} {}", face.class);
            }
        }
        assert!(generate(&few(1), 0).iter().all(|face| face.image.is_empty()));
    }

    #[test]
    fn what_is_out_of_range_is_refused_by_its_key() {
        let message = |config: SyntheticConfig| config.validate().unwrap_err().to_string();
        let strengths =
            [SyntheticConfig { difficulty: 1.5, ..few(1) }, SyntheticConfig { noise: f32::NAN, ..few(1) }].map(message);
        assert_eq!(strengths[0], "data.synthetic.difficulty: it is 1.5, and must be from 0 to 1");
        assert_eq!(strengths[1], "data.synthetic.noise: it is NaN, and must be from 0 to 1");
        let most = SyntheticConfig { train_per_class: MOST_PER_CLASS, test_per_class: 0, ..few(1) };
        most.validate().unwrap();
        let counts = [
            SyntheticConfig { train_per_class: 0, ..most.clone() },
            SyntheticConfig { train_per_class: MOST_PER_CLASS + 1, ..most.clone() },
            SyntheticConfig { test_per_class: MOST_PER_CLASS + 1, ..most },
        ]
        .map(message);
        assert_eq!(counts[0], "data.synthetic.train_per_class: it is 0, and must be from 1 to 100000");
        assert_eq!(counts[1], "data.synthetic.train_per_class: it is 100001, and must be from 1 to 100000");
        assert_eq!(counts[2], "data.synthetic.test_per_class: it is 100001, and must be from 0 to 100000");
    }
}
