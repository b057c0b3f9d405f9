//! Batch normalisation over rows of channels (Ioffe & Szegedy 2015, algorithms 1 and 2), with what usually surrounds it.
//!
//! In: `[rows, channels]`, where a row is a pixel of an image, or an image after flattening. Out: normalised rows and
//! the statistics, or gradients. Memory sets the pace, so that everything which touches the same numbers happens in
//! the same pass: the sum of a residual layer, the activation behind the norm, and, on the way back, the activation of
//! the convolution in front of it with the gradient of that convolution's bias. Forward reads its input twice and
//! writes once; backward reads input and gradient twice and writes once. What comes before the last of these passes can
//! also be fed part by part (`Statistics`), and the last backward pass be taken part by part (`Backward`), while a part
//! is in the cache for other reasons.

use crate::activation::Activation;
use crate::scratch::Scratch;
use crate::shared::Shared;
use crate::simd::{InstructionSet, Kernel, Lanes};
use crate::sizes::elements;
use crate::threads::{share, share_chunks};

pub(crate) use gradient::{Gate, Gradient, GradientApply, GradientSums, Terms, TermsOfOne};
pub use statistics::statistics;
pub(crate) use statistics::{Statistics, Sums, join_statistics, merge_sums};

mod gradient;
mod statistics;

/// Vectors of channels whose sums are kept in registers together.
pub(crate) const GROUP: usize = 4;

/// Sizes of what is normalised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NormShape {
    /// Pixels of all images together.
    pub rows: usize,
    /// Channels, each with its own statistics.
    pub channels: usize,
}

impl NormShape {
    /// Number of values.
    ///
    /// # Panics
    /// If there are more than a `usize` counts.
    pub fn len(&self) -> usize {
        elements([self.rows, self.channels])
    }

    /// True without values.
    ///
    /// # Panics
    /// As [`NormShape::len`].
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Rows of one task: fixed by the shape, so that results never depend on the number of threads, and few, so that sums
    /// of single precision lose little.
    pub(crate) fn task_rows(&self) -> usize {
        (crate::ELEMENTS_PER_TASK / self.channels.max(1)).clamp(1, 256)
    }
}

/// Scale, shift and statistics of the channels, all `[channels]`.
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a> {
    /// Scale.
    pub gamma: &'a [f32],
    /// Shift.
    pub beta: &'a [f32],
    /// Mean.
    pub mean: &'a [f32],
    /// Biased variance.
    pub variance: &'a [f32],
    /// Added to the variance before the root.
    pub epsilon: f32,
}

impl Norm<'_> {
    pub(crate) fn check(&self, channels: usize) {
        assert_eq!(self.gamma.len(), channels, "length of gamma");
        assert_eq!(self.beta.len(), channels, "length of beta");
        assert_eq!(self.mean.len(), channels, "length of mean");
        assert_eq!(self.variance.len(), channels, "length of variance");
    }

    /// The norm as one multiply-add: scales, then `beta - mean * scale`.
    pub(crate) fn affine(&self) -> Scratch {
        let channels = self.gamma.len();
        let mut affine = Scratch::take(2 * channels);
        let (scales, shifts) = affine.split_at_mut(channels);
        for channel in 0..channels {
            let scale = f64::from(self.gamma[channel]) * self.inverse_deviation(channel);
            scales[channel] = scale as f32;
            shifts[channel] = (f64::from(self.beta[channel]) - f64::from(self.mean[channel]) * scale) as f32;
        }
        affine
    }

    pub(crate) fn inverse_deviation(&self, channel: usize) -> f64 {
        1.0 / (f64::from(self.variance[channel]) + f64::from(self.epsilon)).sqrt()
    }
}

/// `y = activation(gamma * (x - mean) / sqrt(variance + epsilon) + beta + residual)` with the statistics of `x` itself,
/// which are also returned in `mean` and `variance` `[channels]`. `y` and `residual` have the shape of `x`.
///
/// # Panics
/// If a slice has another length than its shape.
#[expect(clippy::too_many_arguments, reason = "a kernel's signature names every slice it reads and writes")]
pub fn forward_training(
    shape: &NormShape,
    x: &[f32],
    gamma: &[f32],
    beta: &[f32],
    epsilon: f32,
    residual: Option<&[f32]>,
    activation: Activation,
    y: &mut [f32],
    mean: &mut [f32],
    variance: &mut [f32],
) {
    statistics(shape, x, mean, variance);
    forward(shape, x, &Norm { gamma, beta, mean, variance, epsilon }, residual, activation, y);
}

