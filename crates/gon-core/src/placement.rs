//! Where an instance goes: the choice of a node, and of the numbers it gets there.
//!
//! Assumes that the caller holds the nodes locked, so that what they have free stays free until it is written.
//! Promises that a chosen node has room, has the image, is alive and in the right zone; and, where none is, says of
//! every node why not. Spreads: the node with the largest free share of memory is taken.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeInclusive;

use gon_types::id::NodeId;

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

#[cfg(test)]
mod tests;
