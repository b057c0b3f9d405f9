//! A model as one ONNX file, for programs that are not Vultus.
//!
//! In: a bundle. Out: the bytes of a file whose input [`INPUT`] is one face a picture, `[n, 1, height, width]` in unscaled grey
//! values from 0 to 255, and whose output [`OUTPUT`] is what [`crate::classifier`] says of them, `[n, classes]`: scaling, blur, views,
//! network, mean and temperature are all in it. The network is that of the [plan](crate::plan), batch norms folded. It neither
//! finds faces nor cuts them to size.

mod graph;
#[cfg(test)]
mod tests;

use self::graph::{Named, Windows, Writer};
use crate::bundle::{Bundle, BundleFault};
use crate::inference::{Inference, LEAST_PROBABILITY, Views};
use crate::onnx::{Entry, Graph, Model, Node, Value};
use crate::plan::{Convolution, Step, compile};
use crate::preprocess::Preprocessing;

/// Name of the input.
pub const INPUT: &str = "pixels";

/// Name of the output.
pub const OUTPUT: &str = "probabilities";

/// The axes of pictures `[n, channel, row, column]`.
const ROWS: i64 = 2;
const COLUMNS: i64 = 3;

/// The bytes of an ONNX file (opset 17, IR version 8) that gives the probabilities of `bundle`. Its metadata holds `labels`, the names of
/// the classes in the order of the probabilities, as a JSON list.
///
/// # Errors
/// Parts that do not belong together.
pub fn onnx(bundle: &Bundle) -> Result<Vec<u8>, BundleFault> {
    let network = bundle.resolve()?;
    let Preprocessing { width, height, .. } = bundle.preprocessing;
    let (width, height, classes) = (width as usize, height as usize, bundle.labels.len());
    let Inference { views, temperature } = bundle.inference;

    let mut writer = Writer::default();
    let numbers = writer.scaled(&bundle.preprocessing);
    let pictures = writer.views(&views, numbers, width, height);
    let logits = writer.network(&compile(&network, &bundle.weights)?, (pictures, network.input));
    let each = writer.add_with("Softmax", &[&logits], |node| node.with_int("axis", 1));
    let mean = writer.mean(each, views.count(), classes);
    writer.sharpened(mean, temperature);
    let (nodes, tensors) = writer.finish(OUTPUT);

    let inputs = vec![Value::of_floats(INPUT, &[0, 1, height, width])];
    let outputs = vec![Value::of_floats(OUTPUT, &[0, classes])];
    let graph = Graph { nodes, name: "expressions".to_owned(), tensors, inputs, outputs };
    let names = bundle.labels.names();
    let mut model = Model::new(graph);
    model.producer_name = "vultus".to_owned();
    model.producer_version = env!("CARGO_PKG_VERSION").to_owned();
    model.description = format!(
        "Probabilities of facial expressions ({}) of grey pictures of one face each, {width} x {height} pixels from 0 to 255. \
         Expressions are not feelings: do not decide about people with them.",
        names.join(", ")
    );
    model.metadata = vec![Entry { key: "labels".to_owned(), value: serde_json::json!(names).to_string() }];
    Ok(model.to_bytes())
}

/// What stands in front of the network and behind it.
impl Writer {
    /// Pixels as the network reads them.
    fn scaled(&mut self, preprocessing: &Preprocessing) -> String {
        let (factor, offset) = preprocessing.factor_and_offset();
        let mut numbers = INPUT.to_owned();
        for (operation, constant, neutral) in [("Mul", factor, 1.0), ("Add", offset, 0.0)] {
            if constant != neutral {
                let constant = self.floats(&[1], &[constant]);
                numbers = self.add(operation, &[&numbers, &constant]);
            }
        }
        numbers
    }

