//! The API server: what users may ask, each in one transaction with its doorbells and its idempotency key; and the relay.
//! As `gon_control::service::instances` and `gon_control::relay`.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::rc::Rc;

use gon_core::ask::{self, Decision, Public};
use gon_core::instance::Power;
use gon_core::ipam;
use gon_types::InstanceState as State;
use ipnet::Ipv4Net;
use uuid::Uuid;

use crate::db::{Durability, SqlError};
use crate::exec::{MS, S, Time, race};
use crate::tables::{ADDRESS_RESTS, Answer, Doorbell, Row, Tables};
use crate::world::{Bug, Ctx};

/// What a user asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// So many instances.
    Launch {
        /// How many.
        count: u32,
        /// Processors, MiB, GiB of each.
        needs: [i64; 3],
        /// In which VPC.
        vpc: usize,
        /// With a public address.
        public: bool,
    },
    /// Starts one.
    Start(Uuid),
    /// Stops one.
    Stop {
        /// Which.
        id: Uuid,
        /// Without asking the guest.
        force: bool,
    },
    /// Reboots one.
    Reboot(Uuid),
    /// Ends one for good.
    Terminate(Uuid),
}

/// What a user is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// 2xx.
    Done(Answer),
    /// Nothing was done: 4xx, or it is so already.
    Refused(&'static str),
    /// 503: perhaps.
    Unknown,
}

/// The block of a VPC's only subnet.
#[must_use]
pub fn block(vpc: usize) -> Ipv4Net {
    let address = Ipv4Addr::new(10, vpc as u8, 0, 0);
    Ipv4Net::new(address, 27).unwrap_or_default()
}

/// Starts the process: its relay. Requests come by themselves.
pub fn boot(ctx: &Ctx, server: usize) {
    ctx.spawn(relay(ctx.clone(), server));
}

/// Publishes the outbox for ever.
pub async fn relay(ctx: Ctx, server: usize) {
    loop {
        let worked = relay_round(&ctx).await;
        let nudge = ctx.w.servers[server].nudge.clone();
        if worked {
            let _ = race(nudge.heard(), ctx.sleep(S)).await;
        } else {
            ctx.sleep(S).await;
        }
    }
}

async fn relay_round(ctx: &Ctx) -> bool {
    // The claim locks rows; the locks go with the connection.
    let claim = |t: &mut Tables, _| {
        let mut db = Vec::new();
        db.extend(t.outbox.iter().map(|(seq, bell)| (*seq, *bell)));
        Ok(db)
    };
    let Ok(rows) = ctx.sql(Durability::Read, claim).await else { return false };
    let mine: Vec<(u64, Doorbell)> = {
        let mut db = ctx.w.db.borrow_mut();
        let rows = rows.into_iter().filter(|(seq, _)| db.tables.outbox.contains_key(seq));
        let free: Vec<_> = rows.filter(|(seq, _)| !db.claims.contains_key(seq)).collect();
        db.claims.extend(free.iter().map(|(seq, _)| (*seq, ctx.proc)));
        free
    };
    if mine.is_empty() {
        return true;
    }
    let remove = |rows: Vec<u64>| {
        move |t: &mut Tables, _: Time| {
            let outbox = Rc::make_mut(&mut t.outbox);
            outbox.retain(|seq, _| !rows.contains(seq));
            Ok(())
        }
    };
    let mut seqs: Vec<u64> = mine.iter().map(|(seq, _)| *seq).collect();
    if ctx.w.has(Bug::OutboxCursor) {
        let last = seqs.iter().copied().max().unwrap_or(0);
        seqs.extend(1..last);
    }
    let bells: BTreeSet<Doorbell> = mine.into_iter().map(|(_, bell)| bell).collect();
    let early = ctx.w.has(Bug::OutboxDeletedFirst);
    if early {
        let _ = ctx.sql(Durability::Memory, remove(seqs.clone())).await;
    }
    let published = ctx.publish(&bells).await.is_ok();
    let done = published && (early || ctx.sql(Durability::Memory, remove(seqs.clone())).await.is_ok());
    let mut db = ctx.w.db.borrow_mut();
    db.claims.retain(|seq, holder| *holder != ctx.proc || !seqs.contains(seq));
    done
}

/// Handles a request.
pub async fn handle(ctx: Ctx, server: usize, key: u64, ask: Ask) -> Told {
    let (apart, ignored) = (ctx.w.has(Bug::KeyApart), ctx.w.has(Bug::KeyIgnored));
    let audited = !ctx.w.has(Bug::AuditApart);
    let durability = if ctx.w.has(Bug::AckBeforeDurable) { Durability::Memory } else { Durability::Disk };
    let randoms: Vec<u32> = (0..32).map(|_| ctx.range(0, u64::from(u32::MAX)) as u32).collect();
    let rested = !ctx.w.has(Bug::NoQuarantine);
    ctx.step(5 * MS).await;
    let drawn = ctx.draw_early().await;
    let result = ctx
        .sql(durability, move |t, now| {
            if let Some(answer) = t.keys.get(&key).filter(|_| !ignored) {
                return Ok(Told::Done(answer.clone()));
            }
            t.drawn = drawn;
            let told = perform(t, now, ask, key, &randoms, rested)?;
            if let Told::Done(answer) = &told {
                if !apart {
                    Rc::make_mut(&mut t.keys).insert(key, answer.clone());
                }
                if audited {
                    Rc::make_mut(&mut t.audit).push(key);
                }
            }
            Ok(told)
        })
        .await;
    if let (false, Ok(Told::Done(_))) = (audited, &result) {
        let write = move |t: &mut Tables, _| {
            if !t.audit.contains(&key) {
                Rc::make_mut(&mut t.audit).push(key);
            }
            Ok(())
        };
        // Somebody else may have done the work: it is only a log.
        let _ = ctx.sql(Durability::Memory, write).await;
    }
    if let (true, Ok(Told::Done(answer))) = (apart, &result) {
        let answer = answer.clone();
        let write = move |t: &mut Tables, _| {
            Rc::make_mut(&mut t.keys).insert(key, answer);
            Ok(())
        };
        if ctx.sql(durability, write).await.is_err() {
            return Told::Unknown;
        }
    }
    match result {
        Ok(told) => {
            ctx.w.servers[server].nudge.ring();
            told
        }
        Err(SqlError::Refused(why)) => Told::Refused(why),
        Err(_) => Told::Unknown,
    }
}

