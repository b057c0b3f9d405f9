//! Plans against networks computed by hand, and against plain double-precision layers one after the other.

use super::step::Operation;
use super::*;
use crate::network::{
    Activation, ActivationConfig, BatchNormConfig, ConvConfig, DenseConfig, DepthwiseConvConfig, DropoutConfig,
    FeatureShape, FlattenConfig, GlobalAveragePoolConfig, LayerConfig, NetworkConfig, Padding, ParameterRole,
    PoolConfig, ResidualConfig, ResolvedLayer, SqueezeExcitationConfig,
};
use crate::weights::WeightTensor;
use proptest::prelude::*;

mod cut;

/// Relative error that rounding may cause, Winograd's convolutions (up to 2e-4 of the largest output) included.
const ROUNDING: f64 = 3e-4;

fn conv(filters: usize, kernel: usize, padding: Padding, activation: Activation) -> LayerConfig {
    LayerConfig::Conv(ConvConfig { filters, kernel, stride: 1, padding, bias: true, activation, l2: 0.0 })
}

/// A convolution without bias that keeps the size if `stride` is 1.
fn unbiased(filters: usize, kernel: usize, stride: usize) -> LayerConfig {
    LayerConfig::Conv(ConvConfig {
        filters,
        kernel,
        stride,
        padding: Padding::Same,
        bias: false,
        activation: Activation::Linear,
        l2: 0.0,
    })
}

fn depthwise(kernel: usize, stride: usize, padding: Padding, bias: bool, activation: Activation) -> LayerConfig {
    LayerConfig::DepthwiseConv(DepthwiseConvConfig { kernel, stride, padding, bias, activation, l2: 0.0 })
}

fn squeeze(ratio: usize) -> LayerConfig {
    LayerConfig::SqueezeExcitation(SqueezeExcitationConfig { ratio })
}

fn activation(function: Activation) -> LayerConfig {
    LayerConfig::Activation(ActivationConfig { function })
}

fn residual(activation: Activation, layers: Vec<LayerConfig>, shortcut: Vec<LayerConfig>) -> LayerConfig {
    LayerConfig::Residual(ResidualConfig { activation, layers, shortcut })
}

fn global_average() -> LayerConfig {
    LayerConfig::GlobalAveragePool(GlobalAveragePoolConfig {})
}

fn dense(units: usize, activation: Activation) -> LayerConfig {
    LayerConfig::Dense(DenseConfig { units, activation, l2: 0.0 })
}

fn norm() -> LayerConfig {
    LayerConfig::BatchNorm(BatchNormConfig { momentum: 0.99, epsilon: 1e-3 })
}

fn flatten() -> LayerConfig {
    LayerConfig::Flatten(FlattenConfig {})
}

/// Reproducible numbers in -1..1.
fn numbers(seed: u64, length: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    };
    // The first few numbers still resemble the seed.
    (0..length + 8).map(|_| next()).skip(8).collect()
}

fn weights(network: &ResolvedNetwork, seed: u64, lowest_gamma: f32) -> Weights {
    let specs = network.parameters().enumerate();
    specs
        .map(|(index, spec)| {
            let mut data = numbers(seed + index as u64, spec.len());
            for value in &mut data {
                *value = match spec.role {
                    ParameterRole::Gamma => lowest_gamma + (*value + 1.0),
                    ParameterRole::RunningVariance => value.abs() + 0.1,
                    _ => *value,
                };
            }
            (spec.name.clone(), WeightTensor { shape: spec.shape.clone(), data })
        })
        .collect()
}

/// One sample through the layers as they are written, in double precision.
fn reference(network: &ResolvedNetwork, weights: &Weights, x: &[f32]) -> Vec<f64> {
    through(&network.layers, weights, x.iter().map(|&value| f64::from(value)).collect())
}

