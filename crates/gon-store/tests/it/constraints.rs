//! Every write the schema must refuse, and the name by which it does: the names are part of the interface. A constraint
//! that has a name and no case here fails the last test.

use std::collections::BTreeSet;

use gon_store::StoreError;

/// Name of the constraint, and a statement it must refuse.
const REFUSED: &[(&str, &str)] = &[
    // Tenancy.
    ("accounts_name_key", "insert into accounts (id, name) values (u('f'), 'ONE')"),
    ("accounts_name_check", "insert into accounts (id, name) values (u('f'), 'a b')"),
    (
        "users_username_key",
        "insert into users (id, account_id, username, email, password_hash) values (u('f'), u('a1'), 'ANN', 'x@y', '$argon2id$')",
    ),
    (
        "users_email_key",
        "insert into users (id, account_id, username, email, password_hash) values (u('f'), u('a1'), 'eve', 'ANN@example.org', '$argon2id$')",
    ),
    (
        "users_password_hash_check",
        "insert into users (id, account_id, username, email, password_hash) values (u('f'), u('a1'), 'eve', 'x@y', 'secret')",
    ),
    (
        "users_account_fkey",
        "insert into users (id, account_id, username, email, password_hash) values (u('f'), u('f'), 'eve', 'x@y', '$argon2id$')",
    ),
    ("users_account_fkey", "delete from accounts where id = u('a1')"),
    ("users_username_check", "update users set username = 'a b'"),
    ("refresh_tokens_user_fkey", "update refresh_tokens set user_id = u('f')"),
    ("refresh_tokens_token_sha256_check", "update refresh_tokens set token_sha256 = '\\x00'"),
    // Nodes.
    (
        "nodes_name_key",
        "insert into nodes (id, name, availability_zone, capacity_vcpus, capacity_memory_mib, capacity_disk_gib, accelerator, ovs_datapath) values (u('2'), 'n1', 'z-1a', 1, 1, 1, 'tcg', 'netdev')",
    ),
    ("nodes_capacity_check", "update nodes set used_vcpus = 5"),
    ("nodes_capacity_check", "update nodes set used_memory_mib = 4097"),
    ("nodes_capacity_check", "update nodes set used_disk_gib = 11"),
    ("nodes_epoch_check", "update nodes set epoch = 2"),
    (
        "nodes_grant_check",
        "insert into nodes (id, name, availability_zone, capacity_vcpus, capacity_memory_mib, capacity_disk_gib, accelerator, ovs_datapath, grant_seq) values (u('7'), 'n7', 'z-1a', 1, 1, 1, 'tcg', 'netdev', -1)",
    ),
    ("nodes_grant_monotonic", "update nodes set grant_seq = 2; update nodes set grant_seq = 1"),
    (
        "node_remains_node_fkey",
        "insert into node_remains (node_id, instance_id, placement_epoch, generation, run_as_uid, port_nos) values (u('f'), u('61'), 1, 2, 600000, '{}')",
    ),
    (
        "instances_auto_recover_check",
        "update instances set auto_recover = true, generation = generation + 1 where id = u('61')",
    ),
    (
        "instances_auto_recover_leader",
        "insert into leader_epochs (role, epoch, holder) values ('instance-manager', 1, 'old'); update instances set state = 'stopped' where id = u('62'); update instances set auto_recover = true, generation = generation + 1 where id = u('62')",
    ),
    (
        "leader_epochs_knows_fences",
        "insert into leader_epochs (role, epoch, holder, knows_fences) values ('instance-manager', 1, 'new', true); update instances set state = 'stopped' where id = u('62'); update instances set auto_recover = true, generation = generation + 1 where id = u('62'); update leader_epochs set epoch = 2, holder = 'old'",
    ),
    (
        "instances_generation_check",
        "update instances set state = 'stopped' where id = u('62'); update instances set auto_recover = true where id = u('62')",
    ),
    ("nodes_labels_check", "update nodes set labels = '[]'"),
    ("nodes_address_check", "update nodes set address = '192.0.2.0/24'"),
    ("nodes_removed_empty", "update nodes set removed_at = now() where id = u('1')"),
    ("nodes_removed_one_way", "update nodes set removed_at = null where id = u('5')"),
    ("nodes_removed_one_way", "update nodes set removed_at = now() + interval '1 hour' where id = u('5')"),
    (
        "instances_node_removed",
        "update instances set node_id = u('5'), run_as_uid = 600001, placement_epoch = 1, generation = 2 where id = u('62')",
    ),
    ("instances_leaving_check", "update instances set leaving_node = true where id = u('62')"),
    ("instances_leaving_check", "update instances set leaving_node = true, disk_gib = 1 where id = u('61')"),
    (
        "nodes_overlay_address_key",
        "update nodes set overlay_address = '192.0.2.9', overlay_mtu = 1500 where id = u('1'); insert into nodes (id, name, availability_zone, capacity_vcpus, capacity_memory_mib, capacity_disk_gib, accelerator, ovs_datapath, overlay_address, overlay_mtu) values (u('6'), 'n6', 'z-1a', 1, 1, 1, 'tcg', 'netdev', '192.0.2.9', 1500)",
    ),
    ("nodes_overlay_address_check", "update nodes set overlay_address = '192.0.2.0/24', overlay_mtu = 1500"),
    ("nodes_overlay_address_check", "update nodes set overlay_address = '2001:db8::1', overlay_mtu = 1500"),
    (
        "nodes_overlay_mtu_check",
        "update nodes set overlay_address = '192.0.2.9', overlay_mtu = 625 where id = u('1')",
    ),
    ("nodes_overlay_check", "update nodes set overlay_mtu = 1500"),
    ("vpcs_key_fixed", "update vpcs set key = key + 1000 where id = u('11')"),
    (
        "vpcs_key_check",
        "insert into vpcs (id, account_id, user_id, name, cidr_block, key, state) values (u('f'), u('a1'), u('b1'), 'x', '10.0.0.0/16', 16777216, 'available')",
    ),
    // Operations.
    ("operations_account_fkey", "update operations set account_id = u('f') where id = u('91')"),
    ("operations_user_fkey", "update operations set user_id = u('b2') where id = u('91')"),
    ("operations_finished_check", "update operations set state = 'failed' where id = u('91')"),
    ("operations_finished_check", "update operations set finished_at = now() where id = u('91')"),
    ("operations_lease_check", "update operations set lease_owner = 'a' where id = u('91')"),
    (
        "operations_lease_check",
        "update operations set lease_owner = 'a', lease_until = now(), state = 'failed', finished_at = now() where id = u('91')",
    ),
    ("operations_ended_check", "update operations set progress = '{}' where id = u('93')"),
    (
        "operations_drain_key",
        "insert into operations (id, account_id, user_id, request_id, action, resource, resource_id, goal, deadline) values (u('94'), u('a1'), u('b1'), 'req-1', 'DrainNode', 'node', u('1'), 'drained', now())",
    ),
    ("nodes_not_negative", "update nodes set used_vcpus = -1"),
    ("nodes_accelerator_check", "update nodes set accelerator = 'xen'"),
    (
        "images_name_digest_key",
        "insert into images (id, name, kind, digest, min_memory_mib, disk_gib) values (u('c2'), 'img', 'disk', repeat('a', 64), 1, 1)",
    ),
    ("images_digest_check", "update images set digest = 'x'"),
    ("images_name_check", "update images set name = '../etc'"),
    ("images_account_fkey", "update images set account_id = u('f')"),
    (
        "key_pairs_name_key",
        "insert into key_pairs (id, account_id, name, key_type, fingerprint, public_key) values (u('d2'), u('a1'), 'key', 'rsa', 'f', 'k')",
    ),
    ("key_pairs_account_fkey", "update key_pairs set account_id = u('f')"),
    ("key_pairs_public_key_check", "update key_pairs set public_key = E'a\\nb'"),
    ("key_pairs_key_type_check", "update key_pairs set key_type = 'dsa'"),
    // VPCs.
    (
        "vpcs_cidr_block_check",
        "insert into vpcs (id, account_id, user_id, name, cidr_block) values (u('f'), u('a1'), u('b1'), 'x', '10.0.0.0/15')",
    ),
    (
        "vpcs_cidr_block_check",
        "insert into vpcs (id, account_id, user_id, name, cidr_block) values (u('f'), u('a1'), u('b1'), 'x', '10.0.0.0/29')",
    ),
    (
        "vpcs_cidr_block_check",
        "insert into vpcs (id, account_id, user_id, name, cidr_block) values (u('f'), u('a1'), u('b1'), 'x', 'fd00::/20')",
    ),
    (
        "vpcs_cidr_block_reserved",
        "insert into vpcs (id, account_id, user_id, name, cidr_block) values (u('f'), u('a1'), u('b1'), 'x', '169.254.0.0/16')",
    ),
    (
        "vpcs_cidr_block_reserved",
        "insert into vpcs (id, account_id, user_id, name, cidr_block) values (u('f'), u('a1'), u('b1'), 'x', '127.1.0.0/24')",
    ),
    (
        "vpcs_key_key",
        "insert into vpcs (id, account_id, user_id, name, cidr_block, key) values (u('f'), u('a1'), u('b1'), 'x', '10.0.0.0/16', 1001)",
    ),
    (
        "vpcs_user_fkey",
        "insert into vpcs (id, account_id, user_id, name, cidr_block) values (u('f'), u('a1'), u('b2'), 'x', '10.0.0.0/16')",
    ),
    (
        "vpcs_account_fkey",
        "insert into vpcs (id, account_id, user_id, name, cidr_block) values (u('f'), u('f'), u('b1'), 'x', '10.0.0.0/16')",
    ),
    ("vpcs_generation_check", "update vpcs set generation = 0"),
    ("display_name_check", "update vpcs set name = ''"),
    ("display_name_check", "update vpcs set name = E'a\\nb'"),
    ("display_name_check", "update subnets set name = repeat('x', 101)"),
    (
        "vpc_nodes_vpc_fkey",
        "insert into vpc_nodes (vpc_id, node_id, applied_generation) values (u('f'), u('1'), 1)",
    ),
    (
        "vpc_nodes_node_fkey",
        "insert into vpc_nodes (vpc_id, node_id, applied_generation) values (u('12'), u('f'), 1)",
    ),
    // Subnets.
    (
        "subnets_no_overlap",
        "insert into subnets (id, account_id, vpc_id, vpc_cidr, name, cidr_block, availability_zone) values (u('f'), u('a1'), u('11'), '10.0.0.0/16', 'x', '10.0.1.128/25', 'z')",
    ),
    (
        "subnets_no_overlap",
        "insert into subnets (id, account_id, vpc_id, vpc_cidr, name, cidr_block, availability_zone) values (u('f'), u('a1'), u('11'), '10.0.0.0/16', 'x', '10.0.0.0/16', 'z')",
    ),
    (
        "subnets_inside_vpc_check",
        "insert into subnets (id, account_id, vpc_id, vpc_cidr, name, cidr_block, availability_zone) values (u('f'), u('a1'), u('11'), '10.0.0.0/16', 'x', '10.1.0.0/24', 'z')",
    ),
    (
        "subnets_cidr_block_check",
        "insert into subnets (id, account_id, vpc_id, vpc_cidr, name, cidr_block, availability_zone) values (u('f'), u('a1'), u('11'), '10.0.0.0/16', 'x', '10.0.9.0/29', 'z')",
    ),
    // Another account's VPC; a block the VPC does not have; a VPC that is gone.
    (
        "subnets_vpc_fkey",
        "insert into subnets (id, account_id, vpc_id, vpc_cidr, name, cidr_block, availability_zone) values (u('f'), u('a1'), u('13'), '10.0.0.0/16', 'x', '10.0.9.0/24', 'z')",
    ),
    (
        "subnets_block_fkey",
        "insert into subnets (id, account_id, vpc_id, vpc_cidr, name, cidr_block, availability_zone) values (u('f'), u('a1'), u('11'), '10.8.0.0/16', 'x', '10.8.9.0/24', 'z')",
    ),
    ("subnets_block_fkey", "update vpcs set deleted_at = now() where id = u('12')"),
    ("route_tables_vpc_fkey", "update vpcs set cidr_block = '10.0.0.0/17' where id = u('12')"),
    // Gateways.
    ("internet_gateways_vpc_key", "update internet_gateways set vpc_id = u('11') where id = u('32')"),
    ("internet_gateways_vpc_fkey", "update internet_gateways set vpc_id = u('13') where id = u('32')"),
    (
        "internet_gateways_detached_check",
        "update internet_gateways set deleted_at = now() where id = u('31')",
    ),
    ("internet_gateways_account_fkey", "update internet_gateways set account_id = u('f') where id = u('32')"),
    // Route tables.
    (
        "route_tables_main_key",
        "insert into route_tables (id, account_id, vpc_id, vpc_cidr, name, is_main) values (u('f'), u('a1'), u('11'), '10.0.0.0/16', 'x', true)",
    ),
    (
        "route_tables_vpc_fkey",
        "insert into route_tables (id, account_id, vpc_id, vpc_cidr, name) values (u('f'), u('a2'), u('11'), '10.0.0.0/16', 'x')",
    ),
    (
        "route_table_associations_subnet_key",
        "insert into route_table_associations (id, account_id, vpc_id, route_table_id, subnet_id) values (u('f'), u('a1'), u('11'), u('41'), u('21'))",
    ),
    (
        "route_table_associations_subnet_fkey",
        "insert into route_table_associations (id, account_id, vpc_id, route_table_id, subnet_id) values (u('f'), u('a1'), u('11'), u('41'), u('22'))",
    ),
    (
        "route_table_associations_table_fkey",
        "insert into route_table_associations (id, account_id, vpc_id, route_table_id, subnet_id) values (u('f'), u('a1'), u('11'), u('43'), u('24'))",
    ),
    ("route_table_associations_table_fkey", "update route_tables set deleted_at = now() where id = u('42')"),
    (
        "routes_destination_key",
        "insert into routes (id, account_id, route_table_id, vpc_id, vpc_cidr, destination_cidr, target_type, internet_gateway_id) values (u('f'), u('a1'), u('42'), u('11'), '10.0.0.0/16', '0.0.0.0/0', 'gateway', u('31'))",
    ),
    ("routes_not_local_check", "update routes set destination_cidr = '10.0.5.0/24'"),
    ("routes_not_link_local_check", "update routes set destination_cidr = '169.254.169.254/32'"),
    ("routes_family_check", "update routes set destination_cidr = '::/0'"),
    ("routes_target_check", "update routes set internet_gateway_id = null"),
    ("routes_target_check", "update routes set network_interface_id = u('71')"),
    ("routes_gateway_fkey", "update routes set internet_gateway_id = u('33')"),
    (
        "routes_interface_fkey",
        "update routes set target_type = 'instance', internet_gateway_id = null, network_interface_id = u('f')",
    ),
    ("routes_table_fkey", "update routes set vpc_id = u('12')"),
    // Groups.
    (
        "security_groups_name_key",
        "insert into security_groups (id, account_id, vpc_id, name) values (u('f'), u('a1'), u('11'), 'WEB')",
    ),
    ("security_groups_default_key", "update security_groups set is_default = true where id = u('54')"),
    (
        "security_groups_vpc_fkey",
        "insert into security_groups (id, account_id, vpc_id, name) values (u('f'), u('a2'), u('11'), 'x')",
    ),
    ("security_groups_name_check", "update security_groups set name = 'SG-1' where id = u('54')"),
    ("security_groups_description_check", "update security_groups set description = repeat('x', 256)"),
    (
        "security_group_rules_duplicate_key",
        "insert into security_group_rules (id, account_id, vpc_id, security_group_id, direction, protocol, port_range, peer_cidr) values (u('f'), u('a1'), u('11'), u('52'), 'inbound', 'tcp', '[80,80]', '0.0.0.0/0')",
    ),
    (
        "security_group_rules_duplicate_key",
        "insert into security_group_rules (id, account_id, vpc_id, security_group_id, direction, protocol, peer_group_id) values (u('f'), u('a1'), u('11'), u('51'), 'inbound', 'all', u('52'))",
    ),
    (
        "security_group_rules_group_fkey",
        "update security_group_rules set security_group_id = u('53') where id = u('83')",
    ),
    (
        "security_group_rules_peer_group_fkey",
        "update security_group_rules set peer_group_id = u('53') where id = u('84')",
    ),
    (
        "security_group_rules_peer_check",
        "update security_group_rules set peer_cidr = null where id = u('83')",
    ),
    (
        "security_group_rules_peer_check",
        "update security_group_rules set peer_cidr = '0.0.0.0/0' where id = u('84')",
    ),
    (
        "security_group_rules_peer_family_check",
        "update security_group_rules set peer_cidr = '::/0' where id = u('83')",
    ),
    (
        "security_group_rules_ports_check",
        "update security_group_rules set port_range = null where id = u('83')",
    ),
    (
        "security_group_rules_ports_check",
        "update security_group_rules set port_range = '[1,2]' where id = u('84')",
    ),
    (
        "security_group_rules_port_range_check",
        "update security_group_rules set port_range = 'empty' where id = u('83')",
    ),
    (
        "security_group_rules_port_range_check",
        "update security_group_rules set port_range = '[0,65537)' where id = u('83')",
    ),
    (
        "security_group_rules_port_range_check",
        "update security_group_rules set port_range = '[80,)' where id = u('83')",
    ),
    ("security_group_rules_icmp_check", "update security_group_rules set icmp_type = 8 where id = u('83')"),
    (
        "security_group_rules_icmp_check",
        "update security_group_rules set protocol = 'icmp', port_range = null, icmp_code = 0 where id = u('83')",
    ),
    (
        "security_group_rules_icmp_check",
        "update security_group_rules set protocol = 'icmp', port_range = null, icmp_type = 256 where id = u('83')",
    ),
    ("security_group_rules_action_check", "update security_group_rules set action = 'deny'"),
    ("security_group_rules_live_check", "update security_group_rules set live = false"),
    // A group that is used, or named by another's rule, stays.
    (
        "network_interface_security_groups_group_fkey",
        "delete from security_group_rules where peer_group_id = u('52') or security_group_id = u('52'); update security_groups set deleted_at = now() where id = u('52')",
    ),
    (
        "security_group_rules_peer_group_fkey",
        "delete from network_interface_security_groups; delete from security_group_rules where security_group_id = u('52'); update security_groups set deleted_at = now() where id = u('52')",
    ),
    // Instances.
    ("instances_subnet_fkey", "update instances set subnet_id = u('22') where id = u('62')"),
    (
        "instances_subnet_fkey",
        "delete from route_table_associations; update subnets set deleted_at = now() where id = u('21')",
    ),
    ("instances_user_fkey", "update instances set user_id = u('b2') where id = u('62')"),
    (
        "instances_account_fkey",
        "insert into instances (id, account_id, user_id, vpc_id, subnet_id, name, instance_type, vcpus, memory_mib, image_id, reservation_id) values (u('f'), u('f'), u('b1'), u('11'), u('21'), 'x', 't', 1, 512, u('c1'), u('e1'))",
    ),
    ("instances_image_fkey", "update instances set image_id = u('f') where id = u('62')"),
    (
        "instances_node_fkey",
        "update instances set node_id = u('f'), run_as_uid = 600005, placement_epoch = 9, generation = 9 where id = u('62')",
    ),
    ("instances_observed_check", "update instances set observed_generation = 6 where id = u('61')"),
    (
        "instances_placed_check",
        "update instances set node_id = null, run_as_uid = null, generation = 6 where id = u('61')",
    ),
    ("instances_uid_check", "update instances set run_as_uid = null where id = u('61')"),
    (
        "instances_uid_key",
        "update instances set node_id = u('1'), run_as_uid = 600000, placement_epoch = 1, generation = 2 where id = u('62')",
    ),
    ("instances_run_as_uid_check", "update instances set run_as_uid = 0 where id = u('61')"),
    ("instances_monotonic_check", "update instances set generation = 4 where id = u('61')"),
    ("instances_monotonic_check", "update instances set reboot_seq = 1, generation = 6 where id = u('61')"),
    (
        "instances_monotonic_check",
        "update instances set placement_epoch = 0, generation = 6 where id = u('61')",
    ),
    ("instances_monotonic_check", "update instances set observed_generation = 3 where id = u('61')"),
    ("instances_generation_check", "update instances set power = 'stopped' where id = u('61')"),
    ("instances_generation_check", "update instances set reboot_seq = 3 where id = u('61')"),
    ("instances_generation_check", "update instances set memory_mib = 1024 where id = u('61')"),
    (
        "instances_epoch_check",
        "update instances set node_id = u('1'), run_as_uid = 600001, generation = 2 where id = u('62')",
    ),
    (
        "instances_one_way_check",
        "update instances set power = 'terminated', state = 'shutting-down', generation = 6 where id = u('61'); update instances set power = 'running', generation = 7 where id = u('61')",
    ),
    ("instances_state_edge_check", "update instances set state = 'pending' where id = u('61')"),
    ("instances_state_edge_check", "update instances set state = 'terminated' where id = u('61')"),
    ("instances_state_edge_check", "update instances set state = 'stopping' where id = u('62')"),
    (
        "instances_terminated_check",
        "update instances set power = 'terminated', state = 'shutting-down', generation = 2 where id = u('62'); update instances set state = 'terminated', terminated_at = now(), deleted_at = now() where id = u('62')",
    ),
    ("instances_terminated_check", "update instances set deleted_at = now() where id = u('62')"),
    (
        "instances_terminated_check",
        "update instances set power = 'terminated', state = 'shutting-down', generation = 2 where id = u('62'); update instances set state = 'terminated', finalizers = '{}' where id = u('62')",
    ),
    ("instances_user_data_check", "update instances set user_data = decode(repeat('00', 16385), 'hex')"),
    ("instances_finalizers_check", "update instances set finalizers = array['magic']"),
    // A tombstone keeps no interface.
    (
        "network_interfaces_instance_fkey",
        "update instances set power = 'terminated', state = 'shutting-down', generation = 2 where id = u('62'); update instances set state = 'terminated', finalizers = '{}', terminated_at = now(), deleted_at = now() where id = u('62')",
    ),
    // Interfaces.
    (
        "network_interfaces_private_ip_key",
        "update network_interfaces set private_ip = '10.0.1.10' where id = u('72')",
    ),
    (
        "network_interfaces_mac_key",
        "update network_interfaces set mac_address = '0a:00:00:00:00:01' where id = u('72')",
    ),
    (
        "network_interfaces_mac_check",
        "update network_interfaces set mac_address = '00:00:00:00:00:09' where id = u('72')",
    ),
    (
        "network_interfaces_mac_check",
        "update network_interfaces set mac_address = '0b:00:00:00:00:09' where id = u('72')",
    ),
    (
        "network_interfaces_port_key",
        "update network_interfaces set node_id = u('1'), port_no = 16 where id = u('72')",
    ),
    ("network_interfaces_placed_check", "update network_interfaces set port_no = 17 where id = u('72')"),
    (
        "network_interfaces_port_no_check",
        "update network_interfaces set node_id = u('1'), port_no = 15 where id = u('72')",
    ),
    (
        "network_interfaces_node_fkey",
        "update network_interfaces set node_id = u('f'), port_no = 17 where id = u('72')",
    ),
    (
        "network_interfaces_address_check",
        "update network_interfaces set private_ip = '10.0.1.0' where id = u('72')",
    ),
    (
        "network_interfaces_address_check",
        "update network_interfaces set private_ip = '10.0.1.3' where id = u('72')",
    ),
    (
        "network_interfaces_address_check",
        "update network_interfaces set private_ip = '10.0.1.255' where id = u('72')",
    ),
    (
        "network_interfaces_address_check",
        "update network_interfaces set private_ip = '10.0.2.10' where id = u('72')",
    ),
    (
        "network_interfaces_address_check",
        "update network_interfaces set private_ip = '10.0.1.12/24' where id = u('72')",
    ),
    ("network_interfaces_port_state_check", "update network_interfaces set port_state = 'fine'"),
    (
        "network_interface_security_groups_group_fkey",
        "insert into network_interface_security_groups (network_interface_id, security_group_id, vpc_id, account_id) values (u('72'), u('53'), u('11'), u('a1'))",
    ),
    (
        "network_interface_security_groups_interface_fkey",
        "insert into network_interface_security_groups (network_interface_id, security_group_id, vpc_id, account_id) values (u('f'), u('52'), u('11'), u('a1'))",
    ),
    (
        "network_interface_security_groups_interface_fkey",
        "delete from public_ips where network_interface_id is not null; update network_interfaces set deleted_at = now(), node_id = null, port_no = null where id = u('71')",
    ),
    // Public addresses.
    (
        "public_ips_interface_key",
        "update public_ips set account_id = u('a1'), allocation_id = u('f2'), network_interface_id = u('71'), vpc_id = u('11') where address = '203.0.113.10'",
    ),
    (
        "public_ips_interface_fkey",
        "update public_ips set account_id = u('a2'), allocation_id = u('f2'), network_interface_id = u('72'), vpc_id = u('11') where address = '203.0.113.10'",
    ),
    (
        "public_ips_association_check",
        "update public_ips set account_id = u('a1'), allocation_id = u('f2'), network_interface_id = u('72') where address = '203.0.113.10'",
    ),
    ("public_ips_owner_check", "update public_ips set account_id = u('a1') where address = '203.0.113.10'"),
    ("public_ips_owner_check", "update public_ips set auto = true where address = '203.0.113.10'"),
    (
        "public_ips_account_fkey",
        "update public_ips set account_id = u('f'), allocation_id = u('f2') where address = '203.0.113.10'",
    ),
    (
        "public_ips_short_id_key",
        "update public_ips set account_id = u('a1'), allocation_id = u('f1') where address = '203.0.113.10'",
    ),
    ("public_ips_address_check", "insert into public_ips (address) values ('203.0.113.0/24')"),
    (
        "public_ips_interface_fkey",
        "delete from network_interface_security_groups; update network_interfaces set deleted_at = now(), node_id = null, port_no = null where id = u('71')",
    ),
    // Plumbing.
    (
        "idempotency_keys_key",
        "insert into idempotency_keys (account_id, key, request_sha256, status, response) values (u('a1'), 'k', decode(repeat('11', 32), 'hex'), 200, '{}')",
    ),
    ("idempotency_keys_account_fkey", "update idempotency_keys set account_id = u('f')"),
    ("outbox_subject_check", "insert into outbox (subject, subject_id) values ('weather', u('1'))"),
    (
        "events_resource_check",
        "insert into events (account_id, resource, resource_id, actor) values (u('a1'), 'A B', u('1'), 'x')",
    ),
    ("audit_log_action_check", "insert into audit_log (action, request_id) values ('drop table', 'x')"),
    ("site_one_check", "insert into site (one) values (false)"),
    ("leader_epochs_epoch_check", "insert into leader_epochs (role, epoch, holder) values ('x', 0, 'y')"),
];

