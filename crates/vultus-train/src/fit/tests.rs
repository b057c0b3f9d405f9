//! The loop as a whole, on a small network and drawn faces.

use vultus::bundle::Bundle;
use vultus::network::{
    Activation, BatchNormConfig, ConvConfig, DenseConfig, DropoutConfig, FlattenConfig, GlobalAveragePoolConfig,
    LayerConfig, NetworkConfig, Padding, PoolConfig, ResidualConfig,
};
use vultus::plan::Plan;

use super::*;
use crate::config::{FitConfig, OptimizerConfig, SgdConfig};
use crate::prepare::{Prepared, prepare};

fn small_network(dropout: f64) -> NetworkConfig {
    NetworkConfig {
        layers: vec![
            LayerConfig::Conv(ConvConfig {
                filters: 6,
                kernel: 3,
                stride: 2,
                padding: Padding::Same,
                bias: true,
                activation: Activation::Relu,
                l2: 0.001,
            }),
            LayerConfig::BatchNorm(BatchNormConfig { momentum: 0.9, epsilon: 1e-3 }),
            LayerConfig::MaxPool(PoolConfig { size: 2 }),
            LayerConfig::Dropout(DropoutConfig { rate: dropout }),
            LayerConfig::Flatten(FlattenConfig {}),
            LayerConfig::Dense(DenseConfig { units: 16, activation: Activation::Elu, l2: 0.0 }),
        ],
    }
}

/// A stem, a block with an identity shortcut and dropout, one that changes the shape, and the mean of each plane.
fn residual_network(dropout: f64) -> NetworkConfig {
    let conv = |filters, kernel, stride, l2| {
        let (padding, activation) = (Padding::Same, Activation::Linear);
        LayerConfig::Conv(ConvConfig { filters, kernel, stride, padding, bias: false, activation, l2 })
    };
    let norm = || LayerConfig::BatchNorm(BatchNormConfig { momentum: 0.9, epsilon: 1e-5 });
    let block =
        |layers, shortcut| LayerConfig::Residual(ResidualConfig { activation: Activation::Relu, layers, shortcut });
    let dropout = LayerConfig::Dropout(DropoutConfig { rate: dropout });
    NetworkConfig {
        layers: vec![
            conv(6, 3, 2, 0.001),
            norm(),
            block(vec![conv(6, 3, 1, 0.001), norm(), dropout], vec![]),
            block(vec![conv(12, 3, 2, 0.0), norm(), conv(12, 3, 1, 0.0), norm()], vec![conv(12, 1, 2, 0.001), norm()]),
            LayerConfig::GlobalAveragePool(GlobalAveragePoolConfig {}),
        ],
    }
}

fn config() -> TrainConfig {
    let mut config = TrainConfig { network: small_network(0.2), ..TrainConfig::default() };
    config.data.sources = vec!["synthetic:10".to_owned()];
    config.train.epochs = 3;
    config.train.batch_size = 8;
    config
}

fn run_silently(config: &TrainConfig, prepared: &Prepared) -> Fitted {
    fit(config, data(prepared), None, None, &mut Silent).unwrap()
}

fn data(prepared: &Prepared) -> FitData<'_> {
    FitData { dataset: &prepared.dataset, train: &prepared.train, validation: &prepared.validation }
}

/// Records without what depends on the clock.
fn timeless(history: &[EpochRecord]) -> Vec<EpochRecord> {
    let strip =
        |record: &EpochRecord| EpochRecord { images_per_second: 0.0, wait_share: 0.0, seconds: 0.0, ..record.clone() };
    history.iter().map(strip).collect()
}

/// Stops after a number of steps.
struct StopAfter(std::cell::Cell<usize>);

impl Observer for StopAfter {
    fn stop_requested(&self) -> bool {
        let left = self.0.get();
        self.0.set(left.saturating_sub(1));
        left == 0
    }
}

#[test]
fn a_handful_of_images_is_learnt_by_heart() {
    let mut config = config();
    config.network = small_network(0.0);
    config.data.sources = vec!["synthetic:2".to_owned()];
    config.train.validation_fraction = 0.0;
    config.train.epochs = 40;
    let prepared = prepare(&config).unwrap();
    let fitted = run_silently(&config, &prepared);
    let (first, last) = (&fitted.history[0], &fitted.history[39]);
    assert_eq!(last.accuracy, 1.0, "{:?}", fitted.history.last());
    assert!(last.loss < 0.3 * first.loss, "{} to {}", first.loss, last.loss);
    assert_eq!((fitted.epoch, fitted.ended), (40, Ended::Finished));
    assert_eq!(last.val_accuracy, None);
}

