import { Button, Form, Input, Select, Switch } from 'antd';
import { useTranslation } from 'react-i18next';
import { useParams } from 'react-router';
import {
  useAssignPrivateIpsMutation,
  useDeleteNetworkInterfaceMutation,
  useGetNetworkInterfaceQuery,
  useListSecurityGroupsQuery,
  useListSubnetsQuery,
  useListVpcsQuery,
  useUnassignPrivateIpMutation,
  useUpdateNetworkInterfaceMutation,
} from '../../api';
import type { NetworkInterface } from '../../api/types';
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
import { NameForm } from '../shared/NameForm';
import { useChange } from '../shared/useChange';
import { useDetails } from '../shared/useDetails';
import { nameIn } from '../shared/useLists';
import { Attachment } from './Attachment';

function Summary({ item }: { item: NetworkInterface }) {
  const { t } = useTranslation();
  const { data: vpcs } = useListVpcsQuery();
  const { data: subnets } = useListSubnetsQuery();
  const [update] = useUpdateNetworkInterfaceMutation();
  const { change, state } = useChange();
  return (
    <>
      <Facts
        items={[
          [t('common.state'), <StateTag key="state" state={item.status} />],
          [t('applied.label'), <AppliedText key="applied" applied={item.applied} />],
          [t('detail.generation'), item.generation ?? '–'],
          [t('common.id'), <CopyText key="id" value={item.id} what={t('common.id')} />],
          [t('common.uuid'), <CopyText key="uuid" value={item.uuid} what={t('common.uuid')} />],
          [t('common.description'), item.description || '–'],
          [t('detail.mac'), <CopyText key="mac" value={item.mac_address} what={t('detail.mac')} />],
          [
            t('common.vpc'),
            <Reference
              key="vpc"
              id={item.vpc_id}
              name={nameIn(vpcs, item.vpc_id)}
              what={t('common.vpc')}
              to={paths.vpc(item.vpc_id)}
            />,
          ],
          [
            t('common.subnet'),
            <Reference
              key="subnet"
              id={item.subnet_id}
              name={nameIn(subnets, item.subnet_id)}
              what={t('common.subnet')}
            />,
          ],
          [t('common.zone'), item.availability_zone],
          [
            t('networkInterfaces.sourceDestCheck'),
            <Switch
              key="check"
              size="small"
              aria-label={t('networkInterfaces.sourceDestCheck')}
              checked={item.source_dest_check}
              loading={state.busy}
              onChange={(source_dest_check) =>
                void change(() => update({ id: item.id, body: { source_dest_check } }).unwrap())
              }
            />,
          ],
          [t('common.created'), <TimeText key="created" at={item.created_at} />],
          [t('detail.updated'), <TimeText key="updated" at={item.updated_at} />],
        ]}
      />
      {state.refusal !== null && <ProblemAlert problem={state.refusal} />}
    </>
  );
}

interface Address {
  address: string;
  kind: 'primary' | 'secondary';
}

function Addresses({ item }: { item: NetworkInterface }) {
  const { t } = useTranslation();
  const [assign] = useAssignPrivateIpsMutation();
  const [unassign] = useUnassignPrivateIpMutation();
  const { change, state } = useChange();
  const { id } = item;
  return (
    <>
      <RowsEditor<Address, { address?: string }>
        label={t('networkInterfaces.addresses')}
        rows={[
          { address: item.private_ip, kind: 'primary' },
          ...item.secondary_private_ips.map((address) => ({ address, kind: 'secondary' }) as const),
        ]}
        rowKey={(row) => row.address}
        columns={[
          {
            key: 'address',
            title: t('networkInterfaces.address'),
            render: (_, row) => <CopyText value={row.address} what={t('networkInterfaces.address')} />,
          },
          {
            key: 'kind',
            title: t('networkInterfaces.kind'),
            render: (_, row) => t(`networkInterfaces.${row.kind}`),
          },
        ]}
        nameOf={(row) => row.address}
        isFixed={(row) => row.kind === 'primary'}
        onRemove={({ address }) => change(() => unassign({ id, address }).unwrap())}
        add={{
          label: t('networkInterfaces.addAddress'),
          fieldOf: (field) => (field === 'private_ips' ? 'address' : field),
          fields: () => (
            <Form.Item name="address" className="row-wide" label={t('networkInterfaces.address')}>
              <Input className="mono" autoComplete="off" placeholder={t('networkInterfaces.addressHint')} />
            </Form.Item>
          ),
          send: ({ address }) => {
            const wanted = address?.trim() ?? '';
            const body = wanted === '' ? { count: 1 } : { private_ips: [wanted] };
            return change(() => assign({ id, body }).unwrap());
          },
        }}
        state={state}
      />
      {item.public_ip && (
        <Facts
          items={[
            [
              t('instances.publicIp'),
              <CopyText key="public" value={item.public_ip} what={t('instances.publicIp')} />,
            ],
          ]}
        />
      )}
    </>
  );
}

