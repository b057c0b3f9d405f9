//! Files from the web.

use std::io::Read;
use std::time::Duration;

use ureq::Agent;

/// Longest wait for a connection and for the first bytes of an answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Longest time for a whole file.
const WHOLE: Duration = Duration::from_secs(300);

/// Whether an argument is the address of a file on the web.
pub fn is_url(text: &str) -> bool {
    ["http://", "https://"]
        .iter()
        .any(|scheme| text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)))
}

/// The bytes at `url`, after redirections; no more than `limit`.
///
/// # Errors
/// What went wrong, in words that name no address.
pub fn get(url: &str, limit: u64) -> Result<Vec<u8>, String> {
    let agent: Agent = Agent::config_builder()
        .timeout_connect(Some(PATIENCE))
        .timeout_recv_response(Some(PATIENCE))
        .timeout_global(Some(WHOLE))
        .user_agent(concat!("vultus/", env!("CARGO_PKG_VERSION")))
        .build()
        .into();
    let response = agent.get(url).call().map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    let body = response.into_body().into_reader();
    body.take(limit + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > limit {
        return Err(format!("it is larger than {limit} bytes"));
    }
    Ok(bytes)
}