#[test]
fn a_residual_network_learns_a_handful_of_images_by_heart_and_keeps_them_in_a_bundle() {
    let mut config = config();
    config.network = residual_network(0.0);
    config.data.sources = vec!["synthetic:2".to_owned()];
    config.train.validation_fraction = 0.0;
    config.train.epochs = 200;
    config.train.batch_size = 14;
    config.train.optimizer = OptimizerConfig::Sgd(SgdConfig { learning_rate: 0.05, momentum: 0.9, nesterov: true });
    let prepared = prepare(&config).unwrap();
    let fitted = run_silently(&config, &prepared);
    let (first, last) = (&fitted.history[0], fitted.history.last().unwrap());
    assert_eq!(last.accuracy, 1.0, "{last:?}");
    assert!(last.loss < 0.3 * first.loss, "{} to {}", first.loss, last.loss);

    let bundle = Bundle {
        inference: Default::default(),
        labels: prepared.dataset.labels.clone(),
        preprocessing: config.preprocessing.clone(),
        network: config.network.clone(),
        weights: fitted.weights.clone(),
        training: serde_json::Value::Null,
        metrics: serde_json::Value::Null,
    };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.safetensors");
    bundle.save(&path).unwrap();
    let loaded = Bundle::load(&path).unwrap();
    assert_eq!(loaded, bundle);
    let plan = |bundle: &Bundle| Plan::new(&bundle.resolve().unwrap(), &bundle.weights).unwrap();
    let pixels: Vec<f32> = (0..2 * plan(&bundle).inputs()).map(|index| (index * 37 % 256) as f32).collect();
    assert_eq!(plan(&loaded).probabilities(&pixels), plan(&bundle).probabilities(&pixels));
}

#[test]
fn a_residual_network_resumes_from_a_checkpoint_as_if_uninterrupted() {
    let mut config = config();
    config.network = residual_network(0.2);
    let prepared = prepare(&config).unwrap();
    let whole = run_silently(&config, &prepared);
    let directory = tempfile::tempdir().unwrap();
    let run = RunDirectory::create(&directory.path().join("run"), &config).unwrap();
    fit(&config, data(&prepared), Some(&run), None, &mut StopAfter(std::cell::Cell::new(10))).unwrap();
    let checkpoint = resume_from(&config, data(&prepared), &run).unwrap();
    let resumed = fit(&config, data(&prepared), Some(&run), checkpoint, &mut Silent).unwrap();
    assert_eq!(timeless(&resumed.history), timeless(&whole.history));
    assert_eq!(resumed.weights, whole.weights);
}

#[test]
fn the_seed_decides_everything() {
    let config = config();
    let prepared = prepare(&config).unwrap();
    let first = run_silently(&config, &prepared);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let second = pool.install(|| run_silently(&config, &prepared));
    assert_eq!(timeless(&first.history), timeless(&second.history));
    assert_eq!(first.weights, second.weights);
    let other = run_silently(&TrainConfig { seed: 2, ..config.clone() }, &prepared);
    assert_ne!(timeless(&first.history), timeless(&other.history));
}

#[test]
fn resumed_equals_uninterrupted() {
    let config = config();
    let prepared = prepare(&config).unwrap();
    let whole = run_silently(&config, &prepared);
    // 7 steps an epoch: in the middle of the first, at the end of one, in the middle of the last.
    for steps in [3, 7, 17] {
        let directory = tempfile::tempdir().unwrap();
        let run = RunDirectory::create(&directory.path().join("run"), &config).unwrap();
        let stopped =
            fit(&config, data(&prepared), Some(&run), None, &mut StopAfter(std::cell::Cell::new(steps))).unwrap();
        assert_eq!(stopped.ended, Ended::Interrupted);
        let checkpoint = resume_from(&config, data(&prepared), &run).unwrap();
        assert_eq!(checkpoint.as_ref().unwrap().progress.updates, steps as u64);
        let resumed = fit(&config, data(&prepared), Some(&run), checkpoint, &mut Silent).unwrap();
        assert_eq!(timeless(&resumed.history), timeless(&whole.history), "after {steps} steps");
        assert_eq!(resumed.weights, whole.weights, "after {steps} steps");
        assert_eq!(resumed.best, whole.best);
        assert_eq!(timeless(&history::read(&run.metrics()).unwrap()), timeless(&whole.history));
    }
}

