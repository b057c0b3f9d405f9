//! Named tensors of a network, on the host.

use std::collections::BTreeMap;
use std::fmt;

use crate::network::ResolvedNetwork;

/// Values of one tensor, row-major.
#[derive(Clone, PartialEq)]
pub struct WeightTensor {
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its values.
    pub data: Vec<f32>,
}

impl fmt::Debug for WeightTensor {
    /// Without the values, of which there are too many for a log.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("WeightTensor").field("shape", &self.shape).finish_non_exhaustive()
    }
}

/// Tensors by name; for a network the names are those of its [`ParameterSpec`](crate::network::ParameterSpec)s.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Weights {
    tensors: BTreeMap<String, WeightTensor>,
}

/// Tensors that are not those of the network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WeightsError {
    /// A tensor is not there.
    #[error("tensor {0} is missing")]
    Missing(String),
    /// A tensor that the network does not have.
    #[error("tensor {0} belongs to no layer of this network")]
    Unknown(String),
    /// A tensor of another shape.
    #[error("tensor {name} has shape {found:?} where this network has {expected:?}")]
    Shape {
        /// Its name.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// The network's.
        expected: Vec<usize>,
    },
}

impl Weights {
    /// Adds or replaces a tensor.
    pub fn insert(&mut self, name: String, tensor: WeightTensor) {
        self.tensors.insert(name, tensor);
    }

    /// The tensor called `name`.
    ///
    /// # Errors
    /// [`WeightsError::Missing`].
    pub fn get(&self, name: &str) -> Result<&WeightTensor, WeightsError> {
        self.tensors.get(name).ok_or_else(|| WeightsError::Missing(name.to_owned()))
    }

    /// All tensors in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &WeightTensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Checks that these are the tensors of `network`, no more and no fewer.
    ///
    /// # Errors
    /// The first tensor that is missing, has another shape or belongs nowhere.
    pub fn check(&self, network: &ResolvedNetwork) -> Result<(), WeightsError> {
        let mut known = 0;
        for spec in network.parameters() {
            let tensor = self.get(&spec.name)?;
            if tensor.shape != spec.shape || tensor.data.len() != spec.len() {
                return Err(WeightsError::Shape {
                    name: spec.name.clone(),
                    found: tensor.shape.clone(),
                    expected: spec.shape.clone(),
                });
            }
            known += 1;
        }
        if known == self.tensors.len() {
            return Ok(());
        }
        let unknown = self.tensors.keys().find(|name| network.parameters().all(|spec| spec.name != **name));
        Err(WeightsError::Unknown(unknown.cloned().unwrap_or_default()))
    }
}

impl FromIterator<(String, WeightTensor)> for Weights {
    fn from_iter<I: IntoIterator<Item = (String, WeightTensor)>>(tensors: I) -> Self {
        Self { tensors: tensors.into_iter().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{FlattenConfig, LayerConfig, NetworkConfig};

    #[test]
    fn the_first_tensor_that_does_not_fit_is_named() {
        let network = NetworkConfig { layers: vec![LayerConfig::Flatten(FlattenConfig {})] };
        let network = network.resolve(2, 1, 3).unwrap();
        let tensor = |shape: &[usize]| WeightTensor { shape: shape.to_vec(), data: vec![0.5; shape.iter().product()] };
        let mut weights: Weights = [("layers.1.weight".to_owned(), tensor(&[2, 3]))].into_iter().collect();
        assert_eq!(weights.check(&network), Err(WeightsError::Missing("layers.1.bias".to_owned())));
        weights.insert("layers.1.bias".to_owned(), tensor(&[4]));
        let message = weights.check(&network).unwrap_err().to_string();
        assert_eq!(message, "tensor layers.1.bias has shape [4] where this network has [3]");
        weights.insert("layers.1.bias".to_owned(), tensor(&[3]));
        assert_eq!(weights.check(&network), Ok(()));
        weights.insert("layers.7.bias".to_owned(), tensor(&[3]));
        assert_eq!(weights.check(&network), Err(WeightsError::Unknown("layers.7.bias".to_owned())));
    }
}
