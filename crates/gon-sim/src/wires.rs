//! The network agent, as far as crashes matter: the order of ledger, flows, taps and reports; the rule by which it takes a
//! document is its own.

use std::cell::RefCell;
use std::rc::Rc;

use gon_agent::ledger::{Document as _, judge};
use gon_proto::{NetworkReport, PortReport, PortStatus};
use gon_types::DocumentVersion;
use gon_types::id::NetworkInterfaceId;

use crate::exec::{Bell, Either, MS, S, race};
use crate::machine::{DiskError, NetworkDocument, Port};
use crate::network;
use crate::server::Link;
use crate::world::{Bug, Ctx};

/// What the agent holds in memory.
struct Agent {
    /// What its ledger holds, as far as it knows.
    ledger: Option<Rc<NetworkDocument>>,
    /// The last accepted document.
    document: Option<Rc<NetworkDocument>>,
    /// Whether its ports have been seen to.
    ported: bool,
    /// What was offered and not yet looked at.
    offer: Option<Rc<NetworkDocument>>,
    report: Option<(NetworkReport, Vec<(usize, i64)>)>,
}

type Shared = Rc<RefCell<Agent>>;

/// Starts the process.
pub fn boot(ctx: &Ctx, node: usize) {
    let held = ctx.w.nodes[node].state.borrow().disk.network.clone();
    if let Some(held) = &held {
        // Perhaps it died right after it had written that.
        ctx.w.truth.borrow_mut().accepted_network(&ctx.w, node, held);
    }
    let agent = Agent { ledger: held.clone(), document: held, ported: false, offer: None, report: None };
    let agent: Shared = Rc::new(RefCell::new(agent));
    let (offered, reported) = (Bell::new(&ctx.w.exec), Bell::new(&ctx.w.exec));
    ctx.spawn(poll(ctx.clone(), node, Rc::clone(&agent), offered.clone()));
    ctx.spawn(post(ctx.clone(), node, Rc::clone(&agent), reported.clone()));
    ctx.spawn(work(ctx.clone(), node, agent, offered, reported));
}

async fn work(ctx: Ctx, node: usize, agent: Shared, offered: Bell, reported: Bell) {
    // Everything is made to be there again, from the ledger.
    let document = agent.borrow().document.clone();
    if let Some(document) = document {
        ctx.step(200 * MS).await;
        set_flows(&ctx, node, &document);
        set_ports(&ctx, node, &agent).await;
    }
    tell(&agent, &reported, &ctx, node);
    loop {
        if let Either::Left(()) = race(offered.heard(), ctx.sleep(S)).await {
            let offer = agent.borrow_mut().offer.take();
            if let Some(offer) = offer {
                take(&ctx, node, &agent, offer).await;
                tell(&agent, &reported, &ctx, node);
            }
        } else if tick(&ctx, node, &agent).await {
            tell(&agent, &reported, &ctx, node);
        }
    }
}

async fn tick(ctx: &Ctx, node: usize, agent: &Shared) -> bool {
    let (document, unwritten, ported) = {
        let a = agent.borrow();
        let unwritten =
            a.document.as_ref().is_some_and(|d| a.ledger.as_ref().is_none_or(|l| l.version < d.version));
        (a.document.clone(), unwritten, a.ported)
    };
    let Some(document) = document else { return false };
    if unwritten && write_down(ctx, node, agent, &document).await.is_err() {
        return false;
    }
    if !ported {
        set_ports(ctx, node, agent).await;
    }
    unwritten || !ported
}

async fn take(ctx: &Ctx, node: usize, agent: &Shared, document: Rc<NetworkDocument>) {
    let verdict = {
        let held = agent.borrow().ledger.clone();
        let mut offered = (*document).clone();
        offered.mass_change_ok |= ctx.w.has(Bug::NoBrake);
        judge(ctx.w.nodes[node].id, held.as_deref(), &offered)
    };
    match verdict {
        Ok(true) => {}
        Ok(false) => return,
        Err(error) => return ctx.note(|| format!("refuses a document: {error}")),
    }
    ctx.note(|| format!("takes network {}", document.version));
    agent.borrow_mut().document = Some(Rc::clone(&document));
    agent.borrow_mut().ported = false;
    // Flows and ledger at the same time: either may be first.
    let flows_first = ctx.percent(50);
    if flows_first {
        ctx.step(5 * MS).await;
        set_flows(ctx, node, &document);
    }
    let written = write_down(ctx, node, agent, &document).await;
    if !flows_first {
        ctx.step(5 * MS).await;
        set_flows(ctx, node, &document);
    }
    if written.is_ok() {
        set_ports(ctx, node, agent).await;
    }
}

