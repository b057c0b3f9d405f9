//! `vultus train`.

use std::path::PathBuf;

use anyhow::anyhow;
use vultus_train::config::TrainConfig;
use vultus_train::fit::Ended;
use vultus_train::run::{RunDirectory, RunError};
use vultus_train::train::{Trained, train};

use super::{ConfigArguments, invocation, next_run_directory};
use crate::failure::Failure;
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
    /// Go on with the run in --out from its last checkpoint. Of its configuration only train.epochs may change.
    #[arg(long)]
    resume: bool,
}

impl Train {
    pub fn run(self) -> Result<(), Failure> {
        interrupt::listen()?;
        let (run, config) = if self.resume { self.reopen()? } else { self.create()? };
        let mut progress = Progress::new(config.train.epochs);
        let trained = train(&config, &run, self.resume, &invocation(), &mut progress);
        drop(progress);
        match trained {
            Ok(trained) => show(&trained, &run),
            Err(error) => {
                // A slip in the name of a source should not use up the directory. The reason is worth more than a
                // failure to tidy up.
                if !self.resume {
                    let _ = run.discard_unused();
                }
                Err(error.into())
            }
        }
    }

    fn create(&self) -> Result<(RunDirectory, TrainConfig), Failure> {
        let config = self.settings.load(self.config.as_deref())?;
        let out = self.out.clone().unwrap_or_else(|| next_run_directory("train"));
        let run = RunDirectory::create(&out, &config).map_err(usage_or_run)?;
        eprintln!("run directory: {}", out.display());
        Ok((run, config))
    }

    fn reopen(&self) -> Result<(RunDirectory, TrainConfig), Failure> {
        let Some(out) = &self.out else {
            return Err(Failure::usage(anyhow!("--resume needs the run: name its directory with --out")));
        };
        let (run, saved) = RunDirectory::open(out).map_err(usage_or_run)?;
        let mut config = match &self.config {
            None => self.settings.apply(&saved)?,
            Some(path) => self.settings.load(Some(path))?,
        };
        if self.config.is_some() && self.settings.is_empty() {
            // A config file rarely names the sources that were given on the command line.
            config.data.sources.clone_from(&saved.data.sources);
        }
        let same = TrainConfig {
            train: vultus_train::config::FitConfig { epochs: saved.train.epochs, ..config.train.clone() },
            ..config.clone()
        };
        if same != saved {
            return Err(Failure::usage(anyhow!(
                "{} was made with another configuration: resume with --out alone, or change only train.epochs; \
                 the run's own is in {}/config.toml",
                out.display(),
                out.display()
            )));
        }
        eprintln!("resuming {}", out.display());
        Ok((run, config))
    }
}

/// Directories that cannot be used are the caller's mistake; refusals of the system are not.
pub fn usage_or_run(error: RunError) -> Failure {
    match error {
        RunError::Io(_) => Failure::Run(error.into()),
        _ => Failure::usage(error),
    }
}

/// Prints what a run ended with.
pub fn show(trained: &Trained, run: &RunDirectory) -> Result<(), Failure> {
    if trained.ended == Ended::Interrupted {
        let out = run.path().display();
        return Err(Failure::Interrupted(format!(
            "a checkpoint is saved; go on with: vultus train --resume --out {out}"
        )));
    }
    for evaluation in &trained.evaluations {
        table::print_evaluation(evaluation)?;
    }
    table::print(format_args!("model   {} (epoch {})", trained.bundle.display(), trained.epoch))?;
    table::print(format_args!("report  {}", trained.report.display()))?;
    Ok(())
}
