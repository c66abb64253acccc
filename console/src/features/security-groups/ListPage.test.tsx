import { screen, waitFor, within } from '@testing-library/react';
import { expect, it } from 'vitest';
import { callsTo, choose, confirmed, findRow, type Opened, openConsole } from '../../../test/console';

/** Opens the rules of the group "web". */
async function openRules(): Promise<Opened & { rules: HTMLElement; id: string }> {
  const opened = openConsole('/security-groups');
  const group = opened.cloud.world.securityGroups.find(({ name }) => name === 'web');
  await opened.user.click(
    within(await findRow(group?.description ?? '')).getByRole('button', { name: /expand row/i }),
  );
  return { ...opened, rules: await screen.findByLabelText('Rules of web'), id: group?.id ?? '' };
}

it('shows the rules of a group and on how many nodes they are in force', async () => {
  const { rules } = await openRules();
  const texts = within(rules)
    .getAllByRole('row')
    .map((row) => within(row).queryAllByRole('cell').slice(0, 4))
    .map((cells) => cells.map(({ textContent }) => textContent).join(' '));
  expect(texts).toContain('Inbound TCP 80-443 0.0.0.0/0');
  expect(texts).toContain('Inbound ICMP All 0.0.0.0/0');
  expect(texts).toContain('Outbound All All 0.0.0.0/0');
  expect(await screen.findByText('Applied 2/2')).toBeTruthy();
});

it('adds a rule once, and shows it', async () => {
  const { cloud, user, rules, id } = await openRules();
  const form = screen.getByRole('form', { name: 'Add a rule' });
  await user.type(within(form).getByLabelText('Ports'), '5432');
  await user.type(within(form).getByLabelText('Source'), '10.0.2.0/24');
  await user.click(within(form).getByRole('button', { name: 'Add' }));
  expect(await within(rules).findByText('10.0.2.0/24')).toBeTruthy();
  const posts = callsTo(cloud, 'POST', `/security-groups/${id}/rules`);
  expect(posts.map(({ body }) => body)).toEqual([
    { direction: 'inbound', protocol: 'tcp', port_range: '5432', source_destination: '10.0.2.0/24' },
  ]);
  expect(posts[0]?.headers.get('idempotency-key')).toMatch(/^[0-9a-f-]{36}$/);
  // Ready for the next one.
  await waitFor(() => expect(within(form).getByLabelText<HTMLInputElement>('Ports').value).toBe(''));
});

it('asks for type and code where there are no ports, and sends nothing that is incomplete', async () => {
  const { cloud, user } = await openRules();
  const form = screen.getByRole('form', { name: 'Add a rule' });
  await user.click(within(form).getByRole('button', { name: 'Add' }));
  expect(await within(form).findByText('Say which ports.')).toBeTruthy();
  await choose(user, 'Protocol', 'ICMP');
  await user.type(await within(form).findByLabelText('Type/code'), '8/0');
  await user.type(within(form).getByLabelText('Source'), 'not a block');
  expect(callsTo(cloud, 'POST', /rules$/)).toEqual([]);
  await user.click(within(form).getByRole('button', { name: 'Add' }));
  // The server has the last word.
  const refusal = (await screen.findByText('InvalidParameterValue')).closest('[role=alert]');
  expect(refusal?.textContent).toContain('source_destination');
  expect(callsTo(cloud, 'POST', /rules$/)[0]?.body).toMatchObject({ icmp_type: 8, icmp_code: 0 });
});

it('removes a rule after a question', async () => {
  const { cloud, user, rules, id } = await openRules();
  const rule = cloud.world.securityGroups.find((group) => group.id === id)?.rules[1];
  await confirmed(
    user,
    within(rules).getByRole('button', { name: 'Remove Inbound TCP 80-443 0.0.0.0/0' }),
    'Remove',
  );
  await waitFor(() => expect(within(rules).queryByText('80-443')).toBeNull());
  expect(callsTo(cloud, 'DELETE', `/security-groups/${id}/rules/${rule?.id}`)).toHaveLength(1);
});

it('names groups and prefix lists, and lets them be chosen by name', async () => {
  const { cloud, user, rules, id } = await openRules();
  const [offices] = cloud.world.prefixLists;
  expect((await within(rules).findByRole('link', { name: offices?.id })).getAttribute('href')).toBe(
    `/prefix-lists/${offices?.id}`,
  );
  expect(await within(rules).findByRole('button', { name: 'Remove Inbound TCP 9100 offices' })).toBeTruthy();
  const form = screen.getByRole('form', { name: 'Add a rule' });
  await user.type(within(form).getByLabelText('Ports'), '8080');
  await choose(user, 'Source', 'offices');
  await user.type(within(form).getByLabelText('Description'), 'Proxy');
  // Where packets go to has another name.
  await choose(user, 'Direction', 'Outbound');
  expect(await within(form).findByLabelText('Destination')).toBeTruthy();
  await choose(user, 'Direction', 'Inbound');
  await user.click(within(form).getByRole('button', { name: 'Add' }));
  expect(await within(rules).findByText('Proxy')).toBeTruthy();
  expect(callsTo(cloud, 'POST', `/security-groups/${id}/rules`).map(({ body }) => body)).toEqual([
    {
      direction: 'inbound',
      protocol: 'tcp',
      port_range: '8080',
      source_destination: offices?.id,
      description: 'Proxy',
    },
  ]);
});
