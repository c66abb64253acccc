//! Route tables, their routes and their associations. The local route is implied and not stored.

use ipnet::{IpNet, Ipv4Net};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::reference::Ref;
use crate::v4::Block;
use crate::{Conn, Result, StoreError, Window};

/// A route table.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct RouteTableRow {
    /// The table.
    pub id: Uuid,
    /// Its VPC.
    pub vpc_id: Uuid,
    /// The VPC's first block.
    #[sqlx(try_from = "IpNet")]
    pub vpc_cidr: Block,
    /// All its blocks, that one first: the local routes.
    pub vpc_blocks: Vec<IpNet>,
    /// Its name.
    pub name: String,
    /// Whether subnets without an association of their own follow it.
    pub is_main: bool,
    /// Its association with the VPC then.
    pub main_association_id: Option<Uuid>,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it last changed.
    pub updated_at: OffsetDateTime,
}

/// A route.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct RouteRow {
    /// The route.
    pub id: Uuid,
    /// Its table.
    pub route_table_id: Uuid,
    /// Where packets want to go, if it names no list.
    pub destination_cidr: Option<IpNet>,
    /// The prefix list whose blocks packets want to go to.
    pub destination_prefix_list_id: Option<Uuid>,
    /// Blocks of that list that it does not serve: the VPC's own, link-local ones, and those that another route has.
    pub ignored: Vec<IpNet>,
    /// The gateway it names.
    pub internet_gateway_id: Option<Uuid>,
    /// The interface it names.
    pub network_interface_id: Option<Uuid>,
    /// Whether that is there.
    pub active: bool,
}

/// An association.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct AssociationRow {
    /// The association.
    pub id: Uuid,
    /// The table.
    pub route_table_id: Uuid,
    /// The subnet.
    pub subnet_id: Uuid,
}

macro_rules! view {
    () => {
        "select t.id, t.vpc_id, t.vpc_cidr,
           array(select b.cidr_block from vpc_cidr_blocks b
                 where b.vpc_id = t.vpc_id and b.deleted_at is null order by b.slot) as vpc_blocks,
           t.name, t.is_main, t.main_association_id, t.created_at, t.updated_at
         from route_tables t "
    };
}

/// Creates a table that is not the main one.
pub async fn create(
    tx: &mut Conn,
    account: Uuid,
    id: Uuid,
    vpc: Uuid,
    vpc_cidr: Ipv4Net,
    name: &str,
) -> Result<()> {
    sqlx::query(
        "insert into route_tables (id, account_id, vpc_id, vpc_cidr, name) values ($1, $2, $3, $4, $5)",
    )
    .bind(id)
    .bind(account)
    .bind(vpc)
    .bind(IpNet::V4(vpc_cidr))
    .bind(name)
    .execute(tx)
    .await?;
    Ok(())
}

/// One table of the account.
pub async fn get(conn: &mut Conn, account: Uuid, id: &Ref) -> Result<RouteTableRow> {
    Ok(sqlx::query_as(concat!(
        view!(),
        "where t.id = coalesce($2, (select id from route_tables where short_id = $3)) and t.account_id = $1
           and t.deleted_at is null"
    ))
    .bind(account)
    .bind(id.whole)
    .bind(&id.short)
    .fetch_one(conn)
    .await?)
}

/// Like [`get`], and nobody deletes or changes it until the transaction ends.
pub async fn hold(tx: &mut Conn, account: Uuid, id: &Ref) -> Result<RouteTableRow> {
    Ok(sqlx::query_as(concat!(
        view!(),
        "where t.id = coalesce($2, (select id from route_tables where short_id = $3)) and t.account_id = $1
           and t.deleted_at is null for update"
    ))
    .bind(account)
    .bind(id.whole)
    .bind(&id.short)
    .fetch_one(tx)
    .await?)
}

/// What a list may be narrowed to.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of this VPC.
    pub vpc: Option<Uuid>,
    /// Exactly this name.
    pub name: Option<String>,
}

/// Tables of the account.
pub async fn list(
    conn: &mut Conn,
    account: Uuid,
    filter: &Filter,
    window: Window,
) -> Result<Vec<RouteTableRow>> {
    Ok(sqlx::query_as(concat!(
        view!(),
        "where t.account_id = $1 and t.deleted_at is null and ($2::uuid is null or t.id < $2)
           and ($4::uuid is null or t.vpc_id = $4) and ($5::text is null or t.name = $5)
         order by t.id desc limit $3"
    ))
    .persistent(false)
    .bind(account)
    .bind(window.before)
    .bind(window.limit)
    .bind(filter.vpc)
    .bind(&filter.name)
    .fetch_all(conn)
    .await?)
}

/// A block of a prefix list that no route can have: whoever names the list goes without it, as at EC2. In a statement
/// with `e`, the entry, and `r`, the route.
macro_rules! unroutable {
    () => {
        "(e.cidr <<= '169.254.0.0/16'::cidr
          or exists (select from vpc_cidr_blocks b
                     where b.vpc_id = r.vpc_id and b.deleted_at is null and e.cidr <<= b.cidr_block))"
    };
}
pub(crate) use unroutable;

