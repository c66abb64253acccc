//! Instances: what users may ask of them. The state machine that answers reports is `gon_core::instance`.

use std::net::Ipv4Addr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gon_api::Applied;
use gon_api::instances::{
    ConsoleOutput, Instance, LaunchInstance, LaunchedInstance, ListInstances, StopInstance, UpdateInstance,
};
use gon_api::page::{NoQuery, Page, Wait};
use gon_core::ask::{self, Ask, Decision, Public};
use gon_core::catalog::{InstanceType, instance_type};
use gon_core::ipam;
use gon_store::events::Watched;
use gon_store::instances::{self, Filter, InstanceRow, Launch, Launched, LockedRow};
use gon_store::journal::Entry;
use gon_store::reference::Ref;
use gon_store::subnets::SubnetRow;
use gon_store::{Conn, StoreError, Tx, addresses, images, key_pairs, security_groups, subnets, vpcs};
use gon_types::id::{IdRef, ImageId, InstanceId, NetworkInterfaceId, SecurityGroupId, SubnetId, VpcId};
use gon_types::{InstanceState, MacAddr, crash};
use ipnet::Ipv4Net;
use time::OffsetDateTime;
use uuid::Uuid;

use super::cx::{Pause, Until};
use super::error::{Kind as No, Refusal, Result};
use super::operations::{of_instance, shown};
use super::subnets::in_vpc;
use super::{Cx, parse, random};
use crate::api::{ConsoleError, Json, One, Optional};

type Kind = gon_types::id::Instance;
type GroupKind = gon_types::id::SecurityGroup;

/// What a request about an instance may wait for.
const WAITS: &[&str] = &["running", "stopped", "terminated", "applied"];
/// Instances of one launch.
const MOST_INSTANCES: u32 = 20;
/// Groups of one interface (EC2's quota).
const MOST_GROUPS: usize = 5;
/// User data, raw (EC2's limit).
const MOST_USER_DATA: usize = 16 * 1024;

/// The state of an instance whose node is not heard of; EC2 has none like it.
const UNKNOWN: &str = "unknown";
/// And its number.
const UNKNOWN_CODE: u8 = 255;

/// A row as users see it.
pub fn show(row: InstanceRow) -> Instance {
    let placed = row.worker_node.is_some();
    // What nobody has heard of for a while is not known, whatever it was.
    let (state, state_code, state_reason) = match row.unheard_since {
        Some(since) => (
            UNKNOWN.to_owned(),
            UNKNOWN_CODE,
            Some(format!(
                "Server.NodeUnknown: its node was last heard of at {}; it was {} then",
                since.format(&time::format_description::well_known::Rfc3339).unwrap_or_default(),
                row.state
            )),
        ),
        None => {
            let code = row.state.parse::<InstanceState>().map_or(UNKNOWN_CODE, InstanceState::code);
            (row.state, code, row.state_reason)
        }
    };
    Instance {
        id: InstanceId::from_uuid(row.id).to_string(),
        uuid: row.id,
        name: row.name,
        state,
        state_code,
        state_reason,
        instance_type: row.instance_type,
        vcpus: row.vcpus,
        memory_mib: row.memory_mib,
        disk_gib: row.disk_gib,
        image_id: ImageId::from_uuid(row.image_id).to_string(),
        vpc_id: VpcId::from_uuid(row.vpc_id).to_string(),
        subnet_id: SubnetId::from_uuid(row.subnet_id).to_string(),
        availability_zone: row.availability_zone,
        network_interface_id: row
            .network_interface_id
            .map(|id| NetworkInterfaceId::from_uuid(id).to_string()),
        private_ip: row.private_ip.map(|net| net.addr().to_string()),
        public_ip: row.public_ip.map(|net| net.addr().to_string()),
        mac_address: row.mac_address.map(|mac| MacAddr(mac.bytes()).to_string()),
        security_group_ids: row
            .security_group_ids
            .into_iter()
            .map(|id| SecurityGroupId::from_uuid(id).to_string())
            .collect(),
        key_name: row.key_name,
        worker_node: row.worker_node,
        auto_recover: row.auto_recover,
        reservation_id: super::vpcs::shown_blocker("r", row.reservation_id),
        launch_index: row.launch_index,
        generation: row.generation,
        applied: Applied {
            generation: row.generation,
            nodes: i64::from(placed),
            acked: i64::from(placed && row.observed_generation >= row.generation),
        },
        launched_at: row.launched_at,
        created_at: row.created_at,
        updated_at: row.updated_at,
        terminated_at: row.terminated_at,
        operation_id: None,
    }
}

