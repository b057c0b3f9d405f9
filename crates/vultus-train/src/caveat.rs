//! What a person should know before a training begins: scores that will flatter, and settings that will do nothing.
//!
//! In: a configuration and its images. Out: [`Caveat`]s, each a sentence. It refuses nothing and changes nothing.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use vultus::network::{FeatureShape, ResolvedLayer};
use vultus::preprocess::Preprocessing;
use vultus::wording::counted;

use crate::clean::Policy;
use crate::config::{FitConfig, Keep, ScheduleKind, TrainConfig};
use crate::dataset::split_name::VALIDATION;
use crate::dataset::{Dataset, Removal, RemovalReason};
use crate::facts::{SplitRole, TrainingFacts, load_with_facts};
use crate::fingerprint::{fingerprint, split_fingerprint};
use crate::prepare::Prepared;
use crate::search::space::settings;
use crate::source::{self, Source};
use crate::split::stratified_folds;
use crate::temperature::FEW_IMAGES;
use crate::train::evaluated_splits;
use crate::validation::{Validation, held_out_split};

/// Something to know before a training.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Caveat {
    /// Images that validate have the pixels of images that are trained on.
    Copies {
        /// How many validate.
        images: usize,
        /// The setting that leaves copies out.
        remedy: &'static str,
    },
    /// So few images validate that what they choose is much of chance.
    FewValidate {
        /// How many do.
        images: usize,
    },
    /// Images that will test the model have the pixels of images that are trained on.
    TestCopies {
        /// Their split.
        split: String,
        /// How many of them.
        images: usize,
    },
    /// A model that the training begins with or learns from was made of these images, in other parts.
    Learnt {
        /// Its file.
        model: String,
    },
    /// A model that the training begins with or learns from was made of images that will test the result.
    LearntTest {
        /// Its file.
        model: String,
        /// Their split.
        split: String,
    },
    /// The data have images to validate with, which test.
    UnusedValidation,
    /// Folders that are taken for classes seem to hold those.
    FoldersOfClasses {
        /// Their names.
        folders: Vec<String>,
    },
    /// No image of a class can be read, or its folder is empty.
    LostClass {
        /// Its name.
        class: String,
    },
    /// A setting that does nothing beside another one.
    Idle {
        /// Its key.
        key: &'static str,
        /// The other one.
        beside: &'static str,
    },
    /// Batches of one image, and a batch norm that has no other rows than the images.
    LoneImages {
        /// Whether all are such, and not just the last of an epoch.
        all: bool,
    },
    /// Folds that differ from setting to setting of a search.
    OtherFolds,
    /// A setting about FER+ votes, and no votes.
    NoVotes {
        /// Its key.
        key: &'static str,
    },
}

impl fmt::Display for Caveat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Copies { images, remedy } => write!(
                formatter,
                "note: {images} of the validation images {} also among those trained on: {remedy} leaves copies out",
                if *images == 1 { "is" } else { "are" }
            ),
            Self::FewValidate { images } => write!(
                formatter,
                "note: few images validate ({images}), so that chance has a large part in what they choose, such as the \
                 temperature: some hundred do better (train.validation_fraction, or a split of their own)"
            ),
            Self::TestCopies { split, images } => write!(
                formatter,
                "note: {images} of the images of split {split} {} also among those trained on, and will flatter the scores there: \
                 cleaning.leaks=drop leaves them out of the training",
                if *images == 1 { "is" } else { "are" }
            ),
            Self::Learnt { model } => write!(
                formatter,
                "note: {model} was trained on these images, split otherwise, or was taught by a model that was: it may have learnt \
                 those that validate, and the scores may flatter"
            ),
            Self::LearntTest { model, split } => write!(
                formatter,
                "note: {model} was trained on the images of split {split}, or was taught by a model that was, and the scores there \
                 will flatter"
            ),
            Self::UnusedValidation => formatter.write_str(
                "note: split validation is evaluated like a test: data.validation_split=validation lets it validate in \
                 place of a part of the training images",
            ),
            Self::FoldersOfClasses { folders } => write!(
                formatter,
                "note: {} are taken for classes, and hold folders alone, which may be the classes: name the folder in which those lie, \
                 or the one in which train/ and test/ with them do",
                folders.join(", ")
            ),
            Self::LostClass { class } => {
                write!(formatter, "note: no image of class {class} can be read, and the model will not know that class")
            }
            Self::Idle { key, beside } => write!(formatter, "note: {key} does nothing while {beside}"),
            Self::LoneImages { all } => write!(
                formatter,
                "note: {} one image, which a batch norm behind flatten or dense makes nothing of: its variance is 0, and nothing in \
                 front of it learns; use another train.batch_size",
                if *all { "every batch has" } else { "the last batch of each epoch has" }
            ),
            Self::OtherFolds => formatter.write_str(
                "note: settings with other search.folds or search.seed train on and are judged by other images: their order tells \
                 nothing of what else differs",
            ),
            Self::NoVotes { key } => {
                write!(formatter, "note: no image that is trained on has FER+ votes: {key} does nothing here")
            }
        }
    }
}

