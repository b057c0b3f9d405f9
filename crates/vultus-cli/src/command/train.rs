//! `vultus train`.

use std::path::PathBuf;

use anyhow::anyhow;
use vultus_train::checkpoint::CheckpointError;
use vultus_train::config::TrainConfig;
use vultus_train::dataset::DataError;
use vultus_train::fit::{self, FitData, FitError};
use vultus_train::history;
use vultus_train::prepare::{PrepareError, Prepared, prepare};
use vultus_train::run::{RunDirectory, RunError};
use vultus_train::temperature;
use vultus_train::train::{TrainError, Trained, train};

use super::{ConfigArguments, check_outside, invocation, quoted_path, run_directory_for};
use crate::failure::{Failure, usage_unless_refused};
use crate::message::say;
use crate::progress::Progress;
use crate::{interrupt, table};

/// Train a network and evaluate it.
#[derive(clap::Args)]
pub struct Train {
    /// Configuration in TOML; see configs/. Without one, the paper's network on drawn faces.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: ConfigArguments,
    /// Directory of the run; it must be new or empty. Without it, runs/train-NNN.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on with the run in --out from its last checkpoint. Of its configuration only train.epochs, train.keep and
    /// train.checkpoint_minutes may change, and where the same images (--data) and teachers lie.
    #[arg(long, conflicts_with = "config")]
    resume: bool,
}

impl Train {
    pub fn run(self) -> Result<(), Failure> {
        interrupt::listen()?;
        if self.resume { self.resume() } else { self.start() }
    }

    fn start(&self) -> Result<(), Failure> {
        let config = self.settings.load(self.config.as_deref())?;
        if !config.search.axes.is_empty() {
            say("note: one training, with the keys as they are: what [search] varies is for vultus search");
        }
        let (out, _new) = run_directory_for(self.out.as_deref(), "train").map_err(usage_unless_refused)?;
        RunDirectory::check_new(&out).map_err(usage_or_run)?;
        check_outside(&config.data.sources, &out, "with --out")?;
        // Its configuration is written last: after a slip in it the directory is new, or gone again.
        let prepared = prepare(&config).map_err(usage_or_data)?;
        let Prepared { dataset, train, validation } = &prepared;
        fit::check(&config, FitData { dataset, train, validation }).map_err(Failure::usage)?;
        let run = RunDirectory::create(&out, &config).map_err(usage_or_run)?;
        say(format_args!("run directory: {}", out.display()));
        train_and_show(&config, &prepared, &run, false)
    }

    fn resume(&self) -> Result<(), Failure> {
        let Some(out) = &self.out else {
            return Err(Failure::usage(anyhow!("--resume needs the run: name its directory with --out")));
        };
        let (run, saved) = RunDirectory::open(out).map_err(usage_or_run)?;
        let config = self.settings.apply(&saved)?;
        let obstacles = fit::obstacles(&saved, &config);
        if !obstacles.is_empty() {
            let changes: Vec<String> = obstacles.iter().map(|(key, value)| format!("{key} = {value}")).collect();
            return Err(Failure::usage(anyhow!(
                "{} was made with another configuration: it cannot go on with {}; only --data, train.epochs, train.keep, \
                 train.checkpoint_minutes and train.targets.teachers may change",
                out.display(),
                changes.join(", ")
            )));
        }
        let finished = if run.metrics().exists() { history::read(&run.metrics())?.len() } else { 0 };
        if finished > config.train.epochs {
            return Err(Failure::usage(anyhow!(
                "{} has {finished} finished epochs: train.epochs cannot be less",
                out.display()
            )));
        }
        if finished > 0 && ![run.last_checkpoint(), run.best_checkpoint()].iter().any(|path| path.exists()) {
            return Err(Failure::usage(anyhow!("{} has no checkpoints to go on from any more", out.display())));
        }
        say(format_args!("resuming {} after {finished} of {} epochs", out.display(), config.train.epochs));
        let prepared = prepare(&config).map_err(usage_or_data)?;
        train_and_show(&config, &prepared, &run, true)
    }
}

/// Trains with progress, and prints the outcome.
pub fn train_and_show(
    config: &TrainConfig,
    prepared: &Prepared,
    run: &RunDirectory,
    resume: bool,
) -> Result<(), Failure> {
    let mut progress = Progress::new(config.train.epochs);
    progress.prepared(config, prepared);
    let trained = train(config, prepared, run, resume, &invocation(), &mut progress);
    drop(progress);
    let trained = trained.map_err(|error| match error {
        TrainError::Fit(FitError::Begun(_)) => Failure::usage(anyhow!("{}: {error}", run.path().display())),
        TrainError::Fit(FitError::Checkpoint(CheckpointError::OtherRun { .. })) => Failure::usage(error),
        error => error.into(),
    })?;
    show(&trained, run)
}

/// Settings that do not fit the data, and data that are not there, are the caller's mistake; data that cannot be read are not.
pub fn usage_or_data(error: PrepareError) -> Failure {
    match &error {
        PrepareError::Data(DataError::NoSource) => Failure::usage(anyhow!("{error} with --data")),
        PrepareError::NoConfiguredSplit { remedy: Some(remedy), .. } => {
            Failure::usage(anyhow!("{error}: add --set '{remedy}'"))
        }
        PrepareError::Data(
            DataError::UnknownSource { .. }
            | DataError::NotFound { .. }
            | DataError::NamedTwice { .. }
            | DataError::Setting { .. }
            | DataError::NoVotes
            | DataError::NothingLeft { .. }
            | DataError::UnknownClass { .. },
        ) => Failure::usage(error),
        PrepareError::Data(_) => Failure::Run(error.into()),
        _ => Failure::usage(error),
    }
}

/// Directories that cannot be used are the caller's mistake; refusals of the system are not.
pub fn usage_or_run(error: RunError) -> Failure {
    match &error {
        RunError::Io(_) => Failure::Run(error.into()),
        RunError::Exists(_) => Failure::usage(anyhow!("{error}: give another --out, or --resume to go on with it")),
        RunError::NotEmpty(_) | RunError::HoldsRun(_) | RunError::HoldsOther(_) => {
            Failure::usage(anyhow!("{error}: give another --out"))
        }
        _ => Failure::usage(error),
    }
}

/// Prints what a run ended with.
fn show(trained: &Trained, run: &RunDirectory) -> Result<(), Failure> {
    let Trained::Finished(finished) = trained else {
        let out = quoted_path(run.path());
        return Err(Failure::Interrupted(format!(
            "a checkpoint is saved; go on with: vultus train --resume --out {out}"
        )));
    };
    if finished.stopped_early {
        say("stopped early, as train.early_stopping asks");
    }
    if let Some(note) = temperature::caveat(finished.temperature) {
        say(format_args!("note: {note}"));
    }
    if finished.evaluations.is_empty() {
        let run = quoted_path(run.path());
        say(format_args!("the data have no other split to evaluate on: try vultus evaluate {run} --data SOURCE"));
    }
    for evaluation in &finished.evaluations {
        table::print_evaluation(evaluation)?;
        evaluation.notes.iter().for_each(|note| say(format_args!("note: {note}")));
    }
    table::print(format_args!("model   {} (epoch {})", finished.bundle.display(), finished.epoch))?;
    table::print(format_args!("report  {}", finished.report.display()))?;
    Ok(())
}
