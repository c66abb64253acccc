/** The part of the in-memory cloud that is about rules, routes, interfaces and prefix lists. */
import type {
  Applied,
  AssignPrivateIps,
  AttachNetworkInterface,
  CreateRoute,
  CreateSecurityGroupRule,
  NetworkAcl,
  NetworkAclEntry,
  NetworkInterface,
  PutNetworkAclEntry,
  Route,
  RouteTable,
  SecurityGroupRule,
  UpdateNetworkInterface,
  UpdatePrefixList,
} from '../src/api/types';
import { found, Refusal } from './refusal.ts';
import { followTables, mintId, type World } from './seed.ts';

export const NETWORK_ROUTES = [
  'GET /vpcs/{id}',
  'POST /vpcs/{id}/cidr-blocks',
  'DELETE /vpcs/{id}/cidr-blocks/{association_id}',
  'GET /security-groups/{id}',
  'POST /security-groups/{id}/rules',
  'DELETE /security-groups/{id}/rules/{rule_id}',
  'GET /network-acls/{id}',
  'POST /network-acls/{id}/entries',
  'PUT /network-acls/{id}/entries',
  'DELETE /network-acls/{id}/entries',
  'POST /network-acls/{id}/associations',
  'GET /network-interfaces/{id}',
  'PUT /network-interfaces/{id}',
  'POST /network-interfaces/{id}/attach',
  'POST /network-interfaces/{id}/detach',
  'POST /network-interfaces/{id}/private-ips',
  'POST /network-interfaces/{id}/private-ips/unassign',
  'GET /route-tables/{id}',
  'POST /route-tables/{id}/routes',
  'PUT /route-tables/{id}/routes',
  'DELETE /route-tables/{id}/routes',
  'POST /route-tables/{id}/associations',
  'PUT /route-tables/{id}/associations/{association_id}',
  'DELETE /route-tables/{id}/associations/{association_id}',
  'GET /prefix-lists/{id}',
  'PUT /prefix-lists/{id}',
] as const;
export type NetworkRoute = (typeof NETWORK_ROUTES)[number];

/** What a request says besides its route. */
export interface Said {
  /** The words in the place of the route's braces. */
  ids: string[];
  query: URLSearchParams;
  body: unknown;
}

const CIDR = /^\d{1,3}(\.\d{1,3}){3}\/\d{1,2}$/;

export function block(text: string, field: string): string {
  if (!CIDR.test(text)) {
    throw new Refusal(400, 'InvalidParameterValue', 'is not an IPv4 block', field);
  }
  return text;
}

function isSameDestination(a: Partial<Route>, b: Partial<Route>): boolean {
  return (
    a.destination_cidr === b.destination_cidr && a.destination_prefix_list_id === b.destination_prefix_list_id
  );
}

export class MockNetwork {
  private readonly world: World;
  /** How far the last change of the network has come; every change counts its generation up. */
  applied: Applied = { generation: 7, nodes: 2, acked: 2 };

  constructor(world: World) {
    this.world = world;
  }

  /** The status and body of the answer to one of `NETWORK_ROUTES`. */
  answer(route: NetworkRoute, said: Said): [number, unknown] {
    const item = this.act(route, said);
    const isNew = /^POST .*(rules|entries|routes|associations|cidr-blocks)$/.test(route);
    return [isNew ? 201 : 200, route.startsWith('GET') ? this.shown(item) : this.changed(item)];
  }

  /** A thing as the answer to its change shows it. */
  changed(item: object): object {
    this.applied = { ...this.applied, generation: this.applied.generation + 1 };
    followTables(this.world);
    return this.shown(item);
  }

  private shown(item: object): object {
    return { ...item, generation: this.applied.generation, applied: this.applied };
  }