#[test]
fn a_checkpoint_of_another_network_is_refused() {
    let config = config();
    let prepared = prepare(&config).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let run = RunDirectory::create(&directory.path().join("run"), &config).unwrap();
    fit(&config, data(&prepared), Some(&run), None, &mut StopAfter(std::cell::Cell::new(1))).unwrap();
    let other = TrainConfig { network: small_network(0.3), ..config };
    let message = resume_from(&other, data(&prepared), &run).unwrap_err().to_string();
    assert!(message.contains("its network.layers differs"), "{message}");
}

#[test]
fn a_loss_that_is_no_number_names_epoch_step_and_images() {
    let mut config = config();
    config.train.optimizer = OptimizerConfig::Sgd(SgdConfig { learning_rate: 1e20, momentum: 0.9, nesterov: false });
    let prepared = prepare(&config).unwrap();
    let error = fit(&config, data(&prepared), None, None, &mut Silent).unwrap_err();
    let FitError::NotFinite { epoch, step, .. } = &error else { panic!("{error}") };
    assert!(*epoch == 1 && *step > 1, "epoch {epoch}, step {step}");
    assert!(error.to_string().contains("synthetic train"), "{error}");
}

#[test]
fn early_stopping_counts_epochs_without_improvement() {
    let mut config = config();
    config.train.epochs = 30;
    config.train.early_stopping.patience = 2;
    // Nothing improves by this much after the first epoch.
    config.train.early_stopping.min_delta = 1.0;
    let prepared = prepare(&config).unwrap();
    let fitted = run_silently(&config, &prepared);
    assert_eq!((fitted.ended, fitted.history.len(), fitted.epoch), (Ended::StoppedEarly, 3, 1));
}

/// The weights after so many epochs.
fn weights_after(epochs: usize, config: &TrainConfig, prepared: &Prepared) -> Weights {
    let mut config = config.clone();
    (config.train.epochs, config.train.keep) = (epochs, Keep::Last);
    run_silently(&config, prepared).weights
}

#[test]
fn last_or_best_epoch_is_kept() {
    let mut config = config();
    config.train.epochs = 5;
    config.train.keep = Keep::Last;
    let prepared = prepare(&config).unwrap();
    let last = run_silently(&config, &prepared);
    assert_eq!(last.epoch, 5);
    for monitor in [Monitor::ValAccuracy, Monitor::ValLoss] {
        config.train.monitor = monitor;
        config.train.keep = Keep::Best;
        let best = run_silently(&config, &prepared);
        let value = |record: &EpochRecord| match monitor {
            Monitor::ValAccuracy => record.val_accuracy.unwrap(),
            Monitor::ValLoss => -record.val_loss.unwrap(),
        };
        let highest = best.history.iter().map(value).fold(f64::NEG_INFINITY, f64::max);
        let first = best.history.iter().find(|record| value(record) == highest).unwrap();
        assert_eq!((best.epoch, best.best.unwrap().epoch), (first.epoch, first.epoch));
        assert_eq!(best.weights, weights_after(best.epoch, &config, &prepared));
    }
}

/// As checkpoints were before their identity had the settings of `train`.
fn make_older(path: &std::path::Path, identity: &str, change: impl Fn(&mut Progress)) {
    let mut checkpoint = Checkpoint::load(path, identity).unwrap();
    let mut older: serde_json::Value = serde_json::from_str(identity).unwrap();
    older.as_object_mut().unwrap().shift_remove("train");
    checkpoint.identity = older.to_string();
    change(&mut checkpoint.progress);
    checkpoint.save(path).unwrap();
}

