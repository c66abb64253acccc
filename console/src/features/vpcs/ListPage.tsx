import { Table, type TableColumnsType } from 'antd';
import { useTranslation } from 'react-i18next';
import { Outlet, useLocation } from 'react-router';
import { useListSubnetsQuery, useListVpcsQuery } from '../../api';
import type { ApiProblem } from '../../api/errors';
import type { Subnet, Vpc } from '../../api/types';
import { paths } from '../../paths';
import { AppliedText } from '../../ui/AppliedText';
import { CopyText } from '../../ui/CopyText';
import { createdColumn, idColumn, nameColumn } from '../../ui/columns';
import { ListView } from '../../ui/ListView';
import { StateTag } from '../../ui/StateTag';
import { usePolling } from '../shared/useLists';

function Subnets({ vpc, subnets }: { vpc: Vpc; subnets: Subnet[] }) {
  const { t } = useTranslation();
  const columns: TableColumnsType<Subnet> = [
    { key: 'name', title: t('common.name'), dataIndex: 'name' },
    {
      key: 'id',
      title: t('common.id'),
      render: (_, row) => <CopyText value={row.id} what={t('common.id')} />,
    },
    {
      key: 'cidr',
      title: t('common.cidr'),
      render: (_, row) => <span className="mono">{row.cidr_block}</span>,
    },
    { key: 'zone', title: t('common.zone'), dataIndex: 'availability_zone' },
    {
      key: 'kind',
      title: t('vpcs.kind'),
      render: (_, row) => t(`vpcs.${row.subnet_type}`),
    },
    { key: 'free', title: t('vpcs.freeAddresses'), render: (_, row) => row.available_ip_address_count },
  ];
  return (
    <Table<Subnet>
      aria-label={t('vpcs.subnetsOf', { name: vpc.name })}
      size="small"
      rowKey="id"
      pagination={false}
      columns={columns}
      dataSource={subnets}
      locale={{ emptyText: <span className="muted">{t('vpcs.noSubnets')}</span> }}
    />
  );
}

/** The VPCs and, in each, its subnets. */
export function ListPage() {
  const { t } = useTranslation();
  const { search } = useLocation();
  const polling = usePolling();
  const vpcs = useListVpcsQuery(undefined, polling);
  const subnets = useListSubnetsQuery(undefined, polling);
  const subnetsOf = (vpc: Vpc) => (subnets.data ?? []).filter(({ vpc_id }) => vpc_id === vpc.id);

  const columns: TableColumnsType<Vpc> = [
    nameColumn(t, 200, (row) => ({ pathname: paths.vpc(row.id), search })),
    {
      key: 'state',
      title: t('common.state'),
      width: 130,
      render: (_, row) => <StateTag state={row.state} />,
    },
    idColumn(t, 230),
    {
      key: 'cidr',
      title: t('common.cidr'),
      width: 160,
      render: (_, row) => {
        const further = row.cidr_block_associations.length - 1;
        return (
          <>
            <span className="mono">{row.cidr_block}</span>
            {further > 0 && <span className="muted"> +{further}</span>}
          </>
        );
      },
    },
    { key: 'subnets', title: t('vpcs.subnets'), width: 90, render: (_, row) => subnetsOf(row).length },
    {
      key: 'applied',
      title: t('applied.label'),
      width: 140,
      render: (_, row) => <AppliedText applied={row.applied} />,
    },
    createdColumn(t),
  ];

  return (
    <>
      <ListView
        title={t('vpcs.title')}
        searchLabel={t('vpcs.searchLabel')}
        calls={[
          { method: 'GET', path: '/vpcs' },
          { method: 'GET', path: '/subnets' },
        ]}
        columns={columns}
        rows={vpcs.data}
        words={(vpc) => [
          vpc.name,
          vpc.id,
          ...vpc.cidr_block_associations.map(({ cidr_block }) => cidr_block),
        ]}
        problem={(vpcs.error ?? subnets.error) as ApiProblem | undefined}
        onRetry={() => {
          void vpcs.refetch();
          void subnets.refetch();
        }}
        empty={{ title: t('vpcs.empty'), hint: t('vpcs.emptyHint') }}
        expandable={{ render: (vpc) => <Subnets vpc={vpc} subnets={subnetsOf(vpc)} /> }}
        create={{ label: t('vpcs.create'), to: paths.createVpc() }}
        width={1130}
      />
      <Outlet />
    </>
  );
}
