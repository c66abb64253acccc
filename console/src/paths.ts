/** Every URL of the console. Bookmarks depend on them: `paths.test.ts` compares them with a snapshot. */
export const paths = {
  home: () => '/',
  login: () => '/login',
  instances: () => '/instances',
  instance: (id: string) => `/instances/${encodeURIComponent(id)}`,
  instanceConsole: (id: string) => `/instances/${encodeURIComponent(id)}/console`,
  launchInstance: () => '/instances/launch',
  vpcs: () => '/vpcs',
  vpc: (id: string) => `/vpcs/${encodeURIComponent(id)}`,
  securityGroups: () => '/security-groups',
  networkAcls: () => '/network-acls',
  networkInterfaces: () => '/network-interfaces',
  networkInterface: (id: string) => `/network-interfaces/${encodeURIComponent(id)}`,
  routeTables: () => '/route-tables',
  routeTable: (id: string) => `/route-tables/${encodeURIComponent(id)}`,
  prefixLists: () => '/prefix-lists',
  prefixList: (id: string) => `/prefix-lists/${encodeURIComponent(id)}`,
} as const;
