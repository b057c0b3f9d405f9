//! Films and cameras through the programs `ffmpeg` and `ffprobe`.
//!
//! In: a file's name or a camera's, and perhaps a rate. Out: frames of one size, each once and with its own time, as raw
//! pixels through one pipe and times through another; and a film of even rate from frames with times. The programs are
//! looked for in the path; nothing of them is part of this one.

use std::fs::File;
use std::io::{self, BufRead, BufReader, PipeReader, Read};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};

use image::RgbImage;
use serde::Deserialize;

pub use self::writer::FilmWriter;
use crate::program::{Ender, Program};

mod writer;

/// A film may not have more pixels a frame.
const MOST_PIXELS: u64 = 64_000_000;

/// The most frames a second that can be asked for, or that a written film has.
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
    /// A program is there, and cannot be started or has no place for its messages.
    #[error("the program {program} cannot be started: {reason}")]
    Start {
        /// Its name.
        program: &'static str,
        /// What the system says.
        reason: io::Error,
    },
    /// A program was ended from elsewhere, as Ctrl-C on a terminal does.
    #[error("the program {program} was ended")]
    Ended {
        /// Its name.
        program: &'static str,
    },
    /// The film cannot be used.
    #[error("{path} cannot be read as a film: {reason}", path = path.display())]
    Unreadable {
        /// The film.
        path: PathBuf,
        /// What the program says.
        reason: String,
    },
    /// The film ends before its end.
    #[error("{path} breaks off after {seconds:.1} s: {reason}", path = path.display())]
    BreaksOff {
        /// The film.
        path: PathBuf,
        /// From the first frame to the last one that was read.
        seconds: f64,
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
    /// Whether that is the time of the pictures' end, though they may begin later than other streams, as Matroska has it.
    pub counts_from_zero: bool,
    /// How many frames it has, where that is known.
    pub frames: Option<u64>,
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
    /// Of the pictures alone, in seconds: sound may be longer.
    duration: Option<String>,
    nb_frames: Option<String>,
    #[serde(default)]
    tags: Tags,
}

#[derive(Default, Deserialize)]
struct Tags {
    /// When they end, as hours, minutes and seconds, where Matroska has it.
    #[serde(rename = "DURATION")]
    duration: Option<String>,
}

#[derive(Deserialize)]
struct SideData {
    #[serde(default)]
    rotation: f64,
}

#[derive(Default, Deserialize)]
struct Container {
    duration: Option<String>,
    start_time: Option<String>,
}

