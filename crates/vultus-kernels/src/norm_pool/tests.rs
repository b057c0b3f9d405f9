//! The three in one against each by itself, and against finite differences.

use super::*;
use crate::activation::Activation;
use crate::batch_norm::NormGradients;
use crate::testing::{
    activate, assert_close, assert_shows, assert_within, dot, finite_differences, numbers, same_for_any_thread_count,
    widen, with_each_input_broken, with_every_instruction_set,
};
use crate::{batch_norm, dropout, pooling};
use pooling::PoolingShape;
use proptest::prelude::*;

const EPSILON: f32 = 1e-3;

/// Output, mean, variance, and gradients of input, gamma, beta and bias.
type Results = [Vec<f32>; 7];

fn windows(shape: &NormPoolShape) -> PoolingShape {
    let NormPoolShape { batch, height, width, channels, size } = *shape;
    PoolingShape { batch, channels, in_height: height, in_width: width, size, stride: size }
}

/// The definition.
pub(crate) fn reference(shape: &NormPoolShape, x: &[f64], gamma: &[f64], beta: &[f64], dropout: Dropout) -> Vec<f64> {
    let (normal, ..) = batch_norm::tests::reference(&shape.norm(), x, gamma, beta, None, Activation::Linear);
    let mut y = pooling::tests::reference(&windows(shape), &normal, pooling::tests::Kind::Max);
    let mut factors = vec![1.0; y.len()];
    dropout::apply(dropout, &mut factors);
    y.iter_mut().zip(&factors).for_each(|(y, &factor)| *y *= f64::from(factor));
    y
}

struct Case {
    shape: NormPoolShape,
    x: Vec<f32>,
    gamma: Vec<f32>,
    beta: Vec<f32>,
    dy: Vec<f32>,
    dropout: Dropout,
    before: Activation,
}

impl Case {
    fn new(shape: NormPoolShape, seed: u64, rate: f32, before: Activation) -> Self {
        let mut x = numbers(seed, shape.input_len());
        if before == Activation::Relu {
            x.iter_mut().for_each(|x| *x = x.max(0.0));
        }
        let (gamma, beta) = (numbers(seed + 1, shape.channels), numbers(seed + 2, shape.channels));
        Self {
            x,
            gamma,
            beta,
            dy: numbers(seed + 3, shape.output_len()),
            dropout: Dropout { rate, key: seed },
            shape,
            before,
        }
    }

    fn empty(&self) -> Results {
        let channels = self.shape.channels;
        let lengths = [self.dy.len(), channels, channels, self.x.len(), channels, channels, channels];
        lengths.map(|length| vec![f32::NAN; length])
    }

    fn fused(&self) -> Results {
        let Self { shape, x, gamma, beta, dy, dropout, before } = self;
        let [mut y, mut mean, mut variance, mut dx, mut dgamma, mut dbeta, mut dbias] = self.empty();
        let mut winners = vec![f32::NAN; y.len()];
        let statistics = (&mut mean, &mut variance);
        forward_training(shape, x, gamma, beta, EPSILON, *dropout, &mut winners, &mut y, statistics.0, statistics.1);
        let norm = Norm { gamma, beta, mean: &mean, variance: &variance, epsilon: EPSILON };
        let gradients = NormGradients { dx: &mut dx, dgamma: &mut dgamma, dbeta: &mut dbeta, dbias: Some(&mut dbias) };
        backward(shape, x, &winners, &norm, *dropout, dy, *before, gradients);
        [y, mean, variance, dx, dgamma, dbeta, dbias]
    }

