//! `vultus video`, where the program ffmpeg is installed.

use std::io::ErrorKind;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::picture::png;
use crate::predict::assert_same_as_csv;
use crate::program::{Place, Running, VULTUS};

/// A place with a trained run and a film of 12 frames, 10 a second; `None` without ffmpeg.
fn place_with_film() -> Option<Place> {
    let place = Place::with_config();
    for number in 0..12 {
        place.write(&format!("frames/{number:02}.png"), png(number, 64));
    }
    let absent = Command::new("ffmpeg").arg("-version").output().err();
    if absent.is_some_and(|error| error.kind() == ErrorKind::NotFound) {
        eprintln!("SKIPPED: the program ffmpeg is not installed");
        return None;
    }
    ffmpeg(&place, &["-framerate", "10", "-i", "frames/%02d.png", "-pix_fmt", "yuv420p", "film.mp4"]);
    place.train("run", &[]);
    Some(place)
}

/// Runs ffmpeg there.
fn ffmpeg(place: &Place, arguments: &[&str]) {
    let mut program = Command::new("ffmpeg");
    program.args(["-v", "error"]).args(arguments).current_dir(place.path("")).stdin(Stdio::null());
    assert!(program.status().is_ok_and(|status| status.success()), "ffmpeg");
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_film_becomes_a_timeline_a_page_and_a_film() {
    let Some(place) = place_with_film() else { return };
    let arguments = ["video", "film.mp4", "--model", "run", "--faces", "whole"];
    let outputs = ["--report", "page.html", "--annotate", "boxes.mp4"];
    let outcome = place.run(&[&arguments[..], &outputs].concat()).ends_with(0).says(&["12 frames"]);
    let frames = lines(&outcome.stdout);
    assert_eq!(frames.len(), 12);
    for (index, frame) in frames.iter().enumerate() {
        assert_eq!(frame["frame"], index);
        assert!((frame["time_s"].as_f64().unwrap() - index as f64 / 10.0).abs() < 1e-9, "{frame}");
        assert_eq!(frame["persons"][0]["person"], 1);
        assert_eq!(frame["persons"][0]["probabilities"].as_object().unwrap().len(), 7);
    }
    let page = fs_err::read_to_string(place.path("page.html")).unwrap();
    assert!(page.contains("1 person, with curves of their own"), "{page}");
    assert!(page.contains("Person 1") && page.contains("<path") && page.contains("film.mp4"), "{page}");
    assert!(place.files_named(".writing-").is_empty());

    // The written film is a film of as many frames.
    let again =
        place.run(&["video", "boxes.mp4", "--model", "run", "--faces", "whole", "--format", "csv"]).ends_with(0);
    assert_eq!(again.stdout.lines().count(), 1 + 12);

    let slower = place.run(&[&arguments[..], &["--fps", "5", "--output", "rows.csv"]].concat()).ends_with(0);
    assert!(slower.stdout.is_empty());
    let rows = fs_err::read_to_string(place.path("rows.csv")).unwrap();
    assert_eq!(rows.lines().count(), 1 + 6, "{rows}");
    assert!(rows.starts_with("frame,time_s,person,x,y,"), "{rows}");
    place.run(&[&arguments[..], &["--output", "rows.csv"]].concat()).ends_with(2).says(&["rows.csv"]);
    place.run(&[&arguments[..], &["--fps", "5", "--output", "rows.parquet"]].concat()).ends_with(0);
    let mut reader = csv::Reader::from_reader(rows.as_bytes());
    let header = reader.headers().unwrap().clone();
    let records: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    assert_same_as_csv(&place, "rows.parquet", &header, &records);
    let short = place.run(&[&arguments[..], &["--seconds", "0.45"]].concat()).ends_with(0);
    assert_eq!(lines(&short.stdout).len(), 5);
}

#[test]
fn what_is_no_film_is_said() {
    let Some(place) = place_with_film() else { return };
    place.write("text.mp4", "no film, only a text\n");
    let film = fs_err::read(place.path("film.mp4")).unwrap();
    place.write("cut.mp4", &film[..film.len() / 2]);
    for name in ["text.mp4", "cut.mp4"] {
        place.run(&["video", name, "--model", "run", "--output", "rows.csv"]).ends_with(1).says(&[name]);
        assert!(!place.path("rows.csv").exists());
    }
    place.run(&["video", "absent.mp4", "--model", "run"]).ends_with(2).says(&["no film absent.mp4"]);
    place.run(&["video", "/dev/video77", "--model", "run"]).ends_with(2).says(&["no camera /dev/video77"]);
    place.run(&["video", "film.mp4", "--model", "run", "--fps", "0"]).ends_with(2).says(&["--fps"]);
    place.run(&["video", "film.mp4", "--model", "run", "--format", "table"]).ends_with(2).says(&["table"]);
    place
        .run(&["video", "film.mp4", "--model", "run", "--faces", "whole", "--annotate", "no/such/folder.mp4"])
        .ends_with(2)
        .says(&["folder.mp4", "no/such"]);
    place
        .run(&["video", "film.mp4", "--model", "run", "--output", "same.csv", "--report", "same.csv"])
        .ends_with(2)
        .says(&["same.csv", "twice"]);
    // A kind of film that there is none of is known before the first frame.
    let outcome = place
        .run(&["video", "film.mp4", "--model", "run", "--faces", "whole", "--annotate", "x.kind", "--report", "r.html"])
        .ends_with(2)
        .says(&["x.kind cannot be written as a film"]);
    assert!(outcome.stdout.is_empty() && !outcome.stderr.contains(".writing-"), "{outcome:?}");
    assert_eq!(outcome.stderr.matches("error: ").count(), 1, "{}", outcome.stderr);
    assert!(!place.path("r.html").exists() && !place.path("x.kind").exists());
    for option in ["--output", "--report", "--annotate"] {
        place.run(&["video", "film.mp4", "--model", "run", option, "run"]).ends_with(2).says(&["run is a folder"]);
    }
}

#[test]
fn pixels_become_square_and_long_gaps_lose_nobody() {
    let Some(place) = place_with_film() else { return };
    ffmpeg(&place, &["-i", "film.mp4", "-vf", "scale=32:64,setsar=2", "squeezed.mkv"]);
    let arguments = ["video", "squeezed.mkv", "--model", "run", "--faces", "whole", "--fps", "2"];
    let frames = lines(&place.run(&arguments).ends_with(0).stdout);
    assert_eq!(frames[0]["persons"][0]["box"], serde_json::json!([0, 0, 64, 64]));

    long_film(&place);
    let arguments = ["video", "long.mp4", "--model", "run", "--faces", "whole", "--fps", "0.5"];
    let frames = lines(&place.run(&arguments).ends_with(0).stdout);
    assert!(frames.len() > 2 && frames.iter().all(|frame| frame["persons"][0]["person"] == 1), "{frames:?}");
}

#[test]
fn frames_of_an_uneven_film_have_their_own_times() {
    let Some(place) = place_with_film() else { return };
    ffmpeg(
        &place,
        &["-i", "film.mp4", "-vf", "select='not(between(n,3,6))'", "-fps_mode", "passthrough", "uneven.mkv"],
    );
    let arguments = ["video", "uneven.mkv", "--model", "run", "--faces", "whole", "--report", "page.html"];
    let frames = lines(&place.run(&arguments).ends_with(0).says(&["8 frames"]).stdout);
    let times: Vec<f64> = frames.iter().map(|frame| frame["time_s"].as_f64().unwrap()).collect();
    assert_eq!(times, [0.0, 0.1, 0.2, 0.7, 0.8, 0.9, 1.0, 1.1]);
    assert_eq!(runs(&place, "page.html"), 1);
}

/// Pieces of the first curve of a page.
fn runs(place: &Place, page: &str) -> usize {
    let page = fs_err::read_to_string(place.path(page)).unwrap();
    let path = page.split_once("<path d=\"").unwrap().1;
    path.split_once('"').unwrap().0.matches('M').count()
}

/// Programs that read the film where the camera `/dev/null` is named: as it happens, at a third of the pace that is announced.
#[cfg(unix)]
fn fake_camera(place: &Place) -> String {
    use std::os::unix::fs::PermissionsExt;

    let path = std::env::var_os("PATH").unwrap();
    for program in ["ffmpeg", "ffprobe"] {
        let installed = std::env::split_paths(&path).map(|folder| folder.join(program)).find(|path| path.is_file());
        let pace = if program == "ffmpeg" { "-re -itsscale 3" } else { "" };
        let script = format!(
            r#"#!/bin/sh
set -- "$@" end
while [ "$1" != end ]; do
    case "$1 $2" in
    '-f v4l2') shift 2 ;;
    '-i /dev/null') set -- "$@" {pace} -i '{film}'; shift 2 ;;
    *) set -- "$@" "$1"; shift ;;
    esac
done
shift
exec '{installed}' "$@"
"#,
            film = place.path("film.mp4").display(),
            installed = installed.unwrap().display(),
        );
        place.write(&format!("bin/{program}"), script);
        let mode = std::fs::Permissions::from_mode(0o755);
        fs_err::set_permissions(place.path(&format!("bin/{program}")), mode).unwrap();
    }
    place.path("bin").display().to_string()
}

