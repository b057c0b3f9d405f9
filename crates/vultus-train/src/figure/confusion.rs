//! Figure 3: the confusion matrix as a heat map.
//!
//! In: an evaluation. Out: one SVG with the true classes as rows, the predicted ones as columns, and in every cell the
//! count and the share of its row, which is also what its colour says.

use serde::Serialize;
use vultus::wording::counted;

use super::{FONT_FAMILY, FigureError, palette, shortened_within, template, text_width};
use crate::evaluate::Evaluation;

const TEMPLATE: &str = include_str!("../../templates/confusion.svg.jinja");

/// Size of the class names.
const LABEL_SIZE: f64 = 14.0;

/// Characters of a class name before it is cut.
const LABEL_LIMIT: usize = 22;

/// Colours of the heat map for shares 0, one half and 1.
const RAMP: [[f64; 3]; 3] = [[244.0, 248.0, 253.0], [96.0, 158.0, 214.0], [16.0, 54.0, 104.0]];

/// Text on light and on dark cells: only pure black and white leave no shade between them below a contrast of 4.5.
const CELL_INKS: [[f64; 3]; 2] = [[0.0, 0.0, 0.0], [255.0, 255.0, 255.0]];

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
    label_size: f64,
    left: f64,
    top: f64,
    cell_width: f64,
    cell_height: f64,
    grid_width: f64,
    grid_height: f64,
    rows: Vec<AxisLabel>,
    columns: Vec<AxisLabel>,
    columns_turned: bool,
    cells: Vec<Cell>,
    share_size: f64,
    count_size: f64,
    counts_shown: bool,
    ramp: Vec<RampStep>,
    ramp_x: f64,
    ramp_height: f64,
}

#[derive(Serialize)]
struct AxisLabel {
    text: String,
    position: f64,
    support: Option<String>,
}

#[derive(Serialize)]
struct Cell {
    x: f64,
    y: f64,
    fill: String,
    ink: String,
    share: String,
    count: usize,
    description: String,
}

#[derive(Serialize)]
struct RampStep {
    y: f64,
    fill: String,
}

/// Draws the confusion matrix of `evaluation`.
///
/// # Errors
/// An evaluation without classes.
pub fn draw(evaluation: &Evaluation) -> Result<String, FigureError> {
    let classes = evaluation.labels.len();
    if classes == 0 {
        return Err(FigureError::Nothing { figure: "confusion", needed: "at least one class" });
    }
    let (cell_width, cell_height, share_size) = match classes {
        ..=10 => (88.0, 58.0, 15.0),
        11..=20 => (62.0, 44.0, 12.0),
        _ => (40.0, 30.0, 10.0),
    };
    let names: Vec<String> = evaluation.labels.iter().map(|label| shortened_within(label, LABEL_LIMIT)).collect();
    let widest = names.iter().map(|name| text_width(name, LABEL_SIZE)).fold(0.0, f64::max);
    let columns_turned = widest > cell_width - 6.0;
    let left = (widest + 46.0).max(110.0).round();
    let header = if columns_turned { (widest * 0.72 + 24.0).round() } else { 30.0 };
    let top = 34.0 + header;
    let (grid_width, grid_height) = (cell_width * classes as f64, cell_height * classes as f64);
    let overhang = if columns_turned { widest * 0.72 - cell_width / 2.0 + 8.0 } else { 0.0 };
    let axis = |size: f64, support: bool| {
        let label = |(index, name): (usize, &String)| AxisLabel {
            text: name.clone(),
            position: (index as f64 + 0.5) * size,
            support: support.then(|| format!("n = {}", evaluation.per_class[index].support)),
        };
        names.iter().enumerate().map(label).collect()
    };
    let ramp_steps = 40;
    let drawing = Drawing {
        title: format!(
            "Confusion matrix on {}, {}: rows are true classes, columns predicted classes",
            evaluation.split,
            counted(evaluation.n, "image")
        ),
        width: left + grid_width + overhang.max(84.0),
        height: top + grid_height + 16.0,
        font: FONT_FAMILY,
        paper: palette::PAPER,
        ink: palette::INK,
        muted: palette::MUTED,
        grid: palette::GRID,
        label_size: LABEL_SIZE,
        left,
        top,
        cell_width,
        cell_height,
        grid_width,
        grid_height,
        rows: axis(cell_height, true),
        columns: axis(cell_width, false),
        columns_turned,
        cells: cells(evaluation, cell_width, cell_height),
        share_size,
        count_size: share_size - 3.0,
        counts_shown: classes <= 20,
        ramp: (0..ramp_steps)
            .map(|step| RampStep {
                y: grid_height * f64::from(step) / f64::from(ramp_steps),
                fill: css(colour(1.0 - (f64::from(step) + 0.5) / f64::from(ramp_steps))),
            })
            .collect(),
        ramp_x: left + grid_width + 22.0,
        ramp_height: grid_height / f64::from(ramp_steps) + 0.5,
    };
    template::render("confusion.svg", TEMPLATE, &drawing)
        .map_err(|message| FigureError::Template { name: "confusion.svg", message })
}

