//! Batch normalisation over the channels of `[batch, channels, spatial]` (`spatial` is 1 after flattening).
//!
//! In: values and the channels' scale and shift. Out: normalised values with the batch's statistics, gradients, or the
//! inference form with given statistics. Variances are biased (divided by the count), as Keras uses and stores them.
//! Running averages are the caller's.

use rayon::prelude::*;

/// Values that are summed in single precision before they go to a double.
const SINGLE_PRECISION_RUN: usize = 1024;

/// Normalises with the statistics of this batch: `y = gamma (x - mean) / sqrt(variance + epsilon) + beta`.
///
/// `x` and `y` are `[batch, channels, spatial]`, the others `[channels]`; `y`, `mean` and `variance` (biased) are
/// overwritten.
///
/// # Panics
/// If a slice has another length than its shape.
#[expect(clippy::too_many_arguments, reason = "a kernel's signature names every slice it reads and writes")]
pub fn forward_training(
    batch: usize,
    channels: usize,
    spatial: usize,
    x: &[f32],
    gamma: &[f32],
    beta: &[f32],
    epsilon: f32,
    y: &mut [f32],
    mean: &mut [f32],
    variance: &mut [f32],
) {
    assert_eq!(x.len(), batch * channels * spatial, "length of x");
    assert_eq!(mean.len(), channels, "length of mean");
    assert_eq!(variance.len(), channels, "length of variance");
    assert_eq!(y.len(), x.len(), "length of y");
    for (slice, name) in [(gamma, "gamma"), (beta, "beta"), (&*variance, "variance")] {
        assert_eq!(slice.len(), channels, "length of {name}");
    }
    let count = (batch * spatial) as f64;
    let statistics = mean.par_iter_mut().zip(variance.par_iter_mut());
    statistics.zip(planes_by_channel(channels, spatial, y)).enumerate().for_each(
        |(channel, ((mean, variance), outputs))| {
            let planes = || (0..batch).map(|image| plane(x, image * channels + channel, spatial));
            let sum: f64 = planes().map(|plane| sum_of(plane, |value| value)).sum();
            let center = (sum / count) as f32;
            let squares: f64 = planes().map(|plane| sum_of(plane, |value| (value - center) * (value - center))).sum();
            *mean = center;
            *variance = (squares / count) as f32;
            let scale = gamma[channel] * inverse_deviation(*variance, epsilon);
            for (x, y) in planes().zip(outputs) {
                normalise(x, center, scale, beta[channel], y);
            }
        },
    );
}

/// Normalises with given statistics: `y = gamma (x - mean) / sqrt(variance + epsilon) + beta`. Shapes as in
/// [`forward_training`].
///
/// # Panics
/// If a slice has another length than its shape.
#[expect(clippy::too_many_arguments, reason = "a kernel's signature names every slice it reads and writes")]
pub fn forward_inference(
    batch: usize,
    channels: usize,
    spatial: usize,
    x: &[f32],
    gamma: &[f32],
    beta: &[f32],
    mean: &[f32],
    variance: &[f32],
    epsilon: f32,
    y: &mut [f32],
) {
    assert_eq!(x.len(), batch * channels * spatial, "length of x");
    assert_eq!(y.len(), x.len(), "length of y");
    for (slice, name) in [(gamma, "gamma"), (beta, "beta"), (mean, "mean"), (variance, "variance")] {
        assert_eq!(slice.len(), channels, "length of {name}");
    }
    let scale: Vec<f32> =
        gamma.iter().zip(variance).map(|(&gamma, &variance)| gamma * inverse_deviation(variance, epsilon)).collect();
    if y.is_empty() {
        return;
    }
    // Small images share a task.
    let length = (crate::ELEMENTS_PER_TASK / (channels * spatial)).max(1) * channels * spatial;
    y.par_chunks_mut(length).zip(x.par_chunks(length)).for_each(|(y, x)| {
        for (index, (y, x)) in y.chunks_exact_mut(spatial).zip(x.chunks_exact(spatial)).enumerate() {
            let channel = index % channels;
            normalise(x, mean[channel], scale[channel], beta[channel], y);
        }
    });
}

/// `y = (x - mean) * scale + beta`. The mean is taken off first: folded into the shift it would cost digits where it
/// is much larger than the deviation.
fn normalise(x: &[f32], mean: f32, scale: f32, beta: f32, y: &mut [f32]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y = (x - mean) * scale + beta;
    }
}

