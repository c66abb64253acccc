import { Button, Form, Input } from 'antd';
import { useTranslation } from 'react-i18next';
import { useParams } from 'react-router';
import { useDeletePrefixListMutation, useGetPrefixListQuery, useUpdatePrefixListMutation } from '../../api';
import type { PrefixList, PrefixListEntry } from '../../api/types';
import { paths } from '../../paths';
import { AppliedText } from '../../ui/AppliedText';
import { CopyText } from '../../ui/CopyText';
import { Facts } from '../../ui/Facts';
import { ProblemAlert } from '../../ui/ProblemAlert';
import { ResourceDrawer } from '../../ui/ResourceDrawer';
import { RowsEditor } from '../../ui/RowsEditor';
import { requiredMark } from '../../ui/requiredMark';
import { Section } from '../../ui/Section';
import { TimeText } from '../../ui/TimeText';
import { NameForm } from '../shared/NameForm';
import { useChange } from '../shared/useChange';
import { useDetails } from '../shared/useDetails';
import { MaxEntriesField } from './MaxEntriesField';

function Entries({ list }: { list: PrefixList }) {
  const { t } = useTranslation();
  const [update] = useUpdatePrefixListMutation();
  const { change, state } = useChange();
  // Made of what is shown: a list that somebody else has changed since is left as it is.
  const { id, version: current_version } = list;
  /** Adds an entry; one that is there gets the description. */
  const put = ({ cidr, description = '' }: PrefixListEntry) => {
    const entry = { cidr: cidr.trim(), ...(description ? { description } : {}) };
    return change(() => update({ id, body: { add_entries: [entry], current_version } }).unwrap());
  };
  return (
    <RowsEditor<PrefixListEntry, PrefixListEntry>
      label={t('prefixLists.entriesOf', { name: list.name })}
      rows={list.entries}
      rowKey={(entry) => entry.cidr}
      columns={[
        {
          key: 'cidr',
          title: t('common.cidr'),
          render: (_, entry) => <span className="mono">{entry.cidr}</span>,
        },
        {
          key: 'description',
          title: t('common.description'),
          render: (_, entry) => <span className="cell-text">{entry.description || '–'}</span>,
        },
      ]}
      empty={t('prefixLists.noEntries')}
      nameOf={(entry) => entry.cidr}
      onRemove={({ cidr }) =>
        change(() => update({ id, body: { remove_entries: [cidr], current_version } }).unwrap())
      }
      edit={{ values: (entry) => entry, first: 'description', send: put }}
      add={{
        label: t('prefixLists.addEntry'),
        fieldOf: (field) => (field === 'add_entries' ? 'cidr' : field),
        fields: (changing) => (
          <>
            <Form.Item
              name="cidr"
              label={t('common.cidr')}
              rules={[{ required: true, whitespace: true, message: t('prefixLists.cidrRequired') }]}
            >
              <Input className="mono" autoComplete="off" placeholder="10.0.0.0/16" disabled={changing} />
            </Form.Item>
            <Form.Item name="description" className="row-wide" label={t('common.description')}>
              <Input autoComplete="off" maxLength={255} />
            </Form.Item>
          </>
        ),
        send: put,
      }}
      state={state}
    />
  );
}

/** How many entries it may have: so many rules a rule that names it counts for. */
function Size({ list }: { list: PrefixList }) {
  const { t } = useTranslation();
  const [form] = Form.useForm<{ max_entries: number }>();
  const [update] = useUpdatePrefixListMutation();
  const { change, state } = useChange();
  const { id, max_entries } = list;
  return (
    <>
      <Form<{ max_entries: number }>
        form={form}
        name="size"
        layout="vertical"
        className="row-form"
        aria-label={t('prefixLists.size')}
        requiredMark={requiredMark}
        initialValues={{ max_entries }}
        onFinish={(body) => change(() => update({ id, body }).unwrap())}
      >
        <MaxEntriesField />
        <Button htmlType="submit" className="row-add" loading={state.busy}>
          {t('rows.save')}
        </Button>
      </Form>
      {state.refusal !== null && <ProblemAlert problem={state.refusal} />}
    </>
  );
}

/** Everything about one prefix list, beside the list of them. */
export function DetailDrawer() {
  const { t } = useTranslation();
  const { id = '' } = useParams();
  const { options, read, remove } = useDetails();
  const { item, problem, refetch } = read(useGetPrefixListQuery(id, options));
  const [update] = useUpdatePrefixListMutation();
  const [drop] = useDeletePrefixListMutation();
  return (
    <ResourceDrawer
      title={(known) => known?.name ?? id}
      calls={[
        { method: 'GET', path: `/prefix-lists/${id}?wait=applied` },
        {
          method: 'PUT',
          path: `/prefix-lists/${id}`,
          body: { add_entries: [{ cidr: '10.0.0.0/16' }], current_version: item?.version ?? 1 },
        },
        { method: 'DELETE', path: `/prefix-lists/${id}` },
      ]}
      list={paths.prefixLists()}
      item={item}
      problem={problem}
      onRetry={refetch}
      missing={{ title: t('prefixLists.missing'), back: t('prefixLists.showAll') }}
      removal={({ name }) => ({
        id,
        name,
        body: t('prefixLists.deleteBody'),
        run: () => remove(() => drop(id).unwrap()),
      })}
    >
      {(list) => (
        <>
          <Section title={t('prefixLists.entries')}>
            <Entries list={list} />
          </Section>
          <Section title={t('prefixLists.size')}>
            <Size key={list.max_entries} list={list} />
          </Section>
          <Section title={t('forms.words')}>
            <NameForm
              words={{ name: list.name }}
              save={({ name }) => update({ id, body: { name } }).unwrap()}
            />
          </Section>
          <Section title={t('detail.summary')}>
            <Facts
              items={[
                [t('applied.label'), <AppliedText key="applied" applied={list.applied} />],
                [t('prefixLists.version'), list.version],
                [
                  t('prefixLists.entries'),
                  t('prefixLists.room', { used: list.entries.length, max: list.max_entries }),
                ],
                [t('common.id'), <CopyText key="id" value={list.id} what={t('common.id')} />],
                [t('common.uuid'), <CopyText key="uuid" value={list.uuid} what={t('common.uuid')} />],
                [t('common.created'), <TimeText key="created" at={list.created_at} />],
                [t('detail.updated'), <TimeText key="updated" at={list.updated_at} />],
              ]}
            />
          </Section>
        </>
      )}
    </ResourceDrawer>
  );
}
