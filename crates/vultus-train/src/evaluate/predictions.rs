//! The predictions of a split, image by image.
//!
//! In: origins, true classes and probabilities. Out: rows for a CSV file, the most confident mistakes and the most
//! confused pairs. It holds no pictures.

use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;
use vultus::classifier::highest;
use vultus::labels::Labels;
use vultus::persist::write_atomically;

use super::{EvaluationError, LEAST_PROBABILITY, check, cross_entropy, is_probability, squared_distance};

/// What was predicted for one image.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PredictionRow {
    /// Path or row the image came from.
    pub origin: String,
    /// Index of the true class.
    pub truth: usize,
    /// Index of the class with the highest probability.
    pub predicted: usize,
    /// That probability.
    pub score: f32,
    /// Probability of every class, in label order.
    pub probabilities: Vec<f32>,
}

impl PredictionRow {
    /// Cross-entropy of the true class.
    pub fn log_loss(&self) -> f64 {
        cross_entropy(self.probabilities[self.truth], LEAST_PROBABILITY)
    }

    /// Squared distance of the probabilities from the true class's 1 and all others' 0 (Brier 1950).
    pub fn brier_score(&self) -> f64 {
        squared_distance(&self.probabilities, self.truth)
    }
}

/// Two classes of which one is taken for the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfusedPair {
    /// Index of the true class.
    pub truth: usize,
    /// Index of the class it is taken for.
    pub predicted: usize,
    /// Number of images.
    pub count: usize,
    /// Indices of the most confident of these images in [`Predictions::rows`], most confident first.
    pub examples: Vec<usize>,
}

/// All predictions of one split, in the order of its images.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Predictions {
    /// Class names.
    pub labels: Vec<String>,
    /// One row an image.
    pub rows: Vec<PredictionRow>,
}

impl Predictions {
    /// Joins `origins` `[n]`, true class indices `truth` `[n]` and row-major `probabilities` `[n, classes]`.
    ///
    /// # Errors
    /// As [`Evaluation::compute`](super::Evaluation::compute), and when the number of origins differs.
    pub fn new(
        labels: &Labels,
        origins: &[String],
        truth: &[usize],
        probabilities: &[f32],
    ) -> Result<Self, EvaluationError> {
        check(labels, truth, probabilities)?;
        if origins.len() != truth.len() {
            return Err(EvaluationError::Origins { images: truth.len(), origins: origins.len() });
        }
        let join = |((origin, &truth), probabilities): ((&String, &usize), &[f32])| {
            let predicted = highest(probabilities);
            PredictionRow {
                origin: origin.clone(),
                truth,
                predicted,
                score: probabilities[predicted],
                probabilities: probabilities.to_vec(),
            }
        };
        let rows = origins.iter().zip(truth).zip(probabilities.chunks_exact(labels.len())).map(join).collect();
        Ok(Self { labels: labels.names().to_vec(), rows })
    }

    /// Writes the rows to a CSV file: `origin,truth,predicted,score`, then `probability_<label>` for every class.
    ///
    /// # Errors
    /// A failed write names the path; the file is complete or absent.
    pub fn write_csv(&self, path: &Path) -> Result<(), EvaluationError> {
        Ok(write_atomically(path, |file| self.to_csv(file).map_err(io::Error::from))?)
    }

    /// Reads what [`Predictions::write_csv`] wrote, of the classes `labels`.
    ///
    /// # Errors
    /// A file that is missing, has other columns, or a value that is none; the message names the file and the row.
    pub fn read_csv(path: &Path, labels: &[String]) -> io::Result<Self> {
        let at = |row: usize, fault: String| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{}: row {row}: {fault}", path.display()))
        };
        let mut reader = csv::Reader::from_reader(fs_err::File::open(path)?);
        let header = reader.headers().map_err(|error| at(1, error.to_string()))?;
        if header.iter().ne(header_of(labels).iter().map(String::as_str)) {
            return Err(at(1, format!("the columns are not {}", header_of(labels).join(","))));
        }
        let rows = (2..).zip(reader.records()).map(|(number, record)| {
            let record = record.map_err(|error| at(number, error.to_string()))?;
            let class = |column: usize| {
                let place = labels.iter().position(|label| *label == record[column]);
                place.ok_or_else(|| at(number, format!("{:?} is no class of the evaluation", &record[column])))
            };
            let probability = |column: usize| {
                let value = record[column].parse().ok().filter(|&value| is_probability(value));
                value.ok_or_else(|| at(number, format!("{:?} is no probability", &record[column])))
            };
            Ok(PredictionRow {
                origin: record[0].to_owned(),
                truth: class(1)?,
                predicted: class(2)?,
                score: probability(3)?,
                probabilities: (4..record.len()).map(probability).collect::<io::Result<_>>()?,
            })
        });
        Ok(Self { labels: labels.to_vec(), rows: rows.collect::<io::Result<_>>()? })
    }

    fn to_csv(&self, file: impl Write) -> Result<(), csv::Error> {
        let mut writer = csv::Writer::from_writer(file);
        writer.write_record(header_of(&self.labels))?;
        for row in &self.rows {
            let mut record = vec![
                row.origin.clone(),
                self.labels[row.truth].clone(),
                self.labels[row.predicted].clone(),
                row.score.to_string(),
            ];
            record.extend(row.probabilities.iter().map(f32::to_string));
            writer.write_record(&record)?;
        }
        Ok(writer.flush()?)
    }

    /// Indices of the wrongly classified rows with the highest scores, at most `limit`, highest first.
    pub fn most_confident_mistakes(&self, limit: usize) -> Vec<usize> {
        let wrong = (0..self.rows.len()).filter(|&row| self.rows[row].truth != self.rows[row].predicted);
        self.most_confident(wrong.collect(), limit)
    }

    /// The pairs of different true and predicted class with the most images, at most `limit` pairs with at most
    /// `examples` rows each. Pairs of equal count come in label order.
    pub fn most_confused_pairs(&self, limit: usize, examples: usize) -> Vec<ConfusedPair> {
        let classes = self.labels.len();
        let mut members = vec![Vec::new(); classes * classes];
        for (index, row) in self.rows.iter().enumerate() {
            if row.truth != row.predicted {
                members[row.truth * classes + row.predicted].push(index);
            }
        }
        let mut pairs: Vec<(usize, Vec<usize>)> =
            members.into_iter().enumerate().filter(|(_, rows)| !rows.is_empty()).collect();
        pairs.sort_by_key(|(cell, rows)| (std::cmp::Reverse(rows.len()), *cell));
        pairs.truncate(limit);
        pairs
            .into_iter()
            .map(|(cell, rows)| ConfusedPair {
                truth: cell / classes,
                predicted: cell % classes,
                count: rows.len(),
                examples: self.most_confident(rows, examples),
            })
            .collect()
    }

    fn most_confident(&self, mut rows: Vec<usize>, limit: usize) -> Vec<usize> {
        rows.sort_by(|&a, &b| self.rows[b].score.total_cmp(&self.rows[a].score).then(a.cmp(&b)));
        rows.truncate(limit);
        rows
    }
}

fn header_of(labels: &[String]) -> Vec<String> {
    let fixed = ["origin", "truth", "predicted", "score"].map(str::to_owned);
    fixed.into_iter().chain(labels.iter().map(|label| format!("probability_{label}"))).collect()
}
