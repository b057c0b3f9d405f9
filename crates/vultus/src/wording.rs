//! Numbers in sentences.
//!
//! In: a count and the word for one, or a share. Out: both, the word in the number that the count asks for, or a percentage; a
//! dash for what is not known.

use std::fmt::Display;

/// `1 picture`, `2 pictures`.
pub fn counted<N: Display + PartialEq + From<u8>>(count: N, one: &str) -> String {
    let plural = if count == N::from(1) { "" } else { "s" };
    format!("{count} {one}{plural}")
}

/// A share as a percentage with two decimals: `64.17 %`.
pub fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}

/// The same, and in brackets its interval `[low, high]`, if there is one: `63.76 % (58.0 to 69.1)`.
pub fn percent_with_interval(share: f64, interval: Option<[f64; 2]>) -> String {
    let ends = interval.map(|ends| ends.map(|end| format!("{:.1}", end * 100.0)));
    ends.map_or_else(|| percent(share), |[low, high]| format!("{} ({low} to {high})", percent(share)))
}

/// A difference of two shares in points of percent, and in brackets its interval `[low, high]`: `-1.2 (-4.0 to +1.6)`.
pub fn points_with_interval(difference: f64, interval: [f64; 2]) -> String {
    let [low, high] = interval.map(|end| end * 100.0);
    format!("{:+.1} ({low:+.1} to {high:+.1})", difference * 100.0)
}

/// `text` of a value, or a dash.
pub fn or_dash<T>(value: Option<T>, text: impl Fn(T) -> String) -> String {
    value.map_or_else(|| "–".to_owned(), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_alike_everywhere() {
        assert_eq!(
            [counted(0, "picture"), counted(1, "picture"), counted(2, "picture")],
            ["0 pictures", "1 picture", "2 pictures"]
        );
        assert_eq!([percent(0.641_666), percent(1.0)], ["64.17 %", "100.00 %"]);
        assert_eq!(percent_with_interval(0.5, Some([0.25, 0.766])), "50.00 % (25.0 to 76.6)");
        assert_eq!(percent_with_interval(0.5, None), "50.00 %");
    }
}