/// Unique indexes that stand only behind foreign keys, and those of shown ids: nothing can break them by itself.
fn is_support(name: &str) -> bool {
    name.ends_with("_short_id_key")
        || name.ends_with("_pkey")
        || [
            "users_id_account_key",
            "vpcs_id_owner_key",
            "vpcs_id_block_key",
            "subnets_id_vpc_key",
            "subnets_id_block_key",
            "internet_gateways_id_owner_key",
            "route_tables_id_vpc_key",
            "route_tables_id_block_key",
            "security_groups_id_vpc_key",
            "network_acls_id_vpc_key",
            "instances_id_owner_key",
            "network_interfaces_id_vpc_key",
            "network_interfaces_id_subnet_key",
            "vpc_cidr_blocks_block_key",
            "prefix_lists_id_owner_key",
        ]
        .contains(&name)
}

#[tokio::test]
async fn every_forbidden_write_is_refused_by_name() {
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
    assert!(REFUSED.len() > 130);
}

#[tokio::test]
async fn every_named_constraint_has_a_case() {
    let database = gon_testkit::database().await;
    let rows = gon_store::admin::json(
        &database.store,
        "select to_jsonb(conname::text) from pg_constraint c join pg_namespace n on n.oid = c.connamespace
         where n.nspname = 'public' and contype in ('c', 'f', 'u', 'x')
         union select to_jsonb(i.relname::text) from pg_index x join pg_class i on i.oid = x.indexrelid
           join pg_class t on t.oid = x.indrelid join pg_namespace n on n.oid = t.relnamespace
         where n.nspname = 'public' and x.indisunique",
    )
    .await
    .unwrap();
    let others = crate::certificates::REFUSED.iter().chain(crate::network_objects::REFUSED);
    let others = others.chain(crate::network_acls::REFUSED);
    let tried: BTreeSet<&str> = REFUSED.iter().chain(others).map(|r| r.0).collect();
    // Plain CHECKs that PostgreSQL named itself guard against defects of ours; those that guard a state have names of
    // their own, and cases.
    let named = |name: &&str| !name.ends_with("_check") || SCHEMA.contains(&format!("CONSTRAINT {name} "));
    let missing: Vec<&str> = rows
        .iter()
        .filter_map(|row| row.as_str())
        .filter(|name| *name != "_sqlx_migrations_pkey" && !is_support(name) && !tried.contains(name))
        .filter(named)
        .collect();
    assert!(missing.is_empty(), "no case for {missing:?}");
    for raised in SCHEMA.split("CONSTRAINT = '").skip(1) {
        let name = raised.split('\'').next().unwrap();
        assert!(tried.contains(name), "no case for {name}");
    }
}