/// What a launch is made of, checked.
struct Plan {
    name: String,
    kind: InstanceType,
    subnet: SubnetRow,
    private_ip: Option<Ipv4Addr>,
    image: Uuid,
    disk_gib: i32,
    groups: Vec<Uuid>,
    key: Option<(String, String)>,
    user_data: Option<Vec<u8>>,
    public: bool,
    require_token: bool,
    auto_recover: bool,
    count: u32,
}

fn kind_named(name: &str) -> Result<InstanceType> {
    instance_type(name).ok_or_else(|| {
        Refusal::invalid("instance_type", "there is no such instance type: see /api/v1/instance-types")
    })
}

fn fits(kind: &InstanceType, min_memory_mib: i32) -> Result<()> {
    if i64::from(kind.memory_mib) >= i64::from(min_memory_mib) {
        return Ok(());
    }
    Err(Refusal::invalid(
        "instance_type",
        format!("the image needs {min_memory_mib} MiB of memory, {} has {}", kind.name, kind.memory_mib),
    ))
}

fn user_data(text: Option<&str>) -> Result<Option<Vec<u8>>> {
    let Some(text) = text else { return Ok(None) };
    let malformed = |why: &str| Refusal::of_field("InvalidUserData.Malformed", "user_data", why.to_owned());
    // No base64 of 16 KiB is longer.
    if text.len() > MOST_USER_DATA.div_ceil(3) * 4 {
        return Err(malformed("must be at most 16 KiB"));
    }
    let bytes = STANDARD.decode(text).map_err(|_| malformed("must be base64"))?;
    if bytes.len() > MOST_USER_DATA {
        return Err(malformed("must be at most 16 KiB"));
    }
    Ok(Some(bytes))
}

/// The groups an interface is to have: those asked for, or the VPC's default one.
pub(super) async fn groups(
    cx: &Cx,
    conn: &mut Conn,
    asked: Option<&[String]>,
    vpc: Uuid,
) -> Result<Vec<Uuid>> {
    const FIELD: &str = "security_group_ids";
    let asked = match asked {
        None => return Ok(vec![security_groups::default_of(conn, vpc).await?]),
        Some([]) => return Err(Refusal::invalid(FIELD, "must name 1 to 5 security groups, or be left out")),
        Some(asked) => asked,
    };
    if asked.len() > MOST_GROUPS {
        return Err(Refusal::of_field(
            "SecurityGroupsPerInterfaceLimitExceeded",
            FIELD,
            format!("at most {MOST_GROUPS} security groups"),
        ));
    }
    let mut refs = Vec::with_capacity(asked.len());
    for (at, text) in asked.iter().enumerate() {
        refs.push(parse::reference::<GroupKind>(format!("{FIELD}[{at}]"), text)?);
    }
    let found = security_groups::resolve(conn, cx.account(), &refs).await?;
    let mut ids = Vec::with_capacity(refs.len());
    for (at, wanted) in refs.iter().enumerate() {
        let field = format!("{FIELD}[{at}]");
        let row = found
            .iter()
            .find(|row| wanted.whole == Some(row.id) || wanted.short.as_deref() == Some(&row.short_id))
            .ok_or_else(|| {
                Refusal::not_found("InvalidGroup", "security group", &asked[at]).field(field.clone())
            })?;
        if row.vpc_id != vpc {
            return Err(Refusal::invalid(field, "the security group is of another VPC"));
        }
        if !ids.contains(&row.id) {
            ids.push(row.id);
        }
    }
    Ok(ids)
}

