//! Our kernels as operations of Burn's `flex` backend, with hand-written backward passes.
//!
//! [`Layers`] holds what can be differentiated: its implementation for [`Flex`] calls the forward kernel, the one for
//! [`Autodiff`] also records which backward kernel to call. [`Backwards`] holds those; Burn never dispatches it.
//! Blocks, depthwise convolution, and squeeze and excitation have modules of their own, built the same way; [`updates`] has
//! the optimisers.

mod block;
mod depthwise;
mod record;
mod squeeze_excitation;
mod updates;

use std::sync::Arc;

use burn::backend::autodiff::Autodiff;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::flex::{FlexTensor, Layout};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Flex, backend_extension};
use burn::tensor::{Bytes, DType, Shape};
use rayon::prelude::*;
use vultus_kernels::batch_norm::{self, Norm, NormGradients};
use vultus_kernels::dropout::{self, Dropout};
use vultus_kernels::squeeze_excitation::{WeightGradients, Weights};
use vultus_kernels::{convolution, dense, optimizer, pooling, softmax};

pub(super) use self::block::BlockLayers;
pub(super) use self::depthwise::DepthwiseLayers;
use self::record::{Earlier, Kept, record};
pub(super) use self::squeeze_excitation::SqueezeLayers;
pub(super) use self::updates::Updates;
use super::buffers::{Era, give, give_back, take};
use super::{Activation, ChannelShape, ConvolutionShape, DenseShape, Pooling, PoolingShape};

/// Operations with a forward pass; the arguments are those of [`super::Operations`].
#[backend_extension(Flex, Autodiff)]
pub(crate) trait Layers: Backend {
    fn convolution(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        biased: bool,
        shape: ConvolutionShape,
        activation: Activation,
    ) -> FloatTensor<Self>;

    fn global_average_pool(x: FloatTensor<Self>, shape: ChannelShape) -> FloatTensor<Self>;

    fn dense(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        shape: DenseShape,
        activation: Activation,
    ) -> FloatTensor<Self>;

