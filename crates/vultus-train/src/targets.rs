//! What the network is to answer: a probability for each class, which need not be the label alone.
//!
//! In: labels, FER+ votes, finished models as teachers. Out: rows of targets. The label keeps what smoothing, votes and
//! teachers leave it; validation and evaluation ask for the label only.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use vultus::bundle::{Bundle, BundleError};
use vultus::classifier::Classifier;
use vultus::inference::{Views, sharpen};
use vultus::labels::{Labels, canonical};
use vultus::preprocess::Preprocessing;

use crate::config::{LabelSource, in_toml};
use crate::dataset::Dataset;
use crate::heads::Heads;
use crate::source::ferplus;

/// Shares in the targets, each from 0 (off) to 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TargetConfig {
    /// Share of the target that is spread evenly over all classes (Szegedy et al. 2016, section 7).
    pub smoothing: f64,
    /// Share of the FER+ votes in the targets of images that have some. Where the classes are not FER+'s own, a vote
    /// counts as the labels that the training images with such votes have: the taggers of FER+ and the makers of FER-2013
    /// do not mean the same by a name.
    pub votes: f64,
    /// Weight of a second head's loss, which answers the FER+ votes as they are, from the same features, beside the labels' head; see
    /// [`Heads`]. It is no part of the model. 0 is off; at 1 it counts as much as the labels.
    pub votes_head: f64,
    /// Share of the teachers' answer, which they give on the very picture that the network sees (Hinton et al. 2015;
    /// Beyer et al. 2022). Smoothing and votes make up the rest.
    pub distillation: f64,
    /// The temperature of the teachers' softmax (Hinton et al. 2015, section 2): their probabilities are raised to the power of its
    /// inverse; above 1 they tell more of the classes that they hold less probable.
    #[serde(alias = "heat")]
    pub distillation_temperature: f64,
    /// Bundles whose probabilities are averaged; with the same classes and picture size as the network.
    pub teachers: Vec<String>,
}

impl Default for TargetConfig {
    fn default() -> Self {
        Self {
            smoothing: 0.0,
            votes: 0.0,
            votes_head: 0.0,
            distillation: 0.0,
            distillation_temperature: 1.0,
            teachers: Vec::new(),
        }
    }
}

impl TargetConfig {
    /// Every share, and the weight, with its key in the configuration.
    pub fn shares(&self) -> [(&'static str, f64); 4] {
        [
            ("train.targets.smoothing", self.smoothing),
            ("train.targets.votes", self.votes),
            ("train.targets.votes_head", self.votes_head),
            ("train.targets.distillation", self.distillation),
        ]
    }

    /// The keys that the votes have a part by.
    pub fn keys_of_votes(&self) -> impl Iterator<Item = &'static str> {
        let keys = [("train.targets.votes", self.votes), ("train.targets.votes_head", self.votes_head)];
        keys.into_iter().filter(|(_, share)| *share > 0.0).map(|(key, _)| key)
    }

    /// What the network answers while it learns `labels` classes.
    pub fn heads(&self, labels: usize) -> Heads {
        Heads { labels, votes_weight: self.votes_head }
    }

    /// Targets of every sample of `dataset`, `[samples * columns]` as [`Heads`] has them: without votes, zeros for these. What a vote means for
    /// the labels is counted on the samples at `train` alone.
    pub fn rows(&self, dataset: &Dataset, train: &[usize], labels: LabelSource) -> Vec<f32> {
        let classes = dataset.labels.len();
        let heads = self.heads(classes);
        let meanings = (self.votes > 0.0).then(|| match labels {
            LabelSource::Own => meanings_by_count(dataset, train),
            LabelSource::Ferplus => meanings_by_name(&dataset.labels),
        });
        let mut rows = vec![0.0; dataset.samples.len() * heads.columns()];
        for (row, sample) in rows.chunks_exact_mut(heads.columns()).zip(&dataset.samples) {
            let (row, voted_row) = row.split_at_mut(classes);
            if let (false, Some(votes)) = (voted_row.is_empty(), &sample.votes) {
                voted_row.copy_from_slice(&expressions(votes));
            }
            row[sample.label] = 1.0;
            if let (Some(meanings), Some(votes)) = (&meanings, &sample.votes)
                && let Some(voted) = voted(votes, meanings, classes)
            {
                blend(row, self.votes as f32, &voted);
            }
            blend(row, self.smoothing as f32, &vec![1.0 / classes as f32; classes]);
        }
        rows
    }
}

