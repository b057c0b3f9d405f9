//! Two-dimensional convolution with bias and activation: the forward pass and both gradients.
//!
//! In: images `[batch, in_channels, in_height, in_width]` and weights `[out_channels, in_channels, kernel_height,
//! kernel_width]`. Out: `[batch, out_channels, out_height, out_width]`, or gradients of the inputs. These are
//! equations 1 to 4 of the report's section 2: convolution, its padding, the forward and the backward pass; as usual in
//! networks the kernel is not flipped. Dilation and channel groups are not offered.
//!
//! Each image is unrolled strip by strip (one row of patches' values for each weight, one column for each output
//! pixel), so that a strip stays in the second-level cache, and becomes one matrix product.

use crate::activation::Activation;
use crate::matrix::{self, Matrix, Size, Store};
use crate::scratch::Scratch;
use rayon::prelude::*;

mod unroll;

/// Elements of one unrolled strip: 1 MB, the second-level cache of current processors.
const STRIP_ELEMENTS: usize = 256 * 1024;
/// Groups of images that sum their own weight gradient. Fixed, so that the order of summation is.
const GRADIENT_GROUPS: usize = 16;
/// Bound on all the groups' weight gradients together (32 MB); layers with more weights get fewer groups.
const GRADIENT_ELEMENTS: usize = 8 * 1024 * 1024;

/// Sizes of a convolution; zero padding is the same on all four sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvolutionShape {
    /// Number of images.
    pub batch: usize,
    /// Channels of the input.
    pub in_channels: usize,
    /// Rows of the input.
    pub in_height: usize,
    /// Columns of the input.
    pub in_width: usize,
    /// Channels (filters) of the output.
    pub out_channels: usize,
    /// Rows of the kernel.
    pub kernel_height: usize,
    /// Columns of the kernel.
    pub kernel_width: usize,
    /// Step of the kernel in both directions.
    pub stride: usize,
    /// Rows and columns of zeros around the input. An odd kernel of `f` keeps the size with `(f - 1) / 2`.
    pub padding: usize,
}

impl ConvolutionShape {
    /// Rows of the output.
    ///
    /// # Panics
    /// If the stride is zero or the kernel is larger than the padded input.
    pub fn out_height(&self) -> usize {
        extent(self.in_height, self.kernel_height, self.stride, self.padding)
    }

    /// Columns of the output.
    ///
    /// # Panics
    /// If the stride is zero or the kernel is larger than the padded input.
    pub fn out_width(&self) -> usize {
        extent(self.in_width, self.kernel_width, self.stride, self.padding)
    }

    /// Elements of the whole input.
    pub fn input_len(&self) -> usize {
        self.batch * self.image_length()
    }

    /// Elements of the weights.
    pub fn weight_len(&self) -> usize {
        self.out_channels * self.patch_length()
    }

    /// Elements of the whole output.
    pub fn output_len(&self) -> usize {
        self.batch * self.out_channels * self.pixels()
    }

    /// Elements of one input image.
    fn image_length(&self) -> usize {
        self.in_channels * self.in_height * self.in_width
    }

    /// Input values that one output pixel sees.
    fn patch_length(&self) -> usize {
        self.in_channels * self.kernel_height * self.kernel_width
    }

    /// Pixels of one output channel.
    fn pixels(&self) -> usize {
        self.out_height() * self.out_width()
    }

    /// Output rows that are unrolled at once.
    fn strip_rows(&self) -> usize {
        (STRIP_ELEMENTS / (self.patch_length() * self.out_width()).max(1)).clamp(1, self.out_height())
    }

    /// The strips of an image, as ranges of output rows.
    fn strips(&self) -> impl Iterator<Item = std::ops::Range<usize>> {
        let (height, rows) = (self.out_height(), self.strip_rows());
        (0..height).step_by(rows).map(move |start| start..(start + rows).min(height))
    }
}

fn extent(input: usize, kernel: usize, stride: usize, padding: usize) -> usize {
    assert!(stride > 0, "a convolution needs a stride of at least 1");
    assert!(kernel > 0 && input + 2 * padding >= kernel, "a kernel of {kernel} does not fit {input} + 2 * {padding}");
    (input + 2 * padding - kernel) / stride + 1
}

/// `y = activation(convolution(x, weight) + bias)`.
///
/// `x` is `[batch, in_channels, in_height, in_width]`, `weight` `[out_channels, in_channels, kernel_height,
/// kernel_width]`, `bias` `[out_channels]`, `y` `[batch, out_channels, out_height, out_width]` and overwritten.
///
/// # Panics
/// If a slice has another length than its shape.
pub fn forward(
    shape: &ConvolutionShape,
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    activation: Activation,
    y: &mut [f32],
) {
    assert_eq!(x.len(), shape.input_len(), "length of x");
    assert_eq!(weight.len(), shape.weight_len(), "length of weight");
    assert_eq!(bias.len(), shape.out_channels, "length of bias");
    assert_eq!(y.len(), shape.output_len(), "length of y");
    if y.is_empty() {
        return;
    }
    let (pixels, patch, width) = (shape.pixels(), shape.patch_length(), shape.out_width());
    y.par_chunks_mut(shape.out_channels * pixels).enumerate().for_each(|(index, y)| {
        let image = &x[index * shape.image_length()..][..shape.image_length()];
        let mut columns = Scratch::take(patch * shape.strip_rows() * width);
        for rows in shape.strips() {
            let (start, length) = (rows.start * width, rows.len() * width);
            let columns = &mut columns[..patch * length];
            unroll::gather(shape, image, rows, columns);
            let size = Size { rows: shape.out_channels, inner: patch, columns: length };
            let (left, right) = (Matrix::rows(weight, patch), Matrix::rows(columns, length));
            matrix::multiply(size, left, right, Store::Replace, &mut y[start..], pixels);
        }
        for (plane, &bias) in y.chunks_exact_mut(pixels).zip(bias) {
            activation.forward_serial(bias, plane);
        }
    });
}

