//! What goes wrong: a schedule drawn from the seed, and what it does.
//!
//! Every run draws its own few kinds of faults and how often they come: a run in which everything fails at once finds
//! less than many in which a few things fail often.

use std::fmt;
use std::rc::Rc;

use crate::exec::{MS, S, Time};
use crate::net::{BUS, DB, ETCD, HostId, SERVERS};
use crate::rng::Rng;
use crate::tables::{COMPUTE, NETWORK};
use crate::world::World;

/// How likely things go wrong at the moment.
#[derive(Debug, Clone, Default)]
pub struct Chaos {
    /// A process dies at a step, per million.
    pub crash_ppm: u64,
    /// A transaction is rolled back by an accident, per million.
    pub sql_abort_ppm: u64,
    /// Its outcome is not told, per million.
    pub sql_unknown_ppm: u64,
    /// A transaction commits long after others that drew later numbers, percent.
    pub late_commits: u64,
    /// What PostgreSQL answers is under way for seconds, percent.
    pub sql_slow: u64,
    /// A doorbell is lost, percent.
    pub bus_loss: u64,
    /// A doorbell comes three times, percent.
    pub bus_repeat: u64,
    /// A doorbell is late, percent.
    pub bus_delay: u64,
    /// A guest does something by itself, percent.
    pub guest_trouble: u64,
    /// A document is published that asks to end what should run, percent.
    pub false_documents: u64,
    /// An old document is served, percent.
    pub old_documents: u64,
    /// A hypervisor agent is stopped while it asks for a grant, per million.
    pub stall_ppm: u64,
}

/// A fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// A process (by its place among all) dies and comes back.
    Crash(usize, Time),
    /// A process is stopped and goes on.
    Stop(usize, Time),
    /// A node loses its power.
    PowerLoss(usize, Time),
    /// PostgreSQL dies and comes back.
    Postgres(Time),
    /// The broker goes away and comes back.
    Broker(Time),
    /// etcd has no quorum for a while.
    Quorum(Time),
    /// etcd forgets everything.
    Wipe,
    /// A leader's lease is lost.
    Depose(usize),
    /// The way from one host to another is cut.
    Cut(HostId, HostId, Time),
    /// A host is cut off from all others.
    Isolate(HostId, Time),
    /// A host says what nobody hears.
    Mute(HostId, Time),
    /// A host does not hear what it is told.
    Deaf(HostId, Time),
    /// A node's disk fails.
    DiskFails(usize, Time),
    /// A node's disk takes seconds.
    DiskCrawls(usize, Time),
    /// A server's wall clock jumps by so many seconds.
    ClockJumps(usize, i64),
    /// A QEMU is killed by somebody else.
    Vanish(usize),
    /// An operator empties a node for a while; what runs may be stopped for that, or not.
    Drain(usize, bool, Time),
}

/// A fault and when.
#[derive(Clone, PartialEq, Eq)]
pub struct Scheduled(pub Time, pub Fault);

impl fmt::Debug for Scheduled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03} s {:?}", self.0 / S, self.0 % S / MS, self.1)
    }
}

/// What a run will suffer.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Faults in order of time.
    pub faults: Vec<Scheduled>,
    /// Until the end of the trouble.
    pub chaos: Chaos,
    /// Delays of the network.
    pub slowest: Time,
    /// Messages that come much later, per million.
    pub ghosts_ppm: u64,
    /// When the trouble ends.
    pub until: Time,
    /// A node that is lost for long once everything else is well again.
    pub lasting: Option<Fault>,
}

