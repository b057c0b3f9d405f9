//! Results as rows: a table, JSON lines, CSV or Parquet, on stdout or in a file.
//!
//! [`pictures`] and [`film`] say which rows there are; [`csv`] and [`parquet`] how typed cells are written.

mod csv;
pub mod film;
mod parquet;
pub mod pictures;
pub mod resume;
mod table;

use std::fmt;
use std::fs::{File, TryLockError};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::ValueEnum;
use serde::Serialize;
use vultus::analyze::AnalyzedFace;

use crate::failure::Failure;
use crate::message::say;
use crate::table::{json_line, of_stdout};

/// The form of the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// One JSON object a line, for each picture or frame.
    Json,
    /// One row a face.
    Csv,
    /// The same columns as CSV, typed.
    Parquet,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Table => "a table",
            Self::Json => "JSON lines",
            Self::Csv => "CSV",
            Self::Parquet => "Parquet",
        })
    }
}

impl Format {
    /// The form that a file's name asks for, in letters of any case.
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_lowercase().as_str() {
            "json" | "jsonl" | "ndjson" => Some(Self::Json),
            "csv" => Some(Self::Csv),
            "parquet" => Some(Self::Parquet),
            _ => None,
        }
    }

    /// Whether rows can be added to a file that an earlier call has left.
    pub fn grows(self) -> bool {
        matches!(self, Self::Json | Self::Csv)
    }

    /// The form for stdout where none is asked for.
    pub fn of_stdout() -> Self {
        if io::stdout().is_terminal() { Self::Table } else { Self::Json }
    }

    /// Says so where the file's name tells another form.
    pub fn note_for(self, output: &Path) {
        if Self::of(output).is_some_and(|of_name| of_name != self) {
            say(format_args!("note: {} gets {self}, whatever its name says", output.display()));
        }
    }

    /// The form that is asked for, or that of the file `output`, or that for stdout.
    ///
    /// # Errors
    /// A file whose name tells no form, a table that is not for stdout, and Parquet for a terminal.
    pub fn choose(asked: Option<Self>, output: Option<&Path>) -> Result<Self, Failure> {
        let Some(output) = output else {
            let format = asked.unwrap_or_else(Self::of_stdout);
            if format == Self::Parquet && io::stdout().is_terminal() {
                return Err(Failure::usage(anyhow!("Parquet is not for a terminal: name a file with --output")));
            }
            return Ok(format);
        };
        let shown = output.display();
        match asked.or_else(|| Self::of(output)) {
            None => Err(Failure::usage(anyhow!(
                "which form has {shown}? Name it with --format, or end it in .jsonl, .csv or .parquet"
            ))),
            Some(Self::Table) => {
                Err(Failure::usage(anyhow!("a table is for the terminal: use json, csv or parquet for {shown}")))
            }
            Some(format) => Ok(format),
        }
    }
}

/// One value of a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    Text(String),
    Whole(i32),
    Real(f32),
    Double(f64),
}

/// A column's name, and what its cells are.
#[derive(Clone, Debug)]
pub struct Column {
    name: String,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Whole,
    Real,
    Double,
}

fn column(name: &str, kind: Kind) -> Column {
    Column { name: name.to_owned(), kind }
}

/// The columns of a face.
fn face_columns(labels: &[String]) -> Vec<Column> {
    let mut columns: Vec<Column> =
        ["x", "y", "box_width", "box_height"].iter().map(|name| column(name, Kind::Whole)).collect();
    columns.extend([column("confidence", Kind::Real), column("label", Kind::Text), column("score", Kind::Real)]);
    columns.extend(labels.iter().map(|label| column(&format!("probability_{label}"), Kind::Real)));
    columns
}

