//! What a description becomes once the size of the pictures and the number of classes are known.
//!
//! In: nothing; these are the values that `resolve` makes. Out: shapes, parameters and costs, layer by layer and summed.

use serde::Serialize;

use super::{Activation, LayerConfig};

/// Shape of one sample between two layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum FeatureShape {
    /// A picture, in memory `[height, width, channels]`.
    Planes {
        /// Values of a pixel.
        channels: usize,
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
    },
    /// One list of features.
    Flat {
        /// Its length.
        features: usize,
    },
}

impl FeatureShape {
    /// Number of values of one sample.
    pub fn len(&self) -> usize {
        self.channels() * self.spatial()
    }

    /// True when a sample holds no value; a resolved network has no such shape.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Channels, or features of a flat shape.
    pub fn channels(&self) -> usize {
        match *self {
            Self::Planes { channels, .. } => channels,
            Self::Flat { features } => features,
        }
    }

    /// Pixels; 1 for a flat shape.
    pub fn spatial(&self) -> usize {
        match *self {
            Self::Planes { height, width, .. } => height * width,
            Self::Flat { .. } => 1,
        }
    }
}

impl std::fmt::Display for FeatureShape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Planes { channels, height, width } => write!(f, "{channels} x {height} x {width}"),
            Self::Flat { features } => write!(f, "{features}"),
        }
    }
}

/// What a stored tensor is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParameterRole {
    /// Kernel of a convolution `[height, width, in, out]`, of a depthwise one `[height, width, channels]`, or of a dense layer,
    /// also inside squeeze and excitation, `[in, out]`.
    Kernel {
        /// Inputs that reach one output, for Glorot's limits.
        fan_in: usize,
        /// Outputs that one input reaches.
        fan_out: usize,
    },
    /// Bias `[out]`.
    Bias,
    /// Scale of a batch norm `[channels]`.
    Gamma,
    /// Shift of a batch norm `[channels]`.
    Beta,
    /// Running mean of a batch norm `[channels]`; not trained.
    RunningMean,
    /// Running (biased) variance of a batch norm `[channels]`; not trained.
    RunningVariance,
}

/// A stored tensor of the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterSpec {
    /// `layers.<place>.<tensor>` with `weight`, `bias`, `gamma`, `beta`, `running_mean`, `running_variance`, and of squeeze and
    /// excitation `squeeze_weight`, `squeeze_bias`, `excitation_weight` and `excitation_bias`. The place is the index in the list; the
    /// head's is the list's length, and in a residual layer it is a path: `3.layers.0`, `3.shortcut.0`.
    pub name: String,
    /// Row-major shape.
    pub shape: Vec<usize>,
    /// What it is for.
    pub role: ParameterRole,
}

impl ParameterSpec {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// True for a tensor without values; a resolved network has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the optimiser changes it (running statistics follow the batches instead).
    pub fn is_trainable(&self) -> bool {
        !matches!(self.role, ParameterRole::RunningMean | ParameterRole::RunningVariance)
    }
}

/// A layer whose shapes are known.
#[derive(Clone, Debug, PartialEq)]
pub struct ResolvedLayer {
    /// The description it came from; the head is a linear `dense` layer.
    pub config: LayerConfig,
    /// Shape of one sample going in.
    pub input: FeatureShape,
    /// Shape of one sample coming out.
    pub output: FeatureShape,
    /// Its own stored tensors, in a fixed order; not those of its branches.
    pub parameters: Vec<ParameterSpec>,
    /// Multiply-adds of convolutions, dense layers, and squeeze and excitation for one sample, forward; 0 for the others. A residual layer has
    /// those of its branches.
    pub multiply_adds: u64,
    /// The layers of a residual layer's branch; empty for the others.
    pub body: Vec<ResolvedLayer>,
    /// The layers of a residual layer's shortcut; empty for the identity, and for other layers.
    pub shortcut: Vec<ResolvedLayer>,
}

