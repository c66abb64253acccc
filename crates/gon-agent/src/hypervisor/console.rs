//! A guest's console on disk: the end of what it said, never more.
//!
//! QEMU keeps the latest output in a ring in its memory; whoever asks takes it out and appends it here. So a guest
//! that floods its console costs the ring and this file, whatever happens to us (row K10), and what it said is there
//! after it has stopped.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use gon_driver::qemu::Monitor;

/// What can be asked for: at least the last 64 KiB are kept, as EC2 does.
pub const KEPT: u64 = 64 << 10;
/// The file is cut back to [`KEPT`] when it is longer than this.
const LIMIT: u64 = 256 << 10;
/// How long asking QEMU may take before the file alone has to do.
const PATIENCE: Duration = Duration::from_secs(2);

/// The console of one instance.
#[derive(Debug)]
pub struct Console {
    path: PathBuf,
    /// One at a time takes from the ring and writes to the file: the order is the guest's.
    turn: tokio::sync::Mutex<()>,
    monitor: Mutex<Option<Monitor>>,
}

impl Console {
    /// The console kept in `dir`.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self { path: dir.join("console.log"), turn: tokio::sync::Mutex::new(()), monitor: Mutex::new(None) }
    }

    /// Where new output comes from from now on.
    pub fn connect(&self, monitor: Option<Monitor>) {
        *self.monitor.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = monitor;
    }

    /// Takes what is new into the file. Failing is no reason to stop a guest: the ring keeps the latest.
    pub async fn drain(&self) {
        let _turn = self.turn.lock().await;
        self.take().await;
    }

    async fn take(&self) {
        let monitor = self.monitor.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let Some(monitor) = monitor else { return };
        match tokio::time::timeout(PATIENCE, monitor.take_console()).await {
            Ok(Ok(bytes)) if !bytes.is_empty() => {
                if let Err(error) = self.append(&bytes) {
                    tracing::warn!(path = %self.path.display(), %error, "console output is lost");
                }
            }
            Ok(Err(error)) => tracing::debug!(%error, "no console output"),
            _ => {}
        }
    }

    /// The last [`KEPT`] bytes, what is new included.
    pub async fn output(&self) -> io::Result<Vec<u8>> {
        let _turn = self.turn.lock().await;
        self.take().await;
        self.tail()
    }

    fn tail(&self) -> io::Result<Vec<u8>> {
        let mut file = match std::fs::File::open(&self.path) {
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
        let mut file = open(&self.path)?;
        if file.metadata()?.len() + bytes.len() as u64 <= LIMIT {
            return file.write_all(bytes);
        }
        let mut kept = self.tail()?;
        kept.extend_from_slice(bytes);
        let from = kept.len().saturating_sub(KEPT as usize);
        let beside = self.path.with_extension("new");
        match std::fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        open(&beside)?.write_all(&kept[from..])?;
        std::fs::rename(&beside, &self.path)
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
                console.append(&said).unwrap();
                said.clear();
                let size = std::fs::metadata(dir.path().join("console.log")).unwrap().len();
                assert!(size <= LIMIT, "{size}");
            }
        }
        let output = console.output().await.unwrap();
        assert_eq!(output.len() as u64, KEPT);
        assert!(output.ends_with(b"line 39998\nline 39999\n"));
        // More at once than is kept.
        console.append(&vec![b'x'; 1 << 20]).unwrap();
        assert_eq!(console.output().await.unwrap(), vec![b'x'; KEPT as usize]);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
