//! The program under test: where it works, how it is called, what it left behind.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// The built program.
pub const VULTUS: &str = env!("CARGO_BIN_EXE_vultus");

/// A network that learns little and fast.
pub const SMALL: &str = r#"
[data]
sources = ["synthetic:12"]

[train]
epochs = 2
batch_size = 16

[[network.layers]]
type = "conv"
filters = 4
kernel = 3
stride = 2
activation = "relu"

[[network.layers]]
type = "batch_norm"

[[network.layers]]
type = "max_pool"

[[network.layers]]
type = "flatten"

[[network.layers]]
type = "dropout"
rate = 0.25

[[network.layers]]
type = "dense"
units = 8
activation = "relu"
"#;

/// Nothing here takes this long.
const PATIENCE: Duration = Duration::from_secs(240);

/// A temporary directory.
pub struct Place(TempDir);

impl Place {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A place with [`SMALL`] in `small.toml`.
    pub fn with_config() -> Self {
        let place = Self::new();
        place.write("small.toml", SMALL);
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The path as an argument.
    pub fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Writes a file, with the folders above it.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, content).unwrap();
        self.text(name)
    }

    /// Runs the program here and waits for it.
    pub fn run(&self, arguments: &[&str]) -> Outcome {
        self.run_with(arguments, &[])
    }

    /// As [`Place::run`], with environment variables.
    pub fn run_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Outcome {
        let mut command = assert_cmd::Command::new(VULTUS);
        command.args(arguments).envs(environment.iter().copied()).current_dir(self.0.path()).timeout(PATIENCE);
        Outcome::of(command.output().unwrap())
    }

    /// As [`Place::run`], while nobody reads stdout.
    pub fn run_unread(&self, arguments: &[&str]) -> Outcome {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(VULTUS);
        command.args(arguments).current_dir(self.0.path()).stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped());
        Outcome::of(command.spawn().unwrap().wait_with_output().unwrap())
    }

    /// Trains [`SMALL`] into `out`, which must go well.
    pub fn train(&self, out: &str, more: &[&str]) -> Outcome {
        let arguments = [&["train", "--config", "small.toml", "--out", out], more].concat();
        self.run(&arguments).ends_with(0)
    }

    /// Starts the program here and does not wait; its stdout goes to `<name>.out`, its stderr to
    /// `<name>.log`.
    pub fn start(&self, name: &str, arguments: &[&str]) -> Running {
        let [out, log] = ["out", "log"].map(|ending| File::create(self.path(&format!("{name}.{ending}"))).unwrap());
        let mut command = Command::new(VULTUS);
        command.args(arguments).current_dir(self.0.path()).stdin(Stdio::null()).stdout(out).stderr(log);
        Running(command.spawn().unwrap())
    }

    /// Every file below the place whose name begins with `prefix`.
    pub fn files_named(&self, prefix: &str) -> Vec<PathBuf> {
        let mut folders = vec![self.0.path().to_owned()];
        let mut found = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in fs_err::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.file_name().unwrap().to_string_lossy().starts_with(prefix) {
                    found.push(path.clone());
                }
                if path.is_dir() {
                    folders.push(path);
                }
            }
        }
        found
    }
}

/// A program at work, killed when the test is over.
pub struct Running(Child);

impl Running {
    /// Waits until `path` has at least `count` complete lines.
    pub fn wait_for_lines(&mut self, path: &Path, count: usize) {
        self.wait_until(&format!("{} has {count} lines", path.display()), || lines_of(path) >= count);
    }

