//! Two-dimensional convolution with bias and activation: the forward pass and both gradients.
//!
//! In: images `[batch, in_height, in_width, in_channels]` and weights `[kernel_height, kernel_width, in_channels,
//! out_channels]`. Out: `[batch, out_height, out_width, out_channels]`, or gradients of the inputs. These are equations 1
//! to 4 of the report's section 2: convolution, its padding, the forward and the backward pass; as usual in networks the
//! kernel is not flipped. Dilation and channel groups are not offered.
//!
//! There are two ways to compute each of the three: `direct`, for any kernel and stride, and `winograd`, for kernels of
//! 3 x 3 in five sizes and of 5 x 5 in two with stride 1, and of 3 x 3 with stride 2 and an odd padding.
//! [`Algorithm::choose`] picks by what each would cost. Results differ by rounding: relative to the largest output the
//! error stays below [`Algorithm::tolerance`], which says for which sums; the tests hold them to that.

use crate::activation::Activation;
use crate::scratch::Scratch;
use crate::simd::InstructionSet;
use crate::sizes::elements;
use crate::sum::{Sum, add_serial};
use crate::threads::share_items;
use crate::transpose::Transpose;
use winograd::{Finish, Tiling};

mod algorithm;
mod direct;
mod grey;
mod prepared;
mod rows;
mod transform;
mod winograd;

pub use algorithm::Algorithm;
pub(crate) use direct::Frame;
pub(crate) use grey::sums as grey_sums;
pub use prepared::Prepared;
pub(crate) use rows::{RowsForward, RowsGradient};

use algorithm::by_algorithm;
use transform::Forward;

/// Sizes of a convolution; zero padding is the same on all four sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvolutionShape {
    /// Number of images.
    pub batch: usize,
    /// Channels of the input, at least one.
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
    ///
    /// # Panics
    /// If there are more than a `usize` counts.
    pub fn input_len(&self) -> usize {
        elements([self.batch, self.image_length()])
    }

    /// Elements of the weights.
    ///
    /// # Panics
    /// As [`ConvolutionShape::input_len`], and if the input has no channels: then there is nothing to sum.
    pub fn weight_len(&self) -> usize {
        assert!(self.in_channels > 0, "a convolution needs at least one channel of input");
        elements([self.out_channels, self.patch_length()])
    }

    /// Elements of the whole output.
    ///
    /// # Panics
    /// As [`ConvolutionShape::out_height`] and [`ConvolutionShape::input_len`].
    pub fn output_len(&self) -> usize {
        elements([self.batch, self.out_channels, self.out_height(), self.out_width()])
    }

    /// Elements of one input image.
    fn image_length(&self) -> usize {
        elements([self.in_channels, self.in_height, self.in_width])
    }

    /// Input values that one output pixel sees.
    pub(crate) fn patch_length(&self) -> usize {
        elements([self.in_channels, self.kernel_height, self.kernel_width])
    }

    /// Multiplications of the definition, for the whole batch.
    ///
    /// # Panics
    /// As [`ConvolutionShape::output_len`].
    pub fn multiply_adds(&self) -> usize {
        elements([self.output_len(), self.patch_length()])
    }

    /// The convolution whose forward pass is this one's input gradient.
    fn tiling_of_gradient(&self) -> Tiling {
        let before = self.kernel_height as isize - 1 - self.padding as isize;
        Tiling {
            batch: self.batch,
            in_height: self.out_height(),
            in_width: self.out_width(),
            in_channels: self.out_channels,
            out_height: self.in_height,
            out_width: self.in_width,
            out_channels: self.in_channels,
            // The first output that sees the first input.
            offset: -before.div_euclid(self.stride as isize),
        }
    }

    fn tiling(&self) -> Tiling {
        Tiling {
            batch: self.batch,
            in_height: self.in_height,
            in_width: self.in_width,
            in_channels: self.in_channels,
            out_height: self.out_height(),
            out_width: self.out_width(),
            out_channels: self.out_channels,
            offset: -(self.padding as isize),
        }
    }
}

/// Places of a kernel on a padded row or column, of which every place, also one in the padding, fits an `isize`.
pub(crate) fn extent(input: usize, kernel: usize, stride: usize, padding: usize) -> usize {
    assert!(stride > 0, "a convolution needs a stride of at least 1");
    let padded = padding.checked_mul(2).and_then(|both| both.checked_add(input));
    let padded = padded.filter(|&padded| padded <= isize::MAX as usize);
    let padded = padded.unwrap_or_else(|| panic!("{input} + 2 * {padding} are more places than can be counted"));
    assert!(kernel > 0 && padded >= kernel, "a kernel of {kernel} does not fit {input} + 2 * {padding}");
    (padded - kernel) / stride + 1
}

