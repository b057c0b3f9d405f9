//! From layers to steps.
//!
//! In: a resolved network and its weights. Out: the steps of a plan, in order. A batch norm waits as an affine map
//! until a layer is met that can take it in, or one that it cannot pass.

use vultus_kernels::activation::Activation;
use vultus_kernels::convolution::ConvolutionShape;
use vultus_kernels::pooling::PoolingShape;

use super::Step;
use super::affine::Affine;
use crate::network::{ConvConfig, DenseConfig, FeatureShape, LayerConfig, PoolConfig, ResolvedLayer, ResolvedNetwork};
use crate::weights::{Weights, WeightsError};

/// The steps that compute the logits of `network` with `weights`.
pub(super) fn compile(network: &ResolvedNetwork, weights: &Weights) -> Result<Vec<Step>, WeightsError> {
    weights.check(network)?;
    let mut compiler = Compiler { weights, steps: Vec::new(), waiting: None };
    for layer in &network.layers {
        compiler.layer(layer)?;
    }
    Ok(compiler.steps)
}

struct Compiler<'a> {
    weights: &'a Weights,
    steps: Vec<Step>,
    /// An affine map that is due on what the steps so far compute.
    waiting: Option<Affine>,
}

impl Compiler<'_> {
    fn layer(&mut self, layer: &ResolvedLayer) -> Result<(), WeightsError> {
        match &layer.config {
            LayerConfig::Conv(conv) => self.convolution(layer, conv),
            LayerConfig::Dense(dense) => self.dense(layer, dense),
            LayerConfig::BatchNorm(norm) => {
                let [gamma, beta, mean, variance] = [0, 1, 2, 3].map(|index| self.values(layer, index));
                self.batch_norm(Affine::batch_norm(gamma?, beta?, mean?, variance?, norm.epsilon));
                Ok(())
            }
            LayerConfig::MaxPool(pool) => {
                if self.waiting.as_ref().is_some_and(|affine| !affine.keeps_order()) {
                    self.settle(layer.input);
                }
                self.steps.push(Step::MaxPool(pooling_shape(layer.input, pool)));
                Ok(())
            }
            // A mean passes any affine map.
            LayerConfig::AveragePool(pool) => {
                self.steps.push(Step::AveragePool(pooling_shape(layer.input, pool)));
                Ok(())
            }
            LayerConfig::Activation(activation) => {
                self.activation(layer.input, activation.function);
                Ok(())
            }
            // Neither moves a value: channels stay runs of neighbours when planes become a list.
            LayerConfig::Dropout(_) | LayerConfig::Flatten(_) => Ok(()),
        }
    }

    fn values(&self, layer: &ResolvedLayer, parameter: usize) -> Result<&[f32], WeightsError> {
        Ok(&self.weights.get(&layer.parameters[parameter].name)?.data)
    }

    fn convolution(&mut self, layer: &ResolvedLayer, conv: &ConvConfig) -> Result<(), WeightsError> {
        let (mut weight, mut bias) = (self.values(layer, 0)?.to_vec(), self.values(layer, 1)?.to_vec());
        let padding = conv.padding_size();
        if padding == 0 {
            if let Some(affine) = self.waiting.take() {
                affine.fold_before_rows(&mut weight, &mut bias);
            }
        } else {
            self.settle(layer.input);
        }
        let (in_height, in_width) = plane_size(layer.input);
        let shape = ConvolutionShape {
            batch: 1,
            in_channels: layer.input.channels(),
            in_height,
            in_width,
            out_channels: conv.filters,
            kernel_height: conv.kernel,
            kernel_width: conv.kernel,
            stride: conv.stride,
            padding,
        };
        self.steps.push(Step::Convolution { shape, weight, bias, activation: conv.activation });
        Ok(())
    }

    fn dense(&mut self, layer: &ResolvedLayer, dense: &DenseConfig) -> Result<(), WeightsError> {
        let (mut weight, mut bias) = (self.values(layer, 0)?.to_vec(), self.values(layer, 1)?.to_vec());
        if let Some(affine) = self.waiting.take() {
            affine.fold_before_columns(&mut weight, &mut bias);
        }
        let (inputs, outputs) = (layer.input.len(), dense.units);
        self.steps.push(Step::Dense { inputs, outputs, weight, bias, activation: dense.activation });
        Ok(())
    }

    fn batch_norm(&mut self, affine: Affine) {
        match (self.waiting.take(), self.steps.last_mut()) {
            // A channel of a map that waits may have become a run of features meanwhile.
            (Some(earlier), _) => self.waiting = Some(earlier.spread(affine.len()).then(&affine)),
            (None, Some(Step::Convolution { shape, weight, bias, activation: Activation::Linear }))
                if shape.out_channels == affine.len() =>
            {
                affine.fold_behind_rows(weight, bias);
            }
            (None, Some(Step::Dense { weight, bias, activation: Activation::Linear, .. })) => {
                affine.fold_behind_columns(weight, bias);
            }
            (None, _) => self.waiting = Some(affine),
        }
    }

    fn activation(&mut self, input: FeatureShape, function: Activation) {
        self.settle(input);
        match self.steps.last_mut() {
            Some(
                Step::Convolution { activation: activation @ Activation::Linear, .. }
                | Step::Dense { activation: activation @ Activation::Linear, .. },
            ) => *activation = function,
            _ => self.steps.push(Step::Activation { function, length: input.len() }),
        }
    }

    /// Makes the map that waits a step of its own, on values of shape `input`.
    fn settle(&mut self, input: FeatureShape) {
        if let Some(affine) = self.waiting.take() {
            let spatial = input.len() / affine.len();
            self.steps.push(Step::Affine { affine, spatial });
        }
    }
}

fn plane_size(shape: FeatureShape) -> (usize, usize) {
    match shape {
        FeatureShape::Planes { height, width, .. } => (height, width),
        FeatureShape::Flat { .. } => (1, 1),
    }
}

fn pooling_shape(input: FeatureShape, pool: &PoolConfig) -> PoolingShape {
    let (in_height, in_width) = plane_size(input);
    PoolingShape { planes: input.channels(), in_height, in_width, size: pool.size, stride: pool.size }
}
