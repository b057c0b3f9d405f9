//! Memory of activations and gradients, used again from step to step.
//!
//! In: a length, or a tensor that nobody needs any more. Out: a vector whose contents are left over. A training step
//! makes and drops the same large buffers each time; getting fresh ones from the system would cost a page fault for every
//! four kilobytes and a pass that fills them with zeros.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use burn::backend::flex::FlexTensor;

/// Buffers that are not worth keeping.
const SMALLEST: usize = 1024;
/// Buffers of one size that are kept.
const MOST: usize = 32;

static FREE: Mutex<BTreeMap<usize, Vec<Vec<f32>>>> = Mutex::new(BTreeMap::new());

/// A vector of `length` numbers, whatever they are.
pub(super) fn take(length: usize) -> Vec<f32> {
    if length < SMALLEST {
        return vec![0.0; length];
    }
    let kept = {
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        // A batch that is a little smaller finds the buffers of the others. Not one of half the size: each layer would
        // take the next one's, and whoever gets a buffer back at its old length fills the rest with zeros.
        let fits = free.range_mut(length..=length + length / 4).find(|(_, buffers)| !buffers.is_empty());
        fits.and_then(|(_, buffers)| buffers.pop())
    };
    let mut buffer = kept.unwrap_or_default();
    buffer.resize(length, 0.0);
    buffer
}

/// Keeps the memory of a tensor for later, if nobody else holds it.
pub(super) fn give(tensor: FlexTensor) {
    if tensor.layout().shape().num_elements() < SMALLEST || !tensor.is_unique() {
        return;
    }
    if let Ok(buffer) = tensor.into_data().try_into_vec::<f32>() {
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        let buffers = free.entry(buffer.capacity()).or_default();
        if buffers.len() < MOST {
            buffers.push(buffer);
        }
    }
}
