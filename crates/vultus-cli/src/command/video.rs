//! `vultus video`.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::ValueEnum;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use image::RgbImage;
use vultus::annotate::{annotate, name_of};
use vultus::persist::{is_there, write_new};
use vultus::video::ffmpeg::{Film, FilmReader, FilmWriter, MOST_FRAMES_PER_SECOND, VideoError};
use vultus::video::report::{ReportFacts, page};
use vultus::video::timeline::Timeline;
use vultus::video::track::TrackOptions;
use vultus::video::{self, Frame, FrameError};
use vultus::wording::counted;

use super::{check_new, check_place_of_rows, resolved, until_it_fails};
use crate::analyzer::AnalyzerArguments;
use crate::failure::{Failure, is_closed_pipe};
use crate::interrupt;
use crate::message::say;
use crate::progress::Frames;
use crate::rows::Format;
use crate::rows::film::FilmRows;

/// Follow faces and their expressions through a film or in front of a camera; needs the program ffmpeg.
#[derive(clap::Args)]
pub struct Video {
    /// A film, or a camera such as /dev/video0, which is watched until Ctrl-C.
    #[arg(value_name = "FILM")]
    film: PathBuf,
    #[command(flatten)]
    analyzer: AnalyzerArguments,
    /// Look at this many evenly spaced frames a second, where there are more [default: at every frame].
    #[arg(long, value_name = "N", value_parser = frames_per_second, hide_default_value = true)]
    fps: Option<f64>,
    /// Stop after this many seconds of the film.
    #[arg(long, value_name = "S", value_parser = seconds)]
    seconds: Option<f64>,
    /// Seconds in which the weight of an old frame falls to 1/e; 0 does not smooth.
    #[arg(long, value_name = "S", default_value_t = TrackOptions::default().smoothing_s, value_parser = seconds)]
    smoothing: f64,
    /// Form of the timeline [default: by the ending of --output, else JSON lines].
    #[arg(long, value_name = "FORM", value_parser = film_formats(), hide_default_value = true)]
    format: Option<Format>,
    /// Write the timeline to this new file instead of stdout.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write a page with stacked curves of everyone and each person to this new file (HTML).
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Write the film with boxes, numbers and bars to this new file, whose ending chooses its kind.
    #[arg(long, value_name = "FILM")]
    annotate: Option<PathBuf>,
}

/// All forms but the table: a film is too long for one.
fn film_formats() -> impl TypedValueParser<Value = Format> {
    let forms = Format::value_variants().iter().filter(|form| **form != Format::Table);
    let names: Vec<PossibleValue> = forms.filter_map(ValueEnum::to_possible_value).collect();
    PossibleValuesParser::new(names).try_map(|name| Format::from_str(&name, false))
}

fn frames_per_second(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate <= MOST_FRAMES_PER_SECOND => Ok(rate),
        _ => Err(format!("use a number above 0 and up to {MOST_FRAMES_PER_SECOND}")),
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds >= 0.0 && seconds.is_finite() => Ok(seconds),
        _ => Err("use a number of seconds, 0 or more".to_owned()),
    }
}

/// Why the loop over frames ends early.
enum End {
    /// What was asked for is done.
    Enough,
    Failed(Failure),
}

impl<E: Into<Failure>> From<E> for End {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl Video {
    pub fn run(self) -> Result<(), Failure> {
        self.check_outputs()?;
        // Before anything is begun.
        interrupt::listen()?;
        let format = match (self.format, &self.output) {
            (None, None) => Format::Json,
            (asked, output) => Format::choose(asked, output.as_deref())?,
        };
        self.output.iter().for_each(|output| format.note_for(output));
        if !is_there(&self.film)? {
            let kind = if self.film.starts_with("/dev") { "camera" } else { "film" };
            return Err(Failure::usage(anyhow!("there is no {kind} {}", self.film.display())));
        }
        let film = match Film::probe(&self.film) {
            // Ctrl-C on a terminal ends the program that looks at a film, too.
            Err(VideoError::Ended { .. }) => {
                return Err(Failure::Interrupted("no frame has been looked at".to_owned()));
            }
            film => film?,
        };
        let (analyzer, model) = self.analyzer.load()?;
        let labels = analyzer.classifier().labels().names().to_vec();
        let rate = film.rate(self.fps)?;
        let begin = |path: &PathBuf| FilmWriter::create(path, film.width, film.height, rate);
        let mut writer = self.annotate.as_ref().map(begin).transpose().map_err(|error| match error {
            VideoError::Unwritable { .. } => Failure::usage(error),
            other => other.into(),
        })?;
        let mut reader = FilmReader::open(&film, self.fps)?;
        let mut rows = Some(FilmRows::open(format, &labels, self.output.as_deref())?);

        let mut timeline = Timeline::new(rate);
        let mut progress = Frames::new(expected(film.seconds, self.seconds, rate), self.output.is_none());
        let mut missing = Missing::default();
        let options = TrackOptions { smoothing_s: self.smoothing, ..TrackOptions::default() };
        let result = video::run(&analyzer, &mut reader, options, interrupt::requested, |frame| {
            let time_s = frame.as_ref().map_or_else(|error| error.time_s, |frame| frame.time_s);
            if interrupt::requested() || self.seconds.is_some_and(|seconds| time_s >= seconds) {
                return Err(End::Enough);
            }
            let frame = match frame {
                Ok(frame) => frame,
                Err(error) => {
                    missing.add(error);
                    return Ok(());
                }
            };
            timeline.add(frame.time_s, &frame.persons);
            until_it_fails(&mut writer, |writer| writer.write(frame.time_s, drawn(&frame)))?;
            // Last, as who reads them may be gone.
            let written = until_it_fails(&mut rows, |rows| {
                rows.write(&frame)?;
                // Whatever ends this, what is done is not lost, and whoever follows the file sees it.
                rows.flush()
            });
            match written {
                // Whoever has read enough rows wants the page and the film all the same.
                Err(error) if (self.report.is_some() || writer.is_some()) && is_closed_pipe(&error) => {}
                written => written?,
            }
            progress.frame(frame.persons.len());
            Ok(())
        });
        let failure = match result {
            Ok(()) | Err(End::Enough) => None,
            // Whatever breaks off leaves what there was.
            Err(End::Failed(failure)) if timeline.frames > 0 => Some(failure),
            Err(End::Failed(failure)) => {
                // There is nothing to keep; Parquet has no file yet.
                if let Some(output) = self.output.as_deref().filter(|_| format != Format::Parquet) {
                    let _ = std::fs::remove_file(output);
                }
                return Err(failure);
            }
        };
        let unended = rows.and_then(|rows| rows.finish().err()).map(Failure::from);
        let unwritten = writer.and_then(|writer| writer.finish().err()).map(Failure::from);
        let facts = ReportFacts {
            film: name(&self.film),
            model: model.display().to_string(),
            size: (film.width, film.height),
            program: format!("vultus {}", env!("CARGO_PKG_VERSION")),
        };
        let unreported = self.write_report(&timeline, &labels, &facts).err();
        progress.finish();
        if let Some(complaint) = reader.complaint() {
            say(format_args!("note: {} is damaged, and was read to its end: {complaint}", self.film.display()));
        }
        // The rows come last: that their reader has gone is no failure, and must not hide one.
        let mut failures = [unwritten, unreported, missing.failure(), failure, unended].into_iter().flatten();
        if let Some(first) = failures.next() {
            failures.for_each(|other| {
                other.report();
            });
            return Err(first);
        }
        // A camera has no end but this one.
        if interrupt::requested() && !film.is_camera {
            return Err(Failure::Interrupted(format!("the results end after {}", counted(timeline.frames, "frame"))));
        }
        Ok(())
    }

