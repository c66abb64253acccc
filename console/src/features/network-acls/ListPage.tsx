import type { TableColumnsType } from 'antd';
import { useTranslation } from 'react-i18next';
import { Outlet, useLocation } from 'react-router';
import { useListNetworkAclsQuery } from '../../api';
import type { ApiProblem } from '../../api/errors';
import type { NetworkAcl } from '../../api/types';
import { paths } from '../../paths';
import { createdColumn, idColumn, nameColumn, vpcColumn } from '../../ui/columns';
import { ListView } from '../../ui/ListView';
import { usePolling, useVpcNames } from '../shared/useLists';

/** The network ACLs. */
export function ListPage() {
  const { t } = useTranslation();
  const { search } = useLocation();
  const acls = useListNetworkAclsQuery(undefined, usePolling());
  const vpcNames = useVpcNames();

  const columns: TableColumnsType<NetworkAcl> = [
    nameColumn(t, 190, (row) => ({ pathname: paths.networkAcl(row.id), search })),
    idColumn(t),
    vpcColumn(t, vpcNames),
    {
      key: 'default',
      title: t('networkAcls.default'),
      width: 90,
      render: (_, row) => (row.is_default ? t('networkAcls.default') : '–'),
    },
    {
      key: 'subnets',
      title: t('networkAcls.subnets'),
      width: 100,
      render: (_, row) => row.associations.length,
    },
    createdColumn(t),
  ];

  return (
    <>
      <ListView
        title={t('networkAcls.title')}
        searchLabel={t('networkAcls.searchLabel')}
        calls={[{ method: 'GET', path: '/network-acls' }]}
        columns={columns}
        rows={acls.data}
        words={(acl) => [
          acl.name,
          acl.id,
          acl.vpc_id,
          vpcNames.get(acl.vpc_id),
          ...acl.associations.map(({ subnet_id }) => subnet_id),
        ]}
        problem={acls.error as ApiProblem | undefined}
        onRetry={() => void acls.refetch()}
        empty={{ title: t('networkAcls.empty'), hint: t('networkAcls.emptyHint') }}
        create={{ label: t('networkAcls.create'), to: paths.createNetworkAcl() }}
        width={910}
      />
      <Outlet />
    </>
  );
}
