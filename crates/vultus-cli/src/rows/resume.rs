//! Which pictures have rows already, in a file that an earlier call has left, complete or not.

use std::collections::{BTreeMap, HashSet};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use fs_err::File;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::pictures::columns;
use super::{Format, lock_alone};

/// How every row of JSON begins.
const BEGINNING: &[u8] = b"{\"path\":\"";

/// More bytes than any row has: a row of a thousand faces has half a million.
const LONGEST_ROW: u64 = 64 << 20;

/// Errors that may have passed: pictures with such a row are tried again, and get another one.
const PASSING: [&str; 3] = ["unreachable", "unreadable", "unwritable"];

/// Reads the paths that need no more rows in `path`, and cuts off what a killed process left unfinished, so that rows can be
/// added. Of a CSV file the last picture is cut off, too, if it can be done again: faces of it may be missing. The file comes
/// with them, at its end, and no other process can take it until it is closed.
///
/// # Errors
/// A file that is not of this form or about other classes, and what cannot be read or written.
pub fn take_up(
    path: &Path,
    format: Format,
    labels: &[String],
    can_be_done_again: impl Fn(&str) -> bool,
) -> anyhow::Result<(HashSet<String>, std::fs::File)> {
    let mut file = fs_err::OpenOptions::new().read(true).write(true).open(path)?;
    // So that no row of another process is taken for a torn one.
    lock_alone(file.file(), path)?;
    let (done, length) = match format {
        Format::Json => json(&file, path, labels)?,
        Format::Csv => csv(&file, path, labels, can_be_done_again)?,
        Format::Table | Format::Parquet => bail!("--resume is for JSON lines and CSV"),
    };
    if file.metadata()?.len() != length {
        file.set_len(length)?;
    }
    file.seek(SeekFrom::End(0))?;
    Ok((done, file.into_parts().0))
}

/// Paths, and the length of the complete lines.
fn json(file: &File, path: &Path, labels: &[String]) -> anyhow::Result<(HashSet<String>, u64)> {
    #[derive(Deserialize)]
    struct Line {
        path: String,
        #[serde(default)]
        faces: Vec<Face>,
        error: Option<ErrorOfLine>,
    }
    #[derive(Deserialize)]
    struct ErrorOfLine {
        code: String,
    }
    #[derive(Deserialize)]
    struct Face {
        probabilities: BTreeMap<String, IgnoredAny>,
    }
    let mut reader = BufReader::new(file);
    let (mut done, mut length, mut line) = (HashSet::new(), 0, Vec::new());
    for number in 1.. {
        line.clear();
        reader.by_ref().take(LONGEST_ROW).read_until(b'\n', &mut line)?;
        if line.last() != Some(&b'\n') {
            let common = line.len().min(BEGINNING.len());
            if line[..common] != BEGINNING[..common] || line.len() as u64 == LONGEST_ROW {
                bail!("line {number} of {} is no row of vultus predict", path.display());
            }
            break;
        }
        let Line { path: name, faces, error } = serde_json::from_slice(&line)
            .with_context(|| format!("line {number} of {} is no row of vultus predict", path.display()))?;
        let same = |face: &Face| {
            face.probabilities.len() == labels.len()
                && labels.iter().all(|label| face.probabilities.contains_key(label))
        };
        if !faces.iter().all(same) {
            bail!(
                "line {number} of {} has other classes than this model: name another file with --output",
                path.display()
            );
        }
        if !error.is_some_and(|error| PASSING.contains(&error.code.as_str())) {
            done.insert(name);
        }
        length += line.len() as u64;
    }
    Ok((done, length))
}

