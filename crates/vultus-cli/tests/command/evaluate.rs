//! `vultus evaluate`: what a run or a model is evaluated on, what is told with it, and where it is kept.

use serde_json::{Value, json};

use crate::picture::{png, truncated_png};
use crate::program::{Place, read_json};

#[test]
fn other_views_are_tried_and_not_kept() {
    let place = Place::with_config();
    place.train("run", &[]);
    let kept = fs_err::read(place.path("run/evaluation/test/evaluation.json")).unwrap();
    let loss = |options: &[&str]| {
        let outcome = place.run(&[&["evaluate", "run", "--json"], options].concat()).ends_with(0);
        serde_json::from_str::<Value>(&outcome.stdout).unwrap()["log_loss"].as_f64().unwrap()
    };
    let own = loss(&[]);
    assert_eq!(own, loss(&["--flip", "false", "--shift", "0"]));
    let others = [loss(&["--flip", "true"]), loss(&["--shift", "2"]), loss(&["--flip", "true", "--shift", "2"])];
    assert!(others.iter().all(|&other| other != own) && others[0] != others[1], "{own} {others:?}");
    assert_eq!(kept, fs_err::read(place.path("run/evaluation/test/evaluation.json")).unwrap());
    let blurred = [loss(&["--blur", "0.1"]), loss(&["--blur", "0.2"])];
    assert!(blurred.iter().all(|&other| other != own) && blurred[0] != blurred[1], "{own} {blurred:?}");
    place.run(&["evaluate", "run", "--shift", "9"]).ends_with(2).says(&["--shift is 9", "0 to 8"]);
    place.run(&["evaluate", "run", "--blur", "0.3"]).ends_with(2).says(&["--blur is 0.3", "0 to 0.25"]);
}

#[test]
fn a_run_is_evaluated_on_the_images_it_held_out() {
    let place = Place::with_config();
    place.train("run", &[]);
    let outcome = place.run(&["evaluate", "run", "--validation", "--json"]).ends_with(0);
    let outcome = outcome.says(&["chose the temperature, and the epoch", "kept in run"]);
    assert!(!outcome.stderr.contains("not all those of the training"), "{}", outcome.stderr);
    // What cannot be kept is seen all the same.
    let data = fs_err::read(place.path("run/data.json")).unwrap();
    place.write("run/data.json", "{");
    let unkept = place.run(&["evaluate", "run", "--validation", "--json"]).ends_with(1).says(&["data.json"]);
    assert_eq!(unkept.stdout, outcome.stdout);
    place.write("run/data.json", data);
    let evaluation: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!((&evaluation["split"], &evaluation["n"]), (&json!("train-validation"), &json!(17)));
    // The accuracy of the weights that were kept, by one view, as training measured it.
    let records = fs_err::read_to_string(place.path("run/metrics.jsonl")).unwrap();
    let accuracies: Vec<f64> = (records.lines())
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["val_accuracy"].as_f64().unwrap())
        .collect();
    let accuracy = evaluation["accuracy"].as_f64().unwrap();
    assert!(accuracies.iter().any(|other| (other - accuracy).abs() < 1e-6), "{accuracy} {accuracies:?}");
    assert!(place.path("run/evaluation/train-validation/predictions.csv").is_file());

    // The file knows how its data were split, and which they were.
    let file = ["evaluate", "run/model.safetensors", "--validation", "--json"];
    place.run(&file).ends_with(2).says(&["brings no images"]);
    assert_eq!(place.run(&[&file[..], &["--data", "synthetic:12"]].concat()).ends_with(0).stdout, outcome.stdout);
    let others = place.run(&[&file[..], &["--data", "synthetic:13"]].concat()).ends_with(2);
    others.says(&["not what the model was trained on"]);
    place.run(&["evaluate", "run", "--validation", "--split", "test"]).ends_with(2).says(&["--validation", "--split"]);
    place.train("other", &["--set", "seed=2"]);
    place
        .run(&["evaluate", "run", "other", "--validation"])
        .ends_with(2)
        .says(&["what run held out, other may have learnt"]);
    // Another seed that holds out the same images.
    place.train("alike", &["--set", "seed=2", "--set", "train.validation_seed=1"]);
    let both = place.run(&["evaluate", "run", "alike", "--validation", "--json"]).ends_with(0);
    let images = |json: &str| serde_json::from_str::<Value>(json).unwrap()["images_sha256"].clone();
    assert_eq!(images(&both.stdout), images(&outcome.stdout));
    assert_ne!(both.json()["log_loss"], outcome.json()["log_loss"]);
    // Other data would be split otherwise.
    let config = fs_err::read_to_string(place.path("other/config.toml")).unwrap();
    assert!(config.contains("synthetic:12"), "{config}");
    place.write("other/config.toml", config.replace("synthetic:12", "synthetic:13"));
    place.run(&["evaluate", "other", "--validation"]).ends_with(2).says(&["not what the model was trained on"]);
    place.train("all", &["--set", "train.validation_fraction=0"]);
    place.run(&["evaluate", "all", "--validation"]).ends_with(2).says(&["train.validation_fraction is 0"]);
}

