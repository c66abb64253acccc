import { Form, InputNumber } from 'antd';
import { useTranslation } from 'react-i18next';

/** The most a list may have. */
export const MOST_ENTRIES = 60;

/** How many entries a list may have. */
export function MaxEntriesField() {
  const { t } = useTranslation();
  return (
    <Form.Item
      name="max_entries"
      label={t('prefixLists.maxEntries')}
      extra={t('prefixLists.maxEntriesHint')}
      className="row-wide"
      rules={[
        {
          required: true,
          type: 'integer',
          min: 1,
          max: MOST_ENTRIES,
          message: t('prefixLists.maxEntriesRequired', { max: MOST_ENTRIES }),
        },
      ]}
    >
      <InputNumber controls={false} />
    </Form.Item>
  );
}
