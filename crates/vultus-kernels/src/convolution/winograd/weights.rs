//! Transformed weights, packed for the products at each point.
//!
//! In: weights `[r, r, in, out]`. Out: `G g G^T` as `[point][out / PANEL][in][PANEL]`.

use std::marker::PhantomData;
use std::ops::Range;

use super::POINT_GAP;
use crate::convolution::transform::{MOST_TAPS, Transform};
use crate::shared::Shared;
use crate::simd::{InstructionSet, Kernel, Lanes, PANEL};
use crate::sizes::elements;
use crate::threads::share;

/// Numbers of transformed weights.
pub(in crate::convolution) fn weight_len<T: Transform>(in_channels: usize, out_channels: usize) -> usize {
    elements([T::POINTS * T::POINTS, weight_stride(in_channels, out_channels)])
}

pub(super) fn weight_stride(in_channels: usize, out_channels: usize) -> usize {
    elements([out_channels.next_multiple_of(PANEL), in_channels]) + POINT_GAP
}

/// `G g G^T` of all weights `[r, r, in, out]`, packed: `[point][out / PANEL][in][PANEL]`.
pub(in crate::convolution) fn transform_weights<T: Transform>(
    set: InstructionSet,
    in_channels: usize,
    out_channels: usize,
    weight: &[f32],
    transformed: &mut [f32],
) {
    assert_eq!(weight.len(), elements([T::TAPS * T::TAPS, in_channels, out_channels]));
    assert!(transformed.len() >= weight_len::<T>(in_channels, out_channels));
    let to = Shared::new(transformed);
    let per_task = 8;
    share(in_channels.div_ceil(per_task), |task| {
        let first = task * per_task;
        let inputs = first..in_channels.min(first + per_task);
        set.run(TransformWeights::<T> { inputs, in_channels, out_channels, weight, to, transform: PhantomData });
    });
}

struct TransformWeights<'a, T> {
    inputs: Range<usize>,
    in_channels: usize,
    out_channels: usize,
    weight: &'a [f32],
    to: Shared<'a>,
    transform: PhantomData<T>,
}

impl<T: Transform> Kernel for TransformWeights<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let (inputs, outputs) = (self.in_channels, self.out_channels);
        let stride = weight_stride(inputs, outputs);
        // Inputs inside: then the lines of a panel are written one behind the other.
        for first in (0..outputs.next_multiple_of(PANEL)).step_by(L::WIDTH) {
            for input in self.inputs.clone() {
                let mut kernel = [[L::splat(0.0); MOST_TAPS]; MOST_TAPS]; // g turned round: [column][row]
                for (j, column) in kernel.iter_mut().enumerate().take(T::TAPS) {
                    for (i, tap) in column.iter_mut().enumerate().take(T::TAPS) {
                        // SAFETY: a row of `outputs` numbers begins at this place of the weights (length asserted).
                        *tap = unsafe {
                            let row = self.weight.as_ptr().add(((i * T::TAPS + j) * inputs + input) * outputs);
                            L::load_padded(row, first, outputs)
                        };
                    }
                }
                for i in 0..T::POINTS {
                    let mut line = [L::splat(0.0); MOST_TAPS]; // of G g
                    for j in 0..T::TAPS {
                        line[j] = combine::<L>(&T::WEIGHTS[i], &kernel[j]);
                    }
                    for j in 0..T::POINTS {
                        let value = combine::<L>(&T::WEIGHTS[j], &line);
                        let place =
                            (i * T::POINTS + j) * stride + (first / PANEL * inputs + input) * PANEL + first % PANEL;
                        let to = self.to.at(place);
                        L::prefetch(to.wrapping_add(PANEL)); // the next input's
                        // SAFETY: a whole vector of a panel, inside the transformed weights (length asserted); each
                        // input channel has its own places and belongs to one task.
                        unsafe { value.store(to) }
                    }
                }
            }
        }
    }
}

/// The inner product of factors, some of them zero, with vectors.
#[inline(always)]
fn combine<L: Lanes>(factors: &[f32; MOST_TAPS], values: &[L; MOST_TAPS]) -> L {
    let mut sum = L::splat(0.0);
    for (&factor, &value) in factors.iter().zip(values) {
        if factor != 0.0 {
            sum = value.scaled(factor, sum);
        }
    }
    sum
}
