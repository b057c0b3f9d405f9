//! What a model's file tells of its training.
//!
//! In: a bundle. Out: the facts that `train` and `calibrate` put there, for whoever evaluates, describes or continues the
//! model. Files of other programs and of earlier versions lack some, or all.

use std::collections::BTreeSet;
use std::path::Path;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use vultus::bundle::{Bundle, BundleError, BundleFault};

use crate::clean::CleaningConfig;
use crate::config::LabelSource;
use crate::dataset::{Dataset, split_name};
use crate::environment::Maker;
use crate::fingerprint::{fingerprint, images_fingerprint, pixels_fingerprint, split_fingerprint};
use crate::fit::Ended;
use crate::source::synthetic::SyntheticConfig;
use crate::validation::{Validation, held_out_split};

/// Facts about a training. One that has a form which is unknown here, as in the file of another program, counts as none;
/// labels that are unknown are refused, because a comparison with others would mislead.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrainingFacts {
    /// Version of the program.
    #[serde(deserialize_with = "if_known")]
    pub version: Option<String>,
    /// Git revision that it was built from.
    #[serde(deserialize_with = "if_known")]
    pub revision: Option<String>,
    /// Seed of the run.
    #[serde(deserialize_with = "if_known")]
    pub seed: Option<u64>,
    /// SHA-256 of labels, pixels, classes and splits after cleaning.
    #[serde(deserialize_with = "if_known")]
    pub data_sha256: Option<String>,
    /// SHA-256 of the training split alone.
    #[serde(deserialize_with = "if_known")]
    pub train_sha256: Option<String>,
    /// Operating system and processor architecture.
    #[serde(deserialize_with = "if_known")]
    pub platform: Option<String>,
    /// Name of the processor.
    #[serde(deserialize_with = "if_known")]
    pub processor: Option<String>,
    /// Instructions that the kernels used.
    #[serde(deserialize_with = "if_known")]
    pub instructions: Option<String>,
    /// What it went on with, where that was not what it had begun with.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "if_known")]
    pub continued_with: Vec<Maker>,
    /// Threads that shared the work.
    #[serde(deserialize_with = "if_known")]
    pub threads: Option<usize>,
    /// When it began, in seconds since 1970 (UTC).
    #[serde(deserialize_with = "if_known")]
    pub started: Option<u64>,
    /// Names of the sources, without their folders.
    #[serde(deserialize_with = "if_known")]
    pub sources: Vec<String>,
    /// `data.synthetic` of the configuration, where faces were drawn; a count in the source's name goes before its counts.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "if_known")]
    pub synthetic: Option<SyntheticConfig>,
    /// The split that was learnt from.
    #[serde(deserialize_with = "if_known")]
    pub train_split: Option<String>,
    /// The split that validated; empty where a part of the training split did.
    #[serde(deserialize_with = "if_known")]
    pub validation_split: Option<String>,
    /// Models that it began with or learnt from and that may have learnt the images that validated, by their names.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "if_known")]
    pub validation_known_to: Vec<String>,
    /// SHA-256 of the images of each training that led to the model, with those that it held out: its own, and those of models
    /// that it began with or learnt from, see [`pixels_fingerprint`].
    #[serde(skip_serializing_if = "BTreeSet::is_empty", deserialize_with = "if_known")]
    pub learnt_sha256: BTreeSet<String>,
    /// How many images there were.
    #[serde(deserialize_with = "if_known")]
    pub images: Option<ImageCounts>,
    /// Whose labels were learnt.
    #[serde(deserialize_with = "known_labels")]
    pub labels: LabelSource,
    /// What was left out: `cleaning` of the configuration.
    pub cleaning: Value,
    /// Classes that cleaning left out, by name or for lack of images.
    #[serde(deserialize_with = "if_known")]
    pub dropped_classes: Vec<String>,
    /// `train` of the configuration.
    pub train: Value,
    /// Why it ended.
    #[serde(deserialize_with = "if_known")]
    pub ended: Option<Ended>,
    /// Epochs that were trained.
    #[serde(deserialize_with = "if_known")]
    pub epochs: Option<usize>,
    /// The epoch whose weights the model has, from 1.
    #[serde(deserialize_with = "if_known")]
    pub epoch: Option<usize>,
    /// What selected it, in words.
    #[serde(deserialize_with = "if_known")]
    pub selection: Option<String>,
    /// That epoch's line of `metrics.jsonl`.
    pub record: Value,
    /// Seconds that the epochs took.
    #[serde(deserialize_with = "if_known")]
    pub seconds: f64,
    /// The images that chose views and temperature after the training, if any did.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "if_known")]
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
    /// SHA-256 of its images that counted, and their classes, see [`images_fingerprint`].
    pub data_sha256: Option<String>,
}

