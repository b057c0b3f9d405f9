//! `vultus predict`: inputs, forms, going on, drawings.

use serde_json::Value;

use crate::picture::{bad_pictures, png};
use crate::program::{Outcome, Place, VULTUS, lines_of};

/// A place with a trained run, two good pictures and all bad ones between them.
fn place_with_pictures() -> (Place, Vec<&'static str>) {
    let place = Place::with_config();
    place.train("run", &[]);
    place.write("first.png", png(1, 48));
    place.write("last.png", png(2, 90));
    let bad = bad_pictures();
    let mut names = vec!["first.png"];
    for (name, bytes, _) in bad {
        place.write(name, bytes);
        names.push(name);
    }
    names.extend(["absent.png", "last.png"]);
    (place, names)
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn paths(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| row["path"].as_str().unwrap()).collect()
}

#[test]
fn drawings_are_made_when_nobody_reads_the_rows() {
    let place = Place::with_config();
    // More than are at work when the first row finds no reader.
    for number in 0..60 {
        place.write(&format!("faces/{number}.png"), png(number, 48));
    }
    place.write("faces/empty.png", "");
    let arguments = ["predict", "faces", "--faces", "whole"];
    for (number, format) in ["json", "table"].into_iter().enumerate() {
        let drawn = format!("drawn{number}");
        place.run_unread(&[&arguments[..], &["--format", format, "--annotate", &drawn]].concat()).ends_with(1);
        assert_eq!(fs_err::read_dir(place.path(&drawn).join("faces")).unwrap().count(), 60, "{format}");
    }
    place.run_unread(&arguments).ends_with(0);
}

#[cfg(unix)]
#[test]
fn rows_go_on_in_files_alone() {
    let place = Place::with_config();
    place.write("picture.png", png(1, 48));
    let arguments = ["predict", "picture.png", "--faces", "whole", "--json", "--resume", "--output", "/dev/zero"];
    place.run(&arguments).ends_with(2).says(&["/dev/zero is no file"]);
}

#[test]
fn good_pictures_are_classified_among_bad_ones_in_every_form() {
    let (place, names) = place_with_pictures();
    let arguments = [&["predict", "--model", "run", "--faces", "whole"], &names[..]].concat();

    // No terminal here: JSON lines without being asked for.
    let outcome = place.run(&arguments).ends_with(1).says(&["4 of the inputs"]);
    let lines = json_lines(&outcome.stdout);
    assert_eq!(paths(&lines), names);
    for (row, side) in [(&lines[0], 48), (&lines[5], 90)] {
        assert_eq!((&row["width"], &row["height"]), (&side.into(), &side.into()));
        let faces = row["faces"].as_array().unwrap();
        assert_eq!(faces.len(), 1);
        assert_eq!(faces[0]["box"], serde_json::json!([0, 0, side, side]));
        let probabilities = faces[0]["probabilities"].as_object().unwrap();
        assert_eq!(probabilities.len(), 7);
        let sum: f64 = probabilities.values().map(|score| score.as_f64().unwrap()).sum();
        assert!((sum - 1.0).abs() < 1e-5, "{sum}");
        assert_eq!(probabilities[faces[0]["label"].as_str().unwrap()], faces[0]["score"]);
    }
    let codes: Vec<&str> = lines[1..5].iter().map(|row| row["error"]["code"].as_str().unwrap()).collect();
    assert_eq!(codes, ["damaged", "not_an_image", "too_large", "unreadable"]);

    let outcome = place.run(&[&arguments[..], &["--csv"]].concat()).ends_with(1);
    let mut reader = csv::Reader::from_reader(outcome.stdout.as_bytes());
    let header = reader.headers().unwrap().clone();
    assert_eq!(header.len(), 11 + 7 + 2);
    let records: Vec<csv::StringRecord> = reader.records().map(|record| record.unwrap()).collect();
    assert_eq!(records.len(), names.len());
    for (record, line) in records.iter().zip(&lines) {
        assert_eq!(record[0], *line["path"].as_str().unwrap());
        assert_eq!(record[9], *line["faces"][0]["label"].as_str().unwrap_or_default());
        assert_eq!(record[18], *line["error"]["code"].as_str().unwrap_or_default());
        assert_eq!(record[19], *line["error"]["message"].as_str().unwrap_or_default());
    }

    let outcome = place.run(&[&arguments[..], &["--format", "table"]].concat()).ends_with(1).prints(&["90x90+0+0"]);
    for (name, _, reason) in bad_pictures() {
        assert!(outcome.stdout.lines().any(|line| line.contains(name) && line.contains(reason)), "{}", outcome.stdout);
    }

    place.run(&[&arguments[..], &["--output", "rows.parquet"]].concat()).ends_with(1);
    assert_same_as_csv(&place, "rows.parquet", &header, &records);
    place
        .run(&["predict", "first.png", "last.png", "--model", "run/model.safetensors", "--faces", "whole"])
        .ends_with(0);
}

