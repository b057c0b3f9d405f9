//! A block against its layers one after the other, with batches that take several parts, and small ones against finite
//! differences; the layers have tests of their own against plain references.

use super::*;
use crate::batch_norm::NormGradients;
use crate::convolution::{self, Algorithm, ConvolutionShape};
use crate::depthwise::{self, DepthwiseShape};
use crate::squeeze_excitation;
use crate::testing::{
    activate, assert_close, assert_shows, assert_within, dot, finite_differences, numbers, pass_back,
    same_for_any_thread_count, widen, with_each_input_broken, with_every_instruction_set,
};
use proptest::prelude::*;

/// Output, mean, variance, then the gradients of [`Case::inputs`].
type Results = Vec<Vec<f32>>;

struct Case {
    block: Block,
    hidden: usize,
    /// Input, weights, bias, gamma, beta, residual, the four of the squeeze and excitation, and the gradient of the output.
    inputs: [Vec<f32>; 11],
}

impl Case {
    fn new(block: Block, seed: u64) -> Self {
        let (filters, channels) = (&block.filters, block.filters.channels());
        let hidden = match block.tail {
            Tail::Activated { squeeze, .. } => squeeze.unwrap_or(0),
            Tail::Pooled { .. } => 0,
        };
        let mut seed = seed;
        let lengths = [
            filters.input_len(),
            filters.weight_len(),
            channels,
            channels,
            channels,
            filters.output_len(),
            channels * hidden,
            hidden,
            hidden * channels,
            channels.min(channels * hidden),
            block.output_len(),
        ];
        let inputs = lengths.map(|length| {
            seed += 1;
            numbers(seed, length)
        });
        Self { block, hidden, inputs }
    }

