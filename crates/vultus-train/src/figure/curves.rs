//! Figure 2: loss and accuracy over the epochs, training against validation.
//!
//! In: the history of a run and the epoch whose weights were kept. Out: one SVG with two panels.

use super::chart::{Axis, Panel, Series, Ticks, panels};
use super::{FigureError, palette};
use crate::history::EpochRecord;

/// Draws the curves of `history`; `selected` is the epoch to mark. Values that are not finite are left out.
///
/// # Errors
/// An empty history.
pub fn draw(history: &[EpochRecord], selected: Option<usize>) -> Result<String, FigureError> {
    let (Some(first), Some(last)) = (history.first(), history.last()) else {
        return Err(FigureError::Nothing { figure: "curves", needed: "at least one epoch" });
    };
    // A margin beside the first and last epoch, so that their dots and the mark stay whole.
    let margin = ((last.epoch - first.epoch.min(last.epoch)) as f64 * 0.02).max(0.5);
    let ends = (first.epoch as f64 - margin, last.epoch as f64 + margin);
    let mark = selected.map(|epoch| (epoch as f64, format!("epoch {epoch} kept")));
    let panel =
        |label, ticks, range, training: fn(&EpochRecord) -> f64, validation: fn(&EpochRecord) -> Option<f64>| Panel {
            x: Axis { label: "epoch", range: Some(ends), ticks: Ticks::Whole },
            y: Axis { label, range, ticks },
            series: [
                series("training", palette::BLUE, history, |record| Some(training(record))),
                series("validation", palette::ORANGE, history, validation),
            ]
            .into_iter()
            .filter(|series| !series.points.is_empty())
            .collect(),
            columns: None,
            mark: mark.clone(),
        };
    let loss = panel("loss", Ticks::Decimal, None, |record| record.loss, |record| record.val_loss);
    let accuracy = panel("accuracy", Ticks::Percent, None, |record| record.accuracy, |record| record.val_accuracy);
    let title = format!("Loss and accuracy of training and validation over {} epochs", history.len());
    Ok(panels(&title, vec![loss, accuracy], 500.0, 340.0))
}

fn series(
    name: &'static str,
    colour: &'static str,
    history: &[EpochRecord],
    value: impl Fn(&EpochRecord) -> Option<f64>,
) -> Series {
    let point = |record: &EpochRecord| Some((record.epoch as f64, value(record).filter(|value| value.is_finite())?));
    Series { name, colour, points: history.iter().filter_map(point).collect(), reaches: Vec::new(), reference: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(epochs: usize, validated: bool) -> Vec<EpochRecord> {
        let record = |epoch: usize| EpochRecord {
            epoch,
            loss: 2.0 / epoch as f64,
            accuracy: 1.0 - 0.8 / epoch as f64,
            val_loss: validated.then_some(2.2 / epoch as f64),
            val_cross_entropy: None,
            val_accuracy: validated.then_some(0.9 - 0.8 / epoch as f64),
            learning_rate: 1e-3,
            images_per_second: 400.0,
            wait_share: 0.0,
            seconds: 60.0,
        };
        (1..=epochs).map(record).collect()
    }

    #[test]
    fn both_panels_both_series_and_the_kept_epoch() {
        let svg = draw(&history(10, true), Some(7)).unwrap();
        for text in ["loss", "accuracy", "training", "validation", "epoch 7 kept", "80 %", "viewBox", "over 10 epochs"]
        {
            assert!(svg.contains(text), "{text} is missing");
        }
        assert!(svg.contains(palette::BLUE) && svg.contains(palette::ORANGE));
    }

    #[test]
    fn without_validation_there_is_no_such_line() {
        let svg = draw(&history(10, false), None).unwrap();
        assert!(svg.contains("training") && !svg.contains(">validation<"));
        assert!(!svg.contains(palette::ORANGE) && !svg.contains("kept"));
    }

    #[test]
    fn one_epoch_or_a_bad_number_is_drawn_and_none_is_an_error() {
        let mut records = history(1, true);
        assert!(draw(&records, Some(1)).unwrap().contains("training"));
        records[0].val_loss = Some(f64::NAN);
        assert!(!draw(&records, None).unwrap().contains("NaN"));
        assert!(draw(&[], None).unwrap_err().to_string().contains("at least one epoch"));
    }
}
