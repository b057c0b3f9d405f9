//! By which names a server that listens on this machine only may be called.
//!
//! A page of another origin can give its own name the address 127.0.0.1 (DNS rebinding): for its browser, this server is
//! then of that page's origin. The name stays in the header `Host`, which is why it is looked at.

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::middleware::Next;
use axum::response::Response;

use std::net::IpAddr;

use crate::config::ServeConfig;
use crate::error::ApiError;
use crate::state::App;

/// A name without scheme, port and path, as in `vultus.example.com`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostName(String);

/// A text that is no name of a host.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no name of a host: write it as vultus.example.com, without port")]
pub struct HostNameError(String);

impl HostName {
    /// Takes `name`.
    ///
    /// # Errors
    /// A text with more in it than a name.
    pub fn new(name: &str) -> Result<Self, HostNameError> {
        match name.parse::<Authority>() {
            Ok(authority) if !name.contains('*') && authority.host() == name => Ok(Self(name.to_owned())),
            _ => Err(HostNameError(name.to_owned())),
        }
    }
}

/// Lets a request through that calls the server by one of its names.
pub(crate) async fn require(State(app): State<App>, request: Request, next: Next) -> Result<Response, ApiError> {
    if may_be_called(&app.config, request.headers()) { Ok(next.run(request).await) } else { Err(ApiError::HostRefused) }
}

/// Whether each `Host` is one of the server's. Without any it is no browser that asks.
fn may_be_called(config: &ServeConfig, headers: &HeaderMap) -> bool {
    if !config.is_local() {
        return true;
    }
    headers.get_all(HOST).iter().all(|host| {
        let authority = Authority::try_from(host.as_bytes()).ok();
        authority.filter(|authority| !authority.as_str().contains('@')).is_some_and(|authority| {
            let name = authority.host();
            let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
            name.eq_ignore_ascii_case("localhost")
                || address.is_ok_and(|address| address.to_canonical().is_loopback())
                || config.hosts.iter().any(|host| host.0.eq_ignore_ascii_case(name))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn a_local_server_has_few_names_and_others_have_any() {
        let called = |config: &ServeConfig, hosts: &[&str]| {
            let headers = hosts.iter().map(|host| (HOST, HeaderValue::from_str(host).unwrap())).collect();
            may_be_called(config, &headers)
        };
        let mut config = ServeConfig { hosts: vec![HostName::new("faces.test").unwrap()], ..ServeConfig::default() };
        for own in ["localhost", "LocalHost:8080", "127.0.0.1", "127.0.0.1:9", "[::1]", "[::1]:80", "Faces.test:443"] {
            assert!(called(&config, &[own]), "{own}");
        }
        let foreign = [
            "",
            "evil.test",
            "localhost.evil.test",
            "a.faces.test",
            "localhost@evil.test",
            "a@localhost",
            "10.0.0.1",
            "[::2]:80",
            "a b",
        ];
        for foreign in foreign {
            assert!(!called(&config, &[foreign]), "{foreign:?}");
        }
        assert!(called(&config, &[]));
        assert!(!called(&config, &["localhost", "evil.test"]));
        config.address.set_ip("::ffff:127.0.0.1".parse().unwrap());
        assert!(called(&config, &["[::ffff:127.0.0.1]:8080"]) && !called(&config, &["[::ffff:10.0.0.1]"]));
        config.address.set_ip("::1".parse().unwrap());
        assert!(!called(&config, &["evil.test"]));
        config.address.set_ip("0.0.0.0".parse().unwrap());
        assert!(called(&config, &["evil.test"]));
    }

    #[test]
    fn a_name_is_a_name_alone() {
        for bad in ["", "a:80", "http://a", "a/b", "x@a", "a b", "*"] {
            assert!(HostName::new(bad).is_err(), "{bad:?}");
        }
    }
}
