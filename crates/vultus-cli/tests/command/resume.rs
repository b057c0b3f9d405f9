//! Runs that are stopped, killed, out of disk space, or disturbed by another run.

use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

use serde_json::Value;

use crate::program::{Outcome, Place, Results, Running, VULTUS, lines_of, metadata_of, metrics_of, read_json};

/// Enough steps to be stopped in the middle.
const LONG: [&str; 8] = [
    "--data",
    "synthetic:40",
    "--set",
    "train.epochs=30",
    "--set",
    "train.batch_size=4",
    "--set",
    "train.schedule.type=cosine",
];

/// What the long run gives when nothing disturbs it.
static UNDISTURBED: LazyLock<Results> = LazyLock::new(|| {
    let place = Place::with_config();
    place.train("run", &LONG);
    Results::of(&place.path("run"))
});

/// `train.keep` decides nothing in training: a finished run becomes the one that was made with the other value.
#[test]
fn a_finished_run_can_keep_another_epoch() {
    let place = Place::with_config();
    let epochs = ["--data", "synthetic:40", "--set", "train.epochs=6"];
    for keep in ["last", "best"] {
        place.train(keep, &[&epochs[..], &["--set", &format!("train.keep={keep}")]].concat());
    }
    let [last, best] = ["last", "best"].map(|run| Results::of(&place.path(run)));
    assert!(last != best, "the last epoch is the best one: take another seed");
    let resume = |keep: &str| {
        let arguments = ["train", "--resume", "--out", "last", "--set", &format!("train.keep={keep}")];
        place.run(&arguments).ends_with(0).says(&["resuming last after 6 of 6 epochs"])
    };
    let outcome = resume("best");
    assert!(!outcome.stdout.contains("(epoch 6)"), "{}", outcome.stdout);
    best.assert_same(&Results::of(&place.path("last")));
    let config = |run: &str| fs_err::read_to_string(place.path(run).join("config.toml")).unwrap();
    assert_eq!(config("last"), config("best"));
    let report = fs_err::read_to_string(place.path("last/report.html")).unwrap();
    assert!(report.contains("highest accuracy on 20 % of split train"), "the report says what selected the epoch");
    // And back.
    resume("last").prints(&["(epoch 6)"]);
    last.assert_same(&Results::of(&place.path("last")));
}

fn long_run<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["train", "--config", "small.toml", "--out", "run"], &LONG[..], more].concat()
}

/// Goes on with `run`, and compares with the undisturbed run.
fn resume_and_compare(place: &Place) -> Outcome {
    let outcome = place.run(&["train", "--resume", "--out", "run"]).ends_with(0).says(&["resuming run"]);
    let results = Results::of(&place.path("run"));
    assert_eq!(results.epochs(), 30);
    UNDISTURBED.assert_same(&results);
    assert!(place.files_named(".writing-").is_empty());
    outcome
}

/// Finished epochs by the last checkpoint.
fn checkpoint_epochs(place: &Place) -> u64 {
    progress_of(place)["epoch"].as_u64().unwrap()
}

/// How far the last checkpoint has come.
fn progress_of(place: &Place) -> Value {
    metadata_of(&place.path("run/checkpoints/last.safetensors"), "progress")
}

#[test]
fn an_interrupted_run_goes_on_as_if_nothing_had_happened() {
    let place = Place::with_config();
    let mut running = place.start("first", &long_run(&[]));
    running.wait_for_lines(&place.path("run/metrics.jsonl"), 1);
    assert_eq!(running.interrupt(), Some(130));
    let log = fs_err::read_to_string(place.path("first.log")).unwrap();
    assert!(log.contains("interrupted:") && log.contains("vultus train --resume --out run"), "{log}");
    assert!(checkpoint_epochs(&place) < 30);
    assert!(!place.path("run/model.safetensors").exists());
    resume_and_compare(&place);
}

#[test]
fn signals_that_come_together_are_one() {
    let place = Place::with_config();
    let mut running = place.start("first", &long_run(&[]));
    running.wait_for_lines(&place.path("run/metrics.jsonl"), 1);
    assert_eq!(running.interrupt_twice(Duration::ZERO), Some(130));
    let log = fs_err::read_to_string(place.path("first.log")).unwrap();
    assert!(log.contains("interrupted:") && log.contains("vultus train --resume --out run"), "{log}");
}

