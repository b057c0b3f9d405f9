//! The operations as compositions of Burn's own, for devices without our kernels. Burn differentiates them.

use burn::tensor::activation::{leaky_relu, log_softmax, relu, sigmoid, tanh};
use burn::tensor::module::{avg_pool2d, conv2d, max_pool2d};
use burn::tensor::ops::{AvgPoolOptions, ConvOptions, MaxPoolOptions};
use burn::tensor::{Distribution, Tensor};
use vultus_kernels::activation::LEAKY_SLOPE;
use vultus_kernels::muon::{COEFFICIENTS, STEPS, TINY};

use super::{
    Activation, AdamUpdate, ChannelShape, ConvolutionShape, DenseShape, DepthwiseShape, MuonUpdate, Pooling,
    PoolingShape, SgdUpdate, SqueezeShape,
};

pub(super) fn convolution(
    x: Tensor<2>,
    weight: Tensor<1>,
    bias: Option<Tensor<1>>,
    shape: ConvolutionShape,
    function: Activation,
) -> Tensor<2> {
    let x = x.reshape([shape.batch, shape.in_height, shape.in_width, shape.in_channels]).permute([0, 3, 1, 2]);
    let weight = weight.reshape([shape.kernel_height, shape.kernel_width, shape.in_channels, shape.out_channels]);
    let options = ConvOptions::new([shape.stride; 2], [shape.padding; 2], [1, 1], 1);
    let y = conv2d(x, weight.permute([3, 2, 0, 1]), bias, options).permute([0, 2, 3, 1]);
    activation(y.reshape([shape.batch as i32, -1]), function)
}

pub(super) fn depthwise(
    x: Tensor<2>,
    weight: Tensor<1>,
    bias: Option<Tensor<1>>,
    shape: DepthwiseShape,
    function: Activation,
) -> Tensor<2> {
    let x = x.reshape([shape.batch, shape.in_height, shape.in_width, shape.channels]).permute([0, 3, 1, 2]);
    let weight = weight.reshape([shape.kernel, shape.kernel, shape.channels, 1]).permute([2, 3, 0, 1]);
    let options = ConvOptions::new([shape.stride; 2], [shape.padding; 2], [1, 1], shape.channels);
    let y = conv2d(x, weight, bias, options).permute([0, 2, 3, 1]);
    activation(y.reshape([shape.batch as i32, -1]), function)
}

pub(super) fn dense(
    x: Tensor<2>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    shape: DenseShape,
    function: Activation,
) -> Tensor<2> {
    let y = x.matmul(weight.reshape([shape.inputs, shape.outputs])) + bias.unsqueeze();
    activation(y, function)
}

pub(super) fn batch_norm_training(
    x: Tensor<2>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    shape: ChannelShape,
    epsilon: f32,
) -> (Tensor<2>, Tensor<1>, Tensor<1>) {
    let channel = [1, shape.channels];
    let x = x.reshape([shape.batch * shape.spatial, shape.channels]);
    let mean = x.clone().mean_dim(0);
    let centred = x - mean.clone();
    let variance = centred.clone().powi_scalar(2).mean_dim(0);
    let normal = centred / (variance.clone() + epsilon).sqrt();
    let y = normal * gamma.reshape(channel) + beta.reshape(channel);
    let flat = |statistic: Tensor<2>| statistic.detach().reshape([shape.channels]);
    (y.reshape([shape.batch as i32, -1]), flat(mean), flat(variance))
}

pub(super) fn pool(x: Tensor<2>, pooling: Pooling, shape: PoolingShape) -> Tensor<2> {
    let [batch, _] = x.dims();
    let x = x.reshape([batch, shape.in_height, shape.in_width, shape.channels]).permute([0, 3, 1, 2]);
    let (size, stride) = ([shape.size; 2], [shape.stride; 2]);
    let y = match pooling {
        Pooling::Max => max_pool2d(x, MaxPoolOptions { kernel_size: size, stride, ..MaxPoolOptions::new(size) }),
        Pooling::Average => avg_pool2d(x, AvgPoolOptions { kernel_size: size, stride, ..AvgPoolOptions::new(size) }),
    };
    y.permute([0, 2, 3, 1]).reshape([batch as i32, -1])
}

