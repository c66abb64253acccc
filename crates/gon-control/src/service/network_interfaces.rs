//! Network interfaces: made in a subnet, attached to instances and detached again, with their addresses and groups.
//!
//! An interface is attached while its instance is stopped: a guest that runs is not given a new device.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use gon_api::Applied;
use gon_api::network_interfaces::{
    AssignPrivateIps, AttachNetworkInterface, CreateNetworkInterface, ListNetworkInterfaces,
    NetworkInterface, UnassignPrivateIps, UpdateNetworkInterface,
};
use gon_api::page::{NoQuery, Page, Wait};
use gon_core::ipam;
use gon_store::events::Watched;
use gon_store::journal::Entry;
use gon_store::network_interfaces::{
    self as interfaces, Attachment, Change, Filter, NetworkInterfaceRow, NewInterface,
};
use gon_store::reference::Ref;
use gon_store::{Conn, StoreError, Tx, instances, subnets, vpcs};
use gon_types::id::{AttachmentId, InstanceId, NetworkInterfaceId, SecurityGroupId, SubnetId, VpcId};
use ipnet::Ipv4Net;
use uuid::Uuid;

use super::cx::{Until, show_applied};
use super::error::{Refusal, Result};
use super::instances::{groups, subnet_is_full};
use super::subnets::in_vpc;
use super::vpcs::same_vpc;
use super::{Cx, parse, random};
use crate::api::{Json, One};

type Kind = gon_types::id::NetworkInterface;
type SubnetKind = gon_types::id::Subnet;
type InstanceKind = gon_types::id::Instance;

/// Secondary addresses of one interface; PostgreSQL keeps to it (`interface_addresses_limit`).
const MOST_SECONDARY: usize = 15;
/// The highest slot.
const LAST_SLOT: i64 = 7;

fn show(row: NetworkInterfaceRow) -> NetworkInterface {
    NetworkInterface {
        id: NetworkInterfaceId::from_uuid(row.id).to_string(),
        uuid: row.id,
        vpc_id: VpcId::from_uuid(row.vpc_id).to_string(),
        subnet_id: SubnetId::from_uuid(row.subnet_id).to_string(),
        availability_zone: row.availability_zone,
        status: if row.instance_id.is_some() { "in-use" } else { "available" }.to_owned(),
        description: row.description,
        instance_id: row.instance_id.map(|id| InstanceId::from_uuid(id).to_string()),
        device_index: row.device_index,
        attachment_id: row.attachment_id.map(|id| AttachmentId::from_uuid(id).to_string()),
        is_primary: row.device_index == Some(0),
        delete_on_termination: row.delete_on_termination,
        private_ip: row.private_ip.0.to_string(),
        secondary_private_ips: row.secondary_ips.iter().map(|net| net.addr().to_string()).collect(),
        public_ip: row.public_ip.map(|net| net.addr().to_string()),
        mac_address: row.mac_address.0.to_string(),
        source_dest_check: row.source_dest_check,
        security_group_ids: row
            .security_group_ids
            .into_iter()
            .map(|id| SecurityGroupId::from_uuid(id).to_string())
            .collect(),
        applied: None,
        generation: None,
        created_at: row.created_at,
        updated_at: row.updated_at,
    }
}

fn with_applied(mut interface: NetworkInterface, applied: Applied) -> NetworkInterface {
    interface.generation = Some(applied.generation);
    interface.applied = Some(applied);
    interface
}

/// Lists interfaces.
pub async fn list(cx: Cx, (): (), query: ListNetworkInterfaces, (): ()) -> Result<Page<NetworkInterface>> {
    let window = cx.window("network-interfaces", query.window())?;
    let nothing = Page { items: vec![], next_cursor: None };
    let mut conn = cx.conn().await?;
    let mut filter = Filter::default();
    if let Some(text) = &query.vpc_id {
        match in_vpc(&cx, &mut conn, text).await? {
            Some(vpc) => filter.vpc = Some(vpc),
            None => return Ok(nothing),
        }
    }
    if let Some(text) = &query.subnet_id {
        let id = parse::reference::<gon_types::id::Subnet>("subnet_id", text)?;
        match subnets::get(&mut conn, cx.account(), &id).await {
            Ok(row) => filter.subnet = Some(row.id),
            Err(StoreError::NotFound) => return Ok(nothing),
            Err(error) => return Err(error.into()),
        }
    }
    if let Some(text) = &query.instance_id {
        let id = parse::reference::<gon_types::id::Instance>("instance_id", text)?;
        match instances::get(&mut conn, cx.account(), &id).await {
            Ok(row) => filter.instance = Some(row.id),
            Err(StoreError::NotFound) => return Ok(nothing),
            Err(error) => return Err(error.into()),
        }
    }
    filter.attached = match query.status.as_deref() {
        None => None,
        Some("in-use") => Some(true),
        Some("available") => Some(false),
        Some(_) => return Err(Refusal::invalid("status", "must be available or in-use")),
    };
    let rows = interfaces::list(&mut conn, cx.account(), &filter, window).await?;
    Ok(cx.page("network-interfaces", window, rows, |r| r.id, show))
}

