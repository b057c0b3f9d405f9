//! FER-2013's csv files: `fer2013.csv` (`emotion,pixels,Usage`) and `icml_face_data.csv` (`emotion, Usage, pixels`).
//!
//! In: a csv file whose header names `emotion` and `pixels`, in any order and case, and perhaps `Usage`. Out: one
//! reading for each row, in row order, so that other files can be joined by row. Rows count from 0 without the
//! header. A row that cannot be used is a removal, never an abort.

use std::path::Path;

use csv::ByteRecord;
use image::{DynamicImage, GrayImage};
use rayon::prelude::*;
use vultus::labels::canonical;
use vultus::preprocess::Preprocessing;
use vultus::wording::counted;

use super::{NamedSample, Reading, header_hint};
use crate::dataset::{DataError, Removal, RemovalReason, split_name};

/// Class names by the number in the `emotion` column.
pub const EMOTIONS: [&str; 7] = ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"];

/// Width and height of the pictures in these files, in pixels.
pub const SIDE_PX: u32 = 48;

/// Pixels of one picture.
const PIXELS: usize = (SIDE_PX * SIDE_PX) as usize;

/// Rows that are read before their pixels are parsed in parallel: bounds the memory for text.
const ROWS_AT_ONCE: usize = 2048;

/// Where the columns stand.
struct Columns {
    emotion: usize,
    pixels: usize,
    usage: Option<usize>,
    /// Of all columns, in lower case.
    names: Vec<String>,
}

impl Columns {
    fn find(path: &Path, header: &ByteRecord) -> Result<Self, DataError> {
        let names: Vec<String> =
            header.iter().map(|name| String::from_utf8_lossy(name).trim().to_lowercase()).collect();
        let position = |column: &str| names.iter().position(|name| name == column);
        let needed = |column: &'static str| {
            position(column).ok_or_else(|| DataError::MissingColumn {
                path: path.to_owned(),
                column,
                // A file without a header has all pixels of a picture here.
                found: format!("{:.120}{}", names.join(", "), hint(&names)),
            })
        };
        Ok(Self {
            emotion: needed("emotion")?,
            pixels: needed("pixels")?,
            usage: position("usage"),
            names: names.clone(),
        })
    }

    /// Where there is no column `Usage`: another one in which a record names a split, and what that says.
    fn column_of_splits(&self, record: &ByteRecord) -> Option<(&str, String)> {
        let unknown = |&(column, _): &(usize, &[u8])| ![self.emotion, self.pixels].contains(&column);
        let mut cells = record.iter().enumerate().filter(unknown);
        let (column, cell) = cells.find(|(_, cell)| split_name::canonical(&String::from_utf8_lossy(cell)).is_some())?;
        let name = self.names.get(column)?;
        self.usage.is_none().then(|| (name.as_str(), String::from_utf8_lossy(cell).trim().to_owned()))
    }
}

/// What to say of columns that are not these.
fn hint(names: &[String]) -> &'static str {
    let lists_files = names.iter().any(|name| ["path", "file", "filename", "image"].contains(&name.as_str()));
    if lists_files {
        "; a list of files is not read: put the pictures into a folder for each class"
    } else {
        header_hint(&names.join(""))
    }
}

/// Reads all rows.
///
/// # Errors
/// A file that cannot be read, has no needed column, has its splits in a column of another name, or has no rows.
pub fn read(path: &Path, preprocessing: &Preprocessing) -> Result<Vec<Reading>, DataError> {
    let failed = |error: csv::Error| DataError::Csv { path: path.to_owned(), detail: error.to_string() };
    let file = fs_err::File::open(path)?;
    let mut reader = csv::ReaderBuilder::new().flexible(true).buffer_capacity(1 << 20).from_reader(file);
    let columns = Columns::find(path, reader.byte_headers().map_err(failed)?)?;
    let mut records = reader.into_byte_records();
    let mut readings: Vec<Reading> = Vec::new();
    loop {
        let batch: Vec<ByteRecord> = records.by_ref().take(ROWS_AT_ONCE).collect::<Result<_, _>>().map_err(failed)?;
        if batch.is_empty() {
            break;
        }
        if let Some(torn) = batch.iter().find(|record| record.iter().any(|cell| cell.contains(&b'\n'))) {
            let line = torn.position().map_or(0, csv::Position::line);
            let detail =
                format!("the row that begins in line {line} goes on over line ends: a quote in it is not closed");
            return Err(DataError::Csv { path: path.to_owned(), detail });
        }
        let first_row = readings.len();
        if let Some((column, split)) = columns.column_of_splits(&batch[0]).filter(|_| first_row == 0) {
            let detail = format!("its column {column} holds splits, such as {split}: call it Usage");
            return Err(DataError::Csv { path: path.to_owned(), detail });
        }
        readings.par_extend(batch.into_par_iter().enumerate().map(|(place, record)| {
            let origin = format!("{} row {}", path.display(), first_row + place);
            read_row(&columns, &record, origin, preprocessing)
        }));
    }
    if readings.is_empty() { Err(DataError::NoImages { path: path.to_owned() }) } else { Ok(readings) }
}

