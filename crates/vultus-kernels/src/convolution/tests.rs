//! Convolution against the definition in double precision, and against finite differences of it.

use super::*;
use crate::testing::{assert_close, dot, finite_differences, numbers, same_for_any_thread_count, widen};
use proptest::prelude::*;

fn linear_or_tanh(activation: Activation, v: f64) -> f64 {
    match activation {
        Activation::Relu if v < 0.0 => 0.0,
        Activation::Tanh => v.tanh(),
        _ => v,
    }
}

/// The definition: every output pixel is a sum over channels and kernel positions.
fn reference(shape: &ConvolutionShape, x: &[f64], weight: &[f64], bias: &[f64], activation: Activation) -> Vec<f64> {
    let s = shape;
    let mut y = Vec::with_capacity(s.output_len());
    for image in 0..s.batch {
        for (filter, &start) in bias.iter().enumerate() {
            for row in 0..s.out_height() {
                for column in 0..s.out_width() {
                    let mut total = start;
                    for channel in 0..s.in_channels {
                        for i in 0..s.kernel_height {
                            for j in 0..s.kernel_width {
                                let (r, c) = (row * s.stride + i, column * s.stride + j);
                                if r < s.padding || c < s.padding {
                                    continue;
                                }
                                let (r, c) = (r - s.padding, c - s.padding);
                                if r >= s.in_height || c >= s.in_width {
                                    continue;
                                }
                                let pixel = ((image * s.in_channels + channel) * s.in_height + r) * s.in_width + c;
                                let tap = ((filter * s.in_channels + channel) * s.kernel_height + i) * s.kernel_width;
                                total += x[pixel] * weight[tap + j];
                            }
                        }
                    }
                    y.push(linear_or_tanh(activation, total));
                }
            }
        }
    }
    y
}

fn check(shape: &ConvolutionShape, activation: Activation, seed: u64) {
    let x = numbers(seed, shape.input_len());
    let weight = numbers(seed + 1, shape.weight_len());
    let bias = numbers(seed + 2, shape.out_channels);
    let dy = numbers(seed + 3, shape.output_len());
    let (wide_x, wide_weight, wide_bias) = (widen(&x), widen(&weight), widen(&bias));

    let mut y = vec![f32::NAN; shape.output_len()];
    forward(shape, &x, &weight, &bias, activation, &mut y);
    assert_close(&y, &reference(shape, &wide_x, &wide_weight, &wide_bias, activation), 1e-5);

    let (mut dx, mut dweight, mut dbias) =
        (vec![f32::NAN; x.len()], vec![f32::NAN; weight.len()], vec![f32::NAN; bias.len()]);
    backward(shape, &x, &weight, &y, &dy, activation, Some(&mut dx), &mut dweight, &mut dbias);
    let loss = |x: &[f64], w: &[f64], b: &[f64]| dot(&reference(shape, x, w, b, activation), &dy);
    assert_close(&dx, &finite_differences(&wide_x, |x| loss(x, &wide_weight, &wide_bias)), 2e-5);
    assert_close(&dweight, &finite_differences(&wide_weight, |w| loss(&wide_x, w, &wide_bias)), 2e-5);
    assert_close(&dbias, &finite_differences(&wide_bias, |b| loss(&wide_x, &wide_weight, b)), 2e-5);
}

