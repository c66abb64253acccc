import { Form } from 'antd';
import { useTranslation } from 'react-i18next';
import { useCreateRouteTableMutation } from '../../api';
import type { CreateRouteTable } from '../../api/types';
import { paths } from '../../paths';
import { CreateDrawer as Drawer } from '../../ui/CreateDrawer';
import { NameField, trimmed, VpcField } from '../shared/fields';
import { outcomeOf } from '../shared/useLists';

interface Values {
  vpc_id: string;
  name?: string;
}

/** The form for another route table. */
export function CreateDrawer() {
  const { t } = useTranslation();
  const [form] = Form.useForm<Values>();
  const [create] = useCreateRouteTableMutation();
  return (
    <Drawer<Values, CreateRouteTable>
      form={form}
      title={t('routeTables.create')}
      list={paths.routeTables()}
      path="/route-tables"
      toBody={({ vpc_id = '', name }) => ({ vpc_id, ...(trimmed(name) ? { name: trimmed(name) } : {}) })}
      send={(body, key) => outcomeOf(() => create({ key, body }).unwrap(), paths.routeTable)}
    >
      <VpcField />
      <NameField />
      <p className="hint">{t('routeTables.createHint')}</p>
    </Drawer>
  );
}
