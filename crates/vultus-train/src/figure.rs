//! Figures: from numbers to SVG text, and from SVG to files.
//!
//! In: histories, evaluations, networks and search results. Out: one SVG document a figure, in fixed colours on white,
//! with a title for screen readers; [`save`] writes it as SVG and PNG, [`themed`] makes its colours follow the page it
//! is placed in. Text is measured and drawn with the embedded DejaVu fonts, never with those of the machine. Nothing
//! is computed here that is not drawn.

pub mod architecture;
mod chart;
pub mod comparison;
pub mod confusion;
pub mod curves;
pub mod reliability;
pub mod search;
pub mod sheet;
pub(crate) mod template;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use resvg::tiny_skia::{Color, Pixmap, Transform};
use resvg::usvg::fontdb::{Database, Source};
use resvg::usvg::{Options, Tree};
use vultus::persist::write_atomically;

/// Pixels of the PNG for one unit of the SVG.
const PNG_SCALE: f32 = 2.0;

/// Longest side of a PNG, and its largest area: a figure beyond them would take gigabytes.
const PNG_LIMIT_PX: f32 = 20_000.0;
const PNG_LIMIT_AREA_PX: f32 = 1e8;

/// Font families, the embedded one first; the others are for viewers that open the SVG without it.
const FONT_FAMILY: &str = "DejaVu Sans, Verdana, Liberation Sans, Arial, sans-serif";

/// The colours that follow the theme of the page: name of the CSS variable, value on white.
///
/// Every other colour in a figure stays as it is. The values are unlike any other colour used.
pub mod palette {
    /// Background.
    pub const PAPER: &str = "#fffffe";
    /// Text and axes.
    pub const INK: &str = "#1f2328";
    /// Secondary text.
    pub const MUTED: &str = "#59636e";
    /// Grid lines and frames.
    pub const GRID: &str = "#d5dae0";
    /// Slightly tinted areas.
    pub const PANEL: &str = "#f3f5f8";
    /// First series.
    pub const BLUE: &str = "#1f6fb5";
    /// Second series.
    pub const ORANGE: &str = "#c8560b";
    /// Third series.
    pub const GREEN: &str = "#2b7d4f";
    /// Fourth series.
    pub const PURPLE: &str = "#7a4fb0";

    /// CSS variable and colour of every entry.
    pub const ALL: [(&str, &str); 9] = [
        ("--figure-paper", PAPER),
        ("--figure-ink", INK),
        ("--figure-muted", MUTED),
        ("--figure-grid", GRID),
        ("--figure-panel", PANEL),
        ("--figure-blue", BLUE),
        ("--figure-orange", ORANGE),
        ("--figure-green", GREEN),
        ("--figure-purple", PURPLE),
    ];
}

/// Why a figure could not be made or written.
#[derive(Debug, thiserror::Error)]
pub enum FigureError {
    /// There is nothing to draw.
    #[error("figure {figure} needs {needed}")]
    Nothing {
        /// Which figure.
        figure: &'static str,
        /// What is missing.
        needed: &'static str,
    },
    /// The template did not render.
    #[error("figure template {name}: {message}")]
    Template {
        /// Template file.
        name: &'static str,
        /// What the engine said.
        message: String,
    },
    /// The SVG could not be turned into pixels.
    #[error("figure {stem} cannot be drawn as PNG: {message}")]
    Png {
        /// File name without its ending.
        stem: String,
        /// Why.
        message: String,
    },
    /// A file could not be written.
    #[error("figure {stem}: {source}")]
    Write {
        /// File name without its ending.
        stem: String,
        /// What the system said; it names the path.
        source: io::Error,
    },
}

static FONTS: LazyLock<Arc<Database>> = LazyLock::new(|| {
    let mut fonts = Database::new();
    for data in [dejavu::sans::regular(), dejavu::sans::bold()] {
        fonts.load_font_source(Source::Binary(Arc::new(data)));
    }
    // A family that is not embedded falls back to the generic ones.
    for set in [
        Database::set_serif_family,
        Database::set_sans_serif_family,
        Database::set_monospace_family,
        Database::set_cursive_family,
        Database::set_fantasy_family,
    ] {
        set(&mut fonts, "DejaVu Sans");
    }
    Arc::new(fonts)
});

/// Writes `<stem>.svg` and `<stem>.png` into `directory`, each complete or absent, and returns the two paths.
///
/// # Errors
/// An SVG that does not parse, and failed writes, which name the path.
pub fn save(svg: &str, directory: &Path, stem: &str) -> Result<[PathBuf; 2], FigureError> {
    let png = to_png(svg).map_err(|message| FigureError::Png { stem: stem.to_owned(), message })?;
    let paths = [directory.join(format!("{stem}.svg")), directory.join(format!("{stem}.png"))];
    for (path, bytes) in paths.iter().zip([svg.as_bytes(), &png]) {
        write_atomically(path, |file| file.write_all(bytes))
            .map_err(|source| FigureError::Write { stem: stem.to_owned(), source })?;
    }
    Ok(paths)
}

