use super::*;

/// Makes `name` in a new directory with ffmpeg's `arguments`; `None` without the program.
fn film(name: &str, arguments: &[&str]) -> Option<(tempfile::TempDir, PathBuf)> {
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

#[test]
fn a_file_that_has_appeared_meanwhile_is_left_alone() {
    let Some((directory, _)) = film("film.mp4", &second("null")) else { return };
    let path = directory.path().join("written.mp4");
    let mut writer = FilmWriter::create(&path, 32, 32, 10.0).unwrap();
    writer.write(&RgbImage::new(32, 32)).unwrap();
    fs_err::write(&path, "somebody's").unwrap();
    let message = writer.finish().unwrap_err().to_string();
    assert_eq!(fs_err::read(&path).unwrap(), b"somebody's");
    let kept = Path::new(message.rsplit_once("complete in ").unwrap().1);
    assert_eq!(Film::probe(kept).unwrap().width, 32, "{message}");
}
