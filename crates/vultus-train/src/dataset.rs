//! The data set every later stage works on: decoded faces with a label, a split and where they came from.
//!
//! In: samples made by the readers under [`crate::source`]. Out: one [`Dataset`] with one label order. It does not
//! read files, judge quality ([`crate::audit`]) or choose what to keep ([`crate::clean`]).

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use image::GrayImage;
use serde::{Deserialize, Serialize};
use vultus::labels::{Labels, LabelsError};

/// Names of the splits as they are written everywhere: on the command line, in files and in reports.
pub mod split_name {
    /// Training images.
    pub const TRAIN: &str = "train";
    /// The test images of a folder layout.
    pub const TEST: &str = "test";
    /// FER-2013's `PublicTest`.
    pub const PUBLIC_TEST: &str = "public_test";
    /// FER-2013's `PrivateTest`.
    pub const PRIVATE_TEST: &str = "private_test";
    /// Images that some data sets set apart for choosing between models.
    pub const VALIDATION: &str = "validation";

    /// The split that a folder, a column or a file name means: `Training`, `val`, `test_set`, `PublicTest` and the like in
    /// any case. `None` for a name that is no split.
    pub fn canonical(name: &str) -> Option<&'static str> {
        let mut letters: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        letters.make_ascii_lowercase();
        match letters.strip_suffix("set").unwrap_or(&letters) {
            "train" | "training" => Some(TRAIN),
            "validation" | "val" | "valid" | "dev" => Some(VALIDATION),
            "test" | "testing" => Some(TEST),
            "publictest" => Some(PUBLIC_TEST),
            "privatetest" => Some(PRIVATE_TEST),
            _ => None,
        }
    }

    /// Whether the split of this name, as [`canonical`] has it, tests.
    pub fn is_for_tests(split: &str) -> bool {
        [TEST, PUBLIC_TEST, PRIVATE_TEST].contains(&split)
    }

    /// [`canonical`], and any other name as it is: what to look for when somebody asks for `name`.
    pub fn meant_by(name: &str) -> &str {
        canonical(name).unwrap_or(name)
    }
}

/// Why a data set could not be read, cleaned or written.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// An empty list of sources.
    #[error("no data source given: name a folder, a .csv or .parquet file, or `synthetic`")]
    NoSource,
    /// A folder or file that is named twice, also as a part of another folder, or faces that are drawn twice.
    #[error("{later} holds images of {earlier}: they would count twice; name them once")]
    NamedTwice {
        /// The later source, as it was written.
        later: String,
        /// The earlier one.
        earlier: String,
    },
    /// Text that is no source.
    #[error("`{text}` is no data source: {detail}")]
    UnknownSource {
        /// What was given.
        text: String,
        /// What is wrong with it.
        detail: String,
    },
    /// A path that does not exist.
    #[error("{}: no such file or folder", path.display())]
    NotFound {
        /// The path given.
        path: PathBuf,
    },
    /// A source without a single image.
    #[error(
        "no images found in {}: {}", path.display(),
        if path.is_dir() {
            "expected folders of classes with .png, .jpg, .jpeg, .bmp or .webp files (a picture in the folder itself has no class), \
             such folders inside train/ and test/, or .parquet files in the folder itself"
        } else {
            "it has no rows"
        }
    )]
    NoImages {
        /// The folder or file.
        path: PathBuf,
    },
    /// A folder that can be read in two ways.
    #[error(
        "{} has both Parquet files ({}) and folders of images ({}): name the Parquet files themselves, or move them away",
        folder.display(), file.display(), image.display()
    )]
    TwoLayouts {
        /// The folder.
        folder: PathBuf,
        /// The first Parquet file.
        file: PathBuf,
        /// The first image.
        image: PathBuf,
    },
    /// Images were found, and not one is usable.
    #[error("no image of the data could be used: {removed} were refused, the first of them {origin} ({detail})")]
    NothingReadable {
        /// Number of refused images.
        removed: usize,
        /// Path or row of the first one.
        origin: String,
        /// Why it was refused.
        detail: String,
    },
    /// The operating system could not read or write; its message names the path.
    #[error(transparent)]
    Disk(#[from] std::io::Error),
    /// A csv file that cannot be read on.
    #[error("{}: {detail}", path.display())]
    Csv {
        /// The file.
        path: PathBuf,
        /// The reader's words.
        detail: String,
    },
    /// A table without a needed column.
    #[error("{}: column `{column}` is missing; the columns are: {found}", path.display())]
    MissingColumn {
        /// The file.
        path: PathBuf,
        /// The column that is needed.
        column: &'static str,
        /// The columns that are there.
        found: String,
    },
    /// A FER+ file with another number of rows than the images it is to be joined to.
    #[error(
        "{} has {votes} rows and {} has {images}: they are joined by row order, so both must be complete",
        votes_path.display(), images_path.display()
    )]
    VoteCount {
        /// The FER+ file.
        votes_path: PathBuf,
        /// Its rows.
        votes: usize,
        /// The file with the images.
        images_path: PathBuf,
        /// Its rows.
        images: usize,
    },
    /// A FER+ row that cannot be used; a join by row order cannot do without it.
    #[error("{} row {row}: {detail}", path.display())]
    VoteRow {
        /// The FER+ file.
        path: PathBuf,
        /// Row, counted from 0 without the header.
        row: usize,
        /// What is wrong.
        detail: String,
    },
    /// A Parquet file that cannot be read or written.
    #[error("{}: {detail}", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// A Parquet file in a compression that is not built in.
    #[error(
        "{}: column `{column}` is compressed with {codec}, which is not built in; \
         write the file again with zstd, snappy, gzip or no compression", path.display()
    )]
    Codec {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// Name of the compression.
        codec: String,
    },
    /// Class names that make no list.
    #[error(transparent)]
    Labels(#[from] LabelsError),
    /// A setting that cannot be followed.
    #[error("{key}: {detail}")]
    Setting {
        /// The config key.
        key: &'static str,
        /// What is wrong and what would be right.
        detail: String,
    },
    /// A class name that the data do not have.
    #[error("{key}: the data have no class \"{name}\"; the classes are: {known}")]
    UnknownClass {
        /// The config key.
        key: &'static str,
        /// The name given.
        name: String,
        /// The classes of the data.
        known: String,
    },
    /// The classes are to be those of votes that nobody gave.
    #[error(
        "the classes are to be those of the FER+ votes (data.labels is \"ferplus\"), and no image of the data has votes: \
         name fer2013.csv+fer2013new.csv, or a Parquet file with votes"
    )]
    NoVotes,
    /// Cleaning left no image.
    #[error("cleaning left no {what}: loosen the `cleaning` settings")]
    NothingLeft {
        /// What is gone.
        what: &'static str,
    },
    /// Output that would overwrite something.
    #[error("{} already exists and is not empty: name another output or remove it first", path.display())]
    OutputExists {
        /// The output.
        path: PathBuf,
    },
    /// Data that the wanted format cannot hold.
    #[error("cannot write {}: {detail}", path.display())]
    Unwritable {
        /// The output.
        path: PathBuf,
        /// What does not fit.
        detail: String,
    },
}

