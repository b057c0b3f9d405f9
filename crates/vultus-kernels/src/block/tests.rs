//! A block against its layers one after the other, with batches that take several parts; the layers have tests of their own
//! against plain references.

use super::*;
use crate::batch_norm::NormGradients;
use crate::convolution::{self, ConvolutionShape};
use crate::depthwise::{self, DepthwiseShape};
use crate::squeeze_excitation;
use crate::testing::{
    assert_close, assert_within, numbers, same_for_any_thread_count, widen, with_every_instruction_set,
};
use proptest::prelude::*;

/// Output, mean, variance, then gradients: of input, weights, bias, gamma, beta, residual, and the four of the squeeze and
/// excitation.
type Results = Vec<Vec<f32>>;

struct Case {
    block: Block,
    hidden: usize,
    x: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    gamma: Vec<f32>,
    beta: Vec<f32>,
    residual: Vec<f32>,
    squeeze: [Vec<f32>; 4],
    dy: Vec<f32>,
}

impl Case {
    fn new(block: Block, seed: u64) -> Self {
        let (filters, channels) = (&block.filters, block.filters.channels());
        let hidden = match block.tail {
            Tail::Activated { squeeze, .. } => squeeze.unwrap_or(0),
            Tail::Pooled { .. } => 0,
        };
        let lengths = [channels * hidden, hidden, hidden * channels, channels];
        Self {
            hidden,
            x: numbers(seed, filters.input_len()),
            weight: numbers(seed + 1, filters.weight_len()),
            bias: numbers(seed + 2, channels),
            gamma: numbers(seed + 3, channels),
            beta: numbers(seed + 4, channels),
            residual: numbers(seed + 5, filters.output_len()),
            squeeze: [0, 1, 2, 3].map(|index| numbers(seed + 6 + index as u64, lengths[index])),
            dy: numbers(seed + 10, block.output_len()),
            block,
        }
    }