async fn write_down(
    ctx: &Ctx,
    node: usize,
    agent: &Shared,
    document: &Rc<NetworkDocument>,
) -> Result<(), DiskError> {
    let held = Rc::clone(document);
    ctx.write_disk(node, move |disk| disk.network = Some(held)).await?;
    ctx.w.truth.borrow_mut().accepted_network(&ctx.w, node, document);
    agent.borrow_mut().ledger = Some(Rc::clone(document));
    Ok(())
}

fn set_flows(ctx: &Ctx, node: usize, document: &Rc<NetworkDocument>) {
    ctx.w.nodes[node].state.borrow_mut().flows = Some(Rc::clone(document));
}

/// Makes the taps of the document, removes all others.
async fn set_ports(ctx: &Ctx, node: usize, agent: &Shared) {
    let Some(document) = agent.borrow().document.clone() else { return };
    let state = &ctx.w.nodes[node].state;
    let old: Vec<Port> = state.borrow().taps.values().copied().collect();
    let forgets = ctx.w.has(Bug::TapForgotten);
    for port in old.into_iter().filter(|p| !document.ports.contains(p) && !forgets) {
        ctx.step(10 * MS).await;
        ctx.note(|| format!("removes the port of i-{}", port.instance.as_u128() as u32));
        ctx.w.truth.borrow_mut().tap_removed(&ctx.w, node, &port);
        state.borrow_mut().taps.remove(&port.device());
    }
    for port in &document.ports {
        if !state.borrow().taps.contains_key(&port.device()) {
            ctx.step(10 * MS).await;
            let taken = state.borrow().taps.values().any(|p| p.port_no == port.port_no);
            if taken && !forgets {
                ctx.w.fail(format_args!("node{node}: port number {} is used twice", port.port_no));
            }
            state.borrow_mut().taps.insert(port.device(), *port);
        }
    }
    agent.borrow_mut().ported = true;
}

fn tell(agent: &Shared, reported: &Bell, ctx: &Ctx, node: usize) {
    let mut a = agent.borrow_mut();
    let state = ctx.w.nodes[node].state.borrow();
    let (Some(flows), Some(ledger), true) = (&state.flows, &a.ledger, a.ported) else { return };
    // What is not on the disk may be undone by a crash.
    if ledger.version < flows.version {
        return;
    }
    let report = NetworkReport {
        format: gon_proto::FORMAT,
        node: ctx.w.nodes[node].id,
        applied: flows.version,
        vpcs: vec![],
        ports: state
            .taps
            .values()
            .filter(|port| !ctx.w.has(Bug::TapForgotten) || flows.ports.contains(port))
            .map(|port| PortReport { id: NetworkInterfaceId::from_uuid(port.nic), status: PortStatus::Ready })
            .collect(),
        overlay: None,
    };
    let report = Some((report, flows.vpcs.clone()));
    drop(state);
    if a.report != report {
        a.report = report;
        reported.ring();
    }
}

async fn poll(ctx: Ctx, node: usize, agent: Shared, offered: Bell) {
    let mut after = agent.borrow().ledger.as_ref().map_or(DocumentVersion::default(), |d| d.version);
    let link = Link::new(ctx.range(0, 7) as usize);
    let mut pause = 250 * MS;
    loop {
        let controllers = ctx.w.controllers();
        let answer = link
            .call(&ctx, &controllers, 35 * S, move |me, server| network::poll(me, server, node, after))
            .await;
        match answer {
            Ok(Some(document)) => {
                pause = 250 * MS;
                // A refused version is not asked for again; a newer one is.
                after = after.max(document.version());
                agent.borrow_mut().offer = Some(document);
                offered.ring();
            }
            Ok(None) => pause = 250 * MS,
            Err(_) => {
                ctx.sleep(pause / 2 + ctx.range(0, pause / 2)).await;
                pause = (pause * 2).min(5 * S);
            }
        }
    }
}

async fn post(ctx: Ctx, node: usize, agent: Shared, reported: Bell) {
    let link = Link::new(ctx.range(0, 7) as usize);
    loop {
        let report = agent.borrow().report.clone();
        let mut wait = 10 * S;
        if let Some((report, vpcs)) = report {
            let controllers = ctx.w.controllers();
            let sent = link
                .call(&ctx, &controllers, 10 * S, move |me, server| {
                    network::ingest(me, server, node, report, vpcs)
                })
                .await;
            if sent.is_err() {
                wait = S;
            }
        }
        let _ = race(reported.heard(), ctx.sleep(wait)).await;
    }
}
