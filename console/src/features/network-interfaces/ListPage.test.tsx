import { screen, waitFor, within } from '@testing-library/react';
import { afterEach, describe, expect, it } from 'vitest';
import { callsTo, choose, confirmed, type Opened, openConsole } from '../../../test/console';
import { liveTiming } from '../../api/events';

const realTiming = { ...liveTiming };
afterEach(() => {
  Object.assign(liveTiming, realTiming);
});

/** Opens the page of the interface that is attached to nothing. */
async function openLoose(prepare: (opened: Opened) => void = () => {}) {
  const opened = openConsole('/network-interfaces');
  prepare(opened);
  const { cloud, user } = opened;
  const [item] = cloud.world.networkInterfaces;
  const id = item?.id ?? '';
  await user.click(await screen.findByRole('link', { name: id }));
  return { ...opened, id, addresses: await screen.findByLabelText('Addresses') };
}

describe('network interfaces', () => {
  it('are listed with their instances and found by address', async () => {
    const { cloud, user } = openConsole('/network-interfaces');
    const { networkInterfaces, instances } = cloud.world;
    await screen.findByRole('link', { name: networkInterfaces[0]?.id });
    expect(screen.getAllByRole('row')).toHaveLength(networkInterfaces.length + 1);
    await user.type(screen.getByLabelText('Search network interfaces'), '10.0.1.11');
    await waitFor(() => expect(screen.getAllByRole('row')).toHaveLength(2));
    const web2 = instances.find(({ name }) => name === 'web-2');
    expect(screen.getByRole('link', { name: web2?.id })).toBeTruthy();
  });

  it('are attached to a stopped instance of their zone in the first free slot, and detached', async () => {
    const { cloud, user, id } = await openLoose();
    const stopped = cloud.world.instances.find(({ state }) => state === 'stopped');
    await choose(user, 'Instance', 'batch-7');
    await user.click(screen.getByRole('button', { name: 'Attach' }));
    const detach = await screen.findByRole('button', { name: 'Detach' });
    expect(callsTo(cloud, 'POST', `/network-interfaces/${id}/attach`).map(({ body }) => body)).toEqual([
      { instance_id: stopped?.id, device_index: 1 },
    ]);
    await confirmed(user, detach, 'Detach');
    expect(await screen.findByRole('button', { name: 'Attach' })).toBeTruthy();
    expect(callsTo(cloud, 'POST', `/network-interfaces/${id}/detach`)).toHaveLength(1);
  });

  it('stay where they are when they are primary', async () => {
    const { cloud, user } = openConsole('/network-interfaces');
    const primary = cloud.world.networkInterfaces.find(({ is_primary }) => is_primary);
    await user.click(await screen.findByRole('link', { name: primary?.id }));
    expect(await screen.findByText('The primary interface stays with its instance.')).toBeTruthy();
    expect(screen.queryByRole('button', { name: 'Detach' })).toBeNull();
  });

  it('get addresses, named or not, and lose all but the first', async () => {
    const { cloud, user, id, addresses } = await openLoose();
    const form = screen.getByRole('form', { name: 'Add an address' });
    await user.click(within(form).getByRole('button', { name: 'Add' }));
    expect(await within(addresses).findByText('10.0.2.101')).toBeTruthy();
    await user.type(within(form).getByLabelText('Address'), '10.0.2.77');
    await user.click(within(form).getByRole('button', { name: 'Add' }));
    expect(await within(addresses).findByText('10.0.2.77')).toBeTruthy();
    expect(callsTo(cloud, 'POST', `/network-interfaces/${id}/private-ips`).map(({ body }) => body)).toEqual([
      { count: 1 },
      { private_ips: ['10.0.2.77'] },
    ]);
    expect(within(addresses).queryByRole('button', { name: 'Remove 10.0.2.40' })).toBeNull();
    await confirmed(user, within(addresses).getByRole('button', { name: 'Remove 10.0.2.41' }), 'Remove');
    await waitFor(() => expect(within(addresses).queryByText('10.0.2.41')).toBeNull());
  });

  it('get other groups', async () => {
    const { cloud, user, id } = await openLoose();
    await choose(user, 'Change groups', 'web');
    await user.click(screen.getByRole('button', { name: 'Save groups' }));
    const [usual, web] = cloud.world.securityGroups;
    await waitFor(() =>
      expect(callsTo(cloud, 'PUT', `/network-interfaces/${id}`).map(({ body }) => body)).toEqual([
        { security_group_ids: [usual?.id, web?.id] },
      ]),
    );
  });

  it('say how far their last change has come, and follow it', async () => {
    Object.assign(liveTiming, { settle: 50 });
    const { cloud } = await openLoose(({ cloud }) => {
      cloud.network.applied = { generation: 12, nodes: 3, acked: 1 };
    });
    expect(await screen.findByText('Applied 1/3')).toBeTruthy();
    cloud.network.applied = { generation: 12, nodes: 3, acked: 3 };
    expect(await screen.findByText('Applied 3/3')).toBeTruthy();
  });

  it('that do not exist are said not to', async () => {
    openConsole('/network-interfaces/eni-0000000000000dead');
    expect(await screen.findByText('This network interface does not exist, or no longer does.')).toBeTruthy();
  });
});
