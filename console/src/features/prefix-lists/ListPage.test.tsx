import { screen, waitFor, within } from '@testing-library/react';
import { describe, expect, it } from 'vitest';
import { callsTo, confirmed, type Opened, openConsole, openForm } from '../../../test/console';

/** Opens the page of the list "offices", which is at version 3. */
async function openOffices(): Promise<Opened & { entries: HTMLElement; id: string }> {
  const opened = openConsole('/prefix-lists');
  await opened.user.click(await screen.findByRole('link', { name: 'offices' }));
  return {
    ...opened,
    entries: await screen.findByLabelText('Entries of offices'),
    id: opened.cloud.world.prefixLists[0]?.id ?? '',
  };
}

describe('prefix lists', () => {
  it('get entries and lose them, each change made to the version that is shown', async () => {
    const { cloud, user, entries, id } = await openOffices();
    expect(screen.getAllByText('2 of 5').length).toBeGreaterThan(0);
    const form = screen.getByRole('form', { name: 'Add an entry' });
    await user.type(within(form).getByLabelText('CIDR block'), '192.0.2.0/24');
    await user.type(within(form).getByLabelText('Description'), 'Branch');
    await user.click(within(form).getByRole('button', { name: 'Add' }));
    expect(await within(entries).findByText('192.0.2.0/24')).toBeTruthy();
    await confirmed(user, within(entries).getByRole('button', { name: 'Remove 198.51.100.0/24' }), 'Remove');
    await waitFor(() => expect(within(entries).queryByText('198.51.100.0/24')).toBeNull());
    expect(callsTo(cloud, 'PUT', `/prefix-lists/${id}`).map(({ body }) => body)).toEqual([
      { add_entries: [{ cidr: '192.0.2.0/24', description: 'Branch' }], current_version: 3 },
      { remove_entries: ['198.51.100.0/24'], current_version: 4 },
    ]);
    expect(await screen.findByText('Applied 2/2')).toBeTruthy();
  });

  it('are made with their entries, a line each, grow, and are deleted', async () => {
    const { cloud, user, router } = openConsole('/prefix-lists');
    const form = await openForm(user, 'Create prefix list');
    await user.type(within(form).getByLabelText('Name'), 'partners');
    await user.type(within(form).getByLabelText('Entries'), '192.0.2.0/24  Head office{Enter}nonsense');
    await user.click(within(form).getByRole('button', { name: 'Create' }));
    await waitFor(() => expect(within(form).getAllByText('is not an IPv4 block')).toHaveLength(2));
    await user.clear(within(form).getByLabelText('Entries'));
    await user.type(
      within(form).getByLabelText('Entries'),
      '192.0.2.0/24  Head office{Enter}198.51.100.0/24',
    );
    await user.click(within(form).getByRole('button', { name: 'Create' }));
    const entries = await screen.findByLabelText('Entries of partners');
    expect(within(entries).getByText('Head office')).toBeTruthy();
    const id = cloud.world.prefixLists.at(-1)?.id;
    expect(callsTo(cloud, 'POST', '/prefix-lists').at(-1)?.body).toEqual({
      name: 'partners',
      max_entries: 10,
      entries: [{ cidr: '192.0.2.0/24', description: 'Head office' }, { cidr: '198.51.100.0/24' }],
    });
    const size = screen.getByRole('form', { name: 'Size' });
    await user.clear(within(size).getByLabelText('Most entries'));
    await user.type(within(size).getByLabelText('Most entries'), '20');
    await user.click(within(size).getByRole('button', { name: 'Save' }));
    await waitFor(() =>
      expect(callsTo(cloud, 'PUT', `/prefix-lists/${id}`).map(({ body }) => body)).toEqual([
        { max_entries: 20 },
      ]),
    );
    await confirmed(user, screen.getByRole('button', { name: 'Delete' }), 'Delete');
    await waitFor(() => expect(router.state.location.pathname).toBe('/prefix-lists'));
    expect(cloud.world.prefixLists).toHaveLength(1);
  });

  it('that rules name are not deleted, and say which those are', async () => {
    const { cloud, user } = await openOffices();
    await confirmed(user, screen.getByRole('button', { name: 'Delete' }), 'Delete');
    const alert = (await screen.findByText('DependencyViolation')).closest('[role=alert]');
    expect(alert?.textContent).toContain(cloud.world.securityGroups.find(({ name }) => name === 'web')?.id);
    expect(screen.getByLabelText('Entries of offices')).toBeTruthy();
  });

  it('are not changed by somebody who has not seen the last change', async () => {
    const { cloud, user, entries } = await openOffices();
    const [list] = cloud.world.prefixLists;
    if (list !== undefined) {
      list.version = 9;
    }
    await confirmed(user, within(entries).getByRole('button', { name: 'Remove 198.51.100.0/24' }), 'Remove');
    expect(await screen.findByText('PrefixListVersionMismatch')).toBeTruthy();
    expect(list?.entries).toHaveLength(2);
  });
});
