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
use vultus::picture_file::{is_hidden, name};
use vultus::preprocess::Preprocessing;
use vultus::wording::counted;

use super::{NamedSample, Reading, face_from_bytes, ferplus, folder};
use crate::dataset::{DataError, Removal, RemovalReason, split_name};

/// Rows that are read before their pictures are decoded in parallel, if their pictures have fewer than [`BYTES_AT_ONCE`].
const ROWS_AT_ONCE: usize = 2048;

/// Bytes of encoded pictures after which these are decoded before more are read; one picture may go beyond.
const BYTES_AT_ONCE: usize = 256 << 20;

/// Name of the column with the votes for `class` of [`ferplus::CLASSES`].
pub fn vote_column(class: &str) -> String {
    format!("ferplus_{}", class.to_ascii_lowercase())
}

/// The Parquet files inside `folder`, or else, where there are no images of classes, inside the folders there that are called as
/// splits, sorted; a downloaded data set is often a folder of them.
///
/// # Errors
/// A folder that cannot be listed.
pub fn files_in(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let mut files = files_directly_in(folder)?;
    if files.is_empty() && folder::first_file(folder)?.is_none() {
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

/// Reads all rows of a folder's `files`, and gives a row for each folder beside them that is not read.
///
/// # Errors
/// As [`read`]; and a file that tells no split, where others do by their names: its rows would be trained on, whatever they
/// are for.
pub fn read_all(
    folder: &Path,
    files: &[PathBuf],
    preprocessing: &Preprocessing,
    limits: &DecodeLimits,
) -> Result<Vec<Reading>, DataError> {
    let split_of = |file: &Path| {
        // Else it would not be among them.
        let parent = file.parent().filter(|parent| *parent != folder).and_then(Path::file_name);
        split_told(file).or_else(|| split_name::canonical(&parent?.to_string_lossy()))
    };
    let must_tell = files.iter().any(|file| split_of(file).is_some());
    let mut readings = Vec::new();
    for file in files {
        readings.extend(caught(file, || read_rows(file, split_of(file), must_tell, preprocessing, limits))?);
    }
    readings.extend(passed_over(folder, files)?.into_iter().map(Err));
    Ok(readings)
}

/// The folders in `folder` that have none of `files`, and Parquet files all the same or the name of a split.
fn passed_over(folder: &Path, files: &[PathBuf]) -> Result<Vec<Removal>, DataError> {
    let mut removals = Vec::new();
    for entry in fs_err::read_dir(folder)? {
        let path = entry?.path();
        if is_hidden(&path) || !path.is_dir() || files.iter().any(|file| file.starts_with(&path)) {
            continue;
        }
        let split = split_name::canonical(&path.file_name().unwrap_or_default().to_string_lossy());
        let tables = files_directly_in(&path).map_or(0, |files| files.len());
        if tables > 0 || split.is_some() {
            removals.push(Removal {
                origin: name(&path),
                split: split.unwrap_or(split_name::TRAIN).to_owned(),
                label: None,
                reason: RemovalReason::NoClass,
                detail: format!("it lies beside what is read, with {}", counted(tables, "Parquet file")),
            });
        }
    }
    removals.sort_by(|one, other| one.origin.cmp(&other.origin));
    Ok(removals)
}

/// Reads all rows.
///
/// # Errors
/// A file that is no Parquet file or is damaged, lacks the `image` or `label` column or some of those of the votes, has
/// columns of another type or votes that are no counts, has its splits in a column of another name, is compressed in a way that
/// is not built in, has numbers for labels and no names for them, or has no rows.
pub fn read(path: &Path, preprocessing: &Preprocessing, limits: &DecodeLimits) -> Result<Vec<Reading>, DataError> {
    caught(path, || read_rows(path, split_told(path), false, preprocessing, limits))
}

/// The parquet crate asserts some things that a damaged file can break. Its words still go to stderr: whoever silences a
/// panic silences those of all threads.
fn caught(path: &Path, reading: impl FnOnce() -> Result<Vec<Reading>, DataError>) -> Result<Vec<Reading>, DataError> {
    catch_unwind(AssertUnwindSafe(reading)).unwrap_or_else(|_| {
        Err(DataError::Parquet { path: path.to_owned(), detail: "damaged: its reader gave up".to_owned() })
    })
}

/// [`read`] of a file whose name, or its place, has `told` a split; without a column for it either it `must_tell` one, or need not.
fn read_rows(
    path: &Path,
    told: Option<&'static str>,
    must_tell: bool,
    preprocessing: &Preprocessing,
    limits: &DecodeLimits,
) -> Result<Vec<Reading>, DataError> {
    let failed = |detail: String| DataError::Parquet { path: path.to_owned(), detail };
    let file = fs_err::File::open(path)?.into_file();
    let reader = SerializedFileReader::new(file).map_err(|error| failed(error.to_string()))?;
    let layout = Layout::of(path, told, must_tell, &reader)?;
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
    fn of(
        path: &Path,
        told: Option<&'static str>,
        must_tell: bool,
        reader: &dyn FileReader,
    ) -> Result<Self, DataError> {
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
        let mut file_split = None;
        if !has(projection.get_fields(), "split") {
            let unknown = told.is_none();
            if let Some((column, split)) = unknown.then(|| column_of_splits(reader, &wanted)).flatten() {
                return Err(failed(format!("its column {column} holds splits, such as {split}: call it split")));
            }
            if unknown && must_tell {
                return Err(failed(
                    "it has no column split, and its name tells none, as those of others in its folder do: call it \
                     train-... or test-..., say"
                        .to_owned(),
                ));
            }
            file_split = Some(told.unwrap_or(split_name::TRAIN));
        }
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

/// The split that a file name such as `test-00000-of-00001.parquet` or `my_test.parquet` announces, or else the folder's, as in
/// `test/0000.parquet`, where there is another one beside it that is called as a split.
fn split_told(path: &Path) -> Option<&'static str> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let first = split_name::canonical(stem.split('-').next().unwrap_or_default());
    let words: Vec<&str> = stem.split(|c: char| !c.is_alphanumeric()).collect();
    // `public_test` is not `test`.
    let in_words = || {
        let mut splits = [2, 1].into_iter().map(|length| -> Vec<&str> {
            words.windows(length).filter_map(|words| split_name::canonical(&words.join("_"))).collect()
        });
        let mut splits = splits.find(|splits| !splits.is_empty())?;
        splits.dedup();
        if let [only] = splits[..] { Some(only) } else { None }
    };
    let of_folder = || {
        let path = std::path::absolute(path).ok()?;
        let is_split = |folder: &Path| split_name::canonical(&folder.file_name()?.to_string_lossy());
        let folder = path.parent()?;
        let split = is_split(folder)?;
        let mut beside = std::fs::read_dir(folder.parent()?).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
        beside.any(|other| other != folder && other.is_dir() && is_split(&other).is_some()).then_some(split)
    };
    first.or_else(in_words).or_else(of_folder)
}

/// A column of text, none of those that are `wanted`, whose first row names a split, and what that says.
fn column_of_splits(reader: &dyn FileReader, wanted: &dyn Fn(&str) -> bool) -> Option<(String, String)> {
    let root = reader.metadata().file_metadata().schema_descr().root_schema();
    let is_text = |field: &&Arc<Type>| field.is_primitive() && field.get_physical_type() == Physical::BYTE_ARRAY;
    let others = root.get_fields().iter().filter(|field| !wanted(field.name())).filter(is_text).cloned();
    let others = Type::group_type_builder(root.name()).with_fields(others.collect()).build().ok()?;
    if others.get_fields().is_empty() {
        return None;
    }
    // One that cannot be read is nobody's split.
    let row = reader.get_row_iter(Some(others)).ok()?.next()?.ok()?;
    let mut texts = row.into_columns().into_iter().filter_map(|(column, field)| Some((column, text(field)?)));
    texts.find(|(_, text)| split_name::canonical(text).is_some())
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
mod tests;
