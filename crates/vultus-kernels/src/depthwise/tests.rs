//! Every instruction set against the definition in double precision, whose gradients are held to finite differences.

use super::*;
use crate::testing::{
    activate, assert_close, assert_shows, dot, finite_differences, numbers, same_for_any_thread_count, widen,
    with_each_input_broken,
};
use proptest::prelude::*;

/// Bound on the error, relative to the largest value (at least 1).
const ROUNDING: f64 = 5e-6;

/// Calls `f(output, input, weight)` with the places of every product of the definition.
fn each_product(s: &DepthwiseShape, mut f: impl FnMut(usize, usize, usize)) {
    let places = |height, width| (0..height).flat_map(move |row| (0..width).map(move |column| (row, column)));
    for image in 0..s.batch {
        for (row, column) in places(s.out_height(), s.out_width()) {
            for (i, j) in places(s.kernel, s.kernel) {
                let (r, c) = (row * s.stride + i, column * s.stride + j);
                if r < s.padding || c < s.padding || r - s.padding >= s.in_height || c - s.padding >= s.in_width {
                    continue;
                }
                let input = ((image * s.in_height + r - s.padding) * s.in_width + c - s.padding) * s.channels;
                let output = ((image * s.out_height() + row) * s.out_width() + column) * s.channels;
                let tap = (i * s.kernel + j) * s.channels;
                (0..s.channels).for_each(|channel| f(output + channel, input + channel, tap + channel));
            }
        }
    }
}

/// Output and both gradients.
pub(crate) fn reference(shape: &DepthwiseShape, x: &[f64], weight: &[f64], dy: &[f64]) -> [Vec<f64>; 3] {
    let (mut y, mut dx, mut dweight) = (vec![0.0; dy.len()], vec![0.0; x.len()], vec![0.0; weight.len()]);
    each_product(shape, |output, input, tap| {
        y[output] += x[input] * weight[tap];
        dx[input] += dy[output] * weight[tap];
        dweight[tap] += dy[output] * x[input];
    });
    [y, dx, dweight]
}

fn check(shape: &DepthwiseShape, seed: u64) {
    let (x, weight) = (numbers(seed, shape.input_len()), numbers(seed + 1, shape.weight_len()));
    let dy = numbers(seed + 2, shape.output_len());
    let [expected, expected_dx, expected_dweight] = reference(shape, &widen(&x), &widen(&weight), &widen(&dy));
    for set in InstructionSet::available() {
        let (mut y, mut dx) = (vec![f32::NAN; dy.len()], vec![f32::NAN; x.len()]);
        let mut dweight = vec![f32::NAN; weight.len()];
        forward_by(set, shape, &x, &weight, None, Activation::Linear, &mut y);
        assert_close(&y, &expected, ROUNDING);
        input_gradient_by(set, shape, &dy, &weight, &mut dx);
        assert_close(&dx, &expected_dx, ROUNDING);
        weight_gradient_by(set, shape, &x, &dy, &mut dweight);
        assert_close(&dweight, &expected_dweight, ROUNDING);
    }
}

