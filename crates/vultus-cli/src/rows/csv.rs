//! CSV.

use std::io;

use super::{Cell, CellRows, Column, Sink};
use crate::message::printable;

/// Writes a header and one line a row.
pub struct CsvRows {
    writer: csv::Writer<Sink>,
    is_shown: bool,
}

impl CsvRows {
    /// With the header, unless the file has one.
    pub fn new(sink: Sink, columns: &[Column], has_header: bool) -> anyhow::Result<Self> {
        let is_shown = sink.is_terminal();
        let mut writer = csv::Writer::from_writer(sink);
        if !has_header {
            writer.write_record(columns.iter().map(|column| column.name.as_str())).map_err(system_error)?;
        }
        Ok(Self { writer, is_shown })
    }
}

/// The system's own error, where it is one: of a reader that has gone, it tells by its kind.
fn system_error(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}

impl CellRows for CsvRows {
    fn write(&mut self, cells: Vec<Option<Cell>>) -> anyhow::Result<()> {
        let fields = cells.into_iter().map(|cell| match cell {
            None => String::new(),
            Some(Cell::Text(text)) if self.is_shown => printable(&text),
            Some(Cell::Text(text)) => text,
            Some(Cell::Whole(number)) => number.to_string(),
            Some(Cell::Real(number)) => number.to_string(),
            Some(Cell::Double(number)) => number.to_string(),
        });
        Ok(self.writer.write_record(fields.collect::<Vec<_>>()).map_err(system_error)?)
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        Ok(self.writer.flush()?)
    }

    fn finish(mut self: Box<Self>) -> anyhow::Result<()> {
        Ok(self.writer.flush()?)
    }
}
