//! The gradient of a batch norm, some rows at a time.
//!
//! In: rows of inputs and of gradients, and what the norm did. Out: their sums, or with the terms that follow from the sums
//! of all rows, the gradients of the inputs.

use super::{GROUP, Norm, store_sums};
use crate::scratch::Scratch;
use crate::simd::{Kernel, Lanes};

/// What decides whether a gradient passes the activation behind the norm.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    /// Nothing: it always passes.
    Open,
    /// The output, computed again from the input.
    Recomputed,
    /// The output as it was kept.
    Output,
}

/// Some rows, backward; `x`, `y` and `dy` have equal lengths.
#[derive(Clone, Copy)]
pub(crate) struct Gradient<'a> {
    pub(crate) channels: usize,
    pub(crate) x: &'a [f32],
    pub(crate) y: &'a [f32],
    pub(crate) dy: &'a [f32],
    /// Scales, then shifts.
    pub(crate) affine: &'a [f32],
    pub(crate) mean: &'a [f32],
    pub(crate) gate: Gate,
}

impl Gradient<'_> {
    fn check(&self) {
        assert!(self.x.len() == self.y.len() && self.x.len() == self.dy.len());
        assert!(self.affine.len() == 2 * self.channels && self.mean.len() == self.channels);
    }

    /// The input less the mean, the input, and the gradient behind the activation, of one vector of channels of a row.
    ///
    /// # Safety
    /// The row is inside the slices, `first < channels`, and [`Gradient::check`] has passed.
    #[inline(always)]
    unsafe fn at<L: Lanes>(&self, row: usize, first: usize) -> (L, L, L) {
        let (channels, place) = (self.channels, row * self.channels);
        // SAFETY: by this function's contract.
        unsafe {
            let x = L::load_within(self.x.as_ptr().add(place), first, channels);
            let mut gradient = L::load_within(self.dy.as_ptr().add(place), first, channels);
            match self.gate {
                Gate::Open => {}
                Gate::Recomputed => {
                    let scale = L::load_within(self.affine.as_ptr(), first, channels);
                    let shift = L::load_within(self.affine.as_ptr().add(channels), first, channels);
                    gradient = gradient.gated(x.mul_add(scale, shift));
                }
                Gate::Output => {
                    // Not above zero an output is zero or NaN, and so is its gradient.
                    let y = L::load_within(self.y.as_ptr().add(place), first, channels);
                    gradient = gradient.where_greater(y, L::splat(0.0), y);
                }
            }
            (x.sub(L::load_within(self.mean.as_ptr(), first, channels)), x, gradient)
        }
    }

    /// What sums of one vector of channels begin with: zero, or NaN where the gate is computed from a map that is not
    /// finite. Outputs are NaN then, and so are their gradients, which that gate lets pass as they come.
    ///
    /// # Safety
    /// `first < channels`, and [`Gradient::check`] has passed.
    #[inline(always)]
    unsafe fn start<L: Lanes>(&self, first: usize) -> L {
        if self.gate != Gate::Recomputed {
            return L::splat(0.0);
        }
        // SAFETY: the map is two rows of `channels` numbers.
        unsafe {
            let scale = L::load_within(self.affine.as_ptr(), first, self.channels);
            let shift = L::load_within(self.affine.as_ptr().add(self.channels), first, self.channels);
            scale.scaled(0.0, shift.times(0.0))
        }
    }
}

/// Sums of the gradient, and of the gradient times the input less its mean.
pub(crate) struct GradientSums<'a> {
    pub(crate) input: Gradient<'a>,
    /// `[2, channels]`, overwritten.
    pub(crate) sums: &'a mut [f32],
}

impl Kernel for GradientSums<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let channels = self.input.channels;
        self.input.check();
        assert_eq!(self.sums.len(), 2 * channels);
        for group in (0..channels).step_by(GROUP * L::WIDTH) {
            let mut sums = [[L::splat(0.0); 2]; GROUP];
            for (v, sums) in sums.iter_mut().enumerate() {
                let first = group + v * L::WIDTH;
                if first < channels {
                    // SAFETY: `first` is a channel.
                    *sums = [unsafe { self.input.start(first) }; 2];
                }
            }
            for row in 0..self.input.x.len() / channels {
                for (v, sums) in sums.iter_mut().enumerate() {
                    let first = group + v * L::WIDTH;
                    if first < channels {
                        // SAFETY: a row of slices that were cut alike, and `first` is one of its channels.
                        let (centred, _, gradient) = unsafe { self.input.at::<L>(row, first) };
                        sums[0] = sums[0].add(gradient);
                        sums[1] = gradient.mul_add(centred, sums[1]);
                    }
                }
            }
            // SAFETY: two rows of `channels` numbers, as asserted.
            unsafe { store_sums(&sums, self.sums.as_mut_ptr(), group, channels) }
        }
    }
}

/// `dx = slope * g + curve * (x - mean) + level`, each `[channels]`, which is the derivative of the norm; one behind the
/// other for all rows, or for each image.
pub(crate) struct Terms(pub(super) Scratch);

