//! Results drawn into the picture: a box and a label for each face, a bar for each class.
//!
//! In: a picture and its faces. Out: the picture in colours with the drawing on it. It does not write files.

use ab_glyph::{Font, FontRef, PxScale, ScaleFont, point};
use image::imageops::{FilterType, resize};
use image::{DynamicImage, Rgb, RgbImage};

use crate::analyze::AnalyzedFace;
use crate::faces::Area;
use crate::preprocess::over_black;

/// One colour a class, in turn: Okabe and Ito's palette, which colour-blind people can tell apart.
pub const COLOURS: [Rgb<u8>; 8] = [
    Rgb([230, 159, 0]),
    Rgb([86, 180, 233]),
    Rgb([0, 158, 115]),
    Rgb([240, 228, 66]),
    Rgb([0, 114, 178]),
    Rgb([213, 94, 0]),
    Rgb([204, 121, 167]),
    Rgb([187, 187, 187]),
];

const DARK: Rgb<u8> = Rgb([20, 20, 20]);
const LIGHT: Rgb<u8> = Rgb([255, 255, 255]);

/// Pictures whose longer side is shorter are enlarged, so that text and bars leave most of a face to be seen.
const LEGIBLE_PX: u32 = 384;

/// How much of the picture shines through behind text and bars.
const VEIL: f32 = 0.65;

/// `picture` with `faces` drawn on it; `names` are the texts above the boxes, such as labels, one a face; where
/// there is no room, they are below, or else in the boxes' upper corners.
pub fn annotate(picture: &DynamicImage, faces: &[AnalyzedFace], names: &[String]) -> RgbImage {
    let mut canvas = canvas(picture);
    draw(&mut canvas, faces, names, true);
    canvas
}

/// As [`annotate`], on the picture enlarged by the factor [`enlargement`].
pub fn annotate_enlarged(picture: &DynamicImage, faces: &[AnalyzedFace], names: &[String]) -> RgbImage {
    let (mut canvas, factor) = enlarged(picture);
    draw(&mut canvas, &times(faces, factor), names, true);
    canvas
}

/// `picture` in colours, enlarged by the factor [`enlargement`], with the factor.
pub(crate) fn enlarged(picture: &DynamicImage) -> (RgbImage, u32) {
    let (canvas, factor) = (canvas(picture), enlargement(picture.width(), picture.height()));
    if factor == 1 {
        return (canvas, factor);
    }
    let (width, height) = (picture.width() * factor, picture.height() * factor);
    (resize(&canvas, width, height, FilterType::Triangle), factor)
}

/// `faces` of a picture that is enlarged by `factor`.
fn times(faces: &[AnalyzedFace], factor: u32) -> Vec<AnalyzedFace> {
    let mut faces = faces.to_vec();
    for Area { x, y, width, height } in faces.iter_mut().map(|face| &mut face.area) {
        for length in [x, y, width, height] {
            *length *= factor;
        }
    }
    faces
}

/// The boxes and names of `faces` on a picture that is enlarged by `factor`, without bars.
pub(crate) fn name_on(canvas: &mut RgbImage, factor: u32, faces: &[AnalyzedFace], names: &[String]) {
    draw(canvas, &times(faces, factor), names, false);
}

/// How many times its size a picture of `width` x `height` pixels is drawn, so that its longer side has at least 384; 1 where
/// it has them already.
pub fn enlargement(width: u32, height: u32) -> u32 {
    LEGIBLE_PX.div_ceil(width.max(height).max(1))
}

