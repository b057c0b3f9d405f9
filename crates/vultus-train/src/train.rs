//! The whole job: from sources to a model, its evaluation and its report, in one run directory.
//!
//! In: a configuration and a directory. Out: everything that [`crate::run`] lists. Each step is a module of its own;
//! here they are only put in order.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::json;
use vultus::bundle::{Bundle, BundleError};
use vultus::classifier::Classifier;
use vultus::inference::Inference;
use vultus::labels::canonical;
use vultus::persist::write_atomically;

use crate::assess::{AssessError, Assessment, assess};
use crate::batches::dataset_probabilities;
use crate::caveat::{ancestors, knowing_validation, of_model, of_repeats, of_role};
use crate::clean::{CleaningConfig, rows_of_removed};
use crate::config::{DataConfig, Keep, Monitor, TrainConfig};
use crate::dataset::{Dataset, RemovalReason};
use crate::environment::{Environment, Invocation};
use crate::evaluate::Evaluation;
use crate::facts::{ImageCounts, TrainingFacts, load_with_facts};
use crate::fingerprint::{file_fingerprint, fingerprint, pixels_fingerprint, split_fingerprint};
use crate::fit::{Ended, FitData, FitError, Fitted, Observer, best_epoch, fit, resume_from};
use crate::history::EpochRecord;
use crate::prepare::Prepared;
use crate::report::{self, ReportError};
use crate::run::{
    RunDirectory, bundle_path, describe_environment, evaluation_directories, evaluation_path, write_json,
};
use crate::source::{Source, last_names};
use crate::statistics::Statistics;
use crate::temperature::fit_temperature;
use crate::validation::Validation;

/// What a run ended with.
#[derive(Clone, Debug)]
pub enum Trained {
    /// A stop that was asked for: there is a checkpoint to go on from.
    Interrupted,
    /// A model.
    Finished(Finished),
}

/// What a finished run left behind.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Whether training stopped before its last epoch, for lack of improvement.
    pub stopped_early: bool,
    /// The epoch whose weights the model has, from 1.
    pub epoch: usize,
    /// The temperature that fits the validation part.
    pub temperature: f32,
    /// One for each evaluated split.
    pub evaluations: Vec<Evaluation>,
    /// The bundle.
    pub bundle: PathBuf,
    /// The report.
    pub report: PathBuf,
}

