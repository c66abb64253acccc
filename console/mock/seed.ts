/** What the in-memory cloud holds at first. */
import type {
  Applied,
  Image,
  Instance,
  InstanceState,
  InstanceType,
  InternetGateway,
  KeyPair,
  NetworkAcl,
  NetworkAclEntry,
  NetworkInterface,
  PrefixList,
  RouteTable,
  SecurityGroup,
  SecurityGroupRule,
  Subnet,
  Vpc,
} from '../src/api/types';

export interface World {
  images: Image[];
  instanceTypes: InstanceType[];
  vpcs: Vpc[];
  subnets: Subnet[];
  securityGroups: SecurityGroup[];
  networkAcls: NetworkAcl[];
  internetGateways: InternetGateway[];
  routeTables: RouteTable[];
  networkInterfaces: NetworkInterface[];
  prefixLists: PrefixList[];
  keyPairs: KeyPair[];
  instances: Instance[];
}

let counter = 0x1000;

/** A UUID in the shape of version 7, and the id made of its last 17 digits (design.md §4). */
export function mintId(prefix: string): { id: string; uuid: string } {
  counter += 1;
  const tail = (BigInt('0x2f3a5b7c9d0000000') + BigInt(counter) * BigInt(0x1000001b7))
    .toString(16)
    .slice(-17);
  const uuid = `019a3f5e-${counter.toString(16).padStart(4, '0')}-700${tail[0]}-9${tail.slice(2, 5)}-${tail.slice(5)}`;
  return { id: `${prefix}-${uuid.replaceAll('-', '').slice(-17)}`, uuid };
}

function minutesAgo(minutes: number): string {
  return new Date(Date.now() - minutes * 60_000).toISOString();
}

const LONG_AGO = minutesAgo(60 * 24 * 9);
const APPLIED: Applied = { generation: 1, nodes: 1, acked: 1 };

export const STATE_CODES: Record<InstanceState, number> = {
  pending: 0,
  running: 16,
  'shutting-down': 32,
  terminated: 48,
  stopping: 64,
  stopped: 80,
  unknown: 255,
};

export function emptyWorld(): World {
  return {
    images: [],
    instanceTypes: [],
    vpcs: [],
    subnets: [],
    securityGroups: [],
    networkAcls: [],
    internetGateways: [],
    routeTables: [],
    networkInterfaces: [],
    prefixLists: [],
    keyPairs: [],
    instances: [],
  };
}

function image(name: string, description: string, kind: 'initramfs' | 'disk', memory: number): Image {
  return {
    ...mintId('ami'),
    name,
    description,
    kind,
    architecture: 'x86_64',
    state: 'available',
    min_memory_mib: memory,
    disk_gib: kind === 'disk' ? 2 : 0,
    public: true,
    created_at: LONG_AGO,
  };
}

export function vpc(name: string, cidr_block: string): Vpc {
  return {
    ...mintId('vpc'),
    name,
    cidr_block,
    cidr_block_associations: [
      { id: mintId('vpc-cidr-assoc').id, cidr_block, is_primary: true, state: 'associated' },
    ],
    is_default: false,
    state: 'available',
    main_route_table_id: mintId('rtb').id,
    default_security_group_id: mintId('sg').id,
    default_network_acl_id: mintId('acl').id,
    generation: 1,
    applied: APPLIED,
    created_at: LONG_AGO,
    updated_at: LONG_AGO,
  };
}

export function subnet(
  of: Vpc,
  name: string,
  cidr_block: string,
  zone: string,
  subnet_type: Subnet['subnet_type'],
): Subnet {
  return {
    ...mintId('subnet'),
    vpc_id: of.id,
    name,
    cidr_block,
    availability_zone: zone,
    subnet_type,
    route_table_id: of.main_route_table_id,
    network_acl_id: of.default_network_acl_id,
    map_public_ip_on_launch: subnet_type === 'public',
    available_ip_address_count: 251,
    default_for_az: false,
    created_at: LONG_AGO,
    updated_at: LONG_AGO,
  };
}

