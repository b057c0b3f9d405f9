//! A bundle at work: pictures of faces become labelled probabilities.
//!
//! In: a bundle and pictures that each show one face. Out: a [`Prediction`] a picture. It does not find faces in
//! photographs.

use std::path::Path;
use std::sync::Arc;

use image::{DynamicImage, GrayImage};
use serde::{Serialize, Serializer};

use crate::bundle::{Bundle, BundleError, BundleFault};
use crate::inference::{Inference, sharpen};
use crate::labels::Labels;
use crate::plan::Plan;
use crate::preprocess::Preprocessing;

/// Pixels of faces, in all their views, that are classified at one time: 128 MB.
const MOST_VALUES: usize = 32 << 20;

/// What a classifier says about one face.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Prediction {
    /// Name of the most probable class; the first of equals.
    pub label: String,
    /// Its probability.
    pub score: f32,
    /// Every class with its probability, in the bundle's order; the probabilities sum to 1.
    #[serde(serialize_with = "as_map")]
    pub probabilities: Vec<(String, f32)>,
}

/// Pairs as a map, in their order.
pub(crate) fn as_map<S: Serializer>(pairs: &[(String, f32)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().map(|(name, probability)| (name, probability)))
}

/// A classifier ready to run, from any number of threads at once. Clones share the network.
///
/// ```
/// use image::DynamicImage;
/// use vultus::{bundle::Bundle, classifier::Classifier, labels::Labels, network::NetworkConfig};
/// use vultus::weights::{WeightTensor, Weights};
///
/// // A network that only looks at the sum of the pixels; a real one comes out of a training.
/// let network: NetworkConfig = serde_json::from_str(r#"{"layers": [{"type": "flatten"}]}"#)?;
/// let labels = Labels::new(["dark", "bright"])?;
/// let mut weights = Weights::default();
/// let head = (0..48 * 48).flat_map(|_| [0.0, 1e-4]).collect();
/// weights.insert("layers.1.weight".to_owned(), WeightTensor { shape: vec![48 * 48, 2], data: head });
/// weights.insert("layers.1.bias".to_owned(), WeightTensor { shape: vec![2], data: vec![0.0, -20.0] });
/// let (preprocessing, inference, training, metrics) = Default::default();
/// let bundle = Bundle { labels, preprocessing, network, weights, inference, training, metrics };
///
/// let directory = tempfile::tempdir()?;
/// let path = directory.path().join("brightness.safetensors");
/// bundle.save(&path)?;
///
/// let classifier = Classifier::load(&path)?;
/// let prediction = classifier.predict(&DynamicImage::new_luma8(100, 100));
/// assert_eq!(prediction.label, "dark");
/// assert!(prediction.score > 0.99);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Classifier {
    labels: Labels,
    preprocessing: Preprocessing,
    inference: Inference,
    plan: Arc<Plan>,
}

impl Classifier {
    /// Loads a bundle's file.
    ///
    /// # Errors
    /// Why the file is refused; see [`Bundle::load`].
    pub fn load(path: &Path) -> Result<Self, BundleError> {
        let unusable = |fault| BundleError::Unusable { path: path.to_owned(), fault };
        Self::from_bundle(Bundle::load(path)?).map_err(unusable)
    }

    /// Loads a bundle's file that is in memory; `path` is what errors call it.
    ///
    /// # Errors
    /// As [`Classifier::load`].
    pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<Self, BundleError> {
        let unusable = |fault| BundleError::Unusable { path: path.to_owned(), fault };
        Self::from_bundle(Bundle::from_bytes(bytes, path)?).map_err(unusable)
    }

    /// Prepares a bundle that is in memory.
    ///
    /// # Errors
    /// Parts that do not belong together.
    pub fn from_bundle(bundle: Bundle) -> Result<Self, BundleFault> {
        let plan = Plan::new(&bundle.resolve()?, &bundle.weights)?;
        let Bundle { labels, preprocessing, inference, .. } = bundle;
        Ok(Self { labels, preprocessing, inference, plan: Arc::new(plan) })
    }

    /// The same model for faces that were cut out of larger pictures: cutting interpolates, so that they need no blur.
    #[must_use]
    pub fn for_cuts(&self) -> Self {
        let mut cuts = self.clone();
        cuts.inference.views.blur = 0.0;
        cuts
    }

