//! The network controller, as `gon_control::network`; its memory of the nodes is its own.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use gon_control::network::memory::NodeMemory;
use gon_core::instance::Power;
use gon_core::removal::{self, is_meant};
use gon_core::report::is_news;
use gon_proto::NetworkReport;
use gon_store::network_document::LeavingRow;
use gon_types::DocumentVersion;
use gon_types::id::VpcId;
use uuid::Uuid;

use crate::bus::Wake;
use crate::compute::SWEEP;
use crate::db::{Durability, SqlError};
use crate::exec::{MS, S, Time, race};
use crate::machine::{NetworkDocument, Port};
use crate::server::{Controller, Documents, NotLeading, hold};
use crate::tables::{Doorbell, NETWORK, Tables};
use crate::world::{Bug, Ctx};

/// Starts the process.
pub fn boot(ctx: &Ctx, server: usize) {
    *ctx.w.servers[server].controller.borrow_mut() = new_memory(ctx);
    ctx.spawn(run(ctx.clone(), server));
}

/// Nothing.
pub fn new_memory(ctx: &Ctx) -> Controller {
    Controller {
        documents: Documents::new(&ctx.w.exec),
        leads: None,
        memory: BTreeMap::new(),
        reports: BTreeMap::new(),
    }
}

/// A VPC's id.
#[must_use]
pub fn vpc_id(vpc: usize) -> VpcId {
    VpcId::from_uuid(Uuid::from_u128((3 << 120) + vpc as u128))
}

async fn run(ctx: Ctx, server: usize) {
    ctx.spawn(crate::api::relay(ctx.clone(), server));
    loop {
        let epoch = ctx.win(NETWORK).await;
        {
            let mut controller = ctx.w.servers[server].controller.borrow_mut();
            controller.memory.clear();
            controller.reports.clear();
            controller.documents.clear();
            controller.leads = Some(epoch);
        }
        ctx.note(|| format!("leads since epoch {epoch}"));
        let work = race(lead(&ctx, server, epoch), watch(&ctx, epoch));
        let _ = race(work, ctx.keep_ticket(NETWORK)).await;
        ctx.note(|| "is deposed".to_owned());
        {
            let mut controller = ctx.w.servers[server].controller.borrow_mut();
            controller.leads = None;
            controller.documents.clear();
        }
        ctx.sleep(S).await;
    }
}

/// Until it is deposed: asks whether it is.
async fn watch(ctx: &Ctx, epoch: u64) {
    loop {
        ctx.sleep(S).await;
        if ctx.leader_sql(Durability::Read, (NETWORK, epoch), |_, _| Ok(())).await == Err(SqlError::Deposed) {
            return;
        }
    }
}

/// Until it is deposed: its rounds.
async fn lead(ctx: &Ctx, server: usize, epoch: u64) {
    let subscription = ctx.w.bus.subscribe(&ctx.w.exec, ctx.host);
    let mut sweep_at = ctx.w.exec.now();
    loop {
        let nodes: BTreeSet<usize> = match subscription.next(ctx, sweep_at).await {
            Wake::Sweep => {
                sweep_at = ctx.w.exec.now() + SWEEP;
                (0..ctx.w.nodes.len()).collect()
            }
            Wake::Rung(rings) => match concerned(ctx, server, &rings).await {
                Ok(nodes) => nodes,
                Err(_) => {
                    sweep_at = sweep_at.min(ctx.w.exec.now() + S);
                    continue;
                }
            },
        };
        for node in nodes {
            if refresh(ctx, server, epoch, node).await.is_err() {
                sweep_at = sweep_at.min(ctx.w.exec.now() + S);
                break;
            }
        }
        if ctx.w.servers[server].controller.borrow().leads != Some(epoch) {
            return;
        }
    }
}

