//! Charts with axes: the only file that knows the plotting crate (`kuva`).
//!
//! In: series of points, columns or intervals with the names of their axes. Out: SVG text with a title, a `viewBox`
//! and the colours of the palette. It does not know what the numbers mean.

use std::sync::Arc;

use kuva::backend::svg::SvgBackend;
use kuva::plot::scatter::ScatterPlot;
use kuva::plot::{ForestPlot, Histogram, LinePlot};
use kuva::render::annotations::ReferenceLine;
use kuva::render::figure::Figure;
use kuva::render::layout::{Layout, TickFormat};
use kuva::render::plots::Plot;
use kuva::render::render::{Scene, render_multiple};
use kuva::render::theme::Theme;
use minijinja::HtmlEscape;
use sha2::{Digest, Sha256};

use super::{FONT_FAMILY, palette, text_width};
use crate::fingerprint::hexadecimal;

/// Below this many points a line also gets a dot at each of them.
const DOTS_UP_TO: usize = 40;

/// Height of the band of a chart that holds its legend.
const LEGEND_HEIGHT: f64 = 34.0;

/// Room beside a chart of intervals.
const RIGHT_MARGIN: f64 = 24.0;

/// A line through points, in order.
pub(super) struct Series {
    pub name: &'static str,
    pub colour: &'static str,
    pub points: Vec<(f64, f64)>,
    /// How far an interval reaches below and above each point, where points have intervals and dots.
    pub reaches: Vec<(f64, f64)>,
    /// Dashed, without dots: for references rather than measurements.
    pub reference: bool,
}

/// Columns that touch: column `i` stands between `edges[i]` and `edges[i + 1]`.
pub(super) struct Columns {
    pub name: &'static str,
    pub colour: &'static str,
    pub edges: Vec<f64>,
    pub heights: Vec<f64>,
}

/// How the numbers at an axis are written.
#[derive(Clone, Copy)]
pub(super) enum Ticks {
    /// Whole numbers.
    Whole,
    /// As many decimals as they need.
    Decimal,
    /// Shares as percentages.
    Percent,
}

/// One axis.
pub(super) struct Axis<'a> {
    pub label: &'a str,
    /// Both ends, or those of the data.
    pub range: Option<(f64, f64)>,
    pub ticks: Ticks,
}

/// One pair of axes and what stands between them.
pub(super) struct Panel {
    pub x: Axis<'static>,
    pub y: Axis<'static>,
    pub series: Vec<Series>,
    pub columns: Option<Columns>,
    /// A vertical line at x, and its name in the legend.
    pub mark: Option<(f64, String)>,
}

impl Panel {
    fn legend(&self) -> impl Iterator<Item = (&str, &'static str, Swatch)> {
        let columns = self.columns.iter().map(|columns| (columns.name, columns.colour, Swatch::Column));
        let line = |series: &Series| if series.reference { Swatch::Dashes } else { Swatch::Line };
        let lines = self.series.iter().map(move |series| (series.name, series.colour, line(series)));
        let mark = self.mark.iter().map(|(_, name)| (name.as_str(), palette::MUTED, Swatch::Dashes));
        columns.chain(lines).chain(mark)
    }
}

/// The sign of a series in the legend.
#[derive(Clone, Copy, PartialEq)]
enum Swatch {
    Column,
    Line,
    Dashes,
}

/// A row of a chart of intervals.
pub(super) struct Interval {
    pub label: String,
    pub centre: f64,
    pub half_width: f64,
}

impl Interval {
    /// The ends of all `rows` together, with a margin.
    pub(super) fn range(rows: &[Self]) -> (f64, f64) {
        let low = rows.iter().map(|row| row.centre - row.half_width).fold(f64::INFINITY, f64::min);
        let high = rows.iter().map(|row| row.centre + row.half_width).fold(f64::NEG_INFINITY, f64::max);
        let margin = ((high - low) * 0.08).max(0.005);
        (low - margin, high + margin)
    }
}

/// Draws panels side by side, each `width` x `height`, with one legend below. `title` is for screen readers.
pub(super) fn panels(title: &str, panels: Vec<Panel>, width: f64, height: f64) -> String {
    let mut entries: Vec<(&str, &str, Swatch)> = Vec::new();
    for entry in panels.iter().flat_map(Panel::legend) {
        if !entries.contains(&entry) {
            entries.push(entry);
        }
    }
    let legend = LegendRow::new(&entries);
    let columns = panels.len();
    let (plots, layouts): (Vec<_>, Vec<_>) = panels.into_iter().map(draw_panel).unzip();
    let mut scene = Figure::new(1, columns)
        .with_plots(plots)
        .with_layouts(layouts)
        .with_cell_size(width, height)
        .with_spacing(24.0)
        .with_padding(8.0)
        .render();
    let below = scene.height;
    scene.height += LEGEND_HEIGHT;
    let legend = legend.centred(scene.width, below + LEGEND_HEIGHT / 2.0);
    finish(&scene, title, &legend)
}

