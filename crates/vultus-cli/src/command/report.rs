//! `vultus report`.

use std::path::PathBuf;

use anyhow::anyhow;
use vultus_train::paired::holds_evaluation;
use vultus_train::report;
use vultus_train::run::RunDirectory;

use super::train::usage_or_run;
use super::{is_in_a_run, run_directory};
use crate::failure::Failure;
use crate::table;

/// Write a run's report again, or one of an evaluation.
#[derive(clap::Args)]
pub struct Report {
    /// The run's directory, or that of a search whose winner is trained, or what vultus evaluate --out made.
    #[arg(value_name = "RUN_OR_EVALUATION")]
    directory: PathBuf,
    /// Leave out the pictures, for reports on data that may not be shown.
    #[arg(long)]
    no_pictures: bool,
}

impl Report {
    pub fn run(self) -> Result<(), Failure> {
        let with_pictures = !self.no_pictures;
        let path = if holds_evaluation(&self.directory) {
            if is_in_a_run(&self.directory) {
                let directory = self.directory.display();
                return Err(Failure::usage(anyhow!("{directory} stands in the report of its run: give the run")));
            }
            report::write_of_evaluation(&self.directory, with_pictures)?
        } else {
            let run = run_directory(&self.directory)?;
            RunDirectory::config_of(&run).map_err(usage_or_run)?;
            report::write(&run, with_pictures)?
        };
        table::print(path.display())?;
        Ok(())
    }
}
