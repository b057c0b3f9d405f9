//! The state of a training run at one step: enough to go on as if nothing had happened.
//!
//! In: network, optimiser, progress. Out: one file in the [container](vultus::container) format, and back. There is no
//! generator state in it: every random choice is derived from the seed and the step's number.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use vultus::container::{Container, ContainerError, Format, LARGEST_FILE};
use vultus::weights::{WeightTensor, Weights};

use crate::history::EpochRecord;

const FORMAT: Format = Format { name: "vultus-checkpoint", version: 1 };

/// Prefix of the names of the optimiser's tensors.
const OPTIMIZER: &str = "optimizer.";

/// Key of an identity for the settings of `train`. Checkpoints from before it was there are compared without it.
pub(crate) const SETTINGS: &str = "train";

/// Bytes that names, history and the like may take beside the numbers of a checkpoint.
const ROOM_FOR_TEXTS: u64 = 16 << 20;

/// Prefix of the names of the averaged weights.
const AVERAGE: &str = "average.";

/// How far a run has come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Epochs that are finished.
    pub epoch: usize,
    /// Steps done in the epoch after them.
    pub step: usize,
    /// Updates of the optimiser since the start.
    pub updates: u64,
    /// Sums over the steps of the unfinished epoch.
    pub running: RunningEpoch,
    /// Finished epochs.
    pub history: Vec<EpochRecord>,
    /// Best epoch so far by the monitored value.
    pub best: Option<BestEpoch>,
}

/// Sums over the steps of one epoch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunningEpoch {
    /// Loss times batch size.
    pub loss: f64,
    /// Images classified correctly.
    pub correct: usize,
    /// Images seen.
    pub seen: usize,
    /// Seconds spent.
    pub seconds: f64,
    /// Seconds of them spent waiting for a batch.
    pub waited: f64,
}

/// An epoch and its monitored value.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BestEpoch {
    /// Its number, from 1.
    pub epoch: usize,
    /// Validation accuracy or loss.
    pub value: f64,
}

/// Everything a run needs to go on.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// What must be the same for it to fit: labels, network, optimiser, data and settings, as a JSON object.
    pub identity: String,
    /// How far the run had come.
    pub progress: Progress,
    /// The network's tensors.
    pub weights: Weights,
    /// The optimiser's tensors.
    pub optimizer: Weights,
    /// The averaged weights, where the run averages.
    pub average: Option<Weights>,
}

/// A checkpoint that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file is refused, or cannot be written.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// It would be larger than one that can be read again.
    #[error(
        "weights, optimiser and average take {bytes} bytes, and a checkpoint has at most {LARGEST_FILE}: make the network \
         smaller, or use train.average_decay=0 or train.optimizer.type=sgd"
    )]
    TooLarge {
        /// What the numbers of the state take.
        bytes: u64,
    },
    /// It belongs to another network, other labels or other data.
    #[error(
        "{path} is a checkpoint of another run: its {part} differs; {}",
        match part.as_str() {
            "data" | "images" | "labels" | "votes" => "put the run's own images back, or train anew",
            "teachers" => "put the teachers' own files back, or train anew",
            _ => "resume with the run's own configuration",
        }
    )]
    OtherRun {
        /// The file.
        path: String,
        /// What differs.
        part: String,
    },
}

/// Checks that a state of so many `numbers` (32 bits each) makes a checkpoint that can be read again.
///
/// # Errors
/// It does not; said before hours of training are spent.
pub fn check_size(numbers: usize) -> Result<(), CheckpointError> {
    let bytes = 4 * numbers as u64;
    if bytes + ROOM_FOR_TEXTS > LARGEST_FILE { Err(CheckpointError::TooLarge { bytes }) } else { Ok(()) }
}

