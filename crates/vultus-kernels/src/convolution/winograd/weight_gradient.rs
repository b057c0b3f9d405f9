//! The gradient of the weights by Winograd's minimal filtering.
//!
//! In: inputs and gradients of outputs, part after part of the batch. Out: their sum over all tiles, `dG = B^T d B . A dY
//! A^T` at each point, and `G^T dG G` once at the end.

use std::ops::Range;

use super::tile::{Layout, pixels, transform_pixels};
use super::{POINT_GAP, STAGE_TILES, TileRange, Tiling};
use crate::convolution::WeightSums;
use crate::convolution::transform::{Forward, MOST_TAPS, OfGradient, OfInput};
use crate::panel::PanelsProduct;
use crate::scratch::Scratch;
use crate::shared::Shared;
use crate::simd::{InstructionSet, Kernel, Lanes, PANEL};
use crate::sizes::elements;
use crate::threads::{share, share_items};

/// Numbers of the transformed tiles that one round of the weight gradient works on, of all groups: 6 MB, so that they stay in
/// the last-level cache, unless their sums are more.
const ROUND_NUMBERS: usize = 3 * 512 * 1024;
/// Groups of tiles with sums of their own where there are many tiles for each sum.
const GROUPS: usize = 2;
/// Most sums of a point for groups, for each number of a round's tiles.
const MOST_SUMS: usize = 2;

/// The gradient of the weights, summed up part by part of the batch.
pub(in crate::convolution) struct WinogradSums<T> {
    set: InstructionSet,
    /// Of the part that was added last.
    tiling: Tiling,
    groups: Vec<Group<T>>,
}

/// The sums of a part of the tiles. What one core transforms another would have to fetch from it, which may take longer than to
/// multiply it: groups share nothing, and each of two stays with one of two cores.
struct Group<T> {
    sums: Scratch,
    started: bool,
    transform: std::marker::PhantomData<T>,
}

impl<T: Forward> WinogradSums<T> {
    pub(in crate::convolution) fn new(set: InstructionSet, tiling: &Tiling) -> Self {
        let (inputs, outputs) = (tiling.padded_in(), tiling.padded_out());
        // A round reads and writes its tiles and the sums once: where these are many, one group reads them less often.
        let tiles = round_tiles::<T>(tiling, GROUPS).min(tiling.tiles::<T>() / GROUPS);
        let many = MOST_SUMS * tiles * (inputs + outputs) >= inputs * outputs;
        let group = || Group {
            sums: Scratch::take(elements([T::POINTS * T::POINTS, sum_stride(tiling)])),
            started: false,
            transform: std::marker::PhantomData,
        };
        Self { set, tiling: *tiling, groups: (0..if many { GROUPS } else { 1 }).map(|_| group()).collect() }
    }
}

impl<T: Forward> WeightSums for WinogradSums<T> {
    fn add(&mut self, images: usize, x: &[f32], dy: &[f32]) {
        self.tiling.batch = images;
        let (set, tiling) = (self.set, &self.tiling);
        assert_eq!(x.len(), elements([tiling.batch, tiling.in_channels, tiling.in_height, tiling.in_width]));
        assert_eq!(dy.len(), elements([tiling.batch, tiling.out_channels, tiling.out_height, tiling.out_width]));
        let zeros = Scratch::zeros(tiling.padded_in().max(tiling.padded_out()));
        let zeros: &[f32] = &zeros;
        let (tiles, groups) = (tiling.tiles::<T>(), self.groups.len());
        let each = tiles.div_ceil(groups);
        let most = round_tiles::<T>(tiling, groups);
        share_items(self.groups.iter_mut(), |index, group| {
            let tiles = (index * each).min(tiles)..((index + 1) * each).min(tiles);
            group.add(set, tiling, tiles, most, x, dy, zeros);
        });
    }

    fn finish(&self, dweight: &mut [f32]) {
        let tiling = &self.tiling;
        assert_eq!(dweight.len(), elements([T::TAPS * T::TAPS, tiling.in_channels, tiling.out_channels]));
        let sums: Vec<&[f32]> = self.groups.iter().filter(|group| group.started).map(|group| &group.sums[..]).collect();
        let (dweight, sums, sum_stride) = (Shared::new(dweight), &sums[..], sum_stride(tiling));
        let per_task = 8;
        share(tiling.in_channels.div_ceil(per_task), |task| {
            let first = task * per_task;
            let inputs = first..tiling.in_channels.min(first + per_task);
            let transform = std::marker::PhantomData;
            self.set.run(WeightStage::<T> { tiling: *tiling, inputs, sum_stride, sums, dweight, transform });
        });
    }
}

