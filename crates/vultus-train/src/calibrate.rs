//! A finished model calibrated again: other views, and a temperature that fits them.
//!
//! In: a bundle, and images that it did not learn from, which may be those that its training held out. Out: the bundle with
//! new inference settings and new figures; its weights stay.

use serde_json::{Value, json};
use vultus::bundle::Bundle;
use vultus::inference::{Inference, Views};

use crate::assess::{AssessError, assess};
use crate::dataset::{Dataset, split_name};
use crate::evaluate::Evaluation;
use crate::facts::{CalibrationFacts, TrainingFacts};
use crate::temperature::fit_temperature;
use crate::train::headline;

/// A model that was calibrated again.
#[derive(Clone, Debug)]
pub struct Calibrated {
    /// The model; its figures are those of [`Calibrated::evaluations`].
    pub bundle: Bundle,
    /// On the images that chose the temperature, as the model was.
    pub before: Evaluation,
    /// On the same images, as it is now.
    pub after: Evaluation,
    /// On the splits that its file had figures of, as far as the data have the same images of them, as it is now.
    pub evaluations: Vec<Evaluation>,
    /// Splits that its file had figures of and of which the data have other images or none, so that it has none now.
    pub left_out: Vec<String>,
}

/// Gives `bundle` the views `views`, and the temperature with which they fit `split` of `dataset` best. Classes that the
/// training dropped are left out, and those of `dropped`.
///
/// # Errors
/// As [`assess`].
pub fn calibrate(
    mut bundle: Bundle,
    views: Views,
    dataset: &Dataset,
    split: &str,
    dropped: &[String],
) -> Result<Calibrated, AssessError> {
    let dropped = [dropped, &TrainingFacts::of(&bundle)?.dropped_classes].concat();
    let on = |bundle: &Bundle, split: &str| assess(std::slice::from_ref(bundle), dataset, split, &dropped, &[]);
    let before = on(&bundle, split)?.evaluation;
    bundle.inference = Inference { views, temperature: 1.0 };
    let rows = on(&bundle, split)?.predictions.rows;
    let labels: Vec<usize> = rows.iter().map(|row| row.truth).collect();
    let probabilities: Vec<f32> = rows.into_iter().flat_map(|row| row.probabilities).collect();
    bundle.inference.temperature = fit_temperature(&probabilities, &labels);
    let after = on(&bundle, split)?.evaluation;
    let split = split_name::meant_by(split);
    let (mut evaluations, mut left_out) = (Vec::new(), Vec::new());
    for figures in bundle.metrics.as_array().into_iter().flatten() {
        let Some(measured) = figures["split"].as_str() else { continue };
        // Older files tell of how many images a figure is, and not of which.
        let same = |again: &Evaluation| match figures["images_sha256"].as_str() {
            Some(images) => again.images_sha256.as_deref() == Some(images),
            None => figures["n"].as_u64().is_none_or(|n| n == again.n as u64),
        };
        match on(&bundle, measured) {
            // What chose the temperature measures it no more.
            Ok(again) if measured == split && same(&again.evaluation) => {}
            Ok(again) if measured != split && same(&again.evaluation) => evaluations.push(again.evaluation),
            Ok(_) | Err(_) => left_out.push(measured.to_owned()),
        }
    }
    bundle.metrics = json!(evaluations.iter().map(headline).collect::<Vec<_>>());
    let data_sha256 = after.images_sha256.clone();
    let calibration = json!(CalibrationFacts { split: split.to_owned(), images: after.n, data_sha256 });
    // Beside what else the file tells, also what is unknown here.
    match &mut bundle.training {
        Value::Object(facts) => drop(facts.insert("calibration".to_owned(), calibration)),
        facts => *facts = json!({ "calibration": calibration }),
    }
    Ok(Calibrated { bundle, before, after, evaluations, left_out })
}

#[cfg(test)]
mod tests {
    use image::{GrayImage, Luma};
    use vultus::labels::Labels;
    use vultus::network::NetworkConfig;
    use vultus::preprocess::Preprocessing;
    use vultus::weights::WeightTensor;

    use super::*;
    use crate::dataset::Sample;

