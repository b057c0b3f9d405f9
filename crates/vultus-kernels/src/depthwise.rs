//! Depthwise convolution, one filter for each channel, with bias and activation: the forward pass and both gradients.
//!
//! In: images `[batch, in_height, in_width, channels]` and weights `[kernel, kernel, channels]`. Out: `[batch, out_height,
//! out_width, channels]`, or gradients of the inputs. It is the first half of a depthwise-separable convolution (Howard et
//! al. 2017, "MobileNets", section 3.1); the second half, a 1 x 1 convolution, is [`crate::convolution`]'s.
//!
//! Memory sets the pace: nine multiply-adds for a number that is read and one that is written. There is one way to
//! compute it, therefore, from the definition: a few neighbouring outputs of a row stay in registers while the window
//! passes over them. The gradient of the input is the same sum with the places exchanged, by the same loop; `axis` says
//! which places meet.

mod axis;
mod line;
#[cfg(test)]
pub(crate) mod tests;

use self::axis::Axis;
use self::line::{Geometry, Gradient, Line};
use crate::activation::Activation;
use crate::convolution::{extent, gradient_before};
use crate::scratch::Scratch;
use crate::simd::InstructionSet;
use crate::sizes::elements;
use crate::threads::share_chunks;

/// Least number of outputs whose products one running sum of a weight's gradient takes in, where there are as many: so
/// many rounding errors add up, and not thousands more.
const GRADIENT_DEPTH: usize = 512;

/// Sizes of a depthwise convolution; zero padding is the same on all four sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DepthwiseShape {
    /// Number of images.
    pub batch: usize,
    /// Channels of the input and of the output.
    pub channels: usize,
    /// Rows of the input.
    pub in_height: usize,
    /// Columns of the input.
    pub in_width: usize,
    /// Rows and columns of the kernel.
    pub kernel: usize,
    /// Step of the kernel in both directions.
    pub stride: usize,
    /// Rows and columns of zeros around the input. An odd kernel of `f` keeps the size with `(f - 1) / 2`.
    pub padding: usize,
}

impl DepthwiseShape {
    /// Rows of the output.
    ///
    /// # Panics
    /// If the stride is zero or the kernel is larger than the padded input.
    pub fn out_height(&self) -> usize {
        extent(self.in_height, self.kernel, self.stride, self.padding)
    }

    /// Columns of the output.
    ///
    /// # Panics
    /// If the stride is zero or the kernel is larger than the padded input.
    pub fn out_width(&self) -> usize {
        extent(self.in_width, self.kernel, self.stride, self.padding)
    }

    /// Elements of the whole input.
    ///
    /// # Panics
    /// If there are more than a `usize` counts.
    pub fn input_len(&self) -> usize {
        elements([self.batch, self.channels, self.in_height, self.in_width])
    }

    /// Elements of the weights.
    ///
    /// # Panics
    /// As [`DepthwiseShape::input_len`].
    pub fn weight_len(&self) -> usize {
        elements([self.channels, self.kernel, self.kernel])
    }

    /// Elements of the whole output.
    ///
    /// # Panics
    /// As [`DepthwiseShape::out_height`] and [`DepthwiseShape::input_len`].
    pub fn output_len(&self) -> usize {
        elements([self.batch, self.channels, self.out_height(), self.out_width()])
    }

    /// Multiplications of the definition, for the whole batch.
    ///
    /// # Panics
    /// As [`DepthwiseShape::output_len`].
    pub fn multiply_adds(&self) -> usize {
        elements([self.output_len(), self.kernel, self.kernel])
    }

    /// From inputs to outputs.
    fn forward(&self) -> Geometry {
        let axis =
            |from, to| Axis { from, to, kernel: self.kernel, stride: self.stride, padding: self.padding, back: false };
        let rows = axis(self.in_height, self.out_height());
        Geometry::new(rows, axis(self.in_width, self.out_width()), self.channels)
    }

