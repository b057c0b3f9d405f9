//! Convolutions 3 x 3 and 5 x 5 with stride 1, and 3 x 3 with stride 2 and an odd padding, by Winograd's
//! minimal filtering.
//!
//! In: images `[batch, height, width, channels]` and weights `[r, r, in, out]`. Out: images, or the gradient of the
//! weights. The gradient of the input is a convolution with weights turned round. Three stages: transform the
//! tiles of the input into `[point][tile][in]`, multiply at each point by the transformed weights, transform back.
//! With many tiles, or with few and few weights to read for them, a task takes some of them through all three, so that they stay
//! in its cache, unless weights are so many that reading them less often is worth more; else each stage is shared out.
//! The gradient of the weights, `weight_gradient`, is summed in the transformed domain.

use std::marker::PhantomData;

use super::transform::{MOST_POINTS, OfInput, Transform};
use crate::panel::RowsProduct;
use crate::scratch::Scratch;
use crate::shared::Shared;
use crate::simd::{InstructionSet, Kernel, Lanes, PANEL};
use crate::sizes::elements;
use crate::threads::share;

use tile::{Columns, Layout, pixels, transform_pixels};
pub(super) use weight_gradient::WinogradSums;
use weights::weight_stride;
pub(super) use weights::{transform_weights, weight_len};

mod tile;
mod weight_gradient;
mod weights;

/// Numbers between the ends of one point's block and the next: a cache line, so that the stores of one tile's points
/// do not all fall into the same cache set.
const POINT_GAP: usize = 16;
/// Numbers of one task's transformed tiles, where weights are not many: half a megabyte, half of the second-level cache of current
/// processors.
const TASK_NUMBERS: usize = 128 * 1024;
/// Most tiles of one task.
const TASK_TILES: usize = 48;
/// As many tasks are a way to use several cores, whatever they read.
const FEWEST_TASKS: usize = 4;
/// A task that about so many tiles are cut off for makes enough use of the weights that it reads.
const FEWEST_TILES: usize = 6;
/// Most weights of a point for each number of its tiles that are read by every core.
const MOST_WEIGHTS: usize = 2;
/// Tiles that one task of a shared stage transforms.
const STAGE_TILES: usize = 8;

/// Sizes of a convolution; the transform knows the stride. Unlike a layer's padding `offset` may be of either sign.
#[derive(Clone, Copy)]
pub(super) struct Tiling {
    pub(super) batch: usize,
    pub(super) in_height: usize,
    pub(super) in_width: usize,
    pub(super) in_channels: usize,
    pub(super) out_height: usize,
    pub(super) out_width: usize,
    pub(super) out_channels: usize,
    /// Input row and column at which the first tile begins: in a forward pass minus the padding.
    pub(super) offset: isize,
}

impl Tiling {
    fn tiles_high<T: Transform>(&self) -> usize {
        self.out_height.div_ceil(T::OUTPUTS)
    }

    fn tiles_wide<T: Transform>(&self) -> usize {
        self.out_width.div_ceil(T::OUTPUTS)
    }

    fn tiles<T: Transform>(&self) -> usize {
        self.batch * self.tiles_high::<T>() * self.tiles_wide::<T>()
    }

    /// Image, and row and column of the first output, of a tile.
    #[inline(always)]
    fn output<T: Transform>(&self, tile: usize) -> (usize, usize, usize) {
        let (high, wide) = (self.tiles_high::<T>(), self.tiles_wide::<T>());
        (tile / (high * wide), tile / wide % high * T::OUTPUTS, tile % wide * T::OUTPUTS)
    }

    /// Image, and row and column of the first input, of a tile.
    #[inline(always)]
    fn input<T: Transform>(&self, tile: usize) -> (usize, isize, isize) {
        let (image, row, column) = self.output::<T>(tile);
        let place = |output: usize| (output / T::OUTPUTS * T::STEP) as isize + self.offset;
        (image, place(row), place(column))
    }

    /// Input channels rounded up to whole vectors of any width.
    fn padded_in(&self) -> usize {
        self.in_channels.next_multiple_of(PANEL)
    }

    fn padded_out(&self) -> usize {
        self.out_channels.next_multiple_of(PANEL)
    }
}

