//! What was done for one instance, on disk.
//!
//! Assumes one writer: who holds the instance's task. Promises that [`Journal::write`] returns only when the entry will
//! survive a power loss, and that it is written before the effect it announces; so after a crash the journal may
//! announce something that did not happen, never the other way round.
//!
//! A directory without a journal holds nothing of value: the journal is the first file made in it and the last one
//! removed.

use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use gon_driver::run::Pid;
use gon_proto::{InstanceReport, InstanceSpec};
use gon_types::Generation;
use gon_types::id::InstanceId;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::plan::Entry;
use super::step::{self, Past, Seen, Want};

/// Version of the file's format.
const FORMAT: u32 = 1;
/// Why an instance that is recovered elsewhere does not run here.
const NO_GRANT: &str = "its node has no grant to run it: the control plane could not be asked for too long";
/// After how many failed attempts in a row an instance is reported as failed.
const ATTEMPTS: u32 = 3;
const FILE: &str = "journal.json";

/// An instance's journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Journal {
    format: u32,
    /// Whose it is; also the directory's name.
    pub instance: InstanceId,
    /// The highest generation acted on.
    pub generation: Generation,
    /// The highest placement acted on.
    pub placement_epoch: u64,
    /// The machine identity of its QEMU.
    pub machine: Uuid,
    /// Who its QEMU runs as.
    pub run_as_uid: u32,
    /// In which boot of this node `phase` was entered.
    pub boot: u64,
    /// How far it is.
    pub phase: Phase,
    /// Its process, once known.
    pub process: Option<Pid>,
    /// Reboots done, or made superfluous by a start.
    pub reboot_seq: u64,
    /// Attempts to run it that ended badly, in a row.
    pub failures: u32,
    /// Why the last one did.
    pub reason: Option<String>,
    /// The epoch of the node whose grant it runs by, if it is recovered elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<u64>,
}

/// How far an instance is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Phase {
    /// Its files are being made, or its process started.
    Starting,
    /// Its processors were let run.
    Running,
    /// The guest was asked to power off.
    Asked {
        /// Until when it may take, on this node's clock since boot, milliseconds.
        until_ms: u64,
    },
    /// The guest was asked to power off, for a reboot.
    RebootAsked {
        /// Which one.
        seq: u64,
        /// As above.
        until_ms: u64,
    },
    /// The guest is off and about to be reset.
    Resetting {
        /// For which reboot.
        seq: u64,
    },
    /// We ended it.
    Off,
    /// The guest powered itself off.
    OffByGuest,
    /// An attempt to run it failed.
    Failed {
        /// Tried often enough, or hopeless.
        last: bool,
    },
    /// It is being removed.
    Removing,
}

/// Where and when we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// This boot of the node.
    pub boot: u64,
    /// Milliseconds since.
    pub now_ms: u64,
}

impl Clock {
    /// Here and now. Not the wall clock: nothing here depends on it (rule R25).
    #[must_use]
    pub fn read() -> Self {
        static BOOT: OnceLock<u64> = OnceLock::new();
        let this_boot = || i32::try_from(std::process::id()).ok().and_then(Pid::of).map_or(0, |pid| pid.boot);
        let boot = *BOOT.get_or_init(this_boot);
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
        let seconds: f64 = uptime.split(' ').next().and_then(|s| s.parse().ok()).unwrap_or(0.0);
        Self { boot, now_ms: (seconds * 1000.0) as u64 }
    }
}

/// Why a journal could not be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The disk failed us.
    #[error("{}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is there but cannot be read: somebody has to look.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// In which way.
        what: String,
    },
}

impl Journal {
    /// The first entry for an instance.
    #[must_use]
    pub fn new(spec: &InstanceSpec, clock: Clock) -> Self {
        Self {
            format: FORMAT,
            instance: spec.id,
            generation: spec.generation,
            placement_epoch: spec.placement_epoch,
            machine: gon_driver::qemu::ec2_uuid(spec.id.uuid()),
            run_as_uid: spec.run_as_uid,
            boot: clock.boot,
            phase: Phase::Starting,
            process: None,
            reboot_seq: spec.reboot_seq,
            failures: 0,
            reason: None,
            fence: spec.fence,
        }
    }

