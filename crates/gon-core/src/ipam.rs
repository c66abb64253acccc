//! Which addresses an interface may get. Randomness is a parameter: the caller has the random source, PostgreSQL
//! decides who wins (a unique index), this module only says what is worth trying.

use std::net::Ipv4Addr;

use gon_types::MacAddr;
use ipnet::Ipv4Net;

use crate::subnet::usable;

/// Offset of the first address an instance may have: network, router, DNS and one for later come before it.
const FIRST: u32 = 4;

/// The first and the last address of a subnet that an instance may have; `None` if there is none.
#[must_use]
pub fn range(block: Ipv4Net) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let room = usable(block);
    if room == 0 {
        return None;
    }
    let first = u32::from(block.network()) + FIRST;
    Some((Ipv4Addr::from(first), Ipv4Addr::from(first + room - 1)))
}

/// An address an instance may have, chosen by `random`; every one is as likely as the other but for the remainder.
#[must_use]
pub fn pick(block: Ipv4Net, random: u32) -> Option<Ipv4Addr> {
    let (first, _) = range(block)?;
    Some(Ipv4Addr::from(u32::from(first) + random % usable(block)))
}

/// Whether an instance in the subnet may have the address.
#[must_use]
pub fn may_have(block: Ipv4Net, address: Ipv4Addr) -> bool {
    range(block).is_some_and(|(first, last)| (first..=last).contains(&address))
}

/// A MAC address for a guest: locally administered, unicast, first byte `0a`, the rest from `random`.
#[must_use]
pub const fn mac(random: [u8; 5]) -> MacAddr {
    let [a, b, c, d, e] = random;
    MacAddr([0x0a, a, b, c, d, e])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_picked_may_be_had(address: u32, length in 16u8..=28, random: u32) {
            let block = Ipv4Net::new(Ipv4Addr::from(address), length).unwrap().trunc();
            let picked = pick(block, random).unwrap();
            prop_assert!(may_have(block, picked));
            prop_assert!(block.contains(&picked));
            prop_assert!(u32::from(picked) > u32::from(block.network()) + 3);
            prop_assert!(picked != block.broadcast());
        }
    }

    #[test]
    fn every_usable_address_of_a_28_can_be_picked() {
        let block: Ipv4Net = "10.0.0.16/28".parse().unwrap();
        let all: std::collections::BTreeSet<_> = (0..11).map(|r| pick(block, r).unwrap()).collect();
        assert_eq!(all.len(), 11);
        assert_eq!(all.first(), Some(&"10.0.0.20".parse().unwrap()));
        assert_eq!(all.last(), Some(&"10.0.0.30".parse().unwrap()));
        assert!(mac([255; 5]).is_local_unicast());
    }
}
