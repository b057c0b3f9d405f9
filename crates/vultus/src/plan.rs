//! A network and its weights made ready to run.
//!
//! In: a [`ResolvedNetwork`] and [`Weights`]. Out: a [`Plan`] that turns pixels into logits or probabilities, from any
//! number of threads at once. Dropout is gone; batch norms are per-channel affine maps, folded into a neighbour
//! wherever that is exact, through pooling if need be. It does not preprocess and does not train.

mod affine;
mod buffers;
mod compile;
mod step;

use std::sync::{Mutex, PoisonError};

use vultus_kernels::softmax;

use self::buffers::Buffers;
use self::step::Step;
use crate::network::ResolvedNetwork;
use crate::weights::{Weights, WeightsError};

/// Samples that go through the network together. The widest layer of the course report's network has 135,424 values a
/// sample, so that 32 samples of it (17 MB) about fill the last-level cache of an ordinary processor.
const SAMPLES_PER_CHUNK: usize = 32;

/// Room for one chunk of samples: the plan's buffers, and the winners of max pooling.
#[derive(Debug, Default)]
struct Workspace {
    buffers: Vec<Vec<f32>>,
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
    buffers: Buffers,
    workspaces: Mutex<Vec<Workspace>>,
}

impl Plan {
    /// Prepares `network` with `weights`.
    ///
    /// # Errors
    /// A tensor that is missing, has another shape, or belongs to no layer.
    pub fn new(network: &ResolvedNetwork, weights: &Weights) -> Result<Self, WeightsError> {
        let mut steps = compile::compile(network, weights)?;
        let inputs = network.input.len();
        let buffers = buffers::assign(&mut steps, inputs);
        Ok(Self { steps, inputs, classes: network.classes, buffers, workspaces: Mutex::default() })
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
            let values = &workspace.buffers[self.buffers.output];
            logits.extend_from_slice(&values[..x.len() / self.inputs * self.classes]);
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
        let mut workspace = free.unwrap_or_default();
        workspace.buffers.resize_with(self.buffers.lengths.len(), Vec::new);
        for (buffer, length) in workspace.buffers.iter_mut().zip(&self.buffers.lengths) {
            let length = buffer.len().max(samples * length);
            buffer.resize(length, 0.0);
        }
        let winners = workspace.winners.len().max(samples * self.buffers.widest);
        workspace.winners.resize(winners, 0);
        workspace
    }

    /// Takes one chunk through all steps; the logits are then in the output buffer.
    fn run(&self, x: &[f32], workspace: &mut Workspace) {
        let samples = x.len() / self.inputs;
        let Workspace { buffers, winners } = workspace;
        buffers[self.buffers.input][..x.len()].copy_from_slice(x);
        let mut lengths = vec![0; buffers.len()];
        lengths[self.buffers.input] = x.len();
        for step in &self.steps {
            let length = samples * step.operation.outputs();
            // Taken out, so that the step may read the other buffers while it writes this one.
            let mut output = std::mem::take(&mut buffers[step.output]);
            let y = &mut output[..length];
            if step.operation.works_in_place() && step.input != step.output {
                y.copy_from_slice(&buffers[step.input][..length]);
            }
            let x = buffers[step.input].get(..lengths[step.input]).unwrap_or_default();
            let addend = step.addend.map(|addend| &buffers[addend][..length]);
            step.operation.run(samples, x, addend, y, &mut winners[..length]);
            buffers[step.output] = output;
            lengths[step.output] = length;
        }
    }
}

#[cfg(test)]
mod tests;
