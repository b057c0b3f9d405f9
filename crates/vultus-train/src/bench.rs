//! How fast a network trains and predicts on this machine.
//!
//! In: a configuration and a mode, or a finished model; a batch size and a time. Out: figures. Training is the product's
//! own loop ([`fit`]) on random pictures held in memory, batches made ahead included, without validation or files;
//! inference is the [`Plan`]; a finished model is asked as predictions ask it, by the [`Classifier`]. Operations are counted
//! from the network's description, two for each multiply-add, so that Winograd's algorithms may exceed the machine's peak.

use std::time::{Duration, Instant};

use image::GrayImage;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use vultus::bundle::{Bundle, BundleFault};
use vultus::classifier::Classifier;
use vultus::labels::Labels;
use vultus::network::{LayerConfig, ResolvedLayer, ResolvedNetwork};
use vultus::plan::Plan;
use vultus_kernels::peak;
pub use vultus_kernels::simd::InstructionSet;

use crate::config::{ClassWeights, ConfigError, FitConfig, TrainConfig};
use crate::dataset::{Dataset, Sample, split_name};
use crate::environment::processor;
use crate::fit::{FitData, FitError, Observer, StepReport, fit};
use crate::model::initial_weights;

/// The network "S": the course report's final model, without its L2 penalty.
const S: &str = include_str!("../../../configs/paper.toml");
/// The network "R": a residual network of 18 layers.
const R: &str = include_str!("../../../configs/resnet.toml");
/// Classes of FER-2013.
const CLASSES: usize = 7;
/// Steps that come before the measurement: buffers are made, clocks rise.
const WARM_UP_STEPS: usize = 3;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Forward, backward and update.
    Train,
    /// Logits of a finished network, by a plan that is sized for the batch; or a finished model's probabilities.
    Infer,
}

/// What came out.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// What was measured.
    pub mode: Mode,
    /// Version of this program.
    pub version: &'static str,
    /// Name of the processor.
    pub processor: String,
    /// Images of one step.
    pub batch: usize,
    /// Threads that compute.
    pub threads: usize,
    /// The instructions that the kernels used.
    pub instructions: &'static str,
    /// Multiply-adds of one image, forward; of all of a model's views.
    pub multiply_adds: u64,
    /// Steps that were measured.
    pub steps: usize,
    /// By the median step.
    pub images_per_second: f64,
    /// Median time of a step, in milliseconds.
    pub ms_median: f64,
    /// Time of the fastest step, in milliseconds.
    pub ms_min: f64,
    /// 1e9 operations a second, counted directly.
    pub gflops: f64,
    /// `gflops` as a share of what the machine's multiply-adders can do, measured afterwards; may exceed 1.
    pub peak_fraction: f64,
    /// Share of the time that training waited for batches; none for inference.
    pub wait_share: Option<f64>,
    /// Time from the start of the process to the end of the first step, in seconds.
    pub first_step_seconds: f64,
    /// Largest memory of the process so far in MB (2^20 bytes), where the system tells.
    pub peak_rss_mb: Option<f64>,
}

/// The configuration of a built-in network: `S` or `R`. `None` for other names.
pub fn built_in(name: &str) -> Option<Result<TrainConfig, ConfigError>> {
    let overrides = |text: &str, overrides: &[&str]| {
        let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
        TrainConfig::from_toml(text, name)?.with_overrides(&overrides)
    };
    match name {
        "S" => Some(overrides(S, &["network.layers.0.l2=0.0", "network.layers.4.l2=0.0", "network.layers.9.l2=0.0"])),
        "R" => Some(overrides(R, &[])),
        _ => None,
    }
}

/// Measures for `seconds` (at least one step) with the threads of the global pool. `started` is when the process began.
///
/// # Errors
/// A network that does not fit the pictures; whatever ends a training run.
pub fn measure(
    config: &TrainConfig,
    mode: Mode,
    batch: usize,
    seconds: f64,
    started: Instant,
) -> Result<Measured, FitError> {
    let size = &config.preprocessing;
    let network = config.network.resolve(size.height as usize, size.width as usize, CLASSES)?;
    let patience = Duration::from_secs_f64(seconds);
    let (clock, wait_share) = match mode {
        Mode::Train => train(config, batch, patience)?,
        Mode::Infer => (infer(config, &network, batch, patience)?, None),
    };
    let operations = match mode {
        Mode::Train => training_operations(&network),
        Mode::Infer => 2 * network.multiply_adds(),
    };
    Ok(Measured { wait_share, ..clock.figures(mode, batch, network.multiply_adds(), operations, started) })
}

