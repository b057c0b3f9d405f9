//! The exponential moving average of a network's weights.
//!
//! In: the network after each update. Out: weights that wander less, which often classify better (as equal shares
//! of all do: Polyak & Juditsky 1992; Izmailov et al. 2018). It holds copies of its own and changes no tensor of the network; the running statistics of batch
//! norms are averaged like everything else.

use rayon::prelude::*;
use vultus::weights::{WeightTensor, Weights, WeightsError};

use crate::model::{Network, values_of};

/// Numbers that one task averages.
const PART: usize = 16 * 1024;

/// The average, parameter by parameter.
#[derive(Debug)]
pub struct Average {
    decay: f64,
    values: Vec<Vec<f32>>,
}

impl Average {
    /// Begins with the network's weights; `None` if `decay` is 0.
    pub fn new(decay: f64, network: &Network) -> Option<Self> {
        (decay > 0.0).then(|| Self { decay, values: (0..network.specs().len()).map(|i| value(network, i)).collect() })
    }

    /// Goes on from weights that [`Average::weights`] gave.
    ///
    /// # Errors
    /// A tensor that is missing or has another shape.
    pub fn restore(&mut self, network: &Network, weights: &Weights) -> Result<(), WeightsError> {
        weights.check(network.resolved())?;
        for (spec, values) in network.specs().iter().zip(&mut self.values) {
            values.clone_from(&weights.get(&spec.name)?.data);
        }
        Ok(())
    }

    /// Takes in the weights after an update, before which there were `updates`: the decay is `(1 + updates) / (10 + updates)`
    /// where that is less than the one asked for.
    pub fn update(&mut self, network: &Network, updates: u64) {
        let early = (1 + updates) as f64 / (10 + updates) as f64;
        let pace = (1.0 - self.decay.min(early)) as f32;
        for (index, average) in self.values.iter_mut().enumerate() {
            let current = value(network, index);
            let parts = average.par_chunks_mut(PART).zip(current.par_chunks(PART));
            parts.for_each(|(average, current)| {
                average.iter_mut().zip(current).for_each(|(average, current)| *average += pace * (current - *average));
            });
        }
    }

    /// A copy of the average.
    pub fn weights(&self, network: &Network) -> Weights {
        let tensors = network.specs().iter().zip(&self.values).map(|(spec, values)| {
            (spec.name.clone(), WeightTensor { shape: spec.shape.clone(), data: values.clone() })
        });
        tensors.collect()
    }
}

fn value(network: &Network, index: usize) -> Vec<f32> {
    values_of(network.parameter(index).clone().inner())
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use vultus::network::{FlattenConfig, LayerConfig, NetworkConfig};

    use super::*;
    use crate::model::initial_weights;

    #[test]
    fn the_average_follows_at_its_pace_and_faster_at_first() {
        let layers = vec![LayerConfig::Flatten(FlattenConfig {})];
        // More numbers than one task averages.
        let resolved = NetworkConfig { layers }.resolve(96, 96, 2).unwrap();
        let mut network = Network::new(resolved.clone(), &initial_weights(&resolved, 1), &Device::flex()).unwrap();
        for index in 0..network.specs().len() {
            network.update(index, |value| value.zeros_like());
        }
        let mut average = Average::new(0.9, &network).unwrap();
        for index in 0..network.specs().len() {
            network.update(index, |value| value.ones_like());
        }
        // Decays of 1/10, 2/11, and 0.9 from the 81st update on, where (1 + 81) / (10 + 81) is more.
        let mut missing = 1.0;
        for (updates, decay) in [(0, 0.1), (1, 2.0 / 11.0), (81, 0.9), (5000, 0.9)] {
            average.update(&network, updates);
            missing *= decay;
            for spec in network.specs() {
                for value in &average.weights(&network).get(&spec.name).unwrap().data {
                    assert!((1.0 - value - missing).abs() < 1e-6, "{}: {value} after {updates}", spec.name);
                }
            }
        }
        assert!(Average::new(0.0, &network).is_none());
    }
}
