//! What this node is and has: its identity, what it can lend, its images.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gon_driver::host::{self, HostFacts};
use gon_driver::image::Kind;
use gon_driver::qemu::Capabilities;
use gon_proto::{ImageKind, ImageReport, NodeAnswer, NodeReport, paths};
use gon_types::id::NodeId;
use serde::{Deserialize, Serialize};

use super::accelerator::{manifests, read_json, write_json};
use super::{Config, Shared};
use crate::chain;
use crate::facts::{self, ContainerFacts, NetworkFacts, StorageFacts};

/// How often the node says what it is; and how long after a failure.
const INTERVAL: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_secs(1);
/// The same while nobody knows it: nothing can begin before.
const FIRST: Duration = Duration::from_millis(100);
const FILE: &str = "node.json";
/// Where the kernel says which boot this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Who this node is, by the control plane's word; kept from the first answer on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    name: String,
    node: NodeId,
    /// Its incarnation: raised when it is declared dead.
    epoch: u64,
}

/// Who the node of this state directory is, once the control plane has said so; kept over restarts.
pub fn node_id(state_dir: &Path) -> io::Result<Option<NodeId>> {
    let identity: Option<Identity> = read_json(&state_dir.join(FILE))?;
    Ok(identity.map(|identity| identity.node))
}

/// Its epoch, as it was told last.
pub fn node_epoch(state_dir: &Path) -> io::Result<Option<u64>> {
    let identity: Option<Identity> = read_json(&state_dir.join(FILE))?;
    Ok(identity.map(|identity| identity.epoch))
}

/// Says what this node is until somebody answers; its identity. Only a node that never had one has to wait for that.
pub(super) async fn join(shared: &Arc<Shared>) -> io::Result<NodeId> {
    let mut told = false;
    loop {
        shared.status.send_if_modified(|status| {
            status.rounds += 1;
            false
        });
        if let Some(node) = node_id(&shared.config.state_dir)? {
            return Ok(node);
        }
        if let Err(error) = introduce(shared).await {
            if !std::mem::replace(&mut told, true) {
                tracing::info!(error, "this node is not known yet");
            }
            tokio::time::sleep(FIRST).await;
        }
    }
}

/// Says what this node is, for ever.
pub(super) async fn report(shared: Arc<Shared>) {
    let mut failing = false;
    loop {
        let pause = match introduce(&shared).await {
            Ok(()) => {
                failing = false;
                INTERVAL
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(error, "the node's report was not taken");
                }
                RETRY
            }
        };
        tokio::time::sleep(pause).await;
    }
}

async fn introduce(shared: &Arc<Shared>) -> Result<(), String> {
    let mut known = shared.capabilities.subscribe();
    let capabilities = match known.wait_for(Option::is_some).await {
        Ok(found) => found.clone(),
        Err(_) => None,
    };
    let Some(capabilities) = capabilities else { return Err("nothing is known yet".to_owned()) };
    let config = Arc::clone(&shared.config);
    let report = tokio::task::spawn_blocking(move || describe(&config, &capabilities))
        .await
        .map_err(|error| error.to_string())?;
    let answer: NodeAnswer =
        shared.config.link.exchange(paths::NODE_REPORT, &report).await.map_err(|error| chain(&error))?;
    let identity = Identity { name: report.name, node: answer.node, epoch: answer.epoch };
    let dir = shared.config.state_dir.clone();
    let keep = move || {
        let held: Option<Identity> = read_json(&dir.join(FILE)).map_err(|error| error.to_string())?;
        match held {
            // What runs here was placed on the node we were. Somebody has to decide.
            Some(held) if held.node != identity.node => {
                Err(format!("the control plane takes node {} for {}", held.node, identity.node))
            }
            Some(held) if held == identity => Ok(()),
            _ => write_json(&dir, FILE, &identity).map_err(|error| error.to_string()),
        }
    };
    tokio::task::spawn_blocking(keep).await.map_err(|error| error.to_string())?
}

