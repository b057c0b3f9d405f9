//! Batch norm, max pooling and dropout in one: what follows a convolution in the report's network.
//!
//! In: images `[batch, height, width, channels]`. Out: pooled images `[batch, height / size, width / size, channels]`, or
//! gradients. The same as [`crate::batch_norm`], [`crate::pooling`] and [`crate::dropout`] one after the other, which
//! the tests hold it to; of what lies between only the winners of the windows are written. They are found in front of the norm:
//! where it rounds two inputs to one number, or its scale is zero, the one that was the larger wins. The statistics count every pixel, also those of a last row
//! or column that pooling drops; those have no winner and get only what the statistics send them.

use crate::threads::share_chunks;

use crate::activation::Activation;
use crate::batch_norm::{BiasSums, GROUP, Norm, NormGradients, NormShape, Terms, TermsOfOne, statistics, store_sums};
use crate::dropout::{Dropout, Mask};
use crate::scratch::Scratch;
use crate::shared::Shared;
use crate::simd::{InstructionSet, Kernel, Lanes, PANEL};
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
/// are also returned in `mean` and `variance` `[channels]`. `winners` are those of [`winners`], for the way back.
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
    winners: &mut [f32],
    y: &mut [f32],
    mean: &mut [f32],
    variance: &mut [f32],
) {
    statistics(&shape.norm(), x, mean, variance);
    self::winners(shape, x, gamma, winners);
    forward(shape, winners, &Norm { gamma, beta, mean, variance, epsilon }, dropout, y);
}

/// What wins each window of `x`, and will whatever the statistics: the norm keeps the order of a channel's numbers, or
/// turns it round where gamma is negative. There the winner is the smallest, and stands here with its sign changed. Where gamma
/// is zero any might win, and the largest does.
/// `winners` has a number for each of the output.
///
/// # Panics
/// If a slice has another length than its shape, or the window does not fit.
pub fn winners(shape: &NormPoolShape, x: &[f32], gamma: &[f32], winners: &mut [f32]) {
    shape.check();
    assert_eq!(x.len(), shape.input_len(), "length of x");
    assert_eq!(gamma.len(), shape.channels, "length of gamma");
    assert_eq!(winners.len(), shape.output_len(), "length of the winners");
    if winners.is_empty() {
        return;
    }
    let (set, signs) = (InstructionSet::best(), &signs(gamma)[..]);
    let (image, line) = (shape.image(), shape.pooled_width() * shape.channels);
    // A task is one row of windows of one image.
    share_chunks(winners, line, |task, winners| {
        let (index, row) = (task / shape.pooled_height(), task % shape.pooled_height());
        let from = index * image + row * shape.size * shape.line();
        set.run(Winners { shape, x: &x[from..][..shape.size * shape.line()], signs, winners });
    });
}

/// What the order of each channel's numbers is multiplied by.
pub(crate) fn signs(gamma: &[f32]) -> Scratch {
    let mut signs = Scratch::take(gamma.len());
    signs.iter_mut().zip(gamma).for_each(|(sign, &gamma)| *sign = if gamma < 0.0 { -1.0 } else { 1.0 });
    signs
}

/// The winners of one row of windows. The caller vouches for the lengths.
pub(crate) struct Winners<'a> {
    pub(crate) shape: &'a NormPoolShape,
    /// The `size` rows under the windows.
    pub(crate) x: &'a [f32],
    /// Of each channel.
    pub(crate) signs: &'a [f32],
    pub(crate) winners: &'a mut [f32],
}

impl Kernel for Winners<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let NormPoolShape { width, channels, size, .. } = *self.shape;
        assert!(self.x.len() >= size * width * channels && self.signs.len() == channels);
        assert_eq!(self.winners.len(), self.shape.pooled_width() * channels);
        for window in 0..self.shape.pooled_width() {
            for first in (0..channels).step_by(L::WIDTH) {
                // SAFETY: the window lies inside the `size` rows of `x`, each of `width` pixels of `channels` numbers; there
                // is a sign for each channel, and `winners` has a pixel for each window.
                unsafe {
                    let sign = L::load_within(self.signs.as_ptr(), first, channels);
                    let corner = self.x.as_ptr().add(window * size * channels);
                    let mut winner = L::load_within(corner, first, channels).mul(sign);
                    for i in 0..size {
                        for j in 0..size {
                            if i + j > 0 {
                                let pixel = corner.add((i * width + j) * channels);
                                winner = winner.larger(L::load_within(pixel, first, channels).mul(sign));
                            }
                        }
                    }
                    winner.store_within(self.winners.as_mut_ptr().add(window * channels), first, channels);
                }
            }
        }
    }
}

