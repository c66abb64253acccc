//! IPv4 and MAC columns as the words of gon-types. Every such column has a CHECK on its family, so a value of another
//! kind is a defect of the schema and comes back as a decoding error.

use std::net::Ipv4Addr;

use gon_types::MacAddr;
use ipnet::{IpNet, Ipv4Net};

/// A `cidr` column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Block(pub Ipv4Net);

/// An `inet` column with one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Host(pub Ipv4Addr);

/// A `macaddr` column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mac(pub MacAddr);

/// The column holds something its CHECK forbids.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0} is not an IPv4 value")]
pub struct NotIpv4(IpNet);

impl TryFrom<IpNet> for Block {
    type Error = NotIpv4;
    fn try_from(net: IpNet) -> Result<Self, NotIpv4> {
        match net {
            IpNet::V4(net) => Ok(Self(net)),
            IpNet::V6(_) => Err(NotIpv4(net)),
        }
    }
}
impl TryFrom<IpNet> for Host {
    type Error = NotIpv4;
    fn try_from(net: IpNet) -> Result<Self, NotIpv4> {
        match net {
            IpNet::V4(host) => Ok(Self(host.addr())),
            IpNet::V6(_) => Err(NotIpv4(net)),
        }
    }
}
impl From<mac_address::MacAddress> for Mac {
    fn from(mac: mac_address::MacAddress) -> Self {
        Self(MacAddr(mac.bytes()))
    }
}

/// The address of an `inet` value that may be missing or be part of an array.
pub(crate) fn host(net: IpNet) -> Result<Ipv4Addr, sqlx::Error> {
    Host::try_from(net).map(|h| h.0).map_err(|error| sqlx::Error::Decode(error.into()))
}
