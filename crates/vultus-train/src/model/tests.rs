//! Whole training passes of small networks, residual ones and depthwise-separable ones with squeeze and excitation: our
//! kernels against Burn's own operations, gradients against differences of the loss, and the plan of the same weights.

use vultus::network::{
    Activation, ActivationConfig, BatchNormConfig, ConvConfig, GlobalAveragePoolConfig, NetworkConfig, Padding,
    ResidualConfig, SqueezeExcitationConfig,
};
use vultus::plan::Plan;

use super::*;

const SAMPLES: usize = 3;

fn conv(filters: usize, kernel: usize, stride: usize, l2: f64) -> LayerConfig {
    let (padding, activation) = (Padding::Same, Activation::Linear);
    LayerConfig::Conv(ConvConfig { filters, kernel, stride, padding, bias: false, activation, l2 })
}

/// Smooth activations only, so that differences of the loss are near its derivative.
fn residual_network() -> ResolvedNetwork {
    let norm = || LayerConfig::BatchNorm(BatchNormConfig { momentum: 0.9, epsilon: 1e-3 });
    let tanh = || LayerConfig::Activation(ActivationConfig { function: Activation::Tanh });
    let block =
        |layers, shortcut| LayerConfig::Residual(ResidualConfig { activation: Activation::Tanh, layers, shortcut });
    let inner = || block(vec![conv(4, 3, 1, 0.0), norm()], vec![]);
    let inner_of_two = block(vec![conv(4, 3, 1, 0.0), norm(), tanh(), conv(4, 3, 1, 0.0), norm()], vec![]);
    let layers = vec![
        conv(3, 3, 1, 0.0),
        norm(),
        block(vec![conv(3, 3, 1, 0.02), norm(), tanh(), conv(3, 3, 1, 0.0), norm()], vec![]),
        block(vec![conv(4, 3, 2, 0.0), norm(), inner()], vec![conv(4, 1, 2, 0.03), norm()]),
        // What goes in has three ways on, in each order of the kinds that their gradients come from.
        block(vec![inner(), conv(4, 3, 1, 0.0), norm()], vec![]),
        block(vec![inner_of_two, conv(4, 3, 1, 0.0), norm()], vec![]),
        block(vec![conv(4, 3, 1, 0.0), tanh(), conv(4, 3, 1, 0.0), norm()], vec![]),
        LayerConfig::GlobalAveragePool(GlobalAveragePoolConfig {}),
    ];
    NetworkConfig { layers }.resolve(6, 5, 3).unwrap()
}

fn depthwise(kernel: usize, stride: usize, bias: bool, activation: Activation, l2: f64) -> LayerConfig {
    let padding = Padding::Same;
    LayerConfig::DepthwiseConv(DepthwiseConvConfig { kernel, stride, padding, bias, activation, l2 })
}

/// Depthwise-separable convolutions with squeeze and excitation at the end of a branch and on its own. The running
/// statistics become those of the last batch.
fn separable_network() -> ResolvedNetwork {
    let norm = || LayerConfig::BatchNorm(BatchNormConfig { momentum: 0.0, epsilon: 1e-3 });
    let squeeze = |ratio| LayerConfig::SqueezeExcitation(SqueezeExcitationConfig { ratio });
    let (linear, tanh) = (Activation::Linear, Activation::Tanh);
    let activation = || LayerConfig::Activation(ActivationConfig { function: tanh });
    let branch = [depthwise(3, 1, false, linear, 0.02), norm(), activation(), conv(6, 1, 1, 0.0), norm(), squeeze(2)];
    let shortcut = vec![depthwise(3, 1, true, linear, 0.0), squeeze(3)];
    let layers = vec![
        conv(6, 3, 1, 0.0),
        norm(),
        LayerConfig::Residual(ResidualConfig { activation: tanh, layers: branch.into(), shortcut }),
        depthwise(5, 2, true, tanh, 0.03),
        squeeze(4),
        norm(),
        LayerConfig::GlobalAveragePool(GlobalAveragePoolConfig {}),
    ];
    NetworkConfig { layers }.resolve(6, 5, 3).unwrap()
}

fn networks() -> [ResolvedNetwork; 2] {
    [residual_network(), separable_network()]
}