/// [`forward_training`] with given statistics.
///
/// # Panics
/// If a slice has another length than its shape.
pub fn forward(
    shape: &NormShape,
    x: &[f32],
    norm: &Norm,
    residual: Option<&[f32]>,
    activation: Activation,
    y: &mut [f32],
) {
    assert_eq!(x.len(), shape.len(), "length of x");
    assert_eq!(y.len(), shape.len(), "length of y");
    assert!(residual.is_none_or(|residual| residual.len() == shape.len()), "length of the residual");
    norm.check(shape.channels);
    if shape.is_empty() {
        return;
    }
    apply(shape, shape.task_rows(), &norm.affine(), x, residual, activation, y);
}

/// `y = activation(scale * x + shift + residual)`, where `affine` holds scales, then shifts: of all rows, or of each
/// `task_rows` rows behind one another.
pub(crate) fn apply(
    shape: &NormShape,
    task_rows: usize,
    affine: &[f32],
    x: &[f32],
    residual: Option<&[f32]>,
    activation: Activation,
    y: &mut [f32],
) {
    let (set, channels) = (InstructionSet::best(), shape.channels);
    let (rows, maps) = (task_rows * channels, affine.len() / (2 * channels));
    share_chunks(y, rows, |task, y| {
        let x = &x[task * rows..][..y.len()];
        let residual = residual.map(|residual| &residual[task * rows..][..y.len()]);
        let affine = &affine[(task % maps) * 2 * channels..][..2 * channels];
        set.run(Apply { channels, x, affine, residual, relu: activation == Activation::Relu, y });
        if !matches!(activation, Activation::Relu | Activation::Linear) {
            activation.forward_serial(y);
        }
    });
}

/// The norm of some rows, with what follows.
pub(crate) struct Apply<'a> {
    pub(crate) channels: usize,
    pub(crate) x: &'a [f32],
    /// Scales, then shifts.
    pub(crate) affine: &'a [f32],
    /// As long as `x`.
    pub(crate) residual: Option<&'a [f32]>,
    pub(crate) relu: bool,
    pub(crate) y: &'a mut [f32],
}

impl Kernel for Apply<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let channels = self.channels;
        let rows = self.x.len() / channels;
        assert!(self.affine.len() == 2 * channels && self.y.len() == self.x.len());
        assert!(self.residual.is_none_or(|residual| residual.len() == self.x.len()));
        let floor = L::splat(if self.relu { 0.0 } else { f32::NEG_INFINITY });
        for row in 0..rows {
            let place = row * channels;
            let mut first = 0;
            while first < channels {
                // SAFETY: one row of `channels` numbers of slices of equal length, and of the two rows of the map.
                unsafe {
                    let scale = L::load_within(self.affine.as_ptr(), first, channels);
                    let shift = L::load_within(self.affine.as_ptr().add(channels), first, channels);
                    let mut value = L::load_within(self.x.as_ptr().add(place), first, channels).mul_add(scale, shift);
                    if let Some(residual) = self.residual {
                        value = value.add(L::load_within(residual.as_ptr().add(place), first, channels));
                    }
                    value.at_least(floor).store_within(self.y.as_mut_ptr().add(place), first, channels);
                }
                first += L::WIDTH;
            }
        }
    }
}

/// Where the gradients of a batch norm go; all are overwritten.
#[derive(Debug)]
pub struct NormGradients<'a> {
    /// Gradient of the input, `[rows, channels]`.
    pub dx: &'a mut [f32],
    /// Gradient of gamma, `[channels]`.
    pub dgamma: &'a mut [f32],
    /// Gradient of beta, `[channels]`.
    pub dbeta: &'a mut [f32],
    /// Sums of `dx` over the rows, `[channels]`, where wanted: the gradient of the bias of the layer in front.
    pub dbias: Option<&'a mut [f32]>,
}

/// A residual that the forward pass added in front of the activation.
#[derive(Debug)]
pub struct Residual<'a> {
    /// Where its gradient goes, if it is wanted: as long as `x`, overwritten.
    pub gradient: Option<&'a mut [f32]>,
}

