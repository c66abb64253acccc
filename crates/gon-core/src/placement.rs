//! Where an instance goes: the choice of a node, and of the numbers it gets there.
//!
//! Assumes that the caller holds the nodes locked, so that what they have free stays free until it is written.
//! Promises that a chosen node has room, has the image, is alive and in the right zone; and, where none is, says of
//! every node why not. Spreads: the node with the largest free share of memory is taken.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use gon_types::id::{InstanceId, NodeId};

/// Port numbers a node gives to interfaces.
pub const PORT_NOS: RangeInclusive<u32> = 16..=16_000;
/// User ids a node gives to guests.
pub const RUN_AS_UIDS: RangeInclusive<u32> = 600_000..=699_999;

/// What an instance needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Virtual processors.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Disk in GiB.
    pub disk_gib: u64,
    /// The zone of its subnet.
    pub availability_zone: String,
    /// Its image: name and recipe digest.
    pub image: (String, String),
    /// Nodes that it was taken from and that have not cleaned up yet.
    pub remains: BTreeSet<NodeId>,
}

/// What a node has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The node.
    pub id: NodeId,
    /// Its name, for messages.
    pub name: String,
    /// Its zone.
    pub availability_zone: String,
    /// Whether the operator lets it take instances.
    pub schedulable: bool,
    /// Whether it is heard of.
    pub alive: bool,
    /// Processors it lends and has lent.
    pub vcpus: Room,
    /// Memory it lends and has lent, MiB.
    pub memory_mib: Room,
    /// Disk it lends and has lent, GiB.
    pub disk_gib: Room,
    /// Images it has: name and recipe digest.
    pub images: BTreeSet<(String, String)>,
}

/// How much there is of something and how much of it is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// All there is.
    pub capacity: u64,
    /// What is taken; may be above `capacity` on a node that shrank.
    pub used: u64,
}

impl Room {
    /// What is left.
    #[must_use]
    pub const fn free(self) -> u64 {
        self.capacity.saturating_sub(self.used)
    }
}

impl Candidate {
    /// Takes what the request needs: for the next choice in the same transaction.
    pub fn take(&mut self, request: &Request) {
        self.vcpus.used += u64::from(request.vcpus);
        self.memory_mib.used += request.memory_mib;
        self.disk_gib.used += request.disk_gib;
    }
}

/// Why a node does not take an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejection {
    /// The operator keeps instances away from it.
    NotSchedulable,
    /// It has not been heard of lately.
    Silent,
    /// It is in another zone.
    OtherZone(String),
    /// It does not have the image.
    NoImage,
    /// Something of an earlier stay of the instance is left there.
    Remains,
    /// It has too little left of something.
    Short {
        /// Of what, with its unit.
        what: &'static str,
        /// How much is needed.
        need: u64,
        /// How much is free.
        free: u64,
    },
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSchedulable => f.write_str("takes no new instances"),
            Self::Silent => f.write_str("is not heard of"),
            Self::OtherZone(zone) => write!(f, "is in {zone}"),
            Self::NoImage => f.write_str("does not have the image"),
            Self::Remains => f.write_str("has not cleaned up after its last stay"),
            Self::Short { what, need, free } => write!(f, "has {free} of {need} {what} free"),
        }
    }
}

/// No node takes the instance; each with its reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct NoCapacity(pub Vec<(String, Rejection)>);

impl fmt::Display for NoCapacity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Server.InsufficientInstanceCapacity: ")?;
        if self.0.is_empty() {
            return f.write_str("there is no node yet");
        }
        for (i, (node, why)) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("; ")?;
            }
            // Enough for a person; a large site would fill a page.
            if i == 10 {
                return write!(f, "and {} more", self.0.len() - i);
            }
            write!(f, "{node} {why}")?;
        }
        Ok(())
    }
}

fn judge(request: &Request, node: &Candidate) -> Result<(), Rejection> {
    if !node.schedulable {
        return Err(Rejection::NotSchedulable);
    }
    if !node.alive {
        return Err(Rejection::Silent);
    }
    if node.availability_zone != request.availability_zone {
        return Err(Rejection::OtherZone(node.availability_zone.clone()));
    }
    if !node.images.contains(&request.image) {
        return Err(Rejection::NoImage);
    }
    if request.remains.contains(&node.id) {
        return Err(Rejection::Remains);
    }
    let enough = |what, need: u64, room: Room| {
        let free = room.free();
        if need <= free { Ok(()) } else { Err(Rejection::Short { what, need, free }) }
    };
    enough("vCPUs", u64::from(request.vcpus), node.vcpus)?;
    enough("MiB of memory", request.memory_mib, node.memory_mib)?;
    enough("GiB of disk", request.disk_gib, node.disk_gib)
}

/// Chooses a node: its index in `nodes`.
pub fn choose(request: &Request, nodes: &[Candidate]) -> Result<usize, NoCapacity> {
    let mut rejections = Vec::new();
    let mut best: Option<usize> = None;
    for (index, node) in nodes.iter().enumerate() {
        match judge(request, node) {
            Err(why) => rejections.push((node.name.clone(), why)),
            Ok(()) => {
                // free/capacity compared without division; a node that took nothing has everything free.
                let share = |n: &Candidate, of: &Candidate| {
                    u128::from(n.memory_mib.free()) * u128::from(of.memory_mib.capacity.max(1))
                };
                let better = best.is_none_or(|b| {
                    let held = &nodes[b];
                    let (this, that) = (share(node, held), share(held, node));
                    this > that || (this == that && node.id < held.id)
                });
                if better {
                    best = Some(index);
                }
            }
        }
    }
    best.ok_or(NoCapacity(rejections))
}

