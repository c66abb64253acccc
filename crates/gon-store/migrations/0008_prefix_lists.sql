-- Managed prefix lists: blocks under one name, which rules of security groups take as their other side. Forward only.

CREATE TABLE prefix_lists (
  id uuid PRIMARY KEY,
  short_id text GENERATED ALWAYS AS (short_id(id)) STORED CONSTRAINT prefix_lists_short_id_key UNIQUE,
  account_id uuid NOT NULL CONSTRAINT prefix_lists_account_fkey REFERENCES accounts ON DELETE RESTRICT,
  name display_name NOT NULL,
  -- So many entries a rule that names the list counts for, however many there are (EC2).
  max_entries integer NOT NULL CONSTRAINT prefix_lists_max_entries_check CHECK (max_entries BETWEEN 1 AND 60),
  -- Counts every change of its entries.
  version bigint NOT NULL DEFAULT 1 CHECK (version > 0),
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  deleted_at timestamptz,
  live boolean GENERATED ALWAYS AS (CASE WHEN deleted_at IS NULL THEN true END) STORED,
  CONSTRAINT prefix_lists_id_owner_key UNIQUE (id, account_id, live));
CREATE INDEX prefix_lists_account_idx ON prefix_lists (account_id, id) WHERE deleted_at IS NULL;

CREATE TABLE prefix_list_entries (
  prefix_list_id uuid NOT NULL,
  account_id uuid NOT NULL,
  cidr cidr NOT NULL CONSTRAINT prefix_list_entries_family_check CHECK (family(cidr) = 4),
  description text NOT NULL DEFAULT '' CHECK (length(description) <= 255 AND description !~ '[[:cntrl:]]'),
  live boolean NOT NULL DEFAULT true CHECK (live),
  CONSTRAINT prefix_list_entries_key UNIQUE (prefix_list_id, cidr),
  CONSTRAINT prefix_list_entries_list_fkey FOREIGN KEY (prefix_list_id, account_id, live)
    REFERENCES prefix_lists (id, account_id, live) ON DELETE RESTRICT);

-- Never more entries than it was made for, from either side: fewer are allowed only above those there are.
CREATE FUNCTION prefix_lists_check_room() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE
  list uuid; room integer;
BEGIN
  IF TG_TABLE_NAME = 'prefix_lists' THEN list := NEW.id; ELSE list := NEW.prefix_list_id; END IF;
  SELECT max_entries INTO room FROM prefix_lists WHERE id = list FOR NO KEY UPDATE;
  IF (SELECT count(*) FROM prefix_list_entries e WHERE e.prefix_list_id = list) > room THEN
    RAISE EXCEPTION 'prefix list % has no room', list USING ERRCODE = '23514', CONSTRAINT = 'prefix_lists_room';
  END IF;
  RETURN NULL; END $$;
CREATE TRIGGER prefix_list_entries_room AFTER INSERT ON prefix_list_entries
  FOR EACH ROW EXECUTE FUNCTION prefix_lists_check_room();
CREATE TRIGGER prefix_lists_room AFTER UPDATE OF max_entries ON prefix_lists
  FOR EACH ROW EXECUTE FUNCTION prefix_lists_check_room();

-- The other side of a rule: exactly one of a block, a group and a list.
ALTER TABLE security_group_rules
  ADD COLUMN peer_prefix_list_id uuid,
  ADD CONSTRAINT security_group_rules_peer_list_fkey FOREIGN KEY (peer_prefix_list_id, account_id, live)
    REFERENCES prefix_lists (id, account_id, live) ON DELETE RESTRICT,
  DROP CONSTRAINT security_group_rules_peer_check;
ALTER TABLE security_group_rules ADD CONSTRAINT security_group_rules_peer_check
  CHECK (num_nonnulls(peer_cidr, peer_group_id, peer_prefix_list_id) = 1);
DROP INDEX security_group_rules_duplicate_key;
CREATE UNIQUE INDEX security_group_rules_duplicate_key ON security_group_rules (
  security_group_id, direction, protocol, coalesce(port_range, 'empty'::int4range), coalesce(icmp_type, -1::smallint),
  coalesce(icmp_code, -1::smallint), coalesce(peer_cidr, '::/128'::cidr),
  coalesce(peer_group_id, peer_prefix_list_id, '00000000-0000-0000-0000-000000000000'::uuid));
CREATE INDEX security_group_rules_peer_list_idx ON security_group_rules (peer_prefix_list_id)
  WHERE peer_prefix_list_id IS NOT NULL;