/// Gradients of [`forward_training`], through the statistics too.
///
/// `x`, `mean`, `variance` and `epsilon` are those of the forward pass, `dy` the gradient at its output. `dx` has the
/// shape of `x`; `dgamma` and `dbeta` are `[channels]`. All three are overwritten.
///
/// # Panics
/// If a slice has another length than its shape.
#[expect(clippy::too_many_arguments, reason = "a kernel's signature names every slice it reads and writes")]
pub fn backward(
    batch: usize,
    channels: usize,
    spatial: usize,
    x: &[f32],
    gamma: &[f32],
    mean: &[f32],
    variance: &[f32],
    epsilon: f32,
    dy: &[f32],
    dx: &mut [f32],
    dgamma: &mut [f32],
    dbeta: &mut [f32],
) {
    assert_eq!(x.len(), batch * channels * spatial, "length of x");
    assert_eq!(dy.len(), x.len(), "length of dy");
    assert_eq!(dx.len(), x.len(), "length of dx");
    for (slice, name) in [(gamma, "gamma"), (mean, "mean"), (variance, "variance")] {
        assert_eq!(slice.len(), channels, "length of {name}");
    }
    assert_eq!(dgamma.len(), channels, "length of dgamma");
    assert_eq!(dbeta.len(), channels, "length of dbeta");
    let count = (batch * spatial) as f32;
    let sums = dgamma.par_iter_mut().zip(dbeta.par_iter_mut());
    sums.zip(planes_by_channel(channels, spatial, dx)).enumerate().for_each(|(channel, ((dgamma, dbeta), outputs))| {
        let planes = || {
            let indices = (0..batch).map(|image| image * channels + channel);
            indices.map(|index| (plane(x, index, spatial), plane(dy, index, spatial)))
        };
        let mean = mean[channel];
        let (mut sum, mut product) = (0.0_f64, 0.0_f64);
        for (x, dy) in planes() {
            let (part, part_product) = sums_of_gradient(dy, x, mean);
            sum += part;
            product += part_product;
        }
        let inverse = inverse_deviation(variance[channel], epsilon);
        *dbeta = sum as f32;
        *dgamma = (product * inverse as f64) as f32;
        let scale = gamma[channel] * inverse;
        let (slope, shift) = (scale * inverse * *dgamma / count, scale * *dbeta / count);
        for ((x, dy), dx) in planes().zip(outputs) {
            for ((dx, &x), &dy) in dx.iter_mut().zip(x).zip(dy) {
                *dx = scale * dy - slope * (x - mean) - shift;
            }
        }
    });
}

/// The planes of each channel, in the order of the images: one channel of a batch fits a core's second-level cache,
/// so a task that takes a channel through all its passes reads the memory once.
fn planes_by_channel(channels: usize, spatial: usize, values: &mut [f32]) -> Vec<Vec<&mut [f32]>> {
    let mut planes: Vec<Vec<&mut [f32]>> = (0..channels).map(|_| Vec::new()).collect();
    if spatial > 0 {
        for (index, plane) in values.chunks_exact_mut(spatial).enumerate() {
            planes[index % channels].push(plane);
        }
    }
    planes
}

fn inverse_deviation(variance: f32, epsilon: f32) -> f32 {
    1.0 / (variance + epsilon).sqrt()
}

fn plane(values: &[f32], index: usize, spatial: usize) -> &[f32] {
    &values[index * spatial..][..spatial]
}

/// Sum of `term` over `values`: short runs in sixteen single-precision lanes, then in double precision.
fn sum_of(values: &[f32], term: impl Fn(f32) -> f32) -> f64 {
    let mut total = 0.0;
    for run in values.chunks(SINGLE_PRECISION_RUN) {
        let (blocks, rest) = run.as_chunks::<16>();
        let mut lanes = [0.0_f32; 16];
        for block in blocks {
            for (lane, &value) in lanes.iter_mut().zip(block) {
                *lane += term(value);
            }
        }
        total += rest.iter().map(|&value| term(value) as f64).sum::<f64>();
        total += lanes.iter().map(|&lane| lane as f64).sum::<f64>();
    }
    total
}

