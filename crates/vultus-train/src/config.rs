//! The configuration of a run: every choice that changes a result, as one value.
//!
//! In: a TOML file and `key=value` overrides. Out: a validated [`TrainConfig`]. Precedence: defaults < file < overrides.
//! The resolved value is written into every run directory and can be run again from there.

mod changes;
mod check;
mod keys;
mod message;

use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize};
use toml::{Table, Value};
use vultus::inference::Views;
use vultus::network::{
    Activation, BatchNormConfig, ConvConfig, DenseConfig, DropoutConfig, FlattenConfig, LayerConfig, NetworkConfig,
    Padding, PoolConfig,
};
use vultus::preprocess::Preprocessing;

pub(crate) use self::keys::in_toml;
use self::keys::{assign, keys_called, parse_value};
use self::message::{in_words, wrong_layer};
use crate::augment::AugmentConfig;
use crate::clean::CleaningConfig;
use crate::dataset::split_name;
use crate::search::SearchConfig;
use crate::source::synthetic::SyntheticConfig;
use crate::targets::TargetConfig;
use crate::validation::Validation;

/// Everything that `vultus train` needs to know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Seed of the split, the initial weights, the order of the images and their changes, and the dropout.
    pub seed: u64,
    /// Where tensors live: `flex` (CPU, our kernels), and `wgpu` or `cuda` where compiled in.
    pub device: String,
    /// Which images.
    pub data: DataConfig,
    /// How an image becomes the network's input.
    pub preprocessing: Preprocessing,
    /// What is left out.
    pub cleaning: CleaningConfig,
    /// The network.
    pub network: NetworkConfig,
    /// How it is trained.
    pub train: FitConfig,
    /// The views of a picture that the finished model averages.
    pub views: Views,
    /// What `vultus search` tries; empty for `vultus train`.
    pub search: SearchConfig,
}

/// Which images are read, and what each split is for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// Folders, csv or Parquet files, or `synthetic`; several are put together.
    pub sources: Vec<String>,
    /// The split that is trained on. Read in any spelling, kept in the canonical one.
    #[serde(deserialize_with = "split")]
    pub train_split: String,
    /// The split that validates; empty means a part of the one that is trained on. Spelt as `train_split`.
    #[serde(deserialize_with = "split")]
    pub validation_split: String,
    /// The splits that the finished model is evaluated on; empty means all that neither train nor validate.
    /// Spelt as `train_split`.
    #[serde(deserialize_with = "splits")]
    pub evaluate_splits: Vec<String>,
    /// Where the classes come from.
    pub labels: LabelSource,
    /// How faces are drawn where a source is `synthetic`.
    pub synthetic: SyntheticConfig,
}

/// Where the classes of the images come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LabelSource {
    /// The data's own labels.
    #[default]
    Own,
    /// The majority of the FER+ votes, in eight classes; images without one are left out (see
    /// [`crate::source::ferplus::majority`]).
    Ferplus,
}

/// How the network is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FitConfig {
    /// Model file whose weights training begins with, as far as they fit; empty begins with random ones.
    pub start: String,
    /// Passes over the training images, up to a million.
    pub epochs: usize,
    /// Images of one step; the last step of an epoch may have fewer.
    pub batch_size: usize,
    /// Part of the training split, stratified by class, that validates; 0 is none. Not used where a split of its own does.
    pub validation_fraction: f64,
    /// Seed of that part alone, with which runs of other seeds validate on the same images; 0 is [`TrainConfig::seed`].
    pub validation_seed: u64,
    /// Factors on each sample's loss.
    pub class_weights: ClassWeights,
    /// The update rule.
    pub optimizer: OptimizerConfig,
    /// Largest norm of the gradients of all parameters together, penalties included; longer ones are scaled down to it. 0
    /// leaves them alone.
    pub clip_norm: f64,
    /// Decoupled weight decay (Loshchilov & Hutter 2019): each step first shrinks the kernels of convolutions, dense
    /// layers and squeeze and excitation by `learning rate * weight_decay`; biases and batch norms are left alone. 0 is off.
    pub weight_decay: f64,
    /// Decay of the exponential moving average (EMA) of the weights that validates and becomes the model, a step at a time; 0 is off. Early in training it is `(1 + n) / (10 + n)` after `n` earlier steps, where that is less.
    pub average_decay: f64,
    /// Radius of sharpness-aware minimisation (Foret et al. 2021): each step takes the gradient where the weights are that far up
    /// the slope, for which it computes everything twice. 0 is off.
    pub sharpness_radius: f64,
    /// How training images are changed.
    pub augmentation: AugmentConfig,
    /// What the network is to answer.
    pub targets: TargetConfig,
    /// How the learning rate changes.
    pub schedule: ScheduleConfig,
    /// When to stop before the last epoch.
    pub early_stopping: EarlyStoppingConfig,
    /// What decides which epoch is best.
    pub monitor: Monitor,
    /// Which epoch's weights become the model.
    pub keep: Keep,
    /// Minutes between checkpoints inside an epoch; there is always one at its end. 0 is never.
    pub checkpoint_minutes: f64,
}

