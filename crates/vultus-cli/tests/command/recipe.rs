//! What makes a good classifier: changed images, soft targets, averaged weights, views, teachers, several models as one.

use serde_json::json;

use crate::picture::png;
use crate::program::{Outcome, Place, Results, metadata_of, read_json};

/// Every ingredient that needs no other model.
const EVERYTHING: [&str; 20] = [
    "--data",
    "synthetic:12",
    "--set",
    "train.optimizer={ type = \"muon\", learning_rate = 0.003 }",
    "--set",
    "train.weight_decay=0.1",
    "--set",
    "train.average_decay=0.9",
    "--set",
    "train.augmentation={ flip = 1.0, shift = 0.3, rotation = 0.2, noise = 0.1, erasing = 0.3, mixup = 0.2 }",
    "--set",
    "train.targets.smoothing=0.1",
    "--set",
    "views={ flip = true, shift = 1, blur = 0.1 }",
    "--set",
    "train.clip_norm=5.0",
    "--set",
    "train.keep=last",
    "--set",
    "seed=3",
];

#[test]
fn a_run_with_every_ingredient_goes_on_exactly_and_on_any_number_of_threads() {
    let place = Place::with_config();
    let epochs = |count: &'static str| [&EVERYTHING[..], &["--set", count]].concat();
    place.train("whole", &epochs("train.epochs=4"));
    place.train("parts", &epochs("train.epochs=2"));
    place.run(&["train", "--resume", "--out", "parts", "--set", "train.epochs=4"]).ends_with(0);
    let whole = Results::of(&place.path("whole"));
    whole.assert_same(&Results::of(&place.path("parts")));
    let arguments = [&["train", "--config", "small.toml", "--out", "alone"][..], &epochs("train.epochs=4")].concat();
    place.run_with(&arguments, &[("RAYON_NUM_THREADS", "1")]).ends_with(0);
    whole.assert_same(&Results::of(&place.path("alone")));

    let inference = metadata_of(&place.path("whole/model.safetensors"), "inference");
    assert_eq!(inference["views"], json!({ "flip": true, "shift": 1, "blur": 0.1 }));
    let temperature = inference["temperature"].as_f64().unwrap();
    assert!(temperature > 0.0 && temperature != 1.0, "{temperature}");
}

#[test]
fn a_model_teaches_another_and_both_answer_as_one() {
    let place = Place::with_config();
    place.train("first", &[]);
    let teach = |share: &str| {
        let run = format!("taught-{share}");
        // A run stands for its model.
        let teachers = "train.targets.teachers=[\"first\"]";
        let share = format!("train.targets.distillation={share}");
        place.train(&run, &["--set", teachers, "--set", &share, "--set", "seed=9"]);
        place.path(&run)
    };
    let taught = teach("0.9");
    let facts = metadata_of(&taught.join("model.safetensors"), "training").to_string();
    assert!(facts.contains("\"teachers\":[\"first/model.safetensors\"]"), "{facts}");
    assert!(!facts.contains(&place.text("")), "no paths in {facts}");
    assert!(Results::of(&taught) != Results::of(&teach("0.1")));

    let evaluate = |models: &[&str], more: &[&str]| {
        let arguments =
            [&["evaluate"], models, &["--data", "synthetic:12", "--split", "test", "--json"], more].concat();
        place.run(&arguments).ends_with(0).json()
    };
    let (first, second) = ("first/model.safetensors", "taught-0.1/model.safetensors");
    let losses: Vec<f64> = [vec![first], vec![second], vec![first, second]]
        .iter()
        .map(|models| evaluate(models, &[])["log_loss"].as_f64().unwrap())
        .collect();
    // The logarithm is concave: the mean of two is at least as good as they are on average.
    assert!(losses[2] <= (losses[0] + losses[1]) / 2.0 && losses[2] != losses[0], "{losses:?}");

    let fails = |more: &[&str]| -> Outcome {
        let arguments = [&["train", "--config", "small.toml", "--out", "failed"], more].concat();
        place.run(&arguments)
    };
    fails(&["--set", "train.targets.distillation=0.5"]).ends_with(2).says(&["train.targets.teachers"]);
    let absent = "train.targets.teachers=[\"absent.safetensors\"]";
    fails(&["--set", absent, "--set", "train.targets.distillation=0.5"])
        .ends_with(2)
        .says(&["train.targets.teachers", "absent.safetensors"]);
    // What the data decide comes to light before the directory is made, too.
    let other = "train.targets.teachers=[\"first/model.safetensors\"]";
    let fewer = "cleaning.drop_classes=[\"disgust\"]";
    fails(&["--set", other, "--set", "train.targets.distillation=0.5", "--set", fewer])
        .ends_with(2)
        .says(&["train.targets.teachers", "first/model.safetensors has the classes"]);
    assert!(!place.path("failed").exists(), "a slip uses up no directory");
}

