//! What the changes look like, for people: rows of the same faces, each changed in one way.
//!
//! In: faces and strengths. Out: named rows of pictures, which [`crate::figure::sheet`] draws.

use image::GrayImage;

use super::{AugmentConfig, Mixing, mix};

/// Rows that show everything at once, each as another epoch sees it.
const EPOCHS_TOGETHER: usize = 3;

/// Strength of each change where a configuration has none at all.
const SHOWN: f64 = 0.5;

/// A name and one picture for each face.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Which change, and how strong.
    pub name: String,
    /// One for each face, of the same size.
    pub pictures: Vec<GrayImage>,
}

/// The faces as they are; then for each change that `config` has, alone at its strength; then all together, in several
/// epochs. A configuration without any is shown at half strength. The faces are of one size.
pub fn rows(faces: &[GrayImage], config: &AugmentConfig, seed: u64) -> Vec<Row> {
    let none = config.strengths().iter().all(|(_, strength)| *strength == 0.0);
    let config = if none { AugmentConfig::from_strengths([SHOWN; 13]) } else { config.clone() };
    let mut rows = vec![Row { name: "unchanged".to_owned(), pictures: faces.to_vec() }];
    for (place, (key, strength)) in config.strengths().into_iter().enumerate() {
        if strength > 0.0 {
            let mut alone = [0.0; 13];
            alone[place] = strength;
            let name = format!("{} {strength}", key.rsplit('.').next().unwrap_or(key));
            rows.push(Row { name, pictures: changed(faces, &AugmentConfig::from_strengths(alone), seed, 0) });
        }
    }
    for epoch in 0..EPOCHS_TOGETHER {
        let name = format!("together, epoch {}", epoch + 1);
        rows.push(Row { name, pictures: changed(faces, &config, seed, epoch) });
    }
    rows
}

/// The faces as one batch of `epoch`.
fn changed(faces: &[GrayImage], config: &AugmentConfig, seed: u64, epoch: usize) -> Vec<GrayImage> {
    let Some((width, height)) = faces.first().map(GrayImage::dimensions) else { return Vec::new() };
    let draw = |index| Mixing::draw(config, seed, epoch, index, width as usize, height as usize);
    let mixings: Vec<Mixing> = (0..faces.len()).map(draw).collect();
    let views = faces.iter().enumerate().map(|(index, face)| config.apply(face, seed, epoch, index));
    let mut pixels: Vec<f32> = views.flat_map(|view| view.into_raw().into_iter().map(f32::from)).collect();
    let (mut targets, mut weights) = (vec![0.0; faces.len()], vec![0.0; faces.len()]);
    mix(&mixings, width as usize, &mut pixels, &mut targets, &mut weights);
    let pictures = pixels.chunks_exact((width * height) as usize);
    let picture = |pixels: &[f32]| {
        let mut picture = GrayImage::new(width, height);
        picture.iter_mut().zip(pixels).for_each(|(place, pixel)| *place = pixel.round() as u8);
        picture
    };
    pictures.map(picture).collect()
}

#[cfg(test)]
mod tests {
    use image::Luma;

    use super::*;

    #[test]
    fn each_change_has_a_row_and_all_together_have_several() {
        let faces: Vec<GrayImage> =
            (0..4).map(|index| GrayImage::from_fn(8, 8, |x, y| Luma([(index * 40 + x * y) as u8]))).collect();
        let config = AugmentConfig { flip: 1.0, mixup: 0.4, ..AugmentConfig::default() };
        let found = rows(&faces, &config, 1);
        let names: Vec<&str> = found.iter().map(|row| row.name.as_str()).collect();
        let expected =
            ["unchanged", "flip 1", "mixup 0.4", "together, epoch 1", "together, epoch 2", "together, epoch 3"];
        assert_eq!(names, expected);
        assert_eq!(found[0].pictures, faces);
        assert!(found.iter().all(|row| row.pictures.len() == 4));
        assert!(found[1..].iter().all(|row| row.pictures != faces));
        assert_eq!(rows(&faces, &AugmentConfig::default(), 1).len(), 1 + 13 + 3);
    }
}