    fn weights(&self) -> Weights<'_> {
        let [squeeze, squeeze_bias, excitation, excitation_bias] = &self.squeeze;
        Weights { squeeze, squeeze_bias, excitation, excitation_bias }
    }

    /// Room for the results, filled with what must be overwritten.
    fn empty(&self) -> Results {
        let channels = self.bias.len();
        let mut lengths = vec![self.dy.len(), channels, channels, self.x.len(), self.weight.len()];
        lengths.extend([channels, channels, channels, self.residual.len()]);
        lengths.extend(self.squeeze.iter().map(Vec::len));
        lengths.into_iter().map(|length| vec![f32::NAN; length]).collect()
    }

    fn fused(&self) -> Results {
        let mut results = self.empty();
        let [y, mean, variance, dx, dweight, dbias, dgamma, dbeta, dresidual, w1, b1, w2, b2] = &mut results[..] else {
            unreachable!("as many as `empty` makes")
        };
        let block = &self.block;
        let Self { x, weight, bias, gamma, beta, residual, .. } = self;
        let inputs = Inputs { x, weight, bias, gamma, beta, residual, squeeze: self.weights() };
        let mut z = vec![f32::NAN; block.kept_len()];
        let squeezed = block.forward(&inputs, Outputs { z: &mut z, y, mean, variance });
        let kept = Kept { z: &z, y, mean, variance, squeezed: squeezed.as_ref() };
        let has_residual = matches!(block.tail, Tail::Activated { residual: true, .. });
        let gradients = BlockGradients {
            dx: Some(dx),
            dweight,
            dbias: Some(dbias),
            dgamma,
            dbeta,
            dresidual: has_residual.then_some(dresidual),
            squeeze: (self.hidden > 0).then_some(WeightGradients {
                squeeze: w1,
                squeeze_bias: b1,
                excitation: w2,
                excitation_bias: b2,
            }),
        };
        block.backward(&inputs, &kept, &self.dy, gradients);
        results
    }

    fn one_after_the_other(&self) -> Results {
        let mut results = self.empty();
        let [y, mean, variance, dx, dweight, dbias, dgamma, dbeta, dresidual, w1, b1, w2, b2] = &mut results[..] else {
            unreachable!("as many as `empty` makes")
        };
        let Self { x, weight, bias, gamma, beta, residual, dy, .. } = self;
        let Block { filters, before, epsilon, tail, .. } = self.block;
        let Tail::Activated { squeeze, residual: has_residual, activation } = tail else {
            unreachable!("pooling has tests of its own")
        };
        let bias = Some(&bias[..]);
        let mut z = vec![0.0; filters.output_len()];
        match &filters {
            Filters::Dense(shape) => convolution::forward(shape, x, weight, bias, before, &mut z),
            Filters::Depthwise(shape) => depthwise::forward(shape, x, weight, bias, before, &mut z),
        }
        let (norm, linear) = (filters.norm(), Activation::Linear);
        let mut normal = vec![0.0; z.len()];
        batch_norm::forward_training(&norm, &z, gamma, beta, epsilon, None, linear, &mut normal, mean, variance);
        let shape = self.block.squeeze_shape(self.hidden);
        let middle = match squeeze {
            Some(_) => Some(squeeze_excitation::forward_training(&shape, &normal, &self.weights(), y)),
            None => {
                y.copy_from_slice(&normal);
                None
            }
        };
        if has_residual {
            y.iter_mut().zip(residual).for_each(|(y, residual)| *y += residual);
        }
        activation.forward(y);
        let mut dsum = dy.clone();
        activation.backward(y, &mut dsum);
        if has_residual {
            dresidual.copy_from_slice(&dsum);
        }
        let mut dnormal = dsum.clone();
        if let Some(middle) = &middle {
            let gradients = WeightGradients { squeeze: w1, squeeze_bias: b1, excitation: w2, excitation_bias: b2 };
            squeeze_excitation::backward(
                &shape,
                &normal,
                &self.weights(),
                middle,
                &dsum,
                Some(&mut dnormal),
                gradients,
            );
        }
        let mut dz = vec![0.0; z.len()];
        let statistics = Norm { gamma, beta, mean, variance, epsilon };
        let gradients = NormGradients { dx: &mut dz, dgamma, dbeta, dbias: Some(dbias) };
        batch_norm::backward(&norm, &z, &statistics, linear, &normal, &dnormal, before, None, gradients);
        match &filters {
            Filters::Dense(shape) => {
                convolution::weight_gradient(shape, x, &dz, dweight);
                convolution::input_gradient(shape, &dz, weight, dx);
            }
            Filters::Depthwise(shape) => {
                depthwise::weight_gradient(shape, x, &dz, dweight);
                depthwise::input_gradient(shape, &dz, weight, dx);
            }
        }
        results
    }

    /// Both ways, and how close each result must come: a bias in front of a norm has a gradient that is a zero of many
    /// terms, and results that this block does not have stay as they were.
    fn check(&self, tolerance: f64) {
        let (fused, expected) = (self.fused(), self.one_after_the_other());
        for (index, (fused, expected)) in fused.iter().zip(&expected).enumerate() {
            let has = match self.block.tail {
                Tail::Activated { residual, .. } => index < 8 || index == 8 && residual || index > 8 && self.hidden > 0,
                Tail::Pooled { .. } => index < 8,
            };
            if !has {
                assert!(fused.iter().all(|value| value.is_nan()), "result {index} was written");
                continue;
            }
            if index == 5 {
                let rows = (self.residual.len() / self.bias.len()) as f64;
                let largest = expected.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
                assert_within(fused, &widen(expected), tolerance * f64::from(largest).max(rows.sqrt()));
            } else {
                assert_close(fused, &widen(expected), tolerance);
            }
        }
    }
}

fn dense(batch: usize, side: usize, inputs: usize, outputs: usize, stride: usize) -> Filters {
    Filters::Dense(ConvolutionShape {
        batch,
        in_channels: inputs,
        in_height: side,
        in_width: side,
        out_channels: outputs,
        kernel_height: 3,
        kernel_width: 3,
        stride,
        padding: 1,
    })
}

fn block(filters: Filters, squeeze: Option<usize>, residual: bool, activation: Activation) -> Block {
    let tail = Tail::Activated { squeeze, residual, activation };
    Block { filters, biased: true, before: Activation::Linear, epsilon: 1e-3, tail }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_same_as_one_after_the_other(
        batch in 1_usize..6, side in 3_usize..10, inputs in 4_usize..20, outputs in 1_usize..40, depthwise in any::<bool>(),
        squeeze in prop_oneof![Just(None), (1_usize..9).prop_map(Some)], residual in any::<bool>(), seed in 0_u64..1000,
        stride in 1_usize..3, before in prop_oneof![Just(Activation::Linear), Just(Activation::Relu)],
        activation in prop_oneof![Just(Activation::Linear), Just(Activation::Relu), Just(Activation::Tanh)],
    ) {
        let filters = if depthwise {
            Filters::Depthwise(DepthwiseShape {
                batch,
                channels: outputs,
                in_height: side,
                in_width: side,
                kernel: 3,
                stride,
                padding: 1,
            })
        } else {
            dense(batch, side, inputs, outputs, stride)
        };
        let block = Block { before, ..block(filters, squeeze, residual, activation) };
        with_every_instruction_set(|| Case::new(block, seed).check(1e-4));
    }
}

