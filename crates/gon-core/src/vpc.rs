//! VPC blocks.
//!
//! AWS's rule (VPC user guide, "VPC CIDR blocks"): IPv4, /16 to /28, host bits dropped; overlap with other VPCs is
//! allowed, since isolation does not rest on addresses.

use gon_types::net::parse_cidr;
use ipnet::Ipv4Net;

/// Ranges no VPC may touch, with the reason. The site may reserve more; those are rows.
const RESERVED: &[(&str, &str)] = &[
    ("0.0.0.0/8", "this network (RFC 1122)"),
    ("127.0.0.0/8", "loopback (RFC 1122)"),
    ("169.254.0.0/16", "link-local (RFC 3927)"),
    ("224.0.0.0/4", "multicast (RFC 5771)"),
    ("240.0.0.0/4", "reserved (RFC 1112)"),
];

/// Why a text is not the block of a VPC.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// Not a block at all.
    #[error("must be an IPv4 block such as 10.0.0.0/16")]
    Malformed,
    /// Too large or too small.
    #[error("must be between /16 and /28")]
    Size,
    /// Addresses that mean something else.
    #[error("overlaps {0}, which is {1}")]
    Reserved(&'static str, &'static str),
}

/// The block of a new VPC, with its host bits dropped.
pub fn block(text: &str) -> Result<Ipv4Net, BlockError> {
    let net = parse_cidr(text).map_err(|_| BlockError::Malformed)?;
    if !(16..=28).contains(&net.prefix_len()) {
        return Err(BlockError::Size);
    }
    let net = net.trunc();
    for (cidr, why) in RESERVED {
        let overlaps = cidr
            .parse::<Ipv4Net>()
            .is_ok_and(|reserved| reserved.contains(&net.network()) || net.contains(&reserved.network()));
        if overlaps {
            return Err(BlockError::Reserved(cidr, why));
        }
    }
    Ok(net)
}

/// Private ranges (RFC 1918): a VPC has blocks of one of them at most.
const PRIVATE: &[&str] = &["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"];
/// What no VPC may add (VPC user guide, "IPv4 CIDR block association restrictions").
const NEVER_ADDED: &[&str] = &["198.19.0.0/16", "172.31.0.0/16"];

/// Which of the ranges a block of /16 at most is in.
fn range_of<'a>(block: Ipv4Net, ranges: &[&'a str]) -> Option<&'a str> {
    ranges.iter().copied().find(|range| range.parse::<Ipv4Net>().is_ok_and(|r| r.contains(&block)))
}

/// Whether a VPC whose first block is `first` may have `other` as well, by the range it is from. PostgreSQL decides
/// (`vpc_block_may_join`); this says it in words.
#[must_use]
pub fn may_join(first: Ipv4Net, other: Ipv4Net) -> bool {
    range_of(other, NEVER_ADDED).is_none()
        && range_of(other, PRIVATE).is_none_or(|range| range_of(first, PRIVATE) == Some(range))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn blocks_are_normalised_as_aws_does() {
        assert_eq!(block("100.68.0.18/18").unwrap().to_string(), "100.68.0.0/18");
    }

    #[test]
    fn sizes_and_reserved_ranges_are_refused() {
        for text in ["10.0.0.0/15", "10.0.0.0/29", "10.0.0.0/0", "10.0.0.0/32"] {
            assert_eq!(block(text), Err(BlockError::Size), "{text}");
        }
        for text in [
            "127.0.0.0/16",
            "169.254.0.0/16",
            "169.254.169.240/28",
            "0.1.0.0/16",
            "239.0.0.0/16",
            "255.0.0.0/24",
        ] {
            assert!(matches!(block(text), Err(BlockError::Reserved(..))), "{text}");
        }
        for text in ["", "10.0.0.0", "10.0.0.0/", "10.0.0/16", "::/16", "10.0.0.0/16 ", "x"] {
            assert_eq!(block(text), Err(BlockError::Malformed), "{text}");
        }
    }

    #[test]
    fn further_blocks_are_of_the_same_private_range_or_of_none() {
        let may = |first: &str, other: &str| may_join(first.parse().unwrap(), other.parse().unwrap());
        assert!(may("10.0.0.0/16", "10.1.0.0/16"));
        assert!(may("10.0.0.0/16", "100.64.0.0/16"));
        assert!(may("10.0.0.0/16", "198.51.100.0/24"));
        assert!(may("172.31.0.0/16", "172.30.0.0/16"));
        assert!(may("198.51.100.0/24", "100.64.0.0/16"));
        assert!(!may("10.0.0.0/16", "172.16.0.0/16"));
        assert!(!may("10.0.0.0/16", "192.168.7.0/24"));
        assert!(!may("10.0.0.0/16", "198.19.7.0/24"));
        assert!(!may("172.16.0.0/16", "172.31.0.0/24"));
        assert!(!may("172.16.0.0/16", "10.0.0.0/24"));
        assert!(!may("198.51.100.0/24", "10.0.0.0/24"));
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_is_canonical(text in "[0-9]{1,3}(\\.[0-9]{1,3}){3}/[0-9]{1,2}") {
            if let Ok(net) = block(&text) {
                prop_assert_eq!(net, net.trunc());
                prop_assert!((16..=28).contains(&net.prefix_len()));
                prop_assert_eq!(block(&net.to_string()), Ok(net));
            }
        }

        #[test]
        fn no_text_panics(text in ".{0,64}") {
            let _ = block(&text);
        }
    }
}
