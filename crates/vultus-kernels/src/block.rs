//! A convolution, its batch norm and what follows, forward and backward: the unit that networks are made of.
//!
//! In: images `[batch, height, width, channels]`. Out: the block's output, the convolution's and the winners of pooling, or
//! all gradients. The batch
//! goes through in parts of a few megabytes, and each part through all that can be done with it while most of it is in the cache:
//! the convolution and the sums for the norm's statistics; on the way back the gradient of the norm, that of the weights
//! and that of the input. The gradient between norm and convolution never exists as a whole. A convolution of few inputs
//! is computed again instead of kept (`thin_block`).

mod grey_windows;
mod thin_block;

use std::ops::Range;

use self::thin_block::ThinBlock;
use crate::activation::Activation;
use crate::batch_norm::{self, Norm, Statistics};
use crate::dropout::Dropout;
pub use crate::filters::Filters;
use crate::norm_pool::{self, NormPoolShape, WindowSums};
use crate::norm_squeeze::{self, Squeezed};
use crate::scratch::Scratch;
use crate::simd::InstructionSet;
use crate::squeeze_excitation::{SqueezeShape, WeightGradients, Weights};
use crate::sum::Sum;

/// Numbers of the convolution's output in a part of the forward pass, about: 4 MB, which the statistics find in a cache.
const FORWARD_NUMBERS: usize = 1024 * 1024;
/// Numbers of that output in a part of the backward pass, about: 8 MB. Each part starts several kernels, which took longer with
/// twice as many parts than what larger ones read from farther away.
const BACKWARD_NUMBERS: usize = 2 * 1024 * 1024;

/// What follows a block's batch norm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Tail {
    /// An activation, of the sum with a residual where there is one.
    Activated {
        /// Units of a squeeze and excitation in front of the sum, if there is one.
        squeeze: Option<usize>,
        /// Whether a residual is added.
        residual: bool,
        /// Applied to the sum.
        activation: Activation,
    },
    /// Max pooling and dropout.
    Pooled {
        /// Rows and columns of a window.
        size: usize,
        /// Probability of zero; 0 is off.
        rate: f32,
        /// Decides the mask.
        key: u64,
    },
}

/// A convolution, a batch norm with the statistics of the batch, and what follows it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Block {
    /// The convolution.
    pub filters: Filters,
    /// Whether it has a bias.
    pub biased: bool,
    /// Its activation: linear or ReLU.
    pub before: Activation,
    /// Added to the variance before the root.
    pub epsilon: f32,
    /// What follows.
    pub tail: Tail,
}

/// What goes into a block.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// `[batch, in_height, in_width, in]`.
    pub x: &'a [f32],
    /// `[kernel_height, kernel_width, in, out]`, or `[kernel, kernel, out]` of a depthwise convolution.
    pub weight: &'a [f32],
    /// `[out]`; read if the block is biased.
    pub bias: &'a [f32],
    /// `[out]`.
    pub gamma: &'a [f32],
    /// `[out]`.
    pub beta: &'a [f32],
    /// As long as the output; read if the block adds one.
    pub residual: &'a [f32],
    /// Read if the block has a squeeze and excitation.
    pub squeeze: Weights<'a>,
}

/// What the forward pass gives; all is overwritten.
#[derive(Debug)]
pub struct Outputs<'a> {
    /// The convolution's output, [`Block::kept_len`] numbers.
    pub z: &'a mut [f32],
    /// What wins each window of pooling, as [`norm_pool::winners`] has it, [`Block::winners_len`] numbers.
    pub winners: &'a mut [f32],
    /// The block's, [`Block::output_len`] numbers.
    pub y: &'a mut [f32],
    /// Of `z`, `[out]`.
    pub mean: &'a mut [f32],
    /// Biased, of `z`, `[out]`.
    pub variance: &'a mut [f32],
}

/// What the backward pass needs of the forward pass.
#[derive(Clone, Copy, Debug)]
pub struct Kept<'a> {
    /// The convolution's output.
    pub z: &'a [f32],
    /// What won each window of pooling.
    pub winners: &'a [f32],
    /// The block's, if [`Block::needs_output`].
    pub y: &'a [f32],
    /// `[out]`.
    pub mean: &'a [f32],
    /// `[out]`.
    pub variance: &'a [f32],
    /// What [`Block::forward`] returned.
    pub squeezed: Option<&'a Squeezed>,
}

