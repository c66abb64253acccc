//! Images, as users see them. Nodes register them ([`crate::nodes::report`]).

use time::OffsetDateTime;
use uuid::Uuid;

use crate::reference::Ref;
use crate::{Conn, Result, Window};

/// An image.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct ImageRow {
    /// The image.
    pub id: Uuid,
    /// Its name in the nodes' stores.
    pub name: String,
    /// For people.
    pub description: String,
    /// `initramfs` or `disk`.
    pub kind: String,
    /// For example `x86_64`.
    pub architecture: String,
    /// The least memory that boots it, MiB.
    pub min_memory_mib: i32,
    /// Size of its root disk, GiB; 0 for none.
    pub disk_gib: i32,
    /// Whether it is everybody's.
    pub public: bool,
    /// When it was registered.
    pub created_at: OffsetDateTime,
}

macro_rules! view {
    () => {
        "select m.id, m.name, m.description, m.kind::text as kind, m.architecture, m.min_memory_mib, m.disk_gib,
           m.account_id is null as public, m.created_at
         from images m "
    };
}

/// One image that the account may launch.
pub async fn get(conn: &mut Conn, account: Uuid, id: &Ref) -> Result<ImageRow> {
    Ok(sqlx::query_as(concat!(
        view!(),
        "where m.id = coalesce($2, (select id from images where short_id = $3)) and m.deleted_at is null
           and (m.account_id is null or m.account_id = $1)"
    ))
    .bind(account)
    .bind(id.whole)
    .bind(&id.short)
    .fetch_one(conn)
    .await?)
}

/// Images that the account may launch; `name` narrows to those of that name.
pub async fn list(
    conn: &mut Conn,
    account: Uuid,
    name: Option<&str>,
    window: Window,
) -> Result<Vec<ImageRow>> {
    Ok(sqlx::query_as(concat!(
        view!(),
        "where m.deleted_at is null and (m.account_id is null or m.account_id = $1)
           and ($2::uuid is null or m.id < $2) and ($4::text is null or m.name = $4)
         order by m.id desc limit $3"
    ))
    .persistent(false)
    .bind(account)
    .bind(window.before)
    .bind(window.limit)
    .bind(name)
    .fetch_all(conn)
    .await?)
}
