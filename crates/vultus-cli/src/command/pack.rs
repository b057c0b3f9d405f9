//! `vultus pack`.

use std::path::PathBuf;

use vultus::bundle::Bundle;

use super::{check_new_model, model_file};
use crate::failure::Failure;
use crate::message::say;

/// Copy a run's model to a file that can be given away.
#[derive(clap::Args)]
pub struct Pack {
    /// A run directory, that of a search whose winner is trained, or a model file.
    #[arg(value_name = "RUN_OR_BUNDLE")]
    model: PathBuf,
    /// A new .safetensors file.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Store kernels in half precision: half the size, and probabilities that differ by about 0.001.
    #[arg(long)]
    half: bool,
}

impl Pack {
    pub fn run(self) -> Result<(), Failure> {
        check_new_model(&self.out)?;
        let bundle = Bundle::load(&model_file(&self.model)?)?;
        let bundle = if self.half { bundle.halved() } else { bundle };
        bundle.save_new(&self.out)?;
        say(format_args!("{} bytes written to {}", fs_err::metadata(&self.out)?.len(), self.out.display()));
        Ok(())
    }
}
