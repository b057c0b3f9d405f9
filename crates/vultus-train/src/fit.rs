//! The training loop.
//!
//! In: a configuration, samples split into training and validation parts. Out: the chosen epoch's weights and the
//! history. With a run directory it also writes checkpoints, metrics and TensorBoard events, and goes on from the last
//! checkpoint such that the result is that of an uninterrupted run. It evaluates nothing but the validation part.

use std::time::{Duration, Instant};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use vultus::classifier::highest;
use vultus::network::ResolvedNetwork;
use vultus::plan::Plan;
use vultus::weights::{Weights, WeightsError};
use vultus_kernels::threads;

use crate::average::Average;
use crate::batches::{Batch, BatchSource, dataset_probabilities, epoch_order};
use crate::checkpoint::{BestEpoch, Checkpoint, Progress, RunningEpoch, check_size};
use crate::clean::class_weights;
use crate::config::{ClassWeights, FitConfig, Keep, Monitor, TrainConfig};
use crate::dataset::Dataset;
use crate::device::device;
use crate::evaluate::cross_entropy;
use crate::heads::Heads;
use crate::history::{self, EpochRecord};
use crate::model::{Forward, Network, initial_weights, values_of};
use crate::operations::{KeptBuffers, Operations};
use crate::optimizer::Optimizer;
use crate::run::RunDirectory;
use crate::schedule::learning_rate;
use crate::seed::{derive_seed, purpose};
use crate::sharpness::Ascent;
use crate::start::{Start, starting_weights};
use crate::targets::Teachers;
use crate::tensorboard::{EventWriter, seconds_since_1970};

mod error;
mod observer;
mod resume;

pub use self::error::FitError;
pub use self::observer::{Observer, Silent, StepReport};
use self::resume::identity;
pub use self::resume::{obstacles, resume_from};

/// What a training run works on. Indices point into the data set.
#[derive(Clone, Copy, Debug)]
pub struct FitData<'a> {
    /// All samples.
    pub dataset: &'a Dataset,
    /// Those that are trained on.
    pub train: &'a [usize],
    /// Those that validate; may be empty.
    pub validation: &'a [usize],
}

/// Why the loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// All epochs are done.
    Finished,
    /// The monitored value did not improve for long enough.
    StoppedEarly,
    /// The observer asked for it; a checkpoint was written.
    Interrupted,
}

/// What a training run leaves behind.
#[derive(Clone, Debug)]
pub struct Fitted {
    /// Why it ended.
    pub ended: Ended,
    /// Weights of the chosen epoch.
    pub weights: Weights,
    /// The chosen epoch, from 1; 0 if none was finished.
    pub epoch: usize,
    /// All finished epochs.
    pub history: Vec<EpochRecord>,
    /// Best epoch by the monitored value, where something validated.
    pub best: Option<BestEpoch>,
}

/// Trains, from the start or from `checkpoint` (see [`resume_from`]).
///
/// # Errors
/// See [`FitError`]; what was written before stays usable.
pub fn fit(
    config: &TrainConfig,
    data: FitData<'_>,
    run: Option<&RunDirectory>,
    checkpoint: Option<Checkpoint>,
    observer: &mut dyn Observer,
) -> Result<Fitted, FitError> {
    if data.train.is_empty() {
        return Err(FitError::NoImages(config.data.train_split.clone()));
    }
    let _buffers = KeptBuffers;
    let lessons = Lessons::new(config, data)?;
    let mut fitting = Fitting::new(config, data, lessons.source(config, data), run, checkpoint)?;
    let ended = fitting.run(observer)?;
    fitting.finish(ended)
}

/// Finds what [`fit`] would refuse at once, before a run has a directory: the models that it begins with or learns from,
/// and a state too large for a checkpoint.
///
/// # Errors
/// See [`FitError`].
pub fn check(config: &TrainConfig, data: FitData<'_>) -> Result<(), FitError> {
    let lessons = Lessons::new(config, data)?;
    Fitting::new(config, data, lessons.source(config, data), None, None).map(drop)
}

/// How weights do on the validation part.
#[derive(Clone, Copy)]
struct Validated {
    /// Without class weights.
    cross_entropy: f64,
    /// Sum of the L2 penalties.
    penalty: f64,
    accuracy: f64,
}

