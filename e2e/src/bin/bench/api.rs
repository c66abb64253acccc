//! The API: durable creations beside moto's in-memory ones, and a page of many instances.

use anyhow::Context;
use e2e::Host;
use e2e::api::text;
use e2e::topology::Cloud;
use e2e::topology::Network;
use e2e::world::World;
use serde_json::json;

use crate::http::{Load, Server, load};
use crate::moto::{Moto, element};
use crate::report::{Report, Spread, Target};

const ROUNDS: usize = 7;
const INSTANCES: usize = 10_000;

pub fn ours(world: &World) -> anyhow::Result<Server> {
    let token = world.another_api()?.token()?;
    Ok(Server {
        inside: world.inside().clone(),
        address: ([127, 0, 0, 1], 8080).into(),
        headers: format!("Authorization: Bearer {token}\r\nContent-Type: application/json\r\n"),
    })
}

pub fn measure(world: &World, report: &mut Report) -> anyhow::Result<()> {
    let moto = Moto::start(world)?;
    create(world, &moto, report)?;
    list(world, &moto, report)
}

fn create(world: &World, moto: &Moto, report: &mut Report) -> anyhow::Result<()> {
    let ours = ours(world)?;
    let make = |n: usize| {
        let body = json!({ "name": format!("bench-{n}"), "cidr_block": "10.2.0.0/16" });
        ours.request("POST", "/api/v1/vpcs", &body.to_string())
    };
    let moto_make = |_: usize| moto.request("CreateVpc", "&CidrBlock=10.2.0.0/16");
    for connections in [1, 16] {
        let (mut mine, mut theirs): (Vec<Load>, Vec<Load>) = (Vec::new(), Vec::new());
        load(&ours, connections, 30, make).context("warming up ours")?;
        load(&moto.server, connections, 30, moto_make).context("warming up moto")?;
        for _ in 0..ROUNDS {
            theirs.push(load(&moto.server, connections, 150, moto_make).context("moto")?);
            mine.push(load(&ours, connections, 300, make).context("ours")?);
        }
        let of = |all: &[Load], pick: fn(&Load) -> f64| Spread::of(&all.iter().map(pick).collect::<Vec<_>>());
        let rate = |all: &[Load]| of(all, |l| l.per_second);
        let p50 = |all: &[Load]| of(all, |l| l.p50);
        let (rate_target, p50_target) = if connections == 1 {
            (Target::None, Target::RatioAtMost(1.0))
        } else {
            (Target::RatioAtLeast(5.0), Target::None)
        };
        let clients = if connections == 1 { "1 client".to_owned() } else { format!("{connections} clients") };
        let (m, t) = (&mine, &theirs);
        report.add(
            &format!("create a VPC, {clients}: rate"),
            "/s",
            rate(m),
            Some(("moto", rate(t))),
            rate_target,
        );
        report.add(
            &format!("create a VPC, {clients}: p50"),
            "ms",
            p50(m),
            Some(("moto", p50(t))),
            p50_target,
        );
    }
    Ok(())
}

fn list(world: &World, moto: &Moto, report: &mut Report) -> anyhow::Result<()> {
    let network = Network::build(world.api(), "many", "10.0.0.0/16", "10.0.0.0/16", false)?;
    fill_ours(world, &network)?;
    fill_moto(moto)?;
    let ours = ours(world)?;
    let make = |_: usize| ours.request("GET", "/api/v1/instances?limit=100", "");
    let moto_make = |_: usize| moto.request("DescribeInstances", "&MaxResults=100");
    let page: serde_json::Value =
        serde_json::from_str(&ours.once("GET", "/api/v1/instances?limit=100", "")?)?;
    let items = page.get("items").and_then(serde_json::Value::as_array).map_or(0, Vec::len);
    anyhow::ensure!(
        items == 100 && page.get("next_cursor").is_some(),
        "a page of ours has {items} instances"
    );
    load(&ours, 1, 20, make)?;
    load(&moto.server, 1, 1, moto_make)?;
    let (mut mine, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        theirs.push(load(&moto.server, 1, 4, moto_make)?.p50);
        mine.push(load(&ours, 1, 100, make)?.p95);
    }
    report.add(
        "list of 10 000 instances, page of 100: our p95, moto's p50",
        "ms",
        Spread::of(&mine),
        Some(("moto", Spread::of(&theirs))),
        Target::RatioAtMost(0.1),
    );
    Ok(())
}

