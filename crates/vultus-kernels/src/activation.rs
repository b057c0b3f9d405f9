//! Activation functions, element by element.
//!
//! In: values. Out: their image, or gradients through it computed from the *output*, so that a layer need not keep
//! its input. Softmax is no function of one element and lives in [`crate::softmax`].

use crate::ELEMENTS_PER_TASK;
use crate::threads::share_chunks;
use serde::{Deserialize, Serialize};

/// Slope of [`Activation::LeakyRelu`] below zero: the default of Keras 3's `leaky_relu` function (its layer of the
/// same name has 0.3).
pub const LEAKY_SLOPE: f32 = 0.2;

/// Numbers that a pass backward takes at once.
const IN_CACHE: usize = 2 * 1024;

/// The function applied to each output of a layer; written in lower case in configuration files (`leaky_relu`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// The value itself.
    #[default]
    Linear,
    /// `max(v, 0)`; NaN stays NaN.
    Relu,
    /// `v` above zero, [`LEAKY_SLOPE`]` * v` below.
    LeakyRelu,
    /// `v` above zero, `exp(v) - 1` below (alpha 1).
    Elu,
    /// Hyperbolic tangent.
    Tanh,
}

impl Activation {
    /// The name in configuration files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::Relu => "relu",
            Self::LeakyRelu => "leaky_relu",
            Self::Elu => "elu",
            Self::Tanh => "tanh",
        }
    }

    /// The function's value at `v`.
    #[inline]
    pub fn apply(self, v: f32) -> f32 {
        match self {
            Self::Linear => v,
            Self::Relu => relu(v),
            Self::LeakyRelu => leaky_relu(v),
            Self::Elu => elu(v),
            Self::Tanh => v.tanh(),
        }
    }

    /// The derivative at the point where the function's value is `y`. At the kink of [`Activation::Relu`] and
    /// [`Activation::LeakyRelu`] it is that of the negative side. NaN gives NaN.
    #[inline]
    pub fn derivative_from_output(self, y: f32) -> f32 {
        match self {
            Self::Linear => linear_derivative(y),
            Self::Relu => relu_derivative(y),
            Self::LeakyRelu => leaky_relu_derivative(y),
            Self::Elu => elu_derivative(y),
            Self::Tanh => tanh_derivative(y),
        }
    }

    /// Whether a fused backward pass closes its gradient where the output is zero: true for ReLU, false for the linear one.
    ///
    /// # Panics
    /// For the others, whose gradients no gate can tell.
    pub(crate) fn gates(self) -> bool {
        match self {
            Self::Linear => false,
            Self::Relu => true,
            _ => panic!("{self:?} is no activation to go back through here"),
        }
    }

    /// Replaces each element of `x` by the function's value, on all threads.
    pub fn forward(self, x: &mut [f32]) {
        if self != Self::Linear {
            share_chunks(x, ELEMENTS_PER_TASK, |_, x| self.forward_serial(x));
        }
    }

    /// Multiplies the gradient `dy` by the derivative at the outputs `y`, on all threads.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn backward(self, y: &[f32], dy: &mut [f32]) {
        assert_eq!(y.len(), dy.len(), "outputs and gradient differ in length");
        if self == Self::Linear {
            return;
        }
        share_chunks(dy, ELEMENTS_PER_TASK, |task, dy| self.multiply(&y[task * ELEMENTS_PER_TASK..][..dy.len()], dy));
    }

    /// `dx = dy * f'(y)` on all threads: the gradient in front of the function from the one behind it.
    pub(crate) fn gradient(self, y: &[f32], dy: &[f32], dx: &mut [f32]) {
        share_chunks(dx, ELEMENTS_PER_TASK, |task, dx| {
            let these = task * ELEMENTS_PER_TASK..task * ELEMENTS_PER_TASK + dx.len();
            self.backward_serial(&y[these.clone()], &dy[these], dx);
        });
    }

    /// `x = f(x)` on the calling thread.
    pub(crate) fn forward_serial(self, x: &mut [f32]) {
        fn each(x: &mut [f32], function: impl Fn(f32) -> f32) {
            x.iter_mut().for_each(|v| *v = function(*v));
        }
        // The match stands outside the loop so that loops without a call are plain ones that the compiler vectorises.
        match self {
            Self::Linear => {}
            Self::Relu => each(x, relu),
            Self::LeakyRelu => each(x, leaky_relu),
            Self::Elu => each(x, elu),
            Self::Tanh => each(x, f32::tanh),
        }
    }

    /// `dx = dy * f'(y)` on the calling thread.
    pub(crate) fn backward_serial(self, y: &[f32], dy: &[f32], dx: &mut [f32]) {
        // So few that they stay in the first-level cache.
        let parts = y.chunks(IN_CACHE).zip(dy.chunks(IN_CACHE)).zip(dx.chunks_mut(IN_CACHE));
        for ((y, dy), dx) in parts {
            dx.copy_from_slice(dy);
            self.multiply(y, dx);
        }
    }

    /// `dy = dy * f'(y)` on the calling thread.
    fn multiply(self, y: &[f32], dy: &mut [f32]) {
        fn each(y: &[f32], dy: &mut [f32], derivative: impl Fn(f32) -> f32) {
            dy.iter_mut().zip(y).for_each(|(dy, &y)| *dy *= derivative(y));
        }
        match self {
            Self::Linear => {}
            Self::Relu => each(y, dy, relu_derivative),
            Self::LeakyRelu => each(y, dy, leaky_relu_derivative),
            Self::Elu => each(y, dy, elu_derivative),
            Self::Tanh => each(y, dy, tanh_derivative),
        }
    }
}