prop_compose! {
    fn shapes()(
        batch in 1_usize..4,
        channels in prop_oneof![1_usize..5, 6_usize..40],
        kernel in prop_oneof![3 => Just(3), 1 => Just(5), 1 => 1_usize..8],
        stride in prop_oneof![Just(1), 1_usize..5],
        padding in 0_usize..8,
        (high, wide) in (0_usize..18, 0_usize..18),
    ) -> DepthwiseShape {
        // Padding beyond the kernel leaves outputs that see nothing.
        let smallest = kernel.saturating_sub(2 * padding).max(1);
        DepthwiseShape { batch, channels, in_height: smallest + high, in_width: smallest + wide, kernel, stride, padding }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn every_shape_equals_the_definition(shape in shapes(), seed in 0_u64..1000) {
        check(&shape, seed);
    }
}

fn shape(kernel: usize, stride: usize, padding: usize) -> DepthwiseShape {
    DepthwiseShape { batch: 2, channels: 19, in_height: 9, in_width: 11, kernel, stride, padding }
}

#[test]
fn usual_and_wide_kernels_equal_the_definition() {
    for (kernel, stride) in [3, 5, 7].into_iter().flat_map(|kernel| [1, 2].map(|stride| (kernel, stride))) {
        check(&shape(kernel, stride, 0), 1);
        check(&shape(kernel, stride, (kernel - 1) / 2), 2);
    }
    check(&DepthwiseShape { in_height: 32, in_width: 31, ..shape(31, 1, 15) }, 3);
    check(&DepthwiseShape { batch: 9, channels: 32, in_height: 48, in_width: 48, ..shape(3, 1, 1) }, 4);
}

const ACTIVATIONS: [Activation; 5] =
    [Activation::Linear, Activation::Relu, Activation::LeakyRelu, Activation::Elu, Activation::Tanh];

#[test]
fn bias_and_activation_follow_the_sum() {
    for (activation, biased) in ACTIVATIONS.into_iter().flat_map(|activation| [(activation, true), (activation, false)])
    {
        let shape = shape(3, 1, 1);
        let (x, weight) = (numbers(1, shape.input_len()), numbers(2, shape.weight_len()));
        let bias = numbers(3, shape.channels);
        let (mut plain, mut y) = (vec![0.0; shape.output_len()], vec![f32::NAN; shape.output_len()]);
        forward(&shape, &x, &weight, None, Activation::Linear, &mut plain);
        forward(&shape, &x, &weight, biased.then_some(&bias[..]), activation, &mut y);
        let expected: Vec<f64> = plain
            .iter()
            .enumerate()
            .map(|(place, &sum)| f64::from(activation.apply(sum + if biased { bias[place % 19] } else { 0.0 })))
            .collect();
        assert_close(&y, &expected, 1e-6);
    }
}

#[test]
fn gradients_equal_finite_differences() {
    for (activation, (stride, padding)) in
        [Activation::Linear, Activation::Tanh].into_iter().flat_map(|f| [(1, 1), (2, 1), (1, 0)].map(|s| (f, s)))
    {
        let shape = DepthwiseShape { batch: 2, channels: 3, in_height: 5, in_width: 4, kernel: 3, stride, padding };
        let (x, weight) = (numbers(1, shape.input_len()), numbers(2, shape.weight_len()));
        let (bias, dy) = (numbers(3, shape.channels), numbers(4, shape.output_len()));
        let output = |x: &[f64], weight: &[f64], bias: &[f64]| -> Vec<f64> {
            let [mut y, ..] = reference(&shape, x, weight, &vec![0.0; shape.output_len()]);
            for (place, y) in y.iter_mut().enumerate() {
                *y += bias[place % 3];
                *y = if activation == Activation::Tanh { y.tanh() } else { *y };
            }
            y
        };
        let mut y = vec![0.0; dy.len()];
        forward(&shape, &x, &weight, Some(&bias), activation, &mut y);
        let (mut dx, mut dweight, mut dbias) = (vec![f32::NAN; x.len()], vec![f32::NAN; weight.len()], [f32::NAN; 3]);
        backward(&shape, &x, &weight, &y, &dy, activation, Some(&mut dx), &mut dweight, Some(&mut dbias));
        let (x, weight, bias) = (widen(&x), widen(&weight), widen(&bias));
        assert_close(&dx, &finite_differences(&x, |x| dot(&output(x, &weight, &bias), &dy)), 1e-5);
        assert_close(&dweight, &finite_differences(&weight, |weight| dot(&output(&x, weight, &bias), &dy)), 1e-5);
        assert_close(&dbias, &finite_differences(&bias, |bias| dot(&output(&x, &weight, bias), &dy)), 1e-5);
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    for (kernel, stride) in [(3, 1), (3, 2), (5, 1)] {
        let shape = DepthwiseShape { batch: 5, in_height: 40, in_width: 37, ..shape(kernel, stride, 1) };
        let (x, weight) = (numbers(1, shape.input_len()), numbers(2, shape.weight_len()));
        let (bias, dy) = (numbers(3, shape.channels), numbers(4, shape.output_len()));
        same_for_any_thread_count(|| {
            let (mut y, mut dx) = (vec![0.0; dy.len()], vec![0.0; x.len()]);
            let (mut dweight, mut dbias) = (vec![0.0; weight.len()], vec![0.0; bias.len()]);
            forward(&shape, &x, &weight, Some(&bias), Activation::Relu, &mut y);
            let (dweights, dbiases) = (&mut dweight[..], Some(&mut dbias[..]));
            backward(&shape, &x, &weight, &y, &dy, Activation::Relu, Some(&mut dx), dweights, dbiases);
            [y, dx, dweight, dbias].concat()
        });
    }
}

#[test]
fn what_is_no_number_shows_wherever_the_definition_has_it() {
    for (kernel, stride) in [(3, 1), (3, 2), (5, 1)] {
        let shape = shape(kernel, stride, 1);
        let lengths = [shape.input_len(), shape.weight_len(), 19, shape.output_len()];
        // Row 4, column 5 of the second image, the first tap, and somewhere in the second image; the last channel of each.
        let output = shape.output_len() / 4 * 3;
        let places = [((9 + 4) * 11 + 6) * 19 - 1, 18, 18, output / 19 * 19 + 18];
        with_each_input_broken(lengths.map(|length| numbers(1, length)), places, |_, [x, weight, bias, dy]| {
            let [mut expected, dx, dweight] = reference(&shape, &widen(x), &widen(weight), &widen(dy));
            let outputs = expected.iter_mut().enumerate();
            outputs.for_each(|(place, y)| *y = activate(Activation::Relu, *y + f64::from(bias[place % 19])));
            for set in InstructionSet::available() {
                println!("with {} instructions", set.name()); // shown if the check fails
                let mut found = [&expected, &dx, &dweight].map(|expected| vec![0.0; expected.len()]);
                forward_by(set, &shape, x, weight, Some(bias), Activation::Relu, &mut found[0]);
                input_gradient_by(set, &shape, dy, weight, &mut found[1]);
                weight_gradient_by(set, &shape, x, dy, &mut found[2]);
                for (found, expected) in found.iter().zip([&expected, &dx, &dweight]) {
                    assert_shows(found, expected, |_| false);
                }
            }
        });
    }
}

#[test]
fn no_images_give_no_outputs_and_no_gradient() {
    let shape = DepthwiseShape { batch: 0, ..shape(3, 1, 1) };
    let weight = numbers(1, shape.weight_len());
    let (mut dweight, mut dbias) = (vec![f32::NAN; weight.len()], vec![f32::NAN; 19]);
    forward(&shape, &[], &weight, None, Activation::Relu, &mut []);
    backward(&shape, &[], &weight, &[], &[], Activation::Relu, Some(&mut []), &mut dweight, Some(&mut dbias));
    assert!(dweight.iter().chain(&dbias).all(|&gradient| gradient == 0.0));
}