impl Film {
    /// Asks `ffprobe` about a file or a camera such as `/dev/video0`.
    ///
    /// # Errors
    /// No `ffprobe`, a pipe, or what it says of the file.
    pub fn probe(path: &Path) -> Result<Self, VideoError> {
        let unreadable = |reason: String| VideoError::Unreadable { path: path.to_owned(), reason };
        if is_pipe(path) {
            return Err(unreadable("it is a pipe, and a film is read twice: write it to a file first".to_owned()));
        }
        let is_camera = is_camera(path);
        let without = |reason| VideoError::Start { program: "ffprobe", reason };
        let (stderr, messages) = messages().map_err(without)?;
        let mut command = Command::new("ffprobe");
        command
            .args(["-v", "error", "-select_streams", PICTURES, "-of", "json", "-show_entries"])
            .arg(
                "stream=width,height,sample_aspect_ratio,avg_frame_rate,r_frame_rate,duration,nb_frames:\
                 stream_side_data=rotation:stream_tags=DURATION:format=duration,start_time",
            )
            .args(source(path, is_camera))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr);
        let program = Program::start(&mut command).map_err(|reason| unstartable("ffprobe", reason))?;
        let mut description = Vec::new();
        let stdout = program.child().stdout.take();
        stdout.map(|mut stdout| stdout.read_to_end(&mut description)).transpose().map_err(without)?;
        let status = program.wait().map_err(without)?;
        if status.code().is_none() {
            return Err(VideoError::Ended { program: "ffprobe" });
        }
        if !status.success() {
            return Err(unreadable(reason(read_messages(&messages))));
        }
        let probe: Probe = serde_json::from_slice(&description)
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
        if width == 0 || height == 0 {
            return Err(unreadable("no frame was found in it".to_owned()));
        }
        if u64::from(width) * u64::from(height) > MOST_PIXELS {
            return Err(unreadable(format!("its frames are {width} x {height} pixels")));
        }
        let frames_per_second = rate(&stream.avg_frame_rate).or_else(|| rate(&stream.r_frame_rate));
        let length = |text: &Option<String>| text.as_deref().and_then(duration);
        // ffmpeg counts from where the first of all streams begins.
        let start_s = probe.format.start_time.and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
        let (own, end) = (length(&stream.duration), length(&stream.tags.duration).map(|end| end - start_s));
        Ok(Self {
            path: path.to_owned(),
            is_camera,
            width,
            height,
            frames_per_second,
            seconds: own.or(end).or(length(&probe.format.duration)),
            counts_from_zero: own.is_none() && end.is_some(),
            frames: stream.nb_frames.and_then(|frames| frames.parse().ok()),
        })
    }

    /// Frames a second that a [`FilmReader`] gives, in the mean, where `asked` is the most that is wanted; of a camera, at most.
    ///
    /// # Errors
    /// A film that does not tell its rate, where none is asked for.
    pub fn rate(&self, asked: Option<f64>) -> Result<f64, VideoError> {
        let rates = [asked, self.frames_per_second].into_iter().flatten();
        rates.reduce(f64::min).ok_or_else(|| VideoError::Unreadable {
            path: self.path.clone(),
            reason: "its frame rate is not known: name how many frames a second to look at".to_owned(),
        })
    }

    /// Bytes of a frame in memory.
    pub fn frame_bytes(&self) -> u64 {
        3 * u64::from(self.width) * u64::from(self.height)
    }
}

/// The stream that is read: the first one of pictures that is no cover of music.
const PICTURES: &str = "V:0";

