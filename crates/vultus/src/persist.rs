//! Files that are complete or absent.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tempfile::{NamedTempFile, PathPersistError, TempDir, TempPath};

use crate::program;

/// How the names of files and folders begin that are not finished yet; [`remove_unfinished`] knows them by it.
pub const UNFINISHED: &str = ".writing-";

/// What this process is writing.
static BEGUN: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// A file or folder that is not finished: while this lives, [`abandon`] removes it.
#[derive(Debug)]
pub struct Unfinished(PathBuf);

impl Unfinished {
    /// The one at `path`, which need not be there yet.
    pub fn new(path: &Path) -> Self {
        Self::among(&mut begun(), path)
    }

    /// What `make` makes at the place that `place` tells of it: nothing is abandoned in between.
    fn of<T>(make: impl FnOnce() -> io::Result<T>, place: impl FnOnce(&T) -> &Path) -> io::Result<(Self, T)> {
        let mut begun = begun();
        let made = make()?;
        let unfinished = Self::among(&mut begun, place(&made));
        Ok((unfinished, made))
    }

    fn among(begun: &mut BTreeSet<PathBuf>, path: &Path) -> Self {
        // It may be asked for from another directory.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        begun.insert(path.clone());
        Self(path)
    }

    /// Finishes it by `put`, such as by giving it its name: nothing is abandoned in between.
    pub fn finish<T>(self, put: impl FnOnce() -> T) -> T {
        let mut begun = begun();
        let done = put();
        begun.remove(&self.0);
        drop(begun);
        done
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        begun().remove(&self.0);
    }
}

fn begun() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    BEGUN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes what this process, or a program that it started, has begun to write and not finished, for whoever ends it at once: whatever is
/// begun or finished after that waits for the end.
pub fn abandon() {
    // A program may not have made its file yet.
    program::end_all();
    let begun = begun();
    for path in begun.iter() {
        if !path.is_dir() {
            let _ = std::fs::remove_file(path);
            continue;
        }
        // Others may still be writing into a folder: under another name they do not find it.
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push("-");
        let away = path.with_file_name(name);
        if std::fs::rename(path, &away).is_ok() {
            let _ = (0..10).find(|_| std::fs::remove_dir_all(&away).is_ok());
        }
    }
    std::mem::forget(begun);
}

/// Whether something is at `path`.
///
/// # Errors
/// The system's refusal to tell, as of a folder that may not be entered; the message names the path.
pub fn is_there(path: &Path) -> io::Result<bool> {
    match std::fs::metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
        Err(error) => Err(io::Error::new(error.kind(), format!("cannot look at {}: {error}", path.display()))),
    }
}

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
    let (unfinished, mut file) = beside(path)?;
    let mut writer = BufWriter::with_capacity(1 << 20, &mut file);
    write(&mut writer).and_then(|()| writer.flush()).map_err(named)?;
    drop(writer);
    file.as_file().sync_all().map_err(named)?;
    unfinished.finish(|| file.persist(path)).map_err(|error| named(error.error))?;
    Ok(())
}

/// Writes files and folders through `write` into a folder of their own in `directory`, and then moves all of them to their
/// names in `directory`, in place of what is there: whoever is interrupted leaves all or none of them, and no new `directory`.
///
/// # Errors
/// What `write` returns, or the system's refusal, naming the path, and the place of what could not be moved.
pub fn write_together<E: From<io::Error>>(
    directory: &Path,
    write: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let new = (!directory.exists()).then(|| Unfinished::new(directory));
    fs_err::create_dir_all(directory)?;
    let written = write_all_into(directory, write);
    if written.is_err() && new.is_some() {
        // Unless what was written is kept there.
        let _ = std::fs::remove_dir(directory);
    }
    written
}

