//! The trainable network, built from a [`NetworkConfig`](vultus::network::NetworkConfig).
//!
//! In: batches of pixels. Out: logits with the autodiff graph behind them, and after the update new parameters. Every
//! parameter is a flat tensor whose shape is in its [`ParameterSpec`]; all arithmetic goes through [`Operations`].
//! Inference, validation included, is [`vultus::plan::Plan`]'s work: there is one way to run a finished network.

use burn::tensor::{Device, Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use vultus::network::{
    BatchNormConfig, ConvConfig, DepthwiseConvConfig, FeatureShape, LayerConfig, ParameterRole, ParameterSpec,
    ResolvedLayer, ResolvedNetwork,
};
use vultus::weights::{WeightTensor, Weights};

use crate::device::operations_of;
use crate::heads::Heads;
use crate::operations::{
    Activation, Block, BlockParameters, ChannelShape, ConvolutionShape, DenseShape, DepthwiseShape, Filters,
    Operations, Pooling, PoolingShape, SqueezeShape, Tail,
};
use crate::seed::derive_seed;

/// A network that is being trained.
#[derive(Debug)]
pub struct Network {
    resolved: ResolvedNetwork,
    operations: Operations,
    device: Device,
    /// Parallel to `resolved.parameters()`. Trainable ones are leaves of the graph; running statistics are not in it.
    parameters: Vec<Tensor<1>>,
    specs: Vec<ParameterSpec>,
    heads: Heads,
}

/// What goes from layer to layer of one training pass.
struct Pass {
    /// Samples.
    batch: usize,
    /// Index of the next layer's first parameter.
    next_parameter: usize,
    /// Sum of the L2 penalties so far, `[1]`.
    penalty: Option<Tensor<1>>,
}

/// What one training step showed.
#[derive(Debug)]
pub struct Forward {
    /// The loss that is minimised, `[1]`: weighted cross-entropy, that of the votes' head too, plus penalties.
    pub loss: Tensor<1>,
    /// Of the labels, `[batch, labels]`, outside the graph.
    pub probabilities: Tensor<2>,
}

/// Weights for a fresh network: Glorot uniform kernels (Glorot & Bengio 2010, equation 16), zero biases, batch norms
/// that do nothing. Each tensor has its own generator, so that adding a layer leaves the others as they were.
pub fn initial_weights(network: &ResolvedNetwork, seed: u64) -> Weights {
    let mut weights = Weights::default();
    for (index, spec) in network.parameters().enumerate() {
        let data = match spec.role {
            ParameterRole::Kernel { fan_in, fan_out } => {
                let limit = (6.0 / (fan_in + fan_out) as f32).sqrt();
                let mut generator = ChaCha8Rng::seed_from_u64(derive_seed(seed, &[index as u64]));
                (0..spec.len()).map(|_| generator.random_range(-limit..limit)).collect()
            }
            ParameterRole::Gamma | ParameterRole::RunningVariance => vec![1.0; spec.len()],
            ParameterRole::Bias | ParameterRole::Beta | ParameterRole::RunningMean => vec![0.0; spec.len()],
        };
        weights.insert(spec.name.clone(), WeightTensor { shape: spec.shape.clone(), data });
    }
    weights
}

impl Network {
    /// Puts `weights` on `device`.
    ///
    /// # Errors
    /// Weights that do not fit the network name the tensor.
    pub fn new(
        resolved: ResolvedNetwork,
        weights: &Weights,
        device: &Device,
    ) -> Result<Self, vultus::weights::WeightsError> {
        weights.check(&resolved)?;
        let device = device.clone().autodiff();
        let specs: Vec<ParameterSpec> = resolved.parameters().cloned().collect();
        let mut parameters = Vec::with_capacity(specs.len());
        for spec in &specs {
            let data = weights.get(&spec.name)?.data.clone();
            parameters.push(leaf(spec, flat(data, &device.clone().inner())));
        }
        let heads = Heads { labels: resolved.classes, votes_weight: 0.0 };
        Ok(Self { operations: operations_of(&device), resolved, device, parameters, specs, heads })
    }

    /// The same network with other arithmetic: Burn's own operations run on any device, `flex` too.
    pub fn with_operations(mut self, operations: Operations) -> Self {
        self.operations = operations;
        self
    }

    /// The same network with what its columns answer, which are all labels otherwise.
    pub fn with_heads(mut self, heads: Heads) -> Self {
        assert_eq!(heads.columns(), self.resolved.classes, "columns of the last layer");
        self.heads = heads;
        self
    }

    /// The shapes it was built from.
    pub fn resolved(&self) -> &ResolvedNetwork {
        &self.resolved
    }

    /// Which arithmetic it uses.
    pub fn operations(&self) -> Operations {
        self.operations
    }

    /// The device of its parameters, inside the graph.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Description of every parameter, in order.
    pub fn specs(&self) -> &[ParameterSpec] {
        &self.specs
    }

    /// The parameter at `index`; a leaf of the graph if it is trainable.
    pub fn parameter(&self, index: usize) -> &Tensor<1> {
        &self.parameters[index]
    }

    /// Replaces the parameter at `index` by what `change` makes of its value. The value is handed over unshared, so that
    /// it can be changed in place.
    pub fn update(&mut self, index: usize, change: impl FnOnce(Tensor<1>) -> Tensor<1>) {
        let placeholder = Tensor::zeros([1], &self.device.clone().inner());
        let value = std::mem::replace(&mut self.parameters[index], placeholder).inner();
        self.parameters[index] = leaf(&self.specs[index], change(value));
    }

    /// Differentiates `loss`, of the latest pass: the gradient of each parameter, `None` for running statistics.
    ///
    /// # Panics
    /// If a trainable parameter has no part in the loss: it was replaced after the pass.
    pub fn gradients(&self, loss: &Tensor<1>) -> Vec<Option<Tensor<1>>> {
        let mut gradients = loss.backward();
        let taken = self.specs.iter().zip(&self.parameters).map(|(spec, parameter)| {
            spec.is_trainable().then(|| parameter.grad_remove(&mut gradients).expect("it is in the graph of its pass"))
        });
        taken.collect()
    }

    /// Copies all weights out.
    pub fn weights(&self) -> Weights {
        let mut weights = Weights::default();
        for (spec, parameter) in self.specs.iter().zip(&self.parameters) {
            let data = values_of(parameter.clone().inner());
            weights.insert(spec.name.clone(), WeightTensor { shape: spec.shape.clone(), data });
        }
        weights
    }

    /// Training pass: batch statistics, dropout, loss. Moves the running statistics of the batch norms.
    ///
    /// `pixels` `[batch * height * width]`, `targets` `[batch * columns]` (probabilities), `sample_weights` `[batch]`.
    /// `dropout_seed` decides every mask.
    pub fn forward(
        &mut self,
        pixels: Vec<f32>,
        targets: Vec<f32>,
        sample_weights: Vec<f32>,
        dropout_seed: u64,
    ) -> Forward {
        let batch = sample_weights.len();
        let columns = self.resolved.classes;
        let x = self.constant(pixels, batch, self.resolved.input.len());
        let layers = self.resolved.layers.clone();
        let mut pass = Pass { batch, next_parameter: 0, penalty: None };
        let x = self.forward_layers(&layers, &mut pass, x, dropout_seed, None);
        let targets = self.constant(targets, batch, columns);
        let weights = Tensor::<1>::from_data(TensorData::new(sample_weights, [batch]), &self.device);
        let Heads { labels, votes_weight } = self.heads;
        let (loss, probabilities) = if self.heads.votes() == 0 {
            self.operations.cross_entropy(x, targets, weights, labels)
        } else {
            let head = |tensor: &Tensor<2>, from: usize, to: usize| tensor.clone().slice([0..batch, from..to]);
            let entropy = |from: usize, to: usize| {
                self.operations.cross_entropy(head(&x, from, to), head(&targets, from, to), weights.clone(), to - from)
            };
            let (loss, probabilities) = entropy(0, labels);
            (loss + entropy(labels, columns).0 * votes_weight, probabilities)
        };
        let loss = match pass.penalty {
            Some(penalty) => loss + penalty,
            None => loss,
        };
        Forward { loss, probabilities: probabilities.inner() }
    }

    /// Layers that follow one another; each has the seed of its index. A `residual` is added to what the last one gives,
    /// in front of its activation.
    fn forward_layers(
        &mut self,
        layers: &[ResolvedLayer],
        pass: &mut Pass,
        mut x: Tensor<2>,
        seed: u64,
        mut residual: Option<(Tensor<2>, Activation)>,
    ) -> Tensor<2> {
        let mut index = 0;
        while index < layers.len() {
            let layer = &layers[index];
            let first = pass.next_parameter;
            let key = |index: usize| derive_seed(seed, &[index as u64]);
            if let Some(fused) = Fused::at(&layers[index..]) {
                let end = index + fused.layers;
                for layer in &layers[index..end] {
                    self.penalize(layer, pass);
                }
                let added = if end == layers.len() && fused.takes_residual() { residual.take() } else { None };
                x = self.forward_block(layer, &fused, first, x, pass.batch, key(end - 1), added);
                index = end;
                continue;
            }
            self.penalize(layer, pass);
            x = match &layer.config {
                LayerConfig::Residual(config) => {
                    // The shortcut first, so that the last block of the branch can add it. Parameters and seeds are in
                    // the order of the description: the branch, then the shortcut.
                    let body = pass.next_parameter;
                    pass.next_parameter += layer.body.iter().map(parameters_of).sum::<usize>();
                    let shortcut =
                        self.forward_layers(&layer.shortcut, pass, x.clone(), derive_seed(key(index), &[1]), None);
                    let end = std::mem::replace(&mut pass.next_parameter, body);
                    let added = Some((shortcut, config.activation));
                    let sum = self.forward_layers(&layer.body, pass, x, derive_seed(key(index), &[0]), added);
                    pass.next_parameter = end;
                    sum
                }
                _ => self.forward_layer(layer, first, x, pass.batch, key(index)),
            };
            index += 1;
        }
        match residual {
            Some((addend, activation)) => self.operations.add(x, addend, activation),
            None => x,
        }
    }

    /// Takes a layer's own parameters into the pass, and its penalty into the loss.
    fn penalize(&self, layer: &ResolvedLayer, pass: &mut Pass) {
        let l2 = layer.config.l2();
        if l2 > 0.0 {
            let term = self.operations.squared_sum(self.parameters[pass.next_parameter].clone()) * l2;
            pass.penalty = Some(match pass.penalty.take() {
                Some(sum) => sum + term,
                None => term,
            });
        }
        pass.next_parameter += layer.parameters.len();
    }

    /// A convolution and the layers that were fused with it; parameters begin at `first`.
    #[expect(clippy::too_many_arguments, reason = "a layer, its place, and all that flows into it")]
    fn forward_block(
        &mut self,
        layer: &ResolvedLayer,
        fused: &Fused,
        first: usize,
        x: Tensor<2>,
        batch: usize,
        key: u64,
        residual: Option<(Tensor<2>, Activation)>,
    ) -> Tensor<2> {
        let (residual, sum) = residual.unzip();
        let tail = match fused.tail {
            Tail::Pooled { size, rate, .. } => Tail::Pooled { size, rate, key },
            Tail::Activated { squeeze, activation, .. } => {
                Tail::Activated { squeeze, residual: residual.is_some(), activation: sum.unwrap_or(activation) }
            }
        };
        let (filters, biased, before) = match fused.convolution {
            FusedConvolution::Dense(conv) => {
                (Filters::Dense(convolution_shape(layer, conv, batch)), conv.bias, conv.activation)
            }
            FusedConvolution::Depthwise(conv) => {
                (Filters::Depthwise(depthwise_shape(layer, conv, batch)), conv.bias, conv.activation)
            }
        };
        let block = Block { filters, biased, before, epsilon: fused.norm.epsilon as f32, tail };
        let norm = first + layer.parameters.len();
        let parameter = |index: usize| self.parameters[index].clone();
        let parameters = BlockParameters {
            weight: parameter(first),
            bias: biased.then(|| parameter(first + 1)),
            gamma: parameter(norm),
            beta: parameter(norm + 1),
            squeeze: matches!(tail, Tail::Activated { squeeze: Some(_), .. })
                .then(|| [4, 5, 6, 7].map(|offset| parameter(norm + offset))),
        };
        let (y, mean, variance) = self.operations.convolution_block(x, parameters, residual, block);
        self.move_statistics(norm, fused.norm, mean, variance);
        y
    }

    /// Moves the running statistics of the batch norm whose parameters begin at `first`.
    fn move_statistics(&mut self, first: usize, norm: &BatchNormConfig, mean: Tensor<1>, variance: Tensor<1>) {
        let kept = norm.momentum as f32;
        for (offset, statistic) in [(2, mean), (3, variance)] {
            let moved = statistic.inner() * (1.0 - kept);
            self.update(first + offset, |running| running * kept + moved);
        }
    }

    /// One layer without branches, whose parameters begin at `first`.
    fn forward_layer(
        &mut self,
        layer: &ResolvedLayer,
        first: usize,
        x: Tensor<2>,
        batch: usize,
        dropout_key: u64,
    ) -> Tensor<2> {
        let operations = self.operations;
        let parameter = |offset: usize| self.parameters[first + offset].clone();
        match &layer.config {
            LayerConfig::Conv(conv) => {
                let shape = convolution_shape(layer, conv, batch);
                let bias = conv.bias.then(|| parameter(1));
                operations.convolution(x, parameter(0), bias, shape, conv.activation)
            }
            LayerConfig::DepthwiseConv(conv) => {
                let shape = depthwise_shape(layer, conv, batch);
                operations.depthwise(x, parameter(0), conv.bias.then(|| parameter(1)), shape, conv.activation)
            }
            LayerConfig::SqueezeExcitation(squeeze) => {
                let (channels, spatial) = (layer.input.channels(), layer.input.spatial());
                let shape = SqueezeShape { batch, spatial, channels, hidden: squeeze.hidden(channels) };
                operations.squeeze_excitation(x, [0, 1, 2, 3].map(parameter), shape)
            }
            LayerConfig::Dense(dense) => {
                let shape = DenseShape { batch, inputs: layer.input.len(), outputs: dense.units };
                operations.dense(x, parameter(0), parameter(1), shape, dense.activation)
            }
            LayerConfig::BatchNorm(norm) => {
                let shape = ChannelShape { batch, channels: layer.input.channels(), spatial: layer.input.spatial() };
                let (y, mean, variance) =
                    operations.batch_norm_training(x, parameter(0), parameter(1), shape, norm.epsilon as f32);
                self.move_statistics(first, norm, mean, variance);
                y
            }
            LayerConfig::MaxPool(pool) => operations.pool(x, Pooling::Max, pooling(layer.input, pool.size, batch)),
            LayerConfig::AveragePool(pool) => {
                operations.pool(x, Pooling::Average, pooling(layer.input, pool.size, batch))
            }
            LayerConfig::GlobalAveragePool(_) => {
                let shape = ChannelShape { batch, channels: layer.input.channels(), spatial: layer.input.spatial() };
                operations.global_average_pool(x, shape)
            }
            LayerConfig::Dropout(dropout) if dropout.rate > 0.0 => {
                operations.dropout(x, dropout.rate as f32, dropout_key)
            }
            // Residual layers are taken apart above.
            LayerConfig::Dropout(_) | LayerConfig::Flatten(_) | LayerConfig::Residual(_) => x,
            LayerConfig::Activation(activation) => operations.activation(x, activation.function),
        }
    }

    fn constant(&self, values: Vec<f32>, rows: usize, columns: usize) -> Tensor<2> {
        Tensor::from_data(TensorData::new(values, [rows, columns]), &self.device)
    }
}

/// Copies a tensor's values to the host.
pub fn values_of<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.try_into_vec_as::<f32>().expect("parameters and outputs are f32 values")
}

