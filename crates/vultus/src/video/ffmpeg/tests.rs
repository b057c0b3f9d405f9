use super::*;
use crate::persist::UNFINISHED;
use image::Rgb;

/// Makes `name` in a new directory with ffmpeg's `arguments`; `None` without the program.
pub(in crate::video) fn film(name: &str, arguments: &[&str]) -> Option<(tempfile::TempDir, PathBuf)> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    let made = Command::new("ffmpeg").args(["-v", "error"]).args(arguments).arg(&path).stdin(Stdio::null()).status();
    let Ok(status) = made else {
        eprintln!("SKIPPED: the program ffmpeg is not installed");
        return None;
    };
    assert!(status.success(), "{arguments:?}");
    Some((directory, path))
}

/// Ten frames a second for a second, with the filters `filters`.
fn second(filters: &str) -> Vec<&str> {
    let source = ["-f", "lavfi", "-i", "testsrc=size=64x48:rate=10:duration=1", "-vf", filters];
    [&source[..], &["-pix_fmt", "yuv420p", "-fps_mode", "passthrough"]].concat()
}

fn times(path: &Path, rate: Option<f64>) -> Vec<f64> {
    let mut reader = FilmReader::open(&Film::probe(path).unwrap(), rate).unwrap();
    reader.frames(1000).unwrap().into_iter().map(|(time_s, _)| time_s).collect()
}

fn tenths(times: &[u32]) -> Vec<f64> {
    times.iter().map(|tenth| f64::from(*tenth) / 10.0).collect()
}

#[test]
fn every_frame_of_an_uneven_film_comes_once_at_its_own_time() {
    let uneven = second("select='not(between(n,3,5))',setpts='PTS+0.7/TB*gt(N,4)'");
    let Some((_directory, path)) = film("film.mkv", &uneven) else { return };
    assert_eq!(times(&path, None), tenths(&[0, 1, 2, 6, 7, 15, 16]));
    // More than there are is not asked of any of them twice.
    assert_eq!(times(&path, Some(50.0)), tenths(&[0, 1, 2, 6, 7, 15, 16]));
    assert_eq!(times(&path, Some(2.0)), tenths(&[0, 6, 15]));
}

#[test]
fn frames_of_an_even_film_are_chosen_evenly() {
    let Some((_directory, path)) = film("film.mp4", &second("null")) else { return };
    assert_eq!(times(&path, Some(10.0)), tenths(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]));
    assert_eq!(times(&path, Some(5.0)), tenths(&[0, 2, 4, 6, 8]));
    assert_eq!(times(&path, Some(1.0)), tenths(&[0]));
    assert_eq!(times(&path, Some(7.0)).len(), 7);
}

#[test]
fn a_film_whose_pictures_change_their_size_is_read_to_its_end() {
    let Some((directory, first)) = film("film.ts", &second("null")) else { return };
    let second = [&second("scale=96:32")[..], &["-output_ts_offset", "1"]].concat();
    let Some((_other, second)) = film("film.ts", &second) else { return };
    let path = directory.path().join("both.ts");
    fs_err::write(&path, [fs_err::read(first).unwrap(), fs_err::read(second).unwrap()].concat()).unwrap();
    let times = times(&path, None);
    assert!(times.len() >= 19 && times.is_sorted_by(|a, b| a < b), "{times:?}");
    assert!((times[times.len() - 1] - 1.9).abs() < 0.2, "{times:?}");
}

#[test]
fn times_are_read_where_there_are_some() {
    assert_eq!(time_in("frame:12   pts:1500000 pts_time:1.5\n"), Some(Some(1.5)));
    assert_eq!(time_in("frame:0    pts:NOPTS pts_time:NOPTS\n"), Some(None));
    assert_eq!(time_in("vultus=frame\n"), None);
}

#[test]
fn time_goes_on_where_it_is_not_told_or_turns_back() {
    let Some((_directory, path)) = film("film.mp4", &second("null")) else { return };
    let mut reader = FilmReader::open(&Film::probe(&path).unwrap(), None).unwrap();
    let told = [Some(3.0), Some(3.25), None, Some(3.25), Some(1.0), Some(4.0)];
    let times: Vec<String> = told.into_iter().map(|told| format!("{:.2}", reader.time(told))).collect();
    assert_eq!(times, ["0.00", "0.25", "0.35", "0.45", "0.55", "1.00"]);
}

