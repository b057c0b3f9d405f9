//! Frames over a WebSocket.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use http_body_util::Full;
use hyper::Method;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use vultus::analyze::AnalyzeOptions;
use vultus::faces::FaceMethod;
use vultus_serve::token::Token;

use crate::client::{Running, bound, png, start};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Longest time that any of this takes.
const PATIENCE: Duration = Duration::from_secs(10);

async fn open(server: &Running, headers: &[(&'static str, &str)]) -> Result<Socket, Error> {
    open_at(server.address, headers).await
}

async fn open_at(address: SocketAddr, headers: &[(&'static str, &str)]) -> Result<Socket, Error> {
    let mut request = format!("ws://{address}/v1/stream").into_client_request()?;
    for (name, value) in headers {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    Ok(connect_async(request).await?.0)
}

/// The status that a refused socket was answered with.
fn status(outcome: Result<Socket, Error>) -> u16 {
    match outcome {
        Err(Error::Http(response)) => response.status().as_u16(),
        other => panic!("not refused: {other:?}"),
    }
}

async fn ask(socket: &mut Socket, message: Message) -> Value {
    socket.send(message).await.unwrap();
    loop {
        match socket.next().await.unwrap().unwrap() {
            Message::Text(text) => return serde_json::from_str(&text).unwrap(),
            Message::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// The code that the server closes with, after whatever else it says.
async fn close_code(socket: &mut Socket) -> Option<u16> {
    let closed = async {
        while let Some(Ok(message)) = socket.next().await {
            if let Message::Close(frame) = message {
                return frame.map(|frame| frame.code.into());
            }
        }
        None
    };
    timeout(PATIENCE, closed).await.expect("the server keeps it open")
}

#[tokio::test]
async fn each_frame_is_answered_and_a_bad_one_ends_nothing() {
    let server = start(|_| {}).await;
    let mut socket = open(&server, &[]).await.unwrap();
    for (level, label) in [(250, "bright"), (3, "dark")] {
        let answer = ask(&mut socket, Message::binary(png(20, 10, level))).await;
        assert_eq!(answer["faces"][0]["label"], label);
    }
    let answer = ask(&mut socket, Message::binary("no picture")).await;
    assert_eq!(answer["error"]["code"], "not_an_image");
    let answer = ask(&mut socket, Message::text("hello")).await;
    assert_eq!(answer["error"]["code"], "malformed");
    let answer = ask(&mut socket, Message::binary(png(20, 10, 250))).await;
    assert_eq!(answer["width"], 20);
}

#[tokio::test]
async fn pages_of_other_origins_cannot_open_one() {
    let server = start(|config| config.cors_origins = vec!["https://example.com".parse().unwrap()]).await;
    let own = format!("http://{}", server.address);
    assert!(open(&server, &[("origin", &own)]).await.is_ok());
    assert!(open(&server, &[("origin", "https://example.com")]).await.is_ok());
    for foreign in ["https://example.org", "null", "http://localhost"] {
        assert_eq!(status(open(&server, &[("origin", foreign)]).await), 403, "{foreign}");
    }
}

#[tokio::test]
async fn the_token_comes_as_a_header_or_a_subprotocol() {
    let server = start(|config| config.token = Some(Token::new("open-sesame").unwrap())).await;
    assert_eq!(status(open(&server, &[]).await), 401);
    assert!(open(&server, &[("authorization", "Bearer open-sesame")]).await.is_ok());
    // base64url of `open-sesame`
    let offered = [("sec-websocket-protocol", "vultus, bearer.b3Blbi1zZXNhbWU")];
    let mut socket = open(&server, &offered).await.unwrap();
    assert_eq!(ask(&mut socket, Message::binary(png(9, 9, 1))).await["faces"][0]["label"], "dark");
}

#[tokio::test]
async fn as_many_as_may_be_are_open_and_their_end_makes_room() {
    let server = start(|config| config.limits.streams = 1).await;
    let mut first = open(&server, &[]).await.unwrap();
    assert_eq!(status(open(&server, &[]).await), 503);
    first.close(None).await.unwrap();
    while first.next().await.is_some() {}
    let mut second = open(&server, &[]).await;
    while second.is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
        second = open(&server, &[]).await;
    }
}

#[tokio::test]
async fn a_message_that_is_too_large_closes_it() {
    let small_bodies = start(|config| config.limits.body_bytes = 1000).await;
    let many_streams = start(|config| (config.limits.all_bodies_bytes, config.limits.streams) = (128_000, 64)).await;
    for server in [small_bodies, many_streams] {
        let mut socket = open(&server, &[]).await.unwrap();
        assert_eq!(ask(&mut socket, Message::binary(vec![0; 1000])).await["error"]["code"], "not_an_image");
        // In parts, each of which is allowed, the message is too large with its last byte.
        let part = |bytes, data, last| Message::Frame(Frame::message(vec![0; bytes], OpCode::Data(data), last));
        socket.feed(part(500, Data::Binary, false)).await.unwrap();
        socket.send(part(501, Data::Continue, true)).await.unwrap();
        assert_eq!(close_code(&mut socket).await, Some(1009));

        // Of a longer one most is not read.
        for bytes in [1001, 300_000] {
            let mut socket = open(&server, &[]).await.unwrap();
            socket.send(Message::binary(vec![0; bytes])).await.unwrap();
            assert_eq!(close_code(&mut socket).await, Some(1009), "{bytes} bytes");
        }
    }
}

#[tokio::test]
async fn one_that_takes_no_answers_is_closed_after_the_time_for_that() {
    let server = bound(&FaceMethod::Whole, AnalyzeOptions::default(), |config| {
        config.limits.take = Duration::from_millis(200);
        config.limits.streams = 1;
    })
    .await;
    // A server of someone else's, which leaves connections to themselves and soon has to wait for a client.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_send_buffer_size(4096).unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let listener = socket.listen(8).unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, server.router()).into_future());

    let mut greedy = open_at(address, &[]).await.unwrap();
    for _ in 0..5000 {
        greedy.feed(Message::text("hello")).await.unwrap();
    }
    // Refused when the server closes it before all has been sent.
    let _ = greedy.flush().await;
    let room = async {
        while open_at(address, &[]).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(timeout(PATIENCE / 2, room).await.is_ok(), "the server still waits");
}

#[tokio::test]
async fn a_close_is_answered() {
    let server = start(|_| {}).await;
    for asked in [false, true] {
        let mut socket = open(&server, &[]).await.unwrap();
        if asked {
            ask(&mut socket, Message::binary(png(9, 9, 1))).await;
        }
        socket.send(Message::Close(Some(CloseFrame { code: 1000.into(), reason: "".into() }))).await.unwrap();
        assert_eq!(close_code(&mut socket).await, Some(1000), "{asked}");
    }
}

#[tokio::test]
async fn silence_closes_it() {
    let server = start(|config| config.limits.silence = Duration::from_millis(60)).await;
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    let upgrade = "GET /v1/stream HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                   sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    socket.write_all(upgrade.as_bytes()).await.unwrap();
    // From here on not even pings are answered.
    let mut all = Vec::new();
    let ended = timeout(PATIENCE, socket.read_to_end(&mut all)).await;
    assert!(ended.is_ok(), "the server keeps it open");
    let text = String::from_utf8_lossy(&all);
    assert!(text.starts_with("HTTP/1.1 101") && text.ends_with("the answer to a ping came for too long"), "{text}");
}

#[tokio::test]
async fn a_frame_that_never_becomes_whole_closes_it_whatever_comes_between_its_parts() {
    let server = start(|config| config.limits.idle = Duration::from_millis(300)).await;
    let mut socket = open(&server, &[]).await.unwrap();
    ask(&mut socket, Message::binary(png(9, 9, 1))).await;
    let part = Frame::message(vec![0; 100], OpCode::Data(Data::Binary), false);
    socket.send(Message::Frame(part)).await.unwrap();
    let (mut write, mut read) = socket.split();
    let pongs = async {
        while write.send(Message::Pong("".into())).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        std::future::pending::<()>().await;
    };
    let closed = async {
        while let Some(Ok(message)) = read.next().await {
            if let Message::Close(reason) = message {
                return reason.map(|reason| reason.reason.to_string());
            }
        }
        None
    };
    let closed = timeout(PATIENCE, async {
        tokio::select! { reason = closed => reason, () = pongs => None }
    });
    assert_eq!(closed.await.unwrap().as_deref(), Some("no whole frame came for too long"));
}

#[tokio::test]
async fn a_server_that_stops_says_goodbye() {
    let server = start(|_| {}).await;
    let mut socket = open(&server, &[]).await.unwrap();
    ask(&mut socket, Message::binary(png(9, 9, 1))).await;
    let ended = server.stop();
    assert_eq!(close_code(&mut socket).await, Some(1001));
    assert!(ended.await.unwrap());
}

#[tokio::test]
async fn another_version_is_told_which_one_there_is() {
    let server = start(|_| {}).await;
    let ask = async |version: &str| {
        let request =
            server.request(Method::GET, "/v1/stream").header("connection", "upgrade").header("upgrade", "websocket");
        let request =
            request.header("sec-websocket-version", version).header("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA==");
        server.send(request.body(Full::default()).unwrap()).await
    };
    let reply = ask("8").await;
    let told = ["sec-websocket-version", "upgrade", "connection"].map(|name| reply.header(name));
    assert_eq!(told, ["13", "websocket", "upgrade"]);
    reply.fails(426, "websocket_version");
}
