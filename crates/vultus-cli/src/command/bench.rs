//! `vultus bench`.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, anyhow};
use serde::Serialize;
use vultus::bundle::Bundle;
use vultus::wording::counted;
use vultus_train::bench::{self, Measured, Mode};
use vultus_train::fit::FitError;

use super::{model_file, named_config};
use crate::failure::Failure;
use crate::table;

/// Measure how fast a network trains or predicts on this machine, on random pictures.
#[derive(clap::Args)]
pub struct Bench {
    /// S (the course report's network), R (a residual network of 18 layers), or a configuration file.
    #[arg(long, value_name = "FILE|S|R", default_value = "S")]
    network: String,
    /// Overrides a key of the configuration, such as train.optimizer.type=sgd; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// A finished model's file or run in place of a network: how fast it classifies, with all of its views.
    #[arg(long, value_name = "MODEL", conflicts_with_all = ["network", "set", "mode"])]
    model: Option<PathBuf>,
    /// What to measure.
    #[arg(long, value_enum, default_value = "train")]
    mode: ModeArgument,
    /// Images of one step.
    #[arg(long, value_name = "N", default_value = "32", value_parser = clap::value_parser!(u32).range(1..=4096))]
    batch: u32,
    /// Threads that compute; all cores by default.
    #[arg(long, value_name = "T", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// How long to measure; at least one step.
    #[arg(long, value_name = "X", default_value = "5")]
    seconds: f64,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum ModeArgument {
    /// Forward, backward and update.
    Train,
    /// A finished network, up to its logits.
    Infer,
}

/// The object that `--json` prints.
#[derive(Serialize)]
struct Named<'a> {
    name: &'a str,
    #[serde(flatten)]
    measured: &'a Measured,
}

impl Bench {
    pub fn run(self, started: Instant) -> Result<(), Failure> {
        if !(0.0..=86_400.0).contains(&self.seconds) {
            return Err(Failure::usage(anyhow!("--seconds is {}: use 0 to 86400", self.seconds)));
        }
        if let Some(threads) = self.threads {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.into());
            pool.build_global().context("cannot start the threads")?;
        }
        let mode = match self.mode {
            ModeArgument::Train => Mode::Train,
            ModeArgument::Infer => Mode::Infer,
        };
        let batch = self.batch as usize;
        let measured = match &self.model {
            Some(path) => {
                let bundle = Bundle::load(&model_file(path)?)?;
                bench::measure_model(bundle, batch, self.seconds, started)
                    .with_context(|| path.display().to_string())?
            }
            None => bench::measure(&named_config(&self.network, &self.set)?, mode, batch, self.seconds, started)
                .map_err(|error| match error {
                    FitError::Network(_) | FitError::Device(_) => Failure::usage(error),
                    other => other.into(),
                })?,
        };
        let name = self.model.as_ref().map_or(self.network, |path| path.display().to_string());
        if self.json {
            table::print_json(&Named { name: &name, measured: &measured })?;
        } else {
            table::print(describe(&name, &measured))?;
        }
        Ok(())
    }
}

fn describe(name: &str, measured: &Measured) -> String {
    let verb = match measured.mode {
        Mode::Train => "trains",
        Mode::Infer => "predicts",
    };
    let mut text = format!(
        "{name} {verb} {:.0} images/s: {:.2} ms a step of {} (median of {}, fastest {:.2})\n\
         {:.0} GFLOP/s, {:.0} % of the peak of {} ({}); first step after {:.2} s",
        measured.images_per_second,
        measured.ms_median,
        measured.batch,
        measured.steps,
        measured.ms_min,
        measured.gflops,
        100.0 * measured.peak_fraction,
        counted(measured.threads, "thread"),
        measured.instructions,
        measured.first_step_seconds,
    );
    if let Some(megabytes) = measured.peak_rss_mb {
        text += &format!("; {megabytes:.0} MB");
    }
    if let Some(share) = measured.wait_share {
        text += &format!("; {:.1} % of the time spent waiting for data", 100.0 * share);
    }
    if measured.peak_fraction > 1.0 {
        text +=
            "\n(above the peak: operations are counted as a plain convolution needs them, and Winograd's need fewer)";
    }
    text
}
