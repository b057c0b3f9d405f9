//! Direct convolutions of pictures with one channel: the first layer.
//!
//! In and out: those of `direct::Band`, for square kernels of three and of five with stride 1. Neighbouring outputs see
//! almost the same pixels. So a few of them are made at once, of one vector of channels: each pixel under them is spread over the
//! lanes once, and goes to all of them; the weights of a kernel of three stay in registers meanwhile.

use super::direct::Band;
use crate::simd::{Kernel, Lanes, PANEL};

/// Outputs of a row that are made at once, where nothing is pooled.
const RUN: usize = 4;

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
        let Self(band) = &self;
        // SAFETY: under each output lie `kernel` runs of as many pixels, a row stride apart (the band's promise); the weights
        // hold a line for each, of whole panels, and the targets are this task's own (`Correlation::check`). Where
        // outputs are pooled, rows and columns are even.
        unsafe {
            match band.correlation.kernel_height {
                3 => outputs::<L, 3, 9>(band),
                _ => outputs::<L, 5, 25>(band),
            }
        }
    }
}

/// All outputs of a band.
///
/// # Safety
/// Under each output of the band lie `KERNEL` runs of as many pixels, a row stride apart; the weights hold a line of whole panels for each
/// of the `TAPS` pixels; nobody else touches the outputs; and where they are pooled, rows and columns are even.
#[inline(always)]
unsafe fn outputs<L: Lanes, const KERNEL: usize, const TAPS: usize>(band: &Band) {
    let correlation = band.correlation;
    let (finish, channels, stride) = (correlation.finish, correlation.channels, band.row_stride);
    let target = band.image * correlation.target_image + correlation.target_start;
    let side = if finish.pool { 2 } else { 1 };
    for row in (0..band.rows).step_by(side) {
        let target = target + (band.first + row) / side * correlation.target_row;
        for channel in (0..channels).step_by(L::WIDTH) {
            let lines = correlation.weights[channel / PANEL * TAPS * PANEL..].as_ptr();
            let mut weights = [L::splat(0.0); TAPS];
            for (tap, weight) in weights.iter_mut().enumerate() {
                // SAFETY: by this function's contract.
                *weight = unsafe { L::load(lines.add(tap * PANEL + channel % PANEL)) };
            }
            let [bias] = correlation.bias::<L, 1>(channel);
            let to = Destination { band, floor: L::splat(if finish.relu { 0.0 } else { f32::NEG_INFINITY }), channel };
            let mut column = 0;
            while column < correlation.columns {
                let source = band.source(row).wrapping_add(column);
                let target = target + column / side * correlation.target_column;
                // SAFETY: by this function's contract.
                unsafe {
                    if finish.pool {
                        let [[a, b], [c, d]] = sums::<L, KERNEL, TAPS, 2, 2>(&weights, bias, source, stride);
                        to.write(a.larger(b).larger(c.larger(d)), target);
                        column += 2;
                    } else if column + RUN <= correlation.columns {
                        let [sums] = sums::<L, KERNEL, TAPS, 1, RUN>(&weights, bias, source, stride);
                        for (index, sum) in sums.into_iter().enumerate() {
                            to.write(sum, target + index * correlation.target_column);
                        }
                        column += RUN;
                    } else {
                        let [[sum]] = sums::<L, KERNEL, TAPS, 1, 1>(&weights, bias, source, stride);
                        to.write(sum, target);
                        column += 1;
                    }
                }
            }
        }
    }
}

/// Where the outputs of one vector of channels go.
struct Destination<'a, L> {
    band: &'a Band<'a>,
    floor: L,
    channel: usize,
}

impl<L: Lanes> Destination<'_, L> {
    /// # Safety
    /// An output of the band lies at `place`.
    #[inline(always)]
    unsafe fn write(&self, value: L, place: usize) {
        let to = self.band.target.at(place);
        // SAFETY: by this function's contract.
        unsafe { value.at_least(self.floor).store_within(to, self.channel, self.band.correlation.channels) }
    }
}

/// Sums over the kernel for neighbouring outputs, each in the order of the kernel's taps.
///
/// # Safety
/// `KERNEL - 1` more rows and columns of pixels than outputs can be read from `source` on, rows a `row_stride` apart.
#[inline(always)]
pub(crate) unsafe fn sums<L: Lanes, const KERNEL: usize, const TAPS: usize, const ROWS: usize, const COLUMNS: usize>(
    weights: &[L; TAPS],
    bias: L,
    source: *const f32,
    row_stride: usize,
) -> [[L; COLUMNS]; ROWS] {
    const { assert!(TAPS == KERNEL * KERNEL) }
    let mut sums = [[bias; COLUMNS]; ROWS];
    for i in 0..ROWS + KERNEL - 1 {
        for j in 0..COLUMNS + KERNEL - 1 {
            // SAFETY: by this function's contract.
            let value = L::splat(unsafe { *source.add(i * row_stride + j) });
            for (row, sums) in sums.iter_mut().enumerate() {
                for (column, sum) in sums.iter_mut().enumerate() {
                    let (tap_row, tap_column) = (i.wrapping_sub(row), j.wrapping_sub(column));
                    if tap_row < KERNEL && tap_column < KERNEL {
                        *sum = value.mul_add(weights[tap_row * KERNEL + tap_column], *sum);
                    }
                }
            }
        }
    }
    sums
}