impl Checkpoint {
    /// Writes the file; an older one stays until this one is complete.
    ///
    /// # Errors
    /// The system's refusal, naming `path`.
    pub fn save(&self, path: &Path) -> Result<(), CheckpointError> {
        let mut container = Container::default();
        container.texts.insert("identity".to_owned(), self.identity.clone());
        let progress = serde_json::to_string(&self.progress).map_err(|error| content(path, &error))?;
        container.texts.insert("progress".to_owned(), progress);
        let prefixed = |prefix: &'static str, weights: &Weights| -> Vec<(String, WeightTensor)> {
            weights.iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor.clone())).collect()
        };
        let average = self.average.as_ref().map(|average| prefixed(AVERAGE, average)).unwrap_or_default();
        let parts = [prefixed("", &self.weights), prefixed(OPTIMIZER, &self.optimizer), average];
        container.tensors = parts.into_iter().flatten().collect();
        Ok(container.save(path, FORMAT)?)
    }

    /// Reads the file and checks that it belongs to the run called `identity`.
    ///
    /// # Errors
    /// A damaged or foreign file, or one of another run, with what differs.
    pub fn load(path: &Path, identity: &str) -> Result<Self, CheckpointError> {
        let container = Container::load(path, FORMAT)?;
        let text = |name: &str| container.texts.get(name).cloned().unwrap_or_default();
        let found = text("identity");
        if let Some(part) = differing_part(&found, identity) {
            return Err(CheckpointError::OtherRun { path: path.display().to_string(), part });
        }
        let progress = serde_json::from_str(&text("progress")).map_err(|error| content(path, &error))?;
        let (mut weights, mut optimizer, mut average) = (Weights::default(), Weights::default(), None);
        for (name, tensor) in container.tensors.iter() {
            if let Some(name) = name.strip_prefix(OPTIMIZER) {
                optimizer.insert(name.to_owned(), tensor.clone());
            } else if let Some(name) = name.strip_prefix(AVERAGE) {
                average.get_or_insert_with(Weights::default).insert(name.to_owned(), tensor.clone());
            } else {
                weights.insert(name.to_owned(), tensor.clone());
            }
        }
        Ok(Self { identity: found, progress, weights, optimizer, average })
    }
}

fn content(path: &Path, error: &serde_json::Error) -> CheckpointError {
    let reason = error.to_string();
    CheckpointError::Container(ContainerError::Content { path: path.to_owned(), expected: FORMAT.name, reason })
}

/// The first part in which two identities differ: a key, or keys with dots between them.
fn differing_part(found: &str, expected: &str) -> Option<String> {
    let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
    let (found, mut expected) = (parse(found), parse(expected));
    if let (None, Value::Object(expected)) = (found.get(SETTINGS), &mut expected) {
        expected.remove(SETTINGS);
    }
    differing_key(&found, &expected)
}

/// Empty where neither of two values that differ is an object.
fn differing_key(found: &Value, expected: &Value) -> Option<String> {
    if found == expected {
        return None;
    }
    let mut keys = [expected, found].into_iter().filter_map(Value::as_object).flat_map(Map::keys);
    match keys.find_map(|key| Some((key, differing_key(&found[key], &expected[key])?))) {
        None => Some(String::new()),
        Some((key, inner)) if inner.is_empty() => Some(key.clone()),
        Some((key, inner)) => Some(format!("{key}.{inner}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint() -> Checkpoint {
        let tensor = |value: f32| WeightTensor { shape: vec![2], data: vec![value, f32::MIN_POSITIVE] };
        Checkpoint {
            identity: r#"{"labels":["a","b"],"network":1}"#.to_owned(),
            progress: Progress {
                epoch: 2,
                step: 3,
                updates: 40,
                running: RunningEpoch { loss: 0.1 + 0.2, correct: 1, seen: 2, seconds: 0.5, waited: 0.25 },
                history: Vec::new(),
                best: Some(BestEpoch { epoch: 1, value: 1.0 / 3.0 }),
            },
            weights: [("layers.0.bias".to_owned(), tensor(1.0))].into_iter().collect(),
            optimizer: [("velocity.layers.0.bias".to_owned(), tensor(2.0))].into_iter().collect(),
            average: Some([("layers.0.bias".to_owned(), tensor(1.5))].into_iter().collect()),
        }
    }

    #[test]
    fn round_trip() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("last.safetensors");
        let checkpoint = checkpoint();
        checkpoint.save(&path).unwrap();
        assert_eq!(Checkpoint::load(&path, &checkpoint.identity).unwrap(), checkpoint);
    }

    #[test]
    fn the_largest_network_has_room_for_two_moments_and_not_for_an_average() {
        let largest = 150_000_000;
        check_size(3 * largest).unwrap();
        let message = check_size(4 * largest).unwrap_err().to_string();
        assert!(message.contains("2400000000 bytes") && message.contains("train.average_decay=0"), "{message}");
    }

    #[test]
    fn another_network_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("last.safetensors");
        checkpoint().save(&path).unwrap();
        let message = Checkpoint::load(&path, r#"{"labels":["a","b"],"network":2}"#).unwrap_err().to_string();
        assert!(message.contains("its network differs"), "{message}");
    }
}
