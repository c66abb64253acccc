import { Form, InputNumber, Select, type TableColumnsType } from 'antd';
import { useTranslation } from 'react-i18next';
import {
  useAddNetworkAclEntryMutation,
  useAssociateNetworkAclMutation,
  useGetNetworkAclQuery,
  useListNetworkAclsQuery,
  useListSubnetsQuery,
  useRemoveNetworkAclEntryMutation,
} from '../../api';
import type { ApiProblem } from '../../api/errors';
import type { NetworkAcl, NetworkAclEntry } from '../../api/types';
import { AppliedText } from '../../ui/AppliedText';
import { createdColumn, idColumn, nameColumn, vpcColumn } from '../../ui/columns';
import { ListView } from '../../ui/ListView';
import { Option } from '../../ui/Option';
import { ProblemAlert } from '../../ui/ProblemAlert';
import { Reference } from '../../ui/Reference';
import { RowsEditor } from '../../ui/RowsEditor';
import { packetsOf, RuleRows, type RuleValues } from '../../ui/RuleRows';
import { useChange } from '../shared/useChange';
import { useDetails } from '../shared/useDetails';
import { nameIn, usePolling, useVpcNames } from '../shared/useLists';

/** The number of the end of every list: it denies what no other entry matches, and nobody can change it. */
const REST = 32_767;

interface EntryValues extends RuleValues {
  rule_number: number;
  action: NetworkAclEntry['action'];
}

function Entries({ acl }: { acl: NetworkAcl }) {
  const { t } = useTranslation();
  const [add] = useAddNetworkAclEntryMutation();
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
        first: (
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
              <InputNumber controls={false} placeholder="100" />
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
      onAdd={(values) => {
        const { rule_number, action, peer } = values;
        const body = { ...packetsOf(values), rule_number, action, cidr_block: peer.trim() };
        return change(() => add({ id, body }).unwrap());
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
          title: t('networkAcls.subnets'),
          render: (_, { subnet_id }) => (
            <Reference id={subnet_id} name={nameIn(subnets, subnet_id)} what={t('common.subnet')} />
          ),
        },
      ]}
      empty={t('networkAcls.noSubnets')}
      nameOf={({ subnet_id }) => nameIn(subnets, subnet_id) ?? subnet_id}
      add={{
        label: t('networkAcls.associate'),
        fields: (
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

function Details({ acl: listed }: { acl: NetworkAcl }) {
  const { t } = useTranslation();
  const { options, read } = useDetails();
  const { item: acl = listed, problem, refetch } = read(useGetNetworkAclQuery(listed.id, options));
  return (
    <div className="unfolded">
      <AppliedText applied={acl.applied} />
      <p className="hint">{t('networkAcls.order')}</p>
      {problem !== undefined && <ProblemAlert problem={problem} onRetry={refetch} />}
      <Entries acl={acl} />
      <Associations acl={acl} />
    </div>
  );
}

/** The network ACLs and, in each, its entries in the order in which they are asked. */
export function ListPage() {
  const { t } = useTranslation();
  const acls = useListNetworkAclsQuery(undefined, usePolling());
  const vpcNames = useVpcNames();

  const columns: TableColumnsType<NetworkAcl> = [
    nameColumn(t, 190),
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
      expandable={{ render: (acl) => <Details acl={acl} /> }}
      width={950}
    />
  );
}
