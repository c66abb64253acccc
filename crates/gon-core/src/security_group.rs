//! Security groups: names and rules as users write them, turned into values that can only be right.

use gon_types::id::{IdRef, PrefixList, SecurityGroup};
use gon_types::net::parse_cidr;
use gon_types::{IcmpMatch, PortRange, Protocol};
use ipnet::Ipv4Net;

/// Which way a rule looks, from the instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To the instance.
    Inbound,
    /// From the instance.
    Outbound,
}
impl Direction {
    /// The word in the API and the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// The other side of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// Addresses in a block.
    Cidr(Ipv4Net),
    /// Members of a group of the same VPC, as the user named it.
    Group(IdRef<SecurityGroup>),
    /// Addresses in the blocks of a prefix list, as the user named it.
    PrefixList(IdRef<PrefixList>),
}

/// A rule: what it lets through. Rules only ever allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Which way.
    pub direction: Direction,
    /// Which protocol.
    pub protocol: Protocol,
    /// Destination ports; present exactly for TCP and UDP.
    pub ports: Option<PortRange>,
    /// Which ICMP messages; `None` is all. Only for ICMP.
    pub icmp: Option<IcmpMatch>,
    /// The other side.
    pub peer: Peer,
}

/// A rule as a user writes it.
#[derive(Debug, Clone, Copy)]
pub struct RuleText<'a> {
    /// `inbound` or `outbound`.
    pub direction: &'a str,
    /// `tcp`, `udp`, `icmp` or `all`.
    pub protocol: &'a str,
    /// `80`, `80-443` or `all`.
    pub port_range: Option<&'a str>,
    /// ICMP type.
    pub icmp_type: Option<i64>,
    /// ICMP code.
    pub icmp_code: Option<i64>,
    /// A block, or the id of a group or of a prefix list.
    pub source_destination: &'a str,
}

/// What is wrong with a rule, and in which field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {why}")]
pub struct RuleError {
    /// The field as users know it.
    pub field: &'static str,
    /// In words.
    pub why: String,
    /// Whether the field is missing rather than wrong.
    pub missing: bool,
}

fn wrong(field: &'static str, why: impl Into<String>) -> RuleError {
    RuleError { field, why: why.into(), missing: false }
}

/// Reads a rule.
pub fn rule(text: RuleText<'_>) -> Result<Rule, RuleError> {
    let direction = match text.direction {
        "inbound" => Direction::Inbound,
        "outbound" => Direction::Outbound,
        _ => return Err(wrong("direction", "must be inbound or outbound")),
    };
    let protocol: Protocol = text.protocol.parse().map_err(|e| wrong("protocol", format!("{e}")))?;
    let range = text
        .port_range
        .map(str::parse::<PortRange>)
        .transpose()
        .map_err(|e| wrong("port_range", format!("{e}")))?;
    let ports = match (protocol.has_ports(), range) {
        (true, Some(range)) => Some(range),
        (true, None) => {
            return Err(RuleError {
                field: "port_range",
                why: format!("a rule for {protocol} needs one"),
                missing: true,
            });
        }
        (false, None | Some(PortRange::ALL)) => None,
        (false, Some(_)) => {
            return Err(wrong("port_range", format!("{protocol} has no ports: leave it out")));
        }
    };
    let icmp = match (protocol, text.icmp_type, text.icmp_code) {
        (_, None, None) => None,
        (Protocol::Icmp, Some(kind), code) => Some(IcmpMatch {
            icmp_type: u8::try_from(kind).map_err(|_| wrong("icmp_type", "must be 0 to 255"))?,
            code: code.map(u8::try_from).transpose().map_err(|_| wrong("icmp_code", "must be 0 to 255"))?,
        }),
        (Protocol::Icmp, None, Some(_)) => return Err(wrong("icmp_code", "needs an icmp_type")),
        (_, Some(_), _) => return Err(wrong("icmp_type", "is only for icmp")),
        (_, None, Some(_)) => return Err(wrong("icmp_code", "is only for icmp")),
    };
    let peer = if text.source_destination.starts_with("sg-") || text.source_destination.len() == 36 {
        Peer::Group(text.source_destination.parse().map_err(|e| wrong("source_destination", format!("{e}")))?)
    } else if text.source_destination.starts_with("pl-") {
        Peer::PrefixList(
            text.source_destination.parse().map_err(|e| wrong("source_destination", format!("{e}")))?,
        )
    } else {
        let net = parse_cidr(text.source_destination).map_err(|_| {
            wrong(
                "source_destination",
                "must be an IPv4 block such as 0.0.0.0/0, or the id of a security group or a prefix list",
            )
        })?;
        Peer::Cidr(net.trunc())
    };
    Ok(Rule { direction, protocol, ports, icmp, peer })
}

