//! Parquet.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use parquet::basic::{Compression, LogicalType, Repetition, Type as Physical};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;
use tempfile::NamedTempFile;
use vultus::persist::{Unfinished, beside, put_new};

use super::{Cell, CellRows, Column, Kind};

/// Rows of one row group: bounds the memory.
const ROWS_AT_ONCE: usize = 16_384;

/// Writes row groups; the file is complete or absent.
pub struct ParquetRows {
    writer: SerializedFileWriter<Out>,
    /// Where a file goes when it is complete.
    path: Option<PathBuf>,
    unfinished: Option<Unfinished>,
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
    pub fn to_stdout(columns: &[Column]) -> anyhow::Result<Self> {
        Self::new(Out::Stdout(io::stdout()), None, None, columns)
    }

    pub fn to_file(path: &Path, columns: &[Column]) -> anyhow::Result<Self> {
        let (unfinished, file) = beside(path)?;
        Self::new(Out::File(BufWriter::new(file)), Some(path.to_owned()), Some(unfinished), columns)
    }

    fn new(
        out: Out,
        path: Option<PathBuf>,
        unfinished: Option<Unfinished>,
        columns: &[Column],
    ) -> anyhow::Result<Self> {
        let fields = columns.iter().map(|Column { name, kind }| {
            let (physical, logical) = match kind {
                Kind::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
                Kind::Whole => (Physical::INT32, None),
                Kind::Real => (Physical::FLOAT, None),
                Kind::Double => (Physical::DOUBLE, None),
            };
            let field = Type::primitive_type_builder(name, physical).with_repetition(Repetition::OPTIONAL);
            Ok(Arc::new(field.with_logical_type(logical).build()?))
        });
        let fields = fields.collect::<Result<_, ParquetError>>()?;
        let schema = Type::group_type_builder("rows").with_fields(fields).build()?;
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let writer = SerializedFileWriter::new(out, Arc::new(schema), Arc::new(properties))?;
        Ok(Self { writer, path, unfinished, rows: Vec::new() })
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
            let levels = Some(&present[..]);
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
                ColumnWriter::DoubleColumnWriter(writer) => {
                    let values: Vec<f64> = values.filter_map(Cell::double).collect();
                    writer.write_batch(&values, levels, None)?;
                }
                _ => bail!("column {index} has a type that is never written"),
            }
            column.close()?;
            index += 1;
        }
        group.close()?;
        Ok(())
    }

    /// Writes what is left, down to the disk.
    fn end(mut self) -> anyhow::Result<Out> {
        self.write_group()?;
        let mut out = self.writer.into_inner()?;
        out.flush()?;
        if let Out::File(file) = &out {
            file.get_ref().as_file().sync_all()?;
        }
        Ok(out)
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

    fn double(&self) -> Option<f64> {
        if let Self::Double(number) = self { Some(*number) } else { None }
    }
}

impl CellRows for ParquetRows {
    fn write(&mut self, cells: Vec<Option<Cell>>) -> anyhow::Result<()> {
        self.rows.push(cells);
        if self.rows.len() < ROWS_AT_ONCE {
            return Ok(());
        }
        let written = self.write_group();
        named(written, self.path.as_deref())
    }

    /// The file is written as a whole.
    fn flush(&mut self) -> anyhow::Result<()> {
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> anyhow::Result<()> {
        let (path, unfinished) = (self.path.clone(), self.unfinished.take());
        if let (Out::File(file), Some(path), Some(unfinished)) = (named(self.end(), path.as_deref())?, path, unfinished)
        {
            put_new(file.into_inner().map_err(|error| error.into_error())?.into_temp_path(), unfinished, &path)?;
        }
        Ok(())
    }
}

/// What a file that cannot be written is to be called: until it is complete it has another name.
fn named<T>(written: anyhow::Result<T>, path: Option<&Path>) -> anyhow::Result<T> {
    written.with_context(|| match path {
        Some(path) => format!("cannot write {}", path.display()),
        None => "cannot write to stdout".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use parquet::file::reader::{FileReader, SerializedFileReader};

    use super::*;
    use crate::rows::column;

    #[test]
    fn a_file_that_has_appeared_meanwhile_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.parquet");
        let rows = Box::new(ParquetRows::to_file(&path, &[column("path", Kind::Text)]).unwrap());
        fs_err::write(&path, "somebody's").unwrap();
        let message = rows.finish().unwrap_err().to_string();
        assert_eq!(fs_err::read(&path).unwrap(), b"somebody's");
        let kept = Path::new(message.rsplit_once("it is complete in ").unwrap().1);
        assert!(SerializedFileReader::new(fs_err::File::open(kept).unwrap().into_parts().0).is_ok(), "{message}");
    }

    #[test]
    fn any_name_is_a_columns_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.parquet");
        let names = ["fear (scared!)", "a,b", "{x}", "sad;x", "\"", "ö", ""];
        let columns: Vec<Column> = names.iter().map(|name| column(name, Kind::Real)).collect();
        let mut rows = Box::new(ParquetRows::to_file(&path, &columns).unwrap());
        rows.write(names.iter().map(|_| Some(Cell::Real(0.5))).collect()).unwrap();
        rows.finish().unwrap();
        let file = SerializedFileReader::new(fs_err::File::open(&path).unwrap().into_parts().0).unwrap();
        let schema = file.metadata().file_metadata().schema_descr();
        let found: Vec<&str> = schema.columns().iter().map(|column| column.name()).collect();
        assert_eq!(found, names);
        assert_eq!(file.get_row_iter(None).unwrap().count(), 1);
    }
}
