//! Bytes as a picture file, through decoding, the embedded face finder, cutting, classification and drawing.
//!
//! Nothing may panic or read what is not its own; boxes lie inside the picture; probabilities sum to 1.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use vultus::analyze::{AnalyzeOptions, Analyzer};
use vultus::annotate::{annotate, name_of};
use vultus::bundle::Bundle;
use vultus::classifier::Classifier;
use vultus::decode::{DecodeLimits, decode};
use vultus::faces::{FaceFinder, FaceMethod, FaceOptions};
use vultus::labels::Labels;
use vultus::network::NetworkConfig;
use vultus::weights::WeightTensor;

/// Small, so that a case takes milliseconds.
const LIMITS: DecodeLimits = DecodeLimits { pixels: 40_000, side_px: 2_000 };

/// A classifier by the sum of the pixels, and a finder that is easily convinced.
static ANALYZER: LazyLock<Analyzer> = LazyLock::new(|| {
    let network: NetworkConfig = serde_json::from_str(r#"{"layers": [{"type": "flatten"}]}"#).expect("a network");
    let data = (0..48 * 48).flat_map(|_| [0.0, 1e-4]).collect();
    let weights = [
        ("layers.1.weight".to_owned(), WeightTensor { shape: vec![48 * 48, 2], data }),
        ("layers.1.bias".to_owned(), WeightTensor { shape: vec![2], data: vec![0.0, -20.0] }),
    ];
    let (preprocessing, training, metrics, inference) = Default::default();
    let labels = Labels::new(["dark", "bright"]).expect("labels");
    let weights = weights.into_iter().collect();
    let bundle = Bundle { labels, preprocessing, network, weights, training, metrics, inference };
    let options = FaceOptions { minimum_px: 1, minimum_confidence: 0.0 };
    let finder = FaceFinder::new(&FaceMethod::Rustface, options).expect("a finder");
    let options = AnalyzeOptions { limits: LIMITS, ..AnalyzeOptions::default() };
    Analyzer::new(Classifier::from_bundle(bundle).expect("a classifier"), finder, options)
});

fuzz_target!(|bytes: &[u8]| {
    let Ok(picture) = decode(bytes, &LIMITS) else { return };
    let analysis = ANALYZER.analyze(&picture).expect("no picture makes the finder fail");
    for face in &analysis.faces {
        let area = face.area;
        assert!(area.x + area.width <= picture.width() && area.y + area.height <= picture.height(), "{area:?}");
        let sum: f32 = face.probabilities.iter().map(|(_, probability)| probability).sum();
        assert!((sum - 1.0).abs() < 1e-5, "{sum}");
    }
    let names: Vec<String> = analysis.faces.iter().map(name_of).collect();
    annotate(&picture, &analysis.faces, &names);
});