/// What images teach, from the first step to the last.
struct Lessons {
    /// [`Dataset::places`].
    places: Vec<usize>,
    class_weights: Vec<f32>,
    /// Targets of every sample of the data set.
    targets: Vec<f32>,
    teachers: Option<Teachers>,
}

impl Lessons {
    fn new(config: &TrainConfig, data: FitData<'_>) -> Result<Self, FitError> {
        let FitData { dataset, train, .. } = data;
        let targets = &config.train.targets;
        Ok(Self {
            places: dataset.places(),
            class_weights: match config.train.class_weights {
                ClassWeights::None => vec![1.0; dataset.labels.len()],
                ClassWeights::Balanced => class_weights(&dataset.class_counts(train)),
            },
            targets: targets.rows(dataset, train, config.data.labels),
            teachers: Teachers::load(targets, &dataset.labels, &config.preprocessing)?,
        })
    }

    fn source<'a>(&'a self, config: &'a TrainConfig, data: FitData<'a>) -> BatchSource<'a> {
        BatchSource {
            dataset: data.dataset,
            places: &self.places,
            preprocessing: &config.preprocessing,
            targets: &self.targets,
            teachers: self.teachers.as_ref(),
            class_weights: &self.class_weights,
            augmentation: &config.train.augmentation,
            seed: config.seed,
            batch_size: config.train.batch_size,
        }
    }
}

/// State of a run while it goes on.
struct Fitting<'a> {
    config: &'a TrainConfig,
    data: FitData<'a>,
    source: BatchSource<'a>,
    run: Option<&'a RunDirectory>,
    identity: String,
    start: Option<Start>,
    /// The network that becomes the model.
    resolved: ResolvedNetwork,
    heads: Heads,
    /// The same with all heads.
    network: Network,
    optimizer: Optimizer,
    average: Option<Average>,
    progress: Progress,
    best_weights: Option<Weights>,
    events: Option<EventWriter>,
    saved: Instant,
}

impl<'a> Fitting<'a> {
    fn new(
        config: &'a TrainConfig,
        data: FitData<'a>,
        source: BatchSource<'a>,
        run: Option<&'a RunDirectory>,
        checkpoint: Option<Checkpoint>,
    ) -> Result<Self, FitError> {
        let labels = &data.dataset.labels;
        let (height, width) = (config.preprocessing.height as usize, config.preprocessing.width as usize);
        let resolved = config.network.resolve(height, width, labels.len())?;
        let heads = config.train.targets.heads(labels.len());
        let trained = config.network.resolve(height, width, heads.columns())?;
        let device = device(&config.device)?;
        // Only checkpoints need it, and it reads every pixel.
        let identity = run.map_or_else(|| Ok(String::new()), |_| identity(config, data))?;
        let (weights, start) = match &checkpoint {
            Some(checkpoint) => (checkpoint.weights.clone(), None),
            None => {
                let seed = derive_seed(config.seed, &[purpose::WEIGHTS]);
                let (answering, start) =
                    starting_weights(&config.train.start, &config.preprocessing, &resolved, labels, seed)?;
                (heads.join(&trained, answering, || initial_weights(&trained, seed)), start)
            }
        };
        let network = Network::new(trained, &weights, &device)?.with_heads(heads);
        let train = &config.train;
        let mut optimizer = Optimizer::new(&train.optimizer, train.clip_norm, train.weight_decay, &network);
        let mut average = Average::new(train.average_decay, &network);
        let parameters = network.resolved().parameter_count();
        let averaged = if average.is_some() { parameters } else { 0 };
        check_size(parameters + optimizer.state_len(&network) + averaged)?;
        let mut progress = Progress::default();
        let mut best_weights = None;
        if let Some(checkpoint) = checkpoint {
            optimizer.restore(&network, &checkpoint.optimizer, checkpoint.progress.updates)?;
            if let (Some(average), Some(weights)) = (&mut average, &checkpoint.average) {
                average.restore(&network, weights)?;
            }
            progress = checkpoint.progress;
            if let (Some(run), Some(_)) = (run, progress.best) {
                let best = Checkpoint::load(&run.best_checkpoint(), &identity)?;
                best_weights = Some(heads.answering(network.resolved(), best.average.unwrap_or(best.weights)));
            }
        }
        let events = match run {
            Some(run) => {
                fs_err::create_dir_all(run.path().join("checkpoints"))?;
                history::restore(&run.metrics(), &progress.history)?;
                Some(EventWriter::create(run.path())?)
            }
            None => None,
        };
        Ok(Self {
            config,
            data,
            source,
            run,
            identity,
            start,
            resolved,
            heads,
            network,
            optimizer,
            average,
            progress,
            best_weights,
            events,
            saved: Instant::now(),
        })
    }

