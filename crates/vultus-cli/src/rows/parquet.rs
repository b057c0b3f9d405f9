//! Parquet, one row a face, with the columns of CSV.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use tempfile::NamedTempFile;
use vultus::analyze::Record;

use super::{Row, Rows, columns, rows};

/// Rows of one row group: bounds the memory.
const ROWS_AT_ONCE: usize = 16_384;

/// Columns before the probabilities, and their types.
const FIXED: [&str; 11] =
    ["binary", "int32", "int32", "int32", "int32", "int32", "int32", "int32", "float", "binary", "float"];

/// One value of a column.
#[derive(Clone)]
enum Cell {
    Text(String),
    Whole(i32),
    Real(f32),
}

/// Writes row groups; the file is complete or absent.
pub struct ParquetRows {
    writer: SerializedFileWriter<Out>,
    /// Where a file goes when it is complete.
    path: Option<PathBuf>,
    rows: Vec<Vec<Option<Cell>>>,
}

/// Where the bytes go.
enum Out {
    Stdout(io::Stdout),
    File(BufWriter<NamedTempFile>),
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout(stdout) => stdout.write(bytes),
            Self::File(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout(stdout) => stdout.flush(),
            Self::File(file) => file.flush(),
        }
    }
}

impl ParquetRows {
    pub fn to_stdout(labels: &[String]) -> anyhow::Result<Self> {
        Self::new(Out::Stdout(io::stdout()), None, labels)
    }

    pub fn to_file(path: &Path, labels: &[String]) -> anyhow::Result<Self> {
        let file = vultus::persist::beside(path)?;
        Self::new(Out::File(BufWriter::new(file)), Some(path.to_owned()), labels)
    }

    fn new(out: Out, path: Option<PathBuf>, labels: &[String]) -> anyhow::Result<Self> {
        let mut message = "message faces {".to_owned();
        for (index, name) in columns(labels).iter().enumerate() {
            let last = FIXED.len() + labels.len();
            let kind = FIXED.get(index).copied().unwrap_or(if index < last { "float" } else { "binary" });
            let (repetition, text) =
                (if index == 0 { "required" } else { "optional" }, if kind == "binary" { " (STRING)" } else { "" });
            message.push_str(&format!(" {repetition} {kind} {name}{text};"));
        }
        message.push_str(" }");
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let writer = SerializedFileWriter::new(out, Arc::new(parse_message_type(&message)?), Arc::new(properties))?;
        Ok(Self { writer, path, rows: Vec::new() })
    }

    /// Writes the rows that have come together as a row group.
    fn write_group(&mut self) -> anyhow::Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let rows = std::mem::take(&mut self.rows);
        let mut group = self.writer.next_row_group()?;
        let mut index = 0;
        while let Some(mut column) = group.next_column()? {
            let cells: Vec<&Option<Cell>> = rows.iter().map(|row| &row[index]).collect();
            let present: Vec<i16> = cells.iter().map(|cell| i16::from(cell.is_some())).collect();
            // The first column is required and has no levels.
            let levels = (index > 0).then_some(&present[..]);
            let values = cells.into_iter().flatten();
            match column.untyped() {
                ColumnWriter::ByteArrayColumnWriter(writer) => {
                    let values: Vec<ByteArray> = values.filter_map(Cell::text).collect();
                    writer.write_batch(&values, levels, None)?;
                }
                ColumnWriter::Int32ColumnWriter(writer) => {
                    let values: Vec<i32> = values.filter_map(Cell::whole).collect();
                    writer.write_batch(&values, levels, None)?;
                }
                ColumnWriter::FloatColumnWriter(writer) => {
                    let values: Vec<f32> = values.filter_map(Cell::real).collect();
                    writer.write_batch(&values, levels, None)?;
                }
                _ => anyhow::bail!("column {index} has a type that is never written"),
            }
            column.close()?;
            index += 1;
        }
        group.close()?;
        Ok(())
    }
}

impl Cell {
    fn text(&self) -> Option<ByteArray> {
        if let Self::Text(text) = self { Some(ByteArray::from(text.as_str())) } else { None }
    }

    fn whole(&self) -> Option<i32> {
        if let Self::Whole(number) = self { Some(*number) } else { None }
    }

    fn real(&self) -> Option<f32> {
        if let Self::Real(number) = self { Some(*number) } else { None }
    }
}

/// One cell a column.
fn cells(row: &Row, classes: usize) -> Vec<Option<Cell>> {
    let whole = |number: u32| Some(Cell::Whole(number as i32));
    let text = |text: &str| Some(Cell::Text(text.to_owned()));
    let mut cells =
        vec![text(row.path), row.size.and_then(|size| whole(size.0)), row.size.and_then(|size| whole(size.1))];
    match row.face {
        Some((number, face)) => {
            let area = face.area;
            cells.extend([number as u32, area.x, area.y, area.width, area.height].map(whole));
            cells.push(Some(Cell::Real(face.confidence)));
            cells.push(face.label.as_deref().and_then(text));
            cells.push(Some(Cell::Real(face.score)));
            cells.extend(face.probabilities.iter().map(|(_, probability)| Some(Cell::Real(*probability))));
        }
        None => cells.extend(std::iter::repeat_n(None, 8 + classes)),
    }
    cells.push(row.error.and_then(|error| text(error.code)));
    cells.push(row.error.and_then(|error| text(&error.message)));
    cells
}

impl Rows for ParquetRows {
    fn write(&mut self, record: &Record) -> anyhow::Result<()> {
        let classes = self.writer.schema_descr().num_columns() - FIXED.len() - 2;
        self.rows.extend(rows(record).iter().map(|row| cells(row, classes)));
        if self.rows.len() >= ROWS_AT_ONCE { self.write_group() } else { Ok(()) }
    }

    fn finish(mut self: Box<Self>) -> anyhow::Result<()> {
        self.write_group()?;
        let mut out = self.writer.into_inner()?;
        out.flush()?;
        if let (Out::File(file), Some(path)) = (out, self.path) {
            let file = file.into_inner().map_err(|error| error.into_error())?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
        }
        Ok(())
    }
}
