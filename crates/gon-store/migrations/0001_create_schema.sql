-- The specification's tables (§4.1), corrected: time zones, NOT NULL, typed ranges and peers, owners in every foreign
-- key, generations, and deletion as a state. PostgreSQL 14 is the floor.
--
-- How deletion is kept honest: a row that can be deleted has `deleted_at` and the generated column `live` (true or
-- NULL). A child's foreign key contains its own `live`, so a live child needs a live parent, a parent with live
-- children cannot be deleted, and neither can race the other. Constraint names are part of the interface: the service
-- maps them to EC2's error codes.

CREATE EXTENSION IF NOT EXISTS btree_gist;
CREATE EXTENSION IF NOT EXISTS citext;

CREATE TYPE user_role AS ENUM ('admin', 'member');
CREATE TYPE vpc_state AS ENUM ('pending', 'available');
CREATE TYPE instance_state AS ENUM ('pending', 'running', 'stopping', 'stopped', 'shutting-down', 'terminated');
CREATE TYPE instance_power AS ENUM ('running', 'stopped', 'terminated');
CREATE TYPE rule_direction AS ENUM ('inbound', 'outbound');
CREATE TYPE rule_protocol AS ENUM ('all', 'tcp', 'udp', 'icmp');
CREATE TYPE image_kind AS ENUM ('initramfs', 'disk');
CREATE TYPE route_target AS ENUM ('gateway', 'instance');

-- The last 17 hex digits of an id, as people see them after the prefix.
CREATE FUNCTION short_id(id uuid) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
  RETURN right(replace(id::text, '-', ''), 17);

-- A name that can be printed anywhere. The full rule is gon_types::Name.
CREATE DOMAIN display_name AS text
  CHECK (length(VALUE) BETWEEN 1 AND 100 AND VALUE !~ '[[:cntrl:]]');

-- The site: exactly one row, so that a restore of another cluster's data is noticed.
CREATE TABLE site (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  cluster_id uuid NOT NULL DEFAULT gen_random_uuid(),
  created_at timestamptz NOT NULL DEFAULT now());
INSERT INTO site DEFAULT VALUES;

-- Who leads a role. Every take-over raises the epoch; documents carry it and agents refuse lower ones.
CREATE TABLE leader_epochs (
  role text PRIMARY KEY CHECK (role ~ '^[a-z-]{1,40}$'),
  epoch bigint NOT NULL CHECK (epoch > 0),
  holder text NOT NULL,
  taken_at timestamptz NOT NULL DEFAULT now());

-- ── Tenancy ────────────────────────────────────────────────────────────────────────────────────────────────────────
CREATE TABLE accounts (
  id uuid PRIMARY KEY,
  short_id text GENERATED ALWAYS AS (short_id(id)) STORED CONSTRAINT accounts_short_id_key UNIQUE,
  name citext NOT NULL CONSTRAINT accounts_name_key UNIQUE CHECK (name ~ '^[a-z0-9][a-z0-9._-]{0,49}$'),
  created_at timestamptz NOT NULL DEFAULT now());

CREATE TABLE users (
  id uuid PRIMARY KEY,
  short_id text GENERATED ALWAYS AS (short_id(id)) STORED CONSTRAINT users_short_id_key UNIQUE,
  account_id uuid NOT NULL CONSTRAINT users_account_fkey REFERENCES accounts ON DELETE RESTRICT,
  username citext NOT NULL CONSTRAINT users_username_key UNIQUE CHECK (username ~ '^[a-z0-9][a-z0-9._-]{0,49}$'),
  email citext NOT NULL CONSTRAINT users_email_key UNIQUE CHECK (length(email) BETWEEN 3 AND 100),
  password_hash text NOT NULL CHECK (password_hash LIKE '$argon2id$%' AND length(password_hash) <= 255),
  role user_role NOT NULL DEFAULT 'member',
  -- Raising it revokes every token issued before.
  token_epoch bigint NOT NULL DEFAULT 0,
  disabled_at timestamptz,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT users_id_account_key UNIQUE (id, account_id));

-- Refresh tokens: hashed, rotating; using one twice revokes its whole family.
CREATE TABLE refresh_tokens (
  token_sha256 bytea PRIMARY KEY CHECK (octet_length(token_sha256) = 32),
  user_id uuid NOT NULL CONSTRAINT refresh_tokens_user_fkey REFERENCES users ON DELETE CASCADE,
  family uuid NOT NULL,
  expires_at timestamptz NOT NULL,
  used_at timestamptz,
  revoked_at timestamptz,
  created_at timestamptz NOT NULL DEFAULT now());
CREATE INDEX refresh_tokens_family_idx ON refresh_tokens (family);
CREATE INDEX refresh_tokens_user_idx ON refresh_tokens (user_id);

