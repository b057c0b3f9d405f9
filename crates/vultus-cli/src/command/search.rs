//! `vultus search`.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::anyhow;
use vultus::wording::{counted, or_dash};
use vultus_train::caveat;
use vultus_train::checkpoint::CheckpointError;
use vultus_train::config::{Monitor, ScheduleKind, TrainConfig};
use vultus_train::dataset::Dataset;
use vultus_train::fingerprint::{file_fingerprint, fingerprint_of, votes_fingerprint};
use vultus_train::fit::{self, FitData, FitError, Observer};
use vultus_train::prepare::{Prepared, prepare, training_indices};
use vultus_train::run::{RunDirectory, RunError, check_search_directory, describe_search, read_environment};
use vultus_train::search::journal::score_of;
use vultus_train::search::results::SearchResults;
use vultus_train::search::trial::{check_settings, train_trial};
use vultus_train::search::{
    PlannedWork, Score, SearchConfig, SearchData, SearchError, SearchOutcome, Setting, Shard, TrialEnd, TrialRunner,
    TrialTask, run_search, settings, winner_config,
};
use vultus_train::train::TrainError;

use super::train::{train_and_show, usage_or_data, usage_or_run};
use super::{ConfigArguments, check_outside, invocation, quoted_path, run_directory_for};
use crate::failure::{Failure, usage_unless_refused};
use crate::message::say;
use crate::{interrupt, table};

/// Look for the best settings by k-fold cross-validation on the training split. The same command with the same --out goes
/// on where a stopped search ended; journals of shards (journal-I-of-N.jsonl) copied into one directory are put together.
#[derive(clap::Args)]
pub struct Search {
    /// Configuration with a [search] table, such as configs/paper-search.toml.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    #[command(flatten)]
    settings: ConfigArguments,
    /// Directory for the journal, the table and the figure. Without it, runs/search-NNN.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Run only every N-th trial, beginning with the I-th, so that N machines can share a search.
    #[arg(long, value_name = "I/N")]
    shard: Option<Shard>,
    /// Train the best setting on the whole training split when all trials are done, into DIR/winner.
    #[arg(long, conflicts_with = "shard")]
    then_train: bool,
}

impl Search {
    pub fn run(self) -> Result<(), Failure> {
        interrupt::listen()?;
        let config = self.settings.load(Some(&self.config))?;
        let (out, _new) = run_directory_for(self.out.as_deref(), "search").map_err(usage_unless_refused)?;
        // All of it, so that nothing comes to light only when the winner is trained.
        check_search_directory(&out).map_err(usage_or_run)?;
        check_outside(&config.data.sources, &out, "with --out")?;
        if self.then_train {
            check_winner(&config, &out)?;
        }
        if config.train.early_stopping.patience > 0 && config.search.score == Score::Last {
            say(
                "note: trials that stop early end behind their best epoch, and search.score = \"last\" counts the last one: \
                 --set search.score=best counts the best",
            );
        }
        let mut whole = config.clone();
        // Folds validate; there is no split beside them, which to stop by.
        whole.train.validation_fraction = 0.0;
        whole.train.early_stopping.patience = 0;
        let dataset = prepare(&whole).map_err(usage_or_data)?.dataset;
        let indices = training_indices(&config, &dataset).map_err(usage_or_data)?;
        let all = FitData { dataset: &dataset, train: &indices, validation: &[] };
        check_settings(&config, all).map_err(usage_or_trial)?;
        let labels: Vec<usize> = indices.iter().map(|&index| dataset.samples[index].label).collect();
        let fingerprint = fingerprint_of(&dataset, indices.iter().copied());
        let votes = votes_fingerprint(&dataset, indices.iter().copied());
        let data = SearchData { names: &dataset.labels, labels: &labels, fingerprint: &fingerprint, votes: &votes };
        let describe = || describe_search(&out, &config, &invocation(), fingerprint.clone());
        let mut runner =
            Runner { dataset: &dataset, indices: &indices, config: &config, left: 0, out: &out, describe: &describe };
        let outcome = run_search(&config, data, &out, self.shard, &mut runner).map_err(usage_or_trial)?;
        outcome.write_results(&out)?;
        // That nobody reads it is told last, and keeps nothing from being done.
        let printed = print_results(&outcome.results);
        if outcome.interrupted {
            let out = quoted_path(&out);
            return Err(Failure::Interrupted(format!(
                "finished trials are kept; the same command with --out {out} goes on where this one stopped"
            )));
        }
        if !outcome.results.is_complete() {
            let missing = outcome.results.trials - outcome.results.finished;
            let verb = if missing == 1 { "is" } else { "are" };
            say(format_args!("{} {verb} still to be done by other shards", counted(missing, "trial")));
            return Ok(printed?);
        }
        let winner = outcome.winner()?;
        let printed = printed.and_then(|()| table::print(format_args!("best    {}", winner.name())));
        let directory = out.join("winner");
        if self.then_train {
            train_winner(&config, winner, &outcome, &directory)?;
        } else if let Ok(saved) = RunDirectory::config_of(&directory)
            && !is_winner(&saved, &config, winner)?
        {
            let directory = directory.display();
            say(format_args!(
                "note: {directory} is another model than the best setting: move it away, and add --then-train"
            ));
        }
        Ok(printed?)
    }
}