/// What a split did for a model, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SplitRole {
    /// It was learnt from.
    Learnt,
    /// It validated: it chose the epoch, where one was chosen.
    Validated,
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
    /// Labels that are unknown here.
    pub fn of(bundle: &Bundle) -> Result<Self, BundleFault> {
        if bundle.training.is_object() { bundle.training_as() } else { Ok(Self::default()) }
    }

    /// The split that was learnt from, by its usual name where nothing is known.
    pub fn train_split(&self) -> &str {
        self.train_split.as_deref().unwrap_or(split_name::TRAIN)
    }

    /// Whether `split` of `dataset`, of which the samples at `images` count, chose the temperature: the images that did so after the
    /// training, or, if none did, the split that is called like the one that validated.
    pub fn chose_temperature(&self, dataset: &Dataset, split: &str, images: &[usize]) -> bool {
        match &self.calibration {
            None => self.role_of(split) == Some(SplitRole::Validated),
            Some(CalibrationFacts { data_sha256, .. }) => {
                // Models of earlier revisions name all images of the split, some in their order.
                let all = || images_fingerprint(dataset, &dataset.indices_of(split));
                data_sha256.as_ref().is_some_and(|known| {
                    *known == images_fingerprint(dataset, images)
                        || *known == all()
                        || *known == split_fingerprint(dataset, split)
                })
            }
        }
    }

    /// Whether the samples at `images`, all of them and no other, are those of a training that led to the model, whatever their
    /// split was called there.
    pub fn has_learnt(&self, dataset: &Dataset, images: &[usize]) -> bool {
        !self.learnt_sha256.is_empty() && self.learnt_sha256.contains(&pixels_fingerprint(dataset, images))
    }

    /// Whether images of a split of this name chose the temperature after the training; others may have it, too.
    pub fn calibrated_on(&self, split: &str) -> bool {
        self.calibration.as_ref().is_some_and(|calibration| calibration.split == split)
    }

    /// What the split that is called `split` did for the model; `None` where nothing is known of it. Other data may have a split
    /// of that name, too.
    pub fn role_of(&self, split: &str) -> Option<SplitRole> {
        if self.train_split.as_deref() == Some(split) {
            return Some(SplitRole::Learnt);
        }
        let validated = match self.validation_split.as_deref() {
            Some(name) if !self.validates_by_part() => split == name,
            _ => split == held_out_split(self.train_split()),
        };
        validated.then_some(SplitRole::Validated)
    }

    /// What was left out, if it is told in words of today.
    pub fn cleaning_config(&self) -> Option<CleaningConfig> {
        Option::deserialize(&self.cleaning).ok().flatten()
    }

    /// Whether training images that also stand in another split were left out.
    pub fn drops_leaks(&self) -> bool {
        self.cleaning["leaks"] == "drop"
    }

    /// Whether training began with the weights of another model.
    pub fn began_with_model(&self) -> bool {
        self.train["start"].as_str().is_some_and(|start| !start.is_empty())
    }

    /// Whether other models are named as its teachers.
    pub fn has_teachers(&self) -> bool {
        self.train["targets"]["teachers"].as_array().is_some_and(|teachers| !teachers.is_empty())
    }

    /// Whether a part of the training split validated, if anything did; where nothing is known, so it was.
    pub fn validates_by_part(&self) -> bool {
        self.validation_split.as_ref().is_none_or(String::is_empty)
    }

    /// Which images validated; `None` where it is not known.
    pub fn validation(&self) -> Option<Validation<'_>> {
        let split = self.validation_split.as_deref().unwrap_or_default();
        if !split.is_empty() {
            return Some(Validation::Split(split));
        }
        let seed = self.train["validation_seed"].as_u64().filter(|&seed| seed > 0).or(self.seed)?;
        Some(Validation::new("", self.train["validation_fraction"].as_f64()?, seed))
    }

    /// Whether both trainings are known to have held out the same images of the same data.
    pub fn held_out_as(&self, other: &Self) -> bool {
        let same = |one: &Option<String>, other: &Option<String>| one.is_some() && one == other;
        // Which other images there were decides nothing about a part of those that were trained on.
        let same_data = same(&self.data_sha256, &other.data_sha256)
            || self.validates_by_part() && same(&self.train_sha256, &other.train_sha256);
        let same_part = self.validation().is_some() && self.validation() == other.validation();
        same_data && same_part && self.train_split() == other.train_split()
    }

    /// Whether `dataset`, cleaned as for the training, has what the training knew of its images: the split that was learnt from
    /// and what validated.
    pub fn is_of(&self, dataset: &Dataset) -> bool {
        match (&self.train_sha256, &self.data_sha256) {
            (Some(learnt), _) if self.validates_by_part() => *learnt == split_fingerprint(dataset, self.train_split()),
            (_, all) => all.as_ref() == Some(&fingerprint(dataset)),
        }
    }
}

