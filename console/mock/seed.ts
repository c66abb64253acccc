/** What the in-memory cloud holds at first. */
import type { Image, Instance, InstanceType, KeyPair, SecurityGroup, Subnet, Vpc } from '../src/api/types';

export interface World {
  images: Image[];
  instanceTypes: InstanceType[];
  vpcs: Vpc[];
  subnets: Subnet[];
  securityGroups: SecurityGroup[];
  keyPairs: KeyPair[];
  instances: Instance[];
}

let counter = 0x1000;

/** A UUID in the shape of version 7 and the id made of its last 17 digits (design.md §4). */
export function mintId(prefix: string): { id: string; uuid: string } {
  counter += 1;
  const tail = (BigInt('0x2f3a5b7c9d0000000') + BigInt(counter) * BigInt(0x10_0000_1b7))
    .toString(16)
    .padStart(17, '0')
    .slice(-17);
  const uuid = `019a3f5e-${counter.toString(16).padStart(4, '0')}-7${'0'.repeat(2)}${tail[0]}-9${tail.slice(2, 5)}-${tail.slice(5)}`;
  return { id: `${prefix}-${uuid.replaceAll('-', '').slice(-17)}`, uuid };
}

function minutesAgo(minutes: number): string {
  return new Date(Date.now() - minutes * 60_000).toISOString();
}

export function emptyWorld(): World {
  return {
    images: [],
    instanceTypes: [],
    vpcs: [],
    subnets: [],
    securityGroups: [],
    keyPairs: [],
    instances: [],
  };
}

/** What an instance of a type has. */
export function shapeOf(world: World, name: string): Pick<Instance, 'vcpus' | 'memory_mib' | 'disk_gib'> {
  const type = world.instanceTypes.find((item) => item.name === name);
  return { vcpus: type?.vcpus ?? 1, memory_mib: type?.memory_mib ?? 128, disk_gib: 0 };
}

export function seededWorld(): World {
  const created_at = minutesAgo(60 * 24 * 9);
  const world = emptyWorld();
  world.images = [
    {
      ...mintId('ami'),
      name: 'gon-linux',
      description: 'Tiny Linux, starts in two seconds',
      kind: 'initramfs',
      architecture: 'x86_64',
      state: 'available',
      min_memory_mib: 96,
      disk_gib: 0,
      created_at,
    },
    {
      ...mintId('ami'),
      name: 'debian-12',
      description: 'Debian 12 with cloud-init',
      kind: 'disk',
      architecture: 'x86_64',
      state: 'available',
      min_memory_mib: 512,
      disk_gib: 2,
      created_at,
    },
  ];
  world.instanceTypes = [
    { name: 'g1.pico', vcpus: 1, memory_mib: 128 },
    { name: 'g1.micro', vcpus: 1, memory_mib: 512 },
    { name: 'g1.small', vcpus: 1, memory_mib: 2048 },
    { name: 'g1.large', vcpus: 4, memory_mib: 8192 },
  ];
  const [prod, lab] = [
    { ...mintId('vpc'), name: 'production', cidr_block: '10.0.0.0/16', state: 'available', created_at },
    { ...mintId('vpc'), name: '연구실', cidr_block: '172.20.0.0/20', state: 'available', created_at },
  ];
  world.vpcs = [prod, lab];
  const subnet = (vpc: Vpc, name: string, cidr_block: string, zone: string, kind: 'public' | 'private') => ({
    ...mintId('subnet'),
    name,
    vpc_id: vpc.id,
    cidr_block,
    availability_zone: zone,
    subnet_type: kind,
    map_public_ip_on_launch: kind === 'public',
    available_ip_address_count: 251,
    created_at,
  });
  const [web, data, bench] = [
    subnet(prod, 'web-a', '10.0.1.0/24', 'gon-1a', 'public'),
    subnet(prod, 'data-a', '10.0.2.0/24', 'gon-1a', 'private'),
    subnet(lab, 'bench', '172.20.1.0/24', 'gon-1b', 'public'),
  ];
  world.subnets = [web, data, bench];
  const group = (vpc: Vpc, name: string, description: string, open: [string, string][]): SecurityGroup => {
    const identity = mintId('sg');
    const rule = (direction: 'inbound' | 'outbound', protocol: string, port_range: string, peer: string) => ({
      id: mintId('sgr').id,
      direction,
      protocol,
      port_range,
      icmp_type: null,
      icmp_code: null,
      source_destination: peer,
      description: '',
    });
    return {
      ...identity,
      name,
      description,
      vpc_id: vpc.id,
      is_default: name === 'default',
      created_at,
      rules: [
        ...(open.length === 0
          ? [rule('inbound', 'all', 'all', identity.id)]
          : open.map(([protocol, ports]) => rule('inbound', protocol, ports, '0.0.0.0/0'))),
        rule('outbound', 'all', 'all', '0.0.0.0/0'),
      ],
    };
  };
  world.securityGroups = [
    group(prod, 'default', 'Default group of the VPC', []),
    group(prod, 'web', 'SSH and web', [
      ['tcp', '22'],
      ['tcp', '80-443'],
      ['icmp', 'all'],
    ]),
    group(lab, 'default', 'Default group of the VPC', []),
  ];
  const [prodDefault, prodWeb] = world.securityGroups;
  world.keyPairs = [
    { ...mintId('key'), name: 'ops', key_type: 'ed25519', fingerprint: 'SHA256:q0Yx0mXb…', created_at },
  ];
  const instance = (
    name: string,
    state: Instance['state'],
    type: string,
    image: Image | undefined,
    host: number,
    age: number,
    more: Partial<Instance> = {},
  ): Instance => ({
    ...mintId('i'),
    name,
    state,
    state_reason: null,
    instance_type: type,
    ...shapeOf(world, type),
    network_interface_id: mintId('eni').id,
    mac_address: `02:00:0a:00:01:${host.toString(16).padStart(2, '0')}`,
    applied: { generation: 1, nodes: 1, acked: 1 },
    launched_at: state === 'pending' ? null : minutesAgo(age),
    terminated_at: null,
    image_id: image?.id ?? '',
    private_ip: `10.0.1.${host}`,
    public_ip: state === 'running' ? `203.0.113.${host}` : null,
    subnet_id: web.id,
    vpc_id: prod.id,
    availability_zone: web.availability_zone,
    security_group_ids: prodWeb === undefined ? [] : [prodWeb.id],
    key_name: 'ops',
    worker_node: 'node-1',
    generation: 1,
    created_at: minutesAgo(age),
    updated_at: minutesAgo(age),
    ...more,
  });
  const [tiny, debian] = world.images;
  world.instances = [
    instance('web-1', 'running', 'g1.micro', debian, 10, 3),
    instance('web-2', 'running', 'g1.micro', debian, 11, 190),
    instance('데이터베이스', 'running', 'g1.large', debian, 12, 60 * 30, {
      public_ip: null,
      private_ip: '10.0.2.12',
      subnet_id: data.id,
      security_group_ids: prodDefault === undefined ? [] : [prodDefault.id],
    }),
    instance('batch-7', 'stopped', 'g1.small', debian, 14, 60 * 50),
    instance('probe', 'pending', 'g1.pico', tiny, 15, 1, { worker_node: null }),
    instance('a-rather-long-name-that-does-not-fit-into-its-column', 'stopping', 'g1.pico', tiny, 16, 700),
    instance('old-web', 'terminated', 'g1.micro', debian, 17, 60 * 24 * 4, {
      private_ip: null,
      worker_node: null,
      state_reason: 'Client.UserInitiatedShutdown: terminated by admin',
    }),
  ];
  return world;
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
