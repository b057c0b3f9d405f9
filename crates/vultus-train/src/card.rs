//! The model card: what a person needs to know before using a model, as Markdown with the metadata that model hubs read.
//!
//! In: a bundle, a data set and a split of it. Out: text. The figures are measured here and now on that split, once as it is
//! and, where the data have the training split, once without the images that also stand in it. Name and licence are the caller's;
//! everything else is what the bundle says of itself.

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;
use serde_json::{Value, json};
use vultus::bundle::Bundle;
use vultus::labels::canonical;
use vultus::wording::{counted, or_dash, percent};

use crate::assess::{AssessError, Assessment, assess};
use crate::clean::clean;
use crate::config::LabelSource;
use crate::dataset::Dataset;
use crate::evaluate::{Evaluation, EvaluationError, VoteScores, wilson_interval};
use crate::facts::{SplitRole, TrainingFacts};
use crate::figure::grouped;
use crate::figure::template::render;

const TEMPLATE: &str = include_str!("../templates/card.md.jinja");

/// A card that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum CardError {
    /// The model cannot be evaluated.
    #[error(transparent)]
    Assess(#[from] AssessError),
    /// By its name, the split may be what the model was trained on.
    #[error(
        "split {0} is called like the one that the model was trained on, and a card tells of images that it has not seen: \
         name another split, or put new images into a folder test/"
    )]
    Trained(String),
    /// By its name, the split may be what chose the model's epoch.
    #[error(
        "split {0} is called like the one that validated the model, and a card tells of images that chose nothing: name another \
         split"
    )]
    Validated(String),
    /// The model, or one that led to it, learnt the split.
    #[error(
        "split {0} is what the model learnt, or one that it began with or learnt from, and a card tells of images that it has not \
         seen: name another split"
    )]
    Learnt(String),
    /// All its images may have been learnt.
    #[error(
        "all images of split {split} stand in {train_split}, too, and a card tells of images that the model has not seen"
    )]
    Copies {
        /// The split.
        split: String,
        /// What was learnt from.
        train_split: String,
    },
    /// The split chose the model's temperature.
    #[error(
        "the images of split {0} chose the model's temperature, and a card tells of images that chose nothing: name another split"
    )]
    Calibrated(String),
    /// The template did not render.
    #[error("the card's template: {0}")]
    Template(String),
}

/// What the card says that the bundle does not know.
#[derive(Clone, Debug, Serialize)]
pub struct CardText {
    /// Name of the model.
    pub name: String,
    /// The command of its last training.
    pub command: String,
    /// How it is trained from nothing, where the last training is not all.
    pub whole: Option<WholeTraining>,
    /// Name of the data set; without one, the card names the sources of the training.
    pub dataset: Option<String>,
    /// Name of the data set that is measured on; without one, it is that of the training.
    pub measured_on: Option<String>,
    /// Identifier of the licence, such as `mit`; without one, the card names none.
    pub license: Option<String>,
}

/// All trainings that a model needed: its own, and those of the models that it began with or learnt from.
#[derive(Clone, Debug, Serialize)]
pub struct WholeTraining {
    /// A command that has them all, and perhaps others.
    pub command: String,
    /// Hours that they took, on the machine of the last one.
    pub hours: f64,
}

/// The data set whose limits the card can tell.
const FER_2013: &str = "FER-2013";

#[derive(Serialize)]
struct Card<'a> {
    text: &'a CardText,
    /// The commands, as a table of Markdown takes code.
    command: String,
    whole_command: Option<String>,
    /// In the header, as YAML.
    header: Header,
    /// Whether the data set is one whose limits are known.
    fer_2013: bool,
    /// Whether images chose the temperature.
    calibrated: bool,
    /// Whether the labels are the majorities of FER+'s votes.
    ferplus: bool,
    /// Whether training images were left out of training for standing in other splits.
    leaks_dropped: bool,
    /// The classes against FER+'s votes.
    votes: Option<VoteScores>,
    /// Names of classes, as a table of Markdown takes them.
    labels: Vec<String>,
    preprocessing: String,
    views: usize,
    /// Of the views, where they are blurred.
    blur: Option<f64>,
    temperature: String,
    parameters: String,
    multiply_adds: String,
    training: &'a TrainingFacts,
    train_split: &'a str,
    recipe: String,
    /// The models that may have learnt images that validated; empty if none is known.
    known_to: String,
    /// Whether it began with the weights of another model.
    began_with_model: bool,
    /// Whether the recipe has names of other models.
    names_models: bool,
    duration: String,
    split: &'a str,
    /// The data set that it is a split of, where that is not called like the training's.
    measured_on: Option<String>,
    /// The training's, where the other one is named and this one is known.
    trained_on: Option<String>,
    /// Whether images that also stand in the training split were looked for.
    copies_known: bool,
    /// Whether the data's training split is what the model learnt from.
    train_known: bool,
    /// Whether images of a split of this name chose the temperature: others, but some may be the same.
    calibrated_on: bool,
    /// Images of classes that the model does not know, by class.
    ignored: Vec<(String, usize)>,
    results: Vec<Measurement>,
    classes: Vec<Class>,
    confusion: Vec<(String, Vec<usize>)>,
}

