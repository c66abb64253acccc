//! From the flows that are installed to the flows that should be: the fewest changes.
//!
//! Assumes that the changes are sent as one atomic OpenFlow bundle, so that no packet sees a state between. Promises:
//! equal tables need nothing; applying the changes to the old table gives the new one; removals come first, so that even
//! without a bundle a revoked permission is gone before a new one is there.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::compile::{Compiled, Owner};
use crate::flow::{Flow, FlowTable};

/// One change to a switch's flows. Both find the flow by table, priority and exact match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlowMod<'a> {
    /// Add the flow, or replace the one with its key (OpenFlow's `ADD`).
    Add(&'a Flow),
    /// Remove the flow with this one's key (`DELETE_STRICT`).
    Delete(&'a Flow),
}

/// What must change for `old` to become `new`.
#[must_use]
pub fn diff<'a>(old: &'a FlowTable, new: &'a FlowTable) -> Vec<FlowMod<'a>> {
    let mut deletes = Vec::new();
    let mut adds = Vec::new();
    for table in old.tables_beside(new) {
        let (mut olds, mut news) =
            (old.of_table(table).iter().peekable(), new.of_table(table).iter().peekable());
        loop {
            let order = match (olds.peek(), news.peek()) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(o), Some(n)) => o.key().cmp(&n.key()),
            };
            match order {
                Ordering::Less => deletes.extend(olds.next().map(FlowMod::Delete)),
                Ordering::Greater => adds.extend(news.next().map(FlowMod::Add)),
                Ordering::Equal => {
                    if let (Some(o), Some(n)) = (olds.next(), news.next())
                        && o != n
                    {
                        adds.push(FlowMod::Add(n));
                    }
                }
            }
        }
    }
    deletes.append(&mut adds);
    deletes
}

/// The table that results from these changes.
#[must_use]
pub fn apply(old: &FlowTable, mods: &[FlowMod<'_>]) -> FlowTable {
    let mut flows: BTreeMap<_, &Flow> = old.flows().map(|f| (f.key(), f)).collect();
    for change in mods {
        match change {
            FlowMod::Add(flow) => flows.insert(flow.key(), flow),
            FlowMod::Delete(flow) => flows.remove(&flow.key()),
        };
    }
    FlowTable::from_flows(flows.into_values().cloned().collect())
}

/// Conntrack zones to empty when `now` is in force, after its flows are in: their port is gone or became somebody else's.
/// Without it a later owner of the number would inherit connections (rule R9). A zone whose port may do less than before
/// stays as it is: rules judge every packet of a connection in both directions, so what they no longer allow has stopped.
#[must_use]
pub fn zones_to_empty(before: &BTreeMap<u16, Owner>, now: &Compiled) -> Vec<u16> {
    let others = |(no, owner): &(&u16, &Owner)| now.zones.get(no).is_none_or(|zone| zone.owner != **owner);
    before.iter().filter(others).map(|(no, _)| *no).collect()
}

#[cfg(test)]
mod tests;