/// As `nohup` starts it.
#[cfg(target_os = "linux")]
#[test]
fn a_run_that_is_to_outlive_its_terminal_does() {
    let place = Place::with_config();
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' HUP; exec \"$0\" \"$@\"", VULTUS, "train", "--config", "small.toml", "--out", "run"]);
    let mut run = Running::of(shell.args(["--set", "train.epochs=6"]).current_dir(place.path("")));
    run.wait_for_lines(&place.path("run/metrics.jsonl"), 1);
    assert_eq!(run.signal("-HUP"), Some(0));
    assert!(place.path("run/model.safetensors").exists());
}

#[test]
fn a_killed_run_goes_on_from_its_last_epoch() {
    let place = Place::with_config();
    let mut running = place.start("first", &long_run(&[]));
    running.wait_for_lines(&place.path("run/metrics.jsonl"), 2);
    running.kill();
    assert!((2..30).contains(&checkpoint_epochs(&place)));
    // As if it had been killed in the middle of a checkpoint.
    place.write("run/checkpoints/.writing-abc123", "half a checkpoint");
    let outcome = resume_and_compare(&place);
    assert!(!outcome.stderr.contains("epoch  1/30"), "it began anew: {}", outcome.stderr);
}

#[test]
fn a_killed_run_goes_on_from_the_middle_of_an_epoch() {
    let place = Place::with_config();
    // A checkpoint after every step; the numbers do not depend on it.
    let mut running = place.start("first", &long_run(&["--set", "train.checkpoint_minutes=1e-9"]));
    let in_an_epoch =
        || lines_of(&place.path("run/metrics.jsonl")) >= 1 && progress_of(&place)["step"].as_u64().unwrap() > 0;
    running.wait_until("there is a checkpoint inside an epoch", in_an_epoch);
    running.kill();
    resume_and_compare(&place);
}

#[test]
fn a_line_lost_with_the_kill_is_written_again() {
    let place = Place::with_config();
    let mut running = place.start("first", &long_run(&[]));
    running.wait_for_lines(&place.path("run/metrics.jsonl"), 3);
    running.kill();
    // As if it had been killed after the checkpoint and in the middle of the line that belongs to it.
    let path = place.path("run/metrics.jsonl");
    let mut text = fs_err::read_to_string(&path).unwrap();
    text.truncate(text.trim_end().len() - 20);
    fs_err::write(&path, text).unwrap();
    resume_and_compare(&place);
}

#[test]
fn a_finished_run_can_get_more_epochs() {
    let place = Place::with_config();
    let last = ["--set", "train.keep=last", "--set"];
    place.train("all", &[&last[..], &["train.epochs=4"]].concat());
    place.train("run", &[&last[..], &["train.epochs=2"]].concat());
    place.run(&["evaluate", "run", "--split", "train"]).ends_with(0);
    let resumed = place.run(&["train", "--resume", "--out", "run", "--set", "train.epochs=4"]);
    let resumed = resumed.ends_with(0).says(&["train is removed: it is not of this model"]);
    assert!(!resumed.stderr.contains("test is removed"), "{}", resumed.stderr);
    let texts = ["all", "run"].map(|run| fs_err::read_to_string(place.path(run).join("config.toml")).unwrap());
    assert_eq!(texts[0], texts[1], "the configuration does not say how long the run was");
    let environment = read_json(&place.path("run/environment.json"));
    assert_eq!(environment["commands"].as_array().unwrap().len(), 2, "{environment}");
    Results::of(&place.path("all")).assert_same(&Results::of(&place.path("run")));
}

#[test]
fn a_run_that_goes_on_with_other_instructions_says_so() {
    let place = Place::with_config();
    let last =
        ["train", "--config", "small.toml", "--out", "run", "--set", "train.epochs=1", "--set", "train.keep=last"];
    let resume = |epochs| ["train", "--resume", "--out", "run", "--set", epochs];
    place.run_with(&last, &[("VULTUS_SIMD", "portable")]).ends_with(0);
    let same = place.run_with(&resume("train.epochs=2"), &[("VULTUS_SIMD", "portable")]).ends_with(0);
    assert!(!same.stderr.contains("was made by"), "{}", same.stderr);
    let other = place.run(&resume("train.epochs=3")).ends_with(0);
    let environment = read_json(&place.path("run/environment.json"));
    assert_eq!(environment["instructions"], "portable");
    let Some(continued) = environment["continued_with"].as_array() else {
        eprintln!("SKIPPED: this processor has no other instructions than the portable ones");
        return;
    };
    assert_eq!(continued.len(), 1, "{environment}");
    assert_ne!(continued[0]["instructions"], "portable");
    other.says(&["note: this run was made by", ", portable, then by"]);
    // Whoever goes on with it later is told, too; what is only evaluated again has not been gone on with.
    place.run(&resume("train.epochs=3")).ends_with(0).says(&["was made by"]);
    let only_evaluated = place.run_with(&resume("train.epochs=3"), &[("VULTUS_SIMD", "portable")]).ends_with(0);
    assert_eq!(only_evaluated.stderr.matches(", then by").count(), 1, "{}", only_evaluated.stderr);
}

