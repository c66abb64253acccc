//! Network words: MAC addresses, protocols, port ranges. IPv4 networks are `ipnet::Ipv4Net`.
//!
//! Promises canonical values: a range is never empty, a protocol never carries ports it cannot have.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// Why a text is not one of the words of this module.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NetError(pub String);

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// The address of the virtual router (`.1`) in every subnet: the same everywhere, since a guest only ever sees
    /// its own subnet's router.
    pub const ROUTER: Self = Self([0x0a, 0x67, 0x6f, 0x6e, 0x00, 0x01]);

    /// Locally administered (x2, x6, xA, xE) and not multicast: the only kind a guest may have.
    #[must_use]
    pub const fn is_local_unicast(self) -> bool {
        self.0[0] & 0b11 == 0b10
    }
}
impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}
impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl FromStr for MacAddr {
    type Err = NetError;
    fn from_str(text: &str) -> Result<Self, NetError> {
        let bad =
            || NetError(format!("'{}' is not a MAC address", text.chars().take(32).collect::<String>()));
        let mut out = [0u8; 6];
        let mut parts = text.split(':');
        for byte in &mut out {
            let part = parts
                .next()
                .filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()))
                .ok_or_else(bad)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        if parts.next().is_some() { Err(bad()) } else { Ok(Self(out)) }
    }
}
impl TryFrom<String> for MacAddr {
    type Error = NetError;
    fn try_from(text: String) -> Result<Self, NetError> {
        text.parse()
    }
}
impl From<MacAddr> for String {
    fn from(mac: MacAddr) -> Self {
        mac.to_string()
    }
}

/// The protocol of a security-group rule, as the specification names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Any protocol.
    All,
    /// Transmission Control Protocol, 6.
    Tcp,
    /// User Datagram Protocol, 17.
    Udp,
    /// Internet Control Message Protocol, 1.
    Icmp,
}
impl Protocol {
    /// The word in the API and the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
        }
    }
    /// Whether packets of this protocol have ports.
    #[must_use]
    pub const fn has_ports(self) -> bool {
        matches!(self, Self::Tcp | Self::Udp)
    }
}
impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
impl FromStr for Protocol {
    type Err = NetError;
    fn from_str(text: &str) -> Result<Self, NetError> {
        match text {
            "all" | "-1" => Ok(Self::All),
            "tcp" | "6" => Ok(Self::Tcp),
            "udp" | "17" => Ok(Self::Udp),
            "icmp" | "1" => Ok(Self::Icmp),
            _ => Err(NetError("must be one of tcp, udp, icmp, all".to_owned())),
        }
    }
}

/// A range of ports, both ends included; never empty. Written `"80"`, `"80-443"` or `"all"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortRange {
    first: u16,
    last: u16,
}
impl PortRange {
    /// Every port.
    pub const ALL: Self = Self { first: 0, last: u16::MAX };

    /// `first` to `last`, both included; `None` if that is empty.
    #[must_use]
    pub const fn new(first: u16, last: u16) -> Option<Self> {
        if first <= last { Some(Self { first, last }) } else { None }
    }
    /// The lowest port.
    #[must_use]
    pub const fn first(self) -> u16 {
        self.first
    }
    /// The highest port.
    #[must_use]
    pub const fn last(self) -> u16 {
        self.last
    }
    /// Whether the range has the port.
    #[must_use]
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}
impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::ALL {
            f.write_str("all")
        } else if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}
impl FromStr for PortRange {
    type Err = NetError;
    fn from_str(text: &str) -> Result<Self, NetError> {
        let bad = || NetError("must be a port (80), a range (80-443) or all".to_owned());
        if text == "all" {
            return Ok(Self::ALL);
        }
        let port = |s: &str| -> Result<u16, NetError> {
            // `u16::from_str` takes a leading plus sign; a port range does not.
            if s.is_empty() || s.len() > 5 || !s.bytes().all(|b| b.is_ascii_digit()) {
                return Err(bad());
            }
            s.parse().map_err(|_| NetError("ports are 0 to 65535".to_owned()))
        };
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (port(first)?, port(last)?),
            None => (port(text)?, port(text)?),
        };
        Self::new(first, last).ok_or_else(|| NetError("the first port is above the last".to_owned()))
    }
}
impl TryFrom<String> for PortRange {
    type Error = NetError;
    fn try_from(text: String) -> Result<Self, NetError> {
        text.parse()
    }
}
impl From<PortRange> for String {
    fn from(range: PortRange) -> Self {
        range.to_string()
    }
}

/// What an ICMP rule matches: `None` is any. A code without a type has no meaning and cannot be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IcmpMatch {
    /// ICMP type (RFC 792).
    pub icmp_type: u8,
    /// ICMP code of that type; `None` is every code.
    pub code: Option<u8>,
}

/// A host route or network parsed strictly: `10.0.0.0/16`. Host bits are allowed and kept; `Ipv4Net::trunc` drops them.
pub fn parse_cidr(text: &str) -> Result<Ipv4Net, NetError> {
    let bad = || NetError("must be an IPv4 block such as 10.0.0.0/16".to_owned());
    let (address, length) = text.split_once('/').ok_or_else(bad)?;
    if length.is_empty()
        || length.len() > 2
        || !length.bytes().all(|b| b.is_ascii_digit())
        || (length.len() == 2 && length.starts_with('0'))
    {
        return Err(bad());
    }
    let address: Ipv4Addr = address.parse().map_err(|_| bad())?;
    Ipv4Net::new(address, length.parse().map_err(|_| bad())?).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_ranges_read_back_as_written() {
        for text in ["80", "80-443", "all", "0", "65535"] {
            assert_eq!(text.parse::<PortRange>().unwrap().to_string(), text);
        }
        for bad in ["", "-", "80-", "-80", "443-80", "65536", "+80", "8 0", "80-443-500", "00000080"] {
            assert!(bad.parse::<PortRange>().is_err(), "{bad}");
        }
    }

    #[test]
    fn macs_read_back_as_written() {
        let mac: MacAddr = "0a:67:6f:6e:00:01".parse().unwrap();
        assert_eq!(mac, MacAddr::ROUTER);
        assert!(mac.is_local_unicast());
        assert!("0a:67:6f:6e:00".parse::<MacAddr>().is_err());
        assert!("0a:67:6f:6e:00:01:02".parse::<MacAddr>().is_err());
        assert!("0a:67:6f:6e:00:+1".parse::<MacAddr>().is_err());
    }

    #[test]
    fn cidrs_are_strict() {
        assert_eq!(parse_cidr("10.0.0.5/16").unwrap().trunc().to_string(), "10.0.0.0/16");
        for bad in
            ["10.0.0.0", "10.0.0.0/33", "10.0.0/16", "010.0.0.0/8", "10.0.0.0/08", "::/0", "10.0.0.0/+8", ""]
        {
            assert!(parse_cidr(bad).is_err(), "{bad}");
        }
    }
}