/// Caveats of a run on data that are ready.
pub fn of_run(config: &TrainConfig, prepared: &Prepared) -> Vec<Caveat> {
    let Prepared { dataset, train, validation } = prepared;
    let mut caveats = BTreeSet::new();
    let remedy = match config.validation() {
        Validation::Split(_) => "cleaning.leaks=drop",
        Validation::Part { .. } | Validation::Nothing => DROP_DUPLICATES,
    };
    caveats.extend(copies(dataset.copies(validation, train), remedy));
    caveats.extend(few(validation.len()));
    let chosen = [&config.data.train_split, &config.data.validation_split];
    let ancestors = ancestors([config]);
    for split in evaluated_splits(config, dataset).iter().filter(|split| !chosen.contains(split)) {
        let images = dataset.copies(&dataset.indices_of(split), train);
        caveats.extend((images > 0).then(|| Caveat::TestCopies { split: split.clone(), images }));
        let images = dataset.indices_of(split);
        let knowing = ancestors.iter().filter(|(_, facts)| facts.has_learnt(dataset, &images));
        caveats.extend(knowing.map(|(model, _)| Caveat::LearntTest { model: model.clone(), split: split.clone() }));
    }
    caveats.extend(without_votes(config, dataset, train));
    caveats.extend(unused_validation(config, dataset));
    caveats.extend(lost_classes(dataset));
    let sources: Vec<Source> = config.data.sources.iter().filter_map(|text| Source::parse(text).ok()).collect();
    caveats.extend(of_sources(&sources, dataset));
    caveats.extend(idle(config));
    caveats.extend(idle_beside_the_course(config));
    caveats.extend(lone_images(config, dataset, train.len()));
    caveats.extend(knowing_validation(config, prepared).into_iter().map(|model| Caveat::Learnt { model }));
    caveats.into_iter().collect()
}

/// The models that a run begins with or learns from and that may have learnt the images that validate, or had it from others that
/// may have.
pub(crate) fn knowing_validation(config: &TrainConfig, prepared: &Prepared) -> Vec<String> {
    let Prepared { dataset, validation, .. } = prepared;
    match config.validation() {
        part @ Validation::Part { .. } => {
            let same_parts =
                |facts: &TrainingFacts| facts.validation() == Some(part) && facts.validation_known_to.is_empty();
            learnt([config], dataset, &config.data.train_split, same_parts)
        }
        Validation::Split(_) => {
            let knowing = ancestors([config]).into_iter().filter(|(_, facts)| facts.has_learnt(dataset, validation));
            knowing.map(|(model, _)| model).collect()
        }
        Validation::Nothing => Vec::new(),
    }
}

