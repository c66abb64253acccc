import { useSyncExternalStore } from 'react';

const TICK = 15_000;
let now = Date.now();
let timer: ReturnType<typeof setInterval> | undefined;
const listeners = new Set<() => void>();

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  timer ??= setInterval(() => {
    now = Date.now();
    for (const each of listeners) {
      each();
    }
  }, TICK);
  return () => {
    listeners.delete(listener);
    if (listeners.size === 0) {
      clearInterval(timer);
      timer = undefined;
    }
  };
}

/** The time in milliseconds, renewed every 15 seconds: one timer for all the "3 minutes ago" of a page. */
export function useNow(): number {
  return useSyncExternalStore(subscribe, () => now);
}