-- ── Nodes and what they offer ──────────────────────────────────────────────────────────────────────────────────────
CREATE TABLE nodes (
  id uuid PRIMARY KEY,
  short_id text GENERATED ALWAYS AS (short_id(id)) STORED CONSTRAINT nodes_short_id_key UNIQUE,
  name text NOT NULL CONSTRAINT nodes_name_key UNIQUE CHECK (name ~ '^[a-z0-9][a-z0-9.-]{0,49}$'),
  availability_zone text NOT NULL CHECK (availability_zone ~ '^[a-z0-9-]{1,19}[a-z]$'),
  -- Raised when the node is declared dead: the fencing token.
  epoch bigint NOT NULL DEFAULT 1 CHECK (epoch > 0),
  schedulable boolean NOT NULL DEFAULT true,
  capacity_vcpus integer NOT NULL CHECK (capacity_vcpus >= 0),
  capacity_memory_mib bigint NOT NULL CHECK (capacity_memory_mib >= 0),
  capacity_disk_gib bigint NOT NULL CHECK (capacity_disk_gib >= 0),
  used_vcpus integer NOT NULL DEFAULT 0,
  used_memory_mib bigint NOT NULL DEFAULT 0,
  used_disk_gib bigint NOT NULL DEFAULT 0,
  accelerator text NOT NULL CHECK (accelerator IN ('kvm', 'tcg')),
  ovs_datapath text NOT NULL CHECK (ovs_datapath IN ('system', 'netdev')),
  versions jsonb NOT NULL DEFAULT '{}',
  -- Image name to recipe digest, as the node last reported.
  images jsonb NOT NULL DEFAULT '{}',
  -- The numbers given last: the next ones are above them, so that one which was just freed rests.
  last_port_no integer NOT NULL DEFAULT 15,
  last_run_as_uid integer NOT NULL DEFAULT 599999,
  last_report_at timestamptz NOT NULL DEFAULT now(),
  created_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT nodes_not_negative CHECK (used_vcpus >= 0 AND used_memory_mib >= 0 AND used_disk_gib >= 0));

-- Lending more than a node has is refused; shrinking a node below what it has lent is a fact to record, not to refuse.
CREATE FUNCTION nodes_check_capacity() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF (NEW.used_vcpus > OLD.used_vcpus AND NEW.used_vcpus > NEW.capacity_vcpus)
     OR (NEW.used_memory_mib > OLD.used_memory_mib AND NEW.used_memory_mib > NEW.capacity_memory_mib)
     OR (NEW.used_disk_gib > OLD.used_disk_gib AND NEW.used_disk_gib > NEW.capacity_disk_gib) THEN
    RAISE EXCEPTION 'node % has no capacity left', NEW.name USING ERRCODE = '23514', CONSTRAINT = 'nodes_capacity_check';
  END IF;
  IF NEW.epoch < OLD.epoch THEN
    RAISE EXCEPTION 'node epoch went backwards' USING ERRCODE = '23514', CONSTRAINT = 'nodes_epoch_check';
  END IF;
  RETURN NEW; END $$;
CREATE TRIGGER nodes_capacity BEFORE UPDATE ON nodes FOR EACH ROW EXECUTE FUNCTION nodes_check_capacity();

CREATE TABLE images (
  id uuid PRIMARY KEY,
  short_id text GENERATED ALWAYS AS (short_id(id)) STORED CONSTRAINT images_short_id_key UNIQUE,
  -- NULL: everybody's.
  account_id uuid CONSTRAINT images_account_fkey REFERENCES accounts ON DELETE RESTRICT,
  name text NOT NULL CHECK (name ~ '^[a-z0-9][a-z0-9.-]{0,99}$'),
  description text NOT NULL DEFAULT '',
  kind image_kind NOT NULL,
  architecture text NOT NULL DEFAULT 'x86_64',
  -- The recipe digest of the manifest: another digest is another image.
  digest text NOT NULL CHECK (digest ~ '^[0-9a-f]{64}$'),
  min_memory_mib integer NOT NULL CHECK (min_memory_mib > 0),
  -- Virtual size of the root disk, GiB, rounded up; 0 for images that run from memory.
  disk_gib integer NOT NULL CHECK (disk_gib >= 0),
  created_at timestamptz NOT NULL DEFAULT now(),
  deleted_at timestamptz);
CREATE UNIQUE INDEX images_name_digest_key ON images (name, digest) WHERE deleted_at IS NULL;

CREATE TABLE key_pairs (
  id uuid PRIMARY KEY,
  short_id text GENERATED ALWAYS AS (short_id(id)) STORED CONSTRAINT key_pairs_short_id_key UNIQUE,
  account_id uuid NOT NULL CONSTRAINT key_pairs_account_fkey REFERENCES accounts ON DELETE RESTRICT,
  name display_name NOT NULL,
  key_type text NOT NULL CHECK (key_type IN ('ed25519', 'rsa', 'ecdsa')),
  fingerprint text NOT NULL,
  public_key text NOT NULL CHECK (length(public_key) <= 16384 AND public_key !~ '[[:cntrl:]]'),
  created_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT key_pairs_name_key UNIQUE (account_id, name));

-- ── VPCs ───────────────────────────────────────────────────────────────────────────────────────────────────────────
-- Ranges no tenant may take, each with its reason: link-local, loopback, multicast, and what the site adds.
CREATE TABLE reserved_cidrs (cidr cidr PRIMARY KEY, why text NOT NULL);
INSERT INTO reserved_cidrs VALUES
  ('0.0.0.0/8', 'this network (RFC 1122)'), ('127.0.0.0/8', 'loopback (RFC 1122)'),
  ('169.254.0.0/16', 'link-local: metadata and other local services (RFC 3927)'),
  ('224.0.0.0/4', 'multicast (RFC 5771)'), ('240.0.0.0/4', 'reserved (RFC 1112)');