/// Every cell of a Parquet file against that of CSV.
pub fn assert_same_as_csv(place: &Place, name: &str, header: &csv::StringRecord, records: &[csv::StringRecord]) {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::Field;

    let reader = SerializedFileReader::new(std::fs::File::open(place.path(name)).unwrap()).unwrap();
    let rows: Vec<_> = reader.get_row_iter(None).unwrap().map(|row| row.unwrap()).collect();
    assert_eq!(rows.len(), records.len());
    for (row, record) in rows.iter().zip(records) {
        let cells: Vec<(&String, String)> = row
            .get_column_iter()
            .map(|(name, field)| {
                let text = match field {
                    Field::Null => String::new(),
                    Field::Str(text) => text.clone(),
                    Field::Int(number) => number.to_string(),
                    Field::Long(number) => number.to_string(),
                    Field::Float(number) => number.to_string(),
                    Field::Double(number) => number.to_string(),
                    other => panic!("{name} is {other:?}"),
                };
                (name, text)
            })
            .collect();
        assert!(cells.iter().map(|(name, _)| name.as_str()).eq(header.iter()));
        assert!(cells.iter().map(|(_, text)| text.as_str()).eq(record.iter()), "{cells:?} is not {record:?}");
    }
}

#[test]
fn small_files_of_huge_pictures_are_refused_by_their_headers() {
    let place = Place::with_config();
    place.train("run", &[]);
    // 100 million pixels in a file of some 100 kB.
    let mut bomb = std::io::Cursor::new(Vec::new());
    image::GrayImage::new(10_000, 10_000).write_to(&mut bomb, image::ImageFormat::Png).unwrap();
    assert!(bomb.get_ref().len() < 1 << 20);
    place.write("bomb.png", bomb.get_ref());
    let row = place.run(&["predict", "bomb.png", "--model", "run"]).ends_with(1).json();
    assert_eq!(row["error"]["code"], "too_large");
}

#[test]
fn folders_patterns_and_stdin_are_inputs() {
    let place = Place::with_config();
    place.train("run", &[]);
    for (index, name) in ["album/a.png", "album/deep/b.PNG", "album/notes.txt", "c1.png", "c2.png"].iter().enumerate() {
        place.write(name, png(index, 48));
    }
    let outcome = place.run(&["predict", "--model", "run", "album", "c?.png"]).ends_with(0);
    assert_eq!(paths(&json_lines(&outcome.stdout)), ["album/a.png", "album/deep/b.PNG", "c1.png", "c2.png"]);

    let mut command = assert_cmd::Command::new(VULTUS);
    command.args(["predict", "--model", "run", "-"]).current_dir(place.path("")).write_stdin(png(3, 48));
    let outcome = Outcome::of(command.output().unwrap()).ends_with(0);
    assert_eq!(outcome.json()["path"], "-");
    let outcome = place.run(&["predict", "--model", "run", "none/*.png"]).ends_with(1);
    assert_eq!(outcome.json()["error"]["code"], "unreadable");
}

