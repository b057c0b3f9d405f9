//! A convolution of few inputs, its batch norm and what follows, without keeping the convolution's output.
//!
//! In: images `[batch, height, width, channels]` with one channel or a few, as the first layer of a network has. Out: what
//! the layers give in the end, or gradients. Such a convolution makes one number of a few products: computing it again
//! costs less than writing it to memory and reading it back. So its output exists only a few rows at a time, in the
//! first-level cache: twice each way, or once each way in front of pooling, whose winners tell its output and its sums. The same as
//! [`crate::convolution`] with [`crate::batch_norm`] or [`crate::norm_pool`], which the tests hold it to. It gives no
//! gradient of its input.

use crate::activation::Activation;
use crate::batch_norm::{self, BiasSums, Gate, Norm, Terms, join_statistics};
use crate::convolution::{ConvolutionShape, RowsForward, RowsGradient};
use crate::dropout::Dropout;
use crate::norm_pool::{self, NormPoolShape, WindowSums};
use crate::pool::{share_chunks, share_items};
use crate::scratch::Scratch;
use crate::simd::InstructionSet;

/// Products of one output up to which the output is not kept.
const MOST_PRODUCTS: usize = 32;
/// Numbers of a band of the convolution's output, about: half of a first-level cache.
const BAND_NUMBERS: usize = 4 * 1024;

/// What follows the norm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Tail {
    /// An activation: linear or ReLU.
    Activated(Activation),
    /// Max pooling over windows of `size` rows and columns, then dropout.
    Pooled {
        /// Rows and columns of a window, and the step between windows.
        size: usize,
        /// What is dropped.
        dropout: Dropout,
    },
}

/// The layers.
#[derive(Clone, Copy, Debug)]
pub struct ThinBlock<'a> {
    /// The convolution.
    pub shape: ConvolutionShape,
    /// `[kernel_height, kernel_width, in, out]`.
    pub weight: &'a [f32],
    /// `[out]`, where there is one.
    pub bias: Option<&'a [f32]>,
    /// The convolution's activation: linear or ReLU.
    pub before: Activation,
    /// What follows the norm.
    pub tail: Tail,
}

/// Where the gradients of the parameters go; all are overwritten.
#[derive(Debug)]
pub struct ThinGradients<'a> {
    /// Of the weights, `[kernel_height, kernel_width, in, out]`.
    pub dweight: &'a mut [f32],
    /// Of the bias, `[out]`, where there is one.
    pub dbias: Option<&'a mut [f32]>,
    /// Of the norm's scale, `[out]`.
    pub dgamma: &'a mut [f32],
    /// Of the norm's shift, `[out]`.
    pub dbeta: &'a mut [f32],
}

/// Some rows of the convolution's output.
#[derive(Clone, Copy)]
struct Rows {
    first: usize,
    count: usize,
}

