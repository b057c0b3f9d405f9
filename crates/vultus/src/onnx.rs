//! The parts of an ONNX file that a network of convolutions has (onnx.proto3 of ONNX 1.x, with its field numbers).
//!
//! In: bytes, or nodes, tensors and the shapes of inputs and outputs. Out: the other of the two. What the nodes mean is the
//! business of those who read and write them: the face finder YuNet, and [`crate::export`].

use prost::Message;

/// The data types of a tensor that are known.
const FLOAT: i32 = 1;
const INT64: i32 = 7;

/// A file.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Model {
    #[prost(int64, tag = "1")]
    ir_version: i64,
    #[prost(string, tag = "2")]
    pub(crate) producer_name: String,
    #[prost(string, tag = "3")]
    pub(crate) producer_version: String,
    /// What it is, for people.
    #[prost(string, tag = "6")]
    pub(crate) description: String,
    #[prost(message, optional, tag = "7")]
    graph: Option<Graph>,
    #[prost(message, repeated, tag = "8")]
    operation_sets: Vec<OperationSet>,
    /// What it is, for programs.
    #[prost(message, repeated, tag = "14")]
    pub(crate) metadata: Vec<Entry>,
}

#[derive(Clone, PartialEq, Message)]
struct OperationSet {
    #[prost(string, tag = "1")]
    domain: String,
    #[prost(int64, tag = "2")]
    version: i64,
}

/// A text with a name.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Entry {
    #[prost(string, tag = "1")]
    pub(crate) key: String,
    #[prost(string, tag = "2")]
    pub(crate) value: String,
}

/// A network.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Graph {
    /// In an order in which they can run.
    #[prost(message, repeated, tag = "1")]
    pub(crate) nodes: Vec<Node>,
    #[prost(string, tag = "2")]
    pub(crate) name: String,
    #[prost(message, repeated, tag = "5")]
    pub(crate) tensors: Vec<Tensor>,
    #[prost(message, repeated, tag = "11")]
    pub(crate) inputs: Vec<Value>,
    #[prost(message, repeated, tag = "12")]
    pub(crate) outputs: Vec<Value>,
}

/// One operation.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Node {
    #[prost(string, repeated, tag = "1")]
    pub(crate) inputs: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub(crate) outputs: Vec<String>,
    #[prost(string, tag = "3")]
    name: String,
    /// Such as `Conv`.
    #[prost(string, tag = "4")]
    pub(crate) operation: String,
    #[prost(message, repeated, tag = "5")]
    attributes: Vec<Attribute>,
    /// Empty for ONNX's own operations.
    #[prost(string, tag = "7")]
    pub(crate) domain: String,
}

#[derive(Clone, PartialEq, Message)]
struct Attribute {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(float, tag = "2")]
    float: f32,
    #[prost(int64, tag = "3")]
    int: i64,
    #[prost(bytes = "vec", tag = "4")]
    text: Vec<u8>,
    #[prost(message, optional, tag = "5")]
    tensor: Option<Tensor>,
    #[prost(int64, repeated, packed = "false", tag = "8")]
    ints: Vec<i64>,
    /// Which of the values it has.
    #[prost(int32, tag = "20")]
    kind: i32,
}

/// Kinds of attributes.
const FLOAT_ATTRIBUTE: i32 = 1;
const INT_ATTRIBUTE: i32 = 2;
const TEXT_ATTRIBUTE: i32 = 3;
const INTS_ATTRIBUTE: i32 = 7;

/// Numbers that belong to the file.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Tensor {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(float, repeated, tag = "4")]
    floats: Vec<f32>,
    #[prost(string, tag = "8")]
    pub(crate) name: String,
    #[prost(bytes = "vec", tag = "9")]
    raw: Vec<u8>,
}

/// A name with a type.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Value {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
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
    #[prost(int32, tag = "1")]
    data_type: i32,
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
    /// What it is called there.
    #[prost(string, tag = "2")]
    name: String,
}

/// Reads a file's bytes.
///
/// # Errors
/// What is wrong with them.
pub(crate) fn read(bytes: &[u8]) -> Result<Graph, String> {
    Model::from_bytes(bytes)?.graph.ok_or_else(|| "it is no ONNX file: it has no graph".to_owned())
}

impl Model {
    /// A file of the format's version 8 (ONNX 1.12 and later) with ONNX's own operations of version 17.
    pub(crate) fn new(graph: Graph) -> Self {
        let operations = OperationSet { domain: String::new(), version: 17 };
        Self { ir_version: 8, graph: Some(graph), operation_sets: vec![operations], ..Self::default() }
    }