/// Factors on each sample's loss, by its class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClassWeights {
    /// All 1.
    None,
    /// scikit-learn's `balanced`: `samples / (classes * count)`, counted over the images trained on.
    Balanced,
}

/// The update rule and its constants. The defaults of Adam and SGD are Keras', but for SGD's momentum, which is 0 there;
/// those of Muon are its authors' momentum and Adam's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum OptimizerConfig {
    /// Adam (Kingma & Ba 2015) in Keras' form: epsilon is added to the root of the uncorrected second moment.
    Adam(AdamConfig),
    /// Stochastic gradient descent with momentum.
    Sgd(SgdConfig),
    /// Muon (Jordan et al. 2024) for the kernels of hidden convolutions, dense layers and squeeze and
    /// excitation, scaled as in Liu et al. 2025 so
    /// that one learning rate does for all; Adam for depthwise kernels, the head, biases and batch norms.
    Muon(MuonConfig),
}

/// Keys of Adam.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdamConfig {
    /// Largest step size; the schedule scales it.
    pub learning_rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
}

/// Keys of Muon; the last three are those of its Adam.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MuonConfig {
    /// Largest step size; the schedule scales it.
    pub learning_rate: f64,
    /// Share of the velocity that is kept; the update looks ahead as Nesterov's does.
    pub momentum: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
}

/// Keys of SGD.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SgdConfig {
    /// Largest step size; the schedule scales it.
    pub learning_rate: f64,
    /// Share of the last step that is kept.
    pub momentum: f64,
    /// Nesterov's look-ahead.
    pub nesterov: bool,
}

/// How the learning rate changes from step to step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleConfig {
    /// The curve after the warm-up.
    #[serde(rename = "type")]
    pub kind: ScheduleKind,
    /// Part of all steps over which the rate rises linearly to its peak (`one_cycle`: the rising half).
    pub warmup: f64,
    /// Rate at the very end, as a part of the peak.
    pub floor: f64,
}

/// The curve of the learning rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleKind {
    /// The peak, always.
    Constant,
    /// Half a cosine from the peak down to the floor (Loshchilov & Hutter 2017).
    Cosine,
    /// Linearly from the peak down to the floor; with a warm-up, a triangle.
    Triangular,
    /// Up from a 25th of the peak and down to the floor, both along half a cosine (after Smith & Topin 2018, whose two
    /// ways are straight).
    OneCycle,
}

/// When to stop before the last epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EarlyStoppingConfig {
    /// Epochs without improvement of the monitored value after which training stops; 0 never stops.
    pub patience: usize,
    /// What counts as an improvement.
    pub min_delta: f64,
}

/// The value that decides which epoch is best. It is always computed on the validation part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Monitor {
    /// Validation accuracy, highest.
    ValAccuracy,
    /// Validation loss, lowest.
    ValLoss,
}