impl Terms {
    /// From the partial sums of [`GradientSums`]; `dgamma` and `dbeta` come with them.
    pub(crate) fn new(norm: &Norm, rows: usize, partial: &[f32], dgamma: &mut [f32], dbeta: &mut [f32]) -> Self {
        let channels = norm.gamma.len();
        assert_eq!(dgamma.len(), channels, "length of dgamma");
        assert_eq!(dbeta.len(), channels, "length of dbeta");
        let mut terms = Scratch::take(3 * channels);
        let mut totals = vec![0.0; 2 * channels];
        for sums in partial.chunks_exact((2 * channels).max(1)) {
            totals.iter_mut().zip(sums).for_each(|(total, &sum)| *total += f64::from(sum));
        }
        for channel in 0..channels {
            let (sum, product, inverse) =
                (totals[channel], totals[channels + channel], norm.inverse_deviation(channel));
            dbeta[channel] = sum as f32;
            dgamma[channel] = (product * inverse) as f32;
            let slope = f64::from(norm.gamma[channel]) * inverse;
            terms[channel] = slope as f32;
            terms[channels + channel] = (-slope * product * inverse * inverse / rows as f64) as f32;
            terms[2 * channels + channel] = (-slope * sum / rows as f64) as f32;
        }
        Self(terms)
    }

    /// Those of images whose gradients are `factor * g + offset`, with `[images, channels]` of either.
    pub(crate) fn of_images(&self, factor: &[f32], offset: &[f32]) -> Self {
        let channels = self.0.len() / 3;
        assert_eq!(factor.len(), offset.len());
        let mut terms = Scratch::take(3 * factor.len());
        let (slope, rest) = self.0.split_at(channels);
        let (curve, level) = rest.split_at(channels);
        let images = factor.chunks_exact(channels).zip(offset.chunks_exact(channels));
        for (terms, (factor, offset)) in terms.chunks_exact_mut(3 * channels).zip(images) {
            for channel in 0..channels {
                terms[channel] = slope[channel] * factor[channel];
                terms[channels + channel] = curve[channel];
                terms[2 * channels + channel] = slope[channel] * offset[channel] + level[channel];
            }
        }
        Self(terms)
    }

    /// Those at one place.
    pub(crate) fn of(&self, place: usize, channels: usize) -> TermsOfOne<'_> {
        TermsOfOne(&self.0[place * 3 * channels..][..3 * channels])
    }
}

/// Three rows of [`Terms`].
#[derive(Clone, Copy)]
pub(crate) struct TermsOfOne<'a>(&'a [f32]);

impl TermsOfOne<'_> {
    pub(crate) fn check(&self, channels: usize) {
        assert_eq!(self.0.len(), 3 * channels);
    }

    /// The three terms of one vector of channels.
    ///
    /// # Safety
    /// `first` is below `channels`, for which [`TermsOfOne::check`] has passed.
    #[inline(always)]
    pub(crate) unsafe fn at<L: Lanes>(&self, first: usize, channels: usize) -> [L; 3] {
        let terms = self.0.as_ptr();
        // No closure: what is called from one loses the instruction set. SAFETY: three rows of `channels` numbers lie behind
        // each other.
        unsafe {
            [
                L::load_within(terms, first, channels),
                L::load_within(terms.add(channels), first, channels),
                L::load_within(terms.add(2 * channels), first, channels),
            ]
        }
    }
}

/// Gradients of some rows.
///
/// The addresses must be valid for all that is written; whoever makes one vouches for it by calling
/// [`GradientApply::new`].
pub(crate) struct GradientApply<'a> {
    input: Gradient<'a>,
    terms: TermsOfOne<'a>,
    gate_input: bool,
    /// As many numbers as the rows have.
    dx: *mut f32,
    /// As many.
    dresidual: Option<*mut f32>,
    /// `[channels]`, overwritten.
    sums: Option<*mut f32>,
}

impl<'a> GradientApply<'a> {
    /// With `gate_input` the input is the output of a ReLU, and `dx` the gradient before that.
    ///
    /// # Safety
    /// Until it has run, `dx` and `dresidual` are valid for writes of as many numbers as the rows have, and `sums` of one
    /// for each channel; nobody else touches them.
    pub(crate) unsafe fn new(
        input: Gradient<'a>,
        terms: TermsOfOne<'a>,
        gate_input: bool,
        dx: *mut f32,
        dresidual: Option<*mut f32>,
        sums: Option<*mut f32>,
    ) -> Self {
        Self { input, terms, gate_input, dx, dresidual, sums }
    }
}

impl Kernel for GradientApply<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let channels = self.input.channels;
        self.input.check();
        self.terms.check(channels);
        for group in (0..channels).step_by(GROUP * L::WIDTH) {
            let mut sums = [L::splat(0.0); GROUP];
            // SAFETY: rows of slices that were cut alike; `dx`, `dresidual` and the sums have room for them, by the contract
            // of `new`; every `first` is a channel.
            unsafe {
                let mut terms = [[L::splat(0.0); 3]; GROUP];
                for (v, terms) in terms.iter_mut().enumerate() {
                    if group + v * L::WIDTH < channels {
                        *terms = self.terms.at::<L>(group + v * L::WIDTH, channels);
                    }
                }
                for row in 0..self.input.x.len() / channels {
                    for v in 0..GROUP {
                        let first = group + v * L::WIDTH;
                        if first < channels {
                            let (centred, x, gradient) = self.input.at::<L>(row, first);
                            if let Some(dresidual) = self.dresidual {
                                gradient.store_within(dresidual.add(row * channels), first, channels);
                            }
                            let [slope, curve, level] = terms[v];
                            let mut dx = gradient.mul_add(slope, centred.mul_add(curve, level));
                            if self.gate_input {
                                dx = dx.gated(x);
                            }
                            sums[v] = sums[v].add(dx);
                            dx.store_within(self.dx.add(row * channels), first, channels);
                        }
                    }
                }
                if let Some(to) = self.sums {
                    for (v, sum) in sums.iter().enumerate() {
                        if group + v * L::WIDTH < channels {
                            sum.store_within(to, group + v * L::WIDTH, channels);
                        }
                    }
                }
            }
        }
    }
}
