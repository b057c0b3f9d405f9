//! The temperature at which a model's probabilities fit what happens (Guo et al. 2017, "On calibration of modern neural
//! networks", section 4.2).
//!
//! In: probabilities and labels of images that the model was not trained on. Out: the temperature with the lowest log loss.
//! [`vultus::inference`] applies it.

use vultus::inference::sharpen;

use crate::evaluate::cross_entropy;

/// With fewer validating images than this, the temperature that is fitted and the epoch that is chosen depend much on chance.
pub const FEW_IMAGES: usize = 200;

/// Logarithms of the lowest and the highest temperature looked at.
const RANGE: (f64, f64) = (-2.0, 3.0);

/// Width of the last interval in the logarithm.
const PRECISION: f64 = 1e-4;

/// The temperature for `probabilities` `[n, classes]` (made at temperature 1) with the lowest mean log loss of `labels`;
/// 1 where there are none. The loss has one minimum (it is convex in `1 / temperature`, and flat where all is lost), so that a
/// golden-section search finds it.
pub fn fit_temperature(probabilities: &[f32], labels: &[usize]) -> f32 {
    if labels.is_empty() {
        return 1.0;
    }
    let loss = |logarithm: f64| log_loss(probabilities, labels, logarithm.exp() as f32);
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
            "temperature {temperature:.3}: one beyond the range that is looked at would fit the images better still"
        )
    })
}

fn log_loss(probabilities: &[f32], labels: &[usize], temperature: f32) -> f64 {
    let classes = probabilities.len() / labels.len();
    let mut sharpened = probabilities.to_vec();
    sharpen(&mut sharpened, classes, temperature);
    let losses = sharpened.chunks_exact(classes).zip(labels);
    losses.map(|(row, &label)| cross_entropy(row[label], f32::MIN_POSITIVE)).sum()
}

#[cfg(test)]
mod tests {
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
    fn probabilities_that_fit_are_left_alone() {
        let probabilities: Vec<f32> = (0..100).flat_map(|_| [0.7, 0.3]).collect();
        let labels: Vec<usize> = (0..100).map(|index| usize::from(index >= 70)).collect();
        assert!((fit_temperature(&probabilities, &labels) - 1.0).abs() < 1e-3);
    }
}