/** A group that lets in `open` (protocol, ports, and who if not everybody), or only itself; and everything out. */
export function group(
  of: Vpc,
  name: string,
  description: string,
  open: [protocol: string, ports: string, peer?: string, description?: string][],
): SecurityGroup {
  const identity = name === 'default' ? { ...mintId('sg'), id: of.default_security_group_id } : mintId('sg');
  const rule = (
    direction: SecurityGroupRule['direction'],
    protocol: string,
    port_range: string,
    source_destination: string,
    about = '',
  ): SecurityGroupRule => ({
    id: mintId('sgr').id,
    security_group_id: identity.id,
    direction,
    protocol,
    port_range,
    icmp_type: null,
    icmp_code: null,
    source_destination,
    action: 'allow',
    description: about,
    created_at: LONG_AGO,
  });
  return {
    ...identity,
    vpc_id: of.id,
    name,
    description,
    is_default: name === 'default',
    rules: [
      ...(open.length === 0
        ? [rule('inbound', 'all', 'all', identity.id)]
        : open.map(([protocol, ports, peer = '0.0.0.0/0', about]) =>
            rule('inbound', protocol, ports, peer, about),
          )),
      rule('outbound', 'all', 'all', '0.0.0.0/0'),
    ],
    created_at: LONG_AGO,
    updated_at: LONG_AGO,
  };
}

export interface NewInstance {
  name: string;
  state: InstanceState;
  type: InstanceType;
  image: Image;
  subnet: Subnet;
  groups: string[];
  key: string | null;
  /** The last number of its addresses. */
  host: number;
  publicIp: boolean;
  /** How long ago it was made, in minutes. */
  age: number;
}

export function instance(what: NewInstance): Instance {
  const { name, state, type, host, age } = what;
  const started = state !== 'pending';
  return {
    ...mintId('i'),
    name,
    state,
    state_code: STATE_CODES[state],
    state_reason: null,
    instance_type: type.name,
    vcpus: type.vcpus,
    memory_mib: type.memory_mib,
    disk_gib: what.image.disk_gib,
    image_id: what.image.id,
    vpc_id: what.subnet.vpc_id,
    subnet_id: what.subnet.id,
    availability_zone: what.subnet.availability_zone,
    network_interface_id: mintId('eni').id,
    private_ip: what.subnet.cidr_block.replace(/\d+\/\d+$/, String(host)),
    public_ip: what.publicIp ? `203.0.113.${host}` : null,
    mac_address: `02:00:0a:00:01:${host.toString(16).padStart(2, '0')}`,
    security_group_ids: what.groups,
    key_name: what.key,
    worker_node: started ? 'node-1' : null,
    reservation_id: mintId('r').id,
    launch_index: 0,
    generation: 1,
    applied: { ...APPLIED, acked: started ? 1 : 0 },
    launched_at: started ? minutesAgo(age) : null,
    created_at: minutesAgo(age),
    updated_at: minutesAgo(age),
    terminated_at: null,
  };
}

type EntryText = [NetworkAclEntry['direction'], number, NetworkAclEntry['action'], string, string, string];

/** A network ACL: the entries that everything has, and those that are given. */
export function acl(
  of: Vpc,
  name: string,
  isDefault: boolean,
  subnets: Subnet[],
  own: EntryText[],
): NetworkAcl {
  const list = (direction: NetworkAclEntry['direction']): NetworkAclEntry[] => [
    ...own.filter(([way]) => way === direction).map(entry),
    ...(isDefault ? [entry([direction, 100, 'allow', 'all', 'all', '0.0.0.0/0'])] : []),
    entry([direction, 32_767, 'deny', 'all', 'all', '0.0.0.0/0']),
  ];
  const identity = isDefault ? { ...mintId('acl'), id: of.default_network_acl_id } : mintId('acl');
  for (const subnet of subnets) {
    subnet.network_acl_id = identity.id;
  }
  return {
    ...identity,
    vpc_id: of.id,
    name,
    is_default: isDefault,
    entries: [...list('inbound'), ...list('outbound')],
    associations: subnets.map((subnet) => ({ id: mintId('aclassoc').id, subnet_id: subnet.id })),
    created_at: LONG_AGO,
    updated_at: LONG_AGO,
  };
}

function entry([
  direction,
  rule_number,
  action,
  protocol,
  port_range,
  cidr_block,
]: EntryText): NetworkAclEntry {
  return {
    direction,
    rule_number,
    action,
    protocol,
    port_range,
    icmp_type: null,
    icmp_code: null,
    cidr_block,
  };
}