#[test]
fn an_older_run_goes_on_and_its_best_epoch_has_its_own_weights() {
    let mut config = config();
    config.train.epochs = 2;
    // The first epoch stays the best.
    config.train.early_stopping.min_delta = 1.0;
    let prepared = prepare(&config).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let run = RunDirectory::create(&directory.path().join("run"), &config).unwrap();
    fit(&config, data(&prepared), Some(&run), None, &mut Silent).unwrap();
    let first = identity(&config, data(&prepared)).unwrap();
    // By another judgement it would be the second, whose weights nobody kept.
    for path in [run.last_checkpoint(), run.best_checkpoint()] {
        make_older(&path, &first, |progress| {
            for record in &mut progress.history[1..] {
                record.val_accuracy = Some(2.0);
            }
        });
    }
    config.train.early_stopping.min_delta = 0.0;
    config.train.epochs = 4;
    let checkpoint = resume_from(&config, data(&prepared), &run).unwrap();
    assert_eq!(checkpoint.as_ref().unwrap().progress.best.unwrap().epoch, 1);
    let resumed = fit(&config, data(&prepared), Some(&run), checkpoint, &mut Silent).unwrap();
    assert_eq!(resumed.history.len(), 4);
    assert_eq!(resumed.weights, weights_after(resumed.epoch, &config, &prepared), "epoch {}", resumed.epoch);
    // What it writes now knows its settings.
    config.train.monitor = Monitor::ValLoss;
    let message = resume_from(&config, data(&prepared), &run).unwrap_err().to_string();
    assert!(message.contains("its train.monitor differs"), "{message}");
}

#[test]
fn an_epoch_that_has_begun_cannot_be_left_out() {
    let mut config = config();
    let prepared = prepare(&config).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let run = RunDirectory::create(&directory.path().join("run"), &config).unwrap();
    let steps = prepared.train.len().div_ceil(config.train.batch_size);
    fit(&config, data(&prepared), Some(&run), None, &mut StopAfter(std::cell::Cell::new(2 * steps + 1))).unwrap();
    config.train.epochs = 2;
    let message = resume_from(&config, data(&prepared), &run).unwrap_err().to_string();
    assert_eq!(message, "epoch 3 has begun: train.epochs cannot be less");
    config.train.epochs = 3;
    assert!(resume_from(&config, data(&prepared), &run).unwrap().is_some());
}

#[test]
fn settings_that_decide_a_run_are_part_of_it() {
    let config = config();
    let prepared = prepare(&config).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let run = RunDirectory::create(&directory.path().join("run"), &config).unwrap();
    fit(&config, data(&prepared), Some(&run), None, &mut StopAfter(std::cell::Cell::new(1))).unwrap();
    let resume = |text: &str| {
        let other = config.with_overrides(&[text.to_owned()]).unwrap();
        resume_from(&other, data(&prepared), &run).map(drop).map_err(|error| error.to_string())
    };
    for text in ["train.epochs=9", "train.keep=last", "train.checkpoint_minutes=1", "train.start=gone.safetensors"] {
        resume(text).unwrap();
    }
    for text in [
        "train.monitor=val_loss",
        "train.early_stopping.min_delta=0.1",
        "train.early_stopping.patience=9",
        "train.class_weights=none",
        "train.schedule.type=cosine",
        "train.augmentation.flip=1.0",
        "train.targets.smoothing=0.1",
        "train.clip_norm=1.0",
        "train.weight_decay=0.1",
        "train.average_decay=0.9",
        "train.sharpness_radius=0.05",
        "train.optimizer.learning_rate=0.1",
    ] {
        let key = text.split('=').next().unwrap();
        let key = key.strip_prefix("train.").filter(|key| key.starts_with("optimizer")).unwrap_or(key);
        let message = resume(text).unwrap_err();
        assert!(message.contains(&format!("its {key} differs")), "{message}");
    }
}

#[test]
fn a_small_radius_changes_the_way_a_little_and_a_large_one_more() {
    let trained = |radius: &str| {
        let config = config().with_overrides(&[format!("train.sharpness_radius={radius}")]).unwrap();
        let weights = run_silently(&config, &prepare(&config).unwrap()).weights;
        let kernels = weights.get("layers.0.weight").unwrap().data.clone();
        kernels.into_iter().map(f64::from).collect::<Vec<_>>()
    };
    let plain = trained("0");
    let [near, far] = ["1e-4", "0.3"].map(|radius| {
        let squares = trained(radius).iter().zip(&plain).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
        squares.sqrt()
    });
    assert!(near > 0.0 && near < 0.2 * far, "{near} {far}");
    let config = config().with_overrides(&["train.sharpness_radius=1e30".to_owned()]).unwrap();
    let prepared = prepare(&config).unwrap();
    let error = fit(&config, data(&prepared), None, None, &mut Silent).unwrap_err();
    assert!(error.is_divergence() && error.to_string().contains("lower train.sharpness_radius"), "{error}");
}

