//! `vultus compare`.

use std::path::PathBuf;

use vultus_train::compare::{CompareError, Comparison, Spread, compare};

use super::run_directory;
use super::train::usage_or_run;
use crate::failure::Failure;
use crate::message::say;
use crate::table::{self, percent};

/// Put finished runs beside each other: a row for each configuration, in the order given, with mean and standard deviation
/// where several runs differ by their seed alone, and with what differs from the first row.
#[derive(clap::Args)]
pub struct Compare {
    /// Directories of runs, or of searches whose winner is trained.
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Directory for comparison.csv, comparison.json and a figure of each split; files of these names are replaced.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Compare {
    pub fn run(self) -> Result<(), Failure> {
        let runs = self.runs.iter().map(|run| run_directory(run)).collect::<Result<Vec<_>, _>>()?;
        let comparison = compare(&runs).map_err(|error| match error {
            CompareError::Run(error) => usage_or_run(error),
            _ => Failure::Run(error.into()),
        })?;
        warn(&comparison);
        // First, as who reads the other may be gone.
        if let Some(out) = &self.out {
            comparison.write(out)?;
        }
        if self.json {
            table::print(serde_json::to_string(&comparison)?)?;
        } else {
            print(&comparison)?;
        }
        Ok(())
    }
}

/// Says what makes figures doubtful.
fn warn(comparison: &Comparison) {
    for (run, split) in &comparison.missing {
        say(format_args!("{} was not evaluated on {split}: its row has no figure for it", run.display()));
    }
    if comparison.splits().is_empty() {
        say(
            "no run has been evaluated: go on with unfinished ones by vultus train --resume --out RUN, or use vultus evaluate RUN",
        );
    }
    for run in &comparison.repeated {
        say(format_args!("warning: {} has the seed of another run of its row: it is no second sample", run.display()));
    }
    for split in &comparison.unequal {
        say(format_args!("warning: {split} is not the same for all runs: they have different images or classes there"));
    }
    for run in &comparison.other_images {
        say(format_args!(
            "warning: {} was made with other images or classes than the first run of its row",
            run.display()
        ));
    }
    for run in &comparison.unfinished {
        say(format_args!("warning: {} is not finished: it has no model yet", run.display()));
    }
}

fn print(comparison: &Comparison) -> std::io::Result<()> {
    let splits = comparison.splits();
    let header = ["", "runs", "val_accuracy"].into_iter().chain(splits.iter().copied()).chain(["minutes"]);
    let mut rows = table::table(header);
    for row in &comparison.rows {
        let mut cells = vec![row.name.clone(), row.runs.len().to_string(), accuracy(row.validation.as_ref())];
        cells.extend(splits.iter().map(|split| accuracy(row.splits.get(*split))));
        cells.push(row.minutes.as_ref().map_or_else(String::new, |minutes| format!("{:.1}", minutes.mean)));
        rows.add_row(cells);
    }
    table::print(rows)?;
    // Below the table, which the longest of them would make too wide to be read.
    let first = comparison.rows.first().map_or("", |row| row.name.as_str());
    let changed = comparison.rows.iter().filter(|row| !row.changes.is_empty());
    for (index, row) in changed.enumerate() {
        let before = if index == 0 { format!("\nother than {first}:\n") } else { String::new() };
        table::print(format_args!("{before}{}: {}", row.name, row.changes_in_words()))?;
    }
    Ok(())
}

fn accuracy(spread: Option<&Spread>) -> String {
    match spread {
        None => "-".to_owned(),
        Some(Spread { mean, standard_deviation: None, .. }) => percent(*mean),
        Some(Spread { mean, standard_deviation: Some(deviation), .. }) => {
            format!("{:.2} ± {}", mean * 100.0, percent(*deviation))
        }
    }
}
