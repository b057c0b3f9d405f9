//! From the nodes of an ONNX file to the steps of a program.
//!
//! In: a graph of convolutions, max poolings, enlargements and sums on one picture. Out: a [`Program`] on pictures
//! `[height, width, channel]` that gives the results of the names asked for. Whatever else a file contains is refused:
//! the network is YuNet's, and this is no runtime for others.

use std::collections::BTreeMap;

use vultus_kernels::activation::Activation;
use vultus_kernels::convolution::ConvolutionShape;
use vultus_kernels::depthwise::DepthwiseShape;
use vultus_kernels::pooling::PoolingShape;

use crate::onnx::{Graph, Node, Tensor};
use crate::plan::{Convolution, Operation, Place, Program, Step};

/// Most values of a picture between two steps: four times YuNet's own on the largest picture that it takes.
const MOST_VALUES: usize = 1 << 26;

/// Most values of all results and weights together.
const MOST_VALUES_IN_ALL: usize = 1 << 28;

/// Most channels.
const MOST_CHANNELS: usize = 4096;

/// A value of the graph.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Planes {
    place: Place,
    height: usize,
    width: usize,
    channels: usize,
    /// Whether it should be the logistic function of what it is.
    logistic: bool,
    /// Whether its channels were moved behind its pixels, where they always are here.
    moved: bool,
}

impl Planes {
    fn len(&self) -> usize {
        self.height * self.width * self.channels
    }

    /// Whether it is as computed, and not on its way out of the network.
    fn is_plain(&self) -> bool {
        !self.logistic && !self.moved
    }
}

/// A result of a network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Output {
    /// Values: those of a pixel side by side.
    pub(super) len: usize,
    /// Whether the file applies the logistic function to it, which is left to the caller.
    pub(super) logistic: bool,
}

/// Compiles `graph`, whose input `[height, width, 3]` is called `input`, to a program that gives `results`.
///
/// # Errors
/// What the file has that YuNet has not.
pub(super) fn compile<'a>(
    graph: &'a Graph,
    input: &'a str,
    (height, width): (usize, usize),
    results: &'a [String],
) -> Result<(Program, Vec<Output>), String> {
    let picture = Planes { place: 0, height, width, channels: 3, logistic: false, moved: false };
    let mut readers: BTreeMap<&str, usize> = BTreeMap::new();
    for name in graph.nodes.iter().flat_map(|node| &node.inputs).chain(results) {
        *readers.entry(name).or_default() += 1;
    }
    let mut compiler = Compiler {
        tensors: graph.tensors.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect(),
        readers,
        values: BTreeMap::from([(input, picture)]),
        steps: Vec::new(),
        enlarged: BTreeMap::new(),
        values_in_all: 0,
    };
    for node in &graph.nodes {
        let refused = |reason: String| {
            let name = node.outputs.first().map_or("", String::as_str);
            format!("its operation {} that gives {name:?} is none of YuNet's: {reason}", node.operation)
        };
        compiler.node(node).map_err(refused)?;
    }
    let found = results
        .iter()
        .map(|name| match compiler.values.get(name.as_str()) {
            Some(value) if value.moved => Ok(*value),
            _ => Err(format!("it has no output {name}")),
        })
        .collect::<Result<Vec<Planes>, String>>()?;
    let places: Vec<Place> = found.iter().map(|value| value.place).collect();
    let outputs = found.iter().map(|value| Output { len: value.len(), logistic: value.logistic }).collect();
    Ok((Program::new(compiler.steps, picture.len(), &places, 1), outputs))
}

struct Compiler<'a> {
    tensors: BTreeMap<&'a str, &'a Tensor>,
    /// How often each value is read.
    readers: BTreeMap<&'a str, usize>,
    values: BTreeMap<&'a str, Planes>,
    steps: Vec<Step<Convolution>>,
    /// The values that are to be enlarged when they are added to another.
    enlarged: BTreeMap<&'a str, Planes>,
    /// Values of the results and weights so far.
    values_in_all: usize,
}