fn through(layers: &[ResolvedLayer], weights: &Weights, mut values: Vec<f64>) -> Vec<f64> {
    for layer in layers {
        let parameter = |index: usize, place: usize| -> f64 {
            f64::from(weights.get(&layer.parameters[index].name).unwrap().data[place])
        };
        let apply = |function: Activation, v: f64| match function {
            Activation::Relu => v.max(0.0),
            Activation::Tanh => v.tanh(),
            Activation::Linear => v,
            other => panic!("the tests do not use {other:?}"),
        };
        let place = |channel: usize, row: usize, column: usize| match layer.input {
            FeatureShape::Planes { channels, width, .. } => (row * width + column) * channels + channel,
            FeatureShape::Flat { .. } => panic!("a list has no rows"),
        };
        let (channels, mut output) = (layer.input.channels(), Vec::with_capacity(layer.output.len()));
        let slides = matches!(
            layer.config,
            LayerConfig::Conv(_)
                | LayerConfig::DepthwiseConv(_)
                | LayerConfig::MaxPool(_)
                | LayerConfig::AveragePool(_)
        );
        if let (true, shape) = (slides, layer.output) {
            let FeatureShape::Planes { channels, height, width } = shape else { panic!("planes stay planes") };
            let FeatureShape::Planes { height: in_height, width: in_width, .. } = layer.input else { panic!() };
            for (row, column) in (0..height).flat_map(|row| (0..width).map(move |column| (row, column))) {
                for channel in 0..channels {
                    output.push(match &layer.config {
                        LayerConfig::Conv(conv) => {
                            let (k, p) = (conv.kernel, conv.padding_size());
                            let mut total = if conv.bias { parameter(1, channel) } else { 0.0 };
                            for (c, i, j) in (0..layer.input.channels())
                                .flat_map(|c| (0..k).flat_map(move |i| (0..k).map(move |j| (c, i, j))))
                            {
                                let (r, s) = (row * conv.stride + i, column * conv.stride + j);
                                if r >= p && s >= p && r - p < in_height && s - p < in_width {
                                    let tap = ((i * k + j) * layer.input.channels() + c) * channels + channel;
                                    total += parameter(0, tap) * values[place(c, r - p, s - p)];
                                }
                            }
                            apply(conv.activation, total)
                        }
                        LayerConfig::DepthwiseConv(conv) => {
                            let (k, p) = (conv.kernel, conv.padding_size());
                            let mut total = if conv.bias { parameter(1, channel) } else { 0.0 };
                            for (i, j) in (0..k).flat_map(|i| (0..k).map(move |j| (i, j))) {
                                let (r, s) = (row * conv.stride + i, column * conv.stride + j);
                                if r >= p && s >= p && r - p < in_height && s - p < in_width {
                                    let weight = parameter(0, (i * k + j) * channels + channel);
                                    total += weight * values[place(channel, r - p, s - p)];
                                }
                            }
                            apply(conv.activation, total)
                        }
                        LayerConfig::MaxPool(pool) | LayerConfig::AveragePool(pool) => {
                            let n = pool.size;
                            let window: Vec<f64> = (0..n * n)
                                .map(|k| values[place(channel, row * n + k / n, column * n + k % n)])
                                .collect();
                            match layer.config {
                                LayerConfig::MaxPool(_) => window.iter().fold(f64::MIN, |best, &v| best.max(v)),
                                _ => window.iter().sum::<f64>() / window.len() as f64,
                            }
                        }
                        _ => unreachable!(),
                    });
                }
            }
        } else {
            match &layer.config {
                LayerConfig::BatchNorm(norm) => output.extend(values.iter().enumerate().map(|(index, value)| {
                    let channel = index % channels;
                    let deviation = (parameter(3, channel) + norm.epsilon).sqrt();
                    parameter(0, channel) * (value - parameter(2, channel)) / deviation + parameter(1, channel)
                })),
                LayerConfig::Activation(config) => output.extend(values.iter().map(|&v| apply(config.function, v))),
                LayerConfig::Dense(dense) => output.extend((0..dense.units).map(|unit| {
                    let terms = values.iter().enumerate().map(|(i, v)| v * parameter(0, i * dense.units + unit));
                    apply(dense.activation, terms.sum::<f64>() + parameter(1, unit))
                })),
                LayerConfig::GlobalAveragePool(_) => {
                    let mean = |channel: usize| {
                        let values = values.iter().skip(channel).step_by(channels);
                        values.sum::<f64>() / layer.input.spatial() as f64
                    };
                    output.extend((0..channels).map(mean));
                }
                LayerConfig::SqueezeExcitation(squeeze) => {
                    let hidden = squeeze.hidden(channels);
                    let mean = |channel: usize| {
                        let values = values.iter().skip(channel).step_by(channels);
                        values.sum::<f64>() / layer.input.spatial() as f64
                    };
                    let unit = |unit: usize| {
                        let terms = (0..channels).map(|channel| mean(channel) * parameter(0, channel * hidden + unit));
                        (terms.sum::<f64>() + parameter(1, unit)).max(0.0)
                    };
                    let units: Vec<f64> = (0..hidden).map(unit).collect();
                    let factor = |channel: usize| {
                        let terms = (0..hidden).map(|unit| units[unit] * parameter(2, unit * channels + channel));
                        1.0 / (1.0 + (-terms.sum::<f64>() - parameter(3, channel)).exp())
                    };
                    let factors: Vec<f64> = (0..channels).map(factor).collect();
                    output.extend(values.iter().enumerate().map(|(place, value)| value * factors[place % channels]));
                }
                LayerConfig::Residual(residual) => {
                    let shortcut = through(&layer.shortcut, weights, values.clone());
                    let body = through(&layer.body, weights, values);
                    output.extend(
                        body.iter().zip(shortcut).map(|(body, shortcut)| apply(residual.activation, body + shortcut)),
                    );
                }
                _ => output = values,
            }
        }
        values = output;
    }
    values
}

