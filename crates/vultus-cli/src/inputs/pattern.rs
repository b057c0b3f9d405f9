//! Patterns such as `photos/*.jpg`, with `*`, `?`, `[...]` and `**` as the crate `glob` has them.
//!
//! In: an argument. Out: the paths that its beginning means, in the order of the names, and what decides about the paths
//! below them from `**` on. `glob` passes over names that are no text in UTF-8; here each byte that is none is a character
//! of its own, in names and in patterns.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::fs::FileType;
use std::io;
use std::path::{Component, Path, PathBuf, is_separator};

use glob::{MatchOptions, PatternError};
use vultus::picture_file::is_hidden;

/// Characters that make a name a pattern.
const SIGNS: &[u8] = b"*?[";

/// As shells match: no sign stands for a stroke, or for the point that hides a name.
const OPTIONS: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

/// Whether an argument may be a pattern.
pub fn is_pattern(argument: &Path) -> bool {
    has_signs(argument.as_os_str())
}

/// A pattern in two parts.
pub struct Pattern {
    /// What stands before `**`, or all of it.
    pub beginning: Hits,
    /// The whole, where `**` stands in it.
    pub recursive: Option<WholePath>,
}

impl Pattern {
    /// Takes `argument` apart.
    pub fn new(argument: &Path) -> Result<Self, PatternError> {
        // Without what is left out of the paths, too, such as a second stroke.
        let path: PathBuf = argument.components().collect();
        let recursive = path.components().any(|part| part.as_os_str() == "**");
        let before = path.components().take_while(|part| part.as_os_str() != "**");
        let parts = before.map(Part::new).collect::<Result<_, _>>()?;
        let recursive = recursive.then(|| WholePath::new(&path)).transpose()?;
        let last = argument.as_os_str().as_encoded_bytes().last();
        let folders_only = last.is_some_and(|&last| is_separator(char::from(last)));
        Ok(Self { beginning: Hits { parts, folders_only, waiting: vec![(PathBuf::new(), 0)] }, recursive })
    }
}

/// A pattern for paths from their first part to their last.
pub struct WholePath {
    pattern: glob::Pattern,
    /// Whether a part of it names what is hidden.
    pub names_hidden: bool,
}

impl WholePath {
    fn new(path: &Path) -> Result<Self, PatternError> {
        let names_hidden =
            path.components().any(|part| matches!(part, Component::Normal(name) if is_hidden(name.as_ref())));
        Ok(Self { pattern: glob::Pattern::new(&characters(path.as_os_str()))?, names_hidden })
    }

    pub fn matches(&self, path: &Path) -> bool {
        self.pattern.matches_with(&characters(path.as_os_str()), OPTIONS)
    }
}

/// A part of a path.
enum Part {
    Name(OsString),
    Pattern(glob::Pattern),
}

impl Part {
    fn new(part: Component) -> Result<Self, PatternError> {
        match part {
            Component::Normal(name) if has_signs(name) => glob::Pattern::new(&characters(name)).map(Self::Pattern),
            other => Ok(Self::Name(other.as_os_str().to_owned())),
        }
    }
}

/// The paths that are there, in the order of the names; without parts, the empty one. A folder that cannot be listed is its
/// path and the reason.
pub struct Hits {
    parts: Vec<Part>,
    folders_only: bool,
    /// Paths of the first so many parts, the next one last.
    waiting: Vec<(PathBuf, usize)>,
}

impl Iterator for Hits {
    type Item = Result<PathBuf, (PathBuf, io::Error)>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some((path, depth)) = self.waiting.pop() {
            match self.parts.get(depth) {
                None if self.folders_only && !here(&path).is_dir() => {}
                None => return Some(Ok(path)),
                Some(Part::Name(name)) => {
                    let path = path.join(name);
                    // A link to nothing is there as well: its row says that it cannot be read.
                    if path.symlink_metadata().is_ok() {
                        self.waiting.push((path, depth + 1));
                    }
                }
                Some(Part::Pattern(_)) if !here(&path).is_dir() => {}
                Some(Part::Pattern(pattern)) => {
                    let is_meant = |path: &Path, _| {
                        path.file_name().is_some_and(|name| pattern.matches_with(&characters(name), OPTIONS))
                    };
                    let (paths, error) = listed(&path, is_meant);
                    self.waiting.extend(paths.into_iter().map(|path| (path, depth + 1)));
                    if let Some(error) = error {
                        return Some(Err((path, error)));
                    }
                }
            }
        }
        None
    }
}

/// The paths in a folder that `is_meant` wants, the last name first, and why there are no more of them if there may be.
pub fn listed(folder: &Path, is_meant: impl Fn(&Path, FileType) -> bool) -> (Vec<PathBuf>, Option<io::Error>) {
    let mut paths = Vec::new();
    let listing = std::fs::read_dir(here(folder)).and_then(|entries| {
        for entry in entries {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            if is_meant(&path, entry.file_type()?) {
                paths.push(path);
            }
        }
        Ok(())
    });
    paths.sort_unstable_by(|a, b| b.cmp(a));
    (paths, listing.err())
}

/// A folder's name for the system, to which the empty one means nothing.
pub fn here(folder: &Path) -> &Path {
    if folder.as_os_str().is_empty() { Path::new(".") } else { folder }
}

fn has_signs(name: &OsStr) -> bool {
    name.as_encoded_bytes().iter().any(|byte| SIGNS.contains(byte))
}

/// A name as characters; bytes that are no text become the last ones that there are, which no name has.
fn characters(name: &OsStr) -> Cow<'_, str> {
    const LAST: u32 = char::MAX as u32;
    if let Some(text) = name.to_str() {
        return Cow::Borrowed(text);
    }
    let mut text = String::new();
    for chunk in name.as_encoded_bytes().utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().filter_map(|&byte| char::from_u32(LAST - u32::from(!byte))));
    }
    Cow::Owned(text)
}