/// FER+'s votes of an image as shares of its eight classes, by name; for other classes, none.
#[derive(Debug)]
pub struct VotedClasses(Option<Meanings>);

impl VotedClasses {
    /// For the classes `labels`.
    pub fn new(labels: &Labels) -> Self {
        let voted_for = |vote: &&str| labels.index_of(&canonical(vote)).is_some();
        let same =
            labels.len() == ferplus::EXPRESSIONS && ferplus::CLASSES[..ferplus::EXPRESSIONS].iter().all(voted_for);
        Self(same.then(|| meanings_by_name(labels)))
    }

    /// The shares `[8]`, without votes of a single tagger; `None` where none are left.
    pub fn shares(&self, votes: &[u8; 10]) -> Option<Vec<f32>> {
        voted(votes, self.0.as_ref()?, ferplus::EXPRESSIONS)
    }
}

/// What each vote stands for: a distribution over the classes, or nothing.
type Meanings = [Option<Vec<f32>>; 10];

/// A vote stands for the labels of the training images that got such votes.
fn meanings_by_count(dataset: &Dataset, train: &[usize]) -> Meanings {
    let mut counts = vec![vec![0.0_f32; dataset.labels.len()]; ferplus::CLASSES.len()];
    for &index in train {
        let sample = &dataset.samples[index];
        for (count, &votes) in counts.iter_mut().zip(sample.votes.iter().flatten()) {
            count[sample.label] += f32::from(votes);
        }
    }
    std::array::from_fn(|vote| {
        let total: f32 = counts[vote].iter().sum();
        (total > 0.0).then(|| counts[vote].iter().map(|count| count / total).collect())
    })
}

/// A vote stands for the class of its name; `unknown` and `NF` for none.
fn meanings_by_name(labels: &Labels) -> Meanings {
    std::array::from_fn(|vote| {
        let class = labels.index_of(&canonical(ferplus::CLASSES[vote]))?;
        Some((0..labels.len()).map(|index| if index == class { 1.0 } else { 0.0 }).collect())
    })
}

/// The votes as a distribution over the classes, without those of a single tagger (Barsoum et al. 2016); `None` where
/// nothing is left.
fn voted(votes: &[u8; 10], meanings: &Meanings, classes: usize) -> Option<Vec<f32>> {
    let mut row = vec![0.0; classes];
    for (&count, meaning) in votes.iter().zip(meanings) {
        if let (2.., Some(meaning)) = (count, meaning) {
            row.iter_mut().zip(meaning).for_each(|(row, part)| *row += f32::from(count) * part);
        }
    }
    let total: f32 = row.iter().sum();
    (total > 0.0).then(|| row.iter().map(|value| value / total).collect())
}

/// The votes for FER+'s expressions as shares, without those of a single tagger; zeros where nothing is left.
fn expressions(votes: &[u8; 10]) -> [f32; ferplus::EXPRESSIONS] {
    let counted = |expression: usize| if votes[expression] > 1 { f32::from(votes[expression]) } else { 0.0 };
    let counts: [f32; ferplus::EXPRESSIONS] = std::array::from_fn(counted);
    let total: f32 = counts.iter().sum();
    counts.map(|count| if total > 0.0 { count / total } else { 0.0 })
}

/// `row` with `share` of `other` in it.
fn blend(row: &mut [f32], share: f32, other: &[f32]) {
    row.iter_mut().zip(other).for_each(|(row, other)| *row += share * (other - *row));
}

/// Finished models that answer on training pictures.
#[derive(Debug)]
pub struct Teachers {
    members: Vec<Classifier>,
    share: f32,
    temperature: f32,
}

