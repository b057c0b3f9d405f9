//! The tensors of the Open Inference Protocol: named, typed, with a shape, and their numbers flat or nested.

use std::fmt;

use serde::de::{DeserializeSeed, Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

/// A tensor in a request.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct RequestTensor {
    /// Its name: `input`.
    pub name: String,
    /// `UINT8` or `FP32`.
    pub datatype: String,
    /// Rows, height, width, 1.
    pub shape: Vec<usize>,
    /// Grey levels, 0 to 255, row after row; flat or nested.
    #[schema(value_type = Vec<NumberOrList>)]
    pub data: Numbers,
}

/// A tensor in an answer.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ResponseTensor {
    /// Its name.
    pub name: &'static str,
    /// `FP32`, or `BYTES` for texts.
    pub datatype: &'static str,
    /// Its sizes.
    pub shape: Vec<usize>,
    /// Its values, row after row.
    pub data: Vec<Element>,
}

/// A value in an answer.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Element {
    /// Of a tensor `FP32`.
    Number(f32),
    /// Of a tensor `BYTES`; empty for a face that the model is too unsure to label.
    Text(String),
}

/// What [`Numbers`] reads, for its description.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes JSON that is read without it")]
pub(crate) enum NumberOrList {
    /// A number.
    Number(f32),
    /// A list of numbers or of lists.
    #[schema(no_recursion)]
    List(Vec<NumberOrList>),
}

/// What a tensor of the model is like.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TensorDescription {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub datatype: &'static str,
    /// Its sizes; -1 is any.
    pub shape: Vec<i64>,
}

/// Numbers from an array of numbers or of arrays, in their order.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Numbers(pub Vec<f32>);

impl<'de> Deserialize<'de> for Numbers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut numbers = Vec::new();
        deserializer.deserialize_seq(Append(&mut numbers))?;
        Ok(Self(numbers))
    }
}

/// Appends what it reads.
struct Append<'a>(&'a mut Vec<f32>);

impl<'de> DeserializeSeed<'de> for Append<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Append<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("numbers, or arrays of numbers")
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<(), E> {
        self.0.push(number as f32);
        Ok(())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        self.visit_f64(number as f64)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        self.visit_f64(number as f64)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut numbers: A) -> Result<(), A::Error> {
        while numbers.next_element_seed(Append(self.0))?.is_some() {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_numbers_are_flat_in_their_order() {
        let read = |text: &str| serde_json::from_str::<Numbers>(text).map(|numbers| numbers.0).ok();
        assert_eq!(read("[1, 2.5, -3]"), Some(vec![1.0, 2.5, -3.0]));
        assert_eq!(read("[[[1], [2]], [[3], [4]], []]"), Some(vec![1.0, 2.0, 3.0, 4.0]));
        for bad in ["1", "[\"1\"]", "[null]", "[true]", "{}", "[1", &"[".repeat(1000)] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
