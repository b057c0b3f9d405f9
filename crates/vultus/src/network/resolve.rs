//! A network description with every shape, parameter and cost worked out.

use serde::Serialize;

use super::{Activation, BatchNormConfig, ConvConfig, DenseConfig, LayerConfig, NetworkConfig, Padding, PoolConfig};

/// Most parameters of a network: with an optimiser's two moments they must fit into a checkpoint, which
/// [`crate::container`] limits to 2 GiB.
const LARGEST_NETWORK: usize = 150_000_000;

/// Shape of one sample between two layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum FeatureShape {
    /// A stack of planes.
    Planes {
        /// Number of planes.
        channels: usize,
        /// Rows of a plane.
        height: usize,
        /// Columns of a plane.
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

    /// Planes, or features of a flat shape.
    pub fn channels(&self) -> usize {
        match *self {
            Self::Planes { channels, .. } => channels,
            Self::Flat { features } => features,
        }
    }

    /// Values of one plane; 1 for a flat shape.
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
    /// Kernel of a convolution `[out, in, height, width]` or of a dense layer `[in, out]`.
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
    /// `layers.<index>.<weight|bias|gamma|beta|running_mean|running_variance>`; the head's index is the list's length.
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
    /// Stored tensors, in a fixed order.
    pub parameters: Vec<ParameterSpec>,
    /// Multiply-adds of convolutions and dense layers for one sample, forward; 0 for the others.
    pub multiply_adds: u64,
}

impl ResolvedLayer {
    /// The layer's `type`, as in the configuration.
    pub fn kind(&self) -> &'static str {
        match self.config {
            LayerConfig::Conv(_) => "conv",
            LayerConfig::BatchNorm(_) => "batch_norm",
            LayerConfig::MaxPool(_) => "max_pool",
            LayerConfig::AveragePool(_) => "average_pool",
            LayerConfig::Dropout(_) => "dropout",
            LayerConfig::Activation(_) => "activation",
            LayerConfig::Flatten(_) => "flatten",
            LayerConfig::Dense(_) => "dense",
        }
    }

    /// The particulars in a few words, such as `64 filters 3x3, valid, relu`.
    pub fn details(&self) -> String {
        let with_activation = |text: String, activation: Activation| match activation {
            Activation::Linear => text,
            other => format!("{text}, {}", other.name()),
        };
        match &self.config {
            LayerConfig::Conv(conv) => {
                let padding = match conv.padding {
                    Padding::Valid => "valid",
                    Padding::Same => "same",
                };
                let stride = if conv.stride == 1 { String::new() } else { format!(", stride {}", conv.stride) };
                let text = format!("{} filters {k}x{k}{stride}, {padding}", conv.filters, k = conv.kernel);
                with_activation(text, conv.activation)
            }
            LayerConfig::BatchNorm(norm) => format!("momentum {}, epsilon {}", norm.momentum, norm.epsilon),
            LayerConfig::MaxPool(pool) | LayerConfig::AveragePool(pool) => format!("{s}x{s}", s = pool.size),
            LayerConfig::Dropout(dropout) => format!("rate {}", dropout.rate),
            LayerConfig::Activation(activation) => activation.function.name().to_owned(),
            LayerConfig::Flatten(_) => String::new(),
            LayerConfig::Dense(dense) => with_activation(format!("{} units", dense.units), dense.activation),
        }
    }

    /// Number of stored values, running statistics included (as Keras' summary counts them).
    pub fn parameter_count(&self) -> usize {
        self.parameters.iter().map(ParameterSpec::len).sum()
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
    /// Every stored tensor, in layer order.
    pub fn parameters(&self) -> impl Iterator<Item = &ParameterSpec> {
        self.layers.iter().flat_map(|layer| &layer.parameters)
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
        self.layers.iter().map(|layer| layer.multiply_adds).sum()
    }
}

