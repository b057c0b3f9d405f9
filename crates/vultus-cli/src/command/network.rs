//! `vultus network`.

use std::path::Path;

use anyhow::anyhow;
use comfy_table::CellAlignment;
use serde_json::json;
use vultus::bundle::{Bundle, BundleError};
use vultus::network::ResolvedNetwork;
use vultus_train::bench::built_in;

use super::{is_model, model_file, named_config};
use crate::failure::Failure;
use crate::table;

/// As many as FER-2013 has.
const CLASSES: u16 = 7;

/// Show the layers of a network with their shapes, parameters and multiply-adds.
#[derive(clap::Args)]
pub struct Network {
    /// S (the course report's network), R (a residual network of 18 layers), a configuration file, or a model: its file or a run.
    #[arg(value_name = "FILE|RUN|S|R")]
    network: String,
    /// Number of classes, 7 if not said; in a training the data decide, and a model has its own.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(2..))]
    classes: Option<u16>,
    /// Overrides a key of the configuration, such as preprocessing.width=64.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Network {
    pub fn run(self) -> Result<(), Failure> {
        let network = self.resolve()?;
        if self.json {
            let object = json!({
                "network": self.network,
                "input": network.input,
                "classes": network.classes,
                "parameters": network.parameter_count(),
                "trainable": network.trainable_count(),
                "multiply_adds": network.multiply_adds(),
                "layers": network.table(),
            });
            table::print_json(&object)?;
        } else {
            print_table(&network)?;
        }
        Ok(())
    }
}

impl Network {
    fn resolve(&self) -> Result<ResolvedNetwork, Failure> {
        let path = Path::new(&self.network);
        if is_model(path) && built_in(&self.network).is_none() {
            if self.classes.is_some() || !self.set.is_empty() {
                return Err(Failure::usage(anyhow!(
                    "--classes and --set are for configurations: {} is a model",
                    self.network
                )));
            }
            let path = model_file(path)?;
            return Bundle::load(&path)?.resolve().map_err(|fault| BundleError::Unusable { path, fault }.into());
        }
        let config = named_config(&self.network, &self.set)?;
        let (height, width) = (config.preprocessing.height as usize, config.preprocessing.width as usize);
        config.network.resolve(height, width, self.classes.unwrap_or(CLASSES).into()).map_err(Failure::usage)
    }
}

fn print_table(network: &ResolvedNetwork) -> std::io::Result<()> {
    let mut rows = table::table(["layer", "type", "", "output", "parameters", "multiply-adds"]);
    for text in 1..=2 {
        rows.column_mut(text).into_iter().for_each(|column| column.set_cell_alignment(CellAlignment::Left));
    }
    let row = |place: &str, kind: &str, details: String, output: String, parameters: usize, multiply_adds: u64| {
        [place.to_owned(), kind.to_owned(), details, output, number(parameters as u64), number(multiply_adds)]
    };
    rows.add_row(row("", "input", String::new(), network.input.to_string(), 0, 0));
    for layer in network.table() {
        let output = layer.output.to_string();
        rows.add_row(row(&layer.place, layer.kind, layer.details, output, layer.parameters, layer.multiply_adds));
    }
    table::print_table(&rows)?;
    table::print(format_args!(
        "\n{} parameters, {} of them trained; {} multiply-adds a picture",
        network.parameter_count(),
        network.trainable_count(),
        network.multiply_adds()
    ))
}

/// Nothing for zero, so that what costs nothing stays quiet.
fn number(value: u64) -> String {
    if value == 0 { String::new() } else { value.to_string() }
}
