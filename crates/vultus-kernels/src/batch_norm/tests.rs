//! Batch norm against the definition in double precision and finite differences of it.

use super::*;
use crate::testing::{
    assert_close, assert_within, dot, finite_differences, numbers, same_for_any_thread_count, widen,
    with_every_instruction_set,
};
use proptest::prelude::*;

const EPSILON: f32 = 1e-3;

/// Output and statistics by the definition.
fn reference(
    shape: &NormShape,
    x: &[f64],
    gamma: &[f64],
    beta: &[f64],
    residual: Option<&[f64]>,
    activation: Activation,
) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let (mut y, mut means, mut variances) = (vec![0.0; x.len()], Vec::new(), Vec::new());
    for channel in 0..shape.channels {
        let places: Vec<usize> = (0..shape.rows).map(|row| row * shape.channels + channel).collect();
        let mean = places.iter().map(|&place| x[place]).sum::<f64>() / shape.rows as f64;
        let variance = places.iter().map(|&place| (x[place] - mean).powi(2)).sum::<f64>() / shape.rows as f64;
        for place in places {
            let normal = (x[place] - mean) / (variance + f64::from(EPSILON)).sqrt();
            let value = gamma[channel] * normal + beta[channel] + residual.map_or(0.0, |residual| residual[place]);
            y[place] = match activation {
                Activation::Relu => value.max(0.0),
                Activation::Tanh => value.tanh(),
                _ => value,
            };
        }
        means.push(mean);
        variances.push(variance);
    }
    (y, means, variances)
}

/// Output, mean, variance, and gradients of input, gamma, beta, bias and residual.
fn run(
    shape: &NormShape,
    [x, gamma, beta, dy]: [&[f32]; 4],
    residual: Option<&[f32]>,
    activation: Activation,
    before: Activation,
) -> [Vec<f32>; 8] {
    let channels = shape.channels;
    let [mut y, mut dx, mut dresidual] = [(); 3].map(|()| vec![f32::NAN; x.len()]);
    let [mut mean, mut variance, mut dgamma, mut dbeta, mut dbias] = [(); 5].map(|()| vec![f32::NAN; channels]);
    forward_training(shape, x, gamma, beta, EPSILON, residual, activation, &mut y, &mut mean, &mut variance);
    let norm = Norm { gamma, beta, mean: &mean, variance: &variance, epsilon: EPSILON };
    let gradients = NormGradients { dx: &mut dx, dgamma: &mut dgamma, dbeta: &mut dbeta, dbias: Some(&mut dbias) };
    let added = residual.map(|_| Residual { gradient: Some(&mut dresidual) });
    backward(shape, x, &norm, activation, &y, dy, before, added, gradients);
    [y, mean, variance, dx, dgamma, dbeta, dbias, dresidual]
}

/// The largest factor that a gradient comes by on its way through the norm.
fn largest_slope(gamma: &[f32], variance: &[f32]) -> f64 {
    let slopes = gamma.iter().zip(variance).map(|(gamma, variance)| gamma.abs() / (variance + EPSILON).sqrt());
    f64::from(slopes.fold(0.0, f32::max))
}

/// Gradients of input, gamma, beta and residual by the definition. Which of them pass a ReLU is decided by the output `y`
/// of the kernel, so that rounding next to the kink is no difference.
fn reference_gradients(
    shape: &NormShape,
    [x, gamma, dy]: [&[f64]; 3],
    activation: Activation,
    y: &[f32],
) -> [Vec<f64>; 4] {
    let rows = shape.rows as f64;
    let dsum: Vec<f64> =
        dy.iter().zip(y).map(|(dy, &y)| dy * f64::from(activation.derivative_from_output(y))).collect();
    let (mut dx, mut dgamma, mut dbeta) = (vec![0.0; x.len()], Vec::new(), Vec::new());
    for channel in 0..shape.channels {
        let places = || (0..shape.rows).map(|row| row * shape.channels + channel);
        let mean = places().map(|place| x[place]).sum::<f64>() / rows;
        let variance = places().map(|place| (x[place] - mean).powi(2)).sum::<f64>() / rows;
        let inverse = 1.0 / (variance + f64::from(EPSILON)).sqrt();
        let sum: f64 = places().map(|place| dsum[place]).sum();
        let product: f64 = places().map(|place| dsum[place] * (x[place] - mean) * inverse).sum();
        for place in places() {
            let normal = (x[place] - mean) * inverse;
            dx[place] = gamma[channel] * inverse * (dsum[place] - (sum + normal * product) / rows);
        }
        dgamma.push(product);
        dbeta.push(sum);
    }
    [dx, dgamma, dbeta, dsum]
}

