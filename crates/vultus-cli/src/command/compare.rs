//! `vultus compare`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use vultus::wording::{counted, or_dash, percent};
use vultus_train::compare::{CompareError, Comparison, Spread, compare};
use vultus_train::paired::{MeanDifference, PairedComparison, PairedError, compare_pairs, holds_evaluation};
use vultus_train::run::RunDirectory;

use super::train::usage_or_run;
use super::{check_outside, run_directory};
use crate::failure::Failure;
use crate::message::say;
use crate::table;

/// Put finished runs beside each other: a row for each configuration, in the order given, with mean and standard deviation
/// where several runs differ by their seed alone, and with what differs from the first row. Evaluations of the same images
/// (vultus evaluate --out DIR) are compared image by image: each with the first, with an interval of the difference and McNemar's test.
#[derive(clap::Args)]
pub struct Compare {
    /// Directories of runs, or of searches whose winner is trained; or directories of evaluations, at least two.
    #[arg(value_name = "RUN_OR_EVALUATION", required = true)]
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
        if let Some(out) = self.out.as_deref().filter(|out| out.exists() && !out.is_dir()) {
            return Err(Failure::usage(anyhow!("{} is a file: name a folder", out.display())));
        }
        if let [first, others @ ..] = &self.runs[..]
            && holds_evaluation(first)
        {
            return self.run_pairs(first, others);
        }
        if let Some(evaluation) = self.runs.iter().find(|run| holds_evaluation(run)) {
            return Err(Failure::usage(anyhow!(
                "{} is an evaluation, and {} is none: name runs, or evaluations alone, such as those in RUN/evaluation",
                evaluation.display(),
                self.runs[0].display()
            )));
        }
        let runs = self.run_directories()?;
        for (run, out) in runs.iter().zip(self.out.iter().cycle()) {
            check_outside(&RunDirectory::config_of(run).map_err(usage_or_run)?.data.sources, out, "with --out")?;
        }
        let comparison = compare(&runs).map_err(|error| match error {
            CompareError::Run(error) => usage_or_run(error),
            _ => Failure::Run(error.into()),
        })?;
        warn(&comparison);
        // First, as who reads the other may be gone; what cannot be written is printed all the same.
        let written = self.out.as_deref().map_or(Ok(()), |out| comparison.write(out));
        let printed =
            if self.json { table::print_json(&comparison) } else { print(&comparison).map_err(anyhow::Error::from) };
        written?;
        Ok(printed?)
    }

    /// The runs that are meant. Among several a search without a model is passed over.
    fn run_directories(&self) -> Result<Vec<PathBuf>, Failure> {
        let mut runs = Vec::new();
        let mut unfinished = None;
        for run in &self.runs {
            match run_directory(run) {
                Ok(run) => runs.push(run),
                Err(Failure::Usage(error)) if self.runs.len() > 1 => {
                    say(format_args!("warning: {error}; it is left out"));
                    unfinished = Some(error);
                }
                Err(failure) => return Err(failure),
            }
        }
        match unfinished {
            Some(error) if runs.is_empty() => Err(Failure::Usage(error)),
            _ => Ok(runs),
        }
    }
}

impl Compare {
    fn run_pairs(&self, first: &Path, others: &[PathBuf]) -> Result<(), Failure> {
        if others.is_empty() {
            return Err(Failure::usage(anyhow!(
                "{} is one evaluation: name another to compare it with",
                first.display()
            )));
        }
        if let Some(other) = others.iter().find(|other| !holds_evaluation(other)) {
            return Err(Failure::usage(anyhow!(
                "{} is an evaluation, and {} is none: name runs, or evaluations that vultus evaluate --out has written",
                first.display(),
                other.display()
            )));
        }
        if self.out.is_some() {
            return Err(Failure::usage(anyhow!(
                "--out is for runs: a comparison of evaluations is printed, with --json for programs"
            )));
        }
        let compared = compare_pairs(first, others).map_err(|error| match error {
            PairedError::Different { .. } => Failure::usage(error),
            PairedError::Io(_) => Failure::Run(error.into()),
        })?;
        for pair in compared.others.iter().filter(|pair| !pair.same_pixels) {
            say(format_args!(
                "note: the images of {} have other pixels than those of the same names of {}",
                pair.name, compared.first
            ));
        }
        for note in &compared.notes {
            say(format_args!("note: {note}"));
        }
        if self.json { Ok(table::print_json(&compared)?) } else { Ok(print_pairs(&compared)?) }
    }
}