/// The report. Blocks for the disk.
fn describe(config: &Config, capabilities: &Capabilities) -> NodeReport {
    let host = host::facts().unwrap_or_else(|error| {
        tracing::warn!(%error, "this machine does not say what it is");
        HostFacts { cpus: 1, memory_mib: 0, hostname: String::new(), kernel: String::new() }
    });
    let mut versions = config.versions.clone();
    versions.insert("qemu".to_owned(), capabilities.version_text());
    versions.insert("kernel".to_owned(), host.kernel);
    let network = facts::told_ever::<NetworkFacts>(&config.facts, facts::NETWORK);
    versions
        .extend(network.as_ref().and_then(|facts| Some(("openvswitch".to_owned(), facts.version.clone()?))));
    let containers = facts::told::<ContainerFacts>(&config.facts, facts::CONTAINER);
    if let Some(docker) = containers.and_then(|facts| facts.docker) {
        versions.insert("docker".to_owned(), docker.version);
        versions.insert("docker_api".to_owned(), docker.api);
        versions.insert("cgroup".to_owned(), docker.cgroup);
    }
    let storage = facts::told::<StorageFacts>(&config.facts, facts::STORAGE);
    let damaged = storage.map(|facts| facts.damaged).unwrap_or_default();
    let told: Option<Identity> = read_json(&config.state_dir.join(FILE)).ok().flatten();
    NodeReport {
        format: gon_proto::FORMAT,
        name: config.node.name.clone(),
        availability_zone: config.node.availability_zone.clone(),
        vcpus: host.cpus.saturating_mul(config.node.cpu_overcommit.max(1)),
        memory_mib: host.memory_mib.saturating_sub(config.node.memory_reserve_mib),
        disk_gib: disk_gib(&config.instances_dir()).saturating_sub(config.node.disk_reserve_gib),
        accelerator: capabilities.accelerator.name().to_owned(),
        // Before there is any switch: what works everywhere.
        ovs_datapath: network.map_or_else(|| "netdev".to_owned(), |facts| facts.datapath),
        versions,
        images: images(&config.images, &damaged),
        labels: config.node.labels.clone(),
        address: config.node.address,
        boot_id: std::fs::read_to_string(BOOT_ID).ok().and_then(|text| text.trim().parse().ok()),
        node: told.as_ref().map(|told| told.node),
        epoch: told.map(|told| told.epoch),
    }
}

/// What instances have and could have: their files, and what is free beside them.
fn disk_gib(instances: &Path) -> u64 {
    let free = host::free_bytes(instances).unwrap_or(0);
    (free + used_bytes(instances)) >> 30
}

fn used_bytes(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => used_bytes(&entry.path()),
            // Links to an image's files are the image's.
            Ok(meta) if meta.nlink() == 1 => meta.blocks() * 512,
            _ => 0,
        })
        .sum()
}

/// Images in the store, by name, but those that are damaged.
fn images(dir: &Path, damaged: &[String]) -> BTreeMap<String, ImageReport> {
    manifests(dir)
        .into_iter()
        .filter(|manifest| !damaged.contains(&manifest.name))
        .map(|manifest| {
            let report = ImageReport {
                digest: manifest.recipe,
                kind: match manifest.kind {
                    Kind::Initramfs => ImageKind::Initramfs,
                    Kind::Disk => ImageKind::Disk,
                },
                min_memory_mib: manifest.min_memory_mib,
                disk_gib: manifest.disk.map_or(0, |disk| {
                    u32::try_from(disk.virtual_bytes.div_ceil(1 << 30)).unwrap_or(u32::MAX)
                }),
                description: manifest.description,
                architecture: "x86_64".to_owned(),
            };
            (manifest.name, report)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_the_instances_own_counts() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("disk"), vec![1; 1 << 20]).unwrap();
        assert!(used_bytes(dir.path()) >= 1 << 20);
        std::fs::hard_link(dir.path().join("disk"), dir.path().join("link")).unwrap();
        assert_eq!(used_bytes(dir.path()), 0, "links are counted where they come from");
    }
}
