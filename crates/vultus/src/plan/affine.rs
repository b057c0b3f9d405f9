//! Per-channel affine maps, which is what a batch norm is once training has ended, and their folding into layers.
//!
//! In: scales and shifts in double precision. Out: the map applied to values, or weights and biases that contain it.

use rayon::prelude::*;

/// `y = scale[channel] * x + shift[channel]`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Affine {
    scale: Vec<f64>,
    shift: Vec<f64>,
}

impl Affine {
    /// The map of a batch norm with running statistics; all slices are `[channels]`.
    pub(super) fn batch_norm(gamma: &[f32], beta: &[f32], mean: &[f32], variance: &[f32], epsilon: f64) -> Self {
        let scale: Vec<f64> =
            gamma.iter().zip(variance).map(|(&gamma, &v)| f64::from(gamma) / (f64::from(v) + epsilon).sqrt()).collect();
        let shift = beta.iter().zip(mean).zip(&scale).map(|((&b, &m), &s)| f64::from(b) - f64::from(m) * s).collect();
        Self { scale, shift }
    }

    /// Number of channels.
    pub(super) fn len(&self) -> usize {
        self.scale.len()
    }

    /// Whether larger values stay larger (or become equal), so that the map and max pooling can change places.
    pub(super) fn keeps_order(&self) -> bool {
        self.scale.iter().all(|&scale| scale >= 0.0)
    }

    /// The same map after flattening to `channels` features: each channel becomes a run of equal ones.
    pub(super) fn spread(&self, channels: usize) -> Self {
        let run = channels / self.len();
        let repeat = |values: &[f64]| values.iter().flat_map(|&value| std::iter::repeat_n(value, run)).collect();
        Self { scale: repeat(&self.scale), shift: repeat(&self.shift) }
    }

    /// The map that does `self` first and `later` after it.
    pub(super) fn then(&self, later: &Self) -> Self {
        let scale = self.scale.iter().zip(&later.scale).map(|(first, second)| first * second).collect();
        let shifts = self.shift.iter().zip(later.scale.iter().zip(&later.shift));
        Self { scale, shift: shifts.map(|(first, (scale, shift))| first * scale + shift).collect() }
    }

    /// Applies the map to `[samples, channels, spatial]`.
    pub(super) fn apply(&self, spatial: usize, values: &mut [f32]) {
        values.par_chunks_mut(self.len() * spatial).for_each(|sample| {
            for ((plane, &scale), &shift) in sample.chunks_exact_mut(spatial).zip(&self.scale).zip(&self.shift) {
                let (scale, shift) = (scale as f32, shift as f32);
                plane.iter_mut().for_each(|value| *value = *value * scale + shift);
            }
        });
    }

    /// Puts the map behind a linear layer with `[outputs, inputs]` weights (a convolution), one channel an output.
    pub(super) fn fold_behind_rows(&self, weight: &mut [f32], bias: &mut [f32]) {
        let inputs = weight.len() / self.len();
        for (row, &scale) in weight.chunks_exact_mut(inputs).zip(&self.scale) {
            row.iter_mut().for_each(|weight| *weight = (f64::from(*weight) * scale) as f32);
        }
        self.fold_behind_bias(bias);
    }

    /// Puts the map behind a linear layer with `[inputs, outputs]` weights (dense), one channel an output.
    pub(super) fn fold_behind_columns(&self, weight: &mut [f32], bias: &mut [f32]) {
        for row in weight.chunks_exact_mut(self.len()) {
            for (weight, &scale) in row.iter_mut().zip(&self.scale) {
                *weight = (f64::from(*weight) * scale) as f32;
            }
        }
        self.fold_behind_bias(bias);
    }

    fn fold_behind_bias(&self, bias: &mut [f32]) {
        for ((bias, &scale), &shift) in bias.iter_mut().zip(&self.scale).zip(&self.shift) {
            *bias = (f64::from(*bias) * scale + shift) as f32;
        }
    }

    /// Puts the map before a convolution with `[outputs, channels, window]` weights. Exact only without padding: the
    /// padding's zeros do not pass the map.
    pub(super) fn fold_before_rows(&self, weight: &mut [f32], bias: &mut [f32]) {
        let inputs = weight.len() / bias.len();
        let window = inputs / self.len();
        for (row, bias) in weight.chunks_exact_mut(inputs).zip(bias) {
            let mut total = f64::from(*bias);
            for ((window, &scale), &shift) in row.chunks_exact_mut(window).zip(&self.scale).zip(&self.shift) {
                for weight in window {
                    total += f64::from(*weight) * shift;
                    *weight = (f64::from(*weight) * scale) as f32;
                }
            }
            *bias = total as f32;
        }
    }

    /// Puts the map before a dense layer with `[inputs, outputs]` weights; a channel is a run of inputs.
    pub(super) fn fold_before_columns(&self, weight: &mut [f32], bias: &mut [f32]) {
        let run = weight.len() / self.len();
        let mut totals: Vec<f64> = bias.iter().map(|&bias| f64::from(bias)).collect();
        for ((run, &scale), &shift) in weight.chunks_exact_mut(run).zip(&self.scale).zip(&self.shift) {
            for row in run.chunks_exact_mut(totals.len()) {
                for (weight, total) in row.iter_mut().zip(&mut totals) {
                    *total += f64::from(*weight) * shift;
                    *weight = (f64::from(*weight) * scale) as f32;
                }
            }
        }
        for (bias, total) in bias.iter_mut().zip(totals) {
            *bias = total as f32;
        }
    }
}
