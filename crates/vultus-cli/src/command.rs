//! The subcommands, a module each.

pub mod bench;
pub mod calibrate;
pub mod card;
pub mod compare;
pub mod data;
pub mod evaluate;
pub mod export;
pub mod models;
pub mod network;
pub mod pack;
pub mod predict;
pub mod report;
pub mod search;
pub mod serve;
pub mod train;
pub mod video;

use std::borrow::Cow;
use std::io;
use std::path::{Component, Path, PathBuf, is_separator};
use std::time::Instant;

use anyhow::anyhow;
use clap::Subcommand;
use vultus::inference::{Views, ViewsError};
use vultus::persist::is_there;
use vultus_train::config::TrainConfig;
use vultus_train::environment::Invocation;
use vultus_train::run::{RunDirectory, RunError, bundle_path, is_search, search_config_path};
use vultus_train::source::Source;

use crate::failure::Failure;
use crate::interrupt;

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Count, audit and convert data sets, and look at what training does to images.
    #[command(subcommand)]
    Data(data::Data),
    /// Train a network and evaluate it; with nothing else, the paper's network on drawn faces, in less than a minute.
    Train(train::Train),
    /// Look for the best settings by k-fold cross-validation.
    Search(search::Search),
    /// Evaluate a run's model or a bundle.
    Evaluate(evaluate::Evaluate),
    /// Put finished runs beside each other, those that differ by their seed alone as one; or two models image by image.
    Compare(compare::Compare),
    /// Give a model other views, and fit its temperature again; its weights stay.
    Calibrate(calibrate::Calibrate),
    /// Copy a run's model to a file that can be given away.
    Pack(pack::Pack),
    /// Write a model as an ONNX file, for other programs.
    Export(export::Export),
    /// Write a model card: results with intervals, recipe, origin and limits of a model, as Markdown.
    Card(card::Card),
    /// Write a run's report again, or one of an evaluation.
    Report(report::Report),
    /// Find the faces in pictures and classify their expressions.
    Predict(predict::Predict),
    /// Show the layers of a network with their shapes, parameters and multiply-adds.
    Network(network::Network),
    /// Follow faces and their expressions through a film or in front of a camera.
    Video(video::Video),
    /// Download models of others, such as a better face finder.
    #[command(subcommand)]
    Models(models::Models),
    /// Answer requests over HTTP, and show a page with picture and camera.
    Serve(serve::Serve),
    /// Measure how fast a network trains or predicts on this machine.
    Bench(bench::Bench),
}

impl Command {
    /// Does it; `started` is when the process began.
    pub fn run(self, started: Instant) -> Result<(), Failure> {
        let stops_by_itself =
            matches!(self, Self::Train(_) | Self::Search(_) | Self::Predict(_) | Self::Video(_) | Self::Serve(_));
        if !stops_by_itself {
            interrupt::end_at_first()?;
        }
        match self {
            Self::Data(data) => data.run(),
            Self::Train(train) => train.run(),
            Self::Search(search) => search.run(),
            Self::Evaluate(evaluate) => evaluate.run(),
            Self::Compare(compare) => compare.run(),
            Self::Calibrate(calibrate) => calibrate.run(),
            Self::Pack(pack) => pack.run(),
            Self::Export(export) => export.run(),
            Self::Card(card) => card.run(),
            Self::Report(report) => report.run(),
            Self::Predict(predict) => predict.run(),
            Self::Network(network) => network.run(),
            Self::Video(video) => video.run(),
            Self::Models(models) => models.run(),
            Self::Serve(serve) => serve.run(),
            Self::Bench(bench) => bench.run(started),
        }
    }
}

/// The options that make a configuration.
#[derive(clap::Args)]
pub struct ConfigArguments {
    /// Images; may be given several times. Takes the place of data.sources.
    #[arg(long = "data", value_name = "SOURCE")]
    data: Vec<String>,
    /// Overrides a key of the configuration, such as train.epochs=3 or network.layers.*.rate=0.1.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Where to compute: flex (CPU), and wgpu or cuda where compiled in. Takes the place of device.
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
}

impl ConfigArguments {
    /// Applies them to the file at `path`, or to the defaults.
    pub fn load(&self, path: Option<&Path>) -> Result<TrainConfig, Failure> {
        let config = TrainConfig::load(path, &[]).map_err(Failure::usage)?;
        self.apply(&config)
    }

