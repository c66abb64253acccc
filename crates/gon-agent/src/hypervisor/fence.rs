//! The fence on this side: for how long instances that are recovered elsewhere may run here (`gon_proto::grant`).
//!
//! Assumes a clock that counts from the boot of this node, whatever happens to the wall clock, and goes on while the machine
//! sleeps. Promises that a grant counts from the moment it was *asked* for, that one of another boot or of another epoch of
//! the node than an instance was placed under is none, and that what is in force is what the file says or newer: so the
//! [keeper](keep), a process beside this one, ends what this one no longer does, because it hangs, is stopped or is not
//! there, and ends nothing that this one would not.
//!
//! The file needs no sync: it is for other processes of the same boot, and after a power loss it is of another one.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gon_proto::{GrantAnswer, GrantRequest, grant, paths};
use gon_types::id::InstanceId;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::accelerator::read_json;
use super::journal::{Clock, Journal};
use super::{Shared, chain, jitter, node};

const FILE: &str = "grant.json";
/// How often a grant is asked for, while one is needed; and how long after a failure.
const INTERVAL: Duration = Duration::from_secs(4);
const RETRY: Duration = Duration::from_secs(1);
/// How often the keeper looks.
pub const KEEPER_LOOKS: Duration = Duration::from_secs(2);

/// A grant that was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// In which boot of this node.
    pub boot: u64,
    /// For which epoch of it.
    pub epoch: u64,
    /// Its number.
    pub number: u64,
    /// When it was asked for, milliseconds since the boot.
    pub asked_ms: u64,
}

/// What an instance that runs by grant may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Permit {
    /// Anything.
    Run,
    /// Go on if it runs; nothing is started.
    GoOn,
    /// Nothing: it may be running elsewhere soon.
    None,
}

impl Grant {
    /// How old it is; `None` if it is not of this boot, or of one that cannot be told from others.
    fn age(&self, now: Clock) -> Option<Duration> {
        let since = now.now_ms.checked_sub(self.asked_ms)?;
        (self.boot == now.boot && now.boot != 0).then(|| Duration::from_millis(since))
    }
}

/// What `held` permits to an instance that was placed here under `epoch` of the node.
#[must_use]
pub fn permit(held: Option<&Grant>, epoch: u64, now: Clock) -> Permit {
    match held.filter(|grant| grant.epoch == epoch).and_then(|grant| grant.age(now)) {
        Some(age) if age < grant::NO_START_AFTER => Permit::Run,
        Some(age) if age < grant::END_AFTER => Permit::GoOn,
        _ => Permit::None,
    }
}

/// Whether the keeper ends what runs by grant: long after the agent should have.
#[must_use]
pub fn is_kept(held: Option<&Grant>, now: Clock) -> bool {
    held.and_then(|grant| grant.age(now)).is_some_and(|age| age < grant::KEEP_UNTIL)
}

/// What the agent holds: its grant, and what needs it.
#[derive(Debug)]
pub(super) struct Fence {
    held: watch::Sender<Option<Grant>>,
    needed_by: watch::Sender<BTreeSet<InstanceId>>,
}

impl Fence {
    /// With the grant that an earlier process of this boot left in `state_dir`.
    pub(super) fn open(state_dir: &Path) -> Self {
        Self { held: watch::Sender::new(last(state_dir)), needed_by: watch::Sender::default() }
    }

    /// What an instance of this epoch may do, now.
    pub(super) fn permit(&self, epoch: u64) -> Permit {
        // The clock is read last: age is never told too small.
        let held = *self.held.borrow();
        permit(held.as_ref(), epoch, Clock::read())
    }

    /// Tells when there is a new one.
    pub(super) fn subscribe(&self) -> watch::Receiver<Option<Grant>> {
        self.held.subscribe()
    }

    /// An instance runs by grant, or no longer.
    pub(super) fn need(&self, instance: InstanceId, needs: bool) {
        self.needed_by.send_if_modified(|all| match needs {
            true => all.insert(instance),
            false => all.remove(&instance),
        });
    }
}

/// The grant that was in force last, if it is of this boot.
fn last(state_dir: &Path) -> Option<Grant> {
    let held: Option<Grant> = match read_json(&state_dir.join(FILE)) {
        Ok(held) => held,
        Err(error) => {
            // Perhaps the power was lost while it was written: then it is of another boot.
            tracing::debug!(%error, "the last grant cannot be read");
            None
        }
    };
    held.filter(|grant| grant.age(Clock::read()).is_some())
}

/// Writes it for other processes: whole or not at all, not to stay.
fn leave(state_dir: &Path, grant: &Grant) -> io::Result<()> {
    let beside = state_dir.join("grant.new");
    std::fs::write(&beside, serde_json::to_vec(grant)?)?;
    std::fs::rename(&beside, state_dir.join(FILE))
}

