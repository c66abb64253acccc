-- The network's objects, complete: further blocks of a VPC, main route tables that can be replaced, and network
-- interfaces that live without an instance and may have several addresses. Forward only.

-- ── Blocks of a VPC ────────────────────────────────────────────────────────────────────────────────────────────────
-- What a VPC may add to its first block (VPC user guide, "IPv4 CIDR block association restrictions"): from a private
-- range only more of the same one, never 172.31.0.0/16 or 198.19.0.0/16. Blocks are /16 at most, so each lies in a range
-- or beside it.
CREATE FUNCTION private_range(block cidr) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
  RETURN CASE WHEN block <<= '10.0.0.0/8'::cidr THEN '10' WHEN block <<= '172.16.0.0/12'::cidr THEN '172'
    WHEN block <<= '192.168.0.0/16'::cidr THEN '192' END;
CREATE FUNCTION vpc_block_may_join(first cidr, other cidr) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
  RETURN NOT other <<= '198.19.0.0/16'::cidr AND NOT (other <<= '172.31.0.0/16'::cidr)
    AND (private_range(other) IS NULL OR private_range(other) IS NOT DISTINCT FROM private_range(first));

-- Every block of every VPC. A VPC's first one, slot 0, comes and goes with it.
CREATE TABLE vpc_cidr_blocks (
  id uuid PRIMARY KEY,
  short_id text GENERATED ALWAYS AS (short_id(id)) STORED CONSTRAINT vpc_cidr_blocks_short_id_key UNIQUE,
  account_id uuid NOT NULL,
  vpc_id uuid NOT NULL,
  primary_cidr cidr NOT NULL,
  cidr_block cidr NOT NULL,
  slot smallint NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  deleted_at timestamptz,
  live boolean GENERATED ALWAYS AS (CASE WHEN deleted_at IS NULL THEN true END) STORED,
  CONSTRAINT vpc_cidr_blocks_range_check CHECK (family(cidr_block) = 4 AND masklen(cidr_block) BETWEEN 16 AND 28),
  -- EC2's quota: five blocks.
  CONSTRAINT vpc_cidr_blocks_limit_check CHECK (slot BETWEEN 0 AND 4),
  CONSTRAINT vpc_cidr_blocks_primary_check CHECK (slot <> 0 OR cidr_block = primary_cidr),
  CONSTRAINT vpc_cidr_blocks_restricted_check CHECK (slot = 0 OR vpc_block_may_join(primary_cidr, cidr_block)),
  CONSTRAINT vpc_cidr_blocks_vpc_fkey FOREIGN KEY (vpc_id, primary_cidr, account_id, live)
    REFERENCES vpcs (id, cidr_block, account_id, live) ON DELETE RESTRICT,
  CONSTRAINT vpc_cidr_blocks_no_overlap EXCLUDE USING gist (vpc_id WITH =, cidr_block inet_ops WITH &&)
    WHERE (deleted_at IS NULL),
  CONSTRAINT vpc_cidr_blocks_block_key UNIQUE (vpc_id, cidr_block, account_id, live));
CREATE UNIQUE INDEX vpc_cidr_blocks_slot_key ON vpc_cidr_blocks (vpc_id, slot) WHERE deleted_at IS NULL;
CREATE TRIGGER vpc_cidr_blocks_reserved BEFORE INSERT OR UPDATE OF cidr_block ON vpc_cidr_blocks
  FOR EACH ROW EXECUTE FUNCTION vpcs_check_reserved();

-- A block and a route that contradict each other: whoever adds either holds the VPC first, so that one sees the other.
CREATE FUNCTION vpc_cidr_blocks_check_routes() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  PERFORM 1 FROM vpcs WHERE id = NEW.vpc_id FOR NO KEY UPDATE;
  IF EXISTS (SELECT 1 FROM routes r WHERE r.vpc_id = NEW.vpc_id AND r.destination_cidr <<= NEW.cidr_block) THEN
    RAISE EXCEPTION 'a route leads elsewhere from block %', NEW.cidr_block
      USING ERRCODE = '23514', CONSTRAINT = 'vpc_cidr_blocks_route_check';
  END IF;
  RETURN NEW; END $$;
CREATE TRIGGER vpc_cidr_blocks_routes BEFORE INSERT ON vpc_cidr_blocks
  FOR EACH ROW EXECUTE FUNCTION vpc_cidr_blocks_check_routes();