/// Describes an interface.
pub async fn get(cx: Cx, One(id): One<Kind>, wait: Wait, (): ()) -> Result<NetworkInterface> {
    let until = cx.until_applied(&wait)?;
    let mut conn = cx.conn().await?;
    let row = Cx::found(interfaces::get(&mut conn, cx.account(), &Ref::from(&id)).await, &id)?;
    let vpc = row.vpc_id;
    let applied = show_applied(vpcs::applied(&mut conn, vpc).await?);
    drop(conn);
    let applied = cx.settle(vpc, applied, until).await?;
    Ok(with_applied(show(row), applied))
}

/// An address that interfaces of the subnet may have.
fn address(field: String, text: &str, block: Ipv4Net) -> Result<Ipv4Addr> {
    let Ok(address) = text.parse::<Ipv4Addr>() else {
        return Err(Refusal::invalid(field, "must be an IPv4 address"));
    };
    if ipam::may_have(block, address) {
        Ok(address)
    } else {
        Err(Refusal::invalid(field, format!("interfaces cannot have it in the subnet {block}")))
    }
}

/// Several such, each once.
fn addresses(field: &'static str, list: &[String], block: Ipv4Net) -> Result<Vec<Ipv4Addr>> {
    if list.len() > MOST_SECONDARY {
        return Err(too_many(field));
    }
    let mut seen = BTreeSet::new();
    let read = |(at, text): (usize, &String)| {
        let address = address(format!("{field}[{at}]"), text, block)?;
        if seen.insert(address) {
            return Ok(address);
        }
        Err(Refusal::invalid(format!("{field}[{at}]"), "is there twice"))
    };
    list.iter().enumerate().map(read).collect()
}

fn too_many(field: &'static str) -> Refusal {
    let most = format!("an interface has at most {MOST_SECONDARY} secondary addresses");
    Refusal::conflict("PrivateIpAddressLimitExceeded", most).field(field)
}

fn in_use(address: Ipv4Addr, field: &'static str) -> Refusal {
    Refusal::conflict("InvalidIPAddress.InUse", format!("{address} is in use in the subnet")).field(field)
}

/// Addresses worth trying, drawn at random.
fn drawn(block: Ipv4Net) -> Result<Vec<Ipv4Addr>> {
    let drawn: [u8; 64] = random()?;
    let numbers = drawn.chunks_exact(4).map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]]));
    Ok(numbers.filter_map(|number| ipam::pick(block, number)).collect())
}

/// Those of a nearly full subnet that are left.
async fn left(tx: &mut Conn, subnet: Uuid, block: Ipv4Net) -> Result<Vec<Ipv4Addr>> {
    let Some((first, last)) = ipam::range(block) else { return Err(subnet_is_full()) };
    let room = u32::from(last) - u32::from(first) + 1;
    let left = instances::free_addresses(tx, subnet, first, room).await?;
    if left.is_empty() { Err(subnet_is_full()) } else { Ok(left) }
}

/// Gives an interface these addresses, all of them.
async fn assign_these(tx: &mut Tx, interface: Uuid, wanted: &[Ipv4Addr], field: &'static str) -> Result<()> {
    let got = interfaces::assign(tx, interface, wanted, wanted.len(), true).await?;
    match wanted.iter().find(|address| !got.contains(address)) {
        None => Ok(()),
        Some(taken) => Err(in_use(*taken, field)),
    }
}

/// Gives an interface so many free addresses of its subnet.
async fn assign_some(
    tx: &mut Tx,
    interface: Uuid,
    (subnet, block): (Uuid, Ipv4Net),
    count: usize,
) -> Result<()> {
    let mut missing = count;
    for _ in 0..3 {
        if missing > 0 {
            missing -= interfaces::assign(tx, interface, &drawn(block)?, missing, false).await?.len();
        }
    }
    while missing > 0 {
        // The subnet's allocation is held: what is found free can only be lost to a launch.
        let candidates = left(tx, subnet, block).await?;
        missing -= interfaces::assign(tx, interface, &candidates, missing, true).await?.len();
    }
    Ok(())
}

