import { Form, Input, InputNumber, Switch } from 'antd';
import { useTranslation } from 'react-i18next';
import { useCreateNetworkInterfaceMutation } from '../../api';
import type { CreateNetworkInterface } from '../../api/types';
import { paths } from '../../paths';
import { CreateDrawer as Drawer } from '../../ui/CreateDrawer';
import { DescriptionField, GroupsField, SubnetField, trimmed } from '../shared/fields';
import { outcomeOf } from '../shared/useLists';

interface Values {
  subnet_id: string;
  description?: string;
  private_ip?: string;
  secondary_private_ip_count?: number | null;
  security_group_ids?: string[];
  source_dest_check: boolean;
}

/** Addresses an interface has beside the first one, at most. */
const MOST_SECONDARY = 14;

/** What is not said is left out: the server knows what is usual. */
function toBody(values: Partial<Values>): CreateNetworkInterface {
  const { subnet_id = '', secondary_private_ip_count: further, security_group_ids: groups } = values;
  const description = trimmed(values.description);
  const private_ip = trimmed(values.private_ip);
  return {
    subnet_id,
    ...(description ? { description } : {}),
    ...(private_ip ? { private_ip } : {}),
    ...(further ? { secondary_private_ip_count: further } : {}),
    ...(groups?.length ? { security_group_ids: groups } : {}),
    ...(values.source_dest_check === false ? { source_dest_check: false } : {}),
  };
}

/** The form for another network interface. It is attached on its own page. */
export function CreateDrawer() {
  const { t } = useTranslation();
  const [form] = Form.useForm<Values>();
  const [create] = useCreateNetworkInterfaceMutation();
  return (
    <Drawer<Values, CreateNetworkInterface>
      form={form}
      title={t('networkInterfaces.create')}
      list={paths.networkInterfaces()}
      path="/network-interfaces"
      initial={{ source_dest_check: true }}
      toBody={toBody}
      send={(body, key) => outcomeOf(() => create({ key, body }).unwrap(), paths.networkInterface)}
    >
      <SubnetField />
      <DescriptionField />
      <Form.Item name="private_ip" label={t('instances.privateIp')}>
        <Input
          className="mono"
          autoComplete="off"
          spellCheck={false}
          placeholder={t('networkInterfaces.addressHint')}
        />
      </Form.Item>
      <Form.Item
        name="secondary_private_ip_count"
        label={t('networkInterfaces.furtherAddresses')}
        rules={[
          {
            type: 'integer',
            min: 0,
            max: MOST_SECONDARY,
            message: t('networkInterfaces.furtherWrong', { max: MOST_SECONDARY }),
          },
        ]}
      >
        <InputNumber controls={false} placeholder="0" />
      </Form.Item>
      <GroupsField />
      <Form.Item
        label={t('networkInterfaces.sourceDestCheck')}
        htmlFor="create_source_dest_check"
        extra={t('networkInterfaces.sourceDestHint')}
      >
        <Form.Item name="source_dest_check" valuePropName="checked" noStyle>
          <Switch aria-label={t('networkInterfaces.sourceDestCheck')} />
        </Form.Item>
      </Form.Item>
    </Drawer>
  );
}
