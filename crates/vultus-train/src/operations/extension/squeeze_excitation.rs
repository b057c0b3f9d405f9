//! Squeeze and excitation as an operation of Burn's `flex` backend, with its hand-written backward pass.

use vultus_kernels::squeeze_excitation::{self, Middle};

use super::*;
use crate::operations::SqueezeShape;

/// The operation with its forward pass; the arguments are those of [`crate::operations::Operations`].
#[backend_extension(Flex, Autodiff)]
pub(crate) trait SqueezeLayers: Backend {
    fn squeeze_excitation(
        x: FloatTensor<Self>,
        squeeze: FloatTensor<Self>,
        squeeze_bias: FloatTensor<Self>,
        excitation: FloatTensor<Self>,
        excitation_bias: FloatTensor<Self>,
        shape: SqueezeShape,
    ) -> FloatTensor<Self>;
}

/// The kernels with what lies between them, called by what [`Autodiff`] records. `weights` are in the order of the
/// operation's arguments.
trait SqueezeBackwards: SqueezeLayers + Backwards {
    fn squeeze_recorded(
        x: FloatTensor<Self>,
        weights: [FloatTensor<Self>; 4],
        shape: &SqueezeShape,
    ) -> (FloatTensor<Self>, Arc<Middle>);

    /// Gradients of the input, where wanted, and of the weights.
    fn squeeze_backward(
        x: FloatTensor<Self>,
        weights: [FloatTensor<Self>; 4],
        middle: &Middle,
        dy: FloatTensor<Self>,
        shape: &SqueezeShape,
        wants_dx: bool,
    ) -> [Option<FloatTensor<Self>>; 5];
}

fn weights([squeeze, squeeze_bias, excitation, excitation_bias]: &[FlexTensor; 4]) -> Weights<'_> {
    Weights {
        squeeze: values(squeeze),
        squeeze_bias: values(squeeze_bias),
        excitation: values(excitation),
        excitation_bias: values(excitation_bias),
    }
}

impl SqueezeLayers for Flex {
    fn squeeze_excitation(
        x: FlexTensor,
        squeeze: FlexTensor,
        squeeze_bias: FlexTensor,
        excitation: FlexTensor,
        excitation_bias: FlexTensor,
        shape: SqueezeShape,
    ) -> FlexTensor {
        Self::squeeze_recorded(x, [squeeze, squeeze_bias, excitation, excitation_bias], &shape).0
    }
}

impl SqueezeBackwards for Flex {
    fn squeeze_recorded(x: FlexTensor, tensors: [FlexTensor; 4], shape: &SqueezeShape) -> (FlexTensor, Arc<Middle>) {
        let (x, tensors) = (contiguous(x), tensors.map(contiguous));
        let mut y = take(shape.len());
        let middle = squeeze_excitation::forward_training(shape, values(&x), &weights(&tensors), &mut y);
        (tensor(y, [shape.batch, shape.spatial * shape.channels]), Arc::new(middle))
    }

    fn squeeze_backward(
        x: FlexTensor,
        tensors: [FlexTensor; 4],
        middle: &Middle,
        dy: FlexTensor,
        shape: &SqueezeShape,
        wants_dx: bool,
    ) -> [Option<FlexTensor>; 5] {
        let (x, tensors, dy) = (contiguous(x), tensors.map(contiguous), contiguous(dy));
        let weights = weights(&tensors);
        let mut dx = wants_dx.then(|| take(shape.len()));
        let [mut squeeze, mut excitation] = [(); 2].map(|()| take(shape.channels * shape.hidden));
        let (mut squeeze_bias, mut excitation_bias) = (vec![0.0; shape.hidden], vec![0.0; shape.channels]);
        let gradients = WeightGradients {
            squeeze: &mut squeeze,
            squeeze_bias: &mut squeeze_bias,
            excitation: &mut excitation,
            excitation_bias: &mut excitation_bias,
        };
        squeeze_excitation::backward(shape, values(&x), &weights, middle, values(&dy), dx.as_deref_mut(), gradients);
        give(dy);
        [
            dx.map(|dx| tensor(dx, [shape.batch, shape.spatial * shape.channels])),
            Some(flat(squeeze)),
            Some(flat(squeeze_bias)),
            Some(flat(excitation)),
            Some(flat(excitation_bias)),
        ]
    }
}

impl<B: SqueezeBackwards, C: CheckpointStrategy> SqueezeLayers for Autodiff<B, C> {
    fn squeeze_excitation(
        x: FloatTensor<Self>,
        squeeze: FloatTensor<Self>,
        squeeze_bias: FloatTensor<Self>,
        excitation: FloatTensor<Self>,
        excitation_bias: FloatTensor<Self>,
        shape: SqueezeShape,
    ) -> FloatTensor<Self> {
        let (x, x_node) = x.into_parts();
        let parts = [squeeze, squeeze_bias, excitation, excitation_bias].map(FloatTensor::<Self>::into_parts);
        let [first, second, third, fourth] = parts;
        let weights = [first.0, second.0, third.0, fourth.0];
        let (y, middle) = B::squeeze_recorded(x.clone(), weights.clone(), &shape);
        let x = Kept::<B>::new(x);
        record::<B, C, 5>([x_node, first.1, second.1, third.1, fourth.1], y, move |dy, [wants_dx, ..], _| {
            B::squeeze_backward(x.get(), weights.clone(), &middle, dy, &shape, wants_dx)
        })
    }
}
