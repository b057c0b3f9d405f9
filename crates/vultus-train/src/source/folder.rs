//! Folders of image files.
//!
//! In: a folder in the Kaggle layout (`train/<class>/*`, `test/<class>/*`; other names of splits as in
//! [`split_name::canonical`]) or one folder of classes, all of which is `train`. Out: one reading for each image file,
//! sorted by path, and then one for each that lies beside the classes or the splits, for each other folder of pictures there, and for
//! each folder in a class that cannot be read. Folders inside a class folder belong to the class. Hidden files and files with other
//! extensions are none of its business.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use vultus::decode::{DecodeLimits, is_named_as_picture};
use vultus::picture_file::{self, PictureFileError, is_hidden, name};
use vultus::preprocess::Preprocessing;
use vultus::wording::counted;

use super::{NamedSample, Reading, face_from_bytes};
use crate::dataset::{DataError, Removal, RemovalReason, split_name};

/// An image file with what its place says about it.
struct Candidate {
    path: PathBuf,
    class: String,
    split: &'static str,
}

/// Reads all image files under `root` in parallel.
///
/// # Errors
/// A folder that cannot be listed, or one without any image file in the folder of a class; where such folders are there and all
/// pictures lie beside them, each of these is a row.
pub fn read(root: &Path, preprocessing: &Preprocessing, limits: &DecodeLimits) -> Result<Vec<Reading>, DataError> {
    let Found { candidates, left_out, empty } = find(root)?;
    if candidates.is_empty() && (empty.is_empty() || left_out.is_empty()) {
        return Err(DataError::NoImages { path: root.to_owned() });
    }
    let mut readings: Vec<Reading> =
        candidates.into_par_iter().map(|candidate| read_file(candidate, preprocessing, limits)).collect();
    readings.extend(left_out.into_iter().map(Err));
    Ok(readings)
}

/// The first image file that [`read`] would read.
///
/// # Errors
/// A folder that cannot be listed.
pub fn first_file(root: &Path) -> Result<Option<PathBuf>, DataError> {
    Ok(find(root)?.candidates.into_iter().next().map(|candidate| candidate.path))
}

/// Whether `path`, which is below `root` and need not be there, lies beside the folders of splits, of which none has its name: what
/// is put there is left out, whatever it is.
pub fn lies_beside_splits(root: &Path, path: &Path) -> bool {
    let has_splits = || {
        let folders = Listing::of(root).unwrap_or_default().folders;
        folders.iter().any(|(path, name)| {
            split_name::canonical(name).is_some() && Listing::of(path).is_ok_and(|inside| !inside.folders.is_empty())
        })
    };
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let inside = path.ancestors().find(|folder| {
        folder.parent().is_some_and(|parent| fs_err::canonicalize(parent).is_ok_and(|parent| parent == root))
    });
    let name = inside.and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    split_name::canonical(&name).is_none() && has_splits()
}

/// The names of the classes under `root` that have a folder and no image file; none where it cannot be listed.
pub fn empty_classes(root: &Path) -> Vec<String> {
    let Found { candidates, empty, .. } = find(root).unwrap_or_default();
    let full: HashSet<String> =
        candidates.iter().map(|candidate| vultus::labels::canonical(&candidate.class)).collect();
    empty.into_iter().filter(|class| !full.contains(class)).collect()
}

/// Names of the folders in `root` that are taken for classes and seem to hold those in their turn: none holds a picture, and the same
/// two folders or more lie in each, or all are called after splits. None where it is not so, or cannot be listed.
pub fn folders_of_classes(root: &Path) -> Vec<String> {
    let folders = Listing::of(root).unwrap_or_default().folders;
    let insides: Vec<Listing> = folders.iter().filter_map(|(path, _)| Listing::of(path).ok()).collect();
    let is_split = |name: &String| split_name::canonical(name).is_some();
    let hold_folders = insides.iter().all(|inside| inside.pictures.is_empty() && !inside.folders.is_empty());
    if folders.len() < 2
        || insides.len() < folders.len()
        || !hold_folders
        || folders.iter().any(|(_, name)| is_split(name))
    {
        return Vec::new();
    }
    let names = |inside: &Listing| inside.folders.iter().map(|(_, name)| name.to_lowercase()).collect::<HashSet<_>>();
    let common = insides.iter().map(names).reduce(|common, names| &common & &names).unwrap_or_default();
    let called_after_split =
        |name: &str| name.to_lowercase().split(|c: char| !c.is_alphanumeric()).any(|word| is_split(&word.to_owned()));
    if common.len() >= 2 || folders.iter().all(|(_, name)| called_after_split(name)) {
        folders.into_iter().map(|(_, name)| name).collect()
    } else {
        Vec::new()
    }
}

