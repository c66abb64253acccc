//! One `gond` per data directory: `gond.lock` is held locked by the one that runs, and says which process that is.
//!
//! The lock is the kernel's, so it is free again however its holder ended. What the file says only helps to find the
//! holder; whether there is one, the lock alone decides.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use anyhow::{Context, bail};
use gon_driver::run::Pid;
use serde::{Deserialize, Serialize};

const NAME: &str = "gond.lock";

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Holder {
    process: Pid,
    listen: String,
}

/// The lock, held until it is dropped.
#[derive(Debug)]
pub struct DataDirLock(#[expect(dead_code, reason = "held for its lock")] File);

fn open(data_dir: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(data_dir.join(NAME))
}

impl DataDirLock {
    /// Makes the data directory if it is missing (mode 0700) and takes its lock.
    pub fn take(data_dir: &Path, listen: &str) -> anyhow::Result<Self> {
        make_dir(data_dir)?;
        let mut file = open(data_dir).with_context(|| format!("{}/{NAME}", data_dir.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let who =
                    holder(data_dir).map_or_else(String::new, |h| format!(" (process {})", h.process.pid));
                bail!("another gond{who} already works in {}", data_dir.display());
            }
            Err(TryLockError::Error(error)) => return Err(error).context("locking the data directory"),
        }
        let process = Pid::of(std::process::id().cast_signed()).context("this process is not in /proc")?;
        let text = serde_json::to_vec(&Holder { process, listen: listen.to_owned() })?;
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(&text)?;
        Ok(Self(file))
    }
}

impl DataDirLock {
    /// Shares the data directory with other roles in processes of their own; standalone and `admin down` wait for
    /// nobody and are refused meanwhile.
    pub fn share(data_dir: &Path) -> anyhow::Result<Self> {
        make_dir(data_dir)?;
        let file = open(data_dir).with_context(|| format!("{}/{NAME}", data_dir.display()))?;
        match file.try_lock_shared() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => {
                bail!("a gond standalone already works in {}", data_dir.display())
            }
            Err(TryLockError::Error(error)) => Err(error).context("locking the data directory"),
        }
    }
}

fn make_dir(data_dir: &Path) -> anyhow::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir)
        .with_context(|| format!("the data directory {}", data_dir.display()))
}

fn holder(data_dir: &Path) -> Option<Holder> {
    let mut text = String::new();
    File::open(data_dir.join(NAME)).ok()?.read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

/// The `gond` that works in the data directory, if one does.
pub fn running(data_dir: &Path) -> anyhow::Result<Option<Pid>> {
    let file = match File::open(data_dir.join(NAME)) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context("the data directory's lock"),
    };
    match file.try_lock_shared() {
        // Nobody holds it. Ours goes with the file.
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => match holder(data_dir) {
            Some(holder) if holder.process.is_alive() => Ok(Some(holder.process)),
            _ => bail!("somebody holds the lock of {} and does not say who", data_dir.display()),
        },
        Err(TryLockError::Error(error)) => Err(error).context("the data directory's lock"),
    }
}

/// Whether the process executes the very file that we do: not an older build of the same name.
#[must_use]
pub fn same_binary(process: &Pid) -> bool {
    let identity = |path: &str| std::fs::metadata(path).map(|m| (m.dev(), m.ino())).ok();
    let theirs = identity(&format!("/proc/{}/exe", process.pid));
    theirs.is_some() && theirs == identity("/proc/self/exe") && process.is_alive()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_and_found_while_it_runs() {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().join("data");
        assert!(running(&data_dir).unwrap().is_none());
        let lock = DataDirLock::take(&data_dir, "x").unwrap();
        let found = running(&data_dir).unwrap().unwrap();
        assert_eq!(found.pid, std::process::id().cast_signed());
        assert!(same_binary(&found));
        assert!(DataDirLock::take(&data_dir, "x").unwrap_err().to_string().contains("another gond"));
        assert!(DataDirLock::share(&data_dir).unwrap_err().to_string().contains("standalone"));
        drop(lock);
        assert!(running(&data_dir).unwrap().is_none());
        let (one, other) = (DataDirLock::share(&data_dir).unwrap(), DataDirLock::share(&data_dir).unwrap());
        assert!(DataDirLock::take(&data_dir, "x").is_err());
        drop((one, other));
        DataDirLock::take(&data_dir, "x").unwrap();
    }
}