/// Caveats of a search whose folds are made of the samples at `indices`. Of settings with other folds, those with the most
/// copies count; a search that cannot be made has none here, and says why when it is made.
pub fn of_search(config: &TrainConfig, dataset: &Dataset, indices: &[usize]) -> Vec<Caveat> {
    let settings = settings(&config.search).unwrap_or_default();
    let configs: Vec<TrainConfig> = settings.iter().filter_map(|setting| setting.apply(config).ok()).collect();
    let labels: Vec<usize> = indices.iter().map(|&index| dataset.samples[index].label).collect();
    let folds: BTreeSet<(usize, u64)> =
        configs.iter().map(|config| (config.search.folds, config.search.seed)).collect();
    let copies_of = |(folds, seed): (usize, u64)| -> usize {
        let pick = |positions: &[usize]| positions.iter().map(|&position| indices[position]).collect::<Vec<_>>();
        let parts = stratified_folds(&labels, folds, seed).unwrap_or_default();
        parts.iter().map(|(train, validation)| dataset.copies(&pick(validation), &pick(train))).sum()
    };
    let mut caveats = BTreeSet::new();
    caveats.extend(copies(folds.iter().copied().map(copies_of).max().unwrap_or_default(), DROP_DUPLICATES));
    caveats.extend((folds.len() > 1).then_some(Caveat::OtherFolds));
    caveats.extend(configs.iter().flat_map(|config| without_votes(config, dataset, indices)));
    // Beside some of the settings only, it is one of the things that are compared.
    let idle_in_all = |caveat: &Caveat| configs.iter().all(|config| idle(config).any(|other| other == *caveat));
    caveats.extend(configs.first().into_iter().flat_map(idle).filter(idle_in_all));
    // Every image validates in some fold.
    let models = learnt(&configs, dataset, &config.data.train_split, |_| false);
    caveats.extend(models.into_iter().map(|model| Caveat::Learnt { model }));
    caveats.into_iter().collect()
}

/// A split for validation that neither trains nor validates.
fn unused_validation(config: &TrainConfig, dataset: &Dataset) -> Option<Caveat> {
    let used = [&config.data.train_split, &config.data.validation_split].contains(&&VALIDATION.to_owned());
    let tests =
        config.data.evaluate_splits.is_empty() || config.data.evaluate_splits.iter().any(|split| split == VALIDATION);
    (!used && tests && dataset.splits().iter().any(|split| split == VALIDATION)).then_some(Caveat::UnusedValidation)
}

/// Classes of unreadable images that no other image has.
fn lost_classes(dataset: &Dataset) -> impl Iterator<Item = Caveat> {
    let unreadable = [RemovalReason::Unreadable, RemovalReason::Missing, RemovalReason::TooLarge];
    let removed = dataset.removed.iter().filter(move |removal| unreadable.contains(&removal.reason));
    let lost = removed.filter_map(|removal| removal.label.as_ref()).filter(|class| {
        let dropped = |removal: &&Removal| removal.reason == RemovalReason::ClassDropped;
        let by_intention = dataset.removed.iter().filter(dropped).any(|removal| removal.label.as_ref() == Some(*class));
        dataset.labels.index_of(class).is_none() && !by_intention
    });
    lost.map(|class| Caveat::LostClass { class: class.clone() })
}

/// Classes whose folders hold no image, and folders that are no classes, it seems.
fn of_sources(sources: &[Source], dataset: &Dataset) -> Vec<Caveat> {
    let nested = source::folders_of_classes(sources).map(|folders| Caveat::FoldersOfClasses { folders });
    let empty = source::empty_classes(sources, dataset).into_iter().map(|class| Caveat::LostClass { class });
    nested.chain(empty).collect()
}

/// Settings of what is learnt that do nothing, in a run or in a trial of a search.
fn idle(config: &TrainConfig) -> impl Iterator<Item = Caveat> + use<> {
    let (targets, schedule) = (&config.train.targets, &config.train.schedule);
    let taught = targets.distillation > 0.0;
    let without_teachers = "train.targets.distillation is 0";
    let found = [
        (!taught && !targets.teachers.is_empty(), "train.targets.teachers", without_teachers),
        (
            !taught && targets.distillation_temperature != 1.0,
            "train.targets.distillation_temperature",
            without_teachers,
        ),
        (
            schedule.kind == ScheduleKind::Constant && schedule.floor != 0.0,
            "train.schedule.floor",
            "train.schedule.type is constant",
        ),
    ];
    let found = found.into_iter().filter(|(idle, ..)| *idle);
    found.map(|(_, key, beside)| Caveat::Idle { key, beside })
}

