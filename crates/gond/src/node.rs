//! The name of this machine as a node, decided at the first start and kept in `node.json`. Its id is the instance
//! manager's to give; the hypervisor agent keeps that.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::config::{Config, is_node_name};
use crate::layout::Layout;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    name: String,
}

/// The node's name: the one it has, or, at the first start, the configured one, else the host's.
pub fn name(config: &Config, layout: &Layout) -> anyhow::Result<Arc<str>> {
    let path = layout.node_file();
    match std::fs::read(&path) {
        Ok(text) => {
            let kept: Kept =
                serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))?;
            if let Some(name) = &config.node.name
                && *name != kept.name
            {
                anyhow::bail!(
                    "node.name is '{name}', but {} says that this node is '{}': a node keeps its name",
                    path.display(),
                    kept.name
                );
            }
            Ok(kept.name.into())
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let name = match &config.node.name {
                Some(name) => name.clone(),
                None => from_hostname(&gon_driver::host::facts()?.hostname),
            };
            write_private(&path, &serde_json::to_vec(&Kept { name: name.clone() })?)?;
            Ok(name.into())
        }
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

/// The node's name without deciding it: for logs that begin before.
#[must_use]
pub fn peek(config: &Config) -> String {
    let kept = std::fs::read(Layout::new(&config.data_dir).node_file()).ok();
    let kept = kept.and_then(|text| serde_json::from_slice::<Kept>(&text).ok());
    kept.map(|kept| kept.name).or_else(|| config.node.name.clone()).unwrap_or_else(|| {
        gon_driver::host::facts().map_or_else(|_| "node".to_owned(), |facts| from_hostname(&facts.hostname))
    })
}

/// The host's name as a node's: what is not allowed in one becomes a dash.
pub fn from_hostname(hostname: &str) -> String {
    let lower = hostname.to_ascii_lowercase();
    let clean: String = lower
        .chars()
        .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.' { c } else { '-' })
        .take(50)
        .collect();
    let name = clean.trim_matches(['-', '.']);
    if is_node_name(name) { name.to_owned() } else { "node".to_owned() }
}

/// Writes a file that only its owner reads: whole or not at all, also when the power fails.
pub fn write_private(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    // Several roles may start at once on a new server.
    let beside = path.with_extension(format!("new-{}", std::process::id()));
    let write = || {
        let mut file =
            std::fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)?;
        path.parent().map_or(Ok(()), |dir| std::fs::File::open(dir)?.sync_all())
    };
    write().with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_host_name_makes_a_node_name() {
        assert_eq!(from_hostname("Worker_1.example"), "worker-1.example");
        assert_eq!(from_hostname("---"), "node");
        assert_eq!(from_hostname(""), "node");
        assert!(is_node_name(&from_hostname(&"x".repeat(64))));
    }

    #[test]
    fn a_node_keeps_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let mut config = Config::default();
        config.node.name = Some("one".to_owned());
        assert_eq!(&*name(&config, &layout).unwrap(), "one");
        config.node.name = None;
        assert_eq!(&*name(&config, &layout).unwrap(), "one");
        config.node.name = Some("two".to_owned());
        assert!(name(&config, &layout).unwrap_err().to_string().contains("keeps its name"));
    }
}
