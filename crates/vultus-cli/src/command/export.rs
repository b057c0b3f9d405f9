//! `vultus export`.

use std::path::PathBuf;

use vultus::bundle::{Bundle, BundleError};
use vultus::export::{INPUT, OUTPUT, onnx};
use vultus::persist::write_new;

use super::{ViewArguments, check_ending, check_new, model_file};
use crate::failure::Failure;
use crate::message::say;

/// Write a model as an ONNX file, for other programs: grey faces go in, the probabilities of their expressions come out.
#[derive(clap::Args)]
pub struct Export {
    /// A run directory, that of a search whose winner is trained, or a model file.
    #[arg(value_name = "RUN_OR_BUNDLE")]
    model: PathBuf,
    #[command(flatten)]
    views: ViewArguments,
    /// A new .onnx file.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

impl Export {
    pub fn run(self) -> Result<(), Failure> {
        check_ending(&self.out, "onnx", "the model")?;
        check_new(&self.out)?;
        let path = model_file(&self.model)?;
        let mut bundle = Bundle::load(&path)?;
        let views = self.views.change(bundle.inference.views)?;
        if views != bundle.inference.views {
            say("note: the temperature stays that of the model's own views; vultus calibrate fits another");
            bundle.inference.views = views;
        }
        let bytes = onnx(&bundle).map_err(|fault| BundleError::Unusable { path, fault })?;
        write_new(&self.out, &bytes)?;
        say(format_args!(
            "{} bytes written to {}: input {INPUT} [n, 1, {}, {}], grey from 0 to 255; output {OUTPUT} [n, {}]: {}",
            bytes.len(),
            self.out.display(),
            bundle.preprocessing.height,
            bundle.preprocessing.width,
            bundle.labels.len(),
            bundle.labels.names().join(", ")
        ));
        Ok(())
    }
}
