-- A prefix list as the destination of a route: a route for each of its blocks, for as long as they are its. Forward only.

ALTER TABLE routes
  ALTER COLUMN destination_cidr DROP NOT NULL,
  ADD COLUMN destination_prefix_list_id uuid,
  ADD COLUMN live boolean NOT NULL DEFAULT true CHECK (live);
ALTER TABLE routes
  -- Where packets want to go: exactly one of a block and a list.
  ADD CONSTRAINT routes_destination_check CHECK (num_nonnulls(destination_cidr, destination_prefix_list_id) = 1),
  ADD CONSTRAINT routes_prefix_list_fkey FOREIGN KEY (destination_prefix_list_id, account_id, live)
    REFERENCES prefix_lists (id, account_id, live) ON DELETE RESTRICT,
  ADD CONSTRAINT routes_prefix_list_key UNIQUE (route_table_id, destination_prefix_list_id);
CREATE INDEX routes_prefix_list_idx ON routes (destination_prefix_list_id) WHERE destination_prefix_list_id IS NOT NULL;

-- How many routes a table has: one that names a list counts for what the list has room for, however much is in it (EC2).
CREATE FUNCTION route_table_routes(of_table uuid) RETURNS bigint LANGUAGE sql STABLE AS $$
  SELECT coalesce(sum(coalesce(l.max_entries, 1)), 0)::bigint
  FROM routes r LEFT JOIN prefix_lists l ON l.id = r.destination_prefix_list_id WHERE r.route_table_id = of_table $$;

-- EC2's quota: fifty routes, from either side. Whoever adds one, or makes room in a list, holds the VPC first, so that one
-- sees the other. Tables that had more before keep them.
CREATE FUNCTION routes_check_number() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  PERFORM 1 FROM vpcs WHERE id = NEW.vpc_id FOR NO KEY UPDATE;
  IF route_table_routes(NEW.route_table_id) > 50 THEN
    RAISE EXCEPTION 'route table % has no room for another route', NEW.route_table_id
      USING ERRCODE = '23514', CONSTRAINT = 'routes_limit';
  END IF;
  RETURN NULL; END $$;
CREATE TRIGGER routes_number AFTER INSERT OR UPDATE OF route_table_id, destination_prefix_list_id ON routes
  FOR EACH ROW EXECUTE FUNCTION routes_check_number();
CREATE FUNCTION prefix_lists_check_routes() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  PERFORM 1 FROM vpcs v WHERE v.id IN (SELECT r.vpc_id FROM routes r WHERE r.destination_prefix_list_id = NEW.id)
    ORDER BY v.id FOR NO KEY UPDATE;
  IF EXISTS (SELECT 1 FROM routes r
             WHERE r.destination_prefix_list_id = NEW.id AND route_table_routes(r.route_table_id) > 50) THEN
    RAISE EXCEPTION 'a route table has no room for % entries of prefix list %', NEW.max_entries, NEW.id
      USING ERRCODE = '23514', CONSTRAINT = 'routes_limit';
  END IF;
  RETURN NULL; END $$;
CREATE TRIGGER prefix_lists_routes AFTER UPDATE OF max_entries ON prefix_lists
  FOR EACH ROW WHEN (NEW.max_entries > OLD.max_entries) EXECUTE FUNCTION prefix_lists_check_routes();
