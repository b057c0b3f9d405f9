//! Batch norm, max pooling and dropout in one: what follows a convolution in the course report's network.
//!
//! In: images `[batch, height, width, channels]`. Out: pooled images `[batch, height / size, width / size, channels]`, or
//! gradients. The same as [`crate::batch_norm`], [`crate::pooling`] and [`crate::dropout`] one after the other, which
//! the tests hold it to, without writing what lies between. The statistics count every pixel, also those of a last row
//! or column that pooling drops; those have no winner and get only what the statistics send them.

use rayon::prelude::*;

use crate::activation::Activation;
use crate::batch_norm::{BiasSums, Norm, NormGradients, NormShape, Terms, TermsOfOne, statistics};
use crate::dropout::{Dropout, Mask};
use crate::scratch::Scratch;
use crate::shared::Shared;
use crate::simd::{InstructionSet, Kernel, Lanes};
use crate::sizes::elements;

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
/// are also returned in `mean` and `variance` `[channels]`.
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
    y: &mut [f32],
    mean: &mut [f32],
    variance: &mut [f32],
) {
    statistics(&shape.norm(), x, mean, variance);
    forward(shape, x, &Norm { gamma, beta, mean, variance, epsilon }, dropout, y);
}

/// [`forward_training`] with given statistics.
///
/// # Panics
/// As [`forward_training`].
pub fn forward(shape: &NormPoolShape, x: &[f32], norm: &Norm, dropout: Dropout, y: &mut [f32]) {
    shape.check();
    assert_eq!(x.len(), shape.input_len(), "length of x");
    assert_eq!(y.len(), shape.output_len(), "length of y");
    norm.check(shape.channels);
    if y.is_empty() {
        return;
    }
    let affine = norm.affine();
    let (set, mask, affine) = (InstructionSet::best(), dropout.mask(), &affine[..]);
    let (image, line) = (shape.image(), shape.pooled_width() * shape.channels);
    // A task is one row of windows of one image.
    y.par_chunks_mut(line).enumerate().for_each(|(task, y)| {
        let (index, row) = (task / shape.pooled_height(), task % shape.pooled_height());
        let from = index * image + row * shape.size * shape.width * shape.channels;
        let x = &x[from..][..shape.size * shape.width * shape.channels];
        set.run(Forward { shape, x, affine, mask, dropout, first: task * line, y });
    });
}

/// One row of windows, forward. The caller vouches for the lengths.
pub(crate) struct Forward<'a> {
    pub(crate) shape: &'a NormPoolShape,
    /// The `size` rows under the windows.
    pub(crate) x: &'a [f32],
    /// Scales, then shifts.
    pub(crate) affine: &'a [f32],
    pub(crate) mask: Mask,
    pub(crate) dropout: Dropout,
    /// Number of the first output, for the mask.
    pub(crate) first: usize,
    pub(crate) y: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let NormPoolShape { width, channels, size, .. } = *self.shape;
        assert!(self.x.len() >= size * width * channels && self.affine.len() == 2 * channels);
        assert_eq!(self.y.len(), self.shape.pooled_width() * channels);
        for window in 0..self.shape.pooled_width() {
            for first in (0..channels).step_by(L::WIDTH) {
                // SAFETY: the window lies inside the `size` rows of `x`, each of `width` pixels of `channels` numbers; the
                // map is two rows of `channels`, and `y` has a pixel for each window.
                unsafe {
                    let scale = L::load_within(self.affine.as_ptr(), first, channels);
                    let shift = L::load_within(self.affine.as_ptr().add(channels), first, channels);
                    let corner = self.x.as_ptr().add(window * size * channels);
                    let mut largest = L::load_within(corner, first, channels).mul_add(scale, shift);
                    for i in 0..size {
                        for j in 0..size {
                            if i + j > 0 {
                                let pixel = corner.add((i * width + j) * channels);
                                let value = L::load_within(pixel, first, channels).mul_add(scale, shift);
                                largest = largest.larger(value);
                            }
                        }
                    }
                    let place = window * channels;
                    if self.dropout.rate > 0.0 {
                        largest = largest.mul(self.mask.factors(self.first + place + first));
                    }
                    largest.store_within(self.y.as_mut_ptr().add(place), first, channels);
                }
            }
        }
    }
}

