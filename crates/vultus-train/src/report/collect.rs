//! From the files of a run, or of one evaluation, to its report.
//!
//! In: the path of its directory. Out: all that its report tells, with lists that fit together, and the report itself. It draws
//! nothing.

use std::path::{Path, PathBuf};

use chrono::DateTime;
use serde_json::{Map, Value, json};

use super::{ClassCounts, ReportError, ReportInput, Training, save};
use crate::config::TrainConfig;
use crate::environment::Environment;
use crate::evaluate::Evaluation;
use crate::evaluate::pictures::Pictures;
use crate::history;
use crate::run::{RunDirectory, check_lengths, evaluation_directories, metrics_path, read_environment, read_json};
use crate::search::SearchTable;
use crate::statistics::Statistics;
use crate::train::{Choice, source_name};
use crate::validation::{Validation, held_out_split};

/// Reads the run at `run` and writes its report and figures there; `with_pictures` decides whether the report shows
/// images of the data. Returns the path of the page.
///
/// # Errors
/// A file of the run that is missing or damaged, or a report that cannot be written.
pub fn write(run: &Path, with_pictures: bool) -> Result<PathBuf, ReportError> {
    save(&collect(run, with_pictures)?, run)
}

/// Reads the evaluation at `directory`, as [`crate::assess::Assessment::save`] left it, and writes its report and figures there; for
/// the rest as [`write()`].
///
/// # Errors
/// As [`write()`].
pub fn write_of_evaluation(directory: &Path, with_pictures: bool) -> Result<PathBuf, ReportError> {
    let evaluation = Evaluation::read(directory)?;
    let Pictures { mistakes, pairs } = if with_pictures { Pictures::load(directory)? } else { Pictures::default() };
    let title = format!("{} expressions on {}", evaluation.labels.len(), evaluation.split);
    save(&ReportInput { title, training: None, evaluations: vec![evaluation], mistakes, pairs }, directory)
}

fn collect(run: &Path, with_pictures: bool) -> Result<ReportInput, ReportError> {
    let config = RunDirectory::config_of(run)?;
    let environment = read_environment(run)?;
    let data = run.join("data.json");
    let statistics: Statistics = read_json(&data)?;
    let counts = statistics.splits.iter().enumerate();
    let counts = counts.map(|(index, split)| (format!("splits[{index}].classes"), split.classes.len()));
    check_lengths(&data, statistics.labels.len(), counts)?;
    let history = if metrics_path(run).exists() { history::read(&metrics_path(run))? } else { Vec::new() };
    let choice = Choice::of_run(run, &config, &history)?;
    let (height, width) = (config.preprocessing.height as usize, config.preprocessing.width as usize);
    let (mut evaluations, mut pictures) = (Vec::new(), Pictures::default());
    for directory in evaluation_directories(run, &config.data.train_split)? {
        evaluations.push(Evaluation::load(&directory)?);
        if with_pictures && evaluations.len() == 1 {
            pictures = Pictures::load(&directory)?;
        }
    }
    let title = title(&config, &statistics.labels);
    let training = Training {
        command: environment.commands.join("\n"),
        config: config.to_toml(),
        environment: shown_environment(&environment, &history),
        splits: statistics.splits.iter().map(|split| split.split.clone()).collect(),
        class_counts: statistics
            .labels
            .iter()
            .enumerate()
            .map(|(class, label)| ClassCounts {
                label: label.clone(),
                counts: statistics.splits.iter().map(|split| split.classes[class]).collect(),
            })
            .collect(),
        cleaning: statistics
            .removed
            .iter()
            .map(|removal| (removal.reason.name().replace('_', " "), removal.images))
            .collect(),
        network: config.network.resolve(height, width, statistics.labels.len())?,
        labels: statistics.labels,
        choice,
        train_split: config.data.train_split.clone(),
        validation_split: match config.validation() {
            Validation::Split(split) => split.to_owned(),
            Validation::Part { .. } | Validation::Nothing => held_out_split(&config.data.train_split),
        },
        history,
        search: SearchTable::of_run(run)?,
    };
    let Pictures { mistakes, pairs } = pictures;
    Ok(ReportInput { title, training: Some(training), evaluations, mistakes, pairs })
}

fn title(config: &TrainConfig, labels: &[String]) -> String {
    let sources: Vec<String> = config.data.sources.iter().map(|source| source_name(source)).collect();
    format!("{} expressions, trained on {}", labels.len(), sources.join(" and "))
}

/// The environment with what only the history knows.
fn shown_environment(environment: &Environment, history: &[history::EpochRecord]) -> Map<String, Value> {
    let seconds: f64 = history.iter().map(|record| record.seconds).sum();
    let mut shown = match json!(environment) {
        Value::Object(shown) => shown,
        _ => Map::new(),
    };
    shown.remove("commands");
    shown.insert("started".to_owned(), json!(date(environment.started)));
    shown.insert("training_seconds".to_owned(), json!((seconds * 10.0).round() / 10.0));
    shown
}

/// Seconds since 1970 as `2026-11-25 03:23:14 UTC`.
fn date(seconds: u64) -> String {
    let date = i64::try_from(seconds).ok().and_then(|seconds| DateTime::from_timestamp(seconds, 0));
    date.map_or_else(|| seconds.to_string(), |date| date.format("%Y-%m-%d %H:%M:%S UTC").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_is_a_date() {
        assert_eq!(date(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(date(u64::MAX), u64::MAX.to_string());
    }
}
