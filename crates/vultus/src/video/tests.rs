use super::*;
use crate::faces::{Area, Region};

fn person() -> Analysis {
    let face = AnalyzedFace {
        area: Area { x: 0, y: 0, width: 9, height: 9 },
        confidence: 1.0,
        label: None,
        score: 1.0,
        probabilities: vec![("happy".to_owned(), 1.0)],
        landmarks: None,
        region: Region::Whole,
    };
    Analysis { width: 64, height: 48, faces: vec![face] }
}

#[test]
fn a_frame_that_cannot_be_looked_at_does_not_end_the_film() {
    let arguments = ["-f", "lavfi", "-i", "testsrc=size=64x48:rate=10:duration=3"];
    let Some((_directory, path)) = ffmpeg::tests::film("film.mkv", &arguments) else { return };
    let mut reader = FilmReader::open(&Film::probe(&path).unwrap(), None).unwrap();
    let calls = std::cell::Cell::new(0);
    let look = |pictures: &[DynamicImage]| -> Vec<Result<Analysis, RecordError>> {
        let one = |_| {
            calls.set(calls.get() + 1);
            if calls.get() == 12 { Err(RecordError::internal()) } else { Ok(person()) }
        };
        pictures.iter().map(one).collect()
    };
    let (mut seen, mut missing) = (Vec::new(), Vec::new());
    let result: Result<(), VideoError> = follow(
        &mut reader,
        look,
        Tracker::new(TrackOptions::default(), 0.0),
        || false,
        |frame| {
            match frame {
                Ok(frame) => seen.push((frame.index, frame.persons[0].person)),
                Err(error) => missing.push(error.to_string()),
            }
            Ok(())
        },
    );
    result.unwrap();
    assert_eq!(seen, (0..30).filter(|index| *index != 11).map(|index| (index, 1)).collect::<Vec<_>>());
    assert_eq!(missing.len(), 1);
    assert!(missing[0].starts_with("frame 11, at 1.100 s: the program"), "{missing:?}");
}

#[cfg(unix)]
#[test]
fn a_source_without_a_frame_can_be_stopped() {
    let Some((directory, _)) = ffmpeg::tests::film("film.mkv", &["-f", "lavfi", "-i", "testsrc=duration=1"]) else {
        return;
    };
    let path = directory.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    // Somebody who opens it for writing and writes nothing.
    let _silent = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let film = Film {
        path,
        is_camera: false,
        width: 64,
        height: 48,
        frames_per_second: Some(10.0),
        seconds: None,
        counts_from_zero: false,
        frames: None,
    };
    let mut reader = FilmReader::open(&film, None).unwrap();
    let asked = std::cell::Cell::new(0);
    let stop = || asked.replace(asked.get() + 1) == 3;
    let look = |_: &[DynamicImage]| -> Vec<Result<Analysis, RecordError>> { unreachable!("there is no frame") };
    let result: Result<(), VideoError> =
        follow(&mut reader, look, Tracker::new(TrackOptions::default(), 0.0), stop, |_| unreachable!());
    result.unwrap();
    assert_eq!(asked.get(), 4);
}

#[test]
fn a_panic_is_an_error_of_its_frame() {
    assert_eq!(caught(|| panic!("a defect")).unwrap_err(), RecordError::internal());
}

#[test]
fn the_larger_frames_are_the_fewer_are_in_memory() {
    let at_once = |width, height, is_camera| {
        let path = "film.mp4".into();
        frames_at_once(&Film {
            path,
            is_camera,
            width,
            height,
            frames_per_second: None,
            seconds: None,
            counts_from_zero: false,
            frames: None,
        })
    };
    let sizes = [(64, 48), (1920, 1080), (3840, 2160), (7680, 4320), (8000, 8000)];
    assert_eq!(sizes.map(|(width, height)| at_once(width, height, false)), [8, 8, 4, 1, 1]);
    assert_eq!(sizes.map(|(width, height)| at_once(width, height, true)), [1; 5]);
}
