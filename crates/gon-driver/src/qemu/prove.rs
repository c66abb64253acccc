//! Whether hardware virtualisation works here, found out by using it.
//!
//! A device node proves nothing: there are machines where `/dev/kvm` opens, makes virtual machines and then hangs at
//! a guest's first instructions, or where QEMU dies on a register that the processor model promised. So a real kernel
//! of ours is booted to a program of ours in user space, in the same confinement as every guest, within a deadline.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::Accelerator;
use super::command::{Boot, Guest, Machine};
use super::monitor::Monitor;
use super::probe::Capabilities;
use super::spawn::{GuestDir, Lock, StartError, find, start};
use crate::image::cpio::Archive;
use crate::qmp::QmpError;
use crate::run::Pid;

/// What the program says in user space.
const WORD: &[u8] = b"gon: userspace\n";
/// With KVM a kernel is in user space after a third of a second; this is for a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(5);
/// The same on a processor that is itself emulated, where KVM works and everything takes twenty times as long: a server
/// of the lab.
const EMULATED: Duration = Duration::from_secs(150);
/// `nobody`: the proof owns nothing.
const UID: u32 = 65534;
/// Processor models, best first. The second is for hosts whose KVM lists a register that it then refuses.
const MODELS: [&str; 2] = ["host", "host,-arch-capabilities"];

