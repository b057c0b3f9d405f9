//! A network and its weights made ready to run.
//!
//! In: a [`ResolvedNetwork`] and [`Weights`]. Out: a [`Plan`] that turns pixels into logits or probabilities, from any
//! number of threads at once. Dropout is gone; batch norms are per-channel affine maps, folded into a neighbour
//! wherever that is exact, through pooling if need be. It does not preprocess and does not train.

mod affine;
mod compile;

use std::sync::{Mutex, PoisonError};

use vultus_kernels::activation::Activation;
use vultus_kernels::convolution::{self, ConvolutionShape};
use vultus_kernels::pooling::{self, PoolingShape};
use vultus_kernels::{dense, softmax};

use self::affine::Affine;
use crate::network::ResolvedNetwork;
use crate::weights::{Weights, WeightsError};

/// Samples that go through the network together. The widest layer of the course report's network has 135,424 values a
/// sample, so that 32 samples of it (17 MB) about fill the last-level cache of an ordinary processor.
const SAMPLES_PER_CHUNK: usize = 32;

/// One step of a plan. Shapes are those of one sample.
#[derive(Debug)]
enum Step {
    Convolution { shape: ConvolutionShape, weight: Vec<f32>, bias: Vec<f32>, activation: Activation },
    Dense { inputs: usize, outputs: usize, weight: Vec<f32>, bias: Vec<f32>, activation: Activation },
    MaxPool(PoolingShape),
    AveragePool(PoolingShape),
    Affine { affine: Affine, spatial: usize },
    Activation { function: Activation, length: usize },
}

impl Step {
    /// Values of one sample that come out.
    fn outputs(&self) -> usize {
        match self {
            Self::Convolution { shape, .. } => shape.output_len(),
            Self::Dense { outputs, .. } => *outputs,
            Self::MaxPool(shape) | Self::AveragePool(shape) => shape.output_len(),
            Self::Affine { affine, spatial } => affine.len() * spatial,
            Self::Activation { length, .. } => *length,
        }
    }
}

/// Buffers for one chunk of samples: two that the steps write in turn, and one for the winners of max pooling.
#[derive(Debug)]
struct Workspace {
    now: Vec<f32>,
    next: Vec<f32>,
    winners: Vec<u8>,
}

/// A network ready to run.
///
/// Buffers are made once for each caller that runs at the same time, and kept.
#[derive(Debug)]
pub struct Plan {
    steps: Vec<Step>,
    inputs: usize,
    classes: usize,
    widest: usize,
    workspaces: Mutex<Vec<Workspace>>,
}

impl Plan {
    /// Prepares `network` with `weights`.
    ///
    /// # Errors
    /// A tensor that is missing, has another shape, or belongs to no layer.
    pub fn new(network: &ResolvedNetwork, weights: &Weights) -> Result<Self, WeightsError> {
        let steps = compile::compile(network, weights)?;
        let inputs = network.input.len();
        let widest = steps.iter().map(Step::outputs).fold(inputs, usize::max);
        Ok(Self { steps, inputs, classes: network.classes, widest, workspaces: Mutex::default() })
    }

    /// Values of one sample: height times width.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Logits `[n, classes]` of the samples `x` `[n, 1, height, width]`, preprocessed.
    ///
    /// # Panics
    /// If the length of `x` is no multiple of [`Plan::inputs`].
    pub fn logits(&self, x: &[f32]) -> Vec<f32> {
        assert!(x.len().is_multiple_of(self.inputs), "{} values are no samples of {}", x.len(), self.inputs);
        let mut logits = Vec::with_capacity(x.len() / self.inputs * self.classes);
        let chunk = SAMPLES_PER_CHUNK * self.inputs;
        let mut workspace = self.workspace(SAMPLES_PER_CHUNK.min(x.len() / self.inputs));
        for x in x.chunks(chunk) {
            self.run(x, &mut workspace);
            logits.extend_from_slice(&workspace.now[..x.len() / self.inputs * self.classes]);
        }
        self.workspaces.lock().unwrap_or_else(PoisonError::into_inner).push(workspace);
        logits
    }

    /// Probabilities `[n, classes]`: the softmax of [`Plan::logits`]. NaN pixels or weights give NaN.
    ///
    /// # Panics
    /// As [`Plan::logits`].
    pub fn probabilities(&self, x: &[f32]) -> Vec<f32> {
        let mut probabilities = self.logits(x);
        softmax::softmax_rows(self.classes, &mut probabilities);
        probabilities
    }

    /// A workspace for `samples` samples: one that is free, or a new one.
    fn workspace(&self, samples: usize) -> Workspace {
        let free = self.workspaces.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut workspace =
            free.unwrap_or_else(|| Workspace { now: Vec::new(), next: Vec::new(), winners: Vec::new() });
        let length = samples * self.widest;
        if workspace.now.len() < length {
            workspace.now.resize(length, 0.0);
            workspace.next.resize(length, 0.0);
            workspace.winners.resize(length, 0);
        }
        workspace
    }

    /// Takes one chunk through all steps; the logits are then in `workspace.now`.
    fn run(&self, x: &[f32], workspace: &mut Workspace) {
        let samples = x.len() / self.inputs;
        let Workspace { now, next, winners } = workspace;
        now[..x.len()].copy_from_slice(x);
        let mut length = x.len();
        for step in &self.steps {
            let outputs = samples * step.outputs();
            match step {
                Step::Convolution { shape, weight, bias, activation } => {
                    let shape = ConvolutionShape { batch: samples, ..*shape };
                    convolution::forward(&shape, &now[..length], weight, bias, *activation, &mut next[..outputs]);
                }
                Step::Dense { inputs, outputs: units, weight, bias, activation } => {
                    let (x, y) = (&now[..length], &mut next[..outputs]);
                    dense::forward(samples, *inputs, *units, x, weight, bias, *activation, y);
                }
                Step::MaxPool(shape) => {
                    let shape = PoolingShape { planes: samples * shape.planes, ..*shape };
                    let winners = &mut winners[..outputs];
                    pooling::max_forward(&shape, &now[..length], &mut next[..outputs], winners);
                }
                Step::AveragePool(shape) => {
                    let shape = PoolingShape { planes: samples * shape.planes, ..*shape };
                    pooling::average_forward(&shape, &now[..length], &mut next[..outputs]);
                }
                // These two work in place.
                Step::Affine { affine, spatial } => {
                    affine.apply(*spatial, &mut now[..length]);
                    continue;
                }
                Step::Activation { function, .. } => {
                    function.forward(&mut now[..length]);
                    continue;
                }
            }
            std::mem::swap(now, next);
            length = outputs;
        }
    }
}

#[cfg(test)]
mod tests;
