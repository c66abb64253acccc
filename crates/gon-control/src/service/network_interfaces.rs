//! Network interfaces, to look at.

use gon_api::network_interfaces::{ListNetworkInterfaces, NetworkInterface};
use gon_api::page::{NoQuery, Page};
use gon_store::network_interfaces::{self as interfaces, Filter, NetworkInterfaceRow};
use gon_store::reference::Ref;
use gon_store::{StoreError, instances, subnets};
use gon_types::id::{InstanceId, NetworkInterfaceId, SecurityGroupId, SubnetId, VpcId};

use super::error::Result;
use super::subnets::in_vpc;
use super::{Cx, parse};
use crate::api::One;

type Kind = gon_types::id::NetworkInterface;

fn show(row: NetworkInterfaceRow) -> NetworkInterface {
    NetworkInterface {
        id: NetworkInterfaceId::from_uuid(row.id).to_string(),
        uuid: row.id,
        vpc_id: VpcId::from_uuid(row.vpc_id).to_string(),
        subnet_id: SubnetId::from_uuid(row.subnet_id).to_string(),
        instance_id: InstanceId::from_uuid(row.instance_id).to_string(),
        device_index: row.device_index,
        is_primary: row.device_index == 0,
        private_ip: row.private_ip.0.to_string(),
        public_ip: row.public_ip.map(|net| net.addr().to_string()),
        mac_address: row.mac_address.0.to_string(),
        source_dest_check: row.source_dest_check,
        security_group_ids: row
            .security_group_ids
            .into_iter()
            .map(|id| SecurityGroupId::from_uuid(id).to_string())
            .collect(),
        created_at: row.created_at,
    }
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
    let rows = interfaces::list(&mut conn, cx.account(), &filter, window).await?;
    Ok(cx.page("network-interfaces", window, rows, |r| r.id, show))
}

/// Describes an interface.
pub async fn get(cx: Cx, One(id): One<Kind>, _: NoQuery, (): ()) -> Result<NetworkInterface> {
    let mut conn = cx.conn().await?;
    Ok(show(Cx::found(interfaces::get(&mut conn, cx.account(), &Ref::from(&id)).await, &id)?))
}
