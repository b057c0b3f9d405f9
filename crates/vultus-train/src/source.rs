//! Data sets from where people keep them: folders, FER-2013's csv files, Parquet, FER+ votes, drawn faces.
//!
//! In: [`Source`]s as written on the command line, the [`Preprocessing`] of the network. Out: one [`Dataset`] in a
//! fixed order, with a row for every image that could not be used. It does not judge or drop readable images: see
//! [`crate::audit`] and [`crate::clean`].

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::path::{Component, Path, PathBuf};

use image::{DynamicImage, GrayImage};
use vultus::decode::{DecodeError, DecodeLimits, decode};
use vultus::labels::{Labels, canonical};
use vultus::persist::is_there;
use vultus::preprocess::Preprocessing;

use crate::config::DataConfig;
use crate::dataset::{DataError, Dataset, Removal, RemovalReason, Sample};

pub mod fer_csv;
pub mod ferplus;
pub mod folder;
pub mod parquet;
pub mod synthetic;

use synthetic::{MOST_PER_CLASS, SyntheticConfig};

/// One place that images come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Faces drawn by the program, with the number of training images a class where it was given.
    Synthetic {
        /// Training images a class; a fifth of it (at least 1) are drawn for the test split.
        per_class: Option<usize>,
    },
    /// A folder of images, or one of Parquet files.
    Folder(PathBuf),
    /// `fer2013.csv` or `icml_face_data.csv`.
    FerCsv(PathBuf),
    /// A FER-2013 csv file with the votes of FER+ joined to it by row order.
    FerPlus {
        /// The file with the pixels.
        images: PathBuf,
        /// `fer2013new.csv`.
        votes: PathBuf,
    },
    /// A Parquet file.
    Parquet(PathBuf),
}

impl Source {
    /// Reads a source as written on the command line: `synthetic`, `synthetic:PER_CLASS`, a folder, a `.csv` file, a
    /// `.parquet` file, or `IMAGES.csv+VOTES.csv` for FER-2013 with FER+ votes. Nothing is opened; a path that is a
    /// folder counts as one whatever it is called, but for `synthetic`, which always means drawn faces: a folder of that
    /// name is `./synthetic`.
    ///
    /// # Errors
    /// Empty text, a count that is no number, or a file of another kind.
    pub fn parse(text: &str) -> Result<Self, DataError> {
        let unknown = |detail: &str| DataError::UnknownSource { text: text.to_owned(), detail: detail.to_owned() };
        if text == "synthetic" {
            return Ok(Self::Synthetic { per_class: None });
        }
        if let Some(count) = text.strip_prefix("synthetic:") {
            return match count.parse() {
                Ok(per_class) if (1..=MOST_PER_CLASS).contains(&per_class) => {
                    Ok(Self::Synthetic { per_class: Some(per_class) })
                }
                _ => Err(unknown(&format!(
                    "after `synthetic:` comes the number of training images a class, 1 to {MOST_PER_CLASS}"
                ))),
            };
        }
        if text.trim().is_empty() {
            return Err(unknown("it is empty"));
        }
        let path = PathBuf::from(text);
        if path.is_dir() {
            return Ok(Self::Folder(path));
        }
        let lower = text.to_ascii_lowercase();
        if let Some(place) = lower.find(".csv+").filter(|_| lower.ends_with(".csv")) {
            let (images, votes) = (&text[..place + 4], &text[place + 5..]);
            return Ok(Self::FerPlus { images: PathBuf::from(images), votes: PathBuf::from(votes) });
        }
        match path.extension().map(|extension| extension.to_ascii_lowercase()) {
            Some(extension) if extension == "csv" => Ok(Self::FerCsv(path)),
            Some(extension) if extension == "parquet" => Ok(Self::Parquet(path)),
            _ if path.is_file() => Err(unknown("a file must be a .csv or .parquet file; images are named by folder")),
            _ => Ok(Self::Folder(path)),
        }
    }

