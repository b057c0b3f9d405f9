//! What a card tells, and what it refuses to.

use image::{GrayImage, Luma};
use vultus::inference::Inference;
use vultus::labels::Labels;
use vultus::network::NetworkConfig;
use vultus::preprocess::Preprocessing;

use super::*;
use crate::config::TrainConfig;
use crate::dataset::Sample;
use crate::fingerprint::{pixels_fingerprint, split_fingerprint};
use crate::model::initial_weights;

fn dataset(labels: &[&str], samples: &[(&str, usize, u8)]) -> Dataset {
    let sample = |&(split, label, grey): &(&str, usize, u8)| Sample {
        image: GrayImage::from_pixel(2, 2, Luma([grey])),
        label,
        split: split.to_owned(),
        origin: grey.to_string(),
        votes: None,
    };
    let samples = samples.iter().map(sample).collect();
    Dataset { labels: Labels::new(labels).unwrap(), samples, removed: Vec::new() }
}

/// A model of 2 x 2 pixels with the classes `happy` and `sad`, trained without `bored`.
fn bundle(validated: usize) -> Bundle {
    let network: NetworkConfig = serde_json::from_str(r#"{"layers":[{"type":"flatten"}]}"#).unwrap();
    let weights = initial_weights(&network.resolve(2, 2, 2).unwrap(), 1);
    Bundle {
        labels: Labels::new(["happy", "sad"]).unwrap(),
        preprocessing: Preprocessing { width: 2, height: 2, ..Preprocessing::default() },
        network,
        weights,
        inference: Inference::default(),
        training: json!({
            "images": { "train": 2, "validation": validated }, "train_split": "train", "data_sha256": "", "seed": 1,
            "revision": "unknown", "epochs": 1, "epoch": 1, "selection": "nothing", "processor": "", "threads": 1,
            "instructions": "", "seconds": 1.0, "dropped_classes": ["bored"], "sources": ["a: b", "faces"],
        }),
        metrics: Value::Null,
    }
}

fn text() -> CardText {
    CardText {
        name: "mine".to_owned(),
        command: "vultus train".to_owned(),
        whole: None,
        dataset: None,
        measured_on: None,
        license: None,
    }
}

fn faces() -> Dataset {
    let samples = [("train", 1, 1), ("train", 2, 2), ("test", 1, 1), ("test", 2, 3), ("test", 0, 4)];
    dataset(&["bored", "happy", "sad"], &samples)
}

#[test]
fn images_of_the_training_split_are_known_by_their_pixels() {
    let samples = [("train", 0, 1), ("train", 0, 1), ("test", 0, 1), ("test", 0, 2)];
    let left = without_training_images(&dataset(&["a", "b"], &samples), "train");
    assert_eq!(left.indices_of("train").len(), 2);
    let test: Vec<&str> = left.indices_of("test").iter().map(|&i| left.samples[i].origin.as_str()).collect();
    assert_eq!(test, ["2"]);
}

#[test]
fn classes_that_training_left_out_are_left_out() {
    let card = card(&bundle(1), &faces(), "test", &[], &text()).unwrap();
    assert!(card.contains("| all of test | 2 |") && card.contains("stand in train | 1 |"), "{card}");
    assert!(card.contains("\nWhether train of these data is what the model was trained on is not known: "), "{card}");
}

#[test]
fn the_training_images_are_known_again() {
    let mut model = bundle(1);
    model.training["cleaning"] = json!({ "drop_classes": ["bored"] });
    let cleaned = clean(faces(), &serde_json::from_value(model.training["cleaning"].clone()).unwrap(), "train");
    model.training["train_sha256"] = json!(split_fingerprint(&cleaned.unwrap(), "train"));
    let unknown = "is not known: it may have learnt";
    assert!(!card(&model, &faces(), "test", &[], &text()).unwrap().contains(unknown));
    let mut others = faces();
    others.samples[0].image = GrayImage::from_pixel(2, 2, Luma([9]));
    assert!(card(&model, &others, "test", &[], &text()).unwrap().contains(unknown));
}

#[test]
fn images_that_may_all_have_been_learnt_make_no_card() {
    let mut data = faces();
    data.samples.remove(3);
    let error = card(&bundle(1), &data, "test", &[], &text()).unwrap_err().to_string();
    assert!(error.starts_with("all images of split test stand in train, too"), "{error}");
}

#[test]
fn nobody_looked_for_copies_without_training_images() {
    let mut data = faces();
    data.samples.retain(|sample| sample.split != "train");
    let card = card(&bundle(1), &data, "test", &[], &text()).unwrap();
    assert!(card.contains("| all of test | 2 |") && !card.contains("without images"), "{card}");
    assert!(card.contains("\nNobody has looked which of these images also stand in train.\n"), "{card}");
}

#[test]
fn images_that_validated_make_no_card() {
    let mut model = bundle(1);
    model.training["validation_split"] = json!("test");
    let error = card(&model, &faces(), "test", &[], &text()).unwrap_err().to_string();
    assert!(error.starts_with("split test is called like the one that validated"), "{error}");
}

#[test]
fn other_data_are_named_as_what_was_measured_on() {
    let text = CardText { measured_on: Some("New Faces".to_owned()), command: "run `x|y`".to_owned(), ..text() };
    let card = card(&bundle(1), &faces(), "test", &[], &text).unwrap();
    for line in [
        "  - \"a: b and faces\"\n",
        "          name: \"New Faces test\"\n          type: \"newfaces\"\n",
        "Measured on `test` of New Faces (trained on a: b and faces). As far as the model's file tells,",
        "\n1 image of class bored is not counted: the model does not know it.\n\n",
        "| last training | `` run `x\\|y` `` |",
    ] {
        assert!(card.contains(line), "{line} not in {card}");
    }
}

#[test]
fn a_table_has_as_many_cells_whatever_the_names_are() {
    let mut bundle = bundle(1);
    bundle.labels = Labels::new(["happy", "sad|blue"]).unwrap();
    let data = dataset(&["happy", "sad|blue"], &[("test", 0, 1), ("test", 1, 2)]);
    let text = CardText { command: "vultus train --set a='b|c'".to_owned(), ..text() };
    let card = card(&bundle, &data, "test", &[], &text).unwrap();
    for line in ["| sad\\|blue | 1 |", "| | happy | sad\\|blue |", "| `vultus train --set a='b\\|c'` |"] {
        assert!(card.contains(line), "{line} not in {card}");
    }
}

#[test]
fn models_that_it_learnt_from_are_told() {
    let (began, named) = ("The model began with another one", "`start` and `teachers` are the last two parts");
    for (start, teachers, expected) in
        [("", vec![], [false, false]), ("", vec!["a/b"], [false, true]), ("a/b", vec![], [true, true])]
    {
        let mut bundle = bundle(1);
        let mut fit = TrainConfig::default().train;
        fit.start = start.to_owned();
        fit.targets.teachers = teachers.into_iter().map(str::to_owned).collect();
        bundle.training["train"] = json!(fit);
        let card = card(&bundle, &faces(), "test", &[], &text()).unwrap();
        assert_eq!([began, named].map(|words| card.contains(words)), expected, "{card}");
    }
    let mut bundle = bundle(1);
    bundle.training["validation_known_to"] = json!(["runs/a", "runs/b"]);
    let card = card(&bundle, &faces(), "test", &[], &text()).unwrap();
    assert!(card.contains("among those that runs/a and runs/b learnt"), "{card}");
    // Of images that calibrated it later nothing is known.
    bundle.training["calibration"] = json!({ "split": "mine", "images": 100, "data_sha256": null });
    let card = super::card(&bundle, &faces(), "test", &[], &text()).unwrap();
    assert!(card.contains("fitted to 100 images of split mine") && !card.contains("among those that"), "{card}");
}

#[test]
fn labels_that_are_unknown_are_no_guess() {
    let mut bundle = bundle(1);
    bundle.training["labels"] = json!("crowd");
    let error = card(&bundle, &faces(), "test", &[], &text()).unwrap_err().to_string();
    assert!(error.contains("labels \"crowd\" are not known"), "{error}");
}

#[test]
fn what_a_model_does_not_tell_is_left_out() {
    for training in [json!(null), json!({ "seed": 3, "dropped_classes": ["bored"] })] {
        let mut bundle = bundle(1);
        bundle.training = training;
        let data = dataset(&["happy", "sad"], &[("train", 0, 1), ("test", 0, 1), ("test", 1, 2)]);
        let text = CardText { dataset: Some("faces".to_owned()), ..text() };
        let card = card(&bundle, &data, "test", &[], &text).unwrap();
        let rows = card.lines().skip_while(|line| *line != "## Training").filter(|line| line.starts_with('|'));
        assert_eq!(rows.collect::<Vec<_>>(), ["| | |", "|---|---|", "| last training | `vultus train` |"]);
        assert!(!card.to_lowercase().contains("none"), "{card}");
    }
}

#[test]
fn images_that_were_trained_on_are_refused() {
    let error = card(&bundle(1), &faces(), "train", &[], &text()).unwrap_err().to_string();
    assert!(error.starts_with("split train is called like the one that the model was trained on"), "{error}");
}

#[test]
fn the_card_claims_what_is_known() {
    let unnamed = card(&bundle(0), &faces(), "test", &[], &text()).unwrap();
    assert!(unnamed.contains("datasets:\n  - \"a: b and faces\"\n"), "{unnamed}");
    for claim in ["license", "FER-2013", "temperature 1"] {
        assert!(!unnamed.contains(claim), "{claim} in {unnamed}");
    }
    let named = CardText { dataset: Some("FER-2013".to_owned()), license: Some("mit".to_owned()), ..text() };
    let named = card(&bundle(1), &faces(), "test", &[], &named).unwrap();
    for claim in [
        "license: \"mit\"\n",
        "  - \"FER-2013\"\n",
        "type: \"fer2013\"\n",
        "FER-2013 was collected",
        "temperature 1",
        "; 1 second |",
        "is that for the picture alone",
    ] {
        assert!(named.contains(claim), "{claim} not in {named}");
    }
    let mut calibrated = bundle(0);
    calibrated.inference.views.blur = 0.1;
    calibrated.training["seconds"] = json!(7200.0);
    calibrated.training["calibration"] = json!({ "split": "mine", "images": 5 });
    let mut chosen_here = calibrated.clone();
    chosen_here.training["calibration"]["data_sha256"] = json!(split_fingerprint(&faces(), "test"));
    let error = card(&chosen_here, &faces(), "test", &[], &text()).unwrap_err().to_string();
    assert!(error.starts_with("the images of split test chose"), "{error}");
    let mut learnt_here = calibrated.clone();
    let images = faces().indices_of("test");
    learnt_here.training["learnt_sha256"] = json!(["another", pixels_fingerprint(&faces(), &images)]);
    let error = card(&learnt_here, &faces(), "test", &[], &text()).unwrap_err().to_string();
    assert!(error.starts_with("split test is what the model learnt"), "{error}");
    let mut of_that_name = calibrated.clone();
    of_that_name.training["calibration"]["split"] = json!("test");
    let of_that_name = card(&of_that_name, &faces(), "test", &[], &text()).unwrap();
    assert!(
        of_that_name.contains("these images chose no epoch, and a split of that name the temperature, as far as"),
        "{of_that_name}"
    );
    let calibrated = card(&calibrated, &faces(), "test", &[], &text()).unwrap();
    for claim in ["neighbour of a pixel has a share of 0.1.", "fitted to 5 images of split mine.", "; 2.0 hours |"] {
        assert!(calibrated.contains(claim), "{claim} not in {calibrated}");
    }
    assert!(named.contains("| last training | `vultus train` |") && !named.contains("from nothing"), "{named}");
}

#[test]
fn a_card_of_votes_says_so_and_one_of_several_trainings_how_to_repeat_them() {
    let whole = Some(WholeTraining { command: "all.sh".to_owned(), hours: 2.25 });
    let mut model = bundle(1);
    let facts = [("labels", json!("ferplus")), ("cleaning", json!({ "leaks": "drop" }))];
    facts.into_iter().for_each(|(name, fact)| model.training[name] = fact);
    let card = card(&model, &faces(), "test", &[], &CardText { whole, ..text() }).unwrap();
    for claim in [
        "majority of FER+'s",
        "| from nothing | a part of `all.sh`: 2.2 hours",
        "leaks = \"drop\"",
        "The training left out",
    ] {
        assert!(card.contains(claim), "{claim} not in {card}");
    }
}