impl ResolvedLayer {
    /// The layer's `type`, as in the configuration.
    pub fn kind(&self) -> &'static str {
        self.config.kind()
    }

    /// The particulars in a few words, such as `64 filters 3x3, valid, relu`.
    pub fn details(&self) -> String {
        let with_activation = |text: String, activation: Activation| match activation {
            Activation::Linear => text,
            other => format!("{text}, {}", other.name()),
        };
        let windows = |kernel: usize, stride: usize, padding: &str, bias: bool| {
            let stride = if stride == 1 { String::new() } else { format!(", stride {stride}") };
            format!("{kernel}x{kernel}{stride}, {padding}{}", if bias { "" } else { ", no bias" })
        };
        match &self.config {
            LayerConfig::Conv(conv) => {
                let how = windows(conv.kernel, conv.stride, conv.padding.name(), conv.bias);
                with_activation(format!("{} filters {how}", conv.filters), conv.activation)
            }
            LayerConfig::DepthwiseConv(conv) => {
                let how = windows(conv.kernel, conv.stride, conv.padding.name(), conv.bias);
                with_activation(how, conv.activation)
            }
            LayerConfig::SqueezeExcitation(squeeze) => {
                format!("{} hidden units", squeeze.hidden(self.input.channels()))
            }
            LayerConfig::BatchNorm(norm) => format!("momentum {}, epsilon {}", norm.momentum, norm.epsilon),
            LayerConfig::MaxPool(pool) | LayerConfig::AveragePool(pool) => format!("{s}x{s}", s = pool.size),
            LayerConfig::Dropout(dropout) => format!("rate {}", dropout.rate),
            LayerConfig::Activation(activation) => activation.function.name().to_owned(),
            LayerConfig::Flatten(_) | LayerConfig::GlobalAveragePool(_) => String::new(),
            LayerConfig::Dense(dense) => with_activation(format!("{} units", dense.units), dense.activation),
            LayerConfig::Residual(residual) => {
                let shortcut = if self.shortcut.is_empty() { "identity" } else { "layers" };
                with_activation(format!("shortcut: {shortcut}"), residual.activation)
            }
        }
    }

    /// This layer and all layers inside it: itself, its branch, its shortcut.
    pub fn every_layer(&self) -> Vec<&ResolvedLayer> {
        let inner = self.body.iter().chain(&self.shortcut).flat_map(ResolvedLayer::every_layer);
        std::iter::once(self).chain(inner).collect()
    }

    /// Number of stored values, running statistics included (as Keras' summary counts them), and those of its branches.
    pub fn parameter_count(&self) -> usize {
        self.every_layer().iter().flat_map(|layer| &layer.parameters).map(ParameterSpec::len).sum()
    }
}

/// A network whose every shape is known.
#[derive(Clone, Debug, PartialEq)]
pub struct ResolvedNetwork {
    /// Shape of the input of one sample.
    pub input: FeatureShape,
    /// Number of classes.
    pub classes: usize,
    /// All layers; the last one is the head, whose outputs are logits.
    pub layers: Vec<ResolvedLayer>,
}

impl ResolvedNetwork {
    /// Every layer, those inside residual layers too: first the residual layer, then its branch, then its shortcut.
    pub fn every_layer(&self) -> impl Iterator<Item = &ResolvedLayer> {
        self.layers.iter().flat_map(ResolvedLayer::every_layer)
    }

    /// Every stored tensor, in the order of [`ResolvedNetwork::every_layer`].
    pub fn parameters(&self) -> impl Iterator<Item = &ParameterSpec> {
        self.every_layer().flat_map(|layer| &layer.parameters)
    }

    /// Number of stored values, running statistics included.
    pub fn parameter_count(&self) -> usize {
        self.parameters().map(ParameterSpec::len).sum()
    }

    /// Number of values that the optimiser changes.
    pub fn trainable_count(&self) -> usize {
        self.parameters().filter(|spec| spec.is_trainable()).map(ParameterSpec::len).sum()
    }

    /// Multiply-adds of one forward pass of one sample.
    pub fn multiply_adds(&self) -> u64 {
        self.layers.iter().fold(0, |sum, layer| sum.saturating_add(layer.multiply_adds))
    }
}
