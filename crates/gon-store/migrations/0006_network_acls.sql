-- Network ACLs: what may cross the edge of a subnet. Every VPC has a default one, which comes and goes with it; every live
-- subnet has exactly one at any time, the default one unless another is said. Forward only.

-- A time-ordered id for what comes along with something else.
CREATE FUNCTION new_id() RETURNS uuid LANGUAGE sql VOLATILE AS $$
  SELECT encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid())
      placing substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3) FROM 1 FOR 6), 52, 1), 53, 1),
    'hex')::uuid $$;

CREATE TYPE acl_action AS ENUM ('allow', 'deny');

CREATE TABLE network_acls (
  id uuid PRIMARY KEY,
  short_id text GENERATED ALWAYS AS (short_id(id)) STORED CONSTRAINT network_acls_short_id_key UNIQUE,
  account_id uuid NOT NULL,
  vpc_id uuid NOT NULL,
  name display_name NOT NULL,
  is_default boolean NOT NULL DEFAULT false,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  deleted_at timestamptz,
  live boolean GENERATED ALWAYS AS (CASE WHEN deleted_at IS NULL THEN true END) STORED,
  CONSTRAINT network_acls_vpc_fkey FOREIGN KEY (vpc_id, account_id, live)
    REFERENCES vpcs (id, account_id, live) ON DELETE RESTRICT,
  CONSTRAINT network_acls_id_vpc_key UNIQUE (id, vpc_id, account_id, live));
CREATE UNIQUE INDEX network_acls_default_key ON network_acls (vpc_id) WHERE is_default AND deleted_at IS NULL;
CREATE INDEX network_acls_vpc_idx ON network_acls (vpc_id, id) WHERE deleted_at IS NULL;
CREATE INDEX network_acls_account_idx ON network_acls (account_id, id) WHERE deleted_at IS NULL;

-- Totally ordered by their numbers in each direction. The last word, EC2's `*` (32767), is nobody's to change and not stored.
CREATE TABLE network_acl_entries (
  account_id uuid NOT NULL,
  vpc_id uuid NOT NULL,
  network_acl_id uuid NOT NULL,
  direction rule_direction NOT NULL,
  rule_number integer NOT NULL CONSTRAINT network_acl_entries_number_check CHECK (rule_number BETWEEN 1 AND 32766),
  action acl_action NOT NULL,
  -- IP protocol number; NULL is every protocol.
  protocol smallint CONSTRAINT network_acl_entries_protocol_check CHECK (protocol BETWEEN 1 AND 255),
  -- Destination ports, upper bound exclusive as PostgreSQL normalises it; present exactly for TCP and UDP.
  port_range int4range,
  icmp_type smallint,
  icmp_code smallint,
  -- The source of what comes in, the destination of what goes out.
  cidr_block cidr NOT NULL CONSTRAINT network_acl_entries_family_check CHECK (family(cidr_block) = 4),
  live boolean NOT NULL DEFAULT true CHECK (live),
  created_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT network_acl_entries_key PRIMARY KEY (network_acl_id, direction, rule_number),
  CONSTRAINT network_acl_entries_acl_fkey FOREIGN KEY (network_acl_id, vpc_id, account_id, live)
    REFERENCES network_acls (id, vpc_id, account_id, live) ON DELETE RESTRICT,
  CONSTRAINT network_acl_entries_ports_check CHECK (coalesce(protocol IN (6, 17), false) = (port_range IS NOT NULL)),
  CONSTRAINT network_acl_entries_port_range_check
    CHECK (port_range IS NULL OR (NOT isempty(port_range) AND port_range <@ int4range(0, 65536))),
  CONSTRAINT network_acl_entries_icmp_check CHECK (
    (coalesce(protocol = 1, false) OR (icmp_type IS NULL AND icmp_code IS NULL))
    AND (icmp_type IS NULL OR icmp_type BETWEEN 0 AND 255)
    AND (icmp_code IS NULL OR (icmp_type IS NOT NULL AND icmp_code BETWEEN 0 AND 255))));

CREATE TABLE network_acl_associations (
  id uuid PRIMARY KEY,
  short_id text GENERATED ALWAYS AS (short_id(id)) STORED CONSTRAINT network_acl_associations_short_id_key UNIQUE,
  account_id uuid NOT NULL,
  vpc_id uuid NOT NULL,
  network_acl_id uuid NOT NULL,
  subnet_id uuid NOT NULL CONSTRAINT network_acl_associations_subnet_key UNIQUE,
  live boolean NOT NULL DEFAULT true CHECK (live),
  created_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT network_acl_associations_acl_fkey FOREIGN KEY (network_acl_id, vpc_id, account_id, live)
    REFERENCES network_acls (id, vpc_id, account_id, live) ON DELETE RESTRICT,
  CONSTRAINT network_acl_associations_subnet_fkey FOREIGN KEY (subnet_id, vpc_id, account_id, live)
    REFERENCES subnets (id, vpc_id, account_id, live) ON DELETE RESTRICT);
CREATE INDEX network_acl_associations_acl_idx ON network_acl_associations (network_acl_id);

-- ── What comes and goes along ──────────────────────────────────────────────────────────────────────────────────────
CREATE FUNCTION network_acls_begin(vpc uuid, account uuid) RETURNS void LANGUAGE plpgsql AS $$ DECLARE
  acl uuid := new_id();
