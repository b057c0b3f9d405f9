//! Rows of pictures with names in front of them.
//!
//! In: the rows. Out: one PNG. Where the pictures come from is the caller's business.

use std::io::Cursor;

use image::imageops::{FilterType, overlay, resize};
use image::{DynamicImage, ImageFormat};

use super::{FONT_FAMILY, FigureError, palette, text_width, to_png};
use crate::augment::sheet::Row;

/// Height of a row in units of the SVG, which are two pixels each.
const CELL: f64 = 52.0;

/// Part of a cell that a picture fills.
const PICTURE: f64 = 48.0;

/// Size of the names.
const FONT_SIZE: f64 = 12.0;

/// Draws the rows under one another.
///
/// # Errors
/// No rows, or more than a picture can hold.
pub fn sheet(rows: &[Row]) -> Result<Vec<u8>, FigureError> {
    let nothing = FigureError::Nothing { figure: "sheet", needed: "at least one picture" };
    let columns = rows.iter().map(|row| row.pictures.len()).max().filter(|&columns| columns > 0).ok_or(nothing)?;
    let failed = |message: String| FigureError::Png { stem: "sheet".to_owned(), message };
    let widest = rows.iter().map(|row| text_width(&row.name, FONT_SIZE)).fold(0.0, f64::max);
    let left = (widest + 16.0).ceil();
    let (width, height) = (left + columns as f64 * CELL, rows.len() as f64 * CELL);
    let names = rows.iter().enumerate().map(|(index, row)| {
        let y = (index as f64 + 0.5) * CELL + FONT_SIZE / 3.0;
        format!(r#"<text x="8" y="{y}">{}</text>"#, row.name)
    });
    let svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="{FONT_FAMILY}" font-size="{FONT_SIZE}" fill="{}">{}</svg>"#,
        palette::INK,
        names.collect::<String>()
    );
    let png = to_png(&svg).map_err(failed)?;
    let mut drawn = image::load_from_memory(&png).map_err(|error| failed(error.to_string()))?.to_rgb8();
    let scale = f64::from(drawn.width()) / width;
    let side = (PICTURE * scale) as u32;
    for (index, row) in rows.iter().enumerate() {
        for (column, picture) in row.pictures.iter().enumerate() {
            let margin = (CELL - PICTURE) / 2.0;
            let x = (left + column as f64 * CELL + margin) * scale;
            let y = (index as f64 * CELL + margin) * scale;
            let enlarged = DynamicImage::from(resize(picture, side, side, FilterType::Nearest)).to_rgb8();
            overlay(&mut drawn, &enlarged, x as i64, y as i64);
        }
    }
    let mut bytes = Cursor::new(Vec::new());
    drawn.write_to(&mut bytes, ImageFormat::Png).map_err(|error| failed(error.to_string()))?;
    Ok(bytes.into_inner())
}

#[cfg(test)]
mod tests {
    use image::{GrayImage, Luma};

    use super::*;

    #[test]
    fn pictures_stand_in_their_cells() {
        let row = |name: &str, grey: u8| Row {
            name: name.to_owned(),
            pictures: vec![GrayImage::from_pixel(48, 48, Luma([grey])); 3],
        };
        let png = sheet(&[row("unchanged", 10), row("flip 1", 200)]).unwrap();
        let drawn = image::load_from_memory(&png).unwrap().to_luma8();
        assert_eq!(drawn.height(), 208);
        let middle_of_last = drawn.width() - 52;
        assert_eq!(drawn.get_pixel(middle_of_last, 52).0, [10]);
        assert_eq!(drawn.get_pixel(middle_of_last, 156).0, [200]);
        let dark = drawn.rows().take(104).flat_map(|row| row.take(100)).filter(|pixel| pixel.0[0] < 128).count();
        assert!(dark > 50, "the name has {dark} dark pixels");
        assert!(matches!(sheet(&[]), Err(FigureError::Nothing { .. })));
    }
}
