/**
 * Who is logged in. The access token lives in memory only; the refresh token in this tab's session storage, so that
 * a reload does not log out and a closed tab does.
 */
import { createSlice, type PayloadAction } from '@reduxjs/toolkit';
import type { TokenResponse } from './types';

const REFRESH_TOKEN_KEY = 'gon.refresh_token';

export interface SessionState {
  /**
   * `restoring`: a refresh token was found and is being exchanged; `anonymous`: the login page; `active`: there is an
   * access token, perhaps one that has expired and will be refreshed by the next call.
   */
  status: 'restoring' | 'anonymous' | 'active';
  accessToken: string | null;
  /** Milliseconds since the epoch. */
  expiresAt: number;
  /** Why the login page is shown, if not because nobody has logged in yet. */
  endedBy: 'expiry' | 'logout' | null;
}

export const refreshTokenStore = {
  read: (): string | null => sessionStorage.getItem(REFRESH_TOKEN_KEY),
  write: (token: string): void => sessionStorage.setItem(REFRESH_TOKEN_KEY, token),
  clear: (): void => sessionStorage.removeItem(REFRESH_TOKEN_KEY),
};

const ANONYMOUS: SessionState = { status: 'anonymous', accessToken: null, expiresAt: 0, endedBy: null };

const session = createSlice({
  name: 'session',
  initialState: (): SessionState =>
    refreshTokenStore.read() === null ? ANONYMOUS : { ...ANONYMOUS, status: 'restoring' },
  reducers: {
    tokensGranted: (_state, { payload }: PayloadAction<{ accessToken: string; expiresAt: number }>) => ({
      status: 'active',
      accessToken: payload.accessToken,
      expiresAt: payload.expiresAt,
      endedBy: null,
    }),
    /** The first reason stays: calls that were on their way at a logout find no session either. */
    sessionEnded: (state, { payload }: PayloadAction<'expiry' | 'logout'>) =>
      state.status === 'anonymous' ? state : { ...ANONYMOUS, endedBy: payload },
  },
});

export const { tokensGranted, sessionEnded } = session.actions;
export const sessionReducer = session.reducer;

/**
 * "Duplicate tab" copies the session storage, and a refresh token that is used twice ends every session of its user. So
 * a tab that exchanges its token tells the copies of it, and (where the browser has locks) one exchanges at a time.
 */
const siblings = typeof BroadcastChannel === 'function' ? new BroadcastChannel('gon.session') : null;
siblings?.addEventListener('message', ({ data }: MessageEvent<{ used?: unknown; next?: unknown }>) => {
  if (typeof data.next === 'string' && data.used === refreshTokenStore.read()) {
    refreshTokenStore.write(data.next);
  }
});

/** Replaces the refresh token, here and in the tabs that are copies of this one. */
export function rotateRefreshToken(used: string, next: string): void {
  refreshTokenStore.write(next);
  siblings?.postMessage({ used, next });
}

/** Runs `exchange` while no other tab does, and after what the last one did has been heard. */
export async function oneTabAtATime<R>(exchange: () => Promise<R>): Promise<R> {
  if (siblings === null || navigator.locks === undefined) {
    return exchange();
  }
  return navigator.locks.request('gon.session', async () => {
    await new Promise((heard) => setTimeout(heard, 20));
    return exchange();
  });
}

/** Keeps the refresh token and returns the action that makes the access token known. */
export function acceptTokens(tokens: TokenResponse): ReturnType<typeof tokensGranted> {
  if (tokens.refresh_token) {
    refreshTokenStore.write(tokens.refresh_token);
  }
  return tokensGranted({
    accessToken: tokens.access_token,
    expiresAt: Date.now() + tokens.expires_in * 1000,
  });
}
