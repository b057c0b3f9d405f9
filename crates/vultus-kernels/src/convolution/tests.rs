//! Every algorithm and instruction set against the definition in double precision, whose gradients are held to finite
//! differences.

use super::*;
use crate::testing::{
    assert_close, assert_within, dot, finite_differences, numbers, same_for_any_thread_count, widen,
    with_every_instruction_set,
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

fn reference(shape: &ConvolutionShape, x: &[f64], weight: &[f64]) -> Vec<f64> {
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

fn check(shape: &ConvolutionShape, seed: u64) {
    let (x, weight) = (numbers(seed, shape.input_len()), numbers(seed + 1, shape.weight_len()));
    let dy = numbers(seed + 2, shape.output_len());
    let expected = reference(shape, &widen(&x), &widen(&weight));
    let (expected_dx, expected_dweight) = reference_gradients(shape, &widen(&x), &widen(&weight), &widen(&dy));
    for algorithm in Algorithm::ALL.into_iter().filter(|algorithm| algorithm.can(shape)) {
        for set in InstructionSet::available() {
            let (mut y, mut dx) = (vec![f32::NAN; dy.len()], vec![f32::NAN; x.len()]);
            let mut dweight = vec![f32::NAN; weight.len()];
            forward_by(algorithm, set, shape, &x, &weight, None, Activation::Linear, &mut y);
            assert_close(&y, &expected, algorithm.tolerance());
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
        stride in prop_oneof![Just(1), 1_usize..4],
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
        shape in shapes(), seed in 0_u64..1000, relu in any::<bool>(), pool in any::<bool>(),
    ) {
        let pool = pool && shape.out_height() > 1 && shape.out_width() > 1;
        check_prepared(&shape, seed, relu, pool);
    }
}

fn check_prepared(shape: &ConvolutionShape, seed: u64, relu: bool, pool: bool) {
    let activation = if relu { Activation::Relu } else { Activation::Tanh };
    let (x, weight) = (numbers(seed, shape.input_len()), numbers(seed + 1, shape.weight_len()));
    let bias = numbers(seed + 2, shape.out_channels);
    let residual = numbers(seed + 3, if pool { 0 } else { shape.output_len() });
    let mut sums = reference(shape, &widen(&x), &widen(&weight));
    let mut scale = 0.0_f64;
    for (index, sum) in sums.iter_mut().enumerate() {
        *sum += f64::from(bias[index % shape.out_channels]) + residual.get(index).map_or(0.0, |&v| f64::from(v));
        scale = scale.max(sum.abs());
        *sum = if relu { sum.max(0.0) } else { sum.tanh() };
    }
    let expected = if pool { pooled(shape, &sums) } else { sums };
    with_every_instruction_set(|| {
        let prepared = Prepared::new(shape, &weight, &bias, activation, pool);
        let mut y = vec![f32::NAN; shape.batch * prepared.output_len()];
        prepared.run(shape.batch, &x, (!pool).then_some(&residual), &mut y);
        // Errors are those of the sums, which ReLU may leave little of.
        assert_within(&y, &expected, 1e-4 * scale);
    });
}

fn pooled(shape: &ConvolutionShape, y: &[f64]) -> Vec<f64> {
    let (height, width, channels) = (shape.out_height(), shape.out_width(), shape.out_channels);
    let mut pooled = Vec::new();
    for image in 0..shape.batch {
        for (row, column) in (0..height / 2).flat_map(|row| (0..width / 2).map(move |column| (row, column))) {
            for channel in 0..channels {
                let at = |i, j| y[((image * height + 2 * row + i) * width + 2 * column + j) * channels + channel];
                pooled.push(at(0, 0).max(at(0, 1)).max(at(1, 0)).max(at(1, 1)));
            }
        }
    }
    pooled
}

/// The same convolution with a kernel that the algorithm can do, and an output of the same size.
fn for_algorithm(algorithm: Algorithm, shape: ConvolutionShape) -> ConvolutionShape {
    let of_five = ConvolutionShape { kernel_height: 5, kernel_width: 5, padding: shape.padding + 1, ..shape };
    if algorithm.can(&shape) { shape } else { of_five }
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
            check_prepared(&shape, 4, true, true);
            check_prepared(&shape, 5, false, false);
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
            let apply = |v: f64| match activation {
                Activation::Relu => v.max(0.0),
                Activation::Tanh => v.tanh(),
                _ => v,
            };
            sums.iter().enumerate().map(|(index, sum)| apply(sum + bias[index % 5])).collect()
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
                [y, dx, dweight].concat()
            });
        }
    }
}

