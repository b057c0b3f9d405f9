//! The convolution of a block, of either kind.
//!
//! In: its geometry. Out: sizes and the kernels' results, by the same names for both kinds.

use vultus_kernels::batch_norm::NormShape;
use vultus_kernels::norm_pool::NormPoolShape;
use vultus_kernels::{convolution, depthwise};

use super::{Activation, ConvolutionShape, DepthwiseShape};

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

    pub(super) fn input_len(&self) -> usize {
        of_either!(self, shape => shape.input_len())
    }

    pub(super) fn weight_len(&self) -> usize {
        of_either!(self, shape => shape.weight_len())
    }

    pub(super) fn output_len(&self) -> usize {
        of_either!(self, shape => shape.output_len())
    }

    /// The output as rows to normalise.
    pub(super) fn norm(&self) -> NormShape {
        let (height, width) = self.out_size();
        NormShape { rows: self.batch() * height * width, channels: self.channels() }
    }

    /// The output as planes to normalise and pool.
    pub(super) fn pooled(&self, size: usize) -> NormPoolShape {
        let (height, width) = self.out_size();
        NormPoolShape { batch: self.batch(), height, width, channels: self.channels(), size }
    }

    pub(super) fn forward(
        &self,
        x: &[f32],
        weight: &[f32],
        bias: Option<&[f32]>,
        activation: Activation,
        y: &mut [f32],
    ) {
        match self {
            Self::Dense(shape) => convolution::forward(shape, x, weight, bias, activation, y),
            Self::Depthwise(shape) => depthwise::forward(shape, x, weight, bias, activation, y),
        }
    }

    pub(super) fn weight_gradient(&self, x: &[f32], dy: &[f32], dweight: &mut [f32]) {
        match self {
            Self::Dense(shape) => convolution::weight_gradient(shape, x, dy, dweight),
            Self::Depthwise(shape) => depthwise::weight_gradient(shape, x, dy, dweight),
        }
    }

    pub(super) fn input_gradient(&self, dy: &[f32], weight: &[f32], dx: &mut [f32]) {
        match self {
            Self::Dense(shape) => convolution::input_gradient(shape, dy, weight, dx),
            Self::Depthwise(shape) => depthwise::input_gradient(shape, dy, weight, dx),
        }
    }
}
