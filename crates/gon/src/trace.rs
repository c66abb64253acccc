//! `gon trace …`: what becomes of a packet, for operators. The API follows it; here it is written down for a person.

use std::fmt::Write as _;

use anyhow::{Context, bail};
use gon_api::trace::{LiveTrace, PacketTrace, TraceStage};
use serde_json::{Value, json};

use crate::output;
use crate::session::{self, Api};

/// What to follow.
#[derive(Debug, clap::Args)]
pub struct Asked {
    /// `eni-…`, or the instance `i-…` if it has one interface.
    pub port: String,
    /// The first packet of a connection: "tcp,10.0.1.5:40000>10.0.2.7:22", "icmp,10.0.1.5>8.8.8.8".
    pub packet: String,
    /// Ask the switches of those nodes, too; fails unless they say the same.
    #[arg(long)]
    pub live: bool,
    /// Show the flow of each stage, too, in Open vSwitch's words.
    #[arg(long)]
    pub flows: bool,
}

/// Does it. With `live` it fails unless every switch on the way says the same.
pub async fn run(api: &mut Api, asked: &Asked, as_json: bool) -> anyhow::Result<()> {
    let interface = interface(api, &asked.port).await?;
    let body = json!({ "network_interface_id": interface, "packet": asked.packet, "live": asked.live });
    let answer = api.post("/api/v1/trace", &body).await?;
    let trace: PacketTrace =
        serde_json::from_value(answer.clone()).context("the API speaks another version than this client")?;
    if as_json {
        output::one(&answer)?;
    } else {
        output::line(written(&trace, asked.flows).trim_end());
    }
    match unlike(&trace) {
        nodes if nodes.is_empty() => Ok(()),
        nodes => bail!("this is not what the switch says on {}", nodes.join(", ")),
    }
}

/// The interface that is meant: itself, or the one of an instance that has no other.
async fn interface(api: &mut Api, port: &str) -> anyhow::Result<String> {
    if !port.starts_with("i-") {
        return Ok(port.to_owned());
    }
    let path = session::list_path("network-interfaces", &[format!("instance_id={port}")])?;
    let interfaces = api.list(&path).await?;
    let ids: Vec<&str> = interfaces.iter().filter_map(|i| i.get("id").and_then(Value::as_str)).collect();
    match ids[..] {
        [id] => Ok(id.to_owned()),
        [] => bail!("'{port}' has no network interface that this account sees: name it, eni-…"),
        _ => bail!("'{port}' has several network interfaces, name one of them: {}", ids.join(", ")),
    }
}

/// The nodes whose switch does not say the same, or nothing.
fn unlike(trace: &PacketTrace) -> Vec<&str> {
    let differs = |live: &LiveTrace| live.verdict != "same";
    let hops = trace.hops.iter().filter(|hop| hop.live.as_ref().is_some_and(differs));
    hops.map(|hop| hop.node_name.as_str()).collect()
}

/// For a person. Writing into a `String` cannot fail.
fn written(trace: &PacketTrace, flows: bool) -> String {
    let mut text = String::new();
    for hop in &trace.hops {
        let _ = writeln!(text, "on {} ({})", hop.node_name, hop.node_id);
        for TraceStage { stage, because, dropped, table, priority, matches } in &hop.stages {
            let mark = if *dropped { "✗" } else { "·" };
            let _ = writeln!(text, "{}", format!("  {mark} {stage:<14} {because}").trim_end());
            if flows {
                let comma = if matches.is_empty() { "" } else { "," };
                let _ = writeln!(text, "      table={table},priority={priority}{comma}{matches}");
            }
        }
        if let Some(live) = &hop.live {
            let words = match live.verdict.as_str() {
                "same" => "= the switch: the same",
                "differs" => "! the switch differs",
                _ => "? the switch was not heard",
            };
            let _ = writeln!(text, "  {words}: {}", live.detail);
            for flow in &live.flows {
                let _ = writeln!(text, "      {flow}");
            }
        }
    }
    let _ = writeln!(text, "{}", trace.end);
    // A terminal takes what it is sent for commands.
    text.chars().map(|c| if c.is_control() && c != '\n' { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use gon_api::trace::TraceHop;

    use super::*;

    fn trace(live: Option<(&str, &str, &[&str])>) -> PacketTrace {
        let stage = |stage: &str, because: &str, dropped, table, matches: &str| TraceStage {
            stage: stage.to_owned(),
            because: because.to_owned(),
            dropped,
            table,
            priority: 100,
            matches: matches.to_owned(),
        };
        PacketTrace {
            network_interface_id: "eni-1".to_owned(),
            packet: "icmp,10.0.1.5>10.0.1.6".to_owned(),
            dropped: true,
            end: "dropped in policy".to_owned(),
            hops: vec![TraceHop {
                node_id: "node-1".to_owned(),
                node_name: "n\u{1b}1".to_owned(),
                stages: vec![
                    stage("local", "", false, 10, ""),
                    stage("policy", "no rule of its security groups allows it", true, 81, "reg3=0x1"),
                ],
                live: live.map(|(verdict, detail, flows)| LiveTrace {
                    verdict: verdict.to_owned(),
                    detail: detail.to_owned(),
                    flows: flows.iter().map(|f| (*f).to_owned()).collect(),
                }),
            }],
        }
    }

    #[test]
    fn a_person_reads_who_decided() {
        let written = |trace: &PacketTrace| super::written(trace, true);
        assert_eq!(
            super::written(&trace(None), false),
            "on n?1 (node-1)\n  · local\n  ✗ policy         no rule of its security groups allows it\ndropped in policy\n"
        );
        let stages = "on n?1 (node-1)\n  · local\n      table=10,priority=100\n  \
                      ✗ policy         no rule of its security groups allows it\n      table=81,priority=100,reg3=0x1\n";
        assert_eq!(written(&trace(None)), format!("{stages}dropped in policy\n"));
        let same = trace(Some(("same", "2 flows", &[])));
        assert_eq!(written(&same), format!("{stages}  = the switch: the same: 2 flows\ndropped in policy\n"));
        assert_eq!(unlike(&same), [""; 0]);
        let other = trace(Some(("differs", "the switch lets it through", &["table=81, ip"])));
        let words = "  ! the switch differs: the switch lets it through\n      table=81, ip\n";
        assert_eq!(written(&other), format!("{stages}{words}dropped in policy\n"));
        assert_eq!(unlike(&other), ["n\u{1b}1"]);
        let silent = trace(Some(("unavailable", "node n1 did not answer", &[])));
        assert!(written(&silent).contains("  ? the switch was not heard: node n1 did not answer\n"));
        assert_eq!(unlike(&silent).len(), 1);
    }
}
