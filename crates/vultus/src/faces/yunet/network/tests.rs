//! A small network with everything that YuNet has, against plain loops in double precision; and files that are refused.

use std::collections::BTreeMap;

use super::*;
use crate::onnx::{Graph, Node, Tensor};

/// Planes in the file's order, `[channel][row][column]`.
#[derive(Clone, Debug)]
struct Plain {
    channels: usize,
    height: usize,
    width: usize,
    values: Vec<f64>,
}

impl Plain {
    fn new(channels: usize, height: usize, width: usize, mut at: impl FnMut(usize, usize, usize) -> f64) -> Self {
        let mut values = Vec::new();
        for channel in 0..channels {
            for row in 0..height {
                values.extend((0..width).map(|column| at(channel, row, column)).collect::<Vec<_>>());
            }
        }
        Self { channels, height, width, values }
    }

    /// Zero outside.
    fn at(&self, channel: usize, row: isize, column: isize) -> f64 {
        let inside = (0..self.height as isize).contains(&row) && (0..self.width as isize).contains(&column);
        if inside { self.values[(channel * self.height + row as usize) * self.width + column as usize] } else { 0.0 }
    }

    /// A convolution whose kernel is `side` wide, with half of that as padding; of each channel by itself if `own`.
    fn convolved(&self, (weight, bias): (&[f32], &[f32]), side: usize, stride: usize, own: bool, relu: bool) -> Self {
        let inputs = if own { 1 } else { self.channels };
        let (height, width) = ((self.height - 1) / stride + 1, (self.width - 1) / stride + 1);
        Self::new(bias.len(), height, width, |filter, row, column| {
            let mut sum = f64::from(bias[filter]);
            for (input, (i, j)) in
                (0..inputs).flat_map(|input| (0..side * side).map(move |tap| (input, (tap / side, tap % side))))
            {
                let place = |index: usize, tap: usize| (index * stride + tap) as isize - (side / 2) as isize;
                let channel = if own { filter } else { input };
                let w = weight[((filter * inputs + input) * side + i) * side + j];
                sum += f64::from(w) * self.at(channel, place(row, i), place(column, j));
            }
            if relu { sum.max(0.0) } else { sum }
        })
    }

    fn pooled(&self) -> Self {
        Self::new(self.channels, self.height / 2, self.width / 2, |channel, row, column| {
            let at = |i: usize, j: usize| self.at(channel, (2 * row + i) as isize, (2 * column + j) as isize);
            at(0, 0).max(at(0, 1)).max(at(1, 0)).max(at(1, 1))
        })
    }

    fn doubled_and_added(&self, other: &Self) -> Self {
        Self::new(other.channels, other.height, other.width, |channel, row, column| {
            self.at(channel, (row / 2) as isize, (column / 2) as isize)
                + other.at(channel, row as isize, column as isize)
        })
    }

    /// `[row][column][channel]`.
    fn by_pixels(&self) -> Vec<f64> {
        let pixels = (0..self.height).flat_map(|row| (0..self.width).map(move |column| (row, column)));
        pixels
            .flat_map(|(row, column)| (0..self.channels).map(move |channel| (channel, row as isize, column as isize)))
            .map(|(channel, row, column)| self.at(channel, row, column))
            .collect()
    }
}

fn numbers(seed: usize, length: usize) -> Vec<f32> {
    (0..length).map(|index| (((index + 1) * 7919 + seed * 104_729) % 2003) as f32 / 1001.5 - 1.0).collect()
}

/// Weights and biases by name: `[out, in, side, side]` each.
const CONVOLUTIONS: [(&str, [usize; 4]); 5] = [
    ("stem", [6, 3, 3, 3]),
    ("point", [5, 6, 1, 1]),
    ("depth", [5, 1, 3, 3]),
    ("low", [5, 5, 1, 1]),
    ("head", [2, 5, 3, 3]),
];

