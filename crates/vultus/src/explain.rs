//! What a prediction rests on: the parts of a face whose loss speaks against the predicted class (occlusion sensitivity, Zeiler
//! and Fergus 2014; measured as the weight of evidence, Robnik-Šikonja and Kononenko 2008).
//!
//! In: a picture, a face of it and a classifier. Out: a grid of importances, and the picture with the grid laid over it.
//! It says what the network looked at, not whether it was right.

use image::{DynamicImage, GrayImage, Luma, Rgb, RgbImage};

use crate::analyze::AnalyzedFace;
use crate::annotate::{enlarged, name_on};
use crate::classifier::{Classifier, Prediction, highest};
use crate::faces::Region;

/// Cells along one side of the grid.
const CELLS: u32 = 12;

/// Cells along one side of the patch that is hidden.
const PATCH: u32 = 3;

/// The fall of the class's log odds, in bits, that is full red at least: where no part of a face matters, none is coloured much.
const LEAST_FALL: f32 = 1.0;

/// How strongly the most important parts are coloured.
const STRENGTH: f32 = 0.6;

/// How important each part of a face is.
#[derive(Clone, Debug, PartialEq)]
pub struct Saliency {
    /// `CELLS` x `CELLS` importances, row by row, 0..1; 1 is a cell that matters most, and no less than [`LEAST_FALL`], 0 one that does not speak for the class.
    cells: Vec<f32>,
}

impl Saliency {
    /// Hides one part of `crop` after the other, under its mean grey, and asks `classifier` about all of these pictures in
    /// one batch. A cell's importance is the mean fall of the predicted class's log odds over the patches that hide it, where a
    /// rise counts as none: of a face that leaves no doubt, the odds tell what still speaks for the class where its probability hardly moves.
    pub fn of(classifier: &Classifier, crop: &GrayImage) -> Self {
        let places = CELLS - PATCH + 1;
        let mean = crop.iter().map(|&pixel| u64::from(pixel)).sum::<u64>() / (crop.len() as u64).max(1);
        let hidden = |index: u32| {
            let (row, column) = (index / places, index % places);
            let mut picture = crop.clone();
            let edge = |cell: u32, length: u32| cell * length / CELLS;
            for y in edge(row, crop.height())..edge(row + PATCH, crop.height()) {
                for x in edge(column, crop.width())..edge(column + PATCH, crop.width()) {
                    picture.put_pixel(x, y, Luma([mean as u8]));
                }
            }
            picture
        };
        let pictures: Vec<GrayImage> = std::iter::once(crop.clone()).chain((0..places * places).map(hidden)).collect();
        let predictions = classifier.predict_faces(&pictures);
        let Some((first, rest)) = predictions.split_first() else { return Self { cells: Vec::new() } };
        let scores: Vec<f32> = first.probabilities.iter().map(|(_, probability)| *probability).collect();
        let class = highest(&scores);
        let whole = log_odds(first, class);

        let mut cells = vec![0.0; (CELLS * CELLS) as usize];
        let mut patches = vec![0.0_f32; cells.len()];
        for (index, prediction) in rest.iter().enumerate() {
            let (row, column) = (index as u32 / places, index as u32 % places);
            let fall = (whole - log_odds(prediction, class)).max(0.0);
            for cell_row in row..row + PATCH {
                for cell_column in column..column + PATCH {
                    let cell = (cell_row * CELLS + cell_column) as usize;
                    cells[cell] += fall;
                    patches[cell] += 1.0;
                }
            }
        }
        let mut largest = LEAST_FALL;
        for (cell, patches) in cells.iter_mut().zip(patches) {
            *cell /= patches;
            largest = largest.max(*cell);
        }
        cells.iter_mut().for_each(|cell| *cell /= largest);
        Self { cells }
    }

