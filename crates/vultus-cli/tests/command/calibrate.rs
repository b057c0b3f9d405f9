//! `vultus calibrate`.

use serde_json::json;

use crate::picture::png;
use crate::program::{Place, metadata_of};

#[test]
fn a_model_is_calibrated_for_other_views_or_other_images() {
    let place = Place::with_config();
    place.train("run", &[]);
    let inference = |name: &str| metadata_of(&place.path(name), "inference");
    let metrics = |name: &str| metadata_of(&place.path(name), "metrics");
    let own = inference("run/model.safetensors");
    // With its own views it comes out as the training left it.
    let same = place.run(&["calibrate", "run", "--out", "same.safetensors"]).ends_with(0);
    same.says(&["17 images of split train-validation"]).prints(&["test (14 images)"]);
    assert_eq!(inference("same.safetensors"), own);
    assert_eq!(metrics("same.safetensors"), metrics("run/model.safetensors"));

    let arguments = ["calibrate", "run/model.safetensors", "--data", "synthetic:12", "--flip", "true", "--blur", "0.1"];
    place.run(&[&arguments[..], &["--out", "views.safetensors"]].concat()).ends_with(0);
    let views = inference("views.safetensors");
    assert_eq!(views["views"], json!({ "flip": true, "shift": 0, "blur": 0.1 }));
    assert_ne!(metrics("views.safetensors"), metrics("same.safetensors"));
    assert_eq!(metadata_of(&place.path("views.safetensors"), "training")["calibration"]["images"], json!(17));
    place.run(&["evaluate", "views.safetensors", "--data", "synthetic:12", "--split", "test"]).ends_with(0);

    let others = ["calibrate", "run/model.safetensors", "--data", "synthetic:13", "--out", "others.safetensors"];
    place.run(&others).ends_with(2).says(&["not what the model was trained on"]);
    let flat = ["calibrate", "run/model.safetensors", "--data", "flat", "--out", "others.safetensors"];
    place.write("flat/test/happy/1.png", png(1, 48));
    place.write("flat/test/sad/2.png", png(2, 48));
    place.run(&flat).ends_with(2).says(&["not what the model was trained on", "--split"]);
    place.run(&[&others[..], &["--split", "train"]].concat()).ends_with(2).says(&["the model was trained on"]);
    place.run(&[&others[..], &["--split", "test"]].concat()).ends_with(0).says(&["of split test: temperature"]);
    assert_eq!(metrics("others.safetensors"), json!([]));
    place.run(&[&others[..], &["--split", "test"]].concat()).ends_with(2).says(&["others.safetensors exists"]);
    place.write("flat/test/bored/3.png", png(3, 48));
    let flat = [&flat[..4], &["--out", "flat.safetensors", "--split", "test"]].concat();
    place.run(&flat).ends_with(2).says(&["--drop-class bored"]);
    place
        .run(&[&flat[..], &["--drop-class", "bored"]].concat())
        .ends_with(0)
        .says(&["2 images of split test: temperature"]);
    // What was drawn is known again, whatever was set.
    place.train("drawn", &["--set", "data.synthetic.seed=5"]);
    let drawn = ["calibrate", "drawn/model.safetensors", "--data", "synthetic:12", "--out", "drawn.safetensors"];
    place.run(&drawn).ends_with(0).says(&["17 images of split train-validation"]);
    place.run(&["calibrate", "run", "--out", "model.txt"]).ends_with(2).says(&["a model is a .safetensors file"]);
}