CREATE SEQUENCE vpc_keys MINVALUE 1 MAXVALUE 16777215 NO CYCLE;

CREATE TABLE vpcs (
  id uuid PRIMARY KEY,
  short_id text GENERATED ALWAYS AS (short_id(id)) STORED CONSTRAINT vpcs_short_id_key UNIQUE,
  account_id uuid NOT NULL CONSTRAINT vpcs_account_fkey REFERENCES accounts ON DELETE RESTRICT,
  user_id uuid NOT NULL,
  name display_name NOT NULL,
  cidr_block cidr NOT NULL CONSTRAINT vpcs_cidr_block_check
    CHECK (family(cidr_block) = 4 AND masklen(cidr_block) BETWEEN 16 AND 28),
  -- Network key (VNI). Never re-used while the sequence lasts.
  key integer NOT NULL DEFAULT nextval('vpc_keys') CONSTRAINT vpcs_key_key UNIQUE,
  state vpc_state NOT NULL DEFAULT 'pending',
  -- Counts every change its packets depend on.
  generation bigint NOT NULL DEFAULT 1 CHECK (generation > 0),
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  deleted_at timestamptz,
  live boolean GENERATED ALWAYS AS (CASE WHEN deleted_at IS NULL THEN true END) STORED,
  CONSTRAINT vpcs_user_fkey FOREIGN KEY (user_id, account_id) REFERENCES users (id, account_id) ON DELETE RESTRICT,
  CONSTRAINT vpcs_id_owner_key UNIQUE (id, account_id, live),
  CONSTRAINT vpcs_id_block_key UNIQUE (id, cidr_block, account_id, live));
CREATE INDEX vpcs_account_idx ON vpcs (account_id, id) WHERE deleted_at IS NULL;

CREATE FUNCTION vpcs_check_reserved() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$ BEGIN
  IF EXISTS (SELECT 1 FROM reserved_cidrs r WHERE r.cidr && NEW.cidr_block) THEN
    RAISE EXCEPTION 'block % is reserved', NEW.cidr_block USING ERRCODE = '23514', CONSTRAINT = 'vpcs_cidr_block_reserved';
  END IF; RETURN NEW; END $$;
CREATE TRIGGER vpcs_reserved BEFORE INSERT OR UPDATE OF cidr_block ON vpcs FOR EACH ROW EXECUTE FUNCTION vpcs_check_reserved();

-- What each node has in force of each VPC: the other half of "applied n/n".
CREATE TABLE vpc_nodes (
  vpc_id uuid NOT NULL CONSTRAINT vpc_nodes_vpc_fkey REFERENCES vpcs ON DELETE RESTRICT,
  node_id uuid NOT NULL CONSTRAINT vpc_nodes_node_fkey REFERENCES nodes ON DELETE RESTRICT,
  applied_generation bigint NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (vpc_id, node_id));

CREATE TABLE subnets (
  id uuid PRIMARY KEY,
  short_id text GENERATED ALWAYS AS (short_id(id)) STORED CONSTRAINT subnets_short_id_key UNIQUE,
  account_id uuid NOT NULL,
  vpc_id uuid NOT NULL,
  vpc_cidr cidr NOT NULL,
  name display_name NOT NULL,
  cidr_block cidr NOT NULL,
  availability_zone text NOT NULL CHECK (length(availability_zone) <= 20),
  map_public_ip_on_launch boolean NOT NULL DEFAULT false,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  deleted_at timestamptz,
  live boolean GENERATED ALWAYS AS (CASE WHEN deleted_at IS NULL THEN true END) STORED,
  CONSTRAINT subnets_cidr_block_check CHECK (masklen(cidr_block) BETWEEN 16 AND 28),
  CONSTRAINT subnets_inside_vpc_check CHECK (cidr_block <<= vpc_cidr),
  CONSTRAINT subnets_vpc_fkey FOREIGN KEY (vpc_id, vpc_cidr, account_id, live)
    REFERENCES vpcs (id, cidr_block, account_id, live) ON DELETE RESTRICT,
  CONSTRAINT subnets_no_overlap EXCLUDE USING gist (vpc_id WITH =, cidr_block inet_ops WITH &&) WHERE (deleted_at IS NULL),
  CONSTRAINT subnets_id_vpc_key UNIQUE (id, vpc_id, account_id, live),
  CONSTRAINT subnets_id_block_key UNIQUE (id, cidr_block, vpc_id, account_id, live));
CREATE INDEX subnets_vpc_idx ON subnets (vpc_id, id) WHERE deleted_at IS NULL;
CREATE INDEX subnets_account_idx ON subnets (account_id, id) WHERE deleted_at IS NULL;

