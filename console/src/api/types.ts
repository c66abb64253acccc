/**
 * The shapes the REST API speaks (design.md §5), by hand until `openapi/gon-v1.json` exists.
 *
 * Everything else imports these names from here and nowhere else, so the generated schema can take over by turning
 * each one into an alias (`export type Instance = components['schemas']['Instance']`).
 *
 * Answers may carry more fields than are listed; a field that an older server does not send is optional here.
 */

export interface Page<T> {
  items: T[];
  next_cursor?: string | null;
}

/** An RFC 9457 problem body. */
export interface ProblemBody {
  type?: string;
  title?: string;
  status?: number;
  /** EC2's error code, for example `InvalidParameterValue`. */
  code?: string;
  detail?: string;
  /** The field of the request body that is wrong. */
  field?: string | null;
  request_id?: string;
  /** What stands in the way of a deletion. */
  blockers?: Blocker[] | null;
}

/** A blocker is an id, or an object that has one. */
export type Blocker = string | { id?: string; type?: string; resource?: string; name?: string | null };

export interface LoginRequest {
  username: string;
  password: string;
}

export interface TokenResponse {
  access_token: string;
  token_type: 'Bearer';
  /** Seconds. */
  expires_in: number;
  /** Rotates: every refresh answers a new one. */
  refresh_token: string;
}

export interface Me {
  user: { id: string; username: string; role: string };
  account: { id: string; name: string };
}

export const INSTANCE_STATES = [
  'pending',
  'running',
  'stopping',
  'stopped',
  'shutting-down',
  'terminated',
] as const;
export type InstanceState = (typeof INSTANCE_STATES)[number];

export interface Instance {
  id: string;
  uuid: string;
  name: string;
  state: InstanceState;
  state_reason?: string | null;
  instance_type: string;
  image_id: string;
  private_ip: string | null;
  public_ip: string | null;
  subnet_id: string;
  vpc_id: string;
  availability_zone: string;
  security_group_ids: string[];
  key_name: string | null;
  worker_node: string | null;
  generation: number;
  created_at: string;
  updated_at: string;
}

export interface LaunchInstanceRequest {
  name: string;
  image_id: string;
  instance_type: string;
  subnet_id: string;
  security_group_ids?: string[];
  key_name?: string;
  associate_public_ip: boolean;
  /** Base64, as EC2 has it. */
  user_data?: string;
}

export interface ConsoleOutput {
  /** Base64 of the raw bytes of the serial console. */
  output: string;
  timestamp: string | null;
}

export interface Image {
  id: string;
  uuid: string;
  name: string;
  description?: string | null;
  architecture?: string;
  state?: string;
  /** The login that the image's SSH daemon expects. */
  default_user?: string | null;
  created_at?: string;
}

export interface InstanceType {
  name: string;
  vcpus: number;
  memory_mib: number;
}

export interface Subnet {
  id: string;
  uuid: string;
  name: string;
  vpc_id: string;
  cidr_block: string;
  availability_zone: string;
  subnet_type?: 'public' | 'private';
  available_ip_count?: number;
  created_at: string;
}

export interface Vpc {
  id: string;
  uuid: string;
  name: string;
  cidr_block: string;
  state: string;
  is_default?: boolean;
  created_at: string;
}

export interface SecurityGroupRule {
  id: string;
  direction: 'inbound' | 'outbound';
  protocol: string;
  /** `"80"`, `"80-443"` or `"all"`. */
  port_range: string | null;
  /** A CIDR block or the id of a group. */
  source_destination: string;
  description?: string | null;
}

export interface SecurityGroup {
  id: string;
  uuid: string;
  name: string;
  description?: string | null;
  vpc_id: string;
  rules?: SecurityGroupRule[];
  created_at: string;
}

export interface KeyPair {
  id: string;
  name: string;
  fingerprint?: string;
  created_at?: string;
}

/** What the server sends on `/api/v1/ws`. */
export type ServerMessage =
  | { type: 'ready' }
  | ResourceEvent
  | { type: 'error'; code?: string; detail?: string };

/** One change of one resource. `item` is the resource after the change; null when it is gone. */
export type ResourceEvent = { type: 'event'; seq: number } & (
  | { resource: 'instance'; id: string; item: Instance | null }
  | { resource: 'vpc' | 'subnet' | 'security_group'; id: string; item: unknown }
);
