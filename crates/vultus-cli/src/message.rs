//! Messages to stderr, and their words. A reader that has gone away, as with `2>&1 | head`, does not end the work.

use std::fmt::Display;
use std::io::Write;

/// Writes a line, or several.
pub fn say(text: impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "{}", printable_lines(text));
}

/// The lines of `text`, each as [`printable`].
pub fn printable_lines(text: impl Display) -> String {
    text.to_string().split('\n').map(printable).collect::<Vec<_>>().join("\n")
}

/// What a terminal shows of `text`, in one line: a name of a file may hold what moves its cursor.
pub fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            printable.extend(character.escape_default());
        } else {
            printable.push(character);
        }
    }
    printable
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_name_cannot_speak_to_the_terminal() {
        assert_eq!(super::printable("a\u{1b}[31m\nb.png"), "a\\u{1b}[31m\\nb.png");
        assert_eq!(super::printable_lines("a\rb.png\nc"), "a\\rb.png\nc");
        assert_eq!(super::printable("Gesichter/fröhlich 😀.png"), "Gesichter/fröhlich 😀.png");
    }
}