/// [`forward_training`] with given winners and statistics.
///
/// # Panics
/// As [`forward_training`].
pub fn forward(shape: &NormPoolShape, winners: &[f32], norm: &Norm, dropout: Dropout, y: &mut [f32]) {
    shape.check();
    assert_eq!(winners.len(), shape.output_len(), "length of the winners");
    assert_eq!(y.len(), shape.output_len(), "length of y");
    norm.check(shape.channels);
    if y.is_empty() {
        return;
    }
    let (signs, mut affine) = (signs(norm.gamma), norm.affine());
    // The winners have their signs already.
    affine.iter_mut().zip(&signs[..]).for_each(|(scale, sign)| *scale *= sign);
    let (set, mask, affine, channels) = (InstructionSet::best(), dropout.mask(), &affine[..], shape.channels);
    let task_len = shape.norm().task_rows() * channels;
    share_chunks(y, task_len, |task, y| {
        let first = task * task_len;
        let winners = &winners[first..][..y.len()];
        set.run(Forward { channels, winners, affine, mask, dropout, first, y });
    });
}

/// Some windows, forward. The caller vouches for the lengths.
struct Forward<'a> {
    channels: usize,
    winners: &'a [f32],
    /// Scales of the winners, then shifts.
    affine: &'a [f32],
    mask: Mask,
    dropout: Dropout,
    /// Number of the first output, for the mask.
    first: usize,
    y: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let channels = self.channels;
        assert!(self.affine.len() == 2 * channels && self.winners.len() == self.y.len());
        for place in (0..self.y.len() / channels).map(|window| window * channels) {
            for first in (0..channels).step_by(L::WIDTH) {
                // SAFETY: the map is two rows of `channels`, and so many numbers of both slices, which are equally long, lie
                // at `place`.
                unsafe {
                    let scale = L::load_within(self.affine.as_ptr(), first, channels);
                    let shift = L::load_within(self.affine.as_ptr().add(channels), first, channels);
                    let winner = L::load_within(self.winners.as_ptr().add(place), first, channels);
                    let mut value = winner.mul_add(scale, shift);
                    if self.dropout.rate > 0.0 {
                        value = value.mul(self.mask.factors(self.first + place + first));
                    }
                    value.store_within(self.y.as_mut_ptr().add(place), first, channels);
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
#[expect(clippy::too_many_arguments, reason = "a kernel's signature names every slice it reads and writes")]
pub fn backward(
    shape: &NormPoolShape,
    x: &[f32],
    winners: &[f32],
    norm: &Norm,
    dropout: Dropout,
    dy: &[f32],
    before: Activation,
    gradients: NormGradients,
) {
    let NormGradients { dx, dgamma, dbeta, dbias } = gradients;
    let sums = WindowSums::new(shape, winners, norm, dropout, dy, dgamma, dbeta);
    let mut backward = Backward::new(sums, x, before, dbias.is_some());
    backward.apply(0..shape.batch, dx);
    if let Some(dbias) = dbias {
        backward.bias(dbias);
    }
}

/// The first half of a backward pass, which looks at the windows alone: after it, the gradient of any pixel can be told.
pub(crate) struct WindowSums<'a> {
    set: InstructionSet,
    shape: NormPoolShape,
    winners: &'a [f32],
    mean: &'a [f32],
    dy: &'a [f32],
    dropout: Dropout,
    mask: Mask,
    signs: Scratch,
    terms: Terms,
}

impl<'a> WindowSums<'a> {
    /// `dgamma` and `dbeta` are overwritten.
    pub(crate) fn new(
        shape: &NormPoolShape,
        winners: &'a [f32],
        norm: &Norm<'a>,
        dropout: Dropout,
        dy: &'a [f32],
        dgamma: &mut [f32],
        dbeta: &mut [f32],
    ) -> Self {
        shape.check();
        assert_eq!(winners.len(), shape.output_len(), "length of the winners");
        assert_eq!(dy.len(), shape.output_len(), "length of dy");
        norm.check(shape.channels);
        let (set, channels, mask, signs) = (InstructionSet::best(), shape.channels, dropout.mask(), signs(norm.gamma));
        let task_len = (shape.norm().task_rows() * channels).max(1);
        let mut partial = Scratch::take(dy.len().div_ceil(task_len) * 2 * channels);
        share_chunks(&mut partial, (2 * channels).max(1), |task, sums| {
            let (mean, signs, first) = (norm.mean, &signs[..], task * task_len);
            let part = first..dy.len().min(first + task_len);
            let (winners, dy) = (&winners[part.clone()], &dy[part]);
            set.run(GradientSums { channels, winners, dy, mean, signs, mask, dropout, first, sums });
        });
        let terms = Terms::new(norm, shape.norm().rows, &partial, dgamma, dbeta);
        Self { set, shape: *shape, winners, mean: norm.mean, dy, dropout, mask, signs, terms }
    }

    /// Windows in a row of an image, times their channels.
    fn line(&self) -> usize {
        self.shape.pooled_width() * self.shape.channels
    }

    /// Row `row` of the windows of image `image`.
    pub(crate) fn row(&self, image: usize, row: usize) -> WindowRow<'_> {
        let first = (image * self.shape.pooled_height() + row) * self.line();
        let windows = first..first + self.line();
        let Self { shape, mask, dropout, .. } = self;
        WindowRow {
            channels: shape.channels,
            winners: &self.winners[windows.clone()],
            dy: &self.dy[windows],
            signs: &self.signs,
            mean: self.mean,
            terms: self.terms.of(0, shape.channels),
            mask: *mask,
            dropout: *dropout,
            first,
        }
    }

    /// The gradients of the rows `x` under row `row` of the windows of image `image`.
    pub(crate) fn band<'b>(&'b self, image: usize, row: usize, x: &'b [f32]) -> Band<'b> {
        Band { shape: &self.shape, rows: self.shape.band_rows(row), x, windows: self.row(image, row) }
    }
}

/// Sums of the gradient, and of the gradient times the winner less its mean, over some windows. The caller vouches for
/// the lengths.
struct GradientSums<'a> {
    channels: usize,
    winners: &'a [f32],
    dy: &'a [f32],
    mean: &'a [f32],
    signs: &'a [f32],
    mask: Mask,
    dropout: Dropout,
    /// Number of the first window's first channel, for the mask.
    first: usize,
    /// `[2, channels]`, overwritten.
    sums: &'a mut [f32],
}

