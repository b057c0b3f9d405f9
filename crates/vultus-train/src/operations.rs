//! The one place where the trainable network reaches arithmetic.
//!
//! In: Burn tensors. Out: Burn tensors that are part of the autodiff graph. Activations are `[batch, values]` (row by
//! row, the channels of a pixel side by side), parameters are flat `[values]`; their geometry is passed beside them, so no
//! operation ever copies for a change of layout. On the `flex` device an operation is one of
//! [`vultus_kernels`] with a hand-written backward pass (`extension`); on any other device the same functions are
//! compositions of Burn's own operations (`stock`).

pub(crate) mod buffers;
mod extension;
mod stock;
#[cfg(test)]
mod tests;

use burn::backend::Dispatch;
use burn::tensor::Tensor;
pub use vultus_kernels::activation::Activation;
pub use vultus_kernels::block::{Block, Filters, Tail};
pub use vultus_kernels::convolution::ConvolutionShape;
pub use vultus_kernels::depthwise::DepthwiseShape;
pub use vultus_kernels::muon::MuonUpdate;
pub use vultus_kernels::optimizer::{AdamUpdate, SgdUpdate};
pub use vultus_kernels::pooling::PoolingShape;
pub use vultus_kernels::squeeze_excitation::SqueezeShape;

pub use self::buffers::KeptBuffers;
use self::extension::{BlockLayers, DepthwiseLayers, Layers, SqueezeLayers, Updates};

/// Which arithmetic the operations use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operations {
    /// Our kernels; the tensors must be on the `flex` device.
    Kernels,
    /// Burn's own operations, for any device.
    Stock,
}

/// Which kind of window a pooling layer uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// The largest value.
    Max,
    /// The mean.
    Average,
}

/// Parameters of a [`Block`], flat.
#[derive(Clone, Debug)]
pub struct BlockParameters {
    /// `[kernel_height * kernel_width * in * out]`, or `[kernel * kernel * out]` of a depthwise convolution.
    pub weight: Tensor<1>,
    /// `[out]`, where the block has one.
    pub bias: Option<Tensor<1>>,
    /// `[out]`.
    pub gamma: Tensor<1>,
    /// `[out]`.
    pub beta: Tensor<1>,
    /// Those of [`Operations::squeeze_excitation`], where the block has one.
    pub squeeze: Option<[Tensor<1>; 4]>,
}

/// Planes that a batch norm treats alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelShape {
    /// Samples.
    pub batch: usize,
    /// Channels, each with its own statistics.
    pub channels: usize,
    /// Values of one channel of one sample.
    pub spatial: usize,
}

impl ChannelShape {
    fn norm(&self) -> vultus_kernels::batch_norm::NormShape {
        vultus_kernels::batch_norm::NormShape { rows: self.batch * self.spatial, channels: self.channels }
    }
}

/// Geometry of a dense layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DenseShape {
    /// Samples.
    pub batch: usize,
    /// Features going in.
    pub inputs: usize,
    /// Units.
    pub outputs: usize,
}

impl Operations {
    /// Convolution with activation, and with a bias if there is one (the report's section 2, equations 1 to 4).
    ///
    /// `x` `[batch, in_height * in_width * in_channels]`, `weight` `[kernel_height * kernel_width * in * out]`, `bias`
    /// `[out]`; gives `[batch, out_height * out_width * out]`.
    pub fn convolution(
        self,
        x: Tensor<2>,
        weight: Tensor<1>,
        bias: Option<Tensor<1>>,
        shape: ConvolutionShape,
        activation: Activation,
    ) -> Tensor<2> {
        match self {
            Self::Kernels => Tensor::from_dispatch(Dispatch::convolution(
                x.into_dispatch(),
                weight.clone().into_dispatch(),
                bias.clone().unwrap_or(weight).into_dispatch(),
                bias.is_some(),
                shape,
                activation,
            )),
            Self::Stock => stock::convolution(x, weight, bias, shape, activation),
        }
    }

