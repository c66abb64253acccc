import { Form } from 'antd';
import { useTranslation } from 'react-i18next';
import { useCreateNetworkAclMutation } from '../../api';
import type { CreateNetworkAcl } from '../../api/types';
import { paths } from '../../paths';
import { CreateDrawer as Drawer } from '../../ui/CreateDrawer';
import { NameField, trimmed, VpcField } from '../shared/fields';
import { outcomeOf } from '../shared/useLists';

interface Values {
  vpc_id: string;
  name?: string;
}

/** The form for another network ACL. */
export function CreateDrawer() {
  const { t } = useTranslation();
  const [form] = Form.useForm<Values>();
  const [create] = useCreateNetworkAclMutation();
  return (
    <Drawer<Values, CreateNetworkAcl>
      form={form}
      title={t('networkAcls.create')}
      list={paths.networkAcls()}
      path="/network-acls"
      toBody={({ vpc_id = '', name }) => ({ vpc_id, ...(trimmed(name) ? { name: trimmed(name) } : {}) })}
      send={(body, key) => outcomeOf(() => create({ key, body }).unwrap(), paths.networkAcl)}
    >
      <VpcField />
      <NameField />
      <p className="hint">{t('networkAcls.createHint')}</p>
    </Drawer>
  );
}
