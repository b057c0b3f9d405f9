//! From image bytes to facial-expression probabilities.
//!
//! 1. [`decode`]: bytes, of a [`picture_file`] or from elsewhere, become a picture, or an error with its reason;
//! 2. [`preprocess`]: a picture of one face becomes grey pixels of the network's size, and numbers;
//! 3. [`network`]: what a network is, as data, and the shapes and parameters that follow from it;
//! 4. [`weights`]: its named tensors;
//! 5. [`plan`]: network and weights made ready to run: numbers become probabilities;
//! 6. [`labels`]: the names of the classes, in the order of the probabilities;
//! 7. [`inference`]: the views of a picture that are averaged, and the temperature of the probabilities;
//! 8. [`bundle`]: all of this in one file ([`container`] is its format, [`persist`] how files are written);
//! 9. [`classifier`]: a bundle at work on pictures of one face;
//! 10. [`faces`]: where the faces in a photograph are;
//! 11. [`analyze`]: both together: a photograph becomes faces with probabilities;
//! 12. [`batch`]: any number of picture files, in parallel and in order;
//! 13. [`annotate`] and [`explain`]: the results drawn into the picture, and what they rest on;
//! 14. [`video`]: films and cameras, and persons followed over time;
//! 15. [`export`]: a bundle as an ONNX file, for other programs;
//! 16. [`wording`]: how all crates write counts and shares in messages.
//!
//! Training uses the same decoding, preprocessing and network description. It lives elsewhere: this crate has no
//! automatic differentiation and no data sets.

#![forbid(unsafe_code)]

/// The crate whose pictures the functions here take, in the version that they take.
pub use image;

pub mod analyze;
pub mod annotate;
pub mod batch;
pub mod bundle;
pub mod classifier;
pub mod container;
pub mod decode;
pub mod explain;
pub mod export;
pub mod faces;
pub mod inference;
pub mod labels;
pub mod network;
mod onnx;
mod parallel;
pub mod persist;
pub mod picture_file;
pub mod plan;
pub mod preprocess;
mod program;
pub mod video;
pub mod weights;
pub mod wording;
