//! The server's own failures: what the client hears of them, and what the operator.

use std::io::Cursor;
use std::sync::{Arc, mpsc};

use axum::body::{Body, to_bytes};
use axum::http::Request;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt, StreamExt};
use image::{GrayImage, ImageFormat};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tower::ServiceExt;

use super::*;
use crate::card::ModelCard;
use crate::config::{Operator, ServeConfig};
use crate::error::Defect;
use crate::pipeline::tests::{analyzer, model};
use crate::state::Shared;

const REASON: &str = "the thread that classifies has ended";

/// A service that cannot classify, and what its operator hears.
fn broken() -> (App, mpsc::Receiver<Defect>) {
    let (tell, heard) = mpsc::channel();
    let operator = Operator::new(move |defect: &Defect| tell.send(defect.clone()).unwrap());
    let card = ModelCard::new(&model::brightness(), "whole").unwrap();
    let mut shared = Shared::new(ServeConfig { operator, ..ServeConfig::default() }, analyzer(), card).unwrap();
    Arc::get_mut(&mut shared.pipeline).unwrap().lose_classifier();
    (Arc::new(shared), heard)
}

fn picture() -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    GrayImage::new(9, 9).write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

async fn ask(router: Router, request: Request<Body>) -> (u16, Value) {
    let response = router.oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    (status, serde_json::from_slice(&to_bytes(response.into_body(), usize::MAX).await.unwrap()).unwrap())
}

fn defect(route: &str, message: &str) -> Defect {
    Defect { request_id: "trace-1".to_owned(), route: route.to_owned(), message: message.to_owned() }
}

#[tokio::test]
async fn the_client_hears_of_a_failure_and_the_operator_hears_why() {
    let (app, heard) = broken();
    let request = |body| Request::post("/v1/analyze").header(REQUEST_ID, "trace-1").body(Body::from(body)).unwrap();
    let (status, answer) = ask(router(app.clone()), request(picture())).await;
    assert_eq!(
        (status, &answer["error"]["code"], &answer["error"]["request_id"]),
        (500, &"internal".into(), &"trace-1".into())
    );
    assert!(!answer.to_string().contains(REASON), "{answer}");
    let told = heard.try_recv().unwrap();
    assert_eq!(told, defect("/v1/analyze", REASON));
    assert_eq!(told.to_string(), format!("request trace-1 to /v1/analyze failed: {REASON}"));

    // The client's own mistakes are nothing to the operator.
    assert_eq!(ask(router(app), request(b"dear diary".to_vec())).await.0, 415);
    assert!(heard.try_recv().is_err());
}

#[tokio::test]
async fn of_several_pictures_each_failure_is_told() {
    let (app, heard) = broken();
    let part = b"--b\r\nContent-Disposition: form-data; name=\"image\"\r\n\r\n".to_vec();
    let body = [part.clone(), picture(), b"\r\n".to_vec(), part, picture(), b"\r\n--b--\r\n".to_vec()].concat();
    let request = Request::post("/v1/analyze").header(REQUEST_ID, "trace-1");
    let request = request.header(header::CONTENT_TYPE, "multipart/form-data; boundary=b").body(body.into()).unwrap();
    let (status, answer) = ask(router(app), request).await;
    assert_eq!(status, 200);
    for image in answer["images"].as_array().unwrap() {
        assert_eq!((&image["error"]["code"], &image["error"]["request_id"]), (&"internal".into(), &"trace-1".into()));
    }
    let told: Vec<Defect> = heard.try_iter().collect();
    assert_eq!(told, vec![defect("/v1/analyze", REASON); 2]);
}

#[tokio::test]
async fn a_failure_in_one_of_a_deepface_clients_pictures_is_told() {
    let (app, heard) = broken();
    let picture = STANDARD.encode(picture());
    let request =
        Request::post("/analyze").header(REQUEST_ID, "trace-1").header(header::CONTENT_TYPE, "application/json");
    let body = json!({ "img": [picture, picture] }).to_string();
    let (status, answer) = ask(router(app), request.body(Body::from(body)).unwrap()).await;
    assert_eq!((status, &answer["error"]["code"]), (500, &"internal".into()));
    assert!(answer["error"]["message"].as_str().unwrap().starts_with("picture 1 of 2: "), "{answer}");
    assert_eq!(heard.try_iter().collect::<Vec<_>>(), [defect("/analyze", REASON)]);
}

#[tokio::test]
async fn a_frame_that_fails_is_told_under_the_id_of_its_web_socket() {
    let (app, heard) = broken();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/v1/stream", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, router(app)).into_future());
    let (mut socket, opened) = tokio_tungstenite::connect_async(url).await.unwrap();
    socket.send(Message::binary(picture())).await.unwrap();
    let answer = loop {
        if let Message::Text(text) = socket.next().await.unwrap().unwrap() {
            break serde_json::from_str::<Value>(&text).unwrap();
        }
    };
    let told = heard.try_recv().unwrap();
    assert_eq!((told.route.as_str(), told.message.as_str()), ("/v1/stream", REASON));
    assert_eq!(answer["error"]["request_id"], told.request_id.as_str());
    assert_eq!(opened.headers()[REQUEST_ID], told.request_id);
}

#[tokio::test]
async fn a_panic_is_an_answer_and_its_words_are_the_operators() {
    let (app, heard) = broken();
    let panics = Router::new().route("/panics", get(async || -> () { panic!("wheel {} came off", 3) }));
    let request = Request::get("/panics").header(REQUEST_ID, "trace-1").body(Body::empty()).unwrap();
    let (status, answer) = ask(surrounded(panics, app), request).await;
    assert_eq!((status, &answer["error"]["code"]), (500, &"internal".into()));
    assert_eq!(heard.try_recv().unwrap(), defect("/panics", "panicked: wheel 3 came off"));
}