fn write_all_into<E: From<io::Error>>(directory: &Path, write: impl FnOnce(&Path) -> Result<(), E>) -> Result<(), E> {
    let (unfinished, folder) = folder_in(directory)?;
    write(folder.path())?;
    let inside = folder.path().to_owned();
    let entries = fs_err::read_dir(&inside)?.collect::<io::Result<Vec<_>>>()?;
    let put = |entry: &fs_err::DirEntry| {
        let to = directory.join(entry.file_name());
        if to.is_dir() {
            // No name is given in place of a folder's; the old one goes with the folder that was written into.
            let mut old = OsString::from(UNFINISHED);
            old.push(entry.file_name());
            fs_err::rename(&to, inside.join(old))?;
        }
        fs_err::rename(entry.path(), to)
    };
    Ok(unfinished.finish(|| {
        let put = entries.iter().try_for_each(put);
        if let Err(error) = put {
            // Neither what is new nor what was old is lost, and nobody takes it for unfinished.
            let rest = folder.keep();
            let name = rest.file_name().unwrap_or_default().to_string_lossy().replace(UNFINISHED, "kept-");
            let kept = rest.with_file_name(name);
            let rest = if std::fs::rename(&rest, &kept).is_ok() { kept } else { rest };
            let message = format!("{error}; what has no place is in {}", rest.display());
            return Err(io::Error::new(error.kind(), message));
        }
        // With what was replaced, which nobody is to find.
        drop(folder);
        Ok(())
    })?)
}

/// A temporary folder in `directory`, with an ordinary new folder's permissions, before the umask; removed if it is dropped, which must be before what
/// stands for it among the unfinished.
///
/// # Errors
/// The system's refusal; the message names `directory`.
pub fn folder_in(directory: &Path) -> io::Result<(Unfinished, TempDir)> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(UNFINISHED);
    #[cfg(unix)] // By default it would be private.
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
    Unfinished::of(|| builder.tempdir_in(directory), TempDir::path)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot write into {}: {error}", directory.display())))
}

/// A temporary file in the directory of `path`, to be renamed to it when it is complete; removed if it is dropped, which must be before what stands
/// for it among the unfinished.
///
/// # Errors
/// The system's refusal; the message names `path`.
pub fn beside(path: &Path) -> io::Result<(Unfinished, NamedTempFile)> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("cannot write {}: {error}", path.display()));
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Unfinished::of(|| builder().tempfile_in(directory), NamedTempFile::path).map_err(named)
}

/// Writes the new file `path`, complete or absent. One that is there is left alone.
///
/// # Errors
/// The system's refusal; the message names `path`. What is complete already is kept beside it, and named.
pub fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("cannot write {}: {error}", path.display()));
    let (unfinished, mut file) = beside(path)?;
    file.write_all(content).map_err(named)?;
    put_new(file.into_temp_path(), unfinished, path)
}

