//! Our kernels against Burn's own operations: the same outputs and the same gradients. The kernels themselves are held
//! against plain references in their own crate.

use burn::tensor::{Device, TensorData};

use super::*;
use crate::model::{flat, values_of};

fn numbers(seed: u64, len: usize) -> Vec<f32> {
    (0..len).map(|index| (crate::seed::derive_seed(seed, &[index as u64]) % 2001) as f32 / 1000.0 - 1.0).collect()
}

fn device() -> Device {
    Device::flex().autodiff()
}

fn matrix(seed: u64, rows: usize, columns: usize) -> Tensor<2> {
    let values = TensorData::new(numbers(seed, rows * columns), [rows, columns]);
    Tensor::<2>::from_data(values, &device()).require_grad()
}

fn vector(seed: u64, len: usize) -> Tensor<1> {
    flat(numbers(seed, len), &device()).require_grad()
}

fn assert_close(what: &str, ours: &[f32], stock: &[f32]) {
    assert_eq!(ours.len(), stock.len(), "{what}");
    let scale = stock.iter().fold(1e-2_f32, |largest, value| largest.max(value.abs()));
    for (index, (ours, stock)) in ours.iter().zip(stock).enumerate() {
        assert!((ours - stock).abs() <= 2e-5 * scale, "{what}[{index}]: {ours} against {stock}");
    }
}

/// Output and gradients of `operation(x, weight, bias)` under a loss that weighs every output differently.
fn output_and_gradients(
    x: (usize, usize),
    parameters: [usize; 2],
    operation: impl Fn(Tensor<2>, Tensor<1>, Tensor<1>) -> Tensor<2>,
) -> Vec<Vec<f32>> {
    let x = matrix(1, x.0, x.1);
    let (weight, bias) = (vector(2, parameters[0]), vector(3, parameters[1]));
    let y = operation(x.clone(), weight.clone(), bias.clone());
    let [rows, columns] = y.dims();
    let factors = Tensor::<2>::from_data(TensorData::new(numbers(4, rows * columns), [rows, columns]), &device());
    let gradients = (y.clone() * factors).sum().backward();
    let mut results = vec![values_of(y.inner())];
    results.extend(x.grad(&gradients).map(values_of));
    results.extend(weight.grad(&gradients).map(values_of));
    results.extend(bias.grad(&gradients).map(values_of));
    results
}

fn compare(
    what: &str,
    x: (usize, usize),
    parameters: [usize; 2],
    operation: impl Fn(Operations, Tensor<2>, Tensor<1>, Tensor<1>) -> Tensor<2>,
) {
    let run =
        |operations| output_and_gradients(x, parameters, |x, weight, bias| operation(operations, x, weight, bias));
    let (ours, stock) = (run(Operations::Kernels), run(Operations::Stock));
    assert_eq!(ours.len(), stock.len(), "{what}: as many gradients");
    for (part, (ours, stock)) in ["output", "dx", "dweight", "dbias"].iter().zip(ours.iter().zip(&stock)) {
        assert_close(&format!("{what} {part}"), ours, stock);
    }
}

const ACTIVATIONS: [Activation; 5] =
    [Activation::Linear, Activation::Relu, Activation::LeakyRelu, Activation::Elu, Activation::Tanh];

#[test]
fn convolutions() {
    for (activation, (stride, padding)) in ACTIVATIONS.into_iter().zip([(1, 0), (1, 1), (2, 1), (1, 2), (2, 0)]) {
        let shape = ConvolutionShape {
            batch: 3,
            in_channels: 2,
            in_height: 9,
            in_width: 7,
            out_channels: 4,
            kernel_height: 3,
            kernel_width: 3,
            stride,
            padding,
        };
        compare(&format!("{shape:?}"), (3, 2 * 9 * 7), [4 * 2 * 9, 4], |operations, x, weight, bias| {
            operations.convolution(x, weight, Some(bias), shape, activation)
        });
        compare(&format!("{shape:?} without bias"), (3, 2 * 9 * 7), [4 * 2 * 9, 1], |operations, x, weight, _| {
            operations.convolution(x, weight, None, shape, activation)
        });
    }
}

