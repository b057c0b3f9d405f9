//! Where the faces in a picture are.
//!
//! In: an upright picture ([`crate::decode`] makes it so). Out: [`Face`]s, the surest first, each with its box, a
//! confidence, and the [`Region`] that shows the face as the training pictures show theirs. It does not classify.

mod region;
mod rustface;
mod yunet;

use std::path::PathBuf;

use image::DynamicImage;
use serde::{Serialize, Serializer};

pub use self::region::Region;
use self::yunet::Yunet;

/// A rectangle of whole pixels; serialised as `[x, y, width, height]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// Left edge, in pixels from the picture's.
    pub x: u32,
    /// Upper edge, in pixels from the picture's.
    pub y: u32,
    /// Width in pixels, at least 1.
    pub width: u32,
    /// Height in pixels, at least 1.
    pub height: u32,
}

impl Area {
    /// The part inside a picture of `width` x `height` pixels of the rectangle with the upper left corner (`x`, `y`);
    /// `None` if there is none.
    fn inside(width: u32, height: u32, [x, y, w, h]: [f32; 4]) -> Option<Self> {
        let clip = |start: f32, length: f32, limit: u32| {
            let (first, last) = (start.round(), (start + length).round());
            let (first, last) = (first.clamp(0.0, limit as f32), last.clamp(0.0, limit as f32));
            // Never for what is not a number.
            (last - first >= 1.0).then_some((first as u32, (last - first) as u32))
        };
        let (x, width) = clip(x, w, width)?;
        let (y, height) = clip(y, h, height)?;
        Some(Self { x, y, width, height })
    }

    /// Common pixels of two rectangles as a part of all their pixels: 0 where they are apart, 1 where they are equal.
    pub fn overlap(&self, other: &Self) -> f32 {
        overlap(&self.bounds(), &other.bounds())
    }

    /// Left, top, width and height.
    pub(crate) fn bounds(&self) -> [f32; 4] {
        [self.x, self.y, self.width, self.height].map(|value| value as f32)
    }
}

impl Serialize for Area {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        [self.x, self.y, self.width, self.height].serialize(serializer)
    }
}

/// A face in a picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Face {
    /// Its box, always inside the picture.
    pub area: Area,
    /// How sure the finder is that this is a face, 0..1. Comparable only between faces of the same finder.
    pub confidence: f32,
    /// Centres of the right eye, the left eye, the tip of the nose, the right and the left corner of the mouth (right and
    /// left are the person's), in pixels; they may lie outside the picture. `None` where the finder does not look for them.
    pub landmarks: Option<[(f32, f32); 5]>,
    /// What is cut out for the classifier.
    pub region: Region,
}

impl Face {
    /// All of a picture of `width` x `height` pixels.
    pub fn whole(width: u32, height: u32) -> Self {
        Self { area: Area { x: 0, y: 0, width, height }, confidence: 1.0, landmarks: None, region: Region::Whole }
    }
}

/// How faces are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FaceMethod {
    /// SeetaFace's cascade by the crate `rustface`; its model is part of this crate. Upright faces seen from the front,
    /// from about 40 pixels, and from a 26th of the longer side of a picture of more than 1,024 pixels.
    Rustface,
    /// The network YuNet, from an ONNX file.
    Yunet {
        /// The file.
        model: PathBuf,
    },
    /// None is looked for: the picture is one face.
    Whole,
}

/// Which faces are wanted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FaceOptions {
    /// Smallest box that counts, in pixels of its shorter side; 20 by default.
    pub minimum_px: u32,
    /// Least confidence that counts, 0..1; 0.6 by default.
    pub minimum_confidence: f32,
}

impl Default for FaceOptions {
    fn default() -> Self {
        Self { minimum_px: 20, minimum_confidence: 0.6 }
    }
}

/// Why faces cannot be looked for.
#[derive(Debug, thiserror::Error)]
pub enum FaceError {
    /// The model cannot be read; the message names its file.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The file is no model of the method.
    #[error("{path} is no YuNet model that can be used: {reason}", path = path.display())]
    Model {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The embedded model does not load: the program was built wrongly.
    #[error("the embedded face model is damaged: {0}")]
    Embedded(std::io::Error),
    /// The finder failed on this picture.
    #[error("looking for faces failed: {0}")]
    Failed(String),
}

/// Finds faces, from any number of threads at once.
#[derive(Debug)]
pub struct FaceFinder {
    method: Loaded,
    options: FaceOptions,
}

#[derive(Debug)]
enum Loaded {
    Rustface,
    Yunet(Box<Yunet>),
    Whole,
}

impl FaceFinder {
    /// Loads what `method` needs.
    ///
    /// # Errors
    /// A model file that cannot be read or is no YuNet model.
    pub fn new(method: &FaceMethod, options: FaceOptions) -> Result<Self, FaceError> {
        let method = match method {
            FaceMethod::Rustface => {
                rustface::check()?;
                Loaded::Rustface
            }
            FaceMethod::Yunet { model } => Loaded::Yunet(Box::new(Yunet::load(model)?)),
            FaceMethod::Whole => Loaded::Whole,
        };
        Ok(Self { method, options })
    }

    /// The faces in `picture`, the surest first; none is no error.
    ///
    /// # Errors
    /// The finder's failure on this picture.
    pub fn find(&self, picture: &DynamicImage) -> Result<Vec<Face>, FaceError> {
        if picture.width() == 0 || picture.height() == 0 {
            return Ok(Vec::new());
        }
        let mut faces = match &self.method {
            Loaded::Whole => return Ok(vec![Face::whole(picture.width(), picture.height())]),
            Loaded::Rustface => rustface::find(picture)?,
            Loaded::Yunet(yunet) => yunet.find(picture, self.options.minimum_confidence)?,
        };
        faces.retain(|face| {
            face.area.width.min(face.area.height) >= self.options.minimum_px
                && face.confidence >= self.options.minimum_confidence
        });
        faces.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
        Ok(faces)
    }
}

/// Common area of two boxes of left, top, width and height as a part of the area of both.
pub(crate) fn overlap(a: &[f32; 4], b: &[f32; 4]) -> f32 {
    let along = |axis: usize| ((a[axis] + a[axis + 2]).min(b[axis] + b[axis + 2]) - a[axis].max(b[axis])).max(0.0);
    let common = along(0) * along(1);
    common / (a[2] * a[3] + b[2] * b[3] - common).max(f32::MIN_POSITIVE)
}

#[cfg(test)]
mod tests;
