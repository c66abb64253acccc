/** What every page about one thing does: reads it anew on a timer, and more often while a change is on its way to nodes. */
import { useRef, useState } from 'react';
import { type ApiProblem, isProblem } from '../../api/errors';
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
 * has come, and so how soon to ask again. `remove` makes the call that deletes it, and says why if it was refused.
 */
export function useDetails() {
  const live = useAppSelector((state) => state.live.status);
  const [settling, setSettling] = useState(false);
  const [leaving, setLeaving] = useState(false);
  // Whether it is shown as it was: while it is being deleted, and until it is known again when that was refused.
  const [isKept, setKept] = useState(false);
  const last = useRef<unknown>(undefined);
  const read = <T extends { applied?: Applied | null }>({ currentData, error, refetch }: Answer<T>) => {
    if (currentData !== undefined) {
      last.current = currentData;
    }
    if (isKept && !leaving && (currentData ?? error) !== undefined) {
      setKept(false);
    }
    const missing = isSettling(currentData?.applied);
    if (missing !== settling) {
      setSettling(missing);
    }
    return {
      item: currentData ?? (isKept ? (last.current as T) : undefined),
      problem: leaving ? undefined : (error as ApiProblem | undefined),
      refetch: () => void refetch(),
    };
  };
  const remove = async (call: () => Promise<unknown>): Promise<ApiProblem | null> => {
    // Nobody asks any more for what may be gone.
    setLeaving(true);
    setKept(true);
    try {
      await call();
      return null;
    } catch (error) {
      setLeaving(false);
      if (!isProblem(error)) {
        throw error;
      }
      return error;
    }
  };
  const options = {
    pollingInterval: settling ? liveTiming.settle : pollingInterval(live),
    skipPollingIfUnfocused: true,
    refetchOnFocus: true,
    // The list may be a moment old; a page about one thing should not be.
    refetchOnMountOrArgChange: true,
    skip: leaving,
  };
  return { options, read, remove };
}
