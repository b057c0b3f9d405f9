//! A finished model, or several as one, on a split of some data set.
//!
//! In: bundles and a data set. Out: metrics, predictions and the pictures worth looking at, in memory and as the files
//! of `evaluation/<split>/`. It selects nothing and changes no model.

use std::collections::BTreeMap;
use std::path::Path;

use vultus::bundle::{Bundle, BundleFault};
use vultus::classifier::Classifier;
use vultus::labels::{Labels, canonical};
use vultus::persist::{remove_unfinished, write_together};
use vultus::wording::counted;

use crate::batches::dataset_probabilities;
use crate::config::in_toml;
use crate::dataset::{Dataset, RemovalReason, split_name};
use crate::evaluate::pictures::Pictures;
use crate::evaluate::{EvaluatedModel, Evaluation, EvaluationError, LeftOut, PREDICTIONS, Predictions, VoteScores};
use crate::fingerprint::{images_fingerprint, weights_fingerprint};
use crate::prepare::{NoSplit, split_indices};
use crate::run::{BUNDLE, EVALUATION, write_json};
use crate::source::last_names;
use crate::targets::VotedClasses;

/// Metrics, predictions and pictures of one split.
#[derive(Clone, Debug)]
pub struct Assessment {
    /// The metrics.
    pub evaluation: Evaluation,
    /// Every image's probabilities.
    pub predictions: Predictions,
    /// Pictures worth looking at.
    pub pictures: Pictures,
    /// Images left out, of classes that the model does not know or is not asked for, by class.
    pub ignored: Vec<(String, usize)>,
}

