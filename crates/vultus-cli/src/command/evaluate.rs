//! `vultus evaluate`.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::PathBuf;

use anyhow::anyhow;
use vultus::bundle::Bundle;
use vultus::labels::canonical;
use vultus::wording::counted;
use vultus_train::assess::{AssessError, assess};
use vultus_train::caveat::{of_model, of_repeats, of_role};
use vultus_train::config::TrainConfig;
use vultus_train::dataset::{Dataset, RemovalReason, split_name};
use vultus_train::evaluate::Evaluation;
use vultus_train::evaluate::groups::GroupTable;
use vultus_train::facts::{TrainingFacts, load_with_facts};
use vultus_train::fingerprint::fingerprint;
use vultus_train::held_out::{HeldOutError, configuration_of, held_out};
use vultus_train::prepare::{PrepareError, read, with_labels};
use vultus_train::run::{RunDirectory, RunError, evaluation_path};
use vultus_train::source::{LoadOptions, Source, load};
use vultus_train::train::add_assessment;

use super::train::{usage_or_data, usage_or_run};
use super::{ViewArguments, check_outside, is_in_a_run, is_taken, model_file, quoted, run_directory};
use crate::failure::Failure;
use crate::message::say;
use crate::table;

const NO_IMAGES: &str = "a model file brings no images: name some with --data SOURCE";

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
    /// Evaluate a model on the images that its training held out for validation, as split train-validation, to look at what
    /// it gets wrong without a look at the test images. A model file needs the data of its training (--data). Several models
    /// must all have held out the same images.
    #[arg(long, conflicts_with = "split")]
    validation: bool,
    /// A class of the data that the model does not know and that is left out; may be given several times. Classes that
    /// were dropped in training are left out anyway.
    #[arg(long, value_name = "NAME")]
    drop_class: Vec<String>,
    /// A class that the model knows and is not asked for: its images are left out, and the other classes share its
    /// probability in proportion. May be given several times.
    #[arg(long, value_name = "NAME")]
    without: Vec<String>,
    /// A csv table with a column origin, which names images as predictions.csv does, and one for each attribute to group them by, such
    /// as age or camera: the figures of each group are given, too.
    #[arg(long, value_name = "FILE")]
    groups: Option<PathBuf>,
    #[command(flatten)]
    views: ViewArguments,
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
        if let Some(out) = self.out.as_deref().filter(|out| is_in_a_run(out)) {
            let out = out.display();
            return Err(Failure::usage(anyhow!("{out} is where a run keeps its own evaluations: give another --out")));
        }
        let groups = self.groups.as_deref().map(GroupTable::read).transpose().map_err(Failure::usage)?;
        let run = if self.on_own_data() { Some(self.open_run()?) } else { None };
        if let Some(out) = &self.out {
            let own = run.as_ref().map(|(_, config)| &config.data.sources);
            check_outside(own.unwrap_or(&self.data), out, "with --out")?;
        }
        let (mut bundles, mut facts) = (Vec::new(), Vec::new());
        for model in &self.models {
            let (bundle, told) = load_with_facts(&model_file(model)?)?;
            bundles.push(bundle);
            facts.push(told);
        }
        let mut others = self.models.iter().zip(&facts).skip(1);
        if let Some((other, _)) = others.find(|(_, told)| told.labels != facts[0].labels) {
            return Err(Failure::usage(anyhow!(
                "{} and {} were taught different labels of the images (data.labels): no truth fits both",
                self.models[0].display(),
                other.display()
            )));
        }
        for bundle in &mut bundles {
            bundle.inference.views = self.views.change(bundle.inference.views)?;
        }
        let bundle = &bundles[0];
        let config = run.as_ref().map(|(_, config)| config);
        let (dataset, split) = self.images(&bundles, &facts, config)?;
        check_dropped(&self.drop_class, bundle, &facts, &dataset)?;
        let mut dropped = self.drop_class.clone();
        dropped.extend(facts.iter().flat_map(|facts| facts.dropped_classes.clone()));
        let left_out: Vec<String> = dropped.iter().chain(&self.without).map(|class| canonical(class)).collect();
        let (asked, mut notes) = (dataset.indices_without(&split, &left_out), Vec::new());
        if !asked.is_empty() {
            // Before the work, which a wrong table would lose.
            let origins = asked.iter().map(|&index| dataset.samples[index].origin.as_str());
            groups.as_ref().map(|groups| groups.rows(origins.clone())).transpose().map_err(Failure::usage)?;
            if let Some(unused) = groups.as_ref().and_then(|groups| groups.unused(&split, origins)) {
                say(format_args!("note: {unused}"));
            }
            // The first model's cleaning is not that of the others.
            let uncleaned = config.filter(|_| self.models.len() > 1 && !self.validation);
            let uncleaned =
                uncleaned.map(|config| read_sources(&config.data.sources, bundle, &facts[0])).transpose()?;
            notes = self.notes(&facts, &dataset, uncleaned.as_ref(), &split, &asked);
            notes.iter().for_each(|note| say(format_args!("note: {note}")));
        }
        let mut assessment = assess(&bundles, &dataset, &split, &dropped, &self.without).map_err(with_option)?;
        let models = &assessment.evaluation.models;
        for place in (1..models.len()).filter(|&place| models[..place].contains(&models[place])) {
            let note = format!(
                "{} is the same model as one before it: its answer counts each time",
                self.models[place].display()
            );
            say(format_args!("note: {note}"));
            notes.push(note);
        }
        assessment.evaluation.notes = notes;
        assessment.name_models(self.models.iter().map(PathBuf::as_path));
        if let Some(groups) = groups {
            let scores = groups.scores(&assessment.evaluation.split, &assessment.predictions);
            assessment.evaluation.groups = scores.map_err(Failure::usage)?;
        }
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
            let earlier = Evaluation::load(&evaluation_path(run.path(), &assessment.evaluation.split)).ok();
            if earlier.is_some_and(|earlier| !earlier.groups.is_empty()) && assessment.evaluation.groups.is_empty() {
                say("note: the figures of groups that were kept there are replaced: --groups makes them again");
            }
            kept = add_assessment(run.path(), &assessment).map_err(Failure::from);
            if kept.is_ok() {
                say(format_args!("kept in {}, report renewed (with pictures)", run.path().display()));
            }
        } else if run.is_some() && self.models.len() > 1 {
            say(format_args!("note: on the data of {}", self.models[0].display()));
        }
        let printed = if self.json {
            table::print_json(&assessment.evaluation)
        } else {
            table::print_evaluation(&assessment.evaluation).map_err(anyhow::Error::from)
        };
        kept?;
        Ok(printed?)
    }

    /// The images and the split that are asked for; `config` is that of the run whose own data they are.
    fn images(
        &self,
        bundles: &[Bundle],
        facts: &[TrainingFacts],
        config: Option<&TrainConfig>,
    ) -> Result<(Dataset, String), Failure> {
        if self.validation {
            let mut others = self.models.iter().zip(facts).skip(1);
            if let Some((model, _)) = others.find(|(_, other)| !other.held_out_as(&facts[0])) {
                return Err(Failure::usage(anyhow!(
                    "--validation: what {} held out, {} may have learnt: its file tells of other images, or of none",
                    self.models[0].display(),
                    model.display()
                )));
            }
            return held_out_images(&bundles[0], &facts[0], config, &self.data);
        }
        let dataset = match config {
            Some(config) => read(config).map_err(|error| usage_or_data(error.into()))?,
            None => read_sources(&self.data, &bundles[0], &facts[0])?,
        };
        let split = match (&self.split, config) {
            (Some(name), _) => split_name::meant_by(name).to_owned(),
            (None, Some(config)) => {
                default_split(&dataset, &[&config.data.train_split, &config.data.validation_split])?
            }
            (None, None) => default_split_of_data(&dataset)?,
        };
        Ok((dataset, split))
    }

    /// What flatters the figures on the `images` of `split`, model by model. Data that were read `uncleaned`, too, and those of
    /// one run, are known to be those of the first one's training.
    fn notes(
        &self,
        facts: &[TrainingFacts],
        dataset: &Dataset,
        uncleaned: Option<&Dataset>,
        split: &str,
        images: &[usize],
    ) -> Vec<String> {
        let own = self.on_own_data();
        let origins: HashSet<&str> = images.iter().map(|&index| dataset.samples[index].origin.as_str()).collect();
        let is_asked = |data: &Dataset, index: &usize| origins.contains(data.samples[*index].origin.as_str());
        let uncleaned = uncleaned.map(|data| {
            let indices = data.indices_of(split).into_iter().filter(|index| is_asked(data, index)).collect::<Vec<_>>();
            (data, indices)
        });
        let mut notes = Vec::new();
        // What was held out has a split of its own by now; of the data it was known a moment ago.
        let changed = facts[0].data_sha256.as_ref().is_some_and(|images| *images != fingerprint(dataset));
        if own && !self.validation && changed {
            let all = "the images are not all those of the training any more: some were added, removed or changed";
            notes.push(all.to_owned());
        }
        notes.extend(of_repeats(dataset, split, images));
        for (place, (model, facts)) in self.models.iter().zip(facts).enumerate() {
            let sure = self.validation || (place == 0 && own);
            let whose = if self.models.len() > 1 { format!("{}: ", model.display()) } else { String::new() };
            notes.extend(of_role(facts, dataset, split, images, sure).map(|note| format!("{whose}{note}")));
            let (data, images) = match &uncleaned {
                Some((data, indices)) if place > 0 => (*data, &indices[..]),
                _ => (dataset, images),
            };
            notes.extend(of_model(facts, data, split, images).iter().map(|note| format!("{whose}{note}")));
        }
        notes
    }

    /// The run whose data are used, and its configuration. Its directory is held, from before the model is read until the
    /// evaluation of just this model is kept, where that is kept.
    fn open_run(&self) -> Result<(Option<RunDirectory>, TrainConfig), Failure> {
        let path = run_directory(&self.models[0])?;
        if self.out.is_none() && self.is_of_the_run() {
            match RunDirectory::open(&path) {
                Err(RunError::Io(error))
                    if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) =>
                {
                    say(format_args!("note: {error}: the result is not kept there; --out keeps it elsewhere"));
                }
                opened => return opened.map(|(run, config)| (Some(run), config)).map_err(usage_or_run),
            }
        }
        Ok((None, RunDirectory::config_of(&path).map_err(usage_or_run)?))
    }

    /// Whether the result is that of one model with its own classes and views.
    fn is_of_the_run(&self) -> bool {
        self.models.len() == 1 && self.without.is_empty() && self.views.is_empty()
    }

    /// Whether a run is evaluated on the data that it was trained with.
    fn on_own_data(&self) -> bool {
        self.data.is_empty() && self.models[0].is_dir()
    }
}

