//! Destinations of routes. The local route is implied by the VPC's block: never stored, never shadowed.

use std::net::Ipv4Addr;

use gon_types::net::parse_cidr;
use ipnet::Ipv4Net;

/// Why a text is not a destination for a route of that VPC.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DestinationError {
    /// Not a block at all.
    #[error("must be an IPv4 block such as 0.0.0.0/0")]
    Malformed,
    /// The local route has it.
    #[error("is the VPC's own block {0} or part of it, which the local route serves")]
    Local(Ipv4Net),
    /// Link-local addresses are answered on the node.
    #[error("is part of 169.254.0.0/16, which is never routed")]
    LinkLocal,
}

/// The destination of a new route in a VPC of these blocks, with its host bits dropped.
pub fn destination(text: &str, vpc: &[Ipv4Net]) -> Result<Ipv4Net, DestinationError> {
    let net = parse_cidr(text).map_err(|_| DestinationError::Malformed)?.trunc();
    if let Some(block) = vpc.iter().find(|block| block.contains(&net)) {
        return Err(DestinationError::Local(*block));
    }
    if net.prefix_len() >= 16 && net.network().octets()[..2] == Ipv4Addr::new(169, 254, 0, 0).octets()[..2] {
        return Err(DestinationError::LinkLocal);
    }
    Ok(net)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_local_route_is_not_shadowed() {
        let (vpc, second) = ("10.0.0.0/16".parse().unwrap(), "10.2.0.0/20".parse().unwrap());
        let blocks = &[vpc, second];
        assert_eq!(destination("0.0.0.0/0", blocks).unwrap().to_string(), "0.0.0.0/0");
        assert_eq!(destination("10.0.0.0/8", blocks).unwrap().to_string(), "10.0.0.0/8");
        assert_eq!(destination("192.0.2.7/24", blocks).unwrap().to_string(), "192.0.2.0/24");
        assert_eq!(destination("10.0.0.0/16", blocks), Err(DestinationError::Local(vpc)));
        assert_eq!(destination("10.0.9.0/24", blocks), Err(DestinationError::Local(vpc)));
        assert_eq!(destination("10.2.15.0/24", blocks), Err(DestinationError::Local(second)));
        assert_eq!(destination("10.2.0.0/16", blocks).unwrap().to_string(), "10.2.0.0/16");
        assert_eq!(destination("169.254.169.254/32", blocks), Err(DestinationError::LinkLocal));
        assert_eq!(destination("0.0.0.0", blocks), Err(DestinationError::Malformed));
    }
}
