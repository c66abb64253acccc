//! Where the interface and the nodes are that a packet comes through. For operators: whose the interface is does not matter.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use uuid::Uuid;

use crate::reference::Ref;
use crate::v4::host;
use crate::{Conn, Result};

/// A node that a packet comes through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlaceRow {
    /// Which.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Its end of the tunnels, if it has one.
    pub overlay_address: Option<Ipv4Addr>,
}

fn place((id, name, overlay): (Uuid, String, Option<IpNet>)) -> Result<PlaceRow> {
    Ok(PlaceRow { id, name, overlay_address: overlay.map(host).transpose()? })
}

/// An interface, and the node it is placed on.
pub async fn interface(conn: &mut Conn, id: &Ref) -> Result<(Uuid, Option<Uuid>)> {
    Ok(sqlx::query_as(
        "select n.id, n.node_id from network_interfaces n
         where n.id = coalesce($1, (select id from network_interfaces where short_id = $2)) and n.deleted_at is null",
    )
    .bind(id.whole)
    .bind(&id.short)
    .fetch_one(conn)
    .await?)
}

/// A node.
pub async fn node(conn: &mut Conn, id: Uuid) -> Result<PlaceRow> {
    let found =
        sqlx::query_as("select id, name, overlay_address from nodes where id = $1 and removed_at is null")
            .bind(id)
            .fetch_one(conn)
            .await?;
    place(found)
}

/// The node whose end of the tunnels is there.
pub async fn node_at(conn: &mut Conn, overlay: Ipv4Addr) -> Result<Option<PlaceRow>> {
    let found = sqlx::query_as(
        "select id, name, overlay_address from nodes where overlay_address = $1 and removed_at is null",
    )
    .bind(IpNet::from(IpAddr::V4(overlay)))
    .fetch_optional(conn)
    .await?;
    found.map(place).transpose()
}
