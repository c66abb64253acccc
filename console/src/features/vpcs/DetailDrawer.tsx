import { Form, Input } from 'antd';
import { useTranslation } from 'react-i18next';
import { Link, useParams } from 'react-router';
import {
  useAssociateVpcCidrBlockMutation,
  useDeleteVpcMutation,
  useDisassociateVpcCidrBlockMutation,
  useGetVpcQuery,
  useListRouteTablesQuery,
  useListSecurityGroupsQuery,
  useUpdateVpcMutation,
} from '../../api';
import type { Vpc } from '../../api/types';
import { paths } from '../../paths';
import { AppliedText } from '../../ui/AppliedText';
import { CopyText } from '../../ui/CopyText';
import { Facts } from '../../ui/Facts';
import { Reference } from '../../ui/Reference';
import { ResourceDrawer } from '../../ui/ResourceDrawer';
import { RowsEditor } from '../../ui/RowsEditor';
import { Section } from '../../ui/Section';
import { StateTag } from '../../ui/StateTag';
import { TimeText } from '../../ui/TimeText';
import { NameForm } from '../shared/NameForm';
import { useChange } from '../shared/useChange';
import { useDetails } from '../shared/useDetails';
import { nameIn } from '../shared/useLists';
import { Gateways } from './Gateways';
import { ResourceMap } from './ResourceMap';
import { Subnets } from './Subnets';

function Summary({ vpc }: { vpc: Vpc }) {
  const { t } = useTranslation();
  const { data: tables } = useListRouteTablesQuery();
  const { data: groups } = useListSecurityGroupsQuery({});
  const main = vpc.main_route_table_id;
  const usual = vpc.default_security_group_id;
  return (
    <Facts
      items={[
        [t('applied.label'), <AppliedText key="applied" applied={vpc.applied} />],
        [t('detail.generation'), vpc.generation],
        [t('common.id'), <CopyText key="id" value={vpc.id} what={t('common.id')} />],
        [t('common.uuid'), <CopyText key="uuid" value={vpc.uuid} what={t('common.uuid')} />],
        [
          t('vpcs.mainTable'),
          <Link key="main" to={paths.routeTable(main)}>
            {nameIn(tables, main) ?? main}
          </Link>,
        ],
        [
          t('vpcs.defaultGroup'),
          <Reference
            key="group"
            id={usual}
            name={nameIn(groups, usual)}
            what={t('vpcs.defaultGroup')}
            to={paths.securityGroup(usual)}
          />,
        ],
        [t('vpcs.isDefault'), vpc.is_default ? t('common.yes') : t('common.no')],
        [t('common.created'), <TimeText key="created" at={vpc.created_at} />],
        [t('detail.updated'), <TimeText key="updated" at={vpc.updated_at} />],
      ]}
    />
  );
}

function Blocks({ vpc }: { vpc: Vpc }) {
  const { t } = useTranslation();
  const [associate] = useAssociateVpcCidrBlockMutation();
  const [disassociate] = useDisassociateVpcCidrBlockMutation();
  const { change, state } = useChange();
  const { id } = vpc;
  return (
    <RowsEditor<Vpc['cidr_block_associations'][number], { cidr_block: string }>
      label={t('vpcs.blocks')}
      rows={vpc.cidr_block_associations}
      rowKey={(row) => row.id}
      columns={[
        {
          key: 'block',
          title: t('common.cidr'),
          render: (_, row) => <span className="mono">{row.cidr_block}</span>,
        },
        {
          key: 'kind',
          title: t('vpcs.kind'),
          render: (_, row) => t(row.is_primary ? 'networkInterfaces.primary' : 'networkInterfaces.secondary'),
        },
      ]}
      nameOf={(row) => row.cidr_block}
      isFixed={(row) => row.is_primary}
      onRemove={(row) => change(() => disassociate({ id, association: row.id }).unwrap())}
      add={{
        label: t('vpcs.addBlock'),
        fields: () => (
          <Form.Item
            name="cidr_block"
            className="row-wide"
            label={t('common.cidr')}
            rules={[{ required: true, whitespace: true, message: t('vpcs.blockRequired') }]}
          >
            <Input className="mono" autoComplete="off" placeholder="10.1.0.0/16" />
          </Form.Item>
        ),
        send: ({ cidr_block }) =>
          change(() => associate({ id, body: { cidr_block: cidr_block.trim() } }).unwrap()),
      }}
      state={state}
    />
  );
}

/** Everything about one VPC, beside the list. */
export function DetailDrawer() {
  const { t } = useTranslation();
  const { id = '' } = useParams();
  const { options, read, remove } = useDetails();
  const { item, problem, refetch } = read(useGetVpcQuery(id, options));
  const [update] = useUpdateVpcMutation();
  const [drop] = useDeleteVpcMutation();
  return (
    <ResourceDrawer
      size={960}
      title={(known) => (
        <div className="drawer-title">
          <span>{known?.name ?? id}</span>
          {known !== undefined && <StateTag state={known.state} />}
        </div>
      )}
      calls={[
        { method: 'GET', path: `/vpcs/${id}?wait=applied` },
        { method: 'GET', path: `/vpcs/${id}/subnets` },
        { method: 'GET', path: `/route-tables?vpc_id=${id}` },
        { method: 'GET', path: `/internet-gateways?vpc_id=${id}` },
        { method: 'GET', path: `/network-interfaces?vpc_id=${id}` },
        { method: 'POST', path: `/vpcs/${id}/cidr-blocks`, body: { cidr_block: '10.1.0.0/16' } },
        { method: 'POST', path: `/vpcs/${id}/subnets`, body: { name: 'a', cidr_block: '10.1.1.0/24' } },
        { method: 'POST', path: '/internet-gateways/igw-…/attach', body: { vpc_id: id } },
        { method: 'DELETE', path: `/vpcs/${id}` },
      ]}
      list={paths.vpcs()}
      item={item}
      problem={problem}
      onRetry={refetch}
      missing={{ title: t('vpcs.missing'), back: t('vpcs.showAll') }}
      removal={({ name }) => ({
        id,
        name,
        body: t('vpcs.deleteBody'),
        run: () => remove(() => drop(id).unwrap()),
      })}
    >
      {(vpc) => (
        <>
          <Section title={t('vpcs.map')}>
            <ResourceMap vpc={vpc} />
          </Section>
          <Section title={t('vpcs.subnets')}>
            <Subnets vpc={vpc} />
          </Section>
          <Section title={t('vpcs.gateways')}>
            <Gateways vpc={vpc} />
          </Section>
          <Section title={t('vpcs.blocks')}>
            <Blocks vpc={vpc} />
          </Section>
          <Section title={t('forms.words')}>
            <NameForm
              words={{ name: vpc.name }}
              save={({ name = '' }) => update({ id, body: { name } }).unwrap()}
            />
          </Section>
          <Section title={t('detail.summary')}>
            <Summary vpc={vpc} />
          </Section>
        </>
      )}
    </ResourceDrawer>
  );
}