fn cells(evaluation: &Evaluation, width: f64, height: f64) -> Vec<Cell> {
    let mut cells = Vec::new();
    for (row, (counts, shares)) in evaluation.confusion.iter().zip(&evaluation.confusion_normalized).enumerate() {
        for (column, (&count, &share)) in counts.iter().zip(shares).enumerate() {
            let fill = colour(share);
            let (truth, predicted) = (&evaluation.labels[row], &evaluation.labels[column]);
            cells.push(Cell {
                x: column as f64 * width,
                y: row as f64 * height,
                fill: css(fill),
                ink: css(ink_on(fill)),
                share: percent(share),
                count,
                description: format!(
                    "true {truth}, predicted {predicted}: {}, {:.1} %",
                    counted(count, "image"),
                    share * 100.0
                ),
            });
        }
    }
    cells
}

/// One decimal below ten percent, none above.
fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent == 0.0 || percent >= 9.95 { format!("{percent:.0} %") } else { format!("{percent:.1} %") }
}

fn colour(share: f64) -> [f64; 3] {
    let position = share.clamp(0.0, 1.0) * 2.0;
    let low = if position < 1.0 { 0 } else { 1 };
    let weight = position - low as f64;
    std::array::from_fn(|channel| (RAMP[low][channel] * (1.0 - weight) + RAMP[low + 1][channel] * weight).round())
}

/// The cell ink with the higher contrast.
fn ink_on(fill: [f64; 3]) -> [f64; 3] {
    let [dark, light] = CELL_INKS;
    if contrast(dark, fill) >= contrast(light, fill) { dark } else { light }
}

/// Contrast ratio of two sRGB colours (WCAG 2.1), 1 to 21.
fn contrast(a: [f64; 3], b: [f64; 3]) -> f64 {
    let luminance = |colour: [f64; 3]| {
        let linear = colour.map(|value| {
            let value = value / 255.0;
            if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        });
        0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    };
    let (a, b) = (luminance(a), luminance(b));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

fn css([red, green, blue]: [f64; 3]) -> String {
    format!("#{:02x}{:02x}{:02x}", red as u8, green as u8, blue as u8)
}

#[cfg(test)]
mod tests {
    use vultus::labels::Labels;

    use super::*;

    fn evaluation(labels: &[&str]) -> Evaluation {
        let labels = Labels::new(labels).unwrap();
        let classes = labels.len();
        let truth: Vec<usize> = (0..classes * 8).map(|index| index % classes).collect();
        let mut probabilities = vec![0.0; truth.len() * classes];
        for (row, &class) in truth.iter().enumerate() {
            let predicted = if row < classes * 5 { class } else { 0 };
            probabilities[row * classes + predicted] = 1.0;
        }
        Evaluation::compute("test", &labels, &truth, &probabilities).unwrap()
    }

    #[test]
    fn every_cell_shows_its_count_and_share() {
        let svg = draw(&evaluation(&["angry", "happy", "sad"])).unwrap();
        for text in
            [">angry<", ">happy<", ">sad<", "predicted", "n = 8", ">100 %<", ">62 %<", ">38 %<", ">0 %<", ">5<", ">3<"]
        {
            assert!(svg.contains(text), "{text} is missing:\n{svg}");
        }
        assert!(svg.contains("true happy, predicted angry: 3 images, 37.5 %"));
        assert_eq!(svg.matches("class=\"cell\"").count(), 9);
    }

    #[test]
    fn names_are_escaped_and_cut_and_many_classes_fit() {
        let svg = draw(&evaluation(&["<script>alert(1)</script>", "a_class_with_a_very_long_name"])).unwrap();
        assert!(!svg.contains("<script>") && svg.contains("&lt;script&gt;"));
        assert!(svg.contains("a_class_wit…_long_name"));
        let names: Vec<String> = (0..30).map(|index| format!("class {index}")).collect();
        let svg = draw(&evaluation(&names.iter().map(String::as_str).collect::<Vec<_>>())).unwrap();
        assert_eq!(svg.matches("class=\"cell\"").count(), 900);
    }

    #[test]
    fn text_is_legible_on_every_shade() {
        for step in 0..=100 {
            let fill = colour(f64::from(step) / 100.0);
            let ratio = contrast(ink_on(fill), fill);
            assert!(ratio >= 4.5, "share {step} %: contrast {ratio}");
        }
    }
}
