//! How the server is, and what it serves.

use axum::Json;
use axum::extract::State;
use axum::response::Response;

use super::{Answer, typed};
use crate::card::ModelCard;
use crate::error::{ApiError, ErrorBody};
use crate::metrics;
use crate::state::App;

/// Whether the process lives.
#[utoipa::path(
    get, path = "/healthz", tag = "status",
    responses((status = 200, description = "It lives", body = String, content_type = "text/plain")),
)]
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether it takes on work.
#[utoipa::path(
    get, path = "/readyz", tag = "status",
    responses(
        (status = 200, description = "It does", body = String, content_type = "text/plain"),
        (status = 503, description = "The server is stopping", body = ErrorBody),
    )
)]
pub(crate) async fn readyz(State(app): State<App>) -> Answer<&'static str> {
    if app.is_stopping() { Err(ApiError::Stopping) } else { Ok("ready\n") }
}

/// Facts about the model and the limits of requests.
#[utoipa::path(
    get, path = "/v1/model", tag = "analyze", operation_id = "model_card",
    responses(
        (status = 200, description = "The model card", body = ModelCard),
        (status = "4XX", description = "It may not be asked", body = ErrorBody),
    ),
    security(("token" = [])),
)]
pub(crate) async fn model(State(app): State<App>) -> Json<ModelCard> {
    Json(app.card.clone())
}

/// Figures for Prometheus.
#[utoipa::path(
    get, path = "/metrics", tag = "status",
    responses(
        (status = 200, description = "The figures", body = String, content_type = "application/openmetrics-text"),
        (status = "4XX", description = "It may not be asked", body = ErrorBody),
    ),
    security(("token" = [])),
)]
pub(crate) async fn metrics(State(app): State<App>) -> Response {
    typed(metrics::CONTENT_TYPE, app.metrics.text())
}