/// A bundle that cannot teach.
#[derive(Debug, thiserror::Error)]
pub enum TeacherError {
    /// It cannot be read.
    #[error("train.targets.teachers: {0}")]
    Bundle(#[from] BundleError),
    /// The system's refusal, naming the path.
    #[error("train.targets.teachers: {0}")]
    File(#[from] std::io::Error),
    /// It answers something else, or looks at other pictures.
    #[error("train.targets.teachers: {path} has {found}, and the network to be trained has {expected}")]
    Other {
        /// The bundle.
        path: String,
        /// What it has.
        found: String,
        /// What it should have.
        expected: String,
    },
}

impl Teachers {
    /// Loads the bundles; `None` where none is asked for.
    ///
    /// # Errors
    /// A bundle that cannot be read, or whose classes or pictures are not those of the network.
    pub fn load(
        config: &TargetConfig,
        labels: &Labels,
        preprocessing: &Preprocessing,
    ) -> Result<Option<Self>, TeacherError> {
        if config.distillation == 0.0 {
            return Ok(None);
        }
        let mut members = Vec::with_capacity(config.teachers.len());
        for path in &config.teachers {
            let mut bundle = Bundle::load(&PathBuf::from(path))?;
            let other = |found: String, expected: String| TeacherError::Other { path: path.clone(), found, expected };
            if bundle.labels != *labels {
                return Err(other(format!("the classes {}", bundle.labels), labels.to_string()));
            }
            if bundle.preprocessing != *preprocessing {
                let words = |settings: &Preprocessing| format!("preprocessing = {}", in_toml(settings));
                return Err(other(words(&bundle.preprocessing), words(preprocessing)));
            }
            // The network sees one view, and so do its teachers.
            bundle.inference.views = Views::default();
            let unusable = |fault| BundleError::Unusable { path: PathBuf::from(path), fault };
            members.push(Classifier::from_bundle(bundle).map_err(unusable)?);
        }
        let (share, temperature) = (config.distillation as f32, config.distillation_temperature as f32);
        Ok(Some(Self { members, share, temperature }))
    }

    /// Puts the teachers' share into the labels of `targets` `[rows * columns]`, for `pixels` as the network sees them.
    pub fn teach(&self, pixels: &[f32], columns: usize, targets: &mut [f32]) {
        let classes = self.members.first().map_or(1, |member| member.labels().len());
        let mut answers = vec![0.0; targets.len() / columns * classes];
        for member in &self.members {
            let part = 1.0 / self.members.len() as f32;
            answers.iter_mut().zip(member.probabilities(pixels)).for_each(|(answer, p)| *answer += part * p);
        }
        sharpen(&mut answers, classes, self.temperature);
        for (targets, answer) in targets.chunks_exact_mut(columns).zip(answers.chunks_exact(classes)) {
            blend(&mut targets[..classes], self.share, answer);
        }
    }
}

#[cfg(test)]
mod tests {
    use image::GrayImage;
    use serde_json::json;
    use vultus::inference::Inference;
    use vultus::network::{FlattenConfig, LayerConfig, NetworkConfig};
    use vultus::weights::WeightTensor;

    use super::*;
    use crate::dataset::Sample;

    /// Labels of `angry` and `happy` with votes.
    fn dataset(samples: &[(usize, [u8; 10])]) -> Dataset {
        let sample = |&(label, votes): &(usize, [u8; 10])| Sample {
            image: GrayImage::new(1, 1),
            label,
            split: "train".to_owned(),
            origin: String::new(),
            votes: Some(votes),
        };
        let labels = Labels::new(["angry", "happy"]).unwrap();
        Dataset { labels, samples: samples.iter().map(sample).collect(), removed: Vec::new() }
    }

    /// Ten votes: neutral, happiness, anger.
    fn votes(neutral: u8, happiness: u8, anger: u8) -> [u8; 10] {
        let mut votes = [0; 10];
        (votes[0], votes[1], votes[4]) = (neutral, happiness, anger);
        votes
    }

    fn close(found: &[f32], expected: &[f32]) {
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?} {expected:?}");
    }

    #[test]
    fn labels_alone_are_one_hot() {
        let rows = TargetConfig::default().rows(&dataset(&[(1, votes(10, 0, 0))]), &[0], LabelSource::Own);
        assert_eq!(rows, [0.0, 1.0]);
    }

    #[test]
    fn smoothing_spreads_evenly() {
        let config = TargetConfig { smoothing: 0.2, ..TargetConfig::default() };
        close(&config.rows(&dataset(&[(1, votes(0, 0, 0))]), &[0], LabelSource::Own), &[0.1, 0.9]);
    }

    #[test]
    fn a_vote_means_the_labels_it_goes_with_in_training() {
        // Of the neutral votes in training, 6 go with angry and 2 with happy; of happiness, 2 and 8.
        let data = dataset(&[(0, votes(6, 2, 0)), (1, votes(2, 8, 0)), (1, votes(10, 0, 0)), (0, votes(5, 5, 1))]);
        let config = TargetConfig { votes: 0.5, ..TargetConfig::default() };
        let rows = config.rows(&data, &[0, 1], LabelSource::Own);
        // The third is no training image and changes no meaning; all its votes are neutral.
        close(&rows[4..6], &[0.5 * 0.75, 0.5 + 0.5 * 0.25]);
        // A single vote does not count.
        close(&rows[6..8], &[0.5 + 0.5 * (0.5 * 0.75 + 0.5 * 0.2), 0.5 * (0.5 * 0.25 + 0.5 * 0.8)]);
    }

    #[test]
    fn a_vote_means_its_own_name_where_the_classes_are_those_of_the_votes() {
        let config = TargetConfig { votes: 1.0, ..TargetConfig::default() };
        let rows = config.rows(&dataset(&[(0, votes(4, 4, 2))]), &[0], LabelSource::Ferplus);
        close(&rows, &[2.0 / 6.0, 4.0 / 6.0]);
    }

    #[test]
    fn votes_have_a_head_of_their_own_and_leave_the_labels() {
        let data = dataset(&[(1, votes(6, 3, 1)), (0, [0, 0, 0, 0, 0, 0, 0, 0, 0, 10])]);
        let config = TargetConfig { votes_head: 0.5, ..TargetConfig::default() };
        let rows = config.rows(&data, &[0, 1], LabelSource::Own);
        assert_eq!(config.heads(2).columns(), 10);
        close(&rows[..4], &[0.0, 1.0, 2.0 / 3.0, 1.0 / 3.0]);
        // A single tagger does not count, nor does what is no expression.
        close(&rows[4..], &[&[0.0; 6][..], &[1.0, 0.0], &[0.0; 8]].concat());
    }

    /// A model of pictures of one pixel that gives `happy` the probability `p`, whatever it sees.
    fn always(p: f32) -> Bundle {
        let tensor = |shape: &[usize], data: &[f32]| WeightTensor { shape: shape.to_vec(), data: data.to_vec() };
        let (kernel, bias) = (tensor(&[1, 2], &[0.0; 2]), tensor(&[2], &[(1.0 - p).ln(), p.ln()]));
        Bundle {
            labels: Labels::new(["angry", "happy"]).unwrap(),
            preprocessing: Preprocessing { width: 1, height: 1, ..Preprocessing::default() },
            network: NetworkConfig { layers: vec![LayerConfig::Flatten(FlattenConfig {})] },
            weights: [("layers.1.weight".to_owned(), kernel), ("layers.1.bias".to_owned(), bias)].into_iter().collect(),
            inference: Inference::default(),
            training: json!({}),
            metrics: json!({}),
        }
    }

    #[test]
    fn teachers_have_their_share_and_are_as_sure_as_their_heat_lets_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let teachers = vec![path("one.safetensors"), path("other.safetensors")];
        let bundles = [always(0.7), always(0.9)];
        for (bundle, path) in bundles.iter().zip(&teachers) {
            bundle.save(&PathBuf::from(path)).unwrap();
        }
        let config =
            TargetConfig { distillation: 0.75, distillation_temperature: 2.0, teachers, ..TargetConfig::default() };
        let teachers = Teachers::load(&config, &bundles[0].labels, &bundles[0].preprocessing).unwrap().unwrap();
        let mut targets = [1.0, 0.0, 0.0, 1.0];
        teachers.teach(&[0.0, 1.0], 2, &mut targets);
        // Their mean is 1/5 to 4/5; at a temperature of 2 the odds of 4 become 2, and the labels keep a quarter.
        close(&targets, &[0.25 + 0.75 / 3.0, 0.75 * 2.0 / 3.0, 0.75 / 3.0, 0.25 + 0.75 * 2.0 / 3.0]);
        // What stands behind the labels is not theirs.
        let mut targets = [1.0, 0.0, 0.3, 0.0, 1.0, 0.7];
        teachers.teach(&[0.0, 1.0], 3, &mut targets);
        close(&targets[..3], &[0.25 + 0.75 / 3.0, 0.75 * 2.0 / 3.0, 0.3]);
        close(&targets[3..], &[0.75 / 3.0, 0.25 + 0.75 * 2.0 / 3.0, 0.7]);
    }

    #[test]
    fn only_the_classes_of_the_votes_have_shares_of_votes() {
        let eight = Labels::sorted(&ferplus::CLASSES[..8]).unwrap();
        let shares = VotedClasses::new(&eight).shares(&votes(6, 3, 1)).unwrap();
        let share = |name: &str| shares[eight.index_of(name).unwrap()];
        close(&[share("neutral"), share("happy"), share("angry")], &[2.0 / 3.0, 1.0 / 3.0, 0.0]);
        assert_eq!(VotedClasses::new(&eight).shares(&votes(1, 1, 1)), None);
        let seven = Labels::new(["angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"]).unwrap();
        assert_eq!(VotedClasses::new(&seven).shares(&votes(6, 3, 1)), None);
    }
}
