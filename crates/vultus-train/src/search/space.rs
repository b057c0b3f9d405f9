//! From axes to settings: every combination of a grid, or seeded random draws.
//!
//! In: a configuration with a `[search]` table. Out: settings in a fixed order, and the configuration that each stands
//! for. It trains nothing and knows no folds.

use std::collections::HashSet;

use serde_json::{Map, Value as Json};
use toml::Value;

use super::config::{Axis, AxisRange, SearchConfig, SearchMethod};
use super::error::SearchError;
use crate::config::TrainConfig;
use crate::seed::{derive_seed, purpose};

/// Settings of one search at most: more is a slip of the pen.
const MAXIMUM_SETTINGS: usize = 1_000_000;

/// Draws for one random setting before it is taken for granted that there is no new one.
const ATTEMPTS: u64 = 10_000;

/// Keys that do nothing inside a search, with the reason.
const FIXED_KEYS: [(&str, &str); 9] = [
    ("data", "the images are read once, before the search"),
    ("cleaning", "the images are cleaned once, before the search"),
    ("preprocessing.width", "the images are brought to their size once, before the search"),
    ("preprocessing.height", "the images are brought to their size once, before the search"),
    ("train.validation_fraction", "in a search the folds validate"),
    ("train.validation_seed", "in a search the folds validate"),
    ("train.keep", "a search compares scores and keeps no weights"),
    ("train.checkpoint_minutes", "it does not change the result"),
    ("views", "trials are validated on the picture as it is; try them on the images that a finished run held out"),
];

/// Keys of the `search` table that may differ between settings.
const SEARCHABLE_KEYS: [&str; 2] = ["search.folds", "search.seed"];

/// One value for every axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// Name of each axis and its value.
    pub values: Vec<(String, Value)>,
    assignments: Vec<Vec<(String, Value)>>,
}

impl Setting {
    fn new(axes: &[Axis], values: Vec<Value>) -> Self {
        let assignments = axes.iter().zip(&values).map(|(axis, value)| assignments(axis, value)).collect();
        let values = axes.iter().map(|axis| axis.title().to_owned()).zip(values).collect();
        Self { values, assignments }
    }

    /// The setting in one line: `F=64/128, k=3`.
    pub fn name(&self) -> String {
        let parts: Vec<String> = self.texts().into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        parts.join(", ")
    }

    /// Name of each axis and its value as text; the elements of a list have a `/` between them.
    pub fn texts(&self) -> Vec<(String, String)> {
        texts(&self.to_json())
    }

    /// The setting as a JSON object.
    pub fn to_json(&self) -> Map<String, Json> {
        self.values.iter().map(|(name, value)| (name.clone(), json(value))).collect()
    }

    /// The configuration with this setting's values in their places and without axes.
    ///
    /// # Errors
    /// A key that does not exist or a value that it cannot have, with the axis.
    pub fn apply(&self, config: &TrainConfig) -> Result<TrainConfig, SearchError> {
        let mut applied = config.clone();
        applied.search.axes = Vec::new();
        for ((axis, _), assignments) in self.values.iter().zip(&self.assignments) {
            applied = applied
                .with_values(assignments)
                .map_err(|source| SearchError::AxisValue { axis: axis.clone(), source })?;
        }
        Ok(applied)
    }
}

/// The configuration that trains `setting` for good: its values in their places and no search.
///
/// # Errors
/// As [`Setting::apply`].
pub fn winner_config(config: &TrainConfig, setting: &Setting) -> Result<TrainConfig, SearchError> {
    Ok(TrainConfig { search: SearchConfig::default(), ..setting.apply(config)? })
}

/// All settings in order: a grid with the last axis fastest, or `search.settings` random draws without repetition. The first
/// settings of a random search are the same however many are asked for.
///
/// # Errors
/// No axes, an axis that cannot be used, too many settings or too few different ones.
pub fn settings(search: &SearchConfig) -> Result<Vec<Setting>, SearchError> {
    check_axes(search)?;
    let values = match search.method {
        SearchMethod::Grid => grid(&search.axes)?,
        SearchMethod::Random => random(search)?,
    };
    Ok(values.into_iter().map(|values| Setting::new(&search.axes, values)).collect())
}

