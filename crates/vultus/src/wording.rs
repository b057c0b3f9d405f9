//! Numbers in sentences.
//!
//! In: a count, and the word for one. Out: both, the word in the number that the count asks for.

use std::fmt::Display;

/// `1 picture`, `2 pictures`.
pub fn counted<N: Display + PartialEq + From<u8>>(count: N, one: &str) -> String {
    let plural = if count == N::from(1) { "" } else { "s" };
    format!("{count} {one}{plural}")
}
