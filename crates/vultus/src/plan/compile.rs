//! From layers to steps.
//!
//! In: a resolved network and its weights. Out: the steps of a plan, in order; their places are numbers of values. A
//! batch norm waits as an affine map until a layer is met that can take it in, or one that it cannot pass. A convolution
//! takes in the activation, the sum or the 2 x 2 max pooling behind it. What is folded into which step is decided here
//! and nowhere else; the steps still have to be prepared.

use vultus_kernels::activation::Activation;
use vultus_kernels::convolution::ConvolutionShape;
use vultus_kernels::depthwise::DepthwiseShape;
use vultus_kernels::pooling::PoolingShape;
use vultus_kernels::squeeze_excitation::SqueezeShape;

use super::affine::Affine;
use super::step::{Convolution, Operation, Place, Squeeze, Step};
use crate::network::{
    ConvConfig, DenseConfig, DepthwiseConvConfig, FeatureShape, LayerConfig, PoolConfig, ResidualConfig, ResolvedLayer,
    ResolvedNetwork, SqueezeExcitationConfig,
};
use crate::weights::{Weights, WeightsError};

/// The steps that compute the logits of `network` with `weights`.
pub(crate) fn compile(network: &ResolvedNetwork, weights: &Weights) -> Result<Vec<Step<Convolution>>, WeightsError> {
    weights.check(network)?;
    let mut compiler = Compiler { weights, steps: Vec::new(), value: 0, shared: 0, waiting: None };
    compiler.layers(&network.layers)?;
    Ok(compiler.steps)
}

