import { AutoComplete, Form, Input, Switch } from 'antd';
import { useTranslation } from 'react-i18next';
import {
  useCreateSubnetMutation,
  useDeleteSubnetMutation,
  useListSubnetsQuery,
  useUpdateSubnetMutation,
} from '../../api';
import type { Subnet, Vpc } from '../../api/types';
import { CopyText } from '../../ui/CopyText';
import { RowsEditor } from '../../ui/RowsEditor';
import { useChange } from '../shared/useChange';
import { usePolling } from '../shared/useLists';

interface SubnetForm {
  name: string;
  cidr_block: string;
  availability_zone?: string;
}

/** The subnets of a VPC: made, deleted, and whether launches into them get a public address. */
export function Subnets({ vpc }: { vpc: Vpc }) {
  const { t } = useTranslation();
  const { data } = useListSubnetsQuery(undefined, usePolling());
  const [create] = useCreateSubnetMutation();
  const [update] = useUpdateSubnetMutation();
  const [drop] = useDeleteSubnetMutation();
  const { change, state } = useChange();
  const zones = [...new Set(data?.map(({ availability_zone }) => availability_zone))].sort();
  return (
    <RowsEditor<Subnet, SubnetForm>
      label={t('vpcs.subnetsOf', { name: vpc.name })}
      rows={(data ?? []).filter(({ vpc_id }) => vpc_id === vpc.id)}
      rowKey={(row) => row.id}
      empty={t('vpcs.noSubnets')}
      columns={[
        { key: 'name', title: t('common.name'), dataIndex: 'name' },
        {
          key: 'cidr',
          title: t('common.cidr'),
          render: (_, row) => <span className="mono">{row.cidr_block}</span>,
        },
        { key: 'zone', title: t('common.zone'), dataIndex: 'availability_zone' },
        { key: 'kind', title: t('vpcs.kind'), render: (_, row) => t(`vpcs.${row.subnet_type}`) },
        {
          key: 'public',
          title: t('vpcs.mapPublic'),
          render: (_, row) => (
            <Switch
              size="small"
              aria-label={t('vpcs.mapPublicOf', { name: row.name })}
              checked={row.map_public_ip_on_launch}
              disabled={state.busy}
              onChange={(map_public_ip_on_launch) =>
                void change(() => update({ id: row.id, body: { map_public_ip_on_launch } }).unwrap())
              }
            />
          ),
        },
        { key: 'free', title: t('vpcs.freeAddresses'), dataIndex: 'available_ip_address_count' },
        {
          key: 'id',
          title: t('common.id'),
          render: (_, row) => <CopyText value={row.id} what={t('common.id')} />,
        },
      ]}
      nameOf={(row) => row.name}
      onRemove={(row) => change(() => drop(row.id).unwrap())}
      question={({ name }) => ({
        title: t('common.deleteTitle', { name }),
        body: t('vpcs.subnetBody'),
        ok: t('common.delete'),
      })}
      add={{
        label: t('vpcs.addSubnet'),
        send: ({ name, cidr_block, availability_zone }) => {
          const zone = availability_zone?.trim();
          const body = {
            name: name.trim(),
            cidr_block: cidr_block.trim(),
            ...(zone ? { availability_zone: zone } : {}),
          };
          return change(() => create({ id: vpc.id, body }).unwrap());
        },
        fields: () => (
          <>
            <Form.Item
              name="name"
              label={t('common.name')}
              rules={[{ required: true, whitespace: true, message: t('forms.nameRequired') }]}
            >
              <Input autoComplete="off" maxLength={100} />
            </Form.Item>
            <Form.Item
              name="cidr_block"
              label={t('common.cidr')}
              rules={[{ required: true, whitespace: true, message: t('vpcs.blockRequired') }]}
            >
              <Input
                className="mono"
                autoComplete="off"
                placeholder={vpc.cidr_block.replace(/\/\d+$/, '/24')}
              />
            </Form.Item>
            <Form.Item name="availability_zone" label={t('common.zone')}>
              <AutoComplete
                options={zones.map((zone) => ({ value: zone }))}
                placeholder={t('vpcs.firstZone')}
              />
            </Form.Item>
          </>
        ),
      }}
      state={state}
    />
  );
}
