//! Who watches the training loop, and may stop it.
//!
//! In: reports of steps and epochs. Out: nothing but the wish to stop. It shows nothing itself: progress bars are the
//! caller's.

use std::path::Path;

use crate::environment::Maker;
use crate::history::EpochRecord;
use crate::start::Start;

/// Where the loop is, for people who wait.
#[derive(Clone, Copy, Debug)]
pub struct StepReport {
    /// Epoch, from 1.
    pub epoch: usize,
    /// Epochs in all.
    pub epochs: usize,
    /// Steps done in this epoch.
    pub step: usize,
    /// Steps of an epoch.
    pub steps: usize,
    /// Mean loss of this epoch so far.
    pub loss: f64,
    /// Training accuracy of this epoch so far.
    pub accuracy: f64,
    /// Share of this epoch's time so far that was spent waiting for batches.
    pub wait_share: f64,
}

/// Watches a training run, and may stop it.
pub trait Observer {
    /// Asked before each step; `true` ends the run after a checkpoint.
    fn stop_requested(&self) -> bool {
        false
    }
    /// Before the first step of a run that begins with a model's weights.
    fn begins(&mut self, _start: &Start) {}
    /// Before the first step of a run that goes on, or went on, with another program or processor than it had begun with, all of
    /// them in order: it does not end as one that was never stopped.
    fn continues_elsewhere(&mut self, _makers: &[Maker]) {}
    /// After each step.
    fn step(&mut self, _report: &StepReport) {}
    /// After each epoch.
    fn epoch(&mut self, _record: &EpochRecord) {}
    /// Before an evaluation of this run is removed that is not made again: it is of an earlier model, or of other images.
    fn outdated(&mut self, _directory: &Path) {}
}

/// An observer that sees nothing and never stops.
#[derive(Debug, Default)]
pub struct Silent;

impl Observer for Silent {}
