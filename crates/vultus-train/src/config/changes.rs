//! What differs between two configurations.
//!
//! In: two configurations. Out: the keys of what the second has other than the first, with its values.

use toml::Value;

use super::TrainConfig;
use super::keys::short;

impl TrainConfig {
    /// Keys whose values in `other` are not those here, with the values there in TOML.
    pub fn changes_to(&self, other: &Self) -> Vec<(String, String)> {
        let mut changes = Vec::new();
        differences("", &Value::Table(self.to_table()), &Value::Table(other.to_table()), &mut changes);
        changes
    }
}

/// Keys below `key` whose values in `b` are not those in `a`, with the value in `b`. Where all layers of a list that have a
/// key change alike, it is one change, of `*`; of lists with different numbers of layers, only the number is told.
fn differences(key: &str, a: &Value, b: &Value, changes: &mut Vec<(String, String)>) {
    match (a, b) {
        (Value::Table(a), Value::Table(b)) => {
            for (step, value) in b {
                match a.get(step) {
                    Some(other) => differences(&below(key, step), other, value, changes),
                    None => changes.push((below(key, step), short(value).to_string())),
                }
            }
            // Another kind has other keys: its name says so.
            let same_kind = a.get("type") == b.get("type");
            let gone = a.keys().filter(|step| same_kind && !b.contains_key(*step));
            changes.extend(gone.map(|step| (below(key, step), "not set".into())));
        }
        (Value::Array(a), Value::Array(b)) if b.iter().any(Value::is_table) => {
            if a.len() == b.len() {
                differences_of_lists(key, a, b, changes);
            } else {
                changes.push((key.to_owned(), format!("{} of them", b.len())));
            }
        }
        (a, b) if a != b => changes.push((key.to_owned(), short(b).to_string())),
        _ => {}
    }
}

fn differences_of_lists(key: &str, a: &[Value], b: &[Value], changes: &mut Vec<(String, String)>) {
    let inside: Vec<Vec<(String, String)>> = a
        .iter()
        .zip(b)
        .map(|(a, b)| {
            let mut changes = Vec::new();
            differences("", a, b, &mut changes);
            changes
        })
        .collect();
    for (index, list) in inside.iter().enumerate() {
        for change @ (step, value) in list {
            let alike = inside.iter().filter(|list| list.contains(change)).count();
            let every = alike > 1 && alike == b.iter().filter(|element| has(element, step)).count();
            let place = if every { "*".to_owned() } else { index.to_string() };
            let change = (below(&below(key, &place), step), value.clone());
            if !changes.contains(&change) {
                changes.push(change);
            }
        }
    }
}

fn below(key: &str, step: &str) -> String {
    if key.is_empty() { step.to_owned() } else { format!("{key}.{step}") }
}

/// Whether there is something at `key`.
fn has(value: &Value, key: &str) -> bool {
    let (step, rest) = key.split_once('.').unwrap_or((key, ""));
    let next = |value: &Value| rest.is_empty() || has(value, rest);
    match value {
        Value::Table(table) => table.get(step).is_some_and(next),
        Value::Array(list) if step == "*" => list.iter().any(next),
        Value::Array(list) => step.parse::<usize>().ok().and_then(|index| list.get(index)).is_some_and(next),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(overrides: &[&str]) -> Vec<(String, String)> {
        let first = TrainConfig::default();
        let overrides: Vec<String> = overrides.iter().map(|&text| text.to_owned()).collect();
        let other = first.with_overrides(&overrides).unwrap();
        first.changes_to(&other)
    }

    #[test]
    fn changes_are_those_that_were_set() {
        assert_eq!(changed(&[]), []);
        let one = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(changed(&["train.epochs=3"]), [one("train.epochs", "3")]);
        let standard = "{ standard = { mean = 0.508, std_dev = 0.255 } }";
        assert_eq!(changed(&[&format!("preprocessing.pixels={standard}")]), [one("preprocessing.pixels", standard)]);
        assert_eq!(changed(&["network.layers.*.rate=0.5"]), [one("network.layers.*.rate", "0.5")]);
        // The others of its kind stay.
        assert_eq!(changed(&["network.layers.3.rate=0.5"]), [one("network.layers.3.rate", "0.5")]);
        let both = ["network.layers.0.filters=8", "network.layers.4.filters=16"];
        assert_eq!(changed(&both), [one("network.layers.0.filters", "8"), one("network.layers.4.filters", "16")]);
        assert_eq!(changed(&["data.sources=[\"a\"]"]), [one("data.sources", "[\"a\"]")]);
        let optimizer = changed(&["train.optimizer.type=sgd"]);
        assert!(optimizer.contains(&one("train.optimizer.type", "\"sgd\"")), "{optimizer:?}");
        assert!(!optimizer.iter().any(|(key, _)| key.ends_with("beta1")), "{optimizer:?}");
    }
}
