//! Every way in which a request can fail, with its code and status.
//!
//! In: what a handler found. Out: a response whose body `crate::exchange` writes, because only there the request's id
//! is known.

use std::any::Any;
use std::fmt;
use std::time::Duration;

use axum::Json;
use axum::http::header::{ACCEPT_ENCODING, CONNECTION, RETRY_AFTER, SEC_WEBSOCKET_VERSION, UPGRADE, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use vultus::analyze::{AnalyzeError, RecordError};
use vultus::decode::DecodeError;
use vultus::wording::counted;

/// Seconds after which a refused client may try again.
const RETRY_AFTER_S: &str = "1";

/// Why a request was not answered as wished.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ApiError {
    /// There is no such route.
    #[error("there is nothing at this path; /openapi.json lists what there is")]
    NotFound,
    /// The route is there, the method is not.
    #[error("this path does not answer to this method; /openapi.json says which it answers to")]
    MethodNotAllowed,
    /// No token, or a wrong one.
    #[error("this needs the header `Authorization: Bearer <token>` with the server's token")]
    Unauthorized,
    /// The server is called by a name that is not its own.
    #[error("this server listens on this machine only and is not called so; its operator can allow more names")]
    HostRefused,
    /// A page of another origin wants a WebSocket.
    #[error("pages of this origin may not use this server; its operator can allow them")]
    OriginRefused,
    /// A WebSocket of another version than that of RFC 6455.
    #[error("this server speaks version 13 of the WebSocket protocol")]
    WebSocketVersion,
    /// The model that was asked for is not the one that is served.
    #[error("there is no such model; this server has {served}")]
    UnknownModel {
        /// The model that is served, and its version.
        served: String,
    },
    /// The content type is none that the route reads.
    #[error("the content type must be {expected}")]
    ContentType {
        /// What is read.
        expected: &'static str,
    },
    /// The body is compressed.
    #[error("the body has the content encoding {coding:?}, and must have none: pictures are compressed already")]
    ContentEncoding {
        /// What the header names.
        coding: String,
    },
    /// The request does not say what it should.
    #[error("{0}")]
    Malformed(String),
    /// There is no picture in the request.
    #[error("the request holds no picture: {expected}")]
    NoPicture {
        /// Where it should be.
        expected: &'static str,
    },
    /// A URL instead of a picture.
    #[error("this server fetches nothing: send the picture itself, as bytes or in base64, not its URL")]
    UrlRefused,
    /// A text that should be base64 and is not.
    #[error("the picture is not valid base64, nor a data URI with base64; the server opens no paths")]
    NotBase64,
    /// More pictures than one request may hold, or more numbers than those of so many.
    #[error("a request may hold {}", counted(*limit, "picture"))]
    TooManyPictures {
        /// The most.
        limit: usize,
    },
    /// More bytes than a request may have.
    #[error("a request may have {}", counted(*limit, "byte"))]
    BodyTooLarge {
        /// The most.
        limit: usize,
    },
    /// The body did not arrive in time.
    #[error("the request's body did not arrive within {}", in_words(*limit))]
    BodyTimeout {
        /// The limit.
        limit: Duration,
    },
    /// The body broke off.
    #[error("the request's body broke off")]
    BodyIncomplete,
    /// A picture that cannot be used.
    #[error("{message}")]
    Picture {
        /// Its kind in one word.
        code: &'static str,
        /// The same for people.
        message: String,
    },
    /// One of several pictures cannot be used, where all of them are answered or none.
    #[error("picture {number} of {count}: {error}")]
    OfPictures {
        /// Its place among them, from 1.
        number: usize,
        /// How many they are.
        count: usize,
        /// What is wrong with it.
        error: Box<Self>,
    },
    /// There is no face, and one is demanded.
    #[error("{}", RecordError::no_face().message)]
    NoFace,
    /// As much is waiting as may wait.
    #[error("the server has as much to do as it may take on: try again later")]
    Overloaded,
    /// The server is about to stop.
    #[error("the server is stopping")]
    Stopping,
    /// The answer took too long.
    #[error("there was no answer within {}", in_words(*limit))]
    Timeout {
        /// The limit.
        limit: Duration,
    },
    /// The server failed. The reason is not for the client: it goes to the [`Operator`](crate::config::Operator).
    #[error("the server failed; its operator may find more under the request's id")]
    Internal(String),
}

