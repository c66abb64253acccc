//! This machine as a node: what it is and has, and who it is.
//!
//! A node has a name from its first start on and an id from its first report on; both are kept in `node.json`, so that
//! its agents can work after a reboot with nobody to ask (rule R7). It reports itself every few seconds; its lease says
//! that it is alive.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use gon_agent::link::Link;
use gon_cluster::{Lease, Liveness, NODE_TTL};
use gon_driver::image::{Kind, Manifest};
use gon_proto::{ImageKind, ImageReport, NodeAnswer, NodeReport, paths};
use gon_types::id::NodeId;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, is_node_name};
use crate::layout::Layout;

/// How often a node reports itself: three times within its time to live.
const PERIOD: Duration = Duration::from_secs(5);

/// `node.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Its name.
    pub name: String,
    /// Its id, once the instance manager has given it one.
    pub node: Option<NodeId>,
}

impl Identity {
    /// Reads who this node is, or decides it at the first start: the configured name, else the host's.
    pub fn load_or_decide(config: &Config, layout: &Layout) -> anyhow::Result<Self> {
        let path = layout.node_file();
        match std::fs::read(&path) {
            Ok(text) => {
                let identity: Self = serde_json::from_slice(&text)
                    .with_context(|| format!("{} is damaged", path.display()))?;
                if let Some(name) = &config.node.name
                    && *name != identity.name
                {
                    anyhow::bail!(
                        "node.name is '{name}', but {} says that this node is '{}': a node keeps its name",
                        path.display(),
                        identity.name
                    );
                }
                Ok(identity)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let name = match &config.node.name {
                    Some(name) => name.clone(),
                    None => from_hostname(&gon_driver::host::facts()?.hostname),
                };
                let identity = Self { name, node: None };
                identity.save(layout)?;
                Ok(identity)
            }
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
    }

    fn save(&self, layout: &Layout) -> anyhow::Result<()> {
        write_private(&layout.node_file(), &serde_json::to_vec(self)?)
    }
}

/// The host's name as a node's: what is not allowed in one becomes a dash.
fn from_hostname(hostname: &str) -> String {
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
    let beside = path.with_extension("new");
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

/// What the agents find out: each sets its own, the report waits for both.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// `kvm` or `tcg`, proved.
    pub accelerator: Option<String>,
    /// QEMU's version.
    pub qemu: Option<String>,
    /// `system` or `netdev`.
    pub ovs_datapath: Option<String>,
    /// Open vSwitch's version.
    pub openvswitch: Option<String>,
}

/// The images in the node's store. A directory that is no image is passed over, with a word in the log.
pub fn images(dir: &Path) -> BTreeMap<String, ImageReport> {
    let mut images = BTreeMap::new();
    let Ok(entries) = std::fs::read_dir(dir) else { return images };
    for entry in entries.flatten() {
        let path = entry.path();
        if entry.file_name().as_encoded_bytes().starts_with(b".") || !path.is_dir() {
            continue;
        }
        match Manifest::load(&path) {
            Ok(manifest) => {
                let disk = manifest.disk.as_ref().map_or(0, |d| d.virtual_bytes.div_ceil(1 << 30));
                let report = ImageReport {
                    digest: manifest.recipe,
                    kind: match manifest.kind {
                        Kind::Initramfs => ImageKind::Initramfs,
                        Kind::Disk => ImageKind::Disk,
                    },
                    min_memory_mib: manifest.min_memory_mib,
                    disk_gib: u32::try_from(disk).unwrap_or(u32::MAX),
                    description: manifest.description,
                    architecture: "x86_64".to_owned(),
                };
                images.insert(manifest.name, report);
            }
            Err(error) => {
                tracing::debug!(path = %path.display(), error = &error as &dyn std::error::Error, "not an image");
            }
        }
    }
    images
}

/// What this node says of itself now.
fn report(config: &Config, layout: &Layout, name: &str, found: &Found) -> anyhow::Result<NodeReport> {
    let host = gon_driver::host::facts().context("what this machine has")?;
    let disk = gon_driver::host::disk_gib(layout.data_dir()).context("the data directory's file system")?;
    let mut versions = BTreeMap::from([
        ("gond".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ("kernel".to_owned(), host.kernel),
    ]);
    versions.extend(found.qemu.clone().map(|v| ("qemu".to_owned(), v)));
    versions.extend(found.openvswitch.clone().map(|v| ("openvswitch".to_owned(), v)));
    Ok(NodeReport {
        format: gon_proto::FORMAT,
        name: name.to_owned(),
        availability_zone: config.node.availability_zone.clone(),
        vcpus: host.cpus.saturating_mul(config.node.cpu_overcommit),
        memory_mib: host.memory_mib.saturating_sub(config.node.memory_reserve_mib),
        disk_gib: disk.saturating_sub(config.node.disk_reserve_gib),
        accelerator: found.accelerator.clone().unwrap_or_else(|| "tcg".to_owned()),
        ovs_datapath: found.ovs_datapath.clone().unwrap_or_else(|| "netdev".to_owned()),
        versions,
        images: images(&config.images_dir()),
    })
}

/// This machine's place among the nodes. Clones are the same node.
#[derive(Debug, Clone)]
pub struct Node {
    config: Config,
    layout: Layout,
    /// Its name.
    pub name: Arc<str>,
    /// What the agents found out about the machine.
    pub found: watch::Sender<Found>,
    /// Who it is, once that is known.
    pub known: watch::Sender<Option<NodeId>>,
}

impl Node {
    /// The node of this data directory.
    pub fn open(config: &Config, layout: &Layout) -> anyhow::Result<Self> {
        let identity = Identity::load_or_decide(config, layout)?;
        Ok(Self {
            config: config.clone(),
            layout: layout.clone(),
            name: identity.name.into(),
            found: watch::Sender::default(),
            known: watch::Sender::new(identity.node),
        })
    }

    /// Who it is; waits until that is known.
    pub async fn id(&self) -> NodeId {
        let mut known = self.known.subscribe();
        loop {
            if let Some(id) = *known.borrow_and_update() {
                return id;
            }
            // The sender is ours: it is there as long as we are.
            let _ = known.changed().await;
        }
    }
}

/// Role node: reports this node until it is told to stop.
pub async fn run(
    node: &Node,
    link: &Link,
    liveness: &dyn Liveness,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let Node { config, layout, name, known, .. } = node;
    let mut found = node.found.subscribe();
    let mut lease: Option<Box<dyn Lease>> = None;
    let mut told_no_images = false;
    loop {
        let now = found.borrow_and_update().clone();
        let said = report(config, layout, name, &now)?;
        if said.images.is_empty() && !std::mem::replace(&mut told_no_images, true) {
            tracing::warn!(
                dir = %config.images_dir().display(),
                "this node has no images, so nothing can be launched here: run 'gond image build all'"
            );
        }
        let answer = link.exchange::<_, NodeAnswer>(paths::NODE_REPORT, &said).await;
        let pause = match answer {
            Ok(answer) => {
                accept(layout, name, known, answer)?;
                // Alive is who was heard and proved to work; the lease is renewed after each report.
                let renewed = match &mut lease {
                    Some(held) => held.renew().await.is_ok(),
                    None => false,
                };
                if !renewed {
                    lease = Some(liveness.register(name, NODE_TTL).await.context("registering")?);
                }
                PERIOD
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "this node could not report itself");
                Duration::from_secs(1)
            }
        };
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = found.changed() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

fn accept(
    layout: &Layout,
    name: &str,
    known: &watch::Sender<Option<NodeId>>,
    answer: NodeAnswer,
) -> anyhow::Result<()> {
    let held = *known.borrow();
    match held {
        Some(id) if id == answer.node => Ok(()),
        Some(id) => anyhow::bail!(
            "this node is {id}, but the controllers know '{name}' as {}: the database is not the one it belongs to",
            answer.node
        ),
        None => {
            Identity { name: name.to_owned(), node: Some(answer.node) }.save(layout)?;
            known.send_replace(Some(answer.node));
            tracing::info!(node = %answer.node, name, "this node is known");
            Ok(())
        }
    }
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
}
