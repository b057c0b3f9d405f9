//! All routes, and the description of those that programs use.

#[expect(unused_qualifications, reason = "in what a macro makes of the parameters")]
mod analyze;
mod deepface;
#[expect(unused_qualifications, reason = "in what a macro makes of the parameters")]
mod inference;
mod page;
mod status;
mod stream;
mod tensor;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router, middleware};
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::CorsLayer;
use utoipa::ToSchema;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Content, OpenApi, Ref, ResponseBuilder};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::error::{ApiError, ErrorBody, InferenceErrorBody};
use crate::exchange::{REQUEST_ID, exchange, is_inference_protocol};
use crate::state::App;
use crate::{host, token};

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Vultus",
        description = "Faces in pictures, and the expressions that a classifier sees in them. Errors are \
                       `{error: {code, message, request_id}}`; those of the paths below /v2 are \
                       `{error: message, code, request_id}`, as the Open Inference Protocol wants it.",
        license(name = "MIT OR Apache-2.0")
    ),
    modifiers(&Bearer)
)]
struct Description;

struct Bearer;

impl utoipa::Modify for Bearer {
    fn modify(&self, description: &mut OpenApi) {
        let components = description.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    }
}

/// All routes with what surrounds them, and their description.
pub(crate) fn router(app: App) -> Router {
    let (open, protected) = routers();
    let (protected, description) = protected.split_for_parts();
    let (open, mut all) = open.split_for_parts();
    all.merge(description);
    describe_failures(&mut all);
    let protected = protected.route_layer(middleware::from_fn_with_state(app.clone(), token::require));
    let named = protected
        .route("/openapi.json", get(async move || Json(all)))
        .merge(page::router())
        .route_layer(middleware::from_fn_with_state(app.clone(), host::require));
    let routes = open
        // As the protocol's own description has it.
        .route("/v2/", get(inference::server))
        .merge(named)
        .fallback(async || ApiError::NotFound)
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed);
    surrounded(routes, app)
}

/// Adds to each route's answers that of a server that failed, which may happen anywhere.
fn describe_failures(description: &mut OpenApi) {
    for (path, item) in &mut description.paths.paths {
        let body = if is_inference_protocol(path) { InferenceErrorBody::name() } else { ErrorBody::name() };
        let failure = ResponseBuilder::new()
            .description("The server failed; its operator may find more under the request's id")
            .content("application/json", Content::new(Some(Ref::from_schema_name(body))))
            .build();
        for operation in [&mut item.get, &mut item.post].into_iter().flatten() {
            operation.responses.responses.insert("500".to_owned(), failure.clone().into());
        }
    }
}

/// `router` with what is around every request.
fn surrounded(router: Router<App>, app: App) -> Router {
    let around = ServiceBuilder::new()
        .option_layer(cors(&app.config.cors_origins))
        .layer(middleware::from_fn_with_state(app.clone(), exchange))
        .layer(CatchPanicLayer::custom(panicked));
    router.layer(around).with_state(app)
}

/// The answer of a handler that panicked.
fn panicked(payload: Box<dyn Any + Send>) -> Response {
    ApiError::panicked(&*payload).into_response()
}

/// What anyone may ask, and what needs the token if there is one.
fn routers() -> (OpenApiRouter<App>, OpenApiRouter<App>) {
    let open = OpenApiRouter::with_openapi(<Description as utoipa::OpenApi>::openapi())
        .routes(routes!(status::healthz))
        .routes(routes!(status::readyz))
        .routes(routes!(inference::server))
        .routes(routes!(inference::live))
        .routes(routes!(inference::ready));
    let protected = OpenApiRouter::default()
        .routes(routes!(analyze::analyze))
        .routes(routes!(stream::stream))
        .routes(routes!(status::model))
        .routes(routes!(status::metrics))
        .routes(routes!(deepface::analyze))
        .routes(routes!(inference::model))
        .routes(routes!(inference::model_ready))
        .routes(routes!(inference::infer))
        .routes(routes!(inference::version))
        .routes(routes!(inference::version_ready))
        .routes(routes!(inference::version_infer));
    (open, protected)
}

/// Lets pages of `origins` use the server; without any, browsers let only its own page.
fn cors(origins: &[HeaderValue]) -> Option<CorsLayer> {
    const RETRY_AFTER: HeaderName = header::RETRY_AFTER;
    /// How long a browser need not ask again.
    const PREFLIGHT: Duration = Duration::from_secs(3600);
    (!origins.is_empty()).then(|| {
        CorsLayer::new()
            .allow_origin(origins.to_vec())
            .allow_methods([Method::GET, Method::POST])
            .allow_headers([header::AUTHORIZATION, header::CONTENT_TYPE, REQUEST_ID])
            .expose_headers([REQUEST_ID, RETRY_AFTER])
            .max_age(PREFLIGHT)
    })
}

/// What a handler gives: an answer or an error.
type Answer<T> = Result<T, ApiError>;

/// A response of one content type that is no JSON.
fn typed(content_type: &'static str, body: impl Into<axum::body::Body>) -> Response {
    ([(header::CONTENT_TYPE, content_type)], body.into()).into_response()
}
