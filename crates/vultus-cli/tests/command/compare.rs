//! Runs beside each other.

use crate::program::{Place, read_json};

#[test]
fn runs_that_differ_by_their_seed_are_one_row() {
    let place = Place::with_config();
    place.train("plain-1", &["--set", "train.epochs=1"]);
    // What a search would vary changes nothing here.
    let unused = "search.axes=[{keys=[\"train.epochs\"], values=[1, 2]}]";
    let second = place.train("plain-2", &["--set", "train.epochs=1", "--set", "seed=2", "--set", unused]);
    second.says(&["what [search] varies is for vultus search"]);
    place.train("unweighted", &["--set", "train.epochs=1", "--set", "train.class_weights=none"]);
    let runs = ["plain-1", "plain-2", "unweighted"];
    let table = place.run(&[&["compare"], &runs[..], &["--out", "out"]].concat()).ends_with(0);
    // Two seeds validate on other images than one.
    let table = table.says(&["not all rows may have validated on the same images"]);
    table.prints(&["plain", " ± ", "val_accuracy", "test", "train.class_weights=\"none\""]);

    let unread = [&["compare"], &runs[..], &["--out", "unread"]].concat();
    place.run_unread(&unread).ends_with(0);
    let tables = ["out", "unread"].map(|out| fs_err::read(place.path(out).join("comparison.csv")).unwrap());
    assert_eq!(tables[0], tables[1]);

    // Named twice, a run counts once.
    let json = place.run(&[&["compare", "--json", "plain-1"], &runs[..]].concat()).ends_with(0).json();
    let rows = json["rows"].as_array().unwrap();
    let facts: Vec<_> = rows.iter().map(|row| (row["name"].as_str().unwrap(), row["seeds"].to_string())).collect();
    assert_eq!(facts, [("plain", "[1,2]".to_owned()), ("unweighted", "[1]".to_owned())]);
    assert_eq!(json["unequal_validation"], true);
    let alike = place.run(&["compare", "--json", "plain-1", "unweighted"]).ends_with(0);
    assert_eq!(alike.json()["unequal_validation"], false);
    // The same settings, and other images.
    place.train("drawn", &["--data", "synthetic:20", "--set", "train.class_weights=\"none\""]);
    let other = place.run(&["compare", "--json", "plain-1", "drawn"]).ends_with(0);
    assert_eq!(other.json()["unequal_validation"], true);
    let accuracy = |run: &str| {
        let evaluation = read_json(&place.path(&format!("{run}/evaluation/test/evaluation.json")));
        evaluation["accuracy"].as_f64().unwrap()
    };
    let (first, second) = (accuracy("plain-1"), accuracy("plain-2"));
    let spread = &rows[0]["splits"]["test"];
    assert!((spread["mean"].as_f64().unwrap() - (first + second) / 2.0).abs() < 1e-12);
    let deviation = (first - second).abs() / 2_f64.sqrt();
    assert!((spread["standard_deviation"].as_f64().unwrap() - deviation).abs() < 1e-12);

    let csv = fs_err::read_to_string(place.path("out/comparison.csv")).unwrap();
    assert_eq!(csv.lines().count(), 3, "{csv}");
    assert!(csv.starts_with("name,runs,seeds,val_accuracy,val_accuracy_standard_deviation,test,"), "{csv}");
    let figure = fs_err::read_to_string(place.path("out/comparison-test.svg")).unwrap();
    assert!(place.path("out/comparison-test.png").exists() && figure.contains("plain · "), "{figure}");
}

#[test]
fn changed_images_and_unfinished_runs_are_told() {
    let place = Place::with_config();
    let train = |name: &str, seed: &str| {
        let seed = format!("seed={seed}");
        place.train(name, &["--data", "faces.parquet", "--set", "train.epochs=1", "--set", &seed])
    };
    place.run(&["data", "convert", "synthetic:12", "faces.parquet"]).ends_with(0);
    train("first", "1");
    fs_err::remove_file(place.path("faces.parquet")).unwrap();
    place.run(&["data", "convert", "synthetic:13", "faces.parquet"]).ends_with(0);
    let changed = "the images are not all those of the training any more";
    place.run(&["evaluate", "first"]).ends_with(0).says(&[changed]);
    let second = train("second", "2");
    assert!(!second.stderr.contains(changed) && !place.run(&["evaluate", "second"]).stderr.contains(changed));
    let outcome = place.run(&["compare", "first", "second"]).ends_with(0);
    outcome.says(&["second was made with other images or classes than the first run of its row"]);
    // As many images of the same classes, and others.
    place.train("a", &["--set", "train.epochs=1"]);
    place.train("b", &["--set", "train.epochs=1", "--set", "data.synthetic.seed=7"]);
    place.run(&["compare", "a", "b"]).ends_with(0).says(&["test is not the same for all runs", "different images"]);
    place.train("c", &["--set", "train.epochs=1", "--set", "seed=2"]);
    assert_eq!(place.run(&["compare", "a", "c"]).ends_with(0).stderr, "");

    fs_err::remove_file(place.path("c/model.safetensors")).unwrap();
    place.run(&["compare", "a", "c"]).ends_with(0).says(&["c is not finished"]);
    place.run(&["report", "c"]).ends_with(0);
    assert!(fs_err::read_to_string(place.path("c/report.html")).unwrap().contains("Training is not finished"));
}

