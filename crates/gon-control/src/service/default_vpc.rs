//! The default VPC: where launches go that name no subnet. Made at once, with a way out.

use std::net::Ipv4Addr;

use gon_api::page::Wait;
use gon_api::vpcs::Vpc;
use gon_store::events::Watched;
use gon_store::internet_gateways as gateways;
use gon_store::journal::Entry;
use gon_store::route_tables::{self as tables, Destination, Target};
use gon_store::subnets::{self, NewSubnet};
use gon_store::vpcs::{self, NewIds};
use gon_types::id::{InternetGatewayId, SubnetId};
use ipnet::Ipv4Net;
use uuid::Uuid;

use super::Cx;
use super::cx::show_applied;
use super::error::{Refusal, Result};
use super::vpcs::show;

/// Its block, and the length of its subnets' (VPC user guide, "default VPC components").
const BLOCK: (Ipv4Addr, u8) = (Ipv4Addr::new(172, 31, 0, 0), 16);
const SUBNET_LENGTH: u8 = 20;

/// The subnets' blocks: sixteen of them fit.
fn blocks() -> Result<(Ipv4Net, Vec<Ipv4Net>)> {
    let wrong = |_| Refusal::internal("the default VPC's block");
    let block = Ipv4Net::new(BLOCK.0, BLOCK.1).map_err(|_| Refusal::internal("the default VPC's block"))?;
    Ok((block, block.subnets(SUBNET_LENGTH).map_err(wrong)?.collect()))
}

/// Creates the account's default VPC: a subnet in every zone whose launches get public addresses, an internet gateway, the
/// route to it, and what every VPC has.
pub async fn create(cx: Cx, (): (), wait: Wait, (): ()) -> Result<Vpc> {
    // Nothing runs in a new VPC: what was asked for is in force at once.
    cx.until_applied(&wait)?;
    let (block, places) = blocks()?;
    let ids = NewIds {
        vpc: Uuid::now_v7(),
        main_route_table: Uuid::now_v7(),
        default_group: Uuid::now_v7(),
        rule_in: Uuid::now_v7(),
        rule_out: Uuid::now_v7(),
    };
    let account = cx.account();
    let mut tx = cx.begin().await?;
    vpcs::create(&mut tx, &cx.author, &ids, "default", block).await?;
    vpcs::make_default(&mut tx, ids.vpc).await?;
    let zones = super::subnets::zones(&cx, &mut tx).await?;
    let mut made = vec![];
    for (zone, place) in zones.iter().zip(&places) {
        let id = SubnetId::new();
        let subnet = NewSubnet {
            id: id.uuid(),
            vpc: ids.vpc,
            vpc_cidr: block,
            name: &format!("default-{zone}"),
            cidr_block: *place,
            availability_zone: zone,
            map_public_ip_on_launch: true,
            default_for_az: true,
        };
        subnets::create(&mut tx, account, &subnet).await?;
        made.push(id);
    }
    let gateway = InternetGatewayId::new();
    gateways::create(&mut tx, account, gateway.uuid(), "default").await?;
    if !gateways::attach(&mut tx, account, gateway.uuid(), ids.vpc).await? {
        return Err(Refusal::internal("a new gateway was attached already"));
    }
    let table = tables::get(&mut tx, account, &ids.main_route_table.into()).await?;
    let target = Target::Gateway(gateway.uuid());
    let everywhere = Destination::Block(Ipv4Net::default());
    tables::add_route(&mut tx, account, Uuid::now_v7(), &table, everywhere, target).await?;
    let applied = show_applied(vpcs::bump(&mut tx, ids.vpc).await?);
    let mut vpc = show(vpcs::get(&mut tx, account, &ids.vpc.into()).await?);
    vpc.applied = applied;
    let mut entry = Entry::new("CreateDefaultVpc", ids.vpc)
        .detail(serde_json::json!({
            "cidr_block": block, "internet_gateway_id": gateway.to_string(),
            "subnet_ids": made.iter().map(ToString::to_string).collect::<Vec<_>>(),
        }))
        .vpc(ids.vpc)
        .event(Watched::InternetGateway, gateway.uuid(), None, Some("attached"));
    for subnet in &made {
        entry = entry.event(Watched::Subnet, subnet.uuid(), None, Some("available"));
    }
    cx.commit(tx, entry, &vpc).await?;
    Ok(vpc)
}
