//! Every instruction set against the definition in double precision and its finite differences.

use super::*;
use crate::testing::{
    activate, assert_close, assert_shows, dot, finite_differences, numbers, same_for_any_thread_count, widen,
    with_each_input_broken, with_every_instruction_set,
};
use proptest::prelude::*;

/// Input, `W1`, `b1`, `W2`, `b2`.
pub(crate) type Values<T> = [Vec<T>; 5];

fn values(shape: &SqueezeShape, seed: u64) -> Values<f32> {
    let (channels, hidden) = (shape.channels, shape.hidden);
    let lengths = [shape.len(), channels * hidden, hidden, hidden * channels, channels];
    let mut seed = 5 * seed;
    lengths.map(|length| {
        seed += 1;
        numbers(seed, length)
    })
}

fn weights(values: &Values<f32>) -> Weights<'_> {
    let [_, squeeze, squeeze_bias, excitation, excitation_bias] = values;
    Weights { squeeze, squeeze_bias, excitation, excitation_bias }
}

/// Means of an image's channels, sums of its hidden units before their ReLU, and factors of its channels.
fn middle(
    shape: &SqueezeShape,
    [_, squeeze, squeeze_bias, excitation, excitation_bias]: &Values<f64>,
    x: &[f64],
) -> [Vec<f64>; 3] {
    let SqueezeShape { spatial, channels, hidden, .. } = *shape;
    let mean = |channel: usize| x.iter().skip(channel).step_by(channels).sum::<f64>() / spatial as f64;
    let means: Vec<f64> = (0..channels).map(mean).collect();
    let unit =
        |unit: usize| (0..channels).map(|c| means[c] * squeeze[c * hidden + unit]).sum::<f64>() + squeeze_bias[unit];
    let units: Vec<f64> = (0..hidden).map(unit).collect();
    let factor = |channel: usize| {
        let outputs = units.iter().map(|&unit| activate(Activation::Relu, unit));
        let terms = outputs.enumerate().map(|(unit, value)| value * excitation[unit * channels + channel]);
        1.0 / (1.0 + (-(terms.sum::<f64>() + excitation_bias[channel])).exp())
    };
    let factors = (0..channels).map(factor).collect();
    [means, units, factors]
}

pub(crate) fn reference(shape: &SqueezeShape, values: &Values<f64>) -> Vec<f64> {
    let image = shape.spatial * shape.channels;
    let outputs = values[0].chunks(image).flat_map(|x| {
        let [_, _, factors] = middle(shape, values, x);
        x.iter().enumerate().map(|(place, x)| x * factors[place % factors.len()]).collect::<Vec<_>>()
    });
    outputs.collect()
}

/// Gradients of all values by the chain rule.
fn reference_gradients(shape: &SqueezeShape, values: &Values<f64>, dy: &[f64]) -> Values<f64> {
    let SqueezeShape { spatial, channels, hidden, .. } = *shape;
    let image = spatial * channels;
    let [mut dx, mut dsqueeze, mut dsqueeze_bias, mut dexcitation, mut dexcitation_bias] =
        values.each_ref().map(|values| vec![0.0; values.len()]);
    for ((x, dy), dx) in values[0].chunks(image).zip(dy.chunks(image)).zip(dx.chunks_mut(image)) {
        let [means, units, factors] = middle(shape, values, x);
        let mut dmean = vec![0.0; channels];
        let dsum = |channel: usize| {
            let dfactor: f64 = (channel..image).step_by(channels).map(|place| dy[place] * x[place]).sum();
            dfactor * factors[channel] * (1.0 - factors[channel])
        };
        let dsums: Vec<f64> = (0..channels).map(dsum).collect();
        dexcitation_bias.iter_mut().zip(&dsums).for_each(|(gradient, dsum)| *gradient += dsum);
        for unit in 0..hidden {
            let output = activate(Activation::Relu, units[unit]);
            let row = unit * channels..(unit + 1) * channels;
            dexcitation[row.clone()].iter_mut().zip(&dsums).for_each(|(gradient, dsum)| *gradient += output * dsum);
            let behind: f64 = values[3][row].iter().zip(&dsums).map(|(weight, dsum)| weight * dsum).sum();
            let dunit = behind * f64::from(Activation::Relu.derivative_from_output(output as f32));
            dsqueeze_bias[unit] += dunit;
            for channel in 0..channels {
                dsqueeze[channel * hidden + unit] += means[channel] * dunit;
                dmean[channel] += values[1][channel * hidden + unit] * dunit;
            }
        }
        for (place, dx) in dx.iter_mut().enumerate() {
            *dx = dy[place] * factors[place % channels] + dmean[place % channels] / spatial as f64;
        }
    }
    [dx, dsqueeze, dsqueeze_bias, dexcitation, dexcitation_bias]
}

/// Output, and gradients of all values.
fn run(shape: &SqueezeShape, values: &Values<f32>, dy: &[f32]) -> (Vec<f32>, Values<f32>) {
    let mut y = vec![f32::NAN; shape.len()];
    let mut gradients = values.each_ref().map(|values| vec![f32::NAN; values.len()]);
    let middle = forward_training(shape, &values[0], &weights(values), &mut y);
    let [dx, squeeze, squeeze_bias, excitation, excitation_bias] = &mut gradients;
    let of_weights = WeightGradients { squeeze, squeeze_bias, excitation, excitation_bias };
    backward(shape, &values[0], &weights(values), &middle, dy, Some(dx), of_weights);
    (y, gradients)
}

