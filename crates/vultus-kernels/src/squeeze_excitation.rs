//! Squeeze and excitation: channels weighed by what the whole picture holds (Hu et al. 2018, "Squeeze-and-excitation
//! networks", equations 2 to 4), forward and backward.
//!
//! In: images `[batch, spatial, channels]` and two small dense layers. Out: `y = x * sigmoid(W2 relu(W1 m + b1) + b2)`,
//! where `m` is the mean of each channel over the picture, or all gradients. Forward reads the input twice and writes
//! once; backward reads the gradient twice, the input once, and writes once. What lies between is a few numbers an image,
//! and the products are those of [`crate::dense`].

use crate::activation::Activation;
use crate::batch_norm::GROUP;
use crate::dense;
use crate::scratch::Scratch;
use crate::simd::{InstructionSet, Kernel, Lanes};
use crate::sizes::elements;
use crate::threads::share_chunks;

/// Sizes of a squeeze and excitation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SqueezeShape {
    /// Number of images.
    pub batch: usize,
    /// Pixels of an image.
    pub spatial: usize,
    /// Channels of an image.
    pub channels: usize,
    /// Units of the hidden layer.
    pub hidden: usize,
}

impl SqueezeShape {
    /// Elements of the input and of the output.
    ///
    /// # Panics
    /// If there are more than a `usize` counts.
    pub fn len(&self) -> usize {
        elements([self.batch, self.image()])
    }

    /// True without elements.
    ///
    /// # Panics
    /// As [`SqueezeShape::len`].
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Elements of one image.
    fn image(&self) -> usize {
        elements([self.channels, self.spatial])
    }
}

/// Weights of the two dense layers.
#[derive(Clone, Copy, Debug)]
pub struct Weights<'a> {
    /// `W1`: `[channels, hidden]`.
    pub squeeze: &'a [f32],
    /// `b1`: `[hidden]`.
    pub squeeze_bias: &'a [f32],
    /// `W2`: `[hidden, channels]`.
    pub excitation: &'a [f32],
    /// `b2`: `[channels]`.
    pub excitation_bias: &'a [f32],
}

/// Where the gradients of [`Weights`] go; all are overwritten and summed over the batch.
#[derive(Debug)]
pub struct WeightGradients<'a> {
    /// `[channels, hidden]`.
    pub squeeze: &'a mut [f32],
    /// `[hidden]`.
    pub squeeze_bias: &'a mut [f32],
    /// `[hidden, channels]`.
    pub excitation: &'a mut [f32],
    /// `[channels]`.
    pub excitation_bias: &'a mut [f32],
}

/// What lies between the passes over the images, which the backward pass reads again.
#[derive(Clone, Debug)]
pub struct Middle {
    /// Means of the channels, `[batch, channels]`.
    mean: Vec<f32>,
    /// Outputs of the hidden layer, `[batch, hidden]`.
    hidden: Vec<f32>,
    /// Factors of the channels, `[batch, channels]`.
    factor: Vec<f32>,
}

impl Middle {
    /// From the means of the channels, `[batch, channels]`.
    pub(crate) fn new(shape: &SqueezeShape, mean: Vec<f32>, weights: &Weights) -> Self {
        let mut hidden = vec![0.0; elements([shape.batch, shape.hidden])];
        let mut factor = vec![0.0; elements([shape.batch, shape.channels])];
        factors(shape, &mean, weights, &mut hidden, &mut factor);
        Self { mean, hidden, factor }
    }

    /// Factors of the channels, `[batch, channels]`.
    pub(crate) fn factor(&self) -> &[f32] {
        &self.factor
    }

