//! VPCs. Creating one is one statement, with everything that comes with it.

use ipnet::{IpNet, Ipv4Net};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::events::Watched;
use crate::journal::Author;
use crate::reference::Ref;
use crate::v4::Block;
use crate::{Conn, Result, StoreError, Window};

/// A VPC.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct VpcRow {
    /// The VPC.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Its block.
    #[sqlx(try_from = "IpNet")]
    pub cidr_block: Block,
    /// Its blocks, that one first.
    pub blocks: Vec<IpNet>,
    /// The associations with them, in the same order.
    pub block_ids: Vec<Uuid>,
    /// Whether it is the account's default one.
    pub is_default: bool,
    /// `pending` or `available`.
    pub state: String,
    /// Its generation.
    pub generation: i64,
    /// Nodes that must have it in force.
    pub nodes: i64,
    /// Those that have.
    pub acked: i64,
    /// Its main route table.
    pub main_route_table_id: Uuid,
    /// Its default group.
    pub default_security_group_id: Uuid,
    /// Its default network ACL.
    pub default_network_acl_id: Uuid,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it last changed.
    pub updated_at: OffsetDateTime,
}

/// How far a VPC's change has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct AppliedRow {
    /// The generation.
    pub generation: i64,
    /// Nodes that must have it in force: those with an interface of the VPC.
    pub nodes: i64,
    /// Those that have.
    pub acked: i64,
}

/// What other resources need to know of their VPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct Head {
    /// The VPC.
    pub id: Uuid,
    /// Its first block.
    #[sqlx(try_from = "IpNet")]
    pub cidr_block: Block,
}

/// A block of a VPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct BlockRow {
    /// The association.
    pub id: Uuid,
    /// The block.
    #[sqlx(try_from = "IpNet")]
    pub cidr_block: Block,
    /// 0 for the first one.
    pub slot: i16,
}

macro_rules! applied_from {
    () => {
        "(select count(distinct n.node_id) as nodes,
            count(distinct n.node_id) filter (where a.applied_generation >= v.generation) as acked
          from network_interfaces n
            left join vpc_nodes a on a.vpc_id = n.vpc_id and a.node_id = n.node_id
          where n.vpc_id = v.id and n.deleted_at is null and n.node_id is not null)"
    };
}

macro_rules! view {
    () => {
        concat!(
            "select v.id, v.name, v.cidr_block, v.is_default,
               array(select b.cidr_block from vpc_cidr_blocks b
                     where b.vpc_id = v.id and b.deleted_at is null order by b.slot) as blocks,
               array(select b.id from vpc_cidr_blocks b
                     where b.vpc_id = v.id and b.deleted_at is null order by b.slot) as block_ids, v.state::text as state, v.generation, p.nodes, p.acked,
               t.id as main_route_table_id, g.id as default_security_group_id, c.id as default_network_acl_id,
               v.created_at, v.updated_at
             from vpcs v
               join route_tables t on t.vpc_id = v.id and t.is_main and t.deleted_at is null
               join security_groups g on g.vpc_id = v.id and g.is_default and g.deleted_at is null
               join network_acls c on c.vpc_id = v.id and c.is_default and c.deleted_at is null
               cross join lateral ",
            applied_from!(),
            " p "
        )
    };
}

/// The ids of a VPC to be and of what comes with it.
#[derive(Debug, Clone, Copy)]
pub struct NewIds {
    /// The VPC.
    pub vpc: Uuid,
    /// Its main route table.
    pub main_route_table: Uuid,
    /// Its default group.
    pub default_group: Uuid,
    /// That group's rule for what comes in from itself.
    pub rule_in: Uuid,
    /// And for what goes out.
    pub rule_out: Uuid,
}