function Groups({ item }: { item: NetworkInterface }) {
  const { t } = useTranslation();
  const { data: groups } = useListSecurityGroupsQuery({ vpc_id: item.vpc_id });
  const [update] = useUpdateNetworkInterfaceMutation();
  const { change, state } = useChange();
  return (
    <>
      <ul className="plain-list">
        {item.security_group_ids.map((id) => (
          <li key={id}>
            <Reference
              id={id}
              name={nameIn(groups, id)}
              what={t('detail.securityGroups')}
              to={paths.securityGroup(id)}
            />
          </li>
        ))}
      </ul>
      <Form<{ security_group_ids: string[] }>
        // Somebody else may change them too: what is chosen here begins anew then.
        key={item.security_group_ids.join()}
        name="groups"
        layout="vertical"
        className="row-form"
        aria-label={t('networkInterfaces.changeGroups')}
        initialValues={{ security_group_ids: item.security_group_ids }}
        onFinish={(body) => change(() => update({ id: item.id, body }).unwrap())}
      >
        <Form.Item
          name="security_group_ids"
          className="row-wide"
          label={t('networkInterfaces.changeGroups')}
          rules={[{ type: 'array', min: 1, max: 5, message: t('networkInterfaces.groupsRequired') }]}
        >
          <Select
            mode="multiple"
            showSearch={{ optionFilterProp: 'text' }}
            options={groups?.map(({ id, name, description }) => ({
              value: id,
              text: `${name} ${id}`,
              label: <Option name={name} note={description} />,
            }))}
            labelRender={({ value }) => nameIn(groups, String(value)) ?? value}
          />
        </Form.Item>
        <Button htmlType="submit" className="row-add" loading={state.busy}>
          {t('networkInterfaces.saveGroups')}
        </Button>
      </Form>
      {state.refusal !== null && <ProblemAlert problem={state.refusal} />}
    </>
  );
}

/** Everything about one network interface, beside the list. */
export function DetailDrawer() {
  const { t } = useTranslation();
  const { id = '' } = useParams();
  const { options, read, remove } = useDetails();
  const { item, problem, refetch } = read(useGetNetworkInterfaceQuery(id, options));
  const [update] = useUpdateNetworkInterfaceMutation();
  const [drop] = useDeleteNetworkInterfaceMutation();
  return (
    <ResourceDrawer
      title={(known) => (
        <div className="drawer-title">
          <span>{id}</span>
          {known !== undefined && <StateTag state={known.status} />}
        </div>
      )}
      calls={[
        { method: 'GET', path: `/network-interfaces/${id}?wait=applied` },
        {
          method: 'POST',
          path: `/network-interfaces/${id}/attach`,
          body: { instance_id: 'i-…', device_index: 1 },
        },
        { method: 'POST', path: `/network-interfaces/${id}/detach` },
        { method: 'POST', path: `/network-interfaces/${id}/private-ips`, body: { count: 1 } },
        { method: 'PUT', path: `/network-interfaces/${id}`, body: { source_dest_check: false } },
        { method: 'DELETE', path: `/network-interfaces/${id}` },
      ]}
      list={paths.networkInterfaces()}
      item={item}
      problem={problem}
      onRetry={refetch}
      missing={{ title: t('networkInterfaces.missing'), back: t('networkInterfaces.showAll') }}
      removal={({ description, instance_id }) => ({
        id,
        name: description || id,
        body: t('networkInterfaces.deleteBody'),
        hindrance: instance_id ? t('networkInterfaces.attachedStays') : undefined,
        run: () => remove(() => drop(id).unwrap()),
      })}
    >
      {(known) => (
        <>
          <Section title={t('networkInterfaces.attachment')}>
            <Attachment item={known} />
          </Section>
          <Section title={t('networkInterfaces.addresses')}>
            <Addresses item={known} />
          </Section>
          <Section title={t('detail.securityGroups')}>
            <Groups item={known} />
          </Section>
          <Section title={t('forms.words')}>
            <NameForm
              words={{ description: known.description }}
              save={({ description }) => update({ id, body: { description } }).unwrap()}
            />
          </Section>
          <Section title={t('detail.summary')}>
            <Summary item={known} />
          </Section>
        </>
      )}
    </ResourceDrawer>
  );
}
