//! Steps of a plan as nodes of an ONNX graph.
//!
//! In: steps, whose values lie pixel by pixel. Out: nodes and tensors, in ONNX's order: channel by channel.

use vultus_kernels::activation::{Activation, LEAKY_SLOPE};

use crate::network::FeatureShape;
use crate::onnx::{Node, Tensor};
use crate::plan::{Affine, Convolution, Operation, Squeeze, Step};

/// The name of a value, and its shape: `[n, channels, height, width]` or `[n, features]`.
pub(super) type Named = (String, FeatureShape);

/// Nodes and tensors as they are written down.
#[derive(Default)]
pub(super) struct Writer {
    nodes: Vec<Node>,
    tensors: Vec<Tensor>,
}

impl Writer {
    /// A tensor of numbers; gives its name.
    pub(super) fn floats(&mut self, dims: &[usize], values: &[f32]) -> String {
        let name = format!("tensor_{}", self.tensors.len());
        self.tensors.push(Tensor::of_floats(&name, dims, values));
        name
    }

    /// A list of whole numbers; gives its name.
    pub(super) fn sizes(&mut self, sizes: &[i64]) -> String {
        let name = format!("tensor_{}", self.tensors.len());
        self.tensors.push(Tensor::of_sizes(&name, sizes));
        name
    }

    /// A node; gives the name of its output.
    pub(super) fn add(&mut self, operation: &str, inputs: &[&str]) -> String {
        self.add_with(operation, inputs, |node| node)
    }

    /// A node with attributes; gives the name of its output.
    pub(super) fn add_with(
        &mut self,
        operation: &str,
        inputs: &[&str],
        attributes: impl FnOnce(Node) -> Node,
    ) -> String {
        let name = format!("{}_{}", operation.to_lowercase(), self.nodes.len());
        self.nodes.push(attributes(Node::new(operation, inputs, &name)));
        name
    }

    /// All that was written; what the last node gives is called `output`.
    pub(super) fn finish(mut self, output: &str) -> (Vec<Node>, Vec<Tensor>) {
        if let Some(last) = self.nodes.last_mut() {
            last.outputs = vec![output.to_owned()];
        }
        (self.nodes, self.tensors)
    }

    /// What `step` gives, of the values before it.
    pub(super) fn step(&mut self, step: &Step<Convolution>, values: &[Named]) -> Named {
        let (x, shape) = &values[step.input];
        let addend = step.addend.map(|place| values[place].0.as_str());
        match &step.operation {
            Operation::Convolution(convolution) => self.convolution(convolution, x, addend),
            Operation::Depthwise { shape, weight, bias, activation } => {
                let (channels, kernel) = (shape.channels, [shape.kernel; 2]);
                let weight = by_filter(weight, 1, channels);
                let windows = Windows { kernel, stride: shape.stride, padding: shape.padding, groups: channels };
                let y = self.slide(x, [channels, 1], &weight, bias, windows);
                let (height, width) = (shape.out_height(), shape.out_width());
                (self.activation(y, *activation), FeatureShape::Planes { channels, height, width })
            }
            Operation::SqueezeExcitation(squeeze) => (self.squeeze_excitation(squeeze, x), *shape),
            Operation::Dense { weight, bias, activation } => {
                let x = self.flat(x, *shape);
                let weight = self.floats(&[weight.len() / bias.len(), bias.len()], weight);
                let features = bias.len();
                let bias = self.floats(&[features], bias);
                let y = self.add("Gemm", &[&x, &weight, &bias]);
                (self.activation(y, *activation), FeatureShape::Flat { features })
            }
            Operation::MaxPool(pool) | Operation::AveragePool(pool) => {
                let maximum = matches!(step.operation, Operation::MaxPool(_));
                let y = self.pool(if maximum { "MaxPool" } else { "AveragePool" }, x, pool.size, pool.stride);
                let (height, width) = (pool.out_height(), pool.out_width());
                (y, FeatureShape::Planes { channels: pool.channels, height, width })
            }
            Operation::GlobalAveragePool { channels, .. } => {
                let mean = self.add("GlobalAveragePool", &[x]);
                (
                    self.add_with("Flatten", &[&mean], |node| node.with_int("axis", 1)),
                    FeatureShape::Flat { features: *channels },
                )
            }
            Operation::Affine(affine) => self.affine(affine, x, *shape),
            Operation::Activation(function) => {
                let sum = addend.map_or_else(|| x.clone(), |addend| self.add("Add", &[x, addend]));
                (self.activation(sum, *function), *shape)
            }
            Operation::Enlarge { .. } => unreachable!("no layer of a classifier enlarges"),
        }
    }

