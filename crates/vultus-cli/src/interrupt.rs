//! Ctrl-C, termination and hanging up: the first asks long work to stop at a good place, the second ends the program at once, as
//! the first ends short work.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use vultus::persist;

use crate::message::say;

/// Signals that come so soon behind the first are one with it: some programs send each twice.
const TOGETHER: Duration = Duration::from_secs(1);

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// When the program began to end, if it is to end at once.
static ENDING: OnceLock<Instant> = OnceLock::new();

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
    handle(is_ignored, || {
        if ENDING.set(Instant::now()).is_ok() {
            // In a thread of its own: a disk or a reader of messages that does not answer is left to a second signal.
            std::thread::spawn(|| {
                persist::abandon();
                say("interrupted");
                std::process::exit(130)
            });
        } else if ENDING.get().is_some_and(|first| first.elapsed() > TOGETHER) {
            std::process::exit(130);
        }
    })
}

/// Waits for the end where the program is to end at once: what failed since then failed for that.
pub fn wait_for_end() {
    while ENDING.get().is_some() {
        std::thread::park();
    }
}

/// Whether someone has asked to stop.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}

fn on_each(message: &'static str, stop: impl Fn() + Send + 'static) -> io::Result<()> {
    // One who started the program with `nohup` wants it to outlive the terminal; one who asks it to stop means it.
    handle(
        |signal| signal == HANGUP && is_ignored(signal),
        move || {
            if REQUESTED.swap(true, Ordering::SeqCst) {
                persist::abandon();
                std::process::exit(130);
            }
            say(message);
            stop();
        },
    )
}

/// Number of the signal SIGHUP.
const HANGUP: i32 = 1;

/// Calls `act` at each signal, but for those that are passed over.
#[cfg(unix)]
fn handle(passed_over: impl Fn(i32) -> bool, act: impl Fn() + Send + 'static) -> io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let heard = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|&signal| !passed_over(signal));
    let mut signals = signal_hook::iterator::Signals::new(heard)?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || signals.forever().for_each(|_| act()))?;
    Ok(())
}

#[cfg(not(unix))]
fn handle(_passed_over: impl Fn(i32) -> bool, act: impl Fn() + Send + 'static) -> io::Result<()> {
    ctrlc::set_handler(act).map_err(io::Error::other)
}

/// Whether the program was started with `signal` ignored, where Linux tells (proc_pid_status(5)): signal 1 is the lowest bit.
fn is_ignored(signal: i32) -> bool {
    let status = fs_err::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}