/// Asks for grants for as long as one is needed, for ever.
pub(super) async fn renew(shared: Arc<Shared>) {
    let link = shared.config.link.clone();
    let mut needed = shared.fence.needed_by.subscribe();
    let mut known = shared.fence.held.borrow().map(|grant| grant.number);
    let mut failing = false;
    loop {
        if needed.wait_for(|by| !by.is_empty()).await.is_err() {
            return;
        }
        // What is not known, or no longer true, the first answer says; then it can be asked for.
        let mut result = ask(&shared, &link, &mut known).await;
        if let Ok(false) = result {
            result = ask(&shared, &link, &mut known).await;
        }
        let pause = match result {
            Ok(true) => {
                failing = false;
                INTERVAL
            }
            Ok(false) => RETRY,
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(error, "no grant to run instances that are recovered elsewhere");
                }
                jitter(RETRY)
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Asks once; whether it was given.
async fn ask(
    shared: &Arc<Shared>,
    link: &crate::link::Link,
    known: &mut Option<u64>,
) -> Result<bool, String> {
    let dir = shared.config.state_dir.clone();
    let epoch = node::node_epoch(&dir).map_err(|error| error.to_string())?;
    let epoch = epoch.ok_or("this node has no epoch yet")?;
    let request = GrantRequest { format: gon_proto::FORMAT, epoch, known: *known };
    // From here on it grows old.
    let asked = Clock::read();
    let answer: GrantAnswer = link.exchange(paths::GRANT, &request).await.map_err(|error| chain(&error))?;
    *known = Some(answer.number);
    if !answer.granted || answer.epoch != epoch {
        return Ok(false);
    }
    let grant = Grant { boot: asked.boot, epoch, number: answer.number, asked_ms: asked.now_ms };
    // First where the keeper sees it, then in force.
    tokio::task::spawn_blocking(move || leave(&dir, &grant))
        .await
        .map_err(|error| error.to_string())?
        .map_err(|error| format!("the grant cannot be written: {error}"))?;
    shared.fence.held.send_replace(Some(grant));
    Ok(true)
}

/// The keeper's look: ends every guest in `state_dir` that runs by grant, if the last grant is older than the agent lets
/// one become. Returns those it ended. Blocks for a few milliseconds, and for the processes that it ends.
pub async fn keep(state_dir: &Path) -> io::Result<Vec<InstanceId>> {
    let mut ended = Vec::new();
    if is_kept(last(state_dir).as_ref(), Clock::read()) {
        return Ok(ended);
    }
    let instances = match std::fs::read_dir(state_dir.join("instances")) {
        Ok(instances) => instances,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(ended),
        Err(error) => return Err(error),
    };
    for entry in instances.flatten() {
        let name = entry.file_name();
        let Some(id) = name.to_str().and_then(|name| uuid::Uuid::try_parse(name).ok()) else { continue };
        let id = InstanceId::from_uuid(id);
        let Ok(Some(journal)) = Journal::read(&entry.path(), id) else { continue };
        if journal.fence.is_none() {
            continue;
        }
        let (uid, machine) = (journal.run_as_uid, journal.machine);
        let pid = journal.process.filter(gon_driver::run::Pid::is_alive);
        let Some(pid) = pid.or_else(|| gon_driver::qemu::find(uid, machine)) else { continue };
        // It may have been given meanwhile.
        if is_kept(last(state_dir).as_ref(), Clock::read()) {
            break;
        }
        match pid.kill().await {
            Ok(_) => {
                tracing::warn!(instance = %id, pid = pid.pid, "no grant: ended, its agent did not");
                ended.push(id);
            }
            Err(error) => tracing::error!(instance = %id, pid = pid.pid, %error, "it cannot be ended"),
        }
    }
    Ok(ended)
}

/// Looks for ever.
pub async fn keep_always(state_dir: &Path) {
    let mut failing = false;
    loop {
        match keep(state_dir).await {
            Ok(_) => failing = false,
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::error!(%error, "the keeper cannot look");
                }
            }
        }
        tokio::time::sleep(KEEPER_LOOKS).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: u64 = 5;

    fn at(ms: u64) -> Clock {
        Clock { boot: BOOT, now_ms: ms }
    }
    fn given(epoch: u64, asked_ms: u64) -> Grant {
        Grant { boot: BOOT, epoch, number: 1, asked_ms }
    }

    #[test]
    fn a_grant_counts_from_when_it_was_asked_for() {
        let grant = given(3, 1_000);
        let table = [
            (1_000, Permit::Run, true),
            (10_999, Permit::Run, true),
            (11_000, Permit::GoOn, true),
            (45_999, Permit::GoOn, true),
            (46_000, Permit::None, true),
            (60_999, Permit::None, true),
            (61_000, Permit::None, false),
            (u64::MAX, Permit::None, false),
            // It was not yet asked for then: not a clock to believe.
            (999, Permit::None, false),
        ];
        for (now, may, kept) in table {
            assert_eq!(permit(Some(&grant), 3, at(now)), may, "{now}");
            assert_eq!(is_kept(Some(&grant), at(now)), kept, "{now}");
        }
        assert_eq!(permit(None, 3, at(0)), Permit::None);
        assert!(!is_kept(None, at(0)));
    }

    #[test]
    fn another_boot_or_epoch_has_no_grant() {
        let grant = given(3, 1_000);
        for (epoch, clock) in [
            (2, at(1_001)),
            (4, at(1_001)),
            (3, Clock { boot: BOOT + 1, now_ms: 1_001 }),
            // A kernel that does not say which boot it is.
            (3, Clock { boot: 0, now_ms: 1_001 }),
        ] {
            assert_eq!(permit(Some(&grant), epoch, clock), Permit::None);
        }
        let nameless = Grant { boot: 0, ..grant };
        assert_eq!(permit(Some(&nameless), 3, Clock { boot: 0, now_ms: 1_001 }), Permit::None);
        assert!(!is_kept(Some(&nameless), Clock { boot: 0, now_ms: 1_001 }));
    }

    #[test]
    fn what_a_process_left_counts_for_the_next_of_the_same_boot_only() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(last(dir.path()), None);
        let now = Clock::read();
        let grant = Grant { boot: now.boot, epoch: 3, number: 7, asked_ms: now.now_ms.saturating_sub(100) };
        leave(dir.path(), &grant).unwrap();
        assert_eq!(last(dir.path()), Some(grant));
        leave(dir.path(), &Grant { boot: now.boot ^ 1, ..grant }).unwrap();
        assert_eq!(last(dir.path()), None, "it may live elsewhere by now");
        std::fs::write(dir.path().join(FILE), "{").unwrap();
        assert_eq!(last(dir.path()), None);
    }
}
