//! `vultus predict`.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::anyhow;
use image::{DynamicImage, ImageFormat, RgbImage};
use sha2::{Digest, Sha256};
use vultus::analyze::{Analysis, AnalyzedFace, Analyzer, RecordError};
use vultus::annotate::{annotate_enlarged, name_of};
use vultus::batch;
use vultus::explain::{Saliency, overlay};
use vultus::persist::write_atomically;

use super::{NewFolders, check_place_of_rows, ends_in, is_occupied, is_taken, quoted_path, resolved, until_it_fails};
use crate::analyzer::AnalyzerArguments;
use crate::failure::{Failure, is_closed_pipe, usage_unless_of_the_system, usage_unless_refused};
use crate::inputs::{INTERRUPTED, LeftOut, is_path, is_stdin, listed_in, sources};
use crate::interrupt;
use crate::message::say;
use crate::progress::Pictures;
use crate::rows::pictures::PictureRows;
use crate::rows::{Format, resume};

/// Find the faces in pictures and classify their expressions.
#[derive(clap::Args)]
pub struct Predict {
    /// Pictures (png, jpeg, bmp, webp), folders with all below them, patterns such as 'photos/*.jpg', addresses
    /// (http, https), or - for a picture on stdin.
    #[arg(value_name = "INPUT", required_unless_present = "files_from")]
    inputs: Vec<PathBuf>,
    /// Take more inputs from this file, one a line; - is stdin.
    #[arg(long, value_name = "FILE")]
    files_from: Option<PathBuf>,
    /// The inputs in the file of --files-from end with a zero byte each, as find -print0 writes them.
    #[arg(short = '0', long, requires = "files_from")]
    null: bool,
    #[command(flatten)]
    analyzer: AnalyzerArguments,
    /// Form of the results [default: by the ending of --output; else a table on a terminal, JSON lines elsewhere].
    #[arg(long, value_name = "FORM", value_enum, hide_default_value = true)]
    format: Option<Format>,
    /// The same as --format json.
    #[arg(long, conflicts_with_all = ["format", "csv"])]
    json: bool,
    /// The same as --format csv.
    #[arg(long, conflicts_with = "format")]
    csv: bool,
    /// Write the results to this new file instead of stdout.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Go on with the file of --output: leave out the pictures that have rows in it, but for those that could not be reached,
    /// read or written.
    #[arg(long, requires = "output")]
    resume: bool,
    /// Write each picture in which there is a face, with boxes and bars, to this new folder.
    #[arg(long, value_name = "DIR")]
    annotate: Option<PathBuf>,
    /// Write each picture in which there is a face to this new folder, coloured where hiding a part of the face changes its
    /// result.
    #[arg(long, value_name = "DIR")]
    explain: Option<PathBuf>,
}

