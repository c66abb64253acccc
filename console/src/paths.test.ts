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
    vpc: '/vpcs/i-0%2F%3F',
    securityGroups: '/security-groups',
    networkAcls: '/network-acls',
    networkInterfaces: '/network-interfaces',
    networkInterface: '/network-interfaces/i-0%2F%3F',
    routeTables: '/route-tables',
    routeTable: '/route-tables/i-0%2F%3F',
    prefixLists: '/prefix-lists',
    prefixList: '/prefix-lists/i-0%2F%3F',
  });
});