/// The steps of all parts.
fn steps(plan: &Plan) -> Vec<&Step> {
    plan.parts.iter().flat_map(|part| &part.program.steps).collect()
}

fn check(layers: Vec<LayerConfig>, seed: u64, lowest_gamma: f32, samples: usize) -> Plan {
    let network = NetworkConfig { layers }.resolve(12, 10, 3).unwrap();
    let weights = weights(&network, seed, lowest_gamma);
    let plan = Plan::new(&network, &weights).unwrap();
    let x = numbers(seed + 100, samples * 120);
    let logits = plan.logits(&x);
    assert_eq!(logits.len(), samples * 3);
    for (x, logits) in x.chunks(120).zip(logits.chunks(3)) {
        let expected = reference(&network, &weights, x);
        let scale = expected.iter().fold(1.0_f64, |largest, value| largest.max(value.abs()));
        for (logit, expected) in logits.iter().zip(&expected) {
            assert!((f64::from(*logit) - expected).abs() <= ROUNDING * scale, "{logits:?} instead of {expected:?}");
        }
    }
    plan
}

fn paper(padding: Padding) -> Vec<LayerConfig> {
    let pool = LayerConfig::MaxPool(PoolConfig { size: 2 });
    let dropout = LayerConfig::Dropout(DropoutConfig { rate: 0.25 });
    vec![
        conv(4, 3, padding, Activation::Relu),
        norm(),
        pool.clone(),
        dropout.clone(),
        conv(5, 3, padding, Activation::Relu),
        norm(),
        pool,
        dropout.clone(),
        flatten(),
        dense(6, Activation::Relu),
        norm(),
        dropout,
    ]
}

#[test]
fn a_network_computed_by_hand() {
    // 2 x 2 picture, kernel 2 x 2 of ones, bias -1, ReLU; norm with gamma 2, beta 1, mean 3, variance 4 - 0.001;
    // head weights 1 and -1, biases 0.5 and 0. [1 2 3 4] -> 9 -> 2 * (9 - 3) / 2 + 1 = 7 -> 7.5 and -7.
    let network = NetworkConfig { layers: vec![conv(1, 2, Padding::Valid, Activation::Relu), norm(), flatten()] };
    let network = network.resolve(2, 2, 2).unwrap();
    let values: [&[f32]; 8] = [&[1.0; 4], &[-1.0], &[2.0], &[1.0], &[3.0], &[3.999], &[1.0, -1.0], &[0.5, 0.0]];
    let specs = network.parameters().zip(values);
    let weights: Weights = specs
        .map(|(spec, data)| (spec.name.clone(), WeightTensor { shape: spec.shape.clone(), data: data.to_vec() }))
        .collect();
    let plan = Plan::new(&network, &weights).unwrap();
    let logits = plan.logits(&[1.0, 2.0, 3.0, 4.0, 0.0, 0.0, 0.0, 0.0]);
    for (logit, expected) in logits.iter().zip([7.5, -7.0, -1.5, 2.0]) {
        assert!((logit - expected).abs() < 1e-5, "{logits:?}");
    }
    let probabilities = plan.probabilities(&[1.0, 2.0, 3.0, 4.0]);
    assert!((f64::from(probabilities[1]) - 1.0 / (1.0 + 14.5_f64.exp())).abs() < 1e-9);
}