/// Classes to leave out must be in the data, and unknown to the model: its scores without a class that it predicts would mislead.
pub fn check_dropped(
    drop_class: &[String],
    bundle: &Bundle,
    facts: &[TrainingFacts],
    dataset: &Dataset,
) -> Result<(), Failure> {
    let by_training = |name: &str| facts.iter().any(|facts| facts.dropped_classes.contains(&canonical(name)));
    for name in drop_class {
        if bundle.labels.index_of(name).is_some() {
            return Err(Failure::usage(anyhow!(
                "--drop-class {name}: the model knows this class; --without of vultus evaluate leaves it out of the answer as well"
            )));
        }
        if dataset.labels.index_of(name).is_none() && !by_training(name) {
            let known = dataset.labels.names().join(", ");
            return Err(Failure::usage(anyhow!(
                "--drop-class {name}: the data have no such class; they have: {known}"
            )));
        }
    }
    Ok(())
}

/// [`usage_or_assess`], with the option that leaves unknown classes out.
pub fn with_option(error: AssessError) -> Failure {
    if let AssessError::UnknownClasses { unknown, .. } = &error {
        let options: String = unknown.iter().map(|(class, _)| format!(" --drop-class {}", quoted(class))).collect();
        return Failure::usage(anyhow!("{error}:{options}"));
    }
    usage_or_assess(error)
}

