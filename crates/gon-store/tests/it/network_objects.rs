//! The network's objects: what the schema refuses of them, by name, and what two do at once.

use gon_store::StoreError;

/// Name of the constraint, and a statement it must refuse (on the site of `constraints.sql`).
pub const REFUSED: &[(&str, &str)] = &[
    // Further blocks.
    (
        "vpc_cidr_blocks_range_check",
        "insert into vpc_cidr_blocks (id, account_id, vpc_id, primary_cidr, cidr_block, slot) values (u('f'), u('a1'), u('11'), '10.0.0.0/16', '10.9.0.0/29', 1)",
    ),
    (
        "vpc_cidr_blocks_range_check",
        "insert into vpc_cidr_blocks (id, account_id, vpc_id, primary_cidr, cidr_block, slot) values (u('f'), u('a1'), u('11'), '10.0.0.0/16', '10.8.0.0/15', 1)",
    ),
    (
        "vpc_cidr_blocks_limit_check",
        "insert into vpc_cidr_blocks (id, account_id, vpc_id, primary_cidr, cidr_block, slot) values (u('f'), u('a1'), u('11'), '10.0.0.0/16', '10.9.0.0/16', 5)",
    ),
    (
        "vpc_cidr_blocks_primary_check",
        "insert into vpc_cidr_blocks (id, account_id, vpc_id, primary_cidr, cidr_block, slot) values (u('f'), u('a1'), u('11'), '10.0.0.0/16', '10.9.0.0/16', 0)",
    ),
    (
        "vpc_cidr_blocks_restricted_check",
        "insert into vpc_cidr_blocks (id, account_id, vpc_id, primary_cidr, cidr_block, slot) values (u('f'), u('a1'), u('11'), '10.0.0.0/16', '192.168.7.0/24', 1)",
    ),
    (
        "vpc_cidr_blocks_restricted_check",
        "insert into vpc_cidr_blocks (id, account_id, vpc_id, primary_cidr, cidr_block, slot) values (u('f'), u('a1'), u('11'), '10.0.0.0/16', '198.19.7.0/24', 1)",
    ),
    (
        "vpcs_cidr_block_reserved",
        "insert into vpc_cidr_blocks (id, account_id, vpc_id, primary_cidr, cidr_block, slot) values (u('f'), u('a1'), u('11'), '10.0.0.0/16', '127.7.0.0/24', 1)",
    ),
    (
        "vpc_cidr_blocks_no_overlap",
        "insert into vpc_cidr_blocks (id, account_id, vpc_id, primary_cidr, cidr_block, slot) values (u('f'), u('a1'), u('11'), '10.0.0.0/16', '10.0.128.0/17', 1)",
    ),
    (
        "vpc_cidr_blocks_vpc_fkey",
        "insert into vpc_cidr_blocks (id, account_id, vpc_id, primary_cidr, cidr_block, slot) values (u('f'), u('a1'), u('11'), '10.7.0.0/16', '10.9.0.0/16', 1)",
    ),
    (
        "vpc_cidr_blocks_vpc_fkey",
        "insert into vpc_cidr_blocks (id, account_id, vpc_id, primary_cidr, cidr_block, slot) values (u('f'), u('a1'), u('13'), '10.0.0.0/16', '10.9.0.0/16', 1)",
    ),
    (
        "vpc_cidr_blocks_slot_key",
        "insert into vpc_cidr_blocks (id, account_id, vpc_id, primary_cidr, cidr_block, slot) values (u('f'), u('a1'), u('11'), '10.0.0.0/16', '10.9.0.0/16', 1); insert into vpc_cidr_blocks (id, account_id, vpc_id, primary_cidr, cidr_block, slot) values (u('fe'), u('a1'), u('11'), '10.0.0.0/16', '10.8.0.0/16', 1)",
    ),
    (
        "vpc_cidr_blocks_route_check",
        "update routes set destination_cidr = '10.9.1.0/24'; insert into vpc_cidr_blocks (id, account_id, vpc_id, primary_cidr, cidr_block, slot) values (u('f'), u('a1'), u('11'), '10.0.0.0/16', '10.9.0.0/16', 1)",
    ),
    (
        "vpc_cidr_blocks_route_check",
        "update routes set destination_cidr = '10.9.0.0/16'; insert into vpc_cidr_blocks (id, account_id, vpc_id, primary_cidr, cidr_block, slot) values (u('f'), u('a1'), u('11'), '10.0.0.0/16', '10.9.0.0/16', 1)",
    ),
    (
        "routes_not_local_check",
        "insert into vpc_cidr_blocks (id, account_id, vpc_id, primary_cidr, cidr_block, slot) values (u('f'), u('a1'), u('11'), '10.0.0.0/16', '10.9.0.0/16', 1); update routes set destination_cidr = '10.9.1.0/24'",
    ),
    (
        "subnets_block_fkey",
        "insert into vpc_cidr_blocks (id, account_id, vpc_id, primary_cidr, cidr_block, slot) values (u('f'), u('a1'), u('11'), '10.0.0.0/16', '10.9.0.0/16', 1); insert into subnets (id, account_id, vpc_id, vpc_cidr, name, cidr_block, availability_zone) values (u('f'), u('a1'), u('11'), '10.9.0.0/16', 'x', '10.9.9.0/24', 'z'); update vpc_cidr_blocks set deleted_at = now() where id = u('f')",
    ),
    ("vpcs_default_key", "update vpcs set is_default = true where account_id = u('a1')"),
    ("subnets_default_key", "update subnets set default_for_az = true where vpc_id = u('11')"),
    // Main tables.
    ("route_tables_main_stays", "update route_tables set is_main = false where id = u('41')"),
    ("route_tables_main_stays", "update route_tables set deleted_at = now() where id = u('43')"),
    // Interfaces.
    (
        "network_interfaces_attached_check",
        "update network_interfaces set device_index = 1 where id = u('73')",
    ),
    (
        "network_interfaces_attached_check",
        "update network_interfaces set attachment_id = null where id = u('72')",
    ),
    (
        "network_interfaces_unplaced_check",
        "update network_interfaces set node_id = u('1'), port_no = 20 where id = u('73')",
    ),
    ("network_interfaces_description_check", "update network_interfaces set description = E'a\\nb'"),
    (
        "network_interfaces_primary_stays",
        "update network_interfaces set instance_id = null, device_index = null, attachment_id = null, attached_at = null, node_id = null, port_no = null where id = u('71')",
    ),
    ("network_interfaces_primary_stays", "update network_interfaces set device_index = 3 where id = u('72')"),
    (
        "network_interfaces_in_use",
        "insert into network_interfaces (id, account_id, vpc_id, subnet_id, subnet_cidr, instance_id, device_index, private_ip, mac_address) values (u('f'), u('a1'), u('11'), u('21'), '10.0.1.0/24', u('61'), 1, '10.0.1.20', '0a:00:00:00:00:0f'); update network_interfaces set instance_id = u('62') where id = u('f')",
    ),
    (
        "network_interfaces_instance_stopped",
        "update network_interfaces set instance_id = u('61'), device_index = 1, attachment_id = u('ea'), attached_at = now() where id = u('73')",
    ),
    (
        "network_interfaces_instance_stopped",
        "insert into network_interfaces (id, account_id, vpc_id, subnet_id, subnet_cidr, instance_id, device_index, private_ip, mac_address) values (u('f'), u('a1'), u('11'), u('21'), '10.0.1.0/24', u('61'), 1, '10.0.1.20', '0a:00:00:00:00:0f'); update network_interfaces set instance_id = null, device_index = null, attachment_id = null, attached_at = null where id = u('f')",
    ),
    (
        "network_interfaces_same_zone",
        "update instances set power = 'stopped', state = 'stopping', generation = 6 where id = u('61'); update instances set state = 'stopped' where id = u('61'); update subnets set availability_zone = 'z-1b' where id = u('21'); insert into network_interfaces (id, account_id, vpc_id, subnet_id, subnet_cidr, instance_id, device_index, private_ip, mac_address, attachment_id, attached_at) values (u('f'), u('a1'), u('11'), u('24'), '10.0.4.0/24', null, null, '10.0.4.20', '0a:00:00:00:00:0f', null, null); update network_interfaces set instance_id = u('61'), device_index = 1, attachment_id = u('ea'), attached_at = now() where id = u('f')",
    ),
    (
        "network_interfaces_slot_key",
        "update instances set power = 'stopped', state = 'stopping', generation = 6 where id = u('61'); update instances set state = 'stopped' where id = u('61'); update network_interfaces set instance_id = u('61'), device_index = 0, attachment_id = u('ea'), attached_at = now() where id = u('73')",
    ),
    (
        "network_interfaces_instance_fkey",
        "update network_interfaces set instance_id = u('f'), device_index = 1, attachment_id = u('ea'), attached_at = now() where id = u('73')",
    ),
    (
        "network_interfaces_subnet_fkey",
        "insert into network_interfaces (id, account_id, vpc_id, subnet_id, subnet_cidr, instance_id, device_index, private_ip, mac_address) values (u('f'), u('a1'), u('11'), u('22'), '10.0.1.0/24', u('61'), 1, '10.0.1.20', '0a:00:00:00:00:0f')",
    ),
    (
        "network_interfaces_subnet_fkey",
        "insert into network_interfaces (id, account_id, vpc_id, subnet_id, subnet_cidr, instance_id, device_index, private_ip, mac_address) values (u('f'), u('a1'), u('11'), u('21'), '10.0.0.0/16', u('61'), 1, '10.0.1.20', '0a:00:00:00:00:0f')",
    ),
    (
        "interface_addresses_interface_fkey",
        "update network_interfaces set subnet_id = u('22') where id = u('72')",
    ),
    (
        "interface_addresses_interface_fkey",
        "insert into interface_addresses (account_id, vpc_id, subnet_id, subnet_cidr, network_interface_id, private_ip) values (u('a1'), u('11'), u('24'), '10.0.4.0/24', u('72'), '10.0.4.20')",
    ),
    (
        "interface_addresses_range_check",
        "insert into interface_addresses (account_id, vpc_id, subnet_id, subnet_cidr, network_interface_id, private_ip) values (u('a1'), u('11'), u('21'), '10.0.1.0/24', u('72'), '10.0.1.3')",
    ),
    (
        "interface_addresses_private_ip_key",
        "insert into interface_addresses (account_id, vpc_id, subnet_id, subnet_cidr, network_interface_id, private_ip) values (u('a1'), u('11'), u('21'), '10.0.1.0/24', u('72'), '10.0.1.10')",
    ),
    (
        "interface_addresses_private_ip_key",
        "insert into interface_addresses (account_id, vpc_id, subnet_id, subnet_cidr, network_interface_id, private_ip) values (u('a1'), u('11'), u('21'), '10.0.1.0/24', u('72'), '10.0.1.20'); insert into network_interfaces (id, account_id, vpc_id, subnet_id, subnet_cidr, instance_id, device_index, private_ip, mac_address) values (u('f'), u('a1'), u('11'), u('21'), '10.0.1.0/24', u('61'), 1, '10.0.1.20', '0a:00:00:00:00:0f')",
    ),
    (
        "interface_addresses_primary_key",
        "insert into interface_addresses (account_id, vpc_id, subnet_id, subnet_cidr, network_interface_id, private_ip, is_primary) values (u('a1'), u('11'), u('21'), '10.0.1.0/24', u('72'), '10.0.1.20', true)",
    ),
    (
        "interface_addresses_limit",
        "insert into interface_addresses (account_id, vpc_id, subnet_id, subnet_cidr, network_interface_id, private_ip) select u('a1'), u('11'), u('21'), '10.0.1.0/24', u('72'), '10.0.1.20'::inet + n from generate_series(1, 16) n",
    ),
    // Prefix lists.
    (
        "prefix_lists_account_fkey",
        "insert into prefix_lists (id, account_id, name, max_entries) values (u('aa'), u('f'), 'x', 2)",
    ),
    (
        "prefix_lists_max_entries_check",
        "insert into prefix_lists (id, account_id, name, max_entries) values (u('aa'), u('a1'), 'x', 61)",
    ),
    (
        "prefix_lists_room",
        "insert into prefix_lists (id, account_id, name, max_entries) values (u('aa'), u('a1'), 'x', 2); insert into prefix_list_entries (prefix_list_id, account_id, cidr) values (u('aa'), u('a1'), '10.0.0.0/8'); insert into prefix_list_entries (prefix_list_id, account_id, cidr) values (u('aa'), u('a1'), '10.0.0.0/9'); insert into prefix_list_entries (prefix_list_id, account_id, cidr) values (u('aa'), u('a1'), '10.0.0.0/10');",
    ),
    (
        "prefix_lists_room",
        "insert into prefix_lists (id, account_id, name, max_entries) values (u('aa'), u('a1'), 'x', 2); insert into prefix_list_entries (prefix_list_id, account_id, cidr) values (u('aa'), u('a1'), '10.0.0.0/8'); insert into prefix_list_entries (prefix_list_id, account_id, cidr) values (u('aa'), u('a1'), '10.0.0.0/9'); update prefix_lists set max_entries = 1",
    ),
    (
        "prefix_list_entries_key",
        "insert into prefix_lists (id, account_id, name, max_entries) values (u('aa'), u('a1'), 'x', 2); insert into prefix_list_entries (prefix_list_id, account_id, cidr) values (u('aa'), u('a1'), '10.0.0.0/8'); insert into prefix_list_entries (prefix_list_id, account_id, cidr) values (u('aa'), u('a1'), '10.0.0.0/8');",
    ),
    (
        "prefix_list_entries_family_check",
        "insert into prefix_lists (id, account_id, name, max_entries) values (u('aa'), u('a1'), 'x', 2); insert into prefix_list_entries (prefix_list_id, account_id, cidr) values (u('aa'), u('a1'), 'fd00::/8');",
    ),
    (
        "prefix_list_entries_list_fkey",
        "insert into prefix_list_entries (prefix_list_id, account_id, cidr) values (u('aa'), u('a1'), '10.0.0.0/8');",
    ),
    (
        "prefix_list_entries_list_fkey",
        "insert into prefix_lists (id, account_id, name, max_entries) values (u('aa'), u('a1'), 'x', 2); insert into prefix_list_entries (prefix_list_id, account_id, cidr) values (u('aa'), u('a1'), '10.0.0.0/8'); update prefix_lists set deleted_at = now()",
    ),
    (
        "security_group_rules_peer_list_fkey",
        "update security_group_rules set peer_cidr = null, peer_prefix_list_id = u('f') where id = u('83')",
    ),
    (
        "security_group_rules_peer_list_fkey",
        "insert into prefix_lists (id, account_id, name, max_entries) values (u('aa'), u('a2'), 'x', 2); update security_group_rules set peer_cidr = null, peer_prefix_list_id = u('aa') where id = u('83')",
    ),
    (
        "security_group_rules_peer_list_fkey",
        "insert into prefix_lists (id, account_id, name, max_entries) values (u('aa'), u('a1'), 'x', 2); update security_group_rules set peer_cidr = null, peer_prefix_list_id = u('aa') where id = u('83'); update prefix_lists set deleted_at = now()",
    ),
    (
        "security_group_rules_peer_check",
        "insert into prefix_lists (id, account_id, name, max_entries) values (u('aa'), u('a1'), 'x', 2); update security_group_rules set peer_prefix_list_id = u('aa') where id = u('83')",
    ),
    // Routes to prefix lists.
    ("routes_destination_check", "update routes set destination_cidr = null"),
    (
        "routes_destination_check",
        "insert into prefix_lists (id, account_id, name, max_entries) values (u('aa'), u('a1'), 'x', 2); update routes set destination_prefix_list_id = u('aa')",
    ),
    (
        "routes_prefix_list_fkey",
        "update routes set destination_cidr = null, destination_prefix_list_id = u('f')",
    ),
    (
        "routes_prefix_list_fkey",
        "insert into prefix_lists (id, account_id, name, max_entries) values (u('aa'), u('a2'), 'x', 2); update routes set destination_cidr = null, destination_prefix_list_id = u('aa')",
    ),
    (
        "routes_prefix_list_fkey",
        "insert into prefix_lists (id, account_id, name, max_entries) values (u('aa'), u('a1'), 'x', 2); update routes set destination_cidr = null, destination_prefix_list_id = u('aa'); update prefix_lists set deleted_at = now()",
    ),
    (
        "routes_prefix_list_key",
        "insert into prefix_lists (id, account_id, name, max_entries) values (u('aa'), u('a1'), 'x', 2); update routes set destination_cidr = null, destination_prefix_list_id = u('aa'); insert into routes (id, account_id, route_table_id, vpc_id, vpc_cidr, destination_prefix_list_id, target_type, internet_gateway_id) values (u('f'), u('a1'), u('42'), u('11'), '10.0.0.0/16', u('aa'), 'gateway', u('31'))",
    ),
    (
        "routes_limit",
        "insert into routes (id, account_id, route_table_id, vpc_id, vpc_cidr, destination_cidr, target_type, internet_gateway_id) select gen_random_uuid(), u('a1'), u('42'), u('11'), '10.0.0.0/16', ('192.0.2.' || n || '/32')::cidr, 'gateway', u('31') from generate_series(1, 50) n",
    ),
    (
        "routes_limit",
        "insert into prefix_lists (id, account_id, name, max_entries) values (u('aa'), u('a1'), 'x', 51); update routes set destination_cidr = null, destination_prefix_list_id = u('aa')",
    ),
    (
        "routes_limit",
        "insert into prefix_lists (id, account_id, name, max_entries) values (u('aa'), u('a1'), 'x', 49); insert into routes (id, account_id, route_table_id, vpc_id, vpc_cidr, destination_prefix_list_id, target_type, internet_gateway_id) values (u('f'), u('a1'), u('42'), u('11'), '10.0.0.0/16', u('aa'), 'gateway', u('31')); update prefix_lists set max_entries = 50",
    ),
];

