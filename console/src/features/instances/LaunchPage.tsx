import { Alert, App, Button, Form, Input, Select, Switch } from 'antd';
import { type ReactNode, useEffect, useRef, useState } from 'react';
import { useTranslation } from 'react-i18next';
import { useNavigate } from 'react-router';
import {
  useLaunchInstanceMutation,
  useListImagesQuery,
  useListInstanceTypesQuery,
  useListKeyPairsQuery,
  useListSecurityGroupsQuery,
  useListSubnetsQuery,
  useListVpcsQuery,
} from '../../api';
import { type ApiProblem, isProblem } from '../../api/errors';
import { paths } from '../../paths';
import { ApiSnippet } from '../../ui/ApiSnippet';
import { Facts } from '../../ui/Facts';
import { Option } from '../../ui/Option';
import { PageHeader } from '../../ui/PageHeader';
import { ProblemAlert } from '../../ui/ProblemAlert';
import { requiredMark } from '../../ui/requiredMark';
import { RequestKeys } from '../../util/requestKeys';
import { utf8Length } from '../../util/text';
import { memoryText } from '../../util/units';
import { searchable, subnetOptions } from '../shared/fields';
import { useChoices } from '../shared/useLists';
import { fieldOf, type LaunchValues, toRequest } from './launchRequest';

const USER_DATA_LIMIT = 16 * 1024;

