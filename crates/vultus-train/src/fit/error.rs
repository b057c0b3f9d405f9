//! Why a training run fails.

use vultus::network::NetworkError;
use vultus::weights::WeightsError;

use crate::checkpoint::CheckpointError;
use crate::device::DeviceError;
use crate::history::HistoryError;
use crate::start::StartError;
use crate::targets::TeacherError;
use crate::tensorboard::TensorboardError;

/// A training run that failed.
#[derive(Debug, thiserror::Error)]
pub enum FitError {
    /// The network does not fit the pictures.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// No such device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Weights of another network.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A checkpoint cannot be read or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The metrics cannot be written.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The event file cannot be written.
    #[error(transparent)]
    Tensorboard(#[from] TensorboardError),
    /// A directory cannot be made.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A teacher that cannot teach.
    #[error(transparent)]
    Teacher(#[from] TeacherError),
    /// A model that is no start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The checkpoint lies inside an epoch that is not asked for any more.
    #[error("epoch {0} has begun: train.epochs cannot be less")]
    Begun(usize),
    /// There is nothing to train on.
    #[error("there are no images to train on in split {0}")]
    NoImages(String),
    /// The loss is no number any more.
    #[error(
        "the loss is {loss} in epoch {epoch}, step {step} (learning rate {learning_rate}); the batch begins with {batch}: \
         lower train.optimizer.learning_rate in a new run, or look at these images"
    )]
    NotFinite {
        /// NaN or an infinity.
        loss: f32,
        /// From 1.
        epoch: usize,
        /// From 1.
        step: usize,
        /// At this step.
        learning_rate: f64,
        /// Origins of the first images.
        batch: String,
    },
    /// The loss is no number up the slope, where it was one.
    #[error(
        "the loss is no number at a distance of {radius} from the weights, in epoch {epoch}, step {step}: lower \
         train.sharpness_radius"
    )]
    TooFarUp {
        /// `train.sharpness_radius`.
        radius: f64,
        /// From 1.
        epoch: usize,
        /// From 1.
        step: usize,
    },
    /// The validation loss is no number any more.
    #[error(
        "the validation loss is {loss} after epoch {epoch}: the weights have grown too large; lower \
         train.optimizer.learning_rate"
    )]
    ValidationNotFinite {
        /// NaN or an infinity.
        loss: f64,
        /// From 1.
        epoch: usize,
    },
}

impl FitError {
    /// Whether it is what came of these settings: a loss that is no number.
    pub fn is_divergence(&self) -> bool {
        matches!(self, Self::NotFinite { .. } | Self::TooFarUp { .. } | Self::ValidationNotFinite { .. })
    }
}
