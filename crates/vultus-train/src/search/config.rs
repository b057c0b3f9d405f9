//! The `[search]` table of a configuration: which keys are varied, how, and what a setting's score is.
//!
//! It is data only; [`super::space`] turns it into settings.

use serde::{Deserialize, Serialize};
use toml::Value;

use crate::config::Monitor;

/// What a search varies and how it judges. Without axes there is nothing to search.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SearchConfig {
    /// How settings are made from the axes.
    pub method: SearchMethod,
    /// Number of settings of a random search; a grid has as many as its axes give.
    #[serde(alias = "trials")] // As it was called.
    pub settings: usize,
    /// Parts of the training images; each validates once while the others train. At least 2.
    pub folds: usize,
    /// Seed of the folds and of random settings.
    pub seed: u64,
    /// Which epoch of a trial counts.
    pub score: Score,
    /// Which value of that epoch is the score; accuracy is better when high, loss when low.
    pub monitor: Monitor,
    /// What is varied.
    pub axes: Vec<Axis>,
}

impl Default for SearchConfig {
    fn default() -> Self {
        Self {
            method: SearchMethod::Grid,
            settings: 0,
            folds: 5,
            seed: 1,
            score: Score::Last,
            monitor: Monitor::ValAccuracy,
            axes: Vec::new(),
        }
    }
}

/// How settings are made from the axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SearchMethod {
    /// Every combination of the axes' values.
    Grid,
    /// Seeded random draws from every axis.
    Random,
}

/// Which epoch of a trial counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Score {
    /// The last one, as in the report.
    Last,
    /// The best one by the monitored value. It favours settings that swing from epoch to epoch.
    Best,
}

/// One thing that is varied: a name for people, the keys it sets, and either a list of values or a range.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Axis {
    /// Heading in tables, such as `F`; the first key when empty.
    pub name: String,
    /// Configuration keys as in `--set`, such as `network.layers.*.rate`.
    pub keys: Vec<String>,
    /// Values to try. With several keys, a value that is a list of as many elements gives each key its own; any other
    /// value is given to every key.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<Value>,
    /// Numbers to draw from, in place of `values`; for random search only.
    #[serde(skip_serializing_if = "AxisRange::is_unset")]
    pub range: AxisRange,
}

impl Axis {
    /// The name, or the first key where there is none.
    pub fn title(&self) -> &str {
        match (self.name.as_str(), self.keys.first()) {
            ("", Some(key)) => key,
            (name, _) => name,
        }
    }
}

/// An interval of numbers, ends included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AxisRange {
    /// Smallest value.
    pub low: f64,
    /// Largest value, above `low`.
    pub high: f64,
    /// Drawn evenly in the logarithm; `low` must be above 0.
    pub log: bool,
    /// Whole numbers only.
    pub integer: bool,
}

impl AxisRange {
    /// Whether nothing was said: the axis has a list of values then.
    pub fn is_unset(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use crate::config::TrainConfig;

    const TEXT: &str = r#"
        [search]
        method = "random"
        settings = 7
        [[search.axes]]
        name = "rate"
        keys = ["train.optimizer.learning_rate"]
        range = { low = 1e-4, high = 1e-2, log = true }
        [[search.axes]]
        keys = ["network.layers.0.filters", "network.layers.4.filters"]
        values = [[8, 16], 32]
    "#;

    #[test]
    fn survives_the_resolved_configuration() {
        let config = TrainConfig::from_toml(TEXT, "text").unwrap();
        assert_eq!(config.search.axes.len(), 2);
        assert_eq!(config.search.axes[1].title(), "network.layers.0.filters");
        assert_eq!(TrainConfig::from_toml(&config.to_toml(), "again").unwrap(), config);
        let axes = r#"search.axes=[{ keys = ["train.epochs"], values = [1, 2] }]"#.to_owned();
        assert_eq!(TrainConfig::default().with_overrides(&[axes]).unwrap().search.axes.len(), 1);
    }

    #[test]
    fn a_run_of_an_earlier_version_is_read() {
        let config = TrainConfig::default();
        let earlier = config.to_toml().replace("settings = 0", "trials = 0");
        assert!(earlier.contains("trials = 0"));
        assert_eq!(TrainConfig::from_toml(&earlier, "text").unwrap(), config);
    }

    #[test]
    fn unknown_keys_are_refused() {
        for (from, to) in [("settings", "setings"), ("log =", "logarithmic ="), ("values =", "value =")] {
            let message = TrainConfig::from_toml(&TEXT.replace(from, to), "text").unwrap_err().to_string();
            assert!(message.contains(to.trim_end_matches(" =")), "{message}");
        }
    }
}