/// Paths, and the length of what stays.
fn csv(
    mut file: &File,
    path: &Path,
    labels: &[String],
    can_be_done_again: impl Fn(&str) -> bool,
) -> anyhow::Result<(HashSet<String>, u64)> {
    let columns = columns(labels);
    let names = || columns.iter().map(|column| column.name.as_str());
    let mut header = csv::Writer::from_writer(Vec::new());
    header.write_record(names())?;
    let (header, mut beginning) = (header.into_inner()?, Vec::new());
    file.take(header.len() as u64).read_to_end(&mut beginning)?;
    if beginning.len() < header.len() && header.starts_with(&beginning) {
        return Ok((HashSet::new(), 0));
    }
    file.rewind()?;
    let mut reader = csv::ReaderBuilder::new().flexible(true).has_headers(false).from_reader(file);
    let mut record = csv::StringRecord::new();
    let unreadable = || format!("{} is no CSV of text", path.display());
    if !reader.read_record(&mut record).with_context(unreadable)? || record.iter().ne(names()) {
        return Err(anyhow!(
            "{} has other columns than this model's rows in this form: name another file with --output",
            path.display()
        ));
    }
    let code = columns.iter().position(|column| column.name == "error_code").unwrap_or_default();
    let mut pictures = Pictures::default();
    let mut add = |row: csv::ByteRecord| {
        let start = row.position().cloned().unwrap_or_else(csv::Position::new);
        let row = csv::StringRecord::from_byte_record(row).ok().filter(|row| row.len() == columns.len());
        let row = row.with_context(|| {
            let line = start.line();
            format!("line {line} of {} is no row of vultus predict: name another file with --output", path.display())
        })?;
        pictures.add(&row[0], PASSING.contains(&&row[code]), start.byte());
        anyhow::Ok(())
    };
    let (mut row, mut before) = (csv::ByteRecord::new(), None);
    while reader.read_byte_record(&mut row).with_context(unreadable)? {
        before.replace(row.clone()).map_or(Ok(()), &mut add)?;
    }
    let mut length = file.metadata()?.len();
    // What a killed process left at the end may be no whole row, and even no text. Its path, if more follows, is whole.
    let mut torn = None;
    if let Some(last) = before {
        let start = last.position().map_or(length, csv::Position::byte);
        let of_path = last.get(0).filter(|_| last.len() > 1).map(<[u8]>::to_vec);
        if !ends_a_line(file)? || add(last).is_err() {
            (length, torn) = (start, of_path);
        }
    }
    let Pictures { mut done, last } = pictures;
    match last {
        // Faces of it are missing, or may be.
        Some(last) if torn.as_deref() == Some(last.path.as_bytes()) || can_be_done_again(&last.path) => {
            length = last.start
        }
        Some(last) if !last.passing => {
            done.insert(last.path);
        }
        _ => {}
    }
    Ok((done, behind_line_feed(file, length)?))
}

/// `place`, or the one behind the line feed that stands there: where two characters end a line, a row begins between them.
fn behind_line_feed(mut file: &File, place: u64) -> anyhow::Result<u64> {
    let mut next = [0];
    file.seek(SeekFrom::Start(place))?;
    let feeds = file.read(&mut next)? == 1 && next == *b"\n";
    Ok(place + u64::from(feeds))
}

/// The pictures of rows that stand one behind the other.
#[derive(Default)]
struct Pictures {
    /// Those before the last one, but for errors that may have passed.
    done: HashSet<String>,
    last: Option<Picture>,
}

/// A picture with rows.
struct Picture {
    path: String,
    /// Whether its last row is an error that may have passed: of several tries the last one counts.
    passing: bool,
    /// Where its first row begins.
    start: u64,
}

impl Pictures {
    /// Adds a row that begins at `start`.
    fn add(&mut self, path: &str, passing: bool, start: u64) {
        match &mut self.last {
            Some(last) if last.path == path => last.passing = passing,
            last => {
                let before = last.replace(Picture { path: path.to_owned(), passing, start });
                self.done.extend(before.filter(|before| !before.passing).map(|before| before.path));
            }
        }
    }
}

