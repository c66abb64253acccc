import { screen, waitFor, within } from '@testing-library/react';
import { expect, it } from 'vitest';
import { callsTo, choose, confirmed, openConsole, openForm } from '../../../test/console';

it('shows entries in their order, and lets all but the last be removed and others be added', async () => {
  const { cloud, user } = openConsole('/network-acls');
  const id = cloud.world.networkAcls.find(({ name }) => name === 'data only')?.id;
  await user.click(await screen.findByRole('link', { name: 'data only' }));
  const entries = await screen.findByLabelText('Entries of data only');
  const texts = () =>
    within(entries)
      .getAllByRole('row')
      .slice(1)
      .map((row) =>
        within(row)
          .getAllByRole('cell')
          .map(({ textContent }) => textContent)
          .join(' ')
          .trim(),
      );
  expect(texts()).toEqual([
    'Inbound 100 Allow TCP 5432 10.0.1.0/24',
    'Inbound * Deny All All 0.0.0.0/0',
    'Outbound 100 Allow TCP 1024-65535 10.0.1.0/24',
    'Outbound * Deny All All 0.0.0.0/0',
  ]);
  expect(within(entries).getAllByRole('button', { name: /^Remove / })).toHaveLength(2);

  const form = screen.getByRole('form', { name: 'Add an entry' });
  await user.type(within(form).getByLabelText('Rule number'), '90');
  await choose(user, 'Action', 'Deny');
  await choose(user, 'Protocol', 'All');
  await user.type(within(form).getByLabelText('Source'), '10.0.1.7/32');
  await user.click(within(form).getByRole('button', { name: 'Add' }));
  await waitFor(() => expect(texts()[0]).toBe('Inbound 90 Deny All All 10.0.1.7/32'));
  expect(callsTo(cloud, 'POST', `/network-acls/${id}/entries`).map(({ body }) => body)).toEqual([
    { direction: 'inbound', protocol: 'all', rule_number: 90, action: 'deny', cidr_block: '10.0.1.7/32' },
  ]);

  await confirmed(
    user,
    within(entries).getByRole('button', { name: 'Remove 90 Inbound All All 10.0.1.7/32' }),
    'Remove',
  );
  await waitFor(() => expect(texts()).toHaveLength(4));
  expect(
    callsTo(cloud, 'DELETE', `/network-acls/${id}/entries?direction=inbound&rule_number=90`),
  ).toHaveLength(1);
});

it('give a subnet another ACL in the place of the one it has', async () => {
  const { cloud, user } = openConsole('/network-acls');
  const id = cloud.world.networkAcls.find(({ name }) => name === 'data only')?.id;
  const web = cloud.world.subnets.find(({ name }) => name === 'web-a');
  await user.click(await screen.findByRole('link', { name: 'data only' }));
  const subnets = await screen.findByLabelText('Subnets of data only');
  // There is always one: it cannot be taken away.
  expect(within(subnets).queryByRole('button', { name: /^Remove / })).toBeNull();
  await choose(user, 'Associate a subnet', 'web-a');
  const form = screen.getByRole('form', { name: 'Associate a subnet' });
  await user.click(within(form).getByRole('button', { name: 'Add' }));
  expect(await within(subnets).findByText(web?.id ?? '')).toBeTruthy();
  expect(callsTo(cloud, 'POST', `/network-acls/${id}/associations`).map(({ body }) => body)).toEqual([
    { subnet_id: web?.id },
  ]);
});

it('puts an entry in the place of another', async () => {
  const { cloud, user } = openConsole('/network-acls');
  const id = cloud.world.networkAcls.find(({ name }) => name === 'data only')?.id;
  await user.click(await screen.findByRole('link', { name: 'data only' }));
  const entries = await screen.findByLabelText('Entries of data only');
  await user.click(within(entries).getByRole('button', { name: /^Change 100 Inbound/ }));
  const form = await screen.findByRole('form', { name: /^Change 100 Inbound/ });
  expect(within(form).getByLabelText<HTMLInputElement>('Rule number').disabled).toBe(true);
  await user.clear(within(form).getByLabelText('Ports'));
  await user.type(within(form).getByLabelText('Ports'), '5433');
  await user.click(within(form).getByRole('button', { name: 'Save' }));
  expect(await within(entries).findByText('5433')).toBeTruthy();
  expect(callsTo(cloud, 'PUT', `/network-acls/${id}/entries`).map(({ body }) => body)).toEqual([
    {
      direction: 'inbound',
      protocol: 'tcp',
      port_range: '5433',
      rule_number: 100,
      action: 'allow',
      cidr_block: '10.0.1.0/24',
    },
  ]);
  // The form is for another one again.
  expect(await screen.findByRole('form', { name: 'Add an entry' })).toBeTruthy();
});

it('are made for a VPC, and deleted while no subnet has them', async () => {
  const { cloud, user, router } = openConsole('/network-acls');
  const form = await openForm(user, 'Create network ACL');
  await choose(user, 'VPC', 'production');
  await user.click(within(form).getByRole('button', { name: 'Create' }));
  const made = await waitFor(() => {
    const last = cloud.world.networkAcls.at(-1);
    expect(router.state.location.pathname).toBe(`/network-acls/${last?.id}`);
    return last;
  });
  expect(callsTo(cloud, 'POST', '/network-acls').map(({ body }) => body)).toEqual([{ vpc_id: made?.vpc_id }]);
  expect(await screen.findByText('No subnet has this ACL.')).toBeTruthy();
  await confirmed(user, screen.getByRole('button', { name: 'Delete' }), 'Delete');
  await waitFor(() => expect(router.state.location.pathname).toBe('/network-acls'));
  expect(cloud.world.networkAcls.some(({ id }) => id === made?.id)).toBe(false);
});
