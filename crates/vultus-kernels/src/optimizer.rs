//! Optimiser updates: Adam and SGD with momentum, as Keras writes them, each in one pass over memory.
//!
//! In: a tensor's parameter, gradient and state slices, all of one length. Out: the same parameter and state slices,
//! updated in place. Schedules, penalties, and how much clipping scales a gradient down are the caller's.

use rayon::prelude::*;

use crate::ELEMENTS_PER_TASK;
use crate::simd::{InstructionSet, Kernel, Lanes};

/// What one Adam step needs to know besides the tensors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamUpdate {
    /// Step size.
    pub learning_rate: f32,
    /// Share of the first moment that is kept; Keras: 0.9.
    pub beta1: f32,
    /// Share of the second moment that is kept; Keras: 0.999.
    pub beta2: f32,
    /// Added to the root of the second moment; Keras: 1e-7.
    pub epsilon: f32,
    /// Number of this step, counted from 1.
    pub step: u64,
    /// Multiplies the gradient first: 1, or what clipping makes of it.
    pub scale: f32,
}

/// One step of Adam in Keras' form, with the bias correction in the step size (so that `epsilon` is not corrected):
/// `alpha = learning_rate * sqrt(1 - beta2^step) / (1 - beta1^step)`, `m += (1 - beta1)(g - m)`,
/// `v += (1 - beta2)(g^2 - v)`, `p -= alpha * m / (sqrt(v) + epsilon)`.
///
/// # Panics
/// If the slices differ in length or the step is 0.
pub fn adam(
    update: &AdamUpdate,
    parameter: &mut [f32],
    gradient: &[f32],
    first_moment: &mut [f32],
    second_moment: &mut [f32],
) {
    assert_eq!(gradient.len(), parameter.len(), "length of gradient");
    assert_eq!(first_moment.len(), parameter.len(), "length of first_moment");
    assert_eq!(second_moment.len(), parameter.len(), "length of second_moment");
    assert!(update.step > 0, "steps are counted from 1");
    let step = update.step as f64;
    let (beta1, beta2) = (update.beta1 as f64, update.beta2 as f64);
    let alpha = (update.learning_rate as f64 * (1.0 - beta2.powf(step)).sqrt() / (1.0 - beta1.powf(step))) as f32;
    let (pace1, pace2) = ((1.0 - beta1) as f32, (1.0 - beta2) as f32);
    let set = InstructionSet::best();
    let moments = first_moment.par_chunks_mut(ELEMENTS_PER_TASK).zip(second_moment.par_chunks_mut(ELEMENTS_PER_TASK));
    let values = parameter.par_chunks_mut(ELEMENTS_PER_TASK).zip(gradient.par_chunks(ELEMENTS_PER_TASK));
    values.zip(moments).for_each(|((parameter, gradient), (first, second))| {
        let (epsilon, scale) = (update.epsilon, update.scale);
        set.run(Adam { alpha, pace1, pace2, epsilon, scale, parameter, gradient, first, second });
    });
}

/// [`adam`] for a part of a tensor. Products are rounded before they are added, so that every instruction set gives the
/// same numbers.
struct Adam<'a> {
    alpha: f32,
    pace1: f32,
    pace2: f32,
    epsilon: f32,
    scale: f32,
    parameter: &'a mut [f32],
    gradient: &'a [f32],
    first: &'a mut [f32],
    second: &'a mut [f32],
}

impl Kernel for Adam<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self { alpha, pace1, pace2, epsilon, scale, parameter, gradient, first, second } = self;
        let length = parameter.len();
        assert!(gradient.len() == length && first.len() == length && second.len() == length);
        let (parameter, gradient) = (parameter.as_mut_ptr(), gradient.as_ptr());
        let (first, second) = (first.as_mut_ptr(), second.as_mut_ptr());
        for index in (0..length).step_by(L::WIDTH) {
            // SAFETY: all four slices hold `length` numbers, as checked above; nothing is read or written beyond.
            unsafe {
                let g = L::load_within(gradient, index, length).times(scale);
                let m = L::load_within(first, index, length);
                let m = m.add(g.sub(m).times(pace1));
                let v = L::load_within(second, index, length);
                let v = v.add(g.mul(g).sub(v).times(pace2));
                let step = m.times(alpha).div(v.sqrt().add(L::splat(epsilon)));
                m.store_within(first, index, length);
                v.store_within(second, index, length);
                L::load_within(parameter, index, length).sub(step).store_within(parameter, index, length);
            }
        }
    }
}

/// What one SGD step needs to know besides the tensors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SgdUpdate {
    /// Step size.
    pub learning_rate: f32,
    /// Share of the velocity that is kept; 0 is plain gradient descent.
    pub momentum: f32,
    /// Whether to step from where the velocity leads (Nesterov) instead of from here.
    pub nesterov: bool,
    /// Multiplies the gradient first: 1, or what clipping makes of it.
    pub scale: f32,
}

