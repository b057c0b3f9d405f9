//! The parts of an ONNX file that a network of convolutions has (onnx.proto3 of ONNX 1.x, with its field numbers).
//!
//! In: bytes. Out: nodes, tensors, and the shape of the input. What the nodes mean is `network`'s business.

use prost::Message;

/// The data types of a tensor that are read.
const FLOAT: i32 = 1;
const INT64: i32 = 7;

#[derive(Clone, PartialEq, Message)]
struct Model {
    #[prost(message, optional, tag = "7")]
    graph: Option<Graph>,
}

/// A network.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Graph {
    /// In an order in which they can run.
    #[prost(message, repeated, tag = "1")]
    pub(super) nodes: Vec<Node>,
    #[prost(message, repeated, tag = "5")]
    pub(super) tensors: Vec<Tensor>,
    #[prost(message, repeated, tag = "11")]
    pub(super) inputs: Vec<Value>,
}

/// One operation.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Node {
    #[prost(string, repeated, tag = "1")]
    pub(super) inputs: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub(super) outputs: Vec<String>,
    /// Such as `Conv`.
    #[prost(string, tag = "4")]
    pub(super) operation: String,
    #[prost(message, repeated, tag = "5")]
    attributes: Vec<Attribute>,
    /// Empty for ONNX's own operations.
    #[prost(string, tag = "7")]
    pub(super) domain: String,
}

#[derive(Clone, PartialEq, Message)]
struct Attribute {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int64, tag = "3")]
    int: i64,
    #[prost(bytes = "vec", tag = "4")]
    text: Vec<u8>,
    #[prost(message, optional, tag = "5")]
    tensor: Option<Tensor>,
    #[prost(int64, repeated, packed = "false", tag = "8")]
    ints: Vec<i64>,
}

/// Numbers that belong to the file.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Tensor {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(float, repeated, tag = "4")]
    floats: Vec<f32>,
    #[prost(string, tag = "8")]
    pub(super) name: String,
    #[prost(bytes = "vec", tag = "9")]
    raw: Vec<u8>,
}

/// A name with a type.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Value {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(message, optional, tag = "2")]
    kind: Option<Kind>,
}

#[derive(Clone, PartialEq, Message)]
struct Kind {
    #[prost(message, optional, tag = "1")]
    tensor: Option<TensorKind>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorKind {
    #[prost(message, optional, tag = "2")]
    shape: Option<Shape>,
}

#[derive(Clone, PartialEq, Message)]
struct Shape {
    #[prost(message, repeated, tag = "1")]
    dims: Vec<Dim>,
}

#[derive(Clone, PartialEq, Message)]
struct Dim {
    /// 0 where the file leaves it open.
    #[prost(int64, tag = "1")]
    size: i64,
}

/// Reads a file's bytes.
///
/// # Errors
/// What is wrong with them.
pub(super) fn read(bytes: &[u8]) -> Result<Graph, String> {
    let model = Model::decode(bytes).map_err(|error| format!("it is no ONNX file: {error}"))?;
    model.graph.ok_or_else(|| "it is no ONNX file: it has no graph".to_owned())
}

impl Value {
    /// Sizes along each dimension; 0 where the file leaves it open.
    pub(super) fn dims(&self) -> Vec<usize> {
        let shape = self.kind.as_ref().and_then(|kind| kind.tensor.as_ref()?.shape.as_ref());
        shape
            .map(|shape| shape.dims.iter().map(|dim| usize::try_from(dim.size).unwrap_or(0)).collect())
            .unwrap_or_default()
    }
}

impl Node {
    fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.attributes.iter().find(|attribute| attribute.name == name)
    }

    /// An attribute that is a number.
    pub(super) fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).map_or(default, |attribute| attribute.int)
    }

    /// An attribute that is a list of numbers; empty where it is missing.
    pub(super) fn ints(&self, name: &str) -> &[i64] {
        self.attribute(name).map_or(&[], |attribute| &attribute.ints)
    }

    /// An attribute that is a text; empty where it is missing.
    pub(super) fn text(&self, name: &str) -> &[u8] {
        self.attribute(name).map_or(b"", |attribute| &attribute.text)
    }

    /// An attribute that is a tensor.
    pub(super) fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.attribute(name)?.tensor.as_ref()
    }
}

impl Tensor {
    /// Sizes along each dimension.
    pub(super) fn dims(&self) -> Option<Vec<usize>> {
        self.dims.iter().map(|&size| usize::try_from(size).ok()).collect()
    }

    /// The values, if they are floats, and as many as the dimensions say.
    pub(super) fn floats(&self) -> Option<Vec<f32>> {
        let values = match self.data_type {
            FLOAT if self.raw.is_empty() => self.floats.clone(),
            FLOAT => self
                .raw
                .chunks(4)
                .map(|bytes| Some(f32::from_le_bytes(bytes.try_into().ok()?)))
                .collect::<Option<_>>()?,
            _ => return None,
        };
        let length = self.dims()?.into_iter().try_fold(1_usize, usize::checked_mul)?;
        (values.len() == length).then_some(values)
    }

    /// Whether the values are whole numbers, such as sizes.
    pub(super) fn is_sizes(&self) -> bool {
        self.data_type == INT64
    }
}

/// Parts of files for tests.
#[cfg(test)]
mod parts {
    use super::*;

    impl Graph {
        /// A file's bytes.
        pub(in super::super) fn written(self) -> Vec<u8> {
            Model { graph: Some(self) }.encode_to_vec()
        }
    }

    impl Value {
        pub(in super::super) fn new(name: &str, sizes: &[i64]) -> Self {
            let dims = sizes.iter().map(|&size| Dim { size }).collect();
            let kind = Kind { tensor: Some(TensorKind { shape: Some(Shape { dims }) }) };
            Self { name: name.to_owned(), kind: Some(kind) }
        }
    }

    impl Node {
        pub(in super::super) fn new(operation: &str, inputs: &[&str], output: &str) -> Self {
            Self {
                inputs: inputs.iter().map(|&input| input.to_owned()).collect(),
                outputs: vec![output.to_owned()],
                operation: operation.to_owned(),
                ..Self::default()
            }
        }

        fn with(mut self, attribute: Attribute) -> Self {
            self.attributes.push(attribute);
            self
        }

        pub(in super::super) fn with_int(self, name: &str, int: i64) -> Self {
            self.with(Attribute { name: name.to_owned(), int, ..Attribute::default() })
        }

        pub(in super::super) fn with_ints(self, name: &str, ints: &[i64]) -> Self {
            self.with(Attribute { name: name.to_owned(), ints: ints.to_vec(), ..Attribute::default() })
        }

        pub(in super::super) fn with_text(self, name: &str, text: &str) -> Self {
            self.with(Attribute { name: name.to_owned(), text: text.as_bytes().to_vec(), ..Attribute::default() })
        }
    }

    impl Tensor {
        pub(in super::super) fn of_floats(name: &str, dims: &[usize], floats: &[f32]) -> Self {
            let raw = floats.iter().flat_map(|value| value.to_le_bytes()).collect();
            let dims = dims.iter().map(|&size| size as i64).collect();
            Self { name: name.to_owned(), dims, data_type: FLOAT, raw, ..Self::default() }
        }

        pub(in super::super) fn of_sizes(name: &str, sizes: &[i64]) -> Self {
            let raw = sizes.iter().flat_map(|value| value.to_le_bytes()).collect();
            Self { name: name.to_owned(), dims: vec![sizes.len() as i64], data_type: INT64, raw, ..Self::default() }
        }
    }
}
