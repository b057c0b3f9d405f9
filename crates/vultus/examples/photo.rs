//! The faces in a photograph and their expressions.
//!
//! ```text
//! cargo run --release -p vultus --example photo -- MODEL.safetensors PHOTO
//! ```

use std::error::Error;
use std::path::Path;

use vultus::analyze::{AnalyzeOptions, Analyzer};
use vultus::classifier::Classifier;
use vultus::faces::{FaceFinder, FaceMethod, FaceOptions};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, photo] = &arguments[..] else { return Err("usage: photo MODEL PHOTO".into()) };
    let classifier = Classifier::load(Path::new(model))?;
    let finder = FaceFinder::new(&FaceMethod::Rustface, FaceOptions::default())?;
    let analyzer = Analyzer::new(classifier, finder, AnalyzeOptions::default());
    let analysis = analyzer.analyze_file(Path::new(photo))?;
    let count = analysis.faces.len();
    let faces = if count == 1 { "face" } else { "faces" };
    println!("{count} {faces} in {} x {} pixels", analysis.width, analysis.height);
    for face in analysis.faces {
        println!("{:?}: {} ({:.2})", face.area, face.label.as_deref().unwrap_or("unsure"), face.score);
    }
    Ok(())
}
