import { Form, InputNumber, Select, type TableColumnsType } from 'antd';
import { useTranslation } from 'react-i18next';
import {
  useAddNetworkAclEntryMutation,
  useGetNetworkAclQuery,
  useListNetworkAclsQuery,
  useRemoveNetworkAclEntryMutation,
} from '../../api';
import type { ApiProblem } from '../../api/errors';
import type { NetworkAcl, NetworkAclEntry } from '../../api/types';
import { AppliedText } from '../../ui/AppliedText';
import { createdColumn, idColumn, nameColumn, vpcColumn } from '../../ui/columns';
import { ListView } from '../../ui/ListView';
import { packetsOf, RuleRows, type RuleValues } from '../../ui/RuleRows';
import { useChange } from '../shared/useChange';
import { useDetails } from '../shared/useDetails';
import { usePolling, useVpcNames } from '../shared/useLists';

/** The number of the end of every list: it denies what no other entry matches, and nobody can change it. */
const REST = 32_767;

interface EntryValues extends RuleValues {
  rule_number: number;
  action: NetworkAclEntry['action'];
}

function Entries({ acl: listed }: { acl: NetworkAcl }) {
  const { t } = useTranslation();
  const { options, read } = useDetails();
  const { item: acl = listed } = read(useGetNetworkAclQuery(listed.id, options));
  const [add] = useAddNetworkAclEntryMutation();
  const [remove] = useRemoveNetworkAclEntryMutation();
  const { change, state } = useChange();
  const { id, name } = acl;
  return (
    <>
      <AppliedText applied={acl.applied} />
      <RuleRows<NetworkAclEntry, EntryValues>
        label={t('networkAcls.entriesOf', { name })}
        addLabel={t('networkAcls.addEntry')}
        rows={acl.entries}
        rowKey={(entry) => `${entry.direction} ${entry.rule_number}`}
        peerOf={(entry) => entry.cidr_block}
        nameOf={(entry, text) => `${entry.rule_number} ${text}`}
        isFixed={(entry) => entry.rule_number === REST}
        columns={{
          first: [
            {
              key: 'number',
              title: t('networkAcls.number'),
              render: (_, entry) => (entry.rule_number === REST ? t('networkAcls.rest') : entry.rule_number),
            },
            {
              key: 'action',
              title: t('networkAcls.action'),
              render: (_, entry) => t(`networkAcls.${entry.action}`),
            },
          ],
        }}
        initial={{ action: 'allow' }}
        fields={
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
        }
        peerHint="0.0.0.0/0"
        onAdd={(values) => {
          const { rule_number, action, peer } = values;
          const body = { ...packetsOf(values), rule_number, action, cidr_block: peer.trim() };
          return change(() => add({ id, body }).unwrap());
        }}
        onRemove={({ direction, rule_number }) =>
          change(() => remove({ id, direction, rule_number }).unwrap())
        }
        state={state}
      />
    </>
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
      width: 80,
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
      expandable={{ render: (acl) => <Entries acl={acl} /> }}
      width={930}
    />
  );
}