/// Gradients of [`forward_training`]. `dy` is the gradient that arrives at the output. With `before` ReLU, `x` is taken
/// for the output of a ReLU and `dx` is the gradient before that.
///
/// # Panics
/// If a slice has another length than its shape, or the window does not fit.
pub fn backward(
    shape: &NormPoolShape,
    x: &[f32],
    norm: &Norm,
    dropout: Dropout,
    dy: &[f32],
    before: Activation,
    gradients: NormGradients,
) {
    let NormGradients { dx, dgamma, dbeta, dbias } = gradients;
    let inputs = Inputs { x, norm, dropout, dy, before };
    let mut backward = Backward::new(shape, inputs, dgamma, dbeta, dbias.is_some());
    backward.apply(0..shape.batch, dx);
    if let Some(dbias) = dbias {
        backward.bias(dbias);
    }
}

/// What a backward pass reads; see [`backward`].
#[derive(Clone, Copy)]
pub(crate) struct Inputs<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) norm: &'a Norm<'a>,
    pub(crate) dropout: Dropout,
    pub(crate) dy: &'a [f32],
    pub(crate) before: Activation,
}

/// A backward pass whose sums are known, so that the gradients of any image can be told.
pub(crate) struct Backward<'a> {
    set: InstructionSet,
    shape: NormPoolShape,
    inputs: Inputs<'a>,
    mask: Mask,
    /// Scales, then shifts.
    affine: Scratch,
    terms: Terms,
    /// Sums of the gradients so far.
    bias: Option<BiasSums>,
}

impl<'a> Backward<'a> {
    /// `dgamma` and `dbeta` are overwritten.
    pub(crate) fn new(
        shape: &NormPoolShape,
        inputs: Inputs<'a>,
        dgamma: &mut [f32],
        dbeta: &mut [f32],
        biased: bool,
    ) -> Self {
        shape.check();
        let (set, channels) = (InstructionSet::best(), shape.channels);
        assert_eq!(inputs.x.len(), shape.input_len(), "length of x");
        assert_eq!(inputs.dy.len(), shape.output_len(), "length of dy");
        inputs.norm.check(channels);
        // Panics if nothing can go back through it.
        inputs.before.gates();
        let (affine, mask) = (inputs.norm.affine(), inputs.dropout.mask());
        let bias = biased.then(|| BiasSums::new(channels));
        let terms = Terms::new(inputs.norm, shape.norm().rows, &[], dgamma, dbeta);
        let mut backward = Self { set, shape: *shape, inputs, mask, affine, terms, bias };
        let mut partial = Scratch::take(elements([shape.batch, shape.pooled_height(), 2 * channels]));
        partial.par_chunks_mut((2 * channels).max(1)).enumerate().for_each(|(task, sums)| {
            set.run(GradientSums { band: backward.band(task), sums });
        });
        backward.terms = Terms::new(inputs.norm, shape.norm().rows, &partial, dgamma, dbeta);
        backward
    }

    /// Place of the first number of a band: of row `task % bands` of windows of image `task / bands`.
    fn start(&self, task: usize) -> usize {
        let bands = self.shape.pooled_height();
        (task / bands * self.shape.height + task % bands * self.shape.size) * self.shape.line()
    }

    fn band(&self, task: usize) -> Band<'_> {
        let shape = &self.shape;
        let Inputs { x, norm, dropout, dy, .. } = self.inputs;
        let out_line = shape.pooled_width() * shape.channels;
        let rows = shape.band_rows(task % shape.pooled_height());
        let (x, dy) = (&x[self.start(task)..][..rows * shape.line()], &dy[task * out_line..][..out_line]);
        let (affine, first) = (&self.affine[..], task * out_line);
        Band { shape, rows, x, dy, affine, mean: norm.mean, mask: self.mask, dropout, first }
    }

    /// The gradients of some images.
    pub(crate) fn apply(&mut self, images: std::ops::Range<usize>, dx: &mut [f32]) {
        let (channels, bands) = (self.shape.channels, self.shape.pooled_height());
        assert_eq!(dx.len(), images.len() * self.shape.image(), "length of dx");
        if dx.is_empty() {
            return;
        }
        let dx = Shared::new(dx);
        let first = images.start * bands;
        let mut sums = Scratch::take(images.len() * bands * channels);
        sums.par_chunks_mut(channels).enumerate().for_each(|(task, sums)| {
            let dx = dx.at(self.start(first + task) - self.start(first));
            let (band, terms) = (self.band(first + task), self.terms.of(0, channels));
            let gate_input = self.inputs.before.gates();
            // SAFETY: the band's part of `dx`, which is as long as the images (checked above), is as long as its part of
            // `x`, and this task's own.
            self.set.run(unsafe { GradientApply::new(band, terms, gate_input, dx, sums) });
        });
        if let Some(bias) = &mut self.bias {
            bias.add(&sums);
        }
    }

    /// The sums of the gradients of all images that [`Backward::apply`] was asked for, overwritten.
    pub(crate) fn bias(&self, dbias: &mut [f32]) {
        self.bias.as_ref().expect("asked for when it was made").write(dbias);
    }
}

