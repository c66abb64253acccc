//! The manifest: what an image consists of and how a guest is started from it.
//!
//! Read by the agent that starts guests, so everything in it is checked before it is believed: file names are bare
//! names, digests are digests, and the combination of parts makes sense.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{ImageError, Recipe, at, host_tsc_khz, tool};
use crate::run::Cmd;

/// Name of the manifest in an image's directory.
pub const MANIFEST_FILE: &str = "manifest.json";
/// Version of the manifest's format that this program writes, and the only one it reads.
pub const SCHEMA: u32 = 1;

/// What a guest's root file system is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The initrd itself: nothing is kept when the guest stops.
    Initramfs,
    /// A disk; guests get a copy or an overlay of it.
    Disk,
}

/// Processor architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Arch {
    /// 64-bit x86.
    #[serde(rename = "x86_64")]
    X86_64,
}

/// QEMU's machine type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Machine {
    /// `microvm` with ACPI on: virtio-mmio, no PCI, a power button.
    Microvm,
    /// `q35`: PCI Express, firmware, SMBIOS.
    Q35,
}

/// A file of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageFile {
    /// Its name in the image's directory; never a path.
    pub file: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// SHA-256 of its contents, hexadecimal.
    pub sha256: String,
}

/// The disk of an image, in QEMU's `raw` format: no header, so nothing in it is ever interpreted by the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskFile {
    /// Its name in the image's directory; never a path.
    pub file: String,
    /// SHA-256 of its contents, hexadecimal.
    pub sha256: String,
    /// What the guest sees, in bytes; the file's length. It is sparse and takes less.
    pub virtual_bytes: u64,
}

/// What `manifest.json` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The image's name, and the name of its directory: lower-case letters, digits, `-` and `.`.
    pub name: String,
    /// One line for people.
    pub description: String,
    /// What the root file system is.
    pub kind: Kind,
    /// For which processors.
    pub arch: Arch,
    /// The machine it is made for.
    pub machine: Machine,
    /// The kernel: an uncompressed ELF file with a PVH entry, for QEMU's `-kernel`.
    pub kernel: ImageFile,
    /// The initial RAM disk, for `-initrd`.
    pub initrd: ImageFile,
    /// The root disk; exactly when `kind` is `disk`.
    pub disk: Option<DiskFile>,
    /// The kernel's command line, as far as the image knows it; see [`Manifest::kernel_cmdline`].
    pub cmdline: String,
    /// The version of the kernel, as `uname -r` tells it.
    pub kernel_version: String,
    /// With less memory the guest does not start reliably, in MiB.
    pub min_memory_mib: u32,
    /// Digest of the recipe, [`Recipe::digest`].
    pub recipe: String,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub built_at: OffsetDateTime,
}

impl Manifest {
    /// Reads and checks the manifest in an image's directory, and that its files are there with their lengths. The
    /// digests are not computed; see [`Manifest::verify`].
    pub fn load(dir: &Path) -> Result<Self, ImageError> {
        let path = dir.join(MANIFEST_FILE);
        let text = std::fs::read(&path).map_err(at(&path))?;
        let manifest: Self =
            serde_json::from_slice(&text).map_err(|source| ImageError::Parse { path, source })?;
        let invalid = |reason: String| ImageError::Invalid { path: dir.to_owned(), reason };
        manifest.check().map_err(invalid)?;
        for (file, bytes, _) in manifest.files() {
            let path = dir.join(file);
            let meta = std::fs::symlink_metadata(&path).map_err(at(&path))?;
            if !meta.is_file() || meta.len() != bytes {
                return Err(invalid(format!("'{file}' is not a file of {bytes} bytes")));
            }
        }
        Ok(manifest)
    }

    /// The rules that a manifest obeys by itself.
    fn check(&self) -> Result<(), String> {
        if self.schema != SCHEMA {
            return Err(format!("schema {} is not {SCHEMA}", self.schema));
        }
        let plain = |text: &str| {
            !text.is_empty()
                && text.len() <= 64
                && !text.starts_with(['.', '-'])
                && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.'))
        };
        if !plain(&self.name) {
            return Err(format!("'{}' is not a name", self.name.escape_default()));
        }
        let mut seen = vec![MANIFEST_FILE];
        for (file, bytes, sha256) in self.files() {
            if !plain(file) || seen.contains(&file) {
                return Err(format!("'{}' is not a file name of its own", file.escape_default()));
            }
            seen.push(file);
            if bytes == 0 {
                return Err(format!("'{file}' is empty"));
            }
            if !is_digest(sha256) {
                return Err(format!("'{file}' has no digest"));
            }
        }
        if !is_digest(&self.recipe) {
            return Err("the recipe is not a digest".into());
        }
        if (self.kind == Kind::Disk) != self.disk.is_some() {
            return Err("a disk goes with kind 'disk', and with no other".into());
        }
        if self.disk.as_ref().is_some_and(|disk| disk.virtual_bytes % 512 != 0) {
            return Err("the disk is not made of whole sectors".into());
        }
        // It becomes one argument of QEMU and one line of the kernel's.
        if self.cmdline.len() > 1024 || !self.cmdline.bytes().all(|b| matches!(b, b' '..=b'~')) {
            return Err("the command line is not printable or too long".into());
        }
        if !(32..=1 << 20).contains(&self.min_memory_mib) {
            return Err(format!("{} MiB is no amount of memory", self.min_memory_mib));
        }
        Ok(())
    }

