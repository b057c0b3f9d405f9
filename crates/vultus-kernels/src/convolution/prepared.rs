//! Convolutions made ready for inference.
//!
//! In: weights, once. Out: outputs for any number of images, with bias, residual, activation and pooling in the same pass.

use super::winograd::Finish;
use super::{Algorithm, ConvolutionShape};
use crate::activation::Activation;
use crate::aligned::Aligned;
use crate::simd::InstructionSet;
use crate::sizes::elements;

/// A convolution made ready for inference: weights packed for the algorithm that the batch size calls for.
#[derive(Clone)]
pub struct Prepared {
    /// Shape of one image.
    shape: ConvolutionShape,
    algorithm: Algorithm,
    packed: Aligned,
    bias: Vec<f32>,
    activation: Activation,
    pool: bool,
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { shape, algorithm, activation, pool, .. } = self;
        write!(f, "Prepared {{ {shape:?}, {algorithm:?}, {activation:?}, pool: {pool} }}")
    }
}

impl Prepared {
    /// Packs `weight` `[kernel_height, kernel_width, in_channels, out_channels]` for batches of about `shape.batch`
    /// images. With `pool` the output is what a 2 x 2 max pooling leaves of it; the activation must then be one that
    /// never decreases, as all of ours are.
    ///
    /// # Panics
    /// If a slice has another length than its shape, or the input has no channels.
    pub fn new(shape: &ConvolutionShape, weight: &[f32], bias: &[f32], activation: Activation, pool: bool) -> Self {
        assert_eq!(weight.len(), shape.weight_len(), "length of weight");
        assert_eq!(bias.len(), shape.out_channels, "length of bias");
        let used = if pool {
            // The choice should not count what pooling drops: the picture is cut to whole windows.
            let cut = |input: usize, output: usize| input - output % 2 * shape.stride.min(input);
            ConvolutionShape {
                in_height: cut(shape.in_height, shape.out_height()),
                in_width: cut(shape.in_width, shape.out_width()),
                ..*shape
            }
        } else {
            *shape
        };
        let fits = used.in_height + 2 * used.padding >= used.kernel_height
            && used.in_width + 2 * used.padding >= used.kernel_width;
        let algorithm = Algorithm::choose_prepared(if fits { &used } else { shape }, pool);
        Self::new_by(algorithm, shape, weight, bias, activation, pool)
    }

    /// [`Prepared::new`] by a given algorithm, which can compute the shape and, where asked for, pool.
    pub(super) fn new_by(
        algorithm: Algorithm,
        shape: &ConvolutionShape,
        weight: &[f32],
        bias: &[f32],
        activation: Activation,
        pool: bool,
    ) -> Self {
        let mut packed = Aligned::zeros(algorithm.packed_len(shape));
        algorithm.pack(InstructionSet::best(), shape, weight, &mut packed);
        Self {
            shape: ConvolutionShape { batch: 1, ..*shape },
            algorithm,
            packed,
            bias: bias.to_vec(),
            activation,
            pool,
        }
    }

    /// How it computes.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Numbers that go in for one image.
    pub fn input_len(&self) -> usize {
        self.shape.input_len()
    }

    /// Numbers that come out for one image.
    pub fn output_len(&self) -> usize {
        let (height, width) = (self.shape.out_height(), self.shape.out_width());
        let (height, width) = if self.pool { (height / 2, width / 2) } else { (height, width) };
        elements([self.shape.out_channels, height, width])
    }

    /// `y = activation(convolution(x) + bias + residual)`, for any number of images.
    ///
    /// # Panics
    /// If a slice has another length than its shape, or if there is a residual where the output is pooled.
    pub fn run(&self, batch: usize, x: &[f32], residual: Option<&[f32]>, y: &mut [f32]) {
        let shape = ConvolutionShape { batch, ..self.shape };
        assert_eq!(x.len(), shape.input_len(), "length of x");
        assert_eq!(y.len(), elements([batch, self.output_len()]), "length of y");
        if y.is_empty() {
            return;
        }
        let relu = self.activation == Activation::Relu;
        let finish = Finish { bias: Some(&self.bias), residual, relu, pool: self.pool };
        self.algorithm.run(InstructionSet::best(), &shape, x, &self.packed, finish, y);
        if !relu {
            self.activation.forward(y);
        }
    }
}
