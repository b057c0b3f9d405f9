//! `vultus train` and `report`: what a run leaves behind, and that it can be run again.

use serde_json::{Value, json};

use crate::picture::png;
use crate::program::{Place, Results, read_json};

#[test]
fn a_run_directory_describes_itself() {
    let place = Place::with_config();
    let outcome = place.train("run", &[]);
    let outcome = outcome.prints(&["test (14 images)", "accuracy", "run/model.safetensors", "run/report.html"]);
    // No terminal, so plain lines without escape codes.
    assert!(!outcome.stderr.contains('\u{1b}') && !outcome.stdout.contains('\u{1b}'));
    let outcome = outcome.says(&["67 to train on, 17 to validate, 14 in other splits", "epoch 1/2", "epoch 2/2"]);
    outcome.says(&["loss", "accuracy", "val_loss", "val_accuracy", "images/s", "waiting"]);
    for name in [
        "config.toml",
        "environment.json",
        "data.json",
        "removed.csv",
        "metrics.jsonl",
        "checkpoints/last.safetensors",
        "checkpoints/best.safetensors",
        "model.safetensors",
        "evaluation/test/evaluation.json",
        "evaluation/test/predictions.csv",
        "report.html",
        "figures/figure-1-architecture.svg",
        "figures/figure-1-architecture.png",
        "figures/figure-2-curves.svg",
        "figures/figure-2-curves.png",
        "figures/figure-3-confusion-test.svg",
        "figures/figure-3-confusion-test.png",
    ] {
        assert!(place.path("run").join(name).is_file(), "there is no {name}");
    }
    assert_eq!(place.files_named("events.out.tfevents").len(), 1);
    assert!(place.files_named(".writing-").is_empty());
    let environment = read_json(&place.path("run/environment.json"));
    assert_eq!(environment["seed"], 1);
    assert!(
        environment["commands"][0].as_str().unwrap().starts_with("vultus train --config small.toml"),
        "{environment}"
    );
    let removed = fs_err::read_to_string(place.path("run/removed.csv")).unwrap();
    assert_eq!(removed, "origin,split,label,reason,detail\n");
    let predictions = fs_err::read_to_string(place.path("run/evaluation/test/predictions.csv")).unwrap();
    assert_eq!(predictions.lines().count(), 1 + 14);
}

#[test]
fn without_a_config_the_reports_network_is_trained() {
    let place = Place::new();
    let outcome = place.run(&["train", "--data", "synthetic:5", "--set", "train.epochs=1"]).ends_with(0);
    outcome.says(&["run directory: runs/train-001"]).prints(&["runs/train-001/report.html"]);
    let report = fs_err::read_to_string(place.path("runs/train-001/report.html")).unwrap();
    assert!(report.contains("1,715,207 parameters"));
    // What is refused takes no number.
    place.run(&["train", "--data", "absent"]).ends_with(2).says(&["absent"]);
    assert!(!place.path("runs/train-002").exists());
}

#[test]
fn two_that_begin_at_once_take_a_number_each() {
    let place = Place::with_config();
    let running = ["one", "two"].map(|name| place.start(name, &["train", "--config", "small.toml"]));
    running.into_iter().for_each(|running| assert_eq!(running.wait(), Some(0)));
    for run in ["runs/train-001", "runs/train-002"] {
        assert!(place.path(run).join("model.safetensors").exists(), "{run}");
    }
}

#[test]
fn a_run_can_be_run_again_from_itself() {
    let place = Place::with_config();
    place.train("first", &["--set", "seed=5", "--set", "train.optimizer.type=sgd"]);
    place.run(&["train", "--config", "first/config.toml", "--out", "second"]).ends_with(0);
    let [first, second] = ["first", "second"].map(|run| Results::of(&place.path(run)));
    first.assert_same(&second);
    assert_eq!(first.epochs(), 2);
    let texts = ["first", "second"].map(|run| fs_err::read_to_string(place.path(run).join("config.toml")).unwrap());
    assert_eq!(texts[0], texts[1]);
    assert!(texts[0].contains("seed = 5"));
}

