//! Ending every guest of a node, for an operator who takes it down.
//!
//! Assumes that the hypervisor agent does not run. Promises that afterwards no guest of this state directory runs, that
//! each had a few seconds to power itself off, and that its journal says that it is off by our doing: the next start
//! of the agent starts again what should run.

use std::io;
use std::path::Path;
use std::time::Duration;

use gon_driver::qemu::{self, GuestDir, Lock, Monitor, RunState};
use gon_types::id::InstanceId;
use tokio::task::JoinSet;

use super::console::Console;
use super::journal::{Clock, Journal, Phase};

/// How long a guest may take to power itself off.
const GRACE: Duration = Duration::from_secs(8);
const CONNECT: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(50);

/// What became of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Which instance.
    pub instance: InstanceId,
    /// The process that ran it.
    pub pid: i32,
    /// Whether the guest powered itself off in time.
    pub by_itself: bool,
}

/// Ends every guest below `state_dir`; those that ran, by id. An error names what still runs.
pub async fn tear_down(state_dir: &Path) -> io::Result<Vec<Ended>> {
    qemu::end_proof(&state_dir.join(super::accelerator::PROOF)).await?;
    let dir = state_dir.join("instances");
    let entries = match std::fs::read_dir(&dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        other => other?,
    };
    let mut guests = JoinSet::new();
    for entry in entries {
        let entry = entry?;
        let Some(uuid) = entry.file_name().to_str().and_then(|name| uuid::Uuid::try_parse(name).ok()) else {
            continue;
        };
        guests.spawn(end(InstanceId::from_uuid(uuid), GuestDir::new(&entry.path())));
    }
    let mut ended = Vec::new();
    let mut failed = None;
    while let Some(result) = guests.join_next().await {
        match result.map_err(io::Error::other).and_then(|r| r) {
            Ok(guest) => ended.extend(guest),
            Err(error) => failed = Some(error),
        }
    }
    ended.sort_by_key(|e| e.instance);
    failed.map_or(Ok(ended), Err)
}

async fn end(instance: InstanceId, dir: GuestDir) -> io::Result<Option<Ended>> {
    let Some(mut journal) = Journal::read(dir.path(), instance).map_err(io::Error::other)? else {
        return Ok(None);
    };
    let known = journal.process.filter(gon_driver::run::Pid::is_alive);
    let ended = match known.or_else(|| qemu::find(journal.run_as_uid, journal.machine)) {
        None => None,
        Some(process) => {
            let mut by_itself = false;
            if let Ok((monitor, _events)) = Monitor::connect(&dir, journal.machine, CONNECT).await {
                by_itself = power_off(&monitor).await;
                let console = Console::new(dir.path());
                console.connect(Some(monitor.clone()));
                console.drain().await;
                let _ = monitor.quit(CONNECT).await;
            }
            if !process.wait_gone(CONNECT).await && !process.kill().await? {
                let what = format!("the guest of {instance} (process {}) does not end", process.pid);
                return Err(io::Error::other(what));
            }
            Some(Ended { instance, pid: process.pid, by_itself })
        }
    };
    // Nobody holds its lock: nothing of it runs, and nothing is just being started. The last thread of a process may
    // let go a little later than its first.
    let deadline = tokio::time::Instant::now() + CONNECT;
    let _lock = loop {
        match Lock::take(&dir)? {
            Some(lock) => break lock,
            None if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(5)).await
            }
            None => {
                return Err(io::Error::other(format!("something of {instance} runs and cannot be found")));
            }
        }
    };
    // What was being removed still is, and who had powered itself off did; everything else is off by our doing.
    if !matches!(journal.phase, Phase::Removing | Phase::OffByGuest | Phase::Off) {
        journal.enter(Phase::Off, Clock::read());
        journal.process = None;
        journal.write(dir.path()).map_err(io::Error::other)?;
    }
    Ok(ended)
}

/// Presses the power button; whether the guest heard it in time.
async fn power_off(monitor: &Monitor) -> bool {
    let _ = monitor.press_power_button().await;
    let off = async {
        while monitor.run_state().await.is_ok_and(|state| state == RunState::Running) {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(GRACE, off).await.is_ok()
}
