//! A first layer of one channel in front of pooling: its convolution and what follows, window by window, both ways.
//!
//! In: the pixels under one row of windows of 2 x 2 outputs of a 3 x 3 kernel. Out: winners and sums for the statistics, or
//! sums of gradients. The four outputs of a window stay in registers from the first product to the last use; of what is made of
//! them only their gradients pass through the first-level cache. The outputs are the numbers of [`crate::convolution`].

use super::{Block, Filters, Tail};
use crate::convolution::{Frame, grey_sums};
use crate::norm_pool::WindowRow;
use crate::simd::{Kernel, Lanes};

/// Rows and columns of the kernel.
const KERNEL: usize = 3;
const TAPS: usize = KERNEL * KERNEL;
/// Windows whose gradients wait in the first-level cache for all their products with pixels: registers do not hold those sums and the
/// weights at once.
const AT_ONCE: usize = 16;

/// The outputs of a band, and what they are made of: rows of windows, and what none covers.
pub(super) struct GreyWindows<'a> {
    /// Under the band.
    pub(super) frame: &'a Frame<'a>,
    /// Of the band.
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// `[3, 3, channels]`.
    pub(super) weight: &'a [f32],
    pub(super) bias: Option<&'a [f32]>,
    /// Whether the outputs are those of a ReLU.
    pub(super) relu: bool,
    pub(super) channels: usize,
}

/// The convolution for one vector of channels.
struct Outputs<L> {
    weights: [L; TAPS],
    bias: L,
    floor: L,
    pixels: *const f32,
    row_stride: usize,
}

impl<L: Lanes> Outputs<L> {
    /// `ROWS` rows and `COLUMNS` columns of outputs.
    ///
    /// # Safety
    /// They are among those of the windows that this was made by.
    #[inline(always)]
    unsafe fn at<const ROWS: usize, const COLUMNS: usize>(&self, row: usize, column: usize) -> [[L; COLUMNS]; ROWS] {
        // SAFETY: under each output lie three rows of three pixels.
        let mut outputs = unsafe {
            let pixels = self.pixels.add(row * self.row_stride + column);
            grey_sums::<L, KERNEL, TAPS, ROWS, COLUMNS>(&self.weights, self.bias, pixels, self.row_stride)
        };
        for output in outputs.as_flattened_mut() {
            *output = output.at_least(self.floor);
        }
        outputs
    }

    /// Adds what a gradient of these outputs gives the weights.
    ///
    /// # Safety
    /// As for [`Outputs::at`].
    #[inline(always)]
    unsafe fn add_gradient<const ROWS: usize, const COLUMNS: usize>(
        &self,
        row: usize,
        column: usize,
        gradient: &[[L; COLUMNS]; ROWS],
        dweight: &mut [L; TAPS],
    ) {
        for i in 0..ROWS + KERNEL - 1 {
            for j in 0..COLUMNS + KERNEL - 1 {
                // SAFETY: as above.
                let value = L::splat(unsafe { *self.pixels.add((row + i) * self.row_stride + column + j) });
                for (row, gradient) in gradient.iter().enumerate() {
                    for (column, gradient) in gradient.iter().enumerate() {
                        let (tap_row, tap_column) = (i.wrapping_sub(row), j.wrapping_sub(column));
                        if tap_row < KERNEL && tap_column < KERNEL {
                            let sum = &mut dweight[tap_row * KERNEL + tap_column];
                            *sum = value.mul_add(*gradient, *sum);
                        }
                    }
                }
            }
        }
    }
}

impl GreyWindows<'_> {
    /// Whether a block is made of such windows.
    pub(super) fn can(block: &Block) -> bool {
        let Filters::Dense(shape) = block.filters else { return false };
        matches!(block.tail, Tail::Pooled { size: 2, .. })
            && (shape.kernel_height, shape.kernel_width) == (KERNEL, KERNEL)
            && (shape.in_channels, shape.stride) == (1, 1)
    }

    fn check(&self) {
        let (rows, columns) = (self.rows + KERNEL - 1, self.columns + KERNEL - 1);
        assert!(self.rows >= 2 && self.columns >= 2 && columns <= self.frame.row_stride);
        assert!(self.frame.pixels().len() >= (rows - 1) * self.frame.row_stride + columns);
        assert_eq!(self.weight.len(), TAPS * self.channels);
        assert!(self.bias.is_none_or(|bias| bias.len() == self.channels));
    }

    /// Windows of the row.
    fn count(&self) -> usize {
        self.columns / 2
    }

    /// The convolution for the channels from `first` on.
    ///
    /// # Safety
    /// `first` is a channel, and [`GreyWindows::check`] has passed.
    #[inline(always)]
    unsafe fn outputs<L: Lanes>(&self, first: usize) -> Outputs<L> {
        // SAFETY: each tap has a number for each channel, and so has the bias.
        unsafe {
            let mut weights = [L::splat(0.0); TAPS];
            for (tap, weights) in weights.iter_mut().enumerate() {
                *weights = L::load_within(self.weight.as_ptr().add(tap * self.channels), first, self.channels);
            }
            Outputs {
                weights,
                bias: self.bias.map_or(L::splat(0.0), |bias| L::load_within(bias.as_ptr(), first, self.channels)),
                floor: L::splat(if self.relu { 0.0 } else { f32::NEG_INFINITY }),
                pixels: self.frame.pixels().as_ptr(),
                row_stride: self.frame.row_stride,
            }
        }
    }

    /// The outputs that no window covers.
    #[inline(always)]
    fn uncovered(&self) -> impl Iterator<Item = (usize, usize)> {
        let (windows, columns) = (self.count(), self.columns);
        (0..self.rows).flat_map(move |row| {
            let start = if row < 2 { windows * 2 } else { 0 };
            (start..columns).map(move |column| (row, column))
        })
    }
}