fn draw(canvas: &mut RgbImage, faces: &[AnalyzedFace], names: &[String], with_bars: bool) {
    let Ok(font) = FontRef::try_from_slice(dejavu::sans::regular()) else { return };
    let (width, height) = canvas.dimensions();
    let labels = labels(&font, faces, names, (width, height));
    // Bars over a face or a text would hide it.
    let mut taken: Vec<Area> = faces.iter().map(|face| face.area).chain(labels.iter().copied()).collect();
    for ((face, name), label) in faces.iter().zip(names).zip(&labels) {
        let line = line_of(face, (width, height));
        let colour = face.label.as_deref().map_or(LIGHT, |label| colour_of(face, label));
        outline(canvas, face.area, (line / 6).max(1), colour);
        fill(canvas, *label, colour, 1.0);
        let ink = if brightness(colour) > 140.0 { DARK } else { LIGHT };
        text(canvas, &font, name, (label.x + 3, label.y), line as f32, ink);
        let bars_height = line * face.probabilities.len() as u32;
        let bars_width =
            face.probabilities.iter().map(|bar| text_width(&font, &bar_text(bar), bar_size(line)) + 6).max();
        let least = (bars_width.unwrap_or_default().min(width), bars_height);
        let place = with_bars.then(|| bar_area(face, label, least, (width, height), &taken)).flatten();
        if let Some(place) = place {
            bars(canvas, &font, face, line, place);
            taken.push(place);
        }
    }
}

/// The height of a line of a face's texts. Bars take up to a third of the box; text stays readable and no larger than need be.
fn line_of(face: &AnalyzedFace, (canvas_width, canvas_height): (u32, u32)) -> u32 {
    let most = (canvas_width.max(canvas_height) / 64).max(22);
    (face.area.height / (3 * face.probabilities.len().max(1) as u32)).clamp(11, most)
}

/// Where the names go: above the box, or below it, where they hide no face and no other name; else in its upper corner.
fn labels(font: &FontRef, faces: &[AnalyzedFace], names: &[String], canvas: (u32, u32)) -> Vec<Area> {
    let mut labels: Vec<Area> = Vec::with_capacity(faces.len());
    for (face, name) in faces.iter().zip(names) {
        let line = line_of(face, canvas);
        let wide = (text_width(font, name, line as f32) + 6).max(face.area.width);
        // Moved to the left where it would end outside the picture.
        let x = face.area.x.min(canvas.0.saturating_sub(wide));
        let label = |y: u32| Area { x, y, width: wide.min(canvas.0), height: line + 2 };
        let is_free = |place: &Area| {
            faces.iter().map(|other| &other.area).chain(&labels).all(|other| other.overlap(place) == 0.0)
        };
        let above = face.area.y.checked_sub(line + 2).map(label);
        let bottom = face.area.y + face.area.height;
        let below = (bottom + line + 2 <= canvas.1).then(|| label(bottom));
        let place = [above, below].into_iter().flatten().find(is_free).unwrap_or_else(|| label(face.area.y));
        labels.push(place);
    }
    labels
}

/// The colours of `picture`, transparent ones over black, as the classifier sees them.
pub(crate) fn canvas(picture: &DynamicImage) -> RgbImage {
    if !picture.color().has_alpha() {
        return picture.to_rgb8();
    }
    let picture = picture.to_rgba8();
    RgbImage::from_fn(picture.width(), picture.height(), |x, y| Rgb(over_black(picture.get_pixel(x, y).0)))
}

/// A face's text: label and score, or that there is none.
pub fn name_of(face: &AnalyzedFace) -> String {
    match &face.label {
        Some(label) => format!("{label} {:.2}", face.score),
        None => format!("unsure {:.2}", face.score),
    }
}

fn colour_of(face: &AnalyzedFace, label: &str) -> Rgb<u8> {
    let place = face.probabilities.iter().position(|(name, _)| name == label).unwrap_or_default();
    COLOURS[place % COLOURS.len()]
}