/// `y = activation(convolution(x, weight) + bias)`.
///
/// `x` is `[batch, in_height, in_width, in_channels]`, `weight` `[kernel_height, kernel_width, in_channels,
/// out_channels]`, `bias` `[out_channels]` where there is one, `y` `[batch, out_height, out_width, out_channels]` and
/// overwritten.
///
/// # Panics
/// If a slice has another length than its shape, or the input has no channels.
pub fn forward(
    shape: &ConvolutionShape,
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    activation: Activation,
    y: &mut [f32],
) {
    forward_by(Algorithm::choose(shape), InstructionSet::best(), shape, x, weight, bias, activation, y);
}

/// [`forward`] by a given algorithm and instruction set; for tests and benchmarks.
///
/// # Panics
/// As [`forward`], and if the algorithm cannot compute this shape.
#[expect(clippy::too_many_arguments, reason = "a kernel's signature names every slice it reads and writes")]
pub fn forward_by(
    algorithm: Algorithm,
    set: InstructionSet,
    shape: &ConvolutionShape,
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    activation: Activation,
    y: &mut [f32],
) {
    assert!(algorithm.can(shape), "{algorithm:?} cannot compute {shape:?}");
    assert_eq!(x.len(), shape.input_len(), "length of x");
    assert_eq!(weight.len(), shape.weight_len(), "length of weight");
    assert!(bias.is_none_or(|bias| bias.len() == shape.out_channels), "length of bias");
    assert_eq!(y.len(), shape.output_len(), "length of y");
    if y.is_empty() {
        return;
    }
    ForwardPass::new(algorithm, set, shape, weight, bias, activation).run(shape.batch, x, y);
}

/// The forward pass with its weights made ready, for one part of the batch after the other.
pub(crate) struct ForwardPass<'a> {
    algorithm: Algorithm,
    set: InstructionSet,
    shape: ConvolutionShape,
    packed: Scratch,
    bias: Option<&'a [f32]>,
    activation: Activation,
}

impl<'a> ForwardPass<'a> {
    pub(crate) fn new(
        algorithm: Algorithm,
        set: InstructionSet,
        shape: &ConvolutionShape,
        weight: &[f32],
        bias: Option<&'a [f32]>,
        activation: Activation,
    ) -> Self {
        assert_eq!(weight.len(), shape.weight_len(), "length of weight");
        assert!(bias.is_none_or(|bias| bias.len() == shape.out_channels), "length of bias");
        let mut packed = Scratch::take(algorithm.packed_len(shape));
        algorithm.pack(set, shape, weight, &mut packed);
        Self { algorithm, set, shape: *shape, packed, bias, activation }
    }

    /// The outputs of `images` images.
    pub(crate) fn run(&self, images: usize, x: &[f32], y: &mut [f32]) {
        let shape = ConvolutionShape { batch: images, ..self.shape };
        assert_eq!(x.len(), shape.input_len(), "length of x");
        assert_eq!(y.len(), shape.output_len(), "length of y");
        let relu = self.activation == Activation::Relu;
        let finish = Finish { bias: self.bias, residual: None, relu, pool: false };
        self.algorithm.run(self.set, &shape, x, &self.packed, finish, y);
        if !relu {
            self.activation.forward(y);
        }
    }
}

/// Gradient of a convolution's input: `dx` `[batch, in_height, in_width, in_channels]`, overwritten, from the gradient
/// `dy` `[batch, out_height, out_width, out_channels]` before the activation.
///
/// # Panics
/// If a slice has another length than its shape, or the input has no channels.
pub fn input_gradient(shape: &ConvolutionShape, dy: &[f32], weight: &[f32], dx: &mut [f32]) {
    input_gradient_by(Algorithm::of_input_gradient(shape), InstructionSet::best(), shape, dy, weight, dx);
}

