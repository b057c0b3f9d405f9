use super::*;
use image::{GrayImage, Luma};
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
    /// Makes of it a pipeline whose thread has ended.
    pub(crate) fn lose_classifier(&mut self) {
        self.classifier = mpsc::channel().0;
    }
}

/// A picture with a face of each of the levels.
fn picture(levels: &[u8]) -> Prepared {
    let crops = levels.iter().map(|&level| GrayImage::from_pixel(model::SIDE, model::SIDE, Luma([level]))).collect();
    Prepared { width: 90, height: 60, faces: vec![Face::whole(90, 60); levels.len()], crops }
}

fn labels(analysis: &Analysis) -> Vec<&str> {
    analysis.faces.iter().map(|face| face.label.as_deref().unwrap()).collect()
}

#[test]
fn what_has_come_is_classified_together_up_to_the_batch() {
    let (jobs, queue) = mpsc::channel();
    let pictures: [&[u8]; 6] = [&[250], &[3, 250], &[], &[3, 3, 250], &[250, 250, 250, 3, 3, 3, 3], &[3]];
    let mut answers: Vec<oneshot::Receiver<Analysis>> = Vec::new();
    for levels in pictures {
        let (reply, answer) = oneshot::channel();
        assert!(jobs.send(Job { picture: picture(levels), reply }).is_ok());
        answers.push(answer);
    }
    drop(jobs);
    let metrics = Metrics::new();
    classify(&analyzer(), &queue, 4, &metrics);
    for (mut answer, levels) in answers.into_iter().zip(pictures) {
        let expected: Vec<&str> = levels.iter().map(|&level| if level > 128 { "bright" } else { "dark" }).collect();
        assert_eq!(labels(&answer.try_recv().unwrap()), expected);
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
        assert!(jobs.send(Job { picture: picture(&[250]), reply }).is_ok());
    }
    drop(jobs);
    let metrics = Metrics::new();
    classify(&analyzer(), &queue, 4, &metrics);
    assert_eq!(metrics.faces.get(), 1);
    let mut answer = waits.1;
    assert_eq!(labels(&answer.try_recv().unwrap()), ["bright"]);
}

#[tokio::test]
async fn room_is_taken_and_given_back() {
    let limits = Limits { queue: 3, ..Limits::default() };
    let pipeline = Pipeline::start(analyzer(), limits, Arc::new(Metrics::new())).unwrap();
    let two = pipeline.ticket(2).unwrap();
    assert_eq!(pipeline.metrics.waiting.get(), 2);
    assert_eq!(pipeline.ticket(2).err(), Some(ApiError::Overloaded));
    // More than all the room is let in when nobody else is there.
    assert_eq!(pipeline.ticket(9).err(), Some(ApiError::Overloaded));
    drop(two);
    drop(pipeline.ticket(9).unwrap());
    assert_eq!(pipeline.metrics.waiting.get(), 0);
    let analysis = pipeline.classify(picture(&[3, 250]).crops).await.unwrap();
    assert_eq!(labels(&analysis), ["dark", "bright"]);
}
