//! From a description to a network whose every shape, parameter and cost is worked out.
//!
//! In: a [`NetworkConfig`], the size of the pictures and the number of classes. Out: a [`ResolvedNetwork`], or the first
//! layer that cannot be, by its place and key.

use super::{
    Activation, BatchNormConfig, ConvConfig, DenseConfig, DepthwiseConvConfig, FeatureShape, LayerConfig, LayerRow,
    NetworkConfig, Padding, ParameterRole, ParameterSpec, PoolConfig, ResidualConfig, ResolvedLayer, ResolvedNetwork,
    SqueezeExcitationConfig,
};
use crate::preprocess::MAXIMUM_SIDE_PX;

/// Most parameters of a network: with an optimiser's two moments they must fit into a checkpoint, which
/// [`crate::container`] limits to 2 GiB.
const LARGEST_NETWORK: usize = 150_000_000;

/// Most values that all layers together make of one picture: three times those of VGG-16 with batch norms on a picture of
/// 224 x 224. A plan takes as many pictures at once as there are threads however wide they are, and a short file could
/// ask for any memory.
const MOST_VALUES: usize = 1 << 27;

/// A description that is no network.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum NetworkError {
    /// A value outside its range.
    #[error("network.layers.{layer}.{key} is {value}: {expected}")]
    Value {
        /// Place in the description, such as `3`, or `3.layers.1` inside a residual layer.
        layer: String,
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
        /// Place in the description; the list's length means the head.
        layer: String,
        /// The layer's type.
        kind: &'static str,
        /// Shape that reaches it.
        input: FeatureShape,
        /// Why not.
        reason: &'static str,
    },
    /// Branches that cannot be added.
    #[error("network.layers.{layer} (residual) cannot add {body} of its layers and {shortcut} of its shortcut")]
    Branches {
        /// Place in the description.
        layer: String,
        /// Shape that the layers give.
        body: FeatureShape,
        /// Shape that the shortcut gives; the input's if it is the identity.
        shortcut: FeatureShape,
    },
    /// More parameters than a checkpoint could hold.
    #[error("the network has {parameters} parameters, more than the {LARGEST_NETWORK} that are supported")]
    TooLarge {
        /// Its parameters.
        parameters: usize,
    },
    /// More values than a plan should have room for.
    #[error(
        "network.layers.{layer} ({kind}): up to here, a picture becomes {values} values, more than the {MOST_VALUES} that are \
         supported: use smaller pictures, fewer filters or a larger stride"
    )]
    TooWide {
        /// Place in the description of the layer that is too much.
        layer: String,
        /// The layer's type.
        kind: &'static str,
        /// Values of all layers up to this one.
        values: usize,
    },
    /// Pictures of no pixels, or of too many.
    #[error(
        "pictures of {width} x {height} pixels (preprocessing.width and preprocessing.height): each side must be between 1 and \
         {MAXIMUM_SIDE_PX}"
    )]
    Pictures {
        /// Of the pictures.
        width: usize,
        /// Of the pictures.
        height: usize,
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
    /// A value out of range, a layer that does not fit and one that is too much name the layer's index; more parameters than
    /// are supported; sides of no pixels or more than 2048.
    pub fn resolve(&self, height: usize, width: usize, classes: usize) -> Result<ResolvedNetwork, NetworkError> {
        if classes < 2 {
            return Err(NetworkError::Classes(classes));
        }
        if [height, width].iter().any(|side| !(1..=MAXIMUM_SIDE_PX as usize).contains(side)) {
            return Err(NetworkError::Pictures { width, height });
        }
        let input = FeatureShape::Planes { channels: 1, height, width };
        let head = LayerConfig::Dense(DenseConfig { units: classes, activation: Activation::Linear, l2: 0.0 });
        let layers = resolve_layers("", self.layers.iter().chain(std::iter::once(&head)), input)?;
        let network = ResolvedNetwork { input, classes, layers };
        let parameters = network.parameter_count();
        if parameters > LARGEST_NETWORK {
            return Err(NetworkError::TooLarge { parameters });
        }
        let mut values = 0;
        for LayerRow { place: layer, kind, output, .. } in network.table() {
            values += output.len();
            if values > MOST_VALUES {
                return Err(NetworkError::TooWide { layer, kind, values });
            }
        }
        Ok(network)
    }
}