fn is_pipe(path: &Path) -> bool {
    #[cfg(unix)]
    return std::fs::metadata(path)
        .is_ok_and(|metadata| std::os::unix::fs::FileTypeExt::is_fifo(&metadata.file_type()));
    #[cfg(not(unix))]
    return false;
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

/// The seconds of `12.5` or `00:00:12.500`; `None` of none.
fn duration(text: &str) -> Option<f64> {
    let parts = text.split(':').map(str::parse::<f64>);
    let seconds = parts.reduce(|sum, part| Ok(sum? * 60.0 + part?))?.ok()?;
    (seconds.is_finite() && seconds > 0.0).then_some(seconds)
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

/// Why a program does not start.
fn unstartable(program: &'static str, reason: io::Error) -> VideoError {
    match reason.kind() {
        io::ErrorKind::NotFound => VideoError::NoProgram { program, reason },
        _ => VideoError::Start { program, reason },
    }
}

/// A file without a name for a program's messages, which no pipe can block.
fn messages() -> Result<(File, File), io::Error> {
    // What is appended stays in its place when what is old is forgotten.
    let file = tempfile::Builder::new().append(true).tempfile()?.into_file();
    Ok((file.try_clone()?, file))
}

/// Bytes of a program's messages that are read, from their end.
const LAST_MESSAGES: u64 = 64 << 10;

/// Bytes of a program's messages after which they are forgotten: a camera may complain of each frame for days.
const MOST_MESSAGES: u64 = 1 << 20;

/// Makes room where a program goes on and on; the end of what it has said is then in `earlier`.
fn forget_old_messages(messages: &File, earlier: &mut Vec<u8>) {
    if messages.metadata().is_ok_and(|metadata| metadata.len() > MOST_MESSAGES) {
        *earlier = last_messages(messages).unwrap_or_default();
        // Else the file goes on growing, which harms nothing soon.
        let _ = messages.set_len(0);
    }
}

/// What a program has written to its messages.
fn read_messages(messages: &File) -> Option<String> {
    said(&last_messages(messages)?)
}

/// The end of what a program has said.
fn last_messages(messages: &File) -> Option<Vec<u8>> {
    let mut file = messages.try_clone().ok()?;
    let mut bytes = Vec::new();
    // The last lines are shown.
    let length = file.metadata().ok()?.len();
    io::Seek::seek(&mut file, io::SeekFrom::Start(length.saturating_sub(LAST_MESSAGES))).ok()?;
    file.take(LAST_MESSAGES).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Picks frames of which `rate` a second are as good as evenly spaced, and none twice: the first one in each period of that
/// length, where periods begin half of the film's own frame early.
fn choice(rate: f64, film_rate: f64) -> String {
    let period = |time: &str| format!("floor(({time}-start_t+{})*{rate})", 0.5 / film_rate);
    format!("select='isnan(prev_selected_t)+gt({},{})',", period("t"), period("prev_selected_t"))
}

/// Makes the program write a line of each frame, with its time in microseconds, to its stdin, which is our pipe: every other
/// way out carries pixels or messages already. The line comes before the pixels.
const TELL_TIMES: &str =
    r"settb=AVTB,metadata=add:key=vultus:value=frame,metadata=print:key=vultus:file=pipe\\:0:direct=1";

/// Times that only grow, once the film's own have been told: of equal ones the program would complain.
const EVEN: &str = "setpts=N";

/// The time in a line of [`TELL_TIMES`], in seconds where it is known; `None` for another line.
fn time_in(line: &str) -> Option<Option<f64>> {
    let time = line.strip_prefix("frame:")?.split_once("pts:")?.1.split_whitespace().next()?;
    Some(time.parse::<i64>().ok().map(|microseconds| microseconds as f64 / 1e6))
}

/// What is told of the next frame's time, in seconds.
fn told(times: &mut impl BufRead) -> io::Result<Option<f64>> {
    let mut line = String::new();
    while times.read_line(&mut line)? > 0 {
        if let Some(time) = time_in(&line) {
            return Ok(time);
        }
        line.clear();
    }
    Ok(None)
}

/// Reads a film's frames.
#[derive(Debug)]
pub struct FilmReader {
    film: Film,
    program: Program,
    pixels: ChildStdout,
    times: BufReader<PipeReader>,
    messages: File,
    /// What was said before that is there no more.
    earlier: Vec<u8>,
    frames_per_second: f64,
    /// How many frames have been read, if none was left out.
    read: Option<u64>,
    /// Time of the first frame by the film's own count.
    start_s: f64,
    /// Seconds from the first frame to the last one that was read.
    last_s: Option<f64>,
    complaint: Option<String>,
}

impl FilmReader {
    /// Begins to read all frames of `film`, or about `frames_per_second` evenly spaced ones where there are more. None is
    /// repeated.
    ///
    /// # Errors
    /// No `ffmpeg`, or no rate.
    pub fn open(film: &Film, frames_per_second: Option<f64>) -> Result<Self, VideoError> {
        let rate = film.rate(frames_per_second)?;
        let choice = frames_per_second.map(|asked| choice(asked, film.frames_per_second.unwrap_or(asked)));
        let choice = choice.unwrap_or_default();
        let without = |reason| VideoError::Start { program: "ffmpeg", reason };
        let (stderr, messages) = messages().map_err(without)?;
        let (times, stdin) = io::pipe().map_err(without)?;
        // The size is said once more, so that frames never change it within a film.
        let size = format!("scale={}:{},setsar=1", film.width, film.height);
        let mut command = Command::new("ffmpeg");
        command
            .args(["-v", "error", "-nostdin"])
            .args(source(&film.path, film.is_camera))
            .args(["-map", &format!("0:{PICTURES}"), "-vf", &format!("{choice}{TELL_TIMES},{EVEN},{size}")])
            // In the film's rate, frames that are closer than others would have the same time.
            .args(["-fps_mode", "passthrough", "-enc_time_base", "1:1000000"])
            .args(["-f", "rawvideo", "-pix_fmt", "rgb24", "-"])
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(stderr);
        let program = Program::start_apart(&mut command).map_err(|reason| unstartable("ffmpeg", reason))?;
        // Its ends of the pipes close with it.
        drop(command);
        let pixels = program.child().stdout.take().ok_or_else(|| without(io::Error::other("no pipe")))?;
        Ok(Self {
            film: film.clone(),
            program,
            pixels,
            times: BufReader::new(times),
            messages,
            earlier: Vec::new(),
            frames_per_second: rate,
            read: frames_per_second.is_none().then_some(0),
            start_s: 0.0,
            last_s: None,
            complaint: None,
        })
    }

    /// What ends the reading from elsewhere.
    pub fn ender(&self) -> Ender {
        self.program.ender()
    }

    /// What is read.
    pub fn film(&self) -> &Film {
        &self.film
    }

    /// What `ffmpeg` had to say of a film that it read to its end: parts of it are damaged.
    pub fn complaint(&self) -> Option<&str> {
        self.complaint.as_deref()
    }

    /// Up to `count` frames with the seconds from the first frame to them, each later than the one before; none at the end.
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
        let bytes = self.film.frame_bytes();
        let mut pixels = Vec::with_capacity(bytes as usize);
        let read = self.pixels.by_ref().take(bytes).read_to_end(&mut pixels);
        read.map_err(|error| unreadable(error.to_string()))?;
        if pixels.len() as u64 == bytes {
            forget_old_messages(&self.messages, &mut self.earlier);
            self.read = self.read.map(|read| read + 1);
            let told = told(&mut self.times).map_err(|error| unreadable(error.to_string()))?;
            let time_s = self.time(told);
            let frame = RgbImage::from_raw(self.film.width, self.film.height, pixels);
            return Ok(frame.map(|frame| (time_s, frame)));
        }
        let status = self.program.wait().map_err(|error| unreadable(error.to_string()))?;
        let mut all = self.earlier.clone();
        all.extend(last_messages(&self.messages).unwrap_or_default());
        let messages = said(&all);
        // The program ends well where a file is cut off, but does not do so in silence (but for uncompressed films); nor does
        // it where the file is whole and parts of it are damaged.
        let breaks_off = messages.is_some() && (tells_of_a_cut(&all) || !self.is_whole());
        if !status.success() || self.last_s.is_none() || breaks_off {
            let reason = reason(messages);
            return Err(match self.last_s {
                Some(seconds) => VideoError::BreaksOff { path: self.film.path.clone(), seconds, reason },
                None => unreadable(reason),
            });
        }
        self.complaint = messages;
        Ok(None)
    }

    /// Whether all its frames were read, or the next one would come after the film's end: with two of the film's own frames to
    /// spare.
    fn is_whole(&self) -> bool {
        // The last frame may stand for long.
        if self.read.zip(self.film.frames).is_some_and(|(read, frames)| read + 2 >= frames) {
            return true;
        }
        let own_rate = self.film.frames_per_second.unwrap_or(self.frames_per_second);
        let next_s = self.last_s.map(|last| last + 1.0 / self.frames_per_second);
        let start_s = if self.film.counts_from_zero { self.start_s } else { 0.0 };
        self.film.seconds.zip(next_s).is_some_and(|(seconds, next)| next + 2.0 / own_rate >= seconds - start_s)
    }

    /// Seconds from the first frame to the next one. Time goes on evenly where nothing is told of it, or nonsense.
    fn time(&mut self, told: Option<f64>) -> f64 {
        // Times are told in microseconds, and differences of them are no finer.
        let rounded = |seconds: f64| (seconds * 1e6).round() / 1e6;
        let time_s = match (self.last_s, told) {
            (None, told) => {
                self.start_s = told.unwrap_or(0.0);
                0.0
            }
            (Some(last), Some(told)) if rounded(told - self.start_s) > last => rounded(told - self.start_s),
            (Some(last), _) => rounded(last + 1.0 / self.frames_per_second),
        };
        self.last_s = Some(time_s);
        time_s
    }
}

/// Whether a message of `ffmpeg` is that a file ends too early. The length that it knows may be of what is left, as of films in
/// fragments.
fn tells_of_a_cut(messages: &[u8]) -> bool {
    let cut =
        |line: &str| line.trim_end().ends_with(": partial file") || line.contains("File ended prematurely at pos");
    String::from_utf8_lossy(messages).lines().any(cut)
}

#[cfg(test)]
pub(super) mod tests;
