//! Load and end: refusals where the queue is full, and requests that are finished before the server is.

use std::time::Duration;

use axum::body::Bytes;
use futures_util::{SinkExt, StreamExt};
use http_body_util::Full;
use hyper::Method;
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;
use vultus::analyze::AnalyzeOptions;
use vultus::faces::FaceMethod;
use vultus_serve::config::ServeConfig;

use crate::client::{FORM, Reply, Running, form, png, start, try_bound};

/// Opens a connection and sends the head of a request with `length` bytes and the first of them.
async fn begun(server: &Running, body: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!("POST /v1/analyze HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&body[..1]).await.unwrap();
    stream.flush().await.unwrap();
    stream
}

#[tokio::test]
async fn a_request_that_was_taken_on_is_answered_before_the_end() {
    let server = start(|_| {}).await;
    let picture = png(9, 9, 250);
    let mut stream = begun(&server, &picture).await;
    // Answered while the other is open: the server has seen it.
    assert_eq!(server.get("/healthz").await.status, 200);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let address = server.address;
    let ended = server.stop();
    while TcpStream::connect(address).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stream.write_all(&picture[1..]).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("bright"), "{answer}");
    assert!(ended.await.unwrap(), "all requests ended");
}

#[tokio::test]
async fn the_end_does_not_wait_for_ever() {
    let server = start(|config| config.limits.stop = Duration::from_millis(50)).await;
    let _open = begun(&server, &[0; 100]).await;
    server.get("/healthz").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!server.stop().await.unwrap(), "a request was cut off");
}

#[tokio::test]
async fn idle_connections_do_not_hold_up_the_end() {
    // The time for the next head would end it, too.
    let server = start(|config| {
        (config.limits.head, config.limits.stop) = (Duration::from_secs(600), Duration::from_secs(20));
    })
    .await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = server.request(Method::GET, "/readyz").body(Full::<Bytes>::default()).unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), 200);
    assert!(server.stop().await.unwrap());
}

#[tokio::test]
async fn what_is_more_than_the_queue_holds_is_refused_and_the_rest_answered() {
    let server = start(|config| (config.limits.queue, config.limits.pictures) = (4, 4)).await;
    let picture = png(600, 600, 250);
    let body = Bytes::from(form(&[("image", picture.as_slice()); 3]));
    let replies: Vec<Reply> =
        futures_util::future::join_all((0..12).map(|_| server.post("/v1/analyze", FORM, body.clone()))).await;
    let (answered, refused): (Vec<&Reply>, Vec<&Reply>) = replies.iter().partition(|reply| reply.status == 200);
    assert!(!answered.is_empty() && !refused.is_empty(), "{} answered", answered.len());
    for reply in refused {
        reply.fails(503, "overloaded");
        assert_eq!(reply.header("retry-after"), "1");
    }
    for reply in answered {
        assert_eq!(reply.json()["images"].as_array().unwrap().len(), 3);
    }
    // All room is free again.
    server.post("/v1/analyze", FORM, form(&[("image", picture.as_slice()); 4])).await.succeeds();
}

#[tokio::test]
async fn no_request_may_have_more_pictures_than_the_queue() {
    let server = start(|config| (config.limits.queue, config.limits.pictures) = (2, 8)).await;
    let picture = png(16, 16, 250);
    let with = |count| form(&vec![("image", picture.as_slice()); count]);
    server.post("/v1/analyze", FORM, with(2)).await.succeeds();
    server.post("/v1/analyze", FORM, with(3)).await.fails(413, "too_many_images");
}

#[tokio::test]
async fn an_answer_that_takes_too_long_is_given_up() {
    let server = start(|config| config.limits.answer = Duration::from_millis(1)).await;
    let reply = server.post("/v1/analyze", "image/png", png(3000, 3000, 9)).await;
    reply.fails(503, "timeout");
    assert_eq!(reply.header("retry-after"), "1");
}

