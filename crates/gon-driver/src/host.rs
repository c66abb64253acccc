//! What the machine is and has.

use std::io;
use std::path::Path;

/// Facts that do not change while the machine runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFacts {
    /// Processors this process may use.
    pub cpus: u32,
    /// All memory, MiB.
    pub memory_mib: u64,
    /// Its name, as the kernel has it.
    pub hostname: String,
    /// The kernel's release.
    pub kernel: String,
}

/// Reads the facts.
pub fn facts() -> io::Result<HostFacts> {
    let cpus = std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX));
    let meminfo = std::fs::read_to_string("/proc/meminfo")?;
    let total = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.trim().strip_suffix("kB"))
        .and_then(|kib| kib.trim().parse::<u64>().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/meminfo has no MemTotal"))?;
    let kernel = |name: &str| {
        std::fs::read_to_string(format!("/proc/sys/kernel/{name}")).map(|text| text.trim().to_owned())
    };
    Ok(HostFacts {
        cpus,
        memory_mib: total / 1024,
        hostname: kernel("hostname")?,
        kernel: kernel("osrelease")?,
    })
}

/// Size of the file system that holds `path`, GiB, rounded down.
pub fn disk_gib(path: &Path) -> io::Result<u64> {
    let fs = rustix::fs::statvfs(path)?;
    Ok(fs.f_blocks.saturating_mul(fs.f_frsize) >> 30)
}

/// Bytes that may still be written to the file system that holds `path`.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let fs = rustix::fs::statvfs(path)?;
    Ok(fs.f_bavail.saturating_mul(fs.f_frsize))
}
