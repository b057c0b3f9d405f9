//! A server inside a program of one's own: `cargo run --example embedded -- model.safetensors`.

use std::path::Path;

use vultus::analyze::{AnalyzeOptions, Analyzer};
use vultus::bundle::Bundle;
use vultus::classifier::Classifier;
use vultus::faces::{FaceFinder, FaceMethod, FaceOptions};
use vultus_serve::card::ModelCard;
use vultus_serve::config::ServeConfig;
use vultus_serve::server::Server;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("which model? embedded MODEL")?;
    let bundle = Bundle::load(Path::new(&path))?;
    let card = ModelCard::new(&bundle, "rustface")?;
    let finder = FaceFinder::new(&FaceMethod::Rustface, FaceOptions::default())?;
    let analyzer = Analyzer::new(Classifier::from_bundle(bundle)?, finder, AnalyzeOptions::default());

    let server = Server::bind(ServeConfig::default(), analyzer, card).await?;
    println!("listening on http://{}", server.address());
    // Any future will do: when it is done, the server finishes what it has taken on.
    server.run(std::future::pending()).await;
    Ok(())
}
