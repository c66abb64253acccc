use std::time::Duration;

use gon_control::compute::ComputeSettings;
use serde_json::json;

use crate::site::{Site, alive};

/// Twenty more instances in the public subnet, not yet placed.
const TWENTY: &str = "
  with made as (
    insert into instances (id, account_id, user_id, vpc_id, subnet_id, name, instance_type, vcpus, memory_mib, image_id,
      reservation_id)
    select ('00000000-0000-7000-8000-0000000010' || to_char(n, 'FM00'))::uuid, '00000000-0000-7000-8000-0000000000a1',
      '00000000-0000-7000-8000-0000000000b1', '00000000-0000-7000-8000-000000000101',
      '00000000-0000-7000-8000-000000000201', 'x' || n, 'g1.nano', 1, 1024, '00000000-0000-7000-8000-0000000000c1',
      '00000000-0000-7000-8000-000000000005'
    from generate_series(1, 20) n returning id)
  select 1;
  insert into network_interfaces (id, account_id, vpc_id, subnet_id, subnet_cidr, instance_id, private_ip, mac_address)
  select ('00000000-0000-7000-8000-0000000020' || to_char(n, 'FM00'))::uuid, '00000000-0000-7000-8000-0000000000a1',
    '00000000-0000-7000-8000-000000000101', '00000000-0000-7000-8000-000000000201', '10.0.1.0/24',
    ('00000000-0000-7000-8000-0000000010' || to_char(n, 'FM00'))::uuid, '10.0.1.100'::inet + n,
    ('02:00:00:00:01:' || lpad(to_hex(n), 2, '0'))::macaddr
  from generate_series(1, 20) n;";

#[tokio::test]
async fn parallel_placements_never_exceed_what_the_nodes_have() {
    let site = Site::new().await;
    site.sql(TWENTY).await;
    let managers: Vec<_> = (0..8).map(|_| site.another_manager(ComputeSettings::default())).collect();
    let alive = alive(&["n1", "n2"]);
    let rounds = managers.iter().map(|m| m.place(&alive));
    for result in futures_util::future::join_all(rounds).await {
        result.unwrap();
    }
    // (8192-768)/1024 + (8192-256)/1024
    assert_eq!(
        site.row("select to_jsonb(count(*)) from instances where node_id is not null").await,
        json!(4 + 14)
    );
    for node in site
        .rows(
            "select jsonb_build_array(used_memory_mib <= capacity_memory_mib,
               used_memory_mib = (select sum(memory_mib) from instances i where i.node_id = n.id),
               used_vcpus = (select sum(vcpus) from instances i where i.node_id = n.id),
               last_port_no = (select max(port_no) from network_interfaces x where x.node_id = n.id),
               last_run_as_uid = (select max(run_as_uid) from instances i where i.node_id = n.id))
             from nodes n",
        )
        .await
    {
        assert_eq!(node, json!([true, true, true, true, true]));
    }
    let told = site
        .rows(
            "select jsonb_build_array(state_reason, count(*)) from instances
             where node_id is null and state = 'pending' group by state_reason",
        )
        .await;
    let why = "Server.InsufficientInstanceCapacity: n1 has 256 of 1024 MiB of memory free; \
               n2 has 768 of 1024 MiB of memory free";
    assert_eq!(told, [json!([why, 6])]);
    // Placed ones are a new placement and a new generation; their VPC's packets depend on where they are.
    assert_eq!(
        site.row(
            "select jsonb_build_array(min(placement_epoch), max(placement_epoch), min(generation), max(generation))
             from instances where name like 'x%' and node_id is not null"
        )
        .await,
        json!([1, 1, 2, 2])
    );
    let rung = site.rung().await;
    assert_eq!(rung.iter().filter(|r| r.starts_with("instance ")).count(), 14);
    assert!(rung.contains(&"vpc 101".to_owned()));
}

#[tokio::test]
async fn a_place_that_becomes_free_is_used_and_patience_ends() {
    let site = Site::new().await;
    site.sql(TWENTY).await;
    site.sql(
        "delete from network_interfaces where instance_id <> '00000000-0000-7000-8000-000000001001'
                and id >= '00000000-0000-7000-8000-000000002001';
              delete from instances where name like 'x%' and id <> '00000000-0000-7000-8000-000000001001'",
    )
    .await;
    // Nobody is heard of.
    site.compute.place(&alive(&[])).await.unwrap();
    let state = "select jsonb_build_array(state, power, state_reason) from instances where name = 'x1'";
    assert_eq!(
        site.row(state).await,
        json!([
            "pending",
            "running",
            "Server.InsufficientInstanceCapacity: n1 is not heard of; n2 is not heard of"
        ])
    );
    // The same refusal is told once.
    site.rung().await;
    site.compute.place(&alive(&[])).await.unwrap();
    assert!(site.rung().await.is_empty());
    let hasty = ComputeSettings { placement_patience: Duration::ZERO, ..ComputeSettings::default() };
    site.another_manager(hasty.clone()).place(&alive(&[])).await.unwrap();
    assert_eq!(site.row(state).await[0], json!("shutting-down"));
    // Never placed: nobody has anything to clean up.
    site.compute.round(None, &alive(&["n1"])).await.unwrap();
    let told = site.row(state).await;
    assert_eq!((&told[0], &told[1]), (&json!("terminated"), &json!("terminated")));
    assert!(told[2].as_str().unwrap().starts_with("Server.InsufficientInstanceCapacity"));
    assert_eq!(
        site.rows("select jsonb_build_array(from_state, to_state) from events order by seq").await,
        [
            json!(["pending", "pending"]),
            json!(["pending", "shutting-down"]),
            json!(["shutting-down", "terminated"])
        ]
    );
}

