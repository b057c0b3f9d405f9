//! `vultus card`.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use vultus::persist::write_new;
use vultus_train::card::{CardError, CardText, WholeTraining, card};
use vultus_train::dataset::split_name;
use vultus_train::facts::load_with_facts;
use vultus_train::run::{bundle_path, environment_path, read_environment};
use vultus_train::train::source_name;

use super::evaluate::{check_dropped, default_split_of_data, read_sources, with_option};
use super::{check_ending, check_new, model_file};
use crate::failure::Failure;
use crate::message::say;

/// Write a model card: results with intervals, recipe, origin and limits of a model, as Markdown.
#[derive(clap::Args)]
pub struct Card {
    /// A run directory, that of a search whose winner is trained, or a model file.
    #[arg(value_name = "RUN_OR_BUNDLE")]
    model: PathBuf,
    /// Images to evaluate on, with those of the training split, so that copies are found; may be given several times.
    #[arg(long = "data", value_name = "SOURCE", required = true)]
    data: Vec<String>,
    /// Split to evaluate on. Without it, the only split that is not train, or test, or public_test.
    #[arg(long, value_name = "NAME")]
    split: Option<String>,
    /// Class of the data to leave out, as one that the model does not know; may be given several times.
    #[arg(long, value_name = "NAME")]
    drop_class: Vec<String>,
    /// The command of the model's last training, for the card. Without it, that of the run; a model file needs it.
    #[arg(long, value_name = "TEXT")]
    command: Option<String>,
    /// The command that trains the model from nothing, where the last training began with another model or learnt from some; it
    /// may train others, too.
    #[arg(long, value_name = "TEXT", requires = "hours")]
    whole_command: Option<String>,
    /// Hours of all trainings that the model needed, the last one among them.
    #[arg(long, value_name = "H", requires = "whole_command", value_parser = hours)]
    hours: Option<f64>,
    /// Name of the data set that the model was trained on, and is measured on. Without it, the names of the sources.
    #[arg(long, value_name = "NAME")]
    dataset: Option<String>,
    /// Name of the data set that is measured on, where it is another one.
    #[arg(long, value_name = "NAME")]
    measured_on: Option<String>,
    /// Identifier of the model's licence, such as mit, for the card. Without it, the card names none.
    #[arg(long, value_name = "ID")]
    license: Option<String>,
    /// A new .md file; its name without the ending is the model's.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

fn hours(text: &str) -> Result<f64, String> {
    let hours: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if hours.is_finite() && hours >= 0.0 { Ok(hours) } else { Err("no number of hours".to_owned()) }
}

/// The commands that trained the run whose model is at `model`, one behind the other.
fn command_of_run(model: &Path) -> Result<String, Failure> {
    let run = model.parent().filter(|run| bundle_path(run) == model && environment_path(run).exists());
    let Some(run) = run else {
        let model = model.display();
        return Err(Failure::usage(anyhow!("{model} is no run that knows its command: name it with --command")));
    };
    Ok(read_environment(run)?.commands.join(" && "))
}

impl Card {
    pub fn run(self) -> Result<(), Failure> {
        check_ending(&self.out, "md", "the card")?;
        check_new(&self.out)?;
        let name = self.out.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let model = model_file(&self.model)?;
        let command = match self.command {
            Some(command) => command,
            None => command_of_run(&model)?,
        };
        let (bundle, facts) = load_with_facts(&model)?;
        let dataset = read_sources(&self.data, &bundle, &facts)?;
        check_dropped(&self.drop_class, &bundle, std::slice::from_ref(&facts), &dataset)?;
        let split = match &self.split {
            Some(name) => split_name::meant_by(name).to_owned(),
            None => default_split_of_data(&dataset)?,
        };
        let whole = self.whole_command.zip(self.hours).map(|(command, hours)| WholeTraining { command, hours });
        let sources: Vec<String> = self.data.iter().map(|source| source_name(source)).collect();
        let measured_on = self.measured_on.or_else(|| self.dataset.is_none().then(|| sources.join(" and ")));
        let text = CardText { name, command, whole, dataset: self.dataset, measured_on, license: self.license };
        if dataset.indices_of(facts.train_split()).is_empty() {
            say(format_args!(
                "note: the data have no split {}, so that nobody looked for copies of its images",
                facts.train_split()
            ));
        }
        let card = card(&bundle, &dataset, &split, &self.drop_class, &text).map_err(|error| match error {
            CardError::Assess(error) => with_option(error),
            CardError::Template(_) => Failure::Run(error.into()),
            error => Failure::usage(error),
        })?;
        write_new(&self.out, format!("{}\n", card.trim_end()).as_bytes())?;
        say(format_args!("written to {}", self.out.display()));
        Ok(())
    }
}