    /// Applies them to `config`.
    pub fn apply(&self, config: &TrainConfig) -> Result<TrainConfig, Failure> {
        let mut config = config.clone();
        if !self.data.is_empty() {
            config.data.sources.clone_from(&self.data);
        }
        if let Some(device) = &self.device {
            config.device.clone_from(device);
        }
        let mut config = config.with_overrides(&self.set).map_err(Failure::usage)?;
        for source in &mut config.data.sources {
            let parsed = Source::parse(source).map_err(Failure::usage)?;
            *source = unless_lossy(parsed.absolute().to_string(), source);
        }
        let start = Some(&mut config.train.start).filter(|start| !start.is_empty());
        for model in config.train.targets.teachers.iter_mut().chain(start) {
            *model = model_of(&absolute(model));
        }
        Ok(config)
    }
}

/// Views of a picture in place of a model's own.
#[derive(clap::Args)]
pub struct ViewArguments {
    /// Whether mirror images are averaged, too, in place of what the model says.
    #[arg(long, value_name = "BOOL")]
    flip: Option<bool>,
    /// Average the picture shifted by so many pixels in the four diagonal directions, too, in place of what the model says; 0
    /// is off.
    #[arg(long, value_name = "PX")]
    shift: Option<usize>,
    /// Blur the picture first, in place of what the model says: the share of each neighbour of a pixel, from 0 to 0.25.
    #[arg(long, value_name = "SHARE")]
    blur: Option<f64>,
}

impl ViewArguments {
    /// Whether none is given.
    pub fn is_empty(&self) -> bool {
        self.flip.is_none() && self.shift.is_none() && self.blur.is_none()
    }

    /// The views `own` of a model, changed as the arguments say.
    pub fn change(&self, own: Views) -> Result<Views, Failure> {
        let views = Views {
            flip: self.flip.unwrap_or(own.flip),
            shift: self.shift.unwrap_or(own.shift),
            blur: self.blur.unwrap_or(own.blur),
        };
        views.validate().map_err(|ViewsError { key, value, expected }| {
            let flag = key.trim_start_matches("views.");
            Failure::usage(anyhow!("--{flag} is {value}: {expected}"))
        })?;
        Ok(views)
    }
}

/// Whether a path means a model's file or a run, and no configuration.
pub fn is_model(path: &Path) -> bool {
    path.is_dir() || ends_in(path, "safetensors")
}

/// The configuration of a built-in network, or of the file at `name`, with the overrides `set`.
///
/// # Errors
/// A name that is neither, or a bad configuration.
pub fn named_config(name: &str, set: &[String]) -> Result<TrainConfig, Failure> {
    let config = match vultus_train::bench::built_in(name) {
        Some(config) => config,
        None if !is_there(Path::new(name))? => {
            return Err(Failure::usage(anyhow!("{name} is neither a file nor one of the networks S and R")));
        }
        None if is_model(Path::new(name)) => {
            return Err(Failure::usage(anyhow!("{name} is no configuration: --model takes models and runs")));
        }
        None => TrainConfig::load(Some(Path::new(name)), &[]),
    };
    config.and_then(|config| config.with_overrides(set)).map_err(Failure::usage)
}

/// The model file of a run, or of a search's winner, if `path` is the directory of one that has it; else `path`.
fn model_of(path: &str) -> String {
    let run = run_directory(Path::new(path)).unwrap_or_else(|_| path.into());
    let bundle = bundle_path(&run);
    if bundle.exists() { unless_lossy(bundle.display().to_string(), path) } else { path.to_owned() }
}

/// A path that means the same in every directory, so that a run can be run again from anywhere.
fn absolute(path: &str) -> String {
    std::path::absolute(path).map_or_else(|_| path.to_owned(), |whole| unless_lossy(whole.display().to_string(), path))
}

/// The path as it was `typed` where the `whole` one is no text, as in a folder whose name is none.
fn unless_lossy(whole: String, typed: &str) -> String {
    if whole.contains(char::REPLACEMENT_CHARACTER) { typed.to_owned() } else { whole }
}

/// Whether `folder` lies among the evaluations of a run, each of which is called as its split.
pub fn is_in_a_run(folder: &Path) -> bool {
    let whole = resolved(folder);
    let run = whole.ancestors().take(2).find(|folder| folder.ends_with("evaluation")).and_then(Path::parent);
    run.is_some_and(|run| !matches!(RunDirectory::config_of(run), Err(RunError::Missing { .. })))
}

/// The same path without links and `..`, as far as it is there; two spellings of one place are one.
pub fn resolved(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let there =
        |beginning: &Path| Some((beginning.canonicalize().ok()?, absolute.strip_prefix(beginning).ok()?.to_owned()));
    let Some((mut resolved, rest)) = absolute.ancestors().find_map(there) else { return absolute };
    for part in rest.components() {
        match part {
            Component::ParentDir => drop(resolved.pop()),
            part => resolved.push(part),
        }
    }
    resolved
}