    /// From gradients of outputs to gradients of inputs.
    fn back(&self) -> Geometry {
        let axis =
            |from, to| Axis { from, to, kernel: self.kernel, stride: self.stride, padding: self.padding, back: true };
        let rows = axis(self.out_height(), self.in_height);
        Geometry::new(rows, axis(self.out_width(), self.in_width), self.channels)
    }
}

/// `y = activation(convolution(x, weight) + bias)`, each channel by itself.
///
/// `x` is `[batch, in_height, in_width, channels]`, `weight` `[kernel, kernel, channels]`, `bias` `[channels]` where there is
/// one, `y` `[batch, out_height, out_width, channels]` and overwritten.
///
/// # Panics
/// If a slice has another length than its shape.
pub fn forward(
    shape: &DepthwiseShape,
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    activation: Activation,
    y: &mut [f32],
) {
    forward_by(InstructionSet::best(), shape, x, weight, bias, activation, y);
}

/// [`forward`] by a given instruction set; for tests and benchmarks.
///
/// # Panics
/// As [`forward`].
pub fn forward_by(
    set: InstructionSet,
    shape: &DepthwiseShape,
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    activation: Activation,
    y: &mut [f32],
) {
    assert_eq!(x.len(), shape.input_len(), "length of x");
    assert_eq!(weight.len(), shape.weight_len(), "length of weight");
    assert_eq!(y.len(), shape.output_len(), "length of y");
    assert!(bias.is_none_or(|bias| bias.len() == shape.channels), "length of bias");
    gather(set, &shape.forward(), x, weight, bias, activation, y);
}

/// Gradient of the input: `dx` `[batch, in_height, in_width, channels]`, overwritten, from the gradient `dy` `[batch,
/// out_height, out_width, channels]` before the activation.
///
/// # Panics
/// If a slice has another length than its shape.
pub fn input_gradient(shape: &DepthwiseShape, dy: &[f32], weight: &[f32], dx: &mut [f32]) {
    input_gradient_by(InstructionSet::best(), shape, dy, weight, dx);
}

/// [`input_gradient`] by a given instruction set; for tests and benchmarks.
///
/// # Panics
/// As [`input_gradient`].
pub fn input_gradient_by(set: InstructionSet, shape: &DepthwiseShape, dy: &[f32], weight: &[f32], dx: &mut [f32]) {
    assert_eq!(dy.len(), shape.output_len(), "length of dy");
    assert_eq!(weight.len(), shape.weight_len(), "length of weight");
    assert_eq!(dx.len(), shape.input_len(), "length of dx");
    gather(set, &shape.back(), dy, weight, None, Activation::Linear, dx);
}

/// Every row of `to` as the sum of what its taps find in `from`. All lengths are those of the shape.
fn gather(
    set: InstructionSet,
    geometry: &Geometry,
    from: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    activation: Activation,
    to: &mut [f32],
) {
    if to.is_empty() {
        return;
    }
    let rows = geometry.rows_of(crate::ELEMENTS_PER_TASK);
    share_chunks(to, rows * geometry.to_line(), |task, to| {
        let mut taps = Vec::new();
        for (index, to) in to.chunks_exact_mut(geometry.to_line()).enumerate() {
            let (row, taps) = (task * rows + index, &mut taps);
            let from = geometry.image_under(row, from);
            set.run(Line { geometry, row, weight, bias, relu: activation == Activation::Relu, from, taps, to });
            if !matches!(activation, Activation::Linear | Activation::Relu) {
                activation.forward_serial(to);
            }
        }
    });
}

/// Gradient of the weights: `dweight` `[kernel, kernel, channels]`, overwritten, summed over the batch; `dy` is the gradient
/// before the activation.
///
/// # Panics
/// If a slice has another length than its shape.
pub fn weight_gradient(shape: &DepthwiseShape, x: &[f32], dy: &[f32], dweight: &mut [f32]) {
    weight_gradient_by(InstructionSet::best(), shape, x, dy, dweight);
}

