//! Random sites, in packets: two nodes with a switch each and the underlay between them, documents compiled and installed by the
//! difference to the one before, as the agent does it; frames in at the ports, and what comes out held against the model.
//!
//! The switches stay the same over all sites, so every site is also a change of document, and what is installed is compared
//! with what was compiled now and then. Every number of a port is plugged on both nodes, so that a case places its ports as
//! it likes, and a frame that comes out on the wrong node is noticed.
//!
//! Nothing is waited for by the clock. A switch in userspace forwards in the thread that answers its control socket, so after
//! two answers everything that was in its devices' queues before the first is forwarded ([`Site::settle`]).
//!
//! `GON_TEST_LONG=1` tries ten times as many; `GON_TEST_SEED=n` begins with that site.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::future::{join, join_all};
use gon_driver::ovs::{Rpc, Switch};
use gon_net::service::{self, EXT_PORT, META_PORT};
use gon_net::{FlowTable, compile, cookie, diff};
use gon_proto::NodeNetwork;
use gon_types::MacAddr;
use serde_json::json;

use crate::interpreted::{self, Asked, BUGS, Bug, FORGETFUL, NODES, asked, measure, next, paths, right, say};
use crate::model::{Arrived, ICMP, Model, Place, Sent, TCP, UDP};
use crate::packets_lab::{Fabric, Lab, PATIENCE, Wire, arp, checksum, datagram, ethernet, ipv4};
use crate::random::{Case, Dice};
use crate::spoiled::{self, SPOILS, Spoiled};
use crate::topology::{EXT_MAC, META_MAC, Topology, facts_of, ip, mac};

/// Ports of a site, at most.
const PORTS: u16 = 8;
/// How long a control command may take.
const CONTROL: Duration = Duration::from_secs(10);
/// How long what must arrive may take beyond the settling, where it probably does not.
const IMPATIENCE: Duration = Duration::from_millis(50);

struct Node {
    switch: Switch,
    control: Rpc,
    installed: FlowTable,
    /// By the number of the port they lead to.
    wires: BTreeMap<u32, Wire>,
    lab: Lab,
}

struct Site {
    nodes: Vec<Node>,
    /// What services have been asked: from and to which address and port it came to them.
    asked: BTreeMap<Asked, (Ipv4Addr, Ipv4Addr, u16)>,
    /// What marks the next frame: its IP identification.
    mark: u16,
    /// How long what must arrive may take beyond the settling.
    patience: Duration,
    runtime: tokio::runtime::Runtime,
    _fabric: Fabric,
}

/// A packet that came out of a switch.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Got {
    node: u32,
    arrived: Arrived,
    /// Its checksums are right.
    whole: bool,
}

/// A packet, and the connection it is of.
type Numbered = (Sent, u16);
/// What answers the packets of a turn.
type Turn = Result<Vec<Numbered>, Difference>;

/// The first packet about which switches and model differ.
#[derive(Debug)]
struct Difference {
    sent: Sent,
    wanted: Option<Got>,
    got: Vec<Got>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, wanted, got } = self;
        write!(f, "sent   {sent:?}\nwanted {wanted:?}\ngot    {got:?}")
    }
}

#[derive(Debug, Default)]
struct Tally {
    packets: usize,
    delivered: usize,
    /// From one node to the other.
    between: usize,
    /// Flows, from one site to the next.
    changed: usize,
}