#[test]
fn what_may_have_been_learnt_of_the_held_out_images_is_told() {
    let place = Place::with_config();
    for number in 0..40 {
        let (class, pixels) = (["happy", "sad"][number % 2], png(number / 4, 48));
        place.write(&format!("twins/train/{class}/{number}.png"), pixels);
    }
    place.write("twins/test/happy/1.png", png(90, 48));
    place.write("twins/test/sad/2.png", png(91, 48));
    place.train("run", &["--data", "twins"]).says(&["also among those trained on"]);
    let told = "also stand in train";
    place.run(&["evaluate", "run", "--validation"]).ends_with(0).says(&[told]);
    let evaluation = read_json(&place.path("run/evaluation/train-validation/evaluation.json"));
    assert!(evaluation["notes"].to_string().contains(told), "{evaluation}");
    place.run(&["calibrate", "run", "--out", "again.safetensors"]).ends_with(0).says(&[told]);
    // A model that began with one that was trained on other parts.
    let begins = ["--data", "twins", "--set", "seed=2", "--set", "train.start=run/model.safetensors"];
    place.train("pupil", &begins).says(&["it may have learnt those that validate"]);
    let evaluated = place.run(&["evaluate", "pupil", "--validation"]).ends_with(0);
    evaluated.says(&["began with or learnt from run/model.safetensors, which may have learnt these images"]);
    // Test images that were added since change nothing of what was held out.
    place.write("twins/test/sad/3.png", png(92, 48));
    place.run(&["evaluate", "run", "--validation"]).ends_with(0);
}

#[test]
fn a_test_that_a_model_before_this_one_learnt_is_told() {
    let place = Place::with_config();
    place.train("first", &["--set", "data.train_split=test", "--set", "data.evaluate_splits=[\"train\"]"]);
    let pupil = place.train("pupil", &["--set", "train.start=first/model.safetensors", "--set", "train.epochs=1"]);
    let told = "split test is what the model learnt, or one that it began with or learnt from";
    pupil.says(&["first/model.safetensors was trained on the images of split test", &format!("note: {told}")]);
    let evaluation = read_json(&place.path("pupil/evaluation/test/evaluation.json"));
    assert!(evaluation["notes"].to_string().contains(told), "{evaluation}");
    // Its file knows it, too, and so do those that begin with it.
    place.run(&["pack", "pupil", "--out", "pupil.safetensors"]).ends_with(0);
    let data = ["--data", "synthetic:12", "--split", "test"];
    place.run(&[&["evaluate", "pupil.safetensors"][..], &data].concat()).ends_with(0).says(&[told]);
    place.run(&[&["calibrate", "pupil.safetensors", "--out", "other.safetensors"][..], &data].concat()).says(&[told]);
    let card = ["card", "pupil.safetensors", "--command", "vultus train", "--out", "card.md"];
    place.run(&[&card[..], &data].concat()).ends_with(2).says(&["split test is what the model learnt"]);
    assert!(!place.path("card.md").exists());
    let third = ["--set", "train.start=pupil.safetensors", "--set", "data.validation_split=test"];
    place.train("third", &third).says(&["pupil.safetensors was trained on these images"]);
}

