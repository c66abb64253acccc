//! From the flows that are installed to the flows that should be: the fewest changes.
//!
//! Assumes that the changes are sent as one atomic OpenFlow bundle, so that no packet sees a state between. Promises:
//! equal tables need nothing; applying the changes to the old table gives the new one; removals come first, so that even
//! without a bundle a revoked permission is gone before a new one is there.

use std::cmp::Ordering;

use crate::compile::Compiled;
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
    let (mut olds, mut news) = (old.flows().iter().peekable(), new.flows().iter().peekable());
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
    deletes.append(&mut adds);
    deletes
}

/// The table that results from these changes.
#[must_use]
pub fn apply(old: &FlowTable, mods: &[FlowMod<'_>]) -> FlowTable {
    let mut flows: std::collections::BTreeMap<_, &Flow> = old.flows().iter().map(|f| (f.key(), f)).collect();
    for change in mods {
        match change {
            FlowMod::Add(flow) => flows.insert(flow.key(), flow),
            FlowMod::Delete(flow) => flows.remove(&flow.key()),
        };
    }
    FlowTable::from_flows(flows.into_values().cloned().collect())
}

/// What a change of flows means for connection tracking.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ZoneChanges {
    /// Zones to empty, after the flows are in: their port is gone or became somebody else's. Without it a later owner of
    /// the number would inherit connections (rule R9).
    pub flush: Vec<u16>,
    /// Ports whose groups allow less than before. **Nothing needs to be done for safety**: rules judge every packet of
    /// a connection in both directions, so what they no longer allow has stopped already. Emptying these zones would
    /// tidy up entries, but would also make the switch forget connections that are still allowed.
    pub revoked: Vec<u16>,
}

/// Which zones to empty when `new` replaces `old`.
#[must_use]
pub fn zone_changes(old: &Compiled, new: &Compiled) -> ZoneChanges {
    let flush: Vec<u16> = old
        .zones
        .iter()
        .filter(|(no, was)| new.zones.get(no).is_none_or(|is| is.owner != was.owner))
        .map(|(no, _)| *no)
        .collect();
    let shrunk = crate::stage::shrunk(&old.flows, &new.flows);
    let revoked = old
        .zones
        .iter()
        .filter(|(no, was)| {
            new.zones.get(no).is_some_and(|is| {
                is.owner == was.owner && (is.policy != was.policy || shrunk.contains(&was.policy))
            })
        })
        .map(|(no, _)| *no)
        .collect();
    ZoneChanges { flush, revoked }
}

#[cfg(test)]
mod tests;