/// Reads one row.
fn read_row(columns: &Columns, record: &ByteRecord, origin: String, preprocessing: &Preprocessing) -> Reading {
    let cell = |column: usize| record.get(column).map(<[u8]>::trim_ascii);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();

    let usage = columns.usage.map_or(Some("train".as_bytes()), cell);
    let split = usage.and_then(|usage| split_name::canonical(&text(usage)));
    let label = cell(columns.emotion).and_then(|emotion| emotion_of(&text(emotion)));
    let removal = |reason, detail| Removal {
        origin: origin.clone(),
        split: split.unwrap_or_default().to_owned(),
        label: label.map(str::to_owned),
        reason,
        detail,
    };

    let (Some(emotion_cell), Some(pixels_cell), Some(usage_cell)) =
        (cell(columns.emotion), cell(columns.pixels), usage)
    else {
        return Err(removal(
            RemovalReason::Missing,
            format!("the row is short: it has {}", counted(record.len(), "column")),
        ));
    };
    let Some(label) = label else {
        let detail =
            format!("emotion `{}` is no number from 0 to 6 and none of the names of these", text(emotion_cell));
        return Err(removal(RemovalReason::Unreadable, detail));
    };
    let Some(split) = split else {
        let detail = format!("usage `{}` is none of Training, PublicTest, PrivateTest", text(usage_cell));
        return Err(removal(RemovalReason::Unreadable, detail));
    };
    if pixels_cell.is_empty() {
        return Err(removal(RemovalReason::Missing, "the pixels are missing".to_owned()));
    }
    match parse_pixels(pixels_cell) {
        Ok(image) => {
            let image = preprocessing.to_face(&DynamicImage::from(image));
            Ok(NamedSample { image, label: label.to_owned(), split, origin, votes: None })
        }
        Err(detail) => Err(removal(RemovalReason::Unreadable, detail)),
    }
}

/// The class that a cell names, by its number or, in any of its usual words, by its name.
fn emotion_of(cell: &str) -> Option<&'static str> {
    match cell.parse::<usize>() {
        Ok(number) => EMOTIONS.get(number).copied(),
        Err(_) => EMOTIONS.into_iter().find(|&emotion| emotion == canonical(cell)),
    }
}