    /// Class names, in the order of the probabilities.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// What is done to each picture first.
    pub fn preprocessing(&self) -> &Preprocessing {
        &self.preprocessing
    }

    /// Classifies a picture of one face, of any size and colour. Pictures of files come from [`decode::open`](crate::decode::open),
    /// which turns those of telephones upright.
    ///
    /// # Panics
    /// If the picture has no pixels.
    pub fn predict(&self, picture: &DynamicImage) -> Prediction {
        self.predict_batch(std::slice::from_ref(picture)).remove(0)
    }

    /// Classifies pictures of one face each, of any size and colour; one prediction a picture, in order.
    ///
    /// # Panics
    /// If a picture has no pixels.
    pub fn predict_batch(&self, pictures: &[DynamicImage]) -> Vec<Prediction> {
        let faces: Vec<GrayImage> = pictures.iter().map(|picture| self.preprocessing.to_face(picture)).collect();
        self.predict_faces(&faces)
    }

    /// As [`Classifier::predict_batch`], for pictures that are grey already, as [`Preprocessing::to_face`] makes them.
    ///
    /// # Panics
    /// If a picture has no pixels.
    pub fn predict_faces(&self, faces: &[GrayImage]) -> Vec<Prediction> {
        // A crowd in large pictures takes no more memory than this many values and its answers.
        let at_once = (MOST_VALUES / (self.plan.inputs() * self.inference.views.count())).max(1);
        faces.chunks(at_once).flat_map(|faces| self.predict_chunk(faces)).collect()
    }

    fn predict_chunk(&self, faces: &[GrayImage]) -> Vec<Prediction> {
        let size = (self.preprocessing.width, self.preprocessing.height);
        let mut pixels = vec![0.0; faces.len() * self.plan.inputs()];
        for (face, pixels) in faces.iter().zip(pixels.chunks_exact_mut(self.plan.inputs())) {
            if face.dimensions() == size {
                self.preprocessing.fill(face, pixels);
            } else {
                let face = self.preprocessing.to_face(&DynamicImage::ImageLuma8(face.clone()));
                self.preprocessing.fill(&face, pixels);
            }
        }
        let probabilities = self.probabilities(&pixels);
        probabilities.chunks_exact(self.labels.len()).map(|row| self.prediction(row)).collect()
    }

    /// Probabilities `[n, classes]` of preprocessed pictures `pixels` `[n, height, width]`: the mean over the model's views,
    /// at its temperature. NaN pixels give NaN.
    ///
    /// # Panics
    /// If the length of `pixels` is no multiple of a picture's.
    pub fn probabilities(&self, pixels: &[f32]) -> Vec<f32> {
        let Inference { views, temperature } = self.inference;
        let (width, height) = (self.preprocessing.width as usize, self.preprocessing.height as usize);
        assert!(
            pixels.len().is_multiple_of(width * height),
            "{} pixels are no whole number of pictures of {width} x {height}",
            pixels.len()
        );
        // All views at once: with one face at a time, each core has something to do.
        let answers = self.plan.probabilities(&views.of(pixels, width, height));
        let count = views.count();
        let values = answers.len() / count;
        let mut mean = answers[..values].to_vec();
        for view in 1..count {
            mean.iter_mut().zip(&answers[view * values..]).for_each(|(mean, p)| *mean += p);
        }
        mean.iter_mut().for_each(|p| *p /= count as f32);
        sharpen(&mut mean, self.labels.len(), temperature);
        mean
    }

    fn prediction(&self, row: &[f32]) -> Prediction {
        let best = highest(row);
        let probabilities = self.labels.names().iter().cloned().zip(row.iter().copied()).collect();
        Prediction { label: self.labels.name(best).to_owned(), score: row[best], probabilities }
    }
}

