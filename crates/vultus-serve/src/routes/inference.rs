//! The Open Inference Protocol, version 2: the classifier alone, with faces as tensors.
//!
//! Rows are grey faces of the network's size, values are grey levels; the model's own scaling is done here.

use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use image::GrayImage;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use vultus::wording::counted;

use super::Answer;
use super::tensor::{Element, Few, RequestTensor, ResponseTensor, TensorDescription};
use crate::error::{ApiError, InferenceErrorBody};
use crate::picture::{json, read};
use crate::state::{App, Shared};

const INPUT: &str = "input";
const PROBABILITIES: &str = "probabilities";
const LABEL: &str = "label";
const PLATFORM: &str = "vultus_safetensors";

/// Most entries of `outputs`: there are two, and each may be asked for more than once.
const OUTPUTS: usize = 16;

/// The header by which a request says that bytes follow its JSON, an extension of the protocol.
const BINARY_TENSORS: &str = "inference-header-content-length";

/// The only version of the only model.
const VERSION: &str = "1";

/// What the server is.
#[derive(Serialize, ToSchema)]
pub(crate) struct ServerMetadata {
    /// `vultus`.
    name: &'static str,
    /// The program's version.
    version: &'static str,
    /// None.
    extensions: Vec<String>,
}

/// Whether the server lives.
#[derive(Serialize, ToSchema)]
pub(crate) struct Live {
    /// True.
    live: bool,
}

/// Whether the server answers.
#[derive(Serialize, ToSchema)]
pub(crate) struct Ready {
    /// True, until the server stops.
    ready: bool,
}

/// Whether a model answers.
#[derive(Serialize, ToSchema)]
pub(crate) struct ModelReady {
    /// Its name.
    name: String,
    /// True, until the server stops.
    ready: bool,
}

/// What a model is.
#[derive(Serialize, ToSchema)]
pub(crate) struct ModelMetadata {
    /// Its name.
    name: String,
    /// `1`: a server has one.
    versions: [&'static str; 1],
    /// How it is stored.
    platform: &'static str,
    /// What it reads.
    inputs: Vec<TensorDescription>,
    /// What it says.
    outputs: Vec<TensorDescription>,
}

/// A question to the model.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct InferRequest<'a> {
    /// Comes back in the answer.
    #[serde(default)]
    id: Option<String>,
    /// One tensor: `input`.
    #[serde(borrow)]
    #[schema(value_type = Vec<RequestTensor>)]
    inputs: Few<RequestTensor<'a>, 1>,
    /// Which outputs are wanted, and in which order, in no more than 16 entries; all by default.
    #[serde(default)]
    #[schema(value_type = Option<Vec<RequestedOutput>>)]
    outputs: Option<Few<RequestedOutput, OUTPUTS>>,
}

/// An output that is wanted.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct RequestedOutput {
    /// `probabilities`, or `label`, which is empty where the model is too unsure.
    name: String,
}

/// A question that can be answered.
struct Question {
    id: Option<String>,
    wanted: Vec<&'static str>,
    faces: Vec<GrayImage>,
}

/// The model's answer.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct InferAnswer {
    /// The model's name.
    model_name: String,
    /// Its version: `1`.
    model_version: &'static str,
    /// The question's.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    /// The outputs that are wanted, in the question's order.
    outputs: Vec<ResponseTensor>,
}

/// What the server is.
#[utoipa::path(
    get, path = "/v2", tag = "inference",
    responses((status = 200, description = "Its name and version", body = ServerMetadata)),
)]
pub(crate) async fn server() -> Json<ServerMetadata> {
    Json(ServerMetadata { name: "vultus", version: env!("CARGO_PKG_VERSION"), extensions: Vec::new() })
}

/// Whether the server lives.
#[utoipa::path(
    get, path = "/v2/health/live", tag = "inference",
    responses((status = 200, description = "It lives", body = Live)),
)]
pub(crate) async fn live() -> Json<Live> {
    Json(Live { live: true })
}

/// Whether the server answers questions.
#[utoipa::path(
    get, path = "/v2/health/ready", tag = "inference",
    responses(
        (status = 200, description = "It does", body = Ready),
        (status = 503, description = "The server is stopping", body = Ready),
    ),
)]
pub(crate) async fn ready(State(app): State<App>) -> (StatusCode, Json<Ready>) {
    let ready = !app.is_stopping();
    (status_of(ready), Json(Ready { ready }))
}