-- ── Gateways and routes ────────────────────────────────────────────────────────────────────────────────────────────
CREATE TABLE internet_gateways (
  id uuid PRIMARY KEY,
  short_id text GENERATED ALWAYS AS (short_id(id)) STORED CONSTRAINT internet_gateways_short_id_key UNIQUE,
  account_id uuid NOT NULL CONSTRAINT internet_gateways_account_fkey REFERENCES accounts ON DELETE RESTRICT,
  name display_name NOT NULL,
  vpc_id uuid,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  deleted_at timestamptz,
  live boolean GENERATED ALWAYS AS (CASE WHEN deleted_at IS NULL THEN true END) STORED,
  CONSTRAINT internet_gateways_detached_check CHECK (deleted_at IS NULL OR vpc_id IS NULL),
  CONSTRAINT internet_gateways_vpc_fkey FOREIGN KEY (vpc_id, account_id, live)
    REFERENCES vpcs (id, account_id, live) ON DELETE RESTRICT,
  CONSTRAINT internet_gateways_id_owner_key UNIQUE (id, account_id));
CREATE UNIQUE INDEX internet_gateways_vpc_key ON internet_gateways (vpc_id) WHERE vpc_id IS NOT NULL;
CREATE INDEX internet_gateways_account_idx ON internet_gateways (account_id, id) WHERE deleted_at IS NULL;

CREATE TABLE route_tables (
  id uuid PRIMARY KEY,
  short_id text GENERATED ALWAYS AS (short_id(id)) STORED CONSTRAINT route_tables_short_id_key UNIQUE,
  account_id uuid NOT NULL,
  vpc_id uuid NOT NULL,
  vpc_cidr cidr NOT NULL,
  name display_name NOT NULL,
  is_main boolean NOT NULL DEFAULT false,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  deleted_at timestamptz,
  live boolean GENERATED ALWAYS AS (CASE WHEN deleted_at IS NULL THEN true END) STORED,
  CONSTRAINT route_tables_vpc_fkey FOREIGN KEY (vpc_id, vpc_cidr, account_id, live)
    REFERENCES vpcs (id, cidr_block, account_id, live) ON DELETE RESTRICT,
  CONSTRAINT route_tables_id_vpc_key UNIQUE (id, vpc_id, account_id, live),
  CONSTRAINT route_tables_id_block_key UNIQUE (id, vpc_id, vpc_cidr, account_id));
CREATE UNIQUE INDEX route_tables_main_key ON route_tables (vpc_id) WHERE is_main AND deleted_at IS NULL;
CREATE INDEX route_tables_vpc_idx ON route_tables (vpc_id, id) WHERE deleted_at IS NULL;
CREATE INDEX route_tables_account_idx ON route_tables (account_id, id) WHERE deleted_at IS NULL;

CREATE TABLE route_table_associations (
  id uuid PRIMARY KEY,
  short_id text GENERATED ALWAYS AS (short_id(id)) STORED CONSTRAINT route_table_associations_short_id_key UNIQUE,
  account_id uuid NOT NULL,
  vpc_id uuid NOT NULL,
  route_table_id uuid NOT NULL,
  subnet_id uuid NOT NULL CONSTRAINT route_table_associations_subnet_key UNIQUE,
  live boolean NOT NULL DEFAULT true CHECK (live),
  created_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT route_table_associations_table_fkey FOREIGN KEY (route_table_id, vpc_id, account_id, live)
    REFERENCES route_tables (id, vpc_id, account_id, live) ON DELETE RESTRICT,
  CONSTRAINT route_table_associations_subnet_fkey FOREIGN KEY (subnet_id, vpc_id, account_id, live)
    REFERENCES subnets (id, vpc_id, account_id, live) ON DELETE RESTRICT);
CREATE INDEX route_table_associations_table_idx ON route_table_associations (route_table_id);

-- ── Security groups ────────────────────────────────────────────────────────────────────────────────────────────────
CREATE TABLE security_groups (
  id uuid PRIMARY KEY,
  short_id text GENERATED ALWAYS AS (short_id(id)) STORED CONSTRAINT security_groups_short_id_key UNIQUE,
  account_id uuid NOT NULL,
  vpc_id uuid NOT NULL,
  name citext NOT NULL CHECK (length(name) BETWEEN 1 AND 255 AND name !~ '[[:cntrl:]]' AND name !~ '^sg-'),
  description text NOT NULL DEFAULT '' CHECK (length(description) <= 255 AND description !~ '[[:cntrl:]]'),
  is_default boolean NOT NULL DEFAULT false,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  deleted_at timestamptz,
  live boolean GENERATED ALWAYS AS (CASE WHEN deleted_at IS NULL THEN true END) STORED,
  CONSTRAINT security_groups_vpc_fkey FOREIGN KEY (vpc_id, account_id, live)
    REFERENCES vpcs (id, account_id, live) ON DELETE RESTRICT,
  CONSTRAINT security_groups_id_vpc_key UNIQUE (id, vpc_id, account_id, live));
CREATE UNIQUE INDEX security_groups_name_key ON security_groups (vpc_id, name) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX security_groups_default_key ON security_groups (vpc_id) WHERE is_default AND deleted_at IS NULL;
CREATE INDEX security_groups_account_idx ON security_groups (account_id, id) WHERE deleted_at IS NULL;

