//! Messages to stderr, and their words. A reader that has gone away, as with `2>&1 | head`, does not end the work.

use std::fmt::Display;
use std::io::Write;

/// `1 picture`, `2 pictures`.
pub fn counted(count: impl TryInto<u64>, one: &str) -> String {
    let count = count.try_into().unwrap_or(u64::MAX);
    format!("{count} {one}{}", if count == 1 { "" } else { "s" })
}

/// Writes a line.
pub fn say(text: impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
