//! Measures how well faces survive being looked for.
//!
//! ```text
//! vultus data convert fer2013.parquet fer/
//! cargo run --release -p vultus --example scenes -- fer/train 2000 MODEL.safetensors [YUNET.onnx]
//! ```
//!
//! Every face of a folder of classes, or as many of them as the number says, is enlarged and laid into a larger scene,
//! looked for, cut out and classified. Printed are, for each finder: how many were found; where the faces' own frames
//! lie around the boxes, which is what the crops are made from, and landmarks in them; and the accuracy on the found faces, as they
//! were and as they came out of the scenes, also with smaller, larger and upright crops.

use std::error::Error;
use std::path::{Path, PathBuf};

use image::{DynamicImage, GrayImage, Luma, Rgb, RgbImage, imageops};
use rayon::prelude::*;
use vultus::classifier::Classifier;
use vultus::decode::{DecodeLimits, decode};
use vultus::faces::{Face, FaceFinder, FaceMethod, FaceOptions, Region};

/// A scene's size in pixels.
const SCENE: (u32, u32) = (640, 480);

/// A picture of a face with its class.
struct Sample {
    class: String,
    face: GrayImage,
}

/// What became of a sample in its scene.
struct Found {
    /// Of the face's frame, in parts of the box's side, which is that of a square of its area: the centre's place right of and
    /// below the box's, and the logarithm of the side.
    frame: [f32; 3],
    /// Landmarks in parts of the face's frame.
    landmarks: Option<[(f32, f32); 5]>,
    right_before: bool,
    /// For each of [`VARIANTS`].
    right_after: Vec<bool>,
}

/// Changes of the crop: a factor of its side, and whether it is turned with the face.
const VARIANTS: [(f32, bool); 7] =
    [(1.0, true), (0.8, true), (0.9, true), (1.1, true), (1.2, true), (1.0, false), (1.1, false)];

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, count, model, yunet @ ..] = &arguments[..] else {
        return Err("usage: scenes FOLDER COUNT MODEL [YUNET]".into());
    };
    let classifier = Classifier::load(Path::new(model))?;
    let samples = samples(Path::new(folder), count.parse()?)?;
    let mut methods = vec![("rustface", FaceMethod::Rustface)];
    methods.extend(yunet.first().map(|path| ("yunet", FaceMethod::Yunet { model: PathBuf::from(path) })));
    for (name, method) in methods {
        let finder = FaceFinder::new(&method, FaceOptions::default())?;
        let found: Vec<Found> = samples
            .par_iter()
            .enumerate()
            .filter_map(|(index, sample)| measure(&classifier, &finder, index, sample).transpose())
            .collect::<Result<_, _>>()?;
        print(name, samples.len(), &found);
    }
    Ok(())
}

/// `count` faces, spread evenly over the folder's pictures; only classes that the file names' folders tell.
fn samples(folder: &Path, count: usize) -> Result<Vec<Sample>, Box<dyn Error>> {
    let mut paths: Vec<(String, PathBuf)> = Vec::new();
    for class in fs_err::read_dir(folder)? {
        let class = class?;
        for picture in fs_err::read_dir(class.path())? {
            paths.push((vultus::labels::canonical(&class.file_name().to_string_lossy()), picture?.path()));
        }
    }
    paths.sort();
    let step = (paths.len() / count.max(1)).max(1);
    let read = |(class, path): (String, PathBuf)| -> Result<Sample, Box<dyn Error>> {
        Ok(Sample { class, face: decode(&fs_err::read(path)?, &DecodeLimits::default())?.to_luma8() })
    };
    paths.into_iter().step_by(step).take(count).map(read).collect()
}

