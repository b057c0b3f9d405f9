//! `vultus network`: the table of layers, the same as an object, and refusals.

use serde_json::{Value, json};

use crate::program::Place;

/// Of every kind that the tables tell something particular about.
const MIXED: &str = r#"
[preprocessing]
width = 16
height = 12

[[network.layers]]
type = "conv"
filters = 8
kernel = 3
padding = "same"
bias = false

[[network.layers]]
type = "residual"

[[network.layers.layers]]
type = "depthwise_conv"
kernel = 5
padding = "same"

[[network.layers.layers]]
type = "squeeze_excitation"

[[network.layers]]
type = "global_average_pool"
"#;

fn place() -> Place {
    let place = Place::new();
    place.write("mixed.toml", MIXED);
    place
}

#[test]
fn the_table_tells_places_shapes_and_costs() {
    let outcome = place().run(&["network", "mixed.toml"]).ends_with(0);
    let lines: Vec<Vec<&str>> = outcome.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    let has = |words: &[&str]| lines.iter().any(|line| line == words);
    assert!(has(&[
        "0", "conv", "8", "filters", "3x3,", "same,", "no", "bias", "8", "x", "12", "x", "16", "72", "13824"
    ]));
    let depthwise = ["1.layers.0", "depthwise_conv", "5x5,", "same", "8", "x", "12", "x", "16", "208", "38400"];
    assert!(has(&depthwise), "{}", outcome.stdout);
    let squeeze = ["1.layers.1", "squeeze_excitation", "2", "hidden", "units", "8", "x", "12", "x", "16", "42", "32"];
    assert!(has(&squeeze), "{}", outcome.stdout);
    let parameters = 72 + 208 + 42 + 8 * 7 + 7;
    outcome.prints(&[&format!("{parameters} parameters"), &format!("{} multiply-adds", 13_824 + 38_400 + 32 + 56)]);
}

#[test]
fn the_object_adds_up() {
    let outcome = place().run(&["network", "mixed.toml", "--classes", "3", "--json"]).ends_with(0);
    let object: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!((object["classes"].as_u64(), object["input"]["width"].as_u64()), (Some(3), Some(16)));
    let layers = object["layers"].as_array().unwrap();
    let types: Vec<&str> = layers.iter().map(|layer| layer["type"].as_str().unwrap()).collect();
    let inside = ["depthwise_conv", "squeeze_excitation"];
    assert_eq!(types, ["conv", "residual", inside[0], inside[1], "global_average_pool", "dense"]);
    for key in ["parameters", "multiply_adds"] {
        let sum: u64 = layers.iter().map(|layer| layer[key].as_u64().unwrap()).sum();
        assert_eq!(object[key].as_u64(), Some(sum), "{key}");
    }
    assert_eq!(object["trainable"], object["parameters"]);
}

#[test]
fn built_in_names_and_overrides_are_understood() {
    let place = place();
    let parameters = |arguments: &[&str]| {
        let outcome = place.run(&[&["network", "--json"], arguments].concat()).ends_with(0);
        serde_json::from_str::<Value>(&outcome.stdout).unwrap()["parameters"].as_u64().unwrap()
    };
    assert_eq!(parameters(&["S", "--classes", "6"]), 640 + 256 + 73_856 + 512 + 1_638_528 + 512 + 774);
    assert_eq!(parameters(&["mixed.toml"]) - parameters(&["mixed.toml", "--classes", "2"]), 5 * 9);
    let ratio = "network.layers.1.layers.1.ratio=1";
    assert_eq!(parameters(&["mixed.toml", "--set", ratio]) - parameters(&["mixed.toml"]), 6 * 17);
}

#[test]
fn what_is_no_network_is_refused() {
    let place = place();
    place.run(&["network", "missing.toml"]).ends_with(2).says(&["missing.toml"]);
    place.run(&["network", "S", "--classes", "1"]).ends_with(2).says(&["--classes"]);
    let set = |text| place.run(&["network", "mixed.toml", "--set", text]).ends_with(2);
    set("network.layers.1.layers.0.kernel=4").says(&["network.layers.1.layers.0.kernel is 4", "odd"]);
    set("network.layers.1.layers.1.ratio=0").says(&["ratio is 0"]);
}

#[test]
fn a_models_network_is_shown_as_it_is() {
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/ferplus-base.safetensors");
    let outcome = place().run(&["network", model, "--json"]).ends_with(0);
    let network = outcome.json();
    assert_eq!((&network["classes"], &network["multiply_adds"]), (&json!(8), &json!(96_260_096)));
    place().run(&["network", model]).ends_with(0).prints(&["squeeze_excitation"]);
    for more in [["--classes", "3"], ["--set", "seed=1"]] {
        place().run(&[&["network", model], &more[..]].concat()).ends_with(2).says(&["is a model"]);
    }
    place().run(&["network", "none.safetensors"]).ends_with(2).says(&["no model file and no run at none.safetensors"]);
}
