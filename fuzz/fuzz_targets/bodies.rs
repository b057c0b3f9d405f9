//! Any bytes as the body of any request: an answer comes, and it is never that the server failed.
#![no_main]

use std::net::SocketAddr;
use std::sync::OnceLock;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use libfuzzer_sys::fuzz_target;
use tokio::runtime::Runtime;
use tower::ServiceExt;
use vultus::analyze::{AnalyzeOptions, Analyzer};
use vultus::classifier::Classifier;
use vultus::decode::DecodeLimits;
use vultus::faces::{FaceFinder, FaceMethod, FaceOptions};
use vultus_serve::card::ModelCard;
use vultus_serve::config::ServeConfig;
use vultus_serve::server::Server;

#[path = "../../crates/vultus-serve/tests/service/model.rs"]
mod model;

/// Where the body goes, and as what.
const ROUTES: [(&str, &str); 8] = [
    ("/v1/analyze", "application/octet-stream"),
    ("/v1/analyze", "application/json"),
    ("/v1/analyze", "multipart/form-data; boundary=b"),
    ("/v1/analyze?faces=whole", "image/png"),
    ("/analyze", "application/json"),
    ("/analyze", "multipart/form-data; boundary=b"),
    ("/v2/models/expressions/infer", "application/json"),
    ("/v2/models/expressions/infer", "text/plain"),
];

fn service() -> &'static (Runtime, Router) {
    static SERVICE: OnceLock<(Runtime, Router)> = OnceLock::new();
    SERVICE.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let bundle = model::brightness();
        let card = ModelCard::new(&bundle, "rustface").expect("a card");
        let finder = FaceFinder::new(&FaceMethod::Rustface, FaceOptions::default()).expect("a finder");
        // Small, so that cases are quick.
        let limits = DecodeLimits { pixels: 40_000, side_px: 1000 };
        let options = AnalyzeOptions { limits, ..AnalyzeOptions::default() };
        let analyzer = Analyzer::new(Classifier::from_bundle(bundle).expect("a classifier"), finder, options);
        let config = ServeConfig { address: SocketAddr::from(([127, 0, 0, 1], 0)), ..ServeConfig::default() };
        let server = runtime.block_on(Server::bind(config, analyzer, card)).expect("a server");
        let router = server.router();
        (runtime, router)
    })
}

fuzz_target!(|input: &[u8]| {
    let Some((first, body)) = input.split_first() else { return };
    let (path, content_type) = ROUTES[usize::from(*first) % ROUTES.len()];
    let request = Request::post(path).header("content-type", content_type).body(Body::from(body.to_vec()));
    let (runtime, router) = service();
    let (status, answer) = runtime.block_on(async {
        let response = router.clone().oneshot(request.expect("a request")).await.expect("an answer");
        (response.status(), to_bytes(response.into_body(), usize::MAX).await.expect("a body"))
    });
    assert!(status.is_success() || status.is_client_error(), "{path} as {content_type}: {status}");
    let answer: serde_json::Value = serde_json::from_slice(&answer).expect("JSON");
    assert_eq!(status.is_success(), answer.get("error").is_none(), "{answer}");
});