/// The figure with its [`palette`] colours replaced by CSS variables, each with the colour on white as the fallback:
/// for an SVG placed inside a page that sets the variables for light and dark.
pub fn themed(svg: &str) -> String {
    let replace =
        |text: String, (variable, colour): (&str, &str)| text.replace(colour, &format!("var({variable},{colour})"));
    palette::ALL.into_iter().fold(svg.to_owned(), replace)
}

/// Draws the SVG at twice its size on white, or smaller where that would be more than the limits.
fn to_png(svg: &str) -> Result<Vec<u8>, String> {
    let options = Options { fontdb: Arc::clone(&FONTS), font_family: "DejaVu Sans".to_owned(), ..Options::default() };
    let tree = Tree::from_str(svg, &options).map_err(|error| error.to_string())?;
    let size = tree.size();
    let (width, height) = (size.width(), size.height());
    let scale = PNG_SCALE.min(PNG_LIMIT_PX / width.max(height)).min((PNG_LIMIT_AREA_PX / (width * height)).sqrt());
    let pixels_of = |side: f32| (side * scale).ceil().min(PNG_LIMIT_PX) as u32;
    let mut pixels = Pixmap::new(pixels_of(width), pixels_of(height)).ok_or("it has no size")?;
    pixels.fill(Color::WHITE);
    resvg::render(&tree, Transform::from_scale(scale, scale), &mut pixels.as_mut());
    pixels.encode_png().map_err(|error| error.to_string())
}

/// Width of `text` in units of the SVG when drawn in the embedded font, on the generous side.
fn text_width(text: &str, size: f64) -> f64 {
    text.chars().map(|character| if "iljtfrI.,:;|!' ()[]".contains(character) { 0.42 } else { 0.66 }).sum::<f64>()
        * size
}

/// `text` cut to `limit` characters, the last one an ellipsis if anything was cut.
fn shortened(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    text.chars().take(limit.saturating_sub(1)).chain(['…']).collect()
}

/// `text` cut to `limit` characters, an ellipsis in its middle if anything was cut: names may differ at either end.
fn shortened_within(text: &str, limit: usize) -> String {
    let length = text.chars().count();
    if length <= limit {
        return text.to_owned();
    }
    let kept = limit.saturating_sub(1);
    let (front, back) = (kept.div_ceil(2), kept / 2);
    text.chars().take(front).chain(['…']).chain(text.chars().skip(length - back)).collect()
}

/// `1638528` as `1,638,528`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const SQUARE: &str = r##"<svg xmlns="http://www.w3.org/2000/svg" width="40" height="20"><rect width="40" height="20" fill="#1f6fb5"/></svg>"##;
    const WORD: &str = r##"<svg xmlns="http://www.w3.org/2000/svg" width="80" height="30"><text x="4" y="20" font-family="No Such Font" font-size="16" fill="#1f2328">angry</text></svg>"##;

    #[test]
    fn writes_both_files_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let paths = save(SQUARE, directory.path(), "square").unwrap();
        assert_eq!(fs_err::read_to_string(&paths[0]).unwrap(), SQUARE);
        let picture = image::load_from_memory(&fs_err::read(&paths[1]).unwrap()).unwrap().to_rgb8();
        assert_eq!(picture.dimensions(), (80, 40));
        assert_eq!(picture.get_pixel(40, 20).0, [0x1f, 0x6f, 0xb5]);
        assert_eq!(fs_err::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn text_is_drawn_without_any_font_of_the_machine() {
        let picture = image::load_from_memory(&to_png(WORD).unwrap()).unwrap().to_luma8();
        let dark = picture.pixels().filter(|pixel| pixel.0[0] < 128).count();
        assert!(dark > 100, "only {dark} dark pixels");
    }

    #[test]
    fn errors_name_the_figure_or_the_path() {
        let directory = tempfile::tempdir().unwrap();
        let error = save("<svg", directory.path(), "broken").unwrap_err().to_string();
        assert!(error.contains("figure broken"), "{error}");
        let error = save(SQUARE, &directory.path().join("absent"), "square").unwrap_err().to_string();
        assert!(error.contains("square.svg"), "{error}");
        assert_eq!(fs_err::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_too_large_for_a_picture_is_drawn_smaller() {
        let long = SQUARE.replacen("40", "40000", 1);
        let picture = image::load_from_memory(&to_png(&long).unwrap()).unwrap();
        assert_eq!((picture.width(), picture.height()), (20_000, 10));
        let large = SQUARE.replacen("40", "20000", 1).replacen("\"20\"", "\"20000\"", 1);
        let picture = image::load_from_memory(&to_png(&large).unwrap()).unwrap();
        assert_eq!((picture.width(), picture.height()), (10_000, 10_000));
    }

    #[test]
    fn themed_colours_keep_their_fallback() {
        assert!(themed(SQUARE).contains(r##"fill="var(--figure-blue,#1f6fb5)""##));
    }

    #[test]
    fn numbers_and_names_for_people() {
        assert_eq!([0, 999, 1000, 1_638_528].map(grouped), ["0", "999", "1,000", "1,638,528"]);
        assert_eq!(shortened("überrascht", 6), "überr…");
        assert_eq!(shortened("angry", 5), "angry");
        assert_eq!(shortened_within("überrascht", 6), "übe…ht");
        assert_eq!(shortened_within("angry", 5), "angry");
    }
}
