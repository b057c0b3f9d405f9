//! Two-dimensional convolution with bias and activation: the forward pass and both gradients.
//!
//! In: images `[batch, in_height, in_width, in_channels]` and weights `[kernel_height, kernel_width, in_channels,
//! out_channels]`. Out: `[batch, out_height, out_width, out_channels]`, or gradients of the inputs. These are equations 1
//! to 4 of the report's section 2: convolution, its padding, the forward and the backward pass; as usual in networks the
//! kernel is not flipped. Dilation and channel groups are not offered.
//!
//! There are two ways to compute each of the three: `direct`, for any kernel and stride, and `winograd`, for
//! kernels of 3 x 3 in four sizes and of 5 x 5 in two, with stride 1. [`Algorithm::choose`] picks by what each would cost.
//! Results differ by rounding: relative to the largest output the error stays below [`Algorithm::tolerance`], for sums of
//! up to some thousand products of numbers of one size; the tests hold them to that.

use rayon::prelude::*;

use crate::activation::Activation;
use crate::scratch::{Aligned, Scratch};
use crate::simd::InstructionSet;
use winograd::{Finish, Tiling};

mod direct;
mod grey;
mod transform;
mod winograd;

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

    /// Multiplications of the definition, for the whole batch.
    pub fn multiply_adds(&self) -> usize {
        self.output_len() * self.patch_length()
    }

    /// The convolution whose forward pass is this one's input gradient: stride 1 only.
    fn tiling_of_gradient(&self) -> Tiling {
        Tiling {
            batch: self.batch,
            in_height: self.out_height(),
            in_width: self.out_width(),
            in_channels: self.out_channels,
            out_height: self.in_height,
            out_width: self.in_width,
            out_channels: self.in_channels,
            offset: self.padding as isize - (self.kernel_height as isize - 1),
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

pub(crate) fn extent(input: usize, kernel: usize, stride: usize, padding: usize) -> usize {
    assert!(stride > 0, "a convolution needs a stride of at least 1");
    assert!(kernel > 0 && input + 2 * padding >= kernel, "a kernel of {kernel} does not fit {input} + 2 * {padding}");
    (input + 2 * padding - kernel) / stride + 1
}

/// A way to compute a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// From the definition.
    Direct,
    /// Winograd's F(2 x 2, 3 x 3).
    Winograd2,
    /// Winograd's F(3 x 3, 3 x 3).
    Winograd3,
    /// Winograd's F(4 x 4, 3 x 3).
    Winograd4,
    /// Winograd's F(6 x 6, 3 x 3).
    Winograd6,
    /// Winograd's F(2 x 2, 5 x 5).
    Winograd2Of5,
    /// Winograd's F(4 x 4, 5 x 5).
    Winograd4Of5,
}

/// Calls `$call` with the transform `T` of a Winograd algorithm, or gives `$direct`.
macro_rules! by_algorithm {
    ($algorithm:expr, $direct:expr, $transform:ident => $call:expr) => {
        match $algorithm {
            Algorithm::Direct => $direct,
            Algorithm::Winograd2 => {
                type $transform = transform::F2;
                $call
            }
            Algorithm::Winograd3 => {
                type $transform = transform::F3;
                $call
            }
            Algorithm::Winograd4 => {
                type $transform = transform::F4;
                $call
            }
            Algorithm::Winograd6 => {
                type $transform = transform::F6;
                $call
            }
            Algorithm::Winograd2Of5 => {
                type $transform = transform::F2Of5;
                $call
            }
            Algorithm::Winograd4Of5 => {
                type $transform = transform::F4Of5;
                $call
            }
        }
    };
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Direct,
        Self::Winograd2,
        Self::Winograd3,
        Self::Winograd4,
        Self::Winograd6,
        Self::Winograd2Of5,
        Self::Winograd4Of5,
    ];

    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Winograd2 => "F(2)",
            Self::Winograd3 => "F(3)",
            Self::Winograd4 => "F(4)",
            Self::Winograd6 => "F(6)",
            Self::Winograd2Of5 => "F(2, 5)",
            Self::Winograd4Of5 => "F(4, 5)",
        }
    }

    /// Bound of the error, relative to the largest output, for sums of up to some thousand products.
    pub fn tolerance(self) -> f64 {
        match self {
            Self::Direct | Self::Winograd2 => 5e-6,
            Self::Winograd3 | Self::Winograd4 | Self::Winograd2Of5 => 5e-5,
            Self::Winograd6 | Self::Winograd4Of5 => 1e-4,
        }
    }

    /// Whether it can compute this convolution.
    pub fn can(self, shape: &ConvolutionShape) -> bool {
        let taps = by_algorithm!(self, return true, T => <T as transform::Transform>::TAPS);
        (shape.kernel_height, shape.kernel_width, shape.stride) == (taps, taps, 1)
    }

    /// The one that should be fastest, by a cost model whose constants were measured: a multiply-add of the product at
    /// a point costs 1; transforming one number at one point, of an input or an output, costs what `transform` says;
    /// making one transformed weight and bringing it back from memory costs 45; a multiply-add of the direct way 1.1.
    pub fn choose(shape: &ConvolutionShape) -> Self {
        let (inputs, outputs) = (shape.in_channels as f64, shape.out_channels as f64);
        let cost = |algorithm: Self| {
            let (size, transform) = match algorithm {
                Self::Direct => return 1.1 * shape.multiply_adds() as f64,
                Self::Winograd2 => (2, 8.0),
                Self::Winograd3 => (3, 12.0),
                Self::Winograd4 => (4, 12.0),
                Self::Winograd6 => (6, 17.0),
                Self::Winograd2Of5 => (2, 12.0),
                Self::Winograd4Of5 => (4, 17.0),
            };
            let tiles = shape.batch * shape.out_height().div_ceil(size) * shape.out_width().div_ceil(size);
            let points = ((size + shape.kernel_height - 1) * (size + shape.kernel_height - 1)) as f64;
            // Vectors are whole: few channels cost as much as sixteen.
            let (wide_in, wide_out) = (inputs.max(16.0), outputs.max(16.0));
            points * (tiles as f64 * (inputs * wide_out + transform * (wide_in + wide_out)) + 45.0 * inputs * wide_out)
        };
        let possible = Self::ALL.into_iter().filter(|algorithm| algorithm.can(shape));
        possible.min_by(|&a, &b| cost(a).total_cmp(&cost(b))).unwrap_or(Self::Direct)
    }

    /// The one for the gradient of the input, which is a convolution with inputs and outputs exchanged.
    pub(crate) fn of_input_gradient(shape: &ConvolutionShape) -> Self {
        if shape.stride != 1 || shape.kernel_height != shape.kernel_width {
            return Self::Direct;
        }
        Self::choose(&ConvolutionShape {
            in_channels: shape.out_channels,
            out_channels: shape.in_channels,
            in_height: shape.out_height(),
            in_width: shape.out_width(),
            // As the choice sees it: an output for each of our inputs.
            padding: (shape.kernel_height - 1).saturating_sub(shape.padding),
            ..*shape
        })
    }

    fn packed_len(self, shape: &ConvolutionShape) -> usize {
        let (inputs, outputs) = (shape.in_channels, shape.out_channels);
        let taps = shape.kernel_height * shape.kernel_width;
        by_algorithm!(self, direct::weight_len(taps, inputs, outputs), T => winograd::weight_len::<T>(inputs, outputs))
    }

    fn pack(self, set: InstructionSet, shape: &ConvolutionShape, weight: &[f32], packed: &mut [f32]) {
        let (inputs, outputs) = (shape.in_channels, shape.out_channels);
        by_algorithm!(self, direct::pack_weights(shape, weight, packed),
            T => winograd::transform_weights::<T>(set, inputs, outputs, weight, packed));
    }

    fn run(
        self,
        set: InstructionSet,
        shape: &ConvolutionShape,
        x: &[f32],
        packed: &[f32],
        finish: Finish,
        y: &mut [f32],
    ) {
        by_algorithm!(self, direct::forward(set, shape, x, packed, finish, y),
            T => winograd::forward::<T>(set, &shape.tiling(), x, packed, finish, y));
    }
}

