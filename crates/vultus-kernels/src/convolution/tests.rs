//! Every algorithm and instruction set against the definition in double precision, whose gradients are held to finite
//! differences.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;
use crate::testing::{
    activate, assert_close, assert_shows, assert_within, dot, finite_differences, numbers, same_for_any_thread_count,
    widen, with_each_input_broken, with_every_instruction_set,
};
use proptest::prelude::*;

/// Calls `f(output, input, weight)` with the places of every product of the definition.
fn each_product(s: &ConvolutionShape, mut f: impl FnMut(usize, usize, usize)) {
    for image in 0..s.batch {
        for (row, column) in (0..s.out_height()).flat_map(|row| (0..s.out_width()).map(move |column| (row, column))) {
            for (i, j) in (0..s.kernel_height).flat_map(|i| (0..s.kernel_width).map(move |j| (i, j))) {
                let (r, c) = (row * s.stride + i, column * s.stride + j);
                if r < s.padding || c < s.padding || r - s.padding >= s.in_height || c - s.padding >= s.in_width {
                    continue;
                }
                let input = ((image * s.in_height + r - s.padding) * s.in_width + c - s.padding) * s.in_channels;
                let output = ((image * s.out_height() + row) * s.out_width() + column) * s.out_channels;
                let tap = (i * s.kernel_width + j) * s.in_channels * s.out_channels;
                for channel in 0..s.in_channels {
                    for filter in 0..s.out_channels {
                        f(output + filter, input + channel, tap + channel * s.out_channels + filter);
                    }
                }
            }
        }
    }
}

pub(crate) fn reference(shape: &ConvolutionShape, x: &[f64], weight: &[f64]) -> Vec<f64> {
    let mut y = vec![0.0; shape.output_len()];
    each_product(shape, |output, input, tap| y[output] += x[input] * weight[tap]);
    y
}

fn reference_gradients(shape: &ConvolutionShape, x: &[f64], weight: &[f64], dy: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let (mut dx, mut dweight) = (vec![0.0; x.len()], vec![0.0; weight.len()]);
    each_product(shape, |output, input, tap| {
        dx[input] += dy[output] * weight[tap];
        dweight[tap] += dy[output] * x[input];
    });
    (dx, dweight)
}

/// Adds bias and residual, where there is one, to the sums of the definition, and activates them. Returns the largest of them
/// before that: their errors are relative to it, and ReLU may leave little.
fn finish(sums: &mut [f64], bias: &[f32], residual: Option<&[f32]>, activation: Activation) -> f64 {
    let mut scale = 0.1_f64;
    for (index, sum) in sums.iter_mut().enumerate() {
        *sum += f64::from(bias[index % bias.len()]) + residual.map_or(0.0, |residual| f64::from(residual[index]));
        scale = scale.max(sum.abs());
        *sum = activate(activation, *sum);
    }
    scale
}

fn possible(shape: &ConvolutionShape) -> impl Iterator<Item = Algorithm> {
    Algorithm::ALL.into_iter().filter(|algorithm| algorithm.can(shape))
}

fn check(shape: &ConvolutionShape, seed: u64) {
    let (x, weight) = (numbers(seed, shape.input_len()), numbers(seed + 1, shape.weight_len()));
    let (dy, bias) = (numbers(seed + 2, shape.output_len()), numbers(seed + 3, shape.out_channels));
    let expected = reference(shape, &widen(&x), &widen(&weight));
    let mut finished = expected.clone();
    let scale = finish(&mut finished, &bias, None, Activation::Relu);
    let (expected_dx, expected_dweight) = reference_gradients(shape, &widen(&x), &widen(&weight), &widen(&dy));
    for algorithm in possible(shape) {
        for set in InstructionSet::available() {
            let (mut y, mut dx) = (vec![f32::NAN; dy.len()], vec![f32::NAN; x.len()]);
            let mut dweight = vec![f32::NAN; weight.len()];
            forward_by(algorithm, set, shape, &x, &weight, None, Activation::Linear, &mut y);
            assert_close(&y, &expected, algorithm.tolerance());
            forward_by(algorithm, set, shape, &x, &weight, Some(&bias), Activation::Relu, &mut y);
            assert_within(&y, &finished, algorithm.tolerance() * scale);
            input_gradient_by(algorithm, set, shape, &dy, &weight, &mut dx);
            assert_close(&dx, &expected_dx, algorithm.tolerance());
            weight_gradient_by(algorithm, set, shape, &x, &dy, &mut dweight);
            assert_close(&dweight, &expected_dweight, algorithm.tolerance());
        }
    }
}

