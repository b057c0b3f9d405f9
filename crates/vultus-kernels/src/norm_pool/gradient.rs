//! The gradient of [`forward_training`](super::forward_training).
//!
//! In: winners, and gradients of the windows. Out: their sums, of windows alone, and with what follows from those the gradients
//! of the pixels, of all images or of a band under one row of windows.

use super::{NormPoolShape, signs};
use crate::activation::Activation;
use crate::batch_norm::{BiasSums, GROUP, Norm, NormGradients, Terms, TermsOfOne, store_sums};
use crate::dropout::{Dropout, Mask};
use crate::scratch::Scratch;
use crate::shared::Shared;
use crate::simd::{InstructionSet, Kernel, Lanes, PANEL};
use crate::threads::share_chunks;

/// Gradients of [`forward_training`](super::forward_training). `dy` is the gradient that arrives at the output. With `before` ReLU, `x` is taken
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
            let [mut mean, mut sign] = [[L::splat(0.0); GROUP]; 2];
            // SAFETY: rows of `channels` numbers are read inside the windows, the means and the signs, and two of them written
            // inside `sums`.
            unsafe {
                for v in 0..GROUP {
                    mean[v] = L::load_padded(self.mean.as_ptr(), places[v], channels);
                    sign[v] = L::load_padded(self.signs.as_ptr(), places[v], channels);
                }
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
