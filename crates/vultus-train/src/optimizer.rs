//! The optimiser's state, one list of slots for each trainable parameter.
//!
//! In: a network and its gradients. Out: the same network, moved. The update rules themselves are
//! operations: [`Operations::adam`](crate::operations::Operations::adam), [`Operations::sgd`](crate::operations::Operations::sgd)
//! and [`Operations::muon`](crate::operations::Operations::muon).

use burn::tensor::Tensor;
use vultus::network::{ParameterRole, ParameterSpec};
use vultus::weights::{WeightTensor, Weights, WeightsError};

use crate::config::OptimizerConfig;
use crate::model::{Network, flat, values_of};
use crate::operations::{AdamUpdate, MuonUpdate, Operations, SgdUpdate};

/// Moments or velocities of every trainable parameter.
#[derive(Debug)]
pub struct Optimizer {
    /// Largest norm of all gradients together; 0 is any.
    clip_norm: f64,
    /// Decay of kernels, before the learning rate.
    weight_decay: f64,
    /// Updates done so far.
    step: u64,
    /// How each parameter is moved.
    rules: Vec<Rule>,
    /// `[parameter][slot]`, empty for parameters that are not trained.
    slots: Vec<Vec<Tensor<1>>>,
}

/// How one parameter is moved.
#[derive(Clone, Copy, Debug)]
enum Rule {
    Adam { beta1: f32, beta2: f32, epsilon: f32 },
    Sgd { momentum: f32, nesterov: bool },
    Muon { momentum: f32 },
}

impl Rule {
    /// The rule of `config` for a parameter; `hidden` says that it is a matrix of a hidden layer.
    fn new(config: &OptimizerConfig, hidden: bool) -> Self {
        let adam = |beta1: f64, beta2: f64, epsilon: f64| Self::Adam {
            beta1: beta1 as f32,
            beta2: beta2 as f32,
            epsilon: epsilon as f32,
        };
        match config {
            OptimizerConfig::Adam(config) => adam(config.beta1, config.beta2, config.epsilon),
            OptimizerConfig::Sgd(config) => Self::Sgd { momentum: config.momentum as f32, nesterov: config.nesterov },
            OptimizerConfig::Muon(config) if hidden => Self::Muon { momentum: config.momentum as f32 },
            OptimizerConfig::Muon(config) => adam(config.beta1, config.beta2, config.epsilon),
        }
    }

    fn slot_names(self) -> &'static [&'static str] {
        match self {
            Self::Adam { .. } => &["first_moment", "second_moment"],
            Self::Sgd { .. } | Self::Muon { .. } => &["velocity"],
        }
    }
}

/// Gives Muon's updates about the size of Adam's (Liu et al. 2025, "Muon is scalable for LLM training", section 2.2).
const MUON_SCALE: f64 = 0.2;

/// Rows and columns of a kernel as a matrix from all that reaches an output to the outputs.
fn matrix(spec: &ParameterSpec) -> [usize; 2] {
    let columns = spec.shape.last().copied().unwrap_or(1);
    [spec.len() / columns.max(1), columns]
}

impl Optimizer {
    /// Fresh slots for `network`. Gradients whose norm, over all parameters together, is above `clip_norm` are scaled down
    /// to it (Pascanu et al. 2013, algorithm 1; Keras' `global_clipnorm`); 0 leaves them alone. `weight_decay` shrinks
    /// kernels before each update, by itself times the learning rate.
    pub fn new(config: &OptimizerConfig, clip_norm: f64, weight_decay: f64, network: &Network) -> Self {
        let device = network.device().clone().inner();
        // The head is the last layer, and the only one that may not be hidden.
        let is_matrix = |spec: &ParameterSpec| {
            matches!(spec.role, ParameterRole::Kernel { .. }) && matches!(spec.shape.len(), 2 | 4)
        };
        let head = network.specs().iter().rposition(is_matrix);
        let hidden = |(index, spec)| is_matrix(spec) && Some(index) != head;
        let rules: Vec<Rule> =
            network.specs().iter().enumerate().map(|place| Rule::new(config, hidden(place))).collect();
        let slots = network
            .specs()
            .iter()
            .zip(&rules)
            .map(|(spec, rule)| {
                let count = if spec.is_trainable() { rule.slot_names().len() } else { 0 };
                (0..count).map(|_| Tensor::zeros([spec.len()], &device)).collect()
            })
            .collect();
        Self { clip_norm, weight_decay, step: 0, rules, slots }
    }

