//! `/v1/stream`: frames of a camera over a WebSocket. A binary message with a picture in, its analysis as JSON out.
//!
//! One frame is worked on at a time: a client sends the next one when it has the answer, and is never behind.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Query, State};
use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, interval, sleep_until, timeout};
use vultus::analyze::Analysis;

use super::Answer;
use super::analyze::AnalyzeParameters;
use crate::answer::ImageAnswer;
use crate::config::Limits;
use crate::error::{ApiError, ErrorBody};
use crate::exchange::Trace;
use crate::metrics::Counted;
use crate::pipeline::Faces;
use crate::state::{App, Shared};

/// The subprotocol that is agreed on where a client offers any.
const PROTOCOL: &str = "vultus";

/// Time for a client's part of closing.
const GOODBYE: Duration = Duration::from_secs(1);

/// Room for one WebSocket.
struct Stream {
    app: App,
    trace: Trace,
    faces: Faces,
    _room: OwnedSemaphorePermit,
}

/// Analyzes frames over a WebSocket.
///
/// Each binary message is a picture; the answer is a text with the JSON of one entry of `images` of `/v1/analyze`. Send
/// the next frame when the answer has come. A browser shows the token as the subprotocol `bearer.<token in base64url>`,
/// beside `vultus`.
#[utoipa::path(
    get,
    path = "/v1/stream",
    tag = "analyze",
    params(AnalyzeParameters),
    responses(
        (status = 101, description = "The WebSocket is open; its answers look like this", body = ImageAnswer),
        (status = "4XX", description = "It cannot be opened", body = ErrorBody),
        (status = 503, description = "As many are open as may be", body = ErrorBody),
    ),
    security(("token" = [])),
)]
pub(crate) async fn stream(
    State(app): State<App>,
    Extension(trace): Extension<Trace>,
    query: Result<Query<AnalyzeParameters>, QueryRejection>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Answer<Response> {
    let faces = AnalyzeParameters::of(query)?.faces();
    if !may_open(&headers, &app) {
        return Err(ApiError::OriginRefused);
    }
    let upgrade = upgrade.map_err(|error| match error {
        WebSocketUpgradeRejection::InvalidWebSocketVersionHeader(_) => ApiError::WebSocketVersion,
        error => ApiError::Malformed(error.body_text()),
    })?;
    let room = Arc::clone(&app.streams).try_acquire_owned().map_err(|_| ApiError::Overloaded)?;
    let limit = app.config.limits.message_bytes();
    let stream = Stream { app, trace, faces, _room: room };
    let upgrade = upgrade.protocols([PROTOCOL]).max_message_size(limit).max_frame_size(limit);
    Ok(upgrade.on_upgrade(|socket| stream.serve(socket)))
}

/// Browsers do not keep pages of other origins from opening WebSockets: the server has to.
fn may_open(headers: &HeaderMap, app: &Shared) -> bool {
    let Some(origin) = headers.get(ORIGIN) else { return true };
    if app.config.cors_origins.contains(origin) {
        return true;
    }
    let origin = origin.to_str().ok().and_then(|origin| origin.parse::<Uri>().ok());
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    match (origin.as_ref().and_then(Uri::authority), host) {
        (Some(origin), Some(host)) => origin.as_str().eq_ignore_ascii_case(host),
        _ => false,
    }
}

impl Stream {
    async fn serve(self, mut socket: WebSocket) {
        let _open = Counted::new(&self.app.metrics.streams, 1);
        let end = self.talk(&mut socket).await;
        let mut closing = match end {
            End::Server(reason) => self.send(&mut socket, Message::Close(Some(reason))).await,
            End::Client => false,
        };
        let goodbye = async {
            // Reading on sends the answer to a client's close, and takes that to ours (RFC 6455, section 5.5.1).
            while let Some(Ok(message)) = socket.recv().await {
                closing &= !matches!(message, Message::Close(_));
            }
            // Behind what cannot be read nothing is read any more. Were the connection closed at once, the system would reset it,
            // and the client lose the reason.
            if closing {
                pending::<()>().await;
            }
        };
        let _ = timeout(GOODBYE, goodbye).await;
    }

    /// Answers frames until the client goes, says nothing for too long, or the server stops; gives who closes.
    async fn talk(&self, socket: &mut WebSocket) -> End {
        let Limits { silence, idle, .. } = self.app.config.limits;
        let mut pings = interval(silence / 3);
        let (mut heard, mut whole) = (Instant::now(), Instant::now());
        loop {
            // Whether a frame has begun cannot be seen: between its parts there may be any number of pongs.
            let answer = tokio::select! {
                biased;
                () = self.app.stopped() => return closed(close_code::AWAY, "the server is stopping"),
                () = sleep_until(whole + idle) => return closed(close_code::POLICY, "no whole frame came for too long"),
                message = socket.recv() => {
                    heard = Instant::now();
                    if matches!(message, Some(Ok(Message::Binary(_) | Message::Text(_)))) {
                        whole = heard;
                    }
                    match message {
                        Some(Ok(Message::Binary(frame))) => {
                            let answer = self.answer(frame).await;
                            // While the server was at work, the client had nothing to say.
                            heard = Instant::now();
                            whole = heard;
                            answer
                        }
                        Some(Ok(Message::Text(_))) => {
                            let error = ApiError::Malformed("send frames as binary messages".to_owned());
                            self.text(Err(error))
                        }
                        // Pings are answered by the library.
                        Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                        Some(Ok(Message::Close(_))) | None => return End::Client,
                        Some(Err(_)) => {
                            let most = self.app.config.limits.message_bytes();
                            let reason = format!("the message cannot be read, or has more than {most} bytes");
                            return closed(close_code::SIZE, reason);
                        }
                    }
                }
                _ = pings.tick() => Message::Ping(axum::body::Bytes::new()),
                () = sleep_until(heard + silence) => return closed(close_code::POLICY, "neither a whole frame nor the answer to a ping came for too long"),
            };
            if !self.send(socket, answer).await {
                return End::Client;
            }
        }
    }

    /// Sends a message; says whether the client was there and took it in time.
    async fn send(&self, socket: &mut WebSocket, message: Message) -> bool {
        matches!(timeout(self.app.config.limits.take, socket.send(message)).await, Ok(Ok(())))
    }

    async fn answer(&self, frame: axum::body::Bytes) -> Message {
        self.text(match self.app.pipeline.analyze(vec![frame], self.faces).await {
            Ok(mut results) => results.pop().unwrap_or_else(|| Err(ApiError::internal("a frame has no result"))),
            Err(error) => Err(error),
        })
    }

    fn text(&self, result: Answer<Analysis>) -> Message {
        let answer = ImageAnswer::new(result, &self.trace, &self.app);
        // Numbers and texts are all there is: writing them cannot fail.
        Message::text(serde_json::to_string(&answer).unwrap_or_default())
    }
}

/// Who ends the talk.
enum End {
    /// The client has gone, or is going.
    Client,
    /// The server, for this reason.
    Server(CloseFrame),
}

fn closed(code: u16, reason: impl Into<Utf8Bytes>) -> End {
    End::Server(CloseFrame { code, reason: reason.into() })
}