/// `y = activation(convolution(x, weight) + bias)`.
///
/// `x` is `[batch, in_height, in_width, in_channels]`, `weight` `[kernel_height, kernel_width, in_channels,
/// out_channels]`, `bias` `[out_channels]` where there is one, `y` `[batch, out_height, out_width, out_channels]` and
/// overwritten.
///
/// # Panics
/// If a slice has another length than its shape.
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
/// If a slice has another length than its shape.
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
    InputGradient::new(algorithm, set, shape, weight).run(shape.batch, dy, dx);
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
            let mut turned = Scratch::take(weight.len()); // [r, r, out, in], turned by half a circle
            turned.par_chunks_mut(block).zip(weight.par_chunks(block).rev()).for_each(|(turned, weight)| {
                direct::transpose(weight, shape.in_channels, shape.out_channels, turned);
            });
            let mut packed = Scratch::take(winograd::weight_len::<T>(shape.out_channels, shape.in_channels));
            winograd::transform_weights::<T>(set, shape.out_channels, shape.in_channels, &turned, &mut packed);
            packed
        });
        Self { algorithm, set, shape: *shape, weight, packed }
    }

    /// The gradients of the inputs of `images` images.
    pub(crate) fn run(&self, images: usize, dy: &[f32], dx: &mut [f32]) {
        let shape = ConvolutionShape { batch: images, ..self.shape };
        assert_eq!(dy.len(), shape.output_len(), "length of dy");
        assert_eq!(dx.len(), shape.input_len(), "length of dx");
        by_algorithm!(self.algorithm, direct::input_gradient(self.set, &shape, dy, self.weight, dx), T => {
            let finish = Finish { bias: None, residual: None, relu: false, pool: false };
            winograd::forward::<T>(self.set, &shape.tiling_of_gradient(), dy, &self.packed, finish, dx);
        });
    }
}

