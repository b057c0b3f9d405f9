//! What the page's template shows.
//!
//! In: all that a report tells, and its figures. Out: the same with every number written out, and every figure and picture
//! as text.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::Value;
use vultus::wording::{self, counted, or_dash, percent_with_interval, points_with_interval};

use super::{Figures, ReportFigure, ReportInput, Training, TrainingFigures};
use crate::config::Monitor;
use crate::evaluate::groups::{Attribute, ClassRate, GroupScores};
use crate::evaluate::pictures::Picture;
use crate::evaluate::{ClassScores, EvaluatedModel, Evaluation};
use crate::figure::{grouped, palette, themed};
use crate::search::{Score, SearchTable};
use crate::train::Choice;

/// Colours of the figures on a dark page, in the order of [`palette::ALL`].
const DARK: [&str; 9] =
    ["#161b22", "#e6edf3", "#9aa5b1", "#39424d", "#1f2630", "#6cb0f2", "#f0944d", "#63c08b", "#b795e8"];

/// Keeps a number and its unit on one line.
const NO_BREAK: &str = "\u{a0}";

#[derive(Serialize)]
pub(super) struct Page {
    title: String,
    light: Vec<(&'static str, &'static str)>,
    dark: Vec<(&'static str, &'static str)>,
    training: Option<TrainingView>,
    evaluations: Vec<EvaluationView>,
    mistakes: Vec<PictureView>,
    pairs: Vec<PairView>,
}

#[derive(Serialize)]
struct TrainingView {
    command: String,
    config: String,
    environment: Vec<(String, String)>,
    splits: Vec<String>,
    class_counts: Vec<(String, Vec<String>)>,
    totals: Vec<String>,
    cleaning: Vec<(String, String)>,
    parameters: String,
    multiply_adds: String,
    architecture: Drawing,
    curves: Option<Drawing>,
    epochs: usize,
    finished: bool,
    selected_epoch: Option<usize>,
    stopped_early: bool,
    selection: String,
    /// Of the probabilities, where images have chosen it.
    temperature: Option<String>,
    trained_on: Option<[String; 2]>,
    /// Accuracy and loss of the weights that were kept.
    validated: Option<[String; 2]>,
    train_split: String,
    validation_split: String,
    search: Option<SearchView>,
}

#[derive(Serialize)]
struct Drawing {
    caption: String,
    svg: String,
}

#[derive(Serialize)]
struct EvaluationView {
    split: String,
    /// Their number, with the word.
    images: String,
    accuracy: String,
    low: String,
    high: String,
    balanced_accuracy: String,
    macro_f1: String,
    top2_accuracy: String,
    log_loss: String,
    brier_score: Option<String>,
    ece: String,
    ece_by_chance: Option<String>,
    mean_confidence: String,
    per_class: Vec<ClassView>,
    /// Whether the classes have a mean probability and a calibration error.
    classes_calibrated: bool,
    confusion: Drawing,
    reliability: Drawing,
    groups: Vec<GroupView>,
    /// Of the program; empty where an earlier one made it.
    version: String,
    models: Vec<ModelView>,
    /// What makes the figures doubtful.
    notes: Vec<String>,
    /// Images that are not counted, with their reason.
    left_out: Vec<String>,
}

/// A model that was evaluated.
#[derive(Serialize)]
struct ModelView {
    name: Option<String>,
    weights_sha256: String,
    views: String,
    temperature: String,
}

#[derive(Serialize)]
struct ClassView {
    label: String,
    support: String,
    precision: String,
    recall: String,
    f1: String,
    /// Of all images.
    share: String,
    mean_probability: Option<String>,
    ece: Option<String>,
}

/// One attribute.
#[derive(Serialize)]
struct GroupView {
    attribute: String,
    /// Whether all groups have images of the same classes.
    same_classes: bool,
    rows: Vec<[String; 6]>,
    calibration: Vec<[String; 5]>,
    unknown: Option<String>,
    /// None of an evaluation of an earlier version.
    recalls: Option<RatesView>,
    false_positive_rates: Option<RatesView>,
}