    /// Importance at a point of the crop, `x` and `y` in 0..1; between the cells' centres it changes evenly.
    pub fn at(&self, x: f32, y: f32) -> f32 {
        let split = |part: f32| {
            let place = (part * CELLS as f32 - 0.5).clamp(0.0, (CELLS - 1) as f32);
            let first = place as usize;
            (first, (first + 1).min(CELLS as usize - 1), place.fract())
        };
        let ((left, right, to_right), (top, bottom, to_bottom)) = (split(x), split(y));
        let cell = |row: usize, column: usize| self.cells.get(row * CELLS as usize + column).copied().unwrap_or(0.0);
        let along = |row| cell(row, left) + (cell(row, right) - cell(row, left)) * to_right;
        along(top) + (along(bottom) - along(top)) * to_bottom
    }
}

/// How many bits speak for a class against all others, from -126 to 126.
fn log_odds(prediction: &Prediction, class: usize) -> f32 {
    let others: f32 =
        prediction.probabilities.iter().enumerate().filter(|&(other, _)| other != class).map(|(_, (_, p))| p).sum();
    prediction.probabilities[class].1.max(f32::MIN_POSITIVE).log2() - others.max(f32::MIN_POSITIVE).log2()
}

/// `picture` with the saliency of each of `faces` over it, from nothing through yellow to red, and its box and name; small
/// pictures are enlarged, as by [`crate::annotate::annotate_enlarged`].
pub fn overlay(picture: &DynamicImage, faces: &[AnalyzedFace], names: &[String], saliencies: &[Saliency]) -> RgbImage {
    let (mut canvas, factor) = enlarged(picture);
    let (width, height) = canvas.dimensions();
    for (face, saliency) in faces.iter().zip(saliencies) {
        let region = times(face.region, factor as f32);
        let (left, top, right, bottom) = reach(&region, width, height);
        for y in top..bottom {
            for x in left..right {
                let Some((u, v)) = place_in(&region, x, y, width, height) else { continue };
                let importance = saliency.at(u, v);
                let colour = [255.0, 230.0 * (1.0 - importance), 0.0];
                let Rgb(pixel) = canvas.get_pixel_mut(x, y);
                for (under, over) in pixel.iter_mut().zip(colour) {
                    *under = (f32::from(*under) + (over - f32::from(*under)) * STRENGTH * importance).round() as u8;
                }
            }
        }
    }
    name_on(&mut canvas, factor, faces, names);
    canvas
}

/// A region of a picture that is enlarged by `factor`.
fn times(region: Region, factor: f32) -> Region {
    match region {
        Region::Whole => Region::Whole,
        Region::Square { centre: (x, y), side, angle } => {
            Region::Square { centre: (x * factor, y * factor), side: side * factor, angle }
        }
    }
}

/// The upright rectangle of pixels around a region: left, top, right, bottom.
fn reach(region: &Region, width: u32, height: u32) -> (u32, u32, u32, u32) {
    let Region::Square { centre: (x, y), side, .. } = *region else { return (0, 0, width, height) };
    let half = side * std::f32::consts::FRAC_1_SQRT_2;
    let clamp = |value: f32, limit: u32| value.clamp(0.0, limit as f32) as u32;
    (clamp(x - half, width), clamp(y - half, height), clamp(x + half + 1.0, width), clamp(y + half + 1.0, height))
}