/// What the model reads and says.
#[utoipa::path(
    get, path = "/v2/models/{model}", tag = "inference", operation_id = "model_metadata",
    params(("model" = String, Path, description = "The model's name")),
    responses(
        (status = 200, description = "Its tensors", body = ModelMetadata),
        (status = "4XX", description = "It may not be asked, or there is none of this name", body = InferenceErrorBody),
    ),
    security(("token" = [])),
)]
pub(crate) async fn model(State(app): State<App>, InPath(name): InPath<String>) -> Answer<Json<ModelMetadata>> {
    known(&app, &name)?;
    let card = &app.card;
    let (height, width) = (i64::from(card.height), i64::from(card.width));
    let classes = i64::try_from(card.labels.len()).unwrap_or(-1);
    Ok(Json(ModelMetadata {
        name,
        versions: [VERSION],
        platform: PLATFORM,
        inputs: vec![TensorDescription { name: INPUT, datatype: "UINT8", shape: vec![-1, height, width, 1] }],
        outputs: vec![
            TensorDescription { name: PROBABILITIES, datatype: "FP32", shape: vec![-1, classes] },
            TensorDescription { name: LABEL, datatype: "BYTES", shape: vec![-1] },
        ],
    }))
}

/// Whether the model answers questions.
#[utoipa::path(
    get, path = "/v2/models/{model}/ready", tag = "inference",
    params(("model" = String, Path, description = "The model's name")),
    responses(
        (status = 200, description = "It does", body = ModelReady),
        (status = "4XX", description = "It may not be asked, or there is none of this name", body = InferenceErrorBody),
        (status = 503, description = "The server is stopping", body = ModelReady),
    ),
    security(("token" = [])),
)]
pub(crate) async fn model_ready(
    State(app): State<App>,
    InPath(name): InPath<String>,
) -> Answer<(StatusCode, Json<ModelReady>)> {
    known(&app, &name)?;
    let ready = !app.is_stopping();
    Ok((status_of(ready), Json(ModelReady { name, ready })))
}

/// Classifies grey faces of the network's size.
#[utoipa::path(
    post, path = "/v2/models/{model}/infer", tag = "inference",
    params(("model" = String, Path, description = "The model's name")),
    request_body = InferRequest,
    responses(
        (status = 200, description = "The outputs", body = InferAnswer),
        (status = "4XX", description = "The request cannot be used", body = InferenceErrorBody),
        (status = 503, description = "Too much to do; see the header retry-after", body = InferenceErrorBody),
    ),
    security(("token" = [])),
)]
pub(crate) async fn infer(
    State(app): State<App>,
    InPath(name): InPath<String>,
    request: Request,
) -> Answer<Json<InferAnswer>> {
    known(&app, &name)?;
    let (head, body) = request.into_parts();
    if head.headers.contains_key(BINARY_TENSORS) {
        return Err(ApiError::Malformed(
            "binary tensors are not read: send the numbers as `data` in the JSON (tritonclient: binary_data=False)"
                .to_owned(),
        ));
    }
    let body = app.bodies.collect(&head.headers, body).await?;
    let shared = Arc::clone(&app);
    let Question { id, wanted, faces } = read(body, move |body| Question::read(body, &shared)).await?;
    let rows = app.pipeline.classify(faces).await?.faces;
    let outputs = wanted.into_iter().map(|output| match output {
        PROBABILITIES => ResponseTensor {
            name: PROBABILITIES,
            datatype: "FP32",
            shape: vec![rows.len(), app.card.labels.len()],
            data: rows.iter().flat_map(|row| &row.probabilities).map(|(_, value)| Element::Number(*value)).collect(),
        },
        _ => ResponseTensor {
            name: LABEL,
            datatype: "BYTES",
            shape: vec![rows.len()],
            data: rows.iter().map(|row| Element::Text(row.label.clone().unwrap_or_default())).collect(),
        },
    });
    Ok(Json(InferAnswer { model_name: name, model_version: VERSION, outputs: outputs.collect(), id }))
}

/// What a version of the model reads and says.
#[utoipa::path(
    get, path = "/v2/models/{model}/versions/{version}", tag = "inference", params(VersionPath),
    responses(
        (status = 200, description = "Its tensors", body = ModelMetadata),
        (status = "4XX", description = "It may not be asked, or there is none of this name", body = InferenceErrorBody),
    ),
    security(("token" = [])),
)]
pub(crate) async fn version(state: State<App>, InPath(path): InPath<VersionPath>) -> Answer<Json<ModelMetadata>> {
    model(state.clone(), path.model(&state)?).await
}

/// Whether a version of the model answers questions.
#[utoipa::path(
    get, path = "/v2/models/{model}/versions/{version}/ready", tag = "inference", params(VersionPath),
    responses(
        (status = 200, description = "It does", body = ModelReady),
        (status = "4XX", description = "It may not be asked, or there is none of this name", body = InferenceErrorBody),
        (status = 503, description = "The server is stopping", body = ModelReady),
    ),
    security(("token" = [])),
)]
pub(crate) async fn version_ready(
    state: State<App>,
    InPath(path): InPath<VersionPath>,
) -> Answer<(StatusCode, Json<ModelReady>)> {
    model_ready(state.clone(), path.model(&state)?).await
}