#[cfg(target_os = "linux")]
#[test]
fn a_pattern_loses_no_name_that_is_no_text() {
    use std::os::unix::ffi::OsStrExt;

    let place = Place::with_config();
    place.train("run", &[]);
    place.write("tree/c/z.png", png(1, 48));
    fs_err::write(place.path("tree/c").join(std::ffi::OsStr::from_bytes(b"\xff.png")), "x").unwrap();
    for input in ["tree/c/*.png", "tree/**/*.png", "tree"] {
        let outcome = place.run(&["predict", "--model", "run", input]).ends_with(1);
        assert_eq!(paths(&json_lines(&outcome.stdout)), ["tree/c/z.png", "tree/c/\\xFF.png"], "{input}");
    }
}

#[test]
fn a_named_file_that_is_too_large_is_not_read() {
    let place = Place::with_config();
    place.train("run", &[]);
    // All of it is a hole.
    std::fs::File::create(place.path("big.png")).unwrap().set_len(600 << 20).unwrap();
    let row = place.run(&["predict", "big.png", "--model", "run"]).ends_with(1).json();
    assert_eq!(row["error"]["code"], "too_large");
}

#[test]
fn a_wall_without_a_face_is_a_row_that_says_so() {
    let place = Place::with_config();
    place.train("run", &[]);
    place.write("wall.png", png(0, 200));
    let outcome = place.run(&["predict", "wall.png", "--model", "run", "--annotate", "boxes"]).ends_with(1);
    assert_eq!(outcome.json()["error"]["code"], "no_face");
    // And there is nothing to draw.
    assert_eq!(fs_err::read_dir(place.path("boxes")).unwrap().count(), 0);
}

#[test]
fn a_picture_of_the_networks_size_is_a_face_unless_a_finder_is_named() {
    let place = Place::with_config();
    place.train("run", &[]);
    place.write("small.png", png(0, 48));
    place.run(&["predict", "small.png", "--model", "run"]).ends_with(0);
    let outcome = place.run(&["predict", "small.png", "--model", "run", "--faces", "rustface"]).ends_with(1);
    assert_eq!(outcome.json()["error"]["code"], "no_face");
}

#[test]
fn an_output_is_gone_on_with_and_never_overwritten() {
    let place = Place::with_config();
    place.train("run", &[]);
    let names: Vec<String> = (0..7).map(|number| format!("{number}.png")).collect();
    for (number, name) in names.iter().enumerate() {
        place.write(name, png(number, 48));
    }
    for output in ["rows.jsonl", "rows.csv"] {
        let predict = |count: usize, more: &[&str]| {
            let names: Vec<&str> = names[..count].iter().map(String::as_str).collect();
            place.run(&[&["predict", "--model", "run", "--output", output], &names[..], more].concat())
        };
        predict(7, &[]).ends_with(0);
        let whole = fs_err::read(place.path(output)).unwrap();
        predict(7, &[]).ends_with(2).says(&[output, "--resume"]);
        assert_eq!(fs_err::read(place.path(output)).unwrap(), whole, "a refused call has written");

        fs_err::remove_file(place.path(output)).unwrap();
        predict(4, &["--resume"]).ends_with(0);
        // As a kill leaves it: in the middle of a row.
        let part = fs_err::read(place.path(output)).unwrap();
        fs_err::write(place.path(output), &part[..part.len() - 9]).unwrap();
        predict(7, &["--resume"]).ends_with(0).says(&["rows already"]);
        assert!(fs_err::read(place.path(output)).unwrap() == whole, "{output} differs from that of one call");
    }
    let arguments = ["predict", "0.png", "--model", "run", "--output", "rows.parquet", "--resume"];
    place.run(&arguments).ends_with(2).says(&["a Parquet file cannot grow"]);
    assert!(!place.path("rows.parquet").exists());
    place.run(&["predict", "0.png", "--model", "run", "--output", "rows"]).ends_with(2).says(&["--format"]);
}

#[test]
fn an_output_is_a_file_in_a_folder_that_there_is_and_its_ending_may_be_in_capitals() {
    let place = Place::with_config();
    place.train("run", &[]);
    place.write("a.png", png(1, 48));
    let predict = |output: &str| place.run(&["predict", "a.png", "--model", "run", "--output", output]);
    predict("missing/rows.csv").ends_with(2).says(&["no folder missing for missing/rows.csv"]);
    fs_err::create_dir(place.path("rows.jsonl")).unwrap();
    predict("rows.jsonl").ends_with(2).says(&["rows.jsonl is a folder"]);
    predict("ROWS.CSV").ends_with(0);
    assert!(fs_err::read_to_string(place.path("ROWS.CSV")).unwrap().starts_with("path,width,"));
}

