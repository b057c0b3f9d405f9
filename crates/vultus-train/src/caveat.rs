//! What a person should know before a training begins: scores that will flatter, and settings that will do nothing.
//!
//! In: a configuration and its images. Out: [`Caveat`]s, each a sentence. It refuses nothing and changes nothing.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use vultus::wording::counted;

use crate::clean::Policy;
use crate::config::TrainConfig;
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
    /// The data have images to validate with, which test.
    UnusedValidation,
    /// No image of a class can be read, or its folder is empty.
    LostClass {
        /// Its name.
        class: String,
    },
    /// Teachers without a share in the targets.
    IdleTeachers,
    /// A seed for a part that validates, where no part does.
    IdleValidationSeed,
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
            Self::UnusedValidation => formatter.write_str(
                "note: split validation is evaluated like a test: data.validation_split=validation lets it validate in \
                 place of a part of the training images",
            ),
            Self::LostClass { class } => {
                write!(formatter, "note: no image of class {class} can be read, and the model will not know that class")
            }
            Self::IdleTeachers => {
                formatter.write_str("note: train.targets.teachers do nothing while train.targets.distillation is 0")
            }
            Self::IdleValidationSeed => formatter.write_str(
                "note: train.validation_seed does nothing: no part of the training images is drawn to validate",
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
    for split in evaluated_splits(config, dataset).iter().filter(|split| !chosen.contains(split)) {
        let images = dataset.copies(&dataset.indices_of(split), train);
        caveats.extend((images > 0).then(|| Caveat::TestCopies { split: split.clone(), images }));
    }
    caveats.extend(without_votes(config, dataset, train));
    caveats.extend(unused_validation(config, dataset));
    caveats.extend(lost_classes(dataset));
    caveats.extend(classes_without_images(config, dataset));
    let targets = &config.train.targets;
    let idle = targets.distillation == 0.0 && !targets.teachers.is_empty();
    caveats.extend(idle.then_some(Caveat::IdleTeachers));
    caveats.extend(idle_seed(config));
    caveats.extend(knowing_validation(config, prepared).into_iter().map(|model| Caveat::Learnt { model }));
    caveats.into_iter().collect()
}

