//! The pictures of an evaluation worth looking at: confident mistakes and confused pairs of classes.
//!
//! In: predictions and the faces they were made for. Out: PNG files with a list of them, and back.

use std::io::{self, Cursor, Write};
use std::path::Path;

use image::{GrayImage, ImageError, ImageFormat};
use serde::{Deserialize, Serialize};
use vultus::persist::write_atomically;

use super::Predictions;
use crate::run::{read_json, refuse};

/// Most confident mistakes that are kept.
const MISTAKES: usize = 24;
/// Most confused pairs that are kept.
const PAIRS: usize = 5;
/// Pictures of each pair.
const PAIR_PICTURES: usize = 10;
/// The list of the files.
const LIST: &str = "pictures.json";
/// The folder of the files.
const FILES: &str = "pictures";

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pictures {
    /// The wrongly classified images with the highest scores.
    pub mistakes: Vec<Picture>,
    /// The pairs of classes confused most often.
    pub pairs: Vec<PicturePair>,
}

/// One classified image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Picture {
    /// Its PNG file, relative to the list.
    pub file: String,
    /// Name of the true class.
    pub truth: String,
    /// Name of the predicted class.
    pub predicted: String,
    /// Probability of the predicted class.
    pub score: f32,
    /// Path or row it came from.
    pub origin: String,
    /// The file's bytes.
    #[serde(skip)]
    pub png: Vec<u8>,
}

/// Two classes of which one is taken for the other, with examples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PicturePair {
    /// Name of the true class.
    pub truth: String,
    /// Name of the class it is taken for.
    pub predicted: String,
    /// Number of images.
    pub count: usize,
    /// The most confident ones.
    pub pictures: Vec<Picture>,
}

impl Pictures {
    /// Picks them; `face` gives the face of a row of `predictions`.
    ///
    /// # Errors
    /// A face that cannot be written as PNG.
    pub fn pick<'a>(predictions: &Predictions, face: impl Fn(usize) -> &'a GrayImage) -> Result<Self, ImageError> {
        let picture = |prefix: &str, number: usize, row: usize| -> Result<Picture, ImageError> {
            let mut png = Vec::new();
            face(row).write_to(&mut Cursor::new(&mut png), ImageFormat::Png)?;
            let entry = &predictions.rows[row];
            Ok(Picture {
                file: format!("{FILES}/{prefix}-{number:02}.png"),
                truth: predictions.labels[entry.truth].clone(),
                predicted: predictions.labels[entry.predicted].clone(),
                score: entry.score,
                origin: entry.origin.clone(),
                png,
            })
        };
        let all = |prefix: &str, rows: &[usize]| -> Result<Vec<Picture>, ImageError> {
            rows.iter().enumerate().map(|(number, &row)| picture(prefix, number + 1, row)).collect()
        };
        let pairs = predictions.most_confused_pairs(PAIRS, PAIR_PICTURES);
        Ok(Self {
            mistakes: all("mistake", &predictions.most_confident_mistakes(MISTAKES))?,
            pairs: pairs
                .iter()
                .enumerate()
                .map(|(number, pair)| {
                    Ok(PicturePair {
                        truth: predictions.labels[pair.truth].clone(),
                        predicted: predictions.labels[pair.predicted].clone(),
                        count: pair.count,
                        pictures: all(&format!("pair-{}", number + 1), &pair.examples)?,
                    })
                })
                .collect::<Result<_, ImageError>>()?,
        })
    }

    /// Writes the list and the files into the new `directory`.
    ///
    /// # Errors
    /// The system's refusal, naming the path.
    pub fn save(&self, directory: &Path) -> io::Result<()> {
        fs_err::create_dir(directory.join(FILES))?;
        for picture in self.mistakes.iter().chain(self.pairs.iter().flat_map(|pair| &pair.pictures)) {
            write_atomically(&directory.join(&picture.file), |file| file.write_all(&picture.png))?;
        }
        let list = serde_json::to_string_pretty(self)?;
        write_atomically(&directory.join(LIST), |file| writeln!(file, "{list}"))
    }

    /// Reads what [`Pictures::save`] wrote; none, where the list or the folder of the pictures was deleted.
    ///
    /// # Errors
    /// A file that is missing, damaged or outside `directory`, also by a link; the message names it.
    pub fn load(directory: &Path) -> io::Result<Self> {
        let list = directory.join(LIST);
        if !list.exists() || !directory.join(FILES).exists() {
            return Ok(Self::default());
        }
        let mut pictures: Self = read_json(&list)?;
        let inside = fs_err::canonicalize(directory)?;
        let Self { mistakes, pairs } = &mut pictures;
        for picture in mistakes.iter_mut().chain(pairs.iter_mut().flat_map(|pair| &mut pair.pictures)) {
            let path = directory.join(&picture.file);
            // Whoever made the list may not have had all files that its reader has.
            if !fs_err::canonicalize(&path)?.starts_with(&inside) {
                return refuse(&list, "file", &format!("is {:?}, which is not in its directory", picture.file));
            }
            picture.png = fs_err::read(path)?;
        }
        Ok(pictures)
    }
}