/// [`input_gradient`] by a given algorithm and instruction set; for tests and benchmarks.
///
/// # Panics
/// As [`input_gradient`], and if the algorithm cannot compute this shape.
pub fn input_gradient_by(
    algorithm: Algorithm,
    set: InstructionSet,
    shape: &ConvolutionShape,
    dy: &[f32],
    weight: &[f32],
    dx: &mut [f32],
) {
    assert!(algorithm.can(shape), "{algorithm:?} cannot compute {shape:?}");
    assert_eq!(dy.len(), shape.output_len(), "length of dy");
    assert_eq!(weight.len(), shape.weight_len(), "length of weight");
    assert_eq!(dx.len(), shape.input_len(), "length of dx");
    if dx.is_empty() || dy.is_empty() {
        dx.fill(0.0);
        return;
    }
    InputGradient::new(algorithm, set, shape, weight).add(shape.batch, dy, &mut Sum::new(dx, false));
}

/// The gradient of the input with the weights made ready, for one part of the batch after the other.
pub(crate) struct InputGradient<'a> {
    algorithm: Algorithm,
    set: InstructionSet,
    shape: ConvolutionShape,
    weight: &'a [f32],
    /// Turned and transformed; empty for the direct way.
    packed: Scratch,
}

impl<'a> InputGradient<'a> {
    pub(crate) fn new(algorithm: Algorithm, set: InstructionSet, shape: &ConvolutionShape, weight: &'a [f32]) -> Self {
        assert_eq!(weight.len(), shape.weight_len(), "length of weight");
        let block = shape.in_channels * shape.out_channels;
        let packed = by_algorithm!(algorithm, Scratch::take(0), T => {
            type Turned = <T as Forward>::InputGradient;
            let mut turned = Scratch::take(weight.len()); // [r, r, out, in], turned by half a circle
            share_items(turned.chunks_mut(block).zip(weight.chunks(block).rev()), |_, (turned, weight)| {
                let (rows, columns) = (shape.in_channels, shape.out_channels);
                set.run(Transpose { rows, columns, from: weight, from_row: columns, to: turned, to_row: rows });
            });
            let mut packed = Scratch::take(winograd::weight_len::<Turned>(shape.out_channels, shape.in_channels));
            winograd::transform_weights::<Turned>(set, shape.out_channels, shape.in_channels, &turned, &mut packed);
            packed
        });
        Self { algorithm, set, shape: *shape, weight, packed }
    }

    /// Adds the gradients of the inputs of `images` images.
    pub(crate) fn add(&self, images: usize, dy: &[f32], sum: &mut Sum) {
        let shape = ConvolutionShape { batch: images, ..self.shape };
        assert_eq!(dy.len(), shape.output_len(), "length of dy");
        assert_eq!(sum.len(), shape.input_len(), "length of dx");
        by_algorithm!(self.algorithm, sum.add(|dx| direct::input_gradient(self.set, &shape, dy, self.weight, dx)), T => {
            type Turned = <T as Forward>::InputGradient;
            let finish = Finish { bias: None, residual: None, relu: false, pool: false };
            sum.add_in_place(|dx, begun| {
                winograd::forward::<Turned>(self.set, &shape.tiling_of_gradient(), dy, &self.packed, finish, begun, dx);
            });
        });
    }
}

/// Gradient of a convolution's weights: `dweight` `[kernel_height, kernel_width, in_channels, out_channels]`,
/// overwritten, summed over the batch; `dy` is the gradient before the activation.
///
/// # Panics
/// If a slice has another length than its shape, or the input has no channels.
pub fn weight_gradient(shape: &ConvolutionShape, x: &[f32], dy: &[f32], dweight: &mut [f32]) {
    weight_gradient_by(Algorithm::choose(shape), InstructionSet::best(), shape, x, dy, dweight);
}

/// [`weight_gradient`] by a given algorithm and instruction set; for tests and benchmarks.
///
/// # Panics
/// As [`weight_gradient`], and if the algorithm cannot compute this shape.
pub fn weight_gradient_by(
    algorithm: Algorithm,
    set: InstructionSet,
    shape: &ConvolutionShape,
    x: &[f32],
    dy: &[f32],
    dweight: &mut [f32],
) {
    assert!(algorithm.can(shape), "{algorithm:?} cannot compute {shape:?}");
    assert_eq!(x.len(), shape.input_len(), "length of x");
    assert_eq!(dy.len(), shape.output_len(), "length of dy");
    assert_eq!(dweight.len(), shape.weight_len(), "length of dweight");
    if x.is_empty() || dy.is_empty() {
        dweight.fill(0.0);
        return;
    }
    let mut sums = WeightGradient::new(algorithm, set, shape);
    sums.add(shape.batch, x, dy);
    sums.finish(dweight);
}