    fn weights(&self) -> Weights<'_> {
        let [.., squeeze, squeeze_bias, excitation, excitation_bias, _] = &self.inputs;
        Weights { squeeze, squeeze_bias, excitation, excitation_bias }
    }

    /// Room for the results, filled with what must be overwritten.
    fn empty(&self) -> Results {
        let (channels, [gradients @ .., dy]) = (self.block.filters.channels(), &self.inputs);
        let lengths = [dy.len(), channels, channels].into_iter().chain(gradients.iter().map(Vec::len));
        lengths.map(|length| vec![f32::NAN; length]).collect()
    }

    fn fused(&self) -> Results {
        self.run(true)
    }

    /// Without the gradient of the input a thin block keeps nothing.
    fn run(&self, with_dx: bool) -> Results {
        self.run_into(with_dx.then_some((false, false)))
    }

    /// With the gradient of the input, where wanted, added to a half or not, and with that of the residual or not.
    fn run_into(&self, input: Option<(bool, bool)>) -> Results {
        let mut results = self.empty();
        let [y, mean, variance, dx, dweight, dbias, dgamma, dbeta, dresidual, w1, b1, w2, b2] = &mut results[..] else {
            unreachable!("as many as `empty` makes")
        };
        let block = &self.block;
        let [x, weight, bias, gamma, beta, residual, .., dy] = &self.inputs;
        let inputs = Inputs { x, weight, bias, gamma, beta, residual, squeeze: self.weights() };
        let [mut z, mut winners] = [block.kept_len(), block.winners_len()].map(|length| vec![f32::NAN; length]);
        let squeezed = block.forward(&inputs, Outputs { z: &mut z, winners: &mut winners, y, mean, variance });
        let kept = Kept { z: &z, winners: &winners, y, mean, variance, squeezed: squeezed.as_ref() };
        let has_residual = matches!(block.tail, Tail::Activated { residual: true, .. });
        let gradients = BlockGradients {
            dx: input.map(|(added, is_residual)| {
                dx.fill(if added { 0.5 } else { f32::NAN });
                InputGradient { dx, added, is_residual }
            }),
            dweight,
            dbias: Some(dbias),
            dgamma,
            dbeta,
            dresidual: (has_residual && !input.is_some_and(|(_, is_residual)| is_residual)).then_some(dresidual),
            squeeze: (self.hidden > 0).then_some(WeightGradients {
                squeeze: w1,
                squeeze_bias: b1,
                excitation: w2,
                excitation_bias: b2,
            }),
        };
        block.backward(&inputs, &kept, dy, gradients);
        results
    }

    fn one_after_the_other(&self) -> Results {
        let mut results = self.empty();
        let [y, mean, variance, dx, dweight, dbias, dgamma, dbeta, dresidual, w1, b1, w2, b2] = &mut results[..] else {
            unreachable!("as many as `empty` makes")
        };
        let [x, weight, bias, gamma, beta, residual, .., dy] = &self.inputs;
        let Block { filters, before, epsilon, tail, .. } = self.block;
        let bias = Some(&bias[..]);
        let [mut z, mut dz] = [(); 2].map(|()| vec![0.0; filters.output_len()]);
        match &filters {
            Filters::Dense(shape) => convolution::forward(shape, x, weight, bias, before, &mut z),
            Filters::Depthwise(shape) => depthwise::forward(shape, x, weight, bias, before, &mut z),
        }
        match tail {
            Tail::Pooled { size, rate, key } => {
                let (windows, dropout) = (filters.pooled(size), Dropout { rate, key });
                let w = &mut vec![0.0; y.len()];
                norm_pool::forward_training(&windows, &z, gamma, beta, epsilon, dropout, w, y, mean, variance);
                let statistics = Norm { gamma, beta, mean, variance, epsilon };
                let gradients = NormGradients { dx: &mut dz, dgamma, dbeta, dbias: Some(dbias) };
                norm_pool::backward(&windows, &z, w, &statistics, dropout, dy, before, gradients);
            }
            Tail::Activated { squeeze, residual: has_residual, activation } => {
                let (norm, linear) = (filters.norm(), Activation::Linear);
                let mut normal = vec![0.0; z.len()];
                batch_norm::forward_training(
                    &norm,
                    &z,
                    gamma,
                    beta,
                    epsilon,
                    None,
                    linear,
                    &mut normal,
                    mean,
                    variance,
                );
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
                let dsum: Vec<f32> =
                    y.iter().zip(dy).map(|(&y, &dy)| pass_back(activation, y, f64::from(dy)) as f32).collect();
                if has_residual {
                    dresidual.copy_from_slice(&dsum);
                }
                let mut dnormal = dsum.clone();
                if let Some(middle) = &middle {
                    let gradients =
                        WeightGradients { squeeze: w1, squeeze_bias: b1, excitation: w2, excitation_bias: b2 };
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
                let statistics = Norm { gamma, beta, mean, variance, epsilon };
                let gradients = NormGradients { dx: &mut dz, dgamma, dbeta, dbias: Some(dbias) };
                batch_norm::backward(&norm, &z, &statistics, linear, &normal, &dnormal, before, None, gradients);
            }
        }
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

    /// The definition in double precision.
    fn reference(&self, inputs: &[Vec<f64>; 11]) -> Vec<f64> {
        let Block { filters, before, tail, .. } = self.block;
        let [x, weight, bias, gamma, beta, residual, squeeze @ .., _] = inputs;
        let mut z = match &filters {
            Filters::Dense(shape) => convolution::tests::reference(shape, x, weight),
            Filters::Depthwise(shape) => {
                let [z, ..] = depthwise::tests::reference(shape, x, weight, &vec![0.0; shape.output_len()]);
                z
            }
        };
        z.iter_mut().enumerate().for_each(|(place, z)| *z = activate(before, *z + bias[place % bias.len()]));
        match tail {
            Tail::Pooled { size, rate, key } => {
                norm_pool::tests::reference(&filters.pooled(size), &z, gamma, beta, Dropout { rate, key })
            }
            Tail::Activated { residual: has_residual, activation, .. } => {
                let (mut y, ..) =
                    batch_norm::tests::reference(&filters.norm(), &z, gamma, beta, None, Activation::Linear);
                if self.hidden > 0 {
                    let [w1, b1, w2, b2] = squeeze.clone();
                    let shape = self.block.squeeze_shape(self.hidden);
                    y = squeeze_excitation::tests::reference(&shape, &[y, w1, b1, w2, b2]);
                }
                let added = |place: usize| if has_residual { residual[place] } else { 0.0 };
                y.iter().enumerate().map(|(place, y)| activate(activation, y + added(place))).collect()
            }
        }
    }

    /// Whether the block has one of [`Results`].
    fn has(&self, result: usize) -> bool {
        let residual = matches!(self.block.tail, Tail::Activated { residual: true, .. });
        result < 8 || result == 8 && residual || result > 8 && self.hidden > 0
    }

    /// Both ways, and how close each result must come: a bias in front of a norm has a gradient that is a zero of many
    /// terms, and results that this block does not have stay as they were.
    fn check(&self, tolerance: f64) {
        self.check_run(true, tolerance);
    }

    /// The same with or without the gradient of the input.
    fn check_run(&self, with_dx: bool, tolerance: f64) {
        let (fused, expected) = (self.run(with_dx), self.one_after_the_other());
        for (index, (fused, expected)) in fused.iter().zip(&expected).enumerate() {
            if !self.has(index) || index == 3 && !with_dx {
                assert!(fused.iter().all(|value| value.is_nan()), "result {index} was written");
                continue;
            }
            if index == 5 {
                let rows = self.block.filters.norm().rows as f64;
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

/// A small block of each kind: with all that can follow it, thin ones among them.
fn every_kind(activation: Activation) -> Vec<Block> {
    let depthwise =
        DepthwiseShape { batch: 2, channels: 19, in_height: 4, in_width: 5, kernel: 3, stride: 1, padding: 1 };
    let (thick, thin) = (dense(2, 4, 5, 19, 1), dense(2, 5, 1, 19, 1));
    let pooled = |filters| {
        let tail = Tail::Pooled { size: 2, rate: 0.25, key: 3 };
        Block { tail, ..block(filters, None, false, activation) }
    };
    // A thin block ends linearly, with ReLU or by pooling.
    let thin_end = if activation == Activation::Relu { activation } else { Activation::Linear };
    let blocks = vec![
        block(thick, None, false, activation),
        block(thick, None, true, activation),
        block(thick, Some(3), false, activation),
        block(Filters::Depthwise(depthwise), Some(3), true, activation),
        pooled(thick),
        pooled(thin),
        block(thin, None, false, thin_end),
    ];
    let relu_in_front = blocks.iter().map(|block| Block { before: Activation::Relu, ..*block }).collect::<Vec<_>>();
    [blocks, relu_in_front].concat()
}

#[test]
fn gradients_equal_finite_differences() {
    for block in every_kind(Activation::Tanh) {
        println!("{block:?}"); // shown if the check fails
        let case = Case::new(block, 5);
        let wide = case.inputs.each_ref().map(|values| widen(values));
        let output = case.reference(&wide);
        let gradient = |index: usize| {
            finite_differences(&wide[index], |moved| {
                let mut wide = wide.clone();
                wide[index] = moved.to_vec();
                dot(&case.reference(&wide), &case.inputs[10])
            })
        };
        let expected: Vec<_> = [output, vec![], vec![]].into_iter().chain((0..10).map(gradient)).collect();
        with_every_instruction_set(|| {
            for with_dx in [true, false] {
                let results = case.run(with_dx);
                let written = |&index: &usize| case.has(index) && (with_dx || index != 3);
                for index in (0..13).filter(|index| written(index) && !matches!(index, 1 | 2)) {
                    assert_close(&results[index], &expected[index], 1e-4);
                }
            }
        });
    }
}

#[test]
fn what_is_no_number_shows_wherever_the_single_layers_show_it() {
    for block in [Activation::Relu, Activation::Tanh].into_iter().flat_map(every_kind) {
        println!("{block:?}"); // shown if the check fails
        let mut inputs = Case::new(block, 5).inputs;
        inputs[4][18] = 3.0; // gates of the last channel are open
        let places = inputs.each_ref().map(|values| values.len().saturating_sub(1));
        with_each_input_broken(inputs, places, |_, inputs| {
            let case = Case { inputs: inputs.clone(), ..Case::new(block, 5) };
            with_every_instruction_set(|| {
                let expected = case.one_after_the_other();
                for with_dx in [true, false] {
                    let results = case.run(with_dx);
                    for index in (0..13).filter(|&index| case.has(index) && (with_dx || index != 3)) {
                        // Infinities may meet in the norm's map of the channel, from which the gradient of the input comes.
                        let may = |place| index == 3 || place % 19 == 18;
                        assert_shows(&results[index], &widen(&expected[index]), may);
                    }
                }
            });
        });
    }
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_thin_block_is_the_same_as_one_after_the_other(
        batch in 1_usize..11, in_channels in 1_usize..4, out_channels in 1_usize..70, in_height in 3_usize..9,
        in_width in 3_usize..9, stride in 1_usize..3, padding in 0_usize..3, seed in 0_u64..1000, tail in 0..4,
        before in prop_oneof![Just(Activation::Linear), Just(Activation::Relu)],
    ) {
        let shape = ConvolutionShape {
            batch, in_channels, in_height, in_width, out_channels, kernel_height: 3, kernel_width: 3, stride, padding,
        };
        let size = 2.min(shape.out_height()).min(shape.out_width());
        let tail = match tail {
            0 => Tail::Activated { squeeze: None, residual: false, activation: Activation::Linear },
            1 => Tail::Activated { squeeze: None, residual: false, activation: Activation::Relu },
            2 => Tail::Pooled { size, rate: 0.0, key: 0 },
            _ => Tail::Pooled { size, rate: 0.4, key: seed },
        };
        let block = Block { before, tail, ..block(Filters::Dense(shape), None, false, Activation::Linear) };
        prop_assert_eq!(block.kept_len(), 0);
        with_every_instruction_set(|| Case::new(block, seed).check_run(false, 5e-5));
    }
}

#[test]
fn thin_are_blocks_of_few_products_on_pictures() {
    for (in_channels, kernel, is_thin) in
        [(1, 3, true), (1, 5, true), (3, 3, true), (4, 2, true), (4, 3, false), (5, 1, false), (32, 1, false)]
    {
        let Filters::Dense(shape) = dense(2, 6, in_channels, 8, 1) else { unreachable!("that is what it makes") };
        let shape = ConvolutionShape { kernel_height: kernel, kernel_width: kernel, ..shape };
        let block = block(Filters::Dense(shape), None, false, Activation::Relu);
        assert_eq!(block.kept_len() == 0, is_thin, "{in_channels} channels, kernel of {kernel}");
    }
}

/// A first layer that pools more windows of a row than are worked on at once, with a row and a column that none covers, around a
/// far mean.
fn wide_first_layer(padding: usize, before: Activation, bias: f32) -> Case {
    let shape = ConvolutionShape {
        batch: 2,
        in_channels: 1,
        in_height: 7,
        in_width: 77,
        out_channels: 21,
        kernel_height: 3,
        kernel_width: 3,
        stride: 1,
        padding,
    };
    let tail = Tail::Pooled { size: 2, rate: 0.25, key: 3 };
    let block = Block { before, tail, ..block(Filters::Dense(shape), None, false, Activation::Linear) };
    let mut case = Case::new(block, 11);
    case.inputs[2].iter_mut().for_each(|value| *value += bias);
    case
}

#[test]
fn a_wide_first_layer_is_the_same_as_one_after_the_other() {
    for (padding, before) in [(0, Activation::Relu), (1, Activation::Linear), (2, Activation::Relu)] {
        with_every_instruction_set(|| {
            wide_first_layer(padding, before, 0.0).check_run(false, 1e-4);
            wide_first_layer(padding, before, 300.0).check_run(false, 1e-3);
        });
    }
}

/// So large that a batch is three parts forward and two backward, the last of one image: by Winograd, directly, and each
/// channel by itself.
fn several_parts(squeeze: Option<usize>, activation: Activation) -> [Case; 3] {
    let depthwise =
        DepthwiseShape { batch: 5, channels: 32, in_height: 130, in_width: 130, kernel: 3, stride: 1, padding: 1 };
    let by_winograd = dense(5, 130, 16, 32, 1);
    assert!(matches!(by_winograd, Filters::Dense(shape) if Algorithm::choose(&shape) != Algorithm::Direct));
    [by_winograd, dense(5, 260, 4, 32, 2), Filters::Depthwise(depthwise)].map(|filters| {
        let parts = |most| parts(5, filters.output_len() / 5, most).collect::<Vec<_>>();
        assert_eq!(parts(FORWARD_NUMBERS), [0..2, 2..4, 4..5]);
        assert_eq!(parts(BACKWARD_NUMBERS), [0..4, 4..5]);
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
fn several_pooled_parts() -> Case {
    let tail = Tail::Pooled { size: 2, rate: 0.25, key: 3 };
    Case::new(
        Block { before: Activation::Relu, tail, ..block(dense(5, 130, 5, 32, 1), None, false, Activation::Linear) },
        4,
    )
}

#[test]
fn a_pooled_batch_of_several_parts_is_one_batch() {
    let case = several_pooled_parts();
    with_every_instruction_set(|| case.check(2e-4));
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let [some, none] = [Some(4), None].map(|squeeze| several_parts(squeeze, Activation::Relu));
    for case in some.into_iter().chain(none).chain([several_pooled_parts()]) {
        same_for_any_thread_count(|| case.fused().concat());
    }
    let thin = block(dense(9, 47, 1, 64, 1), None, false, Activation::Relu);
    for block in [thin, Block { tail: Tail::Pooled { size: 2, rate: 0.25, key: 5 }, ..thin }] {
        let case = Case::new(Block { before: Activation::Relu, ..block }, 3);
        assert_eq!(case.block.kept_len(), 0);
        same_for_any_thread_count(|| case.run(false).concat());
    }
}

#[test]
fn parts_cover_a_batch_once_and_in_order() {
    for (batch, numbers) in [(0, 10), (1, 10), (7, 10), (128, 48 * 48 * 32), (3, 4_000_000), (64, 0)] {
        for most in [FORWARD_NUMBERS, BACKWARD_NUMBERS] {
            let images: Vec<usize> = parts(batch, numbers, most).flatten().collect();
            assert_eq!(images, (0..batch).collect::<Vec<_>>(), "{batch} images of {numbers}");
        }
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
fn gradients_of_the_input_from_several_ways_are_one_sum() {
    let depthwise =
        DepthwiseShape { batch: 5, channels: 32, in_height: 130, in_width: 130, kernel: 3, stride: 1, padding: 1 };
    let (large, small) = (dense(5, 130, 32, 32, 1), dense(2, 5, 19, 19, 1));
    let residual = |filters, squeeze, activation| block(filters, squeeze, true, activation);
    let tail = Tail::Pooled { size: 2, rate: 0.25, key: 3 };
    let pooled = |filters| Block { tail, ..block(filters, None, false, Activation::Linear) };
    let blocks = [
        residual(large, None, Activation::Linear),
        residual(Filters::Depthwise(depthwise), None, Activation::Relu),
        residual(small, Some(4), Activation::Relu),
        residual(small, None, Activation::Tanh),
        residual(dense(0, 5, 19, 19, 1), None, Activation::Linear),
        pooled(small),
        // A thin one.
        pooled(dense(2, 5, 1, 19, 1)),
    ];
    for block in blocks {
        let case = Case::new(block, 3);
        let apart = case.fused();
        let may_share = matches!(block.tail, Tail::Activated { .. });
        let ways = [(true, false), (false, true), (true, true)];
        for (added, is_residual) in ways.into_iter().filter(|(_, is_residual)| may_share || !is_residual) {
            let together = case.run_into(Some((added, is_residual)));
            let ways = |place: usize| {
                let earlier = if added { 0.5 } else { 0.0 };
                earlier + apart[3][place] + if is_residual { apart[8][place] } else { 0.0 }
            };
            let expected: Vec<f32> = (0..apart[3].len()).map(ways).collect();
            assert_close(&together[3], &widen(&expected), 1e-6);
            let others = |results: &Results| (4..8).map(|index| results[index].clone()).collect::<Vec<_>>();
            assert_eq!(others(&together), others(&apart));
        }
    }
}