#[test]
fn a_run_begins_with_a_finished_model() {
    let place = Place::with_config();
    place.train("first", &[]);
    let train = |run: &str, start: &str, more: &[&str]| {
        let start = format!("train.start={start:?}");
        place.run(&[&["train", "--config", "small.toml", "--out", run, "--set", &start], more].concat())
    };
    let first = "first/model.safetensors";
    let tensors = |outcome: &Outcome| -> (usize, usize) {
        let line = outcome.stderr.lines().find(|line| line.starts_with("begins with ")).expect("a line that says so");
        let words: Vec<&str> = line.split(' ').collect();
        (words[2].parse().unwrap(), words[4].parse().unwrap())
    };
    let (taken, all) = tensors(&train("again", first, &[]).ends_with(0));
    assert_eq!(taken, all);
    let facts = metadata_of(&place.path("again/model.safetensors"), "training").to_string();
    assert!(facts.contains("\"start\":\"first/model.safetensors\""), "the file's name with its folder's in {facts}");
    assert_eq!(tensors(&train("from-run", "first", &[]).ends_with(0)), (all, all));
    // Other classes have another last layer: a weight and a bias.
    let fewer = train("fewer", first, &["--set", "cleaning.drop_classes=[\"disgust\"]"]).ends_with(0);
    assert_eq!(tensors(&fewer), (all - 2, all));
    train("failed", "absent.safetensors", &[]).ends_with(2).says(&["train.start", "absent.safetensors"]);
    let other = ["network.layers.0.filters=5", "network.layers.5.units=9", "cleaning.drop_classes=[\"disgust\"]"];
    train("failed", first, &other.map(|text| ["--set", text]).concat())
        .ends_with(2)
        .says(&["train.start: no tensor of", first]);
    assert!(!place.path("failed").exists(), "a slip uses up no directory");
    // What a run began with may be gone when it goes on.
    std::fs::remove_file(place.path(first)).unwrap();
    place.run(&["train", "--resume", "--out", "again", "--set", "train.epochs=3"]).ends_with(0);
}

#[test]
fn a_packed_model_is_smaller_and_answers_alike() {
    let place = Place::with_config();
    place.train("run", &[]);
    place.run(&["pack", "run", "--out", "whole.safetensors"]).ends_with(0).says(&["bytes"]);
    place.run(&["pack", "run", "--out", "half.safetensors", "--half"]).ends_with(0);
    let size = |name: &str| fs_err::metadata(place.path(name)).unwrap().len();
    assert!(size("half.safetensors") < size("whole.safetensors"));
    let loss = |model: &str| {
        let arguments = ["evaluate", model, "--data", "synthetic:12", "--split", "test", "--json"];
        place.run(&arguments).ends_with(0).json()["log_loss"].as_f64().unwrap()
    };
    assert_eq!(loss("whole.safetensors"), loss("run/model.safetensors"));
    assert!((loss("half.safetensors") - loss("whole.safetensors")).abs() < 0.01);
    place.run(&["pack", "run", "--out", "half.safetensors"]).ends_with(2).says(&["half.safetensors exists"]);
    place.run(&["pack", "run", "--out", "model"]).ends_with(2).says(&["model: a model is a .safetensors file"]);
}

#[test]
fn a_model_is_exported_with_the_views_asked_for() {
    let place = Place::with_config();
    place.train("run", &[]);
    let told =
        ["input pixels [n, 1, 48, 48], grey from 0 to 255", "output probabilities [n, 7]: angry, disgust, fear, "];
    place.run(&["export", "run", "--out", "model.onnx"]).ends_with(0).says(&told);
    let views = ["export", "run/model.safetensors", "--flip", "true", "--blur", "0.1", "--out", "views.onnx"];
    place.run(&views).ends_with(0).says(&["note: the temperature stays that of the model's own views"]);
    let bytes = |name: &str| fs_err::read(place.path(name)).unwrap();
    let has = |name: &str, operation: &[u8]| bytes(name).windows(operation.len()).any(|window| window == operation);
    assert!(has("model.onnx", b"Softmax") && !has("model.onnx", b"Concat") && !has("model.onnx", b"Pad"));
    assert!(has("views.onnx", b"Concat") && has("views.onnx", b"Pad"));
    let written = bytes("model.onnx");
    place.run(&["export", "run", "--out", "model.onnx"]).ends_with(2).says(&["model.onnx exists"]);
    assert_eq!(bytes("model.onnx"), written);
    place
        .run(&["export", "run", "--out", "model.tflite"])
        .ends_with(2)
        .says(&["model.tflite: the model is a .onnx file"]);
    place.run(&["export", "run", "--blur", "0.5", "--out", "other.onnx"]).ends_with(2).says(&["--blur is 0.5"]);
    place.run(&["export", "nobody", "--out", "other.onnx"]).ends_with(2).says(&["no model file and no run at nobody"]);
    place.run(&["export", "small.toml", "--out", "other.onnx"]).ends_with(1).says(&["small.toml"]);
    assert!(!place.path("other.onnx").exists());
}