/// Lays the face into a scene and looks for it; `None` if it is not found.
fn measure(
    classifier: &Classifier,
    finder: &FaceFinder,
    index: usize,
    sample: &Sample,
) -> Result<Option<Found>, vultus::faces::FaceError> {
    // Sides of 96 to 255 pixels and all places, without a generator of random numbers.
    let side = 96 + (index as u32 * 37) % 160;
    let (x, y) = ((index as u32 * 101) % (SCENE.0 - side), (index as u32 * 67) % (SCENE.1 - side));
    let scene = scene(&sample.face, side, x, y);
    let inside = |face: &&Face| {
        let area = face.area;
        let middle = (area.x + area.width / 2, area.y + area.height / 2);
        (x..x + side).contains(&middle.0) && (y..y + side).contains(&middle.1)
    };
    let faces = finder.find(&scene)?;
    let Some(face) = faces.iter().find(inside) else { return Ok(None) };
    let part = |value: f32, start: u32| (value - start as f32) / side as f32;
    let crop = |(factor, turned): (f32, bool)| {
        let region = match face.region {
            Region::Square { centre, side, angle } => {
                Region::Square { centre, side: side * factor, angle: if turned { angle } else { 0.0 } }
            }
            whole => whole,
        };
        region.cut(&scene, classifier.preprocessing())
    };
    let says = |classifier: &Classifier, picture: GrayImage| {
        classifier.predict(&DynamicImage::from(picture)).label == sample.class
    };
    let for_cuts = classifier.for_cuts();
    let (width, height) = (face.area.width as f32, face.area.height as f32);
    let size = (width * height).sqrt();
    Ok(Some(Found {
        frame: [
            (x as f32 + side as f32 / 2.0 - face.area.x as f32 - width / 2.0) / size,
            (y as f32 + side as f32 / 2.0 - face.area.y as f32 - height / 2.0) / size,
            (side as f32 / size).ln(),
        ],
        landmarks: face.landmarks.map(|points| points.map(|point| (part(point.0, x), part(point.1, y)))),
        right_before: says(classifier, sample.face.clone()),
        right_after: VARIANTS.iter().map(|&variant| says(&for_cuts, crop(variant))).collect(),
    }))
}

/// A wall with a pattern, and the face on it.
fn scene(face: &GrayImage, side: u32, x: u32, y: u32) -> DynamicImage {
    let wall = |x: u32, y: u32| (90.0 + 40.0 * (x as f32 / 97.0).sin() + 30.0 * (y as f32 / 61.0).cos()) as u8;
    let mut scene = GrayImage::from_fn(SCENE.0, SCENE.1, |x, y| Luma([wall(x, y)]));
    let face = imageops::resize(face, side, side, imageops::FilterType::CatmullRom);
    imageops::replace(&mut scene, &face, i64::from(x), i64::from(y));
    let colours = RgbImage::from_fn(SCENE.0, SCENE.1, |x, y| Rgb([scene.get_pixel(x, y).0[0]; 3]));
    DynamicImage::from(colours)
}

/// Mean and standard deviation.
fn spread(values: impl ExactSizeIterator<Item = f32> + Clone) -> (f32, f32) {
    let n = values.len() as f32;
    let mean = values.clone().sum::<f32>() / n;
    (mean, (values.map(|value| (value - mean).powi(2)).sum::<f32>() / n).sqrt())
}

fn print(name: &str, all: usize, found: &[Found]) {
    let count = found.len();
    if count == 0 {
        println!("{name}: none of {all} faces found");
        return;
    }
    let share = |count: usize, all: usize| 100.0 * count as f64 / all as f64;
    let right = |right: &dyn Fn(&Found) -> bool| share(found.iter().filter(|found| right(found)).count(), count);
    println!("{name}: {count} of {all} faces found ({:.1} %)", share(count, all));
    println!("  accuracy on these: {:.2} % as they were", right(&|found| found.right_before));
    for (index, (factor, turned)) in VARIANTS.iter().enumerate() {
        let accuracy = right(&|found| found.right_after[index]);
        let turned = if *turned { "turned with the face" } else { "upright" };
        println!("                     {accuracy:.2} % out of the scenes, crops x {factor}, {turned}");
    }
    let [across, down, logarithm] = [0, 1, 2].map(|index| spread(found.iter().map(|found| found.frame[index])));
    let scale = logarithm.0.exp();
    println!("  frame's side in parts of the box's: {scale:.3}, its logarithm ± {:.3}", logarithm.1);
    println!(
        "  frame's centre right of the box's: {:.3} ± {:.3}, below it: {:.3} ± {:.3}",
        across.0, across.1, down.0, down.1
    );
    let with_landmarks: Vec<&[(f32, f32); 5]> = found.iter().filter_map(|found| found.landmarks.as_ref()).collect();
    if !with_landmarks.is_empty() {
        let mean = |index: usize| {
            let sum = with_landmarks
                .iter()
                .fold((0.0, 0.0), |sum, points| (sum.0 + points[index].0, sum.1 + points[index].1));
            (sum.0 / with_landmarks.len() as f32, sum.1 / with_landmarks.len() as f32)
        };
        let names = ["right eye", "left eye", "nose", "right mouth corner", "left mouth corner"];
        for (index, name) in names.iter().enumerate() {
            let (x, y) = mean(index);
            println!("  mean {name}: {x:.3}, {y:.3}");
        }
    }
}
