//! The ways to compute a convolution, and which of them should be fastest.
//!
//! In: a shape. Out: an [`Algorithm`], which packs weights and runs. What it computes with lies in `direct` and `winograd`.

use super::transform::{Forward, Transform};
use super::winograd::Finish;
use super::{ConvolutionShape, direct, winograd};
use crate::simd::InstructionSet;

/// A way to compute a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// From the definition.
    Direct,
    /// Winograd's F(2 x 2, 3 x 3).
    Winograd2,
    /// Winograd's F(3 x 3, 3 x 3).
    Winograd3,
    /// Winograd's F(4 x 4, 3 x 3).
    Winograd4,
    /// Winograd's F(6 x 6, 3 x 3).
    Winograd6,
    /// Winograd's F(7 x 7, 3 x 3).
    Winograd7,
    /// Winograd's F(2 x 2, 5 x 5).
    Winograd2Of5,
    /// Winograd's F(4 x 4, 5 x 5).
    Winograd4Of5,
    /// Winograd's F(3 x 3, 3 x 3) with stride 2, phase by phase, for an odd padding.
    Winograd3By2,
}

/// Calls `$call` with the transform `T` of a Winograd algorithm, or gives `$direct`.
macro_rules! by_algorithm {
    ($algorithm:expr, $direct:expr, $transform:ident => $call:expr) => {
        match $algorithm {
            Algorithm::Direct => $direct,
            Algorithm::Winograd2 => {
                type $transform = $crate::convolution::transform::F2;
                $call
            }
            Algorithm::Winograd3 => {
                type $transform = $crate::convolution::transform::F3;
                $call
            }
            Algorithm::Winograd4 => {
                type $transform = $crate::convolution::transform::F4;
                $call
            }
            Algorithm::Winograd6 => {
                type $transform = $crate::convolution::transform::F6;
                $call
            }
            Algorithm::Winograd7 => {
                type $transform = $crate::convolution::transform::F7;
                $call
            }
            Algorithm::Winograd2Of5 => {
                type $transform = $crate::convolution::transform::F2Of5;
                $call
            }
            Algorithm::Winograd4Of5 => {
                type $transform = $crate::convolution::transform::F4Of5;
                $call
            }
            Algorithm::Winograd3By2 => {
                type $transform = $crate::convolution::transform::F3By2;
                $call
            }
        }
    };
}

