//! Subnet blocks: inside the VPC's, /16 to /28, five addresses kept by the platform.

use gon_types::net::parse_cidr;
use ipnet::Ipv4Net;

/// Addresses of a subnet no instance gets: network, router, DNS, one for later, broadcast
/// (VPC user guide, "subnet sizing").
pub const RESERVED: u32 = 5;

/// Why a text is not the block of a subnet of that VPC.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// Not a block at all.
    #[error("must be an IPv4 block such as 10.0.1.0/24")]
    Malformed,
    /// Too large or too small.
    #[error("must be between /16 and /28")]
    Size,
    /// Not inside the VPC.
    #[error("is not inside the VPC's block {0}")]
    Outside(Ipv4Net),
}

/// The block of a new subnet of a VPC, with its host bits dropped.
pub fn block(text: &str, vpc: Ipv4Net) -> Result<Ipv4Net, BlockError> {
    let net = parse_cidr(text).map_err(|_| BlockError::Malformed)?;
    if !(16..=28).contains(&net.prefix_len()) {
        return Err(BlockError::Size);
    }
    let net = net.trunc();
    if !vpc.contains(&net) {
        return Err(BlockError::Outside(vpc));
    }
    Ok(net)
}

/// How many instances' interfaces a subnet has room for.
#[must_use]
pub fn usable(block: Ipv4Net) -> u32 {
    let size = 1u64 << (32 - u32::from(block.prefix_len()));
    u32::try_from(size.saturating_sub(u64::from(RESERVED))).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_28_has_room_for_eleven() {
        assert_eq!(usable("10.0.0.0/28".parse().unwrap()), 11);
        assert_eq!(usable("10.0.0.0/16".parse().unwrap()), 65531);
        assert_eq!(usable("10.0.0.0/32".parse().unwrap()), 0);
    }

    #[test]
    fn a_subnet_is_inside_its_vpc() {
        let vpc = "10.0.0.0/20".parse().unwrap();
        assert_eq!(block("10.0.0.0/20", vpc).unwrap().to_string(), "10.0.0.0/20");
        assert_eq!(block("10.0.3.9/24", vpc).unwrap().to_string(), "10.0.3.0/24");
        assert_eq!(block("10.0.16.0/24", vpc), Err(BlockError::Outside(vpc)));
        assert_eq!(block("10.0.0.0/16", vpc), Err(BlockError::Outside(vpc)));
        assert_eq!(block("10.0.0.0/29", vpc), Err(BlockError::Size));
        assert_eq!(block("10.0.0.0", vpc), Err(BlockError::Malformed));
    }
}
