import type { TableColumnsType } from 'antd';
import { useTranslation } from 'react-i18next';
import { Outlet, useLocation } from 'react-router';
import { useListRouteTablesQuery } from '../../api';
import type { ApiProblem } from '../../api/errors';
import type { RouteTable } from '../../api/types';
import { paths } from '../../paths';
import { createdColumn, idColumn, nameColumn, vpcColumn } from '../../ui/columns';
import { ListView } from '../../ui/ListView';
import { StateTag } from '../../ui/StateTag';
import { destinationOf } from '../shared/routes';
import { usePolling, useVpcNames } from '../shared/useLists';

/** The route tables. */
export function ListPage() {
  const { t } = useTranslation();
  const { search } = useLocation();
  const tables = useListRouteTablesQuery(undefined, usePolling());
  const vpcNames = useVpcNames();

  const columns: TableColumnsType<RouteTable> = [
    nameColumn(t, 190, (row) => ({ pathname: paths.routeTable(row.id), search })),
    idColumn(t),
    vpcColumn(t, vpcNames),
    {
      key: 'main',
      title: t('routeTables.main'),
      width: 90,
      render: (_, row) => (row.is_main ? t('routeTables.main') : '–'),
    },
    {
      key: 'routes',
      title: t('routeTables.routes'),
      width: 150,
      render: (_, row) => (
        <span className="count">
          {row.routes.length}
          {row.routes.some(({ state }) => state === 'blackhole') && <StateTag state="blackhole" />}
        </span>
      ),
    },
    {
      key: 'subnets',
      title: t('routeTables.associations'),
      width: 90,
      render: (_, row) => row.associations.length,
    },
    createdColumn(t),
  ];

  return (
    <>
      <ListView
        title={t('routeTables.title')}
        searchLabel={t('routeTables.searchLabel')}
        calls={[{ method: 'GET', path: '/route-tables' }]}
        columns={columns}
        rows={tables.data}
        words={(row) => [
          row.name,
          row.id,
          row.vpc_id,
          vpcNames.get(row.vpc_id),
          ...row.routes.flatMap((route) => [destinationOf(route), route.target_id]),
          ...row.associations.map(({ subnet_id }) => subnet_id),
        ]}
        problem={tables.error as ApiProblem | undefined}
        onRetry={() => void tables.refetch()}
        empty={{ title: t('routeTables.empty'), hint: t('routeTables.emptyHint') }}
        create={{ label: t('routeTables.create'), to: paths.createRouteTable() }}
        width={1050}
      />
      <Outlet />
    </>
  );
}
