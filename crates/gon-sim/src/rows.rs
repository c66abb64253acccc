//! The simulation's rows in the shapes of `gon_store`, for the functions of the product that decide on them.

use gon_core::instance::Power;
use gon_store::compute_document::InstanceRow;
use gon_store::placement::{CandidateRow, UnplacedRow};
use gon_store::reports::ReportedRow;
use gon_types::{InstanceState as State, MacAddr};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::exec::{S, Time};
use crate::tables::{Remains, Row, Tables};

const IMAGE: &str = "gon-linux";
const DIGEST: &str = "0000000000000000000000000000000000000000000000000000000000000000";
const ZONE: &str = "local-1a";

/// The name of a node.
#[must_use]
pub fn node_name(node: usize) -> String {
    format!("node{node}")
}

/// A point in time on the wall.
#[must_use]
pub fn wall(time: Time) -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH + std::time::Duration::from_micros(time)
}

/// A row of `compute_document::read`; `fence` is its node's epoch.
#[must_use]
pub fn instance(row: &Row, fence: u64) -> InstanceRow {
    let [_, _, a, b] = row.address.to_be_bytes();
    InstanceRow {
        id: row.id,
        generation: row.generation,
        placement_epoch: row.epoch,
        power: if row.leaving { "terminated" } else { row.power.as_str() }.to_owned(),
        force_stop: row.force,
        reboot_seq: row.reboot_seq,
        vcpus: row.needs[0] as i32,
        memory_mib: row.needs[1] as i32,
        disk_gib: row.needs[2] as i32,
        run_as_uid: row.uid.unwrap_or(0),
        image_id: Uuid::from_u128(9),
        image_name: IMAGE.to_owned(),
        image_digest: DIGEST.to_owned(),
        nics: vec![(row.nic, gon_store::v4::Mac(MacAddr([0x0a, 0, 0, row.vpc as u8, a, b])))],
        fence: row.auto_recover.then_some(fence.cast_signed()),
        origin: None,
    }
}

/// What is left of an instance on a node it was taken from, as `compute_document::read` says it.
#[must_use]
pub fn remains(left: &Remains) -> InstanceRow {
    InstanceRow {
        id: left.instance,
        generation: left.generation,
        placement_epoch: left.epoch,
        power: "terminated".to_owned(),
        force_stop: true,
        reboot_seq: 0,
        vcpus: 1,
        memory_mib: 64,
        disk_gib: 0,
        run_as_uid: left.uid,
        image_id: Uuid::nil(),
        image_name: "none".to_owned(),
        image_digest: DIGEST.to_owned(),
        nics: vec![],
        fence: None,
        origin: None,
    }
}

/// A row of `placement::lock_candidates`.
#[must_use]
pub fn candidate(t: &Tables, node: usize, now: Time) -> CandidateRow {
    let row = &t.nodes[node];
    CandidateRow {
        id: row.id.uuid(),
        name: node_name(node),
        availability_zone: ZONE.to_owned(),
        schedulable: row.draining.is_none(),
        heard: row.last_report_at + 15 * S > now,
        capacity_vcpus: row.capacity[0] as i32,
        capacity_memory_mib: row.capacity[1],
        capacity_disk_gib: row.capacity[2],
        used_vcpus: row.used[0] as i32,
        used_memory_mib: row.used[1],
        used_disk_gib: row.used[2],
        images: serde_json::json!({ IMAGE: DIGEST }),
        last_port_no: row.last_port_no,
        last_run_as_uid: row.last_uid,
    }
}

/// A row of `placement::lock_unplaced`.
#[must_use]
pub fn unplaced(t: &Tables, row: &Row) -> UnplacedRow {
    UnplacedRow {
        id: row.id,
        account_id: Uuid::nil(),
        vpc_id: Uuid::from_u128(row.vpc as u128),
        vcpus: row.needs[0] as i32,
        memory_mib: row.needs[1] as i32,
        disk_gib: row.needs[2] as i32,
        availability_zone: ZONE.to_owned(),
        image_name: IMAGE.to_owned(),
        image_digest: DIGEST.to_owned(),
        state_reason: row.reason.as_deref().map(str::to_owned),
        created_at: wall(row.created_at),
        nics: 1,
        remains_on: t
            .remains
            .iter()
            .filter(|r| r.instance == row.id)
            .map(|r| t.nodes[r.node].id.uuid())
            .collect(),
    }
}

/// The port numbers and user ids in use on a node.
#[must_use]
pub fn numbers_in_use(t: &Tables, node: usize) -> (Vec<i32>, Vec<i32>) {
    let here = || t.instances.iter().filter(|r| r.node == Some(node));
    let left = || t.remains.iter().filter(|r| r.node == node);
    (
        here().filter_map(|r| r.port_no).chain(left().map(|r| r.port_no)).collect(),
        here().filter_map(|r| r.uid).chain(left().map(|r| r.uid)).collect(),
    )
}

/// A row of `reports::lock_instances`.
#[must_use]
pub fn reported(row: &Row) -> ReportedRow {
    ReportedRow {
        id: row.id,
        account_id: Uuid::nil(),
        vpc_id: Uuid::from_u128(row.vpc as u128),
        state: row.state.as_str().to_owned(),
        state_reason: row.reason.as_deref().map(str::to_owned),
        power: row.power.as_str().to_owned(),
        generation: row.generation,
        observed_generation: row.observed,
        placement_epoch: row.epoch,
        has_compute: row.compute,
        leaving_node: row.leaving,
        awaited_reboots: None,
    }
}

/// The state of this name.
#[must_use]
pub fn state(name: &str) -> State {
    name.parse().unwrap_or(State::Pending)
}

/// The power of this name.
#[must_use]
pub fn power(name: &str) -> Power {
    name.parse().unwrap_or(Power::Running)
}