#[test]
fn the_papers_network_folds_every_norm() {
    let plan = check(paper(Padding::Valid), 1, 0.1, 3);
    assert!(
        !steps(&plan).iter().any(|step| matches!(step.operation, Operation::Affine(_))),
        "{:?}",
        steps(&plan).len()
    );
    // Two convolutions that pool, and two dense layers.
    assert_eq!(steps(&plan).len(), 4);
}

#[test]
fn padding_and_negative_scales_keep_the_norm_a_step() {
    let plan = check(paper(Padding::Same), 2, 0.1, 2);
    assert_eq!(steps(&plan).iter().filter(|step| matches!(step.operation, Operation::Affine(_))).count(), 1);
    let plan = check(paper(Padding::Valid), 3, -2.0, 2);
    assert_eq!(steps(&plan).iter().filter(|step| matches!(step.operation, Operation::Affine(_))).count(), 2);
}

#[test]
fn norms_before_activations_fold_backwards() {
    let relu = || LayerConfig::Activation(ActivationConfig { function: Activation::Relu });
    let linear = Activation::Linear;
    let layers = vec![conv(4, 3, Padding::Same, linear), norm(), relu(), flatten(), dense(5, linear), norm(), relu()];
    let plan = check(layers, 4, -1.0, 2);
    assert_eq!(steps(&plan).len(), 3);
}

#[test]
fn norms_meet_across_flatten_and_at_the_very_start() {
    let average = LayerConfig::AveragePool(PoolConfig { size: 3 });
    let tanh = LayerConfig::Activation(ActivationConfig { function: Activation::Tanh });
    check(vec![norm(), norm(), average.clone(), flatten(), norm(), tanh.clone()], 5, -1.0, 2);
    let relu = Activation::Relu;
    check(vec![conv(3, 2, Padding::Valid, relu), norm(), average, tanh, flatten(), norm()], 6, -1.0, 2);
}

#[test]
fn plans_for_any_batch_agree_and_write_where_they_are_told() {
    let network = NetworkConfig { layers: small_resnet() }.resolve(12, 10, 3).unwrap();
    let weights = weights(&network, 8, 0.1);
    let x = numbers(9, 5 * 120);
    let expected = Plan::new(&network, &weights).unwrap().logits(&x);
    for batch in [0, 1, 5, 1_000_000] {
        let plan = Plan::for_batch(&network, &weights, batch).unwrap();
        let mut logits = vec![f32::NAN; 15];
        plan.logits_into(&x[..120], &mut logits[..3]);
        plan.logits_into(&x, &mut logits);
        assert_eq!(logits, plan.logits(&x));
        for (logit, expected) in logits.iter().zip(&expected) {
            assert!((logit - expected).abs() <= 1e-4 * expected.abs().max(1.0), "{logits:?}");
        }
    }
}

