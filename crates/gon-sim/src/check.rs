//! What an observer who sees everything knows, and what must hold at every moment.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use gon_agent::hypervisor::journal::{Journal, Phase};
use gon_control::compute::place;
use gon_core::instance::Power as Wanted;
use gon_core::placement::{Candidate, choose};
use gon_proto::{InstanceSpec, NodeCompute};
use gon_types::{DocumentVersion, InstanceState as State};
use uuid::Uuid;

use crate::compute::PATIENCE;
use crate::exec::Time;
use crate::machine::{Guest, NetworkDocument, Port, Power};
use crate::rows;
use crate::tables::{ADDRESS_RESTS, Doorbell, Row, Tables};
use crate::world::World;

/// What one generation of an instance asks for: power, reboots, force, node, placement.
type Spec = (Wanted, i64, bool, Option<usize>, i64, bool);

/// The observer.
#[derive(Default)]
pub struct Truth {
    /// Guests started so far.
    pub spawns: u64,
    /// Transactions that changed something.
    pub commits: u64,
    /// Instances that were taken from a lost node.
    pub recovered: u64,
    /// Documents published, by node: for whatever serves old ones.
    pub old_documents: Vec<(usize, Rc<NodeCompute>)>,
    /// The best document each node has written down.
    compute: BTreeMap<usize, DocumentVersion>,
    network: BTreeMap<usize, DocumentVersion>,
    /// The highest generation of a VPC that a node has written down.
    written: BTreeMap<(usize, usize), i64>,
    /// What every generation of every instance was.
    history: HashMap<(Uuid, i64), Spec>,
    /// The highest generation of an instance that a node has written down.
    seen: HashMap<Uuid, u64>,
    /// The highest placement a guest was started for.
    started: HashMap<Uuid, u64>,
    /// When rows of the outbox came, and when a doorbell was last published.
    rung: BTreeMap<u64, Time>,
    bells: BTreeMap<Doorbell, Time>,
}

fn short(id: Uuid) -> String {
    format!("i-{}", id.as_u128() as u32)
}

impl Truth {
    /// The broker has a doorbell.
    pub fn published(&mut self, bell: Doorbell) {
        // Later than whatever was committed before.
        let last = self.rung.values().copied().max().unwrap_or(0);
        self.bells.insert(bell, last);
    }

    /// A transaction was committed.
    pub fn committed(&mut self, w: &World, before: &Tables, after: &Tables, now: Time) {
        self.commits += 1;
        if !Rc::ptr_eq(&before.outbox, &after.outbox) {
            self.outbox(w, before, after, now);
        }
        if !Rc::ptr_eq(&before.public, &after.public) {
            for (old, new) in before.public.iter().zip(after.public.iter()) {
                if new.nic.is_some() && old.nic != new.nic && (old.nic.is_some() || old.rests_until > now) {
                    w.fail(format_args!("a public address changed hands before it had rested"));
                }
            }
        }
        if !Rc::ptr_eq(&before.applied, &after.applied) {
            for (at, generation) in after.applied.iter() {
                let (vpc, node) = at;
                if before.applied.get(at).is_some_and(|held| held > generation) {
                    w.fail(format_args!("VPC {vpc} on node{node} went back to generation {generation}"));
                }
                if self.written.get(at).is_none_or(|written| written < generation) {
                    w.fail(format_args!("node{node} is said to have VPC {vpc} at {generation}, and has not"));
                }
            }
        }
        if Rc::ptr_eq(&before.instances, &after.instances) {
            return;
        }
        for (at, row) in after.instances.iter().enumerate() {
            match before.instances.get(at) {
                Some(old) if old == row => {}
                Some(old) => self.changed(w, after, old, row),
                None => {
                    self.remember(w, row);
                    self.made(w, before, after, row, now);
                }
            }
        }
        for (n, node) in after.nodes.iter().enumerate() {
            let mut used = [0; 3];
            for row in after.instances.iter().filter(|r| r.node == Some(n)) {
                for (used, need) in used.iter_mut().zip(row.needs) {
                    *used += need;
                }
            }
            if used != node.used {
                w.fail(format_args!("node{n} has lent {used:?} and books {:?}", node.used));
            }
            if used.iter().zip(node.capacity).any(|(used, capacity)| *used > capacity) {
                w.fail(format_args!("node{n} has lent {used:?} of {:?}", node.capacity));
            }
        }
    }