/// Gradient of a convolution's weights: `dweight` `[kernel_height, kernel_width, in_channels, out_channels]`,
/// overwritten, summed over the batch; `dy` is the gradient before the activation.
///
/// # Panics
/// If a slice has another length than its shape.
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
    set: InstructionSet,
    shape: ConvolutionShape,
    sums: WeightSums,
}

enum WeightSums {
    Direct(direct::WeightSums),
    Winograd2(winograd::WeightSums<transform::F2>),
    Winograd3(winograd::WeightSums<transform::F3>),
    Winograd4(winograd::WeightSums<transform::F4>),
    Winograd6(winograd::WeightSums<transform::F6>),
    Winograd2Of5(winograd::WeightSums<transform::F2Of5>),
    Winograd4Of5(winograd::WeightSums<transform::F4Of5>),
}

impl WeightGradient {
    pub(crate) fn new(algorithm: Algorithm, set: InstructionSet, shape: &ConvolutionShape) -> Self {
        let tiling = &shape.tiling();
        let sums = match algorithm {
            Algorithm::Direct => WeightSums::Direct(direct::WeightSums::new(shape)),
            Algorithm::Winograd2 => WeightSums::Winograd2(winograd::WeightSums::new(set, tiling)),
            Algorithm::Winograd3 => WeightSums::Winograd3(winograd::WeightSums::new(set, tiling)),
            Algorithm::Winograd4 => WeightSums::Winograd4(winograd::WeightSums::new(set, tiling)),
            Algorithm::Winograd6 => WeightSums::Winograd6(winograd::WeightSums::new(set, tiling)),
            Algorithm::Winograd2Of5 => WeightSums::Winograd2Of5(winograd::WeightSums::new(set, tiling)),
            Algorithm::Winograd4Of5 => WeightSums::Winograd4Of5(winograd::WeightSums::new(set, tiling)),
        };
        Self { set, shape: *shape, sums }
    }

    /// Adds what comes from `images` images: their inputs `x`, and `dy`, the gradient of their outputs.
    pub(crate) fn add(&mut self, images: usize, x: &[f32], dy: &[f32]) {
        let shape = ConvolutionShape { batch: images, ..self.shape };
        assert_eq!(x.len(), shape.input_len(), "length of x");
        assert_eq!(dy.len(), shape.output_len(), "length of dy");
        match &mut self.sums {
            WeightSums::Direct(sums) => sums.add(self.set, &shape, images, x, dy),
            WeightSums::Winograd2(sums) => sums.add(images, x, dy),
            WeightSums::Winograd3(sums) => sums.add(images, x, dy),
            WeightSums::Winograd4(sums) => sums.add(images, x, dy),
            WeightSums::Winograd6(sums) => sums.add(images, x, dy),
            WeightSums::Winograd2Of5(sums) => sums.add(images, x, dy),
            WeightSums::Winograd4Of5(sums) => sums.add(images, x, dy),
        }
    }

