//! Clients that mean harm, or are merely broken. After each the server still answers.

use std::io::Cursor;
use std::time::Duration;

use futures_util::future::join_all;
use image::{DynamicImage, ImageFormat};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use vultus_serve::config::Limits;
use vultus_serve::token::Token;

use crate::client::{FORM, Running, form, png, start};

/// Sends bytes as they are, all of them before it looks at the answer, and reads until the server closes the connection or
/// nothing comes for ten seconds.
async fn raw(server: &Running, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    read(&mut stream).await
}

async fn read(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
    assert!(closed.is_ok(), "the server keeps the connection open: {}", String::from_utf8_lossy(&answer));
    assert!(matches!(closed, Ok(Ok(_))), "{closed:?} after {}", String::from_utf8_lossy(&answer));
    String::from_utf8_lossy(&answer).into_owned()
}

async fn still_answers(server: &Running) {
    server.post("/v1/analyze", "image/png", png(9, 9, 250)).await.succeeds();
}

/// A PNG of one pixel whose header announces `width` x `height`.
fn liar(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = png(1, 1, 0);
    bytes[16..20].copy_from_slice(&width.to_be_bytes());
    bytes[20..24].copy_from_slice(&height.to_be_bytes());
    let checksum = !bytes[12..29].iter().fold(!0_u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { 0xEDB8_8320 ^ (crc >> 1) } else { crc >> 1 })
    });
    bytes[29..33].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

#[tokio::test]
async fn a_picture_with_too_many_pixels_is_refused_from_its_header() {
    let server = start(|_| {}).await;
    for (width, height) in [(10_000, 10_000), (65_000, 65_000), (0x7fff_ffff, 0x7fff_ffff), (70_000, 1)] {
        let reply = server.post("/v1/analyze", "image/png", liar(width, height)).await;
        assert!(reply.status.is_client_error(), "{reply:?}");
        if width < 0x7fff_ffff {
            reply.fails(413, "too_large");
        }
    }
    still_answers(&server).await;
}

#[tokio::test]
async fn a_real_picture_of_ten_thousand_squared_is_refused() {
    let server = start(|_| {}).await;
    let picture = png(10_000, 10_000, 0);
    assert!(picture.len() < 1 << 20, "100 million pixels in {} bytes", picture.len());
    server.post("/v1/analyze", "image/png", picture.clone()).await.fails(413, "too_large");
    let parts = [("image", picture.as_slice()); 8];
    let images = server.post("/v1/analyze", FORM, form(&parts)).await.succeeds()["images"].clone();
    assert!(images.as_array().unwrap().iter().all(|image| image["error"]["code"] == "too_large"));
    still_answers(&server).await;
}

