import type { TableColumnsType } from 'antd';
import { useTranslation } from 'react-i18next';
import { Outlet, useLocation } from 'react-router';
import { useListSecurityGroupsQuery } from '../../api';
import type { ApiProblem } from '../../api/errors';
import type { SecurityGroup } from '../../api/types';
import { paths } from '../../paths';
import { createdColumn, idColumn, nameColumn, vpcColumn } from '../../ui/columns';
import { ListView } from '../../ui/ListView';
import { usePolling, useVpcNames } from '../shared/useLists';

/** The security groups. */
export function ListPage() {
  const { t } = useTranslation();
  const { search } = useLocation();
  const groups = useListSecurityGroupsQuery({}, usePolling());
  const vpcNames = useVpcNames();

  const columns: TableColumnsType<SecurityGroup> = [
    nameColumn(t, 190, (row) => ({ pathname: paths.securityGroup(row.id), search })),
    idColumn(t),
    vpcColumn(t, vpcNames),
    {
      key: 'description',
      title: t('common.description'),
      width: 220,
      render: (_, row) => (
        <span className="ellipsis" title={row.description}>
          {row.description || '–'}
        </span>
      ),
    },
    {
      key: 'rules',
      title: t('securityGroups.rules'),
      width: 80,
      render: (_, row) => row.rules.length,
    },
    createdColumn(t),
  ];

  return (
    <>
      <ListView
        title={t('securityGroups.title')}
        searchLabel={t('securityGroups.searchLabel')}
        calls={[{ method: 'GET', path: '/security-groups' }]}
        columns={columns}
        rows={groups.data}
        words={(group) => [group.name, group.id, group.description, group.vpc_id, vpcNames.get(group.vpc_id)]}
        problem={groups.error as ApiProblem | undefined}
        onRetry={() => void groups.refetch()}
        empty={{ title: t('securityGroups.empty'), hint: t('securityGroups.emptyHint') }}
        create={{ label: t('securityGroups.create'), to: paths.createSecurityGroup() }}
        width={1020}
      />
      <Outlet />
    </>
  );
}