impl<'a> Compiler<'a> {
    fn node(&mut self, node: &'a Node) -> Result<(), String> {
        let [output] = &node.outputs[..] else { return Err("it has not one output".to_owned()) };
        if node.operation == "Constant" {
            let tensor = node.tensor("value").ok_or("it has no value")?;
            self.tensors.insert(output, tensor);
            return Ok(());
        }
        let name = node.inputs.first().ok_or("it has no input")?.as_str();
        if node.operation == "Add" {
            return self.add(node, output);
        }
        let x = *self.values.get(name).ok_or_else(|| format!("nothing gives {name:?}"))?;
        if !matches!(node.text("auto_pad"), b"" | b"NOTSET") || !node.domain.is_empty() || !node.ints("axes").is_empty()
        {
            return Err("it has an attribute that does not occur there".to_owned());
        }
        let value = match node.operation.as_str() {
            "Conv" | "MaxPool" | "Resize" if !x.is_plain() => return Err("it works on a result".to_owned()),
            "Conv" => self.convolution(node, x)?,
            "Relu" => self.relu(name, x)?,
            "MaxPool" => self.max_pool(node, x)?,
            "Resize" => {
                self.resize(node)?;
                self.enlarged.insert(output, x);
                return Ok(());
            }
            "Transpose" if node.ints("perm") == [0, 2, 3, 1] && x.is_plain() => Planes { moved: true, ..x },
            // Pixels in a row: they are already.
            "Reshape" if x.moved && self.is_sizes(node, 1) => x,
            "Sigmoid" if !x.logistic => Planes { logistic: true, ..x },
            _ => return Err("it does not occur there".to_owned()),
        };
        self.values.insert(output, value);
        Ok(())
    }

    fn is_sizes(&self, node: &Node, input: usize) -> bool {
        let tensor = node.inputs.get(input).and_then(|name| self.tensors.get(name.as_str()));
        tensor.is_some_and(|tensor| tensor.is_sizes())
    }

    /// The tensor that is an input of a node.
    fn tensor(&self, node: &Node, input: usize) -> Result<(Vec<usize>, Vec<f32>), String> {
        let name = node.inputs.get(input).ok_or_else(|| format!("it has no input {input}"))?;
        let tensor = self.tensors.get(name.as_str()).ok_or_else(|| format!("{name:?} is no tensor of the file"))?;
        let values = tensor.floats().ok_or_else(|| format!("{name:?} is not as long as it says, or no floats"))?;
        Ok((tensor.dims().unwrap_or_default(), values))
    }

    fn push(
        &mut self,
        x: Planes,
        addend: Option<Place>,
        to: Planes,
        operation: Operation<Convolution>,
    ) -> Result<Planes, String> {
        let size = [to.height, to.width, to.channels].into_iter().try_fold(1_usize, usize::checked_mul);
        let weights = match &operation {
            Operation::Convolution(Convolution { weight, .. }) | Operation::Depthwise { weight, .. } => weight.len(),
            _ => 0,
        };
        self.values_in_all = self.values_in_all.saturating_add(size.unwrap_or(0)).saturating_add(weights);
        if size.is_none_or(|size| size > MOST_VALUES) || self.values_in_all > MOST_VALUES_IN_ALL {
            return Err("its result is too large".to_owned());
        }
        let place = self.steps.len() + 1;
        self.steps.push(Step { input: x.place, addend, output: place, inputs: x.len(), outputs: to.len(), operation });
        Ok(Planes { place, ..to })
    }

    fn convolution(&mut self, node: &Node, x: Planes) -> Result<Planes, String> {
        let (dims, weight) = self.tensor(node, 1)?;
        let &[out_channels, inputs, kernel_height, kernel_width] = &dims[..] else {
            return Err("its weights have not four dimensions".to_owned());
        };
        if out_channels == 0 || out_channels.max(inputs) > MOST_CHANNELS {
            return Err(format!("{inputs} to {out_channels} channels are none, or too many"));
        }
        let bias = if node.inputs.len() > 2 { self.tensor(node, 2)?.1 } else { vec![0.0; out_channels] };
        let side = |sizes: &[i64], default: usize| match sizes {
            [] => Some(default),
            [first, others @ ..] if others.iter().all(|size| size == first) => usize::try_from(*first).ok(),
            _ => None,
        };
        let stride = side(node.ints("strides"), 1).filter(|&stride| (1..=8).contains(&stride));
        let padding = side(node.ints("pads"), 0).filter(|&padding| padding <= 8);
        let (Some(stride), Some(padding), Some(1)) = (stride, padding, side(node.ints("dilations"), 1)) else {
            return Err("its strides, pads or dilations are not alike, or not usual".to_owned());
        };
        let fits = |side: usize, kernel: usize| kernel > 0 && kernel <= 15 && side + 2 * padding >= kernel;
        if !fits(x.height, kernel_height) || !fits(x.width, kernel_width) {
            return Err(format!("a kernel of {kernel_height} x {kernel_width} does not fit"));
        }
        if bias.len() != out_channels {
            return Err(format!("it has {} biases for {out_channels} channels", bias.len()));
        }
        let out = |side: usize, kernel: usize| (side + 2 * padding - kernel) / stride + 1;
        let to = Planes {
            height: out(x.height, kernel_height),
            width: out(x.width, kernel_width),
            channels: out_channels,
            ..x
        };
        let taps = kernel_height * kernel_width;
        let activation = Activation::Linear;
        let groups = usize::try_from(node.int("group", 1)).unwrap_or(0);
        if groups == x.channels && inputs == 1 && out_channels == x.channels && kernel_height == kernel_width {
            // [channel, 1, row, column] to [row, column, channel].
            let places = (0..taps).flat_map(|tap| (0..out_channels).map(move |channel| channel * taps + tap));
            let weight = places.map(|place| weight[place]).collect();
            let shape = DepthwiseShape {
                batch: 1,
                channels: x.channels,
                in_height: x.height,
                in_width: x.width,
                kernel: kernel_height,
                stride,
                padding,
            };
            return self.push(x, None, to, Operation::Depthwise { shape, weight, bias, activation });
        }
        if groups != 1 || inputs != x.channels {
            return Err(format!("{groups} groups of {inputs} channels do not fit {} channels", x.channels));
        }
        // [out, in, row, column] to [row, column, in, out].
        let mut ours = vec![0.0; weight.len()];
        for (place, value) in weight.into_iter().enumerate() {
            let (filter, input, tap) = (place / (inputs * taps), place / taps % inputs, place % taps);
            ours[(tap * inputs + input) * out_channels + filter] = value;
        }
        let shape = ConvolutionShape {
            batch: 1,
            in_channels: inputs,
            in_height: x.height,
            in_width: x.width,
            out_channels,
            kernel_height,
            kernel_width,
            stride,
            padding,
        };
        let convolution = Convolution { shape, weight: ours, bias, activation, pool: false };
        self.push(x, None, to, Operation::Convolution(convolution))
    }