/// What is wrong with the request is the caller's mistake; a failed trial or disk is not.
fn usage_or_trial(error: SearchError) -> Failure {
    match error {
        SearchError::Trial { .. } | SearchError::Io(_) => Failure::Run(error.into()),
        _ => Failure::usage(error),
    }
}

/// Refuses a winner that could not be trained, and one that an earlier search has left in `out` and that can be none of this
/// one, before all trials are run.
fn check_winner(config: &TrainConfig, out: &Path) -> Result<(), Failure> {
    for setting in settings(&config.search).map_err(Failure::usage)? {
        let winner = winner_config(config, &setting).map_err(Failure::usage)?;
        winner.check_stopping().map_err(Failure::usage)?;
    }
    let directory = out.join("winner");
    let saved = match RunDirectory::config_of(&directory) {
        Err(RunError::Missing { .. }) => return Ok(()),
        saved => saved.map_err(usage_or_run)?,
    };
    for setting in settings(&config.search).map_err(Failure::usage)? {
        if is_winner(&saved, config, &setting)? {
            let new = winner_config(config, &setting).map_err(Failure::usage)?;
            let prepared = prepare(&new).map_err(usage_or_data)?;
            return open_winner(config, &setting, new, &prepared, &directory).map(drop);
        }
    }
    Err(other_winner(&directory))
}

/// Whether a run of the configuration `saved` is that of `setting`, but for where images, teachers and the model that it begins
/// with lie, and epochs that it was given later, which change nothing of the earlier ones where the rate is constant.
fn is_winner(saved: &TrainConfig, config: &TrainConfig, setting: &Setting) -> Result<bool, Failure> {
    let winner = winner_config(config, setting).map_err(Failure::usage)?;
    let mut saved = saved.clone();
    saved.train.start.clone_from(&winner.train.start);
    let schedule = &winner.train.schedule;
    let grows = schedule.kind == ScheduleKind::Constant && schedule.warmup == 0.0;
    let looks_for_epochs = config.search.axes.iter().flat_map(|axis| &axis.keys).any(|key| key == "train.epochs");
    let (has, wants) = (saved.train.epochs, winner.train.epochs);
    let as_long = has == wants || (has > wants && grows && !looks_for_epochs);
    Ok(as_long && saved.train.keep == winner.train.keep && fit::obstacles(&saved, &winner).is_empty())
}

fn other_winner(directory: &Path) -> Failure {
    let directory = directory.display();
    Failure::usage(anyhow!(
        "{directory} holds a run of another configuration or other images: move it away, or give another --out"
    ))
}

/// The run of `setting` that an earlier call has left in `directory`, if it is one of the images that are `prepared` for `new`,
/// the winner's configuration now.
fn open_winner(
    config: &TrainConfig,
    setting: &Setting,
    new: TrainConfig,
    prepared: &Prepared,
    directory: &Path,
) -> Result<(RunDirectory, TrainConfig), Failure> {
    let (run, mut saved) = RunDirectory::open(directory).map_err(usage_or_run)?;
    if !is_winner(&saved, config, setting)? {
        return Err(other_winner(directory));
    }
    // They may have moved, and are the same by what they hold.
    let start = (!new.train.start.is_empty()).then(|| file_fingerprint(Path::new(&new.train.start))).transpose()?;
    // One that was killed at once has not told yet what it begins with.
    if read_environment(directory).is_ok_and(|made| made.start_sha256 != start) {
        return Err(other_winner(directory));
    }
    saved.train.start = new.train.start;
    saved.data.sources = new.data.sources;
    saved.train.targets.teachers = new.train.targets.teachers;
    let Prepared { dataset, train, validation } = prepared;
    match fit::resume_from(&saved, FitData { dataset, train, validation }, &run) {
        Ok(None) if run.bundle().exists() => Err(Failure::usage(anyhow!(
            "{} has a model, and no checkpoints that tell whose: move it away, or give another --out",
            directory.display()
        ))),
        Ok(_) => Ok((run, saved)),
        Err(FitError::Checkpoint(CheckpointError::OtherRun { .. })) => Err(other_winner(directory)),
        Err(error) => Err(TrainError::from(error).into()),
    }
}