impl Site {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let fabric = Fabric::new();
        let nodes: Vec<Node> = (1..=NODES)
            .map(|n| {
                let nothing = Topology::new().on_node(n, &[]);
                let mut lab = Lab::node(&nothing, n, &fabric);
                let ports = lab.plug_bare(16..16 + PORTS).into_iter();
                let mut wires: BTreeMap<u32, Wire> = ports.map(|(no, wire)| (no.into(), wire)).collect();
                wires.extend([META_PORT, EXT_PORT].into_iter().zip(lab.bare_host()));
                wires.values().for_each(Wire::deaf_to_itself);
                let (bridge, control) = lab.sockets();
                let switch = runtime.block_on(Switch::connect(Path::new(&bridge))).unwrap();
                let installed = compile(&nothing.doc, &facts_of(n)).flows;
                Node { switch, control: Rpc::new(Path::new(&control)), installed, wires, lab }
            })
            .collect();
        for (from, to) in [(0, 2), (1, 1)] {
            nodes[from].lab.meet(to);
        }
        let asked = BTreeMap::new();
        let site = Self { nodes, asked, mark: 1, patience: PATIENCE, runtime, _fabric: fabric };
        site.audit();
        site
    }

    /// Makes both nodes be what the case says, with connections that are open or without. How many flows that changed.
    fn become_case(&mut self, case: &Case, bug: Bug, with_open: bool) -> usize {
        let flows = |(doc, n): (NodeNetwork, u32)| {
            let compiled = compile(&doc, &facts_of(n));
            assert_eq!(compiled.degraded, []);
            bug(compiled.flows)
        };
        self.take(case.documents().into_iter().zip(1..).map(flows).collect(), with_open)
    }

    /// Makes both nodes have these flows.
    fn take(&mut self, flows: Vec<FlowTable>, with_open: bool) -> usize {
        if !with_open {
            self.asked.clear();
        }
        let take_one = async |flows: FlowTable, node: &mut Node| {
            let mods = diff(&node.installed, &flows);
            node.switch.apply(&mods).await.unwrap();
            let changed = mods.len();
            // Neither a cached decision nor, of another site, a connection.
            let commands = ["revalidator/purge", "dpctl/flush-conntrack"];
            for command in &commands[..if with_open { 1 } else { 2 }] {
                node.control.call(command, json!([]), CONTROL).await.unwrap();
            }
            node.installed = flows;
            changed
        };
        let [first, second] = &mut self.nodes[..] else { unreachable!() };
        let Ok([of_first, of_second]) = <[FlowTable; 2]>::try_from(flows) else { unreachable!() };
        let both = join(take_one(of_first, first), take_one(of_second, second));
        let (first, second) = self.runtime.block_on(both);
        first + second
    }

    /// What the switches say they have is what was compiled.
    fn audit(&self) {
        for node in &self.nodes {
            let mark = u64::from(cookie::MARK) << 56;
            let flows = self.runtime.block_on(node.switch.flows(mark, cookie::MARK_MASK)).unwrap();
            let there = FlowTable::from_flows(flows.into_iter().map(|f| f.flow.unwrap()).collect());
            assert_eq!(there, node.installed);
        }
    }

    /// Waits until every frame that is on its way has come out: at its own node, through the tunnel at the other.
    fn settle(&self) {
        self.runtime.block_on(async {
            for _way in 0..3 {
                join_all(self.nodes.iter().map(|node| async move {
                    // The first may be answered after the devices were looked at, the second is not.
                    for _time in 0..2 {
                        node.control.call("version", json!([]), CONTROL).await.unwrap();
                    }
                }))
                .await;
            }
        });
    }

    /// Sends all of it, and gives what came out of each.
    fn exchange(&mut self, sent: &[(u32, &Sent, u16)], expected: usize) -> Vec<Vec<Got>> {
        let first = self.mark;
        for (node, sent, connection) in sent {
            let (port, on_wire) = match sent.from {
                Place::Port(no) => (no.into(), (*sent).clone()),
                Place::Outside(_) | Place::Router(_) => (EXT_PORT, (*sent).clone()),
                // As the service does it, which knows nothing of the guest's addresses.
                Place::Service(no) => {
                    let (asker, service, listens) = self.asked[&asked(no, sent)];
                    let ends = (META_MAC, MacAddr::ROUTER, service, asker, listens);
                    let (src_mac, dst_mac, src, dst, sport) = ends;
                    (META_PORT, Sent { src_mac, dst_mac, src, dst, sport, ..(*sent).clone() })
                }
            };
            let frame = frame(&on_wire, self.mark, *connection);
            self.nodes[*node as usize - 1].wires.get_mut(&port).unwrap().send(&frame);
            self.mark = self.mark.wrapping_add(1);
        }
        let mut got: Vec<Vec<Got>> = vec![vec![]; sent.len()];
        let mut count = 0;
        let begin = Instant::now();
        loop {
            self.settle();
            for (n, node) in (1..).zip(&mut self.nodes) {
                for (port, wire) in &mut node.wires {
                    while let Some(frame) = wire.poll() {
                        let Some(mark) = mark_of(&frame) else { continue };
                        let Some((_, sent, _)) = sent.get(usize::from(mark.wrapping_sub(first))) else {
                            continue;
                        };
                        count += 1;
                        let to_service = frame[..6] == META_MAC.0;
                        if let (META_PORT, Place::Port(no), true) = (*port, sent.from, to_service) {
                            let question = (no, sent.src, sent.dst, sent.proto, sent.sport, sent.dport);
                            self.asked.insert(question, as_asked(&frame));
                        }
                        got[usize::from(mark.wrapping_sub(first))].push(read(n, *port, sent, &frame));
                    }
                }
            }
            if count >= expected || begin.elapsed() > self.patience {
                return got;
            }
        }
    }

    /// Sends all of it, holds what came out against the model, and gives what answers it.
    fn turn(&mut self, model: &mut Model<'_>, case: &Case, all: &[Numbered], tally: &mut Tally) -> Turn {
        let place = case.place();
        let node_of = |at: Place| match at {
            Place::Port(no) | Place::Service(no) | Place::Router(no) => {
                place.iter().find(|(p, _)| *p == no).unwrap().1
            }
            Place::Outside(node) => node,
        };
        let mut want = |(sent, _): &Numbered| {
            let arrived = model.send(sent)?;
            Some(Got { node: node_of(arrived.at), arrived, whole: true })
        };
        let wanted: Vec<Option<Got>> = all.iter().map(&mut want).collect();
        let expected = wanted.iter().flatten().count();
        let sent: Vec<(u32, &Sent, u16)> =
            all.iter().map(|(sent, connection)| (node_of(sent.from), sent, *connection)).collect();
        let got = self.exchange(&sent, expected);
        tally.packets += sent.len();
        tally.delivered += expected;
        let mut answers = vec![];
        for (((sent, connection), wanted), got) in all.iter().zip(wanted).zip(got) {
            if got != wanted.iter().cloned().collect::<Vec<_>>() {
                return Err(Difference { sent: sent.clone(), wanted, got });
            }
            let Some(Got { node, arrived, .. }) = wanted else { continue };
            tally.between += usize::from(node != node_of(sent.from));
            answers.extend(next(case, sent, &arrived).map(|answer| (answer, *connection)));
        }
        Ok(answers)
    }

    /// What a case sends. No two are of one connection, so their order makes no difference; without ports that takes one
    /// alone.
    fn firsts(case: &Case) -> Vec<Numbered> {
        Self::apart(case.probes.iter().filter_map(|probe| case.sent(probe)))
    }
    fn apart(sent: impl Iterator<Item = Sent>) -> Vec<Numbered> {
        let mut portless = false;
        let apart =
            sent.filter(|s| [ICMP, TCP, UDP].contains(&s.proto) || !std::mem::replace(&mut portless, true));
        apart.zip(1..).collect()
    }

    /// Packets, what becomes of them where they arrive, and so on: answers, and what goes by way of the world beyond.
    fn turns(
        &mut self,
        model: &mut Model<'_>,
        case: &Case,
        mut all: Vec<Numbered>,
        tally: &mut Tally,
    ) -> Result<(), Difference> {
        while !all.is_empty() {
            all = self.turn(model, case, &all, tally)?;
        }
        Ok(())
    }

    /// The first difference between packets and model: all packets of a case, then what answers them.
    fn compare(&mut self, case: &Case, bug: Bug, tally: &mut Tally) -> Option<Difference> {
        let (topology, place) = (case.topology(), case.place());
        tally.changed += self.become_case(case, bug, false);
        let mut model = Model::new(&topology.doc, &place, EXT_MAC);
        self.turns(&mut model, case, Self::firsts(case), tally).err()
    }

    /// The same of what is open while a site changes: it is answered after the change, and once more after that is taken back.
    fn compare_change(
        &mut self,
        case: &Case,
        then: &Case,
        bug: Bug,
        tally: &mut Tally,
    ) -> Option<Difference> {
        let (before, after, place) = (case.topology(), then.topology(), case.place());
        self.become_case(case, bug, false);
        let mut model = Model::new(&before.doc, &place, EXT_MAC);
        let answers = match self.turn(&mut model, case, &Self::firsts(case), tally) {
            Ok(answers) => answers,
            Err(difference) => return Some(difference),
        };
        for (now, topology) in [(then, &after), (case, &before)] {
            tally.changed += self.become_case(now, bug, true);
            model = model.after(&topology.doc, &place);
            if let Err(difference) = self.turn(&mut model, case, &answers, tally) {
                return Some(difference);
            }
        }
        None
    }

    /// The first difference where something is impossible in the documents: whom it concerns is not there.
    fn compare_spoiled(
        &mut self,
        case: &Case,
        spoiled: &Spoiled,
        bug: spoiled::Bug,
        tally: &mut Tally,
    ) -> Option<Difference> {
        let place = case.place();
        let compiled = spoiled.compiled(bug, case);
        tally.changed += self.take(compiled.into_iter().map(|c| c.flows).collect(), false);
        let mut model = Model::new(&spoiled.sound, &place, EXT_MAC);
        let sent = Self::apart(spoiled.packets(case).into_iter());
        self.turns(&mut model, case, sent, tally).err()
    }

    /// What comes out anywhere of what closed ports say that is no packet of a case: who has the router's address, who will give
    /// me one?
    fn hears_of(&mut self, doors: &BTreeSet<u16>) -> Option<(u32, Vec<u8>)> {
        let everybody = MacAddr([0xff; 6]);
        for (no, own) in doors.iter().flat_map(|no| ["10.0.1.10", "10.0.2.10"].map(|own| (*no, own))) {
            let router = own.replace(".10", ".1");
            let asks = arp(1, (mac(no), ip(own)), (MacAddr([0; 6]), ip(&router)));
            let [nobody, all] = ["0.0.0.0", "255.255.255.255"].map(ip);
            let discover = ipv4(nobody, all, UDP, &datagram(68, 67, b"discover"));
            let frames = [
                ethernet(everybody, mac(no), 0x0806, &asks),
                ethernet(everybody, mac(no), 0x0800, &discover),
            ];
            for wire in self.nodes.iter_mut().filter_map(|node| node.wires.get_mut(&u32::from(no))) {
                frames.iter().for_each(|frame| wire.send(frame));
            }
        }
        self.settle();
        let wires = self.nodes.iter_mut().flat_map(|node| &mut node.wires);
        let about = |frame: &[u8]| doors.iter().any(|no| frame.windows(6).any(|six| six == mac(*no).0));
        let mut heard = wires.filter_map(|(port, wire)| Some((*port, wire.poll().filter(|f| about(f))?)));
        heard.next()
    }

    /// The smallest case that still differs.
    fn shrink(&mut self, case: &Case, bug: Bug) -> Case {
        let patience = std::mem::replace(&mut self.patience, IMPATIENCE);
        let site = RefCell::new(self);
        let differs = |case: &Case| site.borrow_mut().compare(case, bug, &mut Tally::default()).is_some();
        let small = case.shrink(differs);
        site.borrow_mut().patience = patience;
        small
    }

    fn explain(&mut self, case: &Case, bug: Bug) -> String {
        let small = self.shrink(case, bug);
        let difference = self.compare(&small, bug, &mut Tally::default());
        let difference = difference.map_or_else(|| "not again".to_owned(), |d| d.to_string());
        format!("{small:#?}\nThe flows by themselves:\n{}\n{difference}", paths(&small, bug))
    }
}

