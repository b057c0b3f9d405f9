//! Messages to stderr. A reader that has gone away, as with `2>&1 | head`, does not end the work.

use std::fmt::Display;
use std::io::Write;

/// Writes a line.
pub fn say(text: impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