fn numbers(seed: u64, len: usize) -> Vec<f32> {
    (0..len).map(|index| (derive_seed(seed, &[index as u64]) % 2001) as f32 / 1000.0 - 1.0).collect()
}

fn pass(
    resolved: &ResolvedNetwork,
    weights: &Weights,
    operations: Operations,
) -> (Network, f32, Vec<Option<Tensor<1>>>) {
    let resolved = resolved.clone();
    let pixels = numbers(1, SAMPLES * resolved.input.len());
    let mut network = Network::new(resolved, weights, &Device::flex()).unwrap().with_operations(operations);
    let targets = vec![1.0, 0.0, 0.0, 0.0, 0.5, 0.5, 0.0, 0.0, 1.0];
    let forward = network.forward(pixels, targets, vec![1.0, 0.5, 2.0], 7);
    let loss = values_of(forward.loss.clone().inner())[0];
    let gradients = network.gradients(&forward.loss);
    (network, loss, gradients)
}

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(1e-3, |largest, value| largest.max(value.abs()))
}

#[test]
fn kernels_and_burns_operations_agree_on_losses_gradients_and_running_statistics() {
    for network in networks() {
        agree(&network);
    }
}

fn agree(network: &ResolvedNetwork) {
    let weights = initial_weights(network, 5);
    let (ours, loss, gradients) = pass(network, &weights, Operations::Kernels);
    let (stock, stock_loss, stock_gradients) = pass(network, &weights, Operations::Stock);
    assert!((loss - stock_loss).abs() < 1e-5 * stock_loss, "{loss} against {stock_loss}");
    let (moved, stock_moved) = (ours.weights(), stock.weights());
    for (index, spec) in ours.specs().iter().enumerate() {
        let (left, right) = if spec.is_trainable() {
            let gradient = |gradients: &[Option<Tensor<1>>]| values_of(gradients[index].clone().unwrap());
            (gradient(&gradients), gradient(&stock_gradients))
        } else {
            let before = &weights.get(&spec.name).unwrap().data;
            let after = moved.get(&spec.name).unwrap().data.clone();
            assert_ne!(before, &after, "{} did not follow the batch", spec.name);
            (after, stock_moved.get(&spec.name).unwrap().data.clone())
        };
        let scale = largest(&right);
        for (left, right) in left.iter().zip(&right) {
            assert!((left - right).abs() <= 1e-4 * scale, "{}: {left} against {right}", spec.name);
        }
    }
}

#[test]
fn gradients_are_the_slopes_of_the_loss() {
    for network in networks() {
        follow_the_loss(&network);
    }
}

fn follow_the_loss(resolved: &ResolvedNetwork) {
    let weights = initial_weights(resolved, 6);
    let (network, _, gradients) = pass(resolved, &weights, Operations::Kernels);
    let step = 1e-2;
    for (index, spec) in network.specs().iter().enumerate().filter(|(_, spec)| spec.is_trainable()) {
        let gradient = values_of(gradients[index].clone().unwrap());
        // The place of the largest slope: there the loss' rounding matters least.
        let (place, slope) = gradient
            .iter()
            .copied()
            .enumerate()
            .max_by(|(_, left), (_, right)| left.abs().total_cmp(&right.abs()))
            .unwrap();
        let loss_at = |change: f32| {
            let mut tensor = weights.get(&spec.name).unwrap().clone();
            tensor.data[place] += change;
            let mut weights = weights.clone();
            weights.insert(spec.name.clone(), tensor);
            pass(resolved, &weights, Operations::Kernels).1
        };
        let difference = (loss_at(step) - loss_at(-step)) / (2.0 * step);
        assert!((difference - slope).abs() <= 0.02 * slope.abs() + 2e-4, "{}: {slope}, not {difference}", spec.name);
    }
}

