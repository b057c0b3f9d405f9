//! Which model is used, and files that are no model.

use std::path::Path;

use vultus::bundle::Bundle;
use vultus::labels::BASIC_EXPRESSIONS;
use vultus_train::facts::TrainingFacts;

use crate::picture::png;
use crate::program::{Place, header_of};

#[test]
fn the_model_in_the_program_is_used_when_none_is_named() {
    let place = Place::with_config();
    place.write("face.png", png(3, 48));
    let line = place.run(&["predict", "face.png", "--json"]).ends_with(0).json();
    let probabilities = line["faces"][0]["probabilities"].as_object().unwrap();
    assert_eq!(probabilities.keys().collect::<Vec<_>>(), BASIC_EXPRESSIONS.iter().collect::<Vec<_>>());
}

#[test]
fn the_models_given_away_keep_to_their_limits_and_are_what_card_and_readme_say() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let readme = fs_err::read_to_string(repository.join("README.md")).unwrap();
    for (name, most) in
        [("fer-small", 8), ("fer-base", 200), ("fer-large", 200), ("fer-large-mixed", 200), ("ferplus-base", 200)]
    {
        let file = repository.join(format!("models/{name}.safetensors"));
        assert!(fs_err::metadata(&file).unwrap().len() <= 12_000_000, "{name}");
        let bundle = Bundle::load(&file).unwrap();
        let facts = serde_json::json!(TrainingFacts::of(&bundle).unwrap());
        for (fact, value) in bundle.training.as_object().unwrap() {
            assert_eq!(facts[fact], *value, "{name}: {fact}");
        }
        let millions = bundle.resolve().unwrap().multiply_adds() as f64 / 1e6;
        assert!(millions <= f64::from(most), "{name}: {millions} million multiply-adds");

        let card = fs_err::read_to_string(file.with_extension("md")).unwrap();
        assert!(card.contains(&format!("{millions:.1} million multiply-adds a")), "{name}: {millions}");
        assert!(card.contains(&format!("{} classes: {}.", bundle.labels.len(), bundle.labels)), "{name}");
        assert!(card.contains(&format!("over {} views", bundle.inference.views.count())), "{name}");
        let accuracy = card.lines().find_map(|line| line.trim().strip_prefix("value: ")).unwrap();
        let accuracy = format!("| {:.2} % (", 100.0 * accuracy.parse::<f64>().unwrap());
        let row = readme.lines().find(|line| line.starts_with(&format!("| [`{name}`]"))).unwrap();
        assert!(row.contains(&accuracy), "README on {name}: {accuracy} is not in {row}");
    }
}

#[test]
fn a_damaged_model_is_refused() {
    let place = Place::with_config();
    place.train("run", &[]);
    place.write("face.png", png(3, 48));
    let mut bytes = fs_err::read(place.path("run/model.safetensors")).unwrap();
    let predict = |name: &str| place.run(&["predict", "face.png", "--model", name]).ends_with(1);

    place.write("cut.safetensors", &bytes[..bytes.len() - 5]);
    predict("cut.safetensors").says(&["cut.safetensors breaks off", "copy or download it again"]);
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    place.write("flipped.safetensors", &bytes);
    let outcome = predict("flipped.safetensors").says(&["flipped.safetensors is damaged", "checksum"]);
    assert!(outcome.stdout.is_empty());
    let arguments = ["evaluate", "flipped.safetensors", "--data", "synthetic:12"];
    place.run(&arguments).ends_with(1).says(&["flipped.safetensors is damaged"]);

    // A flipped byte in the metadata is found too.
    bytes[last] ^= 1;
    let place_of_happy = bytes.windows(5).position(|word| word == b"happy").unwrap();
    bytes[place_of_happy] = b'H';
    place.write("renamed.safetensors", &bytes);
    predict("renamed.safetensors").says(&["renamed.safetensors"]);
}

#[test]
fn foreign_files_are_no_models() {
    let place = Place::with_config();
    place.train("run", &[]);
    place.write("face.png", png(3, 48));
    let header = br#"{"weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let mut foreign = (header.len() as u64).to_le_bytes().to_vec();
    foreign.extend_from_slice(header);
    foreign.extend_from_slice(&1_f32.to_le_bytes());
    place.write("foreign.safetensors", foreign);
    place.write("text.safetensors", "this is no model, it only has the name of one\n");
    place.write("empty.safetensors", "");
    place.write("pointer.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 2439164\n");
    for (name, reason) in [
        ("foreign.safetensors", "another program"),
        ("text.safetensors", "is no vultus-bundle, a file in the format safetensors"),
        ("pointer.safetensors", "git lfs pull"),
        ("empty.safetensors", "breaks off after 0 bytes"),
        ("run/checkpoints/last.safetensors", "it is vultus-checkpoint"),
    ] {
        place.run(&["predict", "face.png", "--model", name]).ends_with(1).says(&[name, reason]);
        place.run(&["evaluate", name, "--data", "synthetic:12"]).ends_with(1).says(&[name, reason]);
    }
    let absent = "absent.safetensors";
    place.run(&["predict", "face.png", "--model", absent]).ends_with(2).says(&["no model file", absent]);
    place.run(&["evaluate", absent, "--data", "synthetic:12"]).ends_with(2).says(&["no model file", absent]);
}

#[test]
fn a_bundle_carries_what_prediction_needs() {
    let place = Place::with_config();
    place.train("run", &[]);
    let header = header_of(&place.path("run/model.safetensors"));
    let metadata = header["__metadata__"].as_object().unwrap();
    for key in ["labels", "preprocessing", "network", "training", "metrics", "sha256"] {
        assert!(metadata.contains_key(key), "no {key} in {:?}", metadata.keys());
    }
    // The file alone is enough.
    fs_err::rename(place.path("run/model.safetensors"), place.path("alone.safetensors")).unwrap();
    fs_err::remove_dir_all(place.path("run")).unwrap();
    place.write("face.png", png(3, 48));
    place.run(&["predict", "face.png", "--model", "alone.safetensors"]).ends_with(0).prints(&["face.png"]);
}