/// The models that a run begins with or learns from and that may have learnt the images that validate, or had it from others that
/// may have.
pub(crate) fn knowing_validation(config: &TrainConfig, prepared: &Prepared) -> Vec<String> {
    // Another split has not been trained on.
    let part @ Validation::Part { .. } = config.validation() else { return Vec::new() };
    let same_parts = |facts: &TrainingFacts| facts.validation() == Some(part) && facts.validation_known_to.is_empty();
    learnt([config], &prepared.dataset, &config.data.train_split, same_parts)
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
    caveats.extend(copies(folds.into_iter().map(copies_of).max().unwrap_or_default(), DROP_DUPLICATES));
    caveats.extend(configs.iter().flat_map(|config| without_votes(config, dataset, indices)));
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

/// Classes whose folders hold no image.
fn classes_without_images(config: &TrainConfig, dataset: &Dataset) -> Vec<Caveat> {
    let sources: Vec<Source> = config.data.sources.iter().filter_map(|text| Source::parse(text).ok()).collect();
    source::empty_classes(&sources, dataset).into_iter().map(|class| Caveat::LostClass { class }).collect()
}

/// A seed of a part that validates, where none is drawn.
fn idle_seed(config: &TrainConfig) -> Option<Caveat> {
    let drawn = matches!(config.validation(), Validation::Part { .. });
    (config.train.validation_seed != 0 && !drawn).then_some(Caveat::IdleValidationSeed)
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
/// `same_parts` by what their files say. One that cannot be read is none here: whoever needs it says why.
fn learnt<'a>(
    configs: impl IntoIterator<Item = &'a TrainConfig>,
    dataset: &Dataset,
    split: &str,
    same_parts: impl Fn(&TrainingFacts) -> bool,
) -> Vec<String> {
    let mut models: BTreeSet<&String> = BTreeSet::new();
    for config in configs {
        models.extend(Some(&config.train.start).filter(|start| !start.is_empty()));
        models.extend(config.train.targets.teachers.iter().filter(|_| config.train.targets.distillation > 0.0));
    }
    if models.is_empty() {
        return Vec::new();
    }
    let (images, all) = (split_fingerprint(dataset, split), fingerprint(dataset));
    let knows = |model: &str| {
        let facts = load_with_facts(Path::new(model)).map(|(_, facts)| facts).unwrap_or_default();
        // Older files tell of all splits together.
        let known = match &facts.train_sha256 {
            Some(learnt) => *learnt == images,
            None => facts.data_sha256.as_ref() == Some(&all),
        };
        known && !same_parts(&facts)
    };
    models.into_iter().filter(|model| knows(model)).cloned().collect()
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
pub fn of_copies(dataset: &Dataset, split: &str, images: &[usize], train_split: &str, dropped: bool) -> Option<String> {
    let copies = if split == train_split { 0 } else { dataset.copies(images, &dataset.indices_of(train_split)) };
    let verb = if copies == 1 { "stands" } else { "stand" };
    let without = if dropped { ", out of which the training left such images of its own data" } else { "" };
    (copies > 0).then(|| format!("{} of split {split} also {verb} in {train_split}{without}", counted(copies, "image")))
}

#[cfg(test)]
mod tests {
    use image::{GrayImage, Luma};
    use serde_json::json;
    use vultus::bundle::Bundle;
    use vultus::inference::Inference;
    use vultus::labels::Labels;
    use vultus::network::NetworkConfig;
    use vultus::preprocess::Preprocessing;

    use super::*;
    use crate::dataset::Sample;
    use crate::model::initial_weights;

    /// Twelve training images of two classes, in turn; those at 0 and 10, and at 1 and 3, are equal.
    fn prepared() -> Prepared {
        let sample = |index: usize| Sample {
            image: GrayImage::from_pixel(
                2,
                2,
                Luma([match index {
                    10 => 0,
                    3 => 1,
                    other => other as u8,
                }]),
            ),
            label: index % 2,
            split: "train".to_owned(),
            origin: String::new(),
            votes: None,
        };
        let samples = (0..12).map(sample).collect();
        let dataset = Dataset { labels: Labels::new(["happy", "sad"]).unwrap(), samples, removed: Vec::new() };
        Prepared { dataset, train: (0..9).collect(), validation: (9..12).collect() }
    }

    /// What is to be known beside that the images are few.
    fn beside_few(config: &TrainConfig, prepared: &Prepared) -> Vec<Caveat> {
        let mut caveats = of_run(config, prepared);
        caveats.retain(|caveat| !matches!(caveat, Caveat::FewValidate { .. }));
        caveats
    }

    #[test]
    fn few_images_that_validate_are_told() {
        let mut prepared = prepared();
        (prepared.train, prepared.validation) = (vec![2, 4], vec![5, 7]);
        let found = of_run(&TrainConfig::default(), &prepared);
        assert_eq!(found, [Caveat::FewValidate { images: 2 }]);
        assert!(found[0].to_string().starts_with("note: few images validate (2)"), "{}", found[0]);
        prepared.validation.clear();
        assert_eq!(of_run(&TrainConfig::default(), &prepared), []);
        assert_eq!([few(FEW_IMAGES - 1).is_some(), few(FEW_IMAGES).is_some()], [true, false]);
    }

    fn search(values: &str) -> TrainConfig {
        let axes = format!("[search]\nfolds = 2\n[[search.axes]]\n{values}");
        TrainConfig::from_toml(&axes, "text").unwrap()
    }

    #[test]
    fn copies_on_both_sides_are_counted() {
        let prepared = prepared();
        let found = beside_few(&TrainConfig::default(), &prepared);
        assert_eq!(found, [Caveat::Copies { images: 1, remedy: DROP_DUPLICATES }]);
        assert!(found[0].to_string().contains("1 of the validation images is also among those trained on"));
        let mut apart = TrainConfig::default();
        "val".clone_into(&mut apart.data.validation_split);
        let [Caveat::Copies { remedy, .. }] = beside_few(&apart, &prepared)[..] else { panic!("no copies") };
        assert_eq!(remedy, "cleaning.leaks=drop");
        let apart = Prepared { train: (0..10).collect(), validation: vec![11], ..prepared.clone() };
        assert_eq!(beside_few(&TrainConfig::default(), &apart), []);

        let indices: Vec<usize> = (0..12).collect();
        let labels: Vec<usize> = indices.iter().map(|index| index % 2).collect();
        for seed in 1..6 {
            let mut config = search("keys = [\"train.epochs\"]\nvalues = [1]");
            config.search.seed = seed;
            let folds = stratified_folds(&labels, 2, seed).unwrap();
            let apart = |a: usize, b: usize| folds[0].0.contains(&a) != folds[0].0.contains(&b);
            // Each of a pair validates once.
            let images = 2 * (usize::from(apart(0, 10)) + usize::from(apart(1, 3)));
            assert_eq!(
                of_search(&config, &prepared.dataset, &indices),
                Vec::from_iter(copies(images, DROP_DUPLICATES))
            );
        }
    }

    #[test]
    fn images_to_validate_with_that_test_and_classes_without_an_image_are_named() {
        let mut prepared = prepared();
        prepared.train.truncate(8);
        prepared.validation.clear();
        prepared.dataset.samples[11].split = "validation".to_owned();
        let removal = |label: &str, reason| Removal {
            origin: "a.png".to_owned(),
            split: "train".to_owned(),
            label: Some(label.to_owned()),
            reason,
            detail: String::new(),
        };
        prepared.dataset.removed = vec![
            removal("bored", RemovalReason::Unreadable),
            removal("happy", RemovalReason::Unreadable),
            removal("tired", RemovalReason::Missing),
            removal("tired", RemovalReason::ClassDropped),
        ];
        let mut config = TrainConfig::default();
        let lost = Caveat::LostClass { class: "bored".to_owned() };
        assert_eq!(beside_few(&config, &prepared), [Caveat::UnusedValidation, lost.clone()]);
        config.data.evaluate_splits = vec!["test".to_owned()];
        assert_eq!(beside_few(&config, &prepared), std::slice::from_ref(&lost));
        config.data.evaluate_splits.clear();
        config.data.validation_split = "validation".to_owned();
        config.train.targets.teachers = vec!["a.safetensors".to_owned()];
        config.train.validation_seed = 3;
        assert_eq!(beside_few(&config, &prepared), [lost, Caveat::IdleTeachers, Caveat::IdleValidationSeed]);
    }

    #[test]
    fn settings_about_votes_that_are_not_there_are_named() {
        let mut prepared = prepared();
        prepared.validation.clear();
        let mut config = TrainConfig::default();
        config.train.targets.votes = 0.5;
        config.cleaning.not_a_face = Policy::Drop;
        let both = ["train.targets.votes", "cleaning.not_a_face"].map(|key| Caveat::NoVotes { key });
        let found = beside_few(&config, &prepared);
        assert!(found.len() == 2 && both.iter().all(|caveat| found.contains(caveat)), "{found:?}");
        let searched = search("keys = [\"train.targets.votes\"]\nvalues = [0.0, 0.5]");
        let found = of_search(&searched, &prepared.dataset, &[2, 4, 5, 7]);
        assert_eq!(found, [Caveat::NoVotes { key: "train.targets.votes" }]);
        config.train.targets.votes_head = 0.5;
        let third = Caveat::NoVotes { key: "train.targets.votes_head" };
        assert!(of_run(&config, &prepared).contains(&third) && !both.contains(&third));
        prepared.dataset.samples[4].votes = Some([1; 10]);
        assert_eq!(beside_few(&config, &prepared), []);
    }

    #[test]
    fn models_of_the_same_images_in_other_parts_are_named() {
        let mut prepared = prepared();
        prepared.validation = vec![9, 11];
        let network: NetworkConfig = serde_json::from_str(r#"{"layers":[{"type":"flatten"}]}"#).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors").display().to_string();
        let save = |facts: serde_json::Value| {
            let bundle = Bundle {
                labels: prepared.dataset.labels.clone(),
                preprocessing: Preprocessing { width: 2, height: 2, ..Preprocessing::default() },
                weights: initial_weights(&network.resolve(2, 2, 2).unwrap(), 1),
                network: network.clone(),
                inference: Inference::default(),
                training: facts,
                metrics: serde_json::Value::Null,
            };
            bundle.save(Path::new(&path)).unwrap();
        };
        let facts = |key: &str, images: &str, seed: u64, fraction: f64| {
            let train = json!({ "validation_fraction": fraction });
            json!({ key: images, "seed": seed, "train": train })
        };
        let named = [Caveat::Learnt { model: path.clone() }];
        let mut config = TrainConfig::default();
        config.train.start.clone_from(&path);
        let (all, train) = (fingerprint(&prepared.dataset), split_fingerprint(&prepared.dataset, "train"));
        for (key, images) in [("data_sha256", &all), ("train_sha256", &train)] {
            save(facts(key, images, 1, 0.2));
            assert_eq!(beside_few(&config, &prepared), []);
            for (seed, fraction) in [(2, 0.2), (1, 0.1)] {
                save(facts(key, images, seed, fraction));
                assert_eq!(beside_few(&config, &prepared), named);
            }
            config.train.validation_seed = 2;
            save(facts(key, images, 2, 0.2));
            assert_eq!(beside_few(&config, &prepared), []);
            let mut other = facts(key, images, 1, 0.2);
            other["train"]["validation_seed"] = json!(2);
            save(other);
            assert_eq!(beside_few(&config, &prepared), []);
            config.train.validation_seed = 0;
            assert_eq!(beside_few(&config, &prepared), named);
            // The same parts, and a teacher that knew them.
            let mut taught = facts(key, images, 1, 0.2);
            taught["validation_known_to"] = json!(["runs/other"]);
            save(taught);
            assert_eq!(beside_few(&config, &prepared), named);
            save(facts(key, "other images", 2, 0.2));
            assert_eq!(beside_few(&config, &prepared), []);
        }
        // Test images were added since, and what was trained on is the same.
        let mut more = prepared.clone();
        let image = GrayImage::from_pixel(2, 2, Luma([201]));
        more.dataset.samples.push(Sample { split: "test".to_owned(), image, ..prepared.dataset.samples[0].clone() });
        save(facts("train_sha256", &train, 2, 0.2));
        assert_eq!(beside_few(&config, &more), named);
        more.dataset.samples.last_mut().unwrap().image = prepared.dataset.samples[0].image.clone();
        let copies = Caveat::TestCopies { split: "test".to_owned(), images: 1 };
        assert_eq!(beside_few(&config, &more), [copies, named[0].clone()]);

        save(facts("train_sha256", &train, 1, 0.2));
        let mut config = search("keys = [\"train.epochs\"]\nvalues = [1]");
        config.train.targets.teachers = vec![path.clone()];
        let indices = [2, 4, 5, 7];
        assert_eq!(of_search(&config, &prepared.dataset, &indices), [], "nobody asks the teacher");
        config.train.targets.distillation = 0.5;
        assert_eq!(of_search(&config, &prepared.dataset, &indices), named);
        fs_err::remove_file(&path).unwrap();
        assert_eq!(of_search(&config, &prepared.dataset, &indices), []);
    }
}