prop_compose! {
    fn shapes()(
        batch in 1_usize..4,
        in_channels in prop_oneof![1_usize..5, 6_usize..40],
        out_channels in prop_oneof![1_usize..5, 6_usize..40],
        (kernel_height, kernel_width) in prop_oneof![Just((3, 3)), Just((1, 1)), Just((5, 5)), (1_usize..5, 1_usize..5)],
        stride in prop_oneof![Just(1), Just(2), 1_usize..4],
        padding in 0_usize..4,
        extra_height in 0_usize..9,
        extra_width in 0_usize..9,
    ) -> ConvolutionShape {
        ConvolutionShape {
            batch, in_channels, out_channels, kernel_height, kernel_width, stride, padding,
            in_height: kernel_height.saturating_sub(2 * padding).max(1) + extra_height,
            in_width: kernel_width.saturating_sub(2 * padding).max(1) + extra_width,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn every_shape_equals_the_definition(shape in shapes(), seed in 0_u64..1000) {
        check(&shape, seed);
    }

    #[test]
    fn prepared_convolutions_add_bias_and_residual_and_pool(
        shape in shapes(), seed in 0_u64..1000, relu in any::<bool>(),
        end in prop_oneof![Just(End::Plain), Just(End::Residual), Just(End::Pooled)],
    ) {
        prop_assume!(end != End::Pooled || shape.out_height() > 1 && shape.out_width() > 1);
        check_prepared(&shape, seed, relu, end);
    }
}

/// What a prepared convolution does besides bias and activation.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Plain,
    Residual,
    Pooled,
}

/// As it is prepared by choice, and by every algorithm that can do it; with the bounds of their errors.
fn every_prepared(
    shape: &ConvolutionShape,
    weight: &[f32],
    bias: &[f32],
    activation: Activation,
    end: End,
) -> Vec<(f64, Prepared)> {
    let pool = end == End::Pooled;
    let chosen = Prepared::new(shape, weight, bias, activation, pool);
    let mut all = vec![(chosen.algorithm().tolerance(), chosen)];
    all.extend(
        possible(shape).filter(|algorithm| !pool || algorithm.pools()).map(|algorithm| {
            (algorithm.tolerance(), Prepared::new_by(algorithm, shape, weight, bias, activation, pool))
        }),
    );
    all
}

fn check_prepared(shape: &ConvolutionShape, seed: u64, relu: bool, end: End) {
    let activation = if relu { Activation::Relu } else { Activation::Tanh };
    let (x, weight) = (numbers(seed, shape.input_len()), numbers(seed + 1, shape.weight_len()));
    let (bias, residual) = (numbers(seed + 2, shape.out_channels), numbers(seed + 3, shape.output_len()));
    let residual = (end == End::Residual).then_some(&residual[..]);
    let mut expected = reference(shape, &widen(&x), &widen(&weight));
    let scale = finish(&mut expected, &bias, residual, activation);
    if end == End::Pooled {
        expected = pooled(shape, &expected);
    }
    with_every_instruction_set(|| {
        for (tolerance, prepared) in every_prepared(shape, &weight, &bias, activation, end) {
            println!("{prepared:?}"); // shown if the check fails
            let mut y = vec![f32::NAN; shape.batch * prepared.output_len()];
            prepared.run(shape.batch, &x, residual, &mut y);
            assert_within(&y, &expected, tolerance * scale);
        }
    });
}

/// The largest of each 2 x 2; NaN if one of them is.
fn pooled(shape: &ConvolutionShape, y: &[f64]) -> Vec<f64> {
    let (height, width, channels) = (shape.out_height(), shape.out_width(), shape.out_channels);
    let mut pooled = Vec::new();
    for image in 0..shape.batch {
        for (row, column) in (0..height / 2).flat_map(|row| (0..width / 2).map(move |column| (row, column))) {
            for channel in 0..channels {
                let at = |i, j| y[((image * height + 2 * row + i) * width + 2 * column + j) * channels + channel];
                let window = [at(0, 0), at(0, 1), at(1, 0), at(1, 1)];
                pooled.push(window.into_iter().fold(f64::NEG_INFINITY, |a, b| if a > b || a.is_nan() { a } else { b }));
            }
        }
    }
    pooled
}

/// The same convolution with a kernel or a stride that the algorithm can do.
fn for_algorithm(algorithm: Algorithm, shape: ConvolutionShape) -> ConvolutionShape {
    let of_five = ConvolutionShape { kernel_height: 5, kernel_width: 5, padding: shape.padding + 1, ..shape };
    let shapes = [shape, of_five, ConvolutionShape { stride: 2, ..shape }];
    shapes.into_iter().find(|shape| algorithm.can(shape)).expect("a shape for every algorithm")
}

const FACE: ConvolutionShape = ConvolutionShape {
    batch: 19,
    in_channels: 3,
    in_height: 20,
    in_width: 17,
    out_channels: 5,
    kernel_height: 3,
    kernel_width: 3,
    stride: 1,
    padding: 1,
};

#[test]
fn the_layers_of_known_networks_equal_the_definition() {
    for shape in [
        ConvolutionShape {
            batch: 2,
            in_channels: 1,
            in_height: 48,
            in_width: 48,
            out_channels: 64,
            padding: 0,
            ..FACE
        },
        ConvolutionShape {
            batch: 2,
            in_channels: 64,
            in_height: 23,
            in_width: 23,
            out_channels: 128,
            padding: 0,
            ..FACE
        },
        ConvolutionShape { batch: 1, in_channels: 32, in_height: 48, in_width: 48, out_channels: 32, ..FACE },
        ConvolutionShape { batch: 3, in_channels: 256, in_height: 6, in_width: 6, out_channels: 256, ..FACE },
        ConvolutionShape {
            batch: 2,
            in_channels: 32,
            in_height: 48,
            in_width: 48,
            out_channels: 64,
            stride: 2,
            ..FACE
        },
        ConvolutionShape {
            batch: 2,
            in_channels: 64,
            in_height: 24,
            in_width: 24,
            out_channels: 128,
            stride: 2,
            padding: 0,
            kernel_height: 1,
            kernel_width: 1,
        },
        ConvolutionShape { batch: 1, in_channels: 512, in_height: 7, in_width: 5, out_channels: 512, ..FACE },
        // A large batch of the small pictures that stand at a network's end.
        ConvolutionShape { batch: 512, in_channels: 5, in_height: 6, in_width: 6, out_channels: 7, ..FACE },
        // Stride 2 over odd sizes, with tiles that reach over the edges on all sides.
        ConvolutionShape {
            batch: 2,
            in_channels: 17,
            in_height: 47,
            in_width: 45,
            out_channels: 21,
            stride: 2,
            ..FACE
        },
        ConvolutionShape { batch: 3, in_height: 7, in_width: 5, stride: 2, padding: 3, ..FACE },
        ConvolutionShape { batch: 1, in_height: 1, in_width: 1, stride: 2, ..FACE },
        // Grey pictures of odd sizes, wider than a tile.
        ConvolutionShape { batch: 2, in_channels: 1, in_height: 21, in_width: 31, out_channels: 37, ..FACE },
        ConvolutionShape {
            batch: 2,
            in_channels: 1,
            in_height: 21,
            in_width: 31,
            out_channels: 37,
            kernel_height: 5,
            kernel_width: 5,
            padding: 0,
            ..FACE
        },
    ] {
        check(&shape, 3);
    }
}

/// Tiles of four panels, of two and of one beside each other, the last panel not full; and inputs in more panels than one.
#[test]
fn outputs_of_any_number_of_panels_are_right() {
    for (in_channels, out_channels) in [(3, 61), (67, 69), (5, 85), (131, 99)] {
        for (kernel, padding, stride) in [(3, 1, 1), (1, 0, 1), (3, 1, 2)] {
            let shape = ConvolutionShape {
                batch: 2,
                in_channels,
                in_height: 9,
                in_width: 8,
                out_channels,
                kernel_height: kernel,
                kernel_width: kernel,
                padding,
                stride,
            };
            check(&shape, 6);
            for end in [End::Plain, End::Residual, End::Pooled] {
                check_prepared(&shape, 7, true, end);
            }
        }
    }
}

#[test]
fn grey_pictures_are_pooled_on_the_way() {
    for (kernel, padding) in [(3, 1), (3, 0), (5, 2)] {
        for in_width in [29, 30, 31] {
            let shape = ConvolutionShape {
                batch: 2,
                in_channels: 1,
                in_height: 11,
                in_width,
                out_channels: 21,
                kernel_height: kernel,
                kernel_width: kernel,
                padding,
                ..FACE
            };
            check_prepared(&shape, 4, true, End::Pooled);
            check_prepared(&shape, 5, false, End::Plain);
        }
    }
}

#[test]
fn gradients_with_activation_and_bias_equal_finite_differences() {
    let shape = ConvolutionShape { batch: 2, in_height: 6, in_width: 5, ..FACE };
    for activation in [Activation::Linear, Activation::Relu, Activation::Tanh] {
        let (x, weight) = (numbers(5, shape.input_len()), numbers(6, shape.weight_len()));
        let (bias, dy) = (numbers(7, 5), numbers(8, shape.output_len()));
        let outputs = |x: &[f64], weight: &[f64], bias: &[f64]| -> Vec<f64> {
            let sums = reference(&shape, x, weight);
            sums.iter().enumerate().map(|(index, sum)| activate(activation, sum + bias[index % 5])).collect()
        };
        let (wide_x, wide_weight, wide_bias) = (widen(&x), widen(&weight), widen(&bias));
        let mut y = vec![f32::NAN; dy.len()];
        forward(&shape, &x, &weight, Some(&bias), activation, &mut y);
        assert_close(&y, &outputs(&wide_x, &wide_weight, &wide_bias), 1e-5);
        let (mut dx, mut dweight, mut dbias) = (vec![0.0; x.len()], vec![0.0; weight.len()], vec![0.0; 5]);
        backward(&shape, &x, &weight, &y, &dy, activation, Some(&mut dx), &mut dweight, Some(&mut dbias));
        let loss = |x: &[f64], w: &[f64], b: &[f64]| dot(&outputs(x, w, b), &dy);
        assert_close(&dx, &finite_differences(&wide_x, |x| loss(x, &wide_weight, &wide_bias)), 3e-5);
        assert_close(&dweight, &finite_differences(&wide_weight, |w| loss(&wide_x, w, &wide_bias)), 3e-5);
        assert_close(&dbias, &finite_differences(&wide_bias, |b| loss(&wide_x, &wide_weight, b)), 3e-5);
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    for channels in [3, 40] {
        for algorithm in Algorithm::ALL {
            let shape = for_algorithm(algorithm, ConvolutionShape { in_channels: channels, ..FACE });
            let (x, weight, bias) = (numbers(1, shape.input_len()), numbers(2, shape.weight_len()), numbers(3, 5));
            let dy = numbers(4, shape.output_len());
            same_for_any_thread_count(|| {
                let set = InstructionSet::best();
                let (mut y, mut dx) = (vec![0.0; dy.len()], vec![0.0; x.len()]);
                let mut dweight = vec![0.0; weight.len()];
                forward_by(algorithm, set, &shape, &x, &weight, Some(&bias), Activation::Relu, &mut y);
                input_gradient_by(algorithm, set, &shape, &dy, &weight, &mut dx);
                weight_gradient_by(algorithm, set, &shape, &x, &dy, &mut dweight);
                let mut results = [y, dx, dweight].concat();
                for pool in [false, true].into_iter().filter(|&pool| !pool || algorithm.pools()) {
                    let prepared = Prepared::new_by(algorithm, &shape, &weight, &bias, Activation::Relu, pool);
                    let mut y = vec![0.0; shape.batch * prepared.output_len()];
                    prepared.run(shape.batch, &x, (!pool).then_some(&dy), &mut y);
                    results.extend(y);
                }
                results
            });
        }
    }
}

#[test]
fn an_image_is_the_same_whatever_comes_with_it() {
    for channels in [1, 40] {
        for algorithm in Algorithm::ALL {
            let shape = for_algorithm(algorithm, ConvolutionShape { in_channels: channels, ..FACE });
            let (x, weight, bias) = (numbers(1, shape.input_len()), numbers(2, shape.weight_len()), numbers(3, 5));
            with_every_instruction_set(|| {
                for pool in [false, true].into_iter().filter(|&pool| !pool || algorithm.pools()) {
                    let prepared = Prepared::new_by(algorithm, &shape, &weight, &bias, Activation::Tanh, pool);
                    let (image, output) = (prepared.input_len(), prepared.output_len());
                    let mut together = vec![f32::NAN; shape.batch * output];
                    prepared.run(shape.batch, &x, None, &mut together);
                    for most in [1, 4] {
                        println!("{prepared:?}, {most} images at a time"); // shown if the check fails
                        let mut apart = vec![f32::NAN; together.len()];
                        for (y, x) in apart.chunks_mut(most * output).zip(x.chunks(most * image)) {
                            prepared.run(x.len() / image, x, None, y);
                        }
                        assert_eq!(apart, together);
                    }
                }
            });
        }
    }
}

/// Small pictures, of one channel and of more than a vector has, for every algorithm.
fn shapes_to_break() -> impl Iterator<Item = ConvolutionShape> {
    let shapes = [(1, 3, 1), (1, 5, 1), (17, 3, 1), (17, 5, 1), (17, 3, 2)];
    shapes.into_iter().map(|(in_channels, kernel, stride)| ConvolutionShape {
        batch: 2,
        in_channels,
        in_height: 12,
        in_width: 11,
        out_channels: 21,
        kernel_height: kernel,
        kernel_width: kernel,
        stride,
        padding: kernel / 2,
    })
}

/// Of input, weights, bias and outputs: the last channel of a pixel in the middle of the second image, and the last tap between
/// the last channels.
fn places_to_break(shape: &ConvolutionShape) -> [usize; 4] {
    let (input, output) = ((12 + 6) * 11 + 5, shape.output_len() / 21 / 4 * 3 + 3);
    let last = |pixel: usize, channels: usize| (pixel + 1) * channels - 1;
    [last(input, shape.in_channels), shape.weight_len() - 1, 20, last(output, 21)]
}

#[test]
fn what_is_no_number_shows_wherever_the_definition_has_it() {
    for shape in shapes_to_break() {
        let inputs = shape.in_channels;
        let lengths = [shape.input_len(), shape.weight_len(), 21, shape.output_len()];
        let values = lengths.map(|length| numbers(1, length));
        with_each_input_broken(values, places_to_break(&shape), |broken, [x, weight, bias, dy]| {
            let mut expected = reference(&shape, &widen(x), &widen(weight));
            finish(&mut expected, bias, None, Activation::Relu);
            let (expected_dx, expected_dweight) = reference_gradients(&shape, &widen(x), &widen(weight), &widen(dy));
            // Tiles, and zeros around a picture, spread it: in its image, or in the channels of a weight.
            let (of_x, of_weight, of_dy) = (broken == 0, broken == 1, broken == 3);
            for (algorithm, set) in
                possible(&shape).flat_map(|a| InstructionSet::available().into_iter().map(move |set| (a, set)))
            {
                println!("{algorithm:?}, {set:?}, {shape:?}"); // shown if the check fails
                let (mut y, mut dx) = (vec![0.0; dy.len()], vec![0.0; x.len()]);
                let mut dweight = vec![0.0; weight.len()];
                forward_by(algorithm, set, &shape, x, weight, Some(bias), Activation::Relu, &mut y);
                assert_shows(&y, &expected, |place| of_x && place >= y.len() / 2 || of_weight && place % 21 == 20);
                input_gradient_by(algorithm, set, &shape, dy, weight, &mut dx);
                assert_shows(&dx, &expected_dx, |place| {
                    of_dy && place >= dx.len() / 2 || of_weight && place % inputs == inputs - 1
                });
                weight_gradient_by(algorithm, set, &shape, x, dy, &mut dweight);
                assert_shows(&dweight, &expected_dweight, |place| {
                    of_x && place / 21 % inputs == inputs - 1 || of_dy && place % 21 == 20
                });
            }
        });
    }
}

#[test]
fn what_is_no_number_shows_in_prepared_convolutions_and_behind_their_pooling() {
    for (shape, end) in
        shapes_to_break().flat_map(|shape| [End::Plain, End::Residual, End::Pooled].map(|end| (shape, end)))
    {
        let residual = if end == End::Residual { shape.output_len() } else { 0 };
        let lengths = [shape.input_len(), shape.weight_len(), 21, residual];
        let values = lengths.map(|length| numbers(1, length));
        with_each_input_broken(values, places_to_break(&shape), |broken, [x, weight, bias, residual]| {
            let residual = (end == End::Residual).then_some(&residual[..]);
            let mut expected = reference(&shape, &widen(x), &widen(weight));
            finish(&mut expected, bias, residual, Activation::Relu);
            if end == End::Pooled {
                expected = pooled(&shape, &expected);
            }
            with_every_instruction_set(|| {
                for (_, prepared) in every_prepared(&shape, weight, bias, Activation::Relu, end) {
                    println!("{prepared:?}"); // shown if the check fails
                    let mut y = vec![1.0; expected.len()];
                    prepared.run(2, x, residual, &mut y);
                    assert_shows(&y, &expected, |place| {
                        broken == 0 && place >= y.len() / 2 || broken == 1 && place % 21 == 20
                    });
                }
            });
        });
    }
}

#[test]
fn gradients_of_weights_over_many_images_equal_the_definition() {
    // Some 147,000 products make one number.
    for inputs in [3, 17] {
        let shape =
            ConvolutionShape { batch: 64, in_channels: inputs, in_height: 48, in_width: 48, out_channels: 2, ..FACE };
        for algorithm in Algorithm::ALL {
            let shape = for_algorithm(algorithm, shape);
            let (x, dy) = (numbers(1, shape.input_len()), numbers(2, shape.output_len()));
            for positive in [false, true] {
                let sign = |values: &[f32]| -> Vec<f32> {
                    values.iter().map(|v| if positive { v.abs() } else { *v }).collect()
                };
                let (x, dy) = (sign(&x), sign(&dy));
                let mut expected = vec![0.0; shape.weight_len()];
                let (wide_x, wide_dy) = (widen(&x), widen(&dy));
                each_product(&shape, |output, input, tap| expected[tap] += wide_dy[output] * wide_x[input]);
                for set in InstructionSet::available() {
                    let mut dweight = vec![f32::NAN; expected.len()];
                    weight_gradient_by(algorithm, set, &shape, &x, &dy, &mut dweight);
                    assert_close(&dweight, &expected, algorithm.tolerance());
                }
            }
        }
    }
}

/// As at the end of a residual network: tasks are made larger for their many weights, and the sums of one group, which are many, are
/// added to in more than one round. Winograd's against the direct ones, which other tests hold to the definition.
#[test]
fn many_channels_at_few_pixels_are_right() {
    let shape = ConvolutionShape {
        batch: 160,
        in_channels: 256,
        in_height: 6,
        in_width: 6,
        out_channels: 256,
        kernel_height: 3,
        kernel_width: 3,
        stride: 1,
        padding: 1,
    };
    let (x, dy) = (numbers(1, shape.input_len()), numbers(2, shape.output_len()));
    let weight = numbers(3, shape.weight_len());
    let set = InstructionSet::best();
    let results = |algorithm| {
        let (mut y, mut dx) = (vec![f32::NAN; dy.len()], vec![f32::NAN; x.len()]);
        let mut dweight = vec![f32::NAN; weight.len()];
        forward_by(algorithm, set, &shape, &x, &weight, None, Activation::Linear, &mut y);
        input_gradient_by(algorithm, set, &shape, &dy, &weight, &mut dx);
        weight_gradient_by(algorithm, set, &shape, &x, &dy, &mut dweight);
        [y, dx, dweight]
    };
    let direct = results(Algorithm::Direct).map(|values| widen(&values));
    for algorithm in [Algorithm::Winograd4, Algorithm::Winograd6] {
        for (found, expected) in results(algorithm).iter().zip(&direct) {
            assert_close(found, expected, algorithm.tolerance() + Algorithm::Direct.tolerance());
        }
    }
}

#[test]
fn gradients_of_weights_may_come_image_by_image() {
    // One image has fewer tiles than there are groups.
    let shape = ConvolutionShape { batch: 64, in_height: 4, in_width: 4, ..FACE };
    let (x, dy) = (numbers(1, shape.input_len()), numbers(2, shape.output_len()));
    let mut expected = vec![0.0; shape.weight_len()];
    each_product(&shape, |output, input, tap| expected[tap] += f64::from(dy[output]) * f64::from(x[input]));
    let (image, outputs) = (x.len() / shape.batch, dy.len() / shape.batch);
    for algorithm in possible(&shape) {
        let mut sums = WeightGradient::new(algorithm, InstructionSet::best(), &shape);
        x.chunks(image).zip(dy.chunks(outputs)).for_each(|(x, dy)| sums.add(1, x, dy));
        let mut dweight = vec![f32::NAN; expected.len()];
        sums.finish(&mut dweight);
        assert_close(&dweight, &expected, algorithm.tolerance());
    }
}

#[test]
fn an_input_without_channels_is_refused() {
    let shape = ConvolutionShape { in_channels: 0, ..FACE };
    let outputs = &vec![0.0; shape.output_len()];
    let calls: [&dyn Fn(); 4] = [
        &|| forward(&shape, &[], &[], None, Activation::Linear, &mut outputs.clone()),
        &|| input_gradient(&shape, outputs, &[], &mut []),
        &|| weight_gradient(&shape, &[], outputs, &mut []),
        &|| drop(Prepared::new(&shape, &[], &[0.0; 5], Activation::Linear, false)),
    ];
    for call in calls {
        let error = catch_unwind(AssertUnwindSafe(call)).expect_err("a refusal");
        assert_eq!(error.downcast_ref(), Some(&"a convolution needs at least one channel of input"));
    }
}

#[test]
fn other_extents_of_zero_give_the_bias_or_nothing() {
    for algorithm in Algorithm::ALL {
        let shape = for_algorithm(algorithm, FACE);
        let (linear, set) = (Activation::Linear, InstructionSet::best());
        for empty in [
            ConvolutionShape { batch: 0, ..shape },
            ConvolutionShape { out_channels: 0, ..shape },
            // A picture of padding alone.
            ConvolutionShape { in_height: 0, padding: shape.kernel_height, ..shape },
            ConvolutionShape { in_width: 0, padding: shape.kernel_height, ..shape },
        ] {
            let (weight, bias) = (numbers(1, empty.weight_len()), vec![3.0; empty.out_channels]);
            let (x, dy) = (vec![0.0; empty.input_len()], vec![1.0; empty.output_len()]);
            let [mut y, mut dx, mut dweight] = [&dy, &x, &weight].map(|like| vec![f32::NAN; like.len()]);
            forward_by(algorithm, set, &empty, &x, &weight, Some(&bias), linear, &mut y);
            input_gradient_by(algorithm, set, &empty, &dy, &weight, &mut dx);
            weight_gradient_by(algorithm, set, &empty, &x, &dy, &mut dweight);
            dx.fill(f32::NAN);
            input_gradient(&empty, &dy, &weight, &mut dx);
            assert!(y.iter().all(|&y| y == 3.0), "{empty:?}");
            assert!(dx.iter().chain(&dweight).all(|&gradient| gradient == 0.0), "{empty:?}");
            let prepared = Prepared::new_by(algorithm, &empty, &weight, &bias, linear, false);
            let mut again = vec![f32::NAN; dy.len()];
            prepared.run(empty.batch, &x, None, &mut again);
            assert_eq!(again, y);
        }
    }
}

#[test]
fn without_images_gradients_are_zero() {
    let shape = ConvolutionShape { batch: 0, ..FACE };
    let (mut dweight, mut dbias) = (vec![1.0; shape.weight_len()], vec![1.0; 5]);
    let weight = numbers(1, dweight.len());
    backward(&shape, &[], &weight, &[], &[], Activation::Relu, Some(&mut []), &mut dweight, Some(&mut dbias));
    assert!(dweight.iter().chain(&dbias).all(|&value| value == 0.0));
}
