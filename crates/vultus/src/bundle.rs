//! A trained classifier in one file: weights, labels, preprocessing, network, and where it came from.
//!
//! In: the parts. Out: one safetensors file, written atomically, checksummed; and back, with every part checked
//! against the others, so that what loads also runs. Running it is [`crate::classifier`]'s work.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::container::{Container, ContainerError, Format};
use crate::inference::{Inference, ViewsError};
use crate::labels::Labels;
use crate::network::{NetworkConfig, NetworkError, ParameterRole, ResolvedNetwork};
use crate::preprocess::{Preprocessing, PreprocessingError};
use crate::weights::{Weights, WeightsError};

/// What bundles call themselves, and the version written.
pub const FORMAT: Format = Format { name: "vultus-bundle", version: 1 };

const LABELS: &str = "labels";
const PREPROCESSING: &str = "preprocessing";
const NETWORK: &str = "network";
const INFERENCE: &str = "inference";
const TRAINING: &str = "training";
const METRICS: &str = "metrics";

/// A trained classifier with everything needed to run it.
#[derive(Clone, Debug, PartialEq)]
pub struct Bundle {
    /// Class names, in the order of the outputs.
    pub labels: Labels,
    /// What happens to a picture before the network sees it.
    pub preprocessing: Preprocessing,
    /// The network's description.
    pub network: NetworkConfig,
    /// Its tensors.
    pub weights: Weights,
    /// How its answers become probabilities.
    pub inference: Inference,
    /// Facts about the training, for people and for tracing, and for finding the images that the model is to be measured on; no
    /// prediction depends on them.
    pub training: Value,
    /// Measured results, likewise.
    pub metrics: Value,
}

/// A bundle that cannot be written or used, with the reason.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The file: unreadable, foreign, from a newer version, damaged.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// The file is sound, but its parts make no classifier.
    #[error("{path} is no usable {format}: {fault}", format = FORMAT.name)]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        fault: BundleFault,
    },
}

