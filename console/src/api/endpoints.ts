/**
 * The calls the console makes, one endpoint per route. The shapes come from the generated schema; cache tags are added
 * in `index.ts`.
 */
import type { FetchArgs, FetchBaseQueryMeta } from '@reduxjs/toolkit/query/react';
import { randomUuid } from '../util/uuid';
import { baseApi } from './baseApi';
import type { ApiProblem } from './errors';
import type {
  AssignPrivateIps,
  AssociateVpcCidrBlock,
  AttachNetworkInterface,
  ConsoleOutput,
  CreateNetworkAcl,
  CreateNetworkInterface,
  CreatePrefixList,
  CreateRoute,
  CreateRouteTable,
  CreateSecurityGroup,
  CreateSecurityGroupRule,
  CreateSubnet,
  CreateVpc,
  Image,
  Instance,
  InstanceType,
  InternetGateway,
  KeyPair,
  LaunchInstanceRequest,
  LoginRequest,
  Me,
  NetworkAcl,
  NetworkInterface,
  Page,
  PrefixList,
  PutNetworkAclEntry,
  RefreshRequest,
  ReplaceNetworkAclAssociation,
  RouteDestination,
  RouteTable,
  SecurityGroup,
  SecurityGroupRule,
  Subnet,
  TokenResponse,
  UpdateNetworkInterface,
  UpdatePrefixList,
  UpdateSecurityGroup,
  UpdateSubnet,
  Vpc,
} from './types';

/** Rows of the first page of instances, which somebody waits for, and of those that follow. */
export const FIRST_PAGE = 100;
const NEXT_PAGE = 500;
/** Rows per request of lists that are read as a whole; the most the server gives. */
const WHOLE_PAGE = 1000;
/** Lists that are read as a whole (for a select box) stop here; nobody scrolls further. */
const WHOLE_LIST_LIMIT = 2000;

type Answer<T> = { data: T; meta?: FetchBaseQueryMeta } | { error: ApiProblem; meta?: FetchBaseQueryMeta };
type Fetch = (args: string | FetchArgs) => unknown;

/** Reads a list to its end, page by page. */
async function wholeList<T>(
  fetch: Fetch,
  path: string,
  params: Record<string, string> = {},
): Promise<Answer<T[]>> {
  const items: T[] = [];
  let cursor: string | null = null;
  do {
    const query: Record<string, string | number> = { ...params, limit: WHOLE_PAGE };
    if (cursor !== null) {
      query.cursor = cursor;
    }
    const answer = (await fetch({ url: path, params: query })) as Answer<Page<T>>;
    if ('error' in answer) {
      return { error: answer.error };
    }
    items.push(...answer.data.items);
    cursor = answer.data.next_cursor ?? null;
  } while (cursor !== null && items.length < WHOLE_LIST_LIMIT);
  return { data: items };
}

/** The header that lets a POST be repeated without doing it twice. */
function once(key: string = randomUuid()): Record<string, string> {
  return { 'Idempotency-Key': key };
}

const path = encodeURIComponent;

/** Something to be made. The same body keeps its key until it has been: a lost answer makes nothing twice. */
interface Creation<Body> {
  key: string;
  body: Body;
}
function creation<Body>(url: string) {
  return ({ key, body }: Creation<Body>) => ({ url, method: 'POST', headers: once(key), body });
}
/** Something to be deleted, by its id. */
function deletion(collection: string) {
  return (id: string) => ({ url: `${collection}/${path(id)}`, method: 'DELETE' });
}

/** A body for one thing. */
interface Change<Body> {
  id: string;
  body: Body;
}

