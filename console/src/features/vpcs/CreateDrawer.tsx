import { Button, Form, Input } from 'antd';
import { useTranslation } from 'react-i18next';
import { useNavigate } from 'react-router';
import { useCreateDefaultVpcMutation, useCreateVpcMutation, useListVpcsQuery } from '../../api';
import type { CreateVpc } from '../../api/types';
import { paths } from '../../paths';
import { CreateDrawer as Drawer } from '../../ui/CreateDrawer';
import { ProblemAlert } from '../../ui/ProblemAlert';
import { NameField } from '../shared/fields';
import { useChange } from '../shared/useChange';
import { outcomeOf } from '../shared/useLists';

/** The one that launches go into that name no subnet; there is at most one. */
function Default() {
  const { t } = useTranslation();
  const navigate = useNavigate();
  const { data: vpcs } = useListVpcsQuery();
  const [create] = useCreateDefaultVpcMutation();
  const { change, state } = useChange();
  if (vpcs === undefined || vpcs.some(({ is_default }) => is_default)) {
    return null;
  }
  const make = async () => {
    const { id } = await create().unwrap();
    void navigate(paths.vpc(id), { replace: true });
  };
  return (
    <section className="section form-after">
      <h2>{t('vpcs.isDefault')}</h2>
      <p className="hint">{t('vpcs.defaultHint')}</p>
      <div className="section-actions">
        <Button loading={state.busy} onClick={() => void change(make)}>
          {t('vpcs.createDefault')}
        </Button>
      </div>
      {state.refusal !== null && <ProblemAlert problem={state.refusal} />}
    </section>
  );
}

/** The form for another VPC. It gets its subnets and its gateway on its own page. */
export function CreateDrawer() {
  const { t } = useTranslation();
  const [form] = Form.useForm<CreateVpc>();
  const [create] = useCreateVpcMutation();
  return (
    <Drawer<CreateVpc, CreateVpc>
      form={form}
      title={t('vpcs.create')}
      list={paths.vpcs()}
      path="/vpcs"
      toBody={({ name = '', cidr_block = '' }) => ({ name: name.trim(), cidr_block: cidr_block.trim() })}
      send={(body, key) => outcomeOf(() => create({ key, body }).unwrap(), paths.vpc)}
      after={<Default />}
    >
      <NameField required />
      <Form.Item
        name="cidr_block"
        label={t('common.cidr')}
        extra={t('vpcs.createHint')}
        rules={[{ required: true, whitespace: true, message: t('vpcs.blockRequired') }]}
      >
        <Input className="mono" autoComplete="off" spellCheck={false} placeholder="10.0.0.0/16" />
      </Form.Item>
    </Drawer>
  );
}
