//! Finds the model file that lies inside the package of the crate `rustface`, for embedding.
//!
//! The crate does not export it, and Cargo does not tell a build script where a dependency's sources are. They are where
//! Cargo unpacks what it downloads, or in a folder of vendored sources; `VULTUS_RUSTFACE_MODEL` names the file where
//! neither holds.

use std::env;
use std::path::{Path, PathBuf};

/// The file inside the package.
const FILE: &str = "model/seeta_fd_frontal_v1.0.bin";

/// The package's folder below a registry's sources; the version is pinned in the workspace's manifest.
const PACKAGE: &str = "rustface-0.1.7";

/// The variable that names the file.
const VARIABLE: &str = "VULTUS_RUSTFACE_MODEL";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    match find() {
        Some(path) => println!("cargo::rustc-env={VARIABLE}={}", path.display()),
        None => println!(
            "cargo::error=cannot find {FILE} of the crate {PACKAGE}; set {VARIABLE} to the path of that file, \
             which is part of the crate's package"
        ),
    }
}

fn find() -> Option<PathBuf> {
    if let Some(path) = env::var_os(VARIABLE) {
        return std::path::absolute(path).ok().filter(|path| path.is_file());
    }
    registry_sources().chain(vendored_sources()).map(|package| package.join(FILE)).find(|path| path.is_file())
}

/// `<cargo home>/registry/src/<registry>/<package>`.
fn registry_sources() -> impl Iterator<Item = PathBuf> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| env::home_dir().map(|home| home.join(".cargo")));
    let registries = home.and_then(|home| std::fs::read_dir(home.join("registry/src")).ok());
    registries.into_iter().flatten().flatten().map(|registry| registry.path().join(PACKAGE))
}

/// `vendor/rustface` or `vendor/<package>` beside the workspace or above it.
fn vendored_sources() -> impl Iterator<Item = PathBuf> {
    let here = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).unwrap_or_default();
    let above: Vec<PathBuf> = here.ancestors().map(Path::to_owned).collect();
    above.into_iter().flat_map(|folder| ["rustface", PACKAGE].map(|name| folder.join("vendor").join(name)))
}