/// What happens to the outputs before they are written.
#[derive(Clone, Copy)]
pub(super) struct Finish<'a> {
    /// Added to each channel.
    pub(super) bias: Option<&'a [f32]>,
    /// Added to each output; has the shape of the output.
    pub(super) residual: Option<&'a [f32]>,
    /// Negative values become zero.
    pub(super) relu: bool,
    /// Only the largest of each 2 x 2 outputs is written; a last odd row or column is dropped.
    pub(super) pool: bool,
}

/// `y = finish(convolution(x, weights))`, with weights from [`transform_weights`]; `added` to what `y` held if wanted.
pub(super) fn forward<T: Transform>(
    set: InstructionSet,
    tiling: &Tiling,
    x: &[f32],
    weights: &[f32],
    finish: Finish,
    added: bool,
    y: &mut [f32],
) {
    assert_eq!(x.len(), elements([tiling.batch, tiling.in_channels, tiling.in_height, tiling.in_width]));
    assert!(weights.len() >= weight_len::<T>(tiling.in_channels, tiling.out_channels));
    assert!(finish.bias.is_none_or(|bias| bias.len() == tiling.out_channels));
    let pooled = if finish.pool { 2 } else { 1 };
    // Pooling drops a last odd row and column: no tile is made for them alone.
    let whole = |outputs: usize| outputs / pooled * pooled;
    let tiling = &Tiling { out_height: whole(tiling.out_height), out_width: whole(tiling.out_width), ..*tiling };
    let (height, width) = (tiling.out_height / pooled, tiling.out_width / pooled);
    assert_eq!(y.len(), elements([tiling.batch, tiling.out_channels, height, width]));
    assert!(finish.residual.is_none_or(|residual| residual.len() == y.len() && !finish.pool));
    assert!(!added || !(finish.pool || finish.relu), "only what is not changed afterwards can be added");
    assert!(!finish.pool || T::OUTPUTS.is_multiple_of(2), "windows must not straddle tiles");
    let points = T::POINTS * T::POINTS;
    let (padded_in, padded_out) = (tiling.padded_in(), tiling.padded_out());
    let tiles = tiling.tiles::<T>();
    // A task reads all weights, which may be many: then it takes so many tiles that there are only three times as many weights as
    // numbers of tiles, but not so many that too few tasks are left.
    let for_weights = (padded_in * padded_out / (3 * (padded_in + padded_out))).min(tiles / FEWEST_TASKS);
    let in_cache = TASK_NUMBERS / (points * (padded_in + padded_out));
    let most = in_cache.max(for_weights).clamp(6, TASK_TILES).next_multiple_of(6);
    let y = Shared::new(y);
    let zeros = Scratch::zeros(padded_in);
    let zeros: &[f32] = &zeros;
    let stages = |count: usize| Stages::<T> {
        tiling: *tiling,
        in_stride: count * padded_in + POINT_GAP,
        out_stride: count * padded_out + POINT_GAP,
        x,
        weights,
        finish,
        added,
        zeros,
        y,
        transform: PhantomData,
    };
    // Where a point's weights are few beside its tiles, cores rather read all of them than tiles that another one has written.
    let few_weights = padded_in * padded_out <= MOST_WEIGHTS * tiles * (padded_in + padded_out);
    let for_cores = if few_weights { (tiles / FEWEST_TILES).min(FEWEST_TASKS) } else { 0 };
    let tasks = tiles.div_ceil(most).max(for_cores);
    if tasks >= FEWEST_TASKS || (tasks >= 2 && few_weights) {
        // Tasks of equal size, so that none is left over at the end.
        let per_task = tiles.div_ceil(tasks.next_multiple_of(2));
        let stages = stages(per_task);
        share(tiles.div_ceil(per_task), |task| {
            let mut buffer = Scratch::take(points * (stages.in_stride + stages.out_stride));
            let (points_in, points_out) = buffer.split_at_mut(points * stages.in_stride);
            let (points_in, points_out) = (Shared::new(points_in), Shared::new(points_out));
            let range = TileRange { first: task * per_task, count: per_task.min(tiles - task * per_task), position: 0 };
            set.run(InputStage { stages: &stages, range, points_in });
            for point in 0..points {
                stages.multiply(set, point, range.count, points_in, points_out);
            }
            set.run(OutputStage { stages: &stages, range, points_out });
        });
        return;
    }
    let stages = stages(tiles);
    let mut buffer = Scratch::take(points * (stages.in_stride + stages.out_stride));
    let (points_in, points_out) = buffer.split_at_mut(points * stages.in_stride);
    let (points_in, points_out) = (Shared::new(points_in), Shared::new(points_out));
    let per_stage = tiles.div_ceil(2).clamp(1, STAGE_TILES);
    let ranges = tiles.div_ceil(per_stage);
    let range = |index: usize| {
        let first = index * per_stage;
        TileRange { first, count: per_stage.min(tiles - first), position: first }
    };
    share(ranges, |i| set.run(InputStage { stages: &stages, range: range(i), points_in }));
    share(points, |point| stages.multiply(set, point, tiles, points_in, points_out));
    share(ranges, |i| set.run(OutputStage { stages: &stages, range: range(i), points_out }));
}

