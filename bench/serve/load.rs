//! Asks a server as many clients would, and says how it fared.
//!
//!     load [--json] ADDRESS PICTURE CLIENTS SECONDS [RATE]
//!
//! Each client has a connection of its own and posts PICTURE to /v1/analyze, again and again: its bytes, or with --json a
//! text in base64. Without RATE it asks as soon as it has its answer. With RATE, requests a second of all clients together are due at fixed times, and a request's time
//! counts from when it was due, so that a slow answer also makes those late that wait behind it.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::sleep_until;

type Problem = Box<dyn std::error::Error + Send + Sync>;

/// What is asked, and how often.
struct Plan {
    address: String,
    content_type: &'static str,
    body: Bytes,
    clients: u32,
    seconds: u64,
    rate: Option<f64>,
}

/// What one client saw.
#[derive(Default)]
struct Seen {
    times: Vec<Duration>,
    outcomes: BTreeMap<String, u64>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let plan = match plan(&arguments) {
        Ok(plan) => plan,
        Err(problem) => {
            eprintln!("{problem}\nusage: load [--json] ADDRESS PICTURE CLIENTS SECONDS [RATE]");
            return ExitCode::from(2);
        }
    };
    // The client shares the machine with the server: one thread is enough to ask.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ran = runtime.map_err(Problem::from).and_then(|runtime| runtime.block_on(run(Arc::new(plan))));
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::from(1)
        }
    }
}

fn plan(arguments: &[String]) -> Result<Plan, Problem> {
    let (json, arguments) = match arguments {
        [first, rest @ ..] if first == "--json" => (true, rest),
        all => (false, all),
    };
    let [address, picture, clients, seconds, rate @ ..] = arguments else { return Err("too few arguments".into()) };
    let bytes = std::fs::read(picture)?;
    let (content_type, body) = if json {
        ("application/json", format!("{{\"image\": \"{}\"}}", STANDARD.encode(bytes)).into())
    } else {
        ("application/octet-stream", bytes.into())
    };
    Ok(Plan {
        address: address.clone(),
        content_type,
        body,
        clients: clients.parse()?,
        seconds: seconds.parse()?,
        rate: rate.first().map(|rate| rate.parse()).transpose()?,
    })
}

async fn run(plan: Arc<Plan>) -> Result<(), Problem> {
    let before = resident_megabytes(&plan.address).await?;
    let started = Instant::now();
    let clients: Vec<_> =
        (0..plan.clients).map(|number| tokio::spawn(client(Arc::clone(&plan), number, started))).collect();
    tokio::time::sleep(Duration::from_secs(plan.seconds / 2)).await;
    let middle = resident_megabytes(&plan.address).await?;
    let mut all = Seen::default();
    for client in clients {
        let seen = client.await?;
        all.times.extend(seen.times);
        for (outcome, count) in seen.outcomes {
            *all.outcomes.entry(outcome).or_default() += count;
        }
    }
    let elapsed = started.elapsed().as_secs_f64();
    let after = resident_megabytes(&plan.address).await?;
    all.times.sort_unstable();
    let at = |share: f64| {
        let index = ((all.times.len() as f64 * share) as usize).min(all.times.len().saturating_sub(1));
        all.times.get(index).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    };
    println!("{} clients, {elapsed:.1} s, {:.0} answers a second", plan.clients, all.times.len() as f64 / elapsed);
    println!("outcomes: {:?}", all.outcomes);
    println!("ms: median {:.1}, p90 {:.1}, p99 {:.1}, longest {:.1}", at(0.5), at(0.9), at(0.99), at(1.0));
    println!("resident MB: {before:.0} before, {middle:.0} in the middle, {after:.0} after");
    Ok(())
}

/// Asks until time is up.
async fn client(plan: Arc<Plan>, number: u32, started: Instant) -> Seen {
    let mut seen = Seen::default();
    let end = started + Duration::from_secs(plan.seconds);
    let pause = plan.rate.map(|rate| Duration::from_secs_f64(f64::from(plan.clients) / rate));
    // Clients take turns.
    let mut due = started + pause.unwrap_or_default().mul_f64(f64::from(number) / f64::from(plan.clients));
    let mut connection = None;
    while Instant::now() < end && due < end {
        sleep_until(due.into()).await;
        let outcome = match ask(&plan, &mut connection).await {
            Ok(status) => status.to_string(),
            Err(problem) => {
                connection = None;
                problem.to_string()
            }
        };
        *seen.outcomes.entry(outcome).or_default() += 1;
        seen.times.push(due.elapsed());
        due = pause.map_or_else(Instant::now, |pause| due + pause);
    }
    seen
}

async fn connect(address: &str) -> Result<SendRequest<Full<Bytes>>, Problem> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn ask(plan: &Plan, connection: &mut Option<SendRequest<Full<Bytes>>>) -> Result<u16, Problem> {
    let sender = match connection {
        Some(sender) => sender,
        none => none.insert(connect(&plan.address).await?),
    };
    sender.ready().await?;
    let request = Request::post("/v1/analyze")
        .header("host", &plan.address)
        .header("content-type", plan.content_type)
        .body(Full::new(plan.body.clone()))?;
    let response = sender.send_request(request).await?;
    let status = response.status().as_u16();
    response.into_body().collect().await?;
    Ok(status)
}

/// The server's memory, as it says itself.
async fn resident_megabytes(address: &str) -> Result<f64, Problem> {
    let mut sender = connect(address).await?;
    let request = Request::get("/metrics").header("host", address).body(Full::default())?;
    let body = sender.send_request(request).await?.into_body().collect().await?.to_bytes();
    let text = String::from_utf8_lossy(&body).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes "));
    Ok(line.ok_or("the server does not tell its memory")?.trim().parse::<f64>()? / 1e6)
}