/// Where the bars go: below the box, beside it or above it, where they hide nothing that is `taken`; else inside at its foot,
/// if they leave the upper half to be seen. Nowhere, if there is no such place. Their texts need a width and a height.
fn bar_area(
    face: &AnalyzedFace,
    label: &Area,
    (least_width, bars_height): (u32, u32),
    (canvas_width, canvas_height): (u32, u32),
    taken: &[Area],
) -> Option<Area> {
    let Area { x, y, width, height } = face.area;
    let (right, bottom) = ((x + width).max(label.x + label.width), y + height);
    let wide = width.max(least_width);
    let lowest = canvas_height.saturating_sub(bars_height);
    let area = |x: u32, y: u32, width: u32| Area { x, y, width, height: bars_height };
    let below = Some(area(x.min(canvas_width.saturating_sub(wide)), bottom, wide));
    let beside = Some(area(right, y.min(lowest), least_width));
    let before = x.min(label.x).checked_sub(least_width).map(|x| area(x, y.min(lowest), least_width));
    let above =
        y.min(label.y).checked_sub(bars_height).map(|y| area(x.min(canvas_width.saturating_sub(wide)), y, wide));
    let fits = |place: &Area| {
        place.x + place.width <= canvas_width
            && place.y + place.height <= canvas_height
            && taken.iter().all(|other| other.overlap(place) == 0.0)
    };
    let inside = || {
        let place =
            area(x.min(canvas_width.saturating_sub(least_width)), bottom.saturating_sub(bars_height), least_width);
        let hides = |other: &Area| *other != face.area && *other != *label && other.overlap(&place) > 0.0;
        (2 * bars_height <= height && !taken.iter().any(hides)).then_some(place)
    };
    [below, beside, before, above].into_iter().flatten().find(fits).or_else(inside)
}

/// One bar a class.
fn bars(canvas: &mut RgbImage, font: &FontRef, face: &AnalyzedFace, line: u32, area: Area) {
    let Area { x, y: top, width, .. } = area;
    fill(canvas, area, DARK, VEIL);
    for (index, bar) in face.probabilities.iter().enumerate() {
        let y = top + index as u32 * line;
        let length = (width as f32 * bar.1.clamp(0.0, 1.0)).round() as u32;
        fill(canvas, Area { x, y: y + 1, width: length, height: line - 1 }, COLOURS[index % COLOURS.len()], VEIL);
        text(canvas, font, &bar_text(bar), (x + 3, y), bar_size(line), LIGHT);
    }
}

fn bar_text((name, probability): &(String, f32)) -> String {
    format!("{name} {probability:.2}")
}

/// Height of the text in a bar of `line` pixels.
fn bar_size(line: u32) -> f32 {
    line as f32 * 0.9
}

/// The edge of a rectangle, `thickness` pixels wide, inside it.
fn outline(canvas: &mut RgbImage, area: Area, thickness: u32, colour: Rgb<u8>) {
    let Area { x, y, width, height } = area;
    let (across, down) = (thickness.min(width), thickness.min(height));
    fill(canvas, Area { x, y, width, height: down }, colour, 1.0);
    fill(canvas, Area { x, y: y.saturating_add(height - down), width, height: down }, colour, 1.0);
    fill(canvas, Area { x, y, width: across, height }, colour, 1.0);
    fill(canvas, Area { x: x.saturating_add(width - across), y, width: across, height }, colour, 1.0);
}

/// Lays a colour over a rectangle; what is outside the picture is left out.
fn fill(canvas: &mut RgbImage, area: Area, colour: Rgb<u8>, strength: f32) {
    let right = area.x.saturating_add(area.width).min(canvas.width());
    let bottom = area.y.saturating_add(area.height).min(canvas.height());
    for y in area.y..bottom {
        for x in area.x..right {
            lay_over(canvas.get_pixel_mut(x, y), colour, strength);
        }
    }
}

/// A line of text, `size` pixels high, from its upper left corner on; what is outside the picture is left out.
fn text(canvas: &mut RgbImage, font: &FontRef, text: &str, (left, top): (u32, u32), size: f32, colour: Rgb<u8>) {
    let font = font.as_scaled(PxScale::from(size));
    let mut x = left as f32;
    for character in text.chars() {
        let id = font.glyph_id(character);
        let glyph = id.with_scale_and_position(font.scale(), point(x, top as f32 + font.ascent()));
        x += font.h_advance(id);
        let Some(outline) = font.outline_glyph(glyph) else { continue };
        let corner = outline.px_bounds().min;
        outline.draw(|column, row, coverage| {
            let (x, y) = (corner.x + column as f32, corner.y + row as f32);
            if x >= 0.0
                && y >= 0.0
                && let Some(pixel) = canvas.get_pixel_mut_checked(x as u32, y as u32)
            {
                lay_over(pixel, colour, coverage.clamp(0.0, 1.0));
            }
        });
    }
}