/// One row of windows of one image, backward.
pub(crate) struct Band<'a> {
    pub(crate) shape: &'a NormPoolShape,
    /// Rows of the image, at least those under the windows.
    pub(crate) rows: usize,
    /// These rows.
    pub(crate) x: &'a [f32],
    /// Gradients of the windows.
    pub(crate) dy: &'a [f32],
    /// Scales, then shifts.
    pub(crate) affine: &'a [f32],
    pub(crate) mean: &'a [f32],
    pub(crate) mask: Mask,
    pub(crate) dropout: Dropout,
    /// Number of the first window's first channel, for the mask.
    pub(crate) first: usize,
}

impl Band<'_> {
    fn check(&self) {
        let NormPoolShape { channels, size, .. } = *self.shape;
        assert!(self.rows >= size && self.x.len() == self.rows * self.shape.line());
        assert_eq!(self.dy.len(), self.shape.pooled_width() * channels);
        assert!(self.affine.len() == 2 * channels && self.mean.len() == channels);
    }

    /// Place of a pixel's first channel.
    #[inline(always)]
    fn pixel(&self, row: usize, column: usize) -> usize {
        (row * self.shape.width + column) * self.shape.channels
    }

    /// The gradient that reaches a window's winner.
    ///
    /// # Safety
    /// The window is one of the band's, `first` one of its channels, and [`Band::check`] has passed.
    #[inline(always)]
    unsafe fn gradient<L: Lanes>(&self, window: usize, first: usize) -> L {
        let place = window * self.shape.channels;
        // SAFETY: a pixel of `dy`, whose length was checked.
        let gradient = unsafe { L::load_within(self.dy.as_ptr().add(place), first, self.shape.channels) };
        if self.dropout.rate > 0.0 { gradient.mul(self.mask.factors(self.first + place + first)) } else { gradient }
    }

    /// The map of the norm for some channels.
    ///
    /// # Safety
    /// `first` is a channel, and [`Band::check`] has passed.
    #[inline(always)]
    unsafe fn map<L: Lanes>(&self, first: usize) -> (L, L) {
        let channels = self.shape.channels;
        // SAFETY: two rows of `channels` numbers.
        unsafe {
            (
                L::load_within(self.affine.as_ptr(), first, channels),
                L::load_within(self.affine.as_ptr().add(channels), first, channels),
            )
        }
    }

    /// Input of a pixel.
    ///
    /// # Safety
    /// The pixel is one of the band's, `first` a channel, and [`Band::check`] has passed.
    #[inline(always)]
    unsafe fn input<L: Lanes>(&self, row: usize, column: usize, first: usize) -> L {
        // SAFETY: a pixel of `x`, whose length was checked.
        unsafe { L::load_within(self.x.as_ptr().add(self.pixel(row, column)), first, self.shape.channels) }
    }
}

/// Sums of the gradient, and of the gradient times the winner less its mean.
pub(crate) struct GradientSums<'a> {
    pub(crate) band: Band<'a>,
    /// `[2, channels]`, overwritten.
    pub(crate) sums: &'a mut [f32],
}

impl Kernel for GradientSums<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let NormPoolShape { channels, size, .. } = *self.band.shape;
        self.band.check();
        assert_eq!(self.sums.len(), 2 * channels);
        self.sums.fill(0.0);
        let sums = self.sums.as_mut_ptr();
        // Window after window, as they lie in memory: what each channel needs again and again is in the first-level cache.
        for window in 0..self.band.shape.pooled_width() {
            for first in (0..channels).step_by(L::WIDTH) {
                // SAFETY: windows, pixels and channels are those of the band; the sums are two rows of `channels`.
                unsafe {
                    let (scale, shift) = self.band.map::<L>(first);
                    let mean = L::load_within(self.band.mean.as_ptr(), first, channels);
                    let mut winner = self.band.input::<L>(0, window * size, first);
                    let mut largest = winner.mul_add(scale, shift);
                    for i in 0..size {
                        for j in 0..size {
                            let x = self.band.input::<L>(i, window * size + j, first);
                            let value = x.mul_add(scale, shift);
                            winner = x.where_greater(value, largest, winner);
                            largest = value.where_greater(value, largest, largest);
                        }
                    }
                    let gradient = self.band.gradient::<L>(window, first);
                    add_within(gradient, sums, first, channels);
                    let product = L::load_within(sums.add(channels), first, channels);
                    gradient.mul_add(winner.sub(mean), product).store_within(sums.add(channels), first, channels);
                }
            }
        }
    }
}

