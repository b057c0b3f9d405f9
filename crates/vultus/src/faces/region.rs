//! The part of a picture that shows a face the way the training pictures do.
//!
//! In: a box, perhaps with five landmarks. Out: a square, upright or turned with the face, and its pixels in grey. How large the
//! square is and where the face sits in it was measured on FER-2013's training faces; docs/results/faces.md says how.

use image::{DynamicImage, GrayImage, Luma};

use crate::preprocess::{Preprocessing, grayscale};

/// Most samples along one side of an output pixel: a bound on the time, for faces of more than 3,000 pixels.
const MAXIMUM_SAMPLES: u32 = 64;

/// Part of the side of such a picture that is cut out. Of 0.8 to 1.2, this keeps most accuracy on training faces with a
/// network that learnt from random crops; docs/results/faces.md has the figures.
pub(super) const FRAME: f32 = 0.9;

/// How far a face may be tilted before it is turned back, and then only to there: 15 degrees in radians. FER-2013's faces
/// are not upright either, and a network has learnt from them as they are; docs/results/faces.md has the figures.
pub(super) const TILT: f32 = 15.0 * std::f32::consts::PI / 180.0;

/// What is cut out for the classifier.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Region {
    /// All of the picture, whatever its proportions: it is a face already.
    Whole,
    /// A square, perhaps turned, perhaps reaching out of the picture.
    Square {
        /// Horizontal and vertical position of its centre, in pixels.
        centre: (f32, f32),
        /// Its side, in pixels.
        side: f32,
        /// How far it is turned clockwise, in radians.
        angle: f32,
    },
}

impl Region {
    /// The square around the box `[x, y, width, height]`, turned by `angle`: a training picture's side is `scale` times the
    /// box's, and its centre is `shift` times the box's side below the box's. A box's side is that of the square of its area.
    pub(super) fn around([x, y, width, height]: [f32; 4], scale: f32, shift: f32, angle: f32) -> Self {
        let size = width.sqrt() * height.sqrt();
        let (sine, cosine) = angle.sin_cos();
        let centre = (x + width / 2.0 - shift * size * sine, y + height / 2.0 + shift * size * cosine);
        Self::Square { centre, side: FRAME * scale * size, angle }
    }

    /// The region's pixels, grey, of the size that `preprocessing` asks for. Outside the picture its edge goes on.
    ///
    /// # Panics
    /// If the picture has no pixels.
    pub fn cut(&self, picture: &DynamicImage, preprocessing: &Preprocessing) -> GrayImage {
        assert!(picture.width() > 0 && picture.height() > 0, "a picture without pixels has no faces");
        match *self {
            Self::Whole => preprocessing.to_face(picture),
            Self::Square { centre, side, angle } => {
                square(picture, centre, side, angle, preprocessing.width, preprocessing.height)
            }
        }
    }
}

/// How far a face with these landmarks is turned back, in radians, clockwise: what its tilt has beyond [`TILT`]. Its tilt
/// is that of the lines through the eyes and through the corners of the mouth, together.
pub(super) fn turn([right_eye, left_eye, _, right_mouth, left_mouth]: &[(f32, f32); 5]) -> f32 {
    let x = left_eye.0 - right_eye.0 + left_mouth.0 - right_mouth.0;
    let y = left_eye.1 - right_eye.1 + left_mouth.1 - right_mouth.1;
    let tilt = y.atan2(x);
    if tilt.is_nan() { 0.0 } else { tilt - tilt.clamp(-TILT, TILT) }
}

/// Cuts out a turned square. Each output pixel is the mean of a grid of bilinear samples, up to
/// [`MAXIMUM_SAMPLES`] a side, that is at least as dense as the picture's pixels, so that shrinking averages instead of skipping them.
fn square(picture: &DynamicImage, (x, y): (f32, f32), side: f32, angle: f32, width: u32, height: u32) -> GrayImage {
    let (sine, cosine) = angle.sin_cos();
    // The part of the picture that is needed, so that not all of it is turned grey.
    let reach = side * (sine.abs() + cosine.abs()) / 2.0 + 2.0;
    let clamp = |value: f32, limit: u32| value.clamp(0.0, limit as f32) as u32;
    let left = clamp(x - reach, picture.width().saturating_sub(1));
    let top = clamp(y - reach, picture.height().saturating_sub(1));
    let right = clamp((x + reach).ceil(), picture.width()).max(left + 1);
    let bottom = clamp((y + reach).ceil(), picture.height()).max(top + 1);
    let grey = grayscale(&picture.crop_imm(left, top, right - left, bottom - top));
    let (x, y) = (x - left as f32, y - top as f32);

    let samples = ((side / width.min(height) as f32).ceil() as u32).clamp(1, MAXIMUM_SAMPLES);
    let place = |index: u32, sample: u32, length: u32| {
        ((index as f32 + (sample as f32 + 0.5) / samples as f32) / length as f32 - 0.5) * side
    };
    GrayImage::from_fn(width, height, |column, row| {
        let mut sum = 0.0;
        for vertical in 0..samples {
            let v = place(row, vertical, height);
            for horizontal in 0..samples {
                let u = place(column, horizontal, width);
                sum += bilinear(&grey, x + u * cosine - v * sine, y + u * sine + v * cosine);
            }
        }
        Luma([(sum / (samples * samples) as f32).round() as u8])
    })
}

/// The grey value at a point, between the four nearest pixels' centres; beyond the edge, that of the edge.
fn bilinear(grey: &GrayImage, x: f32, y: f32) -> f32 {
    let split = |value: f32, length: u32| {
        let value = (value - 0.5).clamp(0.0, (length - 1) as f32);
        let first = value as u32;
        (first, (first + 1).min(length - 1), value.fract())
    };
    let (left, right, to_right) = split(x, grey.width());
    let (top, bottom, to_bottom) = split(y, grey.height());
    let at = |x, y| f32::from(grey.get_pixel(x, y).0[0]);
    let upper = at(left, top) + (at(right, top) - at(left, top)) * to_right;
    let lower = at(left, bottom) + (at(right, bottom) - at(left, bottom)) * to_right;
    upper + (lower - upper) * to_bottom
}
