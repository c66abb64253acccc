import type { TableColumnsType } from 'antd';
import { useTranslation } from 'react-i18next';
import {
  useAddSecurityGroupRuleMutation,
  useGetSecurityGroupQuery,
  useListSecurityGroupsQuery,
  useRemoveSecurityGroupRuleMutation,
} from '../../api';
import type { ApiProblem } from '../../api/errors';
import type { SecurityGroup } from '../../api/types';
import { AppliedText } from '../../ui/AppliedText';
import { CopyText } from '../../ui/CopyText';
import { createdColumn, idColumn, nameColumn, vpcColumn } from '../../ui/columns';
import { ListView } from '../../ui/ListView';
import { packetsOf, RuleRows } from '../../ui/RuleRows';
import { useChange } from '../shared/useChange';
import { useDetails } from '../shared/useDetails';
import { usePolling, useVpcNames } from '../shared/useLists';

function Rules({ group: listed }: { group: SecurityGroup }) {
  const { t } = useTranslation();
  const { options, read } = useDetails();
  const { item: group = listed } = read(useGetSecurityGroupQuery(listed.id, options));
  const [add] = useAddSecurityGroupRuleMutation();
  const [remove] = useRemoveSecurityGroupRuleMutation();
  const { change, state } = useChange();
  const { id, name } = group;
  return (
    <>
      <AppliedText applied={group.applied} />
      <RuleRows
        label={t('securityGroups.rulesOf', { name })}
        addLabel={t('securityGroups.addRule')}
        rows={group.rules}
        rowKey={(rule) => rule.id}
        peerOf={(rule) => rule.source_destination}
        empty={t('securityGroups.noRules')}
        columns={{
          last: [
            {
              key: 'id',
              title: t('common.id'),
              render: (_, rule) => <CopyText value={rule.id} what={t('common.id')} />,
            },
          ],
        }}
        peerHint="10.0.0.0/16, sg-…, pl-…"
        onAdd={(values) =>
          change(() =>
            add({ id, body: { ...packetsOf(values), source_destination: values.peer.trim() } }).unwrap(),
          )
        }
        onRemove={(rule) => change(() => remove({ id, rule: rule.id }).unwrap())}
        state={state}
      />
    </>
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
