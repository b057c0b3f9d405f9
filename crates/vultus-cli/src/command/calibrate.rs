//! `vultus calibrate`.

use std::path::PathBuf;

use anyhow::anyhow;
use vultus::labels::canonical;
use vultus::wording::{counted, percent};
use vultus_train::calibrate::{Calibrated, calibrate};
use vultus_train::caveat::{of_model, of_repeats};
use vultus_train::dataset::split_name;
use vultus_train::evaluate::LeftOut;
use vultus_train::facts::load_with_facts;
use vultus_train::prepare::read;
use vultus_train::run::RunDirectory;
use vultus_train::temperature::{self, FEW_IMAGES};

use super::evaluate::{check_dropped, held_out_images, read_sources, report_removed, with_option};
use super::train::{usage_or_data, usage_or_run};
use super::{ViewArguments, check_new_model, model_file, run_directory};
use crate::failure::Failure;
use crate::message::say;
use crate::table;

/// Give a model other views, and the temperature with which its probabilities fit images that it did not learn from: those
/// that its training held out, or others. The weights stay.
#[derive(clap::Args)]
pub struct Calibrate {
    /// A run directory, that of a search whose winner is trained, or a model file.
    #[arg(value_name = "RUN_OR_BUNDLE")]
    model: PathBuf,
    /// Images; may be given several times. Without it, a run's own.
    #[arg(long = "data", value_name = "SOURCE")]
    data: Vec<String>,
    /// Split to fit the temperature to. Without it, the images that the model's training held out for validation, for which
    /// the data must be those of the training.
    #[arg(long, value_name = "NAME")]
    split: Option<String>,
    /// A class of the data that the model does not know and that is left out; may be given several times. Classes that
    /// were dropped in training are left out anyway.
    #[arg(long, value_name = "NAME")]
    drop_class: Vec<String>,
    #[command(flatten)]
    views: ViewArguments,
    /// A new .safetensors file. The splits that the model's file has figures of are evaluated again for it, if the data have
    /// their images.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

impl Calibrate {
    pub fn run(self) -> Result<(), Failure> {
        check_new_model(&self.out)?;
        let (bundle, facts) = load_with_facts(&model_file(&self.model)?)?;
        let views = self.views.change(bundle.inference.views)?;
        let own = if self.data.is_empty() && self.model.is_dir() {
            Some(RunDirectory::config_of(&run_directory(&self.model)?).map_err(usage_or_run)?)
        } else {
            None
        };
        let (dataset, split) = match &self.split {
            Some(name) => {
                let split = split_name::meant_by(name);
                if facts.train_split.as_deref() == Some(split) {
                    return Err(Failure::usage(anyhow!(
                        "split {split} is called like the one that the model was trained on, of which it is too sure: \
                         leave out --split for the images that it held out, or put new ones into a folder test/"
                    )));
                }
                let dataset = match &own {
                    Some(config) => read(config).map_err(|error| usage_or_data(error.into()))?,
                    None => read_sources(&self.data, &bundle, &facts)?,
                };
                (dataset, split.to_owned())
            }
            None => held_out_images(&bundle, &facts, own.as_ref(), &self.data)?,
        };
        check_dropped(&self.drop_class, &bundle, std::slice::from_ref(&facts), &dataset)?;
        let left_out: Vec<String> = self.drop_class.iter().map(|class| canonical(class)).collect();
        let earlier = bundle.inference.temperature;
        let Calibrated { bundle, before, after, evaluations, left_out: others } =
            calibrate(bundle, views, &dataset, &split, &self.drop_class).map_err(with_option)?;
        bundle.save_new(&self.out)?;
        report_removed(&dataset, &split);
        for LeftOut { images, reason } in &after.left_out {
            say(format_args!("{} left out: {reason}", counted(*images, "image")));
        }
        let images = dataset.indices_without(&split, &[left_out, facts.dropped_classes.clone()].concat());
        let flattering =
            of_repeats(&dataset, &split, &images).into_iter().chain(of_model(&facts, &dataset, &split, &images));
        flattering.for_each(|note| say(format_args!("note: {note}")));
        for other in others {
            say(format_args!(
                "note: the figures of split {other} are left out: the data have other images of it, or none"
            ));
        }
        if let Some(note) = temperature::caveat(bundle.inference.temperature) {
            say(format_args!("note: {note}"));
        }
        if after.n < FEW_IMAGES {
            say(format_args!("note: {} say little about a temperature: use some hundred", counted(after.n, "image")));
        }
        say(format_args!(
            "{} of split {split}: temperature {earlier:.3} before, {:.3} now; log loss {:.4} and {:.4}, calibration error {:.4} \
             and {:.4}, accuracy {} and {}",
            counted(after.n, "image"),
            bundle.inference.temperature,
            before.log_loss,
            after.log_loss,
            before.ece,
            after.ece,
            percent(before.accuracy),
            percent(after.accuracy)
        ));
        say(format_args!("written to {}", self.out.display()));
        for evaluation in &evaluations {
            table::print_evaluation(evaluation)?;
        }
        Ok(())
    }
}
