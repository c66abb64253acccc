//! What becomes of a packet, for operators: as the documents of nodes are compiled here, and as a node's switch says.
//!
//! Assumes for the first the documents as the controller gives them and nothing of the nodes themselves: the same compiler as
//! on a node, with the facts that a node is started with. For the second a switch that runs; it is asked over its control
//! socket (`ofproto/trace`), beside the agent, and nothing changes by that: no packet is sent, no connection remembered.
//!
//! Promises that only numbers and addresses reach the switch, never somebody's text.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use gon_driver::ovs::{self, Ovs, OvsError};
use gon_net::explain::{ExplainError, Explanation, Hop, Line, Question, QuestionError, explain};
use gon_net::flow::{Field, IP_ICMP, IP_TCP, IP_UDP, mac_from_bits};
use gon_net::service::{BRIDGE, TUNNEL_PORT};
use gon_net::trace::Packet;
use gon_net::{Cookie, External, Mirror, NodeFacts, Overlay};
use gon_proto::NodeNetwork;
use gon_proto::trace::{
    Followed, FollowedHop, FollowedLine, SwitchAnswer, SwitchQuestion, SwitchStep, TunnelEnds,
};
use gon_types::id::{NetworkInterfaceId, NodeId};
use ipnet::Ipv4Net;

use super::{chain, guard, plane};
use crate::ledger::{Ledger, LedgerError};

/// Where the router takes a question.
pub const PATH: &str = "/trace";