#[test]
fn an_evaluation_is_one_object_with_the_promised_keys() {
    let place = Place::with_config();
    place.train("run", &[]);
    let evaluation = place.run(&["evaluate", "run", "--data", "synthetic:20", "--json"]).ends_with(0).json();
    assert_eq!((&evaluation["split"], &evaluation["n"]), (&json!("test"), &json!(28)));
    let classes = evaluation["labels"].as_array().unwrap().len();
    assert_eq!(classes, 7);
    let share = |value: &Value| {
        let number = value.as_f64().unwrap();
        assert!((0.0..=1.0).contains(&number), "{number}");
        number
    };
    let accuracy = share(&evaluation["accuracy"]);
    let [low, high] = [0, 1].map(|end| share(&evaluation["accuracy_interval"][end]));
    assert!(low <= accuracy && accuracy <= high);
    for key in ["macro_f1", "balanced_accuracy", "ece"] {
        share(&evaluation[key]);
    }
    assert!(evaluation["log_loss"].as_f64().unwrap() > 0.0);
    let counts: Vec<Vec<u64>> = serde_json::from_value(evaluation["confusion"].clone()).unwrap();
    assert_eq!(counts.iter().map(|row| row.iter().sum()).collect::<Vec<u64>>(), [4; 7]);
    let correct: u64 = (0..classes).map(|class| counts[class][class]).sum();
    assert!((correct as f64 / 28.0 - accuracy).abs() < 1e-12);
    for class in evaluation["per_class"].as_array().unwrap() {
        for key in ["precision", "recall", "f1"] {
            share(&class[key]);
        }
    }
    // A run keeps what it scored on its own data, and only that.
    let kept = |split: &str| read_json(&place.path("run/evaluation").join(split).join("evaluation.json"));
    assert_eq!(kept("test")["n"], 14);
    let own = place.run(&["evaluate", "run", "--json"]).ends_with(0).json();
    assert_eq!(kept("test"), own);
    let train = place.run(&["evaluate", "run", "--split", "train", "--json"]).ends_with(0).json();
    assert_eq!((&train["n"], &kept("train")), (&json!(84), &train));
}

#[test]
fn an_evaluation_of_a_bundle_goes_where_it_is_told() {
    let place = Place::with_config();
    place.train("run", &[]);
    fs_err::copy(place.path("run/model.safetensors"), place.path("model.safetensors")).unwrap();
    place.run(&["evaluate", "model.safetensors"]).ends_with(2).says(&["--data SOURCE"]);
    let arguments = ["evaluate", "model.safetensors", "--data", "synthetic:12", "--out", "out"];
    place.run(&arguments).ends_with(0).prints(&["test (14 images)", "precision", "recall", "F1", "→ happy"]);
    let [ours, runs] =
        ["out", "run/evaluation/test"].map(|folder| fs_err::read(place.path(folder).join("predictions.csv")).unwrap());
    assert!(ours == runs, "predictions.csv differs");
    let [mut ours, runs] =
        ["out", "run/evaluation/test"].map(|folder| read_json(&place.path(folder).join("evaluation.json")));
    let name = std::mem::replace(&mut ours["models"][0]["name"], runs["models"][0]["name"].clone());
    assert_eq!((&name, &ours), (&json!("model.safetensors"), &runs));
    let missing = ["evaluate", "model.safetensors", "--data", "synthetic:12", "--split", "private_test"];
    let outcome =
        place.run(&missing).ends_with(2).says(&["no images in split private_test; the data has: train, test"]);
    assert!(!outcome.stderr.contains("data."), "{}", outcome.stderr);
}

#[test]
fn splits_may_be_spelt_as_in_the_data() {
    let place = Place::with_config();
    place.train("run", &["--set", "data.train_split=Training", "--set", "data.evaluate_splits=[\"Testing\"]"]);
    assert!(place.path("run/evaluation/test/evaluation.json").is_file());
    let outcome = place.run(&["evaluate", "run", "--split", "TRAIN"]).ends_with(0).prints(&["train (84 images)"]);
    outcome.says(&["split train is what the model was trained on"]);
    assert!(place.path("run/evaluation/train/evaluation.json").is_file());
}

/// As with the shipped configurations, which evaluate on `public_test`, and Kaggle's folders.
#[test]
fn a_split_that_the_data_do_not_have_is_refused_with_what_to_add() {
    let place = Place::with_config();
    let arguments =
        ["train", "--config", "small.toml", "--out", "run", "--set", "data.evaluate_splits=[\"PublicTest\"]"];
    place.run(&arguments).ends_with(2).says(&[
        "no images in split public_test; the data has: train, test: add --set 'data.evaluate_splits=[\"test\"]'",
    ]);
    assert!(!place.path("run").exists());
    place.run(&[&arguments[..], &["--set", "data.evaluate_splits=[\"test\", \"train\"]"]].concat()).ends_with(0);
    // What the model learnt is called so.
    let notes =
        |split: &str| read_json(&place.path(&format!("run/evaluation/{split}/evaluation.json")))["notes"].to_string();
    assert!(notes("train").contains("is what the model was trained on"), "{}", notes("train"));
    assert!(!notes("test").contains("trained on"), "{}", notes("test"));
}