/// Which epoch's weights become the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// The best by [`Monitor`].
    Best,
    /// The last, as the report did.
    Last,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            device: "flex".to_owned(),
            data: DataConfig::default(),
            preprocessing: Preprocessing::default(),
            cleaning: CleaningConfig::default(),
            network: paper_network(),
            train: FitConfig::default(),
            views: Views::default(),
            search: SearchConfig::default(),
        }
    }
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            sources: vec!["synthetic".to_owned()],
            train_split: split_name::TRAIN.to_owned(),
            validation_split: String::new(),
            evaluate_splits: Vec::new(),
            labels: LabelSource::Own,
            synthetic: SyntheticConfig::default(),
        }
    }
}

impl Default for FitConfig {
    fn default() -> Self {
        Self {
            start: String::new(),
            epochs: 12,
            batch_size: 32,
            validation_fraction: 0.2,
            validation_seed: 0,
            class_weights: ClassWeights::Balanced,
            optimizer: OptimizerConfig::Adam(AdamConfig::default()),
            clip_norm: 0.0,
            weight_decay: 0.0,
            average_decay: 0.0,
            sharpness_radius: 0.0,
            augmentation: AugmentConfig::default(),
            targets: TargetConfig::default(),
            schedule: ScheduleConfig::default(),
            early_stopping: EarlyStoppingConfig::default(),
            monitor: Monitor::ValAccuracy,
            keep: Keep::Best,
            checkpoint_minutes: 10.0,
        }
    }
}

impl Default for AdamConfig {
    fn default() -> Self {
        Self { learning_rate: 0.001, beta1: 0.9, beta2: 0.999, epsilon: 1e-7 }
    }
}

impl Default for MuonConfig {
    fn default() -> Self {
        let AdamConfig { learning_rate, beta1, beta2, epsilon } = AdamConfig::default();
        Self { learning_rate, momentum: 0.95, beta1, beta2, epsilon }
    }
}

impl Default for SgdConfig {
    fn default() -> Self {
        Self { learning_rate: 0.01, momentum: 0.9, nesterov: false }
    }
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        Self { kind: ScheduleKind::Constant, warmup: 0.0, floor: 0.0 }
    }
}

impl Default for EarlyStoppingConfig {
    fn default() -> Self {
        Self { patience: 0, min_delta: 0.0 }
    }
}

impl OptimizerConfig {
    /// The peak of the schedule.
    pub fn learning_rate(&self) -> f64 {
        match self {
            Self::Adam(adam) => adam.learning_rate,
            Self::Sgd(sgd) => sgd.learning_rate,
            Self::Muon(muon) => muon.learning_rate,
        }
    }
}

fn split<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(split_name::meant_by(&String::deserialize(deserializer)?).to_owned())
}

fn splits<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    Ok(names.iter().map(|name| split_name::meant_by(name).to_owned()).collect())
}

/// The network that the report chose: two convolutions of 64 and 128 filters, a dense layer of 128 units, dropout 0.25,
/// L2 0.01 on their kernels.
pub fn paper_network() -> NetworkConfig {
    let conv = |filters| {
        LayerConfig::Conv(ConvConfig {
            filters,
            kernel: 3,
            stride: 1,
            padding: Padding::Valid,
            bias: true,
            activation: Activation::Relu,
            l2: 0.01,
        })
    };
    let norm = || LayerConfig::BatchNorm(BatchNormConfig { momentum: 0.99, epsilon: 1e-3 });
    let pool = || LayerConfig::MaxPool(PoolConfig { size: 2 });
    let dropout = || LayerConfig::Dropout(DropoutConfig { rate: 0.25 });
    NetworkConfig {
        layers: vec![
            conv(64),
            norm(),
            pool(),
            dropout(),
            conv(128),
            norm(),
            pool(),
            dropout(),
            LayerConfig::Flatten(FlattenConfig {}),
            LayerConfig::Dense(DenseConfig { units: 128, activation: Activation::Relu, l2: 0.01 }),
            norm(),
            dropout(),
        ],
    }
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error(transparent)]
    Read(#[from] std::io::Error),
    /// The text is no TOML, or has a key that does not exist.
    #[error("{origin}: {message}")]
    Parse {
        /// File, or the override.
        origin: String,
        /// What the parser says; it names the key.
        message: String,
    },
    /// An override that is not `key=value`.
    #[error("{0}: expected key=value, such as train.epochs=3")]
    Override(String),
    /// An override of a key that does not exist.
    #[error("{text}: there is no key {key}{hint}")]
    UnknownKey {
        /// The override.
        text: String,
        /// The part that was not found.
        key: String,
        /// The keys that do exist there.
        hint: String,
    },
    /// A value outside its range.
    #[error("{key} is {value}: {expected}")]
    Value {
        /// The key.
        key: &'static str,
        /// What it says.
        value: String,
        /// What it should say.
        expected: &'static str,
    },
}