#[test]
fn the_seed_decides_and_the_threads_do_not() {
    let place = Place::with_config();
    let results = |out: &str, seed: &str, threads: &str| {
        let arguments = ["train", "--config", "small.toml", "--out", out, "--set", seed];
        place.run_with(&arguments, &[("RAYON_NUM_THREADS", threads)]).ends_with(0);
        Results::of(&place.path(out))
    };
    let one = results("one", "seed=3", "1");
    one.assert_same(&results("two", "seed=3", "2"));
    one.assert_same(&results("three", "seed=3", "3"));
    assert!(one != results("other", "seed=4", "2"), "another seed gave the same run");
}

#[test]
fn a_split_of_the_data_validates() {
    let place = Place::with_config();
    for (split, first, last) in [("train", 0, 20), ("val", 100, 108)] {
        for number in first..last {
            let class = ["happy", "sad"][number % 2];
            place.write(&format!("apart/{split}/{class}/{number}.png"), png(number, 48));
        }
    }
    let plain = place.train("plain", &["--data", "apart"]).prints(&["validation (8 images)"]);
    plain.says(&["split validation is evaluated like a test: data.validation_split=validation"]);
    let own = place.train("own", &["--data", "apart/", "--set", "data.validation_split=val"]);
    own.says(&["20 to train on, 8 to validate, 0 in other splits; 0 left out", "no other split to evaluate on"]);
    let report = fs_err::read_to_string(place.path("own/report.html")).unwrap();
    for sentence in
        ["highest accuracy on split validation.", "Trained on 20 images, validated with 8.", "Validation accuracy"]
    {
        assert!(report.contains(sentence), "{sentence}");
    }
    let evaluation = place.run(&["evaluate", "own", "--validation", "--json"]).ends_with(0).json();
    assert_eq!((&evaluation["split"], &evaluation["n"]), (&json!("validation"), &json!(8)));
    // By whatever name they are asked for, these images chose the epoch; a card of them would mislead.
    let chose = "these images chose the temperature, and the epoch where one was chosen";
    place.run(&["evaluate", "own", "--split", "val"]).ends_with(0).says(&[chose]);
    let file = ["evaluate", "own/model.safetensors", "--data", "apart", "--split", "val"];
    place.run(&file).ends_with(0).says(&["called like the one that validated the model"]);
    let card = ["card", "own", "--data", "apart", "--split", "val", "--command", "vultus train", "--out", "card.md"];
    place.run(&card).ends_with(2).says(&["called like the one that validated the model"]);
    // A run knows its command, a model file does not.
    place.write("other/test/happy/1.png", png(90, 48));
    place.write("other/test/sad/2.png", png(91, 48));
    let card = |model| ["card", model, "--data", "other", "--out", "card.md"];
    place.run(&card("own/model.safetensors")).ends_with(0);
    let text = fs_err::read_to_string(place.path("card.md")).unwrap();
    assert!(text.contains("| last training | `") && text.contains("--data apart"), "{text}");
    fs_err::rename(place.path("card.md"), place.path("first.md")).unwrap();
    fs_err::copy(place.path("own/model.safetensors"), place.path("alone.safetensors")).unwrap();
    place.run(&card("alone.safetensors")).ends_with(2).says(&["name it with --command"]);
    // However a folder is written, it is the same.
    let sources = |run: &str| {
        let config = fs_err::read_to_string(place.path(run).join("config.toml")).unwrap();
        config.lines().find(|line| line.starts_with("sources")).unwrap().to_owned()
    };
    assert_eq!(sources("plain"), sources("own"));
    // One split only is meant, whatever it is called.
    let alone = ["evaluate", "own/model.safetensors", "--data", "apart/train"];
    place.run(&alone).ends_with(0).prints(&["train (20 images)"]).says(&["is called like the one that the model"]);
}

