/** The instances as the list shows them: all pages in one array, newest first, kept up to date. */
import { useEffect, useMemo, useRef } from 'react';
import { useTranslation } from 'react-i18next';
import { useListInstancesInfiniteQuery } from '../../api';
import type { ApiProblem } from '../../api/errors';
import { pollingInterval } from '../../api/events';
import type { Instance } from '../../api/types';
import { useAppSelector } from '../../store';
import { announce } from '../../ui/announce';

/** So many rows are loaded without being asked for; more only on request. */
const AUTO_ROWS = 1000;

/** An instance that an event put on the first page may come again on its own page: the newer of the two counts. */
export function mergePages(pages: { items: Instance[] }[]): Instance[] {
  const byId = new Map<string, Instance>();
  for (const page of pages) {
    for (const item of page.items) {
      const known = byId.get(item.id);
      if (known === undefined || Date.parse(known.updated_at) < Date.parse(item.updated_at)) {
        byId.set(item.id, item);
      }
    }
  }
  return [...byId.values()].sort(
    (a, b) => Date.parse(b.created_at) - Date.parse(a.created_at) || b.id.localeCompare(a.id),
  );
}

export function useInstances() {
  const live = useAppSelector((state) => state.live.status);
  const { data, error, isFetching, isFetchingNextPage, hasNextPage, fetchNextPage, refetch } =
    useListInstancesInfiniteQuery(undefined, {
      pollingInterval: pollingInterval(live),
      skipPollingIfUnfocused: true,
    });
  const rows = useMemo(() => (data === undefined ? null : mergePages(data.pages)), [data]);

  const loadAll = useRef(false);
  const count = rows?.length ?? 0;
  useEffect(() => {
    if (hasNextPage && !isFetching && error === undefined && (count < AUTO_ROWS || loadAll.current)) {
      void fetchNextPage();
    }
  }, [hasNextPage, isFetching, error, count, fetchNextPage]);

  return {
    /** Null until the first answer. */
    rows,
    problem: error as ApiProblem | undefined,
    partial: hasNextPage && !isFetchingNextPage && count >= AUTO_ROWS,
    loadAll: () => {
      loadAll.current = true;
      void fetchNextPage();
    },
    refetch: () => void refetch(),
    isFetching,
  };
}

/** Tells screen readers what changed since the last time, in one sentence when it is much. */
export function useAnnouncedChanges(rows: Instance[] | null): void {
  const { t } = useTranslation();
  const before = useRef<Map<string, Instance> | null>(null);
  useEffect(() => {
    if (rows === null) {
      return;
    }
    const known = before.current;
    before.current = new Map(rows.map((row) => [row.id, row]));
    if (known === null || known.size === 0) {
      return;
    }
    const lines: string[] = [];
    for (const row of rows) {
      const old = known.get(row.id);
      if (old === undefined || old.state !== row.state) {
        const key = old === undefined ? 'instances.appeared' : 'instances.changed';
        lines.push(t(key, { name: row.name, state: t(`state.${row.state}`) }));
      }
    }
    for (const old of known.values()) {
      if (!before.current.has(old.id)) {
        lines.push(t('instances.gone', { name: old.name }));
      }
    }
    if (lines.length > 3) {
      announce(t('instances.manyChanged', { count: lines.length }));
    } else {
      lines.forEach(announce);
    }
  }, [rows, t]);
}