export const endpointsApi = baseApi.injectEndpoints({
  endpoints: (build) => ({
    login: build.mutation<TokenResponse, LoginRequest>({
      query: (body) => ({ url: 'auth/login', method: 'POST', body }),
    }),
    logout: build.mutation<unknown, RefreshRequest>({
      query: (body) => ({ url: 'auth/logout', method: 'POST', body }),
    }),
    getMe: build.query<Me, void>({ query: () => 'auth/me' }),

    listInstances: build.infiniteQuery<Page<Instance>, void, string | null>({
      infiniteQueryOptions: {
        initialPageParam: null,
        getNextPageParam: (page) => page.next_cursor ?? undefined,
      },
      query: ({ pageParam }) => ({
        url: 'instances',
        params: pageParam === null ? { limit: FIRST_PAGE } : { limit: NEXT_PAGE, cursor: pageParam },
      }),
    }),
    getInstance: build.query<Instance, string>({ query: (id) => `instances/${path(id)}` }),
    launchInstance: build.mutation<Instance, { key: string; body: LaunchInstanceRequest }>({
      query: ({ key, body }) => ({ url: 'instances', method: 'POST', headers: once(key), body }),
    }),
    startInstance: build.mutation<Instance | null, string>({
      query: (id) => ({ url: `instances/${path(id)}/start`, method: 'POST', headers: once() }),
    }),
    stopInstance: build.mutation<Instance | null, string>({
      query: (id) => ({ url: `instances/${path(id)}/stop`, method: 'POST', headers: once() }),
    }),
    rebootInstance: build.mutation<Instance | null, string>({
      query: (id) => ({ url: `instances/${path(id)}/reboot`, method: 'POST', headers: once() }),
    }),
    terminateInstance: build.mutation<Instance | null, string>({
      query: (id) => ({ url: `instances/${path(id)}`, method: 'DELETE' }),
    }),
    getConsoleOutput: build.query<ConsoleOutput, string>({
      query: (id) => `instances/${path(id)}/console-output`,
      keepUnusedDataFor: 0,
    }),

    listImages: build.query<Image[], void>({
      queryFn: (_arg, _api, _extra, fetch) => wholeList<Image>(fetch, 'images'),
    }),
    listInstanceTypes: build.query<InstanceType[], void>({
      queryFn: (_arg, _api, _extra, fetch) => wholeList<InstanceType>(fetch, 'instance-types'),
    }),
    createVpc: build.mutation<Vpc, Creation<CreateVpc>>({ query: creation('vpcs') }),
    createDefaultVpc: build.mutation<Vpc, void>({
      query: () => ({ url: 'vpcs/default', method: 'POST', headers: once() }),
    }),
    updateVpc: build.mutation<Vpc, Change<{ name: string }>>({
      query: ({ id, body }) => ({ url: `vpcs/${path(id)}`, method: 'PUT', body }),
    }),
    deleteVpc: build.mutation<null, string>({ query: deletion('vpcs') }),
    createSubnet: build.mutation<Subnet, Change<CreateSubnet>>({
      query: ({ id, body }) => ({ url: `vpcs/${path(id)}/subnets`, method: 'POST', headers: once(), body }),
    }),
    updateSubnet: build.mutation<Subnet, Change<UpdateSubnet>>({
      query: ({ id, body }) => ({ url: `subnets/${path(id)}`, method: 'PUT', body }),
    }),
    deleteSubnet: build.mutation<null, string>({ query: deletion('subnets') }),
    getVpc: build.query<Vpc, string>({ query: (id) => `vpcs/${path(id)}` }),
    associateVpcCidrBlock: build.mutation<Vpc, Change<AssociateVpcCidrBlock>>({
      query: ({ id, body }) => ({
        url: `vpcs/${path(id)}/cidr-blocks`,
        method: 'POST',
        headers: once(),
        body,
      }),
    }),
    disassociateVpcCidrBlock: build.mutation<Vpc, { id: string; association: string }>({
      query: ({ id, association }) => ({
        url: `vpcs/${path(id)}/cidr-blocks/${path(association)}`,
        method: 'DELETE',
      }),
    }),
    listVpcs: build.query<Vpc[], void>({
      queryFn: (_arg, _api, _extra, fetch) => wholeList<Vpc>(fetch, 'vpcs'),
    }),
    listSubnets: build.query<Subnet[], void>({
      queryFn: (_arg, _api, _extra, fetch) => wholeList<Subnet>(fetch, 'subnets'),
    }),
    listSecurityGroups: build.query<SecurityGroup[], { vpc_id?: string }>({
      queryFn: ({ vpc_id }, _api, _extra, fetch) =>
        wholeList<SecurityGroup>(fetch, 'security-groups', vpc_id === undefined ? {} : { vpc_id }),
    }),
    createSecurityGroup: build.mutation<SecurityGroup, Creation<CreateSecurityGroup>>({
      query: creation('security-groups'),
    }),
    updateSecurityGroup: build.mutation<SecurityGroup, Change<UpdateSecurityGroup>>({
      query: ({ id, body }) => ({ url: `security-groups/${path(id)}`, method: 'PUT', body }),
    }),
    deleteSecurityGroup: build.mutation<null, string>({ query: deletion('security-groups') }),
    getSecurityGroup: build.query<SecurityGroup, string>({ query: (id) => `security-groups/${path(id)}` }),
    addSecurityGroupRule: build.mutation<SecurityGroupRule, Change<CreateSecurityGroupRule>>({
      query: ({ id, body }) => ({
        url: `security-groups/${path(id)}/rules`,
        method: 'POST',
        headers: once(),
        body,
      }),
    }),
    removeSecurityGroupRule: build.mutation<SecurityGroup, { id: string; rule: string }>({
      query: ({ id, rule }) => ({
        url: `security-groups/${path(id)}/rules/${path(rule)}`,
        method: 'DELETE',
      }),
    }),
    listNetworkAcls: build.query<NetworkAcl[], void>({
      queryFn: (_arg, _api, _extra, fetch) => wholeList<NetworkAcl>(fetch, 'network-acls'),
    }),
    createNetworkAcl: build.mutation<NetworkAcl, Creation<CreateNetworkAcl>>({
      query: creation('network-acls'),
    }),
    updateNetworkAcl: build.mutation<NetworkAcl, Change<{ name: string }>>({
      query: ({ id, body }) => ({ url: `network-acls/${path(id)}`, method: 'PUT', body }),
    }),
    deleteNetworkAcl: build.mutation<null, string>({ query: deletion('network-acls') }),
    getNetworkAcl: build.query<NetworkAcl, string>({ query: (id) => `network-acls/${path(id)}` }),
    addNetworkAclEntry: build.mutation<NetworkAcl, Change<PutNetworkAclEntry>>({
      query: ({ id, body }) => ({
        url: `network-acls/${path(id)}/entries`,
        method: 'POST',
        headers: once(),
        body,
      }),
    }),
    replaceNetworkAclEntry: build.mutation<NetworkAcl, Change<PutNetworkAclEntry>>({
      query: ({ id, body }) => ({ url: `network-acls/${path(id)}/entries`, method: 'PUT', body }),
    }),
    removeNetworkAclEntry: build.mutation<NetworkAcl, { id: string; direction: string; rule_number: number }>(
      {
        query: ({ id, ...params }) => ({
          url: `network-acls/${path(id)}/entries`,
          method: 'DELETE',
          params,
        }),
      },
    ),
    associateNetworkAcl: build.mutation<NetworkAcl, Change<ReplaceNetworkAclAssociation>>({
      query: ({ id, body }) => ({
        url: `network-acls/${path(id)}/associations`,
        method: 'POST',
        headers: once(),
        body,
      }),
    }),
    listInternetGateways: build.query<InternetGateway[], void>({
      queryFn: (_arg, _api, _extra, fetch) => wholeList<InternetGateway>(fetch, 'internet-gateways'),
    }),

    createInternetGateway: build.mutation<InternetGateway, { name?: string }>({
      query: (body) => ({ url: 'internet-gateways', method: 'POST', headers: once(), body }),
    }),
    attachInternetGateway: build.mutation<InternetGateway, { id: string; vpc_id: string }>({
      query: ({ id, ...body }) => ({
        url: `internet-gateways/${path(id)}/attach`,
        method: 'POST',
        headers: once(),
        body,
      }),
    }),
    detachInternetGateway: build.mutation<InternetGateway, { id: string; vpc_id: string }>({
      query: ({ id, ...body }) => ({
        url: `internet-gateways/${path(id)}/detach`,
        method: 'POST',
        headers: once(),
        body,
      }),
    }),
    deleteInternetGateway: build.mutation<null, string>({ query: deletion('internet-gateways') }),

    createNetworkInterface: build.mutation<NetworkInterface, Creation<CreateNetworkInterface>>({
      query: creation('network-interfaces'),
    }),
    deleteNetworkInterface: build.mutation<null, string>({ query: deletion('network-interfaces') }),
    listNetworkInterfaces: build.query<NetworkInterface[], void>({
      queryFn: (_arg, _api, _extra, fetch) => wholeList<NetworkInterface>(fetch, 'network-interfaces'),
    }),
    getNetworkInterface: build.query<NetworkInterface, string>({
      query: (id) => `network-interfaces/${path(id)}`,
    }),
    updateNetworkInterface: build.mutation<NetworkInterface, Change<UpdateNetworkInterface>>({
      query: ({ id, body }) => ({ url: `network-interfaces/${path(id)}`, method: 'PUT', body }),
    }),
    attachNetworkInterface: build.mutation<NetworkInterface, Change<AttachNetworkInterface>>({
      query: ({ id, body }) => ({
        url: `network-interfaces/${path(id)}/attach`,
        method: 'POST',
        headers: once(),
        body,
      }),
    }),
    detachNetworkInterface: build.mutation<NetworkInterface, string>({
      query: (id) => ({ url: `network-interfaces/${path(id)}/detach`, method: 'POST', headers: once() }),
    }),
    assignPrivateIps: build.mutation<NetworkInterface, Change<AssignPrivateIps>>({
      query: ({ id, body }) => ({
        url: `network-interfaces/${path(id)}/private-ips`,
        method: 'POST',
        headers: once(),
        body,
      }),
    }),
    unassignPrivateIp: build.mutation<NetworkInterface, { id: string; address: string }>({
      query: ({ id, address }) => ({
        url: `network-interfaces/${path(id)}/private-ips/unassign`,
        method: 'POST',
        headers: once(),
        body: { private_ips: [address] },
      }),
    }),

    listRouteTables: build.query<RouteTable[], void>({
      queryFn: (_arg, _api, _extra, fetch) => wholeList<RouteTable>(fetch, 'route-tables'),
    }),
    createRouteTable: build.mutation<RouteTable, Creation<CreateRouteTable>>({
      query: creation('route-tables'),
    }),
    updateRouteTable: build.mutation<RouteTable, Change<{ name: string }>>({
      query: ({ id, body }) => ({ url: `route-tables/${path(id)}`, method: 'PUT', body }),
    }),
    deleteRouteTable: build.mutation<null, string>({ query: deletion('route-tables') }),
    getRouteTable: build.query<RouteTable, string>({ query: (id) => `route-tables/${path(id)}` }),
    addRoute: build.mutation<RouteTable, Change<CreateRoute>>({
      query: ({ id, body }) => ({
        url: `route-tables/${path(id)}/routes`,
        method: 'POST',
        headers: once(),
        body,
      }),
    }),
    replaceRoute: build.mutation<RouteTable, Change<CreateRoute>>({
      query: ({ id, body }) => ({ url: `route-tables/${path(id)}/routes`, method: 'PUT', body }),
    }),
    removeRoute: build.mutation<RouteTable, { id: string; destination: RouteDestination }>({
      query: ({ id, destination }) => ({
        url: `route-tables/${path(id)}/routes`,
        method: 'DELETE',
        params: destination,
      }),
    }),
    associateRouteTable: build.mutation<RouteTable, { id: string; subnet_id: string }>({
      query: ({ id, ...body }) => ({
        url: `route-tables/${path(id)}/associations`,
        method: 'POST',
        headers: once(),
        body,
      }),
    }),
    disassociateRouteTable: build.mutation<RouteTable, { id: string; association: string }>({
      query: ({ id, association }) => ({
        url: `route-tables/${path(id)}/associations/${path(association)}`,
        method: 'DELETE',
      }),
    }),
    /** Lets whoever follows table `id` by an association follow `route_table_id` instead. */
    moveRouteTableAssociation: build.mutation<
      RouteTable,
      { id: string; association: string; route_table_id: string }
    >({
      query: ({ id, association, route_table_id }) => ({
        url: `route-tables/${path(id)}/associations/${path(association)}`,
        method: 'PUT',
        body: { route_table_id },
      }),
    }),

    listPrefixLists: build.query<PrefixList[], void>({
      queryFn: (_arg, _api, _extra, fetch) => wholeList<PrefixList>(fetch, 'prefix-lists'),
    }),
    createPrefixList: build.mutation<PrefixList, Creation<CreatePrefixList>>({
      query: creation('prefix-lists'),
    }),
    deletePrefixList: build.mutation<null, string>({ query: deletion('prefix-lists') }),
    getPrefixList: build.query<PrefixList, string>({ query: (id) => `prefix-lists/${path(id)}` }),
    updatePrefixList: build.mutation<PrefixList, Change<UpdatePrefixList>>({
      query: ({ id, body }) => ({ url: `prefix-lists/${path(id)}`, method: 'PUT', body }),
    }),

    listKeyPairs: build.query<KeyPair[], void>({
      queryFn: (_arg, _api, _extra, fetch) => wholeList<KeyPair>(fetch, 'key-pairs'),
    }),
  }),
});