    /// The same source, named such that it means the same in every folder.
    #[must_use]
    pub fn absolute(self) -> Self {
        // Without a separator at its end, or it would be another.
        self.with_paths(|path| std::path::absolute(&path).unwrap_or(path).components().collect())
    }

    /// What it is called where its place is nobody's business: the last name of each path.
    pub fn name(&self) -> String {
        self.clone().with_paths(|path| last_names(&path, 1).into()).to_string()
    }

    /// Whether `path`, which need not be there, lies in this folder of images, and would be read with them.
    pub fn holds(&self, path: &Path) -> bool {
        let (Self::Folder(_), Some(place), Ok(path)) = (self, self.place(), std::path::absolute(path)) else {
            return false;
        };
        let there = path.ancestors().find_map(|folder| fs_err::canonicalize(folder).ok());
        // Links in it are followed when it is read.
        let by_link =
            || path.ancestors().skip(1).any(|folder| fs_err::canonicalize(folder).is_ok_and(|it| it == place));
        there.is_some_and(|there| there.starts_with(&place)) || by_link()
    }

    /// Whether a folder of images with this one in it would have other images, or other ones that are left out.
    pub fn would_read(&self, path: &Path) -> bool {
        self.holds(path)
            && !matches!((self, self.place()), (Self::Folder(_), Some(root)) if folder::lies_beside_splits(&root, path))
    }

    /// The folder, where it is one of images.
    fn image_folder(&self) -> Option<&Path> {
        match self {
            Self::Folder(path) if parquet::files_in(path).is_ok_and(|files| files.is_empty()) => Some(path),
            _ => None,
        }
    }

    /// Where its images are, links followed; nowhere if they are drawn.
    fn place(&self) -> Option<PathBuf> {
        let path = match self {
            Self::Synthetic { .. } => return None,
            Self::Folder(path) | Self::FerCsv(path) | Self::Parquet(path) | Self::FerPlus { images: path, .. } => path,
        };
        Some(fs_err::canonicalize(path).unwrap_or_else(|_| path.clone()))
    }

    fn with_paths(self, change: impl Fn(PathBuf) -> PathBuf) -> Self {
        match self {
            Self::Synthetic { per_class } => Self::Synthetic { per_class },
            Self::Folder(path) => Self::Folder(change(path)),
            Self::FerCsv(path) => Self::FerCsv(change(path)),
            Self::FerPlus { images, votes } => Self::FerPlus { images: change(images), votes: change(votes) },
            Self::Parquet(path) => Self::Parquet(change(path)),
        }
    }
}

/// The last `count` names of a path, which may be given away. Links are not followed.
pub fn last_names(path: &Path, count: usize) -> String {
    let mut names = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => names.push(name.to_string_lossy()),
            Component::ParentDir => drop(names.pop()),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    names[names.len().saturating_sub(count)..].join("/")
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Synthetic { per_class: None } => formatter.write_str("synthetic"),
            Self::Synthetic { per_class: Some(count) } => write!(formatter, "synthetic:{count}"),
            Self::Folder(path) | Self::FerCsv(path) | Self::Parquet(path) => path.display().fmt(formatter),
            Self::FerPlus { images, votes } => write!(formatter, "{}+{}", images.display(), votes.display()),
        }
    }
}

/// Settings of reading that are not preprocessing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoadOptions {
    /// How large a picture may be.
    pub limits: DecodeLimits,
    /// How faces are drawn for `synthetic`; a count given in the source itself goes before these.
    pub synthetic: SyntheticConfig,
}

impl LoadOptions {
    /// Those of a configuration.
    pub fn of(data: &DataConfig) -> Self {
        Self { synthetic: data.synthetic.clone(), ..Self::default() }
    }
}

/// A face whose class is still a name: what the readers give.
#[derive(Clone, Debug)]
pub struct NamedSample {
    /// 8-bit grey pixels at the network's input size.
    pub image: GrayImage,
    /// Class name as the source spells it.
    pub label: String,
    /// Split name, see [`crate::dataset::split_name`].
    pub split: &'static str,
    /// Path or row.
    pub origin: String,
    /// FER+ votes in the order of [`ferplus::CLASSES`], where known.
    pub votes: Option<[u8; 10]>,
}