fn in_words(time: Duration) -> String {
    match time.as_secs() {
        0 => counted(time.as_millis(), "millisecond"),
        seconds => counted(seconds, "second"),
    }
}

/// A failure of the server's own, for its operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Defect {
    /// The request's id, which the client knows too.
    pub request_id: String,
    /// The route, as in the figures.
    pub route: String,
    /// What went wrong.
    pub message: String,
}

impl fmt::Display for Defect {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { request_id, route, message } = self;
        write!(formatter, "request {request_id} to {route} failed: {message}")
    }
}

impl ApiError {
    /// The server failed, for this reason.
    pub(crate) fn internal(reason: impl fmt::Display) -> Self {
        Self::Internal(reason.to_string())
    }

    /// The server failed by a panic.
    pub(crate) fn panicked(panic: &(dyn Any + Send)) -> Self {
        let words = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Self::internal(format_args!("panicked: {}", words.unwrap_or("no words")))
    }

    /// A picture needs more memory than there is for all of them.
    pub(crate) fn memory(bytes: u64, limit: u64) -> Self {
        let message = format!(
            "the picture takes {bytes} bytes of memory while it is worked on, more than the limit of {limit}: make it smaller"
        );
        Self::Picture { code: "too_large", message }
    }

    /// The same, as what is wrong with one of `count` pictures; the error of an only picture stays as it is.
    pub(crate) fn of_picture(self, index: usize, count: usize) -> Self {
        if count == 1 { self } else { Self::OfPictures { number: index + 1, count, error: Box::new(self) } }
    }

    /// Why the server failed, if it did.
    pub(crate) fn defect(&self) -> Option<&str> {
        match self {
            Self::Internal(reason) => Some(reason),
            Self::OfPictures { error, .. } => error.defect(),
            _ => None,
        }
    }

    /// The kind of error in one word, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::Unauthorized => "unauthorized",
            Self::HostRefused => "host_refused",
            Self::OriginRefused => "origin_refused",
            Self::WebSocketVersion => "websocket_version",
            Self::UnknownModel { .. } => "unknown_model",
            Self::ContentType { .. } => "content_type",
            Self::ContentEncoding { .. } => "content_encoding",
            Self::Malformed(_) => "malformed",
            Self::NoPicture { .. } => "no_image",
            Self::UrlRefused => "url_refused",
            Self::NotBase64 => "not_base64",
            Self::TooManyPictures { .. } => "too_many_images",
            Self::BodyTooLarge { .. } => "body_too_large",
            Self::BodyTimeout { .. } => "body_timeout",
            Self::BodyIncomplete => "body_incomplete",
            Self::Picture { code, .. } => code,
            Self::OfPictures { error, .. } => error.code(),
            Self::NoFace => "no_face",
            Self::Overloaded => "overloaded",
            Self::Stopping => "stopping",
            Self::Timeout { .. } => "timeout",
            Self::Internal(_) => "internal",
        }
    }

    /// The status of the response.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NotFound | Self::UnknownModel { .. } => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::HostRefused => StatusCode::MISDIRECTED_REQUEST,
            Self::OriginRefused => StatusCode::FORBIDDEN,
            Self::WebSocketVersion => StatusCode::UPGRADE_REQUIRED,
            Self::ContentType { .. } | Self::ContentEncoding { .. } => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Malformed(_) | Self::NoPicture { .. } | Self::UrlRefused | Self::NotBase64 | Self::BodyIncomplete => {
                StatusCode::BAD_REQUEST
            }
            Self::TooManyPictures { .. } | Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTimeout { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::Picture { code: "too_large", .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Picture { code: "not_an_image", .. } => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Picture { .. } | Self::NoFace => StatusCode::UNPROCESSABLE_ENTITY,
            Self::OfPictures { error, .. } => error.status(),
            Self::Overloaded | Self::Stopping | Self::Timeout { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The response to the request `request_id`. The Open Inference Protocol wants `error` to be a text.
    pub(crate) fn render(&self, request_id: &str, inference_protocol: bool) -> Response {
        let (detail, id) = (ErrorDetail::from(self), request_id.to_owned());
        let mut response = if inference_protocol {
            let ErrorDetail { code, message: error, .. } = detail;
            (self.status(), Json(InferenceErrorBody { error, code, request_id: id })).into_response()
        } else {
            let error = ErrorDetail { request_id: Some(id), ..detail };
            (self.status(), Json(ErrorBody { error })).into_response()
        };
        if self.status() == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S));
        }
        if self.status() == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if matches!(self, Self::WebSocketVersion) {
            // RFC 6455, section 4.4, and RFC 9110, section 15.5.22.
            response.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
        }
        if matches!(self, Self::ContentEncoding { .. }) {
            response.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        response
    }
}

