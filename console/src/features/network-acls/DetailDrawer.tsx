import { Form, InputNumber, Select } from 'antd';
import { useTranslation } from 'react-i18next';
import { useParams } from 'react-router';
import {
  useAddNetworkAclEntryMutation,
  useAssociateNetworkAclMutation,
  useDeleteNetworkAclMutation,
  useGetNetworkAclQuery,
  useListSubnetsQuery,
  useListVpcsQuery,
  useRemoveNetworkAclEntryMutation,
  useReplaceNetworkAclEntryMutation,
  useUpdateNetworkAclMutation,
} from '../../api';
import type { NetworkAcl, NetworkAclEntry, PutNetworkAclEntry } from '../../api/types';
import { paths } from '../../paths';
import { AppliedText } from '../../ui/AppliedText';
import { CopyText } from '../../ui/CopyText';
import { Facts } from '../../ui/Facts';
import { Option } from '../../ui/Option';
import { Reference } from '../../ui/Reference';
import { ResourceDrawer } from '../../ui/ResourceDrawer';
import { RowsEditor } from '../../ui/RowsEditor';
import { packetsOf, RuleRows, type RuleValues } from '../../ui/RuleRows';
import { Section } from '../../ui/Section';
import { TimeText } from '../../ui/TimeText';
import { NameForm } from '../shared/NameForm';
import { useChange } from '../shared/useChange';
import { useDetails } from '../shared/useDetails';
import { nameIn } from '../shared/useLists';

/** The number of the end of every list: it denies what no other entry matches, and nobody can change it. */
const REST = 32_767;

interface EntryValues extends RuleValues {
  rule_number: number;
  action: NetworkAclEntry['action'];
}

function entryOf(values: EntryValues): PutNetworkAclEntry {
  const { rule_number, action, peer } = values;
  return { ...packetsOf(values), rule_number, action, cidr_block: peer.trim() };
}

function Entries({ acl }: { acl: NetworkAcl }) {
  const { t } = useTranslation();
  const [add] = useAddNetworkAclEntryMutation();
  const [replace] = useReplaceNetworkAclEntryMutation();
  const [remove] = useRemoveNetworkAclEntryMutation();
  const { change, state } = useChange();
  const { id, name } = acl;
  const isRest = ({ rule_number }: NetworkAclEntry) => rule_number === REST;
  return (
    <RuleRows<NetworkAclEntry, EntryValues>
      label={t('networkAcls.entriesOf', { name })}
      addLabel={t('networkAcls.addEntry')}
      rows={acl.entries}
      rowKey={(entry) => `${entry.direction} ${entry.rule_number}`}
      peerOf={(entry) => entry.cidr_block}
      nameOf={(entry, text) => `${entry.rule_number} ${text}`}
      isFixed={isRest}
      rowClassName={(entry) => (isRest(entry) ? 'row-implicit' : '')}
      columns={{
        first: [
          {
            key: 'number',
            title: t('networkAcls.number'),
            render: (_, entry) => (isRest(entry) ? '*' : entry.rule_number),
          },
          {
            key: 'action',
            title: t('networkAcls.action'),
            render: (_, entry) => (
              <span className="state-tag" data-tone={entry.action === 'allow' ? 'good' : 'bad'}>
                <span className="state-dot" aria-hidden="true" />
                {t(`networkAcls.${entry.action}`)}
              </span>
            ),
          },
        ],
      }}
      initial={{ action: 'allow' }}
      fields={{
        first: (changing) => (
          <>
            <Form.Item
              name="rule_number"
              label={t('networkAcls.number')}
              rules={[
                {
                  required: true,
                  type: 'integer',
                  min: 1,
                  max: REST - 1,
                  message: t('networkAcls.numberRequired'),
                },
              ]}
            >
              <InputNumber controls={false} placeholder="100" disabled={changing} />
            </Form.Item>
            <Form.Item name="action" label={t('networkAcls.action')}>
              <Select
                options={(['allow', 'deny'] as const).map((value) => ({
                  value,
                  label: t(`networkAcls.${value}`),
                }))}
              />
            </Form.Item>
          </>
        ),
      }}
      peerHint="0.0.0.0/0"
      onAdd={(values) => change(() => add({ id, body: entryOf(values) }).unwrap())}
      replace={{
        values: ({ rule_number, action }) => ({ rule_number, action }),
        send: (values) => change(() => replace({ id, body: entryOf(values) }).unwrap()),
      }}
      onRemove={({ direction, rule_number }) => change(() => remove({ id, direction, rule_number }).unwrap())}
      state={state}
    />
  );
}