#[test]
fn rows_that_lie_among_the_pictures_are_none() {
    let place = Place::with_config();
    place.train("run", &[]);
    place.write("album/a.png", png(1, 48));
    for output in ["album/rows.jsonl", "album/rows.csv"] {
        for inputs in [&["album/*"][..], &["album/**/*"], &["album/a.png", "album/rows.jsonl", "album/rows.csv"]] {
            let arguments = ["--model", "run", "--faces", "whole", "--output", output, "--resume"];
            // Of the three that are named one is not there.
            let ends_with = i32::from(inputs.len() == 3);
            place.run(&[&["predict"], inputs, &arguments].concat()).ends_with(ends_with);
            let rows = fs_err::read_to_string(place.path(output)).unwrap();
            assert!(rows.contains("a.png") && !rows.contains(output), "{inputs:?}: {rows}");
        }
        fs_err::remove_file(place.path(output)).unwrap();
    }
}

#[cfg(unix)]
#[test]
fn a_pipe_is_not_read_to_see_whether_it_can_be_read_again() {
    let place = Place::with_config();
    place.train("run", &[]);
    place.write("a.png", png(1, 48));
    let made = std::process::Command::new("mkfifo").arg(place.path("pipe")).status();
    assert!(made.is_ok_and(|status| status.success()), "mkfifo");
    let arguments = ["predict", "pipe", "--model", "run", "--faces", "whole", "--output", "rows.csv", "--resume"];
    let [picture, pipe] = ["a.png", "pipe"].map(|name| place.path(name));
    let writer = std::thread::spawn(move || std::fs::copy(picture, pipe));
    place.run(&arguments).ends_with(0);
    writer.join().unwrap().unwrap();
    let rows = fs_err::read(place.path("rows.csv")).unwrap();
    // Nobody writes into it now.
    place.run(&arguments).ends_with(0).says(&["1 picture has rows already"]);
    assert_eq!(fs_err::read(place.path("rows.csv")).unwrap(), rows);
    // Whoever waits for it can be stopped, and has no row.
    let mut running = place.start("waiting", &["predict", "a.png", "pipe", "--model", "run", "--output", "rows.jsonl"]);
    running.wait_until("it writes rows", || place.path("rows.jsonl").exists());
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!(running.signal("-TERM"), Some(130));
    assert!(!fs_err::read_to_string(place.path("rows.jsonl")).unwrap().contains("pipe"));
}

#[cfg(unix)]
#[test]
fn a_link_that_leads_nowhere_is_in_the_way() {
    let place = Place::with_config();
    place.train("run", &[]);
    place.write("a.png", png(1, 48));
    for link in ["rows.jsonl", "boxes", "model.onnx", "packed.safetensors"] {
        std::os::unix::fs::symlink("nowhere/at/all", place.path(link)).unwrap();
    }
    let predict = ["predict", "a.png", "--model", "run"];
    place.run(&[&predict[..], &["--output", "rows.jsonl"]].concat()).ends_with(2).says(&["rows.jsonl is no file"]);
    place.run(&[&predict[..], &["--annotate", "boxes"]].concat()).ends_with(2).says(&["boxes"]);
    place.run(&["export", "run", "--out", "model.onnx"]).ends_with(2).says(&["model.onnx exists"]);
    place.run(&["pack", "run", "--out", "packed.safetensors"]).ends_with(2).says(&["packed.safetensors exists"]);
}

#[test]
fn rows_of_other_pictures_stay() {
    let place = Place::with_config();
    place.train("run", &[]);
    for (number, name) in ["a/1.png", "a/2.png", "b/1.png"].into_iter().enumerate() {
        place.write(name, png(number, 48));
    }
    for output in ["rows.jsonl", "rows.csv"] {
        let predict = |input: &str| {
            place.run(&["predict", input, "--model", "run", "--output", output, "--resume"]).ends_with(0);
            fs_err::read_to_string(place.path(output)).unwrap()
        };
        let first = predict("a");
        let both = predict("b");
        assert!(both.starts_with(&first) && both.lines().count() == first.lines().count() + 1, "{both}");
    }
}

