//! Convolution, batch norm and what follows as one operation of Burn's `flex` backend, with its hand-written backward pass.

use vultus_kernels::block::{self, BlockGradients, InputGradient, Inputs, Outputs};
use vultus_kernels::norm_squeeze::Squeezed;

use super::*;
use crate::operations::buffers::era;
use crate::operations::{Block, Tail};

/// The operation with its forward pass; the arguments are those of [`crate::operations::Operations`].
#[backend_extension(Flex, Autodiff)]
pub(crate) trait BlockLayers: Backend {
    /// Without bias, residual, or squeeze and excitation any tensor stands in their place; see [`Block`].
    #[allow(clippy::too_many_arguments, reason = "an operation names every tensor that it can be differentiated by")]
    fn convolution_block(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        squeeze: FloatTensor<Self>,
        squeeze_bias: FloatTensor<Self>,
        excitation: FloatTensor<Self>,
        excitation_bias: FloatTensor<Self>,
        block: Block,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

/// What a block works on, in the order of the operation's arguments; any tensor stands in the place of what it does not
/// have.
type BlockInputs<B> = [FloatTensor<B>; 10];

/// What a block's forward pass gives, and its backward pass needs: `z` is the convolution's output (empty where it is
/// computed again), `winners` what wins each window of pooling, `y` the block's.
struct BlockOutputs<B: Backend> {
    y: FloatTensor<B>,
    mean: FloatTensor<B>,
    variance: FloatTensor<B>,
    z: FloatTensor<B>,
    winners: FloatTensor<B>,
    squeezed: Option<Arc<Squeezed>>,
}

/// What is asked of a block about the gradient of its input.
struct InputWish<B: Backend> {
    wanted: bool,
    /// Whether the input is the residual, too: their gradients are asked for as one.
    is_residual: bool,
    earlier: Earlier<B>,
}

/// The kernels, called by what [`Autodiff`] records.
trait BlockBackwards: BlockLayers + Backwards {
    fn block_recorded(inputs: BlockInputs<Self>, block: &Block) -> BlockOutputs<Self>;

    /// Gradients of the block's inputs, where it has them. An output that is not needed may be missing from `outputs`:
    /// any tensor stands in its place.
    fn block_backward(
        inputs: BlockInputs<Self>,
        outputs: BlockOutputs<Self>,
        dy: FloatTensor<Self>,
        block: &Block,
        input: InputWish<Self>,
    ) -> [Option<FloatTensor<Self>>; 10];
}

/// The tensors of a block as the kernel takes them.
fn block_inputs(inputs: &BlockInputs<Flex>) -> Inputs<'_> {
    let [x, weight, bias, gamma, beta, residual, squeeze @ ..] = inputs.each_ref().map(values);
    let [squeeze, squeeze_bias, excitation, excitation_bias] = squeeze;
    let squeeze = Weights { squeeze, squeeze_bias, excitation, excitation_bias };
    Inputs { x, weight, bias, gamma, beta, residual, squeeze }
}

impl BlockLayers for Flex {
    fn convolution_block(
        x: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        residual: FlexTensor,
        squeeze: FlexTensor,
        squeeze_bias: FlexTensor,
        excitation: FlexTensor,
        excitation_bias: FlexTensor,
        block: Block,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let inputs = [x, weight, bias, gamma, beta, residual, squeeze, squeeze_bias, excitation, excitation_bias];
        let outputs = Self::block_recorded(inputs, &block);
        give(outputs.z);
        give(outputs.winners);
        (outputs.y, outputs.mean, outputs.variance)
    }
}

impl BlockBackwards for Flex {
    fn block_recorded(inputs: BlockInputs<Self>, block: &Block) -> BlockOutputs<Self> {
        let inputs = inputs.map(contiguous);
        let (batch, channels) = (block.filters.batch(), block.filters.channels());
        let (mut z, mut y) = (take(block.kept_len()), take(block.output_len()));
        let mut winners = take(block.winners_len());
        let (mut mean, mut variance) = (vec![0.0; channels], vec![0.0; channels]);
        let outputs = Outputs { z: &mut z, winners: &mut winners, y: &mut y, mean: &mut mean, variance: &mut variance };
        let squeezed = block.forward(&block_inputs(&inputs), outputs).map(Arc::new);
        let narrow = y.len() / batch;
        let y = tensor(y, [batch, narrow]);
        let [mean, variance, z, winners] = [mean, variance, z, winners].map(flat);
        BlockOutputs { y, mean, variance, z, winners, squeezed }
    }

