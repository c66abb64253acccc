-- Who may speak: tokens that let a server into the site once, and every certificate that was ever signed.

-- Only the hash of a token's secret is kept.
CREATE TABLE join_tokens (
  id uuid PRIMARY KEY,
  secret_sha256 bytea NOT NULL CONSTRAINT join_tokens_secret_key UNIQUE
    CONSTRAINT join_tokens_secret_check CHECK (octet_length(secret_sha256) = 32),
  -- The roles that may be asked for with it.
  roles text[] NOT NULL CONSTRAINT join_tokens_roles_check CHECK (cardinality(roles) BETWEEN 1 AND 16),
  -- The only name it lets in, which may then replace a server of that name; NULL: any name that nobody has.
  server_name text CONSTRAINT join_tokens_server_name_check CHECK (server_name ~ '^[a-z0-9][a-z0-9.-]{0,49}$'),
  created_by text NOT NULL CONSTRAINT join_tokens_created_by_check CHECK (created_by <> ''),
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  used_at timestamptz,
  used_by text CONSTRAINT join_tokens_used_by_check CHECK (used_by ~ '^[a-z0-9][a-z0-9.-]{0,49}$'),
  -- The request it was used for: who did not get the answer may repeat that one.
  request_sha256 bytea CONSTRAINT join_tokens_request_check CHECK (octet_length(request_sha256) = 32),
  CONSTRAINT join_tokens_expires_check CHECK (expires_at > created_at AND expires_at <= created_at + interval '30 days'),
  CONSTRAINT join_tokens_used_check CHECK (
    (used_at IS NULL) = (used_by IS NULL) AND (used_at IS NULL) = (request_sha256 IS NULL)),
  CONSTRAINT join_tokens_used_in_time_check CHECK (used_at < expires_at),
  CONSTRAINT join_tokens_used_by_name_check CHECK (used_by = server_name));

CREATE FUNCTION join_tokens_check_once() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF OLD.used_at IS NOT NULL AND (NEW.used_at, NEW.used_by, NEW.request_sha256)
       IS DISTINCT FROM (OLD.used_at, OLD.used_by, OLD.request_sha256) THEN
    RAISE EXCEPTION 'this token was used' USING ERRCODE = '23514', CONSTRAINT = 'join_tokens_once_check';
  END IF;
  RETURN NEW; END $$;
CREATE TRIGGER join_tokens_once BEFORE UPDATE ON join_tokens FOR EACH ROW EXECUTE FUNCTION join_tokens_check_once();

CREATE TABLE certificates (
  serial text PRIMARY KEY CONSTRAINT certificates_serial_check CHECK (serial ~ '^[0-9a-f]{32}$'),
  role text NOT NULL CONSTRAINT certificates_role_check CHECK (role IN (
    'api-server', 'network-controller', 'instance-manager', 'hypervisor-agent', 'network-agent', 'container-agent',
    'storage-agent', 'bus', 'cluster', 'database', 'operator')),
  -- The server. A node has its row only after its first report, so this is no reference.
  name text NOT NULL CONSTRAINT certificates_name_check CHECK (name ~ '^[a-z0-9][a-z0-9.-]{0,49}$'),
  -- Host names and addresses in it, which the next one will have too.
  hosts text[] NOT NULL DEFAULT '{}',
  -- Who signed it.
  authority_sha256 text NOT NULL CONSTRAINT certificates_authority_check CHECK (authority_sha256 ~ '^[0-9a-f]{64}$'),
  issued_at timestamptz NOT NULL DEFAULT now(),
  not_after timestamptz NOT NULL,
  revoked_at timestamptz,
  reason text CONSTRAINT certificates_reason_check CHECK (reason <> ''),
  CONSTRAINT certificates_not_after_check CHECK (not_after > issued_at),
  CONSTRAINT certificates_revoked_check CHECK ((revoked_at IS NULL) = (reason IS NULL)));
CREATE INDEX certificates_name_idx ON certificates (name) WHERE revoked_at IS NULL;

-- What a certificate says is signed, and what was revoked stays revoked.
CREATE FUNCTION certificates_check_final() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF (NEW.serial, NEW.role, NEW.name, NEW.hosts, NEW.authority_sha256, NEW.not_after)
       IS DISTINCT FROM (OLD.serial, OLD.role, OLD.name, OLD.hosts, OLD.authority_sha256, OLD.not_after) THEN
    RAISE EXCEPTION 'a certificate does not change' USING ERRCODE = '23514', CONSTRAINT = 'certificates_signed_check';
  END IF;
  IF OLD.revoked_at IS NOT NULL AND (NEW.revoked_at, NEW.reason) IS DISTINCT FROM (OLD.revoked_at, OLD.reason) THEN
    RAISE EXCEPTION 'this certificate is revoked' USING ERRCODE = '23514', CONSTRAINT = 'certificates_final_check';
  END IF;
  RETURN NEW; END $$;
CREATE TRIGGER certificates_final BEFORE UPDATE ON certificates FOR EACH ROW EXECUTE FUNCTION certificates_check_final();

-- Removing a node revokes, whoever removes it: nobody can forget to.
CREATE FUNCTION nodes_revoke_certificates() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  UPDATE certificates SET revoked_at = now(), reason = 'the node was removed' WHERE name = NEW.name AND revoked_at IS NULL;
  RETURN NULL; END $$;
CREATE TRIGGER nodes_revoke AFTER UPDATE OF removed_at ON nodes FOR EACH ROW
  WHEN (OLD.removed_at IS NULL AND NEW.removed_at IS NOT NULL) EXECUTE FUNCTION nodes_revoke_certificates();
