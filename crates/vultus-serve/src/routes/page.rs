//! The page at `/`: files that are part of the program, and a policy that lets them load nothing else.

use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_FRAME_OPTIONS};
use axum::http::{HeaderName, HeaderValue};
use axum::response::IntoResponse;
use axum::routing::get;

use crate::state::App;

/// Scripts, styles and connections come from here alone; pictures also from the page's own memory.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; \
                      media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

const PERMISSIONS: HeaderName = HeaderName::from_static("permissions-policy");

/// Where each file is, its content type, and its content.
const FILES: [(&str, &str, &str); 8] = [
    ("/", "text/html; charset=utf-8", include_str!("../../page/index.html")),
    ("/page.css", "text/css; charset=utf-8", include_str!("../../page/page.css")),
    ("/page.js", "text/javascript; charset=utf-8", include_str!("../../page/page.js")),
    ("/person.js", "text/javascript; charset=utf-8", include_str!("../../page/person.js")),
    ("/server.js", "text/javascript; charset=utf-8", include_str!("../../page/server.js")),
    ("/timeline.js", "text/javascript; charset=utf-8", include_str!("../../page/timeline.js")),
    ("/view.js", "text/javascript; charset=utf-8", include_str!("../../page/view.js")),
    ("/icon.svg", "image/svg+xml", include_str!("../../page/icon.svg")),
];

pub(crate) fn router() -> Router<App> {
    FILES.into_iter().fold(Router::new(), |router, (path, content_type, content)| {
        router.route(path, get(async move || file(content_type, content)))
    })
}

fn file(content_type: &'static str, content: &'static str) -> impl IntoResponse {
    let headers = [
        (CONTENT_TYPE, content_type),
        (CACHE_CONTROL, "no-cache"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (PERMISSIONS, "camera=(self), microphone=(), geolocation=()"),
        (REFERRER_POLICY, "no-referrer"),
        (X_FRAME_OPTIONS, "DENY"),
    ];
    (headers.map(|(name, value)| (name, HeaderValue::from_static(value))), content)
}