#[test]
fn pooling_is_done_by_a_convolution_that_nothing_else_reads() {
    let relu = Activation::Relu;
    let (same, pool) = (Padding::Same, |size| LayerConfig::MaxPool(PoolConfig { size }));
    let steps = |layers: Vec<LayerConfig>, seed: u64, lowest_gamma: f32, expected: usize| {
        let plan = check([layers, vec![flatten()]].concat(), seed, lowest_gamma, 3);
        assert_eq!(steps(&plan).len(), expected + 1, "{:?}", steps(&plan));
    };
    // Whatever is folded comes before the pooling, or behind it.
    steps(vec![unbiased(3, 3, 1), norm(), activation(relu), pool(2)], 30, -1.0, 1);
    steps(vec![unbiased(3, 3, 1), pool(2), activation(Activation::Tanh)], 31, -1.0, 1);
    steps(vec![unbiased(3, 3, 1), pool(2), norm(), activation(relu)], 32, 0.1, 1);
    // A norm that turns the order round cannot come before it.
    steps(vec![unbiased(3, 3, 1), pool(2), norm(), activation(relu)], 33, -2.0, 3);
    // Other windows, a second pooling, and a sum in front of it.
    steps(vec![conv(3, 3, same, relu), pool(3)], 34, -1.0, 2);
    steps(vec![conv(3, 3, same, relu), pool(2), pool(2)], 35, -1.0, 2);
    steps(vec![residual(relu, vec![unbiased(1, 3, 1)], vec![]), pool(2)], 36, -1.0, 2);
    // A sum behind it, and a result that both branches read.
    let branch = vec![unbiased(2, 3, 1), pool(2)];
    steps(vec![residual(relu, branch.clone(), branch.clone())], 37, -1.0, 3);
    steps(vec![unbiased(2, 3, 1), residual(relu, vec![pool(2)], branch)], 38, -1.0, 4);
}

#[test]
fn a_missing_tensor_is_named() {
    let network = NetworkConfig { layers: paper(Padding::Valid) }.resolve(12, 10, 3).unwrap();
    let error = Plan::new(&network, &Weights::default()).unwrap_err();
    assert_eq!(error, WeightsError::Missing("layers.0.weight".to_owned()));
}

/// A stem, a block with an identity shortcut, one that changes the shape, and the mean of each channel.
fn small_resnet() -> Vec<LayerConfig> {
    let relu = Activation::Relu;
    let identity = vec![unbiased(3, 3, 1), norm(), activation(relu), unbiased(3, 3, 1), norm()];
    let changing = vec![unbiased(5, 3, 2), norm(), activation(relu), unbiased(5, 3, 1), norm()];
    vec![
        unbiased(3, 3, 1),
        norm(),
        activation(relu),
        residual(relu, identity, vec![]),
        residual(relu, changing, vec![unbiased(5, 1, 2), norm()]),
        global_average(),
    ]
}

#[test]
fn residual_networks_become_convolutions_that_add() {
    let plan = check(small_resnet(), 11, -1.0, 7);
    // Stem; two; shortcut and two; mean; head.
    assert_eq!(steps(&plan).len(), 1 + 2 + 3 + 1 + 1);
    let sums = steps(&plan).iter().filter(|step| step.addend.is_some()).count();
    assert_eq!((sums, plan.parts[0].program.buffers.lengths.len()), (2, 3));
    assert!(!steps(&plan).iter().any(|step| step.operation.works_in_place()));
}

#[test]
fn what_both_branches_read_is_not_folded_into() {
    let linear = Activation::Linear;
    // The stem's convolution could take in the norm and the activation, were it not for the shortcut.
    check(vec![unbiased(3, 3, 1), residual(linear, vec![norm()], vec![]), flatten()], 12, -1.0, 2);
    let relu = || activation(Activation::Relu);
    check(vec![unbiased(3, 3, 1), residual(linear, vec![relu()], vec![]), flatten()], 13, -1.0, 2);
    check(vec![unbiased(3, 3, 1), residual(linear, vec![relu()], vec![relu()]), flatten()], 14, -1.0, 2);
    // The body begins with what the shortcut's last convolution could take in.
    check(vec![residual(linear, vec![norm(), relu()], vec![unbiased(1, 3, 1)]), flatten()], 15, -1.0, 2);
    // A norm that waits in front of the block, one at the end of a branch, and one behind the sum.
    let body = vec![unbiased(3, 3, 1), relu(), norm()];
    let layers = vec![conv(3, 3, Padding::Same, Activation::Relu), norm(), residual(linear, body, vec![]), norm()];
    check([layers, vec![relu(), global_average(), norm()]].concat(), 16, -1.0, 2);
    // A norm and an activation behind a convolution that adds.
    let layers = vec![residual(linear, vec![unbiased(1, 3, 1)], vec![])];
    check([layers.clone(), vec![norm(), flatten()]].concat(), 17, -1.0, 2);
    check([layers, vec![relu(), flatten()]].concat(), 18, -1.0, 2);
    // Both branches are the input itself.
    let dropout = LayerConfig::Dropout(DropoutConfig { rate: 0.5 });
    check(vec![residual(Activation::Tanh, vec![dropout], vec![]), flatten()], 19, -1.0, 2);
}

