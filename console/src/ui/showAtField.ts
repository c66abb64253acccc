import type { FormInstance } from 'antd';
import { topLevelField } from '../util/fields';
import type { Problem } from './ProblemAlert';

/** Says at the field that a refusal is about what is wrong with it, if the form has that field; and goes there. */
export function showAtField<V extends object>(
  form: FormInstance<V>,
  refusal: Problem,
  fieldOf: (field: string) => string,
): void {
  const name = refusal.field === null ? undefined : fieldOf(topLevelField(refusal.field));
  const any = form as unknown as FormInstance<Record<string, unknown>>;
  if (name !== undefined && name in any.getFieldsValue()) {
    any.setFields([{ name, errors: [refusal.detail || refusal.title || refusal.code] }]);
    any.focusField(name);
  }
}
