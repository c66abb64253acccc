//! The storage agent on a real store with small images.

use std::path::{Path, PathBuf};
use std::time::Duration;

use gon_agent::facts::{self, StorageFacts};
use gon_agent::storage::{self, Config, Integrity, StorageStatus};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

fn image(store: &Path, name: &str) -> PathBuf {
    let dir = store.join(name);
    std::fs::create_dir_all(&dir).unwrap();
    let file = |file: &str, content: &[u8]| {
        std::fs::write(dir.join(file), content).unwrap();
        let hex: String = Sha256::digest(content).iter().map(|b| format!("{b:02x}")).collect();
        serde_json::json!({ "file": file, "bytes": content.len(), "sha256": hex })
    };
    let manifest = serde_json::json!({
        "schema": gon_driver::image::SCHEMA, "name": name, "description": "of a test", "kind": "initramfs",
        "arch": "x86_64", "machine": "microvm", "kernel": file("vmlinux", b"a kernel"),
        "initrd": file("initrd", b"a disk"), "disk": null, "cmdline": "quiet", "kernel_version": "6.1",
        "min_memory_mib": 64, "recipe": "ab".repeat(32), "built_at": "2026-11-23T00:00:00Z",
    });
    std::fs::write(dir.join("manifest.json"), manifest.to_string()).unwrap();
    dir
}

struct Agent {
    seen: watch::Receiver<StorageStatus>,
    task: tokio::task::JoinHandle<anyhow::Result<()>>,
}

impl Agent {
    fn start(dir: &Path) -> Self {
        let status = watch::Sender::default();
        let seen = status.subscribe();
        let config = Config {
            images: dir.join("images"),
            state_dir: dir.join("storage"),
            facts: dir.join("facts"),
            status,
        };
        Self { seen, task: tokio::spawn(storage::run(config, std::future::pending())) }
    }
    async fn sees(&mut self, what: impl Fn(&StorageStatus) -> bool) -> StorageStatus {
        let seen = self.seen.wait_for(|status| what(status));
        let seen = tokio::time::timeout(Duration::from_secs(30), seen).await;
        seen.expect("in time").unwrap().clone()
    }
    async fn end(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

#[tokio::test]
async fn images_are_verified_once_and_damage_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("images");
    let good = image(&store, "good");
    std::fs::create_dir(store.join(".building")).unwrap();
    let bad = image(&store, "bad");
    // Of the right length, so that only its digest tells.
    std::fs::write(bad.join("initrd"), b"A disk").unwrap();

    let mut agent = Agent::start(dir.path());
    let status =
        agent.sees(|s| s.images.iter().all(|i| i.integrity != Integrity::Unchecked) && s.rounds > 0).await;
    let of = |name: &str| &status.images.iter().find(|i| i.name == name).unwrap().integrity;
    assert_eq!(of("good"), &Integrity::Verified);
    assert!(matches!(of("bad"), Integrity::Damaged(why) if why.contains("'initrd' has digest")));
    assert_eq!(status.images.len(), 2, "what is being built is no image");
    assert!(status.total_bytes >= status.free_bytes && status.free_bytes > 0);
    let told: StorageFacts = facts::told(&dir.path().join("facts"), facts::STORAGE).unwrap();
    assert_eq!(told.damaged, ["bad"]);
    let samples = status.samples();
    let value = |name: &str| samples.iter().find(|s| s.name == name).unwrap().value;
    assert_eq!((value("gon_storage_images_verified"), value("gon_storage_images_damaged")), (1.0, 1.0));
    agent.end().await;

    // What was found is known after a restart without reading: the content changes and the stamp does not.
    let kernel = good.join("vmlinux");
    let before = std::fs::metadata(&kernel).unwrap().modified().unwrap();
    std::fs::write(&kernel, b"A kernel").unwrap();
    std::fs::File::options().write(true).open(&kernel).unwrap().set_modified(before).unwrap();
    let mut agent = Agent::start(dir.path());
    let status = agent.sees(|s| s.rounds > 0).await;
    assert!(status.images.iter().all(|i| i.integrity != Integrity::Unchecked), "{status:?}");
    agent.end().await;

    // Another file is another matter.
    std::fs::write(&kernel, b"A kernel").unwrap();
    let mut agent = Agent::start(dir.path());
    agent.sees(|s| s.damaged().count() == 2).await;
    agent.end().await;
}

#[tokio::test]
async fn a_store_that_is_not_there_is_said_to_be_missing() {
    let dir = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(dir.path());
    let status = agent.sees(|s| s.rounds > 0).await;
    assert!(status.error.unwrap().contains("images"));
    agent.end().await;
}
