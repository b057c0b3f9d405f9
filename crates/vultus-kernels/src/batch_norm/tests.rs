//! Batch norm against the definition in double precision and finite differences of it.

use super::*;
use crate::testing::{assert_close, dot, finite_differences, numbers, same_for_any_thread_count, widen};
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
        assert_close(&results[1], &mean, 1e-6);
        assert_close(&results[2], &variance, 1e-6);
        let loss = |x: &[f64], gamma: &[f64], beta: &[f64], residual: Option<&[f64]>| {
            dot(&expected(x, gamma, beta, residual).0, &dy)
        };
        let rest = wide_residual.as_deref();
        assert_close(&results[3], &finite_differences(&wide_x, |x| loss(x, &wide_gamma, &wide_beta, rest)), 2e-4);
        assert_close(&results[4], &finite_differences(&wide_gamma, |g| loss(&wide_x, g, &wide_beta, rest)), 2e-4);
        assert_close(&results[5], &finite_differences(&wide_beta, |b| loss(&wide_x, &wide_gamma, b, rest)), 2e-4);
        if let Some(rest) = rest {
            let expected = finite_differences(rest, |r| loss(&wide_x, &wide_gamma, &wide_beta, Some(r)));
            assert_close(&results[7], &expected, 2e-4);
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