/// Why a text is not the name of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GroupNameError {
    /// Nothing, or too much.
    #[error("must be 1 to 255 characters")]
    Length,
    /// It would look like an id.
    #[error("must not begin with sg-")]
    LooksLikeId,
    /// Control characters, or white space at an end.
    #[error("must not contain control characters or begin or end with white space")]
    Unprintable,
}

/// Whether the text can name a group (EC2's CreateSecurityGroup).
pub fn check_name(name: &str) -> Result<(), GroupNameError> {
    if name.is_empty() || name.chars().count() > 255 {
        return Err(GroupNameError::Length);
    }
    if name.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("sg-")) {
        return Err(GroupNameError::LooksLikeId);
    }
    if !is_printable(name) || name.trim() != name {
        return Err(GroupNameError::Unprintable);
    }
    Ok(())
}

/// Whether the text has no character that is not shown, or that changes how its neighbours are.
#[must_use]
pub fn is_printable(text: &str) -> bool {
    !text.chars().any(|c| {
        c.is_control()
            || matches!(c, '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{2069}' | '\u{FEFF}')
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text<'a>(protocol: &'a str, ports: Option<&'a str>, peer: &'a str) -> RuleText<'a> {
        RuleText {
            direction: "inbound",
            protocol,
            port_range: ports,
            icmp_type: None,
            icmp_code: None,
            source_destination: peer,
        }
    }

    #[test]
    fn rules_as_the_specification_writes_them() {
        let https = rule(text("tcp", Some("443"), "0.0.0.0/0")).unwrap();
        assert_eq!(https.ports, PortRange::new(443, 443));
        assert_eq!(https.peer, Peer::Cidr("0.0.0.0/0".parse().unwrap()));
        assert_eq!(rule(text("tcp", Some("all"), "10.0.0.9/8")).unwrap().ports, Some(PortRange::ALL));
        assert_eq!(rule(text("all", Some("all"), "10.0.0.0/8")).unwrap().ports, None);
        assert!(matches!(rule(text("icmp", None, "sg-0123456789abcdef0")).unwrap().peer, Peer::Group(_)));
    }

    #[test]
    fn wrong_rules_name_the_field() {
        for (input, field) in [
            (text("sctp", None, "0.0.0.0/0"), "protocol"),
            (text("tcp", None, "0.0.0.0/0"), "port_range"),
            (text("tcp", Some("443-80"), "0.0.0.0/0"), "port_range"),
            (text("icmp", Some("8"), "0.0.0.0/0"), "port_range"),
            (text("all", Some("80"), "0.0.0.0/0"), "port_range"),
            (text("tcp", Some("80"), "everybody"), "source_destination"),
            (text("tcp", Some("80"), "sg-12"), "source_destination"),
            (text("tcp", Some("80"), "::/0"), "source_destination"),
            (RuleText { direction: "in", ..text("tcp", Some("80"), "0.0.0.0/0") }, "direction"),
            (RuleText { icmp_type: Some(8), ..text("tcp", Some("80"), "0.0.0.0/0") }, "icmp_type"),
            (RuleText { icmp_type: Some(256), ..text("icmp", None, "0.0.0.0/0") }, "icmp_type"),
            (RuleText { icmp_code: Some(0), ..text("icmp", None, "0.0.0.0/0") }, "icmp_code"),
        ] {
            assert_eq!(rule(input).unwrap_err().field, field, "{input:?}");
        }
    }

    #[test]
    fn group_names_do_not_look_like_ids() {
        assert!(check_name("web servers").is_ok());
        assert!(check_name("웹").is_ok());
        for bad in ["", "sg-1", "SG-x", " a", "a\n", &"x".repeat(256), "a\u{202e}b"] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_rule_panics(d in ".{0,12}", p in "(tcp|udp|icmp|all|.{0,8})", r in proptest::option::of(".{0,12}"), s in ".{0,40}",
                          t in proptest::option::of(any::<i64>()), c in proptest::option::of(any::<i64>())) {
            let text = RuleText { direction: &d, protocol: &p, port_range: r.as_deref(), icmp_type: t, icmp_code: c, source_destination: &s };
            if let Ok(rule) = rule(text) {
                prop_assert_eq!(rule.ports.is_some(), rule.protocol.has_ports());
            }
            let _ = check_name(&s);
        }
    }
}