/// What to add to the columns of a csv file in which one is missing, if it is no text with commas.
pub(crate) fn header_hint(columns: &str) -> &'static str {
    if columns.trim().is_empty() {
        "none, as in an empty file"
    } else if columns.contains('\0') {
        "; it looks like UTF-16: save it as UTF-8"
    } else if columns.contains([';', '\t']) {
        "; commas must separate them, not semicolons or tabs"
    } else {
        ""
    }
}

/// What became of one image of a source.
pub type Reading = Result<NamedSample, Removal>;

/// The names of the classes that a folder of images among `sources` has a folder for, and no image of `dataset`.
pub fn empty_classes(sources: &[Source], dataset: &Dataset) -> BTreeSet<String> {
    let empty = sources.iter().filter_map(Source::image_folder).flat_map(folder::empty_classes);
    empty.filter(|class| dataset.labels.index_of(class).is_none()).collect()
}

/// Of each folder of images among `sources`, the folders in it that are taken for classes and seem to hold those; see
/// [`folder::folders_of_classes`].
pub fn folders_of_classes(sources: &[Source]) -> impl Iterator<Item = Vec<String>> {
    let folders = sources.iter().filter_map(Source::image_folder).map(folder::folders_of_classes);
    folders.filter(|folders| !folders.is_empty())
}

/// Reads and combines `sources`. Labels are the canonical names of all classes with a usable image, in alphabetical
/// order; samples stand in the order of the sources, and within one in the order of its rows or sorted paths.
///
/// # Errors
/// A path that does not exist, a folder or file that is named twice, also as a part of another folder, a source without images, a table without the needed columns, or not one usable image.
/// A bad image is no error: it becomes a row of [`Dataset::removed`].
pub fn load(sources: &[Source], preprocessing: &Preprocessing, options: &LoadOptions) -> Result<Dataset, DataError> {
    if sources.is_empty() {
        return Err(DataError::NoSource);
    }
    preprocessing.validate().map_err(|error| DataError::Setting { key: "preprocessing", detail: error.to_string() })?;
    let places: Vec<_> = sources.iter().map(Source::place).collect();
    for (number, place) in places.iter().enumerate() {
        if let Some(earlier) = places[..number].iter().position(|earlier| earlier == place) {
            return Err(named_twice(&sources[earlier], &sources[number]));
        }
    }
    let readings =
        sources.iter().map(|source| read(source, preprocessing, options)).collect::<Result<Vec<Vec<Reading>>, _>>()?;
    if let Some((earlier, later)) = read_twice(sources, &readings) {
        return Err(named_twice(&sources[earlier], &sources[later]));
    }
    combine(readings.into_iter().flatten().collect())
}

fn named_twice(earlier: &Source, later: &Source) -> DataError {
    DataError::NamedTwice { earlier: earlier.to_string(), later: later.to_string() }
}

/// The first two sources that have read one file both: folders may lie in each other, also by links.
fn read_twice(sources: &[Source], readings: &[Vec<Reading>]) -> Option<(usize, usize)> {
    if sources.len() < 2 {
        return None;
    }
    let mut first = HashMap::new();
    for (number, (source, readings)) in sources.iter().zip(readings).enumerate() {
        for file in files_of(source, readings) {
            let Ok(place) = fs_err::canonicalize(file) else { continue };
            // Within one source, links may well lead to one file from two classes.
            match *first.entry(place).or_insert(number) {
                earlier if earlier != number => return Some((earlier, number)),
                _ => {}
            }
        }
    }
    None
}

/// The files whose images a folder or a Parquet file has given, as `readings`.
fn files_of(source: &Source, readings: &[Reading]) -> Vec<PathBuf> {
    match source {
        Source::Parquet(path) => vec![path.clone()],
        Source::Folder(folder) => match parquet::files_in(folder) {
            Ok(tables) if !tables.is_empty() => tables,
            _ => readings.iter().flatten().map(|sample| PathBuf::from(&sample.origin)).collect(),
        },
        _ => Vec::new(),
    }
}