/// Resolves layers that follow one another; `prefix` stands before their index in their place.
fn resolve_layers<'a>(
    prefix: &str,
    configs: impl Iterator<Item = &'a LayerConfig>,
    input: FeatureShape,
) -> Result<Vec<ResolvedLayer>, NetworkError> {
    let mut layers: Vec<ResolvedLayer> = Vec::new();
    for (index, config) in configs.enumerate() {
        let input = layers.last().map_or(input, |layer| layer.output);
        layers.push(resolve_layer(format!("{prefix}{index}"), config, input)?);
    }
    Ok(layers)
}

fn resolve_layer(place: String, config: &LayerConfig, input: FeatureShape) -> Result<ResolvedLayer, NetworkError> {
    let layer = LayerResolver { place, kind: config.kind(), input };
    let (output, parameters, multiply_adds) = match config {
        LayerConfig::Conv(conv) => layer.conv(conv)?,
        LayerConfig::DepthwiseConv(conv) => layer.depthwise_conv(conv)?,
        LayerConfig::SqueezeExcitation(squeeze) => layer.squeeze_excitation(squeeze)?,
        LayerConfig::BatchNorm(norm) => layer.batch_norm(norm)?,
        LayerConfig::MaxPool(pool) | LayerConfig::AveragePool(pool) => layer.pool(pool)?,
        LayerConfig::GlobalAveragePool(_) => {
            let (channels, ..) = layer.planes("pooling must come before flatten")?;
            (FeatureShape::Flat { features: channels }, Vec::new(), 0)
        }
        LayerConfig::Dropout(dropout) => {
            layer.require(is_share(dropout.rate), "rate", dropout.rate, "use 0 up to below 1")?;
            (input, Vec::new(), 0)
        }
        LayerConfig::Activation(_) => (input, Vec::new(), 0),
        LayerConfig::Flatten(_) => (FeatureShape::Flat { features: input.len() }, Vec::new(), 0),
        LayerConfig::Dense(dense) => layer.dense(dense)?,
        LayerConfig::Residual(residual) => return layer.residual(config, residual),
    };
    let (body, shortcut) = (Vec::new(), Vec::new());
    Ok(ResolvedLayer { config: config.clone(), input, output, parameters, multiply_adds, body, shortcut })
}

/// Whether a number is from 0 to below 1, also with the 32 bits that are computed with.
fn is_share(value: f64) -> bool {
    (0.0..1.0).contains(&value) && (value as f32) < 1.0
}

type Resolved = (FeatureShape, Vec<ParameterSpec>, u64);