#[cfg(unix)]
#[test]
fn a_cameras_frames_come_once_with_their_own_times() {
    let Some(place) = place_with_film() else { return };
    let path = fake_camera(&place);
    let arguments = ["video", "/dev/null", "--model", "run", "--faces", "whole", "--annotate", "boxes.mp4"];
    let report = ["--report", "page.html"];
    let outcome = place.run_with(&[&arguments[..], &report].concat(), &[("PATH", &path)]).ends_with(0);
    let times: Vec<f64> = lines(&outcome.stdout).iter().map(|frame| frame["time_s"].as_f64().unwrap()).collect();
    // 12 frames, 10 in 3 seconds, which are not repeated to be 30.
    assert_eq!(times.len(), 12, "{times:?}");
    assert!(times.is_sorted_by(|a, b| a < b) && times[0] == 0.0, "{times:?}");
    assert!((times[11] - 3.3).abs() < 0.1, "{times:?}");
    // Somebody was there in all of them.
    assert_eq!(runs(&place, "page.html"), 1);
    let again = place.run(&["video", "boxes.mp4", "--model", "run", "--faces", "whole"]).ends_with(0);
    let written = lines(&again.stdout).len() as f64;
    assert!((written - 10.0 * times[times.len() - 1] - 1.0).abs() <= 1.0, "{written} {times:?}");
    let slower = place.run_with(&[&arguments[..6], &["--fps", "2"]].concat(), &[("PATH", &path)]).ends_with(0);
    assert!((6..=7).contains(&lines(&slower.stdout).len()), "{}", slower.stdout);
}