#[test]
fn what_would_be_refused_is_found_before_there_is_a_directory() {
    let mut config = config();
    let prepared = prepare(&config).unwrap();
    let refusal = |config: &TrainConfig| check(config, data(&prepared)).unwrap_err().to_string();
    check(&config, data(&prepared)).unwrap();
    config.train.targets.distillation = 0.5;
    config.train.targets.teachers = vec!["absent.safetensors".to_owned()];
    assert!(refusal(&config).contains("train.targets.teachers"));
    config.train.targets.distillation = 0.0;
    config.train.start = "absent.safetensors".to_owned();
    assert!(refusal(&config).contains("train.start"));
}

#[test]
fn a_best_checkpoint_later_than_the_last_is_resumed_from() {
    let mut config = config();
    config.train.monitor = Monitor::ValLoss;
    let prepared = prepare(&config).unwrap();
    let whole = run_silently(&config, &prepared);
    let directory = tempfile::tempdir().unwrap();
    let run = RunDirectory::create(&directory.path().join("run"), &config).unwrap();
    // Killed after the first epoch's best checkpoint was written, and before its last one was.
    fit(&config, data(&prepared), Some(&run), None, &mut StopAfter(std::cell::Cell::new(3))).unwrap();
    let early = fs_err::read(run.last_checkpoint()).unwrap();
    let checkpoint = resume_from(&config, data(&prepared), &run).unwrap();
    fit(&config, data(&prepared), Some(&run), checkpoint, &mut StopAfter(std::cell::Cell::new(4))).unwrap();
    fs_err::write(run.last_checkpoint(), early).unwrap();
    let checkpoint = resume_from(&config, data(&prepared), &run).unwrap().unwrap();
    assert_eq!((checkpoint.progress.epoch, checkpoint.progress.updates), (1, 7));
    let resumed = fit(&config, data(&prepared), Some(&run), Some(checkpoint), &mut Silent).unwrap();
    assert_eq!(timeless(&resumed.history), timeless(&whole.history));
    assert_eq!(resumed.weights, whole.weights);
}

#[test]
fn another_choice_of_images_is_another_run() {
    let config = config();
    let prepared = prepare(&config).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let run = RunDirectory::create(&directory.path().join("run"), &config).unwrap();
    fit(&config, data(&prepared), Some(&run), None, &mut StopAfter(std::cell::Cell::new(1))).unwrap();
    let swapped = FitData { train: &prepared.train[1..], validation: &prepared.validation, ..data(&prepared) };
    let message = resume_from(&config, swapped, &run).unwrap_err().to_string();
    assert!(message.contains("its data differs"), "{message}");
}

/// Runs go on with later versions of the program: what makes no difference to a run is not in its identity.
#[test]
fn votes_and_teachers_are_part_of_a_run_that_learns_from_them() {
    let mut config = config();
    let mut prepared = prepare(&config).unwrap();
    let of = |config: &TrainConfig, prepared: &Prepared| -> serde_json::Value {
        serde_json::from_str(&identity(config, data(prepared)).unwrap()).unwrap()
    };
    let plain = of(&config, &prepared);
    let facts: Vec<&String> = plain.as_object().unwrap().keys().collect();
    let known = ["labels", "network", "optimizer", "preprocessing", "seed", "batch_size", "data", "images", "train"];
    assert_eq!(facts, known);

    let (first, second) = (prepared.train[0], prepared.train[1]);
    prepared.dataset.samples[first].votes = Some([1; 10]);
    assert_eq!(of(&config, &prepared), plain);
    config.train.targets.votes = 0.5;
    let voted = of(&config, &prepared);
    prepared.dataset.samples[second].votes = Some([1; 10]);
    assert_ne!(of(&config, &prepared)["votes"], voted["votes"]);
    assert_eq!(of(&config, &prepared)["data"], voted["data"]);

    let directory = tempfile::tempdir().unwrap();
    let [here, there] = ["here", "there"].map(|name| directory.path().join(name));
    fs_err::write(&here, "weights").unwrap();
    fs_err::write(&there, "weights").unwrap();
    config.train.targets.votes = 0.0;
    let mut taught_by = |teacher: &std::path::Path, distillation: f64| {
        config.train.targets.teachers = vec![teacher.display().to_string()];
        config.train.targets.distillation = distillation;
        of(&config, &prepared)
    };
    let taught = taught_by(&here, 0.5);
    assert_eq!(taught_by(&there, 0.5), taught, "the same file in another place");
    fs_err::write(&there, "other weights").unwrap();
    assert_ne!(taught_by(&there, 0.5)["teachers"], taught["teachers"]);
    assert_eq!(taught_by(&there, 0.0), plain, "nobody is asked");
    config.train.targets.distillation = 0.5;
    config.train.targets.teachers = vec!["absent.safetensors".to_owned()];
    let error = identity(&config, data(&prepared)).unwrap_err().to_string();
    assert!(error.contains("train.targets.teachers") && error.contains("absent.safetensors"), "{error}");
}

