//! `vultus predict`, and files that are no model.

use serde_json::Value;

use crate::picture::{bad_pictures, png};
use crate::program::{Place, header_of};

/// A place with a trained run, two good pictures and all bad ones between them.
fn place_with_pictures() -> (Place, Vec<&'static str>) {
    let place = Place::with_config();
    place.train("run", &[]);
    place.write("first.png", png(1, 48));
    place.write("last.png", png(2, 90));
    let bad = bad_pictures();
    let mut names = vec!["first.png"];
    for (name, bytes, _) in bad {
        place.write(name, bytes);
        names.push(name);
    }
    names.extend(["absent.png", "last.png"]);
    (place, names)
}

#[test]
fn good_pictures_are_classified_among_bad_ones() {
    let (place, names) = place_with_pictures();
    let arguments = [&["predict", "--model", "run"], &names[..]].concat();

    let outcome = place.run(&[&arguments[..], &["--json"]].concat()).ends_with(1).says(&["4 of the inputs"]);
    let rows: Vec<Value> = outcome.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.iter().map(|row| row["path"].as_str().unwrap()).collect::<Vec<_>>(), names);
    for row in [&rows[0], &rows[5]] {
        let probabilities = row["probabilities"].as_object().unwrap();
        assert_eq!(probabilities.len(), 7);
        let sum: f64 = probabilities.values().map(|score| score.as_f64().unwrap()).sum();
        assert!((sum - 1.0).abs() < 1e-5, "{sum}");
        assert_eq!(probabilities[row["label"].as_str().unwrap()], row["score"]);
    }
    let codes: Vec<&str> = rows[1..5].iter().map(|row| row["error"]["code"].as_str().unwrap()).collect();
    assert_eq!(codes, ["damaged", "not_an_image", "too_large", "unreadable"]);

    let outcome = place.run(&[&arguments[..], &["--csv"]].concat()).ends_with(1);
    let mut reader = csv::Reader::from_reader(outcome.stdout.as_bytes());
    let header = reader.headers().unwrap().clone();
    assert_eq!(header.len(), 3 + 7 + 1);
    let records: Vec<csv::StringRecord> = reader.records().map(|record| record.unwrap()).collect();
    assert_eq!(records.len(), names.len());
    for (record, row) in records.iter().zip(&rows) {
        assert_eq!(record[0], *row["path"].as_str().unwrap());
        assert_eq!(record[1], *row["label"].as_str().unwrap_or_default());
        assert_eq!(record[10], *row["error"]["message"].as_str().unwrap_or_default());
    }

    let outcome = place.run(&arguments).ends_with(1).prints(&["first.png", "last.png", "error: "]);
    for (name, _, reason) in bad_pictures() {
        assert!(outcome.stdout.lines().any(|line| line.contains(name) && line.contains(reason)), "{}", outcome.stdout);
    }

    place.run(&["predict", "first.png", "last.png", "--model", "run/model.safetensors"]).ends_with(0);
}

#[test]
fn the_newest_model_below_runs_is_used_when_none_is_named() {
    let place = Place::with_config();
    place.run(&["train", "--config", "small.toml"]).ends_with(0).says(&["runs/train-001"]);
    place.run(&["train", "--config", "small.toml"]).ends_with(0).says(&["runs/train-002"]);
    place.write("face.png", png(3, 48));
    place.run(&["predict", "face.png"]).ends_with(0).says(&["runs/train-002/model.safetensors"]).prints(&["face.png"]);
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
    for (name, reason) in [
        ("foreign.safetensors", "another program"),
        ("text.safetensors", "is no vultus-bundle"),
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