#[test]
fn no_file_is_replaced() {
    let Some(place) = place_with_film() else { return };
    let film = fs_err::read(place.path("film.mp4")).unwrap();
    for option in ["--annotate", "--report"] {
        place
            .run(&["video", "film.mp4", "--model", "run", option, "film.mp4"])
            .ends_with(2)
            .says(&["film.mp4", "exists"]);
        assert_eq!(fs_err::read(place.path("film.mp4")).unwrap(), film, "{option}");
    }
    let twice = ["--format", "json", "--output", "rows", "--report", "./rows"];
    place.run(&[&["video", "film.mp4", "--model", "run"], &twice[..]].concat()).ends_with(2).says(&["named twice"]);
}

#[test]
fn a_film_that_breaks_off_leaves_what_it_had_and_says_so() {
    let Some(place) = place_with_film() else { return };
    ffmpeg(&place, &["-stream_loop", "4", "-i", "film.mp4", "-c:v", "mjpeg", "-q:v", "5", "whole.mkv"]);
    let film = fs_err::read(place.path("whole.mkv")).unwrap();
    place.write("half.mkv", &film[..film.len() / 2]);
    let arguments = ["video", "half.mkv", "--model", "run", "--faces", "whole"];
    // However few frames are looked at, and also where the file's length is that of the fragments that are left.
    for rate in ["1", "0.4"] {
        place.run(&[&arguments[..], &["--fps", rate]].concat()).ends_with(1).says(&["half.mkv", "breaks off after"]);
    }
    let fragments = ["-movflags", "frag_keyframe+empty_moov+default_base_moof", "whole.mp4"];
    ffmpeg(&place, &[&["-i", "whole.mkv", "-c:v", "mpeg4", "-g", "10"], &fragments[..]].concat());
    let film = fs_err::read(place.path("whole.mp4")).unwrap();
    place.write("half.mp4", &film[..film.len() * 11 / 20]);
    place.run(&["video", "half.mp4", "--model", "run", "--faces", "whole"]).ends_with(1).says(&["breaks off after"]);
    place.run(&["video", "whole.mkv", "--model", "run", "--faces", "whole", "--fps", "0.4"]).ends_with(0);
    let outputs = ["--output", "rows.jsonl", "--report", "page.html", "--annotate", "boxes.mp4"];
    place.run(&[&arguments[..], &outputs].concat()).ends_with(1).says(&["half.mkv", "breaks off after"]);
    let rows = lines(&fs_err::read_to_string(place.path("rows.jsonl")).unwrap());
    assert!((10..50).contains(&rows.len()), "{}", rows.len());
    assert!(place.path("page.html").exists() && place.path("boxes.mp4").exists());
}

/// A film of 72 frames, whose rows no buffer holds.
fn long_film(place: &Place) {
    ffmpeg(place, &["-stream_loop", "5", "-i", "film.mp4", "-c", "copy", "long.mp4"]);
}

/// Films and forms of which rows are written at once, late, or not before the end.
#[cfg(unix)]
const ROWS: [(&str, &str); 4] = [("film.mp4", "json"), ("film.mp4", "csv"), ("long.mp4", "json"), ("long.mp4", "csv")];