/// Reads one source.
fn read(source: &Source, preprocessing: &Preprocessing, options: &LoadOptions) -> Result<Vec<Reading>, DataError> {
    match source {
        Source::Synthetic { per_class } => draw(*per_class, preprocessing, options),
        Source::Folder(path) => read_folder(existing(path)?, preprocessing, &options.limits),
        Source::FerCsv(path) => fer_csv::read(existing(path)?, preprocessing),
        Source::FerPlus { images, votes } => {
            let votes = ferplus::VoteFile::read(existing(votes)?)?;
            votes.join(existing(images)?, fer_csv::read(images, preprocessing)?)
        }
        Source::Parquet(path) => parquet::read(existing(path)?, preprocessing, &options.limits),
    }
}

/// Reads a folder of images, or one of Parquet files. One with both is refused: what is passed over would not be missed.
fn read_folder(path: &Path, preprocessing: &Preprocessing, limits: &DecodeLimits) -> Result<Vec<Reading>, DataError> {
    let files = parquet::files_in(path)?;
    let Some(file) = files.first() else { return folder::read(path, preprocessing, limits) };
    if let Some(image) = folder::first_file(path)? {
        return Err(DataError::TwoLayouts { folder: path.to_owned(), file: file.clone(), image });
    }
    parquet::read_all(path, &files, preprocessing, limits)
}

/// The path, if something is there.
fn existing(path: &Path) -> Result<&Path, DataError> {
    if is_there(path)? { Ok(path) } else { Err(DataError::NotFound { path: path.to_owned() }) }
}

/// Draws the synthetic faces.
fn draw(
    per_class: Option<usize>,
    preprocessing: &Preprocessing,
    options: &LoadOptions,
) -> Result<Vec<Reading>, DataError> {
    let mut config = options.synthetic.clone();
    if let Some(count) = per_class {
        config.train_per_class = count;
        config.test_per_class = (count / 5).max(1);
    }
    config.validate()?;
    let size_px = preprocessing.width.max(preprocessing.height);
    let faces = synthetic::generate(&config, size_px);
    Ok(faces
        .into_iter()
        .map(|face| {
            Ok(NamedSample {
                origin: format!("synthetic {} {} {}", face.split, face.class, face.index),
                image: preprocessing.to_face(&DynamicImage::from(face.image)),
                label: face.class.to_owned(),
                split: face.split,
                votes: None,
            })
        })
        .collect())
}

/// Whether it can be the name of a class.
fn is_class_name(name: &str) -> bool {
    let name = canonical(name);
    !name.is_empty() && !name.contains(char::is_control)
}

/// Gives every class its index and parts the samples from the removals.
pub(crate) fn combine(readings: Vec<Reading>) -> Result<Dataset, DataError> {
    let mut named = Vec::with_capacity(readings.len());
    let mut removed = Vec::new();
    for reading in readings {
        match reading {
            Ok(sample) if !is_class_name(&sample.label) => removed.push(Removal {
                detail: format!("its class name {:?} is blank, or has a control character", sample.label),
                origin: sample.origin,
                split: sample.split.to_owned(),
                label: None,
                reason: RemovalReason::Missing,
            }),
            Ok(sample) => named.push(sample),
            Err(removal) => removed.push(removal),
        }
    }
    if named.is_empty() {
        let (origin, detail) = removed
            .first()
            .map_or((String::new(), String::new()), |first: &Removal| (first.origin.clone(), first.detail.clone()));
        return Err(DataError::NothingReadable { removed: removed.len(), origin, detail });
    }
    // Few spellings, many samples: each spelling is looked up once.
    let mut spellings: Vec<&str> = named.iter().map(|sample| sample.label.as_str()).collect();
    spellings.sort_unstable();
    spellings.dedup();
    let labels = Labels::sorted(&spellings)?;
    let indices: HashMap<String, usize> =
        spellings.iter().filter_map(|spelling| Some(((*spelling).to_owned(), labels.index_of(spelling)?))).collect();
    let samples = named
        .into_iter()
        .filter_map(|sample| {
            Some(Sample {
                label: *indices.get(&sample.label)?,
                image: sample.image,
                split: sample.split.to_owned(),
                origin: sample.origin,
                votes: sample.votes,
            })
        })
        .collect();
    Ok(Dataset { labels, samples, removed })
}