/// Some tiles, and where the first of them stands in the buffers.
#[derive(Clone, Copy)]
struct TileRange {
    first: usize,
    count: usize,
    position: usize,
}

/// What the three stages share. The lengths of all slices were checked by [`forward`].
struct Stages<'a, T> {
    tiling: Tiling,
    /// Numbers from one point's transformed inputs to the next's.
    in_stride: usize,
    /// Numbers from one point's products to the next's.
    out_stride: usize,
    x: &'a [f32],
    weights: &'a [f32],
    finish: Finish<'a>,
    /// Whether outputs are added to what is there.
    added: bool,
    /// A row of channels outside the picture.
    zeros: &'a [f32],
    y: Shared<'a>,
    transform: PhantomData<T>,
}

impl<T: Transform> Stages<'_, T> {
    /// The product at one point, for `count` tiles from the start of the buffers.
    fn multiply(&self, set: InstructionSet, point: usize, count: usize, points_in: Shared, points_out: Shared) {
        let (inputs, outputs) = (self.tiling.in_channels, self.tiling.out_channels);
        let (padded_in, padded_out) = (self.tiling.padded_in(), self.tiling.padded_out());
        let weights = &self.weights[point * weight_stride(inputs, outputs)..][..padded_out * inputs];
        // SAFETY: `count` rows of `in_channels` numbers, `padded_in` apart, were written at this point's place, as many of `padded_out`
        // fit behind (the buffers have `points` strides), and only this call writes to them.
        unsafe {
            let a = points_in.at(point * self.in_stride);
            let c = points_out.at(point * self.out_stride);
            let panels = padded_out / PANEL;
            set.run(RowsProduct::new(count, inputs, panels, a, padded_in, weights.as_ptr(), c, padded_out));
        }
    }
}

/// Transforms the inputs of some tiles into `[point][tile][in]`.
struct InputStage<'a, T> {
    stages: &'a Stages<'a, T>,
    range: TileRange,
    points_in: Shared<'a>,
}

impl<T: Transform> Kernel for InputStage<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Stages { tiling, in_stride, x, zeros, .. } = *self.stages;
        let (height, width, channels) = (tiling.in_height, tiling.in_width, tiling.in_channels);
        let padded = tiling.padded_in();
        for index in 0..self.range.count {
            let (image, row, column) = tiling.input::<T>(self.range.first + index);
            let to = self.points_in.at((self.range.position + index) * padded);
            // SAFETY: the image is inside `x` (length checked in `forward`), `zeros` holds a row of channels; every
            // point has `padded` numbers for this tile, which is this task's own.
            unsafe {
                let image = x.as_ptr().add(image * height * width * channels);
                let addresses = pixels(image, height, width, channels, row, column, T::INPUTS, zeros.as_ptr());
                let layout = Layout { to, point: in_stride, panel: PANEL, tile: padded };
                transform_pixels::<OfInput<T>, L>(&addresses, channels, layout);
            }
        }
    }
}

/// Transforms the products of some tiles back, finishes them and writes the outputs.
struct OutputStage<'a, T> {
    stages: &'a Stages<'a, T>,
    range: TileRange,
    points_out: Shared<'a>,
}

