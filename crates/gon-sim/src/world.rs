//! Everything there is, and how a process sees it.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use crate::bus::Broker;
use crate::check::Truth;
use crate::db::Postgres;
use crate::etcd::Etcd;
use crate::exec::{Exec, MS, ProcId, S, Time};
use crate::fault::Chaos;
use crate::machine::Machine;
use crate::net::{HostId, Net};
use crate::rng::Rng;
use crate::server::Server;

/// A defect planted in the simulated platform: the test of the test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bug {
    /// The agent compares generations only: documents of an older epoch are taken.
    EpochUnchecked,
    /// The agent compares epochs only: older generations are taken.
    GenerationUnchecked,
    /// Reports are taken without comparing generation and placement.
    ReportWithoutCompare,
    /// The agent's brake is gone.
    NoBrake,
    /// The journal is written after the process was started.
    JournalAfterSpawn,
    /// An agent that failed to write its journal believes that the disk holds what it held.
    TrustsFailedWrites,
    /// The relay removes outbox rows before they are published.
    OutboxDeletedFirst,
    /// The relay takes everything up to the highest number that it has seen for published.
    OutboxCursor,
    /// Placement looks at no capacity, and no CHECK refuses.
    NoCapacityCheck,
    /// Addresses do not rest.
    NoQuarantine,
    /// A node whose lease is gone is taken for dead: its instances are placed elsewhere.
    LeaseAsFence,
    /// The idempotency key is written in a transaction of its own, after the one it belongs to.
    KeyApart,
    /// Idempotency keys are not looked at: a request that comes twice is done twice.
    KeyIgnored,
    /// Every doorbell of an instance that is not running yet places it, also the second one.
    PlacedPerRing,
    /// The audit row is written in a transaction of its own.
    AuditApart,
    /// 2xx is said before the commit is on the disk.
    AckBeforeDurable,
    /// A controller's writes do not check that it still leads.
    NoLeaderFence,
    /// How long an instance waits for a node is read off the wall clock.
    WallClockPatience,
    /// A removal takes the journal away before it ends the guest and removes the files.
    JournalRemovedFirst,
    /// A tap has the same name in every placement of its instance.
    DeviceOfEveryPlacement,
    /// The network agent leaves the taps of what is gone, and reports what it was told.
    TapForgotten,
    /// Rows of a document are read without asking whether the reader still leads.
    UnfencedRead,
    /// Two may read rows and publish documents of them at once.
    NoTurn,
    /// The fence lets everything run much longer than agreed.
    FenceMargin,
    /// A grant counts from its answer.
    GrantFromAnswer,
    /// A grant of any epoch of the node is one.
    GrantOfAnyEpoch,
    /// A grant that was written before a reboot counts after it.
    GrantSurvivesReboot,
    /// A node that does not hear the answers gets grants all the same.
    GrantToTheDeaf,
    /// Nobody but the agent ends what must not run any longer.
    NoKeeper,
    /// The leader gives a node up after half a minute.
    MovesEarly,
}

/// What one run is made of.
#[derive(Debug, Clone)]
pub struct Config {
    /// Which run.
    pub seed: u64,
    /// The planted defect.
    pub bug: Option<Bug>,
    /// Which of the scheduled faults happen; `None`: all. For shrinking.
    pub only: Option<Vec<usize>>,
    /// Whether to keep a trace.
    pub trace: bool,
    /// Whether instances are recovered, and faults last long enough for that.
    pub recovery: bool,
}

/// Everything there is.
pub struct World {
    /// Time and tasks.
    pub exec: Rc<Exec>,
    /// What this run is.
    pub config: Config,
    /// Randomness of everything but the schedule.
    pub rng: RefCell<Rng>,
    /// The network.
    pub net: RefCell<Net>,
    /// PostgreSQL.
    pub db: RefCell<Postgres>,
    /// etcd.
    pub etcd: Etcd,
    /// The broker.
    pub bus: Broker,
    /// The servers.
    pub servers: Vec<Server>,
    /// The nodes.
    pub nodes: Vec<Machine>,
    /// What goes wrong at the moment.
    pub chaos: RefCell<Chaos>,
    /// What is known by looking from outside: what invariants are held against.
    pub truth: RefCell<Truth>,
    /// The process of messages under way and of what is not part of the platform.
    pub ether: ProcId,
    /// The users' process.
    pub users: ProcId,
    /// What happened, if it is kept.
    pub trace: RefCell<Vec<String>>,
    /// The first invariant that was broken.
    pub broken: RefCell<Option<String>>,
}

