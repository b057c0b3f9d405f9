//! `vultus search`: tables that do not depend on how often the search was stopped or how it was shared out.

use std::path::Path;

use serde_json::{Value, json};

use crate::picture::png;
use crate::program::{Place, Results, SMALL, lines_of, read_json};

/// 2 x 2 settings on 3 folds.
const AXES: &str = r#"
[search]
method = "grid"
folds = 3
seed = 7

[[search.axes]]
name = "F"
keys = ["network.layers.0.filters"]
values = [2, 4]

[[search.axes]]
name = "lr"
keys = ["train.optimizer.learning_rate"]
values = [1e-3, 1e-2]
"#;

const SEARCH: [&str; 5] = ["search", "--config", "search.toml", "--data", "synthetic:15"];

fn place_with_search(axes: &str) -> Place {
    let place = Place::new();
    place.write("search.toml", SMALL.replace("epochs = 2", "epochs = 3") + axes);
    place
}

fn search<'a>(out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&SEARCH[..], &["--out", out], more].concat()
}

/// `search.csv` without what the clock says, and `search.json` likewise.
fn table_of(directory: &Path) -> (Vec<Vec<String>>, Value) {
    let mut reader = csv::Reader::from_path(directory.join("search.csv")).unwrap();
    let seconds = reader.headers().unwrap().iter().position(|name| name == "seconds").unwrap();
    let rows = reader.records().map(|record| {
        let record = record.unwrap();
        record.iter().enumerate().filter(|(column, _)| *column != seconds).map(|(_, cell)| cell.to_owned()).collect()
    });
    let rows = rows.collect();
    let mut json = read_json(&directory.join("search.json"));
    for setting in json["settings"].as_array_mut().unwrap() {
        setting.as_object_mut().unwrap().remove("seconds").unwrap();
    }
    (rows, json)
}

/// Their settings are not those of the default one.
#[test]
fn other_optimizers_can_be_searched_with() {
    let place = Place::with_config();
    let axes = "search.axes=[{ keys = [\"train.optimizer.type\"], values = [\"sgd\", \"muon\"] }]";
    let search = ["search", "--config", "small.toml", "--out", "out", "--set", "train.epochs=1", "--set", axes];
    let outcome = place.run(&[&search[..], &["--set", "search.folds=2", "--set", "search.monitor=val_loss"]].concat());
    outcome.ends_with(0).says(&["4 trials", "val_loss"]).prints(&["mean loss", "sgd", "muon"]);
}

#[test]
fn a_killed_search_goes_on_where_it_stopped() {
    let place = place_with_search(AXES);
    let outcome = place.run(&search("whole", &[])).ends_with(0);
    let outcome = outcome.says(&["4 settings, 12 trials: 0 done before, 12 to do here", "trial 12/12"]);
    outcome.prints(&["mean", "deviation", "fold 3", "best"]);
    let whole = table_of(&place.path("whole"));
    assert_eq!(whole.0.len(), 4);
    assert_eq!((&whole.1["trials"], &whole.1["finished"]), (&json!(12), &json!(12)));
    assert!(place.path("whole/figures/search.svg").is_file() && place.path("whole/figures/search.png").is_file());

    let longer = ["--set", "train.epochs=40"];
    let mut running = place.start("killed", &search("killed", &longer));
    let journal = place.path("killed/journal.jsonl");
    running.wait_for_lines(&journal, 2);
    running.kill();
    let done = lines_of(&journal);
    assert!((2..12).contains(&done), "{done} trials were done");
    // A line that was being written when it ended.
    let text = fs_err::read_to_string(&journal).unwrap();
    let complete = &text[..text.rfind('\n').unwrap() + 1];
    fs_err::write(&journal, format!("{complete}{{\"key\":\"0123")).unwrap();
    let outcome = place.run(&search("killed", &longer)).ends_with(0);
    outcome.says(&[&format!("{done} done before, {} to do here", 12 - done)]);
    place.run(&search("undisturbed", &longer)).ends_with(0);
    assert_eq!(table_of(&place.path("killed")), table_of(&place.path("undisturbed")));

    // Once more there is nothing left to do; another configuration starts from nothing.
    place.run(&search("whole", &[])).ends_with(0).says(&["12 done before, 0 to do here"]);
    assert_eq!(table_of(&place.path("whole")), whole);
    let outcome = place.run(&search("whole", &["--set", "seed=2"])).ends_with(0);
    outcome.says(&["0 done before, 12 to do here", "12 lines of the journals belong to another configuration"]);
}

