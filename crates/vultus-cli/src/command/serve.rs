//! `vultus serve`.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use clap::builder::{NonEmptyStringValueParser, RangedU64ValueParser};
use tokio::sync::Notify;
use vultus::analyze::Analyzer;
use vultus::classifier::Classifier;
use vultus::decode::DecodeLimits;
use vultus::wording::counted;
use vultus_serve::card::ModelCard;
use vultus_serve::config::{HeaderValue, Limits, Operator, ServeConfig};
use vultus_serve::host::HostName;
use vultus_serve::server::{ServeError, Server};
use vultus_serve::token::Token;

use crate::analyzer::AnalyzerArguments;
use crate::failure::Failure;
use crate::interrupt;
use crate::message::say;
use crate::table::print;

/// Names the variable with the token.
const TOKEN_VARIABLE: &str = "VULTUS_TOKEN";

/// Most pixels of a picture, unless asked for otherwise: those of a good telephone's.
const PIXELS: u64 = 50_000_000;

/// Most connections, or pictures in the queue, that may be asked for.
const MOST: u64 = 1_000_000;

/// Answer requests over HTTP, and show a page with picture and camera.
#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Serve {
    #[command(flatten)]
    analyzer: AnalyzerArguments,
    /// Address to listen on. Without a token, leave it at this machine's own.
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    address: IpAddr,
    /// Port to listen on; 0 takes any free one.
    #[arg(long, value_name = "N", default_value_t = 8080)]
    port: u16,
    /// The model's name in requests [default: that of its file or run].
    #[arg(long, value_name = "NAME", hide_default_value = true, value_parser = NonEmptyStringValueParser::new())]
    name: Option<String>,
    /// A file with the token that clients must show; the environment variable VULTUS_TOKEN does the same, where there is no
    /// such file.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// An origin, such as https://example.com, whose pages may use the server from a browser; may be given several times.
    #[arg(long, value_name = "ORIGIN")]
    cors_origin: Vec<String>,
    /// Another name, such as faces.example.com, by which a server on this machine's own address may be called, as a proxy
    /// does; may be given several times.
    #[arg(long, value_name = "NAME", value_parser = HostName::new)]
    host: Vec<HostName>,
    /// Largest request, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().body_bytes, value_parser = at_least_one::<usize>)]
    max_body: usize,
    /// Largest picture, in pixels.
    #[arg(long, value_name = "PIXELS", default_value_t = PIXELS, value_parser = at_least_one::<u64>)]
    max_pixels: u64,
    /// Memory for pictures that are decoded or searched for faces at one time, in bytes; others wait.
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().decoded_bytes, value_parser = at_least_one::<usize>)]
    max_decoded: usize,
    /// Largest number of pictures in a request; no more than the queue holds.
    #[arg(long, value_name = "N", default_value_t = Limits::default().pictures, value_parser = at_least_one::<usize>)]
    max_images: usize,
    /// Largest number of pictures that wait or are worked on, 1 to 1000000; beyond it the answer is 503.
    #[arg(long, value_name = "N", default_value_t = Limits::default().queue, value_parser = up_to_most())]
    queue: usize,
    /// Largest number of faces that are classified together.
    #[arg(long, value_name = "N", default_value_t = Limits::default().batch, value_parser = at_least_one::<usize>)]
    batch: usize,
    /// Largest number of connections at one time, 1 to 1000000; others wait in the system's queue.
    #[arg(long, value_name = "N", default_value_t = Limits::default().connections, value_parser = up_to_most())]
    max_connections: usize,
    /// Time for a request's body, and again for its answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
    /// Write a line to stderr for each answer: method, route, status, time and the request's id.
    #[arg(long)]
    log: bool,
}

const AFTER_HELP: &str = "\
The page is at /, the API's description at /openapi.json, figures for Prometheus at /metrics. Ctrl-C finishes what was \
taken on and ends with 0, or with 1 if some of it took too long.";

