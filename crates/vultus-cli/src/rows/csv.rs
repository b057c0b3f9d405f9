//! CSV, one row a face.

use vultus::analyze::Record;

use super::{Row, Rows, Sink, columns, rows};

/// Writes a header and one line a face.
pub struct CsvRows {
    writer: csv::Writer<Sink>,
    classes: usize,
}

impl CsvRows {
    /// With the header, unless the file has one.
    pub fn new(sink: Sink, labels: &[String], append: bool) -> anyhow::Result<Self> {
        let mut writer = csv::Writer::from_writer(sink);
        if !append {
            writer.write_record(columns(labels))?;
        }
        Ok(Self { writer, classes: labels.len() })
    }

    fn fields(&self, row: &Row) -> Vec<String> {
        let mut fields = vec![row.path.to_owned()];
        match row.size {
            Some((width, height)) => fields.extend([width.to_string(), height.to_string()]),
            None => fields.extend([String::new(), String::new()]),
        }
        match row.face {
            Some((number, face)) => {
                let area = face.area;
                fields
                    .extend([number as u32, area.x, area.y, area.width, area.height].map(|number| number.to_string()));
                fields.push(face.confidence.to_string());
                fields.push(face.label.clone().unwrap_or_default());
                fields.push(face.score.to_string());
                fields.extend(face.probabilities.iter().map(|(_, probability)| probability.to_string()));
            }
            None => fields.extend(std::iter::repeat_n(String::new(), 8 + self.classes)),
        }
        match row.error {
            Some(error) => fields.extend([error.code.to_owned(), error.message.clone()]),
            None => fields.extend([String::new(), String::new()]),
        }
        fields
    }
}

impl Rows for CsvRows {
    fn write(&mut self, record: &Record) -> anyhow::Result<()> {
        for row in rows(record) {
            self.writer.write_record(self.fields(&row))?;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> anyhow::Result<()> {
        Ok(self.writer.flush()?)
    }
}