/// A model or data that do not go together.
#[derive(Debug, thiserror::Error)]
pub enum AssessError {
    /// The split is not there.
    #[error(transparent)]
    NoSplit(#[from] NoSplit),
    /// The metrics cannot be computed.
    #[error(transparent)]
    Evaluation(#[from] EvaluationError),
    /// The answer for one image is none.
    #[error("{origin}: {error}")]
    Image {
        /// Where the image is from.
        origin: String,
        /// What is wrong with its row of probabilities.
        error: EvaluationError,
    },
    /// The bundle's parts do not belong together.
    #[error(transparent)]
    Bundle(#[from] BundleFault),
    /// Models that cannot answer together.
    #[error("the models of an ensemble need the same classes and preprocessing: {0}")]
    Ensemble(String),
    /// The data have classes that the model was never taught.
    #[error(
        "split {split} has {}, which the model does not know (it knows: {known}): use a model that was trained on \
         them, or leave them out",
        unknown.iter().map(|(class, count)| format!("{} of class \"{class}\"", counted(*count, "image"))).collect::<Vec<_>>().join(", ")
    )]
    UnknownClasses {
        /// The split.
        split: String,
        /// The classes, and how many images each has.
        unknown: Vec<(String, usize)>,
        /// Classes of the model.
        known: String,
    },
    /// A class that is to be left out of the answer, but is not in it.
    #[error("the model does not know the class {class}; it knows: {known}")]
    NotAnswered {
        /// The class.
        class: String,
        /// Classes of the model.
        known: String,
    },
    /// Too few classes are left.
    #[error("without {0} there is nothing to tell apart")]
    TooFewClasses(String),
    /// A picture cannot be encoded.
    #[error("a picture cannot be encoded: {0}")]
    Picture(#[from] image::ImageError),
    /// The system's refusal, naming the path.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Runs `bundles` on `split`, in any spelling; the probabilities of several are averaged. Images of classes in `dropped`
/// that the model does not know are left out and counted; any other class it does not know is an error. Classes in
/// `without` are known to the model, and left out of its answer: their images are left out and counted, and of the other
/// classes' probabilities each row sums to 1 again.
///
/// # Errors
/// See [`AssessError`].
pub fn assess(
    bundles: &[Bundle],
    dataset: &Dataset,
    split: &str,
    dropped: &[String],
    without: &[String],
) -> Result<Assessment, AssessError> {
    let split = split_name::meant_by(split);
    let Some((bundle, others)) = bundles.split_first() else {
        return Err(AssessError::Ensemble("there are none".to_owned()));
    };
    for (number, other) in (2..).zip(others) {
        let differ = |first: String, other: String| {
            AssessError::Ensemble(format!("the first has {first}, number {number} has {other}"))
        };
        if other.labels != bundle.labels {
            return Err(differ(bundle.labels.to_string(), other.labels.to_string()));
        }
        if other.preprocessing != bundle.preprocessing {
            return Err(differ(in_toml(&bundle.preprocessing), in_toml(&other.preprocessing)));
        }
    }
    let asked = Asked::new(&bundle.labels, without)?;
    let label_of: Vec<Option<usize>> = dataset.labels.names().iter().map(|name| asked.labels.index_of(name)).collect();
    let all = split_indices(dataset, split)?;
    let (mut ignored, mut unknown) = (Vec::new(), Vec::new());
    for (index, count) in dataset.class_counts(&all).into_iter().enumerate() {
        let class = dataset.labels.name(index);
        if label_of[index].is_some() || count == 0 {
            continue;
        }
        let expected = dropped.iter().chain(without).any(|name| canonical(name) == class);
        if expected { &mut ignored } else { &mut unknown }.push((class.to_owned(), count));
    }
    if !unknown.is_empty() {
        let (split, known) = (split.to_owned(), bundle.labels.names().join(", "));
        return Err(AssessError::UnknownClasses { split, unknown, known });
    }
    let mut indices = Vec::with_capacity(all.len());
    let mut truth = Vec::with_capacity(all.len());
    for index in all {
        if let Some(label) = label_of[dataset.samples[index].label] {
            indices.push(index);
            truth.push(label);
        }
    }
    let origins: Vec<String> = indices.iter().map(|&index| dataset.samples[index].origin.clone()).collect();
    let members = bundles.iter().cloned().map(Classifier::from_bundle).collect::<Result<Vec<_>, _>>()?;
    let classify = |pixels: &[f32]| asked.answer(mean_of(members.iter().map(|member| member.probabilities(pixels))));
    let probabilities = dataset_probabilities(classify, &bundle.preprocessing, dataset, &indices);
    let evaluation = Evaluation::compute(split, &asked.labels, &truth, &probabilities);
    let mut evaluation = evaluation.map_err(|error| match error.row() {
        Some(row) => AssessError::Image { origin: origins[row].clone(), error },
        None => error.into(),
    })?;
    evaluation.images_sha256 = Some(images_fingerprint(dataset, &indices));
    evaluation.version = Some(env!("CARGO_PKG_VERSION").to_owned());
    evaluation.models = bundles.iter().map(identity).collect();
    evaluation.left_out = left_out(dataset, split, &ignored);
    let voted = VotedClasses::new(&asked.labels);
    let answers = indices.iter().zip(probabilities.chunks_exact(asked.labels.len()));
    evaluation.votes = VoteScores::compute(answers.filter_map(|(&index, row)| {
        let votes = dataset.samples[index].votes.as_ref()?;
        Some((voted.shares(votes)?, row))
    }));
    let predictions = Predictions::new(&asked.labels, &origins, &truth, &probabilities)?;
    let face = |row: usize| &dataset.samples[indices[row]].image;
    let pictures = Pictures::pick(&predictions, face)?;
    Ok(Assessment { evaluation, predictions, pictures, ignored })
}

fn identity(bundle: &Bundle) -> EvaluatedModel {
    EvaluatedModel { name: None, weights_sha256: weights_fingerprint(&bundle.weights), inference: bundle.inference }
}

/// What of `split` is not counted, or may be of it: images without a split, too.
fn left_out(dataset: &Dataset, split: &str, ignored: &[(String, usize)]) -> Vec<LeftOut> {
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let of_class = |class: &str| format!("class {class}");
    for (class, images) in ignored {
        *reasons.entry(of_class(class)).or_default() += images;
    }
    for removal in dataset.removed.iter().filter(|removal| removal.split == split || removal.split.is_empty()) {
        let reason = match (removal.reason, &removal.label) {
            (RemovalReason::ClassDropped, Some(class)) => of_class(class),
            (reason, _) => reason.name().to_owned(),
        };
        *reasons.entry(reason).or_default() += 1;
    }
    reasons.into_iter().map(|(reason, images)| LeftOut { images, reason }).collect()
}

/// The classes that a model is asked for.
struct Asked {
    labels: Labels,
    /// Their places among the model's.
    places: Vec<usize>,
    /// Classes of the model.
    known: usize,
}

impl Asked {
    fn new(known: &Labels, without: &[String]) -> Result<Self, AssessError> {
        let left_out: Vec<String> = without.iter().map(|name| canonical(name)).collect();
        if let Some(class) = left_out.iter().find(|class| known.index_of(class).is_none()) {
            return Err(AssessError::NotAnswered { class: class.clone(), known: known.names().join(", ") });
        }
        let places: Vec<usize> =
            (0..known.len()).filter(|&index| !left_out.iter().any(|name| name == known.name(index))).collect();
        let too_few = || AssessError::TooFewClasses(left_out.join(", "));
        let labels = Labels::new(places.iter().map(|&index| known.name(index))).map_err(|_| too_few())?;
        if labels.len() < 2 {
            return Err(too_few());
        }
        Ok(Self { labels, places, known: known.len() })
    }

    /// The probabilities of these classes among themselves, from those of all.
    fn answer(&self, probabilities: Vec<f32>) -> Vec<f32> {
        if self.places.len() == self.known {
            return probabilities;
        }
        let mut answer = Vec::with_capacity(probabilities.len() / self.known * self.places.len());
        for row in probabilities.chunks_exact(self.known) {
            let sum: f32 = self.places.iter().map(|&place| row[place]).sum();
            // Sure of a class that nobody asked for: nothing is known of the others.
            let even = 1.0 / self.places.len() as f32;
            answer.extend(self.places.iter().map(|&place| if sum == 0.0 { even } else { row[place] / sum }));
        }
        answer
    }
}

/// The mean of equally long lists.
fn mean_of(lists: impl ExactSizeIterator<Item = Vec<f32>>) -> Vec<f32> {
    let part = 1.0 / lists.len() as f32;
    let sum = lists.reduce(|mut sum, list| {
        sum.iter_mut().zip(list).for_each(|(sum, value)| *sum += value);
        sum
    });
    sum.unwrap_or_default().into_iter().map(|value| value * part).collect()
}

impl Assessment {
    /// Says what its models are called: the last names of `paths` of runs and model files, one for each. A run's file is called
    /// as the run.
    pub fn name_models<'a>(&mut self, paths: impl IntoIterator<Item = &'a Path>) {
        for (model, path) in self.evaluation.models.iter_mut().zip(paths) {
            let run = path.parent().filter(|_| path.ends_with(BUNDLE)).unwrap_or(path);
            let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
            let names = [run, path, &whole].map(|path| last_names(path, 2));
            model.name = names.into_iter().find(|name| !name.is_empty());
        }
    }

    /// Writes `evaluation.json`, `predictions.csv` and the pictures into `directory`, in place of those of an earlier one. No other process
    /// may be doing that.
    ///
    /// # Errors
    /// The system's refusal, naming the path.
    pub fn save(&self, directory: &Path) -> Result<(), AssessError> {
        remove_unfinished(directory)?;
        write_together(directory, |folder| {
            self.predictions.write_csv(&folder.join(PREDICTIONS))?;
            self.pictures.save(folder)?;
            Ok(write_json(&folder.join(EVALUATION), &self.evaluation)?)
        })
    }
}

#[cfg(test)]
mod tests {
    use image::{GrayImage, Luma};
    use vultus::inference::Inference;
    use vultus::network::NetworkConfig;
    use vultus::preprocess::Preprocessing;
    use vultus::weights::WeightTensor;

    use super::*;
    use crate::dataset::Sample;
    use crate::model::initial_weights;

    #[test]
    fn an_answer_that_is_none_names_its_image() {
        let network: NetworkConfig = serde_json::from_str(r#"{"layers":[{"type":"flatten"}]}"#).unwrap();
        let weights = initial_weights(&network.resolve(2, 2, 2).unwrap(), 1);
        // Finite, but their sums over a white picture are not; over a black one they are.
        let largest =
            |tensor: &WeightTensor| WeightTensor { data: vec![f32::MAX; tensor.data.len()], ..tensor.clone() };
        let kernels = |(name, tensor): (&str, &WeightTensor)| {
            (name.to_owned(), if tensor.shape.len() == 2 { largest(tensor) } else { tensor.clone() })
        };
        let bundle = Bundle {
            labels: Labels::new(["happy", "sad"]).unwrap(),
            preprocessing: Preprocessing { width: 2, height: 2, ..Preprocessing::default() },
            network,
            weights: weights.iter().map(kernels).collect(),
            inference: Inference::default(),
            training: serde_json::Value::Null,
            metrics: serde_json::Value::Null,
        };
        let sample = |(label, grey): (usize, u8)| Sample {
            image: GrayImage::from_pixel(2, 2, Luma([grey])),
            label,
            split: "test".to_owned(),
            origin: format!("faces/{grey}.png"),
            votes: None,
        };
        let samples = [(0, 0), (1, 255)].map(sample).into();
        let dataset = Dataset { labels: bundle.labels.clone(), samples, removed: Vec::new() };
        let error = assess(&[bundle], &dataset, "test", &[], &[]).unwrap_err().to_string();
        assert!(error.starts_with("faces/255.png: row 1: NaN is no probability"), "{error}");
    }

    #[test]
    fn the_classes_asked_for_share_what_is_left() {
        let known = Labels::new(["angry", "disgust", "happy"]).unwrap();
        let asked = Asked::new(&known, &["Disgusted".to_owned()]).unwrap();
        assert_eq!(asked.labels.names(), ["angry", "happy"]);
        assert_eq!(asked.answer(vec![0.25, 0.5, 0.25, 0.0, 1.0, 0.0, 0.6, 0.2, 0.2]), [0.5, 0.5, 0.5, 0.5, 0.75, 0.25]);
        assert!(asked.answer(vec![f32::NAN; 3]).iter().all(|value| value.is_nan()));
        let all = Asked::new(&known, &[]).unwrap();
        assert_eq!(all.answer(vec![0.25, 0.5, 0.25]), [0.25, 0.5, 0.25]);
        let message = |without: &[&str]| {
            let without: Vec<String> = without.iter().map(|&name| name.to_owned()).collect();
            Asked::new(&known, &without).err().unwrap().to_string()
        };
        assert!(message(&["bored"]).contains("bored"));
        assert!(message(&["angry", "happy"]).contains("nothing to tell apart"));
    }
}