    fn batch_norm_training(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        shape: ChannelShape,
        epsilon: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    fn pool(x: FloatTensor<Self>, pooling: Pooling, shape: PoolingShape) -> FloatTensor<Self>;

    fn dropout(x: FloatTensor<Self>, rate: f32, key: u64) -> FloatTensor<Self>;

    fn activation(x: FloatTensor<Self>, activation: Activation) -> FloatTensor<Self>;

    fn cross_entropy(
        logits: FloatTensor<Self>,
        targets: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        classes: usize,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    fn squared_sum(x: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// Position of the winner inside each window of a max pooling; empty for average pooling.
type Winners = Arc<Vec<u8>>;

/// Gradients of the kernel or the input, the weight and the bias; `None` for an input that needs none.
type LayerGradients<B> = [Option<FloatTensor<B>>; 3];

/// Backward kernels, called by what [`Autodiff`] records. `y` is the output of the forward pass, `dy` its gradient.
trait Backwards: Layers {
    /// Gives back the memory of a tensor that is done with, and was at work in `era`.
    fn recycle(tensor: FloatTensor<Self>, era: Era);

    /// The sum of two gradients, in the memory of one of them.
    fn sum(into: FloatTensor<Self>, other: FloatTensor<Self>) -> FloatTensor<Self>;

    fn convolution_backward(
        saved: [FloatTensor<Self>; 3],
        dy: FloatTensor<Self>,
        biased: bool,
        shape: &ConvolutionShape,
        activation: Activation,
        wants_dx: bool,
    ) -> LayerGradients<Self>;

    fn global_average_pool_backward(dy: FloatTensor<Self>, shape: &ChannelShape) -> FloatTensor<Self>;

    fn dense_backward(
        saved: [FloatTensor<Self>; 3],
        dy: FloatTensor<Self>,
        shape: &DenseShape,
        activation: Activation,
        wants_dx: bool,
    ) -> LayerGradients<Self>;

    fn batch_norm_backward(
        saved: [FloatTensor<Self>; 4],
        dy: FloatTensor<Self>,
        shape: &ChannelShape,
        epsilon: f32,
    ) -> LayerGradients<Self>;

    fn pool_recorded(x: FloatTensor<Self>, pooling: Pooling, shape: &PoolingShape) -> (FloatTensor<Self>, Winners);

    fn pool_backward(
        dy: FloatTensor<Self>,
        winners: &Winners,
        pooling: Pooling,
        shape: &PoolingShape,
    ) -> FloatTensor<Self>;

    fn activation_backward(y: FloatTensor<Self>, dy: FloatTensor<Self>, activation: Activation) -> FloatTensor<Self>;

    fn cross_entropy_backward(
        saved: [FloatTensor<Self>; 3],
        dy: FloatTensor<Self>,
        classes: usize,
    ) -> FloatTensor<Self>;

    fn squared_sum_backward(x: FloatTensor<Self>, dy: FloatTensor<Self>) -> FloatTensor<Self>;
}

// ---- flex ------------------------------------------------------------------------------------------------------

/// The values of a tensor that [`contiguous`] has made plain.
fn values(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice::<f32>().expect("operations run on contiguous f32 tensors")
}

/// The tensor, row after row, as all that its memory holds: a part of another one is copied, and any other layout.
fn contiguous(tensor: FlexTensor) -> FlexTensor {
    tensor.to_contiguous()
}

fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> FlexTensor {
    FlexTensor::new(Bytes::from_elems(values), Layout::contiguous(Shape::from(shape)), DType::F32)
}

/// A tensor of one dimension.
fn flat(values: Vec<f32>) -> FlexTensor {
    let length = values.len();
    tensor(values, [length])
}

fn dims2(tensor: &FlexTensor) -> [usize; 2] {
    tensor.layout().shape().dims::<2>()
}

impl Layers for Flex {
    fn convolution(
        x: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        biased: bool,
        shape: ConvolutionShape,
        activation: Activation,
    ) -> FlexTensor {
        let (x, weight, bias) = (contiguous(x), contiguous(weight), contiguous(bias));
        let mut y = take(shape.output_len());
        let bias = biased.then(|| values(&bias));
        convolution::forward(&shape, values(&x), values(&weight), bias, activation, &mut y);
        let width = y.len() / shape.batch;
        tensor(y, [shape.batch, width])
    }

    fn global_average_pool(x: FlexTensor, shape: ChannelShape) -> FlexTensor {
        let (x, ChannelShape { batch, channels, spatial }) = (contiguous(x), shape);
        let mut y = take(batch * channels);
        pooling::global_average_forward(batch, spatial, channels, values(&x), &mut y);
        tensor(y, [batch, channels])
    }

    fn dense(
        x: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        shape: DenseShape,
        activation: Activation,
    ) -> FlexTensor {
        let (x, weight, bias) = (contiguous(x), contiguous(weight), contiguous(bias));
        let DenseShape { batch, inputs, outputs } = shape;
        let mut y = take(batch * outputs);
        dense::forward(batch, inputs, outputs, values(&x), values(&weight), values(&bias), activation, &mut y);
        tensor(y, [batch, outputs])
    }

    fn batch_norm_training(
        x: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        shape: ChannelShape,
        epsilon: f32,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let (x, gamma, beta) = (contiguous(x), contiguous(gamma), contiguous(beta));
        let ChannelShape { batch, channels, spatial } = shape;
        let mut y = take(batch * channels * spatial);
        let (mut mean, mut variance) = (vec![0.0; channels], vec![0.0; channels]);
        batch_norm::forward_training(
            &shape.norm(),
            values(&x),
            values(&gamma),
            values(&beta),
            epsilon,
            None,
            Activation::Linear,
            &mut y,
            &mut mean,
            &mut variance,
        );
        (tensor(y, [batch, channels * spatial]), tensor(mean, [channels]), tensor(variance, [channels]))
    }

    fn pool(x: FlexTensor, pooling: Pooling, shape: PoolingShape) -> FlexTensor {
        Self::pool_recorded(x, pooling, &shape).0
    }

    fn dropout(x: FlexTensor, rate: f32, key: u64) -> FlexTensor {
        let mut x = contiguous(x);
        dropout::apply(Dropout { rate, key }, x.storage_mut());
        x
    }

    fn activation(x: FlexTensor, activation: Activation) -> FlexTensor {
        let mut x = contiguous(x);
        activation.forward(x.storage_mut());
        x
    }

    fn cross_entropy(
        logits: FlexTensor,
        targets: FlexTensor,
        weights: FlexTensor,
        classes: usize,
    ) -> (FlexTensor, FlexTensor) {
        let (logits, targets, weights) = (contiguous(logits), contiguous(targets), contiguous(weights));
        let [batch, _] = dims2(&logits);
        let mut probabilities = vec![0.0; batch * classes];
        let loss = softmax::cross_entropy_forward(
            classes,
            values(&logits),
            values(&targets),
            values(&weights),
            &mut probabilities,
        );
        (tensor(vec![loss], [1]), tensor(probabilities, [batch, classes]))
    }

    fn squared_sum(x: FlexTensor) -> FlexTensor {
        let x = contiguous(x);
        tensor(vec![optimizer::squared_sum(values(&x)) as f32], [1])
    }
}

impl Backwards for Flex {
    fn recycle(tensor: FlexTensor, era: Era) {
        give_back(tensor, era);
    }

    fn sum(into: FlexTensor, other: FlexTensor) -> FlexTensor {
        let (mut into, other) = (contiguous(into), contiguous(other));
        vultus_kernels::sum::add(into.storage_mut(), values(&other));
        give(other);
        into
    }

    fn convolution_backward(
        [x, weight, y]: [FlexTensor; 3],
        dy: FlexTensor,
        biased: bool,
        shape: &ConvolutionShape,
        activation: Activation,
        wants_dx: bool,
    ) -> LayerGradients<Self> {
        let ([x, weight, y], dy) = ([x, weight, y].map(contiguous), contiguous(dy));
        let mut dx = wants_dx.then(|| take(shape.input_len()));
        let (mut dweight, mut dbias) = (take(shape.weight_len()), biased.then(|| vec![0.0; shape.out_channels]));
        convolution::backward(
            shape,
            values(&x),
            values(&weight),
            values(&y),
            values(&dy),
            activation,
            dx.as_deref_mut(),
            &mut dweight,
            dbias.as_deref_mut(),
        );
        give(dy);
        let (width, kernel) = (shape.input_len() / shape.batch, dweight.len());
        [
            dx.map(|dx| tensor(dx, [shape.batch, width])),
            Some(tensor(dweight, [kernel])),
            dbias.map(|dbias| tensor(dbias, [shape.out_channels])),
        ]
    }

    fn global_average_pool_backward(dy: FlexTensor, shape: &ChannelShape) -> FlexTensor {
        let (dy, ChannelShape { batch, channels, spatial }) = (contiguous(dy), *shape);
        let mut dx = take(batch * spatial * channels);
        pooling::global_average_backward(batch, spatial, channels, values(&dy), &mut dx);
        tensor(dx, [batch, spatial * channels])
    }

    fn dense_backward(
        [x, weight, y]: [FlexTensor; 3],
        dy: FlexTensor,
        shape: &DenseShape,
        activation: Activation,
        wants_dx: bool,
    ) -> LayerGradients<Self> {
        let ([x, weight, y], dy) = ([x, weight, y].map(contiguous), contiguous(dy));
        let DenseShape { batch, inputs, outputs } = *shape;
        let mut dx = wants_dx.then(|| take(batch * inputs));
        let (mut dweight, mut dbias) = (take(inputs * outputs), vec![0.0; outputs]);
        dense::backward(
            batch,
            inputs,
            outputs,
            values(&x),
            values(&weight),
            values(&y),
            values(&dy),
            activation,
            dx.as_deref_mut(),
            &mut dweight,
            &mut dbias,
        );
        [
            dx.map(|dx| tensor(dx, [batch, inputs])),
            Some(tensor(dweight, [inputs * outputs])),
            Some(tensor(dbias, [outputs])),
        ]
    }

    fn batch_norm_backward(
        [x, gamma, mean, variance]: [FlexTensor; 4],
        dy: FlexTensor,
        shape: &ChannelShape,
        epsilon: f32,
    ) -> LayerGradients<Self> {
        let ([x, gamma, mean, variance], dy) = ([x, gamma, mean, variance].map(contiguous), contiguous(dy));
        let ChannelShape { batch, channels, spatial } = *shape;
        let mut dx = take(batch * channels * spatial);
        let (mut dgamma, mut dbeta) = (vec![0.0; channels], vec![0.0; channels]);
        let (gamma, mean, variance) = (values(&gamma), values(&mean), values(&variance));
        // Nothing comes behind this norm, so that beta decides nothing.
        let norm = Norm { gamma, beta: mean, mean, variance, epsilon };
        let gradients = NormGradients { dx: &mut dx, dgamma: &mut dgamma, dbeta: &mut dbeta, dbias: None };
        let linear = Activation::Linear;
        batch_norm::backward(
            &shape.norm(),
            values(&x),
            &norm,
            linear,
            values(&x),
            values(&dy),
            linear,
            None,
            gradients,
        );
        give(dy);
        [
            Some(tensor(dx, [batch, channels * spatial])),
            Some(tensor(dgamma, [channels])),
            Some(tensor(dbeta, [channels])),
        ]
    }

    fn pool_recorded(x: FlexTensor, pooling: Pooling, shape: &PoolingShape) -> (FlexTensor, Winners) {
        let x = contiguous(x);
        let [batch, _] = dims2(&x);
        let mut y = take(shape.output_len());
        let mut winners = Vec::new();
        match pooling {
            Pooling::Max => {
                winners.resize(y.len(), 0);
                pooling::max_forward(shape, values(&x), &mut y, Some(&mut winners));
            }
            Pooling::Average => pooling::average_forward(shape, values(&x), &mut y),
        }
        let width = y.len() / batch;
        (tensor(y, [batch, width]), Arc::new(winners))
    }

    fn pool_backward(dy: FlexTensor, winners: &Winners, pooling: Pooling, shape: &PoolingShape) -> FlexTensor {
        let dy = contiguous(dy);
        let [batch, _] = dims2(&dy);
        let mut dx = take(shape.input_len());
        match pooling {
            Pooling::Max => pooling::max_backward(shape, values(&dy), winners, &mut dx),
            Pooling::Average => pooling::average_backward(shape, values(&dy), &mut dx),
        }
        let width = dx.len() / batch;
        tensor(dx, [batch, width])
    }

    fn activation_backward(y: FlexTensor, dy: FlexTensor, activation: Activation) -> FlexTensor {
        let (y, mut dy) = (contiguous(y), contiguous(dy));
        activation.backward(values(&y), dy.storage_mut());
        dy
    }

    fn cross_entropy_backward(
        [probabilities, targets, weights]: [FlexTensor; 3],
        dy: FlexTensor,
        classes: usize,
    ) -> FlexTensor {
        let (targets, weights, dy) = (contiguous(targets), contiguous(weights), contiguous(dy));
        let [batch, _] = dims2(&probabilities);
        let mut dlogits = vec![0.0; batch * classes];
        let scale = values(&dy)[0];
        softmax::cross_entropy_backward(
            classes,
            values(&probabilities),
            values(&targets),
            values(&weights),
            scale,
            &mut dlogits,
        );
        tensor(dlogits, [batch, classes])
    }

    fn squared_sum_backward(x: FlexTensor, dy: FlexTensor) -> FlexTensor {
        let (x, dy) = (contiguous(x), contiguous(dy));
        let factor = 2.0 * values(&dy)[0];
        let mut dx = take(values(&x).len());
        dx.par_iter_mut().with_min_len(16 * 1024).zip(values(&x)).for_each(|(dx, value)| *dx = factor * value);
        let len = dx.len();
        tensor(dx, [len])
    }
}

// ---- autodiff --------------------------------------------------------------------------------------------------

impl<B: Backwards, C: CheckpointStrategy> Layers for Autodiff<B, C> {
    fn convolution(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        biased: bool,
        shape: ConvolutionShape,
        activation: Activation,
    ) -> FloatTensor<Self> {
        let ((x, x_node), (weight, weight_node), (bias, bias_node)) =
            (x.into_parts(), weight.into_parts(), bias.into_parts());
        let y = B::convolution(x.clone(), weight.clone(), bias, biased, shape, activation);
        let (x, kept_y) = (Kept::<B>::new(x), Kept::<B>::new(y.clone()));
        record::<B, C, 3>([x_node, weight_node, bias_node], y, move |dy, [wants_dx, ..], _| {
            let saved = [x.get(), weight.clone(), kept_y.get()];
            B::convolution_backward(saved, dy, biased, &shape, activation, wants_dx)
        })
    }

    fn global_average_pool(x: FloatTensor<Self>, shape: ChannelShape) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        let y = B::global_average_pool(x, shape);
        record::<B, C, 1>([node], y, move |dy, _, _| [Some(B::global_average_pool_backward(dy, &shape))])
    }

    fn dense(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        shape: DenseShape,
        activation: Activation,
    ) -> FloatTensor<Self> {
        let ((x, x_node), (weight, weight_node), (bias, bias_node)) =
            (x.into_parts(), weight.into_parts(), bias.into_parts());
        let y = B::dense(x.clone(), weight.clone(), bias, shape, activation);
        let (x, kept_y) = (Kept::<B>::new(x), Kept::<B>::new(y.clone()));
        record::<B, C, 3>([x_node, weight_node, bias_node], y, move |dy, [wants_dx, ..], _| {
            B::dense_backward([x.get(), weight.clone(), kept_y.get()], dy, &shape, activation, wants_dx)
        })
    }

    fn batch_norm_training(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        shape: ChannelShape,
        epsilon: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let ((x, x_node), (gamma, gamma_node), (beta, beta_node)) =
            (x.into_parts(), gamma.into_parts(), beta.into_parts());
        let (y, mean, variance) = B::batch_norm_training(x.clone(), gamma.clone(), beta, shape, epsilon);
        let constants = (FloatTensor::<Self>::new(mean.clone()), FloatTensor::<Self>::new(variance.clone()));
        let x = Kept::<B>::new(x);
        let y = record::<B, C, 3>([x_node, gamma_node, beta_node], y, move |dy, _, _| {
            let saved = [x.get(), gamma.clone(), mean.clone(), variance.clone()];
            B::batch_norm_backward(saved, dy, &shape, epsilon)
        });
        (y, constants.0, constants.1)
    }

    fn pool(x: FloatTensor<Self>, pooling: Pooling, shape: PoolingShape) -> FloatTensor<Self> {
        let (x, x_node) = x.into_parts();
        let (y, winners) = B::pool_recorded(x, pooling, &shape);
        record::<B, C, 1>([x_node], y, move |dy, _, _| [Some(B::pool_backward(dy, &winners, pooling, &shape))])
    }

    fn dropout(x: FloatTensor<Self>, rate: f32, key: u64) -> FloatTensor<Self> {
        let (x, x_node) = x.into_parts();
        record::<B, C, 1>([x_node], B::dropout(x, rate, key), move |dy, _, _| [Some(B::dropout(dy, rate, key))])
    }

    fn activation(x: FloatTensor<Self>, activation: Activation) -> FloatTensor<Self> {
        let (x, x_node) = x.into_parts();
        let y = B::activation(x, activation);
        record::<B, C, 1>([x_node], y.clone(), move |dy, _, _| {
            [Some(B::activation_backward(y.clone(), dy, activation))]
        })
    }

    fn cross_entropy(
        logits: FloatTensor<Self>,
        targets: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        classes: usize,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (logits, node) = logits.into_parts();
        let (targets, weights) = (targets.into_primitive(), weights.into_primitive());
        let (loss, probabilities) = B::cross_entropy(logits, targets.clone(), weights.clone(), classes);
        let constant = FloatTensor::<Self>::new(probabilities.clone());
        let loss = record::<B, C, 1>([node], loss, move |dy, _, _| {
            let saved = [probabilities.clone(), targets.clone(), weights.clone()];
            [Some(B::cross_entropy_backward(saved, dy, classes))]
        });
        (loss, constant)
    }

    fn squared_sum(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        let y = B::squared_sum(x.clone());
        record::<B, C, 1>([node], y, move |dy, _, _| [Some(B::squared_sum_backward(x.clone(), dy))])
    }
}