/// The gradient of the weights, summed up from one part of the batch after the other.
pub(crate) struct WeightGradient {
    shape: ConvolutionShape,
    sums: Box<dyn WeightSums>,
}

/// Sums for the gradient of the weights, in the form that an algorithm has them in.
trait WeightSums {
    /// Adds what comes from `images` images: `x` is their input and `dy` the gradient of their outputs.
    fn add(&mut self, images: usize, x: &[f32], dy: &[f32]);

    /// The gradient `[kernel_height, kernel_width, in, out]`, overwritten.
    fn finish(&self, dweight: &mut [f32]);
}

impl WeightGradient {
    pub(crate) fn new(algorithm: Algorithm, set: InstructionSet, shape: &ConvolutionShape) -> Self {
        let sums: Box<dyn WeightSums> = by_algorithm!(algorithm, Box::new(direct::DirectSums::new(set, shape)),
            T => Box::new(winograd::WinogradSums::<T>::new(set, &shape.tiling())));
        Self { shape: *shape, sums }
    }

    /// Adds what comes from `images` images: their inputs `x`, and `dy`, the gradient of their outputs.
    pub(crate) fn add(&mut self, images: usize, x: &[f32], dy: &[f32]) {
        let shape = ConvolutionShape { batch: images, ..self.shape };
        assert_eq!(x.len(), shape.input_len(), "length of x");
        assert_eq!(dy.len(), shape.output_len(), "length of dy");
        self.sums.add(images, x, dy);
    }

    /// The gradient, overwritten.
    pub(crate) fn finish(&self, dweight: &mut [f32]) {
        assert_eq!(dweight.len(), self.shape.weight_len(), "length of dweight");
        self.sums.finish(dweight);
    }
}

/// Gradients of [`forward`]: of the input (`dx`, where wanted), the weights and the bias (where there is one), all
/// overwritten.
///
/// `y` is what the forward pass returned and `dy` the gradient that arrives at it; both have its shape. `dx` has the
/// shape of `x`, `dweight` that of `weight`, `dbias` that of the bias. Gradients are sums over the batch.
///
/// # Panics
/// If a slice has another length than its shape, or the input has no channels.
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
    dbias: Option<&mut [f32]>,
) {
    assert_eq!(y.len(), shape.output_len(), "length of y");
    assert_eq!(dy.len(), shape.output_len(), "length of dy");
    let before = gradient_before(activation, shape.out_channels, y, dy, dbias);
    let dy = before.as_deref().unwrap_or(dy);
    weight_gradient(shape, x, dy, dweight);
    if let Some(dx) = dx {
        input_gradient(shape, dy, weight, dx);
    }
}

/// The gradient before an activation, unless that is linear: then it is `dy` itself. `dbias`, where there is one, gets
/// its sums over the rows of `channels` numbers.
pub(crate) fn gradient_before(
    activation: Activation,
    channels: usize,
    y: &[f32],
    dy: &[f32],
    dbias: Option<&mut [f32]>,
) -> Option<Scratch> {
    let before = (activation != Activation::Linear).then(|| {
        let mut before = Scratch::take(dy.len());
        activation.gradient(y, dy, &mut before);
        before
    });
    if let Some(dbias) = dbias {
        assert_eq!(dbias.len(), channels, "length of dbias");
        column_sums(before.as_deref().unwrap_or(dy), dbias);
    }
    before
}

/// Sums over the rows of `[rows, columns]`: parts of fixed size, added up in a fixed order in double precision.
fn column_sums(values: &[f32], sums: &mut [f32]) {
    let columns = sums.len();
    if columns == 0 {
        return;
    }
    let rows = (crate::ELEMENTS_PER_TASK / columns).max(1);
    let tasks = values.len().div_ceil(rows * columns);
    let mut partial = Scratch::zeros(tasks * columns);
    share_items(partial.chunks_mut(columns).zip(values.chunks(rows * columns)), |_, (partial, values)| {
        for row in values.chunks_exact(columns) {
            add_serial(partial, row);
        }
    });
    for (column, sum) in sums.iter_mut().enumerate() {
        *sum = partial.chunks_exact(columns).map(|partial| f64::from(partial[column])).sum::<f64>() as f32;
    }
}

#[cfg(test)]
pub(crate) mod tests;
