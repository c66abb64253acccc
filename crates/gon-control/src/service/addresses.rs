//! Allocated public addresses.

use gon_api::Applied;
use gon_api::addresses::{Address, AllocateAddress, AssociateAddress, ListAddresses};
use gon_api::page::{NoQuery, Page, Wait};
use gon_store::addresses::{self, AddressRow, Filter};
use gon_store::events::Watched;
use gon_store::journal::Entry;
use gon_store::reference::Ref;
use gon_store::{StoreError, instances, internet_gateways, network_interfaces, vpcs};
use gon_types::id::{AddressId, InstanceId, NetworkInterfaceId, VpcId};
use uuid::Uuid;

use super::cx::show_applied;
use super::error::{Refusal, Result};
use super::{Cx, parse};
use crate::api::{Json, One, Optional};

type Kind = gon_types::id::Address;
type InstanceKind = gon_types::id::Instance;
type InterfaceKind = gon_types::id::NetworkInterface;

fn show(row: AddressRow) -> Address {
    Address {
        id: AddressId::from_uuid(row.id).to_string(),
        uuid: row.id,
        name: row.name,
        public_ip: row.public_ip.0.to_string(),
        instance_id: row.instance_id.map(|id| InstanceId::from_uuid(id).to_string()),
        network_interface_id: row
            .network_interface_id
            .map(|id| NetworkInterfaceId::from_uuid(id).to_string()),
        private_ip: row.private_ip.map(|net| net.addr().to_string()),
        vpc_id: row.vpc_id.map(|id| VpcId::from_uuid(id).to_string()),
        applied: None,
        generation: None,
        created_at: row.created_at,
    }
}

fn with_applied(mut address: Address, applied: Applied) -> Address {
    address.generation = Some(applied.generation);
    address.applied = Some(applied);
    address
}

/// What a full pool answers.
pub fn pool_is_empty() -> Refusal {
    Refusal::conflict("InsufficientAddressCapacity", "the site has no free public address")
}

/// Allocates an address.
pub async fn allocate(
    cx: Cx,
    (): (),
    _: NoQuery,
    Optional(body): Optional<AllocateAddress>,
) -> Result<Address> {
    let name = body.name.as_deref().map(|name| parse::name("name", name)).transpose()?;
    let id = AddressId::new();
    let mut tx = cx.begin().await?;
    let public_ip = addresses::allocate(&mut tx, cx.account(), id.uuid(), name.as_deref())
        .await?
        .ok_or_else(pool_is_empty)?;
    let address = show(addresses::get(&mut tx, cx.account(), &id.into()).await?);
    let entry = Entry::new("AllocateAddress", id.uuid())
        .detail(serde_json::json!({ "public_ip": public_ip }))
        .event(Watched::Address, id.uuid(), None, Some("free"));
    cx.commit(tx, entry, &address).await?;
    Ok(address)
}

/// Lists addresses.
pub async fn list(cx: Cx, (): (), query: ListAddresses, (): ()) -> Result<Page<Address>> {
    let window = cx.window("addresses", query.window())?;
    let mut conn = cx.conn().await?;
    let mut filter = Filter { name: query.name, instance: None };
    if let Some(text) = &query.instance_id {
        let id = parse::reference::<InstanceKind>("instance_id", text)?;
        match instances::get(&mut conn, cx.account(), &id).await {
            Ok(row) => filter.instance = Some(row.id),
            Err(StoreError::NotFound) => return Ok(Page { items: vec![], next_cursor: None }),
            Err(error) => return Err(error.into()),
        }
    }
    let rows = addresses::list(&mut conn, cx.account(), &filter, window).await?;
    Ok(cx.page("addresses", window, rows, |r| r.id, show))
}

/// Describes an address.
pub async fn get(cx: Cx, One(id): One<Kind>, wait: Wait, (): ()) -> Result<Address> {
    let until = cx.until_applied(&wait)?;
    let mut conn = cx.conn().await?;
    let row = Cx::found(addresses::get(&mut conn, cx.account(), &Ref::from(&id)).await, &id)?;
    let Some(vpc) = row.vpc_id else { return Ok(show(row)) };
    let applied = show_applied(vpcs::applied(&mut conn, vpc).await?);
    drop(conn);
    let applied = cx.settle(vpc, applied, until).await?;
    Ok(with_applied(show(row), applied))
}

/// Releases an address that is mapped to nothing.
pub async fn release(cx: Cx, One(id): One<Kind>, _: NoQuery, (): ()) -> Result<()> {
    let mut tx = cx.begin().await?;
    let row = Cx::found(addresses::hold(&mut tx, cx.account(), &Ref::from(&id)).await, &id)?;
    if !addresses::release(&mut tx, row.public_ip.0).await? {
        let interface = row.network_interface_id.map(|id| NetworkInterfaceId::from_uuid(id).to_string());
        return Err(Refusal::conflict("InvalidIPAddress.InUse", "the address is mapped: unmap it first")
            .blocked_by(interface.into_iter().collect()));
    }
    let entry = Entry::new("ReleaseAddress", row.id)
        .detail(serde_json::json!({ "public_ip": row.public_ip.0 }))
        .event(Watched::Address, row.id, Some("free"), None);
    cx.commit(tx, entry, &()).await
}

