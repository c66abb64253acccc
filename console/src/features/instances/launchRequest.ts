/** From the launch form to the request body, and from a refusal back to the form's fields. */
import type { LaunchInstanceRequest } from '../../api/types';
import { topLevelField } from '../../util/fields';
import { toBase64 } from '../../util/text';

export interface LaunchValues {
  name?: string;
  image_id?: string;
  instance_type?: string;
  subnet_id?: string;
  security_group_ids?: string[];
  key_name?: string;
  associate_public_ip?: boolean;
  user_data?: string;
}

export const FIELDS = [
  'name',
  'image_id',
  'instance_type',
  'subnet_id',
  'security_group_ids',
  'key_name',
  'associate_public_ip',
  'user_data',
] as const satisfies readonly (keyof LaunchValues & keyof LaunchInstanceRequest)[];
export type LaunchField = (typeof FIELDS)[number];

/** What is not chosen is left out: the server knows the defaults. */
export function toRequest(values: LaunchValues): LaunchInstanceRequest {
  return {
    name: values.name ?? '',
    image_id: values.image_id ?? '',
    instance_type: values.instance_type ?? '',
    subnet_id: values.subnet_id ?? '',
    ...(values.security_group_ids?.length ? { security_group_ids: values.security_group_ids } : {}),
    ...(values.key_name ? { key_name: values.key_name } : {}),
    associate_public_ip: values.associate_public_ip ?? false,
    ...(values.user_data ? { user_data: toBase64(values.user_data) } : {}),
  };
}

/** The form field a problem is about, if it is one of the form's. */
export function fieldOf(problem: { field: string | null }): LaunchField | undefined {
  const name = problem.field === null ? null : topLevelField(problem.field);
  return FIELDS.find((field) => field === name);
}