/// Index of the highest value of `row`, which is not empty; the first one among equals.
pub fn highest(row: &[f32]) -> usize {
    let mut best = 0;
    for (class, &value) in row.iter().enumerate() {
        if value > row[best] {
            best = class;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::tests::brightness;
    use crate::inference::Views;
    use crate::weights::WeightTensor;
    use image::{Luma, Rgb, RgbImage};

    #[test]
    fn pictures_of_any_size_and_colour_are_classified() {
        let classifier = Classifier::from_bundle(brightness()).unwrap();
        let bright = classifier.predict(&DynamicImage::from(RgbImage::from_pixel(9, 7, Rgb([200; 3]))));
        // Logits 0.1 * 200 - 12 and its negative.
        let expected = 1.0 / (1.0 + (-16.0_f64).exp());
        assert_eq!(bright.label, "happy");
        assert!((f64::from(bright.score) - expected).abs() < 1e-6);
        assert_eq!(bright.probabilities[0], ("happy".to_owned(), bright.score));
        assert_eq!(bright.probabilities[1].0, "sad");
        let dark = classifier.predict(&DynamicImage::new_luma8(4, 4));
        assert_eq!(dark.label, "sad");
    }

    #[test]
    fn a_batch_equals_its_pictures_one_by_one() {
        let classifier = Classifier::from_bundle(brightness()).unwrap();
        let faces: Vec<GrayImage> =
            (0..70).map(|index| GrayImage::from_pixel(4 + index % 2, 4, Luma([100 + index as u8]))).collect();
        let batch = classifier.predict_faces(&faces);
        assert_eq!(batch.len(), 70);
        for (face, prediction) in faces.iter().zip(&batch) {
            assert_eq!(classifier.predict(&DynamicImage::from(face.clone())), *prediction);
        }
        assert!(classifier.predict_faces(&[]).is_empty());
        // Of red, our grey is not that of the crate `image`.
        let red = DynamicImage::from(RgbImage::from_pixel(5, 3, Rgb([251, 0, 0])));
        let face = classifier.preprocessing().to_face(&red);
        assert_ne!(face.get_pixel(0, 0), red.to_luma8().get_pixel(0, 0));
        assert_eq!(classifier.predict_batch(std::slice::from_ref(&red)), classifier.predict_faces(&[face]));
        assert_eq!(classifier.predict_batch(&[red.clone(), red.clone()])[1], classifier.predict(&red));
    }

    #[test]
    #[should_panic(expected = "a picture without pixels shows no face")]
    fn a_picture_without_pixels_is_refused() {
        Classifier::from_bundle(brightness()).unwrap().predict(&DynamicImage::new_luma8(0, 5));
    }

    #[test]
    fn a_classifier_is_told_in_few_words() {
        let told = format!("{:?} {:?}", Classifier::from_bundle(brightness()).unwrap(), brightness());
        assert!(told.len() < 3000 && told.contains("happy"), "{told}");
    }

    #[test]
    fn views_are_averaged_before_the_temperature() {
        // A network that sees the left half of a picture only.
        let mut bundle = brightness();
        let left = WeightTensor { shape: vec![4, 4, 1, 1], data: [[0.125, 0.125, 0.0, 0.0]; 4].concat() };
        bundle.weights.insert("layers.0.weight".to_owned(), left);
        bundle.inference = Inference { views: Views { flip: true, ..Views::default() }, temperature: 2.0 };
        let classifier = Classifier::from_bundle(bundle.clone()).unwrap();
        let pixels: Vec<f32> = (0..16).map(|place| if place % 4 < 2 { 130.0 } else { 116.0 }).collect();
        let found = classifier.probabilities(&pixels)[0];
        bundle.inference = Inference::default();
        let plain = Classifier::from_bundle(bundle).unwrap();
        let mirrored: Vec<f32> = (0..16).map(|place| if place % 4 < 2 { 116.0 } else { 130.0 }).collect();
        let mean = (plain.probabilities(&pixels)[0] + plain.probabilities(&mirrored)[0]) / 2.0;
        let expected = mean.sqrt() / (mean.sqrt() + (1.0 - mean).sqrt());
        assert!((found - expected).abs() < 1e-6, "{found} {expected}");
    }

    #[test]
    fn parts_that_do_not_fit_are_refused() {
        let mut bundle = brightness();
        bundle.labels = Labels::new(["a", "b", "c"]).unwrap();
        assert!(matches!(Classifier::from_bundle(bundle), Err(BundleFault::Labels { labels: 3, outputs: 2 })));
    }
}
