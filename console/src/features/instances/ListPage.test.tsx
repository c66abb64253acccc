import { act, screen, waitFor, within } from '@testing-library/react';
import { HttpResponse, http } from 'msw';
import { afterEach, describe, expect, it } from 'vitest';
import type { MockCloud } from '../../../mock/cloud';
import { openSockets } from '../../../mock/handlers';
import { emptyWorld, fillWorld, seededWorld } from '../../../mock/seed';
import { callsTo, openConsole } from '../../../test/console';
import { server } from '../../../test/setup';
import { liveTiming } from '../../api/events';
import type { InstanceState } from '../../api/types';

const realTiming = { ...liveTiming };
afterEach(() => {
  Object.assign(liveTiming, realTiming);
});

function rowOf(name: string): HTMLElement {
  const row = screen.getByRole('link', { name }).closest('tr');
  if (row === null) {
    throw new Error(`no row for ${name}`);
  }
  return row;
}

function stateOf(name: string): string | undefined {
  return rowOf(name).querySelector<HTMLElement>('.state-tag')?.dataset.state;
}

/** Waits until the socket delivers, so that an event sent now arrives. */
async function live(): Promise<void> {
  await screen.findByText('Live');
}

function idOf(cloud: { world: { instances: { id: string; name: string }[] } }, name: string): string {
  const found = cloud.world.instances.find((item) => item.name === name);
  if (found === undefined) {
    throw new Error(`no instance ${name}`);
  }
  return found.id;
}

describe('the list of instances', () => {
  it('shows what the server says, with names in place of image ids', async () => {
    const { cloud } = openConsole('/instances');
    await screen.findByRole('link', { name: 'web-1' });
    expect(screen.getAllByRole('row')).toHaveLength(cloud.world.instances.length + 1);
    await waitFor(() => expect(within(rowOf('web-1')).getByText('debian-12')).toBeTruthy());
    const cells = within(rowOf('web-1'))
      .getAllByRole('cell')
      .map((cell) => cell.textContent);
    expect(cells).toEqual([
      'web-1',
      'Running',
      idOf(cloud, 'web-1'),
      'g1.micro',
      'debian-12',
      '10.0.1.10',
      '203.0.113.10',
      'gon-1a',
      '3 minutes ago',
      '',
    ]);
  });

  it('shows names as text, whatever they contain', async () => {
    const world = seededWorld();
    const [first] = world.instances;
    if (first !== undefined) {
      first.name = '<img src=x onerror=alert(1)>';
    }
    openConsole('/instances', { world });
    const link = await screen.findByRole('link', { name: '<img src=x onerror=alert(1)>' });
    expect(link.querySelector('img')).toBeNull();
  });

  it('reads all pages', async () => {
    const world = seededWorld();
    fillWorld(world, 130);
    const { cloud } = openConsole('/instances', { world });
    expect(await screen.findByText('130 entries')).toBeTruthy();
    expect(callsTo(cloud, 'GET', /^\/instances\?limit=500&cursor=100$/).length).toBeGreaterThan(0);
  });

  it('invites to launch when there is nothing', async () => {
    openConsole('/instances', { world: emptyWorld() });
    expect(await screen.findByText('No instances yet')).toBeTruthy();
  });

  it('filters by words and state, and keeps both in the address', async () => {
    const { user, router } = openConsole('/instances?state=running');
    await screen.findByRole('link', { name: 'web-1' });
    expect(screen.queryByRole('link', { name: 'batch-7' })).toBeNull();
    await user.type(screen.getByLabelText('Search instances'), 'g1.large 10.0.2');
    await waitFor(() => expect(screen.queryByRole('link', { name: 'web-1' })).toBeNull());
    expect(screen.getByRole('link', { name: '데이터베이스' })).toBeTruthy();
    expect(router.state.location.search).toContain('q=g1.large');
    expect(router.state.location.search).toContain('state=running');
  });

  it('shows a problem with code, detail, field and request id', async () => {
    const { user } = openConsole('/instances');
    let broken = true;
    server.use(
      http.get('*/api/v1/instances', () =>
        broken
          ? HttpResponse.json(
              {
                code: 'InvalidParameterValue',
                detail: 'limit must be at most 50',
                field: 'limit',
                request_id: 'req-77',
                blockers: ['subnet-1'],
              },
              { status: 400, headers: { 'content-type': 'application/problem+json' } },
            )
          : undefined,
      ),
    );
    const text = (await screen.findByRole('alert')).textContent;
    for (const part of ['InvalidParameterValue', 'limit must be at most 50', 'limit', 'req-77', 'subnet-1']) {
      expect(text).toContain(part);
    }
    broken = false;
    await user.click(screen.getByRole('button', { name: 'Try again' }));
    expect(await screen.findByRole('link', { name: 'web-1' })).toBeTruthy();
    expect(screen.queryByRole('alert')).toBeNull();
  });
});