#[test]
fn in_a_written_film_a_frame_stays_until_the_next_one() {
    let Some((directory, _)) = film("film.mp4", &second("null")) else { return };
    let path = directory.path().join("written.mp4");
    let mut writer = FilmWriter::create(&path, 32, 32, 10.0).unwrap();
    // The third comes too soon to be seen.
    for (time_s, grey) in [(0.0, 20), (0.4, 120), (0.41, 220), (0.6, 200)] {
        writer.write(time_s, RgbImage::from_pixel(32, 32, Rgb([grey; 3]))).unwrap();
    }
    writer.finish().unwrap();
    let mut reader = FilmReader::open(&Film::probe(&path).unwrap(), None).unwrap();
    let seen: Vec<u8> = reader.frames(100).unwrap().iter().map(|(_, frame)| frame.get_pixel(16, 16).0[0]).collect();
    let expected = [20, 20, 20, 20, 120, 220, 200];
    assert_eq!(seen.len(), expected.len(), "{seen:?}");
    assert!(seen.iter().zip(expected).all(|(seen, expected)| seen.abs_diff(expected) < 9), "{seen:?}");
}

#[test]
fn in_a_written_film_no_frame_stays_longer_than_a_minute() {
    let Some((directory, _)) = film("film.mp4", &second("null")) else { return };
    let path = directory.path().join("written.mp4");
    let mut writer = FilmWriter::create(&path, 32, 32, 2.0).unwrap();
    // After a year, and after another one, time goes on as before.
    for time_s in [0.0, 1.0, 3.2e7, 3.2e7 + 2.0, 6.4e7, 6.4e7 + 0.5] {
        writer.write(time_s, RgbImage::new(32, 32)).unwrap();
    }
    writer.finish().unwrap();
    let mut reader = FilmReader::open(&Film::probe(&path).unwrap(), None).unwrap();
    let minute = 60 * 2;
    assert_eq!(reader.frames(1000).unwrap().len(), 2 + minute + 4 + minute + 2);
}

#[test]
fn a_film_that_breaks_off_says_where() {
    // In a codec whose frames are pictures of their own.
    let Some((directory, path)) = film("film.mkv", &[second("null"), vec!["-c:v", "ffv1"]].concat()) else { return };
    let bytes = fs_err::read(&path).unwrap();
    let cut = directory.path().join("cut.mkv");
    fs_err::write(&cut, &bytes[..bytes.len() * 3 / 4]).unwrap();
    let mut reader = FilmReader::open(&Film::probe(&cut).unwrap(), None).unwrap();
    let error = loop {
        match reader.frames(1) {
            Ok(frames) => assert!(!frames.is_empty(), "the film has an end"),
            Err(error) => break error,
        }
    };
    let message = error.to_string();
    assert!(message.contains("cut.mkv breaks off after 0."), "{message}");
}

#[test]
fn a_kind_of_film_that_there_is_none_of_is_refused_at_once_and_by_its_name() {
    let Some((directory, _)) = film("film.mp4", &second("null")) else { return };
    for name in ["written.kind", "written%03d.png", "written.JPG", "written.jp2", "written.m3u8"] {
        let message = FilmWriter::create(&directory.path().join(name), 32, 32, 10.0).unwrap_err().to_string();
        assert!(message.contains(name) && !message.contains(UNFINISHED), "{message}");
    }
    assert_eq!(fs_err::read_dir(directory.path()).unwrap().count(), 1, "film.mp4 alone");
}

#[test]
fn a_file_that_has_appeared_meanwhile_is_left_alone() {
    let Some((directory, _)) = film("film.mp4", &second("null")) else { return };
    let path = directory.path().join("written.mp4");
    let mut writer = FilmWriter::create(&path, 32, 32, 10.0).unwrap();
    writer.write(0.0, RgbImage::new(32, 32)).unwrap();
    fs_err::write(&path, "somebody's").unwrap();
    let message = writer.finish().unwrap_err().to_string();
    assert_eq!(fs_err::read(&path).unwrap(), b"somebody's");
    let kept = Path::new(message.rsplit_once("complete in ").unwrap().1);
    assert_eq!(Film::probe(kept).unwrap().width, 32, "{message}");
}

#[test]
fn sound_that_is_longer_is_no_sign_of_a_cut() {
    let sound = ["-f", "lavfi", "-i", "sine=duration=9"];
    for name in ["film.mp4", "film.mkv"] {
        let Some((_directory, path)) = film(name, &[&second("null")[..4], &sound, &["-pix_fmt", "yuv420p"]].concat())
        else {
            return;
        };
        let film = Film::probe(&path).unwrap();
        assert!(film.seconds.is_some_and(|seconds| (seconds - 1.0).abs() < 0.2), "{film:?}");
    }
    assert_eq!(
        ["12.5", "01:02:03.5", "0.000000", "N/A", ""].map(duration),
        [Some(12.5), Some(3723.5), None, None, None]
    );
}

