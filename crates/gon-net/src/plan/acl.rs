//! The network ACLs of a document, checked and numbered.
//!
//! An ACL that contradicts itself is not believed, and the ports of its subnets are closed: half of an ACL is another one.

use std::collections::{BTreeMap, BTreeSet};

use gon_proto::{AclEntrySpec, AclSpec, NodeNetwork, SubnetSpec};
use gon_types::id::NetworkAclId;

use super::{Hash, Subnet, repeated, unique};
use crate::compile::Reason;
use crate::flow::{IP_ICMP, IP_TCP, IP_UDP};

/// The format since which every subnet has an ACL.
const SINCE_FORMAT: u32 = 3;
/// The highest number that an entry can have: EC2's.
pub(crate) const LAST_NUMBER: u16 = 32_766;

/// An ACL that guards a subnet with an open port.
#[derive(Clone, Copy)]
pub(crate) struct Acl<'a> {
    pub spec: &'a AclSpec,
    /// Its number in the [`crate::pipeline::ACL`] register.
    pub number: u32,
}

/// All ACLs of a document.
pub(super) struct Acls<'a> {
    by_id: BTreeMap<NetworkAclId, &'a AclSpec>,
    impossible: BTreeSet<NetworkAclId>,
    /// Whether a subnet without one is a mistake, not a document from before there were any.
    needed: bool,
}

impl<'a> Acls<'a> {
    pub fn new(document: &'a NodeNetwork) -> Self {
        let by_id = unique(&document.acls, |acl| acl.id);
        let impossible = by_id.values().filter(|acl| !is_possible(acl)).map(|acl| acl.id).collect();
        Self { by_id, impossible, needed: document.format >= SINCE_FORMAT }
    }

    /// Whether the subnet's ACL can be compiled.
    pub fn check(&self, subnet: &SubnetSpec) -> Result<(), Reason> {
        match subnet.acl {
            None if self.needed => Err(Reason::NoSuchAcl),
            None => Ok(()),
            Some(id) if self.by_id.get(&id).is_none_or(|acl| acl.vpc != subnet.vpc) => Err(Reason::NoSuchAcl),
            Some(id) if self.impossible.contains(&id) => Err(Reason::BadAcl),
            Some(_) => Ok(()),
        }
    }

    /// Those of these subnets, with numbers that depend on nothing but the ACL's id (and, once in four billion, on another
    /// ACL of the node).
    pub fn of<'s>(&self, subnets: impl Iterator<Item = &'s Subnet<'a>>) -> BTreeMap<NetworkAclId, Acl<'a>>
    where
        'a: 's,
    {
        let used: BTreeSet<NetworkAclId> = subnets.filter_map(|s| s.spec.acl).collect();
        let mut taken = BTreeSet::new();
        let numbered = used.into_iter().filter_map(|id| {
            let spec = *self.by_id.get(&id)?;
            let number = Hash::new().add(id.uuid().as_bytes()).free_number(|n| taken.contains(&n));
            taken.insert(number);
            Some((id, Acl { spec, number }))
        });
        numbered.collect()
    }
}

fn is_possible(acl: &AclSpec) -> bool {
    let shape_ok = |entry: &AclEntrySpec| {
        let has_ports = matches!(entry.protocol, Some(IP_TCP | IP_UDP));
        (1..=LAST_NUMBER).contains(&entry.number)
            && entry.ports.is_some() == has_ports
            && (entry.icmp.is_none() || entry.protocol == Some(IP_ICMP))
    };
    acl.entries.iter().all(shape_ok)
        && repeated(acl.entries.iter().map(|e| (e.direction, e.number))).is_empty()
}