/// Winners, and sums for the statistics.
pub(super) struct GreyForward<'a> {
    pub(super) windows: GreyWindows<'a>,
    /// Of each channel.
    pub(super) signs: &'a [f32],
    /// `[windows, channels]`, overwritten.
    pub(super) winners: &'a mut [f32],
    /// As those of [`crate::batch_norm::Sums`], `[3, channels]`, overwritten; what they are counted around is the mean of the window in
    /// the middle of the row, far from its ends.
    pub(super) sums: &'a mut [f32],
}

/// Sums of the differences from a value near the mean, and of their squares.
struct Differences<L> {
    near: L,
    sum: L,
    squares: L,
}

impl<L: Lanes> Differences<L> {
    #[inline(always)]
    fn count(&mut self, value: L) {
        let value = value.sub(self.near);
        self.sum = self.sum.add(value);
        self.squares = value.mul_add(value, self.squares);
    }
}

impl Kernel for GreyForward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self { windows, signs, winners, sums } = self;
        let channels = windows.channels;
        windows.check();
        assert!(signs.len() == channels && sums.len() == 3 * channels);
        assert_eq!(winners.len(), windows.count() * channels);
        let (winners, all_sums) = (winners.as_mut_ptr(), sums.as_mut_ptr());
        for first in (0..channels).step_by(L::WIDTH) {
            // SAFETY: channels, windows and outputs are those of the band, and the slices have room for them, as asserted.
            unsafe {
                let outputs = windows.outputs::<L>(first);
                let sign = L::load_within(signs.as_ptr(), first, channels);
                let [[a, b], [c, d]] = outputs.at::<2, 2>(0, windows.count() / 2 * 2);
                let near = a.add(b).add(c.add(d)).times(0.25);
                let mut sums = Differences { near, sum: L::splat(0.0), squares: L::splat(0.0) };
                for window in 0..windows.count() {
                    let [[a, b], [c, d]] = outputs.at::<2, 2>(0, 2 * window);
                    for value in [a, b, c, d] {
                        sums.count(value);
                    }
                    let (upper, lower) = (a.mul(sign).larger(b.mul(sign)), c.mul(sign).larger(d.mul(sign)));
                    upper.larger(lower).store_within(winners.add(window * channels), first, channels);
                }
                for (row, column) in windows.uncovered() {
                    let [[value]] = outputs.at::<1, 1>(row, column);
                    sums.count(value);
                }
                for (kind, value) in [near, sums.sum, sums.squares].into_iter().enumerate() {
                    value.store_within(all_sums.add(kind * channels), first, channels);
                }
            }
        }
    }
}

/// Gradients of the weights and of the bias.
pub(super) struct GreyBackward<'a> {
    pub(super) windows: GreyWindows<'a>,
    pub(super) row: WindowRow<'a>,
    /// `[3, 3, padded channels]`, added to.
    pub(super) dweight: &'a mut [f32],
    /// Of the bias, `[channels]`, added to.
    pub(super) dbias: &'a mut [f32],
}

impl Kernel for GreyBackward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self { windows, row, dweight, dbias } = self;
        let (channels, padded) = (windows.channels, dweight.len() / TAPS);
        windows.check();
        row.check(windows.count(), channels);
        assert!(padded >= channels && dbias.len() == channels);
        let (to, dbias) = (dweight.as_mut_ptr(), dbias.as_mut_ptr());
        for first in (0..channels).step_by(L::WIDTH) {
            // SAFETY: channels, windows and outputs are those of the band, and the slices have room for them, as asserted.
            unsafe {
                let outputs = windows.outputs::<L>(first);
                let terms = row.terms::<L>(first);
                let (mut dweight, mut sum) = ([L::splat(0.0); TAPS], L::splat(0.0));
                let mut gradients = [[[L::splat(0.0); 2]; 2]; AT_ONCE];
                for start in (0..windows.count()).step_by(AT_ONCE) {
                    let count = AT_ONCE.min(windows.count() - start);
                    for (index, gradients) in gradients.iter_mut().enumerate().take(count) {
                        let window = start + index;
                        row.prefetch::<L>(window, first);
                        let (winner, mut left) = row.at(window, first, &terms);
                        *gradients = outputs.at::<2, 2>(0, 2 * window);
                        for value in gradients.as_flattened_mut() {
                            *value = terms.gradient_in_window(*value, winner, &mut left, windows.relu);
                            sum = sum.add(*value);
                        }
                    }
                    for (index, gradients) in gradients.iter().enumerate().take(count) {
                        outputs.add_gradient(0, 2 * (start + index), gradients, &mut dweight);
                    }
                }
                for (row, column) in windows.uncovered() {
                    let [[value]] = outputs.at::<1, 1>(row, column);
                    let gradient = terms.gradient(value, L::splat(0.0), windows.relu);
                    sum = sum.add(gradient);
                    outputs.add_gradient(row, column, &[[gradient]], &mut dweight);
                }
                for (tap, value) in dweight.into_iter().enumerate() {
                    let to = to.add(tap * padded);
                    value.add(L::load_within(to, first, channels)).store_within(to, first, channels);
                }
                sum.add(L::load_within(dbias, first, channels)).store_within(dbias, first, channels);
            }
        }
    }
}
