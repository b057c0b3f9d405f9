//! Other programs at work for this one: they end when nobody wants more of them, also where this one ends at once.

use std::io;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Between two looks whether a program has ended.
const PAUSE: Duration = Duration::from_millis(2);

/// All that are at work.
static AT_WORK: Mutex<Vec<Arc<Mutex<Child>>>> = Mutex::new(Vec::new());

/// A program at work, which ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Program(Arc<Mutex<Child>>);

impl Program {
    /// Starts it out of the reach of Ctrl-C on a terminal: when it ends is decided here.
    ///
    /// # Errors
    /// The system's refusal.
    pub(crate) fn start_apart(command: &mut Command) -> io::Result<Self> {
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(command, 0);
        Self::start(command)
    }

    /// Starts it, and Ctrl-C on a terminal ends it, too.
    ///
    /// # Errors
    /// The system's refusal.
    pub(crate) fn start(command: &mut Command) -> io::Result<Self> {
        let mut at_work = lock(&AT_WORK);
        let child = Arc::new(Mutex::new(command.spawn()?));
        at_work.push(Arc::clone(&child));
        Ok(Self(child))
    }

    /// The process, for its pipes.
    pub(crate) fn child(&self) -> MutexGuard<'_, Child> {
        lock(&self.0)
    }

    /// Waits for its end, which an [`Ender`] may bring about meanwhile.
    ///
    /// # Errors
    /// The system's refusal.
    pub(crate) fn wait(&self) -> io::Result<ExitStatus> {
        loop {
            if let Some(status) = self.child().try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// What ends it from elsewhere.
    pub(crate) fn ender(&self) -> Ender {
        Ender(Arc::clone(&self.0))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may still be at work when nobody wants more of it.
        end(&self.0);
        lock(&AT_WORK).retain(|other| !Arc::ptr_eq(other, &self.0));
    }
}

/// Ends a program when it is dropped, also while another thread waits for what it never does.
#[derive(Debug)]
pub struct Ender(Arc<Mutex<Child>>);

impl Drop for Ender {
    fn drop(&mut self) {
        let _ = lock(&self.0).kill();
    }
}

/// Ends all programs for whoever ends this one at once; whoever starts another waits for that.
pub(crate) fn end_all() {
    let at_work = lock(&AT_WORK);
    at_work.iter().for_each(end);
    std::mem::forget(at_work);
}

fn end(child: &Arc<Mutex<Child>>) {
    let mut child = lock(child);
    let _ = child.kill();
    let _ = child.wait();
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::path::Path;
    use std::process::Stdio;

    use super::*;
    use crate::persist::abandon;

    #[test]
    fn programs_end_with_what_they_write() {
        // In a process of its own: no program can be started after it.
        const INSIDE: &str = "VULTUS_TEST_PROGRAM";
        if std::env::var_os(INSIDE).is_some() {
            let mut sleep = Command::new("sleep");
            // Whoever holds our pipes is waited for.
            let sleep = sleep.arg("600").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let program = Program::start(sleep).unwrap();
            eprintln!("{}", program.child().id());
            abandon();
            std::process::exit(0);
        }
        let test = "program::tests::programs_end_with_what_they_write";
        let inside = std::env::current_exe().unwrap();
        let mut command = Command::new(inside);
        let output = command.args(["--exact", test, "--nocapture"]).env(INSIDE, "1").stdout(Stdio::null()).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{output:?}");
        let id = String::from_utf8(output.stderr).unwrap();
        let id = id.lines().find(|line| line.parse::<u32>().is_ok()).expect("the program has begun");
        assert!(!Path::new("/proc").join(id).exists(), "{id} is at work");
    }
}