export function LaunchPage() {
  const { t } = useTranslation();
  const navigate = useNavigate();
  const { message } = App.useApp();
  const [form] = Form.useForm<LaunchValues>();
  const values = Form.useWatch([], form) as LaunchValues | undefined;
  const [launch, { isLoading }] = useLaunchInstanceMutation();
  const [refusal, setRefusal] = useState<ApiProblem | null>(null);
  const [keys] = useState(() => new RequestKeys());

  const { options, watch } = useChoices();
  const images = useListImagesQuery(undefined, options);
  const types = useListInstanceTypesQuery(undefined, options);
  const subnets = useListSubnetsQuery(undefined, options);
  const vpcs = useListVpcsQuery(undefined, options);
  const keyPairs = useListKeyPairsQuery(undefined, options);
  watch(images.data, types.data, subnets.data);
  const subnet = subnets.data?.find(({ id }) => id === values?.subnet_id);
  const vpcId = subnet?.vpc_id;
  const groups = useListSecurityGroupsQuery({ vpc_id: vpcId ?? '' }, { skip: vpcId === undefined });

  const leastMemory = images.data?.find(({ id }) => id === values?.image_id)?.min_memory_mib ?? 0;
  const type = types.data?.find(({ name }) => name === values?.instance_type);
  // The image may have been changed after the type.
  const tooSmall = type !== undefined && type.memory_mib < leastMemory;
  useEffect(() => {
    if (tooSmall) {
      form.setFieldValue('instance_type', undefined);
    }
  }, [tooSmall, form]);

  // Groups belong to a VPC: those chosen for another one make no sense any more.
  // biome-ignore lint/correctness/useExhaustiveDependencies: only a change of the VPC empties the field.
  useEffect(() => {
    form.setFieldValue('security_group_ids', []);
  }, [vpcId]);
  // The subnet says what is usual, until somebody says otherwise.
  const publicIpChosen = useRef(false);
  const usualPublicIp = subnet?.map_public_ip_on_launch;
  useEffect(() => {
    if (usualPublicIp !== undefined && !publicIpChosen.current) {
      form.setFieldValue('associate_public_ip', usualPublicIp);
    }
  }, [usualPublicIp, form]);
  // Where there is no choice, it is made.
  useEffect(() => {
    for (const [field, list] of [
      ['image_id', images.data?.map(({ id }) => id)],
      ['instance_type', types.data?.map(({ name }) => name)],
      ['subnet_id', subnets.data?.map(({ id }) => id)],
    ] as const) {
      if (list?.length === 1 && form.getFieldValue(field) === undefined) {
        form.setFieldValue(field, list[0]);
      }
    }
  }, [images.data, types.data, subnets.data, form]);

  const lists = [images, types, subnets, vpcs, keyPairs, groups];
  const failed = lists.find(({ error }) => error !== undefined);
  const missing = [
    images.data?.length === 0 && t('launch.noImages'),
    subnets.data?.length === 0 && t('launch.noSubnets'),
  ].filter((text) => text !== false);

  const submit = async (submitted: LaunchValues) => {
    setRefusal(null);
    const body = toRequest(submitted);
    try {
      await launch({ key: keys.keyFor(body), body }).unwrap();
      void message.success(t('launch.launching', { name: body.name }));
      void navigate(paths.instances());
    } catch (error) {
      if (!isProblem(error)) {
        throw error;
      }
      const field = fieldOf(error);
      if (field !== undefined) {
        form.setFields([{ name: field, errors: [error.detail || error.title || error.code] }]);
        form.scrollToField(field, { focus: true, block: 'center' });
      }
      setRefusal(error);
    }
  };

  const nameOf = (list: { id: string; name: string }[] | undefined, id: string | undefined) =>
    list?.find((item) => item.id === id)?.name ?? id;
  const chosen = (value: ReactNode) => value || <span className="muted">{t('launch.notChosen')}</span>;
  const groupNames = (values?.security_group_ids ?? []).map((id) => nameOf(groups.data, id)).join(', ');

  return (
    <>
      <PageHeader
        title={t('launch.title')}
        extra={<ApiSnippet calls={[{ method: 'POST', path: '/instances', body: toRequest(values ?? {}) }]} />}
      />
      <Form<LaunchValues>
        form={form}
        layout="vertical"
        className="launch"
        requiredMark={requiredMark}
        scrollToFirstError={{ focus: true, block: 'center' }}
        initialValues={{ associate_public_ip: true }}
        onFinish={submit}
        onValuesChange={(changed: LaunchValues) => {
          setRefusal(null);
          publicIpChosen.current ||= 'associate_public_ip' in changed;
        }}
      >
        <div className="launch-form">
          {failed !== undefined && (
            <div className="above-panel">
              <ProblemAlert problem={failed.error as ApiProblem} onRetry={() => void failed.refetch()} />
            </div>
          )}
          {missing.length > 0 && (
            <div className="above-panel">
              <Alert
                type="warning"
                showIcon
                role="status"
                title={t('launch.noneTitle')}
                description={missing.join(' ')}
              />
            </div>
          )}
          <section className="panel">
            <h2>{t('launch.basics')}</h2>
            <Form.Item
              name="name"
              label={t('common.name')}
              validateFirst
              rules={[
                { required: true, message: t('launch.nameRequired') },
                { max: 100, message: t('launch.nameTooLong') },
                { pattern: /^\S(.*\S)?$/u, message: t('launch.nameSpaces') },
              ]}
            >
              <Input autoComplete="off" spellCheck={false} placeholder={t('launch.namePlaceholder')} />
            </Form.Item>
            <Form.Item
              name="image_id"
              label={t('instances.image')}
              rules={[{ required: true, message: t('launch.imageRequired') }]}
            >
              <Select
                {...searchable}
                loading={images.isLoading}
                options={images.data?.map((image) => ({
                  value: image.id,
                  text: `${image.name} ${image.id}`,
                  label: <Option name={image.name} note={image.description || image.architecture} />,
                }))}
              />
            </Form.Item>
            <Form.Item
              name="instance_type"
              label={t('launch.type')}
              rules={[{ required: true, message: t('launch.typeRequired') }]}
            >
              <Select
                {...searchable}
                loading={types.isLoading}
                options={types.data?.map((type) => ({
                  value: type.name,
                  text: type.name,
                  disabled: type.memory_mib < leastMemory,
                  label: (
                    <Option
                      name={type.name}
                      note={
                        type.memory_mib < leastMemory
                          ? t('launch.tooSmall', { memory: memoryText(leastMemory) })
                          : t('launch.typeSpec', { vcpus: type.vcpus, memory: memoryText(type.memory_mib) })
                      }
                    />
                  ),
                }))}
              />
            </Form.Item>
          </section>
          <section className="panel">
            <h2>{t('launch.network')}</h2>
            <Form.Item
              name="subnet_id"
              label={t('common.subnet')}
              rules={[{ required: true, message: t('launch.subnetRequired') }]}
            >
              <Select
                {...searchable}
                loading={subnets.isLoading}
                options={subnetOptions(subnets.data, vpcs.data)}
              />
            </Form.Item>
            <Form.Item name="security_group_ids" label={t('launch.securityGroups')}>
              <Select
                {...searchable}
                mode="multiple"
                disabled={vpcId === undefined}
                loading={groups.isFetching}
                placeholder={
                  vpcId === undefined ? t('launch.securityGroupsFirst') : t('launch.securityGroupsDefault')
                }
                options={groups.currentData?.map((group) => ({
                  value: group.id,
                  text: `${group.name} ${group.id}`,
                  label: <Option name={group.name} note={group.description} />,
                }))}
                labelRender={({ value }) => nameOf(groups.data, String(value))}
              />
            </Form.Item>
            <Form.Item
              label={t('launch.publicIp')}
              htmlFor="associate_public_ip"
              extra={t('launch.publicIpHint')}
            >
              <Form.Item name="associate_public_ip" valuePropName="checked" noStyle>
                <Switch aria-label={t('launch.publicIp')} />
              </Form.Item>
            </Form.Item>
          </section>
          <section className="panel">
            <h2>{t('launch.access')}</h2>
            <Form.Item
              name="key_name"
              label={t('launch.keyPair')}
              extra={values?.key_name ? undefined : t('launch.keyNoneHint')}
            >
              <Select
                {...searchable}
                allowClear
                loading={keyPairs.isLoading}
                placeholder={t('launch.keyNone')}
                options={keyPairs.data?.map((pair) => ({
                  value: pair.name,
                  text: pair.name,
                  label: <Option name={pair.name} />,
                }))}
              />
            </Form.Item>
            <Form.Item
              name="user_data"
              label={t('launch.userData')}
              extra={t('launch.userDataHint')}
              rules={[
                {
                  validator: (_, text: string | undefined) =>
                    utf8Length(text ?? '') > USER_DATA_LIMIT
                      ? Promise.reject(new Error(t('launch.userDataTooLong')))
                      : Promise.resolve(),
                },
              ]}
            >
              <Input.TextArea className="mono" autoSize={{ minRows: 4, maxRows: 16 }} spellCheck={false} />
            </Form.Item>
          </section>
        </div>
        <aside className="panel launch-summary" aria-label={t('launch.summary')}>
          <h2>{t('launch.summary')}</h2>
          <Facts
            items={[
              [t('common.name'), chosen(values?.name)],
              [t('instances.image'), chosen(nameOf(images.data, values?.image_id))],
              [t('launch.type'), chosen(values?.instance_type)],
              [t('common.vpc'), chosen(nameOf(vpcs.data, vpcId))],
              [t('common.subnet'), chosen(subnet?.name)],
              [t('launch.securityGroups'), groupNames || t('launch.securityGroupsDefault')],
              [t('launch.keyPair'), values?.key_name || t('launch.keyNone')],
            ]}
          />
          <Button type="primary" htmlType="submit" block loading={isLoading}>
            {t('launch.submit')}
          </Button>
          <Button type="text" block onClick={() => void navigate(paths.instances())}>
            {t('common.cancel')}
          </Button>
          {refusal !== null && (
            <div className="launch-refusal">
              <ProblemAlert problem={refusal} />
            </div>
          )}
        </aside>
      </Form>
    </>
  );
}