impl Kernel for GradientSums<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let channels = self.channels;
        assert!(self.mean.len() == channels && self.signs.len() == channels && self.sums.len() == 2 * channels);
        assert_eq!(self.winners.len(), self.dy.len());
        let windows = self.dy.len() / channels;
        for group in (0..channels).step_by(GROUP * L::WIDTH) {
            let places = std::array::from_fn::<usize, GROUP, _>(|v| group + v * L::WIDTH);
            // SAFETY: rows of `channels` numbers are read inside the windows, the means and the signs, and two of them written
            // inside `sums`.
            unsafe {
                let mean = places.map(|first| L::load_padded(self.mean.as_ptr(), first, channels));
                let sign = places.map(|first| L::load_padded(self.signs.as_ptr(), first, channels));
                let mut sums = [[L::splat(0.0); 2]; GROUP];
                for place in (0..windows).map(|window| window * channels) {
                    let (winners, dy) = (self.winners.as_ptr().add(place), self.dy.as_ptr().add(place));
                    for v in 0..GROUP {
                        let winner = L::load_padded(winners, places[v], channels).mul(sign[v]);
                        let mut gradient = L::load_padded(dy, places[v], channels);
                        if self.dropout.rate > 0.0 {
                            gradient = gradient.mul(self.mask.factors(self.first + place + places[v]));
                        }
                        sums[v][0] = sums[v][0].add(gradient);
                        sums[v][1] = gradient.mul_add(winner.sub(mean[v]), sums[v][1]);
                    }
                }
                store_sums(&sums, self.sums.as_mut_ptr(), group, channels);
            }
        }
    }
}