/// Draws one row an interval: a dot at the centre and a bar over the whole width. `title` is for screen readers.
pub(super) fn intervals(title: &str, x: Axis, rows: &[Interval], width: f64) -> String {
    let mut forest = ForestPlot::new()
        .with_color(palette::BLUE)
        .with_marker_size(5.0)
        .with_whisker_width(2.0)
        .with_cap_size(4.0)
        .with_show_null_line(false);
    for row in rows {
        let (low, high) = (row.centre - row.half_width, row.centre + row.half_width);
        forest = forest.with_row(plain(&row.label), row.centre, low, high);
    }
    let plots = vec![Plot::Forest(forest)];
    let layout = styled(Layout::auto_from_plots(&plots), &x, None);
    let layout = layout.with_width(width - RIGHT_MARGIN).with_height(rows.len() as f64 * 24.0 + 80.0);
    let mut scene = render_multiple(plots, layout);
    // The label of a tick at the very end of the axis sticks out.
    scene.width += RIGHT_MARGIN;
    finish(&scene, title, "")
}

fn draw_panel(panel: Panel) -> (Vec<Plot>, Layout) {
    let mut plots = Vec::new();
    if let Some(columns) = &panel.columns {
        let bins = Histogram::from_bins(columns.edges.clone(), columns.heights.clone());
        plots.push(Plot::Histogram(bins.with_color(columns.colour)));
    }
    for series in &panel.series {
        let line = LinePlot::new().with_data(series.points.iter().copied()).with_color(series.colour);
        let line =
            if series.reference { line.with_dashed().with_stroke_width(1.5) } else { line.with_stroke_width(2.0) };
        plots.push(Plot::Line(line));
        if !series.reference && series.points.len() <= DOTS_UP_TO {
            let dots = ScatterPlot::new().with_data(series.points.iter().copied());
            let dots = dots.with_y_err_asymmetric(series.reaches.iter().copied());
            plots.push(Plot::Scatter(dots.with_color(series.colour).with_size(3.0)));
        }
    }
    let mut layout = styled(Layout::auto_from_plots(&plots), &panel.x, Some(&panel.y));
    layout.show_legend = false;
    if let Some((x, _)) = panel.mark {
        let line = ReferenceLine::vertical(x).with_color(palette::MUTED).with_dasharray("6 4").with_stroke_width(1.5);
        layout = layout.with_reference_line(line);
    }
    (plots, layout)
}

fn styled(layout: Layout, x: &Axis, y: Option<&Axis>) -> Layout {
    let mut layout = layout
        .with_theme(theme())
        .with_font_family(FONT_FAMILY)
        .with_label_size(14)
        .with_tick_size(12)
        .with_x_label(x.label)
        .with_x_tick_format(tick_format(x.ticks));
    if let Some((low, high)) = x.range {
        layout = layout.with_x_axis_min(low).with_x_axis_max(high).with_x_tick_step(step(high - low, x.ticks));
    }
    let Some(y) = y else { return layout };
    layout = layout.with_y_label(y.label).with_y_tick_format(tick_format(y.ticks));
    if let Some((low, high)) = y.range {
        layout = layout.with_y_axis_min(low).with_y_axis_max(high);
    }
    layout
}

/// Distance of up to eight ticks over `extent`: 1, 2 or 5 times a power of ten, and no less than 1 for whole numbers.
fn step(extent: f64, ticks: Ticks) -> f64 {
    let rough = (extent / 8.0).max(f64::MIN_POSITIVE);
    let power = 10_f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= rough * 0.99).unwrap_or(10.0);
    match ticks {
        Ticks::Whole => (factor * power).max(1.0),
        Ticks::Decimal | Ticks::Percent => factor * power,
    }
}

fn tick_format(ticks: Ticks) -> TickFormat {
    match ticks {
        Ticks::Whole => TickFormat::Integer,
        Ticks::Decimal => TickFormat::Auto,
        Ticks::Percent => TickFormat::Custom(Arc::new(|value: f64| {
            let percent = (value * 1000.0).round() / 10.0;
            format!("{percent} %")
        })),
    }
}

fn theme() -> Theme {
    Theme {
        background: palette::PAPER.into(),
        axis_color: palette::INK.into(),
        grid_color: palette::GRID.into(),
        tick_color: palette::INK.into(),
        text_color: palette::INK.into(),
        legend_bg: palette::PAPER.into(),
        legend_border: palette::GRID.into(),
        font_family: Some(FONT_FAMILY.into()),
        ..Theme::light()
    }
}

/// A legend in one row, drawn from x = 0.
struct LegendRow {
    svg: String,
    width: f64,
}

