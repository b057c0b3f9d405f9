use std::io::Cursor;
use std::time::Duration;

use super::*;
use image::{DynamicImage, GrayImage, ImageFormat, Luma};
use vultus::analyze::AnalyzeOptions;
use vultus::classifier::Classifier;
use vultus::faces::{FaceFinder, FaceMethod, FaceOptions};

#[path = "../../tests/service/model.rs"]
pub(crate) mod model;

pub(crate) fn analyzer() -> Analyzer {
    let finder = FaceFinder::new(&FaceMethod::Whole, FaceOptions::default()).unwrap();
    Analyzer::new(Classifier::from_bundle(model::brightness()).unwrap(), finder, AnalyzeOptions::default())
}

impl Pipeline {
    /// Makes of it a pipeline whose thread that classifies has ended.
    pub(crate) fn lose_classifier(&mut self) {
        let metrics = Arc::clone(&self.metrics);
        *self = Self::before(mpsc::channel().0, &Arc::new(analyzer()), self.limits, metrics).unwrap();
    }
}

/// A picture with a face of each of the levels.
fn picture(levels: &[u8]) -> Prepared {
    let crops = levels.iter().map(|&level| GrayImage::from_pixel(model::SIDE, model::SIDE, Luma([level]))).collect();
    Prepared { width: 90, height: 60, faces: vec![Face::whole(90, 60); levels.len()], crops }
}

/// Room for one picture.
fn room() -> Arc<Ticket> {
    let room = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
    Arc::new(Ticket { _waiting: Counted::new(&Metrics::new().waiting, 1), _room: room })
}

/// Memory for a grey picture.
fn memory_of(width: u64, height: u64) -> u64 {
    width * height * 7 + width.max(height) * u64::from(model::SIDE) * 16
}

fn labels(analysis: &Analysis) -> Vec<&str> {
    analysis.faces.iter().map(|face| face.label.as_deref().unwrap()).collect()
}

#[test]
fn what_has_come_is_classified_together_up_to_the_batch() {
    let (jobs, queue) = mpsc::channel();
    let pictures: [&[u8]; 6] = [&[250], &[3, 250], &[], &[3, 3, 250], &[250, 250, 250, 3, 3, 3, 3], &[3]];
    let mut answers = Vec::new();
    for levels in pictures {
        let (reply, answer) = oneshot::channel();
        assert!(jobs.send(Job { picture: picture(levels), reply, room: room() }).is_ok());
        answers.push(answer);
    }
    drop(jobs);
    let metrics = Metrics::new();
    classify(&analyzer(), &queue, 4, &metrics);
    for (mut answer, levels) in answers.into_iter().zip(pictures) {
        let expected: Vec<&str> = levels.iter().map(|&level| if level > 128 { "bright" } else { "dark" }).collect();
        assert_eq!(labels(&answer.try_recv().unwrap().unwrap()), expected);
    }
    // 1 + 2 + 0 + 3 reach four; a picture with seven is not cut up; one is left.
    assert_eq!(metrics.faces.get(), 14);
    assert!(metrics.text().contains("vultus_batch_faces_count 3\n"), "{}", metrics.text());
}

#[test]
fn nothing_is_computed_for_those_who_have_gone() {
    let (jobs, queue) = mpsc::channel();
    let (gone, waits) = (oneshot::channel(), oneshot::channel());
    drop(gone.1);
    for reply in [gone.0, waits.0] {
        assert!(jobs.send(Job { picture: picture(&[250]), reply, room: room() }).is_ok());
    }
    drop(jobs);
    let metrics = Metrics::new();
    classify(&analyzer(), &queue, 4, &metrics);
    assert_eq!(metrics.faces.get(), 1);
    let mut answer = waits.1;
    assert_eq!(labels(&answer.try_recv().unwrap().unwrap()), ["bright"]);
}

#[tokio::test]
async fn room_is_taken_and_given_back() {
    let limits = Limits { queue: 3, ..Limits::default() };
    let pipeline = Pipeline::start(analyzer(), limits, Arc::new(Metrics::new())).unwrap();
    let two = pipeline.ticket(2).unwrap();
    assert_eq!(pipeline.metrics.waiting.get(), 2);
    assert_eq!(pipeline.ticket(2).err(), Some(ApiError::Overloaded));
    drop(two);
    drop(pipeline.ticket(3).unwrap());
    assert_eq!(pipeline.ticket(4).err(), Some(ApiError::Overloaded));
    assert_eq!(pipeline.metrics.waiting.get(), 0);
    let analysis = pipeline.classify(picture(&[3, 250]).crops).await.unwrap();
    assert_eq!(labels(&analysis), ["dark", "bright"]);
}

