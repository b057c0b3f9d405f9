//! Batches of pixels, made ahead of the training step by a thread of their own.
//!
//! In: samples, an order, targets, class weights. Out: one [`Batch`] after the other, its pictures changed and mixed as the
//! configuration says, the same whatever the machine does.

use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::Scope;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use vultus::preprocess::Preprocessing;

use crate::augment::{AugmentConfig, Mixing, mix};
use crate::dataset::{Dataset, Sample};
use crate::operations::buffers;
use crate::seed::{derive_seed, purpose};
use crate::targets::Teachers;

/// Batches that may wait for the training step.
const BATCHES_AHEAD: usize = 4;

/// Images that one call of the inference plan takes.
const INFERENCE_CHUNK: usize = 256;

/// Input of one training step.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Indices into the data set.
    pub indices: Vec<usize>,
    /// `[batch * height * width]`.
    pub pixels: Vec<f32>,
    /// What the network is to answer, `[batch * columns]`.
    pub targets: Vec<f32>,
    /// Class weight of each sample, `[batch]`.
    pub weights: Vec<f32>,
}

/// How samples become batches.
#[derive(Clone, Copy, Debug)]
pub struct BatchSource<'a> {
    /// The samples.
    pub dataset: &'a Dataset,
    /// [`Dataset::places`]: what an image's changes are drawn by, so that images of other splits have no part in them.
    pub places: &'a [usize],
    /// Pixels to numbers.
    pub preprocessing: &'a Preprocessing,
    /// Targets of every sample of the data set, `[samples * columns]`: a probability for each class of the labels, and perhaps for the votes'.
    pub targets: &'a [f32],
    /// Models that have a share in the targets.
    pub teachers: Option<&'a Teachers>,
    /// Factor on the loss of each class.
    pub class_weights: &'a [f32],
    /// How images are changed.
    pub augmentation: &'a AugmentConfig,
    /// Seed of the run, which decides the changes.
    pub seed: u64,
    /// Samples of one batch; the last may have fewer.
    pub batch_size: usize,
}

/// The order in which `indices` are visited in `epoch` (from 0).
pub fn epoch_order(indices: &[usize], seed: u64, epoch: usize) -> Vec<usize> {
    let mut order = indices.to_vec();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(derive_seed(seed, &[purpose::ORDER, epoch as u64])));
    order
}

impl<'a> BatchSource<'a> {
    /// Batches of `epoch` (from 0) in the given order, from batch number `first` on, made by a thread of `scope`. The thread ends when the
    /// receiver is dropped.
    pub fn stream<'scope>(
        self,
        scope: &'scope Scope<'scope, '_>,
        epoch: usize,
        order: Vec<usize>,
        first: usize,
    ) -> Receiver<Batch>
    where
        'a: 'scope,
    {
        let (sender, receiver) = sync_channel(BATCHES_AHEAD);
        scope.spawn(move || {
            for indices in order.chunks(self.batch_size).skip(first) {
                if sender.send(self.batch(epoch, indices)).is_err() {
                    return;
                }
            }
        });
        receiver
    }

    /// One batch of the samples at `indices`, as `epoch` (from 0) shows them.
    pub fn batch(&self, epoch: usize, indices: &[usize]) -> Batch {
        let Self { dataset, places, preprocessing, augmentation, seed, .. } = *self;
        let columns = self.targets.len() / dataset.samples.len();
        let (width, height) = (preprocessing.width as usize, preprocessing.height as usize);
        // The memory of an earlier batch, once it has been through the network.
        let mut pixels = buffers::take(indices.len() * preprocessing.values());
        pixels.par_chunks_exact_mut(preprocessing.values()).zip(indices).for_each(|(pixels, &index)| {
            let face = augmentation.apply(&dataset.samples[index].image, seed, epoch, places[index]);
            preprocessing.fill(&face, pixels);
        });
        let mut targets: Vec<f32> =
            indices.iter().flat_map(|&index| &self.targets[index * columns..][..columns]).copied().collect();
        let mut weights: Vec<f32> =
            indices.iter().map(|&index| self.class_weights[dataset.samples[index].label]).collect();
        let mixing = |&index: &usize| Mixing::draw(augmentation, seed, epoch, places[index], width, height);
        let mixings: Vec<Mixing> = indices.iter().map(mixing).collect();
        mix(&mixings, width, &mut pixels, &mut targets, &mut weights);
        if let Some(teachers) = self.teachers {
            teachers.teach(&pixels, columns, &mut targets);
        }
        Batch { indices: indices.to_vec(), pixels, targets, weights }
    }
}

/// Network input of `samples`, `[samples * height * width]`.
fn fill_pixels(preprocessing: &Preprocessing, samples: &[&Sample]) -> Vec<f32> {
    let size = preprocessing.values();
    let mut pixels = vec![0.0; samples.len() * size];
    pixels
        .par_chunks_exact_mut(size)
        .zip(samples)
        .for_each(|(pixels, sample)| preprocessing.fill(&sample.image, pixels));
    pixels
}

/// Probabilities `[indices * classes]` of samples, in chunks, so that memory stays flat. `classify` makes them of
/// preprocessed pixels: a plan, or a classifier.
pub fn dataset_probabilities(
    classify: impl Fn(&[f32]) -> Vec<f32>,
    preprocessing: &Preprocessing,
    dataset: &Dataset,
    indices: &[usize],
) -> Vec<f32> {
    let mut probabilities = Vec::with_capacity(indices.len() * dataset.labels.len());
    for chunk in indices.chunks(INFERENCE_CHUNK) {
        let samples: Vec<&Sample> = chunk.iter().map(|&index| &dataset.samples[index]).collect();
        probabilities.extend(classify(&fill_pixels(preprocessing, &samples)));
    }
    probabilities
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_shuffles_that_differ_by_epoch_and_seed() {
        let indices: Vec<usize> = (100..200).collect();
        let order = epoch_order(&indices, 1, 0);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, indices);
        assert_eq!(order, epoch_order(&indices, 1, 0));
        assert_ne!(order, epoch_order(&indices, 1, 1));
        assert_ne!(order, epoch_order(&indices, 2, 0));
    }
}