/// Settings of what a run holds out, chooses and when it stops that do nothing; a search has rules of its own for these.
fn idle_beside_the_course(config: &TrainConfig) -> impl Iterator<Item = Caveat> + use<> {
    let train = &config.train;
    let drawn = matches!(config.validation(), Validation::Part { .. });
    let chooses = train.keep == Keep::Best || train.early_stopping.patience > 0;
    let nothing_chosen = "train.keep is last and train.early_stopping.patience is 0";
    let found = [
        (!drawn && train.validation_seed != 0, "train.validation_seed", "no part of the training images validates"),
        (!chooses && train.monitor != FitConfig::default().monitor, "train.monitor", nothing_chosen),
        (!chooses && train.early_stopping.min_delta != 0.0, "train.early_stopping.min_delta", nothing_chosen),
    ];
    let found = found.into_iter().filter(|(idle, ..)| *idle);
    found.map(|(_, key, beside)| Caveat::Idle { key, beside })
}

/// Whether an epoch over `images` has batches of one, and the network a batch norm over the images alone.
fn lone_images(config: &TrainConfig, dataset: &Dataset, images: usize) -> Option<Caveat> {
    let Preprocessing { width, height, .. } = config.preprocessing;
    let batch_size = config.train.batch_size;
    let lone = batch_size == 1 || images % batch_size == 1;
    let network =
        config.network.resolve(width as usize, height as usize, dataset.labels.len()).ok().filter(|_| lone)?;
    let over_images =
        |layer: &ResolvedLayer| layer.kind() == "batch_norm" && matches!(layer.input, FeatureShape::Flat { .. });
    network.every_layer().any(over_images).then_some(Caveat::LoneImages { all: batch_size == 1 })
}

fn few(images: usize) -> Option<Caveat> {
    (1..FEW_IMAGES).contains(&images).then_some(Caveat::FewValidate { images })
}

/// What leaves out copies within a split.
const DROP_DUPLICATES: &str = "cleaning.duplicates=drop";

fn copies(images: usize, remedy: &'static str) -> Option<Caveat> {
    (images > 0).then_some(Caveat::Copies { images, remedy })
}

/// Settings about votes that the samples at `indices` do not have.
fn without_votes(config: &TrainConfig, dataset: &Dataset, indices: &[usize]) -> Vec<Caveat> {
    // Images that are no faces had votes before they were left out.
    let voted = indices.iter().any(|&index| dataset.samples[index].votes.is_some())
        || dataset.removed.iter().any(|removal| removal.reason == RemovalReason::NotAFace);
    let cleans = (config.cleaning.not_a_face == Policy::Drop).then_some("cleaning.not_a_face");
    let asked = config.train.targets.keys_of_votes().chain(cleans);
    asked.filter(|_| !voted).map(|key| Caveat::NoVotes { key }).collect()
}

/// The models that `configs` begin with or learn from and that were trained on the images of `split`, unless in the
/// `same_parts` by what their files say.
fn learnt<'a>(
    configs: impl IntoIterator<Item = &'a TrainConfig>,
    dataset: &Dataset,
    split: &str,
    same_parts: impl Fn(&TrainingFacts) -> bool,
) -> Vec<String> {
    let models = ancestors(configs);
    if models.is_empty() {
        return Vec::new();
    }
    let (images, all) = (split_fingerprint(dataset, split), fingerprint(dataset));
    let indices = dataset.indices_of(split);
    let knows = |facts: &TrainingFacts| {
        // Older files tell of all splits together.
        let known = match &facts.train_sha256 {
            Some(learnt) => *learnt == images || facts.has_learnt(dataset, &indices),
            None => facts.data_sha256.as_ref() == Some(&all),
        };
        known && !same_parts(facts)
    };
    models.into_iter().filter(|(_, facts)| knows(facts)).map(|(model, _)| model).collect()
}

