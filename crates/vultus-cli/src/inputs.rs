//! The picture files that arguments mean: files, folders with all below them, patterns, addresses and stdin.
//!
//! In: arguments. Out: sources one after the other, each only when it is asked for, so that a million files are no
//! burden. What cannot be read is a source, too: its row will say why.

mod pattern;

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use vultus::analyze::RecordError;
use vultus::batch::Source;
use vultus::decode::{DecodeError, is_named_as_picture};
use vultus::picture_file::{self, LARGEST_FILE, is_hidden, name};

use self::pattern::{Pattern, WholePath, here, is_pattern, listed};
use crate::{http, interrupt};

/// The code of a picture that was waited for until somebody asked to stop: nothing is known of it.
pub const INTERRUPTED: &str = "interrupted";

/// The argument that means stdin.
const STDIN: &str = "-";

/// The sources that `arguments` mean, in their order; folders and patterns in the order of the names. A path comes once,
/// however many arguments mean it.
pub fn sources(arguments: Vec<PathBuf>, left_out: &LeftOut) -> impl Iterator<Item = Source> + Send + use<> {
    let left_out = left_out.clone();
    // Hashes, because there may be a million.
    let (hashes, mut met) = (RandomState::new(), HashSet::new());
    let all = arguments.into_iter().flat_map(move |path| argument(path, &left_out));
    all.filter(move |source| met.insert(hashes.hash_one(&source.path)))
}

/// Whether an argument is a path, and neither stdin nor an address.
pub fn is_path(argument: &Path) -> bool {
    argument.to_str().is_none_or(|text| text != STDIN && !http::is_url(text))
}

/// Whether an argument means stdin.
pub fn is_stdin(argument: &Path) -> bool {
    argument.as_os_str() == STDIN
}

/// The arguments in the file `list`, or on stdin, each of which ends with `end`. Empty ones are none.
///
/// # Errors
/// The system's refusal, naming the file, and a name that is no text on systems where all are.
pub fn listed_in(list: &Path, end: u8) -> io::Result<Vec<PathBuf>> {
    let mut bytes = Vec::new();
    if is_stdin(list) {
        io::stdin().lock().read_to_end(&mut bytes)?;
    } else {
        bytes = fs_err::read(list)?;
    }
    // Which Windows' editors put in front of a text.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").filter(|_| end == b'\n').unwrap_or(&bytes);
    let whole = |name: &[u8]| {
        // Windows ends lines with two characters.
        let line = name.strip_suffix(b"\r").filter(|_| end == b'\n');
        line.unwrap_or(name).to_vec()
    };
    bytes.split(|&byte| byte == end).map(whole).filter(|name| !name.is_empty()).map(path_of).collect()
}

#[cfg(unix)]
fn path_of(name: Vec<u8>) -> io::Result<PathBuf> {
    use std::os::unix::ffi::OsStringExt;

    Ok(std::ffi::OsString::from_vec(name).into())
}

