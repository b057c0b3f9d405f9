//! The gradient of the weights by Winograd's minimal filtering.
//!
//! In: inputs and gradients of outputs, part after part of the batch. Out: their sum over all tiles, `dG = B^T d B . A dY
//! A^T` at each point, and `G^T dG G` once at the end.

use rayon::prelude::*;

use super::{Layout, POINT_GAP, STAGE_TILES, TileRange, Tiling, pixels, transform_pixels};
use crate::convolution::transform::{Forward, MOST_TAPS, OfGradient, OfInput};
use crate::panel::PanelsProduct;
use crate::scratch::Scratch;
use crate::shared::Shared;
use crate::simd::{InstructionSet, Kernel, Lanes, PANEL};
use crate::sizes::elements;

/// Numbers of the transformed tiles that one round of the weight gradient works on: 6 MB, so that they stay in the
/// last-level cache.
const ROUND_NUMBERS: usize = 3 * 512 * 1024;

/// The gradient of the weights, summed up part by part of the batch.
pub(in crate::convolution) struct WeightSums<T> {
    set: InstructionSet,
    /// Of the part that was added last.
    tiling: Tiling,
    sums: Scratch,
    started: bool,
    transform: std::marker::PhantomData<T>,
}

impl<T: Forward> WeightSums<T> {
    pub(in crate::convolution) fn new(set: InstructionSet, tiling: &Tiling) -> Self {
        let sums = Scratch::take(elements([T::POINTS * T::POINTS, sum_stride(tiling)]));
        Self { set, tiling: *tiling, sums, started: false, transform: std::marker::PhantomData }
    }

    /// Adds what comes from `images` images: `x` is their input and `dy` the gradient of their outputs.
    pub(in crate::convolution) fn add(&mut self, images: usize, x: &[f32], dy: &[f32]) {
        self.tiling.batch = images;
        let (set, tiling) = (self.set, &self.tiling);
        assert_eq!(x.len(), elements([tiling.batch, tiling.in_channels, tiling.in_height, tiling.in_width]));
        assert_eq!(dy.len(), elements([tiling.batch, tiling.out_channels, tiling.out_height, tiling.out_width]));
        let points = T::POINTS * T::POINTS;
        let (padded_in, padded_out) = (tiling.padded_in(), tiling.padded_out());
        let tiles = tiling.tiles::<T>();
        let most = (ROUND_NUMBERS / (points * (padded_in + padded_out))).clamp(32, 512);
        let per_round = tiles.div_ceil(tiles.div_ceil(most).max(1)).next_multiple_of(STAGE_TILES);
        // One panel holds PANEL channels of every tile of a round.
        let panel = per_round * PANEL + POINT_GAP;
        let (in_stride, out_stride) = (padded_in / PANEL * panel + POINT_GAP, padded_out / PANEL * panel + POINT_GAP);
        let sum_stride = sum_stride(tiling);
        let mut buffer = Scratch::take(points * (in_stride + out_stride));
        let (points_in, points_out) = buffer.split_at_mut(points * in_stride);
        let (points_in, points_out) = (Shared::new(points_in), Shared::new(points_out));
        let zeros = Scratch::zeros(padded_in.max(padded_out));
        let zeros: &[f32] = &zeros;
        let sums = Shared::new(&mut self.sums);
        for first in (0..tiles).step_by(per_round) {
            let count = per_round.min(tiles - first);
            (0..count.div_ceil(STAGE_TILES)).into_par_iter().for_each(|task| {
                let position = task * STAGE_TILES;
                let range = TileRange { first: first + position, count: STAGE_TILES.min(count - position), position };
                let stage = GradientStage::<T> {
                    tiling: *tiling,
                    range,
                    panel,
                    in_stride,
                    out_stride,
                    x,
                    dy,
                    zeros,
                    points_in,
                    points_out,
                    transform: std::marker::PhantomData,
                };
                set.run(stage);
            });
            let started = self.started;
            (0..points).into_par_iter().for_each(|point| {
                // SAFETY: `count` lines of each panel of this point were just written; the sums of a point are padded_in
                // x padded_out numbers, and only this task touches them.
                unsafe {
                    set.run(PanelsProduct::new(
                        count,
                        points_in.at(point * in_stride),
                        panel,
                        padded_in / PANEL,
                        points_out.at(point * out_stride),
                        panel,
                        padded_out / PANEL,
                        sums.at(point * sum_stride),
                        started,
                    ));
                }
            });
            self.started = true;
        }
    }

    /// The gradient `[r, r, in, out]`, overwritten.
    pub(in crate::convolution) fn finish(&self, dweight: &mut [f32]) {
        let tiling = &self.tiling;
        assert_eq!(dweight.len(), elements([T::TAPS * T::TAPS, tiling.in_channels, tiling.out_channels]));
        if !self.started {
            dweight.fill(0.0);
            return;
        }
        let (dweight, sums, sum_stride) = (Shared::new(dweight), &self.sums[..], sum_stride(tiling));
        let per_task = 8;
        (0..tiling.in_channels.div_ceil(per_task)).into_par_iter().for_each(|task| {
            let first = task * per_task;
            let inputs = first..tiling.in_channels.min(first + per_task);
            let transform = std::marker::PhantomData;
            self.set.run(WeightStage::<T> { tiling: *tiling, inputs, sum_stride, sums, dweight, transform });
        });
    }
}

