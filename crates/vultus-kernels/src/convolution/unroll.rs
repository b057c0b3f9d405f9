//! Unrolling of an image into the columns of a matrix, and the way back.
//!
//! In: one image `[in_channels, in_height, in_width]` and a range of output rows. Out: `[patch, rows * out_width]`,
//! where row (channel, kernel row, kernel column) holds the input value that this weight meets at each output pixel,
//! zero in the padding. It knows nothing of weights.

use super::ConvolutionShape;
use std::ops::Range;

/// Copies the input values of output rows `rows` into `columns`.
pub(super) fn gather(shape: &ConvolutionShape, image: &[f32], rows: Range<usize>, columns: &mut [f32]) {
    let width = shape.out_width();
    let length = rows.len() * width;
    each_weight(shape, |weight, channel, kernel_row, kernel_column| {
        let valid = valid_columns(shape, kernel_column);
        let line = &mut columns[weight * length..][..length];
        for (line, row) in line.chunks_exact_mut(width).zip(rows.clone()) {
            let Some(start) = input_row(shape, channel, row, kernel_row).filter(|_| !valid.is_empty()) else {
                line.fill(0.0);
                continue;
            };
            let first = start + valid.start * shape.stride + kernel_column - shape.padding;
            line[..valid.start].fill(0.0);
            line[valid.end..].fill(0.0);
            let line = &mut line[valid.clone()];
            if shape.stride == 1 {
                line.copy_from_slice(&image[first..][..line.len()]);
            } else {
                for (value, &pixel) in line.iter_mut().zip(image[first..].iter().step_by(shape.stride)) {
                    *value = pixel;
                }
            }
        }
    });
}

/// Adds `columns` to the input values they came from: the adjoint of [`gather`].
pub(super) fn scatter(shape: &ConvolutionShape, columns: &[f32], rows: Range<usize>, image: &mut [f32]) {
    let width = shape.out_width();
    let length = rows.len() * width;
    each_weight(shape, |weight, channel, kernel_row, kernel_column| {
        let valid = valid_columns(shape, kernel_column);
        if valid.is_empty() {
            return;
        }
        let line = &columns[weight * length..][..length];
        for (line, row) in line.chunks_exact(width).zip(rows.clone()) {
            let Some(start) = input_row(shape, channel, row, kernel_row) else {
                continue;
            };
            let first = start + valid.start * shape.stride + kernel_column - shape.padding;
            let line = &line[valid.clone()];
            if shape.stride == 1 {
                for (pixel, value) in image[first..].iter_mut().zip(line) {
                    *pixel += value;
                }
            } else {
                for (pixel, value) in image[first..].iter_mut().step_by(shape.stride).zip(line) {
                    *pixel += value;
                }
            }
        }
    });
}

/// Calls `visit(index, channel, kernel_row, kernel_column)` for each weight of one filter, in their order.
fn each_weight(shape: &ConvolutionShape, mut visit: impl FnMut(usize, usize, usize, usize)) {
    let mut index = 0;
    for channel in 0..shape.in_channels {
        for kernel_row in 0..shape.kernel_height {
            for kernel_column in 0..shape.kernel_width {
                visit(index, channel, kernel_row, kernel_column);
                index += 1;
            }
        }
    }
}

/// Offset of the input row that `kernel_row` meets at output row `row`, unless it lies in the padding.
fn input_row(shape: &ConvolutionShape, channel: usize, row: usize, kernel_row: usize) -> Option<usize> {
    let row = (row * shape.stride + kernel_row).checked_sub(shape.padding)?;
    (row < shape.in_height).then(|| (channel * shape.in_height + row) * shape.in_width)
}

/// Output columns where `kernel_column` meets the input and not the padding.
fn valid_columns(shape: &ConvolutionShape, kernel_column: usize) -> Range<usize> {
    let end = match (shape.in_width + shape.padding).checked_sub(kernel_column + 1) {
        Some(last) => (last / shape.stride + 1).min(shape.out_width()),
        None => 0,
    };
    let start = shape.padding.saturating_sub(kernel_column).div_ceil(shape.stride);
    start.min(end)..end
}
