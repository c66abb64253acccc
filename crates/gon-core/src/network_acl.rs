//! Entries of network ACLs as users write them, turned into values that can only be right. Their numbers are EC2's: 1 to
//! 32766, and above them all [`REST`], which denies and is nobody's to change.

use gon_types::net::parse_cidr;
use gon_types::{IcmpMatch, PortRange, Protocol};
use ipnet::Ipv4Net;

use crate::security_group::{Direction, RuleError};

/// The number that stands for the end of a list (EC2's `*`).
pub const REST: u16 = 32_767;

/// What an entry does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Lets packets pass.
    Allow,
    /// Drops them.
    Deny,
}
impl Verdict {
    /// The word in the API and the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// An entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Which way, seen from the subnet.
    pub direction: Direction,
    /// 1 to 32766.
    pub number: u16,
    /// What it does.
    pub verdict: Verdict,
    /// IP protocol number; `None` is every protocol.
    pub protocol: Option<u8>,
    /// Destination ports; present exactly for TCP and UDP.
    pub ports: Option<PortRange>,
    /// Which ICMP messages; `None` is all. Only for ICMP.
    pub icmp: Option<IcmpMatch>,
    /// The other side.
    pub cidr: Ipv4Net,
}

/// An entry as a user writes it.
#[derive(Debug, Clone, Copy)]
pub struct EntryText<'a> {
    /// `inbound` or `outbound`.
    pub direction: &'a str,
    /// Its place in the list.
    pub rule_number: i64,
    /// `allow` or `deny`.
    pub action: &'a str,
    /// `tcp`, `udp`, `icmp`, `all`, or a protocol number.
    pub protocol: &'a str,
    /// `80`, `80-443` or `all`.
    pub port_range: Option<&'a str>,
    /// ICMP type; -1 is every one.
    pub icmp_type: Option<i64>,
    /// ICMP code; -1 is every one.
    pub icmp_code: Option<i64>,
    /// The other side.
    pub cidr_block: &'a str,
}

fn wrong(field: &'static str, why: impl Into<String>) -> RuleError {
    RuleError { field, why: why.into(), missing: false }
}

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Reads a direction.
pub fn direction(text: &str) -> Result<Direction, RuleError> {
    match text {
        "inbound" => Ok(Direction::Inbound),
        "outbound" => Ok(Direction::Outbound),
        _ => Err(wrong("direction", "must be inbound or outbound")),
    }
}

/// Reads the number of an entry that can be changed.
pub fn number(number: i64) -> Result<u16, RuleError> {
    let number = u16::try_from(number).ok().filter(|n| (1..REST).contains(n));
    number.ok_or_else(|| wrong("rule_number", "must be 1 to 32766"))
}

/// The number of a protocol; `None` is every protocol.
fn protocol(text: &str) -> Result<Option<u8>, RuleError> {
    match text.parse::<Protocol>() {
        Ok(Protocol::All) => Ok(None),
        Ok(Protocol::Icmp) => Ok(Some(ICMP)),
        Ok(Protocol::Tcp) => Ok(Some(TCP)),
        Ok(Protocol::Udp) => Ok(Some(UDP)),
        // No packet has protocol 0: port security drops it.
        Err(_) => {
            let digits = !text.is_empty() && text.len() <= 3 && text.bytes().all(|b| b.is_ascii_digit());
            let number = text.parse::<u8>().ok().filter(|n| digits && *n > 0);
            number
                .map(Some)
                .ok_or_else(|| wrong("protocol", "must be tcp, udp, icmp, all or a number from 1 to 255"))
        }
    }
}

/// A protocol in the API's words.
#[must_use]
pub fn protocol_name(number: Option<u8>) -> String {
    match number {
        None => "all".to_owned(),
        Some(ICMP) => "icmp".to_owned(),
        Some(TCP) => "tcp".to_owned(),
        Some(UDP) => "udp".to_owned(),
        Some(other) => other.to_string(),
    }
}

fn messages(
    protocol: Option<u8>,
    kind: Option<i64>,
    code: Option<i64>,
) -> Result<Option<IcmpMatch>, RuleError> {
    let some = |value: Option<i64>| value.filter(|n| *n != -1);
    let byte = |field, value| u8::try_from(value).map_err(|_| wrong(field, "must be -1, or 0 to 255"));
    if protocol != Some(ICMP) {
        return match (kind, code) {
            (None, None) => Ok(None),
            (Some(_), _) => Err(wrong("icmp_type", "is only for icmp")),
            (None, Some(_)) => Err(wrong("icmp_code", "is only for icmp")),
        };
    }
    match (some(kind), some(code)) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err(wrong("icmp_code", "needs an icmp_type")),
        (Some(kind), code) => Ok(Some(IcmpMatch {
            icmp_type: byte("icmp_type", kind)?,
            code: code.map(|code| byte("icmp_code", code)).transpose()?,
        })),
    }
}