#[test]
fn an_interrupted_search_ends_with_130() {
    let place = place_with_search(AXES);
    let mut running = place.start("first", &search("out", &["--set", "train.epochs=100000"]));
    running.wait_until("the first trial begins", || {
        fs_err::read_to_string(place.path("first.log")).is_ok_and(|log| log.contains("12 to do here"))
    });
    assert_eq!(running.interrupt(), Some(130));
    let log = fs_err::read_to_string(place.path("first.log")).unwrap();
    assert!(log.contains("the same command with --out out goes on"), "{log}");
    assert_eq!(lines_of(&place.path("out/journal.jsonl")), 0);
}

#[test]
fn shards_put_together_are_the_whole_search() {
    let place = place_with_search(AXES);
    place.run(&search("whole", &[])).ends_with(0);
    for shard in ["1/2", "2/2"] {
        let out = format!("part-{}", &shard[..1]);
        let outcome = place.run(&search(&out, &["--shard", shard])).ends_with(0);
        outcome.says(&["0 done before, 6 to do here", "6 trials are still to be done by other shards"]);
        let name = format!("journal-{}-of-2.jsonl", &shard[..1]);
        place.write(&format!("together/{name}"), fs_err::read(place.path(&out).join(&name)).unwrap());
    }
    let outcome = place.run(&search("together", &[])).ends_with(0).prints(&["best"]);
    outcome.says(&["12 done before, 0 to do here"]);
    assert_eq!(table_of(&place.path("together")), table_of(&place.path("whole")));
    place.run(&search("whole", &["--shard", "0/2"])).ends_with(2).says(&["0/2"]);
}

#[test]
fn the_winner_is_trained_and_its_report_has_the_table() {
    let place = place_with_search(AXES);
    place.run(&search("out", &["--then-train"])).ends_with(0).prints(&[
        "best",
        "test (21 images)",
        "out/winner/report.html",
    ]);
    let results = read_json(&place.path("out/search.json"));
    let best = &results["settings"][0]["setting"];
    let config = fs_err::read_to_string(place.path("out/winner/config.toml")).unwrap();
    assert!(config.contains(&format!("filters = {}", best["F"])), "{config}");
    let table = read_json(&place.path("out/winner/search-results.json"));
    assert_eq!((table["complete"].as_array().unwrap().len(), &table["settings"]), (4, &json!(4)));
    let report = fs_err::read_to_string(place.path("out/winner/report.html")).unwrap();
    assert!(report.contains("id=\"search\""), "the report has no search table");
    for setting in results["settings"].as_array().unwrap() {
        let mean = setting["mean"].as_f64().unwrap();
        let shown = [format!("{mean:.4}"), format!("{:.2}", mean * 100.0)];
        assert!(shown.iter().any(|text| report.contains(text)), "no mean {mean} in the report");
    }
    // The winner is an ordinary run.
    place.run(&["report", "out/winner"]).ends_with(0);
    place.run(&["evaluate", "out/winner", "--json"]).ends_with(0).json();
}

#[test]
fn a_random_search_draws_the_same_settings_again() {
    let axes = AXES.replace("\"grid\"", "\"random\"\nsettings = 3");
    let place =
        place_with_search(&axes.replace("values = [1e-3, 1e-2]", "range = { low = 1e-4, high = 1e-2, log = true }"));
    for out in ["first", "second"] {
        place.run(&search(out, &[])).ends_with(0).says(&["3 settings, 9 trials"]);
    }
    let first = table_of(&place.path("first"));
    assert_eq!(first, table_of(&place.path("second")));
    for setting in first.1["settings"].as_array().unwrap() {
        let rate = setting["setting"]["lr"].as_f64().unwrap();
        assert!((1e-4..=1e-2).contains(&rate), "{rate}");
    }
    place.run(&search("third", &["--set", "search.seed=8"])).ends_with(0);
    assert_ne!(first.1["settings"], table_of(&place.path("third")).1["settings"]);
}

