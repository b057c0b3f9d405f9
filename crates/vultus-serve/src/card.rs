//! What is known about the model that is served: the facts of its bundle, and the server's settings for it.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use vultus::bundle::{Bundle, BundleFault};

/// Facts about the model and how it is used.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ModelCard {
    /// Its name in requests.
    pub name: String,
    /// The program's version.
    pub version: String,
    /// Names of the classes, in the order of the probabilities.
    pub labels: Vec<String>,
    /// Width of the network's input in pixels.
    pub width: u32,
    /// Height of the network's input in pixels.
    pub height: u32,
    /// Number of trained parameters.
    pub parameters: u64,
    /// Multiply-adds for one view of a face.
    pub multiply_adds: u64,
    /// How many views of a face are averaged.
    pub views: usize,
    /// How faces are found.
    pub faces: String,
    /// A face whose best class is less probable than this gets no label.
    pub abstain_below: f32,
    /// Most bytes of a request.
    pub body_bytes: usize,
    /// Most pixels of a picture.
    pub pixels: u64,
    /// Most pictures in a request.
    pub pictures: usize,
    /// Facts about the training, as the bundle has them.
    #[schema(value_type = Object)]
    pub training: Value,
    /// Results that were measured after the training, as the bundle has them.
    #[schema(required, value_type = Option<Vec<Object>>)]
    pub metrics: Value,
}

impl ModelCard {
    /// The facts of `bundle`; what the server's settings add is filled in by the server.
    ///
    /// # Errors
    /// Parts of the bundle that do not belong together.
    pub fn new(bundle: &Bundle, faces: &str) -> Result<Self, BundleFault> {
        let network = bundle.resolve()?;
        Ok(Self {
            name: String::new(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            labels: bundle.labels.names().to_vec(),
            width: bundle.preprocessing.width,
            height: bundle.preprocessing.height,
            parameters: network.parameter_count() as u64,
            multiply_adds: network.multiply_adds(),
            views: bundle.inference.views.count(),
            faces: faces.to_owned(),
            abstain_below: 0.0,
            body_bytes: 0,
            pixels: 0,
            pictures: 0,
            training: bundle.training.clone(),
            metrics: bundle.metrics.clone(),
        })
    }
}