#[test]
fn a_picture_that_cannot_be_read_now_keeps_its_rows() {
    let place = Place::with_config();
    place.train("run", &[]);
    place.write("a.png", png(1, 48));
    place.write("b.png", png(2, 48));
    for output in ["rows.jsonl", "rows.csv"] {
        let predict = |more: &[&str]| {
            place.run(&[&["predict", "a.png", "b.png", "--model", "run", "--output", output], more].concat())
        };
        predict(&[]).ends_with(0);
        let whole = fs_err::read(place.path(output)).unwrap();
        fs_err::rename(place.path("b.png"), place.path("away.png")).unwrap();
        predict(&["--resume"]).ends_with(0).says(&["2 pictures have rows already"]);
        assert!(fs_err::read(place.path(output)).unwrap() == whole, "{output} lost a row");
        fs_err::rename(place.path("away.png"), place.path("b.png")).unwrap();
    }
    let stdin = ["predict", "-", "--model", "run", "--output", "rows.csv", "--resume"];
    place.run(&stdin).ends_with(2).says(&["- is another picture each time"]);
}

#[test]
fn inputs_may_stand_in_a_list() {
    let place = Place::with_config();
    place.train("run", &[]);
    for (number, name) in ["a.png", "two\nlines.png", "album/c.png"].into_iter().enumerate() {
        place.write(name, png(number, 48));
    }
    let paths = |arguments: &[&str]| -> Vec<String> {
        let rows = json_lines(&place.run(&[&["predict", "--model", "run"], arguments].concat()).ends_with(0).stdout);
        rows.iter().map(|row| row["path"].as_str().unwrap().to_owned()).collect()
    };
    place.write("lines", "a.png\r\n\nalbum\n");
    place.write("zeros", "two\nlines.png\0a.png\0");
    assert_eq!(paths(&["--files-from", "lines"]), ["a.png", "album/c.png"]);
    assert_eq!(paths(&["a.png", "--files-from", "zeros", "-0"]), ["a.png", "two\nlines.png"]);
    place.run(&["predict", "-", "--files-from", "-"]).ends_with(2).says(&["not both"]);
    let mut command = assert_cmd::Command::new(VULTUS);
    let output = command.args(["predict", "--files-from", "-"]).write_stdin("-\na.png\n").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("not both"), "{output:?}");
    // As Windows' editors write it.
    place.write("marked", b"\xef\xbb\xbfa.png\r\n");
    assert_eq!(paths(&["--files-from", "marked"]), ["a.png"]);
    place.run(&["predict", "--files-from", "absent"]).ends_with(2).says(&["absent"]);
    place.write("none", "\n");
    place.run(&["predict", "--files-from", "none"]).ends_with(0).says(&["note: none lists no picture"]);
    place.run(&["predict"]).ends_with(2).says(&["INPUT"]);
}

#[test]
fn what_would_only_fail_later_is_refused() {
    let place = Place::with_config();
    place.train("run", &[]);
    place.write("a.png", png(1, 48));
    place.write("file", "no folder");
    let predict = |more: &[&str]| place.run(&[&["predict", "a.png", "--model", "run"], more].concat());
    predict(&["--annotate", "file/boxes"]).ends_with(2).says(&["file/boxes"]);
    predict(&["--format", "table", "--output", "rows.txt"]).ends_with(2).says(&["a table is for the terminal"]);
    predict(&["--output", "rows.json"]).ends_with(0).says(&["rows.json gets JSON lines"]);
    predict(&["--json", "--output", "mine.csv"])
        .ends_with(0)
        .says(&["mine.csv gets JSON lines, whatever its name says"]);
    // Nothing is told of a file that does not get it.
    place.write("rows.csv", "path,width\n");
    let refused = predict(&["--json", "--output", "rows.csv", "--resume"]).ends_with(2);
    assert!(!refused.stderr.contains("gets JSON lines"), "{}", refused.stderr);
    // As Excel writes it.
    place.write("wide.csv", [b"\xff\xfep\0a\0t\0h\0,\0".as_slice(), &[0xd8; 400]].concat());
    predict(&["--output", "wide.csv", "--resume"]).ends_with(2).says(&["wide.csv is no CSV of text"]);
    let row = place.run(&["predict", "ftp://a.org/b.png", "--model", "run"]).ends_with(1).json();
    assert!(row["error"]["message"].as_str().unwrap().contains("http:// or https://"), "{row}");
}