/// One labelled face.
#[derive(Clone, Debug)]
pub struct Sample {
    /// 8-bit grey pixels, already at the network's input size.
    pub image: GrayImage,
    /// Index into [`Dataset::labels`].
    pub label: usize,
    /// Split name, see [`split_name`].
    pub split: String,
    /// Where it came from: a path, or `file.csv row 17` (rows count from 0, header excluded).
    pub origin: String,
    /// FER+ votes in the order of [`crate::source::ferplus::CLASSES`], where known.
    pub votes: Option<[u8; 10]>,
}

/// Why an image was taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RemovalReason {
    /// The bytes are no picture, or a damaged one.
    Unreadable,
    /// The file or the cell with the bytes is missing or empty.
    Missing,
    /// Larger than the limit on pixels.
    TooLarge,
    /// It lies beside the folders of classes, in none of them.
    NoClass,
    /// Every pixel has (nearly) the same value.
    Blank,
    /// FER+'s taggers say that it is no face.
    NotAFace,
    /// FER+'s taggers do not agree on a class, or gave no votes.
    NoMajority,
    /// The same pixels stand earlier in the same split.
    Duplicate,
    /// The same pixels stand in another split; the image is one of the split that is trained on.
    Leak,
    /// The same pixels carry different labels.
    Conflict,
    /// The class was dropped by name or for lack of images.
    ClassDropped,
    /// Left out to give every class the same count.
    UnderSampled,
    /// Left out to keep only a seeded part of the data.
    Subset,
}

impl RemovalReason {
    /// Its name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::Missing => "missing",
            Self::TooLarge => "too_large",
            Self::NoClass => "no_class",
            Self::Blank => "blank",
            Self::NotAFace => "not_a_face",
            Self::NoMajority => "no_majority",
            Self::Duplicate => "duplicate",
            Self::Leak => "leak",
            Self::Conflict => "conflict",
            Self::ClassDropped => "class_dropped",
            Self::UnderSampled => "under_sampled",
            Self::Subset => "subset",
        }
    }
}

/// One row of the list of removed images: nothing disappears without one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Removal {
    /// Path or row, as in [`Sample::origin`].
    pub origin: String,
    /// Split name.
    pub split: String,
    /// Label name, where it was known.
    pub label: Option<String>,
    /// The kind of reason.
    pub reason: RemovalReason,
    /// The particulars, for people: the decoder's message, the origin of the other copy.
    pub detail: String,
}

