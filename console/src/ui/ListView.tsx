import { SearchOutlined } from '@ant-design/icons';
import { Input, type TableColumnsType } from 'antd';
import type { ReactNode } from 'react';
import { useTranslation } from 'react-i18next';
import { useSearchParams } from 'react-router';
import type { RestCall } from '../util/curl';
import { ApiSnippet } from './ApiSnippet';
import { EmptyState } from './EmptyState';
import { ListTable } from './ListTable';
import { PageHeader } from './PageHeader';
import { type Problem, ProblemAlert } from './ProblemAlert';
import { Toolbar } from './Toolbar';

/** A page that is one list, read as a whole, with a search whose words are in the address. */
export function ListView<T extends { id: string }>({
  title,
  searchLabel,
  calls,
  columns,
  rows,
  words,
  problem,
  onRetry,
  empty,
  expandable,
  width,
}: {
  title: string;
  searchLabel: string;
  /** The calls behind the view. */
  calls: RestCall[];
  columns: TableColumnsType<T>;
  /** Undefined until the first answer. */
  rows: T[] | undefined;
  /** What the search looks through. */
  words: (row: T) => (string | null | undefined)[];
  problem: Problem | undefined;
  onRetry: () => void;
  /** What is said when there is nothing at all. */
  empty: { title: string; hint: string };
  expandable?: { render: (row: T) => ReactNode };
  /** Below this width the table scrolls sideways. */
  width: number;
}) {
  const { t } = useTranslation();
  const [params, setParams] = useSearchParams();
  const typed = params.get('q') ?? '';
  const wanted = typed.trim().toLowerCase();
  const shown = (rows ?? []).filter((row) => words(row).join('\n').toLowerCase().includes(wanted));
  return (
    <>
      <PageHeader title={title} extra={<ApiSnippet calls={calls} />} />
      <Toolbar>
        <Input
          className="toolbar-search"
          allowClear
          prefix={<SearchOutlined aria-hidden="true" />}
          aria-label={searchLabel}
          placeholder={t('common.search')}
          value={typed}
          onChange={({ target }) =>
            setParams(target.value === '' ? {} : { q: target.value }, { replace: true })
          }
        />
      </Toolbar>
      {problem !== undefined && (
        <div className="above-panel">
          <ProblemAlert problem={problem} onRetry={onRetry} />
        </div>
      )}
      {(rows !== undefined || problem === undefined) && (
        <div className="panel">
          <ListTable
            label={title}
            columns={columns}
            rows={shown}
            loading={rows === undefined}
            empty={rows?.length ? <EmptyState title={t('common.noMatch')} /> : <EmptyState {...empty} />}
            expandable={expandable}
            width={width}
          />
        </div>
      )}
    </>
  );
}