    /// Folded into the convolution in front of it.
    fn relu(&mut self, name: &str, x: Planes) -> Result<Planes, String> {
        let alone = self.readers.get(name) == Some(&1) && x.is_plain();
        match self.steps.last_mut() {
            Some(Step {
                output,
                operation:
                    Operation::Convolution(Convolution { activation: activation @ Activation::Linear, .. })
                    | Operation::Depthwise { activation: activation @ Activation::Linear, .. },
                ..
            }) if *output == x.place && alone => {
                *activation = Activation::Relu;
                Ok(x)
            }
            _ => Err("it does not follow a convolution, or something else reads that, too".to_owned()),
        }
    }

    fn max_pool(&mut self, node: &Node, x: Planes) -> Result<Planes, String> {
        let plain = node.ints("pads").iter().all(|&pad| pad == 0)
            && node.ints("dilations").iter().all(|&dilation| dilation == 1)
            && node.int("ceil_mode", 0) == 0;
        if node.ints("kernel_shape") != [2, 2] || node.ints("strides") != [2, 2] || !plain || x.height.min(x.width) < 2
        {
            return Err("it is not of 2 x 2 pixels".to_owned());
        }
        let to = Planes { height: x.height / 2, width: x.width / 2, ..x };
        let shape =
            PoolingShape { batch: 1, channels: x.channels, in_height: x.height, in_width: x.width, size: 2, stride: 2 };
        self.push(x, None, to, Operation::MaxPool(shape))
    }

    /// Twice the height and width, each pixel four times.
    fn resize(&self, node: &Node) -> Result<(), String> {
        let (_, scales) = self.tensor(node, 2)?;
        let nearest =
            node.text("mode") == b"nearest" && matches!(node.text("nearest_mode"), b"floor" | b"round_prefer_floor");
        let corners = node.text("coordinate_transformation_mode") == b"asymmetric";
        if scales != [1.0, 1.0, 2.0, 2.0] || !nearest || !corners {
            return Err("it does not double each pixel".to_owned());
        }
        Ok(())
    }

    /// A value and another of half its size, enlarged.
    fn add(&mut self, node: &Node, output: &'a str) -> Result<(), String> {
        let [first, second] = &node.inputs[..] else { return Err("it has not two inputs".to_owned()) };
        let pair = |large: &str, small: &str| Some((*self.values.get(large)?, *self.enlarged.get(small)?));
        let (large, small) = pair(first, second).or_else(|| pair(second, first)).ok_or("nothing is enlarged")?;
        let doubled = Planes { height: 2 * small.height, width: 2 * small.width, ..small };
        if (doubled.height, doubled.width, doubled.channels) != (large.height, large.width, large.channels)
            || !large.is_plain()
        {
            return Err("the two have different sizes".to_owned());
        }
        let Planes { width, channels, .. } = small;
        let sum = self.push(small, Some(large.place), doubled, Operation::Enlarge { width, channels })?;
        self.values.insert(output, sum);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
