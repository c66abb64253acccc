//! The rows, and what the schema refuses: the CHECKs, UNIQUEs and triggers of the migrations by their names.

use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use gon_core::instance::Power;
use gon_types::InstanceState as State;
use gon_types::id::NodeId;
use uuid::Uuid;

use crate::db::SqlError;
use crate::exec::{S, Time};

/// How long a private address rests.
pub const ADDRESS_RESTS: Time = 60 * S;
/// How long a public address rests.
pub const PUBLIC_RESTS: Time = 600 * S;
/// The role of instance managers in [`Tables::epochs`].
pub const COMPUTE: usize = 0;
/// The role of network controllers in [`Tables::epochs`].
pub const NETWORK: usize = 1;

/// An instance with its interface.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The instance.
    pub id: Uuid,
    /// Its interface.
    pub nic: Uuid,
    /// Its VPC, which has one subnet.
    pub vpc: usize,
    /// The idempotency key it was launched with, and its place in that launch.
    pub made_by: (u64, u32),
    /// Processors, MiB, GiB.
    pub needs: [i64; 3],
    /// Whether a start gets it a public address.
    pub auto_public: bool,
    /// What the user sees.
    pub state: State,
    /// Why.
    pub reason: Option<Rc<str>>,
    /// What should be.
    pub power: Power,
    /// Whether a stop skips asking the guest.
    pub force: bool,
    /// Reboots asked for.
    pub reboot_seq: i64,
    /// Changes of what should be.
    pub generation: i64,
    /// The last of them a node spoke of.
    pub observed: i64,
    /// Where it is.
    pub node: Option<usize>,
    /// Which placement that is.
    pub epoch: i64,
    /// User id of its QEMU.
    pub uid: Option<i32>,
    /// Its port's number.
    pub port_no: Option<i32>,
    /// Whether the hypervisor agent still has to clean up.
    pub compute: bool,
    /// Whether the network agent still has to.
    pub network: bool,
    /// Its address.
    pub address: u32,
    /// Whether it is recovered when its node is lost.
    pub auto_recover: bool,
    /// Whether it is to leave its node although it is not to end.
    pub leaving: bool,
    /// When it was made.
    pub created_at: Time,
    /// When it ended.
    pub deleted_at: Option<Time>,
}

impl Row {
    /// Whether it still holds its address.
    #[must_use]
    pub fn lives(&self) -> bool {
        self.deleted_at.is_none()
    }
}

/// A node.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeRow {
    /// The node.
    pub id: NodeId,
    /// Whether it ever reported.
    pub joined: bool,
    /// Its incarnation.
    pub epoch: u64,
    /// The number of its grant.
    pub grant: u64,
    /// Whether it is to be empty; and whether what runs may be stopped for that.
    pub draining: Option<bool>,
    /// Processors, MiB, GiB it lends.
    pub capacity: [i64; 3],
    /// What of that is lent.
    pub used: [i64; 3],
    /// When it last reported.
    pub last_report_at: Time,
    /// The port number given last.
    pub last_port_no: i32,
    /// The user id given last.
    pub last_uid: i32,
}

/// A doorbell in the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Doorbell {
    /// A VPC changed.
    Vpc(usize),
    /// An instance changed.
    Instance(Uuid),
    /// A node changed.
    Node(usize),
}

/// What is left of an instance on a node it was taken from.
#[derive(Debug, Clone, PartialEq)]
pub struct Remains {
    /// The node.
    pub node: usize,
    /// The instance.
    pub instance: Uuid,
    /// The placement that ended.
    pub epoch: i64,
    /// The generation of its end.
    pub generation: i64,
    /// User id of its QEMU.
    pub uid: i32,
    /// Its port's number.
    pub port_no: i32,
}

/// A public address.
#[derive(Debug, Clone, PartialEq)]
pub struct PublicIp {
    /// The interface it is mapped to.
    pub nic: Option<Uuid>,
    /// Not given to anybody before.
    pub rests_until: Time,
}

/// The answer that belongs to an idempotency key.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The instances it speaks of.
    pub instances: Vec<Uuid>,
    /// The generation of the first.
    pub generation: i64,
}

/// Everything. Clones share what is not changed.
#[derive(Debug, Clone)]
pub struct Tables {
    /// Instances, also tombstones; in the order of their ids.
    pub instances: Rc<Vec<Row>>,
    /// Nodes.
    pub nodes: Rc<Vec<NodeRow>>,
    /// The outbox.
    pub outbox: Rc<BTreeMap<u64, Doorbell>>,
    /// Its sequence.
    pub next_seq: u64,
    /// Numbers that the transaction at work drew from it when it began, before others that are committed by now.
    pub drawn: Range<u64>,
    /// The audit log: the keys of the requests, in the order of their commits.
    pub audit: Rc<Vec<u64>>,
    /// Idempotency keys.
    pub keys: Rc<BTreeMap<u64, Answer>>,
    /// Public addresses.
    pub public: Rc<Vec<PublicIp>>,
    /// Generations of the VPCs.
    pub vpcs: Rc<Vec<i64>>,
    /// The generation of a VPC in force on a node.
    pub applied: Rc<BTreeMap<(usize, usize), i64>>,
    /// Leader epochs.
    pub epochs: [u64; 2],
    /// What is left on nodes of instances that were taken from them.
    pub remains: Rc<Vec<Remains>>,
    /// Whether users want most of their instances recovered.
    pub recovers: bool,
    /// No CHECK on capacity: a planted defect.
    pub unchecked_capacity: bool,
}