/// The address that was asked for.
fn private_ip(body: &LaunchInstance, block: Ipv4Net, count: u32) -> Result<Option<Ipv4Addr>> {
    const FIELD: &str = "private_ip";
    let Some(text) = body.private_ip.as_deref() else { return Ok(None) };
    let address: Ipv4Addr = text.parse().map_err(|_| Refusal::invalid(FIELD, "must be an IPv4 address"))?;
    if count != 1 {
        return Err(Refusal::invalid(FIELD, "only one instance can have it"));
    }
    if !ipam::may_have(block, address) {
        return Err(Refusal::invalid(FIELD, format!("instances cannot have it in the subnet {block}")));
    }
    Ok(Some(address))
}

async fn plan(cx: &Cx, conn: &mut Conn, body: &LaunchInstance) -> Result<Plan> {
    let name = parse::name("name", &body.name)?;
    let kind = kind_named(&body.instance_type)?;
    let user_data = user_data(body.user_data.as_deref())?;
    let count = body.count.unwrap_or(1);
    if !(1..=MOST_INSTANCES).contains(&count) {
        return Err(Refusal::invalid("count", format!("must be 1 to {MOST_INSTANCES}")));
    }
    let subnet_id = body
        .subnet_id
        .as_deref()
        .map(|text| parse::id::<gon_types::id::Subnet>("subnet_id", text))
        .transpose()?;
    let image_id = parse::id::<gon_types::id::Image>("image_id", &body.image_id)?;
    let subnet = match subnet_id {
        Some(id) => Cx::found(subnets::get(conn, cx.account(), &Ref::from(&id)).await, &id)
            .map_err(|refusal| refusal.field("subnet_id"))?,
        None => subnets::default_of(conn, cx.account()).await?.ok_or_else(|| {
            Refusal::of_field(
                "VPCIdNotSpecified",
                "subnet_id",
                "is required: the account has no default VPC to fall back on",
            )
        })?,
    };
    let image = Cx::found(images::get(conn, cx.account(), &Ref::from(&image_id)).await, &image_id)
        .map_err(|refusal| refusal.field("image_id"))?;
    fits(&kind, image.min_memory_mib)?;
    let groups = groups(cx, conn, body.security_group_ids.as_deref(), subnet.vpc_id).await?;
    let key = match body.key_name.as_deref() {
        None => None,
        Some(key_name) => {
            let found = if key_name.contains('\0') {
                None
            } else {
                key_pairs::by_name(conn, cx.account(), key_name).await?
            };
            let shown: String = key_name.chars().take(100).collect();
            let row = found
                .ok_or_else(|| Refusal::not_found("InvalidKeyPair", "key pair", shown).field("key_name"))?;
            Some((row.name, row.public_key))
        }
    };
    Ok(Plan {
        name,
        kind,
        public: body.associate_public_ip.unwrap_or(subnet.map_public_ip_on_launch),
        private_ip: private_ip(body, subnet.cidr_block.0, count)?,
        subnet,
        image: image.id,
        disk_gib: image.disk_gib,
        groups,
        key,
        user_data,
        require_token: body.metadata_require_token.unwrap_or(false),
        auto_recover: body.auto_recover.unwrap_or(false),
        count,
    })
}

