//! From a picture's bytes to an analysis, for many requests at once.
//!
//! A picture is taken on or refused: at most [`Limits::queue`] are waiting or worked on. Decoding and looking for faces
//! happens on as many threads as there are processors; all faces meet in one thread, which classifies together what has
//! come while it classified before. Nobody waits for a batch to fill.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::{io, thread};

use axum::body::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;
use vultus::analyze::{Analysis, Analyzer, Prepared};
use vultus::decode::decode;
use vultus::faces::Face;

use crate::config::Limits;
use crate::error::ApiError;
use crate::metrics::Metrics;

/// Where the faces are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Faces {
    /// Where the server's face finder sees them.
    #[default]
    Find,
    /// The picture is one face.
    Whole,
}

/// The way that all pictures take.
#[derive(Debug)]
pub(crate) struct Pipeline {
    analyzer: Arc<Analyzer>,
    limits: Limits,
    room: Arc<Semaphore>,
    workers: Arc<Semaphore>,
    classifier: mpsc::Sender<Job>,
    metrics: Arc<Metrics>,
}

/// Room for the pictures of one request.
#[derive(Debug)]
struct Ticket {
    metrics: Arc<Metrics>,
    pictures: i64,
    _room: OwnedSemaphorePermit,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.metrics.waiting.dec_by(self.pictures);
    }
}

/// Faces to classify.
struct Job {
    picture: Prepared,
    reply: oneshot::Sender<Analysis>,
}

impl Pipeline {
    /// Starts the thread that classifies; it ends when the pipeline is dropped.
    pub fn start(analyzer: Analyzer, limits: Limits, metrics: Arc<Metrics>) -> io::Result<Self> {
        let analyzer = Arc::new(analyzer);
        let (classifier, jobs) = mpsc::channel();
        let worker = (Arc::clone(&analyzer), Arc::clone(&metrics));
        thread::Builder::new()
            .name("classify".to_owned())
            .spawn(move || classify(&worker.0, &jobs, limits.batch, &worker.1))?;
        let processors = thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            analyzer,
            limits,
            room: Arc::new(Semaphore::new(limits.queue)),
            workers: Arc::new(Semaphore::new(processors)),
            classifier,
            metrics,
        })
    }

    /// Finds and classifies the faces of each picture; one result a picture, in order.
    ///
    /// # Errors
    /// No room for them, or no answer in time. What is wrong with one picture is its own result.
    pub async fn analyze(
        self: &Arc<Self>,
        pictures: Vec<Bytes>,
        faces: Faces,
    ) -> Result<Vec<Result<Analysis, ApiError>>, ApiError> {
        let _ticket = self.ticket(pictures.len())?;
        let lost = ApiError::internal("the work on a picture broke off");
        let mut results: Vec<Result<Analysis, ApiError>> = vec![Err(lost); pictures.len()];
        let mut tasks = JoinSet::new();
        for (index, bytes) in pictures.into_iter().enumerate() {
            let pipeline = Arc::clone(self);
            tasks.spawn(async move { (index, pipeline.picture(bytes, faces).await) });
        }
        let all = async {
            while let Some(done) = tasks.join_next().await {
                if let Ok((index, result)) = done {
                    results[index] = result;
                }
            }
        };
        self.in_time(all).await?;
        for result in &results {
            self.metrics.picture(result.as_ref().err().map_or("ok", ApiError::code));
        }
        Ok(results)
    }

    /// Classifies faces that are cut out and have the size of the network's input.
    ///
    /// # Errors
    /// No room for them, or no answer in time.
    pub async fn classify(&self, crops: Vec<image::GrayImage>) -> Result<Analysis, ApiError> {
        let _ticket = self.ticket(crops.len())?;
        let (width, height) = crops.first().map_or((0, 0), image::GrayImage::dimensions);
        let faces = vec![Face::whole(width, height); crops.len()];
        self.in_time(self.batched(Prepared { width, height, faces, crops })).await?
    }

    fn ticket(&self, pictures: usize) -> Result<Ticket, ApiError> {
        // What is more than all the room would never find any.
        let units = u32::try_from(pictures.min(self.limits.queue)).map_err(|_| ApiError::Overloaded)?;
        let room = Arc::clone(&self.room).try_acquire_many_owned(units).map_err(|_| ApiError::Overloaded)?;
        let pictures = i64::from(units);
        self.metrics.waiting.inc_by(pictures);
        Ok(Ticket { metrics: Arc::clone(&self.metrics), pictures, _room: room })
    }

    async fn in_time<T>(&self, work: impl Future<Output = T>) -> Result<T, ApiError> {
        let limit = self.limits.answer;
        timeout(limit, work).await.map_err(|_| ApiError::Timeout { seconds: limit.as_secs() })
    }

    async fn picture(&self, bytes: Bytes, faces: Faces) -> Result<Analysis, ApiError> {
        let permit = Arc::clone(&self.workers).acquire_owned().await.map_err(|_| ApiError::Stopping)?;
        let analyzer = Arc::clone(&self.analyzer);
        let work = move || {
            // Held until the work has ended, also where nobody waits for it any more.
            let _permit = permit;
            prepare(&analyzer, &bytes, faces)
        };
        let prepared = tokio::task::spawn_blocking(work).await.map_err(ApiError::internal)??;
        self.batched(prepared).await
    }

    async fn batched(&self, picture: Prepared) -> Result<Analysis, ApiError> {
        let (reply, answer) = oneshot::channel();
        let ended = |_| ApiError::internal("the thread that classifies has ended");
        self.classifier.send(Job { picture, reply }).map_err(ended)?;
        answer.await.map_err(|_| ApiError::internal("the classifier panicked"))
    }
}

/// Decodes a picture and finds its faces.
fn prepare(analyzer: &Analyzer, bytes: &[u8], faces: Faces) -> Result<Prepared, ApiError> {
    match faces {
        Faces::Find => Ok(analyzer.prepare_bytes(bytes)?),
        Faces::Whole => {
            let picture = decode(bytes, &analyzer.options().limits)?;
            let (width, height) = (picture.width(), picture.height());
            let crop = analyzer.classifier().preprocessing().to_face(&picture);
            Ok(Prepared { width, height, faces: vec![Face::whole(width, height)], crops: vec![crop] })
        }
    }
}

/// Classifies what comes, as much of it together as has come, up to about `batch` faces.
fn classify(analyzer: &Analyzer, jobs: &mpsc::Receiver<Job>, batch: usize, metrics: &Metrics) {
    while let Ok(first) = jobs.recv() {
        let mut faces = 0;
        let (mut pictures, mut replies) = (Vec::new(), Vec::new());
        let mut next = Some(first);
        while let Some(job) = next {
            // Nobody waits for an answer that took too long.
            if !job.reply.is_closed() {
                faces += job.picture.crops.len();
                pictures.push(job.picture);
                replies.push(job.reply);
            }
            next = if faces < batch { jobs.try_recv().ok() } else { None };
        }
        // The thread outlives a defect of the classifier: dropped replies are answered as internal errors.
        let Ok(analyses) = catch_unwind(AssertUnwindSafe(|| analyzer.classify(pictures))) else { continue };
        if faces > 0 {
            metrics.faces.inc_by(faces as u64);
            metrics.batch_faces.observe(faces as f64);
        }
        for (reply, analysis) in replies.into_iter().zip(analyses) {
            // An error says that nobody waits.
            let _ = reply.send(analysis);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