#[tokio::test]
async fn every_picture_is_counted_by_how_it_ended() {
    let limits = Limits { queue: 3, answer: Duration::from_millis(300), ..Limits::default() };
    // Nobody takes from the queue of faces: there is no answer, nor an end of waiting for one.
    let (classifier, jobs) = mpsc::channel();
    let metrics = Arc::new(Metrics::new());
    let pipeline = Pipeline::before(classifier, &Arc::new(analyzer()), limits, Arc::clone(&metrics)).unwrap();
    let pictures = |count| vec![Bytes::from(png(&DynamicImage::new_luma8(9, 9))); count];
    let timeout = ApiError::Timeout { limit: limits.answer };
    assert_eq!(pipeline.analyze(pictures(2), Faces::Find).await.unwrap_err(), timeout);
    assert_eq!(pipeline.classify(picture(&[3]).crops).await.unwrap_err(), timeout);
    assert_eq!(pipeline.analyze(pictures(4), Faces::Find).await.unwrap_err(), ApiError::Overloaded);
    assert_eq!(pipeline.classify(picture(&[3; 5]).crops).await.unwrap_err(), ApiError::Overloaded);
    // Those for which nobody waits are still there, and have their room until they are not.
    let room = || (metrics.waiting.get(), pipeline.room.available_permits());
    assert_eq!(room(), (3, 0));
    drop(jobs);
    while room() != (0, 3) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    let pipeline = Pipeline::start(analyzer(), Limits::default(), Arc::clone(&metrics)).unwrap();
    let mixed = [pictures(2), vec![Bytes::from("dear diary")]].concat();
    assert_eq!(pipeline.analyze(mixed, Faces::Find).await.unwrap().len(), 3);
    assert_eq!(pipeline.classify(picture(&[3, 250]).crops).await.unwrap().faces.len(), 2);
    let figures = metrics.text();
    for (outcome, count) in [("timeout", 3), ("overloaded", 9), ("not_an_image", 1), ("ok", 4)] {
        let line = format!("vultus_pictures_total{{outcome=\"{outcome}\"}} {count}\n");
        assert!(figures.contains(&line), "{line} is not in\n{figures}");
    }
    assert_eq!(metrics.waiting.get(), 0);
}

/// A picture that is not decoded yet, and where its analysis comes.
fn undecoded(bytes: Vec<u8>) -> (Picture, oneshot::Receiver<Result<Analysis, ApiError>>) {
    let (reply, answer) = oneshot::channel();
    (Picture { bytes: bytes.into(), faces: Faces::Find, reply, room: room() }, answer)
}

fn png(picture: &DynamicImage) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

#[test]
fn a_picture_waits_for_its_memory_and_those_behind_it_wait_too() {
    let (large, small) = (png(&DynamicImage::new_luma8(90, 60)), png(&DynamicImage::new_luma8(9, 9)));
    let memory = PictureMemory::new(memory_of(90, 60) as usize);
    let ((send, queue), (classifier, jobs)) = (mpsc::channel(), mpsc::channel());
    let queue = Mutex::new(queue);
    let (analyzer, first) = (analyzer(), memory.take(1).unwrap());
    thread::scope(|scope| {
        for _ in 0..2 {
            let classifier = classifier.clone();
            scope.spawn(|| prepare(&analyzer, &queue, &memory, &{ classifier }));
        }
        let answers = [large, small].map(|bytes| {
            let (picture, answer) = undecoded(bytes);
            assert!(send.send(picture).is_ok());
            answer
        });
        assert!(jobs.recv_timeout(Duration::from_millis(200)).is_err(), "decoded without memory");
        drop(first);
        let mut widths = [0; 2].map(|_| jobs.recv().unwrap().picture.width);
        widths.sort_unstable();
        assert_eq!(widths, [9, 90]);
        drop((send, answers));
    });
}

#[test]
fn what_needs_more_memory_than_there_is_or_breaks_is_answered_and_the_next_one_too() {
    let memory = PictureMemory::new(memory_of(9, 9) as usize);
    let ((send, queue), (classifier, jobs)) = (mpsc::channel(), mpsc::channel());
    let pictures = [(9, 10), (9, 9)].map(|(width, height)| png(&DynamicImage::new_luma8(width, height)));
    let [mut refused, mut used] = pictures.map(|bytes| {
        let (picture, answer) = undecoded(bytes);
        assert!(send.send(picture).is_ok());
        answer
    });
    drop(send);
    prepare(&analyzer(), &Mutex::new(queue), &memory, &classifier);
    let error = refused.try_recv().unwrap().unwrap_err();
    assert_eq!((error.code(), error.status().as_u16()), ("too_large", 413));
    let (needs, limit) = (memory_of(9, 10), memory_of(9, 9));
    let words = format!("takes {needs} bytes of memory while it is worked on, more than the limit of {limit}");
    assert!(error.to_string().contains(&words), "{error}");
    assert_eq!(jobs.recv().unwrap().picture.height, 9);
    assert!(used.try_recv().is_err(), "answered before it is classified");
    assert!(memory.take(memory_of(9, 9)).is_ok(), "all memory is free again");
}
