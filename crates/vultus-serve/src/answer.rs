//! What is said about pictures, as JSON.

use serde::{Serialize, Serializer};
use utoipa::ToSchema;
use vultus::analyze::{Analysis, AnalyzedFace};

use crate::error::{ApiError, ErrorDetail};
use crate::exchange::Trace;
use crate::state::Shared;

/// What was found in the pictures of a request.
#[derive(Debug, Serialize, ToSchema)]
pub struct AnalyzeAnswer {
    /// The model's name.
    pub model: String,
    /// One entry a picture, in the request's order.
    pub images: Vec<ImageAnswer>,
}

/// What was found in one picture, or why it could not be used.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum ImageAnswer {
    /// The picture was used.
    Analyzed(AnalyzedImage),
    /// It was not.
    Failed {
        /// Why not.
        error: ErrorDetail,
    },
}

/// What was found in one picture.
#[derive(Debug, Serialize, ToSchema)]
pub struct AnalyzedImage {
    /// The picture's width in pixels, upright.
    pub width: u32,
    /// The picture's height in pixels, upright.
    pub height: u32,
    /// The faces, the surest first; perhaps none.
    pub faces: Vec<FaceAnswer>,
}

/// A face and what the model says about it.
#[derive(Debug, Serialize, ToSchema)]
pub struct FaceAnswer {
    /// The face's box in pixels, inside the picture: x, y, width, height.
    #[serde(rename = "box")]
    #[schema(min_items = 4, max_items = 4)]
    pub area: [u32; 4],
    /// How sure the finder is that this is a face, 0 to 1.
    pub confidence: f32,
    /// The most probable class; null if the model is too unsure.
    pub label: Option<String>,
    /// The highest probability.
    pub score: f32,
    /// How evenly the probabilities are spread: 0 if one class has all, 1 if all have the same.
    pub entropy: f32,
    /// Every class with its probability, in the model's order; they sum to 1.
    #[serde(serialize_with = "as_map")]
    #[schema(value_type = std::collections::BTreeMap<String, f32>)]
    pub probabilities: Vec<(String, f32)>,
    /// Right eye, left eye, nose, right and left corner of the mouth, in pixels, where the finder gives them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<[f32; 2]>>)]
    pub landmarks: Option<[(f32, f32); 5]>,
}

impl From<Analysis> for AnalyzedImage {
    fn from(Analysis { width, height, faces }: Analysis) -> Self {
        Self { width, height, faces: faces.into_iter().map(FaceAnswer::from).collect() }
    }
}

impl ImageAnswer {
    /// What is said about a picture of the request `trace`; the operator hears of it if the server failed.
    pub(crate) fn new(result: Result<Analysis, ApiError>, trace: &Trace, app: &Shared) -> Self {
        match result {
            Ok(analysis) => Self::Analyzed(analysis.into()),
            Err(error) => {
                trace.report(&error, app);
                let request_id = error.defect().map(|_| trace.request_id.clone());
                Self::Failed { error: ErrorDetail { request_id, ..(&error).into() } }
            }
        }
    }
}

impl From<AnalyzedFace> for FaceAnswer {
    fn from(face: AnalyzedFace) -> Self {
        let AnalyzedFace { area, confidence, label, score, probabilities, landmarks, .. } = face;
        let area = [area.x, area.y, area.width, area.height];
        let entropy = entropy(probabilities.iter().map(|(_, probability)| *probability));
        Self { area, confidence, label, score, entropy, probabilities, landmarks }
    }
}

/// The entropy of `probabilities` as a part of the highest that as many can have, 0..1.
fn entropy(probabilities: impl ExactSizeIterator<Item = f32>) -> f32 {
    let most = (probabilities.len() as f32).ln();
    let sum: f32 = probabilities.filter(|probability| *probability > 0.0).map(|p| -p * p.ln()).sum();
    if most > 0.0 { (sum / most).clamp(0.0, 1.0) } else { 0.0 }
}

/// Pairs as a map, in their order.
fn as_map<S: Serializer>(pairs: &[(String, f32)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().map(|(name, probability)| (name, probability)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entropy_is_a_part_of_the_highest_possible() {
        assert_eq!(entropy([1.0, 0.0, 0.0].into_iter()), 0.0);
        assert_eq!(entropy([1.0].into_iter()), 0.0);
        assert!((entropy([0.25; 4].into_iter()) - 1.0).abs() < 1e-6);
        // -(0.5 ln 0.5 + 2 * 0.25 ln 0.25) / ln 3
        assert!((entropy([0.5, 0.25, 0.25].into_iter()) - 0.946_394_6).abs() < 1e-6);
    }
}