    /// The journal in `dir`; `None` if there is none.
    pub fn read(dir: &Path, instance: InstanceId) -> Result<Option<Self>, JournalError> {
        let path = dir.join(FILE);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(JournalError::Io { path, source }),
        };
        let journal: Self = serde_json::from_slice(&bytes)
            .map_err(|error| JournalError::Damaged { path: path.clone(), what: error.to_string() })?;
        if journal.format != FORMAT || journal.instance != instance {
            let what = format!("format {}, instance {}", journal.format, journal.instance);
            return Err(JournalError::Damaged { path, what });
        }
        Ok(Some(journal))
    }

    /// Writes the journal to stay. Blocks for the disk.
    pub fn write(&self, dir: &Path) -> Result<(), JournalError> {
        let path = dir.join(FILE);
        let write = || {
            let beside = dir.join("journal.new");
            let mut file = std::fs::OpenOptions::new()
                .create(true)
                .write(true)
                .truncate(true)
                .mode(0o600)
                .open(&beside)?;
            file.write_all(&serde_json::to_vec(self)?)?;
            file.sync_all()?;
            std::fs::rename(&beside, &path)?;
            std::fs::File::open(dir)?.sync_all()
        };
        write().map_err(|source| JournalError::Io { path: path.clone(), source })
    }

    /// Removes the journal, to stay removed.
    pub fn remove(dir: &Path) -> Result<(), JournalError> {
        let path = dir.join(FILE);
        let remove = || match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => std::fs::File::open(dir)?.sync_all(),
        };
        remove().map_err(|source| JournalError::Io { path: path.clone(), source })
    }

    /// The journal once `entry` is in it, from what it says now. `None`: there is nothing to write into, or no
    /// specification to begin with.
    #[must_use]
    pub fn with(
        held: Option<&Self>,
        entry: Entry,
        spec: Option<&InstanceSpec>,
        clock: Clock,
    ) -> Option<Self> {
        let mut next = match (held, entry) {
            (Some(held), _) => held.clone(),
            (None, Entry::Begin) => Self::new(spec?, clock),
            (None, _) => return None,
        };
        let until_ms = clock.now_ms + u64::from(spec.map_or(0, |spec| spec.stop_grace_seconds)) * 1000;
        let seq = spec.map_or(0, |spec| spec.reboot_seq);
        match entry {
            Entry::Begin => {
                let spec = spec?;
                if held.is_none_or(|held| held.generation < spec.generation) {
                    (next.failures, next.reason) = (0, None);
                }
                next.enter(Phase::Starting, clock);
                // A start is also a reboot.
                next.reboot_seq = next.reboot_seq.max(seq);
                next.run_as_uid = spec.run_as_uid;
                next.process = None;
            }
            Entry::Running => {
                if let Phase::Resetting { seq } | Phase::RebootAsked { seq, .. } = next.phase {
                    next.reboot_seq = next.reboot_seq.max(seq);
                }
                next.enter(Phase::Running, clock);
            }
            Entry::Asked => next.enter(Phase::Asked { until_ms }, clock),
            Entry::RebootAsked => next.enter(Phase::RebootAsked { seq, until_ms }, clock),
            Entry::Resetting => next.enter(Phase::Resetting { seq }, clock),
            Entry::Rebooted => {
                next.enter(Phase::Running, clock);
                next.reboot_seq = next.reboot_seq.max(seq);
            }
            Entry::Off => {
                next.enter(Phase::Off, clock);
                next.process = None;
            }
            Entry::Fenced => {
                next.enter(Phase::Off, clock);
                next.process = None;
                next.reason = Some(NO_GRANT.to_owned());
            }
            Entry::OffByGuest => {
                next.enter(Phase::OffByGuest, clock);
                next.process = None;
            }
            Entry::Removing => next.enter(Phase::Removing, clock),
        }
        if let Some(spec) = spec {
            next.follow(spec);
        }
        Some(next)
    }

    /// The journal once a failed attempt is in it. `again`: earlier ones count; it had not run for long.
    #[must_use]
    pub fn failed(
        &self,
        why: &str,
        hopeless: bool,
        again: bool,
        spec: Option<&InstanceSpec>,
        clock: Clock,
    ) -> Self {
        let mut next = self.clone();
        next.failures = if again { next.failures + 1 } else { 1 };
        next.enter(Phase::Failed { last: hopeless || next.failures >= ATTEMPTS }, clock);
        next.process = None;
        next.reason = Some(why.chars().take(400).collect());
        if let Some(spec) = spec {
            next.follow(spec);
        }
        next
    }

    /// Enters a phase.
    pub fn enter(&mut self, phase: Phase, clock: Clock) {
        self.phase = phase;
        self.boot = clock.boot;
    }

    /// Takes over what a specification says of itself.
    pub fn follow(&mut self, spec: &InstanceSpec) {
        if spec.generation >= self.generation && spec.placement_epoch >= self.placement_epoch {
            self.fence = spec.fence;
        }
        self.generation = self.generation.max(spec.generation);
        self.placement_epoch = self.placement_epoch.max(spec.placement_epoch);
    }
}

