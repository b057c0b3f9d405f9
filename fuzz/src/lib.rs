//! What the fuzz targets share: shapes from arbitrary bytes, numbers, exact destinations, and the comparison.
//!
//! In: an [`Unstructured`] that the fuzzer fills. Out: sizes in bounds, so that no case is thrown away and none takes
//! long. The values themselves come from a seed: what a fuzzer finds here are shapes.

use arbitrary::{Result, Unstructured};
use vultus_kernels::convolution::ConvolutionShape;

/// Most multiply-adds of a convolution, so that the plain loops take milliseconds.
pub const MOST_MULTIPLY_ADDS: usize = 4 * 1024 * 1024;

/// A convolution whose kernel fits its input.
pub fn convolution_shape(u: &mut Unstructured) -> Result<ConvolutionShape> {
    // Winograd's algorithms need 3 x 3 or 5 x 5 with stride 1, or 3 x 3 with stride 2.
    let (kernel_height, kernel_width, stride) = match u.int_in_range(0..=4)? {
        0 => (3, 3, 1),
        1 => (5, 5, 1),
        2 => (3, 3, 2),
        _ => (u.int_in_range(1..=7)?, u.int_in_range(1..=7)?, u.int_in_range(1..=3)?),
    };
    let padding: usize = u.int_in_range(0..=4)?;
    let mut size = |kernel: usize| u.int_in_range(kernel.saturating_sub(2 * padding).max(1)..=20);
    let (in_height, in_width) = (size(kernel_height)?, size(kernel_width)?);
    // Grey pictures have loops of their own.
    let (batch, grey) = (u.int_in_range(1..=4)?, u.ratio(1, 4)?);
    let in_channels = if grey { 1 } else { u.int_in_range(1..=70)? };
    let out_channels = u.int_in_range(1..=70)?;
    let mut shape = ConvolutionShape {
        batch,
        in_channels,
        in_height,
        in_width,
        out_channels,
        kernel_height,
        kernel_width,
        stride,
        padding,
    };
    while shape.multiply_adds() > MOST_MULTIPLY_ADDS {
        let most =
            if shape.in_channels > shape.out_channels { &mut shape.in_channels } else { &mut shape.out_channels };
        *most = *most * 3 / 4;
    }
    Ok(shape)
}

/// Calls `f(output, input, tap)` with the places, before channels, of every pixel under every tap of the kernel: the
/// first channel of the output and of the input, and the first weight `[in, out]` of the tap.
pub fn each_tap(s: &ConvolutionShape, mut f: impl FnMut(usize, usize, usize)) {
    for image in 0..s.batch {
        for (row, column) in (0..s.out_height()).flat_map(|row| (0..s.out_width()).map(move |column| (row, column))) {
            for (i, j) in (0..s.kernel_height).flat_map(|i| (0..s.kernel_width).map(move |j| (i, j))) {
                let (r, c) = (row * s.stride + i, column * s.stride + j);
                if r < s.padding || c < s.padding || r - s.padding >= s.in_height || c - s.padding >= s.in_width {
                    continue;
                }
                let input = ((image * s.in_height + r - s.padding) * s.in_width + c - s.padding) * s.in_channels;
                let output = ((image * s.out_height() + row) * s.out_width() + column) * s.out_channels;
                f(output, input, (i * s.kernel_width + j) * s.in_channels * s.out_channels);
            }
        }
    }
}

/// The convolution by its definition.
pub fn convolution(s: &ConvolutionShape, x: &[f32], weight: &[f32]) -> Vec<f64> {
    let mut y = vec![0.0; s.output_len()];
    each_tap(s, |output, input, tap| {
        let weights = weight[tap..].chunks_exact(s.out_channels);
        for (&x, weights) in x[input..][..s.in_channels].iter().zip(weights) {
            y[output..].iter_mut().zip(weights).for_each(|(y, &w)| *y += f64::from(x) * f64::from(w));
        }
    });
    y
}

/// `length` reproducible numbers in -1..1, in memory of exactly that length.
pub fn numbers(seed: u64, length: usize) -> Box<[f32]> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x1234_5678_9abc_def1);
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
        })
        .collect()
}

/// A destination of exactly `length` numbers. What a kernel leaves unwritten is NaN and fails the comparison.
pub fn destination(length: usize) -> Box<[f32]> {
    vec![f32::NAN; length].into_boxed_slice()
}

/// The same numbers in double precision.
pub fn widen(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

/// Asserts `|actual - expected| <= tolerance * max(1, largest |expected|)` everywhere.
///
/// # Panics
/// If that does not hold; `case` says where.
pub fn assert_close(actual: &[f32], expected: &[f64], tolerance: f64, case: impl Fn() -> String) {
    assert_sums(actual, expected, tolerance, 1, case);
}

/// As [`assert_close`], of sums of `products` products of two numbers in -1..1, whose deviation is `sqrt(products) / 3`: a few that
/// all happen to be small are no more exact than others.
///
/// # Panics
/// As [`assert_close`].
pub fn assert_sums(actual: &[f32], expected: &[f64], tolerance: f64, products: usize, case: impl Fn() -> String) {
    let scale = expected.iter().fold(1.0_f64, |largest, value| largest.max(value.abs()));
    assert_within(actual, expected, tolerance * scale.max((products as f64).sqrt() / 3.0), case);
}

/// Asserts `|actual - expected| <= bound` everywhere.
///
/// # Panics
/// As [`assert_close`].
pub fn assert_within(actual: &[f32], expected: &[f64], bound: f64, case: impl Fn() -> String) {
    assert_eq!(actual.len(), expected.len(), "{}", case());
    for (index, (&actual, &expected)) in actual.iter().zip(expected).enumerate() {
        let difference = (f64::from(actual) - expected).abs();
        assert!(difference <= bound, "{}: element {index} is {actual} instead of {expected} +- {bound}", case());
    }
}