/// Creates a VPC with its main route table, its default group and that group's two rules, rings, and records it: one
/// statement, so one round trip. Returns when it was made. Its first block and its default network ACL come with it, under
/// its number.
pub async fn create(
    conn: &mut Conn,
    author: &Author,
    ids: &NewIds,
    name: &str,
    cidr_block: Ipv4Net,
) -> Result<OffsetDateTime> {
    Ok(sqlx::query_scalar(
        "with made as (
           insert into vpcs (id, account_id, user_id, name, cidr_block, state)
           values ($1, $2, $3, $4, $5, 'available') returning created_at),
         routed as (
           insert into route_tables (id, account_id, vpc_id, vpc_cidr, name, is_main)
           values ($6, $2, $1, $5, 'main', true)),
         grouped as (
           insert into security_groups (id, account_id, vpc_id, name, description, is_default)
           values ($7, $2, $1, 'default', 'default VPC security group', true)),
         ruled as (
           insert into security_group_rules
             (id, account_id, vpc_id, security_group_id, direction, protocol, peer_cidr, peer_group_id)
           values ($8, $2, $1, $7, 'inbound', 'all', null, $7), ($9, $2, $1, $7, 'outbound', 'all', '0.0.0.0/0', null)),
         rung as (
           insert into outbox (subject, subject_id) values ('vpc', $1), ('event', $2)),
         seen as (
           insert into events (account_id, resource, resource_id, to_state, actor)
           values ($2, $13, $1, 'available', $10)),
         audited as (
           insert into audit_log (account_id, user_id, action, resource_id, request_id, source_ip, detail)
           values ($2, $3, 'CreateVpc', $1, $11, $12, jsonb_build_object('name', $4::text, 'cidr_block', $5::text)))
         select created_at from made",
    )
    .bind(ids.vpc)
    .bind(author.account)
    .bind(author.user)
    .bind(name)
    .bind(IpNet::V4(cidr_block))
    .bind(ids.main_route_table)
    .bind(ids.default_group)
    .bind(ids.rule_in)
    .bind(ids.rule_out)
    .bind(&author.name)
    .bind(&author.request_id)
    .bind(author.source_ip.map(IpNet::from))
    .bind(Watched::Vpc.word())
    .fetch_one(conn)
    .await?)
}

/// Makes a VPC the account's default one; `vpcs_default_key` refuses a second.
pub async fn make_default(tx: &mut Conn, vpc: Uuid) -> Result<()> {
    sqlx::query("update vpcs set is_default = true where id = $1").bind(vpc).execute(tx).await?;
    Ok(())
}

/// One VPC of the account.
pub async fn get(conn: &mut Conn, account: Uuid, id: &Ref) -> Result<VpcRow> {
    Ok(sqlx::query_as(concat!(
        view!(),
        "where v.id = coalesce($2, (select id from vpcs where short_id = $3)) and v.account_id = $1
           and v.deleted_at is null"
    ))
    .bind(account)
    .bind(id.whole)
    .bind(&id.short)
    .fetch_one(conn)
    .await?)
}

/// What a list may be narrowed to.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Exactly this name.
    pub name: Option<String>,
    /// Exactly this state.
    pub state: Option<String>,
    /// Exactly this block.
    pub cidr_block: Option<Ipv4Net>,
}

/// VPCs of the account.
pub async fn list(conn: &mut Conn, account: Uuid, filter: &Filter, window: Window) -> Result<Vec<VpcRow>> {
    Ok(sqlx::query_as(concat!(
        view!(),
        "where v.account_id = $1 and v.deleted_at is null and ($2::uuid is null or v.id < $2)
           and ($4::text is null or v.name = $4) and ($5::text is null or v.state::text = $5)
           and ($6::inet is null or v.cidr_block = $6)
         order by v.id desc limit $3"
    ))
    .persistent(false)
    .bind(account)
    .bind(window.before)
    .bind(window.limit)
    .bind(&filter.name)
    .bind(&filter.state)
    .bind(filter.cidr_block.map(IpNet::V4))
    .fetch_all(conn)
    .await?)
}

/// Id and block of a VPC of the account.
pub async fn head(conn: &mut Conn, account: Uuid, id: &Ref) -> Result<Head> {
    Ok(sqlx::query_as(
        "select id, cidr_block from vpcs
         where id = coalesce($2, (select id from vpcs where short_id = $3)) and account_id = $1
           and deleted_at is null",
    )
    .bind(account)
    .bind(id.whole)
    .bind(&id.short)
    .fetch_one(conn)
    .await?)
}

