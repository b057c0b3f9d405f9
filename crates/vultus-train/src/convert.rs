//! A data set written in another form.
//!
//! In: a [`Dataset`] and the output's name, whose ending chooses the [`Form`]. Out: files that [`crate::source`] reads back to the
//! same images, labels and splits; they are complete or absent. Removed images and origins are not written, and votes
//! only to Parquet.

use std::io::{self, Cursor, Write};
use std::path::{Component, Path};
use std::sync::Arc;

use image::{GrayImage, ImageFormat};
use parquet::basic::Compression;
use parquet::column::writer::ColumnWriter;
use parquet::data_type::{ByteArray, ByteArrayType, Int32Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::ColumnPath;
use rayon::prelude::*;
use vultus::persist::{write_atomically, write_together};

use crate::dataset::{DataError, Dataset, Sample, split_name};
use crate::source::fer_csv::{EMOTIONS, SIDE_PX};
use crate::source::ferplus;
use crate::source::parquet::vote_column;

/// Rows of one Parquet row group: bounds the memory for encoded pictures.
const ROWS_AT_ONCE: usize = 4096;

/// A form that a data set may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A `.parquet` file, of our columns.
    Parquet,
    /// A `.csv` file like `fer2013.csv`.
    Csv,
    /// A folder in the Kaggle layout.
    Folder,
}

impl Form {
    /// The form that the name `out` asks for.
    ///
    /// # Errors
    /// A name with another ending, which may be a slip: a folder may have it if it is there, or if a slash is behind its name.
    pub fn of(out: &Path) -> Result<Self, DataError> {
        let Some(ending) = out.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase()) else {
            return Ok(Self::Folder);
        };
        match ending.as_str() {
            "parquet" => Ok(Self::Parquet),
            "csv" => Ok(Self::Csv),
            // A version, as in faces-1.2, is no ending.
            _ if !ending.starts_with(|c: char| c.is_ascii_alphabetic()) => Ok(Self::Folder),
            _ if out.as_os_str().as_encoded_bytes().ends_with(b"/") || out.is_dir() => Ok(Self::Folder),
            _ => {
                let folder = out.display();
                Err(unwritable(
                    out,
                    format!("a file ends in .parquet or .csv; for a folder of this name write {folder}/"),
                ))
            }
        }
    }
}

/// Writes the data set to `out`.
///
/// # Errors
/// Output that exists and is no empty folder, data that the form cannot hold, or a disk that cannot be written; in each case
/// `out` is left as it was.
pub fn convert(dataset: &Dataset, out: &Path) -> Result<(), DataError> {
    refuse_existing(out)?;
    let form = Form::of(out)?;
    for split in dataset.splits() {
        if split_name::canonical(&split) != Some(split.as_str()) {
            return Err(unwritable(out, format!("`{split}` is no split that could be read back")));
        }
    }
    match form {
        Form::Parquet => Ok(write_atomically(out, |file| write_parquet(dataset, file))?),
        Form::Csv => {
            let emotions = emotions(dataset, out)?;
            Ok(write_atomically(out, |file| write_csv(dataset, &emotions, file))?)
        }
        Form::Folder => write_folder(dataset, out),
    }
}

/// Refuses output that would overwrite something.
fn refuse_existing(out: &Path) -> Result<(), DataError> {
    let occupied = match fs_err::metadata(out) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(error.into()),
        Ok(metadata) if metadata.is_dir() => fs_err::read_dir(out)?.next().is_some(),
        Ok(_) => true,
    };
    if occupied { Err(DataError::OutputExists { path: out.to_owned() }) } else { Ok(()) }
}

fn unwritable(out: &Path, detail: String) -> DataError {
    DataError::Unwritable { path: out.to_owned(), detail }
}

/// A picture as PNG.
fn png(sample: &Sample) -> io::Result<Vec<u8>> {
    let mut bytes = Cursor::new(Vec::new());
    sample
        .image
        .write_to(&mut bytes, ImageFormat::Png)
        .map_err(|error| io::Error::other(format!("{}: {error}", sample.origin)))?;
    Ok(bytes.into_inner())
}

