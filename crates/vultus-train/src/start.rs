//! Weights that training begins with.
//!
//! In: a network and a seed, or a finished model. Out: a tensor for every parameter: fresh ones by
//! [`initial_weights`], and from the model those that have a name and a shape of the network's. The head comes along only
//! if it answers the same classes in the same order.

use std::path::PathBuf;

use vultus::bundle::{Bundle, BundleError};
use vultus::labels::Labels;
use vultus::network::ResolvedNetwork;
use vultus::preprocess::Preprocessing;
use vultus::weights::Weights;

use crate::config::in_toml;
use crate::model::initial_weights;

/// What a run began with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// The model's file.
    pub path: String,
    /// Tensors taken from it.
    pub taken: usize,
    /// Tensors of the network.
    pub tensors: usize,
}

/// A model that is no start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It cannot be read.
    #[error("train.start: {0}")]
    Bundle(Box<BundleError>),
    /// Its weights belong to other numbers.
    #[error("train.start: {path} has preprocessing.pixels = {found}: train with the same")]
    Pixels {
        /// The model's file.
        path: String,
        /// How it sees pixels.
        found: String,
    },
    /// It is another network.
    #[error("train.start: no tensor of {path} has a name and a shape of the network to be trained")]
    Nothing {
        /// The model's file.
        path: String,
    },
}

/// The model that training begins with; `None` where none is named.
///
/// # Errors
/// A file that is no model, or a model that sees pixels as other numbers.
pub fn model(path: &str, preprocessing: &Preprocessing) -> Result<Option<Bundle>, StartError> {
    if path.is_empty() {
        return Ok(None);
    }
    let bundle = Bundle::load(&PathBuf::from(path)).map_err(|error| StartError::Bundle(Box::new(error)))?;
    let pixels = bundle.preprocessing.pixels;
    if pixels != preprocessing.pixels {
        return Err(StartError::Pixels { path: path.to_owned(), found: in_toml(&pixels) });
    }
    Ok(Some(bundle))
}

/// Weights for `network`, whose answer is `labels`: fresh, or as far as possible those of the [`model`] at `path`.
///
/// # Errors
/// As [`model`], or a model without a tensor that fits.
pub fn starting_weights(
    path: &str,
    preprocessing: &Preprocessing,
    network: &ResolvedNetwork,
    labels: &Labels,
    seed: u64,
) -> Result<(Weights, Option<Start>), StartError> {
    let mut weights = initial_weights(network, seed);
    let Some(bundle) = model(path, preprocessing)? else { return Ok((weights, None)) };
    let head_of = |network: &ResolvedNetwork| -> Vec<String> {
        let head = network.layers.last();
        head.into_iter().flat_map(|layer| &layer.parameters).map(|spec| spec.name.clone()).collect()
    };
    let same_answer = bundle.labels == *labels;
    let (ours, theirs) = (head_of(network), bundle.resolve().map(|network| head_of(&network)).unwrap_or_default());
    let mut start = Start { path: path.to_owned(), taken: 0, tensors: 0 };
    for spec in network.parameters() {
        start.tensors += 1;
        // An answer is an answer in both, to the same question.
        let (is_head, was_head) = (ours.contains(&spec.name), theirs.contains(&spec.name));
        if is_head != was_head || is_head && !same_answer {
            continue;
        }
        if let Ok(tensor) = bundle.weights.get(&spec.name)
            && tensor.shape == spec.shape
        {
            weights.insert(spec.name.clone(), tensor.clone());
            start.taken += 1;
        }
    }
    if start.taken == 0 {
        return Err(StartError::Nothing { path: path.to_owned() });
    }
    Ok((weights, Some(start)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use vultus::inference::Inference;
    use vultus::network::NetworkConfig;
    use vultus::preprocess::PixelScaling;

    use super::*;

    fn network(filters: usize, with_dense: bool) -> NetworkConfig {
        let mut layers = vec![json!({ "type": "conv", "filters": filters, "kernel": 3 }), json!({ "type": "flatten" })];
        if with_dense {
            layers.push(json!({ "type": "dense", "units": 5 }));
        }
        serde_json::from_value(json!({ "layers": layers })).unwrap()
    }

    /// A model of 3 filters with the classes `angry` and `happy`, its file, and the folder that this lies in.
    fn saved_model() -> (Weights, String, tempfile::TempDir) {
        let network = network(3, false);
        let weights = initial_weights(&network.resolve(6, 6, 2).unwrap(), 1);
        let bundle = Bundle {
            labels: Labels::new(["angry", "happy"]).unwrap(),
            preprocessing: Preprocessing { width: 6, height: 6, ..Preprocessing::default() },
            network,
            weights: weights.clone(),
            inference: Inference::default(),
            training: Value::Null,
            metrics: Value::Null,
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        bundle.save(&path).unwrap();
        (weights, path.display().to_string(), folder)
    }

    fn begin(
        path: &str,
        network: &ResolvedNetwork,
        labels: &Labels,
        seed: u64,
    ) -> Result<(Weights, Option<Start>), StartError> {
        starting_weights(path, &Preprocessing::default(), network, labels, seed)
    }

    #[test]
    fn what_fits_is_taken_and_the_rest_is_fresh() {
        let (first, path, _folder) = saved_model();
        let names = |names: [&str; 2]| Labels::new(names).unwrap();
        let resolved = network(3, false).resolve(6, 6, 2).unwrap();
        let fresh = initial_weights(&resolved, 9);
        let same = names(["angry", "happy"]);
        assert_eq!(begin("", &resolved, &same, 9).unwrap(), (fresh.clone(), None));
        let (weights, start) = begin(&path, &resolved, &same, 9).unwrap();
        assert_eq!(weights, first);
        assert_eq!(start.unwrap(), Start { path: path.clone(), taken: 4, tensors: 4 });

        // The same sizes, and another meaning.
        let (weights, start) = begin(&path, &resolved, &names(["happy", "angry"]), 9).unwrap();
        assert_eq!(start.unwrap().taken, 2);
        for (name, tensor) in weights.iter() {
            let from = if name.starts_with("layers.2") { &fresh } else { &first };
            assert_eq!(tensor, from.get(name).unwrap(), "{name}");
        }
        // One more layer in front of the last.
        let longer = network(3, true).resolve(6, 6, 2).unwrap();
        assert_eq!(begin(&path, &longer, &same, 9).unwrap().1.unwrap().taken, 2);
    }

    #[test]
    fn another_network_is_refused() {
        let (_, path, _folder) = saved_model();
        let labels = Labels::new(["angry", "happy", "sad"]).unwrap();
        let other = network(4, false).resolve(6, 6, 3).unwrap();
        let error = begin(&path, &other, &labels, 9).unwrap_err().to_string();
        assert!(error.starts_with("train.start: ") && error.contains(&path), "{error}");
        let error = begin("absent.safetensors", &other, &labels, 9).unwrap_err().to_string();
        assert!(error.starts_with("train.start: ") && error.contains("absent.safetensors"), "{error}");
        let unit = Preprocessing { pixels: PixelScaling::Unit, ..Preprocessing::default() };
        let error = model(&path, &unit).unwrap_err().to_string();
        assert!(error.contains("preprocessing.pixels") && error.contains(&path), "{error}");
    }
}