BEGIN
  INSERT INTO network_acls (id, account_id, vpc_id, name, is_default) VALUES (acl, account, vpc, 'default', true);
  INSERT INTO network_acl_entries (account_id, vpc_id, network_acl_id, direction, rule_number, action, cidr_block) VALUES
    (account, vpc, acl, 'inbound', 100, 'allow', '0.0.0.0/0'), (account, vpc, acl, 'outbound', 100, 'allow', '0.0.0.0/0');
END $$;

CREATE FUNCTION vpcs_begin_acl() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  PERFORM network_acls_begin(NEW.id, NEW.account_id);
  RETURN NULL; END $$;
CREATE FUNCTION subnets_begin_acl() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO network_acl_associations (id, account_id, vpc_id, network_acl_id, subnet_id)
    SELECT new_id(), NEW.account_id, NEW.vpc_id, a.id, NEW.id FROM network_acls a
    WHERE a.vpc_id = NEW.vpc_id AND a.is_default AND a.deleted_at IS NULL;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'VPC % has no default network ACL', NEW.vpc_id
      USING ERRCODE = '23514', CONSTRAINT = 'subnets_network_acl_check';
  END IF;
  RETURN NULL; END $$;
-- Before, so that another ACL of the VPC refuses by the name of its foreign key.
CREATE FUNCTION vpcs_end_acl() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF NEW.deleted_at IS NOT NULL AND OLD.deleted_at IS NULL THEN
    DELETE FROM network_acl_entries e USING network_acls a
      WHERE a.vpc_id = NEW.id AND a.is_default AND a.deleted_at IS NULL AND e.network_acl_id = a.id;
    UPDATE network_acls SET deleted_at = NEW.deleted_at WHERE vpc_id = NEW.id AND is_default AND deleted_at IS NULL;
  END IF;
  RETURN NEW; END $$;
CREATE FUNCTION subnets_end_acl() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF NEW.deleted_at IS NOT NULL AND OLD.deleted_at IS NULL THEN
    DELETE FROM network_acl_associations WHERE subnet_id = NEW.id;
  END IF;
  RETURN NEW; END $$;

-- Those that are there.
SELECT network_acls_begin(id, account_id) FROM vpcs WHERE deleted_at IS NULL ORDER BY id;
INSERT INTO network_acl_associations (id, account_id, vpc_id, network_acl_id, subnet_id)
  SELECT new_id(), s.account_id, s.vpc_id, a.id, s.id
  FROM subnets s JOIN network_acls a ON a.vpc_id = s.vpc_id AND a.is_default WHERE s.deleted_at IS NULL ORDER BY s.id;

CREATE TRIGGER vpcs_default_acl AFTER INSERT ON vpcs
  FOR EACH ROW WHEN (NEW.deleted_at IS NULL) EXECUTE FUNCTION vpcs_begin_acl();
-- By its name after those of the VPC's blocks, so that subnets refuse by theirs.
CREATE TRIGGER vpcs_end_acl BEFORE UPDATE OF deleted_at ON vpcs FOR EACH ROW EXECUTE FUNCTION vpcs_end_acl();
CREATE TRIGGER subnets_default_acl AFTER INSERT ON subnets
  FOR EACH ROW WHEN (NEW.deleted_at IS NULL) EXECUTE FUNCTION subnets_begin_acl();
CREATE TRIGGER subnets_acl BEFORE UPDATE OF deleted_at ON subnets FOR EACH ROW EXECUTE FUNCTION subnets_end_acl();

-- ── What stays ─────────────────────────────────────────────────────────────────────────────────────────────────────
-- Whatever a transaction does on its way, it ends with an ACL for every live subnet and a default one for every live VPC.
CREATE FUNCTION network_acl_associations_check() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF EXISTS (SELECT 1 FROM subnets s WHERE s.id = OLD.subnet_id AND s.deleted_at IS NULL)
     AND NOT EXISTS (SELECT 1 FROM network_acl_associations a WHERE a.subnet_id = OLD.subnet_id) THEN
    RAISE EXCEPTION 'subnet % would have no network ACL', OLD.subnet_id
      USING ERRCODE = '23514', CONSTRAINT = 'network_acl_associations_subnet_stays';
  END IF;
  RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER network_acl_associations_subnet_stays AFTER DELETE OR UPDATE OF subnet_id ON network_acl_associations
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION network_acl_associations_check();
CREATE FUNCTION network_acls_check_default() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF EXISTS (SELECT 1 FROM vpcs v WHERE v.id = OLD.vpc_id AND v.deleted_at IS NULL) AND NOT EXISTS (
      SELECT 1 FROM network_acls a WHERE a.vpc_id = OLD.vpc_id AND a.is_default AND a.deleted_at IS NULL) THEN
    RAISE EXCEPTION 'VPC % would have no default network ACL', OLD.vpc_id
      USING ERRCODE = '23514', CONSTRAINT = 'network_acls_default_stays';
  END IF;
  RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER network_acls_default_stays AFTER DELETE OR UPDATE OF is_default, deleted_at ON network_acls
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (OLD.is_default AND OLD.deleted_at IS NULL)
  EXECUTE FUNCTION network_acls_check_default();
