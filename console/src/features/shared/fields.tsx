/** Fields that the forms for new things have in common. */
import { Form, Input, Select } from 'antd';
import { useEffect } from 'react';
import { useTranslation } from 'react-i18next';
import { useListSecurityGroupsQuery, useListSubnetsQuery, useListVpcsQuery } from '../../api';
import type { Subnet } from '../../api/types';
import { Option } from '../../ui/Option';
import { nameIn, useChoices } from './useLists';

export const searchable = { showSearch: { optionFilterProp: 'text' } } as const;

/** Text without the spaces around it; undefined if there is none. */
export function trimmed(text: string | undefined): string | undefined {
  return text?.trim() || undefined;
}

export function NameField({ required = false, max = 100 }: { required?: boolean; max?: number }) {
  const { t } = useTranslation();
  return (
    <Form.Item
      name="name"
      label={t('common.name')}
      extra={required ? undefined : t('forms.nameHint')}
      validateFirst
      rules={[
        { required, whitespace: true, message: t('forms.nameRequired') },
        { max, message: t('forms.nameTooLong', { max }) },
      ]}
    >
      <Input autoComplete="off" spellCheck={false} />
    </Form.Item>
  );
}

export function DescriptionField() {
  const { t } = useTranslation();
  return (
    <Form.Item name="description" label={t('common.description')}>
      <Input autoComplete="off" maxLength={255} />
    </Form.Item>
  );
}

/** A field that is filled in where there is no choice. */
function useOnlyChoice(field: string, ids: string[] | undefined): void {
  const form = Form.useFormInstance();
  const only = ids?.length === 1 ? ids[0] : undefined;
  useEffect(() => {
    if (only !== undefined && form.getFieldValue(field) === undefined) {
      form.setFieldValue(field, only);
    }
  }, [field, only, form]);
}

export function VpcField() {
  const { t } = useTranslation();
  const { options, watch } = useChoices();
  const { data: vpcs, isLoading } = useListVpcsQuery(undefined, options);
  watch(vpcs);
  useOnlyChoice(
    'vpc_id',
    vpcs?.map(({ id }) => id),
  );
  return (
    <Form.Item
      name="vpc_id"
      label={t('common.vpc')}
      rules={[{ required: true, message: t('forms.vpcRequired') }]}
    >
      <Select
        {...searchable}
        loading={isLoading}
        options={vpcs?.map(({ id, name, cidr_block }) => ({
          value: id,
          text: `${name} ${id} ${cidr_block}`,
          label: <Option name={name} note={cidr_block} />,
        }))}
      />
    </Form.Item>
  );
}

/** A subnet of any VPC, by VPC. */
export function SubnetField() {
  const { t } = useTranslation();
  const { options, watch } = useChoices();
  const { data: subnets, isLoading } = useListSubnetsQuery(undefined, options);
  const { data: vpcs } = useListVpcsQuery(undefined, options);
  watch(subnets);
  useOnlyChoice(
    'subnet_id',
    subnets?.map(({ id }) => id),
  );
  return (
    <Form.Item
      name="subnet_id"
      label={t('common.subnet')}
      rules={[{ required: true, message: t('launch.subnetRequired') }]}
    >
      <Select {...searchable} loading={isLoading} options={subnetOptions(subnets, vpcs)} />
    </Form.Item>
  );
}

/** Subnets as a select box offers them: by VPC. */
export function subnetOptions(
  subnets: Subnet[] | undefined,
  vpcs: { id: string; name: string; cidr_block: string }[] | undefined,
) {
  const byVpc = new Map<string, Subnet[]>();
  for (const item of subnets ?? []) {
    byVpc.set(item.vpc_id, [...(byVpc.get(item.vpc_id) ?? []), item]);
  }
  return [...byVpc].map(([id, members]) => {
    const vpc = vpcs?.find((candidate) => candidate.id === id);
    return {
      label: vpc === undefined ? id : `${vpc.name} · ${vpc.cidr_block}`,
      title: id,
      options: members.map((item) => ({
        value: item.id,
        text: `${item.name} ${item.cidr_block} ${item.availability_zone} ${item.id}`,
        label: <Option name={item.name} note={`${item.cidr_block} · ${item.availability_zone}`} />,
      })),
    };
  });
}

/** Security groups of the VPC of the subnet that is chosen; the default one where none is. */
export function GroupsField() {
  const { t } = useTranslation();
  const form = Form.useFormInstance();
  const subnet = Form.useWatch('subnet_id', form) as string | undefined;
  const { data: subnets } = useListSubnetsQuery();
  const vpc = subnets?.find(({ id }) => id === subnet)?.vpc_id;
  const groups = useListSecurityGroupsQuery({ vpc_id: vpc ?? '' }, { skip: vpc === undefined });
  // Groups belong to a VPC: those chosen for another one make no sense any more.
  // biome-ignore lint/correctness/useExhaustiveDependencies: only a change of the VPC empties the field.
  useEffect(() => {
    form.setFieldValue('security_group_ids', []);
  }, [vpc]);
  return (
    <Form.Item
      name="security_group_ids"
      label={t('launch.securityGroups')}
      rules={[{ type: 'array', max: 5, message: t('networkInterfaces.groupsRequired') }]}
    >
      <Select
        {...searchable}
        mode="multiple"
        disabled={vpc === undefined}
        loading={groups.isFetching}
        placeholder={vpc === undefined ? t('launch.securityGroupsFirst') : t('launch.securityGroupsDefault')}
        options={groups.currentData?.map(({ id, name, description }) => ({
          value: id,
          text: `${name} ${id}`,
          label: <Option name={name} note={description} />,
        }))}
        labelRender={({ value }) => nameIn(groups.data, String(value)) ?? value}
      />
    </Form.Item>
  );
}