/// Where a layer stands while its shapes are computed.
struct LayerResolver {
    place: String,
    kind: &'static str,
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
        Err(NetworkError::Value { layer: self.place.clone(), key, value: value.to_string(), expected })
    }

    fn refuse<T>(&self, reason: &'static str) -> Result<T, NetworkError> {
        Err(NetworkError::Input { layer: self.place.clone(), kind: self.kind, input: self.input, reason })
    }

    /// Channels, height and width of the input; `reason` says why a list of features will not do.
    fn planes(&self, reason: &'static str) -> Result<(usize, usize, usize), NetworkError> {
        match self.input {
            FeatureShape::Planes { channels, height, width } => Ok((channels, height, width)),
            FeatureShape::Flat { .. } => self.refuse(reason),
        }
    }

    fn parameter(&self, name: &str, shape: Vec<usize>, role: ParameterRole) -> ParameterSpec {
        ParameterSpec { name: format!("layers.{}.{name}", self.place), shape, role }
    }

    fn conv(&self, conv: &ConvConfig) -> Result<Resolved, NetworkError> {
        self.require((1..=4096).contains(&conv.filters), "filters", conv.filters, "use 1 to 4096")?;
        self.require((1..=31).contains(&conv.kernel), "kernel", conv.kernel, "use 1 to 31")?;
        let odd = conv.padding == Padding::Valid || conv.kernel % 2 == 1;
        self.require(odd, "kernel", conv.kernel, "padding \"same\" needs an odd kernel")?;
        let (channels, height, width) = self.windows(conv.kernel, conv.stride, conv.padding, conv.l2)?;
        let output = FeatureShape::Planes { channels: conv.filters, height, width };
        let window = conv.kernel * conv.kernel;
        let role = ParameterRole::Kernel { fan_in: channels * window, fan_out: conv.filters * window };
        let shape = vec![conv.kernel, conv.kernel, channels, conv.filters];
        let mut parameters = vec![self.parameter("weight", shape, role)];
        if conv.bias {
            parameters.push(self.parameter("bias", vec![conv.filters], ParameterRole::Bias));
        }
        Ok((output, parameters, (output.len() * channels * window) as u64))
    }

    /// Channels of the input, and rows and columns of the windows over it.
    fn windows(
        &self,
        kernel: usize,
        stride: usize,
        padding: Padding,
        l2: f64,
    ) -> Result<(usize, usize, usize), NetworkError> {
        self.require((1..=8).contains(&stride), "stride", stride, "use 1 to 8")?;
        self.require(l2 >= 0.0 && (l2 as f32).is_finite(), "l2", l2, "use 0 or more")?;
        let (channels, height, width) = self.planes("a convolution must come before flatten")?;
        let padding = padding.size(kernel);
        if height + 2 * padding < kernel || width + 2 * padding < kernel {
            return self.refuse("the kernel is larger than the picture");
        }
        let out = |size: usize| (size + 2 * padding - kernel) / stride + 1;
        Ok((channels, out(height), out(width)))
    }

    fn depthwise_conv(&self, conv: &DepthwiseConvConfig) -> Result<Resolved, NetworkError> {
        let odd = conv.kernel % 2 == 1 && conv.kernel <= 31;
        self.require(odd, "kernel", conv.kernel, "use an odd number from 1 to 31")?;
        let (channels, height, width) = self.windows(conv.kernel, conv.stride, conv.padding, conv.l2)?;
        let output = FeatureShape::Planes { channels, height, width };
        // Each unit sees one window of one channel.
        let window = conv.kernel * conv.kernel;
        let role = ParameterRole::Kernel { fan_in: window, fan_out: window };
        let mut parameters = vec![self.parameter("weight", vec![conv.kernel, conv.kernel, channels], role)];
        if conv.bias {
            parameters.push(self.parameter("bias", vec![channels], ParameterRole::Bias));
        }
        Ok((output, parameters, (output.len() * window) as u64))
    }

    fn squeeze_excitation(&self, squeeze: &SqueezeExcitationConfig) -> Result<Resolved, NetworkError> {
        self.require((1..=4096).contains(&squeeze.ratio), "ratio", squeeze.ratio, "use 1 to 4096")?;
        let (channels, ..) = self.planes("squeeze and excitation must come before flatten")?;
        let hidden = squeeze.hidden(channels);
        let dense = |name: &str, inputs: usize, outputs: usize| {
            let role = ParameterRole::Kernel { fan_in: inputs, fan_out: outputs };
            let weight = self.parameter(&format!("{name}_weight"), vec![inputs, outputs], role);
            [weight, self.parameter(&format!("{name}_bias"), vec![outputs], ParameterRole::Bias)]
        };
        let parameters = [dense("squeeze", channels, hidden), dense("excitation", hidden, channels)].concat();
        Ok((self.input, parameters, 2 * (channels * hidden) as u64))
    }

    fn batch_norm(&self, norm: &BatchNormConfig) -> Result<Resolved, NetworkError> {
        self.require(is_share(norm.momentum), "momentum", norm.momentum, "use 0 up to below 1")?;
        let usable = norm.epsilon as f32 > 0.0 && norm.epsilon <= 1.0;
        self.require(usable, "epsilon", norm.epsilon, "use above 0 up to 1")?;
        let shape = vec![self.input.channels()];
        let parameters = vec![
            self.parameter("gamma", shape.clone(), ParameterRole::Gamma),
            self.parameter("beta", shape.clone(), ParameterRole::Beta),
            self.parameter("running_mean", shape.clone(), ParameterRole::RunningMean),
            self.parameter("running_variance", shape, ParameterRole::RunningVariance),
        ];
        Ok((self.input, parameters, 0))
    }

    fn pool(&self, pool: &PoolConfig) -> Result<Resolved, NetworkError> {
        self.require((1..=15).contains(&pool.size), "size", pool.size, "use 1 to 15")?;
        let (channels, height, width) = self.planes("pooling must come before flatten")?;
        if height < pool.size || width < pool.size {
            return self.refuse("the window is larger than the picture");
        }
        let output = FeatureShape::Planes { channels, height: height / pool.size, width: width / pool.size };
        Ok((output, Vec::new(), 0))
    }

    fn dense(&self, dense: &DenseConfig) -> Result<Resolved, NetworkError> {
        self.require((1..=65_536).contains(&dense.units), "units", dense.units, "use 1 to 65536")?;
        self.require(dense.l2 >= 0.0 && (dense.l2 as f32).is_finite(), "l2", dense.l2, "use 0 or more")?;
        let FeatureShape::Flat { features } = self.input else {
            return self.refuse("put a flatten or global_average_pool layer before it");
        };
        let role = ParameterRole::Kernel { fan_in: features, fan_out: dense.units };
        let parameters = vec![
            self.parameter("weight", vec![features, dense.units], role),
            self.parameter("bias", vec![dense.units], ParameterRole::Bias),
        ];
        Ok((FeatureShape::Flat { features: dense.units }, parameters, (features * dense.units) as u64))
    }

    fn residual(&self, config: &LayerConfig, residual: &ResidualConfig) -> Result<ResolvedLayer, NetworkError> {
        self.planes("a residual layer must come before flatten")?;
        self.require(!residual.layers.is_empty(), "layers", "[]", "use at least one layer")?;
        let body = self.branch("layers", &residual.layers)?;
        let shortcut = self.branch("shortcut", &residual.shortcut)?;
        let output = |branch: &[ResolvedLayer]| branch.last().map_or(self.input, |layer| layer.output);
        if output(&body) != output(&shortcut) {
            return Err(NetworkError::Branches {
                layer: self.place.clone(),
                body: output(&body),
                shortcut: output(&shortcut),
            });
        }
        Ok(ResolvedLayer {
            config: config.clone(),
            input: self.input,
            output: output(&body),
            parameters: Vec::new(),
            // Too many are refused for their values, once all is resolved.
            multiply_adds: body.iter().chain(&shortcut).fold(0, |sum, layer| sum.saturating_add(layer.multiply_adds)),
            body,
            shortcut,
        })
    }

    fn branch(&self, key: &str, configs: &[LayerConfig]) -> Result<Vec<ResolvedLayer>, NetworkError> {
        let prefix = format!("{}.{key}.", self.place);
        // A list of features has lost which of its values are neighbours, so that no convolution could follow the sum.
        let flat = |config: &LayerConfig| {
            matches!(config, LayerConfig::Flatten(_) | LayerConfig::GlobalAveragePool(_) | LayerConfig::Dense(_))
        };
        let fitting = configs.iter().position(flat).unwrap_or(configs.len());
        let layers = resolve_layers(&prefix, configs[..fitting].iter(), self.input)?;
        match configs.get(fitting) {
            Some(config) => Err(NetworkError::Input {
                layer: format!("{prefix}{fitting}"),
                kind: config.kind(),
                input: layers.last().map_or(self.input, |layer| layer.output),
                reason: "the branches of a residual layer keep planes; put it behind the residual layer",
            }),
            None => Ok(layers),
        }
    }
}
