//! Affine mappings of a picture onto itself.
//!
//! In: a mapping from places in the new picture to places in the old one, both about their middle. Out: the new picture,
//! interpolated bilinearly. Outside, the picture goes on as in a mirror along its edge.

use image::GrayImage;

/// `(x, y)` in the new picture shows `(a x + b y + c, d x + e y + f)` of the old one; the origin is the middle.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Map([f64; 6]);

impl Map {
    pub(super) fn identity() -> Self {
        Self([1.0, 0.0, 0.0, 0.0, 1.0, 0.0])
    }

    pub(super) fn shift(x: f64, y: f64) -> Self {
        Self([1.0, 0.0, x, 0.0, 1.0, y])
    }

    pub(super) fn scale(x: f64, y: f64) -> Self {
        Self([x, 0.0, 0.0, 0.0, y, 0.0])
    }

    pub(super) fn rotation(angle: f64) -> Self {
        let (sin, cos) = angle.sin_cos();
        Self([cos, -sin, 0.0, sin, cos, 0.0])
    }

    pub(super) fn shear(x: f64) -> Self {
        Self([1.0, x, 0.0, 0.0, 1.0, 0.0])
    }

    pub(super) fn mirror() -> Self {
        Self::scale(-1.0, 1.0)
    }

    /// This mapping, and on the place that it gives, `next`.
    pub(super) fn then(self, next: Self) -> Self {
        let ([a, b, c, d, e, f], [g, h, i, j, k, l]) = (self.0, next.0);
        Self([g * a + h * d, g * b + h * e, g * c + h * f + i, j * a + k * d, j * b + k * e, j * c + k * f + l])
    }

    pub(super) fn apply(self, picture: &GrayImage) -> GrayImage {
        let [a, b, c, d, e, f] = self.0.map(|value| value as f32);
        let (width, height) = picture.dimensions();
        let (middle_x, middle_y) = ((width - 1) as f32 / 2.0, (height - 1) as f32 / 2.0);
        let pixels = picture.as_raw();
        let mut moved = GrayImage::new(width, height);
        for (y, row) in moved.as_mut().chunks_exact_mut(width as usize).enumerate() {
            let y = y as f32 - middle_y;
            for (x, place) in row.iter_mut().enumerate() {
                let x = x as f32 - middle_x;
                let (old_x, old_y) = (a * x + b * y + c + middle_x, d * x + e * y + f + middle_y);
                let (left, top) = (old_x.floor(), old_y.floor());
                let (right_part, bottom_part) = (old_x - left, old_y - top);
                let columns = [left as i32, left as i32 + 1].map(|x| mirrored(x, width as i32));
                let rows = [top as i32, top as i32 + 1].map(|y| mirrored(y, height as i32) * width as usize);
                let at = |row: usize, column: usize| f32::from(pixels[row + column]);
                let between = |row| at(row, columns[0]) * (1.0 - right_part) + at(row, columns[1]) * right_part;
                let value = between(rows[0]) * (1.0 - bottom_part) + between(rows[1]) * bottom_part;
                *place = value.round() as u8;
            }
        }
        moved
    }
}

/// A place from `0` to below `length` for any whole number, as if mirrors stood at both edges.
fn mirrored(place: i32, length: i32) -> usize {
    if (0..length).contains(&place) {
        return place as usize;
    }
    let place = place.rem_euclid(2 * length);
    (if place < length { place } else { 2 * length - 1 - place }) as usize
}

#[cfg(test)]
mod tests {
    use image::Luma;

    use super::*;

    fn picture() -> GrayImage {
        GrayImage::from_fn(5, 4, |x, y| Luma([(x * 40 + y * 7) as u8]))
    }

    #[test]
    fn whole_pixels_move_exactly() {
        let picture = picture();
        assert_eq!(Map::identity().apply(&picture), picture);
        assert_eq!(Map::mirror().apply(&picture), image::imageops::flip_horizontal(&picture));
        let shifted = Map::shift(1.0, -1.0).apply(&picture);
        assert_eq!(shifted.get_pixel(0, 1), picture.get_pixel(1, 0));
        // The last column shows its own mirror image.
        assert_eq!(shifted.get_pixel(4, 2), picture.get_pixel(4, 1));
    }

    #[test]
    fn a_quarter_turn_is_a_rotation() {
        let square = GrayImage::from_fn(6, 6, |x, y| Luma([(x * 40 + y * 7) as u8]));
        let turned = Map::rotation(std::f64::consts::FRAC_PI_2).apply(&square);
        assert_eq!(turned, image::imageops::rotate270(&square));
    }

    #[test]
    fn mappings_follow_one_another() {
        let both = Map::shift(2.0, 0.0).then(Map::mirror());
        let picture = picture();
        let shifted_mirror = Map::shift(2.0, 0.0).apply(&Map::mirror().apply(&picture));
        assert_eq!(both.apply(&picture), shifted_mirror);
    }

    #[test]
    fn scaling_interpolates() {
        let ramp = GrayImage::from_fn(9, 1, |x, _| Luma([(x * 20) as u8]));
        let half = Map::scale(0.5, 1.0).apply(&ramp);
        assert_eq!(half.as_raw(), &[40, 50, 60, 70, 80, 90, 100, 110, 120]);
    }

    #[test]
    fn mirrors_stand_at_both_edges() {
        let places: Vec<usize> = (-4..8).map(|place| mirrored(place, 3)).collect();
        assert_eq!(places, [2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0, 1].map(|p| p));
    }
}
