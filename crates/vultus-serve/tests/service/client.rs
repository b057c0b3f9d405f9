//! A server with a small model, and a client for it.

use std::io::Cursor;
use std::net::SocketAddr;

use axum::body::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::handshake;
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use image::{DynamicImage, GrayImage, ImageFormat, Luma};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use vultus::analyze::{AnalyzeOptions, Analyzer};
use vultus::classifier::Classifier;
use vultus::faces::{FaceFinder, FaceMethod, FaceOptions};
use vultus_serve::card::ModelCard;
use vultus_serve::config::ServeConfig;
use vultus_serve::server::{ServeError, Server};

use crate::model::brightness;

/// A server that runs.
pub struct Running {
    pub address: SocketAddr,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<bool>,
}

/// What a server answered.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Starts a server for which every picture is a face.
pub async fn start(change: impl FnOnce(&mut ServeConfig)) -> Running {
    start_with(&FaceMethod::Whole, AnalyzeOptions::default(), change).await
}

/// Starts a server.
pub async fn start_with(faces: &FaceMethod, options: AnalyzeOptions, change: impl FnOnce(&mut ServeConfig)) -> Running {
    let server = bound(faces, options, change).await;
    let address = server.address();
    let (stop, stopped) = oneshot::channel::<()>();
    let ended = tokio::spawn(server.run(async {
        let _ = stopped.await;
    }));
    Running { address, stop, ended }
}

/// A server that listens but does not run yet.
pub async fn bound(faces: &FaceMethod, options: AnalyzeOptions, change: impl FnOnce(&mut ServeConfig)) -> Server {
    try_bound(faces, options, change).await.unwrap()
}

/// The same, or why it does not start.
pub async fn try_bound(
    faces: &FaceMethod,
    options: AnalyzeOptions,
    change: impl FnOnce(&mut ServeConfig),
) -> Result<Server, ServeError> {
    let bundle = brightness();
    let card = ModelCard::new(&bundle, "whole").unwrap();
    let finder = FaceFinder::new(faces, FaceOptions::default()).unwrap();
    let analyzer = Analyzer::new(Classifier::from_bundle(bundle).unwrap(), finder, options);
    let mut config = ServeConfig { address: SocketAddr::from(([127, 0, 0, 1], 0)), ..ServeConfig::default() };
    change(&mut config);
    Server::bind(config, analyzer, card).await
}

impl Running {
    /// A connection of its own for each request.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Reply {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let (head, body) = sender.send_request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Reply { status: head.status, headers: head.headers, body }
    }

    pub fn request(&self, method: Method, path: &str) -> hyper::http::request::Builder {
        Request::builder().method(method).uri(path).header("host", self.address.to_string())
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send(self.request(Method::GET, path).body(Full::default()).unwrap()).await
    }

    pub async fn post(&self, path: &str, content_type: &str, body: impl Into<Bytes>) -> Reply {
        let request = self.request(Method::POST, path).header("content-type", content_type);
        self.send(request.body(Full::new(body.into())).unwrap()).await
    }

    pub async fn post_json(&self, path: &str, body: Value) -> Reply {
        self.post(path, "application/json", body.to_string()).await
    }

    /// Asks it to stop, without waiting.
    pub fn stop(self) -> JoinHandle<bool> {
        self.stop.send(()).unwrap();
        self.ended
    }
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Asserts an error with this status and code, in the documented form.
    #[track_caller]
    pub fn fails(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{self:?}");
        let body = self.json();
        let error = body["error"].as_object().unwrap_or_else(|| panic!("{self:?}"));
        assert_eq!(error["code"], code, "{self:?}");
        assert!(!error["message"].as_str().unwrap().is_empty());
        assert_eq!(error["request_id"], self.header("x-request-id"));
    }

    /// Asserts success and gives the body.
    #[track_caller]
    pub fn succeeds(&self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()
    }
}

/// A grey PNG.
pub fn png(width: u32, height: u32, level: u8) -> Vec<u8> {
    let picture = DynamicImage::from(GrayImage::from_pixel(width, height, Luma([level])));
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// A form's body with the boundary `frontier`; parts are names and contents.
pub fn form(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, content) in parts {
        let head = format!(
            "--frontier\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"../../etc/passwd\"\r\n\r\n"
        );
        body.extend([head.as_bytes(), content, b"\r\n"].concat());
    }
    body.extend(b"--frontier--\r\n");
    body
}

/// The content type of [`form`].
pub const FORM: &str = "multipart/form-data; boundary=frontier";