#[test]
fn what_flatters_a_test_is_told_before_and_after() {
    let place = Place::with_config();
    // Of six test images four are trained on as well.
    for (split, first, last) in [("train", 0, 20), ("test", 16, 22)] {
        for number in first..last {
            let class = ["happy", "sad"][number % 2];
            place.write(&format!("faces/{split}/{class}/{number}.png"), png(number, 48));
        }
    }
    let copies = "of the images of split test are also among those trained on";
    let whole = ["--data", "faces", "--set", "train.validation_fraction=0.0", "--set", "train.keep=last"];
    place.train("leaky", &whole).says(&[&format!("note: 4 {copies}"), "cleaning.leaks=drop"]);
    let clean = place.train("clean", &[&whole[..], &["--set", "cleaning.leaks=drop"]].concat());
    assert!(!clean.stderr.contains(copies), "{}", clean.stderr);
    // Whoever reads the figures later is told as well.
    for name in ["evaluation/test/evaluation.json", "report.html"] {
        let text = fs_err::read_to_string(place.path("leaky").join(name)).unwrap();
        assert!(text.contains("4 images of split test also stand in train"), "{name}");
    }
    place.run(&["evaluate", "leaky"]).ends_with(0).says(&["note: 4 images of split test also stand in train\n"]);
    let left_out = "also stand in train, out of which the training left such images";
    let model = ["evaluate", "clean/model.safetensors", "--data", "faces", "--split", "test"];
    place.run(&model).ends_with(0).says(&["note: 4 images of split test", left_out]);

    // What the first one's cleaning took away, the other one has learnt.
    place
        .run(&["evaluate", "leaky", "clean"])
        .ends_with(0)
        .says(&["note: leaky: 4 images of split test also stand in"]);
    place
        .run(&["evaluate", "clean", "leaky"])
        .ends_with(0)
        .says(&["note: leaky: 4 images of split test also stand in"]);

    // The same picture twice is one witness.
    for (name, number) in [("happy/a", 16), ("happy/b", 16), ("sad/c", 17)] {
        place.write(&format!("twice/test/{name}.png"), png(number, 48));
    }
    let twice = ["evaluate", "clean/model.safetensors", "--data", "twice", "--split", "test"];
    place.run(&twice).ends_with(0).says(&["note: 1 image of split test repeats the pixels of another one"]);

    // What one of several models has learnt, the others need not have, wherever it is named.
    place.train("other", &[&whole[..], &["--set", "data.train_split=test"]].concat());
    for models in [["leaky", "other"], ["other", "leaky"]] {
        let models = models.map(|model| format!("{model}/model.safetensors"));
        let both = ["evaluate", &models[0], &models[1], "--data", "faces", "--split", "test"];
        place.run(&both).ends_with(0).says(&["other/model.safetensors: split test is called like the one"]);
    }
    // The split that validated is none to fall back on.
    let own = ["--data", "faces", "--set", "data.validation_split=test", "--set", "train.validation_fraction=0.0"];
    place.train("validated", &own);
    place.run(&["evaluate", "validated"]).ends_with(2).says(&["(train, test) the data has no split to measure on"]);
}

