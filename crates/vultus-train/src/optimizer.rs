//! The optimiser's state, one list of slots for each trainable parameter.
//!
//! In: a network whose graph has just been differentiated. Out: the same network, moved. The update rules themselves are
//! operations ([`Operations::adam`](crate::operations::Operations::adam),
//! [`Operations::sgd`](crate::operations::Operations::sgd)).

use burn::tensor::{Gradients, Tensor};
use vultus::weights::{WeightTensor, Weights, WeightsError};

use crate::config::OptimizerConfig;
use crate::model::{Network, flat, values_of};
use crate::operations::{AdamUpdate, SgdUpdate};

/// Moments or velocities of every trainable parameter.
#[derive(Debug)]
pub struct Optimizer {
    config: OptimizerConfig,
    /// Updates done so far.
    step: u64,
    /// `[parameter][slot]`, empty for parameters that are not trained.
    slots: Vec<Vec<Tensor<1>>>,
}

impl Optimizer {
    /// Fresh slots for `network`.
    pub fn new(config: &OptimizerConfig, network: &Network) -> Self {
        let device = network.device().clone().inner();
        let slots = network
            .specs()
            .iter()
            .map(|spec| {
                let count = if spec.is_trainable() { slot_names(config).len() } else { 0 };
                (0..count).map(|_| Tensor::zeros([spec.len()], &device)).collect()
            })
            .collect();
        Self { config: config.clone(), step: 0, slots }
    }

    /// Moves every trainable parameter against its gradient.
    pub fn update(&mut self, network: &mut Network, gradients: &mut Gradients, learning_rate: f64) {
        self.step += 1;
        let operations = network.operations();
        for index in 0..network.specs().len() {
            let Some(gradient) = network.parameter(index).grad_remove(gradients) else { continue };
            let slots = std::mem::take(&mut self.slots[index]);
            let mut moved = Vec::with_capacity(slots.len());
            network.update(index, |parameter| match (&self.config, <[Tensor<1>; 2]>::try_from(slots)) {
                (OptimizerConfig::Adam(adam), Ok(moments)) => {
                    let update = AdamUpdate {
                        learning_rate: learning_rate as f32,
                        beta1: adam.beta1 as f32,
                        beta2: adam.beta2 as f32,
                        epsilon: adam.epsilon as f32,
                        step: self.step,
                    };
                    let (parameter, moments) = operations.adam(parameter, gradient, moments, update);
                    moved.extend(moments);
                    parameter
                }
                (OptimizerConfig::Sgd(sgd), Err(mut slots)) if slots.len() == 1 => {
                    let update = SgdUpdate {
                        learning_rate: learning_rate as f32,
                        momentum: sgd.momentum as f32,
                        nesterov: sgd.nesterov,
                    };
                    let (parameter, velocity) = operations.sgd(parameter, gradient, slots.remove(0), update);
                    moved.push(velocity);
                    parameter
                }
                _ => unreachable!("slots are made for this optimiser in `new`"),
            });
            self.slots[index] = moved;
        }
    }

    /// Copies the slots out, named `<slot>.<parameter>`.
    pub fn state(&self, network: &Network) -> Weights {
        let mut state = Weights::default();
        for (spec, slots) in network.specs().iter().zip(&self.slots) {
            for (name, slot) in slot_names(&self.config).iter().zip(slots) {
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
        for (spec, slots) in network.specs().iter().zip(&mut self.slots) {
            for (name, slot) in slot_names(&self.config).iter().zip(slots) {
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

fn slot_names(config: &OptimizerConfig) -> &'static [&'static str] {
    match config {
        OptimizerConfig::Adam(_) => &["first_moment", "second_moment"],
        OptimizerConfig::Sgd(_) => &["velocity"],
    }
}