#[test]
fn depthwise_convolutions() {
    for (activation, (kernel, stride, padding)) in
        ACTIVATIONS.into_iter().zip([(3, 1, 0), (3, 1, 1), (3, 2, 1), (5, 1, 2), (5, 3, 0)])
    {
        let shape = DepthwiseShape { batch: 3, channels: 18, in_height: 9, in_width: 7, kernel, stride, padding };
        let (x, weights) = ((3, 18 * 9 * 7), 18 * kernel * kernel);
        compare(&format!("{shape:?}"), x, [weights, 18], |operations, x, weight, bias| {
            operations.depthwise(x, weight, Some(bias), shape, activation)
        });
        compare(&format!("{shape:?} without bias"), x, [weights, 1], |operations, x, weight, _| {
            operations.depthwise(x, weight, None, shape, activation)
        });
    }
}

#[test]
fn dense_layers() {
    let shape = DenseShape { batch: 5, inputs: 7, outputs: 3 };
    for activation in ACTIVATIONS {
        compare("dense", (5, 7), [21, 3], |operations, x, weight, bias| {
            operations.dense(x, weight, bias, shape, activation)
        });
    }
}

#[test]
fn batch_norms() {
    let shape = ChannelShape { batch: 4, channels: 3, spatial: 5 };
    compare("batch norm", (4, 15), [3, 3], |operations, x, gamma, beta| {
        operations.batch_norm_training(x, gamma, beta, shape, 1e-3).0
    });
}

/// Tensors that are a part of another one, or another way to look at it.
#[test]
fn views() {
    type View = fn(Tensor<2>) -> Tensor<2>;
    let part: View = |x| x.slice([1..4, 0..18]);
    let turned: View = |x| x.reshape([18, 6]).slice([0..18, 0..3]).transpose();
    for view in [part, turned] {
        let compare = |what: &str, operation: fn(Operations, Tensor<2>, Tensor<1>, Tensor<1>) -> Tensor<2>| {
            compare(what, (6, 18), [18, 3], |operations, x, weight, bias| operation(operations, view(x), weight, bias));
        };
        compare("a view of a dense layer", |operations, x, weight, bias| {
            let shape = DenseShape { batch: 3, inputs: 18, outputs: 1 };
            operations.dense(x, weight, bias.slice(1..2), shape, Activation::Linear)
        });
        compare("a view of a convolution", |operations, x, weight, _| {
            let shape = ConvolutionShape {
                batch: 3,
                in_channels: 2,
                in_height: 3,
                in_width: 3,
                out_channels: 1,
                kernel_height: 3,
                kernel_width: 3,
                stride: 1,
                padding: 1,
            };
            operations.convolution(x, weight, None, shape, Activation::Linear)
        });
        compare("a view of a depthwise convolution", |operations, x, weight, _| {
            let shape =
                DepthwiseShape { batch: 3, channels: 2, in_height: 3, in_width: 3, kernel: 3, stride: 1, padding: 1 };
            operations.depthwise(x, weight, None, shape, Activation::Linear)
        });
        compare("a view of a batch norm", |operations, x, gamma, beta| {
            let shape = ChannelShape { batch: 3, channels: 3, spatial: 6 };
            operations.batch_norm_training(x, gamma.slice(3..6), beta, shape, 1e-3).0
        });
        compare("a view that is activated", |operations, x, _, _| operations.activation(x, Activation::Relu));
    }
    // What is masked on the way there is masked on the way back.
    let ones = Tensor::<2>::ones([6, 64], &device()).require_grad();
    let y = Operations::Kernels.dropout(ones.clone().slice([2..4, 0..64]), 0.25, 7);
    let gradients = y.clone().sum().backward();
    let dx = values_of(ones.grad(&gradients).unwrap());
    assert_eq!(values_of(y.inner()), dx[2 * 64..4 * 64]);
}

