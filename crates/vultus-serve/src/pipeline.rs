//! From a picture's bytes to an analysis, for many requests at once.
//!
//! A picture is taken on or refused: at most [`Limits::queue`] are waiting or worked on, those among them for which nobody
//! waits any more. Decoding and looking for faces happens in their order, on as many threads as there are processors, and within a budget of memory (`memory`). All faces
//! meet in one more thread, which classifies together what has come while it classified before. Nobody waits for a batch to
//! fill. The threads are the pipeline's own, because face finders keep working memory for each thread that they are used on.

mod memory;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::{io, thread};

use axum::body::Bytes;
use image::DynamicImage;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;
use vultus::analyze::{Analysis, Analyzer, Prepared};
use vultus::decode::decode;
use vultus::faces::Face;

use self::memory::PictureMemory;
use crate::config::Limits;
use crate::error::ApiError;
use crate::metrics::{Counted, GONE, Metrics};

/// Where the faces are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Faces {
    /// Where the server's face finder sees them.
    #[default]
    Find,
    /// The same; a picture in which it sees none is one face, at a confidence of 0.
    FindOrWhole,
    /// The picture is one face.
    Whole,
}

/// The way that all pictures take.
#[derive(Debug)]
pub(crate) struct Pipeline {
    limits: Limits,
    room: Arc<Semaphore>,
    pictures: mpsc::Sender<Picture>,
    classifier: mpsc::Sender<Job>,
    metrics: Arc<Metrics>,
}

/// Room for the pictures of one request, held by each until nobody works on it any more.
#[derive(Debug)]
struct Ticket {
    _waiting: Counted,
    _room: OwnedSemaphorePermit,
}

/// Where the analysis of a picture goes.
type Reply = oneshot::Sender<Result<Analysis, ApiError>>;

/// A picture to find faces in.
struct Picture {
    bytes: Bytes,
    faces: Faces,
    reply: Reply,
    room: Arc<Ticket>,
}

/// Faces to classify.
struct Job {
    picture: Prepared,
    reply: Reply,
    room: Arc<Ticket>,
}

impl Pipeline {
    /// Starts the threads; they end when the pipeline is dropped.
    pub fn start(analyzer: Analyzer, limits: Limits, metrics: Arc<Metrics>) -> io::Result<Self> {
        let analyzer = Arc::new(analyzer);
        let (classifier, jobs) = mpsc::channel();
        let (with, figures) = (Arc::clone(&analyzer), Arc::clone(&metrics));
        thread::Builder::new()
            .name("classify".to_owned())
            .spawn(move || classify(&with, &jobs, limits.batch, &figures))?;
        Self::before(classifier, &analyzer, limits, metrics)
    }

    /// Starts the threads that find faces for `classifier`.
    fn before(
        classifier: mpsc::Sender<Job>,
        analyzer: &Arc<Analyzer>,
        limits: Limits,
        metrics: Arc<Metrics>,
    ) -> io::Result<Self> {
        let (pictures, queue) = mpsc::channel();
        let shared = Arc::new((Mutex::new(queue), PictureMemory::new(limits.decoded_bytes)));
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            let (with, shared, classifier) = (Arc::clone(analyzer), Arc::clone(&shared), classifier.clone());
            thread::Builder::new()
                .name("prepare".to_owned())
                .spawn(move || prepare(&with, &shared.0, &shared.1, &classifier))?;
        }
        Ok(Self { limits, room: Arc::new(Semaphore::new(limits.queue)), pictures, classifier, metrics })
    }

    /// Finds and classifies the faces of each picture; one result a picture, in order.
    ///
    /// # Errors
    /// No room for them, or no answer in time. What is wrong with one picture is its own result.
    pub async fn analyze(
        &self,
        pictures: Vec<Bytes>,
        faces: Faces,
    ) -> Result<Vec<Result<Analysis, ApiError>>, ApiError> {
        let count = pictures.len();
        let work = async |room: Arc<Ticket>| {
            // All of them are under way before the first is waited for.
            let answers: Vec<_> = pictures.into_iter().map(|bytes| self.begin(bytes, faces, &room)).collect();
            let mut results = Vec::with_capacity(count);
            for answer in answers {
                results.push(answered(answer).await);
            }
            results
        };
        let unanswered = Unanswered { pictures: count, metrics: &self.metrics };
        let results = self.take_on(count, work).await;
        unanswered.answered(|metrics| match &results {
            Ok(results) => results.iter().for_each(|result| metrics.ended(1, outcome(result))),
            Err(error) => metrics.ended(count, error.code()),
        });
        results
    }

    /// Classifies faces that are cut out and have the size of the network's input.
    ///
    /// # Errors
    /// No room for them, or no answer in time.
    pub async fn classify(&self, crops: Vec<image::GrayImage>) -> Result<Analysis, ApiError> {
        let count = crops.len();
        let work = async |room| {
            let (width, height) = crops.first().map_or((0, 0), image::GrayImage::dimensions);
            let faces = vec![Face::whole(width, height); count];
            let (reply, answer) = oneshot::channel();
            batch(&self.classifier, Job { picture: Prepared { width, height, faces, crops }, reply, room });
            answered(answer).await
        };
        let unanswered = Unanswered { pictures: count, metrics: &self.metrics };
        let analysis = self.take_on(count, work).await.flatten();
        unanswered.answered(|metrics| metrics.ended(count, outcome(&analysis)));
        analysis
    }

    /// Does `work` on so many pictures if there is room for them, and for no longer than an answer may take.
    async fn take_on<T>(&self, pictures: usize, work: impl AsyncFnOnce(Arc<Ticket>) -> T) -> Result<T, ApiError> {
        let room = Arc::new(self.ticket(pictures)?);
        let limit = self.limits.answer;
        timeout(limit, work(room)).await.map_err(|_| ApiError::Timeout { limit })
    }

    fn ticket(&self, pictures: usize) -> Result<Ticket, ApiError> {
        let units = u32::try_from(pictures).map_err(|_| ApiError::Overloaded)?;
        let room = Arc::clone(&self.room).try_acquire_many_owned(units).map_err(|_| ApiError::Overloaded)?;
        Ok(Ticket { _waiting: Counted::new(&self.metrics.waiting, units.into()), _room: room })
    }

    fn begin(&self, bytes: Bytes, faces: Faces, room: &Arc<Ticket>) -> oneshot::Receiver<Result<Analysis, ApiError>> {
        let (reply, answer) = oneshot::channel();
        // Where no thread takes it, the reply is dropped.
        let _ = self.pictures.send(Picture { bytes, faces, reply, room: Arc::clone(room) });
        answer
    }
}