/// So large that a batch is three parts, the last of one image: by Winograd, directly, and each channel by itself.
fn several_parts(squeeze: Option<usize>, activation: Activation) -> [Case; 3] {
    let depthwise =
        DepthwiseShape { batch: 5, channels: 32, in_height: 130, in_width: 130, kernel: 3, stride: 1, padding: 1 };
    [dense(5, 130, 5, 32, 1), dense(5, 260, 4, 32, 2), Filters::Depthwise(depthwise)].map(|filters| {
        assert_eq!(parts(5, filters.output_len() / 5).collect::<Vec<_>>(), [0..2, 2..4, 4..5]);
        Case::new(Block { before: Activation::Relu, ..block(filters, squeeze, true, activation) }, 3)
    })
}

#[test]
fn a_batch_of_several_parts_is_one_batch() {
    // No ReLU behind: among millions of numbers some are so near its kink that the last bit decides.
    for (squeeze, activation) in
        [(None, Activation::Linear), (Some(4), Activation::Linear), (Some(4), Activation::Tanh)]
    {
        for case in several_parts(squeeze, activation) {
            // Sums of some ten thousand terms that nearly cancel; a part left out would be a fifth of them.
            case.check(1e-3);
        }
    }
}

/// The same for what pools: the parts' windows and dropout masks are those of the whole.
#[test]
fn a_pooled_batch_of_several_parts_is_one_batch() {
    let filters = dense(5, 130, 5, 32, 1);
    let tail = Tail::Pooled { size: 2, rate: 0.25, key: 3 };
    let case =
        Case::new(Block { before: Activation::Relu, tail, ..block(filters, None, false, Activation::Linear) }, 4);
    let Case { x, weight, bias, gamma, beta, dy, .. } = &case;
    let Filters::Dense(shape) = &filters else { unreachable!("as made above") };
    let (relu, windows, dropout) = (Activation::Relu, filters.pooled(2), Dropout { rate: 0.25, key: 3 });
    let mut z = vec![0.0; filters.output_len()];
    convolution::forward(shape, x, weight, Some(bias), relu, &mut z);
    let mut expected = case.empty();
    let [y, mean, variance, dx, dweight, dbias, dgamma, dbeta, ..] = &mut expected[..] else {
        unreachable!("as many as `empty` makes")
    };
    norm_pool::forward_training(&windows, &z, gamma, beta, 1e-3, dropout, y, mean, variance);
    let mut dz = vec![0.0; z.len()];
    let norm = Norm { gamma, beta, mean, variance, epsilon: 1e-3 };
    let gradients = NormGradients { dx: &mut dz, dgamma, dbeta, dbias: Some(dbias) };
    norm_pool::backward(&windows, &z, &norm, dropout, dy, relu, gradients);
    convolution::weight_gradient(shape, x, &dz, dweight);
    convolution::input_gradient(shape, &dz, weight, dx);
    with_every_instruction_set(|| {
        for (index, (fused, expected)) in case.fused().iter().zip(&expected).take(8).enumerate() {
            // Where outputs are nearly always positive the bias has a gradient that is nearly a zero of many terms.
            let tolerance = if index == 5 { 5e-4 } else { 2e-4 };
            assert_close(fused, &widen(expected), tolerance);
        }
    });
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    for case in several_parts(Some(4), Activation::Relu).into_iter().chain(several_parts(None, Activation::Relu)) {
        same_for_any_thread_count(|| case.fused().concat());
    }
}

#[test]
fn parts_cover_a_batch_once_and_in_order() {
    for (batch, numbers) in [(0, 10), (1, 10), (7, 10), (128, 48 * 48 * 32), (3, 4_000_000), (64, 0)] {
        let images: Vec<usize> = parts(batch, numbers).flatten().collect();
        assert_eq!(images, (0..batch).collect::<Vec<_>>(), "{batch} images of {numbers}");
    }
}

#[test]
fn no_images_give_no_gradient() {
    let case = Case::new(block(dense(0, 6, 5, 8, 1), Some(2), false, Activation::Relu), 1);
    for (index, result) in case.fused().iter().enumerate() {
        // Output, input and residual are empty.
        assert!(result.iter().all(|&value| value == 0.0 || index == 0), "result {index}: {result:?}");
    }
}

#[test]
fn sums_of_gradients() {
    let (mut sum, other) = (numbers(1, 40_000), numbers(2, 40_000));
    let expected: Vec<f32> = sum.iter().zip(&other).map(|(a, b)| a + b).collect();
    add(&mut sum, &other);
    assert_eq!(sum, expected);
}
