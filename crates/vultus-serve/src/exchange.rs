//! What happens around every request: its id, the body of its error, headers of its answer, its figures, and the operator's line.

use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use uuid::Uuid;

use crate::config::Answered;
use crate::error::{ApiError, Defect};
use crate::metrics::{RequestLabels, RouteLabels};
use crate::state::{App, Shared};

/// The header with the request's id, in requests and in answers.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest id that is taken over from a client.
const LONGEST_ID: usize = 64;

/// By what a request is found again; every request has it among its extensions.
#[derive(Clone, Debug)]
pub(crate) struct Trace {
    pub request_id: String,
    pub route: String,
}

impl Trace {
    /// Tells the operator if `error` is the server's own failure.
    pub fn report(&self, error: &ApiError, app: &Shared) {
        if let Some(message) = error.defect() {
            let Self { request_id, route } = self.clone();
            app.config.operator.tell(&Defect { request_id, route, message: message.to_owned() });
        }
    }
}

/// Answers a request, with all that belongs to every answer.
pub(crate) async fn exchange(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(&request);
    let route = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned();
    let trace = Trace { request_id: id.to_str().unwrap_or_default().to_owned(), route };
    request.extensions_mut().insert(trace.clone());
    let method = request.method().clone();
    let inference_protocol = is_inference_protocol(request.uri().path());

    let mut response = next.run(request).await;
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        trace.report(&error, &app);
        response = error.render(&trace.request_id, inference_protocol);
    }
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // What is said about faces is for the one who asked.
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));

    // Methods of other names are as many as clients think of.
    let method = if method.is_safe() || method == "POST" { method.to_string() } else { "other".to_owned() };
    let Trace { request_id, route } = trace;
    let status = response.status().as_u16();
    let seconds = started.elapsed().as_secs_f64();
    app.config.operator.answered(&Answered {
        request_id,
        method: method.clone(),
        route: route.clone(),
        status,
        seconds,
    });
    app.metrics.seconds.get_or_create(&RouteLabels { route: route.clone() }).observe(seconds);
    app.metrics.requests.get_or_create(&RequestLabels { route, method, status }).inc();
    response
}

/// Whether errors at `path` have the form of the Open Inference Protocol.
pub(crate) fn is_inference_protocol(path: &str) -> bool {
    path == "/v2" || path.starts_with("/v2/")
}

/// The client's id if it is short and plain, or a new one.
fn request_id(request: &Request) -> HeaderValue {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    request
        .headers()
        .get(&REQUEST_ID)
        .filter(|id| (1..=LONGEST_ID).contains(&id.len()) && id.as_bytes().iter().copied().all(plain))
        .cloned()
        .unwrap_or_else(|| {
            let id = Uuid::new_v4().simple().to_string();
            HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("none"))
        })
}
