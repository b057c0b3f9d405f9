//! A resolved network as the rows of a table.
//!
//! In: a [`ResolvedNetwork`]. Out: one row a layer, in the order of the description, with its place, shape and cost.

use serde::Serialize;

use super::{FeatureShape, ParameterSpec, ResolvedLayer, ResolvedNetwork};

/// One layer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerRow {
    /// Its place in the list, such as `3`, or `3.layers.0` inside a residual layer.
    pub place: String,
    /// Its `type`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The particulars in a few words.
    pub details: String,
    /// Shape of one sample coming out.
    pub output: FeatureShape,
    /// Number of its own stored values, not those of its branches.
    pub parameters: usize,
    /// Its own multiply-adds for one sample; those of a residual layer stand with the layers in it.
    pub multiply_adds: u64,
}

impl ResolvedNetwork {
    /// One row a layer: a residual layer, the layers of its branch, those of its shortcut. Parameters and multiply-adds
    /// add up to those of the network. The last row is the head.
    pub fn table(&self) -> Vec<LayerRow> {
        let mut rows = Vec::new();
        add_rows("", &self.layers, &mut rows);
        rows
    }
}

fn add_rows(prefix: &str, layers: &[ResolvedLayer], rows: &mut Vec<LayerRow>) {
    for (index, layer) in layers.iter().enumerate() {
        let place = format!("{prefix}{index}");
        let inside =
            layer.body.iter().chain(&layer.shortcut).fold(0, |sum, layer| layer.multiply_adds.saturating_add(sum));
        rows.push(LayerRow {
            place: place.clone(),
            kind: layer.kind(),
            details: layer.details(),
            output: layer.output,
            parameters: layer.parameters.iter().map(ParameterSpec::len).sum(),
            multiply_adds: layer.multiply_adds.saturating_sub(inside),
        });
        add_rows(&format!("{place}.layers."), &layer.body, rows);
        add_rows(&format!("{place}.shortcut."), &layer.shortcut, rows);
    }
}
