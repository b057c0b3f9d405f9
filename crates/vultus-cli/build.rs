//! Passes the git revision to the program (a source tree without git gives `unknown`), and whether the source tree has the
//! model that is used where none is named.

use std::path::Path;
use std::process::Command;

/// The model for those who have none of their own.
const DEFAULT_MODEL: &str = "../../models/fer-base.safetensors";

fn main() {
    println!("cargo::rerun-if-changed=../../.git/HEAD");
    println!("cargo::rerun-if-changed=../../.git/refs/heads");
    let revision = Command::new("git")
        .args(["rev-parse", "--short=12", "HEAD"])
        .output()
        .ok()
        .filter(|output| output.status.success())
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .map_or_else(|| "unknown".to_owned(), |text| text.trim().to_owned());
    println!("cargo::rustc-env=VULTUS_REVISION={revision}");

    println!("cargo::rustc-check-cfg=cfg(has_default_model)");
    println!("cargo::rerun-if-changed={DEFAULT_MODEL}");
    if Path::new(DEFAULT_MODEL).is_file() {
        println!("cargo::rustc-cfg=has_default_model");
    }
}
