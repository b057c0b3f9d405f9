//! Depthwise convolution as an operation of Burn's `flex` backend, with its hand-written backward pass.

use vultus_kernels::depthwise;

use super::*;
use crate::operations::DepthwiseShape;

/// The operation with its forward pass; the arguments are those of [`crate::operations::Operations`].
#[backend_extension(Flex, Autodiff)]
pub(crate) trait DepthwiseLayers: Backend {
    /// Without bias any tensor stands in its place.
    fn depthwise(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        biased: bool,
        shape: DepthwiseShape,
        activation: Activation,
    ) -> FloatTensor<Self>;
}

/// The backward kernel, called by what [`Autodiff`] records.
trait DepthwiseBackwards: DepthwiseLayers + Backwards {
    fn depthwise_backward(
        saved: [FloatTensor<Self>; 3],
        dy: FloatTensor<Self>,
        biased: bool,
        shape: &DepthwiseShape,
        activation: Activation,
        wants_dx: bool,
    ) -> LayerGradients<Self>;
}

impl DepthwiseLayers for Flex {
    fn depthwise(
        x: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        biased: bool,
        shape: DepthwiseShape,
        activation: Activation,
    ) -> FlexTensor {
        let (x, weight, bias) = (contiguous(x), contiguous(weight), contiguous(bias));
        let mut y = take(shape.output_len());
        let bias = biased.then(|| values(&bias));
        depthwise::forward(&shape, values(&x), values(&weight), bias, activation, &mut y);
        let width = y.len() / shape.batch;
        tensor(y, [shape.batch, width])
    }
}

impl DepthwiseBackwards for Flex {
    fn depthwise_backward(
        [x, weight, y]: [FlexTensor; 3],
        dy: FlexTensor,
        biased: bool,
        shape: &DepthwiseShape,
        activation: Activation,
        wants_dx: bool,
    ) -> LayerGradients<Self> {
        let ([x, weight, y], dy) = ([x, weight, y].map(contiguous), contiguous(dy));
        let mut dx = wants_dx.then(|| take(shape.input_len()));
        let (mut dweight, mut dbias) = (take(shape.weight_len()), biased.then(|| vec![0.0; shape.channels]));
        depthwise::backward(
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
            dbias.map(|dbias| tensor(dbias, [shape.channels])),
        ]
    }
}

impl<B: DepthwiseBackwards, C: CheckpointStrategy> DepthwiseLayers for Autodiff<B, C> {
    fn depthwise(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        biased: bool,
        shape: DepthwiseShape,
        activation: Activation,
    ) -> FloatTensor<Self> {
        let ((x, x_node), (weight, weight_node), (bias, bias_node)) =
            (x.into_parts(), weight.into_parts(), bias.into_parts());
        let y = B::depthwise(x.clone(), weight.clone(), bias, biased, shape, activation);
        let (x, kept_y) = (Kept::<B>::new(x), Kept::<B>::new(y.clone()));
        record::<B, C, 3>([x_node, weight_node, bias_node], y, move |dy, [wants_dx, ..], _| {
            let saved = [x.get(), weight.clone(), kept_y.get()];
            B::depthwise_backward(saved, dy, biased, &shape, activation, wants_dx)
        })
    }
}
