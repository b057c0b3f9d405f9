//! The model card: what a person needs to know before using a model, as Markdown with the metadata that model hubs read.
//!
//! In: a bundle, a data set and a split of it. Out: text. The figures are measured here and now on that split, once as it is
//! and once without the images that also stand in the training split; everything else is what the bundle says of itself.

use std::collections::HashSet;

use serde::Serialize;
use serde_json::Value;
use vultus::bundle::Bundle;

use crate::assess::{AssessError, assess};
use crate::dataset::Dataset;
use crate::evaluate::{Evaluation, wilson_interval};
use crate::figure::grouped;
use crate::figure::template::render;

const TEMPLATE: &str = include_str!("../templates/card.md.jinja");

/// A card that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum CardError {
    /// The model cannot be evaluated.
    #[error(transparent)]
    Assess(#[from] AssessError),
    /// The template did not render.
    #[error("the card's template: {0}")]
    Template(String),
}

/// What the card says that the bundle does not know.
#[derive(Clone, Debug, Serialize)]
pub struct CardText {
    /// Name of the model.
    pub name: String,
    /// The command that trains it again.
    pub command: String,
}

#[derive(Serialize)]
struct Card<'a> {
    text: &'a CardText,
    labels: &'a [String],
    preprocessing: String,
    views: usize,
    temperature: String,
    parameters: String,
    multiply_adds: String,
    training: &'a Value,
    recipe: String,
    hours: String,
    split: &'a str,
    results: Vec<Result>,
    classes: Vec<Class>,
    confusion: Vec<(String, Vec<usize>)>,
}

/// One set of images.
#[derive(Serialize)]
struct Result {
    images: String,
    n: usize,
    accuracy: String,
    low: String,
    high: String,
    accuracy_value: f64,
    macro_f1: String,
    balanced_accuracy: String,
    log_loss: String,
    ece: String,
}

/// One class of the split as it is.
#[derive(Serialize)]
struct Class {
    name: String,
    support: usize,
    precision: String,
    recall: String,
    low: String,
    high: String,
    f1: String,
}

/// The card of `bundle`, evaluated on `split` of `dataset`; images are known again by their pixels in `train_split`.
///
/// # Errors
/// Data that the bundle cannot be evaluated on.
pub fn card(
    bundle: &Bundle,
    dataset: &Dataset,
    split: &str,
    train_split: &str,
    text: &CardText,
) -> std::result::Result<String, CardError> {
    let network = bundle.resolve().map_err(AssessError::from)?;
    let models = std::slice::from_ref(bundle);
    let whole = assess(models, dataset, split, &[], &[])?.evaluation;
    let unseen = assess(models, &without_training_images(dataset, train_split), split, &[], &[])?.evaluation;
    let results = vec![
        result(format!("all of {split}"), &whole),
        result(format!("{split} without images that also stand in {train_split}"), &unseen),
    ];
    let classes = whole.per_class.iter().zip(&whole.confusion).enumerate().map(|(index, (scores, row))| {
        let [low, high] = wilson_interval(row[index], scores.support);
        Class {
            name: scores.label.clone(),
            support: scores.support,
            precision: percent(scores.precision),
            recall: percent(scores.recall),
            low: percent(low),
            high: percent(high),
            f1: format!("{:.3}", scores.f1),
        }
    });
    let seconds = bundle.training.get("seconds").and_then(Value::as_f64).unwrap_or_default();
    let train = bundle.training.get("train").cloned().unwrap_or_default();
    let card = Card {
        text,
        labels: bundle.labels.names(),
        preprocessing: format!("{} x {} grey pixels", bundle.preprocessing.width, bundle.preprocessing.height),
        views: bundle.inference.views.count(),
        temperature: format!("{:.3}", bundle.inference.temperature),
        parameters: grouped(network.parameter_count() as u64),
        multiply_adds: format!("{:.1}", network.multiply_adds() as f64 / 1e6),
        training: &bundle.training,
        recipe: toml::to_string(&train).unwrap_or_default(),
        hours: format!("{:.1}", seconds / 3600.0),
        split,
        results,
        classes: classes.collect(),
        confusion: whole.labels.iter().cloned().zip(whole.confusion.iter().cloned()).collect(),
    };
    render("card.md", TEMPLATE, &card).map_err(CardError::Template)
}

fn result(images: String, evaluation: &Evaluation) -> Result {
    let [low, high] = evaluation.accuracy_interval;
    Result {
        images,
        n: evaluation.n,
        accuracy: percent(evaluation.accuracy),
        low: percent(low),
        high: percent(high),
        accuracy_value: evaluation.accuracy,
        macro_f1: format!("{:.3}", evaluation.macro_f1),
        balanced_accuracy: percent(evaluation.balanced_accuracy),
        log_loss: format!("{:.3}", evaluation.log_loss),
        ece: format!("{:.3}", evaluation.ece),
    }
}

fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
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
mod tests {
    use image::{GrayImage, Luma};
    use vultus::labels::Labels;

    use super::*;
    use crate::dataset::Sample;

    #[test]
    fn images_of_the_training_split_are_known_by_their_pixels() {
        let sample = |split: &str, grey: u8| Sample {
            image: GrayImage::from_pixel(2, 2, Luma([grey])),
            label: 0,
            split: split.to_owned(),
            origin: grey.to_string(),
            votes: None,
        };
        let samples = vec![sample("train", 1), sample("train", 1), sample("test", 1), sample("test", 2)];
        let dataset = Dataset { labels: Labels::new(["a", "b"]).unwrap(), samples, removed: Vec::new() };
        let left = without_training_images(&dataset, "train");
        assert_eq!(left.indices_of("train").len(), 2);
        let test: Vec<&str> = left.indices_of("test").iter().map(|&i| left.samples[i].origin.as_str()).collect();
        assert_eq!(test, ["2"]);
    }
}