#[test]
fn what_is_no_number_shows_wherever_the_definition_has_it() {
    for value in [f32::NAN, f32::INFINITY] {
        for algorithm in Algorithm::ALL {
            let shape = for_algorithm(algorithm, ConvolutionShape { batch: 2, in_channels: 17, ..FACE });
            let mut x = numbers(1, shape.input_len());
            x[(20 * 17 + 3 * 17 + 8) * 17 + 16] = value;
            let (weight, set) = (numbers(2, shape.weight_len()), InstructionSet::best());
            let mut y = vec![0.0; shape.output_len()];
            forward_by(algorithm, set, &shape, &x, &weight, None, Activation::Linear, &mut y);
            let reach = |place: usize| place - shape.padding..=place + shape.padding;
            for (row, column) in reach(3).flat_map(|row| reach(8).map(move |column| (row, column))) {
                let pixel = &y[(20 * 17 + row * 17 + column) * 5..][..5];
                assert!(pixel.iter().all(|value| !value.is_finite()), "{algorithm:?}: {pixel:?} at {row}, {column}");
            }
            assert!(y[..20 * 17 * 5].iter().all(|value| value.is_finite()), "{algorithm:?}: the other image");
            let mut dweight = vec![0.0; weight.len()];
            weight_gradient_by(algorithm, set, &shape, &x, &numbers(3, y.len()), &mut dweight);
            for (line, weights) in dweight.chunks(5).enumerate() {
                assert_eq!(weights.iter().all(|w| !w.is_finite()), line % 17 == 16, "{algorithm:?}, line {line}");
            }
        }
    }
    let (mut y, x) = ([0.0], [f32::NAN]);
    let one = ConvolutionShape {
        batch: 1,
        in_channels: 1,
        in_height: 1,
        in_width: 1,
        out_channels: 1,
        kernel_height: 1,
        kernel_width: 1,
        stride: 1,
        padding: 0,
    };
    forward(&one, &x, &[1.0], None, Activation::Relu, &mut y);
    assert!(y[0].is_nan());
}

#[test]
fn what_is_no_number_in_a_gradient_shows_in_that_of_the_input() {
    for (value, set) in [f32::NAN, f32::INFINITY]
        .into_iter()
        .flat_map(|v| InstructionSet::available().into_iter().map(move |set| (v, set)))
    {
        for algorithm in Algorithm::ALL {
            let shape = for_algorithm(algorithm, ConvolutionShape { batch: 2, in_channels: 17, ..FACE });
            let (mut dy, weight) = (numbers(1, shape.output_len()), numbers(2, shape.weight_len()));
            // Row 3, column 8, channel 4 of the second image.
            dy[(20 * 17 + 3 * 17 + 8) * 5 + 4] = value;
            let mut dx = vec![0.0; shape.input_len()];
            input_gradient_by(algorithm, set, &shape, &dy, &weight, &mut dx);
            let reach = |place: usize| place - shape.padding..=place + shape.padding;
            for (row, column) in reach(3).flat_map(|row| reach(8).map(move |column| (row, column))) {
                let pixel = &dx[(20 * 17 + row * 17 + column) * 17..][..17];
                assert!(pixel.iter().all(|value| !value.is_finite()), "{algorithm:?}, {set:?}: {row}, {column}");
            }
            assert!(
                dx[..20 * 17 * 17].iter().all(|value| value.is_finite()),
                "{algorithm:?}, {set:?}: the other image"
            );
        }
    }
}

