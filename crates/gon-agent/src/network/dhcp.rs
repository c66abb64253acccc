//! DHCP: each port's one and only lease, answered on the node.
//!
//! Assumes that the port is known (by the link-local address the request came from, which the switch wrote), and what
//! the document says about it. The answer is a pure function of both: there is no pool and no lease to lose, so any
//! number of restarts gives the same answers. Promises that nothing but a well-formed request from the port's own MAC is
//! answered, and that no bytes can make this code panic.
//!
//! RFC 2131 (protocol), 2132 (options), 3442 (classless routes).

use std::net::Ipv4Addr;

use dhcproto::v4::{
    Decodable as _, Decoder, DhcpOption, Encodable as _, Encoder, HType, Message, MessageType, Opcode,
    OptionCode,
};
use gon_net::service;
use gon_proto::{PortSpec, SubnetSpec};
use ipnet::Ipv4Net;

/// The largest request that is looked at.
const REQUEST_LIMIT: usize = 1500;
/// BOOTP clients may want no less (RFC 1542 §2.1).
const SHORTEST: usize = 300;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The message.
    pub bytes: Vec<u8>,
    /// Whether the client can only hear broadcasts (RFC 2131 §4.1): which service address it must be sent from.
    pub broadcast: bool,
}

impl Reply {
    /// The service address to send it from.
    #[must_use]
    pub const fn source(&self) -> Ipv4Addr {
        if self.broadcast { service::DHCP_BROADCAST } else { service::DHCP }
    }
}

/// The router of a subnet: its first address after the network's.
#[must_use]
pub fn router(subnet: &SubnetSpec) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(subnet.cidr_block.network()).wrapping_add(1))
}

/// What the port is answered; `None` for what deserves no answer.
#[must_use]
pub fn answer(port: &PortSpec, subnet: &SubnetSpec, request: &[u8]) -> Option<Reply> {
    if request.len() > REQUEST_LIMIT {
        return None;
    }
    let request = Message::decode(&mut Decoder::new(request)).ok()?;
    // The length is the client's word; the library slices by it.
    if request.hlen() != 6 || request.htype() != HType::Eth || request.opcode() != Opcode::BootRequest {
        return None;
    }
    // Not through a relay: there is none between a guest and its node.
    if request.chaddr() != port.mac.0 || !request.giaddr().is_unspecified() {
        return None;
    }
    let server = router(subnet);
    match request.opts().msg_type()? {
        MessageType::Discover => Some(lease(port, subnet, &request, MessageType::Offer)),
        MessageType::Request => {
            let option = |code| request.opts().get(code);
            if let Some(DhcpOption::ServerIdentifier(chosen)) = option(OptionCode::ServerIdentifier)
                && *chosen != server
            {
                // It took somebody else's offer.
                return None;
            }
            let wanted = match option(OptionCode::RequestedIpAddress) {
                Some(DhcpOption::RequestedIpAddress(address)) => *address,
                _ => request.ciaddr(),
            };
            if wanted == port.private_ip {
                Some(lease(port, subnet, &request, MessageType::Ack))
            } else {
                refusal(server, &request)
            }
        }
        MessageType::Inform => Some(information(port, subnet, &request)),
        _ => None,
    }
}

/// The beginning of every answer.
fn reply_to(request: &Message, server: Ipv4Addr, kind: MessageType) -> Message {
    let mut message = Message::default();
    message
        .set_opcode(Opcode::BootReply)
        .set_htype(HType::Eth)
        .set_xid(request.xid())
        .set_flags(request.flags())
        .set_chaddr(request.chaddr());
    message.opts_mut().insert(DhcpOption::MessageType(kind));
    message.opts_mut().insert(DhcpOption::ServerIdentifier(server));
    message
}

fn lease(port: &PortSpec, subnet: &SubnetSpec, request: &Message, kind: MessageType) -> Reply {
    let mut message = reply_to(request, router(subnet), kind);
    message.set_yiaddr(port.private_ip).set_ciaddr(request.ciaddr());
    let seconds = port.dhcp.lease_seconds.max(60);
    let options = message.opts_mut();
    options.insert(DhcpOption::AddressLeaseTime(seconds));
    options.insert(DhcpOption::Renewal(seconds / 2));
    options.insert(DhcpOption::Rebinding(seconds / 8 * 7));
    configuration(&mut message, port, subnet);
    finish(&message, request)
}

