//! What is wrong with a configuration, in the words of whoever wrote it.
//!
//! In: what the parser says, or a text that it refuses. Out: the same without names of this program's types, and with the
//! key of a layer, where the parser only knows the list.

use serde::Deserialize;
use toml::{Table, Value};
use vultus::network::LayerConfig;

/// The key that says what a layer is: without it all of a layer is wrong.
const TYPE: &str = "type";

/// A parser's message without names of types.
pub(super) fn in_words(message: &str) -> String {
    let Some((found, expected)) = message.rsplit_once("expected ") else { return message.to_owned() };
    let words = match expected {
        "usize" | "u64" | "u32" | "u8" => "a whole number, 0 or more",
        "f64" | "f32" => "a number",
        "a sequence" => "a list",
        kind if kind.starts_with("struct ") => "a table of keys",
        kind if kind.starts_with("internally tagged enum ") => "a table with a type",
        other => other,
    };
    format!("{found}expected {words}")
}

/// The first layer that `text` describes wrongly, with its key and what is wrong: the parser reads a layer by its type
/// and has lost its place by then.
pub(super) fn wrong_layer(text: &str) -> Option<String> {
    let table: Table = text.parse().ok()?;
    wrong_among(table.get("network")?.get("layers")?, "network.layers")
}

fn wrong_among(layers: &Value, key: &str) -> Option<String> {
    layers.as_array()?.iter().enumerate().find_map(|(index, layer)| {
        let key = format!("{key}.{index}");
        let mut inner = ["layers", "shortcut"].into_iter();
        let inner = inner.find_map(|list| wrong_among(layer.get(list)?, &format!("{key}.{list}")));
        inner.or_else(|| wrong(layer.as_table()?, &key))
    })
}

fn wrong(layer: &Table, key: &str) -> Option<String> {
    let refusal = |layer: &Table| {
        let error = LayerConfig::deserialize(Value::Table(layer.clone())).err()?;
        Some(in_words(error.message()))
    };
    let message = refusal(layer)?;
    // Without the key at fault something else is wrong, or nothing.
    let at_fault = |name: &&str| {
        let mut layer = layer.clone();
        layer.remove(*name).is_some() && refusal(&layer).as_ref() != Some(&message)
    };
    let settings = layer.keys().map(String::as_str).filter(|name| *name != TYPE);
    // A key that is missing is named by the message.
    let fault = settings.chain([TYPE]).filter(|_| !message.starts_with("missing field")).find(at_fault);
    let place = fault.map_or_else(|| key.to_owned(), |name| format!("{key}.{name}"));
    let kind = layer.get(TYPE).and_then(Value::as_str).map(|kind| format!(" ({kind})")).unwrap_or_default();
    Some(format!("{place}{kind}: {message}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layer_and_its_key_are_named() {
        let wrong = |layer: &str| {
            let good = "[[network.layers]]\ntype = \"flatten\"\n";
            wrong_layer(&format!("{good}{layer}")).unwrap_or_default()
        };
        assert_eq!(wrong("[[network.layers]]\ntype = \"dense\"\nunits = 3\n"), "");
        let message = wrong("[[network.layers]]\ntype = \"dropout\"\nrat = 0.5\n");
        assert!(message.starts_with("network.layers.1.rat (dropout): unknown field `rat`"), "{message}");
        let message = wrong("[[network.layers]]\ntype = \"conv\"\nfilters = 3\nkernel = \"3\"\n");
        assert_eq!(
            message,
            "network.layers.1.kernel (conv): invalid type: string \"3\", expected a whole number, 0 or more"
        );
        let message = wrong("[[network.layers]]\ntype = \"conv\"\nfilters = 3\n");
        assert_eq!(message, "network.layers.1 (conv): missing field `kernel`");
        let message = wrong("[[network.layers]]\ntype = \"convolution\"\n");
        assert!(message.starts_with("network.layers.1.type (convolution): unknown variant"), "{message}");
        let inner =
            "[[network.layers]]\ntype = \"residual\"\n[[network.layers.layers]]\ntype = \"max_pool\"\nsize = true\n";
        assert!(wrong(inner).starts_with("network.layers.1.layers.0.size (max_pool): "), "{}", wrong(inner));
    }

    #[test]
    fn no_type_of_the_program_is_named() {
        assert_eq!(
            in_words("invalid type: string \"a\", expected f64"),
            "invalid type: string \"a\", expected a number"
        );
        assert_eq!(in_words("expected struct DataConfig"), "expected a table of keys");
        assert_eq!(in_words("unknown field `x`"), "unknown field `x`");
    }
}