/// Gives the complete `file` the name `path` in the same directory, unless there is a file of that name.
///
/// # Errors
/// The system's refusal, or a file that is there; the message names `path` and the place where `file` stays.
pub fn put_new(mut file: TempPath, unfinished: Unfinished, path: &Path) -> io::Result<()> {
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
    unfinished.finish(|| file.persist_noclobber(path)).map_err(|PathPersistError { error, path: mut file }| {
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
            let is_folder = entry.file_type()?.is_dir();
            if is_folder { fs_err::remove_dir_all(entry.path())? } else { fs_err::remove_file(entry.path())? }
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
        let folder = folder_in(directory.path()).unwrap().1.keep();
        fs_err::write(folder.join("file"), "half").unwrap();
        remove_unfinished(directory.path()).unwrap();
        assert!(!left.exists() && !folder.exists() && good.exists());
        remove_unfinished(&directory.path().join("absent")).unwrap();
    }

    #[test]
    fn what_is_begun_is_removed_until_it_is_finished() {
        // In a process of its own: nothing can be written after it.
        const INSIDE: &str = "VULTUS_TEST_ABANDON";
        if let Some(directory) = std::env::var_os(INSIDE).map(PathBuf::from) {
            drop(Unfinished::new(&directory.join("finished")));
            let _file = Unfinished::new(&directory.join("file"));
            let _folder = Unfinished::new(&directory.join("folder"));
            let _absent = Unfinished::new(&directory.join("absent"));
            write_atomically(&directory.join("whole"), |file| file.write_all(b"whole")).unwrap();
            abandon();
            std::process::exit(0);
        }
        let directory = tempfile::tempdir().unwrap();
        fs_err::create_dir(directory.path().join("folder")).unwrap();
        for name in ["finished", "file", "folder/file"] {
            fs_err::write(directory.path().join(name), name).unwrap();
        }
        let test = "persist::tests::what_is_begun_is_removed_until_it_is_finished";
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test])
            .env(INSIDE, directory.path())
            .stdout(std::process::Stdio::null())
            .status();
        assert!(status.unwrap().success());
        let mut left: Vec<_> =
            fs_err::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["finished", "whole"]);
    }

    #[test]
    fn what_is_written_together_takes_the_place_of_all_or_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let read = |name: &str| fs_err::read_to_string(directory.path().join(name)).ok();
        let write = |content: &'static str, fails: bool| {
            write_together(directory.path(), |folder| {
                fs_err::write(folder.join("list"), content)?;
                fs_err::create_dir(folder.join("files"))?;
                fs_err::write(folder.join("files").join(content), content)?;
                if fails { Err(io::Error::other("no space left")) } else { Ok(()) }
            })
        };
        fs_err::write(directory.path().join("other"), "other").unwrap();
        let absent = directory.path().join("absent");
        let fails = write_together(&absent, |folder| {
            fs_err::write(folder.join("list"), "new")?;
            Err(io::Error::other("no space left"))
        });
        assert!(fails.is_err() && !absent.exists());
        write("old", false).unwrap();
        write("new", true).unwrap_err();
        assert_eq!([read("list"), read("files/old")], [Some("old".to_owned()), Some("old".to_owned())]);
        write("new", false).unwrap();
        assert_eq!([read("list"), read("files/new")], [Some("new".to_owned()), Some("new".to_owned())]);
        assert_eq!([read("files/old"), read("other")], [None, Some("other".to_owned())]);
        assert_eq!(fs_err::read_dir(directory.path()).unwrap().count(), 3);
    }

    #[test]
    fn what_cannot_be_moved_is_kept_and_named() {
        let directory = tempfile::tempdir().unwrap();
        // A folder does not take the place of a file.
        fs_err::write(directory.path().join("files"), "old").unwrap();
        let write = |folder: &Path| {
            fs_err::create_dir(folder.join("files"))?;
            fs_err::write(folder.join("files").join("one"), "new")
        };
        let message = write_together(directory.path(), write).unwrap_err().to_string();
        let (_, kept) = message.rsplit_once("what has no place is in ").unwrap();
        remove_unfinished(directory.path()).unwrap();
        assert_eq!(fs_err::read_to_string(Path::new(kept).join("files/one")).unwrap(), "new");
        assert_eq!(fs_err::read_to_string(directory.path().join("files")).unwrap(), "old");
    }

    #[cfg(unix)]
    #[test]
    fn what_may_not_be_looked_at_is_not_absent() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        assert!(!is_there(&file).unwrap());
        fs_err::write(&file, "").unwrap();
        assert!(is_there(&file).unwrap() && !is_there(&file.join("below")).unwrap());
        let too_long = directory.path().join("x".repeat(300));
        assert!(is_there(&too_long).unwrap_err().to_string().contains("xxx"));
    }

    #[test]
    fn a_missing_directory_is_named() {
        let error = write_atomically(Path::new("no/such/directory/file"), |_| Ok(())).unwrap_err();
        assert!(error.to_string().contains("no/such/directory/file"), "{error}");
    }
}