/// Writes one instance of a launch. Addresses are drawn at random first, so that two launches seldom want the same;
/// when that fails thrice the subnet is nearly full and is searched from its beginning, one launch at a time.
async fn place_address(tx: &mut Tx, cx: &Cx, plan: &Plan, ids: (Uuid, i32)) -> Result<(Uuid, Launched)> {
    let block = plan.subnet.cidr_block.0;
    let (reservation, launch_index) = ids;
    let launch = Launch {
        id: Uuid::now_v7(),
        account: cx.account(),
        user: cx.actor.user,
        vpc: plan.subnet.vpc_id,
        subnet: plan.subnet.id,
        subnet_cidr: block,
        name: &plan.name,
        instance_type: plan.kind.name,
        vcpus: i32::from(plan.kind.vcpus),
        memory_mib: i32::try_from(plan.kind.memory_mib).unwrap_or(i32::MAX),
        disk_gib: plan.disk_gib,
        image: plan.image,
        key: plan.key.as_ref().map(|(name, line)| (name.as_str(), line.as_str())),
        user_data: plan.user_data.as_deref(),
        reservation,
        launch_index,
        require_token: plan.require_token,
        auto_recover: plan.auto_recover,
        interface: Uuid::now_v7(),
        mac: ipam::mac(random()?),
        groups: &plan.groups,
        public: plan.public.then(Uuid::now_v7),
    };
    if let Some(address) = plan.private_ip {
        return match instances::launch(tx, &launch, &[address], true).await? {
            Some(launched) => Ok((launch.id, launched)),
            None => {
                Err(Refusal::conflict("InvalidIPAddress.InUse", format!("{address} is in use in the subnet"))
                    .field("private_ip"))
            }
        };
    }
    for _ in 0..3 {
        let drawn: [u8; 32] = random()?;
        let candidates: Vec<_> = drawn
            .chunks_exact(4)
            .filter_map(|c| ipam::pick(block, u32::from_le_bytes([c[0], c[1], c[2], c[3]])))
            .collect();
        if let Some(launched) = instances::launch(tx, &launch, &candidates, false).await? {
            return Ok((launch.id, launched));
        }
    }
    let Some((first, last)) = ipam::range(block) else { return Err(subnet_is_full()) };
    let room = u32::from(last) - u32::from(first) + 1;
    for _ in 0..64 {
        let candidates = instances::free_addresses(tx, plan.subnet.id, first, room).await?;
        if candidates.is_empty() {
            return Err(subnet_is_full());
        }
        if let Some(launched) = instances::launch(tx, &launch, &candidates, true).await? {
            return Ok((launch.id, launched));
        }
    }
    let mut refusal =
        Refusal::new(No::Retry, "Unavailable", "too many launches into this subnet at once: try again");
    refusal.retry_after = Some(1);
    Err(refusal)
}

/// What a full subnet answers.
pub(super) fn subnet_is_full() -> Refusal {
    Refusal::conflict("InsufficientFreeAddressesInSubnet", "the subnet has no free address")
        .field("subnet_id")
}

/// Launches instances: all or none. They are placed on a node afterwards; their packets begin to matter then.
pub async fn launch(
    cx: Cx,
    (): (),
    wait: Wait,
    Json(body): Json<LaunchInstance>,
) -> Result<LaunchedInstance> {
    let until = cx.until(&wait, WAITS)?;
    crash::point("C03:before");
    let mut tx = cx.begin().await?;
    crash::point("C03:after");
    let plan = plan(&cx, &mut tx, &body).await?;
    crash::point("C05:before");
    let reservation = Uuid::now_v7();
    let mut ids = Vec::new();
    for index in 0..plan.count {
        let index = i32::try_from(index).unwrap_or(i32::MAX);
        let (id, launched) = place_address(&mut tx, &cx, &plan, (reservation, index)).await?;
        if plan.public && launched.public_ip.is_none() {
            return Err(super::addresses::pool_is_empty().field("associate_public_ip"));
        }
        ids.push(id);
    }
    crash::point("C05:after");
    let mut rows = instances::by_ids(&mut tx, &ids).await?;
    rows.sort_by_key(|row| row.launch_index);
    let mut all: Vec<Instance> = rows.into_iter().map(show).collect();
    let first = all.first().cloned().ok_or_else(|| Refusal::internal("a launch was lost on its way"))?;
    let mut entry = Entry::new("RunInstances", first.uuid).detail(serde_json::json!({
        "name": plan.name, "instance_type": plan.kind.name, "image_id": first.image_id, "subnet_id": first.subnet_id,
        "count": plan.count, "instance_ids": all.iter().map(|i| i.id.as_str()).collect::<Vec<_>>(),
    }));
    for instance in &mut all {
        let id = instance.uuid;
        let operation = of_instance("RunInstances", id, "running", instance.generation);
        instance.operation_id = Some(shown(&operation));
        entry = entry.instance(id).event(Watched::Instance, id, None, Some("pending")).operation(operation);
    }
    let mut answer = LaunchedInstance {
        instance: all.first().cloned().unwrap_or(first),
        instances: if plan.count > 1 { all.clone() } else { vec![] },
    };
    cx.commit(tx, entry, &answer).await?;
    if until.is_some() {
        for instance in &mut all {
            *instance = wait_for(&cx, instance.clone(), until).await?;
        }
        answer.instance = all[0].clone();
        if plan.count > 1 {
            answer.instances = all;
        }
    }
    Ok(answer)
}