/// The models that `configs` begin with or learn from, with what their files tell. One that cannot be read is none here: whoever
/// needs it says why.
pub(crate) fn ancestors<'a>(configs: impl IntoIterator<Item = &'a TrainConfig>) -> Vec<(String, TrainingFacts)> {
    let mut models: BTreeSet<&String> = BTreeSet::new();
    for config in configs {
        models.extend(Some(&config.train.start).filter(|start| !start.is_empty()));
        models.extend(config.train.targets.teachers.iter().filter(|_| config.train.targets.distillation > 0.0));
    }
    let told = |model: &String| load_with_facts(Path::new(model)).ok().map(|(_, facts)| (model.clone(), facts));
    models.into_iter().filter_map(told).collect()
}

/// What the samples at `images` of `split` did for the model, which flatters its figures; known for `sure` where they are its own.
pub fn of_role(facts: &TrainingFacts, dataset: &Dataset, split: &str, images: &[usize], sure: bool) -> Option<String> {
    let temperature = facts.chose_temperature(dataset, split, images);
    let chosen = match temperature {
        true => "the temperature, and the epoch where one was chosen",
        false => "the epoch, where one was chosen",
    };
    Some(match facts.role_of(split) {
        Some(SplitRole::Learnt) if sure => {
            let held_out = facts.validates_by_part() && facts.images.is_some_and(|images| images.validation > 0);
            let apart = if held_out { ", but for the images that it held out" } else { "" };
            format!("split {split} is what the model was trained on{apart}")
        }
        Some(SplitRole::Validated) if sure => format!("these images chose {chosen}"),
        Some(SplitRole::Learnt) => format!(
            "split {split} is called like the one that the model was trained on: if these are its images, they flatter it"
        ),
        Some(SplitRole::Validated) => format!(
            "split {split} is called like the one that validated the model: if these are its images, they chose {chosen}"
        ),
        None if temperature => "these images chose the temperature".to_owned(),
        None if facts.calibrated_on(split) => format!(
            "split {split} is called like the one whose images chose the temperature: those that are the same flatter its scores"
        ),
        None => return None,
    })
}

/// What flatters a model with `facts` on `split`, of which the samples at `images` count: those that it may have learnt. That it
/// learnt the whole split is known by its name already.
pub fn of_model(facts: &TrainingFacts, dataset: &Dataset, split: &str, images: &[usize]) -> Vec<String> {
    let (role, train_split) = (facts.role_of(split), facts.train_split());
    if role == Some(SplitRole::Learnt) {
        return Vec::new();
    }
    let mut notes = Vec::new();
    if role == Some(SplitRole::Validated) && !facts.validation_known_to.is_empty() {
        let models = facts.validation_known_to.join(" and ");
        notes.push(format!("the training began with or learnt from {models}, which may have learnt these images"));
    }
    if facts.has_learnt(dataset, &dataset.indices_of(split)) {
        notes.push(format!("split {split} is what the model learnt, or one that it began with or learnt from"));
    }
    // Of what it held out itself, cleaning left no copies out.
    let dropped = facts.drops_leaks() && split != held_out_split(train_split);
    notes.extend(of_copies(dataset, split, images, train_split, dropped));
    notes
}

/// What is to be known of figures of `split`, of which the samples at `images` count, where some repeat others.
pub fn of_repeats(dataset: &Dataset, split: &str, images: &[usize]) -> Option<String> {
    let repeats = dataset.repeats(images);
    let verb = if repeats == 1 { "repeats" } else { "repeat" };
    let which = format!("{} of split {split} {verb} the pixels of another one", counted(repeats, "image"));
    (repeats > 0).then(|| format!("{which}: intervals, and what chance may make, take all for independent"))
}

/// The same where some also stand in another split, `train_split`, out of which the training may have left them (`dropped`).
fn of_copies(dataset: &Dataset, split: &str, images: &[usize], train_split: &str, dropped: bool) -> Option<String> {
    let copies = if split == train_split { 0 } else { dataset.copies(images, &dataset.indices_of(train_split)) };
    let verb = if copies == 1 { "stands" } else { "stand" };
    let without = if dropped { ", out of which the training left such images of its own data" } else { "" };
    (copies > 0).then(|| format!("{} of split {split} also {verb} in {train_split}{without}", counted(copies, "image")))
}

#[cfg(test)]
mod tests;