impl ThinBlock<'_> {
    /// Whether it pays to compute a convolution again.
    pub fn suits(shape: &ConvolutionShape) -> bool {
        shape.patch_length() <= MOST_PRODUCTS
    }

    /// Values of the output.
    pub fn output_len(&self) -> usize {
        match self.tail {
            Tail::Activated(_) => self.shape.output_len(),
            Tail::Pooled { size, .. } => self.pooled(size).output_len(),
        }
    }

    /// Values of what wins each window of pooling; none without pooling.
    pub fn winners_len(&self) -> usize {
        if matches!(self.tail, Tail::Pooled { .. }) { self.output_len() } else { 0 }
    }

    fn pooled(&self, size: usize) -> NormPoolShape {
        let ConvolutionShape { batch, out_channels: channels, .. } = self.shape;
        NormPoolShape { batch, height: self.shape.out_height(), width: self.shape.out_width(), channels, size }
    }

    fn pixels(&self) -> usize {
        self.shape.out_height() * self.shape.out_width()
    }

    fn line(&self) -> usize {
        self.shape.out_width() * self.shape.out_channels
    }

    fn check(&self, x: &[f32]) {
        assert_eq!(x.len(), self.shape.input_len(), "length of x");
        // Panics if nothing can go back through it.
        self.before.gates();
        match self.tail {
            Tail::Activated(activation) => assert!(
                matches!(activation, Activation::Linear | Activation::Relu),
                "{activation:?} is no activation of a thin block"
            ),
            Tail::Pooled { size, .. } => self.pooled(size).check(),
        }
    }

    /// The bands of an image: rows of windows, the last with what no window covers, or as many rows as fit the cache.
    fn bands(&self) -> Vec<Rows> {
        let height = self.shape.out_height();
        match self.tail {
            Tail::Pooled { size, .. } => {
                let pooled = self.pooled(size);
                (0..pooled.pooled_height())
                    .map(|row| Rows { first: row * size, count: pooled.band_rows(row) })
                    .collect()
            }
            Tail::Activated(_) => {
                let count = (BAND_NUMBERS / self.line().max(1)).clamp(1, height);
                (0..height).step_by(count).map(|first| Rows { first, count: count.min(height - first) }).collect()
            }
        }
    }

    /// The convolution, ready to be computed in parts.
    fn convolution<'b>(&'b self, set: InstructionSet, x: &'b [f32]) -> RowsForward<'b> {
        RowsForward::new(set, &self.shape, x, self.weight, self.bias, self.before)
    }

    /// The output, with the statistics of the convolution's output, which are returned in `mean` and `variance` `[out]`.
    /// `x` is `[batch, in_height, in_width, in]`, `y` `[batch, out_height, out_width, out]`, or what pooling leaves of it.
    /// `winners` are those of [`norm_pool::winners`], [`ThinBlock::winners_len`] numbers, for the way back.
    ///
    /// # Panics
    /// If a slice has another length than its shape, a window does not fit, or an activation is not one of those named.
    #[expect(clippy::too_many_arguments, reason = "a kernel's signature names every slice it reads and writes")]
    pub fn forward_training(
        &self,
        x: &[f32],
        gamma: &[f32],
        beta: &[f32],
        epsilon: f32,
        winners: &mut [f32],
        y: &mut [f32],
        mean: &mut [f32],
        variance: &mut [f32],
    ) {
        self.check(x);
        assert_eq!(winners.len(), self.winners_len(), "length of the winners");
        assert_eq!(y.len(), self.output_len(), "length of y");
        let channels = self.shape.out_channels;
        assert_eq!(mean.len(), channels, "length of mean");
        assert_eq!(variance.len(), channels, "length of variance");
        if self.shape.output_len() == 0 {
            mean.fill(0.0);
            variance.fill(0.0);
            return;
        }
        let (set, bands, line) = (InstructionSet::best(), &self.bands()[..], self.line());
        let longest = bands.iter().map(|rows| rows.count).max().unwrap_or(0) * line;
        let convolution = &self.convolution(set, x);
        let per_image = bands.len() * 3 * channels;
        let (batch, signs) = (self.shape.batch, &norm_pool::signs(gamma)[..]);
        let mut partial = Scratch::take(batch * 3 * channels);
        let images = partial.chunks_mut(3 * channels).zip(each_image(winners, batch));
        share_items(images, |image, (of_image, winners)| {
            let (mut z, mut sums) = (Scratch::take(longest), Scratch::take(per_image));
            for (index, (rows, sums)) in bands.iter().zip(sums.chunks_exact_mut(3 * channels)).enumerate() {
                let z = &mut z[..rows.count * line];
                convolution.rows(image, rows.first, rows.count, z);
                set.run(batch_norm::Sums { channels, x: z, sums });
                if let Tail::Pooled { size, .. } = self.tail {
                    let shape = &self.pooled(size);
                    let out_line = shape.pooled_width() * channels;
                    let winners = &mut winners[index * out_line..][..out_line];
                    set.run(norm_pool::Winners { shape, x: z, signs, winners });
                }
            }
            let counts = bands.iter().map(|rows| rows.count * self.shape.out_width());
            batch_norm::merge_sums(counts, &sums, of_image);
        });
        join_statistics(std::iter::repeat_n(self.pixels(), batch), &partial, mean, variance);
        let norm = &Norm { gamma, beta, mean, variance, epsilon };
        let activation = match self.tail {
            Tail::Activated(activation) => activation,
            Tail::Pooled { size, dropout } => return norm_pool::forward(&self.pooled(size), winners, norm, dropout, y),
        };
        let (affine, relu) = (&norm.affine()[..], activation == Activation::Relu);
        share_chunks(y, self.pixels() * channels, |image, y| {
            let mut z = Scratch::take(longest);
            for rows in bands {
                let x = &mut z[..rows.count * line];
                convolution.rows(image, rows.first, rows.count, x);
                let y = &mut y[rows.first * line..][..x.len()];
                set.run(batch_norm::Apply { channels, x, affine, residual: None, relu, y });
            }
        });
    }

    /// Gradients of the parameters. `dy` is the gradient that arrives at the output; the norm has the statistics that
    /// [`ThinBlock::forward_training`] returned, as `winners` are.
    ///
    /// # Panics
    /// As [`ThinBlock::forward_training`].
    pub fn backward(&self, x: &[f32], winners: &[f32], norm: &Norm, dy: &[f32], gradients: ThinGradients) {
        let ThinGradients { dweight, dbias, dgamma, dbeta } = gradients;
        self.check(x);
        let channels = self.shape.out_channels;
        assert_eq!(winners.len(), self.winners_len(), "length of the winners");
        assert_eq!(dy.len(), self.output_len(), "length of dy");
        assert_eq!(dweight.len(), self.shape.weight_len(), "length of dweight");
        norm.check(channels);
        if self.shape.output_len() == 0 {
            [dweight, dgamma, dbeta].into_iter().chain(dbias).for_each(|gradient| gradient.fill(0.0));
            return;
        }
        let (set, bands, line) = (InstructionSet::best(), &self.bands()[..], self.line());
        let longest = bands.iter().map(|rows| rows.count).max().unwrap_or(0) * line;
        let convolution = &self.convolution(set, x);
        let affine;
        let gradient = match self.tail {
            Tail::Pooled { size, dropout } => {
                let shape = self.pooled(size);
                Gradient::Pooled(WindowSums::new(&shape, winners, norm, dropout, dy, dgamma, dbeta))
            }
            Tail::Activated(activation) => {
                let gate = if activation == Activation::Relu { Gate::Recomputed } else { Gate::Open };
                affine = norm.affine();
                let pixels = Pixels { block: self, affine: &affine, mean: norm.mean, dy, gate };
                let mut partial = Scratch::zeros(self.shape.batch * 2 * channels);
                share_chunks(&mut partial, 2 * channels, |image, total| {
                    let (mut z, mut sums) = (Scratch::take(longest), Scratch::take(2 * channels));
                    for rows in bands {
                        let z = &mut z[..rows.count * line];
                        convolution.rows(image, rows.first, rows.count, z);
                        set.run(batch_norm::GradientSums { input: pixels.of(image, *rows, z), sums: &mut sums });
                        add(&sums, total);
                    }
                });
                let rows = self.shape.batch * self.pixels();
                Gradient::Activated(pixels, Terms::new(norm, rows, &partial, dgamma, dbeta))
            }
        };
        let mut bias_sums = Scratch::zeros(self.shape.batch * channels);
        let bias_of_image = crate::shared::Shared::new(&mut bias_sums);
        let (weights, gates) = (RowsGradient::new(set, &self.shape, x), self.before.gates());
        weights.sum(dweight, |images, dweight| {
            let (mut z, mut dz) = (Scratch::take(longest), Scratch::take(longest));
            let (mut sums, mut total) = (Scratch::take(channels), Scratch::take(channels));
            for image in images {
                total.fill(0.0);
                for (index, rows) in bands.iter().enumerate() {
                    let (z, dz) = (&mut z[..rows.count * line], &mut dz[..rows.count * line]);
                    convolution.rows(image, rows.first, rows.count, z);
                    gradient.apply(set, gates, (image, index), *rows, z, dz, &mut sums);
                    add(&sums, &mut total);
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

/// `sums += terms`.
fn add(terms: &[f32], sums: &mut [f32]) {
    sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
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
    block: &'a ThinBlock<'a>,
    affine: &'a [f32],
    mean: &'a [f32],
    dy: &'a [f32],
    gate: Gate,
}

impl Pixels<'_> {
    /// Those of some rows of an image, where `x` is the convolution's output.
    fn of<'b>(&'b self, image: usize, rows: Rows, x: &'b [f32]) -> batch_norm::Gradient<'b> {
        let Self { block, affine, mean, dy, gate } = *self;
        let channels = block.shape.out_channels;
        let first = image * block.pixels() * channels + rows.first * block.line();
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
                // SAFETY: both are borrowed mutably; `dz` is as long as `z`, the rows, and the sums hold a number for each
                // channel.
                set.run(unsafe { batch_norm::GradientApply::new(input, terms, gates, dx, None, sums) });
            }
            Self::Pooled(windows) => {
                // SAFETY: `dz` is borrowed mutably and as long as `z`, the band.
                set.run(unsafe { norm_pool::GradientApply::new(windows.band(image, index, z), gates, dx, sums) });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{
        assert_close, assert_shows, numbers, same_for_any_thread_count, widen, with_each_input_broken,
        with_every_instruction_set,
    };
    use crate::{convolution, norm_pool};
    use batch_norm::{NormGradients, NormShape};
    use proptest::prelude::*;

    const EPSILON: f32 = 1e-3;

    /// Output, mean, variance, and gradients of weight, bias, gamma and beta.
    type Results = [Vec<f32>; 7];

    struct Case {
        shape: ConvolutionShape,
        before: Activation,
        tail: Tail,
        x: Vec<f32>,
        weight: Vec<f32>,
        bias: Vec<f32>,
        gamma: Vec<f32>,
        beta: Vec<f32>,
        dy: Vec<f32>,
    }

    impl Case {
        fn new(shape: ConvolutionShape, before: Activation, tail: Tail, seed: u64) -> Self {
            let channels = shape.out_channels;
            let mut case = Self {
                shape,
                before,
                tail,
                x: numbers(seed, shape.input_len()),
                weight: numbers(seed + 1, shape.weight_len()),
                bias: numbers(seed + 2, channels),
                gamma: numbers(seed + 3, channels),
                beta: numbers(seed + 4, channels),
                dy: Vec::new(),
            };
            case.dy = numbers(seed + 5, case.block().output_len());
            case
        }

        fn block(&self) -> ThinBlock<'_> {
            let Self { shape, before, tail, weight, bias, .. } = self;
            ThinBlock { shape: *shape, weight, bias: Some(bias), before: *before, tail: *tail }
        }

        fn empty(&self) -> Results {
            let channels = self.shape.out_channels;
            let lengths = [self.dy.len(), channels, channels, self.weight.len(), channels, channels, channels];
            lengths.map(|length| vec![f32::NAN; length])
        }

        fn ours(&self) -> Results {
            let Self { x, gamma, beta, dy, .. } = self;
            let [mut y, mut mean, mut variance, mut dweight, mut dbias, mut dgamma, mut dbeta] = self.empty();
            let mut winners = vec![f32::NAN; self.block().winners_len()];
            self.block().forward_training(x, gamma, beta, EPSILON, &mut winners, &mut y, &mut mean, &mut variance);
            let norm = Norm { gamma, beta, mean: &mean, variance: &variance, epsilon: EPSILON };
            let gradients = ThinGradients {
                dweight: &mut dweight,
                dbias: Some(&mut dbias),
                dgamma: &mut dgamma,
                dbeta: &mut dbeta,
            };
            self.block().backward(x, &winners, &norm, dy, gradients);
            [y, mean, variance, dweight, dbias, dgamma, dbeta]
        }

        fn one_after_the_other(&self) -> Results {
            let Self { shape, before, x, weight, bias, gamma, beta, dy, .. } = self;
            let [mut y, mut mean, mut variance, mut dweight, mut dbias, mut dgamma, mut dbeta] = self.empty();
            let mut z = vec![0.0; shape.output_len()];
            convolution::forward(shape, x, weight, Some(bias), *before, &mut z);
            let (mut dz, mut winners) = (vec![0.0; z.len()], vec![0.0; self.block().winners_len()]);
            let block = self.block();
            let rows = NormShape { rows: block.shape.batch * block.pixels(), channels: block.shape.out_channels };
            match self.tail {
                Tail::Activated(activation) => {
                    batch_norm::forward_training(
                        &rows,
                        &z,
                        gamma,
                        beta,
                        EPSILON,
                        None,
                        activation,
                        &mut y,
                        &mut mean,
                        &mut variance,
                    );
                }
                Tail::Pooled { size, dropout } => {
                    let shape = self.block().pooled(size);
                    norm_pool::forward_training(
                        &shape,
                        &z,
                        gamma,
                        beta,
                        EPSILON,
                        dropout,
                        &mut winners,
                        &mut y,
                        &mut mean,
                        &mut variance,
                    );
                }
            }
            let norm = Norm { gamma, beta, mean: &mean, variance: &variance, epsilon: EPSILON };
            let gradients =
                NormGradients { dx: &mut dz, dgamma: &mut dgamma, dbeta: &mut dbeta, dbias: Some(&mut dbias) };
            match self.tail {
                Tail::Activated(activation) => {
                    batch_norm::backward(&rows, &z, &norm, activation, &y, dy, *before, None, gradients);
                }
                Tail::Pooled { size, dropout } => {
                    let shape = self.block().pooled(size);
                    norm_pool::backward(&shape, &z, &winners, &norm, dropout, dy, *before, gradients);
                }
            }
            convolution::weight_gradient(shape, x, &dz, &mut dweight);
            [y, mean, variance, dweight, dbias, dgamma, dbeta]
        }
    }

    fn shape(batch: usize, inputs: usize, outputs: usize, height: usize, width: usize) -> ConvolutionShape {
        ConvolutionShape {
            batch,
            in_channels: inputs,
            in_height: height,
            in_width: width,
            out_channels: outputs,
            kernel_height: 3,
            kernel_width: 3,
            stride: 1,
            padding: 1,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn the_same_as_one_after_the_other(
            batch in 1_usize..11, inputs in 1_usize..4, outputs in 1_usize..70, height in 3_usize..9, width in 3_usize..9,
            stride in 1_usize..3, padding in 0_usize..3, seed in 0_u64..1000, tail in 0..4, relu in any::<bool>(),
        ) {
            let shape = ConvolutionShape { stride, padding, ..shape(batch, inputs, outputs, height, width) };
            let size = 2.min(shape.out_height()).min(shape.out_width());
            let tail = match tail {
                0 => Tail::Activated(Activation::Linear),
                1 => Tail::Activated(Activation::Relu),
                2 => Tail::Pooled { size, dropout: Dropout::NONE },
                _ => Tail::Pooled { size, dropout: Dropout { rate: 0.4, key: seed } },
            };
            let before = if relu { Activation::Relu } else { Activation::Linear };
            let case = Case::new(shape, before, tail, seed);
            with_every_instruction_set(|| {
                for (part, (ours, expected)) in case.ours().iter().zip(case.one_after_the_other()).enumerate() {
                    // Behind no activation the bias moves nothing: a sum of terms that cancel.
                    if part == 4 && before == Activation::Linear {
                        assert!(ours.iter().chain(&expected).all(|gradient| gradient.abs() < 1e-3));
                    } else {
                        assert_close(ours, &widen(&expected), 5e-5);
                    }
                }
            });
        }
    }

    #[test]
    fn results_do_not_depend_on_the_number_of_threads() {
        for tail in
            [Tail::Activated(Activation::Relu), Tail::Pooled { size: 2, dropout: Dropout { rate: 0.25, key: 5 } }]
        {
            let case = Case::new(shape(9, 1, 64, 48, 47), Activation::Relu, tail, 3);
            same_for_any_thread_count(|| case.ours().concat());
        }
    }

    #[test]
    fn what_is_no_number_shows_wherever_the_single_layers_show_it() {
        let (linear, relu, shape) = (Activation::Linear, Activation::Relu, shape(2, 1, 19, 7, 7));
        let pooled = Tail::Pooled { size: 2, dropout: Dropout::NONE };
        for (before, tail) in [linear, relu]
            .into_iter()
            .flat_map(|before| [Tail::Activated(linear), Tail::Activated(relu), pooled].map(|tail| (before, tail)))
        {
            println!("{before:?}, {tail:?}"); // shown if the check fails
            let Case { x, weight, bias, gamma, mut beta, dy, .. } = Case::new(shape, before, tail, 3);
            beta[18] = 3.0; // gates of the last channel are open
            let places = [49 + 24, 4 * 19 + 18, 18, 18, 18, dy.len() - 1];
            with_each_input_broken([x, weight, bias, gamma, beta, dy], places, |_, inputs| {
                let [x, weight, bias, gamma, beta, dy] = inputs.clone();
                let case = Case { x, weight, bias, gamma, beta, dy, ..Case::new(shape, before, tail, 3) };
                with_every_instruction_set(|| {
                    for (ours, expected) in case.ours().iter().zip(&case.one_after_the_other()) {
                        // Infinities may meet in the norm's map of the channel.
                        assert_shows(ours, &widen(expected), |place| place % 19 == 18);
                    }
                });
            });
        }
    }
}