/// Pictures that are worked on for a client, who may go: then nobody goes on with what waits for them.
struct Unanswered<'a> {
    pictures: usize,
    metrics: &'a Metrics,
}

impl Unanswered<'_> {
    /// The client is there; `count` says how they ended.
    fn answered(mut self, count: impl FnOnce(&Metrics)) {
        self.pictures = 0;
        count(self.metrics);
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if self.pictures > 0 {
            self.metrics.ended(self.pictures, GONE);
        }
    }
}

fn outcome(result: &Result<Analysis, ApiError>) -> &'static str {
    result.as_ref().map_or_else(ApiError::code, |_| "ok")
}

async fn answered(answer: oneshot::Receiver<Result<Analysis, ApiError>>) -> Result<Analysis, ApiError> {
    answer.await.unwrap_or_else(|_| Err(ApiError::internal("the work on a picture broke off")))
}

/// Hands faces over to the thread that classifies.
fn batch(classifier: &mpsc::Sender<Job>, job: Job) {
    if let Err(mpsc::SendError(job)) = classifier.send(job) {
        let _ = job.reply.send(Err(ApiError::internal("the thread that classifies has ended")));
    }
}

/// Finds the faces in one picture after the other, beside other threads that do the same.
fn prepare(
    analyzer: &Analyzer,
    pictures: &Mutex<mpsc::Receiver<Picture>>,
    memory: &PictureMemory,
    classifier: &mpsc::Sender<Job>,
) {
    let input = analyzer.classifier().preprocessing();
    let side = input.width.max(input.height);
    loop {
        // Locked until there is memory for the next picture: a large one is not passed over for ever.
        let queue = pictures.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(Picture { bytes, faces, reply, room }) = queue.recv() else { return };
        // Nobody waits for an answer that took too long, here or while there was no memory.
        if reply.is_closed() {
            continue;
        }
        let work = || {
            let _share = memory.share_for(&bytes, &analyzer.options().limits, side)?;
            drop(queue);
            if reply.is_closed() {
                return Err(ApiError::Overloaded);
            }
            prepared(analyzer, &bytes, faces)
        };
        // The thread outlives a defect in the work on a picture.
        match catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(ApiError::panicked(&*panic))) {
            Ok(picture) => batch(classifier, Job { picture, reply, room }),
            Err(error) => {
                // Who has the answer may ask again at once.
                drop(room);
                let _ = reply.send(Err(error));
            }
        }
    }
}

/// Decodes a picture and finds its faces.
fn prepared(analyzer: &Analyzer, bytes: &[u8], faces: Faces) -> Result<Prepared, ApiError> {
    let picture = decode(bytes, &analyzer.options().limits)?;
    if faces == Faces::Whole {
        return Ok(whole(analyzer, &picture, 1.0));
    }
    let found = analyzer.prepare(&picture)?;
    let takes_whole = faces == Faces::FindOrWhole && found.faces.is_empty();
    Ok(if takes_whole { whole(analyzer, &picture, 0.0) } else { found })
}

fn whole(analyzer: &Analyzer, picture: &DynamicImage, confidence: f32) -> Prepared {
    let (width, height) = (picture.width(), picture.height());
    let crop = analyzer.classifier().preprocessing().to_face(picture);
    let face = Face { confidence, ..Face::whole(width, height) };
    Prepared { width, height, faces: vec![face], crops: vec![crop] }
}

/// Classifies what comes, as much of it together as has come, up to about `batch` faces.
fn classify(analyzer: &Analyzer, jobs: &mpsc::Receiver<Job>, batch: usize, metrics: &Metrics) {
    while let Ok(first) = jobs.recv() {
        let mut faces = 0;
        let (mut pictures, mut replies, mut rooms) = (Vec::new(), Vec::new(), Vec::new());
        let mut next = Some(first);
        while let Some(job) = next {
            // Nobody waits for an answer that took too long.
            if !job.reply.is_closed() {
                faces += job.picture.crops.len();
                pictures.push(job.picture);
                replies.push(job.reply);
                rooms.push(job.room);
            }
            next = if faces < batch { jobs.try_recv().ok() } else { None };
        }
        // The thread outlives a defect of the classifier.
        let analyses = catch_unwind(AssertUnwindSafe(|| analyzer.classify(pictures)));
        // Who has the answer may ask again at once.
        drop(rooms);
        let analyses = match analyses {
            Ok(analyses) => analyses,
            Err(panic) => {
                let error = ApiError::panicked(&*panic);
                for reply in replies {
                    let _ = reply.send(Err(error.clone()));
                }
                continue;
            }
        };
        if faces > 0 {
            metrics.faces.inc_by(faces as u64);
            metrics.batch_faces.observe(faces as f64);
        }
        for (reply, analysis) in replies.into_iter().zip(analyses) {
            // An error says that nobody waits.
            let _ = reply.send(Ok(analysis));
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