/// Creates an interface of no instance.
pub async fn create(
    cx: Cx,
    (): (),
    wait: Wait,
    Json(body): Json<CreateNetworkInterface>,
) -> Result<NetworkInterface> {
    cx.until_applied(&wait)?;
    let subnet_id = parse::id::<SubnetKind>("subnet_id", &body.subnet_id)?;
    let description = body.description.as_deref().unwrap_or_default();
    parse::description("description", description)?;
    let count = usize::try_from(body.secondary_private_ip_count.unwrap_or(0)).unwrap_or(usize::MAX);
    let named = body.secondary_private_ips.as_deref().unwrap_or_default();
    if count > MOST_SECONDARY || named.len() + count > MOST_SECONDARY {
        return Err(too_many("secondary_private_ip_count"));
    }
    let mut tx = cx.begin().await?;
    let subnet = Cx::found(subnets::get(&mut tx, cx.account(), &Ref::from(&subnet_id)).await, &subnet_id)
        .map_err(|refusal| refusal.field("subnet_id"))?;
    let block = subnet.cidr_block.0;
    let primary =
        body.private_ip.as_deref().map(|text| address("private_ip".to_owned(), text, block)).transpose()?;
    let secondary = addresses("secondary_private_ips", named, block)?;
    if primary.is_some_and(|primary| secondary.contains(&primary)) {
        return Err(Refusal::invalid("secondary_private_ips", "has the primary address as well"));
    }
    let groups = groups(&cx, &mut tx, body.security_group_ids.as_deref(), subnet.vpc_id).await?;
    let new = NewInterface {
        id: Uuid::now_v7(),
        account: cx.account(),
        vpc: subnet.vpc_id,
        subnet: subnet.id,
        subnet_cidr: block,
        mac: ipam::mac(random()?),
        description,
        source_dest_check: body.source_dest_check.unwrap_or(true),
        groups: &groups,
    };
    let private_ip = place(&mut tx, &new, primary).await?;
    assign_these(&mut tx, new.id, &secondary, "secondary_private_ips").await?;
    assign_some(&mut tx, new.id, (subnet.id, block), count).await?;
    let row = interfaces::get(&mut tx, cx.account(), &new.id.into()).await?;
    // Of no instance, so of no node: no packet changes its way.
    let applied = show_applied(vpcs::applied(&mut tx, subnet.vpc_id).await?);
    let interface = with_applied(show(row), applied);
    let entry = Entry::new("CreateNetworkInterface", new.id)
        .detail(serde_json::json!({ "subnet_id": interface.subnet_id, "private_ip": private_ip }))
        .event(Watched::NetworkInterface, new.id, None, Some("available"));
    cx.commit(tx, entry, &interface).await?;
    Ok(interface)
}

/// Writes the interface with the address asked for, or one of the subnet's free ones.
async fn place(tx: &mut Tx, new: &NewInterface<'_>, asked: Option<Ipv4Addr>) -> Result<Ipv4Addr> {
    if let Some(address) = asked {
        return interfaces::create(tx, new, &[address], true)
            .await?
            .ok_or_else(|| in_use(address, "private_ip"));
    }
    for _ in 0..3 {
        if let Some(address) = interfaces::create(tx, new, &drawn(new.subnet_cidr)?, false).await? {
            return Ok(address);
        }
    }
    loop {
        let candidates = left(tx, new.subnet, new.subnet_cidr).await?;
        if let Some(address) = interfaces::create(tx, new, &candidates, true).await? {
            return Ok(address);
        }
    }
}