    /// Convolution of each channel by itself with activation, and with a bias if there is one (Howard et al. 2017, section
    /// 3.1).
    ///
    /// `x` `[batch, in_height * in_width * channels]`, `weight` `[kernel * kernel * channels]`, `bias` `[channels]`; gives
    /// `[batch, out_height * out_width * channels]`.
    pub fn depthwise(
        self,
        x: Tensor<2>,
        weight: Tensor<1>,
        bias: Option<Tensor<1>>,
        shape: DepthwiseShape,
        activation: Activation,
    ) -> Tensor<2> {
        match self {
            Self::Kernels => Tensor::from_dispatch(Dispatch::depthwise(
                x.into_dispatch(),
                weight.clone().into_dispatch(),
                bias.clone().unwrap_or(weight).into_dispatch(),
                bias.is_some(),
                shape,
                activation,
            )),
            Self::Stock => stock::depthwise(x, weight, bias, shape, activation),
        }
    }

    /// A convolution, a batch norm and what follows it; see [`Block`]. `residual` has the shape of the output, and is there
    /// if the block says so. Gives the output, and the mean and the biased variance `[out]` of the convolution's output;
    /// no gradient flows through the last two.
    pub fn convolution_block(
        self,
        x: Tensor<2>,
        parameters: BlockParameters,
        residual: Option<Tensor<2>>,
        block: Block,
    ) -> (Tensor<2>, Tensor<1>, Tensor<1>) {
        let BlockParameters { weight, bias, gamma, beta, squeeze } = parameters;
        match self {
            Self::Kernels => {
                let absent = weight.clone().into_dispatch();
                let [squeeze, squeeze_bias, excitation, excitation_bias] = match squeeze {
                    Some(weights) => weights.map(Tensor::into_dispatch),
                    None => [(); 4].map(|()| absent.clone()),
                };
                let (y, mean, variance) = Dispatch::convolution_block(
                    x.clone().into_dispatch(),
                    weight.into_dispatch(),
                    bias.map_or(absent, Tensor::into_dispatch),
                    gamma.into_dispatch(),
                    beta.into_dispatch(),
                    residual.unwrap_or(x).into_dispatch(),
                    squeeze,
                    squeeze_bias,
                    excitation,
                    excitation_bias,
                    block,
                );
                (Tensor::from_dispatch(y), Tensor::from_dispatch(mean), Tensor::from_dispatch(variance))
            }
            Self::Stock => {
                let z = match block.filters {
                    Filters::Dense(shape) => self.convolution(x, weight, bias, shape, block.before),
                    Filters::Depthwise(shape) => self.depthwise(x, weight, bias, shape, block.before),
                };
                let (batch, channels) = (block.filters.batch(), block.filters.channels());
                let (in_height, in_width) = block.filters.out_size();
                let shape = ChannelShape { batch, channels, spatial: in_height * in_width };
                let (y, mean, variance) = self.batch_norm_training(z, gamma, beta, shape, block.epsilon);
                let y = match (block.tail, squeeze) {
                    (Tail::Activated { squeeze: Some(hidden), .. }, Some(weights)) => {
                        let ChannelShape { batch, channels, spatial } = shape;
                        self.squeeze_excitation(y, weights, SqueezeShape { batch, spatial, channels, hidden })
                    }
                    _ => y,
                };
                let y = match (block.tail, residual) {
                    (Tail::Activated { activation, .. }, Some(residual)) => self.add(y, residual, activation),
                    (Tail::Activated { activation, .. }, None) => self.activation(y, activation),
                    (Tail::Pooled { size, rate, key }, _) => {
                        let pooling = PoolingShape { batch, channels, in_height, in_width, size, stride: size };
                        let y = self.pool(y, Pooling::Max, pooling);
                        if rate > 0.0 { self.dropout(y, rate, key) } else { y }
                    }
                };
                (y, mean, variance)
            }
        }
    }