/// The nodes that have, or had, a port in one of the VPCs that rang; and those that rang themselves.
async fn concerned(
    ctx: &Ctx,
    server: usize,
    rings: &BTreeSet<Doorbell>,
) -> Result<BTreeSet<usize>, SqlError> {
    let mut nodes = BTreeSet::new();
    let mut vpcs = Vec::new();
    for ring in rings {
        match ring {
            Doorbell::Vpc(vpc) => vpcs.push(*vpc),
            Doorbell::Node(node) => drop(nodes.insert(*node)),
            Doorbell::Instance(_) => {}
        }
    }
    if vpcs.is_empty() {
        return Ok(nodes);
    }
    {
        let controller = ctx.w.servers[server].controller.borrow();
        let known = controller.memory.iter();
        nodes.extend(
            known.filter(|(_, m)| vpcs.iter().any(|v| m.concerns(vpc_id(*v)))).map(|(node, _)| *node),
        );
    }
    let of = move |t: &mut Tables, _: Time| {
        let there = t.instances.iter().filter(|r| r.lives() && vpcs.contains(&r.vpc));
        Ok(there.filter_map(|r| r.node).collect::<Vec<_>>())
    };
    nodes.extend(ctx.sql(Durability::Read, of).await?);
    Ok(nodes)
}

/// Reads, resolves and publishes one node's document.
async fn refresh(ctx: &Ctx, server: usize, epoch: u64, node: usize) -> Result<(), SqlError> {
    let turn = ctx.w.servers[server].controller.borrow().documents.turn.clone();
    let _turn = if ctx.w.has(Bug::NoTurn) { None } else { Some(turn.take().await) };
    let (id, unplaced) = (ctx.w.nodes[node].id, ctx.w.has(Bug::DeviceOfEveryPlacement));
    let read = move |t: &mut Tables, _: Time| {
        let mut document = NetworkDocument {
            node: id,
            version: DocumentVersion::default(),
            mass_change_ok: false,
            vpcs: vec![],
            ports: vec![],
        };
        let mut leaving = Vec::new();
        for row in t.instances.iter().filter(|r| r.node == Some(node)) {
            if row.compute {
                let port_no = row.port_no.unwrap_or(0);
                let placement = if unplaced { 0 } else { row.epoch };
                document.ports.push(Port { nic: row.nic, instance: row.id, port_no, placement });
                document.vpcs.push((row.vpc, t.vpcs[row.vpc]));
            } else {
                leaving.push(LeavingRow { id: row.nic, instance_id: row.id, awaited: row.network });
            }
        }
        document.vpcs.sort_unstable();
        document.vpcs.dedup();
        Ok((document, leaving))
    };
    let (mut document, leaving) = ctx.leader_read((NETWORK, epoch), read).await?;
    let had = {
        let controller = ctx.w.servers[server].controller.borrow();
        let said = controller.reports.get(&node);
        let said = said.map(|(report, _)| report.ports.iter().map(|p| p.id.uuid()).collect::<BTreeSet<_>>());
        let told = controller.memory.get(&node).and_then(NodeMemory::had);
        removal::known(told, said)
    };
    let mass = match had {
        None => false,
        Some(mut missing) => {
            missing.retain(|nic| !document.ports.iter().any(|port| port.nic == *nic));
            let gone = missing.len();
            let left = move |t: &mut Tables, _: Time| {
                Ok(missing.iter().all(|nic| {
                    t.instances.iter().any(|r| r.nic == *nic && (r.node != Some(node) || !r.compute))
                }))
            };
            is_meant(gone, true) && is_meant(gone, ctx.sql(Durability::Read, left).await?)
        }
    };
    let wrong = {
        // The brake holds where much would be lost: by whatever document the node may work from by then.
        let much = |document: Rc<NetworkDocument>| document.ports.len() > 5;
        let told =
            ctx.w.servers[server].controller.borrow().documents.newer(node, DocumentVersion::default());
        let held = ctx.w.nodes[node].state.borrow().disk.network.clone();
        let chaos = ctx.w.chaos.borrow();
        !mass
            && told.is_some_and(much)
            && held.is_some_and(much)
            && ctx.w.rng.borrow_mut().percent(chaos.false_documents)
    };
    if wrong {
        ctx.note(|| format!("publishes a wrong document for node{node}"));
        document.ports.clear();
    }
    let ports: BTreeSet<Uuid> = document.ports.iter().map(|p| p.nic).collect();
    let vpcs: BTreeSet<VpcId> = document.vpcs.iter().map(|v| vpc_id(v.0)).collect();
    let mut controller = ctx.w.servers[server].controller.borrow_mut();
    if controller.leads != Some(epoch) {
        return Err(SqlError::Deposed);
    }
    let (version, new) = controller.documents.publish(epoch, node, document, mass);
    controller.memory.entry(node).or_default().published(version, ports, vpcs, leaving);
    if new {
        ctx.note(|| format!("publishes network {version} for node{node}"));
    }
    if wrong {
        let ctx = ctx.clone();
        drop(controller);
        ctx.clone().spawn(async move {
            ctx.sleep(2 * S).await;
            let _ = Box::pin(refresh(&ctx, server, epoch, node)).await;
        });
    }
    Ok(())
}

