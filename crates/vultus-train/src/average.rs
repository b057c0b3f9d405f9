//! The exponential moving average of a network's weights.
//!
//! In: the network after each update. Out: weights that wander less, which often classify better (Polyak & Juditsky 1992;
//! Izmailov et al. 2018). It holds copies of its own and changes no tensor of the network; the running statistics of batch
//! norms are averaged like everything else.

use vultus::weights::{WeightTensor, Weights, WeightsError};

use crate::model::{Network, values_of};

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
    /// A tensor that is missing.
    pub fn restore(&mut self, network: &Network, weights: &Weights) -> Result<(), WeightsError> {
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
            average.iter_mut().zip(current).for_each(|(average, current)| *average += pace * (current - *average));
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