    /// Name, length and digest of every file.
    fn files(&self) -> impl Iterator<Item = (&str, u64, &str)> {
        let plain = [&self.kernel, &self.initrd].into_iter();
        plain
            .map(|f| (f.file.as_str(), f.bytes, f.sha256.as_str()))
            .chain(self.disk.iter().map(|d| (d.file.as_str(), d.virtual_bytes, d.sha256.as_str())))
    }

    /// Computes the digests of all files (seconds for a disk) and compares.
    pub async fn verify(&self, dir: &Path) -> Result<(), ImageError> {
        for (file, _, expected) in self.files() {
            let found = sha256_of(&dir.join(file)).await?;
            if found != expected {
                let reason = format!("'{file}' has digest {found}, not {expected}");
                return Err(ImageError::Invalid { path: dir.to_owned(), reason });
            }
        }
        Ok(())
    }

    /// The kernel's command line on this host. `emulated`: no hardware virtualisation, that is QEMU's TCG.
    ///
    /// A `microvm` with ACPI has neither PIT, HPET nor PM timer for the kernel, and without KVM no paravirtual clock
    /// either: Linux is left with one quick reading of the timestamp counter, which fails on a busy host (measured:
    /// 5 of 30 boots), and then waits for ever for its first clock tick. Under TCG the guest's counter is the host's,
    /// so we tell the kernel how fast it runs.
    #[must_use]
    pub fn kernel_cmdline(&self, emulated: bool) -> String {
        match (self.machine, emulated, host_tsc_khz()) {
            (Machine::Microvm, true, Some(khz)) => format!("{} tsc_early_khz={khz}", self.cmdline),
            _ => self.cmdline.clone(),
        }
    }

    /// Where the kernel is, for an image in `dir`.
    #[must_use]
    pub fn kernel_path(&self, dir: &Path) -> PathBuf {
        dir.join(&self.kernel.file)
    }
    /// Where the initial RAM disk is, for an image in `dir`.
    #[must_use]
    pub fn initrd_path(&self, dir: &Path) -> PathBuf {
        dir.join(&self.initrd.file)
    }
    /// Where the disk is, for an image in `dir`.
    #[must_use]
    pub fn disk_path(&self, dir: &Path) -> Option<PathBuf> {
        self.disk.as_ref().map(|disk| dir.join(&disk.file))
    }
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The digest of a file, by the system's own tool: it uses the processor's instructions for it in every build.
pub(super) async fn sha256_of(path: &Path) -> Result<String, ImageError> {
    let cmd = Cmd::new("sha256sum").arg("--").arg(path).deadline(Duration::from_secs(120));
    let out = String::from_utf8_lossy(&tool("computing a digest", cmd).await?).into_owned();
    // A name with odd characters is announced by a backslash in front of the digest.
    let digest: String = out.trim_start_matches('\\').chars().take(64).collect();
    if is_digest(&digest) {
        Ok(digest)
    } else {
        Err(ImageError::Contents("sha256sum printed no digest".into()))
    }
}

/// What a recipe knows of its image; the rest of the manifest follows from the files.
pub(super) struct Draft {
    pub description: &'static str,
    pub kind: Kind,
    pub machine: Machine,
    pub cmdline: &'static str,
    pub kernel_version: String,
    pub min_memory_mib: u32,
}

pub(super) const KERNEL: &str = "vmlinux";
pub(super) const INITRD: &str = "initrd";
pub(super) const DISK: &str = "disk.raw";

/// Writes the manifest of the files in `out`.
pub(super) async fn complete(recipe: Recipe, draft: Draft, out: &Path) -> Result<Manifest, ImageError> {
    let describe = async |name: &str| {
        let path = out.join(name);
        let bytes = std::fs::metadata(&path).map_err(at(&path))?.len();
        Ok::<_, ImageError>(ImageFile { file: name.to_owned(), bytes, sha256: sha256_of(&path).await? })
    };
    let disk = match draft.kind {
        Kind::Initramfs => None,
        Kind::Disk => {
            let file = describe(DISK).await?;
            Some(DiskFile { file: file.file, sha256: file.sha256, virtual_bytes: file.bytes })
        }
    };
    let now = OffsetDateTime::now_utc();
    let manifest = Manifest {
        schema: SCHEMA,
        name: recipe.name().to_owned(),
        description: draft.description.to_owned(),
        kind: draft.kind,
        arch: Arch::X86_64,
        machine: draft.machine,
        kernel: describe(KERNEL).await?,
        initrd: describe(INITRD).await?,
        disk,
        cmdline: draft.cmdline.to_owned(),
        kernel_version: draft.kernel_version,
        min_memory_mib: draft.min_memory_mib,
        recipe: recipe.digest(),
        built_at: now.replace_nanosecond(0).unwrap_or(now),
    };
    manifest.check().map_err(|reason| ImageError::Invalid { path: out.to_owned(), reason })?;
    let path = out.join(MANIFEST_FILE);
    let mut text = serde_json::to_vec_pretty(&manifest)
        .map_err(|source| ImageError::Parse { path: path.clone(), source })?;
    text.push(b'\n');
    std::fs::write(&path, text).map_err(at(&path))?;
    Ok(manifest)
}

#[cfg(test)]
mod tests;
