/** The part of the in-memory cloud that makes and deletes things of the network. */
import type {
  CreateNetworkAcl,
  CreateNetworkInterface,
  CreatePrefixList,
  CreateRouteTable,
  CreateSecurityGroup,
  CreateSubnet,
  CreateVpc,
  Subnet,
  UpdateSubnet,
  Vpc,
} from '../src/api/types';
import { block, type Said } from './network.ts';
import { found, Refusal } from './refusal.ts';
import { acl, gateway, group, looseInterface, mintId, routeTable, subnet, vpc, type World } from './seed.ts';

export const LIFECYCLE_ROUTES = [
  'POST /vpcs',
  'POST /vpcs/default',
  'PUT /vpcs/{id}',
  'PUT /security-groups/{id}',
  'PUT /network-acls/{id}',
  'PUT /route-tables/{id}',
  'DELETE /vpcs/{id}',
  'POST /vpcs/{id}/subnets',
  'PUT /subnets/{id}',
  'DELETE /subnets/{id}',
  'POST /security-groups',
  'DELETE /security-groups/{id}',
  'POST /network-acls',
  'DELETE /network-acls/{id}',
  'POST /route-tables',
  'DELETE /route-tables/{id}',
  'POST /network-interfaces',
  'DELETE /network-interfaces/{id}',
  'POST /prefix-lists',
  'DELETE /prefix-lists/{id}',
  'POST /internet-gateways',
  'POST /internet-gateways/{id}/attach',
  'POST /internet-gateways/{id}/detach',
  'DELETE /internet-gateways/{id}',
] as const;
export type LifecycleRoute = (typeof LIFECYCLE_ROUTES)[number];

/** What was made or changed; null for what was deleted. */
export function makeOrDelete(
  world: World,
  route: LifecycleRoute,
  { ids: [id = ''], body }: Said,
): object | null {
  switch (route) {
    case 'POST /vpcs':
      return addVpc(world, body as CreateVpc);
    case 'POST /vpcs/default': {
      const made = addVpc(world, { name: 'default', cidr_block: '172.31.0.0/16' });
      made.is_default = true;
      return made;
    }
    case 'PUT /vpcs/{id}':
      return Object.assign(vpcOf(world, id), body);
    case 'PUT /security-groups/{id}':
      return Object.assign(one(world.securityGroups, 'Group', id), body);
    case 'PUT /network-acls/{id}':
      return Object.assign(one(world.networkAcls, 'NetworkAclID', id), body);
    case 'PUT /route-tables/{id}':
      return Object.assign(one(world.routeTables, 'RouteTableID', id), body);
    case 'DELETE /vpcs/{id}': {
      const own = ({ vpc_id }: { vpc_id?: string | null }) => vpc_id === vpcOf(world, id).id;
      deny(id, [
        ...world.subnets.filter(own),
        ...world.internetGateways.filter(own),
        ...world.networkInterfaces.filter(own),
        ...world.securityGroups.filter((item) => own(item) && !item.is_default),
        ...world.networkAcls.filter((item) => own(item) && !item.is_default),
        ...world.routeTables.filter((item) => own(item) && !item.is_main),
      ]);
      world.securityGroups = world.securityGroups.filter((item) => !own(item));
      world.networkAcls = world.networkAcls.filter((item) => !own(item));
      world.routeTables = world.routeTables.filter((item) => !own(item));
      world.vpcs = world.vpcs.filter((item) => item.id !== id);
      return null;
    }
    case 'POST /vpcs/{id}/subnets': {
      const { name, cidr_block, availability_zone } = body as CreateSubnet;
      block(cidr_block, 'cidr_block');
      if (world.subnets.some((item) => item.vpc_id === id && item.cidr_block === cidr_block)) {
        throw new Refusal(400, 'InvalidSubnet.Conflict', 'the block overlaps another subnet', 'cidr_block');
      }
      const made = subnet(vpcOf(world, id), name, cidr_block, availability_zone ?? 'gon-1a', 'private');
      world.subnets = [...world.subnets, made];
      const usual = world.networkAcls.find((item) => item.vpc_id === id && item.is_default);
      usual?.associations.push({ id: mintId('aclassoc').id, subnet_id: made.id });
      return made;
    }
    case 'PUT /subnets/{id}':
      return Object.assign(subnetOf(world, id), body as UpdateSubnet);
    case 'DELETE /subnets/{id}':
      subnetOf(world, id);
      deny(
        id,
        world.networkInterfaces.filter(({ subnet_id }) => subnet_id === id),
      );
      world.subnets = world.subnets.filter((item) => item.id !== id);
      for (const holder of [...world.networkAcls, ...world.routeTables]) {
        holder.associations = holder.associations.filter(({ subnet_id }) => subnet_id !== id);
      }
      return null;
    case 'POST /security-groups': {
      const { vpc_id, name, description } = body as CreateSecurityGroup;
      if (world.securityGroups.some((item) => item.vpc_id === vpc_id && item.name === name)) {
        throw new Refusal(409, 'InvalidGroup.Duplicate', 'the VPC has a group of that name', 'name');
      }
      const made = group(vpcOf(world, vpc_id), name, description ?? '', []);
      made.rules = made.rules.filter(({ direction }) => direction === 'outbound');
      world.securityGroups = [...world.securityGroups, made];
      return made;
    }
    case 'DELETE /security-groups/{id}': {
      const { name } = one(world.securityGroups, 'Group', id);
      const users = world.networkInterfaces.filter((item) => item.security_group_ids.includes(id));
      if (users.length > 0) {
        deny(name, users);
      }
      world.securityGroups = world.securityGroups.filter((item) => item.id !== id);
      return null;
    }
    case 'POST /network-acls': {
      const { vpc_id, name } = body as CreateNetworkAcl;
      const made = acl(vpcOf(world, vpc_id), name ?? '', false, [], []);
      made.name ||= made.id;
      world.networkAcls = [...world.networkAcls, made];
      return made;
    }
    case 'DELETE /network-acls/{id}':
      deny(
        id,
        one(world.networkAcls, 'NetworkAclID', id).associations.map(({ subnet_id }) => ({ id: subnet_id })),
      );
      world.networkAcls = world.networkAcls.filter((item) => item.id !== id);
      return null;
    case 'POST /route-tables': {
      const { vpc_id, name } = body as CreateRouteTable;
      const made = routeTable(vpcOf(world, vpc_id), name ?? '', [], []);
      made.name ||= made.id;
      world.routeTables = [...world.routeTables, made];
      return made;
    }
    case 'DELETE /route-tables/{id}':
      one(world.routeTables, 'RouteTableID', id);
      world.routeTables = world.routeTables.filter((item) => item.id !== id);
      return null;
    case 'POST /network-interfaces':
      return addInterface(world, body as CreateNetworkInterface);
    case 'DELETE /network-interfaces/{id}': {
      one(world.networkInterfaces, 'NetworkInterfaceID', id);
      world.networkInterfaces = world.networkInterfaces.filter((item) => item.id !== id);
      for (const table of world.routeTables) {
        table.routes = table.routes.map((known) =>
          known.target_id === id ? { ...known, state: 'blackhole' } : known,
        );
      }
      return null;
    }
    case 'POST /prefix-lists': {
      const { name, max_entries, entries } = body as CreatePrefixList;
      for (const [index, { cidr }] of (entries ?? []).entries()) {
        block(cidr, `entries[${index}]`);
      }
      const now = new Date().toISOString();
      const made = { ...mintId('pl'), name, max_entries, entries: entries ?? [], version: 1 };
      world.prefixLists = [...world.prefixLists, { ...made, created_at: now, updated_at: now }];
      return made;
    }
    case 'DELETE /prefix-lists/{id}':
      one(world.prefixLists, 'PrefixListId', id);
      deny(
        id,
        world.securityGroups.filter(({ rules }) => rules.some((rule) => rule.source_destination === id)),
      );
      world.prefixLists = world.prefixLists.filter((item) => item.id !== id);
      return null;
    case 'POST /internet-gateways': {
      const made = gateway({ id: '' } as Vpc, (body as { name?: string }).name ?? '');
      Object.assign(made, { vpc_id: null, state: 'detached', name: made.name || made.id });
      world.internetGateways = [...world.internetGateways, made];
      return made;
    }
    case 'POST /internet-gateways/{id}/attach': {
      const { vpc_id } = body as { vpc_id: string };
      return Object.assign(one(world.internetGateways, 'InternetGatewayID', id), {
        vpc_id,
        state: 'attached',
      });
    }
    case 'POST /internet-gateways/{id}/detach':
      return Object.assign(one(world.internetGateways, 'InternetGatewayID', id), {
        vpc_id: null,
        state: 'detached',
      });
    case 'DELETE /internet-gateways/{id}':
      one(world.internetGateways, 'InternetGatewayID', id);
      world.internetGateways = world.internetGateways.filter((item) => item.id !== id);
      return null;
  }
}