/// Writes `SPLIT/CLASS/imNNNNNN.png`, numbered in the order of the samples.
fn write_folder(dataset: &Dataset, out: &Path) -> Result<(), DataError> {
    for name in dataset.labels.names() {
        let mut components = Path::new(name).components();
        let is_plain = matches!((components.next(), components.next()), (Some(Component::Normal(_)), None));
        if !is_plain || name.contains(['/', '\\']) || name.starts_with('.') {
            return Err(unwritable(out, format!("class `{name}` cannot be the name of a folder")));
        }
    }
    write_together(out, |folder| {
        for split in dataset.splits() {
            // Step by step: a folder that was abandoned must not come back.
            fs_err::create_dir(folder.join(&split))?;
            for (class, name) in dataset.labels.names().iter().enumerate() {
                let of_class = |index: &usize| dataset.samples[*index].label == class;
                let members: Vec<usize> = dataset.indices_of(&split).into_iter().filter(of_class).collect();
                if members.is_empty() {
                    continue;
                }
                let class_folder = folder.join(&split).join(name);
                fs_err::create_dir(&class_folder)?;
                members.par_iter().enumerate().try_for_each(|(number, &index)| {
                    fs_err::write(class_folder.join(format!("im{number:06}.png")), png(&dataset.samples[index])?)
                })?;
            }
        }
        Ok(())
    })
}

/// The number of each class in `fer2013.csv`, if all of the data set fits into that form.
fn emotions(dataset: &Dataset, out: &Path) -> Result<Vec<String>, DataError> {
    for sample in &dataset.samples {
        let (width, height) = sample.image.dimensions();
        if (width, height) != (SIDE_PX, SIDE_PX) {
            let detail =
                format!("{} is {width} x {height} pixels, fer2013.csv holds {SIDE_PX} x {SIDE_PX}", sample.origin);
            return Err(unwritable(out, detail));
        }
    }
    let number = |name: &String| {
        let emotion = EMOTIONS.iter().position(|emotion| emotion == name).ok_or_else(|| {
            unwritable(out, format!("class `{name}` has no number in fer2013.csv; write a folder or .parquet"))
        })?;
        Ok(emotion.to_string())
    };
    dataset.labels.names().iter().map(number).collect()
}

/// Writes `emotion,pixels,Usage`; `emotions` are the numbers of the classes.
fn write_csv(dataset: &Dataset, emotions: &[String], file: &mut impl Write) -> io::Result<()> {
    let mut writer = csv::Writer::from_writer(file);
    writer.write_record(["emotion", "pixels", "Usage"])?;
    for sample in &dataset.samples {
        // The last two are not FER-2013's words; our reader knows them.
        let usage = match sample.split.as_str() {
            split_name::TRAIN => "Training",
            split_name::PUBLIC_TEST => "PublicTest",
            split_name::PRIVATE_TEST => "PrivateTest",
            split_name::VALIDATION => "Validation",
            _ => "Test",
        };
        let pixels = pixel_text(&sample.image);
        writer.write_record([emotions[sample.label].as_str(), &pixels, usage])?;
    }
    writer.flush()
}

/// Pixels as numbers between blanks.
fn pixel_text(image: &GrayImage) -> String {
    let mut text = String::with_capacity(image.len() * 4);
    for (place, pixel) in image.iter().enumerate() {
        if place > 0 {
            text.push(' ');
        }
        text.push_str(&pixel.to_string());
    }
    text
}