struct Compiler<'a> {
    weights: &'a Weights,
    steps: Vec<Step<Convolution>>,
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
            LayerConfig::DepthwiseConv(conv) => self.depthwise(layer, conv),
            LayerConfig::SqueezeExcitation(squeeze) => self.squeeze_excitation(layer, squeeze),
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
                self.max_pool(layer, pool);
                Ok(())
            }
            // A mean passes any affine map.
            LayerConfig::AveragePool(pool) => {
                self.push(layer.input, layer.output, Operation::AveragePool(pooling_shape(layer.input, pool)));
                Ok(())
            }
            LayerConfig::GlobalAveragePool(_) => {
                let (channels, spatial) = (layer.input.channels(), layer.input.spatial());
                self.push(layer.input, layer.output, Operation::GlobalAveragePool { channels, spatial });
                Ok(())
            }
            LayerConfig::Activation(activation) => {
                self.activation(layer.input, activation.function);
                Ok(())
            }
            // Neither moves a value.
            LayerConfig::Dropout(_) | LayerConfig::Flatten(_) => Ok(()),
            LayerConfig::Residual(residual) => self.residual(layer, residual),
        }
    }

    /// Adds a step that works on the present value.
    fn push(&mut self, input: FeatureShape, output: FeatureShape, operation: Operation<Convolution>) {
        let place = self.steps.len() + 1;
        let (inputs, outputs) = (input.len(), output.len());
        self.steps.push(Step { input: self.value, addend: None, output: place, inputs, outputs, operation });
        self.value = place;
    }

    /// The step that gives the present value, if something may be folded into it.
    fn foldable(&mut self) -> Option<&mut Step<Convolution>> {
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
                affine.fold_before(&mut weight, &mut bias);
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
        let convolution = Convolution { shape, weight, bias, activation: conv.activation, pool: false };
        self.push(layer.input, layer.output, Operation::Convolution(convolution));
        Ok(())
    }

    fn depthwise(&mut self, layer: &ResolvedLayer, conv: &DepthwiseConvConfig) -> Result<(), WeightsError> {
        let channels = layer.input.channels();
        let mut weight = self.values(layer, 0)?.to_vec();
        let mut bias = if conv.bias { self.values(layer, 1)?.to_vec() } else { vec![0.0; channels] };
        let padding = conv.padding_size();
        if padding == 0 {
            if let Some(affine) = self.waiting.take() {
                affine.fold_before_channels(&mut weight, &mut bias);
            }
        } else {
            self.settle(layer.input);
        }
        let (in_height, in_width) = plane_size(layer.input);
        let shape = DepthwiseShape {
            batch: 1,
            channels,
            in_height,
            in_width,
            kernel: conv.kernel,
            stride: conv.stride,
            padding,
        };
        self.push(layer.input, layer.output, Operation::Depthwise { shape, weight, bias, activation: conv.activation });
        Ok(())
    }

    /// No map passes it: the factors belong to what comes out of the map.
    fn squeeze_excitation(
        &mut self,
        layer: &ResolvedLayer,
        squeeze: &SqueezeExcitationConfig,
    ) -> Result<(), WeightsError> {
        let (channels, spatial) = (layer.input.channels(), layer.input.spatial());
        let shape = SqueezeShape { batch: 1, spatial, channels, hidden: squeeze.hidden(channels) };
        let [squeeze, squeeze_bias, excitation, excitation_bias] = [0, 1, 2, 3].map(|index| self.values(layer, index));
        let squeeze = Squeeze {
            shape,
            squeeze: squeeze?.to_vec(),
            squeeze_bias: squeeze_bias?.to_vec(),
            excitation: excitation?.to_vec(),
            excitation_bias: excitation_bias?.to_vec(),
        };
        self.settle(layer.input);
        self.push(layer.input, layer.output, Operation::SqueezeExcitation(squeeze));
        Ok(())
    }

    fn dense(&mut self, layer: &ResolvedLayer, dense: &DenseConfig) -> Result<(), WeightsError> {
        let (mut weight, mut bias) = (self.values(layer, 0)?.to_vec(), self.values(layer, 1)?.to_vec());
        if let Some(affine) = self.waiting.take() {
            affine.fold_before(&mut weight, &mut bias);
        }
        self.push(layer.input, layer.output, Operation::Dense { weight, bias, activation: dense.activation });
        Ok(())
    }

    /// Pooling a result is the same before and after an activation, as none of them ever decreases.
    fn max_pool(&mut self, layer: &ResolvedLayer, pool: &PoolConfig) {
        match self.foldable() {
            Some(Step {
                addend: None,
                outputs,
                operation: Operation::Convolution(Convolution { pool: pools @ false, .. }),
                ..
            }) if pool.size == 2 => (*pools, *outputs) = (true, layer.output.len()),
            _ => self.push(layer.input, layer.output, Operation::MaxPool(pooling_shape(layer.input, pool))),
        }
    }

    fn batch_norm(&mut self, affine: Affine) {
        // What waits may be a map of channels that have become many features meanwhile.
        if let Some(earlier) = self.waiting.take() {
            self.waiting = Some(earlier.spread(affine.len()).then(&affine));
            return;
        }
        // Channels that have been flattened are fewer than the map's features. Behind a sum the map would have to reach the addend, too; in front of a pooling it must keep the order.
        match self.foldable() {
            Some(Step {
                addend: None,
                operation:
                    Operation::Convolution(Convolution { weight, bias, activation: Activation::Linear, pool, .. }),
                ..
            }) if bias.len() == affine.len() && (!*pool || affine.keeps_order()) => affine.fold_behind(weight, bias),
            Some(Step {
                operation:
                    Operation::Dense { weight, bias, activation: Activation::Linear }
                    | Operation::Depthwise { weight, bias, activation: Activation::Linear, .. },
                ..
            }) if bias.len() == affine.len() => affine.fold_behind(weight, bias),
            _ => self.waiting = Some(affine),
        }
    }

    fn activation(&mut self, input: FeatureShape, function: Activation) {
        self.settle(input);
        match self.foldable().map(|step| &mut step.operation) {
            Some(
                Operation::Convolution(Convolution { activation: activation @ Activation::Linear, .. })
                | Operation::Depthwise { activation: activation @ Activation::Linear, .. }
                | Operation::Dense { activation: activation @ Activation::Linear, .. }
                | Operation::Activation(activation @ Activation::Linear),
            ) => *activation = function,
            _ => self.push(input, input, Operation::Activation(function)),
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
                operation:
                    Operation::Convolution(Convolution { activation: activation @ Activation::Linear, pool: false, .. }),
                ..
            }) => (*sum, *activation) = (Some(addend), residual.activation),
            _ => {
                self.push(layer.output, layer.output, Operation::Activation(residual.activation));
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
            self.push(input, input, Operation::Affine(affine));
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
    PoolingShape { batch: 1, channels: input.channels(), in_height, in_width, size: pool.size, stride: pool.size }
}