    fn one_after_the_other(&self) -> Results {
        let Self { shape, x, gamma, beta, dy, dropout, before } = self;
        let (rows, pool) = (shape.norm(), windows(shape));
        let [mut y, mut mean, mut variance, mut dx, mut dgamma, mut dbeta, mut dbias] = self.empty();
        let (mut normal, linear) = (vec![0.0; x.len()], Activation::Linear);
        batch_norm::forward_training(
            &rows,
            x,
            gamma,
            beta,
            EPSILON,
            None,
            linear,
            &mut normal,
            &mut mean,
            &mut variance,
        );
        pooling::max_forward(&pool, &normal, &mut y, None);
        // Who wins is seen in front of the norm, which may round two inputs to one number.
        let signed: Vec<f32> = x.iter().zip(signs(gamma).iter().cycle()).map(|(x, sign)| x * sign).collect();
        let (mut largest, mut winners) = (vec![0.0; y.len()], vec![0; y.len()]);
        pooling::max_forward(&pool, &signed, &mut largest, Some(&mut winners));
        dropout::apply(*dropout, &mut y);
        let (mut dpooled, mut dnormal) = (dy.clone(), vec![0.0; x.len()]);
        dropout::apply(*dropout, &mut dpooled);
        pooling::max_backward(&pool, &dpooled, &winners, &mut dnormal);
        let norm = Norm { gamma, beta, mean: &mean, variance: &variance, epsilon: EPSILON };
        let gradients = NormGradients { dx: &mut dx, dgamma: &mut dgamma, dbeta: &mut dbeta, dbias: Some(&mut dbias) };
        batch_norm::backward(&rows, x, &norm, linear, &normal, &dnormal, *before, None, gradients);
        [y, mean, variance, dx, dgamma, dbeta, dbias]
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_same_as_one_after_the_other(
        batch in 1_usize..4, channels in 1_usize..40, size in 1_usize..4, more in 0_usize..6, wide in 0_usize..6,
        seed in 0_u64..1000, rate in prop_oneof![Just(0.0_f32), Just(0.4)], relu in any::<bool>(),
    ) {
        let shape = NormPoolShape { batch, height: size + more, width: size + wide, channels, size };
        let before = if relu { Activation::Relu } else { Activation::Linear };
        let case = Case::new(shape, seed, rate, before);
        with_every_instruction_set(|| {
            let ([y, mean, variance, dx, sums @ ..], expected) = (case.fused(), case.one_after_the_other());
            assert_close(&y, &widen(&expected[0]), 2e-6);
            assert_eq!([&mean, &variance], [&expected[1], &expected[2]]);
            // Differences of terms which may be much larger: gradients of up to `scale` times the norm's slope.
            let scale = 1.0 / (1.0 - f64::from(rate));
            let slopes = case.gamma.iter().zip(&variance).map(|(gamma, variance)| gamma.abs() / (variance + EPSILON).sqrt());
            let slope = f64::from(slopes.fold(0.0, f32::max)) * scale;
            assert_within(&dx, &widen(&expected[3]), 1e-5 * slope);
            // Sums of numbers of either sign.
            let rows = shape.norm().rows as f64;
            for (sums, (expected, term)) in sums.iter().zip(expected[4..].iter().zip([scale, scale, slope])) {
                assert_within(sums, &widen(expected), 1e-6 * rows.max(10.0) * term);
            }
        });
    }
}

#[test]
fn gradients_equal_finite_differences() {
    let shape = NormPoolShape { batch: 2, height: 5, width: 4, channels: 3, size: 2 };
    for before in [Activation::Linear, Activation::Relu] {
        let mut case = Case::new(shape, 9, 0.3, Activation::Linear);
        // What is in front of the activation, and the bias that was added there.
        let (sums, bias) = (case.x, [0.1, -0.2, 0.3]);
        case.x = sums.iter().enumerate().map(|(index, sum)| before.apply(sum + bias[index % 3])).collect();
        case.before = before;
        let wide = [&sums, &case.gamma, &case.beta, &bias.to_vec()].map(|values| widen(values));
        let output = |[sums, gamma, beta, bias]: &[Vec<f64>; 4]| {
            let x = sums.iter().enumerate().map(|(index, sum)| activate(before, sum + bias[index % 3]));
            reference(&shape, &x.collect::<Vec<_>>(), gamma, beta, case.dropout)
        };
        let [y, _, _, gradients @ ..] = case.fused();
        assert_close(&y, &output(&wide), 1e-5);
        for (index, gradient) in gradients.iter().enumerate() {
            let expected = finite_differences(&wide[index], |moved| {
                let mut wide = wide.clone();
                wide[index] = moved.to_vec();
                dot(&output(&wide), &case.dy)
            });
            assert_close(gradient, &expected, 5e-5);
        }
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let shape = NormPoolShape { batch: 9, height: 23, width: 22, channels: 20, size: 2 };
    let case = Case::new(shape, 3, 0.25, Activation::Relu);
    same_for_any_thread_count(|| case.fused().concat());
}

#[test]
fn what_is_no_number_shows_wherever_the_single_layers_show_it() {
    // A last row and column that no window covers.
    let shape = NormPoolShape { batch: 2, height: 5, width: 5, channels: 19, size: 2 };
    // Inside a window, and outside of all.
    for (before, pixel) in [Activation::Linear, Activation::Relu].into_iter().flat_map(|f| [(f, 0), (f, 24)]) {
        let Case { x, gamma, beta, dy, .. } = Case::new(shape, 3, 0.25, before);
        let last = dy.len() - 1;
        with_each_input_broken([x, gamma, beta, dy], [pixel * 19 + 18, 18, 18, last], |_, inputs| {
            let [x, gamma, beta, dy] = inputs.clone();
            let case = Case { x, gamma, beta, dy, ..Case::new(shape, 3, 0.25, before) };
            with_every_instruction_set(|| {
                for (result, expected) in case.fused().iter().zip(&case.one_after_the_other()) {
                    assert_shows(result, &widen(expected), |place| place % 19 == 18);
                }
            });
        });
    }
}

/// Gradients of the input of one channel.
fn gradients_of(shape: NormPoolShape, x: &[f32], gamma: f32, dy: &[f32]) -> (Vec<f32>, f32) {
    let case = Case {
        x: x.to_vec(),
        gamma: vec![gamma],
        beta: vec![0.5],
        dy: dy.to_vec(),
        ..Case::new(shape, 1, 0.0, Activation::Linear)
    };
    let [_, _, _, dx, dgamma, ..] = case.fused();
    (dx, dgamma[0])
}

#[test]
fn of_equal_pixels_the_first_wins() {
    let shape = NormPoolShape { batch: 1, height: 2, width: 4, channels: 1, size: 2 };
    // The largest of the first window, and the smallest of the second, stand there twice.
    let x = [1.0, 3.0, 2.0, -1.0, 3.0, 2.0, -1.0, 0.0];
    with_every_instruction_set(|| {
        for (gamma, winners) in [(1.0, [1, 2]), (-1.0, [0, 3])] {
            let expected = |dy: [f32; 2]| {
                let mut dnormal = [0.0; 8];
                winners.iter().zip(dy).for_each(|(&winner, dy)| dnormal[winner] = dy);
                let norm_shape = shape.norm();
                let [mut mean, mut variance, mut dgamma, mut dbeta] = [[0.0]; 4];
                statistics(&norm_shape, &x, &mut mean, &mut variance);
                let norm = Norm { gamma: &[gamma], beta: &[0.5], mean: &mean, variance: &variance, epsilon: EPSILON };
                let mut dx = vec![0.0; 8];
                let gradients = NormGradients { dx: &mut dx, dgamma: &mut dgamma, dbeta: &mut dbeta, dbias: None };
                let linear = Activation::Linear;
                batch_norm::backward(&norm_shape, &x, &norm, linear, &x, &dnormal, linear, None, gradients);
                dx
            };
            for dy in [[1.0, 0.0], [0.0, 1.0], [2.0, -1.0]] {
                assert_close(&gradients_of(shape, &x, gamma, &dy).0, &widen(&expected(dy)), 1e-6);
            }
        }
    });
}

/// Every pixel is the largest behind a scale of zero: the gradient of the scale is that of the largest in front of it.
#[test]
fn behind_a_scale_of_zero_the_largest_wins() {
    let shape = NormPoolShape { batch: 1, height: 2, width: 2, channels: 1, size: 2 };
    let x = [1.0, 5.0, 2.0, 3.0];
    let inverse = 1.0 / (2.1875_f32 + EPSILON).sqrt();
    for gamma in [0.0, -0.0] {
        let (dx, dgamma) = gradients_of(shape, &x, gamma, &[1.0]);
        assert!(dx.iter().all(|&dx| dx == 0.0), "{dx:?}");
        assert!((dgamma - (5.0 - 2.75) * inverse).abs() < 1e-6, "{dgamma}");
    }
}

#[test]
#[should_panic(expected = "length of gamma")]
fn a_scale_for_fewer_channels_is_refused() {
    let shape = NormPoolShape { batch: 2, height: 4, width: 4, channels: 19, size: 2 };
    let case = Case::new(shape, 3, 0.0, Activation::Linear);
    let [mut y, ..] = case.empty();
    let Case { shape, x, gamma, .. } = &case;
    winners(shape, x, &gamma[..3], &mut y);
}

#[test]
#[should_panic(expected = "length of dbias")]
fn sums_for_fewer_channels_are_refused() {
    let shape = NormPoolShape { batch: 2, height: 4, width: 4, channels: 4, size: 2 };
    let case = Case::new(shape, 3, 0.0, Activation::Linear);
    let [winners, mean, variance, mut dx, mut dgamma, mut dbeta, mut dbias] = case.empty();
    let Case { shape, x, gamma, beta, dy, dropout, before } = &case;
    let norm = Norm { gamma, beta, mean: &mean, variance: &variance, epsilon: EPSILON };
    let gradients = NormGradients { dx: &mut dx, dgamma: &mut dgamma, dbeta: &mut dbeta, dbias: Some(&mut dbias[..2]) };
    backward(shape, x, &winners, &norm, *dropout, dy, *before, gradients);
}
