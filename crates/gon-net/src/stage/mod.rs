//! One file per stage or pair of stages. Each says what it assumes from the stages before and what it promises to those
//! after; which registers are in play is in [`crate::pipeline`].

mod admit;
mod classify;
mod external;
mod gateway;
mod local;
mod local_reply;
mod locate;
mod network_acl;
mod policy;
mod quote;
mod route;
mod security_group;
mod tunnel;

use gon_types::{Id, Resource};

use crate::cookie::Cookie;
use crate::flow::{Action, Field, Flow, FlowTable, Match};
use crate::pipeline::{SCRATCH, Stage};
use crate::plan::Plan;

/// All flows of a plan.
pub(crate) fn all(plan: &Plan<'_>) -> FlowTable {
    let mut sink = Sink(Vec::with_capacity(64 + plan.ports.len() * 20));
    for stage in Stage::ALL {
        sink.deny(*stage);
    }
    classify::flows(plan, &mut sink);
    admit::flows(plan, &mut sink);
    local::flows(plan, &mut sink);
    local_reply::flows(plan, &mut sink);
    external::flows(plan, &mut sink);
    security_group::flows(plan, &mut sink);
    policy::flows(plan, &mut sink);
    network_acl::flows(plan, &mut sink);
    route::flows(plan, &mut sink);
    gateway::flows(plan, &mut sink);
    quote::flows(plan, &mut sink);
    locate::flows(plan, &mut sink);
    tunnel::flows(plan, &mut sink);
    FlowTable::from_flows(sink.0)
}

/// The same, where `before` is of a plan that differs in nothing but rules: they have a table of their own.
pub(crate) fn with_rules(before: &FlowTable, plan: &Plan<'_>) -> FlowTable {
    let mut sink = Sink(Vec::new());
    sink.deny(Stage::Policy);
    policy::flows(plan, &mut sink);
    before.with_tables(&[Stage::Policy.table()], sink.0)
}

/// Where stages put their flows.
pub(crate) struct Sink(Vec<Flow>);

impl Sink {
    /// Default deny, and counted: what nothing allows ends here.
    fn deny(&mut self, stage: Stage) {
        self.fixed(stage, 0, Match::any(), vec![]);
    }
    /// A flow that is there whatever the document says.
    fn fixed(&mut self, stage: Stage, priority: u16, matches: Match, actions: Vec<Action>) {
        self.0.push(Flow::new(stage.table(), priority, Cookie::fixed(stage), matches, actions));
    }
    /// A flow that is there because of a resource.
    fn of<R: Resource>(
        &mut self,
        stage: Stage,
        id: Id<R>,
        priority: u16,
        matches: Match,
        actions: Vec<Action>,
    ) {
        self.0.push(Flow::new(stage.table(), priority, Cookie::of(stage, id), matches, actions));
    }
}

/// Continue in a stage.
const fn go(stage: Stage) -> Action {
    Action::go(stage.table())
}

/// Write a register.
fn reg(field: Field, value: impl Into<u64>) -> Action {
    Action::load(field, value.into())
}

/// An IPv4 address as the bits of a field.
fn bits(address: std::net::Ipv4Addr) -> u64 {
    u32::from(address).into()
}

/// Turns an ARP request for an address of `mac` into its answer, back to the asker. Works for probes (sender 0.0.0.0)
/// and needs to know nothing of the asker.
fn answer_arp(mac: gon_types::MacAddr) -> Vec<Action> {
    let mac = crate::flow::mac_bits(mac);
    vec![
        Action::copy(Field::EthSrc, Field::EthDst),
        Action::Set(Field::EthSrc, mac),
        Action::Set(Field::ArpOp, ARP_REPLY),
        Action::copy(Field::ArpSha, Field::ArpTha),
        Action::Set(Field::ArpSha, mac),
        Action::copy(Field::ArpTpa, SCRATCH),
        Action::copy(Field::ArpSpa, Field::ArpTpa),
        Action::copy(SCRATCH, Field::ArpSpa),
        Action::InPort,
    ]
}

const ARP_REQUEST: u64 = 1;
const ARP_REPLY: u64 = 2;
/// [`Field::IpFrag`] of the fragment that has the ports.
const FIRST_FRAGMENT: u64 = 1;
/// [`Field::IpFrag`] of every other fragment.
const LATER_FRAGMENT: u64 = 3;
const BROADCAST_MAC: u64 = 0xffff_ffff_ffff;

/// An ARP request for an address.
fn arp_request(target: std::net::Ipv4Addr) -> Match {
    Match::arp().with(Field::ArpOp, ARP_REQUEST).addr(Field::ArpTpa, target)
}