impl Predict {
    pub fn run(mut self) -> Result<(), Failure> {
        if let Some(list) = &self.files_from {
            self.inputs.extend(listed_in(list, if self.null { 0 } else { b'\n' }).map_err(Failure::usage)?);
            if is_stdin(list) && self.inputs.iter().any(|input| is_stdin(input)) {
                return Err(Failure::usage(anyhow!("stdin is a picture or the list of --files-from, not both")));
            }
            if self.inputs.is_empty() {
                say(format_args!("note: {} lists no picture", list.display()));
            }
        }
        if self.resume && self.inputs.iter().any(|input| is_stdin(input)) {
            return Err(Failure::usage(anyhow!(
                "- is another picture each time: --resume cannot tell whether it has rows"
            )));
        }
        let format = self.output_format()?;
        let append = self.resume && self.output.as_deref().is_some_and(Path::exists);
        let drawings = self.drawings(append)?;
        let (analyzer, _) = self.analyzer.load()?;
        let labels = analyzer.classifier().labels().names().to_vec();
        let left_out = LeftOut::new(&drawings, self.output.as_deref().map(resolved));
        // One that cannot be read now keeps the rows that it has; a pipe gives what it holds only once.
        let can_be_done_again = |path: &str| {
            let input = sources(self.inputs.clone(), &left_out).find(|source| source.path == path);
            let may_be_read = Path::new(path).metadata().map_or(true, |there| there.is_file());
            may_be_read && input.is_some_and(|source| (source.read)().is_ok())
        };
        // Before the rows are touched, and the work that would be for nothing.
        let folders = [&self.annotate, &self.explain].into_iter().flatten().map(PathBuf::as_path);
        let folders = NewFolders::make(folders).map_err(usage_unless_refused)?;
        let (done, begun) = match (&self.output, append) {
            (Some(output), true) => {
                let begun = resume::take_up(output, format, &labels, can_be_done_again);
                begun.map(|(done, file)| (done, Some(file))).map_err(usage_unless_of_the_system)?
            }
            _ => (HashSet::new(), None),
        };
        let done = Arc::new(done);
        let mut rows = Some(PictureRows::open(format, &labels, self.output.as_deref(), begun)?);
        folders.keep();

        interrupt::listen()?;
        // Drawings and rows may lie among the pictures, and are none of them.
        let to_do = || {
            let done = Arc::clone(&done);
            sources(self.inputs.clone(), &left_out).filter(move |source| !done.contains(&source.path))
        };
        let counted = to_do();
        // A table comes as a whole, at the end.
        let on_stdout = self.output.is_none() && format != Format::Table;
        if !done.is_empty() && !drawings.is_empty() {
            say("note: pictures that have rows already are not drawn again");
        }
        let mut progress = Pictures::new(done.len(), on_stdout, || counted.count() as u64);
        let names = DrawingNames::default();
        if !drawings.is_empty() {
            // Drawings of an earlier call keep their names.
            done.iter().for_each(|path| drop(names.of(path)));
        }
        let draw = |path: &str, picture: &DynamicImage, analysis: &Analysis| {
            draw(&analyzer, self.annotate.as_deref(), self.explain.as_deref(), &names.of(path), picture, analysis)
        };
        let draw: Option<&batch::Draw> = if drawings.is_empty() { None } else { Some(&draw) };
        // In the order of the pictures, whichever of them is ready first.
        let sources = to_do().inspect(|source| {
            if draw.is_some() {
                drop(names.of(&source.path));
            }
        });
        batch::run(&analyzer, sources, draw, interrupt::requested, |record| {
            if record.outcome.as_ref().is_err_and(|error| error.code == INTERRUPTED) {
                return Ok(());
            }
            let written = until_it_fails(&mut rows, |rows| {
                rows.write(&record)?;
                rows.flush()
            });
            match written {
                // Whoever has read enough rows wants the drawings all the same.
                Err(error) if draw.is_some() && is_closed_pipe(&error) => {}
                written => written?,
            }
            progress.record(&record);
            Ok::<(), Failure>(())
        })?;
        // The bar must be gone before a table is printed.
        progress.finish();
        match rows.map_or(Ok(()), PictureRows::finish) {
            Err(error) if draw.is_some() && is_closed_pipe(&error) => {}
            finished => finished?,
        }
        if interrupt::requested() {
            return Err(Failure::Interrupted(match &self.output {
                Some(output) if format.grows() => format!("go on with --output {} --resume", quoted_path(output)),
                Some(output) => format!("{} has the results so far, and cannot be gone on with", output.display()),
                None => "the results so far are written".to_owned(),
            }));
        }
        if progress.failed > 0 { Err(Failure::Inputs(progress.failed)) } else { Ok(()) }
    }

    fn output_format(&self) -> Result<Format, Failure> {
        let asked = match (self.json, self.csv) {
            (true, _) => Some(Format::Json),
            (_, true) => Some(Format::Csv),
            _ => self.format,
        };
        let Some(output) = &self.output else { return Format::choose(asked, None) };
        check_place_of_rows(output)?;
        let format = Format::choose(asked, Some(output))?;
        if is_occupied(output) && !output.is_file() {
            return Err(Failure::usage(anyhow!("{} is no file: name another place for the rows", output.display())));
        }
        if self.resume && !format.grows() {
            return Err(Failure::usage(anyhow!("--resume is for JSON lines and CSV: a Parquet file cannot grow")));
        }
        if output.exists() && !self.resume {
            let way = if format.grows() { "go on with it by --resume, or name" } else { "name" };
            return Err(Failure::usage(anyhow!("{} exists: {way} another file", output.display())));
        }
        // Of a file that is gone on with it is known what it has.
        if !output.exists() {
            if format == Format::Json && asked.is_none() && ends_in(output, "json") {
                say(format_args!("note: {} gets JSON lines, one object a picture", output.display()));
            }
            format.note_for(output);
        }
        Ok(format)
    }

    /// The folders for drawings, without links. They are new or empty, unless an earlier call is gone on with, and hold no input.
    fn drawings(&self, goes_on: bool) -> Result<Vec<PathBuf>, Failure> {
        let folders: Vec<&PathBuf> = [&self.annotate, &self.explain].into_iter().flatten().collect();
        let drawings: Vec<PathBuf> = folders.iter().map(|folder| resolved(folder)).collect();
        if let [one, other] = &drawings[..]
            && (one.starts_with(other) || other.starts_with(one))
        {
            return Err(Failure::usage(anyhow!(
                "--annotate and --explain need a folder each, and neither in the other"
            )));
        }
        for (folder, whole) in folders.iter().zip(&drawings) {
            let shown = folder.display();
            if folder.exists() && !folder.is_dir() {
                return Err(Failure::usage(anyhow!("{shown} is a file: name a folder for the drawings")));
            }
            if is_taken(folder) && !goes_on {
                let way = match &self.output {
                    Some(output) if self.resume => format!("{} is not there to go on with", output.display()),
                    _ => "or go on with --output and --resume".to_owned(),
                };
                return Err(Failure::usage(anyhow!("{shown} is not empty: name another folder, {way}")));
            }
            let inside = |input: &&PathBuf| is_path(input) && resolved(input).starts_with(whole);
            // A shell's `*` names the folder of an earlier call, too; its pictures are left out.
            if let Some(input) = self.inputs.iter().find(inside)
                && (!goes_on || self.inputs.iter().all(|input| inside(&input)))
            {
                return Err(Failure::usage(anyhow!("{} is in {shown}, which is for drawings", input.display())));
            }
        }
        Ok(drawings)
    }
}