/// One step of SGD in Keras' form: `v = momentum * v - learning_rate * g`, then `p += v`, or with Nesterov
/// `p += momentum * v - learning_rate * g`.
///
/// # Panics
/// If the slices differ in length.
pub fn sgd(update: &SgdUpdate, parameter: &mut [f32], gradient: &[f32], velocity: &mut [f32]) {
    assert_eq!(gradient.len(), parameter.len(), "length of gradient");
    assert_eq!(velocity.len(), parameter.len(), "length of velocity");
    let set = InstructionSet::best();
    let values = parameter.par_chunks_mut(ELEMENTS_PER_TASK).zip(gradient.par_chunks(ELEMENTS_PER_TASK));
    values.zip(velocity.par_chunks_mut(ELEMENTS_PER_TASK)).for_each(|((parameter, gradient), velocity)| {
        set.run(Sgd { update, parameter, gradient, velocity });
    });
}

/// [`sgd`] for a part of a tensor, rounded as [`Adam`] is.
struct Sgd<'a> {
    update: &'a SgdUpdate,
    parameter: &'a mut [f32],
    gradient: &'a [f32],
    velocity: &'a mut [f32],
}

impl Kernel for Sgd<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self { update, parameter, gradient, velocity } = self;
        let SgdUpdate { learning_rate, momentum, nesterov, scale } = *update;
        let length = parameter.len();
        assert!(gradient.len() == length && velocity.len() == length);
        let (parameter, gradient, velocity) = (parameter.as_mut_ptr(), gradient.as_ptr(), velocity.as_mut_ptr());
        for index in (0..length).step_by(L::WIDTH) {
            // SAFETY: all three slices hold `length` numbers, as checked above; nothing is read or written beyond.
            unsafe {
                let downhill = L::load_within(gradient, index, length).times(scale).times(learning_rate);
                let v = L::load_within(velocity, index, length).times(momentum).sub(downhill);
                v.store_within(velocity, index, length);
                let step = if nesterov { v.times(momentum).sub(downhill) } else { v };
                L::load_within(parameter, index, length).add(step).store_within(parameter, index, length);
            }
        }
    }
}

/// Sum of the squares, in double precision and in an order that the length alone decides.
pub fn squared_sum(x: &[f32]) -> f64 {
    let parts: Vec<f64> = x.par_chunks(ELEMENTS_PER_TASK).map(squared_sum_serial).collect();
    parts.iter().sum()
}

