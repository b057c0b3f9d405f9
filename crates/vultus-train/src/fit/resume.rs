//! Which checkpoints a training run goes on from.
//!
//! In: a configuration and its images. Out: the latest checkpoint of the run, if it is one of just this training.

use serde_json::{Map, Value, json};

use super::{FitData, FitError};
use crate::checkpoint::{Checkpoint, SETTINGS};
use crate::config::{FitConfig, TrainConfig};
use crate::fingerprint::{file_fingerprint, fingerprint_of, votes_fingerprint};
use crate::run::RunDirectory;
use crate::targets::TeacherError;

/// Reads the run's latest checkpoint; `None` if it has none yet. A run that was killed between the two files of an epoch
/// has its best one later than its last.
///
/// # Errors
/// A damaged checkpoint, or one that does not fit the configuration and the data, with what differs; one of more epochs than the
/// configuration has, the one that has begun included.
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
    if let Some(Checkpoint { progress, .. }) = &latest {
        let begun = progress.epoch + usize::from(progress.step > 0);
        if begun > config.train.epochs {
            return Err(FitError::Begun(begun));
        }
    }
    Ok(latest)
}

/// The keys that keep a run of the configuration `saved` from going on with `config`, and their new values. The number of
/// epochs, the one that is kept and the minutes between checkpoints may change, and so may the places of the images and the
/// teachers: [`resume_from`] asks for the same contents.
pub fn obstacles(saved: &TrainConfig, config: &TrainConfig) -> Vec<(String, String)> {
    let mut allowed = config.clone();
    allowed.data.sources.clone_from(&saved.data.sources);
    allowed.train.epochs = saved.train.epochs;
    // Both checkpoints are kept anyway: it only decides which of them becomes the model.
    allowed.train.keep = saved.train.keep;
    allowed.train.checkpoint_minutes = saved.train.checkpoint_minutes;
    allowed.train.targets.teachers.clone_from(&saved.train.targets.teachers);
    let changes = saved.changes_to(&allowed);
    debug_assert_eq!(changes.is_empty(), *saved == allowed, "{changes:?}");
    changes
}

/// Settings of `train` that may be others when a run goes on, and those that stand elsewhere in its identity.
const APART: [&str; 6] = ["start", "epochs", "keep", "checkpoint_minutes", "batch_size", "optimizer"];

/// What must be the same for a checkpoint to fit. Votes and teachers are in it where they have a share in the targets.
pub(super) fn identity(config: &TrainConfig, data: FitData<'_>) -> Result<String, FitError> {
    let images = || data.train.iter().chain(data.validation).copied();
    let mut identity = json!({
        "labels": data.dataset.labels,
        "network": config.network.identity(),
        "optimizer": config.train.optimizer,
        "preprocessing": config.preprocessing,
        "seed": config.seed,
        "batch_size": config.train.batch_size,
        "data": fingerprint_of(data.dataset, images()),
        "images": [data.train.len(), data.validation.len()],
    });
    identity[SETTINGS] = settings(&config.train).into();
    let targets = &config.train.targets;
    if targets.keys_of_votes().next().is_some() {
        identity["votes"] = votes_fingerprint(data.dataset, data.train.iter().copied()).into();
    }
    if targets.distillation > 0.0 {
        let teachers = targets.teachers.iter().map(|path| file_fingerprint(path.as_ref()));
        identity["teachers"] = teachers.collect::<std::io::Result<Vec<String>>>().map_err(TeacherError::from)?.into();
    }
    Ok(identity.to_string())
}

/// What of `train` decides a run and is not as by default: a setting that a later version brings changes no identity.
fn settings(train: &FitConfig) -> Map<String, Value> {
    let decisive = |train: &FitConfig| match json!(train) {
        Value::Object(settings) => settings.into_iter().filter(|(key, _)| !APART.contains(&key.as_str())).collect(),
        _ => Map::new(),
    };
    let mut train = train.clone();
    // Their contents count, not where they lie.
    train.targets.teachers.clear();
    changed(decisive(&train), &decisive(&FitConfig::default()))
}

/// The keys, at any depth, whose values are not those of `defaults`.
fn changed(settings: Map<String, Value>, defaults: &Map<String, Value>) -> Map<String, Value> {
    let differing = settings.into_iter().filter_map(|(key, value)| match (value, defaults.get(&key)) {
        (Value::Object(inner), Some(Value::Object(defaults))) => {
            let inner = changed(inner, defaults);
            (!inner.is_empty()).then(|| (key, inner.into()))
        }
        (value, default) => (default != Some(&value)).then_some((key, value)),
    });
    differing.collect()
}
