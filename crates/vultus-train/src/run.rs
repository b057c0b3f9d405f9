//! The directory of a run: what lies where, and who may write there.
//!
//! In: a path. Out: a directory that is this process's alone while it is held, paths in it, and its JSON files. What
//! stands in the files is the business of the modules that write them.
//!
//! ```text
//! config.toml            the resolved configuration; `vultus train --config` runs it again
//! environment.json       version, revision, seed, data hash, machine, command
//! data.json              images per split and class, and what was removed, by reason
//! removed.csv            every removed image with its reason
//! metrics.jsonl          one line an epoch
//! events.out.tfevents.*  the same for TensorBoard
//! checkpoints/           last.safetensors, best.safetensors
//! model.safetensors      the bundle
//! evaluation/<split>/    evaluation.json, predictions.csv, pictures.json, pictures/
//! report.html, figures/  the report
//! search-results.json    of the winner of a search: what it was chosen among
//! .lock                  held while a process writes there
//! ```

use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use vultus::persist::is_there;

use crate::config::{ConfigError, TrainConfig};
use crate::environment::{Environment, Invocation};

/// A directory that holds one run.
#[derive(Debug)]
pub struct RunDirectory {
    path: PathBuf,
    /// Held while this process writes there.
    _lock: File,
}

/// A directory that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The system's refusal, naming the path.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// There is a run already.
    #[error("{0} already holds a run")]
    Exists(PathBuf),
    /// Something else is there.
    #[error("{0} is not empty and holds no run")]
    NotEmpty(PathBuf),
    /// A run where a search should go.
    #[error("{0} holds a run, and a search needs a directory of its own")]
    HoldsRun(PathBuf),
    /// Something else where a search should go.
    #[error("{0} is not empty and holds no search")]
    HoldsOther(PathBuf),
    /// A file where a run is asked for.
    #[error("{0} is a file, and a run is a directory")]
    IsAFile(PathBuf),
    /// There is nothing to resume.
    #[error("{path} holds no run: there is no {absent}")]
    Missing {
        /// Where a run was looked for.
        path: PathBuf,
        /// What is not there, in the words of the message.
        absent: &'static str,
    },
    /// Another process is at work there.
    #[error("{0} is in use by another vultus process: wait for it")]
    InUse(PathBuf),
    /// Its configuration cannot be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

const CONFIG: &str = "config.toml";
const SEARCH_CONFIG: &str = "search.toml";
const LOCK: &str = ".lock";

/// Name of a run's model file.
pub(crate) const BUNDLE: &str = "model.safetensors";

/// The metrics in the directory of an evaluation.
pub(crate) const EVALUATION: &str = "evaluation.json";

