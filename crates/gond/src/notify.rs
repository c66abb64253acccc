//! Telling the service manager how we are (sd_notify(3)), without its library.
//!
//! The watchdog is fed only while every loop of the service goes round: a process whose runtime turns but whose
//! controller hangs is as dead as one that hangs altogether, and is started again.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::health::{Health, Need, Probe};

/// Sends `state` (`READY=1`, `STOPPING=1`) if a service manager listens. Nobody listening is no error.
pub fn notify(state: &str) {
    let Some(path) = crate::config::notify_socket() else { return };
    tell(path.as_bytes(), state);
}

fn tell(path: &[u8], state: &str) {
    let address = match path.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(std::path::Path::new(std::ffi::OsStr::from_bytes(path))),
    };
    let sent = address.and_then(|to| {
        let socket = UnixDatagram::unbound()?;
        socket.send_to_addr(state.as_bytes(), &to)
    });
    if let Err(error) = sent {
        tracing::debug!(%error, "the service manager was not told");
    }
}

/// How long a loop may take for a round at most, where nobody says how patient the service manager is.
const PATIENCE: Duration = Duration::from_secs(45);
/// And at least: the longest pause between two rounds (a sweep, 10 s), and a little work.
const LEAST_PATIENCE: Duration = Duration::from_secs(12);
/// How often we look.
const LOOK: Duration = Duration::from_secs(2);

/// How many rounds a loop has made.
pub type Rounds = Arc<dyn Fn() -> u64 + Send + Sync>;

struct Watched {
    rounds: Rounds,
    last: u64,
    moved: Instant,
    probe: Probe,
}

/// Looks whether the loops of a service go round. Clones are the same.
#[derive(Clone)]
pub struct Watch {
    health: Health,
    loops: Arc<Mutex<Vec<Watched>>>,
    patience: Duration,
}

impl Watch {
    /// Watches no loop yet.
    #[must_use]
    pub fn new(health: &Health) -> Self {
        // Half as long again as the service manager waits for a word of us.
        let patience =
            crate::config::watchdog().map_or(PATIENCE, |limit| (limit * 3 / 2).max(LEAST_PATIENCE));
        Self { health: health.clone(), loops: Arc::default(), patience }
    }

    /// From now on this one, too; without it the service cannot do its job.
    pub fn add(&self, name: &'static str, rounds: Rounds) {
        let probe = self.health.depends(name, Need::Must);
        let watched = Watched { last: rounds(), rounds, moved: Instant::now(), probe };
        self.loops.lock().unwrap_or_else(PoisonError::into_inner).push(watched);
    }

    /// Looks once. Whether all of them go round.
    fn look(&self) -> bool {
        let mut all = true;
        for watched in &mut *self.loops.lock().unwrap_or_else(PoisonError::into_inner) {
            let rounds = (watched.rounds)();
            let now = Instant::now();
            if rounds != watched.last {
                (watched.last, watched.moved) = (rounds, now);
                watched.probe.up();
            } else if now - watched.moved > self.patience {
                let silent = (now - watched.moved).as_secs();
                watched.probe.down(format!("its loop has not gone round for {silent} s"));
                all = false;
            }
        }
        all
    }

    /// Looks until `stop`; feeds the service manager's watchdog and tells it how the service is.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let watchdog = crate::config::watchdog();
        let every = watchdog.map_or(LOOK, |limit| (limit / 3).min(LOOK));
        let mut told = String::new();
        loop {
            if self.look() && watchdog.is_some() {
                notify("WATCHDOG=1");
            }
            let summary: String =
                self.health.summary().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            if summary != told {
                notify(&format!("STATUS={summary}"));
                told = summary;
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(every) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::health::Verdict;

    #[test]
    fn a_loop_that_stands_still_is_not_vouched_for() {
        let health = Health::new("x", "n");
        let count = Arc::new(AtomicU64::new(0));
        let rounds: Rounds = {
            let count = Arc::clone(&count);
            Arc::new(move || count.load(Ordering::Relaxed))
        };
        let watch = Watch { patience: Duration::from_millis(30), ..Watch::new(&health) };
        watch.add("relay", rounds);
        assert!(watch.look(), "it has just begun");
        assert_eq!(health.verdict(), Verdict::Unready, "but has not gone round yet");
        count.fetch_add(1, Ordering::Relaxed);
        assert!(watch.look());
        assert_eq!(health.verdict(), Verdict::Ready);
        std::thread::sleep(Duration::from_millis(60));
        assert!(!watch.look(), "planted: a loop that hangs");
        assert_eq!(health.verdict(), Verdict::Unready);
        count.fetch_add(1, Ordering::Relaxed);
        assert!(watch.look());
    }

    #[test]
    fn both_kinds_of_sockets_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let named = UnixDatagram::bind(&path).unwrap();
        tell(path.as_os_str().as_bytes(), "READY=1");
        let name = format!("gon-test-{}", std::process::id());
        let abstract_one = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        tell(format!("@{name}").as_bytes(), "STOPPING=1");
        let mut buffer = [0; 64];
        let length = named.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"READY=1");
        let length = abstract_one.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"STOPPING=1");
    }
}
