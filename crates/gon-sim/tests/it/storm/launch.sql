-- 25 more instances in as many VPCs as there are, each with its doorbell.
CREATE OR REPLACE FUNCTION pg_temp.i(kind integer, n integer) RETURNS uuid LANGUAGE sql AS $$
  SELECT ('00000000-0000-7000-8' || lpad(to_hex(kind), 3, '0') || '-' || lpad(to_hex(n), 12, '0'))::uuid $$;
CREATE TEMPORARY TABLE launched AS
  SELECT n + (SELECT count(*)::integer FROM instances) AS i, (n - 1) % 20 + 1 AS v FROM generate_series(1, 25) AS n;
INSERT INTO instances (id, account_id, user_id, vpc_id, subnet_id, name, instance_type, vcpus, memory_mib, image_id,
    reservation_id)
  SELECT pg_temp.i(6, i), pg_temp.i(9, 1), pg_temp.i(9, 2), pg_temp.i(1, v), pg_temp.i(2, v), 'new', 'g1.nano', 1, 256,
    pg_temp.i(9, 3), pg_temp.i(8, i) FROM launched;
INSERT INTO network_interfaces (id, account_id, vpc_id, subnet_id, subnet_cidr, instance_id, private_ip, mac_address)
  SELECT pg_temp.i(7, i), pg_temp.i(9, 1), pg_temp.i(1, v), pg_temp.i(2, v), '10.0.0.0/20', pg_temp.i(6, i),
    '10.0.0.0'::inet + (100 + i),
    ('02:00:00:00:' || lpad(to_hex(i / 256), 2, '0') || ':' || lpad(to_hex(i % 256), 2, '0'))::macaddr FROM launched;
INSERT INTO network_interface_security_groups (network_interface_id, security_group_id, vpc_id, account_id)
  SELECT pg_temp.i(7, i), pg_temp.i(4, v), pg_temp.i(1, v), pg_temp.i(9, 1) FROM launched;
INSERT INTO outbox (subject, subject_id) SELECT 'instance', pg_temp.i(6, i) FROM launched;
INSERT INTO outbox (subject, subject_id) SELECT DISTINCT 'vpc', pg_temp.i(1, v) FROM launched;
DROP TABLE launched;
