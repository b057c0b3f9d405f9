//! The configurations that come with the program, and mistakes in configurations.

use std::path::{Path, PathBuf};

use vultus_train::config::TrainConfig;

use crate::program::{Place, SMALL};

fn shipped() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
    let mut paths: Vec<PathBuf> = fs_err::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn every_shipped_config_loads_and_its_network_fits_faces() {
    let mut names = Vec::new();
    for path in shipped() {
        let config = TrainConfig::load(Some(&path), &[]).unwrap_or_else(|error| panic!("{error}"));
        let resolved = config.network.resolve(48, 48, 7);
        assert!(resolved.is_ok(), "{}: {:?}", path.display(), resolved.err());
        let again = TrainConfig::from_toml(&config.to_toml(), "written again").unwrap();
        assert_eq!(again, config, "{}", path.display());
        names.push(path.file_name().unwrap().to_string_lossy().into_owned());
    }
    for name in
        ["paper.toml", "paper-search.toml", "resnet.toml", "se-resnet.toml", "separable.toml", "smoke.toml", "vgg.toml"]
    {
        assert!(names.iter().any(|found| found == name), "{name} is not in {names:?}");
    }
}

#[test]
fn the_residual_network_has_the_cost_that_its_file_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/resnet.toml");
    let config = TrainConfig::load(Some(&path), &[]).unwrap();
    let network = config.network.resolve(48, 48, 7).unwrap();
    // The stem; stage 1; each later stage has a first convolution with half the inputs and a quarter of the pixels, three
    // of stage 1's cost, and a shortcut; the head.
    let unit = 48 * 48 * 32 * 32 * 9_u64;
    let expected = 48 * 48 * 32 * 9 + 4 * unit + 3 * (unit / 2 + 3 * unit + unit / 18) + 256 * 7;
    assert_eq!(network.multiply_adds(), expected);
    assert_eq!(expected / 1_000_000, 312);
    // 20 convolutions, 20 batch norms, the head.
    assert_eq!(network.parameters().count(), 20 + 4 * 20 + 2);
    let set = |text: &str| TrainConfig::load(Some(&path), &[text.to_owned()]).map(|config| config.network);
    let widths = set("network.layers.*.layers.*.filters=8").unwrap();
    assert!(widths.resolve(48, 48, 7).unwrap_err().to_string().contains("network.layers.3 (residual)"));
    assert_ne!(set("network.layers.5.shortcut.1.momentum=0.5").unwrap(), config.network);
}

#[test]
fn the_networks_have_the_costs_that_their_files_say() {
    for (name, millions) in [("resnet", 312), ("vgg", 117), ("se-resnet", 185), ("separable", 7)] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../configs/{name}.toml"));
        let text = fs_err::read_to_string(&path).unwrap().replace("\n# ", " ");
        assert!(text.contains(&format!("{millions} million multiply-adds a picture")), "{name}");
        let network = TrainConfig::load(Some(&path), &[]).unwrap().network.resolve(48, 48, 7).unwrap();
        assert_eq!((network.multiply_adds() + 500_000) / 1_000_000, millions, "{name}");
    }
}

#[test]
fn the_smoke_config_does_the_whole_job() {
    let place = Place::new();
    let smoke = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/smoke.toml").display().to_string();
    place.run(&["train", "--config", &smoke, "--out", "run"]).ends_with(0).prints(&["accuracy", "run/report.html"]);
}

#[test]
fn an_unknown_key_in_the_file_is_named() {
    let place = Place::new();
    let bad = SMALL.replace("batch_size", "batchsize");
    place.write("bad.toml", bad);
    let outcome = place.run(&["train", "--config", "bad.toml", "--out", "run"]).ends_with(2);
    let outcome = outcome.says(&["error: bad.toml", "batchsize", "batch_size"]);
    assert!(outcome.stdout.is_empty());
    assert!(!place.path("run").exists(), "a run directory was made for a bad configuration");
    place.run(&["search", "--config", "bad.toml", "--out", "run"]).ends_with(2).says(&["bad.toml", "batchsize"]);
}

#[test]
fn an_unknown_key_in_an_override_is_named() {
    let place = Place::with_config();
    let set = |text| place.run(&["train", "--config", "small.toml", "--out", "run", "--set", text]).ends_with(2);
    set("train.epoch=3").says(&["error: train.epoch=3", "no key epoch", "epochs"]);
    set("network.layers.9.rate=0.5").says(&["6 elements"]);
    set("train.epochs").says(&["expected key=value"]);
    set("epochs=3").says(&["is train.epochs meant?"]);
    let options = |more: &[&str]| place.run(&[&["train", "--out", "run"], more].concat()).ends_with(2);
    options(&["--epochs", "3"])
        .says(&["unexpected argument '--epochs'", "settings are made by --set train.epochs=VALUE"]);
    options(&["--batch-size=3"]).says(&["--set train.batch_size=VALUE"]);
    assert!(!options(&["--lr", "3"]).stderr.contains("--set"));
    options(&["faces"]).says(&["images are named by --data faces"]);
    let unnamed = place.run(&["evaluate", "--model", "run"]).ends_with(2);
    unnamed.says(&["it is named without an option: vultus evaluate"]);
    set("train.epochs=many").says(&["train.epochs=", "many", "a whole number"]);
    set("train.epochs=0").says(&["train.epochs is 0", "use 1 to 1000000"]);
    set("train.epochs=9223372036854775807").says(&["train.epochs is 9223372036854775807"]);
    set("train.clip_norm=-1").says(&["train.clip_norm is -1", "use 0 (off)"]);
    assert!(!place.path("run").exists());
}

#[test]
fn a_missing_config_is_named() {
    let place = Place::new();
    place.run(&["train", "--config", "nowhere.toml", "--out", "run"]).ends_with(2).says(&["nowhere.toml"]);
}

#[test]
fn a_network_that_does_not_fit_is_refused_with_its_layer() {
    let place = Place::with_config();
    let arguments = ["train", "--config", "small.toml", "--out", "run", "--set", "network.layers.0.kernel=99"];
    place.run(&arguments).ends_with(2).says(&["network.layers.0"]);
    assert!(!place.path("run").exists(), "a run directory was made for a bad network");
}