#[test]
fn residual_layers_inside_residual_layers() {
    let inner = residual(Activation::Relu, vec![unbiased(3, 3, 1), norm()], vec![]);
    let shortcut = vec![inner.clone(), norm()];
    let outer = residual(Activation::Tanh, vec![inner.clone(), inner, unbiased(3, 1, 1)], shortcut);
    check(vec![unbiased(3, 3, 1), norm(), outer, global_average()], 20, -1.0, 2);
}

#[test]
fn depthwise_convolutions_take_in_the_norms_around_them() {
    let (linear, relu) = (Activation::Linear, Activation::Relu);
    let (valid, same) = (Padding::Valid, Padding::Same);
    let steps = |layers: Vec<LayerConfig>, seed: u64, expected: usize| {
        let layers = [vec![unbiased(5, 3, 1)], layers, vec![global_average()]].concat();
        assert_eq!(steps(&check(layers, seed, -1.0, 3)).len(), 1 + expected + 2);
    };
    let relu_alone = || activation(relu);
    steps(vec![depthwise(3, 1, same, false, linear), norm(), relu_alone(), unbiased(4, 1, 1)], 40, 2);
    steps(vec![depthwise(5, 2, same, true, linear), norm()], 41, 1);
    // A norm in front goes in where there is no padding, behind an activation it stays.
    steps(vec![relu_alone(), norm(), depthwise(3, 1, valid, true, linear), norm(), relu_alone()], 42, 1);
    steps(vec![relu_alone(), norm(), depthwise(3, 1, same, false, relu)], 43, 2);
    steps(vec![depthwise(3, 1, same, false, relu), norm(), depthwise(3, 3, valid, false, Activation::Tanh)], 44, 2);
    // It pools nothing and adds nothing by itself.
    steps(vec![depthwise(3, 1, same, false, linear), LayerConfig::MaxPool(PoolConfig { size: 2 })], 45, 2);
    steps(vec![residual(relu, vec![depthwise(3, 1, same, false, linear), norm()], vec![])], 46, 2);
    steps(vec![residual(relu, vec![depthwise(3, 1, same, false, linear), norm(), unbiased(5, 1, 1)], vec![])], 47, 2);
    // A norm of flattened channels has a map for each pixel.
    check(vec![depthwise(3, 1, same, false, linear), flatten(), norm()], 48, -1.0, 3);
}

#[test]
fn squeezing_is_one_step_that_takes_nothing_in() {
    let relu = Activation::Relu;
    let steps = |layers: Vec<LayerConfig>, seed: u64, expected: usize| {
        let layers = [vec![unbiased(6, 3, 1)], layers, vec![global_average()]].concat();
        assert_eq!(steps(&check(layers, seed, -1.0, 3)).len(), 1 + expected + 2);
    };
    steps(vec![norm(), squeeze(4)], 50, 1);
    // What is due in front of it comes first, and what stands behind it is not folded through it.
    steps(vec![activation(relu), norm(), squeeze(2), activation(relu)], 51, 3);
    steps(vec![squeeze(3), norm(), unbiased(4, 3, 1)], 52, 3);
    // At the end of a branch the sum is a step of its own; two branches may both end so.
    let body = vec![unbiased(6, 3, 1), norm(), squeeze(4)];
    steps(vec![residual(relu, body.clone(), vec![])], 53, 3);
    steps(vec![residual(relu, body.clone(), body)], 54, 5);
    steps(vec![residual(relu, vec![squeeze(1)], vec![]), norm()], 55, 2);
}

