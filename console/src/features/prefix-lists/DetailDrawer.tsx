import { Form, Input } from 'antd';
import { useTranslation } from 'react-i18next';
import { useParams } from 'react-router';
import { useGetPrefixListQuery, useUpdatePrefixListMutation } from '../../api';
import type { PrefixList, PrefixListEntry } from '../../api/types';
import { paths } from '../../paths';
import { AppliedText } from '../../ui/AppliedText';
import { CopyText } from '../../ui/CopyText';
import { Facts } from '../../ui/Facts';
import { ResourceDrawer } from '../../ui/ResourceDrawer';
import { RowsEditor } from '../../ui/RowsEditor';
import { Section } from '../../ui/Section';
import { TimeText } from '../../ui/TimeText';
import { useChange } from '../shared/useChange';
import { useDetails } from '../shared/useDetails';

function Entries({ list }: { list: PrefixList }) {
  const { t } = useTranslation();
  const [update] = useUpdatePrefixListMutation();
  const { change, state } = useChange();
  // Made of what is shown: a list that somebody else has changed since is left as it is.
  const { id, version: current_version } = list;
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
      add={{
        label: t('prefixLists.addEntry'),
        fields: (
          <>
            <Form.Item
              name="cidr"
              label={t('common.cidr')}
              rules={[{ required: true, whitespace: true, message: t('prefixLists.cidrRequired') }]}
            >
              <Input className="mono" autoComplete="off" placeholder="10.0.0.0/16" />
            </Form.Item>
            <Form.Item name="description" className="row-wide" label={t('common.description')}>
              <Input autoComplete="off" maxLength={255} />
            </Form.Item>
          </>
        ),
        send: ({ cidr, description }) => {
          const entry = { cidr: cidr.trim(), ...(description ? { description } : {}) };
          return change(() => update({ id, body: { add_entries: [entry], current_version } }).unwrap());
        },
      }}
      state={state}
    />
  );
}

/** Everything about one prefix list, beside the list of them. */
export function DetailDrawer() {
  const { t } = useTranslation();
  const { id = '' } = useParams();
  const { options, read } = useDetails();
  const { item, problem, refetch } = read(useGetPrefixListQuery(id, options));
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
      ]}
      list={paths.prefixLists()}
      item={item}
      problem={problem}
      onRetry={refetch}
      missing={{ title: t('prefixLists.missing'), back: t('prefixLists.showAll') }}
    >
      {(list) => (
        <>
          <Section title={t('prefixLists.entries')}>
            <Entries list={list} />
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