fn frame(sent: &Sent, mark: u16, connection: u16) -> Vec<u8> {
    let payload = match sent.proto {
        TCP => {
            let (seq, ack, flags): (u32, u32, u8) =
                if sent.answers { (5000, 1001, 0x12) } else { (1000, 0, 0x02) };
            let mut segment = [sent.sport.to_be_bytes(), sent.dport.to_be_bytes()].concat();
            segment.extend(seq.to_be_bytes());
            segment.extend(ack.to_be_bytes());
            segment.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
            let sum = transport_checksum(sent.src, sent.dst, TCP, &segment);
            segment[16..18].copy_from_slice(&sum.to_be_bytes());
            segment
        }
        UDP => {
            let mut datagram = [sent.sport, sent.dport, 8, 0].map(u16::to_be_bytes).concat();
            let sum = match transport_checksum(sent.src, sent.dst, UDP, &datagram) {
                // Zero would say that there is none.
                0 => u16::MAX,
                sum => sum,
            };
            datagram[6..8].copy_from_slice(&sum.to_be_bytes());
            datagram
        }
        ICMP => {
            let [kind, code] = [sent.sport, sent.dport].map(|n| u8::try_from(n).unwrap());
            let mut message = vec![kind, code, 0, 0];
            message.extend(connection.to_be_bytes());
            message.extend([0, 1]);
            let sum = checksum(&message).to_be_bytes();
            message[2..4].copy_from_slice(&sum);
            message
        }
        _ => vec![0; 8],
    };
    let mut packet = ipv4(sent.src, sent.dst, sent.proto, &payload);
    packet[4..6].copy_from_slice(&mark.to_be_bytes());
    packet[8] = sent.ttl;
    packet[10..12].copy_from_slice(&[0, 0]);
    let sum = checksum(&packet[..20]).to_be_bytes();
    packet[10..12].copy_from_slice(&sum);
    ethernet(sent.dst_mac, sent.src_mac, 0x0800, &packet)
}

