-- Several servers: what operators say of nodes, what nodes say of themselves, and operations, which are the visible side
-- of everything that is answered before it is done. Forward only.

-- ── Nodes ──────────────────────────────────────────────────────────────────────────────────────────────────────────
-- The state people see is computed from these (`node_state`), so that no two columns can contradict each other.
ALTER TABLE nodes
  -- No new instances.
  ADD COLUMN cordoned_at timestamptz,
  -- No new instances, and those that can go are to go.
  ADD COLUMN draining_at timestamptz,
  -- Gone for good: a tombstone. Its name may be given to another server; its reports change nothing.
  ADD COLUMN removed_at timestamptz,
  -- When those who watch its instances were told that nobody hears of it; NULL while it is heard of.
  ADD COLUMN silent_since timestamptz,
  ADD COLUMN labels jsonb NOT NULL DEFAULT '{}'
    CONSTRAINT nodes_labels_check CHECK (jsonb_typeof(labels) = 'object' AND octet_length(labels::text) <= 16384),
  -- Where other nodes reach it: the end of tunnels.
  ADD COLUMN address inet,
  -- Which boot of its kernel reported last.
  ADD COLUMN boot_id uuid;
ALTER TABLE nodes ADD CONSTRAINT nodes_address_check
  CHECK (masklen(address) = CASE family(address) WHEN 4 THEN 32 ELSE 128 END);
UPDATE nodes SET cordoned_at = now() WHERE NOT schedulable;

-- One live node of a name; a removed server may come back as another node.
ALTER TABLE nodes DROP CONSTRAINT nodes_name_key;
CREATE UNIQUE INDEX nodes_name_key ON nodes (name) WHERE removed_at IS NULL;

-- A node that says nothing is unknown, with all that is on it. 14 s, so that those who watch are told within 15.
CREATE FUNCTION node_is_silent(last_report_at timestamptz) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE
  RETURN last_report_at <= now() - interval '14 seconds';
CREATE FUNCTION node_state(removed_at timestamptz, draining_at timestamptz, cordoned_at timestamptz,
    last_report_at timestamptz) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
  RETURN CASE WHEN removed_at IS NOT NULL THEN 'removed' WHEN node_is_silent(last_report_at) THEN 'unknown'
    WHEN draining_at IS NOT NULL THEN 'draining' WHEN cordoned_at IS NOT NULL THEN 'cordoned' ELSE 'ready' END;

-- Removal is one-way, and only of a node that has nothing. An epoch that was raised never comes back.
CREATE FUNCTION nodes_check_removal() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF OLD.removed_at IS NOT NULL AND NEW.removed_at IS DISTINCT FROM OLD.removed_at THEN
    RAISE EXCEPTION 'removal of node % is one-way', OLD.name USING ERRCODE = '23514', CONSTRAINT = 'nodes_removed_one_way';
  END IF;
  IF NEW.removed_at IS NOT NULL AND OLD.removed_at IS NULL AND (
       EXISTS (SELECT 1 FROM instances i WHERE i.node_id = NEW.id)
       OR EXISTS (SELECT 1 FROM network_interfaces n WHERE n.node_id = NEW.id)) THEN
    RAISE EXCEPTION 'node % still has instances', OLD.name USING ERRCODE = '23514', CONSTRAINT = 'nodes_removed_empty';
  END IF;
  RETURN NEW; END $$;
CREATE TRIGGER nodes_removal BEFORE UPDATE OF removed_at ON nodes FOR EACH ROW EXECUTE FUNCTION nodes_check_removal();

-- And nothing is placed on one that was removed, whoever asks.
CREATE FUNCTION check_node_lives() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF NEW.node_id IS NOT NULL AND NEW.node_id IS DISTINCT FROM OLD.node_id
     AND EXISTS (SELECT 1 FROM nodes n WHERE n.id = NEW.node_id AND n.removed_at IS NOT NULL) THEN
    RAISE EXCEPTION 'the node is removed' USING ERRCODE = '23514', CONSTRAINT = 'instances_node_removed';
  END IF;
  RETURN NEW; END $$;
