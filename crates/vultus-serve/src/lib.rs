//! A classifier as a service.
//!
//! 1. [`config`]: what a server may be told, with safe defaults, [`token`], a secret that clients must show, and
//!    [`host`], names by which they call it;
//! 2. [`server`]: connections come, are counted and timed, and go;
//! 3. `exchange`: what is around every request: its id, its error's body, its figures (`metrics`);
//! 4. `routes`: the requests, their description as OpenAPI, and the page;
//! 5. `body` and `picture`: a request's body becomes pictures' bytes, under limits;
//! 6. `pipeline`: bytes become analyses, for many requests at once;
//! 7. [`answer`], [`card`] and [`error`]: what comes back.
//!
//! It fetches nothing, stores nothing, and knows no terminal.

#![forbid(unsafe_code)]

pub mod answer;
mod body;
pub mod card;
pub mod config;
pub mod error;
mod exchange;
pub mod host;
mod metrics;
mod picture;
mod pipeline;
mod routes;
pub mod server;
mod state;
pub mod token;
