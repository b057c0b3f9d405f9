//! The journal of a search: one JSON line for each finished trial, so that no trial is run twice.
//!
//! In: records of trials. Out: the records of all journals of a directory (`journal.jsonl`, `journal-3-of-16.jsonl`),
//! by key. A line is on the disk before the next trial starts; a last line without its line break, left by a killed
//! search, is cut off. It stores what was measured; which epoch counts is decided when results are made.

use std::collections::{HashMap, HashSet};
use std::fs::TryLockError;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use fs_err::File;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::config::Score;
use super::error::SearchError;
use super::shard::Shard;
use crate::config::Monitor;
use crate::history::EpochRecord;

/// What was measured on the validating fold after one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochScore {
    /// Accuracy, 0 to 1.
    pub val_accuracy: f64,
    /// Loss, penalties included.
    pub val_loss: f64,
    /// The same without penalties, which differ from setting to setting; an older version did not tell it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val_cross_entropy: Option<f64>,
}

impl EpochScore {
    /// From a training history; `None` if nothing validated.
    pub fn of(record: &EpochRecord) -> Option<Self> {
        let EpochRecord { val_accuracy, val_loss, val_cross_entropy, .. } = *record;
        Some(Self { val_accuracy: val_accuracy?, val_loss: val_loss?, val_cross_entropy })
    }
}

/// A finished trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrialRecord {
    /// [`Trial::key`](super::Trial::key).
    pub key: String,
    /// Name of each axis and its value, for readers.
    pub setting: Map<String, Value>,
    /// The fold that validated, from 1.
    pub fold: usize,
    /// Folds of the setting.
    pub folds: usize,
    /// Seed of the training.
    pub seed: u64,
    /// Every epoch in order; empty if the training diverged.
    pub epochs: Vec<EpochScore>,
    /// Why there is no score, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diverged: Option<String>,
    /// Wall-clock seconds.
    pub seconds: f64,
    /// Images trained on.
    pub images: usize,
}

impl TrialRecord {
    /// The monitored value of the epoch that counts; `None` if the training diverged.
    pub fn score(&self, score: Score, monitor: Monitor) -> Option<f64> {
        if self.diverged.is_some() { None } else { score_of(&self.epochs, score, monitor) }
    }

    /// Whether it tells losses without penalties.
    pub(super) fn tells_cross_entropy(&self) -> bool {
        self.epochs.iter().all(|epoch| epoch.val_cross_entropy.is_some())
    }

    /// The same without what older versions do not tell.
    pub(super) fn with_penalties(mut self) -> Self {
        self.epochs.iter_mut().for_each(|epoch| epoch.val_cross_entropy = None);
        self
    }
}

/// The monitored value of that of `epochs` which counts; of losses, the one without penalties where that is told.
pub fn score_of(epochs: &[EpochScore], score: Score, monitor: Monitor) -> Option<f64> {
    let mut values = epochs.iter().map(|epoch| match monitor {
        Monitor::ValAccuracy => epoch.val_accuracy,
        Monitor::ValLoss => epoch.val_cross_entropy.unwrap_or(epoch.val_loss),
    });
    match (score, monitor) {
        (Score::Last, _) => values.next_back(),
        (Score::Best, Monitor::ValAccuracy) => values.reduce(f64::max),
        (Score::Best, Monitor::ValLoss) => values.reduce(f64::min),
    }
}

/// The records of a directory, and the file that new ones are added to.
#[derive(Debug)]
pub struct Journal {
    /// Locked while this process searches.
    file: File,
    path: PathBuf,
    directory: PathBuf,
    /// By key, with the file each came from.
    records: HashMap<String, (PathBuf, TrialRecord)>,
}

