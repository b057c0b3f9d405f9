//! How an operation of ours stands in Burn's graph: a closure over the tensors that its backward pass needs, and whose
//! gradients are summed in place where two ways meet.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::backend::Backend;
use burn::backend::autodiff::Autodiff;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use super::Backwards;
use crate::operations::buffers::{Era, era};

/// The gradient that came to an operation's first parent by another way, as around a residual branch. A pass that takes it
/// gives the sum in its place.
pub(super) type Earlier<B> = Option<FloatTensor<B>>;

type BackwardPass<B, const N: usize> =
    dyn Fn(FloatTensor<B>, [bool; N], &mut Earlier<B>) -> [Option<FloatTensor<B>>; N] + Send + Sync;

/// What a recorded operation keeps until its backward pass: a closure over the saved tensors.
struct Saved<B: Backend, const N: usize>(Arc<BackwardPass<B, N>>);

impl<B: Backend, const N: usize> Clone for Saved<B, N> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<B: Backend, const N: usize> fmt::Debug for Saved<B, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Saved")
    }
}

/// An operation whose backward pass is the closure it saved.
#[derive(Debug)]
struct HandWritten;

/// Nodes inside the graph that have a gradient from us, and whose own backward pass, if it is ours, is still to come. Of a
/// node that is missing Burn sums the gradients, and numbers are never used again, so that all may be forgotten at any time.
static REGISTERED: Mutex<BTreeSet<u64>> = Mutex::new(BTreeSet::new());
/// Nodes after which all are forgotten: those of Burn's own operations are never taken out.
const MOST_REGISTERED: usize = 4096;

fn registered() -> MutexGuard<'static, BTreeSet<u64>> {
    REGISTERED.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<B: Backwards, const N: usize> Backward<B, N> for HandWritten {
    type State = Saved<B, N>;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        {
            let mut registered = registered();
            registered.remove(&ops.node.id.value);
            if registered.len() > MOST_REGISTERED {
                registered.clear();
            }
        }
        let wanted = ops.parents.each_ref().map(Option::is_some);
        // Two ways into one node: summed in place, where Burn would make a third tensor.
        let first = ops.parents.first().and_then(Option::as_ref);
        let mut earlier = first
            .filter(|parent| !parent.parents.is_empty() && registered().remove(&parent.id.value))
            .map(|parent| grads.consume::<B>(parent));
        let mut gradients = (ops.state.0)(dy, wanted, &mut earlier);
        if let (Some(earlier), Some(first)) = (earlier, gradients.first_mut()) {
            *first = Some(match first.take() {
                Some(gradient) => B::sum(earlier, gradient),
                None => earlier,
            });
        }
        for (parent, gradient) in ops.parents.into_iter().zip(gradients) {
            let (Some(parent), Some(mut gradient)) = (parent, gradient) else { continue };
            let is_leaf = parent.parents.is_empty();
            if !is_leaf && !registered().insert(parent.id.value) {
                gradient = B::sum(grads.consume::<B>(&parent), gradient);
            }
            grads.register::<B>(parent.id, gradient);
        }
    }
}

/// Puts `y` into the graph as a function of `parents`.
pub(super) fn record<B: Backwards, C: CheckpointStrategy, const N: usize>(
    parents: [NodeGuard; N],
    y: FloatTensor<B>,
    backward: impl Fn(FloatTensor<B>, [bool; N], &mut Earlier<B>) -> [Option<FloatTensor<B>>; N] + Send + Sync + 'static,
) -> FloatTensor<Autodiff<B, C>> {
    match Backward::<B, N>::prepare::<C>(HandWritten, parents).compute_bound().stateful() {
        OpsKind::Tracked(preparation) => preparation.finish(Saved(Arc::new(backward)), y),
        OpsKind::UnTracked(preparation) => preparation.finish(y),
    }
}

/// A tensor that an operation keeps for its backward pass; its memory is given back with it.
pub(super) struct Kept<B: Backwards> {
    tensor: Option<FloatTensor<B>>,
    era: Era,
}

impl<B: Backwards> Kept<B> {
    pub(super) fn new(tensor: FloatTensor<B>) -> Self {
        Self { tensor: Some(tensor), era: era() }
    }

    pub(super) fn get(&self) -> FloatTensor<B> {
        self.tensor.clone().expect("a tensor is only taken out when it is dropped")
    }
}

impl<B: Backwards> Drop for Kept<B> {
    fn drop(&mut self) {
        if let Some(tensor) = self.tensor.take() {
            B::recycle(tensor, self.era);
        }
    }
}