    /// The gradient, overwritten.
    pub(crate) fn finish(&self, dweight: &mut [f32]) {
        assert_eq!(dweight.len(), self.shape.weight_len(), "length of dweight");
        match &self.sums {
            WeightSums::Direct(sums) => sums.finish(&self.shape, dweight),
            WeightSums::Winograd2(sums) => sums.finish(dweight),
            WeightSums::Winograd3(sums) => sums.finish(dweight),
            WeightSums::Winograd4(sums) => sums.finish(dweight),
            WeightSums::Winograd6(sums) => sums.finish(dweight),
            WeightSums::Winograd2Of5(sums) => sums.finish(dweight),
            WeightSums::Winograd4Of5(sums) => sums.finish(dweight),
        }
    }
}

/// The forward pass in parts, each on the thread that asks for it.
pub(crate) struct RowsForward<'a> {
    set: InstructionSet,
    shape: ConvolutionShape,
    x: &'a [f32],
    packed: Scratch,
    bias: Option<&'a [f32]>,
    relu: bool,
}

impl<'a> RowsForward<'a> {
    pub(crate) fn new(
        set: InstructionSet,
        shape: &ConvolutionShape,
        x: &'a [f32],
        weight: &[f32],
        bias: Option<&'a [f32]>,
        activation: Activation,
    ) -> Self {
        assert_eq!(x.len(), shape.input_len(), "length of x");
        assert_eq!(weight.len(), shape.weight_len(), "length of weight");
        assert!(bias.is_none_or(|bias| bias.len() == shape.out_channels), "length of bias");
        assert!(matches!(activation, Activation::Linear | Activation::Relu));
        let mut packed = Scratch::take(Algorithm::Direct.packed_len(shape));
        Algorithm::Direct.pack(set, shape, weight, &mut packed);
        Self { set, shape: *shape, x, packed, bias, relu: activation == Activation::Relu }
    }

    /// Rows `first..first + count` of an image's output, `[count, out_width, out]`.
    pub(crate) fn rows(&self, image: usize, first: usize, count: usize, y: &mut [f32]) {
        let length = self.shape.image_length();
        let x = &self.x[image * length..][..length];
        let finish = Finish { bias: self.bias, residual: None, relu: self.relu, pool: false };
        direct::forward_rows(self.set, &self.shape, x, first, count, &self.packed, finish, y);
    }
}

/// The gradient of the weights in parts, each on the thread that asks for it.
pub(crate) struct RowsGradient<'a> {
    set: InstructionSet,
    shape: ConvolutionShape,
    x: &'a [f32],
}

impl<'a> RowsGradient<'a> {
    pub(crate) fn new(set: InstructionSet, shape: &ConvolutionShape, x: &'a [f32]) -> Self {
        assert_eq!(x.len(), shape.input_len(), "length of x");
        Self { set, shape: *shape, x }
    }

    /// `dweight`, overwritten: the sum of what `add` adds, by [`RowsGradient::add`], for each of a few groups of images.
    pub(crate) fn sum(&self, dweight: &mut [f32], add: impl Fn(std::ops::Range<usize>, &mut [f32]) + Sync) {
        let mut sums = direct::WeightSums::new(&self.shape);
        sums.add_by(&self.shape, self.shape.batch, add);
        sums.finish(&self.shape, dweight);
    }

    /// Adds what comes from rows `first..first + count` of an image's output, whose gradient is `dy`.
    pub(crate) fn add(&self, image: usize, first: usize, count: usize, dy: &[f32], sums: &mut [f32]) {
        let length = self.shape.image_length();
        let x = &self.x[image * length..][..length];
        direct::add_weight_gradient(self.set, &self.shape, x, first, count, dy, sums);
    }
}

/// Gradients of [`forward`]: of the input (`dx`, where wanted), the weights and the bias (where there is one), all
/// overwritten.
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
    dbias: Option<&mut [f32]>,
) {
    assert_eq!(y.len(), shape.output_len(), "length of y");
    assert_eq!(dy.len(), shape.output_len(), "length of dy");
    let mut before = Scratch::take(if activation == Activation::Linear { 0 } else { dy.len() });
    let dy = if activation == Activation::Linear {
        dy
    } else {
        activation.gradient(y, dy, &mut before);
        &before[..]
    };
    if let Some(dbias) = dbias {
        assert_eq!(dbias.len(), shape.out_channels, "length of dbias");
        column_sums(dy, dbias);
    }
    weight_gradient(shape, x, dy, dweight);
    if let Some(dx) = dx {
        input_gradient(shape, dy, weight, dx);
    }
}

