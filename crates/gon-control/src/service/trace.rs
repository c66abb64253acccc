//! What becomes of a packet, for operators: the documents of the nodes it comes through, as they would be published now, are
//! compiled and followed; on request the switches of those nodes are asked the same.
//!
//! Promises that nothing changes by it, and that what a switch says differently is shown, not judged: a change may just be
//! on its way to the node.

use std::collections::HashMap;
use std::sync::Arc;

use gon_api::page::NoQuery;
use gon_api::trace::{LiveTrace, PacketTrace, TraceHop, TracePacket, TraceStage};
use gon_proto::trace::{Followed, FollowedHop, FollowedLine, SwitchAnswer};
use gon_store::reference::Ref;
use gon_types::id::{NetworkInterface, NetworkInterfaceId, NodeId, RouteTableId};
use uuid::Uuid;

use super::error::{Kind, Refusal, Result};
use super::{Cx, parse};
use crate::api::{Json, NoTrace};
use crate::network::{NetworkSettings, resolve};

/// More nodes than this no packet comes through.
const MOST_NODES: usize = 4;

/// Follows a packet.
pub async fn trace(cx: Cx, (): (), _: NoQuery, Json(body): Json<TracePacket>) -> Result<PacketTrace> {
    const FIELD: &str = "network_interface_id";
    let tracer = cx.app.tracer.get().cloned().ok_or_else(|| {
        Refusal::new(Kind::Unavailable, "Unavailable", "this API server does not follow packets")
    })?;
    let id = parse::id::<NetworkInterface>(FIELD, &body.network_interface_id)?;
    let mut conn = cx.conn().await?;
    let found = Cx::found(gon_store::trace::interface(&mut conn, &Ref::from(&id)).await, &id);
    let (port, node) = found.map_err(|refusal| refusal.field(FIELD))?;
    let port = NetworkInterfaceId::from_uuid(port);
    let nowhere =
        || Refusal::conflict("IncorrectState", format!("the network interface '{port}' is on no node"));
    let mut at = gon_store::trace::node(&mut conn, node.ok_or_else(nowhere)?).await?;
    drop(conn);
    let (mut told, mut names, mut tables) = (vec![], vec![], HashMap::new());
    let followed = loop {
        let rows = gon_store::network_document::read(&cx.app.store, at.id).await?;
        tables.extend(rows.subnets.iter().filter_map(|s| Some((s.id, s.route_table_id?))));
        // What DHCP says is all that the settings decide; no packet goes by it.
        let document = resolve::document(NodeId::from_uuid(at.id), rows, &NetworkSettings::default())?;
        told.push((document, at.overlay_address));
        names.push((at.id, at.name));
        let (tracer, packet) = (Arc::clone(&tracer), body.packet.clone());
        let done = tokio::task::spawn_blocking(move || {
            let followed = tracer.follow(&told, port, &packet);
            (told, followed)
        });
        let (given_back, followed) =
            done.await.map_err(|_| Refusal::internal("following a packet panicked"))?;
        told = given_back;
        let followed = followed.map_err(refused)?;
        let next = match followed.onward {
            Some(address) if told.len() < MOST_NODES => {
                let mut conn = cx.conn().await?;
                gon_store::trace::node_at(&mut conn, address).await?
            }
            _ => None,
        };
        match next {
            Some(next) => at = next,
            None => break followed,
        }
    };
    let Followed { hops, mut end, onward } = followed;
    let dropped = onward.is_none() && hops.last().is_some_and(|hop| hop.outputs.is_empty());
    let mut shown = vec![];
    for hop in hops {
        let name = names.iter().find(|(id, _)| *id == hop.node.uuid()).map(|(_, name)| name.clone());
        let node_name = name.unwrap_or_default();
        let live =
            if body.live { Some(compare(&hop, tracer.ask(&node_name, &hop.question).await)) } else { None };
        shown.push(TraceHop {
            node_id: hop.node.to_string(),
            node_name,
            stages: hop.lines.into_iter().map(|line| stage(line, &tables)).collect(),
            live,
        });
    }
    if let Some(last) = shown.last().and_then(|hop| hop.stages.last()).filter(|_| dropped) {
        end = format!("dropped in {}: {}", last.stage, last.because);
    }
    Ok(PacketTrace { network_interface_id: port.to_string(), packet: body.packet, dropped, end, hops: shown })
}

fn refused(why: NoTrace) -> Refusal {
    match why {
        NoTrace::Packet(why) => Refusal::invalid("packet", why),
        NoTrace::Port(why) => Refusal::conflict("IncorrectState", why),
    }
}

/// `tables`: the route tables of subnets.
fn stage(line: FollowedLine, tables: &HashMap<Uuid, Uuid>) -> TraceStage {
    let FollowedLine { stage, mut because, routes_of, dropped, table, priority, matches, .. } = line;
    if let Some(table) = routes_of.and_then(|subnet| tables.get(&subnet.uuid())) {
        because = format!("{because}, {}", RouteTableId::from_uuid(*table));
    }
    TraceStage { stage, because, dropped, table, priority, matches }
}