impl TrainConfig {
    /// Which images validate.
    pub fn validation(&self) -> Validation<'_> {
        let seed = if self.train.validation_seed == 0 { self.seed } else { self.train.validation_seed };
        Validation::new(&self.data.validation_split, self.train.validation_fraction, seed)
    }

    /// Reads `path` (all defaults when `None`) and applies `key=value` overrides in order.
    ///
    /// In a key, a number is an index in a list and `*` every index whose element has the rest of the key
    /// (`network.layers.*.rate=0.1`). A value is TOML; what is no TOML is a string.
    ///
    /// # Errors
    /// An unreadable file, a key that does not exist, a value of the wrong type or out of range.
    pub fn load(path: Option<&Path>, overrides: &[String]) -> Result<Self, ConfigError> {
        let config = match path {
            None => Self::default(),
            Some(path) => {
                let text = fs_err::read_to_string(path)?;
                Self::from_toml(&text, &path.display().to_string())?
            }
        };
        config.with_overrides(overrides)
    }

    /// Parses TOML; `origin` names the text in errors.
    ///
    /// # Errors
    /// As [`TrainConfig::load`].
    pub fn from_toml(text: &str, origin: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|error| ConfigError::Parse {
            origin: origin.to_owned(),
            message: wrong_layer(text).unwrap_or_else(|| in_words(error.to_string().trim_end())),
        })?;
        config.check()?;
        Ok(config)
    }

    /// The same configuration with `key=value` overrides applied in order.
    ///
    /// # Errors
    /// As [`TrainConfig::load`].
    pub fn with_overrides(&self, overrides: &[String]) -> Result<Self, ConfigError> {
        let mut assignments = Vec::with_capacity(overrides.len());
        for text in overrides {
            let (key, value) = text.split_once('=').ok_or_else(|| ConfigError::Override(text.clone()))?;
            assignments.push((key.trim().to_owned(), parse_value(value.trim())));
        }
        self.with_values(&assignments)
    }

    /// The same configuration with values put at keys, in order.
    ///
    /// # Errors
    /// As [`TrainConfig::load`].
    pub fn with_values(&self, assignments: &[(String, Value)]) -> Result<Self, ConfigError> {
        let mut config = self.clone();
        for (key, value) in assignments {
            let text = format!("{key}={value}");
            let mut tree = Value::Table(config.to_table());
            let steps: Vec<&str> = key.split('.').collect();
            assign(&mut tree, &steps, value).map_err(|missing| {
                let meant = if steps.len() == 1 { self.keys_called(key) } else { Vec::new() };
                let hint = if meant.is_empty() { missing.hint } else { format!("; is {} meant?", meant.join(" or ")) };
                ConfigError::UnknownKey { text: text.clone(), key: missing.key, hint }
            })?;
            config = tree.try_into().map_err(|error: toml::de::Error| ConfigError::Parse {
                origin: text,
                message: in_words(error.message()),
            })?;
        }
        config.check()?;
        Ok(config)
    }

    /// The keys whose last part is `name`, such as `train.epochs` for `epochs`.
    pub fn keys_called(&self, name: &str) -> Vec<String> {
        keys_called(&self.to_table(), name)
    }

    /// The whole configuration as TOML, defaults included.
    pub fn to_toml(&self) -> String {
        toml::to_string(&self.to_table()).unwrap_or_default()
    }

    pub(crate) fn to_table(&self) -> Table {
        Table::try_from(self).unwrap_or_default()
    }

    /// Whether some images validate.
    pub fn validates(&self) -> bool {
        self.validation() != Validation::Nothing
    }
}

#[cfg(test)]
mod tests;