/// A rate of each class in each group.
#[derive(Serialize)]
struct RatesView {
    classes: Vec<String>,
    groups: Vec<GroupRatesView>,
}

/// The rate of each class in one group.
#[derive(Serialize)]
struct GroupRatesView {
    group: String,
    /// Share, interval and number of images; none where there are none.
    classes: Vec<Option<[String; 3]>>,
}

#[derive(Serialize)]
struct SearchView {
    figure: Option<Drawing>,
    /// What chose the setting, and in which epoch, in words.
    monitored: &'static str,
    score: Option<&'static str>,
    /// In all, and those that are in the rows.
    settings: usize,
    complete: usize,
    rows: Vec<[String; 4]>,
}

#[derive(Serialize)]
struct PictureView {
    uri: String,
    truth: String,
    predicted: String,
    score: String,
    origin: String,
}

#[derive(Serialize)]
struct PairView {
    truth: String,
    predicted: String,
    count: String,
    pictures: Vec<PictureView>,
}

impl Page {
    pub(super) fn new(input: &ReportInput, figures: &Figures) -> Self {
        let variables = |colours: [&'static str; 9]| {
            palette::ALL.iter().zip(colours).map(|(&(variable, _), colour)| (variable, colour)).collect()
        };
        Self {
            title: input.title.clone(),
            light: variables(palette::ALL.map(|(_, colour)| colour)),
            dark: variables(DARK),
            training: input.training.as_ref().zip(figures.training.as_ref()).map(TrainingView::new),
            evaluations: input
                .evaluations
                .iter()
                .zip(&figures.evaluations)
                .map(|(evaluation, figures)| evaluation_view(evaluation, figures))
                .collect(),
            mistakes: input.mistakes.iter().map(picture_view).collect(),
            pairs: input
                .pairs
                .iter()
                .map(|pair| PairView {
                    truth: pair.truth.clone(),
                    predicted: pair.predicted.clone(),
                    count: count_text(pair.count),
                    pictures: pair.pictures.iter().map(picture_view).collect(),
                })
                .collect(),
        }
    }
}

impl TrainingView {
    fn new((input, figures): (&Training, &TrainingFigures)) -> Self {
        let total =
            |split: usize| -> usize { input.class_counts.iter().filter_map(|class| class.counts.get(split)).sum() };
        Self {
            command: input.command.clone(),
            config: input.config.trim_end().to_owned(),
            environment: input.environment.iter().map(|(key, value)| (key.replace('_', " "), plain(value))).collect(),
            splits: input.splits.clone(),
            class_counts: input
                .class_counts
                .iter()
                .map(|class| (class.label.clone(), class.counts.iter().map(|&count| count_text(count)).collect()))
                .collect(),
            totals: (0..input.splits.len()).map(|split| count_text(total(split))).collect(),
            cleaning: input.cleaning.iter().map(|(reason, count)| (reason.clone(), count_text(*count))).collect(),
            parameters: count_text(input.network.parameter_count()),
            multiply_adds: grouped(input.network.multiply_adds()),
            architecture: drawing(&figures.architecture),
            curves: figures.curves.as_ref().map(drawing),
            epochs: input.history.len(),
            finished: input.choice.finished,
            selected_epoch: input.choice.epoch,
            stopped_early: input.choice.stopped_early,
            selection: input.choice.selection.clone(),
            temperature: fitted_temperature(&input.choice),
            trained_on: input
                .choice
                .images
                .map(|images| [images.train, images.validation].map(|count| grouped(count as u64))),
            validated: validated(input),
            train_split: input.train_split.clone(),
            validation_split: input.validation_split.clone(),
            search: input.search.as_ref().map(|search| search_view(search, figures.search.as_ref())),
        }
    }
}

