import { act, screen, waitFor, within } from '@testing-library/react';
import type { UserEvent } from '@testing-library/user-event';
import { HttpResponse, http } from 'msw';
import { afterEach, describe, expect, it } from 'vitest';
import { seededWorld } from '../../../mock/seed';
import { callsTo, choose, openConsole } from '../../../test/console';
import { server } from '../../../test/setup';
import { liveTiming } from '../../api/events';
import { followWindow } from '../../store';

const realTiming = { ...liveTiming };
afterEach(() => {
  Object.assign(liveTiming, realTiming);
});

async function fill(user: UserEvent, name: string): Promise<void> {
  await user.type(await screen.findByLabelText('Name'), name);
  await choose(user, 'Image', 'gon-linux');
  await choose(user, 'Instance type', 'g1.pico');
  await choose(user, 'Subnet', 'web-a');
}

const submit = (user: UserEvent) => user.click(screen.getByRole('button', { name: 'Launch' }));

describe('the launch form', () => {
  it('posts exactly what was chosen, once, with a key', async () => {
    const { cloud, user, router } = openConsole('/instances/launch');
    await fill(user, 'api-1');
    await choose(user, 'Security groups', 'web');
    await choose(user, 'Key pair', 'ops');
    await user.type(screen.getByLabelText('User data'), '#!/bin/sh');
    await submit(user);
    await waitFor(() => expect(router.state.location.pathname).toBe('/instances'));
    const { images, subnets, securityGroups } = cloud.world;
    const posts = callsTo(cloud, 'POST', '/instances');
    expect(posts).toHaveLength(1);
    expect(posts[0]?.body).toEqual({
      name: 'api-1',
      image_id: images.find(({ name }) => name === 'gon-linux')?.id,
      instance_type: 'g1.pico',
      subnet_id: subnets.find(({ name }) => name === 'web-a')?.id,
      security_group_ids: [securityGroups.find(({ name }) => name === 'web')?.id],
      key_name: 'ops',
      associate_public_ip: true,
      user_data: btoa('#!/bin/sh'),
    });
    expect(posts[0]?.headers.get('idempotency-key')).toMatch(/^[0-9a-f-]{36}$/);
    const row = (await screen.findByRole('link', { name: 'api-1' })).closest('tr');
    expect(row?.querySelector<HTMLElement>('.state-tag')?.dataset.state).toBe('pending');
  });

  it('leaves out what was not chosen', async () => {
    const { cloud, user } = openConsole('/instances/launch');
    await fill(user, 'plain');
    await user.click(screen.getByRole('switch', { name: 'Public IP address' }));
    await submit(user);
    await waitFor(() => expect(callsTo(cloud, 'POST', '/instances')).toHaveLength(1));
    const body = callsTo(cloud, 'POST', '/instances')[0]?.body as Record<string, unknown>;
    expect(Object.keys(body).sort()).toEqual([
      'associate_public_ip',
      'image_id',
      'instance_type',
      'name',
      'subnet_id',
    ]);
    expect(body.associate_public_ip).toBe(false);
  });

  it('takes the public address from the subnet until somebody says otherwise', async () => {
    const { user } = openConsole('/instances/launch');
    await fill(user, 'addressed');
    const toggle = screen.getByRole('switch', { name: 'Public IP address' });
    expect(toggle.getAttribute('aria-checked')).toBe('true');
    await choose(user, 'Subnet', 'data-a');
    await waitFor(() => expect(toggle.getAttribute('aria-checked')).toBe('false'));
    await user.click(toggle);
    await choose(user, 'Subnet', 'web-a');
    await user.click(toggle);
    await choose(user, 'Subnet', 'bench');
    await screen.findAllByText('172.20.1.0/24 · gon-1b');
    expect(toggle.getAttribute('aria-checked')).toBe('false');
  });

  it('offers an image that is there only after the form', async () => {
    const world = seededWorld();
    const images = world.images.splice(0);
    Object.assign(liveTiming, { noChoice: 50 });
    const { cloud, store, user } = openConsole('/instances/launch', { world });
    expect(await screen.findByText(/There is no image to launch from/)).toBeTruthy();
    cloud.world.images.push(...images);
    await waitFor(() => expect(screen.queryByText(/There is no image to launch from/)).toBeNull());
    await choose(user, 'Image', 'gon-linux');
    // A further one is seen by whoever comes back to the window.
    const stop = followWindow(store);
    const [pattern] = images;
    if (pattern !== undefined) {
      cloud.world.images.push({ ...pattern, id: 'ami-00000000000000abc', name: 'brand-new' });
    }
    // Who comes back while the list is being read sees the next one.
    const reads = () => callsTo(cloud, 'GET', /^\/images/).length;
    const before = reads();
    await waitFor(() => {
      act(() => void window.dispatchEvent(new Event('focus')));
      expect(reads()).toBeGreaterThan(before);
    });
    await choose(user, 'Image', 'brand-new');
    stop();
  });

  it('offers no type that is too small for the image', async () => {
    const { user } = openConsole('/instances/launch');
    await fill(user, 'roomy');
    const box = screen.getByRole('combobox', { name: 'Instance type' });
    const shown = () => box.closest('.ant-select')?.textContent;
    expect(shown()).toContain('g1.pico');
    await choose(user, 'Image', 'debian-12');
    await waitFor(() => expect(shown()).not.toContain('g1.pico'));
    await user.click(box);
    const disabled = await waitFor(() => {
      const found = document.querySelectorAll('.ant-select-item-option-disabled');
      expect(found.length).toBeGreaterThan(0);
      return [...found].map((option) => option.textContent);
    });
    expect(disabled).toEqual(['g1.picoNeeds at least 512 MiB']);
  });

  it('asks only for the groups of the chosen VPC, and forgets them with another one', async () => {
    const { cloud, user } = openConsole('/instances/launch');
    await fill(user, 'moving');
    await choose(user, 'Security groups', 'web');
    const [prod, lab] = cloud.world.vpcs;
    expect(
      callsTo(cloud, 'GET', /^\/security-groups/).every(({ path }) => path.includes(`${prod?.id}`)),
    ).toBe(true);
    await choose(user, 'Subnet', 'bench');
    await waitFor(() =>
      expect(
        callsTo(cloud, 'GET', /^\/security-groups/).some(({ path }) => path.includes(`${lab?.id}`)),
      ).toBe(true),
    );
    await submit(user);
    await waitFor(() => expect(callsTo(cloud, 'POST', '/instances')).toHaveLength(1));
    expect(callsTo(cloud, 'POST', '/instances')[0]?.body).not.toHaveProperty('security_group_ids');
  });

  it('shows the refusal at the field it is about, and keeps everything else', async () => {
    const { cloud, user, router } = openConsole('/instances/launch');
    await fill(user, 'web-1');
    await submit(user);
    const input = screen.getByLabelText('Name');
    const item = () => input.closest<HTMLElement>('.ant-form-item');
    await waitFor(() => expect(item()?.textContent).toContain('the name is taken'));
    expect(input.getAttribute('aria-invalid')).toBe('true');
    const others = [...document.querySelectorAll('.ant-form-item-explain-error')];
    expect(others.map((error) => error.textContent)).toEqual(['the name is taken']);
    const alert = screen
      .getAllByRole('alert')
      .find((element) => element.textContent?.includes('InvalidParameterValue'));
    expect(alert?.textContent).toMatch(/Request ID\s*req-/);
    expect(router.state.location.pathname).toBe('/instances/launch');
    expect(callsTo(cloud, 'POST', '/instances')).toHaveLength(1);

    await user.clear(input);
    await user.type(input, 'web-3');
    await submit(user);
    await waitFor(() => expect(router.state.location.pathname).toBe('/instances'));
    const keys = callsTo(cloud, 'POST', '/instances').map(({ headers }) => headers.get('idempotency-key'));
    expect(new Set(keys).size).toBe(2);
  });

  it('uses the same key when the same launch is sent again after a lost answer', async () => {
    const { cloud, user, router } = openConsole('/instances/launch');
    await fill(user, 'twice');
    const seen: (string | null)[] = [];
    server.use(
      http.post(
        '*/api/v1/instances',
        async ({ request }) => {
          seen.push(request.headers.get('idempotency-key'));
          await cloud.handle(request);
          return HttpResponse.error();
        },
        { once: true },
      ),
    );
    await submit(user);
    expect(await screen.findByText('The server cannot be reached.')).toBeTruthy();
    await submit(user);
    await waitFor(() => expect(router.state.location.pathname).toBe('/instances'));
    const posts = callsTo(cloud, 'POST', '/instances');
    expect(posts).toHaveLength(2);
    expect(posts[1]?.headers.get('idempotency-key')).toBe(seen[0]);
    expect(cloud.world.instances.filter(({ name }) => name === 'twice')).toHaveLength(1);
  });

  it('sends nothing while something is missing or too long', async () => {
    const { cloud, user } = openConsole('/instances/launch');
    await user.type(await screen.findByLabelText('Name'), ' x');
    await submit(user);
    expect(await screen.findByText('A name does not begin or end with a space.')).toBeTruthy();
    expect(screen.getByText('Choose an image.')).toBeTruthy();
    expect(screen.getByText('Choose an instance type.')).toBeTruthy();
    expect(screen.getByText('Choose a subnet.')).toBeTruthy();
    expect(callsTo(cloud, 'POST', '/instances')).toEqual([]);
  });

  it('shows the call it will make', async () => {
    const { user } = openConsole('/instances/launch');
    await user.type(await screen.findByLabelText('Name'), "o'brien");
    await user.click(screen.getByRole('button', { name: 'API' }));
    const snippet = await screen.findByRole('region', { name: 'POST /instances' });
    expect(within(snippet).getByText(/curl -sS -X POST/).textContent).toContain(`"name": "o'\\''brien"`);
  });
});
