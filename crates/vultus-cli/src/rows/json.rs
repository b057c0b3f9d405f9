//! JSON lines.

use std::io::Write;

use vultus::analyze::Record;

use super::{Rows, Sink};

/// Writes one JSON object a record.
pub struct JsonRows(pub Sink);

impl Rows for JsonRows {
    fn write(&mut self, record: &Record) -> anyhow::Result<()> {
        let line = serde_json::to_string(record)?;
        writeln!(self.0, "{line}")?;
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> anyhow::Result<()> {
        Ok(self.0.flush()?)
    }
}
