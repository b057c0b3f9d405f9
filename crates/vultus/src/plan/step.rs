//! One step of a plan, and how it runs.
//!
//! In: a step, and the values it reads for a number of samples. Out: the values it gives. What becomes a step, and what
//! is folded into which, was decided by `compile`, or by the face finder's network; where the values lie, by `buffers`.

use vultus_kernels::activation::Activation;
use vultus_kernels::aligned::Aligned;
use vultus_kernels::convolution::{ConvolutionShape, Prepared};
use vultus_kernels::dense;
use vultus_kernels::depthwise::{self, DepthwiseShape};
use vultus_kernels::pooling::{self, PoolingShape};
use vultus_kernels::squeeze_excitation::{self, SqueezeShape, Weights};
use vultus_kernels::threads::share_chunks;

use super::affine::Affine;

/// Values that one task of an element-wise step works on.
pub(super) const VALUES_PER_TASK: usize = 32 * 1024;

/// One step. `Place` numbers values while the plan is made (0 is the network's input, `n` what step `n - 1` gives), and
/// buffers once it is ready. `C` is what its convolutions are: [`Convolution`] while something may still be folded into
/// them, [`Prepared`] to run.
#[derive(Debug)]
pub(crate) struct Step<C = Prepared> {
    /// What it works on.
    pub(crate) input: Place,
    /// What is added to its result in front of the activation; only for a convolution, an activation or an enlargement.
    pub(crate) addend: Option<Place>,
    /// Where its result goes.
    pub(crate) output: Place,
    /// Values of one sample that go in.
    pub(crate) inputs: usize,
    /// Values of one sample that come out.
    pub(crate) outputs: usize,
    /// What it computes.
    pub(crate) operation: Operation<C>,
}

/// Number of a value or of a buffer.
pub(crate) type Place = usize;

/// What a step computes. Shapes are those of one sample.
#[derive(Debug)]
pub(crate) enum Operation<C = Prepared> {
    /// `activation(convolution(x, weight) + bias + addend)`, and perhaps a pooling.
    Convolution(C),
    Depthwise {
        shape: DepthwiseShape,
        weight: Vec<f32>,
        bias: Vec<f32>,
        activation: Activation,
    },
    SqueezeExcitation(Squeeze),
    Dense {
        weight: Vec<f32>,
        bias: Vec<f32>,
        activation: Activation,
    },
    MaxPool(PoolingShape),
    AveragePool(PoolingShape),
    /// The mean of each channel over `spatial` pixels.
    GlobalAveragePool {
        channels: usize,
        spatial: usize,
    },
    Affine(Affine),
    /// Each pixel four times, and the addend.
    Enlarge {
        width: usize,
        channels: usize,
    },
    /// `activation(x + addend)`, for an activation on its own and for a sum that nothing before it can take in.
    Activation(Activation),
}

/// The weights of a squeeze and excitation; see [`Weights`].
#[derive(Debug)]
pub(crate) struct Squeeze {
    pub(crate) shape: SqueezeShape,
    pub(crate) squeeze: Vec<f32>,
    pub(crate) squeeze_bias: Vec<f32>,
    pub(crate) excitation: Vec<f32>,
    pub(crate) excitation_bias: Vec<f32>,
}

impl Squeeze {
    fn run(&self, samples: usize, x: &[f32], y: &mut [f32]) {
        let weights = Weights {
            squeeze: &self.squeeze,
            squeeze_bias: &self.squeeze_bias,
            excitation: &self.excitation,
            excitation_bias: &self.excitation_bias,
        };
        squeeze_excitation::forward(&SqueezeShape { batch: samples, ..self.shape }, x, &weights, y);
    }
}

/// A convolution that may still take something in.
#[derive(Debug)]
pub(crate) struct Convolution {
    pub(crate) shape: ConvolutionShape,
    pub(crate) weight: Vec<f32>,
    pub(crate) bias: Vec<f32>,
    pub(crate) activation: Activation,
    /// Whether a 2 x 2 max pooling follows, which it does itself.
    pub(crate) pool: bool,
}

impl Step<Convolution> {
    /// The step ready to run, best for `batch` samples.
    pub(crate) fn prepare(self, batch: usize) -> Step {
        let Self { input, addend, output, inputs, outputs, operation } = self;
        let operation = match operation {
            Operation::Convolution(Convolution { shape, weight, bias, activation, pool }) => {
                let shape = ConvolutionShape { batch, ..shape };
                Operation::Convolution(Prepared::new(&shape, &weight, &bias, activation, pool))
            }
            Operation::Depthwise { shape, weight, bias, activation } => {
                Operation::Depthwise { shape, weight, bias, activation }
            }
            Operation::SqueezeExcitation(squeeze) => Operation::SqueezeExcitation(squeeze),
            Operation::Dense { weight, bias, activation } => Operation::Dense { weight, bias, activation },
            Operation::MaxPool(shape) => Operation::MaxPool(shape),
            Operation::AveragePool(shape) => Operation::AveragePool(shape),
            Operation::GlobalAveragePool { channels, spatial } => Operation::GlobalAveragePool { channels, spatial },
            Operation::Affine(affine) => Operation::Affine(affine),
            Operation::Enlarge { width, channels } => Operation::Enlarge { width, channels },
            Operation::Activation(function) => Operation::Activation(function),
        };
        Step { input, addend, output, inputs, outputs, operation }
    }

