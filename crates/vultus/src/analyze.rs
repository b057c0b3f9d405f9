//! From a picture to the expressions of all faces in it.
//!
//! In: decoded pictures. Out: an [`Analysis`] each, which serialises as in the product's JSON (a server adds the entropy). The work has
//! two halves, so that the faces of many pictures can be classified together: [`Analyzer::prepare`] finds faces and cuts
//! them out, one picture at a time, on any thread; [`Analyzer::classify`] names what it finds in all of them at once.

use std::path::Path;

use image::{DynamicImage, GrayImage};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::classifier::{Classifier, Prediction, as_map};
use crate::decode::{DecodeError, DecodeLimits, OpenError, decode, open};
use crate::faces::{Area, Face, FaceError, FaceFinder, Region};
use crate::picture_file::PictureFileError;

/// What is said about the faces.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct AnalyzeOptions {
    /// From 0 to 1: a face whose best class is less probable than this gets no label; 0, the default, labels every face.
    pub abstain_below: f32,
    /// How large a picture may be.
    pub limits: DecodeLimits,
    /// Whether faces are looked for in pictures of exactly the size of the network's input, too. They are faces
    /// themselves by default.
    pub always_search: bool,
}

/// Finds and classifies faces, from any number of threads at once.
///
/// ```no_run
/// use std::path::Path;
/// use vultus::analyze::{AnalyzeOptions, Analyzer};
/// use vultus::classifier::Classifier;
/// use vultus::faces::{FaceFinder, FaceMethod, FaceOptions};
///
/// let classifier = Classifier::load(Path::new("model.safetensors"))?;
/// let finder = FaceFinder::new(&FaceMethod::Rustface, FaceOptions::default())?;
/// let analyzer = Analyzer::new(classifier, finder, AnalyzeOptions::default());
/// for face in analyzer.analyze_file(Path::new("photo.jpg"))?.faces {
///     println!("{:?} {:?} {:.2}", face.area, face.label, face.score);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Analyzer {
    classifier: Classifier,
    for_cuts: Classifier,
    finder: FaceFinder,
    options: AnalyzeOptions,
}

/// A face and what the classifier says about it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AnalyzedFace {
    /// Its box in pixels, inside the picture: `[x, y, width, height]`.
    #[serde(rename = "box")]
    pub area: Area,
    /// How sure the finder is that this is a face, 0..1.
    pub confidence: f32,
    /// The most probable class; `None` if its probability is below [`AnalyzeOptions::abstain_below`].
    pub label: Option<String>,
    /// The highest probability.
    pub score: f32,
    /// Every class with its probability, in the bundle's order; they sum to 1.
    #[serde(serialize_with = "as_map")]
    pub probabilities: Vec<(String, f32)>,
    /// Right eye, left eye, nose, right and left corner of the mouth, in pixels, where the finder gives them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub landmarks: Option<[(f32, f32); 5]>,
    /// What was cut out for the classifier; not serialised.
    #[serde(skip)]
    pub region: Region,
}

/// What was found in one picture.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Analysis {
    /// The picture's width in pixels, upright.
    pub width: u32,
    /// The picture's height in pixels, upright.
    pub height: u32,
    /// The faces, the surest first; perhaps none.
    pub faces: Vec<AnalyzedFace>,
}

/// Why there is no analysis.
#[derive(Debug, thiserror::Error)]
pub enum AnalyzeError {
    /// The file is no picture, or cannot be read.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The bytes are no picture.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The finder failed.
    #[error(transparent)]
    Faces(#[from] FaceError),
}

impl AnalyzeError {
    /// The kind of error in one word, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Open(error) => error.code(),
            Self::Decode(error) => error.code(),
            Self::Faces(_) => "face_finder_failed",
        }
    }
}

/// A picture's faces before they are classified.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The picture's width in pixels.
    pub width: u32,
    /// The picture's height in pixels.
    pub height: u32,
    /// The faces, the surest first.
    pub faces: Vec<Face>,
    /// Each face's pixels, grey, of the size of the network's input.
    pub crops: Vec<GrayImage>,
}

impl Analyzer {
    /// Puts the parts together.
    pub fn new(classifier: Classifier, finder: FaceFinder, options: AnalyzeOptions) -> Self {
        let for_cuts = classifier.for_cuts();
        Self { classifier, for_cuts, finder, options }
    }

    /// The classifier in use.
    pub fn classifier(&self) -> &Classifier {
        &self.classifier
    }

    /// What classifies the pixels of `region`.
    pub fn classifier_of(&self, region: &Region) -> &Classifier {
        match region {
            Region::Whole => &self.classifier,
            Region::Square { .. } => &self.for_cuts,
        }
    }

    /// The options in force.
    pub fn options(&self) -> &AnalyzeOptions {
        &self.options
    }

    /// Finds and classifies the faces in a picture.
    ///
    /// # Errors
    /// The finder's failure on this picture; no face is no error.
    pub fn analyze(&self, picture: &DynamicImage) -> Result<Analysis, AnalyzeError> {
        Ok(self.classify(vec![self.prepare(picture)?]).remove(0))
    }

    /// As [`Analyzer::analyze`], from a PNG, JPEG, BMP or WebP file, whatever its name ends in.
    ///
    /// # Errors
    /// A file that cannot be read or is no picture, or the finder's failure.
    pub fn analyze_file(&self, path: &Path) -> Result<Analysis, AnalyzeError> {
        self.analyze(&open(path, &self.options.limits)?)
    }