/// What the document wants of an instance, in the light of its journal.
#[must_use]
pub fn want(spec: Option<&InstanceSpec>, journal: Option<&Journal>) -> Want {
    use gon_proto::PowerSpec;
    let Some(spec) = spec else { return Want::Absent };
    if let Some(journal) = journal
        && (spec.generation < journal.generation || spec.placement_epoch < journal.placement_epoch)
    {
        return Want::Stale;
    }
    match spec.power {
        PowerSpec::Running => {
            Want::Run { reboot: journal.is_some_and(|journal| spec.reboot_seq > journal.reboot_seq) }
        }
        PowerSpec::Stopped => Want::Stop { force: spec.force },
        PowerSpec::Terminated => Want::Terminate,
    }
}

/// The epoch of the node whose grant an instance runs by: as its specification says, or, if there is none to go by, as it was
/// when it was started.
#[must_use]
pub fn fence(spec: Option<&InstanceSpec>, journal: Option<&Journal>) -> Option<u64> {
    match (spec, want(spec, journal)) {
        (Some(spec), Want::Run { .. } | Want::Stop { .. } | Want::Terminate) => spec.fence,
        _ => journal.and_then(|journal| journal.fence),
    }
}

/// What the journal says. `due`: the pause after a failure is over.
#[must_use]
pub fn past(spec: Option<&InstanceSpec>, journal: Option<&Journal>, clock: Clock, due: bool) -> Past {
    let Some(journal) = journal else { return Past::New };
    let changed = spec.is_some_and(|spec| spec.generation > journal.generation);
    // What was under way when this node went down ended with it, and is nobody's fault.
    let before = journal.boot != clock.boot;
    let late = |until_ms: u64| clock.now_ms >= until_ms;
    match journal.phase {
        Phase::Off => Past::Off,
        Phase::OffByGuest => Past::OffByGuest { overruled: changed },
        Phase::Failed { last } => Past::Failed { due: due || changed || before, last: last && !changed },
        Phase::Removing => Past::Removing,
        _ if before => Past::Off,
        Phase::Starting => Past::Starting,
        Phase::Running => Past::Running,
        Phase::Asked { until_ms } => Past::Asked { late: late(until_ms) },
        Phase::RebootAsked { until_ms, .. } => Past::RebootAsked { late: late(until_ms) },
        Phase::Resetting { .. } => Past::Resetting,
    }
}