/// A backward pass whose sums are known, so that the gradients of any image can be told.
pub(crate) struct Backward<'a> {
    sums: WindowSums<'a>,
    x: &'a [f32],
    before: Activation,
    /// Sums of the gradients so far.
    bias: Option<BiasSums>,
}

impl<'a> Backward<'a> {
    /// With sums of the gradients if `biased`.
    pub(crate) fn new(sums: WindowSums<'a>, x: &'a [f32], before: Activation, biased: bool) -> Self {
        assert_eq!(x.len(), sums.shape.input_len(), "length of x");
        // Panics if nothing can go back through it.
        before.gates();
        let bias = biased.then(|| BiasSums::new(sums.shape.channels));
        Self { sums, x, before, bias }
    }

    /// Place of the first number of a band: of row `task % bands` of windows of image `task / bands`.
    fn start(&self, task: usize) -> usize {
        let shape = &self.sums.shape;
        let bands = shape.pooled_height();
        (task / bands * shape.height + task % bands * shape.size) * shape.line()
    }

    /// The gradients of some images.
    pub(crate) fn apply(&mut self, images: std::ops::Range<usize>, dx: &mut [f32]) {
        let shape = &self.sums.shape;
        let (channels, bands) = (shape.channels, shape.pooled_height());
        assert_eq!(dx.len(), images.len() * shape.image(), "length of dx");
        if dx.is_empty() {
            return;
        }
        let dx = Shared::new(dx);
        let first = images.start * bands;
        let mut sums = Scratch::take(images.len() * bands * channels);
        share_chunks(&mut sums, channels, |task, sums| {
            let dx = dx.at(self.start(first + task) - self.start(first));
            let (task, gate_input) = (first + task, self.before.gates());
            let (image, row) = (task / bands, task % bands);
            let x = &self.x[self.start(task)..][..shape.band_rows(row) * shape.line()];
            // SAFETY: the band's part of `dx`, which is as long as the images (checked above), is as long as its part of
            // `x`, and this task's own.
            self.sums.set.run(unsafe { GradientApply::new(self.sums.band(image, row, x), gate_input, dx, sums) });
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

/// One row of windows of one image, backward: all but the pixels under them.
pub(crate) struct WindowRow<'a> {
    channels: usize,
    /// What won each window, with its channel's sign.
    winners: &'a [f32],
    /// Gradients of the windows.
    dy: &'a [f32],
    signs: &'a [f32],
    mean: &'a [f32],
    terms: TermsOfOne<'a>,
    mask: Mask,
    dropout: Dropout,
    /// Number of the first window's first channel, for the mask.
    first: usize,
}

/// What the gradients of a vector of channels are made with.
pub(crate) struct ChannelTerms<L> {
    sign: L,
    mean: L,
    slope: L,
    curve: L,
    level: L,
}

impl<L: Lanes> ChannelTerms<L> {
    /// Gradient of an input `x` to which `gradient` comes from behind the norm. With `gate_input` the input is the output of a
    /// ReLU, and the result the gradient before that.
    #[inline(always)]
    pub(crate) fn gradient(&self, x: L, gradient: L, gate_input: bool) -> L {
        let gradient = gradient.mul_add(self.slope, x.sub(self.mean).mul_add(self.curve, self.level));
        if gate_input { gradient.gated(x) } else { gradient }
    }

    /// The same for the next input of a window: the first that equals the winner takes what is `left` of the window's gradient,
    /// all of it.
    #[inline(always)]
    pub(crate) fn gradient_in_window(&self, x: L, winner: L, left: &mut L, gate_input: bool) -> L {
        let gradient = left.where_equal(x, winner);
        *left = left.sub(gradient);
        self.gradient(x, gradient, gate_input)
    }
}

impl WindowRow<'_> {
    /// Asserts that there are `windows` of them, of as many channels as there are terms.
    pub(crate) fn check(&self, windows: usize, channels: usize) {
        assert_eq!(self.channels, channels);
        assert!(self.dy.len() == windows * channels && self.winners.len() == windows * channels);
        assert!(self.signs.len() == channels && self.mean.len() == channels);
        self.terms.check(channels);
    }

    /// # Safety
    /// `first` is a channel, and [`WindowRow::check`] has passed.
    #[inline(always)]
    pub(crate) unsafe fn terms<L: Lanes>(&self, first: usize) -> ChannelTerms<L> {
        // SAFETY: all hold a number for each channel, whose lengths were checked.
        unsafe {
            let [slope, curve, level] = self.terms.at::<L>(first, self.channels);
            let sign = L::load_within(self.signs.as_ptr(), first, self.channels);
            let mean = L::load_within(self.mean.as_ptr(), first, self.channels);
            ChannelTerms { sign, mean, slope, curve, level }
        }
    }

    /// What won a window, as it came in, and the gradient that reaches it.
    ///
    /// # Safety
    /// The window is one of the row's, `first` one of its channels, and [`WindowRow::check`] has passed.
    #[inline(always)]
    pub(crate) unsafe fn at<L: Lanes>(&self, window: usize, first: usize, terms: &ChannelTerms<L>) -> (L, L) {
        let place = window * self.channels;
        // SAFETY: a pixel of slices whose lengths were checked.
        let (winner, mut gradient) = unsafe {
            let (winners, dy) = (self.winners.as_ptr().add(place), self.dy.as_ptr().add(place));
            (L::load_within(winners, first, self.channels), L::load_within(dy, first, self.channels))
        };
        if self.dropout.rate > 0.0 {
            gradient = gradient.mul(self.mask.factors(self.first + place + first));
        }
        (winner.mul(terms.sign), gradient)
    }

    /// Asks for what [`WindowRow::at`] reads of the same window of the next row.
    #[inline(always)]
    pub(crate) fn prefetch<L: Lanes>(&self, window: usize, first: usize) {
        if !first.is_multiple_of(PANEL) {
            return; // asked for already, or with the next window
        }
        let place = self.dy.len() + window * self.channels + first;
        L::prefetch(self.winners.as_ptr().wrapping_add(place));
        L::prefetch(self.dy.as_ptr().wrapping_add(place));
    }
}

/// The rows of an image under one row of windows, backward.
pub(crate) struct Band<'a> {
    shape: &'a NormPoolShape,
    /// Rows of the image, at least those under the windows.
    rows: usize,
    /// These rows.
    x: &'a [f32],
    windows: WindowRow<'a>,
}

impl Band<'_> {
    fn check(&self) {
        let NormPoolShape { channels, size, .. } = *self.shape;
        assert!(self.rows >= size && self.x.len() == self.rows * self.shape.line());
        self.windows.check(self.shape.pooled_width(), channels);
    }

