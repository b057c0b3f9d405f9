//! `vultus bench`: one object with the figures, and refusals.

use crate::program::Place;

/// Small enough to take no time.
const TINY: &str = r#"
[preprocessing]
width = 16
height = 16

[[network.layers]]
type = "conv"
filters = 4
kernel = 3
padding = "same"
activation = "relu"

[[network.layers]]
type = "flatten"
"#;

fn place() -> Place {
    let place = Place::new();
    fs_err::write(place.path("tiny.toml"), TINY).unwrap();
    place
}

#[test]
fn both_modes_print_one_object_with_the_figures() {
    let place = place();
    for mode in ["train", "infer"] {
        let arguments = ["bench", "--network", "tiny.toml", "--mode", mode, "--batch", "4", "--threads", "2"];
        let outcome = place.run(&[&arguments[..], &["--seconds", "0.05", "--json"]].concat()).ends_with(0);
        let object: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
        for key in ["images_per_second", "ms_median", "ms_min", "gflops", "peak_fraction", "first_step_seconds"] {
            assert!(object[key].as_f64().unwrap() > 0.0, "{key}: {object}");
        }
        assert_eq!((object["mode"].as_str(), object["batch"].as_u64()), (Some(mode), Some(4)));
        assert_eq!(object["name"].as_str(), Some("tiny.toml"));
        assert_eq!(object["threads"].as_u64(), Some(2));
        assert_eq!(object["wait_share"].is_null(), mode == "infer");
        #[cfg(target_os = "linux")]
        assert!(object["peak_rss_mb"].as_f64().unwrap() > 1.0);
    }
}

#[test]
fn without_json_a_person_can_read_it() {
    let arguments = ["bench", "--network", "tiny.toml", "--mode", "infer", "--seconds", "0", "--batch", "2"];
    place().run(&arguments).ends_with(0).prints(&["tiny.toml predicts", "images/s", "GFLOP/s", "MB"]);
}

#[test]
fn a_change_to_the_network_is_measured() {
    let multiply_adds = |set: &[&str]| {
        let arguments = ["bench", "--network", "tiny.toml", "--mode", "infer", "--seconds", "0", "--json"];
        let outcome = place().run(&[&arguments[..], set].concat()).ends_with(0);
        let object: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
        object["multiply_adds"].as_u64().unwrap()
    };
    assert_eq!(multiply_adds(&["--set", "network.layers.0.filters=8"]), 2 * multiply_adds(&[]));
    // Only the network and its optimiser are measured: no teacher is asked.
    let teacher =
        ["--set", "train.targets.distillation=0.5", "--set", "train.targets.teachers=[\"absent.safetensors\"]"];
    let arguments = ["bench", "--network", "tiny.toml", "--mode", "train", "--seconds", "0", "--json"];
    place().run(&[&arguments[..], &teacher].concat()).ends_with(0);
    let arguments = ["bench", "--network", "tiny.toml", "--set", "network.layers.0.filter=8"];
    place().run(&arguments).ends_with(2).says(&["filter"]);
}

#[test]
fn the_instructions_can_be_limited_and_a_misspelt_limit_is_refused() {
    let place = place();
    let arguments = ["bench", "--network", "tiny.toml", "--mode", "infer", "--seconds", "0", "--json"];
    let portable = place.run_with(&arguments, &[("VULTUS_SIMD", "portable")]).ends_with(0);
    let object: serde_json::Value = serde_json::from_str(&portable.stdout).unwrap();
    assert_eq!(object["instructions"], "portable");
    place.run_with(&arguments, &[("VULTUS_SIMD", "avx9000")]).ends_with(2).says(&["VULTUS_SIMD", "avx9000", "avx2"]);
}

#[test]
fn a_finished_model_is_measured_with_all_of_its_views() {
    let place = Place::with_config();
    let multiply_adds = |run: &str, views: &[&str]| {
        place.train(run, views);
        let arguments = ["bench", "--model", run, "--batch", "1", "--seconds", "0", "--json"];
        let object: serde_json::Value = serde_json::from_str(&place.run(&arguments).ends_with(0).stdout).unwrap();
        assert_eq!(object["mode"], "infer");
        object["multiply_adds"].as_u64().unwrap()
    };
    assert_eq!(multiply_adds("two", &["--set", "views.flip=true"]), 2 * multiply_adds("one", &[]));
    place.run(&["bench", "--model", "one", "--mode", "train"]).ends_with(2).says(&["--mode"]);
    place.run(&["bench", "--model", "absent"]).ends_with(2).says(&["absent"]);
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let place = place();
    place.run(&["bench", "--network", "missing.toml"]).ends_with(2).says(&["missing.toml", "neither a file nor"]);
    place.run(&["bench", "--network", "a.safetensors"]).ends_with(2).says(&["neither a file nor"]);
    place.write("a.safetensors", "no model");
    place.run(&["bench", "--network", "a.safetensors"]).ends_with(2).says(&["a.safetensors", "--model"]);
    place.run(&["bench", "--network", "s"]).ends_with(2).says(&["s is neither a file nor one of the networks S and R"]);
    place.run(&["bench", "--set", "network.layers.0.kernel=99"]).ends_with(2).says(&["network.layers.0"]);
    place.run(&["bench", "--seconds", "-1"]).ends_with(2).says(&["--seconds"]);
    place.run(&["bench", "--batch", "0"]).ends_with(2).says(&["--batch"]);
}
