//! Batch norm, max pooling and dropout in one: what follows a convolution in the report's network.
//!
//! In: images `[batch, height, width, channels]`. Out: pooled images `[batch, height / size, width / size, channels]`, or
//! gradients. The same as [`crate::batch_norm`], [`crate::pooling`] and [`crate::dropout`] one after the other, which
//! the tests hold it to; of what lies between only the winners of the windows are written. They are found in front of the norm:
//! where it rounds two inputs to one number, or its scale is zero, the one that was the larger wins. The statistics count every pixel, also those of a last row
//! or column that pooling drops; those have no winner and get only what the statistics send them.

use crate::batch_norm::{Norm, NormShape, statistics};
use crate::dropout::{Dropout, Mask};
use crate::scratch::Scratch;
use crate::simd::{InstructionSet, Kernel, Lanes};
use crate::sizes::elements;
use crate::threads::share_chunks;

pub use gradient::backward;
pub(crate) use gradient::{Backward, GradientApply, WindowRow, WindowSums};

mod gradient;

/// Sizes of what is normalised and pooled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NormPoolShape {
    /// Number of images.
    pub batch: usize,
    /// Rows of an image.
    pub height: usize,
    /// Columns of an image.
    pub width: usize,
    /// Channels of an image.
    pub channels: usize,
    /// Rows and columns of a window, and the step between windows.
    pub size: usize,
}

impl NormPoolShape {
    /// Values that go in.
    ///
    /// # Panics
    /// If there are more than a `usize` counts.
    pub fn input_len(&self) -> usize {
        elements([self.batch, self.image()])
    }

    /// Values of one image.
    fn image(&self) -> usize {
        elements([self.channels, self.height, self.width])
    }

    /// Values that come out.
    ///
    /// # Panics
    /// As [`NormPoolShape::input_len`], and if a window has no size.
    pub fn output_len(&self) -> usize {
        elements([self.batch, self.channels, self.pooled_height(), self.pooled_width()])
    }

    pub(crate) fn pooled_height(&self) -> usize {
        self.height / self.size
    }

    pub(crate) fn pooled_width(&self) -> usize {
        self.width / self.size
    }

    /// Rows of the band of a row of windows: the last one has the rows that no window covers, too.
    pub(crate) fn band_rows(&self, row: usize) -> usize {
        if row + 1 == self.pooled_height() { self.height - row * self.size } else { self.size }
    }

    /// Values of a row of an image.
    pub(crate) fn line(&self) -> usize {
        self.width * self.channels
    }

    pub(crate) fn norm(&self) -> NormShape {
        NormShape { rows: elements([self.batch, self.height, self.width]), channels: self.channels }
    }

    pub(crate) fn check(&self) {
        assert!(self.size > 0 && self.size <= self.height.min(self.width), "a window of {} does not fit", self.size);
    }
}

/// `y = dropout(max_pool(gamma * (x - mean) / sqrt(variance + epsilon) + beta))`, with the statistics of `x` itself, which
/// are also returned in `mean` and `variance` `[channels]`. `winners` are those of [`winners`], for the way back.
///
/// # Panics
/// If a slice has another length than its shape, or the window does not fit.
#[expect(clippy::too_many_arguments, reason = "a kernel's signature names every slice it reads and writes")]
pub fn forward_training(
    shape: &NormPoolShape,
    x: &[f32],
    gamma: &[f32],
    beta: &[f32],
    epsilon: f32,
    dropout: Dropout,
    winners: &mut [f32],
    y: &mut [f32],
    mean: &mut [f32],
    variance: &mut [f32],
) {
    statistics(&shape.norm(), x, mean, variance);
    self::winners(shape, x, gamma, winners);
    forward(shape, winners, &Norm { gamma, beta, mean, variance, epsilon }, dropout, y);
}

/// What wins each window of `x`, and will whatever the statistics: the norm keeps the order of a channel's numbers, or
/// turns it round where gamma is negative. There the winner is the smallest, and stands here with its sign changed. Where gamma
/// is zero any might win, and the largest does.
/// `winners` has a number for each of the output.
///
/// # Panics
/// If a slice has another length than its shape, or the window does not fit.
pub fn winners(shape: &NormPoolShape, x: &[f32], gamma: &[f32], winners: &mut [f32]) {
    shape.check();
    assert_eq!(x.len(), shape.input_len(), "length of x");
    assert_eq!(gamma.len(), shape.channels, "length of gamma");
    assert_eq!(winners.len(), shape.output_len(), "length of the winners");
    if winners.is_empty() {
        return;
    }
    let (set, signs) = (InstructionSet::best(), &signs(gamma)[..]);
    let (image, line) = (shape.image(), shape.pooled_width() * shape.channels);
    // A task is one row of windows of one image.
    share_chunks(winners, line, |task, winners| {
        let (index, row) = (task / shape.pooled_height(), task % shape.pooled_height());
        let from = index * image + row * shape.size * shape.line();
        set.run(Winners { shape, x: &x[from..][..shape.size * shape.line()], signs, winners });
    });
}

