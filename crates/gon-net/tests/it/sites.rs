//! The compiled flows of a site against the model: every packet, and what answers it, ends where the semantics say, with the
//! addresses, Ethernet addresses and time to live that they say.
//!
//! `GON_TEST_LONG=1` tries a hundred thousand sets of rules instead of ten thousand; `GON_TEST_SEED=n` one case, in detail.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::Ipv4Addr;

use gon_net::flow::{IP_ICMP, IP_TCP, IP_UDP, mac_bits, mac_from_bits};
use gon_net::pipeline::{self, Stage};
use gon_net::service::{EXT_PORT, META_PORT, TUNNEL_PORT};
use gon_net::trace::{Conntrack, Packet, forward, trace};
use gon_net::{Action, Compiled, Field, Flow, FlowTable, Match, compile, diff};
use gon_types::MacAddr;

use crate::model::{Arrived, ICMP, Model, Place, Sent};
use crate::random::{Case, Probe};
use crate::topology::{EXT_MAC, META_MAC, Topology, allow, facts_of, underlay, via_gateway};

const NODES: u32 = 2;

/// The flows of each node, and their connections.
struct Site {
    place: Vec<(u16, u32)>,
    nodes: Vec<(Compiled, Conntrack)>,
}

impl Site {
    fn new(case: &Case) -> Self {
        let (topology, place) = (case.topology(), case.place());
        let node = |n| compile(&topology.on_node(n, &place).doc, &facts_of(n));
        let nodes: Vec<_> = (1..=NODES).map(|n| (node(n), Conntrack::new())).collect();
        assert!(nodes.iter().all(|(c, _)| c.degraded.is_empty()), "{:?}", nodes[0].0.degraded);
        Self { place, nodes }
    }

    fn node_of(&self, port: u16) -> u32 {
        self.place.iter().find(|(no, _)| *no == port).unwrap().1
    }

    /// How many distinct sets of rules are in force.
    fn policies(&self) -> usize {
        let all = self.nodes.iter().flat_map(|(c, _)| c.zones.values().map(|z| z.policy));
        all.collect::<BTreeSet<_>>().len()
    }

    /// All that arrives anywhere, and how it got there if that is asked for.
    fn send(&mut self, sent: &Sent, mut path: Option<&mut String>) -> Vec<Arrived> {
        let (mut node, mut port) = match sent.from {
            Place::Port(no) => (self.node_of(no), u32::from(no)),
            Place::Outside(node) => (node, EXT_PORT),
            Place::Service(_) => return vec![],
        };
        let mut packet = packet_of(sent);
        let mut arrived = vec![];
        // Through one tunnel at most.
        for _ in 0..2 {
            let (compiled, conntrack) = &mut self.nodes[node as usize - 1];
            let outputs = match &mut path {
                None => forward(&compiled.flows, port, &packet, conntrack),
                Some(path) => {
                    let verdict = trace(&compiled.flows, port, &packet, conntrack);
                    **path += &format!("node {node}, from port {port}\n{verdict}");
                    verdict.outputs
                }
            };
            let mut on = None;
            for (out, packet) in outputs {
                match out {
                    TUNNEL_PORT => on = Some(packet),
                    _ => arrived.push(arrived_at(sent, node, out, &packet)),
                }
            }
            let Some(tunnelled) = on else { break };
            let from = u64::from(u32::from(underlay(node)));
            node = u32::try_from(tunnelled.get(Field::TunDst)).unwrap() - u32::from(underlay(0));
            port = TUNNEL_PORT;
            packet = tunnelled.with(Field::TunDst, 0).with(Field::TunSrc, from);
        }
        arrived
    }
}

fn packet_of(sent: &Sent) -> Packet {
    let packet = Packet::ip((sent.src_mac, sent.src), (sent.dst_mac, sent.dst), sent.proto)
        .with(Field::IpTtl, sent.ttl.into());
    let (sport, dport) = (sent.sport.into(), sent.dport.into());
    match sent.proto {
        IP_TCP => packet
            .with(Field::TcpSrc, sport)
            .with(Field::TcpDst, dport)
            .with(Field::TcpFlags, if sent.answers { 0x12 } else { 0x02 }),
        IP_UDP => packet.with(Field::UdpSrc, sport).with(Field::UdpDst, dport),
        IP_ICMP => packet.with(Field::IcmpType, sport).with(Field::IcmpCode, dport),
        _ => packet,
    }
}

