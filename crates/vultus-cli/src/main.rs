//! The `vultus` command: parsing, output and exit codes. What it does is in the libraries.
//!
//! stdout carries results, stderr messages and progress. Exit codes: 0 done, 1 the run failed, 2 bad usage or
//! configuration, 130 interrupted: long commands keep what is done, others leave nothing unfinished.

#![forbid(unsafe_code)]

mod analyzer;
mod command;
mod failure;
mod http;
mod inputs;
mod interrupt;
mod message;
mod progress;
mod rows;
mod table;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::anyhow;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches, Parser};
use vultus_train::bench::InstructionSet;
use vultus_train::config::TrainConfig;

use crate::command::Command;
use crate::failure::Failure;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Train, audit, evaluate and run facial-expression classifiers on an ordinary CPU.
#[derive(Parser)]
#[command(name = "vultus", version, about, after_help = AFTER_HELP, max_term_width = 110)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
A SOURCE is a folder of images (train/<class>/*, test/<class>/*, or one folder of classes), fer2013.csv, \
icml_face_data.csv, a Parquet file or a folder of them, fer2013.csv+fer2013new.csv (with FER+ votes), or `synthetic` or \
`synthetic:N` (drawn faces, N of each class).

Exit codes: 0 done, 1 the run failed or an input of predict could not be used, 2 bad usage or configuration, \
130 interrupted: train, search, predict and video keep what is done, in training as a checkpoint; others leave nothing unfinished.

Inferring emotions of people at work or in education is banned in the European Union (AI Act, Art. 5(1)(f)); \
elsewhere people must be told (Art. 50(3)). Expressions are not feelings: do not decide about people with them.";

fn main() -> ExitCode {
    let started = Instant::now();
    let matches =
        taking_negative_numbers(Arguments::command()).try_get_matches().unwrap_or_else(|error| with_tip(error).exit());
    let arguments = Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let result = check_environment().and_then(|()| arguments.command.run(started));
    interrupt::wait_for_end();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Lets each option check a negative number itself, where `-1` would be taken for an unknown option.
fn taking_negative_numbers(command: clap::Command) -> clap::Command {
    let options = command.mut_args(|argument| {
        let takes = argument.get_long().is_some() && argument.get_action().takes_values();
        argument.allow_negative_numbers(takes)
    });
    options.mut_subcommands(taking_negative_numbers)
}

/// What is no argument of a command, and is one of another or a setting, is told how to be said.
fn with_tip(mut error: clap::Error) -> clap::Error {
    let program = Arguments::command();
    let command = std::env::args_os().nth(1).and_then(|name| program.find_subcommand(&name));
    let (Some(command), Some(ContextValue::String(unknown)), ErrorKind::UnknownArgument) =
        (command, error.get(ContextKind::InvalidArg), error.kind())
    else {
        return error;
    };
    let has = |option: &str| command.get_arguments().any(|argument| argument.get_long() == Some(option));
    let mut tips = Vec::new();
    if has("set") {
        let keys = TrainConfig::default().keys_called(&unknown.trim_start_matches('-').replace('-', "_"));
        tips.extend(keys.iter().map(|key| format!("settings are made by --set {key}=VALUE")));
    }
    if !unknown.starts_with('-') && has("data") && command.get_positionals().next().is_none() {
        tips.push(format!("images are named by --data {unknown}"));
    }
    if let Some(positional) = command.get_positionals().next()
        && ["--model", "--input", "--run", "--image"].contains(&unknown.as_str())
    {
        tips.push(format!("it is named without an option: vultus {} {}", command.get_name(), positional));
    }
    if !tips.is_empty() {
        let tips = tips.into_iter().map(Into::into).collect();
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(tips));
    }
    error
}

/// A misspelt limit would silently be none.
fn check_environment() -> Result<(), Failure> {
    InstructionSet::requested().map(drop).map_err(|value| {
        Failure::usage(anyhow!("the environment variable VULTUS_SIMD is {value:?}: use portable, avx2 or avx512"))
    })
}