// Comparisons are written so that NaN takes the branch that keeps it; `f32::max` would turn it into zero.

#[inline]
fn relu(v: f32) -> f32 {
    if v < 0.0 { 0.0 } else { v }
}

#[inline]
fn leaky_relu(v: f32) -> f32 {
    if v < 0.0 { LEAKY_SLOPE * v } else { v }
}

#[inline]
fn elu(v: f32) -> f32 {
    if v < 0.0 { v.exp_m1() } else { v }
}

#[inline]
fn linear_derivative(y: f32) -> f32 {
    if y.is_nan() { y } else { 1.0 }
}

#[inline]
fn relu_derivative(y: f32) -> f32 {
    if y > 0.0 {
        1.0
    } else if y <= 0.0 {
        0.0
    } else {
        y
    }
}

#[inline]
fn leaky_relu_derivative(y: f32) -> f32 {
    if y > 0.0 {
        1.0
    } else if y <= 0.0 {
        LEAKY_SLOPE
    } else {
        y
    }
}

#[inline]
fn elu_derivative(y: f32) -> f32 {
    if y > 0.0 { 1.0 } else { y + 1.0 }
}

#[inline]
fn tanh_derivative(y: f32) -> f32 {
    1.0 - y * y
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{activate, numbers, same_for_any_thread_count};

    const ALL: [Activation; 5] =
        [Activation::Linear, Activation::Relu, Activation::LeakyRelu, Activation::Elu, Activation::Tanh];

    #[test]
    fn values_and_derivatives_follow_the_definition() {
        for activation in ALL {
            for v in numbers(3, 200).into_iter().map(|v| 4.0 * v) {
                let y = activation.apply(v);
                assert!((y as f64 - activate(activation, v as f64)).abs() < 1e-6, "{activation:?} at {v}");
                let slope = (activate(activation, v as f64 + 1e-6) - activate(activation, v as f64 - 1e-6)) / 2e-6;
                let derivative = activation.derivative_from_output(y) as f64;
                assert!((derivative - slope).abs() < 1e-5, "{activation:?}: slope {derivative} at {v}, not {slope}");
            }
        }
    }

    #[test]
    fn slices_equal_elements_for_any_thread_count() {
        let x = numbers(4, 3 * ELEMENTS_PER_TASK + 5);
        for activation in ALL {
            let result = same_for_any_thread_count(|| {
                let mut y = x.clone();
                activation.forward(&mut y);
                let mut gradient = vec![2.0; y.len()];
                activation.backward(&y, &mut gradient);
                y.extend(gradient);
                y
            });
            for (index, &v) in x.iter().enumerate() {
                assert_eq!(result[index], activation.apply(v));
                assert_eq!(result[x.len() + index], 2.0 * activation.derivative_from_output(result[index]));
            }
        }
    }

    #[test]
    fn nan_and_infinity_propagate() {
        let slopes_at_infinity = [(1.0, 1.0), (1.0, 0.0), (1.0, LEAKY_SLOPE), (1.0, 0.0), (0.0, 0.0)];
        for (activation, slopes) in ALL.into_iter().zip(slopes_at_infinity) {
            let mut y = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
            activation.forward(&mut y);
            assert!(y[0].is_nan() && activation.derivative_from_output(y[0]).is_nan(), "{activation:?}");
            for (y, v, slope) in [(y[1], f64::INFINITY, slopes.0), (y[2], f64::NEG_INFINITY, slopes.1)] {
                assert_eq!(f64::from(y), activate(activation, v), "{activation:?} at {v}");
                assert_eq!(activation.derivative_from_output(y), slope, "{activation:?} at {v}");
            }
            for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut gradient = [0.0; 2];
                activation.backward_serial(&[0.0, 0.5], &[value; 2], &mut gradient);
                assert!(gradient.iter().all(|gradient| !gradient.is_finite()), "{activation:?}: {gradient:?}");
            }
        }
    }
}
