//! Sharpness-aware minimisation: the gradient is taken where the loss is worst nearby (Foret et al. 2021, "Sharpness-aware
//! minimization for efficiently improving generalization", equation 2).
//!
//! In: a network and the gradients at its weights. Out: the network up the slope, where the caller differentiates once more,
//! and then back where it was, with gradients that lead away from sharp minima. Labels that are wrong make such minima.

use burn::tensor::Tensor;

use crate::model::Network;
use crate::optimizer::norm;

/// Weights and running statistics from before the way up.
#[derive(Debug)]
pub struct Ascent {
    before: Vec<Tensor<1>>,
}

impl Ascent {
    /// Moves all trainable parameters together by `radius` along their gradients, of [`Network::gradients`]. Where these are
    /// all 0 there is no way up.
    pub fn new(network: &mut Network, gradients: Vec<Option<Tensor<1>>>, radius: f64) -> Self {
        let before = (0..network.specs().len()).map(|index| network.parameter(index).clone().inner()).collect();
        let length = norm(network.operations(), &gradients);
        if length == 0.0 {
            return Self { before };
        }
        for (index, gradient) in gradients.into_iter().enumerate() {
            if let Some(gradient) = gradient {
                network.update(index, |parameter| parameter + gradient * (radius / length));
            }
        }
        Self { before }
    }

    /// Puts everything back, the running statistics of batch norms too: those of the way up are of other weights. Gradients
    /// are taken before, from the parameters of the pass.
    pub fn back(self, network: &mut Network) {
        for (index, value) in self.before.into_iter().enumerate() {
            network.update(index, |_| value);
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::config::TrainConfig;
    use crate::model::{initial_weights, values_of};
    use crate::operations::Operations;

    #[test]
    fn the_way_up_is_as_long_as_asked_for_raises_the_loss_and_leads_back() {
        let config = TrainConfig::load(None, &["network.layers.*.rate=0.0".to_owned()]).unwrap();
        let resolved = config.network.resolve(48, 48, 3).unwrap();
        let start = initial_weights(&resolved, 1);
        for operations in [Operations::Kernels, Operations::Stock] {
            let mut network =
                Network::new(resolved.clone(), &start, &Device::flex()).unwrap().with_operations(operations);
            let pass = |network: &mut Network| {
                let pixels = (0..2 * 48 * 48).map(|index| (index * 31 % 97) as f32 / 97.0).collect();
                let loss = network.forward(pixels, vec![1.0, 0.0, 0.0, 0.0, 1.0, 0.0], vec![1.0; 2], 7).loss;
                (values_of(loss.clone().inner())[0], loss)
            };
            let (low, loss) = pass(&mut network);
            let before = network.weights();
            let gradients = network.gradients(&loss);
            let ascent = Ascent::new(&mut network, gradients, 0.05);
            let above = network.weights();
            let trainable = network.specs().iter().filter(|spec| spec.is_trainable());
            let squares = trainable.flat_map(|spec| {
                let (above, before) = (above.get(&spec.name).unwrap(), before.get(&spec.name).unwrap());
                above.data.iter().zip(&before.data).map(|(a, b)| f64::from(a - b).powi(2)).collect::<Vec<_>>()
            });
            let length = squares.sum::<f64>().sqrt();
            assert!((length - 0.05).abs() < 1e-3, "{length}");
            let (high, _) = pass(&mut network);
            assert!(high > low, "{high} {low}");
            ascent.back(&mut network);
            assert_eq!(network.weights(), before);
        }
    }
}