    /// A model of one pixel whose logits are the pixel and its negative: white is `happy`, always too sure of it.
    fn bundle() -> Bundle {
        let network: NetworkConfig = serde_json::from_str(r#"{"layers":[{"type":"flatten"}]}"#).unwrap();
        let tensor = |shape: &[usize], data: &[f32]| WeightTensor { shape: shape.to_vec(), data: data.to_vec() };
        let tensors = [("layers.1.weight", tensor(&[1, 2], &[2.0, -2.0])), ("layers.1.bias", tensor(&[2], &[0.0; 2]))];
        Bundle {
            labels: Labels::new(["happy", "sad"]).unwrap(),
            preprocessing: Preprocessing { width: 1, height: 1, ..Preprocessing::default() },
            network,
            weights: tensors.into_iter().map(|(name, tensor)| (name.to_owned(), tensor)).collect(),
            inference: Inference::default(),
            training: json!({ "train_split": "train", "dropped_classes": ["bored"] }),
            metrics: json!([{ "split": "test", "accuracy": 1.0 }]),
        }
    }

    /// Of each split, in grey levels of 1, `wrong` of `n` images are sad; the labels are in another order than the model's.
    fn dataset(splits: &[(&str, usize, usize)]) -> Dataset {
        let sample = |split: &str, label| Sample {
            image: GrayImage::from_pixel(1, 1, Luma([1])),
            label,
            split: split.to_owned(),
            origin: String::new(),
            votes: None,
        };
        let samples = splits
            .iter()
            .flat_map(|&(split, n, wrong)| (0..n).map(move |index| sample(split, usize::from(index >= wrong))));
        let labels = Labels::new(["sad", "happy"]).unwrap();
        Dataset { labels, samples: samples.collect(), removed: Vec::new() }
    }

    #[test]
    fn the_temperature_fits_the_split_and_the_figures_are_of_the_others() {
        let data = dataset(&[("train", 1, 0), ("mine", 100, 20), ("test", 10, 3), ("private_test", 1, 0)]);
        let views = Views { flip: true, ..Views::default() };
        let Calibrated { bundle, before, after, evaluations, .. } =
            calibrate(bundle(), views, &data, "mine", &[]).unwrap();
        // 80 of 100 are happy: logits of 2 and -2 at this temperature say so.
        let temperature = 4.0 / 4.0_f32.ln();
        assert!((bundle.inference.temperature - temperature).abs() < 1e-3, "{:?}", bundle.inference);
        assert_eq!(bundle.inference.views, views);
        assert!(after.ece < 1e-3 && before.ece > 0.15 && after.log_loss < before.log_loss);
        assert_eq!(evaluations.iter().map(|one| (one.split.as_str(), one.n)).collect::<Vec<_>>(), [("test", 10)]);
        assert_eq!(bundle.metrics[0]["accuracy"], json!(0.7));
        assert_eq!(bundle.training["calibration"]["split"], json!("mine"));
        assert_eq!(bundle.training["calibration"]["images"], json!(100));
        assert_eq!(bundle.training["train_split"], json!("train"));
    }

    #[test]
    fn figures_of_other_images_are_left_out() {
        let again = |bundle: Bundle, data: &Dataset| calibrate(bundle, Views::default(), data, "mine", &[]).unwrap();
        let data = dataset(&[("mine", 100, 20), ("test", 10, 3)]);
        let first = again(bundle(), &data).bundle;
        assert_eq!(again(first.clone(), &data).evaluations.len(), 1);
        let mut other = dataset(&[("mine", 100, 20), ("test", 11, 3)]);
        let without = again(first.clone(), &other);
        assert_eq!((without.bundle.metrics, without.left_out), (json!([]), vec!["test".to_owned()]));
        let mine = dataset(&[("mine", 100, 20)]);
        let absent = again(first.clone(), &mine);
        assert_eq!((absent.bundle.metrics, absent.left_out), (json!([]), vec!["test".to_owned()]));
        // Of the split that chooses the temperature nothing is kept, and nothing is said if it is the same.
        let on_test = |data: &Dataset| calibrate(first.clone(), Views::default(), data, "test", &[]).unwrap().left_out;
        assert_eq!((on_test(&data), on_test(&other)), (vec![], vec!["test".to_owned()]));
        // A file that tells only how many there were.
        let mut older = first.clone();
        older.metrics[0]["images_sha256"] = json!(null);
        assert_eq!(again(older.clone(), &data).evaluations.len(), 1);
        assert_eq!(again(older, &other).evaluations.len(), 0);
        // Nor does a class there that the model does not know end it.
        other.labels = Labels::new(["sad", "happy", "moody"]).unwrap();
        other.samples.iter_mut().filter(|sample| sample.split == "test").for_each(|sample| sample.label = 2);
        assert_eq!(again(first, &other).bundle.metrics, json!([]));
    }
}