/// Trains the winner, or goes on with it where an earlier call was stopped.
fn train_winner(
    config: &TrainConfig,
    winner: &Setting,
    outcome: &SearchOutcome,
    directory: &Path,
) -> Result<(), Failure> {
    let new = winner_config(config, winner)?;
    // First, so that data that are gone leave no run.
    let prepared = prepare(&new).map_err(usage_or_data)?;
    let (run, config, resume) = match RunDirectory::create(directory, &new) {
        Ok(run) => (run, new, false),
        Err(RunError::Exists(_)) => {
            let (run, saved) = open_winner(config, winner, new, &prepared, directory)?;
            (run, saved, true)
        }
        Err(error) => return Err(usage_or_run(error)),
    };
    outcome.results.write_for_report(run.path())?;
    train_and_show(&config, &prepared, &run, resume)
}

/// Trains trials and says so, a line each.
struct Runner<'a> {
    dataset: &'a Dataset,
    indices: &'a [usize],
    config: &'a TrainConfig,
    /// Trials still to run here.
    left: usize,
    /// The search's directory.
    out: &'a Path,
    /// Writes what the search is made with; due when the journal is ours.
    describe: &'a dyn Fn() -> Result<(), RunError>,
}

impl TrialRunner for Runner<'_> {
    type Error = FitError;

    fn run(&mut self, task: &TrialTask<'_>) -> Result<TrialEnd, FitError> {
        let started = Instant::now();
        let end = train_trial(task, self.dataset, self.indices, &mut Interruptible)?;
        self.left = self.left.saturating_sub(1);
        let result = match &end {
            TrialEnd::Finished(epochs) => {
                let SearchConfig { score, monitor, .. } = self.config.search;
                let name = match monitor {
                    Monitor::ValAccuracy => "val_accuracy",
                    Monitor::ValLoss => "val_loss",
                };
                score_of(epochs, score, monitor).map_or_else(String::new, |value| format!("{name} {value:.4}"))
            }
            TrialEnd::Diverged(reason) => format!("diverged: {reason}"),
            TrialEnd::Interrupted => return Ok(end),
        };
        say(format_args!(
            "trial {}/{}  {}  fold {}/{}  {result}  {:.1} s, {} left",
            task.trial.number + 1,
            task.trials,
            task.setting.name(),
            task.trial.fold + 1,
            task.trial.folds,
            started.elapsed().as_secs_f64(),
            self.left
        ));
        Ok(end)
    }

    fn stop_requested(&self) -> bool {
        interrupt::requested()
    }

    fn planned(&mut self, work: PlannedWork) -> io::Result<()> {
        (self.describe)().map_err(|error| match error {
            RunError::Io(error) => error,
            other => io::Error::other(other),
        })?;
        self.left = work.missing;
        say(format_args!("search directory: {}", self.out.display()));
        say(format_args!(
            "{} settings, {} trials: {} done before, {} to do here",
            work.settings, work.trials, work.finished, work.missing
        ));
        caveat::of_search(self.config, self.dataset, self.indices).iter().for_each(say);
        if work.ignored > 0 {
            let belong = if work.ignored == 1 { "belongs" } else { "belong" };
            let lines = counted(work.ignored, "line");
            say(format_args!("{lines} of the journals {belong} to another configuration or other data"));
        }
        Ok(())
    }
}

/// Stops a trial on Ctrl-C and shows nothing.
struct Interruptible;

impl Observer for Interruptible {
    fn stop_requested(&self) -> bool {
        interrupt::requested()
    }
}

fn print_results(results: &SearchResults) -> io::Result<()> {
    let folds = results.settings.iter().map(|row| row.scores.len()).max().unwrap_or_default();
    let mean = match results.monitor {
        Monitor::ValAccuracy => "mean",
        Monitor::ValLoss => "mean loss",
    };
    let header = ["setting", mean, "deviation", "to the best"].map(str::to_owned).into_iter();
    let mut rows = table::table(header.chain((1..=folds).map(|fold| format!("fold {fold}"))));
    let number = |value: Option<f64>| or_dash(value, |value| format!("{value:.4}"));
    for row in &results.settings {
        let difference = row.difference.zip(row.difference_deviation);
        let difference = or_dash(difference, |(mean, deviation)| format!("{mean:+.4} ± {deviation:.4}"));
        let mut line = vec![row.name(), number(row.mean), number(row.standard_deviation), difference];
        line.extend(row.scores.iter().map(|score| number(*score)));
        rows.add_row(line);
    }
    table::print_table(&rows)?;
    table::print("")
}
