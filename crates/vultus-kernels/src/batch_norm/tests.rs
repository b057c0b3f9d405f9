//! Batch norm against the definition in double precision and finite differences of it.

use super::*;
use crate::testing::{
    activate, assert_close, assert_shows, assert_within, dot, finite_differences, numbers, pass_back,
    same_for_any_thread_count, widen, with_each_input_broken, with_every_instruction_set,
};
use proptest::prelude::*;

const EPSILON: f32 = 1e-3;

/// Output and statistics by the definition.
pub(crate) fn reference(
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
            y[place] = activate(activation, value);
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

/// Gradients of input, gamma, beta, bias and residual by the definition. Which of them pass a ReLU is decided by the output `y`
/// of the kernel, so that rounding next to the kink is no difference.
fn reference_gradients(
    shape: &NormShape,
    [x, gamma, dy]: [&[f32]; 3],
    activation: Activation,
    before: Activation,
    y: &[f32],
) -> [Vec<f64>; 5] {
    let rows = shape.rows as f64;
    let dsum: Vec<f64> = dy.iter().zip(y).map(|(&dy, &y)| pass_back(activation, y, f64::from(dy))).collect();
    let (mut dx, mut dgamma, mut dbeta, mut dbias) = (vec![0.0; x.len()], Vec::new(), Vec::new(), Vec::new());
    let wide_x = widen(x);
    for channel in 0..shape.channels {
        let places = || (0..shape.rows).map(|row| row * shape.channels + channel);
        let mean = places().map(|place| wide_x[place]).sum::<f64>() / rows;
        let variance = places().map(|place| (wide_x[place] - mean).powi(2)).sum::<f64>() / rows;
        let inverse = 1.0 / (variance + f64::from(EPSILON)).sqrt();
        let sum: f64 = places().map(|place| dsum[place]).sum();
        let product: f64 = places().map(|place| dsum[place] * (wide_x[place] - mean) * inverse).sum();
        for place in places() {
            let normal = (wide_x[place] - mean) * inverse;
            let gradient = f64::from(gamma[channel]) * inverse * (dsum[place] - (sum + normal * product) / rows);
            dx[place] = pass_back(before, x[place], gradient);
        }
        dgamma.push(product);
        dbeta.push(sum);
        dbias.push(places().map(|place| dx[place]).sum());
    }
    [dx, dgamma, dbeta, dbias, dsum]
}

/// Every instruction set against the definition.
fn check(shape: &NormShape, seed: u64, activation: Activation, before: Activation, with_residual: bool) {
    let (mut x, dy, residual) =
        (numbers(seed, shape.len()), numbers(seed + 1, shape.len()), numbers(seed + 2, shape.len()));
    x.iter_mut().for_each(|x| *x = before.apply(*x));
    let (gamma, beta) = (numbers(seed + 3, shape.channels), numbers(seed + 4, shape.channels));
    let residual = with_residual.then_some(&residual[..]);
    let wide_residual = residual.map(widen);
    let (y, mean, variance) =
        reference(shape, &widen(&x), &widen(&gamma), &widen(&beta), wide_residual.as_deref(), activation);
    // By which the norm of the narrowest channel makes errors larger, and how many terms sums have.
    let slope = variance.iter().map(|variance| 1.0 / (variance + f64::from(EPSILON)).sqrt()).fold(1.0, f64::max);
    let terms = 10.0 + shape.rows as f64;
    with_every_instruction_set(|| {
        let results = run(shape, [&x, &gamma, &beta, &dy], residual, activation, before);
        assert_within(&results[0], &y, 1e-6 * slope);
        assert_within(&results[1], &mean, 1e-7);
        assert_close(&results[2], &variance, 1e-6);
        let [dx, dgamma, dbeta, dbias, dresidual] =
            reference_gradients(shape, [&x, &gamma, &dy], activation, before, &results[0]);
        assert_within(&results[3], &dx, 3e-6 * slope);
        // Sums of numbers of either sign.
        assert_within(&results[4], &dgamma, 1e-7 * terms * slope);
        assert_within(&results[5], &dbeta, 1e-7 * terms);
        assert_within(&results[6], &dbias, 3e-7 * terms * slope);
        if with_residual {
            assert_close(&results[7], &dresidual, 1e-6);
        }
    });
}

const ACTIVATIONS: [Activation; 3] = [Activation::Linear, Activation::Relu, Activation::Tanh];

#[test]
fn channels_of_many_vectors_and_many_rows_equal_the_definition() {
    // Vectors have 8 or 16 channels, and groups four of them; tasks have up to 256 rows.
    for (rows, channels) in [(700, 70), (3, 130), (5000, 19), (260, 64), (300, 7), (1000, 17)] {
        for (activation, with_residual) in ACTIVATIONS.into_iter().flat_map(|f| [(f, false), (f, true)]) {
            check(&NormShape { rows, channels }, 1, activation, Activation::Linear, with_residual);
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

#[test]
fn what_is_no_number_shows_wherever_the_definition_has_it() {
    let shape = NormShape { rows: 40, channels: 37 };
    // Inside a whole vector, and in what is left behind the last one.
    for (case, channel) in (0..24).map(|i| (i % 12, [20, 36][i / 12])) {
        let (before, activation, with_residual) = (ACTIVATIONS[case % 2], ACTIVATIONS[case / 2 % 3], case >= 6);
        let rows = if with_residual { 40 } else { 0 };
        let mut values = [shape.len(), 37, 37, shape.len(), rows * 37].map(|length| numbers(7, length));
        values[0].iter_mut().for_each(|x| *x = before.apply(*x));
        values[2][channel] = 3.0; // its gates are open
        let place = 20 * 37 + channel;
        with_each_input_broken(values, [place, channel, channel, place, place], |_, [x, gamma, beta, dy, residual]| {
            let residual = with_residual.then_some(&residual[..]);
            let wide_residual = residual.map(widen);
            let (y, mean, variance) =
                reference(&shape, &widen(x), &widen(gamma), &widen(beta), wide_residual.as_deref(), activation);
            with_every_instruction_set(|| {
                let results = run(&shape, [x, gamma, beta, dy], residual, activation, before);
                let [dx, dgamma, dbeta, dbias, dresidual] =
                    reference_gradients(&shape, [x, gamma, dy], activation, before, &results[0]);
                let expected = [&y, &mean, &variance, &dx, &dgamma, &dbeta, &dbias, &dresidual];
                for (result, expected) in results.iter().zip(expected).take(if with_residual { 8 } else { 7 }) {
                    // Scale and shift of the channel are one map, in which infinities may meet.
                    assert_shows(result, expected, |place| place % 37 == channel);
                }
            });
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_shape_equals_the_definition(
        rows in 1_usize..60, channels in 1_usize..40, seed in 0_u64..1000, with_residual in any::<bool>(),
        activation in 0_usize..3, before in 0_usize..2,
    ) {
        check(&NormShape { rows, channels }, seed, ACTIVATIONS[activation], ACTIVATIONS[before], with_residual);
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
        let (mut sums, mut sizes) = (vec![0.0; channels], vec![0.0; channels]);
        for (place, &dx) in expected.iter().enumerate() {
            sums[place % channels] += f64::from(dx);
            sizes[place % channels] += f64::from(dx.abs());
        }
        // What is summed cancels: each term is rounded to its own size, and not to that of the sum.
        for (channel, &sum) in gated[6].iter().enumerate() {
            let bound = 8.0 * f64::from(f32::EPSILON) * (1.0 + sizes[channel]);
            prop_assert!((f64::from(sum) - sums[channel]).abs() <= bound, "{} {} {}", sum, sums[channel], bound);
        }
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
        let results = run(&shape, [&x, &gamma, &beta, &dy], Some(&residual), Activation::Relu, Activation::Linear);
        let norm = Norm { gamma: &gamma, beta: &beta, mean: &beta, variance: &[0.25; 23], epsilon: EPSILON };
        let mut y = vec![f32::NAN; x.len()];
        forward(&shape, &x, &norm, None, Activation::Tanh, &mut y);
        [results.concat(), y].concat()
    });
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
