//! Batch norm, squeeze and excitation, and the end of a residual layer in one: what ends a branch of a network.
//!
//! In: images `[batch, spatial, channels]`. Out: `y = activation(factor * norm(x) + residual)`, or gradients. The same as
//! [`crate::batch_norm`] and [`crate::squeeze_excitation`] one after the other, which the tests hold it to, at the price
//! of the norm alone: the mean of a normalised picture is that of the picture, normalised, and comes with the statistics;
//! then norm and factors are one multiply-add for each image and channel. The way back is alike: the sums that the norm
//! needs hold, for each image, those that the factors need.

use crate::activation::Activation;
use crate::batch_norm::{Backward, Inputs, Norm, NormShape, Statistics, Terms, apply};
use crate::scratch::Scratch;
use crate::simd::InstructionSet;
use crate::sizes::elements;
use crate::squeeze_excitation::{Middle, SqueezeShape, WeightGradients, Weights};

/// What the backward pass needs of the forward pass.
#[derive(Debug)]
pub struct Squeezed {
    middle: Middle,
    /// Means of the images less the mean of all, `[batch, channels]`.
    centred: Vec<f32>,
}

fn rows(shape: &SqueezeShape) -> NormShape {
    NormShape { rows: elements([shape.batch, shape.spatial]), channels: shape.channels }
}

/// Statistics that also tell the mean of each image: its rows are one task's.
pub(crate) fn statistics(shape: &SqueezeShape) -> Statistics {
    // Parts are whole images, so that no task is cut short.
    let rows = rows(shape).rows;
    Statistics::new(InstructionSet::best(), shape.channels, shape.spatial, rows, 0)
}

/// The output, with the given statistics of all images; `mean` and `variance` are of the norm.
#[expect(clippy::too_many_arguments, reason = "a kernel's signature names every slice it reads and writes")]
pub(crate) fn forward(
    shape: &SqueezeShape,
    statistics: &Statistics,
    x: &[f32],
    norm: &Norm,
    weights: &Weights,
    residual: Option<&[f32]>,
    activation: Activation,
    y: &mut [f32],
) -> Squeezed {
    let SqueezeShape { batch, spatial, channels, .. } = *shape;
    assert_eq!(x.len(), shape.len(), "length of x");
    assert_eq!(y.len(), shape.len(), "length of y");
    assert!(residual.is_none_or(|residual| residual.len() == shape.len()), "length of the residual");
    norm.check(channels);
    let affine = norm.affine();
    let (scales, shifts) = affine.split_at(channels);
    let [mut centred, mut means] = [(); 2].map(|()| vec![0.0; batch * channels]);
    statistics.task_means(&mut centred);
    for (centred, means) in centred.chunks_exact_mut(channels).zip(means.chunks_exact_mut(channels)) {
        for channel in 0..channels {
            means[channel] = centred[channel] * scales[channel] + shifts[channel];
            centred[channel] -= norm.mean[channel];
        }
    }
    let middle = Middle::new(shape, means, weights);
    let maps = maps_of_images(&affine, middle.factor());
    apply(&rows(shape), spatial, &maps, x, residual, activation, y);
    Squeezed { middle, centred }
}

/// Scales, then shifts, of each image.
fn maps_of_images(affine: &[f32], factor: &[f32]) -> Scratch {
    let channels = affine.len() / 2;
    let mut maps = Scratch::take(2 * factor.len());
    for (maps, factor) in maps.chunks_exact_mut(2 * channels).zip(factor.chunks_exact(channels)) {
        for (maps, affine) in maps.chunks_exact_mut(channels).zip(affine.chunks_exact(channels)) {
            for channel in 0..channels {
                maps[channel] = affine[channel] * factor[channel];
            }
        }
    }
    maps
}

/// The backward pass up to where the gradient of any image can be told. `dgamma`, `dbeta` and the gradients of the weights
/// are overwritten.
#[expect(clippy::too_many_arguments, reason = "a kernel's signature names every slice it reads and writes")]
pub(crate) fn backward<'a>(
    shape: &SqueezeShape,
    inputs: Inputs<'a>,
    weights: &Weights,
    squeezed: &Squeezed,
    dgamma: &mut [f32],
    dbeta: &mut [f32],
    biased: bool,
    gradients: WeightGradients,
) -> Backward<'a> {
    let (channels, norm) = (shape.channels, inputs.norm);
    let affine = norm.affine();
    let factor = squeezed.middle.factor();
    let maps = maps_of_images(&affine, factor);
    Backward::by_terms(&rows(shape), inputs, shape.spatial, maps, biased, |partial| {
        // Of each image: the sum of the gradient, and of the gradient times the input less its mean. What a factor
        // multiplies is `scale * (x - mean) + beta`.
        let mut dfactor = Scratch::take(factor.len());
        for (dfactor, sums) in dfactor.chunks_exact_mut(channels).zip(partial.chunks_exact(2 * channels)) {
            for channel in 0..channels {
                dfactor[channel] = affine[channel] * sums[channels + channel] + norm.beta[channel] * sums[channel];
            }
        }
        let mut dmean = squeezed.middle.backward(shape, weights, &mut dfactor, gradients);
        // The gradient of the norm's output is `factor * g + dmean / spatial`: the same sums of that.
        let images = partial.chunks_exact_mut(2 * channels).zip(factor.chunks_exact(channels));
        let means = dmean.chunks_exact(channels).zip(squeezed.centred.chunks_exact(channels));
        for ((sums, factor), (dmean, centred)) in images.zip(means) {
            for channel in 0..channels {
                sums[channel] = factor[channel] * sums[channel] + dmean[channel];
                let product = factor[channel] * sums[channels + channel];
                sums[channels + channel] = dmean[channel] * centred[channel] + product;
            }
        }
        let terms = Terms::new(norm, shape.batch * shape.spatial, partial, dgamma, dbeta);
        let share = 1.0 / shape.spatial as f32;
        dmean.iter_mut().for_each(|gradient| *gradient *= share);
        terms.of_images(factor, &dmean)
    })
}
