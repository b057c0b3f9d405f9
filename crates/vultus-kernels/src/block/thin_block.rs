//! A block of few inputs, without keeping its convolution's output.
//!
//! In: images `[batch, height, width, channels]` with one channel or a few, as the first layer of a network has. Out:
//! what the block gives, or gradients. Such a convolution makes one number of a few products: computing it again costs
//! less than writing it to memory and reading it back. So its output exists only a few rows at a time, in the first-level
//! cache: twice each way, or once each way in front of pooling, whose winners tell its output and its sums; or, of one channel in
//! front of the commonest windows, only in registers (`grey_windows`). The same as
//! [`crate::convolution`] with [`crate::batch_norm`] or [`crate::norm_pool`], which the block's tests hold it to. It
//! gives no gradient of its input.

use super::grey_windows::{GreyBackward, GreyForward, GreyWindows};
use super::{Block, BlockGradients, Filters, Inputs, Outputs, Tail};
use crate::activation::Activation;
use crate::batch_norm::{self, BiasSums, Gate, Norm, Terms, join_statistics};
use crate::convolution::{ConvolutionShape, Frame, RowsForward, RowsGradient};
use crate::dropout::Dropout;
use crate::norm_pool::{self, WindowSums};
use crate::scratch::Scratch;
use crate::shared::Shared;
use crate::simd::InstructionSet;
use crate::sum::add_serial;
use crate::threads::{share_chunks, share_items};

/// Products of one output up to which the output is not kept.
const MOST_PRODUCTS: usize = 32;
/// Most channels of images as a first layer has them. Of another layer's output, somebody wants the gradient.
const MOST_CHANNELS: usize = 4;
/// Numbers of a band of the convolution's output, about: half of a first-level cache.
const BAND_NUMBERS: usize = 4 * 1024;

/// A block that computes its convolution again.
pub(super) struct ThinBlock<'a> {
    block: &'a Block,
    /// Of its convolution.
    shape: ConvolutionShape,
}

/// Some rows of the convolution's output.
#[derive(Clone, Copy)]
struct Rows {
    first: usize,
    count: usize,
}

impl<'a> ThinBlock<'a> {
    /// The block, if it pays to compute its convolution again, and what follows that can be done a few rows at a time.
    pub(super) fn new(block: &'a Block) -> Option<Self> {
        let suits = match block.tail {
            Tail::Pooled { .. } => true,
            Tail::Activated { squeeze, residual, activation } => {
                squeeze.is_none() && !residual && matches!(activation, Activation::Linear | Activation::Relu)
            }
        };
        match block.filters {
            Filters::Dense(shape)
                if suits && shape.in_channels <= MOST_CHANNELS && shape.patch_length() <= MOST_PRODUCTS =>
            {
                Some(Self { block, shape })
            }
            _ => None,
        }
    }

    /// Numbers of a row of the convolution's output.
    fn line(&self) -> usize {
        self.shape.out_width() * self.shape.out_channels
    }

    /// The bands of an image: rows of windows, the last with what no window covers, or as many rows as fit the cache.
    fn bands(&self) -> Vec<Rows> {
        let height = self.shape.out_height();
        match self.block.tail {
            Tail::Pooled { size, .. } => {
                let pooled = self.block.filters.pooled(size);
                pooled.check();
                (0..pooled.pooled_height())
                    .map(|row| Rows { first: row * size, count: pooled.band_rows(row) })
                    .collect()
            }
            Tail::Activated { .. } => {
                let count = (BAND_NUMBERS / self.line().max(1)).clamp(1, height);
                (0..height).step_by(count).map(|first| Rows { first, count: count.min(height - first) }).collect()
            }
        }
    }

