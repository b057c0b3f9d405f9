//! Drives the built program as a person would: in temporary directories, with small networks on drawn faces.
//!
//! What is checked is the contract of the command line: exit codes, what stdout and stderr carry, what lies in the
//! directories afterwards. Numbers themselves are checked beside the code that computes them.
//!
//! `VULTUS_DATA` names a folder with `fer2013-small.tar`, `VULTUS_SHARED` one with `images/` and `models/`. Without the
//! variables, tests that need these files and do not find them beside the repository say so and pass.

#[path = "command/bench.rs"]
mod bench;
#[path = "command/calibrate.rs"]
mod calibrate;
#[path = "command/compare.rs"]
mod compare;
#[path = "command/configs.rs"]
mod configs;
#[path = "command/data.rs"]
mod data;
#[path = "command/evaluate.rs"]
mod evaluate;
#[path = "command/help.rs"]
mod help;
#[path = "command/model.rs"]
mod model;
#[path = "command/models.rs"]
mod models;
#[path = "command/network.rs"]
mod network;
#[path = "command/picture.rs"]
mod picture;
#[path = "command/predict.rs"]
mod predict;
#[path = "command/program.rs"]
mod program;
#[path = "command/recipe.rs"]
mod recipe;
#[path = "command/resume.rs"]
mod resume;
#[path = "command/search.rs"]
mod search;
#[path = "command/serve.rs"]
mod serve;
#[path = "command/train.rs"]
mod train;
#[path = "command/video.rs"]
mod video;
