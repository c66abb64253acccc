//! `openapi/gon-v1.json`: generated from the routes, checked in, so that a change of the contract is seen in review.

use std::path::PathBuf;

use anyhow::{Context, bail};

fn path() -> anyhow::Result<PathBuf> {
    let manifest = std::env::var("CARGO_MANIFEST_DIR").context("run as `cargo xtask openapi`")?;
    Ok(PathBuf::from(manifest).join("../openapi/gon-v1.json"))
}

/// Writes the document.
pub fn write() -> anyhow::Result<()> {
    let path = path()?;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(&path, gon_control::api::openapi_document()?)?;
    Ok(())
}

/// Fails if the document is not the one of the routes.
pub fn check() -> anyhow::Result<()> {
    let kept = std::fs::read_to_string(path()?).context("openapi/gon-v1.json")?;
    if kept == gon_control::api::openapi_document()? {
        Ok(())
    } else {
        bail!(
            "openapi/gon-v1.json is not what the routes say: run `cargo xtask openapi` and review the difference"
        )
    }
}
