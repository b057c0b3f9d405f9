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

/// The bytes of the file at `path`. Whatever else is there is not opened: a pipe may wait for ever for its other end.
///
/// # Errors
/// See [`PictureFileError`].
pub fn read(path: &Path) -> Result<Vec<u8>, PictureFileError> {
    let there = metadata(path)?;
    if !there.is_file() {
        return Err(PictureFileError::NotAFile);
    }
    if there.len() > LARGEST_FILE {
        return Err(PictureFileError::TooLarge);
    }
    read_all(File::open(path)?)
}

/// All bytes of `source`.
///
/// # Errors
/// More than [`LARGEST_FILE`] bytes, or the system's refusal.
pub fn read_all(source: impl Read) -> Result<Vec<u8>, PictureFileError> {
    read_at_most(LARGEST_FILE, source)
}

fn read_at_most(most: u64, source: impl Read) -> Result<Vec<u8>, PictureFileError> {
    let mut bytes = Vec::new();
    source.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most { Err(PictureFileError::TooLarge) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_end_is_not_read_to_its_end() {
        assert_eq!(read_at_most(3, &b"abc"[..]).unwrap(), b"abc");
        assert!(matches!(read_at_most(3, io::repeat(0)), Err(PictureFileError::TooLarge)));
    }

    #[test]
    fn files_are_read_and_others_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("small.png"), b"abc").unwrap();
        assert_eq!(read(&path("small.png")).unwrap(), b"abc");
        // All of it is a hole, which takes no room.
        File::create(path("huge.png")).unwrap().set_len(LARGEST_FILE + 1).unwrap();
        assert!(matches!(read(&path("huge.png")), Err(PictureFileError::TooLarge)));
        assert!(matches!(read(folder.path()), Err(PictureFileError::NotAFile)));
        let Err(PictureFileError::Unreadable(error)) = read(&path("absent.png")) else { panic!("it is absent") };
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
