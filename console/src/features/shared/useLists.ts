import { useMemo } from 'react';
import { useListVpcsQuery } from '../../api';
import { pollingInterval } from '../../api/events';
import { useAppSelector } from '../../store';

/** How often lists are read again. */
export function usePolling() {
  const live = useAppSelector((state) => state.live.status);
  return { pollingInterval: pollingInterval(live), skipPollingIfUnfocused: true };
}

/** The names of the VPCs by their ids. */
export function useVpcNames(): ReadonlyMap<string, string> {
  const { data } = useListVpcsQuery();
  return useMemo(() => new Map(data?.map(({ id, name }) => [id, name])), [data]);
}

/** The name in a list of what has that id. */
export function nameIn(list: { id: string; name: string }[] | undefined, id: string): string | undefined {
  return list?.find((item) => item.id === id)?.name;
}
