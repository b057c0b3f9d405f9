//! A network and its weights made ready to run.
//!
//! In: a [`ResolvedNetwork`] and [`Weights`]. Out: a [`Plan`] that turns pixels into logits or probabilities, from any
//! number of threads at once. Dropout is gone; batch norms are per-channel affine maps, folded into a neighbour
//! wherever that is exact, through pooling if need be; a convolution does what follows it at once. It does not
//! preprocess and does not train.

mod affine;
mod buffers;
mod compile;
mod parts;
mod program;
mod step;

use rayon::prelude::*;
use vultus_kernels::{softmax, threads};

pub(crate) use self::affine::Affine;
pub(crate) use self::compile::compile;
use self::parts::Part;
pub(crate) use self::program::Program;
pub(crate) use self::step::{Convolution, Operation, Place, Squeeze, Step};
use crate::network::ResolvedNetwork;
use crate::weights::{Weights, WeightsError};

/// Samples for which [`Plan::new`] prepares a network.
const USUAL_BATCH: usize = 32;

/// Fewest samples that a core takes for itself: with fewer in all, cores share each step.
const FEWEST_SAMPLES_OF_A_CORE: usize = 8;

/// A network ready to run.
///
/// Buffers are kept: as many as cores have worked at the same time.
#[derive(Debug)]
pub struct Plan {
    parts: Vec<Part>,
    inputs: usize,
    classes: usize,
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
        Ok(Self { parts: parts::parts(steps, inputs, batch), inputs, classes })
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

    /// [`Plan::logits`] written to `logits` `[n, classes]`. No buffer is allocated once as many cores have taken as many samples
    /// at the same time, but for the kernels' scratch memory of a thread that calls for the first time.
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
        let all = rayon::current_num_threads();
        // Cores with samples of their own wait for each other once, not once a step, and find in their caches what they wrote.
        let cores = all.min(samples / FEWEST_SAMPLES_OF_A_CORE);
        if cores <= 1 {
            return threads::lead(|| self.run(&self.parts, all, x, logits));
        }
        threads::enter(|| {
            // Outside of a pool the kernels alone share out their work: whole samples would begin in the middle of each other.
            let cores = if rayon::current_thread_index().is_some() { cores } else { 1 };
            let share = samples.div_ceil(cores);
            let shares = x.par_chunks(share * self.inputs).zip(logits.par_chunks_mut(share * self.classes));
            shares.for_each(|(x, logits)| self.run(&self.parts, all / cores, x, logits));
        });
    }

    /// The values `y` that `parts` make of the samples `x` on some cores, which share each step.
    fn run(&self, parts: &[Part], cores: usize, x: &[f32], y: &mut [f32]) {
        let Some((last, before)) = parts.split_last() else { return };
        let samples = x.len() / self.inputs;
        let values = y.len() / samples;
        // Of about equal size: a last chunk of few samples would waste the weights that it reads.
        let chunk = samples.div_ceil(samples.div_ceil(last.samples * cores));
        for (x, y) in x.chunks(chunk * self.inputs).zip(y.chunks_mut(chunk * values)) {
            let samples = x.len() / self.inputs;
            let mut workspace = last.program.workspace(samples);
            let input = last.program.input(samples, &mut workspace);
            if before.is_empty() {
                input.copy_from_slice(x)
            } else {
                self.run(before, cores, x, input)
            }
            last.program.run_into(samples, &mut workspace, y);
            last.program.keep(workspace);
        }
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