/// Why a packet could not be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FollowError {
    /// The words for the packet are wrong.
    #[error(transparent)]
    Question(#[from] QuestionError),
    /// There is no way to follow.
    #[error(transparent)]
    Explain(#[from] ExplainError),
}

/// A node's document, and its end of the tunnels.
pub type Told = (NodeNetwork, Option<Ipv4Addr>);

/// Follows the first packet of a connection that an interface begins, through the flows that these documents become.
/// `gateway`: the host's address in the pool of public addresses, as nodes are started with.
pub fn follow(
    nodes: &[Told],
    gateway: Option<Ipv4Net>,
    port: NetworkInterfaceId,
    packet: &str,
) -> Result<Followed, FollowError> {
    let question: Question = packet.parse()?;
    let nodes: Vec<_> = nodes
        .iter()
        .map(|(document, overlay)| (document.clone(), facts(document, *overlay, gateway)))
        .collect();
    Ok(followed(&explain(&nodes, port, &question)?))
}

/// What a node's agent tells the compiler; but that no connection was ever forgotten is assumed.
fn facts(document: &NodeNetwork, overlay: Option<Ipv4Addr>, gateway: Option<Ipv4Net>) -> NodeFacts {
    NodeFacts {
        node: document.node,
        meta_mac: plane::META_MAC,
        external: gateway.map(|gateway| External {
            gateway_mac: plane::EXT_MAC,
            gateway: gateway.addr(),
            pool: guard::pool(gateway),
        }),
        overlay: overlay.map(|address| Overlay { address }),
        mirror: Mirror::Off,
    }
}

/// The document that the network agent of this machine keeps in `dir`; `None` if it has none. The agent may run.
pub fn kept(dir: &Path, node: NodeId) -> Result<Option<NodeNetwork>, LedgerError> {
    if !dir.is_dir() {
        return Ok(None);
    }
    Ok(Ledger::open(dir, node)?.current().cloned())
}

fn followed(explanation: &Explanation) -> Followed {
    let line = |line: &Line| FollowedLine {
        stage: line.stage.to_owned(),
        because: line.because.clone(),
        routes_of: line.routes_of,
        dropped: line.dropped,
        table: line.step.table,
        priority: line.step.priority,
        cookie: line.step.cookie.to_bits(),
        matches: line.step.matches.to_string(),
        conjunction: !line.step.clauses.is_empty(),
    };
    let hop = |hop: &Hop| FollowedHop {
        node: hop.node,
        question: question(hop.in_port, &hop.packet),
        lines: hop.lines.iter().map(line).collect(),
        outputs: hop.outputs.clone(),
    };
    Followed {
        hops: explanation.hops.iter().map(hop).collect(),
        end: explanation.end.clone(),
        onward: explanation.onward,
    }
}

fn question(in_port: u32, packet: &Packet) -> SwitchQuestion {
    let small = |field| u8::try_from(packet.get(field)).unwrap_or(0);
    let number = |field| u16::try_from(packet.get(field)).unwrap_or(0);
    let proto = small(Field::IpProto);
    let ports = match proto {
        IP_TCP => (number(Field::TcpSrc), number(Field::TcpDst)),
        IP_UDP => (number(Field::UdpSrc), number(Field::UdpDst)),
        IP_ICMP => (number(Field::IcmpType), number(Field::IcmpCode)),
        _ => (0, 0),
    };
    let tunnel = (in_port == TUNNEL_PORT).then(|| TunnelEnds {
        key: u32::try_from(packet.get(Field::TunId)).unwrap_or(0),
        src: packet.addr(Field::TunSrc),
        dst: packet.addr(Field::TunDst),
    });
    SwitchQuestion {
        in_port,
        src_mac: mac_from_bits(packet.get(Field::EthSrc)),
        dst_mac: mac_from_bits(packet.get(Field::EthDst)),
        src: packet.addr(Field::IpSrc),
        dst: packet.addr(Field::IpDst),
        proto,
        ttl: small(Field::IpTtl),
        ports,
        tunnel,
    }
}

/// Why a switch did not say what would become of a packet.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No switch with our bridge runs here.
    #[error("this node has no bridge {BRIDGE}")]
    NoSwitch,
    /// It did not answer.
    #[error(transparent)]
    Ovs(#[from] OvsError),
}

/// Asks the switch of this machine what would become of a packet. It is found anew, and nothing is started.
pub async fn ask(config: &ovs::Config, question: &SwitchQuestion) -> Result<SwitchAnswer, AskError> {
    let switch = Ovs::find(config, BRIDGE).await?.ok_or(AskError::NoSwitch)?;
    let words = words(question);
    let args = [BRIDGE, words.as_str()];
    Ok(read(&switch.control("ofproto/trace", &args).await?, question.in_port))
}

/// The packet in Open vSwitch's words.
fn words(question: &SwitchQuestion) -> String {
    let SwitchQuestion { in_port, src_mac, dst_mac, src, dst, proto, ttl, ports: (from, to), tunnel } =
        question;
    let mut words = format!("in_port={in_port}");
    if let Some(TunnelEnds { key, src, dst }) = tunnel {
        let _ = write!(words, ",tun_id={key:#x},tun_src={src},tun_dst={dst}");
    }
    let _ = write!(words, ",dl_src={src_mac},dl_dst={dst_mac},ip,nw_proto={proto}");
    let _ = write!(words, ",nw_src={src},nw_dst={dst},nw_ttl={ttl}");
    let _ = match *proto {
        IP_TCP => write!(words, ",tcp_src={from},tcp_dst={to}"),
        IP_UDP => write!(words, ",udp_src={from},udp_dst={to}"),
        IP_ICMP => write!(words, ",icmp_type={from},icmp_code={to}"),
        _ => Ok(()),
    };
    words
}

/// Reads what `ofproto/trace` says: of our bridge alone, for what a tunnel makes of a packet is another bridge's matter.
fn read(text: &str, in_port: u32) -> SwitchAnswer {
    let mut answer = SwitchAnswer { steps: vec![], outputs: vec![] };
    let ours = format!("bridge(\"{BRIDGE}\")");
    let mut here = true;
    for line in text.lines().map(str::trim) {
        if line.starts_with("bridge(\"") {
            here = line == ours;
            continue;
        }
        if !here {
            continue;
        }
        if let Some(step) = step(line) {
            answer.steps.push(step);
        } else if line == "IN_PORT" {
            answer.outputs.push(in_port);
        } else if let Some(port) = line.strip_prefix("-> output port is ") {
            answer.outputs.extend(port.parse::<u32>().ok());
        } else if let Some(port) = line.strip_prefix("output:") {
            answer.outputs.extend(port.parse::<u32>().ok());
        } else if line.contains("skipping output to input port") {
            answer.outputs.pop();
        }
    }
    answer
}

/// ` 5. ip,in_port=16,nw_src=10.0.1.10, priority 100, cookie 0x4705…`
fn step(line: &str) -> Option<SwitchStep> {
    let (table, rest) = line.split_once(". ")?;
    let table = table.parse().ok()?;
    let rest = rest.trim();
    let mut step = SwitchStep { table, priority: 0, cookie: 0, ours: false, text: rest.to_owned() };
    let mut parts = rest.rsplit(", ");
    let mut last = parts.next()?;
    if let Some(cookie) = last.strip_prefix("cookie 0x") {
        step.cookie = u64::from_str_radix(cookie, 16).ok()?;
        step.ours = Cookie::from_bits(step.cookie).is_some();
        last = parts.next()?;
    }
    // "No match." has none.
    if let Some(priority) = last.strip_prefix("priority ") {
        step.priority = priority.parse().ok()?;
    }
    Some(step)
}

/// `POST` [`PATH`]: a [`SwitchQuestion`], answered by this node's switch.
pub fn router(config: ovs::Config) -> Router {
    Router::new().route(PATH, post(answer)).with_state(Arc::new(config))
}

async fn answer(State(config): State<Arc<ovs::Config>>, Json(question): Json<SwitchQuestion>) -> Response {
    match ask(&config, &question).await {
        Ok(answer) => Json(answer).into_response(),
        Err(error) => {
            let why = chain(&error);
            tracing::warn!(error = why, "the switch did not say what becomes of a packet");
            (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(proto: u8, ports: (u16, u16)) -> SwitchQuestion {
        SwitchQuestion {
            in_port: 16,
            src_mac: "02:00:00:00:00:10".parse().unwrap(),
            dst_mac: "0a:67:6f:6e:00:01".parse().unwrap(),
            src: [10, 0, 1, 10].into(),
            dst: [10, 0, 2, 7].into(),
            proto,
            ttl: 64,
            ports,
            tunnel: None,
        }
    }

    #[test]
    fn a_packet_has_the_switchs_words() {
        assert_eq!(
            words(&asked(IP_TCP, (40_000, 22))),
            "in_port=16,dl_src=02:00:00:00:00:10,dl_dst=0a:67:6f:6e:00:01,ip,nw_proto=6,\
             nw_src=10.0.1.10,nw_dst=10.0.2.7,nw_ttl=64,tcp_src=40000,tcp_dst=22"
        );
        let tunnel = Some(TunnelEnds { key: 7, src: [192, 0, 2, 1].into(), dst: [192, 0, 2, 2].into() });
        let text = words(&SwitchQuestion { in_port: 3, tunnel, ..asked(IP_ICMP, (8, 0)) });
        assert!(
            text.starts_with("in_port=3,tun_id=0x7,tun_src=192.0.2.1,tun_dst=192.0.2.2,dl_src="),
            "{text}"
        );
        assert!(
            text.ends_with(",nw_proto=1,nw_src=10.0.1.10,nw_dst=10.0.2.7,nw_ttl=64,icmp_type=8,icmp_code=0")
        );
        assert!(words(&asked(47, (0, 0))).ends_with("nw_ttl=64"));
    }

    #[test]
    fn what_the_switch_says_reads_back() {
        let text = r#"Flow: tcp,in_port=16,vlan_tci=0x0000

bridge("br-int")
----------------
 0. in_port=16, priority 100, cookie 0x4700000000000010
    set_field:0x1->reg0
    resubmit(,5)
 5. ip,in_port=16,nw_src=10.0.1.10, priority 100, cookie 0x4705000000000010
    ct(table=80,zone=NXM_NX_REG5[0..15])
    drop
     -> A clone of the packet is forked to recirculate. The forked pipeline will be resumed at table 80.

recirc(0x1) - resume conntrack with default ct_state=trk|new (use --ct-next to customize)
===============================================================================

bridge("br-int")
----------------
    thaw
        Resuming from table 80
80. priority 0
    output:NXM_NX_REG4[0..15]
     -> output port is 3
     -> tunneling to 192.0.2.2 via gon-under
        bridge("gon-under")
        -------------------
         0. priority 0
            NORMAL
             -> learned port is input port, dropping
            output:9

Final flow: unchanged
Megaflow: recirc_id=0x1,eth
Datapath actions: drop
"#;
        let answer = read(text, 16);
        let steps: Vec<_> = answer.steps.iter().map(|s| (s.table, s.priority, s.cookie)).collect();
        assert_eq!(steps, [(0, 100, 0x4700_0000_0000_0010), (5, 100, 0x4705_0000_0000_0010), (80, 0, 0)]);
        assert_eq!(answer.steps.iter().map(|s| s.ours).collect::<Vec<_>>(), [true, true, false]);
        assert_eq!(answer.outputs, [3]);
        assert_eq!(answer.steps[0].text, "in_port=16, priority 100, cookie 0x4700000000000010");
        let back = read("0. in_port=2, priority 9\n IN_PORT\n12. No match.\n", 2);
        assert_eq!((back.outputs, back.steps.len(), back.steps[1].priority), (vec![2], 2, 0));
    }
}