#[tokio::test]
async fn a_bomb_within_the_limit_of_pixels_is_refused_where_it_needs_more_memory_than_there_is() {
    // Enough for a grey picture of the same size.
    let server = start(|config| config.limits.decoded_bytes = 900 * (900 * 7 + 16 * 48)).await;
    let mut bomb = Cursor::new(Vec::new());
    DynamicImage::new_rgba16(900, 900).write_to(&mut bomb, ImageFormat::Png).unwrap();
    let (bomb, grey) = (bomb.into_inner(), png(900, 900, 0));
    server.post("/v1/analyze", "image/png", bomb.clone()).await.fails(413, "too_large");
    let images = server.post("/v1/analyze", FORM, form(&[("image", &bomb), ("image", &grey)])).await.succeeds();
    assert_eq!(images["images"][0]["error"]["code"], "too_large", "{images}");
    assert_eq!(images["images"][1]["faces"][0]["label"], "dark", "{images}");
    let replies = join_all((0..6).map(|_| server.post("/v1/analyze", "image/png", grey.clone()))).await;
    for reply in replies {
        assert_eq!(reply.succeeds()["images"][0]["faces"][0]["label"], "dark");
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_before_it_is_read() {
    let server = start(|config| config.limits.body_bytes = 2000).await;
    let announced = "POST /v1/analyze HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99999999999\r\n\r\n";
    let answer = raw(&server, announced.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("body_too_large"), "{answer}");

    let chunk = format!("400\r\n{}\r\n", "x".repeat(1024));
    let chunked = "POST /v1/analyze HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n";
    let answer = raw(&server, [chunked, &chunk.repeat(100)].concat().as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("body_too_large"), "{answer}");
    still_answers(&server).await;
}

#[tokio::test]
async fn a_client_that_sends_all_before_it_looks_gets_its_refusal() {
    let post = "POST /v1/analyze HTTP/1.1\r\nhost: localhost\r\n";
    let body = "x".repeat(3_000_000);
    let announced = format!("{post}content-length: {}\r\n\r\n{body}", body.len());
    let chunked = format!("{post}transfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let server = start(|config| config.limits.body_bytes = 1_000_000).await;
    for request in [&announced, &chunked] {
        let answer = raw(&server, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("body_too_large"), "{answer}");
    }
    let guarded = start(|config| config.token = Some(Token::new("open-sesame").unwrap())).await;
    for request in [&announced, &chunked] {
        let answer = raw(&guarded, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 401") && answer.contains("unauthorized"), "{answer}");
    }
}

#[tokio::test]
async fn what_a_refused_client_sends_is_not_read_for_ever() {
    let refused = b"POST /v1/analyze HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99999999999\r\n\r\n";
    let server =
        start(|config| (config.limits.body_bytes, config.limits.linger) = (1000, Duration::from_secs(60))).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(refused).await.unwrap();
    let endless = async { while stream.write_all(&[0; 10_000]).await.is_ok() {} };
    assert!(tokio::time::timeout(Duration::from_secs(10), endless).await.is_ok(), "all of it is read");

    // One that sends no more and does not go.
    let limits = |limits: &mut Limits| (limits.connections, limits.linger) = (1, Duration::from_millis(100));
    let server = start(|config| limits(&mut config.limits)).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(refused).await.unwrap();
    still_answers(&server).await;
    assert!(read(&mut stream).await.starts_with("HTTP/1.1 413"));
}

#[tokio::test]
async fn a_slow_body_runs_out_of_time_and_hurts_nobody() {
    let server = start(|config| config.limits.body = Duration::from_millis(200)).await;
    let picture = png(9, 9, 250);
    let slow = async {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let head = format!("POST /v1/analyze HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", picture.len());
        stream.write_all(head.as_bytes()).await.unwrap();
        for byte in &picture[..20] {
            if stream.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        read(&mut stream).await
    };
    let (slow, ()) = tokio::join!(slow, still_answers(&server));
    assert!(slow.starts_with("HTTP/1.1 408") && slow.contains("body_timeout"), "{slow}");
}

#[tokio::test]
async fn a_slow_head_and_silence_are_cut_off() {
    let server = start(|config| config.limits.head = Duration::from_millis(100)).await;
    for beginning in ["", "GET", "GET /healthz HTTP/1.1\r\nhost: localhost\r\nx-slow: "] {
        let answer = raw(&server, beginning.as_bytes()).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{beginning:?}: {answer}");
    }
    // A connection that was useful once.
    let answer = raw(&server, b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    still_answers(&server).await;
}

#[tokio::test]
async fn half_open_sockets_give_their_room_back() {
    let server = start(|config| {
        config.limits.connections = 8;
        config.limits.head = Duration::from_millis(200);
    })
    .await;
    let half_open = join_all((0..8).map(|_| TcpStream::connect(server.address))).await;
    assert!(half_open.iter().all(Result::is_ok));
    // There is no room at first; the answer comes when the others have been cut off.
    still_answers(&server).await;
    drop(half_open);
}

#[tokio::test]
async fn a_client_that_takes_no_answers_is_cut_off() {
    let server = start(|config| {
        config.limits.connections = 2;
        config.limits.take = Duration::from_millis(200);
    })
    .await;
    let greedy = async |_| {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let ask = b"GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n";
        // Until the server, which cannot get rid of its answers, reads no more.
        while let Ok(Ok(())) = tokio::time::timeout(Duration::from_millis(100), stream.write_all(ask)).await {}
        stream
    };
    let streams = join_all((0..2).map(greedy)).await;
    still_answers(&server).await;
    drop(streams);
}

#[tokio::test]
async fn a_truncated_upload_is_no_request() {
    let server = start(|_| {}).await;
    let picture = png(9, 9, 250);
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!("POST /v1/analyze HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", picture.len());
    stream.write_all(&[head.as_bytes(), &picture[..20]].concat()).await.unwrap();
    stream.shutdown().await.unwrap();
    let answer = read(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("body_incomplete"), "{answer}");

    let cut = form(&[("image", &picture)]);
    server.post("/v1/analyze", FORM, cut[..cut.len() - 20].to_vec()).await.fails(400, "malformed");
    server.post("/v1/analyze", "application/json", r#"{"image": "iVBO"#).await.fails(400, "malformed");
    still_answers(&server).await;
}

#[tokio::test]
async fn what_is_no_http_is_refused() {
    let server = start(|_| {}).await;
    let long = format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "a".repeat(100_000));
    let many = format!("GET /healthz HTTP/1.1\r\n{}\r\n", "x-a: b\r\n".repeat(5000));
    let tls: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    let both = "POST /v1/analyze HTTP/1.1\r\nhost: localhost\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabc";
    let garbage: [(&[u8], &str); 5] = [
        (tls, "400"),
        (b"\0\0\0\0\r\n\r\n", "400"),
        (long.as_bytes(), "431"),
        (many.as_bytes(), "431"),
        (both.as_bytes(), "400"),
    ];
    for (bytes, status) in garbage {
        let answer = raw(&server, bytes).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{status}: {answer}");
        // What is no request has no id.
        assert!(answer.ends_with("\r\n\r\n") && !answer.contains("x-request-id"), "{answer}");
    }
    // The beginning of HTTP/2.
    assert_eq!(raw(&server, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await, "");
    still_answers(&server).await;
}

#[tokio::test]
async fn paths_lead_to_routes_only() {
    let server = start(|_| {}).await;
    let tricks = [
        "/../../etc/passwd",
        "/..%2f..%2fetc%2fpasswd",
        "/page.js/../../Cargo.toml",
        "//etc/passwd",
        "/%00",
        "/v2/models/../../etc/passwd",
        "/v2/models/%2e%2e%2fexpressions",
        "/v1/analyze/",
        "/PAGE.JS",
        "/favicon.ico",
    ];
    for path in tricks {
        let reply = server.get(path).await;
        assert_eq!(reply.status, 404, "{path}: {reply:?}");
    }
    for path in ["/v2/models/%FF", "/v2/models/%FF/ready", "/v2/models/expressions/versions/%FF"] {
        let reply = server.get(path).await;
        assert_eq!(reply.status, 400, "{path}: {reply:?}");
        assert_eq!(reply.json()["code"], "malformed", "{path}");
    }
}

#[tokio::test]
async fn wrong_types_are_refused_by_content_not_by_name() {
    let server = start(|_| {}).await;
    for body in
        ["GIF89a\x01\0\x01\0\0\0\0;", "<svg xmlns=\"http://www.w3.org/2000/svg\"/>", "%PDF-1.7", "\0\0\0\x20ftypavif"]
    {
        server.post("/v1/analyze", "image/png", body).await.fails(415, "not_an_image");
    }
    // A PNG is read whatever it is called.
    server.post("/v1/analyze", "image/webp", png(9, 9, 1)).await.succeeds();
}

#[tokio::test]
async fn many_small_parts_and_deep_nesting_are_answered_as_any_mistake_is() {
    let server = start(|_| {}).await;
    let parts = vec![("x", b"y".as_slice()); 20_000];
    server.post("/v1/analyze", FORM, form(&parts)).await.fails(400, "no_image");
    let deep = format!("{{\"image\": {}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    server.post("/v1/analyze", "application/json", deep.clone()).await.fails(400, "malformed");
    let many = format!("[{}\"\"]", "\"\",".repeat(1_000_000));
    for (path, name) in [("/v1/analyze", "images"), ("/analyze", "img")] {
        let body = format!("{{\"{name}\": {many}}}");
        server.post(path, "application/json", body).await.fails(413, "too_many_images");
    }
    let actions = format!("{{\"img\": \"\", \"actions\": {many}}}");
    server.post("/analyze", "application/json", actions).await.fails(400, "malformed");
    let deep = deep.replace("image", "inputs");
    assert_eq!(server.post("/v2/models/expressions/infer", "application/json", deep).await.status, 400);
    // No list of an object's fields either.
    for path in ["/v1/analyze", "/analyze", "/v2/models/expressions/infer"] {
        let reply = server.post(path, "application/json", " [\"\"]").await;
        assert!(reply.status == 400 && reply.json().to_string().contains("must be an object"), "{path}: {reply:?}");
    }
    still_answers(&server).await;
}