    fn convolution(&mut self, convolution: &Convolution, x: &str, addend: Option<&str>) -> Named {
        let Convolution { shape, weight, bias, activation, pool } = convolution;
        let (inputs, channels) = (shape.in_channels, shape.out_channels);
        let kernel = [shape.kernel_height, shape.kernel_width];
        let weight = by_filter(weight, inputs, channels);
        let windows = Windows { kernel, stride: shape.stride, padding: shape.padding, groups: 1 };
        let mut y = self.slide(x, [channels, inputs], &weight, bias, windows);
        if let Some(addend) = addend {
            y = self.add("Add", &[&y, addend]);
        }
        y = self.activation(y, *activation);
        let (mut height, mut width) = (shape.out_height(), shape.out_width());
        if *pool {
            y = self.pool("MaxPool", &y, 2, 2);
            (height, width) = (height / 2, width / 2);
        }
        (y, FeatureShape::Planes { channels, height, width })
    }

    /// A convolution with weights `[filters, inputs, kernel height, kernel width]`, of which `channels` are the first two.
    pub(super) fn slide(
        &mut self,
        x: &str,
        channels: [usize; 2],
        weight: &[f32],
        bias: &[f32],
        windows: Windows,
    ) -> String {
        let Windows { kernel, stride, padding, groups } = windows;
        let weight = self.floats(&[channels[0], channels[1], kernel[0], kernel[1]], weight);
        let bias = self.floats(&[bias.len()], bias);
        self.add_with("Conv", &[x, &weight, &bias], |node| {
            node.with_ints("kernel_shape", &kernel.map(|side| side as i64))
                .with_ints("strides", &[stride as i64; 2])
                .with_ints("pads", &[padding as i64; 4])
                .with_int("group", groups as i64)
        })
    }

    fn pool(&mut self, operation: &str, x: &str, size: usize, stride: usize) -> String {
        self.add_with(operation, &[x], |node| {
            node.with_ints("kernel_shape", &[size as i64; 2]).with_ints("strides", &[stride as i64; 2])
        })
    }

    fn squeeze_excitation(&mut self, squeeze: &Squeeze, x: &str) -> String {
        let (channels, hidden) = (squeeze.shape.channels, squeeze.shape.hidden);
        let point = || Windows { kernel: [1, 1], stride: 1, padding: 0, groups: 1 };
        let mean = self.add("GlobalAveragePool", &[x]);
        let weight = by_filter(&squeeze.squeeze, channels, hidden);
        let units = self.slide(&mean, [hidden, channels], &weight, &squeeze.squeeze_bias, point());
        let units = self.add("Relu", &[&units]);
        let weight = by_filter(&squeeze.excitation, hidden, channels);
        let factors = self.slide(&units, [channels, hidden], &weight, &squeeze.excitation_bias, point());
        let factors = self.add("Sigmoid", &[&factors]);
        self.add("Mul", &[x, &factors])
    }

    /// One factor and one addend a channel, or, behind a flattening, one a feature.
    fn affine(&mut self, affine: &Affine, x: &str, shape: FeatureShape) -> Named {
        let length = affine.len();
        let (x, shape, dims) = match shape {
            FeatureShape::Planes { channels, .. } if channels == length => (x.to_owned(), shape, vec![length, 1, 1]),
            _ => (self.flat(x, shape), FeatureShape::Flat { features: length }, vec![length]),
        };
        let scale = self.floats(&dims, &affine.scales());
        let shift = self.floats(&dims, &affine.shifts());
        let scaled = self.add("Mul", &[&x, &scale]);
        (self.add("Add", &[&scaled, &shift]), shape)
    }

    /// `[n, features]` in the order of a plan: pixel by pixel.
    fn flat(&mut self, x: &str, shape: FeatureShape) -> String {
        if matches!(shape, FeatureShape::Flat { .. }) {
            return x.to_owned();
        }
        let moved = self.add_with("Transpose", &[x], |node| node.with_ints("perm", &[0, 2, 3, 1]));
        self.add_with("Flatten", &[&moved], |node| node.with_int("axis", 1))
    }

    fn activation(&mut self, x: String, function: Activation) -> String {
        match function {
            Activation::Linear => x,
            Activation::Relu => self.add("Relu", &[&x]),
            Activation::LeakyRelu => self.add_with("LeakyRelu", &[&x], |node| node.with_float("alpha", LEAKY_SLOPE)),
            Activation::Elu => self.add_with("Elu", &[&x], |node| node.with_float("alpha", 1.0)),
            Activation::Tanh => self.add("Tanh", &[&x]),
        }
    }
}

/// How windows go over a picture.
pub(super) struct Windows {
    pub(super) kernel: [usize; 2],
    pub(super) stride: usize,
    pub(super) padding: usize,
    pub(super) groups: usize,
}

/// Weights `[tap, input, filter]` as `[filter, input, tap]`.
fn by_filter(weight: &[f32], inputs: usize, filters: usize) -> Vec<f32> {
    let taps = weight.len() / (inputs * filters);
    let places = (0..filters).flat_map(|filter| {
        (0..inputs).flat_map(move |input| (0..taps).map(move |tap| (tap * inputs + input) * filters + filter))
    });
    places.map(|place| weight[place]).collect()
}