/// Why an accelerator is not proved.
#[derive(Debug, thiserror::Error)]
pub enum ProveError {
    /// There is no device at all.
    #[error("there is no /dev/kvm")]
    NoDevice,
    /// QEMU could not be started.
    #[error("QEMU could not be started")]
    Start(#[from] StartError),
    /// QEMU ended by itself.
    #[error("QEMU gave up: {said}")]
    Died {
        /// The end of its log.
        said: String,
    },
    /// The guest did not reach user space.
    #[error("a guest did not reach user space within {after:?}")]
    Hung {
        /// The deadline.
        after: Duration,
    },
    /// QEMU answers, but not as it should.
    #[error("steering the test guest")]
    Monitor(#[from] QmpError),
    /// Preparing the test guest failed.
    #[error("preparing the test guest")]
    Io(#[from] std::io::Error),
}

/// The kernel that is booted for the proof: any of our images'.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// The file.
    pub kernel: PathBuf,
    /// The command line its image gives it.
    pub cmdline: String,
}

/// KVM with the first processor model that works, or why not. `work` is a directory for the proof; it is removed.
pub async fn prove_kvm(
    capabilities: &Capabilities,
    kernel: &Kernel,
    work: &Path,
) -> Result<Accelerator, ProveError> {
    if !Path::new("/dev/kvm").exists() {
        return Err(ProveError::NoDevice);
    }
    let mut last = ProveError::NoDevice;
    for model in MODELS {
        let accelerator = Accelerator::Kvm { cpu: model.to_owned() };
        let with = Capabilities { accelerator: accelerator.clone(), ..capabilities.clone() };
        match prove(&with, kernel, work, deadline()).await {
            Ok(_) => return Ok(accelerator),
            // Another model may help a QEMU that refused this one; nothing helps one that hangs.
            Err(error @ ProveError::Died { .. }) => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

/// How long a guest under KVM may take on this processor.
fn deadline() -> Duration {
    let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    if is_emulated(&processor) { EMULATED } else { DEADLINE }
}

/// Whether `/proc/cpuinfo` is of a processor that QEMU emulates.
fn is_emulated(cpuinfo: &str) -> bool {
    let model = cpuinfo.lines().find(|line| line.starts_with("model name"));
    model.is_some_and(|line| line.contains("QEMU TCG CPU"))
}

/// Boots the kernel under the given accelerator; how long it took to user space.
pub async fn prove(
    capabilities: &Capabilities,
    kernel: &Kernel,
    work: &Path,
    deadline: Duration,
) -> Result<Duration, ProveError> {
    end_proof(work).await?;
    let dir = GuestDir::new(work);
    dir.create()?;
    let initrd = work.join("initrd");
    std::fs::write(&initrd, initramfs())?;
    std::fs::set_permissions(&initrd, std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    let guest = Guest {
        name: "gon-proof".to_owned(),
        uuid: identity(work),
        vcpus: 1,
        memory_mib: 128,
        machine: if capabilities.microvm { Machine::Microvm } else { Machine::Q35 },
        boot: Boot { kernel: kernel.kernel.clone(), initrd, cmdline: kernel.cmdline.clone() },
        nics: vec![],
        disks: vec![],
        run_as_uid: UID,
    };
    let result = boot(&guest, capabilities, &dir, deadline).await;
    let _ = std::fs::remove_dir_all(work);
    result
}

/// Ends the test guest that somebody left over who was ended while it ran, and removes its directory.
pub async fn end_proof(work: &Path) -> std::io::Result<()> {
    if !work.exists() {
        return Ok(());
    }
    let uuid = identity(work);
    let left = tokio::task::spawn_blocking(move || find(UID, uuid)).await.ok().flatten();
    if let Some(pid) = left {
        pid.kill().await?;
    }
    std::fs::remove_dir_all(work)
}

/// The test guest's machine identity: found again by its directory, and nobody else's.
fn identity(work: &Path) -> Uuid {
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(work.as_os_str().as_encoded_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

async fn boot(
    guest: &Guest,
    capabilities: &Capabilities,
    dir: &GuestDir,
    deadline: Duration,
) -> Result<Duration, ProveError> {
    let lock = Lock::take(dir)?.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::ResourceBusy))?;
    let started = Instant::now();
    let (guest_, capabilities, dir_) = (guest.clone(), capabilities.clone(), dir.clone());
    let pid = tokio::task::spawn_blocking(move || start(&guest_, &capabilities, &dir_, lock))
        .await
        .map_err(|error| std::io::Error::other(error.to_string()))??;
    let _killed = KillOnDrop(pid);
    let watch = async {
        let (monitor, _events) = Monitor::connect(dir, guest.uuid, deadline).await?;
        monitor.cont().await?;
        let mut seen = Vec::new();
        loop {
            seen.extend(monitor.take_console().await?);
            if seen.windows(WORD.len() - 1).any(|w| w == &WORD[..WORD.len() - 1]) {
                return Ok(started.elapsed());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let result: Result<Duration, QmpError> = match tokio::time::timeout(deadline, watch).await {
        Ok(result) => result,
        Err(_) => return Err(ProveError::Hung { after: deadline }),
    };
    match result {
        Err(QmpError::Closed | QmpError::Connect { .. }) => Err(ProveError::Died { said: dir.log_tail() }),
        Err(QmpError::Deadline { .. }) => Err(ProveError::Hung { after: deadline }),
        other => Ok(other?),
    }
}

/// Ends the test guest whatever happens to us.
struct KillOnDrop(Pid);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Err(error) = self.0.signal(rustix::process::Signal::KILL) {
            tracing::warn!(%error, pid = self.0.pid, "a test guest could not be ended");
        }
    }
}

/// An initramfs with one program.
fn initramfs() -> Vec<u8> {
    let mut archive = Archive::default();
    archive.directory("dev", 0o755);
    archive.character_device("dev/console", 0o600, 5, 1);
    archive.file("init", 0o755, &program());
    archive.finish()
}

/// The smallest program: writes [`WORD`] and waits for ever. An ELF file by hand, so that nothing has to be built.
fn program() -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    #[rustfmt::skip]
    let mut code = vec![
        0xb8, 1, 0, 0, 0,                         // mov eax, 1 (write)
        0xbf, 1, 0, 0, 0,                         // mov edi, 1
        0xbe, 0, 0, 0, 0,                         // mov esi, WORD (filled in below)
        0xba, WORD.len() as u8, 0, 0, 0,          // mov edx, length
        0x0f, 0x05,                               // syscall
        0xb8, 34, 0, 0, 0,                        // mov eax, 34 (pause)
        0x0f, 0x05,                               // syscall
        0xeb, 0xf7,                               // jmp to the mov before
    ];
    let word_at = (BASE + HEADERS) as u32 + code.len() as u32;
    code[11..15].copy_from_slice(&word_at.to_le_bytes());
    code.extend_from_slice(WORD);

    let size = HEADERS + code.len() as u64;
    let mut elf = Vec::new();
    elf.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    elf.extend_from_slice(&2u16.to_le_bytes()); // executable
    elf.extend_from_slice(&62u16.to_le_bytes()); // x86-64
    elf.extend_from_slice(&1u32.to_le_bytes());
    elf.extend_from_slice(&(BASE + HEADERS).to_le_bytes()); // entry
    elf.extend_from_slice(&64u64.to_le_bytes()); // program headers
    elf.extend_from_slice(&0u64.to_le_bytes()); // no sections
    elf.extend_from_slice(&0u32.to_le_bytes());
    for half in [64u16, 56, 1, 64, 0, 0] {
        elf.extend_from_slice(&half.to_le_bytes());
    }
    elf.extend_from_slice(&1u32.to_le_bytes()); // load
    elf.extend_from_slice(&5u32.to_le_bytes()); // read, execute
    for word in [0, BASE, BASE, size, size, 0x1000] {
        elf.extend_from_slice(&word.to_le_bytes());
    }
    elf.extend(code);
    elf
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    /// The program is executed here, where it is the same Linux: it must say its word and then wait.
    #[tokio::test]
    async fn the_program_runs() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("init");
        std::fs::write(&path, super::program()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let log = dir.path().join("log");
        let pid = crate::run::spawn_detached(crate::run::Cmd::new(&path), &log).unwrap();
        for _ in 0..100 {
            if std::fs::read(&log).unwrap() == super::WORD {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert!(pid.is_alive(), "it waits");
        assert!(pid.kill().await.unwrap());
        assert_eq!(std::fs::read(&log).unwrap(), super::WORD);
    }

    #[test]
    fn an_emulated_processor_is_given_more_time() {
        assert!(super::is_emulated(
            "processor\t: 0\nmodel name\t: QEMU TCG CPU version 2.5+\nflags\t: svm\n"
        ));
        assert!(!super::is_emulated("model name\t: AMD EPYC 7763\n") && !super::is_emulated(""));
    }
}
