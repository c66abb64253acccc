/** What every page about one thing does: reads it anew on a timer, and more often while a change is on its way to nodes. */
import { useState } from 'react';
import type { ApiProblem } from '../../api/errors';
import { liveTiming, pollingInterval } from '../../api/events';
import type { Applied } from '../../api/types';
import { useAppSelector } from '../../store';
import { isSettling } from '../../ui/AppliedText';

interface Answer<T> {
  currentData?: T;
  error?: unknown;
  refetch: () => unknown;
}

/**
 * `options` are for the query of one thing by its id, `read` is for its answer: only that says how far the last change
 * has come, and so how soon to ask again.
 */
export function useDetails() {
  const live = useAppSelector((state) => state.live.status);
  const [settling, setSettling] = useState(false);
  const read = <T extends { applied?: Applied | null }>({ currentData, error, refetch }: Answer<T>) => {
    const missing = isSettling(currentData?.applied);
    if (missing !== settling) {
      setSettling(missing);
    }
    return { item: currentData, problem: error as ApiProblem | undefined, refetch: () => void refetch() };
  };
  const options = {
    pollingInterval: settling ? liveTiming.settle : pollingInterval(live),
    skipPollingIfUnfocused: true,
    // The list may be a moment old; a page about one thing should not be.
    refetchOnMountOrArgChange: true,
  };
  return { options, read };
}