    /// Some rows as windows.
    fn windows<'b>(&self, inputs: &Inputs<'b>, rows: Rows, frame: &'b Frame<'b>) -> GreyWindows<'b> {
        GreyWindows {
            frame,
            rows: rows.count,
            columns: self.shape.out_width(),
            weight: inputs.weight,
            bias: self.block.bias(inputs),
            relu: self.block.before == Activation::Relu,
            channels: self.shape.out_channels,
        }
    }

    /// The convolution, ready to be computed in parts.
    fn convolution<'b>(&self, set: InstructionSet, inputs: &Inputs<'b>) -> RowsForward<'b> {
        RowsForward::new(set, &self.shape, inputs.x, inputs.weight, self.block.bias(inputs), self.block.before)
    }

    /// [`Block::forward`], which has checked all lengths.
    pub(super) fn forward(&self, inputs: &Inputs, outputs: Outputs) {
        let Outputs { winners, y, mean, variance, .. } = outputs;
        let Inputs { gamma, beta, .. } = *inputs;
        let (channels, pixels) = (self.shape.out_channels, self.block.pixels());
        if self.shape.output_len() == 0 {
            mean.fill(0.0);
            variance.fill(0.0);
            return;
        }
        let (set, bands, line) = (InstructionSet::best(), &self.bands()[..], self.line());
        let longest = bands.iter().map(|rows| rows.count).max().unwrap_or(0) * line;
        let convolution = &self.convolution(set, inputs);
        let per_image = bands.len() * 3 * channels;
        let (batch, signs) = (self.shape.batch, &norm_pool::signs(gamma)[..]);
        let (windowed, out_line) = (GreyWindows::can(self.block), winners.len() / (batch * bands.len()));
        let mut partial = Scratch::take(batch * 3 * channels);
        let images = partial.chunks_mut(3 * channels).zip(each_image(winners, batch));
        share_items(images, |image, (of_image, winners)| {
            let (mut z, mut sums) = (Scratch::take(if windowed { 0 } else { longest }), Scratch::take(per_image));
            for (index, (rows, sums)) in bands.iter().zip(sums.chunks_exact_mut(3 * channels)).enumerate() {
                let winners = &mut winners[index * out_line..][..out_line];
                if windowed {
                    let frame = convolution.frame(image, rows.first, rows.count);
                    set.run(GreyForward { windows: self.windows(inputs, *rows, &frame), signs, winners, sums });
                    continue;
                }
                let z = &mut z[..rows.count * line];
                convolution.rows(image, rows.first, rows.count, z);
                set.run(batch_norm::Sums { channels, x: z, sums });
                if let Tail::Pooled { size, .. } = self.block.tail {
                    let shape = &self.block.filters.pooled(size);
                    set.run(norm_pool::Winners { shape, x: z, signs, winners });
                }
            }
            let counts = bands.iter().map(|rows| rows.count * self.shape.out_width());
            batch_norm::merge_sums(counts, &sums, of_image);
        });
        join_statistics(std::iter::repeat_n(pixels, batch), &partial, mean, variance);
        let norm = &Norm { gamma, beta, mean, variance, epsilon: self.block.epsilon };
        let activation = match self.block.tail {
            Tail::Activated { activation, .. } => activation,
            Tail::Pooled { size, rate, key } => {
                let shape = &self.block.filters.pooled(size);
                return norm_pool::forward(shape, winners, norm, Dropout { rate, key }, y);
            }
        };
        let (affine, relu) = (&norm.affine()[..], activation == Activation::Relu);
        share_chunks(y, pixels * channels, |image, y| {
            let mut z = Scratch::take(longest);
            for rows in bands {
                let x = &mut z[..rows.count * line];
                convolution.rows(image, rows.first, rows.count, x);
                let y = &mut y[rows.first * line..][..x.len()];
                set.run(batch_norm::Apply { channels, x, affine, residual: None, relu, y });
            }
        });
    }

    /// [`Block::backward`], which has checked the lengths, without the gradient of the input. The norm has the statistics
    /// of the forward pass.
    pub(super) fn backward(
        &self,
        inputs: &Inputs,
        winners: &[f32],
        norm: &Norm,
        dy: &[f32],
        gradients: BlockGradients,
    ) {
        let BlockGradients { dweight, dbias, dgamma, dbeta, .. } = gradients;
        let channels = self.shape.out_channels;
        if self.shape.output_len() == 0 {
            [dweight, dgamma, dbeta].into_iter().chain(dbias).for_each(|gradient| gradient.fill(0.0));
            return;
        }
        let (set, bands, line) = (InstructionSet::best(), &self.bands()[..], self.line());
        let longest = bands.iter().map(|rows| rows.count).max().unwrap_or(0) * line;
        let convolution = &self.convolution(set, inputs);
        let affine;
        let gradient = match self.block.tail {
            Tail::Pooled { size, rate, key } => {
                let (shape, dropout) = (self.block.filters.pooled(size), Dropout { rate, key });
                Gradient::Pooled(WindowSums::new(&shape, winners, norm, dropout, dy, dgamma, dbeta))
            }
            Tail::Activated { activation, .. } => {
                let gate = if activation == Activation::Relu { Gate::Recomputed } else { Gate::Open };
                affine = norm.affine();
                let pixels = Pixels { thin: self, affine: &affine, mean: norm.mean, dy, gate };
                let mut partial = Scratch::zeros(self.shape.batch * 2 * channels);
                share_chunks(&mut partial, 2 * channels, |image, total| {
                    let (mut z, mut sums) = (Scratch::take(longest), Scratch::take(2 * channels));
                    for rows in bands {
                        let z = &mut z[..rows.count * line];
                        convolution.rows(image, rows.first, rows.count, z);
                        set.run(batch_norm::GradientSums { input: pixels.of(image, *rows, z), sums: &mut sums });
                        add_serial(total, &sums);
                    }
                });
                let rows = self.shape.batch * self.block.pixels();
                Gradient::Activated(pixels, Terms::new(norm, rows, &partial, dgamma, dbeta))
            }
        };
        let windowed = GreyWindows::can(self.block);
        let mut bias_sums = Scratch::zeros(self.shape.batch * channels);
        let bias_of_image = Shared::new(&mut bias_sums);
        let (weights, gates) = (RowsGradient::new(set, &self.shape, inputs.x), self.block.before.gates());
        weights.sum(dweight, |images, dweight| {
            let longest = if windowed { 0 } else { longest };
            let (mut z, mut dz) = (Scratch::take(longest), Scratch::take(longest));
            let (mut sums, mut total) = (Scratch::take(channels), Scratch::take(channels));
            for image in images {
                total.fill(0.0);
                for (index, rows) in bands.iter().enumerate() {
                    if let (Gradient::Pooled(sums), true) = (&gradient, windowed) {
                        let frame = convolution.frame(image, rows.first, rows.count);
                        let (windows, row) = (self.windows(inputs, *rows, &frame), sums.row(image, index));
                        set.run(GreyBackward { windows, row, dweight, dbias: &mut total });
                        continue;
                    }
                    let (z, dz) = (&mut z[..rows.count * line], &mut dz[..rows.count * line]);
                    convolution.rows(image, rows.first, rows.count, z);
                    gradient.apply(set, gates, (image, index), *rows, z, dz, &mut sums);
                    add_serial(&mut total, &sums);
                    weights.add(image, rows.first, rows.count, dz, dweight);
                }
                // SAFETY: each image has its own row, and belongs to one task.
                unsafe { std::slice::from_raw_parts_mut(bias_of_image.at(image * channels), channels) }
                    .copy_from_slice(&total);
            }
        });
        if let Some(dbias) = dbias {
            let mut sums = BiasSums::new(channels);
            sums.add(&bias_sums);
            sums.write(dbias);
        }
    }
}