/// Parts that do not make a classifier.
#[derive(Debug, thiserror::Error)]
pub enum BundleFault {
    /// A part is not there.
    #[error("its metadata has no {key}")]
    Missing {
        /// Name in the metadata.
        key: &'static str,
    },
    /// A part cannot be read.
    #[error("{key} in its metadata cannot be read: {reason}")]
    Text {
        /// Name in the metadata.
        key: &'static str,
        /// What the reader says.
        reason: serde_json::Error,
    },
    /// Preprocessing out of range.
    #[error(transparent)]
    Preprocessing(#[from] PreprocessingError),
    /// The description is no network.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// As many outputs as labels are needed.
    #[error("it names {labels} classes, but its network has {outputs} outputs")]
    Labels {
        /// Number of labels.
        labels: usize,
        /// Outputs of the stored head.
        outputs: usize,
    },
    /// The weights are those of another network.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// Views that cannot be made.
    #[error("its inference settings are out of range: {0}")]
    Views(#[from] ViewsError),
    /// A temperature that gives no probabilities.
    #[error("its inference settings are out of range: temperature is {0}")]
    Temperature(f32),
    /// A variance that is none.
    #[error("tensor {tensor} holds a negative variance")]
    NegativeVariance {
        /// Its name.
        tensor: String,
    },
    /// A weight is infinite or not a number.
    #[error("tensor {tensor} holds a value that is not finite: the training diverged")]
    NotFinite {
        /// Its name.
        tensor: String,
    },
}

impl Bundle {
    /// Checks that the parts belong together, and gives the network with its shapes.
    ///
    /// # Errors
    /// The first part that does not fit.
    pub fn resolve(&self) -> Result<ResolvedNetwork, BundleFault> {
        self.preprocessing.validate()?;
        self.inference.views.validate()?;
        let temperature = self.inference.temperature;
        if !(temperature > 0.0 && temperature.is_finite()) {
            return Err(BundleFault::Temperature(temperature));
        }
        let (height, width) = (self.preprocessing.height as usize, self.preprocessing.width as usize);
        let network = self.network.resolve(height, width, self.labels.len())?;
        if let Ok(head) = self.weights.get(&format!("layers.{}.bias", self.network.layers.len()))
            && head.data.len() != self.labels.len()
        {
            return Err(BundleFault::Labels { labels: self.labels.len(), outputs: head.data.len() });
        }
        self.weights.check(&network)?;
        if let Some((tensor, _)) =
            self.weights.iter().find(|(_, tensor)| !tensor.data.iter().all(|value| value.is_finite()))
        {
            return Err(BundleFault::NotFinite { tensor: tensor.to_owned() });
        }
        for spec in network.parameters().filter(|spec| matches!(spec.role, ParameterRole::RunningVariance)) {
            if self.weights.get(&spec.name)?.data.iter().any(|&value| value < 0.0) {
                return Err(BundleFault::NegativeVariance { tensor: spec.name.clone() });
            }
        }
        Ok(network)
    }

    /// The facts about the training, in the form in which their reader wants them.
    ///
    /// # Errors
    /// A fact of another form.
    pub fn training_as<T: DeserializeOwned>(&self) -> Result<T, BundleFault> {
        T::deserialize(&self.training).map_err(|reason| BundleFault::Text { key: TRAINING, reason })
    }

    /// The bundle with its kernels rounded to half precision (11 significant bits), which halves its file. Vectors, such
    /// as biases and statistics, stay as they are: they are small, and some are small numbers. So do kernels with a number too large
    /// for it.
    pub fn halved(mut self) -> Self {
        self.weights = self
            .weights
            .iter()
            .map(|(name, tensor)| {
                let mut tensor = tensor.clone();
                let halved = |value: &f32| half::f16::from_f32(*value).to_f32();
                if tensor.shape.len() > 1 && tensor.data.iter().all(|value| halved(value).is_finite()) {
                    tensor.data.iter_mut().for_each(|value| *value = halved(value));
                }
                (name.to_owned(), tensor)
            })
            .collect();
        self
    }

    /// Writes the bundle; the file is complete or absent.
    ///
    /// # Errors
    /// Parts that do not belong together (so that no bundle is written that does not load), or the disk's refusal.
    pub fn save(&self, path: &Path) -> Result<(), BundleError> {
        Ok(self.container(path)?.save(path, FORMAT)?)
    }

    /// As [`Bundle::save`], to a file that is not there yet.
    ///
    /// # Errors
    /// As there, and a file of this name.
    pub fn save_new(&self, path: &Path) -> Result<(), BundleError> {
        Ok(self.container(path)?.save_new(path, FORMAT)?)
    }

    /// What is written to `path`, if it would load.
    fn container(&self, path: &Path) -> Result<Container, BundleError> {
        let unusable = |fault| BundleError::Unusable { path: path.to_owned(), fault };
        self.resolve().map_err(unusable)?;
        let texts = [
            (LABELS, text(LABELS, &self.labels)),
            (PREPROCESSING, text(PREPROCESSING, &self.preprocessing)),
            (NETWORK, text(NETWORK, &self.network)),
            (INFERENCE, text(INFERENCE, &self.inference)),
            (TRAINING, text(TRAINING, &self.training)),
            (METRICS, text(METRICS, &self.metrics)),
        ];
        let mut container = Container { tensors: self.weights.clone(), ..Container::default() };
        for (key, text) in texts {
            container.texts.insert(key.to_owned(), text.map_err(unusable)?);
        }
        Ok(container)
    }

    /// Reads and checks a bundle.
    ///
    /// # Errors
    /// Why the file is refused: no safetensors file or a truncated one, another program's, a newer version's, damaged,
    /// or with parts that do not belong together.
    pub fn load(path: &Path) -> Result<Self, BundleError> {
        Self::from_container(Container::load(path, FORMAT)?, path)
    }

    /// Reads and checks a bundle that is in memory; `path` is what errors call it.
    ///
    /// # Errors
    /// As [`Bundle::load`].
    pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<Self, BundleError> {
        Self::from_container(Container::from_bytes(bytes, path, FORMAT)?, path)
    }

    fn from_container(container: Container, path: &Path) -> Result<Self, BundleError> {
        let Container { texts, tensors } = container;
        let unusable = |fault| BundleError::Unusable { path: path.to_owned(), fault };
        let get = |key| texts.get(key).map(String::as_str).ok_or(BundleFault::Missing { key });
        let parts = || -> Result<Self, BundleFault> {
            let bundle = Self {
                labels: parse(LABELS, get(LABELS)?)?,
                preprocessing: parse(PREPROCESSING, get(PREPROCESSING)?)?,
                network: parse(NETWORK, get(NETWORK)?)?,
                // Files from before it was stored have one view and no temperature.
                inference: texts.get(INFERENCE).map_or(Ok(Inference::default()), |text| parse(INFERENCE, text))?,
                training: parse(TRAINING, get(TRAINING)?)?,
                metrics: parse(METRICS, get(METRICS)?)?,
                weights: tensors,
            };
            bundle.resolve()?;
            Ok(bundle)
        };
        parts().map_err(unusable)
    }
}

fn text(key: &'static str, part: &impl Serialize) -> Result<String, BundleFault> {
    serde_json::to_string(part).map_err(|reason| BundleFault::Text { key, reason })
}

fn parse<T: DeserializeOwned>(key: &'static str, text: &str) -> Result<T, BundleFault> {
    serde_json::from_str(text).map_err(|reason| BundleFault::Text { key, reason })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::network::{BatchNormConfig, ConvConfig, FlattenConfig, LayerConfig, Padding};
    use crate::weights::WeightTensor;
    use serde_json::json;
    use std::io;
    use vultus_kernels::activation::Activation;

    /// A classifier of 4 x 4 pictures by their mean: dark ones are sad, bright ones happy.
    pub(crate) fn brightness() -> Bundle {
        let conv = ConvConfig {
            filters: 1,
            kernel: 4,
            stride: 1,
            padding: Padding::Valid,
            bias: true,
            activation: Activation::Relu,
            l2: 0.0,
        };
        let tensor = |shape: &[usize], data: &[f32]| WeightTensor { shape: shape.to_vec(), data: data.to_vec() };
        Bundle {
            labels: Labels::new(["happy", "sad"]).unwrap(),
            preprocessing: Preprocessing { width: 4, height: 4, ..Preprocessing::default() },
            network: NetworkConfig { layers: vec![LayerConfig::Conv(conv), LayerConfig::Flatten(FlattenConfig {})] },
            weights: [
                ("layers.0.weight".to_owned(), tensor(&[4, 4, 1, 1], &[1.0 / 16.0; 16])),
                ("layers.0.bias".to_owned(), tensor(&[1], &[0.0])),
                ("layers.2.weight".to_owned(), tensor(&[1, 2], &[0.1, -0.1])),
                ("layers.2.bias".to_owned(), tensor(&[2], &[-12.0, 12.0])),
            ]
            .into_iter()
            .collect(),
            inference: Inference::default(),
            training: json!({"seed": 1, "epochs": 2, "by": "quotes \" and faces \u{1f600}"}),
            metrics: json!({"accuracy": 0.5104166666666666}),
        }
    }

    fn saved(bundle: &Bundle) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("model.safetensors");
        bundle.save(&path).unwrap();
        (directory, path)
    }

    fn refusal(path: &Path) -> String {
        let message = Bundle::load(path).unwrap_err().to_string();
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(message.contains(name), "the message does not name the file: {message}");
        message
    }

    #[test]
    fn a_bundle_comes_back_as_it_was_written() {
        let bundle = Bundle { inference: Inference { temperature: 1.5, ..Inference::default() }, ..brightness() };
        let (_directory, path) = saved(&bundle);
        assert_eq!(Bundle::load(&path).unwrap(), bundle);
    }

    #[test]
    fn a_variance_below_0_is_refused_by_its_tensor() {
        let mut bundle = brightness();
        bundle.network.layers.insert(0, LayerConfig::BatchNorm(BatchNormConfig { momentum: 0.9, epsilon: 1e-3 }));
        let moved = bundle.weights.iter().map(|(name, tensor)| {
            let place = name.strip_prefix("layers.").and_then(|rest| rest.split_once('.'));
            let (index, kind) = place.map(|(index, kind)| (index.parse::<usize>().unwrap() + 1, kind)).unwrap();
            (format!("layers.{index}.{kind}"), tensor.clone())
        });
        bundle.weights = moved.collect();
        for (kind, value) in [("gamma", 1.0), ("beta", 0.0), ("running_mean", 0.0), ("running_variance", -1.0)] {
            bundle.weights.insert(format!("layers.0.{kind}"), WeightTensor { shape: vec![1], data: vec![value] });
        }
        let message = bundle.resolve().unwrap_err().to_string();
        assert_eq!(message, "tensor layers.0.running_variance holds a negative variance");
    }

    #[test]
    fn equal_bundles_are_equal_files() {
        let [first, second] =
            [saved(&brightness()), saved(&brightness())].map(|(_directory, path)| fs_err::read(path).unwrap());
        assert!(first == second);
    }

    #[test]
    fn a_halved_bundle_has_a_smaller_file_and_comes_back_as_it_was_written() {
        let mut bundle = brightness();
        bundle.weights.insert("layers.0.bias".into(), WeightTensor { shape: vec![1], data: vec![1e-9] });
        let (_directory, whole) = saved(&bundle);
        let halved = bundle.clone().halved();
        let (_other, half) = saved(&halved);
        assert_eq!(Bundle::load(&half).unwrap(), halved);
        assert!(fs_err::metadata(&half).unwrap().len() < fs_err::metadata(&whole).unwrap().len());
        for (name, tensor) in halved.weights.iter() {
            let original = &bundle.weights.get(name).unwrap().data;
            let near = |(a, b): (&f32, &f32)| (a - b).abs() <= b.abs() / 2048.0;
            assert!(tensor.data.iter().zip(original).all(near), "{name}");
        }
        assert_eq!(halved.weights.get("layers.0.bias").unwrap().data, [1e-9]);
        // Half precision ends at 65,504.
        let mut large = brightness();
        let (name, tensor) = large.weights.iter().find(|(_, tensor)| tensor.shape.len() > 1).unwrap();
        let (name, mut tensor) = (name.to_owned(), tensor.clone());
        tensor.data[0] = 1e5;
        large.weights.insert(name.clone(), tensor.clone());
        assert_eq!(large.halved().weights.get(&name).unwrap(), &tensor);
    }

    #[test]
    fn a_file_without_inference_settings_has_the_plain_ones() {
        let unsure = Bundle { inference: Inference { temperature: 1.5, ..Inference::default() }, ..brightness() };
        let (_directory, path) = saved(&unsure);
        let mut container = Container::load(&path, FORMAT).unwrap();
        container.texts.remove(INFERENCE);
        container.save(&path, FORMAT).unwrap();
        assert_eq!(Bundle::load(&path).unwrap().inference, Inference::default());
    }

    #[test]
    fn no_damaged_byte_goes_unnoticed() {
        let (_directory, path) = saved(&brightness());
        let bytes = fs_err::read(&path).unwrap();
        for index in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[index] ^= 1 << (index % 8);
            fs_err::write(&path, damaged).unwrap();
            assert!(Bundle::load(&path).is_err(), "byte {index} of {}", bytes.len());
        }
        let mut damaged = bytes.clone();
        *damaged.last_mut().unwrap() ^= 1;
        fs_err::write(&path, damaged).unwrap();
        assert!(refusal(&path).contains("damaged"), "{}", refusal(&path));
    }

