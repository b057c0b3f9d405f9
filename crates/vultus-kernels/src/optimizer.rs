//! Optimiser updates: Adam and SGD with momentum, as Keras writes them, each in one pass over memory.
//!
//! In: a tensor's parameter, gradient and state slices, all of one length. Out: the same parameter and state slices,
//! updated in place. Schedules, penalties, how much weights decay, and how much clipping scales a gradient down are the
//! caller's.

use crate::ELEMENTS_PER_TASK;
use crate::simd::{InstructionSet, Kernel, Lanes};
use crate::threads::share_items;

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
    /// Multiplies the parameter first: 1, or what decay leaves of it (Loshchilov and Hutter 2019).
    pub kept: f32,
}

/// One step of Adam in Keras' form, with the bias correction in the step size (so that `epsilon` is not corrected):
/// `alpha = learning_rate * sqrt(1 - beta2^step) / (1 - beta1^step)`, `m += (1 - beta1)(g - m)`,
/// `v += (1 - beta2)(g^2 - v)`, `p = kept * p - alpha * m / (sqrt(v) + epsilon)`.
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
    let moments = first_moment.chunks_mut(ELEMENTS_PER_TASK).zip(second_moment.chunks_mut(ELEMENTS_PER_TASK));
    let values = parameter.chunks_mut(ELEMENTS_PER_TASK).zip(gradient.chunks(ELEMENTS_PER_TASK));
    share_items(values.zip(moments), |_, ((parameter, gradient), (first, second))| {
        let (epsilon, scale, kept) = (update.epsilon, update.scale, update.kept);
        set.run(Adam { alpha, pace1, pace2, epsilon, scale, kept, parameter, gradient, first, second });
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
    kept: f32,
    parameter: &'a mut [f32],
    gradient: &'a [f32],
    first: &'a mut [f32],
    second: &'a mut [f32],
}

impl Kernel for Adam<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self { alpha, pace1, pace2, epsilon, scale, kept, parameter, gradient, first, second } = self;
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
                L::load_within(parameter, index, length).times(kept).sub(step).store_within(parameter, index, length);
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
    /// Multiplies the parameter first: 1, or what decay leaves of it.
    pub kept: f32,
}

/// One step of SGD in Keras' form: `v = momentum * v - learning_rate * g`, then `p = kept * p + v`, or with Nesterov
/// `p = kept * p + momentum * v - learning_rate * g`.
///
/// # Panics
/// If the slices differ in length.
pub fn sgd(update: &SgdUpdate, parameter: &mut [f32], gradient: &[f32], velocity: &mut [f32]) {
    assert_eq!(gradient.len(), parameter.len(), "length of gradient");
    assert_eq!(velocity.len(), parameter.len(), "length of velocity");
    let set = InstructionSet::best();
    let values = parameter.chunks_mut(ELEMENTS_PER_TASK).zip(gradient.chunks(ELEMENTS_PER_TASK));
    share_items(values.zip(velocity.chunks_mut(ELEMENTS_PER_TASK)), |_, ((parameter, gradient), velocity)| {
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
        let SgdUpdate { learning_rate, momentum, nesterov, scale, kept } = *update;
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
                L::load_within(parameter, index, length).times(kept).add(step).store_within(parameter, index, length);
            }
        }
    }
}

