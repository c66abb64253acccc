//! The storage agent: owns this node's image store and knows its disk.
//!
//! It has no volumes yet, and offers nothing that would need one. Assumes that images appear whole in their store
//! ([`gon_driver::image`]). Promises that every file of an image is read and compared with its digest once after it
//! appeared or changed and again every [`REREAD`], one at a time; that an image with a file that is not what it was is
//! said to be damaged, here and to the hypervisor agent, which does not offer it any more; and that what was found is
//! remembered over a restart.

mod verify;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gon_driver::host;
use gon_driver::image::Manifest;
use serde::Serialize;
use tokio::sync::watch;

use crate::facts::{self, StorageFacts};
use verify::{Known, Stamp};

/// How often an image that did not change is read again: disks lose bits.
const REREAD: Duration = Duration::from_secs(7 * 24 * 3600);
/// Of the disk, this part should be free.
const LOW: f64 = 0.05;

/// What the role is told at its start.
#[derive(Debug, Clone)]
pub struct Config {
    /// The node's image store.
    pub images: PathBuf,
    /// Its own directory; made if missing.
    pub state_dir: PathBuf,
    /// Where the agents of this node leave what they found out.
    pub facts: PathBuf,
    /// How it is.
    pub status: watch::Sender<StorageStatus>,
}

/// How the storage agent is.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct StorageStatus {
    /// Images in the store, by name.
    pub images: Vec<ImageStatus>,
    /// Size of the store's file system, bytes.
    pub total_bytes: u64,
    /// What may still be written to it, bytes.
    pub free_bytes: u64,
    /// What is wrong with the store itself.
    pub error: Option<String>,
    /// How often it was looked at.
    pub rounds: u64,
}

/// An image in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImageStatus {
    /// Its name.
    pub name: String,
    /// Its recipe's digest.
    pub digest: String,
    /// Its files, bytes.
    pub bytes: u64,
    /// What its digests say.
    pub integrity: Integrity,
}

/// What the digests of an image say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state", content = "reason")]
pub enum Integrity {
    /// They have not been computed yet.
    Unchecked,
    /// Every file is what it was when it was made.
    Verified,
    /// One is not: which.
    Damaged(String),
}

impl StorageStatus {
    /// Names of damaged images.
    pub fn damaged(&self) -> impl Iterator<Item = &str> {
        let damaged = self.images.iter().filter(|i| matches!(i.integrity, Integrity::Damaged(_)));
        damaged.map(|image| image.name.as_str())
    }
    /// Whether too little of the disk is free.
    #[must_use]
    pub fn is_low(&self) -> bool {
        (self.free_bytes as f64) < LOW * self.total_bytes as f64
    }
}

/// Runs the role until `stop`.
pub async fn run(config: Config, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    std::fs::create_dir_all(&config.state_dir)?;
    tokio::select! {
        () = look(&config) => {}
        () = stop => {}
    }
    Ok(())
}

async fn look(config: &Config) {
    let mut known = Known::load(&config.state_dir);
    loop {
        let due = survey(config, &mut known).await;
        let Some((dir, manifest, stamp)) = due else {
            tokio::time::sleep(facts::REPEAT).await;
            continue;
        };
        // Seconds for a disk; the books are kept meanwhile.
        let reading = manifest.verify(&dir);
        tokio::pin!(reading);
        let found = loop {
            tokio::select! {
                found = &mut reading => break found,
                () = tokio::time::sleep(facts::REPEAT) => {
                    survey(config, &mut known).await;
                }
            }
        };
        match &found {
            Ok(()) => tracing::info!(image = manifest.name, "the image is what it was when it was made"),
            Err(error) => {
                tracing::error!(image = manifest.name, error = crate::chain(error), "an image is damaged");
            }
        }
        known.learn(&manifest.name, stamp, found.err().map(|error| crate::chain(&error)));
        if let Err(error) = known.save(&config.state_dir) {
            tracing::warn!(%error, "what is known of the images cannot be written down");
        }
    }
}

/// Looks at the store, says what is there; the image whose digests should be computed next, if any.
async fn survey(config: &Config, known: &mut Known) -> Option<(PathBuf, Manifest, Stamp)> {
    let images = config.images.clone();
    let read = tokio::task::spawn_blocking(move || inventory(&images)).await;
    let mut status = StorageStatus::default();
    let mut due = None;
    match read.map_err(std::io::Error::other).and_then(|r| r) {
        Ok((found, total, free)) => {
            (status.total_bytes, status.free_bytes) = (total, free);
            known.keep_only(&found.iter().map(|(_, m, _)| m.name.as_str()).collect::<Vec<_>>());
            for (dir, manifest, stamp) in found {
                let integrity = known.of(&manifest.name, &stamp);
                let needs = integrity == Integrity::Unchecked || known.is_old(&manifest.name, REREAD);
                status.images.push(ImageStatus {
                    name: manifest.name.clone(),
                    digest: manifest.recipe.clone(),
                    bytes: stamp.bytes(),
                    integrity,
                });
                if needs && due.is_none() {
                    due = Some((dir, manifest, stamp));
                }
            }
        }
        Err(error) => status.error = Some(format!("{}: {error}", config.images.display())),
    }
    let damaged = status.damaged().map(ToOwned::to_owned).collect();
    if let Err(error) = facts::tell(&config.facts, facts::STORAGE, &StorageFacts { damaged }) {
        tracing::warn!(%error, "the node's facts cannot be written");
    }
    config.status.send_modify(|held| {
        status.rounds = held.rounds + 1;
        *held = status;
    });
    due
}

type Inventory = (Vec<(PathBuf, Manifest, Stamp)>, u64, u64);

/// Every whole image, and the disk. Blocks for the disk.
fn inventory(images: &Path) -> std::io::Result<Inventory> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(images)? {
        let entry = entry?;
        let dir = entry.path();
        let Ok(manifest) = Manifest::load(&dir) else { continue };
        if entry.file_name() == manifest.name.as_str()
            && let Ok(stamp) = Stamp::of(&dir)
        {
            found.push((dir, manifest, stamp));
        }
    }
    found.sort_by(|a, b| a.1.name.cmp(&b.1.name));
    Ok((found, host::disk_gib(images)? << 30, host::free_bytes(images)?))
}