impl<T: Transform> Kernel for OutputStage<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Stages { tiling, out_stride, finish, added, y, .. } = *self.stages;
        let (height, width, channels) = (tiling.out_height, tiling.out_width, tiling.out_channels);
        let padded = tiling.padded_out();
        let floor = L::splat(if finish.relu { 0.0 } else { f32::NEG_INFINITY });
        for index in 0..self.range.count {
            let (image, row, column) = tiling.output::<T>(self.range.first + index);
            let from = self.points_out.at((self.range.position + index) * padded);
            let (rows, columns) = (T::OUTPUTS.min(height - row), T::OUTPUTS.min(width - column));
            let start_of = |i: usize| ((image * height + row + i) * width + column) * channels;
            for first in (0..channels).step_by(L::WIDTH) {
                if !finish.pool && first.is_multiple_of(PANEL) {
                    // The outputs' lines are on their way while the outputs are made. Pooled ones are few.
                    for i in 0..rows {
                        let line = y.at(start_of(i) + first);
                        for j in 0..columns {
                            L::prefetch(line.wrapping_add(j * channels));
                        }
                    }
                }
                let ahead = first + L::WIDTH >= channels || (first + L::WIDTH).is_multiple_of(PANEL);
                let mut tile = Columns::new();
                for j in 0..T::POINTS {
                    let mut points = [L::splat(0.0); MOST_POINTS];
                    for i in 0..T::POINTS {
                        // SAFETY: each point has `padded` numbers for this tile, whole vectors.
                        points[i] = unsafe {
                            let from = from.add((i * T::POINTS + j) * out_stride + first);
                            if ahead {
                                L::prefetch(from.wrapping_add(PANEL - first % PANEL)); // the next panel's, or tile's
                            }
                            L::load(from)
                        };
                    }
                    tile.set(j, &T::output(&points), T::OUTPUTS);
                }
                let bias = match finish.bias {
                    // SAFETY: the bias holds `channels` numbers (checked in `forward`).
                    Some(bias) => unsafe { L::load_within(bias.as_ptr(), first, channels) },
                    None => L::splat(0.0),
                };
                if finish.pool {
                    let (pooled_height, pooled_width) = (height / 2, width / 2);
                    for i in (0..T::OUTPUTS).step_by(2) {
                        // SAFETY: `POINTS` columns of `OUTPUTS` vectors were set, an even number (checked in `forward`).
                        let (upper, lower) = unsafe { (tile.row(i, T::POINTS), tile.row(i + 1, T::POINTS)) };
                        let (upper, lower) = (T::output(&upper), T::output(&lower));
                        for j in (0..T::OUTPUTS).step_by(2) {
                            if i + 2 <= rows && j + 2 <= columns {
                                let largest = upper[j]
                                    .larger(upper[(j + 1) % MOST_POINTS])
                                    .larger(lower[j].larger(lower[(j + 1) % MOST_POINTS]));
                                let pixel = (image * pooled_height + (row + i) / 2) * pooled_width + (column + j) / 2;
                                // SAFETY: the pixel is inside the pooled picture, and this tile's own.
                                unsafe {
                                    let to = y.at(pixel * channels);
                                    largest.add(bias).at_least(floor).store_within(to, first, channels);
                                }
                            }
                        }
                    }
                    continue;
                }
                let whole = first + L::WIDTH <= channels;
                for i in 0..rows.min(T::OUTPUTS) {
                    // SAFETY: `POINTS` columns of `OUTPUTS` vectors were set.
                    let outputs = T::output(&unsafe { tile.row(i, T::POINTS) });
                    let start = start_of(i);
                    for (j, &output) in outputs.iter().enumerate().take(T::OUTPUTS) {
                        if j >= columns {
                            break;
                        }
                        let mut value = output.add(bias);
                        let place = start + j * channels;
                        // SAFETY: the pixel is inside the picture, and this tile's own; the residual has the
                        // output's length (checked in `forward`).
                        unsafe {
                            if let Some(residual) = finish.residual {
                                value = value.add(L::load_within(residual.as_ptr().add(place), first, channels));
                            }
                            let to = y.at(place);
                            if added {
                                value = value.add(L::load_within(to, first, channels));
                            }
                            let value = value.at_least(floor);
                            if whole {
                                value.store(to.add(first))
                            } else {
                                value.store_some(to.add(first), channels - first)
                            }
                        }
                    }
                }
            }
        }
    }
}