fn convolution(name: &str, input: &str, stride: i64, groups: i64) -> Node {
    let (_, [_, _, side, _]) = *CONVOLUTIONS.iter().find(|(other, _)| *other == name).unwrap();
    let side = side as i64;
    Node::new("Conv", &[input, &format!("{name}.w"), &format!("{name}.b")], name)
        .with_ints("kernel_shape", &[side, side])
        .with_ints("pads", &[side / 2; 4])
        .with_ints("strides", &[stride, stride])
        .with_ints("dilations", &[1, 1])
        .with_int("group", groups)
}

/// Stem, pooling, a pair of convolutions, and one of half the size that is enlarged and added.
fn graph() -> Graph {
    let mut tensors = Vec::new();
    for (seed, (name, dims)) in CONVOLUTIONS.iter().enumerate() {
        tensors.push(Tensor::of_floats(&format!("{name}.w"), dims, &numbers(seed, dims.iter().product())));
        tensors.push(Tensor::of_floats(&format!("{name}.b"), &dims[..1], &numbers(seed + 20, dims[0])));
    }
    tensors.push(Tensor::of_floats("scales", &[4], &[1.0, 1.0, 2.0, 2.0]));
    tensors.push(Tensor::of_sizes("sizes", &[1, -1, 2]));
    let pool = |input: &str, output: &str| {
        Node::new("MaxPool", &[input], output).with_ints("kernel_shape", &[2, 2]).with_ints("strides", &[2, 2])
    };
    let nodes = vec![
        convolution("stem", "picture", 2, 1),
        Node::new("Relu", &["stem"], "stem+"),
        convolution("point", "stem+", 1, 1),
        convolution("depth", "point", 1, 5),
        Node::new("Relu", &["depth"], "depth+"),
        pool("depth+", "pooled"),
        convolution("low", "pooled", 1, 1),
        Node::new("Resize", &["low", "", "scales"], "enlarged")
            .with_text("mode", "nearest")
            .with_text("nearest_mode", "floor")
            .with_text("coordinate_transformation_mode", "asymmetric"),
        Node::new("Add", &["depth+", "enlarged"], "sum"),
        convolution("head", "sum", 1, 1),
        Node::new("Transpose", &["head"], "moved").with_ints("perm", &[0, 2, 3, 1]),
        Node::new("Reshape", &["moved", "sizes"], "row"),
        Node::new("Sigmoid", &["row"], "score"),
        // A result of the middle, which must outlive what is computed after it.
        Node::new("Transpose", &["pooled"], "middle").with_ints("perm", &[0, 2, 3, 1]),
    ];
    Graph { nodes, tensors, ..Graph::default() }
}

fn compiled(graph: &Graph) -> Result<(Program, Vec<Output>), String> {
    compile(graph, "picture", (20, 28), &["score", "row", "middle"].map(str::to_owned))
}

#[test]
fn a_program_computes_what_the_file_says() {
    let graph = graph();
    let (program, outputs) = compiled(&graph).unwrap();
    let (height, width) = (20, 28);
    let x = numbers(9, height * width * 3);
    let mut workspace = program.workspace(1);
    program.input(1, &mut workspace).copy_from_slice(&x);
    program.run(1, &mut workspace);

    let weights: BTreeMap<&str, (Vec<f32>, Vec<f32>)> = CONVOLUTIONS
        .iter()
        .enumerate()
        .map(|(seed, (name, dims))| (*name, (numbers(seed, dims.iter().product()), numbers(seed + 20, dims[0]))))
        .collect();
    let of = |name: &str| (&weights[name].0[..], &weights[name].1[..]);
    let picture =
        Plain::new(3, height, width, |channel, row, column| f64::from(x[(row * width + column) * 3 + channel]));
    let stem = picture.convolved(of("stem"), 3, 2, false, true);
    let depth = stem.convolved(of("point"), 1, 1, false, false).convolved(of("depth"), 3, 1, true, true);
    let low = depth.pooled().convolved(of("low"), 1, 1, false, false);
    let head = low.doubled_and_added(&depth).convolved(of("head"), 3, 1, false, false);
    for (index, logistic, expected) in [(0, true, &head), (1, false, &head), (2, false, &depth.pooled())] {
        let expected = expected.by_pixels();
        assert_eq!(outputs[index], Output { len: expected.len(), logistic });
        let result = program.result(1, &workspace, index);
        for (place, (value, expected)) in result.iter().zip(&expected).enumerate() {
            assert!((f64::from(*value) - expected).abs() < 1e-3, "{place}: {value} and {expected}");
        }
    }
}