#[tokio::test]
async fn pictures_of_a_client_that_goes_are_counted() {
    let server = start(|_| {}).await;
    let picture = png(3000, 3000, 9);
    let gone = "vultus_pictures_total{outcome=\"gone\"} ";
    let counted = async {
        while !String::from_utf8_lossy(&server.get("/metrics").await.body).contains(gone) {
            let mut stream = begun(&server, &picture).await;
            stream.write_all(&picture[1..]).await.unwrap();
            // It may not have been taken on yet, or be answered already: then it is another one's turn.
            tokio::time::sleep(Duration::from_millis(10)).await;
            drop(stream);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), counted).await.unwrap();
}

#[tokio::test]
async fn limits_without_bounds_are_no_danger() {
    let server = start(|config| {
        let limits = &mut config.limits;
        for limit in [
            &mut limits.body_bytes,
            &mut limits.all_bodies_bytes,
            &mut limits.pictures,
            &mut limits.queue,
            &mut limits.batch,
            &mut limits.connections,
            &mut limits.streams,
        ] {
            *limit = usize::MAX;
        }
        for limit in [
            &mut limits.head,
            &mut limits.body,
            &mut limits.answer,
            &mut limits.take,
            &mut limits.linger,
            &mut limits.silence,
            &mut limits.idle,
            &mut limits.stop,
        ] {
            *limit = Duration::MAX;
        }
    })
    .await;
    server.post("/v1/analyze", "image/png", png(9, 9, 250)).await.succeeds();
    server.post("/v1/analyze", "image/png", "dear diary").await.fails(415, "not_an_image");
    let (mut socket, _) = connect_async(format!("ws://{}/v1/stream", server.address)).await.unwrap();
    socket.send(Message::binary(png(9, 9, 250))).await.unwrap();
    let answered = async { while !socket.next().await.unwrap().unwrap().is_text() {} };
    tokio::time::timeout(Duration::from_secs(10), answered).await.unwrap();
    let figures = server.get("/metrics").await;
    assert!(String::from_utf8_lossy(&figures.body).contains("vultus_streams 1\n"), "{figures:?}");
    drop(socket);
    assert!(server.stop().await.unwrap());
}

#[tokio::test]
async fn an_address_in_use_is_an_error_that_names_it() {
    let server = start(|_| {}).await;
    let error = refused(|config| config.address = server.address).await;
    assert!(error.contains(&server.address.to_string()), "{error}");
}

#[tokio::test]
async fn a_limit_of_nothing_is_an_error_that_names_it() {
    assert_eq!(refused(|config| config.limits.body_bytes = 0).await, "limits.body_bytes must be at least 1");
    assert_eq!(refused(|config| config.limits.pictures = 0).await, "limits.pictures must be at least 1");
    assert_eq!(refused(|config| config.limits.batch = 0).await, "limits.batch must be at least 1");
    let refused_time = async |silence| refused(|config| config.limits.silence = silence).await;
    for time in [Duration::ZERO, Duration::from_nanos(2), Duration::from_micros(999)] {
        assert_eq!(refused_time(time).await, "limits.silence must be at least 1 ms");
    }
    assert_eq!(refused(|config| config.limits.head = Duration::ZERO).await, "limits.head must be at least 1 ms");
}

#[tokio::test]
async fn some_limits_may_be_nothing() {
    let server = start(|config| {
        let limits = &mut config.limits;
        (limits.linger, limits.stop, limits.streams) = (Duration::ZERO, Duration::ZERO, 0);
    })
    .await;
    server.post("/v1/analyze", "image/png", png(9, 9, 250)).await.succeeds();
}

/// Why a server does not start.
async fn refused(change: impl FnOnce(&mut ServeConfig)) -> String {
    try_bound(&FaceMethod::Whole, AnalyzeOptions::default(), change).await.unwrap_err().to_string()
}
