//! What an operator is told of a packet is what the switches say of it, on both nodes that it comes through.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gon_agent::network::trace::{Told, ask, follow};
use gon_proto::RuleSpec;
use gon_proto::trace::{Followed, FollowedHop, SwitchAnswer, SwitchQuestion};
use gon_types::DocumentVersion;

use super::{Host, document, id, two_hosts, underlay};
use crate::model::{ICMP, Place, Sent, TCP, UDP};
use crate::network::{out, ping, port};
use crate::random::Case;
use crate::topology;

impl Host {
    /// What the switch says.
    fn ask(&self, question: &SwitchQuestion) -> SwitchAnswer {
        let (node, question) = (Arc::clone(&self.node), question.clone());
        self.run(async move {
            let config = node.lock().await.as_ref().unwrap().ovs();
            ask(&config, &question).await.unwrap()
        })
    }
    /// A flow above all others of its table, by which nothing passes; the agent takes it away within half a second or so.
    fn plant(&self, table: u8) {
        let node = Arc::clone(&self.node);
        let dir = self.run(async move { node.lock().await.as_ref().unwrap().run_dir() });
        let flow = format!("table={table},priority=65000,actions=drop");
        let command =
            format!("OVS_RUNDIR={} ovs-ofctl -O OpenFlow14 add-flow br-int {flow} 2>&1", dir.display());
        assert_eq!(self.sh(&command), "");
    }
}

/// In what the switch of that node says otherwise; `None` if it says the same.
fn disagreement(hosts: &[Host; 2], hop: &FollowedHop) -> Option<String> {
    let host = &hosts[usize::from(hop.node == id(2))];
    let answer = host.ask(&hop.question);
    let same = hop.lines.len() == answer.steps.len()
        && hop.lines.iter().zip(&answer.steps).all(|(line, step)| line.is(step));
    (!same || hop.outputs != answer.outputs)
        .then(|| format!("on node {}: {:#?}\nthe switch: {answer:#?}", host.n, hop))
}

/// From port 16, by what the nodes were told if these are the rules.
fn followed(rules: &[RuleSpec], packet: &str) -> Followed {
    let told = [1, 2].map(|n| (document(n, 1, rules), Some(underlay(n))));
    let gateway = "203.0.113.1/24".parse().unwrap();
    follow(&told, Some(gateway), port(16).id, packet).unwrap()
}

#[test]
fn an_operator_is_told_what_the_switches_say() {
    let hosts = two_hosts();
    let rules = [out(), ping()];
    for host in &hosts {
        host.start();
        host.settle(document(host.n, 1, &rules));
        host.overlay();
    }
    for (packet, nodes, end) in [
        ("icmp,10.0.1.5>10.0.1.6", 2, "delivered to "),
        ("tcp,10.0.1.5:40000>10.0.1.6:22", 2, "dropped in policy"),
        ("icmp,10.0.1.5>10.0.1.7", 1, "delivered to "),
        ("udp,10.0.1.5:40000>10.0.1.7:53", 1, "dropped in policy"),
        ("icmp,10.0.1.5>10.0.1.1", 1, "is answered by the router"),
        ("tcp,10.0.1.5:40000>169.254.169.254:80", 1, "is answered by the node's local services"),
        ("tcp,10.0.1.99:40000>10.0.1.6:22", 1, "dropped in admit"),
        ("udp,10.0.1.5:40000>8.8.8.8:53", 1, "dropped in gateway"),
        ("47,10.0.1.5>10.0.1.6", 2, "dropped in policy"),
    ] {
        let followed = followed(&rules, packet);
        assert!(followed.end.starts_with(end), "{packet}: {}", followed.end);
        assert_eq!(followed.hops.len(), nodes, "{packet}");
        for hop in &followed.hops {
            assert_eq!(disagreement(&hosts, hop), None, "{packet}");
        }
    }
    // The test of the test: were the switch not as compiled, it would be seen.
    let followed = followed(&[out()], "icmp,10.0.1.5>10.0.1.6");
    let answer = hosts[1].ask(&followed.hops[1].question);
    assert_eq!((followed.hops[1].outputs.as_slice(), answer.outputs.as_slice()), (&[][..], &[17][..]));
    for host in &hosts {
        host.remove();
    }
}

