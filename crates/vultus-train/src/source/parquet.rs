//! Parquet files with pictures.
//!
//! In: our own layout (`split`, `label`, `image` as bytes, perhaps ten `ferplus_*` columns of votes) or the image
//! layout of Hugging Face (`image` as a struct of `bytes` and `path`, `label` as a number whose name stands in the
//! file's metadata, the split in the name of the file or of its folder). Out: one reading for each row, in row order. Other columns are not
//! read. Compressions: none, snappy, gzip, zstd.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::parquet::basic::{Compression, ConvertedType, Repetition, Type as Physical};
use ::parquet::file::reader::FileReader;
use ::parquet::file::serialized_reader::SerializedFileReader;
use ::parquet::record::{Field, Row};
use ::parquet::schema::types::Type;
use rayon::prelude::*;
use serde::Deserialize;
use vultus::decode::DecodeLimits;
use vultus::picture_file::is_hidden;
use vultus::preprocess::Preprocessing;

use super::{NamedSample, Reading, face_from_bytes, ferplus};
use crate::dataset::{DataError, Removal, RemovalReason, split_name};

/// Rows that are read before their pictures are decoded in parallel, if their pictures have fewer than [`BYTES_AT_ONCE`].
const ROWS_AT_ONCE: usize = 2048;

/// Bytes of encoded pictures after which these are decoded before more are read; one picture may go beyond.
const BYTES_AT_ONCE: usize = 256 << 20;

/// Name of the column with the votes for `class` of [`ferplus::CLASSES`].
pub fn vote_column(class: &str) -> String {
    format!("ferplus_{}", class.to_ascii_lowercase())
}

/// The Parquet files inside `folder`, or else inside the folders there that are called as splits, sorted; a downloaded data set
/// is often a folder of them.
///
/// # Errors
/// A folder that cannot be listed.
pub fn files_in(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let mut files = files_directly_in(folder)?;
    if files.is_empty() {
        for entry in fs_err::read_dir(folder)? {
            let path = entry?.path();
            let is_split = split_name::canonical(&path.file_name().unwrap_or_default().to_string_lossy()).is_some();
            if is_split && path.is_dir() {
                files.extend(files_directly_in(&path)?);
            }
        }
    }
    files.sort();
    Ok(files)
}

fn files_directly_in(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let mut files = Vec::new();
    for entry in fs_err::read_dir(folder)? {
        let path = entry?.path();
        let is_table = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("parquet"));
        if is_table && !is_hidden(&path) && path.is_file() {
            files.push(path);
        }
    }
    Ok(files)
}

/// What is known about a file before its rows are read.
struct Layout {
    /// The columns that are read.
    projection: Type,
    /// Class names by number, where the metadata hold them.
    class_names: Option<Vec<String>>,
    /// The split of all rows, where there is no column for it.
    file_split: Option<&'static str>,
    /// Kinds of votes that have no column, and count as none.
    votes_absent: [bool; 10],
}

/// One row, still encoded.
#[derive(Default)]
struct EncodedRow {
    image: Option<Vec<u8>>,
    image_path: Option<String>,
    label: Option<Result<String, i64>>,
    split: Option<String>,
    votes: [Option<u8>; 10],
    /// A vote that is no count, with its column.
    odd_vote: Option<String>,
}

/// Reads all rows.
///
/// # Errors
/// A file that is no Parquet file or is damaged, lacks the `image` or `label` column or some of those of the votes, has
/// columns of another type or votes that are no counts, is compressed in a way that is not built in, has numbers for labels
/// and no names for them, or has no rows.
pub fn read(path: &Path, preprocessing: &Preprocessing, limits: &DecodeLimits) -> Result<Vec<Reading>, DataError> {
    // The parquet crate asserts some things that a damaged file can break. Its words still go to stderr: whoever silences a
    // panic silences those of all threads.
    catch_unwind(AssertUnwindSafe(|| read_rows(path, preprocessing, limits))).unwrap_or_else(|_| {
        Err(DataError::Parquet { path: path.to_owned(), detail: "damaged: its reader gave up".to_owned() })
    })
}