    /// Place of a pixel's first channel.
    #[inline(always)]
    fn pixel(&self, row: usize, column: usize) -> usize {
        (row * self.shape.width + column) * self.shape.channels
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
    pub(crate) unsafe fn new(band: Band<'a>, gate_input: bool, dx: *mut f32, sums: &'a mut [f32]) -> Self {
        Self { band, gate_input, dx, sums }
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
        assert_eq!(self.sums.len(), channels);
        self.sums.fill(0.0);
        let sums = self.sums.as_mut_ptr();
        // Window after window, as they lie in memory: what each channel needs again and again is in the first-level cache.
        for window in 0..windows {
            for first in (0..channels).step_by(L::WIDTH) {
                let mut sum = L::splat(0.0);
                // SAFETY: windows, pixels and channels are those of the band, for whose pixels `dx` has room (see `new`).
                unsafe {
                    let terms = band.windows.terms::<L>(first);
                    let (winner, mut left) = band.windows.at(window, first, &terms);
                    for i in 0..size {
                        for j in 0..size {
                            let column = window * size + j;
                            let x = band.input::<L>(i, column, first);
                            let dx = terms.gradient_in_window(x, winner, &mut left, self.gate_input);
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
                        let x = band.input::<L>(row, column, first);
                        let dx = band.windows.terms::<L>(first).gradient(x, L::splat(0.0), self.gate_input);
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
