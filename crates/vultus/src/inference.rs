//! What stands between a network's answer on one picture and the probabilities that people see: the average over views
//! of the picture, and the temperature.
//!
//! In: pixels as the network reads them, and its probabilities. Out: pixels of the views, and calibrated probabilities.
//! The settings travel with the model. Fitting the temperature is the business of training.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// Furthest shift of a view in pixels.
const MOST_SHIFT: usize = 8;

/// Most of a neighbour's share in a blurred pixel: there the kernel is binomial.
const MOST_BLUR: f64 = 0.25;

/// How a model's probabilities are made.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Inference {
    /// The views that are averaged.
    pub views: Views,
    /// Divides the logarithms of the averaged probabilities, which are then made to sum to 1 again (Guo et al. 2017,
    /// section 4.2); above 1 the model becomes less sure. It changes no ranking.
    pub temperature: f32,
}

impl Default for Inference {
    fn default() -> Self {
        Self { views: Views::default(), temperature: 1.0 }
    }
}

/// Views of a picture whose probabilities are averaged. Each costs a pass through the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Views {
    /// Adds the mirror image of each view.
    pub flip: bool,
    /// Adds the picture shifted by so many pixels in each of the four diagonal directions; 0 is off.
    pub shift: usize,
    /// Blurs the picture first: the share of each of a pixel's two neighbours, across and then down; 0 is off. Images that
    /// are turned, shifted or enlarged at random in training are interpolated there, and a network that knows only such
    /// images reads sharper ones worse. It adds no view.
    pub blur: f64,
}

/// Views that cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} is {value}: {expected}")]
pub struct ViewsError {
    /// The key in a configuration.
    pub key: &'static str,
    /// What it is.
    pub value: String,
    /// What it may be.
    pub expected: &'static str,
}

impl Views {
    /// Checks what came from a file or a person.
    ///
    /// # Errors
    /// A shift of more than 8 pixels, or a blur outside 0..=0.25.
    pub fn validate(&self) -> Result<(), ViewsError> {
        let refuse = |key, value, expected| Err(ViewsError { key, value, expected });
        if self.shift > MOST_SHIFT {
            return refuse("views.shift", self.shift.to_string(), "use 0 to 8 pixels");
        }
        if !(0.0..=MOST_BLUR).contains(&self.blur) {
            return refuse("views.blur", self.blur.to_string(), "use a share from 0 to 0.25");
        }
        Ok(())
    }

    /// Number of views of one picture.
    pub fn count(&self) -> usize {
        self.shifts().len() * if self.flip { 2 } else { 1 }
    }

    /// Pixels of every view of pictures `[n, height, width]`, first that of the unshifted pictures: `[views, n, height, width]`.
    /// Beyond the edge a view repeats the picture's last row or column.
    pub fn of<'a>(&self, pixels: &'a [f32], width: usize, height: usize) -> Cow<'a, [f32]> {
        let mut pictures = Cow::Borrowed(pixels);
        if self.blur > 0.0 {
            pictures
                .to_mut()
                .chunks_exact_mut(width * height)
                .for_each(|picture| blur(picture, width, self.blur as f32));
        }
        if self.count() == 1 {
            return pictures;
        }
        let mut views = Vec::with_capacity(self.count() * pixels.len());
        for (x, y) in self.shifts() {
            for mirrored in [false, true] {
                if !mirrored || self.flip {
                    add_view(&mut views, &pictures, width, height, (x, y), mirrored);
                }
            }
        }
        Cow::Owned(views)
    }

    /// How far to the right and down each view looks, in pixels; first the one that looks straight on.
    pub(crate) fn shifts(&self) -> Vec<(isize, isize)> {
        let by = self.shift as isize;
        let mut shifts = vec![(0, 0)];
        if by > 0 {
            shifts.extend([(-by, -by), (by, -by), (-by, by), (by, by)]);
        }
        shifts
    }
}

/// Mixes each pixel with its neighbours, of which each has the part `share`: in its row, then in its column.
fn blur(picture: &mut [f32], width: usize, share: f32) {
    let mixed = |before: f32, value: f32, after: f32| value + share * (before - value + (after - value));
    for row in picture.chunks_exact_mut(width) {
        let mut before = row[0];
        for column in 0..width {
            let (value, after) = (row[column], row[(column + 1).min(width - 1)]);
            row[column] = mixed(before, value, after);
            before = value;
        }
    }
    let mut above = picture[..width].to_vec();
    let height = picture.len() / width;
    for row in 0..height {
        let (this, below) = picture[row * width..].split_at_mut(width);
        for (column, above) in above.iter_mut().enumerate() {
            let value = this[column];
            let after = if row + 1 < height { below[column] } else { value };
            this[column] = mixed(*above, value, after);
            *above = value;
        }
    }
}

fn add_view(views: &mut Vec<f32>, pixels: &[f32], width: usize, height: usize, (x, y): (isize, isize), mirrored: bool) {
    let within = |place: usize, by: isize, length: usize| place.saturating_add_signed(by).min(length - 1);
    for picture in pixels.chunks_exact(width * height) {
        for row in 0..height {
            let line = &picture[within(row, y, height) * width..][..width];
            views.extend((0..width).map(|column| {
                let column = if mirrored { width - 1 - column } else { column };
                line[within(column, x, width)]
            }));
        }
    }
}