/// Labelled faces with one label order, and the list of what was taken out on the way.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// Class names in index order (alphabetical).
    pub labels: Labels,
    /// The samples, in reading order.
    pub samples: Vec<Sample>,
    /// What was removed, in order of removal.
    pub removed: Vec<Removal>,
}

/// Width, height and values of an image.
type Pixels<'a> = (u32, u32, &'a [u8]);

impl Dataset {
    /// The place of each sample among those of its split, from 0.
    pub fn places(&self) -> Vec<usize> {
        let mut counts: HashMap<&str, usize> = HashMap::new();
        let mut places = Vec::with_capacity(self.samples.len());
        for sample in &self.samples {
            let count = counts.entry(&sample.split).or_default();
            places.push(*count);
            *count += 1;
        }
        places
    }

    /// Number of the samples at `indices` that have the pixels of one at `others`.
    pub fn copies(&self, indices: &[usize], others: &[usize]) -> usize {
        let others: HashSet<Pixels> = others.iter().map(|&index| self.pixels(index)).collect();
        indices.iter().filter(|&&index| others.contains(&self.pixels(index))).count()
    }

    /// Number of the samples at `indices` that have the pixels of an earlier one of them.
    pub fn repeats(&self, indices: &[usize]) -> usize {
        let different: HashSet<Pixels> = indices.iter().map(|&index| self.pixels(index)).collect();
        indices.len() - different.len()
    }

    fn pixels(&self, index: usize) -> Pixels<'_> {
        let image = &self.samples[index].image;
        (image.width(), image.height(), image.as_raw())
    }

    /// Indices of the samples of `split` but for those of `classes`, in canonical names, in order.
    pub fn indices_without(&self, split: &str, classes: &[String]) -> Vec<usize> {
        let mut indices = self.indices_of(split);
        indices.retain(|&index| !classes.iter().any(|class| class == self.labels.name(self.samples[index].label)));
        indices
    }

    /// Indices of the samples of `split`, in order.
    pub fn indices_of(&self, split: &str) -> Vec<usize> {
        (0..self.samples.len()).filter(|&index| self.samples[index].split == split).collect()
    }

    /// Split names present: `train` first, then the others in alphabetical order.
    pub fn splits(&self) -> Vec<String> {
        let mut names: Vec<String> = self.samples.iter().map(|sample| sample.split.clone()).collect();
        names.sort_by_key(|name| (name != split_name::TRAIN, name.clone()));
        names.dedup();
        names
    }

    /// Number of samples of each class among `indices`, in label order.
    pub fn class_counts(&self, indices: &[usize]) -> Vec<usize> {
        let mut counts = vec![0; self.labels.len()];
        for &index in indices {
            counts[self.samples[index].label] += 1;
        }
        counts
    }
}

/// The real FER-2013 for tests, in the folder that `VULTUS_DATA` names, where it must be, or beside the repository; tests
/// without it say so and pass.
#[cfg(test)]
pub(crate) fn fer2013() -> Option<PathBuf> {
    let named = std::env::var_os("VULTUS_DATA").map(PathBuf::from);
    let is_named = named.is_some();
    let beside = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data"));
    let path = named.unwrap_or_else(beside).join("fer2013.parquet");
    let found = path.is_file();
    assert!(found || !is_named, "VULTUS_DATA is set, and there is no {}", path.display());
    if !found {
        eprintln!("SKIPPED: {} is not there", path.display());
    }
    found.then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_splits_meet() {
        for (given, split) in [
            ("Training", "train"),
            ("val", "validation"),
            ("PublicTest", "public_test"),
            ("private_test", "private_test"),
            ("TEST", "test"),
            ("test_set", "test"),
            ("dev", "validation"),
        ] {
            assert_eq!(split_name::canonical(given), Some(split), "{given}");
            assert_eq!(split_name::canonical(split), Some(split));
        }
        assert_eq!(split_name::canonical("happy"), None);
        assert_eq!((split_name::meant_by("VAL"), split_name::meant_by("Happy")), ("validation", "Happy"));
    }

    #[test]
    fn train_comes_first_and_counts_follow_the_labels() {
        let sample = |label: usize, split: &str| Sample {
            image: GrayImage::new(1, 1),
            label,
            split: split.to_owned(),
            origin: String::new(),
            votes: None,
        };
        let samples = vec![sample(0, "public_test"), sample(1, "train"), sample(1, "private_test"), sample(1, "train")];
        let labels = Labels::new(["happy", "sad"]).unwrap();
        let dataset = Dataset { labels, samples, removed: Vec::new() };
        assert_eq!(dataset.splits(), ["train", "private_test", "public_test"]);
        assert_eq!(dataset.indices_of("train"), [1, 3]);
        assert_eq!(dataset.class_counts(&dataset.indices_of("train")), [0, 2]);
    }
}
