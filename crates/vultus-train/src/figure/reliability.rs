//! Reliability diagram: how often a score of 80 % is right, and how the scores are spread.
//!
//! In: the reliability bins of an evaluation. Out: one SVG with two panels.

use vultus::wording::counted;

use super::chart::{Axis, Columns, Panel, Series, Ticks, panels};
use super::{FigureError, palette};
use crate::evaluate::{Evaluation, ReliabilityBin, wilson_interval};

/// Draws the share of correct images over the top score, beside the diagonal of perfect calibration; and the share of
/// images in every bin.
///
/// # Errors
/// An evaluation without bins.
pub fn draw(evaluation: &Evaluation) -> Result<String, FigureError> {
    let bins = &evaluation.reliability;
    let Some(last) = bins.last() else {
        return Err(FigureError::Nothing { figure: "reliability", needed: "reliability bins" });
    };
    let edges: Vec<f64> = bins.iter().map(|bin| bin.low).chain([last.high]).collect();
    let columns = |name, colour, height: &dyn Fn(&ReliabilityBin) -> f64| {
        Some(Columns { name, colour, edges: edges.clone(), heights: bins.iter().map(height).collect() })
    };
    let score = || Axis { label: "score of the predicted class", range: Some((0.0, 1.0)), ticks: Ticks::Percent };
    let filled = bins.iter().filter(|bin| bin.count > 0);
    let accuracy = Panel {
        x: score(),
        y: Axis { label: "correct", range: Some((0.0, 1.0)), ticks: Ticks::Percent },
        series: vec![
            Series {
                name: "perfect calibration",
                colour: palette::INK,
                points: vec![(0.0, 0.0), (1.0, 1.0)],
                reaches: Vec::new(),
                reference: true,
            },
            Series {
                name: "accuracy at the mean score of a bin, 95 % interval",
                colour: palette::ORANGE,
                points: filled.clone().map(|bin| (bin.confidence, bin.accuracy)).collect(),
                reaches: filled.map(reach).collect(),
                reference: false,
            },
        ],
        columns: columns("accuracy", palette::BLUE, &|bin| bin.accuracy),
        mark: None,
    };
    let share = |bin: &ReliabilityBin| bin.count as f64 / evaluation.n.max(1) as f64;
    let spread = Panel {
        x: score(),
        y: Axis { label: "images", range: None, ticks: Ticks::Percent },
        series: Vec::new(),
        columns: columns("share of images", palette::PURPLE, &share),
        mark: None,
    };
    let title = format!(
        "Reliability of the scores on {}: expected calibration error {:.3} over {}",
        evaluation.split,
        evaluation.ece,
        counted(evaluation.n, "image")
    );
    Ok(panels(&title, vec![accuracy, spread], 500.0, 360.0))
}

/// How far Wilson's interval of a bin's accuracy reaches below and above it: few images tell little.
fn reach(bin: &ReliabilityBin) -> (f64, f64) {
    let [low, high] = wilson_interval((bin.accuracy * bin.count as f64).round() as usize, bin.count);
    (bin.accuracy - low, high - bin.accuracy)
}

#[cfg(test)]
mod tests {
    use vultus::labels::Labels;

    use super::*;

    #[test]
    fn shows_the_error_the_diagonal_and_the_bins() {
        let labels = Labels::new(["happy", "sad"]).unwrap();
        let probabilities = [0.9, 0.1, 0.7, 0.3, 0.45, 0.55, 0.2, 0.8];
        let mut evaluation = Evaluation::compute("public_test", &labels, &[0, 1, 1, 1], &probabilities).unwrap();
        let svg = draw(&evaluation).unwrap();
        for text in ["public_test", "perfect calibration", "over 4 images", "100 %", "share of images"] {
            assert!(svg.contains(text), "{text} is missing");
        }
        let error = format!("error {:.3}", evaluation.ece);
        assert!(svg.contains(&error), "{error} is missing");
        let bin = ReliabilityBin { low: 0.0, high: 0.1, count: 3, confidence: 0.05, accuracy: 2.0 / 3.0 };
        let (below, above) = reach(&bin);
        assert!((below - 0.458_92).abs() < 1e-4 && (above - 0.271_86).abs() < 1e-4, "{below} {above}");
        evaluation.reliability.clear();
        assert!(draw(&evaluation).is_err());
    }
}
