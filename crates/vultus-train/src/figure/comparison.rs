//! Figure of runs beside each other: mean and standard deviation over their seeds, on one split.
//!
//! In: the rows of a comparison. Out: one SVG, the rows in their order. It ranks nothing.

use super::chart::{Axis, Interval, Ticks, intervals};
use super::{FigureError, shortened_within};
use crate::compare::Row;

/// Characters of a row's name before it is cut.
const LABEL_LIMIT: usize = 40;

/// Draws mean and standard deviation of the accuracy on `split`, for the `rows` that have one.
///
/// # Errors
/// No row has a result on `split`.
pub fn draw(split: &str, rows: &[Row]) -> Result<String, FigureError> {
    let rows: Vec<Interval> = rows.iter().filter_map(|row| interval(split, row)).collect();
    if rows.is_empty() {
        return Err(FigureError::Nothing { figure: "comparison", needed: "at least one run with an evaluation" });
    }
    let several = rows.iter().any(|row| row.half_width > 0.0);
    let label = format!("accuracy on {split}{}", if several { ": mean and standard deviation over seeds" } else { "" });
    let title = format!("Accuracy of {} configurations on {split}", rows.len());
    let axis = Axis { label: &label, range: Some(Interval::range(&rows)), ticks: Ticks::Percent };
    Ok(intervals(&title, axis, &rows, 1000.0))
}

fn interval(split: &str, row: &Row) -> Option<Interval> {
    let accuracy = row.splits.get(split)?;
    let mut numbers = format!("{:.2}", accuracy.mean * 100.0);
    if let Some(deviation) = accuracy.standard_deviation {
        numbers += &format!(" ± {:.2}", deviation * 100.0);
    }
    let label = format!("{} · {numbers} %", shortened_within(&row.name, LABEL_LIMIT));
    Some(Interval { label, centre: accuracy.mean, half_width: accuracy.standard_deviation.unwrap_or_default() })
}