/// Whether there is no use in waiting any longer.
fn has_arrived(instance: &Instance, what: &str) -> bool {
    match what {
        "applied" => {
            instance.applied.nodes > 0 && instance.applied.is_complete() || instance.state == "terminated"
        }
        // One that ends will never run; one that has ended stays so.
        state => {
            instance.state == state
                || instance.state == "terminated"
                || (instance.state == "shutting-down" && state != "terminated")
        }
    }
}

async fn wait_for(cx: &Cx, instance: Instance, until: Option<Until>) -> Result<Instance> {
    let Some(until) = until else { return Ok(instance) };
    let mut instance = instance;
    let mut pause = Pause::new(&cx.app, until.deadline);
    while !has_arrived(&instance, until.what) && pause.rest().await {
        let mut conn = cx.conn().await?;
        let operation_id = instance.operation_id.take();
        instance = show(instances::get(&mut conn, cx.account(), &instance.uuid.into()).await?);
        instance.operation_id = operation_id;
    }
    Ok(instance)
}

/// Lists instances.
pub async fn list(cx: Cx, (): (), query: ListInstances, (): ()) -> Result<Page<Instance>> {
    let window = cx.window("instances", query.window())?;
    let nothing = Page { items: vec![], next_cursor: None };
    let mut conn = cx.conn().await?;
    if let Some(state) = query.state.as_ref().filter(|state| *state != UNKNOWN) {
        state.parse::<InstanceState>().map_err(|error| Refusal::invalid("state", error.to_string()))?;
    }
    let mut filter = Filter {
        vpc: None,
        subnet: None,
        state: query.state,
        name: query.name,
        instance_type: query.instance_type,
    };
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
    let rows = instances::list(&mut conn, cx.account(), &filter, window).await?;
    Ok(cx.page("instances", window, rows, |r| r.id, show))
}

/// Describes an instance.
pub async fn get(cx: Cx, One(id): One<Kind>, wait: Wait, (): ()) -> Result<Instance> {
    let until = cx.until(&wait, WAITS)?;
    let mut conn = cx.conn().await?;
    let instance = show(Cx::found(instances::get(&mut conn, cx.account(), &Ref::from(&id)).await, &id)?);
    drop(conn);
    wait_for(&cx, instance, until).await
}

fn wrong_state(row: &LockedRow, must_be: &str) -> Refusal {
    Refusal::conflict(
        "IncorrectInstanceState",
        format!("the instance '{}' is {}, it must be {must_be}", InstanceId::from_uuid(row.id), row.state),
    )
}

