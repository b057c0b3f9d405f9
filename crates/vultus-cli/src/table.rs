//! Tables for people, on stdout.

use std::io::{self, Write};

use comfy_table::{CellAlignment, Table, presets};
use vultus_train::evaluate::Evaluation;

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
    writeln!(io::stdout().lock(), "{}", printable_lines(text))
}

/// A share as a percentage with two decimals.
pub fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}

/// The result of an evaluation: headline, classes, confusion matrix.
pub fn print_evaluation(evaluation: &Evaluation) -> io::Result<()> {
    let [low, high] = evaluation.accuracy_interval;
    print(format_args!(
        "{} ({} images): accuracy {} (95 % interval {} to {}), macro F1 {:.4}, balanced accuracy {}, top 2 {}, \
         log loss {:.4}, calibration error {:.4}\n",
        evaluation.split,
        evaluation.n,
        percent(evaluation.accuracy),
        percent(low),
        percent(high),
        evaluation.macro_f1,
        percent(evaluation.balanced_accuracy),
        percent(evaluation.top2_accuracy),
        evaluation.log_loss,
        evaluation.ece
    ))?;
    if let Some(votes) = &evaluation.votes {
        print(format_args!(
            "against the votes of FER+ ({} images): log loss {:.4}, where the votes' own entropy is {:.4}\n",
            votes.n, votes.log_loss, votes.entropy
        ))?;
    }
    let header = ["true class", "images", "precision", "recall", "F1"].map(str::to_owned).into_iter();
    let mut rows = table(header.chain(evaluation.labels.iter().map(|label| format!("→ {label}"))));
    for (class, confusion) in evaluation.per_class.iter().zip(&evaluation.confusion) {
        let mut row = vec![
            class.label.clone(),
            class.support.to_string(),
            format!("{:.3}", class.precision),
            format!("{:.3}", class.recall),
            format!("{:.3}", class.f1),
        ];
        row.extend(confusion.iter().map(usize::to_string));
        rows.add_row(row);
    }
    print(rows)?;
    print("")
}
