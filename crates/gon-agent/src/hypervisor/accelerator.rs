//! How guests are executed on this node: which QEMU there is, and whether KVM works with it.
//!
//! Assumes that neither changes while the machine runs the same kernel and QEMU: what was found out is kept, since
//! finding out that KVM hangs takes seconds.

use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gon_driver::host;
use gon_driver::image::Manifest;
use gon_driver::qemu::{self, Accelerator, Capabilities, Kernel};
use serde::{Deserialize, Serialize};

use super::{Shared, chain};

/// How often it is looked again for a QEMU, or for an image whose kernel could prove KVM.
const INTERVAL: Duration = Duration::from_secs(2);
const FILE: &str = "accelerator.json";
/// Where the test guest has its files.
pub(super) const PROOF: &str = "proof";

/// What was found out about KVM, and of which machine that holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Proof {
    kernel: String,
    qemu: String,
    processor: String,
    /// The processor model under which KVM proved itself.
    kvm: Option<String>,
    /// Why not, otherwise.
    why: Option<String>,
}

pub(super) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn write_json<T: Serialize>(dir: &Path, name: &str, value: &T) -> io::Result<()> {
    let beside = dir.join(format!("{name}.new"));
    let mut file =
        std::fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    file.sync_all()?;
    std::fs::rename(&beside, dir.join(name))?;
    std::fs::File::open(dir)?.sync_all()
}

/// Images in the store, by name. What is not one is left out; the builder works beside them.
pub(super) fn manifests(dir: &Path) -> Vec<Manifest> {
    let Ok(entries) = std::fs::read_dir(dir) else { return vec![] };
    let mut found: Vec<Manifest> = entries
        .flatten()
        .filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."))
        .filter_map(|entry| {
            let manifest = Manifest::load(&entry.path()).ok()?;
            (entry.file_name() == manifest.name.as_str()).then_some(manifest)
        })
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// Finds out what this node can do, and keeps it known: first what QEMU there is, then whether KVM works. Ends when
/// there is nothing more to find out.
pub(super) async fn explore(shared: Arc<Shared>) {
    let config = &shared.config;
    let kernel = host::facts().map(|facts| facts.kernel).unwrap_or_default();
    let base = loop {
        match qemu::probe(config.qemu.as_deref()).await {
            Ok(capabilities) => break capabilities,
            Err(error) => {
                tracing::error!(error = chain(&error), "no instance can be started");
                shared.note(format!("no instance can be started: {}", chain(&error)));
                tokio::time::sleep(INTERVAL).await;
            }
        }
    };
    let settle = |accelerator: Accelerator| {
        shared.status.send_modify(|status| {
            status.accelerator = Some(accelerator.name().to_owned());
            status.qemu = Some(base.version_text());
        });
        shared.capabilities.send_replace(Some(Capabilities { accelerator, ..base.clone() }));
    };
    if config.emulate {
        shared.note("emulation, as configured".to_owned());
        return settle(Accelerator::Tcg);
    }
    loop {
        let Some(manifest) = manifests(&config.images).into_iter().next() else {
            // No image, no kernel to prove anything with; and nothing to start either.
            if shared.capabilities.borrow().is_none() {
                shared.note("emulation: there is no image yet to prove KVM with".to_owned());
                settle(Accelerator::Tcg);
            }
            tokio::time::sleep(INTERVAL).await;
            continue;
        };
        let key = |kvm, why| Proof {
            kernel: kernel.clone(),
            qemu: base.version_text(),
            processor: processor(),
            kvm,
            why,
        };
        let path = config.state_dir.join(FILE);
        let known = read_json::<Proof>(&path).ok().flatten();
        let known = known.filter(|proof| *proof == key(proof.kvm.clone(), proof.why.clone()));
        let proof = match known {
            Some(proof) => proof,
            None => {
                let dir = config.images.join(&manifest.name);
                let boots =
                    Kernel { kernel: manifest.kernel_path(&dir), cmdline: manifest.kernel_cmdline(false) };
                let proof = match qemu::prove_kvm(&base, &boots, &config.state_dir.join(PROOF)).await {
                    Ok(Accelerator::Kvm { cpu }) => key(Some(cpu), None),
                    Ok(Accelerator::Tcg) => key(None, Some("not proved".to_owned())),
                    Err(error) => key(None, Some(chain(&error))),
                };
                if let Err(error) = write_json(&config.state_dir, FILE, &proof) {
                    tracing::warn!(%error, "what was found out about KVM cannot be kept");
                }
                proof
            }
        };
        match (&proof.kvm, &proof.why) {
            (Some(cpu), _) => {
                shared.note(format!("KVM, processor model {cpu}"));
                settle(Accelerator::Kvm { cpu: cpu.clone() });
            }
            (None, why) => {
                let why = why.as_deref().unwrap_or("unknown");
                tracing::warn!(
                    why,
                    "KVM does not work here: guests are emulated, which is slow and does not isolate tenants"
                );
                shared.note(format!("emulation, slow and without isolation between tenants: {why}"));
                settle(Accelerator::Tcg);
            }
        }
        return;
    }
}

fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let of = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    [of("model name"), of("microcode")].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let text = |s: &str| s.to_owned();
        let proof = Proof {
            kernel: text("6"),
            qemu: text("10"),
            processor: processor(),
            kvm: None,
            why: Some(text("hung")),
        };
        let path = dir.path().join(FILE);
        assert_eq!(read_json::<Proof>(&path).unwrap(), None);
        write_json(dir.path(), FILE, &proof).unwrap();
        assert_eq!(read_json(&path).unwrap(), Some(proof));
        std::fs::write(&path, "{").unwrap();
        assert!(read_json::<Proof>(&path).is_err(), "damage is not taken for absence");
    }
}
