//! `gond admin trace`: what becomes of a packet of an interface of this node, by the document that its network agent keeps.
//!
//! Asks nobody but, with `--live`, the switch. So it works while the control plane is away, and tells what the node was told
//! from what its switch does.

use std::fmt::Write as _;

use anyhow::{Context, bail};
use clap::Args;
use gon_agent::network::trace;
use gon_control::service::trace::compare;
use gon_proto::trace::{Followed, FollowedHop, FollowedLine};

use crate::agents::{gateway, node_of, ovs_config};
use crate::config::Config;
use crate::layout::Layout;
use crate::probes::chain;
use crate::terminal;

/// `gond admin trace`
#[derive(Debug, Args)]
pub struct TraceArgs {
    /// The interface of this node that sends it: eni-….
    port: String,
    /// The first packet of a connection: "tcp,10.0.1.5:40000>10.0.2.7:22", "icmp,10.0.1.5>8.8.8.8".
    packet: String,
    /// Ask the switch, too; fails unless it says the same.
    #[arg(long)]
    live: bool,
    /// Show the flow of each stage, too, in Open vSwitch's words.
    #[arg(long)]
    flows: bool,
}

/// Does it.
pub async fn run(config: &Config, args: &TraceArgs) -> anyhow::Result<()> {
    let layout = Layout::new(&config.data_dir);
    let node = node_of(&layout).context("this machine is no node (yet)")?;
    let document = trace::kept(&layout.network(), node)?;
    let document = document.context("the network agent of this node has no document (yet)")?;
    let version = document.version;
    let named = |id: &gon_types::id::NetworkInterfaceId| {
        id.to_string() == args.port || id.uuid().to_string() == args.port
    };
    let port = document.ports.iter().map(|port| port.id).find(named);
    let port = port.with_context(|| format!("document {version} has no '{}' on this node", args.port))?;
    let told = [(document, config.network.overlay_address)];
    let followed = trace::follow(&told, Some(gateway(config.network.public_pool)), port, &args.packet)?;
    terminal::line(&format!("document {version}"));
    terminal::line(written(&followed, args.flows).trim_end());
    let Some(hop) = followed.hops.first().filter(|_| args.live) else { return Ok(()) };
    let answer = trace::ask(&ovs_config(config, &layout), &hop.question).await;
    let live = compare(hop, answer.map_err(|error| chain(&error)));
    for flow in &live.flows {
        terminal::line(&format!("      {flow}"));
    }
    match live.verdict.as_str() {
        "same" => terminal::line(&format!("the switch: the same: {}", live.detail)),
        "differs" => bail!("the switch differs: {}", live.detail),
        _ => bail!("the switch was not heard: {}", live.detail),
    }
    Ok(())
}

/// For a person. Writing into a `String` cannot fail.
fn written(followed: &Followed, flows: bool) -> String {
    let mut text = String::new();
    for FollowedHop { lines, .. } in &followed.hops {
        for FollowedLine { stage, because, dropped, table, priority, matches, .. } in lines {
            let mark = if *dropped { "✗" } else { "·" };
            let _ = writeln!(text, "{}", format!("  {mark} {stage:<14} {because}").trim_end());
            if flows {
                let comma = if matches.is_empty() { "" } else { "," };
                let _ = writeln!(text, "      table={table},priority={priority}{comma}{matches}");
            }
        }
    }
    let _ = writeln!(text, "{}", followed.end);
    text
}