/// A description that is no network.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum NetworkError {
    /// A value outside its range.
    #[error("network.layers.{layer}.{key} is {value}: {expected}")]
    Value {
        /// Index in the list.
        layer: usize,
        /// Key of the layer.
        key: &'static str,
        /// What it says.
        value: String,
        /// What it should say.
        expected: &'static str,
    },
    /// The layer cannot take what the one before it gives.
    #[error("network.layers.{layer} ({kind}) cannot take an input of shape {input}: {reason}")]
    Input {
        /// Index in the list; the list's length means the head.
        layer: usize,
        /// The layer's type.
        kind: &'static str,
        /// Shape that reaches it.
        input: FeatureShape,
        /// Why not.
        reason: &'static str,
    },
    /// More parameters than a checkpoint could hold.
    #[error("the network has {parameters} parameters, more than the {LARGEST_NETWORK} that are supported")]
    TooLarge {
        /// Its parameters.
        parameters: usize,
    },
    /// A classifier needs classes.
    #[error("a classifier needs at least 2 classes, not {0}")]
    Classes(usize),
}

impl NetworkConfig {
    /// Computes shapes, parameters and costs for pictures of 1 channel, `height` x `width`, and `classes` classes, and
    /// appends the head.
    ///
    /// # Errors
    /// A value out of range or a layer that does not fit names the layer's index and key.
    pub fn resolve(&self, height: usize, width: usize, classes: usize) -> Result<ResolvedNetwork, NetworkError> {
        if classes < 2 {
            return Err(NetworkError::Classes(classes));
        }
        let input = FeatureShape::Planes { channels: 1, height, width };
        let head = LayerConfig::Dense(DenseConfig { units: classes, activation: Activation::Linear, l2: 0.0 });
        let mut layers: Vec<ResolvedLayer> = Vec::with_capacity(self.layers.len() + 1);
        for (index, config) in self.layers.iter().chain(std::iter::once(&head)).enumerate() {
            let shape = layers.last().map_or(input, |layer| layer.output);
            layers.push(resolve_layer(index, config, shape)?);
        }
        let network = ResolvedNetwork { input, classes, layers };
        let parameters = network.parameter_count();
        if parameters > LARGEST_NETWORK { Err(NetworkError::TooLarge { parameters }) } else { Ok(network) }
    }
}

fn resolve_layer(index: usize, config: &LayerConfig, input: FeatureShape) -> Result<ResolvedLayer, NetworkError> {
    let layer = LayerResolver { index, input };
    let (output, parameters, multiply_adds) = match config {
        LayerConfig::Conv(conv) => layer.conv(conv)?,
        LayerConfig::BatchNorm(norm) => layer.batch_norm(norm)?,
        LayerConfig::MaxPool(pool) => layer.pool("max_pool", pool)?,
        LayerConfig::AveragePool(pool) => layer.pool("average_pool", pool)?,
        LayerConfig::Dropout(dropout) => {
            layer.require((0.0..1.0).contains(&dropout.rate), "rate", dropout.rate, "use 0 up to below 1")?;
            (input, Vec::new(), 0)
        }
        LayerConfig::Activation(_) => (input, Vec::new(), 0),
        LayerConfig::Flatten(_) => (FeatureShape::Flat { features: input.len() }, Vec::new(), 0),
        LayerConfig::Dense(dense) => layer.dense(dense)?,
    };
    Ok(ResolvedLayer { config: config.clone(), input, output, parameters, multiply_adds })
}

type Resolved = (FeatureShape, Vec<ParameterSpec>, u64);

/// Where a layer stands while its shapes are computed.
struct LayerResolver {
    index: usize,
    input: FeatureShape,
}

impl LayerResolver {
    fn require(
        &self,
        holds: bool,
        key: &'static str,
        value: impl ToString,
        expected: &'static str,
    ) -> Result<(), NetworkError> {
        if holds {
            return Ok(());
        }
        Err(NetworkError::Value { layer: self.index, key, value: value.to_string(), expected })
    }

    fn refuse<T>(&self, kind: &'static str, reason: &'static str) -> Result<T, NetworkError> {
        Err(NetworkError::Input { layer: self.index, kind, input: self.input, reason })
    }