impl RunDirectory {
    /// Makes the directory and writes `config` into it.
    ///
    /// # Errors
    /// If the directory already holds a run or anything else.
    pub fn create(path: &Path, config: &TrainConfig) -> Result<Self, RunError> {
        Self::check_new(path)?;
        fs_err::create_dir_all(path)?;
        let lock = lock(path)?;
        // A second process may have been faster between the check and the lock.
        if path.join(CONFIG).exists() {
            return Err(RunError::Exists(path.to_owned()));
        }
        write_config(&path.join(CONFIG), config)?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Checks that a run may begin in the directory at `path`: it is new or empty.
    ///
    /// # Errors
    /// If the directory already holds a run or anything else.
    pub fn check_new(path: &Path) -> Result<(), RunError> {
        if path.join(CONFIG).exists() {
            return Err(RunError::Exists(path.to_owned()));
        }
        if path.is_file() {
            return Err(RunError::IsAFile(path.to_owned()));
        }
        let foreign = |entry: io::Result<fs_err::DirEntry>| entry.is_ok_and(|entry| entry.file_name() != LOCK);
        if path.exists() && fs_err::read_dir(path)?.any(foreign) {
            return Err(RunError::NotEmpty(path.to_owned()));
        }
        Ok(())
    }

    /// Writes `config` in place of the run's configuration, as when a resumed run gets more epochs.
    ///
    /// # Errors
    /// The system's refusal, naming the path.
    pub fn update_config(&self, config: &TrainConfig) -> io::Result<()> {
        write_config(&self.path.join(CONFIG), config)
    }

    /// Opens a directory that holds a run, and reads its configuration.
    ///
    /// # Errors
    /// If there is no run, or another process is at work there.
    pub fn open(path: &Path) -> Result<(Self, TrainConfig), RunError> {
        let config = Self::config_of(path)?;
        let run = Self { path: path.to_owned(), _lock: lock(path)? };
        // A killed process may have left whole checkpoints behind under names that nobody reads.
        vultus::persist::remove_unfinished(path)?;
        vultus::persist::remove_unfinished(&path.join("checkpoints"))?;
        Ok((run, config))
    }

    /// Configuration of the run at `path`, without locking it.
    ///
    /// # Errors
    /// If there is no run, or its configuration cannot be read.
    pub fn config_of(path: &Path) -> Result<TrainConfig, RunError> {
        if !is_there(&path.join(CONFIG))? {
            let absent = match fs_err::metadata(path) {
                Ok(metadata) if metadata.is_dir() => "config.toml in it",
                Ok(_) => return Err(RunError::IsAFile(path.to_owned())),
                Err(_) => "such directory",
            };
            return Err(RunError::Missing { path: path.to_owned(), absent });
        }
        Ok(TrainConfig::load(Some(&path.join(CONFIG)), &[])?)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The checkpoint of the last step.
    pub fn last_checkpoint(&self) -> PathBuf {
        self.path.join("checkpoints").join("last.safetensors")
    }

    /// The checkpoint of the best epoch.
    pub fn best_checkpoint(&self) -> PathBuf {
        self.path.join("checkpoints").join("best.safetensors")
    }

    /// The history.
    pub fn metrics(&self) -> PathBuf {
        metrics_path(&self.path)
    }

    /// The bundle.
    pub fn bundle(&self) -> PathBuf {
        bundle_path(&self.path)
    }
}

/// Whether the directory at `path` holds a search: its journal, with which each begins. A `search.toml` alone is somebody's
/// configuration.
pub fn is_search(path: &Path) -> bool {
    let Ok(entries) = fs_err::read_dir(path) else { return false };
    entries.filter_map(Result::ok).any(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        name.starts_with("journal") && name.ends_with(".jsonl")
    })
}

/// Checks that a search may use the directory at `path`: it is new, empty, or holds a search.
///
/// # Errors
/// If it holds a run or anything else.
pub fn check_search_directory(path: &Path) -> Result<(), RunError> {
    if path.join(CONFIG).exists() {
        return Err(RunError::HoldsRun(path.to_owned()));
    }
    if path.is_file() {
        return Err(RunError::IsAFile(path.to_owned()));
    }
    let taken = path.exists() && fs_err::read_dir(path)?.next().is_some() && !is_search(path);
    if taken { Err(RunError::HoldsOther(path.to_owned())) } else { Ok(()) }
}

/// The configuration of the search whose directory is `path`, as [`describe_search`] has written it.
pub fn search_config_path(path: &Path) -> PathBuf {
    path.join(SEARCH_CONFIG)
}

/// Writes into the directory of a search what it is made with: `search.toml` and `environment.json`. A search that goes on
/// keeps its first environment and adds its command.
///
/// # Errors
/// The system's refusal, naming the path.
pub fn describe_search(
    path: &Path,
    config: &TrainConfig,
    invocation: &Invocation,
    data_sha256: String,
) -> Result<(), RunError> {
    write_config(&search_config_path(path), config)?;
    describe_environment(path, Environment::new(invocation, config.seed, data_sha256), true)?;
    Ok(())
}

/// Writes `environment.json` into the directory at `path`. Where there is one, it stays as it is, but for the command, which
/// is added, for seed and data, which are those of now, and, if it `goes_on`, for what it goes on with.
///
/// # Errors
/// The system's refusal or a damaged file, naming the path.
pub(crate) fn describe_environment(path: &Path, now: Environment, goes_on: bool) -> io::Result<Environment> {
    let path = environment_path(path);
    let environment = if path.exists() {
        let first: Environment = read_json(&path)?;
        let commands = [&first.commands[..], &now.commands].concat();
        // The files of some may be gone by now.
        let validation_known_to = &first.validation_known_to | &now.validation_known_to;
        let learnt_sha256 = &first.learnt_sha256 | &now.learnt_sha256;
        let mut continued_with = first.continued_with.clone();
        if goes_on && *continued_with.last().unwrap_or(&first.maker()) != now.maker() {
            continued_with.push(now.maker());
        }
        let Environment { seed, data_sha256, .. } = now;
        Environment { commands, seed, data_sha256, validation_known_to, learnt_sha256, continued_with, ..first }
    } else {
        now
    };
    write_json(&path, &environment)?;
    Ok(environment)
}

/// Where the run at `path` keeps its history.
pub fn metrics_path(path: &Path) -> PathBuf {
    path.join("metrics.jsonl")
}

/// Where the run at `path` keeps what it was made with.
pub fn environment_path(path: &Path) -> PathBuf {
    path.join("environment.json")
}

/// What the run at `path` was made with.
///
/// # Errors
/// A file that is not there, cannot be read or is damaged, naming the path.
pub fn read_environment(path: &Path) -> io::Result<Environment> {
    read_json(&environment_path(path))
}

/// Where the run at `path` keeps its bundle.
pub fn bundle_path(path: &Path) -> PathBuf {
    path.join(BUNDLE)
}

/// Where the run at `path` keeps its evaluation on `split`.
pub fn evaluation_path(path: &Path, split: &str) -> PathBuf {
    path.join("evaluation").join(split)
}

/// Directories of the evaluations of the run at `path` that are there: `test` or `public_test` first, that of `train_split`
/// last.
///
/// # Errors
/// The system's refusal, naming the path.
pub(crate) fn evaluation_directories(path: &Path, train_split: &str) -> io::Result<Vec<PathBuf>> {
    let parent = path.join("evaluation");
    if !parent.exists() {
        return Ok(Vec::new());
    }
    let mut directories = Vec::new();
    for entry in fs_err::read_dir(parent)? {
        let path = entry?.path();
        if path.join(EVALUATION).exists() {
            directories.push(path);
        }
    }
    directories.sort_by_key(|path| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        (name == train_split, !["test", "public_test"].contains(&name.as_str()), name)
    });
    Ok(directories)
}

