//! Arithmetic of small convolutional networks on plain `f32` slices.
//!
//! In: contiguous, row-major slices (images are `[batch, height, width, channels]`) and their sizes. Out: slices that
//! the caller owns. Every forward pass has the backward pass beside it, written by hand:
//!
//! 1. [`convolution`], [`depthwise`] and [`dense`]: the layers with weights, bias and [`activation`] fused in;
//! 2. [`batch_norm`], [`pooling`], [`dropout`], [`squeeze_excitation`]: the layers between them; [`norm_pool`] and
//!    [`norm_squeeze`], several in one; [`block`], with the convolution in front; [`sum`], where gradients of two ways
//!    meet;
//! 3. [`softmax`]: probabilities and the weighted cross-entropy;
//! 4. [`optimizer`]: Adam and SGD, one pass over memory a step; [`muon`]: Muon.
//!
//! Around them: [`simd`], the instructions that they use; [`threads`], which they run on; [`aligned`], memory for them; [`peak`], what the
//! machine could do.
//!
//! Three promises hold everywhere. Results do not depend on the number of threads: work is cut by shape alone and
//! partial sums meet in a fixed order. NaN and infinities propagate, so that a diverged training shows. No large
//! buffer is allocated per image: scratch memory is kept by each thread.
//!
//! Where a module speaks of the report, it is "Math 156 Project Report", a course report on classifying facial
//! expressions, with its [notebook](https://github.com/jessiejzhou/math_156_final_project).
//!
//! The crate knows no tensor library, no image and no file. Slices of a wrong length are a fault of the caller and
//! panic at the public edge.

#![warn(clippy::undocumented_unsafe_blocks)]
#![allow(clippy::needless_range_loop, reason = "loops over rows, points and vectors index several arrays at once")]

pub mod activation;
pub mod aligned;
pub mod batch_norm;
pub mod block;
pub mod convolution;
pub mod dense;
pub mod depthwise;
pub mod dropout;
pub mod muon;
pub mod norm_pool;
pub mod norm_squeeze;
pub mod optimizer;
pub mod peak;
pub mod pooling;
pub mod softmax;
pub mod squeeze_excitation;
pub mod sum;
pub mod threads;

mod filters;
mod panel;
mod scratch;
mod shared;
pub mod simd;
mod sizes;
mod transpose;

#[cfg(test)]
mod testing;

/// Elements that one parallel task of an element-wise pass works on. Fixed, so that results never depend on the
/// number of threads; 64 KB, so that a task stays in the first two cache levels.
const ELEMENTS_PER_TASK: usize = 16 * 1024;
