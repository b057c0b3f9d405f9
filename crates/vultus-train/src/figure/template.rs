//! Templates: from a serialisable value to text, with everything escaped for HTML and SVG.
//!
//! In: a template compiled into the program, and its data. Out: text. A variable that is not in the data is an error.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde::Serialize;

/// Renders `source` with `data`; `name` is for the message.
///
/// # Errors
/// The engine's message, with the template's line.
pub(crate) fn render(name: &str, source: &str, data: &impl Serialize) -> Result<String, String> {
    let message = |error: minijinja::Error| format!("{error:#}");
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(message)?);
    environment.render_named_str(name, source, Serde(data)).map_err(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Data {
        label: &'static str,
    }

    #[test]
    fn data_is_escaped_whatever_the_name() {
        let text = render("figure.svg", "<b>{{ label }}</b>", &Data { label: "<script>\"" }).unwrap();
        assert_eq!(text, "<b>&lt;script&gt;&quot;</b>");
    }

    #[test]
    fn a_missing_variable_is_an_error() {
        assert!(render("figure.svg", "{{ lable }}", &Data { label: "" }).is_err());
    }
}
