use super::*;
use crate::testing::{
    activate, assert_close, assert_shows, dot, finite_differences, numbers, same_for_any_thread_count, widen,
    with_each_input_broken,
};
use proptest::prelude::*;

/// The definition, with tanh.
fn reference(rows: usize, inputs: usize, outputs: usize, x: &[f64], weight: &[f64], bias: &[f64]) -> Vec<f64> {
    let mut y = Vec::new();
    for row in 0..rows {
        for output in 0..outputs {
            let total: f64 = (0..inputs).map(|i| x[row * inputs + i] * weight[i * outputs + output]).sum();
            y.push((total + bias[output]).tanh());
        }
    }
    y
}

fn check(rows: usize, inputs: usize, outputs: usize) {
    let (x, weight) = (numbers(1, rows * inputs), numbers(2, inputs * outputs));
    let (bias, dy) = (numbers(3, outputs), numbers(4, rows * outputs));
    let (wide_x, wide_weight, wide_bias) = (widen(&x), widen(&weight), widen(&bias));
    let (mut y, mut dx) = (vec![f32::NAN; dy.len()], vec![f32::NAN; x.len()]);
    let (mut dweight, mut dbias) = (vec![f32::NAN; weight.len()], vec![f32::NAN; bias.len()]);
    forward(rows, inputs, outputs, &x, &weight, &bias, Activation::Tanh, &mut y);
    assert_close(&y, &reference(rows, inputs, outputs, &wide_x, &wide_weight, &wide_bias), 1e-5);
    let tanh = Activation::Tanh;
    backward(rows, inputs, outputs, &x, &weight, &y, &dy, tanh, Some(&mut dx), &mut dweight, &mut dbias);
    let loss = |x: &[f64], w: &[f64], b: &[f64]| dot(&reference(rows, inputs, outputs, x, w, b), &dy);
    assert_close(&dx, &finite_differences(&wide_x, |x| loss(x, &wide_weight, &wide_bias)), 2e-5);
    assert_close(&dweight, &finite_differences(&wide_weight, |w| loss(&wide_x, w, &wide_bias)), 2e-5);
    assert_close(&dbias, &finite_differences(&wide_bias, |b| loss(&wide_x, &wide_weight, b)), 2e-5);
}

/// Forward pass and gradients before the activation, in double precision.
fn products(rows: usize, inputs: usize, outputs: usize, x: &[f64], weight: &[f64], dy: &[f64]) -> [Vec<f64>; 3] {
    let (mut y, mut dx, mut dweight) = (vec![0.0; dy.len()], vec![0.0; x.len()], vec![0.0; weight.len()]);
    for (row, input) in (0..rows).flat_map(|row| (0..inputs).map(move |input| (row, input))) {
        for output in 0..outputs {
            y[row * outputs + output] += x[row * inputs + input] * weight[input * outputs + output];
            dx[row * inputs + input] += dy[row * outputs + output] * weight[input * outputs + output];
            dweight[input * outputs + output] += x[row * inputs + input] * dy[row * outputs + output];
        }
    }
    [y, dx, dweight]
}

/// Forward pass with bias and ReLU, and gradients before the activation, in double precision and by every instruction set.
fn every_product(
    (rows, inputs, outputs): (usize, usize, usize),
    [x, weight, bias, dy]: [&[f32]; 4],
    check: impl Fn(&[f32], &[f64]),
) {
    let [mut y, dx, dweight] = products(rows, inputs, outputs, &widen(x), &widen(weight), &widen(dy));
    let places = y.iter_mut().enumerate();
    places.for_each(|(place, y)| *y = activate(Activation::Relu, *y + f64::from(bias[place % outputs])));
    for set in InstructionSet::available() {
        println!("with {} instructions", set.name()); // shown if the check fails
        let mut result = [vec![f32::NAN; y.len()], vec![f32::NAN; x.len()], vec![f32::NAN; weight.len()]];
        forward_by(set, rows, inputs, outputs, x, weight, bias, Activation::Relu, &mut result[0]);
        input_gradient_by(set, rows, inputs, outputs, dy, weight, &mut result[1]);
        weight_gradient_by(set, rows, inputs, outputs, x, dy, &mut result[2]);
        result.iter().zip([&y, &dx, &dweight]).for_each(|(result, expected)| check(result, expected));
    }
}

fn check_products(rows: usize, inputs: usize, outputs: usize) {
    let (x, weight) = (numbers(1, rows * inputs), numbers(2, inputs * outputs));
    let (bias, dy) = (numbers(3, outputs), numbers(4, rows * outputs));
    every_product((rows, inputs, outputs), [&x, &weight, &bias, &dy], |result, expected| {
        assert_close(result, expected, 5e-6);
    });
}

