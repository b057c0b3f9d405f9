//! Hyperparameter search by k-fold cross-validation.
//!
//! In: a configuration with a `[search]` table, the labels of the training images, and something that trains. Out: a
//! journal of trials, and a ranked table of settings. In order: [`space`] makes settings from axes, [`plan`] makes
//! trials from settings and folds, [`run_search`] runs those that the [`journal`] does not have yet, [`results`] ranks.
//! A search that was stopped or shared out ([`shard`]) goes on where its journals end, with the same result. It does
//! not train itself and never sees a test image.

pub mod config;
pub mod error;
pub mod journal;
pub mod plan;
pub mod results;
pub mod shard;
pub mod space;
pub mod trial;

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

pub use config::{Score, SearchConfig};
pub use error::SearchError;
use journal::{EpochScore, Journal, TrialRecord};
use plan::{Folds, PlannedSetting, SearchPlan};
pub use plan::{SearchData, Trial};
pub use results::{SearchResults, SearchTable};
pub use shard::Shard;
pub use space::{Setting, settings, winner_config};

use crate::config::TrainConfig;
use crate::history::EpochRecord;

/// One trial, ready to be trained.
#[derive(Clone, Copy, Debug)]
pub struct TrialTask<'a> {
    /// Which trial.
    pub trial: &'a Trial,
    /// Trials in all.
    pub trials: usize,
    /// Its setting.
    pub setting: &'a Setting,
    /// What to train; its seed is the fold's own.
    pub config: &'a TrainConfig,
    /// Positions in [`SearchData::labels`] that are trained on.
    pub train: &'a [usize],
    /// Positions in [`SearchData::labels`] that validate.
    pub validation: &'a [usize],
}

/// How a trial ended.
#[derive(Clone, Debug, PartialEq)]
pub enum TrialEnd {
    /// All epochs are done; at least one.
    Finished(Vec<EpochScore>),
    /// The loss became no number: a result, with its reason.
    Diverged(String),
    /// It was asked to stop; the trial will be run again.
    Interrupted,
}

impl TrialEnd {
    /// A finished trial from its training history. Epochs without a validation part are left out.
    pub fn from_history(history: &[EpochRecord]) -> Self {
        Self::Finished(history.iter().filter_map(EpochScore::of).collect())
    }
}

/// How much there is to do, told before the first trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedWork {
    /// Settings in all.
    pub settings: usize,
    /// Trials in all.
    pub trials: usize,
    /// Trials that the journals have.
    pub finished: usize,
    /// Trials that will run now: those of this shard that no journal has.
    pub missing: usize,
    /// Lines of the journals that belong to another configuration or other data.
    pub ignored: usize,
}

/// Trains the trials of a search.
pub trait TrialRunner {
    /// What can go wrong; it ends the search.
    type Error: Into<Box<dyn Error + Send + Sync>>;

    /// Trains one trial.
    ///
    /// # Errors
    /// Anything but a diverged training, which is a result.
    fn run(&mut self, task: &TrialTask<'_>) -> Result<TrialEnd, Self::Error>;

    /// Asked before each trial; `true` ends the search.
    fn stop_requested(&self) -> bool {
        false
    }

    /// Told once, before the first trial.
    ///
    /// # Errors
    /// What keeps the search from being described; no trial is run then.
    fn planned(&mut self, _work: PlannedWork) -> io::Result<()> {
        Ok(())
    }
}

/// Where a search stands when it returns.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchOutcome {
    /// The table.
    pub results: SearchResults,
    /// Whether it was stopped before its trials were done.
    pub interrupted: bool,
    /// Best setting of those with a score on every fold.
    leader: Option<Setting>,
}

impl SearchOutcome {
    /// The best setting of a complete search.
    ///
    /// # Errors
    /// Trials are missing, or every setting diverged.
    pub fn winner(&self) -> Result<&Setting, SearchError> {
        let SearchResults { trials, finished, .. } = self.results;
        if finished < trials {
            return Err(SearchError::Incomplete { missing: trials - finished, trials });
        }
        self.leader.as_ref().ok_or(SearchError::AllDiverged)
    }

    /// Writes the table and figure into `directory`, see [`SearchResults::write`].
    ///
    /// # Errors
    /// A failed write, which names the file.
    pub fn write_results(&self, directory: &Path) -> Result<Vec<PathBuf>, SearchError> {
        self.results.write(directory)
    }
}