    /// Moves every trainable parameter against its gradient, of [`Network::gradients`].
    pub fn update(&mut self, network: &mut Network, gradients: Vec<Option<Tensor<1>>>, learning_rate: f64) {
        self.step += 1;
        let operations = network.operations();
        let scale = self.scale(operations, &gradients);
        for (index, gradient) in gradients.into_iter().enumerate() {
            let Some(gradient) = gradient else { continue };
            let spec = network.specs()[index].clone();
            let kept = match spec.role {
                ParameterRole::Kernel { .. } => (1.0 - learning_rate * self.weight_decay) as f32,
                _ => 1.0,
            };
            let slots = std::mem::take(&mut self.slots[index]);
            let mut moved = Vec::with_capacity(slots.len());
            network.update(index, |parameter| match (self.rules[index], <[Tensor<1>; 2]>::try_from(slots)) {
                (Rule::Adam { beta1, beta2, epsilon }, Ok(moments)) => {
                    let learning_rate = learning_rate as f32;
                    let update = AdamUpdate { learning_rate, beta1, beta2, epsilon, step: self.step, scale, kept };
                    let (parameter, moments) = operations.adam(parameter, gradient, moments, update);
                    moved.extend(moments);
                    parameter
                }
                (Rule::Sgd { momentum, nesterov }, Err(mut slots)) if slots.len() == 1 => {
                    let update = SgdUpdate { learning_rate: learning_rate as f32, momentum, nesterov, scale, kept };
                    let (parameter, velocity) = operations.sgd(parameter, gradient, slots.remove(0), update);
                    moved.push(velocity);
                    parameter
                }
                (Rule::Muon { momentum }, Err(mut slots)) if slots.len() == 1 => {
                    let shape = matrix(&spec);
                    let learning_rate = learning_rate * MUON_SCALE * (shape[0].max(shape[1]) as f64).sqrt();
                    let update = MuonUpdate { learning_rate: learning_rate as f32, momentum, scale, kept };
                    let (parameter, velocity) = operations.muon(parameter, gradient, slots.remove(0), shape, update);
                    moved.push(velocity);
                    parameter
                }
                _ => unreachable!("slots are made for this rule in `new`"),
            });
            self.slots[index] = moved;
        }
    }

    /// What gradients are multiplied by. A gradient that is no number, or infinite, makes weights so that nobody overlooks.
    fn scale(&self, operations: Operations, gradients: &[Option<Tensor<1>>]) -> f32 {
        if self.clip_norm == 0.0 {
            return 1.0;
        }
        let norm = norm(operations, gradients);
        if norm > self.clip_norm { (self.clip_norm / norm) as f32 } else { 1.0 }
    }

    /// Numbers in all slots together.
    pub fn state_len(&self, network: &Network) -> usize {
        network.specs().iter().zip(&self.slots).map(|(spec, slots)| spec.len() * slots.len()).sum()
    }

    /// Copies the slots out, named `<slot>.<parameter>`.
    pub fn state(&self, network: &Network) -> Weights {
        let mut state = Weights::default();
        for ((spec, rule), slots) in network.specs().iter().zip(&self.rules).zip(&self.slots) {
            for (name, slot) in rule.slot_names().iter().zip(slots) {
                let tensor = WeightTensor { shape: spec.shape.clone(), data: values_of(slot.clone()) };
                state.insert(format!("{name}.{}", spec.name), tensor);
            }
        }
        state
    }

