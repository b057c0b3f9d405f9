//! Max and average pooling of planes, and their gradients.
//!
//! In: `planes` (batch times channels) of `[in_height, in_width]`. Out: `[out_height, out_width]` a plane, or the
//! gradient of the input. Windows lie fully inside the plane (no padding; a remainder at the edge is dropped) and may
//! overlap. The winner's place inside its window is kept for the gradient, the mask of the report's section 2.

use rayon::prelude::*;

/// Sizes of a pooling layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolingShape {
    /// Number of planes: batch times channels.
    pub planes: usize,
    /// Rows of an input plane.
    pub in_height: usize,
    /// Columns of an input plane.
    pub in_width: usize,
    /// Rows and columns of the window: 1 to 15, so that a place in it fits a byte.
    pub size: usize,
    /// Step of the window in both directions.
    pub stride: usize,
}

impl PoolingShape {
    /// Rows of an output plane.
    ///
    /// # Panics
    /// If the window has no or more than 15 rows, is larger than the plane, or does not move.
    pub fn out_height(&self) -> usize {
        self.extent(self.in_height)
    }

    /// Columns of an output plane.
    ///
    /// # Panics
    /// As [`PoolingShape::out_height`].
    pub fn out_width(&self) -> usize {
        self.extent(self.in_width)
    }

    /// Elements of the whole input.
    pub fn input_len(&self) -> usize {
        self.planes * self.in_height * self.in_width
    }

    /// Elements of the whole output.
    pub fn output_len(&self) -> usize {
        self.planes * self.out_height() * self.out_width()
    }

    fn extent(&self, input: usize) -> usize {
        assert!((1..=15).contains(&self.size), "a pooling window has 1 to 15 rows, not {}", self.size);
        assert!(self.stride > 0, "a pooling window needs a stride of at least 1");
        assert!(input >= self.size, "a window of {} does not fit {input}", self.size);
        (input - self.size) / self.stride + 1
    }

    fn in_plane(&self) -> usize {
        self.in_height * self.in_width
    }

    fn out_plane(&self) -> usize {
        self.out_height() * self.out_width()
    }

    /// Planes that one task works on.
    fn group(&self) -> usize {
        (crate::ELEMENTS_PER_TASK / self.in_plane()).max(1)
    }

    /// Places of the window's first value in an input plane, one for each output, in order.
    fn origins(&self) -> impl Iterator<Item = usize> {
        let (stride, in_width, out_width) = (self.stride, self.in_width, self.out_width());
        (0..self.out_height()).flat_map(move |row| (0..out_width).map(move |column| (row * in_width + column) * stride))
    }
}

/// The largest value of each window; the first of equal ones; NaN where the window holds one.
///
/// `x` is `[planes, in_height, in_width]`; `y` and `index` are `[planes, out_height, out_width]` and overwritten.
/// `index` is the winner's place in its window, `row * size + column`.
///
/// # Panics
/// If a slice has another length than its shape.
pub fn max_forward(shape: &PoolingShape, x: &[f32], y: &mut [f32], index: &mut [u8]) {
    let (in_plane, out_plane, group) = (shape.in_plane(), shape.out_plane(), shape.group());
    assert_eq!(x.len(), shape.input_len(), "length of x");
    assert_eq!(y.len(), shape.output_len(), "length of y");
    assert_eq!(index.len(), y.len(), "length of index");
    let outputs = y.par_chunks_mut(group * out_plane).zip(index.par_chunks_mut(group * out_plane));
    outputs.zip(x.par_chunks(group * in_plane)).for_each(|((y, index), x)| {
        let outputs = y.chunks_exact_mut(out_plane).zip(index.chunks_exact_mut(out_plane));
        for ((y, index), x) in outputs.zip(x.chunks_exact(in_plane)) {
            if shape.size == 2 && shape.stride == 2 {
                max_plane_of_two(shape, x, y, index);
            } else {
                max_plane(shape, x, y, index);
            }
        }
    });
}

/// Whether `value` beats the best so far: larger, or the first NaN.
#[inline]
fn beats(value: f32, best: f32) -> bool {
    (value > best) | (value.is_nan() & !best.is_nan())
}

fn max_plane(shape: &PoolingShape, x: &[f32], y: &mut [f32], index: &mut [u8]) {
    for ((y, index), origin) in y.iter_mut().zip(index).zip(shape.origins()) {
        let (mut best, mut winner) = (x[origin], 0);
        for row in 0..shape.size {
            for (column, &value) in x[origin + row * shape.in_width..][..shape.size].iter().enumerate() {
                if beats(value, best) {
                    (best, winner) = (value, row * shape.size + column);
                }
            }
        }
        (*y, *index) = (best, winner as u8);
    }
}