CREATE TABLE security_group_rules (
  id uuid PRIMARY KEY,
  short_id text GENERATED ALWAYS AS (short_id(id)) STORED CONSTRAINT security_group_rules_short_id_key UNIQUE,
  account_id uuid NOT NULL,
  vpc_id uuid NOT NULL,
  security_group_id uuid NOT NULL,
  direction rule_direction NOT NULL,
  protocol rule_protocol NOT NULL,
  -- Destination ports, upper bound exclusive as PostgreSQL normalises it; present exactly for TCP and UDP.
  port_range int4range,
  icmp_type smallint,
  icmp_code smallint,
  -- The specification's source_destination: exactly one of a block and a group.
  peer_cidr cidr,
  peer_group_id uuid,
  action text NOT NULL DEFAULT 'allow' CHECK (action = 'allow'),
  description text NOT NULL DEFAULT '' CHECK (length(description) <= 255 AND description !~ '[[:cntrl:]]'),
  live boolean NOT NULL DEFAULT true CHECK (live),
  created_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT security_group_rules_group_fkey FOREIGN KEY (security_group_id, vpc_id, account_id, live)
    REFERENCES security_groups (id, vpc_id, account_id, live) ON DELETE RESTRICT,
  CONSTRAINT security_group_rules_peer_group_fkey FOREIGN KEY (peer_group_id, vpc_id, account_id, live)
    REFERENCES security_groups (id, vpc_id, account_id, live) ON DELETE RESTRICT,
  CONSTRAINT security_group_rules_peer_check CHECK (num_nonnulls(peer_cidr, peer_group_id) = 1),
  CONSTRAINT security_group_rules_peer_family_check CHECK (peer_cidr IS NULL OR family(peer_cidr) = 4),
  CONSTRAINT security_group_rules_ports_check CHECK ((protocol IN ('tcp', 'udp')) = (port_range IS NOT NULL)),
  CONSTRAINT security_group_rules_port_range_check
    CHECK (port_range IS NULL OR (NOT isempty(port_range) AND port_range <@ int4range(0, 65536))),
  CONSTRAINT security_group_rules_icmp_check CHECK (
    (protocol = 'icmp' OR (icmp_type IS NULL AND icmp_code IS NULL))
    AND (icmp_type IS NULL OR icmp_type BETWEEN 0 AND 255)
    AND (icmp_code IS NULL OR (icmp_type IS NOT NULL AND icmp_code BETWEEN 0 AND 255))));
CREATE UNIQUE INDEX security_group_rules_duplicate_key ON security_group_rules (
  security_group_id, direction, protocol, coalesce(port_range, 'empty'::int4range), coalesce(icmp_type, -1::smallint),
  coalesce(icmp_code, -1::smallint), coalesce(peer_cidr, '::/128'::cidr),
  coalesce(peer_group_id, '00000000-0000-0000-0000-000000000000'::uuid));
CREATE INDEX security_group_rules_peer_idx ON security_group_rules (peer_group_id) WHERE peer_group_id IS NOT NULL;

