import { SearchOutlined } from '@ant-design/icons';
import { Input, Table, type TableColumnsType } from 'antd';
import { useMemo } from 'react';
import { useTranslation } from 'react-i18next';
import { useSearchParams } from 'react-router';
import { useListSubnetsQuery, useListVpcsQuery } from '../../api';
import type { ApiProblem } from '../../api/errors';
import { pollingInterval } from '../../api/events';
import type { Subnet, Vpc } from '../../api/types';
import { useAppSelector } from '../../store';
import { ApiSnippet } from '../../ui/ApiSnippet';
import { CopyText } from '../../ui/CopyText';
import { EmptyState } from '../../ui/EmptyState';
import { ListTable } from '../../ui/ListTable';
import { PageHeader } from '../../ui/PageHeader';
import { ProblemAlert } from '../../ui/ProblemAlert';
import { StateTag } from '../../ui/StateTag';
import { TimeText } from '../../ui/TimeText';
import { Toolbar } from '../../ui/Toolbar';

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
      locale={{ emptyText: t('vpcs.noSubnets') }}
    />
  );
}

/** The VPCs and, in each, its subnets. */
export function ListPage() {
  const { t } = useTranslation();
  const [params, setParams] = useSearchParams();
  const typed = (params.get('q') ?? '').toLowerCase();
  const live = useAppSelector((state) => state.live.status);
  const polling = { pollingInterval: pollingInterval(live), skipPollingIfUnfocused: true };
  const vpcs = useListVpcsQuery(undefined, polling);
  const subnets = useListSubnetsQuery(undefined, polling);
  const problem = (vpcs.error ?? subnets.error) as ApiProblem | undefined;
  const rows = useMemo(
    () =>
      (vpcs.data ?? []).filter((vpc) =>
        `${vpc.name}\n${vpc.id}\n${vpc.cidr_block}`.toLowerCase().includes(typed.trim()),
      ),
    [vpcs.data, typed],
  );
  const subnetsOf = (vpc: Vpc) => (subnets.data ?? []).filter(({ vpc_id }) => vpc_id === vpc.id);

  const columns: TableColumnsType<Vpc> = [
    {
      key: 'name',
      title: t('common.name'),
      width: 200,
      sorter: (a, b) => a.name.localeCompare(b.name),
      render: (_, row) => (
        <strong className="ellipsis" title={row.name}>
          {row.name}
        </strong>
      ),
    },
    {
      key: 'state',
      title: t('common.state'),
      width: 130,
      render: (_, row) => <StateTag state={row.state} />,
    },
    {
      key: 'id',
      title: t('common.id'),
      width: 230,
      render: (_, row) => <CopyText value={row.id} what={t('common.id')} />,
    },
    {
      key: 'cidr',
      title: t('common.cidr'),
      width: 160,
      render: (_, row) => <span className="mono">{row.cidr_block}</span>,
    },
    { key: 'subnets', title: t('vpcs.subnets'), width: 90, render: (_, row) => subnetsOf(row).length },
    {
      key: 'created',
      title: t('common.created'),
      width: 140,
      render: (_, row) => <TimeText at={row.created_at} />,
    },
  ];

  return (
    <>
      <PageHeader
        title={t('vpcs.title')}
        extra={
          <ApiSnippet
            calls={[
              { method: 'GET', path: '/vpcs' },
              { method: 'GET', path: '/subnets' },
            ]}
          />
        }
      />
      <Toolbar>
        <Input
          className="toolbar-search"
          allowClear
          prefix={<SearchOutlined aria-hidden="true" />}
          aria-label={t('vpcs.searchLabel')}
          placeholder={t('common.search')}
          value={params.get('q') ?? ''}
          onChange={({ target }) =>
            setParams(target.value === '' ? {} : { q: target.value }, { replace: true })
          }
        />
      </Toolbar>
      {problem !== undefined && (
        <div className="above-panel">
          <ProblemAlert
            problem={problem}
            onRetry={() => {
              void vpcs.refetch();
              void subnets.refetch();
            }}
          />
        </div>
      )}
      {(vpcs.data !== undefined || problem === undefined) && (
        <div className="panel">
          <ListTable
            label={t('vpcs.title')}
            columns={columns}
            rows={rows}
            loading={vpcs.data === undefined}
            empty={
              vpcs.data?.length ? (
                <EmptyState title={t('common.noMatch')} />
              ) : (
                <EmptyState title={t('vpcs.empty')} hint={t('vpcs.emptyHint')} />
              )
            }
            expandable={{ render: (vpc) => <Subnets vpc={vpc} subnets={subnetsOf(vpc)} /> }}
            width={990}
          />
        </div>
      )}
    </>
  );
}