/// Parses pixels written as numbers between blanks.
fn parse_pixels(text: &[u8]) -> Result<GrayImage, String> {
    let mut pixels = Vec::with_capacity(PIXELS);
    for word in text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()) {
        let value = std::str::from_utf8(word).ok().and_then(|word| word.parse::<u8>().ok());
        let Some(value) = value else {
            let word = String::from_utf8_lossy(word);
            return Err(format!("pixel {} is `{word:.120}`, not a number from 0 to 255", pixels.len()));
        };
        pixels.push(value);
    }
    let found = pixels.len();
    if found != PIXELS {
        return Err(format!("it has {found} pixels, not {PIXELS}"));
    }
    GrayImage::from_raw(SIDE_PX, SIDE_PX, pixels).ok_or_else(|| format!("it has {found} pixels, not {PIXELS}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pixels(count: usize, value: u32) -> String {
        vec![value.to_string(); count].join(" ")
    }

    fn read_text(text: &str) -> Result<Vec<Reading>, DataError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("faces.csv");
        fs_err::write(&path, text).unwrap();
        read(&path, &Preprocessing::default())
    }

    #[test]
    fn both_published_layouts_are_read() {
        let face = pixels(PIXELS, 17);
        for text in [
            format!("emotion,pixels,Usage\n3,{face},Training\n6,{face},PublicTest\n0,{face},PrivateTest\n"),
            format!("emotion, Usage, pixels\n3, Training, {face}\n6, PublicTest, {face}\n0, PrivateTest, {face}\n"),
            format!(
                "\u{feff}emotion,pixels,Usage\r\n3,\"{face}\",Training\r\n6,{face},PublicTest\r\n0,{face},PrivateTest"
            ),
        ] {
            let found: Vec<(String, &str)> = read_text(&text)
                .unwrap()
                .into_iter()
                .map(|reading| reading.unwrap())
                .inspect(|sample| assert_eq!(sample.image.as_raw(), &vec![17; PIXELS]))
                .map(|sample| (sample.label, sample.split))
                .collect();
            let expected = [("happy", "train"), ("neutral", "public_test"), ("angry", "private_test")];
            assert_eq!(found, expected.map(|(label, split)| (label.to_owned(), split)));
        }
    }

    #[test]
    fn emotions_may_be_named() {
        let face = pixels(PIXELS, 1);
        let rows = ["happy", "Sadness", "surprised", "6"].map(|emotion| format!("{emotion},{face}\n")).concat();
        let labels =
            read_text(&format!("emotion,pixels\n{rows}")).unwrap().into_iter().map(|sample| sample.unwrap().label);
        assert_eq!(labels.collect::<Vec<_>>(), ["happy", "sad", "surprise", "neutral"]);
    }

    #[test]
    fn a_quote_that_is_not_closed_loses_no_rows() {
        let face = pixels(PIXELS, 1);
        let row = format!("3,{face},Training\n");
        let text = format!("emotion,pixels,Usage\n{row}3,\"{face},Training\n{row}{row}");
        let message = read_text(&text).unwrap_err().to_string();
        assert!(message.contains("the row that begins in line 3 goes on over line ends"), "{message}");
    }

    #[test]
    fn without_a_usage_column_all_is_train() {
        let readings = read_text(&format!("emotion,pixels\n5,{}\n", pixels(PIXELS, 1))).unwrap();
        assert_eq!(readings[0].as_ref().unwrap().split, "train");
    }

    #[test]
    fn splits_in_a_column_of_another_name_are_not_all_taken_for_training() {
        let face = pixels(PIXELS, 1);
        let message = read_text(&format!("emotion,pixels,Ussage\n5,{face},PublicTest\n")).unwrap_err().to_string();
        assert!(message.contains("its column ussage holds splits, such as PublicTest: call it Usage"), "{message}");
        assert!(read_text(&format!("emotion,pixels,by\n5,{face},me\n")).is_ok());
    }

    #[test]
    fn bad_rows_are_removals_with_their_row() {
        let face = pixels(PIXELS, 5);
        let rows = [
            format!("3,{face},Training"),
            "3".to_owned(),
            format!("3,{},Training", pixels(PIXELS - 1, 5)),
            format!("3,{} 256,Training", pixels(PIXELS - 1, 5)),
            format!("7,{face},Training"),
            format!("moody,{face},Training"),
            format!("3,{face},Sometimes"),
            "3,,Training".to_owned(),
            format!("4,{face},Training"),
        ];
        let readings = read_text(&format!("emotion,pixels,Usage\n{}\n", rows.join("\n"))).unwrap();
        let expected = [
            None,
            Some("row is short"),
            Some("2303 pixels, not 2304"),
            Some("pixel 2303 is `256`"),
            Some("emotion `7`"),
            Some("emotion `moody`"),
            Some("usage `Sometimes`"),
            Some("pixels are missing"),
            None,
        ];
        assert_eq!(readings.len(), expected.len());
        for (row, (reading, expected)) in readings.iter().zip(expected).enumerate() {
            match (reading, expected) {
                (Ok(sample), None) => assert!(sample.origin.ends_with(&format!("faces.csv row {row}"))),
                (Err(removal), Some(words)) => {
                    assert!(removal.detail.contains(words), "row {row}: {}", removal.detail);
                    assert!(removal.origin.ends_with(&format!("faces.csv row {row}")));
                }
                _ => panic!("row {row}: {reading:?}"),
            }
        }
    }

    #[test]
    fn a_missing_column_is_named() {
        let error = read_text("feeling,pixels\n3,1 2 3\n").unwrap_err().to_string();
        assert!(error.contains("column `emotion` is missing; the columns are: feeling, pixels"), "{error}");
        let error = read_text("emotion;pixels\n3;1 2 3\n").unwrap_err().to_string();
        assert!(
            error.ends_with("the columns are: emotion;pixels; commas must separate them, not semicolons or tabs"),
            "{error}"
        );
        for (text, hint) in [
            ("path,label\na.png,happy\n", "path, label; a list of files is not read"),
            ("", "the columns are: none, as in an empty file"),
            ("\u{feff}e\0m\0o\0,\0p\0\n", "save it as UTF-8"),
        ] {
            let error = read_text(text).unwrap_err().to_string();
            assert!(error.contains(hint), "{error}");
        }
        assert!(matches!(read_text("emotion,pixels\n"), Err(DataError::NoImages { .. })));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn random_rows_never_panic(rows in proptest::collection::vec("[0-9, \"\n\r\\PC]{0,60}", 0..8)) {
            let _ = read_text(&format!("emotion,pixels,Usage\n{}", rows.join("\n")));
        }
    }
}
