import { Form } from 'antd';
import { useTranslation } from 'react-i18next';
import { useCreateSecurityGroupMutation } from '../../api';
import type { CreateSecurityGroup } from '../../api/types';
import { paths } from '../../paths';
import { CreateDrawer as Drawer } from '../../ui/CreateDrawer';
import { DescriptionField, NameField, trimmed, VpcField } from '../shared/fields';
import { outcomeOf } from '../shared/useLists';

interface Values {
  vpc_id: string;
  name: string;
  description?: string;
}

/** The form for another security group. It gets its rules on its own page. */
export function CreateDrawer() {
  const { t } = useTranslation();
  const [form] = Form.useForm<Values>();
  const [create] = useCreateSecurityGroupMutation();
  return (
    <Drawer<Values, CreateSecurityGroup>
      form={form}
      title={t('securityGroups.create')}
      list={paths.securityGroups()}
      path="/security-groups"
      toBody={({ vpc_id = '', name = '', description }) => ({
        vpc_id,
        name: name.trim(),
        ...(trimmed(description) ? { description: trimmed(description) } : {}),
      })}
      send={(body, key) => outcomeOf(() => create({ key, body }).unwrap(), paths.securityGroup)}
    >
      <VpcField />
      <NameField required max={255} />
      <DescriptionField />
      <p className="hint">{t('securityGroups.createHint')}</p>
    </Drawer>
  );
}
