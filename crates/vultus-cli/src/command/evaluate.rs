//! `vultus evaluate`.

use std::path::PathBuf;

use anyhow::anyhow;
use vultus::bundle::Bundle;
use vultus::inference::MOST_SHIFT;
use vultus::labels::canonical;
use vultus_train::assess::{AssessError, assess, dropped_in_training, label_source};
use vultus_train::config::TrainConfig;
use vultus_train::dataset::{Dataset, RemovalReason, split_name};
use vultus_train::fingerprint::fingerprint;
use vultus_train::prepare::{prepare, read, with_labels};
use vultus_train::run::RunDirectory;
use vultus_train::source::{LoadOptions, Source, load};
use vultus_train::train::add_assessment;

use super::train::{usage_or_data, usage_or_run};
use super::{is_taken, model_file, run_directory};
use crate::failure::Failure;
use crate::message::{counted, say};
use crate::table;

/// Evaluate a run's model or a bundle, or the mean of several.
#[derive(clap::Args)]
pub struct Evaluate {
    /// A run directory, that of a search whose winner is trained, or a model file. The probabilities of several are
    /// averaged.
    #[arg(value_name = "RUN_OR_BUNDLE", required = true)]
    models: Vec<PathBuf>,
    /// Images; may be given several times. Without it, a run's own, cleaned as in its configuration.
    #[arg(long = "data", value_name = "SOURCE")]
    data: Vec<String>,
    /// Split to evaluate on. Without it, the only split that is not train, or test, or public_test.
    #[arg(long, value_name = "NAME")]
    split: Option<String>,
    /// Evaluate a run on the images that it held out for validation, as split train-validation, to look at what a model
    /// gets wrong without a look at the test images.
    #[arg(long, conflicts_with_all = ["split", "data"])]
    validation: bool,
    /// A class of the data that the model does not know and that is left out; may be given several times. Classes that
    /// were dropped in training are left out anyway.
    #[arg(long, value_name = "NAME")]
    drop_class: Vec<String>,
    /// A class that the model knows and is not asked for: its images are left out, and the other classes share its
    /// probability in proportion. May be given several times.
    #[arg(long, value_name = "NAME")]
    without: Vec<String>,
    /// Whether mirror images are averaged, too, in place of what the models say.
    #[arg(long, value_name = "BOOL")]
    flip: Option<bool>,
    /// Average the picture shifted by so many pixels in the four diagonal directions, too, in place of what the models say; 0
    /// is off.
    #[arg(long, value_name = "PX")]
    shift: Option<usize>,
    /// Directory for evaluation.json, predictions.csv and pictures. Without it, a run keeps those of all its classes on its
    /// own data, as its model is; others are only printed.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Evaluate {
    pub fn run(self) -> Result<(), Failure> {
        if let Some(out) = self.out.as_deref().filter(|out| is_taken(out)) {
            let what = if out.is_dir() { "is not empty" } else { "is no directory" };
            return Err(Failure::usage(anyhow!("{} {what}: give another --out", out.display())));
        }
        if let Some(shift) = self.shift.filter(|&shift| shift > MOST_SHIFT) {
            return Err(Failure::usage(anyhow!("--shift {shift}: use 0 to {MOST_SHIFT} pixels")));
        }
        let run = if self.on_own_data() { Some(self.open_run()?) } else { None };
        let mut bundles = Vec::with_capacity(self.models.len());
        for model in &self.models {
            let mut bundle = Bundle::load(&model_file(model)?)?;
            let views = &mut bundle.inference.views;
            views.flip = self.flip.unwrap_or(views.flip);
            views.shift = self.shift.unwrap_or(views.shift);
            bundles.push(bundle);
        }
        let bundle = &bundles[0];
        let (dataset, split) = if self.validation {
            let Some((_, config)) = &run else {
                return Err(Failure::usage(anyhow!(
                    "--validation: a model's file does not know these images: name a run"
                )));
            };
            if bundles.len() > 1 {
                return Err(Failure::usage(anyhow!(
                    "--validation: what one run held out the others may have learnt: name one run"
                )));
            }
            let prepared = prepare(config).map_err(usage_or_data)?;
            // Other data are split otherwise, and images that were trained on would seem to be held out.
            if bundle.training["data_sha256"] != fingerprint(&prepared.dataset) {
                return Err(Failure::usage(anyhow!(
                    "--validation: the run's data are not what it was trained on any more"
                )));
            }
            prepared.with_validation_split().ok_or_else(|| {
                Failure::usage(anyhow!("--validation: the run held no images out: train.validation_fraction is 0"))
            })?
        } else {
            let dataset = match &run {
                Some((_, config)) => read(config)?,
                None => read_sources(&self.data, bundle)?,
            };
            let split = match &self.split {
                Some(name) => split_name::meant_by(name).to_owned(),
                None => match &run {
                    Some((_, config)) => {
                        default_split(&dataset, &[&config.data.train_split, &config.data.validation_split])?
                    }
                    None => default_split_of_data(&dataset)?,
                },
            };
            (dataset, split)
        };
        self.check_dropped(bundle, &dataset)?;
        if bundle.training.get("train_split").and_then(|name| name.as_str()) == Some(&split) {
            let same = if run.is_some() {
                "is what the model was trained on"
            } else {
                "is called like the one that the model was trained on: if these are its images, they flatter it"
            };
            say(format_args!("note: split {split} {same}"));
        }
        if self.validation {
            say(format_args!("note: these images chose the temperature, and the epoch where one was chosen"));
        }
        let mut dropped = self.drop_class.clone();
        dropped.extend(dropped_in_training(bundle));
        let assessment = assess(&bundles, &dataset, &split, &dropped, &self.without).map_err(|error| match error {
            AssessError::NoSplit(_)
            | AssessError::UnknownClasses { .. }
            | AssessError::Ensemble(_)
            | AssessError::NotAnswered { .. }
            | AssessError::TooFewClasses(_) => Failure::usage(error),
            _ => Failure::Run(error.into()),
        })?;
        for (class, count) in &assessment.ignored {
            let why = if bundle.labels.index_of(class).is_some() { "is not asked for" } else { "does not know" };
            say(format_args!("{} of class {class} left out: the model {why} it", counted(*count, "image")));
        }
        report_removed(&dataset, &split);
        // What cannot be kept is printed all the same.
        let mut kept: Result<(), Failure> = Ok(());
        if let Some(out) = &self.out {
            kept = assessment.save(out).map_err(Failure::from);
            if kept.is_ok() {
                say(format_args!("written to {}", out.display()));
            }
        } else if let Some((Some(run), _)) = &run {
            kept = add_assessment(run.path(), &assessment).map_err(Failure::from);
            if kept.is_ok() {
                say(format_args!("kept in {}, report renewed (with pictures)", run.path().display()));
            }
        } else if run.is_some() && self.models.len() > 1 {
            say(format_args!("note: on the data of {}", self.models[0].display()));
        }
        let printed = if self.json {
            table::print(serde_json::to_string(&assessment.evaluation)?)
        } else {
            table::print_evaluation(&assessment.evaluation)
        };
        kept?;
        Ok(printed?)
    }