/// Draws the faults of a run with so many servers and nodes.
#[must_use]
pub fn draw(rng: &mut Rng, servers: usize, nodes: usize) -> Plan {
    let until = rng.range(25, 60) * S;
    let processes = servers * 3 + nodes * 2;
    let hosts = SERVERS + servers + nodes;
    // Which kinds this run has.
    let kinds: Vec<u64> = (0..15).filter(|_| rng.percent(35)).collect();
    let count = if kinds.is_empty() { 0 } else { rng.range(0, 14) };
    let mut faults: Vec<Scheduled> = (0..count)
        .filter_map(|_| {
            let at = rng.range(S, until);
            let short = rng.range(100 * MS, 8 * S);
            let long = rng.range(S, 35 * S);
            let one = |rng: &mut Rng, of: usize| rng.below(of as u64) as usize;
            let node_host = |rng: &mut Rng| SERVERS + rng.below((servers + nodes) as u64) as usize;
            Some(Scheduled(
                at,
                match rng.pick(&kinds)? {
                    0 => Fault::Crash(one(rng, processes), short),
                    1 => Fault::Stop(one(rng, processes), long),
                    2 => Fault::PowerLoss(one(rng, nodes), short),
                    3 => Fault::Postgres(short),
                    4 => Fault::Broker(long),
                    5 => Fault::Quorum(long),
                    6 => Fault::Wipe,
                    7 => Fault::Depose(if rng.percent(50) { COMPUTE } else { NETWORK }),
                    8 => {
                        let from = node_host(rng);
                        let to = [DB, ETCD, BUS, node_host(rng), node_host(rng)][one(rng, 5)];
                        let (from, to) = if rng.percent(50) { (from, to) } else { (to, from) };
                        Fault::Cut(from, to, long)
                    }
                    9 => Fault::Isolate(rng.range(DB as u64, hosts as u64 - 1) as usize, long),
                    10 => Fault::DiskFails(one(rng, nodes), short),
                    11 => Fault::DiskCrawls(one(rng, nodes), long),
                    12 => Fault::ClockJumps(one(rng, servers), [3600, -600, 315_360_000, -3600][one(rng, 4)]),
                    13 => Fault::Vanish(one(rng, nodes)),
                    _ => Fault::Drain(one(rng, nodes), rng.percent(50), long),
                },
            ))
        })
        .collect();
    faults.sort_by_key(|f| f.0);
    let mut sometimes = |percent: u64, most: u64| if rng.percent(percent) { rng.range(1, most) } else { 0 };
    let chaos = Chaos {
        crash_ppm: sometimes(35, 4_000),
        sql_abort_ppm: sometimes(30, 40_000),
        sql_unknown_ppm: sometimes(30, 60_000),
        late_commits: sometimes(30, 40),
        sql_slow: sometimes(25, 8),
        bus_loss: sometimes(40, 100),
        bus_repeat: sometimes(30, 60),
        bus_delay: sometimes(30, 40),
        guest_trouble: sometimes(40, 25),
        false_documents: sometimes(20, 25),
        old_documents: sometimes(20, 25),
        stall_ppm: 0,
    };
    let ghosts_ppm = sometimes(30, 30_000);
    let slowest = [2 * MS, 2 * MS, 20 * MS, 300 * MS][rng.below(4) as usize];
    Plan { faults, chaos, slowest, ghosts_ppm, until, lasting: None }
}

/// How long a node is lost for, when it is lost for long.
pub const LASTS: Time = 300 * S;

/// Draws the faults of a run in which nodes are lost for so long that their instances are recovered.
#[must_use]
pub fn draw_losses(rng: &mut Rng, servers: usize, nodes: usize) -> Plan {
    let until = rng.range(150, 400) * S;
    let processes = servers * 3 + nodes * 2;
    let node_host = |n: usize| SERVERS + servers + n;
    let kinds: Vec<u64> = (0..11).filter(|_| rng.percent(40)).collect();
    let mut faults = Vec::new();
    for _ in 0..if kinds.is_empty() { 0 } else { rng.range(0, 7) } {
        let at = rng.range(20 * S, until);
        let node = rng.below(nodes as u64) as usize;
        let (host, server) = (node_host(node), rng.below(servers as u64) as usize);
        let (short, long) = (rng.range(100 * MS, 20 * S), rng.range(20 * S, 250 * S));
        let pause = rng.range(S, 120 * S);
        let mut add = |at: Time, fault: Fault| faults.push(Scheduled(at, fault));
        match rng.pick(&kinds).copied().unwrap_or(0) {
            0 => add(at, Fault::Isolate(host, long)),
            1 => add(at, Fault::Mute(host, long)),
            2 => add(at, Fault::Deaf(host, long)),
            3 => {
                // It comes and goes.
                let mut at = at;
                for _ in 0..rng.range(2, 8) {
                    let (away, back) = (rng.range(S, 100 * S), rng.range(100 * MS, 20 * S));
                    add(
                        at,
                        if rng.percent(50) { Fault::Isolate(host, away) } else { Fault::Deaf(host, away) },
                    );
                    at += away + back;
                }
            }
            4 => add(at, Fault::Stop(servers * 3 + node * 2, pause)),
            5 => add(at, Fault::Stop(server * 3 + 1, pause)),
            6 => add(at, Fault::PowerLoss(node, [short, long][rng.below(2) as usize])),
            7 => {
                // It starts again while nobody is there.
                add(at, Fault::Isolate(host, long));
                add(at + rng.range(0, long), Fault::PowerLoss(node, short));
            }
            8 => add(at, Fault::Crash(rng.below(processes as u64) as usize, short)),
            9 => add(at, Fault::Cut(host, SERVERS + server, long)),
            _ => add(
                at,
                [Fault::Postgres(short), Fault::Quorum(long), Fault::Depose(COMPUTE), Fault::Broker(long)]
                    [rng.below(4) as usize]
                    .clone(),
            ),
        }
    }
    faults.sort_by_key(|f| f.0);
    let mut sometimes = |percent: u64, most: u64| if rng.percent(percent) { rng.range(1, most) } else { 0 };
    let chaos = Chaos {
        crash_ppm: sometimes(20, 500),
        sql_unknown_ppm: sometimes(20, 20_000),
        sql_slow: sometimes(20, 5),
        bus_loss: sometimes(20, 50),
        guest_trouble: sometimes(20, 10),
        old_documents: sometimes(20, 25),
        stall_ppm: sometimes(40, 20_000),
        ..Chaos::default()
    };
    let ghosts_ppm = sometimes(30, 30_000);
    let slowest = [2 * MS, 20 * MS, 300 * MS][rng.below(3) as usize];
    let lost = rng.below(nodes as u64) as usize;
    let lasting = match rng.below(5) {
        0 => Some(Fault::Isolate(node_host(lost), LASTS)),
        1 => Some(Fault::Mute(node_host(lost), LASTS)),
        2 => Some(Fault::Deaf(node_host(lost), LASTS)),
        3 => Some(Fault::PowerLoss(lost, LASTS)),
        _ => None,
    };
    Plan { faults, chaos, slowest, ghosts_ppm, until, lasting }
}

