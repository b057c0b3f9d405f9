//! The training history: one record an epoch, kept as JSON lines (`metrics.jsonl`).
//!
//! In: records from the training loop. Out: the same records, for figures, reports and resumed runs. It measures
//! nothing and knows no TensorBoard files.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vultus::persist::write_atomically;

/// What happened in one epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochRecord {
    /// Number of the epoch; the first is 1.
    pub epoch: usize,
    /// Mean training loss, penalties and class weights included.
    pub loss: f64,
    /// Share of training images classified correctly while training (0 to 1).
    pub accuracy: f64,
    /// Loss on the validation part, penalties included, where there is one.
    pub val_loss: Option<f64>,
    /// The same without penalties, which make losses of other settings incomparable; what an older version wrote has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val_cross_entropy: Option<f64>,
    /// Accuracy on the validation part, where there is one.
    pub val_accuracy: Option<f64>,
    /// Learning rate of the last step.
    pub learning_rate: f64,
    /// Training images a second, waiting included.
    pub images_per_second: f64,
    /// Share of the training time spent waiting for data (0 to 1).
    pub wait_share: f64,
    /// Wall-clock seconds of the epoch, validation included.
    pub seconds: f64,
}

/// Why a history could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The system refused; its message names the path.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A line is no record.
    #[error("{path} line {line}: {message}: remove the line, or the file and its run")]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        message: String,
    },
    /// A value that JSON cannot hold.
    #[error("epoch {epoch} cannot be written to {path}: {key} is not finite")]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The record's epoch.
        epoch: usize,
        /// The first such key.
        key: &'static str,
    },
}

/// Reads all records of a `metrics.jsonl`, in file order. A last line without its line break, left by a killed run, is
/// dropped.
///
/// # Errors
/// A file that cannot be read, or a complete line that is no record; it names path and line.
pub fn read(path: &Path) -> Result<Vec<EpochRecord>, HistoryError> {
    let text = fs_err::read_to_string(path)?;
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    let parse = |(index, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|error| HistoryError::Line {
            path: path.to_owned(),
            line: index + 1,
            message: error.to_string(),
        })
    };
    complete.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).map(parse).collect()
}

/// Adds one record to the end of a `metrics.jsonl`, creating the file if need be.
///
/// # Errors
/// A value that is not finite, or a failed write.
pub fn append(path: &Path, record: &EpochRecord) -> Result<(), HistoryError> {
    let line = to_line(path, record)?;
    let mut file = fs_err::OpenOptions::new().create(true).append(true).open(path)?;
    file.write_all(line.as_bytes())?;
    Ok(())
}

/// Makes the file hold exactly `records`, those of a checkpoint that a run begins or goes on from: a killed run may have
/// lost a line, and what lies beyond the checkpoint will happen again.
///
/// # Errors
/// As [`append`]; on an error the old file stays.
pub fn restore(path: &Path, records: &[EpochRecord]) -> Result<(), HistoryError> {
    let text = records.iter().map(|record| to_line(path, record)).collect::<Result<String, _>>()?;
    Ok(write_atomically(path, |file| file.write_all(text.as_bytes()))?)
}

fn to_line(path: &Path, record: &EpochRecord) -> Result<String, HistoryError> {
    let values = [
        ("loss", record.loss),
        ("accuracy", record.accuracy),
        ("val_loss", record.val_loss.unwrap_or_default()),
        ("val_accuracy", record.val_accuracy.unwrap_or_default()),
        ("learning_rate", record.learning_rate),
        ("images_per_second", record.images_per_second),
        ("wait_share", record.wait_share),
        ("seconds", record.seconds),
    ];
    if let Some((key, _)) = values.into_iter().find(|(_, value)| !value.is_finite()) {
        return Err(HistoryError::NotFinite { path: path.to_owned(), epoch: record.epoch, key });
    }
    let line = serde_json::to_string(record).map_err(io::Error::from)?;
    Ok(line + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(epoch: usize) -> EpochRecord {
        EpochRecord {
            epoch,
            loss: 1.9 / epoch as f64,
            accuracy: 0.25,
            val_loss: Some(1.7),
            val_cross_entropy: None,
            val_accuracy: None,
            learning_rate: 1e-3,
            images_per_second: 412.5,
            wait_share: 0.02,
            seconds: 55.3,
        }
    }

    #[test]
    fn records_come_back_and_the_torn_line_goes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("metrics.jsonl");
        for epoch in 1..=3 {
            append(&path, &record(epoch)).unwrap();
        }
        assert_eq!(read(&path).unwrap(), [record(1), record(2), record(3)]);
        let text = fs_err::read_to_string(&path).unwrap();
        fs_err::write(&path, format!("{text}{{\"epoch\":4,\"lo")).unwrap();
        assert_eq!(read(&path).unwrap().len(), 3);
        restore(&path, &[record(1), record(2)]).unwrap();
        append(&path, &record(3)).unwrap();
        assert_eq!(read(&path).unwrap(), [record(1), record(2), record(3)]);
    }

    #[test]
    fn a_restored_file_has_every_record_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("metrics.jsonl");
        append(&path, &record(1)).unwrap();
        fs_err::write(&path, fs_err::read_to_string(&path).unwrap() + "{\"epoch\":2,\"lo").unwrap();
        restore(&path, &[record(1), record(2)]).unwrap();
        append(&path, &record(3)).unwrap();
        assert_eq!(read(&path).unwrap(), [record(1), record(2), record(3)]);
    }

    #[test]
    fn errors_name_the_line_and_the_key() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("metrics.jsonl");
        let error = append(&path, &EpochRecord { loss: f64::NAN, ..record(7) }).unwrap_err().to_string();
        assert!(error.contains("epoch 7") && error.contains("loss"), "{error}");
        fs_err::write(&path, "\n{\"epoch\": 1}\n").unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("metrics.jsonl line 2"), "{error}");
        assert!(read(&directory.path().join("absent.jsonl")).unwrap_err().to_string().contains("absent.jsonl"));
    }
}
