//! How a command ends when it does not end well.

use std::process::ExitCode;

use crate::message::say;

/// A failed command, by exit code.
#[derive(Debug)]
pub enum Failure {
    /// 1: the run failed.
    Run(anyhow::Error),
    /// 2: bad usage or configuration.
    Usage(anyhow::Error),
    /// 130: interrupted, with what to do next.
    Interrupted(String),
    /// 1: done, but some inputs failed; they were reported one by one.
    Inputs(usize),
}

impl Failure {
    /// Bad usage or configuration.
    pub fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self::Usage(error.into())
    }

    /// Prints the message and gives the exit code.
    pub fn report(self) -> ExitCode {
        match self {
            Self::Run(error) => {
                if is_closed_pipe(&error) {
                    return ExitCode::SUCCESS;
                }
                say(format_args!("error: {}", in_full(&error)));
                ExitCode::from(1)
            }
            Self::Usage(error) => {
                say(format_args!("error: {}", in_full(&error)));
                ExitCode::from(2)
            }
            Self::Interrupted(message) => {
                say(format_args!("interrupted: {message}"));
                ExitCode::from(130)
            }
            Self::Inputs(count) => {
                say(format_args!("error: {count} of the inputs could not be used; the output says why"));
                ExitCode::from(1)
            }
        }
    }
}

/// What is wrong with a request, or the system's refusal of it.
pub fn usage_unless_of_the_system(error: anyhow::Error) -> Failure {
    // A file that another process is at is no failure of the system.
    let of_the_system = |cause: &&(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() != std::io::ErrorKind::ResourceBusy)
    };
    if error.chain().any(|cause| of_the_system(&cause)) { Failure::Run(error) } else { Failure::Usage(error) }
}

/// A folder that cannot be made: where a file is in its place, that is wrong with the request; else the system refuses it.
pub fn usage_unless_refused(error: std::io::Error) -> Failure {
    use std::io::ErrorKind::{AlreadyExists, NotADirectory};
    if matches!(error.kind(), AlreadyExists | NotADirectory) {
        Failure::usage(error)
    } else {
        Failure::Run(error.into())
    }
}

/// The message with its causes, without those that it already tells.
fn in_full(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// Whether the reader of our output has gone, as `head` does; that is no failure.
pub fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Run(error.into())
    }
}
