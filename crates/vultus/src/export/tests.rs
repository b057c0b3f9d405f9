//! Exported files in another runtime, rten, against the classifier that they come from.

use std::path::Path;

use rten::{Model, Value, ValueView};
use rten_tensor::NdTensor;
use rten_tensor::prelude::*;
use serde_json::json;

use super::*;
use crate::classifier::Classifier;
use crate::labels::Labels;
use crate::network::{NetworkConfig, ParameterRole};
use crate::preprocess::PixelScaling;
use crate::weights::{WeightTensor, Weights};

/// Furthest that two runtimes may be apart in a probability.
const ROUNDING: f32 = 1e-4;

/// Reproducible numbers in 0..1.
fn numbers(seed: u64) -> impl Iterator<Item = f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        Some((state >> 40) as f32 / (1_u64 << 24) as f32)
    };
    std::iter::from_fn(step).skip(8)
}

/// A classifier of pictures of 19 x 17 pixels with weights at random.
fn bundle(layers: &serde_json::Value, pixels: PixelScaling, inference: Inference) -> Bundle {
    let labels = Labels::new(["happy", "sad", "a \"quoted\" name"]).unwrap();
    let preprocessing = Preprocessing { width: 19, height: 17, pixels };
    let network: NetworkConfig = serde_json::from_value(json!({ "layers": layers })).unwrap();
    let resolved = network.resolve(17, 19, labels.len()).unwrap();
    let specs = resolved.parameters().enumerate();
    let weights: Weights = specs
        .map(|(index, spec)| {
            let inputs: usize = spec.shape[..spec.shape.len() - 1].iter().product();
            let value = |number: f32| match spec.role {
                ParameterRole::Kernel { .. } => (2.0 * number - 1.0) * (3.0 / inputs as f32).sqrt(),
                ParameterRole::RunningVariance => number + 0.1,
                _ => 2.0 * number - 1.0,
            };
            let data = numbers(index as u64 + 1).take(spec.len()).map(value).collect();
            (spec.name.clone(), WeightTensor { shape: spec.shape.clone(), data })
        })
        .collect();
    Bundle { labels, preprocessing, network, weights, inference, training: json!({}), metrics: json!({}) }
}

/// Pictures with smooth parts and edges, each with others, as bytes.
fn pictures(count: usize, width: usize, height: usize) -> Vec<u8> {
    let noise = numbers(77).take(count * width * height);
    let value = |(place, noise): (usize, f32)| {
        let (row, column) = (place / width % height, place % width);
        let (picture, edge) = (place / (width * height), if column > width / 3 { 50 } else { 0 });
        let slope = [160 * row / height + edge, 160 * column / width, 200 - 3 * edge][picture];
        (slope as f32 + 40.0 * noise) as u8
    };
    noise.enumerate().map(value).collect()
}

/// What rten says of `pixels`: a row a picture.
fn of_the_file(file: Vec<u8>, pixels: &[u8], width: usize, height: usize) -> Vec<f32> {
    let count = pixels.len() / (width * height);
    let values: Vec<f32> = pixels.iter().map(|&pixel| f32::from(pixel)).collect();
    let input = NdTensor::from_data([count, 1, height, width], values);
    let model = Model::load(file).unwrap();
    let name = |id: &rten::NodeId| model.node_info(*id).unwrap().name().unwrap().to_owned();
    assert_eq!(model.input_ids().iter().map(name).collect::<Vec<_>>(), [INPUT]);
    assert_eq!(model.output_ids().iter().map(name).collect::<Vec<_>>(), [OUTPUT]);
    let input: ValueView = input.view().into();
    let Value::FloatTensor(output) = model.run_one(input.into(), None).unwrap() else { panic!("no floats") };
    assert_eq!(output.shape()[0], count);
    output.to_vec()
}

fn check(bundle: &Bundle) {
    let (width, height) = (bundle.preprocessing.width as usize, bundle.preprocessing.height as usize);
    let pixels = pictures(3, width, height);
    let found = of_the_file(onnx(bundle).unwrap(), &pixels, width, height);

    let classifier = Classifier::from_bundle(bundle.clone()).unwrap();
    let mut numbers = vec![0.0; pixels.len()];
    for (numbers, pixels) in numbers.chunks_exact_mut(width * height).zip(pixels.chunks_exact(width * height)) {
        let face = image::GrayImage::from_raw(width as u32, height as u32, pixels.to_vec()).unwrap();
        bundle.preprocessing.fill(&face, numbers);
    }
    let expected = classifier.probabilities(&numbers);
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        assert!((found - expected).abs() <= ROUNDING, "{found} and {expected}");
    }
    // Three answers that are alike would say little.
    let rows: Vec<&[f32]> = expected.chunks_exact(bundle.labels.len()).collect();
    let apart = rows[0].iter().zip(rows[1]).map(|(first, second)| (first - second).abs()).fold(0.0, f32::max);
    assert!(apart > 10.0 * ROUNDING, "{rows:?}");
}