impl<T: Forward> Group<T> {
    /// Adds what comes from some tiles, in rounds of about `most`.
    #[expect(clippy::too_many_arguments, reason = "what the groups of one call share, and the tiles of one of them")]
    fn add(
        &mut self,
        set: InstructionSet,
        tiling: &Tiling,
        tiles: Range<usize>,
        most: usize,
        x: &[f32],
        dy: &[f32],
        zeros: &[f32],
    ) {
        let points = T::POINTS * T::POINTS;
        let (padded_in, padded_out) = (tiling.padded_in(), tiling.padded_out());
        let per_round = tiles.len().div_ceil(tiles.len().div_ceil(most).max(1)).next_multiple_of(STAGE_TILES);
        // One panel holds PANEL channels of every tile of a round.
        let panel = per_round * PANEL + POINT_GAP;
        let (in_stride, out_stride) = (padded_in / PANEL * panel + POINT_GAP, padded_out / PANEL * panel + POINT_GAP);
        let sum_stride = sum_stride(tiling);
        let mut buffer = Scratch::take(points * (in_stride + out_stride));
        let (points_in, points_out) = buffer.split_at_mut(points * in_stride);
        let (points_in, points_out) = (Shared::new(points_in), Shared::new(points_out));
        let sums = Shared::new(&mut self.sums);
        for first in tiles.clone().step_by(per_round.max(1)) {
            let count = per_round.min(tiles.end - first);
            share(count.div_ceil(STAGE_TILES), |task| {
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
            share(points, |point| {
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
}

/// Tiles of one round of each group; of an only one so many that a round brings as many numbers as there are sums, which it reads and
/// writes, if that is no more than 512.
fn round_tiles<T: Forward>(tiling: &Tiling, groups: usize) -> usize {
    let numbers = T::POINTS * T::POINTS * (tiling.padded_in() + tiling.padded_out());
    let (inputs, outputs) = (tiling.padded_in(), tiling.padded_out());
    let for_sums = if groups == 1 { inputs * outputs / (inputs + outputs) } else { 0 };
    (ROUND_NUMBERS / groups / numbers).max(for_sums).clamp(32, 512)
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
            // SAFETY: the images are inside `x` and `dy` (lengths checked in `WinogradSums::add`), `zeros` holds a row
            // of channels; each panel of each point has a line for this tile, which is this task's own, and panels
            // hold all channels rounded up to whole vectors.
            unsafe {
                let (height, width, channels) = (tiling.in_height, tiling.in_width, tiling.in_channels);
                let picture = self.x.as_ptr().add(image * height * width * channels);
                let addresses = pixels(picture, height, width, channels, y, x, T::INPUTS, zeros);
                let layout = Layout { to: to_in, point: in_stride, panel, tile: PANEL };
                transform_pixels::<OfInput<T>, L>(&addresses, channels, layout);
                fill_panel::<L>(to_in, T::POINTS * T::POINTS, in_stride, panel, channels);
                let (height, width, channels) = (tiling.out_height, tiling.out_width, tiling.out_channels);
                let picture = self.dy.as_ptr().add(image * height * width * channels);
                let addresses =
                    pixels(picture, height, width, channels, row as isize, column as isize, T::OUTPUTS, zeros);
                let layout = Layout { to: to_out, point: out_stride, panel, tile: PANEL };
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

/// `G^T s G` of the sums of some input channels, over all groups.
struct WeightStage<'a, T> {
    tiling: Tiling,
    inputs: Range<usize>,
    sum_stride: usize,
    sums: &'a [&'a [f32]],
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
                let mut gradient = [[L::splat(0.0); MOST_TAPS]; MOST_TAPS];
                for j in 0..T::POINTS {
                    let mut column = [L::splat(0.0); MOST_TAPS]; // of G^T s
                    for i in 0..T::POINTS {
                        let place = (i * T::POINTS + j) * self.sum_stride + input * padded_out + first;
                        let mut sum = L::splat(0.0);
                        for sums in self.sums {
                            let from = sums.as_ptr().wrapping_add(place);
                            L::prefetch(from.wrapping_add(L::WIDTH)); // the next vector's
                            // SAFETY: the sums of a point are rows of `padded_out` numbers, whole vectors.
                            sum = sum.add(unsafe { L::load(from) });
                        }
                        spread(sum, &T::WEIGHTS[i], &mut column);
                    }
                    for (line, value) in gradient.iter_mut().zip(column) {
                        spread(value, &T::WEIGHTS[j], line);
                    }
                }
                for (row, line) in gradient.iter().enumerate().take(T::TAPS) {
                    for (column, value) in line.iter().enumerate().take(T::TAPS) {
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

/// Adds a vector times each factor that is not zero.
#[inline(always)]
fn spread<L: Lanes>(value: L, factors: &[f32; MOST_TAPS], sums: &mut [L; MOST_TAPS]) {
    for (&factor, sum) in factors.iter().zip(sums) {
        if factor != 0.0 {
            *sum = value.scaled(factor, *sum);
        }
    }
}
