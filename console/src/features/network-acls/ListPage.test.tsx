import { screen, waitFor, within } from '@testing-library/react';
import { expect, it } from 'vitest';
import { callsTo, choose, confirmed, findRow, openConsole } from '../../../test/console';

it('shows entries in their order, and lets all but the last be removed and others be added', async () => {
  const { cloud, user } = openConsole('/network-acls');
  const id = cloud.world.networkAcls.find(({ name }) => name === 'data only')?.id;
  await user.click(within(await findRow('data only')).getByRole('button', { name: /expand row/i }));
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
  await user.click(within(await findRow('data only')).getByRole('button', { name: /expand row/i }));
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
