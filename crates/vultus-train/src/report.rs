//! The report of a run, or of one evaluation: ONE self-contained HTML file, and its figures as files.
//!
//! In: the files of its directory, which `collect` reads and nothing else does. Out: HTML with inline SVG, inline
//! styles and pictures as `data:` URIs; no scripts, nothing loaded from anywhere; light and dark; fit to print. It computes
//! no metric.

mod collect;
mod page;

pub use self::collect::{write, write_of_evaluation};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use vultus::bundle::BundleError;
use vultus::network::{NetworkError, ResolvedNetwork};
use vultus::persist::write_atomically;

use crate::config::Monitor;
use crate::evaluate::Evaluation;
use crate::evaluate::pictures::{Picture, PicturePair};
use crate::figure::{self, FigureError, template};
use crate::history::{EpochRecord, HistoryError};
use crate::run::RunError;
use crate::search::SearchTable;
use crate::train::Choice;

const TEMPLATE: &str = include_str!("../templates/report.html.jinja");

/// All that a report tells.
#[derive(Clone, Debug)]
pub struct ReportInput {
    /// Heading of the page.
    pub title: String,
    /// The training, in the report of a run.
    pub training: Option<Training>,
    /// One evaluation a split.
    pub evaluations: Vec<Evaluation>,
    /// The wrongly classified images with the highest scores.
    pub mistakes: Vec<Picture>,
    /// The pairs of classes confused most often.
    pub pairs: Vec<PicturePair>,
}

/// What a report tells of a training.
#[derive(Clone, Debug)]
pub struct Training {
    /// The command that made the run.
    pub command: String,
    /// The resolved configuration, as TOML.
    pub config: String,
    /// Version, git revision, seed, data hash, machine, start, seconds and the like, in the order shown.
    pub environment: Map<String, Value>,
    /// Names of the splits, in the order of [`ClassCounts::counts`].
    pub splits: Vec<String>,
    /// Table 1: one row a class.
    pub class_counts: Vec<ClassCounts>,
    /// Reasons for removing images, and how many each took.
    pub cleaning: Vec<(String, usize)>,
    /// The network, with its shapes and costs.
    pub network: ResolvedNetwork,
    /// Class names in index order.
    pub labels: Vec<String>,
    /// One record an epoch.
    pub history: Vec<EpochRecord>,
    /// The epoch whose weights were kept, and why.
    pub choice: Choice,
    /// The split that was trained on.
    pub train_split: String,
    /// The split that validated, as evaluations call it.
    pub validation_split: String,
    /// The search that led to the configuration, if there was one.
    pub search: Option<SearchTable>,
}

/// Images of one class in every split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassCounts {
    /// Class name.
    pub label: String,
    /// One count a split, in the order of [`Training::splits`].
    pub counts: Vec<usize>,
}