#[test]
fn drawings_are_pictures_as_large_as_theirs_or_enlarged_for_their_text() {
    let place = Place::with_config();
    place.train("run", &[]);
    place.write("album/a.png", png(1, 130));
    place.write("broken.png", b"no picture");
    let arguments = [
        "predict",
        "album",
        "broken.png",
        "--model",
        "run",
        "--faces",
        "whole",
        "--annotate",
        "boxes",
        "--explain",
        "why",
    ];
    let outcome = place.run(&arguments).ends_with(1);
    assert_eq!(json_lines(&outcome.stdout).len(), 2);
    for folder in ["boxes", "why"] {
        let drawing = image::open(place.path(&format!("{folder}/album/a.png.png"))).unwrap().to_rgb8();
        assert_eq!(drawing.dimensions(), (3 * 130, 3 * 130));
        assert_eq!(fs_err::read_dir(place.path(folder)).unwrap().count(), 1);
    }
    // The model in the program has learnt.
    place.run(&["predict", "album/a.png", "--faces", "whole", "--explain", "rests-on"]).ends_with(0);
    let drawing = image::open(place.path("rests-on/album/a.png.png")).unwrap().to_rgb8();
    assert!(drawing.pixels().any(|pixel| pixel.0[0] > pixel.0[2].saturating_add(40)), "nothing is coloured");
    // What is there is not replaced, and drawings are no pictures to predict.
    place.run(&arguments).ends_with(2).says(&["boxes", "not empty"]);
    let predict =
        |more: &[&str]| place.run(&[&["predict", "album", "--model", "run", "--faces", "whole"], more].concat());
    place.write("notes.txt", "no folder");
    for (annotate, explain) in [("new", "new"), ("new", "./new"), ("new/in", "new"), ("new", "new/./in")] {
        predict(&["--annotate", annotate, "--explain", explain]).ends_with(2).says(&["a folder each"]);
        assert!(!place.path("new").exists(), "a refused call has made a folder");
    }
    predict(&["--explain", "new", "--annotate", "notes.txt"]).ends_with(2).says(&["notes.txt is a file"]);
    assert!(!place.path("new").exists(), "a refused call has made a folder");
    predict(&["--annotate", "."]).ends_with(2).says(&["not empty"]);
    // Whatever way the pictures are named.
    for (name, inputs) in ["album", "album/../album", "album/**/*"].into_iter().enumerate() {
        let output = format!("rows-{name}.jsonl");
        let inside =
            ["--model", "run", "--faces", "whole", "--annotate", "album/boxes", "--output", &output, "--resume"];
        let again = |times: usize| {
            let outcome = place.run(&[&["predict", inputs], &inside[..]].concat()).ends_with(0);
            assert_eq!(outcome.stderr.contains("rows already are not drawn again"), times > 0, "{}", outcome.stderr);
        };
        (0..2).for_each(again);
        assert_eq!(fs_err::read_to_string(place.path(&output)).unwrap().lines().count(), 1, "{inputs}");
        fs_err::remove_dir_all(place.path("album/boxes")).unwrap();
    }
    // A shell's `*` names the drawings of an earlier call and its rows, too.
    let of_shell =
        ["--model", "run", "--faces", "whole", "--annotate", "album/boxes", "--output", "album/rows.jsonl", "--resume"];
    let pictures = fs_err::read_dir(place.path("album")).unwrap().map(|entry| entry.unwrap().path());
    let pictures: Vec<String> = pictures.map(|path| path.display().to_string()).collect();
    let more = [place.path("album/boxes"), place.path("album/rows.jsonl")].map(|path| path.display().to_string());
    for named in [&pictures[..], &[&pictures[..], &more].concat()] {
        let named: Vec<&str> = named.iter().map(String::as_str).collect();
        place.run(&[&["predict"], &named[..], &of_shell].concat()).ends_with(0);
    }
    assert_eq!(fs_err::read_to_string(place.path("album/rows.jsonl")).unwrap().lines().count(), pictures.len());
    fs_err::remove_dir_all(place.path("album/boxes")).unwrap();
    fs_err::remove_file(place.path("album/rows.jsonl")).unwrap();
    predict(&["--annotate", "new", "--explain", "album/../new"]).ends_with(2).says(&["a folder each"]);
    // Stdin lies in no folder.
    place.run(&["predict", "-", "--model", "run", "--annotate", "new"]).ends_with(1).prints(&["\"empty\"", "stdin"]);
    place.write("rows.jsonl", "");
    predict(&["--annotate", "album", "--output", "rows.jsonl", "--resume"]).ends_with(2).says(&["is for drawings"]);
}

