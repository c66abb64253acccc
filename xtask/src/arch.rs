//! Who may import whom, held against the manifests and the sources.
//!
//! The table below is the one of ARCHITECTURE.md. A crate that imports another outside its row, names an outside
//! system that is not its door, or starts a process outside `gon-driver`, fails the check.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// Crate, and which of ours its normal dependencies may name.
const IMPORTS: &[(&str, &[&str])] = &[
    ("gon-types", &[]),
    ("gon-core", &["gon-types"]),
    ("gon-proto", &["gon-types"]),
    ("gon-net", &["gon-types", "gon-proto"]),
    ("gon-api", &["gon-types"]),
    ("gon-store", &["gon-types"]),
    ("gon-bus", &["gon-types", "gon-proto"]),
    ("gon-cluster", &["gon-types"]),
    ("gon-tls", &["gon-types"]),
    ("gon-driver", &["gon-types", "gon-proto", "gon-net"]),
    (
        "gon-control",
        &["gon-types", "gon-core", "gon-proto", "gon-api", "gon-store", "gon-bus", "gon-cluster", "gon-tls"],
    ),
    ("gon-agent", &["gon-types", "gon-proto", "gon-net", "gon-bus", "gon-cluster", "gon-driver", "gon-tls"]),
    (
        "gond",
        &[
            "gon-types",
            "gon-proto",
            "gon-control",
            "gon-agent",
            "gon-store",
            "gon-driver",
            "gon-bus",
            "gon-cluster",
            "gon-core",
            "gon-tls",
        ],
    ),
    ("gon", &["gon-api", "gon-types"]),
    ("gon-testkit", &["gon-types", "gon-proto", "gon-api", "gon-store", "gon-bus", "gon-cluster", "gon-tls"]),
    (
        "gon-sim",
        &[
            "gon-types",
            "gon-core",
            "gon-proto",
            "gon-store",
            "gon-agent",
            "gon-control",
            "gon-cluster",
            "gon-bus",
        ],
    ),
    // The roles and doors of a worker: its benchmark runs the network agent by itself.
    (
        "e2e",
        &[
            "gon-testkit",
            "gon-api",
            "gon-types",
            "gon-tls",
            "gon-proto",
            "gon-net",
            "gon-driver",
            "gon-agent",
        ],
    ),
    ("xtask", &["gon-control"]),
];

/// An outside crate and the only ones of ours that may depend on it.
const DOORS: &[(&str, &[&str])] = &[
    ("sqlx", &["gon-store"]),
    ("lapin", &["gon-bus"]),
    ("etcd-client", &["gon-cluster"]),
    ("rtnetlink", &["gon-driver"]),
    ("rcgen", &["gon-tls"]),
    ("bollard", &["gon-driver"]),
    ("axum", &["gon-control", "gon-agent", "gond"]),
    ("clap", &["gond", "gon"]),
    ("anyhow", &["gond", "gon", "xtask", "e2e", "gon-testkit", "gon-control", "gon-agent"]),
];

/// Text that must not stand in the sources of any crate but these (tests excepted).
const WORDS: &[(&str, &[&str])] = &[
    ("process::Command", &["gon-driver", "gon-testkit", "e2e", "xtask"]),
    (
        "SystemTime::now",
        &["gon-types", "gon-control", "gon-agent", "gon-driver", "gond", "gon", "gon-testkit", "e2e"],
    ),
    (
        "Instant::now",
        &[
            "gon-api",
            "gon-store",
            "gon-bus",
            "gon-cluster",
            "gon-control",
            "gon-agent",
            "gon-driver",
            "gond",
            "gon",
            "gon-testkit",
            "e2e",
        ],
    ),
];

/// Checks the workspace around the current directory.
pub fn check() -> anyhow::Result<()> {
    let root = root()?;
    let mut wrong = Vec::new();
    for (name, allowed) in IMPORTS {
        let folder = if Path::new(&root).join("crates").join(name).is_dir() {
            root.join("crates").join(name)
        } else {
            root.join(name)
        };
        let manifest = std::fs::read_to_string(folder.join("Cargo.toml"))
            .with_context(|| format!("manifest of {name}"))?;
        let dependencies = normal_dependencies(&manifest);
        for ours in dependencies.iter().filter(|d| IMPORTS.iter().any(|(n, _)| n == *d)) {
            if !allowed.contains(&ours.as_str()) {
                wrong.push(format!("{name} must not import {ours}"));
            }
        }
        for (outside, doors) in DOORS {
            if dependencies.contains(*outside) && !doors.contains(name) {
                wrong.push(format!("{name} must not depend on {outside}: its door is {}", doors.join(", ")));
            }
        }
        // The table itself names every word.
        for source in if *name == "xtask" { Vec::new() } else { sources(&folder.join("src"))? } {
            let text = std::fs::read_to_string(&source)?;
            for (word, crates) in WORDS {
                let used =
                    text.lines().any(|line| line.contains(word) && !line.trim_start().starts_with("//"));
                if used && !crates.contains(name) {
                    wrong.push(format!(
                        "{} names {word}, which is not its business",
                        source.strip_prefix(&root)?.display()
                    ));
                }
            }
        }
    }
    let known: BTreeSet<String> = IMPORTS.iter().map(|(n, _)| (*n).to_owned()).collect();
    for entry in std::fs::read_dir(root.join("crates"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !known.contains(&name) {
            wrong.push(format!("crates/{name} has no row in the import table"));
        }
    }
    if wrong.is_empty() { Ok(()) } else { bail!("{}", wrong.join("\n")) }
}

fn root() -> anyhow::Result<PathBuf> {
    let manifest = std::env::var("CARGO_MANIFEST_DIR").context("run as `cargo xtask arch`")?;
    Ok(Path::new(&manifest).parent().context("xtask has a parent folder")?.to_owned())
}

/// Names in `[dependencies]`, which is where production imports stand; dev-dependencies are free.
fn normal_dependencies(manifest: &str) -> BTreeSet<String> {
    let mut inside = false;
    let mut names = BTreeSet::new();
    for line in manifest.lines() {
        let line = line.trim();
        if line.starts_with('[') {
            inside = line == "[dependencies]";
        } else if inside && let Some(end) = line.find(['.', ' ', '=']) {
            names.insert(line[..end].to_owned());
        }
    }
    names
}

/// Every Rust file below, but those of unit tests.
fn sources(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(sources(&path)?);
        } else if path.extension().is_some_and(|e| e == "rs") && path.file_stem().is_none_or(|s| s != "tests")
        {
            found.push(path);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_dependencies_table_counts() {
        let manifest = "[package]\nname = \"x\"\n[dependencies]\ngon-types.workspace = true\nserde = \"1\"\n[dev-dependencies]\ngon-store.workspace = true\n";
        assert_eq!(
            normal_dependencies(manifest),
            BTreeSet::from(["gon-types".to_owned(), "serde".to_owned()])
        );
    }
}
