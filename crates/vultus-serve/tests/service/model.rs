//! A model that is made, not trained.

use vultus::bundle::Bundle;
use vultus::inference::{Inference, Views};
use vultus::labels::Labels;
use vultus::preprocess::Preprocessing;
use vultus::weights::{WeightTensor, Weights};

/// Side of the model's input.
pub const SIDE: u32 = 8;

/// Pictures whose mean is above 128 are bright.
pub fn brightness() -> Bundle {
    let inputs = (SIDE * SIDE) as usize;
    let tensor = |shape: &[usize], data: Vec<f32>| WeightTensor { shape: shape.to_vec(), data };
    let mut weights = Weights::default();
    let step = 0.1 / inputs as f32;
    weights.insert("layers.1.weight".to_owned(), tensor(&[inputs, 2], [step, -step].repeat(inputs)));
    weights.insert("layers.1.bias".to_owned(), tensor(&[2], vec![-12.8, 12.8]));
    Bundle {
        labels: Labels::new(["bright", "dark"]).unwrap(),
        preprocessing: Preprocessing { width: SIDE, height: SIDE, ..Preprocessing::default() },
        network: serde_json::from_str(r#"{"layers": [{"type": "flatten"}]}"#).unwrap(),
        weights,
        // A mirror image has the same mean.
        inference: Inference { views: Views { flip: true, ..Views::default() }, temperature: 1.0 },
        training: serde_json::json!({"seed": 7}),
        metrics: serde_json::json!([{"split": "test", "accuracy": 0.5}]),
    }
}