    fn run(&mut self, observer: &mut dyn Observer) -> Result<Ended, FitError> {
        if let Some(start) = &self.start {
            observer.begins(start);
        }
        let patience = self.config.train.early_stopping.patience;
        while self.progress.epoch < self.config.train.epochs {
            let idle = self.progress.epoch - self.progress.best.map_or(self.progress.epoch, |best| best.epoch);
            if patience > 0 && idle >= patience {
                return Ok(Ended::StoppedEarly);
            }
            if !self.train_epoch(observer)? {
                self.save_last()?;
                return Ok(Ended::Interrupted);
            }
            self.end_epoch(observer)?;
        }
        Ok(Ended::Finished)
    }

    /// Steps of one epoch from where it was left; `false` if the observer asked to stop.
    fn train_epoch(&mut self, observer: &mut dyn Observer) -> Result<bool, FitError> {
        let epoch = self.progress.epoch;
        let steps = self.data.train.len().div_ceil(self.config.train.batch_size);
        let order = epoch_order(self.data.train, self.config.seed, epoch);
        std::thread::scope(|scope| {
            let batches = self.source.stream(scope, epoch, order, self.progress.step);
            let mut clock = Instant::now();
            while self.progress.step < steps {
                if observer.stop_requested() {
                    return Ok(false);
                }
                let asked = Instant::now();
                // It never ends early, unless its thread panics, and then so does the scope.
                let Ok(batch) = batches.recv() else { break };
                self.progress.running.waited += asked.elapsed().as_secs_f64();
                // Other devices order their work by the thread that asks for it.
                match self.network.operations() {
                    Operations::Kernels => threads::enter(|| threads::lead(|| self.train_step(batch, steps)))?,
                    Operations::Stock => self.train_step(batch, steps)?,
                }
                self.progress.running.seconds += clock.elapsed().as_secs_f64();
                clock = Instant::now();
                let running = &self.progress.running;
                observer.step(&StepReport {
                    epoch: epoch + 1,
                    epochs: self.config.train.epochs,
                    step: self.progress.step,
                    steps,
                    loss: running.loss / running.seen as f64,
                    accuracy: running.correct as f64 / running.seen as f64,
                    wait_share: running.waited / running.seconds.max(1e-9),
                });
                let interval = Duration::from_secs_f64(self.config.train.checkpoint_minutes * 60.0);
                if !interval.is_zero() && self.saved.elapsed() >= interval {
                    self.save_last()?;
                }
            }
            Ok(true)
        })
    }

    fn train_step(&mut self, batch: Batch, steps: usize) -> Result<(), FitError> {
        let all_steps = (steps * self.config.train.epochs) as u64;
        let rate = learning_rate(
            &self.config.train.schedule,
            self.config.train.optimizer.learning_rate(),
            self.progress.updates,
            all_steps,
        );
        let labels: Vec<usize> = batch.indices.iter().map(|&index| self.data.dataset.samples[index].label).collect();
        let radius = self.config.train.sharpness_radius;
        let again = (radius > 0.0).then(|| batch.clone());
        let forward = self.forward(batch, rate)?;
        let mut gradients = self.network.gradients(&forward.loss);
        if let Some(batch) = again {
            let ascent = Ascent::new(&mut self.network, gradients, radius);
            let above = self.forward(batch, rate).map_err(|error| match error {
                FitError::NotFinite { epoch, step, .. } => FitError::TooFarUp { radius, epoch, step },
                error => error,
            })?;
            gradients = self.network.gradients(&above.loss);
            ascent.back(&mut self.network);
        }
        self.optimizer.update(&mut self.network, gradients, rate);
        if let Some(average) = &mut self.average {
            average.update(&self.network, self.progress.updates);
        }
        let running = &mut self.progress.running;
        running.loss += f64::from(values_of(forward.loss.inner())[0]) * labels.len() as f64;
        running.correct += count_correct(&values_of(forward.probabilities), &labels);
        running.seen += labels.len();
        self.progress.step += 1;
        self.progress.updates += 1;
        Ok(())
    }

