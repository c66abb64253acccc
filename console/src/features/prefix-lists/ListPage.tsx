import type { TableColumnsType } from 'antd';
import { useTranslation } from 'react-i18next';
import { Outlet, useLocation } from 'react-router';
import { useListPrefixListsQuery } from '../../api';
import type { ApiProblem } from '../../api/errors';
import type { PrefixList } from '../../api/types';
import { paths } from '../../paths';
import { createdColumn, idColumn, nameColumn } from '../../ui/columns';
import { ListView } from '../../ui/ListView';
import { usePolling } from '../shared/useLists';

/** The prefix lists. */
export function ListPage() {
  const { t } = useTranslation();
  const { search } = useLocation();
  const lists = useListPrefixListsQuery(undefined, usePolling());

  const columns: TableColumnsType<PrefixList> = [
    nameColumn(t, 220, (row) => ({ pathname: paths.prefixList(row.id), search })),
    idColumn(t),
    {
      key: 'entries',
      title: t('prefixLists.entries'),
      width: 110,
      render: (_, row) => t('prefixLists.room', { used: row.entries.length, max: row.max_entries }),
    },
    { key: 'version', title: t('prefixLists.version'), width: 90, render: (_, row) => row.version },
    createdColumn(t),
  ];

  return (
    <>
      <ListView
        title={t('prefixLists.title')}
        searchLabel={t('prefixLists.searchLabel')}
        calls={[{ method: 'GET', path: '/prefix-lists' }]}
        columns={columns}
        rows={lists.data}
        words={(row) => [
          row.name,
          row.id,
          ...row.entries.flatMap(({ cidr, description }) => [cidr, description]),
        ]}
        problem={lists.error as ApiProblem | undefined}
        onRetry={() => void lists.refetch()}
        empty={{ title: t('prefixLists.empty'), hint: t('prefixLists.emptyHint') }}
        create={{ label: t('prefixLists.create'), to: paths.createPrefixList() }}
        width={780}
      />
      <Outlet />
    </>
  );
}
