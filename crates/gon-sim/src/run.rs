//! One run: a world, its faults, and how it ended.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use gon_types::id::NodeId;
use uuid::Uuid;

use crate::bus::Broker;
use crate::check;
use crate::db::Postgres;
use crate::etcd::Etcd;
use crate::exec::{Bell, Exec, MS, S, Time};
use crate::fault::{self, Chaos, Fault, Scheduled};
use crate::machine::{Machine, State};
use crate::net::{Net, SERVERS, USERS};
use crate::rng::Rng;
use crate::server::{Controller, Documents, Manager, Server};
use crate::tables::{NodeRow, PublicIp, Tables};
use crate::user::{self, History, Load};
use crate::world::{Bug, Config, Ctx, Program, World};

/// How long everything may take to become what it should be once the trouble has ended: the longest pause after failed
/// starts and the longest silent poll, twice, and some.
const PATIENCE: Time = 240 * S;

/// How a run ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Which run.
    pub seed: u64,
    /// The invariant that was broken.
    pub broken: Option<String>,
    /// The faults that happened.
    pub faults: Vec<Scheduled>,
    /// How often they happened at all.
    pub chaos: Chaos,
    /// Events.
    pub events: u64,
    /// Transactions that changed something.
    pub commits: u64,
    /// Requests of users.
    pub requests: usize,
    /// Guests that were started.
    pub spawns: u64,
    /// Instances that were taken from a lost node.
    pub recovered: u64,
    /// From the end of the trouble until everything was as it should be.
    pub settled_in: Time,
    /// A digest of everything that happened, and when: two runs that are the same have the same.
    pub digest: u64,
    /// What happened, if that was asked for.
    pub trace: Vec<String>,
}

fn tables(rng: &mut Rng, nodes: usize, vpcs: u64, roomy: bool, bug: Option<Bug>) -> Tables {
    let node = |n: usize| NodeRow {
        id: NodeId::from_uuid(Uuid::from_u128((4 << 120) + n as u128)),
        joined: false,
        epoch: 1,
        grant: 0,
        draining: None,
        capacity: if roomy { [64, 65_536, 500] } else { [6, 5_120, 40] },
        used: [0; 3],
        last_report_at: 0,
        last_port_no: 0,
        last_uid: 0,
    };
    let addresses = rng.range(2, 12);
    Tables {
        instances: Rc::default(),
        nodes: Rc::new((0..nodes).map(node).collect()),
        outbox: Rc::default(),
        next_seq: 0,
        drawn: 0..0,
        audit: Rc::default(),
        keys: Rc::default(),
        public: Rc::new((0..addresses).map(|_| PublicIp { nic: None, rests_until: 0 }).collect()),
        vpcs: Rc::new(vec![1; vpcs as usize]),
        applied: Rc::default(),
        epochs: [0; 2],
        remains: Rc::default(),
        recovers: false,
        unchecked_capacity: bug == Some(Bug::NoCapacityCheck),
    }
}

fn world(config: &Config, plan: &fault::Plan, nodes: usize, tables: Tables) -> Rc<World> {
    let exec: Rc<Exec> = Rc::default();
    let servers = 2;
    let proc = || exec.new_proc();
    let server = |n: usize| Server {
        host: SERVERS + n,
        api: proc(),
        compute: proc(),
        network: proc(),
        manager: RefCell::new(Manager {
            documents: Documents::new(&exec),
            leads: None,
            reports: BTreeMap::new(),
            waiting: Rc::default(),
            eyes: Default::default(),
        }),
        controller: RefCell::new(Controller {
            documents: Documents::new(&exec),
            leads: None,
            memory: BTreeMap::new(),
            reports: BTreeMap::new(),
        }),
        wall_clock_off: Cell::new(0),
        nudge: Bell::new(&exec),
    };
    let machine = |n: usize| Machine {
        id: tables.nodes[n].id,
        host: SERVERS + servers + n,
        hypervisor: proc(),
        wires: proc(),
        kernel: proc(),
        state: RefCell::new(State::default()),
    };
    let mut net = Net::new(SERVERS + servers + nodes);
    (net.slowest, net.ghosts_ppm) = (plan.slowest, plan.ghosts_ppm);
    let servers: Vec<Server> = (0..servers).map(server).collect();
    let nodes: Vec<Machine> = (0..nodes).map(machine).collect();
    let (ether, users) = (proc(), proc());
    Rc::new(World {
        config: config.clone(),
        rng: RefCell::new(Rng::new(config.seed, 2)),
        net: RefCell::new(net),
        db: RefCell::new(Postgres::new(tables)),
        etcd: Etcd::default(),
        bus: Broker::default(),
        servers,
        nodes,
        chaos: RefCell::new(plan.chaos.clone()),
        truth: RefCell::default(),
        ether,
        users,
        trace: RefCell::default(),
        broken: RefCell::default(),
        exec,
    })
}