/// Output, both statistics and all gradients of a block.
fn block_results(operations: Operations, block: Block) -> Vec<(&'static str, Vec<f32>)> {
    let filters = block.filters;
    let (batch, channels) = (filters.batch(), filters.channels());
    let x = matrix(1, batch, filters.input_len() / batch);
    let has_residual = matches!(block.tail, Tail::Activated { residual: true, .. });
    let residual = matrix(9, batch, filters.output_len() / batch);
    let weight = vector(2, filters.weight_len());
    let [bias, gamma, beta] = [3, 5, 6].map(|seed| vector(seed, channels));
    let squeeze = match block.tail {
        Tail::Activated { squeeze: Some(hidden), .. } => Some([
            vector(20, channels * hidden),
            vector(21, hidden),
            vector(22, hidden * channels),
            vector(23, channels),
        ]),
        _ => None,
    };
    let parameters = BlockParameters {
        squeeze: squeeze.clone(),
        weight: weight.clone(),
        bias: block.biased.then(|| bias.clone()),
        gamma: gamma.clone(),
        beta: beta.clone(),
    };
    let (y, mean, variance) =
        operations.convolution_block(x.clone(), parameters, has_residual.then(|| residual.clone()), block);
    let [rows, columns] = y.dims();
    let factors = Tensor::<2>::from_data(TensorData::new(numbers(4, rows * columns), [rows, columns]), &device());
    let gradients = (y.clone() * factors).sum().backward();
    let mut results =
        vec![("y", values_of(y.inner())), ("mean", values_of(mean.inner())), ("variance", values_of(variance.inner()))];
    for (name, tensor) in [("dx", x), ("dresidual", residual)] {
        results.extend(tensor.grad(&gradients).map(|gradient| (name, values_of(gradient))));
    }
    for (name, tensor) in [("dweight", weight), ("dbias", bias), ("dgamma", gamma), ("dbeta", beta)] {
        results.extend(tensor.grad(&gradients).map(|gradient| (name, values_of(gradient))));
    }
    for (name, tensor) in ["dw1", "db1", "dw2", "db2"].into_iter().zip(squeeze.into_iter().flatten()) {
        results.extend(tensor.grad(&gradients).map(|gradient| (name, values_of(gradient))));
    }
    results
}