#[cfg(not(unix))]
fn path_of(name: Vec<u8>) -> io::Result<PathBuf> {
    String::from_utf8(name).map(Into::into).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// What is no input, wherever it lies.
#[derive(Clone, Default)]
pub struct LeftOut {
    folders: Arc<[PathBuf]>,
    file: Option<Arc<Path>>,
}

impl LeftOut {
    /// All that lies in `folders`, and a `file`; they are named without links.
    pub fn new(folders: &[PathBuf], file: Option<PathBuf>) -> Self {
        Self { folders: folders.into(), file: file.map(Into::into) }
    }

    fn has(&self, folder: &Path) -> bool {
        let inside = |folder: PathBuf| self.folders.iter().any(|left_out| folder.starts_with(left_out));
        !self.folders.is_empty() && folder.canonicalize().is_ok_and(inside)
    }

    fn is(&self, file: &Path) -> bool {
        let same_name = |left_out: &&Arc<Path>| left_out.file_name() == file.file_name();
        let left_out = self.file.as_ref().filter(same_name);
        left_out.is_some_and(|left_out| file.canonicalize().is_ok_and(|file| file == **left_out))
    }
}

type Sources = Box<dyn Iterator<Item = Source> + Send>;

fn argument(path: PathBuf, left_out: &LeftOut) -> Sources {
    // What is no text is neither stdin nor an address.
    let text = path.to_str().unwrap_or_default().to_owned();
    if is_stdin(&path) {
        return only(source(text, || unless_interrupted(stdin)));
    }
    if http::is_url(&text) {
        let url = text.clone();
        let get = move || http::get(&url, LARGEST_FILE).map_err(|message| RecordError { code: "unreachable", message });
        return only(source(text, || unless_interrupted(get)));
    }
    if !path.exists()
        && let Some((scheme, _)) =
            text.split_once("://").filter(|(scheme, _)| scheme.chars().all(char::is_alphanumeric))
    {
        return only(failed(name(&path), format!("addresses begin with http:// or https://, not with {scheme}://")));
    }
    if left_out.has(&path) || path.parent().is_some_and(|folder| left_out.has(here(folder))) {
        return Box::new(std::iter::empty());
    }
    if path.is_dir() {
        let name = name(&path);
        let mut pictures = Folder::new(path, None, left_out).peekable();
        if pictures.peek().is_none() {
            return only(failed(name, "no picture is in this folder or below".to_owned()));
        }
        return Box::new(pictures);
    }
    if left_out.is(&path) {
        return Box::new(std::iter::empty());
    }
    // A file may be called what looks like a pattern.
    if path.exists() || !is_pattern(&path) {
        return only(file(path));
    }
    match expand(&path, left_out) {
        Ok(sources) => {
            let mut sources = sources.peekable();
            if sources.peek().is_none() {
                return only(failed(name(&path), "no file has a name of this pattern".to_owned()));
            }
            Box::new(sources)
        }
        Err(error) => only(failed(name(&path), format!("it is no file, and no pattern either: {error}"))),
    }
}

/// What a pattern means; of folders, what lies in them. From `**` on it is looked for as in a folder: through no links, which
/// may lead back.
fn expand(path: &Path, left_out: &LeftOut) -> Result<Sources, glob::PatternError> {
    let Pattern { beginning, recursive } = Pattern::new(path)?;
    let (recursive, left_out) = (recursive.map(Arc::new), left_out.clone());
    Ok(Box::new(beginning.flat_map(move |hit| match hit {
        Ok(path) if here(&path).is_dir() => Box::new(Folder::new(path, recursive.clone(), &left_out)) as Sources,
        Ok(_) if recursive.is_some() => Box::new(std::iter::empty()),
        Ok(path) if path.parent().is_some_and(|folder| left_out.has(here(folder))) => Box::new(std::iter::empty()),
        Ok(path) if left_out.is(&path) => Box::new(std::iter::empty()),
        Ok(path) => only(Source::file(path)),
        Err((folder, error)) => only(failed(name(&folder), error.to_string())),
    })))
}

fn only(source: Source) -> Sources {
    Box::new(std::iter::once(source))
}

/// Everything below a folder, depth first, but what is hidden. Links to folders are not followed, so that none is met twice.
struct Folder {
    /// Files and folders still to come, the next one last.
    waiting: Vec<PathBuf>,
    /// What is meant of it: files of this name, and the pictures in folders of this name; without it, all pictures.
    pattern: Option<Arc<WholePath>>,
    left_out: LeftOut,
}

impl Folder {
    fn new(path: PathBuf, pattern: Option<Arc<WholePath>>, left_out: &LeftOut) -> Self {
        Self { waiting: vec![path], pattern, left_out: left_out.clone() }
    }

    fn means(&self, file: &Path) -> bool {
        let is_picture = is_named_as_picture(file) && !is_hidden(file);
        self.pattern.as_ref().map_or(is_picture, |pattern| {
            // Of a folder that is meant, what is not hidden in it.
            let mut folders = file.ancestors().skip(1);
            let mut inside = || folders.find(|folder| is_hidden(folder) || pattern.matches(folder));
            pattern.matches(file) || (is_picture && inside().is_some_and(|folder| pattern.matches(folder)))
        })
    }

    /// A pattern may name what is hidden.
    fn enters(&self, folder: &Path) -> bool {
        !is_hidden(folder) || self.pattern.as_ref().is_some_and(|pattern| pattern.names_hidden)
    }
}

impl Iterator for Folder {
    type Item = Source;

    fn next(&mut self) -> Option<Source> {
        while let Some(path) = self.waiting.pop() {
            if !here(&path).is_dir() {
                if self.left_out.is(&path) {
                    continue;
                }
                return Some(Source::file(path));
            }
            if self.left_out.has(here(&path)) {
                continue;
            }
            let (paths, error) =
                listed(
                    &path,
                    |path, kind| {
                        if kind.is_dir() { self.enters(path) } else { self.means(path) && !path.is_dir() }
                    },
                );
            self.waiting.extend(paths);
            if let Some(error) = error {
                return Some(failed(name(&path), error.to_string()));
            }
        }
        None
    }
}

fn stdin() -> Result<Vec<u8>, RecordError> {
    let bytes = picture_file::read_all(io::stdin().lock())?;
    if bytes.is_empty() {
        let message = "nothing came from stdin".to_owned();
        return Err(RecordError { code: DecodeError::Empty.code(), message });
    }
    Ok(bytes)
}

/// What somebody has named may be a pipe or a device as well.
fn file(path: PathBuf) -> Source {
    source(name(&path), move || {
        let waits = path.metadata().is_ok_and(|there| !there.is_file());
        let read = move || Ok(picture_file::read_named(&path)?);
        if waits { unless_interrupted(read) } else { read() }
    })
}

/// Reads what may never come, in a thread of its own: an interruption ends the wait.
fn unless_interrupted(
    read: impl FnOnce() -> Result<Vec<u8>, RecordError> + Send + 'static,
) -> Result<Vec<u8>, RecordError> {
    /// How often is looked for an interruption.
    const PAUSE: Duration = Duration::from_millis(50);
    let (sender, receiver) = channel();
    std::thread::spawn(move || sender.send(read()));
    loop {
        match receiver.recv_timeout(PAUSE) {
            Ok(read) => return read,
            Err(RecvTimeoutError::Disconnected) => return Err(RecordError::internal()),
            Err(RecvTimeoutError::Timeout) if interrupt::requested() => {
                return Err(RecordError { code: INTERRUPTED, message: "interrupted".to_owned() });
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

fn source(path: String, read: impl FnOnce() -> Result<Vec<u8>, RecordError> + Send + 'static) -> Source {
    Source { path, read: Box::new(read) }
}

fn failed(path: String, message: String) -> Source {
    source(path, || Err(RecordError { code: "unreadable", message }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path, arguments: &[&str]) -> Vec<String> {
        let arguments = arguments.iter().map(|name| folder.join(name)).collect();
        let prefix = format!("{}/", folder.display());
        sources(arguments, &LeftOut::default())
            .map(|source| source.path.trim_start_matches(&prefix).to_owned())
            .collect()
    }

    #[test]
    fn folders_patterns_and_files_are_listed_in_order() {
        let folder = tempfile::tempdir().unwrap();
        for name in
            ["b/2.png", "b/1.JPG", "b/notes.txt", "b/deep/er/3.webp", "b/phone.HEIC", "a.png", "c.bmp", "[x].png"]
        {
            let path = folder.path().join(name);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, "x").unwrap();
        }
        let names = |arguments: &[&str]| names(folder.path(), arguments);
        assert_eq!(names(&["b"]), ["b/1.JPG", "b/2.png", "b/deep/er/3.webp", "b/phone.HEIC"]);
        assert_eq!(names(&["*.png", "b/notes.txt"]), ["[x].png", "a.png", "b/notes.txt"]);
        assert_eq!(names(&["b/*"]), ["b/1.JPG", "b/2.png", "b/deep/er/3.webp", "b/notes.txt", "b/phone.HEIC"]);
        assert_eq!(names(&["[x].png"]), ["[x].png"]);
        assert_eq!(names(&["none*.png"]), ["none*.png"]);
        assert_eq!(names(&["?"]), ["b/1.JPG", "b/2.png", "b/deep/er/3.webp", "b/phone.HEIC"]);
        assert_eq!(names(&["*/"]), names(&["b"]));
        assert_eq!(names(&["*/deep/*/3.webp", "b//d*p/./er/*"]), ["b/deep/er/3.webp"]);
        assert_eq!(names(&["a.png/*"]), ["a.png/*"]);
        assert_eq!(names(&["absent.png"]), ["absent.png"]);
        assert_eq!(names(&[""]).len(), 8 - 1);
    }

    #[test]
    fn what_several_arguments_mean_comes_once() {
        let folder = tempfile::tempdir().unwrap();
        let pictures = ["a/1.png", "a/b/2.png", "a/b/c/3.png"];
        for name in pictures {
            let path = folder.path().join(name);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, "x").unwrap();
        }
        // A recursive pattern means folders and what lies in them; so does what a shell makes of it.
        for arguments in [
            &["a/**/*"][..],
            &["**/*"],
            &["a", "a/1.png", "a/b", "a/b/2.png", "a/b/c", "a/b/c/3.png"],
            &["a/1.png", "a/b/2.png", "a", "a/b/*.png"],
        ] {
            assert_eq!(names(folder.path(), arguments), pictures, "{arguments:?}");
        }
        assert_eq!(names(folder.path(), &["a/**"]), pictures);
        assert_eq!(names(folder.path(), &["a/**/c"]), ["a/b/c/3.png"]);
        assert_eq!(names(folder.path(), &["?/**/[23].png"]), ["a/b/2.png", "a/b/c/3.png"]);
        assert_eq!(names(folder.path(), &["a/b/c", "a"]), ["a/b/c/3.png", "a/1.png", "a/b/2.png"]);
        assert_eq!(names(folder.path(), &["absent.png", "absent.png"]), ["absent.png"]);
    }

    #[test]
    fn what_is_hidden_comes_only_if_it_is_named() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a/1.png", "a/._1.png", "a/.trash/2.png", "a/b/.3.png", "a/b/4.png"] {
            let path = folder.path().join(name);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, "x").unwrap();
        }
        for argument in ["a", "a/", "a/*", "a/**", "a/**/*", "**/*.png", "*"] {
            assert_eq!(names(folder.path(), &[argument]), ["a/1.png", "a/b/4.png"], "{argument}");
        }
        assert_eq!(names(folder.path(), &["a/.trash", "a/._1.png"]), ["a/.trash/2.png", "a/._1.png"]);
        assert_eq!(names(folder.path(), &["a/.*.png", "a/*/.*"]), ["a/._1.png", "a/b/.3.png"]);
        assert_eq!(names(folder.path(), &["**/.trash/*"]), ["a/.trash/2.png"]);
    }

    #[test]
    fn a_folder_without_pictures_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("empty");
        fs_err::create_dir_all(path.join("deeper")).unwrap();
        fs_err::write(path.join("notes.txt"), "x").unwrap();
        let found: Vec<Source> = sources(vec![path.clone()], &LeftOut::default()).collect();
        assert_eq!(found.len(), 1);
        let Source { path: named, read } = found.into_iter().next().unwrap();
        assert_eq!(named, path.display().to_string());
        assert_eq!(read().unwrap_err().code, "unreadable");
    }

    #[cfg(unix)]
    #[test]
    fn links_that_lead_back_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        fs_err::create_dir(folder.path().join("deep")).unwrap();
        fs_err::write(folder.path().join("deep/1.png"), "x").unwrap();
        for link in ["one", "two"] {
            std::os::unix::fs::symlink("..", folder.path().join("deep").join(link)).unwrap();
        }
        for argument in ["deep", "deep/**/*", "**/*.png", "**"] {
            assert_eq!(names(folder.path(), &[argument]), ["deep/1.png"], "{argument}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_pipe_in_a_folder_is_no_picture() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe.jpg");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.is_ok_and(|status| status.success()), "mkfifo");
        for argument in [folder.path().to_owned(), folder.path().join("*")] {
            let source = sources(vec![argument], &LeftOut::default()).next().unwrap();
            assert_eq!(source.path, pipe.display().to_string());
            assert_eq!((source.read)().unwrap_err().code, "unreadable");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn names_that_are_no_text_stay_apart_and_are_read() {
        use std::os::unix::ffi::OsStrExt;

        let folder = tempfile::tempdir().unwrap();
        let path = |name: &[u8]| folder.path().join(std::ffi::OsStr::from_bytes(name));
        for byte in [0xfe, 0xff] {
            fs_err::write(path(&[byte, b'.', b'p', b'n', b'g']), [byte]).unwrap();
        }
        let both = ["\\xFE.png", "\\xFF.png"];
        let prefix = format!("{}/", folder.path().display());
        let read = |name: &[u8]| -> Vec<(String, Vec<u8>)> {
            let found = sources(vec![path(name)], &LeftOut::default());
            found.map(|source| (source.path.replace(&prefix, ""), (source.read)().unwrap_or_default())).collect()
        };
        for (byte, name) in [(0xfe, both[0]), (0xff, both[1])] {
            assert_eq!(read(&[byte, b'.', b'p', b'n', b'g']), [(name.to_owned(), vec![byte])]);
        }
        // What looks like such a name is another one.
        assert_eq!(name(Path::new("a\\xFF.png")), "a\\x5CxFF.png");
        assert_eq!(name(Path::new("a\\x5C\\xfg\\.png")), "a\\x5Cx5C\\xfg\\.png");
        // A byte is a character, in a pattern as well.
        let patterns = [&b"*"[..], b"*.png", b"**/*.png", b"**/?.png", b"?.png", b"[\xfe\xff].png", b"[!\xf0]*g"];
        for pattern in patterns {
            assert_eq!(
                read(pattern),
                [(both[0].to_owned(), vec![0xfe]), (both[1].to_owned(), vec![0xff])],
                "{pattern:?}"
            );
        }
        assert_eq!(read(b"\xff*"), [(both[1].to_owned(), vec![0xff])]);
        assert_eq!(read(b"\xfd*"), [("\\xFD*".to_owned(), vec![])]);
        assert_eq!(names(folder.path(), &["."]), both.map(|name| format!("./{name}")));
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        for (argument, code) in
            [("absent.png", "unreadable"), ("none-*.png", "unreadable"), ("http://127.0.0.1:1/", "unreachable")]
        {
            let source = sources(vec![PathBuf::from(argument)], &LeftOut::default()).next().unwrap();
            assert_eq!((source.read)().unwrap_err().code, code, "{argument}");
        }
    }
}