/// What a switch says, beside what was compiled: the same flows, one after another, and the same ports to leave by?
#[must_use]
pub fn compare(hop: &FollowedHop, answer: Result<SwitchAnswer, String>) -> LiveTrace {
    let told = |verdict: &str, detail, flows| LiveTrace { verdict: verdict.to_owned(), detail, flows };
    let answer = match answer {
        Ok(answer) => answer,
        Err(why) => return told("unavailable", why, vec![]),
    };
    let SwitchAnswer { steps, mut outputs } = answer;
    let mut wanted = hop.outputs.clone();
    wanted.sort_unstable();
    outputs.sort_unstable();
    let same_end = wanted == outputs;
    let alike = hop.lines.iter().zip(&steps).take_while(|(line, step)| line.is(step)).count();
    if same_end && alike == hop.lines.len() && alike == steps.len() {
        return told("same", format!("{alike} flows"), vec![]);
    }
    let end = match (same_end, outputs.is_empty(), wanted.is_empty()) {
        (true, ..) => "the end is the same",
        (false, true, _) => "the switch drops it",
        (false, false, true) => "the switch lets it through",
        (false, false, false) => "it leaves by another port",
    };
    let after = match alike.checked_sub(1).and_then(|last| hop.lines.get(last)) {
        Some(line) => format!("after {}", line.stage),
        None => "first".to_owned(),
    };
    let ours = hop.lines.get(alike).map_or("nothing".to_owned(), |line| {
        format!("{} (table={},priority={})", line.stage, line.table, line.priority)
    });
    let theirs = steps.get(alike).map_or("nothing".to_owned(), |step| {
        let whose = if step.ours { "" } else { ", which no agent has made" };
        format!("table={},priority={}{whose}", step.table, step.priority)
    });
    let detail = match (alike == hop.lines.len(), alike == steps.len()) {
        (true, true) => end.to_owned(),
        _ => format!("{end}: {after} comes here {ours}, in the switch {theirs}"),
    };
    let flows = steps.into_iter().map(|step| format!("table={}, {}", step.table, step.text)).collect();
    told("differs", detail, flows)
}

#[cfg(test)]
mod tests {
    use gon_proto::trace::{SwitchQuestion, SwitchStep};
    use gon_types::MacAddr;

    use super::*;

    fn hop(flows: &[(u8, u16, u64)], outputs: &[u32]) -> FollowedHop {
        let line = |(table, priority, cookie): &(u8, u16, u64)| FollowedLine {
            stage: "policy".to_owned(),
            because: String::new(),
            routes_of: None,
            dropped: false,
            table: *table,
            priority: *priority,
            cookie: *cookie,
            matches: String::new(),
            conjunction: false,
        };
        FollowedHop {
            node: NodeId::from_uuid(uuid::Uuid::from_u128(1)),
            question: SwitchQuestion {
                in_port: 16,
                src_mac: MacAddr::ROUTER,
                dst_mac: MacAddr::ROUTER,
                src: [10, 0, 0, 4].into(),
                dst: [10, 0, 0, 5].into(),
                proto: 6,
                ttl: 64,
                ports: (1, 2),
                tunnel: None,
            },
            lines: flows.iter().map(line).collect(),
            outputs: outputs.to_vec(),
        }
    }

    fn answer(flows: &[(u8, u16, u64)], outputs: &[u32]) -> SwitchAnswer {
        let step = |(table, priority, cookie): &(u8, u16, u64)| SwitchStep {
            table: *table,
            priority: *priority,
            cookie: *cookie,
            ours: *cookie != 1,
            text: format!("priority {priority}"),
        };
        SwitchAnswer { steps: flows.iter().map(step).collect(), outputs: outputs.to_vec() }
    }

    #[test]
    fn a_switch_is_the_same_only_if_all_is() {
        let flows = [(0, 100, 7), (81, 200, 9)];
        let verdict = |flows: &[_], outputs: &[u32]| {
            let told = compare(&hop(&[(0, 100, 7), (81, 200, 9)], &[17]), Ok(answer(flows, outputs)));
            (told.verdict, told.detail)
        };
        assert_eq!(verdict(&flows, &[17]), ("same".to_owned(), "2 flows".to_owned()));
        for (flows, outputs, words) in [
            (
                &[(0, 100, 7), (81, 0, 9)][..],
                &[][..],
                "the switch drops it: after policy comes here policy (table=81",
            ),
            (&[(0, 100, 7), (81, 200, 8)], &[17], "the end is the same: after policy comes"),
            (
                &[(0, 100, 7)],
                &[17],
                "the end is the same: after policy comes here policy (table=81,priority=200), in the switch nothing",
            ),
            (
                &[(0, 100, 7), (81, 200, 9), (82, 1, 1)],
                &[17],
                "in the switch table=82,priority=1, which no agent has made",
            ),
            (&flows, &[18], "it leaves by another port"),
            (&flows, &[17, 18], "it leaves by another port"),
        ] {
            let (verdict, detail) = verdict(flows, outputs);
            assert_eq!(verdict, "differs", "{detail}");
            assert!(detail.contains(words), "{detail}");
        }
        // Of several groups that allow it the switch takes one, as it likes; but none of somebody else's.
        let mut several = hop(&flows, &[17]);
        several.lines[1].conjunction = true;
        for (cookie, wanted) in [(8, "same"), (1, "differs")] {
            let told = compare(&several, Ok(answer(&[(0, 100, 7), (81, 200, cookie)], &[17])));
            assert_eq!(told.verdict, wanted, "{}", told.detail);
        }
        let through = compare(&hop(&[(81, 0, 9)], &[]), Ok(answer(&[(81, 200, 9)], &[17])));
        assert!(through.detail.starts_with("the switch lets it through"), "{}", through.detail);
        assert_eq!(through.flows, ["table=81, priority 200"]);
        assert_eq!(compare(&hop(&flows, &[17]), Err("gone".to_owned())).verdict, "unavailable");
    }
}
