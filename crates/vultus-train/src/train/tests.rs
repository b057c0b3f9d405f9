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
    let trained = go(&config, &run, true, "second").unwrap();
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
