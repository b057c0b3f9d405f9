//! Films written by `ffmpeg`.
//!
//! In: frames of one size with their times. Out: a film of even rate, in a file that is complete or absent.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use image::RgbImage;
use tempfile::TempPath;

use super::{VideoError, messages, read_messages, reason, unstartable};
use crate::persist::{UNFINISHED, Unfinished, put_new};
use crate::program::Program;

/// A frame of a written film stands still for no longer than this: clocks that jump would fill a disk with one picture.
const LONGEST_STILL_S: f64 = 60.0;

/// Films that this process has begun, so that two never grow in one file.
static BEGUN: AtomicU64 = AtomicU64::new(0);

/// Writes frames as a film of even rate; the file is complete or absent.
#[derive(Debug)]
pub struct FilmWriter {
    path: PathBuf,
    pixels: Option<ChildStdin>,
    program: Program,
    /// Where the film grows: beside `path`, with the same ending.
    unfinished: TempPath,
    place: Unfinished,
    messages: File,
    size: (u32, u32),
    frames_per_second: f64,
    /// Frames that are in the film.
    written: u64,
    /// Frames that are not, of gaps that were too long.
    left_out: u64,
    /// The latest frame, which stays until the next one.
    last: Option<RgbImage>,
}

impl FilmWriter {
    /// Begins the film `path`, whose ending chooses its kind. An existing file is never replaced.
    ///
    /// # Errors
    /// No `ffmpeg`, or no such film by it: two frames are tried.
    pub fn create(path: &Path, width: u32, height: u32, frames_per_second: f64) -> Result<Self, VideoError> {
        if path.extension().is_some_and(|ending| ["m3u8", "mpd"].iter().any(|list| ending.eq_ignore_ascii_case(list))) {
            let reason = "its ending is that of a film in several files".to_owned();
            return Err(VideoError::Unwritable { path: path.to_owned(), reason });
        }
        let mut trial = Self::begin(path, width, height, frames_per_second)?;
        // Two, as a kind of picture has room for one.
        for _ in 0..2 {
            trial.put(&RgbImage::new(width, height))?;
        }
        trial.end()?;
        drop(trial);
        Self::begin(path, width, height, frames_per_second)
    }

    fn begin(path: &Path, width: u32, height: u32, frames_per_second: f64) -> Result<Self, VideoError> {
        let without = |reason| VideoError::Start { program: "ffmpeg", reason };
        let (stderr, messages) = messages().map_err(without)?;
        // Its ending decides its kind; the rest of a long name would make this one too long.
        let mut unfinished = format!("{UNFINISHED}{}-{}", std::process::id(), BEGUN.fetch_add(1, Ordering::Relaxed));
        if let Some(ending) = path.extension() {
            // For kinds of pictures, % would begin a number of a series of files.
            unfinished += &format!(".{}", ending.to_string_lossy().replace('%', "_"));
        }
        let unfinished = TempPath::try_from_path(path.with_file_name(unfinished)).map_err(without)?;
        let place = Unfinished::new(&unfinished);
        let mut name = std::ffi::OsString::from("file:");
        name.push(&unfinished);
        let mut command = Command::new("ffmpeg");
        command
            // Without xerror it ends well on a full disk.
            .args(["-v", "error", "-xerror", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24"])
            .args(["-s", &format!("{width}x{height}"), "-r", &frames_per_second.to_string(), "-i", "-"])
            // Most kinds of film need even sides.
            .args(["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-pix_fmt", "yuv420p"])
            .arg(name)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(stderr);
        let program = Program::start_apart(&mut command).map_err(|reason| unstartable("ffmpeg", reason))?;
        let pixels = program.child().stdin.take();
        Ok(Self {
            path: path.to_owned(),
            pixels,
            program,
            unfinished,
            place,
            messages,
            size: (width, height),
            frames_per_second,
            written: 0,
            left_out: 0,
            last: None,
        })
    }

    /// Adds the frame of `time_s` seconds after the first one. The one before stays until then, or for a minute if that is
    /// shorter; of frames that are closer than the rate has room for, some are left out.
    ///
    /// # Errors
    /// A frame of another size, or what `ffmpeg` says.
    pub fn write(&mut self, time_s: f64, frame: RgbImage) -> Result<(), VideoError> {
        if frame.dimensions() != self.size {
            return Err(self.unwritable("a frame has another size than the first".to_owned()));
        }
        let still = ((LONGEST_STILL_S * self.frames_per_second).round() as u64).max(1);
        let place = (time_s * self.frames_per_second).round() as u64;
        self.left_out += place.saturating_sub((self.left_out + self.written).saturating_add(still - 1));
        let place = place.saturating_sub(self.left_out);
        if let Some(last) = self.last.take() {
            while self.written < place {
                self.put(&last)?;
            }
        }
        if self.written <= place {
            self.put(&frame)?;
        }
        self.last = Some(frame);
        Ok(())
    }

    fn put(&mut self, frame: &RgbImage) -> Result<(), VideoError> {
        self.written += 1;
        let written = self.pixels.as_mut().map_or(Ok(()), |pixels| pixels.write_all(frame.as_raw()));
        written.map_err(|error| {
            // A closed pipe is no reason; the program has one.
            let _ = self.program.wait();
            self.unwritable(self.complaint().unwrap_or_else(|| error.to_string()))
        })
    }

    fn unwritable(&self, reason: String) -> VideoError {
        VideoError::Unwritable { path: self.path.clone(), reason }
    }

    /// What the program says, about the film by the name that it is to have.
    fn complaint(&self) -> Option<String> {
        let (unfinished, path) = (self.unfinished.display().to_string(), self.path.display().to_string());
        Some(read_messages(&self.messages)?.replace(&format!("file:{unfinished}"), &path))
    }

    /// Ends the film, which has not got its name yet.
    fn end(&mut self) -> Result<(), VideoError> {
        self.pixels = None;
        let status = self.program.wait().map_err(|error| self.unwritable(error.to_string()))?;
        if status.success() { Ok(()) } else { Err(self.unwritable(reason(self.complaint()))) }
    }

    /// Ends the film; without it the file is incomplete. Without a frame there is none.
    ///
    /// # Errors
    /// What `ffmpeg` says, or a file that has got the film's name in the meantime.
    pub fn finish(mut self) -> Result<(), VideoError> {
        if self.written == 0 {
            return Ok(());
        }
        self.end()?;
        Ok(put_new(self.unfinished, self.place, &self.path)?)
    }
}
