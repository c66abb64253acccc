import { screen, waitFor, within } from '@testing-library/react';
import { expect, it } from 'vitest';
import { callsTo, choose, confirmed, type Opened, openConsole, openForm } from '../../../test/console';

/** Opens the rules of the group "web". */
async function openRules(): Promise<Opened & { rules: HTMLElement; id: string }> {
  const opened = openConsole('/security-groups');
  const group = opened.cloud.world.securityGroups.find(({ name }) => name === 'web');
  await opened.user.click(await screen.findByRole('link', { name: 'web' }));
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

it('makes a group with a name that is free, says at the field why not, and leads to its rules', async () => {
  const { cloud, user, router } = openConsole('/security-groups?q=o');
  const form = await openForm(user, 'Create security group');
  const create = within(form).getByRole('button', { name: 'Create' });
  await user.click(create);
  expect(await within(form).findByText('Choose a VPC.')).toBeTruthy();
  await choose(user, 'VPC', 'production');
  const name = within(form).getByLabelText('Name');
  await user.type(name, 'web');
  await user.click(create);
  // At the field, and whole below the form.
  await waitFor(() => expect(within(form).getAllByText('the VPC has a group of that name')).toHaveLength(2));
  expect(within(form).getByText('InvalidGroup.Duplicate')).toBeTruthy();
  expect(name.getAttribute('aria-invalid')).toBe('true');
  expect(document.activeElement).toBe(name);
  await user.clear(name);
  await user.type(name, 'api');
  await user.type(within(form).getByLabelText('Description'), 'Inner services');
  await user.click(create);
  const rules = await screen.findByLabelText('Rules of api');
  expect(within(rules).getAllByRole('row')).toHaveLength(2);
  expect(await screen.findByText('Applied 2/2')).toBeTruthy();
  expect(router.state.location).toMatchObject({
    pathname: `/security-groups/${cloud.world.securityGroups.at(-1)?.id}`,
    search: '?q=o',
  });
  const posts = callsTo(cloud, 'POST', '/security-groups');
  const vpc_id = cloud.world.vpcs[0]?.id;
  expect(posts.map(({ body }) => body)).toEqual([
    { vpc_id, name: 'web' },
    { vpc_id, name: 'api', description: 'Inner services' },
  ]);
  expect(new Set(posts.map(({ headers }) => headers.get('idempotency-key'))).size).toBe(2);
});

it('shows the call that the form will make', async () => {
  const { user } = openConsole('/security-groups/create');
  const form = await screen.findByRole('form', { name: 'Create security group' });
  await user.type(within(form).getByLabelText('Name'), 'api');
  const drawer = screen.getByRole('dialog', { name: 'Create security group' });
  await user.click(within(drawer).getByRole('button', { name: 'API' }));
  const snippet = await screen.findByRole('region', { name: 'POST /security-groups' });
  expect(snippet.textContent).toContain('"name": "api"');
});

it('deletes a group by name, unless something has it; the default one never', async () => {
  const { cloud, user, router, id } = await openRules();
  await confirmed(user, screen.getByRole('button', { name: 'Delete' }), 'Delete');
  expect(await screen.findByText('DependencyViolation')).toBeTruthy();
  expect(screen.getByText(/eni-.*, eni-/)).toBeTruthy();
  for (const item of cloud.world.networkInterfaces) {
    item.security_group_ids = [];
  }
  await user.click(screen.getByRole('button', { name: 'Delete' }));
  const question = await screen.findByRole('dialog', { name: 'Delete web?' });
  expect(question.textContent).toContain(id);
  await user.click(within(question).getByRole('button', { name: 'Delete' }));
  await waitFor(() => expect(router.state.location.pathname).toBe('/security-groups'));
  await waitFor(() => expect(screen.queryByRole('link', { name: 'web' })).toBeNull());
  expect(callsTo(cloud, 'DELETE', `/security-groups/${id}`)).toHaveLength(2);
  // Nobody asks for what is gone.
  const after = cloud.calls.slice(cloud.calls.findLastIndex(({ method }) => method === 'DELETE'));
  expect(after.filter(({ path }) => path === `/security-groups/${id}`)).toHaveLength(1);
  await user.click((await screen.findAllByRole('link', { name: 'default' }))[0] as HTMLElement);
  await screen.findByLabelText('Rules of default');
  expect(screen.getByRole<HTMLButtonElement>('button', { name: 'Delete' }).disabled).toBe(true);
});

it('calls a group something else', async () => {
  const { cloud, user, id } = await openRules();
  const form = screen.getByRole('form', { name: 'What it is called' });
  await user.clear(within(form).getByLabelText('Name'));
  await user.type(within(form).getByLabelText('Name'), 'front');
  await user.click(within(form).getByRole('button', { name: 'Save' }));
  expect(await screen.findByLabelText('Rules of front')).toBeTruthy();
  expect(callsTo(cloud, 'PUT', `/security-groups/${id}`).map(({ body }) => body)).toEqual([
    { name: 'front', description: 'SSH and web' },
  ]);
});
