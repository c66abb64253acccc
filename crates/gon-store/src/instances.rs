//! Instances, from the side of what users want. What nodes report is in [`crate::reports`], where instances go in
//! [`crate::placement`].
//!
//! Order of locks, the same everywhere: instance, node, interface, VPC.

use std::net::Ipv4Addr;

use gon_types::MacAddr;
use ipnet::{IpNet, Ipv4Net};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::reference::Ref;
use crate::v4::host;
use crate::{Conn, Result, Window};

/// An instance.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct InstanceRow {
    /// The instance.
    pub id: Uuid,
    /// Whose it is.
    pub account_id: Uuid,
    /// Its name.
    pub name: String,
    /// Its state, in EC2's words.
    pub state: String,
    /// Why it is in that state, when there is something to say.
    pub state_reason: Option<String>,
    /// Its type.
    pub instance_type: String,
    /// Processors.
    pub vcpus: i32,
    /// Memory, MiB.
    pub memory_mib: i32,
    /// Root disk, GiB; 0 for none.
    pub disk_gib: i32,
    /// Its image.
    pub image_id: Uuid,
    /// The key pair it was launched with.
    pub key_name: Option<String>,
    /// Its VPC.
    pub vpc_id: Uuid,
    /// Its subnet.
    pub subnet_id: Uuid,
    /// That subnet's zone.
    pub availability_zone: String,
    /// Its primary interface, until it is terminated.
    pub network_interface_id: Option<Uuid>,
    /// That interface's address.
    pub private_ip: Option<IpNet>,
    /// That interface's Ethernet address.
    pub mac_address: Option<mac_address::MacAddress>,
    /// Its public address.
    pub public_ip: Option<IpNet>,
    /// That interface's groups.
    pub security_group_ids: Vec<Uuid>,
    /// The name of the node it is on.
    pub worker_node: Option<String>,
    /// Since when nobody hears of that node; what is known of the instance is as old.
    pub unheard_since: Option<OffsetDateTime>,
    /// Whether it is started anew elsewhere when its node is lost.
    pub auto_recover: bool,
    /// The launch it is of.
    pub reservation_id: Uuid,
    /// Its place in that.
    pub launch_index: i32,
    /// Changes of what it should be.
    pub generation: i64,
    /// The last of them a node has reported on.
    pub observed_generation: i64,
    /// When it last started.
    pub launched_at: Option<OffsetDateTime>,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it last changed.
    pub updated_at: OffsetDateTime,
    /// When it ended.
    pub terminated_at: Option<OffsetDateTime>,
}

/// What belongs to an instance is looked up for each, by index: a join would have the planner read whole tables for a page
/// of which it does not know how short it is.
macro_rules! view {
    () => {
        view!("instances")
    };
    ($($from:expr),*) => {
        concat!(
            "select i.id, i.account_id, i.name, i.state::text as state, i.state_reason, i.instance_type, i.vcpus,
               i.memory_mib, i.disk_gib, i.image_id, i.key_name, i.vpc_id, i.subnet_id,
               (select s.availability_zone from subnets s where s.id = i.subnet_id) as availability_zone,
               n.id as network_interface_id, n.private_ip, n.mac_address,
               (select p.address from public_ips p where p.network_interface_id = n.id) as public_ip,
               array(select m.security_group_id from network_interface_security_groups m
                     where m.network_interface_id = n.id order by 1) as security_group_ids,
               w.name as worker_node, case when node_is_silent(w.last_report_at) then w.last_report_at end as unheard_since,
               i.auto_recover, i.reservation_id, i.launch_index, i.generation, i.observed_generation, i.launched_at, i.created_at,
               i.updated_at, i.terminated_at
             from ",
            $($from,)*
            " i left join lateral (
               select n.id, n.private_ip, n.mac_address from network_interfaces n
               where n.instance_id = i.id and n.device_index = 0 and n.deleted_at is null limit 1) n on true
               left join lateral (
               select w.name, w.last_report_at from nodes w where w.id = i.node_id limit 1) w on true "
        )
    };
}

/// A terminated instance is described for an hour, as EC2 does.
macro_rules! described {
    () => {
        "(i.deleted_at is null or i.deleted_at > now() - interval '1 hour')"
    };
}

