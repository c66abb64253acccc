-- A small site in which every forbidden write can be tried. u('21') is the id that ends in 21.
create function u(n text) returns uuid language sql immutable as $$ select lpad(n, 32, '0')::uuid $$;
insert into accounts (id, name) values (u('a1'), 'one'), (u('a2'), 'two');
insert into users (id, account_id, username, email, password_hash) values
  (u('b1'), u('a1'), 'ann', 'ann@example.org', '$argon2id$x'), (u('b2'), u('a2'), 'bob', 'bob@example.org', '$argon2id$x');
insert into nodes (id, name, availability_zone, capacity_vcpus, capacity_memory_mib, capacity_disk_gib, used_vcpus,
  used_memory_mib, accelerator, ovs_datapath, epoch) values (u('1'), 'n1', 'z-1a', 4, 4096, 10, 1, 512, 'tcg', 'netdev', 3);
insert into images (id, name, kind, digest, min_memory_mib, disk_gib) values
  (u('c1'), 'img', 'initramfs', repeat('a', 64), 128, 0);
insert into key_pairs (id, account_id, name, key_type, fingerprint, public_key) values
  (u('d1'), u('a1'), 'key', 'ed25519', 'f', 'ssh-ed25519 AAAA');
insert into vpcs (id, account_id, user_id, name, cidr_block, key) values
  (u('11'), u('a1'), u('b1'), 'v1', '10.0.0.0/16', 1001), (u('12'), u('a1'), u('b1'), 'v2', '10.0.0.0/16', 1002),
  (u('13'), u('a2'), u('b2'), 'v3', '10.0.0.0/16', 1003);
insert into subnets (id, account_id, vpc_id, vpc_cidr, name, cidr_block, availability_zone) values
  (u('21'), u('a1'), u('11'), '10.0.0.0/16', 's1', '10.0.1.0/24', 'z-1a'),
  (u('22'), u('a1'), u('12'), '10.0.0.0/16', 's2', '10.0.1.0/24', 'z-1a'),
  (u('23'), u('a2'), u('13'), '10.0.0.0/16', 's3', '10.0.1.0/24', 'z-1a'),
  (u('24'), u('a1'), u('11'), '10.0.0.0/16', 's4', '10.0.4.0/24', 'z-1a');
insert into internet_gateways (id, account_id, name, vpc_id) values
  (u('31'), u('a1'), 'g1', u('11')), (u('32'), u('a1'), 'g2', null), (u('33'), u('a2'), 'g3', null);
insert into route_tables (id, account_id, vpc_id, vpc_cidr, name, is_main) values
  (u('41'), u('a1'), u('11'), '10.0.0.0/16', 'main', true), (u('42'), u('a1'), u('11'), '10.0.0.0/16', 'own', false),
  (u('43'), u('a1'), u('12'), '10.0.0.0/16', 'main', true);
insert into route_table_associations (id, account_id, vpc_id, route_table_id, subnet_id) values
  (u('81'), u('a1'), u('11'), u('42'), u('21'));
insert into routes (id, account_id, route_table_id, vpc_id, vpc_cidr, destination_cidr, target_type, internet_gateway_id)
  values (u('82'), u('a1'), u('42'), u('11'), '10.0.0.0/16', '0.0.0.0/0', 'gateway', u('31'));
insert into security_groups (id, account_id, vpc_id, name, is_default) values
  (u('51'), u('a1'), u('11'), 'default', true), (u('52'), u('a1'), u('11'), 'web', false),
  (u('53'), u('a1'), u('12'), 'default', true), (u('54'), u('a1'), u('11'), 'unused', false);
insert into security_group_rules (id, account_id, vpc_id, security_group_id, direction, protocol, port_range, peer_cidr)
  values (u('83'), u('a1'), u('11'), u('52'), 'inbound', 'tcp', '[80,81)', '0.0.0.0/0');
insert into security_group_rules (id, account_id, vpc_id, security_group_id, direction, protocol, peer_group_id)
  values (u('84'), u('a1'), u('11'), u('51'), 'inbound', 'all', u('52'));
insert into instances (id, account_id, user_id, vpc_id, subnet_id, name, instance_type, vcpus, memory_mib, image_id,
  reservation_id, state, node_id, run_as_uid, placement_epoch, generation, reboot_seq, observed_generation) values
  (u('61'), u('a1'), u('b1'), u('11'), u('21'), 'i1', 't', 1, 512, u('c1'), u('e1'), 'running', u('1'), 600000, 1, 5, 2, 4),
  (u('62'), u('a1'), u('b1'), u('11'), u('21'), 'i2', 't', 1, 512, u('c1'), u('e1'), 'pending', null, null, 0, 1, 0, 0);
insert into network_interfaces (id, account_id, vpc_id, subnet_id, subnet_cidr, instance_id, private_ip, mac_address,
  node_id, port_no) values
  (u('71'), u('a1'), u('11'), u('21'), '10.0.1.0/24', u('61'), '10.0.1.10', '0a:00:00:00:00:01', u('1'), 16),
  (u('72'), u('a1'), u('11'), u('21'), '10.0.1.0/24', u('62'), '10.0.1.11', '0a:00:00:00:00:02', null, null);
insert into network_interfaces (id, account_id, vpc_id, subnet_id, subnet_cidr, instance_id, device_index, attachment_id,
  attached_at, private_ip, mac_address) values
  (u('73'), u('a1'), u('11'), u('21'), '10.0.1.0/24', null, null, null, null, '10.0.1.12', '0a:00:00:00:00:03');
insert into network_interface_security_groups (network_interface_id, security_group_id, vpc_id, account_id) values
  (u('71'), u('52'), u('11'), u('a1'));
insert into public_ips (address) values ('203.0.113.10'), ('203.0.113.11');
insert into public_ips (address, account_id, allocation_id, network_interface_id, vpc_id) values
  ('203.0.113.12', u('a1'), u('f1'), u('71'), u('11'));
insert into vpc_nodes (vpc_id, node_id, applied_generation) values (u('11'), u('1'), 1);
insert into idempotency_keys (account_id, key, request_sha256, status, response) values
  (u('a1'), 'k', decode(repeat('00', 32), 'hex'), 200, '{}');
insert into refresh_tokens (token_sha256, user_id, family, expires_at) values
  (decode(repeat('00', 32), 'hex'), u('b1'), u('1'), now());
insert into audit_log (action, request_id) values ('Test', 'req-1');
insert into nodes (id, name, availability_zone, capacity_vcpus, capacity_memory_mib, capacity_disk_gib, accelerator,
  ovs_datapath, removed_at) values (u('5'), 'n5', 'z-1a', 4, 4096, 10, 'tcg', 'netdev', now());
insert into operations (id, account_id, user_id, request_id, action, resource, resource_id, goal, deadline) values
  (u('91'), u('a1'), u('b1'), 'req-1', 'DrainNode', 'node', u('1'), 'drained', now() + interval '1 hour'),
  (u('92'), u('a1'), u('b1'), 'req-1', 'StopInstances', 'instance', u('61'), 'stopped', now());
insert into operations (id, account_id, user_id, request_id, action, resource, resource_id, goal, deadline, state,
  finished_at) values
  (u('93'), u('a1'), u('b1'), 'req-1', 'StopInstances', 'instance', u('61'), 'stopped', now(), 'succeeded', now());