CREATE FUNCTION routes_check_blocks() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  PERFORM 1 FROM vpcs WHERE id = NEW.vpc_id FOR NO KEY UPDATE;
  IF EXISTS (SELECT 1 FROM vpc_cidr_blocks b
             WHERE b.vpc_id = NEW.vpc_id AND b.deleted_at IS NULL AND NEW.destination_cidr <<= b.cidr_block) THEN
    RAISE EXCEPTION 'the local route serves %', NEW.destination_cidr
      USING ERRCODE = '23514', CONSTRAINT = 'routes_not_local_check';
  END IF;
  RETURN NEW; END $$;
CREATE TRIGGER routes_blocks BEFORE INSERT OR UPDATE OF destination_cidr ON routes
  FOR EACH ROW EXECUTE FUNCTION routes_check_blocks();

INSERT INTO vpc_cidr_blocks (id, account_id, vpc_id, primary_cidr, cidr_block, slot, created_at, deleted_at)
  SELECT id, account_id, id, cidr_block, cidr_block, 0, created_at, deleted_at FROM vpcs;
CREATE FUNCTION vpcs_begin_block() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO vpc_cidr_blocks (id, account_id, vpc_id, primary_cidr, cidr_block, slot)
    VALUES (NEW.id, NEW.account_id, NEW.id, NEW.cidr_block, NEW.cidr_block, 0);
  RETURN NULL; END $$;
CREATE TRIGGER vpcs_first_block AFTER INSERT ON vpcs FOR EACH ROW EXECUTE FUNCTION vpcs_begin_block();
-- Before, so that what is in the blocks refuses by its own name.
CREATE FUNCTION vpcs_end_blocks() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF NEW.deleted_at IS NOT NULL AND OLD.deleted_at IS NULL THEN
    UPDATE vpc_cidr_blocks SET deleted_at = NEW.deleted_at WHERE vpc_id = NEW.id AND deleted_at IS NULL;
  END IF;
  RETURN NEW; END $$;
CREATE TRIGGER vpcs_blocks BEFORE UPDATE OF deleted_at ON vpcs FOR EACH ROW EXECUTE FUNCTION vpcs_end_blocks();

-- `vpc_cidr` of a subnet is the block it lies in; of a table and a route it stays the VPC's first. The key to the VPC is
-- made, and so looked at, before the key to the block: whoever deletes the VPC holds them in this order, too.
ALTER TABLE subnets DROP CONSTRAINT subnets_vpc_fkey;
ALTER TABLE subnets ADD CONSTRAINT subnets_vpc_fkey FOREIGN KEY (vpc_id, account_id, live)
  REFERENCES vpcs (id, account_id, live) ON DELETE RESTRICT;
ALTER TABLE subnets ADD CONSTRAINT subnets_block_fkey FOREIGN KEY (vpc_id, vpc_cidr, account_id, live)
  REFERENCES vpc_cidr_blocks (vpc_id, cidr_block, account_id, live) ON DELETE RESTRICT;

-- ── Main route tables ──────────────────────────────────────────────────────────────────────────────────────────────
-- A main table has an association too: with the VPC. Replacing the main table gives a new one, as EC2 does.
ALTER TABLE route_tables ADD COLUMN main_association_id uuid;
UPDATE route_tables SET main_association_id = gen_random_uuid() WHERE is_main;
ALTER TABLE route_tables
  ADD COLUMN main_association_short_id text GENERATED ALWAYS AS (short_id(main_association_id)) STORED
    CONSTRAINT route_tables_main_association_short_id_key UNIQUE;
CREATE FUNCTION route_tables_mark_main() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  NEW.main_association_id := CASE WHEN NEW.is_main THEN coalesce(NEW.main_association_id, gen_random_uuid()) END;
  RETURN NEW; END $$;
CREATE TRIGGER route_tables_main BEFORE INSERT OR UPDATE OF is_main, main_association_id ON route_tables
  FOR EACH ROW EXECUTE FUNCTION route_tables_mark_main();
-- Whatever a transaction does on its way, it ends with a main table for every VPC that had one.
CREATE FUNCTION route_tables_check_main() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF EXISTS (SELECT 1 FROM vpcs v WHERE v.id = OLD.vpc_id AND v.deleted_at IS NULL)
     AND NOT EXISTS (SELECT 1 FROM route_tables t WHERE t.vpc_id = OLD.vpc_id AND t.is_main AND t.deleted_at IS NULL) THEN
    RAISE EXCEPTION 'VPC % would have no main route table', OLD.vpc_id
      USING ERRCODE = '23514', CONSTRAINT = 'route_tables_main_stays';
  END IF;
  RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER route_tables_main_stays AFTER UPDATE OF is_main, deleted_at ON route_tables
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (OLD.is_main AND OLD.deleted_at IS NULL)
  EXECUTE FUNCTION route_tables_check_main();

