//! The expression of one face, cropped to it.
//!
//! ```text
//! cargo run --release -p vultus --example face -- MODEL.safetensors FACE
//! ```

use std::error::Error;
use std::path::Path;

use vultus::classifier::Classifier;
use vultus::decode::{DecodeLimits, open};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, face] = &arguments[..] else { return Err("usage: face MODEL FACE".into()) };
    let classifier = Classifier::load(Path::new(model))?;
    let prediction = classifier.predict(&open(Path::new(face), &DecodeLimits::default())?);
    println!("{} ({:.3})", prediction.label, prediction.score);
    for (name, probability) in prediction.probabilities {
        println!("{name:>10} {probability:.3} {}", "#".repeat((probability * 50.0) as usize));
    }
    Ok(())
}
