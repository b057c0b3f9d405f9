//! Films and cameras through the programs `ffmpeg` and `ffprobe`.
//!
//! In: a file's name or a camera's, and a rate. Out: frames of one size with their times, as raw pixels through a pipe: a
//! film's evenly spaced, a camera's as they come; and a film from frames. The programs are looked for in the path; nothing
//! of them is part of this one.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use image::RgbImage;
use serde::Deserialize;
use tempfile::TempPath;

use crate::analyze::AnalyzeError;
use crate::persist::put_new;

/// A film may not have more pixels a frame.
const MOST_PIXELS: u64 = 64_000_000;

/// The most frames a second that are read.
pub const MOST_FRAMES_PER_SECOND: f64 = 240.0;

/// Why a film cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum VideoError {
    /// A program is not installed.
    #[error("the program {program} is needed for films and cameras, and is not installed: install ffmpeg ({reason})")]
    NoProgram {
        /// Its name.
        program: &'static str,
        /// What the system says.
        reason: io::Error,
    },
    /// The film cannot be used.
    #[error("{path} cannot be read as a film: {reason}", path = path.display())]
    Unreadable {
        /// The film.
        path: PathBuf,
        /// What the program says.
        reason: String,
    },
    /// The film cannot be written.
    #[error("{path} cannot be written as a film: {reason}", path = path.display())]
    Unwritable {
        /// The film.
        path: PathBuf,
        /// What the program says.
        reason: String,
    },
    /// The film is complete, and cannot have its name; the message names both files.
    #[error(transparent)]
    Unnamed(#[from] io::Error),
    /// The face finder failed.
    #[error(transparent)]
    Analyze(#[from] AnalyzeError),
}

/// What a film is.
#[derive(Clone, Debug, PartialEq)]
pub struct Film {
    /// Its file or device.
    pub path: PathBuf,
    /// Whether it is a camera, whose frames come as they happen, without end.
    pub is_camera: bool,
    /// Width of the upright frames in square pixels.
    pub width: u32,
    /// Height of the upright frames in pixels.
    pub height: u32,
    /// Mean frames a second, where they are known.
    pub frames_per_second: Option<f64>,
    /// Its length in seconds, where it is known.
    pub seconds: Option<f64>,
}

/// The part of ffprobe's JSON that is needed.
#[derive(Deserialize)]
struct Probe {
    #[serde(default)]
    streams: Vec<Stream>,
    #[serde(default)]
    format: Container,
}

#[derive(Deserialize)]
struct Stream {
    width: u32,
    height: u32,
    #[serde(default)]
    sample_aspect_ratio: String,
    #[serde(default)]
    avg_frame_rate: String,
    #[serde(default)]
    r_frame_rate: String,
    #[serde(default)]
    side_data_list: Vec<SideData>,
}

#[derive(Deserialize)]
struct SideData {
    #[serde(default)]
    rotation: f64,
}

#[derive(Default, Deserialize)]
struct Container {
    duration: Option<String>,
}

impl Film {
    /// Asks `ffprobe` about a file or a camera such as `/dev/video0`.
    ///
    /// # Errors
    /// No `ffprobe`, or what it says of the file.
    pub fn probe(path: &Path) -> Result<Self, VideoError> {
        let unreadable = |reason: String| VideoError::Unreadable { path: path.to_owned(), reason };
        let is_camera = is_camera(path);
        let output = Command::new("ffprobe")
            .args(["-v", "error", "-select_streams", "v:0", "-of", "json", "-show_entries"])
            .arg(
                "stream=width,height,sample_aspect_ratio,avg_frame_rate,r_frame_rate:stream_side_data=rotation:\
                 format=duration",
            )
            .args(source(path, is_camera))
            .stdin(Stdio::null())
            .output()
            .map_err(|reason| VideoError::NoProgram { program: "ffprobe", reason })?;
        if !output.status.success() {
            return Err(unreadable(reason(said(&output.stderr))));
        }
        let probe: Probe = serde_json::from_slice(&output.stdout)
            .map_err(|error| unreadable(format!("ffprobe gives no description: {error}")))?;
        let Some(stream) = probe.streams.into_iter().next() else {
            return Err(unreadable("it has no pictures".to_owned()));
        };
        // Pixels that are not square are made so.
        let aspect = ratio(&stream.sample_aspect_ratio, ':').unwrap_or(1.0);
        let across = (f64::from(stream.width) * aspect).round().clamp(0.0, f64::from(u32::MAX)) as u32;
        // ffmpeg turns the frames upright by itself.
        let quarter_turns = stream.side_data_list.iter().map(|data| (data.rotation / 90.0).round() as i64).sum::<i64>();
        let (width, height) = match quarter_turns.rem_euclid(2) {
            0 => (across, stream.height),
            _ => (stream.height, across),
        };
        if width == 0 || height == 0 || u64::from(width) * u64::from(height) > MOST_PIXELS {
            return Err(unreadable(format!("its frames are {width} x {height} pixels")));
        }
        let frames_per_second = rate(&stream.avg_frame_rate).or_else(|| rate(&stream.r_frame_rate));
        let seconds = probe.format.duration.and_then(|text| text.parse().ok());
        Ok(Self { path: path.to_owned(), is_camera, width, height, frames_per_second, seconds })
    }
}

/// Cameras are devices of characters, wherever they have their names.
fn is_camera(path: &Path) -> bool {
    #[cfg(unix)]
    return std::fs::metadata(path)
        .is_ok_and(|metadata| std::os::unix::fs::FileTypeExt::is_char_device(&metadata.file_type()));
    #[cfg(not(unix))]
    return false;
}

/// A ratio such as `30000/1001` or `64:45`; `None` for `0/0` and what makes no sense.
fn ratio(text: &str, sign: char) -> Option<f64> {
    let (over, under) = text.split_once(sign)?;
    let ratio = over.parse::<f64>().ok()? / under.parse::<f64>().ok()?;
    (ratio.is_finite() && ratio > 0.0).then_some(ratio)
}

/// Frames a second.
fn rate(text: &str) -> Option<f64> {
    ratio(text, '/').map(|rate| rate.min(MOST_FRAMES_PER_SECOND))
}

/// The arguments that name a film or a camera.
fn source(path: &Path, is_camera: bool) -> Vec<std::ffi::OsString> {
    if is_camera {
        return vec!["-f".into(), "v4l2".into(), "-i".into(), path.into()];
    }
    // A name is a file, never one of the program's protocols or options.
    let mut name = std::ffi::OsString::from("file:");
    name.push(path);
    vec!["-i".into(), name]
}

/// What a program has said on stderr, in one line; `None` if nothing.
fn said(stderr: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(stderr);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    (!lines.is_empty()).then(|| lines[lines.len().saturating_sub(3)..].join("; "))
}

/// The same as the reason of a failure.
fn reason(said: Option<String>) -> String {
    said.unwrap_or_else(|| "ffmpeg gives no reason".to_owned())
}

/// A program at work, which ends when it is dropped.
#[derive(Debug)]
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        // It may still be at work when nobody wants more of it.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A program that Ctrl-C on a terminal does not reach: when it ends is decided here.
fn apart(program: &str) -> Command {
    let mut command = Command::new(program);
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command
}

/// A file without a name for a program's messages, which no pipe can block.
fn messages() -> Result<(File, File), io::Error> {
    let file = tempfile::tempfile()?;
    Ok((file.try_clone()?, file))
}

/// What a program has written to its messages.
fn read_messages(messages: &File) -> Option<String> {
    let mut file = messages.try_clone().ok()?;
    let mut bytes = Vec::new();
    let _ = io::Seek::rewind(&mut file);
    let _ = file.read_to_end(&mut bytes);
    said(&bytes)
}

/// Reads a film's frames.
#[derive(Debug)]
pub struct FilmReader {
    film: Film,
    program: Program,
    pixels: ChildStdout,
    messages: File,
    frames_per_second: f64,
    frames: u64,
    /// When the first frame came.
    first: Option<Instant>,
    complaint: Option<String>,
}

impl FilmReader {
    /// Begins to read `film` with `frames_per_second` evenly spaced frames, or at its own rate. Of a camera, frames are
    /// left out where there are more, and none is repeated.
    ///
    /// # Errors
    /// No `ffmpeg`, or no rate.
    pub fn open(film: &Film, frames_per_second: Option<f64>) -> Result<Self, VideoError> {
        let rate = frames_per_second.or(film.frames_per_second).ok_or_else(|| VideoError::Unreadable {
            path: film.path.clone(),
            reason: "its frame rate is not known: name how many frames a second to look at".to_owned(),
        })?;
        let frames_per_second = rate.min(MOST_FRAMES_PER_SECOND);
        let no_program = |reason| VideoError::NoProgram { program: "ffmpeg", reason };
        let (stderr, messages) = messages().map_err(no_program)?;
        // The size is said once more, so that frames never change it within a film.
        let size = format!("scale={}:{},setsar=1", film.width, film.height);
        // Evenly spaced frames of a camera would be copies wherever it, or who looks at it, is slower.
        let (choice, pace): (String, &[&str]) = if film.is_camera {
            let least = 0.9 / frames_per_second;
            (format!("select='isnan(prev_selected_t)+gte(t-prev_selected_t,{least})'"), &["-fps_mode", "passthrough"])
        } else {
            (format!("fps={frames_per_second}"), &[])
        };
        let mut program = apart("ffmpeg")
            .args(["-v", "error", "-nostdin"])
            .args(source(&film.path, film.is_camera))
            .args(["-map", "0:v:0", "-vf", &format!("{choice},{size}")])
            .args(pace)
            .args(["-f", "rawvideo", "-pix_fmt", "rgb24", "-"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .map(Program)
            .map_err(no_program)?;
        let pixels = program.0.stdout.take().ok_or_else(|| no_program(io::Error::other("no pipe")))?;
        Ok(Self {
            film: film.clone(),
            program,
            pixels,
            messages,
            frames_per_second,
            frames: 0,
            first: None,
            complaint: None,
        })
    }

    /// What is read.
    pub fn film(&self) -> &Film {
        &self.film
    }

    /// Frames a second that are given; of a camera, at most.
    pub fn frames_per_second(&self) -> f64 {
        self.frames_per_second
    }

    /// What `ffmpeg` had to say of a film that it read to its end: parts of it are damaged.
    pub fn complaint(&self) -> Option<&str> {
        self.complaint.as_deref()
    }

    /// Up to `count` frames with the seconds from the first frame to them; none at the end. A camera's time is the clock's.
    ///
    /// # Errors
    /// A film that breaks off, once all its frames have been given, or cannot be decoded at all.
    pub fn frames(&mut self, count: usize) -> Result<Vec<(f64, RgbImage)>, VideoError> {
        let mut frames = Vec::with_capacity(count);
        while frames.len() < count {
            match self.frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                // What came before it comes first; the pipe is at its end, so that the failure comes again.
                Err(_) if !frames.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(frames)
    }

    fn frame(&mut self) -> Result<Option<(f64, RgbImage)>, VideoError> {
        let unreadable = |reason: String| VideoError::Unreadable { path: self.film.path.clone(), reason };
        let (width, height) = (self.film.width, self.film.height);
        let bytes = 3 * u64::from(width) * u64::from(height);
        let mut pixels = Vec::with_capacity(bytes as usize);
        let read = self.pixels.by_ref().take(bytes).read_to_end(&mut pixels);
        read.map_err(|error| unreadable(error.to_string()))?;
        if pixels.len() as u64 == bytes {
            let now = Instant::now();
            let time_s = if self.film.is_camera {
                now.duration_since(*self.first.get_or_insert(now)).as_secs_f64()
            } else {
                self.frames as f64 / self.frames_per_second
            };
            self.frames += 1;
            return Ok(RgbImage::from_raw(width, height, pixels).map(|frame| (time_s, frame)));
        }
        let status = self.program.0.wait().map_err(|error| unreadable(error.to_string()))?;
        let messages = read_messages(&self.messages);
        // The program ends well where a file is cut off, but does not do so in silence; nor does it where the file is whole
        // and parts of it are damaged.
        let is_whole = |seconds: f64| self.frames + 2 >= (seconds * self.frames_per_second) as u64;
        let breaks_off = messages.is_some() && !self.film.seconds.is_some_and(is_whole);
        if !status.success() || self.frames == 0 || breaks_off {
            return Err(unreadable(reason(messages)));
        }
        self.complaint = messages;
        Ok(None)
    }
}

/// Writes frames as a film; the file is complete or absent.
#[derive(Debug)]
pub struct FilmWriter {
    path: PathBuf,
    pixels: Option<ChildStdin>,
    program: Program,
    /// Where the film grows: beside `path`, with the same ending.
    unfinished: TempPath,
    messages: File,
    size: (u32, u32),
}

impl FilmWriter {
    /// Begins the film `path`, whose ending chooses its kind. An existing file is never replaced.
    ///
    /// # Errors
    /// No `ffmpeg`.
    pub fn create(path: &Path, width: u32, height: u32, frames_per_second: f64) -> Result<Self, VideoError> {
        let no_program = |reason| VideoError::NoProgram { program: "ffmpeg", reason };
        let (stderr, messages) = messages().map_err(no_program)?;
        let mut unfinished = std::ffi::OsString::from(format!(".writing-{}-", std::process::id()));
        unfinished.push(path.file_name().unwrap_or_default());
        let unfinished = TempPath::try_from_path(path.with_file_name(unfinished)).map_err(no_program)?;
        let mut name = std::ffi::OsString::from("file:");
        name.push(&unfinished);
        let mut program = apart("ffmpeg")
            .args(["-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24"])
            .args(["-s", &format!("{width}x{height}"), "-r", &frames_per_second.to_string(), "-i", "-"])
            // Most kinds of film need even sides.
            .args(["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-pix_fmt", "yuv420p"])
            .arg(name)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .map(Program)
            .map_err(no_program)?;
        let pixels = program.0.stdin.take();
        Ok(Self { path: path.to_owned(), pixels, program, unfinished, messages, size: (width, height) })
    }

    /// Adds a frame.
    ///
    /// # Errors
    /// A frame of another size, or what `ffmpeg` says.
    pub fn write(&mut self, frame: &RgbImage) -> Result<(), VideoError> {
        if frame.dimensions() != self.size {
            let reason = "a frame has another size than the first".to_owned();
            return Err(VideoError::Unwritable { path: self.path.clone(), reason });
        }
        let written = self.pixels.as_mut().map_or(Ok(()), |pixels| pixels.write_all(frame.as_raw()));
        written.map_err(|error| {
            // A closed pipe is no reason; the program has one.
            let _ = self.program.0.wait();
            let reason = read_messages(&self.messages).unwrap_or_else(|| error.to_string());
            VideoError::Unwritable { path: self.path.clone(), reason }
        })
    }

    /// Ends the film; without it the file is incomplete.
    ///
    /// # Errors
    /// What `ffmpeg` says, or a file that has got the film's name in the meantime.
    pub fn finish(self) -> Result<(), VideoError> {
        let Self { path, pixels, mut program, unfinished, messages, .. } = self;
        let unwritable = |reason| VideoError::Unwritable { path: path.clone(), reason };
        drop(pixels);
        let status = program.0.wait().map_err(|error| unwritable(error.to_string()))?;
        if !status.success() {
            return Err(unwritable(reason(read_messages(&messages))));
        }
        Ok(put_new(unfinished, &path)?)
    }
}

#[cfg(test)]
mod tests;
