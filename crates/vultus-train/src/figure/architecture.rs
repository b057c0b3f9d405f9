//! Figure 1: the network, layer by layer.
//!
//! In: a resolved network and the class names. Out: one SVG, from the picture at the top to the probabilities at the
//! bottom, with the shape, parameters and multiply-adds of every layer. Planes are drawn to scale (side by height,
//! stack by the logarithm of their number). The layers of a residual layer are indented; the line beside them is what
//! goes round them, on which the shortcut's layers lie, if it has any, and both ways meet in the row of the sum.

use serde::Serialize;
use vultus::network::{Activation, FeatureShape, LayerConfig, ResolvedLayer, ResolvedNetwork};

use super::{FONT_FAMILY, FigureError, grouped, palette, shortened, template};

const TEMPLATE: &str = include_str!("../../templates/architecture.svg.jinja");

const WIDTH: f64 = 980.0;

/// Height of a row that changes the shape, and of one that does not.
const ROW_HEIGHTS: [f64; 2] = [66.0, 40.0];

/// Height of a row inside a residual layer that does not change the shape.
const INNER_ROW_HEIGHT: f64 = 32.0;

/// By how much the layers of a residual layer are indented.
const INDENT: f64 = 24.0;

/// Left edge of the rows.
const LEFT: f64 = 130.0;

/// Where values flow from row to row.
const FLOW: f64 = 330.0;

/// Height of the head of the columns.
const HEADER: f64 = 34.0;

/// Side of a plane of the input's height.
const PLANE_SIDE: f64 = 34.0;

/// Characters of the list of class names before it is cut.
const CLASSES_LIMIT: usize = 52;

#[derive(Serialize)]
struct Drawing {
    title: String,
    width: f64,
    height: f64,
    font: &'static str,
    paper: &'static str,
    ink: &'static str,
    muted: &'static str,
    grid: &'static str,
    panel: &'static str,
    rows: Vec<Row>,
    lines: Vec<Line>,
    total_y: f64,
    parameters: String,
    trainable: String,
    multiply_adds: String,
}

#[derive(Serialize)]
struct Row {
    y: f64,
    height: f64,
    left: f64,
    name: String,
    details: String,
    colour: &'static str,
    shape: String,
    parameters: String,
    multiply_adds: String,
    planes: Vec<Plane>,
    bar: Option<f64>,
    /// Where values come in from above.
    arrows: Vec<f64>,
}

/// A way past rows, from the foot of one to the head of another.
#[derive(Serialize)]
struct Line {
    x: f64,
    top: f64,
    bottom: f64,
}

#[derive(Serialize)]
struct Plane {
    x: f64,
    y: f64,
    side: f64,
}

/// Draws `network`, whose outputs are named by `labels`.
///
/// # Errors
/// A network without layers.
pub fn draw(network: &ResolvedNetwork, labels: &[String]) -> Result<String, FigureError> {
    if network.layers.is_empty() {
        return Err(FigureError::Nothing { figure: "architecture", needed: "at least one layer" });
    }
    let mut sketch = Sketch { network, rows: Vec::new(), ways: Vec::new() };
    sketch.rows.push(Row {
        name: "input".to_owned(),
        details: "grayscale face".to_owned(),
        colour: palette::MUTED,
        shape: multiplied(&network.input),
        arrows: Vec::new(),
        ..blank(&network.input, network, ROW_HEIGHTS[0])
    });
    sketch.layers(&network.layers, 0, FLOW);
    let last = network.layers.last().map_or(network.input, |layer| layer.output);
    sketch.rows.push(Row {
        name: "softmax".to_owned(),
        details: shortened(&labels.join(", "), CLASSES_LIMIT),
        colour: palette::MUTED,
        shape: grouped(network.classes as u64),
        ..blank(&last, network, ROW_HEIGHTS[1])
    });
    let Sketch { mut rows, ways, .. } = sketch;
    let mut y = HEADER;
    for row in &mut rows {
        row.y = y;
        y += row.height;
    }
    let line =
        |way: Way| Line { x: way.x, top: rows[way.from].y + rows[way.from].height - 5.0, bottom: rows[way.to].y };
    let lines = ways.into_iter().map(line).collect();
    // A residual layer is the layers in it.
    let layers = network.every_layer().filter(|layer| !matches!(layer.config, LayerConfig::Residual(_))).count();
    let drawing = Drawing {
        title: format!(
            "Architecture: {} layers, {} parameters, {} multiply-adds for one picture",
            layers,
            grouped(network.parameter_count() as u64),
            grouped(network.multiply_adds())
        ),
        width: WIDTH,
        height: y + 40.0,
        font: FONT_FAMILY,
        paper: palette::PAPER,
        ink: palette::INK,
        muted: palette::MUTED,
        grid: palette::GRID,
        panel: palette::PANEL,
        rows,
        lines,
        total_y: y + 24.0,
        parameters: grouped(network.parameter_count() as u64),
        trainable: grouped(network.trainable_count() as u64),
        multiply_adds: millions(network.multiply_adds()),
    };
    template::render("architecture.svg", TEMPLATE, &drawing)
        .map_err(|message| FigureError::Template { name: "architecture.svg", message })
}