/// Writes the drawings that are wanted of one picture.
fn draw(
    analyzer: &Analyzer,
    annotated: Option<&Path>,
    explained: Option<&Path>,
    name: &Path,
    picture: &DynamicImage,
    analysis: &Analysis,
) -> Result<(), RecordError> {
    let names: Vec<String> = analysis.faces.iter().map(name_of).collect();
    if let Some(folder) = annotated {
        write_picture(&folder.join(name), annotate_enlarged(picture, &analysis.faces, &names))?;
    }
    if let Some(folder) = explained {
        let preprocessing = analyzer.classifier().preprocessing();
        let saliency = |face: &AnalyzedFace| {
            Saliency::of(analyzer.classifier_of(&face.region), &face.region.cut(picture, preprocessing))
        };
        let saliencies: Vec<Saliency> = analysis.faces.iter().map(saliency).collect();
        write_picture(&folder.join(name), overlay(picture, &analysis.faces, &names, &saliencies))?;
    }
    Ok(())
}

/// Writes a picture, but over nothing: what is there is that of an earlier call, or somebody's.
fn write_picture(path: &Path, picture: RgbImage) -> Result<(), RecordError> {
    let unwritable = |error: io::Error| RecordError { code: "unwritable", message: error.to_string() };
    if path.is_file() {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        fs_err::create_dir_all(folder).map_err(unwritable)?;
    }
    let mut bytes = io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Png).map_err(|error| unwritable(io::Error::other(error)))?;
    write_atomically(path, |file| io::Write::write_all(file, bytes.get_ref())).map_err(unwritable)
}

/// The longest name of a file that every system takes, in bytes, less `.png` and what is put in front while it is written.
const LONGEST_NAME: usize = 200;

/// What drawings are called: two pictures never the same.
#[derive(Default)]
struct DrawingNames {
    /// Of each name, the picture that has it, both as hashes.
    taken: Mutex<HashMap<u64, u64>>,
}

impl DrawingNames {
    /// Where the drawing of the picture `path` goes, below the folder for drawings.
    fn of(&self, path: &str) -> PathBuf {
        let (mut name, picture) = (drawing_name(path), hash(path));
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let owner = *taken.entry(hash(&name.to_string_lossy())).or_insert(picture);
        if owner != picture {
            name.as_mut_os_string().push(format!("-{picture:016x}"));
        }
        name.as_mut_os_string().push(".png");
        name
    }
}

/// The same path as `path`, but never outside a folder that it is put behind, with `_` for `..`. Names that are too long,
/// as addresses have them, end in a hash instead.
fn drawing_name(path: &str) -> PathBuf {
    let mut name = PathBuf::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(part) => name.push(short(&part.to_string_lossy()).as_ref()),
            Component::ParentDir => name.push("_"),
            _ => {}
        }
    }
    if name.as_os_str().is_empty() {
        name.push("picture");
    }
    name
}

/// `name`, or its beginning and a hash of it.
fn short(name: &str) -> Cow<'_, str> {
    if name.len() <= LONGEST_NAME {
        return Cow::Borrowed(name);
    }
    Cow::Owned(format!("{}-{:016x}", &name[..name.floor_char_boundary(LONGEST_NAME - 17)], hash(name)))
}

/// The first eight bytes of the SHA-256.
fn hash(text: &str) -> u64 {
    Sha256::digest(text).iter().take(8).fold(0, |hash, &byte| hash << 8 | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawings_stay_below_their_folder() {
        for (path, expected) in [
            ("a/b.jpg", "a/b.jpg.png"),
            ("/etc/../b.jpg", "etc/_/b.jpg.png"),
            ("../../b", "_/_/b.png"),
            ("-", "-.png"),
            ("/", "picture.png"),
            ("https://example.org/a/b.png?x=1", "https:/example.org/a/b.png?x=1.png"),
        ] {
            assert_eq!(DrawingNames::default().of(path), Path::new(expected), "{path}");
        }
        let [one, other] = ["ö?1", "ö?2"].map(|end| DrawingNames::default().of(&("ö".repeat(200) + end)));
        assert_ne!(one, other);
        assert!(one.file_name().unwrap().len() <= LONGEST_NAME + 4, "{one:?}");
    }

    #[test]
    fn no_drawing_replaces_that_of_another_picture() {
        let names = DrawingNames::default();
        let paths = ["a.png", "/a.png", "../a.png", "_/a.png", "/../a.png"];
        let drawings: HashSet<PathBuf> = paths.iter().map(|path| names.of(path)).collect();
        assert_eq!(drawings.len(), paths.len(), "{drawings:?}");
        assert_eq!(names.of("a.png"), Path::new("a.png.png"));
        assert!(drawings.contains(&names.of("/a.png")));
    }
}