/** Its subnets. None can be taken away: a subnet always has one ACL, so it goes by being given another. */
function Associations({ acl }: { acl: NetworkAcl }) {
  const { t } = useTranslation();
  const { data: subnets } = useListSubnetsQuery();
  const [associate] = useAssociateNetworkAclMutation();
  const { change, state } = useChange();
  const has = new Set(acl.associations.map(({ subnet_id }) => subnet_id));
  const others = (subnets ?? []).filter(({ id, vpc_id }) => vpc_id === acl.vpc_id && !has.has(id));
  return (
    <RowsEditor<NetworkAcl['associations'][number], { subnet_id: string }>
      label={t('networkAcls.subnetsOf', { name: acl.name })}
      rows={acl.associations}
      rowKey={(row) => row.id}
      columns={[
        {
          key: 'subnet',
          title: t('common.subnet'),
          render: (_, { subnet_id }) => (
            <Reference id={subnet_id} name={nameIn(subnets, subnet_id)} what={t('common.subnet')} />
          ),
        },
      ]}
      empty={t('networkAcls.noSubnets')}
      nameOf={({ subnet_id }) => nameIn(subnets, subnet_id) ?? subnet_id}
      add={{
        label: t('networkAcls.associate'),
        fields: () => (
          <Form.Item
            name="subnet_id"
            className="row-wide"
            label={t('networkAcls.associate')}
            rules={[{ required: true, message: t('launch.subnetRequired') }]}
          >
            <Select
              showSearch={{ optionFilterProp: 'text' }}
              options={others.map((subnet) => ({
                value: subnet.id,
                text: `${subnet.name} ${subnet.id} ${subnet.cidr_block}`,
                label: <Option name={subnet.name} note={subnet.cidr_block} />,
              }))}
            />
          </Form.Item>
        ),
        send: ({ subnet_id }) => change(() => associate({ id: acl.id, body: { subnet_id } }).unwrap()),
      }}
      state={state}
    />
  );
}

/** Everything about one network ACL, beside the list. */
export function DetailDrawer() {
  const { t } = useTranslation();
  const { id = '' } = useParams();
  const { data: vpcs } = useListVpcsQuery();
  const { options, read, remove } = useDetails();
  const { item, problem, refetch } = read(useGetNetworkAclQuery(id, options));
  const [update] = useUpdateNetworkAclMutation();
  const [drop] = useDeleteNetworkAclMutation();
  return (
    <ResourceDrawer
      size={960}
      title={(known) => known?.name ?? id}
      calls={[
        { method: 'GET', path: `/network-acls/${id}?wait=applied` },
        {
          method: 'POST',
          path: `/network-acls/${id}/entries?wait=applied`,
          body: {
            direction: 'inbound',
            rule_number: 100,
            action: 'allow',
            protocol: 'tcp',
            port_range: '443',
            cidr_block: '0.0.0.0/0',
          },
        },
        {
          method: 'DELETE',
          path: `/network-acls/${id}/entries?direction=inbound&rule_number=100&wait=applied`,
        },
        { method: 'POST', path: `/network-acls/${id}/associations`, body: { subnet_id: 'subnet-…' } },
        { method: 'DELETE', path: `/network-acls/${id}` },
      ]}
      list={paths.networkAcls()}
      item={item}
      problem={problem}
      onRetry={refetch}
      missing={{ title: t('networkAcls.missing'), back: t('networkAcls.showAll') }}
      removal={({ name, is_default }) => ({
        id,
        name,
        body: t('networkAcls.deleteBody'),
        hindrance: is_default ? t('networkAcls.defaultStays') : undefined,
        run: () => remove(() => drop(id).unwrap()),
      })}
    >
      {(acl) => (
        <>
          <Section title={t('networkAcls.entries')}>
            <p className="hint">{t('networkAcls.order')}</p>
            <Entries acl={acl} />
          </Section>
          <Section title={t('networkAcls.subnets')}>
            <Associations acl={acl} />
          </Section>
          <Section title={t('forms.words')}>
            <NameForm
              words={{ name: acl.name }}
              save={({ name = '' }) => update({ id, body: { name } }).unwrap()}
            />
          </Section>
          <Section title={t('detail.summary')}>
            <Facts
              items={[
                [t('applied.label'), <AppliedText key="applied" applied={acl.applied} />],
                [t('detail.generation'), acl.generation ?? '–'],
                [t('common.id'), <CopyText key="id" value={acl.id} what={t('common.id')} />],
                [t('common.uuid'), <CopyText key="uuid" value={acl.uuid} what={t('common.uuid')} />],
                [
                  t('common.vpc'),
                  <Reference
                    key="vpc"
                    id={acl.vpc_id}
                    name={nameIn(vpcs, acl.vpc_id)}
                    what={t('common.vpc')}
                    to={paths.vpc(acl.vpc_id)}
                  />,
                ],
                [t('networkAcls.default'), acl.is_default ? t('common.yes') : t('common.no')],
                [t('common.created'), <TimeText key="created" at={acl.created_at} />],
              ]}
            />
          </Section>
        </>
      )}
    </ResourceDrawer>
  );
}