impl Serve {
    pub fn run(self) -> Result<(), Failure> {
        let config = self.config()?;
        let finder = self.analyzer.finder()?;
        let (bundle, origin) = self.analyzer.bundle()?;
        let card = ModelCard::new(&bundle, self.analyzer.finder_name())?;
        let limits = DecodeLimits { pixels: self.max_pixels, ..DecodeLimits::default() };
        let analyzer = Analyzer::new(Classifier::from_bundle(bundle)?, finder, self.analyzer.options(limits));
        let model_name = self.name.clone().unwrap_or_else(|| name_of(&origin));
        let config = ServeConfig { model_name, ..config };
        let open = config.token.is_none() && !config.is_local();

        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let ended = runtime.block_on(async {
            let server = Server::bind(config, analyzer, card).await.map_err(|error| match error {
                ServeError::Limit { .. } => Failure::usage(error),
                _ => Failure::Run(error.into()),
            })?;
            if open {
                say("warning: whoever reaches this machine may use this server: VULTUS_TOKEN or --token-file asks for a token");
            }
            // Before the line: whoever waits for it may want to stop the server as soon as it has come.
            let stop = Arc::new(Notify::new());
            let notify = Arc::clone(&stop);
            interrupt::on_first(move || notify.notify_one())?;
            let line = format!("listening on http://{}", server.address());
            match print(&line) {
                // Whoever started it does not read its output, and may still want it to serve.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => say(line),
                printed => printed?,
            }
            Ok::<bool, Failure>(server.run(stop.notified()).await)
        })?;
        // Work that nobody waits for any more is left to itself.
        runtime.shutdown_background();
        if ended { Ok(()) } else { Err(anyhow!("some requests did not end in time and were cut off").into()) }
    }

    fn config(&self) -> Result<ServeConfig, Failure> {
        let origins: Result<Vec<HeaderValue>, Failure> = self.cors_origin.iter().map(|origin| header(origin)).collect();
        let time = Duration::from_secs(self.timeout);
        if self.max_images > self.queue {
            say(format_args!("note: a request may hold {}, not more than --queue", counted(self.queue, "picture")));
        }
        let limits = Limits {
            body_bytes: self.max_body,
            all_bodies_bytes: Limits::default().all_bodies_bytes.max(self.max_body.saturating_mul(2)),
            decoded_bytes: self.max_decoded,
            pictures: self.max_images,
            queue: self.queue,
            batch: self.batch,
            connections: self.max_connections,
            body: time,
            answer: time,
            ..Limits::default()
        };
        let operator = Operator::new(|defect| say(format_args!("error: {defect}")));
        Ok(ServeConfig {
            address: SocketAddr::new(self.address, self.port),
            token: self.token()?,
            cors_origins: origins?,
            hosts: self.host.clone(),
            limits,
            operator: if self.log { operator.with_answers(|answered| say(answered)) } else { operator },
            ..ServeConfig::default()
        })
    }

    /// The token of the file, or of the environment.
    fn token(&self) -> Result<Option<Token>, Failure> {
        let (secret, origin) = match (&self.token_file, std::env::var(TOKEN_VARIABLE)) {
            (Some(path), _) => (fs_err::read_to_string(path).map_err(Failure::usage)?, path.display().to_string()),
            (None, Ok(secret)) => (secret, TOKEN_VARIABLE.to_owned()),
            (None, Err(std::env::VarError::NotPresent)) => return Ok(None),
            // Its own message would tell the secret.
            (None, Err(std::env::VarError::NotUnicode(_))) => {
                return Err(Failure::usage(anyhow!("{TOKEN_VARIABLE} is no text in UTF-8")));
            }
        };
        let token = Token::new(&secret).map_err(|error| Failure::usage(anyhow!("{origin}: {error}")))?;
        Ok(Some(token))
    }
}

/// Numbers from 1 to [`MOST`].
fn up_to_most() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=MOST)
}

/// Numbers from 1: with a limit of 0 nothing would be answered.
fn at_least_one<N: FromStr + PartialOrd + From<u8>>(text: &str) -> Result<N, String> {
    match text.parse() {
        Ok(number) if number >= N::from(1) => Ok(number),
        _ => Err("use a whole number, 1 or more".to_owned()),
    }
}

/// An origin as browsers write it: scheme, host, port, and nothing else.
fn header(origin: &str) -> Result<HeaderValue, Failure> {
    let host = ["http://", "https://"].iter().find_map(|scheme| origin.strip_prefix(scheme));
    let plain = host.is_some_and(|host| !host.is_empty() && !host.contains(['/', '*', '?', '#', '@', ' ']));
    // Browsers send neither capital letters nor the scheme's own port.
    let own_port = if origin.starts_with("https") { ":443" } else { ":80" };
    let plain = plain && !origin.contains(|letter: char| letter.is_uppercase()) && !origin.ends_with(own_port);
    match HeaderValue::from_str(origin) {
        Ok(value) if plain => Ok(value),
        _ => Err(Failure::usage(anyhow!(
            "{origin:?} is no origin: write it as https://example.com, in small letters and without the scheme's own port"
        ))),
    }
}

/// A name for a model from where it comes: its file's, or its run's where all files are called `model`.
fn name_of(origin: &Path) -> String {
    let parts = origin.with_extension("");
    let names = parts.iter().rev().filter_map(|part| part.to_str());
    let name =
        names.filter(|name| !["model", "winner", "best"].contains(name)).find(|name| !name.starts_with(['.', '/']));
    name.unwrap_or("expressions").to_owned()
}