/// The answer to a client that has an address and wants the rest: no lease, no address.
fn information(port: &PortSpec, subnet: &SubnetSpec, request: &Message) -> Reply {
    let mut message = reply_to(request, router(subnet), MessageType::Ack);
    message.set_ciaddr(request.ciaddr());
    configuration(&mut message, port, subnet);
    finish(&message, request)
}

fn configuration(message: &mut Message, port: &PortSpec, subnet: &SubnetSpec) {
    let (dhcp, router) = (&port.dhcp, router(subnet));
    let options = message.opts_mut();
    options.insert(DhcpOption::SubnetMask(subnet.cidr_block.netmask()));
    options.insert(DhcpOption::BroadcastAddr(subnet.cidr_block.broadcast()));
    options.insert(DhcpOption::Router(vec![router]));
    if !dhcp.dns_servers.is_empty() {
        options.insert(DhcpOption::DomainNameServer(dhcp.dns_servers.iter().copied().take(8).collect()));
    }
    if !dhcp.hostname.is_empty() {
        options.insert(DhcpOption::Hostname(dhcp.hostname.clone()));
    }
    if !dhcp.domain.is_empty() {
        options.insert(DhcpOption::DomainName(dhcp.domain.clone()));
    }
    options.insert(DhcpOption::InterfaceMtu(dhcp.mtu));
    // A client that takes classless routes ignores option 3, so the default route is said here again.
    options.insert(DhcpOption::ClasslessStaticRoute(vec![
        (host(service::GUEST_DNS), router),
        (host(service::GUEST_METADATA), router),
        (Ipv4Net::default(), router),
    ]));
}

fn host(address: Ipv4Addr) -> Ipv4Net {
    Ipv4Net::new_assert(address, 32)
}

/// "You cannot have that address": always broadcast, for the client's own is wrong (RFC 2131 §4.1).
fn refusal(server: Ipv4Addr, request: &Message) -> Option<Reply> {
    let message = reply_to(request, server, MessageType::Nak);
    Some(Reply { bytes: encode(&message)?, broadcast: true })
}

fn finish(message: &Message, request: &Message) -> Reply {
    // With an address of its own it hears unicast; else it says which it hears.
    let broadcast = request.ciaddr().is_unspecified() && request.flags().broadcast();
    Reply { bytes: encode(message).unwrap_or_default(), broadcast }
}