/// Where the gradient of a block's input goes, and what else goes there: sums of whole tensors cost as much as a norm, sums of
/// parts in the cache next to nothing.
#[derive(Debug)]
pub struct InputGradient<'a> {
    /// As long as the input.
    pub dx: &'a mut [f32],
    /// Whether `dx` holds a gradient that came to the input by another way, to which ours is added; else it is overwritten.
    pub added: bool,
    /// Whether the block's input is its residual, too, so that the gradient of that is added here and needs no room of its own.
    pub is_residual: bool,
}

impl<'a> From<&'a mut [f32]> for InputGradient<'a> {
    /// Of the block alone.
    fn from(dx: &'a mut [f32]) -> Self {
        Self { dx, added: false, is_residual: false }
    }
}

/// Where gradients go; all but the input's are overwritten.
#[derive(Debug)]
pub struct BlockGradients<'a> {
    /// Of the input, where wanted.
    pub dx: Option<InputGradient<'a>>,
    /// Of the weights.
    pub dweight: &'a mut [f32],
    /// Of the bias, where there is one.
    pub dbias: Option<&'a mut [f32]>,
    /// Of the norm's scale.
    pub dgamma: &'a mut [f32],
    /// Of the norm's shift.
    pub dbeta: &'a mut [f32],
    /// Of the residual, where there is one.
    pub dresidual: Option<&'a mut [f32]>,
    /// Of the weights of the squeeze and excitation, where there is one.
    pub squeeze: Option<WeightGradients<'a>>,
}

/// Parts of about `most` numbers of a batch of images of `numbers` numbers each; even, so that two cores share them well.
fn parts(batch: usize, numbers: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let parts = batch.div_ceil((most / numbers.max(1)).max(2));
    let each = batch.div_ceil(parts.max(1)).next_multiple_of(2);
    (0..batch).step_by(each.max(1)).map(move |first| first..batch.min(first + each))
}

/// The numbers of some images.
fn of(images: &Range<usize>, batch: usize, numbers: usize) -> Range<usize> {
    let image = numbers / batch;
    images.start * image..images.end * image
}

/// The last pass of a tail's gradient.
enum Backward<'a> {
    Activated(batch_norm::Backward<'a>),
    Pooled(norm_pool::Backward<'a>),
}

impl Backward<'_> {
    /// The gradient of the convolution's bias, once that of the whole batch was asked for.
    fn bias(&self, dbias: &mut [f32]) {
        match self {
            Self::Activated(backward) => backward.bias(dbias),
            Self::Pooled(backward) => backward.bias(dbias),
        }
    }
}

impl Block {
    /// Numbers of the convolution's output that are kept: none where it is computed again.
    pub fn kept_len(&self) -> usize {
        if ThinBlock::new(self).is_some() { 0 } else { self.filters.output_len() }
    }

    /// Numbers of what wins each window of pooling; none without pooling.
    pub fn winners_len(&self) -> usize {
        if matches!(self.tail, Tail::Pooled { .. }) { self.output_len() } else { 0 }
    }

    /// Numbers of the output.
    pub fn output_len(&self) -> usize {
        match self.tail {
            Tail::Activated { .. } => self.filters.output_len(),
            Tail::Pooled { size, .. } => self.filters.pooled(size).output_len(),
        }
    }

    /// Whether the backward pass reads the output.
    pub fn needs_output(&self) -> bool {
        match self.tail {
            Tail::Activated { residual, activation, .. } => match activation {
                Activation::Linear => false,
                Activation::Relu => residual,
                _ => true,
            },
            Tail::Pooled { .. } => false,
        }
    }

