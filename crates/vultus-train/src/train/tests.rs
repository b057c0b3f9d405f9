//! The whole job, on a small network and drawn faces in a folder.

use image::{GrayImage, Luma};

use super::*;
use crate::compare::compare;
use crate::fit::Silent;
use crate::history;
use crate::prepare::prepare;
use crate::run::read_json;

/// Ten images of each class to train on and two to test on, as files that a test can change.
fn faces(folder: &Path) {
    for (split, count) in [("train", 10), ("test", 2)] {
        for (class, step) in [("happy", 3), ("sad", 7)] {
            let directory = folder.join(split).join(class);
            fs_err::create_dir_all(&directory).unwrap();
            for number in 0..count {
                let pixel = |x: u32, y: u32| Luma([(x * step + y * number + u32::from(split == "test")) as u8]);
                GrayImage::from_fn(12, 12, pixel).save(directory.join(format!("{number}.png"))).unwrap();
            }
        }
    }
}

fn config(folder: &Path) -> TrainConfig {
    let text = r#"
        [preprocessing]
        width = 12
        height = 12
        [train]
        epochs = 2
        batch_size = 4
        [[network.layers]]
        type = "conv"
        filters = 2
        kernel = 3
        [[network.layers]]
        type = "flatten"
    "#;
    let mut config = TrainConfig::from_toml(text, "text").unwrap();
    config.data.sources = vec![folder.display().to_string()];
    config
}

fn go(config: &TrainConfig, run: &RunDirectory, resume: bool, command: &str) -> Result<Trained, TrainError> {
    let invocation = Invocation { revision: "unknown".to_owned(), command: command.to_owned() };
    train(config, &prepare(config).unwrap(), run, resume, &invocation, &mut Silent)
}

/// Every file of the run that says what it is.
fn description(run: &Path) -> Vec<String> {
    let files = ["config.toml", "environment.json", "data.json", "removed.csv", "metrics.jsonl"];
    files.iter().map(|name| fs_err::read_to_string(run.join(name)).unwrap()).collect()
}

#[test]
fn a_refused_resumption_leaves_the_run_as_it_was() {
    let place = tempfile::tempdir().unwrap();
    let (folder, path) = (place.path().join("faces"), place.path().join("run"));
    faces(&folder);
    let mut config = config(&folder);
    let run = RunDirectory::create(&path, &config).unwrap();
    go(&config, &run, false, "first").unwrap();
    let before = description(&path);

    fs_err::remove_file(folder.join("train/happy/0.png")).unwrap();
    config.train.epochs = 3;
    let error = go(&config, &run, true, "second").unwrap_err().to_string();
    assert!(error.contains("its data differs"), "{error}");
    assert_eq!(description(&path), before);
}

#[test]
fn a_resumed_run_tells_of_the_images_it_is_evaluated_on() {
    let place = tempfile::tempdir().unwrap();
    let (folder, path) = (place.path().join("faces"), place.path().join("run"));
    faces(&folder);
    let config = config(&folder);
    let run = RunDirectory::create(&path, &config).unwrap();
    go(&config, &run, false, "first").unwrap();
    fs_err::remove_file(folder.join("test/happy/0.png")).unwrap();
    let Trained::Finished(trained) = go(&config, &run, true, "second").unwrap() else { panic!("interrupted") };
    assert_eq!(trained.evaluations[0].n, 3);
    let now = fingerprint(&prepare(&config).unwrap().dataset);
    let environment: Environment = read_json(&path.join("environment.json")).unwrap();
    assert_eq!((environment.commands, &environment.data_sha256), (vec!["first".to_owned(), "second".to_owned()], &now));
    assert_eq!(Bundle::load(&run.bundle()).unwrap().training["data_sha256"], now);
    let statistics: Statistics = read_json(&path.join("data.json")).unwrap();
    assert_eq!(statistics.images, 23);
}

#[test]
fn report_and_comparison_tell_the_epoch_of_the_model_that_is_there() {
    let place = tempfile::tempdir().unwrap();
    let (folder, path) = (place.path().join("faces"), place.path().join("run"));
    faces(&folder);
    let config = config(&folder);
    let run = RunDirectory::create(&path, &config).unwrap();
    go(&config, &run, false, "first").unwrap();
    // As if it had gone on for more epochs since, been stopped, and kept another epoch.
    let mut history = history::read(&run.metrics()).unwrap();
    let choose = |records: &[EpochRecord]| Choice::of_run(&path, &config, records).unwrap();
    let model = choose(&history);
    let epoch = model.epoch.unwrap();
    for record in &mut history {
        record.val_accuracy = Some(if record.epoch == epoch { 0.25 } else { 0.5 });
    }
    let later = EpochRecord { epoch: 3, val_accuracy: Some(1.0), ..history[1].clone() };
    history.push(later);
    history::restore(&run.metrics(), &history).unwrap();
    assert_eq!(choose(&history), model);
    assert_eq!(compare(std::slice::from_ref(&path)).unwrap().rows[0].validation.as_ref().unwrap().mean, 0.25);
    report::write(&path, false).unwrap();
    fs_err::remove_file(run.bundle()).unwrap();
    assert_eq!(choose(&history).epoch, Some(3));
}