    fn parameter(&self, name: &str, shape: Vec<usize>, role: ParameterRole) -> ParameterSpec {
        ParameterSpec { name: format!("layers.{}.{name}", self.index), shape, role }
    }

    fn conv(&self, conv: &ConvConfig) -> Result<Resolved, NetworkError> {
        self.require((1..=4096).contains(&conv.filters), "filters", conv.filters, "use 1 to 4096")?;
        self.require((1..=31).contains(&conv.kernel), "kernel", conv.kernel, "use 1 to 31")?;
        self.require((1..=8).contains(&conv.stride), "stride", conv.stride, "use 1 to 8")?;
        self.require(conv.l2 >= 0.0 && conv.l2.is_finite(), "l2", conv.l2, "use 0 or more")?;
        let odd = conv.padding == Padding::Valid || conv.kernel % 2 == 1;
        self.require(odd, "kernel", conv.kernel, "padding \"same\" needs an odd kernel")?;
        let FeatureShape::Planes { channels, height, width } = self.input else {
            return self.refuse("conv", "a convolution must come before flatten");
        };
        let padding = conv.padding_size();
        if height + 2 * padding < conv.kernel || width + 2 * padding < conv.kernel {
            return self.refuse("conv", "the kernel is larger than the picture");
        }
        let out = |size: usize| (size + 2 * padding - conv.kernel) / conv.stride + 1;
        let output = FeatureShape::Planes { channels: conv.filters, height: out(height), width: out(width) };
        let window = conv.kernel * conv.kernel;
        let role = ParameterRole::Kernel { fan_in: channels * window, fan_out: conv.filters * window };
        let parameters = vec![
            self.parameter("weight", vec![conv.filters, channels, conv.kernel, conv.kernel], role),
            self.parameter("bias", vec![conv.filters], ParameterRole::Bias),
        ];
        Ok((output, parameters, (output.len() * channels * window) as u64))
    }

    fn batch_norm(&self, norm: &BatchNormConfig) -> Result<Resolved, NetworkError> {
        self.require((0.0..1.0).contains(&norm.momentum), "momentum", norm.momentum, "use 0 up to below 1")?;
        self.require(norm.epsilon > 0.0 && norm.epsilon <= 1.0, "epsilon", norm.epsilon, "use above 0 up to 1")?;
        let shape = vec![self.input.channels()];
        let parameters = vec![
            self.parameter("gamma", shape.clone(), ParameterRole::Gamma),
            self.parameter("beta", shape.clone(), ParameterRole::Beta),
            self.parameter("running_mean", shape.clone(), ParameterRole::RunningMean),
            self.parameter("running_variance", shape, ParameterRole::RunningVariance),
        ];
        Ok((self.input, parameters, 0))
    }

    fn pool(&self, kind: &'static str, pool: &PoolConfig) -> Result<Resolved, NetworkError> {
        self.require((1..=15).contains(&pool.size), "size", pool.size, "use 1 to 15")?;
        let FeatureShape::Planes { channels, height, width } = self.input else {
            return self.refuse(kind, "pooling must come before flatten");
        };
        if height < pool.size || width < pool.size {
            return self.refuse(kind, "the window is larger than the picture");
        }
        let output = FeatureShape::Planes { channels, height: height / pool.size, width: width / pool.size };
        Ok((output, Vec::new(), 0))
    }

    fn dense(&self, dense: &DenseConfig) -> Result<Resolved, NetworkError> {
        self.require((1..=65_536).contains(&dense.units), "units", dense.units, "use 1 to 65536")?;
        self.require(dense.l2 >= 0.0 && dense.l2.is_finite(), "l2", dense.l2, "use 0 or more")?;
        let FeatureShape::Flat { features } = self.input else {
            return self.refuse("dense", "put a flatten layer before it");
        };
        let role = ParameterRole::Kernel { fan_in: features, fan_out: dense.units };
        let parameters = vec![
            self.parameter("weight", vec![features, dense.units], role),
            self.parameter("bias", vec![dense.units], ParameterRole::Bias),
        ];
        Ok((FeatureShape::Flat { features: dense.units }, parameters, (features * dense.units) as u64))
    }
}