/// Sums over the rows of `[rows, columns]`: parts of fixed size, added up in a fixed order in double precision.
pub(crate) fn column_sums(values: &[f32], sums: &mut [f32]) {
    let columns = sums.len();
    if columns == 0 {
        return;
    }
    let rows = (crate::ELEMENTS_PER_TASK / columns).max(1);
    let tasks = values.len().div_ceil(rows * columns);
    let mut partial = Scratch::zeros(tasks * columns);
    partial.par_chunks_mut(columns).zip(values.par_chunks(rows * columns)).for_each(|(partial, values)| {
        for row in values.chunks_exact(columns) {
            partial.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
        }
    });
    for (column, sum) in sums.iter_mut().enumerate() {
        *sum = partial.chunks_exact(columns).map(|partial| f64::from(partial[column])).sum::<f64>() as f32;
    }
}

/// A convolution made ready for inference: weights packed for the algorithm that the batch size calls for.
#[derive(Clone)]
pub struct Prepared {
    /// Shape of one image.
    shape: ConvolutionShape,
    algorithm: Algorithm,
    packed: Aligned,
    bias: Vec<f32>,
    activation: Activation,
    pool: bool,
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { shape, algorithm, activation, pool, .. } = self;
        write!(f, "Prepared {{ {shape:?}, {algorithm:?}, {activation:?}, pool: {pool} }}")
    }
}

impl Prepared {
    /// Packs `weight` `[kernel_height, kernel_width, in_channels, out_channels]` for batches of about `shape.batch`
    /// images. With `pool` the output is what a 2 x 2 max pooling leaves of it; the activation must then be one that
    /// never decreases, as all of ours are.
    ///
    /// # Panics
    /// If a slice has another length than its shape.
    pub fn new(shape: &ConvolutionShape, weight: &[f32], bias: &[f32], activation: Activation, pool: bool) -> Self {
        assert_eq!(weight.len(), shape.weight_len(), "length of weight");
        assert_eq!(bias.len(), shape.out_channels, "length of bias");
        let used = if pool {
            // The choice should not count what pooling drops: the picture is cut to whole windows.
            let cut = |input: usize, output: usize| input - output % 2 * shape.stride.min(input);
            ConvolutionShape {
                in_height: cut(shape.in_height, shape.out_height()),
                in_width: cut(shape.in_width, shape.out_width()),
                ..*shape
            }
        } else {
            *shape
        };
        let fits = used.in_height + 2 * used.padding >= used.kernel_height
            && used.in_width + 2 * used.padding >= used.kernel_width;
        let mut algorithm = Algorithm::choose(if fits { &used } else { shape });
        if pool && algorithm == Algorithm::Winograd3 {
            algorithm = Algorithm::Winograd4; // its tiles hold whole windows
        }
        let mut packed = Aligned::zeros(algorithm.packed_len(shape));
        algorithm.pack(InstructionSet::best(), shape, weight, &mut packed);
        Self {
            shape: ConvolutionShape { batch: 1, ..*shape },
            algorithm,
            packed,
            bias: bias.to_vec(),
            activation,
            pool,
        }
    }

    /// Numbers that go in for one image.
    pub fn input_len(&self) -> usize {
        self.shape.input_len()
    }

    /// Numbers that come out for one image.
    pub fn output_len(&self) -> usize {
        let (height, width) = (self.shape.out_height(), self.shape.out_width());
        let (height, width) = if self.pool { (height / 2, width / 2) } else { (height, width) };
        height * width * self.shape.out_channels
    }

    /// `y = activation(convolution(x) + bias + residual)`, for any number of images.
    ///
    /// # Panics
    /// If a slice has another length than its shape, or if there is a residual where the output is pooled.
    pub fn run(&self, batch: usize, x: &[f32], residual: Option<&[f32]>, y: &mut [f32]) {
        let shape = ConvolutionShape { batch, ..self.shape };
        assert_eq!(x.len(), shape.input_len(), "length of x");
        assert_eq!(y.len(), batch * self.output_len(), "length of y");
        if y.is_empty() {
            return;
        }
        let relu = self.activation == Activation::Relu;
        let finish = Finish { bias: Some(&self.bias), residual, relu, pool: self.pool };
        self.algorithm.run(InstructionSet::best(), &shape, x, &self.packed, finish, y);
        if !relu {
            self.activation.forward(y);
        }
    }
}

#[cfg(test)]
mod tests;
