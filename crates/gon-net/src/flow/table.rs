//! A flow, and a table of flows.

use std::cmp::Reverse;
use std::fmt;

use super::{Action, Match};
use crate::cookie::Cookie;

/// A flow: in `table`, packets that match and that no flow of higher priority matches, get `actions`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Table number.
    pub table: u8,
    /// Higher wins.
    pub priority: u16,
    /// Where the flow comes from.
    pub cookie: Cookie,
    /// Which packets.
    pub matches: Match,
    /// What happens to them; empty drops.
    pub actions: Vec<Action>,
}

/// What identifies a flow in a switch.
pub type FlowKey<'a> = (u8, Reverse<u16>, &'a Match);

impl Flow {
    /// A flow.
    #[must_use]
    pub const fn new(table: u8, priority: u16, cookie: Cookie, matches: Match, actions: Vec<Action>) -> Self {
        Self { table, priority, cookie, matches, actions }
    }
    /// Table, then falling priority, then match: the canonical order, and unique in a switch.
    #[must_use]
    pub const fn key(&self) -> FlowKey<'_> {
        (self.table, Reverse(self.priority), &self.matches)
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cookie={:#x},table={},priority={}", self.cookie.to_bits(), self.table, self.priority)?;
        if !self.matches.conditions().is_empty() {
            write!(f, ",{}", self.matches)?;
        }
        f.write_str(" actions=")?;
        if self.actions.is_empty() {
            return f.write_str("drop");
        }
        let mut sep = "";
        for action in &self.actions {
            write!(f, "{sep}{action}")?;
            sep = ",";
        }
        Ok(())
    }
}

/// The flows of a switch, canonical: sorted by key, each key once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FlowTable {
    flows: Vec<Flow>,
}

impl FlowTable {
    /// A table of these flows, whatever their order.
    ///
    /// Two flows of one key that do different things cannot both be meant: the result drops (fail closed), whatever
    /// order they came in. The compiler refuses the documents that would lead here; this is the second wall.
    #[must_use]
    pub fn from_flows(mut flows: Vec<Flow>) -> Self {
        flows.sort_by(|a, b| {
            a.key()
                .cmp(&b.key())
                .then_with(|| a.cookie.cmp(&b.cookie))
                .then_with(|| a.actions.cmp(&b.actions))
        });
        flows.dedup_by(|later, kept| {
            if later.key() != kept.key() {
                return false;
            }
            if later.actions != kept.actions {
                kept.actions.clear();
            }
            true
        });
        Self { flows }
    }
    /// The flows in canonical order.
    #[must_use]
    pub fn flows(&self) -> &[Flow] {
        &self.flows
    }
    /// The flow of this key.
    #[must_use]
    pub fn get(&self, key: FlowKey<'_>) -> Option<&Flow> {
        self.flows.binary_search_by(|flow| flow.key().cmp(&key)).ok().and_then(|at| self.flows.get(at))
    }
    /// How many flows.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.flows.len()
    }
    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }
    /// The flows of one table, highest priority first.
    #[must_use]
    pub fn of_table(&self, table: u8) -> &[Flow] {
        let from = self.flows.partition_point(|f| f.table < table);
        let to = self.flows.partition_point(|f| f.table <= table);
        &self.flows[from..to]
    }
}

impl fmt::Display for FlowTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.flows.iter().try_for_each(|flow| writeln!(f, "{flow}"))
    }
}