    fn block_backward(
        inputs: BlockInputs<Self>,
        outputs: BlockOutputs<Self>,
        dy: FlexTensor,
        block: &Block,
        input: InputWish<Self>,
    ) -> [Option<FlexTensor>; 10] {
        let (inputs, dy) = (inputs.map(contiguous), contiguous(dy));
        let BlockOutputs { y, mean, variance, z, winners, squeezed } = outputs;
        let Block { filters, biased, .. } = *block;
        let (batch, channels) = (filters.batch(), filters.channels());
        let (has_residual, hidden) = match block.tail {
            Tail::Activated { residual, squeeze, .. } => (residual, squeeze),
            Tail::Pooled { .. } => (false, None),
        };
        let InputWish { wanted, is_residual, earlier } = input;
        let added = earlier.is_some();
        let mut dx = wanted.then(|| match earlier.map(contiguous) {
            Some(earlier) => earlier,
            None => tensor(take(filters.input_len()), [batch, filters.input_len() / batch]),
        });
        let mut dweight = take(filters.weight_len());
        let mut dbias = biased.then(|| vec![0.0; channels]);
        let [mut dgamma, mut dbeta] = [(); 2].map(|()| vec![0.0; channels]);
        let mut dresidual = (has_residual && !is_residual).then(|| take(filters.output_len()));
        let mut dsqueeze = hidden
            .map(|hidden| [take(channels * hidden), vec![0.0; hidden], take(hidden * channels), vec![0.0; channels]]);
        let gradients =
            BlockGradients {
                dx: dx.as_mut().map(|dx| InputGradient { dx: dx.storage_mut(), added, is_residual }),
                dweight: &mut dweight,
                dbias: dbias.as_deref_mut(),
                dgamma: &mut dgamma,
                dbeta: &mut dbeta,
                dresidual: dresidual.as_deref_mut(),
                squeeze: dsqueeze.as_mut().map(|[squeeze, squeeze_bias, excitation, excitation_bias]| {
                    WeightGradients { squeeze, squeeze_bias, excitation, excitation_bias }
                }),
            };
        let kept = block::Kept {
            z: values(&z),
            winners: values(&winners),
            y: values(&y),
            mean: values(&mean),
            variance: values(&variance),
            squeezed: squeezed.as_deref(),
        };
        block.backward(&block_inputs(&inputs), &kept, values(&dy), gradients);
        give(dy);
        let images = |values: Vec<f32>| {
            let width = values.len() / batch;
            tensor(values, [batch, width])
        };
        let [squeeze, squeeze_bias, excitation, excitation_bias] = match dsqueeze {
            Some(gradients) => gradients.map(|gradient| Some(flat(gradient))),
            None => [const { None }; 4],
        };
        [
            dx,
            Some(flat(dweight)),
            dbias.map(flat),
            Some(flat(dgamma)),
            Some(flat(dbeta)),
            dresidual.map(images),
            squeeze,
            squeeze_bias,
            excitation,
            excitation_bias,
        ]
    }
}

impl<B: BlockBackwards, C: CheckpointStrategy> BlockLayers for Autodiff<B, C> {
    fn convolution_block(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        squeeze: FloatTensor<Self>,
        squeeze_bias: FloatTensor<Self>,
        excitation: FloatTensor<Self>,
        excitation_bias: FloatTensor<Self>,
        block: Block,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let inputs = [x, weight, bias, gamma, beta, residual, squeeze, squeeze_bias, excitation, excitation_bias];
        let parts = inputs.map(FloatTensor::<Self>::into_parts);
        let inputs = parts.each_ref().map(|(tensor, _)| tensor.clone());
        let parents = parts.map(|(_, node)| node);
        let has_residual = matches!(block.tail, Tail::Activated { residual: true, .. });
        let is_residual = has_residual && parents[0].id() == parents[5].id();
        let BlockOutputs { y, mean, variance, z, winners, squeezed } = B::block_recorded(inputs.clone(), &block);
        let constants = (FloatTensor::<Self>::new(mean.clone()), FloatTensor::<Self>::new(variance.clone()));
        let [x, weight, bias, gamma, beta, residual, squeeze @ ..] = inputs;
        // Nobody looks at the sum's other half again.
        B::recycle(residual, era());
        let [x, z, winners] = [x, z, winners].map(Kept::<B>::new);
        let kept_y = block.needs_output().then(|| Kept::<B>::new(y.clone()));
        let y = record::<B, C, 10>(parents, y, move |dy, [wanted, _, _, _, _, wants_residual, ..], earlier| {
            let outputs = BlockOutputs {
                y: kept_y.as_ref().map_or_else(|| z.get(), Kept::get),
                mean: mean.clone(),
                variance: variance.clone(),
                z: z.get(),
                winners: winners.get(),
                squeezed: squeezed.clone(),
            };
            let [squeeze, squeeze_bias, excitation, excitation_bias] = squeeze.clone();
            let (weight, bias, gamma, beta) = (weight.clone(), bias.clone(), gamma.clone(), beta.clone());
            let x = x.get();
            // The residual's values are not looked at again.
            let residual = x.clone();
            let inputs = [x, weight, bias, gamma, beta, residual, squeeze, squeeze_bias, excitation, excitation_bias];
            let input =
                InputWish { wanted, is_residual: wanted && wants_residual && is_residual, earlier: earlier.take() };
            B::block_backward(inputs, outputs, dy, &block, input)
        });
        (y, constants.0, constants.1)
    }
}