fn arrived_at(sent: &Sent, node: u32, port: u32, packet: &Packet) -> Arrived {
    let at = match (port, sent.from) {
        (EXT_PORT, _) => Place::Outside(node),
        (META_PORT, Place::Port(from)) => {
            // Rewritten for the service; how, is `services`' matter.
            assert_eq!(packet.get(Field::EthDst), mac_bits(META_MAC));
            let (src_mac, src, dst, dst_mac) = (MacAddr::ROUTER, sent.dst, sent.src, sent.src_mac);
            return Arrived { at: Place::Service(from), src_mac, dst_mac, src, dst, ttl: 64 };
        }
        _ => Place::Port(u16::try_from(port).unwrap()),
    };
    Arrived {
        at,
        src_mac: mac_from_bits(packet.get(Field::EthSrc)),
        dst_mac: mac_from_bits(packet.get(Field::EthDst)),
        src: packet.addr(Field::IpSrc),
        dst: packet.addr(Field::IpDst),
        ttl: u8::try_from(packet.get(Field::IpTtl)).unwrap(),
    }
}

/// The first packet about which flows and model differ.
struct Difference {
    probe: Probe,
    sent: Sent,
    wanted: Option<Arrived>,
    got: Vec<Arrived>,
}

#[derive(Default)]
struct Tally {
    policies: usize,
    packets: usize,
    delivered: usize,
    answered: usize,
}

fn compare(case: &Case, bug: Bug, tally: &mut Tally) -> Option<Difference> {
    let topology = case.topology();
    let place = case.place();
    let mut site = Site::new(case);
    for (compiled, _) in &mut site.nodes {
        compiled.flows = bug(std::mem::take(&mut compiled.flows));
    }
    tally.policies += site.policies();
    let mut model = Model::new(&topology.doc, &place, EXT_MAC);
    for probe in &case.probes {
        let Some(mut sent) = case.sent(probe) else { continue };
        for answer in [false, true] {
            let (wanted, got) = (model.send(&sent), site.send(&sent, None));
            tally.packets += 1;
            if got != wanted.iter().cloned().collect::<Vec<_>>() {
                return Some(Difference { probe: probe.clone(), sent, wanted, got });
            }
            let Some(arrived) = wanted else { break };
            tally.delivered += 1;
            tally.answered += usize::from(answer);
            // What a service answers is another test's matter, and the router's echo answers nothing.
            let echoed = arrived.at == sent.from && arrived.src == sent.dst && sent.proto == ICMP;
            if matches!(arrived.at, Place::Service(_)) || echoed {
                break;
            }
            sent = sent.answer(&arrived);
        }
    }
    None
}

/// What is planted into the flows of every node.
type Bug = fn(FlowTable) -> FlowTable;

fn explain(case: &Case, bug: Bug) -> String {
    let smallest = case.shrink(|case| compare(case, bug, &mut Tally::default()).is_some());
    let Some(found) = compare(&smallest, bug, &mut Tally::default()) else { return String::new() };
    let mut path = String::new();
    let mut site = Site::new(&smallest);
    for (compiled, _) in &mut site.nodes {
        compiled.flows = bug(std::mem::take(&mut compiled.flows));
    }
    for probe in &smallest.probes {
        let Some(sent) = smallest.sent(probe) else { continue };
        path.clear();
        let arrived = site.send(&sent, Some(&mut path));
        if found.sent.answers
            && let Some(arrived) = arrived.first()
        {
            site.send(&sent.answer(arrived), Some(&mut path));
        }
        if *probe == found.probe {
            break;
        }
    }
    let Difference { sent, wanted, got, .. } = found;
    format!("{smallest:#?}\n{path}\nsent   {sent:?}\nwanted {wanted:?}\ngot    {got:?}")
}