#[tokio::test]
async fn what_cannot_be_of_the_network_is_refused_by_name() {
    let database = gon_testkit::database().await;
    gon_store::admin::script(&database.store, include_str!("constraints.sql")).await.unwrap();
    let mut wrong = Vec::new();
    for (name, statement) in REFUSED {
        match gon_store::admin::script(&database.store, statement).await {
            Err(error) if error.constraint() == Some(name) => {}
            other => wrong.push(format!("{name}\n  {statement}\n  {other:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Runs two statements in transactions that are both open; the second one waits for the first. What became of the second.
async fn second(
    database: &gon_testkit::TestDatabase,
    first: &'static str,
    then: &'static str,
) -> Option<String> {
    let mut tx = database.store.begin().await.unwrap();
    gon_store::admin::script_in(&mut tx, first).await.unwrap();
    let store = database.store.clone();
    let waiting = tokio::spawn(async move { gon_store::admin::script(&store, then).await });
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    gon_store::commit(tx).await.unwrap();
    match waiting.await.unwrap() {
        Ok(()) => None,
        Err(StoreError::Constraint { name, .. }) => Some(name),
        Err(other) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_block_and_a_route_into_it_do_not_slip_past_each_other() {
    const BLOCK: &str = "insert into vpc_cidr_blocks (id, account_id, vpc_id, primary_cidr, cidr_block, slot)
        values (u('f'), u('a1'), u('11'), '10.0.0.0/16', '10.9.0.0/16', 1)";
    const ROUTE: &str = "update routes set destination_cidr = '10.9.1.0/24'";
    for (first, then, refused) in
        [(BLOCK, ROUTE, "routes_not_local_check"), (ROUTE, BLOCK, "vpc_cidr_blocks_route_check")]
    {
        let database = gon_testkit::database().await;
        gon_store::admin::script(&database.store, include_str!("constraints.sql")).await.unwrap();
        assert_eq!(second(&database, first, then).await.as_deref(), Some(refused), "{then}");
    }
}

#[tokio::test]
async fn an_address_is_one_interfaces_whichever_kind_it_is() {
    const SECONDARY: &str = "insert into interface_addresses
          (account_id, vpc_id, subnet_id, subnet_cidr, network_interface_id, private_ip)
        values (u('a1'), u('11'), u('21'), '10.0.1.0/24', u('72'), '10.0.1.20')";
    const PRIMARY: &str = "insert into network_interfaces (id, account_id, vpc_id, subnet_id, subnet_cidr, instance_id,
          device_index, private_ip, mac_address)
        values (u('f'), u('a1'), u('11'), u('21'), '10.0.1.0/24', u('61'), 1, '10.0.1.20', '0a:00:00:00:00:0f')";
    for (first, then) in [(SECONDARY, PRIMARY), (PRIMARY, SECONDARY)] {
        let database = gon_testkit::database().await;
        gon_store::admin::script(&database.store, include_str!("constraints.sql")).await.unwrap();
        let refused = second(&database, first, then).await;
        assert_eq!(refused.as_deref(), Some("interface_addresses_private_ip_key"), "{then}");
    }
}

#[tokio::test]
async fn room_in_a_list_and_another_route_do_not_slip_past_each_other() {
    const LIST: &str = "insert into prefix_lists (id, account_id, name, max_entries) values (u('aa'), u('a1'), 'x', 48);
        insert into routes (id, account_id, route_table_id, vpc_id, vpc_cidr, destination_prefix_list_id, target_type,
          internet_gateway_id)
        values (u('fa'), u('a1'), u('42'), u('11'), '10.0.0.0/16', u('aa'), 'gateway', u('31'))";
    const ROOM: &str = "update prefix_lists set max_entries = 49";
    const ROUTE: &str =
        "insert into routes (id, account_id, route_table_id, vpc_id, vpc_cidr, destination_cidr, target_type,
          internet_gateway_id)
        values (u('fb'), u('a1'), u('42'), u('11'), '10.0.0.0/16', '192.0.2.0/24', 'gateway', u('31'))";
    for (first, then) in [(ROOM, ROUTE), (ROUTE, ROOM)] {
        let database = gon_testkit::database().await;
        gon_store::admin::script(&database.store, include_str!("constraints.sql")).await.unwrap();
        gon_store::admin::script(&database.store, LIST).await.unwrap();
        assert_eq!(second(&database, first, then).await.as_deref(), Some("routes_limit"), "{then}");
    }
}

#[tokio::test]
async fn a_table_that_had_more_routes_keeps_them() {
    let database = gon_testkit::database().await;
    gon_store::admin::script(&database.store, include_str!("constraints.sql")).await.unwrap();
    for statement in [
        "alter table routes disable trigger routes_number;
         insert into routes (id, account_id, route_table_id, vpc_id, vpc_cidr, destination_cidr, target_type, internet_gateway_id)
           select gen_random_uuid(), u('a1'), u('42'), u('11'), '10.0.0.0/16', ('192.0.2.' || n || '/32')::cidr, 'gateway', u('31')
           from generate_series(1, 60) n;
         alter table routes enable trigger routes_number",
        "update routes set target_type = 'instance', internet_gateway_id = null, network_interface_id = u('71')
         where destination_cidr = '192.0.2.7/32'",
        "delete from routes where destination_cidr = '192.0.2.8/32'",
    ] {
        gon_store::admin::script(&database.store, statement).await.unwrap();
    }
}