/// What the header tells in words of the caller.
#[derive(Serialize)]
struct Header {
    name: String,
    license: Option<String>,
    dataset: String,
    /// The data set with its split.
    evaluated: String,
    /// The data set as an identifier.
    kind: String,
    split: String,
}

/// One set of images.
#[derive(Serialize)]
struct Measurement {
    images: String,
    n: usize,
    accuracy: String,
    low: String,
    high: String,
    accuracy_value: f64,
    macro_f1: String,
    balanced_accuracy: String,
    log_loss: String,
    brier_score: String,
    ece: String,
    ece_by_chance: String,
}

/// One class of the split as it is.
#[derive(Serialize)]
struct Class {
    name: String,
    support: usize,
    precision: Ratio,
    recall: Ratio,
    f1: String,
}

/// A share with its interval.
#[derive(Serialize)]
struct Ratio {
    share: String,
    low: String,
    high: String,
    /// Whether there is anything that it is a share of.
    known: bool,
}

/// The card of `bundle`, evaluated on `split` of `dataset` without the classes `dropped`; training images are known again by
/// their pixels.
///
/// # Errors
/// Data that the bundle cannot be evaluated on, or was trained on.
pub fn card(
    bundle: &Bundle,
    dataset: &Dataset,
    split: &str,
    dropped: &[String],
    text: &CardText,
) -> Result<String, CardError> {
    let facts = TrainingFacts::of(bundle).map_err(AssessError::from)?;
    let dropped: Vec<String> = dropped.iter().chain(&facts.dropped_classes).map(|class| canonical(class)).collect();
    let train_split = facts.train_split();
    if split == train_split {
        return Err(CardError::Trained(split.to_owned()));
    }
    if facts.role_of(split) == Some(SplitRole::Validated) {
        return Err(CardError::Validated(split.to_owned()));
    }
    if facts.chose_temperature(dataset, split, &dataset.indices_without(split, &dropped)) {
        return Err(CardError::Calibrated(split.to_owned()));
    }
    if facts.has_learnt(dataset, &dataset.indices_of(split)) {
        return Err(CardError::Learnt(split.to_owned()));
    }
    let network = bundle.resolve().map_err(AssessError::from)?;
    let evaluate = |dataset: &Dataset| assess(std::slice::from_ref(bundle), dataset, split, &dropped, &[]);
    let Assessment { evaluation: whole, ignored, .. } = evaluate(dataset)?;
    let mut results = vec![measurement(format!("all of {split}"), &whole)];
    // Without them nobody has looked for copies.
    if !dataset.indices_of(train_split).is_empty() {
        match evaluate(&without_training_images(dataset, train_split)) {
            Ok(Assessment { evaluation: unseen, .. }) => {
                results.push(measurement(format!("{split} without images that also stand in {train_split}"), &unseen));
            }
            Err(AssessError::NoSplit(_) | AssessError::Evaluation(EvaluationError::Empty(_))) => {
                return Err(CardError::Copies { split: split.to_owned(), train_split: train_split.to_owned() });
            }
            Err(error) => return Err(error.into()),
        }
    }
    let classes = whole.per_class.iter().zip(&whole.confusion).enumerate().map(|(index, (scores, row))| {
        let called: usize = whole.confusion.iter().map(|row| row[index]).sum();
        Class {
            name: cell(&scores.label),
            support: scores.support,
            precision: Ratio::new(row[index], called),
            recall: Ratio::new(row[index], scores.support),
            f1: or_dash(whole.class_scores(index)[2], three_decimals),
        }
    });
    let settings = [("cleaning", &facts.cleaning), ("train", &facts.train)];
    let recipe: BTreeMap<&str, &Value> = settings.into_iter().filter(|(_, settings)| !settings.is_null()).collect();
    let data_name = text.dataset.clone().unwrap_or_else(|| facts.sources.join(" and "));
    let whole_command = text.whole.as_ref().map(|whole| code_cell(&whole.command));
    let measured_on = text.measured_on.clone().unwrap_or_else(|| data_name.clone());
    let card = Card {
        text,
        command: code_cell(&text.command),
        whole_command,
        header: Header {
            name: yaml(&text.name),
            license: text.license.as_deref().map(yaml),
            dataset: yaml(&data_name),
            evaluated: yaml(&format!("{measured_on} {split}")),
            kind: yaml(&measured_on.to_lowercase().replace(|c: char| !c.is_alphanumeric(), "")),
            split: yaml(split),
        },
        fer_2013: data_name == FER_2013,
        calibrated: facts.images.is_some_and(|images| images.validation > 0) || facts.calibration.is_some(),
        ferplus: facts.labels == LabelSource::Ferplus,
        leaks_dropped: facts.drops_leaks(),
        votes: whole.votes.clone(),
        labels: bundle.labels.names().iter().map(|name| cell(name)).collect(),
        preprocessing: format!("{} x {} grey pixels", bundle.preprocessing.width, bundle.preprocessing.height),
        views: bundle.inference.views.count(),
        blur: Some(bundle.inference.views.blur).filter(|&share| share > 0.0),
        temperature: three_decimals(bundle.inference.temperature.into()),
        parameters: grouped(network.parameter_count() as u64),
        multiply_adds: format!("{:.1}", network.multiply_adds() as f64 / 1e6),
        training: &facts,
        train_split,
        recipe: toml::to_string(&recipe).unwrap_or_default(),
        known_to: cell(&facts.validation_known_to.join(" and ")),
        began_with_model: facts.began_with_model(),
        names_models: facts.began_with_model() || facts.has_teachers(),
        duration: match facts.seconds {
            seconds if seconds < 360.0 => counted(seconds.round() as u64, "second"),
            seconds => format!("{:.1} hours", seconds / 3600.0),
        },
        split,
        trained_on: (measured_on != data_name && !data_name.is_empty()).then(|| cell(&data_name)),
        measured_on: (measured_on != data_name).then(|| cell(&measured_on)),
        copies_known: results.len() > 1,
        train_known: trained_on(&facts, dataset),
        calibrated_on: facts.calibrated_on(split),
        ignored,
        results,
        classes: classes.collect(),
        confusion: whole.labels.iter().map(|name| cell(name)).zip(whole.confusion.iter().cloned()).collect(),
    };
    render("card.md", TEMPLATE, &card).map_err(CardError::Template)
}