/// The routes of these tables: those to blocks, by block, then those to prefix lists, the oldest first. Of two lists that
/// have a block it is the older route's.
pub async fn routes(conn: &mut Conn, tables: &[Uuid]) -> Result<Vec<RouteRow>> {
    Ok(sqlx::query_as(concat!(
        "select r.id, r.route_table_id, r.destination_cidr, r.destination_prefix_list_id, r.internet_gateway_id,
           r.network_interface_id,
           array(select e.cidr from prefix_list_entries e
                 where e.prefix_list_id = r.destination_prefix_list_id and (",
        unroutable!(),
        "          or exists (select from routes o
                              left join prefix_list_entries f
                                on f.prefix_list_id = o.destination_prefix_list_id and f.cidr = e.cidr
                            where o.route_table_id = r.route_table_id
                              and (o.destination_cidr = e.cidr or f.cidr is not null and o.id < r.id)))
                 order by e.cidr) as ignored,
           case r.target_type
             when 'gateway' then exists (select from internet_gateways g
                                         where g.id = r.internet_gateway_id and g.vpc_id = r.vpc_id)
             -- An interface without an instance that is up, or about to be, leads nowhere; until it does again.
             else exists (select from network_interfaces n join instances i on i.id = n.instance_id
                          where n.id = r.network_interface_id and n.deleted_at is null
                            and i.state in ('pending', 'running', 'stopping')) end as active
         from routes r where r.route_table_id = any ($1)
         order by r.route_table_id, r.destination_cidr nulls last, r.id"
    ))
    .bind(tables)
    .fetch_all(conn)
    .await?)
}

/// The associations of these tables.
pub async fn associations(conn: &mut Conn, tables: &[Uuid]) -> Result<Vec<AssociationRow>> {
    Ok(sqlx::query_as(
        "select id, route_table_id, subnet_id from route_table_associations
         where route_table_id = any ($1) order by route_table_id, id",
    )
    .bind(tables)
    .fetch_all(conn)
    .await?)
}

/// Renames a table; false if it has changed since, see [`crate::vpcs::rename`].
pub async fn rename(
    tx: &mut Conn,
    account: Uuid,
    id: Uuid,
    name: &str,
    unless_changed_since: Option<OffsetDateTime>,
) -> Result<bool> {
    let done = sqlx::query(
        "update route_tables set name = $3, updated_at = greatest(now(), updated_at + interval '1 microsecond')
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

/// Where a route leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Out through this gateway.
    Gateway(Uuid),
    /// To this interface.
    Interface(Uuid),
}

impl Target {
    const fn columns(self) -> (&'static str, Option<Uuid>, Option<Uuid>) {
        match self {
            Self::Gateway(id) => ("gateway", Some(id), None),
            Self::Interface(id) => ("instance", None, Some(id)),
        }
    }
}

/// Where packets of a route want to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// To this block.
    Block(Ipv4Net),
    /// To the blocks of this prefix list.
    PrefixList(Uuid),
}

impl Destination {
    fn columns(self) -> (Option<IpNet>, Option<Uuid>) {
        match self {
            Self::Block(block) => (Some(IpNet::V4(block)), None),
            Self::PrefixList(id) => (None, Some(id)),
        }
    }
}

/// Adds a route. `routes_destination_key` and `routes_prefix_list_key` refuse a second one to the same destination,
/// `routes_limit` one that the table has no room for.
pub async fn add_route(
    tx: &mut Conn,
    account: Uuid,
    id: Uuid,
    table: &RouteTableRow,
    destination: Destination,
    target: Target,
) -> Result<()> {
    let (kind, gateway, interface) = target.columns();
    let (block, list) = destination.columns();
    sqlx::query(
        "insert into routes (id, account_id, route_table_id, vpc_id, vpc_cidr, destination_cidr,
           destination_prefix_list_id, target_type, internet_gateway_id, network_interface_id)
         values ($1, $2, $3, $4, $5, $6, $7, $8::route_target, $9, $10)",
    )
    .bind(id)
    .bind(account)
    .bind(table.id)
    .bind(table.vpc_id)
    .bind(IpNet::V4(table.vpc_cidr.0))
    .bind(block)
    .bind(list)
    .bind(kind)
    .bind(gateway)
    .bind(interface)
    .execute(tx)
    .await?;
    Ok(())
}