/// Refuses to write a file where a folder is, or none: after hours of work it would be too late.
pub fn check_place(file: &Path) -> Result<(), Failure> {
    if file.is_dir() || file.as_os_str().as_encoded_bytes().last().is_some_and(|&end| is_separator(char::from(end))) {
        return Err(Failure::usage(anyhow!("{} is a folder: name a file", file.display())));
    }
    // A name that is too long is refused here, too.
    is_there(file)?;
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    match folder.filter(|folder| !folder.is_dir()) {
        Some(folder) => Err(Failure::usage(anyhow!("there is no folder {} for {}", folder.display(), file.display()))),
        None => Ok(()),
    }
}

/// As [`check_place`], for rows, which go to stdout of themselves.
pub fn check_place_of_rows(file: &Path) -> Result<(), Failure> {
    if ["-", "/dev/stdout"].iter().any(|stdout| file == Path::new(stdout)) {
        return Err(Failure::usage(anyhow!("rows go to stdout without --output: leave it out, or name a file")));
    }
    check_place(file)
}

/// A file to write is new, and in a folder that there is.
pub fn check_new(file: &Path) -> Result<(), Failure> {
    check_place(file)?;
    if is_occupied(file) {
        return Err(Failure::usage(anyhow!("{} exists: name another file", file.display())));
    }
    Ok(())
}

/// As [`check_new`], for a model's file.
pub fn check_new_model(file: &Path) -> Result<(), Failure> {
    check_ending(file, "safetensors", "a model")?;
    check_new(file)
}

/// Refuses to call `what` otherwise than `.ending`, in letters of any case.
pub fn check_ending(file: &Path, ending: &str, what: &str) -> Result<(), Failure> {
    if ends_in(file, ending) {
        return Ok(());
    }
    Err(Failure::usage(anyhow!("{}: {what} is a .{ending} file", file.display())))
}

/// Whether a file's name has the `ending`, in letters of any case.
pub fn ends_in(file: &Path, ending: &str) -> bool {
    file.extension().is_some_and(|found| found.eq_ignore_ascii_case(ending))
}

/// Refuses a place to write to that would be read with the images of `sources`; `by` says how another one is named.
pub fn check_outside(sources: &[String], out: &Path, by: &str) -> Result<(), Failure> {
    let sources = sources.iter().filter_map(|source| Source::parse(source).ok());
    match sources.into_iter().find(|source| source.would_read(out)) {
        Some(source) => Err(Failure::usage(anyhow!(
            "{} lies in {source}, and would be read with it: name a place elsewhere {by}",
            out.display()
        ))),
        None => Ok(()),
    }
}

/// Whether something is in the way of a new folder's files.
pub fn is_taken(folder: &Path) -> bool {
    std::fs::read_dir(folder).map_or(is_occupied(folder), |mut entries| entries.next().is_some())
}

