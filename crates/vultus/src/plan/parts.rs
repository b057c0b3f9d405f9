//! A network's steps in parts that take different numbers of samples at a time.
//!
//! In: the steps of a network. Out: one or two [`Part`]s, ready to run. First layers have large pictures and few weights: a core takes
//! a few samples through them, whose values stay in its caches. Last layers have small pictures and many weights, which are read once
//! for all samples that come together.

use super::program::Program;
use super::step::{Convolution, Step};

/// Most samples of a part at a time.
pub(super) const MOST_SAMPLES: usize = 32;

/// Steps that want at least so many samples at a time may be of the last part.
const MANY_SAMPLES: usize = 16;

/// Bytes that a step of the first part may read and write for the samples of one core.
pub(super) const CACHE_BYTES: usize = 4 << 20;

/// Steps that take some samples at a time from the values of the part before to values of their own.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) program: Program,
    /// Most samples at a time.
    pub(super) samples: usize,
}

impl Part {
    fn new(steps: Vec<Step<Convolution>>, inputs: usize, samples: usize) -> Self {
        let value = steps.len();
        Self { program: Program::new(steps, inputs, &[value], samples), samples }
    }
}

/// The parts of `steps`, which work on samples of `inputs` values, for calls with about `batch` samples.
pub(super) fn parts(steps: Vec<Step<Convolution>>, inputs: usize, batch: usize) -> Vec<Part> {
    let batch = batch.clamp(1, MOST_SAMPLES);
    let wants_few = |step: &Step<Convolution>| in_cache(step).max(for_weights(step)) < MANY_SAMPLES;
    let Some(first) = steps.iter().rposition(wants_few) else { return cut_into(steps, inputs, None, [batch; 2]) };
    // The first place behind the last step that wants few samples.
    let cut = (first + 1..steps.len()).find(|&cut| can_cut(&steps, cut));
    let few = steps[..cut.unwrap_or(steps.len())].iter().map(in_cache).min();
    cut_into(steps, inputs, cut, [few.unwrap_or(batch).clamp(1, batch), batch])
}

/// `steps` as they are, or in two parts: those before `cut`, and those from there on. `samples` of each at a time.
pub(super) fn cut_into(
    mut steps: Vec<Step<Convolution>>,
    inputs: usize,
    cut: Option<usize>,
    samples: [usize; 2],
) -> Vec<Part> {
    let Some(cut) = cut else { return vec![Part::new(steps, inputs, samples[0])] };
    let mut last = steps.split_off(cut);
    for step in &mut last {
        step.input -= cut;
        step.output -= cut;
        step.addend = step.addend.map(|addend| addend - cut);
    }
    let between = steps[cut - 1].outputs;
    vec![Part::new(steps, inputs, samples[0]), Part::new(last, between, samples[1])]
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
