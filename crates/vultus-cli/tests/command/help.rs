//! What the program says about itself.

use crate::program::Place;

#[test]
fn the_program_tells_commands_sources_and_exit_codes() {
    let commands = [
        "data",
        "train",
        "search",
        "evaluate",
        "compare",
        "calibrate",
        "pack",
        "export",
        "card",
        "report",
        "predict",
        "video",
        "models",
        "serve",
        "network",
        "bench",
    ];
    let facts = ["0 done", "1 the run failed", "2 bad usage", "130 interrupted", "synthetic", "fer2013.csv", "Parquet"];
    let lines = commands.map(|command| format!("\n  {command} "));
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    Place::new().run(&["--help"]).ends_with(0).prints(&lines).prints(&facts);
}

#[test]
fn every_command_tells_its_flags() {
    let place = Place::new();
    let cases: [(&[&str], &[&str]); 20] = [
        (&["data"], &["stats", "audit", "convert", "augment"]),
        (&["data", "stats"], &["<SOURCE>", "--json"]),
        (&["data", "audit"], &["<SOURCE>", "--json", "--list"]),
        (&["data", "augment"], &["<SOURCE>", "<OUT>", "--config", "--set", "--faces"]),
        (&["data", "convert"], &["<SOURCE>", "<OUT>"]),
        (&["train"], &["--config", "--data", "--out", "--set", "--device", "--resume"]),
        (&["search"], &["--config", "--data", "--out", "--shard", "I/N", "--then-train"]),
        (
            &["evaluate"],
            &[
                "<RUN_OR_BUNDLE>",
                "--data",
                "--split",
                "--validation",
                "--json",
                "--drop-class",
                "--without",
                "--groups",
                "--flip",
                "--shift",
                "--blur",
                "--out",
            ],
        ),
        (
            &["calibrate"],
            &["<RUN_OR_BUNDLE>", "--data", "--split", "--drop-class", "--flip", "--shift", "--blur", "--out"],
        ),
        (&["compare"], &["<RUN_OR_EVALUATION>", "--out", "--json"]),
        (&["pack"], &["<RUN_OR_BUNDLE>", "--out", "--half"]),
        (&["export"], &["<RUN_OR_BUNDLE>", "--flip", "--shift", "--blur", "--out"]),
        (
            &["card"],
            &[
                "<RUN_OR_BUNDLE>",
                "--data",
                "--split",
                "--drop-class",
                "--command",
                "--whole-command",
                "--hours",
                "--dataset",
                "--measured-on",
                "--license",
                "--out",
            ],
        ),
        (&["report"], &["<RUN_OR_EVALUATION>", "--no-pictures"]),
        (
            &["predict"],
            &[
                "[INPUT]",
                "--files-from",
                "--null",
                "--model",
                "--faces",
                "--face-model",
                "--min-face",
                "--min-confidence",
                "--abstain-below",
                "--format",
                "--json",
                "--csv",
                "--output",
                "--resume",
                "--annotate",
                "--explain",
                "rustface",
                "parquet",
            ],
        ),
        (
            &["video"],
            &[
                "<FILM>",
                "--model",
                "--faces",
                "--fps",
                "--seconds",
                "--smoothing",
                "--output",
                "--report",
                "--annotate",
            ],
        ),
        (&["models", "get"], &["<NAME>", "--from", "--out"]),
        (&["network"], &["<FILE|RUN|S|R>", "--classes", "--set", "--json"]),
        (
            &["serve"],
            &[
                "--model",
                "--faces",
                "--address",
                "--port",
                "--token-file",
                "VULTUS_TOKEN",
                "--cors-origin",
                "--host",
                "--queue",
                "--max-body",
                "--max-pixels",
                "--max-decoded",
                "--max-images",
                "--timeout",
                "--log",
            ],
        ),
        (
            &["bench"],
            &[
                "--network",
                "FILE|S|R",
                "--set",
                "--model",
                "--mode",
                "train",
                "infer",
                "--batch",
                "--threads",
                "--seconds",
                "--json",
            ],
        ),
    ];
    for (command, words) in cases {
        place.run(&[command, &["--help"]].concat()).ends_with(0).prints(words);
    }
}

#[test]
fn bad_usage_ends_with_two_and_prints_nothing() {
    let place = Place::new();
    let cases: [(&[&str], &str); 12] = [
        (&[], "Usage"),
        (&["tarin"], "train"),
        (&["train", "--epochs", "3"], "--epochs"),
        (&["train", "--resume"], "--out"),
        (&["search"], "--config"),
        (&["search", "--config", "x.toml", "--shard", "3/2"], "3/2"),
        (&["predict", "a.png", "--json", "--csv"], "--csv"),
        (&["serve", "--cors-origin", "example.com"], "https://example.com"),
        (&["serve", "--cors-origin", "https://example.com:443"], "https://example.com"),
        (&["serve", "--port", "0", "--cors-origin", "https://Example.com"], "https://example.com"),
        (&["predict", "a.png", "--abstain-below", "-0.1"], "'-0.1' for '--abstain-below"),
        (&["network", "S", "--classes", "-1"], "-1 is not in"),
    ];
    for (arguments, word) in cases {
        let outcome = place.run(arguments).ends_with(2).says(&[word]);
        assert!(outcome.stdout.is_empty(), "{}", outcome.stdout);
    }
    assert_eq!(fs_err::read_dir(place.path("")).unwrap().count(), 0, "something was written");
}

#[test]
fn the_version_is_that_of_the_package() {
    Place::new().run(&["--version"]).ends_with(0).prints(&[env!("CARGO_PKG_VERSION")]);
}