fn measure<T>(ordinary: T, full: T) -> T {
    if std::env::var_os("GON_TEST_LONG").is_some_and(|v| v == "1") { full } else { ordinary }
}

/// In the long run its figures are collected in a file.
fn say(text: &str) {
    println!("{text}");
    if let Some(path) = std::env::var_os("GON_TEST_FIGURES") {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        writeln!(file, "flows and model: {text}").unwrap();
    }
}

fn right(flows: FlowTable) -> FlowTable {
    flows
}

#[test]
fn flows_do_what_the_semantics_say() {
    let one = std::env::var("GON_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let enough = measure(10_000, 100_000);
    let mut tally = Tally::default();
    for seed in one.unwrap_or(0).. {
        let case = Case::random(seed, 10);
        if compare(&case, right, &mut tally).is_some() {
            panic!("GON_TEST_SEED={seed}: {}", explain(&case, right));
        }
        if one.is_some() || tally.policies >= enough {
            let Tally { policies, packets, delivered, answered } = tally;
            say(&format!(
                "{policies} policies of {} sites: {packets} packets, {delivered} delivered, {answered} of them answers",
                seed + 1
            ));
            // Neither all let in nor all kept out.
            assert!(one.is_some() || (delivered * 10 > packets && delivered * 10 < packets * 9));
            assert!(one.is_some() || answered * 20 > packets);
            return;
        }
    }
}

fn without(flows: FlowTable, bad: impl Fn(&Flow) -> bool) -> FlowTable {
    FlowTable::from_flows(flows.flows().iter().filter(|f| !bad(f)).cloned().collect())
}

fn changed(flows: FlowTable, change: impl Fn(&mut Flow)) -> FlowTable {
    let mut all = flows.flows().to_vec();
    all.iter_mut().for_each(change);
    FlowTable::from_flows(all)
}

/// A test of the test: each of these is found within some hundred sites.
#[test]
fn planted_bugs_are_found() {
    let bugs: [(&str, Bug); 10] = [
        ("a black hole is no route", |f| {
            without(f, |f| {
                f.table == Stage::Route.table() && f.priority < 5000 && f.actions.is_empty() && f.priority > 0
            })
        }),
        ("members of one clause are those of all groups", |f| {
            changed(f, |f| {
                for action in &mut f.actions {
                    if let Action::Conjunction { id, .. } = action {
                        *id = 7;
                    }
                }
                if f.matches.get(Field::ConjId).is_some() {
                    f.matches = Match::any().with(Field::ConjId, 7);
                }
            })
        }),
        ("rules allow both ways", |f| {
            changed(f, |f| {
                if f.table == Stage::Policy.table() {
                    f.matches = f.matches.clone().masked(pipeline::LENS, 0, 0);
                }
            })
        }),
        ("answers are nobody's", |f| {
            without(f, |f| {
                f.table == Stage::Judge.table()
                    && f.actions.contains(&Action::Resubmit { table: Stage::Policy.table(), ct: true })
            })
        }),
        ("nothing is denied on the way out of a subnet", |f| {
            changed(f, |f| {
                if f.table == Stage::AclOut.table() && f.actions.is_empty() {
                    f.actions = vec![Action::go(Stage::Route.table())];
                }
            })
        }),
        ("VPCs are not told apart", |f| {
            changed(f, |f| {
                if f.table == Stage::Locate.table() {
                    f.matches = f.matches.clone().masked(pipeline::VPC, 0, 0);
                }
            })
        }),
        ("the router takes no hop", |f| {
            changed(f, |f| {
                if f.table == Stage::Route.table() {
                    f.actions.retain(|a| *a != Action::DecTtl);
                }
            })
        }),
        ("anybody's source will do", |f| {
            changed(f, |f| {
                if f.table == Stage::Admit.table() && !f.actions.is_empty() {
                    f.matches = f.matches.clone().masked(Field::IpSrc, 0, 0);
                }
            })
        }),
        ("whoever has a public address is reached", |f| {
            changed(f, |f| {
                if f.table == Stage::Arrival.table() {
                    f.actions = vec![Action::go(Stage::Locate.table())];
                }
            })
        }),
        ("nobody on another node is believed", |f| {
            without(f, |f| f.table == Stage::TunnelIn.table() && f.priority > 0)
        }),
    ];
    for (name, bug) in bugs {
        let found =
            (0..600).find(|seed| compare(&Case::random(*seed, 10), bug, &mut Tally::default()).is_some());
        let seed = found.unwrap_or_else(|| panic!("nobody notices that {name}"));
        let case = Case::random(seed, 10);
        let small = case.shrink(|case| compare(case, bug, &mut Tally::default()).is_some());
        println!("{name}: seed {seed}, {} ports and {} packets tell", small.ports.len(), small.probes.len());
        assert!(small.ports.len() <= 3 && small.probes.len() <= 2, "{name}: {small:#?}");
    }
}

/// Sizes that must not multiply: see ADR 11.
#[test]
fn a_group_that_many_name_is_listed_once() {
    let members: Vec<Ipv4Addr> = (0..1000).map(|n| Ipv4Addr::from(0x0a01_0000 + n)).collect();
    let site = |sets: u32, members: &[Ipv4Addr]| {
        let mut topology = Topology::new()
            .vpc(1, "10.0.0.0/15", false)
            .subnet(11, 1, "10.0.0.0/22", vec![])
            .group(999, 1, vec![]);
        for n in 0..sets {
            let rules = (0..60).map(|r| allow(n * 100 + r, &format!("in tcp {} from sg 999", 1000 + 2 * r)));
            topology = topology.group(n + 1, 1, rules.collect());
        }
        topology.doc.groups[0].members = members.to_vec();
        for n in 0..sets {
            let address = Ipv4Addr::from(0x0a00_0010 + n).to_string();
            topology = topology.port(16 + u16::try_from(n).unwrap(), 11, &address, &[n + 1], None);
        }
        compile(&topology.doc, &facts_of(1)).flows
    };
    let policy = |flows: &FlowTable| flows.of_table(Stage::Policy.table()).len() - 1;
    let (one, two, ten) = (site(1, &members), site(2, &members), site(10, &members));
    println!("1000 members x 60 rules: {} flows; ten sets of groups: {}", policy(&one), policy(&ten));
    // Members once, then each set's sixty ports and its line for later fragments, and the conjunction itself.
    assert_eq!(policy(&one), 1000 + 61 + 1);
    assert_eq!(policy(&two), 1000 + 2 * 61 + 1);
    assert_eq!(policy(&ten), 1000 + 10 * 61 + 1);
    // Who leaves is one flow, whoever names the group.
    assert_eq!(diff(&ten, &site(10, &members[1..])).len(), 1);
}

/// 20 rules per port (OVN 88 and 78 flows): in one group for all, and in a group for each; without public addresses.
#[test]
fn flows_per_port_with_twenty_rules() {
    let flows = |ports: u16, own: bool| {
        let mut topology = Topology::new().vpc(1, "10.0.0.0/16", true).subnet(
            11,
            1,
            "10.0.0.0/18",
            vec![via_gateway("0.0.0.0/0", 1)],
        );
        let groups = if own { u32::from(ports) } else { 1 };
        for g in 1..=groups {
            let rules = (0..20).map(|k| {
                let peer = if k < 15 { format!("10.{k}.0.0/16") } else { format!("sg {g}") };
                allow(g * 100 + k, &format!("in tcp {} from {peer}", 1000 + k))
            });
            topology = topology.group(g, 1, rules.collect());
        }
        for n in 0..ports {
            let address = Ipv4Addr::from(0x0a00_0010 + u32::from(n)).to_string();
            let group = if own { u32::from(n) + 1 } else { 1 };
            topology = topology.port(16 + n, 11, &address, &[group], None);
        }
        compile(&topology.doc, &facts_of(1)).flows.len()
    };
    for (own, most) in [(false, 20.0), (true, 45.0)] {
        let per_port = (flows(300, own) - flows(100, own)) as f64 / 200.0;
        println!("{} groups: {per_port:.1} flows per port", if own { "own" } else { "shared" });
        assert!(per_port <= most, "{per_port}");
    }
}