/// What a probability counts for that is smaller, before a temperature: it was too small for single precision, and a high temperature
/// raises it as well.
pub const LEAST_PROBABILITY: f32 = f32::MIN_POSITIVE;

/// Raises each row of `classes` probabilities, at least 2^-126 each, to the power of `1 / temperature` and makes it sum to 1 again.
pub fn sharpen(probabilities: &mut [f32], classes: usize, temperature: f32) {
    if temperature == 1.0 {
        return;
    }
    for row in probabilities.chunks_exact_mut(classes) {
        // Relative to the highest, so that no power of all vanishes; in double precision for the sum.
        let highest = row.iter().copied().fold(LEAST_PROBABILITY, f32::max);
        let power = 1.0 / f64::from(temperature);
        // `f32::max` would turn NaN into the other value.
        let positive = |p: f32| f64::from(if p < LEAST_PROBABILITY { LEAST_PROBABILITY } else { p });
        let powers: Vec<f64> = row.iter().map(|&p| (positive(p) / f64::from(highest)).powf(power)).collect();
        let sum: f64 = powers.iter().sum();
        row.iter_mut().zip(powers).for_each(|(p, power)| *p = (power / sum) as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_are_the_picture_its_mirror_image_and_its_shifts() {
        let pixels: Vec<f32> = (0..12).map(|value| value as f32).collect();
        let views = Views { flip: true, shift: 1, ..Views::default() };
        let found = views.of(&pixels, 3, 2);
        let found: Vec<&[f32]> = found.chunks_exact(12).collect();
        assert_eq!((found.len(), views.count()), (10, 10));
        assert_eq!(found[0], pixels);
        assert_eq!(found[1][..6], [2.0, 1.0, 0.0, 5.0, 4.0, 3.0]);
        // To the upper left: each place shows what was there.
        assert_eq!(found[2][..6], [0.0, 0.0, 1.0, 0.0, 0.0, 1.0]);
        assert_eq!(found[8][6..], [10.0, 11.0, 11.0, 10.0, 11.0, 11.0]);
        assert_eq!(*Views::default().of(&pixels, 3, 2), pixels);
    }

    #[test]
    fn a_blur_mixes_neighbours_and_keeps_the_mean() {
        let mut pixels = vec![0.0; 20];
        pixels[6] = 100.0;
        let views = Views { blur: 0.25, ..Views::default() };
        assert_eq!(views.count(), 1);
        let binomial =
            [1.0, 2.0, 1.0, 0.0, 0.0, 2.0, 4.0, 2.0, 0.0, 0.0, 1.0, 2.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        assert_eq!(*views.of(&pixels, 5, 4), binomial.map(|part| part * 100.0 / 16.0));
        // At the edges the last row and column go on; two pictures do not mix.
        let both = [[8.0, 0.0, 0.0, 0.0], [1.0; 4]].concat();
        assert_eq!(*views.of(&both, 2, 2), [[4.5, 1.5, 1.5, 0.5], [1.0; 4]].concat());
        let flipped = Views { flip: true, ..views };
        assert_eq!(flipped.of(&both, 2, 2)[8..12], [1.5, 4.5, 0.5, 1.5]);
        assert_eq!(*Views { blur: 0.1, ..Views::default() }.of(&[5.0; 12], 4, 3), [5.0; 12]);
        assert!(views.of(&[f32::NAN; 4], 2, 2).iter().all(|value| value.is_nan()));
    }

    #[test]
    fn views_are_checked() {
        let refused = |views: Views| views.validate().unwrap_err().to_string();
        assert_eq!(refused(Views { shift: 9, ..Views::default() }), "views.shift is 9: use 0 to 8 pixels");
        for blur in [-0.1, 0.3, f64::NAN] {
            let expected = format!("views.blur is {blur}: use a share from 0 to 0.25");
            assert_eq!(refused(Views { blur, ..Views::default() }), expected);
        }
        let views: Views = serde_json::from_str(r#"{"flip":true,"shift":0}"#).unwrap();
        assert_eq!(views, Views { flip: true, ..Views::default() });
        assert_eq!(views.validate(), Ok(()));
    }

    #[test]
    fn a_temperature_divides_logits() {
        let logits = [2.0_f64, -1.0, 0.5];
        let softmax = |heat: f64| -> Vec<f32> {
            let powers: Vec<f64> = logits.iter().map(|logit| (logit / heat).exp()).collect();
            powers.iter().map(|power| (power / powers.iter().sum::<f64>()) as f32).collect()
        };
        for heat in [0.5, 1.0, 3.0] {
            let mut row = softmax(1.0);
            sharpen(&mut row, 3, heat as f32);
            assert!(row.iter().zip(softmax(heat)).all(|(a, b)| (a - b).abs() < 1e-6), "{row:?}");
        }
        let mut sure = vec![1.0, 0.0, 1e-30, 0.0, 0.0, 1.0];
        sharpen(&mut sure, 3, 0.1);
        assert_eq!(sure, [1.0, 0.0, 0.0, 0.0, 0.0, 1.0]);
    }

    #[test]
    fn no_number_stays_no_number() {
        let mut row = vec![f32::NAN, 0.5];
        sharpen(&mut row, 2, 2.0);
        assert!(row.iter().all(|p| p.is_nan()), "{row:?}");
    }
}
