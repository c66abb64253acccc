//! The task of one instance, as `gon_agent::hypervisor::instance`: what is done next, of what steps that consists, and what
//! each leaves in the journal are the product's own; here they act on simulated machines, and anything may end between
//! any two of them.

use std::rc::Rc;

use gon_agent::hypervisor::fence::Permit;
use gon_agent::hypervisor::journal::{self, Journal, Phase};
use gon_agent::hypervisor::plan::{self, Effect, Entry};
use gon_agent::hypervisor::step::{self, Action, Past, Seen, Want};
use gon_proto::InstanceSpec;
use gon_types::id::InstanceId;
use uuid::Uuid;

use crate::exec::{MS, S, Time, race};
use crate::hypervisor::Shared;
use crate::machine::{Dir, Guest, Power};
use crate::recovery;
use crate::world::{Bug, Ctx, World};

const IDLE: Time = 3 * S;
const BUSY: Time = 100 * MS;
const PLUG: Time = 250 * MS;
const PLUG_PATIENCE: Time = 60 * S;
const START_PATIENCE: Time = 30 * S;
const LAST_PAUSE: Time = 60 * S;
const PRESS_AGAIN: Time = 4 * S;
const LAST_GRACE: Time = 3 * S;

/// Why an effect was not had.
enum Trouble {
    /// It is not yet time.
    NotYet,
    /// Something went wrong.
    Wrong(&'static str),
    /// Trying again is of no use.
    Hopeless(&'static str),
}
use Trouble::{Hopeless, NotYet, Wrong};

struct Instance {
    ctx: Ctx,
    node: usize,
    agent: Shared,
    id: Uuid,
    spec: Option<InstanceSpec>,
    journal: Option<Journal>,
    /// The last write of the journal failed: it was written, or not.
    doubtful: bool,
    /// Ours while nothing runs.
    lock: bool,
    silent: Option<Time>,
    prepared: bool,
    unplugged: Option<Time>,
    pause: Option<Time>,
    pressed: Option<Time>,
    trouble: Option<&'static str>,
}

/// The task.
pub async fn run(ctx: Ctx, node: usize, agent: Shared, id: Uuid) {
    ctx.step(2 * MS).await;
    let journal = {
        let state = ctx.w.nodes[node].state.borrow();
        state.disk.dirs.get(&id).and_then(|dir| dir.journal.clone())
    };
    let mut instance = Instance {
        ctx,
        node,
        agent,
        id,
        spec: None,
        journal,
        doubtful: false,
        lock: false,
        silent: None,
        prepared: false,
        unplugged: None,
        pause: None,
        pressed: None,
        trouble: None,
    };
    loop {
        let told = instance.agent.borrow().tasks.get(&id).cloned();
        let Some(told) = told else { return };
        instance.spec = told.spec;
        let again = instance.turn().await;
        if instance.journal.is_none() && instance.spec.is_none() {
            let mut agent = instance.agent.borrow_mut();
            // Unless the supervisor has something new to say.
            if agent.tasks.get(&id).is_some_and(|told| told.spec.is_none()) {
                agent.board.remove(&id);
                agent.tasks.remove(&id);
                return;
            }
        }
        let _ = race(told.bell.heard(), instance.ctx.sleep(again)).await;
    }
}

impl World {
    /// A guest does something by itself, if it is still the same process.
    fn guest_later(
        self: &Rc<Self>,
        node: usize,
        id: Uuid,
        serial: u64,
        after: Time,
        act: impl FnOnce(&mut Guest) + 'static,
    ) {
        let w = Rc::clone(self);
        self.exec.spawn(self.nodes[node].kernel, async move {
            w.exec.sleep(after).await;
            if let Some(guest) = w.nodes[node].state.borrow_mut().guests.get_mut(&id)
                && guest.serial == serial
            {
                act(guest);
            }
        });
    }
}

impl Instance {
    fn now(&self) -> Time {
        self.ctx.w.exec.now()
    }
    fn with_guest<T>(&self, look: impl FnOnce(Option<&mut Guest>) -> T) -> T {
        look(self.ctx.w.nodes[self.node].state.borrow_mut().guests.get_mut(&self.id))
    }
    fn facts(&self) -> (Want, Past) {
        let (spec, journal) = (self.spec.as_ref(), self.journal.as_ref());
        let due = self.pause.is_none_or(|until| self.now() >= until);
        let clock = self.ctx.w.nodes[self.node].clock(self.now());
        let want = step::under(journal::want(spec, journal), self.permit());
        (want, journal::past(spec, journal, clock, due))
    }
    fn permit(&self) -> Option<Permit> {
        let epoch = journal::fence(self.spec.as_ref(), self.journal.as_ref())?;
        let clock = self.ctx.w.nodes[self.node].clock(self.now());
        Some(recovery::permit(&self.ctx.w, self.agent.borrow().grant.as_ref(), epoch, clock))
    }
    fn may_begin(&self) -> Result<(), Trouble> {
        match self.permit() {
            None | Some(Permit::Run) => Ok(()),
            Some(Permit::GoOn | Permit::None) => Err(NotYet),
        }
    }
    fn publish(&self, seen: Seen) {
        let (want, past) = self.facts();
        let (spec, journal) = (self.spec.as_ref(), self.journal.as_ref());
        let id = InstanceId::from_uuid(self.id);
        if let Some(report) = journal::report(id, spec, journal, (want, past, seen), self.trouble) {
            self.agent.borrow_mut().publish(report);
        }
    }

    async fn turn(&mut self) -> Time {
        for _ in 0..12 {
            let seen = self.look();
            let (want, past) = self.facts();
            let action = step::next(want, past, seen);
            if matches!(action, Action::Rest | Action::Wait) {
                if matches!(seen, Seen::Running | Seen::ShutDown)
                    || action == Action::Rest && seen == Seen::Gone
                {
                    self.trouble = None;
                }
                self.publish(seen);
                return self.rest(seen, action);
            }
            self.ctx.note(|| format!("{} {want:?} {past:?} {seen:?}: {action:?}", self.short()));
            self.publish(seen);
            match self.act(action, seen).await {
                Ok(()) => self.trouble = None,
                Err(trouble) => {
                    let (text, wait) = match trouble {
                        NotYet => ("not yet", PLUG),
                        Wrong(text) | Hopeless(text) => (text, 500 * MS),
                    };
                    self.trouble = Some(text);
                    self.publish(seen);
                    return wait;
                }
            }
        }
        self.ctx.w.fail(format_args!("{} on node{} does not come to rest", self.short(), self.node));
        IDLE
    }

    fn short(&self) -> String {
        format!("i-{}", self.id.as_u128() as u32)
    }

    fn rest(&mut self, seen: Seen, action: Action) -> Time {
        if self.journal.is_none() && self.lock {
            // Made for a start that never got to its journal: there is nothing in it.
            self.lock = false;
            self.ctx.w.nodes[self.node].state.borrow_mut().disk.dirs.remove(&self.id);
        }
        match seen {
            Seen::Running if action == Action::Rest => IDLE,
            Seen::Running => {
                if self.pressed.is_none_or(|at| self.now() > at + PRESS_AGAIN) {
                    self.press();
                }
                BUSY * 4
            }
            Seen::Silent { .. } => BUSY,
            Seen::Gone if action == Action::Wait => {
                self.pause.map_or(IDLE, |until| until.saturating_sub(self.now())).clamp(BUSY, LAST_PAUSE)
            }
            _ => IDLE * 2,
        }
    }

    fn look(&mut self) -> Seen {
        let now = self.now();
        let there = self.ctx.w.nodes[self.node].state.borrow().disk.dirs.contains_key(&self.id);
        let guest = self.with_guest(|guest| guest.cloned());
        let Some(guest) = guest else {
            // Nobody holds its lock: it is ours from now on.
            self.lock = there;
            self.silent = None;
            return Seen::Gone;
        };
        if guest.answers_at > now || self.journal.is_none() {
            let since = *self.silent.get_or_insert(now);
            return Seen::Silent { long: now > since + START_PATIENCE };
        }
        self.silent = None;
        match guest.power {
            Power::Prelaunch => Seen::Paused,
            Power::Running => Seen::Running,
            Power::ShutDown => Seen::ShutDown,
            Power::Broken => Seen::Broken,
        }
    }

    async fn act(&mut self, action: Action, seen: Seen) -> Result<(), Trouble> {
        let phase = self.journal.as_ref().map(|journal| journal.phase);
        let boot = self.ctx.w.nodes[self.node].clock(self.now()).boot;
        let sure = !self.doubtful || self.ctx.w.has(Bug::TrustsFailedWrites);
        let begun = sure && plan::is_begun(self.journal.as_ref(), self.spec.as_ref(), boot);
        let mut effects = plan::plan(action, seen, phase, begun);
        self.spoil(&mut effects);
        let mut result = Ok(());
        for effect in effects {
            self.ctx.point().await;
            result = self.perform(effect, seen).await;
            self.ctx.point().await;
            if result.is_err() {
                break;
            }
        }
        match (action, result) {
            (_, Err(NotYet)) => Err(NotYet),
            (Action::Start, Err(Wrong(why) | Hopeless(why))) if self.journal.is_some() => {
                self.bury(why, why == "no tap").await
            }
            (_, result) => result,
        }
    }

    /// Puts the planted defects into the order of effects.
    fn spoil(&self, effects: &mut Vec<Effect>) {
        let move_after = |effects: &mut Vec<Effect>, what, after| {
            let at = |e: &Vec<Effect>, x| e.iter().position(|y| *y == x);
            if let (Some(from), Some(_)) = (at(effects, what), at(effects, after)) {
                effects.remove(from);
                let to = at(effects, after).map_or(0, |to| to + 1);
                effects.insert(to, what);
            }
        };
        if self.ctx.w.has(Bug::JournalAfterSpawn) {
            move_after(effects, Effect::Write(Entry::Begin), Effect::Spawn);
        }
        if self.ctx.w.has(Bug::JournalRemovedFirst) {
            move_after(effects, Effect::RemoveFiles, Effect::RemoveJournal);
            move_after(effects, Effect::End, Effect::RemoveJournal);
        }
    }

    async fn perform(&mut self, effect: Effect, seen: Seen) -> Result<(), Trouble> {
        match effect {
            Effect::Write(entry) => self.enter(entry).await,
            Effect::MakeFiles => {
                if self.prepared {
                    return Ok(());
                }
                let id = self.id;
                let make =
                    move |disk: &mut crate::machine::Disk| disk.dirs.entry(id).or_default().files = true;
                self.ctx.write_disk(self.node, make).await.map_err(|_| Wrong("no files"))?;
                self.prepared = true;
                Ok(())
            }
            Effect::AwaitTaps => self.await_taps(),
            Effect::Spawn => self.spawn().await,
            Effect::NoteProcess => match self.journal.clone() {
                Some(journal) => self.replace(journal).await,
                None => Ok(()),
            },
            Effect::AwaitAnswer => loop {
                match self.look() {
                    Seen::Gone => return Err(Wrong("it ended at once")),
                    Seen::Silent { long: false } => self.ctx.sleep(BUSY).await,
                    _ => return Ok(()),
                }
            },
            Effect::Continue => {
                self.ctx.step(5 * MS).await;
                self.may_begin()?;
                self.let_run()
            }
            Effect::SaveConsole => Ok(()),
            Effect::PressPower => {
                self.ctx.step(5 * MS).await;
                self.press();
                Ok(())
            }
            Effect::PressLast => {
                if self.spec.as_ref().is_none_or(|spec| !spec.force) && seen == Seen::Running {
                    self.press();
                    let until = self.now() + LAST_GRACE;
                    while self.now() < until
                        && self.with_guest(|g| g.is_some_and(|g| g.power == Power::Running))
                    {
                        self.ctx.sleep(BUSY).await;
                    }
                }
                Ok(())
            }
            Effect::PressReset => {
                self.ctx.step(5 * MS).await;
                self.with_guest(|guest| match guest {
                    Some(guest) if guest.power == Power::ShutDown => guest.power = Power::Prelaunch,
                    _ => {}
                });
                Ok(())
            }
            Effect::End => self.end().await,
            Effect::Kill => {
                self.ctx.step(S).await;
                let guest = self.ctx.w.nodes[self.node].state.borrow_mut().guests.remove(&self.id);
                if let Some(guest) = guest {
                    self.ctx.w.truth.borrow().fenced(&self.ctx.w, self.node, self.id, &guest);
                }
                (self.lock, self.silent) = (true, None);
                Ok(())
            }
            Effect::Bury => {
                let why = if seen == Seen::Gone { "it vanished" } else { "it could not go on" };
                self.bury(why, false).await
            }
            Effect::RemoveFiles => {
                let id = self.id;
                let remove = move |disk: &mut crate::machine::Disk| {
                    if let Some(dir) = disk.dirs.get_mut(&id) {
                        dir.files = false;
                    }
                };
                self.ctx.write_disk(self.node, remove).await.map_err(|_| Wrong("files stay"))
            }
            Effect::RemoveJournal => {
                let id = self.id;
                let remove = move |disk: &mut crate::machine::Disk| {
                    if let Some(dir) = disk.dirs.get_mut(&id) {
                        dir.journal = None;
                    }
                };
                self.ctx.write_disk(self.node, remove).await.map_err(|_| Wrong("the journal stays"))
            }
            Effect::RemoveDirectory => {
                self.ctx.step(5 * MS).await;
                let mut state = self.ctx.w.nodes[self.node].state.borrow_mut();
                if let Some(dir) = state.disk.dirs.remove(&self.id) {
                    state.disk.ghosts.push((self.id, dir.files));
                }
                drop(state);
                self.journal = None;
                self.lock = false;
                self.prepared = false;
                self.ctx.note(|| format!("{} removed", self.short()));
                Ok(())
            }
        }
    }

    async fn enter(&mut self, entry: Entry) -> Result<(), Trouble> {
        if entry == Entry::Begin {
            self.prepared = false;
        }
        let clock = self.ctx.w.nodes[self.node].clock(self.now());
        match Journal::with(self.journal.as_ref(), entry, self.spec.as_ref(), clock) {
            Some(next) => self.replace(next).await,
            None => Ok(()),
        }
    }

    async fn replace(&mut self, next: Journal) -> Result<(), Trouble> {
        let (id, entry) = (self.id, next.clone());
        let write = move |disk: &mut crate::machine::Disk| {
            disk.dirs.entry(id).or_insert(Dir { journal: None, files: false }).journal = Some(entry);
        };
        self.doubtful = true;
        self.ctx.write_disk(self.node, write).await.map_err(|_| Wrong("the journal cannot be written"))?;
        self.doubtful = false;
        self.journal = Some(next);
        Ok(())
    }

    fn await_taps(&mut self) -> Result<(), Trouble> {
        let now = self.now();
        let state = self.ctx.w.nodes[self.node].state.borrow();
        let nics = self.spec.iter().flat_map(|spec| &spec.nics);
        if nics.into_iter().all(|nic| state.taps.contains_key(&nic.device)) {
            self.unplugged = None;
            return Ok(());
        }
        if now < *self.unplugged.get_or_insert(now) + PLUG_PATIENCE {
            return Err(NotYet);
        }
        self.unplugged = None;
        self.prepared = false;
        Err(Hopeless("no tap"))
    }

    async fn spawn(&mut self) -> Result<(), Trouble> {
        let Some(spec) = self.spec.clone() else { return Err(NotYet) };
        if !std::mem::take(&mut self.prepared) {
            return Err(NotYet);
        }
        self.ctx.step(300 * MS).await;
        if self.with_guest(|guest| guest.is_some()) {
            // Its lock is held.
            return Err(NotYet);
        }
        // At the moment of the effect.
        self.may_begin()?;
        self.lock = false;
        let (fails, answers, listens) = {
            let chaos = self.ctx.w.chaos.borrow();
            let mut rng = self.ctx.w.rng.borrow_mut();
            (rng.percent(chaos.guest_trouble), rng.range(20 * MS, 2 * S), rng.percent(75))
        };
        let mut truth = self.ctx.w.truth.borrow_mut();
        let serial = truth.spawned(&self.ctx.w, self.node, self.id, &spec);
        drop(truth);
        let guest = Guest {
            serial,
            power: Power::Prelaunch,
            answers_at: self.now() + answers,
            listens,
            epoch: spec.placement_epoch,
            generation: spec.generation,
            since: self.now(),
        };
        self.ctx.w.nodes[self.node].state.borrow_mut().guests.insert(self.id, guest);
        if fails {
            let (w, node, id) = (Rc::clone(&self.ctx.w), self.node, self.id);
            let after = self.ctx.range(0, 3 * S);
            self.ctx.w.exec.spawn(self.ctx.w.nodes[node].kernel, async move {
                w.exec.sleep(after).await;
                w.vanish(node, id, serial);
            });
        }
        Ok(())
    }

    fn let_run(&self) -> Result<(), Trouble> {
        let serial = self.with_guest(|guest| {
            let guest = guest?;
            if guest.power == Power::Prelaunch {
                guest.power = Power::Running;
            }
            Some(guest.serial)
        });
        let Some(serial) = serial else { return Err(Wrong("it is gone")) };
        let (quits, after) = {
            let chaos = self.ctx.w.chaos.borrow();
            let mut rng = self.ctx.w.rng.borrow_mut();
            (rng.percent(chaos.guest_trouble), rng.range(S, 40 * S))
        };
        if quits {
            let what = self.ctx.range(0, 2);
            let (w, node, id) = (Rc::clone(&self.ctx.w), self.node, self.id);
            w.clone().guest_later(node, id, serial, after, move |guest| {
                if guest.power == Power::Running {
                    guest.power = if what == 0 { Power::Broken } else { Power::ShutDown };
                }
                w.note(|| format!("guest i-{} is {:?} by itself", id.as_u128() as u32, guest.power));
            });
        }
        Ok(())
    }

    fn press(&mut self) {
        self.pressed = Some(self.now());
        let Some((serial, listens)) = self.with_guest(|guest| guest.map(|g| (g.serial, g.listens))) else {
            return;
        };
        if listens {
            let after = self.ctx.range(100 * MS, 4 * S);
            self.ctx.w.guest_later(self.node, self.id, serial, after, |guest| {
                if guest.power == Power::Running {
                    guest.power = Power::ShutDown;
                }
            });
        }
    }

    async fn end(&mut self) -> Result<(), Trouble> {
        if self.with_guest(|guest| guest.is_none()) {
            self.lock = true;
            return Ok(());
        }
        if self.journal.is_none() {
            // Which process it is, only the journal knows.
            return Err(Wrong("its process cannot be found"));
        }
        self.ctx.step(800 * MS).await;
        let guest = self.ctx.w.nodes[self.node].state.borrow_mut().guests.remove(&self.id);
        if let Some(guest) = guest {
            let generation = self.spec.as_ref().map(|spec| spec.generation);
            let truth = self.ctx.w.truth.borrow();
            truth.ended(&self.ctx.w, self.node, self.id, &guest, generation, self.journal.as_ref());
        }
        self.lock = true;
        self.silent = None;
        Ok(())
    }

    async fn bury(&mut self, why: &'static str, hopeless: bool) -> Result<(), Trouble> {
        let clock = self.ctx.w.nodes[self.node].clock(self.now());
        let Some(journal) = &self.journal else { return Ok(()) };
        let next = journal.failed(why, hopeless, true, self.spec.as_ref(), clock);
        let last = next.phase == Phase::Failed { last: true };
        let pause = if last { LAST_PAUSE } else { (1 << next.failures.min(4)) * S / 2 };
        self.pause = Some(self.now() + pause);
        self.replace(next).await
    }
}

impl World {
    /// A QEMU is killed by somebody else.
    pub fn vanish(&self, node: usize, id: Uuid, serial: u64) {
        let mut state = self.nodes[node].state.borrow_mut();
        if state.guests.get(&id).is_some_and(|guest| guest.serial == serial) {
            state.guests.remove(&id);
            self.note(|| format!("QEMU of i-{} on node{node} vanishes", id.as_u128() as u32));
        }
    }
}