-- ── Instances ──────────────────────────────────────────────────────────────────────────────────────────────────────
CREATE TABLE instances (
  id uuid PRIMARY KEY,
  short_id text GENERATED ALWAYS AS (short_id(id)) STORED CONSTRAINT instances_short_id_key UNIQUE,
  account_id uuid NOT NULL CONSTRAINT instances_account_fkey REFERENCES accounts ON DELETE RESTRICT,
  user_id uuid NOT NULL,
  vpc_id uuid NOT NULL,
  subnet_id uuid NOT NULL,
  name display_name NOT NULL,
  instance_type text NOT NULL CHECK (length(instance_type) <= 50),
  vcpus integer NOT NULL CHECK (vcpus BETWEEN 1 AND 256),
  memory_mib integer NOT NULL CHECK (memory_mib BETWEEN 64 AND 16777216),
  disk_gib integer NOT NULL DEFAULT 0 CHECK (disk_gib >= 0),
  image_id uuid NOT NULL CONSTRAINT instances_image_fkey REFERENCES images ON DELETE RESTRICT,
  -- Copied at launch: deleting a key pair does not change an instance.
  key_name text,
  public_key text,
  user_data bytea CHECK (octet_length(user_data) <= 16384),
  reservation_id uuid NOT NULL,
  launch_index integer NOT NULL DEFAULT 0 CHECK (launch_index >= 0),
  require_token boolean NOT NULL DEFAULT false,
  -- Whether every start gets it one of the platform's public addresses.
  auto_public_ip boolean NOT NULL DEFAULT false,
  -- What the user sees (EC2's states); moved only along the edges below.
  state instance_state NOT NULL DEFAULT 'pending',
  state_reason text,
  -- What should be.
  power instance_power NOT NULL DEFAULT 'running',
  force_stop boolean NOT NULL DEFAULT false,
  reboot_seq bigint NOT NULL DEFAULT 0 CHECK (reboot_seq >= 0),
  generation bigint NOT NULL DEFAULT 1 CHECK (generation > 0),
  observed_generation bigint NOT NULL DEFAULT 0,
  -- Where it is, and which placement that is. NULL until placed, and again once nothing of it is left there.
  node_id uuid CONSTRAINT instances_node_fkey REFERENCES nodes ON DELETE RESTRICT,
  placement_epoch bigint NOT NULL DEFAULT 0,
  run_as_uid integer CHECK (run_as_uid BETWEEN 600000 AND 699999),
  -- Who still has to clean up after a termination.
  finalizers text[] NOT NULL DEFAULT ARRAY['compute', 'network']
    CHECK (finalizers <@ ARRAY['compute', 'network', 'storage']),
  launched_at timestamptz,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  terminated_at timestamptz,
  deleted_at timestamptz,
  live boolean GENERATED ALWAYS AS (CASE WHEN deleted_at IS NULL THEN true END) STORED,
  CONSTRAINT instances_user_fkey FOREIGN KEY (user_id, account_id) REFERENCES users (id, account_id) ON DELETE RESTRICT,
  CONSTRAINT instances_subnet_fkey FOREIGN KEY (subnet_id, vpc_id, account_id, live)
    REFERENCES subnets (id, vpc_id, account_id, live) ON DELETE RESTRICT,
  CONSTRAINT instances_observed_check CHECK (observed_generation <= generation),
  CONSTRAINT instances_placed_check CHECK (state NOT IN ('running', 'stopping') OR node_id IS NOT NULL),
  CONSTRAINT instances_uid_check CHECK ((node_id IS NULL) = (run_as_uid IS NULL)),
  -- Terminated means that nothing of it is left anywhere; from then on the row is a tombstone that is still described
  -- for an hour, and no longer holds its subnet.
  CONSTRAINT instances_terminated_check CHECK (
    (state = 'terminated') = (terminated_at IS NOT NULL) AND (state = 'terminated') = (deleted_at IS NOT NULL)
    AND (state <> 'terminated' OR (power = 'terminated' AND cardinality(finalizers) = 0 AND node_id IS NULL))),
  CONSTRAINT instances_id_owner_key UNIQUE (id, vpc_id, account_id, live));
CREATE INDEX instances_account_idx ON instances (account_id, id);
CREATE INDEX instances_node_idx ON instances (node_id, id) WHERE node_id IS NOT NULL;
CREATE INDEX instances_unplaced_idx ON instances (id) WHERE node_id IS NULL AND deleted_at IS NULL;
CREATE INDEX instances_leaving_idx ON instances (id) WHERE power = 'terminated' AND deleted_at IS NULL;
CREATE INDEX instances_tombstone_idx ON instances (deleted_at) WHERE deleted_at IS NOT NULL;
CREATE UNIQUE INDEX instances_uid_key ON instances (node_id, run_as_uid) WHERE node_id IS NOT NULL;

CREATE FUNCTION instances_check_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF NEW.generation < OLD.generation OR NEW.observed_generation < OLD.observed_generation
     OR NEW.placement_epoch < OLD.placement_epoch OR NEW.reboot_seq < OLD.reboot_seq THEN
    RAISE EXCEPTION 'a counter of instance % went backwards', OLD.id USING ERRCODE = '23514', CONSTRAINT = 'instances_monotonic_check';
  END IF;
  IF (NEW.power, NEW.reboot_seq, NEW.vcpus, NEW.memory_mib, NEW.force_stop, NEW.node_id)
     IS DISTINCT FROM (OLD.power, OLD.reboot_seq, OLD.vcpus, OLD.memory_mib, OLD.force_stop, OLD.node_id)
     AND NEW.generation = OLD.generation THEN
    RAISE EXCEPTION 'the specification of instance % changed without a new generation', OLD.id
      USING ERRCODE = '23514', CONSTRAINT = 'instances_generation_check';
  END IF;
  IF NEW.node_id IS NOT NULL AND NEW.node_id IS DISTINCT FROM OLD.node_id AND NEW.placement_epoch = OLD.placement_epoch THEN
    RAISE EXCEPTION 'instance % placed without a new epoch', OLD.id USING ERRCODE = '23514', CONSTRAINT = 'instances_epoch_check';
  END IF;
  IF OLD.power = 'terminated' AND NEW.power <> 'terminated' THEN
    RAISE EXCEPTION 'termination of instance % is one-way', OLD.id USING ERRCODE = '23514', CONSTRAINT = 'instances_one_way_check';
  END IF;
  -- EC2's edges, plus running → stopped (the guest powered itself off).
  IF NEW.state <> OLD.state AND NOT (OLD.state::text || '>' || NEW.state::text = ANY (ARRAY[
       'pending>running', 'pending>stopped', 'pending>shutting-down',
       'running>stopping', 'running>stopped', 'running>shutting-down',
       'stopping>stopped', 'stopping>shutting-down',
       'stopped>pending', 'stopped>shutting-down',
       'shutting-down>terminated'])) THEN
    RAISE EXCEPTION 'instance % cannot go from % to %', OLD.id, OLD.state, NEW.state
      USING ERRCODE = '23514', CONSTRAINT = 'instances_state_edge_check';
  END IF;
  RETURN NEW; END $$;
CREATE TRIGGER instances_change BEFORE UPDATE ON instances FOR EACH ROW EXECUTE FUNCTION instances_check_change();

CREATE TABLE network_interfaces (
  id uuid PRIMARY KEY,
  short_id text GENERATED ALWAYS AS (short_id(id)) STORED CONSTRAINT network_interfaces_short_id_key UNIQUE,
  account_id uuid NOT NULL,
  vpc_id uuid NOT NULL,
  subnet_id uuid NOT NULL,
  subnet_cidr cidr NOT NULL,
  instance_id uuid NOT NULL,
  device_index smallint NOT NULL DEFAULT 0 CHECK (device_index BETWEEN 0 AND 7),
  is_primary boolean GENERATED ALWAYS AS (device_index = 0) STORED,
  private_ip inet NOT NULL,
  mac_address macaddr NOT NULL,
  source_dest_check boolean NOT NULL DEFAULT true,
  -- Where the port is and its number there; both together or neither.
  node_id uuid CONSTRAINT network_interfaces_node_fkey REFERENCES nodes ON DELETE RESTRICT,
  port_no integer CHECK (port_no BETWEEN 16 AND 16000),
  -- As its node last reported it; the reason is for the operator.
  port_state text NOT NULL DEFAULT 'unknown' CHECK (port_state IN ('unknown', 'ready', 'degraded')),
  port_reason text,
  created_at timestamptz NOT NULL DEFAULT now(),
  deleted_at timestamptz,
  live boolean GENERATED ALWAYS AS (CASE WHEN deleted_at IS NULL THEN true END) STORED,
  CONSTRAINT network_interfaces_placed_check CHECK ((node_id IS NULL) = (port_no IS NULL)),
  CONSTRAINT network_interfaces_address_check CHECK (
    family(private_ip) = 4 AND masklen(private_ip) = 32 AND private_ip << subnet_cidr
    -- .0 to .3 and the last address are the platform's (VPC user guide, "subnet sizing").
    AND private_ip > set_masklen(network(subnet_cidr)::inet, 32) + 3
    AND private_ip < set_masklen(broadcast(subnet_cidr)::inet, 32)),
  CONSTRAINT network_interfaces_mac_check CHECK ((mac_address & '03:00:00:00:00:00') = '02:00:00:00:00:00'),
  CONSTRAINT network_interfaces_subnet_fkey FOREIGN KEY (subnet_id, subnet_cidr, vpc_id, account_id, live)
    REFERENCES subnets (id, cidr_block, vpc_id, account_id, live) ON DELETE RESTRICT,
  CONSTRAINT network_interfaces_instance_fkey FOREIGN KEY (instance_id, vpc_id, account_id, live)
    REFERENCES instances (id, vpc_id, account_id, live) ON DELETE RESTRICT,
  CONSTRAINT network_interfaces_id_vpc_key UNIQUE (id, vpc_id, account_id, live));
CREATE UNIQUE INDEX network_interfaces_private_ip_key ON network_interfaces (subnet_id, private_ip) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX network_interfaces_mac_key ON network_interfaces (mac_address) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX network_interfaces_slot_key ON network_interfaces (instance_id, device_index) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX network_interfaces_port_key ON network_interfaces (node_id, port_no) WHERE node_id IS NOT NULL;
CREATE INDEX network_interfaces_vpc_idx ON network_interfaces (vpc_id) WHERE deleted_at IS NULL;
CREATE INDEX network_interfaces_quarantine_idx ON network_interfaces (subnet_id, private_ip, deleted_at) WHERE deleted_at IS NOT NULL;

CREATE TABLE network_interface_security_groups (
  network_interface_id uuid NOT NULL,
  security_group_id uuid NOT NULL,
  vpc_id uuid NOT NULL,
  account_id uuid NOT NULL,
  live boolean NOT NULL DEFAULT true CHECK (live),
  PRIMARY KEY (network_interface_id, security_group_id),
  CONSTRAINT network_interface_security_groups_interface_fkey FOREIGN KEY (network_interface_id, vpc_id, account_id, live)
    REFERENCES network_interfaces (id, vpc_id, account_id, live) ON DELETE RESTRICT,
  CONSTRAINT network_interface_security_groups_group_fkey FOREIGN KEY (security_group_id, vpc_id, account_id, live)
    REFERENCES security_groups (id, vpc_id, account_id, live) ON DELETE RESTRICT);
CREATE INDEX network_interface_security_groups_group_idx ON network_interface_security_groups (security_group_id);

CREATE TABLE routes (
  id uuid PRIMARY KEY,
  account_id uuid NOT NULL,
  route_table_id uuid NOT NULL,
  vpc_id uuid NOT NULL,
  vpc_cidr cidr NOT NULL,
  destination_cidr cidr NOT NULL CONSTRAINT routes_family_check CHECK (family(destination_cidr) = 4),
  target_type route_target NOT NULL,
  -- Not bound to live rows: a route whose target is gone stays, as a black hole.
  internet_gateway_id uuid,
  network_interface_id uuid CONSTRAINT routes_interface_fkey REFERENCES network_interfaces ON DELETE RESTRICT,
  created_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT routes_table_fkey FOREIGN KEY (route_table_id, vpc_id, vpc_cidr, account_id)
    REFERENCES route_tables (id, vpc_id, vpc_cidr, account_id) ON DELETE RESTRICT,
  CONSTRAINT routes_gateway_fkey FOREIGN KEY (internet_gateway_id, account_id)
    REFERENCES internet_gateways (id, account_id) ON DELETE RESTRICT,
  CONSTRAINT routes_target_check CHECK (
    (target_type = 'gateway') = (internet_gateway_id IS NOT NULL)
    AND (target_type = 'instance') = (network_interface_id IS NOT NULL)),
  -- The local route cannot be shadowed, and link-local addresses are never routed.
  CONSTRAINT routes_not_local_check CHECK (NOT destination_cidr <<= vpc_cidr),
  CONSTRAINT routes_not_link_local_check CHECK (NOT destination_cidr <<= '169.254.0.0/16'::cidr),
  CONSTRAINT routes_destination_key UNIQUE (route_table_id, destination_cidr));

-- The site's public addresses, one row each. Free: no account. Released ones rest before the next owner gets them.
CREATE TABLE public_ips (
  address inet PRIMARY KEY CHECK (family(address) = 4 AND masklen(address) = 32),
  -- The allocation as its owner knows it; a new one each time.
  allocation_id uuid,
  short_id text GENERATED ALWAYS AS (short_id(allocation_id)) STORED CONSTRAINT public_ips_short_id_key UNIQUE,
  account_id uuid CONSTRAINT public_ips_account_fkey REFERENCES accounts ON DELETE RESTRICT,
  vpc_id uuid,
  network_interface_id uuid CONSTRAINT public_ips_interface_key UNIQUE,
  -- Given by the platform with a launch or start (true), or allocated by the user (false).
  auto boolean NOT NULL DEFAULT false,
  live boolean NOT NULL DEFAULT true CHECK (live),
  name text CHECK (length(name) <= 100 AND name !~ '[[:cntrl:]]'),
  rests_until timestamptz NOT NULL DEFAULT '-infinity',
  allocated_at timestamptz,
  CONSTRAINT public_ips_interface_fkey FOREIGN KEY (network_interface_id, vpc_id, account_id, live)
    REFERENCES network_interfaces (id, vpc_id, account_id, live) ON DELETE RESTRICT,
  -- MATCH SIMPLE would skip the foreign key if one of them were NULL.
  CONSTRAINT public_ips_association_check CHECK ((network_interface_id IS NULL) = (vpc_id IS NULL)),
  CONSTRAINT public_ips_owner_check CHECK ((account_id IS NULL) = (allocation_id IS NULL)
    AND (account_id IS NOT NULL OR (network_interface_id IS NULL AND NOT auto))));
CREATE INDEX public_ips_free_idx ON public_ips (rests_until, address) WHERE account_id IS NULL;
CREATE INDEX public_ips_account_idx ON public_ips (account_id, address) WHERE account_id IS NOT NULL;

-- ── Plumbing ───────────────────────────────────────────────────────────────────────────────────────────────────────
-- Doorbells to ring after commit. Published ones are deleted by the relay; never read by position, which would skip a
-- row that commits late.
CREATE TABLE outbox (
  seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  subject text NOT NULL CHECK (subject IN ('vpc', 'instance', 'node', 'event')),
  subject_id uuid NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now());

CREATE TABLE audit_log (
  seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at timestamptz NOT NULL DEFAULT clock_timestamp(),
  account_id uuid,
  user_id uuid,
  -- EC2's name of the action (`CreateVpc`).
  action text NOT NULL CHECK (action ~ '^[A-Za-z]{1,64}$'),
  resource_id uuid,
  request_id text NOT NULL,
  source_ip inet,
  detail jsonb NOT NULL DEFAULT '{}' CHECK (octet_length(detail::text) <= 65536));
CREATE INDEX audit_log_account_idx ON audit_log (account_id, seq);
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = '42501'; END $$;
CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE ON audit_log FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- One effect per key (Idempotency-Key, EC2's ClientToken); kept for at least 24 hours.
CREATE TABLE idempotency_keys (
  account_id uuid NOT NULL CONSTRAINT idempotency_keys_account_fkey REFERENCES accounts ON DELETE RESTRICT,
  key text NOT NULL CHECK (length(key) BETWEEN 1 AND 64),
  request_sha256 bytea NOT NULL CHECK (octet_length(request_sha256) = 32),
  status smallint NOT NULL,
  response jsonb NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT idempotency_keys_key PRIMARY KEY (account_id, key));
CREATE INDEX idempotency_keys_age_idx ON idempotency_keys (created_at);

-- What users watch: every change of state, in order of commit as far as a reader needs it.
CREATE TABLE events (
  seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at timestamptz NOT NULL DEFAULT clock_timestamp(),
  account_id uuid NOT NULL,
  resource text NOT NULL CHECK (resource ~ '^[a-z_]{1,40}$'),
  resource_id uuid NOT NULL,
  from_state text,
  to_state text,
  reason text,
  -- The user, or the part of the platform, that caused it.
  actor text NOT NULL,
  -- The transaction: readers take only what is below every running one, so nothing that commits late is skipped.
  xid xid8 NOT NULL DEFAULT pg_current_xact_id());
CREATE INDEX events_xid_idx ON events (xid, seq);
CREATE INDEX events_account_idx ON events (account_id, seq);
CREATE INDEX events_resource_idx ON events (resource_id, seq);