#[test]
fn shapes_across_every_boundary_of_the_tiling_equal_the_definition() {
    for rows in [1, 2, 3, 4, 5, 8, 9, 13, 33] {
        for inputs in [1, 127, 385, 513, 2000] {
            for outputs in [1, 7, 31, 32, 33, 128, 129] {
                check_products(rows, inputs, outputs);
            }
        }
    }
    for (rows, inputs, outputs) in [(129, 20, 33), (300, 400, 7), (1030, 3, 2), (2, 9000, 8), (13, 40, 1100)] {
        check_products(rows, inputs, outputs);
    }
}

#[test]
fn long_sums_are_as_exact_as_short_ones() {
    // All products are positive: a single running sum would be wrong by about 1e-5.
    let (rows, inputs, outputs) = (3, 12_800, 20);
    let (x, weight) = (numbers(1, rows * inputs), numbers(2, inputs * outputs));
    let (x, weight) =
        (x.iter().map(|x| x.abs()).collect::<Vec<_>>(), weight.iter().map(|w| w.abs()).collect::<Vec<_>>());
    let dy = vec![0.0; rows * outputs];
    let [expected, ..] = products(rows, inputs, outputs, &widen(&x), &widen(&weight), &dy);
    for set in InstructionSet::available() {
        let mut y = vec![f32::NAN; rows * outputs];
        forward_by(set, rows, inputs, outputs, &x, &weight, &vec![0.0; outputs], Activation::Linear, &mut y);
        assert_close(&y, &expected, 2e-6);
    }
}

#[test]
fn a_row_is_the_same_whatever_comes_with_it() {
    for (rows, inputs, outputs) in [
        (20, 513, 1),
        (256, 4608, 64),
        (257, 4700, 33),
        (300, 5000, 130),
        (130, 9000, 7),
        (600, 1025, 40),
        (130, 520, 2050),
    ] {
        let (x, weight, bias) = (numbers(1, rows * inputs), numbers(2, inputs * outputs), numbers(3, outputs));
        for set in InstructionSet::available() {
            let in_calls_of = |most: usize| {
                let mut y = vec![f32::NAN; rows * outputs];
                for (y, x) in y.chunks_mut(most * outputs).zip(x.chunks(most * inputs)) {
                    let rows = x.len() / inputs;
                    forward_by(set, rows, inputs, outputs, x, &weight, &bias, Activation::Tanh, y);
                }
                y
            };
            let together = in_calls_of(rows);
            for most in [1, 7, 128, 257] {
                println!("{rows} x {inputs}-{outputs}, {most} rows at a time, {set:?}"); // shown if the check fails
                assert!(in_calls_of(most) == together);
            }
        }
    }
}

#[test]
fn sizes_of_zero_give_the_bias_and_no_gradient() {
    let mut y = [f32::NAN; 6];
    forward(2, 0, 3, &[], &[], &[1.0, -2.0, 3.0], Activation::Relu, &mut y);
    assert_eq!(y, [1.0, 0.0, 3.0, 1.0, 0.0, 3.0]);
    forward(0, 2, 3, &[], &[1.0; 6], &[1.0; 3], Activation::Relu, &mut []);
    forward(2, 3, 0, &[1.0; 6], &[], &[], Activation::Relu, &mut []);
    let (mut dx, mut dweight, mut dbias) = ([f32::NAN; 6], [f32::NAN; 6], [f32::NAN; 3]);
    let relu = Activation::Relu;
    backward(0, 2, 3, &[], &[1.0; 6], &[], &[], relu, Some(&mut []), &mut dweight, &mut dbias);
    assert_eq!((dweight, dbias), ([0.0; 6], [0.0; 3]));
    backward(2, 3, 0, &[1.0; 6], &[], &[], &[], relu, Some(&mut dx), &mut [], &mut []);
    assert_eq!(dx, [0.0; 6]);
    backward(2, 0, 3, &[], &[], &[1.0; 6], &[1.0; 6], relu, Some(&mut []), &mut [], &mut dbias);
    assert_eq!(dbias, [2.0; 3]);
}

#[test]
fn what_is_no_number_shows_wherever_the_definition_has_it() {
    for (rows, inputs, outputs) in [(1, 600, 40), (3, 40, 7), (20, 600, 200)] {
        let lengths = [rows * inputs, inputs * outputs, outputs, rows * outputs];
        let (values, last) = (lengths.map(|length| numbers(1, length)), lengths.map(|length| length - 1));
        with_each_input_broken(values, last, |_, values| {
            every_product((rows, inputs, outputs), values.each_ref().map(|values| &values[..]), |result, expected| {
                assert_shows(result, expected, |_| false);
            });
        });
    }
}

