//! The programs and images under test, built when they are not current.
//!
//! Assumes that `cargo test` holds no lock while tests run. Promises that the binary is of the profile of the test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, anyhow};

use crate::process::check;
use crate::say;

/// A build on a machine that is busy with others.
const BUILD_DEADLINE: Duration = Duration::from_secs(40 * 60);

static BINARIES: OnceLock<Result<PathBuf, String>> = OnceLock::new();

/// The root of the workspace.
#[must_use]
pub fn workspace() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// The folder that holds `gond` and `gon`, current. `GON_E2E_BIN_DIR` names another one, which is not built.
///
/// # Errors
/// When the build fails.
pub fn binaries() -> anyhow::Result<&'static Path> {
    let built = BINARIES.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    built.as_deref().map_err(|error| anyhow!("building gond: {error}"))
}

fn build() -> anyhow::Result<PathBuf> {
    if let Some(given) = std::env::var_os("GON_E2E_BIN_DIR") {
        return Ok(given.into());
    }
    // …/target/PROFILE/deps/it-0123 or …/target/PROFILE/bench
    let exe = std::env::current_exe()?;
    let folder = exe.parent().context("the test binary is in a folder")?;
    let folder =
        if folder.ends_with("deps") { folder.parent().context("a profile's folder")? } else { folder };
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // All binaries, not just ours: so that the choice of features, and with it nearly every build, is the one of
    // `cargo test --workspace`.
    cargo.current_dir(workspace()).args(["build", "--locked", "--quiet", "--workspace", "--bins"]);
    if folder.ends_with("release") {
        cargo.arg("--release");
    }
    say!("{cargo:?}");
    check(&mut cargo, BUILD_DEADLINE)?;
    Ok(folder.to_owned())
}

/// The folder of built images, shared by all worlds; `name` is in it.
///
/// # Errors
/// When the image cannot be built.
pub fn images(name: &str) -> anyhow::Result<PathBuf> {
    static BUILDING: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let folder = match std::env::var_os("GON_E2E_IMAGES_DIR") {
        Some(given) => PathBuf::from(given),
        None => workspace().join("target/gon-images"),
    };
    let _one_at_a_time = BUILDING.lock();
    let mut gond = Command::new(binaries()?.join("gond"));
    gond.args(["image", "build", "--images-dir"]).arg(&folder).arg(name);
    check(&mut gond, BUILD_DEADLINE).with_context(|| format!("building the image {name}"))?;
    Ok(folder)
}