/// Sum of the squares, in double precision and in an order that the length alone decides.
pub fn squared_sum(x: &[f32]) -> f64 {
    let mut parts = vec![0.0; x.len().div_ceil(ELEMENTS_PER_TASK)];
    share_items(parts.iter_mut().zip(x.chunks(ELEMENTS_PER_TASK)), |_, (part, x)| *part = squared_sum_serial(x));
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
    use crate::testing::{
        assert_close, assert_shows, numbers, same_for_any_thread_count, widen, with_each_input_broken,
        with_every_instruction_set,
    };
    use proptest::prelude::*;

    const ADAM: AdamUpdate =
        AdamUpdate { learning_rate: 0.01, beta1: 0.9, beta2: 0.999, epsilon: 1e-7, step: 1, scale: 1.0, kept: 1.0 };

    /// Parameter, gradient and moments of one step, the gradient left as it is. In Kingma and Ba's form with corrected moments;
    /// equal to Keras' up to the epsilon.
    fn adam_reference(update: &AdamUpdate, [parameter, gradient, first, second]: &mut [Vec<f64>; 4]) {
        let (beta1, beta2) = (f64::from(update.beta1), f64::from(update.beta2));
        let rest = |beta: f64| 1.0 - beta.powi(update.step as i32);
        let (epsilon, rate) = (f64::from(update.epsilon) / rest(beta2).sqrt(), f64::from(update.learning_rate));
        for (index, g) in gradient.iter().map(|g| f64::from(update.scale) * g).enumerate() {
            first[index] = beta1 * first[index] + (1.0 - beta1) * g;
            second[index] = beta2 * second[index] + (1.0 - beta2) * g * g;
            parameter[index] *= f64::from(update.kept);
            parameter[index] -= rate * first[index] / rest(beta1) / ((second[index] / rest(beta2)).sqrt() + epsilon);
        }
    }

    /// Parameter, gradient and velocity of one step, the gradient left as it is.
    fn sgd_reference(update: &SgdUpdate, [parameter, gradient, velocity]: &mut [Vec<f64>; 3]) {
        let [rate, momentum, scale] = [update.learning_rate, update.momentum, update.scale].map(f64::from);
        for (index, g) in gradient.iter().map(|g| scale * g).enumerate() {
            velocity[index] = momentum * velocity[index] - rate * g;
            let step = if update.nesterov { momentum * velocity[index] - rate * g } else { velocity[index] };
            parameter[index] = f64::from(update.kept) * parameter[index] + step;
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn updates_equal_the_formulas_over_several_steps(
            length in 1_usize..200, seed in 0_u64..1000, [scale, kept] in [prop_oneof![Just(1.0_f32), 0.01_f32..1.0], prop_oneof![Just(1.0_f32), 0.9_f32..1.0]],
            beta1 in 0.5_f32..0.95, beta2 in 0.9_f32..0.9999,
            momentum in prop_oneof![Just(0.0_f32), 0.1_f32..0.99], nesterov in any::<bool>(),
        ) {
            with_every_instruction_set(|| {
                let start = [numbers(seed, length), vec![0.0; length], vec![0.0; length], vec![0.0; length]];
                let mut wide = start.each_ref().map(|values| widen(values));
                let [mut parameter, _, mut first, mut second] = start.clone();
                for step in 1..=5 {
                    let (gradient, update) = (numbers(seed + step, length), AdamUpdate { step, scale, kept, beta1, beta2, ..ADAM });
                    adam(&update, &mut parameter, &gradient, &mut first, &mut second);
                    wide[1] = widen(&gradient);
                    adam_reference(&update, &mut wide);
                }
                for (found, expected) in [&parameter, &first, &second].into_iter().zip([&wide[0], &wide[2], &wide[3]]) {
                    assert_close(found, expected, 2e-6);
                }
                let [mut parameter, _, mut velocity, _] = start;
                let mut wide = [&parameter, &velocity, &velocity].map(|values| widen(values));
                for step in 1..=5 {
                    let gradient = numbers(seed + step, length);
                    let update = SgdUpdate { learning_rate: 0.1, momentum, nesterov, scale, kept };
                    sgd(&update, &mut parameter, &gradient, &mut velocity);
                    wide[1] = widen(&gradient);
                    sgd_reference(&update, &mut wide);
                }
                assert_close(&parameter, &wide[0], 1e-6);
                assert_close(&velocity, &wide[2], 1e-6);
            });
        }

        #[test]
        fn squared_sums_equal_the_definition(length in 0_usize..2 * ELEMENTS_PER_TASK, seed in 0_u64..1000) {
            let x = numbers(seed, length);
            let expected: f64 = widen(&x).iter().map(|x| x * x).sum();
            prop_assert!((squared_sum(&x) - expected).abs() <= 1e-12 * expected);
        }
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
                    kept: 0.9,
                    parameter: &mut parameter,
                    gradient: &gradient,
                    first: &mut first,
                    second: &mut second,
                });
                for nesterov in [false, true] {
                    let update = &SgdUpdate { learning_rate: 0.1, momentum: 0.9, nesterov, scale: 0.7, kept: 1.0 };
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
            let update = SgdUpdate { learning_rate: 0.1, momentum, nesterov, scale: 1.0, kept: 1.0 };
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
            let update = SgdUpdate { learning_rate: 0.1, momentum: 0.9, nesterov: true, scale, kept: 1.0 };
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
            let update = SgdUpdate { learning_rate: 0.1, momentum: 0.9, nesterov: true, scale: 1.0, kept: 1.0 };
            sgd(&update, &mut parameter, &gradient, &mut first);
            let sum = squared_sum(&parameter);
            parameter.extend([sum as f32, (sum - sum as f32 as f64) as f32]);
            parameter
        });
    }

    #[test]
    fn what_is_no_number_shows_wherever_the_formulas_have_it() {
        let positive = numbers(4, 21).into_iter().map(f32::abs).collect();
        with_each_input_broken([numbers(1, 21), numbers(2, 21), numbers(3, 21), positive], [20; 4], |_, inputs| {
            let update = AdamUpdate { step: 3, ..ADAM };
            let mut expected = inputs.each_ref().map(|values| widen(values));
            adam_reference(&update, &mut expected);
            with_every_instruction_set(|| {
                let [mut parameter, gradient, mut first, mut second] = inputs.clone();
                adam(&update, &mut parameter, &gradient, &mut first, &mut second);
                // Where the second moment is infinite, Keras' form of its update is NaN, and the parameter with it.
                let may = |place| place == 20 && inputs[3][20].is_infinite();
                assert_shows(&parameter, &expected[0], may);
                assert_shows(&first, &expected[2], may);
                assert_shows(&second, &expected[3], may);
            });
        });
        with_each_input_broken([numbers(1, 21), numbers(2, 21), numbers(3, 21)], [20; 3], |broken, inputs| {
            for nesterov in [false, true] {
                let update = SgdUpdate { learning_rate: 0.1, momentum: 0.9, nesterov, scale: 1.0, kept: 1.0 };
                let mut expected = inputs.each_ref().map(|values| widen(values));
                sgd_reference(&update, &mut expected);
                with_every_instruction_set(|| {
                    let [mut parameter, gradient, mut velocity] = inputs.clone();
                    sgd(&update, &mut parameter, &gradient, &mut velocity);
                    assert_shows(&parameter, &expected[0], |_| false);
                    assert_shows(&velocity, &expected[2], |_| false);
                });
            }
            assert!(!squared_sum(&inputs[broken]).is_finite());
        });
    }
}
