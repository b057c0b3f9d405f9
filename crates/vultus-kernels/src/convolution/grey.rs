//! Direct convolutions of pictures with one channel: the first layer.
//!
//! In and out: those of `direct::Band`, for square kernels of three and of five with stride 1. Neighbouring outputs of a
//! row see neighbouring pixels, so that one address and distances known to the compiler replace an address for each
//! output; otherwise as many instructions would go into addresses as into the nine products.

use super::direct::Band;
use crate::panel::with_rows;
use crate::shared::Shared;
use crate::simd::{Kernel, Lanes, PANEL};

/// A band of a convolution with one input channel, of a kernel of 3 x 3 or 5 x 5 with stride 1 and without residual.
pub(super) struct GreyBand<'a>(pub(super) Band<'a>);

impl GreyBand<'_> {
    /// Whether a kernel is one of those.
    pub(super) fn can(height: usize, width: usize, channels: usize, stride: usize) -> bool {
        channels == 1 && stride == 1 && height == width && matches!(height, 3 | 5)
    }
}

impl Kernel for GreyBand<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self(band) = self;
        let correlation = band.correlation;
        let (finish, channels, kernel) = (correlation.finish, correlation.channels, correlation.kernel_height);
        let side = if finish.pool { 2 } else { 1 };
        let target = band.image * correlation.target_image + correlation.target_start;
        let (rows, columns) = (band.rows / side * side, correlation.columns / side * side);
        for row in (0..rows).step_by(side) {
            let source = band.source(row);
            let target = target + (band.first + row) / side * correlation.target_row;
            for panel in 0..channels.div_ceil(PANEL) {
                let channel = panel * PANEL;
                let tile = Tile {
                    row_stride: band.row_stride,
                    weights: correlation.weights[panel * kernel * kernel * PANEL..].as_ptr(),
                    bias: correlation.bias::<L, 2>(channel),
                    floor: L::splat(if finish.relu { 0.0 } else { f32::NEG_INFINITY }),
                    pool: finish.pool,
                    channel,
                    channels,
                    target_column: correlation.target_column,
                    target: band.target,
                };
                let mut column = 0;
                while column < columns {
                    let count = (L::TILE_ROWS / side * side).min(columns - column);
                    let (source, target) = (source.wrapping_add(column), target + column / side * tile.target_column);
                    // SAFETY: under each output lie `kernel` runs of as many pixels, a row stride apart (the band's
                    // promise), for both rows where they are pooled; the panel holds a line for each; the targets are
                    // this task's own (`Correlation::check`). Where outputs are pooled, their number is even.
                    unsafe {
                        if kernel == 3 {
                            with_rows!(count, outputs::<L, 3>(&tile, source, target));
                        } else {
                            with_rows!(count, outputs::<L, 5>(&tile, source, target));
                        }
                    }
                    column += count;
                }
            }
        }
    }
}

/// What all tiles of one panel of channels share.
struct Tile<'a, L> {
    row_stride: usize,
    weights: *const f32,
    bias: [L; 2],
    floor: L,
    pool: bool,
    channel: usize,
    channels: usize,
    target_column: usize,
    target: Shared<'a>,
}

/// `COUNT` neighbouring outputs of a row, or the pooled ones of two rows.
///
/// # Safety
/// As for [`sums_of`], for two rows where they are pooled, and then `COUNT` is even; the targets from `target` on, a
/// `target_column` apart, have the tile's channels, and nobody else touches them.
#[inline(always)]
unsafe fn outputs<L: Lanes, const COUNT: usize, const KERNEL: usize>(
    tile: &Tile<L>,
    source: *const f32,
    target: usize,
) {
    // SAFETY: by this function's contract.
    unsafe {
        let mut sums = sums_of::<L, COUNT, KERNEL>(tile, source);
        let mut count = COUNT;
        if tile.pool {
            let lower = sums_of::<L, COUNT, KERNEL>(tile, source.add(tile.row_stride));
            count = COUNT / 2;
            for window in 0..count {
                for v in 0..L::VECTORS {
                    let (a, b) = (sums[2 * window][v], sums[2 * window + 1][v]);
                    let (c, d) = (lower[2 * window][v], lower[2 * window + 1][v]);
                    sums[window][v] = a.larger(b).larger(c.larger(d));
                }
            }
        }
        for (index, sums) in sums.iter().enumerate().take(count) {
            for (v, sum) in sums.iter().enumerate().take(L::VECTORS) {
                let channel = tile.channel + v * L::WIDTH;
                if channel < tile.channels {
                    let to = tile.target.at(target + index * tile.target_column);
                    sum.at_least(tile.floor).store_within(to, channel, tile.channels);
                }
            }
        }
    }
}

/// Sums over the kernel for `COUNT` neighbouring outputs.
///
/// # Safety
/// `KERNEL` runs of `COUNT + KERNEL - 1` pixels can be read from `source` on, a row stride apart, and the weights are as
/// many lines of a panel as the kernel has taps.
#[inline(always)]
unsafe fn sums_of<L: Lanes, const COUNT: usize, const KERNEL: usize>(
    tile: &Tile<L>,
    source: *const f32,
) -> [[L; 2]; COUNT] {
    let mut sums = [tile.bias; COUNT];
    // SAFETY: by this function's contract.
    unsafe {
        for i in 0..KERNEL {
            let line = source.add(i * tile.row_stride);
            for j in 0..KERNEL {
                let weights = tile.weights.add((i * KERNEL + j) * PANEL);
                let first = L::load(weights);
                let second = if L::VECTORS == 2 { L::load(weights.add(L::WIDTH)) } else { first };
                for (index, sums) in sums.iter_mut().enumerate() {
                    let value = L::splat(*line.add(index + j));
                    sums[0] = value.mul_add(first, sums[0]);
                    if L::VECTORS == 2 {
                        sums[1] = value.mul_add(second, sums[1]);
                    }
                }
            }
        }
    }
    sums
}
