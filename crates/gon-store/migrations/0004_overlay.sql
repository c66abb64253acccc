-- The overlay: where each node's end of the tunnels is, and how much fits through. Forward only.

ALTER TABLE nodes
  -- As its network agent last reported it: tunnels really end there. NULL: none.
  ADD COLUMN overlay_address inet CONSTRAINT nodes_overlay_address_check
    CHECK (family(overlay_address) = 4 AND masklen(overlay_address) = 32),
  -- MTU of the underlay there. Less than this leaves guests no 576 bytes (RFC 791's least for a host).
  ADD COLUMN overlay_mtu integer CONSTRAINT nodes_overlay_mtu_check CHECK (overlay_mtu BETWEEN 626 AND 65535),
  ADD CONSTRAINT nodes_overlay_check CHECK ((overlay_address IS NULL) = (overlay_mtu IS NULL));
-- Two nodes of one address would each get the other's packets.
CREATE UNIQUE INDEX nodes_overlay_address_key ON nodes (overlay_address) WHERE removed_at IS NULL;

-- A key (VNI) is a VPC's for ever: the sequence never gives one twice, a deleted VPC keeps its row's while it is described,
-- and none is changed. So packets of an old tunnel never reach a new VPC, however late, and no quarantine is needed.
ALTER TABLE vpcs ADD CONSTRAINT vpcs_key_check CHECK (key BETWEEN 1 AND 16777215);
CREATE FUNCTION vpcs_keep_key() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF NEW.key <> OLD.key THEN
    RAISE EXCEPTION 'the network key of VPC % is fixed', OLD.id USING ERRCODE = '23514', CONSTRAINT = 'vpcs_key_fixed';
  END IF;
  RETURN NEW; END $$;
CREATE TRIGGER vpcs_key BEFORE UPDATE OF key ON vpcs FOR EACH ROW EXECUTE FUNCTION vpcs_keep_key();