export function gateway(of: Vpc, name: string): InternetGateway {
  return {
    ...mintId('igw'),
    name,
    state: 'attached',
    vpc_id: of.id,
    created_at: LONG_AGO,
    updated_at: LONG_AGO,
  };
}

/** A route table with the local route and those that are given; the VPC's main one unless it has a name of its own. */
export function routeTable(
  of: Vpc,
  name: string,
  subnets: Subnet[],
  routes: [destination: string, target: string, state: 'active' | 'blackhole'][],
): RouteTable {
  const is_main = name === 'main';
  return {
    ...mintId('rtb'),
    ...(is_main ? { id: of.main_route_table_id } : {}),
    vpc_id: of.id,
    name,
    is_main,
    main_association_id: is_main ? mintId('rtbassoc').id : null,
    routes: [
      { destination_cidr: of.cidr_block, target_type: 'local', target_id: 'local', state: 'active' },
      ...routes.map(([destination_cidr, target_id, state]) => ({
        destination_cidr,
        target_id,
        target_type: target_id.startsWith('igw-') ? 'gateway' : 'instance',
        state,
      })),
    ],
    associations: subnets.map(({ id }) => ({ id: mintId('rtbassoc').id, subnet_id: id })),
    created_at: LONG_AGO,
    updated_at: LONG_AGO,
  };
}

/** Tells every subnet which route table it follows. */
export function followTables({ subnets, routeTables }: Pick<World, 'subnets' | 'routeTables'>): void {
  for (const subnet of subnets) {
    const own = routeTables.find(({ associations }) => associations.some((a) => a.subnet_id === subnet.id));
    const main = routeTables.find(({ vpc_id, is_main }) => vpc_id === subnet.vpc_id && is_main);
    subnet.route_table_id = (own ?? main)?.id ?? subnet.route_table_id;
  }
}

/** An interface of a subnet that is attached to nothing. */
export function looseInterface(
  of: Subnet,
  description: string,
  host: number,
  groups: string[],
): NetworkInterface {
  const address = (last: number) => of.cidr_block.replace(/\d+\/\d+$/, String(last));
  return {
    ...mintId('eni'),
    vpc_id: of.vpc_id,
    subnet_id: of.id,
    availability_zone: of.availability_zone,
    status: 'available',
    description,
    instance_id: null,
    device_index: null,
    attachment_id: null,
    is_primary: false,
    delete_on_termination: false,
    private_ip: address(host),
    secondary_private_ips: [],
    public_ip: null,
    mac_address: `02:00:0a:00:02:${host.toString(16).padStart(2, '0')}`,
    source_dest_check: true,
    security_group_ids: groups,
    created_at: LONG_AGO,
    updated_at: LONG_AGO,
  };
}

/** The interface an instance came with. */
function primaryInterface(of: Instance): NetworkInterface {
  return {
    ...mintId('eni'),
    id: of.network_interface_id ?? '',
    vpc_id: of.vpc_id,
    subnet_id: of.subnet_id,
    availability_zone: of.availability_zone,
    status: 'in-use',
    description: '',
    instance_id: of.id,
    device_index: 0,
    attachment_id: mintId('eni-attach').id,
    is_primary: true,
    delete_on_termination: true,
    private_ip: of.private_ip ?? '',
    secondary_private_ips: [],
    public_ip: of.public_ip,
    mac_address: of.mac_address ?? '',
    source_dest_check: true,
    security_group_ids: of.security_group_ids,
    created_at: of.created_at,
    updated_at: of.updated_at,
  };
}