impl Ratio {
    fn new(part: usize, all: usize) -> Self {
        let [low, high] = wilson_interval(part, all);
        let [share, low, high] = [part as f64 / all.max(1) as f64, low, high].map(percent);
        Self { share, low, high, known: all > 0 }
    }
}

/// `text` inside a cell of a Markdown table, which `|` would end.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

/// `text` as code inside a cell: between more backticks than stand together in it (CommonMark 0.31, section 6.1).
fn code_cell(text: &str) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or_default();
    let fence = "`".repeat(longest + 1);
    let space = if longest == 0 { "" } else { " " };
    format!("{fence}{space}{}{space}{fence}", cell(&text.replace(['\r', '\n'], " ")))
}

fn measurement(images: String, evaluation: &Evaluation) -> Measurement {
    let [low, high] = evaluation.accuracy_interval;
    Measurement {
        images,
        n: evaluation.n,
        accuracy: percent(evaluation.accuracy),
        low: percent(low),
        high: percent(high),
        accuracy_value: evaluation.accuracy,
        macro_f1: three_decimals(evaluation.macro_f1),
        balanced_accuracy: percent(evaluation.balanced_accuracy),
        log_loss: three_decimals(evaluation.log_loss),
        brier_score: or_dash(evaluation.brier_score, three_decimals),
        ece: three_decimals(evaluation.ece),
        ece_by_chance: or_dash(evaluation.ece_by_chance, three_decimals),
    }
}

/// A text as YAML, which takes JSON's quotes: without them a name may mean a number, a truth or a table.
fn yaml(text: &str) -> String {
    json!(text).to_string()
}

fn three_decimals(value: f64) -> String {
    format!("{value:.3}")
}

/// Whether the training split of `dataset`, cleaned as for the training, is the one that was learnt from.
fn trained_on(facts: &TrainingFacts, dataset: &Dataset) -> bool {
    let cleaning = facts.cleaning_config();
    cleaning
        .and_then(|cleaning| clean(dataset.clone(), &cleaning, facts.train_split()).ok())
        .is_some_and(|cleaned| facts.is_of(&cleaned))
}

/// The data set without the images outside `train_split` whose pixels stand in it.
fn without_training_images(dataset: &Dataset, train_split: &str) -> Dataset {
    let training: HashSet<&[u8]> = dataset
        .samples
        .iter()
        .filter(|sample| sample.split == train_split)
        .map(|sample| sample.image.as_raw().as_slice())
        .collect();
    let unseen = dataset
        .samples
        .iter()
        .filter(|sample| sample.split == train_split || !training.contains(sample.image.as_raw().as_slice()));
    Dataset { labels: dataset.labels.clone(), samples: unseen.cloned().collect(), removed: Vec::new() }
}

#[cfg(test)]
mod tests;
