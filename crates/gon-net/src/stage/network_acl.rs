//! edge, acl-out, acl-in: does the packet leave its subnet, and may it?
//!
//! `edge` assumes from the sender's group stage: allowed to be sent. What is addressed to the router's MAC leaves the
//! subnet by way of the ACL and the route table; everything else is a neighbour's, whom no ACL and no route concern.
//!
//! `acl-out` and `acl-in` are where network ACLs will be: stateless lists, first match wins, keyed by VPC and subnet
//! registers (`acl-out`: the sender's, `acl-in`: the receiver's, which `locate` has put there). They promise that what
//! they pass is unchanged. There are no ACLs in documents yet, so they pass everything. Mind when filling them in that
//! later fragments have no ports under the userspace datapath, where conntrack does not leave packets put together.

use gon_types::MacAddr;

use super::{Sink, go};
use crate::flow::{Field, Match, mac_bits};
use crate::pipeline::Stage;
use crate::plan::Plan;

pub(super) fn flows(_plan: &Plan<'_>, sink: &mut Sink) {
    let routed = Match::ip().with(Field::EthDst, mac_bits(MacAddr::ROUTER));
    sink.fixed(Stage::Edge, 100, routed, vec![go(Stage::AclOut)]);
    sink.fixed(Stage::Edge, 50, Match::ip(), vec![go(Stage::Locate)]);
    sink.fixed(Stage::AclOut, 10, Match::ip(), vec![go(Stage::Route)]);
    sink.fixed(Stage::AclIn, 10, Match::ip(), vec![go(Stage::GroupIn)]);
}