/// Runs a seed.
#[must_use]
pub fn run(config: &Config) -> Outcome {
    // The schedule has randomness of its own: leaving faults out changes nothing else of it.
    let mut rng = Rng::new(config.seed, 1);
    let nodes = rng.range(if config.recovery { 2 } else { 1 }, 5) as usize;
    let draw = if config.recovery { fault::draw_losses } else { fault::draw };
    let mut plan = draw(&mut rng, 2, nodes);
    if let Some(only) = &config.only {
        let all = std::mem::take(&mut plan.faults).into_iter().enumerate();
        plan.faults = all.filter(|(n, _)| only.contains(n)).map(|(_, fault)| fault).collect();
    }
    let load = Load {
        instances: rng.range(3, 16) as usize,
        pause: [S, 3 * S, 8 * S][rng.below(3) as usize],
        until: plan.until,
        vpcs: rng.range(1, 3),
    };
    // Whoever is to be recovered needs room elsewhere.
    let roomy = rng.percent(70) || plan.lasting.is_some();
    let mut tables = tables(&mut rng, nodes, load.vpcs, roomy, config.bug);
    tables.recovers = config.recovery;
    let w = world(config, &plan, nodes, tables);
    let exec = &w.exec;
    exec.start(w.ether);
    exec.start(w.users);
    w.note(|| format!("{nodes} nodes, {load:?}, {:?}", plan.chaos));
    for process in w.processes() {
        if !matches!(process.program, Program::Hypervisor(_) | Program::Wires(_)) {
            process.boot();
        }
    }
    for node in 0..nodes {
        w.power_on(node);
    }
    let history: Rc<History> = Rc::default();
    for n in 0..rng.range(1, 4) {
        let user = Ctx {
            w: Rc::clone(&w),
            proc: w.users,
            host: USERS,
            program: Program::Other,
            name: format!("user{n}").into(),
        };
        exec.spawn(w.users, user::run(user, Rc::clone(&history), load));
    }
    let mut quiet_at = suffer(&w, &plan);
    if let Some(fault) = &plan.lasting {
        quiet_at = lose(&w, quiet_at + 40 * S, fault);
    }
    let settled_in = settle(&w, quiet_at);
    if w.broken.borrow().is_none()
        && let Err(why) = user::kept(&w.db.borrow().tables, &history)
    {
        w.fail(format_args!("{why}"));
    }
    let outcome = Outcome {
        seed: config.seed,
        broken: w.broken.borrow().clone(),
        faults: plan.faults,
        chaos: plan.chaos,
        events: exec.polls(),
        commits: w.truth.borrow().commits,
        requests: history.0.borrow().len(),
        spawns: w.truth.borrow().spawns,
        recovered: w.truth.borrow().recovered,
        settled_in,
        digest: exec.digest(),
        trace: w.trace.take(),
    };
    exec.clear();
    outcome
}

/// Lives through the faults; when the last of them has ended.
fn suffer(w: &Rc<World>, plan: &fault::Plan) -> Time {
    let broken = || w.broken.borrow().is_some();
    let mut quiet_at = plan.until;
    for Scheduled(at, fault) in &plan.faults {
        if !w.exec.run_until(*at, broken) {
            return *at;
        }
        w.strike(fault);
        let lasts = match fault {
            Fault::Crash(_, t)
            | Fault::Stop(_, t)
            | Fault::PowerLoss(_, t)
            | Fault::Postgres(t)
            | Fault::Broker(t)
            | Fault::Quorum(t)
            | Fault::Cut(_, _, t)
            | Fault::Isolate(_, t)
            | Fault::Mute(_, t)
            | Fault::Deaf(_, t)
            | Fault::DiskFails(_, t)
            | Fault::DiskCrawls(_, t)
            | Fault::Drain(_, _, t) => *t,
            Fault::Wipe | Fault::Depose(_) | Fault::ClockJumps(..) | Fault::Vanish(_) => 0,
        };
        quiet_at = quiet_at.max(at + lasts);
    }
    w.exec.run_until(plan.until, broken);
    *w.chaos.borrow_mut() = Chaos::default();
    {
        let mut net = w.net.borrow_mut();
        (net.slowest, net.ghosts_ppm) = (2 * MS, 0);
    }
    w.note(|| "the trouble ends".to_owned());
    w.exec.run_until(quiet_at, broken);
    quiet_at
}