/// Rows as they are collected, before their heights add up.
struct Sketch<'a> {
    network: &'a ResolvedNetwork,
    rows: Vec<Row>,
    ways: Vec<Way>,
}

/// A line between two rows, by their indices.
struct Way {
    x: f64,
    from: usize,
    to: usize,
}

impl Sketch<'_> {
    /// Layers that follow one another, inside `depth` residual layers. Values reach the first at `arrow`.
    fn layers(&mut self, layers: &[ResolvedLayer], depth: usize, arrow: f64) {
        for layer in layers {
            match &layer.config {
                LayerConfig::Residual(residual) => self.residual(layer, residual.activation, depth, arrow),
                _ => self.rows.push(layer_row(layer, self.network, depth, arrow)),
            }
        }
    }

    fn residual(&mut self, layer: &ResolvedLayer, activation: Activation, depth: usize, arrow: f64) {
        let network = self.network;
        let row = |name: &str, details: String, arrows: Vec<f64>| Row {
            left: LEFT + INDENT * depth as f64,
            name: name.to_owned(),
            details,
            planes: Vec::new(),
            bar: None,
            arrows,
            ..blank(&layer.output, network, INNER_ROW_HEIGHT)
        };
        let beside = LEFT + INDENT * (depth as f64 + 0.5);
        let fork = self.rows.len();
        let addend = if layer.shortcut.is_empty() { "its input" } else { "the shortcut on the line" };
        self.rows.push(row("residual", format!("its layers + {addend}"), vec![arrow]));
        self.layers(&layer.body, depth + 1, FLOW);
        let body_ends = self.rows.len() - 1;
        self.layers(&layer.shortcut, depth, beside);
        let sum = self.rows.len();
        if sum > body_ends + 1 {
            self.ways.push(Way { x: FLOW, from: body_ends, to: sum });
        }
        self.ways.push(Way { x: beside, from: fork, to: sum });
        let details = match activation {
            Activation::Linear => String::new(),
            other => other.name().to_owned(),
        };
        let shape = multiplied(&layer.output);
        self.rows.push(Row { shape, ..row("sum", details, vec![beside, FLOW]) });
    }
}

fn layer_row(layer: &ResolvedLayer, network: &ResolvedNetwork, depth: usize, arrow: f64) -> Row {
    let changed = layer.input != layer.output;
    let parameters = layer.parameter_count() as u64;
    let low = if depth > 0 || arrow != FLOW { INNER_ROW_HEIGHT } else { ROW_HEIGHTS[1] };
    let row = blank(&layer.output, network, if changed { ROW_HEIGHTS[0] } else { low });
    Row {
        left: LEFT + INDENT * depth as f64,
        arrows: vec![arrow],
        name: layer.kind().replace('_', " "),
        details: layer.details(),
        colour: match layer.kind() {
            "conv" | "depthwise_conv" => palette::BLUE,
            "dense" | "squeeze_excitation" => palette::GREEN,
            "max_pool" | "average_pool" | "global_average_pool" => palette::ORANGE,
            "batch_norm" => palette::PURPLE,
            _ => palette::MUTED,
        },
        shape: if changed { multiplied(&layer.output) } else { String::new() },
        parameters: if parameters == 0 { String::new() } else { grouped(parameters) },
        multiply_adds: if layer.multiply_adds == 0 { String::new() } else { millions(layer.multiply_adds) },
        planes: if changed { row.planes } else { Vec::new() },
        bar: row.bar.filter(|_| changed),
        ..row
    }
}

