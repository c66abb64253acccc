import { App, Button, Form, Select } from 'antd';
import { useTranslation } from 'react-i18next';
import { Link, useParams } from 'react-router';
import {
  useAddRouteMutation,
  useAssociateRouteTableMutation,
  useDeleteRouteTableMutation,
  useDisassociateRouteTableMutation,
  useGetRouteTableQuery,
  useListInternetGatewaysQuery,
  useListNetworkInterfacesQuery,
  useListPrefixListsQuery,
  useListRouteTablesQuery,
  useListSubnetsQuery,
  useListVpcsQuery,
  useMoveRouteTableAssociationMutation,
  useRemoveRouteMutation,
  useReplaceRouteMutation,
  useUpdateRouteTableMutation,
} from '../../api';
import type { PrefixList, Route, RouteTable } from '../../api/types';
import { paths } from '../../paths';
import { AppliedText } from '../../ui/AppliedText';
import { CopyText } from '../../ui/CopyText';
import { Facts } from '../../ui/Facts';
import { Option } from '../../ui/Option';
import { PeerInput } from '../../ui/PeerInput';
import { ProblemAlert } from '../../ui/ProblemAlert';
import { Reference } from '../../ui/Reference';
import { ResourceDrawer } from '../../ui/ResourceDrawer';
import { RowsEditor } from '../../ui/RowsEditor';
import { Section } from '../../ui/Section';
import { StateTag } from '../../ui/StateTag';
import { TimeText } from '../../ui/TimeText';
import { NameForm } from '../shared/NameForm';
import { destinationOf, toDestination } from '../shared/routes';
import { useChange } from '../shared/useChange';
import { useDetails } from '../shared/useDetails';
import { nameIn } from '../shared/useLists';

interface RouteForm {
  /** A block or a prefix list. */
  destination: string;
  target_id: string;
}

/** What the form's field for it is called. */
function fieldOf(field: string): string {
  return field.startsWith('destination_') ? 'destination' : field;
}

/** Where packets go: a block, or a prefix list with a way to it. */
function Destination({ route, lists }: { route: Route; lists: PrefixList[] | undefined }) {
  const { t } = useTranslation();
  const word = destinationOf(route);
  if (!word.startsWith('pl-')) {
    return <span className="mono">{word}</span>;
  }
  const ignored = route.ignored_cidrs ?? [];
  return (
    <>
      {nameIn(lists, word)}{' '}
      <Link className="mono" to={paths.prefixList(word)}>
        {word}
      </Link>
      {ignored.length > 0 && (
        <span className="cell-text muted">{t('routeTables.ignored', { blocks: ignored.join(', ') })}</span>
      )}
    </>
  );
}

function Target({ route: { target_type, target_id } }: { route: Route }) {
  const { t } = useTranslation();
  if (target_type === 'local') {
    return t('routeTables.local');
  }
  return target_id.startsWith('eni-') ? (
    <Link className="mono" to={paths.networkInterface(target_id)}>
      {target_id}
    </Link>
  ) : (
    <CopyText value={target_id} what={t('routeTables.target')} />
  );
}

