import { App, Button, Form, Input, Select } from 'antd';
import { useTranslation } from 'react-i18next';
import { Link, useParams } from 'react-router';
import {
  useAddRouteMutation,
  useAssociateRouteTableMutation,
  useDisassociateRouteTableMutation,
  useGetRouteTableQuery,
  useListInternetGatewaysQuery,
  useListNetworkInterfacesQuery,
  useListRouteTablesQuery,
  useListSubnetsQuery,
  useListVpcsQuery,
  useMoveRouteTableAssociationMutation,
  useRemoveRouteMutation,
} from '../../api';
import type { CreateRoute, Route, RouteTable } from '../../api/types';
import { paths } from '../../paths';
import { AppliedText } from '../../ui/AppliedText';
import { CopyText } from '../../ui/CopyText';
import { Facts } from '../../ui/Facts';
import { Option } from '../../ui/Option';
import { ProblemAlert } from '../../ui/ProblemAlert';
import { Reference } from '../../ui/Reference';
import { ResourceDrawer } from '../../ui/ResourceDrawer';
import { RowsEditor } from '../../ui/RowsEditor';
import { Section } from '../../ui/Section';
import { StateTag } from '../../ui/StateTag';
import { TimeText } from '../../ui/TimeText';
import { useChange } from '../shared/useChange';
import { useDetails } from '../shared/useDetails';
import { nameIn } from '../shared/useLists';

function Routes({ table }: { table: RouteTable }) {
  const { t } = useTranslation();
  const { data: gateways } = useListInternetGatewaysQuery();
  const { data: interfaces } = useListNetworkInterfacesQuery();
  const [add] = useAddRouteMutation();
  const [remove] = useRemoveRouteMutation();
  const { change, state } = useChange();
  const { id, vpc_id } = table;
  const targets = [
    ...(gateways ?? [])
      .filter((gateway) => gateway.vpc_id === vpc_id)
      .map((gateway) => ({ id: gateway.id, note: gateway.name })),
    ...(interfaces ?? [])
      .filter((item) => item.vpc_id === vpc_id)
      .map((item) => ({ id: item.id, note: item.private_ip })),
  ];
  return (
    <RowsEditor<Route, CreateRoute>
      label={t('routeTables.routesOf', { name: table.name })}
      rows={table.routes}
      rowKey={(route) => route.destination_cidr}
      columns={[
        {
          key: 'destination',
          title: t('routeTables.destination'),
          render: (_, route) => <span className="mono">{route.destination_cidr}</span>,
        },
        {
          key: 'target',
          title: t('routeTables.target'),
          render: (_, route) =>
            route.target_type === 'local' ? (
              t('routeTables.local')
            ) : route.target_id.startsWith('eni-') ? (
              <Link className="mono" to={paths.networkInterface(route.target_id)}>
                {route.target_id}
              </Link>
            ) : (
              <CopyText value={route.target_id} what={t('routeTables.target')} />
            ),
        },
        {
          key: 'state',
          title: t('common.state'),
          render: (_, route) => <StateTag state={route.state} />,
        },
      ]}
      nameOf={(route) => route.destination_cidr}
      isFixed={(route) => route.target_type === 'local'}
      onRemove={({ destination_cidr }) => change(() => remove({ id, destination_cidr }).unwrap())}
      add={{
        label: t('routeTables.addRoute'),
        fields: (
          <>
            <Form.Item
              name="destination_cidr"
              label={t('routeTables.destination')}
              rules={[{ required: true, whitespace: true, message: t('routeTables.destinationRequired') }]}
            >
              <Input className="mono" autoComplete="off" placeholder="0.0.0.0/0" />
            </Form.Item>
            <Form.Item
              name="target_id"
              className="row-wide"
              label={t('routeTables.target')}
              rules={[{ required: true, message: t('routeTables.targetRequired') }]}
            >
              <Select
                showSearch={{ optionFilterProp: 'text' }}
                options={targets.map((target) => ({
                  value: target.id,
                  text: `${target.id} ${target.note}`,
                  label: <Option name={target.id} note={target.note} />,
                }))}
              />
            </Form.Item>
          </>
        ),
        send: ({ destination_cidr, target_id }) =>
          change(() => add({ id, body: { destination_cidr: destination_cidr.trim(), target_id } }).unwrap()),
      }}
      state={state}
    />
  );
}

