import { useMemo, useState } from 'react';
import { useListVpcsQuery } from '../../api';
import { type ApiProblem, isProblem } from '../../api/errors';
import { liveTiming, pollingInterval } from '../../api/events';
import { useAppSelector } from '../../store';
import type { Outcome } from '../../ui/CreateDrawer';

/** How often lists are read again: by the clock, and when somebody comes back to the window. */
export function usePolling() {
  const live = useAppSelector((state) => state.live.status);
  return { pollingInterval: pollingInterval(live), skipPollingIfUnfocused: true, refetchOnFocus: true };
}

/**
 * The same for lists that a form chooses from: read when the form is opened, and soon again while there is nothing to
 * choose. `watch` is told of each answer.
 */
export function useChoices() {
  const [isEmpty, setEmpty] = useState(true);
  const options = {
    pollingInterval: isEmpty ? liveTiming.noChoice : liveTiming.choices,
    skipPollingIfUnfocused: true,
    refetchOnFocus: true,
    refetchOnReconnect: true,
    refetchOnMountOrArgChange: true,
  };
  const watch = (...lists: (readonly unknown[] | undefined)[]) => {
    const nothing = lists.some((list) => list === undefined || list.length === 0);
    if (nothing !== isEmpty) {
      setEmpty(nothing);
    }
  };
  return { options, watch };
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

/** What became of the call that makes something: where its page is, or why there is none. */
export async function outcomeOf<T extends { id: string; name?: string }>(
  call: () => Promise<T>,
  pageOf: (id: string) => string,
): Promise<Outcome> {
  try {
    const { id, name } = await call();
    return { to: pageOf(id), name: name || id };
  } catch (error) {
    if (!isProblem(error)) {
      throw error;
    }
    return { refusal: error as ApiProblem };
  }
}