/// [`weight_gradient`] by a given instruction set; for tests and benchmarks.
///
/// # Panics
/// As [`weight_gradient`].
pub fn weight_gradient_by(set: InstructionSet, shape: &DepthwiseShape, x: &[f32], dy: &[f32], dweight: &mut [f32]) {
    assert_eq!(x.len(), shape.input_len(), "length of x");
    assert_eq!(dy.len(), shape.output_len(), "length of dy");
    assert_eq!(dweight.len(), shape.weight_len(), "length of dweight");
    if dy.is_empty() {
        dweight.fill(0.0);
        return;
    }
    let mut sums = WeightGradient::new(set, shape);
    sums.add(shape.batch, x, dy);
    sums.finish(dweight);
}

/// The gradient of the weights, summed up from one part of the batch after the other.
pub(crate) struct WeightGradient {
    set: InstructionSet,
    shape: DepthwiseShape,
    total: Vec<f64>,
}

impl WeightGradient {
    pub(crate) fn new(set: InstructionSet, shape: &DepthwiseShape) -> Self {
        Self { set, shape: *shape, total: vec![0.0; shape.weight_len()] }
    }

    /// Adds what comes from `images` images: their inputs `x`, and `dy`, the gradient of their outputs.
    pub(crate) fn add(&mut self, images: usize, x: &[f32], dy: &[f32]) {
        let shape = DepthwiseShape { batch: images, ..self.shape };
        assert_eq!(x.len(), shape.input_len(), "length of x");
        assert_eq!(dy.len(), shape.output_len(), "length of dy");
        let geometry = shape.forward();
        // Sums of some rows each, so many that a wide kernel's sums are few beside the rows.
        let depth = GRADIENT_DEPTH.max(32 * shape.kernel * shape.kernel);
        let rows = depth.div_ceil(shape.out_width());
        let length = self.total.len();
        let mut partial = Scratch::zeros(dy.len().div_ceil(rows * geometry.to_line()) * length);
        let part_len = rows * geometry.to_line();
        share_chunks(&mut partial, length, |part, sums| {
            let (mut taps, dy) = (Vec::new(), &dy[part * part_len..dy.len().min((part + 1) * part_len)]);
            for (row, dy) in dy.chunks_exact(geometry.to_line()).enumerate() {
                let (row, geometry, taps) = (part * rows + row, &geometry, &mut taps);
                self.set.run(Gradient { geometry, row, x: geometry.image_under(row, x), dy, taps, sums });
            }
        });
        // In a fixed order, in double precision.
        for sums in partial.chunks_exact(length) {
            self.total.iter_mut().zip(sums).for_each(|(total, &sum)| *total += f64::from(sum));
        }
    }

    /// The gradient, overwritten.
    pub(crate) fn finish(&self, dweight: &mut [f32]) {
        assert_eq!(dweight.len(), self.total.len(), "length of dweight");
        dweight.iter_mut().zip(&self.total).for_each(|(dweight, &total)| *dweight = total as f32);
    }
}

/// Gradients of [`forward`]: of the input (`dx`, where wanted), the weights and the bias (where there is one), all
/// overwritten and summed over the batch.
///
/// `y` is what the forward pass returned and `dy` the gradient that arrives at it; both have its shape. `dx` has the
/// shape of `x`, `dweight` that of `weight`, `dbias` that of the bias.
///
/// # Panics
/// If a slice has another length than its shape.
#[expect(clippy::too_many_arguments, reason = "a kernel's signature names every slice it reads and writes")]
pub fn backward(
    shape: &DepthwiseShape,
    x: &[f32],
    weight: &[f32],
    y: &[f32],
    dy: &[f32],
    activation: Activation,
    dx: Option<&mut [f32]>,
    dweight: &mut [f32],
    dbias: Option<&mut [f32]>,
) {
    assert_eq!(y.len(), shape.output_len(), "length of y");
    assert_eq!(dy.len(), shape.output_len(), "length of dy");
    let before = gradient_before(activation, shape.channels, y, dy, dbias);
    let dy = before.as_deref().unwrap_or(dy);
    weight_gradient(shape, x, dy, dweight);
    if let Some(dx) = dx {
        input_gradient(shape, dy, weight, dx);
    }
}
