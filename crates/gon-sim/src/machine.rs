//! A node: what is on its disk, what runs on it, what its switch holds. Agents come and go; this stays.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use gon_agent::hypervisor::fence::Grant;
use gon_agent::hypervisor::journal::{Clock, Journal};
use gon_agent::ledger::Document;
use gon_control::documents::NodeDocument;
use gon_control::network::resolve::device_name;
use gon_proto::NodeCompute;
use gon_types::DocumentVersion;
use gon_types::id::NodeId;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::exec::{MS, ProcId, S, Time};
use crate::net::HostId;
use crate::world::{Ctx, World};

/// The part of a network document that this simulation needs: which ports, of which VPCs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkDocument {
    /// For whom.
    pub node: NodeId,
    /// Which one.
    pub version: DocumentVersion,
    /// Whether removing most of it is meant.
    pub mass_change_ok: bool,
    /// VPCs and their generations.
    pub vpcs: Vec<(usize, i64)>,
    /// Ports.
    pub ports: Vec<Port>,
}

/// A port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Its interface.
    pub nic: Uuid,
    /// Whose.
    pub instance: Uuid,
    /// Its number on the node.
    pub port_no: i32,
    /// Which placement of the instance it is for.
    pub placement: i64,
}

impl Port {
    /// The name of its tap.
    #[must_use]
    pub fn device(&self) -> String {
        device_name(self.nic, self.placement)
    }
}

impl Document for NetworkDocument {
    const KIND: &'static str = "network";
    fn format(&self) -> u32 {
        gon_proto::FORMAT
    }
    fn node(&self) -> NodeId {
        self.node
    }
    fn version(&self) -> DocumentVersion {
        self.version
    }
    fn mass_change_ok(&self) -> bool {
        self.mass_change_ok
    }
    fn removals(&self, next: &Self) -> (usize, usize) {
        let gone = self.ports.iter().filter(|p| !next.ports.iter().any(|n| n.nic == p.nic));
        (self.ports.len(), gone.count())
    }
}

impl NodeDocument for NetworkDocument {
    fn stamp(&mut self, version: DocumentVersion, mass_change_ok: bool) {
        (self.version, self.mass_change_ok) = (version, mass_change_ok);
    }
}

/// An instance's directory.
#[derive(Debug, Clone, Default)]
pub struct Dir {
    /// Its journal.
    pub journal: Option<Journal>,
    /// Whether its disks are there.
    pub files: bool,
}

/// What survives a power loss.
#[derive(Debug, Default)]
pub struct Disk {
    /// The compute ledger.
    pub compute: Option<Rc<NodeCompute>>,
    /// The network ledger.
    pub network: Option<Rc<NetworkDocument>>,
    /// The grant that was in force last, written for other processes.
    pub grant: Option<Grant>,
    /// Its epoch, as it was told.
    pub epoch: u64,
    /// Instances' directories.
    pub dirs: BTreeMap<Uuid, Dir>,
    /// Directories whose removal was not synced: a power loss may bring them back, without their journals.
    pub ghosts: Vec<(Uuid, bool)>,
}

/// How a guest is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    /// Its processors have not run yet.
    Prelaunch,
    /// They run.
    Running,
    /// It powered itself off; the process waits.
    ShutDown,
    /// QEMU cannot go on.
    Broken,
}

/// A QEMU process.
#[derive(Debug, Clone)]
pub struct Guest {
    /// Which process, among all of the run.
    pub serial: u64,
    /// How it is.
    pub power: Power,
    /// It answers from then on.
    pub answers_at: Time,
    /// Whether it minds its power button.
    pub listens: bool,
    /// The placement it was started for.
    pub epoch: u64,
    /// The generation it was started for.
    pub generation: u64,
    /// When it was started.
    pub since: Time,
}

/// What a node is at the moment.
#[derive(Debug, Default)]
pub struct State {
    /// Whether it has power.
    pub up: bool,
    /// Which boot this is.
    pub boot: u64,
    /// Since when.
    pub booted_at: Time,
    /// Its disk.
    pub disk: Disk,
    /// Its guests.
    pub guests: BTreeMap<Uuid, Guest>,
    /// Taps that are up, by name.
    pub taps: BTreeMap<String, Port>,
    /// The document whose flows are in the switch.
    pub flows: Option<Rc<NetworkDocument>>,
    /// Writes to its disk fail.
    pub disk_fails: u32,
    /// Writes to its disk take seconds.
    pub disk_crawls: u32,
}

/// A node.
pub struct Machine {
    /// Who it is.
    pub id: NodeId,
    /// Its host.
    pub host: HostId,
    /// Its hypervisor agent.
    pub hypervisor: ProcId,
    /// Its network agent.
    pub wires: ProcId,
    /// What lives as long as it has power: guests.
    pub kernel: ProcId,
    /// What it is at the moment.
    pub state: RefCell<State>,
}

/// A write to the disk failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskError;

impl Machine {
    /// This boot and the time since.
    pub fn clock(&self, now: Time) -> Clock {
        let state = self.state.borrow();
        Clock { boot: state.boot, now_ms: (now - state.booted_at) / MS }
    }
}

impl World {
    /// Takes a node's power away; it comes back after a while, and its agents with it.
    pub fn power_loss(self: &Rc<Self>, node: usize, back_after: Time) {
        let machine = &self.nodes[node];
        if !machine.state.borrow().up {
            return;
        }
        self.note(|| format!("POWER LOSS node{node}"));
        for proc in [machine.hypervisor, machine.wires, machine.kernel] {
            self.exec.kill(proc);
        }
        {
            let mut state = machine.state.borrow_mut();
            let state = &mut *state;
            state.up = false;
            state.guests.clear();
            state.taps.clear();
            state.flows = None;
            for (id, files) in std::mem::take(&mut state.disk.ghosts) {
                if self.rng.borrow_mut().percent(50) {
                    state.disk.dirs.entry(id).or_insert(Dir { journal: None, files });
                }
            }
        }
        let w = Rc::clone(self);
        self.exec.spawn(self.ether, async move {
            w.exec.sleep(back_after).await;
            w.power_on(node);
        });
    }
    /// Gives it power, and starts its agents in some order.
    pub fn power_on(self: &Rc<Self>, node: usize) {
        let machine = &self.nodes[node];
        {
            let mut state = machine.state.borrow_mut();
            state.up = true;
            state.boot += 1;
            state.booted_at = self.exec.now();
        }
        self.exec.start(machine.kernel);
        if self.config.recovery {
            self.keep(node);
        }
        for agent in [self.hypervisor(node), self.wires(node)] {
            let delay = self.rng.borrow_mut().range(10 * MS, 3 * S);
            let w = Rc::clone(self);
            self.exec.spawn(machine.kernel, async move {
                w.exec.sleep(delay).await;
                agent.boot();
            });
        }
    }
}

impl Ctx {
    /// Writes to a node's disk, to stay: whole, or not at all; if it fails, nobody knows which.
    pub async fn write_disk(&self, node: usize, change: impl FnOnce(&mut Disk)) -> Result<(), DiskError> {
        let machine = &self.w.nodes[node];
        let (fails, crawls) = {
            let state = machine.state.borrow();
            (state.disk_fails > 0 && self.percent(60), state.disk_crawls > 0)
        };
        self.step(if crawls { 4 * S } else { 8 * MS }).await;
        if !fails || self.percent(30) {
            change(&mut machine.state.borrow_mut().disk);
        }
        self.point().await;
        if fails { Err(DiskError) } else { Ok(()) }
    }
}