pub(super) use by_algorithm;

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Direct,
        Self::Winograd2,
        Self::Winograd3,
        Self::Winograd4,
        Self::Winograd6,
        Self::Winograd7,
        Self::Winograd2Of5,
        Self::Winograd4Of5,
        Self::Winograd3By2,
    ];

    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Winograd2 => "F(2)",
            Self::Winograd3 => "F(3)",
            Self::Winograd4 => "F(4)",
            Self::Winograd6 => "F(6)",
            Self::Winograd7 => "F(7)",
            Self::Winograd2Of5 => "F(2, 5)",
            Self::Winograd4Of5 => "F(4, 5)",
            Self::Winograd3By2 => "F(3) / 2",
        }
    }

    /// Bound of the error, relative to the largest output, or to a tenth of the largest product where all sums cancel. It
    /// holds for sums of up to some thousand products, and for gradients of weights of up to 150,000, as 64 images of 48 x
    /// 48 pixels make them: products of one size, of one sign or of either.
    pub fn tolerance(self) -> f64 {
        match self {
            Self::Direct | Self::Winograd2 | Self::Winograd3By2 => 5e-6,
            Self::Winograd3 | Self::Winograd4 | Self::Winograd2Of5 => 5e-5,
            Self::Winograd6 | Self::Winograd4Of5 => 1e-4,
            Self::Winograd7 => 2e-4,
        }
    }

    /// Whether it can compute this convolution.
    pub fn can(self, shape: &ConvolutionShape) -> bool {
        let (taps, stride) = by_algorithm!(self, return true, T => (<T as Transform>::TAPS, <T as Forward>::STRIDE));
        (shape.kernel_height, shape.kernel_width, shape.stride) == (taps, taps, stride)
            && (stride == 1 || shape.padding % 2 == 1)
    }

    /// Whether it can pool its outputs on the way: its tiles then hold whole windows.
    pub(super) fn pools(self) -> bool {
        by_algorithm!(self, true, T => <T as Transform>::OUTPUTS.is_multiple_of(2))
    }

    /// The one that should be fastest where weights change from call to call, as in training.
    pub fn choose(shape: &ConvolutionShape) -> Self {
        Self::cheapest(shape, 25.0, |_| true)
    }

    /// The one that should be fastest with weights that were made ready before: they are only read.
    /// With `pool` it can pool.
    pub(super) fn choose_prepared(shape: &ConvolutionShape, pool: bool) -> Self {
        Self::cheapest(shape, 4.0, |algorithm| !pool || algorithm.pools())
    }

    /// The one that should be fastest, by a cost model whose constants were measured: a multiply-add of the product at
    /// a point costs 1; transforming one number at one point, of an input or an output, costs what `transform` says;
    /// one transformed weight costs `weight`, to make it and bring it back from memory, or only that; a multiply-add of
    /// the direct way costs 1.1.
    fn cheapest(shape: &ConvolutionShape, weight: f64, suits: impl Fn(Self) -> bool) -> Self {
        let (inputs, outputs) = (shape.in_channels as f64, shape.out_channels as f64);
        let cost = |algorithm: Self| {
            let direct = 1.1 * shape.multiply_adds() as f64;
            let (size, points) =
                by_algorithm!(algorithm, return direct, T => (<T as Transform>::OUTPUTS, <T as Transform>::POINTS));
            // By the sums that a transform takes; that of F(7) so that it is taken where it was faster in a trial.
            let transform = match algorithm {
                Self::Winograd2 | Self::Winograd3By2 => 8.0,
                Self::Winograd6 | Self::Winograd4Of5 => 17.0,
                Self::Winograd7 => 21.0,
                _ => 12.0,
            };
            let (high, wide) = (shape.out_height().div_ceil(size), shape.out_width().div_ceil(size));
            let tiles = shape.batch as f64 * high as f64 * wide as f64;
            let points = (points * points) as f64;
            // Vectors are whole: few channels cost as much as sixteen.
            let (wide_in, wide_out) = (inputs.max(16.0), outputs.max(16.0));
            points * (tiles * (inputs * wide_out + transform * (wide_in + wide_out)) + weight * inputs * wide_out)
        };
        let possible = Self::ALL.into_iter().filter(|&algorithm| algorithm.can(shape) && suits(algorithm));
        possible.min_by(|&a, &b| cost(a).total_cmp(&cost(b))).unwrap_or(Self::Direct)
    }

    /// The one for the gradient of the input, which is a convolution with inputs and outputs exchanged.
    pub(crate) fn of_input_gradient(shape: &ConvolutionShape) -> Self {
        if shape.in_height == 0 || shape.in_width == 0 {
            return Self::Direct;
        }
        if shape.stride != 1 || shape.kernel_height != shape.kernel_width {
            // As many products as the forward pass has, in as many tiles.
            return Self::choose(shape);
        }
        Self::choose(&ConvolutionShape {
            in_channels: shape.out_channels,
            out_channels: shape.in_channels,
            in_height: shape.out_height(),
            in_width: shape.out_width(),
            // As the choice sees it: an output for each of our inputs.
            padding: (shape.kernel_height - 1).saturating_sub(shape.padding),
            ..*shape
        })
    }

    pub(super) fn packed_len(self, shape: &ConvolutionShape) -> usize {
        let (inputs, outputs) = (shape.in_channels, shape.out_channels);
        by_algorithm!(self, direct::weight_len(shape.patch_length(), outputs), T => winograd::weight_len::<T>(inputs, outputs))
    }

    pub(super) fn pack(self, set: InstructionSet, shape: &ConvolutionShape, weight: &[f32], packed: &mut [f32]) {
        let (inputs, outputs) = (shape.in_channels, shape.out_channels);
        by_algorithm!(self, direct::pack_weights(shape, weight, packed),
            T => winograd::transform_weights::<T>(set, inputs, outputs, weight, packed));
    }

    pub(super) fn run(
        self,
        set: InstructionSet,
        shape: &ConvolutionShape,
        x: &[f32],
        packed: &[f32],
        finish: Finish,
        y: &mut [f32],
    ) {
        by_algorithm!(self, direct::forward(set, shape, x, packed, finish, y),
            T => winograd::forward::<T>(set, &shape.tiling(), x, packed, finish, false, y));
    }
}
