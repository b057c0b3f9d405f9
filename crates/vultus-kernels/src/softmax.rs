//! Softmax and the weighted categorical cross-entropy, with its gradient.
//!
//! In: logits `[rows, classes]`. Out: probabilities, the loss, or the logits' gradient. Targets are probabilities (one-
//! hot, smoothed or mixed), so that label smoothing and soft labels need nothing of their own. Exponentials are taken
//! of differences to the largest logit, sums are in double precision. One row a sample: too small for threads.

use crate::sizes::elements;

/// Replaces each row of `x` `[rows, classes]` by its softmax. A row with a NaN becomes NaN.
///
/// # Panics
/// If `classes` is zero or the length is no multiple of it.
pub fn softmax_rows(classes: usize, x: &mut [f32]) {
    check_rows(classes, x);
    for row in x.chunks_exact_mut(classes) {
        let largest = largest(row);
        let total: f64 = row.iter().map(|&logit| (logit as f64 - largest).exp()).sum();
        for value in row {
            *value = ((*value as f64 - largest).exp() / total) as f32;
        }
    }
}

/// The loss `sum_i weights[i] * (-sum_c targets[i, c] * ln p[i, c]) / n` of `n` rows, with `p` the softmax of the
/// logits, which is written to `probabilities`. The mean is over rows, not over weights, as in Keras.
///
/// `logits`, `targets` and `probabilities` are `[n, classes]`, `weights` is `[n]`. No rows give 0.
///
/// # Panics
/// If a slice has another length than its shape.
pub fn cross_entropy_forward(
    classes: usize,
    logits: &[f32],
    targets: &[f32],
    weights: &[f32],
    probabilities: &mut [f32],
) -> f32 {
    check_rows(classes, logits);
    assert_eq!(targets.len(), logits.len(), "length of targets");
    assert_eq!(elements([weights.len(), classes]), logits.len(), "length of weights");
    assert_eq!(probabilities.len(), logits.len(), "length of probabilities");
    let mut loss = 0.0;
    let rows = logits.chunks_exact(classes).zip(targets.chunks_exact(classes));
    for (((logits, targets), &weight), probabilities) in rows.zip(weights).zip(probabilities.chunks_exact_mut(classes))
    {
        let largest = largest(logits);
        let total: f64 = logits.iter().map(|&logit| (logit as f64 - largest).exp()).sum();
        let log_total = total.ln();
        let mut entropy = 0.0;
        for ((&logit, &target), probability) in logits.iter().zip(targets).zip(probabilities) {
            let log_probability = logit as f64 - largest - log_total;
            *probability = log_probability.exp() as f32;
            // 0 * ln 0 counts as 0; a NaN logit still shows in the other terms, because it is the row's largest.
            if target != 0.0 {
                entropy -= target as f64 * log_probability;
            }
        }
        loss += weight as f64 * entropy;
    }
    if weights.is_empty() { 0.0 } else { (loss / weights.len() as f64) as f32 }
}

/// Gradient of [`cross_entropy_forward`] times `scale`, the gradient that arrives at the loss:
/// `dlogits[i, c] = scale * weights[i] / n * (p[i, c] * sum_k targets[i, k] - targets[i, c])`, overwritten.
///
/// # Panics
/// If a slice has another length than its shape.
pub fn cross_entropy_backward(
    classes: usize,
    probabilities: &[f32],
    targets: &[f32],
    weights: &[f32],
    scale: f32,
    dlogits: &mut [f32],
) {
    check_rows(classes, probabilities);
    assert_eq!(targets.len(), probabilities.len(), "length of targets");
    assert_eq!(elements([weights.len(), classes]), probabilities.len(), "length of weights");
    assert_eq!(dlogits.len(), probabilities.len(), "length of dlogits");
    let rows = probabilities.chunks_exact(classes).zip(targets.chunks_exact(classes));
    for (((probabilities, targets), &weight), dlogits) in rows.zip(weights).zip(dlogits.chunks_exact_mut(classes)) {
        let factor = scale * weight / weights.len() as f32;
        let mass: f32 = targets.iter().sum();
        for ((&probability, &target), dlogit) in probabilities.iter().zip(targets).zip(dlogits) {
            *dlogit = factor * (probability * mass - target);
        }
    }
}

fn check_rows(classes: usize, values: &[f32]) {
    assert!(classes > 0, "softmax needs at least one class");
    assert!(values.len().is_multiple_of(classes), "{} values are no rows of {classes}", values.len());
}

