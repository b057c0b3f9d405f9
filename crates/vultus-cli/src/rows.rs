//! Records of analyzed pictures as a table, JSON lines, CSV or Parquet.
//!
//! In: [`Record`]s one after the other. Out: rows on stdout or in a file. JSON has one line a picture; the others one row a
//! face, and one for a picture with an error.

mod csv;
mod json;
mod parquet;
pub mod resume;
mod table;

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::ValueEnum;
use vultus::analyze::{AnalyzedFace, Record, RecordError};

use crate::failure::Failure;

/// The form of the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// One JSON object a line: {path, width, height, faces} or {path, error: {code, message}}.
    Json,
    /// One row a face.
    Csv,
    /// The same columns as CSV, typed.
    Parquet,
}

impl Format {
    /// The form that a file's name asks for.
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "json" | "jsonl" | "ndjson" => Some(Self::Json),
            "csv" => Some(Self::Csv),
            "parquet" => Some(Self::Parquet),
            _ => None,
        }
    }

    /// The form for stdout where none is asked for.
    pub fn of_stdout() -> Self {
        if io::stdout().is_terminal() { Self::Table } else { Self::Json }
    }
}

/// Takes records.
pub trait Rows {
    /// Adds a record.
    fn write(&mut self, record: &Record) -> anyhow::Result<()>;
    /// Ends the output; without it a file may be incomplete.
    fn finish(self: Box<Self>) -> anyhow::Result<()>;
}

/// Starts to write rows in `format` about classes `labels`, to `output` or to stdout. With `append`, the file has a
/// beginning already.
pub fn open(format: Format, labels: &[String], output: Option<&Path>, append: bool) -> Result<Box<dyn Rows>, Failure> {
    let Some(path) = output else {
        return Ok(match format {
            Format::Table => Box::new(table::TableRows::new(labels)),
            Format::Json => Box::new(json::JsonRows(Sink::stdout())),
            Format::Csv => Box::new(csv::CsvRows::new(Sink::stdout(), labels, false)?),
            Format::Parquet if io::stdout().is_terminal() => {
                return Err(Failure::usage(anyhow!("Parquet is not for a terminal: name a file with --output")));
            }
            Format::Parquet => Box::new(parquet::ParquetRows::to_stdout(labels)?),
        });
    };
    Ok(match format {
        Format::Table => return Err(Failure::usage(anyhow!("a table is for the terminal: use json, csv or parquet"))),
        Format::Json => Box::new(json::JsonRows(Sink::file(path, append)?)),
        Format::Csv => Box::new(csv::CsvRows::new(Sink::file(path, append)?, labels, append)?),
        Format::Parquet => Box::new(parquet::ParquetRows::to_file(path, labels)?),
    })
}

/// Where lines go: stdout, or a file that grows.
pub struct Sink {
    writer: BufWriter<Box<dyn Write + Send>>,
    /// For messages.
    path: Option<PathBuf>,
}

impl Sink {
    fn stdout() -> Self {
        Self { writer: BufWriter::new(Box::new(io::stdout())), path: None }
    }

    fn file(path: &Path, append: bool) -> io::Result<Self> {
        let mut options = fs_err::OpenOptions::new();
        let file: File =
            if append { options.append(true) } else { options.write(true).create_new(true) }.open(path)?.into_parts().0;
        Ok(Self { writer: BufWriter::new(Box::new(file)), path: Some(path.to_owned()) })
    }

    fn named(&self, error: io::Error) -> io::Error {
        match &self.path {
            Some(path) => io::Error::new(error.kind(), format!("cannot write {}: {error}", path.display())),
            None => error,
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

/// One face of a picture, or the picture's error, or a picture without faces.
#[derive(Clone, Copy)]
struct Row<'a> {
    path: &'a str,
    /// Width and height of the picture.
    size: Option<(u32, u32)>,
    /// The face with its number, from 1.
    face: Option<(usize, &'a AnalyzedFace)>,
    error: Option<&'a RecordError>,
}

/// The rows of a record, at least one.
fn rows(record: &Record) -> Vec<Row<'_>> {
    let path = record.path.as_str();
    match &record.outcome {
        Err(error) => vec![Row { path, size: None, face: None, error: Some(error) }],
        Ok(analysis) => {
            let size = Some((analysis.width, analysis.height));
            let row = |face| Row { path, size, face, error: None };
            if analysis.faces.is_empty() {
                return vec![row(None)];
            }
            analysis.faces.iter().enumerate().map(|(index, face)| row(Some((index + 1, face)))).collect()
        }
    }
}

/// The names of the columns of CSV and Parquet.
fn columns(labels: &[String]) -> Vec<String> {
    let before =
        ["path", "width", "height", "face", "x", "y", "box_width", "box_height", "confidence", "label", "score"];
    let names = before.map(str::to_owned).into_iter();
    names
        .chain(labels.iter().map(|label| format!("probability_{label}")))
        .chain(["error_code", "error"].map(str::to_owned))
        .collect()
}
