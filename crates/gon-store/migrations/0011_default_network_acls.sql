-- The default network ACL of a VPC has the VPC's number, as its first block has: whoever makes a VPC can name it in the same
-- breath. Those of VPCs that are there keep theirs. Forward only.

CREATE OR REPLACE FUNCTION network_acls_begin(vpc uuid, account uuid) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO network_acls (id, account_id, vpc_id, name, is_default) VALUES (vpc, account, vpc, 'default', true);
  INSERT INTO network_acl_entries (account_id, vpc_id, network_acl_id, direction, rule_number, action, cidr_block) VALUES
    (account, vpc, vpc, 'inbound', 100, 'allow', '0.0.0.0/0'), (account, vpc, vpc, 'outbound', 100, 'allow', '0.0.0.0/0');
END $$;