fn refuse<T>(name: &'static str) -> Result<T, SqlError> {
    Err(SqlError::Refused(name))
}

impl Tables {
    /// The row of an instance.
    #[must_use]
    pub fn find(&self, id: Uuid) -> Option<&Row> {
        self.instances.iter().find(|row| row.id == id)
    }
    /// The next number of the sequence.
    pub fn draw(&mut self) -> u64 {
        self.drawn.next().unwrap_or_else(|| {
            self.next_seq += 1;
            self.next_seq
        })
    }
    /// Lays a doorbell into the outbox.
    pub fn ring(&mut self, bell: Doorbell) {
        let seq = self.draw();
        Rc::make_mut(&mut self.outbox).insert(seq, bell);
    }
    /// One more generation of a VPC.
    pub fn touch_vpc(&mut self, vpc: usize) {
        Rc::make_mut(&mut self.vpcs)[vpc] += 1;
        self.ring(Doorbell::Vpc(vpc));
    }
    /// A new instance.
    pub fn insert(&mut self, row: Row) -> Result<(), SqlError> {
        if self.instances.iter().any(|r| r.lives() && r.vpc == row.vpc && r.address == row.address) {
            return refuse("network_interfaces_private_ip_key");
        }
        Rc::make_mut(&mut self.instances).push(row);
        Ok(())
    }
    /// Changes an instance, if the schema allows it.
    pub fn update(&mut self, id: Uuid, change: impl FnOnce(&mut Row)) -> Result<(), SqlError> {
        let Some(at) = self.instances.iter().position(|row| row.id == id) else { return refuse("no row") };
        let mut new = self.instances[at].clone();
        change(&mut new);
        let old = &self.instances[at];
        if new.generation < old.generation
            || new.observed < old.observed
            || new.epoch < old.epoch
            || new.reboot_seq < old.reboot_seq
        {
            return refuse("instances_monotonic_check");
        }
        if new.leaving && (new.node.is_none() || new.needs[2] != 0 || new.power == Power::Terminated) {
            return refuse("instances_leaving_check");
        }
        let specified = |r: &Row| (r.power, r.reboot_seq, r.needs, r.force, r.node);
        if specified(&new) != specified(old) && new.generation == old.generation {
            return refuse("instances_generation_check");
        }
        if new.node.is_some() && new.node != old.node && new.epoch == old.epoch {
            return refuse("instances_epoch_check");
        }
        if old.power == Power::Terminated && new.power != Power::Terminated {
            return refuse("instances_one_way_check");
        }
        let edge = matches!(
            (old.state, new.state),
            (State::Pending, State::Running | State::Stopped | State::ShuttingDown)
                | (State::Running, State::Stopping | State::Stopped | State::ShuttingDown)
                | (State::Stopping, State::Stopped | State::ShuttingDown)
                | (State::Stopped, State::Pending | State::ShuttingDown)
                | (State::ShuttingDown, State::Terminated)
        );
        let anew = old.state == State::Running
            && new.state == State::Pending
            && old.auto_recover
            && new.epoch > old.epoch;
        if new.state != old.state && !edge && !anew {
            return refuse("instances_state_edge_check");
        }
        if new.observed > new.generation {
            return refuse("instances_observed_check");
        }
        if matches!(new.state, State::Running | State::Stopping) && new.node.is_none() {
            return refuse("instances_placed_check");
        }
        if new.node.is_none() != new.uid.is_none() || new.node.is_none() != new.port_no.is_none() {
            return refuse("instances_uid_check");
        }
        let over = new.state == State::Terminated;
        if over != new.deleted_at.is_some()
            || over && (new.power != Power::Terminated || new.compute || new.network || new.node.is_some())
        {
            return refuse("instances_terminated_check");
        }
        if new.node.is_some()
            && self
                .instances
                .iter()
                .any(|r| r.id != id && r.node == new.node && (r.uid == new.uid || r.port_no == new.port_no))
        {
            return refuse("instances_uid_key");
        }
        Rc::make_mut(&mut self.instances)[at] = new;
        Ok(())
    }
    /// Lends this much more of a node.
    pub fn lend(&mut self, node: usize, more: [i64; 3]) -> Result<(), SqlError> {
        let unchecked = self.unchecked_capacity;
        let row = &mut Rc::make_mut(&mut self.nodes)[node];
        for (n, more) in more.into_iter().enumerate() {
            row.used[n] += more;
            if row.used[n] < 0 || (row.used[n] > row.capacity[n] && !unchecked) {
                return refuse("nodes_capacity_check");
            }
        }
        Ok(())
    }
    /// Takes the platform's public address off an interface; true if there was one.
    pub fn release_public(&mut self, nic: Uuid, now: Time) -> bool {
        let Some(at) = self.public.iter().position(|p| p.nic == Some(nic)) else { return false };
        let row = &mut Rc::make_mut(&mut self.public)[at];
        (row.nic, row.rests_until) = (None, now + PUBLIC_RESTS);
        true
    }
    /// Gives an interface a public address; false if there is none that has rested.
    pub fn give_public(&mut self, nic: Uuid, now: Time, rested: bool) -> bool {
        let free = |p: &&PublicIp| p.nic.is_none() && (p.rests_until <= now || !rested);
        let Some(address) = self.public.iter().filter(free).map(|p| p.rests_until).min() else {
            return false;
        };
        let public = Rc::make_mut(&mut self.public);
        if let Some(row) = public.iter_mut().find(|p| p.nic.is_none() && p.rests_until == address) {
            row.nic = Some(nic);
        }
        true
    }
}