prop_compose! {
    fn shapes()(
        batch in 1_usize..4,
        in_channels in 1_usize..4,
        out_channels in 1_usize..4,
        kernel_height in 1_usize..5,
        kernel_width in 1_usize..5,
        stride in 1_usize..4,
        padding in 0_usize..4,
        extra_height in 0_usize..5,
        extra_width in 0_usize..5,
    ) -> ConvolutionShape {
        ConvolutionShape {
            batch, in_channels, out_channels, kernel_height, kernel_width, stride, padding,
            in_height: kernel_height.saturating_sub(2 * padding).max(1) + extra_height,
            in_width: kernel_width.saturating_sub(2 * padding).max(1) + extra_width,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn every_shape_equals_the_definition(shape in shapes(), seed in 0_u64..1000, smooth in any::<bool>()) {
        check(&shape, if smooth { Activation::Tanh } else { Activation::Linear }, seed);
    }
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
fn relu_gradient_equals_finite_differences() {
    check(&ConvolutionShape { batch: 2, in_height: 6, in_width: 6, ..FACE }, Activation::Relu, 5);
}

#[test]
fn an_image_of_several_strips_equals_the_definition() {
    let shape = ConvolutionShape { batch: 1, in_channels: 16, in_height: 90, in_width: 64, ..FACE };
    assert!(shape.strips().count() > 2 && !shape.out_height().is_multiple_of(shape.strip_rows()));
    let (x, weight, bias) = (numbers(1, shape.input_len()), numbers(2, shape.weight_len()), numbers(3, 5));
    let mut y = vec![f32::NAN; shape.output_len()];
    forward(&shape, &x, &weight, &bias, Activation::Relu, &mut y);
    assert_close(&y, &reference(&shape, &widen(&x), &widen(&weight), &widen(&bias), Activation::Relu), 1e-5);
    // Strips of the gradient: the derivative along one direction equals the inner product with the gradient.
    let dy = numbers(4, y.len());
    let (mut dx, mut dweight, mut dbias) = (vec![0.0; x.len()], vec![0.0; weight.len()], vec![0.0; 5]);
    backward(&shape, &x, &weight, &y, &dy, Activation::Linear, Some(&mut dx), &mut dweight, &mut dbias);
    let unbiased = reference(&shape, &widen(&x), &widen(&weight), &[0.0; 5], Activation::Linear);
    let expected = dot(&unbiased, &dy);
    assert!((dot(&widen(&dx), &x) - expected).abs() < 1e-2, "{} {expected}", dot(&widen(&dx), &x));
    assert!((dot(&widen(&dweight), &weight) - expected).abs() < 1e-2);
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let (x, weight, bias) = (numbers(1, FACE.input_len()), numbers(2, FACE.weight_len()), numbers(3, 5));
    let dy = numbers(4, FACE.output_len());
    same_for_any_thread_count(|| {
        let (mut y, mut dx) = (vec![0.0; dy.len()], vec![0.0; x.len()]);
        let (mut dweight, mut dbias) = (vec![0.0; weight.len()], vec![0.0; 5]);
        forward(&FACE, &x, &weight, &bias, Activation::Relu, &mut y);
        backward(&FACE, &x, &weight, &y, &dy, Activation::Relu, Some(&mut dx), &mut dweight, &mut dbias);
        [y, dx, dweight, dbias].concat()
    });
}

#[test]
fn nan_reaches_the_output_and_every_gradient() {
    let mut x = numbers(1, FACE.input_len());
    x[3 * 20 * 17 + 40] = f32::NAN;
    let (weight, bias) = (numbers(2, FACE.weight_len()), numbers(3, 5));
    let mut y = vec![0.0; FACE.output_len()];
    forward(&FACE, &x, &weight, &bias, Activation::Relu, &mut y);
    let affected = y.iter().filter(|value| value.is_nan()).count();
    assert_eq!(affected, 9 * 5);
    let (mut dx, mut dweight, mut dbias) = (vec![0.0; x.len()], vec![0.0; weight.len()], vec![0.0; 5]);
    let dy = vec![1.0; y.len()];
    backward(&FACE, &x, &weight, &y, &dy, Activation::Relu, Some(&mut dx), &mut dweight, &mut dbias);
    assert!(dx.iter().any(|value| value.is_nan()));
    assert!(dweight.iter().any(|value| value.is_nan()));
    assert!(dbias.iter().all(|value| value.is_nan()));
}

#[test]
fn no_gradient_of_the_input_is_needed() {
    let shape = ConvolutionShape { batch: 3, in_channels: 1, ..FACE };
    let (x, weight) = (numbers(1, shape.input_len()), numbers(2, shape.weight_len()));
    let (y, dy) = (numbers(3, shape.output_len()), numbers(4, shape.output_len()));
    let run = |dx: Option<&mut [f32]>| {
        let (mut dweight, mut dbias) = (vec![0.0; weight.len()], vec![0.0; 5]);
        backward(&shape, &x, &weight, &y, &dy, Activation::Relu, dx, &mut dweight, &mut dbias);
        (dweight, dbias)
    };
    assert_eq!(run(None), run(Some(&mut vec![0.0; x.len()])));
}
