//! Keys and values of a configuration as text: `network.layers.*.rate=0.1`.
//!
//! In: a key and a value as they are typed, and a tree of values. Out: the tree with the value at the key, or the part of
//! the key that leads nowhere. What the values may be is checked by who reads the tree.

use serde::Serialize;
use toml::{Table, Value};

/// TOML if it is that, else the text itself: `train.keep=last` needs no quotes.
pub(super) fn parse_value(text: &str) -> Value {
    toml::from_str::<Table>(&format!("value = {text}"))
        .ok()
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| Value::String(text.to_owned()))
}

/// A part of a key that leads nowhere.
pub(super) struct MissingKey {
    /// The part.
    pub(super) key: String,
    /// What there is instead.
    pub(super) hint: String,
}

/// Puts `value` at `steps` below `tree`. An integer becomes a float where a float stood.
pub(super) fn assign(tree: &mut Value, steps: &[&str], value: &Value) -> Result<(), MissingKey> {
    let Some((step, rest)) = steps.split_first() else {
        *tree = match (&*tree, value) {
            (Value::Float(_), Value::Integer(integer)) => Value::Float(*integer as f64),
            _ => value.clone(),
        };
        return Ok(());
    };
    let missing = |hint: String| MissingKey { key: (*step).to_owned(), hint };
    match tree {
        // Another optimiser has other keys: its table starts afresh with the new type.
        Value::Table(table)
            if *step == "type"
                && rest.is_empty()
                && table.contains_key("learning_rate")
                && table.get("type") != Some(value) =>
        {
            let rate = table.get("learning_rate").cloned();
            table.clear();
            table.insert("type".to_owned(), value.clone());
            table.extend(rate.map(|rate| ("learning_rate".to_owned(), rate)));
            Ok(())
        }
        Value::Table(table) => {
            let hint = format!("; there are: {}", table.keys().cloned().collect::<Vec<_>>().join(", "));
            let next = table.get_mut(*step).ok_or_else(|| missing(hint))?;
            assign(next, rest, value)
        }
        Value::Array(list) if *step == "*" => {
            let mut found = false;
            let mut last = None;
            for element in list.iter_mut() {
                match assign(element, rest, value) {
                    Ok(()) => found = true,
                    Err(error) => last = Some(error),
                }
            }
            match last {
                _ if found => Ok(()),
                Some(error) => Err(MissingKey { hint: "; no element of the list has it".to_owned(), ..error }),
                None => Err(missing("; the list is empty".to_owned())),
            }
        }
        Value::Array(list) => {
            let hint = format!("; the list has {} elements, counted from 0", list.len());
            let next = step.parse::<usize>().ok().and_then(|index| list.get_mut(index));
            assign(next.ok_or_else(|| missing(hint))?, rest, value)
        }
        _ => Err(missing("; the key before it holds a value, not a table".to_owned())),
    }
}

/// The keys below `table` whose last part is `name`, from their first part on.
pub(super) fn keys_called(table: &Table, name: &str) -> Vec<String> {
    let mut keys = Vec::new();
    for (key, value) in table {
        if key == name {
            keys.push(key.clone());
        } else if let Value::Table(table) = value {
            keys.extend(keys_called(table, name).iter().map(|below| format!("{key}.{below}")));
        }
    }
    keys
}

/// A setting as it stands in a configuration.
pub(crate) fn in_toml(setting: &impl Serialize) -> String {
    Value::try_from(setting).map_or_else(|error| error.to_string(), |value| short(&value).to_string())
}

/// The value with numbers in single precision in as few digits as they need.
pub(crate) fn short(value: &Value) -> Value {
    match value {
        Value::Float(number) if f64::from(*number as f32) == *number => {
            Value::Float((*number as f32).to_string().parse().unwrap_or(*number))
        }
        Value::Array(values) => Value::Array(values.iter().map(short).collect()),
        Value::Table(table) => Value::Table(table.iter().map(|(key, value)| (key.clone(), short(value))).collect()),
        _ => value.clone(),
    }
}