fn grid(axes: &[Axis]) -> Result<Vec<Vec<Value>>, SearchError> {
    let count = axes.iter().try_fold(1_usize, |count, axis| count.checked_mul(axis.values.len()));
    let count = count.unwrap_or(usize::MAX);
    if count > MAXIMUM_SETTINGS {
        let expected = "a grid of more than a million settings is refused; use fewer values, or method = \"random\"";
        return Err(SearchError::Value { key: "axes", value: format!("{count} settings"), expected });
    }
    let combination = |number: usize| {
        let mut rest = number;
        let mut values: Vec<Value> = Vec::with_capacity(axes.len());
        for axis in axes.iter().rev() {
            values.push(axis.values[rest % axis.values.len()].clone());
            rest /= axis.values.len();
        }
        values.reverse();
        values
    };
    Ok((0..count).map(combination).collect())
}

fn random(search: &SearchConfig) -> Result<Vec<Vec<Value>>, SearchError> {
    let mut found: Vec<Vec<Value>> = Vec::with_capacity(search.settings);
    let mut seen = HashSet::new();
    for number in 0..search.settings as u64 {
        let draw = |attempt: u64| -> Vec<Value> {
            let hash = |axis: usize| derive_seed(search.seed, &[purpose::SETTING, number, attempt, axis as u64]);
            search.axes.iter().enumerate().map(|(index, axis)| drawn(axis, unit(hash(index)))).collect()
        };
        match (0..ATTEMPTS).map(draw).find(|values| seen.insert(format!("{values:?}"))) {
            Some(values) => found.push(values),
            None => return Err(SearchError::TooFewSettings { wanted: search.settings, found: found.len() }),
        }
    }
    Ok(found)
}

/// The upper 53 bits of a hash as a number from 0 to below 1.
fn unit(hash: u64) -> f64 {
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}

/// The value of an axis at `position` (0 to below 1).
fn drawn(axis: &Axis, position: f64) -> Value {
    if axis.range.is_unset() {
        return axis.values[(position * axis.values.len() as f64) as usize].clone();
    }
    let AxisRange { low, high, log, integer } = axis.range;
    // Every whole number owns the interval up to the next one.
    let end = if integer { high + 1.0 } else { high };
    let number = if log { (low.ln() + position * (end.ln() - low.ln())).exp() } else { low + position * (end - low) };
    if integer {
        Value::Integer(number.floor().clamp(low, high) as i64)
    } else {
        Value::Float(rounded(number).clamp(low, high))
    }
}

/// Four significant digits: nobody means more of a drawn number, and tables stay legible.
fn rounded(number: f64) -> f64 {
    format!("{number:.3e}").parse().unwrap_or(number)
}

fn assignments(axis: &Axis, value: &Value) -> Vec<(String, Value)> {
    match value {
        Value::Array(list) if axis.keys.len() > 1 && list.len() == axis.keys.len() => {
            axis.keys.iter().cloned().zip(list.iter().cloned()).collect()
        }
        _ => axis.keys.iter().map(|key| (key.clone(), value.clone())).collect(),
    }
}

fn json(value: &Value) -> Json {
    serde_json::to_value(value).unwrap_or_else(|_| Json::String(value.to_string()))
}

/// Names and values of a setting's JSON object as text.
pub(super) fn texts(setting: &Map<String, Json>) -> Vec<(String, String)> {
    setting.iter().map(|(name, value)| (name.clone(), text(value))).collect()
}

fn text(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        Json::Array(list) => list.iter().map(text).collect::<Vec<_>>().join("/"),
        other => other.to_string(),
    }
}