/// What lies under a folder.
#[derive(Default)]
struct Found {
    /// Image files that have a class.
    candidates: Vec<Candidate>,
    /// Image files that have none.
    left_out: Vec<Removal>,
    /// Classes whose folder has no image file, in some split.
    empty: Vec<String>,
}

/// What lies directly in a folder, each sorted by path; hidden files are left out.
#[derive(Default)]
struct Listing {
    /// Folders with their names.
    folders: Vec<(PathBuf, String)>,
    /// What is named as a picture and is no folder.
    pictures: Vec<PathBuf>,
    /// Links without an extension that lead nowhere: to the folder of a class on a disk that is not there, perhaps.
    lost: Vec<(PathBuf, String)>,
}

impl Listing {
    fn of(folder: &Path) -> std::io::Result<Self> {
        let mut listing = Self::default();
        for entry in fs_err::read_dir(folder)? {
            let entry = entry?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            if is_hidden(&path) {
                continue;
            }
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            // What is no link needs no further look, and may not allow one.
            if kind.is_dir() || (kind.is_symlink() && path.is_dir()) {
                listing.folders.push((path, name));
            } else if is_named_as_picture(&path) {
                listing.pictures.push(path);
            } else if kind.is_symlink() && path.extension().is_none() && !path.exists() {
                listing.lost.push((path, name));
            }
        }
        listing.folders.sort();
        listing.pictures.sort();
        listing.lost.sort();
        Ok(listing)
    }
}

/// Looks through `root`.
fn find(root: &Path) -> Result<Found, DataError> {
    let mut found = Found::default();
    let listing = Listing::of(root)?;
    let (mut splits, mut others) = (Vec::new(), Vec::new());
    for (path, name) in &listing.folders {
        // A class may be called `valid`; a split holds folders.
        let split =
            split_name::canonical(name).map(|split| Ok::<_, DataError>((split, Listing::of(path)?))).transpose()?;
        match split {
            Some((split, inside)) if !inside.folders.is_empty() => splits.push((split, inside)),
            _ => others.push(path),
        }
    }
    if splits.is_empty() {
        found.add_classes(listing, split_name::TRAIN);
        return Ok(found);
    }
    for (split, inside) in splits {
        found.add_classes(inside, split);
    }
    found.leave_out(listing.pictures, split_name::TRAIN, "it lies beside the folders of splits");
    for path in others.into_iter().filter(|path| !path.is_symlink()) {
        let pictures = pictures_below(path);
        if pictures > 0 {
            let detail = format!("it lies beside the folders of splits, with {}", counted(pictures, "picture"));
            found.leave_out(vec![path.clone()], split_name::TRAIN, &detail);
        }
    }
    for (path, name) in listing.lost {
        let split = split_name::canonical(&name).unwrap_or(split_name::TRAIN);
        found.left_out.push(lost(&path, split, None));
    }
    Ok(found)
}

/// Reads one file.
fn read_file(candidate: Candidate, preprocessing: &Preprocessing, limits: &DecodeLimits) -> Reading {
    let Candidate { path, class, split } = candidate;
    let origin = name(&path);
    let face = match picture_file::read(&path) {
        Ok(bytes) => face_from_bytes(&bytes, preprocessing, limits),
        Err(error) => {
            let reason = match &error {
                PictureFileError::TooLarge => RemovalReason::TooLarge,
                PictureFileError::Unreadable(error) if error.kind() == ErrorKind::NotFound => RemovalReason::Missing,
                PictureFileError::NotAFile | PictureFileError::Unreadable(_) => RemovalReason::Unreadable,
            };
            Err((reason, error.to_string()))
        }
    };
    match face {
        Ok(image) => Ok(NamedSample { image, label: class, split, origin, votes: None }),
        Err((reason, detail)) => Err(Removal {
            origin,
            split: split.to_owned(),
            label: Some(vultus::labels::canonical(&class)),
            reason,
            detail,
        }),
    }
}

