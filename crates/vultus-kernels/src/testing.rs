//! What the tests of all kernels share: reproducible numbers, comparison with `f64` references, finite differences, and
//! what becomes of values that are no finite number.

use rayon::ThreadPoolBuilder;

use crate::activation::Activation;
use crate::simd::InstructionSet;
use crate::threads::lead;

/// `length` reproducible numbers in -1..1.
pub(crate) fn numbers(seed: u64, length: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x1234_5678_9abc_def1);
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
        })
        .collect()
}

/// The same numbers in double precision.
pub(crate) fn widen(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| value as f64).collect()
}

/// Asserts `|actual - expected| <= tolerance * largest |expected|` everywhere. Where the largest is below a tenth, it is a
/// sum of terms of about one that cancel, and no more exact: then a tenth counts.
#[track_caller]
pub(crate) fn assert_close(actual: &[f32], expected: &[f64], tolerance: f64) {
    let scale = expected.iter().fold(0.1_f64, |largest, value| largest.max(value.abs()));
    assert_within(actual, expected, tolerance * scale);
}

/// Asserts `|actual - expected| <= bound` everywhere: for sums whose terms cancel, so that they are small and their errors
/// are not.
#[track_caller]
pub(crate) fn assert_within(actual: &[f32], expected: &[f64], bound: f64) {
    assert_eq!(actual.len(), expected.len());
    for (index, (&actual, &expected)) in actual.iter().zip(expected).enumerate() {
        let difference = (actual as f64 - expected).abs();
        assert!(difference <= bound, "element {index}: {actual} instead of {expected} +- {bound}");
    }
}

/// Calls `check` with one of the `inputs` broken at its one of `places`: with each of them, and each value that is no finite
/// number. The first argument says which it is. Empty inputs stay whole.
pub(crate) fn with_each_input_broken<const N: usize>(
    inputs: [Vec<f32>; N],
    places: [usize; N],
    check: impl Fn(usize, &[Vec<f32>; N]),
) {
    for index in (0..N).filter(|&index| !inputs[index].is_empty()) {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            println!("with {value} in input {index}"); // shown if the check fails
            let mut broken = inputs.clone();
            broken[index][places[index]] = value;
            check(index, &broken);
        }
    }
}

/// Asserts that `actual` is no finite number wherever `expected` is none. Elsewhere it must come near it, but where it `may`
/// be anything: where rearranged sums bring in what the definition does not.
#[track_caller]
pub(crate) fn assert_shows(actual: &[f32], expected: &[f64], may: impl Fn(usize) -> bool) {
    assert_eq!(actual.len(), expected.len());
    let finite = expected.iter().filter(|value| value.is_finite());
    let bound = 1e-3 * finite.fold(0.1_f64, |largest, value| largest.max(value.abs()));
    for (place, (&actual, &expected)) in actual.iter().zip(expected).enumerate() {
        let shows = if expected.is_finite() {
            may(place) || (f64::from(actual) - expected).abs() <= bound
        } else {
            !actual.is_finite()
        };
        assert!(shows, "element {place}: {actual} instead of {expected}");
    }
}

/// An activation in double precision; NaN stays NaN.
pub(crate) fn activate(activation: Activation, v: f64) -> f64 {
    match activation {
        Activation::Relu if v < 0.0 => 0.0,
        Activation::LeakyRelu if v < 0.0 => 0.2 * v,
        Activation::Elu if v < 0.0 => v.exp() - 1.0,
        Activation::Tanh => v.tanh(),
        _ => v,
    }
}

/// The gradient in front of an activation, from its output and the gradient behind it: nothing passes a closed ReLU, also
/// no NaN.
pub(crate) fn pass_back(activation: Activation, y: f32, dy: f64) -> f64 {
    match activation {
        Activation::Linear => dy,
        Activation::Relu if y <= 0.0 => 0.0,
        _ => dy * f64::from(activation.derivative_from_output(y)),
    }
}

/// Runs `compute` on one, two and five threads, with and without a team, asserts equal bits, and returns the result.
#[track_caller]
pub(crate) fn same_for_any_thread_count(compute: impl Fn() -> Vec<f32> + Sync) -> Vec<f32> {
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    let pool = |threads| ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let alone = pool(1).install(&compute);
    for threads in [2, 5] {
        let (apart, team) = pool(threads).install(|| (compute(), lead(&compute)));
        assert_eq!(bits(&alone), bits(&apart), "{threads} threads give another result than one");
        assert_eq!(bits(&alone), bits(&team), "a team of {threads} threads gives another result than one thread");
    }
    alone
}

/// Runs `check` once with each instruction set of this machine as the best.
pub(crate) fn with_every_instruction_set(check: impl Fn()) {
    for set in InstructionSet::available() {
        println!("with {} instructions", set.name()); // shown if the check fails
        set.as_best(&check);
    }
}

/// Central differences of `function` at `values`, one for each element.
pub(crate) fn finite_differences(values: &[f64], function: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let step = 1e-6;
    let mut moved = values.to_vec();
    (0..values.len())
        .map(|index| {
            moved[index] = values[index] + step;
            let above = function(&moved);
            moved[index] = values[index] - step;
            let below = function(&moved);
            moved[index] = values[index];
            (above - below) / (2.0 * step)
        })
        .collect()
}

/// The inner product that turns an output and a direction into a scalar.
pub(crate) fn dot(output: &[f64], direction: &[f32]) -> f64 {
    output.iter().zip(direction).map(|(&output, &direction)| output * direction as f64).sum()
}
