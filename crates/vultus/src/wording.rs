//! Numbers in sentences.

use std::fmt::Display;

/// `1 picture`, `2 pictures`.
pub fn counted<N: Display + PartialEq + From<u8>>(count: N, one: &str) -> String {
    let plural = if count == N::from(1) { "" } else { "s" };
    format!("{count} {one}{plural}")
}