impl Found {
    /// Adds what a folder holds: the image files of its folders, each a class, and those beside them.
    fn add_classes(&mut self, folder: Listing, split: &'static str) {
        for (path, class) in folder.folders {
            let canonical = vultus::labels::canonical(&class);
            let mut below = Below::default();
            below.add(&path, &path, &mut HashSet::new());
            below.files.sort();
            if below.files.is_empty() {
                self.empty.push(canonical.clone());
            }
            self.candidates.extend(below.files.into_iter().map(|path| Candidate { path, class: class.clone(), split }));
            self.left_out.extend(below.lost.iter().map(|link| lost(link, split, Some(canonical.clone()))));
            self.left_out.extend(below.unreadable.into_iter().map(|(folder, error)| Removal {
                origin: name(&folder),
                split: split.to_owned(),
                label: Some(canonical.clone()),
                reason: RemovalReason::Unreadable,
                detail: error.to_string(),
            }));
        }
        self.leave_out(folder.pictures, split, "it lies beside the folders of classes");
        let links = folder.lost.iter().map(|(path, class)| lost(path, split, Some(vultus::labels::canonical(class))));
        self.left_out.extend(links);
    }

    /// What has no class.
    fn leave_out(&mut self, paths: Vec<PathBuf>, split: &str, detail: &str) {
        self.left_out.extend(paths.into_iter().map(|path| Removal {
            origin: name(&path),
            split: split.to_owned(),
            label: None,
            reason: RemovalReason::NoClass,
            detail: detail.to_owned(),
        }));
    }
}

/// A link where a folder of pictures may have been.
fn lost(link: &Path, split: &str, label: Option<String>) -> Removal {
    let detail = "the link leads nowhere".to_owned();
    Removal { origin: name(link), split: split.to_owned(), label, reason: RemovalReason::Missing, detail }
}

/// What lies in the folder of a class.
#[derive(Default)]
struct Below {
    /// Image files.
    files: Vec<PathBuf>,
    /// Links that lead nowhere.
    lost: Vec<PathBuf>,
    /// Folders that cannot be listed.
    unreadable: Vec<(PathBuf, std::io::Error)>,
}

impl Below {
    /// Adds what lies under `folder`, that of a class or one behind it. Links are followed, but to no folder a second time and to
    /// none that holds the class's folder, where other classes lie.
    fn add(&mut self, folder: &Path, class: &Path, visited: &mut HashSet<PathBuf>) {
        let places = fs_err::canonicalize(folder).and_then(|place| Ok((place, fs_err::canonicalize(class)?)));
        let listing = places.and_then(|(place, class)| {
            if (class != place && class.starts_with(&place)) || !visited.insert(place) {
                return Ok(Listing::default());
            }
            Listing::of(folder)
        });
        match listing {
            Ok(listing) => {
                self.files.extend(listing.pictures);
                self.lost.extend(listing.lost.into_iter().map(|(path, _)| path));
                listing.folders.iter().for_each(|(inside, _)| self.add(inside, class, visited));
            }
            Err(error) => self.unreadable.push((folder.to_owned(), error)),
        }
    }
}