/// From the loss of a node, what is recovered must run elsewhere within this time.
const RECOVERED: Time = 180 * S;

/// Loses a node for long, in a world that is well otherwise; when that has ended.
fn lose(w: &Rc<World>, at: Time, fault: &Fault) -> Time {
    let broken = || w.broken.borrow().is_some();
    if !w.exec.run_until(at, broken) {
        return at;
    }
    let first = w.nodes[0].host;
    let (Fault::Isolate(host, lasts) | Fault::Mute(host, lasts) | Fault::Deaf(host, lasts)) = *fault else {
        let Fault::PowerLoss(node, lasts) = *fault else { return at };
        return lose_node(w, at, fault, node, lasts);
    };
    lose_node(w, at, fault, host - first, lasts)
}

fn lose_node(w: &Rc<World>, at: Time, fault: &Fault, node: usize, lasts: Time) -> Time {
    let broken = || w.broken.borrow().is_some();
    let wanted = |row: &&crate::tables::Row| {
        gon_core::recovery::is_recovered(row.auto_recover, row.state, row.power, row.leaving)
    };
    let ids: Vec<Uuid> = {
        let db = w.db.borrow();
        let here = db.tables.instances.iter().filter(|row| row.node == Some(node));
        here.filter(wanted).map(|row| row.id).collect()
    };
    w.strike(fault);
    if w.exec.run_until(at + RECOVERED, broken) {
        let db = w.db.borrow();
        for row in ids.iter().filter_map(|id| db.tables.find(*id)).filter(wanted) {
            let runs = row.node.filter(|n| *n != node).is_some_and(|n| {
                let state = w.nodes[n].state.borrow();
                state.guests.get(&row.id).is_some_and(|guest| guest.power == crate::machine::Power::Running)
            });
            if !runs || row.state != gon_types::InstanceState::Running {
                w.fail(format_args!(
                    "i-{} was on node{node}, which is lost for {} s, and is {:?} on {:?}",
                    row.id.as_u128() as u32,
                    RECOVERED / S,
                    row.state,
                    row.node
                ));
            }
        }
    }
    w.exec.run_until(at + lasts, broken);
    at + lasts
}

/// Waits until everything is as it should be, and a while longer: it must stay so.
fn settle(w: &Rc<World>, quiet_at: Time) -> Time {
    let broken = || w.broken.borrow().is_some();
    let mut at = quiet_at;
    let why = loop {
        if !w.exec.run_until(at, broken) {
            return 0;
        }
        match check::settled(w) {
            Ok(()) => break None,
            Err(why) if at > quiet_at + PATIENCE => break Some(why),
            Err(_) => at += S / 2,
        }
    };
    if let Some(why) = why {
        w.fail(format_args!("not settled {} s after the last fault: {why}", PATIENCE / S));
    } else if w.exec.run_until(at + 40 * S, broken)
        && let Err(why) = check::settled(w)
    {
        w.fail(format_args!("settled, and no longer: {why}"));
    }
    at - quiet_at
}

/// Leaves out faults for as long as the run still breaks the same way: the shortest schedule found, with its trace.
#[must_use]
pub fn shrink(config: &Config) -> Outcome {
    let all = run(&Config { only: None, trace: false, ..config.clone() });
    let kind = |outcome: &Outcome| {
        // The same invariant, whatever the numbers.
        let text = outcome.broken.clone().unwrap_or_default();
        text.chars().filter(|c| !c.is_ascii_digit()).take(24).collect::<String>()
    };
    let wanted = kind(&all);
    let mut only: Vec<usize> = (0..all.faults.len()).collect();
    let mut at = 0;
    while at < only.len() {
        let mut fewer = only.clone();
        fewer.remove(at);
        let tried = run(&Config { only: Some(fewer.clone()), trace: false, ..config.clone() });
        if tried.broken.is_some() && kind(&tried) == wanted {
            only = fewer;
        } else {
            at += 1;
        }
    }
    run(&Config { only: Some(only), trace: true, ..config.clone() })
}
