//! The temperature at which a model's probabilities fit what happens (Guo et al. 2017, "On calibration of modern neural
//! networks", section 4.2).
//!
//! In: probabilities and labels of images that the model was not trained on. Out: the temperature with the lowest log loss.
//! [`vultus::inference`] applies it.

use vultus::inference::LEAST_PROBABILITY;

/// With fewer validating images than this, the temperature that is fitted and the epoch that is chosen depend much on chance.
pub const FEW_IMAGES: usize = 200;

/// Logarithms of the lowest and the highest temperature looked at.
const RANGE: (f64, f64) = (-2.0, 3.0);

/// Width of the last interval in the logarithm.
const PRECISION: f64 = 1e-4;

/// The temperature for `probabilities` `[n, classes]` (made at temperature 1) with the lowest mean log loss of `labels`;
/// 1 where there are none. The loss has one minimum (it is convex in `1 / temperature`), so that a golden-section search finds it.
pub fn fit_temperature(probabilities: &[f32], labels: &[usize]) -> f32 {
    if labels.is_empty() {
        return 1.0;
    }
    let loss = |logarithm: f64| log_loss(probabilities, labels, logarithm.exp());
    let golden = (5.0_f64.sqrt() - 1.0) / 2.0;
    let (mut low, mut high) = RANGE;
    while high - low > PRECISION {
        let step = golden * (high - low);
        // Of answers that are right at any lower temperature as well, with a loss that is no more than zero, the lowest.
        if loss(high - step) <= loss(low + step) { high = low + step } else { low = high - step }
    }
    ((low + high) / 2.0).exp() as f32
}

/// What is to be known of a fitted temperature at an end of the search, for want of wrong answers or of right ones.
pub fn caveat(temperature: f32) -> Option<String> {
    let logarithm = f64::from(temperature).ln();
    let is_inside = logarithm > RANGE.0 + 2.0 * PRECISION && logarithm < RANGE.1 - 2.0 * PRECISION;
    (!is_inside).then(|| {
        format!(
            "temperature {temperature:.3}: one beyond the range that is looked at would fit the images better still: they are too few, \
             or nearly all answered right, or hardly better than by guessing"
        )
    })
}

/// Of [`vultus::inference::sharpen`], in double precision and with no bound: what single precision cannot tell from 0 has to cost more
/// the lower the temperature is, or the loss has a second minimum where all such answers cost the same.
fn log_loss(probabilities: &[f32], labels: &[usize], temperature: f64) -> f64 {
    let classes = probabilities.len() / labels.len();
    let loss = |(row, &label): (&[f32], &usize)| {
        // `f32::max` would turn NaN into the other value.
        let positive = |p: f32| if p < LEAST_PROBABILITY { LEAST_PROBABILITY } else { p };
        let logits = row.iter().map(|&p| f64::from(positive(p)).ln() / temperature);
        let highest = logits.clone().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = logits.map(|logit| (logit - highest).exp()).sum();
        sum.ln() + highest - f64::from(positive(row[label])).ln() / temperature
    };
    probabilities.chunks_exact(classes).zip(labels).map(loss).sum()
}

#[cfg(test)]
mod tests {
    use vultus::inference::sharpen;

    use super::*;

    #[test]
    fn the_temperature_undoes_too_much_confidence() {
        // Of 100 answers with 0.99, 80 are right: at the temperature sought they say 0.8.
        let probabilities: Vec<f32> = (0..100).flat_map(|_| [0.99, 0.01]).collect();
        let labels: Vec<usize> = (0..100).map(|index| usize::from(index >= 80)).collect();
        let temperature = fit_temperature(&probabilities, &labels);
        let mut row = vec![0.99, 0.01];
        sharpen(&mut row, 2, temperature);
        assert!((row[0] - 0.8).abs() < 1e-3, "{temperature} {row:?}");
        assert_eq!(fit_temperature(&[], &[]), 1.0);
        assert!(caveat(temperature).is_none() && caveat(1.0).is_none());
        // So sure that the true class has nothing left: as far from it as the search goes.
        assert!(fit_temperature(&[1.0, 0.0, 0.0, 1.0], &[1, 0]) > 20.0);
        // Always right, or always wrong.
        for right in [0.6, 0.9, 0.99, 0.999] {
            let row = [right, 1.0 - right];
            let found = [0, 1].map(|label| caveat(fit_temperature(&row, &[label])));
            assert!(found.iter().all(Option::is_some), "{right}");
        }
    }

    #[test]
    fn single_answers_that_are_surely_wrong_are_not_given_up() {
        // Right 1000 times at 0.9, and wrong once by 60 nats: at the lowest temperature that one alone costs 443.
        let mut probabilities: Vec<f32> = (0..1000).flat_map(|_| [0.9, 0.1]).collect();
        probabilities.extend([1.0, (-60.0_f32).exp()]);
        let mut labels = vec![0; 1000];
        labels.push(1);
        let temperature = fit_temperature(&probabilities, &labels);
        let loss = |temperature: f64| 1000.0 * (-9.0_f64.ln() / temperature).exp().ln_1p() + 60.0 / temperature;
        let expected = (100..2000).map(|step| f64::from(step) / 1000.0).min_by(|a, b| loss(*a).total_cmp(&loss(*b)));
        assert!((f64::from(temperature) - expected.unwrap()).abs() < 2e-3, "{temperature} {expected:?}");
    }

    #[test]
    fn probabilities_that_fit_are_left_alone() {
        let probabilities: Vec<f32> = (0..100).flat_map(|_| [0.7, 0.3]).collect();
        let labels: Vec<usize> = (0..100).map(|index| usize::from(index >= 70)).collect();
        assert!((fit_temperature(&probabilities, &labels) - 1.0).abs() < 1e-3);
    }
}
