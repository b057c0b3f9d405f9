//! What a person sees while work goes on: a bar on a terminal, plain lines elsewhere. All of it goes to stderr.

use std::fmt;
use std::io::IsTerminal;
use std::path::Path;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use vultus::analyze::Record;
use vultus::wording::counted;
use vultus_train::caveat;
use vultus_train::config::TrainConfig;
use vultus_train::environment::Maker;
use vultus_train::fit::{Observer, StepReport};
use vultus_train::history::EpochRecord;
use vultus_train::prepare::Prepared;
use vultus_train::start::Start;

use crate::interrupt;
use crate::message::say;

/// Shows training, and stops it on Ctrl-C.
#[derive(Debug)]
pub struct Progress {
    /// On a terminal, from the first step: before it there is nothing to show.
    bar: Option<ProgressBar>,
    epochs: usize,
}

impl Progress {
    /// For a run of `epochs`.
    pub fn new(epochs: usize) -> Self {
        Self { bar: None, epochs }
    }

    /// Says what is trained on, and what to know of it.
    pub fn prepared(&self, config: &TrainConfig, prepared: &Prepared) {
        let dataset = &prepared.dataset;
        self.line(&format!(
            "{} images of {} classes: {} to train on, {} to validate, {} in other splits; {} left out",
            dataset.samples.len(),
            dataset.labels.len(),
            prepared.train.len(),
            prepared.validation.len(),
            dataset.samples.len() - prepared.train.len() - prepared.validation.len(),
            dataset.removed.len()
        ));
        for caveat in caveat::of_run(config, prepared) {
            self.line(&caveat.to_string());
        }
    }

    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say(text)),
            None => say(text),
        }
    }
}

/// A bar that is drawn from its first position on.
fn bar(length: Option<u64>, template: &str) -> ProgressBar {
    ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr()).with_style(style(template))
}