    /// Puts back what [`Optimizer::state`] gave after `step` updates.
    ///
    /// # Errors
    /// A slot that is missing or has another size.
    pub fn restore(&mut self, network: &Network, state: &Weights, step: u64) -> Result<(), WeightsError> {
        let device = network.device().clone().inner();
        for ((spec, rule), slots) in network.specs().iter().zip(&self.rules).zip(&mut self.slots) {
            for (name, slot) in rule.slot_names().iter().zip(slots) {
                let name = format!("{name}.{}", spec.name);
                let tensor = state.get(&name)?;
                if tensor.shape != spec.shape {
                    let (found, expected) = (tensor.shape.clone(), spec.shape.clone());
                    return Err(WeightsError::Shape { name, found, expected });
                }
                *slot = flat(tensor.data.clone(), &device);
            }
        }
        self.step = step;
        Ok(())
    }
}

/// The Euclidean norm of all gradients together.
pub fn norm(operations: Operations, gradients: &[Option<Tensor<1>>]) -> f64 {
    let squares = gradients.iter().flatten().map(|gradient| {
        let sum = f64::from(values_of(operations.squared_sum(gradient.clone()))[0]);
        // Squares of large numbers are too large for 32 bits.
        let exact = || values_of(gradient.clone()).iter().map(|&value| f64::from(value).powi(2)).sum();
        if sum.is_finite() { sum } else { exact() }
    });
    squares.sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::config::{MuonConfig, SgdConfig, TrainConfig};
    use crate::model::initial_weights;
    use crate::seed::derive_seed;

    /// Weights after one step of plain gradient descent, less those before.
    fn movement(clip_norm: f64, weight_decay: f64, operations: Operations) -> Vec<f64> {
        let resolved = TrainConfig::load(None, &[]).unwrap().network.resolve(48, 48, 3).unwrap();
        let weights = initial_weights(&resolved, 1);
        let mut network = Network::new(resolved, &weights, &Device::flex()).unwrap().with_operations(operations);
        let rule = OptimizerConfig::Sgd(SgdConfig { learning_rate: 1.0, momentum: 0.0, nesterov: false });
        let mut optimizer = Optimizer::new(&rule, clip_norm, weight_decay, &network);
        let pixels = (0..2 * 48 * 48).map(|index| (index * 31 % 97) as f32 / 97.0).collect();
        let forward = network.forward(pixels, vec![1.0, 0.0, 0.0, 0.0, 1.0, 0.0], vec![1.0; 2], 7);
        let gradients = network.gradients(&forward.loss);
        optimizer.update(&mut network, gradients, 1.0);
        let after = network.weights();
        let trainable = network.specs().iter().filter(|spec| spec.is_trainable());
        let both = trainable.map(|spec| (&after.get(&spec.name).unwrap().data, &weights.get(&spec.name).unwrap().data));
        both.flat_map(|(after, before)| after.iter().zip(before).map(|(a, b)| f64::from(a - b))).collect()
    }

    fn length(values: &[f64]) -> f64 {
        values.iter().map(|value| value * value).sum::<f64>().sqrt()
    }

    #[test]
    fn gradients_are_clipped_to_a_norm_and_keep_their_direction() {
        for operations in [Operations::Kernels, Operations::Stock] {
            let free = movement(0.0, 0.0, operations);
            let whole = length(&free);
            assert_eq!(movement(10.0 * whole, 0.0, operations), free);
            let clipped = movement(0.1 * whole, 0.0, operations);
            assert!((length(&clipped) / whole - 0.1).abs() < 1e-3, "{} of {whole}", length(&clipped));
            let product: f64 = free.iter().zip(&clipped).map(|(a, b)| a * b).sum();
            assert!(product / (whole * length(&clipped)) > 0.999);
        }
    }

    #[test]
    fn gradients_whose_squares_overflow_are_clipped_and_infinite_ones_are_seen() {
        let resolved = TrainConfig::load(None, &[]).unwrap().network.resolve(48, 48, 3).unwrap();
        let network = Network::new(resolved.clone(), &initial_weights(&resolved, 1), &Device::flex()).unwrap();
        let rule = OptimizerConfig::Sgd(SgdConfig { learning_rate: 1.0, momentum: 0.0, nesterov: false });
        let optimizer = Optimizer::new(&rule, 1.0, 0.0, &network);
        for operations in [Operations::Kernels, Operations::Stock] {
            let scaled = |values: [f32; 2]| {
                let gradient = Tensor::<1>::from_floats(values, &Device::flex());
                let scale = optimizer.scale(operations, &[Some(gradient)]);
                values.map(|value| value * scale)
            };
            let [a, b] = scaled([3e30, -4e30]);
            assert!((a - 0.6).abs() < 1e-5 && (b + 0.8).abs() < 1e-5, "{a} {b}");
            for broken in [f32::INFINITY, f32::NAN] {
                assert!(scaled([1.0, broken])[1].is_nan());
            }
        }
    }

    #[test]
    fn decay_shrinks_kernels_and_nothing_else() {
        let free = movement(0.0, 0.0, Operations::Kernels);
        let decayed = movement(0.0, 0.25, Operations::Kernels);
        let resolved = TrainConfig::load(None, &[]).unwrap().network.resolve(48, 48, 3).unwrap();
        let weights = initial_weights(&resolved, 1);
        let mut place = 0;
        for spec in resolved.parameters().filter(|spec| spec.is_trainable()) {
            let decay = if matches!(spec.role, ParameterRole::Kernel { .. }) { 0.25 } else { 0.0 };
            for &start in &weights.get(&spec.name).unwrap().data {
                let expected = free[place] - decay * f64::from(start);
                assert!((decayed[place] - expected).abs() < 1e-5, "{}: {} {expected}", spec.name, decayed[place]);
                place += 1;
            }
        }
    }

    #[test]
    fn muon_moves_hidden_kernels_by_orthogonal_matrices_and_the_rest_by_adam() {
        // Without dropout, whose masks are the device's own.
        let config = TrainConfig::load(None, &["network.layers.*.rate=0.0".to_owned()]).unwrap();
        let resolved = config.network.resolve(48, 48, 3).unwrap();
        let weights = initial_weights(&resolved, 1);
        let moved = |operations: Operations| {
            let mut network =
                Network::new(resolved.clone(), &weights, &Device::flex()).unwrap().with_operations(operations);
            let rule = OptimizerConfig::Muon(MuonConfig::default());
            let mut optimizer = Optimizer::new(&rule, 0.0, 0.0, &network);
            let pixels = (0..8 * 48 * 48_u64).map(|index| (derive_seed(3, &[index]) % 97) as f32 / 97.0).collect();
            let targets = (0..8 * 3).map(|place| if place % 3 == place / 3 % 3 { 1.0 } else { 0.0 }).collect();
            let forward = network.forward(pixels, targets, vec![1.0; 8], 7);
            let gradients = network.gradients(&forward.loss);
            optimizer.update(&mut network, gradients, 0.01);
            let state = optimizer.state(&network);
            for slot in ["velocity.layers.4.weight", "velocity.layers.9.weight", "first_moment.layers.12.weight"] {
                assert!(state.get(slot).is_ok(), "{slot}");
            }
            optimizer.restore(&network, &state, 1).unwrap();
            network.weights()
        };
        let (kernels, stock) = (moved(Operations::Kernels), moved(Operations::Stock));
        let change = |after: &Weights, name: &str| -> Vec<f64> {
            let (after, before) = (after.get(name).unwrap(), weights.get(name).unwrap());
            after.data.iter().zip(&before.data).map(|(a, b)| f64::from(a - b)).collect()
        };
        // A 3 x 3 convolution of 64 channels to 128: the step's singular values are about 0.01 * 0.2 * sqrt(576), but for
        // the smallest, which are not taken up all the way.
        let expected = 0.01 * 0.2 * 24.0 * (128.0_f64).sqrt();
        let ratio = length(&change(&kernels, "layers.4.weight")) / expected;
        assert!((0.5..1.2).contains(&ratio), "{ratio}");
        // Adam's first step is the learning rate, either way.
        assert!(change(&kernels, "layers.12.bias").iter().all(|step| (step.abs() - 0.01).abs() < 1e-4));
        for name in ["layers.0.weight", "layers.4.weight", "layers.12.bias"] {
            let (kernels, stock) = (change(&kernels, name), change(&stock, name));
            let apart: Vec<f64> = kernels.iter().zip(&stock).map(|(a, b)| a - b).collect();
            let share = length(&apart) / length(&stock);
            assert!(share < 0.05, "{name}: {share}");
        }
    }
}
