//! One instance's task: look, decide ([`step::next`]), do one thing, look again.
//!
//! Assumes that it is the only task for its directory in this process; the directory's lock keeps other processes out.
//! Promises that whatever is done is announced in the journal first, that the guest is never disturbed by our coming
//! or going, and that what is reported is what was last seen.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gon_driver::qemu::{
    self, Capabilities, Events, Guest, GuestDir, Lock, Monitor, QmpError, RunState, StartError,
};
use gon_driver::run::Pid;
use gon_proto::{InstanceReport, InstanceSpec, ObservedInstance};
use gon_types::Generation;
use gon_types::id::InstanceId;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;
use tracing::Instrument as _;

use super::console::Console;
use super::fence::{Grant, Permit};
use super::journal::{self, Clock, Journal, JournalError, Phase};
use super::plan::{self, Effect, Entry};
use super::step::{self, Action, Past, Seen, Want};
use super::{Shared, chain, crash, files};

/// How often a guest that runs is looked at without being told to. Its console is drained then, too.
const IDLE: Duration = Duration::from_secs(1);
/// How often something under way is looked at.
const BUSY: Duration = Duration::from_millis(25);
/// How often we look whether a tap is up: what a launch waits for.
const PLUG: Duration = Duration::from_millis(4);
/// How long a start waits for its taps: the network agent may have to be started first.
const PLUG_PATIENCE: Duration = Duration::from_secs(60);
/// How long a QEMU may take from its start to its first answer.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// How long connecting to a monitor may block the task.
const CONNECT: Duration = Duration::from_secs(2);
/// A machine that ran this long before it vanished has not failed at starting.
const GOOD_RUN_MS: u64 = 600_000;
/// How often an instance that is given up is tried all the same, should nobody be there to take the report.
const LAST_PAUSE: Duration = Duration::from_secs(60);
/// How often the power button is pressed while we wait for the guest.
const PRESS_AGAIN: Duration = Duration::from_secs(4);
/// How long the guest of a terminated instance may take to power itself off.
const LAST_GRACE: Duration = Duration::from_secs(3);
/// How long a killed process may take to be gone.
const KILL_PATIENCE: Duration = Duration::from_secs(10);
/// How long QEMU may take to flush and end by itself.
const QUIT_PATIENCE: Duration = Duration::from_secs(3);
/// QEMU's own log is cut when it is longer than this.
const LOG_LIMIT: u64 = 256 << 10;

/// The task of one instance.
pub(super) struct Instance {
    id: InstanceId,
    dir: GuestDir,
    shared: Arc<Shared>,
    specs: watch::Receiver<Option<InstanceSpec>>,
    spec: Option<InstanceSpec>,
    journal: Option<Journal>,
    /// The last write of the journal failed: what the disk holds is either what was or what was to be.
    doubtful: bool,
    console: Console,
    /// Rings when there is a new grant.
    grants: watch::Receiver<Option<Grant>>,
    link: Option<(Monitor, Events)>,
    /// Ours while nothing runs.
    lock: Option<Lock>,
    /// Since when a process does not answer.
    silent: Option<Instant>,
    /// The machine whose files are there, and the generation it is of.
    prepared: Option<(Generation, Guest)>,
    /// The process that was started last, when, and how long that took; until it has answered.
    spawned: Option<(Pid, Instant, Duration)>,
    /// Leave to use a processor for starting; until it has answered.
    turn: Option<OwnedSemaphorePermit>,
    /// Since when a start waits for its taps.
    unplugged: Option<Instant>,
    /// Until when the next attempt has to wait.
    pause: Option<Instant>,
    /// When the power button was last pressed.
    pressed: Option<Instant>,
    /// What is in the way at the moment, for the report.
    trouble: Option<String>,
}