    fn outbox(&mut self, w: &World, before: &Tables, after: &Tables, now: Time) {
        for seq in after.outbox.keys().filter(|seq| !before.outbox.contains_key(seq)) {
            self.rung.insert(*seq, now);
        }
        for (seq, bell) in before.outbox.iter().filter(|(seq, _)| !after.outbox.contains_key(seq)) {
            let came = self.rung.remove(seq).unwrap_or(0);
            if self.bells.get(bell).is_none_or(|at| *at < came) {
                w.fail(format_args!("{bell:?} left the outbox and was never published"));
            }
        }
    }

    fn remember(&mut self, w: &World, row: &Row) {
        let spec = (row.power, row.reboot_seq, row.force, row.node, row.epoch, row.leaving);
        let known = self.history.insert((row.id, row.generation), spec);
        if known.is_some_and(|known| known != spec) {
            // Harmless if nobody has seen the first one.
            if self.seen.get(&row.id).is_some_and(|seen| *seen >= row.generation.unsigned_abs()) {
                w.fail(format_args!(
                    "generation {} of {} was given twice: {known:?}, {spec:?}",
                    row.generation,
                    short(row.id)
                ));
            }
        }
    }

    fn changed(&mut self, w: &World, after: &Tables, old: &Row, row: &Row) {
        self.remember(w, row);
        let id = short(row.id);
        if old.power == Wanted::Terminated && row.power != Wanted::Terminated || !old.lives() {
            w.fail(format_args!("{id} came back from its termination"));
        }
        let gives_up =
            old.power == Wanted::Running && row.power == Wanted::Terminated && row.reason.is_some();
        if gives_up && w.exec.now() < row.created_at + PATIENCE {
            w.fail(format_args!("{id} was given up before its time"));
        }
        if row.observed > old.observed
            && self.seen.get(&row.id).is_none_or(|seen| *seen < row.observed.unsigned_abs())
        {
            w.fail(format_args!("{id}: generation {} is observed, no node has it", row.observed));
        }
        if old.compute && !row.compute {
            for (n, node) in w.nodes.iter().enumerate() {
                let state = node.state.borrow();
                if state.guests.contains_key(&row.id) {
                    w.fail(format_args!("{id} is said to be gone and runs on node{n}"));
                }
                // What is left where it was taken from is known, and goes when that node is back.
                let known = after.remains.iter().any(|left| (left.node, left.instance) == (n, row.id));
                if !known && state.disk.dirs.get(&row.id).is_some_and(|dir| dir.journal.is_some()) {
                    w.fail(format_args!("{id} is said to be gone and has a journal on node{n}"));
                }
            }
        }
        if old.lives() && !row.lives() {
            // A port on a node that it left before goes with that node's next document; its address rests meanwhile.
            for (n, node) in w.nodes.iter().enumerate().filter(|(n, _)| old.node == Some(*n)) {
                if node.state.borrow().taps.values().any(|port| port.nic == row.nic) {
                    w.fail(format_args!("{id} is terminated and has a port on node{n}"));
                }
            }
        }
    }

    fn made(&self, w: &World, before: &Tables, after: &Tables, row: &Row, now: Time) {
        let same = after.instances.iter().filter(|r| r.made_by == row.made_by).count();
        if same > 1 {
            w.fail(format_args!("one idempotency key made {same} instances"));
        }
        let resting = |address: u32| {
            before.instances.iter().any(|r| {
                r.vpc == row.vpc
                    && r.address == address
                    && r.deleted_at.is_some_and(|at| at + ADDRESS_RESTS > now)
            })
        };
        if resting(row.address) {
            // Allowed only when the subnet has no other.
            let (first, last) = gon_core::ipam::range(crate::api::block(row.vpc))
                .map_or((0, 0), |(first, last)| (u32::from(first), u32::from(last)));
            let held = |address: u32| {
                after.instances.iter().any(|r| r.lives() && r.vpc == row.vpc && r.address == address)
            };
            if (first..=last).any(|address| !held(address) && !resting(address)) {
                w.fail(format_args!("{} got an address that still rests", short(row.id)));
            }
        }
    }

    /// A node has written a compute document down.
    pub fn accepted_compute(&mut self, w: &World, node: usize, document: &NodeCompute) {
        let best = self.compute.entry(node).or_default();
        if document.version < *best {
            w.fail(format_args!("node{node} took {} after {best}", document.version));
        }
        *best = document.version;
        for spec in &document.instances {
            let seen = self.seen.entry(spec.id.uuid()).or_default();
            *seen = spec.generation.max(*seen);
        }
    }