/// Whether a name is given, if only to a link that leads nowhere.
pub fn is_occupied(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// The model file that `path` means: itself, or that of a run.
///
/// # Errors
/// A directory without a model, with what to do.
pub fn model_file(path: &Path) -> Result<PathBuf, Failure> {
    if !is_there(path)? {
        return Err(Failure::usage(anyhow!("there is no model file and no run at {}", path.display())));
    }
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let run = run_directory(path)?;
    let model = bundle_path(&run);
    if is_there(&model)? {
        return Ok(model);
    }
    RunDirectory::config_of(&run).map_err(train::usage_or_run)?;
    let (shown, quoted) = (run.display(), quoted_path(&run));
    Err(Failure::usage(anyhow!(
        "the run {shown} has no model yet: finish it with vultus train --resume --out {quoted}"
    )))
}

/// The run that the directory `path` means: itself, or the winner of a search.
///
/// # Errors
/// A search whose winner is not trained, with what to do.
pub fn run_directory(path: &Path) -> Result<PathBuf, Failure> {
    if !is_search(path) {
        return Ok(path.to_owned());
    }
    let winner = path.join("winner");
    if !matches!(RunDirectory::config_of(&winner), Err(RunError::Missing { .. })) {
        return Ok(winner);
    }
    let (config, out) = (quoted_path(&search_config_path(path)), quoted_path(path));
    Err(Failure::usage(anyhow!(
        "the search {} has no model yet: finish it with vultus search --config {config} --out {out} --then-train",
        path.display()
    )))
}

/// Writes, and gives up at the first failure: to end what has failed would tell it once more.
pub fn until_it_fails<T, E>(output: &mut Option<T>, write: impl FnOnce(&mut T) -> Result<(), E>) -> Result<(), E> {
    let written = output.as_mut().map_or(Ok(()), write);
    if written.is_err() {
        *output = None;
    }
    written
}

/// `text` as one word of a shell's command.
pub fn quoted(text: &str) -> String {
    if cfg!(windows) {
        return if text.contains(' ') { format!("\"{text}\"") } else { text.to_owned() };
    }
    let stands_for_itself = |part: &&str| shlex::try_quote(part).is_ok_and(|quoted| quoted == **part);
    // Inside a word so does =, as that of --set KEY=VALUE.
    if let Some((key, value)) = text.split_once('=')
        && [key, value].iter().all(stands_for_itself)
    {
        return text.to_owned();
    }
    // No argument and no path has the byte 0, which is what cannot be quoted.
    shlex::try_quote(text).map_or_else(|_| text.to_owned(), Cow::into_owned)
}

/// A path as one word of a shell's command.
pub fn quoted_path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

/// This call, for the record.
pub fn invocation() -> Invocation {
    let arguments: Vec<String> = std::env::args_os().skip(1).map(|text| quoted(&text.to_string_lossy())).collect();
    Invocation {
        revision: env!("VULTUS_REVISION").to_owned(),
        command: format!("vultus {}", arguments.join(" ")).trim_end().to_owned(),
    }
}

/// The directory `asked` for, or else the first of `runs/<name>-001`, `-002`, ... that does not exist: it is made at once, so
/// that no other process takes it.
///
/// # Errors
/// The system's refusal, naming the path.
pub fn run_directory_for(asked: Option<&Path>, name: &str) -> io::Result<(PathBuf, NewFolders)> {
    if let Some(asked) = asked {
        return Ok((asked.to_owned(), NewFolders::default()));
    }
    let mut folders = NewFolders::make(std::iter::once(Path::new("runs")))?;
    for number in 1.. {
        let path = Path::new("runs").join(format!("{name}-{number:03}"));
        match fs_err::create_dir(&path) {
            Ok(()) => {
                folders.0.push(path.clone());
                return Ok((path, folders));
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    unreachable!("there are more numbers than directories")
}

/// Folders that were made, with those above them. Those that are empty go again when this is dropped, unless they are kept.
#[derive(Default)]
pub struct NewFolders(Vec<PathBuf>);

impl NewFolders {
    /// Makes those of `folders` that are not there.
    fn make<'a>(folders: impl Iterator<Item = &'a Path>) -> io::Result<Self> {
        let mut made = Self::default();
        for folder in folders {
            let missing = folder.ancestors().take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists());
            let missing: Vec<PathBuf> = missing.map(Path::to_owned).collect();
            // The deepest last; they go in the other order.
            made.0.extend(missing.into_iter().rev());
            fs_err::create_dir_all(folder)?;
        }
        Ok(made)
    }

    fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for NewFolders {
    fn drop(&mut self) {
        for folder in self.0.iter().rev() {
            // One that is not empty is somebody's by now.
            let _ = std::fs::remove_dir(folder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_shell_would_take_apart_is_quoted() {
        for (text, expected) in [
            ("--set", "--set"),
            ("train.epochs=1", "train.epochs=1"),
            ("runs/mine/model.safetensors", "runs/mine/model.safetensors"),
            ("my run", "'my run'"),
            ("it's", "\"it's\""),
            ("a&b(1)", "'a&b(1)'"),
            ("teachers=[\"a\"]", "'teachers=[\"a\"]'"),
            ("", "''"),
        ] {
            assert_eq!(quoted(text), expected);
        }
    }

    #[test]
    fn what_is_not_there_yet_is_resolved_behind_what_is() {
        let folder = tempfile::tempdir().unwrap();
        let whole = folder.path().canonicalize().unwrap();
        for (path, expected) in [("x", "x"), ("x/../y/z", "y/z"), ("x/./y", "x/y"), ("", "")] {
            assert_eq!(resolved(&folder.path().join(path)), whole.join(expected), "{path}");
        }
        #[cfg(unix)]
        {
            fs_err::create_dir(folder.path().join("x")).unwrap();
            std::os::unix::fs::symlink("x", folder.path().join("link")).unwrap();
            assert_eq!(resolved(&folder.path().join("link/new/file")), whole.join("x/new/file"));
        }
    }
}