#[test]
fn images_of_other_splits_change_nothing() {
    let mut config = config();
    let augmentation = &mut config.train.augmentation;
    (augmentation.flip, augmentation.noise, augmentation.mixup) = (1.0, 0.5, 0.5);
    let prepared = prepare(&config).unwrap();
    // A test image more, in front of all others.
    let mut more = prepared.clone();
    let mut sample = more.dataset.samples[0].clone();
    "test".clone_into(&mut sample.split);
    more.dataset.samples.insert(0, sample);
    more.train.iter_mut().chain(&mut more.validation).for_each(|index| *index += 1);
    let [fitted, with_more] = [&prepared, &more].map(|prepared| run_silently(&config, prepared));
    assert_eq!(timeless(&fitted.history), timeless(&with_more.history));
    assert_eq!(fitted.weights, with_more.weights);
}

#[test]
fn the_validation_loss_is_told_with_and_without_penalties() {
    let config = config();
    let prepared = prepare(&config).unwrap();
    let fitted = run_silently(&config, &prepared);
    let record = fitted.history.last().unwrap();
    let kernel = &fitted.weights.get("layers.0.weight").unwrap().data;
    let penalty: f64 = kernel.iter().map(|&value| 0.001 * f64::from(value).powi(2)).sum();
    let difference = record.val_loss.unwrap() - record.val_cross_entropy.unwrap();
    assert!(penalty > 0.0 && (difference - penalty).abs() < 1e-4 * penalty, "{difference} {penalty}");
}

/// Prepared images of which every third has no votes.
fn with_votes(config: &TrainConfig) -> Prepared {
    let mut prepared = prepare(config).unwrap();
    for (index, sample) in prepared.dataset.samples.iter_mut().enumerate().filter(|(index, _)| index % 3 > 0) {
        let mut votes = [0; 10];
        votes[(sample.label + index % 2) % 8] = 7;
        sample.votes = Some(votes);
    }
    prepared
}

#[test]
fn a_head_for_votes_is_resumed_with_and_is_no_part_of_the_model() {
    let mut config = config();
    config.train.targets.votes_head = 0.5;
    config.train.average_decay = 0.9;
    config.train.keep = Keep::Best;
    let prepared = with_votes(&config);
    let whole = run_silently(&config, &prepared);
    let resolved = config.network.resolve(48, 48, prepared.dataset.labels.len()).unwrap();
    whole.weights.check(&resolved).unwrap();
    // Before the first epoch's end, and between the best one and the last.
    for steps in [3, 17] {
        let directory = tempfile::tempdir().unwrap();
        let run = RunDirectory::create(&directory.path().join("run"), &config).unwrap();
        fit(&config, data(&prepared), Some(&run), None, &mut StopAfter(std::cell::Cell::new(steps))).unwrap();
        let checkpoint = resume_from(&config, data(&prepared), &run).unwrap();
        let resumed = fit(&config, data(&prepared), Some(&run), checkpoint, &mut Silent).unwrap();
        assert_eq!(timeless(&resumed.history), timeless(&whole.history), "after {steps} steps");
        assert_eq!(resumed.weights, whole.weights, "after {steps} steps");
    }
    let without =
        TrainConfig { train: FitConfig { targets: Default::default(), ..config.train.clone() }, ..config.clone() };
    assert_ne!(run_silently(&without, &prepared).weights, whole.weights);
}

#[test]
fn a_head_without_votes_changes_nothing_but_rounding() {
    let mut config = config();
    config.train.epochs = 1;
    let prepared = prepare(&config).unwrap();
    let without = run_silently(&config, &prepared);
    config.train.targets.votes_head = 1.0;
    let with = run_silently(&config, &prepared);
    let (a, b) = (&without.history[0], &with.history[0]);
    assert!((a.loss - b.loss).abs() < 1e-3 * a.loss, "{} {}", a.loss, b.loss);
    assert!((a.val_loss.unwrap() - b.val_loss.unwrap()).abs() < 1e-2, "{a:?} {b:?}");
}
