//! Connections: how many, for how long, and their end.
//!
//! In: the parts of a service and a moment to stop. Out: answered requests. A request that was taken on is answered
//! before the server ends, if that takes no longer than [`Limits::stop`].

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::HeaderValue;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy, sink};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutWriter;
use vultus::analyze::Analyzer;

use crate::body::UNIT_BYTES;
use crate::card::ModelCard;
use crate::config::{Limits, ServeConfig};
use crate::metrics::Counted;
use crate::routes;
use crate::state::{App, Shared};

/// Most bytes of a request's head.
const HEAD_BYTES: usize = 32 << 10;

/// Requests of the largest size that are read and dropped after an answer.
const DROPPED_REQUESTS: u64 = 4;

/// Shortest time that can be measured.
const SHORTEST: Duration = Duration::from_millis(1);

/// Longest time that is measured: every system's clock can count as far from now.
const LONGEST: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// Time for a client to take the last answer of a server that stops, while the rest of its request is dropped.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Time to wait when the system has no more file handles.
const BREATH: Duration = Duration::from_millis(100);

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {reason}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The system's words.
        reason: io::Error,
    },
    /// The system gives no thread.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    /// An origin that is a pattern: each is to be named.
    #[error("cors_origins has {0:?}: name each origin, as in https://faces.example.com")]
    Origin(HeaderValue),
    /// A limit with which nothing works.
    #[error("limits.{name} must be at least {least}")]
    Limit {
        /// Which of [`Limits`].
        name: &'static str,
        /// What it needs, with its unit.
        least: &'static str,
    },
}

/// A server that listens.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    router: Router,
    app: App,
}

impl Server {
    /// Listens, so that clients can already connect.
    ///
    /// # Errors
    /// An address that cannot be had, limits with which nothing works, or `*` for an origin.
    pub async fn bind(mut config: ServeConfig, analyzer: Analyzer, card: ModelCard) -> Result<Self, ServeError> {
        config.limits = usable(config.limits)?;
        if let Some(origin) = config.cors_origins.iter().find(|origin| *origin == "*") {
            return Err(ServeError::Origin(origin.clone()));
        }
        let refused = |reason| ServeError::Bind { address: config.address, reason };
        let listener = TcpListener::bind(config.address).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let app = Arc::new(Shared::new(config, analyzer, card).map_err(ServeError::Thread)?);
        Ok(Self { listener, address, router: routes::router(Arc::clone(&app)), app })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// All that it answers, to be asked without a socket, or to be a part of another server. The limits of connections
    /// and of time for a request's head do not hold there; names of hosts are looked at if the configured address is local.
    pub fn router(&self) -> Router {
        self.router.clone()
    }

    /// Answers requests until `stop` is done, then ends those that it has taken on. Says whether all of them ended.
    pub async fn run(self, stop: impl Future<Output = ()>) -> bool {
        let Self { listener, router, app, .. } = self;
        let limits = app.config.limits;
        let connections = Arc::new(Semaphore::new(limits.connections));
        let mut stop = pin!(stop);
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut stop => break,
                accepted = accept(&listener, &connections) => accepted,
            };
            match accepted {
                Ok((stream, room)) => {
                    tokio::spawn(connection(stream, room, router.clone(), Arc::clone(&app)));
                }
                // A client that has gone already, or no file handles: both pass.
                Err(_) => sleep(BREATH).await,
            }
        }
        drop(listener);
        app.stopping.send_replace(true);
        // All room is free when the last one has gone.
        let ended = async {
            let _ = tokio::join!(
                connections.acquire_many(all(limits.connections)),
                app.streams.acquire_many(all(limits.streams)),
            );
        };
        timeout(limits.stop, ended).await.is_ok()
    }
}