#[test]
fn what_is_no_number_in_a_weight_shows_in_its_channels_and_no_others() {
    for (value, set) in [f32::NAN, f32::INFINITY]
        .into_iter()
        .flat_map(|v| InstructionSet::available().into_iter().map(move |set| (v, set)))
    {
        for algorithm in Algorithm::ALL {
            let shape = for_algorithm(algorithm, ConvolutionShape { batch: 2, in_channels: 18, ..FACE });
            let (x, mut weight) = (numbers(1, shape.input_len()), numbers(2, shape.weight_len()));
            // The first tap, from channel 16 to channel 3.
            weight[16 * 5 + 3] = value;
            let (mut y, mut dx) = (vec![0.0; shape.output_len()], vec![0.0; shape.input_len()]);
            forward_by(algorithm, set, &shape, &x, &weight, None, Activation::Linear, &mut y);
            input_gradient_by(algorithm, set, &shape, &numbers(3, y.len()), &weight, &mut dx);
            // The first tap sees what lies up and left of an output: all but the first rows and columns have it, and on
            // the way back all but the last.
            let edge = shape.padding;
            for (place, value) in y.iter().enumerate() {
                let (row, column, channel) = (place / 5 / 17 % 20, place / 5 % 17, place % 5);
                let meets = row >= edge && column >= edge;
                assert!(value.is_finite() || channel == 3, "{algorithm:?}, {set:?}: output {place}");
                assert!(!value.is_finite() || channel != 3 || !meets, "{algorithm:?}, {set:?}: output {place}");
            }
            for (place, value) in dx.iter().enumerate() {
                let (row, column, channel) = (place / 18 / 17 % 20, place / 18 % 17, place % 18);
                let meets = row + edge < 20 && column + edge < 17;
                assert!(value.is_finite() || channel == 16, "{algorithm:?}, {set:?}: gradient {place}");
                assert!(!value.is_finite() || channel != 16 || !meets, "{algorithm:?}, {set:?}: gradient {place}");
            }
        }
    }
}

#[test]
fn nan_shows_in_prepared_convolutions_and_behind_their_pooling() {
    // By Winograd's way, directly, and by the loops for grey pictures.
    let [wide, strided, grey] = [(17, 1), (17, 2), (1, 1)].map(|(in_channels, stride)| ConvolutionShape {
        batch: 2,
        in_channels,
        in_height: 20,
        in_width: 18,
        out_channels: 21,
        stride,
        ..FACE
    });
    for (shape, pool) in [wide, strided, grey].into_iter().flat_map(|shape| [(shape, false), (shape, true)]) {
        let (mut x, weight) = (numbers(1, shape.input_len()), numbers(2, shape.weight_len()));
        let bias = vec![-100.0; 21]; // so that ReLU closes where there are numbers
        // Row 6, column 8, the last channel of the second image.
        x[(20 * 18 + 6 * 18 + 8) * shape.in_channels + shape.in_channels - 1] = f32::NAN;
        let expected = {
            let wide: Vec<f64> = reference(&shape, &widen(&x), &widen(&weight));
            let (side, mut nan) = (if pool { 2 } else { 1 }, Vec::new());
            let (height, width) = (shape.out_height(), shape.out_width());
            for (image, row) in (0..2).flat_map(|image| (0..height / side).map(move |row| (image, row))) {
                for (column, channel) in (0..width / side).flat_map(|c| (0..21).map(move |channel| (c, channel))) {
                    let at =
                        |i, j| wide[((image * height + row * side + i) * width + column * side + j) * 21 + channel];
                    nan.push((0..side * side).any(|corner| at(corner / side, corner % side).is_nan()));
                }
            }
            nan
        };
        with_every_instruction_set(|| {
            let prepared = Prepared::new(&shape, &weight, &bias, Activation::Relu, pool);
            let mut y = vec![1.0; expected.len()];
            prepared.run(2, &x, None, &mut y);
            let image = y.len() / 2;
            for (place, (&value, &nan)) in y.iter().zip(&expected).enumerate() {
                assert!(value.is_nan() || !nan, "{prepared:?}: {value} at {place}");
                // Elsewhere there is nothing, but in the same tiles.
                assert!(value == 0.0 || value.is_nan() && place >= image, "{prepared:?}: {value} at {place}");
            }
        });
    }
}

#[test]
fn gradients_of_weights_over_many_images_equal_the_definition() {
    // Some 56,000 products make one number.
    for inputs in [3, 17] {
        let shape =
            ConvolutionShape { batch: 128, in_channels: inputs, in_height: 21, in_width: 21, out_channels: 5, ..FACE };
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

#[test]
fn without_images_gradients_are_zero() {
    let shape = ConvolutionShape { batch: 0, ..FACE };
    let (mut dweight, mut dbias) = (vec![1.0; shape.weight_len()], vec![1.0; 5]);
    let weight = numbers(1, dweight.len());
    backward(&shape, &[], &weight, &[], &[], Activation::Relu, Some(&mut []), &mut dweight, Some(&mut dbias));
    assert!(dweight.iter().chain(&dbias).all(|&value| value == 0.0));
}
