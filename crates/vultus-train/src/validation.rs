//! Which images validate a training.

use serde::Serialize;

/// What validates.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub enum Validation<'a> {
    /// The images of a split of their own.
    Split(&'a str),
    /// A part of the training split, drawn as in [`stratified_split`](crate::split::stratified_split).
    Part {
        /// Its share of each class.
        fraction: f64,
        /// The seed that draws it.
        seed: u64,
    },
    /// Nothing.
    Nothing,
}

impl<'a> Validation<'a> {
    /// As a configuration or a model's file says it: a split goes before a part, and an empty name is none.
    pub fn new(split: &'a str, fraction: f64, seed: u64) -> Self {
        if !split.is_empty() {
            Self::Split(split)
        } else if fraction > 0.0 {
            Self::Part { fraction, seed }
        } else {
            Self::Nothing
        }
    }
}

/// What the part of `split` that is held out is called, where it stands apart.
pub fn held_out_split(split: &str) -> String {
    format!("{split}-validation")
}