function Associations({ table }: { table: RouteTable }) {
  const { t } = useTranslation();
  const { data: subnets } = useListSubnetsQuery();
  const { data: tables } = useListRouteTablesQuery();
  const [associate] = useAssociateRouteTableMutation();
  const [disassociate] = useDisassociateRouteTableMutation();
  const { change, state } = useChange();
  const { id, vpc_id } = table;
  const taken = new Set(
    [table, ...(tables ?? [])].flatMap(({ associations }) => associations.map((a) => a.subnet_id)),
  );
  const free = (subnets ?? []).filter((subnet) => subnet.vpc_id === vpc_id && !taken.has(subnet.id));
  return (
    <RowsEditor<RouteTable['associations'][number], { subnet_id: string }>
      label={t('routeTables.associationsOf', { name: table.name })}
      rows={table.associations}
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
      empty={t('routeTables.noAssociations')}
      nameOf={({ subnet_id }) => nameIn(subnets, subnet_id) ?? subnet_id}
      onRemove={(row) => change(() => disassociate({ id, association: row.id }).unwrap())}
      add={{
        label: t('routeTables.associate'),
        fields: (
          <Form.Item
            name="subnet_id"
            className="row-wide"
            label={t('common.subnet')}
            rules={[{ required: true, message: t('launch.subnetRequired') }]}
          >
            <Select
              showSearch={{ optionFilterProp: 'text' }}
              options={free.map((subnet) => ({
                value: subnet.id,
                text: `${subnet.name} ${subnet.id} ${subnet.cidr_block}`,
                label: <Option name={subnet.name} note={subnet.cidr_block} />,
              }))}
            />
          </Form.Item>
        ),
        send: ({ subnet_id }) => change(() => associate({ id, subnet_id }).unwrap()),
      }}
      state={state}
    />
  );
}

/** Whether it is the main table of its VPC; if not, a way to make it that. */
function Main({ table }: { table: RouteTable }) {
  const { t } = useTranslation();
  const { modal } = App.useApp();
  const { data: tables } = useListRouteTablesQuery();
  const [move] = useMoveRouteTableAssociationMutation();
  const { change, state } = useChange();
  if (table.is_main) {
    return <p className="hint">{t('routeTables.mainHint')}</p>;
  }
  const main = tables?.find(({ vpc_id, is_main }) => vpc_id === table.vpc_id && is_main);
  const makeMain = ({ id, main_association_id }: RouteTable) =>
    change(() => move({ id, association: main_association_id ?? '', route_table_id: table.id }).unwrap());
  return (
    <>
      <div className="section-actions">
        <Button
          disabled={!main?.main_association_id}
          loading={state.busy}
          onClick={() =>
            main !== undefined &&
            void modal.confirm({
              title: t('routeTables.makeMainTitle', { name: table.name }),
              content: t('routeTables.makeMainBody'),
              okText: t('routeTables.makeMain'),
              cancelText: t('common.cancel'),
              focusable: { autoFocusButton: 'cancel' },
              onOk: () => makeMain(main),
            })
          }
        >
          {t('routeTables.makeMain')}
        </Button>
      </div>
      {state.refusal !== null && <ProblemAlert problem={state.refusal} />}
    </>
  );
}

/** Everything about one route table, beside the list. */
export function DetailDrawer() {
  const { t } = useTranslation();
  const { id = '' } = useParams();
  const { data: vpcs } = useListVpcsQuery();
  const { options, read } = useDetails();
  const { item, problem, refetch } = read(useGetRouteTableQuery(id, options));
  return (
    <ResourceDrawer
      title={(known) => known?.name ?? id}
      calls={[
        { method: 'GET', path: `/route-tables/${id}?wait=applied` },
        {
          method: 'POST',
          path: `/route-tables/${id}/routes`,
          body: { destination_cidr: '0.0.0.0/0', target_id: 'igw-…' },
        },
        { method: 'POST', path: `/route-tables/${id}/associations`, body: { subnet_id: 'subnet-…' } },
      ]}
      list={paths.routeTables()}
      item={item}
      problem={problem}
      onRetry={refetch}
      missing={{ title: t('routeTables.missing'), back: t('routeTables.showAll') }}
    >
      {(table) => (
        <>
          <Section title={t('routeTables.routes')}>
            <Routes table={table} />
          </Section>
          <Section title={t('routeTables.explicit')}>
            <Associations table={table} />
          </Section>
          <Section title={t('detail.summary')}>
            <Facts
              items={[
                [t('applied.label'), <AppliedText key="applied" applied={table.applied} />],
                [t('detail.generation'), table.generation ?? '–'],
                [t('common.id'), <CopyText key="id" value={table.id} what={t('common.id')} />],
                [t('common.uuid'), <CopyText key="uuid" value={table.uuid} what={t('common.uuid')} />],
                [
                  t('common.vpc'),
                  <Reference
                    key="vpc"
                    id={table.vpc_id}
                    name={nameIn(vpcs, table.vpc_id)}
                    what={t('common.vpc')}
                    to={paths.vpc(table.vpc_id)}
                  />,
                ],
                [t('routeTables.main'), table.is_main ? t('common.yes') : t('common.no')],
                [t('common.created'), <TimeText key="created" at={table.created_at} />],
              ]}
            />
            <Main table={table} />
          </Section>
        </>
      )}
    </ResourceDrawer>
  );
}