/// With the addresses that it covers too; 0 over a segment or datagram that carries its own.
fn transport_checksum(src: Ipv4Addr, dst: Ipv4Addr, proto: u8, segment: &[u8]) -> u16 {
    let length = u16::try_from(segment.len()).unwrap().to_be_bytes();
    checksum(&[&src.octets()[..], &dst.octets(), &[0, proto], &length, segment].concat())
}

/// The mark of a frame, if it may be one of ours.
fn mark_of(frame: &[u8]) -> Option<u16> {
    let ours = frame.len() >= 42 && frame[12..15] == [8, 0, 0x45];
    ours.then(|| u16::from_be_bytes([frame[18], frame[19]]))
}

/// From and to which address, and to which port, a question came to a service.
fn as_asked(frame: &[u8]) -> (Ipv4Addr, Ipv4Addr, u16) {
    let address = |at: usize| Ipv4Addr::from(u32::from_be_bytes(frame[at..at + 4].try_into().unwrap()));
    (address(26), address(30), u16::from_be_bytes([frame[36], frame[37]]))
}

fn read(node: u32, port: u32, sent: &Sent, frame: &[u8]) -> Got {
    let mac = |at: usize| MacAddr(frame[at..at + 6].try_into().unwrap());
    let address = |at: usize| {
        let bytes: [u8; 4] = frame[at..at + 4].try_into().unwrap();
        Ipv4Addr::from(bytes)
    };
    let (src, dst, proto) = (address(26), address(30), frame[23]);
    let end = 14 + usize::from(u16::from_be_bytes([frame[16], frame[17]]));
    let body = frame.get(34..end).unwrap_or_default();
    let ports = [sent.sport, sent.dport].map(u16::to_be_bytes).concat();
    let whole = checksum(&frame[14..34]) == 0
        && proto == sent.proto
        && (![TCP, UDP].contains(&proto) || port == META_PORT || body.get(..4) == Some(&ports))
        && match proto {
            TCP | UDP => transport_checksum(src, dst, proto, body) == 0,
            ICMP => checksum(body) == 0,
            _ => body == [0; 8],
        };
    let at = match (port, sent.from) {
        (EXT_PORT, _) => Place::Outside(node),
        // As the port that it came from, by which the service knows whom it answers.
        (META_PORT, Place::Port(from)) if mac(0) == META_MAC && service::port_no(src) == Some(from) => {
            let Sent { src_mac, dst_mac, src, dst, .. } = *sent;
            let at = Place::Service(from);
            return Got { node, arrived: Arrived { at, src_mac, dst_mac, src, dst, ttl: frame[22] }, whole };
        }
        (META_PORT, Place::Port(from)) if mac(0) == service::EXPIRED_MAC => {
            let Sent { src_mac, dst_mac, .. } = *sent;
            let (at, known) =
                (Place::Router(from), Ipv4Addr::from(u32::from_be_bytes(frame[8..12].try_into().unwrap())));
            assert_eq!(service::port_no(known), Some(from));
            return Got { node, arrived: Arrived { at, src_mac, dst_mac, src, dst, ttl: frame[22] }, whole };
        }
        (META_PORT, _) => Place::Service(0),
        (port, _) => Place::Port(u16::try_from(port).unwrap()),
    };
    Got { node, arrived: Arrived { at, src_mac: mac(6), dst_mac: mac(0), src, dst, ttl: frame[22] }, whole }
}