#[test]
fn channels_of_many_vectors_and_many_rows_equal_the_definition() {
    // Vectors have 8 or 16 channels, and groups four of them; tasks have up to 256 rows.
    for (rows, channels) in [(700, 70), (3, 130), (5000, 19), (260, 64), (300, 7), (1000, 17)] {
        let shape = NormShape { rows, channels };
        let (x, dy, residual) = (numbers(1, shape.len()), numbers(2, shape.len()), numbers(3, shape.len()));
        let (gamma, beta) = (numbers(4, channels), numbers(5, channels));
        let (wide_x, wide_gamma, wide_dy) = (widen(&x), widen(&gamma), widen(&dy));
        for (activation, residual) in [Activation::Linear, Activation::Relu, Activation::Tanh]
            .into_iter()
            .flat_map(|activation| [(activation, None), (activation, Some(&residual[..]))])
        {
            let wide_residual = residual.map(widen);
            let (y, mean, variance) =
                reference(&shape, &wide_x, &wide_gamma, &widen(&beta), wide_residual.as_deref(), activation);
            with_every_instruction_set(|| {
                let results = run(&shape, [&x, &gamma, &beta, &dy], residual, activation, Activation::Linear);
                assert_close(&results[0], &y, 2e-6);
                assert_within(&results[1], &mean, 1e-7);
                assert_close(&results[2], &variance, 1e-6);
                let [dx, dgamma, dbeta, dresidual] =
                    reference_gradients(&shape, [&wide_x, &wide_gamma, &wide_dy], activation, &results[0]);
                assert_close(&results[3], &dx, 1e-5);
                // Sums of numbers of either sign.
                let bound = 1e-7 * rows as f64;
                assert_within(&results[4], &dgamma, bound);
                assert_within(&results[5], &dbeta, bound);
                assert_within(&results[6], &vec![0.0; channels], 10.0 * bound);
                if residual.is_some() {
                    assert_close(&results[7], &dresidual, 1e-6);
                }
            });
        }
    }
}

#[test]
fn gradients_of_wide_channels_equal_finite_differences() {
    for (rows, channels) in [(7, 70), (5, 130), (12, 18)] {
        let shape = NormShape { rows, channels };
        let (x, dy, residual) = (numbers(1, shape.len()), numbers(2, shape.len()), numbers(3, shape.len()));
        let (gamma, beta) = (numbers(4, channels), numbers(5, channels));
        let wide = [&x, &gamma, &beta, &residual].map(|values| widen(values));
        let tanh = Activation::Tanh;
        let expected = [0, 1, 2, 3].map(|index| {
            finite_differences(&wide[index], |moved| {
                let mut values = wide.each_ref().map(|values| &values[..]);
                values[index] = moved;
                let [x, gamma, beta, residual] = values;
                dot(&reference(&shape, x, gamma, beta, Some(residual), tanh).0, &dy)
            })
        });
        with_every_instruction_set(|| {
            let results = run(&shape, [&x, &gamma, &beta, &dy], Some(&residual), tanh, Activation::Linear);
            for (result, expected) in [3, 4, 5, 7].into_iter().zip(&expected) {
                assert_close(&results[result], expected, 1e-5);
            }
        });
    }
}

/// The residual's gradient is not wanted; the others are the same.
#[test]
fn a_residual_opens_and_closes_the_gate_whether_or_not_its_gradient_is_wanted() {
    let shape = NormShape { rows: 300, channels: 21 };
    let (x, dy, residual) = (numbers(1, shape.len()), numbers(2, shape.len()), numbers(3, shape.len()));
    let (gamma, beta) = (numbers(4, 21), numbers(5, 21));
    let (relu, linear) = (Activation::Relu, Activation::Linear);
    let [y, mean, variance, expected, ..] = run(&shape, [&x, &gamma, &beta, &dy], Some(&residual), relu, linear);
    let norm = Norm { gamma: &gamma, beta: &beta, mean: &mean, variance: &variance, epsilon: EPSILON };
    let [mut dgamma, mut dbeta] = [(); 2].map(|()| vec![f32::NAN; 21]);
    let mut dx = vec![f32::NAN; x.len()];
    let gradients = NormGradients { dx: &mut dx, dgamma: &mut dgamma, dbeta: &mut dbeta, dbias: None };
    backward(&shape, &x, &norm, relu, &y, &dy, linear, Some(Residual { gradient: None }), gradients);
    assert_eq!(dx, expected);
}

