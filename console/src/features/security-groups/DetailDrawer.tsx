import { Form, Input } from 'antd';
import { useTranslation } from 'react-i18next';
import { Link, useParams } from 'react-router';
import {
  useAddSecurityGroupRuleMutation,
  useDeleteSecurityGroupMutation,
  useGetSecurityGroupQuery,
  useListPrefixListsQuery,
  useListSecurityGroupsQuery,
  useListVpcsQuery,
  useRemoveSecurityGroupRuleMutation,
  useUpdateSecurityGroupMutation,
} from '../../api';
import type { SecurityGroup, SecurityGroupRule } from '../../api/types';
import { paths } from '../../paths';
import { AppliedText } from '../../ui/AppliedText';
import { CopyText } from '../../ui/CopyText';
import { Facts } from '../../ui/Facts';
import type { Peer } from '../../ui/PeerInput';
import { Reference } from '../../ui/Reference';
import { ResourceDrawer } from '../../ui/ResourceDrawer';
import { packetsOf, RuleRows, type RuleValues } from '../../ui/RuleRows';
import { Section } from '../../ui/Section';
import { TimeText } from '../../ui/TimeText';
import { NameForm } from '../shared/NameForm';
import { useChange } from '../shared/useChange';
import { useDetails } from '../shared/useDetails';
import { nameIn } from '../shared/useLists';

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
      ? paths.securityGroup(peer)
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

function Rules({ group }: { group: SecurityGroup }) {
  const { t } = useTranslation();
  const { peers, names } = usePeers(group);
  const [add] = useAddSecurityGroupRuleMutation();
  const [remove] = useRemoveSecurityGroupRuleMutation();
  const { change, state } = useChange();
  const { id, name } = group;
  return (
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
  );
}

/** Everything about one security group, beside the list. */
export function DetailDrawer() {
  const { t } = useTranslation();
  const { id = '' } = useParams();
  const { data: vpcs } = useListVpcsQuery();
  const { options, read, remove } = useDetails();
  const { item, problem, refetch } = read(useGetSecurityGroupQuery(id, options));
  const [update] = useUpdateSecurityGroupMutation();
  const [drop] = useDeleteSecurityGroupMutation();
  return (
    <ResourceDrawer
      size={960}
      title={(known) => known?.name ?? id}
      calls={[
        { method: 'GET', path: `/security-groups/${id}?wait=applied` },
        {
          method: 'POST',
          path: `/security-groups/${id}/rules?wait=applied`,
          body: {
            direction: 'inbound',
            protocol: 'tcp',
            port_range: '443',
            source_destination: '0.0.0.0/0',
          },
        },
        { method: 'DELETE', path: `/security-groups/${id}/rules/sgr-…?wait=applied` },
        { method: 'DELETE', path: `/security-groups/${id}` },
      ]}
      list={paths.securityGroups()}
      item={item}
      problem={problem}
      onRetry={refetch}
      missing={{ title: t('securityGroups.missing'), back: t('securityGroups.showAll') }}
      removal={({ name, is_default }) => ({
        id,
        name,
        body: t('securityGroups.deleteBody'),
        hindrance: is_default ? t('securityGroups.defaultStays') : undefined,
        run: () => remove(() => drop(id).unwrap()),
      })}
    >
      {(group) => (
        <>
          <Section title={t('securityGroups.rules')}>
            <Rules group={group} />
          </Section>
          <Section title={t('forms.words')}>
            <NameForm
              words={{ ...(group.is_default ? {} : { name: group.name }), description: group.description }}
              save={(body) => update({ id, body }).unwrap()}
            />
          </Section>
          <Section title={t('detail.summary')}>
            <Facts
              items={[
                [t('applied.label'), <AppliedText key="applied" applied={group.applied} />],
                [t('detail.generation'), group.generation ?? '–'],
                [t('common.id'), <CopyText key="id" value={group.id} what={t('common.id')} />],
                [t('common.uuid'), <CopyText key="uuid" value={group.uuid} what={t('common.uuid')} />],
                [t('common.description'), group.description || '–'],
                [
                  t('common.vpc'),
                  <Reference
                    key="vpc"
                    id={group.vpc_id}
                    name={nameIn(vpcs, group.vpc_id)}
                    what={t('common.vpc')}
                    to={paths.vpc(group.vpc_id)}
                  />,
                ],
                [t('common.default'), group.is_default ? t('common.yes') : t('common.no')],
                [t('common.created'), <TimeText key="created" at={group.created_at} />],
                [t('detail.updated'), <TimeText key="updated" at={group.updated_at} />],
              ]}
            />
          </Section>
        </>
      )}
    </ResourceDrawer>
  );
}