/// A fact, or none where its form is unknown.
fn if_known<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(fact: D) -> Result<T, D::Error> {
    Ok(T::deserialize(Value::deserialize(fact)?).unwrap_or_default())
}

fn known_labels<'de, D: Deserializer<'de>>(fact: D) -> Result<LabelSource, D::Error> {
    let labels = Value::deserialize(fact)?;
    LabelSource::deserialize(&labels)
        .map_err(|_| D::Error::custom(format!("labels {labels} are not known to this version of vultus")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use vultus::inference::Inference;
    use vultus::labels::Labels;
    use vultus::network::NetworkConfig;
    use vultus::preprocess::Preprocessing;
    use vultus::weights::Weights;

    use super::*;

    fn of(training: Value) -> Result<TrainingFacts, BundleFault> {
        TrainingFacts::of(&Bundle {
            labels: Labels::new(["happy", "sad"]).unwrap(),
            preprocessing: Preprocessing::default(),
            network: NetworkConfig { layers: Vec::new() },
            weights: Weights::default(),
            inference: Inference::default(),
            training,
            metrics: Value::Null,
        })
    }

    #[test]
    fn what_is_written_is_read_again() {
        let calibration = CalibrationFacts { split: "mine".to_owned(), images: 5, data_sha256: Some("ab".to_owned()) };
        let facts = TrainingFacts {
            seed: Some(7),
            sources: vec!["faces".to_owned()],
            synthetic: Some(SyntheticConfig { seed: 3, ..SyntheticConfig::default() }),
            images: Some(ImageCounts { train: 9, validation: 2 }),
            labels: LabelSource::Ferplus,
            train: json!({ "validation_fraction": 0.25 }),
            ended: Some(Ended::StoppedEarly),
            seconds: 1.5,
            calibration: Some(calibration),
            ..TrainingFacts::default()
        };
        assert_eq!(of(json!(facts)).unwrap(), facts);
        assert_eq!(facts.validation(), Some(Validation::Part { fraction: 0.25, seed: 7 }));
        assert_eq!(json!(TrainingFacts::default()).get("synthetic"), None);
    }

    #[test]
    fn what_validated_is_known_only_if_all_of_it_is() {
        let known = |facts: Value| of(facts).unwrap().validation().map(|validation| format!("{validation:?}"));
        let part = json!({ "validation_fraction": 0.25 });
        assert_eq!(known(json!({ "train": part })), None);
        assert_eq!(known(json!({ "seed": 7 })), None);
        assert_eq!(known(json!({ "seed": 7, "train": part })).unwrap(), "Part { fraction: 0.25, seed: 7 }");
        assert_eq!(known(json!({ "seed": 7, "train": { "validation_fraction": 0.0 } })).unwrap(), "Nothing");
        assert_eq!(known(json!({ "validation_split": "mine", "train": part })).unwrap(), "Split(\"mine\")");
    }

    #[test]
    fn trainings_hold_out_the_same_images_by_part_and_data() {
        let training = |key: &str, images: &str, seed: u64, split: &str| {
            let train = json!({ "validation_fraction": 0.25 });
            of(json!({ key: images, "seed": seed, "validation_split": split, "train": train })).unwrap()
        };
        let first = training("train_sha256", "a", 7, "");
        assert!(first.held_out_as(&training("train_sha256", "a", 7, "")));
        for other in [
            training("train_sha256", "b", 7, ""),
            training("train_sha256", "a", 8, ""),
            training("train_sha256", "a", 7, "mine"),
            training("data_sha256", "a", 7, ""),
        ] {
            assert!(!first.held_out_as(&other), "{other:?}");
        }
        // Of a split of their own, all data have to be the same, and no seed.
        let mine = |key: &str, seed: u64| training(key, "a", seed, "mine");
        assert!(mine("data_sha256", 7).held_out_as(&mine("data_sha256", 8)));
        assert!(!mine("train_sha256", 7).held_out_as(&mine("train_sha256", 7)));
        assert!(!of(json!({ "train_sha256": "a" })).unwrap().held_out_as(&of(json!({ "train_sha256": "a" })).unwrap()));
    }

    #[test]
    fn a_file_of_another_program_tells_little() {
        for training in [json!(null), json!({}), json!("by hand"), json!(3)] {
            assert_eq!(of(training).unwrap(), TrainingFacts::default());
        }
        let facts =
            of(json!({ "seed": "one", "threads": 2.5, "sources": null, "ended": "bored", "epoch": 4, "by": "me",
            "images": { "train": 3 }, "synthetic": { "hats": true } }));
        assert_eq!(facts.unwrap(), TrainingFacts { epoch: Some(4), ..TrainingFacts::default() });
        let message = of(json!({ "labels": "crowd" })).unwrap_err().to_string();
        assert!(message.ends_with("labels \"crowd\" are not known to this version of vultus"), "{message}");
    }
}