#[test]
fn other_images_and_other_directories_are_told() {
    let place = Place::with_config();
    place.train("few", &["--set", "train.epochs=1"]);
    place.train("more", &["--set", "train.epochs=1", "--data", "synthetic:31"]);
    place.run(&["compare", "few", "more"]).ends_with(0).says(&["test is not the same for all runs"]);
    // A copy is no second sample, and a run without an evaluation no figure.
    place.train("few-again", &["--set", "train.epochs=1"]);
    place.run(&["compare", "few", "few-again"]).ends_with(0).says(&["few-again has the seed of another run"]);
    fs_err::remove_dir_all(place.path("few-again/evaluation")).unwrap();
    place.run(&["compare", "few", "few-again"]).ends_with(0).says(&["note: few-again was not evaluated on test"]);
    place.run(&["compare", "few", "few/evaluation/test"]).ends_with(2).says(&["few/evaluation/test is an evaluation"]);
    place.run(&["compare", "few-again"]).ends_with(0).says(&["no run has been evaluated"]);
    place.run(&["compare", "few", "absent"]).ends_with(2).says(&["absent holds no run"]);
    place.run(&["compare"]).ends_with(2).says(&["<RUN_OR_EVALUATION>"]);
    place.run(&["compare", "few", "more", "--out", "small.toml"]).ends_with(2).says(&["small.toml is a file"]);
    place.run(&["compare", "few", "more", "--out", "small.toml/out"]).ends_with(1).prints(&["few", "more"]);
}

#[test]
fn evaluations_of_the_same_images_are_compared_image_by_image() {
    let place = Place::with_config();
    for (run, seed) in [("a", "seed=1"), ("b", "seed=2")] {
        place.train(run, &["--set", "train.epochs=1", "--set", seed]);
    }
    let evaluations = ["a/evaluation/test", "b/evaluation/test"];
    let table = place.run(&[&["compare"], &evaluations[..]].concat()).ends_with(0);
    table.prints(&["test, 14 images", evaluations[0], evaluations[1], "difference", "McNemar", "Brier score"]);
    let json = place.run(&[&["compare", "--json"], &evaluations[..]].concat()).ends_with(0).json();
    let pair = &json["others"][0];
    let difference_of = |score: &str| {
        let scores =
            evaluations.map(|name| read_json(&place.path(name).join("evaluation.json"))[score].as_f64().unwrap());
        scores[1] - scores[0]
    };
    let difference = difference_of("accuracy");
    assert!((pair["difference"].as_f64().unwrap() - difference).abs() < 1e-12, "{pair}");
    for score in ["log_loss", "brier_score"] {
        assert!((pair[score]["difference"].as_f64().unwrap() - difference_of(score)).abs() < 1e-6, "{pair}");
    }
    let counts = ["gained", "lost"].map(|key| pair[key].as_f64().unwrap());
    assert!(((counts[0] - counts[1]) / 14.0 - difference).abs() < 1e-12, "{pair}");

    let out = ["evaluate", "a/model.safetensors", "--data", "synthetic:20", "--split", "test", "--out", "other"];
    place.run(&out).ends_with(0);
    place.run(&["compare", evaluations[0], "other"]).ends_with(2).says(&["not of the same images", "other"]);
    place.run(&["compare", evaluations[0]]).ends_with(2).says(&["name another"]);
    place.run(&["compare", evaluations[0], "b"]).ends_with(2).says(&["b is none"]);
    place.run(&["compare", "--out", "x", evaluations[0], evaluations[1]]).ends_with(2).says(&["--out is for runs"]);
}
