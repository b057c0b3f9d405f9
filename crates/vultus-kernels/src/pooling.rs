//! Max, average and global average pooling of images, and their gradients.
//!
//! In: images `[batch, in_height, in_width, channels]`. Out: `[batch, out_height, out_width, channels]`, or the gradient of
//! the input. Windows lie fully inside the picture (no padding; a remainder at the edge is dropped) and may overlap.
//! The winner's place inside its window is kept for the gradient, the mask of the report's section 2.

use std::ops::Range;

use crate::ELEMENTS_PER_TASK;
use crate::simd::{InstructionSet, Kernel, Lanes};
use crate::sizes::elements;
use crate::sum::add_serial;
use crate::threads::{share_chunks, share_items};

/// Sizes of a pooling layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolingShape {
    /// Number of images.
    pub batch: usize,
    /// Channels of an image.
    pub channels: usize,
    /// Rows of the input.
    pub in_height: usize,
    /// Columns of the input.
    pub in_width: usize,
    /// Rows and columns of the window: 1 to 15, so that a place in it fits a byte.
    pub size: usize,
    /// Step of the window in both directions.
    pub stride: usize,
}

impl PoolingShape {
    /// Rows of the output.
    ///
    /// # Panics
    /// If the window has no or more than 15 rows, is larger than the picture, or does not move.
    pub fn out_height(&self) -> usize {
        self.extent(self.in_height)
    }

    /// Columns of the output.
    ///
    /// # Panics
    /// As [`PoolingShape::out_height`].
    pub fn out_width(&self) -> usize {
        self.extent(self.in_width)
    }

    /// Elements of the whole input.
    ///
    /// # Panics
    /// If there are more than a `usize` counts.
    pub fn input_len(&self) -> usize {
        elements([self.batch, self.image_len()])
    }

    /// Elements of the whole output.
    ///
    /// # Panics
    /// As [`PoolingShape::out_height`] and [`PoolingShape::input_len`].
    pub fn output_len(&self) -> usize {
        elements([self.batch, self.pooled_len()])
    }

    fn extent(&self, input: usize) -> usize {
        assert!((1..=15).contains(&self.size), "a pooling window has 1 to 15 rows, not {}", self.size);
        assert!(self.stride > 0, "a pooling window needs a stride of at least 1");
        assert!(input >= self.size, "a window of {} does not fit {input}", self.size);
        (input - self.size) / self.stride + 1
    }

    /// Elements of one image.
    fn image_len(&self) -> usize {
        elements([self.channels, self.in_height, self.in_width])
    }

    /// Elements of one image's output.
    fn pooled_len(&self) -> usize {
        elements([self.channels, self.out_height(), self.out_width()])
    }

    /// For each output pixel of these `rows`, those of all images numbered through, the place of its window's first pixel.
    fn origins(&self, rows: Range<usize>) -> impl Iterator<Item = usize> {
        let (height, width, image) = (self.out_height(), self.out_width(), self.image_len());
        let (line, step) = (self.in_width * self.channels * self.stride, self.channels * self.stride);
        rows.flat_map(move |row| {
            let first = row / height * image + row % height * line;
            (0..width).map(move |column| first + column * step)
        })
    }

    /// Numbers of a row of outputs, and how many rows are a task.
    fn task(&self) -> (usize, usize) {
        let line = self.out_width() * self.channels;
        (line, (ELEMENTS_PER_TASK / line.max(1)).max(1))
    }

    /// Places of a window's pixels, counted from its first, row by row.
    fn window(&self) -> impl Iterator<Item = usize> {
        let (size, row, channels) = (self.size, self.in_width * self.channels, self.channels);
        (0..size).flat_map(move |i| (0..size).map(move |j| i * row + j * channels))
    }
}

/// Whether `value` takes the place of `best`: NaN beats everything, the first of equals stays.
#[inline(always)]
fn beats(value: f32, best: f32) -> bool {
    value > best || (value.is_nan() && !best.is_nan())
}

