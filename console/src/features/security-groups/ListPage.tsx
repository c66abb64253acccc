import { SearchOutlined } from '@ant-design/icons';
import { Input, Table, type TableColumnsType } from 'antd';
import { useMemo } from 'react';
import { useTranslation } from 'react-i18next';
import { useSearchParams } from 'react-router';
import { useListSecurityGroupsQuery, useListVpcsQuery } from '../../api';
import type { ApiProblem } from '../../api/errors';
import { pollingInterval } from '../../api/events';
import type { SecurityGroup, SecurityGroupRule } from '../../api/types';
import { useAppSelector } from '../../store';
import { ApiSnippet } from '../../ui/ApiSnippet';
import { CopyText } from '../../ui/CopyText';
import { EmptyState } from '../../ui/EmptyState';
import { ListTable } from '../../ui/ListTable';
import { PageHeader } from '../../ui/PageHeader';
import { ProblemAlert } from '../../ui/ProblemAlert';
import { TimeText } from '../../ui/TimeText';
import { Toolbar } from '../../ui/Toolbar';

/** Ports, or type and code for ICMP. */
function portsText(rule: SecurityGroupRule, all: string): string {
  if (rule.protocol === 'icmp') {
    return rule.icmp_type === null
      ? all
      : [rule.icmp_type, rule.icmp_code].filter((n) => n !== null).join('/');
  }
  return rule.port_range === 'all' ? all : rule.port_range;
}

function Rules({ group }: { group: SecurityGroup }) {
  const { t } = useTranslation();
  const orAll = (value: string) => (value === 'all' ? t('securityGroups.all') : value.toUpperCase());
  const columns: TableColumnsType<SecurityGroupRule> = [
    {
      key: 'direction',
      title: t('securityGroups.direction'),
      render: (_, rule) => t(`securityGroups.${rule.direction}`),
    },
    { key: 'protocol', title: t('securityGroups.protocol'), render: (_, rule) => orAll(rule.protocol) },
    {
      key: 'ports',
      title: t('securityGroups.ports'),
      render: (_, rule) => portsText(rule, t('securityGroups.all')),
    },
    {
      key: 'peer',
      title: t('securityGroups.peer'),
      render: (_, rule) => <span className="mono">{rule.source_destination}</span>,
    },
    {
      key: 'id',
      title: t('common.id'),
      render: (_, rule) => <CopyText value={rule.id} what={t('common.id')} />,
    },
  ];
  return (
    <Table<SecurityGroupRule>
      aria-label={t('securityGroups.rulesOf', { name: group.name })}
      size="small"
      rowKey="id"
      pagination={false}
      columns={columns}
      dataSource={group.rules}
      locale={{ emptyText: t('securityGroups.noRules') }}
    />
  );
}

/** The security groups and, in each, its rules. */
export function ListPage() {
  const { t } = useTranslation();
  const [params, setParams] = useSearchParams();
  const typed = (params.get('q') ?? '').toLowerCase();
  const live = useAppSelector((state) => state.live.status);
  const polling = { pollingInterval: pollingInterval(live), skipPollingIfUnfocused: true };
  const groups = useListSecurityGroupsQuery({}, polling);
  const vpcs = useListVpcsQuery();
  const problem = groups.error as ApiProblem | undefined;
  const vpcNames = useMemo(() => new Map(vpcs.data?.map(({ id, name }) => [id, name])), [vpcs.data]);
  const rows = useMemo(
    () =>
      (groups.data ?? []).filter((group) =>
        [group.name, group.id, group.description, group.vpc_id, vpcNames.get(group.vpc_id)]
          .join('\n')
          .toLowerCase()
          .includes(typed.trim()),
      ),
    [groups.data, vpcNames, typed],
  );

  const columns: TableColumnsType<SecurityGroup> = [
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
        title={t('securityGroups.title')}
        extra={<ApiSnippet calls={[{ method: 'GET', path: '/security-groups' }]} />}
      />
      <Toolbar>
        <Input
          className="toolbar-search"
          allowClear
          prefix={<SearchOutlined aria-hidden="true" />}
          aria-label={t('securityGroups.searchLabel')}
          placeholder={t('common.search')}
          value={params.get('q') ?? ''}
          onChange={({ target }) =>
            setParams(target.value === '' ? {} : { q: target.value }, { replace: true })
          }
        />
      </Toolbar>
      {problem !== undefined && (
        <div className="above-panel">
          <ProblemAlert problem={problem} onRetry={() => void groups.refetch()} />
        </div>
      )}
      {(groups.data !== undefined || problem === undefined) && (
        <div className="panel">
          <ListTable
            label={t('securityGroups.title')}
            columns={columns}
            rows={rows}
            loading={groups.data === undefined}
            empty={
              groups.data?.length ? (
                <EmptyState title={t('common.noMatch')} />
              ) : (
                <EmptyState title={t('securityGroups.empty')} hint={t('securityGroups.emptyHint')} />
              )
            }
            expandable={{ render: (group) => <Rules group={group} /> }}
            width={1060}
          />
        </div>
      )}
    </>
  );
}