fn read_rows(path: &Path, preprocessing: &Preprocessing, limits: &DecodeLimits) -> Result<Vec<Reading>, DataError> {
    let failed = |detail: String| DataError::Parquet { path: path.to_owned(), detail };
    let file = fs_err::File::open(path)?.into_file();
    let reader = SerializedFileReader::new(file).map_err(|error| failed(error.to_string()))?;
    let layout = Layout::of(path, &reader)?;
    let mut rows = reader.get_row_iter(Some(layout.projection.clone())).map_err(|error| failed(error.to_string()))?;
    let mut readings: Vec<Reading> = Vec::new();
    loop {
        let first_row = readings.len();
        let (mut batch, mut bytes) = (Vec::with_capacity(ROWS_AT_ONCE), 0);
        while batch.len() < ROWS_AT_ONCE && bytes < BYTES_AT_ONCE {
            let Some(row) = rows.next() else { break };
            let place = first_row + batch.len();
            let row = EncodedRow::of(row.map_err(|error| failed(format!("damaged at row {place}: {error}")))?);
            bytes += row.image.as_ref().map_or(0, Vec::len);
            batch.push(row);
        }
        if batch.is_empty() {
            break;
        }
        if let Some((place, detail)) = (0..).zip(&batch).find_map(|(place, row)| Some((place, row.odd_vote.as_ref()?)))
        {
            return Err(failed(format!("row {}: {detail}", first_row + place)));
        }
        if layout.class_names.is_none() && batch.iter().any(|row| matches!(row.label, Some(Err(_)))) {
            return Err(failed("the labels are numbers, and the metadata do not hold their names".to_owned()));
        }
        readings.par_extend(batch.into_par_iter().enumerate().map(|(place, row)| {
            let origin = format!("{} row {}", path.display(), first_row + place);
            layout.decode_row(row, origin, preprocessing, limits)
        }));
    }
    if readings.is_empty() { Err(DataError::NoImages { path: path.to_owned() }) } else { Ok(readings) }
}

impl Layout {
    /// Looks at the schema, the metadata and the name of the file.
    fn of(path: &Path, reader: &dyn FileReader) -> Result<Self, DataError> {
        let metadata = reader.metadata();
        let root = metadata.file_metadata().schema_descr().root_schema();
        let vote_columns = ferplus::CLASSES.map(vote_column);
        let wanted = |name: &str| {
            ["image", "label", "split"].contains(&name) || vote_columns.iter().any(|column| column == name)
        };
        let fields: Vec<Arc<Type>> = root.get_fields().iter().filter(|field| wanted(field.name())).cloned().collect();
        for column in ["image", "label"] {
            if !has(&fields, column) {
                let found = root.get_fields().iter().map(|field| field.name()).collect::<Vec<_>>().join(", ");
                return Err(DataError::MissingColumn { path: path.to_owned(), column, found });
            }
        }
        let failed = |detail: String| DataError::Parquet { path: path.to_owned(), detail };
        for field in &fields {
            check_type(field).map_err(failed)?;
        }
        // Of a table of expressions alone, nobody has voted for anything else.
        let expressions = &vote_columns[..ferplus::EXPRESSIONS];
        let absent: Vec<&str> =
            expressions.iter().map(String::as_str).filter(|&column| !has(&fields, column)).collect();
        if (1..expressions.len()).contains(&absent.len()) {
            return Err(failed(format!("of the columns of FER+'s votes it lacks {}", absent.join(", "))));
        }
        let votes_absent = std::array::from_fn(|place| absent.is_empty() && !has(&fields, &vote_columns[place]));
        for group in metadata.row_groups() {
            for column in group.columns() {
                let top = column.column_path().parts().first().map_or("", String::as_str);
                let codec = column.compression();
                if wanted(top) && !is_built_in(codec) {
                    let codec = format!("{codec:?}").split('(').next().unwrap_or_default().to_lowercase();
                    return Err(DataError::Codec {
                        path: path.to_owned(),
                        column: column.column_path().string(),
                        codec,
                    });
                }
            }
        }
        let projection = Type::group_type_builder(root.name())
            .with_fields(fields)
            .build()
            .map_err(|error| failed(error.to_string()))?;
        let class_names = metadata
            .file_metadata()
            .key_value_metadata()
            .and_then(|pairs| pairs.iter().find(|pair| pair.key == "huggingface"))
            .and_then(|pair| pair.value.as_deref())
            .and_then(class_names);
        let file_split = (!has(projection.get_fields(), "split")).then(|| split_of_file(path));
        Ok(Self { projection, class_names, file_split, votes_absent })
    }

