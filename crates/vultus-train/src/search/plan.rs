//! From settings to trials: one for each setting and fold, each with a key that says what it is.
//!
//! In: a configuration and the labels of the training images. Out: the trials in the order in which they run, checked
//! as far as possible before hours are spent. It trains nothing.

use serde_json::json;
use sha2::{Digest, Sha256};
use vultus::inference::Views;
use vultus::labels::Labels;

use super::config::SearchConfig;
use super::error::SearchError;
use super::space::{Setting, settings};
use crate::config::{DataConfig, FitConfig, LabelSource, TrainConfig};
use crate::fingerprint::{file_fingerprint, hexadecimal};
use crate::seed::{derive_seed, purpose};
use crate::split::stratified_folds;

/// Goes up when the meaning of a trial changes, so that old results are not taken for new ones.
const KEY_VERSION: u32 = 2;

/// Folds of one search at most.
const MAXIMUM_FOLDS: usize = 1000;

/// The images that are searched on: the training split, and nothing of a test split.
#[derive(Clone, Copy, Debug)]
pub struct SearchData<'a> {
    /// Class names.
    pub names: &'a Labels,
    /// Class of each training image; trials get positions in this list.
    pub labels: &'a [usize],
    /// Equal exactly for equal data, such as [`fingerprint`](crate::fingerprint::fingerprint).
    pub fingerprint: &'a str,
    /// Equal exactly for equal votes, such as [`votes_fingerprint`](crate::fingerprint::votes_fingerprint).
    pub votes: &'a str,
}

/// One setting on one fold.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// Position among all trials, from 0.
    pub number: usize,
    /// Position of its setting, from 0.
    pub setting: usize,
    /// The fold that validates, from 0.
    pub fold: usize,
    /// Folds of its setting.
    pub folds: usize,
    /// Names the trial by everything that its result depends on: 16 hexadecimal digits.
    pub key: String,
}

/// A setting with its configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedSetting {
    /// The values.
    pub setting: Setting,
    /// What trains it; without a search.
    pub config: TrainConfig,
    /// Number of folds.
    pub folds: usize,
    /// Seed of the folds.
    pub fold_seed: u64,
}

impl PlannedSetting {
    /// The configuration for one fold (from 0): each has its own seed, the same in every setting.
    pub fn config_of_fold(&self, fold: usize) -> TrainConfig {
        // TOML has signed integers only.
        TrainConfig { seed: derive_seed(self.config.seed, &[purpose::TRIAL, fold as u64]) >> 1, ..self.config.clone() }
    }

    /// What the results of the setting's trials depend on, beside fold and data.
    fn identity(&self) -> Result<serde_json::Value, SearchError> {
        let mut config = self.config.clone();
        // What says where the images came from is replaced by what they are; what does nothing here is left out.
        let unused = FitConfig::default();
        config.data = DataConfig::default();
        config.cleaning = Default::default();
        config.train.validation_fraction = unused.validation_fraction;
        config.train.validation_seed = unused.validation_seed;
        config.train.keep = unused.keep;
        config.train.checkpoint_minutes = unused.checkpoint_minutes;
        config.views = Views::default();
        // Models that a trial begins with or learns from are what is in their files.
        if config.train.targets.distillation == 0.0 {
            config.train.targets.teachers.clear();
        }
        let start = (!config.train.start.is_empty()).then_some(&mut config.train.start);
        for model in start.into_iter().chain(&mut config.train.targets.teachers) {
            *model = file_fingerprint(model.as_ref())?;
        }
        let as_json = |config: &TrainConfig| serde_json::to_value(config).map_err(std::io::Error::from);
        let mut json = as_json(&config)?;
        // A key that came to the format later changes no older trial.
        without_defaults(&mut json, &as_json(&TrainConfig::default())?);
        json["network"] = config.network.identity();
        Ok(json)
    }

    fn key(&self, identity: &serde_json::Value, fold: usize, data: SearchData<'_>) -> String {
        let mut trial = json!({
            "version": KEY_VERSION,
            "config": identity,
            "fold": fold,
            "folds": self.folds,
            "fold_seed": self.fold_seed,
            "data": data.fingerprint,
        });
        if self.config.train.targets.keys_of_votes().next().is_some() {
            trial["votes"] = json!(data.votes);
            // They decide what a vote means.
            if self.config.data.labels != LabelSource::Own {
                trial["labels"] = json!(self.config.data.labels);
            }
        }
        // Since images are changed by their place in their split, and class weights stay with their part of a mixture.
        if self.config.train.augmentation.strengths().iter().any(|(_, strength)| *strength > 0.0) {
            trial["changes"] = json!(2);
        }
        let hash = Sha256::digest(trial.to_string().as_bytes());
        hexadecimal(&hash[..8])
    }
}

