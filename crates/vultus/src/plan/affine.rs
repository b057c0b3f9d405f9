//! Per-channel affine maps, which is what a batch norm is once training has ended, and their folding into layers.
//!
//! In: scales and shifts in double precision. Out: the map applied to values, or weights and biases that contain it.

use vultus_kernels::threads::share_chunks;

use super::step::VALUES_PER_TASK;

/// `y = scale[channel] * x + shift[channel]`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Affine {
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

    /// What each channel is multiplied by.
    pub(crate) fn scales(&self) -> Vec<f32> {
        self.scale.iter().map(|&scale| scale as f32).collect()
    }

    /// What is added to each channel then.
    pub(crate) fn shifts(&self) -> Vec<f32> {
        self.shift.iter().map(|&shift| shift as f32).collect()
    }

    /// Number of channels.
    pub(crate) fn len(&self) -> usize {
        self.scale.len()
    }

    /// Whether larger values stay larger (or become equal), so that the map and max pooling can change places.
    pub(super) fn keeps_order(&self) -> bool {
        self.scale.iter().all(|&scale| scale >= 0.0)
    }

    /// The same map after flattening to `features` features: the channels come again with every pixel.
    pub(super) fn spread(&self, features: usize) -> Self {
        let times = features / self.len();
        Self { scale: self.scale.repeat(times), shift: self.shift.repeat(times) }
    }

    /// The map that does `self` first and `later` after it.
    pub(super) fn then(&self, later: &Self) -> Self {
        let scale = self.scale.iter().zip(&later.scale).map(|(first, second)| first * second).collect();
        let shifts = self.shift.iter().zip(later.scale.iter().zip(&later.shift));
        Self { scale, shift: shifts.map(|(first, (scale, shift))| first * scale + shift).collect() }
    }

    /// Applies the map to pixels (or lists of features) `[n, channels]`.
    pub(super) fn apply(&self, values: &mut [f32]) {
        let rows = (VALUES_PER_TASK / self.len()).max(1);
        share_chunks(values, rows * self.len(), |_, values| {
            for pixel in values.chunks_exact_mut(self.len()) {
                for ((value, &scale), &shift) in pixel.iter_mut().zip(&self.scale).zip(&self.shift) {
                    *value = *value * scale as f32 + shift as f32;
                }
            }
        });
    }

    /// Puts the map behind a linear layer: weights `[.., outputs]`, one channel an output.
    pub(super) fn fold_behind(&self, weight: &mut [f32], bias: &mut [f32]) {
        for row in weight.chunks_exact_mut(self.len()) {
            for (weight, &scale) in row.iter_mut().zip(&self.scale) {
                *weight = (f64::from(*weight) * scale) as f32;
            }
        }
        for ((bias, &scale), &shift) in bias.iter_mut().zip(&self.scale).zip(&self.shift) {
            *bias = (f64::from(*bias) * scale + shift) as f32;
        }
    }

    /// Puts the map before a linear layer: weights `[.., channels, outputs]`, whose rows belong to the channels in turn.
    /// For a convolution that is exact only without padding: the padding's zeros do not pass the map.
    pub(super) fn fold_before(&self, weight: &mut [f32], bias: &mut [f32]) {
        let mut totals: Vec<f64> = bias.iter().map(|&bias| f64::from(bias)).collect();
        let channels = self.scale.iter().zip(&self.shift).cycle();
        for (row, (&scale, &shift)) in weight.chunks_exact_mut(totals.len()).zip(channels) {
            for (weight, total) in row.iter_mut().zip(&mut totals) {
                *total += f64::from(*weight) * shift;
                *weight = (f64::from(*weight) * scale) as f32;
            }
        }
        for (bias, total) in bias.iter_mut().zip(totals) {
            *bias = total as f32;
        }
    }

    /// Puts the map before a convolution of each channel by itself: weights `[.., channels]`. As for
    /// [`Affine::fold_before`], that is exact only without padding.
    pub(super) fn fold_before_channels(&self, weight: &mut [f32], bias: &mut [f32]) {
        let mut totals: Vec<f64> = bias.iter().map(|&bias| f64::from(bias)).collect();
        for row in weight.chunks_exact_mut(self.len()) {
            for ((weight, total), (&scale, &shift)) in
                row.iter_mut().zip(&mut totals).zip(self.scale.iter().zip(&self.shift))
            {
                *total += f64::from(*weight) * shift;
                *weight = (f64::from(*weight) * scale) as f32;
            }
        }
        for (bias, total) in bias.iter_mut().zip(totals) {
            *bias = total as f32;
        }
    }
}
