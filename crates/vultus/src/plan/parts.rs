//! A network's steps in parts that take different numbers of samples at a time.
//!
//! In: the steps of a network. Out: one or two [`Part`]s, ready to run. First layers have large pictures and few weights: a core takes
//! a few samples through them, whose values stay in its caches. Last layers have small pictures and many weights, which are read once
//! for all samples that come together.

use super::program::Program;
use super::step::{Convolution, Step};

/// Most samples of a part at a time, of one core.
pub(super) const MOST_SAMPLES: usize = 32;

/// Steps that want at least so many samples at a time may be of the last part.
const MANY_SAMPLES: usize = 16;

/// Bytes that a step of the first part may read and write for the samples of one core.
pub(super) const CACHE_BYTES: usize = 4 << 20;

/// Steps that take some samples at a time from the values of the part before to values of their own.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) program: Program,
    /// Most samples at a time, of one core.
    pub(super) samples: usize,
}

impl Part {
    /// Prepared for calls with about `batch` samples.
    fn new(steps: Vec<Step<Convolution>>, inputs: usize, samples: usize, batch: usize) -> Self {
        let value = steps.len();
        Self { program: Program::new(steps, inputs, &[value], samples.min(batch)), samples }
    }
}

/// The parts of `steps`, which work on samples of `inputs` values, prepared for calls with about `batch` samples.
pub(super) fn parts(steps: Vec<Step<Convolution>>, inputs: usize, batch: usize) -> Vec<Part> {
    let wants_few = |step: &Step<Convolution>| in_cache(step).max(for_weights(step)) < MANY_SAMPLES;
    let first = steps.iter().rposition(wants_few).map_or(0, |step| step + 1);
    // The first place behind the last step that wants few samples.
    let cut = (first..steps.len()).find(|&cut| can_cut(&steps, cut)).unwrap_or(steps.len());
    let few = steps[..cut].iter().map(in_cache).min().unwrap_or(MOST_SAMPLES);
    cut_at(cut, steps, inputs, few.clamp(1, MOST_SAMPLES), batch.max(1))
}

/// `steps` in a first part, up to `cut`, with `few` samples at a time, and a last one, as far as there are such steps.
pub(super) fn cut_at(
    cut: usize,
    mut steps: Vec<Step<Convolution>>,
    inputs: usize,
    few: usize,
    batch: usize,
) -> Vec<Part> {
    let mut last = steps.split_off(cut);
    for step in &mut last {
        step.input -= cut;
        step.output -= cut;
        step.addend = step.addend.map(|addend| addend - cut);
    }
    let between = steps.last().map_or(inputs, |step| step.outputs);
    let mut parts = Vec::new();
    if cut > 0 {
        parts.push(Part::new(steps, inputs, few, batch));
    }
    if cut == 0 || !last.is_empty() {
        parts.push(Part::new(last, between, MOST_SAMPLES, batch));
    }
    parts
}

/// Samples of a step whose values stay in the caches of a core.
fn in_cache(step: &Step<Convolution>) -> usize {
    CACHE_BYTES / (step.width() * size_of::<f32>()).max(1)
}

/// Samples of a step that have as many values together as it has weights.
fn for_weights(step: &Step<Convolution>) -> usize {
    step.weights() / step.width().max(1)
}

/// Whether the steps from `cut` on read nothing of what is in front of it but the value of the step there.
pub(super) fn can_cut(steps: &[Step<Convolution>], cut: usize) -> bool {
    steps[cut..].iter().all(|step| step.input >= cut && step.addend.is_none_or(|addend| addend >= cut))
}