/// Gradients of [`forward_training`].
///
/// `dy` is the gradient that arrives at `y`, which is read where it decides what passed the activation: with a residual
/// or an activation other than ReLU. There is a `residual` if the forward pass had one, whether or not its gradient is
/// wanted. With `before` ReLU, `x` is taken for the output of a ReLU and `dx` is the gradient before that.
///
/// # Panics
/// If a slice has another length than its shape.
#[expect(clippy::too_many_arguments, reason = "a kernel's signature names every slice it reads and writes")]
pub fn backward(
    shape: &NormShape,
    x: &[f32],
    norm: &Norm,
    activation: Activation,
    y: &[f32],
    dy: &[f32],
    before: Activation,
    residual: Option<Residual>,
    gradients: NormGradients,
) {
    let NormGradients { dx, dgamma, dbeta, dbias } = gradients;
    let inputs = Inputs { x, norm, activation, y, dy, before, has_residual: residual.is_some() };
    let mut backward = Backward::new(shape, inputs, dgamma, dbeta, dbias.is_some());
    backward.apply(0..shape.rows, dx, residual.and_then(|residual| residual.gradient));
    if let Some(dbias) = dbias {
        backward.bias(dbias);
    }
}

/// What a backward pass reads; see [`backward`].
#[derive(Clone, Copy)]
pub(crate) struct Inputs<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) norm: &'a Norm<'a>,
    pub(crate) activation: Activation,
    pub(crate) y: &'a [f32],
    pub(crate) dy: &'a [f32],
    pub(crate) before: Activation,
    pub(crate) has_residual: bool,
}

impl Inputs<'_> {
    fn check(&self, shape: &NormShape) {
        assert_eq!(self.x.len(), shape.len(), "length of x");
        assert_eq!(self.y.len(), shape.len(), "length of y");
        assert_eq!(self.dy.len(), shape.len(), "length of dy");
        self.norm.check(shape.channels);
        // Panics if nothing can go back through it.
        self.before.gates();
    }
}

/// A backward pass whose sums are known, so that the gradient of any row can be told.
pub(crate) struct Backward<'a> {
    set: InstructionSet,
    shape: NormShape,
    inputs: Inputs<'a>,
    /// The gradient behind an activation that is neither linear nor ReLU.
    behind: Option<Scratch>,
    gate: Gate,
    /// Rows of a task, or of an image, if each has maps and terms of its own.
    task_rows: usize,
    /// Scales, then shifts: of all rows, or of each image.
    affine: Scratch,
    /// Of all rows, or of each image.
    terms: Terms,
    /// Sums of the gradients so far.
    bias: Option<BiasSums>,
}

impl<'a> Backward<'a> {
    /// `dgamma` and `dbeta` are overwritten.
    pub(crate) fn new(
        shape: &NormShape,
        inputs: Inputs<'a>,
        dgamma: &mut [f32],
        dbeta: &mut [f32],
        biased: bool,
    ) -> Self {
        let task_rows = shape.task_rows();
        Self::by_terms(shape, inputs, task_rows, inputs.norm.affine(), biased, |partial| {
            Terms::new(inputs.norm, shape.rows, partial, dgamma, dbeta)
        })
    }

    /// With what [`GradientSums`] finds in each `task_rows` rows turned into terms by `terms`.
    pub(crate) fn by_terms(
        shape: &NormShape,
        inputs: Inputs<'a>,
        task_rows: usize,
        affine: Scratch,
        biased: bool,
        terms: impl FnOnce(&mut [f32]) -> Terms,
    ) -> Self {
        inputs.check(shape);
        let (set, channels) = (InstructionSet::best(), shape.channels);
        let (mut behind, mut gate) = (None, Gate::Open);
        match inputs.activation {
            Activation::Linear => {}
            Activation::Relu => gate = if inputs.has_residual { Gate::Output } else { Gate::Recomputed },
            activation => {
                let mut gradient = Scratch::take(inputs.dy.len());
                activation.gradient(inputs.y, inputs.dy, &mut gradient);
                behind = Some(gradient);
            }
        }
        let bias = biased.then(|| BiasSums::new(channels));
        let terms_unknown = Terms(Scratch::take(0));
        let mut backward =
            Self { set, shape: *shape, inputs, behind, gate, task_rows, affine, terms: terms_unknown, bias };
        let mut partial = Scratch::take(shape.rows.div_ceil(task_rows) * 2 * channels);
        share_chunks(&mut partial, (2 * channels).max(1), |task, sums| {
            let first = task * task_rows;
            set.run(GradientSums { input: backward.rows(first..shape.rows.min(first + task_rows)), sums });
        });
        backward.terms = terms(&mut partial);
        backward
    }