#[test]
fn packets_go_where_the_model_says() {
    let first = std::env::var("GON_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    let mut site = Site::new();
    let mut tally = Tally::default();
    let begin = Instant::now();
    let sites = measure(300, 3000);
    for seed in first..first + sites {
        let case = Case::random(seed, PORTS);
        if let Some(difference) = site.compare(&case, right, &mut tally) {
            eprintln!("GON_TEST_SEED={seed}: {difference}");
            panic!("GON_TEST_SEED={seed}, smallest: {}", site.explain(&case, right));
        }
        let then = case.changed(&mut Dice::new(seed));
        if let Some(difference) = site.compare_change(&case, &then, right, &mut tally) {
            panic!("GON_TEST_SEED={seed}: {difference}\n{case:#?}\nthen\n{then:#?}");
        }
        if seed % 20 == 0 {
            site.audit();
        }
    }
    let Tally { packets, delivered, between, changed } = tally;
    let text = format!(
        "{sites} sites and as many changes of sites in {:.1?}, {changed} flows changed: {packets} packets, {delivered} delivered, {between} of them on the other node",
        begin.elapsed()
    );
    say("packets and model", &text);
    // Neither all let in nor all kept out, and through the tunnel often enough.
    assert!(delivered * 10 > packets && delivered * 10 < packets * 9);
    assert!(between * 20 > delivered);
}

/// The site of a seed with something impossible in its documents.
fn spoilt(seed: u64) -> Option<(Case, Spoiled)> {
    let case = Case::random(seed, PORTS);
    let spoil = SPOILS[usize::try_from(seed).unwrap() % SPOILS.len()];
    let spoiled = Spoiled::new(&case, spoil, &mut Dice::new(seed))?;
    Some((case, spoiled))
}

/// Who is closed is so in packets, too, and nobody else is.
#[test]
fn nothing_comes_from_a_closed_port_and_nothing_to_it() {
    let mut site = Site::new();
    let (mut tally, mut sites, mut reasons) = (Tally::default(), 0, BTreeSet::new());
    let begin = Instant::now();
    let seeds = measure(10, 100) * SPOILS.len() as u64;
    for (case, spoiled) in (0..seeds).filter_map(spoilt) {
        if let Some(difference) = site.compare_spoiled(&case, &spoiled, spoiled::right, &mut tally) {
            panic!("{}: {difference}\n{case:#?}", spoiled.what);
        }
        assert_eq!(site.hears_of(&spoiled.doors), None, "{}", spoiled.what);
        reasons.insert(spoiled.reason);
        sites += 1;
    }
    let Tally { packets, delivered, changed, .. } = tally;
    let text = format!(
        "{sites} sites spoilt for {} reasons in {:.1?}, {changed} flows changed: {packets} packets, {delivered} delivered",
        reasons.len(),
        begin.elapsed()
    );
    say("closed ports and packets", &text);
    assert!(reasons.len() == 20 && delivered * 40 > packets);
    // A test of the test, with the bugs that are in flows.
    site.patience = IMPATIENCE;
    for (name, bug) in &spoiled::BUGS[..5] {
        let seen = (0..100).filter_map(spoilt).find(|(case, spoiled)| {
            let differs = site.compare_spoiled(case, spoiled, *bug, &mut Tally::default()).is_some();
            differs || site.hears_of(&spoiled.doors).is_some()
        });
        let (_, spoiled) = seen.unwrap_or_else(|| panic!("nobody notices that {name}"));
        println!("{name}: {} tells", spoiled.what);
    }
}

/// A test of the test: a bug in the flows of both nodes is seen in packets, and the case that shows it made small.
#[test]
fn planted_bugs_are_seen_in_packets() {
    let mut site = Site::new();
    site.patience = IMPATIENCE;
    let (name, bug) = FORGETFUL;
    let seen = (0..300).any(|seed| {
        let case = Case::random(seed, PORTS);
        let then = case.changed(&mut Dice::new(seed));
        interpreted::compare_change(&case, &then, bug, &mut interpreted::Tally::default()).is_some()
            && site.compare_change(&case, &then, bug, &mut Tally::default()).is_some()
    });
    assert!(seen, "nobody notices that {name}");
    for (name, bug) in BUGS {
        // The interpreter is quicker in finding a case that might tell, and in making it small.
        let tells =
            |case: &Case| interpreted::compare(case, bug, &mut interpreted::Tally::default()).is_some();
        let cases = (0..2000).map(|seed| (seed, Case::random(seed, PORTS))).filter(|(_, case)| tells(case));
        let found = cases.take(10).find_map(|(seed, case)| {
            let mut differs = |case: Case| {
                site.compare(&case, bug, &mut Tally::default()).is_some().then_some((seed, case))
            };
            differs(case.shrink(tells)).or_else(|| differs(case))
        });
        let (seed, case) = found.unwrap_or_else(|| panic!("nobody notices that {name}"));
        let small = site.shrink(&case, bug);
        println!("{name}: seed {seed}, {} ports and {} packets tell", small.ports.len(), small.probes.len());
        assert!(small.ports.len() <= 3 && small.probes.len() <= 2, "{name}: {small:#?}");
        site.patience = PATIENCE;
        let without_it = site.compare(&small, right, &mut Tally::default());
        assert!(without_it.is_none(), "{name}: {small:#?}");
        site.patience = IMPATIENCE;
    }
}