/// The largest value of each window. `winners`, where given, receives the place of each output's winner in its window,
/// row by row.
///
/// # Panics
/// If a slice has another length than its shape.
pub fn max_forward(shape: &PoolingShape, x: &[f32], y: &mut [f32], winners: Option<&mut [u8]>) {
    assert_eq!(x.len(), shape.input_len(), "length of x");
    assert_eq!(y.len(), shape.output_len(), "length of y");
    assert!(winners.as_ref().is_none_or(|winners| winners.len() == y.len()), "length of winners");
    if y.is_empty() {
        return;
    }
    let (set, (line, rows)) = (InstructionSet::best(), shape.task());
    match winners {
        None => share_chunks(y, rows * line, |task, y| {
            set.run(MaxForward { shape, first: task * rows, x, y, winners: None });
        }),
        Some(winners) => {
            share_items(y.chunks_mut(rows * line).zip(winners.chunks_mut(rows * line)), |task, (y, winners)| {
                set.run(MaxForward { shape, first: task * rows, x, y, winners: Some(winners) });
            });
        }
    }
}

/// Some rows of outputs, forward. Plain loops, which the compiler turns into vectors of the instruction set.
struct MaxForward<'a> {
    shape: &'a PoolingShape,
    /// Number of the first row.
    first: usize,
    /// All images.
    x: &'a [f32],
    /// The rows.
    y: &'a mut [f32],
    /// As long as `y`.
    winners: Option<&'a mut [u8]>,
}

impl Kernel for MaxForward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self { shape, first, x, y, mut winners } = self;
        let channels = shape.channels;
        let origins = shape.origins(first..first + y.len() / shape.task().0);
        for (pixel, (y, origin)) in y.chunks_exact_mut(channels).zip(origins).enumerate() {
            y.copy_from_slice(&x[origin..][..channels]);
            let mut winners = winners.as_deref_mut().map(|all| &mut all[pixel * channels..][..channels]);
            if let Some(winners) = &mut winners {
                winners.fill(0);
            }
            for (place, offset) in shape.window().enumerate().skip(1) {
                let values = &x[origin + offset..][..channels];
                if let Some(winners) = &mut winners {
                    for ((&y, &value), winner) in y.iter().zip(values).zip(winners.iter_mut()) {
                        *winner = if beats(value, y) { place as u8 } else { *winner };
                    }
                }
                for (y, &value) in y.iter_mut().zip(values) {
                    *y = if beats(value, *y) { value } else { *y };
                }
            }
        }
    }
}

/// Gradient of [`max_forward`]: each output's gradient goes to its winner; `dx` is overwritten.
///
/// # Panics
/// If a slice has another length than its shape, or a winner lies outside its window.
pub fn max_backward(shape: &PoolingShape, dy: &[f32], winners: &[u8], dx: &mut [f32]) {
    assert_eq!(dy.len(), shape.output_len(), "length of dy");
    assert_eq!(winners.len(), dy.len(), "length of winners");
    assert_eq!(dx.len(), shape.input_len(), "length of dx");
    if dx.is_empty() {
        return;
    }
    let offsets: Vec<usize> = shape.window().collect();
    let images = dx.chunks_mut(shape.image_len()).zip(dy.chunks(shape.pooled_len()));
    share_items(images.zip(winners.chunks(shape.pooled_len())), |_, ((dx, dy), winners)| {
        dx.fill(0.0);
        let pixels = dy.chunks_exact(shape.channels).zip(winners.chunks_exact(shape.channels));
        for ((dy, winners), origin) in pixels.zip(shape.origins(0..shape.out_height())) {
            for (channel, (dy, &winner)) in dy.iter().zip(winners).enumerate() {
                dx[origin + offsets[winner as usize] + channel] += dy;
            }
        }
    });
}

/// The mean of each window.
///
/// # Panics
/// If a slice has another length than its shape.
pub fn average_forward(shape: &PoolingShape, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), shape.input_len(), "length of x");
    assert_eq!(y.len(), shape.output_len(), "length of y");
    if y.is_empty() {
        return;
    }
    let share = 1.0 / (shape.size * shape.size) as f32;
    let (line, rows) = shape.task();
    share_chunks(y, rows * line, |task, y| {
        let origins = shape.origins(task * rows..task * rows + y.len() / line);
        for (y, origin) in y.chunks_exact_mut(shape.channels).zip(origins) {
            y.fill(0.0);
            for offset in shape.window() {
                y.iter_mut().zip(&x[origin + offset..]).for_each(|(y, value)| *y += value);
            }
            y.iter_mut().for_each(|y| *y *= share);
        }
    });
}

