//! One step of a plan, and how it runs.
//!
//! In: a step, and the values it reads for a number of samples. Out: the values it gives. What becomes a step, and what
//! is folded into which, was decided by `compile`; where the values lie, by `buffers`.

use rayon::prelude::*;
use vultus_kernels::activation::Activation;
use vultus_kernels::convolution::{self, ConvolutionShape};
use vultus_kernels::dense;
use vultus_kernels::pooling::{self, PoolingShape};

use super::affine::Affine;

/// Values that one task adds.
const ELEMENTS_PER_TASK: usize = 32 * 1024;

/// One step. `Place` numbers values while the plan is made (0 is the network's input, `n` what step `n - 1` gives), and
/// buffers once it is ready.
#[derive(Debug)]
pub(super) struct Step {
    /// What it works on.
    pub(super) input: Place,
    /// What is added to its result in front of the activation; only for a convolution or an activation.
    pub(super) addend: Option<Place>,
    /// Where its result goes.
    pub(super) output: Place,
    /// What it computes.
    pub(super) operation: Operation,
}

/// Number of a value or of a buffer.
pub(super) type Place = usize;

/// What a step computes. Shapes are those of one sample.
#[derive(Debug)]
pub(super) enum Operation {
    /// `activation(convolution(x, weight) + bias + addend)`.
    Convolution {
        shape: ConvolutionShape,
        weight: Vec<f32>,
        bias: Vec<f32>,
        activation: Activation,
    },
    Dense {
        inputs: usize,
        outputs: usize,
        weight: Vec<f32>,
        bias: Vec<f32>,
        activation: Activation,
    },
    MaxPool(PoolingShape),
    AveragePool(PoolingShape),
    /// The mean of each plane of `spatial` values.
    GlobalAveragePool {
        channels: usize,
        spatial: usize,
    },
    Affine {
        affine: Affine,
        spatial: usize,
    },
    /// `activation(x + addend)`, for an activation on its own and for a sum that nothing before it can take in.
    Activation {
        function: Activation,
        length: usize,
    },
}

impl Operation {
    /// Values of one sample that come out.
    pub(super) fn outputs(&self) -> usize {
        match self {
            Self::Convolution { shape, .. } => shape.output_len(),
            Self::Dense { outputs, .. } => *outputs,
            Self::MaxPool(shape) | Self::AveragePool(shape) => shape.output_len(),
            Self::GlobalAveragePool { channels, .. } => *channels,
            Self::Affine { affine, spatial } => affine.len() * spatial,
            Self::Activation { length, .. } => *length,
        }
    }

    /// Whether the step changes values where they lie.
    pub(super) fn works_in_place(&self) -> bool {
        matches!(self, Self::Affine { .. } | Self::Activation { .. })
    }

    /// Runs the step for `samples` samples: `x` to `y`, which a step that works in place changes instead (`x` is then
    /// not read). `winners` is room for as many places as `y` has values.
    pub(super) fn run(&self, samples: usize, x: &[f32], addend: Option<&[f32]>, y: &mut [f32], winners: &mut [u8]) {
        match self {
            Self::Convolution { shape, weight, bias, activation } => {
                let shape = ConvolutionShape { batch: samples, ..*shape };
                match addend {
                    None => convolution::forward(&shape, x, weight, bias, *activation, y),
                    Some(addend) => {
                        convolution::forward(&shape, x, weight, bias, Activation::Linear, y);
                        add(y, addend);
                        activation.forward(y);
                    }
                }
            }
            Self::Dense { inputs, outputs, weight, bias, activation } => {
                dense::forward(samples, *inputs, *outputs, x, weight, bias, *activation, y);
            }
            Self::MaxPool(shape) => {
                let shape = PoolingShape { planes: samples * shape.planes, ..*shape };
                pooling::max_forward(&shape, x, y, winners);
            }
            Self::AveragePool(shape) => {
                let shape = PoolingShape { planes: samples * shape.planes, ..*shape };
                pooling::average_forward(&shape, x, y);
            }
            Self::GlobalAveragePool { spatial, .. } => {
                for (mean, plane) in y.iter_mut().zip(x.chunks_exact(*spatial)) {
                    *mean = (plane.iter().map(|&value| f64::from(value)).sum::<f64>() / *spatial as f64) as f32;
                }
            }
            Self::Affine { affine, spatial } => affine.apply(*spatial, y),
            Self::Activation { function, .. } => {
                if let Some(addend) = addend {
                    add(y, addend);
                }
                function.forward(y);
            }
        }
    }
}

fn add(y: &mut [f32], addend: &[f32]) {
    y.par_chunks_mut(ELEMENTS_PER_TASK).zip(addend.par_chunks(ELEMENTS_PER_TASK)).for_each(|(y, addend)| {
        y.iter_mut().zip(addend).for_each(|(y, addend)| *y += addend);
    });
}
