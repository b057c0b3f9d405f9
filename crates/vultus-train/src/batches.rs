//! Batches of pixels, made ahead of the training step by a thread of their own.
//!
//! In: samples, an order, class weights. Out: one [`Batch`] after the other, the same whatever the machine does.

use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::Scope;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use vultus::plan::Plan;
use vultus::preprocess::Preprocessing;

use crate::dataset::{Dataset, Sample};
use crate::seed::{derive_seed, purpose};

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
    /// One-hot classes, `[batch * classes]`.
    pub targets: Vec<f32>,
    /// Class weight of each sample, `[batch]`.
    pub weights: Vec<f32>,
}

/// How samples become batches.
#[derive(Clone, Copy, Debug)]
pub struct BatchSource<'a> {
    /// The samples.
    pub dataset: &'a Dataset,
    /// Pixels to numbers.
    pub preprocessing: &'a Preprocessing,
    /// Factor on the loss of each class.
    pub class_weights: &'a [f32],
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
    /// Batches in the given order, from batch number `first` on, made by a thread of `scope`. The thread ends when the
    /// receiver is dropped.
    pub fn stream<'scope>(self, scope: &'scope Scope<'scope, '_>, order: Vec<usize>, first: usize) -> Receiver<Batch>
    where
        'a: 'scope,
    {
        let (sender, receiver) = sync_channel(BATCHES_AHEAD);
        scope.spawn(move || {
            for indices in order.chunks(self.batch_size).skip(first) {
                if sender.send(self.batch(indices)).is_err() {
                    return;
                }
            }
        });
        receiver
    }

    /// One batch of the samples at `indices`.
    pub fn batch(&self, indices: &[usize]) -> Batch {
        let classes = self.dataset.labels.len();
        let samples: Vec<&Sample> = indices.iter().map(|&index| &self.dataset.samples[index]).collect();
        let mut targets = vec![0.0; samples.len() * classes];
        for (row, sample) in targets.chunks_exact_mut(classes).zip(&samples) {
            row[sample.label] = 1.0;
        }
        Batch {
            indices: indices.to_vec(),
            pixels: fill_pixels(self.preprocessing, &samples),
            weights: samples.iter().map(|sample| self.class_weights[sample.label]).collect(),
            targets,
        }
    }
}

/// Network input of `samples`, `[samples * height * width]`.
pub fn fill_pixels(preprocessing: &Preprocessing, samples: &[&Sample]) -> Vec<f32> {
    let size = preprocessing.values();
    let mut pixels = vec![0.0; samples.len() * size];
    pixels
        .par_chunks_exact_mut(size)
        .zip(samples)
        .for_each(|(pixels, sample)| preprocessing.fill(&sample.image, pixels));
    pixels
}

/// Probabilities `[indices * classes]` of samples by an inference plan, in chunks, so that memory stays flat.
pub fn dataset_probabilities(
    plan: &Plan,
    preprocessing: &Preprocessing,
    dataset: &Dataset,
    indices: &[usize],
) -> Vec<f32> {
    let mut probabilities = Vec::with_capacity(indices.len() * dataset.labels.len());
    for chunk in indices.chunks(INFERENCE_CHUNK) {
        let samples: Vec<&Sample> = chunk.iter().map(|&index| &dataset.samples[index]).collect();
        probabilities.extend(plan.probabilities(&fill_pixels(preprocessing, &samples)));
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