#[test]
fn every_layer_is_understood_by_others() {
    let networks = [
        json!([
            {"type": "conv", "filters": 5, "kernel": 3, "padding": "same", "activation": "leaky_relu"},
            {"type": "max_pool"},
            {"type": "batch_norm"},
            {"type": "dropout", "rate": 0.5},
            {"type": "conv", "filters": 6, "kernel": 3, "activation": "relu"},
            {"type": "max_pool"},
            {"type": "flatten"},
            {"type": "batch_norm"},
            {"type": "dense", "units": 9, "activation": "elu"},
            {"type": "batch_norm"},
        ]),
        json!([
            {"type": "conv", "filters": 4, "kernel": 5, "stride": 2, "padding": "same", "bias": false},
            {"type": "batch_norm"},
            {"type": "activation", "function": "tanh"},
            {"type": "residual", "activation": "relu", "layers": [
                {"type": "conv", "filters": 7, "kernel": 3, "stride": 2, "padding": "same", "bias": false},
                {"type": "batch_norm"},
                {"type": "activation", "function": "relu"},
                {"type": "conv", "filters": 7, "kernel": 3, "padding": "same"},
                {"type": "squeeze_excitation", "ratio": 2},
            ], "shortcut": [
                {"type": "conv", "filters": 7, "kernel": 1, "stride": 2, "bias": false},
                {"type": "batch_norm"},
            ]},
            {"type": "residual", "layers": [
                {"type": "conv", "filters": 7, "kernel": 3, "padding": "same", "activation": "relu"},
                {"type": "conv", "filters": 7, "kernel": 3, "padding": "same"},
            ]},
            {"type": "global_average_pool"},
        ]),
        json!([
            {"type": "conv", "filters": 4, "kernel": 3},
            {"type": "depthwise_conv", "kernel": 3, "padding": "same", "activation": "relu"},
            {"type": "average_pool", "size": 3},
            {"type": "batch_norm"},
            {"type": "depthwise_conv", "kernel": 3, "stride": 2, "padding": "same", "bias": false},
            {"type": "max_pool"},
            {"type": "flatten"},
        ]),
        json!([
            {"type": "max_pool", "size": 3},
            {"type": "activation", "function": "elu"},
            {"type": "batch_norm"},
            {"type": "conv", "filters": 3, "kernel": 3, "padding": "same", "activation": "tanh"},
            {"type": "flatten"},
            {"type": "batch_norm"},
            {"type": "activation", "function": "tanh"},
        ]),
    ];
    for layers in networks {
        check(&bundle(&layers, PixelScaling::Unit, Inference::default()));
    }
}

#[test]
fn scaling_views_and_temperature_are_in_the_file() {
    let layers = json!([{"type": "conv", "filters": 4, "kernel": 3, "activation": "relu"}, {"type": "flatten"}]);
    let standard = PixelScaling::Standard { mean: 0.5, std_dev: 0.25 };
    let views = |flip, shift, blur| Views { flip, shift, blur };
    for (pixels, views, temperature) in [
        (PixelScaling::Raw, views(false, 0, 0.0), 30.0),
        (PixelScaling::Unit, views(true, 0, 0.0), 1.0),
        (standard, views(false, 2, 0.0), 0.8),
        (standard, views(true, 3, 0.1), 1.3),
        (standard, views(false, 0, 0.25), 1.0),
        // So sure that nothing is left for a class, before a high temperature.
        (PixelScaling::Standard { mean: 0.5, std_dev: 1e-3 }, views(false, 0, 0.0), 20.0),
    ] {
        check(&bundle(&layers, pixels, Inference { views, temperature }));
    }
}

#[test]
fn every_model_that_comes_along_says_the_same_elsewhere() {
    for name in ["fer-small", "fer-base", "fer-large", "fer-large-mixed", "ferplus-base"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../models/{name}.safetensors"));
        let bundle = Bundle::load(&path).unwrap();
        assert!(bundle.inference.views.flip && bundle.inference.temperature != 1.0, "{name}");
        check(&bundle);
    }
}

#[test]
fn the_file_names_its_classes_in_their_order() {
    let bundle = bundle(&json!([{"type": "flatten"}]), PixelScaling::Unit, Inference::default());
    let model = crate::onnx::Model::from_bytes(&onnx(&bundle).unwrap()).unwrap();
    let labels: Vec<String> = serde_json::from_str(&model.metadata[0].value).unwrap();
    assert_eq!((&*model.metadata[0].key, &labels[..]), ("labels", bundle.labels.names()));
    assert!(model.description.contains("19 x 17 pixels"), "{}", model.description);
}

#[test]
fn parts_that_do_not_belong_together_are_refused() {
    let mut bundle = crate::bundle::tests::brightness();
    bundle.labels = Labels::new(["a", "b", "c"]).unwrap();
    assert!(matches!(onnx(&bundle), Err(BundleFault::Labels { labels: 3, outputs: 2 })));
}
