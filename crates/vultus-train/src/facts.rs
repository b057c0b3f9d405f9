//! What a model's file tells of its training.
//!
//! In: a bundle. Out: the facts that `train` and `calibrate` put there, for whoever evaluates, describes or continues the
//! model. Files of other programs and of earlier versions lack some, or all.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use vultus::bundle::{Bundle, BundleError, BundleFault};

use crate::config::LabelSource;
use crate::dataset::split_name;
use crate::fit::Ended;
use crate::source::synthetic::SyntheticConfig;

/// Facts about a training. Settings that are only shown are kept as they were written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrainingFacts {
    /// Version of the program.
    pub version: Option<String>,
    /// Git revision that it was built from.
    pub revision: Option<String>,
    /// Seed of the run.
    pub seed: Option<u64>,
    /// SHA-256 of labels, pixels, classes and splits after cleaning.
    pub data_sha256: Option<String>,
    /// SHA-256 of the training split alone.
    pub train_sha256: Option<String>,
    /// Operating system and processor architecture.
    pub platform: Option<String>,
    /// Name of the processor.
    pub processor: Option<String>,
    /// Instructions that the kernels used.
    pub instructions: Option<String>,
    /// Threads that shared the work.
    pub threads: Option<usize>,
    /// When it began, in seconds since 1970 (UTC).
    pub started: Option<u64>,
    /// Names of the sources, without their folders.
    pub sources: Vec<String>,
    /// What was drawn, where faces were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub synthetic: Option<SyntheticConfig>,
    /// The split that was learnt from.
    pub train_split: Option<String>,
    /// The split that validated; none where a part of the training split did.
    pub validation_split: Option<String>,
    /// How many images there were.
    pub images: Option<ImageCounts>,
    /// Whose labels were learnt.
    pub labels: LabelSource,
    /// What was left out: `cleaning` of the configuration.
    pub cleaning: Value,
    /// Classes that cleaning left out, by name or for lack of images.
    pub dropped_classes: Vec<String>,
    /// `train` of the configuration.
    pub train: Value,
    /// Why it ended.
    pub ended: Option<Ended>,
    /// Epochs that were trained.
    pub epochs: Option<usize>,
    /// The epoch whose weights the model has, from 1.
    pub epoch: Option<usize>,
    /// What selected it, in words.
    pub selection: Option<String>,
    /// That epoch's line of `metrics.jsonl`.
    pub record: Value,
    /// Seconds that the epochs took.
    pub seconds: f64,
    /// The images that chose views and temperature after the training, if any did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration: Option<CalibrationFacts>,
}

/// Images of a training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageCounts {
    /// Learnt from.
    pub train: usize,
    /// Held out for validation.
    pub validation: usize,
}

/// What a model was calibrated with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CalibrationFacts {
    /// Name of the split.
    pub split: String,
    /// Number of its images.
    pub images: usize,
    /// SHA-256 of its images and labels.
    #[serde(default)]
    pub data_sha256: Option<String>,
}

/// The model at `path`, and what it tells of its training.
///
/// # Errors
/// A file that is no model, or tells something that is unknown here.
pub fn load_with_facts(path: &Path) -> Result<(Bundle, TrainingFacts), BundleError> {
    let bundle = Bundle::load(path)?;
    let facts = TrainingFacts::of(&bundle).map_err(|fault| BundleError::Unusable { path: path.to_owned(), fault })?;
    Ok((bundle, facts))
}

impl TrainingFacts {
    /// The facts in `bundle`.
    ///
    /// # Errors
    /// A fact in a form that is unknown here, as of a newer version.
    pub fn of(bundle: &Bundle) -> Result<Self, BundleFault> {
        Ok(bundle.training_as::<Option<Self>>()?.unwrap_or_default())
    }

    /// The split that was learnt from, by its usual name where nothing is known.
    pub fn train_split(&self) -> &str {
        self.train_split.as_deref().unwrap_or(split_name::TRAIN)
    }

    /// The part of the training split that validated, if a part of it did.
    pub fn validation_fraction(&self) -> Option<f64> {
        let whole_split = self.validation_split.as_ref().is_some_and(|name| !name.is_empty());
        self.train["validation_fraction"].as_f64().filter(|_| !whole_split)
    }
}
