//! Tables for people, on stdout.

use std::io::{self, Write};

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use vultus::wording::{counted, or_dash, percent, percent_with_interval, points_with_interval};
use vultus_train::evaluate::Evaluation;
use vultus_train::evaluate::groups::{Attribute, ClassRate, GroupScores, RESERVED};

use crate::message::printable_lines;

/// A table whose first column is text and whose others are numbers.
pub fn table<H: ToString>(header: impl IntoIterator<Item = H>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.into_iter().map(|text| text.to_string()));
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Writes a line, or several, to stdout.
pub fn print(text: impl std::fmt::Display) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{}", printable_lines(text)).map_err(of_stdout)
}

/// Writes a table to stdout.
pub fn print_table(table: &Table) -> io::Result<()> {
    print(table.trim_fmt())
}

/// The system's refusal of what goes to stdout.
pub fn of_stdout(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot write to stdout: {error}"))
}

/// Writes a value as one line of JSON to stdout.
pub fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    Ok(writeln!(io::stdout().lock(), "{}", json_line(value)?).map_err(of_stdout)?)
}

/// A value as one line of JSON. What a terminal would obey is escaped: a name of a file may hold it.
pub fn json_line(value: &impl Serialize) -> serde_json::Result<String> {
    let mut line = String::new();
    for character in serde_json::to_string(value)?.chars() {
        match character {
            // JSON escapes the others by itself.
            '\u{7f}'..='\u{9f}' => line += &format!("\\u{:04x}", u32::from(character)),
            _ => line.push(character),
        }
    }
    Ok(line)
}

/// The result of an evaluation: headline, classes, confusion matrix.
pub fn print_evaluation(evaluation: &Evaluation) -> io::Result<()> {
    let [low, high] = evaluation.accuracy_interval;
    print(format_args!(
        "{} ({}): accuracy {} (95 % interval {} to {}), macro F1 {:.4}, balanced accuracy {}, top 2 {}, \
         log loss {:.4}, {}calibration error {:.4}{}\n",
        evaluation.split,
        counted(evaluation.n, "image"),
        percent(evaluation.accuracy),
        percent(low),
        percent(high),
        evaluation.macro_f1,
        percent(evaluation.balanced_accuracy),
        percent(evaluation.top2_accuracy),
        evaluation.log_loss,
        evaluation.brier_score.map(|score| format!("Brier score {score:.4}, ")).unwrap_or_default(),
        evaluation.ece,
        evaluation.ece_by_chance.map(|error| format!(" (up to {error:.4} by chance)")).unwrap_or_default()
    ))?;
    if let Some(votes) = &evaluation.votes {
        print(format_args!(
            "against the votes of FER+ ({}): log loss {:.4}, where the votes' own entropy is {:.4}\n",
            counted(votes.n, "image"),
            votes.log_loss,
            votes.entropy
        ))?;
    }
    let header = ["true class", "images", "precision", "recall", "F1"].map(str::to_owned).into_iter();
    let mut rows = table(header.chain(evaluation.labels.iter().map(|label| format!("→ {label}"))));
    for (number, (class, confusion)) in evaluation.per_class.iter().zip(&evaluation.confusion).enumerate() {
        let mut row = vec![class.label.clone(), class.support.to_string()];
        row.extend(evaluation.class_scores(number).map(|score| or_dash(score, |score| format!("{score:.3}"))));
        row.extend(confusion.iter().map(usize::to_string));
        rows.add_row(row);
    }
    print_table(&rows)?;
    print("")?;
    let [all_images, _] = RESERVED;
    let all = GroupScores::new(all_images, evaluation);
    evaluation.groups.iter().try_for_each(|attribute| print_groups(&all, attribute))
}

/// The groups of one attribute, below `all` images together.
fn print_groups(all: &GroupScores, attribute: &Attribute) -> io::Result<()> {
    let groups: Vec<&GroupScores> = std::iter::once(all).chain(&attribute.groups).collect();
    let by = format!("by {}", attribute.name);
    let mut rows = table([&by, "images", "accuracy", "balanced accuracy", "classes", "against the others, points"]);
    for group in &groups {
        rows.add_row([
            group.group.clone(),
            group.n.to_string(),
            percent_with_interval(group.accuracy, Some(group.accuracy_interval)),
            percent_with_interval(group.balanced_accuracy, group.balanced_accuracy_interval),
            group.classes.to_string(),
            or_dash(group.difference, |difference| {
                points_with_interval(difference.balanced_accuracy, difference.interval)
            }),
        ]);
    }
    if attribute.unknown > 0 {
        let [_, not_known] = RESERVED;
        rows.add_row([not_known.to_owned(), attribute.unknown.to_string()]);
    }
    print_table(&rows)?;
    if !attribute.same_classes() {
        print(
            "not all groups have images of the same classes: their balanced accuracies are means of different recalls",
        )?;
    }
    print("")?;
    let header = format!("calibration {by}");
    let mut rows = table([&header, "mean score", "above accuracy by, points", "calibration error", "by chance up to"]);
    for group in &groups {
        rows.add_row([
            group.group.clone(),
            percent(group.mean_confidence),
            or_dash(group.overconfidence_interval, |[low, high]| {
                format!("{:+.2} to {:+.2}", low * 100.0, high * 100.0)
            }),
            format!("{:.4}", group.ece),
            or_dash(group.ece_by_chance, |error| format!("{error:.4}")),
        ]);
    }
    print_table(&rows)?;
    print("")?;
    print_rates(&format!("recall {by}"), &groups, |group| &group.recalls)?;
    print_rates(&format!("false positives {by}"), &groups, |group| &group.false_positive_rates)
}

/// The `rates` of each class, a row a group. Evaluations of earlier versions have none.
fn print_rates(title: &str, groups: &[&GroupScores], rates: fn(&GroupScores) -> &[ClassRate]) -> io::Result<()> {
    let (all, of_one) = (rates(groups[0]), &groups[1..]);
    if of_one.iter().all(|group| rates(group).is_empty()) {
        return Ok(());
    }
    let mut rows = table([title].into_iter().chain(all.iter().map(|class| class.label.as_str())));
    for group in groups {
        let cell = |class: &ClassRate| {
            let rate = rates(group).iter().find(|rate| rate.label == class.label);
            or_dash(rate, |rate| format!("{} of {}", percent(rate.rate), rate.support))
        };
        rows.add_row([group.group.clone()].into_iter().chain(all.iter().map(cell)));
    }
    print_table(&rows)?;
    print("")
}
