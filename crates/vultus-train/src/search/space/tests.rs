use proptest::prelude::*;

use super::*;

fn axis(name: &str, keys: &[&str], values: &str) -> Axis {
    let mut table: toml::Table = toml::from_str(&format!("values = {values}")).unwrap();
    let Some(Value::Array(values)) = table.remove("values") else { panic!("no list") };
    let keys = keys.iter().map(|&key| key.to_owned()).collect();
    Axis { name: name.to_owned(), keys, values, range: AxisRange::default() }
}

fn ranged(name: &str, key: &str, low: f64, high: f64, log: bool, integer: bool) -> Axis {
    Axis { range: AxisRange { low, high, log, integer }, ..axis(name, &[key], "[]") }
}

fn search(method: SearchMethod, settings: usize, axes: Vec<Axis>) -> SearchConfig {
    SearchConfig { method, settings, axes, ..SearchConfig::default() }
}

fn names(search: &SearchConfig) -> Vec<String> {
    settings(search).unwrap().iter().map(Setting::name).collect()
}

fn message(search: &SearchConfig) -> String {
    settings(search).unwrap_err().to_string()
}

#[test]
fn a_grid_runs_through_the_last_axis_fastest() {
    let filters = axis("F", &["network.layers.0.filters", "network.layers.4.filters"], "[[32, 64], [64, 128]]");
    let rate = axis("p", &["network.layers.*.rate"], "[0.1, 0.25]");
    let expected = ["F=32/64, p=0.1", "F=32/64, p=0.25", "F=64/128, p=0.1", "F=64/128, p=0.25"];
    assert_eq!(names(&search(SearchMethod::Grid, 0, vec![filters, rate])), expected);
}

#[test]
fn lists_are_spread_over_keys_and_other_values_repeated() {
    let filters = axis("F", &["network.layers.0.filters", "network.layers.4.filters"], "[[8, 16], 24]");
    let epochs = axis("", &["train.epochs"], "[3]");
    let all = settings(&search(SearchMethod::Grid, 0, vec![filters, epochs])).unwrap();
    let base = TrainConfig::default();
    for (setting, expected) in all.iter().zip([["8", "16"], ["24", "24"]]) {
        let config = winner_config(&base, setting).unwrap();
        let wanted = base
            .with_overrides(&[
                format!("network.layers.0.filters={}", expected[0]),
                format!("network.layers.4.filters={}", expected[1]),
                "train.epochs=3".to_owned(),
            ])
            .unwrap();
        assert_eq!(config, wanted);
    }
    assert_eq!(all[1].name(), "F=24, train.epochs=3");
}

#[test]
fn random_settings_stay_in_range_and_differ() {
    let axes = vec![
        ranged("rate", "train.optimizer.learning_rate", 1e-4, 1e-2, true, false),
        ranged("epochs", "train.epochs", 2.0, 5.0, false, true),
        axis("batch", &["train.batch_size"], "[16, 32]"),
    ];
    let all = settings(&search(SearchMethod::Random, 60, axes)).unwrap();
    let mut epochs = HashSet::new();
    let mut below_middle = 0;
    for setting in &all {
        let config = winner_config(&TrainConfig::default(), setting).unwrap();
        let rate = config.train.optimizer.learning_rate();
        assert!((1e-4..=1e-2).contains(&rate), "{rate}");
        below_middle += usize::from(rate < 1e-3);
        epochs.insert(config.train.epochs);
    }
    assert_eq!(epochs, HashSet::from([2, 3, 4, 5]));
    assert!((18..=42).contains(&below_middle), "{below_middle} of 60 below the logarithmic middle");
    assert_eq!(all.iter().map(Setting::name).collect::<HashSet<_>>().len(), 60);
}

#[test]
fn a_small_space_is_used_up_and_no_more() {
    let axes = || vec![axis("epochs", &["train.epochs"], "[1, 2, 3]"), axis("seed", &["seed"], "[1, 2]")];
    let all = names(&search(SearchMethod::Random, 6, axes()));
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), 6);
    let error = message(&search(SearchMethod::Random, 7, axes()));
    assert!(error.contains("settings is 7") && error.contains("only 6"), "{error}");
}

