//! What a run was made with: program, data, machine.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use vultus_kernels::simd::InstructionSet;

/// Facts that are kept beside every result, in the run's directory. No person or host is named.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Environment {
    /// Version of this program.
    pub version: String,
    /// Git revision that it was built from, or `unknown`.
    pub revision: String,
    /// The command lines: the one that began the run, then those that went on with it.
    pub commands: Vec<String>,
    /// Seed of the run.
    pub seed: u64,
    /// SHA-256 of labels, pixels, classes and splits after cleaning.
    pub data_sha256: String,
    /// Operating system and processor architecture.
    pub platform: String,
    /// Name of the processor.
    pub processor: String,
    /// The instructions that the kernels use; results differ by rounding between them.
    #[serde(default)]
    pub instructions: String,
    /// Threads that the work is shared among.
    pub threads: usize,
    /// When it began, in seconds since 1970 (UTC).
    pub started: u64,
    /// Models that the run began with or learns from and that may have learnt the images that validate, as each call found them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub validation_known_to: BTreeSet<String>,
    /// SHA-256 of the model file that the run began with, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_sha256: Option<String>,
    /// What the run went on with, where that was not what it had begun with: results differ by rounding.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub continued_with: Vec<Maker>,
    /// SHA-256 of the images that such models learnt, as each call found them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub learnt_sha256: BTreeSet<String>,
}

/// What the exact numbers of a training depend on, beside its configuration and its images.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Maker {
    /// Version of the program.
    pub version: String,
    /// Git revision that it was built from, or `unknown`.
    pub revision: String,
    /// Name of the processor.
    pub processor: String,
    /// The instructions that the kernels use.
    pub instructions: String,
}

impl fmt::Display for Maker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, revision, processor, instructions } = self;
        write!(formatter, "{version} ({revision}), {processor}, {instructions}")
    }
}

/// What only the program itself knows of its build and call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// Git revision that it was built from.
    pub revision: String,
    /// The command line.
    pub command: String,
}

impl Environment {
    /// What it was begun with.
    pub fn maker(&self) -> Maker {
        let Self { version, revision, processor, instructions, .. } = self.clone();
        Maker { version, revision, processor, instructions }
    }

    /// The environment of this process.
    pub fn new(invocation: &Invocation, seed: u64, data_sha256: String) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: invocation.revision.clone(),
            commands: vec![invocation.command.clone()],
            seed,
            data_sha256,
            platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            processor: processor(),
            instructions: InstructionSet::best().name().to_owned(),
            threads: rayon::current_num_threads(),
            started: crate::tensorboard::seconds_since_1970() as u64,
            validation_known_to: BTreeSet::new(),
            start_sha256: None,
            continued_with: Vec::new(),
            learnt_sha256: BTreeSet::new(),
        }
    }
}

/// The first `model name` of Linux' list of processors; elsewhere unknown.
pub(crate) fn processor() -> String {
    fs_err::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("model name"))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        })
        .unwrap_or_else(|| "unknown".to_owned())
}