/// What cannot be evaluated: a wrong question, or a model or an image that gives no answer.
pub fn usage_or_assess(error: AssessError) -> Failure {
    match error {
        AssessError::NoSplit(_)
        | AssessError::UnknownClasses { .. }
        | AssessError::Ensemble(_)
        | AssessError::NotAnswered { .. }
        | AssessError::TooFewClasses(_) => Failure::usage(error),
        _ => Failure::Run(error.into()),
    }
}

/// The images that the training of `bundle` held out, and their split: of its run's configuration `own`, or else of `data`.
pub fn held_out_images(
    bundle: &Bundle,
    facts: &TrainingFacts,
    own: Option<&TrainConfig>,
    data: &[String],
) -> Result<(Dataset, String), Failure> {
    let found = match own {
        Some(config) => held_out(config, facts),
        None if data.is_empty() => return Err(Failure::usage(anyhow!(NO_IMAGES))),
        None => configuration_of(bundle, facts, data).and_then(|config| held_out(&config, facts)),
    };
    let other_data = || Failure::usage(anyhow!("{}, with --split", HeldOutError::OtherData));
    found.map_err(|error| match error {
        HeldOutError::OtherData => other_data(),
        // Of data that are given, the model's file made the configuration.
        HeldOutError::Prepare(
            PrepareError::NoConfiguredSplit { .. }
            | PrepareError::Untrained { .. }
            | PrepareError::OneClass(_)
            | PrepareError::Split { .. },
        ) if own.is_none() => other_data(),
        HeldOutError::Prepare(error) => usage_or_data(error),
        error => Failure::usage(error),
    })
}

