//! What can stop a search.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use vultus::wording::counted;

use crate::config::ConfigError;
use crate::figure::FigureError;

/// Why a search cannot start, go on or name a winner.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// The configuration has no axes.
    #[error("there is nothing to search: add [[search.axes]] with keys and values to the configuration")]
    NoAxes,
    /// An axis that cannot be used.
    #[error("search axis \"{axis}\": {detail}")]
    Axis {
        /// Its name.
        axis: String,
        /// What is wrong and what would be right.
        detail: String,
    },
    /// A key that does not exist, or a value that it cannot have.
    #[error("search axis \"{axis}\": {source}")]
    AxisValue {
        /// Its name.
        axis: String,
        /// What the configuration says; it names the key.
        source: ConfigError,
    },
    /// A `search` key with a value it cannot have.
    #[error("search.{key} is {value}: {expected}")]
    Value {
        /// The key.
        key: &'static str,
        /// What it says.
        value: String,
        /// What it should say.
        expected: &'static str,
    },
    /// More random settings than there are different ones.
    #[error(
        "search.settings is {wanted}, and only {found} different settings were found: ask for at most {found}, or give \
         the axes more values"
    )]
    TooFewSettings {
        /// Settings asked for.
        wanted: usize,
        /// Settings found.
        found: usize,
    },
    /// A setting that cannot be trained.
    #[error("setting {setting}: {detail}")]
    Setting {
        /// The setting in one line.
        setting: String,
        /// What does not fit.
        detail: String,
    },
    /// A class with fewer images than there are folds.
    #[error(
        "class \"{class}\" has {}, {folds} folds need at least {folds}: drop the class \
         (cleaning.drop_classes), or set search.folds lower", counted(*count, "image")
    )]
    SmallClass {
        /// Name of the class.
        class: String,
        /// Its training images.
        count: usize,
        /// Folds.
        folds: usize,
    },
    /// The images cannot be split into folds.
    #[error("the training images cannot be split into {folds} folds: {detail}")]
    Folds {
        /// Folds.
        folds: usize,
        /// What the splitter says.
        detail: String,
    },
    /// Text that is no shard.
    #[error("`{text}` is no shard: expected I/N with I from 1 to N, such as 3/16")]
    Shard {
        /// The text given.
        text: String,
    },
    /// The system's refusal; its message names the path.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Another process writes the same journal.
    #[error(
        "{} is in use by another vultus process: wait for it, take another directory, or share the trials out in shards",
        path.display()
    )]
    InUse {
        /// The journal.
        path: PathBuf,
    },
    /// A complete line of a journal that is no record.
    #[error("{} line {line}: {detail}: remove the line and search again", path.display())]
    Line {
        /// The journal.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        detail: String,
    },
    /// Two journals with different results of one trial.
    #[error(
        "trial {key} has different results in {} and {}: keep only the right one of the two lines",
        first.display(), second.display()
    )]
    Contradiction {
        /// The trial's key.
        key: String,
        /// Journal read first.
        first: PathBuf,
        /// Journal read later; may be the same one.
        second: PathBuf,
    },
    /// A trial failed otherwise than by diverging.
    #[error("setting {setting}, fold {fold} of {folds}: {source}")]
    Trial {
        /// The setting in one line.
        setting: String,
        /// From 1.
        fold: usize,
        /// Folds.
        folds: usize,
        /// What the runner says.
        source: Box<dyn Error + Send + Sync>,
    },
    /// No winner can be named yet.
    #[error(
        "the search is not complete: {missing} of {trials} trials are missing; run it again, or put the journals of all \
         shards into one directory and run it there"
    )]
    Incomplete {
        /// Trials without a result.
        missing: usize,
        /// Trials in all.
        trials: usize,
    },
    /// No setting has a score.
    #[error("every setting diverged: try lower values of train.optimizer.learning_rate")]
    AllDiverged,
    /// A table that cannot be written.
    #[error("{}: {detail}", path.display())]
    Table {
        /// The file.
        path: PathBuf,
        /// What the writer says.
        detail: String,
    },
    /// A figure that cannot be drawn or written.
    #[error(transparent)]
    Figure(#[from] FigureError),
}
