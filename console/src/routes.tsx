/** Which page is shown where. Every page is a chunk of its own, loaded before the change of page is made. */
import { createBrowserRouter, createMemoryRouter, Navigate, type RouteObject } from 'react-router';
import { SessionGate } from './features/auth/SessionGate';
import { CrashPage, NotFoundPage } from './features/shell/ErrorPages';
import { paths } from './paths';

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
              {
                path: paths.vpcs(),
                lazy: async () => ({ Component: (await import('./features/vpcs/ListPage')).ListPage }),
                children: [
                  {
                    path: ':id',
                    lazy: async () => ({
                      Component: (await import('./features/vpcs/DetailDrawer')).DetailDrawer,
                    }),
                  },
                ],
              },
              {
                path: paths.securityGroups(),
                lazy: async () => ({
                  Component: (await import('./features/security-groups/ListPage')).ListPage,
                }),
              },
              {
                path: paths.networkAcls(),
                lazy: async () => ({
                  Component: (await import('./features/network-acls/ListPage')).ListPage,
                }),
              },
              {
                path: paths.networkInterfaces(),
                lazy: async () => ({
                  Component: (await import('./features/network-interfaces/ListPage')).ListPage,
                }),
                children: [
                  {
                    path: ':id',
                    lazy: async () => ({
                      Component: (await import('./features/network-interfaces/DetailDrawer')).DetailDrawer,
                    }),
                  },
                ],
              },
              {
                path: paths.routeTables(),
                lazy: async () => ({
                  Component: (await import('./features/route-tables/ListPage')).ListPage,
                }),
                children: [
                  {
                    path: ':id',
                    lazy: async () => ({
                      Component: (await import('./features/route-tables/DetailDrawer')).DetailDrawer,
                    }),
                  },
                ],
              },
              {
                path: paths.prefixLists(),
                lazy: async () => ({
                  Component: (await import('./features/prefix-lists/ListPage')).ListPage,
                }),
                children: [
                  {
                    path: ':id',
                    lazy: async () => ({
                      Component: (await import('./features/prefix-lists/DetailDrawer')).DetailDrawer,
                    }),
                  },
                ],
              },
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