/// A face's cells, for [`face_columns`].
fn face_cells(face: &AnalyzedFace) -> Vec<Option<Cell>> {
    let area = face.area;
    let mut cells: Vec<Option<Cell>> = [area.x, area.y, area.width, area.height].map(whole).into();
    cells.push(Some(Cell::Real(face.confidence)));
    cells.push(face.label.as_deref().and_then(text));
    cells.push(Some(Cell::Real(face.score)));
    cells.extend(face.probabilities.iter().map(|(_, probability)| Some(Cell::Real(*probability))));
    cells
}

fn whole(number: u32) -> Option<Cell> {
    Some(Cell::Whole(i32::try_from(number).unwrap_or(i32::MAX)))
}

fn text(text: &str) -> Option<Cell> {
    Some(Cell::Text(text.to_owned()))
}

/// Takes rows of typed cells.
pub trait CellRows {
    /// Adds a row, one cell a column.
    fn write(&mut self, cells: Vec<Option<Cell>>) -> anyhow::Result<()>;
    /// Hands on the rows so far, as far as the form can.
    fn flush(&mut self) -> anyhow::Result<()>;
    /// Ends the output; without it a file may be incomplete or absent.
    fn finish(self: Box<Self>) -> anyhow::Result<()>;
}

/// Starts CSV or Parquet in `output` or on stdout, or goes on with the rows in `begun`, which is that file.
fn cell_rows(
    format: Format,
    columns: &[Column],
    output: Option<&Path>,
    begun: Option<File>,
) -> Result<Box<dyn CellRows>, Failure> {
    match (format, output) {
        (Format::Parquet, Some(path)) => Ok(Box::new(parquet::ParquetRows::to_file(path, columns)?)),
        (Format::Parquet, None) => Ok(Box::new(parquet::ParquetRows::to_stdout(columns)?)),
        _ => {
            let has_header = begun.as_ref().is_some_and(|file| file.metadata().is_ok_and(|file| file.len() > 0));
            let sink = Sink::open(output, begun)?;
            Ok(Box::new(csv::CsvRows::new(sink, columns, has_header)?))
        }
    }
}

/// Writes one JSON object a line.
struct JsonLines(Sink);

impl JsonLines {
    fn write(&mut self, line: &impl Serialize) -> anyhow::Result<()> {
        Ok(writeln!(self.0, "{}", json_line(line)?)?)
    }
}

/// Locks a file for as long as it is open, and refuses one that another process of this program is writing. Where there are
/// no locks there is no refusal.
fn lock_alone(file: &File, path: &Path) -> io::Result<()> {
    // On Windows a lock would keep out whatever reads or writes the file, this process itself included.
    if cfg!(unix) && matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
        let message = format!("{} is being written by another process", path.display());
        return Err(io::Error::new(io::ErrorKind::ResourceBusy, message));
    }
    Ok(())
}

/// Where lines go: stdout, or a file that grows.
struct Sink {
    writer: BufWriter<Box<dyn Write + Send>>,
    /// For messages.
    path: Option<PathBuf>,
}

impl Sink {
    /// stdout, a new file at `path`, or the one that is `begun` there, which is at its end.
    fn open(path: Option<&Path>, begun: Option<File>) -> io::Result<Self> {
        let Some(path) = path else { return Ok(Self { writer: BufWriter::new(Box::new(io::stdout())), path: None }) };
        let file = match begun {
            Some(file) => file,
            None => {
                let new = fs_err::OpenOptions::new().write(true).create_new(true).open(path)?.into_parts().0;
                lock_alone(&new, path)?;
                new
            }
        };
        Ok(Self { writer: BufWriter::new(Box::new(file)), path: Some(path.to_owned()) })
    }

    /// Whether somebody sees the lines as they come.
    fn is_terminal(&self) -> bool {
        self.path.is_none() && io::stdout().is_terminal()
    }

    fn named(&self, error: io::Error) -> io::Error {
        match &self.path {
            Some(path) => io::Error::new(error.kind(), format!("cannot write {}: {error}", path.display())),
            None => of_stdout(error),
        }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes).map_err(|error| self.named(error))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush().map_err(|error| self.named(error))
    }
}
