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

/** On how many of the nodes that must have a change in force it is. */
export interface Applied {
  generation: number;
  nodes: number;
  acked: number;
}

export interface Instance {
  id: string;
  uuid: string;
  name: string;
  state: InstanceState;
  state_reason: string | null;
  instance_type: string;
  vcpus: number;
  memory_mib: number;
  /** GiB; 0 when it runs from memory. */
  disk_gib: number;
  image_id: string;
  vpc_id: string;
  subnet_id: string;
  availability_zone: string;
  network_interface_id: string | null;
  private_ip: string | null;
  public_ip: string | null;
  mac_address: string | null;
  security_group_ids: string[];
  key_name: string | null;
  worker_node: string | null;
  generation: number;
  applied: Applied;
  /** When it last started. */
  launched_at: string | null;
  created_at: string;
  updated_at: string;
  terminated_at: string | null;
}

export interface LaunchInstanceRequest {
  name: string;
  image_id: string;
  instance_type: string;
  subnet_id: string;
  /** 1 to 5; left out: the VPC's default group. */
  security_group_ids?: string[];
  key_name?: string;
  associate_public_ip: boolean;
  /** Base64 of at most 16 KiB. */
  user_data?: string;
}

export interface ConsoleOutput {
  /** Base64 of the raw bytes of the serial console. */
  output: string;
  timestamp: string;
}

export interface Image {
  id: string;
  uuid: string;
  name: string;
  description: string;
  /** `initramfs` or `disk`. */
  kind: string;
  architecture: string;
  state: string;
  /** The least memory that boots it. */
  min_memory_mib: number;
  disk_gib: number;
  created_at: string;
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
  subnet_type: 'public' | 'private';
  /** Whether launches get a public address unless they say otherwise. */
  map_public_ip_on_launch: boolean;
  available_ip_address_count: number;
  created_at: string;
}

export interface Vpc {
  id: string;
  uuid: string;
  name: string;
  cidr_block: string;
  state: string;
  created_at: string;
}

export interface SecurityGroupRule {
  id: string;
  direction: 'inbound' | 'outbound';
  protocol: string;
  /** `"80"`, `"80-443"` or `"all"`. */
  port_range: string;
  icmp_type: number | null;
  icmp_code: number | null;
  /** A CIDR block or the id of a group. */
  source_destination: string;
  description: string;
}

export interface SecurityGroup {
  id: string;
  uuid: string;
  name: string;
  description: string;
  vpc_id: string;
  /** Whether it came with the VPC. */
  is_default: boolean;
  rules: SecurityGroupRule[];
  created_at: string;
}

export interface KeyPair {
  id: string;
  uuid: string;
  name: string;
  /** `ed25519` or `rsa`. */
  key_type: string;
  fingerprint: string;
  created_at: string;
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
