//! A network and its weights made ready to run.
//!
//! In: a [`ResolvedNetwork`] and [`Weights`]. Out: a [`Plan`] that turns pixels into logits or probabilities, from any
//! number of threads at once. Dropout is gone; batch norms are per-channel affine maps, folded into a neighbour
//! wherever that is exact, through pooling if need be; a convolution does what follows it at once. It does not
//! preprocess and does not train.

mod affine;
mod buffers;
mod compile;
mod program;
mod step;

use rayon::prelude::*;
use vultus_kernels::{softmax, threads};

pub(crate) use self::affine::Affine;
pub(crate) use self::compile::compile;
pub(crate) use self::program::Program;
pub(crate) use self::step::{Convolution, Operation, Place, Squeeze, Step};
use crate::network::ResolvedNetwork;
use crate::weights::{Weights, WeightsError};

/// Samples for which [`Plan::new`] prepares a network.
const USUAL_BATCH: usize = 32;

/// Bytes that the widest step should read and write for the chunks of all cores: so few that their values stay in the
/// last-level cache of an ordinary processor, so many that the weights, read once for each chunk, do not matter.
const CHUNK_BYTES: usize = 16 << 20;

/// Fewest samples of a chunk, however wide the network is: weights are read once for each chunk.
const FEWEST_SAMPLES_PER_CHUNK: usize = 8;

/// A network ready to run.
///
/// Buffers are kept: as many as chunks have run at the same time.
#[derive(Debug)]
pub struct Plan {
    program: Program,
    inputs: usize,
    classes: usize,
    /// Of all cores together.
    samples_per_round: usize,
}

impl Plan {
    /// Prepares `network` with `weights` for many samples at a time.
    ///
    /// # Errors
    /// A tensor that is missing, has another shape, or belongs to no layer.
    pub fn new(network: &ResolvedNetwork, weights: &Weights) -> Result<Self, WeightsError> {
        Self::for_batch(network, weights, USUAL_BATCH)
    }

    /// Prepares `network` with `weights` for calls with about `batch` samples: the algorithms that are then fastest on one
    /// core are chosen. Any number of samples may come, but results of plans for different batches differ by rounding.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn for_batch(network: &ResolvedNetwork, weights: &Weights, batch: usize) -> Result<Self, WeightsError> {
        let steps = compile(network, weights)?;
        let (inputs, classes) = (network.input.len(), network.classes);
        let widest = steps.iter().map(Step::width).max().unwrap_or(inputs);
        let samples_per_round = (CHUNK_BYTES / (widest * size_of::<f32>())).max(FEWEST_SAMPLES_PER_CHUNK);
        let batch = batch.clamp(1, samples_per_round);
        let logits = steps.len();
        Ok(Self { program: Program::new(steps, inputs, &[logits], batch), inputs, classes, samples_per_round })
    }

    /// Values of one sample: height times width.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Logits `[n, classes]` of the samples `x` `[n, height, width, 1]`, preprocessed.
    ///
    /// # Panics
    /// If the length of `x` is no multiple of [`Plan::inputs`].
    pub fn logits(&self, x: &[f32]) -> Vec<f32> {
        let mut logits = vec![0.0; x.len() / self.inputs * self.classes];
        self.logits_into(x, &mut logits);
        logits
    }

    /// [`Plan::logits`] written to `logits` `[n, classes]`. No buffer is allocated once as many
    /// chunks of as many samples have run at the same time.
    ///
    /// # Panics
    /// As [`Plan::logits`], and if `logits` has another length.
    pub fn logits_into(&self, x: &[f32], logits: &mut [f32]) {
        assert!(x.len().is_multiple_of(self.inputs), "{} values are no samples of {}", x.len(), self.inputs);
        let samples = x.len() / self.inputs;
        assert_eq!(logits.len(), samples * self.classes, "length of the logits");
        if samples == 0 {
            return;
        }
        threads::enter(|| {
            // Outside of a pool the kernels alone share out their work: whole chunks would begin in the middle of each other.
            let threads = rayon::current_thread_index().map_or(1, |_| rayon::current_num_threads());
            // Cores with samples of their own wait for each other once a round, not once a step, and find in their caches what
            // they wrote; no more chunks are begun at once, as one may begin in the middle of another. Chunks are of about equal size: a last one of few samples would waste the weights that it reads.
            let cores = threads.min(samples / FEWEST_SAMPLES_PER_CHUNK).max(1);
            let rounds = samples.div_ceil(self.samples_per_round.max(FEWEST_SAMPLES_PER_CHUNK * cores));
            let chunk = samples.div_ceil(rounds * cores);
            let rounds = x.chunks(cores * chunk * self.inputs).zip(logits.chunks_mut(cores * chunk * self.classes));
            for (x, logits) in rounds {
                let chunks = x.par_chunks(chunk * self.inputs).zip(logits.par_chunks_mut(chunk * self.classes));
                chunks.for_each(|(x, logits)| self.run(x, logits));
            }
        });
    }

    /// A chunk of samples.
    fn run(&self, x: &[f32], logits: &mut [f32]) {
        let samples = x.len() / self.inputs;
        let mut workspace = self.program.workspace(samples);
        self.program.input(samples, &mut workspace).copy_from_slice(x);
        self.program.run(samples, &mut workspace);
        logits.copy_from_slice(self.program.result(samples, &workspace, 0));
        self.program.keep(workspace);
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
}

#[cfg(test)]
mod tests;