    /// Rows of one task.
    fn rows(&self, rows: std::ops::Range<usize>) -> Gradient<'_> {
        let channels = self.shape.channels;
        let maps = self.affine.len() / (2 * channels);
        let (map, range) = (rows.start / self.task_rows % maps, rows.start * channels..rows.end * channels);
        Gradient {
            channels,
            x: &self.inputs.x[range.clone()],
            y: &self.inputs.y[range.clone()],
            dy: &self.behind.as_deref().unwrap_or(self.inputs.dy)[range],
            affine: &self.affine[map * 2 * channels..][..2 * channels],
            mean: self.inputs.norm.mean,
            gate: self.gate,
        }
    }

    /// The gradients of some rows, whole images if those have terms of their own: of the input, and of the residual.
    pub(crate) fn apply(&mut self, rows: std::ops::Range<usize>, dx: &mut [f32], dresidual: Option<&mut [f32]>) {
        let (channels, task_rows) = (self.shape.channels, self.task_rows);
        let length = rows.len() * channels;
        assert_eq!(dx.len(), length, "length of dx");
        assert!(dresidual.as_ref().is_none_or(|dresidual| dresidual.len() == length), "length of dresidual");
        if length == 0 {
            return;
        }
        let (dx, dresidual) = (Shared::new(dx), dresidual.map(Shared::new));
        let tasks = rows.len().div_ceil(task_rows);
        let mut sums = Scratch::take(if self.bias.is_some() { tasks * channels } else { 0 });
        let column_sums = self.bias.is_some().then(|| Shared::new(&mut sums));
        let gate_input = self.inputs.before.gates();
        let maps = self.terms.0.len() / (3 * channels);
        share(tasks, |task| {
            let first = rows.start + task * task_rows;
            let place = task * task_rows * channels;
            let input = self.rows(first..rows.end.min(first + task_rows));
            let terms = self.terms.of(first / task_rows % maps, channels);
            let (dx, dresidual) = (dx.at(place), dresidual.map(|dresidual| dresidual.at(place)));
            let sums = column_sums.map(|sums| sums.at(task * channels));
            // SAFETY: `dx` and `dresidual` have room for all rows (checked above), of which each task has its own, and the
            // sums for a row of each task.
            self.set.run(unsafe { GradientApply::new(input, terms, gate_input, dx, dresidual, sums) });
        });
        if let Some(bias) = &mut self.bias {
            bias.add(&sums);
        }
    }

    /// The sums of the gradients of all rows that [`Backward::apply`] was asked for, overwritten.
    pub(crate) fn bias(&self, dbias: &mut [f32]) {
        self.bias.as_ref().expect("asked for when it was made").write(dbias);
    }
}

/// Sums of the gradients of each channel, in double precision and in a fixed order.
pub(crate) struct BiasSums(Vec<f64>);

impl BiasSums {
    pub(crate) fn new(channels: usize) -> Self {
        Self(vec![0.0; channels])
    }

    /// Adds rows of partial sums.
    pub(crate) fn add(&mut self, partial: &[f32]) {
        for row in partial.chunks_exact(self.0.len().max(1)) {
            self.0.iter_mut().zip(row).for_each(|(sum, &value)| *sum += f64::from(value));
        }
    }

    /// The gradient of the bias, overwritten.
    pub(crate) fn write(&self, dbias: &mut [f32]) {
        assert_eq!(dbias.len(), self.0.len(), "length of dbias");
        dbias.iter_mut().zip(&self.0).for_each(|(dbias, &sum)| *dbias = sum as f32);
    }
}

/// Writes sums of two kinds behind each other, `[2, channels]`.
///
/// # Safety
/// `to` is valid for writes of two rows of `channels` numbers.
#[inline(always)]
pub(crate) unsafe fn store_sums<L: Lanes>(sums: &[[L; 2]; GROUP], to: *mut f32, first: usize, channels: usize) {
    for (v, sums) in sums.iter().enumerate() {
        let first = first + v * L::WIDTH;
        if first < channels {
            // SAFETY: inside the rows, by contract.
            unsafe {
                sums[0].store_within(to, first, channels);
                sums[1].store_within(to.add(channels), first, channels);
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