/// Images for a bundle, with the classes that it learnt.
pub fn read_sources(data: &[String], bundle: &Bundle, facts: &TrainingFacts) -> Result<Dataset, Failure> {
    if data.is_empty() {
        return Err(Failure::usage(anyhow!(NO_IMAGES)));
    }
    let sources = data.iter().map(|text| Source::parse(text)).collect::<Result<Vec<_>, _>>();
    // Drawn faces are those of the training.
    let synthetic = facts.synthetic.clone().unwrap_or_default();
    let options = LoadOptions { synthetic, ..LoadOptions::default() };
    let dataset = load(&sources.map_err(Failure::usage)?, &bundle.preprocessing, &options)
        .map_err(|error| usage_or_data(error.into()))?;
    with_labels(dataset, facts.labels).map_err(|error| usage_or_data(error.into()))
}

/// Images of `split`, or of none that is known, that could not be used. What a run's own cleaning removed is in its `removed.csv`.
pub fn report_removed(dataset: &Dataset, split: &str) {
    let unusable = [RemovalReason::Unreadable, RemovalReason::Missing, RemovalReason::TooLarge, RemovalReason::NoClass];
    for removal in dataset.removed.iter().filter(|removal| removal.split == split || removal.split.is_empty()) {
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
    let usual = [split_name::TEST, split_name::PUBLIC_TEST];
    if let Some(name) = usual.into_iter().find(|&name| others.iter().any(|split| *split == name)) {
        return Ok(name.to_owned());
    }
    if others.is_empty() {
        let splits = splits.join(", ");
        return Err(Failure::usage(anyhow!(
            "beside what trains and what chooses ({splits}) the data has no split to measure on: name other images with --data, or a \
             split with --split"
        )));
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
