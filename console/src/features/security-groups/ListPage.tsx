import { Form, Input, type TableColumnsType } from 'antd';
import { useTranslation } from 'react-i18next';
import { Link } from 'react-router';
import {
  useAddSecurityGroupRuleMutation,
  useGetSecurityGroupQuery,
  useListPrefixListsQuery,
  useListSecurityGroupsQuery,
  useListVpcsQuery,
  useRemoveSecurityGroupRuleMutation,
} from '../../api';
import type { ApiProblem } from '../../api/errors';
import type { SecurityGroup, SecurityGroupRule } from '../../api/types';
import { paths } from '../../paths';
import { AppliedText } from '../../ui/AppliedText';
import { CopyText } from '../../ui/CopyText';
import { createdColumn, idColumn, nameColumn, vpcColumn } from '../../ui/columns';
import { ListView } from '../../ui/ListView';
import { ProblemAlert } from '../../ui/ProblemAlert';
import { type Peer, packetsOf, RuleRows, type RuleValues } from '../../ui/RuleRows';
import { useChange } from '../shared/useChange';
import { useDetails } from '../shared/useDetails';
import { usePolling, useVpcNames } from '../shared/useLists';

interface RuleForm extends RuleValues {
  description?: string;
}

/** What rules of a group can name: blocks, groups of its VPC, prefix lists. */
function usePeers(group: SecurityGroup): { peers: Peer[]; names: ReadonlyMap<string, string> } {
  const { t } = useTranslation();
  const { data: vpcs } = useListVpcsQuery();
  const { data: groups } = useListSecurityGroupsQuery({ vpc_id: group.vpc_id });
  const { data: lists } = useListPrefixListsQuery();
  const vpc = vpcs?.find(({ id }) => id === group.vpc_id);
  const blocks = vpc?.cidr_block_associations.map(({ cidr_block }) => cidr_block) ?? [];
  const named = [...(groups ?? []), ...(lists ?? [])];
  return {
    peers: [
      { value: '0.0.0.0/0', name: '0.0.0.0/0', note: t('rules.anywhere') },
      ...blocks.map((block) => ({ value: block, name: block, note: vpc?.name })),
      ...named.map(({ id, name }) => ({ value: id, name, note: id })),
    ],
    names: new Map(named.map(({ id, name }) => [id, name])),
  };
}

/** The other side of a rule: a block, or a group or prefix list with a way to it. */
function PeerText({ peer, name }: { peer: string; name: string | undefined }) {
  const to = peer.startsWith('pl-')
    ? paths.prefixList(peer)
    : peer.startsWith('sg-')
      ? { pathname: paths.securityGroups(), search: new URLSearchParams({ q: peer }).toString() }
      : undefined;
  if (to === undefined) {
    return <span className="mono">{peer}</span>;
  }
  return (
    <>
      {name !== undefined && `${name} `}
      <Link className="mono" to={to}>
        {peer}
      </Link>
    </>
  );
}

/** What comes in before what goes out; otherwise the oldest first, as the API has them. */
function inOrder(rules: SecurityGroupRule[]): SecurityGroupRule[] {
  return rules.toSorted((a, b) => a.direction.localeCompare(b.direction));
}

function Rules({ group: listed }: { group: SecurityGroup }) {
  const { t } = useTranslation();
  const { options, read } = useDetails();
  const { item: group = listed, problem, refetch } = read(useGetSecurityGroupQuery(listed.id, options));
  const { peers, names } = usePeers(group);
  const [add] = useAddSecurityGroupRuleMutation();
  const [remove] = useRemoveSecurityGroupRuleMutation();
  const { change, state } = useChange();
  const { id, name } = group;
  return (
    <div className="unfolded">
      <AppliedText applied={group.applied} />
      {problem !== undefined && <ProblemAlert problem={problem} onRetry={refetch} />}
      <RuleRows<SecurityGroupRule, RuleForm>
        label={t('securityGroups.rulesOf', { name })}
        addLabel={t('securityGroups.addRule')}
        rows={inOrder(group.rules)}
        rowKey={(rule) => rule.id}
        peerOf={({ source_destination: peer }) => names.get(peer) ?? peer}
        renderPeer={({ source_destination: peer }) => <PeerText peer={peer} name={names.get(peer)} />}
        empty={t('securityGroups.noRules')}
        columns={{
          last: [
            {
              key: 'description',
              title: t('common.description'),
              render: (_, rule) => <span className="cell-text">{rule.description || '–'}</span>,
            },
            {
              key: 'id',
              title: t('common.id'),
              render: (_, rule) => <CopyText value={rule.id} what={t('common.id')} />,
            },
          ],
        }}
        fields={{
          last: (
            <Form.Item name="description" className="row-wide" label={t('common.description')}>
              <Input autoComplete="off" maxLength={255} />
            </Form.Item>
          ),
        }}
        peerHint="10.0.0.0/16, sg-…, pl-…"
        peers={peers}
        onAdd={(values) => {
          const description = values.description?.trim();
          const body = {
            ...packetsOf(values),
            source_destination: values.peer.trim(),
            ...(description ? { description } : {}),
          };
          return change(() => add({ id, body }).unwrap());
        }}
        onRemove={(rule) => change(() => remove({ id, rule: rule.id }).unwrap())}
        state={state}
      />
    </div>
  );
}

/** The security groups and, in each, its rules. */
export function ListPage() {
  const { t } = useTranslation();
  const groups = useListSecurityGroupsQuery({}, usePolling());
  const vpcNames = useVpcNames();

  const columns: TableColumnsType<SecurityGroup> = [
    nameColumn(t, 190),
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
      expandable={{ render: (group) => <Rules group={group} /> }}
      width={1060}
    />
  );
}