#[test]
fn a_drawing_that_fails_costs_no_result() {
    let place = Place::with_config();
    place.train("run", &[]);
    place.write("a.png", png(1, 48));
    place.write("album/b.png", png(2, 48));
    let predict = |output: &str, inputs: &[&str], boxes: &str| {
        let arguments = ["predict", "--model", "run", "--faces", "whole", "--annotate", boxes];
        place.run(&[&arguments[..], inputs, &["--output", output, "--resume"]].concat())
    };
    // Where a folder should be there is a file.
    for (output, boxes) in [("rows.jsonl", "boxes"), ("rows.csv", "other-boxes")] {
        predict(output, &["a.png"], boxes).ends_with(0);
        place.write(&format!("{boxes}/album"), "no folder");
        predict(output, &["a.png", "album"], boxes).ends_with(1);
    }
    let rows = json_lines(&fs_err::read_to_string(place.path("rows.jsonl")).unwrap());
    assert!(rows[0]["error"].is_null() && place.path("boxes/a.png.png").exists());
    assert_eq!((&rows[1]["error"]["code"], rows[1]["faces"].as_array().unwrap().len()), (&"unwritable".into(), 1));
    let text = fs_err::read_to_string(place.path("rows.csv")).unwrap();
    assert!(text.lines().nth(2).unwrap().contains(",unwritable,"), "{text}");
    // It is tried again.
    fs_err::remove_file(place.path("boxes/album")).unwrap();
    predict("rows.jsonl", &["a.png", "album"], "boxes").ends_with(0).says(&["1 picture has rows already"]);
    assert!(place.path("boxes/album/b.png.png").exists());
    // A folder in a drawing's place is none.
    place.write("folder.png/c.png", png(3, 48));
    place.write("folder", png(4, 48));
    predict("third.jsonl", &["folder.png", "folder"], "third").ends_with(1);
    assert!(fs_err::read_to_string(place.path("third.jsonl")).unwrap().contains("unwritable"));
    // Rows that are not there are not gone on with, and what lies in the folder is somebody's.
    place.write("mine/a.png.png", "mine");
    predict("new.jsonl", &["a.png"], "mine").ends_with(2).says(&["mine is not empty", "new.jsonl is not there"]);
    assert!(!place.path("new.jsonl").exists());
    place.write("mine/album/b.png.png", "mine");
    predict("empty.jsonl", &["a.png"], "none").ends_with(0);
    predict("empty.jsonl", &["a.png", "album"], "mine").ends_with(0);
    assert_eq!(fs_err::read(place.path("mine/album/b.png.png")).unwrap(), b"mine");
    // A call that is refused leaves the rows as they are.
    let before = fs_err::read(place.path("rows.csv")).unwrap();
    predict("rows.csv", &["a.png"], "a.png/boxes").ends_with(2).says(&["a.png/boxes"]);
    assert_eq!(fs_err::read(place.path("rows.csv")).unwrap(), before);
    // And leaves no folder behind, at whatever depth.
    place.write("torn.jsonl", "no row\n");
    predict("torn.jsonl", &["a.png"], "deep/er/boxes").ends_with(2).says(&["torn.jsonl is no row"]);
    assert!(!place.path("deep").exists());
    let refused = ["predict", "a.png", "--model", "absent", "--annotate", "refused", "--explain", "refused-too"];
    place.run(&refused).ends_with(2).says(&["absent"]);
    assert!(place.files_named("refused").is_empty());
}

