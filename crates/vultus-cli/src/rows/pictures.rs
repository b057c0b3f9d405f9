//! The rows of pictures: JSON has one line a picture; the other forms have one row a face, and one for a picture with an
//! error.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use vultus::analyze::{AnalyzedFace, Record, RecordError};

use super::table::TableRows;
use super::{
    CellRows, Column, Format, JsonLines, Kind, Sink, cell_rows, column, face_cells, face_columns, text, whole,
};
use crate::failure::Failure;

/// Takes records.
pub enum PictureRows {
    Table(TableRows),
    Json(PictureJson),
    Cells(PictureCells),
}

/// JSON lines of records.
pub struct PictureJson(JsonLines);

/// Typed cells of records.
pub struct PictureCells {
    rows: Box<dyn CellRows>,
    classes: usize,
}

impl PictureRows {
    /// Starts rows in `format` about classes `labels`, in `output` or on stdout, or goes on with those in `begun`, which is
    /// that file.
    pub fn open(
        format: Format,
        labels: &[String],
        output: Option<&Path>,
        begun: Option<File>,
    ) -> Result<Self, Failure> {
        Ok(match format {
            Format::Table => Self::Table(TableRows::new(labels)),
            Format::Json => Self::Json(PictureJson(JsonLines(Sink::open(output, begun)?))),
            Format::Csv | Format::Parquet => Self::Cells(PictureCells {
                rows: cell_rows(format, &columns(labels), output, begun)?,
                classes: labels.len(),
            }),
        })
    }

    /// Adds a record.
    pub fn write(&mut self, record: &Record) -> anyhow::Result<()> {
        match self {
            Self::Table(table) => table.write(record),
            Self::Json(PictureJson(lines)) => lines.write(record)?,
            Self::Cells(cells) => cells.write(record)?,
        }
        Ok(())
    }

    /// Hands on what has been added, as far as the form can: a table and Parquet are written as a whole.
    pub fn flush(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Table(_) => Ok(()),
            Self::Json(PictureJson(lines)) => Ok(lines.0.flush()?),
            Self::Cells(cells) => cells.rows.flush(),
        }
    }

    /// Ends the output; without it a file may be incomplete or absent.
    pub fn finish(self) -> anyhow::Result<()> {
        match self {
            Self::Table(table) => Ok(table.finish()?),
            Self::Json(PictureJson(mut lines)) => Ok(lines.0.flush()?),
            Self::Cells(cells) => cells.rows.finish(),
        }
    }
}

impl PictureCells {
    fn write(&mut self, record: &Record) -> anyhow::Result<()> {
        for row in rows(record) {
            let size = |side: fn((u32, u32)) -> u32| row.size.and_then(|size| whole(side(size)));
            let mut cells = vec![text(row.path), size(|size| size.0), size(|size| size.1)];
            match row.face {
                Some((number, face)) => {
                    cells.push(whole(number));
                    cells.extend(face_cells(face));
                }
                None => cells.extend(std::iter::repeat_n(None, 8 + self.classes)),
            }
            cells.push(row.error.and_then(|error| text(error.code)));
            cells.push(row.error.and_then(|error| text(&error.message)));
            self.rows.write(cells)?;
        }
        Ok(())
    }
}

/// The columns of CSV and Parquet.
pub(super) fn columns(labels: &[String]) -> Vec<Column> {
    let mut columns = vec![column("path", Kind::Text)];
    columns.extend(["width", "height", "face"].map(|name| column(name, Kind::Whole)));
    columns.extend(face_columns(labels));
    columns.extend(["error_code", "error"].map(|name| column(name, Kind::Text)));
    columns
}

/// One face of a picture, with the reason if its drawing failed, or the picture's error, or a picture without faces.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    pub path: &'a str,
    /// Width and height of the picture.
    pub size: Option<(u32, u32)>,
    /// The face with its number, from 1.
    pub face: Option<(u32, &'a AnalyzedFace)>,
    pub error: Option<&'a RecordError>,
}

/// The rows of a record, at least one.
pub(super) fn rows(record: &Record) -> Vec<Row<'_>> {
    let path = record.path.as_str();
    match &record.outcome {
        Err(error) => vec![Row { path, size: None, face: None, error: Some(error) }],
        Ok(analysis) => {
            let size = Some((analysis.width, analysis.height));
            let row = |face| Row { path, size, face, error: record.undrawn.as_ref() };
            if analysis.faces.is_empty() {
                return vec![row(None)];
            }
            (1..).zip(&analysis.faces).map(|numbered| row(Some(numbered))).collect()
        }
    }
}