/// Sums of `dy` and of `dy * (x - mean)`, added up as in [`sum_of`].
fn sums_of_gradient(dy: &[f32], x: &[f32], mean: f32) -> (f64, f64) {
    let (mut sum, mut product) = (0.0, 0.0);
    for (dy, x) in dy.chunks(SINGLE_PRECISION_RUN).zip(x.chunks(SINGLE_PRECISION_RUN)) {
        let ((dy, dy_rest), (x, x_rest)) = (dy.as_chunks::<16>(), x.as_chunks::<16>());
        let (mut lanes, mut product_lanes) = ([0.0_f32; 16], [0.0_f32; 16]);
        for (dy, x) in dy.iter().zip(x) {
            for lane in 0..16 {
                lanes[lane] += dy[lane];
                product_lanes[lane] += dy[lane] * (x[lane] - mean);
            }
        }
        for (&dy, &x) in dy_rest.iter().zip(x_rest) {
            sum += dy as f64;
            product += (dy * (x - mean)) as f64;
        }
        sum += lanes.iter().map(|&lane| lane as f64).sum::<f64>();
        product += product_lanes.iter().map(|&lane| lane as f64).sum::<f64>();
    }
    (sum, product)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, dot, finite_differences, numbers, same_for_any_thread_count, widen};
    use proptest::prelude::*;

    const EPSILON: f32 = 1e-3;

    struct Reference {
        y: Vec<f64>,
        mean: Vec<f64>,
        variance: Vec<f64>,
    }

    fn reference([batch, channels, spatial]: [usize; 3], x: &[f64], gamma: &[f64], beta: &[f64]) -> Reference {
        let mut result = Reference { y: vec![0.0; x.len()], mean: Vec::new(), variance: Vec::new() };
        for channel in 0..channels {
            let places: Vec<usize> = (0..batch)
                .flat_map(|image| (0..spatial).map(move |place| (image * channels + channel) * spatial + place))
                .collect();
            let mean = places.iter().map(|&place| x[place]).sum::<f64>() / places.len() as f64;
            let variance = places.iter().map(|&place| (x[place] - mean).powi(2)).sum::<f64>() / places.len() as f64;
            for place in places {
                let normal = (x[place] - mean) / (variance + EPSILON as f64).sqrt();
                result.y[place] = gamma[channel] * normal + beta[channel];
            }
            result.mean.push(mean);
            result.variance.push(variance);
        }
        result
    }

    fn run(
        [batch, channels, spatial]: [usize; 3],
        x: &[f32],
        gamma: &[f32],
        beta: &[f32],
        dy: &[f32],
    ) -> [Vec<f32>; 6] {
        let (mut y, mut dx) = (vec![f32::NAN; x.len()], vec![f32::NAN; x.len()]);
        let [mut mean, mut variance, mut dgamma, mut dbeta] = [(); 4].map(|()| vec![f32::NAN; channels]);
        forward_training(batch, channels, spatial, x, gamma, beta, EPSILON, &mut y, &mut mean, &mut variance);
        backward(batch, channels, spatial, x, gamma, &mean, &variance, EPSILON, dy, &mut dx, &mut dgamma, &mut dbeta);
        [y, mean, variance, dx, dgamma, dbeta]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn every_shape_equals_the_definition(
            batch in 2_usize..5, channels in 1_usize..5, spatial in 1_usize..40, seed in 0_u64..1000,
        ) {
            let shape = [batch, channels, spatial];
            let x = numbers(seed, batch * channels * spatial);
            let (gamma, beta) = (numbers(seed + 1, channels), numbers(seed + 2, channels));
            let dy = numbers(seed + 3, x.len());
            let (wide_x, wide_gamma, wide_beta) = (widen(&x), widen(&gamma), widen(&beta));
            let expected = reference(shape, &wide_x, &wide_gamma, &wide_beta);
            let [y, mean, variance, dx, dgamma, dbeta] = run(shape, &x, &gamma, &beta, &dy);
            assert_close(&y, &expected.y, 2e-5);
            assert_close(&mean, &expected.mean, 1e-6);
            assert_close(&variance, &expected.variance, 1e-6);
            let loss = |x: &[f64], gamma: &[f64], beta: &[f64]| dot(&reference(shape, x, gamma, beta).y, &dy);
            assert_close(&dx, &finite_differences(&wide_x, |x| loss(x, &wide_gamma, &wide_beta)), 5e-5);
            assert_close(&dgamma, &finite_differences(&wide_gamma, |gamma| loss(&wide_x, gamma, &wide_beta)), 5e-5);
            assert_close(&dbeta, &finite_differences(&wide_beta, |beta| loss(&wide_x, &wide_gamma, beta)), 5e-5);

            let mut inference = vec![f32::NAN; x.len()];
            forward_inference(
                batch, channels, spatial, &x, &gamma, &beta, &mean, &variance, EPSILON, &mut inference,
            );
            assert_eq!(inference, y);
        }
    }

    #[test]
    fn a_large_mean_does_not_spoil_the_variance() {
        let shape = [8, 2, 3000];
        let x: Vec<f32> = numbers(1, 8 * 2 * 3000).into_iter().map(|value| 1000.0 + value).collect();
        let [_, mean, variance, ..] = run(shape, &x, &[1.0; 2], &[0.0; 2], &x);
        let expected = reference(shape, &widen(&x), &[1.0; 2], &[0.0; 2]);
        for channel in 0..2 {
            assert!((mean[channel] as f64 / expected.mean[channel] - 1.0).abs() < 1e-7);
            assert!((variance[channel] as f64 / expected.variance[channel] - 1.0).abs() < 1e-5);
        }
    }

    #[test]
    fn results_do_not_depend_on_the_number_of_threads() {
        let (x, dy) = (numbers(1, 9 * 7 * 400), numbers(2, 9 * 7 * 400));
        let (gamma, beta) = (numbers(3, 7), numbers(4, 7));
        same_for_any_thread_count(|| run([9, 7, 400], &x, &gamma, &beta, &dy).concat());
    }

    #[test]
    fn nan_fills_its_channel_and_no_other() {
        let mut x = numbers(1, 3 * 2 * 20);
        x[5] = f32::NAN;
        let [y, mean, variance, dx, dgamma, _] = run([3, 2, 20], &x, &[1.0; 2], &[0.0; 2], &numbers(2, x.len()));
        assert!(mean[0].is_nan() && variance[0].is_nan() && dgamma[0].is_nan() && dgamma[1].is_finite());
        for (index, (y, dx)) in y.iter().zip(&dx).enumerate() {
            let first = index / 20 % 2 == 0;
            assert_eq!((y.is_nan(), dx.is_nan()), (first, first), "element {index}");
        }
    }
}