  private act(route: NetworkRoute, { ids: [id = '', other = ''], query, body }: Said): object {
    switch (route) {
      case 'GET /vpcs/{id}':
        return this.vpc(id);
      case 'POST /vpcs/{id}/cidr-blocks': {
        const vpc = this.vpc(id);
        const cidr_block = block((body as { cidr_block: string }).cidr_block, 'cidr_block');
        vpc.cidr_block_associations = [
          ...vpc.cidr_block_associations,
          { id: mintId('vpc-cidr-assoc').id, cidr_block, is_primary: false, state: 'associated' },
        ];
        return vpc;
      }
      case 'DELETE /vpcs/{id}/cidr-blocks/{association_id}': {
        const vpc = this.vpc(id);
        vpc.cidr_block_associations = vpc.cidr_block_associations.filter((known) => known.id !== other);
        return vpc;
      }
      case 'GET /security-groups/{id}':
        return this.group(id);
      case 'POST /security-groups/{id}/rules':
        return this.addRule(id, body as CreateSecurityGroupRule);
      case 'DELETE /security-groups/{id}/rules/{rule_id}': {
        const group = this.group(id);
        const rule = found(
          group.rules.find((item) => item.id === other),
          'SecurityGroupRuleId',
          other,
        );
        group.rules = group.rules.filter((item) => item !== rule);
        return group;
      }
      case 'GET /network-acls/{id}':
        return this.acl(id);
      case 'POST /network-acls/{id}/entries':
        return this.addEntry(id, body as PutNetworkAclEntry);
      case 'PUT /network-acls/{id}/entries': {
        const acl = this.acl(id);
        const { direction, rule_number } = body as PutNetworkAclEntry;
        acl.entries = acl.entries.filter(
          (known) => known.direction !== direction || known.rule_number !== rule_number,
        );
        return this.addEntry(id, body as PutNetworkAclEntry);
      }
      case 'DELETE /network-acls/{id}/entries': {
        const acl = this.acl(id);
        acl.entries = acl.entries.filter(
          ({ direction, rule_number }) =>
            direction !== query.get('direction') || `${rule_number}` !== query.get('rule_number'),
        );
        return acl;
      }
      case 'POST /network-acls/{id}/associations':
        return this.guard(this.acl(id), (body as { subnet_id: string }).subnet_id);
      case 'GET /network-interfaces/{id}':
        return this.interface(id);
      case 'PUT /network-interfaces/{id}':
        return Object.assign(this.interface(id), body as UpdateNetworkInterface);
      case 'POST /network-interfaces/{id}/attach':
        return this.attach(id, body as AttachNetworkInterface);
      case 'POST /network-interfaces/{id}/detach':
        return this.detach(id);
      case 'POST /network-interfaces/{id}/private-ips':
        return this.assign(id, body as AssignPrivateIps);
      case 'POST /network-interfaces/{id}/private-ips/unassign': {
        const item = this.interface(id);
        const { private_ips } = body as { private_ips: string[] };
        item.secondary_private_ips = item.secondary_private_ips.filter((ip) => !private_ips.includes(ip));
        return item;
      }
      case 'GET /route-tables/{id}':
        return this.table(id);
      case 'POST /route-tables/{id}/routes': {
        const table = this.table(id);
        const route = this.route(body as CreateRoute);
        if (table.routes.some((known) => isSameDestination(known, route))) {
          throw new Refusal(409, 'RouteAlreadyExists', 'there is a route to it', 'destination_cidr');
        }
        table.routes = [...table.routes, route];
        return table;
      }
      case 'PUT /route-tables/{id}/routes': {
        const table = this.table(id);
        const route = this.route(body as CreateRoute);
        table.routes = table.routes.map((known) => (isSameDestination(known, route) ? route : known));
        return table;
      }
      case 'DELETE /route-tables/{id}/routes': {
        const table = this.table(id);
        const said = Object.fromEntries(query) as Partial<Route>;
        table.routes = table.routes.filter((known) => !isSameDestination(known, said));
        return table;
      }
      case 'POST /route-tables/{id}/associations': {
        const table = this.table(id);
        const { subnet_id } = body as { subnet_id: string };
        table.associations = [...table.associations, { id: mintId('rtbassoc').id, subnet_id }];
        return table;
      }
      case 'PUT /route-tables/{id}/associations/{association_id}':
        return this.move(this.table(id), other, (body as { route_table_id: string }).route_table_id);
      case 'DELETE /route-tables/{id}/associations/{association_id}': {
        const table = this.table(id);
        table.associations = table.associations.filter((known) => known.id !== other);
        return table;
      }
      case 'GET /prefix-lists/{id}':
        return this.list(id);
      case 'PUT /prefix-lists/{id}':
        return this.changeList(id, body as UpdatePrefixList);
    }
  }

  private vpc(id: string) {
    return found(
      this.world.vpcs.find((item) => item.id === id),
      'VpcID',
      id,
    );
  }

  private group(id: string) {
    return found(
      this.world.securityGroups.find((item) => item.id === id),
      'Group',
      id,
    );
  }

  private acl(id: string) {
    return found(
      this.world.networkAcls.find((item) => item.id === id),
      'NetworkAclID',
      id,
    );
  }

  private interface(id: string): NetworkInterface {
    return found(
      this.world.networkInterfaces.find((item) => item.id === id),
      'NetworkInterfaceID',
      id,
    );
  }

  private table(id: string): RouteTable {
    return found(
      this.world.routeTables.find((item) => item.id === id),
      'RouteTableID',
      id,
    );
  }

  private list(id: string) {
    return found(
      this.world.prefixLists.find((item) => item.id === id),
      'PrefixListId',
      id,
    );
  }