/// Answers a poll.
pub async fn poll(
    ctx: Ctx,
    server: usize,
    node: usize,
    after: DocumentVersion,
) -> Result<Option<Rc<NetworkDocument>>, NotLeading> {
    let (bell, epoch) = {
        let controller = ctx.w.servers[server].controller.borrow();
        let Some(epoch) = controller.leads else { return Err(NotLeading) };
        (controller.documents.bell.clone(), epoch)
    };
    let w = Rc::clone(&ctx.w);
    let found = hold(&ctx, &bell, 25 * S, move || {
        let controller = w.servers[server].controller.borrow();
        match controller.leads {
            Some(e) if e == epoch => controller.documents.newer(node, after).map(Some),
            _ => Some(None),
        }
    })
    .await;
    match found {
        None => Ok(None),
        Some(Some(document)) => Ok(Some(document)),
        Some(None) => Err(NotLeading),
    }
}

/// Takes a report.
pub async fn ingest(
    ctx: Ctx,
    server: usize,
    node: usize,
    report: NetworkReport,
    vpcs: Vec<(usize, i64)>,
) -> Result<(), NotLeading> {
    let (epoch, gone) = {
        let controller = ctx.w.servers[server].controller.borrow();
        let Some(epoch) = controller.leads else { return Err(NotLeading) };
        let latest = controller.documents.version(node);
        let gone = controller.memory.get(&node).map_or_else(Vec::new, |m| m.gone(epoch, latest, &report));
        let last = controller.reports.get(&node);
        let age = |at: Time| Duration::from_micros(ctx.w.exec.now() - at);
        if gone.is_empty() && last.is_some_and(|(held, at)| !is_news(*held == report, age(*at))) {
            return Ok(());
        }
        (epoch, gone)
    };
    ctx.step(3 * MS).await;
    let work = move |t: &mut Tables, _: Time| {
        for (vpc, generation) in vpcs {
            if generation <= t.vpcs[vpc] {
                let applied = Rc::make_mut(&mut t.applied).entry((vpc, node)).or_default();
                *applied = generation.max(*applied);
            }
        }
        let mut freed = Vec::new();
        for id in gone {
            let waits = t.find(id).is_some_and(|r| {
                r.node == Some(node) && r.power == Power::Terminated && r.lives() && r.network && !r.compute
            });
            if waits {
                t.update(id, |r| r.network = false)?;
                t.ring(Doorbell::Instance(id));
                freed.push(id);
            }
        }
        Ok(freed)
    };
    match ctx.leader_sql(Durability::Memory, (NETWORK, epoch), work).await {
        Ok(freed) => {
            if !freed.is_empty() {
                ctx.w.servers[server].nudge.ring();
            }
            let now = ctx.w.exec.now();
            let first = {
                let mut controller = ctx.w.servers[server].controller.borrow_mut();
                if controller.leads != Some(epoch) {
                    return Err(NotLeading);
                }
                controller.memory.entry(node).or_default().freed(&freed);
                controller.reports.insert(node, (report, now)).is_none()
            };
            if first && refresh(&ctx, server, epoch, node).await.is_err() {
                return Err(NotLeading);
            }
            Ok(())
        }
        Err(error) => {
            if error == SqlError::Deposed {
                ctx.w.servers[server].controller.borrow_mut().leads = None;
            }
            Err(NotLeading)
        }
    }
}
