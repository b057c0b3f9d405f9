//! Every instruction set against the definition in double precision and its finite differences.

use super::*;
use crate::testing::{assert_close, dot, finite_differences, numbers, same_for_any_thread_count, widen};
use proptest::prelude::*;

/// Input, `W1`, `b1`, `W2`, `b2`.
type Values<T> = [Vec<T>; 5];

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

fn reference(shape: &SqueezeShape, values: &Values<f64>) -> Vec<f64> {
    let SqueezeShape { spatial, channels, hidden, .. } = *shape;
    let [x, squeeze, squeeze_bias, excitation, excitation_bias] = values;
    let mut y = Vec::with_capacity(x.len());
    for x in x.chunks(spatial * channels) {
        let mean = |channel: usize| x.iter().skip(channel).step_by(channels).sum::<f64>() / spatial as f64;
        let units: Vec<f64> = (0..hidden)
            .map(|unit| (0..channels).map(|c| mean(c) * squeeze[c * hidden + unit]).sum::<f64>() + squeeze_bias[unit])
            .map(|sum| sum.max(0.0))
            .collect();
        let factor = |channel: usize| {
            let terms = units.iter().enumerate().map(|(unit, value)| value * excitation[unit * channels + channel]);
            1.0 / (1.0 + (-(terms.sum::<f64>() + excitation_bias[channel])).exp())
        };
        let factors: Vec<f64> = (0..channels).map(factor).collect();
        y.extend(x.iter().enumerate().map(|(place, x)| x * factors[place % channels]));
    }
    y
}

/// Output, and gradients of all values.
fn run(set: InstructionSet, shape: &SqueezeShape, values: &Values<f32>, dy: &[f32]) -> (Vec<f32>, Values<f32>) {
    let mut y = vec![f32::NAN; shape.len()];
    let mut gradients = values.each_ref().map(|values| vec![f32::NAN; values.len()]);
    let middle = forward_training_by(set, shape, &values[0], &weights(values), &mut y);
    let [dx, squeeze, squeeze_bias, excitation, excitation_bias] = &mut gradients;
    let of_weights = WeightGradients { squeeze, squeeze_bias, excitation, excitation_bias };
    backward_by(set, shape, &values[0], &weights(values), &middle, dy, Some(dx), of_weights);
    (y, gradients)
}

fn check(shape: &SqueezeShape, seed: u64, with_gradients: bool) {
    let (values, dy) = (values(shape, seed), numbers(seed + 1000, shape.len()));
    let wide = values.each_ref().map(|values| widen(values));
    for set in InstructionSet::available() {
        let (y, gradients) = run(set, shape, &values, &dy);
        if set == InstructionSet::best() {
            let mut again = vec![f32::NAN; y.len()];
            forward(shape, &values[0], &weights(&values), &mut again);
            assert_eq!(again, y);
        }
        assert_close(&y, &reference(shape, &wide), 2e-6);
        for (index, gradient) in gradients.iter().enumerate().take(if with_gradients { 5 } else { 0 }) {
            let expected = finite_differences(&wide[index], |moved| {
                let mut wide = wide.clone();
                wide[index] = moved.to_vec();
                dot(&reference(shape, &wide), &dy)
            });
            assert_close(gradient, &expected, 1e-5);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_shape_equals_the_definition(
        batch in 1_usize..5, spatial in 1_usize..40, channels in 1_usize..90, hidden in 1_usize..24, seed in 0_u64..1000,
    ) {
        check(&SqueezeShape { batch, spatial, channels, hidden }, seed, false);
    }
}

#[test]
fn gradients_equal_finite_differences() {
    for (spatial, channels, hidden) in [(1, 1, 1), (4, 3, 2), (9, 7, 3), (2, 18, 4)] {
        check(&SqueezeShape { batch: 3, spatial, channels, hidden }, 3, true);
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let shape = SqueezeShape { batch: 7, spatial: 24 * 24, channels: 40, hidden: 10 };
    let (values, dy) = (values(&shape, 1), numbers(2, shape.len()));
    same_for_any_thread_count(|| {
        let (y, gradients) = run(InstructionSet::best(), &shape, &values, &dy);
        [y, gradients.concat()].concat()
    });
}

#[test]
fn nan_takes_its_image_and_no_other() {
    for set in InstructionSet::available() {
        let shape = SqueezeShape { batch: 3, spatial: 5, channels: 6, hidden: 2 };
        let mut values = values(&shape, 1);
        values[0][30 + 7] = f32::NAN;
        let (y, gradients) = run(set, &shape, &values, &numbers(2, shape.len()));
        for (index, value) in y.iter().enumerate() {
            assert_eq!(value.is_nan(), index / 30 == 1, "{set:?}, output {index}");
        }
        assert!(gradients[4].iter().all(|gradient| gradient.is_nan()), "{set:?}");
    }
}

#[test]
fn far_arguments_open_and_close_channels() {
    let shape = SqueezeShape { batch: 1, spatial: 2, channels: 3, hidden: 1 };
    let mut values = values(&shape, 1);
    values[3].fill(0.0);
    values[4] = vec![-200.0, 0.0, 200.0];
    let (y, gradients) = run(InstructionSet::best(), &shape, &values, &[1.0; 6]);
    let x = &values[0];
    assert_eq!(y, [0.0, x[1] / 2.0, x[2], 0.0, x[4] / 2.0, x[5]]);
    assert!(gradients.iter().flatten().all(|gradient| gradient.is_finite()));
}

#[test]
fn no_images_give_no_gradient() {
    let shape = SqueezeShape { batch: 0, spatial: 4, channels: 3, hidden: 2 };
    let (y, gradients) = run(InstructionSet::best(), &shape, &values(&shape, 1), &[]);
    assert!(y.is_empty() && gradients.iter().flatten().all(|&gradient| gradient == 0.0));
}