fn style(template: &str) -> ProgressStyle {
    let rate = |state: &ProgressState, writer: &mut dyn fmt::Write| {
        // As the last line says it: of the whole time.
        let rate = state.pos() as f64 / state.elapsed().as_secs_f64().max(1e-9);
        let _ = write!(writer, "{rate:.1}/s");
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.with_key("rate", rate).progress_chars("━╸ ")
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Observer for Progress {
    fn stop_requested(&self) -> bool {
        interrupt::requested()
    }

    fn begins(&mut self, start: &Start) {
        let Start { path, taken, tensors } = start;
        self.line(&format!("begins with {taken} of {tensors} tensors of {path}"));
    }

    fn continues_elsewhere(&mut self, makers: &[Maker]) {
        let makers: Vec<String> = makers.iter().map(Maker::to_string).collect();
        self.line(&format!(
            "note: this run was made by {}: sums may be rounded otherwise, and it does not end as one that was never stopped",
            makers.join(", then by ")
        ));
    }

    fn step(&mut self, report: &StepReport) {
        let prefix = format!("epoch {}/{}", report.epoch, report.epochs);
        let message = format!("loss {:.3} accuracy {:.3}", report.loss, report.accuracy);
        let Some(bar) = &self.bar else {
            if std::io::stderr().is_terminal() {
                // Whole at its first drawing.
                let bar = bar(Some(report.steps as u64), "{prefix} {wide_bar} {pos}/{len} {msg} {eta}");
                let bar = bar.with_prefix(prefix).with_message(message);
                bar.set_position(report.step as u64);
                self.bar = Some(bar);
            }
            return;
        };
        bar.set_length(report.steps as u64);
        bar.set_prefix(prefix);
        bar.set_message(message);
        bar.set_position(report.step as u64);
    }

    fn epoch(&mut self, record: &EpochRecord) {
        let width = self.epochs.to_string().len();
        let validated = match (record.val_loss, record.val_accuracy) {
            (Some(loss), Some(accuracy)) => format!("  val_loss {loss:.4}  val_accuracy {accuracy:.4}"),
            _ => String::new(),
        };
        self.line(&format!(
            "epoch {:>width$}/{}  loss {:.4}  accuracy {:.4}{validated}  {:.0} images/s  waiting {:.1} %  {:.1} s",
            record.epoch,
            self.epochs,
            record.loss,
            record.accuracy,
            record.images_per_second,
            record.wait_share * 100.0,
            record.seconds
        ));
    }

    fn outdated(&mut self, directory: &Path) {
        self.line(&format!("note: {} is removed: it is not of this model", directory.display()));
    }
}

/// Seconds between two lines where there is no bar.
const SECONDS_A_LINE: u64 = 60;

/// What is shown of a count: a bar on a terminal, unless results go to it; elsewhere a line a minute.
#[derive(Debug)]
struct Shown {
    bar: Option<ProgressBar>,
    lines: bool,
    started: Instant,
    said: Instant,
}

impl Shown {
    fn new(length: Option<u64>, template: &str, results_on_stdout: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let visible = terminal && !(results_on_stdout && std::io::stdout().is_terminal());
        let bar = visible.then(|| bar(length, template));
        let started = Instant::now();
        Self { bar, lines: !terminal, started, said: started }
    }

    /// Counts in a thread of its own what there is to do, if a bar is there to show it, in the form `template` from then on.
    fn count(&self, template: &'static str, count: impl FnOnce() -> u64 + Send + 'static) {
        if let Some(bar) = self.bar.clone() {
            std::thread::spawn(move || {
                let length = count();
                bar.set_length(length);
                bar.set_style(style(template));
            });
        }
    }

    /// One more. The bar has room for `short`; `line` is what a line says.
    fn advance(&mut self, short: impl FnOnce() -> String, line: impl FnOnce(f64) -> String) {
        if let Some(bar) = &self.bar {
            bar.set_message(short());
            bar.inc(1);
        } else if self.lines && self.said.elapsed().as_secs() >= SECONDS_A_LINE {
            say(line(self.seconds()));
            self.said = Instant::now();
        }
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Counts a film's frames, and shows the count.
#[derive(Debug)]
pub struct Frames {
    shown: Shown,
    frames: u64,
    faces: usize,
}

impl Frames {
    /// Starts to count up to `length` frames, where that is known.
    pub fn new(length: Option<u64>, results_on_stdout: bool) -> Self {
        let template = match length {
            Some(_) => "{wide_bar} {pos}/{len} frames {msg} {rate} {eta}",
            None => "{spinner} {pos} frames {msg} {rate} {elapsed}",
        };
        Self { shown: Shown::new(length, template, results_on_stdout), frames: 0, faces: 0 }
    }

    /// Adds a frame with some faces.
    pub fn frame(&mut self, faces: usize) {
        self.frames += 1;
        self.faces += faces;
        let (frames, faces) = (self.frames, self.faces);
        self.shown.advance(|| counted(faces, "face"), |seconds| frames_line(frames, faces, seconds));
    }

    /// Ends the bar and says how it went.
    pub fn finish(&self) {
        self.shown.clear();
        say(frames_line(self.frames, self.faces, self.shown.seconds()));
    }
}

fn frames_line(frames: u64, faces: usize, seconds: f64) -> String {
    let rate = frames as f64 / seconds.max(1e-9);
    format!("{}, {}, {seconds:.1} s, {rate:.1} frames/s", counted(frames, "frame"), counted(faces, "face"))
}

/// Counts pictures, and shows the count.
#[derive(Debug)]
pub struct Pictures {
    shown: Shown,
    pictures: usize,
    faces: usize,
    /// Pictures that could not be used, or not be drawn.
    pub failed: usize,
}

impl Pictures {
    /// Starts to count; `before` were done by an earlier call. `all` says, when it comes to know, how many there are to do.
    pub fn new(before: usize, results_on_stdout: bool, all: impl FnOnce() -> u64 + Send + 'static) -> Self {
        if before > 0 {
            say(format_args!(
                "{} {} rows already",
                counted(before, "picture"),
                if before == 1 { "has" } else { "have" }
            ));
        }
        let shown = Shown::new(None, "{spinner} {pos} pictures {msg} {rate} {elapsed}", results_on_stdout);
        shown.count("{wide_bar} {pos}/{len} pictures {msg} {rate} {eta}", all);
        Self { shown, pictures: 0, faces: 0, failed: 0 }
    }

    /// Adds a picture.
    pub fn record(&mut self, record: &Record) {
        self.pictures += 1;
        self.faces += record.outcome.as_ref().map_or(0, |analysis| analysis.faces.len());
        self.failed += usize::from(record.error().is_some());
        let (pictures, faces, failed) = (self.pictures, self.faces, self.failed);
        self.shown.advance(
            || format!("{}, {}", counted(faces, "face"), counted(failed, "error")),
            |seconds| pictures_line(pictures, faces, failed, seconds),
        );
    }

    /// Ends the bar and, after more than a few pictures, says how it went.
    pub fn finish(&self) {
        self.shown.clear();
        if self.pictures > 9 {
            say(pictures_line(self.pictures, self.faces, self.failed, self.shown.seconds()));
        }
    }
}

fn pictures_line(pictures: usize, faces: usize, failed: usize, seconds: f64) -> String {
    let rate = pictures as f64 / seconds.max(1e-9);
    let (pictures, faces, failed) = (counted(pictures, "picture"), counted(faces, "face"), counted(failed, "error"));
    format!("{pictures}, {faces}, {failed}, {seconds:.1} s, {rate:.1} pictures/s")
}