#[test]
fn a_run_is_resumed_only_with_its_own_configuration() {
    let place = Place::with_config();
    place.train("run", &[]);
    let other = ["train", "--resume", "--out", "run", "--set", "train.batch_size=8"];
    let refusal = "run was made with another configuration: it cannot go on with train.batch_size = 8";
    place.run(&other).ends_with(2).says(&[refusal, "train.epochs"]);
    place
        .run(&["train", "--resume", "--out", "nowhere"])
        .ends_with(2)
        .says(&["nowhere holds no run: there is no such directory"]);
    place.run(&["report", "small.toml"]).ends_with(2).says(&["small.toml is a file, and a run is a directory"]);
}

/// It is the images that count, not where they lie.
#[test]
fn a_run_goes_on_where_its_images_have_moved_to() {
    let place = Place::with_config();
    for (count, table) in [("synthetic:12", "faces.parquet"), ("synthetic:11", "others.parquet")] {
        place.run(&["data", "convert", count, table]).ends_with(0);
    }
    place.train("run", &["--data", "faces.parquet", "--set", "train.epochs=2"]);
    fs_err::create_dir(place.path("elsewhere")).unwrap();
    fs_err::rename(place.path("faces.parquet"), place.path("elsewhere/faces.parquet")).unwrap();
    let before = metrics_of(&place.path("run"));
    let resume = ["train", "--resume", "--out", "run", "--set", "train.epochs=4"];
    place.run(&resume).ends_with(2).says(&["faces.parquet"]);
    let other = [&resume[..], &["--data", "others.parquet"]].concat();
    place.run(&other).ends_with(2).says(&["run/checkpoints/", "its data differs"]);
    assert_eq!(metrics_of(&place.path("run")), before, "other images changed the run");
    let moved = ["--data", "elsewhere/faces.parquet"];
    place.run(&[&resume[..], &moved].concat()).ends_with(0);
    place.train("all", &[&moved[..], &["--set", "train.epochs=4"]].concat());
    Results::of(&place.path("all")).assert_same(&Results::of(&place.path("run")));
    assert!(fs_err::read_to_string(place.path("run/config.toml")).unwrap().contains("elsewhere/faces.parquet"));
}

/// The model stays the same, and its evaluations are of images that are no longer all there.
#[test]
fn what_was_scored_on_other_images_goes() {
    let place = Place::with_config();
    place.run(&["data", "convert", "synthetic:12", "faces"]).ends_with(0);
    place.train("run", &["--data", "faces"]);
    place.run(&["evaluate", "run", "--split", "train"]).ends_with(0);
    let again = || place.run(&["train", "--resume", "--out", "run"]).ends_with(0);
    again();
    assert!(place.path("run/evaluation/train").exists());
    let folder = place.path("faces/test/happy");
    let first = fs_err::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
    fs_err::remove_file(first).unwrap();
    again();
    assert!(!place.path("run/evaluation/train").exists() && place.path("run/evaluation/test").exists());
}

/// As with images: it is what a teacher says that counts.
#[test]
fn a_run_goes_on_where_its_teacher_has_moved_to() {
    let place = Place::with_config();
    place.train("teacher", &[]);
    place.train("other", &["--set", "seed=2"]);
    let named = |folder: &str| format!("train.targets.teachers=[\"{folder}/model.safetensors\"]");
    place.train("run", &["--set", "train.targets.distillation=0.5", "--set", &named("teacher")]);
    fs_err::rename(place.path("teacher"), place.path("elsewhere")).unwrap();
    let resume = |teacher: &str| {
        let more = ["--set", "train.epochs=3", "--set", &named(teacher)];
        place.run(&[&["train", "--resume", "--out", "run"], &more[..]].concat())
    };
    resume("other").ends_with(2).says(&["run/checkpoints/", "its teachers differs"]);
    resume("elsewhere").ends_with(0).says(&["resuming run after 2 of 3 epochs"]);
}