fn check_axes(search: &SearchConfig) -> Result<(), SearchError> {
    if search.axes.is_empty() {
        return Err(SearchError::NoAxes);
    }
    if search.method == SearchMethod::Random && !(1..=MAXIMUM_SETTINGS).contains(&search.settings) {
        let expected = "a random search needs a number of settings from 1 to a million";
        return Err(SearchError::Value { key: "settings", value: search.settings.to_string(), expected });
    }
    if search.method == SearchMethod::Grid && search.settings != 0 {
        let expected = "that is for method = \"random\"; a grid has as many as its axes give";
        return Err(SearchError::Value { key: "settings", value: search.settings.to_string(), expected });
    }
    let (mut names, mut keys) = (HashSet::new(), Vec::<&str>::new());
    for axis in &search.axes {
        let refuse = |detail: String| Err(SearchError::Axis { axis: axis.title().to_owned(), detail });
        if axis.keys.is_empty() {
            return refuse("it has no keys; add keys = [\"train.epochs\"] or the like".to_owned());
        }
        if !names.insert(axis.title()) {
            return refuse("another axis has the same name; give each its own".to_owned());
        }
        if let Some(detail) = axis.keys.iter().find_map(|key| fixed(key)) {
            return refuse(detail);
        }
        for key in &axis.keys {
            if let Some(detail) = keys.iter().find_map(|earlier| undone(earlier, key)) {
                return refuse(detail);
            }
            keys.push(key);
        }
        if let Some(detail) = values_problem(axis, search.method) {
            return refuse(detail);
        }
    }
    Ok(())
}

/// How setting `key` would undo that `earlier` was set, if so: the table would show settings that there never were.
fn undone(earlier: &str, key: &str) -> Option<String> {
    if earlier == key {
        return Some(format!("{key} is searched twice; an axis may set several keys, and a key has one axis"));
    }
    // A key within what an earlier one sets is set last, and undoes nothing else.
    let (mut steps, mut earlier_steps) = (key.split('.'), earlier.split('.'));
    if steps.all(|step| earlier_steps.next().is_some_and(|earlier| earlier == step || step == "*")) {
        return Some(format!(
            "{key} stands behind {earlier}, whose value it would replace; keep one, or put it in front"
        ));
    }
    // A new optimiser begins a new table, which keeps its learning rate alone.
    let is_kept = earlier == "train.optimizer.learning_rate";
    let taken_back = key == "train.optimizer.type" && earlier.starts_with("train.optimizer.") && !is_kept;
    taken_back.then(|| format!("{key} stands behind {earlier}, which it would take back; put it in front"))
}

/// Why `key` cannot be searched, if so.
fn fixed(key: &str) -> Option<String> {
    let below = |table: &str| key == table || key.strip_prefix(table).is_some_and(|rest| rest.starts_with('.'));
    if below("search") && !SEARCHABLE_KEYS.contains(&key) {
        return Some(format!("{key} cannot be searched; of the search table only folds and seed can"));
    }
    let above = |table: &str| table.strip_prefix(key).is_some_and(|rest| rest.starts_with('.'));
    let (_, reason) = FIXED_KEYS.iter().find(|(table, _)| below(table) || above(table))?;
    Some(format!("{key} cannot be searched: {reason}"))
}

fn values_problem(axis: &Axis, method: SearchMethod) -> Option<String> {
    let AxisRange { low, high, log, integer } = axis.range;
    let whole = |number: f64| number.fract() == 0.0 && number.abs() <= 9e15;
    let problem = match (axis.values.is_empty(), axis.range.is_unset()) {
        (true, true) => "it has no values",
        (false, false) => "it has values and a range; keep one of the two",
        (true, false) if method == SearchMethod::Grid => "a grid needs values; a range is for method = \"random\"",
        (true, false) if !(low.is_finite() && high.is_finite() && low < high) => "range.low must be below range.high",
        (true, false) if log && low <= 0.0 => "a logarithmic range needs range.low above 0",
        (true, false) if integer && !(whole(low) && whole(high)) => "an integer range needs whole numbers as its ends",
        _ => {
            let texts: Vec<String> = axis.values.iter().map(|value| format!("{value:?}")).collect();
            let repeated = (1..texts.len()).find(|&index| texts[..index].contains(&texts[index]))?;
            return Some(format!("the value {} stands twice", text(&json(&axis.values[repeated]))));
        }
    };
    Some(problem.to_owned())
}

#[cfg(test)]
mod tests;