/// Gives the route to a destination another target; false if there is none.
pub async fn replace_route(
    tx: &mut Conn,
    table: Uuid,
    destination: Destination,
    target: Target,
) -> Result<bool> {
    let (kind, gateway, interface) = target.columns();
    let (block, list) = destination.columns();
    let done = sqlx::query(
        "update routes set target_type = $4::route_target, internet_gateway_id = $5, network_interface_id = $6
         where route_table_id = $1 and (destination_cidr = $2 or destination_prefix_list_id = $3)",
    )
    .bind(table)
    .bind(block)
    .bind(list)
    .bind(kind)
    .bind(gateway)
    .bind(interface)
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Removes the route to a destination; false if there is none.
pub async fn remove_route(tx: &mut Conn, table: Uuid, destination: Destination) -> Result<bool> {
    let (block, list) = destination.columns();
    let done = sqlx::query(
        "delete from routes
         where route_table_id = $1 and (destination_cidr = $2 or destination_prefix_list_id = $3)",
    )
    .bind(table)
    .bind(block)
    .bind(list)
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Associates a table with a subnet of the same VPC. `route_table_associations_subnet_key` refuses a second table.
pub async fn associate(
    tx: &mut Conn,
    account: Uuid,
    id: Uuid,
    vpc: Uuid,
    table: Uuid,
    subnet: Uuid,
) -> Result<()> {
    sqlx::query(
        "insert into route_table_associations (id, account_id, vpc_id, route_table_id, subnet_id)
         values ($1, $2, $3, $4, $5)",
    )
    .bind(id)
    .bind(account)
    .bind(vpc)
    .bind(table)
    .bind(subnet)
    .execute(tx)
    .await?;
    Ok(())
}

/// The association of a table with a subnet or, if it is the main one, with its VPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Association {
    /// With a subnet.
    Subnet(Uuid),
    /// With the VPC.
    Main(Uuid),
}

/// Which association of a table of the account that is.
pub async fn association(
    conn: &mut Conn,
    account: Uuid,
    table: Uuid,
    id: &Ref,
) -> Result<Option<Association>> {
    let row: Option<(Uuid, bool)> = sqlx::query_as(
        "select id, false as main from route_table_associations
         where id = coalesce($3, (select id from route_table_associations where short_id = $4))
           and account_id = $1 and route_table_id = $2
         union all
         select main_association_id, true from route_tables
         where id = $2 and account_id = $1 and deleted_at is null
           and (main_association_id = $3 or main_association_short_id = $4)",
    )
    .bind(account)
    .bind(table)
    .bind(id.whole)
    .bind(&id.short)
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|(id, main)| if main { Association::Main(id) } else { Association::Subnet(id) }))
}

/// Lets whoever follows `from` by that association follow `to`, by the association `new`. False if it is gone, or `to` is.
/// `route_table_associations_table_fkey` refuses a table of another VPC.
pub async fn replace_association(
    tx: &mut Conn,
    account: Uuid,
    association: Association,
    (from, to): (Uuid, Uuid),
    new: Uuid,
) -> Result<bool> {
    match association {
        Association::Subnet(id) => {
            let done = sqlx::query(
                "update route_table_associations set id = $3, route_table_id = $4, created_at = now()
                 where id = $2 and account_id = $1 and route_table_id = $5",
            )
            .bind(account)
            .bind(id)
            .bind(new)
            .bind(to)
            .bind(from)
            .execute(tx)
            .await?;
            Ok(done.rows_affected() == 1)
        }
        Association::Main(id) => {
            // Two statements: a unique index looks at each row as it is written.
            let before = sqlx::query(
                "update route_tables set is_main = false
                 where id = $2 and account_id = $1 and main_association_id = $3 and deleted_at is null",
            )
            .bind(account)
            .bind(from)
            .bind(id)
            .execute(&mut *tx)
            .await?;
            if before.rows_affected() == 0 {
                return Ok(false);
            }
            let after = sqlx::query(
                "update route_tables set is_main = true, main_association_id = $3
                 where id = $2 and account_id = $1 and deleted_at is null
                   and vpc_id = (select vpc_id from route_tables where id = $4)",
            )
            .bind(account)
            .bind(to)
            .bind(new)
            .bind(from)
            .execute(tx)
            .await?;
            Ok(after.rows_affected() == 1)
        }
    }
}

/// Ends an association of a table of the account; false if there is none.
pub async fn disassociate(tx: &mut Conn, account: Uuid, table: Uuid, id: &Ref) -> Result<bool> {
    let done = sqlx::query(
        "delete from route_table_associations
         where id = coalesce($3, (select id from route_table_associations where short_id = $4))
           and account_id = $1 and route_table_id = $2",
    )
    .bind(account)
    .bind(table)
    .bind(id.whole)
    .bind(&id.short)
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Deletes a table with its routes. Associations refuse, by the name of their foreign key.
pub async fn delete(tx: &mut Conn, account: Uuid, id: Uuid) -> Result<()> {
    let done = sqlx::query(
        "with gone as (delete from routes where route_table_id = $2 and account_id = $1)
         update route_tables set deleted_at = now()
         where id = $2 and account_id = $1 and deleted_at is null and not is_main",
    )
    .bind(account)
    .bind(id)
    .execute(tx)
    .await?;
    if done.rows_affected() == 1 { Ok(()) } else { Err(StoreError::NotFound) }
}