function one<T extends { id: string }>(items: T[], kind: string, id: string): T {
  return found(
    items.find((item) => item.id === id),
    kind,
    id,
  );
}

function vpcOf(world: World, id: string): Vpc {
  return one(world.vpcs, 'VpcID', id);
}

function subnetOf(world: World, id: string): Subnet {
  return one(world.subnets, 'SubnetID', id);
}

/** Refuses to delete what others depend on. */
function deny(what: string, dependents: { id: string }[]): void {
  if (dependents.length > 0) {
    throw new Refusal(
      409,
      'DependencyViolation',
      `${what} has dependents`,
      undefined,
      dependents.map(({ id }) => id),
    );
  }
}

function addVpc(world: World, { name, cidr_block }: CreateVpc): Vpc {
  block(cidr_block, 'cidr_block');
  if (Number(cidr_block.split('/')[1]) < 16) {
    throw new Refusal(400, 'InvalidVpc.Range', 'a VPC has a block of /16 to /28', 'cidr_block');
  }
  const made = vpc(name, cidr_block);
  world.vpcs = [...world.vpcs, made];
  world.securityGroups = [...world.securityGroups, group(made, 'default', 'Default group of the VPC', [])];
  world.networkAcls = [...world.networkAcls, acl(made, 'default', true, [], [])];
  world.routeTables = [...world.routeTables, routeTable(made, 'main', [], [])];
  return made;
}

function addInterface(world: World, body: CreateNetworkInterface) {
  const of = subnetOf(world, body.subnet_id);
  const taken = new Set(
    world.networkInterfaces.flatMap((item) => [item.private_ip, ...item.secondary_private_ips]),
  );
  const usual = vpcOf(world, of.vpc_id).default_security_group_id;
  const made = looseInterface(of, body.description ?? '', 200, body.security_group_ids ?? [usual]);
  made.private_ip = body.private_ip ?? made.private_ip;
  if (taken.has(made.private_ip)) {
    throw new Refusal(409, 'InvalidIPAddress.InUse', 'the address is in use', 'private_ip');
  }
  made.secondary_private_ips = Array.from({ length: body.secondary_private_ip_count ?? 0 }, (_, at) =>
    made.private_ip.replace(/\d+$/, String(210 + at)),
  );
  made.source_dest_check = body.source_dest_check ?? true;
  world.networkInterfaces = [made, ...world.networkInterfaces];
  return made;
}