CREATE TRIGGER instances_node_lives BEFORE UPDATE OF node_id ON instances FOR EACH ROW EXECUTE FUNCTION check_node_lives();

-- A stopped instance that has nothing worth keeping on its node leaves it: its node is told to remove it, and when it has,
-- the instance is placed nowhere until it is started again.
ALTER TABLE instances ADD COLUMN leaving_node boolean NOT NULL DEFAULT false;
ALTER TABLE instances ADD CONSTRAINT instances_leaving_check
  CHECK (NOT leaving_node OR (node_id IS NOT NULL AND disk_gib = 0 AND power <> 'terminated'));

-- ── Operations ─────────────────────────────────────────────────────────────────────────────────────────────────────
CREATE TYPE operation_state AS ENUM ('pending', 'running', 'succeeded', 'failed', 'cancelled');
-- What has come about when it has succeeded. `drained` needs somebody who works on it; the others are only watched.
CREATE TYPE operation_goal AS ENUM ('running', 'stopped', 'terminated', 'rebooted', 'drained');

CREATE TABLE operations (
  id uuid PRIMARY KEY,
  short_id text GENERATED ALWAYS AS (short_id(id)) STORED CONSTRAINT operations_short_id_key UNIQUE,
  account_id uuid NOT NULL CONSTRAINT operations_account_fkey REFERENCES accounts ON DELETE RESTRICT,
  user_id uuid NOT NULL,
  request_id text NOT NULL,
  -- EC2's name of the action.
  action text NOT NULL CHECK (action ~ '^[A-Za-z]{1,64}$'),
  resource text NOT NULL CHECK (resource IN ('instance', 'node')),
  resource_id uuid NOT NULL,
  goal operation_goal NOT NULL,
  -- Of an instance: the generation or, of a reboot, the number of reboots that must be observed.
  generation bigint NOT NULL DEFAULT 0,
  parameters jsonb NOT NULL DEFAULT '{}',
  state operation_state NOT NULL DEFAULT 'running',
  progress jsonb NOT NULL DEFAULT '{}' CHECK (octet_length(progress::text) <= 65536),
  last_error text CHECK (length(last_error) <= 1000),
  -- Work: who does it and until when nobody else does; how often somebody took it; when it is worth looking again.
  lease_owner text,
  lease_until timestamptz,
  tries integer NOT NULL DEFAULT 0,
  due_at timestamptz NOT NULL DEFAULT now(),
  deadline timestamptz NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  finished_at timestamptz,
  CONSTRAINT operations_user_fkey FOREIGN KEY (user_id, account_id) REFERENCES users (id, account_id) ON DELETE RESTRICT,
  CONSTRAINT operations_finished_check
    CHECK ((state IN ('succeeded', 'failed', 'cancelled')) = (finished_at IS NOT NULL)),
  CONSTRAINT operations_lease_check
    CHECK ((lease_owner IS NULL) = (lease_until IS NULL) AND (finished_at IS NULL OR lease_owner IS NULL)));
CREATE INDEX operations_account_idx ON operations (account_id, id);
CREATE INDEX operations_open_idx ON operations (resource_id) WHERE finished_at IS NULL;
CREATE INDEX operations_deadline_idx ON operations (deadline) WHERE finished_at IS NULL;
CREATE INDEX operations_work_idx ON operations (due_at) WHERE finished_at IS NULL AND goal = 'drained';
CREATE INDEX operations_age_idx ON operations (finished_at) WHERE finished_at IS NOT NULL;
-- A node is drained by one at a time.
CREATE UNIQUE INDEX operations_drain_key ON operations (resource_id) WHERE goal = 'drained' AND finished_at IS NULL;

CREATE FUNCTION operations_check_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF OLD.finished_at IS NOT NULL THEN
    RAISE EXCEPTION 'operation % has ended', OLD.id USING ERRCODE = '23514', CONSTRAINT = 'operations_ended_check';
  END IF;
  RETURN NEW; END $$;
CREATE TRIGGER operations_change BEFORE UPDATE ON operations FOR EACH ROW EXECUTE FUNCTION operations_check_change();
