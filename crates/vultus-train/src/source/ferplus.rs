//! FER+: the votes of ten taggers for each image of FER-2013.
//!
//! In: `fer2013new.csv` (`Usage,Image name,neutral,...,NF`) and the readings of a FER-2013 csv file. Out: the same
//! readings with votes. The two files belong together row by row; the numbers in FER+'s image names are not row
//! numbers. Votes replace the labels only where [`relabel`] is called.

use std::path::{Path, PathBuf};

use vultus::labels::Labels;

use super::{Reading, header_hint};
use crate::dataset::{DataError, Dataset, Removal, RemovalReason, split_name};

/// What can be voted for, in the order of the votes. `NF` is "not a face".
pub const CLASSES: [&str; 10] =
    ["neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF"];

/// Place of `NF` in [`CLASSES`].
pub const NOT_A_FACE: usize = 9;

/// Number of entries of [`CLASSES`] that are expressions.
pub const EXPRESSIONS: usize = 8;

/// The entry of [`CLASSES`] that more than half of the votes are for, single votes not counted (the majority protocol of
/// Barsoum et al. 2016, "Training deep networks for facial expression recognition with crowd-sourced label distribution").
pub fn majority(votes: &[u8; 10]) -> Option<usize> {
    let counted = votes.map(|count| if count < 2 { 0 } else { u32::from(count) });
    let total: u32 = counted.iter().sum();
    counted.iter().position(|&count| 2 * count > total)
}

/// Whether the [`majority`] says that it is no face.
pub fn is_not_a_face(votes: &[u8; 10]) -> bool {
    majority(votes) == Some(NOT_A_FACE)
}

/// The data set with the classes of the FER+ majority in place of its own. Images without one, without votes, or that
/// are no face are taken out, each with a row.
///
/// # Errors
/// Not one image with votes.
pub fn relabel(dataset: Dataset) -> Result<Dataset, DataError> {
    if dataset.samples.iter().all(|sample| sample.votes.is_none()) {
        return Err(DataError::NoVotes);
    }
    let labels = Labels::sorted(&CLASSES[..EXPRESSIONS])?;
    let Dataset { labels: old, samples, mut removed } = dataset;
    let mut kept = Vec::with_capacity(samples.len());
    for mut sample in samples {
        let winner = sample.votes.as_ref().and_then(majority);
        match winner.and_then(|class| labels.index_of(CLASSES[class])) {
            Some(label) => {
                sample.label = label;
                kept.push(sample);
            }
            None => {
                let (reason, detail) = match (winner, sample.votes) {
                    (Some(NOT_A_FACE), _) => (RemovalReason::NotAFace, "most taggers say that it is no face"),
                    (Some(_), _) => (RemovalReason::NoMajority, "most taggers could not name an expression"),
                    (None, Some(_)) => (RemovalReason::NoMajority, "no expression has more than half of the votes"),
                    (None, None) => (RemovalReason::NoMajority, "there are no FER+ votes for it"),
                };
                let label = Some(old.name(sample.label).to_owned());
                removed.push(Removal {
                    origin: sample.origin,
                    split: sample.split,
                    label,
                    reason,
                    detail: detail.to_owned(),
                });
            }
        }
    }
    Ok(Dataset { labels, samples: kept, removed })
}

/// The rows of one FER+ file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VoteFile {
    path: PathBuf,
    rows: Vec<(&'static str, [u8; 10])>,
}