/// Changes an interface; what is left out stays.
pub async fn update(
    cx: Cx,
    One(id): One<Kind>,
    wait: Wait,
    Json(body): Json<UpdateNetworkInterface>,
) -> Result<NetworkInterface> {
    let until = cx.until_applied(&wait)?;
    parse::some_change(
        body.description.is_some()
            || body.security_group_ids.is_some()
            || body.source_dest_check.is_some()
            || body.delete_on_termination.is_some(),
    )?;
    parse::description("description", body.description.as_deref().unwrap_or_default())?;
    let mut tx = cx.begin().await?;
    let row = Cx::found(interfaces::get(&mut tx, cx.account(), &Ref::from(&id)).await, &id)?;
    if body.delete_on_termination.is_some() && row.instance_id.is_none() {
        return Err(Refusal::invalid("delete_on_termination", "is for an interface that is attached"));
    }
    let groups = match body.security_group_ids.as_deref() {
        None => None,
        asked => Some(groups(&cx, &mut tx, asked, row.vpc_id).await?),
    };
    let change = Change {
        description: body.description.as_deref(),
        source_dest_check: body.source_dest_check,
        delete_on_termination: body.delete_on_termination,
        groups: groups.as_deref(),
    };
    if !interfaces::modify(&mut tx, cx.account(), row.id, change, cx.unless_changed_since).await? {
        return Err(Refusal::changed());
    }
    let detail = serde_json::to_value(&body).unwrap_or_default();
    finish(cx, tx, row, ("ModifyNetworkInterfaceAttribute", detail), until).await
}

/// Gives an interface secondary addresses.
pub async fn assign(
    cx: Cx,
    One(id): One<Kind>,
    wait: Wait,
    Json(body): Json<AssignPrivateIps>,
) -> Result<NetworkInterface> {
    let until = cx.until_applied(&wait)?;
    let mut tx = cx.begin().await?;
    let row = Cx::found(interfaces::get(&mut tx, cx.account(), &Ref::from(&id)).await, &id)?;
    let block = row.subnet_cidr.0;
    match (body.private_ips.as_deref(), body.count) {
        (Some(list), None) if !list.is_empty() => {
            let wanted = addresses("private_ips", list, block)?;
            assign_these(&mut tx, row.id, &wanted, "private_ips").await?;
        }
        (None, Some(count)) if count > 0 => {
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            if count > MOST_SECONDARY {
                return Err(too_many("count"));
            }
            assign_some(&mut tx, row.id, (row.subnet_id, block), count).await?;
        }
        (Some(_), Some(_)) => {
            return Err(Refusal::of_field(
                "InvalidParameterCombination",
                "count",
                "name addresses or say how many, not both",
            ));
        }
        (None, Some(_)) => return Err(Refusal::invalid("count", "must be 1 to 15")),
        (_, None) => return Err(Refusal::missing("private_ips")),
    }
    let detail = serde_json::to_value(&body).unwrap_or_default();
    finish(cx, tx, row, ("AssignPrivateIpAddresses", detail), until).await
}

/// Takes secondary addresses from an interface: all of those named, or none.
pub async fn unassign(
    cx: Cx,
    One(id): One<Kind>,
    wait: Wait,
    Json(body): Json<UnassignPrivateIps>,
) -> Result<NetworkInterface> {
    let until = cx.until_applied(&wait)?;
    let mut tx = cx.begin().await?;
    let row = Cx::found(interfaces::get(&mut tx, cx.account(), &Ref::from(&id)).await, &id)?;
    if body.private_ips.is_empty() {
        return Err(Refusal::missing("private_ips"));
    }
    let wanted = addresses("private_ips", &body.private_ips, row.subnet_cidr.0)?;
    let gone = interfaces::unassign(&mut tx, row.id, &wanted).await?;
    if let Some((at, _)) = wanted.iter().enumerate().find(|(_, address)| !gone.contains(address)) {
        return Err(Refusal::invalid(
            format!("private_ips[{at}]"),
            "is not a secondary address of the interface",
        ));
    }
    let detail = serde_json::to_value(&body).unwrap_or_default();
    finish(cx, tx, row, ("UnassignPrivateIpAddresses", detail), until).await
}

/// A state an instance must be in so that an interface may come or go.
fn stopped(state: &str) -> Result<()> {
    match state {
        "stopped" => Ok(()),
        "running" => Err(Refusal::conflict(
            "UnsupportedOperation",
            "interfaces come and go while the instance is stopped: stop it first",
        )
        .field("instance_id")),
        other => Err(Refusal::conflict("IncorrectInstanceState", format!("the instance is {other}"))
            .field("instance_id")),
    }
}

