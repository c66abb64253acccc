import { App, Button, Form, Input } from 'antd';
import { useTranslation } from 'react-i18next';
import {
  useAttachInternetGatewayMutation,
  useCreateInternetGatewayMutation,
  useDeleteInternetGatewayMutation,
  useDetachInternetGatewayMutation,
  useListInternetGatewaysQuery,
} from '../../api';
import type { InternetGateway, Vpc } from '../../api/types';
import { CopyText } from '../../ui/CopyText';
import { RowsEditor } from '../../ui/RowsEditor';
import { StateTag } from '../../ui/StateTag';
import { trimmed } from '../shared/fields';
import { useChange } from '../shared/useChange';
import { usePolling } from '../shared/useLists';

/** The internet gateway of a VPC, and those of none, which it could have. */
export function Gateways({ vpc }: { vpc: Vpc }) {
  const { t } = useTranslation();
  const { modal } = App.useApp();
  const { data } = useListInternetGatewaysQuery(undefined, usePolling());
  const [create] = useCreateInternetGatewayMutation();
  const [attach] = useAttachInternetGatewayMutation();
  const [detach] = useDetachInternetGatewayMutation();
  const [drop] = useDeleteInternetGatewayMutation();
  const { change, state } = useChange();
  const isOwn = ({ vpc_id }: InternetGateway) => vpc_id === vpc.id;
  const rows = (data ?? [])
    .filter((row) => isOwn(row) || !row.vpc_id)
    .sort((a, b) => Number(isOwn(b)) - Number(isOwn(a)) || a.name.localeCompare(b.name));
  const hasOne = rows.some(isOwn);

  const askToDetach = ({ id, name }: InternetGateway) =>
    void modal.confirm({
      title: t('networkInterfaces.detachTitle', { name }),
      content: t('vpcs.detachBody', { name: vpc.name }),
      okText: t('networkInterfaces.detach'),
      okButtonProps: { danger: true },
      cancelText: t('common.cancel'),
      focusable: { autoFocusButton: 'cancel' },
      onOk: () => change(() => detach({ id, vpc_id: vpc.id }).unwrap()),
    });

  return (
    <RowsEditor<InternetGateway, { name?: string }>
      label={t('vpcs.gateways')}
      rows={rows}
      rowKey={(row) => row.id}
      empty={t('vpcs.noGateway')}
      columns={[
        { key: 'name', title: t('common.name'), dataIndex: 'name' },
        { key: 'state', title: t('common.state'), render: (_, row) => <StateTag state={row.state} /> },
        {
          key: 'id',
          title: t('common.id'),
          render: (_, row) => <CopyText value={row.id} what={t('common.id')} />,
        },
      ]}
      nameOf={(row) => row.name}
      isFixed={isOwn}
      actions={(row) =>
        isOwn(row) ? (
          <Button size="small" disabled={state.busy} onClick={() => askToDetach(row)}>
            {t('networkInterfaces.detach')}
          </Button>
        ) : (
          !hasOne && (
            <Button
              size="small"
              aria-label={t('vpcs.attachNamed', { name: row.name })}
              disabled={state.busy}
              onClick={() => void change(() => attach({ id: row.id, vpc_id: vpc.id }).unwrap())}
            >
              {t('networkInterfaces.attach')}
            </Button>
          )
        )
      }
      onRemove={({ id }) => change(() => drop(id).unwrap())}
      question={({ name }) => ({
        title: t('common.deleteTitle', { name }),
        body: t('vpcs.gatewayBody'),
        ok: t('common.delete'),
      })}
      add={{
        label: t('vpcs.addGateway'),
        // The first one is for this VPC; a further one waits.
        send: ({ name }) =>
          change(async () => {
            const wanted = trimmed(name);
            const { id } = await create(wanted === undefined ? {} : { name: wanted }).unwrap();
            if (!hasOne) {
              await attach({ id, vpc_id: vpc.id }).unwrap();
            }
          }),
        fields: () => (
          <Form.Item name="name" className="row-wide" label={t('vpcs.gatewayName')}>
            <Input autoComplete="off" maxLength={100} />
          </Form.Item>
        ),
      }}
      state={state}
    />
  );
}