#[tokio::test]
async fn an_instance_goes_where_there_is_room_and_gets_its_numbers() {
    let site = Site::new().await;
    site.sql(TWENTY).await;
    site.sql(
        "delete from network_interfaces where instance_id <> '00000000-0000-7000-8000-000000001001'
                and id >= '00000000-0000-7000-8000-000000002001';
              delete from instances where name like 'x%' and id <> '00000000-0000-7000-8000-000000001001'",
    )
    .await;
    let touched = site.compute.place(&alive(&["n1", "n2"])).await.unwrap();
    assert_eq!((touched.nodes.len(), touched.instances.len(), touched.doorbells), (1, 1, true));
    // n2 has more free; its number 16 is taken.
    assert_eq!(
        site.row(
            "select jsonb_build_array(w.name, n.port_no, i.run_as_uid, n.node_id = i.node_id, i.placement_epoch)
             from instances i join network_interfaces n on n.instance_id = i.id join nodes w on w.id = i.node_id
             where i.name = 'x1'"
        )
        .await,
        json!(["n2", 17, 600_001, true, 1])
    );
}

#[tokio::test]
async fn numbers_that_are_remembered_are_not_given_twice() {
    let site = Site::new().await;
    let alive = alive(&["n1", "n2"]);
    let other = site.another_manager(ComputeSettings::default());
    let one = async |number: u32, manager: &gon_control::compute::InstanceManager| {
        site.sql(TWENTY.replace("(1, 20)", &format!("({number}, {number})")).leak()).await;
        manager.place(&alive).await.unwrap();
        let numbers = format!(
            "select jsonb_build_array(n.port_no, i.run_as_uid)
             from instances i join network_interfaces n on n.instance_id = i.id where i.name = 'x{number}'"
        );
        site.row(numbers.leak()).await
    };
    // The last numbers there are: from here on they begin again, where 16 and 600000 are in use.
    let last = "update nodes set cordoned_at = now() where name = 'n1';
                update nodes set last_port_no = 15999, last_run_as_uid = 699998 where name = 'n2'";
    site.sql(last).await;
    assert_eq!(one(1, &site.compute).await, json!([16_000, 699_999]));
    assert_eq!(one(2, &site.compute).await, json!([17, 600_001]), "as it remembers");
    site.compute.take_over("c2").await.unwrap();
    other.take_over("c3").await.unwrap();
    assert_eq!(one(3, &other).await, json!([18, 600_002]));
    // Who leads again knows nothing of before: others gave numbers meanwhile.
    site.compute.take_over("c2").await.unwrap();
    site.sql(last).await;
    assert_eq!(one(4, &site.compute).await, json!([19, 600_003]));
}

#[tokio::test]
async fn postgresql_itself_refuses_more_than_a_node_has() {
    let site = Site::new().await;
    site.sql(TWENTY).await;
    site.sql("update nodes set capacity_memory_mib = 800 where name = 'n1'").await;
    let mut tx = site.database.store.begin().await.unwrap();
    let placement = gon_store::placement::Placement {
        instance: crate::site::uuid(0x1001),
        node: crate::site::uuid(1),
        run_as_uid: 600_050,
        port_nos: vec![50],
    };
    let refused = gon_store::placement::place(&mut tx, &placement).await.unwrap_err();
    assert_eq!(refused.constraint(), Some("nodes_capacity_check"));
}

#[tokio::test]
async fn managers_at_once_place_every_instance_once() {
    let site = Site::new().await;
    let managers: Vec<_> = (0..4).map(|_| site.another_manager(ComputeSettings::default())).collect();
    let alive = alive(&["n1", "n2"]);
    let looking = async {
        for _ in 0..6 {
            for result in futures_util::future::join_all(managers.iter().map(|m| m.place(&alive))).await {
                result.unwrap();
            }
        }
    };
    let arriving = async {
        site.sql(TWENTY).await;
    };
    tokio::join!(looking, arriving);
    for manager in &managers {
        manager.place(&alive).await.unwrap();
    }
    assert_eq!(
        site.row(
            "select jsonb_build_array(count(*), max(placement_epoch), count(distinct (node_id, run_as_uid)))
             from instances where name like 'x%' and node_id is not null"
        )
        .await,
        json!([14, 1, 14])
    );
}
