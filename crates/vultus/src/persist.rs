//! Files that are complete or absent.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use tempfile::{NamedTempFile, PathPersistError, TempPath};

/// How the names of files and folders begin that are not finished yet; [`remove_unfinished`] knows files by it.
pub const UNFINISHED: &str = ".writing-";

/// Writes a file through `write` so that `path` holds either all of it or what it held before: into a temporary file
/// in the same directory, synchronised with the disk, then renamed. On an error the temporary file is removed.
///
/// # Errors
/// What `write` returns, or the system's refusal; the message names `path`.
pub fn write_atomically(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&mut NamedTempFile>) -> io::Result<()>,
) -> io::Result<()> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("cannot write {}: {error}", path.display()));
    let mut file = beside(path)?;
    let mut writer = BufWriter::with_capacity(1 << 20, &mut file);
    write(&mut writer).and_then(|()| writer.flush()).map_err(named)?;
    drop(writer);
    file.as_file().sync_all().map_err(named)?;
    file.persist(path).map_err(|error| named(error.error))?;
    Ok(())
}

/// A temporary file in the directory of `path`, to be renamed to it when it is complete; removed if it is dropped.
///
/// # Errors
/// The system's refusal; the message names `path`.
pub fn beside(path: &Path) -> io::Result<NamedTempFile> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("cannot write {}: {error}", path.display()));
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    builder().tempfile_in(directory).map_err(named)
}

/// Writes the new file `path`, complete or absent. One that is there is left alone.
///
/// # Errors
/// The system's refusal; the message names `path`. What is complete already is kept beside it, and named.
pub fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("cannot write {}: {error}", path.display()));
    let mut file = beside(path)?;
    file.write_all(content).map_err(named)?;
    put_new(file.into_temp_path(), path)
}

/// Gives the complete `file` the name `path` in the same directory, unless there is a file of that name.
///
/// # Errors
/// The system's refusal, or a file that is there; the message names `path` and the place where `file` stays.
pub fn put_new(mut file: TempPath, path: &Path) -> io::Result<()> {
    // A name must not be on the disk before what it names.
    let synced = std::fs::File::options().write(true).open(&file).and_then(|file| file.sync_all());
    if let Err(error) = synced {
        file.disable_cleanup(true);
        let (path, file) = (path.display(), file.display());
        return Err(io::Error::new(
            error.kind(),
            format!("cannot write {path}: {error}; what there is of it is in {file}"),
        ));
    }
    file.persist_noclobber(path).map_err(|PathPersistError { error, path: mut file }| {
        file.disable_cleanup(true);
        let (path, file) = (path.display(), file.display());
        io::Error::new(error.kind(), format!("cannot write {path}: {error}; it is complete in {file}"))
    })
}

/// Removes what a killed process left unfinished in `directory`; call it only where no other process writes. Without the
/// directory, nothing happens.
///
/// # Errors
/// The system's refusal, naming the path.
pub fn remove_unfinished(directory: &Path) -> io::Result<()> {
    if !directory.is_dir() {
        return Ok(());
    }
    for entry in fs_err::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            fs_err::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// A temporary file that gets an ordinary new file's permissions, before the umask; by default it would be private.
fn builder() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(UNFINISHED);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        write_atomically(&path, |file| file.write_all(b"old")).unwrap();
        let error = write_atomically(&path, |file| {
            file.write_all(b"new")?;
            Err(io::Error::new(io::ErrorKind::StorageFull, "no space left"))
        })
        .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert!(error.to_string().contains("file") && error.to_string().contains("no space left"), "{error}");
        assert_eq!(fs_err::read(&path).unwrap(), b"old");
        assert_eq!(fs_err::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_new_file_replaces_none_and_is_not_lost() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        write_new(&path, b"first").unwrap();
        let message = write_new(&path, b"second").unwrap_err().to_string();
        assert_eq!(fs_err::read(&path).unwrap(), b"first");
        assert!(message.contains(&path.display().to_string()), "{message}");
        let kept = message.rsplit_once("complete in ").unwrap().1;
        assert_eq!(fs_err::read(kept).unwrap(), b"second");
    }

    #[test]
    fn only_unfinished_files_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let left = builder().tempfile_in(directory.path()).unwrap().keep().unwrap().1;
        let good = directory.path().join("file");
        fs_err::write(&good, "good").unwrap();
        remove_unfinished(directory.path()).unwrap();
        assert!(!left.exists() && good.exists());
        remove_unfinished(&directory.path().join("absent")).unwrap();
    }

    #[test]
    fn a_missing_directory_is_named() {
        let error = write_atomically(Path::new("no/such/directory/file"), |_| Ok(())).unwrap_err();
        assert!(error.to_string().contains("no/such/directory/file"), "{error}");
    }
}
