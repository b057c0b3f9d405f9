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

use std::sync::mpsc::sync_channel;

use image::{DynamicImage, RgbImage};
use serde::Serialize;

use self::ffmpeg::{Film, FilmReader, VideoError};
use self::track::{TrackOptions, Tracker};
use crate::analyze::{AnalyzedFace, Analyzer};

/// Frames of a film that are analyzed together, at most; those of a camera are analyzed as they come.
const FRAMES_AT_ONCE: u64 = 8;

/// Bytes of the frames that are analyzed together, unless one alone has more. As many wait meanwhile.
const BYTES_AT_ONCE: u64 = 100_000_000;

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

/// Analyzes all frames of `film` and gives them to `sink` in order.
///
/// # Errors
/// What `ffmpeg` says, the finder's failure, or the first error of `sink`.
pub fn run<E: From<VideoError>>(
    analyzer: &Analyzer,
    film: &mut FilmReader,
    options: TrackOptions,
    mut sink: impl FnMut(Frame) -> Result<(), E>,
) -> Result<(), E> {
    let at_once = frames_at_once(film.film());
    let mut tracker = Tracker::new(options, analyzer.options().abstain_below);
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
        let mut index = 0;
        for frames in receiver {
            let (times, pictures): (Vec<f64>, Vec<DynamicImage>) =
                frames?.into_iter().map(|(time_s, frame)| (time_s, DynamicImage::from(frame))).unzip();
            let analyses = analyzer.analyze_batch(&pictures);
            for ((time_s, picture), analysis) in times.into_iter().zip(pictures).zip(analyses) {
                let faces = analysis.map_err(VideoError::from)?.faces;
                sink(Frame { index, time_s, picture, persons: tracker.next(time_s, faces) })?;
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