/// An instance to be.
#[derive(Debug, Clone)]
pub struct Launch<'a> {
    /// Its id.
    pub id: Uuid,
    /// Its owner.
    pub account: Uuid,
    /// Who launches it.
    pub user: Uuid,
    /// Its VPC.
    pub vpc: Uuid,
    /// Its subnet.
    pub subnet: Uuid,
    /// That subnet's block.
    pub subnet_cidr: Ipv4Net,
    /// Its name.
    pub name: &'a str,
    /// Its type.
    pub instance_type: &'a str,
    /// Processors.
    pub vcpus: i32,
    /// Memory, MiB.
    pub memory_mib: i32,
    /// Root disk, GiB.
    pub disk_gib: i32,
    /// Its image.
    pub image: Uuid,
    /// Name and line of its key.
    pub key: Option<(&'a str, &'a str)>,
    /// User data.
    pub user_data: Option<&'a [u8]>,
    /// The launch it is of.
    pub reservation: Uuid,
    /// Its place in that.
    pub launch_index: i32,
    /// Whether the metadata service wants a token.
    pub require_token: bool,
    /// Whether it is started anew elsewhere when its node is lost.
    pub auto_recover: bool,
    /// Its primary interface.
    pub interface: Uuid,
    /// That interface's Ethernet address.
    pub mac: MacAddr,
    /// That interface's groups.
    pub groups: &'a [Uuid],
    /// The allocation of a public address of the platform's, if it gets one.
    pub public: Option<Uuid>,
}

/// What a launch got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Launched {
    /// Its address.
    pub private_ip: Ipv4Addr,
    /// Its public address; `None` although one was asked for means that the pool has none.
    pub public_ip: Option<Ipv4Addr>,
    /// When.
    pub created_at: OffsetDateTime,
}

/// Writes an instance with its interface, groups and public address: one statement. It gets the first of the
/// `candidates` that is free, also one that still rests if `also_resting`. `None` if none was, or somebody took it at the
/// same time: nothing was written then, and the caller tries others.
pub async fn launch(
    tx: &mut Conn,
    launch: &Launch<'_>,
    candidates: &[Ipv4Addr],
    also_resting: bool,
) -> Result<Option<Launched>> {
    let candidates: Vec<IpNet> = candidates.iter().map(|a| IpNet::from(std::net::IpAddr::V4(*a))).collect();
    let row: (Option<IpNet>, Option<IpNet>, Option<OffsetDateTime>) = sqlx::query_as(
        "with free as (
           select c.ip from unnest($21::inet[]) with ordinality as c (ip, n)
           where not exists (
             select from interface_addresses x
             where x.subnet_id = $5 and x.private_ip = c.ip
               -- An address rests for a minute: the last owner's peers must have forgotten it (rule R10).
               and (x.deleted_at is null or (not $22 and x.deleted_at > now() - interval '60 seconds')))
           order by c.n limit 1),
         nic as (
           insert into network_interfaces
             (id, account_id, vpc_id, subnet_id, subnet_cidr, instance_id, private_ip, mac_address)
           select $19, $2, $4, $5, $6, $1, free.ip, $20 from free
           on conflict (subnet_id, private_ip) where deleted_at is null do nothing
           returning private_ip),
         made as (
           insert into instances (id, account_id, user_id, vpc_id, subnet_id, name, instance_type, vcpus, memory_mib,
             disk_gib, image_id, key_name, public_key, user_data, reservation_id, launch_index, require_token,
             auto_public_ip, auto_recover)
           select $1, $2, $3, $4, $5, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $24::uuid is not null, $25
           from nic
           returning created_at),
         grouped as (
           insert into network_interface_security_groups (network_interface_id, security_group_id, vpc_id, account_id)
           select $19, g.id, $4, $2 from nic, unnest($23::uuid[]) as g (id)),
         given as (
           update public_ips set account_id = $2, allocation_id = $24, auto = true, allocated_at = now(),
             network_interface_id = $19, vpc_id = $4
           where $24::uuid is not null and exists (select from nic)
             and address = (select address from public_ips where account_id is null and rests_until <= now()
                            order by rests_until, address limit 1 for update skip locked)
           returning address)
         select (select private_ip from nic), (select address from given), (select created_at from made)",
    )
    .bind(launch.id)
    .bind(launch.account)
    .bind(launch.user)
    .bind(launch.vpc)
    .bind(launch.subnet)
    .bind(IpNet::V4(launch.subnet_cidr))
    .bind(launch.name)
    .bind(launch.instance_type)
    .bind(launch.vcpus)
    .bind(launch.memory_mib)
    .bind(launch.disk_gib)
    .bind(launch.image)
    .bind(launch.key.map(|k| k.0))
    .bind(launch.key.map(|k| k.1))
    .bind(launch.user_data)
    .bind(launch.reservation)
    .bind(launch.launch_index)
    .bind(launch.require_token)
    .bind(launch.interface)
    .bind(mac_address::MacAddress::new(launch.mac.0))
    .bind(candidates)
    .bind(also_resting)
    .bind(launch.groups)
    .bind(launch.public)
    .bind(launch.auto_recover)
    .fetch_one(tx)
    .await?;
    let (Some(private_ip), public_ip, Some(created_at)) = row else { return Ok(None) };
    Ok(Some(Launched {
        private_ip: host(private_ip)?,
        public_ip: public_ip.map(host).transpose()?,
        created_at,
    }))
}