/// Like [`head`], and nobody deletes it until the transaction ends: what is read of it next is there.
pub async fn hold(tx: &mut Conn, account: Uuid, id: &Ref) -> Result<Head> {
    Ok(sqlx::query_as(
        "select id, cidr_block from vpcs
         where id = coalesce($2, (select id from vpcs where short_id = $3)) and account_id = $1
           and deleted_at is null for key share",
    )
    .bind(account)
    .bind(id.whole)
    .bind(&id.short)
    .fetch_one(tx)
    .await?)
}

/// The blocks of a VPC, the first one first.
pub async fn blocks(conn: &mut Conn, vpc: Uuid) -> Result<Vec<BlockRow>> {
    Ok(sqlx::query_as(
        "select id, cidr_block, slot from vpc_cidr_blocks where vpc_id = $1 and deleted_at is null order by slot",
    )
    .bind(vpc)
    .fetch_all(conn)
    .await?)
}

/// Gives a VPC another block. `vpc_cidr_blocks_no_overlap`, `…_restricted_check`, `…_route_check` and `…_limit_check`
/// refuse what EC2 refuses.
pub async fn add_block(tx: &mut Conn, account: Uuid, vpc: &Head, id: Uuid, block: Ipv4Net) -> Result<()> {
    sqlx::query(
        "insert into vpc_cidr_blocks (id, account_id, vpc_id, primary_cidr, cidr_block, slot)
         select $1, $2, $3, $4, $5, coalesce(min(s), 5) from generate_series(1, 4) s
         where not exists (select from vpc_cidr_blocks b where b.vpc_id = $3 and b.slot = s and b.deleted_at is null)",
    )
    .bind(id)
    .bind(account)
    .bind(vpc.id)
    .bind(IpNet::V4(vpc.cidr_block.0))
    .bind(IpNet::V4(block))
    .execute(tx)
    .await?;
    Ok(())
}