#[test]
fn a_checkpoint_of_another_network_is_refused() {
    let place = Place::with_config();
    place.train("run", &[]);
    place.train("wide", &["--set", "network.layers.0.filters=6"]);
    place.train("seeded", &["--set", "seed=2"]);
    let before = metrics_of(&place.path("run"));
    for (other, part) in [("wide", "its network.layers differs"), ("seeded", "its seed differs")] {
        let name = "checkpoints/last.safetensors";
        fs_err::copy(place.path(other).join(name), place.path("run").join(name)).unwrap();
        let outcome = place.run(&["train", "--resume", "--out", "run"]).ends_with(2);
        outcome.says(&["run/checkpoints/last.safetensors", part]);
    }
    let broken = "this is no checkpoint\n";
    place.write("run/checkpoints/last.safetensors", broken);
    place.run(&["train", "--resume", "--out", "run"]).ends_with(1).says(&["last.safetensors is no vultus-checkpoint"]);
    assert_eq!(metrics_of(&place.path("run")), before, "a refused checkpoint changed the run");
}

#[test]
fn a_second_run_into_one_directory_is_refused() {
    let place = Place::with_config();
    place.train("run", &[]);
    let before = Results::of(&place.path("run"));
    let again = ["train", "--config", "small.toml", "--out", "run"];
    place.run(&again).ends_with(2).says(&["run already holds a run", "--out", "--resume"]);
    before.assert_same(&Results::of(&place.path("run")));
    place.write("letters/letter.txt", "dear");
    let foreign = ["train", "--config", "small.toml", "--out", "letters"];
    place.run(&foreign).ends_with(2).says(&["letters is not empty"]);
    assert_eq!(fs_err::read_dir(place.path("letters")).unwrap().count(), 1);
}

#[test]
fn a_directory_in_use_is_left_alone() {
    let place = Place::with_config();
    let mut running = place.start("first", &long_run(&["--set", "train.epochs=1000000"]));
    running.wait_for_lines(&place.path("run/metrics.jsonl"), 1);
    place.run(&["train", "--resume", "--out", "run"]).ends_with(2).says(&["run is in use by another vultus process"]);
    place.run(&["train", "--config", "small.toml", "--out", "run"]).ends_with(2).says(&["run already holds a run"]);
    running.kill();
}

/// Runs the program where no file can grow beyond `kibibytes`: writing more fails as on a full disk.
fn run_on_a_full_disk(place: &Place, kibibytes: usize, arguments: &[&str]) -> Outcome {
    // POSIX counts in blocks of 512 bytes.
    let script = format!("trap '' XFSZ; ulimit -f {}; exec \"$@\"", kibibytes * 2);
    let mut command = Command::new("sh");
    command.args(["-c", &script, "sh", VULTUS]).args(arguments).current_dir(place.path(""));
    Outcome::of(command.output().unwrap())
}

#[test]
fn a_full_disk_names_the_checkpoint() {
    let place = Place::with_config();
    // 12 bytes a parameter: about 50 KiB.
    let outcome = run_on_a_full_disk(&place, 20, &["train", "--config", "small.toml", "--out", "run"]).ends_with(1);
    outcome.says(&["cannot write run/checkpoints/", ".safetensors", "File too large"]);
    assert_eq!(fs_err::read_dir(place.path("run/checkpoints")).unwrap().count(), 0);
    assert!(place.files_named(".writing-").is_empty());
    // With space again, the run can begin.
    place.run(&["train", "--resume", "--out", "run"]).ends_with(0);
    place.train("undisturbed", &[]);
    Results::of(&place.path("undisturbed")).assert_same(&Results::of(&place.path("run")));
}

#[test]
fn a_full_disk_leaves_the_older_checkpoint() {
    let place = Place::with_config();
    let four = ["--set", "train.epochs=4"];
    place.train("undisturbed", &four);
    place.train("run", &[]);
    let path = place.path("run/checkpoints/last.safetensors");
    let before = fs_err::read(&path).unwrap();
    let resume = [&["train", "--resume", "--out", "run"], &four[..]].concat();
    let outcome = run_on_a_full_disk(&place, 20, &resume).ends_with(1);
    outcome.says(&["cannot write run/checkpoints/", "File too large"]);
    assert!(fs_err::read(&path).unwrap() == before, "the older checkpoint changed");
    assert!(place.files_named(".writing-").is_empty());
    place.run(&resume).ends_with(0);
    Results::of(&place.path("undisturbed")).assert_same(&Results::of(&place.path("run")));
}