proptest! {
    #[test]
    fn fewer_random_settings_are_the_first_of_more(seed in 0..1000_u64, few in 1..10_usize, more in 10..20_usize) {
        let axes = || vec![
            ranged("rate", "train.optimizer.learning_rate", 1e-4, 1e-1, true, false),
            axis("batch", &["train.batch_size"], "[16, 32, 64]"),
        ];
        let of = |settings| names(&SearchConfig { seed, ..search(SearchMethod::Random, settings, axes()) });
        prop_assert_eq!(&of(few), &of(more)[..few]);
        let other = names(&SearchConfig { seed: seed + 1, ..search(SearchMethod::Random, few, axes()) });
        prop_assert_ne!(of(few), other);
    }
}

#[test]
fn bad_axes_are_named() {
    let grid = |axes| search(SearchMethod::Grid, 0, axes);
    assert!(matches!(settings(&grid(Vec::new())), Err(SearchError::NoAxes)));
    let good = || axis("A", &["train.epochs"], "[1]");
    for (bad, expected) in [
        (axis("B", &[], "[1]"), "no keys"),
        (axis("B", &["train.batch_size"], "[]"), "no values"),
        (axis("A", &["train.batch_size"], "[1]"), "same name"),
        (axis("B", &["train.batch_size"], "[1, 2, 1]"), "1 stands twice"),
        (axis("B", &["seed", "train.epochs"], "[1, 2]"), "train.epochs is searched twice"),
        (axis("B", &["network.layers.3.rate", "network.layers.*.rate"], "[[0.1, 0.2]]"), "would replace"),
        (axis("B", &["network.layers.0.filters", "network.layers.0"], "[[1, 2]]"), "would replace"),
        (axis("B", &["train.optimizer.beta1", "train.optimizer.type"], "[[0.8, \"sgd\"]]"), "put it in front"),
        (axis("B", &["cleaning.fraction"], "[0.5]"), "cleaned once"),
        (axis("B", &["data.train_split"], "[\"test\"]"), "read once"),
        (axis("B", &["search.axes.0.name"], "[\"x\"]"), "only folds and seed"),
        (axis("B", &["train.keep"], "[\"last\"]"), "keeps no weights"),
        (ranged("B", "seed", 1.0, 2.0, false, true), "a grid needs values"),
    ] {
        let error = message(&grid(vec![good(), bad]));
        assert!(error.contains(expected) && error.contains("search axis"), "{error}");
    }
    let within = axis("B", &["train.schedule", "train.schedule.warmup"], "[[{ type = \"cosine\" }, 0.1]]");
    let one_of_all = axis("C", &["network.layers.*.rate", "network.layers.3.rate"], "[[0.1, 0.2]]");
    assert_eq!(settings(&grid(vec![good(), within, one_of_all])).unwrap().len(), 1, "a whole, and then a part of it");
    for (bad, expected) in [
        (ranged("B", "seed", 2.0, 1.0, false, false), "below range.high"),
        (ranged("B", "seed", 0.0, 1.0, true, false), "above 0"),
        (ranged("B", "seed", 0.5, 2.0, false, true), "whole numbers"),
    ] {
        let error = message(&search(SearchMethod::Random, 3, vec![bad]));
        assert!(error.contains(expected) && error.contains("\"B\""), "{error}");
    }
    assert!(message(&search(SearchMethod::Random, 0, vec![good()])).contains("search.settings is 0"));
    assert!(message(&search(SearchMethod::Grid, 5, vec![good()])).contains("search.settings is 5: that is for"));
}

#[test]
fn unknown_keys_name_axis_and_key() {
    let all = settings(&search(SearchMethod::Grid, 0, vec![axis("F", &["network.layers.0.filter"], "[1]")])).unwrap();
    let error = all[0].apply(&TrainConfig::default()).unwrap_err().to_string();
    assert!(error.contains("\"F\"") && error.contains("filter") && error.contains("filters"), "{error}");
}
