import { act, screen, waitFor, within } from '@testing-library/react';
import { describe, expect, it } from 'vitest';
import { callsTo, choose, confirmed, type Opened, openConsole } from '../../../test/console';

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
