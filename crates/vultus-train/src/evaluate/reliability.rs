//! How far scores are from the shares of cases in which they come true.
//!
//! In: scores and whether each came true. Out: the bins of a reliability diagram, the expected calibration error, and what
//! of it chance alone makes. It corrects nothing (see [`crate::calibrate`]).

use std::f64::consts::FRAC_2_PI;

use serde::{Deserialize, Serialize};

use super::ratio;

/// Number of bins of equal width.
const BINS: usize = 15;

/// One-sided 95 % quantile of the normal distribution.
const NORMAL_QUANTILE_ONE_SIDED: f64 = 1.644_853_626_951_472_7;

/// One bin of the reliability diagram.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReliabilityBin {
    /// Lower edge of the top score, excluded, but for 0.
    pub low: f64,
    /// Upper edge of the top score, included.
    pub high: f64,
    /// Number of images whose top score lies in the bin.
    pub count: usize,
    /// Mean top score of those images; 0 in an empty bin.
    pub confidence: f64,
    /// Share of those images that are classified correctly; 0 in an empty bin.
    pub accuracy: f64,
}

/// Scores by size.
#[derive(Clone, Debug)]
pub struct Reliability {
    bins: [Bin; BINS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Bin {
    count: usize,
    /// Sum of the scores.
    scores: f64,
    /// Number of them that came true.
    correct: usize,
    /// Variance of that number if each score is the probability of its case.
    variance: f64,
}

impl Reliability {
    /// Of pairs of a score in 0..1 and whether it came true.
    pub fn of(cases: impl Iterator<Item = (f64, bool)>) -> Self {
        let mut bins = [Bin::default(); BINS];
        for (score, correct) in cases {
            let bin = &mut bins[bin_of(score)];
            bin.count += 1;
            bin.scores += score;
            bin.correct += usize::from(correct);
            bin.variance += (score * (1.0 - score)).max(0.0);
        }
        Self { bins }
    }

    /// The bins, in the order of their scores.
    pub fn bins(&self) -> Vec<ReliabilityBin> {
        let summary = |(index, bin): (usize, &Bin)| ReliabilityBin {
            low: ratio(index, BINS),
            high: ratio(index + 1, BINS),
            count: bin.count,
            confidence: if bin.count == 0 { 0.0 } else { bin.scores / bin.count as f64 },
            accuracy: ratio(bin.correct, bin.count),
        };
        self.bins.iter().enumerate().map(summary).collect()
    }

    /// Expected calibration error (Naeini et al. 2015): mean |share that came true - mean score| over the bins, weighted by
    /// their counts; 0 without cases.
    pub fn error(&self) -> f64 {
        let n = self.count();
        self.bins().iter().map(|bin| ratio(bin.count, n) * (bin.accuracy - bin.confidence).abs()).sum()
    }

    /// What [`Reliability::error`] stays below in about 95 of 100 samples with these scores if each score is the probability of
    /// its case. The number that comes true in a bin is taken as normal with variance v = sum(p (1 - p)): its distance from the
    /// sum of scores then has the mean sqrt(2 v / pi), the variance v (1 - 2 / pi) and the third central moment
    /// v^1.5 sqrt(2 / pi) (4 / pi - 1). Their sums over the bins give the quantile by the first terms of Cornish and Fisher's
    /// expansion (1938), which is that of one bin, too, to three digits.
    pub fn error_by_chance(&self) -> f64 {
        let (mut mean, mut variance, mut third) = (0.0, 0.0, 0.0);
        for bin in &self.bins {
            mean += (bin.variance * FRAC_2_PI).sqrt();
            variance += bin.variance * (1.0 - FRAC_2_PI);
            third += bin.variance.powf(1.5) * FRAC_2_PI.sqrt() * (2.0 * FRAC_2_PI - 1.0);
        }
        if variance == 0.0 {
            return 0.0;
        }
        let (deviation, z) = (variance.sqrt(), NORMAL_QUANTILE_ONE_SIDED);
        let skewness = third / deviation.powi(3);
        (mean + deviation * (z + skewness * (z * z - 1.0) / 6.0)) / self.count() as f64
    }

    fn count(&self) -> usize {
        self.bins.iter().map(|bin| bin.count).sum()
    }
}

/// Bin of a score: bin `i` holds scores above `i / bins` up to `(i + 1) / bins`.
fn bin_of(score: f64) -> usize {
    let edge = (score * BINS as f64).ceil() as usize;
    edge.saturating_sub(1).min(BINS - 1)
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn exact_scores_exceed_what_chance_makes_in_about_five_of_a_hundred_samples() {
        let mut random = ChaCha8Rng::seed_from_u64(5);
        // As a classifier has them, many sure and few unsure; and all in one bin.
        let mut spread = |images| (0..images).map(|_| 1.0 - 0.8 * random.random::<f64>().powi(2)).collect::<Vec<_>>();
        let cases = [spread(40), spread(300), spread(3000), vec![0.9; 300]];
        for scores in cases {
            let mut above = 0;
            for _ in 0..2000 {
                let sample = Reliability::of(scores.iter().map(|&score| (score, random.random::<f64>() < score)));
                above += usize::from(sample.error() > sample.error_by_chance());
            }
            assert!((70..=130).contains(&above), "{above} of 2000 with {} images", scores.len());
        }
    }

    #[test]
    fn scores_that_are_too_sure_exceed_it() {
        let sure = Reliability::of((0..300).map(|index| (0.9, index % 10 < 7)));
        assert!((sure.error() - 0.2).abs() < 1e-9, "{}", sure.error());
        assert!(sure.error_by_chance() < 0.04, "{}", sure.error_by_chance());
        let none = Reliability::of(std::iter::empty());
        assert_eq!((none.error(), none.error_by_chance()), (0.0, 0.0));
    }
}