/// Gradient of [`average_forward`]: each output's gradient is shared out over its window; `dx` is overwritten.
///
/// # Panics
/// If a slice has another length than its shape.
pub fn average_backward(shape: &PoolingShape, dy: &[f32], dx: &mut [f32]) {
    assert_eq!(dy.len(), shape.output_len(), "length of dy");
    assert_eq!(dx.len(), shape.input_len(), "length of dx");
    if dx.is_empty() {
        return;
    }
    let share = 1.0 / (shape.size * shape.size) as f32;
    share_items(dx.chunks_mut(shape.image_len()).zip(dy.chunks(shape.pooled_len())), |_, (dx, dy)| {
        dx.fill(0.0);
        for (dy, origin) in dy.chunks_exact(shape.channels).zip(shape.origins(0..shape.out_height())) {
            for offset in shape.window() {
                dx[origin + offset..].iter_mut().zip(dy).for_each(|(dx, dy)| *dx += dy * share);
            }
        }
    });
}

/// The mean of each channel over an image: `x` `[batch, spatial, channels]` to `y` `[batch, channels]`, overwritten.
///
/// # Panics
/// If a slice has another length than its shape.
pub fn global_average_forward(batch: usize, spatial: usize, channels: usize, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), elements([batch, channels, spatial]), "length of x");
    assert_eq!(y.len(), elements([batch, channels]), "length of y");
    if x.is_empty() {
        y.fill(0.0);
        return;
    }
    let share = 1.0 / spatial as f32;
    share_items(y.chunks_mut(channels).zip(x.chunks(spatial * channels)), |_, (y, x)| {
        y.fill(0.0);
        for pixel in x.chunks_exact(channels) {
            add_serial(y, pixel);
        }
        y.iter_mut().for_each(|y| *y *= share);
    });
}