/// The results of [`run`] layer by layer: the norm, the sum, and the activations behind and in front.
fn one_after_the_other(
    shape: &NormShape,
    slices: [&[f32]; 4],
    residual: Option<&[f32]>,
    activation: Activation,
    before: Activation,
) -> [Vec<f32>; 8] {
    let [x, gamma, beta, dy] = slices;
    let linear = Activation::Linear;
    let [mut y, mean, variance, ..] = run(shape, slices, None, linear, linear);
    if let Some(residual) = residual {
        y.iter_mut().zip(residual).for_each(|(y, residual)| *y += residual);
    }
    activation.forward(&mut y);
    let mut dsum = dy.to_vec();
    activation.backward(&y, &mut dsum);
    let [_, _, _, mut dx, dgamma, dbeta, mut dbias, _] = run(shape, [x, gamma, beta, &dsum], None, linear, linear);
    before.backward(x, &mut dx);
    crate::convolution::column_sums(&dx, &mut dbias);
    [y, mean, variance, dx, dgamma, dbeta, dbias, dsum]
}

#[test]
fn nan_shows_wherever_the_single_layers_show_it() {
    let (rows, channels) = (40, 37);
    let shape = NormShape { rows, channels };
    let (relu, linear) = (Activation::Relu, Activation::Linear);
    for (before, activation, with_residual) in
        [(relu, linear, false), (linear, relu, false), (linear, relu, true), (relu, relu, false), (relu, relu, true)]
    {
        // A NaN in the input, gamma, beta, the residual.
        for broken in 0..if with_residual { 4 } else { 3 } {
            let mut values = [shape.len(), channels, channels, shape.len()].map(|length| numbers(7, length));
            values[0].iter_mut().for_each(|x| *x = x.max(0.0));
            values[broken][20] = f32::NAN;
            let [x, gamma, beta, residual] = &values;
            let (dy, residual) = (numbers(8, shape.len()), with_residual.then_some(&residual[..]));
            with_every_instruction_set(|| {
                let slices = [&x[..], gamma, beta, &dy];
                let fused = run(&shape, slices, residual, activation, before);
                let expected = one_after_the_other(&shape, slices, residual, activation, before);
                for (index, (fused, expected)) in fused.iter().zip(&expected).enumerate() {
                    if index == 7 && residual.is_none() {
                        continue;
                    }
                    for (place, (fused, expected)) in fused.iter().zip(expected).enumerate() {
                        // A closed gate in front gives zero, and no product of zero and NaN.
                        let closed = index == 3 && before == relu && x[place] <= 0.0;
                        let nan = expected.is_nan() && !closed;
                        assert_eq!(
                            fused.is_nan(),
                            nan,
                            "result {index}, element {place}, NaN in {broken}, {before:?}, {activation:?}, {with_residual}"
                        );
                    }
                }
            });
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_shape_equals_the_definition(
        rows in 2_usize..40, channels in 1_usize..5, seed in 0_u64..1000, with_residual in any::<bool>(),
        activation in prop_oneof![Just(Activation::Linear), Just(Activation::Relu), Just(Activation::Tanh)],
    ) {
        let shape = NormShape { rows, channels };
        let (x, dy) = (numbers(seed, shape.len()), numbers(seed + 3, shape.len()));
        let (gamma, beta) = (numbers(seed + 1, channels), numbers(seed + 2, channels));
        let residual = numbers(seed + 4, shape.len());
        let residual = with_residual.then_some(&residual[..]);
        let wide_residual = residual.map(widen);
        let expected = |x: &[f64], gamma: &[f64], beta: &[f64], residual: Option<&[f64]>| {
            reference(&shape, x, gamma, beta, residual, activation)
        };
        let (wide_x, wide_gamma, wide_beta) = (widen(&x), widen(&gamma), widen(&beta));
        let (y, mean, variance) = expected(&wide_x, &wide_gamma, &wide_beta, wide_residual.as_deref());
        // Next to the kink finite differences see both sides.
        prop_assume!(activation != Activation::Relu || y.iter().all(|&y| y == 0.0 || y > 1e-4));
        let results = run(&shape, [&x, &gamma, &beta, &dy], residual, activation, Activation::Linear);
        assert_close(&results[0], &y, 3e-5);
        assert_within(&results[1], &mean, 1e-6);
        assert_close(&results[2], &variance, 1e-6);
        let loss = |x: &[f64], gamma: &[f64], beta: &[f64], residual: Option<&[f64]>| {
            dot(&expected(x, gamma, beta, residual).0, &dy)
        };
        let rest = wide_residual.as_deref();
        // Differences of terms which may be much larger, and sums of numbers of either sign.
        let bound = 1e-5 * largest_slope(&gamma, &results[2]);
        assert_within(&results[3], &finite_differences(&wide_x, |x| loss(x, &wide_gamma, &wide_beta, rest)), bound);
        assert_within(&results[4], &finite_differences(&wide_gamma, |g| loss(&wide_x, g, &wide_beta, rest)), 1e-4);
        assert_within(&results[5], &finite_differences(&wide_beta, |b| loss(&wide_x, &wide_gamma, b, rest)), 1e-5);
        if let Some(rest) = rest {
            let expected = finite_differences(rest, |r| loss(&wide_x, &wide_gamma, &wide_beta, Some(r)));
            assert_close(&results[7], &expected, 1e-5);
        }
    }

    #[test]
    fn the_activation_in_front_gates_the_gradient_and_its_sums(
        rows in 2_usize..900, channels in 1_usize..70, seed in 0_u64..1000,
    ) {
        let shape = NormShape { rows, channels };
        let x: Vec<f32> = numbers(seed, shape.len()).into_iter().map(|x| x.max(0.0)).collect();
        let (gamma, beta, dy) = (numbers(1, channels), numbers(2, channels), numbers(3, shape.len()));
        let slices = [&x[..], &gamma, &beta, &dy];
        let open = run(&shape, slices, None, Activation::Linear, Activation::Linear);
        let gated = run(&shape, slices, None, Activation::Linear, Activation::Relu);
        let expected: Vec<f32> = open[3].iter().zip(&x).map(|(&dx, &x)| if x > 0.0 { dx } else { 0.0 }).collect();
        prop_assert_eq!(&gated[3], &expected);
        let mut sums = vec![0.0; channels];
        expected.iter().enumerate().for_each(|(place, &dx)| sums[place % channels] += f64::from(dx));
        assert_close(&gated[6], &sums, 1e-5);
    }
}

#[test]
fn a_large_mean_does_not_spoil_the_variance() {
    let shape = NormShape { rows: 24_000, channels: 2 };
    let x: Vec<f32> = numbers(1, shape.len()).into_iter().map(|value| 1000.0 + value).collect();
    let (mut mean, mut variance) = (vec![0.0; 2], vec![0.0; 2]);
    statistics(&shape, &x, &mut mean, &mut variance);
    let (_, means, variances) = reference(&shape, &widen(&x), &[1.0; 2], &[0.0; 2], None, Activation::Linear);
    for channel in 0..2 {
        assert!((f64::from(mean[channel]) / means[channel] - 1.0).abs() < 1e-7);
        assert!((f64::from(variance[channel]) / variances[channel] - 1.0).abs() < 1e-5);
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let shape = NormShape { rows: 9000, channels: 23 };
    let (x, dy, residual) = (numbers(1, shape.len()), numbers(2, shape.len()), numbers(5, shape.len()));
    let (gamma, beta) = (numbers(3, 23), numbers(4, 23));
    same_for_any_thread_count(|| {
        run(&shape, [&x, &gamma, &beta, &dy], Some(&residual), Activation::Relu, Activation::Linear).concat()
    });
}

#[test]
fn nan_fills_its_channel_and_no_other() {
    let shape = NormShape { rows: 60, channels: 2 };
    let mut x = numbers(1, shape.len());
    x[4] = f32::NAN;
    let dy = numbers(2, shape.len());
    let linear = Activation::Linear;
    let results = run(&shape, [&x, &[1.0; 2], &[0.0; 2], &dy], None, linear, linear);
    for results in &results[..5] {
        for (index, value) in results.iter().enumerate() {
            assert_eq!(value.is_nan(), index % 2 == 0, "element {index}");
        }
    }
}

#[test]
#[should_panic(expected = "length of dbias")]
fn sums_for_fewer_channels_are_refused() {
    let (shape, linear) = (NormShape { rows: 6, channels: 4 }, Activation::Linear);
    let (x, ones) = (numbers(1, shape.len()), [1.0; 4]);
    let [mut dgamma, mut dbeta, mut dbias] = [[0.0; 4]; 3];
    let mut dx = vec![0.0; shape.len()];
    let norm = Norm { gamma: &ones, beta: &ones, mean: &ones, variance: &ones, epsilon: EPSILON };
    let gradients = NormGradients { dx: &mut dx, dgamma: &mut dgamma, dbeta: &mut dbeta, dbias: Some(&mut dbias[..2]) };
    backward(&shape, &x, &norm, linear, &x, &x, linear, None, gradients);
}