/// Renames an instance; gives it another size, or says whether it is recovered, while it is stopped.
pub async fn update(
    cx: Cx,
    One(id): One<Kind>,
    _: NoQuery,
    Json(body): Json<UpdateInstance>,
) -> Result<Instance> {
    parse::some_change(body.name.is_some() || body.instance_type.is_some() || body.auto_recover.is_some())?;
    let name = body.name.as_deref().map(|name| parse::name("name", name)).transpose()?;
    let kind = body.instance_type.as_deref().map(kind_named).transpose()?;
    let mut tx = cx.begin().await?;
    let row = Cx::found(instances::lock(&mut tx, cx.account(), &Ref::from(&id)).await, &id)?;
    if cx.unless_changed_since.is_some_and(|seen| seen != row.updated_at) {
        return Err(Refusal::changed());
    }
    if row.state == "terminated" {
        return Err(wrong_state(&row, "anything else"));
    }
    let mut entry = Entry::new("ModifyInstanceAttribute", row.id)
        .detail(serde_json::json!({
            "name": name, "instance_type": body.instance_type, "auto_recover": body.auto_recover,
        }))
        .event(Watched::Instance, row.id, Some(&row.state), Some(&row.state));
    if let Some(kind) = kind
        && kind.name != row.instance_type
    {
        if row.state != "stopped" {
            return Err(wrong_state(&row, "stopped").field("instance_type"));
        }
        fits(&kind, row.min_memory_mib)?;
        let memory = i32::try_from(kind.memory_mib).unwrap_or(i32::MAX);
        instances::resize(&mut tx, row.id, kind.name, i32::from(kind.vcpus), memory).await?;
        entry = entry.instance(row.id);
    }
    if let Some(auto_recover) = body.auto_recover
        && auto_recover != row.auto_recover
    {
        // Its node must know before it starts it.
        if row.state != "stopped" {
            return Err(wrong_state(&row, "stopped").field("auto_recover"));
        }
        instances::set_auto_recover(&mut tx, row.id, auto_recover).await?;
        entry = entry.instance(row.id);
    }
    if let Some(name) = &name {
        instances::rename(&mut tx, row.id, name).await?;
    }
    let instance = show(instances::get(&mut tx, cx.account(), &row.id.into()).await?);
    cx.commit(tx, entry, &instance).await?;
    Ok(instance)
}

/// Ends a change of an instance: what changed for its VPC, the books, the answer, and the waiting.
async fn finish(
    cx: Cx,
    mut tx: Tx,
    row: LockedRow,
    mut entry: Entry,
    packets_changed: bool,
    until: Option<Until>,
) -> Result<Instance> {
    if packets_changed {
        vpcs::bump(&mut tx, row.vpc_id).await?;
        entry = entry.vpc(row.vpc_id);
    }
    let mut instance = show(instances::get(&mut tx, cx.account(), &row.id.into()).await?);
    instance.operation_id = entry.operations.first().map(shown);
    cx.commit(tx, entry.instance(row.id), &instance).await?;
    wait_for(&cx, instance, until).await
}

/// Does what [`ask::decide`] says: one transaction.
async fn perform(cx: Cx, id: IdRef<Kind>, wait: Wait, ask: Ask) -> Result<Instance> {
    let until = cx.until(&wait, WAITS)?;
    let mut tx = cx.begin().await?;
    let row = Cx::found(instances::lock(&mut tx, cx.account(), &Ref::from(&id)).await, &id)?;
    let state: InstanceState = row.state.parse().map_err(|_| Refusal::internal("a state has no name"))?;
    let change = match ask::decide(state, ask) {
        Decision::Change(change) => change,
        Decision::Refused { must_be } => return Err(wrong_state(&row, must_be.as_str())),
        Decision::Already => {
            let instance = show(instances::get(&mut tx, cx.account(), &row.id.into()).await?);
            gon_store::rollback(tx).await?;
            return wait_for(&cx, instance, until).await;
        }
    };
    let (action, goal) = match ask {
        Ask::Start => ("StartInstances", "running"),
        Ask::Stop { .. } => ("StopInstances", "stopped"),
        Ask::Reboot => ("RebootInstances", "rebooted"),
        Ask::Terminate => ("TerminateInstances", "terminated"),
    };
    // What the goal is reached by: so many reboots, or this generation.
    let reached = if change.is_reboot {
        instances::reboot(&mut tx, row.id).await?
    } else {
        let (power, state) = (change.power.as_str(), change.state.as_str());
        instances::set_power(&mut tx, row.id, power, state, change.force).await?;
        row.generation + 1
    };
    let packets_changed = match (change.public, row.network_interface_id) {
        (Public::Give, Some(nic)) if row.auto_public_ip => {
            let given = addresses::give(&mut tx, cx.account(), Uuid::now_v7(), nic, row.vpc_id).await?;
            if !given && !addresses::has_one(&mut tx, nic).await? {
                return Err(super::addresses::pool_is_empty());
            }
            given
        }
        (Public::Give | Public::Keep, _) => false,
        (Public::ReleasePlatforms, _) => instances::release_public_ips(&mut tx, row.id, false).await?,
        (Public::ReleaseAll, _) => instances::release_public_ips(&mut tx, row.id, true).await?,
    };
    let mut entry = Entry::new(action, row.id)
        .event(Watched::Instance, row.id, Some(&row.state), Some(change.state.as_str()))
        .operation(of_instance(action, row.id, goal, reached));
    if let Ask::Stop { force } = ask {
        entry = entry.detail(serde_json::json!({ "force": force }));
    }
    if ask == Ask::Terminate {
        crash::point("D01:before");
    }
    let ended = finish(cx, tx, row, entry, packets_changed, until).await;
    if ask == Ask::Terminate {
        crash::point("D01:after");
    }
    ended
}