/// A run that failed.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The training.
    #[error(transparent)]
    Fit(#[from] FitError),
    /// The model file.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The evaluation.
    #[error(transparent)]
    Assess(#[from] AssessError),
    /// The report.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// A file of the run; the message names it.
    #[error(transparent)]
    File(#[from] std::io::Error),
}

/// Does the whole job in `run` on data that are ready, from the start or from the last checkpoint.
///
/// # Errors
/// See [`TrainError`]; finished parts of the run stay.
pub fn train(
    config: &TrainConfig,
    prepared: &Prepared,
    run: &RunDirectory,
    resume: bool,
    invocation: &Invocation,
    observer: &mut dyn Observer,
) -> Result<Trained, TrainError> {
    let Prepared { dataset, train, validation } = prepared;
    let data = FitData { dataset, train, validation };
    // First, so that a run that is refused stays as it was.
    let checkpoint = if resume { resume_from(config, data, run)? } else { None };
    let goes_on = checkpoint.as_ref().is_none_or(|checkpoint| checkpoint.progress.epoch < config.train.epochs);
    let environment = describe(config, prepared, run, invocation, goes_on)?;
    if !environment.continued_with.is_empty() {
        observer.continues_elsewhere(&[&[environment.maker()], &environment.continued_with[..]].concat());
    }
    let fitted = fit(config, data, Some(run), checkpoint, observer)?;
    if fitted.ended == Ended::Interrupted {
        return Ok(Trained::Interrupted);
    }
    let facts = training_facts(config, prepared, &fitted, &environment);
    let mut bundle = Bundle {
        labels: dataset.labels.clone(),
        preprocessing: config.preprocessing.clone(),
        network: config.network.clone(),
        weights: fitted.weights.clone(),
        inference: Inference { views: config.views, temperature: 1.0 },
        training: json!(facts),
        metrics: serde_json::Value::Null,
    };
    bundle.inference.temperature = temperature(&bundle, data)?;
    // What an earlier model of this run scored, or this one on other images, must not stand beside its scores.
    let is_the_same = |earlier: Bundle| {
        let data = |bundle: &Bundle| bundle.training["data_sha256"].clone();
        earlier.weights == bundle.weights && earlier.inference == bundle.inference && data(&earlier) == data(&bundle)
    };
    let splits = evaluated_splits(config, dataset);
    let is_the_same = Bundle::load(&run.bundle()).is_ok_and(is_the_same);
    if !is_the_same {
        let renewed: Vec<PathBuf> = splits.iter().map(|split| evaluation_path(run.path(), split)).collect();
        let directories = evaluation_directories(run.path(), &config.data.train_split)?;
        directories.iter().filter(|path| !renewed.contains(path)).for_each(|path| observer.outdated(path));
        for stale in ["evaluation", "figures"].map(|name| run.path().join(name)).iter().filter(|path| path.exists()) {
            fs_err::remove_dir_all(stale)?;
        }
    }
    // Saved before it is evaluated: whatever happens there, the model is not lost.
    bundle.save(&run.bundle())?;
    let mut evaluations = Vec::new();
    for split in splits {
        let mut assessment = assess(std::slice::from_ref(&bundle), dataset, &split, &[], &[])?;
        let images = dataset.indices_of(&split);
        let role = of_role(&facts, dataset, &split, &images, true);
        let notes = of_repeats(dataset, &split, &images).into_iter().chain(role);
        assessment.evaluation.notes = notes.chain(of_model(&facts, dataset, &split, &images)).collect();
        assessment.name_models([run.path()]);
        if is_the_same
            && let Ok(earlier) = Evaluation::load(&evaluation_path(run.path(), &split))
            && earlier.images_sha256 == assessment.evaluation.images_sha256
        {
            // What the same answers to the same images are, group by group.
            assessment.evaluation.groups = earlier.groups;
        }
        assessment.save(&evaluation_path(run.path(), &split))?;
        evaluations.push(assessment.evaluation);
    }
    bundle.metrics = json!(evaluations.iter().map(headline).collect::<Vec<_>>());
    bundle.save(&run.bundle())?;
    let report = report::write(run.path(), true)?;
    let stopped_early = fitted.ended == Ended::StoppedEarly;
    Ok(Trained::Finished(Finished {
        stopped_early,
        epoch: fitted.epoch,
        temperature: bundle.inference.temperature,
        evaluations,
        bundle: run.bundle(),
        report,
    }))
}

/// The temperature that fits the validation part; 1 where there is none.
fn temperature(bundle: &Bundle, data: FitData<'_>) -> Result<f32, AssessError> {
    let classifier = Classifier::from_bundle(bundle.clone())?;
    let classify = |pixels: &[f32]| classifier.probabilities(pixels);
    let probabilities = dataset_probabilities(classify, &bundle.preprocessing, data.dataset, data.validation);
    let labels: Vec<usize> = data.validation.iter().map(|&index| data.dataset.samples[index].label).collect();
    Ok(fit_temperature(&probabilities, &labels))
}

/// Keeps an assessment of the run's model on the run's own data, and renews the report.
///
/// # Errors
/// As [`train`].
pub fn add_assessment(run: &Path, assessment: &Assessment) -> Result<(), TrainError> {
    assessment.save(&evaluation_path(run, &assessment.evaluation.split))?;
    report::write(run, true)?;
    Ok(())
}

/// The splits that the finished model is evaluated on.
pub(crate) fn evaluated_splits(config: &TrainConfig, dataset: &Dataset) -> Vec<String> {
    if config.data.evaluate_splits.is_empty() {
        let chosen = [&config.data.train_split, &config.data.validation_split];
        dataset.splits().into_iter().filter(|split| !chosen.contains(&split)).collect()
    } else {
        config.data.evaluate_splits.clone()
    }
}

/// Writes `config.toml`, `environment.json`, `data.json` and `removed.csv`, of a run that `goes_on` or is only evaluated again. A resumed run keeps its first environment and
/// adds its command; its test images may be others by now, and are what it will be evaluated on.
fn describe(
    config: &TrainConfig,
    prepared: &Prepared,
    run: &RunDirectory,
    invocation: &Invocation,
    goes_on: bool,
) -> Result<Environment, TrainError> {
    run.update_config(config)?;
    let dataset = &prepared.dataset;
    let knowing = knowing_validation(config, prepared);
    let start = Path::new(&config.train.start);
    let environment = Environment {
        // A run that goes on does not read it again.
        start_sha256: file_fingerprint(start).ok().filter(|_| !config.train.start.is_empty()),
        validation_known_to: knowing.iter().map(|path| last_names(Path::new(path), 2)).collect(),
        learnt_sha256: ancestors([config]).into_iter().flat_map(|(_, facts)| facts.learnt_sha256).collect(),
        ..Environment::new(invocation, config.seed, fingerprint(dataset))
    };
    let environment = describe_environment(run.path(), environment, goes_on)?;
    write_json(&run.path().join("data.json"), &Statistics::compute(dataset))?;
    let removed = rows_of_removed(&dataset.removed)?;
    write_atomically(&run.path().join("removed.csv"), |file| file.write_all(&removed))?;
    Ok(environment)
}

/// What a model's file tells of its training. It may be given away: sources have their names in it, and models the folder
/// that they lie in as well, since those of runs have all the same name.
fn training_facts(
    config: &TrainConfig,
    prepared: &Prepared,
    fitted: &Fitted,
    environment: &Environment,
) -> TrainingFacts {
    let mut train = config.train.clone();
    for path in train.targets.teachers.iter_mut().chain([&mut train.start]) {
        *path = last_names(Path::new(path), 2);
    }
    let begins = !train.start.is_empty();
    let mut train = json!(train);
    if let Some(settings) = train.as_object_mut().filter(|_| !begins) {
        settings.remove("start");
    }
    let chosen = fitted.epoch.checked_sub(1).and_then(|index| fitted.history.get(index));
    let DataConfig { sources, synthetic, train_split, validation_split, labels, .. } = config.data.clone();
    let mut learnt_sha256 = environment.learnt_sha256.clone();
    learnt_sha256.insert(pixels_fingerprint(&prepared.dataset, &prepared.dataset.indices_of(&train_split)));
    TrainingFacts {
        version: Some(environment.version.clone()),
        revision: Some(environment.revision.clone()),
        seed: Some(environment.seed),
        data_sha256: Some(environment.data_sha256.clone()),
        train_sha256: Some(split_fingerprint(&prepared.dataset, &train_split)),
        platform: Some(environment.platform.clone()),
        processor: Some(environment.processor.clone()),
        instructions: Some(environment.instructions.clone()),
        continued_with: environment.continued_with.clone(),
        threads: Some(environment.threads),
        started: Some(environment.started),
        sources: sources.iter().map(|source| source_name(source)).collect(),
        synthetic: sources
            .iter()
            .any(|source| matches!(Source::parse(source), Ok(Source::Synthetic { .. })))
            .then_some(synthetic),
        train_split: Some(train_split),
        validation_split: Some(validation_split),
        validation_known_to: environment.validation_known_to.iter().cloned().collect(),
        learnt_sha256,
        images: Some(ImageCounts { train: prepared.train.len(), validation: prepared.validation.len() }),
        labels,
        cleaning: json!(config.cleaning),
        dropped_classes: dropped_classes(&config.cleaning, &prepared.dataset),
        train,
        ended: Some(fitted.ended),
        epochs: Some(fitted.history.len()),
        epoch: Some(fitted.epoch),
        selection: Some(selection(config)),
        record: json!(chosen),
        seconds: fitted.history.iter().map(|record| record.seconds).sum(),
        calibration: None,
    }
}

/// Classes that cleaning left out, by name, also where no image had it, or for lack of images.
fn dropped_classes(cleaning: &CleaningConfig, dataset: &Dataset) -> Vec<String> {
    let dropped = dataset.removed.iter().filter(|removal| removal.reason == RemovalReason::ClassDropped);
    let named = cleaning.drop_classes.iter().map(|class| canonical(class));
    dropped.filter_map(|removal| removal.label.clone()).chain(named).collect::<BTreeSet<_>>().into_iter().collect()
}

/// What a source is called in a model's file and a report's title. What is no source any more was a folder.
pub fn source_name(source: &str) -> String {
    Source::parse(source).unwrap_or_else(|_| Source::Folder(source.into())).name()
}

/// What selects the epoch, in words.
pub fn selection(config: &TrainConfig) -> String {
    let monitored = match config.train.monitor {
        Monitor::ValAccuracy => "highest accuracy",
        Monitor::ValLoss => "lowest loss",
    };
    let nothing = "nothing; the last epoch was kept".to_owned();
    if config.train.keep == Keep::Last {
        return nothing;
    }
    let least = match config.train.early_stopping.min_delta {
        0.0 => String::new(),
        delta => format!(", where a later epoch had to be better by more than {delta}"),
    };
    let held_out = match config.validation() {
        Validation::Split(split) => format!("split {split}"),
        Validation::Part { fraction, .. } => {
            // Ten digits behind the point: more than anybody writes, and few enough to hide what binary numbers are off by.
            let percent = (fraction * 1e12).round() / 1e10;
            format!("{percent} % of split {} held out for validation", config.data.train_split)
        }
        Validation::Nothing => return nothing,
    };
    format!("the epoch with the {monitored} on {held_out}{least}")
}

/// Which epoch's weights a run's model has, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// Whether there is a model.
    pub finished: bool,
    /// The epoch, from 1; `None` before the first is finished.
    pub epoch: Option<usize>,
    /// What selected it, in words.
    pub selection: String,
    /// Whether training stopped before its last epoch, for lack of improvement.
    pub stopped_early: bool,
    /// Images that were trained on and that validated; `None` before there is a model.
    pub images: Option<ImageCounts>,
    /// Temperature of its probabilities, fitted to the images that validated, or 1 without any; `None` before there is a model.
    pub temperature: Option<f32>,
}

impl Choice {
    /// What the model of the run at `path` says; for a run without one, what its configuration would choose now.
    ///
    /// # Errors
    /// A model that cannot be read.
    pub fn of_run(path: &Path, config: &TrainConfig, history: &[EpochRecord]) -> Result<Self, BundleError> {
        let bundle = bundle_path(path);
        let finished = bundle.exists();
        let (facts, temperature) = if finished {
            let (bundle, facts) = load_with_facts(&bundle)?;
            (facts, Some(bundle.inference.temperature))
        } else {
            (TrainingFacts::default(), None)
        };
        Ok(Self {
            finished,
            temperature,
            epoch: facts.epoch.or_else(|| chosen_epoch(config, history)),
            selection: facts.selection.unwrap_or_else(|| selection(config)),
            stopped_early: facts.ended == Some(Ended::StoppedEarly),
            images: facts.images,
        })
    }
}

/// The epoch that `config` chooses from `history`.
fn chosen_epoch(config: &TrainConfig, history: &[EpochRecord]) -> Option<usize> {
    let last = history.last()?;
    if config.train.keep == Keep::Last {
        return Some(last.epoch);
    }
    Some(best_epoch(&config.train, history).map_or(last.epoch, |best| best.epoch))
}

/// What a model's file tells of an evaluation.
pub(crate) fn headline(evaluation: &Evaluation) -> serde_json::Value {
    json!({
        "split": evaluation.split,
        "images_sha256": evaluation.images_sha256,
        "n": evaluation.n,
        "accuracy": evaluation.accuracy,
        "accuracy_interval": evaluation.accuracy_interval,
        "macro_f1": evaluation.macro_f1,
        "balanced_accuracy": evaluation.balanced_accuracy,
        "log_loss": evaluation.log_loss,
        "brier_score": evaluation.brier_score,
        "ece": evaluation.ece,
        "ece_by_chance": evaluation.ece_by_chance,
    })
}

#[cfg(test)]
mod tests;