    /// The gradient of the means `[batch, channels]`, and those of the weights, from that of the factors, which is lost.
    pub(crate) fn backward(
        &self,
        shape: &SqueezeShape,
        weights: &Weights,
        dfactor: &mut [f32],
        gradients: WeightGradients,
    ) -> Scratch {
        let SqueezeShape { batch, channels, hidden, .. } = *shape;
        assert_eq!(self.factor.len(), elements([batch, channels]), "length of the middle's factors");
        assert_eq!(self.hidden.len(), elements([batch, hidden]), "length of the middle's hidden layer");
        let WeightGradients { squeeze, squeeze_bias, excitation, excitation_bias } = gradients;
        // Of the sigmoid's argument.
        dfactor.iter_mut().zip(&self.factor).for_each(|(gradient, factor)| *gradient *= factor * (1.0 - factor));
        let (mut dhidden, mut dmean) = (Scratch::take(batch * hidden), Scratch::take(batch * channels));
        dense::backward(
            batch,
            hidden,
            channels,
            &self.hidden,
            weights.excitation,
            &self.factor, // an output that a linear layer does not look at
            dfactor,
            Activation::Linear,
            Some(&mut dhidden),
            excitation,
            excitation_bias,
        );
        dense::backward(
            batch,
            channels,
            hidden,
            &self.mean,
            weights.squeeze,
            &self.hidden,
            &dhidden,
            Activation::Relu,
            Some(&mut dmean),
            squeeze,
            squeeze_bias,
        );
        dmean
    }
}

/// What lies between: `hidden` and `factor`, overwritten, from the means of the channels.
fn factors(shape: &SqueezeShape, mean: &[f32], weights: &Weights, hidden: &mut [f32], factor: &mut [f32]) {
    let SqueezeShape { batch, channels, hidden: units, .. } = *shape;
    let Weights { squeeze, squeeze_bias, excitation, excitation_bias } = *weights;
    dense::forward(batch, channels, units, mean, squeeze, squeeze_bias, Activation::Relu, hidden);
    dense::forward(batch, units, channels, hidden, excitation, excitation_bias, Activation::Linear, factor);
    factor.iter_mut().for_each(|value| *value = 1.0 / (1.0 + (-*value).exp()));
}

/// The means of the channels, `[batch, channels]`, overwritten.
fn means(shape: &SqueezeShape, x: &[f32], mean: &mut [f32]) {
    sums(shape, x, None, mean);
    let share = 1.0 / shape.spatial as f32;
    mean.iter_mut().for_each(|mean| *mean *= share);
}

/// `y = x * factor` of `x` `[batch, spatial, channels]`; `y` is overwritten.
///
/// # Panics
/// If a slice has another length than its shape.
pub fn forward(shape: &SqueezeShape, x: &[f32], weights: &Weights, y: &mut [f32]) {
    assert_eq!(x.len(), shape.len(), "length of x");
    assert_eq!(y.len(), shape.len(), "length of y");
    if shape.is_empty() {
        return;
    }
    let [mut mean, mut factor] = [(); 2].map(|()| Scratch::take(shape.batch * shape.channels));
    let mut hidden = Scratch::take(elements([shape.batch, shape.hidden]));
    means(shape, x, &mut mean);
    factors(shape, &mean, weights, &mut hidden, &mut factor);
    scale(shape, x, &factor, None, y);
}

/// [`forward`], which also returns what the backward pass needs.
///
/// # Panics
/// As [`forward`].
pub fn forward_training(shape: &SqueezeShape, x: &[f32], weights: &Weights, y: &mut [f32]) -> Middle {
    assert_eq!(x.len(), shape.len(), "length of x");
    assert_eq!(y.len(), shape.len(), "length of y");
    let mut mean = vec![0.0; elements([shape.batch, shape.channels])];
    if !shape.is_empty() {
        means(shape, x, &mut mean);
    }
    let middle = Middle::new(shape, mean, weights);
    if !shape.is_empty() {
        scale(shape, x, &middle.factor, None, y);
    }
    middle
}

/// Gradients of [`forward_training`]: of the input (`dx`, where wanted) and of all weights. `dy` is the gradient that arrives at the
/// output, `middle` what the forward pass returned.
///
/// # Panics
/// If a slice has another length than its shape, or `middle` is that of another one.
pub fn backward(
    shape: &SqueezeShape,
    x: &[f32],
    weights: &Weights,
    middle: &Middle,
    dy: &[f32],
    dx: Option<&mut [f32]>,
    gradients: WeightGradients,
) {
    let SqueezeShape { batch, spatial, channels, .. } = *shape;
    assert_eq!(x.len(), shape.len(), "length of x");
    assert_eq!(dy.len(), shape.len(), "length of dy");
    assert!(dx.as_ref().is_none_or(|dx| dx.len() == shape.len()), "length of dx");
    if shape.is_empty() {
        let WeightGradients { squeeze, squeeze_bias, excitation, excitation_bias } = gradients;
        [squeeze, squeeze_bias, excitation, excitation_bias].into_iter().for_each(|gradient| gradient.fill(0.0));
        return;
    }
    let mut dfactor = Scratch::take(batch * channels);
    sums(shape, x, Some(dy), &mut dfactor);
    let mut dmean = middle.backward(shape, weights, &mut dfactor, gradients);
    if let Some(dx) = dx {
        let share = 1.0 / spatial as f32;
        dmean.iter_mut().for_each(|gradient| *gradient *= share);
        scale(shape, dy, &middle.factor, Some(&dmean), dx);
    }
}

