//! `vultus evaluate`.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use vultus::bundle::Bundle;
use vultus_train::assess::{AssessError, assess};
use vultus_train::dataset::{Dataset, split_name};
use vultus_train::run::{RunDirectory, bundle_path};
use vultus_train::source::{LoadOptions, Source, load};
use vultus_train::train::add_assessment;

use super::model_file;
use crate::failure::Failure;
use crate::message::say;
use crate::table;

/// Evaluate a run's model or a bundle.
#[derive(clap::Args)]
pub struct Evaluate {
    /// A run directory, or a model file.
    #[arg(value_name = "RUN_OR_BUNDLE")]
    model: PathBuf,
    /// Images; may be given several times. Without it, the run's own sources.
    #[arg(long = "data", value_name = "SOURCE")]
    data: Vec<String>,
    /// Split to evaluate on. Without it, the only split that is not train, or test, or public_test.
    #[arg(long, value_name = "NAME")]
    split: Option<String>,
    /// A class of the data that the model does not know and that is left out; may be given several times. Classes that
    /// were dropped in training are left out anyway.
    #[arg(long, value_name = "NAME")]
    drop_class: Vec<String>,
    /// Directory for evaluation.json, predictions.csv and pictures. Without it, a run keeps them, a bundle does not.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Evaluate {
    pub fn run(self) -> Result<(), Failure> {
        let is_run = self.model.is_dir();
        let bundle = Bundle::load(&model_file(&self.model)?)?;
        let sources = if self.data.is_empty() && is_run {
            RunDirectory::config_of(&self.model).map_err(Failure::usage)?.data.sources
        } else {
            self.data.clone()
        };
        if sources.is_empty() {
            return Err(Failure::usage(anyhow!("a bundle brings no images: name some with --data SOURCE")));
        }
        let sources =
            sources.iter().map(|text| Source::parse(text)).collect::<Result<Vec<_>, _>>().map_err(Failure::usage)?;
        let dataset = load(&sources, &bundle.preprocessing, &LoadOptions::default())?;
        let split = self.split.clone().map_or_else(|| default_split(&dataset), Ok)?;
        let mut dropped = self.drop_class.clone();
        dropped.extend(dropped_in_training(&bundle));
        let assessment = assess(&bundle, &dataset, &split, &dropped).map_err(|error| match error {
            AssessError::Prepare(_) | AssessError::UnknownClass { .. } => Failure::usage(error),
            _ => Failure::Run(error.into()),
        })?;
        for (class, count) in &assessment.ignored {
            say(format_args!("{count} images of class {class} left out: the model does not know it"));
        }
        for removal in dataset.removed.iter().filter(|removal| removal.split == split) {
            say(format_args!("left out: {}: {}", removal.origin, removal.detail));
        }
        self.keep(&assessment, is_run)?;
        if self.json {
            table::print(serde_json::to_string(&assessment.evaluation)?)?;
        } else {
            table::print_evaluation(&assessment.evaluation)?;
        }
        Ok(())
    }

    fn keep(&self, assessment: &vultus_train::assess::Assessment, is_run: bool) -> Result<(), Failure> {
        match (&self.out, is_run) {
            (Some(out), _) => assessment.save(out)?,
            (None, true) => add_assessment(&self.model, assessment)?,
            (None, false) => {}
        }
        Ok(())
    }
}

/// Classes that the model's training left out by name.
fn dropped_in_training(bundle: &Bundle) -> Vec<String> {
    let names = bundle.training.get("dropped_classes").and_then(|value| value.as_array());
    names.into_iter().flatten().filter_map(|name| name.as_str().map(str::to_owned)).collect()
}

fn default_split(dataset: &Dataset) -> Result<String, Failure> {
    let splits = dataset.splits();
    let others: Vec<&String> = splits.iter().filter(|split| *split != split_name::TRAIN).collect();
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

/// Where a model is looked for when none is named: the newest run below `runs`.
pub fn newest_model(runs: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(runs).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    // A search keeps the model of its winner one level lower.
    let models = entries.flat_map(|run| [bundle_path(&run), bundle_path(&run.join("winner"))]);
    models.filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path))).max().map(|(_, path)| path)
}