impl Journal {
    /// Opens the journal of `shard` (of the whole search when `None`) in `directory`, making both if need be, and reads
    /// all journals there.
    ///
    /// # Errors
    /// A journal that another process writes, a complete line that is no record, two different results of one trial.
    pub fn open(directory: &Path, shard: Option<Shard>) -> Result<Self, SearchError> {
        fs_err::create_dir_all(directory)?;
        let path = directory.join(file_name(shard));
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path)?;
        match file.file().try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(SearchError::InUse { path }),
            Err(TryLockError::Error(error)) => return Err(SearchError::Io(error)),
        }
        let bytes = fs_err::read(&path)?;
        let complete = complete_length(&bytes);
        if complete < bytes.len() {
            file.set_len(complete as u64)?;
        }
        let mut journal = Self { file, path, directory: directory.to_owned(), records: HashMap::new() };
        journal.refresh()?;
        Ok(journal)
    }

    /// Reads all journals of the directory again: other shards may have gone on.
    ///
    /// # Errors
    /// A complete line that is no record, two different results of one trial.
    pub fn refresh(&mut self) -> Result<(), SearchError> {
        for path in journals(&self.directory)? {
            for record in read(&path)? {
                self.insert(&path, record)?;
            }
        }
        Ok(())
    }

    /// The record of a trial.
    pub fn get(&self, key: &str) -> Option<&TrialRecord> {
        self.records.get(key).map(|(_, record)| record)
    }

    /// Number of records of none of these trials: results of another configuration or of other data.
    pub fn foreign<'a>(&self, keys: impl Iterator<Item = &'a str>) -> usize {
        let keys: HashSet<&str> = keys.collect();
        self.records.keys().filter(|key| !keys.contains(key.as_str())).count()
    }

    /// Adds a record and waits until it is on the disk.
    ///
    /// # Errors
    /// A failed write, which names the file; a part of a line that it leaves is cut off at the next start.
    pub fn append(&mut self, record: TrialRecord) -> Result<(), SearchError> {
        let line = serde_json::to_string(&record).map_err(std::io::Error::from)? + "\n";
        self.file.seek(SeekFrom::End(0))?;
        self.file.write_all(line.as_bytes())?;
        self.file.sync_data()?;
        let path = self.path.clone();
        self.insert(&path, record)
    }

    fn insert(&mut self, path: &Path, record: TrialRecord) -> Result<(), SearchError> {
        match self.records.get(&record.key) {
            Some((first, known)) if (&known.epochs, &known.diverged) != (&record.epochs, &record.diverged) => {
                Err(SearchError::Contradiction { key: record.key, first: first.clone(), second: path.to_owned() })
            }
            Some(_) => Ok(()),
            None => {
                self.records.insert(record.key.clone(), (path.to_owned(), record));
                Ok(())
            }
        }
    }
}

fn file_name(shard: Option<Shard>) -> String {
    match shard {
        None => "journal.jsonl".to_owned(),
        Some(shard) => format!("journal-{}.jsonl", shard.to_string().replace('/', "-of-")),
    }
}