impl IntoResponse for ApiError {
    /// Without a body; see `ApiError::render`.
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<DecodeError> for ApiError {
    fn from(error: DecodeError) -> Self {
        let message = match error {
            // A request's picture need not be a file, as the error's own words have it.
            DecodeError::Empty => "the picture is empty: it has no bytes".to_owned(),
            _ => error.to_string(),
        };
        Self::Picture { code: error.code(), message }
    }
}

impl From<AnalyzeError> for ApiError {
    fn from(error: AnalyzeError) -> Self {
        match error {
            AnalyzeError::Decode(error) => error.into(),
            AnalyzeError::Faces(error) => Self::internal(error),
            // The server reads no files.
            AnalyzeError::Open(error) => Self::internal(error),
        }
    }
}

/// The body of a response that is an error.
#[derive(Serialize, ToSchema)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: ErrorDetail,
}

/// What went wrong.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ErrorDetail {
    /// The kind of error in one word, for programs.
    #[schema(example = "overloaded")]
    pub code: String,
    /// The same for people.
    pub message: String,
    /// The request's id, also in the header `x-request-id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

impl From<&ApiError> for ErrorDetail {
    fn from(error: &ApiError) -> Self {
        Self { code: error.code().to_owned(), message: error.to_string(), request_id: None }
    }
}

/// The body of an error of the Open Inference Protocol.
#[derive(Serialize, ToSchema)]
pub struct InferenceErrorBody {
    /// What went wrong, for people.
    pub error: String,
    /// The kind of error in one word.
    pub code: String,
    /// The request's id.
    pub request_id: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_not_called_many() {
        for (error, message) in [
            (ApiError::TooManyPictures { limit: 1 }, "a request may hold 1 picture"),
            (ApiError::TooManyPictures { limit: 2 }, "a request may hold 2 pictures"),
            (ApiError::BodyTooLarge { limit: 1 }, "a request may have 1 byte"),
            (
                ApiError::BodyTimeout { limit: Duration::from_secs(1) },
                "the request's body did not arrive within 1 second",
            ),
            (ApiError::Timeout { limit: Duration::from_secs(30) }, "there was no answer within 30 seconds"),
            (ApiError::Timeout { limit: Duration::from_millis(50) }, "there was no answer within 50 milliseconds"),
        ] {
            assert_eq!(error.to_string(), message);
        }
    }

    #[test]
    fn an_empty_picture_is_no_file() {
        let error = ApiError::from(DecodeError::Empty);
        assert_eq!((error.code(), error.to_string().as_str()), ("empty", "the picture is empty: it has no bytes"));
    }
}