const SCHEMA: &str = concat!(
    include_str!("../../migrations/0001_create_schema.sql"),
    include_str!("../../migrations/0002_cluster.sql"),
    include_str!("../../migrations/0003_certificates.sql"),
    include_str!("../../migrations/0004_overlay.sql"),
    include_str!("../../migrations/0006_network_acls.sql"),
    include_str!("../../migrations/0007_network_objects.sql"),
    include_str!("../../migrations/0008_prefix_lists.sql"),
    include_str!("../../migrations/0010_prefix_list_routes.sql"),
    include_str!("../../migrations/0005_auto_recover.sql")
);

#[tokio::test]
async fn the_audit_log_only_grows() {
    let database = gon_testkit::database().await;
    gon_store::admin::script(&database.store, include_str!("constraints.sql")).await.unwrap();
    for statement in ["update audit_log set action = 'Other'", "delete from audit_log"] {
        let refused = gon_store::admin::script(&database.store, statement).await;
        assert!(matches!(refused, Err(StoreError::Db(_))), "{refused:?}");
    }
}

#[tokio::test]
async fn what_is_gone_makes_room() {
    let database = gon_testkit::database().await;
    gon_store::admin::script(&database.store, include_str!("constraints.sql")).await.unwrap();
    // A whole life, in the order that is allowed: instance, interface, address, subnet, gateway, group, table, VPC.
    gon_store::admin::script(
        &database.store,
        "update public_ips set network_interface_id = null, vpc_id = null;
         delete from network_interface_security_groups;
         update network_interfaces set deleted_at = now(), node_id = null, port_no = null;
         update instances set power = 'terminated', state = 'shutting-down', generation = generation + 1;
         update instances set state = 'terminated', finalizers = '{}', node_id = null, run_as_uid = null,
           generation = generation + 1, terminated_at = now(), deleted_at = now();
         delete from route_table_associations;
         update subnets set deleted_at = now();
         delete from routes;
         update internet_gateways set vpc_id = null; update internet_gateways set deleted_at = now();
         delete from security_group_rules; update security_groups set deleted_at = now();
         update route_tables set deleted_at = now(); update vpcs set deleted_at = now();",
    )
    .await
    .unwrap();
}