/// Output and gradients by every instruction set; the gradients come from `expected`.
fn check(shape: &SqueezeShape, seed: u64, expected: impl Fn(&Values<f64>, &[f32]) -> Values<f64>) {
    let (values, dy) = (values(shape, seed), numbers(seed + 1000, shape.len()));
    let wide = values.each_ref().map(|values| widen(values));
    let (output, gradients) = (reference(shape, &wide), expected(&wide, &dy));
    with_every_instruction_set(|| {
        let (y, found) = run(shape, &values, &dy);
        let mut again = vec![f32::NAN; y.len()];
        forward(shape, &values[0], &weights(&values), &mut again);
        assert_eq!(again, y);
        assert_close(&y, &output, 2e-6);
        for (found, expected) in found.iter().zip(&gradients) {
            assert_close(found, expected, 1e-5);
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_shape_equals_the_definition(
        batch in 1_usize..5, spatial in 1_usize..40, channels in 1_usize..90, hidden in 1_usize..24, seed in 0_u64..1000,
    ) {
        let shape = SqueezeShape { batch, spatial, channels, hidden };
        let wide = values(&shape, seed).each_ref().map(|values| widen(values));
        // Next to the kink of a unit rounding decides about its gradient.
        let clear = |x: &[f64]| middle(&shape, &wide, x)[1].iter().all(|unit| unit.abs() > 1e-5);
        prop_assume!(wide[0].chunks(spatial * channels).all(clear));
        check(&shape, seed, |values, dy| reference_gradients(&shape, values, &widen(dy)));
    }
}

#[test]
fn gradients_equal_finite_differences() {
    for (spatial, channels, hidden) in [(1, 1, 1), (4, 3, 2), (9, 7, 3), (2, 18, 4)] {
        let shape = SqueezeShape { batch: 3, spatial, channels, hidden };
        check(&shape, 3, |wide, dy| {
            std::array::from_fn(|index| {
                finite_differences(&wide[index], |moved| {
                    let mut wide = wide.clone();
                    wide[index] = moved.to_vec();
                    dot(&reference(&shape, &wide), dy)
                })
            })
        });
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let shape = SqueezeShape { batch: 7, spatial: 24 * 24, channels: 40, hidden: 10 };
    let (values, dy) = (values(&shape, 1), numbers(2, shape.len()));
    same_for_any_thread_count(|| {
        let (y, gradients) = run(&shape, &values, &dy);
        [y, gradients.concat()].concat()
    });
}

#[test]
fn an_image_is_the_same_whatever_comes_with_it() {
    let shape = SqueezeShape { batch: 300, spatial: 2, channels: 600, hidden: 20 };
    let values = values(&shape, 1);
    with_every_instruction_set(|| {
        let [mut together, mut apart] = [(); 2].map(|()| vec![f32::NAN; shape.len()]);
        forward(&shape, &values[0], &weights(&values), &mut together);
        for (y, x) in apart.chunks_mut(7 * shape.image()).zip(values[0].chunks(7 * shape.image())) {
            let shape = SqueezeShape { batch: x.len() / shape.image(), ..shape };
            forward(&shape, x, &weights(&values), y);
        }
        assert_eq!(together, apart);
    });
}

#[test]
fn what_is_no_number_shows_wherever_the_definition_has_it() {
    let shape = SqueezeShape { batch: 3, spatial: 5, channels: 19, hidden: 3 };
    let [x, squeeze, mut squeeze_bias, excitation, excitation_bias] = values(&shape, 1);
    squeeze_bias.fill(3.0); // all units are open
    let inputs = [x, squeeze, squeeze_bias, excitation, excitation_bias, numbers(2, shape.len())];
    // In the second image, of the last channel and unit.
    let pixel = 8 * 19 - 1;
    with_each_input_broken(inputs, [pixel, 19 * 3 - 1, 2, 19 * 3 - 1, 18, pixel], |_, inputs| {
        let [x, squeeze, squeeze_bias, excitation, excitation_bias, dy] = inputs.clone();
        let values = [x, squeeze, squeeze_bias, excitation, excitation_bias];
        let wide = values.each_ref().map(|values| widen(values));
        let (expected, gradients) = (reference(&shape, &wide), reference_gradients(&shape, &wide, &widen(&dy)));
        with_every_instruction_set(|| {
            let (y, found) = run(&shape, &values, &dy);
            assert_shows(&y, &expected, |_| false);
            for (found, expected) in found.iter().zip(&gradients) {
                assert_shows(found, expected, |_| false);
            }
        });
    });
}

#[test]
fn far_arguments_open_and_close_channels() {
    let shape = SqueezeShape { batch: 1, spatial: 2, channels: 3, hidden: 1 };
    let mut values = values(&shape, 1);
    values[3].fill(0.0);
    values[4] = vec![-200.0, 0.0, 200.0];
    let (y, gradients) = run(&shape, &values, &[1.0; 6]);
    let x = &values[0];
    assert_eq!(y, [0.0, x[1] / 2.0, x[2], 0.0, x[4] / 2.0, x[5]]);
    assert!(gradients.iter().flatten().all(|gradient| gradient.is_finite()));
}

#[test]
fn no_images_give_no_gradient() {
    let shape = SqueezeShape { batch: 0, spatial: 4, channels: 3, hidden: 2 };
    let (y, gradients) = run(&shape, &values(&shape, 1), &[]);
    assert!(y.is_empty() && gradients.iter().flatten().all(|&gradient| gradient == 0.0));
}
