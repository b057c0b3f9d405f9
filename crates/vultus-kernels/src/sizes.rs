//! Numbers of elements, that never wrap round.
//!
//! In: numbers of images, rows, channels and the like. Out: how many elements they make. Raw pointers are only followed
//! where a slice was found to be as long as such a number says; one that had wrapped round would be met by a short slice.

/// The product of `sizes`.
///
/// # Panics
/// If it does not fit a `usize`: no slice is so long.
#[track_caller]
pub(crate) fn elements<const N: usize>(sizes: [usize; N]) -> usize {
    let product = sizes.iter().try_fold(1, |product: usize, &size| product.checked_mul(size));
    product.unwrap_or_else(|| panic!("{sizes:?} make more elements than can be counted"))
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::elements;
    use crate::activation::Activation;
    use crate::batch_norm::{self, NormShape};
    use crate::convolution::{self, Algorithm, ConvolutionShape};
    use crate::depthwise::{self, DepthwiseShape};
    use crate::norm_pool::NormPoolShape;
    use crate::pooling::{self, PoolingShape};
    use crate::simd::InstructionSet;
    use crate::squeeze_excitation::SqueezeShape;
    use crate::{dense, muon, softmax};

    /// Two of them make one more than a `usize` counts.
    const HALF: usize = 1 << (usize::BITS / 2);
    const LINEAR: Activation = Activation::Linear;

    #[test]
    fn what_fits_is_multiplied() {
        assert_eq!(elements([3, 5, 7]), 105);
        assert_eq!(elements([HALF, 0, HALF, HALF]), 0);
        assert_eq!(elements([HALF, HALF / 2]), HALF / 2 * HALF);
    }

    /// Asserts that `call` panics about a number of elements, or of places.
    #[track_caller]
    fn refused<R>(what: &str, call: impl FnOnce() -> R) {
        let error = catch_unwind(AssertUnwindSafe(call)).err().unwrap_or_else(|| panic!("{what} was not refused"));
        let message = error.downcast_ref::<String>().expect("a message");
        assert!(message.contains("than can be counted"), "{what}: {message}");
    }

    /// One picture so large that the number of its pixels wraps round to zero, of which one output is made.
    const WRAPS: ConvolutionShape = ConvolutionShape {
        batch: 1,
        in_channels: 1,
        in_height: HALF,
        in_width: HALF,
        out_channels: 1,
        kernel_height: 1,
        kernel_width: 1,
        stride: HALF,
        padding: 0,
    };

    #[test]
    fn a_convolution_of_more_pixels_than_can_be_counted_is_refused() {
        assert_eq!(WRAPS.output_len(), 1);
        refused("the input", || WRAPS.input_len());
        refused("the weights", || ConvolutionShape { in_channels: HALF, out_channels: HALF, ..WRAPS }.weight_len());
        refused("the output", || ConvolutionShape { stride: 1, ..WRAPS }.output_len());
        let (mut y, mut dweight) = ([0.0], [0.0]);
        refused("forward", || convolution::forward(&WRAPS, &[], &[1.0], None, LINEAR, &mut y));
        refused("dx", || convolution::input_gradient(&WRAPS, &[1.0], &[1.0], &mut []));
        refused("dweight", || convolution::weight_gradient(&WRAPS, &[], &[1.0], &mut dweight));
        refused("prepared", || {
            convolution::Prepared::new(&WRAPS, &[1.0], &[0.0], LINEAR, false).run(1, &[], None, &mut y)
        });
    }

    /// The picture is one pixel and the outputs four; the frame of zeros around it is what wraps round.
    #[test]
    fn a_frame_of_more_pixels_than_can_be_counted_is_refused() {
        // Four of them, so that one task takes all rows of a picture.
        let batch = 4;
        let frame = ConvolutionShape { batch, in_height: 1, in_width: 1, stride: HALF - 1, padding: HALF / 2, ..WRAPS };
        assert_eq!((frame.input_len(), frame.output_len()), (4, 16));
        let (direct, set) = (Algorithm::Direct, InstructionSet::best());
        let (x, dy, mut y, mut dweight) = ([1.0; 4], [1.0; 16], [0.0; 16], [0.0]);
        refused("forward", || convolution::forward_by(direct, set, &frame, &x, &[1.0], None, LINEAR, &mut y));
        refused("dweight", || convolution::weight_gradient_by(direct, set, &frame, &x, &dy, &mut dweight));
        refused("padding", || ConvolutionShape { padding: usize::MAX / 2 + 1, ..WRAPS }.output_len());
        refused("places", || ConvolutionShape { padding: usize::MAX / 4, ..WRAPS }.output_len());
    }

    #[test]
    fn other_layers_of_more_elements_than_can_be_counted_are_refused() {
        let depthwise = DepthwiseShape {
            batch: 1,
            channels: 1,
            in_height: HALF,
            in_width: HALF,
            kernel: 1,
            stride: HALF,
            padding: 0,
        };
        let mut y = [0.0];
        refused("depthwise", || depthwise::forward(&depthwise, &[], &[1.0], None, LINEAR, &mut y));
        refused("depthwise dx", || depthwise::input_gradient(&depthwise, &[1.0], &[1.0], &mut []));
        let (in_height, in_width) = (HALF, HALF);
        let pool = PoolingShape { batch: 1, channels: 1, in_height, in_width, size: 1, stride: HALF };
        refused("max pooling", || pooling::max_forward(&pool, &[], &mut y, None));
        refused("average pooling", || pooling::average_forward(&pool, &[], &mut y));
        refused("global mean", || pooling::global_average_forward(HALF, 1, HALF, &[], &mut []));
        let (rows, channels) = (HALF, HALF);
        refused("norm", || batch_norm::statistics(&NormShape { rows, channels }, &[], &mut [], &mut []));
        let pooled = NormPoolShape { batch: 1, height: HALF, width: HALF, channels: 1, size: HALF };
        refused("norm and pooling", || pooled.input_len());
        refused("squeeze", || SqueezeShape { batch: 1, spatial: HALF, channels, hidden: 1 }.len());
        refused("dense", || dense::forward(HALF, HALF, 1, &[], &[], &[1.0], LINEAR, &mut []));
        refused("orthogonal", || muon::orthogonalize(HALF, HALF, &mut []));
        refused("softmax", || softmax::cross_entropy_forward(usize::MAX, &[], &[], &[1.0, 1.0], &mut []));
    }
}
