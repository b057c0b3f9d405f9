//! One trial of a search, trained; and whether those of all settings could be.

use std::collections::HashSet;
use std::mem::discriminant;

use serde_json::json;

use super::{SearchError, TrialEnd, TrialTask, settings};
use crate::config::TrainConfig;
use crate::dataset::Dataset;
use crate::fit::{Ended, FitData, FitError, Observer, check, fit};

/// Whether a training of every setting could begin. Of settings that differ in nothing that decides it, the first is tried: a search may
/// have many rates, and few networks, starts and teachers.
///
/// # Errors
/// Settings that cannot be made; the first that could not be trained, by its name.
pub fn check_settings(config: &TrainConfig, data: FitData<'_>) -> Result<(), SearchError> {
    let mut tried = HashSet::new();
    for setting in settings(&config.search)? {
        let applied = setting.apply(config)?;
        let fit = &applied.train;
        let taught = (fit.targets.distillation > 0.0).then_some(&fit.targets.teachers);
        let decisive = json!([applied.device, fit.start, taught, applied.preprocessing, applied.network]).to_string();
        if tried.insert((decisive, discriminant(&fit.optimizer), fit.average_decay > 0.0)) {
            check(&applied, data).map_err(|error| {
                let (setting, detail) = (setting.name(), error.to_string());
                SearchError::Setting { setting, detail }
            })?;
        }
    }
    Ok(())
}

/// Trains a trial on the fold that it names. `indices` are those of the training split in `dataset`, in the order of the
/// labels that the search was given. Nothing is written. A loss that is no number is a result, not an error.
///
/// # Errors
/// Whatever else can end a training, see [`FitError`].
pub fn train_trial(
    task: &TrialTask<'_>,
    dataset: &Dataset,
    indices: &[usize],
    observer: &mut dyn Observer,
) -> Result<TrialEnd, FitError> {
    let pick = |positions: &[usize]| -> Vec<usize> { positions.iter().map(|&position| indices[position]).collect() };
    let (train, validation) = (pick(task.train), pick(task.validation));
    let data = FitData { dataset, train: &train, validation: &validation };
    match fit(task.config, data, None, None, observer) {
        Ok(fitted) if fitted.ended == Ended::Interrupted => Ok(TrialEnd::Interrupted),
        Ok(fitted) => Ok(TrialEnd::from_history(&fitted.history)),
        Err(error) if error.is_divergence() => Ok(TrialEnd::Diverged(error.to_string())),
        Err(error) => Err(error),
    }
}