fn fitted_temperature(choice: &Choice) -> Option<String> {
    let fitted = choice.images.is_some_and(|images| images.validation > 0);
    choice.temperature.filter(|_| fitted).map(|temperature| format!("{temperature:.3}"))
}

/// Accuracy and loss on the validation part of the weights that were kept, as training measured them.
fn validated(input: &Training) -> Option<[String; 2]> {
    let record = input.history.iter().find(|record| Some(record.epoch) == input.choice.epoch)?;
    Some([percent(record.val_accuracy?), decimals(record.val_loss?)])
}

fn drawing(figure: &ReportFigure) -> Drawing {
    Drawing { caption: figure.caption.clone(), svg: themed(&figure.svg) }
}

fn evaluation_view(evaluation: &Evaluation, [confusion, reliability]: &[ReportFigure; 2]) -> EvaluationView {
    let [low, high] = evaluation.accuracy_interval;
    let class = |(number, scores): (usize, &ClassScores)| {
        let [precision, recall, f1] = evaluation.class_scores(number).map(|score| or_dash(score, decimals));
        ClassView {
            label: scores.label.clone(),
            support: count_text(scores.support),
            precision,
            recall,
            f1,
            share: percent(scores.support as f64 / evaluation.n as f64),
            mean_probability: scores.mean_probability.map(percent),
            ece: scores.ece.map(decimals),
        }
    };
    EvaluationView {
        split: evaluation.split.clone(),
        images: images(evaluation.n),
        accuracy: percent(evaluation.accuracy),
        low: percent(low),
        high: percent(high),
        balanced_accuracy: percent(evaluation.balanced_accuracy),
        macro_f1: decimals(evaluation.macro_f1),
        top2_accuracy: percent(evaluation.top2_accuracy),
        log_loss: decimals(evaluation.log_loss),
        brier_score: evaluation.brier_score.map(decimals),
        ece: decimals(evaluation.ece),
        ece_by_chance: evaluation.ece_by_chance.map(decimals),
        mean_confidence: percent(evaluation.mean_confidence),
        per_class: evaluation.per_class.iter().enumerate().map(class).collect(),
        classes_calibrated: evaluation.per_class.iter().all(|scores| scores.ece.is_some()),
        confusion: drawing(confusion),
        reliability: drawing(reliability),
        groups: evaluation.groups.iter().map(|attribute| group_view(evaluation, attribute)).collect(),
        version: evaluation.version.clone().unwrap_or_default(),
        models: evaluation.models.iter().map(model_view).collect(),
        notes: evaluation.notes.clone(),
        left_out: evaluation.left_out.iter().map(|it| format!("{} ({})", count_text(it.images), it.reason)).collect(),
    }
}

fn model_view(model: &EvaluatedModel) -> ModelView {
    let views = model.inference.views;
    let mut looks_at = vec!["the picture".to_owned()];
    if views.flip {
        looks_at.push("its mirror image".to_owned());
    }
    if views.shift > 0 {
        let which = if views.flip { "both" } else { "it" };
        looks_at.push(format!(
            "{which} shifted by {} in each of the four diagonal directions",
            counted(views.shift, "pixel")
        ));
    }
    if views.blur > 0.0 {
        looks_at.push(format!("all blurred, with a share of {} for each neighbour of a pixel", views.blur));
    }
    ModelView {
        name: model.name.clone(),
        weights_sha256: model.weights_sha256.clone(),
        views: looks_at.join(", "),
        temperature: format!("{:.3}", model.inference.temperature),
    }
}

