/** Which page is shown where. Every page is a chunk of its own, loaded before the change of page is made. */
import type { ComponentType } from 'react';
import { createBrowserRouter, createMemoryRouter, Navigate, type RouteObject } from 'react-router';
import { SessionGate } from './features/auth/SessionGate';
import { CrashPage, NotFoundPage } from './features/shell/ErrorPages';
import { paths } from './paths';

/** A list's own path, and below it the form for another one and the page about one: each beside the list. */
function beside(
  path: string,
  list: () => Promise<{ ListPage: ComponentType }>,
  form: () => Promise<{ CreateDrawer: ComponentType }>,
  details: () => Promise<{ DetailDrawer: ComponentType }>,
): RouteObject {
  return {
    path,
    lazy: async () => ({ Component: (await list()).ListPage }),
    children: [
      { path: 'create', lazy: async () => ({ Component: (await form()).CreateDrawer }) },
      { path: ':id', lazy: async () => ({ Component: (await details()).DetailDrawer }) },
    ],
  };
}

/** Nothing: the first page's chunk takes less than the eye notices. */
const blank = <div />;

export const routes: RouteObject[] = [
  {
    element: <SessionGate />,
    errorElement: <CrashPage />,
    hydrateFallbackElement: blank,
    children: [
      {
        path: paths.login(),
        lazy: async () => ({ Component: (await import('./features/auth/LoginPage')).LoginPage }),
      },
      {
        lazy: async () => ({ Component: (await import('./features/shell/AppLayout')).AppLayout }),
        children: [
          {
            errorElement: <CrashPage />,
            children: [
              { index: true, element: <Navigate to={paths.instances()} replace /> },
              {
                path: 'instances',
                lazy: async () => ({ Component: (await import('./features/instances/ListPage')).ListPage }),
                children: [
                  {
                    path: ':id',
                    lazy: async () => ({
                      Component: (await import('./features/instances/DetailDrawer')).DetailDrawer,
                    }),
                  },
                  {
                    path: ':id/console',
                    lazy: async () => ({
                      Component: (await import('./features/instances/ConsoleDrawer')).ConsoleDrawer,
                    }),
                  },
                ],
              },
              {
                path: paths.launchInstance(),
                lazy: async () => ({
                  Component: (await import('./features/instances/LaunchPage')).LaunchPage,
                }),
              },
              beside(
                paths.vpcs(),
                () => import('./features/vpcs/ListPage'),
                () => import('./features/vpcs/CreateDrawer'),
                () => import('./features/vpcs/DetailDrawer'),
              ),
              beside(
                paths.securityGroups(),
                () => import('./features/security-groups/ListPage'),
                () => import('./features/security-groups/CreateDrawer'),
                () => import('./features/security-groups/DetailDrawer'),
              ),
              beside(
                paths.networkAcls(),
                () => import('./features/network-acls/ListPage'),
                () => import('./features/network-acls/CreateDrawer'),
                () => import('./features/network-acls/DetailDrawer'),
              ),
              beside(
                paths.networkInterfaces(),
                () => import('./features/network-interfaces/ListPage'),
                () => import('./features/network-interfaces/CreateDrawer'),
                () => import('./features/network-interfaces/DetailDrawer'),
              ),
              beside(
                paths.routeTables(),
                () => import('./features/route-tables/ListPage'),
                () => import('./features/route-tables/CreateDrawer'),
                () => import('./features/route-tables/DetailDrawer'),
              ),
              beside(
                paths.prefixLists(),
                () => import('./features/prefix-lists/ListPage'),
                () => import('./features/prefix-lists/CreateDrawer'),
                () => import('./features/prefix-lists/DetailDrawer'),
              ),
              { path: '*', element: <NotFoundPage /> },
            ],
          },
        ],
      },
    ],
  },
];

export function makeRouter() {
  return createBrowserRouter(routes);
}

/** For tests: the same routes without an address bar. */
export function makeMemoryRouter(start: string) {
  return createMemoryRouter(routes, { initialEntries: [start] });
}
