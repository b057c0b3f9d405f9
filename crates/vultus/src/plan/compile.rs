//! From layers to steps.
//!
//! In: a resolved network and its weights. Out: the steps of a plan, in order; their places are numbers of values. A
//! batch norm waits as an affine map until a layer is met that can take it in, or one that it cannot pass. What is
//! folded into which step is decided here and nowhere else.

use vultus_kernels::activation::Activation;
use vultus_kernels::convolution::ConvolutionShape;
use vultus_kernels::pooling::PoolingShape;

use super::affine::Affine;
use super::step::{Operation, Place, Step};
use crate::network::{
    ConvConfig, DenseConfig, FeatureShape, LayerConfig, PoolConfig, ResidualConfig, ResolvedLayer, ResolvedNetwork,
};
use crate::weights::{Weights, WeightsError};

/// The steps that compute the logits of `network` with `weights`.
pub(super) fn compile(network: &ResolvedNetwork, weights: &Weights) -> Result<Vec<Step>, WeightsError> {
    weights.check(network)?;
    let mut compiler = Compiler { weights, steps: Vec::new(), value: 0, shared: 0, waiting: None };
    compiler.layers(&network.layers)?;
    Ok(compiler.steps)
}

struct Compiler<'a> {
    weights: &'a Weights,
    steps: Vec<Step>,
    /// The value that the next layer works on. It is the last step's, or the input of a branch that has just begun.
    value: Place,
    /// Values up to this one have, or may have, another reader: nothing may be folded into the steps that give them.
    shared: Place,
    /// An affine map that is due on `value`.
    waiting: Option<Affine>,
}

impl Compiler<'_> {
    fn layers(&mut self, layers: &[ResolvedLayer]) -> Result<(), WeightsError> {
        layers.iter().try_for_each(|layer| self.layer(layer))
    }

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
                self.push(Operation::MaxPool(pooling_shape(layer.input, pool)));
                Ok(())
            }
            // A mean passes any affine map.
            LayerConfig::AveragePool(pool) => {
                self.push(Operation::AveragePool(pooling_shape(layer.input, pool)));
                Ok(())
            }
            LayerConfig::GlobalAveragePool(_) => {
                let (channels, spatial) = (layer.input.channels(), layer.input.spatial());
                self.push(Operation::GlobalAveragePool { channels, spatial });
                Ok(())
            }
            LayerConfig::Activation(activation) => {
                self.activation(layer.input, activation.function);
                Ok(())
            }
            // Neither moves a value: channels stay runs of neighbours when planes become a list.
            LayerConfig::Dropout(_) | LayerConfig::Flatten(_) => Ok(()),
            LayerConfig::Residual(residual) => self.residual(layer, residual),
        }
    }

    /// Adds a step that works on the present value.
    fn push(&mut self, operation: Operation) {
        let output = self.steps.len() + 1;
        self.steps.push(Step { input: self.value, addend: None, output, operation });
        self.value = output;
    }

    /// The step that gives the present value, if something may be folded into it.
    fn foldable(&mut self) -> Option<&mut Step> {
        if self.value > self.shared { self.steps.last_mut() } else { None }
    }

    fn values(&self, layer: &ResolvedLayer, parameter: usize) -> Result<&[f32], WeightsError> {
        Ok(&self.weights.get(&layer.parameters[parameter].name)?.data)
    }

    fn convolution(&mut self, layer: &ResolvedLayer, conv: &ConvConfig) -> Result<(), WeightsError> {
        let mut weight = self.values(layer, 0)?.to_vec();
        let mut bias = if conv.bias { self.values(layer, 1)?.to_vec() } else { vec![0.0; conv.filters] };
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
        self.push(Operation::Convolution { shape, weight, bias, activation: conv.activation });
        Ok(())
    }

    fn dense(&mut self, layer: &ResolvedLayer, dense: &DenseConfig) -> Result<(), WeightsError> {
        let (mut weight, mut bias) = (self.values(layer, 0)?.to_vec(), self.values(layer, 1)?.to_vec());
        if let Some(affine) = self.waiting.take() {
            affine.fold_before_columns(&mut weight, &mut bias);
        }
        let (inputs, outputs) = (layer.input.len(), dense.units);
        self.push(Operation::Dense { inputs, outputs, weight, bias, activation: dense.activation });
        Ok(())
    }

    fn batch_norm(&mut self, affine: Affine) {
        // A channel of a map that waits may have become a run of features meanwhile.
        if let Some(earlier) = self.waiting.take() {
            self.waiting = Some(earlier.spread(affine.len()).then(&affine));
            return;
        }
        // Behind a sum the map would have to reach the addend, too.
        match self.foldable() {
            Some(Step {
                addend: None,
                operation: Operation::Convolution { shape, weight, bias, activation: Activation::Linear },
                ..
            }) if shape.out_channels == affine.len() => affine.fold_behind_rows(weight, bias),
            Some(Step { operation: Operation::Dense { weight, bias, activation: Activation::Linear, .. }, .. }) => {
                affine.fold_behind_columns(weight, bias)
            }
            _ => self.waiting = Some(affine),
        }
    }

    fn activation(&mut self, input: FeatureShape, function: Activation) {
        self.settle(input);
        match self.foldable().map(|step| &mut step.operation) {
            Some(
                Operation::Convolution { activation: activation @ Activation::Linear, .. }
                | Operation::Dense { activation: activation @ Activation::Linear, .. }
                | Operation::Activation { function: activation @ Activation::Linear, .. },
            ) => *activation = function,
            _ => self.push(Operation::Activation { function, length: input.len() }),
        }
    }

    /// The shortcut first, so that the last convolution of the other branch can add it to what it computes.
    fn residual(&mut self, layer: &ResolvedLayer, residual: &ResidualConfig) -> Result<(), WeightsError> {
        self.settle(layer.input);
        let (input, outside) = (self.value, self.shared);
        self.shared = input;
        self.layers(&layer.shortcut)?;
        self.settle(layer.output);
        let addend = self.value;

        self.value = input;
        self.shared = self.steps.len();
        self.layers(&layer.body)?;
        self.settle(layer.output);
        match self.foldable() {
            Some(Step {
                addend: sum @ None,
                operation: Operation::Convolution { activation: activation @ Activation::Linear, .. },
                ..
            }) => (*sum, *activation) = (Some(addend), residual.activation),
            _ => {
                self.push(Operation::Activation { function: residual.activation, length: layer.output.len() });
                if let Some(step) = self.steps.last_mut() {
                    step.addend = Some(addend);
                }
            }
        }
        self.shared = outside;
        Ok(())
    }

    /// Makes the map that waits a step of its own, on values of shape `input`.
    fn settle(&mut self, input: FeatureShape) {
        if let Some(affine) = self.waiting.take() {
            let spatial = input.len() / affine.len();
            self.push(Operation::Affine { affine, spatial });
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
