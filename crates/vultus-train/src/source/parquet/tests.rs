//! Layouts, splits, votes and what is refused.

use ::parquet::data_type::{ByteArray, ByteArrayType, Int32Type};
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::parser::parse_message_type;

use super::*;

fn read_file(path: &Path) -> Result<Vec<Reading>, DataError> {
    read(path, &Preprocessing::default(), &DecodeLimits::default())
}

/// Files written by `tests/data/make_parquet.py`.
fn test_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

#[test]
fn the_layout_of_hugging_face_is_read() {
    let readings = read_file(&test_file("test-00000-of-00001.parquet")).unwrap();
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

#[test]
fn splits_in_a_column_of_another_name_are_not_all_taken_for_training() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("faces.parquet");
    write_rows_with("subset", &path, &[Some("Training"), Some("PublicTest")], false);
    let message = read_file(&path).unwrap_err().to_string();
    assert!(message.contains("its column subset holds splits, such as Training: call it split"), "{message}");
    write_rows_with("camera", &path, &[Some("phone"), Some("train")], false);
    assert!(read_file(&path).unwrap().iter().flatten().all(|sample| sample.split == "train"));
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
    let split = |file: &str| read_file(&at(file)).unwrap()[0].as_ref().unwrap().split;
    let found = ["train/0000.parquet", "test/0000.parquet", "other/0000.parquet"].map(split);
    assert_eq!(found, ["train", "test", "train"]);
    fs_err::rename(at("train/0000.parquet"), at("train/test.parquet")).unwrap();
    assert_eq!(split("train/test.parquet"), "test");
    for (name, told) in [
        ("my_test.parquet", Some("test")),
        ("fer_public_test.parquet", Some("public_test")),
        ("train_and_test.parquet", None),
        ("0000.parquet", None),
    ] {
        assert_eq!(split_told(Path::new("/data").join(name).as_path()), told, "{name}");
    }
    // What is in no split's folder is a row.
    let files = files_in(folder.path()).unwrap();
    let readings = read_all(folder.path(), &files, &Preprocessing::default(), &DecodeLimits::default()).unwrap();
    let other = readings.last().unwrap().as_ref().unwrap_err();
    assert_eq!((other.origin.as_str(), other.reason), (at("other").to_str().unwrap(), RemovalReason::NoClass));
    assert_eq!(other.detail, "it lies beside what is read, with 1 Parquet file");
    // A table of something else among images of classes is none of them.
    fs_err::create_dir_all(at("train/happy")).unwrap();
    fs_err::write(at("train/happy/1.png"), "").unwrap();
    assert!(files_in(folder.path()).unwrap().is_empty());
    fs_err::remove_dir_all(at("train/happy")).unwrap();
    // A folder that is called as a split by chance says nothing.
    fs_err::create_dir_all(at("alone/val")).unwrap();
    fs_err::write(at("alone/val/faces.parquet"), &bytes).unwrap();
    assert_eq!(split("alone/val/faces.parquet"), "train");
    fs_err::remove_dir_all(at("alone")).unwrap();
    fs_err::write(at("all.parquet"), &bytes).unwrap();
    assert_eq!(files_in(folder.path()).unwrap(), [at("all.parquet")]);
    // And no test is trained on because of a slip in its name.
    fs_err::write(at("tset-0.parquet"), &bytes).unwrap();
    fs_err::write(at("train-0.parquet"), &bytes).unwrap();
    let files = ["train-0.parquet", "tset-0.parquet"].map(at);
    let error = read_all(folder.path(), &files, &Preprocessing::default(), &DecodeLimits::default()).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("tset-0.parquet") && message.contains("its name tells none"), "{message}");
}

#[test]
fn a_compression_that_is_not_built_in_is_named() {
    let error = read_file(&test_file("brotli.parquet")).unwrap_err().to_string();
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
        let error = read_file(&path).unwrap_err();
        assert!(matches!(error, DataError::Parquet { .. }), "{error}");
    }
}

/// Writes a row for each of `splits`, which is a column of text or, with `as_numbers`, of their places.
fn write_rows(path: &Path, splits: &[Option<&str>], as_numbers: bool) {
    write_rows_with("split", path, splits, as_numbers);
}

fn write_rows_with(column: &str, path: &Path, splits: &[Option<&str>], as_numbers: bool) {
    let split =
        if as_numbers { format!("optional int32 {column}") } else { format!("optional binary {column} (STRING)") };
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
    let splits: Vec<String> = read_file(&path).unwrap().iter().map(split_of).collect();
    assert_eq!(splits, ["train", missing, "test"]);
    write_rows(&path, &[Some("0"), Some("1")], true);
    let splits: Vec<String> = read_file(&path).unwrap().iter().map(split_of).collect();
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
        read_file(&path).unwrap_err().to_string()
    };
    let (image, label) = ("required binary image;", "required binary label (STRING);");
    let votes = |kind: &str| ferplus::CLASSES.map(|class| format!("optional {kind} {};", vote_column(class)));
    for (columns, expected) in [
        (format!("{image} {label}"), "no images found"),
        (format!("{image} required double label;"), "no images found"),
        (format!("{image} {label} {}", votes("double").concat()), "no images found"),
        (format!("{image} required boolean label;"), "the column label is of the type BOOLEAN"),
        (format!("{label} required binary image (STRING);"), "the column image is of the type text"),
        (format!("{label} repeated group image {{ required int32 pixel; }}"), "the column image is of the type a list"),
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
        ("my_test.parquet", "test"),
    ] {
        assert_eq!(split_told(Path::new(name)), Some(split), "{name}");
    }
}

#[test]
fn the_real_file_is_read_whole() {
    let Some(path) = crate::dataset::fer2013() else { return };
    let readings = read_file(&path).unwrap();
    assert_eq!(readings.len(), 32_298);
    let samples: Vec<NamedSample> = readings.into_iter().map(|reading| reading.unwrap()).collect();
    assert_eq!(samples.iter().filter(|sample| sample.split == "public_test").count(), 3589);
    assert_eq!(samples.iter().filter(|sample| sample.label == "disgust").count(), 436 + 56);
    assert!(samples.iter().all(|sample| sample.votes.is_some_and(|votes| votes.iter().sum::<u8>() >= 9)));
}