-- ── Interfaces ─────────────────────────────────────────────────────────────────────────────────────────────────────
ALTER TABLE network_interfaces
  ALTER COLUMN instance_id DROP NOT NULL,
  ALTER COLUMN device_index DROP NOT NULL,
  ADD COLUMN description text NOT NULL DEFAULT '' CONSTRAINT network_interfaces_description_check
    CHECK (length(description) <= 255 AND description !~ '[[:cntrl:]]'),
  ADD COLUMN attachment_id uuid DEFAULT gen_random_uuid(),
  ADD COLUMN attached_at timestamptz DEFAULT now(),
  ADD COLUMN delete_on_termination boolean NOT NULL DEFAULT true,
  ADD COLUMN updated_at timestamptz NOT NULL DEFAULT now();
ALTER TABLE network_interfaces
  ADD COLUMN attachment_short_id text GENERATED ALWAYS AS (short_id(attachment_id)) STORED
    CONSTRAINT network_interfaces_attachment_short_id_key UNIQUE,
  ADD CONSTRAINT network_interfaces_attached_check CHECK ((instance_id IS NULL) = (device_index IS NULL)
    AND (instance_id IS NULL) = (attachment_id IS NULL) AND (instance_id IS NULL) = (attached_at IS NULL)),
  ADD CONSTRAINT network_interfaces_unplaced_check CHECK (instance_id IS NOT NULL OR node_id IS NULL),
  ADD CONSTRAINT network_interfaces_id_subnet_key UNIQUE (id, subnet_id, subnet_cidr, vpc_id, account_id, live);
CREATE INDEX network_interfaces_account_idx ON network_interfaces (account_id, id) WHERE deleted_at IS NULL;

-- An interface comes and goes while its instance is stopped, in the instance's zone; the primary one stays for life.
CREATE FUNCTION network_interfaces_check_attachment() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE
  host instances;
BEGIN
  IF NEW.deleted_at IS NOT NULL OR (NEW.instance_id, NEW.device_index) IS NOT DISTINCT FROM (OLD.instance_id, OLD.device_index) THEN
    RETURN NEW;
  END IF;
  SELECT * INTO host FROM instances WHERE id = coalesce(OLD.instance_id, NEW.instance_id) FOR SHARE;
  IF OLD.device_index = 0 AND host.state NOT IN ('shutting-down', 'terminated') THEN
    RAISE EXCEPTION 'interface % is the primary one of its instance', OLD.id
      USING ERRCODE = '23514', CONSTRAINT = 'network_interfaces_primary_stays';
  END IF;
  IF OLD.instance_id IS NOT NULL AND NEW.instance_id IS NOT NULL THEN
    RAISE EXCEPTION 'interface % is attached already', OLD.id
      USING ERRCODE = '23514', CONSTRAINT = 'network_interfaces_in_use';
  END IF;
  IF host.id IS NOT NULL AND host.state <> 'stopped'
     AND NOT (NEW.instance_id IS NULL AND host.state IN ('shutting-down', 'terminated')) THEN
    RAISE EXCEPTION 'instance % is not stopped', host.id
      USING ERRCODE = '23514', CONSTRAINT = 'network_interfaces_instance_stopped';
  END IF;
  IF host.id IS NOT NULL AND NEW.instance_id IS NOT NULL AND EXISTS (
       SELECT 1 FROM subnets mine, subnets its WHERE mine.id = NEW.subnet_id AND its.id = host.subnet_id
         AND mine.availability_zone <> its.availability_zone) THEN
    RAISE EXCEPTION 'interface % is in another zone', OLD.id
      USING ERRCODE = '23514', CONSTRAINT = 'network_interfaces_same_zone';
  END IF;
  RETURN NEW; END $$;
CREATE TRIGGER network_interfaces_attachment BEFORE UPDATE OF instance_id, device_index ON network_interfaces
  FOR EACH ROW EXECUTE FUNCTION network_interfaces_check_attachment();

-- Every address of every interface, the primary one included: an address is one interface's, whichever kind it is.
CREATE TABLE interface_addresses (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  account_id uuid NOT NULL,
  vpc_id uuid NOT NULL,
  subnet_id uuid NOT NULL,
  subnet_cidr cidr NOT NULL,
  network_interface_id uuid NOT NULL,
  private_ip inet NOT NULL,
  is_primary boolean NOT NULL DEFAULT false,
  created_at timestamptz NOT NULL DEFAULT now(),
  deleted_at timestamptz,
  live boolean GENERATED ALWAYS AS (CASE WHEN deleted_at IS NULL THEN true END) STORED,
  CONSTRAINT interface_addresses_range_check CHECK (
    family(private_ip) = 4 AND masklen(private_ip) = 32 AND private_ip << subnet_cidr
    AND private_ip > set_masklen(network(subnet_cidr)::inet, 32) + 3
    AND private_ip < set_masklen(broadcast(subnet_cidr)::inet, 32)),
  CONSTRAINT interface_addresses_interface_fkey
    FOREIGN KEY (network_interface_id, subnet_id, subnet_cidr, vpc_id, account_id, live)
    REFERENCES network_interfaces (id, subnet_id, subnet_cidr, vpc_id, account_id, live) ON DELETE CASCADE);
