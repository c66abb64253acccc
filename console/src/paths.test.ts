import { expect, it } from 'vitest';
import { paths } from './paths';

it('are what bookmarks say', () => {
  const all = Object.fromEntries(
    Object.entries(paths).map(([name, path]) => [name, (path as (id: string) => string)('i-0/?')]),
  );
  expect(all).toEqual({
    home: '/',
    login: '/login',
    instances: '/instances',
    instance: '/instances/i-0%2F%3F',
    instanceConsole: '/instances/i-0%2F%3F/console',
    launchInstance: '/instances/launch',
    vpcs: '/vpcs',
    createVpc: '/vpcs/create',
    vpc: '/vpcs/i-0%2F%3F',
    securityGroups: '/security-groups',
    createSecurityGroup: '/security-groups/create',
    securityGroup: '/security-groups/i-0%2F%3F',
    networkAcls: '/network-acls',
    createNetworkAcl: '/network-acls/create',
    networkAcl: '/network-acls/i-0%2F%3F',
    networkInterfaces: '/network-interfaces',
    createNetworkInterface: '/network-interfaces/create',
    networkInterface: '/network-interfaces/i-0%2F%3F',
    routeTables: '/route-tables',
    createRouteTable: '/route-tables/create',
    routeTable: '/route-tables/i-0%2F%3F',
    prefixLists: '/prefix-lists',
    createPrefixList: '/prefix-lists/create',
    prefixList: '/prefix-lists/i-0%2F%3F',
  });
});