/// The interface a request names, and its VPC.
async fn interface(cx: &Cx, tx: &mut gon_store::Conn, body: &AssociateAddress) -> Result<(Uuid, Uuid)> {
    match (&body.instance_id, &body.network_interface_id) {
        (Some(text), None) => {
            let id = parse::id::<InstanceKind>("instance_id", text)?;
            let row = Cx::found(instances::lock(tx, cx.account(), &Ref::from(&id)).await, &id)
                .map_err(|refusal| refusal.field("instance_id"))?;
            match row.network_interface_id {
                Some(nic) if !matches!(row.state.as_str(), "shutting-down" | "terminated") => {
                    Ok((nic, row.vpc_id))
                }
                _ => {
                    Err(Refusal::conflict("IncorrectInstanceState", format!("the instance is {}", row.state))
                        .field("instance_id"))
                }
            }
        }
        (None, Some(text)) => {
            let id = parse::id::<InterfaceKind>("network_interface_id", text)?;
            let at = |refusal: Refusal| refusal.field("network_interface_id");
            let row = Cx::found(network_interfaces::get(tx, cx.account(), &Ref::from(&id)).await, &id)
                .map_err(at)?;
            // One that is of no instance may have one as well, for the instance it will be of.
            if let Some(instance) = row.instance_id {
                let instance = instances::lock(tx, cx.account(), &instance.into()).await?;
                if matches!(instance.state.as_str(), "shutting-down" | "terminated") {
                    return Err(at(Refusal::conflict(
                        "IncorrectInstanceState",
                        format!("the instance is {}", instance.state),
                    )));
                }
            }
            Ok((row.id, row.vpc_id))
        }
        (None, None) => Err(Refusal::missing("instance_id")),
        (Some(_), Some(_)) => Err(Refusal::of_field(
            "InvalidParameterCombination",
            "network_interface_id",
            "give an instance or an interface, not both",
        )),
    }
}

/// Maps an address to an interface of a VPC with an internet gateway. Whatever public address that had gives way.
pub async fn associate(
    cx: Cx,
    One(id): One<Kind>,
    wait: Wait,
    Json(body): Json<AssociateAddress>,
) -> Result<Address> {
    let until = cx.until_applied(&wait)?;
    let mut tx = cx.begin().await?;
    let (nic, vpc) = interface(&cx, &mut tx, &body).await?;
    let row = Cx::found(addresses::hold(&mut tx, cx.account(), &Ref::from(&id)).await, &id)?;
    let elsewhere = row.network_interface_id.is_some_and(|mapped| mapped != nic);
    if elsewhere && body.allow_reassociation == Some(false) {
        return Err(Refusal::conflict(
            "Resource.AlreadyAssociated",
            "the address is mapped to another interface",
        )
        .blocked_by(
            row.network_interface_id
                .map(|id| NetworkInterfaceId::from_uuid(id).to_string())
                .into_iter()
                .collect(),
        ));
    }
    if row.network_interface_id != Some(nic) {
        addresses::associate(&mut tx, row.public_ip.0, nic, vpc).await?;
    }
    // Rows of VPCs come last, the lower id first.
    let mut others: Vec<Uuid> = row.vpc_id.into_iter().filter(|other| elsewhere && *other != vpc).collect();
    others.push(vpc);
    others.sort_unstable();
    let mut applied = None;
    for touched in &others {
        let bumped = vpcs::bump(&mut tx, *touched).await?;
        if *touched == vpc {
            applied = Some(show_applied(bumped));
        }
    }
    let applied = applied.ok_or_else(|| Refusal::internal("a VPC was lost on its way"))?;
    if !internet_gateways::is_attached(&mut tx, vpc).await? {
        return Err(Refusal::conflict(
            "Gateway.NotAttached",
            format!("the VPC '{}' has no internet gateway: attach one first", VpcId::from_uuid(vpc)),
        ));
    }
    let now = addresses::get(&mut tx, cx.account(), &row.id.into()).await?;
    let instances = [row.instance_id, now.instance_id];
    let address = with_applied(show(now), applied);
    let mut entry = Entry::new("AssociateAddress", row.id)
        .detail(serde_json::json!({ "public_ip": row.public_ip.0, "network_interface_id": address.network_interface_id }))
        .event(Watched::Address, row.id, None, Some("mapped"));
    for touched in others {
        entry = entry.vpc(touched);
    }
    // Their public addresses changed: those who watch them want to see that.
    for instance in instances.into_iter().flatten() {
        entry = entry.event(Watched::Instance, instance, None, None);
    }
    cx.commit(tx, entry, &address).await?;
    let applied = cx.settle(vpc, applied, until).await?;
    Ok(with_applied(address, applied))
}

/// Unmaps an address.
pub async fn disassociate(cx: Cx, One(id): One<Kind>, wait: Wait, (): ()) -> Result<Address> {
    let until = cx.until_applied(&wait)?;
    let mut tx = cx.begin().await?;
    let row = Cx::found(addresses::hold(&mut tx, cx.account(), &Ref::from(&id)).await, &id)?;
    let (Some(nic), Some(vpc)) = (row.network_interface_id, row.vpc_id) else {
        return Err(Refusal::conflict("InvalidAssociationID.NotFound", "the address is not mapped"));
    };
    addresses::unmap(&mut tx, nic).await?;
    let applied = show_applied(vpcs::bump(&mut tx, vpc).await?);
    let address = with_applied(show(addresses::get(&mut tx, cx.account(), &row.id.into()).await?), applied);
    let mut entry = Entry::new("DisassociateAddress", row.id)
        .detail(serde_json::json!({ "public_ip": row.public_ip.0 }))
        .vpc(vpc)
        .event(Watched::Address, row.id, Some("mapped"), Some("free"));
    if let Some(instance) = row.instance_id {
        entry = entry.event(Watched::Instance, instance, None, None);
    }
    cx.commit(tx, entry, &address).await?;
    let applied = cx.settle(vpc, applied, until).await?;
    Ok(with_applied(address, applied))
}