/// Reads an entry.
pub fn entry(text: EntryText<'_>) -> Result<Entry, RuleError> {
    let direction = direction(text.direction)?;
    let number = number(text.rule_number)?;
    let verdict = match text.action {
        "allow" => Verdict::Allow,
        "deny" => Verdict::Deny,
        _ => return Err(wrong("action", "must be allow or deny")),
    };
    let protocol = protocol(text.protocol)?;
    let range = text.port_range.map(str::parse::<PortRange>).transpose();
    let ports = match (protocol, range.map_err(|e| wrong("port_range", format!("{e}")))?) {
        (Some(TCP | UDP), Some(range)) => Some(range),
        (Some(TCP | UDP), None) => {
            let why = format!("an entry for {} needs one", protocol_name(protocol));
            return Err(RuleError { field: "port_range", why, missing: true });
        }
        (_, None | Some(PortRange::ALL)) => None,
        (_, Some(_)) => return Err(wrong("port_range", "is only for tcp and udp: leave it out")),
    };
    let icmp = messages(protocol, text.icmp_type, text.icmp_code)?;
    let cidr = parse_cidr(text.cidr_block)
        .map_err(|_| wrong("cidr_block", "must be an IPv4 block such as 0.0.0.0/0"))?
        .trunc();
    Ok(Entry { direction, number, verdict, protocol, ports, icmp, cidr })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text<'a>(
        rule_number: i64,
        protocol: &'a str,
        ports: Option<&'a str>,
        cidr_block: &'a str,
    ) -> EntryText<'a> {
        EntryText {
            direction: "inbound",
            rule_number,
            action: "deny",
            protocol,
            port_range: ports,
            icmp_type: None,
            icmp_code: None,
            cidr_block,
        }
    }

    #[test]
    fn entries_as_people_write_them() {
        let https = entry(text(1, "tcp", Some("443"), "0.0.0.0/0")).unwrap();
        assert_eq!((https.number, https.verdict, https.protocol), (1, Verdict::Deny, Some(6)));
        assert_eq!(https.ports, PortRange::new(443, 443));
        assert_eq!(entry(text(32_766, "all", None, "10.0.0.9/8")).unwrap().cidr.to_string(), "10.0.0.0/8");
        assert_eq!(entry(text(7, "-1", Some("all"), "10.0.0.0/8")).unwrap().protocol, None);
        assert_eq!(entry(text(7, "17", Some("all"), "10.0.0.0/8")).unwrap().ports, Some(PortRange::ALL));
        assert_eq!(entry(text(7, "47", None, "10.0.0.0/8")).unwrap().protocol, Some(47));
        let icmp =
            |kind, code| EntryText { icmp_type: kind, icmp_code: code, ..text(7, "icmp", None, "0.0.0.0/0") };
        assert_eq!(entry(icmp(Some(-1), Some(-1))).unwrap().icmp, None);
        let needed = IcmpMatch { icmp_type: 3, code: Some(4) };
        assert_eq!(entry(icmp(Some(3), Some(4))).unwrap().icmp, Some(needed));
        for number in [None, Some(1), Some(6), Some(17), Some(50)] {
            assert_eq!(protocol(&protocol_name(number)).unwrap(), number);
        }
    }

    #[test]
    fn wrong_entries_name_the_field() {
        let any = "0.0.0.0/0";
        for (input, field) in [
            (text(0, "all", None, any), "rule_number"),
            (text(-1, "all", None, any), "rule_number"),
            (text(32_767, "all", None, any), "rule_number"),
            (text(65_537, "all", None, any), "rule_number"),
            (text(i64::MAX, "all", None, any), "rule_number"),
            (text(1, "0", None, any), "protocol"),
            (text(1, "256", None, any), "protocol"),
            (text(1, "+6", None, any), "protocol"),
            (text(1, "", None, any), "protocol"),
            (text(1, "sctp", None, any), "protocol"),
            (text(1, "tcp", None, any), "port_range"),
            (text(1, "tcp", Some("443-80"), any), "port_range"),
            (text(1, "47", Some("80"), any), "port_range"),
            (text(1, "icmp", Some("8"), any), "port_range"),
            (text(1, "all", None, "::/0"), "cidr_block"),
            (text(1, "all", None, "sg-0123456789abcdef0"), "cidr_block"),
            (text(1, "all", None, "10.0.0.0"), "cidr_block"),
            (EntryText { direction: "in", ..text(1, "all", None, any) }, "direction"),
            (EntryText { action: "drop", ..text(1, "all", None, any) }, "action"),
            (EntryText { icmp_type: Some(8), ..text(1, "all", None, any) }, "icmp_type"),
            (EntryText { icmp_type: Some(256), ..text(1, "icmp", None, any) }, "icmp_type"),
            (EntryText { icmp_type: Some(-2), ..text(1, "icmp", None, any) }, "icmp_type"),
            (EntryText { icmp_code: Some(0), ..text(1, "icmp", None, any) }, "icmp_code"),
            (EntryText { icmp_type: Some(3), icmp_code: Some(256), ..text(1, "1", None, any) }, "icmp_code"),
        ] {
            assert_eq!(entry(input).unwrap_err().field, field, "{input:?}");
        }
        assert!(entry(text(1, "udp", None, any)).unwrap_err().missing);
    }

    proptest! {
        #[test]
        fn no_entry_panics(d in "(inbound|outbound|.{0,9})", n in any::<i64>(), a in "(allow|deny|.{0,6})",
                           p in "(tcp|udp|icmp|all|[0-9]{0,4}|.{0,8})", r in proptest::option::of(".{0,12}"),
                           t in proptest::option::of(any::<i64>()), c in proptest::option::of(any::<i64>()), s in ".{0,40}") {
            let text = EntryText { direction: &d, rule_number: n, action: &a, protocol: &p, port_range: r.as_deref(),
                                   icmp_type: t, icmp_code: c, cidr_block: &s };
            if let Ok(entry) = entry(text) {
                prop_assert_eq!(entry.ports.is_some(), matches!(entry.protocol, Some(6 | 17)));
                prop_assert!((1..REST).contains(&entry.number));
            }
        }
    }
}
