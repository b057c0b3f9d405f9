//! Ctrl-C and termination: the first asks the work to stop at a good place, the second ends the program at once.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::message::say;

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Starts to listen.
///
/// # Errors
/// The system's refusal.
pub fn listen() -> Result<(), ctrlc::Error> {
    ctrlc::set_handler(|| {
        if REQUESTED.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        say("stopping at the next safe place; once more to stop at once");
    })
}

/// Waits for the first of them, in a thread of its own, and then calls `stop`; the second ends the program at once.
///
/// # Errors
/// The system's refusal.
pub fn on_first(stop: impl Fn() + Send + 'static) -> Result<(), ctrlc::Error> {
    ctrlc::set_handler(move || {
        if REQUESTED.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        say("finishing what has been taken on; once more to stop at once");
        stop();
    })
}

/// Whether someone has asked to stop.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}