/// Gradient of [`global_average_forward`]; `dx` is overwritten.
///
/// # Panics
/// If a slice has another length than its shape.
pub fn global_average_backward(batch: usize, spatial: usize, channels: usize, dy: &[f32], dx: &mut [f32]) {
    assert_eq!(dx.len(), elements([batch, channels, spatial]), "length of dx");
    assert_eq!(dy.len(), elements([batch, channels]), "length of dy");
    if dx.is_empty() {
        return;
    }
    let share = 1.0 / spatial as f32;
    share_items(dx.chunks_mut(spatial * channels).zip(dy.chunks(channels)), |_, (dx, dy)| {
        for pixel in dx.chunks_exact_mut(channels) {
            pixel.iter_mut().zip(dy).for_each(|(dx, dy)| *dx = dy * share);
        }
    });
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::testing::{
        assert_close, assert_shows, dot, finite_differences, numbers, same_for_any_thread_count, widen,
        with_each_input_broken, with_every_instruction_set,
    };
    use proptest::prelude::*;

    #[derive(Clone, Copy, Debug)]
    pub(crate) enum Kind {
        Max,
        Average,
    }

    const KINDS: [Kind; 2] = [Kind::Max, Kind::Average];

    /// Calls `f` with the place of each output and those of its window.
    fn each_window(shape: &PoolingShape, mut f: impl FnMut(usize, Vec<usize>)) {
        let (size, stride, mut output) = (shape.size, shape.stride, 0);
        for image in 0..shape.batch {
            for (row, column) in (0..shape.out_height()).flat_map(|r| (0..shape.out_width()).map(move |c| (r, c))) {
                for channel in 0..shape.channels {
                    let pixel =
                        |i, j| (image * shape.in_height + row * stride + i) * shape.in_width + column * stride + j;
                    let window = (0..size).flat_map(|i| (0..size).map(move |j| (i, j)));
                    f(output, window.map(|(i, j)| pixel(i, j) * shape.channels + channel).collect());
                    output += 1;
                }
            }
        }
    }

    /// Place of the largest value: the first of equals, or of those that are NaN.
    fn winner(x: &[f64], window: &[usize]) -> usize {
        let better = |place: usize, best: usize| x[place] > x[best] || x[place].is_nan() && !x[best].is_nan();
        window.iter().copied().reduce(|best, place| if better(place, best) { place } else { best }).unwrap()
    }

    pub(crate) fn reference(shape: &PoolingShape, x: &[f64], kind: Kind) -> Vec<f64> {
        let mut y = vec![0.0; shape.output_len()];
        each_window(shape, |output, window| {
            y[output] = match kind {
                Kind::Max => x[winner(x, &window)],
                Kind::Average => window.iter().map(|&place| x[place]).sum::<f64>() / window.len() as f64,
            };
        });
        y
    }

    fn reference_gradient(shape: &PoolingShape, x: &[f64], dy: &[f64], kind: Kind) -> Vec<f64> {
        let mut dx = vec![0.0; x.len()];
        each_window(shape, |output, window| match kind {
            Kind::Max => dx[winner(x, &window)] += dy[output],
            Kind::Average => window.iter().for_each(|&place| dx[place] += dy[output] / window.len() as f64),
        });
        dx
    }

    fn run(shape: &PoolingShape, x: &[f32], dy: &[f32], kind: Kind) -> [Vec<f32>; 2] {
        let (mut y, mut dx) = (vec![f32::NAN; shape.output_len()], vec![f32::NAN; x.len()]);
        match kind {
            Kind::Max => {
                let mut index = vec![255; y.len()];
                max_forward(shape, x, &mut y, Some(&mut index));
                let mut without = vec![0.0; y.len()];
                max_forward(shape, x, &mut without, None);
                let bits = |y: &[f32]| y.iter().map(|y| y.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(&y), bits(&without));
                max_backward(shape, dy, &index, &mut dx);
            }
            Kind::Average => {
                average_forward(shape, x, &mut y);
                average_backward(shape, dy, &mut dx);
            }
        }
        [y, dx]
    }

    fn run_global(batch: usize, spatial: usize, channels: usize, x: &[f32], dy: &[f32]) -> [Vec<f32>; 2] {
        let (mut y, mut dx) = (vec![f32::NAN; dy.len()], vec![f32::NAN; x.len()]);
        global_average_forward(batch, spatial, channels, x, &mut y);
        global_average_backward(batch, spatial, channels, dy, &mut dx);
        [y, dx]
    }

    /// Output and gradient of the mean over all pixels.
    fn global_reference(batch: usize, spatial: usize, channels: usize, x: &[f64], dy: &[f64]) -> [Vec<f64>; 2] {
        let mut y = vec![0.0; batch * channels];
        let output = |place: usize| place / channels / spatial * channels + place % channels;
        x.iter().enumerate().for_each(|(place, x)| y[output(place)] += x / spatial as f64);
        [y, (0..x.len()).map(|place| dy[output(place)] / spatial as f64).collect()]
    }

    fn check(shape: &PoolingShape) {
        let (x, dy) = (numbers(1, shape.input_len()), numbers(2, shape.output_len()));
        for kind in KINDS {
            let expected = reference_gradient(shape, &widen(&x), &widen(&dy), kind);
            with_every_instruction_set(|| {
                let [y, dx] = run(shape, &x, &dy, kind);
                assert_close(&y, &reference(shape, &widen(&x), kind), 1e-6);
                assert_close(&dx, &expected, 1e-6);
            });
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_shape_equals_the_definition(
            batch in 1_usize..4, channels in 1_usize..40, size in 1_usize..5, stride in 1_usize..5, high in 0_usize..6, wide in 0_usize..6,
        ) {
            check(&PoolingShape { batch, channels, in_height: size + high, in_width: size + wide, size, stride });
        }

        #[test]
        fn global_means_of_every_shape_equal_the_definition(
            batch in 1_usize..4, spatial in 1_usize..50, channels in 1_usize..40, seed in 0_u64..1000,
        ) {
            let (x, dy) = (numbers(seed, batch * spatial * channels), numbers(seed + 1, batch * channels));
            let expected = global_reference(batch, spatial, channels, &widen(&x), &widen(&dy));
            for (result, expected) in run_global(batch, spatial, channels, &x, &dy).iter().zip(&expected) {
                assert_close(result, expected, 1e-6);
            }
        }
    }

    #[test]
    fn the_papers_pooling_drops_the_last_row_and_column() {
        let shape = PoolingShape { batch: 2, channels: 3, in_height: 7, in_width: 9, size: 2, stride: 2 };
        assert_eq!((shape.out_height(), shape.out_width()), (3, 4));
        check(&shape);
    }

    #[test]
    fn rows_of_several_images_are_shared_out() {
        let shape = PoolingShape { batch: 3, channels: 8, in_height: 90, in_width: 91, size: 2, stride: 2 };
        assert!(shape.output_len() > 2 * ELEMENTS_PER_TASK);
        check(&shape);
        check(&PoolingShape { size: 3, ..shape });
    }

    #[test]
    fn the_largest_window_fits_the_index() {
        check(&PoolingShape { batch: 1, channels: 1, in_height: 15, in_width: 16, size: 15, stride: 1 });
    }

    #[test]
    fn gradients_equal_finite_differences() {
        for (kind, stride) in KINDS.into_iter().flat_map(|kind| [(kind, 2), (kind, 3)]) {
            let shape = PoolingShape { batch: 2, channels: 3, in_height: 7, in_width: 9, size: 3, stride };
            let (x, dy) = (numbers(1, shape.input_len()), numbers(2, shape.output_len()));
            let expected = finite_differences(&widen(&x), |x| dot(&reference(&shape, x, kind), &dy));
            assert_close(&run(&shape, &x, &dy, kind)[1], &expected, 1e-5);
        }
        let (x, dy) = (numbers(1, 3 * 7 * 5), numbers(2, 3 * 5));
        let output = |x: &[f64]| dot(&global_reference(3, 7, 5, x, &widen(&dy))[0], &dy);
        assert_close(&run_global(3, 7, 5, &x, &dy)[1], &finite_differences(&widen(&x), output), 1e-6);
    }

    #[test]
    fn first_of_equal_values_wins_and_nan_beats_all() {
        for (size, stride) in [(2, 2), (2, 1)] {
            let shape = PoolingShape { batch: 1, channels: 1, in_height: 2, in_width: 2, size, stride };
            let winner = |x: [f32; 4]| {
                let (mut y, mut index) = ([0.0], [9]);
                max_forward(&shape, &x, &mut y, Some(&mut index));
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
        let shape = PoolingShape { batch: 5, channels: 8, in_height: 46, in_width: 46, size: 2, stride: 2 };
        for shape in [shape, PoolingShape { size: 3, ..shape }] {
            let (x, dy) = (numbers(1, shape.input_len()), numbers(2, shape.output_len()));
            for kind in KINDS {
                same_for_any_thread_count(|| run(&shape, &x, &dy, kind).concat());
            }
        }
        let (x, dy) = (numbers(1, shape.input_len()), numbers(2, 5 * 8));
        same_for_any_thread_count(|| run_global(5, 46 * 46, 8, &x, &dy).concat());
    }

    #[test]
    fn what_is_no_number_shows_wherever_the_definition_has_it() {
        // Windows overlap, and leave a column out.
        let shape = PoolingShape { batch: 2, channels: 19, in_height: 5, in_width: 6, size: 3, stride: 2 };
        let values = || [numbers(1, shape.input_len()), numbers(2, shape.output_len())];
        for kind in KINDS {
            // Row 2, column 2, the last channel of the second image: under all four windows; then the last of these.
            let places = [((5 + 2) * 6 + 3) * 19 - 1, 2 * 4 * 19 - 1];
            with_each_input_broken(values(), places, |_, [x, dy]| {
                let expected = reference_gradient(&shape, &widen(x), &widen(dy), kind);
                with_every_instruction_set(|| {
                    let [y, dx] = run(&shape, x, dy, kind);
                    assert_shows(&y, &reference(&shape, &widen(x), kind), |_| false);
                    assert_shows(&dx, &expected, |_| false);
                });
            });
        }
        let values = [numbers(1, 2 * 30 * 19), numbers(2, 2 * 19)];
        with_each_input_broken(values, [40 * 19 + 18, 2 * 19 - 1], |_, [x, dy]| {
            let expected = global_reference(2, 30, 19, &widen(x), &widen(dy));
            for (result, expected) in run_global(2, 30, 19, x, dy).iter().zip(&expected) {
                assert_shows(result, expected, |_| false);
            }
        });
    }
}