/// The JSON file at `path` with another value at `key`.
fn put(path: &Path, key: &str, value: serde_json::Value) {
    let mut content: serde_json::Value = read_json(path).unwrap();
    *content.pointer_mut(key).unwrap() = value;
    write_json(path, &content).unwrap();
}

#[test]
fn files_that_do_not_fit_together_are_refused_by_name_and_key() {
    let place = tempfile::tempdir().unwrap();
    let (folder, path) = (place.path().join("faces"), place.path().join("run"));
    faces(&folder);
    let config = config(&folder);
    let run = RunDirectory::create(&path, &config).unwrap();
    go(&config, &run, false, "first").unwrap();
    let (data, test) = (path.join("data.json"), path.join("evaluation/test"));
    let evaluation = test.join("evaluation.json");
    let score = json!({ "label": "happy", "support": 1, "precision": 0.0, "recall": 0.0, "f1": 0.0 });
    for (file, key, value, words) in [
        (&data, "/splits/1/classes", json!([2]), "splits[1].classes has 1 entries, and there are 2 labels"),
        (&evaluation, "/per_class", json!([score]), "per_class has 1 entries"),
        (&evaluation, "/labels", json!(["happy"]), "confusion has 2 entries, and there are 1 labels"),
        (&evaluation, "/confusion/1", json!([1, 2, 3]), "confusion[1] has 3 entries"),
        (&evaluation, "/confusion_normalized/0", json!([]), "confusion_normalized[0] has 0 entries"),
        (&evaluation, "/split", json!("../test"), "split is \"../test\""),
    ] {
        let before = fs_err::read(file).unwrap();
        put(file, key, value);
        let named = format!("{}: {words}", file.display());
        let message = report::write(&path, true).unwrap_err().to_string();
        assert!(message.contains(&named), "{message}");
        if file == &evaluation {
            let message = compare(std::slice::from_ref(&path)).unwrap_err().to_string();
            assert!(message.contains(&named), "{message}");
        }
        fs_err::write(file, before).unwrap();
    }
    report::write(&path, true).unwrap();
}

#[test]
fn a_report_shows_no_files_from_elsewhere() {
    let place = tempfile::tempdir().unwrap();
    let (folder, path) = (place.path().join("faces"), place.path().join("run"));
    faces(&folder);
    let config = config(&folder);
    let run = RunDirectory::create(&path, &config).unwrap();
    go(&config, &run, false, "first").unwrap();
    let list = path.join("evaluation/test/pictures.json");
    let picture = |file: &str| {
        let picture = json!({ "file": file, "truth": "sad", "predicted": "happy", "score": 0.5, "origin": "" });
        write_json(&list, &json!({ "mistakes": [picture], "pairs": [] })).unwrap();
        report::write(&path, true).map_err(|error| error.to_string())
    };
    fs_err::create_dir_all(list.with_file_name("pictures")).unwrap();
    fs_err::write(list.with_file_name("pictures").join("own.png"), "a picture").unwrap();
    picture("pictures/own.png").unwrap();
    let foreign = folder.join("test/sad/0.png").display().to_string();
    for file in [foreign.as_str(), "pictures/../../../config.toml"] {
        let message = picture(file).unwrap_err();
        assert!(message.contains("pictures.json: file is ") && message.contains(file), "{message}");
    }
    #[cfg(unix)]
    {
        fs_err::os::unix::fs::symlink(&foreign, list.with_file_name("pictures").join("link.png")).unwrap();
        assert!(picture("pictures/link.png").unwrap_err().contains("link.png"));
    }
}

#[test]
fn the_selection_tells_of_a_least_improvement() {
    let mut config = TrainConfig::default();
    assert_eq!(
        selection(&config),
        "the epoch with the highest accuracy on 20 % of split train held out for validation"
    );
    config.train.early_stopping.min_delta = 0.01;
    assert!(selection(&config).ends_with(", where a later epoch had to be better by more than 0.01"));
}