/// Attaches an interface to a stopped instance.
pub async fn attach(
    cx: Cx,
    One(id): One<Kind>,
    wait: Wait,
    Json(body): Json<AttachNetworkInterface>,
) -> Result<NetworkInterface> {
    let until = cx.until_applied(&wait)?;
    let instance_id = parse::id::<InstanceKind>("instance_id", &body.instance_id)?;
    let device_index = i16::try_from(body.device_index)
        .ok()
        .filter(|slot| (0..=LAST_SLOT).contains(&i64::from(*slot)))
        .ok_or_else(|| Refusal::invalid("device_index", format!("must be 1 to {LAST_SLOT}")))?;
    let mut tx = cx.begin().await?;
    let row = Cx::found(interfaces::get(&mut tx, cx.account(), &Ref::from(&id)).await, &id)?;
    let instance =
        Cx::found(instances::lock(&mut tx, cx.account(), &Ref::from(&instance_id)).await, &instance_id)
            .map_err(|refusal| refusal.field("instance_id"))?;
    same_vpc::<InstanceKind>(instance.vpc_id, row.vpc_id, "instance_id")?;
    stopped(&instance.state)?;
    let attachment =
        Attachment { id: Uuid::now_v7(), interface: row.id, instance: instance.id, device_index };
    if !interfaces::attach(&mut tx, &attachment).await? {
        return Err(attached(&row));
    }
    let detail = serde_json::to_value(&body).unwrap_or_default();
    finish(cx, tx, row, ("AttachNetworkInterface", detail), until).await
}

fn attached(row: &NetworkInterfaceRow) -> Refusal {
    let to = row.instance_id.map(|id| InstanceId::from_uuid(id).to_string());
    Refusal::conflict("InvalidNetworkInterface.InUse", "the interface is attached to an instance")
        .blocked_by(to.into_iter().collect())
}

/// Detaches an interface from its stopped instance.
pub async fn detach(cx: Cx, One(id): One<Kind>, wait: Wait, (): ()) -> Result<NetworkInterface> {
    let until = cx.until_applied(&wait)?;
    let mut tx = cx.begin().await?;
    let row = Cx::found(interfaces::get(&mut tx, cx.account(), &Ref::from(&id)).await, &id)?;
    let not_attached = || Refusal::conflict("InvalidAttachmentID.NotFound", "the interface is not attached");
    let instance = row.instance_id.ok_or_else(not_attached)?;
    let instance = instances::lock(&mut tx, cx.account(), &instance.into()).await?;
    if row.device_index == Some(0) {
        return Err(Refusal::conflict(
            "OperationNotPermitted",
            "the primary interface of an instance cannot be detached",
        ));
    }
    stopped(&instance.state)?;
    if !interfaces::detach(&mut tx, row.id, instance.id).await? {
        return Err(not_attached());
    }
    finish(cx, tx, row, ("DetachNetworkInterface", serde_json::json!({})), until).await
}

/// Deletes an interface that is not attached.
pub async fn delete(cx: Cx, One(id): One<Kind>, _: NoQuery, (): ()) -> Result<()> {
    let mut tx = cx.begin().await?;
    let row = Cx::found(interfaces::get(&mut tx, cx.account(), &Ref::from(&id)).await, &id)?;
    match interfaces::delete(&mut tx, cx.account(), row.id).await {
        Ok(true) => {}
        Ok(false) => return Err(attached(&row)),
        Err(error) => return Cx::found(Err(error), &id),
    }
    let entry = Entry::new("DeleteNetworkInterface", row.id).event(
        Watched::NetworkInterface,
        row.id,
        Some("available"),
        None,
    );
    cx.commit(tx, entry, &()).await
}

/// What every change of an interface ends with.
async fn finish(
    cx: Cx,
    mut tx: Tx,
    before: NetworkInterfaceRow,
    (action, detail): (&'static str, serde_json::Value),
    until: Option<Until>,
) -> Result<NetworkInterface> {
    let (id, vpc) = (before.id, before.vpc_id);
    let applied = show_applied(vpcs::bump(&mut tx, vpc).await?);
    let row = interfaces::get(&mut tx, cx.account(), &id.into()).await?;
    let instances: BTreeSet<Uuid> = [before.instance_id, row.instance_id].into_iter().flatten().collect();
    let moved = before.instance_id != row.instance_id;
    let was = if before.instance_id.is_some() { "in-use" } else { "available" };
    let interface = with_applied(show(row), applied);
    let mut entry = Entry::new(action, id).detail(detail).vpc(vpc).event(
        Watched::NetworkInterface,
        id,
        Some(was),
        Some(&interface.status),
    );
    for instance in instances {
        entry = entry.event(Watched::Instance, instance, None, None);
        if moved {
            entry = entry.instance(instance);
        }
    }
    cx.commit(tx, entry, &interface).await?;
    let applied = cx.settle(vpc, applied, until).await?;
    Ok(with_applied(interface, applied))
}
