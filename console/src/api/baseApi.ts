/**
 * The one door to the server: adds the token, refreshes it once on a 401, and turns every failure into an
 * `ApiProblem`. Resources are added by `endpoints.ts`.
 */
import {
  type BaseQueryApi,
  type BaseQueryFn,
  createApi,
  type FetchArgs,
  fetchBaseQuery,
} from '@reduxjs/toolkit/query/react';
import { type ApiProblem, isUnreachable, toProblem } from './errors';
import {
  acceptTokens,
  oneTabAtATime,
  refreshTokenStore,
  rotateRefreshToken,
  type SessionState,
  sessionEnded,
} from './session';
import type { TokenResponse } from './types';

interface WithSession {
  session: SessionState;
}

const rawQuery = fetchBaseQuery({
  baseUrl: new URL('/api/v1/', window.location.origin).toString(),
  timeout: 30_000,
  prepareHeaders: (headers, { getState }) => {
    const { accessToken } = (getState() as WithSession).session;
    if (accessToken !== null && !headers.has('Authorization')) {
      headers.set('Authorization', `Bearer ${accessToken}`);
    }
    headers.set('Accept', 'application/json, application/problem+json');
  },
});

/** `lost`: the server refused the refresh token. `unreachable`: it gave no answer; the session may still be good. */
export type RefreshOutcome = 'refreshed' | 'lost' | 'unreachable';

let refreshing: Promise<RefreshOutcome> | null = null;

async function refreshOnce(api: BaseQueryApi): Promise<RefreshOutcome> {
  const refreshToken = refreshTokenStore.read();
  if (refreshToken === null) {
    api.dispatch(sessionEnded('expiry'));
    return 'lost';
  }
  // Its own signal: the call that noticed the 401 may be aborted, the others still wait for the token.
  const result = await rawQuery(
    { url: 'auth/refresh', method: 'POST', body: { refresh_token: refreshToken } },
    { ...api, signal: new AbortController().signal },
    {},
  );
  if (refreshTokenStore.read() !== refreshToken) {
    return 'lost'; // Logged out, or logged in anew, while the answer was on its way.
  }
  if (result.error === undefined) {
    const tokens = result.data as TokenResponse;
    rotateRefreshToken(refreshToken, tokens.refresh_token);
    api.dispatch(acceptTokens(tokens));
    return 'refreshed';
  }
  const problem = toProblem(result.error);
  if (isUnreachable(problem) || problem.status >= 500 || problem.status === 429) {
    return 'unreachable';
  }
  refreshTokenStore.clear();
  api.dispatch(sessionEnded('expiry'));
  return 'lost';
}

/** Exchanges the refresh token. All who ask at the same time share one exchange: the token works only once. */
export function refreshSession(api: Pick<BaseQueryApi, 'dispatch' | 'getState'>): Promise<RefreshOutcome> {
  refreshing ??= oneTabAtATime(() => refreshOnce(api as BaseQueryApi)).finally(() => {
    refreshing = null;
  });
  return refreshing;
}

function isAuthExchange(args: string | FetchArgs): boolean {
  const url = typeof args === 'string' ? args : args.url;
  return /^\/?auth\/(login|refresh|logout)$/.test(url);
}

export const baseQuery: BaseQueryFn<string | FetchArgs, unknown, ApiProblem> = async (args, api, extra) => {
  const sentToken = (api.getState() as WithSession).session.accessToken;
  let result = await rawQuery(args, api, extra);
  if (result.error?.status === 401 && !isAuthExchange(args)) {
    // Another call may have refreshed in the meantime; then this one only needs to be repeated.
    const current = (api.getState() as WithSession).session.accessToken;
    const outcome = current !== null && current !== sentToken ? 'refreshed' : await refreshSession(api);
    if (outcome === 'unreachable') {
      return { error: toProblem({ status: 'FETCH_ERROR', error: 'refresh' }), meta: result.meta };
    }
    if (outcome === 'refreshed') {
      result = await rawQuery(args, api, extra);
      if (result.error?.status === 401) {
        refreshTokenStore.clear();
        api.dispatch(sessionEnded('expiry'));
      }
    }
  }
  return result.error === undefined
    ? { data: result.data, meta: result.meta }
    : { error: toProblem(result.error), meta: result.meta };
};

export const baseApi = createApi({
  reducerPath: 'api',
  baseQuery,
  endpoints: () => ({}),
  keepUnusedDataFor: 120,
});