/// Measures how fast a finished model classifies, as [`measure`] does: its probabilities, with all of its views and its temperature.
///
/// # Errors
/// Parts of the bundle that do not belong together.
pub fn measure_model(bundle: Bundle, batch: usize, seconds: f64, started: Instant) -> Result<Measured, BundleFault> {
    let network = bundle.resolve()?;
    let multiply_adds = network.multiply_adds() * bundle.inference.views.count() as u64;
    let classifier = Classifier::from_bundle(bundle)?;
    let pixels = random_pixels(batch * network.input.len(), 1);
    let clock = Clock::of(Duration::from_secs_f64(seconds), || drop(classifier.probabilities(&pixels)));
    Ok(clock.figures(Mode::Infer, batch, multiply_adds, 2 * multiply_adds, started))
}

/// Operations of forward, backward and weight gradient. A first layer with weights needs no gradient of its input.
fn training_operations(network: &ResolvedNetwork) -> u64 {
    let first = network.layers.first().filter(|layer| is_linear(layer)).map_or(0, |layer| layer.multiply_adds);
    2 * (3 * network.multiply_adds() - first)
}

fn is_linear(layer: &ResolvedLayer) -> bool {
    matches!(layer.config, LayerConfig::Conv(_) | LayerConfig::DepthwiseConv(_) | LayerConfig::Dense(_))
}

/// Times of steps.
#[derive(Default)]
struct Clock {
    /// When the first step ended.
    first: Option<Instant>,
    /// When the last step ended.
    last: Option<Instant>,
    /// When the warm-up ended.
    warm: Option<Instant>,
    seen: usize,
    times: Vec<f64>,
}

impl Clock {
    /// Times `step` until `patience` is over.
    fn of(patience: Duration, mut step: impl FnMut()) -> Self {
        let mut clock = Self::default();
        while !clock.is_over(patience) {
            step();
            clock.tick();
        }
        clock
    }

    /// One more step has ended.
    fn tick(&mut self) {
        let now = Instant::now();
        self.first.get_or_insert(now);
        self.seen += 1;
        if let Some(last) = self.last.replace(now)
            && self.seen > WARM_UP_STEPS
        {
            self.times.push(now.duration_since(last).as_secs_f64());
        }
        if self.seen == WARM_UP_STEPS {
            self.warm = Some(now);
        }
    }

    fn is_over(&self, patience: Duration) -> bool {
        !self.times.is_empty() && self.warm.is_some_and(|warm| warm.elapsed() >= patience)
    }

    /// What the times say of steps with `batch` images of `operations` each, without the time waited for data.
    fn figures(self, mode: Mode, batch: usize, multiply_adds: u64, operations: u64, started: Instant) -> Measured {
        let first = self.first.map_or(started.elapsed(), |first| first.duration_since(started));
        let threads = rayon::current_num_threads();
        let peak = peak::measure(threads);
        let mut times = self.times;
        times.sort_by(f64::total_cmp);
        let median = times[times.len() / 2];
        let gflops = operations as f64 * batch as f64 / median / 1e9;
        Measured {
            mode,
            version: env!("CARGO_PKG_VERSION"),
            processor: processor(),
            batch,
            threads,
            instructions: InstructionSet::best().name(),
            multiply_adds,
            steps: times.len(),
            images_per_second: batch as f64 / median,
            ms_median: 1e3 * median,
            ms_min: 1e3 * times[0],
            gflops,
            peak_fraction: gflops / peak,
            wait_share: None,
            first_step_seconds: first.as_secs_f64(),
            peak_rss_mb: peak_rss_mb(),
        }
    }
}

struct Stopwatch {
    clock: Clock,
    patience: Duration,
    wait_share: Option<f64>,
}