#[test]
fn what_yunet_has_not_is_refused_by_name() {
    let refused = |change: &dyn Fn(&mut Graph), words: &[&str]| {
        let mut graph = graph();
        change(&mut graph);
        let error = compiled(&graph).map(|_| ()).unwrap_err();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    };
    refused(&|graph| graph.nodes[1].operation = "Gelu".to_owned(), &["Gelu", "stem+"]);
    refused(&|graph| graph.nodes[0].inputs[0] = "nobody".to_owned(), &["nobody"]);
    refused(&|graph| graph.nodes[2].inputs[1] = "depth.w".to_owned(), &["point", "channels"]);
    refused(&|graph| graph.nodes[3] = convolution("depth", "point", 1, 2), &["depth", "groups"]);
    refused(&|graph| graph.nodes[0] = convolution("stem", "picture", 0, 1), &["strides"]);
    refused(&|graph| graph.tensors[0] = Tensor::of_floats("stem.w", &[6, 3, 3, 3], &[0.0; 7]), &["stem.w", "long"]);
    refused(&|graph| graph.tensors[1] = Tensor::of_floats("stem.b", &[2], &[0.0; 2]), &["2 biases", "6 channels"]);
    refused(&|graph| graph.nodes[5].operation = "AveragePool".to_owned(), &["AveragePool"]);
    refused(&|graph| graph.tensors[10] = Tensor::of_floats("scales", &[4], &[1.0, 1.0, 3.0, 3.0]), &["double"]);
    refused(&|graph| graph.nodes[8].inputs[0] = "pooled".to_owned(), &["sizes"]);
    refused(&|graph| graph.nodes[1].outputs.clear(), &["one output"]);
    refused(&|graph| graph.nodes.truncate(12), &["no output score"]);
    refused(
        &|graph| graph.nodes[0] = convolution("stem", "picture", 2, 1).with_text("auto_pad", "SAME_UPPER"),
        &["attribute"],
    );
    refused(&|graph| graph.nodes[5] = graph.nodes[5].clone().with_ints("dilations", &[2, 2]), &["MaxPool", "2 x 2"]);
    refused(&|graph| graph.nodes[4].domain = "of others".to_owned(), &["attribute"]);
    let empty = |graph: &mut Graph| {
        graph.tensors[0] = Tensor::of_floats("stem.w", &[1 << 50, 0, 3, 3], &[]);
        graph.nodes[0].inputs.pop();
    };
    refused(&empty, &["stem", "channels"]);
    // What is on its way out is worked on no more.
    let sigmoid = |graph: &mut Graph| graph.nodes.insert(6, Node::new("Sigmoid", &["pooled"], "between"));
    refused(&|graph| (sigmoid(graph), graph.nodes[7].inputs[0] = "between".to_owned()).1, &["low", "result"]);
    let added = |graph: &mut Graph| graph.nodes.insert(8, Node::new("Sigmoid", &["depth+"], "between"));
    refused(&|graph| (added(graph), graph.nodes[9].inputs[0] = "between".to_owned()).1, &["sum"]);
    // A value that something else reads must stay as it is in front of the ReLU.
    refused(&|graph| graph.nodes[9].inputs[0] = "depth".to_owned(), &["Relu", "depth+"]);
}
