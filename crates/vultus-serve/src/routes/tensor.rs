//! The tensors of the Open Inference Protocol: named, typed, with a shape, and their numbers flat or nested.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeSeed, Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::Answer;
use crate::error::ApiError;

/// Most sizes of a tensor.
const SIZES: usize = 4;

/// A tensor in a request.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct RequestTensor<'a> {
    /// Its name: `input`.
    pub name: String,
    /// `UINT8` or `FP32`.
    pub datatype: String,
    /// Rows, height, width, 1.
    #[schema(value_type = Vec<usize>)]
    pub shape: Few<usize, SIZES>,
    /// Grey levels, 0 to 255, row after row; flat or nested.
    #[serde(borrow)]
    #[schema(value_type = Vec<NumberOrList>)]
    data: &'a RawValue,
}

impl RequestTensor<'_> {
    /// The numbers in its data, in their order.
    ///
    /// # Errors
    /// Something else than numbers, or more of them than `limit` pictures with `each` numbers have. They are read no
    /// further than that: as numbers they take more memory than as text.
    pub fn numbers(&self, limit: usize, each: usize) -> Answer<Vec<f32>> {
        numbers(self.data.get(), limit.saturating_mul(each)).map_err(|refusal| match refusal {
            Refusal::TooMany => ApiError::TooManyPictures { limit },
            Refusal::Malformed => ApiError::Malformed(format!("`data` must be {NUMBERS}")),
        })
    }
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

/// What [`RequestTensor::numbers`] reads, for its description.
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

/// A list of at most `N`; a longer one is read no further than the first that is too many.
#[derive(Debug)]
pub(crate) struct Few<T, const N: usize>(pub Vec<T>);

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for Few<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read<T, const N: usize>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for Read<T, N> {
            type Value = Few<T, N>;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                write!(formatter, "a list of at most {N}")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Few<T, N>, A::Error> {
                let mut few = Vec::new();
                while let Some(one) = list.next_element()? {
                    if few.len() == N {
                        return Err(A::Error::invalid_length(N + 1, &self));
                    }
                    few.push(one);
                }
                Ok(Few(few))
            }
        }

        deserializer.deserialize_seq(Read(PhantomData))
    }
}

/// What data must be.
const NUMBERS: &str = "numbers, or arrays of numbers";

/// Why there are no numbers.
#[derive(Debug, PartialEq)]
enum Refusal {
    TooMany,
    Malformed,
}

/// Numbers from an array of numbers or of arrays, in their order, if they are no more than `most`.
fn numbers(json: &str, most: usize) -> Result<Vec<f32>, Refusal> {
    let mut read = Numbers { numbers: Vec::new(), most, too_many: false };
    match serde_json::Deserializer::from_str(json).deserialize_seq(&mut read) {
        Ok(()) => Ok(read.numbers),
        Err(_) if read.too_many => Err(Refusal::TooMany),
        Err(_) => Err(Refusal::Malformed),
    }
}

/// Keeps what it reads, and reads no further than the first that is too many.
struct Numbers {
    numbers: Vec<f32>,
    most: usize,
    too_many: bool,
}

impl<'de> DeserializeSeed<'de> for &mut Numbers {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Numbers {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(NUMBERS)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<(), E> {
        if self.numbers.len() == self.most {
            self.too_many = true;
            return Err(E::custom("too many numbers"));
        }
        self.numbers.push(number as f32);
        Ok(())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        self.visit_f64(number as f64)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        self.visit_f64(number as f64)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut numbers: A) -> Result<(), A::Error> {
        while numbers.next_element_seed(&mut *self)?.is_some() {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_numbers_are_flat_in_their_order() {
        assert_eq!(numbers("[1, 2.5, -3]", 3), Ok(vec![1.0, 2.5, -3.0]));
        assert_eq!(numbers("[[[1], [2]], [[3], [4]], []]", 9), Ok(vec![1.0, 2.0, 3.0, 4.0]));
        for bad in ["1", "[\"1\"]", "[null]", "[true]", "{}", "[1", &"[".repeat(1000)] {
            assert_eq!(numbers(bad, 9), Err(Refusal::Malformed), "{bad}");
        }
    }

    #[test]
    fn numbers_and_lists_are_read_up_to_the_first_that_is_too_many() {
        // What follows is no JSON any more, and is not looked at.
        assert_eq!(numbers("[[1], [2, 3, !", 2), Err(Refusal::TooMany));
        assert_eq!(numbers("[[], [], []]", 0), Ok(Vec::new()));
        let list = |json| serde_json::from_str::<Few<u8, 2>>(json).map(|few| few.0).map_err(|error| error.to_string());
        assert_eq!(list("[7, 8]"), Ok(vec![7, 8]));
        let refused = list("[7, 8, 9, !").unwrap_err();
        assert!(refused.starts_with("invalid length 3, expected a list of at most 2 at line 1"), "{refused}");
    }
}