    /// One pass over `batch`, at the learning rate `rate`.
    fn forward(&mut self, batch: Batch, rate: f64) -> Result<Forward, FitError> {
        let dropout_seed = derive_seed(self.config.seed, &[purpose::DROPOUT, self.progress.updates]);
        let forward = self.network.forward(batch.pixels, batch.targets, batch.weights, dropout_seed);
        let loss = values_of(forward.loss.clone().inner())[0];
        if !loss.is_finite() {
            return Err(FitError::NotFinite {
                loss,
                epoch: self.progress.epoch + 1,
                step: self.progress.step + 1,
                learning_rate: rate,
                batch: self.name_batch(&batch.indices),
            });
        }
        Ok(forward)
    }

    fn name_batch(&self, indices: &[usize]) -> String {
        let named = indices.iter().take(3).map(|&index| self.data.dataset.samples[index].origin.as_str());
        named.collect::<Vec<_>>().join(", ")
    }

    fn end_epoch(&mut self, observer: &mut dyn Observer) -> Result<(), FitError> {
        let started = Instant::now();
        let validated = self.validate()?;
        let running = std::mem::take(&mut self.progress.running);
        let last_rate = learning_rate(
            &self.config.train.schedule,
            self.config.train.optimizer.learning_rate(),
            self.progress.updates.saturating_sub(1),
            (self.progress.step * self.config.train.epochs) as u64,
        );
        let RunningEpoch { loss, correct, seen, seconds, waited } = running;
        let record = EpochRecord {
            epoch: self.progress.epoch + 1,
            loss: loss / seen as f64,
            accuracy: correct as f64 / seen as f64,
            val_loss: validated.map(|validated| validated.cross_entropy + validated.penalty),
            val_cross_entropy: validated.map(|validated| validated.cross_entropy),
            val_accuracy: validated.map(|validated| validated.accuracy),
            learning_rate: last_rate,
            images_per_second: seen as f64 / seconds.max(1e-9),
            wait_share: (waited / seconds.max(1e-9)).min(1.0),
            seconds: seconds + started.elapsed().as_secs_f64(),
        };
        self.progress.epoch += 1;
        self.progress.step = 0;
        self.progress.history.push(record.clone());
        // Never an earlier epoch, whose weights are gone.
        let better = better_epoch(&self.config.train, self.progress.best, &record);
        let improved = better.is_some();
        if improved {
            self.progress.best = better;
            self.best_weights = Some(self.weights());
        }
        if let Some(run) = self.run {
            if improved {
                self.checkpoint().save(&run.best_checkpoint())?;
            }
            self.save_last()?;
            history::append(&run.metrics(), &record)?;
            self.write_events(&record)?;
        }
        observer.epoch(&record);
        Ok(())
    }

    /// What the validation part says of the weights; `None` without one.
    fn validate(&self) -> Result<Option<Validated>, FitError> {
        if self.data.validation.is_empty() {
            return Ok(None);
        }
        let weights = self.weights();
        let resolved = &self.resolved;
        let plan = Plan::new(resolved, &weights)?;
        let classify = |pixels: &[f32]| plan.probabilities(pixels);
        let probabilities =
            dataset_probabilities(classify, &self.config.preprocessing, self.data.dataset, self.data.validation);
        let classes = resolved.classes;
        let labels: Vec<usize> =
            self.data.validation.iter().map(|&index| self.data.dataset.samples[index].label).collect();
        let rows = probabilities.chunks_exact(classes).zip(&labels);
        let entropy: f64 = rows.map(|(row, &label)| cross_entropy(row[label], f32::MIN_POSITIVE)).sum();
        let (cross_entropy, penalty) = (entropy / labels.len() as f64, penalty(resolved, &weights)?);
        let loss = cross_entropy + penalty;
        if !loss.is_finite() {
            return Err(FitError::ValidationNotFinite { loss, epoch: self.progress.epoch + 1 });
        }
        let accuracy = count_correct(&probabilities, &labels) as f64 / labels.len() as f64;
        Ok(Some(Validated { cross_entropy, penalty, accuracy }))
    }