#[cfg(unix)]
#[test]
fn an_interrupted_call_keeps_what_is_done() {
    let place = Place::with_config();
    place.train("run", &[]);
    for number in 0..400 {
        place.write(&format!("album/{number:03}.png"), png(number, 480));
    }
    let mut call = place.start("call", &["predict", "album", "--model", "run", "--output", "rows.jsonl"]);
    let output = place.path("rows.jsonl");
    call.wait_until("there is a row", || output.exists() && lines_of(&output) > 0);
    assert_eq!(call.interrupt(), Some(130));
    let rows = json_lines(&fs_err::read_to_string(place.path("rows.jsonl")).unwrap());
    assert!(!rows.is_empty() && rows.len() < 400, "{}", rows.len());
    for (number, row) in rows.iter().enumerate() {
        assert_eq!(row["path"], format!("album/{number:03}.png"));
    }
}

#[cfg(unix)]
#[test]
fn an_interrupted_parquet_file_has_what_is_done_and_is_not_gone_on_with() {
    use parquet::file::reader::{FileReader, SerializedFileReader};

    let place = Place::with_config();
    place.train("run", &[]);
    for number in 0..400 {
        place.write(&format!("album/{number:03}.png"), png(number, 480));
    }
    let arguments =
        ["predict", "album", "--model", "run", "--faces", "whole", "--output", "rows.parquet", "--annotate", "boxes"];
    let mut call = place.start("call", &arguments);
    call.wait_until("there is a drawing", || !place.files_named("000.png.png").is_empty());
    assert_eq!(call.interrupt(), Some(130));
    let log = fs_err::read_to_string(place.path("call.log")).unwrap();
    assert!(log.contains("rows.parquet has the results so far") && !log.contains("--resume"), "{log}");
    let file = SerializedFileReader::new(std::fs::File::open(place.path("rows.parquet")).unwrap()).unwrap();
    let rows = file.metadata().file_metadata().num_rows();
    assert!((1..400).contains(&rows), "{rows}");
    place.run(&arguments).ends_with(2).says(&["rows.parquet exists: name another file"]);
}

#[test]
fn an_unsure_face_has_no_label() {
    let place = Place::with_config();
    place.train("run", &[]);
    place.write("a.png", png(1, 48));
    let row = place.run(&["predict", "a.png", "--model", "run", "--abstain-below", "1"]).ends_with(0).json();
    assert_eq!(row["faces"][0]["label"], Value::Null);
    assert!(row["faces"][0]["score"].as_f64().unwrap() > 0.0);
}

#[test]
fn contradictions_about_faces_are_bad_usage() {
    let place = Place::with_config();
    place.train("run", &[]);
    place.write("a.png", png(1, 48));
    place.write("text.onnx", "no network");
    let predict = |more: &[&str]| place.run(&[&["predict", "a.png", "--model", "run"], more].concat());
    predict(&["--faces", "whole", "--face-model", "x.onnx"]).ends_with(2).says(&["x.onnx"]);
    predict(&["--min-confidence", "1.5"]).ends_with(2).says(&["0 to 1"]);
    predict(&["--face-model", "absent.onnx"]).ends_with(2).says(&["absent.onnx", "--face-model"]);
    predict(&["--face-model", "text.onnx"]).ends_with(1).says(&["text.onnx", "no ONNX file"]);
    let models = place.path("").display().to_string();
    let outcome =
        place.run_with(&["predict", "a.png", "--model", "run", "--faces", "yunet"], &[("VULTUS_MODELS", &models)]);
    outcome.ends_with(2).says(&["vultus models get yunet"]);
}
