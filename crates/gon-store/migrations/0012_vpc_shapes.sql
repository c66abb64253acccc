-- What anything but the rules of a VPC's security groups last changed: whoever holds a node's document of that generation or a
-- later one has to read nothing but rules anew. Rules are what changes most, and a node with a thousand ports takes a hundred
-- times longer to read. A change that does not say that it is one of rules alone is not. Forward only.

ALTER TABLE vpcs
  -- The last generation that only rules made.
  ADD COLUMN rules_generation bigint NOT NULL DEFAULT 0,
  -- The last one that anything else made.
  ADD COLUMN shape_generation bigint NOT NULL DEFAULT 1;
UPDATE vpcs SET shape_generation = generation;
ALTER TABLE vpcs ADD CONSTRAINT vpcs_generations_check
  CHECK (rules_generation <= generation AND shape_generation <= generation);

CREATE FUNCTION vpcs_note_shape() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF NEW.rules_generation IS DISTINCT FROM NEW.generation THEN
    NEW.shape_generation := NEW.generation;
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER vpcs_note_shape BEFORE UPDATE OF generation ON vpcs
  FOR EACH ROW WHEN (NEW.generation IS DISTINCT FROM OLD.generation) EXECUTE FUNCTION vpcs_note_shape();
