//! The bytes of picture files, and never more of them than a picture can have.
//!
//! In: the path of a file, such as one that was found in a folder, or anything that can be read. Out: all of its bytes, or
//! why not. It decodes nothing: see [`crate::decode`].

use std::fs::{File, metadata};
use std::io::{self, Read};
use std::path::Path;

/// Bytes of the largest file that is read. A picture of 64 million pixels has fewer, whatever its format.
pub const LARGEST_FILE: u64 = 512 << 20;

/// Why a picture file was not read. The messages leave the path to whoever knows it.
#[derive(Debug, thiserror::Error)]
pub enum PictureFileError {
    /// A folder, a pipe or a device.
    #[error("it is no file, whatever it is called")]
    NotAFile,
    /// More than [`LARGEST_FILE`].
    #[error("the file is larger than {} MB", LARGEST_FILE >> 20)]
    TooLarge,
    /// The system's refusal.
    #[error(transparent)]
    Unreadable(#[from] io::Error),
}

impl PictureFileError {
    /// The kind of error in one word, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::NotAFile | Self::Unreadable(_) => "unreadable",
        }
    }
}

/// Whether the name begins with a point, as those of trash folders and of the notes that some systems put beside each picture:
/// whoever walks through a folder passes over it.
pub fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// A path as text. What is no text in it becomes `\xFF` and the like, and a backslash that looks as if it had `\x5C`, so that two
/// names stay two.
pub fn name(path: &Path) -> String {
    let mut name = String::new();
    for chunk in path.as_os_str().as_encoded_bytes().utf8_chunks() {
        let mut pieces = chunk.valid().split('\\');
        name.push_str(pieces.next().unwrap_or_default());
        for piece in pieces {
            // Elsewhere it separates folders.
            name.push_str(if cfg!(unix) && looks_escaped(piece) { "\\x5C" } else { "\\" });
            name.push_str(piece);
        }
        name.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02X}")));
    }
    name
}

/// Whether what follows a backslash looks like a byte of `name`.
fn looks_escaped(piece: &str) -> bool {
    let digits = piece.strip_prefix('x').and_then(|rest| rest.as_bytes().get(..2));
    digits.is_some_and(|digits| digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'A'..=b'F')))
}

/// The bytes of the file at `path`. Whatever else is there is not opened: a pipe may wait for ever for its other end.
///
/// # Errors
/// See [`PictureFileError`].
pub fn read(path: &Path) -> Result<Vec<u8>, PictureFileError> {
    if !metadata(path)?.is_file() {
        return Err(PictureFileError::NotAFile);
    }
    read_named(path)
}

/// The bytes of the file, the pipe or the device at `path`, which somebody has named.
///
/// # Errors
/// More than [`LARGEST_FILE`] bytes, of which a file's are not read, or the system's refusal.
pub fn read_named(path: &Path) -> Result<Vec<u8>, PictureFileError> {
    let file = File::open(path)?;
    // Pipes and devices announce nothing.
    let announced = file.metadata()?.len();
    if announced > LARGEST_FILE {
        return Err(PictureFileError::TooLarge);
    }
    read_at_most(LARGEST_FILE, announced, file)
}

/// All bytes of `source`.
///
/// # Errors
/// More than [`LARGEST_FILE`] bytes, or the system's refusal.
pub fn read_all(source: impl Read) -> Result<Vec<u8>, PictureFileError> {
    read_at_most(LARGEST_FILE, 0, source)
}

/// Room for `announced` bytes is made at once; a source may have more of them, or fewer.
fn read_at_most(most: u64, announced: u64, mut source: impl Read) -> Result<Vec<u8>, PictureFileError> {
    let mut bytes = Vec::with_capacity(announced as usize);
    // In parts: room for one byte more than the most would be twice the room.
    let mut part = vec![0; 1 << 16];
    loop {
        match source.read(&mut part) {
            Ok(0) => return Ok(bytes),
            Ok(count) if (bytes.len() + count) as u64 > most => return Err(PictureFileError::TooLarge),
            Ok(count) => bytes.extend_from_slice(&part[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_end_is_not_read_to_its_end() {
        for announced in [0, 2, 3] {
            assert_eq!(read_at_most(3, announced, &b"abc"[..]).unwrap(), b"abc");
            assert!(matches!(read_at_most(3, announced, io::repeat(0)), Err(PictureFileError::TooLarge)));
        }
    }

    #[test]
    fn files_are_read_and_others_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("small.png"), b"abc").unwrap();
        assert_eq!(read(&path("small.png")).unwrap(), b"abc");
        // All of it is a hole, which takes no room.
        File::create(path("huge.png")).unwrap().set_len(LARGEST_FILE + 1).unwrap();
        for read in [read, read_named] {
            assert!(matches!(read(&path("huge.png")), Err(PictureFileError::TooLarge)));
        }
        assert!(matches!(read(folder.path()), Err(PictureFileError::NotAFile)));
        let Err(PictureFileError::Unreadable(error)) = read(&path("absent.png")) else { panic!("it is absent") };
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
