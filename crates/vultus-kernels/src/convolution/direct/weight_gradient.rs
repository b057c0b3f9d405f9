//! The gradient of the weights straight from the definition.
//!
//! In: inputs and gradients of outputs, part after part of the batch. Out: sums of a few fixed groups of images, added up
//! once at the end.

use super::Frame;
use crate::convolution::{ConvolutionShape, WeightSums};
use crate::panel::{tile_panels, tile_rows, with_few_rows, with_rows};
use crate::scratch::Scratch;
use crate::simd::{InstructionSet, Kernel, Lanes, PANEL};
use crate::sizes::elements;
use crate::sum::add_serial;
use crate::threads::share_chunks;

/// Groups of images that sum their own weight gradient. Fixed, so that the order of summation is.
const GRADIENT_GROUPS: usize = 8;
/// Pixels of a band of the weight gradient, so that a panel of it stays in the first-level cache.
const GRADIENT_PIXELS: usize = 256;

/// The gradient of the weights, summed up part by part of the batch.
pub(in crate::convolution) struct DirectSums {
    set: InstructionSet,
    shape: ConvolutionShape,
    /// Of a few groups of images, `[kernel and in, out rounded up]` each.
    partial: Scratch,
    groups: usize,
}

impl DirectSums {
    pub(in crate::convolution) fn new(set: InstructionSet, shape: &ConvolutionShape) -> Self {
        let groups = GRADIENT_GROUPS.min(shape.batch);
        Self { set, shape: *shape, partial: Scratch::zeros(elements([groups, sum_len(shape)])), groups }
    }

    /// Adds what `add` adds for each group of some images.
    pub(in crate::convolution) fn add_by(
        &mut self,
        images: usize,
        add: impl Fn(std::ops::Range<usize>, &mut [f32]) + Sync,
    ) {
        let groups = self.groups;
        share_chunks(&mut self.partial, sum_len(&self.shape).max(1), |group, sums| {
            add(images * group / groups..images * (group + 1) / groups, sums);
        });
    }
}

impl WeightSums for DirectSums {
    fn add(&mut self, images: usize, x: &[f32], dy: &[f32]) {
        let (set, shape) = (self.set, self.shape);
        let (height, width) = (shape.out_height(), shape.out_width());
        let (picture, line) = (shape.image_length(), width * shape.out_channels);
        let band = (GRADIENT_PIXELS / width).clamp(1, height);
        self.add_by(images, |images, sums| {
            for image in images {
                for first in (0..height).step_by(band) {
                    let rows = band.min(height - first);
                    let dy = &dy[(image * height + first) * line..][..rows * line];
                    add_weight_gradient(set, &shape, &x[image * picture..][..picture], first, rows, dy, sums);
                }
            }
        });
    }

    fn finish(&self, dweight: &mut [f32]) {
        let (partial, sum_len) = (&self.partial[..], sum_len(&self.shape));
        let outputs = self.shape.out_channels;
        if outputs == 0 {
            return;
        }
        let padded = outputs.next_multiple_of(PANEL);
        share_chunks(dweight, 64 * outputs, |task, dweight| {
            for (index, line) in dweight.chunks_exact_mut(outputs).enumerate() {
                let place = (task * 64 + index) * padded;
                line.fill(0.0);
                for group in 0..self.groups {
                    add_serial(line, &partial[group * sum_len + place..][..outputs]);
                }
            }
        });
    }
}

/// Numbers of one group's sums.
fn sum_len(shape: &ConvolutionShape) -> usize {
    elements([shape.patch_length(), shape.out_channels.next_multiple_of(PANEL)])
}

/// Adds the weight gradient of `rows` rows of outputs of one image, from `first` on, to `sums`; `dy` is their gradient.
pub(in crate::convolution) fn add_weight_gradient(
    set: InstructionSet,
    shape: &ConvolutionShape,
    picture: &[f32],
    first: usize,
    rows: usize,
    dy: &[f32],
    sums: &mut [f32],
) {
    let frame = Frame::new(shape, picture, first, rows);
    set.run(GradientBand { shape, rows, source: frame.pixels(), row_stride: frame.row_stride, dy, sums });
}

/// Adds the weight gradient of some rows of outputs of one image to `sums` `[kernel and in, out rounded up]`.
struct GradientBand<'a> {
    shape: &'a ConvolutionShape,
    rows: usize,
    source: &'a [f32],
    row_stride: usize,
    dy: &'a [f32],
    sums: &'a mut [f32],
}