/// What is reported of an instance; `None` if there is nothing to speak of. `trouble`: what is in the way at the moment.
#[must_use]
pub fn report(
    id: InstanceId,
    spec: Option<&InstanceSpec>,
    journal: Option<&Journal>,
    (want, past, seen): (Want, Past, Seen),
    trouble: Option<&str>,
) -> Option<InstanceReport> {
    let observed = step::report(want, past, seen)?;
    // Of a stale specification we do not speak: what is reported is what was done.
    let spec = spec.filter(|_| want != Want::Stale);
    let generation = spec.map(|spec| spec.generation).or(journal.map(|journal| journal.generation))?;
    let placement_epoch =
        spec.map(|spec| spec.placement_epoch).or(journal.map(|journal| journal.placement_epoch))?;
    let reboots = journal.map(|journal| journal.reboot_seq).or(spec.map(|spec| spec.reboot_seq));
    let past_reason = matches!(past, Past::Failed { .. } | Past::Starting)
        .then(|| journal.and_then(|journal| journal.reason.clone()))
        .flatten();
    let no_grant =
        matches!((want, seen), (Want::Fence, _) | (Want::GoOn, Seen::Gone)).then(|| NO_GRANT.to_owned());
    let stale = (want == Want::Stale).then(|| "an older specification was refused".to_owned());
    Some(InstanceReport {
        id,
        generation,
        placement_epoch,
        observed,
        reboot_seq: reboots.unwrap_or(0),
        reason: stale.or(no_grant).or_else(|| trouble.map(str::to_owned)).or(past_reason),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use gon_proto::{ImageSpec, PowerSpec};
    use gon_types::id::ImageId;

    fn spec(generation: Generation) -> InstanceSpec {
        InstanceSpec {
            id: InstanceId::from_uuid(Uuid::from_u128(7)),
            generation,
            placement_epoch: 1,
            power: PowerSpec::Running,
            force: false,
            reboot_seq: 2,
            stop_grace_seconds: 60,
            vcpus: 1,
            memory_mib: 128,
            image: ImageSpec {
                id: ImageId::from_uuid(Uuid::from_u128(8)),
                name: "gon-linux".to_owned(),
                digest: "0".repeat(64),
            },
            run_as_uid: 70_000,
            nics: vec![],
            disks: vec![],
            fence: None,
            origin: None,
        }
    }

    const NOW: Clock = Clock { boot: 5, now_ms: 1000 };

    #[test]
    fn what_was_written_is_read_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::new(&spec(3), NOW);
        assert_eq!(Journal::read(dir.path(), journal.instance).unwrap(), None);
        for phase in
            [Phase::Starting, Phase::RebootAsked { seq: 3, until_ms: 9 }, Phase::Failed { last: true }]
        {
            journal.enter(phase, NOW);
            journal.process = Pid::of(std::process::id() as i32);
            journal.write(dir.path()).unwrap();
            assert_eq!(Journal::read(dir.path(), journal.instance).unwrap(), Some(journal.clone()));
        }
        assert!(Journal::read(dir.path(), InstanceId::new()).is_err(), "somebody else's");
        std::fs::write(dir.path().join(FILE), b"{\"format\":1").unwrap();
        assert!(matches!(Journal::read(dir.path(), journal.instance), Err(JournalError::Damaged { .. })));
        Journal::remove(dir.path()).unwrap();
        Journal::remove(dir.path()).unwrap();
        assert_eq!(Journal::read(dir.path(), journal.instance).unwrap(), None);
    }

    #[test]
    fn a_specification_that_goes_back_is_stale() {
        let journal = Journal::new(&spec(3), NOW);
        assert_eq!(want(Some(&spec(3)), Some(&journal)), Want::Run { reboot: false });
        assert_eq!(want(Some(&spec(2)), Some(&journal)), Want::Stale);
        let older = InstanceSpec { placement_epoch: 0, ..spec(4) };
        assert_eq!(want(Some(&older), Some(&journal)), Want::Stale);
        assert_eq!(want(None, Some(&journal)), Want::Absent);
        let reboot = InstanceSpec { reboot_seq: 3, ..spec(4) };
        assert_eq!(want(Some(&reboot), Some(&journal)), Want::Run { reboot: true });
        assert_eq!(want(Some(&reboot), None), Want::Run { reboot: false }, "a start is also a reboot");
    }

    #[test]
    fn a_node_that_went_down_is_nobodys_fault() {
        let mut journal = Journal::new(&spec(3), NOW);
        let later = Clock { boot: 6, now_ms: 10 };
        for (phase, same, other) in [
            (Phase::Starting, Past::Starting, Past::Off),
            (Phase::Running, Past::Running, Past::Off),
            (Phase::Asked { until_ms: 1000 }, Past::Asked { late: true }, Past::Off),
            (Phase::Asked { until_ms: 1001 }, Past::Asked { late: false }, Past::Off),
            (Phase::RebootAsked { seq: 1, until_ms: 0 }, Past::RebootAsked { late: true }, Past::Off),
            (Phase::OffByGuest, Past::OffByGuest { overruled: false }, Past::OffByGuest { overruled: false }),
            (Phase::Removing, Past::Removing, Past::Removing),
            (
                Phase::Failed { last: true },
                Past::Failed { due: false, last: true },
                Past::Failed { due: true, last: true },
            ),
        ] {
            journal.enter(phase, NOW);
            assert_eq!(past(Some(&spec(3)), Some(&journal), NOW, false), same);
            assert_eq!(past(Some(&spec(3)), Some(&journal), later, false), other);
        }
        journal.enter(Phase::OffByGuest, NOW);
        assert_eq!(past(Some(&spec(4)), Some(&journal), NOW, false), Past::OffByGuest { overruled: true });
        journal.enter(Phase::Failed { last: true }, NOW);
        let fresh = Past::Failed { due: true, last: false };
        assert_eq!(past(Some(&spec(4)), Some(&journal), NOW, false), fresh);
    }
}
