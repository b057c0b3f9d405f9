//! The convolution of a block, of either kind, with its batch in parts.
//!
//! In: its geometry. Out: sizes and the kernels' passes, by the same names for both kinds.

use crate::activation::Activation;
use crate::batch_norm::NormShape;
use crate::convolution::{self, Algorithm, ConvolutionShape};
use crate::depthwise::{self, DepthwiseShape};
use crate::norm_pool::NormPoolShape;
use crate::simd::InstructionSet;
use crate::sizes::elements;
use crate::sum::Sum;

/// A convolution over all channels, or of each channel by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filters {
    /// Each output sees all channels of the input.
    Dense(ConvolutionShape),
    /// Each output sees its own channel.
    Depthwise(DepthwiseShape),
}

/// The same expression for either shape.
macro_rules! of_either {
    ($filters:expr, $shape:ident => $value:expr) => {
        match $filters {
            Filters::Dense($shape) => $value,
            Filters::Depthwise($shape) => $value,
        }
    };
}

impl Filters {
    /// Samples.
    pub fn batch(&self) -> usize {
        of_either!(self, shape => shape.batch)
    }

    /// Channels of the output.
    pub fn channels(&self) -> usize {
        match self {
            Self::Dense(shape) => shape.out_channels,
            Self::Depthwise(shape) => shape.channels,
        }
    }

    /// Rows and columns of the output.
    pub fn out_size(&self) -> (usize, usize) {
        of_either!(self, shape => (shape.out_height(), shape.out_width()))
    }

    /// Elements of the whole input.
    pub fn input_len(&self) -> usize {
        of_either!(self, shape => shape.input_len())
    }

    /// Elements of the weights.
    pub fn weight_len(&self) -> usize {
        of_either!(self, shape => shape.weight_len())
    }

    /// Elements of the whole output.
    pub fn output_len(&self) -> usize {
        of_either!(self, shape => shape.output_len())
    }

    /// The output as rows to normalise.
    pub fn norm(&self) -> NormShape {
        let (height, width) = self.out_size();
        NormShape { rows: elements([self.batch(), height, width]), channels: self.channels() }
    }

    /// The output as planes to normalise and pool.
    pub fn pooled(&self, size: usize) -> NormPoolShape {
        let (height, width) = self.out_size();
        NormPoolShape { batch: self.batch(), height, width, channels: self.channels(), size }
    }

    pub(crate) fn forward<'a>(
        &self,
        weight: &'a [f32],
        bias: Option<&'a [f32]>,
        activation: Activation,
    ) -> ForwardPass<'a> {
        let set = InstructionSet::best();
        match *self {
            Self::Dense(shape) => {
                let algorithm = Algorithm::choose(&shape);
                let pass = convolution::ForwardPass::new(algorithm, set, &shape, weight, bias, activation);
                ForwardPass::Dense(pass)
            }
            Self::Depthwise(shape) => ForwardPass::Depthwise { shape, weight, bias, activation },
        }
    }

    pub(crate) fn weight_gradient(&self) -> WeightGradient {
        let set = InstructionSet::best();
        match self {
            Self::Dense(shape) => {
                WeightGradient::Dense(convolution::WeightGradient::new(Algorithm::choose(shape), set, shape))
            }
            Self::Depthwise(shape) => WeightGradient::Depthwise(depthwise::WeightGradient::new(set, shape)),
        }
    }

    pub(crate) fn input_gradient<'a>(&self, weight: &'a [f32]) -> InputGradient<'a> {
        match *self {
            Self::Dense(shape) => {
                let (algorithm, set) = (Algorithm::of_input_gradient(&shape), InstructionSet::best());
                InputGradient::Dense(convolution::InputGradient::new(algorithm, set, &shape, weight))
            }
            Self::Depthwise(shape) => InputGradient::Depthwise { shape, weight },
        }
    }
}

/// Outputs of some images.
pub(crate) enum ForwardPass<'a> {
    Dense(convolution::ForwardPass<'a>),
    Depthwise { shape: DepthwiseShape, weight: &'a [f32], bias: Option<&'a [f32]>, activation: Activation },
}

impl ForwardPass<'_> {
    pub(crate) fn run(&self, images: usize, x: &[f32], y: &mut [f32]) {
        match *self {
            Self::Dense(ref pass) => pass.run(images, x, y),
            Self::Depthwise { shape, weight, bias, activation } => {
                depthwise::forward(&DepthwiseShape { batch: images, ..shape }, x, weight, bias, activation, y);
            }
        }
    }
}

/// Gradients of the inputs of some images.
pub(crate) enum InputGradient<'a> {
    Dense(convolution::InputGradient<'a>),
    Depthwise { shape: DepthwiseShape, weight: &'a [f32] },
}

impl InputGradient<'_> {
    pub(crate) fn add(&self, images: usize, dy: &[f32], sum: &mut Sum) {
        match *self {
            Self::Dense(ref pass) => pass.add(images, dy, sum),
            Self::Depthwise { shape, weight } => {
                sum.add(|dx| depthwise::input_gradient(&DepthwiseShape { batch: images, ..shape }, dy, weight, dx));
            }
        }
    }
}

/// The gradient of the weights, summed up from one part of the batch after the other.
pub(crate) enum WeightGradient {
    Dense(convolution::WeightGradient),
    Depthwise(depthwise::WeightGradient),
}

impl WeightGradient {
    pub(crate) fn add(&mut self, images: usize, x: &[f32], dy: &[f32]) {
        match self {
            Self::Dense(sums) => sums.add(images, x, dy),
            Self::Depthwise(sums) => sums.add(images, x, dy),
        }
    }

    pub(crate) fn finish(&self, dweight: &mut [f32]) {
        match self {
            Self::Dense(sums) => sums.finish(dweight),
            Self::Depthwise(sums) => sums.finish(dweight),
        }
    }
}
