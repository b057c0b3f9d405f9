//! A table on stdout.

use std::io::{self, Write};

use comfy_table::{CellAlignment, Table};
use vultus::analyze::Record;

use super::pictures::rows;
use crate::message::printable;
use crate::table::{print, table};

/// Characters of a path that are shown: one long name would push the numbers of all rows aside.
const PATH_WIDTH: usize = 40;

/// Collects the table, because its columns are as wide as their widest cells.
pub struct TableRows {
    table: Table,
    failures: Vec<String>,
}

impl TableRows {
    /// One column a class.
    pub fn new(labels: &[String]) -> Self {
        let header = ["image", "face", "expression", "score"].into_iter().map(str::to_owned);
        let mut table = table(header.chain(labels.iter().cloned()));
        for column in [1, 2] {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Left);
            }
        }
        Self { table, failures: Vec::new() }
    }

    /// Adds a record.
    pub fn write(&mut self, record: &Record) {
        for row in rows(record) {
            let path = printable(row.path);
            let mut cells = vec![end_of(&path)];
            // A message in the table would push all numbers aside. Each picture has one.
            if let Some(error) = row.error.filter(|_| row.face.is_none_or(|(number, _)| number == 1)) {
                self.failures.push(format!("{path}: {}", printable(&error.message)));
            }
            match (row.face, row.error) {
                (Some((_, face)), _) => {
                    let area = face.area;
                    cells.push(format!("{}x{}+{}+{}", area.width, area.height, area.x, area.y));
                    cells.push(face.label.clone().unwrap_or_else(|| "(unsure)".to_owned()));
                    cells.push(format!("{:.3}", face.score));
                    cells.extend(face.probabilities.iter().map(|(_, probability)| format!("{probability:.3}")));
                }
                (None, Some(_)) => cells.extend([String::new(), "(error)".to_owned()]),
                (None, None) => cells.extend([String::new(), "(no face)".to_owned()]),
            }
            self.table.add_row(cells);
        }
    }

    /// Prints it, with what went wrong below.
    pub fn finish(self) -> io::Result<()> {
        print(&self.table)?;
        if !self.failures.is_empty() {
            print("")?;
        }
        for failure in &self.failures {
            print(format_args!("error: {failure}"))?;
        }
        io::stdout().flush()
    }
}

/// A path, or the end of a long one.
fn end_of(path: &str) -> String {
    let hidden = path.chars().count().saturating_sub(PATH_WIDTH);
    if hidden == 0 { path.to_owned() } else { format!("…{}", path.chars().skip(hidden + 1).collect::<String>()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_paths_are_shown_by_their_ends() {
        let whole = "é".repeat(PATH_WIDTH);
        assert_eq!(end_of(&whole), whole);
        let cut = end_of(&format!("photos/{whole}.png"));
        assert_eq!((cut.chars().count(), cut), (PATH_WIDTH, format!("…{}.png", "é".repeat(PATH_WIDTH - 5))));
    }
}