/// Runs the trials of `shard` (all when `None`) that no journal in `directory` has, setting by setting and fold by
/// fold, and ranks what is known then.
///
/// # Errors
/// A search that cannot be made from the configuration and the data, a journal that cannot be used, or the error of a
/// trial. Trials finished before stay in the journal.
pub fn run_search<R: TrialRunner>(
    config: &TrainConfig,
    data: SearchData<'_>,
    directory: &Path,
    shard: Option<Shard>,
    runner: &mut R,
) -> Result<SearchOutcome, SearchError> {
    let plan = SearchPlan::new(config, data)?;
    let mut journal = Journal::open(directory, shard)?;
    runner.planned(work(&plan, &journal, shard))?;
    let interrupted = !run_missing(&plan, data, &mut journal, shard, runner)?;
    // Shards in the same directory may have finished theirs in the meantime.
    journal.refresh()?;
    let (results, order) = SearchResults::new(&config.search, &plan, &journal);
    let best = results.settings.first().filter(|row| row.mean.is_some()).and(order.first());
    let leader = best.map(|&index| plan.settings[index].setting.clone());
    Ok(SearchOutcome { results, interrupted, leader })
}

/// The trials of `shard` without a record.
fn missing<'a>(plan: &'a SearchPlan, journal: &Journal, shard: Option<Shard>) -> Vec<&'a Trial> {
    let ours = |trial: &&Trial| shard.is_none_or(|shard| shard.contains(trial.number));
    plan.trials.iter().filter(ours).filter(|trial| journal.get(&trial.key).is_none()).collect()
}

fn work(plan: &SearchPlan, journal: &Journal, shard: Option<Shard>) -> PlannedWork {
    PlannedWork {
        settings: plan.settings.len(),
        trials: plan.trials.len(),
        finished: plan.trials.iter().filter(|trial| journal.get(&trial.key).is_some()).count(),
        missing: missing(plan, journal, shard).len(),
        ignored: journal.foreign(plan.trials.iter().map(|trial| trial.key.as_str())),
    }
}

/// Whether all of them ran.
fn run_missing<R: TrialRunner>(
    plan: &SearchPlan,
    data: SearchData<'_>,
    journal: &mut Journal,
    shard: Option<Shard>,
    runner: &mut R,
) -> Result<bool, SearchError> {
    let mut folds = Folds::default();
    for trial in missing(plan, journal, shard) {
        // Two settings may come to the same configuration, and so to the same trial.
        if journal.get(&trial.key).is_some() {
            continue;
        }
        if runner.stop_requested() {
            return Ok(false);
        }
        let planned = &plan.settings[trial.setting];
        let config = planned.config_of_fold(trial.fold);
        let (train, validation) = folds.of(planned, trial.fold, data.labels)?;
        let setting = &planned.setting;
        let task = TrialTask { trial, trials: plan.trials.len(), setting, config: &config, train, validation };
        let started = Instant::now();
        let end = runner.run(&task).map_err(|error| failed(planned, trial, error.into()))?;
        let (epochs, diverged) = match judged(end) {
            TrialEnd::Interrupted => return Ok(false),
            TrialEnd::Diverged(reason) => (Vec::new(), Some(reason)),
            TrialEnd::Finished(epochs) if epochs.is_empty() => {
                return Err(failed(planned, trial, "it ended without a validated epoch".into()));
            }
            TrialEnd::Finished(epochs) => (epochs, None),
        };
        journal.append(TrialRecord {
            key: trial.key.clone(),
            setting: setting.to_json(),
            fold: trial.fold + 1,
            folds: trial.folds,
            seed: config.seed,
            epochs,
            diverged,
            seconds: started.elapsed().as_secs_f64(),
            images: train.len(),
        })?;
    }
    Ok(true)
}

/// A score that is no number means that the training diverged, even if nobody said so.
fn judged(end: TrialEnd) -> TrialEnd {
    let TrialEnd::Finished(epochs) = end else { return end };
    let bad = epochs.iter().position(|epoch| !(epoch.val_accuracy.is_finite() && epoch.val_loss.is_finite()));
    match bad {
        Some(index) => TrialEnd::Diverged(format!(
            "the validation loss is {} and the accuracy {} in epoch {}",
            epochs[index].val_loss,
            epochs[index].val_accuracy,
            index + 1
        )),
        None => TrialEnd::Finished(epochs),
    }
}

fn failed(planned: &PlannedSetting, trial: &Trial, source: Box<dyn Error + Send + Sync>) -> SearchError {
    SearchError::Trial { setting: planned.setting.name(), fold: trial.fold + 1, folds: trial.folds, source }
}

#[cfg(test)]
mod tests;
