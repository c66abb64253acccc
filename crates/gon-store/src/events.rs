//! What users watch, read in an order that skips nothing: by transaction, and only transactions older than every one
//! that still runs. A row that commits late therefore comes late, never not at all.

use std::fmt;
use std::str::FromStr;

use gon_types::Id;
use gon_types::id;
use uuid::Uuid;

use crate::{Conn, Result};

macro_rules! watched {
    ($($kind:ident = $word:literal;)*) => {
        /// What has events. Closed: a kind that is not here can have none, and none can be here without an id that people
        /// know.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[expect(missing_docs, reason = "each is what `gon_types::id` says of it")]
        pub enum Watched {
            $($kind),*
        }

        impl Watched {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            /// As events name it.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$kind => $word),*
                }
            }

            /// The id of one of this kind, as people see it.
            #[must_use]
            pub fn shown(self, id: Uuid) -> String {
                match self {
                    $(Self::$kind => Id::<id::$kind>::from_uuid(id).to_string()),*
                }
            }
        }
    };
}

watched! {
    Vpc = "vpc";
    Subnet = "subnet";
    Instance = "instance";
    SecurityGroup = "security_group";
    RouteTable = "route_table";
    InternetGateway = "internet_gateway";
    NetworkAcl = "network_acl";
    NetworkInterface = "network_interface";
    PrefixList = "prefix_list";
    Address = "address";
    KeyPair = "key_pair";
    Node = "node";
    Operation = "operation";
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A word that no kind has: it was written by a later version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nothing of that kind has events")]
pub struct Unwatched;

impl FromStr for Watched {
    type Err = Unwatched;
    fn from_str(word: &str) -> Result<Self, Unwatched> {
        Self::ALL.iter().copied().find(|kind| kind.word() == word).ok_or(Unwatched)
    }
}

/// A change of state.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct EventRow {
    /// Its number.
    pub seq: i64,
    /// Its transaction.
    pub xid: i64,
    /// Whose it is.
    pub account_id: Uuid,
    /// The word of a [`Watched`], or one that a later version knows.
    pub resource: String,
    /// Which.
    pub resource_id: Uuid,
}

/// How far a reader has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, sqlx::FromRow)]
pub struct Position {
    /// Transaction of the last event read.
    pub xid: i64,
    /// Its number.
    pub seq: i64,
}

/// The position from which a reader sees only what happens from now on.
pub async fn now(conn: &mut Conn) -> Result<Position> {
    let xid: i64 = sqlx::query_scalar("select pg_snapshot_xmin(pg_current_snapshot())::text::bigint - 1")
        .fetch_one(conn)
        .await?;
    Ok(Position { xid, seq: i64::MAX })
}

/// Up to `limit` events after the position, in order.
pub async fn after(conn: &mut Conn, position: Position, limit: i64) -> Result<Vec<EventRow>> {
    Ok(sqlx::query_as(
        "select seq, xid::text::bigint as xid, account_id, resource, resource_id from events
         where (xid, seq) > ($1::text::xid8, $2)
           -- Another database of the cluster may have a transaction that runs for hours; ours end within seconds.
           and (xid < pg_snapshot_xmin(pg_current_snapshot()) or at < now() - interval '30 seconds')
         order by xid, seq limit $3",
    )
    .bind(position.xid.to_string())
    .bind(position.seq)
    .bind(limit)
    .fetch_all(conn)
    .await?)
}

/// Whether events after the position wait for a transaction that still runs.
pub async fn is_pending(conn: &mut Conn, position: Position) -> Result<bool> {
    Ok(sqlx::query_scalar("select exists (select from events where (xid, seq) > ($1::text::xid8, $2))")
        .bind(position.xid.to_string())
        .bind(position.seq)
        .fetch_one(conn)
        .await?)
}
