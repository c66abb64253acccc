import { Form, Input } from 'antd';
import { useTranslation } from 'react-i18next';
import { useCreatePrefixListMutation } from '../../api';
import type { CreatePrefixList } from '../../api/types';
import { paths } from '../../paths';
import { CreateDrawer as Drawer } from '../../ui/CreateDrawer';
import { NameField } from '../shared/fields';
import { outcomeOf } from '../shared/useLists';
import { entriesOf } from './entryLines';
import { MaxEntriesField } from './MaxEntriesField';

interface Values {
  name: string;
  max_entries: number;
  entries?: string;
}

/** The form for another prefix list. */
export function CreateDrawer() {
  const { t } = useTranslation();
  const [form] = Form.useForm<Values>();
  const [create] = useCreatePrefixListMutation();
  return (
    <Drawer<Values, CreatePrefixList>
      form={form}
      title={t('prefixLists.create')}
      list={paths.prefixLists()}
      path="/prefix-lists"
      initial={{ max_entries: 10 }}
      toBody={({ name = '', max_entries = 0, entries = '' }) => ({
        name: name.trim(),
        max_entries,
        ...(entriesOf(entries).length > 0 ? { entries: entriesOf(entries) } : {}),
      })}
      send={(body, key) => outcomeOf(() => create({ key, body }).unwrap(), paths.prefixList)}
    >
      <NameField required />
      <MaxEntriesField />
      <Form.Item name="entries" label={t('prefixLists.entries')} extra={t('prefixLists.entriesHint')}>
        <Input.TextArea
          className="mono"
          autoSize={{ minRows: 4, maxRows: 12 }}
          spellCheck={false}
          placeholder={'192.0.2.0/24 Seoul\n198.51.100.0/24'}
        />
      </Form.Item>
    </Drawer>
  );
}