    #[test]
    fn no_truncated_file_is_read() {
        let (_directory, path) = saved(&brightness());
        let bytes = fs_err::read(&path).unwrap();
        for length in 0..bytes.len() {
            fs_err::write(&path, &bytes[..length]).unwrap();
            assert!(refusal(&path).contains(&format!("breaks off after {length} bytes")), "{}", refusal(&path));
        }
        fs_err::write(&path, [&bytes[..], &[0]].concat()).unwrap();
        assert!(refusal(&path).contains("is no vultus-bundle"), "{}", refusal(&path));
    }

    #[test]
    fn foreign_files_are_refused_with_what_they_are() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("model");
        assert!(matches!(Bundle::load(&path), Err(BundleError::Container(ContainerError::Io(_)))));
        fs_err::write(&path, "a text file, longer than any header's eight bytes").unwrap();
        assert!(refusal(&path).contains("is no vultus-bundle"));

        let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![1], &[0; 4]).unwrap();
        fs_err::write(&path, safetensors::serialize([("weight", view)], None).unwrap()).unwrap();
        assert!(refusal(&path).contains("safetensors file of another program"), "{}", refusal(&path));

        fs_err::File::create(&path).unwrap().set_len(3 << 30).unwrap(); // sparse
        assert!(refusal(&path).contains("3221225472 bytes"), "{}", refusal(&path));
        Container::default().save(&path, Format { name: "vultus-checkpoint", version: 1 }).unwrap();
        assert!(refusal(&path).contains("vultus-checkpoint"), "{}", refusal(&path));
        Container::default().save(&path, Format { version: 2, ..FORMAT }).unwrap();
        assert!(refusal(&path).contains("use a newer vultus"), "{}", refusal(&path));
        Container::default().save(&path, FORMAT).unwrap();
        assert!(refusal(&path).contains("no labels"), "{}", refusal(&path));
    }

    #[test]
    fn parts_that_do_not_belong_together_are_neither_written_nor_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("model");
        let tensor = |shape: &[usize], data: &[f32]| WeightTensor { shape: shape.to_vec(), data: data.to_vec() };
        let mut cases = Vec::new();
        let mut case = |change: &dyn Fn(&mut Bundle), expected: &'static str| {
            let mut bundle = brightness();
            change(&mut bundle);
            cases.push((bundle, expected));
        };
        case(&|b| b.labels = Labels::new(["a", "b", "c"]).unwrap(), "names 3 classes, but its network has 2 outputs");
        case(&|b| b.weights.insert("layers.9.bias".into(), tensor(&[1], &[0.0])), "layers.9.bias belongs to no layer");
        case(&|b| b.weights.insert("layers.0.bias".into(), tensor(&[2], &[0.0; 2])), "layers.0.bias has shape [2]");
        case(&|b| b.weights.insert("layers.0.bias".into(), tensor(&[1], &[f32::NAN])), "not finite");
        case(&|b| b.inference.temperature = 0.0, "out of range");
        case(&|b| b.preprocessing.width = 0, "preprocessing.width is 0");
        case(&|b| b.preprocessing.width = 3, "kernel is larger");
        case(&|b| b.network.layers.truncate(1), "flatten");
        for (bundle, expected) in cases {
            let message = bundle.save(&path).unwrap_err().to_string();
            assert!(message.contains(expected), "{message} has no {expected}");
            assert!(!path.exists());
            // The same file from a program that does not check.
            let texts = [
                (LABELS, text(LABELS, &bundle.labels).unwrap()),
                (PREPROCESSING, text(PREPROCESSING, &bundle.preprocessing).unwrap()),
                (NETWORK, text(NETWORK, &bundle.network).unwrap()),
                (INFERENCE, text(INFERENCE, &bundle.inference).unwrap()),
                (TRAINING, "null".to_owned()),
                (METRICS, "null".to_owned()),
            ];
            let texts = texts.into_iter().map(|(key, text)| (key.to_owned(), text)).collect();
            Container { texts, tensors: bundle.weights }.save(&path, FORMAT).unwrap();
            assert!(refusal(&path).contains(expected), "{} has no {expected}", refusal(&path));
            fs_err::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn text_that_cannot_be_read_is_named_by_its_key() {
        let (_directory, path) = saved(&brightness());
        for (key, text, expected) in [(LABELS, "[]", "empty"), (NETWORK, "{\"layers\":[{\"type\":\"x\"}]}", "variant")]
        {
            let mut container = Container::load(&path, FORMAT).unwrap();
            container.texts.insert(key.to_owned(), text.to_owned());
            let other = path.with_extension("other");
            container.save(&other, FORMAT).unwrap();
            let message = refusal(&other);
            assert!(message.contains(&format!("{key} in its metadata")) && message.contains(expected), "{message}");
        }
    }

    #[test]
    fn a_refused_write_keeps_the_old_bundle() {
        let (directory, path) = saved(&brightness());
        let mut worse = brightness();
        worse.labels = Labels::new(["a", "b", "c"]).unwrap();
        worse.save(&path).unwrap_err();
        assert_eq!(Bundle::load(&path).unwrap(), brightness());
        let gone = directory.path().join("gone").join("model");
        let error = brightness().save(&gone).unwrap_err();
        let BundleError::Container(ContainerError::Io(error)) = error else { panic!("{error}") };
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