/// [`max_plane`] for windows of 2 x 2 with stride 2, without branches.
fn max_plane_of_two(shape: &PoolingShape, x: &[f32], y: &mut [f32], index: &mut [u8]) {
    let width = shape.out_width();
    let rows = x.chunks_exact(2 * shape.in_width);
    for ((y, index), rows) in y.chunks_exact_mut(width).zip(index.chunks_exact_mut(width)).zip(rows) {
        let (upper, lower) = rows.split_at(shape.in_width);
        let windows = upper.chunks_exact(2).zip(lower.chunks_exact(2));
        for ((y, index), (upper, lower)) in y.iter_mut().zip(index).zip(windows) {
            let pick = |a: (f32, u8), b: (f32, u8)| if beats(b.0, a.0) { b } else { a };
            let top = pick((upper[0], 0), (upper[1], 1));
            let bottom = pick((lower[0], 2), (lower[1], 3));
            (*y, *index) = pick(top, bottom);
        }
    }
}

/// Gradient of [`max_forward`]: each output's gradient goes to the window's winner; `dx` is overwritten.
///
/// # Panics
/// If a slice has another length than its shape, or `index` is not what the forward pass wrote.
pub fn max_backward(shape: &PoolingShape, dy: &[f32], index: &[u8], dx: &mut [f32]) {
    let (in_plane, out_plane, group) = (shape.in_plane(), shape.out_plane(), shape.group());
    assert_eq!(dy.len(), shape.output_len(), "length of dy");
    assert_eq!(index.len(), dy.len(), "length of index");
    assert_eq!(dx.len(), shape.input_len(), "length of dx");
    let places: Vec<usize> =
        (0..shape.size * shape.size).map(|place| place / shape.size * shape.in_width + place % shape.size).collect();
    let inputs = dy.par_chunks(group * out_plane).zip(index.par_chunks(group * out_plane));
    dx.par_chunks_mut(group * in_plane).zip(inputs).for_each(|(dx, (dy, index))| {
        dx.fill(0.0);
        let inputs = dy.chunks_exact(out_plane).zip(index.chunks_exact(out_plane));
        for (dx, (dy, index)) in dx.chunks_exact_mut(in_plane).zip(inputs) {
            for ((&dy, &index), origin) in dy.iter().zip(index).zip(shape.origins()) {
                dx[origin + places[index as usize]] += dy;
            }
        }
    });
}

/// The mean of each window. `x` is `[planes, in_height, in_width]`; `y` is `[planes, out_height, out_width]` and
/// overwritten.
///
/// # Panics
/// If a slice has another length than its shape.
pub fn average_forward(shape: &PoolingShape, x: &[f32], y: &mut [f32]) {
    let (in_plane, out_plane, group) = (shape.in_plane(), shape.out_plane(), shape.group());
    assert_eq!(x.len(), shape.input_len(), "length of x");
    assert_eq!(y.len(), shape.output_len(), "length of y");
    let share = 1.0 / (shape.size * shape.size) as f32;
    y.par_chunks_mut(group * out_plane).zip(x.par_chunks(group * in_plane)).for_each(|(y, x)| {
        for (y, x) in y.chunks_exact_mut(out_plane).zip(x.chunks_exact(in_plane)) {
            for (y, origin) in y.iter_mut().zip(shape.origins()) {
                let rows = (0..shape.size).map(|row| &x[origin + row * shape.in_width..][..shape.size]);
                *y = rows.map(|row| row.iter().sum::<f32>()).sum::<f32>() * share;
            }
        }
    });
}

