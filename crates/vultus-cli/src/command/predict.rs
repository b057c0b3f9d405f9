//! `vultus predict`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use comfy_table::CellAlignment;
use serde_json::json;
use vultus::classifier::{Classifier, Prediction};
use vultus::decode::{DecodeLimits, decode};

use super::evaluate::newest_model;
use super::model_file;
use crate::failure::Failure;
use crate::message::say;
use crate::table::{print, table};

/// Classify pictures of faces, cropped to the face.
#[derive(clap::Args)]
pub struct Predict {
    /// Pictures (png, jpeg, bmp, webp).
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<PathBuf>,
    /// A model file, or a run directory. Without it, the newest model below runs/.
    #[arg(long, value_name = "BUNDLE")]
    model: Option<PathBuf>,
    /// Print one JSON object a line: {path, label, score, probabilities} or {path, error: {code, message}}.
    #[arg(long)]
    json: bool,
    /// Print CSV: path, label, score, one column a class, error.
    #[arg(long, conflicts_with = "json")]
    csv: bool,
}

/// Why a picture has no prediction.
struct PictureError {
    code: &'static str,
    message: String,
}

type Row = Result<Prediction, PictureError>;

impl Predict {
    pub fn run(self) -> Result<(), Failure> {
        let model = self.model_path()?;
        let classifier = Classifier::load(&model)?;
        let rows = self.images.iter().map(|path| (path.as_path(), predict(&classifier, path)));
        let failed = if self.json {
            print_json(rows)?
        } else if self.csv {
            print_csv(rows, classifier.labels().names())?
        } else {
            print_table(rows, classifier.labels().names())?
        };
        if failed > 0 { Err(Failure::Inputs(failed)) } else { Ok(()) }
    }

    fn model_path(&self) -> Result<PathBuf, Failure> {
        match &self.model {
            Some(path) => model_file(path),
            None => {
                let path = newest_model(Path::new("runs")).ok_or_else(|| {
                    Failure::usage(anyhow!("there is no model below runs/: name one with --model, or run vultus train"))
                })?;
                say(format_args!("model: {}", path.display()));
                Ok(path)
            }
        }
    }
}

fn predict(classifier: &Classifier, path: &Path) -> Row {
    let bytes = std::fs::read(path).map_err(|error| PictureError { code: "unreadable", message: error.to_string() })?;
    let picture = decode(&bytes, &DecodeLimits::default())
        .map_err(|error| PictureError { code: error.code(), message: error.to_string() })?;
    Ok(classifier.predict(&picture))
}

/// Prints rows and counts those that failed.
fn print_json<'a>(rows: impl Iterator<Item = (&'a Path, Row)>) -> io::Result<usize> {
    let mut failed = 0;
    for (path, row) in rows {
        let path = path.display().to_string();
        print(match row {
            Ok(prediction) => {
                let probabilities: serde_json::Map<_, _> =
                    prediction.probabilities.iter().map(|(name, score)| (name.clone(), json!(score))).collect();
                json!({
                    "path": path,
                    "label": prediction.label,
                    "score": prediction.score,
                    "probabilities": probabilities,
                })
            }
            Err(error) => {
                failed += 1;
                json!({ "path": path, "error": { "code": error.code, "message": error.message } })
            }
        })?;
    }
    Ok(failed)
}

fn print_csv<'a>(rows: impl Iterator<Item = (&'a Path, Row)>, labels: &[String]) -> io::Result<usize> {
    let mut failed = 0;
    let mut writer = csv::Writer::from_writer(io::stdout().lock());
    let fixed = ["path", "label", "score"].into_iter().map(str::to_owned);
    let probabilities = labels.iter().map(|label| format!("probability_{label}"));
    writer.write_record(fixed.chain(probabilities).chain(["error".to_owned()]))?;
    for (path, row) in rows {
        let mut record = vec![path.display().to_string()];
        match row {
            Ok(prediction) => {
                record.extend([prediction.label, prediction.score.to_string()]);
                record.extend(prediction.probabilities.iter().map(|(_, score)| score.to_string()));
                record.push(String::new());
            }
            Err(error) => {
                failed += 1;
                record.extend(std::iter::repeat_n(String::new(), labels.len() + 2));
                record.push(error.message);
            }
        }
        writer.write_record(&record)?;
    }
    writer.flush()?;
    Ok(failed)
}

fn print_table<'a>(rows: impl Iterator<Item = (&'a Path, Row)>, labels: &[String]) -> io::Result<usize> {
    let header = ["image", "expression", "score"].into_iter().map(str::to_owned);
    let mut lines = table(header.chain(labels.iter().cloned()));
    if let Some(column) = lines.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Left);
    }
    let mut failures = Vec::new();
    for (path, row) in rows {
        let path = path.display().to_string();
        match row {
            Ok(prediction) => {
                let mut line = vec![path, prediction.label, format!("{:.3}", prediction.score)];
                line.extend(prediction.probabilities.iter().map(|(_, score)| format!("{score:.3}")));
                lines.add_row(line);
            }
            Err(error) => {
                lines.add_row(vec![path.clone(), "(error)".to_owned()]);
                // A message in the table would push all numbers aside.
                failures.push(format!("{path}: {}", error.message));
            }
        }
    }
    print(lines)?;
    if !failures.is_empty() {
        print("")?;
    }
    for failure in &failures {
        print(format_args!("error: {failure}"))?;
    }
    io::stdout().flush()?;
    Ok(failures.len())
}