/// Bytes of a picture file to a face, or why not.
fn face_from_bytes(
    bytes: &[u8],
    preprocessing: &Preprocessing,
    limits: &DecodeLimits,
) -> Result<GrayImage, (RemovalReason, String)> {
    match decode(bytes, limits) {
        Ok(picture) => Ok(preprocessing.to_face(&picture)),
        Err(error) => {
            let reason = match error {
                DecodeError::Empty => RemovalReason::Missing,
                DecodeError::TooLarge { .. } => RemovalReason::TooLarge,
                DecodeError::NotAnImage
                | DecodeError::OtherFormat { .. }
                | DecodeError::Film
                | DecodeError::Damaged { .. } => RemovalReason::Unreadable,
            };
            Err((reason, error.to_string()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::split_name::{TEST, TRAIN};

    fn named(label: &str, origin: &str) -> Reading {
        let image = GrayImage::new(48, 48);
        Ok(NamedSample { image, label: label.to_owned(), split: TRAIN, origin: origin.to_owned(), votes: None })
    }

    #[test]
    fn sources_are_told_apart() {
        let parsed = |text: &str| Source::parse(text).unwrap();
        assert_eq!(parsed("synthetic"), Source::Synthetic { per_class: None });
        assert_eq!(parsed("synthetic:12"), Source::Synthetic { per_class: Some(12) });
        assert_eq!(parsed("a/fer2013.csv"), Source::FerCsv("a/fer2013.csv".into()));
        assert_eq!(parsed("X.PARQUET"), Source::Parquet("X.PARQUET".into()));
        assert_eq!(parsed("some/folder"), Source::Folder("some/folder".into()));
        let joined = Source::FerPlus { images: "a+b/fer2013.csv".into(), votes: "fer2013new.csv".into() };
        assert_eq!(parsed("a+b/fer2013.csv+fer2013new.csv"), joined);
        for text in ["synthetic", "synthetic:12", "a.csv+b.csv", "faces"] {
            assert_eq!(parsed(text).to_string(), text);
        }
        for bad in ["synthetic:many", "synthetic:0", " "] {
            assert!(matches!(Source::parse(bad), Err(DataError::UnknownSource { .. })), "{bad}");
        }
    }

    #[test]
    fn an_absolute_source_is_the_same_one_in_every_folder() {
        let here = std::env::current_dir().unwrap();
        let text = |name: &str| here.join(name).display().to_string();
        for (given, absolute) in [
            ("synthetic", "synthetic".to_owned()),
            ("synthetic:12", "synthetic:12".to_owned()),
            ("./synthetic", text("synthetic")),
            ("faces", text("faces")),
            ("X.PARQUET", text("X.PARQUET")),
            ("A.CSV+b/B.csv", format!("{}+{}", text("A.CSV"), text("b/B.csv"))),
        ] {
            let source = Source::parse(given).unwrap().absolute();
            assert_eq!(source.to_string(), absolute);
            assert_eq!(Source::parse(&absolute).unwrap(), source);
        }
    }

    #[test]
    fn names_tell_of_no_place() {
        for (text, name) in [
            ("synthetic:12", "synthetic:12"),
            ("/data/faces/", "faces"),
            ("/data/faces/..", "data"),
            ("/data/x.parquet", "x.parquet"),
            ("/data/fer2013.csv+/else/where/fer2013new.csv", "fer2013.csv+fer2013new.csv"),
        ] {
            assert_eq!(Source::parse(text).unwrap().name(), name);
        }
        for (path, names) in [
            ("/home/me/runs/fer-large/model.safetensors", "fer-large/model.safetensors"),
            ("/model.safetensors", "model.safetensors"),
            ("", ""),
        ] {
            assert_eq!(last_names(Path::new(path), 2), names);
        }
    }

    #[test]
    fn a_missing_path_is_named() {
        for text in ["nowhere/at/all", "nowhere.csv", "nowhere.parquet", "nowhere.csv+new.csv"] {
            let source = Source::parse(text).unwrap();
            let error = load(&[source], &Preprocessing::default(), &LoadOptions::default()).unwrap_err().to_string();
            assert!(error.ends_with("no such file or folder"), "{error}");
        }
    }

    #[test]
    fn the_same_images_are_not_read_twice() {
        for (earlier, later) in [
            ("synthetic:5", "synthetic:6"),
            ("nowhere", "nowhere/"),
            ("nowhere.csv", "nowhere.csv+new.csv"),
            ("./src", "src/../src"),
        ] {
            let sources = [earlier, later].map(|text| Source::parse(text).unwrap());
            let error = load(&sources, &Preprocessing::default(), &LoadOptions::default()).unwrap_err();
            assert!(matches!(&error, DataError::NamedTwice { .. }), "{error}");
            assert!(error.to_string().starts_with(&format!("{later} holds images of {earlier}:")), "{error}");
        }
    }

    #[test]
    fn a_part_of_a_folder_is_not_read_twice() {
        let folder = tempfile::tempdir().unwrap();
        for (place, value) in [("train/happy/a.png", 1), ("train/sad/b.png", 2), ("more/happy/c.png", 3)] {
            let path = folder.path().join(place);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            GrayImage::from_pixel(48, 48, image::Luma([value])).save(path).unwrap();
        }
        let whole = folder.path().display().to_string();
        let part = |name: &str| Source::parse(&format!("{whole}/{name}")).unwrap();
        let read = |sources: &[Source]| load(sources, &Preprocessing::default(), &LoadOptions::default());
        let outer = || Source::parse(&whole).unwrap();
        let refusal = |sources: &[Source]| read(sources).unwrap_err().to_string();
        let message = |later: &str, earlier: &str| format!("{later} holds images of {earlier}: they would count twice");
        let train = format!("{whole}/train");
        assert!(refusal(&[outer(), part("train")]).starts_with(&message(&train, &whole)));
        assert!(refusal(&[part("train"), outer()]).starts_with(&message(&whole, &train)));
        #[cfg(unix)]
        {
            let linked = tempfile::tempdir().unwrap();
            std::os::unix::fs::symlink(&train, linked.path().join("train")).unwrap();
            let link = linked.path().display().to_string();
            assert!(refusal(&[Source::parse(&link).unwrap(), part("train")]).starts_with(&message(&train, &link)));
        }
        // It lies beside the splits, and is not read with them.
        assert_eq!(read(&[outer(), part("more")]).unwrap().samples.len(), 3);
    }

    #[test]
    fn spellings_of_two_sources_become_one_class() {
        let dataset =
            combine(vec![named("Surprised", "a"), named("disgust", "b"), named("Disgusted", "c"), named(" ", "d")])
                .unwrap();
        assert_eq!(dataset.labels.names(), ["disgust", "surprise"]);
        assert_eq!(dataset.samples.iter().map(|sample| sample.label).collect::<Vec<_>>(), [1, 0, 0]);
        assert_eq!(dataset.removed.len(), 1);
        assert_eq!(dataset.removed[0].origin, "d");
    }

    #[test]
    fn synthetic_faces_need_no_files() {
        let sources = [Source::parse("synthetic:5").unwrap()];
        let dataset = load(&sources, &Preprocessing::default(), &LoadOptions::default()).unwrap();
        assert_eq!(dataset.labels.names(), vultus::labels::BASIC_EXPRESSIONS);
        assert_eq!(dataset.class_counts(&dataset.indices_of(TRAIN)), [5; 7]);
        assert_eq!(dataset.class_counts(&dataset.indices_of(TEST)), [1; 7]);
        assert_eq!(dataset.samples[0].image.dimensions(), (48, 48));
    }
}