fn perform(
    t: &mut Tables,
    now: Time,
    ask: Ask,
    key: u64,
    randoms: &[u32],
    rested: bool,
) -> Result<Told, SqlError> {
    let (id, asked) = match ask {
        Ask::Launch { count, needs, vpc, public } => {
            let mut instances = Vec::new();
            for index in 0..count {
                let random = &randoms[index as usize % 8..];
                match launch(t, now, (key, index), needs, vpc, public, random, rested)? {
                    Ok(id) => instances.push(id),
                    Err(why) => return Err(SqlError::Refused(why)),
                }
            }
            return Ok(Told::Done(Answer { instances, generation: 1 }));
        }
        Ask::Start(id) => (id, ask::Ask::Start),
        Ask::Stop { id, force } => (id, ask::Ask::Stop { force }),
        Ask::Reboot(id) => (id, ask::Ask::Reboot),
        Ask::Terminate(id) => (id, ask::Ask::Terminate),
    };
    let Some(row) = t.find(id).cloned() else { return Ok(Told::Refused("InvalidInstanceID.NotFound")) };
    let change = match ask::decide(row.state, asked) {
        Decision::Change(change) => change,
        Decision::Refused { .. } => return Ok(Told::Refused("IncorrectInstanceState")),
        Decision::Already => return Ok(Told::Refused("it is so already")),
    };
    t.update(id, |r| {
        if change.is_reboot {
            r.reboot_seq += 1;
        } else {
            (r.power, r.state, r.force, r.reason) = (change.power, change.state, change.force, None);
            r.leaving &= change.power != Power::Terminated;
        }
        r.generation += 1;
    })?;
    let packets = match change.public {
        Public::Give if row.auto_public => {
            let has = t.public.iter().any(|p| p.nic == Some(row.nic));
            if !has && !t.give_public(row.nic, now, rested) {
                return Err(SqlError::Refused("InsufficientAddressCapacity"));
            }
            !has
        }
        Public::Give | Public::Keep => false,
        Public::ReleasePlatforms | Public::ReleaseAll => t.release_public(row.nic, now),
    };
    if packets {
        t.touch_vpc(row.vpc);
    }
    t.ring(Doorbell::Instance(id));
    Ok(Told::Done(Answer { instances: vec![id], generation: row.generation + 1 }))
}

/// Whether an address is free; and, if `rested`, has been long enough.
fn is_free(t: &Tables, vpc: usize, address: u32, now: Time, rested: bool) -> bool {
    !t.instances.iter().any(|r| {
        r.vpc == vpc
            && r.address == address
            && r.deleted_at.is_none_or(|at| rested && at + ADDRESS_RESTS > now)
    })
}

#[expect(clippy::too_many_arguments, reason = "a launch is made of these")]
fn launch(
    t: &mut Tables,
    now: Time,
    made_by: (u64, u32),
    needs: [i64; 3],
    vpc: usize,
    public: bool,
    randoms: &[u32],
    rested: bool,
) -> Result<Result<Uuid, &'static str>, SqlError> {
    let block = block(vpc);
    let drawn = randoms.iter().filter_map(|random| ipam::pick(block, *random)).map(u32::from);
    let drawn = drawn.into_iter().find(|address| is_free(t, vpc, *address, now, rested));
    // Nearly full: from its beginning, those that rest last.
    let searched = || {
        let (first, last) = ipam::range(block)?;
        let all = || u32::from(first)..=u32::from(last);
        let rested = all().find(|address| is_free(t, vpc, *address, now, true));
        rested.or_else(|| all().find(|address| is_free(t, vpc, *address, now, false)))
    };
    let Some(address) = drawn.or_else(searched) else { return Ok(Err("InsufficientFreeAddressesInSubnet")) };
    let number = u128::from(t.draw());
    let (id, nic) = (Uuid::from_u128((1 << 120) + number), Uuid::from_u128((2 << 120) + number));
    t.insert(Row {
        id,
        nic,
        vpc,
        made_by,
        needs,
        auto_public: public,
        state: State::Pending,
        reason: None,
        power: Power::Running,
        force: false,
        reboot_seq: 0,
        generation: 1,
        observed: 0,
        node: None,
        epoch: 0,
        uid: None,
        port_no: None,
        compute: true,
        network: true,
        address,
        auto_recover: t.recovers && !(made_by.0 + u64::from(made_by.1)).is_multiple_of(4),
        leaving: false,
        created_at: now,
        deleted_at: None,
    })?;
    if public && !t.give_public(nic, now, rested) {
        return Ok(Err("InsufficientAddressCapacity"));
    }
    t.ring(Doorbell::Instance(id));
    Ok(Ok(id))
}