fn write_config(path: &Path, config: &TrainConfig) -> io::Result<()> {
    vultus::persist::write_atomically(path, |file| file.write_all(config.to_toml().as_bytes()))
}

/// Writes a value as indented JSON, atomically.
///
/// # Errors
/// The system's refusal, naming the path.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| io::Error::other(format!("cannot write {}: {error}", path.display())))?;
    vultus::persist::write_atomically(path, |file| writeln!(file, "{text}"))
}

/// Reads a JSON file.
///
/// # Errors
/// A file that is missing, or holds something else; the message names it.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    let text = fs_err::read_to_string(path)?;
    serde_json::from_str(&text)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display())))
}

/// Refuses the file at `path` for its value at `key`.
///
/// # Errors
/// Always.
pub(crate) fn refuse<T>(path: &Path, key: &str, fault: &str) -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::InvalidData, format!("{}: {key} {fault}", path.display())))
}

/// Checks the lengths of lists in the file at `path` that have an entry for each of `classes`; a list is named by its key.
///
/// # Errors
/// The first list of another length, by file and key.
pub(crate) fn check_lengths(
    path: &Path,
    classes: usize,
    mut lists: impl Iterator<Item = (String, usize)>,
) -> io::Result<()> {
    match lists.find(|&(_, length)| length != classes) {
        None => Ok(()),
        Some((key, length)) => refuse(path, &key, &format!("has {length} entries, and there are {classes} labels")),
    }
}

fn lock(path: &Path) -> Result<File, RunError> {
    let file = fs_err::OpenOptions::new().create(true).truncate(false).write(true).open(path.join(LOCK))?;
    let file = file.into_parts().0;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(RunError::InUse(path.to_owned())),
        Err(TryLockError::Error(error)) => Err(RunError::Io(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::Maker;

    #[test]
    fn two_runs_do_not_share_a_directory() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run");
        let first = RunDirectory::create(&path, &TrainConfig::default()).unwrap();
        assert!(matches!(RunDirectory::create(&path, &TrainConfig::default()), Err(RunError::Exists(_))));
        assert!(matches!(RunDirectory::open(&path), Err(RunError::InUse(_))));
        drop(first);
        let (_run, config) = RunDirectory::open(&path).unwrap();
        assert_eq!(config, TrainConfig::default());
    }

    #[test]
    fn a_search_that_goes_on_keeps_how_it_began() {
        let directory = tempfile::tempdir().unwrap();
        let describe = |command: &str, revision: &str, data: &str| {
            let invocation = Invocation { command: command.to_owned(), revision: revision.to_owned() };
            describe_search(directory.path(), &TrainConfig::default(), &invocation, data.to_owned()).unwrap();
            read_json::<Environment>(&directory.path().join("environment.json")).unwrap()
        };
        let first = describe("vultus search", "a", "images");
        let second = describe("vultus search --shard 1/2", "b", "other images");
        let commands = ["vultus search", "vultus search --shard 1/2"].map(str::to_owned).to_vec();
        let continued_with = vec![second.continued_with[0].clone()];
        assert_eq!(continued_with[0], Maker { revision: "b".to_owned(), ..first.maker() });
        assert_eq!(second, Environment { commands, data_sha256: "other images".to_owned(), continued_with, ..first });
        let third = describe("vultus search", "b", "other images");
        assert_eq!(third.continued_with, second.continued_with);
    }

    #[test]
    fn foreign_files_are_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        fs_err::write(directory.path().join("thesis.tex"), "text").unwrap();
        let error = RunDirectory::create(directory.path(), &TrainConfig::default()).unwrap_err();
        assert!(matches!(error, RunError::NotEmpty(_)));
        assert!(matches!(RunDirectory::open(directory.path()), Err(RunError::Missing { .. })));
    }
}
