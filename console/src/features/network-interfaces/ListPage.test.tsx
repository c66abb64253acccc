import { screen, waitFor, within } from '@testing-library/react';
import { afterEach, describe, expect, it } from 'vitest';
import { callsTo, choose, confirmed, type Opened, openConsole, openForm } from '../../../test/console';
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

  it('are made in a subnet with addresses and groups, and deleted while they are loose', async () => {
    const { cloud, user, router } = openConsole('/network-interfaces');
    const form = await openForm(user, 'Create network interface');
    await choose(user, 'Subnet', 'data-a');
    await user.type(within(form).getByLabelText('Description'), 'Router');
    await user.type(within(form).getByLabelText('Private IP'), '10.0.2.40');
    await user.type(within(form).getByLabelText('Further private IPs'), '2');
    await choose(user, 'Security groups', 'web');
    await user.click(within(form).getByRole('switch', { name: 'Source/destination check' }));
    const create = within(form).getByRole('button', { name: 'Create' });
    await user.click(create);
    await waitFor(() => expect(within(form).getAllByText('the address is in use')).toHaveLength(2));
    await user.clear(within(form).getByLabelText('Private IP'));
    await user.type(within(form).getByLabelText('Private IP'), '10.0.2.60');
    await user.click(create);
    const addresses = await screen.findByLabelText('Addresses');
    expect(within(addresses).getAllByRole('row')).toHaveLength(4);
    const [made] = cloud.world.networkInterfaces;
    expect(callsTo(cloud, 'POST', '/network-interfaces').at(-1)?.body).toEqual({
      subnet_id: made?.subnet_id,
      description: 'Router',
      private_ip: '10.0.2.60',
      secondary_private_ip_count: 2,
      security_group_ids: [cloud.world.securityGroups.find(({ name }) => name === 'web')?.id],
      source_dest_check: false,
    });
    await user.click(screen.getByRole('button', { name: 'Delete' }));
    const question = await screen.findByRole('dialog', { name: 'Delete Router?' });
    await user.click(within(question).getByRole('button', { name: 'Delete' }));
    await waitFor(() => expect(router.state.location.pathname).toBe('/network-interfaces'));
    expect(cloud.world.networkInterfaces.includes(made as never)).toBe(false);
  });

  it('that are attached are not deleted, and end with their instance or not', async () => {
    const { cloud, user } = openConsole('/network-interfaces');
    const primary = cloud.world.networkInterfaces.find(({ is_primary }) => is_primary);
    await user.click(await screen.findByRole('link', { name: primary?.id }));
    await user.click(await screen.findByRole('switch', { name: 'Delete on termination' }));
    await waitFor(() =>
      expect(callsTo(cloud, 'PUT', `/network-interfaces/${primary?.id}`).map(({ body }) => body)).toEqual([
        { delete_on_termination: false },
      ]),
    );
    expect(screen.getByRole<HTMLButtonElement>('button', { name: 'Delete' }).disabled).toBe(true);
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
