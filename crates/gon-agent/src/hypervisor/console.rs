//! A guest's console on disk: the end of what it said, never more.
//!
//! QEMU keeps the latest output in a ring in its memory; whoever asks takes it out and appends it here. So a guest
//! that floods its console costs the ring and this file, whatever happens to us (row K10), and what it said is there
//! after it has stopped. Taking out is for good: an agent that is killed in the instant between taking and appending
//! loses what it held, at most what was said since the look before.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gon_driver::qemu::Monitor;

/// What can be asked for: at least the last 64 KiB are kept, as EC2 does.
pub const KEPT: u64 = 64 << 10;
/// The file is cut back to [`KEPT`] when it is longer than this.
const LIMIT: u64 = 256 << 10;
/// How long asking QEMU may take before the file alone has to do.
const PATIENCE: Duration = Duration::from_secs(2);

/// The console of one instance. Clones are the same.
#[derive(Debug, Clone)]
pub struct Console {
    file: ConsoleFile,
    /// One at a time takes from the ring and writes to the file: the order is the guest's.
    turn: Arc<tokio::sync::Mutex<()>>,
    monitor: Arc<Mutex<Option<Monitor>>>,
}

impl Console {
    /// The console kept in `dir`.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self { file: ConsoleFile(dir.join("console.log")), turn: Arc::default(), monitor: Arc::default() }
    }

    /// Where new output comes from from now on.
    pub fn connect(&self, monitor: Option<Monitor>) {
        *self.monitor.lock().unwrap_or_else(PoisonError::into_inner) = monitor;
    }

    /// Takes what is new into the file; waits a moment for that. Failing is no reason to stop a guest: the ring keeps
    /// the latest.
    pub async fn drain(&self) {
        // What was asked for is gone from the ring once QEMU answers, so whoever asked sees it through, also when
        // nobody waits any more.
        if let Ok(turn) = Arc::clone(&self.turn).try_lock_owned() {
            let monitor = self.monitor.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let Some(monitor) = monitor else { return };
            let file = self.file.clone();
            tokio::spawn(async move {
                match monitor.take_console().await {
                    Ok(bytes) if bytes.is_empty() => {}
                    Ok(bytes) => {
                        if let Err(error) = file.append(&bytes) {
                            tracing::warn!(path = %file.0.display(), %error, "console output is lost");
                        }
                    }
                    Err(error) => tracing::debug!(%error, "no console output"),
                }
                drop(turn);
            });
        }
        let _ = tokio::time::timeout(PATIENCE, self.turn.lock()).await;
    }

    /// The last [`KEPT`] bytes, what is new included.
    pub async fn output(&self) -> io::Result<Vec<u8>> {
        self.drain().await;
        self.file.tail()
    }
}

/// The file.
#[derive(Debug, Clone)]
struct ConsoleFile(PathBuf);

impl ConsoleFile {
    fn tail(&self) -> io::Result<Vec<u8>> {
        let mut file = match std::fs::File::open(&self.0) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
            Err(error) => return Err(error),
        };
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(KEPT)))?;
        let mut bytes = Vec::new();
        file.take(KEPT).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        let open = |path: &Path| std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path);
        let mut file = open(&self.0)?;
        if file.metadata()?.len() + bytes.len() as u64 <= LIMIT {
            return file.write_all(bytes);
        }
        let mut kept = self.tail()?;
        kept.extend_from_slice(bytes);
        let from = kept.len().saturating_sub(KEPT as usize);
        let beside = self.0.with_extension("new");
        match std::fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        open(&beside)?.write_all(&kept[from..])?;
        std::fs::rename(&beside, &self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_is_kept_and_the_file_stays_small() {
        let dir = tempfile::tempdir().unwrap();
        let console = Console::new(dir.path());
        assert_eq!(console.output().await.unwrap(), b"");
        let mut said = Vec::new();
        for i in 0..40_000u32 {
            let line = format!("line {i}\n");
            said.extend_from_slice(line.as_bytes());
            if i % 997 == 0 || i == 39_999 {
                console.file.append(&said).unwrap();
                said.clear();
                let size = std::fs::metadata(dir.path().join("console.log")).unwrap().len();
                assert!(size <= LIMIT, "{size}");
            }
        }
        let output = console.output().await.unwrap();
        assert_eq!(output.len() as u64, KEPT);
        assert!(output.ends_with(b"line 39998\nline 39999\n"));
        // More at once than is kept.
        console.file.append(&vec![b'x'; 1 << 20]).unwrap();
        assert_eq!(console.output().await.unwrap(), vec![b'x'; KEPT as usize]);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
