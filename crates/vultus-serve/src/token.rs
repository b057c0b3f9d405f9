//! The bearer token: kept as a hash, compared in constant time.

use std::fmt;

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use axum::middleware::Next;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::error::ApiError;
use crate::state::App;

/// How a page's script, which cannot set headers, shows the token when it opens a WebSocket: as a subprotocol with this
/// prefix and the token in base64url.
const SUBPROTOCOL: &str = "bearer.";

/// Fewest bytes of a token.
const FEWEST_BYTES: usize = 8;

/// A secret that clients must show.
#[derive(Clone)]
pub struct Token {
    hash: [u8; 32],
}

/// A token that would be none.
#[derive(Debug, thiserror::Error)]
#[error("a token must have at least {FEWEST_BYTES} visible ASCII characters and no spaces")]
pub struct TokenError;

impl Token {
    /// Takes `secret`, without white space around it.
    ///
    /// # Errors
    /// One that is too short, or that no header can carry.
    pub fn new(secret: &str) -> Result<Self, TokenError> {
        let secret = secret.trim();
        if secret.len() < FEWEST_BYTES || !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TokenError);
        }
        Ok(Self { hash: Sha256::digest(secret).into() })
    }

    /// Whether `shown` is the secret, in a time that depends on the length of `shown` alone.
    pub fn is(&self, shown: &[u8]) -> bool {
        let shown: [u8; 32] = Sha256::digest(shown).into();
        self.hash.ct_eq(&shown).into()
    }

    /// Whether a request's headers show it.
    fn is_in(&self, headers: &HeaderMap) -> bool {
        let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let bearer = header.and_then(|value| value.split_once(' '));
        if let Some((scheme, shown)) = bearer
            && scheme.eq_ignore_ascii_case("bearer")
        {
            return self.is(shown.trim().as_bytes());
        }
        let protocols = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
        protocols
            .flat_map(|list| list.split(','))
            .filter_map(|protocol| protocol.trim().strip_prefix(SUBPROTOCOL))
            .filter_map(|encoded| URL_SAFE_NO_PAD.decode(encoded).ok())
            .any(|shown| self.is(&shown))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token")
    }
}

/// Lets a request through that shows the token, if there is one.
pub(crate) async fn require(State(app): State<App>, request: Request, next: Next) -> Result<Response, ApiError> {
    match &app.config.token {
        Some(token) if !token.is_in(request.headers()) => Err(ApiError::Unauthorized),
        _ => Ok(next.run(request).await),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use axum::http::header::HeaderName;

    fn shown(name: HeaderName, value: &str) -> bool {
        let headers = [(name, HeaderValue::from_str(value).unwrap())].into_iter().collect();
        Token::new("a secret".replace(' ', "-").as_str()).unwrap().is_in(&headers)
    }

    #[test]
    fn only_the_secret_itself_opens() {
        assert!(shown(AUTHORIZATION, "Bearer a-secret"));
        assert!(shown(AUTHORIZATION, "bearer  a-secret "));
        for wrong in ["Bearer a-secre", "Bearer a-secrets", "Bearer", "Bearer ", "a-secret", "Basic a-secret", ""] {
            assert!(!shown(AUTHORIZATION, wrong), "{wrong:?}");
        }
    }

    #[test]
    fn a_web_socket_shows_it_as_a_subprotocol() {
        let encoded = URL_SAFE_NO_PAD.encode("a-secret");
        assert!(shown(SEC_WEBSOCKET_PROTOCOL, &format!("vultus, bearer.{encoded}")));
        assert!(!shown(SEC_WEBSOCKET_PROTOCOL, "vultus, bearer.a-secret"));
        assert!(!shown(SEC_WEBSOCKET_PROTOCOL, "vultus"));
    }

    #[test]
    fn a_short_secret_or_one_with_spaces_is_refused() {
        for bad in ["", "short", "with a space", "caf\u{e9}-caf\u{e9}"] {
            assert!(Token::new(bad).is_err(), "{bad:?}");
        }
        assert!(Token::new(" long-enough\n").unwrap().is(b"long-enough"));
        assert_eq!(format!("{:?}", Token::new("long-enough").unwrap()), "Token");
    }
}