/// Whether a file that is not empty ends with the end of a line.
fn ends_a_line(mut file: &File) -> anyhow::Result<bool> {
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Column;

    fn labels() -> Vec<String> {
        vec!["sad".to_owned()]
    }

    fn take_up(
        path: &Path,
        format: Format,
        labels: &[String],
        can_be_done_again: impl Fn(&str) -> bool,
    ) -> anyhow::Result<HashSet<String>> {
        super::take_up(path, format, labels, can_be_done_again).map(|(done, _)| done)
    }

    /// Inputs without a picture.
    fn nothing(_: &str) -> bool {
        false
    }

    /// A file of CSV with rows of pictures and errors' codes.
    fn rows_of_csv(rows: &[(&str, &str)]) -> String {
        let mut writer = csv::Writer::from_writer(Vec::new());
        let columns = columns(&labels());
        writer.write_record(columns.iter().map(|column| &column.name)).unwrap();
        for (name, code) in rows {
            let cell = |column: &Column| match column.name.as_str() {
                "path" => (*name).to_owned(),
                "error_code" => (*code).to_owned(),
                _ => String::new(),
            };
            writer.write_record(columns.iter().map(cell)).unwrap();
        }
        String::from_utf8(writer.into_inner().unwrap()).unwrap()
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_another_process_writes_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.jsonl");
        fs_err::write(&path, "{\"path\":\"c").unwrap();
        let (_, begun) = super::take_up(&path, Format::Json, &labels(), nothing).unwrap();
        assert_eq!(fs_err::read(&path).unwrap(), b"");
        let mut writing = crate::rows::Sink::open(Some(&path), Some(begun)).unwrap();
        std::io::Write::write_all(&mut writing, b"{\"path\":\"c").unwrap();
        std::io::Write::flush(&mut writing).unwrap();
        let message = take_up(&path, Format::Json, &labels(), nothing).unwrap_err().to_string();
        assert!(message.contains("rows.jsonl is being written"), "{message}");
        drop(writing);
        take_up(&path, Format::Json, &labels(), nothing).unwrap();
        assert_eq!(fs_err::read(&path).unwrap(), b"");
    }

    #[test]
    fn what_has_no_end_of_a_line_is_no_row() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.jsonl");
        fs_err::write(&path, BEGINNING).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(LONGEST_ROW + 1).unwrap();
        let message = take_up(&path, Format::Json, &labels(), nothing).unwrap_err().to_string();
        assert!(message.contains("line 1 of") && message.contains("is no row"), "{message}");
        assert_eq!(fs_err::metadata(&path).unwrap().len(), LONGEST_ROW + 1);
    }

    #[test]
    fn complete_lines_count_and_the_rest_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.jsonl");
        fs_err::write(
            &path,
            "{\"path\":\"a\",\"faces\":[]}\n{\"path\":\"b\\n\",\"error\":{\"code\":\"damaged\"}}\n{\"path\":\"c",
        )
        .unwrap();
        let done = take_up(&path, Format::Json, &labels(), nothing).unwrap();
        assert_eq!(done, ["a", "b\n"].map(str::to_owned).into());
        assert!(fs_err::read_to_string(&path).unwrap().ends_with("d\"}}\n"));
        let other = "{\"path\":\"a\",\"faces\":[]}\n{\"path\":\"b\",\"faces\":[{\"probabilities\":{\"happy\":1.0}}]}\n";
        fs_err::write(&path, other).unwrap();
        let message = take_up(&path, Format::Json, &labels(), nothing).unwrap_err().to_string();
        assert!(message.contains("line 2") && message.contains("classes"), "{message}");
        assert!(take_up(&path, Format::Json, &["happy".to_owned()], nothing).is_ok());
        for other in ["dear diary\n", "dear diary", "{\"my\":\"settings\"}", "{\n  \"path\": 1\n}"] {
            fs_err::write(&path, other).unwrap();
            let message = take_up(&path, Format::Json, &labels(), nothing).unwrap_err().to_string();
            assert!(message.contains("line 1") && message.contains("rows.jsonl"), "{message}");
            assert_eq!(fs_err::read_to_string(&path).unwrap(), other);
        }
        for unfinished in ["", "{\"pa", "{\"path\":\"c"] {
            fs_err::write(&path, unfinished).unwrap();
            assert!(take_up(&path, Format::Json, &labels(), nothing).unwrap().is_empty());
            assert_eq!(fs_err::read(&path).unwrap(), b"");
        }
    }

    #[test]
    fn what_may_have_passed_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows");
        let line = |name: &str, code: &str| format!("{{\"path\":\"{name}\",\"error\":{{\"code\":\"{code}\"}}}}\n");
        // The third row is that of a second try.
        let lines = [line("a", "unreachable"), line("b", "unreadable"), line("b", "no_face"), line("c", "damaged")];
        fs_err::write(&path, lines.concat()).unwrap();
        let expected: HashSet<String> = ["b", "c"].map(str::to_owned).into();
        assert_eq!(take_up(&path, Format::Json, &labels(), nothing).unwrap(), expected);

        let rows = [("a", "unreachable"), ("b", "unreadable"), ("b", ""), ("c", "damaged"), ("d", "unreadable")];
        fs_err::write(&path, rows_of_csv(&rows)).unwrap();
        assert_eq!(take_up(&path, Format::Csv, &labels(), nothing).unwrap(), expected);
    }

    #[test]
    fn the_last_picture_of_a_csv_is_done_again_where_it_is_an_input() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.csv");
        let (kept, whole) = (
            rows_of_csv(&[("a", ""), ("b\n,", ""), ("b\n,", "")]),
            rows_of_csv(&[("a", ""), ("b\n,", ""), ("b\n,", ""), ("c", ""), ("c", "")]),
        );
        let set = |names: &[&str]| -> HashSet<String> { names.iter().map(|&name| name.to_owned()).collect() };
        // Whole, and in the middle of a path in quotes, another path, a row, and the last cell of a row.
        let message = format!("d{}unreadable,no su", ",".repeat(12));
        for unfinished in ["", "\"c\n", "c", "d,1,2", &message] {
            fs_err::write(&path, format!("{whole}{unfinished}")).unwrap();
            let done = take_up(&path, Format::Csv, &labels(), |name| name == "other").unwrap();
            assert_eq!(done, set(&["a", "b\n,", "c"]), "{unfinished}");
            assert_eq!(fs_err::read_to_string(&path).unwrap(), whole, "{unfinished}");
            fs_err::write(&path, format!("{whole}{unfinished}")).unwrap();
            let done = take_up(&path, Format::Csv, &labels(), |name| name == "c").unwrap();
            assert_eq!(done, set(&["a", "b\n,"]), "{unfinished}");
            assert_eq!(fs_err::read_to_string(&path).unwrap(), kept, "{unfinished}");
        }
    }

    #[test]
    fn a_picture_of_a_csv_with_a_torn_row_is_done_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.csv");
        let (kept, whole) = (rows_of_csv(&[("a", "")]), rows_of_csv(&[("a", ""), ("b", ""), ("b", "")]));
        fs_err::write(&path, format!("{whole}b,1,2")).unwrap();
        assert_eq!(take_up(&path, Format::Csv, &labels(), nothing).unwrap(), ["a".to_owned()].into());
        assert_eq!(fs_err::read_to_string(&path).unwrap(), kept);

        // With two characters at the end of each line, as other programs write it.
        let [whole, kept] = [whole, kept].map(|text| text.replace('\n', "\r\n"));
        fs_err::write(&path, &whole).unwrap();
        take_up(&path, Format::Csv, &labels(), |name| name == "b").unwrap();
        assert_eq!(fs_err::read_to_string(&path).unwrap(), kept);
    }

    #[test]
    fn a_csv_that_is_somebody_elses_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.csv");
        let header = rows_of_csv(&[]);
        fs_err::write(&path, &header).unwrap();
        assert!(take_up(&path, Format::Csv, &labels(), nothing).unwrap().is_empty());
        assert!(take_up(&path, Format::Csv, &[], nothing).unwrap_err().to_string().contains("other columns"));
        assert_eq!(fs_err::read_to_string(&path).unwrap(), header);
        for unfinished in ["", "path,wid", header.trim_end()] {
            fs_err::write(&path, unfinished).unwrap();
            assert!(take_up(&path, Format::Csv, &labels(), nothing).unwrap().is_empty());
            assert_eq!(fs_err::read(&path).unwrap(), b"", "{unfinished}");
        }

        // A row that was cut off inside a letter is done again; one that has others behind it is somebody's work.
        let before = rows_of_csv(&[("a", "")]);
        for broken in [&b"b\xc3"[..], b"b,1\n"] {
            fs_err::write(&path, [before.as_bytes(), broken].concat()).unwrap();
            assert_eq!(take_up(&path, Format::Csv, &labels(), nothing).unwrap(), ["a".to_owned()].into());
            assert_eq!(fs_err::read_to_string(&path).unwrap(), before);
            let damaged = [before.as_bytes(), broken, b"\nc,1\nd,1\n"].concat();
            fs_err::write(&path, &damaged).unwrap();
            let message = take_up(&path, Format::Csv, &labels(), nothing).unwrap_err().to_string();
            assert!(message.contains("line 3") && message.contains("rows.csv"), "{message}");
            assert_eq!(fs_err::read(&path).unwrap(), damaged);
        }
    }
}