    fn bias<'a>(&self, inputs: &Inputs<'a>) -> Option<&'a [f32]> {
        self.biased.then_some(inputs.bias)
    }

    fn squeeze_shape(&self, hidden: usize) -> SqueezeShape {
        let (height, width) = self.filters.out_size();
        SqueezeShape { batch: self.filters.batch(), spatial: height * width, channels: self.filters.channels(), hidden }
    }

    /// The output, and what the backward pass needs of a squeeze and excitation.
    ///
    /// # Panics
    /// If a slice has another length than its shape, the input has no channels, a window does not fit, or the
    /// convolution's activation is neither linear nor ReLU.
    pub fn forward(&self, inputs: &Inputs, outputs: Outputs) -> Option<Squeezed> {
        let (shape, channels) = (self.filters.norm(), self.filters.channels());
        assert_eq!(inputs.x.len(), self.filters.input_len(), "length of x");
        assert_eq!(outputs.z.len(), self.kept_len(), "length of z");
        assert_eq!(outputs.winners.len(), self.winners_len(), "length of the winners");
        assert_eq!(outputs.y.len(), self.output_len(), "length of y");
        assert_eq!(outputs.mean.len(), channels, "length of mean");
        assert_eq!(outputs.variance.len(), channels, "length of variance");
        if let Some(thin) = ThinBlock::new(self) {
            thin.forward(inputs, outputs);
            return None;
        }
        let Outputs { z, winners, y, mean, variance } = outputs;
        let Inputs { gamma, beta, .. } = *inputs;
        let mut statistics = match self.tail {
            Tail::Activated { squeeze: Some(hidden), .. } => norm_squeeze::statistics(&self.squeeze_shape(hidden)),
            _ => {
                let parts = parts(self.filters.batch(), self.pixels() * channels, FORWARD_NUMBERS).count();
                Statistics::new(InstructionSet::best(), channels, shape.task_rows(), shape.rows, parts)
            }
        };
        self.convolve(inputs, z, |images, z| {
            statistics.add(z);
            if let Tail::Pooled { size, .. } = self.tail {
                let shape = NormPoolShape { batch: images.len(), ..self.filters.pooled(size) };
                let winners_len = winners.len();
                norm_pool::winners(&shape, z, gamma, &mut winners[of(&images, self.filters.batch(), winners_len)]);
            }
        });
        if shape.is_empty() {
            mean.fill(0.0);
            variance.fill(0.0);
        } else {
            statistics.finish(mean, variance);
        }
        let norm = Norm { gamma, beta, mean, variance, epsilon: self.epsilon };
        match self.tail {
            Tail::Activated { squeeze, residual, activation } => {
                let residual = residual.then_some(inputs.residual);
                match squeeze {
                    Some(hidden) => {
                        let (shape, weights) = (&self.squeeze_shape(hidden), &inputs.squeeze);
                        let squeezed =
                            norm_squeeze::forward(shape, &statistics, z, &norm, weights, residual, activation, y);
                        return Some(squeezed);
                    }
                    None => batch_norm::forward(&shape, z, &norm, residual, activation, y),
                }
            }
            Tail::Pooled { size, rate, key } => {
                norm_pool::forward(&self.filters.pooled(size), winners, &norm, Dropout { rate, key }, y);
            }
        }
        None
    }

    /// The convolution, part by part; `then` sees the images and the output of each part.
    fn convolve(&self, inputs: &Inputs, z: &mut [f32], mut then: impl FnMut(Range<usize>, &[f32])) {
        if z.is_empty() {
            return;
        }
        let (batch, wide) = (self.filters.batch(), z.len());
        let pass = self.filters.forward(inputs.weight, self.bias(inputs), self.before);
        for images in parts(batch, wide / batch, FORWARD_NUMBERS) {
            let z = &mut z[of(&images, batch, wide)];
            pass.run(images.len(), &inputs.x[of(&images, batch, inputs.x.len())], z);
            then(images, z);
        }
    }

    /// All gradients, from `dy`, the gradient that arrives at the output.
    ///
    /// # Panics
    /// As [`Block::forward`], and if something is missing that the block has.
    pub fn backward(&self, inputs: &Inputs, kept: &Kept, dy: &[f32], gradients: BlockGradients) {
        let x = inputs.x;
        self.check_backward(x, kept, dy, &gradients);
        let Kept { mean, variance, .. } = *kept;
        let norm = &Norm { gamma: inputs.gamma, beta: inputs.beta, mean, variance, epsilon: self.epsilon };
        norm.check(self.filters.channels());
        let thin = ThinBlock::new(self);
        if let (Some(thin), None) = (&thin, &gradients.dx) {
            return thin.backward(inputs, kept.winners, norm, dy, gradients);
        }
        // Somebody wants the gradient of a first layer's input: then the whole output is needed after all.
        let again = thin.map(|_| self.convolve_again(inputs));
        let kept = &match &again {
            Some((z, winners)) => Kept { z, winners, ..*kept },
            None => *kept,
        };
        let BlockGradients { dx: mut input, dweight, dbias, dgamma, dbeta, mut dresidual, squeeze } = gradients;
        let is_residual = input.as_ref().is_some_and(|input| input.is_residual);
        let mut backward = self.backward_of_tail(inputs, kept, norm, dy, dgamma, dbeta, dbias.is_some(), squeeze);
        let (batch, wide, pixels) = (self.filters.batch(), self.filters.output_len(), self.pixels());
        let mut sums = self.filters.weight_gradient();
        let input_gradient = input.is_some().then(|| self.filters.input_gradient(inputs.weight));
        if wide == 0 {
            input.iter_mut().filter(|input| !input.added).for_each(|input| input.dx.fill(0.0));
        } else {
            for images in parts(batch, wide / batch, BACKWARD_NUMBERS) {
                let mut dz = Scratch::take(of(&images, batch, wide).len());
                let range = of(&images, batch, x.len());
                let mut into = input.as_mut().map(|input| Sum::new(&mut input.dx[range.clone()], input.added));
                match &mut backward {
                    Backward::Activated(backward) => {
                        let rows = images.start * pixels..images.end * pixels;
                        let dresidual = dresidual.as_mut().map(|dresidual| &mut dresidual[of(&images, batch, wide)]);
                        match &mut into {
                            Some(into) if is_residual => into.add(|part| backward.apply(rows, &mut dz, Some(part))),
                            _ => backward.apply(rows, &mut dz, dresidual),
                        }
                    }
                    Backward::Pooled(backward) => backward.apply(images.clone(), &mut dz),
                }
                sums.add(images.len(), &x[range], &dz);
                if let (Some(into), Some(input_gradient)) = (&mut into, &input_gradient) {
                    input_gradient.add(images.len(), &dz, into);
                }
            }
        }
        sums.finish(dweight);
        if let Some(dbias) = dbias {
            backward.bias(dbias);
        }
    }

    fn check_backward(&self, x: &[f32], kept: &Kept, dy: &[f32], gradients: &BlockGradients) {
        let BlockGradients { dx: input, dweight, dresidual, .. } = gradients;
        assert_eq!(x.len(), self.filters.input_len(), "length of x");
        assert!(input.as_ref().is_none_or(|input| input.dx.len() == x.len()), "length of dx");
        let is_residual = input.as_ref().is_some_and(|input| input.is_residual);
        let has_residual = matches!(self.tail, Tail::Activated { residual: true, .. });
        assert!(!is_residual || (has_residual && dresidual.is_none()), "a residual's gradient goes to one place");
        assert!(!is_residual || x.len() == self.filters.output_len(), "a residual is as long as the output");
        assert_eq!(dweight.len(), self.filters.weight_len(), "length of dweight");
        assert_eq!(dy.len(), self.output_len(), "length of dy");
        assert_eq!(kept.winners.len(), self.winners_len(), "length of the winners");
    }

    /// The whole output of a convolution that was not kept, and its winners: those come from it, too, so that they are
    /// found in it whichever algorithm was chosen.
    fn convolve_again(&self, inputs: &Inputs) -> (Scratch, Scratch) {
        let mut z = Scratch::take(self.filters.output_len());
        self.convolve(inputs, &mut z, |_, _| ());
        let mut winners = Scratch::take(self.winners_len());
        if let Tail::Pooled { size, .. } = self.tail {
            norm_pool::winners(&self.filters.pooled(size), &z, inputs.gamma, &mut winners);
        }
        (z, winners)
    }

    /// The backward pass of what follows the convolution, up to where the gradient of any image can be told.
    #[expect(clippy::too_many_arguments, reason = "what is read, and every slice that is written")]
    fn backward_of_tail<'a>(
        &self,
        inputs: &Inputs<'a>,
        kept: &Kept<'a>,
        norm: &'a Norm<'a>,
        dy: &'a [f32],
        dgamma: &mut [f32],
        dbeta: &mut [f32],
        biased: bool,
        squeeze: Option<WeightGradients>,
    ) -> Backward<'a> {
        let Kept { z, winners, y, squeezed, .. } = *kept;
        match self.tail {
            Tail::Activated { squeeze: hidden, residual: has_residual, activation } => {
                // An output that is not looked at: any values of its length do.
                let y = if self.needs_output() { y } else { z };
                let rows = batch_norm::Inputs { x: z, norm, activation, y, dy, before: self.before, has_residual };
                Backward::Activated(match hidden {
                    Some(hidden) => {
                        let (shape, weights) = (&self.squeeze_shape(hidden), &inputs.squeeze);
                        let squeezed = squeezed.expect("what the forward pass returned");
                        let squeeze = squeeze.expect("room for the gradients of the squeeze and excitation");
                        norm_squeeze::backward(shape, rows, weights, squeezed, dgamma, dbeta, biased, squeeze)
                    }
                    None => batch_norm::Backward::new(&self.filters.norm(), rows, dgamma, dbeta, biased),
                })
            }
            Tail::Pooled { size, rate, key } => {
                let shape = self.filters.pooled(size);
                let sums = WindowSums::new(&shape, winners, norm, Dropout { rate, key }, dy, dgamma, dbeta);
                Backward::Pooled(norm_pool::Backward::new(sums, z, self.before, biased))
            }
        }
    }

    /// Pixels of an image of the convolution's output.
    fn pixels(&self) -> usize {
        let (height, width) = self.filters.out_size();
        height * width
    }
}

#[cfg(test)]
mod tests;