    /// As [`Analyzer::analyze`], from the bytes of a PNG, JPEG, BMP or WebP file.
    ///
    /// # Errors
    /// Bytes that are no picture, or the finder's failure.
    pub fn analyze_bytes(&self, bytes: &[u8]) -> Result<Analysis, AnalyzeError> {
        self.analyze(&decode(bytes, &self.options.limits)?)
    }

    /// The second half for many pictures, of which some failed; all faces are classified together. One result a picture, in
    /// order.
    pub fn finish<E>(&self, prepared: Vec<Result<Prepared, E>>) -> Vec<Result<Analysis, E>> {
        let mut good = Vec::new();
        let places: Vec<Result<(), E>> =
            prepared.into_iter().map(|picture| picture.map(|picture| good.push(picture))).collect();
        let mut analyses = self.classify(good).into_iter();
        places.into_iter().filter_map(|place| place.map(|()| analyses.next()).transpose()).collect()
    }

    /// The first half: finds the faces in a picture and cuts them out. A picture of exactly the size of the network's
    /// input is a face itself, unless the options say otherwise.
    ///
    /// # Errors
    /// The finder's failure on this picture.
    pub fn prepare(&self, picture: &DynamicImage) -> Result<Prepared, AnalyzeError> {
        let preprocessing = self.classifier.preprocessing();
        let is_face = (picture.width(), picture.height()) == (preprocessing.width, preprocessing.height);
        let faces = if is_face && !self.options.always_search {
            vec![Face::whole(picture.width(), picture.height())]
        } else {
            self.finder.find(picture)?
        };
        let crops = faces.iter().map(|face| face.region.cut(picture, preprocessing)).collect();
        Ok(Prepared { width: picture.width(), height: picture.height(), faces, crops })
    }

    /// As [`Analyzer::prepare`], from the bytes of a PNG, JPEG, BMP or WebP file.
    ///
    /// # Errors
    /// Bytes that are no picture, or the finder's failure.
    pub fn prepare_bytes(&self, bytes: &[u8]) -> Result<Prepared, AnalyzeError> {
        self.prepare(&decode(bytes, &self.options.limits)?)
    }

    /// The second half: classifies the faces of any number of pictures in one batch. One analysis a picture, in order.
    ///
    /// # Panics
    /// If a picture has not as many crops as faces.
    pub fn classify(&self, pictures: Vec<Prepared>) -> Vec<Analysis> {
        let (mut whole, mut cuts) = (Vec::new(), Vec::new());
        let mut found = Vec::with_capacity(pictures.len());
        for Prepared { width, height, faces, crops } in pictures {
            assert_eq!(faces.len(), crops.len(), "a crop for each face");
            for (face, crop) in faces.iter().zip(crops) {
                if face.region == Region::Whole { &mut whole } else { &mut cuts }.push(crop);
            }
            found.push((width, height, faces));
        }
        let mut whole = self.classifier.predict_faces(&whole).into_iter();
        let mut cuts = self.for_cuts.predict_faces(&cuts).into_iter();
        let mut said = |face: Face| {
            let answers = if face.region == Region::Whole { &mut whole } else { &mut cuts };
            answers.next().map(|said| self.said(face, said))
        };
        let analysis = |(width, height, faces): (u32, u32, Vec<Face>)| Analysis {
            width,
            height,
            faces: faces.into_iter().filter_map(&mut said).collect(),
        };
        found.into_iter().map(analysis).collect()
    }

    fn said(&self, face: Face, Prediction { label, score, probabilities }: Prediction) -> AnalyzedFace {
        let label = (score >= self.options.abstain_below).then_some(label);
        let Face { area, confidence, landmarks, region } = face;
        AnalyzedFace { area, confidence, label, score, probabilities, landmarks, region }
    }
}

/// A picture's result with its name: one line of the product's JSON.
///
/// Serialises as `{path, width, height, faces}` or `{path, error: {code, message}}`, and with both where only the drawing
/// failed.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The picture's path, or another name for it.
    pub path: String,
    /// What was found, or why nothing was.
    pub outcome: Result<Analysis, RecordError>,
    /// Why there is no drawing of it, where one was wanted.
    pub undrawn: Option<RecordError>,
}

impl Record {
    /// What went wrong, if anything.
    pub fn error(&self) -> Option<&RecordError> {
        self.outcome.as_ref().err().or(self.undrawn.as_ref())
    }
}

/// An error in a [`Record`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RecordError {
    /// The kind of error in one word, for programs.
    pub code: &'static str,
    /// The same for people.
    pub message: String,
}

impl RecordError {
    /// The error of a picture in which there is no face.
    pub fn no_face() -> Self {
        Self { code: "no_face", message: "no face was found that is large and certain enough".to_owned() }
    }

    /// The error of a picture on which the program itself failed.
    pub fn internal() -> Self {
        Self {
            code: "internal",
            message: "the program failed on this picture: that is a defect of the program".to_owned(),
        }
    }
}

impl From<PictureFileError> for RecordError {
    fn from(error: PictureFileError) -> Self {
        Self { code: error.code(), message: error.to_string() }
    }
}

impl From<AnalyzeError> for RecordError {
    fn from(error: AnalyzeError) -> Self {
        Self { code: error.code(), message: error.to_string() }
    }
}

impl Serialize for Record {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("path", &self.path)?;
        if let Ok(analysis) = &self.outcome {
            map.serialize_entry("width", &analysis.width)?;
            map.serialize_entry("height", &analysis.height)?;
            map.serialize_entry("faces", &analysis.faces)?;
        }
        if let Some(error) = self.error() {
            map.serialize_entry("error", error)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests;