describe('live updates', () => {
  it('change the state in its row, and are announced', async () => {
    const { cloud } = openConsole('/instances');
    await screen.findByRole('link', { name: 'probe' });
    await live();
    expect(stateOf('probe')).toBe('pending');
    const before = callsTo(cloud, 'GET', /^\/instances/).length;
    act(() => void cloud.change(idOf(cloud, 'probe'), { state: 'running', public_ip: '203.0.113.99' }));
    await waitFor(() => expect(stateOf('probe')).toBe('running'));
    expect(within(rowOf('probe')).getByText('203.0.113.99')).toBeTruthy();
    expect(await within(screen.getByRole('log')).findByText('probe: Running')).toBeTruthy();
    expect(callsTo(cloud, 'GET', /^\/instances/).length).toBe(before);
  });

  it('add what is new and take away what is gone', async () => {
    const { cloud } = openConsole('/instances');
    await screen.findByRole('link', { name: 'old-web' });
    await live();
    act(() => cloud.forget(idOf(cloud, 'old-web')));
    await waitFor(() => expect(screen.queryByRole('link', { name: 'old-web' })).toBeNull());
    const [pattern] = cloud.world.instances;
    if (pattern !== undefined) {
      cloud.world.instances.push({ ...pattern, id: 'i-00000000000000abc', name: 'brand-new' });
    }
    act(() => void cloud.change('i-00000000000000abc', {}));
    expect(await screen.findByRole('link', { name: 'brand-new' })).toBeTruthy();
  });

  it('do not bring back what is older than what is shown', async () => {
    const { cloud } = openConsole('/instances');
    await screen.findByRole('link', { name: 'probe' });
    await live();
    const id = idOf(cloud, 'probe');
    const stale = { ...cloud.world.instances.find((item) => item.id === id) };
    act(() => void cloud.change(id, { state: 'running' }));
    await waitFor(() => expect(stateOf('probe')).toBe('running'));
    for (const client of openSockets()) {
      client.send(JSON.stringify({ type: 'event', seq: 1, resource: 'instance', id, item: stale }));
    }
    act(() => void cloud.change(idOf(cloud, 'web-2'), { state: 'stopping' }));
    await waitFor(() => expect(stateOf('web-2')).toBe('stopping'));
    expect(stateOf('probe')).toBe('running');
  });

  /** Ends every socket and turns new ones away. */
  function cutSockets(cloud: MockCloud): void {
    cloud.refusesSockets = true;
    for (const client of openSockets()) {
      client.close();
    }
  }

  /** Changes an instance without an event. */
  function changeSilently(cloud: MockCloud, name: string, state: InstanceState): void {
    cloud.world.instances = cloud.world.instances.map((item) =>
      item.name === name ? { ...item, state, updated_at: new Date().toISOString() } : item,
    );
  }

  it('are replaced by polling while the socket is down', async () => {
    Object.assign(liveTiming, { firstRetry: 3_600_000, lastRetry: 3_600_000, poll: 100 });
    const { cloud } = openConsole('/instances');
    await screen.findByRole('link', { name: 'probe' });
    await live();
    cutSockets(cloud);
    expect(await screen.findByText('Polling')).toBeTruthy();
    changeSilently(cloud, 'probe', 'running');
    await waitFor(() => expect(stateOf('probe')).toBe('running'));
    expect(screen.getByText('Polling')).toBeTruthy();
  });

  it('catch up when the socket is back', async () => {
    Object.assign(liveTiming, { firstRetry: 300, poll: 3_600_000 });
    const { cloud } = openConsole('/instances');
    await screen.findByRole('link', { name: 'probe' });
    await live();
    cutSockets(cloud);
    expect(await screen.findByText('Polling')).toBeTruthy();
    changeSilently(cloud, 'probe', 'running');
    cloud.refusesSockets = false;
    await live();
    await waitFor(() => expect(stateOf('probe')).toBe('running'));
  });

  it('go on with a new token when the socket ends with the old one', async () => {
    const { cloud, store } = openConsole('/instances');
    await screen.findByRole('link', { name: 'probe' });
    await live();
    const before = store.getState().session.accessToken;
    cloud.expireAccessTokens();
    for (const client of openSockets()) {
      client.close(4401, 'the token has run out');
    }
    await waitFor(() => expect(store.getState().session.accessToken).not.toBe(before));
    await live();
    act(() => void cloud.change(idOf(cloud, 'probe'), { state: 'running' }));
    await waitFor(() => expect(stateOf('probe')).toBe('running'));
    expect(callsTo(cloud, 'POST', '/auth/refresh')).toHaveLength(1);
  });
});