#[test]
fn an_evaluation_tells_what_it_is_of() {
    let place = Place::with_config();
    for number in 0..20 {
        place.write(&format!("faces/train/{}/{number}.png", ["happy", "sad"][number % 2]), png(number, 48));
    }
    for number in 20..26 {
        place.write(&format!("faces/test/{}/{number}.png", ["happy", "sad"][number % 2]), png(number, 48));
    }
    place.write("faces/test/sad/damaged.png", truncated_png());
    place.train("run", &["--data", "faces", "--set", "views.flip=true"]);
    let evaluation = read_json(&place.path("run/evaluation/test/evaluation.json"));
    assert_eq!((&evaluation["n"], &evaluation["version"]), (&json!(6), &json!(env!("CARGO_PKG_VERSION"))));
    assert_eq!(evaluation["left_out"], json!([{ "images": 1, "reason": "unreadable" }]));
    let [model] = &evaluation["models"].as_array().unwrap()[..] else { panic!("{evaluation}") };
    assert_eq!(model["weights_sha256"].as_str().unwrap().len(), 64);
    assert_eq!(model["inference"]["views"]["flip"], json!(true));
    let twice =
        ["evaluate", "run/model.safetensors", "run/model.safetensors", "--data", "faces", "--split", "test", "--json"];
    let twice = place.run(&twice).ends_with(0).json();
    let hashes = twice["models"].as_array().unwrap().iter().map(|twin| (&twin["name"], &twin["weights_sha256"]));
    assert_eq!(hashes.collect::<Vec<_>>(), [(&json!("run"), &model["weights_sha256"]); 2]);
    assert_eq!(model["name"], json!("run"));
    assert!(
        twice["notes"][0]
            .as_str()
            .unwrap()
            .ends_with("is the same model as one before it: its answer counts each time"),
        "{twice}"
    );
    assert_eq!(twice["images_sha256"], evaluation["images_sha256"]);

    // A table of groups, whose attributes are the user's.
    place.write(
        "people.csv",
        "origin,age\nfaces/test/happy/20.png,young\nfaces/test/sad/21.png,old\nfaces/test/happy/22.png,old\nelse.png,old\n",
    );
    let outcome = place.run(&["evaluate", "run", "--groups", "people.csv"]).ends_with(0);
    outcome
        .prints(&[
            "by age",
            "young",
            "balanced accuracy",
            "(not known)",
            "calibration by age",
            "recall by age",
            "false positives by age",
            "all images",
            "100.00 % of 3",
        ])
        .says(&["people.csv: origins that name no image of test that was read: 1 of 4"]);
    let evaluation = read_json(&place.path("run/evaluation/test/evaluation.json"));
    let [age] = &evaluation["groups"].as_array().unwrap()[..] else { panic!("{evaluation}") };
    let counts = age["groups"].as_array().unwrap().iter().map(|group| (group["group"].clone(), group["n"].clone()));
    assert_eq!(counts.collect::<Vec<_>>(), [(json!("old"), json!(2)), (json!("young"), json!(1))]);
    assert_eq!(age["unknown"], json!(3));
    let recalls = age["groups"][0]["recalls"].as_array().unwrap();
    assert_eq!(
        recalls.iter().map(|it| (&it["label"], &it["support"])).collect::<Vec<_>>(),
        [(&json!("happy"), &json!(1)), (&json!("sad"), &json!(1))]
    );
    assert_eq!(age["groups"][0]["difference"]["classes"], json!(1));
    assert_eq!(age["groups"][0]["false_positive_rates"][0]["rate_interval"].as_array().map(Vec::len), Some(2));
    let report = fs_err::read_to_string(place.path("run/report.html")).unwrap();
    assert!(report.contains("By age.") && report.contains("Recall by age:") && report.contains("1 (unreadable)"));
    // The same model answers the same when its run is gone through again.
    place.run(&["train", "--resume", "--out", "run"]).ends_with(0);
    assert_eq!(read_json(&place.path("run/evaluation/test/evaluation.json"))["groups"], evaluation["groups"]);
    place.run(&["evaluate", "run"]).ends_with(0).says(&["the figures of groups that were kept there are replaced"]);
    place.write("other.csv", "origin,age\nelsewhere.png,young\n");
    let other = ["evaluate", "run", "--groups", "other.csv"];
    place.run(&other).ends_with(2).says(&[
        "other.csv has none of the images",
        "elsewhere.png",
        "faces/test/happy/20.png",
    ]);
    place.run(&["evaluate", "run", "--groups", "absent.csv"]).ends_with(2).says(&["absent.csv"]);
    // A table of images that are left out is refused before the others are evaluated, which would be told.
    place.write("left.csv", "origin,age\nfaces/test/sad/21.png,young\n");
    let left = place.run(&["evaluate", "run", "--groups", "left.csv", "--without", "sad"]).ends_with(2);
    assert!(!left.says(&["left.csv has none of the images"]).stderr.contains("left out:"));
}