/// What an action failed of.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("the node's disk: {0}")]
    Journal(#[from] JournalError),
    #[error("{0}")]
    Files(#[from] files::FilesError),
    #[error("{0}")]
    Monitor(#[from] QmpError),
    #[error("{}", chain(.0))]
    Start(#[from] StartError),
    #[error("the node's disk: {0}")]
    Io(#[from] std::io::Error),
    /// Nothing went wrong: it is not yet time.
    #[error("{0}")]
    NotYet(String),
    /// Trying again is of no use.
    #[error("{0}")]
    Hopeless(String),
    #[error("QEMU ended at once: {0}")]
    Ended(String),
    #[error("its process {0} does not go away")]
    Undead(i32),
}

impl Instance {
    /// The task for `id`, whose directory may or may not exist.
    pub(super) fn new(
        id: InstanceId,
        shared: Arc<Shared>,
        specs: watch::Receiver<Option<InstanceSpec>>,
    ) -> Self {
        let dir = GuestDir::new(&shared.instance_dir(id));
        let console = Console::new(dir.path());
        let grants = shared.fence.subscribe();
        Self {
            id,
            dir,
            shared,
            specs,
            spec: None,
            journal: None,
            doubtful: false,
            console,
            grants,
            link: None,
            lock: None,
            silent: None,
            prepared: None,
            spawned: None,
            turn: None,
            unplugged: None,
            pause: None,
            pressed: None,
            trouble: None,
        }
    }

    /// Its console, for whoever asks.
    pub(super) fn console(&self) -> Console {
        self.console.clone()
    }

    /// Runs until the supervisor lets go of the specification's sender, or nothing is left to do or to speak of.
    pub(super) async fn run(mut self) {
        match self.blocking(|dir, id| Journal::read(&dir, id)).await {
            Ok(journal) => self.journal = journal,
            Err(error) => {
                // Without the journal nothing is known, so nothing is done; somebody has to look.
                tracing::error!(instance = %self.id, %error, "instance is left alone");
                self.leave_alone(&error.to_string()).await;
                return;
            }
        }
        loop {
            self.spec.clone_from(&self.specs.borrow_and_update());
            let runs_by_grant = self.fence().is_some();
            self.shared.fence.need(self.id, runs_by_grant);
            let span = self.span();
            let again = self.turn().instrument(span).await;
            if self.journal.is_none() && self.spec.is_none() {
                self.shared.board.withdraw(self.id);
                self.shared.fence.need(self.id, false);
                return;
            }
            let deadline = tokio::time::sleep(again);
            let event = async {
                match &mut self.link {
                    Some((_, events)) => events.next().await.map(|event| event.name),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = self.specs.changed() => if changed.is_err() { return },
                name = event => match name {
                    Some(name) => tracing::debug!(instance = %self.id, event = name, "QEMU"),
                    // It closed the connection. What that means is seen by looking.
                    None => self.disconnect(),
                },
                _ = self.grants.changed(), if runs_by_grant => {}
                () = deadline => {}
            }
        }
    }

    /// The epoch of the node whose grant it runs by, if it does.
    fn fence(&self) -> Option<u64> {
        journal::fence(self.spec.as_ref(), self.journal.as_ref())
    }

    /// What it may do, if it runs by grant.
    fn permit(&self) -> Option<Permit> {
        self.fence().map(|epoch| self.shared.fence.permit(epoch))
    }

    /// Whether its guest may begin to run at this moment: asked again right before it does.
    fn may_begin(&self) -> Result<(), Trouble> {
        match self.permit() {
            None | Some(Permit::Run) => Ok(()),
            Some(Permit::GoOn | Permit::None) => {
                Err(Trouble::NotYet("its node has no grant to run it".to_owned()))
            }
        }
    }

    /// What is logged says which request it goes back to.
    fn span(&self) -> tracing::Span {
        match self.spec.as_ref().and_then(|spec| spec.origin.as_ref()) {
            Some(origin) => tracing::info_span!(
                "instance",
                request_id = origin.request_id,
                operation_id = %origin.operation
            ),
            None => tracing::Span::none(),
        }
    }

    /// Reports that nothing is known, until the supervisor goes.
    async fn leave_alone(&mut self, why: &str) {
        loop {
            if let Some(spec) = self.specs.borrow_and_update().clone() {
                self.shared.board.publish(InstanceReport {
                    id: self.id,
                    generation: spec.generation,
                    placement_epoch: spec.placement_epoch,
                    observed: ObservedInstance::Unknown,
                    reboot_seq: spec.reboot_seq,
                    reason: Some(format!("its journal cannot be read: {why}")),
                });
            }
            if self.specs.changed().await.is_err() {
                return;
            }
        }
    }

    /// Looks and acts until there is nothing to do at once; how long until the next look.
    async fn turn(&mut self) -> Duration {
        // Every action leads somewhere else (tested in `step`), so a dozen in a row is a bug: then do it slowly.
        for _ in 0..12 {
            let seen = self.look().await;
            let (want, past) = self.facts();
            let action = step::next(want, past, seen);
            if action != Action::Rest && action != Action::Wait {
                tracing::debug!(instance = %self.id, ?want, ?past, ?seen, ?action, "next");
            }
            if matches!(action, Action::Rest | Action::Wait) {
                if matches!(seen, Seen::Running | Seen::ShutDown)
                    || action == Action::Rest && seen == Seen::Gone
                {
                    self.trouble = None;
                }
                self.publish(seen);
                return self.rest(seen, action).await;
            }
            if (action, seen) == (Action::Resume, Seen::DiskFull) {
                // It may help, and does no harm; but not a dozen times in a row.
                self.publish(seen);
                if let Ok(monitor) = self.monitor() {
                    let _ = monitor.cont().await;
                }
                return IDLE * 5;
            }
            // What takes long is told before it is done.
            self.publish(seen);
            match self.act(action, seen).await {
                Ok(()) => {
                    if self.trouble.take().is_some() {
                        self.publish(seen);
                    }
                }
                Err(trouble) => {
                    let wait = match &trouble {
                        Trouble::NotYet(_) => PLUG,
                        _ => Duration::from_millis(500),
                    };
                    let text = trouble.to_string();
                    if self.trouble.as_deref() != Some(&text) {
                        match &trouble {
                            Trouble::NotYet(_) => tracing::debug!(instance = %self.id, "{text}"),
                            _ => tracing::warn!(instance = %self.id, ?action, "{text}"),
                        }
                        self.trouble = Some(text);
                    }
                    self.publish(seen);
                    return wait;
                }
            }
        }
        tracing::error!(instance = %self.id, "does not come to rest");
        IDLE
    }

    fn facts(&self) -> (Want, Past) {
        let (spec, journal) = (self.spec.as_ref(), self.journal.as_ref());
        let due = self.pause.is_none_or(|until| Instant::now() >= until);
        let want = step::under(journal::want(spec, journal), self.permit());
        (want, journal::past(spec, journal, Clock::read(), due))
    }

    async fn rest(&mut self, seen: Seen, action: Action) -> Duration {
        if self.journal.is_none() && self.lock.is_some() {
            // Made for a start that never got to its journal: there is nothing in it.
            self.lock = None;
            let _ = std::fs::remove_dir_all(self.dir.path());
        }
        match seen {
            Seen::Running => {
                self.console.drain().await;
                self.cut_log();
                if action == Action::Rest {
                    return IDLE;
                }
                // A guest that was still booting has not heard it.
                if self.pressed.is_none_or(|at| at.elapsed() > PRESS_AGAIN)
                    && let Err(error) = self.press_power_button().await
                {
                    tracing::debug!(instance = %self.id, %error, "the power button");
                }
                BUSY * 4
            }
            Seen::Silent { .. } => BUSY,
            Seen::Gone if action == Action::Wait => self
                .pause
                .map_or(IDLE, |until| until.saturating_duration_since(Instant::now()))
                .clamp(BUSY, LAST_PAUSE),
            _ => IDLE * 5,
        }
    }

    // ---- looking -------------------------------------------------------------------------------------------------

    async fn look(&mut self) -> Seen {
        if let Some((monitor, _)) = &self.link {
            match monitor.run_state().await {
                Ok(state) => {
                    self.silent = None;
                    return self.judge(state);
                }
                Err(QmpError::Closed) => self.disconnect(),
                Err(_) => return self.silence(),
            }
        }
        if self.lock.is_some() || self.journal.is_none() && !self.dir.path().exists() {
            self.silent = None;
            return Seen::Gone;
        }
        match Lock::take(&self.dir) {
            Ok(Some(lock)) => {
                self.lock = Some(lock);
                self.silent = None;
                return Seen::Gone;
            }
            Ok(None) => {}
            Err(error) => {
                self.trouble = Some(format!("its lock: {error}"));
                return self.silence();
            }
        }
        let Some(journal) = &self.journal else { return self.silence() };
        match Monitor::connect(&self.dir, journal.machine, CONNECT).await {
            Ok((monitor, events)) => {
                crash::point("C27:after");
                if let Err(error) = self.adopt().await {
                    tracing::warn!(instance = %self.id, %error, "cannot be adopted yet");
                    return self.silence();
                }
                self.console.connect(Some(monitor.clone()));
                let state = monitor.run_state().await;
                self.link = Some((monitor, events));
                self.silent = None;
                match state {
                    Ok(state) => self.judge(state),
                    Err(_) => self.silence(),
                }
            }
            Err(QmpError::Protocol(what)) => {
                self.trouble = Some(what);
                Seen::Foreign
            }
            Err(_) => self.silence(),
        }
    }

    fn judge(&mut self, state: RunState) -> Seen {
        match state {
            RunState::Prelaunch | RunState::Paused => Seen::Paused,
            RunState::Running => Seen::Running,
            RunState::Shutdown => Seen::ShutDown,
            RunState::IoError => {
                self.trouble = Some("paused: the node's disk is full".to_owned());
                Seen::DiskFull
            }
            RunState::Broken => Seen::Broken,
        }
    }

    fn silence(&mut self) -> Seen {
        let since = *self.silent.get_or_insert_with(Instant::now);
        Seen::Silent { long: since.elapsed() > START_PATIENCE }
    }

    fn disconnect(&mut self) {
        self.link = None;
        self.console.connect(None);
    }

    /// Remembers the process that answers, if that is not yet in the journal.
    async fn adopt(&mut self) -> Result<(), Trouble> {
        let Some(journal) = &self.journal else { return Ok(()) };
        if journal.process.is_some_and(|pid| pid.is_alive()) {
            return Ok(());
        }
        let (uid, machine) = (journal.run_as_uid, journal.machine);
        let found = tokio::task::spawn_blocking(move || qemu::find(uid, machine)).await.ok().flatten();
        tracing::info!(instance = %self.id, pid = found.map(|pid| pid.pid), "found running");
        self.write(|journal| journal.process = found).await
    }

    // ---- acting --------------------------------------------------------------------------------------------------

    async fn act(&mut self, action: Action, seen: Seen) -> Result<(), Trouble> {
        let phase = self.journal.as_ref().map(|journal| journal.phase);
        // In doubt it is announced again: a guest that the disk does not know of must never run.
        let begun =
            !self.doubtful && plan::is_begun(self.journal.as_ref(), self.spec.as_ref(), Clock::read().boot);
        let mut result = Ok(());
        for effect in plan::plan(action, seen, phase, begun) {
            result = self.perform(effect, seen).await;
            if result.is_err() {
                break;
            }
        }
        self.turn = None;
        match (action, result) {
            (_, Err(trouble @ Trouble::NotYet(_))) => Err(trouble),
            // Without a journal nothing was begun.
            (Action::Start, Err(trouble)) if self.journal.is_some() => {
                self.bury(&trouble.to_string(), matches!(trouble, Trouble::Hopeless(_)), true).await
            }
            (_, result) => result,
        }
    }

    async fn perform(&mut self, effect: Effect, seen: Seen) -> Result<(), Trouble> {
        match effect {
            Effect::Write(Entry::Begin) => self.begin().await,
            Effect::Write(entry) => {
                self.enter(entry).await?;
                match entry {
                    Entry::OffByGuest => tracing::info!(instance = %self.id, "powered itself off"),
                    Entry::Rebooted => tracing::info!(instance = %self.id, "rebooted"),
                    _ => {}
                }
                Ok(())
            }
            Effect::MakeFiles => self.make_files().await,
            Effect::AwaitTaps => self.await_taps(),
            Effect::Spawn => self.spawn().await,
            Effect::NoteProcess => {
                crash::point("C26:before");
                let pid = self.spawned.map(|(pid, ..)| pid);
                self.write(|journal| journal.process = pid).await?;
                crash::point("C26:after");
                Ok(())
            }
            Effect::AwaitAnswer => self.await_answer().await,
            Effect::Continue => {
                crash::point("C28:before");
                self.may_begin()?;
                self.monitor()?.cont().await?;
                crash::point("C28:after");
                Ok(())
            }
            Effect::SaveConsole => {
                self.console.drain().await;
                Ok(())
            }
            Effect::PressPower => self.press_power_button().await,
            Effect::PressLast => self.press_last().await,
            Effect::PressReset => Ok(self.monitor()?.reset().await?),
            Effect::End => self.end().await,
            Effect::Kill => self.kill().await,
            Effect::Bury => self.bury_what_ran(seen).await,
            Effect::RemoveFiles => {
                crash::point("D12:before");
                let dir = self.dir.path().to_owned();
                blocking(move || Ok(files::remove(&dir)?)).await?;
                crash::point("D12:after");
                Ok(())
            }
            Effect::RemoveJournal => {
                self.blocking(|dir, _| Journal::remove(&dir)).await?;
                crash::point("D13:before");
                Ok(())
            }
            Effect::RemoveDirectory => {
                let dir = self.dir.path().to_owned();
                blocking(move || Ok(std::fs::remove_dir_all(dir)?)).await?;
                crash::point("D13:after");
                tracing::info!(instance = %self.id, path = %self.dir.path().display(), "removed");
                self.journal = None;
                self.lock = None;
                Ok(())
            }
        }
    }

    fn monitor(&self) -> Result<Monitor, Trouble> {
        match &self.link {
            Some((monitor, _)) => Ok(monitor.clone()),
            None => Err(Trouble::Monitor(QmpError::Closed)),
        }
    }

    async fn press_power_button(&mut self) -> Result<(), Trouble> {
        self.pressed = Some(Instant::now());
        Ok(self.monitor()?.press_power_button().await?)
    }

    fn capabilities(&self) -> Result<Capabilities, Trouble> {
        self.shared.capabilities().map_err(Trouble::NotYet)
    }

    /// The journal entry that a start begins with (C24), in a directory that may not be there yet.
    async fn begin(&mut self) -> Result<(), Trouble> {
        // Nothing is announced that this node does not know how to do.
        self.capabilities()?;
        self.prepared = None;
        let dir = self.dir.clone();
        blocking(move || dir.create().map_err(Trouble::Io)).await?;
        crash::point("C24:before");
        self.enter(Entry::Begin).await?;
        crash::point("C24:after");
        Ok(())
    }

    /// Makes its files: while the network agent makes its taps.
    async fn make_files(&mut self) -> Result<(), Trouble> {
        let Some(spec) = self.spec.clone() else { return Ok(()) };
        let capabilities = self.capabilities()?;
        if self.prepared.as_ref().is_some_and(|(generation, _)| *generation == spec.generation) {
            return Ok(());
        }
        let (dir, images) = (self.dir.clone(), self.shared.config.images.clone());
        let emulated = capabilities.accelerator == qemu::Accelerator::Tcg;
        let generation = spec.generation;
        let made = blocking(move || Ok(files::prepare(dir.path(), &images, &spec, emulated)?)).await;
        let guest = match made {
            Err(Trouble::Files(error)) if error.permanent => return Err(Trouble::Hopeless(error.what)),
            other => other?,
        };
        self.prepared = Some((generation, guest));
        Ok(())
    }

    fn await_taps(&mut self) -> Result<(), Trouble> {
        let nics = self.spec.iter().flat_map(|spec| &spec.nics);
        let Some(nic) = nics.into_iter().find(|nic| !qemu::is_up(&nic.device)).map(|nic| nic.id) else {
            self.unplugged = None;
            return Ok(());
        };
        if self.unplugged.get_or_insert_with(Instant::now).elapsed() < PLUG_PATIENCE {
            return Err(Trouble::NotYet(format!("waiting for its network interface {nic}")));
        }
        self.unplugged = None;
        self.prepared = None;
        Err(Trouble::Hopeless(format!("its network interface {nic} did not become ready")))
    }

    async fn spawn(&mut self) -> Result<(), Trouble> {
        self.may_begin()?;
        let capabilities = self.capabilities()?;
        let Some((_, guest)) = self.prepared.take() else {
            return Err(Trouble::NotYet("its files are not made".to_owned()));
        };
        let starts = Arc::clone(&self.shared.starts);
        self.turn = Some(starts.acquire_owned().await.map_err(std::io::Error::other)?);
        let lock = match self.lock.take() {
            Some(lock) => lock,
            None => Lock::take(&self.dir)?.ok_or_else(|| Trouble::NotYet("it is just ending".to_owned()))?,
        };
        let dir = self.dir.clone();
        let began = Instant::now();
        let (shared, fence) = (Arc::clone(&self.shared), self.fence());
        let pid = blocking(move || {
            crash::point("C25:before");
            // As late as can be: what comes before may have taken long.
            if fence.is_some_and(|epoch| shared.fence.permit(epoch) != Permit::Run) {
                return Err(Trouble::NotYet("its node has no grant to run it".to_owned()));
            }
            let pid = qemu::start(&guest, &capabilities, &dir, lock)?;
            crash::point("C25:after");
            Ok::<Pid, Trouble>(pid)
        })
        .await?;
        self.spawned = Some((pid, began, began.elapsed()));
        Ok(())
    }

    /// The first answer of the process that was started, or its end.
    async fn await_answer(&mut self) -> Result<(), Trouble> {
        crash::point("C27:before");
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            match self.look().await {
                Seen::Gone => {
                    return Err(Trouble::Ended(self.dir.log_tail()));
                }
                Seen::Silent { .. } if Instant::now() < deadline => tokio::time::sleep(BUSY).await,
                _ => {
                    if let Some((pid, began, spawned)) = self.spawned.take() {
                        let answered = began.elapsed();
                        tracing::info!(instance = %self.id, pid = pid.pid, ?spawned, ?answered, "QEMU started");
                    }
                    return Ok(());
                }
            }
        }
    }

    /// What should run is gone, or cannot go on.
    async fn bury_what_ran(&mut self, seen: Seen) -> Result<(), Trouble> {
        let ran_ms = self.journal.as_ref().and_then(|journal| journal.process).map_or(0, |pid| {
            // Start times are in clock ticks, a hundredth of a second on every Linux.
            Clock::read().now_ms.saturating_sub(pid.start_time * 10)
        });
        let said = self.dir.log_tail();
        let said = if said.is_empty() { String::new() } else { format!(": {said}") };
        let what = match seen {
            Seen::Silent { .. } => "its QEMU did not answer",
            Seen::Broken => "its QEMU could not go on",
            _ => "its virtual machine ended unexpectedly",
        };
        self.bury(&format!("{what}{said}"), false, ran_ms <= GOOD_RUN_MS).await
    }

    /// Writes down a failed attempt, and when the next one may be.
    async fn bury(&mut self, why: &str, hopeless: bool, again: bool) -> Result<(), Trouble> {
        let Some(journal) = &self.journal else { return Ok(()) };
        let next = journal.failed(why, hopeless, again, self.spec.as_ref(), Clock::read());
        let (failures, last) = (next.failures, next.phase == Phase::Failed { last: true });
        tracing::warn!(instance = %self.id, failures, last, "{why}");
        let pause = if last { LAST_PAUSE } else { Duration::from_secs(1 << failures.min(4)) / 2 };
        self.pause = Some(Instant::now() + pause);
        self.replace(next).await
    }

    /// Ends the process and makes sure that it is gone.
    async fn end(&mut self) -> Result<(), Trouble> {
        let removing = self.journal.as_ref().is_none_or(|journal| journal.phase == Phase::Removing);
        if removing {
            crash::point("D04:before");
        }
        if self.lock.is_none() {
            let monitor = self.link.take().map(|(monitor, _)| monitor);
            self.console.connect(None);
            self.lock = Some(end(&self.dir, self.journal.as_ref(), monitor).await?);
            self.silent = None;
        }
        if removing {
            crash::point("D04:after");
        }
        Ok(())
    }

    /// Kills the process and makes sure that it is gone.
    async fn kill(&mut self) -> Result<(), Trouble> {
        tracing::warn!(instance = %self.id, "no grant: ended, for it may be started elsewhere");
        if self.lock.is_none() {
            self.disconnect();
            self.lock = Some(end(&self.dir, self.journal.as_ref(), None).await?);
            self.silent = None;
        }
        Ok(())
    }

    /// Asks the guest of a terminated instance once, unless that is to be skipped.
    async fn press_last(&mut self) -> Result<(), Trouble> {
        crash::point("D03:before");
        let force = self.spec.as_ref().is_some_and(|spec| spec.force);
        if let (Some((monitor, _)), false) = (&self.link, force) {
            let _ = monitor.press_power_button().await;
            crash::point("D03:after");
            let off = async {
                while monitor.run_state().await.is_ok_and(|state| state == RunState::Running) {
                    tokio::time::sleep(BUSY).await;
                }
            };
            let _ = tokio::time::timeout(LAST_GRACE, off).await;
        }
        Ok(())
    }

    fn cut_log(&self) {
        // Opened for appending by QEMU, so cutting it is safe.
        if let Ok(file) = std::fs::OpenOptions::new().write(true).open(self.dir.log())
            && file.metadata().is_ok_and(|meta| meta.len() > LOG_LIMIT)
        {
            let _ = file.set_len(0);
        }
    }

    // ---- writing and telling -------------------------------------------------------------------------------------

    async fn enter(&mut self, entry: Entry) -> Result<(), Trouble> {
        match Journal::with(self.journal.as_ref(), entry, self.spec.as_ref(), Clock::read()) {
            Some(next) => self.replace(next).await,
            None => Ok(()),
        }
    }

    /// Changes the journal, on disk first.
    async fn write(&mut self, change: impl FnOnce(&mut Journal)) -> Result<(), Trouble> {
        let Some(mut next) = self.journal.clone() else { return Ok(()) };
        change(&mut next);
        self.replace(next).await
    }

    async fn replace(&mut self, next: Journal) -> Result<(), Trouble> {
        let (dir, entry) = (self.dir.clone(), next.clone());
        self.doubtful = true;
        blocking(move || Ok::<(), Trouble>(entry.write(dir.path())?)).await?;
        self.doubtful = false;
        self.journal = Some(next);
        Ok(())
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(PathBuf, InstanceId) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, Trouble> {
        let (dir, id) = (self.dir.path().to_owned(), self.id);
        blocking(move || Ok(work(dir, id)?)).await
    }

    fn publish(&self, seen: Seen) {
        let (spec, journal) = (self.spec.as_ref(), self.journal.as_ref());
        let (want, past) = self.facts();
        let report = journal::report(self.id, spec, journal, (want, past, seen), self.trouble.as_deref());
        if let Some(report) = report {
            self.shared.board.publish(report);
        }
    }
}

/// Runs what blocks for the disk where it may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Trouble> + Send + 'static,
) -> Result<T, Trouble> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Trouble::Io(std::io::Error::other(error.to_string()))),
    }
}

/// Ends the QEMU of a directory, disks flushed if it listens; its lock, once it is gone.
async fn end(dir: &GuestDir, journal: Option<&Journal>, monitor: Option<Monitor>) -> Result<Lock, Trouble> {
    if let Some(monitor) = monitor
        && let Err(error) = monitor.quit(QUIT_PATIENCE).await
    {
        tracing::debug!(%error, "QEMU did not quit");
    }
    let pid = match journal.map(|journal| (journal.process, journal.run_as_uid, journal.machine)) {
        Some((Some(pid), ..)) if pid.is_alive() => Some(pid),
        Some((_, uid, machine)) => {
            tokio::task::spawn_blocking(move || qemu::find(uid, machine)).await.ok().flatten()
        }
        None => None,
    };
    if let Some(pid) = pid
        && !pid.wait_gone(Duration::from_secs(1)).await
    {
        pid.kill().await?;
    }
    // The lock goes with the last descriptor of the process.
    let deadline = Instant::now() + KILL_PATIENCE;
    loop {
        if let Some(lock) = Lock::take(dir)? {
            return Ok(lock);
        }
        if Instant::now() > deadline {
            return Err(Trouble::Undead(pid.map_or(0, |pid| pid.pid)));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