fn layer() -> impl Strategy<Value = LayerConfig> {
    let function = prop_oneof![Just(Activation::Linear), Just(Activation::Relu), Just(Activation::Tanh)];
    let padding = prop_oneof![Just(Padding::Valid), Just(Padding::Same)];
    prop_oneof![
        (1_usize..4, padding.clone(), function.clone()).prop_map(|(filters, padding, f)| conv(filters, 3, padding, f)),
        (0_usize..3, 1_usize..3, padding, any::<bool>(), function.clone())
            .prop_map(|(half, stride, padding, bias, f)| depthwise(2 * half + 1, stride, padding, bias, f)),
        (1_usize..4).prop_map(squeeze),
        Just(norm()),
        Just(norm()),
        (1_usize..3).prop_map(|size| LayerConfig::MaxPool(PoolConfig { size })),
        (1_usize..3).prop_map(|size| LayerConfig::AveragePool(PoolConfig { size })),
        function.prop_map(|function| LayerConfig::Activation(ActivationConfig { function })),
        Just(LayerConfig::Dropout(DropoutConfig { rate: 0.5 })),
    ]
}

/// Layers that keep the shape of the one channel of the input, or of any number of them.
fn kept() -> impl Strategy<Value = LayerConfig> {
    let function = prop_oneof![Just(Activation::Linear), Just(Activation::Relu), Just(Activation::Tanh)];
    let depthwise = |(bias, f)| depthwise(3, 1, Padding::Same, bias, f);
    prop_oneof![
        2 => Just(norm()),
        2 => function.clone().prop_map(activation),
        1 => Just(LayerConfig::Dropout(DropoutConfig { rate: 0.5 })),
        1 => (any::<bool>(), function).prop_map(depthwise),
        1 => (1_usize..4).prop_map(squeeze),
    ]
}

/// Residual layers: the ends of the branches are convolutions of equal shape, what is around them is anything.
fn block() -> impl Strategy<Value = LayerConfig> {
    let few = || prop::collection::vec(kept(), 0..3);
    let function = prop_oneof![Just(Activation::Linear), Just(Activation::Relu)];
    let leaf = (few(), few(), few(), few(), 1_usize..4, 1_usize..3, function.clone()).prop_map(
        |(before, after, around, behind, filters, stride, function)| {
            let body = [before, vec![unbiased(filters, 3, stride)], after].concat();
            let shortcut = [around, vec![unbiased(filters, 1, stride)], behind].concat();
            residual(function, body, shortcut)
        },
    );
    leaf.prop_recursive(2, 6, 2, move |inner| {
        let identity = prop::collection::vec(kept(), 1..4);
        prop_oneof![
            (identity, few(), function.clone()).prop_map(|(body, shortcut, f)| residual(f, body, shortcut)),
            (inner, few(), few(), function.clone(), 1_usize..4).prop_map(
                |(inner, before, after, function, filters)| {
                    let body = [before, vec![inner], after.clone(), vec![unbiased(filters, 3, 1)]].concat();
                    residual(function, body, [after, vec![unbiased(filters, 3, 1)]].concat())
                }
            ),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]
    #[test]
    fn any_network_equals_its_layers_one_after_the_other(
        mut layers in prop::collection::vec(prop_oneof![3 => layer(), 1 => block()], 0..7),
        means in any::<bool>(),
        tail in prop_oneof![
            Just(vec![]),
            Just(vec![norm()]),
            Just(vec![dense(4, Activation::Linear), norm()]),
            Just(vec![norm(), dense(4, Activation::Tanh), norm(), norm()]),
        ],
        seed in 0_u64..1000,
        lowest_gamma in prop_oneof![Just(-1.0_f32), Just(0.1_f32)],
    ) {
        layers.push(if means { global_average() } else { flatten() });
        layers.extend(tail);
        prop_assume!(NetworkConfig { layers: layers.clone() }.resolve(12, 10, 3).is_ok());
        check(layers, seed, lowest_gamma, 2);
    }
}