    /// Decodes one row.
    fn decode_row(
        &self,
        row: EncodedRow,
        origin: String,
        preprocessing: &Preprocessing,
        limits: &DecodeLimits,
    ) -> Reading {
        let split = self.file_split.or_else(|| split_name::canonical(row.split.as_deref()?));
        let label = match &row.label {
            Some(Ok(name)) => Ok(name.clone()),
            Some(Err(number)) => usize::try_from(*number)
                .ok()
                .and_then(|number| self.class_names.as_ref()?.get(number).cloned())
                .ok_or_else(|| format!("label {number} has no name in the metadata")),
            None => Err("the label is missing, or no whole number".to_owned()),
        };
        let removal = |label: Option<&String>, reason, detail| Removal {
            origin: origin.clone(),
            split: split.unwrap_or_default().to_owned(),
            label: label.map(|label| vultus::labels::canonical(label)),
            reason,
            detail,
        };
        let label = label.map_err(|detail| removal(None, RemovalReason::Missing, detail))?;
        let Some(split) = split else {
            let detail = match row.split {
                Some(name) => format!("split `{name}` is none of train, validation, test, public_test, private_test"),
                None => "the split is missing, or no text".to_owned(),
            };
            return Err(removal(Some(&label), RemovalReason::Unreadable, detail));
        };
        let Some(bytes) = row.image else {
            let detail = match row.image_path {
                Some(path) => format!("the row has no bytes, only the path {path}"),
                None => "the image is missing".to_owned(),
            };
            return Err(removal(Some(&label), RemovalReason::Missing, detail));
        };
        let image = face_from_bytes(&bytes, preprocessing, limits)
            .map_err(|(reason, detail)| removal(Some(&label), reason, detail))?;
        let there = |(vote, absent): (&Option<u8>, bool)| absent || vote.is_some();
        let complete = row.votes.iter().zip(self.votes_absent).all(there);
        let votes = complete.then(|| row.votes.map(Option::unwrap_or_default));
        Ok(NamedSample { image, label, split, origin, votes })
    }
}

impl EncodedRow {
    /// Takes the cells out of a row.
    fn of(row: Row) -> Self {
        let mut encoded = Self::default();
        for (name, field) in row.into_columns() {
            match name.as_str() {
                "image" => match field {
                    Field::Group(parts) => {
                        for (part, field) in parts.into_columns() {
                            match part.as_str() {
                                "bytes" => encoded.image = bytes(field),
                                "path" => encoded.image_path = text(field),
                                _ => {}
                            }
                        }
                    }
                    field => encoded.image = bytes(field),
                },
                "label" => {
                    encoded.label = match integer(&field) {
                        Some(number) => Some(Err(number)),
                        None => text(field).map(Ok),
                    }
                }
                "split" => encoded.split = text(field),
                name => {
                    if let Some(place) = ferplus::CLASSES.iter().position(|class| vote_column(class) == name) {
                        encoded.votes[place] = integer(&field).and_then(|votes| u8::try_from(votes).ok());
                        if encoded.votes[place].is_none() && !is_missing(&field) {
                            encoded.odd_vote =
                                Some(format!("{name} is {field}: votes are whole numbers from 0 to 255"));
                        }
                    }
                }
            }
        }
        encoded
    }
}