impl LegendRow {
    fn new(entries: &[(&str, &str, Swatch)]) -> Self {
        const SIZE: f64 = 13.0;
        const SWATCH: f64 = 26.0;
        let (mut svg, mut width) = (String::new(), 0.0);
        for (name, colour, swatch) in entries {
            let end = width + SWATCH;
            svg += &match swatch {
                Swatch::Column => {
                    format!(r#"<rect x="{width:.1}" y="-6" width="{SWATCH}" height="12" fill="{colour}"/>"#)
                }
                Swatch::Line => {
                    format!(r#"<path d="M {width:.1} 0 H {end:.1}" stroke="{colour}" stroke-width="2.5"/>"#)
                }
                Swatch::Dashes => format!(
                    r#"<path d="M {width:.1} 0 H {end:.1}" stroke="{colour}" stroke-width="1.5" stroke-dasharray="6 4"/>"#
                ),
            };
            let (x, ink, name_shown) = (end + 8.0, palette::INK, HtmlEscape(name));
            svg += &format!(r#"<text x="{x:.1}" y="4.5" font-size="{SIZE}" fill="{ink}">{name_shown}</text>"#);
            width = x + text_width(name, SIZE) + 20.0;
        }
        Self { svg, width: width - 20.0 }
    }

    /// The row in the middle of `width`, around height `y`.
    fn centred(&self, width: f64, y: f64) -> String {
        let x = ((width - self.width) / 2.0).max(8.0);
        format!(r#"<g transform="translate({x:.1} {y:.1})">{}</g>"#, self.svg)
    }
}

/// Renders the scene, gives it a `viewBox` and a title, and adds `more` on top.
fn finish(scene: &Scene, title: &str, more: &str) -> String {
    let svg = with_own_ids(&SvgBackend::new().render_scene(scene));
    let title = HtmlEscape(title).to_string();
    let attributes = format!(r#" viewBox="0 0 {} {}" role="img"><title>{title}</title>"#, scene.width, scene.height);
    let svg = svg.replacen('>', &attributes, 1);
    match svg.rfind("</svg>") {
        Some(end) => format!("{}{more}</svg>", &svg[..end]),
        None => svg,
    }
}

/// Renames the clip paths, whose numbers go on from figure to figure: the same figure is the same text every time, and
/// two different ones can stand on one page.
fn with_own_ids(svg: &str) -> String {
    const ID: &str = "kuva-clip-";
    let mut parts = svg.split(ID);
    let first = parts.next().unwrap_or_default();
    let (mut known, mut rest): (Vec<&str>, String) = Default::default();
    for part in parts {
        let digits = part.find(|character: char| !character.is_ascii_digit()).unwrap_or(part.len());
        let (number, after) = part.split_at(digits);
        let index = known.iter().position(|other| *other == number).unwrap_or_else(|| {
            known.push(number);
            known.len() - 1
        });
        rest += &format!("{ID}{index}{after}");
    }
    let numbered = format!("{first}{rest}");
    // Figures with one hash are one figure.
    let hash = hexadecimal(&Sha256::digest(&numbered)[..8]);
    numbered.replace(ID, &format!("clip-{hash}-"))
}

/// Keeps a dollar sign from being read as the start of a formula.
fn plain(text: &str) -> String {
    text.replace('$', "\\$")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panel(height: f64) -> Panel {
        let axis = || Axis { label: "x", range: Some((0.0, 1.0)), ticks: Ticks::Decimal };
        let points = vec![(0.0, 0.0), (1.0, height)];
        let series = Series { name: "series", colour: palette::BLUE, points, reaches: Vec::new(), reference: false };
        Panel { x: axis(), y: axis(), series: vec![series], columns: None, mark: Some((0.5, "a < b".to_owned())) }
    }

    #[test]
    fn the_same_figure_is_the_same_text_and_shares_no_id_with_another() {
        let ids = |svg: &str| -> Vec<String> {
            svg.split(" id=\"").skip(1).filter_map(|text| text.split('"').next()).map(str::to_owned).collect()
        };
        let draw = |height| panels("title", vec![panel(height), panel(height)], 300.0, 200.0);
        let (first, second) = (draw(1.0), draw(0.5));
        assert_eq!(first, draw(1.0));
        assert_eq!(ids(&first).len(), 2, "{first}");
        assert!(ids(&first).iter().all(|id| !ids(&second).contains(id) && first.contains(&format!("url(#{id})"))));
    }

    #[test]
    fn text_is_escaped_and_axes_have_few_ticks() {
        let svg = panels("<title>", vec![panel(1.0)], 300.0, 200.0);
        assert!(svg.contains("a &lt; b") && svg.contains("<title>&lt;title&gt;</title>"), "{svg}");
        assert_eq!(
            [(75.0, Ticks::Whole), (1.0, Ticks::Whole), (1.0, Ticks::Percent), (0.14, Ticks::Percent)]
                .map(|(extent, ticks)| step(extent, ticks)),
            [10.0, 1.0, 0.2, 0.02]
        );
    }

    #[test]
    fn a_dollar_sign_is_no_formula() {
        let rows = [Interval { label: "price=$a$ < 3".to_owned(), centre: 0.5, half_width: 0.1 }];
        let axis = Axis { label: "x", range: None, ticks: Ticks::Percent };
        let svg = intervals("title", axis, &rows, 500.0);
        assert!(svg.contains("price=$a$ &lt; 3"), "{svg}");
    }
}