/// Up to eight free addresses of a subnet from `first` on, `room` of them in all; those that rest come last. Holds the
/// subnet's allocation until the transaction ends, so that two who look at the last address do so one after the other.
pub async fn free_addresses(
    tx: &mut Conn,
    subnet: Uuid,
    first: Ipv4Addr,
    room: u32,
) -> Result<Vec<Ipv4Addr>> {
    sqlx::query("select pg_advisory_xact_lock(hashtextextended('subnet:' || $1::text, 0))")
        .bind(subnet)
        .execute(&mut *tx)
        .await?;
    let found: Vec<IpNet> = sqlx::query_scalar(
        "select f.ip from (select $2::inet + o as ip from generate_series(0, $3::bigint - 1) as o) f
         where not exists (select from interface_addresses x
                           where x.subnet_id = $1 and x.private_ip = f.ip and x.deleted_at is null)
         order by (select max(q.deleted_at) from interface_addresses q
                   where q.subnet_id = $1 and q.private_ip = f.ip and q.deleted_at > now() - interval '60 seconds')
                  nulls first, f.ip
         limit 8",
    )
    .bind(subnet)
    .bind(IpNet::from(std::net::IpAddr::V4(first)))
    .bind(i64::from(room))
    .fetch_all(tx)
    .await?;
    Ok(found.into_iter().map(host).collect::<std::result::Result<_, _>>()?)
}

/// One instance of the account.
pub async fn get(conn: &mut Conn, account: Uuid, id: &Ref) -> Result<InstanceRow> {
    Ok(sqlx::query_as(concat!(
        view!(),
        "where i.id = coalesce($2, (select id from instances where short_id = $3)) and i.account_id = $1 and ",
        described!()
    ))
    .bind(account)
    .bind(id.whole)
    .bind(&id.short)
    .fetch_one(conn)
    .await?)
}

/// These instances, of whatever account: for those who watch events.
pub async fn by_ids(conn: &mut Conn, ids: &[Uuid]) -> Result<Vec<InstanceRow>> {
    Ok(sqlx::query_as(concat!(view!(), "where i.id = any ($1)")).bind(ids).fetch_all(conn).await?)
}

/// What a list may be narrowed to.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// In this VPC.
    pub vpc: Option<Uuid>,
    /// In this subnet.
    pub subnet: Option<Uuid>,
    /// In this state.
    pub state: Option<String>,
    /// Exactly this name.
    pub name: Option<String>,
    /// Of this type.
    pub instance_type: Option<String>,
}

impl Filter {
    fn is_empty(&self) -> bool {
        let Self { vpc, subnet, state, name, instance_type } = self;
        vpc.is_none() && subnet.is_none() && state.is_none() && name.is_none() && instance_type.is_none()
    }
}

/// Instances of the account.
pub async fn list(
    conn: &mut Conn,
    account: Uuid,
    filter: &Filter,
    window: Window,
) -> Result<Vec<InstanceRow>> {
    if filter.is_empty() {
        // The common case has a statement of its own. With "or this filter is not given" in it, the plan that fits every
        // filter reads and sorts the whole table: 90 ms instead of 0.9 among 10 000 instances.
        return Ok(sqlx::query_as(concat!(
            view!(
                "(select * from instances i where i.account_id = $1 and ",
                described!(),
                " and i.id < $2 order by i.id desc limit $3)"
            ),
            "order by i.id desc"
        ))
        .bind(account)
        .bind(window.before.unwrap_or(Uuid::max()))
        .bind(window.limit)
        .fetch_all(conn)
        .await?);
    }
    Ok(sqlx::query_as(concat!(
        view!(),
        "where i.account_id = $1 and ",
        described!(),
        " and ($2::uuid is null or i.id < $2) and ($4::uuid is null or i.vpc_id = $4)
           and ($5::uuid is null or i.subnet_id = $5) and ($6::text is null
             or case when node_is_silent(w.last_report_at) then 'unknown' else i.state::text end = $6)
           and ($7::text is null or i.name = $7) and ($8::text is null or i.instance_type = $8)
         order by i.id desc limit $3"
    ))
    .persistent(false)
    .bind(account)
    .bind(window.before)
    .bind(window.limit)
    .bind(filter.vpc)
    .bind(filter.subnet)
    .bind(&filter.state)
    .bind(&filter.name)
    .bind(&filter.instance_type)
    .fetch_all(conn)
    .await?)
}

