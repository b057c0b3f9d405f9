//! The images that a finished model's training held out.
//!
//! In: a bundle, and the data that it was trained on. Out: these data, with what validated in a split of its own. The parts are
//! made again as the bundle's facts say, and what was trained on has to be the same by its fingerprint.

use vultus::bundle::Bundle;

use crate::config::{DataConfig, TrainConfig};
use crate::dataset::Dataset;
use crate::facts::TrainingFacts;
use crate::prepare::{PrepareError, prepare};
use crate::validation::Validation;

/// Why the images that a training held out are not known.
#[derive(Debug, thiserror::Error)]
pub enum HeldOutError {
    /// The data cannot be prepared as they were for the training.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// The model's file lacks a fact of its training, or has it in another form.
    #[error(
        "the model's file does not say how its training split the data: its training has no {0} that is known here"
    )]
    NoFact(&'static str),
    /// Other data are split otherwise, and images that were trained on would seem to be held out.
    #[error(
        "the data are not what the model was trained on, so that nobody knows which of them it held out: give those, or name \
         a split of images that it did not learn from"
    )]
    OtherData,
    /// Everything was trained on.
    #[error("the training held no images out: its train.validation_fraction is 0")]
    Nothing,
}

/// The configuration of a model's training as far as its file tells it and the data's preparation asks for it, with
/// `sources` for the data.
///
/// # Errors
/// A fact that is not there, or unknown here.
pub fn configuration_of(
    bundle: &Bundle,
    facts: &TrainingFacts,
    sources: &[String],
) -> Result<TrainConfig, HeldOutError> {
    let mut config = TrainConfig {
        seed: facts.seed.ok_or(HeldOutError::NoFact("seed"))?,
        data: DataConfig {
            sources: sources.to_vec(),
            train_split: facts.train_split().to_owned(),
            labels: facts.labels,
            synthetic: facts.synthetic.clone().unwrap_or_default(),
            ..DataConfig::default()
        },
        preprocessing: bundle.preprocessing.clone(),
        cleaning: facts.cleaning_config().ok_or(HeldOutError::NoFact("cleaning"))?,
        network: bundle.network.clone(),
        ..TrainConfig::default()
    };
    config.train.validation_fraction = 0.0;
    match facts.validation().ok_or(HeldOutError::NoFact("train.validation_fraction"))? {
        Validation::Nothing => {}
        Validation::Split(split) => split.clone_into(&mut config.data.validation_split),
        Validation::Part { fraction, seed } => {
            (config.train.validation_fraction, config.train.validation_seed) = (fraction, seed);
        }
    }
    Ok(config)
}

/// The data of `config`, with the images that the training of a model with `facts` held out in a split of their own, and its
/// name.
///
/// # Errors
/// See [`HeldOutError`].
pub fn held_out(config: &TrainConfig, facts: &TrainingFacts) -> Result<(Dataset, String), HeldOutError> {
    if facts.data_sha256.is_none() {
        return Err(HeldOutError::NoFact("data_sha256"));
    }
    let prepared = prepare(config)?;
    if !facts.is_of(&prepared.dataset) {
        return Err(HeldOutError::OtherData);
    }
    prepared.with_validation_split().ok_or(HeldOutError::Nothing)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use vultus::inference::Inference;
    use vultus::labels::Labels;
    use vultus::preprocess::Preprocessing;
    use vultus::weights::Weights;

    use super::*;

    #[test]
    fn what_a_file_does_not_tell_is_named() {
        let config = TrainConfig::default();
        let mut bundle = Bundle {
            labels: Labels::new(["happy", "sad"]).unwrap(),
            preprocessing: Preprocessing::default(),
            network: config.network.clone(),
            weights: Weights::default(),
            inference: Inference::default(),
            training: Value::Null,
            metrics: Value::Null,
        };
        let configuration =
            |bundle: &Bundle| configuration_of(bundle, &TrainingFacts::of(bundle).unwrap(), &["synthetic".to_owned()]);
        let refusal = |bundle: &Bundle| configuration(bundle).unwrap_err().to_string();
        assert!(refusal(&bundle).contains("no seed that"));
        bundle.training = json!({ "seed": 7 });
        assert!(refusal(&bundle).contains("no cleaning that"));
        bundle.training = json!({ "seed": 7, "cleaning": { "blank": "perhaps" } });
        assert!(refusal(&bundle).contains("no cleaning that"));
        bundle.training = json!({ "seed": 7, "cleaning": config.cleaning, "train": {}, "synthetic": { "seed": 3 } });
        assert!(refusal(&bundle).contains("no train.validation_fraction that"));
        bundle.training["train"] = json!({ "validation_fraction": 0.25 });
        let found = configuration(&bundle).unwrap();
        assert_eq!((found.seed, found.train.validation_fraction, found.data.synthetic.seed), (7, 0.25, 3));
        bundle.training["validation_split"] = json!("mine");
        let split = configuration(&bundle).unwrap();
        assert_eq!((&split.data.validation_split[..], split.train.validation_fraction), ("mine", 0.0));
        bundle.training["validation_split"] = json!("");
        bundle.training["train"] = json!({ "validation_fraction": 0.0 });
        assert!(!configuration(&bundle).unwrap().validates());
        bundle.training["train"] = json!({ "validation_fraction": 0.25 });
        let refused = held_out(&found, &TrainingFacts::of(&bundle).unwrap()).unwrap_err().to_string();
        assert!(refused.contains("no data_sha256 that"), "{refused}");
    }
}