/// The largest value of a row, or NaN if it holds one.
fn largest(row: &[f32]) -> f64 {
    let mut best = f32::NEG_INFINITY;
    for &value in row {
        if value > best || value.is_nan() {
            best = value;
        }
        if best.is_nan() {
            break;
        }
    }
    best as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, assert_shows, finite_differences, numbers, widen, with_each_input_broken};
    use proptest::prelude::*;

    /// The definition, without any care for overflow.
    fn probabilities_of(classes: usize, logits: &[f64]) -> Vec<f64> {
        let mut result = Vec::new();
        for row in logits.chunks(classes) {
            let total: f64 = row.iter().map(|logit| logit.exp()).sum();
            result.extend(row.iter().map(|logit| logit.exp() / total));
        }
        result
    }

    fn loss_of(classes: usize, logits: &[f64], targets: &[f32], weights: &[f32]) -> f64 {
        let probabilities = probabilities_of(classes, logits);
        let terms = probabilities.iter().zip(targets).enumerate();
        let total: f64 = terms.map(|(i, (p, &t))| weights[i / classes] as f64 * -(t as f64) * p.ln()).sum();
        total / weights.len() as f64
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn loss_and_gradient_equal_the_definition(rows in 1_usize..6, classes in 1_usize..9, seed in 0_u64..1000) {
            let logits: Vec<f32> = numbers(seed, rows * classes).into_iter().map(|value| 5.0 * value).collect();
            let targets: Vec<f32> = numbers(seed + 1, rows * classes).into_iter().map(f32::abs).collect();
            let weights: Vec<f32> = numbers(seed + 2, rows).into_iter().map(|value| value + 1.5).collect();
            let mut probabilities = vec![f32::NAN; logits.len()];
            let loss = cross_entropy_forward(classes, &logits, &targets, &weights, &mut probabilities);
            assert_close(&[loss], &[loss_of(classes, &widen(&logits), &targets, &weights)], 1e-6);
            assert_close(&probabilities, &probabilities_of(classes, &widen(&logits)), 1e-6);
            let mut softmax = logits.clone();
            softmax_rows(classes, &mut softmax);
            assert_close(&softmax, &widen(&probabilities), 1e-6);

            let mut dlogits = vec![f32::NAN; logits.len()];
            cross_entropy_backward(classes, &probabilities, &targets, &weights, 3.0, &mut dlogits);
            let loss = |logits: &[f64]| 3.0 * loss_of(classes, logits, &targets, &weights);
            assert_close(&dlogits, &finite_differences(&widen(&logits), loss), 1e-5);
        }
    }

    #[test]
    fn huge_logits_do_not_overflow() {
        let mut probabilities = [0.0; 3];
        let loss = cross_entropy_forward(3, &[1e4, 0.0, -1e4], &[0.0, 1.0, 0.0], &[1.0], &mut probabilities);
        assert_eq!(loss, 1e4);
        assert_eq!(probabilities, [1.0, 0.0, 0.0]);
    }

    #[test]
    fn what_is_no_number_shows_wherever_the_definition_has_it() {
        let positive = |seed, length| numbers(seed, length).iter().map(|value| value.abs() + 0.1).collect::<Vec<_>>();
        for place in 5..10 {
            let inputs = [numbers(1, 15), positive(2, 15), positive(3, 3)];
            with_each_input_broken(inputs, [place, place, 1], |_, [logits, targets, weights]| {
                let expected = probabilities_of(5, &widen(logits));
                let gradient = |(index, p): (usize, &f64)| {
                    let mass: f64 = widen(&targets[index / 5 * 5..][..5]).iter().sum();
                    f64::from(weights[index / 5]) / 3.0 * (p * mass - f64::from(targets[index]))
                };
                let (mut probabilities, mut dlogits) = ([0.0; 15], [0.0; 15]);
                let loss = cross_entropy_forward(5, logits, targets, weights, &mut probabilities);
                assert_shows(&[loss], &[loss_of(5, &widen(logits), targets, weights)], |_| false);
                cross_entropy_backward(5, &probabilities, targets, weights, 1.0, &mut dlogits);
                let mut softmax = logits.clone();
                softmax_rows(5, &mut softmax);
                // The definition has zeros beside an infinite logit; here all of its row is NaN.
                let may = |index: usize| index / 5 == 1 && logits[place] == f32::INFINITY;
                assert_shows(&probabilities, &expected, may);
                assert_shows(&softmax, &expected, may);
                assert_shows(&dlogits, &expected.iter().enumerate().map(gradient).collect::<Vec<_>>(), may);
            });
        }
    }

    #[test]
    fn no_rows_have_no_loss() {
        assert_eq!(cross_entropy_forward(3, &[], &[], &[], &mut []), 0.0);
    }
}