#[test]
fn a_diverged_setting_is_a_row_and_never_wins() {
    let place = place_with_search(&AXES.replace("[1e-3, 1e-2]", "[1e30, 1e-3]"));
    let outcome = place.run(&search("out", &[])).ends_with(0).says(&["diverged: the loss is"]);
    let best = outcome.stdout.lines().find(|line| line.starts_with("best")).unwrap();
    assert!(best.contains("lr=0.001"), "{best}");
    let statuses: Vec<String> = table_of(&place.path("out")).1["settings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|setting| setting["status"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(statuses, ["complete", "complete", "diverged", "diverged"]);
}

/// It shows up the slope, which is another error of a training.
#[test]
fn a_radius_that_diverges_is_a_row_too() {
    let axes = AXES.replace("train.optimizer.learning_rate", "train.sharpness_radius").replace("1e-2", "1e30");
    let place = place_with_search(&axes);
    place.run(&search("out", &[])).ends_with(0).says(&["diverged: the loss is no number at a distance of"]);
}

#[test]
fn a_setting_that_cannot_begin_is_named_before_the_first_trial() {
    let axes = AXES.replace("train.optimizer.learning_rate", "device").replace("[1e-3, 1e-2]", "[\"flex\", \"tpu\"]");
    let place = place_with_search(&axes);
    let outcome = place.run(&search("out", &[])).ends_with(2).says(&["lr=tpu", "flex"]);
    assert!(!outcome.stderr.contains("trial 1/") && !place.path("out").exists(), "{}", outcome.stderr);
}

#[test]
fn a_setting_that_diverges_in_its_last_step_has_no_score() {
    let place = place_with_search(&AXES.replace("[1e-3, 1e-2]", "[1e30, 1e-3]"));
    place.run(&search("out", &["--set", "train.epochs=1", "--set", "train.batch_size=1000"])).ends_with(0);
    for setting in table_of(&place.path("out")).1["settings"].as_array().unwrap() {
        let status = if setting["setting"]["lr"] == 0.001 { "complete" } else { "diverged" };
        assert_eq!(setting["status"], status, "{setting}");
    }
}

#[test]
fn a_winner_that_was_killed_is_finished_by_the_same_command() {
    let place = place_with_search(AXES);
    place.run(&search("whole", &["--then-train"])).ends_with(0);
    let mut running = place.start("first", &search("out", &["--then-train"]));
    running.wait_for_lines(&place.path("out/winner/metrics.jsonl"), 1);
    drop(running);
    place.run(&search("out", &["--then-train"])).ends_with(0).prints(&["out/winner/report.html"]);
    let [whole, again] = ["whole", "out"].map(|out| Results::of(&place.path(out).join("winner")));
    whole.assert_same(&again);
    // Once more there is nothing left to train.
    place.run(&search("out", &["--then-train"])).ends_with(0).prints(&["out/winner/report.html"]);
}

#[test]
fn a_winner_is_known_by_what_it_began_with() {
    let place = place_with_search(AXES);
    place.write("small.toml", SMALL);
    for (name, seed) in [("first", "1"), ("second", "2")] {
        place.train(name, &["--set", &format!("seed={seed}"), "--set", "train.epochs=1"]);
    }
    let copy = |run: &str, to: &str| {
        fs_err::copy(place.path(run).join("model.safetensors"), place.path(to)).unwrap();
    };
    copy("first", "start.safetensors");
    let begins = ["--then-train", "--set", "train.start=start.safetensors", "--set", "train.epochs=1"];
    place.run(&search("out", &begins)).ends_with(0);
    let model = || fs_err::read(place.path("out/winner/model.safetensors")).unwrap();
    // Where it lies does not matter, what it is does.
    copy("first", "moved.safetensors");
    let moved = begins
        .map(|argument| if argument.starts_with("train.start") { "train.start=moved.safetensors" } else { argument });
    place.run(&search("out", &moved)).ends_with(0);
    let first = model();
    copy("second", "start.safetensors");
    place.run(&search("out", &begins)).ends_with(2).says(&["holds a run of another configuration or other images"]);
    assert!(model() == first, "the winner was replaced");
    copy("first", "start.safetensors");
    fs_err::remove_dir_all(place.path("out/winner/checkpoints")).unwrap();
    place.run(&search("out", &begins)).ends_with(2).says(&["no checkpoints that tell whose"]);
    let resumed = ["train", "--resume", "--out", "out/winner"];
    place.run(&resumed).ends_with(2).says(&["has no checkpoints to go on from any more"]);
    assert!(model() == first, "the winner was replaced");
}

#[test]
fn a_class_with_fewer_images_than_folds_is_named() {
    let place = place_with_search(AXES);
    for number in 0..6 {
        place.write(&format!("faces/train/happy/{number}.png"), png(number, 48));
    }
    let arguments = ["search", "--config", "search.toml", "--data", "faces", "--out", "out", "--set", "search.folds=5"];
    for number in 0..3 {
        place.write(&format!("faces/train/rare/{number}.png"), png(20 + number, 48));
        let images = if number == 0 { "1 image".to_owned() } else { format!("{} images", number + 1) };
        let outcome = place.run(&arguments).ends_with(2).says(&[&format!("class \"rare\" has {images}"), "drop"]);
        if number > 0 {
            outcome.says(&["5 folds need at least 5", "cleaning.drop_classes"]);
        }
    }
    let dropped = [&arguments[..], &["--set", "cleaning.minimum_count=5"]].concat();
    // Without it, one class is left, which is no classifier.
    place.run(&dropped).ends_with(2).says(&["of one class, happy"]);
}

#[test]
fn a_search_without_axes_or_with_bad_ones_is_refused() {
    let place = place_with_search("");
    place.run(&search("out", &[])).ends_with(2).says(&["there is nothing to search", "[[search.axes]]"]);
    let place = place_with_search(&AXES.replace("layers.0.filters", "layers.0.filter"));
    place.run(&search("out", &[])).ends_with(2).says(&["search axis \"F\"", "filter"]);
    let place = place_with_search(&AXES.replace("folds = 3", "folds = 1"));
    let outcome = place.run(&search("out", &[])).ends_with(2).says(&["search.folds is 1"]);
    assert!(!outcome.stderr.contains("search directory"), "{}", outcome.stderr);
}

/// Of the trials, that is: their folds validate. The winner has none.
#[test]
fn a_search_without_a_validation_part_may_stop_early() {
    let place = place_with_search(AXES);
    let stopping = ["--set", "train.validation_fraction=0", "--set", "train.early_stopping.patience=1"];
    place.run(&search("out", &stopping)).ends_with(0);
    let arguments = [&stopping[..], &["--then-train"]].concat();
    let refused = place.run(&search("trained", &arguments)).ends_with(2);
    refused.says(&["train.early_stopping.patience is 1", "train.validation_fraction"]);
    assert!(!place.path("trained").exists());
    let alone = [&["train", "--config", "search.toml", "--data", "synthetic:15"], &stopping[..]].concat();
    place.run(&alone).ends_with(2).says(&["train.early_stopping.patience is 1"]);
}

#[test]
fn two_searches_do_not_share_a_journal() {
    let place = place_with_search(AXES);
    let mut running = place.start("first", &search("out", &["--set", "train.epochs=100000"]));
    running.wait_until("the first trial begins", || {
        fs_err::read_to_string(place.path("first.log")).is_ok_and(|log| log.contains("12 to do here"))
    });
    place.run(&search("out", &[])).ends_with(2).says(&["journal.jsonl is in use by another vultus process"]);
    running.kill();
}

#[test]
fn a_search_takes_no_directory_of_anything_else() {
    let place = place_with_search(AXES);
    place.run(&["train", "--config", "search.toml", "--data", "synthetic:12", "--out", "run"]).ends_with(0);
    place.run(&search("run", &[])).ends_with(2).says(&["run holds a run", "--out"]);
    place.write("faces/happy/notes.txt", "mine");
    place.run(&search("faces", &[])).ends_with(2).says(&["faces is not empty and holds no search"]);
    assert_eq!(fs_err::read_dir(place.path("faces")).unwrap().count(), 1);
    // What a search calls its configuration may be anybody's.
    let mine = format!("# mine\n{SMALL}{AXES}");
    place.write("mine/search.toml", &mine);
    let inside = ["search", "--config", "mine/search.toml", "--out", "mine"];
    place.run(&inside).ends_with(2).says(&["mine is not empty and holds no search"]);
    assert_eq!(fs_err::read_to_string(place.path("mine/search.toml")).unwrap(), mine);
    place.run(&["report", "mine"]).ends_with(2).says(&["mine holds no run"]);
}

#[test]
fn a_search_that_cannot_be_described_runs_no_trial() {
    let place = place_with_search(AXES);
    place.write("out/journal.jsonl", "");
    place.write("out/environment.json", "{");
    let outcome = place.run(&search("out", &[])).ends_with(1).says(&["environment.json"]);
    assert!(!outcome.stderr.contains("trial 1"), "{}", outcome.stderr);
}

#[test]
fn a_search_is_no_run_and_its_model_is_the_winner() {
    let place = place_with_search(AXES);
    place.run(&search("out", &[])).ends_with(0);
    place.run(&["train", "--resume", "--out", "out"]).ends_with(2).says(&["out holds no run"]);
    let evaluate = ["evaluate", "out", "--data", "synthetic:12"];
    place.run(&evaluate).ends_with(2).says(&["--then-train"]);
    place
        .run(&["report", "out"])
        .ends_with(2)
        .says(&["the search out has no model yet", "vultus search --config out/search.toml --out out --then-train"]);
    place.run(&["compare", "out"]).ends_with(2).says(&["error: the search out has no model yet"]);
    place.write("small.toml", SMALL);
    place.train("run", &[]);
    let others = place.run(&["compare", "out", "run"]).ends_with(0).prints(&["run"]);
    others.says(&["warning: the search out has no model yet", "it is left out"]);
    // As it is told, and though nobody reads the table.
    place.run_unread(&["search", "--config", "out/search.toml", "--out", "out", "--then-train"]).ends_with(0);
    place.run(&evaluate).ends_with(0).prints(&["test (14 images)"]);
    place.run(&["evaluate", "out"]).ends_with(0).prints(&["test (21 images)"]).says(&["kept in out/winner"]);
    place.run(&["report", "out"]).ends_with(0).prints(&["out/winner/report.html"]);
    place.run(&search("out", &["--then-train", "--shard", "1/2"])).ends_with(2).says(&["--then-train", "--shard"]);
    // It would pass for the winner of another search.
    let other = ["--set", "train.batch_size=8"];
    place.run(&search("out", &other)).ends_with(0).says(&["note: out/winner is another model"]);
    let refused = place.run(&search("out", &[&other[..], &["--then-train"]].concat())).ends_with(2);
    refused.says(&["out/winner holds a run of another configuration"]);
    for other in
        [["--set", "train.epochs=4"], ["--set", "train.keep=last"], ["--set", "data.sources=[\"synthetic:13\"]"]]
    {
        let before = fs_err::read(place.path("out/winner/search-results.json")).unwrap();
        let refused = place.run(&search("out", &[&other[..], &["--then-train"]].concat())).ends_with(2);
        let refused = refused.says(&["out/winner holds a run of another configuration or other images"]);
        assert!(!refused.stderr.contains("trial "), "{other:?}: {}", refused.stderr);
        assert_eq!(fs_err::read(place.path("out/winner/search-results.json")).unwrap(), before);
    }
    // One that was resumed with more epochs is still the winner; one that was never begun is begun.
    place.run(&["train", "--resume", "--out", "out/winner", "--set", "train.epochs=4"]).ends_with(0);
    place.run(&search("out", &["--then-train"])).ends_with(0).prints(&["out/winner/report.html"]);
    fs_err::remove_dir_all(place.path("out/winner")).unwrap();
    place.write("out/winner/.lock", "");
    place.run(&["report", "out"]).ends_with(2).says(&["the search out has no model yet"]);
    place.run(&search("out", &["--then-train"])).ends_with(0).prints(&["out/winner/report.html"]);
}