/// Writes `index`, `split`, `label`, `image` and, where any image has votes, the ten `ferplus_*` columns.
fn write_parquet(dataset: &Dataset, file: &mut (impl Write + Send)) -> io::Result<()> {
    let has_votes = dataset.samples.iter().any(|sample| sample.votes.is_some());
    let mut message = "message faces { required int32 index; required binary split (STRING); \
                       required binary label (STRING); required binary image;"
        .to_owned();
    if has_votes {
        for class in ferplus::CLASSES {
            message.push_str(&format!(" optional int32 {} (INTEGER(8,false));", vote_column(class)));
        }
    }
    message.push_str(" }");
    let schema = Arc::new(parse_message_type(&message)?);
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_column_dictionary_enabled(ColumnPath::from("image"), false)
        .build();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties))?;
    for (chunk, samples) in dataset.samples.chunks(ROWS_AT_ONCE).enumerate() {
        let images: Vec<ByteArray> =
            samples.par_iter().map(|sample| png(sample).map(ByteArray::from)).collect::<Result<_, _>>()?;
        let mut group = writer.next_row_group()?;
        let mut place = 0;
        while let Some(mut column) = group.next_column()? {
            match (place, column.untyped()) {
                (0, ColumnWriter::Int32ColumnWriter(_)) => {
                    let first = chunk * ROWS_AT_ONCE;
                    let values: Vec<i32> = (first..first + samples.len()).map(|index| index as i32).collect();
                    column.typed::<Int32Type>().write_batch(&values, None, None)?;
                }
                (1..=3, _) => {
                    let text = |text: &str| ByteArray::from(text);
                    let values: Vec<ByteArray> = match place {
                        1 => samples.iter().map(|sample| text(&sample.split)).collect(),
                        2 => samples.iter().map(|sample| text(dataset.labels.name(sample.label))).collect(),
                        _ => images.clone(),
                    };
                    column.typed::<ByteArrayType>().write_batch(&values, None, None)?;
                }
                _ => {
                    let votes = samples.iter().map(|sample| sample.votes.map(|votes| i32::from(votes[place - 4])));
                    let present: Vec<i16> = votes.clone().map(|vote| i16::from(vote.is_some())).collect();
                    let values: Vec<i32> = votes.flatten().collect();
                    column.typed::<Int32Type>().write_batch(&values, Some(&present), None)?;
                }
            }
            column.close()?;
            place += 1;
        }
        group.close()?;
    }
    writer.close()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{LoadOptions, Source, load};
    use image::Luma;
    use vultus::labels::Labels;
    use vultus::preprocess::Preprocessing;

    /// Twelve images of three classes in two splits, ordered as a folder reads back.
    fn dataset() -> Dataset {
        let labels = Labels::new(["angry", "happy", "neutral"]).unwrap();
        let mut samples = Vec::new();
        for split in ["train", "public_test"] {
            for number in 0..6_usize {
                let value = samples.len() as u32;
                samples.push(Sample {
                    image: GrayImage::from_fn(48, 48, |x, y| Luma([(x * 5 + y * value) as u8])),
                    label: number / 2,
                    split: split.to_owned(),
                    origin: format!("{split} {number}"),
                    votes: (number != 1).then_some([value as u8, 1, 2, 3, 4, 5, 6, 7, 8, 255]),
                });
            }
        }
        Dataset { labels, samples, removed: Vec::new() }
    }

    fn read_back(out: &Path) -> Dataset {
        let source = Source::parse(out.to_str().unwrap()).unwrap();
        load(&[source], &Preprocessing::default(), &LoadOptions::default()).unwrap()
    }

    /// What must come back: split, label name, pixels; sorted where the form has an order of its own.
    fn content(dataset: &Dataset, sorted: bool) -> Vec<(String, String, Vec<u8>)> {
        let mut content: Vec<_> = dataset
            .samples
            .iter()
            .map(|sample| {
                (sample.split.clone(), dataset.labels.name(sample.label).to_owned(), sample.image.as_raw().clone())
            })
            .collect();
        if sorted {
            content.sort();
        }
        content
    }

    #[test]
    fn every_form_reads_back_to_the_same_images() {
        let folder = tempfile::tempdir().unwrap();
        let original = dataset();
        for (name, sorted) in [("faces.parquet", false), ("faces.csv", false), ("new/folder", true)] {
            let out = folder.path().join(name);
            convert(&original, &out).unwrap();
            let again = read_back(&out);
            assert_eq!(content(&again, sorted), content(&original, sorted), "{name}");
            assert_eq!(again.labels, original.labels);
        }
        let votes = |dataset: &Dataset| dataset.samples.iter().map(|sample| sample.votes).collect::<Vec<_>>();
        assert_eq!(votes(&read_back(&folder.path().join("faces.parquet"))), votes(&original));
        let left: Vec<String> = fs_err::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .filter(|name| name.starts_with('.'))
            .collect();
        assert!(left.is_empty(), "written aside and left: {left:?}");
    }

    #[test]
    fn existing_output_is_refused_and_an_empty_folder_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("faces.csv");
        fs_err::write(&file, "mine").unwrap();
        for out in [file.as_path(), folder.path()] {
            assert!(matches!(convert(&dataset(), out), Err(DataError::OutputExists { .. })));
        }
        assert_eq!(fs_err::read_to_string(&file).unwrap(), "mine");
        let empty = folder.path().join("empty");
        fs_err::create_dir(&empty).unwrap();
        convert(&dataset(), &empty).unwrap();
        assert_eq!(read_back(&empty).samples.len(), 12);
    }

    #[test]
    fn what_a_form_cannot_hold_is_named_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut own = dataset();
        own.labels = Labels::new(["angry", "happy", "very tired"]).unwrap();
        let out = folder.path().join("own.csv");
        let message = convert(&own, &out).unwrap_err().to_string();
        assert!(message.contains("class `very_tired` has no number"), "{message}");
        own.labels = Labels::new(["angry", "happy", "../up"]).unwrap();
        assert!(matches!(convert(&own, &folder.path().join("own")), Err(DataError::Unwritable { .. })));
        let mut small = dataset();
        small.samples[3].image = GrayImage::new(20, 20);
        let message = convert(&small, &out).unwrap_err().to_string();
        assert!(message.contains("train 3 is 20 x 20 pixels"), "{message}");
        assert_eq!(fs_err::read_dir(folder.path()).unwrap().count(), 0);
    }
}