/// Numbers from one point's sums to the next's.
fn sum_stride(tiling: &Tiling) -> usize {
    elements([tiling.padded_in(), tiling.padded_out()]) + POINT_GAP
}

/// Transforms inputs and gradients of some tiles into panels, `[point][channels / PANEL][tile][PANEL]`.
struct GradientStage<'a, T> {
    tiling: Tiling,
    range: TileRange,
    panel: usize,
    in_stride: usize,
    out_stride: usize,
    x: &'a [f32],
    dy: &'a [f32],
    zeros: &'a [f32],
    points_in: Shared<'a>,
    points_out: Shared<'a>,
    transform: std::marker::PhantomData<T>,
}

impl<T: Forward> Kernel for GradientStage<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self { tiling, panel, in_stride, out_stride, .. } = self;
        let zeros = self.zeros.as_ptr();
        for index in 0..self.range.count {
            let (image, y, x) = tiling.input::<T>(self.range.first + index);
            let (_, row, column) = tiling.output::<T>(self.range.first + index);
            let position = (self.range.position + index) * PANEL;
            let (to_in, to_out) = (self.points_in.at(position), self.points_out.at(position));
            // SAFETY: the images are inside `x` and `dy` (lengths checked in `add`), `zeros` holds a row
            // of channels; each panel of each point has a line for this tile, which is this task's own, and panels
            // hold all channels rounded up to whole vectors.
            unsafe {
                let (height, width, channels) = (tiling.in_height, tiling.in_width, tiling.in_channels);
                let picture = self.x.as_ptr().add(image * height * width * channels);
                let addresses = pixels(picture, height, width, channels, y, x, T::INPUTS, zeros);
                let layout = Layout { to: to_in, point: in_stride, panel };
                transform_pixels::<OfInput<T>, L>(&addresses, channels, layout);
                fill_panel::<L>(to_in, T::POINTS * T::POINTS, in_stride, panel, channels);
                let (height, width, channels) = (tiling.out_height, tiling.out_width, tiling.out_channels);
                let picture = self.dy.as_ptr().add(image * height * width * channels);
                let addresses =
                    pixels(picture, height, width, channels, row as isize, column as isize, T::OUTPUTS, zeros);
                let layout = Layout { to: to_out, point: out_stride, panel };
                transform_pixels::<OfGradient<T>, L>(&addresses, channels, layout);
                fill_panel::<L>(to_out, T::POINTS * T::POINTS, out_stride, panel, channels);
            }
        }
    }
}

/// Zeros the second half of a tile's line in the last panel where the channels end in its first half.
///
/// # Safety
/// `to` is the tile's line in the first panel of the first point.
#[inline(always)]
unsafe fn fill_panel<L: Lanes>(to: *mut f32, points: usize, stride: usize, panel: usize, channels: usize) {
    let written = channels.next_multiple_of(L::WIDTH);
    if written.is_multiple_of(PANEL) {
        return;
    }
    for point in 0..points {
        // SAFETY: whole vectors of the last panel, which goes on to the next multiple of PANEL.
        unsafe { L::splat(0.0).store(to.add(point * stride + written / PANEL * panel + written % PANEL)) }
    }
}

/// `G^T s G` of the sums of some input channels.
struct WeightStage<'a, T> {
    tiling: Tiling,
    inputs: std::ops::Range<usize>,
    sum_stride: usize,
    sums: &'a [f32],
    dweight: Shared<'a>,
    transform: std::marker::PhantomData<T>,
}

impl<T: Forward> Kernel for WeightStage<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let (inputs, outputs) = (self.tiling.in_channels, self.tiling.out_channels);
        let padded_out = self.tiling.padded_out();
        for input in self.inputs {
            for first in (0..outputs).step_by(L::WIDTH) {
                let mut lines = [[L::splat(0.0); 8]; MOST_TAPS]; // G^T s: [row of the kernel][point]
                for j in 0..T::POINTS {
                    for i in 0..T::POINTS {
                        let place = (i * T::POINTS + j) * self.sum_stride + input * padded_out + first;
                        // SAFETY: the sums of a point are rows of `padded_out` numbers, whole vectors.
                        let sum = unsafe { L::load(self.sums.as_ptr().add(place)) };
                        for (row, line) in lines.iter_mut().enumerate() {
                            if T::WEIGHTS[i][row] != 0.0 {
                                line[j] = sum.scaled(T::WEIGHTS[i][row], line[j]);
                            }
                        }
                    }
                }
                for (row, line) in lines.iter().enumerate().take(T::TAPS) {
                    for column in 0..T::TAPS {
                        let mut value = L::splat(0.0);
                        for j in 0..T::POINTS {
                            if T::WEIGHTS[j][column] != 0.0 {
                                value = line[j].scaled(T::WEIGHTS[j][column], value);
                            }
                        }
                        // SAFETY: a row of `outputs` numbers of the gradient (length checked in `finish`);
                        // each input channel belongs to one task.
                        unsafe {
                            let to = self.dweight.at(((row * T::TAPS + column) * inputs + input) * outputs);
                            value.store_within(to, first, outputs);
                        }
                    }
                }
            }
        }
    }
}