/// [`squared_sum`] on the calling thread, in eight running sums that the compiler can keep in vector registers.
fn squared_sum_serial(x: &[f32]) -> f64 {
    let (blocks, rest) = x.as_chunks::<8>();
    let mut lanes = [0.0_f64; 8];
    for block in blocks {
        for (lane, &value) in lanes.iter_mut().zip(block) {
            *lane += value as f64 * value as f64;
        }
    }
    lanes.iter().sum::<f64>() + rest.iter().map(|&value| value as f64 * value as f64).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, numbers, same_for_any_thread_count, widen};

    const ADAM: AdamUpdate =
        AdamUpdate { learning_rate: 0.01, beta1: 0.9, beta2: 0.999, epsilon: 1e-7, step: 1, scale: 1.0 };

    #[test]
    fn adam_equals_the_formulas_over_several_steps() {
        let mut parameter = numbers(1, 100);
        let (mut first, mut second) = (vec![0.0; 100], vec![0.0; 100]);
        let (mut p, mut m, mut v) = (widen(&parameter), vec![0.0_f64; 100], vec![0.0_f64; 100]);
        let (beta1, beta2) = (f64::from(ADAM.beta1), f64::from(ADAM.beta2));
        for step in 1..=5 {
            let gradient = numbers(10 + step, 100);
            adam(&AdamUpdate { step, ..ADAM }, &mut parameter, &gradient, &mut first, &mut second);
            for (index, g) in widen(&gradient).into_iter().enumerate() {
                // Kingma and Ba's form with corrected moments; equal to Keras' up to the epsilon.
                m[index] = beta1 * m[index] + (1.0 - beta1) * g;
                v[index] = beta2 * v[index] + (1.0 - beta2) * g * g;
                let (corrected, root) = (m[index] / (1.0 - beta1.powi(step as i32)), 1.0 - beta2.powi(step as i32));
                p[index] -= 0.01 * corrected / ((v[index] / root).sqrt() + 1e-7 / root.sqrt());
            }
        }
        assert_close(&parameter, &p, 1e-6);
        assert_close(&first, &m, 1e-6);
        assert_close(&second, &v, 1e-6);
    }

    #[test]
    fn every_instruction_set_gives_the_same_numbers() {
        for length in [1, 7, 16, 45] {
            let gradient = numbers(2, length);
            let results = InstructionSet::available().into_iter().map(|set| {
                let (mut parameter, mut first, mut second) =
                    (numbers(1, length), numbers(3, length), vec![0.2; length]);
                let (alpha, pace1, pace2, epsilon, scale) = (0.01, 0.1, 0.001, 1e-7, 0.7);
                set.run(Adam {
                    alpha,
                    pace1,
                    pace2,
                    epsilon,
                    scale,
                    parameter: &mut parameter,
                    gradient: &gradient,
                    first: &mut first,
                    second: &mut second,
                });
                for nesterov in [false, true] {
                    let update = &SgdUpdate { learning_rate: 0.1, momentum: 0.9, nesterov, scale: 0.7 };
                    set.run(Sgd { update, parameter: &mut parameter, gradient: &gradient, velocity: &mut first });
                }
                [parameter, first, second].concat()
            });
            let results: Vec<_> = results.collect();
            assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "length {length}");
        }
    }

    #[test]
    fn adam_does_not_correct_epsilon() {
        // With v = 0 after a zero gradient only epsilon is left below: p -= alpha * m / epsilon.
        let (mut parameter, mut first, mut second) = ([0.0], [1e-7], [0.0]);
        adam(&AdamUpdate { step: 3, ..ADAM }, &mut parameter, &[0.0], &mut first, &mut second);
        let alpha = 0.01 * (1.0 - 0.999_f64.powi(3)).sqrt() / (1.0 - 0.9_f64.powi(3));
        assert!((parameter[0] as f64 + alpha * 0.9).abs() < 1e-6, "{}", parameter[0]);
    }

    #[test]
    fn sgd_equals_a_hand_calculation() {
        let step = |nesterov, momentum| {
            let update = SgdUpdate { learning_rate: 0.1, momentum, nesterov, scale: 1.0 };
            let (mut parameter, mut velocity) = ([1.0], [0.5]);
            sgd(&update, &mut parameter, &[2.0], &mut velocity);
            (parameter[0], velocity[0])
        };
        // v = 0.9 * 0.5 - 0.1 * 2 = 0.25; p = 1 + 0.25, or with Nesterov 1 + 0.9 * 0.25 - 0.2.
        for ((nesterov, momentum), expected) in
            [((false, 0.9), (1.25, 0.25)), ((true, 0.9), (1.025, 0.25)), ((false, 0.0), (0.8, -0.2))]
        {
            let (parameter, velocity): (f32, f32) = step(nesterov, momentum);
            assert!((parameter - expected.0).abs() < 1e-6 && (velocity - expected.1).abs() < 1e-6, "{parameter}");
        }
    }

    #[test]
    fn a_scaled_gradient_moves_as_one_that_was_smaller() {
        let (gradient, half) = (numbers(2, 40), numbers(2, 40).iter().map(|g| 0.5 * g).collect::<Vec<_>>());
        let run = |scale: f32, gradient: &[f32]| {
            let (mut parameter, mut first, mut second) = (numbers(1, 40), numbers(3, 40), vec![0.2; 40]);
            adam(&AdamUpdate { scale, ..ADAM }, &mut parameter, gradient, &mut first, &mut second);
            let update = SgdUpdate { learning_rate: 0.1, momentum: 0.9, nesterov: true, scale };
            sgd(&update, &mut parameter, gradient, &mut first);
            [parameter, first, second].concat()
        };
        assert_eq!(run(0.5, &gradient), run(1.0, &half));
    }

    #[test]
    fn results_do_not_depend_on_the_number_of_threads() {
        let length = 3 * ELEMENTS_PER_TASK + 11;
        let (start, gradient) = (numbers(1, length), numbers(2, length));
        same_for_any_thread_count(|| {
            let (mut parameter, mut first, mut second) = (start.clone(), vec![0.1; length], vec![0.2; length]);
            adam(&ADAM, &mut parameter, &gradient, &mut first, &mut second);
            let update = SgdUpdate { learning_rate: 0.1, momentum: 0.9, nesterov: true, scale: 1.0 };
            sgd(&update, &mut parameter, &gradient, &mut first);
            let sum = squared_sum(&parameter);
            parameter.extend([sum as f32, (sum - sum as f32 as f64) as f32]);
            parameter
        });
    }

    #[test]
    fn nan_in_a_gradient_reaches_the_parameter() {
        let (mut parameter, mut first, mut second) = ([1.0; 2], [0.0; 2], [0.0; 2]);
        adam(&ADAM, &mut parameter, &[f32::NAN, 1.0], &mut first, &mut second);
        assert!(parameter[0].is_nan() && parameter[1].is_finite());
        assert!(squared_sum(&[f32::NAN, 1.0]).is_nan());
        assert_eq!(squared_sum(&[3.0, 4.0]), 25.0);
    }
}