/// A slice for each image, also where there is nothing in it.
fn each_image(mut values: &mut [f32], batch: usize) -> Vec<&mut [f32]> {
    let length = values.len() / batch;
    let next = |_| {
        let (image, rest) = std::mem::take(&mut values).split_at_mut(length);
        values = rest;
        image
    };
    (0..batch).map(next).collect()
}

/// What the gradients of a block without pooling are made of.
#[derive(Clone, Copy)]
struct Pixels<'a> {
    thin: &'a ThinBlock<'a>,
    affine: &'a [f32],
    mean: &'a [f32],
    dy: &'a [f32],
    gate: Gate,
}

impl Pixels<'_> {
    /// Those of some rows of an image, where `x` is the convolution's output.
    fn of<'b>(&'b self, image: usize, rows: Rows, x: &'b [f32]) -> batch_norm::Gradient<'b> {
        let Self { thin, affine, mean, dy, gate } = *self;
        let channels = thin.shape.out_channels;
        let first = image * thin.block.pixels() * channels + rows.first * thin.line();
        batch_norm::Gradient { channels, x, y: x, dy: &dy[first..][..x.len()], affine, mean, gate }
    }
}

/// A backward pass whose sums are known.
enum Gradient<'a> {
    Activated(Pixels<'a>, Terms),
    Pooled(WindowSums<'a>),
}

impl Gradient<'_> {
    /// Gradient of the convolution's output before its activation, which `gates` or not, and its sums `[channels]`, all
    /// overwritten: of a band, by its image and its place in that.
    #[expect(clippy::too_many_arguments, reason = "a band, and what is read and written")]
    fn apply(
        &self,
        set: InstructionSet,
        gates: bool,
        (image, index): (usize, usize),
        rows: Rows,
        z: &[f32],
        dz: &mut [f32],
        sums: &mut [f32],
    ) {
        assert_eq!(dz.len(), z.len());
        let dx = dz.as_mut_ptr();
        match self {
            Self::Activated(pixels, terms) => {
                assert_eq!(sums.len(), pixels.mean.len());
                let (input, terms) = (pixels.of(image, rows, z), terms.of(0, pixels.mean.len()));
                let sums = Some(sums.as_mut_ptr());
                // SAFETY: both are borrowed mutably; `dz` is as long as `z`, the rows, and the sums hold a number for
                // each channel.
                set.run(unsafe { batch_norm::GradientApply::new(input, terms, gates, dx, None, sums) });
            }
            Self::Pooled(windows) => {
                // SAFETY: `dz` is borrowed mutably and as long as `z`, the band.
                set.run(unsafe { norm_pool::GradientApply::new(windows.band(image, index, z), gates, dx, sums) });
            }
        }
    }
}
