//! Files from the web.

use std::io::Read;
use std::time::Duration;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
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

/// What may not stand in an address as it is, beside what is not ASCII (RFC 3986, section 2). What is encoded already stays so.
const UNSAFE: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'\\').add(b'^').add(b'`').add(b'{').add(b'|').add(b'}');

/// An address as people write it, for the wire: what follows the host percent-encoded, as browsers do.
fn encoded(url: &str) -> String {
    let host = url.find("://").map_or(0, |scheme| scheme + 3);
    let path = url[host..].find(['/', '?']).map_or(url.len(), |length| host + length);
    format!("{}{}", &url[..path], utf8_percent_encode(&url[path..], UNSAFE))
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
    let response = agent.get(encoded(url)).call().map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    let body = response.into_body().into_reader();
    body.take(limit + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > limit {
        return Err(format!("it is larger than {limit} bytes"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_not_stand_in_an_address_is_encoded() {
        for (url, expected) in [
            ("http://a.org/ünï/a b.jpg?q=é|1", "http://a.org/%C3%BCn%C3%AF/a%20b.jpg?q=%C3%A9%7C1"),
            ("https://a.org/%C3%BC%20.jpg?a=1&b=2", "https://a.org/%C3%BC%20.jpg?a=1&b=2"),
            ("http://a.org", "http://a.org"),
            ("http://a.org?x=\"1\"", "http://a.org?x=%221%22"),
        ] {
            assert_eq!(encoded(url), expected);
        }
    }
}
