//! The description of a network, as data.
//!
//! In: a list of layers, from TOML or from a bundle's metadata. Out: the same list resolved for an input shape and a
//! number of classes, with the shape, parameters and multiply-adds of every layer. The trainable module, the inference
//! [plan](crate::plan), the architecture figure and the parameter table are all made from it; it computes nothing
//! itself.
//!
//! The classification head, a dense layer with one unit a class followed by softmax, is always the last layer and is
//! not part of the list: the data decides how many classes there are. A residual layer holds lists of its own, so that
//! the description is a tree whose levels are lists.

mod resolve;
mod resolved;
mod table;
#[cfg(test)]
mod tests;

pub use resolve::NetworkError;
pub use resolved::{FeatureShape, ParameterRole, ParameterSpec, ResolvedLayer, ResolvedNetwork};
use serde::{Deserialize, Serialize};
pub use table::LayerRow;
pub use vultus_kernels::activation::Activation;

/// An ordered list of layers; the head is added by [`NetworkConfig::resolve`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkConfig {
    /// The layers between the picture and the head.
    pub layers: Vec<LayerConfig>,
}

/// One layer, named by its `type` key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum LayerConfig {
    /// Two-dimensional convolution, with or without bias.
    Conv(ConvConfig),
    /// Two-dimensional convolution of each channel with a filter of its own.
    DepthwiseConv(DepthwiseConvConfig),
    /// Channels weighed by what the whole picture holds.
    SqueezeExcitation(SqueezeExcitationConfig),
    /// Batch normalisation over channels (or units, after `flatten`).
    BatchNorm(BatchNormConfig),
    /// Largest value of each window.
    MaxPool(PoolConfig),
    /// Mean of each window.
    AveragePool(PoolConfig),
    /// Mean of each channel over the picture, so that one feature a channel is left.
    GlobalAveragePool(GlobalAveragePoolConfig),
    /// Sets values to zero at random while training, and scales the others up.
    Dropout(DropoutConfig),
    /// An activation on its own, for networks that normalise before it.
    Activation(ActivationConfig),
    /// Height x width x channels becomes one list of features, pixel by pixel.
    Flatten(FlattenConfig),
    /// Fully connected layer with bias.
    Dense(DenseConfig),
    /// The sum of two branches.
    Residual(ResidualConfig),
}

/// Keys of a `conv` layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConvConfig {
    /// Number of output channels.
    pub filters: usize,
    /// Height and width of the kernel.
    pub kernel: usize,
    /// Step between windows.
    #[serde(default = "one")]
    pub stride: usize,
    /// Zeros around the picture.
    #[serde(default)]
    pub padding: Padding,
    /// Whether a number is added to each output channel. A convolution in front of a batch norm needs none.
    #[serde(default = "yes")]
    pub bias: bool,
    /// Applied to the output.
    #[serde(default)]
    pub activation: Activation,
    /// Weight of the penalty `l2 * sum(kernel^2)` on the loss; 0 is off. The bias is never penalised.
    #[serde(default)]
    pub l2: f64,
}

/// Keys of a `depthwise_conv` layer, which has one filter for each channel and as many channels behind it as before it
/// (Howard et al. 2017, "MobileNets", section 3.1). A 1 x 1 `conv` behind it makes a depthwise-separable convolution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DepthwiseConvConfig {
    /// Height and width of the kernel; an odd number.
    pub kernel: usize,
    /// Step between windows.
    #[serde(default = "one")]
    pub stride: usize,
    /// Zeros around the picture.
    #[serde(default)]
    pub padding: Padding,
    /// Whether a number is added to each channel. A convolution in front of a batch norm needs none.
    #[serde(default = "yes")]
    pub bias: bool,
    /// Applied to the output.
    #[serde(default)]
    pub activation: Activation,
    /// Weight of the penalty `l2 * sum(kernel^2)` on the loss; 0 is off. The bias is never penalised.
    #[serde(default)]
    pub l2: f64,
}

/// Keys of a `squeeze_excitation` layer, `y = x * sigmoid(W2 relu(W1 mean(x) + b1) + b2)`, one factor a channel (Hu et al.
/// 2018, "Squeeze-and-excitation networks", equations 2 to 4). It keeps the shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SqueezeExcitationConfig {
    /// Channels for each unit of the hidden layer, of which there is at least one.
    #[serde(default = "four")]
    pub ratio: usize,
}

/// Zeros around the picture, equal on all sides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Padding {
    /// None: the output shrinks by `kernel - 1`.
    #[default]
    Valid,
    /// `(kernel - 1) / 2`, so that stride 1 keeps the size; needs an odd kernel.
    Same,
}