impl World {
    /// Does a fault, and ends it in time.
    pub fn strike(self: &Rc<Self>, fault: &Fault) {
        self.note(|| format!("FAULT {fault:?}"));
        let later = |after: Time, what: fn(&Rc<World>, &Fault)| {
            let (w, fault) = (Rc::clone(self), fault.clone());
            self.exec.spawn(self.ether, async move {
                w.exec.sleep(after).await;
                w.note(|| format!("END OF {fault:?}"));
                what(&w, &fault);
            });
        };
        match fault {
            Fault::Crash(process, back) => self.crash(&self.processes()[*process], *back),
            Fault::Stop(process, time) => {
                self.exec.set_stopped(self.processes()[*process].proc, true);
                later(*time, |w, fault| {
                    if let Fault::Stop(process, _) = fault {
                        w.exec.set_stopped(w.processes()[*process].proc, false);
                    }
                });
            }
            Fault::PowerLoss(node, back) => self.power_loss(*node, *back),
            Fault::Postgres(time) => {
                self.db.borrow_mut().crash();
                later(*time, |w, _| w.db.borrow_mut().up = true);
            }
            Fault::Broker(time) => {
                self.bus.down.set(true);
                later(*time, |w, _| {
                    w.bus.down.set(false);
                    w.bus.restarted();
                });
            }
            Fault::Quorum(time) => {
                self.etcd.set_quorum(true, self.exec.now());
                later(*time, |w, _| w.etcd.set_quorum(false, w.exec.now()));
            }
            Fault::Wipe => self.etcd.wipe(),
            Fault::Depose(role) => self.etcd.depose(*role),
            Fault::Cut(from, to, time) => {
                self.net.borrow_mut().cut(*from, *to, true);
                later(*time, |w, fault| {
                    if let Fault::Cut(from, to, _) = fault {
                        w.net.borrow_mut().cut(*from, *to, false);
                    }
                });
            }
            Fault::Isolate(host, time) => {
                self.isolate(*host, true);
                later(*time, |w, fault| {
                    if let Fault::Isolate(host, _) = fault {
                        w.isolate(*host, false);
                    }
                });
            }
            Fault::Mute(host, time) | Fault::Deaf(host, time) => {
                self.half(*host, matches!(fault, Fault::Mute(..)), true);
                later(*time, |w, fault| {
                    if let Fault::Mute(host, _) | Fault::Deaf(host, _) = fault {
                        w.half(*host, matches!(fault, Fault::Mute(..)), false);
                    }
                });
            }
            Fault::DiskFails(node, time) => {
                self.nodes[*node].state.borrow_mut().disk_fails += 1;
                later(*time, |w, fault| {
                    if let Fault::DiskFails(node, _) = fault {
                        w.nodes[*node].state.borrow_mut().disk_fails -= 1;
                    }
                });
            }
            Fault::DiskCrawls(node, time) => {
                self.nodes[*node].state.borrow_mut().disk_crawls += 1;
                later(*time, |w, fault| {
                    if let Fault::DiskCrawls(node, _) = fault {
                        w.nodes[*node].state.borrow_mut().disk_crawls -= 1;
                    }
                });
            }
            Fault::ClockJumps(server, by) => {
                let clock = &self.servers[*server].wall_clock_off;
                clock.set(clock.get() + by);
            }
            Fault::Drain(node, may_stop, time) => {
                Rc::make_mut(&mut self.db.borrow_mut().tables.nodes)[*node].draining = Some(*may_stop);
                later(*time, |w, fault| {
                    if let Fault::Drain(node, ..) = fault {
                        Rc::make_mut(&mut w.db.borrow_mut().tables.nodes)[*node].draining = None;
                    }
                });
            }
            Fault::Vanish(node) => {
                let victim = {
                    let state = self.nodes[*node].state.borrow();
                    let all: Vec<_> = state.guests.iter().map(|(id, g)| (*id, g.serial)).collect();
                    self.rng.borrow_mut().pick(&all).copied()
                };
                if let Some((id, serial)) = victim {
                    self.vanish(*node, id, serial);
                }
            }
        }
    }

    /// Cuts the ways out of a host, or those into it.
    fn half(&self, host: HostId, out: bool, cut: bool) {
        let mut net = self.net.borrow_mut();
        for other in (0..net.hosts()).filter(|other| *other != host) {
            let (from, to) = if out { (host, other) } else { (other, host) };
            net.cut(from, to, cut);
        }
    }

    fn isolate(&self, host: HostId, cut: bool) {
        let mut net = self.net.borrow_mut();
        for other in 0..net.hosts() {
            if other != host {
                net.cut(host, other, cut);
                net.cut(other, host, cut);
            }
        }
    }
}
