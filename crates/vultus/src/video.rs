//! Films and cameras: faces followed over time, with probabilities that do not flicker.
//!
//! 1. [`ffmpeg`]: the program `ffmpeg` turns a film or a camera into frames, and frames into a film;
//! 2. [`track`]: faces of one frame after the other become persons;
//! 3. [`timeline`]: what every person showed when, in as little memory as an hour needs;
//! 4. [`report`]: the timeline as a page.
//!
//! In: a film's name. Out: [`Frame`]s in order, each with its persons. Frames are decoded while others are analyzed; a few
//! of them are in memory, however long the film is, and fewer where they are large.

pub mod ffmpeg;
pub mod report;
pub mod timeline;
pub mod track;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use image::{DynamicImage, RgbImage};
use serde::Serialize;

use self::ffmpeg::{Film, FilmReader, VideoError};
use self::track::{TrackOptions, Tracker};
use crate::analyze::{Analysis, AnalyzedFace, Analyzer, Prepared, RecordError};
use crate::parallel;

/// Frames of a film that are analyzed together, at most; those of a camera are analyzed as they come.
const FRAMES_AT_ONCE: u64 = 8;

/// Bytes of the frames that are analyzed together, unless one alone has more. As many wait meanwhile.
const BYTES_AT_ONCE: u64 = 100_000_000;

/// How often it is asked whether to stop while there is no frame.
const LOOK_UP: Duration = Duration::from_millis(50);

/// A person in a frame.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Person {
    /// Their number in this film, from 1, in the order of appearance.
    pub person: u64,
    /// Their face; its probabilities, label and score are smoothed over time.
    #[serde(flatten)]
    pub face: AnalyzedFace,
}

/// A frame with its persons.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Its number, from 0.
    pub index: u64,
    /// Seconds since the first frame.
    pub time_s: f64,
    /// Its pixels.
    pub picture: DynamicImage,
    /// The persons in it, perhaps none.
    pub persons: Vec<Person>,
}

/// A frame that could not be looked at.
#[derive(Clone, Debug, thiserror::Error)]
#[error("frame {index}, at {time_s:.3} s: {reason}", reason = error.message)]
pub struct FrameError {
    /// Its number, from 0.
    pub index: u64,
    /// Seconds since the first frame.
    pub time_s: f64,
    /// Why.
    pub error: RecordError,
}

/// Analyzes all frames of `film` and gives them to `sink` in order; a frame that cannot be looked at is given as its error. As
/// soon as `stop` says so it ends, also while a camera gives no frame.
///
/// # Errors
/// What `ffmpeg` says, or the first error of `sink`.
pub fn run<E: From<VideoError>>(
    analyzer: &Analyzer,
    film: &mut FilmReader,
    options: TrackOptions,
    stop: impl Fn() -> bool,
    sink: impl FnMut(Result<Frame, FrameError>) -> Result<(), E>,
) -> Result<(), E> {
    let tracker = Tracker::new(options, analyzer.options().abstain_below);
    let look = |pictures: &[DynamicImage]| {
        let prepare = |picture| caught(|| Ok(analyzer.prepare(picture)?));
        analyzer.finish(parallel::map(pictures.iter().collect(), prepare))
    };
    follow(film, look, tracker, stop, sink)
}

/// A defect that one frame brings to light does not end the work on the others.
fn caught(prepare: impl FnOnce() -> Result<Prepared, RecordError>) -> Result<Prepared, RecordError> {
    catch_unwind(AssertUnwindSafe(prepare)).unwrap_or_else(|_| Err(RecordError::internal()))
}

/// As [`run`], with `look` as what looks at some frames.
fn follow<E: From<VideoError>>(
    film: &mut FilmReader,
    look: impl Fn(&[DynamicImage]) -> Vec<Result<Analysis, RecordError>>,
    mut tracker: Tracker,
    stop: impl Fn() -> bool,
    mut sink: impl FnMut(Result<Frame, FrameError>) -> Result<(), E>,
) -> Result<(), E> {
    let at_once = frames_at_once(film.film());
    let ender = film.ender();
    std::thread::scope(|scope| {
        // Frames are handed over, none lies between.
        let (sender, receiver) = sync_channel::<Result<Vec<(f64, RgbImage)>, VideoError>>(0);
        scope.spawn(move || {
            loop {
                let frames = film.frames(at_once);
                let last = frames.as_ref().map_or(true, |frames| frames.is_empty());
                // The receiver is gone after an error of the sink.
                if sender.send(frames).is_err() || last {
                    return;
                }
            }
        });
        // Before the scope waits for the reader, which may wait for a frame.
        let _ended = ender;
        let mut index = 0;
        while !stop() {
            let frames = match receiver.recv_timeout(LOOK_UP) {
                Ok(frames) => frames,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let (times, pictures): (Vec<f64>, Vec<DynamicImage>) =
                frames?.into_iter().map(|(time_s, frame)| (time_s, DynamicImage::from(frame))).unzip();
            let analyses = look(&pictures);
            for ((time_s, picture), analysis) in times.into_iter().zip(pictures).zip(analyses) {
                sink(match analysis {
                    Ok(analysis) => Ok(Frame { index, time_s, picture, persons: tracker.next(time_s, analysis.faces) }),
                    Err(error) => Err(FrameError { index, time_s, error }),
                })?;
                index += 1;
            }
        }
        Ok(())
    })
}

/// How many frames of `film` are looked at together.
fn frames_at_once(film: &Film) -> usize {
    let most = if film.is_camera { 1 } else { FRAMES_AT_ONCE };
    (BYTES_AT_ONCE / film.frame_bytes().max(1)).clamp(1, most) as usize
}

#[cfg(test)]
mod tests;