#[test]
fn an_unknown_class_in_the_test_set_is_named() {
    let place = Place::with_config();
    place.train("run", &[]);
    for number in 0..6 {
        place.write(&format!("faces/test/happy/{number}.png"), png(number, 48));
    }
    for number in 0..3 {
        place.write(&format!("faces/test/bored/{number}.png"), png(10 + number, 48));
    }
    let arguments = ["evaluate", "run/model.safetensors", "--data", "faces", "--json"];
    let outcome =
        place.run(&arguments).ends_with(2).says(&["3 images of class \"bored\"", "--drop-class bored", "happy"]);
    assert!(outcome.stdout.is_empty());
    let outcome = place.run(&[&arguments[..], &["--drop-class", "bored"]].concat()).ends_with(0);
    assert_eq!(outcome.json()["n"], 6);
    outcome.says(&["3 images of class bored left out"]);
    let card = ["card", "run/model.safetensors", "--data", "faces", "--command", "vultus train", "--out", "card.md"];
    place.run(&card).ends_with(2).says(&["3 images of class \"bored\"", "--drop-class bored"]);
    place.run(&[&card[..], &["--drop-class", "Bored"]].concat()).ends_with(0);
    let card = fs_err::read_to_string(place.path("card.md")).unwrap();
    assert!(card.contains("| all of test | 6 |") && card.contains("bored"), "{card}");
}

#[test]
fn classes_dropped_in_training_are_left_out_of_evaluations() {
    let place = Place::with_config();
    let outcome = place.train("run", &["--set", "cleaning.drop_classes=[\"disgusted\"]"]);
    outcome.prints(&["test (12 images)"]).says(&["84 images of 6 classes", "14 left out"]);
    let outcome = place.run(&["evaluate", "run/model.safetensors", "--data", "synthetic:12", "--json"]).ends_with(0);
    assert_eq!(outcome.json()["n"], 12);
    outcome.says(&["2 images of class disgust left out"]);
}

#[test]
fn a_run_keeps_only_evaluations_of_its_own_model_on_its_own_data() {
    let place = Place::with_config();
    place.train("run", &["--set", "train.keep=last"]);
    let stored = || fs_err::read_to_string(place.path("run/evaluation/test/evaluation.json")).unwrap();
    let first = stored();
    let others = ["evaluate", "run", "--data", "synthetic:30", "--split", "test"];
    place.run(&others).ends_with(0).prints(&["test (42 images)"]);
    assert_eq!(stored(), first);
    place.run(&["evaluate", "run", "--split", "train"]).ends_with(0).prints(&["train (84 images)"]);
    assert!(place.path("run/evaluation/train/evaluation.json").is_file());
    // The same model once more.
    place.run(&["train", "--resume", "--out", "run"]).ends_with(0);
    assert!(place.path("run/evaluation/train/evaluation.json").is_file());
    // Another model: what the first one scored goes.
    place.run(&["train", "--resume", "--out", "run", "--set", "train.epochs=3"]).ends_with(0);
    assert!(!place.path("run/evaluation/train").exists());
    assert_ne!(stored(), first);
    let environment = read_json(&place.path("run/environment.json"));
    assert_eq!(environment["commands"].as_array().unwrap().len(), 3);
}

#[test]
fn an_evaluation_overwrites_nothing_and_leaves_out_no_known_class() {
    let place = Place::with_config();
    place.train("run", &[]);
    place.write("taken/notes.txt", "mine");
    let others = ["evaluate", "run", "--data", "synthetic:12", "--out", "taken"];
    place.run(&others).ends_with(2).says(&["taken is not empty"]);
    let inside = ["evaluate", "run", "--out", "run/evaluation/mine"];
    place.run(&inside).ends_with(2).says(&["where a run keeps its own evaluations"]);
    place
        .run(&["evaluate", "run", "--drop-class", "happy"])
        .ends_with(2)
        .says(&["the model knows this class", "--without"]);
    let six = place.run(&["evaluate", "run", "--without", "happy", "--json"]).ends_with(0);
    let left_out =
        six.stderr.lines().any(|line| line.ends_with("of class happy left out: the model is not asked for it"));
    assert!(left_out, "{}", six.stderr);
    let six = six.json();
    assert!(six["labels"].as_array().unwrap().iter().all(|name| name != "happy"), "{six}");
    place.run(&["evaluate", "run", "--without", "bored"]).ends_with(2).says(&["bored", "it knows: angry"]);
    place.run(&["evaluate", "run", "--drop-class", "bored"]).ends_with(2).says(&["no such class", "angry, disgust"]);
    place.run(&["evaluate", "run", "--split", "train"]).ends_with(0).says(&["what the model was trained on"]);
    let report = fs_err::read_to_string(place.path("run/report.html")).unwrap();
    let (test, train) = (report.find("On test, 14 images").unwrap(), report.find("On train, 84 images").unwrap());
    assert!(
        test < train && report[train..].starts_with("On train, 84 images: the images that the model was trained on")
    );
}