#[test]
fn a_report_is_one_file_with_tables_and_figures() {
    let place = Place::with_config();
    place.train("run", &[]);
    let report = place.path("run/report.html");
    let first = fs_err::read_to_string(&report).unwrap();
    for words in
        ["Table 1", "Figure 1", "Figure 2", "Figure 3", "<svg", "surprise", "data:image/png;base64", "batch_size"]
    {
        assert!(first.contains(words), "no {words:?} in the report");
    }
    for words in ["<script", "<link", "src=\"http", "href=\"http"] {
        assert!(!first.contains(words), "{words:?} in the report");
    }
    fs_err::remove_file(&report).unwrap();
    place.run(&["report", "run"]).ends_with(0).prints(&["run/report.html"]);
    assert!(fs_err::read_to_string(&report).unwrap() == first, "the same run gave another report");
    place.run(&["report", "run", "--no-pictures"]).ends_with(0);
    assert!(!fs_err::read_to_string(&report).unwrap().contains("data:image/png;base64"));
    place.run(&["report", "nowhere"]).ends_with(2).says(&["nowhere"]);
    // An evaluation of a model file has a page, too; that of a run stands in the run's.
    place
        .run(&["evaluate", "run/model.safetensors", "--data", "synthetic:12", "--split", "test", "--out", "apart"])
        .ends_with(0);
    place.run(&["report", "apart"]).ends_with(0).prints(&["apart/report.html"]);
    let page = fs_err::read_to_string(place.path("apart/report.html")).unwrap();
    for words in ["Figure 1. Confusion matrix", "data:image/png;base64", "SHA-256 of its weights"] {
        assert!(page.contains(words), "no {words:?} in the report");
    }
    assert!(place.path("apart/figures/figure-1-confusion-test.png").is_file());
    place.run(&["report", "apart", "--no-pictures"]).ends_with(0);
    assert!(!fs_err::read_to_string(place.path("apart/report.html")).unwrap().contains("data:image/png;base64"));
    place.run(&["report", "run/evaluation/test"]).ends_with(2).says(&["stands in the report of its run"]);
    // Where the pictures may not be passed on, they are deleted.
    fs_err::remove_dir_all(place.path("run/evaluation/test/pictures")).unwrap();
    place.run(&["report", "run"]).ends_with(0);
    assert!(!fs_err::read_to_string(&report).unwrap().contains("data:image/png;base64"));
}

#[test]
fn a_loss_that_is_no_number_names_epoch_step_and_batch() {
    let place = Place::with_config();
    for optimizer in ["adam", "sgd"] {
        let kind = format!("train.optimizer.type={optimizer}");
        let rate = "train.optimizer.learning_rate=1e30";
        let arguments = ["train", "--config", "small.toml", "--out", optimizer, "--set", &kind, "--set", rate];
        let outcome = place.run(&arguments).ends_with(1);
        outcome.says(&["the loss is", "epoch 1, step 2", "the batch begins with synthetic train", "learning_rate"]);
        assert!(!place.path(optimizer).join("model.safetensors").exists());
    }
}

/// The steps may be finite while the weights that the last of them made are not.
#[test]
fn a_validation_that_is_no_number_is_an_error_too() {
    let place = Place::with_config();
    let one_step = ["--set", "train.epochs=1", "--set", "train.batch_size=100"];
    let arguments = ["train", "--config", "small.toml", "--out", "run", "--set", "train.optimizer.learning_rate=1e30"];
    place.run(&[&arguments[..], &one_step].concat()).ends_with(1).says(&[
        "validation loss is NaN",
        "epoch 1",
        "learning_rate",
    ]);
    assert_eq!(crate::program::lines_of(&place.path("run/metrics.jsonl")), 0);
}

#[test]
fn training_stops_early_and_keeps_the_best_epoch() {
    let place = Place::with_config();
    let patience = ["--set", "train.early_stopping.patience=2", "--set", "train.epochs=60"];
    let outcome = place.train("run", &patience);
    let metrics = crate::program::metrics_of(&place.path("run"));
    assert!(metrics.len() < 60, "it never stopped");
    let best = metrics.len() - 2;
    outcome.prints(&[&format!("(epoch {best})")]);
    let accuracy = |record: &Value| record["val_accuracy"].as_f64().unwrap();
    assert!(metrics.iter().all(|record| accuracy(record) <= accuracy(&metrics[best - 1])));
}

#[test]
fn an_unknown_device_is_refused() {
    let place = Place::with_config();
    let arguments = ["train", "--config", "small.toml", "--out", "run", "--device", "abacus"];
    place.run(&arguments).ends_with(2).says(&["abacus", "flex"]);
    assert!(!place.path("run").exists());
}

#[test]
fn a_run_cannot_lose_epochs() {
    let place = Place::with_config();
    place.train("run", &[]);
    let fewer = ["train", "--resume", "--out", "run", "--set", "train.epochs=1"];
    place.run(&fewer).ends_with(2).says(&["2 finished epochs", "train.epochs cannot be less"]);
    place.run(&["train", "--resume", "--out", "run"]).ends_with(0).says(&["resuming run after 2 of 2 epochs"]);
    place.run(&["train", "--resume", "--out", "run", "--config", "small.toml"]).ends_with(2).says(&["--config"]);
}