/// The next number of `range` that is not in use, looking upwards from the one given last and then from the start: one
/// that was just freed is given again as late as possible.
#[must_use]
pub fn next_free(range: &RangeInclusive<u32>, last: u32, used: &BTreeSet<u32>) -> Option<u32> {
    let from = if range.contains(&last) { last + 1 } else { *range.start() };
    (from..=*range.end()).chain(*range.start()..from).find(|n| !used.contains(n))
}

/// The numbers of a node: in use, and given last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbers {
    /// Port numbers in use.
    pub ports: BTreeSet<u32>,
    /// User ids in use.
    pub uids: BTreeSet<u32>,
    /// The port number given last.
    pub last_port: u32,
    /// The user id given last.
    pub last_uid: u32,
}

/// The numbers an instance gets on its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// User id of its QEMU.
    pub uid: u32,
    /// Port numbers of its interfaces.
    pub ports: Vec<u32>,
}

impl Numbers {
    /// A user id and as many port numbers as the instance has interfaces; `None` if the node has no more of either.
    pub fn take(&mut self, nics: usize) -> Option<Given> {
        let uid = next_free(&RUN_AS_UIDS, self.last_uid, &self.uids)?;
        let mut ports = Vec::new();
        for _ in 0..nics {
            let port = next_free(&PORT_NOS, self.last_port, &self.ports)?;
            self.ports.insert(port);
            self.last_port = port;
            ports.push(port);
        }
        self.uids.insert(uid);
        self.last_uid = uid;
        Some(Given { uid, ports })
    }
}

/// Placements in one transaction: what is chosen for one is taken for the next. The numbers of a node are learned when
/// it is first chosen.
#[derive(Debug)]
pub struct Batch {
    nodes: Vec<Candidate>,
    numbers: BTreeMap<usize, Numbers>,
}

impl Batch {
    /// Nothing is placed yet.
    #[must_use]
    pub fn new(nodes: Vec<Candidate>) -> Self {
        Self { nodes, numbers: BTreeMap::new() }
    }
    /// The node for a request: its index.
    pub fn choose(&self, request: &Request) -> Result<usize, NoCapacity> {
        choose(request, &self.nodes)
    }
    /// Whether the numbers of a node still have to be [learned](Self::learn).
    #[must_use]
    pub fn lacks_numbers(&self, node: usize) -> bool {
        !self.numbers.contains_key(&node)
    }
    /// The numbers of a node, as they were before this batch.
    pub fn learn(&mut self, node: usize, numbers: Numbers) {
        self.numbers.insert(node, numbers);
    }
    /// The numbers that were learned, with those that were given.
    pub fn into_numbers(self) -> impl Iterator<Item = (usize, Numbers)> {
        self.numbers.into_iter()
    }
    /// A node is chosen no more.
    pub fn close(&mut self, node: usize) {
        if let Some(node) = self.nodes.get_mut(node) {
            node.schedulable = false;
        }
    }
    /// Places a request on the node chosen for it. `None`: it has no number left, and is chosen no more. Sixteen thousand
    /// ports on one node are not a size that is lent.
    pub fn place(&mut self, node: usize, request: &Request, nics: usize) -> Option<Given> {
        let given = self.numbers.get_mut(&node).and_then(|numbers| numbers.take(nics));
        match (&given, self.nodes.get_mut(node)) {
            (Some(_), Some(node)) => node.take(request),
            (None, Some(node)) => node.schedulable = false,
            (_, None) => {}
        }
        given
    }
}

/// What is done for an instance that no node takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It has waited long enough: it ends, as EC2's do at once.
    GiveUp,
    /// Its user is told why it waits.
    Tell,
    /// Its user knows.
    Wait,
}

/// What is done for an instance that no node takes for the reason `why`; `told` is what its user knows.
#[must_use]
pub fn refuse(waited: Duration, patience: Duration, told: Option<&str>, why: &str) -> Refusal {
    if waited >= patience {
        Refusal::GiveUp
    } else if told == Some(why) {
        Refusal::Wait
    } else {
        Refusal::Tell
    }
}

/// How long instances have waited for a node, by a clock that only goes forward: nobody is given up before its time
/// because somebody set a wall clock.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Waiting(BTreeMap<InstanceId, Waits>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Waits {
    since: Duration,
    seen: Duration,
}

/// Whatever was not refused for so long does not wait any longer.
const FORGOTTEN: Duration = Duration::from_secs(60);

impl Waiting {
    /// A round of placements begins: what does not wait any longer is forgotten. Rounds are more frequent than
    /// [`FORGOTTEN`].
    pub fn begin(&mut self, now: Duration) {
        self.0.retain(|_, waits| now.saturating_sub(waits.seen) < FORGOTTEN);
    }
    /// Nothing waits.
    pub fn clear(&mut self) {
        self.0.clear();
    }
    /// No node takes it: how long that has been so.
    pub fn refused(&mut self, instance: InstanceId, now: Duration) -> Duration {
        let waits = self.0.entry(instance).or_insert(Waits { since: now, seen: now });
        waits.seen = now;
        now.saturating_sub(waits.since)
    }
    /// It has a node.
    pub fn placed(&mut self, instance: InstanceId) {
        self.0.remove(&instance);
    }
}

#[cfg(test)]
mod tests;
