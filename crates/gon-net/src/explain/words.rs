//! What decided in a stage, in words that an operator knows from the API.

use std::net::Ipv4Addr;

use gon_proto::{Direction, NodeNetwork, Peer, PortSpec, RouteTarget, RuleSpec};
use gon_types::id::SubnetId;

use super::Line;
use crate::flow::{Condition, Field, IP_ICMP};
use crate::pipeline::{SUBNET, Stage, VPC, acl_entry};
use crate::service::{DHCP_SERVER_UDP, DNS_TP};
use crate::trace::{Packet, Step};

/// Reads the stages of one packet on one node, one after another.
pub(super) struct Reader<'a> {
    document: &'a NodeNetwork,
    packet: &'a Packet,
    /// The interface that sends it, if that is on this node.
    from: Option<&'a PortSpec>,
    /// The interface that it was found to be for, if that is on this node.
    to: Option<&'a PortSpec>,
    /// Whether the receiver's groups are asked.
    inbound: bool,
    /// Its destination, as it is now.
    dst: Ipv4Addr,
    /// The interface that a route has sent it to, by its address.
    via: Option<Ipv4Addr>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(document: &'a NodeNetwork, in_port: u32, packet: &'a Packet) -> Self {
        let from = document.ports.iter().find(|p| u32::from(p.port_no) == in_port);
        let dst = packet.addr(Field::IpDst);
        Self { document, packet, from, to: None, inbound: false, dst, via: None }
    }

    /// The next stage.
    pub(super) fn line(&mut self, step: &Step) -> Line {
        let stage = Stage::of_table(step.table);
        let because = stage.map_or_else(String::new, |stage| self.because(stage, step));
        let routes_of = match stage {
            Some(Stage::Route | Stage::Arrival) => self.routes_of(step),
            _ => None,
        };
        Line {
            stage: stage.map_or("?", Stage::name),
            because,
            routes_of,
            dropped: step.drops,
            step: step.clone(),
        }
    }

    fn because(&mut self, stage: Stage, step: &Step) -> String {
        match stage {
            Stage::Classify if step.drops => "from no open interface, or of no VPC that is here".to_owned(),
            Stage::Classify => match self.from {
                Some(port) => format!("from {} of {}", port.id, port.instance),
                None => format!("out of a tunnel, in {}", self.origin(step)),
            },
            Stage::Admit => self.admit(step),
            Stage::Local => self.local(step),
            Stage::TunnelIn if step.drops => "the sender does not belong where it comes from".to_owned(),
            Stage::TunnelIn => {
                let (node, subnet) = (self.packet.addr(Field::TunSrc), self.origin(step));
                format!("its sender is in {subnet}, on the node at {node}")
            }
            Stage::GroupOut | Stage::GroupIn => {
                self.inbound = stage == Stage::GroupIn;
                let asked = self.asked().map_or("?".to_owned(), |port| port.id.to_string());
                format!("security groups of {asked}, {}: {}", self.way(), self.groups())
            }
            Stage::Judge if step.drops => "begins no connection that could be followed".to_owned(),
            Stage::Judge if step.priority == 200 => {
                "a protocol without connections: the rules judge every packet".to_owned()
            }
            Stage::Judge => "begins a connection".to_owned(),
            Stage::Policy if step.drops => format!("no {} rule of {} allows it", self.way(), self.groups()),
            Stage::Policy => self.rule(step),
            Stage::Admitted if step.priority == 200 => {
                "the connection is remembered: answers pass".to_owned()
            }
            Stage::Admitted => String::new(),
            Stage::Edge => self.edge(step),
            Stage::AclOut | Stage::AclIn => self.acl(stage, step),
            Stage::Route | Stage::Arrival => self.route(stage, step),
            Stage::Gateway if step.drops => {
                format!("{} has no public address", self.packet.addr(Field::IpSrc))
            }
            Stage::Gateway => {
                let public = self.from.and_then(|port| port.public_ip).map(|ip| ip.to_string());
                let src = self.packet.addr(Field::IpSrc);
                format!("from {src} to its public address, {}", public.as_deref().unwrap_or("?"))
            }
            Stage::Public => self.public(step),
            Stage::Locate => self.locate(step),
            Stage::Enter if step.drops => "into no subnet that is here".to_owned(),
            Stage::Enter if step.priority == 200 => {
                format!("never left {}: no network ACL", self.origin(step))
            }
            Stage::Enter => format!("into {}", self.origin(step)),
            Stage::Encap if step.drops => "came out of a tunnel, and goes into no other".to_owned(),
            Stage::Encap => "into the tunnel".to_owned(),
            Stage::Deliver => self.to.map_or_else(String::new, |port| format!("to {}", port.id)),
            Stage::LocalReply | Stage::LocalRestore | Stage::External => self.origin(step),
        }
    }

    /// The interface whose groups are asked.
    fn asked(&self) -> Option<&'a PortSpec> {
        if self.inbound { self.to } else { self.from }
    }

    const fn way(&self) -> &'static str {
        if self.inbound { "inbound" } else { "outbound" }
    }

    fn groups(&self) -> String {
        let groups = self.asked().map(|port| port.groups.as_slice()).unwrap_or_default();
        groups.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }

    fn admit(&self, step: &Step) -> String {
        let src = self.packet.addr(Field::IpSrc);
        let port = self.from.map_or_else(|| "the interface".to_owned(), |port| port.id.to_string());
        match (step.drops, step.priority) {
            (false, 100) => format!("source/destination check: {src} is an address of {port}"),
            (false, _) => format!("source/destination check: off for {port}"),
            (true, 0) => format!("source/destination check: {src} is no address of {port}"),
            (true, 95) => format!("nobody may send from {src}"),
            (true, _) => "no instance may answer DHCP".to_owned(),
        }
    }

    fn local(&self, step: &Step) -> String {
        let to =
            |port: u16| [Field::TcpDst, Field::UdpDst].iter().any(|f| self.packet.get(*f) == port.into());
        let text = match step.priority {
            50 => "for none of the node's services (DHCP, DNS, metadata)",
            400 => "no other link-local address answers",
            _ if step.drops => "multicast and broadcast go nowhere",
            _ if self.packet.get(Field::IpProto) == u64::from(IP_ICMP) => {
                "an echo request to the subnet's router"
            }
            _ if to(DNS_TP) => "DNS",
            _ if to(DHCP_SERVER_UDP) => "DHCP",
            _ => "instance metadata",
        };
        text.to_owned()
    }

    fn edge(&self, step: &Step) -> String {
        let subnet = || self.from.map_or_else(|| "the subnet".to_owned(), |port| port.subnet.to_string());
        match (step.drops, step.priority) {
            (true, _) => "out of no subnet that is here".to_owned(),
            (_, 50) => format!("within {}: no network ACL, no route", subnet()),
            (_, 200) => format!("within {}, by its router: no network ACL", subnet()),
            _ => format!("out of {}", subnet()),
        }
    }

    fn public(&mut self, step: &Step) -> String {
        match self.port_of(step) {
            Some(port) => {
                let was = std::mem::replace(&mut self.dst, port.private_ip);
                format!("{was} is the public address of {}", port.id)
            }
            None if step.drops => format!("nobody here has the public address {}", self.dst),
            None => format!("no interface here has {}: out of the node", self.dst),
        }
    }

    fn locate(&mut self, step: &Step) -> String {
        let target = self.via.unwrap_or(self.dst);
        if step.drops {
            return match self.via {
                None => format!("nobody has {target}, or its interface is closed"),
                Some(_) => format!(
                    "the interface of {target} takes nothing for {}: its source/destination check is on, or it is gone",
                    self.dst
                ),
            };
        }
        self.to = self.port_of(step);
        match self.to {
            Some(port) if port.addresses().any(|ip| ip == target) => {
                format!("{target} is {} of {}", port.id, port.instance)
            }
            // A route on another node has sent it here.
            Some(port) => format!("routed to {} of {}", port.id, port.instance),
            None => format!("{target} is on another node, in {}", self.origin(step)),
        }
    }

    fn port_of(&self, step: &Step) -> Option<&'a PortSpec> {
        self.document.ports.iter().find(|port| step.cookie.is_of(port.id))
    }

    /// The resource that a flow stands for.
    fn origin(&self, step: &Step) -> String {
        let Some(digits) = step.cookie.origin() else { return String::new() };
        let ports = self.port_of(step).map(|port| port.id.to_string());
        let subnet = || self.subnet_of(step).map(|id| id.to_string());
        let vpc = || self.document.vpcs.iter().find(|v| step.cookie.is_of(v.id)).map(|v| v.id.to_string());
        ports.or_else(subnet).or_else(vpc).unwrap_or_else(|| format!("…{digits}"))
    }

    fn subnet_of(&self, step: &Step) -> Option<SubnetId> {
        self.document.subnets.iter().map(|s| s.id).find(|id| step.cookie.is_of(*id))
    }

    fn rule(&self, step: &Step) -> String {
        // Of a conjunction the second clause is the rule, the first the group that the peer is a member of.
        let cookie = step.clauses.get(1).copied().unwrap_or(step.cookie);
        let mut rules = self.document.groups.iter().flat_map(|g| g.rules.iter().map(move |r| (g, r)));
        match rules.find(|(_, rule)| cookie.is_of(rule.id)) {
            Some((group, rule)) => {
                format!("{} rule {} of {} allows it: {}", self.way(), rule.id, group.id, words(rule))
            }
            None => format!("{} rule …{} allows it", self.way(), cookie.origin().unwrap_or_default()),
        }
    }

    fn acl(&self, stage: Stage, step: &Step) -> String {
        let verb = if step.drops { "denies" } else { "allows" };
        let way = if stage == Stage::AclIn { "inbound" } else { "outbound" };
        let entry = acl_entry(step.priority).map_or_else(|| "*".to_owned(), |n| n.to_string());
        match self.document.acls.iter().find(|a| step.cookie.is_of(a.id)) {
            Some(acl) => format!("{way} entry {entry} of {} {verb} it", acl.id),
            None => format!("no network ACL {verb} it"),
        }
    }

    /// Whose route table a route, or that there is none, is of.
    fn routes_of(&self, step: &Step) -> Option<SubnetId> {
        let sender = || self.from.filter(|_| step.priority == 0).map(|port| port.subnet);
        self.subnet_of(step).or_else(sender)
    }

    fn route(&mut self, stage: Stage, step: &Step) -> String {
        let (field, back) = match stage {
            Stage::Route => (Field::IpDst, ""),
            _ => (Field::IpSrc, "for the answer, "),
        };
        let table = self.routes_of(step).map(|id| format!(" in the route table of {id}")).unwrap_or_default();
        let key = step.matches.get(VPC).zip(step.matches.get(SUBNET));
        let (Some(_), Some(block)) = (key, step.matches.get(field).or(Some(NO_BLOCK))) else {
            return match step.priority {
                0 if stage == Stage::Route => format!("no route to {}{table}", self.dst),
                0 => format!("{back}no route to {}{table}", self.packet.addr(Field::IpSrc)),
                6000..=6200 => "its time to live is spent".to_owned(),
                _ => "no packet is routed to such an address".to_owned(),
            };
        };
        let address = Ipv4Addr::from(u32::try_from(block.value).unwrap_or(0));
        let net = format!("{address}/{}", block.mask.count_ones());
        let subnet = self.document.subnets.iter().find(|s| step.cookie.is_of(s.id));
        let target = subnet.and_then(|s| s.routes.iter().find(|r| r.destination.trunc().to_string() == net));
        let way = match target.map(|r| &r.target) {
            None => "local".to_owned(),
            Some(RouteTarget::InternetGateway(gateway)) => gateway.id.to_string(),
            Some(RouteTarget::Interface { private_ip }) => {
                self.via = Some(*private_ip);
                let port = self.document.ports.iter().find(|port| {
                    port.private_ip == *private_ip && self.from.is_none_or(|from| self.same_vpc(from, port))
                });
                let of = port.map_or_else(|| "the interface".to_owned(), |port| port.id.to_string());
                format!("{of} ({private_ip})")
            }
            Some(RouteTarget::Blackhole) => "blackhole".to_owned(),
        };
        let dead = if step.drops { ", which leads nowhere" } else { "" };
        format!("{back}{net} → {way}{dead}{table}")
    }

    fn same_vpc(&self, one: &PortSpec, other: &PortSpec) -> bool {
        let vpc = |port: &PortSpec| self.document.subnets.iter().find(|s| s.id == port.subnet).map(|s| s.vpc);
        vpc(one) == vpc(other)
    }
}

fn words(rule: &RuleSpec) -> String {
    let from = match rule.direction {
        Direction::Inbound => "from",
        Direction::Outbound => "to",
    };
    let ports = rule.ports.map(|p| format!(" {p}")).unwrap_or_default();
    let peer = match &rule.peer {
        Peer::Cidr(net) => net.to_string(),
        Peer::Group(id) => format!("members of {id}"),
    };
    format!("{}{ports} {from} {peer}", rule.protocol)
}

/// What a route for everything matches: nothing in particular.
const NO_BLOCK: Condition = Condition { field: Field::IpDst, value: 0, mask: 0 };
