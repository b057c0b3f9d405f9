//! Which pictures have rows already, in a file that an earlier call has left, complete or not.

use std::collections::{BTreeMap, HashSet};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Format;
use super::pictures::columns;

/// How every row of JSON begins.
const BEGINNING: &[u8] = b"{\"path\":\"";

/// Errors that may have passed: pictures with such a row are tried again, and get another one.
const PASSING: [&str; 3] = ["unreachable", "unreadable", "unwritable"];

/// Reads the paths that need no more rows in `path`, and cuts off what a killed process left unfinished, so that rows can be
/// added. Of a CSV file the last picture is cut off, too: faces of it may be missing.
///
/// # Errors
/// A file that is not of this form or about other classes, and what cannot be read or written.
pub fn take_up(path: &Path, format: Format, labels: &[String]) -> anyhow::Result<HashSet<String>> {
    let (done, length) = match format {
        Format::Json => json(path, labels)?,
        Format::Csv => csv(path, labels)?,
        Format::Table | Format::Parquet => bail!("--resume is for JSON lines and CSV"),
    };
    let file = fs_err::OpenOptions::new().write(true).open(path)?;
    if file.metadata()?.len() != length {
        file.set_len(length)?;
    }
    Ok(done)
}

/// Paths, and the length of the complete lines.
fn json(path: &Path, labels: &[String]) -> anyhow::Result<(HashSet<String>, u64)> {
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
    let mut reader = BufReader::new(fs_err::File::open(path)?);
    let (mut done, mut length, mut line) = (HashSet::new(), 0, Vec::new());
    for number in 1.. {
        line.clear();
        reader.read_until(b'\n', &mut line)?;
        if line.last() != Some(&b'\n') {
            let common = line.len().min(BEGINNING.len());
            if line[..common] != BEGINNING[..common] {
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

/// Paths, and where the rows of the last picture begin.
fn csv(path: &Path, labels: &[String]) -> anyhow::Result<(HashSet<String>, u64)> {
    let columns = columns(labels);
    let names = || columns.iter().map(|column| column.name.as_str());
    let mut header = csv::Writer::from_writer(Vec::new());
    header.write_record(names())?;
    let (header, mut beginning) = (header.into_inner()?, Vec::new());
    fs_err::File::open(path)?.take(header.len() as u64).read_to_end(&mut beginning)?;
    if beginning.len() < header.len() && header.starts_with(&beginning) {
        return Ok((HashSet::new(), 0));
    }
    let mut reader = csv::ReaderBuilder::new().flexible(true).has_headers(false).from_path(path)?;
    let mut record = csv::StringRecord::new();
    if !reader.read_record(&mut record)? || record.iter().ne(names()) {
        return Err(anyhow!(
            "{} has other columns than this model's rows: name another file with --output",
            path.display()
        ));
    }
    let code = columns.iter().position(|column| column.name == "error_code").unwrap_or_default();
    let mut done = HashSet::new();
    let mut last = (String::new(), reader.position().byte());
    let (mut any, mut passing) = (false, false);
    let (mut bytes, mut broken) = (csv::ByteRecord::new(), None);
    while reader.read_byte_record(&mut bytes)? {
        if let Some(line) = broken {
            bail!("line {line} of {} is no text in UTF-8: name another file with --output", path.display());
        }
        // What a killed process left at the end may be no whole row, and even no text.
        let Ok(record) = csv::StringRecord::from_byte_record(bytes.clone()) else {
            broken = Some(bytes.position().map_or(0, csv::Position::line));
            continue;
        };
        let name = record.get(0).unwrap_or_default();
        if !any || name != last.0 {
            let start = record.position().map_or(last.1, csv::Position::byte);
            let before = std::mem::replace(&mut last, (name.to_owned(), start));
            if any && !passing {
                done.insert(before.0);
            }
            any = true;
        }
        // Of several tries the last one counts.
        passing = record.get(code).is_some_and(|code| PASSING.contains(&code));
    }
    Ok((done, last.1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Column;

    fn labels() -> Vec<String> {
        vec!["sad".to_owned()]
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
        let done = take_up(&path, Format::Json, &labels()).unwrap();
        assert_eq!(done, ["a", "b\n"].map(str::to_owned).into());
        assert!(fs_err::read_to_string(&path).unwrap().ends_with("d\"}}\n"));
        let other = "{\"path\":\"a\",\"faces\":[]}\n{\"path\":\"b\",\"faces\":[{\"probabilities\":{\"happy\":1.0}}]}\n";
        fs_err::write(&path, other).unwrap();
        let message = take_up(&path, Format::Json, &labels()).unwrap_err().to_string();
        assert!(message.contains("line 2") && message.contains("classes"), "{message}");
        assert!(take_up(&path, Format::Json, &["happy".to_owned()]).is_ok());
        for other in ["dear diary\n", "dear diary", "{\"my\":\"settings\"}", "{\n  \"path\": 1\n}"] {
            fs_err::write(&path, other).unwrap();
            let message = take_up(&path, Format::Json, &labels()).unwrap_err().to_string();
            assert!(message.contains("line 1") && message.contains("rows.jsonl"), "{message}");
            assert_eq!(fs_err::read_to_string(&path).unwrap(), other);
        }
        for unfinished in ["", "{\"pa", "{\"path\":\"c"] {
            fs_err::write(&path, unfinished).unwrap();
            assert!(take_up(&path, Format::Json, &labels()).unwrap().is_empty());
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
        assert_eq!(take_up(&path, Format::Json, &labels()).unwrap(), expected);

        let mut writer = csv::Writer::from_path(&path).unwrap();
        let columns = columns(&labels());
        writer.write_record(columns.iter().map(|column| &column.name)).unwrap();
        for (name, code) in [("a", "unreachable"), ("b", "unreadable"), ("b", ""), ("c", "damaged"), ("d", "")] {
            let cell = |column: &Column| match column.name.as_str() {
                "path" => name.to_owned(),
                "error_code" => code.to_owned(),
                _ => String::new(),
            };
            writer.write_record(columns.iter().map(cell)).unwrap();
        }
        writer.flush().unwrap();
        // The last one may be incomplete.
        assert_eq!(take_up(&path, Format::Csv, &labels()).unwrap(), expected);
    }

    #[test]
    fn the_last_picture_of_a_csv_is_done_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.csv");
        let header = columns(&labels()).iter().map(|column| column.name.clone()).collect::<Vec<_>>().join(",");
        let kept = format!("{header}\na,1\n\"b\n,\",1\n\"b\n,\",2\n");
        fs_err::write(&path, format!("{kept}c,1\nc,2\nc,\"thr")).unwrap();
        assert_eq!(take_up(&path, Format::Csv, &labels()).unwrap(), ["a", "b\n,"].map(str::to_owned).into());
        assert_eq!(fs_err::read_to_string(&path).unwrap(), kept);
        fs_err::write(&path, format!("{header}\n")).unwrap();
        assert!(take_up(&path, Format::Csv, &labels()).unwrap().is_empty());
        assert!(take_up(&path, Format::Csv, &[]).unwrap_err().to_string().contains("other columns"));
        for unfinished in ["", "path,wid", &header] {
            fs_err::write(&path, unfinished).unwrap();
            assert!(take_up(&path, Format::Csv, &labels()).unwrap().is_empty());
            assert_eq!(fs_err::read(&path).unwrap(), b"", "{unfinished}");
        }

        // A row that was cut off inside a letter is done again; one that has others behind it is somebody's work.
        let mut damaged = format!("{header}\na,1\nb").into_bytes();
        damaged.push(0xc3);
        fs_err::write(&path, &damaged).unwrap();
        assert_eq!(take_up(&path, Format::Csv, &labels()).unwrap(), HashSet::new());
        damaged.extend(b",1\nc,1\nd,1\n");
        fs_err::write(&path, &damaged).unwrap();
        let message = take_up(&path, Format::Csv, &labels()).unwrap_err().to_string();
        assert!(message.contains("line 3") && message.contains("rows.csv"), "{message}");
        assert_eq!(fs_err::read(&path).unwrap(), damaged);
    }
}