impl Observer for Stopwatch {
    fn stop_requested(&self) -> bool {
        self.clock.is_over(self.patience)
    }

    fn step(&mut self, report: &StepReport) {
        self.wait_share = Some(report.wait_share);
        self.clock.tick();
    }
}

fn train(config: &TrainConfig, batch: usize, patience: Duration) -> Result<(Clock, Option<f64>), FitError> {
    let fit_config = FitConfig {
        batch_size: batch,
        // An epoch ends every 1,024 steps at the earliest, and training never.
        epochs: usize::MAX / (1 << 32),
        class_weights: ClassWeights::None,
        optimizer: config.train.optimizer.clone(),
        schedule: config.train.schedule.clone(),
        ..FitConfig::default()
    };
    let config = TrainConfig {
        seed: config.seed,
        device: config.device.clone(),
        preprocessing: config.preprocessing.clone(),
        network: config.network.clone(),
        train: fit_config,
        ..TrainConfig::default()
    };
    let dataset = random_faces(&config, batch);
    let train: Vec<usize> = std::iter::repeat_n(0..dataset.samples.len(), 256).flatten().collect();
    let data = FitData { dataset: &dataset, train: &train, validation: &[] };
    let mut stopwatch = Stopwatch { clock: Clock::default(), patience, wait_share: None };
    fit(&config, data, None, None, &mut stopwatch)?;
    Ok((stopwatch.clock, stopwatch.wait_share))
}

/// Random pictures in memory, a few batches of them.
fn random_faces(config: &TrainConfig, batch: usize) -> Dataset {
    let (width, height) = (config.preprocessing.width, config.preprocessing.height);
    let mut generator = ChaCha8Rng::seed_from_u64(config.seed);
    let samples = (0..(4 * batch).max(64))
        .map(|index| Sample {
            image: GrayImage::from_fn(width, height, |_, _| image::Luma([generator.random()])),
            label: index % CLASSES,
            split: split_name::TRAIN.to_owned(),
            origin: format!("random {index}"),
            votes: None,
        })
        .collect();
    let names = ["angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"];
    let labels = Labels::new(names).expect("seven different names");
    Dataset { labels, samples, removed: Vec::new() }
}

fn infer(config: &TrainConfig, network: &ResolvedNetwork, batch: usize, patience: Duration) -> Result<Clock, FitError> {
    let weights = initial_weights(network, config.seed);
    let plan = Plan::for_batch(network, &weights, batch)?;
    let pixels = random_pixels(batch * network.input.len(), config.seed);
    let mut logits = vec![0.0; batch * CLASSES];
    Ok(Clock::of(patience, || plan.logits_into(&pixels, &mut logits)))
}

fn random_pixels(count: usize, seed: u64) -> Vec<f32> {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    (0..count).map(|_| generator.random_range(0.0..1.0)).collect()
}

/// The high-water mark of the process's memory, where `/proc` has it.
fn peak_rss_mb() -> Option<f64> {
    let status = fs_err::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: f64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kilobytes / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_networks_cost_what_they_are_known_to() {
        let operations = |name: &str| {
            let config = built_in(name).unwrap().unwrap();
            let network = config.network.resolve(48, 48, CLASSES).unwrap();
            [2 * network.multiply_adds(), training_operations(&network)]
                .map(|operations| (operations as f64 / 1e6).round())
        };
        assert_eq!(operations("S"), [71.0, 210.0]);
        assert_eq!(operations("R"), [624.0, 1871.0]);
        assert!(built_in("T").is_none());
    }

    #[test]
    fn both_modes_measure_something() {
        let config = TrainConfig::load(None, &["network.layers.0.filters=4".to_owned()]).unwrap();
        for mode in [Mode::Train, Mode::Infer] {
            let measured = measure(&config, mode, 2, 0.0, Instant::now()).unwrap();
            assert!(measured.steps >= 1 && measured.images_per_second > 0.0 && measured.peak_fraction > 0.0);
            assert!(measured.first_step_seconds > 0.0 && measured.ms_min <= measured.ms_median);
            assert_eq!(measured.wait_share.is_some(), mode == Mode::Train);
        }
    }
}
