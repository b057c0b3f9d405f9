//! From data sets to bundles.
//!
//! 1. [`source`]: folders, csv and Parquet files and drawn faces become one [`dataset`];
//! 2. [`audit`], [`statistics`]: what is in it; [`fingerprint`]: whether it is the same; [`clean`]: what is left out, and why; [`convert`]: another layout;
//! 3. [`split`]: stratified parts and folds; [`prepare`]: all of this as the configuration says;
//!    [`caveat`]: what to know of it before training;
//! 4. [`batches`]: samples become numbers, ahead of the training step; [`augment`]: changed at random; [`targets`]: what is
//!    to be answered;
//! 5. [`model`]: the trainable network, and [`start`], the weights it begins with; [`operations`]: the one place where it reaches arithmetic, on a [`device`];
//! 6. [`fit`]: the training loop, with [`optimizer`], [`schedule`], [`average`], [`sharpness`], [`checkpoint`], [`history`], [`tensorboard`];
//! 7. [`search`]: many trainings, by k-fold cross-validation;
//! 8. [`evaluate`]: metrics; [`assess`]: a finished model on a split; [`facts`]: what its file tells of its training, and
//!    [`held_out`]: which images that did not learn from; [`temperature`]: probabilities that fit, and [`mod@calibrate`]: for a
//!    finished model again; [`compare`]: runs beside each other, with the [`spread`] over their seeds, and [`paired`]: models image by image;
//! 9. [`figure`], [`report`], [`card`]: what people look at;
//! 10. [`train`]: the whole job in one [`run`] directory; [`mod@bench`]: how fast it goes.
//!
//! [`config`] holds every choice that changes a result, [`seed`] derives all randomness from one number, and
//! [`environment`] says what a result was made with. Burn is used in [`model`], [`operations`], [`optimizer`],
//! [`sharpness`] and [`device`] and nowhere else. Finished networks run in the `vultus` crate.

#![forbid(unsafe_code)]

pub mod assess;
pub mod audit;
pub mod augment;
pub mod average;
pub mod batches;
pub mod bench;
pub mod calibrate;
pub mod card;
pub mod caveat;
pub mod checkpoint;
pub mod clean;
pub mod compare;
pub mod config;
pub mod convert;
pub mod dataset;
pub mod device;
pub mod environment;
pub mod evaluate;
pub mod facts;
pub mod figure;
pub mod fingerprint;
pub mod fit;
pub mod heads;
pub mod held_out;
pub mod history;
pub mod model;
pub mod operations;
pub mod optimizer;
pub mod paired;
pub mod prepare;
pub mod report;
pub mod run;
pub mod schedule;
pub mod search;
pub mod seed;
pub mod sharpness;
pub mod source;
pub mod split;
pub mod spread;
pub mod start;
pub mod statistics;
pub mod targets;
pub mod temperature;
pub mod tensorboard;
pub mod train;
pub mod validation;
