-- Recovery of instances whose node is lost, on another node. Forward only.

-- Whether its user prefers a new start elsewhere, from its image, to waiting for its node.
ALTER TABLE instances ADD COLUMN auto_recover boolean NOT NULL DEFAULT false;
CREATE INDEX instances_auto_recover_idx ON instances (node_id) WHERE auto_recover AND node_id IS NOT NULL;

-- The number of the node's grant to run such instances: raised each time its agent asks with the number there is.
ALTER TABLE nodes ADD COLUMN grant_seq bigint NOT NULL DEFAULT 0 CONSTRAINT nodes_grant_check CHECK (grant_seq >= 0);

-- What is left on a node of an instance that was taken from it: until the node has removed it, it is told to, the numbers
-- are not given again, and the instance does not come back.
CREATE TABLE node_remains (
  node_id uuid NOT NULL CONSTRAINT node_remains_node_fkey REFERENCES nodes ON DELETE RESTRICT,
  -- No reference: a node may come back long after the instance was terminated.
  instance_id uuid NOT NULL,
  -- The placement that ended, and the generation of its end.
  placement_epoch bigint NOT NULL,
  generation bigint NOT NULL,
  run_as_uid integer NOT NULL,
  port_nos integer[] NOT NULL,
  made_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (node_id, instance_id));
CREATE INDEX node_remains_instance_idx ON node_remains (instance_id);

-- As before, and: whether an instance is recovered is part of its specification; one that is recovered begins anew, which
-- is a new placement; numbers of grants do not go back.
CREATE OR REPLACE FUNCTION instances_check_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF NEW.generation < OLD.generation OR NEW.observed_generation < OLD.observed_generation
     OR NEW.placement_epoch < OLD.placement_epoch OR NEW.reboot_seq < OLD.reboot_seq THEN
    RAISE EXCEPTION 'a counter of instance % went backwards', OLD.id USING ERRCODE = '23514', CONSTRAINT = 'instances_monotonic_check';
  END IF;
  IF (NEW.power, NEW.reboot_seq, NEW.vcpus, NEW.memory_mib, NEW.force_stop, NEW.node_id, NEW.auto_recover)
     IS DISTINCT FROM (OLD.power, OLD.reboot_seq, OLD.vcpus, OLD.memory_mib, OLD.force_stop, OLD.node_id, OLD.auto_recover)
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
  -- A node that runs it must have been told before it started it.
  IF NEW.auto_recover <> OLD.auto_recover AND OLD.state NOT IN ('stopped', 'terminated') THEN
    RAISE EXCEPTION 'instance % is not stopped', OLD.id USING ERRCODE = '23514', CONSTRAINT = 'instances_auto_recover_check';
  END IF;
  -- EC2's edges, plus running → stopped (the guest powered itself off), plus running → pending (it is recovered).
  IF NEW.state <> OLD.state AND NOT (OLD.state::text || '>' || NEW.state::text = ANY (ARRAY[
       'pending>running', 'pending>stopped', 'pending>shutting-down',
       'running>stopping', 'running>stopped', 'running>shutting-down',
       'stopping>stopped', 'stopping>shutting-down',
       'stopped>pending', 'stopped>shutting-down',
       'shutting-down>terminated']))
     AND NOT (OLD.state = 'running' AND NEW.state = 'pending' AND OLD.auto_recover
              AND NEW.placement_epoch > OLD.placement_epoch) THEN
    RAISE EXCEPTION 'instance % cannot go from % to %', OLD.id, OLD.state, NEW.state
      USING ERRCODE = '23514', CONSTRAINT = 'instances_state_edge_check';
  END IF;
  RETURN NEW; END $$;

CREATE FUNCTION nodes_check_grant() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF NEW.grant_seq < OLD.grant_seq THEN
    RAISE EXCEPTION 'the grant of node % went backwards', OLD.name USING ERRCODE = '23514', CONSTRAINT = 'nodes_grant_monotonic';
  END IF;
  RETURN NEW; END $$;
CREATE TRIGGER nodes_grant BEFORE UPDATE OF grant_seq ON nodes FOR EACH ROW EXECUTE FUNCTION nodes_check_grant();

-- An instance manager of the version before writes documents that know no fence, and an agent would run such an instance
-- without one. So it does not lead where there is one, and where it leads none is launched. Whoever takes over says that
-- it knows them; who says nothing does not.
ALTER TABLE leader_epochs ADD COLUMN knows_fences boolean NOT NULL DEFAULT false, ADD COLUMN says_fences boolean;
CREATE FUNCTION leader_epochs_check_fences() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF TG_OP = 'UPDATE' THEN
    NEW.knows_fences := coalesce(NEW.says_fences, false);
    NEW.says_fences := NULL;
  END IF;
  IF NEW.role = 'instance-manager' AND NOT NEW.knows_fences
     AND EXISTS (SELECT FROM instances i WHERE i.auto_recover AND i.deleted_at IS NULL) THEN
    RAISE EXCEPTION 'there are instances that are recovered: an instance manager of this version does not lead'
      USING ERRCODE = '23514', CONSTRAINT = 'leader_epochs_knows_fences';
  END IF;
  RETURN NEW; END $$;
CREATE TRIGGER leader_epochs_fences BEFORE INSERT OR UPDATE OF holder ON leader_epochs
  FOR EACH ROW EXECUTE FUNCTION leader_epochs_check_fences();

CREATE FUNCTION instances_check_fences() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE knows boolean; BEGIN
  -- Held until the end of the transaction: nobody takes over meanwhile.
  SELECT knows_fences INTO knows FROM leader_epochs WHERE role = 'instance-manager' FOR SHARE NOWAIT;
  IF NOT knows THEN
    RAISE EXCEPTION 'the instance manager that leads does not recover instances'
      USING ERRCODE = '23514', CONSTRAINT = 'instances_auto_recover_leader';
  END IF;
  RETURN NEW; END $$;
CREATE TRIGGER instances_fences_new BEFORE INSERT ON instances FOR EACH ROW WHEN (NEW.auto_recover)
  EXECUTE FUNCTION instances_check_fences();
CREATE TRIGGER instances_fences_set BEFORE UPDATE OF auto_recover ON instances FOR EACH ROW
  WHEN (NEW.auto_recover AND NOT OLD.auto_recover) EXECUTE FUNCTION instances_check_fences();
