//! Flows as values: what a flow matches, what it does, and a table of them in one canonical order.
//!
//! Assumes the subset of Open vSwitch's fields and actions that the pipeline needs, all present in OVS 2.17 and in both
//! datapaths. Promises: two equal flows are equal values (matches are sorted and masked), a table never holds two
//! flows of the same key, and `Display` is text that `ovs-ofctl` accepts.

mod action;
mod field;
mod table;

pub use action::{Action, Slice, ZoneSource};
pub use field::{Field, ParseKind};
pub use table::{Flow, FlowKey, FlowTable};

use std::fmt;
use std::net::Ipv4Addr;

use gon_types::MacAddr;
use ipnet::Ipv4Net;

/// Ethernet type of IPv4.
pub const ETH_IP: u16 = 0x0800;
/// Ethernet type of ARP.
pub const ETH_ARP: u16 = 0x0806;
/// IP protocol numbers.
pub const IP_ICMP: u8 = 1;
/// TCP.
pub const IP_TCP: u8 = 6;
/// UDP.
pub const IP_UDP: u8 = 17;

/// One condition: the field's bits under `mask` equal `value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Condition {
    /// Which field.
    pub field: Field,
    /// Wanted bits; none outside `mask`.
    pub value: u64,
    /// Which bits count; never zero.
    pub mask: u64,
}

/// What a flow matches: a conjunction of conditions, at most one per field, in the order of [`Field`]. The empty
/// match is every packet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Match(Vec<Condition>);

impl Match {
    /// Every packet.
    #[must_use]
    pub const fn any() -> Self {
        Self(Vec::new())
    }
    /// IPv4 packets.
    #[must_use]
    pub fn ip() -> Self {
        Self::any().with(Field::EthType, ETH_IP.into())
    }
    /// ARP packets.
    #[must_use]
    pub fn arp() -> Self {
        Self::any().with(Field::EthType, ETH_ARP.into())
    }
    /// IPv4 packets of a protocol.
    #[must_use]
    pub fn ip_proto(proto: u8) -> Self {
        Self::ip().with(Field::IpProto, proto.into())
    }
    /// TCP over IPv4.
    #[must_use]
    pub fn tcp() -> Self {
        Self::ip_proto(IP_TCP)
    }
    /// UDP over IPv4.
    #[must_use]
    pub fn udp() -> Self {
        Self::ip_proto(IP_UDP)
    }
    /// ICMP.
    #[must_use]
    pub fn icmp() -> Self {
        Self::ip_proto(IP_ICMP)
    }
    /// Also: the whole field equals `value`.
    #[must_use]
    pub fn with(self, field: Field, value: u64) -> Self {
        self.masked(field, value, field.full_mask())
    }
    /// Also: the field's bits under `mask` equal those of `value`. An empty mask is no condition. A second condition
    /// on the same field replaces the first.
    #[must_use]
    pub fn masked(mut self, field: Field, value: u64, mask: u64) -> Self {
        let mask = mask & field.full_mask();
        let place = self.0.binary_search_by_key(&field, |c| c.field);
        if mask == 0 {
            if let Ok(at) = place {
                self.0.remove(at);
            }
            return self;
        }
        let condition = Condition { field, value: value & mask, mask };
        match place {
            Ok(at) => self.0[at] = condition,
            Err(at) => self.0.insert(at, condition),
        }
        self
    }
    /// Also: received on this port.
    #[must_use]
    pub fn in_port(self, port: u32) -> Self {
        self.with(Field::InPort, port.into())
    }
    /// Also: this Ethernet (or ARP hardware) address.
    #[must_use]
    pub fn mac(self, field: Field, mac: MacAddr) -> Self {
        self.with(field, mac_bits(mac))
    }
    /// Also: this address.
    #[must_use]
    pub fn addr(self, field: Field, addr: Ipv4Addr) -> Self {
        self.with(field, u32::from(addr).into())
    }
    /// Also: an address in this block.
    #[must_use]
    pub fn net(self, field: Field, net: Ipv4Net) -> Self {
        self.masked(field, u32::from(net.network()).into(), u32::from(net.netmask()).into())
    }
    /// Also: these bits of a field have this value.
    #[must_use]
    pub fn slice(self, slice: Slice, value: u64) -> Self {
        let before = self.get(slice.field);
        let mask = slice.mask();
        let bits = (value << slice.start) & mask;
        match before {
            Some(c) => self.masked(slice.field, (c.value & !mask) | bits, c.mask | mask),
            None => self.masked(slice.field, bits, mask),
        }
    }
    /// The conditions, sorted by field.
    #[must_use]
    pub fn conditions(&self) -> &[Condition] {
        &self.0
    }
    /// The condition on a field, if there is one.
    #[must_use]
    pub fn get(&self, field: Field) -> Option<Condition> {
        self.0.binary_search_by_key(&field, |c| c.field).ok().map(|at| self.0[at])
    }
}

/// A MAC address as the 48 bits of a field.
#[must_use]
pub const fn mac_bits(mac: MacAddr) -> u64 {
    let [a, b, c, d, e, f] = mac.0;
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

/// The MAC address in the low 48 bits.
#[must_use]
pub fn mac_from_bits(bits: u64) -> MacAddr {
    let [_, _, a, b, c, d, e, f] = bits.to_be_bytes();
    MacAddr([a, b, c, d, e, f])
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sep = "";
        for condition in &self.0 {
            write!(f, "{sep}")?;
            condition.field.write_condition(f, condition.value, condition.mask)?;
            sep = ",";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