/// Keys of a `batch_norm` layer. The defaults are those of Keras.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchNormConfig {
    /// Share of the old running statistics that is kept at each step.
    #[serde(default = "batch_norm_momentum")]
    pub momentum: f64,
    /// Added to the variance before the root.
    #[serde(default = "batch_norm_epsilon")]
    pub epsilon: f64,
}

/// Keys of a `max_pool` or `average_pool` layer. Windows do not overlap; a remainder at the edge is dropped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolConfig {
    /// Height and width of the window, and the step between windows.
    #[serde(default = "two")]
    pub size: usize,
}

/// A `global_average_pool` layer has no keys.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GlobalAveragePoolConfig {}

/// Keys of a `dropout` layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DropoutConfig {
    /// Probability of zero, from 0 to below 1.
    pub rate: f64,
}

/// Keys of an `activation` layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActivationConfig {
    /// Which one.
    pub function: Activation,
}

/// A `flatten` layer has no keys.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlattenConfig {}

/// Keys of a `dense` layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DenseConfig {
    /// Number of outputs.
    pub units: usize,
    /// Applied to the output.
    #[serde(default)]
    pub activation: Activation,
    /// Weight of the penalty `l2 * sum(kernel^2)` on the loss; 0 is off. The bias is never penalised.
    #[serde(default)]
    pub l2: f64,
}

/// Keys of a `residual` layer, `y = activation(layers(x) + shortcut(x))` (He et al. 2016, "Deep residual learning for
/// image recognition", equations 1 and 2). Both branches must give planes of the same shape; they may hold residual
/// layers themselves, but nothing that turns planes into a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResidualConfig {
    /// Applied to the sum.
    #[serde(default)]
    pub activation: Activation,
    /// The branch that computes the residual; at least one layer.
    pub layers: Vec<LayerConfig>,
    /// What the input goes through before the sum; empty is the identity.
    #[serde(default)]
    pub shortcut: Vec<LayerConfig>,
}

fn yes() -> bool {
    true
}

fn one() -> usize {
    1
}

fn two() -> usize {
    2
}

fn four() -> usize {
    4
}

fn batch_norm_momentum() -> f64 {
    0.99
}

fn batch_norm_epsilon() -> f64 {
    1e-3
}

impl Padding {
    /// Zeros on each side for a kernel of `kernel` rows, at least 1: 0, or `p = (f - 1) / 2` (the report's section 2).
    pub fn size(self, kernel: usize) -> usize {
        match self {
            Self::Valid => 0,
            Self::Same => kernel.saturating_sub(1) / 2,
        }
    }

    /// The name in configuration files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Same => "same",
        }
    }
}

impl ConvConfig {
    /// Zeros on each side.
    pub fn padding_size(&self) -> usize {
        self.padding.size(self.kernel)
    }
}

impl DepthwiseConvConfig {
    /// Zeros on each side.
    pub fn padding_size(&self) -> usize {
        self.padding.size(self.kernel)
    }
}

impl SqueezeExcitationConfig {
    /// Units of the hidden layer between `channels` channels.
    pub fn hidden(&self, channels: usize) -> usize {
        (channels / self.ratio.max(1)).max(1)
    }
}

impl LayerConfig {
    /// The layer's `type`, as in the configuration.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Conv(_) => "conv",
            Self::DepthwiseConv(_) => "depthwise_conv",
            Self::SqueezeExcitation(_) => "squeeze_excitation",
            Self::BatchNorm(_) => "batch_norm",
            Self::MaxPool(_) => "max_pool",
            Self::AveragePool(_) => "average_pool",
            Self::GlobalAveragePool(_) => "global_average_pool",
            Self::Dropout(_) => "dropout",
            Self::Activation(_) => "activation",
            Self::Flatten(_) => "flatten",
            Self::Dense(_) => "dense",
            Self::Residual(_) => "residual",
        }
    }

    /// Weight of the penalty on the layer's own kernel, which is its first parameter; 0 for none.
    pub fn l2(&self) -> f64 {
        match self {
            Self::Conv(conv) => conv.l2,
            Self::DepthwiseConv(conv) => conv.l2,
            Self::Dense(dense) => dense.l2,
            _ => 0.0,
        }
    }
}

impl NetworkConfig {
    /// The description as JSON for telling networks apart, in checkpoints and journals: a key that came to the format
    /// later is left out where it says what was the only choice before, so that older files keep their meaning.
    pub fn identity(&self) -> serde_json::Value {
        let mut value = serde_json::json!(self);
        without_later_defaults(&mut value);
        value
    }
}

fn without_later_defaults(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(map) => {
            if map.get("bias") == Some(&serde_json::Value::Bool(true)) {
                map.shift_remove("bias");
            }
            map.values_mut().for_each(without_later_defaults);
        }
        serde_json::Value::Array(list) => list.iter_mut().for_each(without_later_defaults),
        _ => {}
    }
}