/// Stopped instances with an interface each, as launching and stopping them would have left.
fn fill_ours(world: &World, network: &Network) -> anyhow::Result<()> {
    let vpc = text(&world.api().get(&format!("/vpcs/{}", network.vpc))?, "uuid")?;
    let subnet = text(&world.api().get(&format!("/subnets/{}", network.subnet))?, "uuid")?;
    let group = text(&world.api().get(&format!("/security-groups/{}", network.group))?, "uuid")?;
    let image = world.image("gon-linux")?;
    let image = text(&world.api().get(&format!("/images/{image}"))?, "uuid")?;
    // Ids in the order of time, as UUIDv7 are.
    let sql = format!(
        "begin;
         create temporary table made as select n,
           (lpad(to_hex(1700000000000 + n), 12, '0') || '7' || substr(md5('i' || n), 1, 3) || '8'
            || substr(md5('j' || n), 1, 15))::uuid as instance,
           (lpad(to_hex(1700000000000 + n), 12, '0') || '7' || substr(md5('k' || n), 1, 3) || '8'
            || substr(md5('l' || n), 1, 15))::uuid as interface
         from generate_series(1, {INSTANCES}) n;
         insert into instances (id, account_id, user_id, vpc_id, subnet_id, name, instance_type, vcpus, memory_mib,
           image_id, reservation_id, state, power)
         select m.instance, s.account_id, (select id from users limit 1), s.vpc_id, s.id, 'many-' || m.n, 'g1.pico', 1,
           256, '{image}', m.instance, 'stopped', 'stopped'
         from made m, subnets s where s.id = '{subnet}';
         insert into network_interfaces (id, account_id, vpc_id, subnet_id, subnet_cidr, instance_id, private_ip,
           mac_address)
         select m.interface, s.account_id, s.vpc_id, s.id, s.cidr_block, m.instance,
           set_masklen(network(s.cidr_block)::inet, 32) + 10 + m.n,
           ('02' || substr(md5('m' || m.n), 1, 10))::macaddr
         from made m, subnets s where s.id = '{subnet}';
         insert into network_interface_security_groups (network_interface_id, security_group_id, vpc_id, account_id)
         select m.interface, g.id, g.vpc_id, g.account_id from made m, security_groups g where g.id = '{group}'
           and g.vpc_id = '{vpc}';
         commit; analyze;"
    );
    world.sql(&sql)?;
    Ok(())
}

fn fill_moto(moto: &Moto) -> anyhow::Result<()> {
    let vpc = element(&moto.call("CreateVpc", "&CidrBlock=10.0.0.0/16")?, "vpcId")?;
    let subnet = moto.call("CreateSubnet", &format!("&VpcId={vpc}&CidrBlock=10.0.0.0/16"))?;
    let subnet = element(&subnet, "subnetId")?;
    let run = |count: usize| {
        let more = format!(
            "&ImageId=ami-12c6146b&MinCount={count}&MaxCount={count}&InstanceType=t3.micro&SubnetId={subnet}"
        );
        moto.call("RunInstances", &more)
    };
    // moto's pages are of reservations, the oldest first: so that a page of it has a hundred instances too.
    for _ in 0..100 {
        run(1)?;
    }
    for _ in 1..INSTANCES / 100 {
        run(100)?;
    }
    let page = moto.call("DescribeInstances", "&MaxResults=100")?;
    anyhow::ensure!(page.matches("<instanceId>").count() == 100, "a page of moto's has not 100 instances");
    Ok(())
}