/// How many image files lie under `folder`, as far as it can be read, and not behind links.
fn pictures_below(folder: &Path) -> usize {
    let Ok(Listing { folders, pictures, .. }) = Listing::of(folder) else { return 0 };
    let inside = folders.iter().filter(|(path, _)| !path.is_symlink());
    pictures.len() + inside.map(|(path, _)| pictures_below(path)).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{GrayImage, Luma};

    fn write(root: &Path, place: &str, bytes: &[u8]) {
        let path = root.join(place);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, bytes).unwrap();
    }

    fn png(value: u8) -> Vec<u8> {
        let mut bytes = std::io::Cursor::new(Vec::new());
        GrayImage::from_pixel(48, 48, Luma([value])).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    fn read_all(root: &Path) -> Result<Vec<Reading>, DataError> {
        read(root, &Preprocessing::default(), &DecodeLimits::default())
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_but_not_round_a_circle_or_into_other_classes() {
        use std::os::unix::fs::symlink;
        let (root, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(root.path(), "train/happy/a.png", &png(1));
        write(root.path(), "train/sad/b.png", &png(2));
        write(elsewhere.path(), "c.png", &png(3));
        symlink(elsewhere.path(), root.path().join("train/sad/more")).unwrap();
        symlink(root.path().join("train/sad"), elsewhere.path().join("back")).unwrap();
        symlink(root.path().join("train"), root.path().join("train/happy/up")).unwrap();
        let origins = |class: &str| -> Vec<String> {
            let samples = read_all(root.path()).unwrap().into_iter().map(Result::unwrap);
            let origins = samples.filter(|sample| sample.label == class).map(|sample| sample.origin);
            origins.map(|origin| origin.rsplit_once("/train/").unwrap().1.to_owned()).collect()
        };
        assert_eq!(origins("sad"), ["sad/b.png", "sad/more/c.png"]);
        assert_eq!(origins("happy"), ["happy/a.png"]);
    }

    #[test]
    fn folders_that_seem_to_hold_classes_are_found() {
        let found = |places: &[&str]| {
            let root = tempfile::tempdir().unwrap();
            places.iter().for_each(|place| write(root.path(), place, &png(1)));
            folders_of_classes(root.path())
        };
        assert_eq!(
            found(&["a/happy/1.png", "a/sad/2.png", "b/Happy/3.png", "b/sad/4.png", "b/fear/5.png"]),
            ["a", "b"]
        );
        assert_eq!(found(&["Train_data/happy/1.png", "Test-data/sad/2.png"]), ["Test-data", "Train_data"]);
        for classes in [
            &["happy/1.png", "sad/2.png"][..],
            // People in classes, some in both.
            &["happy/ann/1.png", "happy/bob/2.png", "sad/ann/3.png"],
            &["happy/ann/1.png", "happy/bob/2.png", "sad/ann/3.png", "sad/bob/4.png", "sad/5.png"],
            &["train/happy/1.png", "train/sad/2.png", "test/happy/3.png", "test/sad/4.png"],
            &["only/happy/1.png", "only/sad/1.png"],
        ] {
            assert_eq!(found(classes), [""; 0], "{classes:?}");
        }
    }

    #[test]
    fn splits_and_classes_come_from_the_folders() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "train/happy/b.png", &png(2));
        write(root.path(), "train/happy/a.PNG", &png(1));
        write(root.path(), "train/sad/person/c.png", &png(3));
        write(root.path(), "val/sad/d.png", &png(4));
        write(root.path(), "test/happy/notes.txt", b"not an image");
        write(root.path(), "test/happy/.hidden.png", b"not an image");
        write(root.path(), "extras/happy/e.png", &png(5));
        let found: Vec<(String, &str, u8)> = read_all(root.path())
            .unwrap()
            .into_iter()
            .filter_map(Result::ok)
            .map(|sample| (sample.label, sample.split, sample.image.as_raw()[0]))
            .collect();
        let expected = [("happy", "train", 1), ("happy", "train", 2), ("sad", "train", 3), ("sad", "validation", 4)];
        assert_eq!(found, expected.map(|(label, split, value)| (label.to_owned(), split, value)));
    }

    #[test]
    fn pictures_without_a_class_are_rows_and_classes_without_a_picture_are_known() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "train/happy/a.png", &png(1));
        write(root.path(), "train/loose.png", &png(2));
        write(root.path(), "train/.hidden.png", &png(2));
        write(root.path(), "figure.png", &png(3));
        write(root.path(), "happy/unsplit.png", &png(4));
        write(root.path(), "test/unsorted.png", &png(5));
        let readings = read_all(root.path()).unwrap();
        assert!(readings[0].is_ok());
        let rows = readings[1..].iter().map(|reading| reading.as_ref().err().unwrap());
        let rows: Vec<(&str, &Removal)> =
            rows.map(|row| (row.origin.strip_prefix(root.path().to_str().unwrap()).unwrap(), row)).collect();
        let origins: Vec<&str> = rows.iter().map(|(origin, _)| *origin).collect();
        assert_eq!(origins, ["/train/loose.png", "/figure.png", "/happy", "/test"]);
        assert_eq!(rows[2].1.detail, "it lies beside the folders of splits, with 1 picture");
        for (origin, row) in rows {
            assert_eq!(
                (row.reason, row.label.as_deref(), &*row.split),
                (RemovalReason::NoClass, None, "train"),
                "{origin}"
            );
        }
        write(root.path(), "train/Anger/notes.txt", b"none yet");
        write(root.path(), "test/happiness/notes.txt", b"none yet");
        assert_eq!(empty_classes(root.path()), ["angry"]);
        assert_eq!(empty_classes(&root.path().join("nowhere")), [""; 0]);
        // Pictures alone are no data set.
        let error = read_all(&root.path().join("train/happy")).unwrap_err();
        assert!(matches!(error, DataError::NoImages { .. }), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn a_class_behind_a_link_that_leads_nowhere_is_a_row() {
        use std::os::unix::ffi::OsStrExt;
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "train/happy/a.png", &png(1));
        write(root.path(), "train/happy/b.png", &png(2));
        let link = |to: &str, place: &str| std::os::unix::fs::symlink(to, root.path().join(place)).unwrap();
        link("/nowhere/sad", "train/Sadness");
        link("/nowhere/more", "train/happy/more");
        // Those are no classes: a file's, a split's, and one to what is read already.
        link("/nowhere/labels.csv", "train/labels.csv");
        link("/nowhere/test", "test");
        link("train", "current");
        // Two names that are no texts stay two.
        for byte in [b"\xFE.png", b"\xFF.png"] {
            fs_err::write(root.path().join("train/happy").join(std::ffi::OsStr::from_bytes(byte)), png(3)).unwrap();
        }
        let readings = read_all(root.path()).unwrap();
        let names = readings[2..4].iter().map(|reading| reading.as_ref().unwrap().origin.rsplit('/').next().unwrap());
        assert_eq!(names.collect::<Vec<_>>(), ["\\xFE.png", "\\xFF.png"]);
        let links = readings[4..].iter().map(|reading| reading.as_ref().err().unwrap());
        let links: Vec<_> =
            links.map(|link| (&*link.split, link.label.as_deref(), link.reason, &*link.detail)).collect();
        let nowhere = |split, label| (split, label, RemovalReason::Missing, "the link leads nowhere");
        let expected = [("train", Some("happy")), ("train", Some("sad")), ("test", None)];
        assert_eq!(links, expected.map(|(split, label)| nowhere(split, label)));
    }

    #[test]
    fn one_folder_of_classes_is_all_train() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "very tired/a.png", &png(9));
        let sample = read_all(root.path()).unwrap().remove(0).unwrap();
        assert_eq!((sample.label.as_str(), sample.split), ("very tired", "train"));
    }

    #[test]
    fn bad_files_are_rows_and_never_an_abort() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "happy/a.png", &png(1));
        write(root.path(), "happy/b.png", b"dear diary, this is no picture");
        write(root.path(), "happy/c.png", b"");
        let bytes = png(7);
        write(root.path(), "happy/d.png", &bytes[..bytes.len() / 2]);
        let mut huge = png(7);
        huge[16..24].copy_from_slice(&[0, 0, 0x75, 0x30, 0, 0, 0x75, 0x30]);
        huge[29..33].copy_from_slice(&[0x43, 0x4C, 0xA7, 0x66]);
        write(root.path(), "happy/e.png", &huge);
        let reasons: Vec<Option<RemovalReason>> = read_all(root.path())
            .unwrap()
            .into_iter()
            .map(|reading| reading.err().map(|removal| removal.reason))
            .collect();
        use RemovalReason::{Missing, TooLarge, Unreadable};
        assert_eq!(reasons, [None, Some(Unreadable), Some(Missing), Some(Unreadable), Some(TooLarge)]);
    }

    #[cfg(unix)]
    #[test]
    fn pipes_and_files_beyond_the_limit_are_rows() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "happy/a.png", &png(1));
        fs_err::File::create(root.path().join("happy/b.png")).unwrap().set_len(picture_file::LARGEST_FILE + 1).unwrap();
        std::os::unix::fs::symlink("nowhere", root.path().join("happy/c.png")).unwrap();
        let made = std::process::Command::new("mkfifo").arg(root.path().join("happy/d.png")).status();
        assert!(made.is_ok_and(|status| status.success()), "mkfifo");
        let removed: Vec<String> = read_all(root.path())
            .unwrap()
            .into_iter()
            .filter_map(Result::err)
            .map(|removal| format!("{}: {}", removal.reason.name(), removal.detail))
            .collect();
        let expected = [
            "too_large: the file is larger than 512 MB",
            "missing: No such file or directory (os error 2)",
            "unreadable: it is no file, whatever it is called",
        ];
        assert_eq!(removed, expected);
    }

    #[test]
    fn a_folder_without_images_is_an_error_that_names_it() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "train/happy/readme.txt", b"soon");
        let error = read_all(root.path()).unwrap_err();
        assert!(matches!(&error, DataError::NoImages { path } if path == root.path()));
        assert!(error.to_string().starts_with("no images found in "), "{error}");
        write(root.path(), "train/a.png", &png(1));
        let readings = read_all(root.path()).unwrap();
        let row = readings[0].as_ref().err().unwrap();
        assert_eq!((readings.len(), &*row.detail), (1, "it lies beside the folders of classes"));
    }
}
