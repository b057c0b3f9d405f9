//! Which checkpoints a training run goes on from.
//!
//! In: a configuration and its images. Out: the latest checkpoint of the run, if it is one of just this training.

use super::{FitData, FitError};
use crate::checkpoint::Checkpoint;
use crate::config::TrainConfig;
use crate::fingerprint::{file_fingerprint, fingerprint_of, votes_fingerprint};
use crate::run::RunDirectory;
use crate::targets::TeacherError;

/// Reads the run's latest checkpoint; `None` if it has none yet. A run that was killed between the two files of an epoch
/// has its best one later than its last.
///
/// # Errors
/// A damaged checkpoint, or one that does not fit the configuration and the data, with what differs.
pub fn resume_from(
    config: &TrainConfig,
    data: FitData<'_>,
    run: &RunDirectory,
) -> Result<Option<Checkpoint>, FitError> {
    let identity = identity(config, data)?;
    let mut latest: Option<Checkpoint> = None;
    for path in [run.last_checkpoint(), run.best_checkpoint()].into_iter().filter(|path| path.exists()) {
        let checkpoint = Checkpoint::load(&path, &identity)?;
        if latest.as_ref().is_none_or(|latest| latest.progress.updates < checkpoint.progress.updates) {
            latest = Some(checkpoint);
        }
    }
    Ok(latest)
}

/// What must be the same for a checkpoint to fit. Votes and teachers are in it where they have a share in the targets.
pub(super) fn identity(config: &TrainConfig, data: FitData<'_>) -> Result<String, FitError> {
    let images = || data.train.iter().chain(data.validation).copied();
    let mut identity = serde_json::json!({
        "labels": data.dataset.labels,
        "network": config.network.identity(),
        "optimizer": config.train.optimizer,
        "preprocessing": config.preprocessing,
        "seed": config.seed,
        "batch_size": config.train.batch_size,
        "data": fingerprint_of(data.dataset, images()),
        "images": [data.train.len(), data.validation.len()],
    });
    let targets = &config.train.targets;
    if targets.votes > 0.0 {
        identity["votes"] = votes_fingerprint(data.dataset, data.train.iter().copied()).into();
    }
    if targets.distillation > 0.0 {
        let teachers = targets.teachers.iter().map(|path| file_fingerprint(path.as_ref()));
        identity["teachers"] = teachers.collect::<std::io::Result<Vec<String>>>().map_err(TeacherError::from)?.into();
    }
    Ok(identity.to_string())
}