/// Moves values to a device.
pub fn flat(values: Vec<f32>, device: &Device) -> Tensor<1> {
    let len = values.len();
    Tensor::from_data(TensorData::new(values, [len]), device)
}

fn leaf(spec: &ParameterSpec, value: Tensor<1>) -> Tensor<1> {
    if spec.is_trainable() { value.autodiff().require_grad() } else { value }
}

fn planes(shape: FeatureShape) -> (usize, usize, usize) {
    match shape {
        FeatureShape::Planes { channels, height, width } => (channels, height, width),
        FeatureShape::Flat { features } => (features, 1, 1),
    }
}

fn convolution_shape(layer: &ResolvedLayer, conv: &ConvConfig, batch: usize) -> ConvolutionShape {
    let (in_channels, in_height, in_width) = planes(layer.input);
    ConvolutionShape {
        batch,
        in_channels,
        in_height,
        in_width,
        out_channels: conv.filters,
        kernel_height: conv.kernel,
        kernel_width: conv.kernel,
        stride: conv.stride,
        padding: conv.padding_size(),
    }
}

fn depthwise_shape(layer: &ResolvedLayer, conv: &DepthwiseConvConfig, batch: usize) -> DepthwiseShape {
    let (channels, in_height, in_width) = planes(layer.input);
    let (kernel, stride, padding) = (conv.kernel, conv.stride, conv.padding_size());
    DepthwiseShape { batch, channels, in_height, in_width, kernel, stride, padding }
}

