//! Drives a server over real sockets, as clients do, and as those who mean it harm.
//!
//! The model is made here: pictures of 8 x 8 pixels are dark or bright by their sum.

#[path = "service/abuse.rs"]
mod abuse;
#[path = "service/access.rs"]
mod access;
#[path = "service/analyze.rs"]
mod analyze;
#[path = "service/client.rs"]
mod client;
#[path = "service/description.rs"]
mod description;
#[path = "service/inference.rs"]
mod inference;
#[path = "service/lifecycle.rs"]
mod lifecycle;
#[path = "service/model.rs"]
mod model;
#[path = "service/page.rs"]
mod page;
#[path = "service/random.rs"]
mod random;
#[path = "service/stream.rs"]
mod stream;
