//! What a server may be told. Everything has a default that is safe on one's own machine.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

pub use axum::http::HeaderValue;

use crate::error::Defect;
use crate::host::HostName;
use crate::token::Token;

/// Settings of a server.
#[derive(Clone, Debug)]
pub struct ServeConfig {
    /// Where to listen; 127.0.0.1:8080 by default, that is, for this machine only. Port 0 takes any free port.
    pub address: SocketAddr,
    /// The model's name in the Open Inference Protocol and on the page.
    pub model_name: String,
    /// What a client must show; nobody is asked by default.
    pub token: Option<Token>,
    /// Origins whose pages may use the server from a browser; none by default but its own page.
    pub cors_origins: Vec<HeaderValue>,
    /// Names by which a server that listens on this machine only may be called, besides `localhost` and its addresses.
    pub hosts: Vec<HostName>,
    /// What is taken on, and for how long.
    pub limits: Limits,
    /// Who hears of the server's own failures, and of its answers if wanted; nobody by default.
    pub operator: Operator,
}

/// Hears of the server's own failures, and of its answers: functions that are called with each of them, and should not take long.
#[derive(Clone)]
pub struct Operator {
    defects: Arc<dyn Fn(&Defect) + Send + Sync>,
    answers: Arc<dyn Fn(&Answered) + Send + Sync>,
}

impl Operator {
    /// Calls `tell` with each failure.
    pub fn new(tell: impl Fn(&Defect) + Send + Sync + 'static) -> Self {
        Self { defects: Arc::new(tell), answers: Arc::new(|_| {}) }
    }

    /// Calls `tell` with each answer, too.
    #[must_use]
    pub fn with_answers(self, tell: impl Fn(&Answered) + Send + Sync + 'static) -> Self {
        Self { answers: Arc::new(tell), ..self }
    }

    pub(crate) fn tell(&self, defect: &Defect) {
        (self.defects)(defect);
    }

    pub(crate) fn answered(&self, answered: &Answered) {
        (self.answers)(answered);
    }
}

/// An answer, for the operator: `POST /v1/analyze 200 12.3 ms` and the request's id.
#[derive(Clone, Debug, PartialEq)]
pub struct Answered {
    /// The request's id, which the client knows too.
    pub request_id: String,
    /// GET, POST and the like; `other` for what no client should send.
    pub method: String,
    /// The route, as in the figures.
    pub route: String,
    /// Of HTTP.
    pub status: u16,
    /// Until the answer began, in seconds.
    pub seconds: f64,
}

impl fmt::Display for Answered {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { request_id, method, route, status, seconds } = self;
        write!(formatter, "{method} {route} {status} {:.1} ms {request_id}", seconds * 1e3)
    }
}

impl Default for Operator {
    fn default() -> Self {
        Self::new(|_| {})
    }
}

impl fmt::Debug for Operator {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Operator")
    }
}

impl ServeConfig {
    /// Whether the server can be reached from its own machine only.
    pub fn is_local(&self) -> bool {
        self.address.ip().to_canonical().is_loopback()
    }
}

/// How much is taken on, and for how long.
///
/// Numbers of connections, WebSockets and waiting pictures above 2^32 - 1 count as that, and times above 30 years as
/// those: `Duration::MAX` is as good as no limit. No server starts with a number of 0 or a time below a millisecond,
/// except that `all_bodies_bytes`, `streams`, `linger` and `stop` may be nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of a request's body; no more than fit into those of all bodies.
    pub body_bytes: usize,
    /// Most bytes of all bodies that are in memory at one time; and again of the messages of all WebSockets.
    pub all_bodies_bytes: usize,
    /// Most bytes that pictures take together while they are decoded and faces are looked for; others wait, and one that
    /// needs more for itself is refused.
    pub decoded_bytes: usize,
    /// Most pictures, or rows of a tensor, in one request; no more than the queue holds.
    pub pictures: usize,
    /// Most pictures that wait or are worked on at one time; beyond them the answer is 503.
    pub queue: usize,
    /// Most faces that are classified together; a picture with more of them is not cut up.
    pub batch: usize,
    /// Most connections at one time; others wait in the system's queue.
    pub connections: usize,
    /// Most WebSockets at one time.
    pub streams: usize,
    /// Time for a request's head, and for the next request on an open connection.
    pub head: Duration,
    /// Time for a request's body.
    pub body: Duration,
    /// Time for the answer after the body has arrived.
    pub answer: Duration,
    /// Time in which a client must take some more of its answer, or all of a WebSocket's message.
    pub take: Duration,
    /// Time for which what a client still sends after its answer is read and dropped, so that it comes to the answer.
    pub linger: Duration,
    /// Time after which a WebSocket that says nothing, not even to a ping, is closed.
    pub silence: Duration,
    /// Time after which a WebSocket that sends no whole frame is closed, though it answers pings.
    pub idle: Duration,
    /// Time that requests have to end when the server stops.
    pub stop: Duration,
}

impl Limits {
    /// Most bytes of a WebSocket's message: no more than a body's, and no more than leaves room for those of all others. While
    /// it comes it may be there twice, its parts together and the one that comes.
    pub fn message_bytes(&self) -> usize {
        self.body_bytes.min(self.all_bodies_bytes / self.streams.max(1) / 2)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 10 << 20,
            all_bodies_bytes: 256 << 20,
            decoded_bytes: 1 << 30,
            pictures: 32,
            queue: 256,
            batch: 32,
            connections: 1024,
            streams: 64,
            head: Duration::from_secs(10),
            body: Duration::from_secs(30),
            answer: Duration::from_secs(30),
            take: Duration::from_secs(10),
            linger: Duration::from_secs(5),
            silence: Duration::from_secs(60),
            idle: Duration::from_secs(300),
            stop: Duration::from_secs(30),
        }
    }
}

impl Default for ServeConfig {
    fn default() -> Self {
        Self {
            address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080),
            model_name: "expressions".to_owned(),
            token: None,
            cors_origins: Vec::new(),
            hosts: Vec::new(),
            limits: Limits::default(),
            operator: Operator::default(),
        }
    }
}
