use super::*;

fn set(texts: &[&str]) -> Result<TrainConfig, ConfigError> {
    let texts: Vec<String> = texts.iter().map(|&text| text.to_owned()).collect();
    TrainConfig::default().with_overrides(&texts)
}

#[test]
fn toml_round_trip() {
    let config = TrainConfig::default();
    assert_eq!(TrainConfig::from_toml(&config.to_toml(), "text").unwrap(), config);
    assert!(config.to_toml().contains("l2 = 0.01"), "{}", config.to_toml());
}

#[test]
fn overrides_reach_lists_wildcards_and_strings() {
    let config = set(&[
        "train.epochs=3",
        "network.layers.*.rate=0.5",
        "network.layers.0.filters=8",
        "train.keep=last",
        "train.optimizer.learning_rate=1",
    ])
    .unwrap();
    assert_eq!(config.train.epochs, 3);
    assert_eq!(config.train.keep, Keep::Last);
    assert_eq!(config.train.optimizer.learning_rate(), 1.0);
    let rates: Vec<f64> = config
        .network
        .layers
        .iter()
        .filter_map(|layer| match layer {
            LayerConfig::Dropout(dropout) => Some(dropout.rate),
            _ => None,
        })
        .collect();
    assert_eq!(rates, [0.5; 3]);
    assert!(matches!(&config.network.layers[0], LayerConfig::Conv(conv) if conv.filters == 8));
    assert!(matches!(&config.network.layers[4], LayerConfig::Conv(conv) if conv.filters == 128));
}

#[test]
fn overrides_reach_into_residual_layers() {
    let text = r#"
        [[network.layers]]
        type = "residual"
        [[network.layers.layers]]
        type = "conv"
        filters = 4
        kernel = 3
        [[network.layers.layers]]
        type = "batch_norm"
        [[network.layers.shortcut]]
        type = "conv"
        filters = 4
        kernel = 3
        [[network.layers]]
        type = "global_average_pool"
    "#;
    let config = TrainConfig::from_toml(text, "text").unwrap();
    assert_eq!(TrainConfig::from_toml(&config.to_toml(), "again").unwrap(), config);
    let set = |text: &str| config.with_overrides(&[text.to_owned()]).map(|config| config.to_toml());
    let count = |text: &str, found: &str| set(text).unwrap().matches(found).count();
    assert_eq!(count("network.layers.0.layers.0.filters=6", "filters = 6"), 1);
    assert_eq!(count("network.layers.*.layers.*.filters=6", "filters = 6"), 1);
    assert_eq!(count("network.layers.*.shortcut.*.bias=false", "bias = false"), 1);
    assert_eq!(count("network.layers.*.activation=elu", "elu"), 1);
    let message = set("network.layers.0.layers.*.rate=0.5").unwrap_err().to_string();
    assert!(message.contains("no key rate"), "{message}");
}

#[test]
fn splits_may_be_spelt_as_in_the_data() {
    let config = set(&["data.train_split=Training", "data.evaluate_splits=[\"PublicTest\", \"mine\"]"]).unwrap();
    assert_eq!(set(&["data.validation_split=VAL"]).unwrap().data.validation_split, "validation");
    let same = set(&["data.validation_split=training"]).unwrap_err().to_string();
    assert!(same.starts_with("data.validation_split is train: "), "{same}");
    let without = set(&["train.validation_fraction=0.0", "train.early_stopping.patience=2"]).unwrap();
    assert!(without.check_stopping().is_err(), "only folds of a search could stop it");
    let own = ["train.validation_fraction=0.0", "data.validation_split=val", "train.early_stopping.patience=2"];
    assert!(set(&own).unwrap().check_stopping().is_ok());
    assert_eq!(config.data.train_split, "train");
    assert_eq!(config.data.evaluate_splits, ["public_test", "mine"]);
    let text = "[data]\ntrain_split = \"VAL\"\n";
    assert_eq!(TrainConfig::from_toml(text, "text").unwrap().data.train_split, "validation");
}

#[test]
fn the_optimizer_can_be_exchanged() {
    let config = set(&["train.optimizer.type=sgd", "train.optimizer.momentum=0.8"]).unwrap();
    assert_eq!(
        config.train.optimizer,
        OptimizerConfig::Sgd(SgdConfig { learning_rate: 0.001, momentum: 0.8, nesterov: false })
    );
    let config = set(&["train.optimizer.beta1=0.8", "train.optimizer.type=adam"]).unwrap();
    assert!(matches!(config.train.optimizer, OptimizerConfig::Adam(adam) if adam.beta1 == 0.8), "the type it had");
}

#[test]
fn unknown_keys_are_named() {
    let message = set(&["train.epoch=3"]).unwrap_err().to_string();
    assert!(message.contains("no key epoch") && message.contains("epochs"), "{message}");
    let message = set(&["epochs=3"]).unwrap_err().to_string();
    assert!(message.ends_with("there is no key epochs; is train.epochs meant?"), "{message}");
    let message = set(&["flip=true"]).unwrap_err().to_string();
    assert!(message.ends_with("; is train.augmentation.flip or views.flip meant?"), "{message}");
    let message = set(&["network.layers.99.rate=3"]).unwrap_err().to_string();
    assert!(message.contains("12 elements"), "{message}");
    let message = TrainConfig::from_toml("[train]\nepoch = 3\n", "my.toml").unwrap_err().to_string();
    assert!(message.contains("my.toml") && message.contains("epoch"), "{message}");
    assert!(matches!(set(&["train.epochs"]), Err(ConfigError::Override(_))));
}

#[test]
fn values_out_of_range_are_named() {
    for (text, key) in [
        ("train.epochs=0", "train.epochs"),
        ("train.epochs=1000001", "train.epochs"),
        ("train.validation_fraction=1.0", "train.validation_fraction"),
        ("train.optimizer.learning_rate=-1.0", "learning_rate"),
        // In range as they are written, and not with the 32 bits that they are used with.
        ("train.optimizer.learning_rate=1e-50", "learning_rate"),
        ("train.optimizer.learning_rate=1e39", "learning_rate"),
        ("train.optimizer.beta1=0.99999999", "beta1"),
        ("train.optimizer.beta2=0.99999999", "beta2"),
        ("train.optimizer.epsilon=1e-50", "epsilon"),
        ("train.optimizer={ type = \"sgd\", momentum = 0.99999999 }", "momentum"),
        ("train.optimizer={ type = \"muon\", momentum = 0.99999999 }", "momentum"),
        ("train.clip_norm=1e-50", "train.clip_norm"),
        ("train.targets.distillation_temperature=1e-50", "train.targets.distillation_temperature"),
        ("data.evaluate_splits=[\"test\", \"test\"]", "every split once"),
    ] {
        let message = set(&[text]).unwrap_err().to_string();
        assert!(message.contains(key) && message.len() < 150, "{message}");
    }
}
