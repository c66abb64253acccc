import { PlusOutlined, ReloadOutlined, SearchOutlined } from '@ant-design/icons';
import { Button, Input, Select } from 'antd';
import { useMemo } from 'react';
import { useTranslation } from 'react-i18next';
import { Outlet, useLocation, useNavigate, useSearchParams } from 'react-router';
import { useListImagesQuery } from '../../api';
import { FIRST_PAGE } from '../../api/endpoints';
import { INSTANCE_STATES, type InstanceState } from '../../api/types';
import { paths } from '../../paths';
import { ApiSnippet } from '../../ui/ApiSnippet';
import { EmptyState } from '../../ui/EmptyState';
import { ListTable } from '../../ui/ListTable';
import { PageHeader } from '../../ui/PageHeader';
import { ProblemAlert } from '../../ui/ProblemAlert';
import { StateTag } from '../../ui/StateTag';
import { Toolbar } from '../../ui/Toolbar';
import { instanceColumns, matchesSearch, TABLE_WIDTH } from './columns';
import { useInstanceActions } from './useInstanceActions';
import { useAnnouncedChanges, useInstances } from './useInstances';

/** The list of instances. Search and filter live in the address, so a view can be passed on. */
export function ListPage() {
  const { t } = useTranslation();
  const navigate = useNavigate();
  const { search } = useLocation();
  const [params, setParams] = useSearchParams();
  const typed = params.get('q') ?? '';
  const stateParam = params.get('state') ?? '';
  const states = useMemo(
    () => INSTANCE_STATES.filter((state) => stateParam.split(',').includes(state)),
    [stateParam],
  );

  const { rows, problem, partial, loadAll, refetch, isFetching } = useInstances();
  useAnnouncedChanges(rows);
  const act = useInstanceActions();
  const { data: imageList } = useListImagesQuery();
  const images = useMemo(() => new Map(imageList?.map((image) => [image.id, image])), [imageList]);

  const shown = useMemo(
    () =>
      (rows ?? []).filter(
        (row) =>
          (states.length === 0 || states.includes(row.state)) && matchesSearch(row, images, typed.trim()),
      ),
    [rows, states, images, typed],
  );

  const setParam = (key: string, value: string) =>
    setParams(
      (old) => {
        const next = new URLSearchParams(old);
        if (value === '') {
          next.delete(key);
        } else {
          next.set(key, value);
        }
        return next;
      },
      { replace: true, preventScrollReset: true },
    );

  const launch = () => void navigate(paths.launchInstance());
  const empty =
    rows !== null && rows.length > 0 ? (
      <EmptyState
        title={t('common.noMatch')}
        action={<Button onClick={() => setParams({}, { replace: true })}>{t('common.clearFilter')}</Button>}
      />
    ) : (
      <EmptyState
        title={t('instances.empty')}
        hint={t('instances.emptyHint')}
        action={
          <Button type="primary" onClick={launch}>
            {t('instances.launch')}
          </Button>
        }
      />
    );

  return (
    <>
      <PageHeader
        title={t('instances.title')}
        extra={
          <>
            <ApiSnippet calls={[{ method: 'GET', path: `/instances?limit=${FIRST_PAGE}` }]} />
            <Button type="primary" icon={<PlusOutlined aria-hidden="true" />} onClick={launch}>
              {t('instances.launch')}
            </Button>
          </>
        }
      />
      <Toolbar>
        <Input
          className="toolbar-search"
          allowClear
          prefix={<SearchOutlined aria-hidden="true" />}
          aria-label={t('instances.searchLabel')}
          placeholder={t('instances.searchPlaceholder')}
          value={typed}
          onChange={({ target }) => setParam('q', target.value)}
        />
        <Select<InstanceState[]>
          className="toolbar-filter"
          mode="multiple"
          allowClear
          maxTagCount="responsive"
          aria-label={t('instances.stateFilter')}
          placeholder={t('instances.allStates')}
          value={states}
          onChange={(value) => setParam('state', value.join(','))}
          options={INSTANCE_STATES.map((state) => ({ value: state, label: <StateTag state={state} /> }))}
          labelRender={({ value }) => t(`state.${value as InstanceState}`)}
        />
        <Button
          type="text"
          icon={<ReloadOutlined aria-hidden="true" spin={isFetching && rows !== null} />}
          aria-label={t('common.refresh')}
          onClick={refetch}
        />
      </Toolbar>
      {problem !== undefined && (
        <div className="above-panel">
          <ProblemAlert
            problem={problem}
            onRetry={refetch}
            note={rows === null ? undefined : t('common.unchangedRows')}
          />
        </div>
      )}
      {(rows !== null || problem === undefined) && (
        <div className="panel">
          <ListTable
            label={t('instances.title')}
            columns={instanceColumns(t, search, images, act)}
            rows={shown}
            loading={rows === null}
            empty={empty}
            width={TABLE_WIDTH}
          />
          {partial && (
            <div className="partial">
              <span className="muted">{t('instances.loadedPart', { count: rows?.length ?? 0 })}</span>
              <Button type="link" onClick={loadAll}>
                {t('instances.loadAll')}
              </Button>
            </div>
          )}
        </div>
      )}
      <Outlet />
    </>
  );
}
