//! Bodies that were good once, and chance: an answer comes, and it is never that the server failed.

use std::sync::OnceLock;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tower::ServiceExt;
use vultus::analyze::AnalyzeOptions;
use vultus::decode::DecodeLimits;
use vultus::faces::FaceMethod;

use crate::client::{FORM, bound, form, png};

/// The routes without sockets, of a server that takes small pictures only, so that cases are quick.
fn service() -> &'static (Runtime, Router) {
    static SERVICE: OnceLock<(Runtime, Router)> = OnceLock::new();
    SERVICE.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let options =
            AnalyzeOptions { limits: DecodeLimits { pixels: 40_000, side_px: 1000 }, ..AnalyzeOptions::default() };
        let server = runtime.block_on(bound(&FaceMethod::Rustface, options, |_| {}));
        (runtime, server.router())
    })
}

/// Good requests: path, content type, body.
fn good() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let picture = png(12, 12, 200);
    let text = STANDARD.encode(&picture);
    let tensor = json!({ "name": "input", "datatype": "FP32", "shape": [1, 8, 8, 1], "data": vec![7; 64] });
    let infer = json!({ "id": "1", "inputs": [tensor], "outputs": [{ "name": "label" }] });
    let asked = json!({ "img": format!("data:image/png;base64,{text}"), "enforce_detection": false });
    vec![
        ("/v1/analyze", "image/png", picture.clone()),
        ("/v1/analyze?faces=whole", "application/octet-stream", picture.clone()),
        ("/v1/analyze", FORM, form(&[("image", &picture), ("image", &picture)])),
        ("/v1/analyze", "application/json", json!({ "images": [text, text] }).to_string().into()),
        ("/analyze", "application/json", asked.to_string().into()),
        ("/analyze", FORM, form(&[("img", &picture), ("actions", b"emotion"), ("enforce_detection", b"false")])),
        ("/v2/models/expressions/infer", "application/json", infer.to_string().into()),
    ]
}

fn ask(path: &str, content_type: &str, body: Vec<u8>) -> (u16, Value) {
    let request = Request::post(path).header("content-type", content_type).body(Body::from(body)).unwrap();
    let (runtime, router) = service();
    runtime.block_on(async {
        let response = router.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    })
}

#[test]
fn the_good_ones_are_good() {
    for (path, content_type, body) in good() {
        let (status, answer) = ask(path, content_type, body);
        assert_eq!(status, 200, "{path} {content_type}: {answer}");
    }
}

proptest! {
    #[test]
    fn no_body_makes_the_server_fail(
        which in any::<Index>(),
        as_which in any::<Index>(),
        changes in proptest::collection::vec((any::<Index>(), any::<u8>()), 0..8),
        insertion in proptest::collection::vec(any::<u8>(), 0..40),
        place in any::<Index>(),
        end in any::<Index>(),
    ) {
        let requests = good();
        let mut body = which.get(&requests).2.clone();
        // Mostly where it belongs.
        let (path, content_type, _) = if changes.len() < 6 { which.get(&requests) } else { as_which.get(&requests) };
        for (place, value) in &changes {
            let place = place.index(body.len());
            body[place] = *value;
        }
        let place = place.index(body.len());
        body.splice(place..place, insertion);
        if changes.len() % 2 == 1 {
            body.truncate(end.index(body.len()));
        }
        let (status, answer) = ask(path, content_type, body);
        prop_assert!((200..500).contains(&status), "{} as {}: {} {}", path, content_type, status, answer);
        prop_assert_eq!(status == 200, answer.get("error").is_none(), "{}", answer);
    }
}
