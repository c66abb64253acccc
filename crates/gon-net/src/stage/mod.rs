//! One file per stage. Each says what it assumes from the stages before and what it promises to those after.

use crate::flow::{FlowTable, Match};

/// The rules that are installed: priority and match of each flow of the policy stage.
pub(crate) fn policy_flows(_flows: &FlowTable) -> impl Iterator<Item = (u16, &Match)> {
    std::iter::empty()
}

/// The set of groups that a policy flow belongs to.
pub(crate) fn policy_of(_matches: &Match) -> Option<u32> {
    None
}