pub(super) fn squeeze_excitation(x: Tensor<2>, weights: [Tensor<1>; 4], shape: SqueezeShape) -> Tensor<2> {
    let SqueezeShape { batch, spatial, channels, hidden } = shape;
    let [squeeze, squeeze_bias, excitation, excitation_bias] = weights;
    let x = x.reshape([batch, spatial, channels]);
    let mean = x.clone().mean_dim(1).reshape([batch, channels]);
    let layer = |inputs, outputs| DenseShape { batch, inputs, outputs };
    let units = dense(mean, squeeze, squeeze_bias, layer(channels, hidden), Activation::Relu);
    let factor = sigmoid(dense(units, excitation, excitation_bias, layer(hidden, channels), Activation::Linear));
    (x * factor.reshape([batch, 1, channels])).reshape([batch, spatial * channels])
}

/// The mask comes from the device's own generator, seeded by the key.
pub(super) fn dropout(x: Tensor<2>, rate: f32, key: u64) -> Tensor<2> {
    let keep = f64::from(1.0 - rate);
    x.device().seed(key);
    let mask = Tensor::<2>::random(x.shape(), Distribution::Bernoulli(keep), &x.device());
    x * mask / keep
}

pub(super) fn activation(x: Tensor<2>, function: Activation) -> Tensor<2> {
    match function {
        Activation::Linear => x,
        Activation::Relu => relu(x),
        Activation::LeakyRelu => leaky_relu(x, f64::from(LEAKY_SLOPE)),
        Activation::Elu => relu(x.clone()) + (x.clamp_max(0.0).exp() - 1.0),
        Activation::Tanh => tanh(x),
    }
}

pub(super) fn cross_entropy(logits: Tensor<2>, targets: Tensor<2>, weights: Tensor<1>) -> (Tensor<1>, Tensor<2>) {
    let [batch, _] = logits.dims();
    let log_probabilities = log_softmax(logits, 1);
    let per_sample = -(targets * log_probabilities.clone()).sum_dim(1);
    let loss = (per_sample * weights.reshape([batch, 1])).sum() / batch as f32;
    (loss, log_probabilities.detach().exp())
}

pub(super) fn adam(
    parameter: Tensor<1>,
    gradient: Tensor<1>,
    first: Tensor<1>,
    second: Tensor<1>,
    update: AdamUpdate,
) -> (Tensor<1>, [Tensor<1>; 2]) {
    let (beta1, beta2) = (update.beta1, update.beta2);
    let gradient = gradient * update.scale;
    let step = update.step as i32;
    let rate = update.learning_rate * (1.0 - beta2.powi(step)).sqrt() / (1.0 - beta1.powi(step));
    let first = first * beta1 + gradient.clone() * (1.0 - beta1);
    let second = second * beta2 + gradient.powi_scalar(2) * (1.0 - beta2);
    let parameter = parameter * update.kept - first.clone() * rate / (second.clone().sqrt() + update.epsilon);
    (parameter, [first, second])
}

pub(super) fn sgd(
    parameter: Tensor<1>,
    gradient: Tensor<1>,
    velocity: Tensor<1>,
    update: SgdUpdate,
) -> (Tensor<1>, Tensor<1>) {
    let descent = gradient * update.scale * update.learning_rate;
    let velocity = velocity * update.momentum - descent.clone();
    let change = if update.nesterov { velocity.clone() * update.momentum - descent } else { velocity.clone() };
    (parameter * update.kept + change, velocity)
}

pub(super) fn muon(
    parameter: Tensor<1>,
    gradient: Tensor<1>,
    velocity: Tensor<1>,
    [rows, columns]: [usize; 2],
    update: MuonUpdate,
) -> (Tensor<1>, Tensor<1>) {
    let gradient = gradient * update.scale;
    let velocity = velocity * update.momentum + gradient.clone();
    let direction = orthogonalize(gradient + velocity.clone() * update.momentum, rows, columns);
    (parameter * update.kept - direction * update.learning_rate, velocity)
}

fn orthogonalize(matrix: Tensor<1>, rows: usize, columns: usize) -> Tensor<1> {
    let [a, b, c] = COEFFICIENTS;
    let norm = matrix.clone().powi_scalar(2).sum().sqrt() + TINY;
    let mut x: Tensor<2> = (matrix / norm).reshape([rows, columns]);
    for _ in 0..STEPS {
        // On the shorter side.
        let gram = if rows < columns {
            x.clone().matmul(x.clone().transpose())
        } else {
            x.clone().transpose().matmul(x.clone())
        };
        let both = gram.clone() * b + gram.clone().matmul(gram) * c;
        let product = if rows < columns { both.matmul(x.clone()) } else { x.clone().matmul(both) };
        x = x * a + product;
    }
    x.reshape([rows * columns])
}
