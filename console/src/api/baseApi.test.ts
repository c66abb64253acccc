import { HttpResponse, http } from 'msw';
import { describe, expect, it } from 'vitest';
import { MockCloud } from '../../mock/cloud';
import { handlersFor } from '../../mock/handlers';
import { server } from '../../test/setup';
import { makeStore } from '../store';
import { api } from './index';
import { acceptTokens, sessionEnded } from './session';

function loggedIn() {
  const cloud = new MockCloud({ step: null, latency: 20 });
  server.use(...handlersFor(cloud));
  const store = makeStore();
  store.dispatch(acceptTokens(cloud.grant()));
  const read = () =>
    Promise.all([
      store.dispatch(api.endpoints.listVpcs.initiate(undefined, { forceRefetch: true })),
      store.dispatch(api.endpoints.listImages.initiate(undefined, { forceRefetch: true })),
      store.dispatch(api.endpoints.getMe.initiate(undefined, { forceRefetch: true })),
    ]);
  const refreshes = () => cloud.calls.filter(({ path }) => path === '/auth/refresh').length;
  return { cloud, store, read, refreshes };
}

describe('an expired access token', () => {
  it('is refreshed once by calls that find it at the same time, and all succeed', async () => {
    const { cloud, store, read, refreshes } = loggedIn();
    cloud.expireAccessTokens();
    const answers = await read();
    expect(answers.map(({ isSuccess }) => isSuccess)).toEqual([true, true, true]);
    expect(refreshes()).toBe(1);
    expect(store.getState().session.status).toBe('active');
  });

  it('ends the session when the new token is refused as well, without trying for ever', async () => {
    const { store, read, refreshes } = loggedIn();
    server.use(http.get('*/api/v1/vpcs', () => HttpResponse.json({ code: 'AuthFailure' }, { status: 401 })));
    await read();
    expect(refreshes()).toBe(1);
    expect(store.getState().session).toMatchObject({ status: 'anonymous', endedBy: 'expiry' });
    expect(sessionStorage.getItem('gon.refresh_token')).toBeNull();
  });

  it('does not end the session when the server cannot be reached just then', async () => {
    const { cloud, store, read } = loggedIn();
    cloud.expireAccessTokens();
    let down = true;
    server.use(http.post('*/api/v1/auth/refresh', () => (down ? HttpResponse.error() : undefined)));
    const answers = await read();
    expect(answers.map(({ error }) => (error as { code: string }).code)).toEqual(
      Array(3).fill('NetworkError'),
    );
    expect(store.getState().session.status).toBe('active');
    down = false;
    expect((await read()).every(({ isSuccess }) => isSuccess)).toBe(true);
  });

  it('does not come back to life when somebody logs out during the exchange', async () => {
    const { cloud, store, read } = loggedIn();
    cloud.expireAccessTokens();
    const reading = read();
    await new Promise((done) => setTimeout(done, 30));
    sessionStorage.removeItem('gon.refresh_token');
    store.dispatch(sessionEnded('logout'));
    await reading;
    expect(store.getState().session).toMatchObject({
      status: 'anonymous',
      accessToken: null,
      endedBy: 'logout',
    });
    expect(sessionStorage.getItem('gon.refresh_token')).toBeNull();
  });
});