/// Runs over a film with a page and a film to write, and rows to `stdout`; gives the exit code, the messages, and the number
/// of frames in the film that was written.
#[cfg(unix)]
fn run_into(place: &Place, (film, format): (&str, &str), number: u32, stdout: Stdio) -> (Option<i32>, String, usize) {
    let [page, boxes] = [format!("page{number}.html"), format!("boxes{number}.mp4")];
    let ended = Command::new(VULTUS)
        .args(["video", film, "--format", format, "--model", "run", "--faces", "whole"])
        .args(["--report", &page, "--annotate", &boxes])
        .current_dir(place.path(""))
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(Stdio::piped())
        .spawn()
        .and_then(|mut program| {
            // Whoever was to read the rows has gone.
            drop(program.stdout.take());
            program.wait_with_output()
        })
        .unwrap();
    let messages = String::from_utf8(ended.stderr).unwrap();
    assert!(place.path(&page).exists(), "{messages}");
    let frames = place.run(&["video", &boxes, "--model", "run", "--faces", "whole"]).ends_with(0);
    (ended.status.code(), messages, frames.stdout.lines().count())
}

#[cfg(unix)]
#[test]
fn a_page_and_a_film_are_kept_when_nobody_reads_the_rows() {
    let Some(place) = place_with_film() else { return };
    long_film(&place);
    for (number, rows) in (0..).zip(ROWS) {
        let (code, messages, frames) = run_into(&place, rows, number, Stdio::piped());
        assert_eq!(code, Some(0), "{messages}");
        let whole = place.run(&["video", rows.0, "--model", "run", "--faces", "whole"]).ends_with(0);
        assert_eq!(frames, whole.stdout.lines().count(), "{rows:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_page_and_a_film_are_kept_when_the_rows_have_no_room() {
    let Some(place) = place_with_film() else { return };
    long_film(&place);
    for (number, rows) in (0..).zip(ROWS) {
        let full = fs_err::OpenOptions::new().write(true).open("/dev/full").unwrap().into_parts().0;
        let (code, messages, _) = run_into(&place, rows, number, full.into());
        assert_eq!(code, Some(1), "{messages}");
        assert_eq!(messages.matches("No space left").count(), 1, "{messages}");
    }
}

#[test]
fn a_film_with_damaged_parts_is_read_to_its_end() {
    let Some(place) = place_with_film() else { return };
    ffmpeg(&place, &["-i", "film.mp4", "-c:v", "mpeg4", "-q:v", "2", "whole.avi"]);
    let mut film = fs_err::read(place.path("whole.avi")).unwrap();
    let middle = film.len() / 2;
    film[middle..middle + 60].fill(0xa5);
    place.write("damaged.avi", &film);
    let outcome = place.run(&["video", "damaged.avi", "--model", "run", "--faces", "whole"]).ends_with(0);
    let outcome = outcome.says(&["damaged.avi is damaged", "read to its end"]);
    assert_eq!(lines(&outcome.stdout).len(), 12);
}

/// Of a film whose first frame never comes.
#[cfg(target_os = "linux")]
#[test]
fn two_signals_end_the_programs_and_leave_no_film() {
    let Some(place) = place_with_film() else { return };
    let path = fake_camera(&place);
    // Who reads the film waits for ever; the writer is the program itself.
    let reads = "case \"$*\" in *-nostdin*) echo $$ > reader; exec sleep 600 ;; esac\n";
    let script = fs_err::read_to_string(place.path("bin/ffmpeg")).unwrap();
    place.write("bin/ffmpeg", script.replacen("set --", &format!("{reads}set --"), 1));
    let arguments = ["video", "film.mp4", "--model", "run", "--faces", "whole", "--annotate", "boxes.mp4"];
    let path = format!("{path}:{}", std::env::var("PATH").unwrap());
    let mut command = Command::new(VULTUS);
    let mut running = Running::of(command.args(arguments).env("PATH", path).current_dir(place.path("")));
    running.wait_for_lines(&place.path("reader"), 1);
    let reader = fs_err::read_to_string(place.path("reader")).unwrap();
    assert_eq!(running.interrupt_twice(Duration::from_millis(700)), Some(130));
    assert!(!std::path::Path::new("/proc").join(reader.trim()).exists(), "{reader} is at work");
    // A program that was left alone would make its file by now.
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(place.files_named(".writing-"), Vec::<std::path::PathBuf>::new());
    assert!(!place.path("boxes.mp4").exists());
}

#[test]
fn without_ffmpeg_the_message_says_what_to_install() {
    let place = Place::new();
    place.write("film.mp4", "x");
    place.run_with(&["video", "film.mp4"], &[("PATH", "/nowhere")]).ends_with(1).says(&["ffprobe", "install ffmpeg"]);
}