impl Kernel for GradientBand<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let ConvolutionShape { kernel_height, kernel_width, in_channels, out_channels, stride, .. } = *self.shape;
        let width = self.shape.out_width();
        let inner = kernel_width * in_channels;
        let lines = kernel_height * inner;
        let padded = out_channels.next_multiple_of(PANEL);
        let last = ((self.rows - 1) * stride + kernel_height - 1) * self.row_stride
            + (width - 1) * stride * in_channels
            + inner;
        assert!(self.source.len() >= last && self.sums.len() == lines * padded);
        assert!(self.dy.len() >= self.rows * width * out_channels);
        let (mut panel, panels) = (0, padded / PANEL);
        while panel < panels {
            let tile_panels = tile_panels::<L>(panels - panel);
            let vectors = tile_panels * L::VECTORS;
            let most = tile_rows::<L>(vectors);
            for line in (0..lines).step_by(most) {
                let rows = most.min(lines - line);
                let mut offsets = [0; 12];
                for (index, offset) in offsets.iter_mut().enumerate().take(rows) {
                    *offset = (line + index) / inner * self.row_stride + (line + index) % inner;
                }
                let tile = GradientTile {
                    rows: self.rows,
                    width,
                    source: self.source.as_ptr(),
                    row_stride: stride * self.row_stride,
                    column_stride: stride * in_channels,
                    dy: self.dy.as_ptr(),
                    channels: out_channels,
                    channel: panel * PANEL,
                };
                // SAFETY: the source holds all that the offsets reach from each pixel, `dy` all pixels (both asserted
                // above), and the sums whole panels of each line.
                unsafe {
                    let sums = self.sums.as_mut_ptr().add(line * padded + panel * PANEL);
                    match vectors {
                        1 => with_rows!(rows, gradient_tile::<L, 1>(&tile, &offsets, sums, padded)),
                        2 => with_rows!(rows, gradient_tile::<L, 2>(&tile, &offsets, sums, padded)),
                        4 => with_few_rows!(rows, gradient_tile::<L, 4>(&tile, &offsets, sums, padded)),
                        _ => unreachable!("no tile has {vectors} vectors"),
                    }
                }
            }
            panel += tile_panels;
        }
    }
}

struct GradientTile {
    rows: usize,
    width: usize,
    source: *const f32,
    row_stride: usize,
    column_stride: usize,
    dy: *const f32,
    channels: usize,
    channel: usize,
}

/// # Safety
/// From each pixel of the source the first `ROWS` offsets can be read, `dy` holds all pixels, and `sums` `ROWS` lines of
/// `VECTORS` vectors, whole panels, `stride` apart.
#[inline(always)]
unsafe fn gradient_tile<L: Lanes, const ROWS: usize, const VECTORS: usize>(
    place: &GradientTile,
    offsets: &[usize; 12],
    sums: *mut f32,
    stride: usize,
) {
    let mut tile = [[L::splat(0.0); VECTORS]; ROWS];
    let whole = place.channel + VECTORS * L::WIDTH <= place.channels;
    // SAFETY: every address is one that the contract allows.
    unsafe {
        for row in 0..place.rows {
            let source = place.source.add(row * place.row_stride);
            let dy = place.dy.add(row * place.width * place.channels);
            for column in 0..place.width {
                let pixel = source.add(column * place.column_stride);
                let gradient = dy.add(column * place.channels);
                let mut columns = [L::splat(0.0); VECTORS];
                for (v, columns) in columns.iter_mut().enumerate() {
                    let channel = place.channel + v * L::WIDTH;
                    *columns = if whole {
                        L::load(gradient.add(channel))
                    } else {
                        L::load_padded(gradient, channel, place.channels)
                    };
                }
                for (index, tile) in tile.iter_mut().enumerate() {
                    let value = L::splat(*pixel.add(offsets[index]));
                    for v in 0..VECTORS {
                        tile[v] = value.mul_add(columns[v], tile[v]);
                    }
                }
            }
        }
        for (index, tile) in tile.iter().enumerate() {
            for (v, &value) in tile.iter().enumerate() {
                let to = sums.add(index * stride + v * L::WIDTH);
                value.add(L::load(to)).store(to);
            }
        }
    }
}