    /// Classes to leave out must be in the data, and unknown to the model: its scores without a class that it predicts
    /// would mislead.
    fn check_dropped(&self, bundle: &Bundle, dataset: &Dataset) -> Result<(), Failure> {
        for name in &self.drop_class {
            if bundle.labels.index_of(name).is_some() {
                return Err(Failure::usage(anyhow!(
                    "--drop-class {name}: the model knows this class; --without leaves it out of the model's answer as well"
                )));
            }
            if dataset.labels.index_of(name).is_none() && !dropped_in_training(bundle).contains(&canonical(name)) {
                let known = dataset.labels.names().join(", ");
                return Err(Failure::usage(anyhow!(
                    "--drop-class {name}: the data have no such class; they have: {known}"
                )));
            }
        }
        Ok(())
    }

    /// The run whose data are used, and its configuration. Its directory is held, from before the model is read until the
    /// evaluation of just this model is kept, where that is kept.
    fn open_run(&self) -> Result<(Option<RunDirectory>, TrainConfig), Failure> {
        let path = run_directory(&self.models[0])?;
        if self.out.is_none() && self.is_of_the_run() {
            let (run, config) = RunDirectory::open(&path).map_err(usage_or_run)?;
            return Ok((Some(run), config));
        }
        Ok((None, RunDirectory::config_of(&path).map_err(usage_or_run)?))
    }

    /// Whether the result is that of one model with its own classes and views.
    fn is_of_the_run(&self) -> bool {
        self.models.len() == 1 && self.without.is_empty() && self.flip.is_none() && self.shift.is_none()
    }

    /// Whether a run is evaluated on the data that it was trained with.
    fn on_own_data(&self) -> bool {
        self.data.is_empty() && self.models[0].is_dir()
    }
}

/// Images for a bundle, with the classes that it learnt.
pub fn read_sources(data: &[String], bundle: &Bundle) -> Result<Dataset, Failure> {
    if data.is_empty() {
        return Err(Failure::usage(anyhow!("a model file brings no images: name some with --data SOURCE")));
    }
    let sources = data.iter().map(|text| Source::parse(text)).collect::<Result<Vec<_>, _>>();
    let dataset = load(&sources.map_err(Failure::usage)?, &bundle.preprocessing, &LoadOptions::default())?;
    let labels = label_source(bundle).map_err(|error| Failure::Run(error.into()))?;
    with_labels(dataset, labels).map_err(|error| usage_or_data(error.into()))
}

/// Images of `split` that could not be used. What a run's own cleaning removed is in its `removed.csv`.
fn report_removed(dataset: &Dataset, split: &str) {
    let unusable = [RemovalReason::Unreadable, RemovalReason::Missing, RemovalReason::TooLarge];
    for removal in dataset.removed.iter().filter(|removal| removal.split == split) {
        if unusable.contains(&removal.reason) {
            say(format_args!("left out: {}: {}", removal.origin, removal.detail));
        }
    }
}

/// The split that is evaluated when none is named: never one of those `apart`, which have to be asked for.
pub fn default_split(dataset: &Dataset, apart: &[&str]) -> Result<String, Failure> {
    let splits = dataset.splits();
    let others: Vec<&String> = splits.iter().filter(|split| !apart.contains(&split.as_str())).collect();
    if let [only] = others[..] {
        return Ok(only.clone());
    }
    for name in [split_name::TEST, split_name::PUBLIC_TEST] {
        if splits.iter().any(|split| split == name) {
            return Ok(name.to_owned());
        }
    }
    Err(Failure::usage(anyhow!("name the split with --split; the data has: {}", splits.join(", "))))
}

/// As [`default_split`] for data that a model brings nothing about: an only split is meant whatever it is called.
pub fn default_split_of_data(dataset: &Dataset) -> Result<String, Failure> {
    match &dataset.splits()[..] {
        [only] => Ok(only.clone()),
        _ => default_split(dataset, &[split_name::TRAIN]),
    }
}