INSERT INTO interface_addresses (account_id, vpc_id, subnet_id, subnet_cidr, network_interface_id, private_ip, is_primary,
    created_at, deleted_at)
  SELECT account_id, vpc_id, subnet_id, subnet_cidr, id, private_ip, true, created_at, deleted_at FROM network_interfaces;
CREATE UNIQUE INDEX interface_addresses_private_ip_key ON interface_addresses (subnet_id, private_ip)
  WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX interface_addresses_primary_key ON interface_addresses (network_interface_id)
  WHERE is_primary AND deleted_at IS NULL;
CREATE INDEX interface_addresses_interface_idx ON interface_addresses (network_interface_id) WHERE deleted_at IS NULL;
CREATE INDEX interface_addresses_vpc_idx ON interface_addresses (vpc_id) WHERE deleted_at IS NULL;
CREATE INDEX interface_addresses_quarantine_idx ON interface_addresses (subnet_id, private_ip, deleted_at)
  WHERE deleted_at IS NOT NULL;

-- At most sixteen: what the largest of our types would have at EC2, whatever the type.
CREATE FUNCTION interface_addresses_check_number() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  PERFORM 1 FROM network_interfaces WHERE id = NEW.network_interface_id FOR NO KEY UPDATE;
  IF (SELECT count(*) FROM interface_addresses a
      WHERE a.network_interface_id = NEW.network_interface_id AND a.deleted_at IS NULL) >= 16 THEN
    RAISE EXCEPTION 'interface % has no room for another address', NEW.network_interface_id
      USING ERRCODE = '23514', CONSTRAINT = 'interface_addresses_limit';
  END IF;
  RETURN NEW; END $$;
CREATE TRIGGER interface_addresses_number BEFORE INSERT ON interface_addresses
  FOR EACH ROW WHEN (NOT NEW.is_primary) EXECUTE FUNCTION interface_addresses_check_number();

CREATE FUNCTION network_interfaces_keep_primary() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF TG_OP = 'INSERT' THEN
    INSERT INTO interface_addresses (account_id, vpc_id, subnet_id, subnet_cidr, network_interface_id, private_ip,
        is_primary, deleted_at)
      VALUES (NEW.account_id, NEW.vpc_id, NEW.subnet_id, NEW.subnet_cidr, NEW.id, NEW.private_ip, true, NEW.deleted_at);
  ELSIF NEW.private_ip <> OLD.private_ip THEN
    UPDATE interface_addresses SET private_ip = NEW.private_ip
      WHERE network_interface_id = NEW.id AND is_primary AND deleted_at IS NULL;
  END IF;
  RETURN NULL; END $$;
CREATE TRIGGER network_interfaces_primary_address AFTER INSERT OR UPDATE OF private_ip ON network_interfaces
  FOR EACH ROW EXECUTE FUNCTION network_interfaces_keep_primary();
CREATE FUNCTION network_interfaces_end_addresses() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF NEW.deleted_at IS NOT NULL AND OLD.deleted_at IS NULL THEN
    UPDATE interface_addresses SET deleted_at = NEW.deleted_at
      WHERE network_interface_id = NEW.id AND deleted_at IS NULL;
  END IF;
  RETURN NEW; END $$;
CREATE TRIGGER network_interfaces_addresses BEFORE UPDATE OF deleted_at ON network_interfaces
  FOR EACH ROW EXECUTE FUNCTION network_interfaces_end_addresses();

-- ── Default VPCs ───────────────────────────────────────────────────────────────────────────────────────────────────
ALTER TABLE vpcs ADD COLUMN is_default boolean NOT NULL DEFAULT false;
CREATE UNIQUE INDEX vpcs_default_key ON vpcs (account_id) WHERE is_default AND deleted_at IS NULL;
ALTER TABLE subnets ADD COLUMN default_for_az boolean NOT NULL DEFAULT false;
CREATE UNIQUE INDEX subnets_default_key ON subnets (vpc_id, availability_zone)
  WHERE default_for_az AND deleted_at IS NULL;