/// Their bytes damaged in the middle, films are whole all the same: one whose pictures begin after its sound, one that does not begin at 0, one whose last
/// frame stands for four seconds, and one with two frames of the same time.
#[test]
fn a_damaged_film_that_is_read_to_its_end_is_whole() {
    let pictures = ["-f", "lavfi", "-i", "testsrc=size=64x48:rate=10:duration=6"];
    let sound = ["-f", "lavfi", "-i", "sine=duration=11", "-c:a", "pcm_s16le"];
    let coded = ["-c:v", "mpeg4", "-g", "1"];
    let late = [&["-itsoffset", "5"], &pictures[..], &sound, &coded].concat();
    let Some((_late, late)) = film("late.mkv", &late) else { return };
    let Some((_offset, offset)) = film("offset.mkv", &[&pictures[..], &coded, &["-output_ts_offset", "10"]].concat())
    else {
        return;
    };
    let Some((_even, even)) = film("even.mp4", &[&pictures[..], &coded].concat()) else { return };
    let longer = ["-i", even.to_str().unwrap(), "-c", "copy", "-bsf:v", "setts=duration=DURATION*(1+39*eq(N\\,59))"];
    let Some((_still, still)) = film("still.mp4", &longer) else { return };
    for path in [late, offset, still] {
        let mut bytes = fs_err::read(&path).unwrap();
        let half = bytes.len() / 2;
        let picture = (half..).find(|&at| bytes[at..].starts_with(&[0, 0, 1, 0xB6])).unwrap();
        bytes[picture + 5..picture + 25].fill(0xFF);
        fs_err::write(&path, bytes).unwrap();
        let mut reader = FilmReader::open(&Film::probe(&path).unwrap(), None).unwrap();
        let frames = reader.frames(1000).unwrap();
        assert!(frames.len() >= 58 && reader.frames(1).unwrap().is_empty(), "{path:?}: {}", frames.len());
        assert!(reader.complaint().is_some(), "{path:?} is not damaged");
    }
    let twice = ["-pix_fmt", "yuvj420p", "-c:v", "mjpeg", "-bsf:v", "setts=ts=PTS-100*gte(N\\,5)"];
    let Some((_twice, twice)) = film("twice.mkv", &[&second("null")[..], &twice].concat()) else { return };
    let mut reader = FilmReader::open(&Film::probe(&twice).unwrap(), None).unwrap();
    assert_eq!((reader.frames(1000).unwrap().len(), reader.frames(1).unwrap().len()), (10, 0));
    assert_eq!(reader.complaint(), None);
}

#[test]
fn a_film_may_have_a_name_as_long_as_the_system_allows() {
    let Some((directory, _)) = film("film.mp4", &second("null")) else { return };
    let path = directory.path().join("a".repeat(251) + ".mp4");
    let mut writer = FilmWriter::create(&path, 32, 32, 10.0).unwrap();
    writer.write(0.0, RgbImage::new(32, 32)).unwrap();
    writer.finish().unwrap();
    assert!(path.exists());
}

#[test]
fn what_a_program_says_is_forgotten_before_it_fills_a_disk() {
    let ((mut theirs, ours), mut earlier) = (messages().unwrap(), Vec::new());
    for line in 0..3 {
        io::Write::write_all(&mut theirs, format!("line {line} {}\n", "-".repeat(600_000)).as_bytes()).unwrap();
        forget_old_messages(&ours, &mut earlier);
    }
    assert!(ours.metadata().unwrap().len() < 700_000);
    assert!(said(&earlier).is_some() && earlier.len() as u64 <= LAST_MESSAGES, "something was said");
    io::Write::write_all(&mut theirs, b"the end\n").unwrap();
    assert!(read_messages(&ours).unwrap().ends_with("the end"));
}

/// Also where the film's own clock does not begin at 0, so that differences of its times are rounded.
#[test]
fn frames_that_are_told_the_same_time_come_after_each_other() {
    let Some((_directory, path)) = film("film.mkv", &second("null")) else { return };
    let mut reader = FilmReader::open(&Film::probe(&path).unwrap(), None).unwrap();
    let times: Vec<f64> = [1.4, 1.5, 1.5, 1.9].into_iter().map(|told| reader.time(Some(told))).collect();
    assert_eq!(times, [0.0, 0.1, 0.2, 0.5]);
}

#[test]
fn music_with_a_cover_is_no_film_and_a_pipe_none_that_is_read_twice() {
    let cover = ["-f", "lavfi", "-i", "color=red:size=64x48:duration=0.04:rate=25"];
    let of_music = ["-map", "0", "-map", "1", "-c:v", "mjpeg", "-disposition:v", "attached_pic", "-shortest"];
    let sound = ["-f", "lavfi", "-i", "sine=duration=1"];
    let Some((directory, path)) = film("song.m4a", &[&sound[..], &cover, &of_music].concat()) else { return };
    let error = Film::probe(&path).unwrap_err().to_string();
    assert!(error.ends_with("it has no pictures"), "{error}");
    #[cfg(unix)]
    {
        let pipe = directory.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let error = Film::probe(&pipe).unwrap_err().to_string();
        assert!(error.contains("it is a pipe"), "{error}");
    }
}
