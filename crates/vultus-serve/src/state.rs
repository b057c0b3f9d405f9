//! What all handlers share.

use std::io;
use std::sync::Arc;

use tokio::sync::{Semaphore, watch};
use vultus::analyze::Analyzer;

use crate::body::BodyMemory;
use crate::card::ModelCard;
use crate::config::ServeConfig;
use crate::metrics::Metrics;
use crate::pipeline::Pipeline;

/// What handlers get.
pub(crate) type App = Arc<Shared>;

/// What all handlers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub config: ServeConfig,
    pub card: ModelCard,
    pub pipeline: Arc<Pipeline>,
    pub bodies: BodyMemory,
    pub metrics: Arc<Metrics>,
    /// Room for WebSockets; all of it is free when none is open.
    pub streams: Arc<Semaphore>,
    /// Becomes true when the server is about to stop.
    pub stopping: watch::Sender<bool>,
}

impl Shared {
    /// Starts what a service needs.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn new(config: ServeConfig, analyzer: Analyzer, mut card: ModelCard) -> io::Result<Self> {
        let limits = config.limits;
        card.name.clone_from(&config.model_name);
        card.abstain_below = analyzer.options().abstain_below;
        card.pixels = analyzer.options().limits.pixels;
        (card.body_bytes, card.pictures) = (limits.body_bytes, limits.pictures);
        let metrics = Arc::new(Metrics::new());
        Ok(Self {
            card,
            pipeline: Arc::new(Pipeline::start(analyzer, limits, Arc::clone(&metrics))?),
            bodies: BodyMemory::new(limits),
            metrics,
            streams: Arc::new(Semaphore::new(limits.streams)),
            stopping: watch::Sender::new(false),
            config,
        })
    }

    /// Until the server is about to stop.
    pub async fn stopped(&self) {
        let mut stopping = self.stopping.subscribe();
        // The sender lives as long as this does.
        let _ = stopping.wait_for(|stopping| *stopping).await;
    }

    pub fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }
}
