import { SearchOutlined } from '@ant-design/icons';
import { Input, Table, type TableColumnsType } from 'antd';
import { useMemo } from 'react';
import { useTranslation } from 'react-i18next';
import { useSearchParams } from 'react-router';
import { useListNetworkAclsQuery, useListVpcsQuery } from '../../api';
import type { ApiProblem } from '../../api/errors';
import { pollingInterval } from '../../api/events';
import type { NetworkAcl, NetworkAclEntry } from '../../api/types';
import { useAppSelector } from '../../store';
import { ApiSnippet } from '../../ui/ApiSnippet';
import { CopyText } from '../../ui/CopyText';
import { EmptyState } from '../../ui/EmptyState';
import { ListTable } from '../../ui/ListTable';
import { PageHeader } from '../../ui/PageHeader';
import { ProblemAlert } from '../../ui/ProblemAlert';
import { TimeText } from '../../ui/TimeText';
import { Toolbar } from '../../ui/Toolbar';

/** The number of the end of every list: it denies what no other entry matches, and nobody can change it. */
const REST = 32_767;

/** Ports, or type and code for ICMP. */
function portsText(entry: NetworkAclEntry, all: string): string {
  if (entry.protocol === 'icmp') {
    return entry.icmp_type === null
      ? all
      : [entry.icmp_type, entry.icmp_code].filter((n) => n !== null).join('/');
  }
  return entry.port_range === 'all' ? all : entry.port_range;
}

function Entries({ acl }: { acl: NetworkAcl }) {
  const { t } = useTranslation();
  const orAll = (value: string) => (value === 'all' ? t('securityGroups.all') : value.toUpperCase());
  const columns: TableColumnsType<NetworkAclEntry> = [
    {
      key: 'direction',
      title: t('securityGroups.direction'),
      render: (_, entry) => t(`securityGroups.${entry.direction}`),
    },
    {
      key: 'number',
      title: t('networkAcls.number'),
      render: (_, entry) => (entry.rule_number === REST ? t('networkAcls.rest') : entry.rule_number),
    },
    { key: 'action', title: t('networkAcls.action'), render: (_, entry) => t(`networkAcls.${entry.action}`) },
    { key: 'protocol', title: t('securityGroups.protocol'), render: (_, entry) => orAll(entry.protocol) },
    {
      key: 'ports',
      title: t('securityGroups.ports'),
      render: (_, entry) => portsText(entry, t('securityGroups.all')),
    },
    {
      key: 'peer',
      title: t('securityGroups.peer'),
      render: (_, entry) => <span className="mono">{entry.cidr_block}</span>,
    },
  ];
  return (
    <Table<NetworkAclEntry>
      aria-label={t('networkAcls.entriesOf', { name: acl.name })}
      size="small"
      rowKey={(entry) => `${entry.direction} ${entry.rule_number}`}
      pagination={false}
      columns={columns}
      dataSource={acl.entries}
    />
  );
}

/** The network ACLs and, in each, its entries in the order in which they are asked. */
export function ListPage() {
  const { t } = useTranslation();
  const [params, setParams] = useSearchParams();
  const typed = (params.get('q') ?? '').toLowerCase();
  const live = useAppSelector((state) => state.live.status);
  const polling = { pollingInterval: pollingInterval(live), skipPollingIfUnfocused: true };
  const acls = useListNetworkAclsQuery(undefined, polling);
  const vpcs = useListVpcsQuery();
  const problem = acls.error as ApiProblem | undefined;
  const vpcNames = useMemo(() => new Map(vpcs.data?.map(({ id, name }) => [id, name])), [vpcs.data]);
  const rows = useMemo(
    () =>
      (acls.data ?? []).filter((acl) =>
        [acl.name, acl.id, acl.vpc_id, vpcNames.get(acl.vpc_id), ...acl.associations.map((a) => a.subnet_id)]
          .join('\n')
          .toLowerCase()
          .includes(typed.trim()),
      ),
    [acls.data, vpcNames, typed],
  );

  const columns: TableColumnsType<NetworkAcl> = [
    {
      key: 'name',
      title: t('common.name'),
      width: 190,
      sorter: (a, b) => a.name.localeCompare(b.name),
      render: (_, row) => (
        <strong className="ellipsis" title={row.name}>
          {row.name}
        </strong>
      ),
    },
    {
      key: 'id',
      title: t('common.id'),
      width: 220,
      render: (_, row) => <CopyText value={row.id} what={t('common.id')} />,
    },
    {
      key: 'vpc',
      title: t('common.vpc'),
      width: 170,
      render: (_, row) => (
        <span className="ellipsis" title={row.vpc_id}>
          {vpcNames.get(row.vpc_id) ?? row.vpc_id}
        </span>
      ),
    },
    {
      key: 'default',
      title: t('networkAcls.default'),
      width: 90,
      render: (_, row) => (row.is_default ? t('networkAcls.default') : '–'),
    },
    {
      key: 'subnets',
      title: t('networkAcls.subnets'),
      width: 80,
      render: (_, row) => row.associations.length,
    },
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
        title={t('networkAcls.title')}
        extra={<ApiSnippet calls={[{ method: 'GET', path: '/network-acls' }]} />}
      />
      <Toolbar>
        <Input
          className="toolbar-search"
          allowClear
          prefix={<SearchOutlined aria-hidden="true" />}
          aria-label={t('networkAcls.searchLabel')}
          placeholder={t('common.search')}
          value={params.get('q') ?? ''}
          onChange={({ target }) =>
            setParams(target.value === '' ? {} : { q: target.value }, { replace: true })
          }
        />
      </Toolbar>
      {problem !== undefined && (
        <div className="above-panel">
          <ProblemAlert problem={problem} onRetry={() => void acls.refetch()} />
        </div>
      )}
      {(acls.data !== undefined || problem === undefined) && (
        <div className="panel">
          <ListTable
            label={t('networkAcls.title')}
            columns={columns}
            rows={rows}
            loading={acls.data === undefined}
            empty={
              acls.data?.length ? (
                <EmptyState title={t('common.noMatch')} />
              ) : (
                <EmptyState title={t('networkAcls.empty')} hint={t('networkAcls.emptyHint')} />
              )
            }
            expandable={{ render: (acl) => <Entries acl={acl} /> }}
            width={930}
          />
        </div>
      )}
    </>
  );
}