    fn write_report(&self, timeline: &Timeline, labels: &[String], facts: &ReportFacts) -> Result<(), Failure> {
        let Some(path) = &self.report else { return Ok(()) };
        Ok(write_new(path, page(timeline, labels, facts)?.as_bytes())?)
    }

    /// Files to write are new, not the same, and in folders that there are: after an hour of film it is too late.
    fn check_outputs(&self) -> Result<(), Failure> {
        let outputs: Vec<&PathBuf> = [&self.output, &self.report, &self.annotate].into_iter().flatten().collect();
        self.output.as_deref().map_or(Ok(()), check_place_of_rows)?;
        for (place, output) in outputs.iter().enumerate() {
            check_new(output)?;
            if outputs[..place].iter().any(|other| resolved(other) == resolved(output)) {
                return Err(Failure::usage(anyhow!("{} is named twice: name a file for each", output.display())));
            }
        }
        Ok(())
    }
}

/// Frames that could not be looked at: the first one, and how many.
#[derive(Default)]
struct Missing {
    first: Option<FrameError>,
    count: u64,
}

impl Missing {
    fn add(&mut self, error: FrameError) {
        self.count += 1;
        self.first.get_or_insert(error);
    }

    fn failure(self) -> Option<Failure> {
        let Self { first, count } = self;
        let frames = counted(count, "frame");
        first.map(|first| {
            Failure::Run(anyhow!("{frames} could not be looked at and left out of the results; first {first}"))
        })
    }
}

/// About how many frames will be looked at, where the film's length is known.
fn expected(film_s: Option<f64>, most_s: Option<f64>, frames_per_second: f64) -> Option<u64> {
    film_s.map(|film_s| (most_s.map_or(film_s, |most_s| film_s.min(most_s)) * frames_per_second).round() as u64)
}

/// A frame with the persons drawn on it.
fn drawn(frame: &Frame) -> RgbImage {
    let names: Vec<String> =
        frame.persons.iter().map(|person| format!("{} {}", person.person, name_of(&person.face))).collect();
    let faces: Vec<_> = frame.persons.iter().map(|person| person.face.clone()).collect();
    annotate(&frame.picture, &faces, &names)
}

/// The last part of a path.
fn name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use vultus::analyze::RecordError;

    use super::*;

    #[test]
    fn no_more_frames_are_expected_than_are_asked_for() {
        assert_eq!(expected(Some(60.0), None, 25.0), Some(1500));
        assert_eq!(expected(Some(60.0), Some(4.0), 25.0), Some(100));
        assert_eq!(expected(Some(60.0), Some(90.0), 25.0), Some(1500));
        assert_eq!(expected(None, Some(4.0), 25.0), None);
    }

    #[test]
    fn frames_that_are_left_out_are_counted_and_the_first_is_named() {
        let mut missing = Missing::default();
        assert!(missing.failure().is_none());
        missing = Missing::default();
        for index in [7, 9] {
            missing.add(FrameError { index, time_s: index as f64 / 10.0, error: RecordError::internal() });
        }
        let Some(Failure::Run(error)) = missing.failure() else { panic!("no failure") };
        let message = error.to_string();
        assert!(message.starts_with("2 frames") && message.contains("frame 7, at 0.700 s: the program"), "{message}");
    }
}