/// Starts a stopped instance; it gets a new public address if it had one of the platform's.
pub async fn start(cx: Cx, One(id): One<Kind>, wait: Wait, (): ()) -> Result<Instance> {
    perform(cx, id, wait, Ask::Start).await
}

/// Stops a running instance; the platform's public address is released.
pub async fn stop(
    cx: Cx,
    One(id): One<Kind>,
    wait: Wait,
    Optional(body): Optional<StopInstance>,
) -> Result<Instance> {
    perform(cx, id, wait, Ask::Stop { force: body.force }).await
}

/// Reboots a running instance.
pub async fn reboot(cx: Cx, One(id): One<Kind>, wait: Wait, (): ()) -> Result<Instance> {
    perform(cx, id, wait, Ask::Reboot).await
}

/// Terminates an instance. Asking twice is asking once.
pub async fn terminate(cx: Cx, One(id): One<Kind>, wait: Wait, (): ()) -> Result<Instance> {
    perform(cx, id, wait, Ask::Terminate).await
}

/// What the serial console has said.
pub async fn console_output(cx: Cx, One(id): One<Kind>, _: NoQuery, (): ()) -> Result<ConsoleOutput> {
    let mut conn = cx.conn().await?;
    let row = Cx::found(instances::get(&mut conn, cx.account(), &Ref::from(&id)).await, &id)?;
    drop(conn);
    let said = match &row.worker_node {
        Some(node) => cx.app.console.console(node, InstanceId::from_uuid(row.id)).await,
        None => Err(ConsoleError::None),
    };
    let output = match said {
        Ok(bytes) => STANDARD.encode(bytes),
        // EC2 answers with nothing until there is something.
        Err(ConsoleError::None) => String::new(),
        Err(ConsoleError::Unavailable(why)) => {
            tracing::warn!(instance = %InstanceId::from_uuid(row.id), why, "no console output");
            let mut refusal =
                Refusal::new(No::Unavailable, "Unavailable", "the node cannot be asked at the moment");
            refusal.retry_after = Some(2);
            return Err(refusal);
        }
    };
    Ok(ConsoleOutput { output, timestamp: OffsetDateTime::now_utc() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_data_is_base64_of_16_kib_at_most() {
        assert_eq!(user_data(None).unwrap(), None);
        assert_eq!(user_data(Some("")).unwrap(), Some(vec![]));
        assert_eq!(user_data(Some("aGk=")).unwrap(), Some(b"hi".to_vec()));
        assert!(user_data(Some(&STANDARD.encode(vec![0; MOST_USER_DATA]))).is_ok());
        assert!(user_data(Some(&STANDARD.encode(vec![0; MOST_USER_DATA + 1]))).is_err());
        assert!(user_data(Some(&"A".repeat(1 << 19))).is_err());
        assert!(user_data(Some("not base64!")).is_err());
    }
}
