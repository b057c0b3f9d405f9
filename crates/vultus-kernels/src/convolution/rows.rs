//! Convolutions a few rows at a time, each on the thread that asks for them: always by the direct way.

use super::direct::Frame;
use super::winograd::Finish;
use super::{Algorithm, ConvolutionShape, WeightSums, direct};
use crate::activation::Activation;
use crate::scratch::Scratch;
use crate::simd::InstructionSet;

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

    /// The pixels under rows `first..first + count` of an image's output.
    pub(crate) fn frame(&self, image: usize, first: usize, count: usize) -> Frame<'a> {
        let length = self.shape.image_length();
        Frame::new(&self.shape, &self.x[image * length..][..length], first, count)
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
        let mut sums = direct::DirectSums::new(self.set, &self.shape);
        sums.add_by(self.shape.batch, add);
        sums.finish(dweight);
    }

    /// Adds what comes from rows `first..first + count` of an image's output, whose gradient is `dy`.
    pub(crate) fn add(&self, image: usize, first: usize, count: usize, dy: &[f32], sums: &mut [f32]) {
        let length = self.shape.image_length();
        let x = &self.x[image * length..][..length];
        direct::add_weight_gradient(self.set, &self.shape, x, first, count, dy, sums);
    }
}