/// The parts that are read of the JSON that Hugging Face's `datasets` writes into a file's metadata.
#[derive(Deserialize)]
struct HuggingFace {
    info: HuggingFaceInfo,
}

#[derive(Deserialize)]
struct HuggingFaceInfo {
    features: serde_json::Map<String, serde_json::Value>,
}

/// Class names of the column `label` in the metadata of Hugging Face.
fn class_names(json: &str) -> Option<Vec<String>> {
    let metadata: HuggingFace = serde_json::from_str(json).ok()?;
    let names = metadata.info.features.get("label")?.get("names")?.as_array()?;
    names.iter().map(|name| name.as_str().map(str::to_owned)).collect()
}

/// The split that a file name such as `test-00000-of-00001.parquet` announces, or else the folder's, as in
/// `test/0000.parquet`; `train` if neither announces one.
fn split_of_file(path: &Path) -> &'static str {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let first = stem.split('-').next().unwrap_or_default();
    let folder = || {
        let path = std::path::absolute(path).ok()?;
        split_name::canonical(&path.parent()?.file_name()?.to_string_lossy())
    };
    split_name::canonical(first).or_else(folder).unwrap_or(split_name::TRAIN)
}

/// Whether one of `fields` has this name.
fn has(fields: &[Arc<Type>], name: &str) -> bool {
    fields.iter().any(|field| field.name() == name)
}

/// How columns of integers may be annotated.
const WHOLE_NUMBERS: [ConvertedType; 8] = [
    ConvertedType::INT_8,
    ConvertedType::INT_16,
    ConvertedType::INT_32,
    ConvertedType::INT_64,
    ConvertedType::UINT_8,
    ConvertedType::UINT_16,
    ConvertedType::UINT_32,
    ConvertedType::UINT_64,
];

/// Refuses a column whose type holds nothing of its kind, with what it would have to be. (What a split is, its rows say.)
fn check_type(field: &Type) -> Result<(), String> {
    let kind = field.is_primitive().then(|| (field.get_physical_type(), field.get_basic_info().converted_type()));
    let is_number = match kind {
        Some((Physical::FLOAT | Physical::DOUBLE, _) | (Physical::INT32 | Physical::INT64, ConvertedType::NONE)) => {
            true
        }
        Some((Physical::INT32 | Physical::INT64, converted)) => WHOLE_NUMBERS.contains(&converted),
        _ => false,
    };
    let is_text =
        matches!(kind, Some((Physical::BYTE_ARRAY, ConvertedType::UTF8 | ConvertedType::ENUM | ConvertedType::JSON)));
    let is_bytes = matches!(
        kind,
        Some((Physical::BYTE_ARRAY | Physical::FIXED_LEN_BYTE_ARRAY, ConvertedType::NONE | ConvertedType::BSON))
    );
    let info = field.get_basic_info();
    let is_list = info.has_repetition() && info.repetition() == Repetition::REPEATED;
    let (fits, needed) = match field.name() {
        "split" => (true, "text"),
        "label" => (is_number || is_text || is_bytes, "text, or numbers that the metadata name"),
        "image" => (
            is_bytes || field.is_group() && has(field.get_fields(), "bytes"),
            "the bytes of the pictures' files, or a group of `bytes` and `path`",
        ),
        _ => (is_number, "whole numbers"),
    };
    let found = match kind {
        _ if is_list => "a list".to_owned(),
        _ if fits => return Ok(()),
        Some((Physical::BYTE_ARRAY, ConvertedType::UTF8)) => "text".to_owned(),
        Some((physical, ConvertedType::NONE)) => physical.to_string(),
        Some((_, converted)) => converted.to_string(),
        None => "a group".to_owned(),
    };
    Err(format!("the column {} is of the type {found}, and has to be {needed}", field.name()))
}

/// Whether the compression is compiled in: agrees with the features of the `parquet` dependency.
fn is_built_in(codec: Compression) -> bool {
    matches!(codec, Compression::UNCOMPRESSED | Compression::SNAPPY | Compression::GZIP(_) | Compression::ZSTD(_))
}

