//! A request's body, read under limits: of its own size, of all bodies together, and of time.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::config::Limits;
use crate::error::ApiError;

/// Bodies are counted in units of this many bytes.
pub(crate) const UNIT_BYTES: usize = 1024;

/// The memory that bodies may take together.
#[derive(Debug)]
pub(crate) struct BodyMemory {
    free: Arc<Semaphore>,
    limits: Limits,
}

/// A body in memory with its share of the memory.
struct Collected {
    bytes: Vec<u8>,
    _share: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Collected {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// `copy`, which was made of a part of `body`, so that the body counts as long as there is a handle to the copy.
pub(crate) fn held_with(body: &Bytes, copy: Bytes) -> Bytes {
    struct Held {
        copy: Bytes,
        _body: Bytes,
    }

    impl AsRef<[u8]> for Held {
        fn as_ref(&self) -> &[u8] {
            &self.copy
        }
    }

    Bytes::from_owner(Held { copy, _body: body.clone() })
}

impl BodyMemory {
    pub fn new(limits: Limits) -> Self {
        let units = (limits.all_bodies_bytes / UNIT_BYTES).min(Semaphore::MAX_PERMITS);
        Self { free: Arc::new(Semaphore::new(units)), limits }
    }

    /// Reads all of `body`. Memory is counted as it arrives, so that announcing much costs others nothing, and is free again
    /// when the last handle to the bytes, or to a part of them, is dropped; of what is copied out of them see [`held_with`].
    pub async fn collect(&self, headers: &HeaderMap, body: Body) -> Result<Bytes, ApiError> {
        let codings = headers.get_all(CONTENT_ENCODING).iter().map(|coding| String::from_utf8_lossy(coding.as_bytes()));
        if let Some(coding) = codings.into_iter().find(|coding| !coding.eq_ignore_ascii_case("identity")) {
            return Err(ApiError::ContentEncoding { coding: coding.into_owned() });
        }
        let limit = self.limits.body_bytes;
        let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        if announced.is_some_and(|length| length > limit) {
            return Err(ApiError::BodyTooLarge { limit });
        }
        match timeout(self.limits.body, self.read(body, announced.unwrap_or(0))).await {
            Ok(collected) => collected,
            Err(_) => Err(ApiError::BodyTimeout { limit: self.limits.body }),
        }
    }

    async fn read(&self, mut body: Body, announced: usize) -> Result<Bytes, ApiError> {
        let mut share = self.take(1)?;
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame.map_err(|_| ApiError::BodyIncomplete)?.into_data() else { continue };
            let length = bytes.len() + frame.len();
            if length > self.limits.body_bytes {
                return Err(ApiError::BodyTooLarge { limit: self.limits.body_bytes });
            }
            // As a vector grows: to twice what there is, and never beyond what may still come.
            if length > bytes.capacity() {
                let most = if announced >= length { announced } else { self.limits.body_bytes };
                let capacity = (2 * length).min(most);
                share.merge(self.take((capacity / UNIT_BYTES + 1).saturating_sub(share.num_permits()))?);
                bytes.reserve_exact(capacity - bytes.len());
            }
            bytes.extend_from_slice(&frame);
        }
        Ok(Bytes::from_owner(Collected { bytes, _share: share }))
    }

    fn take(&self, units: usize) -> Result<OwnedSemaphorePermit, ApiError> {
        let units = u32::try_from(units).map_err(|_| ApiError::Overloaded)?;
        Arc::clone(&self.free).try_acquire_many_owned(units).map_err(|_| ApiError::Overloaded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use std::time::Duration;

    fn memory(body_bytes: usize, all_bodies_bytes: usize) -> BodyMemory {
        BodyMemory::new(Limits { body_bytes, all_bodies_bytes, ..Limits::default() })
    }

    async fn collect(memory: &BodyMemory, length: usize) -> Result<Bytes, ApiError> {
        memory.collect(&HeaderMap::new(), Body::from(vec![7; length])).await
    }

    #[tokio::test]
    async fn a_body_comes_whole_or_is_too_large() {
        let memory = memory(5000, 1 << 20);
        assert_eq!(collect(&memory, 5000).await.unwrap(), vec![7; 5000]);
        assert_eq!(collect(&memory, 0).await.unwrap(), Bytes::new());
        assert_eq!(collect(&memory, 5001).await.err(), Some(ApiError::BodyTooLarge { limit: 5000 }));
        let announced = [(CONTENT_LENGTH, HeaderValue::from_static("5001"))].into_iter().collect();
        let refused = memory.collect(&announced, Body::from("short")).await;
        assert_eq!(refused.err(), Some(ApiError::BodyTooLarge { limit: 5000 }));
    }

    #[tokio::test]
    async fn a_compressed_body_is_refused_by_its_coding() {
        let memory = memory(5000, 1 << 20);
        let coded = |coding| [(CONTENT_ENCODING, HeaderValue::from_static(coding))].into_iter().collect::<HeaderMap>();
        assert!(memory.collect(&coded("Identity"), Body::from("face")).await.is_ok());
        let refused = memory.collect(&coded("gzip"), Body::from("face")).await.err().unwrap();
        assert!(refused.to_string().contains("\"gzip\""), "{refused}");
        let answer = refused.render("1", false);
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["accept-encoding"]),
            (415, &"identity".parse().unwrap())
        );
    }

    #[tokio::test]
    async fn all_bodies_together_have_a_limit_and_give_their_share_back() {
        let memory = memory(10_000, 16 << 10);
        let first = collect(&memory, 10_000).await.unwrap();
        assert_eq!(collect(&memory, 10_000).await.err(), Some(ApiError::Overloaded));
        assert!(collect(&memory, 1_000).await.is_ok());
        // A part of it keeps all of it.
        let part = first.slice(..10);
        drop(first);
        assert_eq!(collect(&memory, 10_000).await.err(), Some(ApiError::Overloaded));
        drop(part);
        assert!(collect(&memory, 10_000).await.is_ok());
        assert_eq!(memory.free.available_permits(), 16);
        // So does a copy of a part, if it is told of whom.
        let body = collect(&memory, 10_000).await.unwrap();
        let copy = held_with(&body, Bytes::copy_from_slice(&body[..10]));
        drop(body);
        assert_eq!((&copy[..], collect(&memory, 10_000).await.err()), (&[7; 10][..], Some(ApiError::Overloaded)));
        drop(copy);
        assert_eq!(memory.free.available_permits(), 16);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_ends_runs_into_the_time_limit() {
        let memory = BodyMemory::new(Limits { body: Duration::from_secs(3), ..Limits::default() });
        let body = Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
        let refused = memory.collect(&HeaderMap::new(), body).await;
        assert_eq!(refused.err(), Some(ApiError::BodyTimeout { limit: Duration::from_secs(3) }));
        assert_eq!(memory.free.available_permits(), (256 << 20) / UNIT_BYTES);
    }
}