describe('actions', () => {
  it('terminate asks first, with the name, and does nothing on cancel', async () => {
    const { cloud, user } = openConsole('/instances');
    await user.click(await screen.findByRole('button', { name: 'Actions for web-2' }));
    await user.click(await screen.findByRole('menuitem', { name: 'Terminate' }));
    const question = await screen.findByRole('dialog', { name: 'Terminate web-2?' });
    expect(question.textContent).toContain(idOf(cloud, 'web-2'));
    await user.click(within(question).getByRole('button', { name: 'Cancel' }));
    await waitFor(() => expect(screen.queryByRole('dialog', { name: 'Terminate web-2?' })).toBeNull());
    expect(callsTo(cloud, 'DELETE', /./)).toEqual([]);
    expect(stateOf('web-2')).toBe('running');
  });

  it('terminate deletes after the confirmation and shows the new state', async () => {
    const { cloud, user } = openConsole('/instances');
    await user.click(await screen.findByRole('button', { name: 'Actions for web-2' }));
    await user.click(await screen.findByRole('menuitem', { name: 'Terminate' }));
    const question = await screen.findByRole('dialog', { name: 'Terminate web-2?' });
    await user.click(within(question).getByRole('button', { name: 'Terminate' }));
    await waitFor(() => expect(stateOf('web-2')).toBe('shutting-down'));
    expect(callsTo(cloud, 'DELETE', `/instances/${idOf(cloud, 'web-2')}`)).toHaveLength(1);
  });

  it('offer only what the state allows', async () => {
    const { user, cloud } = openConsole('/instances');
    await user.click(await screen.findByRole('button', { name: 'Actions for batch-7' }));
    const enabled = (await screen.findAllByRole('menuitem'))
      .filter((item) => item.getAttribute('aria-disabled') !== 'true')
      .map((item) => item.textContent);
    expect(enabled).toEqual(['Details', 'Console output', 'Start', 'Terminate']);
    await user.click(screen.getByRole('menuitem', { name: 'Start' }));
    await waitFor(() => expect(stateOf('batch-7')).toBe('pending'));
    const [call] = callsTo(cloud, 'POST', /\/start$/);
    expect(call?.headers.get('idempotency-key')).toMatch(/^[0-9a-f-]{36}$/);
  });

  it('leave nothing but the end to an instance whose node is silent', async () => {
    const world = seededWorld();
    world.instances = world.instances.map((item) =>
      item.name === 'batch-7' ? { ...item, state: 'unknown', state_code: 255 } : item,
    );
    const { user } = openConsole('/instances', { world });
    await user.click(await screen.findByRole('button', { name: 'Actions for batch-7' }));
    expect(rowOf('batch-7').textContent).toContain('Unknown');
    const enabled = (await screen.findAllByRole('menuitem'))
      .filter((item) => item.getAttribute('aria-disabled') !== 'true')
      .map((item) => item.textContent);
    expect(enabled).toEqual(['Details', 'Console output', 'Terminate']);
  });

  it('show the refusal of the server', async () => {
    const { cloud, user } = openConsole('/instances');
    await screen.findByRole('link', { name: 'batch-7' });
    // The socket knows nothing of it: somebody else was faster.
    cloud.world.instances = cloud.world.instances.map((item) =>
      item.name === 'batch-7' ? { ...item, state: 'terminated' } : item,
    );
    await user.click(screen.getByRole('button', { name: 'Actions for batch-7' }));
    await user.click(await screen.findByRole('menuitem', { name: 'Start' }));
    const alert = await screen.findByText('IncorrectInstanceState');
    expect(alert.closest('[role=alert]')?.textContent).toContain('the instance is terminated, not stopped');
  });
});

describe('the details', () => {
  it('give the ssh command and follow the state', async () => {
    const { cloud, user } = openConsole('/instances');
    await user.click(await screen.findByRole('link', { name: 'web-1' }));
    const command = await screen.findByRole('region', { name: 'SSH command' });
    await waitFor(() => expect(command.textContent).toBe('ssh -i ops.pem admin@203.0.113.10'));
    act(() => void cloud.change(idOf(cloud, 'web-1'), { state: 'stopping' }));
    expect(await screen.findByText('The instance is not running.')).toBeTruthy();
  });

  it('say that an instance does not exist', async () => {
    openConsole('/instances/i-0000000000000dead');
    expect(await screen.findByText('This instance does not exist, or no longer does.')).toBeTruthy();
  });

  it('show the console output as plain text', async () => {
    const { cloud, router } = openConsole('/instances');
    await screen.findByRole('link', { name: 'web-1' });
    await act(() => router.navigate(`/instances/${idOf(cloud, 'web-1')}/console`));
    const output = await screen.findByRole('region', { name: 'Serial console text' });
    expect(output.textContent).toContain('[  OK  ] metadata: hostname web-1\n');
    expect(output.textContent).not.toContain('\u001b');
  });
});