fn bytes(field: Field) -> Option<Vec<u8>> {
    match field {
        Field::Bytes(bytes) => Some(bytes.data().to_vec()),
        _ => None,
    }
}

fn text(field: Field) -> Option<String> {
    match field {
        Field::Str(text) => Some(text),
        Field::Bytes(bytes) => String::from_utf8(bytes.data().to_vec()).ok(),
        _ => None,
    }
}

fn integer(field: &Field) -> Option<i64> {
    match *field {
        Field::Byte(number) => Some(number.into()),
        Field::Short(number) => Some(number.into()),
        Field::Int(number) => Some(number.into()),
        Field::Long(number) => Some(number),
        Field::UByte(number) => Some(number.into()),
        Field::UShort(number) => Some(number.into()),
        Field::UInt(number) => Some(number.into()),
        Field::ULong(number) => i64::try_from(number).ok(),
        // What tables make of whole numbers as soon as one is missing.
        Field::Float(number) => whole(number.into()),
        Field::Double(number) => whole(number),
        _ => None,
    }
}

/// Nothing, or what stands for it among numbers.
fn is_missing(field: &Field) -> bool {
    match field {
        Field::Null => true,
        Field::Float(number) => number.is_nan(),
        Field::Double(number) => number.is_nan(),
        _ => false,
    }
}

/// A number without a fraction that is small enough to be a label or a count.
fn whole(number: f64) -> Option<i64> {
    (number.fract() == 0.0 && number.abs() <= f64::from(i32::MAX)).then_some(number as i64)
}

#[cfg(test)]
mod tests {
    use ::parquet::data_type::{ByteArray, ByteArrayType, Int32Type};
    use ::parquet::file::writer::SerializedFileWriter;
    use ::parquet::schema::parser::parse_message_type;

    use super::*;

    fn read_all(path: &Path) -> Result<Vec<Reading>, DataError> {
        read(path, &Preprocessing::default(), &DecodeLimits::default())
    }

    /// Files written by `tests/data/make_parquet.py`.
    fn test_file(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
    }

    #[test]
    fn the_layout_of_hugging_face_is_read() {
        let readings = read_all(&test_file("test-00000-of-00001.parquet")).unwrap();
        let found: Vec<Result<(&str, &str, u8), RemovalReason>> = readings
            .iter()
            .map(|reading| match reading {
                Ok(sample) => Ok((sample.label.as_str(), sample.split, sample.image.as_raw()[0])),
                Err(removal) => Err(removal.reason),
            })
            .collect();
        let expected = [
            Ok(("angry", "test", 10)),
            Ok(("surprise", "test", 20)),
            Err(RemovalReason::Missing),
            Err(RemovalReason::Unreadable),
            Err(RemovalReason::Missing),
        ];
        assert_eq!(found, expected);
        let detail = |row: usize| readings[row].as_ref().unwrap_err().detail.as_str();
        assert_eq!(detail(2), "the row has no bytes, only the path elsewhere/c.png");
        assert_eq!(detail(4), "label -1 has no name in the metadata");
    }

