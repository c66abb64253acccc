//! The hypervisor agent around its instances: documents in, reports out. As `gon_agent::hypervisor`; the rule by which it
//! takes a document is its own.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use gon_agent::ledger::{LedgerError, judge};
use gon_proto::{InstanceReport, InstanceSpec, NodeCompute};
use gon_types::DocumentVersion;
use uuid::Uuid;

use crate::compute;
use crate::exec::{Bell, MS, S, Time, race};
use crate::server::Link;
use crate::world::{Bug, Ctx};

/// Pauses after a failed call, shortest and longest.
const RETRY: (Time, Time) = (200 * MS, 5 * S);

/// What an instance's task is told.
#[derive(Clone)]
pub struct Told {
    /// What the document says of it.
    pub spec: Option<InstanceSpec>,
    /// Rung when that changes.
    pub bell: Bell,
}

/// What the agent holds in memory.
pub struct Agent {
    /// What its ledger holds, as far as it knows.
    pub ledger: Option<Rc<NodeCompute>>,
    /// The tasks of the instances.
    pub tasks: BTreeMap<Uuid, Told>,
    /// The last word on every instance.
    pub board: BTreeMap<Uuid, InstanceReport>,
    /// Rung when the board changes.
    pub changed: Bell,
}

/// Shared by its tasks.
pub type Shared = Rc<RefCell<Agent>>;

/// Starts the process.
pub fn boot(ctx: &Ctx, node: usize) {
    let (held, dirs) = {
        let state = ctx.w.nodes[node].state.borrow();
        (state.disk.compute.clone(), state.disk.dirs.keys().copied().collect::<Vec<_>>())
    };
    let agent = Rc::new(RefCell::new(Agent {
        ledger: held.clone(),
        tasks: BTreeMap::new(),
        board: BTreeMap::new(),
        changed: Bell::new(&ctx.w.exec),
    }));
    if let Some(document) = &held {
        // Perhaps it died right after it had written that.
        ctx.w.truth.borrow_mut().accepted_compute(&ctx.w, node, document);
        apply(ctx, node, &agent, document);
    }
    for id in dirs {
        if !agent.borrow().tasks.contains_key(&id) {
            tell(ctx, node, &agent, id, None);
        }
    }
    ctx.spawn(ctx.clone().keep_lease(node));
    ctx.spawn(introduce(ctx.clone(), node));
    ctx.spawn(send_reports(ctx.clone(), node, Rc::clone(&agent)));
    ctx.spawn(pull_documents(ctx.clone(), node, agent));
}

/// Tells every task what the document says of its instance.
fn apply(ctx: &Ctx, node: usize, agent: &Shared, document: &NodeCompute) {
    let named: BTreeSet<Uuid> = document.instances.iter().map(|spec| spec.id.uuid()).collect();
    let others: Vec<Uuid> = agent.borrow().tasks.keys().filter(|id| !named.contains(id)).copied().collect();
    for id in others {
        tell(ctx, node, agent, id, None);
    }
    for spec in &document.instances {
        tell(ctx, node, agent, spec.id.uuid(), Some(spec.clone()));
    }
}

fn tell(ctx: &Ctx, node: usize, agent: &Shared, id: Uuid, spec: Option<InstanceSpec>) {
    let mut a = agent.borrow_mut();
    if let Some(told) = a.tasks.get_mut(&id) {
        if told.spec != spec {
            told.spec = spec;
            told.bell.ring();
        }
        return;
    }
    a.tasks.insert(id, Told { spec, bell: Bell::new(&ctx.w.exec) });
    ctx.spawn(crate::guest::run(ctx.clone(), node, Rc::clone(agent), id));
}

async fn introduce(ctx: Ctx, node: usize) {
    let link = Link::new(ctx.range(0, 7) as usize);
    loop {
        let managers = ctx.w.managers();
        let call =
            link.call(&ctx, &managers, 10 * S, move |me, server| compute::ingest_node(me, server, node));
        let pause = if call.await.is_ok() { 10 * S } else { S };
        ctx.sleep(pause).await;
    }
}

async fn pull_documents(ctx: Ctx, node: usize, agent: Shared) {
    let link = Link::new(ctx.range(0, 7) as usize);
    let mut pause = RETRY.0;
    loop {
        let after = agent.borrow().ledger.as_ref().map_or(DocumentVersion::default(), |d| d.version);
        let managers = ctx.w.managers();
        let answer = link
            .call(&ctx, &managers, 35 * S, move |me, server| compute::poll(me, server, node, after))
            .await;
        match answer {
            Ok(None) => {
                pause = RETRY.0;
                continue;
            }
            Ok(Some(document)) => {
                if accept(&ctx, node, &agent, document).await {
                    pause = RETRY.0;
                    continue;
                }
                pause = RETRY.1;
            }
            Err(_) => {}
        }
        ctx.sleep(pause / 2 + ctx.range(0, pause / 2)).await;
        pause = (pause * 2).min(RETRY.1);
    }
}

async fn accept(ctx: &Ctx, node: usize, agent: &Shared, document: Rc<NodeCompute>) -> bool {
    let held = agent.borrow().ledger.clone();
    let verdict = {
        let mut offered = (*document).clone();
        offered.mass_change_ok |= ctx.w.has(Bug::NoBrake);
        judge(ctx.w.nodes[node].id, held.as_deref(), &offered)
    };
    match verdict {
        Ok(false) => return true,
        Ok(true) => {}
        Err(LedgerError::Stale { offered, accepted })
            if ctx.w.has(Bug::EpochUnchecked) && offered.generation > accepted.generation
                || ctx.w.has(Bug::GenerationUnchecked) && offered.epoch >= accepted.epoch => {}
        Err(error) => {
            ctx.note(|| format!("refuses a document: {error}"));
            return false;
        }
    }
    let written = Rc::clone(&document);
    if ctx.write_disk(node, move |disk| disk.compute = Some(written)).await.is_err() {
        return false;
    }
    ctx.note(|| format!("takes compute {}", document.version));
    ctx.w.truth.borrow_mut().accepted_compute(&ctx.w, node, &document);
    agent.borrow_mut().ledger = Some(Rc::clone(&document));
    apply(ctx, node, agent, &document);
    true
}

async fn send_reports(ctx: Ctx, node: usize, agent: Shared) {
    let link = Link::new(ctx.range(0, 7) as usize);
    let mut pause = RETRY.0;
    let changed = agent.borrow().changed.clone();
    loop {
        let reports: Vec<InstanceReport> = agent.borrow().board.values().cloned().collect();
        ctx.point().await;
        let managers = ctx.w.managers();
        let sent = link
            .call(&ctx, &managers, 10 * S, move |me, server| compute::ingest(me, server, node, reports))
            .await;
        if sent.is_ok() {
            pause = RETRY.0;
            let _ = race(changed.heard(), ctx.sleep(10 * S)).await;
            ctx.sleep(2 * MS).await;
        } else {
            ctx.sleep(pause / 2 + ctx.range(0, pause / 2)).await;
            pause = (pause * 2).min(RETRY.1);
        }
    }
}

impl Agent {
    /// Puts up an instance's report.
    pub fn publish(&mut self, report: InstanceReport) {
        let id = report.id.uuid();
        if self.board.get(&id) != Some(&report) {
            self.board.insert(id, report);
            self.changed.ring();
        }
    }
}