    /// A node has written a network document down.
    pub fn accepted_network(&mut self, w: &World, node: usize, document: &NetworkDocument) {
        let (version, best) = (document.version, self.network.entry(node).or_default());
        if version < *best {
            w.fail(format_args!("node{node} took network {version} after {best}"));
        }
        *best = version;
        for (vpc, generation) in &document.vpcs {
            let written = self.written.entry((*vpc, node)).or_default();
            *written = (*generation).max(*written);
        }
    }

    /// A guest is started: which one that is.
    pub fn spawned(&mut self, w: &World, node: usize, id: Uuid, spec: &InstanceSpec) -> u64 {
        self.spawns += 1;
        let who = short(id);
        w.note(|| format!("QEMU of {who} starts on node{node} for generation {}", spec.generation));
        for (n, other) in w.nodes.iter().enumerate() {
            if let Some(guest) = other.state.borrow().guests.get(&id) {
                w.fail(format_args!(
                    "{who} starts on node{node} (placement {}) and lives on node{n} (placement {})",
                    spec.placement_epoch, guest.epoch
                ));
            }
        }
        let state = w.nodes[node].state.borrow();
        let journal = state.disk.dirs.get(&id).and_then(|dir| dir.journal.as_ref());
        match journal {
            None => w.fail(format_args!("{who} starts on node{node} unannounced")),
            Some(j) if j.phase != Phase::Starting => {
                w.fail(format_args!("{who} starts on node{node}, its journal says {:?}", j.phase));
            }
            Some(j) if j.generation > spec.generation || j.placement_epoch > spec.placement_epoch => {
                w.fail(format_args!("{who} starts on node{node} for an older specification"));
            }
            Some(_) => {}
        }
        let said = self.history.get(&(id, spec.generation.cast_signed()));
        if said.is_none_or(|said| said.0 != Wanted::Running || said.3 != Some(node)) {
            w.fail(format_args!("{who} starts on node{node}; its specification is {said:?}"));
        }
        let before = self.started.insert(id, spec.placement_epoch).unwrap_or(0);
        if before > spec.placement_epoch {
            w.fail(format_args!("{who} starts for placement {} after {before}", spec.placement_epoch));
        }
        self.spawns
    }

    /// An agent has ended a guest.
    pub fn ended(
        &self,
        w: &World,
        node: usize,
        id: Uuid,
        guest: &Guest,
        generation: Option<u64>,
        journal: Option<&Journal>,
    ) {
        w.note(|| format!("QEMU of {} on node{node} is ended, it was {:?}", short(id), guest.power));
        // One that does not run, or does not answer, loses nothing.
        if guest.power != Power::Running || guest.answers_at > w.exec.now() {
            return;
        }
        let said = generation.and_then(|generation| self.history.get(&(id, generation.cast_signed())));
        // What is wanted of it elsewhere is not wanted here.
        let said = said.filter(|said| said.3 == Some(node) && said.4.unsigned_abs() == guest.epoch);
        let wanted = match said {
            Some(said) => said.0 == Wanted::Running && !said.5,
            None => !journal.is_some_and(|journal| journal.phase == Phase::Removing),
        };
        if wanted {
            w.fail(format_args!("{} ran on node{node}, should, and was ended", short(id)));
        }
    }

    /// A guest is ended because its node has no grant to run it.
    pub fn fenced(&self, w: &World, node: usize, id: Uuid, guest: &Guest) {
        w.note(|| format!("QEMU of {} on node{node} is fenced, it was {:?}", short(id), guest.power));
        if !w.db.borrow().tables.find(id).is_some_and(|row| row.auto_recover) {
            w.fail(format_args!("{} on node{node} is not recovered, and was ended by the fence", short(id)));
        }
    }

    /// An agent takes a tap away.
    pub fn tap_removed(&self, w: &World, node: usize, port: &Port) {
        // The name says which: one of an earlier stay here is not its own.
        let runs = w.nodes[node]
            .state
            .borrow()
            .guests
            .get(&port.instance)
            .is_some_and(|guest| port.placement == 0 || guest.epoch == port.placement.unsigned_abs());
        let wanted = w.db.borrow().tables.find(port.instance).is_some_and(|r| r.power != Wanted::Terminated);
        if runs && wanted {
            w.fail(format_args!("{} on node{node} lost its port", short(port.instance)));
        }
    }
}