impl VoteFile {
    /// Reads the votes.
    ///
    /// # Errors
    /// A file that cannot be read, lacks a column, or has a row with an unknown usage or a vote that is no number from
    /// 0 to 255: the join needs every row.
    pub fn read(path: &Path) -> Result<Self, DataError> {
        let failed = |error: csv::Error| DataError::Csv { path: path.to_owned(), detail: error.to_string() };
        let file = fs_err::File::open(path)?;
        let mut reader = csv::ReaderBuilder::new().flexible(true).trim(csv::Trim::All).from_reader(file);
        let header = reader.headers().map_err(failed)?.clone();
        let position = |column: &'static str| {
            header.iter().position(|name| name.eq_ignore_ascii_case(column)).ok_or_else(|| DataError::MissingColumn {
                path: path.to_owned(),
                column,
                found: {
                    let names = header.iter().collect::<Vec<_>>().join(", ");
                    format!("{names}{}", header_hint(&names))
                },
            })
        };
        let usage_column = position("Usage")?;
        let mut vote_columns = [0; 10];
        for (column, class) in vote_columns.iter_mut().zip(CLASSES) {
            *column = position(class)?;
        }
        let mut rows = Vec::new();
        for (row, record) in reader.records().enumerate() {
            let record = record.map_err(failed)?;
            let bad = |detail: String| DataError::VoteRow { path: path.to_owned(), row, detail };
            let usage = record.get(usage_column).unwrap_or_default();
            let split = split_name::canonical(usage)
                .ok_or_else(|| bad(format!("usage `{usage}` is none of Training, PublicTest, PrivateTest")))?;
            let mut votes = [0; 10];
            for ((vote, column), class) in votes.iter_mut().zip(vote_columns).zip(CLASSES) {
                let text = record.get(column).unwrap_or_default();
                *vote = text.parse().map_err(|_| bad(format!("`{text}` is no number of votes for {class}")))?;
            }
            rows.push((split, votes));
        }
        Ok(Self { path: path.to_owned(), rows })
    }

    /// Gives each reading of `images_path` the votes of its row.
    ///
    /// # Errors
    /// Another number of rows, or a row that belongs to another split.
    pub fn join(&self, images_path: &Path, mut readings: Vec<Reading>) -> Result<Vec<Reading>, DataError> {
        if readings.len() != self.rows.len() {
            return Err(DataError::VoteCount {
                votes_path: self.path.clone(),
                votes: self.rows.len(),
                images_path: images_path.to_owned(),
                images: readings.len(),
            });
        }
        for (row, (reading, (split, votes))) in readings.iter_mut().zip(&self.rows).enumerate() {
            let image_split = match reading {
                Ok(sample) => sample.split,
                Err(removal) => removal.split.as_str(),
            };
            // A removed row may have lost its split; it has no use for votes either.
            if image_split != *split && !image_split.is_empty() {
                let detail = format!(
                    "it belongs to {split}, but the same row of {} belongs to {image_split}: the files do not match",
                    images_path.display()
                );
                return Err(DataError::VoteRow { path: self.path.clone(), row, detail });
            }
            if let Ok(sample) = reading {
                sample.votes = Some(*votes);
            }
        }
        Ok(readings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::fer_csv;
    use vultus::preprocess::Preprocessing;

    const HEADER: &str = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF\n";

    fn joined(images: &str, votes: &str) -> Result<Vec<Reading>, DataError> {
        let folder = tempfile::tempdir().unwrap();
        let (images_path, votes_path) = (folder.path().join("fer2013.csv"), folder.path().join("fer2013new.csv"));
        fs_err::write(&images_path, images).unwrap();
        fs_err::write(&votes_path, votes).unwrap();
        let readings = fer_csv::read(&images_path, &Preprocessing::default())?;
        VoteFile::read(&votes_path)?.join(&images_path, readings)
    }

    fn images() -> String {
        let face = vec!["8"; 48 * 48].join(" ");
        format!("emotion,pixels,Usage\n3,{face},Training\n3,broken,Training\n6,{face},PublicTest\n")
    }

    #[test]
    fn votes_are_joined_by_row_even_past_a_bad_row() {
        let votes = format!(
            "{HEADER}Training,fer0000000.png,4,0,0,1,3,2,0,0,0,0\nTraining,fer0000001.png,10,0,0,0,0,0,0,0,0,0\n\
             PublicTest,,0,0,0,0,0,0,0,0,0,10\n"
        );
        let readings = joined(&images(), &votes).unwrap();
        assert_eq!(readings[0].as_ref().unwrap().votes, Some([4, 0, 0, 1, 3, 2, 0, 0, 0, 0]));
        assert!(readings[1].is_err());
        assert_eq!(readings[2].as_ref().unwrap().votes.unwrap()[NOT_A_FACE], 10);
    }

    #[test]
    fn files_that_do_not_match_are_refused() {
        let row = "Training,a.png,4,0,0,1,3,2,0,0,0,0\n";
        let error = joined(&images(), &format!("{HEADER}{row}{row}")).unwrap_err().to_string();
        assert!(error.contains("has 2 rows and") && error.contains("has 3"), "{error}");
        let error = joined(&images(), &format!("{HEADER}{row}{row}{row}")).unwrap_err().to_string();
        assert!(error.contains("fer2013new.csv row 2: it belongs to train"), "{error}");
        let error = joined(&images(), "Usage,Image name,neutral\n").unwrap_err().to_string();
        assert!(error.contains("column `happiness` is missing"), "{error}");
        let error = joined(&images(), "Usage;Image name;neutral\n").unwrap_err().to_string();
        assert!(error.contains("column `Usage` is missing") && error.ends_with("not semicolons or tabs"), "{error}");
        let error = joined(&images(), &format!("{HEADER}Training,a.png,4,0\n")).unwrap_err().to_string();
        assert!(error.contains("row 0: `` is no number of votes for surprise"), "{error}");
    }

    #[test]
    fn a_majority_needs_more_than_half_of_the_votes_that_count() {
        assert_eq!(majority(&[6, 0, 0, 4, 0, 0, 0, 0, 0, 0]), Some(0));
        assert_eq!(majority(&[5, 0, 0, 5, 0, 0, 0, 0, 0, 0]), None);
        // Single votes do not count: 4 of 7 are anger.
        assert_eq!(majority(&[1, 0, 0, 3, 4, 1, 1, 0, 0, 0]), Some(4));
        assert_eq!(majority(&[0, 0, 0, 0, 0, 0, 0, 0, 1, 9]), Some(NOT_A_FACE));
        assert_eq!(majority(&[0; 10]), None);
    }

    #[test]
    fn votes_become_labels_and_the_rest_gets_rows() {
        let votes = format!(
            "{HEADER}Training,a.png,1,0,0,6,3,0,0,0,0,0\nTraining,b.png,5,5,0,0,0,0,0,0,0,0\n\
             PublicTest,c.png,0,0,0,0,0,0,0,0,0,10\n"
        );
        let face = vec!["8"; 48 * 48].join(" ");
        let images = format!("emotion,pixels,Usage\n3,{face},Training\n3,{face},Training\n6,{face},PublicTest\n");
        let readings = joined(&images, &votes).unwrap();
        let dataset = relabel(crate::source::combine(readings).unwrap()).unwrap();
        assert_eq!(dataset.labels.len(), 8);
        assert_eq!(dataset.samples.len(), 1);
        assert_eq!(dataset.labels.name(dataset.samples[0].label), "sad");
        let reasons: Vec<_> = dataset.removed.iter().map(|removal| removal.reason).collect();
        assert_eq!(reasons, [RemovalReason::NoMajority, RemovalReason::NotAFace]);
        assert_eq!(dataset.removed[0].label.as_deref(), Some("happy"));
    }

    #[test]
    fn labels_are_not_made_of_votes_that_nobody_gave() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fer2013.csv");
        fs_err::write(&path, images()).unwrap();
        let readings = fer_csv::read(&path, &Preprocessing::default()).unwrap();
        let error = relabel(crate::source::combine(readings).unwrap()).unwrap_err();
        assert!(matches!(error, DataError::NoVotes), "{error}");
    }
}