    /// Fully connected layer with bias and activation: `x` `[batch, inputs]`, `weight` `[inputs * outputs]` (row-major
    /// `[inputs, outputs]`), `bias` `[outputs]`; gives `[batch, outputs]`.
    pub fn dense(
        self,
        x: Tensor<2>,
        weight: Tensor<1>,
        bias: Tensor<1>,
        shape: DenseShape,
        activation: Activation,
    ) -> Tensor<2> {
        match self {
            Self::Kernels => Tensor::from_dispatch(Dispatch::dense(
                x.into_dispatch(),
                weight.into_dispatch(),
                bias.into_dispatch(),
                shape,
                activation,
            )),
            Self::Stock => stock::dense(x, weight, bias, shape, activation),
        }
    }

    /// Batch normalisation with the statistics of this batch. Gives the output, the mean and the biased variance, both
    /// `[channels]`; no gradient flows through the last two.
    pub fn batch_norm_training(
        self,
        x: Tensor<2>,
        gamma: Tensor<1>,
        beta: Tensor<1>,
        shape: ChannelShape,
        epsilon: f32,
    ) -> (Tensor<2>, Tensor<1>, Tensor<1>) {
        match self {
            Self::Kernels => {
                let (y, mean, variance) = Dispatch::batch_norm_training(
                    x.into_dispatch(),
                    gamma.into_dispatch(),
                    beta.into_dispatch(),
                    shape,
                    epsilon,
                );
                (Tensor::from_dispatch(y), Tensor::from_dispatch(mean), Tensor::from_dispatch(variance))
            }
            Self::Stock => stock::batch_norm_training(x, gamma, beta, shape, epsilon),
        }
    }

    /// Pooling over windows that stay inside the plane; `x` `[batch, height * width * channels]`.
    pub fn pool(self, x: Tensor<2>, pooling: Pooling, shape: PoolingShape) -> Tensor<2> {
        match self {
            Self::Kernels => Tensor::from_dispatch(Dispatch::pool(x.into_dispatch(), pooling, shape)),
            Self::Stock => stock::pool(x, pooling, shape),
        }
    }

    /// The mean of each channel: `x` `[batch, spatial * channels]`; gives `[batch, channels]`.
    pub fn global_average_pool(self, x: Tensor<2>, shape: ChannelShape) -> Tensor<2> {
        match self {
            Self::Kernels => Tensor::from_dispatch(Dispatch::global_average_pool(x.into_dispatch(), shape)),
            Self::Stock => {
                let ChannelShape { batch, channels, spatial } = shape;
                x.reshape([batch, spatial, channels]).mean_dim(1).reshape([batch, channels])
            }
        }
    }

    /// Squeeze and excitation (Hu et al. 2018): `x` `[batch, spatial * channels]`; `weights` are `W1` `[channels * hidden]`,
    /// `b1` `[hidden]`, `W2` `[hidden * channels]` and `b2` `[channels]`; gives the shape of `x`.
    pub fn squeeze_excitation(self, x: Tensor<2>, weights: [Tensor<1>; 4], shape: SqueezeShape) -> Tensor<2> {
        match self {
            Self::Kernels => {
                let [squeeze, squeeze_bias, excitation, excitation_bias] = weights.map(Tensor::into_dispatch);
                Tensor::from_dispatch(Dispatch::squeeze_excitation(
                    x.into_dispatch(),
                    squeeze,
                    squeeze_bias,
                    excitation,
                    excitation_bias,
                    shape,
                ))
            }
            Self::Stock => stock::squeeze_excitation(x, weights, shape),
        }
    }

    /// `activation(x + y)`, the end of a residual layer; both `[batch, values]`. The sum is Burn's on every device.
    pub fn add(self, x: Tensor<2>, y: Tensor<2>, activation: Activation) -> Tensor<2> {
        let sum = x + y;
        if activation == Activation::Linear { sum } else { self.activation(sum, activation) }
    }

    /// Dropout whose mask is a function of `key` and the position alone; survivors are scaled by `1 / (1 - rate)`.
    pub fn dropout(self, x: Tensor<2>, rate: f32, key: u64) -> Tensor<2> {
        match self {
            Self::Kernels => Tensor::from_dispatch(Dispatch::dropout(x.into_dispatch(), rate, key)),
            Self::Stock => stock::dropout(x, rate, key),
        }
    }

