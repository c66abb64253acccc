/**
 * The shapes the REST API speaks. They come from `schema.gen.ts`, which `npm run gen:api` makes of
 * `openapi/gon-v1.json`; here they get short names, and words that the contract only describes in prose become types.
 * The rest of the console imports them from here and nowhere else.
 *
 * Answers may carry more than is listed.
 */
import type { components } from './schema.gen';

type Schema = components['schemas'];

export interface Page<T> {
  items: T[];
  next_cursor: string | null;
}

export type LoginRequest = Schema['LoginRequest'];
export type RefreshRequest = Schema['RefreshRequest'];
export type TokenResponse = Schema['TokenResponse'];
export type Me = Schema['Me'];
export type ProblemBody = Schema['Problem'];

export const INSTANCE_STATES = [
  'pending',
  'running',
  'stopping',
  'stopped',
  'shutting-down',
  'terminated',
  // Not heard of: its node is silent.
  'unknown',
] as const;
export type InstanceState = (typeof INSTANCE_STATES)[number];

export type Applied = Schema['Applied'];
export type Instance = Omit<Schema['Instance'], 'state'> & { state: InstanceState };
export type LaunchInstanceRequest = Schema['LaunchInstance'];
export type ConsoleOutput = Schema['ConsoleOutput'];
export type Image = Schema['Image'];
export type InstanceType = Schema['InstanceType'];
export type KeyPair = Schema['KeyPair'];
export type Vpc = Schema['Vpc'];
export type Subnet = Omit<Schema['Subnet'], 'subnet_type'> & { subnet_type: 'public' | 'private' };
export type SecurityGroupRule = Omit<Schema['SecurityGroupRule'], 'direction'> & {
  direction: 'inbound' | 'outbound';
};
export type SecurityGroup = Omit<Schema['SecurityGroup'], 'rules'> & { rules: SecurityGroupRule[] };
export type NetworkAclEntry = Omit<Schema['NetworkAclEntry'], 'direction' | 'action'> & {
  direction: 'inbound' | 'outbound';
  action: 'allow' | 'deny';
};
export type InternetGateway = Schema['InternetGateway'];
export type NetworkInterface = Schema['NetworkInterface'];
/** To a block, or to the blocks of a prefix list, of which another route may have some. */
export type Route = Omit<Schema['Route'], 'destination_cidr'> & {
  destination_cidr?: string | null;
  destination_prefix_list_id?: string | null;
  ignored_cidrs?: string[];
};
export type RouteTable = Omit<Schema['RouteTable'], 'routes'> & { routes: Route[] };
export type PrefixListEntry = Schema['PrefixListEntry'];
export type PrefixList = Schema['PrefixList'];
export type NetworkAcl = Omit<Schema['NetworkAcl'], 'entries'> & { entries: NetworkAclEntry[] };

export type CreateVpc = Schema['CreateVpc'];
export type CreateSubnet = Schema['CreateSubnet'];
export type UpdateSecurityGroup = Schema['UpdateSecurityGroup'];
export type UpdateSubnet = Schema['UpdateSubnet'];
export type CreateSecurityGroup = Schema['CreateSecurityGroup'];
export type CreateNetworkAcl = Schema['CreateNetworkAcl'];
export type CreateRouteTable = Schema['CreateRouteTable'];
export type CreateNetworkInterface = Schema['CreateNetworkInterface'];
export type CreatePrefixList = Schema['CreatePrefixList'];
export type AssociateVpcCidrBlock = Schema['AssociateVpcCidrBlock'];
export type CreateSecurityGroupRule = Schema['CreateSecurityGroupRule'];
export type PutNetworkAclEntry = Schema['PutNetworkAclEntry'];
export type ReplaceNetworkAclAssociation = Schema['ReplaceNetworkAclAssociation'];
export type AttachNetworkInterface = Schema['AttachNetworkInterface'];
export type AssignPrivateIps = Schema['AssignPrivateIps'];
export type UpdateNetworkInterface = Schema['UpdateNetworkInterface'];
export type RouteDestination = { destination_cidr: string } | { destination_prefix_list_id: string };
export type CreateRoute = RouteDestination & { target_id: string };
export type UpdatePrefixList = Schema['UpdatePrefixList'];

/** What the server sends on `/api/v1/ws` (not part of OpenAPI). */
export type ServerMessage =
  | { type: 'ready' }
  | ResourceEvent
  | { type: 'error'; code: string; detail: string };

/** One change of one resource. Of instances the event brings the whole, or null when it is gone. */
export type ResourceEvent = { type: 'event'; seq: number; id: string } & (
  | { resource: 'instance'; item: Instance | null }
  | {
      resource:
        | 'vpc'
        | 'subnet'
        | 'security_group'
        | 'network_acl'
        | 'internet_gateway'
        | 'network_interface'
        | 'route_table'
        | 'prefix_list'
        | 'key_pair';
      item: unknown;
    }
);
