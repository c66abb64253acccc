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
    #[error("is not inside a block of the VPC: {0}")]
    Outside(String),
}

/// The block of a new subnet of a VPC of these blocks, with its host bits dropped, and which of them it is in.
pub fn block(text: &str, vpc: &[Ipv4Net]) -> Result<(Ipv4Net, Ipv4Net), BlockError> {
    let net = parse_cidr(text).map_err(|_| BlockError::Malformed)?;
    if !(16..=28).contains(&net.prefix_len()) {
        return Err(BlockError::Size);
    }
    let net = net.trunc();
    match vpc.iter().find(|block| block.contains(&net)) {
        Some(block) => Ok((net, *block)),
        None => {
            let blocks: Vec<String> = vpc.iter().map(ToString::to_string).collect();
            Err(BlockError::Outside(blocks.join(", ")))
        }
    }
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
        let (first, second) = ("10.0.0.0/20".parse().unwrap(), "100.64.0.0/24".parse().unwrap());
        let vpc = &[first, second];
        let inside = |text| block(text, vpc).map(|(net, of)| (net.to_string(), of));
        assert_eq!(inside("10.0.0.0/20"), Ok(("10.0.0.0/20".to_owned(), first)));
        assert_eq!(inside("10.0.3.9/24"), Ok(("10.0.3.0/24".to_owned(), first)));
        assert_eq!(inside("100.64.0.16/28"), Ok(("100.64.0.16/28".to_owned(), second)));
        for outside in ["10.0.16.0/24", "10.0.0.0/16", "100.64.0.0/23"] {
            let blocks = "10.0.0.0/20, 100.64.0.0/24".to_owned();
            assert_eq!(inside(outside), Err(BlockError::Outside(blocks)), "{outside}");
        }
        assert_eq!(inside("10.0.0.0/29"), Err(BlockError::Size));
        assert_eq!(inside("10.0.0.0"), Err(BlockError::Malformed));
    }
}
