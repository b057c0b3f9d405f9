//! Ctrl-C, termination and hanging up: the first asks long work to stop at a good place, the second ends the program at once, as
//! the first ends short work.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use vultus::persist;

use crate::message::say;

/// Signals that come so soon behind the first are one with it: some programs send each twice, and a terminal that is closed may, too.
const TOGETHER: Duration = Duration::from_millis(500);

/// Whether someone has asked to stop.
static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Whether the program ends at once.
static ENDING: AtomicBool = AtomicBool::new(false);

/// Starts to listen.
///
/// # Errors
/// The system's refusal.
pub fn listen() -> io::Result<()> {
    on_each("stopping at the next safe place; once more to stop at once", || ())
}

/// Waits for the first of them, in a thread of its own, and then calls `stop`; the second ends the program at once.
///
/// # Errors
/// The system's refusal.
pub fn on_first(stop: impl Fn() + Send + 'static) -> io::Result<()> {
    on_each("finishing what has been taken on; once more to stop at once", stop)
}

/// Ends the program at the first of them, but for those that are ignored as it begins: what is not finished is as if it had not been
/// begun.
///
/// # Errors
/// The system's refusal.
pub fn end_at_first() -> io::Result<()> {
    let end = || {
        ENDING.store(true, Ordering::SeqCst);
        // In a thread of its own: a disk or a reader of messages that does not answer is left to a second signal.
        std::thread::spawn(|| {
            persist::abandon();
            say("interrupted");
            std::process::exit(130)
        });
    };
    handle(is_ignored, end, || std::process::exit(130))
}

/// Waits for the end where the program is to end at once: what failed since then failed for that.
pub fn wait_for_end() {
    while ENDING.load(Ordering::SeqCst) {
        std::thread::park();
    }
}

/// Whether someone has asked to stop.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}

fn on_each(message: &'static str, stop: impl Fn() + Send + 'static) -> io::Result<()> {
    // One who started the program with `nohup` wants it to outlive the terminal; one who asks it to stop means it.
    let passed_over = |signal| signal == HANGUP && is_ignored(signal);
    let first = move || {
        REQUESTED.store(true, Ordering::SeqCst);
        say(message);
        stop();
    };
    handle(passed_over, first, || {
        persist::abandon();
        std::process::exit(130)
    })
}

/// Calls `first` at the first signal, but for those that are passed over, and `again` at one that is not one with it.
fn handle(
    passed_over: impl Fn(i32) -> bool,
    first: impl Fn() + Send + 'static,
    again: impl Fn() + Send + 'static,
) -> io::Result<()> {
    let mut heard: Option<Instant> = None;
    hear(passed_over, move || match heard {
        None => {
            heard = Some(Instant::now());
            first();
        }
        Some(before) if before.elapsed() > TOGETHER => again(),
        Some(_) => {}
    })
}

/// Number of the signal SIGHUP.
const HANGUP: i32 = 1;

/// Calls `act` at each signal, but for those that are passed over.
#[cfg(unix)]
fn hear(passed_over: impl Fn(i32) -> bool, mut act: impl FnMut() + Send + 'static) -> io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let heard = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|&signal| !passed_over(signal));
    let mut signals = signal_hook::iterator::Signals::new(heard)?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || signals.forever().for_each(|_| act()))?;
    Ok(())
}

#[cfg(not(unix))]
fn hear(_passed_over: impl Fn(i32) -> bool, act: impl FnMut() + Send + 'static) -> io::Result<()> {
    ctrlc::set_handler(act).map_err(io::Error::other)
}

/// Whether the program was started with `signal` ignored, where Linux tells (proc_pid_status(5)): signal 1 is the lowest bit.
fn is_ignored(signal: i32) -> bool {
    let status = fs_err::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}