    /// An activation on its own.
    pub fn activation(self, x: Tensor<2>, activation: Activation) -> Tensor<2> {
        match self {
            Self::Kernels => Tensor::from_dispatch(Dispatch::activation(x.into_dispatch(), activation)),
            Self::Stock => stock::activation(x, activation),
        }
    }

    /// Softmax and categorical cross-entropy, `sum_i w_i * (-sum_c t_ic log p_ic) / batch`.
    ///
    /// `logits` and `targets` `[batch, classes]`, `weights` `[batch]`. Gives the loss `[1]` and the probabilities
    /// `[batch, classes]`; no gradient flows through the latter.
    pub fn cross_entropy(
        self,
        logits: Tensor<2>,
        targets: Tensor<2>,
        weights: Tensor<1>,
        classes: usize,
    ) -> (Tensor<1>, Tensor<2>) {
        match self {
            Self::Kernels => {
                let (loss, probabilities) = Dispatch::cross_entropy(
                    logits.into_dispatch(),
                    targets.into_dispatch(),
                    weights.into_dispatch(),
                    classes,
                );
                (Tensor::from_dispatch(loss), Tensor::from_dispatch(probabilities))
            }
            Self::Stock => stock::cross_entropy(logits, targets, weights),
        }
    }

    /// `sum(x^2)` as `[1]`, the L2 penalty before its factor.
    pub fn squared_sum(self, x: Tensor<1>) -> Tensor<1> {
        match self {
            Self::Kernels => Tensor::from_dispatch(Dispatch::squared_sum(x.into_dispatch())),
            Self::Stock => x.powi_scalar(2).sum(),
        }
    }

    /// One Adam update; see [`AdamUpdate`]. Gives the parameter and both moments.
    pub fn adam(
        self,
        parameter: Tensor<1>,
        gradient: Tensor<1>,
        moments: [Tensor<1>; 2],
        update: AdamUpdate,
    ) -> (Tensor<1>, [Tensor<1>; 2]) {
        let [first, second] = moments;
        match self {
            Self::Kernels => {
                let (parameter, first, second) = Dispatch::adam(
                    parameter.into_dispatch(),
                    gradient.into_dispatch(),
                    first.into_dispatch(),
                    second.into_dispatch(),
                    update,
                );
                (Tensor::from_dispatch(parameter), [Tensor::from_dispatch(first), Tensor::from_dispatch(second)])
            }
            Self::Stock => stock::adam(parameter, gradient, first, second, update),
        }
    }

    /// One update of Muon for a matrix of `[rows, columns]`; see [`MuonUpdate`]. Gives the parameter and the velocity.
    pub fn muon(
        self,
        parameter: Tensor<1>,
        gradient: Tensor<1>,
        velocity: Tensor<1>,
        shape: [usize; 2],
        update: MuonUpdate,
    ) -> (Tensor<1>, Tensor<1>) {
        match self {
            Self::Kernels => {
                let (parameter, velocity) = Dispatch::muon(
                    parameter.into_dispatch(),
                    gradient.into_dispatch(),
                    velocity.into_dispatch(),
                    shape,
                    update,
                );
                (Tensor::from_dispatch(parameter), Tensor::from_dispatch(velocity))
            }
            Self::Stock => stock::muon(parameter, gradient, velocity, shape, update),
        }
    }

    /// One update of SGD with momentum; see [`SgdUpdate`]. Gives the parameter and the velocity.
    pub fn sgd(
        self,
        parameter: Tensor<1>,
        gradient: Tensor<1>,
        velocity: Tensor<1>,
        update: SgdUpdate,
    ) -> (Tensor<1>, Tensor<1>) {
        match self {
            Self::Kernels => {
                let (parameter, velocity) = Dispatch::sgd(
                    parameter.into_dispatch(),
                    gradient.into_dispatch(),
                    velocity.into_dispatch(),
                    update,
                );
                (Tensor::from_dispatch(parameter), Tensor::from_dispatch(velocity))
            }
            Self::Stock => stock::sgd(parameter, gradient, velocity, update),
        }
    }
}
