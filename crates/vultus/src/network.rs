//! The description of a network, as data.
//!
//! In: a list of layers, from TOML or from a bundle's metadata. Out: the same list resolved for an input shape and a
//! number of classes, with the shape, parameters and multiply-adds of every layer. The trainable module, the inference
//! [plan](crate::plan), the architecture figure and the parameter table are all made from it; it computes nothing
//! itself.
//!
//! The classification head, a dense layer with one unit a class followed by softmax, is always the last layer and is
//! not part of the list: the data decides how many classes there are.

mod resolve;

pub use resolve::{FeatureShape, NetworkError, ParameterRole, ParameterSpec, ResolvedLayer, ResolvedNetwork};
use serde::{Deserialize, Serialize};
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
    /// Two-dimensional convolution with bias.
    Conv(ConvConfig),
    /// Batch normalisation over channels (or units, after `flatten`).
    BatchNorm(BatchNormConfig),
    /// Largest value of each window.
    MaxPool(PoolConfig),
    /// Mean of each window.
    AveragePool(PoolConfig),
    /// Sets values to zero at random while training, and scales the others up.
    Dropout(DropoutConfig),
    /// An activation on its own, for networks that normalise before it.
    Activation(ActivationConfig),
    /// Channels x height x width becomes one list of features, channel by channel.
    Flatten(FlattenConfig),
    /// Fully connected layer with bias.
    Dense(DenseConfig),
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
    /// Applied to the output.
    #[serde(default)]
    pub activation: Activation,
    /// Weight of the penalty `l2 * sum(kernel^2)` on the loss; 0 is off. The bias is never penalised.
    #[serde(default)]
    pub l2: f64,
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

fn one() -> usize {
    1
}

fn two() -> usize {
    2
}

fn batch_norm_momentum() -> f64 {
    0.99
}

fn batch_norm_epsilon() -> f64 {
    1e-3
}

impl ConvConfig {
    /// Zeros on each side: 0, or `p = (f - 1) / 2` (the report's section 2).
    pub fn padding_size(&self) -> usize {
        match self.padding {
            Padding::Valid => 0,
            Padding::Same => (self.kernel - 1) / 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paper() -> NetworkConfig {
        let conv = |filters| {
            LayerConfig::Conv(ConvConfig {
                filters,
                kernel: 3,
                stride: 1,
                padding: Padding::Valid,
                activation: Activation::Relu,
                l2: 0.01,
            })
        };
        let norm = || LayerConfig::BatchNorm(BatchNormConfig { momentum: 0.99, epsilon: 1e-3 });
        let pool = || LayerConfig::MaxPool(PoolConfig { size: 2 });
        NetworkConfig {
            layers: vec![
                conv(64),
                norm(),
                pool(),
                conv(128),
                norm(),
                pool(),
                LayerConfig::Flatten(FlattenConfig {}),
                LayerConfig::Dense(DenseConfig { units: 128, activation: Activation::Relu, l2: 0.01 }),
                norm(),
            ],
        }
    }

    #[test]
    fn counts_of_the_papers_network() {
        let network = paper().resolve(48, 48, 6).unwrap();
        // 9*64+64 | 4*64 | 9*64*128+128 | 4*128 | 10*10*128*128+128 | 4*128 | 128*6+6
        let counts: Vec<usize> = network.layers.iter().map(ResolvedLayer::parameter_count).collect();
        assert_eq!(counts, [640, 256, 0, 73_856, 512, 0, 0, 1_638_528, 512, 774]);
        assert_eq!(network.multiply_adds(), 46 * 46 * 64 * 9 + 21 * 21 * 128 * 64 * 9 + 12_800 * 128 + 128 * 6);
        assert_eq!(network.layers[6].output, FeatureShape::Flat { features: 12_800 });
    }

    #[test]
    fn errors_name_the_layer_and_the_key() {
        let mut config = paper();
        config.layers.remove(6);
        let message = config.resolve(48, 48, 6).unwrap_err().to_string();
        assert!(message.contains("network.layers.6 (dense)") && message.contains("flatten"), "{message}");
        let message = paper().resolve(4, 4, 6).unwrap_err().to_string();
        assert!(message.contains("network.layers.3 (conv)"), "{message}");
        assert_eq!(paper().resolve(48, 48, 1), Err(NetworkError::Classes(1)));
    }

    #[test]
    fn json_round_trip_and_unknown_keys() {
        let text = serde_json::to_string(&paper()).unwrap();
        assert_eq!(serde_json::from_str::<NetworkConfig>(&text).unwrap(), paper());
        let error = serde_json::from_str::<NetworkConfig>(r#"{"layers":[{"type":"dropout","rate":0.1,"rat":1}]}"#);
        assert!(error.unwrap_err().to_string().contains("rat"));
    }
}