#[test]
fn kernels_inside_branches_are_penalised() {
    let mut resolved = residual_network();
    let weights = initial_weights(&resolved, 8);
    let with = pass(&resolved, &weights, Operations::Kernels).1;
    let square = |name: &str| weights.get(name).unwrap().data.iter().map(|value| value * value).sum::<f32>();
    let penalty = 0.02 * square("layers.2.layers.0.weight") + 0.03 * square("layers.3.shortcut.0.weight");
    let free = |layer: &mut ResolvedLayer| {
        if let LayerConfig::Conv(conv) = &mut layer.config {
            conv.l2 = 0.0;
        }
    };
    free(&mut resolved.layers[2].body[0]);
    free(&mut resolved.layers[3].shortcut[0]);
    let mut network = Network::new(resolved, &weights, &Device::flex()).unwrap();
    let targets = vec![1.0, 0.0, 0.0, 0.0, 0.5, 0.5, 0.0, 0.0, 1.0];
    let forward = network.forward(numbers(1, SAMPLES * 30), targets, vec![1.0, 0.5, 2.0], 7);
    let without = values_of(forward.loss.inner())[0];
    assert!((with - without - penalty).abs() < 1e-5, "{with} - {without} is not {penalty}");
}

/// A batch whose own statistics are the running ones goes through training and the plan alike.
#[test]
fn plans_give_what_training_gives() {
    let resolved = separable_network();
    let weights = initial_weights(&resolved, 9);
    let pixels = numbers(1, SAMPLES * resolved.input.len());
    for operations in [Operations::Kernels, Operations::Stock] {
        let mut network =
            Network::new(resolved.clone(), &weights, &Device::flex()).unwrap().with_operations(operations);
        let forward = network.forward(pixels.clone(), vec![1.0 / 3.0; 9], vec![1.0; 3], 7);
        let trained = values_of(forward.probabilities);
        let planned = Plan::new(&resolved, &network.weights()).unwrap().probabilities(&pixels);
        for (left, right) in trained.iter().zip(&planned) {
            assert!((left - right).abs() < 1e-5, "{trained:?} is not {planned:?}");
        }
        assert_ne!(planned[..3], planned[3..6]);
    }
}

#[test]
fn the_votes_have_their_weight_in_the_loss() {
    let network = NetworkConfig { layers: vec![LayerConfig::Flatten(vultus::network::FlattenConfig {})] };
    let heads = Heads { labels: 3, votes_weight: 0.5 };
    let resolved = network.resolve(1, 2, heads.columns()).unwrap();
    let weights = initial_weights(&resolved, 3);
    let pixels = numbers(1, 2 * 2);
    // The second picture has no votes.
    let votes = [0.25, 0.75, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
    let targets = [&[1.0, 0.0, 0.0][..], &votes, &[0.0, 0.5, 0.5], &[0.0; 8]].concat();
    let kernel = &weights.get("layers.1.weight").unwrap().data;
    let entropy = |picture: usize, columns: std::ops::Range<usize>| -> f64 {
        let [a, b] = [pixels[2 * picture], pixels[2 * picture + 1]].map(f64::from);
        let logit = |column: usize| a * f64::from(kernel[column]) + b * f64::from(kernel[11 + column]);
        let total = columns.clone().map(|column| logit(column).exp()).sum::<f64>().ln();
        columns.map(|column| f64::from(targets[11 * picture + column]) * (total - logit(column))).sum()
    };
    let expected = (entropy(0, 0..3) + 2.0 * entropy(1, 0..3) + 0.5 * entropy(0, 3..11)) / 2.0;
    for operations in [Operations::Kernels, Operations::Stock] {
        let network = Network::new(resolved.clone(), &weights, &Device::flex()).unwrap();
        let mut network = network.with_operations(operations).with_heads(heads);
        let forward = network.forward(pixels.clone(), targets.clone(), vec![1.0, 2.0], 7);
        let loss = values_of(forward.loss.clone().inner())[0];
        assert!((f64::from(loss) - expected).abs() < 1e-5, "{loss} is not {expected}");
        assert_eq!(forward.probabilities.dims(), [2, 3]);
        let gradients = network.gradients(&forward.loss);
        let bias = values_of(gradients[1].clone().unwrap());
        // Each head's gradients sum up to zero, and the one of the votes is not zero.
        assert!(bias[..3].iter().sum::<f32>().abs() < 1e-6 && bias[3..].iter().sum::<f32>().abs() < 1e-6, "{bias:?}");
        assert!(bias[3..].iter().all(|&value| value != 0.0), "{bias:?}");
    }
}
