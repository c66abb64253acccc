//! Recovery of instances of lost nodes: what the leader does, as `gon_control::compute::recover`, and the keeper of each
//! node, as `gon_agent::hypervisor::fence::keep`; the rules are their own.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use gon_agent::hypervisor::fence::{self, Grant, Permit};
use gon_agent::hypervisor::journal::Clock;
use gon_control::compute::place;
use gon_core::placement::Batch;
use gon_core::recovery::{self, Budget, Watch, is_recovered};
use gon_proto::grant;
use gon_types::InstanceState as State;
use uuid::Uuid;

use crate::db::{Durability, SqlError};
use crate::exec::{S, Time};
use crate::rows;
use crate::server::NotLeading;
use crate::tables::{COMPUTE, Doorbell, Remains, Row, Tables};
use crate::world::{Bug, Ctx, World};

/// How often the keeper looks, and how long it may take to end something.
const KEEPER_LOOKS: Time = 2 * S;

/// What a leader remembers between two looks.
#[derive(Debug, Default)]
pub struct Eyes {
    watch: Watch,
    budget: Budget,
}

/// The answer to a wish for a grant.
#[derive(Debug, Clone, Copy)]
pub struct Answer {
    /// The node's epoch.
    pub epoch: u64,
    /// Its number.
    pub number: u64,
    /// Whether it was raised.
    pub granted: bool,
}

fn recovered(row: &Row) -> bool {
    is_recovered(row.auto_recover, row.state, row.power, row.leaving)
}

fn duration(time: Time) -> Duration {
    Duration::from_micros(time)
}

/// Answers a node that asks for a grant: `gon_store::nodes::grant`.
pub async fn grant(
    ctx: Ctx,
    server: usize,
    node: usize,
    asked: u64,
    known: Option<u64>,
) -> Result<Answer, NotLeading> {
    let Some(epoch) = ctx.w.servers[server].manager.borrow().leads else { return Err(NotLeading) };
    let deaf = ctx.w.has(Bug::GrantToTheDeaf);
    let raise = move |t: &mut Tables, _| {
        let row = &mut Rc::make_mut(&mut t.nodes)[node];
        let granted = row.epoch == asked && (known == Some(row.grant) || deaf);
        row.grant += u64::from(granted);
        Ok(Answer { epoch: row.epoch, number: row.grant, granted })
    };
    ctx.leader_sql(Durability::Disk, (COMPUTE, epoch), raise).await.map_err(|_| NotLeading)
}

/// One look of the leader at every node's grant.
pub async fn look(ctx: &Ctx, server: usize, epoch: u64) -> Result<(), SqlError> {
    let read = |t: &mut Tables, now: Time| {
        let watched = |n: usize| t.instances.iter().any(|r| r.node == Some(n) && recovered(r));
        let joined = (0..t.nodes.len()).filter(|n| t.nodes[*n].joined);
        Ok(joined
            .map(|n| {
                let row = &t.nodes[n];
                let seen = recovery::Grant { epoch: row.epoch, number: row.grant };
                (n, seen, !rows::candidate(t, n, now).heard, row.draining.is_some(), watched(n))
            })
            .collect::<Vec<_>>())
    };
    let nodes = ctx.sql(Durability::Read, read).await?;
    let now = duration(ctx.w.exec.now());
    let id = |n: usize| ctx.w.nodes[n].id;
    let after = if ctx.w.has(Bug::MovesEarly) { Duration::from_secs(30) } else { grant::OVER_AFTER };
    let lost: Vec<(usize, recovery::Grant)> = {
        let mut manager = ctx.w.servers[server].manager.borrow_mut();
        let watch = &mut manager.eyes.watch;
        watch.look(now, nodes.iter().filter(|n| n.4).map(|n| (id(n.0), n.1)));
        nodes.iter().filter_map(|n| Some((n.0, watch.over(id(n.0), now, after)?))).collect()
    };
    let gone = |n: &&(usize, recovery::Grant, bool, bool, bool)| {
        !n.3 && (n.2 || lost.iter().any(|lost| lost.0 == n.0))
    };
    let all = nodes.iter().filter(|n| !n.3 || !n.2).count();
    if lost.is_empty()
        || ctx.w.etcd.lost_quorum.get()
        || recovery::is_cut_off(all, nodes.iter().filter(gone).count())
    {
        return Ok(());
    }
    let all_lost: BTreeSet<usize> = lost.iter().map(|lost| lost.0).collect();
    for (node, seen) in lost {
        take(ctx, server, epoch, (node, seen), all_lost.clone()).await?;
    }
    Ok(())
}

