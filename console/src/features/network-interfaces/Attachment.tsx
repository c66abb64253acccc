import { App, Button, Form, Select, Switch } from 'antd';
import { useTranslation } from 'react-i18next';
import { Link } from 'react-router';
import {
  useAttachNetworkInterfaceMutation,
  useDetachNetworkInterfaceMutation,
  useListNetworkInterfacesQuery,
  useUpdateNetworkInterfaceMutation,
} from '../../api';
import type { AttachNetworkInterface, Instance, NetworkInterface } from '../../api/types';
import { paths } from '../../paths';
import { Facts } from '../../ui/Facts';
import { Option } from '../../ui/Option';
import { ProblemAlert } from '../../ui/ProblemAlert';
import { requiredMark } from '../../ui/requiredMark';
import { useInstances } from '../instances/useInstances';
import { useChange } from '../shared/useChange';

/** The slots beside that of the primary interface. */
const SLOTS = [1, 2, 3, 4, 5, 6, 7];

function AttachForm({ item, instances }: { item: NetworkInterface; instances: Instance[] | null }) {
  const { t } = useTranslation();
  const [form] = Form.useForm<AttachNetworkInterface>();
  const chosen = Form.useWatch('instance_id', form);
  const { data: interfaces } = useListNetworkInterfacesQuery();
  const [attach] = useAttachNetworkInterfaceMutation();
  const { change, state } = useChange();
  const isTaken = (instance: string | undefined, slot: number) =>
    interfaces?.some((other) => other.instance_id === instance && other.device_index === slot) ?? false;
  return (
    <>
      <Form<AttachNetworkInterface>
        form={form}
        name="attach"
        aria-label={t('networkInterfaces.attachTo')}
        layout="vertical"
        className="row-form"
        requiredMark={requiredMark}
        initialValues={{ device_index: SLOTS[0] }}
        onValuesChange={({ instance_id }: Partial<AttachNetworkInterface>) => {
          if (instance_id !== undefined) {
            form.setFieldValue(
              'device_index',
              SLOTS.find((slot) => !isTaken(instance_id, slot)),
            );
          }
        }}
        onFinish={(body) => change(() => attach({ id: item.id, body }).unwrap())}
      >
        <Form.Item
          name="instance_id"
          className="row-wide"
          label={t('networkInterfaces.instance')}
          rules={[{ required: true, message: t('networkInterfaces.instanceRequired') }]}
        >
          <Select
            showSearch={{ optionFilterProp: 'text' }}
            loading={instances === null}
            options={instances?.map(({ id, name }) => ({
              value: id,
              text: `${name} ${id}`,
              label: <Option name={name} note={id} />,
            }))}
          />
        </Form.Item>
        <Form.Item
          name="device_index"
          label={t('networkInterfaces.slot')}
          rules={[{ required: true, message: t('networkInterfaces.slotRequired') }]}
        >
          <Select
            options={SLOTS.map((slot) => ({
              value: slot,
              label: `${slot}`,
              disabled: isTaken(chosen, slot),
            }))}
          />
        </Form.Item>
        <Button htmlType="submit" className="row-add" loading={state.busy}>
          {t('networkInterfaces.attach')}
        </Button>
      </Form>
      {state.refusal !== null && <ProblemAlert problem={state.refusal} />}
    </>
  );
}

function Loose({ item }: { item: NetworkInterface }) {
  const { t } = useTranslation();
  const { rows } = useInstances();
  const instances =
    rows?.filter(
      (row) =>
        row.state === 'stopped' &&
        row.vpc_id === item.vpc_id &&
        row.availability_zone === item.availability_zone,
    ) ?? null;
  return (
    <>
      <p className="hint">{t('networkInterfaces.attachHint')}</p>
      {instances?.length === 0 ? (
        <p className="hint">{t('networkInterfaces.noInstance')}</p>
      ) : (
        <AttachForm item={item} instances={instances} />
      )}
    </>
  );
}

function Attached({ item, instance }: { item: NetworkInterface; instance: string }) {
  const { t } = useTranslation();
  const { modal } = App.useApp();
  const [detach] = useDetachNetworkInterfaceMutation();
  const [update] = useUpdateNetworkInterfaceMutation();
  const { change, state } = useChange();
  return (
    <>
      <Facts
        items={[
          [
            t('networkInterfaces.instance'),
            <Link key="instance" className="mono" to={paths.instance(instance)}>
              {instance}
            </Link>,
          ],
          [
            t('networkInterfaces.slot'),
            item.is_primary
              ? `${item.device_index} (${t('networkInterfaces.primary')})`
              : `${item.device_index}`,
          ],
          [
            t('networkInterfaces.endsWithInstance'),
            <Switch
              key="ends"
              size="small"
              aria-label={t('networkInterfaces.endsWithInstance')}
              checked={item.delete_on_termination}
              loading={state.busy}
              onChange={(delete_on_termination) =>
                void change(() => update({ id: item.id, body: { delete_on_termination } }).unwrap())
              }
            />,
          ],
        ]}
      />
      {item.is_primary ? (
        <p className="hint">{t('networkInterfaces.primaryHint')}</p>
      ) : (
        <div className="section-actions">
          <Button
            loading={state.busy}
            onClick={() =>
              void modal.confirm({
                title: t('networkInterfaces.detachTitle', { name: item.id }),
                content: t('networkInterfaces.detachBody'),
                okText: t('networkInterfaces.detach'),
                cancelText: t('common.cancel'),
                focusable: { autoFocusButton: 'cancel' },
                onOk: () => change(() => detach(item.id).unwrap()),
              })
            }
          >
            {t('networkInterfaces.detach')}
          </Button>
        </div>
      )}
      {state.refusal !== null && <ProblemAlert problem={state.refusal} />}
    </>
  );
}

/** What an interface is attached to; or, while it is to nothing, what it can be. */
export function Attachment({ item }: { item: NetworkInterface }) {
  return item.instance_id ? <Attached item={item} instance={item.instance_id} /> : <Loose item={item} />;
}
