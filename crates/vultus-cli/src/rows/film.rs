//! The rows of a film: JSON has one line a frame, {frame, time_s, persons}; the other forms have one row a person and frame.

use std::io::Write;
use std::path::Path;

use serde::Serialize;
use vultus::video::{Frame, Person};

use super::{
    Cell, CellRows, Column, Format, JsonLines, Kind, Sink, cell_rows, column, face_cells, face_columns, whole,
};
use crate::failure::Failure;

/// Takes frames.
pub enum FilmRows {
    Json(FilmJson),
    Cells(Box<dyn CellRows>),
}

/// JSON lines of frames.
pub struct FilmJson(JsonLines);

/// A frame as JSON.
#[derive(Serialize)]
struct Line<'a> {
    frame: u64,
    time_s: f64,
    persons: &'a [Person],
}

impl FilmRows {
    /// Starts rows about classes `labels`, in `output` or on stdout: typed cells for CSV and Parquet, else JSON lines.
    pub fn open(format: Format, labels: &[String], output: Option<&Path>) -> Result<Self, Failure> {
        Ok(match format {
            Format::Csv | Format::Parquet => Self::Cells(cell_rows(format, &columns(labels), output, None)?),
            Format::Json | Format::Table => Self::Json(FilmJson(JsonLines(Sink::open(output, None)?))),
        })
    }

    /// Adds a frame.
    pub fn write(&mut self, frame: &Frame) -> anyhow::Result<()> {
        match self {
            Self::Json(FilmJson(lines)) => {
                lines.write(&Line { frame: frame.index, time_s: frame.time_s, persons: &frame.persons })
            }
            Self::Cells(rows) => {
                for Person { person, face } in &frame.persons {
                    let number = |number: u64| whole(u32::try_from(number).unwrap_or(u32::MAX));
                    let mut cells = vec![number(frame.index), Some(Cell::Double(frame.time_s)), number(*person)];
                    cells.extend(face_cells(face));
                    rows.write(cells)?;
                }
                Ok(())
            }
        }
    }

    /// Hands on what has been added, as far as the form can: Parquet is written as a whole.
    pub fn flush(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Json(FilmJson(lines)) => Ok(lines.0.flush()?),
            Self::Cells(rows) => rows.flush(),
        }
    }

    /// Ends the output; without it a file may be incomplete or absent.
    pub fn finish(self) -> anyhow::Result<()> {
        match self {
            Self::Json(FilmJson(mut lines)) => Ok(lines.0.flush()?),
            Self::Cells(rows) => rows.finish(),
        }
    }
}

/// The columns of CSV and Parquet.
fn columns(labels: &[String]) -> Vec<Column> {
    let mut columns = vec![column("frame", Kind::Whole), column("time_s", Kind::Double), column("person", Kind::Whole)];
    columns.extend(face_columns(labels));
    columns
}