/// Where the centre of a pixel is in a region, in parts of its sides; `None` outside.
fn place_in(region: &Region, x: u32, y: u32, width: u32, height: u32) -> Option<(f32, f32)> {
    let (x, y) = (x as f32 + 0.5, y as f32 + 0.5);
    let (u, v) = match *region {
        Region::Whole => (x / width as f32, y / height as f32),
        Region::Square { centre, side, angle } => {
            let (sine, cosine) = angle.sin_cos();
            let (x, y) = (x - centre.0, y - centre.1);
            ((x * cosine + y * sine) / side + 0.5, (y * cosine - x * sine) / side + 0.5)
        }
    };
    ((0.0..=1.0).contains(&u) && (0.0..=1.0).contains(&v)).then_some((u, v))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::Bundle;
    use crate::faces::Area;
    use crate::labels::Labels;
    use crate::network::NetworkConfig;
    use crate::weights::WeightTensor;

    /// Looks at the pixels of the upper left quarter only.
    fn corner_watcher() -> Classifier {
        let network: NetworkConfig = serde_json::from_str(r#"{"layers": [{"type": "flatten"}]}"#).unwrap();
        let weight = |pixel: usize| if pixel / 48 < 24 && pixel % 48 < 24 { 1e-3 } else { 0.0 };
        let data = (0..48 * 48).flat_map(|pixel| [weight(pixel), -weight(pixel)]).collect();
        let weights = [
            ("layers.1.weight".to_owned(), WeightTensor { shape: vec![48 * 48, 2], data }),
            ("layers.1.bias".to_owned(), WeightTensor { shape: vec![2], data: vec![-50.0, 50.0] }),
        ];
        let (preprocessing, inference, training, metrics) = Default::default();
        let labels = Labels::new(["bright", "dark"]).unwrap();
        let weights = weights.into_iter().collect();
        Classifier::from_bundle(Bundle { labels, preprocessing, network, weights, inference, training, metrics })
            .unwrap()
    }

    #[test]
    fn what_the_network_looks_at_is_important_and_the_rest_is_not() {
        // Bright in the corner that decides, dark elsewhere: hiding the corner lowers its sum.
        let crop = GrayImage::from_fn(48, 48, |x, y| Luma([if x < 24 && y < 24 { 100 } else { 0 }]));
        let saliency = Saliency::of(&corner_watcher(), &crop);
        assert!(saliency.at(0.25, 0.25) > 0.9, "{}", saliency.at(0.25, 0.25));
        for (x, y) in [(0.9, 0.9), (0.9, 0.1), (0.1, 0.9)] {
            assert_eq!(saliency.at(x, y), 0.0, "{x} {y}");
        }
        let face = AnalyzedFace {
            area: Area { x: 0, y: 0, width: 96, height: 96 },
            confidence: 1.0,
            label: None,
            score: 1.0,
            probabilities: Vec::new(),
            landmarks: None,
            region: Region::Whole,
        };
        let drawn = overlay(&DynamicImage::new_rgb8(96, 96), &[face], &["bright".to_owned()], &[saliency]);
        assert_eq!(drawn.dimensions(), (384, 384));
        assert!(drawn.get_pixel(96, 96).0[0] > 100, "{:?}", drawn.get_pixel(96, 96));
        assert_eq!(drawn.get_pixel(340, 340), &Rgb([0, 0, 0]));
        assert!((0..384).any(|x| drawn.get_pixel(x, 12).0 == [255; 3]), "the name is missing");
    }

    #[test]
    fn what_decides_is_coloured_where_nothing_leaves_a_doubt() {
        // Any part of the corner may go: the rest still makes the class certain.
        let crop = GrayImage::from_fn(48, 48, |x, y| Luma([if x < 24 && y < 24 { 120 } else { 0 }]));
        assert_eq!(corner_watcher().predict_faces(std::slice::from_ref(&crop))[0].score, 1.0);
        let saliency = Saliency::of(&corner_watcher(), &crop);
        assert!(saliency.at(0.25, 0.25) > 0.9, "{}", saliency.at(0.25, 0.25));
        assert_eq!(saliency.at(0.9, 0.9), 0.0);
    }

    #[test]
    fn where_nothing_matters_nothing_is_coloured_much() {
        // One grey level of a few pixels: some hundredths of the logit.
        let crop = GrayImage::from_fn(48, 48, |x, y| Luma([if x < 4 && y < 4 { 88 } else { 87 }]));
        let saliency = Saliency::of(&corner_watcher(), &crop);
        let most = (0..48).flat_map(|x| (0..48).map(move |y| (x, y)));
        let most = most.map(|(x, y)| saliency.at(x as f32 / 48.0, y as f32 / 48.0)).fold(0.0, f32::max);
        assert!(most > 0.0 && most < 0.3, "{most}");
    }

    #[test]
    fn a_turned_region_is_coloured_where_it_lies() {
        let region = Region::Square { centre: (50.0, 50.0), side: 20.0, angle: std::f32::consts::FRAC_PI_2 };
        // A quarter turn clockwise: the region's upper left is the picture's upper right.
        let (u, v) = place_in(&region, 59, 40, 100, 100).unwrap();
        assert!((u - 0.025).abs() < 1e-4 && (v - 0.025).abs() < 1e-4, "{u} {v}");
        assert_eq!(place_in(&region, 70, 50, 100, 100), None);
    }
}
