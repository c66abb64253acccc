//! Internet gateways: one per VPC, attached or not.

use time::OffsetDateTime;
use uuid::Uuid;

use crate::reference::Ref;
use crate::{Conn, Result, StoreError, Window};

/// An internet gateway.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct InternetGatewayRow {
    /// The gateway.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Where it is attached.
    pub vpc_id: Option<Uuid>,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it last changed.
    pub updated_at: OffsetDateTime,
}

macro_rules! view {
    () => {
        "select g.id, g.name, g.vpc_id, g.created_at, g.updated_at from internet_gateways g "
    };
}

/// Creates a gateway, attached to nothing.
pub async fn create(tx: &mut Conn, account: Uuid, id: Uuid, name: &str) -> Result<()> {
    sqlx::query("insert into internet_gateways (id, account_id, name) values ($1, $2, $3)")
        .bind(id)
        .bind(account)
        .bind(name)
        .execute(tx)
        .await?;
    Ok(())
}

/// One gateway of the account.
pub async fn get(conn: &mut Conn, account: Uuid, id: &Ref) -> Result<InternetGatewayRow> {
    Ok(sqlx::query_as(concat!(
        view!(),
        "where g.id = coalesce($2, (select id from internet_gateways where short_id = $3)) and g.account_id = $1
           and g.deleted_at is null"
    ))
    .bind(account)
    .bind(id.whole)
    .bind(&id.short)
    .fetch_one(conn)
    .await?)
}

/// Where a gateway is attached; nobody detaches it until the transaction ends.
pub async fn hold(tx: &mut Conn, account: Uuid, id: &Ref) -> Result<InternetGatewayRow> {
    Ok(sqlx::query_as(concat!(
        view!(),
        "where g.id = coalesce($2, (select id from internet_gateways where short_id = $3)) and g.account_id = $1
           and g.deleted_at is null for share"
    ))
    .bind(account)
    .bind(id.whole)
    .bind(&id.short)
    .fetch_one(tx)
    .await?)
}

/// Whether the VPC has a gateway.
pub async fn is_attached(conn: &mut Conn, vpc: Uuid) -> Result<bool> {
    Ok(sqlx::query_scalar("select exists (select from internet_gateways where vpc_id = $1)")
        .bind(vpc)
        .fetch_one(conn)
        .await?)
}

/// What a list may be narrowed to.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Attached to this VPC.
    pub vpc: Option<Uuid>,
    /// Exactly this name.
    pub name: Option<String>,
}

/// Gateways of the account.
pub async fn list(
    conn: &mut Conn,
    account: Uuid,
    filter: &Filter,
    window: Window,
) -> Result<Vec<InternetGatewayRow>> {
    Ok(sqlx::query_as(concat!(
        view!(),
        "where g.account_id = $1 and g.deleted_at is null and ($2::uuid is null or g.id < $2)
           and ($4::uuid is null or g.vpc_id = $4) and ($5::text is null or g.name = $5)
         order by g.id desc limit $3"
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

/// Renames a gateway; false if it has changed since, see [`crate::vpcs::rename`].
pub async fn rename(
    tx: &mut Conn,
    account: Uuid,
    id: Uuid,
    name: &str,
    unless_changed_since: Option<OffsetDateTime>,
) -> Result<bool> {
    let done = sqlx::query(
        "update internet_gateways set name = $3, updated_at = greatest(now(), updated_at + interval '1 microsecond')
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

/// Attaches a gateway; false if it is attached already. `internet_gateways_vpc_key` refuses a second one of a VPC.
pub async fn attach(tx: &mut Conn, account: Uuid, id: Uuid, vpc: Uuid) -> Result<bool> {
    let done = sqlx::query(
        "update internet_gateways set vpc_id = $3, updated_at = now()
         where id = $2 and account_id = $1 and deleted_at is null and vpc_id is null",
    )
    .bind(account)
    .bind(id)
    .bind(vpc)
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Detaches a gateway from that VPC; false if it is not attached there.
pub async fn detach(tx: &mut Conn, account: Uuid, id: Uuid, vpc: Uuid) -> Result<bool> {
    let done = sqlx::query(
        "update internet_gateways set vpc_id = null, updated_at = now()
         where id = $2 and account_id = $1 and deleted_at is null and vpc_id = $3",
    )
    .bind(account)
    .bind(id)
    .bind(vpc)
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Public addresses mapped in a VPC, which keep its gateway: the interfaces that have them, at most 50.
pub async fn mapped_interfaces(conn: &mut Conn, vpc: Uuid) -> Result<Vec<Uuid>> {
    Ok(sqlx::query_scalar(
        "select network_interface_id from public_ips where vpc_id = $1 and network_interface_id is not null limit 50",
    )
    .bind(vpc)
    .fetch_all(conn)
    .await?)
}

/// Deletes a gateway; `internet_gateways_detached_check` refuses while it is attached.
pub async fn delete(tx: &mut Conn, account: Uuid, id: Uuid) -> Result<()> {
    let done = sqlx::query(
        "update internet_gateways set deleted_at = now() where id = $2 and account_id = $1 and deleted_at is null",
    )
    .bind(account)
    .bind(id)
    .execute(tx)
    .await?;
    if done.rows_affected() == 1 { Ok(()) } else { Err(StoreError::NotFound) }
}