/// A row that shows `shape` and says nothing yet.
fn blank(shape: &FeatureShape, network: &ResolvedNetwork, height: f64) -> Row {
    let scale = |features: usize| (features.max(1) as f64).log2();
    let widest = network.every_layer().map(|layer| layer.output.channels()).max().unwrap_or(1).max(2);
    let (planes, bar) = match *shape {
        FeatureShape::Flat { features } => (Vec::new(), Some((8.0 + 62.0 * scale(features) / scale(widest)).round())),
        FeatureShape::Planes { channels, height: rows, .. } => {
            let input_rows = match network.input {
                FeatureShape::Planes { height, .. } => height.max(1),
                FeatureShape::Flat { .. } => rows.max(1),
            };
            let side = (6.0 + (PLANE_SIDE - 6.0) * rows as f64 / input_rows as f64).min(PLANE_SIDE);
            let count = 1 + (scale(channels) * 0.75).round().min(6.0) as usize;
            let plane = |index: usize| Plane {
                x: (index as f64 * 4.0).round(),
                y: ((count - 1 - index) as f64 * 3.0 - (side + (count - 1) as f64 * 3.0) / 2.0).round(),
                side: side.round(),
            };
            // The one in front is drawn last.
            ((0..count).rev().map(plane).collect(), None)
        }
    };
    Row {
        y: 0.0,
        height,
        left: LEFT,
        name: String::new(),
        details: String::new(),
        colour: palette::MUTED,
        shape: String::new(),
        parameters: String::new(),
        multiply_adds: String::new(),
        planes,
        bar,
        arrows: vec![FLOW],
    }
}

fn multiplied(shape: &FeatureShape) -> String {
    match *shape {
        FeatureShape::Planes { channels, height, width } => format!("{channels} × {height} × {width}"),
        FeatureShape::Flat { features } => grouped(features as u64),
    }
}

/// `35347456` as `35.35 M`; small numbers in full.
fn millions(number: u64) -> String {
    if number < 100_000 { grouped(number) } else { format!("{:.2} M", number as f64 / 1e6) }
}

#[cfg(test)]
mod tests {
    use vultus::network::{ConvConfig, DenseConfig, FlattenConfig, NetworkConfig, Padding, ResidualConfig};

    use super::*;

    fn network() -> ResolvedNetwork {
        let conv = ConvConfig {
            filters: 64,
            kernel: 3,
            stride: 1,
            padding: Padding::Valid,
            bias: true,
            activation: Activation::Relu,
            l2: 0.0,
        };
        let layers = vec![
            LayerConfig::Conv(conv),
            LayerConfig::Flatten(FlattenConfig {}),
            LayerConfig::Dense(DenseConfig { units: 8, activation: Activation::Linear, l2: 0.0 }),
        ];
        NetworkConfig { layers }.resolve(48, 48, 2).unwrap()
    }

    #[test]
    fn shows_shapes_parameters_and_costs() {
        let svg = draw(&network(), &["happy".into(), "a < b".into()]).unwrap();
        for text in [
            "1 × 48 × 48",
            "64 × 46 × 46",
            ">135,424<",
            "64 filters 3x3",
            ">640<",
            ">1.22 M<",
            ">1,083,400<",
            "happy, a &lt; b",
            "softmax",
            "1,084,058",
        ] {
            assert!(svg.contains(text), "{text} is missing:\n{svg}");
        }
        assert_eq!(svg.matches("class=\"layer\"").count(), 6);
    }

    #[test]
    fn residual_layers_show_both_ways_and_the_sum() {
        let conv = |kernel, stride| {
            LayerConfig::Conv(ConvConfig {
                filters: 8,
                kernel,
                stride,
                padding: Padding::Same,
                bias: false,
                activation: Activation::Linear,
                l2: 0.0,
            })
        };
        let block =
            |layers, shortcut| LayerConfig::Residual(ResidualConfig { activation: Activation::Relu, layers, shortcut });
        let layers = vec![
            block(vec![conv(3, 2), conv(3, 1)], vec![conv(1, 2)]),
            block(vec![conv(3, 1)], vec![]),
            LayerConfig::Flatten(FlattenConfig {}),
        ];
        let network = NetworkConfig { layers }.resolve(48, 48, 2).unwrap();
        let svg = draw(&network, &["a".into(), "b".into()]).unwrap();
        for text in
            ["Architecture: 6 layers", "its layers + its input", "the shortcut on the line", ">sum<", "8 × 24 × 24"]
        {
            assert!(svg.contains(text), "{text} is missing:\n{svg}");
        }
        // Round both blocks, and from the first one's layers past its shortcut.
        assert_eq!(svg.matches("class=\"way\"").count(), 3);
        // Input, 5 and 3 rows of the blocks, flatten, head, softmax.
        assert_eq!(svg.matches("class=\"layer\"").count(), 12, "{svg}");
    }

    #[test]
    fn a_network_without_layers_is_an_error() {
        let empty = ResolvedNetwork { input: FeatureShape::Flat { features: 1 }, classes: 2, layers: Vec::new() };
        assert!(draw(&empty, &[]).is_err());
    }
}