    /// As Hugging Face converts data sets: `train/0000.parquet`, `test/0000.parquet`.
    #[test]
    fn the_name_of_a_folder_tells_the_split_where_no_file_does() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let bytes = fs_err::read(test_file("test-00000-of-00001.parquet")).unwrap();
        let files = ["train/0000.parquet", "train/._0000.parquet", "test/0000.parquet", "other/0000.parquet"];
        for file in files.map(at) {
            fs_err::create_dir_all(file.parent().unwrap()).unwrap();
            fs_err::write(file, &bytes).unwrap();
        }
        assert_eq!(files_in(folder.path()).unwrap(), ["test/0000.parquet", "train/0000.parquet"].map(at));
        let split = |file: &str| read_all(&at(file)).unwrap()[0].as_ref().unwrap().split;
        let found = ["train/0000.parquet", "test/0000.parquet", "other/0000.parquet"].map(split);
        assert_eq!(found, ["train", "test", "train"]);
        fs_err::rename(at("train/0000.parquet"), at("train/test.parquet")).unwrap();
        assert_eq!(split("train/test.parquet"), "test");
        fs_err::write(at("all.parquet"), &bytes).unwrap();
        assert_eq!(files_in(folder.path()).unwrap(), [at("all.parquet")]);
    }

    #[test]
    fn a_compression_that_is_not_built_in_is_named() {
        let error = read_all(&test_file("brotli.parquet")).unwrap_err().to_string();
        assert!(error.contains("is compressed with brotli, which is not built in"), "{error}");
    }

    #[test]
    fn what_is_no_parquet_or_a_broken_one_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("train-0.parquet");
        let whole = fs_err::read(test_file("test-00000-of-00001.parquet")).unwrap();
        let mut scrambled = whole.clone();
        scrambled[200..260].fill(0xA5);
        for bytes in [&b""[..], b"PAR1 but nothing more PAR1", &whole[..whole.len() / 2], &scrambled] {
            fs_err::write(&path, bytes).unwrap();
            let error = read_all(&path).unwrap_err();
            assert!(matches!(error, DataError::Parquet { .. }), "{error}");
        }
    }

    /// Writes a row for each of `splits`, which is a column of text or, with `as_numbers`, of their places.
    fn write_rows(path: &Path, splits: &[Option<&str>], as_numbers: bool) {
        let split = if as_numbers { "optional int32 split" } else { "optional binary split (STRING)" };
        let schema = format!("message faces {{ {split}; required binary label (STRING); required binary image; }}");
        let schema = Arc::new(parse_message_type(&schema).unwrap());
        let file = std::fs::File::create(path).unwrap();
        let mut writer = SerializedFileWriter::new(file, schema, Arc::default()).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let mut png = std::io::Cursor::new(Vec::new());
        image::GrayImage::new(48, 48).write_to(&mut png, image::ImageFormat::Png).unwrap();
        let bytes = |bytes: &[u8]| vec![ByteArray::from(bytes.to_vec()); splits.len()];
        let present: Vec<i16> = splits.iter().map(|split| i16::from(split.is_some())).collect();
        let mut columns = [bytes(b"happy"), bytes(png.get_ref())].into_iter();
        let mut column = group.next_column().unwrap().unwrap();
        if as_numbers {
            let numbers: Vec<i32> = (0..splits.iter().flatten().count() as i32).collect();
            column.typed::<Int32Type>().write_batch(&numbers, Some(&present), None).unwrap();
        } else {
            let texts: Vec<ByteArray> = splits.iter().flatten().map(|&text| ByteArray::from(text)).collect();
            column.typed::<ByteArrayType>().write_batch(&texts, Some(&present), None).unwrap();
        }
        column.close().unwrap();
        while let Some(mut column) = group.next_column().unwrap() {
            column.typed::<ByteArrayType>().write_batch(&columns.next().unwrap(), None, None).unwrap();
            column.close().unwrap();
        }
        group.close().unwrap();
        writer.close().unwrap();
    }

    #[test]
    fn a_row_without_its_split_is_no_training_image() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("faces.parquet");
        let split_of = |reading: &Reading| match reading {
            Ok(sample) => sample.split.to_owned(),
            Err(removal) => format!("{}: {}", removal.reason.name(), removal.detail),
        };
        let missing = "unreadable: the split is missing, or no text";
        write_rows(&path, &[Some("Training"), None, Some("test")], false);
        let splits: Vec<String> = read_all(&path).unwrap().iter().map(split_of).collect();
        assert_eq!(splits, ["train", missing, "test"]);
        write_rows(&path, &[Some("0"), Some("1")], true);
        let splits: Vec<String> = read_all(&path).unwrap().iter().map(split_of).collect();
        assert_eq!(splits, [missing, missing]);
    }

    #[test]
    fn a_column_of_another_type_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("faces.parquet");
        let message_of = |columns: &str| {
            let schema = Arc::new(parse_message_type(&format!("message faces {{ {columns} }}")).unwrap());
            let file = std::fs::File::create(&path).unwrap();
            SerializedFileWriter::new(file, schema, Arc::default()).unwrap().close().unwrap();
            read_all(&path).unwrap_err().to_string()
        };
        let (image, label) = ("required binary image;", "required binary label (STRING);");
        let votes = |kind: &str| ferplus::CLASSES.map(|class| format!("optional {kind} {};", vote_column(class)));
        for (columns, expected) in [
            (format!("{image} {label}"), "no images found"),
            (format!("{image} required double label;"), "no images found"),
            (format!("{image} {label} {}", votes("double").concat()), "no images found"),
            (format!("{image} required boolean label;"), "the column label is of the type BOOLEAN"),
            (format!("{label} required binary image (STRING);"), "the column image is of the type text"),
            (
                format!("{label} repeated group image {{ required int32 pixel; }}"),
                "the column image is of the type a list",
            ),
            (
                format!("{image} {label} {}", votes("binary").concat()),
                "the column ferplus_neutral is of the type BYTE_ARRAY",
            ),
            (format!("{image} {label} {}", votes("int32")[1..].concat()), "it lacks ferplus_neutral"),
            (format!("{image} {label} {}", votes("int32")[..8].concat()), "no images found"),
            (format!("{image} required int32 label (DATE);"), "the column label is of the type DATE"),
            (format!("{image} repeated binary label (STRING);"), "the column label is of the type a list"),
            (format!("{label} required fixed_len_byte_array(9) image;"), "no images found"),
        ] {
            let message = message_of(&columns);
            assert!(message.contains(expected) && message.contains("faces.parquet"), "{columns}: {message}");
        }
    }

    #[test]
    fn a_vote_is_a_count_in_any_type_of_number() {
        assert_eq!(whole(3.0), Some(3));
        assert_eq!([whole(2.5), whole(f64::NAN), whole(f64::INFINITY), whole(1e12)], [None; 4]);
        let votes = |last: Field| {
            let mut columns = vec![("label".to_owned(), Field::Str("happy".to_owned()))];
            columns.extend(ferplus::CLASSES.map(|class| (vote_column(class), Field::Double(1.0))));
            columns[10].1 = last;
            let row = EncodedRow::of(Row::new(columns));
            (row.votes[9], row.odd_vote)
        };
        assert_eq!(votes(Field::Double(4.0)), (Some(4), None));
        for missing in [Field::Null, Field::Double(f64::NAN), Field::Float(f32::NAN)] {
            assert_eq!(votes(missing), (None, None));
        }
        for odd in [Field::Double(0.5), Field::Int(300), Field::Int(-1)] {
            let (vote, complaint) = votes(odd);
            assert_eq!(vote, None);
            assert!(complaint.unwrap().contains("ferplus_nf is "), "named");
        }
    }

    #[test]
    fn the_file_name_tells_the_split() {
        for (name, split) in [
            ("data/test-00000-of-00001.parquet", "test"),
            ("validation.parquet", "validation"),
            ("train-00003-of-00009.parquet", "train"),
            ("faces.parquet", "train"),
        ] {
            assert_eq!(split_of_file(Path::new(name)), split, "{name}");
        }
    }

    #[test]
    fn the_real_file_is_read_whole() {
        let Some(path) = crate::dataset::fer2013() else { return };
        let readings = read_all(&path).unwrap();
        assert_eq!(readings.len(), 32_298);
        let samples: Vec<NamedSample> = readings.into_iter().map(|reading| reading.unwrap()).collect();
        assert_eq!(samples.iter().filter(|sample| sample.split == "public_test").count(), 3589);
        assert_eq!(samples.iter().filter(|sample| sample.label == "disgust").count(), 436 + 56);
        assert!(samples.iter().all(|sample| sample.votes.is_some_and(|votes| votes.iter().sum::<u8>() >= 9)));
    }
}