/// Classifies grey faces with a version of the model.
#[utoipa::path(
    post, path = "/v2/models/{model}/versions/{version}/infer", tag = "inference", params(VersionPath),
    request_body = InferRequest,
    responses(
        (status = 200, description = "The outputs", body = InferAnswer),
        (status = "4XX", description = "The request cannot be used", body = InferenceErrorBody),
        (status = 503, description = "Too much to do; see the header retry-after", body = InferenceErrorBody),
    ),
    security(("token" = [])),
)]
pub(crate) async fn version_infer(
    state: State<App>,
    InPath(path): InPath<VersionPath>,
    request: Request,
) -> Answer<Json<InferAnswer>> {
    infer(state.clone(), path.model(&state)?, request).await
}

impl Question {
    fn read(body: &[u8], app: &Shared) -> Answer<Self> {
        let asked: InferRequest = json(body)?;
        let wanted = wanted(&asked)?;
        let [input] = asked.inputs.0.as_slice() else {
            return Err(ApiError::Malformed(format!("inputs must be one tensor, named `{INPUT}`")));
        };
        Ok(Self { faces: faces(input, app)?, wanted, id: asked.id })
    }
}

/// What the path says, with a refusal in our form where it is no text.
pub(crate) struct InPath<T>(T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for InPath<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(said) =
            Path::from_request_parts(parts, state).await.map_err(|error| ApiError::Malformed(error.body_text()))?;
        Ok(Self(said))
    }
}

/// A version of a model.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct VersionPath {
    /// The model's name.
    model: String,
    /// `1`.
    version: String,
}

impl VersionPath {
    /// The model, if the version is the one that there is.
    fn model(self, app: &Shared) -> Answer<InPath<String>> {
        if self.version == VERSION { Ok(InPath(self.model)) } else { Err(unknown(app)) }
    }
}

fn status_of(ready: bool) -> StatusCode {
    if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

fn known(app: &Shared, name: &str) -> Answer<()> {
    if name == app.card.name { Ok(()) } else { Err(unknown(app)) }
}

fn unknown(app: &Shared) -> ApiError {
    ApiError::UnknownModel { served: format!("{:?}, version {VERSION}", app.card.name) }
}

/// The names of the outputs that are wanted, each once, in the order in which they are asked for.
fn wanted(asked: &InferRequest) -> Answer<Vec<&'static str>> {
    const ALL: [&str; 2] = [PROBABILITIES, LABEL];
    let mut names = Vec::new();
    for output in asked.outputs.iter().flat_map(|outputs| &outputs.0) {
        let name = ALL.into_iter().find(|name| *name == output.name);
        let name =
            name.ok_or_else(|| ApiError::Malformed(format!("the outputs are `{PROBABILITIES}` and `{LABEL}`")))?;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(if names.is_empty() { ALL.to_vec() } else { names })
}

/// A tensor's rows as pictures.
fn faces(input: &RequestTensor, app: &Shared) -> Answer<Vec<GrayImage>> {
    let card = &app.card;
    let malformed = |message: String| Err(ApiError::Malformed(message));
    if input.name != INPUT {
        return malformed(format!("the input is named `{INPUT}`"));
    }
    let (height, width) = (card.height as usize, card.width as usize);
    let rows = match input.shape.0.as_slice() {
        [rows, h, w, 1] | [rows, h, w] if (*h, *w) == (height, width) => *rows,
        _ => return malformed(format!("the shape must be [rows, {height}, {width}, 1]")),
    };
    if rows == 0 {
        return malformed("the input has no rows".to_owned());
    }
    let limit = app.config.limits.pictures;
    if rows > limit {
        return Err(ApiError::TooManyPictures { limit });
    }
    let numbers = input.numbers(limit, height * width)?;
    if numbers.len() != rows * height * width {
        let (rows, values) = (counted(rows, "row"), counted(rows * height * width, "value"));
        return malformed(format!("{rows} must have {values}, not {}", numbers.len()));
    }
    if !numbers.iter().all(|level| (0.0..=255.0).contains(level)) {
        return malformed("values must be grey levels from 0 to 255, whatever the datatype".to_owned());
    }
    match input.datatype.as_str() {
        // What other programs take for grey: whole pictures would be black here.
        "FP32" if numbers.iter().all(|&level| level <= 1.0) && numbers.iter().any(|level| level.fract() != 0.0) => {
            let message = "values must be grey levels from 0 to 255, and these are from 0 to 1: multiply them by 255";
            return malformed(message.to_owned());
        }
        "FP32" => {}
        "UINT8" if numbers.iter().all(|level| level.fract() == 0.0) => {}
        "UINT8" => return malformed("values of UINT8 must be whole".to_owned()),
        _ => return malformed("the datatype must be UINT8 or FP32".to_owned()),
    }
    let picture = |row: &[f32]| {
        // In 0..=255, as checked above.
        let levels = row.iter().map(|level| level.round() as u8).collect();
        let face = GrayImage::from_raw(card.width, card.height, levels);
        face.ok_or_else(|| ApiError::internal("a row is no picture"))
    };
    numbers.chunks_exact(height * width).map(picture).collect()
}
