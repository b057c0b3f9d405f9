//! `vultus report`.

use std::path::PathBuf;

use vultus_train::report;
use vultus_train::run::RunDirectory;

use super::run_directory;
use crate::failure::Failure;
use crate::table;

/// Write a run's report again.
#[derive(clap::Args)]
pub struct Report {
    /// The run's directory, or that of a search whose winner is trained.
    run: PathBuf,
    /// Leave out the pictures, for reports on data that may not be shown.
    #[arg(long)]
    no_pictures: bool,
}

impl Report {
    pub fn run(self) -> Result<(), Failure> {
        let run = run_directory(&self.run)?;
        RunDirectory::config_of(&run).map_err(Failure::usage)?;
        let path = report::write(&run, !self.no_pictures)?;
        table::print(path.display())?;
        Ok(())
    }
}