/// Gradient of [`average_forward`]: each output's gradient is shared out over its window; `dx` is overwritten.
///
/// # Panics
/// If a slice has another length than its shape.
pub fn average_backward(shape: &PoolingShape, dy: &[f32], dx: &mut [f32]) {
    let (in_plane, out_plane, group) = (shape.in_plane(), shape.out_plane(), shape.group());
    assert_eq!(dy.len(), shape.output_len(), "length of dy");
    assert_eq!(dx.len(), shape.input_len(), "length of dx");
    let share = 1.0 / (shape.size * shape.size) as f32;
    dx.par_chunks_mut(group * in_plane).zip(dy.par_chunks(group * out_plane)).for_each(|(dx, dy)| {
        dx.fill(0.0);
        for (dx, dy) in dx.chunks_exact_mut(in_plane).zip(dy.chunks_exact(out_plane)) {
            for (&dy, origin) in dy.iter().zip(shape.origins()) {
                for row in 0..shape.size {
                    for dx in &mut dx[origin + row * shape.in_width..][..shape.size] {
                        *dx += dy * share;
                    }
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, dot, finite_differences, numbers, same_for_any_thread_count, widen};
    use proptest::prelude::*;

    #[derive(Clone, Copy)]
    enum Kind {
        Max,
        Average,
    }

    fn reference(shape: &PoolingShape, x: &[f64], kind: Kind) -> Vec<f64> {
        let mut y = Vec::new();
        for plane in 0..shape.planes {
            for row in 0..shape.out_height() {
                for column in 0..shape.out_width() {
                    let mut window = Vec::new();
                    for i in 0..shape.size {
                        for j in 0..shape.size {
                            let (r, c) = (row * shape.stride + i, column * shape.stride + j);
                            window.push(x[(plane * shape.in_height + r) * shape.in_width + c]);
                        }
                    }
                    y.push(match kind {
                        Kind::Max => window.iter().fold(f64::NEG_INFINITY, |best, &value| best.max(value)),
                        Kind::Average => window.iter().sum::<f64>() / window.len() as f64,
                    });
                }
            }
        }
        y
    }

    fn run(shape: &PoolingShape, x: &[f32], dy: &[f32], kind: Kind) -> (Vec<f32>, Vec<f32>) {
        let (mut y, mut dx) = (vec![f32::NAN; shape.output_len()], vec![f32::NAN; x.len()]);
        match kind {
            Kind::Max => {
                let mut index = vec![255; y.len()];
                max_forward(shape, x, &mut y, &mut index);
                max_backward(shape, dy, &index, &mut dx);
            }
            Kind::Average => {
                average_forward(shape, x, &mut y);
                average_backward(shape, dy, &mut dx);
            }
        }
        (y, dx)
    }

    fn check(shape: &PoolingShape) {
        let (x, dy) = (numbers(1, shape.input_len()), numbers(2, shape.output_len()));
        for kind in [Kind::Max, Kind::Average] {
            let (y, dx) = run(shape, &x, &dy, kind);
            assert_close(&y, &reference(shape, &widen(&x), kind), 1e-6);
            let expected = finite_differences(&widen(&x), |x| dot(&reference(shape, x, kind), &dy));
            assert_close(&dx, &expected, 1e-5);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn every_shape_equals_the_definition(
            planes in 1_usize..4, size in 1_usize..5, stride in 1_usize..5, high in 0_usize..6, wide in 0_usize..6,
        ) {
            check(&PoolingShape { planes, in_height: size + high, in_width: size + wide, size, stride });
        }
    }

    #[test]
    fn the_papers_pooling_drops_the_last_row_and_column() {
        let shape = PoolingShape { planes: 2, in_height: 7, in_width: 9, size: 2, stride: 2 };
        assert_eq!((shape.out_height(), shape.out_width()), (3, 4));
        check(&shape);
    }

    #[test]
    fn the_largest_window_fits_the_index() {
        check(&PoolingShape { planes: 1, in_height: 15, in_width: 16, size: 15, stride: 1 });
    }

    #[test]
    fn first_of_equal_values_wins_and_nan_beats_all() {
        for (size, stride) in [(2, 2), (2, 1)] {
            let shape = PoolingShape { planes: 1, in_height: 2, in_width: 2, size, stride };
            let winner = |x: [f32; 4]| {
                let (mut y, mut index) = ([0.0], [9]);
                max_forward(&shape, &x, &mut y, &mut index);
                (y[0], index[0])
            };
            assert_eq!(winner([1.0, 3.0, 3.0, 3.0]), (3.0, 1));
            assert_eq!(winner([f32::NEG_INFINITY; 4]), (f32::NEG_INFINITY, 0));
            for place in 0..4 {
                let mut x = [f32::INFINITY; 4];
                x[place] = f32::NAN;
                let (value, index) = winner(x);
                assert!(value.is_nan(), "NaN at {place} was lost");
                assert_eq!(index as usize, place);
            }
        }
    }

    #[test]
    fn results_do_not_depend_on_the_number_of_threads() {
        for (size, stride) in [(2, 2), (3, 2)] {
            let shape = PoolingShape { planes: 40, in_height: 46, in_width: 46, size, stride };
            let (x, dy) = (numbers(1, shape.input_len()), numbers(2, shape.output_len()));
            for kind in [Kind::Max, Kind::Average] {
                same_for_any_thread_count(|| {
                    let (y, dx) = run(&shape, &x, &dy, kind);
                    [y, dx].concat()
                });
            }
        }
    }
}
