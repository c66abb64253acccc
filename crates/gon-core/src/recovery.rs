//! Recovery of instances of a node that is lost: when it is safe, whether it is us that are lost, and how many at once.
//!
//! A node's grant to run them is a number that somebody raises while the node asks for it (`gon_proto::grant`). Assumes
//! that `now` is read off a clock that only goes forward, after what it is said of was read. Promises that a node is given
//! up only when its number has been seen to stand still, under one epoch, for the whole time; that nothing is concluded
//! from what somebody else saw before; and that nobody is given up when too many are.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use gon_types::InstanceState as State;
use gon_types::id::NodeId;

use crate::instance::Power;

/// So many instances are started anew on one node in a minute.
pub const PER_MINUTE: usize = 10;
const MINUTE: Duration = Duration::from_secs(60);
/// So many nodes, or this share of them (percent), may be lost at once before it is us that are.
const LOST: (usize, usize) = (1, 20);

/// Whether an instance is one that another node is given when its node is lost: it is to run, and its user said so.
#[must_use]
pub const fn is_recovered(auto_recover: bool, state: State, power: Power, is_leaving: bool) -> bool {
    auto_recover
        && !is_leaving
        && matches!(power, Power::Running)
        && matches!(state, State::Pending | State::Running)
}

/// What is read of a node: which incarnation, and the number of its grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// The node's epoch.
    pub epoch: u64,
    /// The number.
    pub number: u64,
}

/// For how long each node's grant has stood still, as one leader has seen it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Watch(BTreeMap<NodeId, (Grant, Duration)>);

impl Watch {
    /// What others saw counts for nothing.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// These nodes have something that runs by grant, and these are their grants. Others are forgotten: the day they have
    /// something again, their time begins.
    pub fn look(&mut self, now: Duration, nodes: impl IntoIterator<Item = (NodeId, Grant)>) {
        let before = std::mem::take(&mut self.0);
        for (node, grant) in nodes {
            let seen = match before.get(&node) {
                Some((held, since)) if *held == grant => *since,
                _ => now,
            };
            self.0.insert(node, (grant, seen));
        }
    }

    /// The grant of a node, if it has stood still for `after`.
    #[must_use]
    pub fn over(&self, node: NodeId, now: Duration, after: Duration) -> Option<Grant> {
        let (grant, since) = self.0.get(&node)?;
        (now.saturating_sub(*since) >= after).then_some(*grant)
    }

    /// We have raised the epoch of a node whose grant was over: it is over all the more.
    pub fn raised(&mut self, node: NodeId, epoch: u64) {
        if let Some((grant, _)) = self.0.get_mut(&node) {
            grant.epoch = epoch;
        }
    }
}

/// Whether so many of all nodes are lost that it must be us: a leader that is cut off, or a switch between us and most
/// nodes. With two nodes, losing both; with ten, losing three.
#[must_use]
pub const fn is_cut_off(all: usize, lost: usize) -> bool {
    let share = all * LOST.1 / 100;
    lost > if share > LOST.0 { share } else { LOST.0 }
}

/// How many more instances each node may be given now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Budget(BTreeMap<NodeId, VecDeque<Duration>>);

impl Budget {
    /// How many a node may be given at `now`.
    pub fn room(&mut self, node: NodeId, now: Duration) -> usize {
        let Some(given) = self.0.get_mut(&node) else { return PER_MINUTE };
        while given.front().is_some_and(|at| now.saturating_sub(*at) >= MINUTE) {
            given.pop_front();
        }
        let room = PER_MINUTE.saturating_sub(given.len());
        if given.is_empty() {
            self.0.remove(&node);
        }
        room
    }

    /// It was given one.
    pub fn give(&mut self, node: NodeId, now: Duration) {
        self.0.entry(node).or_default().push_back(now);
    }
}

#[cfg(test)]
mod tests;