#[test]
fn a_sheet_shows_what_training_does_to_images() {
    let place = Place::with_config();
    let draw = |out: &str, more: &[&str]| place.run(&[&["data", "augment", "synthetic:2", out], more].concat());
    draw("all.png", &["--faces", "3"]).ends_with(0);
    let drawn = draw("some.png", &["--faces", "3", "--set", "train.augmentation.flip=1.0"]).ends_with(0);
    drawn.prints(&["3 faces drawn in some.png"]);
    let height = |name: &str| image::open(place.path(name)).unwrap().height();
    assert!(height("all.png") > 2 * height("some.png"));
    draw("all.png", &[]).ends_with(2).says(&["all.png exists"]);
    draw("sheet.jpg", &[]).ends_with(2).says(&["sheet.jpg"]);
    draw("other.png", &["--set", "train.augmentation.flip=1.5"])
        .ends_with(2)
        .says(&["train.augmentation.flip", "0 to 1"]);
}

#[test]
fn votes_become_classes_and_targets() {
    let place = Place::with_config();
    let header = "neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF";
    let mut faces = "emotion,pixels,Usage\n".to_owned();
    let mut votes = format!("Usage,Image name,{header}\n");
    for number in 0..32 {
        let usage = if number < 24 { "Training" } else { "PublicTest" };
        let picture = image::load_from_memory(&png(number, 48)).unwrap().to_luma8();
        let pixels: Vec<String> = picture.iter().map(u8::to_string).collect();
        faces += &format!("{},{},{usage}\n", [3, 6][number % 2], pixels.join(" "));
        // Neutral, happy, contempt, and one in eight without a majority.
        let counts = match number % 8 {
            0..=2 => "8,1,0,0,1,0,0,0,0,0",
            3 | 4 => "2,7,0,0,0,0,0,1,0,0",
            5 | 6 => "3,0,0,0,0,0,0,6,1,0",
            _ => "4,4,0,0,0,0,0,2,0,0",
        };
        votes += &format!("{usage},,{counts}\n");
    }
    place.write("fer2013.csv", faces);
    place.write("fer2013new.csv", votes);
    let source = "fer2013.csv+fer2013new.csv";
    let drop = "cleaning.drop_classes=[\"angry\", \"disgust\", \"fear\", \"sad\", \"surprise\"]";
    let labels = ["--data", source, "--set", "data.labels=ferplus", "--set", "train.targets.votes=1.0"];
    place.train("run", &[&labels[..], &["--set", drop]].concat());
    let removed = fs_err::read_to_string(place.path("run/removed.csv")).unwrap();
    assert_eq!(removed.matches("no_majority").count(), 4, "{removed}");
    let evaluation = read_json(&place.path("run/evaluation/public_test/evaluation.json"));
    assert_eq!((&evaluation["n"], &evaluation["labels"]), (&json!(7), &json!(["contempt", "happy", "neutral"])));
    // The model file remembers whose classes it learnt.
    let again = ["evaluate", "run/model.safetensors", "--data", source, "--split", "PublicTest", "--json"];
    assert_eq!(place.run(&again).ends_with(0).json()["n"], json!(7));
    // Two truths are none.
    place.train("plain", &["--data", source]);
    for models in [["run", "plain"], ["plain", "run"]] {
        let both = ["evaluate", models[0], models[1], "--data", source, "--split", "PublicTest"];
        place.run(&both).ends_with(2).says(&["run", "plain", "different labels"]);
    }
    let card = |more: &[&str]| {
        let card = ["card", "run/model.safetensors", "--data", source, "--command", "vultus train"];
        place.run(&[&card[..], more].concat())
    };
    card(&["--split", "train", "--out", "card.md"])
        .ends_with(2)
        .says(&["split train is called like the one that the model was trained on"]);
    let one = ["--split", "PublicTest", "--out", "card.md", "--dataset", "mine", "--whole-command", "all.sh"];
    card(&one).ends_with(2).says(&["--hours"]);
    card(&["--split", "PublicTest", "--out", "card.txt"]).ends_with(2).says(&["card.txt: the card is a .md file"]);
    card(&[&one[..], &["--hours", "inf"]].concat()).ends_with(2).says(&["no number of hours"]);
    card(&[&one[..], &["--hours", "1.5"]].concat()).ends_with(0);
    let text = fs_err::read_to_string(place.path("card.md")).unwrap();
    assert!(text.contains("| all of public_test | 7 |") && text.contains("`all.sh`: 1.5 hours"), "{text}");

    // Without votes there are no such classes, and no such targets.
    let without = ["evaluate", "run/model.safetensors", "--data", "fer2013.csv", "--split", "PublicTest"];
    place.run(&without).ends_with(2).says(&["no image of the data has votes", "fer2013.csv+fer2013new.csv"]);
    let own = ["--data", "fer2013.csv", "--set", "train.targets.votes=1.0", "--set", "train.epochs=1"];
    place.train("own", &own).says(&["no image that is trained on has FER+ votes: train.targets.votes does nothing"]);
}
