//! Whether every value of a configuration is in its range.
//!
//! In: a configuration. Out: the first key whose value is not, with what it may be. What depends on the images is found by
//! [`crate::prepare`].

use vultus::inference::ViewsError;

use super::{ConfigError, OptimizerConfig, TrainConfig};

/// Epochs are multiplied by their steps, and nobody waits for more.
const MOST_EPOCHS: usize = 1_000_000;

/// What a number that is computed with in 32 bits may be.
const POSITIVE: &str = "use a number from 1e-38 to 3e38";

const BETA1: &str = "train.optimizer.beta1";
const BETA2: &str = "train.optimizer.beta2";
const DISTILLATION_TEMPERATURE: &str = "train.targets.distillation_temperature";
const MOMENTUM: &str = "train.optimizer.momentum";

/// An error unless it `holds`.
fn require(holds: bool, key: &'static str, value: String, expected: &'static str) -> Result<(), ConfigError> {
    if holds { Ok(()) } else { Err(ConfigError::Value { key, value, expected }) }
}

/// What is computed with 32 bits has to be within its range there.
fn positive(value: f64) -> bool {
    value as f32 > 0.0 && (value as f32).is_finite()
}

impl TrainConfig {
    /// Checks every range; the network's own are checked when it is resolved.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        self.check_seeds()?;
        self.check_sizes()?;
        self.check_optimizer()?;
        self.check_samples()?;
        self.views.validate().map_err(|ViewsError { key, value, expected }| ConfigError::Value {
            key,
            value,
            expected,
        })?;
        self.check_course()?;
        self.check_splits()
    }

    fn check_seeds(&self) -> Result<(), ConfigError> {
        let seeds = [
            ("seed", self.seed),
            ("cleaning.seed", self.cleaning.seed),
            ("data.synthetic.seed", self.data.synthetic.seed),
            ("search.seed", self.search.seed),
            ("train.validation_seed", self.train.validation_seed),
        ];
        // TOML has no larger integers.
        for (key, seed) in seeds {
            require(i64::try_from(seed).is_ok(), key, seed.to_string(), "use 0 to 9223372036854775807")?;
        }
        Ok(())
    }

    /// Epochs, batches, and how many images validate.
    fn check_sizes(&self) -> Result<(), ConfigError> {
        let (epochs, batch_size, fraction) = (self.train.epochs, self.train.batch_size, self.train.validation_fraction);
        require((1..=MOST_EPOCHS).contains(&epochs), "train.epochs", epochs.to_string(), "use 1 to 1000000")?;
        require((1..=65_536).contains(&batch_size), "train.batch_size", batch_size.to_string(), "use 1 to 65536")?;
        let usable = (0.0..1.0).contains(&fraction);
        require(usable, "train.validation_fraction", fraction.to_string(), "use 0 up to below 1")
    }

    /// The optimiser, and what changes its steps.
    fn check_optimizer(&self) -> Result<(), ConfigError> {
        let fit = &self.train;
        let below_one = |value: f64| (0.0..1.0).contains(&value) && (value as f32) < 1.0;
        let rate = fit.optimizer.learning_rate();
        require(positive(rate), "train.optimizer.learning_rate", format!("{rate:?}"), POSITIVE)?;
        let (shares, epsilon) = match &fit.optimizer {
            OptimizerConfig::Adam(adam) => (vec![(BETA1, adam.beta1), (BETA2, adam.beta2)], Some(adam.epsilon)),
            OptimizerConfig::Sgd(sgd) => (vec![(MOMENTUM, sgd.momentum)], None),
            OptimizerConfig::Muon(muon) => {
                let shares = vec![(MOMENTUM, muon.momentum), (BETA1, muon.beta1), (BETA2, muon.beta2)];
                (shares, Some(muon.epsilon))
            }
        };
        for (key, share) in shares {
            require(below_one(share), key, format!("{share:?}"), "use 0 up to below 1, at most 0.9999999")?;
        }
        if let Some(epsilon) = epsilon {
            require(positive(epsilon), "train.optimizer.epsilon", format!("{epsilon:?}"), POSITIVE)?;
        }
        let schedule = &fit.schedule;
        for (key, part) in [("train.schedule.warmup", schedule.warmup), ("train.schedule.floor", schedule.floor)] {
            require((0.0..=1.0).contains(&part), key, part.to_string(), "use a part from 0 to 1")?;
        }
        for (key, length) in [("train.clip_norm", fit.clip_norm), ("train.sharpness_radius", fit.sharpness_radius)] {
            let usable = length == 0.0 || positive(length);
            require(usable, key, format!("{length:?}"), "use 0 (off) or a number from 1e-38 to 3e38")?;
        }
        let decay = fit.weight_decay;
        let usable = decay >= 0.0 && decay * rate < 1.0;
        require(usable, "train.weight_decay", decay.to_string(), "use 0 (off) up to below 1 / learning_rate")?;
        let average = fit.average_decay;
        require((0.0..1.0).contains(&average), "train.average_decay", average.to_string(), "use 0 up to below 1")
    }

    /// What becomes of an image and of its label.
    fn check_samples(&self) -> Result<(), ConfigError> {
        let (augmentation, targets) = (&self.train.augmentation, &self.train.targets);
        for (key, strength) in augmentation.strengths() {
            require((0.0..=1.0).contains(&strength), key, strength.to_string(), "use a strength from 0 to 1")?;
        }
        for (key, share) in targets.shares() {
            require((0.0..=1.0).contains(&share), key, share.to_string(), "use a share from 0 to 1")?;
        }
        let temperature = targets.distillation_temperature;
        require(positive(temperature), DISTILLATION_TEMPERATURE, format!("{temperature:?}"), POSITIVE)?;
        require(
            targets.distillation == 0.0 || !targets.teachers.is_empty(),
            "train.targets.distillation",
            targets.distillation.to_string(),
            "name model files in train.targets.teachers, or use 0",
        )
    }

    /// Checkpoints, and by how much a monitored value must improve.
    fn check_course(&self) -> Result<(), ConfigError> {
        let (minutes, stopping) = (self.train.checkpoint_minutes, &self.train.early_stopping);
        require((0.0..=1e6).contains(&minutes), "train.checkpoint_minutes", minutes.to_string(), "use 0 to 1000000")?;
        let delta = stopping.min_delta;
        let usable = delta >= 0.0 && delta.is_finite();
        require(usable, "train.early_stopping.min_delta", delta.to_string(), "use 0 or more")
    }

    /// Whether a training of its own can stop early as it is told to; in the trials of a search a fold validates.
    ///
    /// # Errors
    /// Early stopping where no image validates.
    pub fn check_stopping(&self) -> Result<(), ConfigError> {
        let patience = self.train.early_stopping.patience;
        require(
            patience == 0 || self.validates(),
            "train.early_stopping.patience",
            patience.to_string(),
            "early stopping needs train.validation_fraction above 0, or data.validation_split",
        )
    }

    fn check_splits(&self) -> Result<(), ConfigError> {
        let splits = &self.data.evaluate_splits;
        let named_twice = (1..splits.len()).find(|&place| splits[..place].contains(&splits[place]));
        require(named_twice.is_none(), "data.evaluate_splits", format!("{splits:?}"), "name every split once")?;
        let validation = &self.data.validation_split;
        require(
            *validation != self.data.train_split,
            "data.validation_split",
            validation.clone(),
            "name another split than data.train_split, or none for a part of it",
        )
    }
}