export function seededWorld(): World {
  const tiny = image('gon-linux', 'Tiny Linux, starts in two seconds', 'initramfs', 96);
  const debian = image('debian-12', 'Debian 12 with cloud-init', 'disk', 512);
  const pico = { name: 'g1.pico', vcpus: 1, memory_mib: 128 };
  const micro = { name: 'g1.micro', vcpus: 1, memory_mib: 512 };
  const small = { name: 'g1.small', vcpus: 1, memory_mib: 2048 };
  const large = { name: 'g1.large', vcpus: 4, memory_mib: 8192 };
  const prod = vpc('production', '10.0.0.0/16');
  const lab = vpc('연구실', '172.20.0.0/20');
  const web = subnet(prod, 'web-a', '10.0.1.0/24', 'gon-1a', 'public');
  const data = subnet(prod, 'data-a', '10.0.2.0/24', 'gon-1a', 'private');
  const bench = subnet(lab, 'bench', '172.20.1.0/24', 'gon-1b', 'public');
  const offices: PrefixList = {
    ...mintId('pl'),
    name: 'offices',
    entries: [
      { cidr: '198.51.100.0/24', description: 'Seoul' },
      { cidr: '203.0.113.128/25', description: '부산' },
    ],
    max_entries: 5,
    version: 3,
    created_at: LONG_AGO,
    updated_at: LONG_AGO,
  };
  const usual = group(prod, 'default', 'Default group of the VPC', []);
  const open = group(prod, 'web', 'SSH and web', [
    ['tcp', '22'],
    ['tcp', '80-443'],
    ['icmp', 'all'],
    ['tcp', '9100', offices.id, 'Monitoring'],
    ['udp', '514', usual.id],
  ]);
  const make = (
    name: string,
    state: InstanceState,
    type: InstanceType,
    host: number,
    age: number,
    more: Partial<NewInstance> = {},
  ) =>
    instance({
      name,
      state,
      type,
      image: debian,
      subnet: web,
      groups: [open.id],
      key: 'ops',
      host,
      publicIp: state === 'running',
      age,
      ...more,
    });
  const instances = [
    make('web-1', 'running', micro, 10, 3),
    make('web-2', 'running', micro, 11, 190),
    make('데이터베이스', 'running', large, 12, 60 * 30, {
      subnet: data,
      publicIp: false,
      groups: [usual.id],
    }),
    make('batch-7', 'stopped', small, 14, 60 * 50),
    make('probe', 'pending', pico, 15, 1, { image: tiny }),
    make('a-rather-long-name-that-does-not-fit-into-its-column', 'stopping', pico, 16, 700, {
      image: tiny,
    }),
    {
      ...make('old-web', 'terminated', micro, 17, 60 * 24 * 4),
      private_ip: null,
      worker_node: null,
      state_reason: 'Client.UserInitiatedShutdown: terminated by admin',
    },
  ];
  const out = gateway(prod, 'production-out');
  const appliance = looseInterface(data, 'Firewall, inside', 40, [usual.id]);
  appliance.source_dest_check = false;
  appliance.secondary_private_ips = [appliance.private_ip.replace('.40', '.41')];
  const routeTables = [
    routeTable(prod, 'main', [], []),
    routeTable(
      prod,
      'public',
      [web],
      [
        ['0.0.0.0/0', out.id, 'active'],
        ['192.168.7.0/24', appliance.id, 'blackhole'],
      ],
    ),
    routeTable(lab, 'main', [], []),
  ];
  const subnets = [web, data, bench];
  followTables({ subnets, routeTables });
  return {
    images: [tiny, debian],
    instanceTypes: [pico, micro, small, large],
    vpcs: [prod, lab],
    subnets,
    securityGroups: [usual, open, group(lab, 'default', 'Default group of the VPC', [])],
    networkAcls: [
      acl(prod, 'default', true, [web], []),
      acl(
        prod,
        'data only',
        false,
        [data],
        [
          ['inbound', 100, 'allow', 'tcp', '5432', '10.0.1.0/24'],
          ['outbound', 100, 'allow', 'tcp', '1024-65535', '10.0.1.0/24'],
        ],
      ),
      acl(lab, 'default', true, [bench], []),
    ],
    internetGateways: [out],
    routeTables,
    networkInterfaces: [
      appliance,
      ...instances.filter(({ state }) => state !== 'terminated').map(primaryInterface),
    ],
    prefixLists: [offices],
    keyPairs: [
      {
        ...mintId('key'),
        name: 'ops',
        key_type: 'ed25519',
        fingerprint: 'SHA256:q0Yx0mXbUu9b0c2vD0Jp0f0Zp2m8m4oG0sP0sQ0w0aE',
        public_key: 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK0wmN/Cr3JXqmLW7u+g9pTh+wyqDHpSQEIQczXkVx9q ops',
        created_at: LONG_AGO,
      },
    ],
    instances,
  };
}

/** Adds instances, each the copy of another, until there are `total`. */
export function fillWorld(world: World, total: number): void {
  const patterns = world.instances.slice();
  for (let index = patterns.length; index < total; index += 1) {
    const pattern = patterns[index % patterns.length];
    if (pattern === undefined) {
      return;
    }
    world.instances.push({ ...pattern, ...mintId('i'), name: `vm-${index}` });
  }
}