/// Adds a vector to some of `length` sums.
///
/// # Safety
/// `sums` is valid for reads and writes of `length` numbers, and `first` is below it.
#[inline(always)]
unsafe fn add_within<L: Lanes>(value: L, sums: *mut f32, first: usize, length: usize) {
    // SAFETY: by this function's contract.
    unsafe { L::load_within(sums, first, length).add(value).store_within(sums, first, length) }
}

/// Gradients of the band's pixels.
///
/// The address must be valid for all that is written; whoever makes one vouches for it by calling
/// [`GradientApply::new`].
pub(crate) struct GradientApply<'a> {
    band: Band<'a>,
    terms: TermsOfOne<'a>,
    gate_input: bool,
    /// As many numbers as the band has.
    dx: *mut f32,
    /// Sums of the gradients over the pixels, `[channels]`, overwritten.
    sums: &'a mut [f32],
}

impl<'a> GradientApply<'a> {
    /// With `gate_input` the input is the output of a ReLU, and `dx` the gradient before that.
    ///
    /// # Safety
    /// Until it has run, `dx` is valid for writes of as many numbers as the band has, and nobody else touches them.
    pub(crate) unsafe fn new(
        band: Band<'a>,
        terms: TermsOfOne<'a>,
        gate_input: bool,
        dx: *mut f32,
        sums: &'a mut [f32],
    ) -> Self {
        Self { band, terms, gate_input, dx, sums }
    }
}

impl Kernel for GradientApply<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let band = &self.band;
        let NormPoolShape { width, channels, size, .. } = *band.shape;
        let windows = band.shape.pooled_width();
        band.check();
        self.terms.check(channels);
        assert_eq!(self.sums.len(), channels);
        self.sums.fill(0.0);
        let sums = self.sums.as_mut_ptr();
        // Window after window, as in [`GradientSums`].
        for window in 0..windows {
            for first in (0..channels).step_by(L::WIDTH) {
                let mut sum = L::splat(0.0);
                // SAFETY: windows, pixels and channels are those of the band, for whose pixels `dx` has room (see `new`).
                unsafe {
                    let (scale, shift) = band.map::<L>(first);
                    let mean = L::load_within(band.mean.as_ptr(), first, channels);
                    let [slope, curve, level] = self.terms.at::<L>(first, channels);
                    let mut largest = band.input::<L>(0, window * size, first).mul_add(scale, shift);
                    for i in 0..size {
                        for j in 0..size {
                            let value = band.input::<L>(i, window * size + j, first).mul_add(scale, shift);
                            largest = value.where_greater(value, largest, largest);
                        }
                    }
                    let mut left = band.gradient::<L>(window, first);
                    for i in 0..size {
                        for j in 0..size {
                            let column = window * size + j;
                            let x = band.input::<L>(i, column, first);
                            // The first pixel that equals the largest takes the gradient, and nothing is left.
                            let gradient = left.where_equal(x.mul_add(scale, shift), largest);
                            left = left.sub(gradient);
                            let centred = x.sub(mean).mul_add(curve, level);
                            let mut dx = gradient.mul_add(slope, centred);
                            if self.gate_input {
                                dx = dx.gated(x);
                            }
                            sum = sum.add(dx);
                            dx.store_within(self.dx.add(band.pixel(i, column)), first, channels);
                        }
                    }
                    add_within(sum, sums, first, channels);
                }
            }
        }
        // What no window covers.
        for row in 0..band.rows {
            let start = if row < size { windows * size } else { 0 };
            for column in start..width {
                for first in (0..channels).step_by(L::WIDTH) {
                    // SAFETY: as above.
                    unsafe {
                        let mean = L::load_within(band.mean.as_ptr(), first, channels);
                        let [_, curve, level] = self.terms.at::<L>(first, channels);
                        let x = band.input::<L>(row, column, first);
                        let mut dx = x.sub(mean).mul_add(curve, level);
                        if self.gate_input {
                            dx = dx.gated(x);
                        }
                        add_within(dx, sums, first, channels);
                        dx.store_within(self.dx.add(band.pixel(row, column)), first, channels);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