/// Parameters of a layer and of all layers inside it.
fn parameters_of(layer: &ResolvedLayer) -> usize {
    let inside = layer.body.iter().chain(&layer.shortcut).map(parameters_of).sum::<usize>();
    layer.parameters.len() + inside
}

/// A run of layers that one operation computes: a convolution, a batch norm, and squeeze and excitation with an activation,
/// or max pooling with dropout, behind it.
struct Fused<'a> {
    convolution: FusedConvolution<'a>,
    norm: &'a BatchNormConfig,
    /// Without its key.
    tail: Tail,
    /// Layers in the run.
    layers: usize,
}

/// The convolution that a run begins with.
enum FusedConvolution<'a> {
    Dense(&'a ConvConfig),
    Depthwise(&'a DepthwiseConvConfig),
}

impl<'a> Fused<'a> {
    /// The run that begins with the first of `layers`, if there is one.
    fn at(layers: &'a [ResolvedLayer]) -> Option<Self> {
        let config = |index: usize| layers.get(index).map(|layer| &layer.config);
        let (convolution, activation) = match config(0)? {
            LayerConfig::Conv(conv) => (FusedConvolution::Dense(conv), conv.activation),
            LayerConfig::DepthwiseConv(conv) => (FusedConvolution::Depthwise(conv), conv.activation),
            _ => return None,
        };
        let LayerConfig::BatchNorm(norm) = config(1)? else { return None };
        if !matches!(activation, Activation::Linear | Activation::Relu) {
            return None;
        }
        let squeeze = match layers.get(2).map(|layer| (&layer.config, layer.input.channels())) {
            Some((LayerConfig::SqueezeExcitation(squeeze), channels)) => Some(squeeze.hidden(channels)),
            _ => None,
        };
        let behind = 2 + usize::from(squeeze.is_some());
        let (tail, layers) = match (config(behind), config(behind + 1)) {
            (Some(LayerConfig::MaxPool(pool)), Some(LayerConfig::Dropout(dropout))) if squeeze.is_none() => {
                (Tail::Pooled { size: pool.size, rate: dropout.rate as f32, key: 0 }, 4)
            }
            (Some(LayerConfig::MaxPool(pool)), _) if squeeze.is_none() => {
                (Tail::Pooled { size: pool.size, rate: 0.0, key: 0 }, 3)
            }
            (Some(LayerConfig::Activation(activation)), _) => {
                (Tail::Activated { squeeze, residual: false, activation: activation.function }, behind + 1)
            }
            _ => (Tail::Activated { squeeze, residual: false, activation: Activation::Linear }, behind),
        };
        Some(Self { convolution, norm, tail, layers })
    }

    /// Whether a residual can be added in front of its activation: if it has none of its own.
    fn takes_residual(&self) -> bool {
        let without = |squeeze: Option<usize>| 2 + usize::from(squeeze.is_some());
        matches!(self.tail, Tail::Activated { squeeze, activation: Activation::Linear, .. }
            if self.layers == without(squeeze))
    }
}

fn pooling(input: FeatureShape, size: usize, batch: usize) -> PoolingShape {
    let (channels, in_height, in_width) = planes(input);
    PoolingShape { batch, channels, in_height, in_width, size, stride: size }
}

#[cfg(test)]
mod tests;
