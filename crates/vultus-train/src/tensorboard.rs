//! TensorBoard event files.
//!
//! In: scalar values with a tag and a step. Out: a file that TensorBoard reads while it grows: TFRecord framing around
//! protobuf `Event` messages, of which only the fields needed for scalars are declared. It reads no event files and
//! never continues one: a resumed run opens another file beside the first, which TensorBoard joins by step.

use fs_err::{self as fs, File};
use prost::Message;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// The format named in the first event of each file.
const FILE_VERSION: &str = "brain.Event:2";
/// Added to a rotated checksum by the TFRecord format, so that checksums of data holding checksums stay useful.
const MASK_DELTA: u32 = 0xa282_ead8;
/// How many names are tried when files of the same second and process already exist.
const MOST_FILES: usize = 10_000;

/// `tensorflow.Event`, as far as it is used.
#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(oneof = "Content", tags = "3, 5")]
    content: Option<Content>,
}

/// What an event holds.
#[derive(Clone, PartialEq, prost::Oneof)]
enum Content {
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
}

/// `tensorflow.Summary`.
#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    values: Vec<SummaryValue>,
}

/// `tensorflow.Summary.Value` with its simple value.
#[derive(Clone, PartialEq, Message)]
struct SummaryValue {
    #[prost(string, tag = "1")]
    tag: String,
    // In a `oneof` of the original: written even when it is zero, hence optional here.
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

/// Why an event could not be written.
#[derive(Debug, thiserror::Error)]
pub enum TensorboardError {
    /// The file or its directory could not be created or written.
    #[error("cannot write the TensorBoard events {path}: {source}")]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
}

/// One growing event file.
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    file: BufWriter<File>,
}

impl EventWriter {
    /// Creates `directory` where needed, and in it a new file
    /// `events.out.tfevents.<seconds since 1970>.vultus.<process>[.<number>]`, never an existing one.
    ///
    /// # Errors
    /// When the directory or the file cannot be created or written.
    pub fn create(directory: &Path) -> Result<Self, TensorboardError> {
        let failed = |path: &Path, source| TensorboardError::Write { path: path.to_owned(), source };
        fs::create_dir_all(directory).map_err(|source| failed(directory, source))?;
        let now = seconds_since_1970();
        let name = format!("events.out.tfevents.{:010}.vultus.{}", now as u64, std::process::id());
        let mut path = directory.join(&name);
        let mut number = 0;
        let file = loop {
            match File::create_new(&path) {
                Ok(file) => break file,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < MOST_FILES => {
                    number += 1;
                    path = directory.join(format!("{name}.{number}"));
                }
                Err(source) => return Err(failed(&path, source)),
            }
        };
        let mut writer = Self { path, file: BufWriter::new(file) };
        let version = Content::FileVersion(FILE_VERSION.to_owned());
        writer.write(&Event { wall_time: now, step: 0, content: Some(version) })?;
        writer.flush()?;
        Ok(writer)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds one value; `wall_time` is in seconds since 1970, see [`seconds_since_1970`]. `tag` groups by its part
    /// before `/`, as in `loss/validation`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn scalar(&mut self, tag: &str, step: u64, value: f32, wall_time: f64) -> Result<(), TensorboardError> {
        let values = vec![SummaryValue { tag: tag.to_owned(), simple_value: Some(value) }];
        let step = i64::try_from(step).unwrap_or(i64::MAX);
        self.write(&Event { wall_time, step, content: Some(Content::Summary(Summary { values })) })
    }

    /// Hands everything to the operating system, so that TensorBoard sees it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn flush(&mut self) -> Result<(), TensorboardError> {
        self.file.flush().map_err(|source| TensorboardError::Write { path: self.path.clone(), source })
    }

    fn write(&mut self, event: &Event) -> Result<(), TensorboardError> {
        let record = framed(&event.encode_to_vec());
        self.file.write_all(&record).map_err(|source| TensorboardError::Write { path: self.path.clone(), source })
    }
}

/// The present time in seconds since 1970, for [`EventWriter::scalar`]; 0 where the clock stands before it.
pub fn seconds_since_1970() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

/// A TFRecord: length (8 bytes), its checksum (4), data, their checksum (4); all little endian.
fn framed(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(data.len() + 16);
    record.extend_from_slice(&length);
    record.extend_from_slice(&masked_checksum(&length).to_le_bytes());
    record.extend_from_slice(data);
    record.extend_from_slice(&masked_checksum(data).to_le_bytes());
    record
}

/// CRC-32C, rotated and shifted as the TFRecord format wants it.
fn masked_checksum(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(MASK_DELTA)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a file apart again, checking both checksums of every record.
    fn events_of(path: &Path) -> Vec<Event> {
        let bytes = fs::read(path).unwrap();
        let mut rest = bytes.as_slice();
        let mut events = Vec::new();
        while !rest.is_empty() {
            let word = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            let data = &rest[12..12 + length];
            assert_eq!(word(8), masked_checksum(&rest[..8]));
            assert_eq!(word(12 + length), masked_checksum(data));
            events.push(Event::decode(data).unwrap());
            rest = &rest[16 + length..];
        }
        events
    }

    #[test]
    fn checksums_agree_with_published_ones() {
        // CRC-32C check value, and the test vectors of RFC 3720, B.4.
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c::crc32c(&[0xff; 32]), 0x62a8_ab43);
        // masked_crc32c of tensorboard/compat/tensorflow_stub/pywrap_tensorflow.py:
        //   python -c "from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c as m
        //   print(hex(m(b'123456789')))"
        assert_eq!(masked_checksum(b"123456789"), 0xc78a_b0e5);
    }

    #[test]
    fn events_come_back_as_written() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(&directory.path().join("events")).unwrap();
        writer.scalar("loss/train", 0, 1.75, 10.5).unwrap();
        writer.scalar("loss/train", 1, 0.0, 11.5).unwrap();
        writer.flush().unwrap();
        let events = events_of(writer.path());
        assert_eq!(events.len(), 3);
        assert_eq!(events[0].content, Some(Content::FileVersion("brain.Event:2".to_owned())));
        for (event, (step, value, wall_time)) in events[1..].iter().zip([(0, 1.75, 10.5), (1, 0.0, 11.5)]) {
            let value = SummaryValue { tag: "loss/train".to_owned(), simple_value: Some(value) };
            assert_eq!((event.step, event.wall_time), (step, wall_time));
            assert_eq!(event.content, Some(Content::Summary(Summary { values: vec![value] })));
        }
    }

    #[test]
    fn a_resumed_run_gets_a_file_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let first = EventWriter::create(directory.path()).unwrap();
        let second = EventWriter::create(directory.path()).unwrap();
        assert_ne!(first.path(), second.path());
        for writer in [&first, &second] {
            let name = writer.path().file_name().unwrap().to_string_lossy().into_owned();
            assert!(name.starts_with("events.out.tfevents."), "{name}");
            assert_eq!(events_of(writer.path()).len(), 1);
        }
    }

    #[test]
    fn an_impossible_directory_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "in the way").unwrap();
        let message = EventWriter::create(&file).unwrap_err().to_string();
        assert!(message.starts_with("cannot write the TensorBoard events") && message.contains("file"), "{message}");
    }
}
