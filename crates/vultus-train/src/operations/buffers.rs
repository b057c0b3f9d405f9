//! Memory of pixels, activations and gradients, used again from step to step.
//!
//! In: a length, or a tensor that nobody needs any more. Out: a vector whose contents are left over. A training step
//! makes and drops the same large buffers each time; getting fresh ones from the system would cost a page fault for every
//! four kilobytes and a pass that fills them with zeros. What is kept goes back when a training ends: the next network wants
//! other sizes.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::backend::flex::FlexTensor;

/// Buffers that are not worth keeping.
const SMALLEST: usize = 1024;
/// Buffers of one size that are kept.
const MOST: usize = 32;

/// What waits for whoever asks next.
struct Pool {
    era: Era,
    /// By capacity.
    free: BTreeMap<usize, Vec<Vec<f32>>>,
}

/// The time between one end of a training and the next. What a training leaves in Burn's graph when it ends with an error goes
/// whenever somebody else's backward pass sweeps that up, and then nobody wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Era(u64);

static POOL: Mutex<Pool> = Mutex::new(Pool { era: Era(0), free: BTreeMap::new() });

fn pool() -> MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Held by whoever trains: once it is dropped, nothing is kept any more. Another training of this process that still goes on
/// gets fresh memory.
#[derive(Debug)]
pub struct KeptBuffers;

impl Drop for KeptBuffers {
    fn drop(&mut self) {
        let kept = {
            let mut pool = pool();
            pool.era.0 += 1;
            std::mem::take(&mut pool.free)
        };
        drop(kept);
    }
}

/// A vector of `length` numbers, whatever they are.
pub(crate) fn take(length: usize) -> Vec<f32> {
    if length < SMALLEST {
        return vec![0.0; length];
    }
    let kept = {
        let mut pool = pool();
        // A batch that is a little smaller finds the buffers of the others. Not one of half the size: each layer would
        // take the next one's, and whoever gets a buffer back at its old length fills the rest with zeros.
        let fits = pool.free.range_mut(length..=length + length / 4).find(|(_, buffers)| !buffers.is_empty());
        fits.and_then(|(_, buffers)| buffers.pop())
    };
    let mut buffer = kept.unwrap_or_default();
    buffer.resize(length, 0.0);
    buffer
}

/// The era that [`give_back`] asks for.
pub(super) fn era() -> Era {
    pool().era
}

/// Keeps the memory of a tensor for later, if nobody else holds it.
pub(super) fn give(tensor: FlexTensor) {
    give_back(tensor, era());
}

/// The same for a tensor of an earlier step, unless a training has ended since `era`.
pub(super) fn give_back(tensor: FlexTensor, era: Era) {
    if tensor.layout().shape().num_elements() < SMALLEST || !tensor.is_unique() {
        return;
    }
    if let Ok(buffer) = tensor.into_data().try_into_vec::<f32>() {
        let mut pool = pool();
        if pool.era != era {
            return;
        }
        let buffers = pool.free.entry(buffer.capacity()).or_default();
        if buffers.len() < MOST {
            buffers.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;
    use image::{GrayImage, Luma};
    use vultus::labels::Labels;

    use super::*;
    use crate::config::TrainConfig;
    use crate::dataset::{Dataset, Sample, split_name};
    use crate::fit::{FitData, FitError, Observer, StepReport, fit};

    /// How many buffers of `length` numbers wait. Other tests train at the same time, with much smaller networks: one of nearly the
    /// same size would take these, and give them back when it has ended.
    fn waiting(length: usize) -> usize {
        pool().free.get(&length).map_or(0, Vec::len)
    }

    struct Watcher {
        length: usize,
        most: usize,
    }

    impl Observer for Watcher {
        fn step(&mut self, _: &StepReport) {
            self.most = self.most.max(waiting(self.length));
        }
    }

    /// Trains on four large pictures with so many filters.
    fn train(filters: usize, rate: f64, watcher: &mut Watcher) -> Result<(), FitError> {
        let text = format!(
            "preprocessing = {{ width = 96, height = 96 }}\n[train]\nepochs = 12\nbatch_size = 4\n\
             optimizer = {{ type = \"sgd\", learning_rate = {rate:?} }}\n\
             [[network.layers]]\ntype = \"conv\"\nfilters = {filters}\nkernel = 3\n[[network.layers]]\ntype = \"flatten\""
        );
        let config = TrainConfig::from_toml(&text, "text").unwrap();
        let sample = |number: usize| Sample {
            image: GrayImage::from_fn(96, 96, |x, y| Luma([(x * y + number as u32 * 40) as u8])),
            label: number % 2,
            split: split_name::TRAIN.to_owned(),
            origin: number.to_string(),
            votes: None,
        };
        let labels = Labels::new(["happy", "sad"]).unwrap();
        let dataset = Dataset { labels, samples: (0..4).map(sample).collect(), removed: Vec::new() };
        let data = FitData { dataset: &dataset, train: &[0, 1, 2, 3], validation: &[] };
        fit(&config, data, None, None, watcher).map(|_| ())
    }

    #[test]
    fn what_a_training_kept_goes_when_it_ends() {
        for (filters, rate) in [(139, 1e-6), (211, 1e-6)] {
            let mut watcher = Watcher { length: 4 * 94 * 94 * filters, most: 0 };
            train(filters, rate, &mut watcher).unwrap();
            assert!(watcher.most > 0, "nothing was kept");
            assert_eq!(waiting(watcher.length), 0, "{filters} filters");
        }
        let mut watcher = Watcher { length: 4 * 94 * 94 * 139, most: 0 };
        assert!(matches!(train(139, 1e30, &mut watcher), Err(FitError::NotFinite { .. })));
        assert_eq!(waiting(watcher.length), 0, "after an error");
    }

    #[test]
    fn what_an_earlier_training_left_behind_is_not_kept() {
        let (length, before) = (4 * 94 * 94 * 181, era());
        let tensor = || FlexTensor::from_data(TensorData::new(vec![0.0_f32; length], [length]));
        drop(KeptBuffers);
        give_back(tensor(), before);
        assert_eq!(waiting(length), 0);
        // Another test may end a training in between.
        assert!((0..100).any(|_| {
            give_back(tensor(), era());
            waiting(length) > 0
        }));
    }

    #[test]
    fn batches_use_each_others_memory() {
        let mut watcher = Watcher { length: 4 * 96 * 96, most: 0 };
        train(3, 1e-6, &mut watcher).unwrap();
        // Another test may train on as large pictures at the same time.
        assert!((1..7).contains(&watcher.most), "{} of 12 batches wait", watcher.most);
    }
}
