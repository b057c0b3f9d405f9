//! One trial of a search, trained.

use super::{TrialEnd, TrialTask};
use crate::dataset::Dataset;
use crate::fit::{Ended, FitData, FitError, Observer, fit};

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