#[test]
fn what_is_no_number_shows_even_where_it_meets_zeros() {
    for (rows, inputs, outputs) in [(1, 600, 40), (3, 40, 7), (20, 600, 200)] {
        for value in [f32::NAN, f32::INFINITY] {
            for set in InstructionSet::available() {
                let (mut x, weight) = (vec![0.0; rows * inputs], vec![0.0; inputs * outputs]);
                let (bias, mut dy) = (vec![0.0; outputs], vec![0.0; rows * outputs]);
                x[inputs - 1] = value;
                dy[outputs - 1] = value;
                let mut y = vec![0.0; rows * outputs];
                let (mut dx, mut dweight) = (vec![0.0; rows * inputs], vec![0.0; inputs * outputs]);
                forward_by(set, rows, inputs, outputs, &x, &weight, &bias, Activation::Relu, &mut y);
                input_gradient_by(set, rows, inputs, outputs, &dy, &weight, &mut dx);
                assert!(y[..outputs].iter().chain(&dx[..inputs]).all(|value| value.is_nan()), "{set:?}");
                assert!(y[outputs..].iter().chain(&dx[inputs..]).all(|&value| value == 0.0), "{set:?}");
                // An input that is no number meets a gradient of zero, and the other way round.
                weight_gradient_by(set, rows, inputs, outputs, &x, &vec![0.0; dy.len()], &mut dweight);
                let wrong = dweight.iter().position(|value| value.is_nan());
                assert_eq!(wrong, Some((inputs - 1) * outputs), "{set:?}");
                assert!(dweight[(inputs - 1) * outputs..].iter().all(|value| value.is_nan()), "{set:?}");
                weight_gradient_by(set, rows, inputs, outputs, &vec![0.0; x.len()], &dy, &mut dweight);
                for (index, value) in dweight.iter().enumerate() {
                    assert_eq!(value.is_nan(), index % outputs == outputs - 1, "{set:?}, weight {index}");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn every_shape_equals_the_definition(rows in 1_usize..5, inputs in 1_usize..12, outputs in 1_usize..12) {
        check(rows, inputs, outputs);
    }

    #[test]
    fn every_instruction_set_gives_the_products(
        rows in prop_oneof![1_usize..6, 6_usize..150],
        inputs in prop_oneof![1_usize..20, 20_usize..900],
        outputs in prop_oneof![1_usize..20, 20_usize..300],
    ) {
        check_products(rows, inputs, outputs);
    }
}

#[test]
fn no_shape_depends_on_the_number_of_threads() {
    for (rows, inputs, outputs) in [(1, 5000, 130), (4, 5000, 40), (40, 3000, 64), (140, 1000, 300)] {
        let (x, weight) = (numbers(1, rows * inputs), numbers(2, inputs * outputs));
        let (bias, dy) = (numbers(3, outputs), numbers(4, rows * outputs));
        for set in InstructionSet::available() {
            same_for_any_thread_count(|| {
                let (mut y, mut dx) = (vec![f32::NAN; dy.len()], vec![f32::NAN; x.len()]);
                let mut dweight = vec![f32::NAN; weight.len()];
                forward_by(set, rows, inputs, outputs, &x, &weight, &bias, Activation::Relu, &mut y);
                input_gradient_by(set, rows, inputs, outputs, &dy, &weight, &mut dx);
                weight_gradient_by(set, rows, inputs, outputs, &x, &dy, &mut dweight);
                [y, dx, dweight].concat()
            });
        }
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads_and_nan_propagates() {
    let (rows, inputs, outputs) = (7, 3000, 90);
    let (mut x, weight) = (numbers(1, rows * inputs), numbers(2, inputs * outputs));
    x[inputs + 5] = f32::NAN;
    let (bias, dy) = (numbers(3, outputs), numbers(4, rows * outputs));
    let result = same_for_any_thread_count(|| {
        let (mut y, mut dx) = (vec![0.0; dy.len()], vec![0.0; x.len()]);
        let (mut dweight, mut dbias) = (vec![0.0; weight.len()], vec![0.0; outputs]);
        let relu = Activation::Relu;
        forward(rows, inputs, outputs, &x, &weight, &bias, relu, &mut y);
        backward(rows, inputs, outputs, &x, &weight, &y, &dy, relu, Some(&mut dx), &mut dweight, &mut dbias);
        [y, dx, dweight, dbias].concat()
    });
    let (y, rest) = result.split_at(dy.len());
    assert!(y[outputs..2 * outputs].iter().all(|value| value.is_nan()));
    assert!(y[2 * outputs..].iter().all(|value| value.is_finite()));
    assert!(rest[inputs..2 * inputs].iter().all(|value| value.is_nan()));
    assert!(rest[2 * inputs..x.len()].iter().all(|value| value.is_finite()));
}
