-- When the database was put back from a backup: what it has forgotten since then is out there all the same. Forward only.

CREATE TABLE restorations (restored_at timestamptz PRIMARY KEY DEFAULT now());

-- Whether nodes may still have what this database has forgotten. A week is enough to look after it.
CREATE FUNCTION is_restored() RETURNS boolean LANGUAGE sql STABLE AS
  'SELECT EXISTS (SELECT FROM restorations WHERE restored_at > now() - interval ''7 days'')';
