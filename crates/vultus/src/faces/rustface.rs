//! Faces by SeetaFace's cascade (Wu et al. 2016), as the crate `rustface` computes it, with the model of its package.
//!
//! In: a picture. Out: square boxes with a confidence made from the cascade's score. It gives no landmarks.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use image::{DynamicImage, imageops};
use rustface::{Detector, ImageData, Model};

use super::{Area, Face, FaceError, Region};
use crate::preprocess::grayscale;

/// The model file of the crate's package; the build script finds it.
static MODEL: &[u8] = include_bytes!(env!("VULTUS_RUSTFACE_MODEL"));

/// Larger pictures are made smaller before the search: the time grows with the area.
const LONGEST_SIDE_PX: u32 = 1024;

/// The cascade's window is 40 pixels wide, so smaller pictures are enlarged to this.
const SHORTEST_SIDE_PX: u32 = 96;

/// Scores below this are left out by the cascade itself.
const LOWEST_SCORE: f64 = 2.0;

/// The square around a box in which a face is framed as in FER-2013: its side in parts of the box's, and how far its
/// centre is below the box's, likewise. Medians over training faces, near the means that examples/scenes.rs prints.
const SCALE: f32 = 1.1;
const SHIFT: f32 = 0.0;

/// Whether the embedded model loads.
pub(super) fn check() -> Result<(), FaceError> {
    model().map(drop)
}

fn model() -> Result<&'static Model, FaceError> {
    static PARSED: OnceLock<Model> = OnceLock::new();
    if let Some(model) = PARSED.get() {
        return Ok(model);
    }
    let model = rustface::read_model(MODEL).map_err(FaceError::Embedded)?;
    Ok(PARSED.get_or_init(|| model))
}

thread_local! {
    /// A detector cannot be shared: it keeps its working memory.
    static DETECTOR: RefCell<Option<Box<dyn Detector>>> = const { RefCell::new(None) };
}

/// All boxes, in no particular order.
pub(super) fn find(picture: &DynamicImage) -> Result<Vec<Face>, FaceError> {
    let (width, height) = (picture.width(), picture.height());
    let scale = scale(width, height);
    let scaled = |side: u32| ((side as f32 * scale).round() as u32).max(1);
    let mut grey = grayscale(picture);
    if scale != 1.0 {
        grey = imageops::resize(&grey, scaled(width), scaled(height), imageops::FilterType::Triangle);
    }
    if grey.width().min(grey.height()) < SHORTEST_SIDE_PX / 2 {
        return Ok(Vec::new());
    }
    let model = model()?;
    let mut detector = DETECTOR.take().unwrap_or_else(|| {
        let mut detector = rustface::create_detector_with_model(model.clone());
        detector.set_score_thresh(LOWEST_SCORE);
        detector
    });
    let picture = ImageData::new(grey.as_raw(), grey.width(), grey.height());
    let found = catch_unwind(AssertUnwindSafe(|| detector.detect(&picture)))
        .map_err(|_| FaceError::Failed("the cascade panicked".to_owned()))?;
    // Not reached by one that panicked.
    DETECTOR.set(Some(detector));
    let face = |found: &rustface::FaceInfo| {
        let bounds = found.bbox();
        let side = bounds.width() as f32 / scale;
        let bounds = [bounds.x() as f32 / scale, bounds.y() as f32 / scale, side, side];
        let area = Area::inside(width, height, bounds)?;
        let region = Region::around(bounds, SCALE, SHIFT, 0.0);
        Some(Face { area, confidence: confidence(found.score()), landmarks: None, region })
    };
    Ok(found.iter().filter_map(face).collect())
}

/// By what a picture is scaled before the search.
fn scale(width: u32, height: u32) -> f32 {
    let shrink = (LONGEST_SIDE_PX as f32 / width.max(height) as f32).min(1.0);
    let shorter = width.min(height) as f32 * shrink;
    // A strip stays a strip: enlarging it would make its longer side huge.
    let enlarge = (SHORTEST_SIDE_PX as f32 / shorter).clamp(1.0, 4.0);
    shrink * enlarge
}

/// The cascade's score, which has no upper end, as a number from 0 to 1 that grows with it: .5 at the lowest score that
/// is kept, which is where the crate's own example draws the line, and .6 at half as much again.
fn confidence(score: f64) -> f32 {
    (score / (score + LOWEST_SCORE)) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustface::FaceInfo;

    /// A detector with a defect.
    struct Defective;

    impl Detector for Defective {
        fn detect(&mut self, _: &ImageData) -> Vec<FaceInfo> {
            panic!("a defect");
        }
        fn set_window_size(&mut self, _: u32) {}
        fn set_slide_window_step(&mut self, _: u32, _: u32) {}
        fn set_min_face_size(&mut self, _: u32) {}
        fn set_max_face_size(&mut self, _: u32) {}
        fn set_pyramid_scale_factor(&mut self, _: f32) {}
        fn set_score_thresh(&mut self, _: f64) {}
    }

    #[test]
    fn a_detector_that_panics_is_an_error_and_is_not_used_again() {
        let wall = DynamicImage::new_luma8(100, 100);
        DETECTOR.set(Some(Box::new(Defective)));
        assert!(matches!(find(&wall), Err(FaceError::Failed(_))));
        assert_eq!(find(&wall).unwrap(), []);
    }
}