/// Sums over the pixels of each image: of `x`, or of the products with `other`. `totals` is `[batch, channels]`.
fn sums(shape: &SqueezeShape, x: &[f32], other: Option<&[f32]>, totals: &mut [f32]) {
    let (set, image, channels) = (InstructionSet::best(), shape.image(), shape.channels);
    share_chunks(totals, channels, |index, totals| {
        let x = &x[index * image..][..image];
        let other = other.map(|other| &other[index * image..][..image]);
        set.run(Sums { x, other, totals });
    });
}

/// `y = x * factor + offset`, where factors and offsets are `[batch, channels]`.
fn scale(shape: &SqueezeShape, x: &[f32], factor: &[f32], offset: Option<&[f32]>, y: &mut [f32]) {
    let (set, image, channels) = (InstructionSet::best(), shape.image(), shape.channels);
    share_chunks(y, image, |index, y| {
        let x = &x[index * image..][..image];
        let of_image = index * channels..(index + 1) * channels;
        let (factor, offset) = (&factor[of_image.clone()], offset.map(|offset| &offset[of_image]));
        set.run(Scale { x, factor, offset, y });
    });
}

/// Sums over the pixels of one image.
struct Sums<'a> {
    x: &'a [f32],
    /// As long as `x`.
    other: Option<&'a [f32]>,
    /// `[channels]`, overwritten.
    totals: &'a mut [f32],
}

impl Kernel for Sums<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self { x, other, totals } = self;
        let channels = totals.len();
        assert!(x.len().is_multiple_of(channels) && other.is_none_or(|other| other.len() == x.len()));
        for group in (0..channels).step_by(GROUP * L::WIDTH) {
            let mut sums = [L::splat(0.0); GROUP];
            // SAFETY: rows of `channels` numbers inside `x` and `other`, which are equally long, and one row of totals.
            unsafe {
                for pixel in (0..x.len()).step_by(channels) {
                    for (v, sum) in sums.iter_mut().enumerate() {
                        let first = group + v * L::WIDTH;
                        let value = L::load_padded(x.as_ptr().add(pixel), first, channels);
                        *sum = match other {
                            Some(other) => {
                                value.mul_add(L::load_padded(other.as_ptr().add(pixel), first, channels), *sum)
                            }
                            None => sum.add(value),
                        };
                    }
                }
                for (v, sum) in sums.into_iter().enumerate() {
                    if group + v * L::WIDTH < channels {
                        sum.store_within(totals.as_mut_ptr(), group + v * L::WIDTH, channels);
                    }
                }
            }
        }
    }
}

/// A map of each channel of one image.
struct Scale<'a> {
    x: &'a [f32],
    /// `[channels]`.
    factor: &'a [f32],
    /// `[channels]`.
    offset: Option<&'a [f32]>,
    /// As long as `x`.
    y: &'a mut [f32],
}

impl Kernel for Scale<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self { x, factor, offset, y } = self;
        let channels = factor.len();
        assert!(x.len() == y.len() && x.len().is_multiple_of(channels));
        assert!(offset.is_none_or(|offset| offset.len() == channels));
        for pixel in (0..x.len()).step_by(channels) {
            for first in (0..channels).step_by(L::WIDTH) {
                // SAFETY: rows of `channels` numbers inside `x` and `y`, which are equally long, and one row of each map.
                unsafe {
                    let value = L::load_within(x.as_ptr().add(pixel), first, channels);
                    let factor = L::load_within(factor.as_ptr(), first, channels);
                    let value = match offset {
                        Some(offset) => value.mul_add(factor, L::load_within(offset.as_ptr(), first, channels)),
                        None => value.mul(factor),
                    };
                    value.store_within(y.as_mut_ptr().add(pixel), first, channels);
                }
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
