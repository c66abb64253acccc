//! A flow, and a table of flows.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

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

/// The flows of a switch, canonical: sorted by key, each key once. Tables are shared between copies: one in which nothing
/// was changed is known to be the same without looking at its flows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FlowTable {
    /// By table number; none is empty.
    tables: BTreeMap<u8, Arc<Vec<Flow>>>,
}

impl FlowTable {
    /// A table of these flows, whatever their order.
    ///
    /// Two flows of one key that do different things cannot both be meant: the result drops (fail closed), whatever
    /// order they came in. The compiler refuses the documents that would lead here; this is the second wall.
    #[must_use]
    pub fn from_flows(flows: Vec<Flow>) -> Self {
        let mut tables: BTreeMap<u8, Vec<Flow>> = BTreeMap::new();
        for flow in flows {
            tables.entry(flow.table).or_default().push(flow);
        }
        let canonical = |(number, flows)| (number, Arc::new(canonical(flows)));
        Self { tables: tables.into_iter().map(canonical).collect() }
    }
    /// The same with the flows of these tables replaced by `flows`, which are of no other.
    #[must_use]
    pub(crate) fn with_tables(&self, numbers: &[u8], flows: Vec<Flow>) -> Self {
        let mut tables = self.tables.clone();
        for number in numbers {
            tables.remove(number);
        }
        tables.append(&mut Self::from_flows(flows).tables);
        Self { tables }
    }
    /// The flows in canonical order.
    pub fn flows(&self) -> impl Iterator<Item = &Flow> + Clone {
        self.tables.values().flat_map(|flows| flows.iter())
    }
    /// The flow of this key.
    #[must_use]
    pub fn get(&self, key: FlowKey<'_>) -> Option<&Flow> {
        let flows = self.of_table(key.0);
        flows.binary_search_by(|flow| flow.key().cmp(&key)).ok().and_then(|at| flows.get(at))
    }
    /// How many flows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tables.values().map(|flows| flows.len()).sum()
    }
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }
    /// The flows of one table, highest priority first.
    #[must_use]
    pub fn of_table(&self, table: u8) -> &[Flow] {
        self.tables.get(&table).map_or(&[], |flows| flows.as_slice())
    }
    /// The numbers of tables that have a flow here or there and are not one and the same.
    pub(crate) fn tables_beside(&self, other: &Self) -> BTreeSet<u8> {
        let differs = |number: &u8| match (self.tables.get(number), other.tables.get(number)) {
            (Some(a), Some(b)) => !Arc::ptr_eq(a, b),
            _ => true,
        };
        self.tables.keys().chain(other.tables.keys()).copied().filter(differs).collect()
    }
}

/// Sorted by key, each key once.
fn canonical(mut flows: Vec<Flow>) -> Vec<Flow> {
    flows.sort_by(|a, b| {
        a.key().cmp(&b.key()).then_with(|| a.cookie.cmp(&b.cookie)).then_with(|| a.actions.cmp(&b.actions))
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
    flows
}

impl fmt::Display for FlowTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.flows().try_for_each(|flow| writeln!(f, "{flow}"))
    }
}