    /// All views of the pictures `[n, 1, height, width]`, one after the other, as [`Views::of`] makes them.
    fn views(&mut self, views: &Views, mut pictures: String, width: usize, height: usize) -> String {
        if views.blur > 0.0 {
            // The last row or column goes on beyond the edge.
            let sides = self.sizes(&[0, 0, 1, 1, 0, 0, 1, 1]);
            pictures = self.add_with("Pad", &[&pictures, &sides], |node| node.with_text("mode", "edge"));
            let share = views.blur as f32;
            let taps = [share, 1.0 - 2.0 * share, share];
            let kernel: Vec<f32> = taps.iter().flat_map(|down| taps.map(|across| down * across)).collect();
            let windows = Windows { kernel: [3, 3], stride: 1, padding: 0, groups: 1 };
            pictures = self.slide(&pictures, [1, 1], &kernel, &[0.0], windows);
        }
        let mut all = Vec::new();
        for (x, y) in views.shifts() {
            let rows = (0..height).map(|row| within(row as isize + y, height));
            let moved = if y == 0 { pictures.clone() } else { self.shifted(&pictures, ROWS, rows) };
            for mirrored in [false, true] {
                if mirrored && !views.flip {
                    continue;
                }
                let columns = (0..width).map(|column| {
                    let column = if mirrored { width - 1 - column } else { column };
                    within(column as isize + x, width)
                });
                let same = x == 0 && !mirrored;
                all.push(if same { moved.clone() } else { self.shifted(&moved, COLUMNS, columns) });
            }
        }
        match &all[..] {
            [one] => one.clone(),
            several => {
                let several: Vec<&str> = several.iter().map(String::as_str).collect();
                self.add_with("Concat", &several, |node| node.with_int("axis", 0))
            }
        }
    }

    /// The rows or columns `places` of pictures.
    fn shifted(&mut self, pictures: &str, axis: i64, places: impl Iterator<Item = usize>) -> String {
        let places: Vec<i64> = places.map(|place| place as i64).collect();
        let places = self.sizes(&places);
        self.add_with("Gather", &[pictures, &places], |node| node.with_int("axis", axis))
    }

    /// The logits of the network whose steps these are, for pictures of a name and a shape.
    fn network(&mut self, steps: &[Step<Convolution>], input: Named) -> String {
        let mut values = vec![input];
        for step in steps {
            let value = self.step(step, &values);
            values.push(value);
        }
        values.pop().map(|(logits, _)| logits).unwrap_or_default()
    }

    /// The mean over views of probabilities `[views * n, classes]`.
    fn mean(&mut self, each: String, views: usize, classes: usize) -> String {
        if views == 1 {
            return each;
        }
        let shape = self.sizes(&[views as i64, -1, classes as i64]);
        let by_view = self.add("Reshape", &[&each, &shape]);
        self.add_with("ReduceMean", &[&by_view], |node| node.with_ints("axes", &[0]).with_int("keepdims", 0))
    }

    /// As [`crate::inference::sharpen`].
    fn sharpened(&mut self, probabilities: String, temperature: f32) {
        if temperature == 1.0 {
            return;
        }
        let least = self.floats(&[1], &[LEAST_PROBABILITY]);
        let probabilities = self.add("Max", &[&probabilities, &least]);
        let rows = |node: Node| node.with_ints("axes", &[1]).with_int("keepdims", 1);
        let highest = self.add_with("ReduceMax", &[&probabilities], rows);
        let relative = self.add("Div", &[&probabilities, &highest]);
        let power = self.floats(&[1], &[1.0 / temperature]);
        let powers = self.add("Pow", &[&relative, &power]);
        let axis = self.sizes(&[1]);
        let sum = self.add_with("ReduceSum", &[&powers, &axis], |node| node.with_int("keepdims", 1));
        self.add("Div", &[&powers, &sum]);
    }
}

/// The nearest place in a row of `length`.
fn within(place: isize, length: usize) -> usize {
    place.clamp(0, length as isize - 1) as usize
}
