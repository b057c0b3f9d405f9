//! Steps with the room that they work in.
//!
//! In: steps, and which of their values are results. Out: a [`Program`] that takes samples through them, from any number
//! of threads at once. What the samples are, and what the results mean, is the caller's business.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use vultus_kernels::aligned::Aligned;

use super::buffers::{self, Buffers};
use super::step::{Convolution, Place, Step};

/// Steps ready to run. Room is made once for each run at the same time, and kept.
pub(crate) struct Program {
    pub(super) steps: Vec<Step>,
    inputs: usize,
    /// Values of one sample of each result.
    lengths: Vec<usize>,
    pub(super) buffers: Buffers,
    workspaces: Mutex<Vec<Workspace>>,
}

impl fmt::Debug for Program {
    /// Without the weights, of which there are too many for a log.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps = self.steps.len();
        formatter.debug_struct("Program").field("inputs", &self.inputs).field("steps", &steps).finish_non_exhaustive()
    }
}

/// Room for some samples: the program's buffers.
pub(crate) type Workspace = Vec<Aligned>;

impl Program {
    /// Prepares `steps`, which work on samples of `inputs` values and give those of `results`, for about `batch` samples
    /// at a time.
    pub(crate) fn new(steps: Vec<Step<Convolution>>, inputs: usize, results: &[Place], batch: usize) -> Self {
        let mut steps: Vec<Step> = steps.into_iter().map(|step| step.prepare(batch)).collect();
        // Place 0 is the input.
        let lengths = results.iter().map(|&place| if place == 0 { inputs } else { steps[place - 1].outputs }).collect();
        let buffers = buffers::assign(&mut steps, inputs, results);
        Self { steps, inputs, lengths, buffers, workspaces: Mutex::default() }
    }

    /// A workspace for `samples` samples: one that is free, or a new one.
    pub(crate) fn workspace(&self, samples: usize) -> Workspace {
        let free = self.workspaces.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut workspace = free.unwrap_or_default();
        workspace.resize_with(self.buffers.lengths.len(), Aligned::default);
        for (buffer, length) in workspace.iter_mut().zip(&self.buffers.lengths) {
            buffer.set_length(samples * length);
        }
        workspace
    }

    /// Keeps a workspace for the next caller.
    pub(crate) fn keep(&self, workspace: Workspace) {
        self.workspaces.lock().unwrap_or_else(PoisonError::into_inner).push(workspace);
    }

    /// Where the values of `samples` samples go before [`Program::run`].
    pub(crate) fn input<'a>(&self, samples: usize, workspace: &'a mut Workspace) -> &'a mut [f32] {
        &mut workspace[self.buffers.input][..samples * self.inputs]
    }

    /// Takes `samples` samples through all steps.
    pub(crate) fn run(&self, samples: usize, workspace: &mut Workspace) {
        self.steps.iter().for_each(|step| run_within(step, samples, workspace));
    }

    /// [`Program::run`], with the values of the last step written to `y` alone.
    pub(super) fn run_into(&self, samples: usize, workspace: &mut Workspace, y: &mut [f32]) {
        let Some((last, steps)) = self.steps.split_last() else {
            y.copy_from_slice(self.input(samples, workspace));
            return;
        };
        steps.iter().for_each(|step| run_within(step, samples, workspace));
        if last.operation.works_in_place() {
            y.copy_from_slice(&workspace[last.input][..y.len()]);
        }
        last.run(samples, workspace, y);
    }

    /// One of the results of `samples` samples after [`Program::run`].
    pub(crate) fn result<'a>(&self, samples: usize, workspace: &'a Workspace, index: usize) -> &'a [f32] {
        &workspace[self.buffers.outputs[index]][..samples * self.lengths[index]]
    }
}

/// Runs a step from buffers of the workspace to one of them.
fn run_within(step: &Step, samples: usize, workspace: &mut Workspace) {
    // Taken out, so that the step may read the other buffers while it writes this one.
    let mut output = std::mem::take(&mut workspace[step.output]);
    let y = &mut output[..samples * step.outputs];
    if step.operation.works_in_place() && step.input != step.output {
        y.copy_from_slice(&workspace[step.input][..y.len()]);
    }
    step.run(samples, workspace, y);
    workspace[step.output] = output;
}