/// Takes out of an object what is the same in `defaults`.
fn without_defaults(value: &mut serde_json::Value, defaults: &serde_json::Value) {
    if let (Some(map), Some(defaults)) = (value.as_object_mut(), defaults.as_object()) {
        map.retain(|key, value| defaults.get(key) != Some(value));
        // What the defaults do not have, as a setting of another optimiser, stays whole.
        for (key, value) in map {
            defaults.get(key).into_iter().for_each(|default| without_defaults(value, default));
        }
    }
}

/// All that a search will do.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchPlan {
    /// In order.
    pub settings: Vec<PlannedSetting>,
    /// Setting by setting, its folds in order.
    pub trials: Vec<Trial>,
}

impl SearchPlan {
    /// Makes and checks every setting and trial.
    ///
    /// # Errors
    /// Axes that cannot be used, a setting whose configuration or network is not valid, a class with fewer images than
    /// folds.
    pub fn new(config: &TrainConfig, data: SearchData<'_>) -> Result<Self, SearchError> {
        let count = |class: usize| data.labels.iter().filter(|&&label| label == class).count();
        let counts: Vec<usize> = (0..data.names.len()).map(count).collect();
        let mut plan = Self { settings: Vec::new(), trials: Vec::new() };
        for (index, setting) in settings(&config.search)?.into_iter().enumerate() {
            let planned = planned(config, setting)?;
            check(&planned, data.names, &counts)?;
            let identity = planned.identity()?;
            for fold in 0..planned.folds {
                let key = planned.key(&identity, fold, data);
                let number = plan.trials.len();
                plan.trials.push(Trial { number, setting: index, fold, folds: planned.folds, key });
            }
            plan.settings.push(planned);
        }
        Ok(plan)
    }
}

fn planned(config: &TrainConfig, setting: Setting) -> Result<PlannedSetting, SearchError> {
    let applied = setting.apply(config)?;
    let SearchConfig { folds, seed, .. } = applied.search;
    Ok(PlannedSetting {
        config: TrainConfig { search: SearchConfig::default(), ..applied },
        setting,
        folds,
        fold_seed: seed,
    })
}

/// `counts` are the training images of each class.
fn check(planned: &PlannedSetting, names: &Labels, counts: &[usize]) -> Result<(), SearchError> {
    let folds = planned.folds;
    if !(2..=MAXIMUM_FOLDS).contains(&folds) {
        return Err(SearchError::Value { key: "folds", value: folds.to_string(), expected: "use 2 to 1000" });
    }
    if let Some((class, &count)) = names.names().iter().zip(counts).find(|&(_, &count)| count < folds) {
        return Err(SearchError::SmallClass { class: class.clone(), count, folds });
    }
    let PlannedSetting { config, setting, .. } = planned;
    let (height, width) = (config.preprocessing.height as usize, config.preprocessing.width as usize);
    match config.network.resolve(height, width, names.len()) {
        Ok(_) => Ok(()),
        Err(error) => Err(SearchError::Setting { setting: setting.name(), detail: error.to_string() }),
    }
}

/// Training and validation positions of the fold last asked for, so that the folds of a setting are split once.
#[derive(Debug, Default)]
pub(super) struct Folds {
    folds: usize,
    seed: u64,
    parts: Vec<(Vec<usize>, Vec<usize>)>,
}

impl Folds {
    /// Positions that train and positions that validate in `fold` of `planned`.
    pub(super) fn of(
        &mut self,
        planned: &PlannedSetting,
        fold: usize,
        labels: &[usize],
    ) -> Result<(&[usize], &[usize]), SearchError> {
        let (folds, seed) = (planned.folds, planned.fold_seed);
        let failed = |detail: String| SearchError::Folds { folds, detail };
        if self.parts.is_empty() || (self.folds, self.seed) != (folds, seed) {
            let parts = stratified_folds(labels, folds, seed).map_err(|error| failed(error.to_string()))?;
            *self = Self { folds, seed, parts };
        }
        let part = self.parts.get(fold).ok_or_else(|| failed(format!("there is no fold {}", fold + 1)))?;
        Ok((&part.0, &part.1))
    }
}