/// What the order of each channel's numbers is multiplied by.
pub(crate) fn signs(gamma: &[f32]) -> Scratch {
    let mut signs = Scratch::take(gamma.len());
    signs.iter_mut().zip(gamma).for_each(|(sign, &gamma)| *sign = if gamma < 0.0 { -1.0 } else { 1.0 });
    signs
}

/// The winners of one row of windows. The caller vouches for the lengths.
pub(crate) struct Winners<'a> {
    pub(crate) shape: &'a NormPoolShape,
    /// The `size` rows under the windows.
    pub(crate) x: &'a [f32],
    /// Of each channel.
    pub(crate) signs: &'a [f32],
    pub(crate) winners: &'a mut [f32],
}

impl Kernel for Winners<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let NormPoolShape { width, channels, size, .. } = *self.shape;
        assert!(self.x.len() >= size * width * channels && self.signs.len() == channels);
        assert_eq!(self.winners.len(), self.shape.pooled_width() * channels);
        for window in 0..self.shape.pooled_width() {
            for first in (0..channels).step_by(L::WIDTH) {
                // SAFETY: the window lies inside the `size` rows of `x`, each of `width` pixels of `channels` numbers; there
                // is a sign for each channel, and `winners` has a pixel for each window.
                unsafe {
                    let sign = L::load_within(self.signs.as_ptr(), first, channels);
                    let corner = self.x.as_ptr().add(window * size * channels);
                    let mut winner = L::load_within(corner, first, channels).mul(sign);
                    for i in 0..size {
                        for j in 0..size {
                            if i + j > 0 {
                                let pixel = corner.add((i * width + j) * channels);
                                winner = winner.larger(L::load_within(pixel, first, channels).mul(sign));
                            }
                        }
                    }
                    winner.store_within(self.winners.as_mut_ptr().add(window * channels), first, channels);
                }
            }
        }
    }
}

/// [`forward_training`] with given winners and statistics.
///
/// # Panics
/// As [`forward_training`].
pub fn forward(shape: &NormPoolShape, winners: &[f32], norm: &Norm, dropout: Dropout, y: &mut [f32]) {
    shape.check();
    assert_eq!(winners.len(), shape.output_len(), "length of the winners");
    assert_eq!(y.len(), shape.output_len(), "length of y");
    norm.check(shape.channels);
    if y.is_empty() {
        return;
    }
    let (signs, mut affine) = (signs(norm.gamma), norm.affine());
    // The winners have their signs already.
    affine.iter_mut().zip(&signs[..]).for_each(|(scale, sign)| *scale *= sign);
    let (set, mask, affine, channels) = (InstructionSet::best(), dropout.mask(), &affine[..], shape.channels);
    let task_len = shape.norm().task_rows() * channels;
    share_chunks(y, task_len, |task, y| {
        let first = task * task_len;
        let winners = &winners[first..][..y.len()];
        set.run(Forward { channels, winners, affine, mask, dropout, first, y });
    });
}

/// Some windows, forward. The caller vouches for the lengths.
struct Forward<'a> {
    channels: usize,
    winners: &'a [f32],
    /// Scales of the winners, then shifts.
    affine: &'a [f32],
    mask: Mask,
    dropout: Dropout,
    /// Number of the first output, for the mask.
    first: usize,
    y: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let channels = self.channels;
        assert!(self.affine.len() == 2 * channels && self.winners.len() == self.y.len());
        for place in (0..self.y.len() / channels).map(|window| window * channels) {
            for first in (0..channels).step_by(L::WIDTH) {
                // SAFETY: the map is two rows of `channels`, and so many numbers of both slices, which are equally long, lie
                // at `place`.
                unsafe {
                    let scale = L::load_within(self.affine.as_ptr(), first, channels);
                    let shift = L::load_within(self.affine.as_ptr().add(channels), first, channels);
                    let winner = L::load_within(self.winners.as_ptr().add(place), first, channels);
                    let mut value = winner.mul_add(scale, shift);
                    if self.dropout.rate > 0.0 {
                        value = value.mul(self.mask.factors(self.first + place + first));
                    }
                    value.store_within(self.y.as_mut_ptr().add(place), first, channels);
                }
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