/// A convolution, its batch norm and what follows, as one operation and as Burn's own: with and without bias, ReLU,
/// residual, pooling. Dropout is off, since its masks are each side's own.
#[test]
fn blocks() {
    let activated = |residual, activation| Tail::Activated { squeeze: None, residual, activation };
    let squeezed = |residual, activation| Tail::Activated { squeeze: Some(4), residual, activation };
    let pooled = Tail::Pooled { size: 2, rate: 0.0, key: 1 };
    let cases = [
        (1, true, Activation::Relu, pooled),
        (1, false, Activation::Relu, pooled),
        (1, true, Activation::Linear, pooled),
        (1, true, Activation::Relu, activated(false, Activation::Linear)),
        (1, false, Activation::Linear, activated(false, Activation::Relu)),
        (2, false, Activation::Linear, activated(false, Activation::Relu)),
        (1, false, Activation::Linear, activated(true, Activation::Relu)),
        (2, false, Activation::Linear, activated(true, Activation::Relu)),
        (1, true, Activation::Relu, activated(true, Activation::Linear)),
        (1, true, Activation::Linear, activated(true, Activation::Linear)),
        (1, false, Activation::Linear, squeezed(false, Activation::Linear)),
        (2, true, Activation::Relu, squeezed(false, Activation::Relu)),
        (1, false, Activation::Linear, squeezed(true, Activation::Relu)),
        (1, true, Activation::Linear, squeezed(true, Activation::Tanh)),
    ];
    // Few inputs, whose convolution is computed again, and more; and each channel by itself.
    let kinds = [Some(2), Some(5), None];
    for ((stride, biased, before, tail), inputs) in cases.into_iter().flat_map(|case| kinds.map(|kind| (case, kind))) {
        let (batch, in_height, in_width, padding) = (3, 9, 7, 1);
        let filters = match inputs {
            Some(in_channels) => Filters::Dense(ConvolutionShape {
                batch,
                in_channels,
                in_height,
                in_width,
                out_channels: 18,
                kernel_height: 3,
                kernel_width: 3,
                stride,
                padding,
            }),
            None => {
                let (channels, kernel) = (18, 3);
                Filters::Depthwise(DepthwiseShape { batch, channels, in_height, in_width, kernel, stride, padding })
            }
        };
        let block = Block { filters, biased, before, epsilon: 1e-3, tail };
        let (ours, stock) = (block_results(Operations::Kernels, block), block_results(Operations::Stock, block));
        let names = |results: &[(&'static str, Vec<f32>)]| results.iter().map(|(name, _)| *name).collect::<Vec<_>>();
        assert_eq!(names(&ours), names(&stock), "{block:?}");
        for ((name, ours), (_, stock)) in ours.iter().zip(&stock) {
            if *name == "dbias" && before == Activation::Linear {
                // The norm takes a constant off again: both are a zero of many terms.
                assert!(ours.iter().chain(stock).all(|gradient| gradient.abs() < 1e-5), "{ours:?} {stock:?}");
                continue;
            }
            assert_close(&format!("{name} of {block:?}"), ours, stock);
        }
    }
}

/// A block's dropout keeps or drops whole gradients: what is zero in the output moves nothing.
#[test]
fn blocks_drop_out() {
    let convolution = ConvolutionShape {
        batch: 8,
        in_channels: 3,
        in_height: 8,
        in_width: 8,
        out_channels: 16,
        kernel_height: 3,
        kernel_width: 3,
        stride: 1,
        padding: 1,
    };
    let outputs = |rate, key| {
        let tail = Tail::Pooled { size: 2, rate, key };
        let filters = Filters::Dense(convolution);
        let block = Block { filters, biased: true, before: Activation::Relu, epsilon: 1e-3, tail };
        block_results(Operations::Kernels, block).swap_remove(0).1
    };
    let (whole, dropped) = (outputs(0.0, 7), outputs(0.25, 7));
    let kept = dropped.iter().zip(&whole).filter(|&(&dropped, &whole)| {
        assert!(dropped == 0.0 || (dropped - whole / 0.75).abs() < 1e-5, "{dropped} of {whole}");
        dropped != 0.0
    });
    let share = kept.count() as f64 / whole.len() as f64;
    assert!((0.70..0.80).contains(&share), "{share}");
    assert_eq!(dropped, outputs(0.25, 7));
    assert_ne!(dropped, outputs(0.25, 8));
}

#[test]
fn pooling() {
    let shape = PoolingShape { batch: 2, channels: 3, in_height: 7, in_width: 5, size: 2, stride: 2 };
    for kind in [Pooling::Max, Pooling::Average] {
        compare("pooling", (2, 3 * 35), [1, 1], |operations, x, _, _| operations.pool(x, kind, shape));
    }
}

#[test]
fn means_of_channels_and_their_gradients() {
    let shape = ChannelShape { batch: 2, channels: 3, spatial: 4 };
    let x = matrix(1, 2, 12);
    let y = Operations::Kernels.global_average_pool(x.clone(), shape);
    assert_eq!(y.dims(), [2, 3]);
    let factors = Tensor::<2>::from_data(TensorData::new(numbers(4, 6), [2, 3]), &device());
    let gradients = (y.clone() * factors).sum().backward();
    let pixels = numbers(1, 24);
    let mean = |sample: usize, channel: usize| -> f32 {
        (0..4).map(|pixel| pixels[sample * 12 + pixel * 3 + channel]).sum::<f32>() / 4.0
    };
    let means: Vec<f32> = (0..6).map(|index| mean(index / 3, index % 3)).collect();
    assert_close("means", &values_of(y.inner()), &means);
    let factors = numbers(4, 6);
    let expected: Vec<f32> = (0..24).map(|index| factors[index / 12 * 3 + index % 3] / 4.0).collect();
    assert_close("dx", &values_of(x.grad(&gradients).unwrap()), &expected);
}

#[test]
fn squeeze_and_excitation() {
    let shape = SqueezeShape { batch: 3, spatial: 12, channels: 18, hidden: 4 };
    // A part of all weights at a time is the one that is looked at, and the bias of the last layer always.
    let lengths = [18 * 4, 4, 4 * 18];
    for seen in 0..3 {
        compare(&format!("squeeze {seen}"), (3, 12 * 18), [lengths[seen], 18], |operations, x, weight, bias| {
            let part = |index| if index == seen { weight.clone() } else { vector(20 + index as u64, lengths[index]) };
            operations.squeeze_excitation(x, [part(0), part(1), part(2), bias], shape)
        });
    }
}

/// The same tensor on both sides, as with an identity shortcut: both ways add to its gradient.
#[test]
fn sums_send_gradients_both_ways() {
    for activation in ACTIVATIONS {
        compare("sum", (3, 6), [18, 1], |operations, x, y, _| {
            let y = operations.activation(x.clone(), activation) * y.reshape([3, 6]);
            operations.add(y, x, activation)
        });
    }
}

#[test]
fn activations() {
    for activation in ACTIVATIONS {
        compare("activation", (3, 11), [1, 1], |operations, x, _, _| operations.activation(x, activation));
    }
}

#[test]
fn cross_entropy_and_penalty() {
    for operations in [Operations::Kernels, Operations::Stock] {
        let logits = matrix(5, 2, 3);
        let targets = Tensor::<2>::from_floats([[0.0, 1.0, 0.0], [0.5, 0.25, 0.25]], &device());
        let weights = Tensor::<1>::from_floats([2.0, 0.5], &device());
        let weight = vector(6, 4);
        let (loss, probabilities) = operations.cross_entropy(logits.clone(), targets, weights, 3);
        let probabilities = values_of(probabilities.inner());
        let sums: Vec<f32> = probabilities.chunks(3).map(|row| row.iter().sum()).collect();
        assert_close("sums", &sums, &[1.0, 1.0]);
        let (targets, weights) = ([0.0, 1.0, 0.0, 0.5, 0.25, 0.25], [2.0, 0.5]);
        let terms = |place: usize| -weights[place / 3] * targets[place] * probabilities[place].ln() / 2.0;
        assert_close("loss", &values_of(loss.clone().inner()), &[(0..6).map(terms).sum::<f32>()]);
        let gradients = (loss + operations.squared_sum(weight.clone()) * 0.5).backward();
        // d(0.5 sum w^2) = w; the logits' gradient is w (p - t) / n.
        assert_close("penalty", &values_of(weight.grad(&gradients).unwrap()), &numbers(6, 4));
        let slopes: Vec<f32> =
            (0..6).map(|place| weights[place / 3] * (probabilities[place] - targets[place]) / 2.0).collect();
        assert_close("logits", &values_of(logits.grad(&gradients).unwrap()), &slopes);
    }
}

#[test]
fn dropout_sends_gradients_through_the_same_mask() {
    let ones = Tensor::<2>::ones([16, 64], &device()).require_grad();
    let y = Operations::Kernels.dropout(ones.clone(), 0.25, 7);
    let gradients = y.clone().sum().backward();
    let (y, dx) = (values_of(y.inner()), values_of(ones.grad(&gradients).unwrap()));
    assert_eq!(y, dx);
    assert!(y.iter().all(|&value| value == 0.0 || (value - 4.0 / 3.0).abs() < 1e-6));
    let dropped = y.iter().filter(|&&value| value == 0.0).count();
    assert!((180..=332).contains(&dropped), "{dropped} of 1024");
    let other = Operations::Kernels.dropout(Tensor::<2>::ones([16, 64], &device()), 0.25, 8);
    assert_ne!(y, values_of(other.inner()));
}

#[test]
fn optimisers() {
    let adam =
        AdamUpdate { learning_rate: 0.01, beta1: 0.9, beta2: 0.999, epsilon: 1e-7, step: 3, scale: 0.6, kept: 0.9 };
    let sgd = SgdUpdate { learning_rate: 0.01, momentum: 0.9, nesterov: true, scale: 0.6, kept: 0.9 };
    let plain = |seed| flat(numbers(seed, 9), &Device::flex());
    let run = |operations: Operations| {
        let second = plain(4).powi_scalar(2);
        let (parameter, [first, second]) = operations.adam(plain(1), plain(2), [plain(3), second], adam);
        let (moved, velocity) = operations.sgd(plain(1), plain(2), plain(3), sgd);
        [parameter, first, second, moved, velocity].map(values_of)
    };
    for (ours, stock) in run(Operations::Kernels).iter().zip(&run(Operations::Stock)) {
        assert_close("update", ours, stock);
    }
}

#[test]
fn muons_matrices_agree() {
    let update = MuonUpdate { learning_rate: 1.0, momentum: 0.9, scale: 0.6, kept: 0.9 };
    for shape in [[12, 5], [5, 12], [8, 8]] {
        let matrix = |seed| flat(numbers(seed, shape[0] * shape[1]), &Device::flex());
        let results = [Operations::Kernels, Operations::Stock].map(|operations| {
            let (parameter, velocity) = operations.muon(matrix(7), matrix(8), matrix(9), shape, update);
            [values_of(parameter), values_of(velocity)].concat()
        });
        let difference = results[0].iter().zip(&results[1]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(difference < 1e-4, "{shape:?}: {difference}");
    }
}