/// Takes a block that is not the first one from a VPC; false if it has none such. Subnets in it refuse
/// (`subnets_block_fkey`).
pub async fn remove_block(tx: &mut Conn, account: Uuid, vpc: Uuid, id: Uuid) -> Result<bool> {
    let done = sqlx::query(
        "update vpc_cidr_blocks set deleted_at = now()
         where id = $3 and vpc_id = $2 and account_id = $1 and slot > 0 and deleted_at is null",
    )
    .bind(account)
    .bind(vpc)
    .bind(id)
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The subnets in a block of a VPC, at most 50.
pub async fn subnets_in_block(conn: &mut Conn, vpc: Uuid, block: Ipv4Net) -> Result<Vec<Uuid>> {
    Ok(sqlx::query_scalar(
        "select id from subnets where vpc_id = $1 and vpc_cidr = $2 and deleted_at is null order by id limit 50",
    )
    .bind(vpc)
    .bind(IpNet::V4(block))
    .fetch_all(conn)
    .await?)
}

/// Renames a VPC; if `unless_changed_since` is given and it has changed, nothing happens and the answer is false.
pub async fn rename(
    tx: &mut Conn,
    account: Uuid,
    id: Uuid,
    name: &str,
    unless_changed_since: Option<OffsetDateTime>,
) -> Result<bool> {
    let done = sqlx::query(
        "update vpcs set name = $3, updated_at = greatest(now(), updated_at + interval '1 microsecond')
         where id = $2 and account_id = $1 and deleted_at is null and ($4::timestamptz is null or updated_at = $4)",
    )
    .bind(account)
    .bind(id)
    .bind(name)
    .bind(unless_changed_since)
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// One more generation of a VPC: something its packets depend on changed. Holds the VPC's row until the end of the
/// transaction, so take it last.
pub async fn bump(tx: &mut Conn, vpc: Uuid) -> Result<AppliedRow> {
    next_generation(tx, vpc, false).await
}

/// The same for a change of nothing but rules of its security groups, of which less has to be read (migration 12).
pub async fn bump_rules(tx: &mut Conn, vpc: Uuid) -> Result<AppliedRow> {
    next_generation(tx, vpc, true).await
}

async fn next_generation(tx: &mut Conn, vpc: Uuid, only_rules: bool) -> Result<AppliedRow> {
    Ok(sqlx::query_as(
        "update vpcs v set generation = generation + 1,
           rules_generation = case when $2 then generation + 1 else rules_generation end
         where v.id = $1 and v.deleted_at is null
         returning v.generation, 0::bigint as acked,
           (select count(distinct n.node_id) from network_interfaces n
            where n.vpc_id = v.id and n.deleted_at is null and n.node_id is not null) as nodes",
    )
    .bind(vpc)
    .bind(only_rules)
    .fetch_one(tx)
    .await?)
}

/// How far the VPC's latest change has come.
pub async fn applied(conn: &mut Conn, vpc: Uuid) -> Result<AppliedRow> {
    Ok(sqlx::query_as(concat!(
        "select v.generation, p.nodes, p.acked from vpcs v cross join lateral ",
        applied_from!(),
        " p where v.id = $1"
    ))
    .bind(vpc)
    .fetch_one(conn)
    .await?)
}

/// On how many nodes a certain generation is in force, and on how many it must be.
pub async fn applied_at(conn: &mut Conn, vpc: Uuid, generation: i64) -> Result<AppliedRow> {
    Ok(sqlx::query_as(
        "select $2::bigint as generation, count(distinct n.node_id) as nodes,
           count(distinct n.node_id) filter (where a.applied_generation >= $2) as acked
         from network_interfaces n left join vpc_nodes a on a.vpc_id = n.vpc_id and a.node_id = n.node_id
         where n.vpc_id = $1 and n.deleted_at is null and n.node_id is not null",
    )
    .bind(vpc)
    .bind(generation)
    .fetch_one(conn)
    .await?)
}

/// Deletes a VPC with its main route table and default group. Anything else of it that lives refuses, by the name of
/// its foreign key.
pub async fn delete(tx: &mut Conn, account: Uuid, id: Uuid) -> Result<()> {
    let done = sqlx::query(
        "with rules as (
           delete from security_group_rules r using security_groups g
           where g.vpc_id = $2 and g.is_default and g.deleted_at is null and r.security_group_id = g.id),
         groups as (
           update security_groups set deleted_at = now() where vpc_id = $2 and is_default and deleted_at is null),
         gone as (
           delete from routes r using route_tables t
           where t.vpc_id = $2 and t.is_main and t.deleted_at is null and r.route_table_id = t.id),
         tables as (
           update route_tables set deleted_at = now() where vpc_id = $2 and is_main and deleted_at is null),
         nodes as (
           delete from vpc_nodes where vpc_id = $2)
         update vpcs set deleted_at = now(), generation = generation + 1
         where id = $2 and account_id = $1 and deleted_at is null",
    )
    .bind(account)
    .bind(id)
    .execute(tx)
    .await?;
    if done.rows_affected() == 1 { Ok(()) } else { Err(StoreError::NotFound) }
}

/// What stands in the way of deleting a VPC: kind and id, at most 50.
pub async fn blockers(conn: &mut Conn, vpc: Uuid) -> Result<Vec<(String, Uuid)>> {
    Ok(sqlx::query_as(
        "select 'subnet', id from subnets where vpc_id = $1 and deleted_at is null
         union all select 'igw', id from internet_gateways where vpc_id = $1
         union all select 'sg', id from security_groups where vpc_id = $1 and deleted_at is null and not is_default
         union all select 'rtb', id from route_tables where vpc_id = $1 and deleted_at is null and not is_main
         union all select 'acl', id from network_acls where vpc_id = $1 and deleted_at is null and not is_default
         limit 50",
    )
    .bind(vpc)
    .fetch_all(conn)
    .await?)
}
