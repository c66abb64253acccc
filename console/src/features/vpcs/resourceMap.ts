/** What hangs together in a VPC: its subnets by the route table they follow, and where that leads. */
import type { Instance, InternetGateway, NetworkInterface, RouteTable, Subnet } from '../../api/types';
import { destinationOf } from '../shared/routes';

export interface MapSubnet {
  subnet: Subnet;
  /** Those with an interface in it. */
  instances: { id: string; name: string }[];
}

/** What routes of one table lead to, other than the VPC itself. */
export interface MapTarget {
  id: string;
  name: string | undefined;
  destinations: string[];
  /** Whether packets to it are lost. */
  isBlackhole: boolean;
}

export interface MapGroup {
  table: RouteTable;
  subnets: MapSubnet[];
  targets: MapTarget[];
}

export interface Known {
  subnets: Subnet[];
  tables: RouteTable[];
  gateways: InternetGateway[];
  interfaces: NetworkInterface[];
  instances: Instance[];
}

/** One group for each route table of the VPC, the main one first; and its gateways that no route leads to. */
export function resourceMap(
  vpc: string,
  { subnets, tables, gateways, interfaces, instances }: Known,
): { groups: MapGroup[]; unused: InternetGateway[] } {
  const names = new Map<string, string>([
    ...gateways.map(({ id, name }) => [id, name] as const),
    ...interfaces.map(({ id, description, private_ip }) => [id, description || private_ip] as const),
    ...instances.map(({ id, name }) => [id, name] as const),
  ]);
  const instancesIn = (subnet: Subnet) => {
    const ids = interfaces.flatMap(({ subnet_id, instance_id }) =>
      subnet_id === subnet.id && instance_id ? [instance_id] : [],
    );
    return [...new Set(ids)]
      .map((id) => ({ id, name: names.get(id) ?? id }))
      .sort((a, b) => a.name.localeCompare(b.name));
  };
  const groups = tables
    .filter(({ vpc_id }) => vpc_id === vpc)
    .sort((a, b) => Number(b.is_main) - Number(a.is_main) || a.name.localeCompare(b.name))
    .map((table) => ({
      table,
      subnets: subnets
        .filter(({ route_table_id }) => route_table_id === table.id)
        .sort(
          (a, b) => a.availability_zone.localeCompare(b.availability_zone) || a.name.localeCompare(b.name),
        )
        .map((subnet) => ({ subnet, instances: instancesIn(subnet) })),
      targets: targetsOf(table, names),
    }));
  const used = new Set(groups.flatMap(({ targets }) => targets.map(({ id }) => id)));
  return { groups, unused: gateways.filter(({ id, vpc_id }) => vpc_id === vpc && !used.has(id)) };
}

function targetsOf(table: RouteTable, names: ReadonlyMap<string, string>): MapTarget[] {
  const targets = new Map<string, MapTarget>();
  for (const route of table.routes) {
    const { target_type, target_id, state } = route;
    if (target_type === 'local') {
      continue;
    }
    const known = targets.get(target_id);
    targets.set(target_id, {
      id: target_id,
      name: names.get(target_id),
      destinations: [...(known?.destinations ?? []), destinationOf(route)],
      isBlackhole: (known?.isBlackhole ?? false) || state === 'blackhole',
    });
  }
  return [...targets.values()];
}