    /// A file from its bytes.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        Self::decode(bytes).map_err(|error| format!("it is no ONNX file: {error}"))
    }

    /// The file's bytes.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        self.encode_to_vec()
    }
}

impl Value {
    /// Floats with these sizes along each dimension; 0 leaves the number of samples open.
    pub(crate) fn of_floats(name: &str, sizes: &[usize]) -> Self {
        let dims = sizes.iter().map(|&size| {
            let name = if size == 0 { "batch" } else { "" };
            Dim { size: size as i64, name: name.to_owned() }
        });
        let shape = Shape { dims: dims.collect() };
        let kind = Kind { tensor: Some(TensorKind { data_type: FLOAT, shape: Some(shape) }) };
        Self { name: name.to_owned(), kind: Some(kind) }
    }

    /// Sizes along each dimension; 0 where the file leaves it open.
    pub(crate) fn dims(&self) -> Vec<usize> {
        let shape = self.kind.as_ref().and_then(|kind| kind.tensor.as_ref()?.shape.as_ref());
        shape
            .map(|shape| shape.dims.iter().map(|dim| usize::try_from(dim.size).unwrap_or(0)).collect())
            .unwrap_or_default()
    }
}

impl Node {
    /// `operation` with one output, after which it is called.
    pub(crate) fn new(operation: &str, inputs: &[&str], output: &str) -> Self {
        Self {
            inputs: inputs.iter().map(|&input| input.to_owned()).collect(),
            outputs: vec![output.to_owned()],
            name: output.to_owned(),
            operation: operation.to_owned(),
            ..Self::default()
        }
    }

    fn with(mut self, attribute: Attribute) -> Self {
        self.attributes.push(attribute);
        self
    }

    /// The node with an attribute that is a whole number.
    pub(crate) fn with_int(self, name: &str, int: i64) -> Self {
        self.with(Attribute { name: name.to_owned(), int, kind: INT_ATTRIBUTE, ..Attribute::default() })
    }

    /// The node with an attribute that is a list of whole numbers.
    pub(crate) fn with_ints(self, name: &str, ints: &[i64]) -> Self {
        let ints = ints.to_vec();
        self.with(Attribute { name: name.to_owned(), ints, kind: INTS_ATTRIBUTE, ..Attribute::default() })
    }

    /// The node with an attribute that is a number.
    pub(crate) fn with_float(self, name: &str, float: f32) -> Self {
        self.with(Attribute { name: name.to_owned(), float, kind: FLOAT_ATTRIBUTE, ..Attribute::default() })
    }

    /// The node with an attribute that is a text.
    pub(crate) fn with_text(self, name: &str, text: &str) -> Self {
        let text = text.as_bytes().to_vec();
        self.with(Attribute { name: name.to_owned(), text, kind: TEXT_ATTRIBUTE, ..Attribute::default() })
    }

    fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.attributes.iter().find(|attribute| attribute.name == name)
    }

    /// An attribute that is a number.
    pub(crate) fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).map_or(default, |attribute| attribute.int)
    }

    /// An attribute that is a list of numbers; empty where it is missing.
    pub(crate) fn ints(&self, name: &str) -> &[i64] {
        self.attribute(name).map_or(&[], |attribute| &attribute.ints)
    }

    /// An attribute that is a text; empty where it is missing.
    pub(crate) fn text(&self, name: &str) -> &[u8] {
        self.attribute(name).map_or(b"", |attribute| &attribute.text)
    }

    /// An attribute that is a tensor.
    pub(crate) fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.attribute(name)?.tensor.as_ref()
    }
}

impl Tensor {
    /// Floats, row-major.
    pub(crate) fn of_floats(name: &str, dims: &[usize], floats: &[f32]) -> Self {
        let raw = floats.iter().flat_map(|value| value.to_le_bytes()).collect();
        let dims = dims.iter().map(|&size| size as i64).collect();
        Self { name: name.to_owned(), dims, data_type: FLOAT, raw, ..Self::default() }
    }

    /// A list of whole numbers.
    pub(crate) fn of_sizes(name: &str, sizes: &[i64]) -> Self {
        let raw = sizes.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { name: name.to_owned(), dims: vec![sizes.len() as i64], data_type: INT64, raw, ..Self::default() }
    }

    /// Sizes along each dimension.
    pub(crate) fn dims(&self) -> Option<Vec<usize>> {
        self.dims.iter().map(|&size| usize::try_from(size).ok()).collect()
    }

    /// The values, if they are floats, and as many as the dimensions say.
    pub(crate) fn floats(&self) -> Option<Vec<f32>> {
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
    pub(crate) fn is_sizes(&self) -> bool {
        self.data_type == INT64
    }
}
