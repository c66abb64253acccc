import { PlusOutlined, SearchOutlined } from '@ant-design/icons';
import { Button, Input, type TableColumnsType } from 'antd';
import type { ReactNode } from 'react';
import { useTranslation } from 'react-i18next';
import { useNavigate, useSearchParams } from 'react-router';
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
  create,
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
  /** What leads to the form for another one. */
  create: { label: string; to: string };
  expandable?: { render: (row: T) => ReactNode };
  /** Below this width the table scrolls sideways. */
  width: number;
}) {
  const { t } = useTranslation();
  const navigate = useNavigate();
  const [params, setParams] = useSearchParams();
  const typed = params.get('q') ?? '';
  const wanted = typed.trim().toLowerCase();
  const shown = (rows ?? []).filter((row) => words(row).join('\n').toLowerCase().includes(wanted));
  // What was searched for stays in the address.
  const begin = () => void navigate({ pathname: create.to, search: params.toString() });
  return (
    <>
      <PageHeader
        title={title}
        extra={
          <>
            <ApiSnippet calls={calls} />
            <Button type="primary" icon={<PlusOutlined aria-hidden="true" />} onClick={begin}>
              {create.label}
            </Button>
          </>
        }
      />
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
            empty={
              rows?.length ? (
                <EmptyState title={t('common.noMatch')} />
              ) : (
                <EmptyState
                  {...empty}
                  action={
                    <Button type="primary" onClick={begin}>
                      {create.label}
                    </Button>
                  }
                />
              )
            }
            expandable={expandable}
            width={width}
          />
        </div>
      )}
    </>
  );
}