  private addRule(id: string, body: CreateSecurityGroupRule): SecurityGroupRule {
    const group = this.group(id);
    if (!/^(sg|pl)-/.test(body.source_destination)) {
      block(body.source_destination, 'source_destination');
    }
    const rule: SecurityGroupRule = {
      id: mintId('sgr').id,
      security_group_id: id,
      direction: body.direction as SecurityGroupRule['direction'],
      protocol: body.protocol,
      port_range: body.port_range ?? 'all',
      icmp_type: body.icmp_type ?? null,
      icmp_code: body.icmp_code ?? null,
      source_destination: body.source_destination,
      action: 'allow',
      description: body.description ?? '',
      created_at: new Date().toISOString(),
    };
    group.rules = [...group.rules, rule];
    return rule;
  }

  private addEntry(id: string, body: PutNetworkAclEntry) {
    const acl = this.acl(id);
    block(body.cidr_block, 'cidr_block');
    const isSame = (entry: NetworkAclEntry) =>
      entry.direction === body.direction && entry.rule_number === body.rule_number;
    if (acl.entries.some(isSame)) {
      throw new Refusal(409, 'NetworkAclEntryAlreadyExists', 'the number is taken', 'rule_number');
    }
    const entry: NetworkAclEntry = {
      direction: body.direction as NetworkAclEntry['direction'],
      rule_number: body.rule_number,
      action: body.action as NetworkAclEntry['action'],
      protocol: body.protocol,
      port_range: body.port_range ?? 'all',
      icmp_type: body.icmp_type ?? null,
      icmp_code: body.icmp_code ?? null,
      cidr_block: body.cidr_block,
    };
    acl.entries = [...acl.entries, entry].sort(
      (a, b) => a.direction.localeCompare(b.direction) || a.rule_number - b.rule_number,
    );
    return acl;
  }

  private guard(acl: NetworkAcl, subnet_id: string) {
    for (const other of this.world.networkAcls) {
      other.associations = other.associations.filter((known) => known.subnet_id !== subnet_id);
    }
    acl.associations = [...acl.associations, { id: mintId('aclassoc').id, subnet_id }];
    return acl;
  }

  private requireStopped(instance: string): void {
    const state = this.world.instances.find(({ id }) => id === instance)?.state;
    if (state !== 'stopped') {
      throw new Refusal(
        409,
        'UnsupportedOperation',
        'interfaces come and go while the instance is stopped: stop it first',
        'instance_id',
      );
    }
  }

  private route(body: CreateRoute): Route {
    const { target_id, ...destination } = body;
    if ('destination_cidr' in destination) {
      block(destination.destination_cidr, 'destination_cidr');
    } else {
      this.list(destination.destination_prefix_list_id);
    }
    const target_type = target_id.startsWith('igw-') ? 'gateway' : 'instance';
    return { ...destination, target_id, target_type, state: 'active' };
  }

  private attach(id: string, { instance_id, device_index }: AttachNetworkInterface) {
    this.requireStopped(instance_id);
    return Object.assign(this.interface(id), {
      instance_id,
      device_index,
      attachment_id: mintId('eni-attach').id,
      status: 'in-use',
    });
  }

  private detach(id: string) {
    const item = this.interface(id);
    this.requireStopped(item.instance_id ?? '');
    return Object.assign(item, {
      instance_id: null,
      device_index: null,
      attachment_id: null,
      status: 'available',
    });
  }

  private assign(id: string, { private_ips, count }: AssignPrivateIps) {
    const item = this.interface(id);
    const free = Array.from({ length: count ?? 0 }, (_, at) =>
      item.private_ip.replace(/\d+$/, String(100 + item.secondary_private_ips.length + at)),
    );
    item.secondary_private_ips = [...item.secondary_private_ips, ...(private_ips ?? free)];
    return item;
  }

  private move(from: RouteTable, association: string, to: string) {
    const table = this.table(to);
    if (from.main_association_id === association) {
      Object.assign(from, { is_main: false, main_association_id: null });
      return Object.assign(table, { is_main: true, main_association_id: mintId('rtbassoc').id });
    }
    const moved = found(
      from.associations.find((known) => known.id === association),
      'AssociationID',
      association,
    );
    from.associations = from.associations.filter((known) => known !== moved);
    table.associations = [...table.associations, { ...moved, id: mintId('rtbassoc').id }];
    return table;
  }

  private changeList(id: string, change: UpdatePrefixList) {
    const { add_entries, remove_entries, current_version, ...words } = change;
    const list = this.list(id);
    if (Object.keys(words).length > 0) {
      return Object.assign(list, words);
    }
    if (current_version !== list.version) {
      throw new Refusal(
        409,
        'PrefixListVersionMismatch',
        `the prefix list is at version ${list.version}`,
        'current_version',
      );
    }
    const added = add_entries ?? [];
    for (const { cidr } of added) {
      block(cidr, 'add_entries[0]');
    }
    const gone = [...(remove_entries ?? []), ...added.map(({ cidr }) => cidr)];
    list.entries = [...list.entries.filter(({ cidr }) => !gone.includes(cidr)), ...added];
    list.version += 1;
    return list;
  }
}
