//! Mean and deviation of a few results.

/// The mean.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The sample standard deviation, with n - 1 in the denominator; 0 for a single value.
pub fn standard_deviation(values: &[f64]) -> f64 {
    let centre = mean(values);
    let squares: f64 = values.iter().map(|value| (value - centre).powi(2)).sum();
    (squares / (values.len() - 1).max(1) as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_and_sample_standard_deviation() {
        // python3 -c "import statistics as s; print(s.mean([.5, .75, .25, .5]), s.stdev([.5, .75, .25, .5]))"
        let values = [0.5, 0.75, 0.25, 0.5];
        assert_eq!(mean(&values), 0.5);
        assert!((standard_deviation(&values) - 0.204_124_145_231_931_5).abs() < 1e-15);
        assert_eq!(standard_deviation(&[0.3]), 0.0);
    }
}