/// A site at random, as these hosts are told it.
fn told(case: &Case, generation: u64) -> [Told; 2] {
    let (site, place) = (case.topology(), case.place());
    [1, 2].map(|n| {
        let mut document = site.on_node(n, &place).doc;
        let renamed = |node| if node == topology::id(1) { id(1) } else { id(2) };
        document.node = id(n);
        document.addresses.iter_mut().for_each(|a| a.node = renamed(a.node));
        document.peers.iter_mut().for_each(|p| p.node = renamed(p.node));
        document.version = DocumentVersion { epoch: 1, generation };
        document.mass_change_ok = true;
        (document, Some(underlay(n)))
    })
}

/// A packet in the words of an operator.
fn words(sent: &Sent) -> String {
    let Sent { src, dst, sport, dport, .. } = sent;
    match sent.proto {
        TCP => format!("tcp,{src}:{sport}>{dst}:{dport}"),
        UDP => format!("udp,{src}:{sport}>{dst}:{dport}"),
        ICMP => format!("icmp,{src}>{dst}"),
        other => format!("{other},{src}>{dst}"),
    }
}

#[test]
fn whatever_an_operator_asks_the_switches_say_the_same() {
    const PACKETS: usize = 100;
    let hosts = two_hosts();
    hosts.iter().for_each(Host::start);
    let gateway = "203.0.113.1/24".parse().unwrap();
    let (mut seed, mut asked, mut ends) = (0, 0, BTreeMap::<_, usize>::new());
    let hops = loop {
        seed += 1;
        let case = Case::random(seed, 10);
        let told = told(&case, seed);
        for (host, (document, _)) in hosts.iter().zip(&told) {
            host.settle(document.clone());
        }
        let mut delivered = None;
        for sent in case.probes.iter().filter_map(|probe| case.sent(probe)) {
            let Place::Port(no) = sent.from else { continue };
            let packet = words(&sent);
            let followed = follow(&told, Some(gateway), topology::id(no.into()), &packet).unwrap();
            for hop in &followed.hops {
                assert_eq!(disagreement(&hosts, hop), None, "site {seed}: {packet}");
            }
            let last = followed.hops.last().unwrap();
            *ends.entry((followed.hops.len(), last.lines.last().unwrap().stage.clone())).or_default() += 1;
            asked += 1;
            if followed.hops.len() == 2 && followed.end.starts_with("delivered") {
                delivered = Some(followed.hops);
            }
        }
        if asked >= PACKETS
            && let Some(hops) = delivered
        {
            break hops;
        }
    };
    println!("{asked} packets of {seed} sites ended after so many nodes, there: {ends:?}");
    let nodes = |n| ends.keys().filter(|(nodes, _)| *nodes == n).count();
    assert!(nodes(1) >= 6 && nodes(2) >= 2, "{ends:?}");

    // One disagreement, planted on the second node; the agent mends it, and then they agree again.
    let host = &hosts[usize::from(hops[1].node == id(2))];
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        host.plant(hops[1].lines.last().unwrap().table);
        let answer = host.ask(&hops[1].question);
        if answer.outputs.is_empty() {
            let last = answer.steps.last().unwrap();
            assert_eq!((answer.steps.len(), last.priority, last.ours), (hops[1].lines.len(), 65000, false));
            break;
        }
        // The agent was quicker.
        assert!(Instant::now() < until, "what was planted is not seen: {answer:#?}");
    }
    assert_eq!(disagreement(&hosts, &hops[0]), None);
    while let Some(why) = disagreement(&hosts, &hops[1]) {
        assert!(Instant::now() < until, "{why}");
        std::thread::sleep(Duration::from_millis(50));
    }
    hosts.iter().for_each(Host::remove);
}
