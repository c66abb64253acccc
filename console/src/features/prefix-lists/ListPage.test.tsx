import { screen, waitFor, within } from '@testing-library/react';
import { describe, expect, it } from 'vitest';
import { callsTo, confirmed, type Opened, openConsole } from '../../../test/console';

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