fn group_view(evaluation: &Evaluation, attribute: &Attribute) -> GroupView {
    let all = GroupScores::new("all images", evaluation);
    let groups = || std::iter::once(&all).chain(&attribute.groups);
    let row = |scores: &GroupScores| {
        [
            scores.group.clone(),
            count_text(scores.n),
            percent_with_interval(scores.accuracy, Some(scores.accuracy_interval)),
            percent_with_interval(scores.balanced_accuracy, scores.balanced_accuracy_interval),
            count_text(scores.classes),
            or_dash(scores.difference, |difference| {
                points_with_interval(difference.balanced_accuracy, difference.interval)
            }),
        ]
    };
    let calibration = |scores: &GroupScores| {
        [
            scores.group.clone(),
            percent(scores.mean_confidence),
            or_dash(scores.overconfidence_interval, |[low, high]| {
                format!("{:+.2} to {:+.2}", low * 100.0, high * 100.0)
            }),
            decimals(scores.ece),
            or_dash(scores.ece_by_chance, decimals),
        ]
    };
    GroupView {
        attribute: attribute.name.clone(),
        same_classes: attribute.same_classes(),
        rows: groups().map(row).collect(),
        calibration: groups().map(calibration).collect(),
        unknown: (attribute.unknown > 0).then(|| count_text(attribute.unknown)),
        recalls: rates_view(&all, &attribute.groups, |scores| &scores.recalls),
        false_positive_rates: rates_view(&all, &attribute.groups, |scores| &scores.false_positive_rates),
    }
}

fn rates_view(all: &GroupScores, groups: &[GroupScores], rates: fn(&GroupScores) -> &[ClassRate]) -> Option<RatesView> {
    let view = |scores: &GroupScores| GroupRatesView {
        group: scores.group.clone(),
        classes: (rates(all).iter())
            .map(|class| {
                let rate = rates(scores).iter().find(|rate| rate.label == class.label)?;
                let [low, high] = rate.rate_interval.map(percent);
                Some([percent(rate.rate), format!("{low} to {high}"), images(rate.support)])
            })
            .collect(),
    };
    groups.iter().any(|scores| !rates(scores).is_empty()).then(|| RatesView {
        classes: rates(all).iter().map(|class| class.label.clone()).collect(),
        groups: std::iter::once(all).chain(groups).map(view).collect(),
    })
}

fn search_view(search: &SearchTable, figure: Option<&ReportFigure>) -> SearchView {
    let rows = search
        .complete
        .iter()
        .map(|trial| {
            let scores: Vec<String> = trial.scores.iter().map(|&score| decimals(score)).collect();
            [trial.name(), decimals(trial.mean), decimals(trial.standard_deviation), scores.join(", ")]
        })
        .collect();
    SearchView {
        figure: figure.map(drawing),
        monitored: match search.monitor {
            Monitor::ValAccuracy => "accuracy",
            Monitor::ValLoss => "loss",
        },
        score: search.score.map(|score| match score {
            Score::Best => "best",
            Score::Last => "last",
        }),
        settings: search.settings,
        complete: search.complete.len(),
        rows,
    }
}

/// The last two parts of a path: enough to find the picture below its source.
fn last_parts(origin: &str) -> &str {
    let mut slashes = origin.rmatch_indices(['/', '\\']);
    slashes.nth(1).map_or(origin, |(place, _)| &origin[place + 1..])
}

fn picture_view(picture: &Picture) -> PictureView {
    PictureView {
        uri: format!("data:image/png;base64,{}", STANDARD.encode(&picture.png)),
        truth: picture.truth.clone(),
        predicted: picture.predicted.clone(),
        score: format!("{:.0}{NO_BREAK}%", picture.score * 100.0),
        origin: last_parts(&picture.origin).to_owned(),
    }
}

fn count_text(count: usize) -> String {
    grouped(count as u64)
}

/// `1,234 images`.
fn images(count: usize) -> String {
    format!("{} {}", count_text(count), if count == 1 { "image" } else { "images" })
}

fn percent(share: f64) -> String {
    wording::percent(share).replace(' ', NO_BREAK)
}

fn decimals(value: f64) -> String {
    if value.is_finite() { format!("{value:.4}") } else { "not a number".to_owned() }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "unknown".to_owned(),
        other => other.to_string(),
    }
}