fn encode(message: &Message) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(512);
    message.encode(&mut Encoder::new(&mut bytes)).ok()?;
    bytes.resize(bytes.len().max(SHORTEST), 0);
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use dhcproto::v4::Flags;

    use super::*;
    use crate::network::samples;

    fn request(kind: MessageType, change: impl FnOnce(&mut Message)) -> Vec<u8> {
        let mut message = Message::default();
        message.set_xid(0x1234_5678).set_chaddr(&samples::port(16, "10.0.1.5").mac.0);
        message.opts_mut().insert(DhcpOption::MessageType(kind));
        change(&mut message);
        let mut bytes = Vec::new();
        message.encode(&mut Encoder::new(&mut bytes)).unwrap();
        bytes
    }

    fn ask(request: &[u8]) -> Option<(Message, Reply)> {
        let reply = answer(&samples::port(16, "10.0.1.5"), &samples::subnet(), request)?;
        Some((Message::decode(&mut Decoder::new(&reply.bytes)).unwrap(), reply))
    }

    #[test]
    fn an_offer_has_everything() {
        let (offer, reply) = ask(&request(MessageType::Discover, |_| ())).unwrap();
        assert_eq!(offer.opcode(), Opcode::BootReply);
        assert_eq!(offer.xid(), 0x1234_5678);
        assert_eq!(offer.yiaddr(), Ipv4Addr::new(10, 0, 1, 5));
        assert!(!reply.broadcast);
        assert!(reply.bytes.len() >= SHORTEST);
        let router = Ipv4Addr::new(10, 0, 1, 1);
        let wanted = [
            DhcpOption::MessageType(MessageType::Offer),
            DhcpOption::SubnetMask(Ipv4Addr::new(255, 255, 255, 0)),
            DhcpOption::Router(vec![router]),
            DhcpOption::DomainNameServer(vec![Ipv4Addr::new(169, 254, 169, 253)]),
            DhcpOption::Hostname("ip-10-0-1-5".to_owned()),
            DhcpOption::DomainName("gon-1.compute.internal".to_owned()),
            DhcpOption::InterfaceMtu(1450),
            DhcpOption::AddressLeaseTime(3600),
            DhcpOption::ServerIdentifier(router),
            DhcpOption::ClasslessStaticRoute(vec![
                ("169.254.169.253/32".parse().unwrap(), router),
                ("169.254.169.254/32".parse().unwrap(), router),
                ("0.0.0.0/0".parse().unwrap(), router),
            ]),
        ];
        for option in wanted {
            assert_eq!(offer.opts().get(OptionCode::from(&option)), Some(&option));
        }
        let (_, reply) = ask(&request(MessageType::Discover, |m| {
            m.set_flags(Flags::default().set_broadcast());
        }))
        .unwrap();
        assert!(reply.broadcast);
    }

    #[test]
    fn only_its_own_address_is_granted() {
        let kind = |bytes: &[u8]| ask(bytes).map(|(m, r)| (m.opts().msg_type().unwrap(), r.broadcast));
        let asking = |address: &str| {
            let option = DhcpOption::RequestedIpAddress(address.parse().unwrap());
            request(MessageType::Request, |m| {
                m.opts_mut().insert(option);
            })
        };
        assert_eq!(kind(&asking("10.0.1.5")), Some((MessageType::Ack, false)));
        assert_eq!(kind(&asking("10.0.1.6")), Some((MessageType::Nak, true)));
        assert_eq!(kind(&request(MessageType::Request, |_| ())), Some((MessageType::Nak, true)));
        // Renewing: the address is the client's own; it hears unicast even if it says broadcast.
        let renewing = request(MessageType::Request, |m| {
            m.set_ciaddr([10, 0, 1, 5]).set_flags(Flags::default().set_broadcast());
        });
        assert_eq!(kind(&renewing), Some((MessageType::Ack, false)));
        // Somebody else's offer was taken.
        let other = request(MessageType::Request, |m| {
            m.opts_mut().insert(DhcpOption::ServerIdentifier(Ipv4Addr::new(10, 0, 1, 9)));
            m.opts_mut().insert(DhcpOption::RequestedIpAddress(Ipv4Addr::new(10, 0, 1, 5)));
        });
        assert_eq!(kind(&other), None);
        let inform = request(MessageType::Inform, |m| {
            m.set_ciaddr([10, 0, 1, 5]);
        });
        let (answer, _) = ask(&inform).unwrap();
        assert!(answer.yiaddr().is_unspecified());
        assert!(answer.opts().get(OptionCode::AddressLeaseTime).is_none());
    }

    #[test]
    fn what_is_malformed_or_foreign_is_not_answered() {
        assert!(
            ask(&request(MessageType::Discover, |m| {
                m.set_chaddr(&[2, 0, 0, 0, 0, 9]);
            }))
            .is_none()
        );
        assert!(
            ask(&request(MessageType::Discover, |m| {
                m.set_giaddr([10, 0, 1, 1]);
            }))
            .is_none()
        );
        assert!(
            ask(&request(MessageType::Discover, |m| {
                m.set_opcode(Opcode::BootReply);
            }))
            .is_none()
        );
        for kind in [MessageType::Release, MessageType::Decline, MessageType::Offer] {
            assert!(ask(&request(kind, |_| ())).is_none());
        }
        // Every cut, and every byte replaced by the worst ones, at most goes unanswered.
        let good = request(MessageType::Request, |m| {
            m.opts_mut().insert(DhcpOption::Hostname("h".to_owned()));
            m.opts_mut().insert(DhcpOption::RequestedIpAddress(Ipv4Addr::new(10, 0, 1, 5)));
        });
        for end in 0..good.len() {
            let _ = ask(&good[..end]);
        }
        for at in 0..good.len() {
            for byte in [0, 1, 17, 0x7f, 0x80, 0xff] {
                let mut bad = good.clone();
                bad[at] = byte;
                let _ = ask(&bad);
            }
        }
    }
}