function Routes({ table }: { table: RouteTable }) {
  const { t } = useTranslation();
  const { data: gateways } = useListInternetGatewaysQuery();
  const { data: interfaces } = useListNetworkInterfacesQuery();
  const { data: lists } = useListPrefixListsQuery();
  const [add] = useAddRouteMutation();
  const [replace] = useReplaceRouteMutation();
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
  const destinations = [
    { value: '0.0.0.0/0', name: '0.0.0.0/0', note: t('rules.anywhere') },
    ...(lists ?? []).map((list) => ({ value: list.id, name: list.name, note: list.id })),
  ];
  const bodyOf = ({ destination, target_id }: RouteForm) => ({ ...toDestination(destination), target_id });
  return (
    <RowsEditor<Route, RouteForm>
      label={t('routeTables.routesOf', { name: table.name })}
      rows={table.routes}
      rowKey={destinationOf}
      columns={[
        {
          key: 'destination',
          title: t('routeTables.destination'),
          render: (_, route) => <Destination route={route} lists={lists} />,
        },
        {
          key: 'target',
          title: t('routeTables.target'),
          render: (_, route) => <Target route={route} />,
        },
        {
          key: 'state',
          title: t('common.state'),
          render: (_, route) => <StateTag state={route.state} />,
        },
      ]}
      nameOf={(route) => nameIn(lists, destinationOf(route)) ?? destinationOf(route)}
      isFixed={(route) => route.target_type === 'local'}
      onRemove={(route) =>
        change(() => remove({ id, destination: toDestination(destinationOf(route)) }).unwrap())
      }
      edit={{
        values: (route) => ({ destination: destinationOf(route), target_id: route.target_id }),
        first: 'target_id',
        send: (values) => change(() => replace({ id, body: bodyOf(values) }).unwrap()),
      }}
      add={{
        label: t('routeTables.addRoute'),
        fieldOf,
        fields: (changing) => (
          <>
            <Form.Item
              name="destination"
              className="row-wide"
              label={t('routeTables.destination')}
              rules={[{ required: true, whitespace: true, message: t('routeTables.destinationRequired') }]}
            >
              <PeerInput hint="0.0.0.0/0, pl-…" peers={destinations} disabled={changing} />
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
        send: (values) => change(() => add({ id, body: bodyOf(values) }).unwrap()),
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
  const [move] = useMoveRouteTableAssociationMutation();
  const [disassociate] = useDisassociateRouteTableMutation();
  const { change, state } = useChange();
  const { id, vpc_id } = table;
  const own = new Set(table.associations.map(({ subnet_id }) => subnet_id));
  const others = (subnets ?? []).filter((subnet) => subnet.vpc_id === vpc_id && !own.has(subnet.id));
  /** The table that a subnet has as its own, with the association that says so. */
  const holderOf = (subnet: string) => {
    const holder = tables?.find(({ associations }) => associations.some((a) => a.subnet_id === subnet));
    const association = holder?.associations.find((a) => a.subnet_id === subnet);
    return holder && association && { holder, association: association.id };
  };
  /** A subnet without a table of its own gets this one; one with another gives that up in the same step. */
  const follow = (subnet_id: string) => {
    const held = holderOf(subnet_id);
    return held === undefined
      ? associate({ id, subnet_id }).unwrap()
      : move({ id: held.holder.id, association: held.association, route_table_id: id }).unwrap();
  };
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
        fields: () => (
          <Form.Item
            name="subnet_id"
            className="row-wide"
            label={t('common.subnet')}
            rules={[{ required: true, message: t('launch.subnetRequired') }]}
          >
            <Select
              showSearch={{ optionFilterProp: 'text' }}
              options={others.map((subnet) => {
                const held = holderOf(subnet.id);
                const now = held && t('routeTables.heldBy', { name: held.holder.name });
                return {
                  value: subnet.id,
                  text: `${subnet.name} ${subnet.id} ${subnet.cidr_block}`,
                  label: <Option name={subnet.name} note={now ?? subnet.cidr_block} />,
                };
              })}
            />
          </Form.Item>
        ),
        send: ({ subnet_id }) => change(() => follow(subnet_id)),
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
  const { options, read, remove } = useDetails();
  const { item, problem, refetch } = read(useGetRouteTableQuery(id, options));
  const [update] = useUpdateRouteTableMutation();
  const [drop] = useDeleteRouteTableMutation();
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
        {
          method: 'PUT',
          path: `/route-tables/${id}/routes`,
          body: { destination_cidr: '0.0.0.0/0', target_id: 'eni-…' },
        },
        { method: 'DELETE', path: `/route-tables/${id}/routes?destination_cidr=0.0.0.0/0` },
        { method: 'POST', path: `/route-tables/${id}/associations`, body: { subnet_id: 'subnet-…' } },
        { method: 'DELETE', path: `/route-tables/${id}` },
      ]}
      list={paths.routeTables()}
      item={item}
      problem={problem}
      onRetry={refetch}
      missing={{ title: t('routeTables.missing'), back: t('routeTables.showAll') }}
      removal={({ name, is_main, associations }) => ({
        id,
        name,
        body: t('routeTables.deleteBody'),
        hindrance: is_main
          ? t('routeTables.mainStays')
          : associations.length > 0
            ? t('routeTables.followedStays')
            : undefined,
        run: () => remove(() => drop(id).unwrap()),
      })}
    >
      {(table) => (
        <>
          <Section title={t('routeTables.routes')}>
            <Routes table={table} />
          </Section>
          <Section title={t('routeTables.explicit')}>
            <Associations table={table} />
          </Section>
          <Section title={t('forms.words')}>
            <NameForm
              words={{ name: table.name }}
              save={({ name = '' }) => update({ id, body: { name } }).unwrap()}
            />
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
