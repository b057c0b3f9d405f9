//! Figures about the server's work, for Prometheus.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// The content type of [`Metrics::text`].
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What a request was and how it ended. Routes are patterns, so that their number is bounded.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct RequestLabels {
    pub route: String,
    pub method: String,
    pub status: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct RouteLabels {
    pub route: String,
}

/// How a picture ended: `ok`, an error's code, or [`GONE`].
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct OutcomeLabels {
    pub outcome: &'static str,
}

/// The outcome of pictures whose client did not wait for their answer.
pub(crate) const GONE: &str = "gone";

/// A part of what a gauge shows, until it is dropped: however the work ends, by a panic too.
#[derive(Debug)]
pub(crate) struct Counted {
    gauge: Gauge,
    count: i64,
}

impl Counted {
    /// Adds `count` to `gauge`.
    pub fn new(gauge: &Gauge, count: i64) -> Self {
        gauge.inc_by(count);
        Self { gauge: gauge.clone(), count }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.gauge.dec_by(self.count);
    }
}

/// The figures.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    pub requests: Family<RequestLabels, Counter>,
    pub seconds: Family<RouteLabels, Histogram>,
    pub pictures: Family<OutcomeLabels, Counter>,
    pub faces: Counter,
    pub batch_faces: Histogram,
    pub waiting: Gauge,
    pub connections: Gauge,
    pub streams: Gauge,
    resident: Gauge,
}

impl Metrics {
    pub fn new() -> Self {
        let metrics = Self {
            registry: Registry::default(),
            requests: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.001, 2.0, 23))),
            pictures: Family::default(),
            faces: Counter::default(),
            batch_faces: Histogram::new(exponential_buckets(1.0, 2.0, 8)),
            waiting: Gauge::default(),
            connections: Gauge::default(),
            streams: Gauge::default(),
            resident: Gauge::default(),
        };
        metrics.registered()
    }

    fn registered(mut self) -> Self {
        let r = &mut self.registry;
        r.register("vultus_requests", "Requests that were answered", self.requests.clone());
        let help = "Time from a request's head to the head of its answer";
        r.register_with_unit("vultus_request_duration", help, Unit::Seconds, self.seconds.clone());
        let help = "Pictures, and rows of tensors, that were taken on or found no room, by outcome: ok, gone, or an error's code";
        r.register("vultus_pictures", help, self.pictures.clone());
        r.register("vultus_faces", "Faces that were classified", self.faces.clone());
        r.register("vultus_batch_faces", "Faces that were classified together", self.batch_faces.clone());
        r.register("vultus_pictures_in_work", "Pictures that wait or are worked on", self.waiting.clone());
        r.register("vultus_connections", "Open connections", self.connections.clone());
        r.register("vultus_streams", "Open WebSockets", self.streams.clone());
        r.register_with_unit("process_resident_memory", "Resident memory", Unit::Bytes, self.resident.clone());
        self
    }

    /// Counts pictures that ended in the same way.
    pub fn ended(&self, pictures: usize, outcome: &'static str) {
        self.pictures.get_or_create(&OutcomeLabels { outcome }).inc_by(pictures as u64);
    }

    /// All figures as text.
    pub fn text(&self) -> String {
        if let Some(bytes) = resident_bytes() {
            self.resident.set(bytes);
        }
        let mut text = String::new();
        // Writing to a text cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// Resident memory of this process, where the system tells.
fn resident_bytes() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_panics_is_counted_no_longer() {
        let gauge = Gauge::default();
        let _first = Counted::new(&gauge, 3);
        let panics = std::panic::catch_unwind(|| -> () {
            let _second = Counted::new(&gauge, 2);
            panic!("with {} counted", gauge.get());
        });
        assert_eq!((panics.is_err(), gauge.get()), (true, 3));
    }
}