/// `limits` as they can be kept.
///
/// # Errors
/// One with which nothing works.
fn usable(mut limits: Limits) -> Result<Limits, ServeError> {
    let numbers = [
        ("body_bytes", limits.body_bytes),
        ("decoded_bytes", limits.decoded_bytes),
        ("pictures", limits.pictures),
        ("queue", limits.queue),
        ("batch", limits.batch),
        ("connections", limits.connections),
    ];
    if let Some((name, _)) = numbers.into_iter().find(|(_, number)| *number == 0) {
        return Err(ServeError::Limit { name, least: "1" });
    }
    let times = [
        ("head", limits.head),
        ("body", limits.body),
        ("answer", limits.answer),
        ("take", limits.take),
        ("silence", limits.silence),
        ("idle", limits.idle),
    ];
    if let Some((name, _)) = times.into_iter().find(|(_, time)| *time < SHORTEST) {
        return Err(ServeError::Limit { name, least: "1 ms" });
    }
    // Semaphores cannot count further, nor be waited for as a whole.
    let most = Semaphore::MAX_PERMITS.min(u32::MAX as usize);
    for limit in [&mut limits.queue, &mut limits.connections, &mut limits.streams] {
        *limit = most.min(*limit);
    }
    // A body of more than all may have would be told to come later for ever.
    let most_of_one = (limits.all_bodies_bytes / UNIT_BYTES).saturating_sub(1).saturating_mul(UNIT_BYTES);
    limits.body_bytes = limits.body_bytes.min(most_of_one);
    // More pictures than all the room would never find any.
    limits.pictures = limits.pictures.min(limits.queue);
    // Added to what a clock shows, longer ones would be a panic.
    for time in [
        &mut limits.head,
        &mut limits.body,
        &mut limits.answer,
        &mut limits.take,
        &mut limits.linger,
        &mut limits.silence,
        &mut limits.idle,
        &mut limits.stop,
    ] {
        *time = LONGEST.min(*time);
    }
    Ok(limits)
}

fn all(permits: usize) -> u32 {
    u32::try_from(permits).unwrap_or(u32::MAX)
}

/// The next connection, when there is room for one.
async fn accept(listener: &TcpListener, room: &Arc<Semaphore>) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let permit = Arc::clone(room).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, permit))
}

/// Serves one connection to its end.
async fn connection(stream: TcpStream, _room: OwnedSemaphorePermit, router: Router, app: App) {
    let _open = Counted::new(&app.metrics.connections, 1);
    // Answers are one small packet or two.
    let _ = stream.set_nodelay(true);
    let mut stream = TimeoutWriter::new(stream);
    stream.set_timeout(Some(app.config.limits.take));
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(app.config.limits.head)
        .max_header_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(Box::pin(stream)), TowerToHyperService::new(router))
        .with_upgrades();
    let mut exchanges = Pin::new(&mut connection);
    // An error is the client's: it went away, was too slow, or does not speak HTTP.
    let ended = tokio::select! {
        ended = exchanges.as_mut() => ended,
        () = app.stopped() => {
            exchanges.as_mut().graceful_shutdown();
            exchanges.await
        }
    };
    let answered = ended.map_or_else(|error| error.is_parse(), |()| true);
    // A WebSocket has taken its parts with it.
    if answered && let Some(parts) = connection.into_parts() {
        let soon = async {
            app.stopped().await;
            sleep(LAST_WORDS).await;
        };
        tokio::select! {
            () = drop_rest(parts.io.into_inner(), &app) => {}
            () = soon => {}
        }
    }
}

/// Reads and drops what a client still sends, within limits. Were the connection closed at once, the system would reset it,
/// and the client lose its answer: many send all of a body before they look.
async fn drop_rest(mut stream: impl AsyncRead + AsyncWrite + Unpin, app: &App) {
    let limits = &app.config.limits;
    let _ = stream.shutdown().await;
    let request = limits.body_bytes.saturating_add(HEAD_BYTES) as u64;
    let mut rest = stream.take(request.saturating_mul(DROPPED_REQUESTS));
    let _ = timeout(limits.linger, copy(&mut rest, &mut sink())).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn no_body_is_larger_than_all_together() {
        let most = |all_bodies_bytes| {
            usable(Limits { body_bytes: 10_000, all_bodies_bytes, ..Limits::default() }).unwrap().body_bytes
        };
        assert_eq!([1 << 20, 12 << 10, 4096, 1500, 0].map(most), [10_000, 10_000, 3072, 0, 0]);
    }

    #[test]
    fn the_longest_times_can_still_be_added_to_the_clock() {
        let never = Duration::MAX;
        let longest = Limits { head: never, take: never, silence: never, idle: never, ..Limits::default() };
        let Limits { head, take, silence, idle, .. } = usable(longest).unwrap();
        for time in [head, take, silence, idle] {
            assert!(Instant::now().checked_add(time).is_some(), "{time:?}");
        }
    }
}