    /// Waits until `holds`, while the program is at work.
    pub fn wait_until(&mut self, what: &str, holds: impl Fn() -> bool) {
        let started = Instant::now();
        while !holds() {
            assert!(started.elapsed() < PATIENCE, "still waiting until {what}");
            let ended = self.0.try_wait().unwrap();
            assert!(ended.is_none() || holds(), "ended with {ended:?} before {what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits for its end, and gives the exit code.
    pub fn wait(mut self) -> Option<i32> {
        self.0.wait().unwrap().code()
    }

    /// Asks it to stop, as Ctrl-C does, and gives the exit code.
    pub fn interrupt(self) -> Option<i32> {
        self.signal("-INT")
    }

    /// Sends it `signal`, such as `-HUP`, and gives the exit code.
    pub fn signal(mut self, signal: &str) -> Option<i32> {
        let sent = Command::new("kill").args([signal, &self.0.id().to_string()]).status().unwrap();
        assert!(sent.success());
        self.0.wait().unwrap().code()
    }

    /// Asks it to stop, after the `pause` once more, and gives the exit code.
    pub fn interrupt_twice(mut self, pause: Duration) -> Option<i32> {
        // In one shell: a busy machine may take its time to start another program.
        let script = "kill -INT \"$0\"; [ \"$1\" = 0 ] || sleep \"$1\"; kill -INT \"$0\"";
        let (id, pause) = (self.0.id().to_string(), pause.as_secs_f64().to_string());
        assert!(Command::new("sh").args(["-c", script, &id, &pause]).status().unwrap().success());
        self.0.wait().unwrap().code()
    }

    /// Starts what becomes the program, in silence.
    pub fn of(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// Ends it without a word.
    pub fn kill(mut self) {
        assert_eq!(self.0.try_wait().unwrap(), None, "it ended before it could be killed: give it more to do");
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How a call ended.
#[derive(Debug)]
pub struct Outcome {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    pub fn of(output: std::process::Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    pub fn ends_with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// stderr has all of these words; a message is no place for a panic.
    #[track_caller]
    pub fn says(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.stderr.contains(word), "no {word:?} in: {}", self.stderr);
        }
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        self
    }

    /// stdout has all of these words.
    #[track_caller]
    pub fn prints(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.stdout.contains(word), "no {word:?} in: {}", self.stdout);
        }
        self
    }

    /// stdout as one JSON value on one line.
    #[track_caller]
    pub fn json(&self) -> Value {
        assert_eq!(self.stdout.lines().count(), 1, "{}", self.stdout);
        serde_json::from_str(&self.stdout).unwrap()
    }
}

/// A file that is not in the repository: in the folder that `variable` names, where it must be, or in `folder` beside the
/// repository; `None`, and a word on stderr, where it is absent.
pub fn development_file(variable: &str, folder: &str, name: &str) -> Option<PathBuf> {
    let named = std::env::var_os(variable).map(PathBuf::from);
    let is_named = named.is_some();
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..").join(folder);
    let path = named.unwrap_or_else(beside).join(name);
    let found = path.is_file();
    assert!(found || !is_named, "{variable} is set, and there is no {}", path.display());
    if !found {
        eprintln!("SKIPPED: there is no {}", path.display());
    }
    found.then_some(path)
}

/// What must be the same when a run is run again.
#[derive(PartialEq)]
pub struct Results {
    metrics: Vec<Value>,
    weights: Vec<u8>,
    predictions: String,
}

impl Results {
    pub fn of(run: &Path) -> Self {
        Self {
            metrics: metrics_of(run),
            weights: tensors_of(&run.join("model.safetensors")),
            predictions: fs_err::read_to_string(run.join("evaluation/test/predictions.csv")).unwrap(),
        }
    }

    pub fn epochs(&self) -> usize {
        self.metrics.len()
    }

    #[track_caller]
    pub fn assert_same(&self, other: &Self) {
        assert_eq!(self.metrics, other.metrics);
        assert_eq!(self.predictions, other.predictions);
        assert!(self.weights == other.weights, "the weights differ");
    }
}

/// The records of `metrics.jsonl` without what the clock says.
pub fn metrics_of(run: &Path) -> Vec<Value> {
    let text = fs_err::read_to_string(run.join("metrics.jsonl")).unwrap();
    let record = |line: &str| {
        let mut record: Value = serde_json::from_str(line).unwrap();
        for key in ["seconds", "images_per_second", "wait_share"] {
            assert!(record.as_object_mut().unwrap().remove(key).is_some(), "{line}");
        }
        record
    };
    text.lines().map(record).collect()
}

/// Header of a safetensors file.
pub fn header_of(path: &Path) -> Value {
    let bytes = fs_err::read(path).unwrap();
    serde_json::from_slice(&bytes[8..header_end(&bytes)]).unwrap()
}

/// One of the texts in a model file's header, which is JSON.
pub fn metadata_of(path: &Path, key: &str) -> Value {
    serde_json::from_str(header_of(path)["__metadata__"][key].as_str().unwrap()).unwrap()
}

/// Bytes of all tensors of a safetensors file.
pub fn tensors_of(path: &Path) -> Vec<u8> {
    let mut bytes = fs_err::read(path).unwrap();
    bytes.drain(..header_end(&bytes));
    bytes
}

fn header_end(bytes: &[u8]) -> usize {
    8 + u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize
}

pub fn read_json(path: &Path) -> Value {
    serde_json::from_str(&fs_err::read_to_string(path).unwrap()).unwrap()
}

/// Complete lines of a file; 0 if there is none.
pub fn lines_of(path: &Path) -> usize {
    fs_err::read(path).map_or(0, |bytes| bytes.iter().filter(|&&byte| byte == b'\n').count())
}
