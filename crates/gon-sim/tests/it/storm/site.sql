-- A site of 200 nodes in 20 VPCs, each on ten nodes, three instances on every node; all of them silent for years.
CREATE OR REPLACE FUNCTION pg_temp.i(kind integer, n integer) RETURNS uuid LANGUAGE sql AS $$
  SELECT ('00000000-0000-7000-8' || lpad(to_hex(kind), 3, '0') || '-' || lpad(to_hex(n), 12, '0'))::uuid $$;
INSERT INTO accounts (id, name) VALUES (pg_temp.i(9, 1), 'acme');
INSERT INTO users (id, account_id, username, email, password_hash, role)
  VALUES (pg_temp.i(9, 2), pg_temp.i(9, 1), 'ann', 'ann@example.org', '$argon2id$x', 'admin');
INSERT INTO images (id, name, kind, digest, min_memory_mib, disk_gib)
  VALUES (pg_temp.i(9, 3), 'gon-linux', 'initramfs', repeat('1', 64), 96, 0);
INSERT INTO nodes (id, name, availability_zone, capacity_vcpus, capacity_memory_mib, capacity_disk_gib, used_vcpus,
    used_memory_mib, accelerator, ovs_datapath, images, last_port_no, last_run_as_uid, last_report_at, overlay_address,
    overlay_mtu)
  SELECT pg_temp.i(0, n), 'n' || lpad(n::text, 3, '0'), 'local-1a', 64, 65536, 500, 3, 768, 'tcg', 'netdev',
    jsonb_build_object('gon-linux', repeat('1', 64)), 18, 600002, '2020-01-01', ('192.0.2.' || n)::inet, 1600
  FROM generate_series(1, 200) AS n;
INSERT INTO vpcs (id, account_id, user_id, name, cidr_block, key, generation, state)
  SELECT pg_temp.i(1, v), pg_temp.i(9, 1), pg_temp.i(9, 2), 'v' || v, '10.0.0.0/16', 100 + v, 7, 'available'
  FROM generate_series(1, 20) AS v;
INSERT INTO subnets (id, account_id, vpc_id, vpc_cidr, name, cidr_block, availability_zone)
  SELECT pg_temp.i(2, v), pg_temp.i(9, 1), pg_temp.i(1, v), '10.0.0.0/16', 's', '10.0.0.0/20', 'local-1a'
  FROM generate_series(1, 20) AS v;
INSERT INTO route_tables (id, account_id, vpc_id, vpc_cidr, name, is_main)
  SELECT pg_temp.i(3, v), pg_temp.i(9, 1), pg_temp.i(1, v), '10.0.0.0/16', 'main', true
  FROM generate_series(1, 20) AS v;
INSERT INTO security_groups (id, account_id, vpc_id, name, is_default)
  SELECT pg_temp.i(4, v), pg_temp.i(9, 1), pg_temp.i(1, v), 'default', true FROM generate_series(1, 20) AS v;
INSERT INTO security_group_rules (id, account_id, vpc_id, security_group_id, direction, protocol, peer_cidr, peer_group_id)
  SELECT pg_temp.i(5, 2 * v + o), pg_temp.i(9, 1), pg_temp.i(1, v), pg_temp.i(4, v),
    (ARRAY['inbound', 'outbound'])[o + 1]::rule_direction, 'all',
    CASE WHEN o = 1 THEN '0.0.0.0/0'::cidr END, CASE WHEN o = 0 THEN pg_temp.i(4, v) END
  FROM generate_series(1, 20) AS v, generate_series(0, 1) AS o;
INSERT INTO instances (id, account_id, user_id, vpc_id, subnet_id, name, instance_type, vcpus, memory_mib, image_id,
    reservation_id, state, power, generation, observed_generation, node_id, placement_epoch, run_as_uid)
  SELECT pg_temp.i(6, i), pg_temp.i(9, 1), pg_temp.i(9, 2), pg_temp.i(1, (n - 1) / 10 + 1),
    pg_temp.i(2, (n - 1) / 10 + 1), 'old', 'g1.nano', 1, 256, pg_temp.i(9, 3), pg_temp.i(8, i), 'running', 'running', 2,
    2, pg_temp.i(0, n), 1, 600000 + (i - 1) / 200
  FROM (SELECT i, (i - 1) % 200 + 1 AS n FROM generate_series(1, 600) AS i) AS all_of_them;
INSERT INTO network_interfaces (id, account_id, vpc_id, subnet_id, subnet_cidr, instance_id, private_ip, mac_address,
    node_id, port_no)
  SELECT pg_temp.i(7, i), pg_temp.i(9, 1), pg_temp.i(1, (n - 1) / 10 + 1), pg_temp.i(2, (n - 1) / 10 + 1),
    '10.0.0.0/20', pg_temp.i(6, i), '10.0.0.0'::inet + (100 + i),
    ('02:00:00:00:' || lpad(to_hex(i / 256), 2, '0') || ':' || lpad(to_hex(i % 256), 2, '0'))::macaddr,
    pg_temp.i(0, n), 16 + (i - 1) / 200
  FROM (SELECT i, (i - 1) % 200 + 1 AS n FROM generate_series(1, 600) AS i) AS all_of_them;
INSERT INTO network_interface_security_groups (network_interface_id, security_group_id, vpc_id, account_id)
  SELECT n.id, g.id, n.vpc_id, n.account_id FROM network_interfaces n JOIN security_groups g ON g.vpc_id = n.vpc_id;