    /// Weights that are read, about: of a convolution of 3 x 3 with stride 1 as many as Winograd's F(6) makes.
    pub(super) fn weights(&self) -> usize {
        match &self.operation {
            Operation::Convolution(Convolution { shape, weight, .. }) => {
                let winograd = (shape.kernel_height, shape.kernel_width, shape.stride) == (3, 3, 1);
                if winograd { weight.len() * 64 / 9 } else { weight.len() }
            }
            Operation::Dense { weight, .. } => weight.len(),
            _ => 0,
        }
    }

    /// Values of one sample that are read and written.
    pub(super) fn width(&self) -> usize {
        self.inputs + self.outputs * if self.addend.is_some() { 2 } else { 1 }
    }
}

impl Step {
    /// Computes the step's values for `samples` samples from those in `buffers`. Where it works in place, `y` already holds what
    /// it works on.
    pub(super) fn run(&self, samples: usize, buffers: &[Aligned], y: &mut [f32]) {
        // In place there may be nothing to read: the buffer is the one that is written.
        let x = buffers[self.input].get(..samples * self.inputs).unwrap_or_default();
        let addend = self.addend.map(|addend| &buffers[addend][..samples * self.outputs]);
        self.operation.run(samples, x, addend, y);
    }
}

impl<C> Operation<C> {
    /// Whether the step changes values where they lie.
    pub(crate) fn works_in_place(&self) -> bool {
        matches!(self, Self::Affine(_) | Self::Activation(_))
    }
}

impl Operation {
    /// Runs the step for `samples` samples: `x` to `y`, which a step that works in place changes instead (`x` is then
    /// not read).
    fn run(&self, samples: usize, x: &[f32], addend: Option<&[f32]>, y: &mut [f32]) {
        match self {
            Self::Convolution(convolution) => convolution.run(samples, x, addend, y),
            Self::Depthwise { shape, weight, bias, activation } => {
                let shape = DepthwiseShape { batch: samples, ..*shape };
                depthwise::forward(&shape, x, weight, Some(bias), *activation, y);
            }
            Self::SqueezeExcitation(squeeze) => squeeze.run(samples, x, y),
            Self::Dense { weight, bias, activation } => {
                let (inputs, outputs) = (weight.len() / bias.len(), bias.len());
                dense::forward(samples, inputs, outputs, x, weight, bias, *activation, y);
            }
            Self::MaxPool(shape) => {
                pooling::max_forward(&PoolingShape { batch: samples, ..*shape }, x, y, None);
            }
            Self::AveragePool(shape) => {
                pooling::average_forward(&PoolingShape { batch: samples, ..*shape }, x, y);
            }
            Self::GlobalAveragePool { channels, spatial } => {
                pooling::global_average_forward(samples, *spatial, *channels, x, y);
            }
            Self::Affine(affine) => affine.apply(y),
            Self::Enlarge { width, channels } => {
                enlarge(*width, *channels, x, y);
                if let Some(addend) = addend {
                    add(y, addend);
                }
            }
            Self::Activation(function) => {
                if let Some(addend) = addend {
                    add(y, addend);
                }
                function.forward(y);
            }
        }
    }
}

/// Each row twice, and in it each pixel.
fn enlarge(width: usize, channels: usize, x: &[f32], y: &mut [f32]) {
    let row = width * channels;
    share_chunks(y, 4 * row.max(1), |task, y| {
        let x = &x[task * row..][..row];
        let (upper, lower) = y.split_at_mut(2 * row);
        for (twice, pixel) in upper.chunks_exact_mut(2 * channels).zip(x.chunks_exact(channels)) {
            let (left, right) = twice.split_at_mut(channels);
            left.copy_from_slice(pixel);
            right.copy_from_slice(pixel);
        }
        lower.copy_from_slice(upper);
    });
}

fn add(y: &mut [f32], addend: &[f32]) {
    share_chunks(y, VALUES_PER_TASK, |task, y| {
        y.iter_mut().zip(&addend[task * VALUES_PER_TASK..]).for_each(|(y, addend)| *y += addend);
    });
}
