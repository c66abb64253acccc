/**
 * Live updates: one WebSocket per tab, whose events are written into the RTK Query cache.
 *
 * The socket only makes the console faster, never more right: whoever shows a list also reads it again on a timer
 * (`pollingInterval` below), and everything is read again whenever a socket becomes ready, because nothing tells what
 * was missed before. Events and answers may overtake each other; `instanceSeen` keeps the newer one, and events of the
 * last minute are applied again after each answer.
 */
import {
  createListenerMiddleware,
  createSlice,
  isAnyOf,
  type PayloadAction,
  type ThunkAction,
  type UnknownAction,
} from '@reduxjs/toolkit';
import { refreshSession } from './baseApi';
import { api, instanceGone, instanceSeen } from './index';
import type { SessionState } from './session';
import type { Instance, ResourceEvent, ServerMessage } from './types';

/** `polling`: the socket is down and the lists are read every few seconds instead. */
export type LiveStatus = 'connecting' | 'live' | 'polling';

const live = createSlice({
  name: 'live',
  initialState: { status: 'connecting' as LiveStatus },
  reducers: {
    liveStatusChanged: (state, { payload }: PayloadAction<LiveStatus>) => {
      state.status = payload;
    },
  },
});
export const { liveStatusChanged } = live.actions;
export const liveReducer = live.reducer;

/** How often a list is read again, in milliseconds: the fallback, or (live) the safety net under the socket. */
export function pollingInterval(status: LiveStatus): number {
  return status === 'polling' ? liveTiming.poll : liveTiming.reconcile;
}

/** The server's close code for a token that is not good, or no longer. */
const UNAUTHENTICATED = 4401;

/** Milliseconds. Changed by tests only. */
export const liveTiming = {
  poll: 5_000,
  reconcile: 60_000,
  /** Of one thing whose last change is not yet in force everywhere. */
  settle: 1_000,
  /** Of what a form chooses from: images come without an event. */
  choices: 15_000,
  /** Of that, while there is nothing to choose. */
  noChoice: 2_000,
  /** From opening the socket to `ready`. */
  readyWithin: 10_000,
  firstRetry: 1_000,
  lastRetry: 30_000,
  /** How long events are applied again after answers. */
  replay: 60_000,
};

interface LiveState {
  session: SessionState;
  live: { status: LiveStatus };
}
// biome-ignore lint/suspicious/noExplicitAny: the store's type depends on this module.
type Thunk<R> = ThunkAction<R, any, unknown, UnknownAction>;

const recent = new Map<string, { item: Instance | null; at: number }>();

function applyEvent(event: ResourceEvent): Thunk<void> {
  return (dispatch) => {
    switch (event.resource) {
      case 'instance': {
        const now = Date.now();
        for (const [id, { at }] of recent) {
          if (now - at > liveTiming.replay) {
            recent.delete(id);
          }
        }
        recent.set(event.id, { item: event.item, at: now });
        dispatch(event.item === null ? instanceGone(event.id) : instanceSeen(event.item));
        return;
      }
      case 'vpc':
      case 'subnet':
      case 'network_acl':
      case 'security_group':
      case 'internet_gateway':
      case 'network_interface':
      case 'route_table':
      case 'prefix_list':
        dispatch(api.util.invalidateTags(['Network']));
        return;
      case 'key_pair':
        dispatch(api.util.invalidateTags(['LaunchOption']));
        return;
    }
  };
}

const replay = createListenerMiddleware();
replay.startListening({
  matcher: isAnyOf(api.endpoints.listInstances.matchFulfilled, api.endpoints.getInstance.matchFulfilled),
  effect: (_action, { dispatch }) => {
    const send = dispatch as unknown as (thunk: Thunk<void>) => void;
    for (const [id, { item }] of recent) {
      if (item !== null) {
        send(instanceSeen(item));
      } else {
        send((inner) => {
          inner(
            api.util.updateQueryData('listInstances', undefined, (list) => {
              for (const page of list.pages) {
                page.items = page.items.filter((row) => row.id !== id);
              }
            }),
          );
        });
      }
    }
  },
});
/** Applies recent events again after an answer that may be older than they are. */
export const replayMiddleware = replay.middleware;

function parseMessage(data: unknown): ServerMessage | null {
  if (typeof data !== 'string') {
    return null;
  }
  try {
    const message: unknown = JSON.parse(data);
    return typeof message === 'object' && message !== null && 'type' in message
      ? (message as ServerMessage)
      : null;
  } catch {
    return null;
  }
}

export function socketUrl(location: Pick<Location, 'protocol' | 'host'>): string {
  return `${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/api/v1/ws`;
}

/** Opens the socket and keeps it open until the returned function is called. */
export function startLive(): Thunk<() => void> {
  return (dispatch, getState) => {
    let stopped = false;
    let socket: WebSocket | null = null;
    let retry: ReturnType<typeof setTimeout> | undefined;
    let failures = 0;
    let tokenRefused = false;

    const freshToken = async (): Promise<string | null> => {
      const { session } = getState() as LiveState;
      if (session.accessToken === null || tokenRefused || session.expiresAt - Date.now() < 5_000) {
        tokenRefused = false;
        await refreshSession({ dispatch, getState });
      }
      return (getState() as LiveState).session.accessToken;
    };

    /** A socket that was good is opened again at once, and only then with pauses: sockets end with their token. */
    const down = (wasReady: boolean): void => {
      recent.clear();
      if (stopped) {
        return;
      }
      dispatch(liveStatusChanged(wasReady ? 'connecting' : 'polling'));
      const pause = wasReady ? 0 : Math.min(liveTiming.lastRetry, liveTiming.firstRetry * 2 ** failures++);
      clearTimeout(retry);
      retry = setTimeout(() => void connect(), pause * (0.75 + Math.random() / 2));
    };

    const connect = async (): Promise<void> => {
      const token = await freshToken();
      if (stopped || socket !== null) {
        return;
      }
      if (token === null) {
        down(false);
        return;
      }
      const current = new WebSocket(socketUrl(window.location));
      socket = current;
      let ready = false;
      const patience = setTimeout(() => current.close(), liveTiming.readyWithin);
      current.onopen = () => {
        current.send(JSON.stringify({ type: 'auth', token }));
      };
      current.onmessage = ({ data }) => {
        const message = parseMessage(data);
        if (message?.type === 'ready') {
          ready = true;
          failures = 0;
          clearTimeout(patience);
          dispatch(liveStatusChanged('live'));
          dispatch(api.util.invalidateTags(['Instance', 'Network', 'LaunchOption']));
        } else if (message?.type === 'event' && ready) {
          dispatch(applyEvent(message));
        }
      };
      current.onclose = ({ code }) => {
        clearTimeout(patience);
        if (socket === current) {
          socket = null;
          tokenRefused = code === UNAUTHENTICATED;
          down(ready);
        }
      };
    };

    const retryNow = (): void => {
      if (!stopped && socket === null && document.visibilityState === 'visible') {
        clearTimeout(retry);
        void connect();
      }
    };
    window.addEventListener('online', retryNow);
    document.addEventListener('visibilitychange', retryNow);

    dispatch(liveStatusChanged('connecting'));
    void connect();

    return () => {
      stopped = true;
      clearTimeout(retry);
      window.removeEventListener('online', retryNow);
      document.removeEventListener('visibilitychange', retryNow);
      recent.clear();
      const last = socket;
      socket = null;
      last?.close();
    };
  };
}