/// Gradients of [`forward`]: of the input (`dx`, where wanted), the weights and the bias, all overwritten.
///
/// `y` is what the forward pass returned and `dy` the gradient that arrives at it; both have its shape. `dx` has the
/// shape of `x`, `dweight` that of `weight`, `dbias` that of the bias. Gradients are sums over the batch.
///
/// # Panics
/// If a slice has another length than its shape.
#[expect(clippy::too_many_arguments, reason = "a kernel's signature names every slice it reads and writes")]
pub fn backward(
    shape: &ConvolutionShape,
    x: &[f32],
    weight: &[f32],
    y: &[f32],
    dy: &[f32],
    activation: Activation,
    dx: Option<&mut [f32]>,
    dweight: &mut [f32],
    dbias: &mut [f32],
) {
    assert_eq!(x.len(), shape.input_len(), "length of x");
    assert_eq!(weight.len(), shape.weight_len(), "length of weight");
    assert_eq!(y.len(), shape.output_len(), "length of y");
    assert_eq!(dy.len(), shape.output_len(), "length of dy");
    assert_eq!(dweight.len(), shape.weight_len(), "length of dweight");
    assert_eq!(dbias.len(), shape.out_channels, "length of dbias");
    if let Some(dx) = &dx {
        assert_eq!(dx.len(), shape.input_len(), "length of dx");
    }
    dweight.fill(0.0);
    dbias.fill(0.0);
    if x.is_empty() || y.is_empty() {
        if let Some(dx) = dx {
            dx.fill(0.0);
        }
        return;
    }
    let (image_length, output_length) = (shape.image_length(), shape.out_channels * shape.pixels());
    let parameters = weight.len() + dbias.len();
    let groups = (GRADIENT_ELEMENTS / parameters).clamp(2, GRADIENT_GROUPS);
    let per_group = shape.batch.div_ceil(groups);
    let mut dx_groups: Vec<Option<&mut [f32]>> = match dx {
        Some(dx) => dx.chunks_mut(per_group * image_length).map(Some).collect(),
        None => (0..shape.batch.div_ceil(per_group)).map(|_| None).collect(),
    };
    let mut partial = Scratch::zeros(dx_groups.len() * parameters);
    partial.par_chunks_mut(parameters).zip(&mut dx_groups).enumerate().for_each(|(group, (gradient, dx))| {
        let (dweight, dbias) = gradient.split_at_mut(weight.len());
        for (position, image) in (group * per_group..shape.batch.min((group + 1) * per_group)).enumerate() {
            backward_image(
                shape,
                &x[image * image_length..][..image_length],
                weight,
                &y[image * output_length..][..output_length],
                &dy[image * output_length..][..output_length],
                activation,
                dx.as_deref_mut().map(|dx| &mut dx[position * image_length..][..image_length]),
                dweight,
                dbias,
            );
        }
    });
    for gradient in partial.chunks_exact(parameters) {
        matrix::add(&gradient[..weight.len()], dweight);
        matrix::add(&gradient[weight.len()..], dbias);
    }
}

/// The backward pass of one image: `dx` is overwritten, `dweight` and `dbias` are added to.
#[expect(clippy::too_many_arguments, reason = "as for the whole batch")]
fn backward_image(
    shape: &ConvolutionShape,
    x: &[f32],
    weight: &[f32],
    y: &[f32],
    dy: &[f32],
    activation: Activation,
    mut dx: Option<&mut [f32]>,
    dweight: &mut [f32],
    dbias: &mut [f32],
) {
    let (pixels, patch, width, channels) =
        (shape.pixels(), shape.patch_length(), shape.out_width(), shape.out_channels);
    let mut inner = Scratch::take(dy.len()); // gradient before the activation: [out_channels, pixels]
    activation.backward_serial(y, dy, &mut inner);
    for (dbias, plane) in dbias.iter_mut().zip(inner.chunks_exact(pixels)) {
        *dbias += sum(plane);
    }
    let mut columns = Scratch::take(patch * shape.strip_rows() * width);
    let mut dcolumns = Scratch::take(if dx.is_some() { columns.len() } else { 0 });
    if let Some(dx) = &mut dx {
        dx.fill(0.0);
    }
    for rows in shape.strips() {
        let (start, length) = (rows.start * width, rows.len() * width);
        let columns = &mut columns[..patch * length];
        unroll::gather(shape, x, rows.clone(), columns);
        let size = Size { rows: channels, inner: length, columns: patch };
        let left = Matrix::rows(&inner[start..], pixels);
        matrix::multiply(size, left, Matrix::transposed(columns, length), Store::Add, dweight, patch);
        if let Some(dx) = &mut dx {
            let dcolumns = &mut dcolumns[..patch * length];
            let size = Size { rows: patch, inner: channels, columns: length };
            let right = Matrix::rows(&inner[start..], pixels);
            matrix::multiply(size, Matrix::transposed(weight, patch), right, Store::Replace, dcolumns, length);
            unroll::scatter(shape, dcolumns, rows, dx);
        }
    }
}

/// Sum with sixteen running sums: fast, in a fixed order, and more accurate than one.
fn sum(values: &[f32]) -> f32 {
    let (blocks, rest) = values.as_chunks::<16>();
    let mut lanes = [0.0_f32; 16];
    for block in blocks {
        for (lane, value) in lanes.iter_mut().zip(block) {
            *lane += value;
        }
    }
    lanes.iter().sum::<f32>() + rest.iter().sum::<f32>()
}

#[cfg(test)]
mod tests;