/// What a change of an instance needs to know of it.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct LockedRow {
    /// The instance.
    pub id: Uuid,
    /// Its VPC.
    pub vpc_id: Uuid,
    /// Its state.
    pub state: String,
    /// Changes of what it should be.
    pub generation: i64,
    /// Its type.
    pub instance_type: String,
    /// Processors.
    pub vcpus: i32,
    /// Memory, MiB.
    pub memory_mib: i32,
    /// What its image needs, MiB.
    pub min_memory_mib: i32,
    /// Whether a start gets it a public address.
    pub auto_public_ip: bool,
    /// Whether it is started anew elsewhere when its node is lost.
    pub auto_recover: bool,
    /// Its primary interface.
    pub network_interface_id: Option<Uuid>,
    /// When it last changed.
    pub updated_at: OffsetDateTime,
}

/// Reads an instance of the account; nobody changes it until the transaction ends.
pub async fn lock(tx: &mut Conn, account: Uuid, id: &Ref) -> Result<LockedRow> {
    Ok(sqlx::query_as(concat!(
        "select i.id, i.vpc_id, i.state::text as state, i.generation, i.instance_type, i.vcpus, i.memory_mib, m.min_memory_mib,
           i.auto_public_ip, i.auto_recover,
           (select n.id from network_interfaces n
            where n.instance_id = i.id and n.device_index = 0 and n.deleted_at is null) as network_interface_id,
           i.updated_at
         from instances i join images m on m.id = i.image_id
         where i.id = coalesce($2, (select id from instances where short_id = $3)) and i.account_id = $1 and ",
        described!(),
        " for update of i"
    ))
    .bind(account)
    .bind(id.whole)
    .bind(&id.short)
    .fetch_one(tx)
    .await?)
}

/// Asks for another power; the state moves along one of the schema's edges.
pub async fn set_power(
    tx: &mut Conn,
    id: Uuid,
    power: &'static str,
    state: &'static str,
    force: bool,
) -> Result<()> {
    sqlx::query(
        "update instances set power = $2::instance_power, state = $3::instance_state, force_stop = $4,
           leaving_node = leaving_node and $2 <> 'terminated', state_reason = null, generation = generation + 1,
           updated_at = greatest(now(), updated_at + interval '1 microsecond')
         where id = $1",
    )
    .bind(id)
    .bind(power)
    .bind(state)
    .bind(force)
    .execute(tx)
    .await?;
    Ok(())
}

/// Asks for one more reboot. Returns how many that makes.
pub async fn reboot(tx: &mut Conn, id: Uuid) -> Result<i64> {
    Ok(sqlx::query_scalar(
        "update instances set reboot_seq = reboot_seq + 1, generation = generation + 1,
           updated_at = greatest(now(), updated_at + interval '1 microsecond')
         where id = $1 returning reboot_seq",
    )
    .bind(id)
    .fetch_one(tx)
    .await?)
}

/// Takes the public addresses off an instance; the user's as well if `also_elastic`. True if there were any.
pub async fn release_public_ips(tx: &mut Conn, id: Uuid, also_elastic: bool) -> Result<bool> {
    crate::placement::release_public_ips(tx, id, also_elastic).await
}

/// Renames an instance.
pub async fn rename(tx: &mut Conn, id: Uuid, name: &str) -> Result<()> {
    sqlx::query(
        "update instances set name = $2, updated_at = greatest(now(), updated_at + interval '1 microsecond')
         where id = $1",
    )
    .bind(id)
    .bind(name)
    .execute(tx)
    .await?;
    Ok(())
}

/// Says whether an instance is started anew elsewhere when its node is lost. Only of one that is off: its node must know
/// before it starts it, and does, since that is another generation.
pub async fn set_auto_recover(tx: &mut Conn, id: Uuid, auto_recover: bool) -> Result<()> {
    sqlx::query(
        "update instances set auto_recover = $2, generation = generation + 1,
           updated_at = greatest(now(), updated_at + interval '1 microsecond')
         where id = $1",
    )
    .bind(id)
    .bind(auto_recover)
    .execute(tx)
    .await?;
    Ok(())
}

/// Gives an instance another size, and its node the difference; `nodes_capacity_check` refuses more than the node has.
pub async fn resize(tx: &mut Conn, id: Uuid, instance_type: &str, vcpus: i32, memory_mib: i32) -> Result<()> {
    sqlx::query(
        "with before as (select id, vcpus, memory_mib, node_id from instances where id = $1),
         changed as (
           update instances set instance_type = $2, vcpus = $3, memory_mib = $4, generation = generation + 1,
             updated_at = greatest(now(), updated_at + interval '1 microsecond')
           where id = $1)
         update nodes w set used_vcpus = w.used_vcpus + $3 - b.vcpus,
           used_memory_mib = w.used_memory_mib + $4 - b.memory_mib
         from before b where w.id = b.node_id",
    )
    .bind(id)
    .bind(instance_type)
    .bind(vcpus)
    .bind(memory_mib)
    .execute(tx)
    .await?;
    Ok(())
}
