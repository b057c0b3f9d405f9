//! The pictures of an evaluation worth looking at: confident mistakes and confused pairs of classes.
//!
//! In: predictions and the faces they were made for. Out: PNG files with a list of them, and back.

use std::collections::HashSet;
use std::io::{self, Cursor, Write};
use std::path::{Path, PathBuf};

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
                file: format!("{FILES}/{prefix}-{number:02}-{:08x}.png", crc32c::crc32c(&png)),
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

    /// Writes the list and the files into `directory`, in place of older ones. Whenever that is interrupted, the list names files
    /// that are there: those with other contents have other names, and old ones go last.
    ///
    /// # Errors
    /// The system's refusal, naming the path.
    pub fn save(&self, directory: &Path) -> io::Result<()> {
        let files = directory.join(FILES);
        fs_err::create_dir_all(&files)?;
        let pictures = || self.mistakes.iter().chain(self.pairs.iter().flat_map(|pair| &pair.pictures));
        for picture in pictures() {
            write_atomically(&directory.join(&picture.file), |file| file.write_all(&picture.png))?;
        }
        let list = serde_json::to_string_pretty(self)?;
        write_atomically(&directory.join(LIST), |file| writeln!(file, "{list}"))?;
        let listed: HashSet<PathBuf> = pictures().map(|picture| directory.join(&picture.file)).collect();
        for entry in fs_err::read_dir(&files)? {
            let path = entry?.path();
            if !listed.contains(&path) && path.is_file() {
                fs_err::remove_file(path)?;
            }
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn one(file: &str, png: &[u8]) -> Pictures {
        let (truth, predicted, origin) = ("happy".to_owned(), "sad".to_owned(), "a.png".to_owned());
        let picture =
            Picture { file: format!("{FILES}/{file}"), truth, predicted, score: 0.5, origin, png: png.to_vec() };
        Pictures { mistakes: vec![picture], pairs: Vec::new() }
    }

    #[test]
    fn new_pictures_take_the_place_of_old_ones_and_of_what_was_left_unfinished() {
        let directory = tempfile::tempdir().unwrap();
        let (old, new) = (one("old.png", b"old"), one("new.png", b"new"));
        old.save(directory.path()).unwrap();
        fs_err::write(directory.path().join(FILES).join(".writing-abc"), "half").unwrap();
        new.save(directory.path()).unwrap();
        assert_eq!(Pictures::load(directory.path()).unwrap(), new);
        let left: Vec<_> = fs_err::read_dir(directory.path().join(FILES)).unwrap().collect();
        assert_eq!(left.len(), 1);
    }

    #[test]
    fn a_list_always_names_pictures_that_are_there() {
        let directory = tempfile::tempdir().unwrap();
        one("old.png", b"old").save(directory.path()).unwrap();
        // As if the disk were full.
        fs_err::create_dir_all(directory.path().join(FILES).join("new.png/in the way")).unwrap();
        one("new.png", b"new").save(directory.path()).unwrap_err();
        assert_eq!(Pictures::load(directory.path()).unwrap(), one("old.png", b"old"));
    }
}