/// A figure of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportFigure {
    /// Name of its files, without the ending.
    pub stem: String,
    /// What it shows, in one line.
    pub caption: String,
    /// The drawing.
    pub svg: String,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A figure failed.
    #[error(transparent)]
    Figure(#[from] FigureError),
    /// The page did not render.
    #[error("report page: {0}")]
    Page(String),
    /// A file could not be read or written; the system's message names it.
    #[error("report: {0}")]
    File(#[from] io::Error),
    /// The run cannot be read.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The run's network cannot be read.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The run's history cannot be read.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The run's model cannot be read.
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

/// All figures of a report, drawn once.
struct Figures {
    training: Option<TrainingFigures>,
    /// Confusion matrix and reliability diagram of every evaluation.
    evaluations: Vec<[ReportFigure; 2]>,
}

struct TrainingFigures {
    architecture: ReportFigure,
    curves: Option<ReportFigure>,
    search: Option<ReportFigure>,
}

impl Figures {
    fn draw(input: &ReportInput) -> Result<Self, FigureError> {
        // Those of a training come first.
        let number = if input.training.is_some() { 3 } else { 1 };
        let evaluations = input.evaluations.iter().map(|evaluation| evaluation_figures(number, evaluation));
        Ok(Self {
            training: input.training.as_ref().map(TrainingFigures::draw).transpose()?,
            evaluations: evaluations.collect::<Result<_, _>>()?,
        })
    }

    fn into_list(self) -> Vec<ReportFigure> {
        let (mut list, mut search) = (Vec::new(), None);
        if let Some(training) = self.training {
            list.push(training.architecture);
            list.extend(training.curves);
            search = training.search;
        }
        list.extend(self.evaluations.into_iter().flatten());
        list.extend(search);
        list
    }
}

impl TrainingFigures {
    fn draw(input: &Training) -> Result<Self, FigureError> {
        let curves = if input.history.is_empty() {
            None
        } else {
            Some(ReportFigure {
                stem: "figure-2-curves".to_owned(),
                caption: "Figure 2. Loss and accuracy of training and validation.".to_owned(),
                svg: figure::curves::draw(&input.history, input.choice.epoch)?,
            })
        };
        // It shows accuracies.
        let drawn = |search: &&SearchTable| search.monitor == Monitor::ValAccuracy && !search.complete.is_empty();
        let search = match input.search.as_ref().filter(drawn) {
            None => None,
            Some(search) => Some(ReportFigure {
                stem: "search".to_owned(),
                caption: "Search: mean and standard deviation over the folds, best setting first.".to_owned(),
                svg: figure::search::draw(&search.complete, search.settings)?,
            }),
        };
        Ok(Self {
            architecture: ReportFigure {
                stem: "figure-1-architecture".to_owned(),
                caption: "Figure 1. The network: channels × height × width after every layer that changes them."
                    .to_owned(),
                svg: figure::architecture::draw(&input.network, &input.labels)?,
            },
            curves,
            search,
        })
    }
}

/// `number` is that of the confusion matrix.
fn evaluation_figures(number: usize, evaluation: &Evaluation) -> Result<[ReportFigure; 2], FigureError> {
    let split = &evaluation.split;
    let name = split.replace(|character: char| !character.is_ascii_alphanumeric() && character != '_', "-");
    Ok([
        ReportFigure {
            stem: format!("figure-{number}-confusion-{name}"),
            caption: format!("Figure {number}. Confusion matrix on {split}: shares of each true class, and counts."),
            svg: figure::confusion::draw(evaluation)?,
        },
        ReportFigure {
            stem: format!("reliability-{name}"),
            caption: format!("Calibration on {split}: how often a score is right, and how the scores are spread."),
            svg: figure::reliability::draw(evaluation)?,
        },
    ])
}

/// Renders the page.
///
/// # Errors
/// A figure that cannot be drawn, or a template that does not fit its data.
pub fn render(input: &ReportInput) -> Result<String, ReportError> {
    page_of(input, &Figures::draw(input)?)
}

/// Writes `report.html` and `figures/*.svg` and `*.png` into `directory`, each file complete or absent, and returns the
/// path of the page.
///
/// # Errors
/// As [`render`], and failed writes.
pub fn save(input: &ReportInput, directory: &Path) -> Result<PathBuf, ReportError> {
    let figures = Figures::draw(input)?;
    let html = page_of(input, &figures)?;
    let figure_directory = directory.join("figures");
    fs_err::create_dir_all(&figure_directory)?;
    for drawn in figures.into_list() {
        figure::save(&drawn.svg, &figure_directory, &drawn.stem)?;
    }
    let path = directory.join("report.html");
    write_atomically(&path, |file| file.write_all(html.as_bytes()))?;
    Ok(path)
}

fn page_of(input: &ReportInput, figures: &Figures) -> Result<String, ReportError> {
    template::render("report.html", TEMPLATE, &page::Page::new(input, figures)).map_err(ReportError::Page)
}

#[cfg(test)]
mod tests;
