import { act, screen, waitFor, within } from '@testing-library/react';
import { describe, expect, it } from 'vitest';
import { callsTo, choose, confirmed, type Opened, openConsole, openForm } from '../../../test/console';

/** Opens the page of the table "public". */
async function openPublic(): Promise<Opened & { routes: HTMLElement; id: string; mainId: string }> {
  const opened = openConsole('/route-tables');
  const tables = opened.cloud.world.routeTables;
  await opened.user.click(await screen.findByRole('link', { name: 'public' }));
  return {
    ...opened,
    routes: await screen.findByLabelText('Routes of public'),
    id: tables.find(({ name }) => name === 'public')?.id ?? '',
    mainId: tables.find(({ is_main }) => is_main)?.id ?? '',
  };
}

describe('route tables', () => {
  it('show their routes, and those that lead nowhere', async () => {
    const { cloud, routes } = await openPublic();
    const texts = within(routes)
      .getAllByRole('row')
      .slice(1)
      .map((row) =>
        within(row)
          .getAllByRole('cell')
          .slice(0, 3)
          .map(({ textContent }) => textContent),
      );
    const { internetGateways, networkInterfaces } = cloud.world;
    expect(texts).toEqual([
      ['10.0.0.0/16', 'Local', 'Active'],
      ['0.0.0.0/0', internetGateways[0]?.id, 'Active'],
      ['192.168.7.0/24', networkInterfaces[0]?.id, 'Blackhole'],
    ]);
    expect(within(routes).queryByRole('button', { name: 'Remove 10.0.0.0/16' })).toBeNull();
    expect(await screen.findByText('Applied 2/2')).toBeTruthy();
  });

  it('get a route and lose one', async () => {
    const { cloud, user, routes, id } = await openPublic();
    const form = screen.getByRole('form', { name: 'Add a route' });
    const target = cloud.world.networkInterfaces[1]?.id;
    await user.type(within(form).getByLabelText('Destination'), '192.168.9.0/24');
    await choose(user, 'Target', target ?? '');
    await user.click(within(form).getByRole('button', { name: 'Add' }));
    expect(await within(routes).findByText('192.168.9.0/24')).toBeTruthy();
    expect(callsTo(cloud, 'POST', `/route-tables/${id}/routes`).map(({ body }) => body)).toEqual([
      { destination_cidr: '192.168.9.0/24', target_id: target },
    ]);
    await confirmed(user, within(routes).getByRole('button', { name: 'Remove 192.168.7.0/24' }), 'Remove');
    await waitFor(() => expect(within(routes).queryByText('192.168.7.0/24')).toBeNull());
    expect(
      callsTo(cloud, 'DELETE', `/route-tables/${id}/routes?destination_cidr=192.168.7.0%2F24`),
    ).toHaveLength(1);
  });

  it('let a route lead elsewhere', async () => {
    const { cloud, user, routes, id } = await openPublic();
    const target = cloud.world.networkInterfaces[1]?.id ?? '';
    await user.click(within(routes).getByRole('button', { name: 'Change 192.168.7.0/24' }));
    const form = await screen.findByRole('form', { name: 'Change 192.168.7.0/24' });
    const destination = within(form).getByLabelText<HTMLInputElement>('Destination');
    expect(destination.value).toBe('192.168.7.0/24');
    expect(destination.disabled).toBe(true);
    await choose(user, 'Target', target);
    await user.click(within(form).getByRole('button', { name: 'Save' }));
    expect(await within(routes).findByRole('link', { name: target })).toBeTruthy();
    expect(callsTo(cloud, 'PUT', `/route-tables/${id}/routes`).map(({ body }) => body)).toEqual([
      { destination_cidr: '192.168.7.0/24', target_id: target },
    ]);
    expect(await screen.findByRole('form', { name: 'Add a route' })).toBeTruthy();
  });

  it('lead to the blocks of a prefix list by its name', async () => {
    const { cloud, user, routes, id } = await openPublic();
    const offices = cloud.world.prefixLists[0]?.id ?? '';
    const target = cloud.world.internetGateways[0]?.id ?? '';
    const form = screen.getByRole('form', { name: 'Add a route' });
    await choose(user, 'Destination', 'offices');
    await choose(user, 'Target', target);
    await user.click(within(form).getByRole('button', { name: 'Add' }));
    expect((await within(routes).findByRole('link', { name: offices })).getAttribute('href')).toBe(
      `/prefix-lists/${offices}`,
    );
    expect(callsTo(cloud, 'POST', `/route-tables/${id}/routes`).map(({ body }) => body)).toEqual([
      { destination_prefix_list_id: offices, target_id: target },
    ]);
    await confirmed(user, within(routes).getByRole('button', { name: 'Remove offices' }), 'Remove');
    await waitFor(() => expect(within(routes).queryByRole('link', { name: offices })).toBeNull());
    expect(
      callsTo(cloud, 'DELETE', `/route-tables/${id}/routes?destination_prefix_list_id=${offices}`),
    ).toHaveLength(1);
  });

  it('say at the field what is wrong with a destination', async () => {
    const { user } = await openPublic();
    const form = screen.getByRole('form', { name: 'Add a route' });
    await user.type(within(form).getByLabelText('Destination'), 'nowhere');
    await choose(user, 'Target', 'igw-');
    await user.click(within(form).getByRole('button', { name: 'Add' }));
    expect(await within(form).findByText('is not an IPv4 block')).toBeTruthy();
    expect(screen.getByText('InvalidParameterValue')).toBeTruthy();
  });

  it('are made, take a subnet from another table, and are deleted when none follows them', async () => {
    const { cloud, user, router } = openConsole('/route-tables');
    const form = await openForm(user, 'Create route table');
    await choose(user, 'VPC', 'production');
    await user.type(within(form).getByLabelText('Name'), 'inner');
    await user.click(within(form).getByRole('button', { name: 'Create' }));
    const subnets = await screen.findByLabelText('Subnets of inner');
    const made = cloud.world.routeTables.at(-1)?.id;
    const other = cloud.world.routeTables.find(({ name }) => name === 'public');
    const association = other?.associations[0]?.id;
    await choose(user, 'Subnet', 'web-a');
    const associate = screen.getByRole('form', { name: 'Associate a subnet' });
    await user.click(within(associate).getByRole('button', { name: 'Add' }));
    expect(await within(subnets).findByText('web-a')).toBeTruthy();
    expect(
      callsTo(cloud, 'PUT', `/route-tables/${other?.id}/associations/${association}`).map(({ body }) => body),
    ).toEqual([{ route_table_id: made }]);
    const remove = () => screen.getByRole<HTMLButtonElement>('button', { name: 'Delete' });
    expect(remove().disabled).toBe(true);
    await confirmed(user, within(subnets).getByRole('button', { name: 'Remove web-a' }), 'Remove');
    await waitFor(() => expect(remove().disabled).toBe(false));
    await confirmed(user, remove(), 'Delete');
    await waitFor(() => expect(router.state.location.pathname).toBe('/route-tables'));
    expect(callsTo(cloud, 'DELETE', `/route-tables/${made}`)).toHaveLength(1);
  });

  it('are followed by subnets that have no other, and let them go', async () => {
    const { cloud, user, id } = await openPublic();
    const subnets = await screen.findByLabelText('Subnets of public');
    await choose(user, 'Subnet', 'data-a');
    const form = screen.getByRole('form', { name: 'Associate a subnet' });
    await user.click(within(form).getByRole('button', { name: 'Add' }));
    expect(await within(subnets).findByText('data-a')).toBeTruthy();
    await confirmed(user, within(subnets).getByRole('button', { name: 'Remove web-a' }), 'Remove');
    await waitFor(() => expect(within(subnets).queryByText('web-a')).toBeNull());
    expect(callsTo(cloud, 'DELETE', new RegExp(`^/route-tables/${id}/associations/`))).toHaveLength(1);
  });

  it('become the main one in the place of the one that is', async () => {
    const { cloud, user, id, mainId } = await openPublic();
    const association = cloud.world.routeTables.find((table) => table.id === mainId)?.main_association_id;
    await confirmed(
      user,
      screen.getByRole('button', { name: 'Set as main route table' }),
      'Set as main route table',
    );
    expect(await screen.findByText('Subnets without a table of their own follow it.')).toBeTruthy();
    const puts = callsTo(cloud, 'PUT', `/route-tables/${mainId}/associations/${association}`);
    expect(puts.map(({ body }) => body)).toEqual([{ route_table_id: id }]);
  });

  it('are read again when somebody else changes one', async () => {
    const { cloud } = openConsole('/route-tables');
    await screen.findByRole('link', { name: 'public' });
    await screen.findByText('Live');
    const table = cloud.world.routeTables[1];
    if (table !== undefined) {
      table.name = 'renamed';
      act(() => cloud.tell('route_table', table.id));
    }
    expect(await screen.findByRole('link', { name: 'renamed' })).toBeTruthy();
  });
});