/// The width of a line of text in pixels.
fn text_width(font: &FontRef, text: &str, size: f32) -> u32 {
    let font = font.as_scaled(PxScale::from(size));
    text.chars().map(|character| font.h_advance(font.glyph_id(character))).sum::<f32>().ceil() as u32
}

fn lay_over(pixel: &mut Rgb<u8>, colour: Rgb<u8>, strength: f32) {
    for (under, over) in pixel.0.iter_mut().zip(colour.0) {
        *under = (f32::from(*under) * (1.0 - strength) + f32::from(over) * strength).round() as u8;
    }
}

fn brightness(colour: Rgb<u8>) -> f32 {
    let [red, green, blue] = colour.0.map(f32::from);
    0.299 * red + 0.587 * green + 0.114 * blue
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::GrayImage;

    fn face(x: u32, y: u32, width: u32, height: u32) -> AnalyzedFace {
        AnalyzedFace {
            area: Area { x, y, width, height },
            confidence: 0.9,
            label: Some("sad".to_owned()),
            score: 0.75,
            probabilities: vec![("happy".to_owned(), 0.25), ("sad".to_owned(), 0.75)],
            landmarks: None,
            region: crate::faces::Region::Whole,
        }
    }

    #[test]
    fn a_box_is_drawn_in_the_colour_of_its_label_and_no_further() {
        let picture = DynamicImage::from(GrayImage::from_pixel(200, 200, image::Luma([77])));
        let drawn = annotate(&picture, &[face(40, 30, 80, 60)], &["sad".to_owned()]);
        assert_eq!(drawn.get_pixel(40, 60), &COLOURS[1], "left edge");
        assert_eq!(drawn.get_pixel(119, 60), &COLOURS[1], "right edge");
        assert_eq!(drawn.get_pixel(80, 89), &COLOURS[1], "lower edge");
        assert_eq!(drawn.get_pixel(80, 60), &Rgb([77; 3]), "inside");
        assert_eq!(drawn.get_pixel(39, 60), &Rgb([77; 3]), "outside");
        // The longer bar reaches where the shorter one does not.
        let (shorter, longer) = (drawn.get_pixel(100, 97), drawn.get_pixel(130, 112));
        assert_ne!(shorter, longer);
    }

    #[test]
    fn hidden_colours_stay_hidden() {
        let mut picture = image::RgbaImage::from_pixel(2, 1, image::Rgba([255, 0, 0, 0]));
        picture.put_pixel(1, 0, image::Rgba([200, 100, 0, 128]));
        let drawn = annotate(&DynamicImage::from(picture), &[], &[]);
        assert_eq!(drawn.into_raw(), [0, 0, 0, 100, 50, 0]);
    }

    #[test]
    fn bars_hide_no_other_face() {
        let picture = DynamicImage::from(GrayImage::from_pixel(300, 300, image::Luma([77])));
        let (upper, lower) = (face(40, 30, 80, 60), face(50, 95, 80, 60));
        let names = ["sad".to_owned(), "sad".to_owned()];
        let drawn = annotate(&picture, &[upper, lower], &names);
        assert_eq!(drawn.get_pixel(100, 130), &Rgb([77; 3]), "the lower face");
        assert_ne!(drawn.get_pixel(60, 160), &Rgb([77; 3]), "the lower face's bars");
    }

    /// Two faces side by side below two others, narrower than their names.
    #[test]
    fn names_of_crowded_faces_do_not_hide_each_other() {
        let faces = [face(100, 100, 40, 40), face(145, 100, 40, 40), face(100, 142, 40, 40), face(145, 142, 40, 40)];
        let font = FontRef::try_from_slice(dejavu::sans::regular()).unwrap();
        let labels = labels(&font, &faces, &vec!["surprised 0.97".to_owned(); 4], (400, 300));
        for (place, label) in labels.iter().enumerate() {
            assert!(label.width > 45, "{label:?}");
            assert!(labels[..place].iter().all(|other| other.overlap(label) == 0.0), "{labels:?}");
        }
    }

    #[test]
    fn bars_that_have_room_above_a_label_only_are_there() {
        let picture = DynamicImage::from(GrayImage::from_pixel(480, 640, image::Luma([77])));
        let mut face = face(20, 380, 440, 250);
        face.probabilities = (0..7).map(|class| (format!("class {class}"), 0.1)).collect();
        let drawn = annotate(&picture, &[face], &["happy 0.97".to_owned()]);
        let changed = |rows: std::ops::Range<u32>| rows.filter(|&y| drawn.get_pixel(440, y) != &Rgb([77; 3])).count();
        assert_eq!((changed(250..367), changed(392..620)), (7 * 11, 0));
    }

    /// Seven bars are three times as high as such a face.
    #[test]
    fn texts_at_the_edges_are_moved_inside_and_hide_no_face() {
        let picture = DynamicImage::from(GrayImage::from_pixel(400, 300, image::Luma([77])));
        let names = ["happy 0.97".to_owned()];
        for (x, y) in [(0, 0), (367, 109), (109, 258), (369, 262), (0, 262)] {
            let mut face = face(x, y, 31, 38);
            face.probabilities = (0..7).map(|class| (format!("class {class}"), 0.1)).collect();
            let drawn = annotate(&picture, &[face.clone()], &names);
            let changed = |pixel: (u32, u32)| drawn.get_pixel(pixel.0, pixel.1) != &Rgb([77; 3]);
            // Below its label and within its edge.
            let hidden =
                (x + 1..x + 30).flat_map(|x| (y + 14..y + 37).map(move |y| (x, y))).filter(|&pixel| changed(pixel));
            assert_eq!(hidden.count(), 0, "{x}, {y}");
            // Label and bars have their whole size.
            let count = (0..400).flat_map(|x| (0..300).map(move |y| (x, y))).filter(|&pixel| changed(pixel)).count();
            assert!(count > 7 * 11 * 55, "{x}, {y}: {count}");
        }
    }

    #[test]
    fn a_small_picture_is_enlarged_with_its_boxes_and_a_face_stays_visible() {
        assert_eq!(
            [(48, 48), (100, 100), (300, 200), (10, 383), (384, 1), (512, 512)].map(|(w, h)| enlargement(w, h)),
            [8, 4, 2, 2, 1, 1]
        );
        let picture = DynamicImage::from(GrayImage::from_pixel(48, 40, image::Luma([77])));
        let names = ["sad".to_owned()];
        let drawn = annotate_enlarged(&picture, &[face(6, 5, 36, 30)], &names);
        assert_eq!(drawn.dimensions(), (48 * 8, 40 * 8));
        assert_eq!(drawn.get_pixel(6 * 8, 20 * 8), &COLOURS[1], "left edge");
        assert_eq!(drawn.get_pixel(6 * 8 - 1, 20 * 8), &Rgb([77; 3]), "outside");
        // A picture that is a face, with as many classes as there are expressions.
        let mut whole = face(0, 0, 48, 40);
        whole.probabilities = (0..7).map(|class| (format!("class {class}"), 0.1)).collect();
        let drawn = annotate_enlarged(&picture, &[whole.clone()], &names);
        let untouched = drawn.pixels().filter(|pixel| **pixel == Rgb([77; 3])).count();
        assert!(untouched * 2 > drawn.pixels().len(), "{untouched} of {} pixels are left", drawn.pixels().len());
        // Others are drawn as they are.
        let picture = DynamicImage::from(GrayImage::from_pixel(400, 20, image::Luma([77])));
        assert_eq!(annotate_enlarged(&picture, &[whole.clone()], &names), annotate(&picture, &[whole], &names));
    }

    #[test]
    fn faces_at_every_edge_and_of_any_size_can_be_drawn() {
        for (width, height) in [(1, 1), (10, 300), (300, 10), (64, 64)] {
            let picture = DynamicImage::new_rgb8(width, height);
            for (x, y) in [(0, 0), (width - 1, height - 1), (width / 2, height / 2)] {
                let face = face(x, y, width - x, height - y);
                let name = name_of(&face);
                let (faces, names) = ([face], [name]);
                assert_eq!(annotate(&picture, &faces, &names).dimensions(), (width, height));
                let factor = enlargement(width, height);
                let drawn = annotate_enlarged(&picture, &faces, &names);
                assert_eq!(drawn.dimensions(), (factor * width, factor * height));
            }
        }
    }
}
