import { screen, waitFor } from '@testing-library/react';
import { describe, expect, it } from 'vitest';
import { MOCK_LOGIN } from '../../../mock/cloud';
import { callsTo, openConsole } from '../../../test/console';
import { acceptTokens } from '../../api/session';

describe('logging in', () => {
  it('leads to the page that was asked for and keeps the access token out of storage', async () => {
    const { cloud, user, store } = openConsole('/security-groups', { loggedIn: false });
    await user.type(await screen.findByLabelText('User name'), MOCK_LOGIN.username);
    await user.type(screen.getByLabelText('Password'), MOCK_LOGIN.password);
    await user.click(screen.getByRole('button', { name: 'Log in' }));
    expect(await screen.findByRole('heading', { name: 'Security groups' })).toBeTruthy();
    expect(callsTo(cloud, 'POST', '/auth/login')[0]?.body).toEqual(MOCK_LOGIN);
    const token = store.getState().session.accessToken;
    expect(token).toMatch(/^access-/);
    const stored = JSON.stringify([{ ...sessionStorage }, { ...localStorage }]);
    expect(stored).not.toContain(token);
    expect(sessionStorage.getItem('gon.refresh_token')).toMatch(/^refresh-/);
  });

  it('says that the password is wrong, empties it and stays', async () => {
    const { user, store } = openConsole('/', { loggedIn: false });
    await user.type(await screen.findByLabelText('User name'), 'admin');
    await user.type(screen.getByLabelText('Password'), 'nonsense');
    await user.click(screen.getByRole('button', { name: 'Log in' }));
    expect((await screen.findByRole('alert')).textContent).toContain(
      'The user name or the password is wrong.',
    );
    expect((screen.getByLabelText('Password') as HTMLInputElement).value).toBe('');
    expect(store.getState().session.status).toBe('anonymous');
  });

  it('asks the server nothing while a field is empty', async () => {
    const { cloud, user } = openConsole('/', { loggedIn: false });
    await user.click(await screen.findByRole('button', { name: 'Log in' }));
    expect(await screen.findByText('Enter your user name.')).toBeTruthy();
    expect(screen.getByText('Enter your password.')).toBeTruthy();
    expect(cloud.calls).toEqual([]);
  });
});

describe('a session', () => {
  it('refreshes once for all calls that find the access token expired', async () => {
    const { cloud, store } = openConsole('/instances');
    await screen.findByRole('link', { name: 'web-1' });
    const before = store.getState().session.accessToken;
    cloud.expireAccessTokens();
    cloud.calls.length = 0;
    screen.getByRole('button', { name: 'Refresh' }).click();
    screen.getByRole('link', { name: 'VPCs' }).click();
    expect(await screen.findByText('production')).toBeTruthy();
    expect(callsTo(cloud, 'POST', '/auth/refresh')).toHaveLength(1);
    expect(store.getState().session.accessToken).not.toBe(before);
    expect(store.getState().session.status).toBe('active');
  });

  it('ends at the login page when the refresh token is no longer good', async () => {
    const { cloud } = openConsole('/instances');
    await screen.findByRole('link', { name: 'web-1' });
    cloud.expireAccessTokens();
    cloud.revokeRefreshTokens();
    screen.getByRole('button', { name: 'Refresh' }).click();
    expect(await screen.findByText('Your session has ended. Log in again.')).toBeTruthy();
    expect(sessionStorage.getItem('gon.refresh_token')).toBeNull();
    expect(screen.queryByRole('link', { name: 'web-1' })).toBeNull();
  });

  it('comes back from a reload without the login page', async () => {
    sessionStorage.setItem('gon.refresh_token', 'from-before');
    const { cloud, store } = openConsole('/instances', { loggedIn: false });
    cloud.adoptRefreshToken('from-before');
    expect(await screen.findByRole('link', { name: 'web-1' })).toBeTruthy();
    expect(store.getState().session.status).toBe('active');
    expect(callsTo(cloud, 'POST', '/auth/refresh')[0]?.body).toEqual({ refresh_token: 'from-before' });
  });

  it('is told to the server and forgotten at a logout', async () => {
    const { cloud, user, store, router } = openConsole('/instances');
    await user.click(await screen.findByRole('button', { name: 'User menu for admin' }));
    await user.click(await screen.findByRole('menuitem', { name: 'Log out' }));
    expect(await screen.findByText('You have logged out.')).toBeTruthy();
    expect(callsTo(cloud, 'POST', '/auth/logout')).toHaveLength(1);
    expect(sessionStorage.getItem('gon.refresh_token')).toBeNull();
    expect(store.getState().session).toMatchObject({ status: 'anonymous', accessToken: null });
    await waitFor(() => expect(store.getState().api.queries).toEqual({}));
    store.dispatch(acceptTokens(cloud.grant()));
    await waitFor(() => expect(router.state.location.pathname).toBe('/instances'));
  });
});