/// One transaction: takes what can be taken from a node whose grant is over.
async fn take(
    ctx: &Ctx,
    server: usize,
    epoch: u64,
    (node, seen): (usize, recovery::Grant),
    all_lost: BTreeSet<usize>,
) -> Result<(), SqlError> {
    let now = duration(ctx.w.exec.now());
    let mut room: Vec<usize> = {
        let mut manager = ctx.w.servers[server].manager.borrow_mut();
        (0..ctx.w.nodes.len()).map(|n| manager.eyes.budget.room(ctx.w.nodes[n].id, now)).collect()
    };
    let work = move |t: &mut Tables, now: Time| {
        let row = &t.nodes[node];
        if (row.epoch, row.grant) != (seen.epoch, seen.number) {
            return Err(SqlError::RolledBack);
        }
        let nodes: Vec<usize> = (0..t.nodes.len()).filter(|n| t.nodes[*n].joined).collect();
        let held: Vec<_> = nodes.iter().map(|n| rows::candidate(t, *n, now)).collect();
        let mut batch = Batch::new(held.iter().map(|row| place::candidate(row, &BTreeSet::new())).collect());
        for (index, n) in nodes.iter().enumerate() {
            if all_lost.contains(n) || room[*n] == 0 {
                batch.close(index);
            }
        }
        let waiting: Vec<Row> =
            t.instances.iter().filter(|r| r.node == Some(node) && recovered(r)).cloned().collect();
        let mut moved = Vec::new();
        for row in waiting {
            let need = place::request(&rows::unplaced(t, &row));
            let Ok(index) = batch.choose(&need) else { continue };
            let to = nodes[index];
            if batch.lacks_numbers(index) {
                let in_use = rows::numbers_in_use(t, to);
                batch.learn(index, place::numbers(in_use, &held[index]));
            }
            let Some(given) = batch.place(index, &need, 1) else { continue };
            let (uid, port_no) = (given.uid.cast_signed(), given.ports[0].cast_signed());
            Rc::make_mut(&mut t.remains).push(Remains {
                node,
                instance: row.id,
                epoch: row.epoch,
                generation: row.generation + 1,
                uid: row.uid.unwrap_or(0),
                port_no: row.port_no.unwrap_or(0),
            });
            t.lend(node, row.needs.map(|n| -n))?;
            t.update(row.id, |r| {
                (r.node, r.uid, r.port_no) = (Some(to), Some(uid), Some(port_no));
                r.epoch += 1;
                r.generation += 1;
                (r.state, r.reason) = (State::Pending, Some("Server.NodeLost".into()));
            })?;
            t.lend(to, row.needs)?;
            let given_last = &mut Rc::make_mut(&mut t.nodes)[to];
            (given_last.last_uid, given_last.last_port_no) = (uid, port_no);
            t.touch_vpc(row.vpc);
            t.ring(Doorbell::Instance(row.id));
            moved.push((row.id, to));
            room[to] -= 1;
            if room[to] == 0 {
                batch.close(index);
            }
        }
        if moved.is_empty() {
            return Err(SqlError::RolledBack);
        }
        let row = &mut Rc::make_mut(&mut t.nodes)[node];
        row.epoch += 1;
        let raised = row.epoch;
        t.ring(Doorbell::Node(node));
        Ok((moved, raised))
    };
    let (moved, raised) = match ctx.leader_sql(Durability::Disk, (COMPUTE, epoch), work).await {
        Ok(done) => done,
        Err(SqlError::RolledBack) => return Ok(()),
        Err(error) => return Err(error),
    };
    ctx.note(|| format!("recovers {moved:?} from node{node}"));
    ctx.w.truth.borrow_mut().recovered += moved.len() as u64;
    let mut manager = ctx.w.servers[server].manager.borrow_mut();
    manager.eyes.watch.raised(ctx.w.nodes[node].id, raised);
    for (_, to) in moved {
        manager.eyes.budget.give(ctx.w.nodes[to].id, now);
    }
    drop(manager);
    ctx.w.servers[server].nudge.ring();
    Ok(())
}

/// What a grant permits on a node, with the planted defects.
#[must_use]
pub fn permit(w: &World, held: Option<&Grant>, epoch: u64, clock: Clock) -> Permit {
    let held = held.map(|grant| if w.has(Bug::GrantOfAnyEpoch) { Grant { epoch, ..*grant } } else { *grant });
    fence::permit(held.map(|grant| margin(w, grant, clock)).as_ref(), epoch, clock)
}

/// A defect: the fence lets everything run for another ninety seconds.
fn margin(w: &World, grant: Grant, clock: Clock) -> Grant {
    if !w.has(Bug::FenceMargin) || grant.asked_ms > clock.now_ms {
        return grant;
    }
    Grant { asked_ms: (grant.asked_ms + 90_000).min(clock.now_ms), ..grant }
}

/// The grant that an earlier process left, if it is of this boot.
#[must_use]
pub fn last(w: &World, held: Option<Grant>, clock: Clock) -> Option<Grant> {
    if w.has(Bug::GrantSurvivesReboot) {
        return held.map(|grant| Grant {
            boot: clock.boot,
            asked_ms: grant.asked_ms.min(clock.now_ms),
            ..grant
        });
    }
    held.filter(|grant| grant.boot == clock.boot)
}

impl World {
    /// The keeper of a node, a process of its own: nobody stops it, and it lives as long as the node has power.
    pub fn keep(self: &Rc<Self>, node: usize) {
        let w = Rc::clone(self);
        self.exec.spawn(self.nodes[node].kernel, async move {
            loop {
                w.exec.sleep(KEEPER_LOOKS).await;
                let clock = w.nodes[node].clock(w.exec.now());
                let held = last(&w, w.nodes[node].state.borrow().disk.grant, clock);
                let kept = fence::is_kept(held.map(|grant| margin(&w, grant, clock)).as_ref(), clock)
                    || w.has(Bug::NoKeeper);
                let victims: Vec<Uuid> = {
                    let state = w.nodes[node].state.borrow();
                    let fenced = |id: &&Uuid| {
                        let journal = state.disk.dirs.get(id).and_then(|dir| dir.journal.as_ref());
                        journal.is_some_and(|journal| journal.fence.is_some())
                    };
                    if kept { vec![] } else { state.guests.keys().filter(fenced).copied().collect() }
                };
                for id in victims {
                    let guest = w.nodes[node].state.borrow_mut().guests.remove(&id);
                    if let Some(guest) = guest {
                        w.note(|| format!("the keeper of node{node} ends i-{}", id.as_u128() as u32));
                        w.truth.borrow().fenced(&w, node, id, &guest);
                    }
                }
            }
        });
    }
}
