//! `vultus network`.

use comfy_table::CellAlignment;
use serde_json::json;
use vultus::network::ResolvedNetwork;

use super::named_config;
use crate::failure::Failure;
use crate::table;

/// Show the layers of a network with their shapes, parameters and multiply-adds.
#[derive(clap::Args)]
pub struct Network {
    /// S (the course report's network), R (a residual network of 18 layers), or a configuration file.
    #[arg(value_name = "FILE|S|R")]
    network: String,
    /// Number of classes, which the data decide otherwise.
    #[arg(long, value_name = "N", default_value = "7", value_parser = clap::value_parser!(u16).range(2..))]
    classes: u16,
    /// Overrides a key of the configuration, such as preprocessing.width=64.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Network {
    pub fn run(self) -> Result<(), Failure> {
        let config = named_config(&self.network, &self.set)?;
        let (height, width) = (config.preprocessing.height as usize, config.preprocessing.width as usize);
        let network = config.network.resolve(height, width, self.classes.into()).map_err(Failure::usage)?;
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
    table::print(rows)?;
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