impl World {
    /// Notes what happened.
    pub fn note(&self, what: impl FnOnce() -> String) {
        if self.config.trace {
            let now = self.exec.now();
            self.trace.borrow_mut().push(format!("{:>4}.{:06} {}", now / S, now % S, what()));
        }
    }
    /// An invariant is broken: the run ends.
    pub fn fail(&self, what: fmt::Arguments<'_>) {
        self.note(|| format!("BROKEN {what}"));
        let mut broken = self.broken.borrow_mut();
        if broken.is_none() {
            *broken = Some(what.to_string());
        }
    }
    /// Whether this defect is planted.
    pub fn has(&self, bug: Bug) -> bool {
        self.config.bug == Some(bug)
    }
    /// Ends a process where it stands; it is started again after a while.
    pub fn crash(self: &Rc<Self>, victim: &Ctx, back_after: Time) {
        if self.exec.life(victim.proc).is_none() {
            return;
        }
        self.note(|| format!("CRASH {}", victim.name));
        self.exec.kill(victim.proc);
        self.db.borrow_mut().connections_of(victim.proc);
        let (w, victim) = (Rc::clone(self), victim.clone());
        self.exec.spawn(self.ether, async move {
            w.exec.sleep(back_after).await;
            victim.boot();
        });
    }
}

/// Which program a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// An API server.
    Api(usize),
    /// An instance manager.
    Compute(usize),
    /// A network controller.
    Network(usize),
    /// A hypervisor agent.
    Hypervisor(usize),
    /// A network agent.
    Wires(usize),
    /// Whatever is not ours: users, guests.
    Other,
}

/// A process as it sees the world.
#[derive(Clone)]
pub struct Ctx {
    /// The world.
    pub w: Rc<World>,
    /// Its process.
    pub proc: ProcId,
    /// Its host.
    pub host: HostId,
    /// What it runs.
    pub program: Program,
    /// Its name in traces.
    pub name: Rc<str>,
}

impl Ctx {
    /// Waits.
    pub fn sleep(&self, time: Time) -> impl Future<Output = ()> + use<> {
        self.w.exec.sleep(time)
    }
    /// A number.
    pub fn range(&self, from: Time, to: Time) -> Time {
        self.w.rng.borrow_mut().range(from, to)
    }
    /// True so often.
    pub fn percent(&self, parts: u64) -> bool {
        self.w.rng.borrow_mut().percent(parts)
    }
    /// One more task of this process.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.w.exec.spawn(self.proc, task);
    }
    /// Notes what happened.
    pub fn note(&self, what: impl FnOnce() -> String) {
        self.w.note(|| format!("{} {}", self.name, what()));
    }
    /// A place where this process may die.
    pub async fn point(&self) {
        let dies = {
            let chaos = self.w.chaos.borrow();
            chaos.crash_ppm > 0 && self.w.rng.borrow_mut().ppm(chaos.crash_ppm)
        };
        if dies {
            let back = self.range(50 * MS, 5 * S);
            self.w.crash(self, back);
            // Never polled again.
            std::future::pending::<()>().await;
        }
    }
    /// This process is stopped within `soon`, for up to two minutes.
    pub fn stall(&self, soon: Time) {
        let (at, lasts) = (self.range(1, soon), self.range(S, 120 * S));
        let (w, proc, name) = (Rc::clone(&self.w), self.proc, Rc::clone(&self.name));
        self.w.exec.spawn(self.w.ether, async move {
            w.exec.sleep(at).await;
            w.note(|| format!("{name} is STOPPED for {} s", lasts / S));
            w.exec.set_stopped(proc, true);
            w.exec.sleep(lasts).await;
            w.exec.set_stopped(proc, false);
        });
    }
    /// Something that takes a little time, before and after which this process may die.
    pub async fn step(&self, longest: Time) {
        self.point().await;
        let time = self.range(1, longest.max(1));
        self.sleep(time).await;
        self.point().await;
    }
    /// Starts the process, unless it lives or its host is down.
    pub fn boot(&self) {
        if let Program::Hypervisor(node) | Program::Wires(node) = self.program
            && !self.w.nodes[node].state.borrow().up
        {
            return;
        }
        if self.w.exec.life(self.proc).is_some() {
            return;
        }
        self.w.exec.start(self.proc);
        self.note(|| "starts".to_owned());
        match self.program {
            Program::Api(server) => crate::api::boot(self, server),
            Program::Compute(server) => crate::compute::boot(self, server),
            Program::Network(server) => crate::network::boot(self, server),
            Program::Hypervisor(node) => crate::hypervisor::boot(self, node),
            Program::Wires(node) => crate::wires::boot(self, node),
            Program::Other => {}
        }
    }
}