/// Whether everything is as it should be; the first thing that is not.
pub fn settled(w: &World) -> Result<(), String> {
    let db = w.db.borrow();
    let t = &db.tables;
    if !t.outbox.is_empty() {
        return Err(format!("{} doorbells wait", t.outbox.len()));
    }
    if let Some(nic) = t
        .public
        .iter()
        .filter_map(|p| p.nic)
        .find(|nic| !t.instances.iter().any(|row| row.nic == *nic && row.lives()))
    {
        return Err(format!("an interface that is gone, {nic}, holds a public address"));
    }
    for row in t.instances.iter() {
        settled_row(w, t, row).map_err(|why| format!("{} ({:?}): {why}", short(row.id), row.state))?;
    }
    for (n, node) in w.nodes.iter().enumerate() {
        let state = node.state.borrow();
        let placed = |id: &Uuid| t.find(*id).is_some_and(|r| r.node == Some(n));
        if let Some(id) = state.guests.keys().find(|id| !placed(id)) {
            return Err(format!("{} runs on node{n}, which it is not placed on", short(*id)));
        }
        if let Some(id) = state.disk.dirs.keys().find(|id| !placed(id)) {
            return Err(format!("something of {} is left on node{n}", short(*id)));
        }
        if let Some(port) = state.taps.values().find(|p| !placed(&p.instance)) {
            return Err(format!("the port of {} is left on node{n}", short(port.instance)));
        }
        let mut flows = state.flows.iter().flat_map(|document| &document.ports);
        if let Some(port) = flows.find(|p| !placed(&p.instance)) {
            return Err(format!("flows of {} are left on node{n}", short(port.instance)));
        }
        let mut kept = state.disk.network.iter().flat_map(|document| &document.ports);
        if let Some(port) = kept.find(|p| !placed(&p.instance)) {
            return Err(format!("{} is left in the network ledger of node{n}", short(port.instance)));
        }
        let mut kept = state.disk.compute.iter().flat_map(|document| &document.instances);
        if let Some(spec) = kept.find(|spec| !placed(&spec.id.uuid())) {
            return Err(format!("{} is left in the compute ledger of node{n}", short(spec.id.uuid())));
        }
        for row in t.instances.iter().filter(|r| r.node == Some(n)) {
            let applied = t.applied.get(&(row.vpc, n)).copied().unwrap_or(0);
            if applied != t.vpcs[row.vpc] {
                return Err(format!("node{n} has VPC {} at {applied} of {}", row.vpc, t.vpcs[row.vpc]));
            }
        }
    }
    Ok(())
}

fn settled_row(w: &World, t: &Tables, row: &Row) -> Result<(), String> {
    let on_node = row.node.map(|n| (n, w.nodes[n].state.borrow()));
    match (row.power, row.state) {
        (Wanted::Terminated, State::Terminated) => Ok(()),
        (Wanted::Running, State::Pending) if row.node.is_none() => {
            // It may wait, if really nobody has room.
            let now = w.exec.now();
            let alive = (0..w.nodes.len()).map(rows::node_name).collect();
            let nodes: Vec<Candidate> =
                (0..w.nodes.len()).map(|n| place::candidate(&rows::candidate(t, n, now), &alive)).collect();
            match choose(&place::request(&rows::unplaced(t, row)), &nodes) {
                Ok(n) => Err(format!("node{n} has room for it")),
                Err(_) => Ok(()),
            }
        }
        // One that is nowhere is not spoken of.
        _ if row.observed != row.generation && row.node.is_some() => {
            Err(format!("generation {} of {} is observed", row.observed, row.generation))
        }
        _ if row.leaving => Err("it is leaving its node".to_owned()),
        (Wanted::Stopped, State::Stopped) => match on_node {
            Some((n, state)) if state.guests.contains_key(&row.id) => Err(format!("it runs on node{n}")),
            _ => Ok(()),
        },
        (Wanted::Running, State::Running) => {
            let Some((n, state)) = on_node else { return Err("it is nowhere".to_owned()) };
            let guest = state.guests.get(&row.id).ok_or_else(|| format!("no guest on node{n}"))?;
            if guest.power != Power::Running {
                return Err(format!("its guest on node{n} is {:?}", guest.power));
            }
            if !state.taps.values().any(|port| port.nic == row.nic) {
                return Err(format!("it has no port on node{n}"));
            }
            let journal = state.disk.dirs.get(&row.id).and_then(|dir| dir.journal.as_ref());
            if journal.is_none_or(|j| j.reboot_seq < row.reboot_seq.unsigned_abs()) {
                return Err("a reboot was not done".to_owned());
            }
            Ok(())
        }
        (power, _) => Err(format!("it should be {power:?}")),
    }
}