/// Percentage points with their sign.
fn points(share: f64) -> String {
    format!("{:+.2}", share * 100.0)
}

fn print_pairs(compared: &PairedComparison) -> std::io::Result<()> {
    table::print(format_args!("{}, {}\n", compared.split, counted(compared.n, "image")))?;
    let header = ["", "accuracy", "difference", "95 % interval", "right alone", "wrong alone", "p"];
    let mut rows = table::table(header);
    let empty = std::iter::repeat_n(String::new(), header.len() - 2);
    rows.add_row([compared.first.clone(), percent(compared.first_accuracy)].into_iter().chain(empty));
    for pair in &compared.others {
        let [low, high] = pair.interval.map(points);
        let p = if pair.p_value < 0.001 { "< 0.001".to_owned() } else { format!("{:.3}", pair.p_value) };
        let accuracy = percent(pair.accuracy);
        let (gained, lost) = (pair.gained.to_string(), pair.lost.to_string());
        rows.add_row([
            pair.name.clone(),
            accuracy,
            points(pair.difference),
            format!("{low} to {high}"),
            gained,
            lost,
            p,
        ]);
    }
    table::print_table(&rows)?;
    table::print(
        "\ndifference in percentage points; alone: where the first is not; p: McNemar's exact test, two-sided\n",
    )?;
    let header = ["", "log loss", "difference", "95 % interval", "Brier score", "difference", "95 % interval"];
    let mut rows = table::table(header);
    let (log_loss, brier_score) = (decimals(compared.first_log_loss), decimals(compared.first_brier_score));
    rows.add_row([&compared.first, &log_loss, "", "", &brier_score, "", ""].map(str::to_owned));
    for pair in &compared.others {
        let cells = |score: &MeanDifference| {
            let interval = score.interval.map(|ends| ends.map(signed_decimals));
            let interval = or_dash(interval, |[low, high]| format!("{low} to {high}"));
            [decimals(score.value), signed_decimals(score.difference), interval]
        };
        rows.add_row([vec![pair.name.clone()], cells(&pair.log_loss).into(), cells(&pair.brier_score).into()].concat());
    }
    table::print_table(&rows)?;
    table::print("\nlower is better")
}

fn decimals(score: f64) -> String {
    format!("{score:.4}")
}

fn signed_decimals(score: f64) -> String {
    format!("{score:+.4}")
}

/// Runs that one line names.
const NAMED_RUNS: usize = 3;

/// Says what makes figures doubtful.
fn warn(comparison: &Comparison) {
    let mut missing: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (run, split) in &comparison.missing {
        missing.entry(split).or_default().push(run.display().to_string());
    }
    for (split, runs) in missing {
        let others = runs.len().saturating_sub(NAMED_RUNS);
        let more = if others > 0 { format!(" and {others} more") } else { String::new() };
        let (named, number) = (runs[..runs.len() - others].join(", "), if runs.len() == 1 { "was" } else { "were" });
        say(format_args!("note: {named}{more} {number} not evaluated on {split}: there is no figure for it"));
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
    if comparison.unequal_validation {
        say("warning: not all rows may have validated on the same images: their val_accuracy may be of different ones");
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
    table::print_table(&rows)?;
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
    or_dash(spread, |spread| match spread.standard_deviation {
        None => percent(spread.mean),
        Some(deviation) => format!("{:.2} ± {}", spread.mean * 100.0, percent(deviation)),
    })
}