    /// The weights that validate and become the model: the average, where there is one, of what answers the labels.
    fn weights(&self) -> Weights {
        let all =
            self.average.as_ref().map_or_else(|| self.network.weights(), |average| average.weights(&self.network));
        self.heads.answering(self.network.resolved(), all)
    }

    fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            identity: self.identity.clone(),
            progress: self.progress.clone(),
            weights: self.network.weights(),
            optimizer: self.optimizer.state(&self.network),
            average: self.average.as_ref().map(|average| average.weights(&self.network)),
        }
    }

    fn save_last(&mut self) -> Result<(), FitError> {
        if let Some(run) = self.run {
            self.checkpoint().save(&run.last_checkpoint())?;
        }
        self.saved = Instant::now();
        Ok(())
    }

    fn write_events(&mut self, record: &EpochRecord) -> Result<(), FitError> {
        let Some(events) = &mut self.events else { return Ok(()) };
        let now = seconds_since_1970();
        let values = [
            ("loss/train", Some(record.loss)),
            ("loss/validation", record.val_loss),
            ("accuracy/train", Some(record.accuracy)),
            ("accuracy/validation", record.val_accuracy),
            ("learning_rate", Some(record.learning_rate)),
            ("images_per_second", Some(record.images_per_second)),
            ("wait_share", Some(record.wait_share)),
        ];
        for (tag, value) in values {
            if let Some(value) = value {
                events.scalar(tag, record.epoch as u64, value as f32, now)?;
            }
        }
        Ok(events.flush()?)
    }

    fn finish(mut self, ended: Ended) -> Result<Fitted, FitError> {
        let best = self.progress.best;
        let (weights, epoch) = match (self.config.train.keep, self.best_weights.take(), best) {
            (Keep::Best, Some(weights), Some(best)) => (weights, best.epoch),
            _ => (self.weights(), self.progress.epoch),
        };
        Ok(Fitted { ended, weights, epoch, history: self.progress.history, best })
    }
}

/// `sum(l2 * sum(kernel^2))` over the layers.
fn penalty(resolved: &ResolvedNetwork, weights: &Weights) -> Result<f64, WeightsError> {
    let mut sum = 0.0;
    for layer in resolved.every_layer() {
        let l2 = layer.config.l2();
        if l2 > 0.0 {
            sum += l2 * vultus_kernels::optimizer::squared_sum(&weights.get(&layer.parameters[0].name)?.data);
        }
    }
    Ok(sum)
}

/// The best epoch by the monitored value: each must beat the best before it by more than `min_delta`. `None` where
/// nothing validated.
pub fn best_epoch(config: &FitConfig, history: &[EpochRecord]) -> Option<BestEpoch> {
    history.iter().fold(None, |best, record| better_epoch(config, best, record).or(best))
}

/// The epoch of `record`, if it is better than `best`.
fn better_epoch(config: &FitConfig, best: Option<BestEpoch>, record: &EpochRecord) -> Option<BestEpoch> {
    let (value, sign) = match config.monitor {
        Monitor::ValAccuracy => (record.val_accuracy?, 1.0),
        Monitor::ValLoss => (record.val_loss?, -1.0),
    };
    let better = best.is_none_or(|best| sign * (value - best.value) > config.early_stopping.min_delta);
    better.then_some(BestEpoch { epoch: record.epoch, value })
}

fn count_correct(probabilities: &[f32], labels: &[usize]) -> usize {
    let classes = probabilities.len() / labels.len();
    probabilities.par_chunks_exact(classes).zip(labels).filter(|(row, label)| highest(row) == **label).count()
}

#[cfg(test)]
mod tests;