/// All journals of a directory, by name.
fn journals(directory: &Path) -> Result<Vec<PathBuf>, SearchError> {
    let mut paths = Vec::new();
    for entry in fs_err::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("journal") && name.ends_with(".jsonl") {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

/// Bytes up to and with the last line break.
fn complete_length(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |position| position + 1)
}

fn read(path: &Path) -> Result<Vec<TrialRecord>, SearchError> {
    let bytes = fs_err::read(path)?;
    let lines = bytes[..complete_length(&bytes)].split(|&byte| byte == b'\n').enumerate();
    let parse = |(index, line): (usize, &[u8])| {
        serde_json::from_slice(line).map_err(|error| SearchError::Line {
            path: path.to_owned(),
            line: index + 1,
            detail: error.to_string(),
        })
    };
    lines.filter(|(_, line)| !line.trim_ascii().is_empty()).map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, accuracies: &[f64]) -> TrialRecord {
        let epoch =
            |&val_accuracy: &f64| EpochScore { val_accuracy, val_loss: 2.0 - val_accuracy, val_cross_entropy: None };
        TrialRecord {
            key: key.to_owned(),
            setting: Map::new(),
            fold: 1,
            folds: 5,
            seed: 1,
            epochs: accuracies.iter().map(epoch).collect(),
            diverged: None,
            seconds: 0.1 + 0.2,
            images: 40,
        }
    }

    #[test]
    fn the_score_is_that_of_the_epoch_that_counts() {
        let trial = record("a", &[0.25, 0.75, 0.5]);
        assert_eq!(trial.score(Score::Last, Monitor::ValAccuracy), Some(0.5));
        assert_eq!(trial.score(Score::Best, Monitor::ValAccuracy), Some(0.75));
        assert_eq!(trial.score(Score::Last, Monitor::ValLoss), Some(1.5));
        assert_eq!(trial.score(Score::Best, Monitor::ValLoss), Some(1.25));
        // Where it is told, without penalties.
        let mut penalised = trial.clone();
        penalised.epochs[2].val_cross_entropy = Some(0.5);
        assert_eq!(penalised.score(Score::Last, Monitor::ValLoss), Some(0.5));
        assert!(!penalised.tells_cross_entropy());
        assert_eq!(penalised.with_penalties(), trial);
        let diverged = TrialRecord { diverged: Some("the loss is NaN".to_owned()), ..trial };
        assert_eq!(diverged.score(Score::Best, Monitor::ValAccuracy), None);
    }

    #[test]
    fn what_another_shard_adds_is_seen_when_one_looks_again() {
        let directory = tempfile::tempdir().unwrap();
        let shard = |text: &str| Some(text.parse::<Shard>().unwrap());
        let mut ours = Journal::open(directory.path(), shard("1/2")).unwrap();
        let mut theirs = Journal::open(directory.path(), shard("2/2")).unwrap();
        theirs.append(record("b", &[0.5])).unwrap();
        assert_eq!(ours.get("b"), None);
        ours.refresh().unwrap();
        assert_eq!(ours.get("b"), Some(&record("b", &[0.5])));
    }

    #[test]
    fn a_torn_line_is_dropped_and_cut_off() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal.jsonl");
        let mut journal = Journal::open(directory.path(), None).unwrap();
        journal.append(record("a", &[0.5])).unwrap();
        drop(journal);
        let whole = fs_err::read(&path).unwrap();
        // Cut in the middle of a character: the rest is not even text.
        let torn = [&whole[..], br#"{"key":"b","setting":{"#, &"é".as_bytes()[..1]].concat();
        fs_err::write(&path, torn).unwrap();
        let mut journal = Journal::open(directory.path(), None).unwrap();
        assert_eq!(journal.get("a"), Some(&record("a", &[0.5])));
        assert_eq!(fs_err::read(&path).unwrap(), whole);
        journal.append(record("b", &[0.25])).unwrap();
        drop(journal);
        let journal = Journal::open(directory.path(), None).unwrap();
        assert!(journal.get("a").is_some() && journal.get("b").is_some());
        assert_eq!(journal.foreign(["a", "c"].into_iter()), 1);
    }

    #[test]
    fn a_damaged_line_is_named() {
        let directory = tempfile::tempdir().unwrap();
        fs_err::write(directory.path().join("journal.jsonl"), "\n{\"key\": 1}\n").unwrap();
        let error = Journal::open(directory.path(), None).unwrap_err().to_string();
        assert!(error.contains("journal.jsonl line 2"), "{error}");
    }

    #[test]
    fn contradictions_name_both_files_and_copies_do_not_matter() {
        let directory = tempfile::tempdir().unwrap();
        let shard = |text: &str| Some(text.parse().unwrap());
        Journal::open(directory.path(), shard("1/2")).unwrap().append(record("a", &[0.5])).unwrap();
        let copy = TrialRecord { seconds: 9.0, ..record("a", &[0.5]) };
        Journal::open(directory.path(), shard("2/2")).unwrap().append(copy).unwrap();
        let other = serde_json::to_string(&record("a", &[0.25])).unwrap();
        fs_err::write(directory.path().join("journal-old.jsonl"), other + "\n").unwrap();
        let error = Journal::open(directory.path(), None).unwrap_err().to_string();
        assert!(error.contains("journal-1-of-2.jsonl") && error.contains("journal-old.jsonl"), "{error}");
    }

    #[test]
    fn one_process_writes_a_journal() {
        let directory = tempfile::tempdir().unwrap();
        let _first = Journal::open(directory.path(), None).unwrap();
        assert!(matches!(Journal::open(directory.path(), None), Err(SearchError::InUse { .. })));
        assert!(Journal::open(directory.path(), Some("1/2".parse().unwrap())).is_ok());
    }
}
