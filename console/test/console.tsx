/** Opens the whole console in jsdom, in front of a cloud of the test's own. */
import { render, screen, waitFor, within } from '@testing-library/react';
import userEvent, { type UserEvent } from '@testing-library/user-event';
import { expect } from 'vitest';
import { MockCloud, type MockOptions } from '../mock/cloud';
import { handlersFor } from '../mock/handlers';
import { App } from '../src/App';
import { acceptTokens } from '../src/api/session';
import { makeMemoryRouter } from '../src/routes';
import { type AppStore, makeStore } from '../src/store';
import { server } from './setup';

export interface Opened {
  cloud: MockCloud;
  store: AppStore;
  user: UserEvent;
  router: ReturnType<typeof makeMemoryRouter>;
}

export function openConsole(
  path: string,
  { loggedIn = true, ...options }: MockOptions & { loggedIn?: boolean } = {},
): Opened {
  const cloud = new MockCloud({ step: null, ...options });
  server.use(...handlersFor(cloud));
  const store = makeStore();
  if (loggedIn) {
    store.dispatch(acceptTokens(cloud.grant()));
  }
  const router = makeMemoryRouter(path);
  render(<App store={store} router={router} />);
  return { cloud, store, user: userEvent.setup({ delay: null, pointerEventsCheck: 0 }), router };
}

/** The calls of one kind that the cloud has received. */
export function callsTo(cloud: MockCloud, method: string, path: string | RegExp) {
  return cloud.calls.filter(
    (call) =>
      call.method === method && (typeof path === 'string' ? call.path === path : path.test(call.path)),
  );
}

/** Chooses the option of a select box that begins with these words. */
export async function choose(user: UserEvent, label: string, option: string): Promise<void> {
  const box = screen.getByRole<HTMLInputElement>('combobox', { name: label });
  await waitFor(() => expect(box.disabled).toBe(false));
  await user.click(box);
  const found = await waitFor(() => {
    const popup = document
      .getElementById(box.getAttribute('aria-controls') ?? '')
      ?.closest('.ant-select-dropdown');
    const match = [...(popup?.querySelectorAll('.ant-select-item-option') ?? [])].find((item) =>
      item.textContent?.startsWith(option),
    );
    if (match === undefined) {
      throw new Error(`no option ${option} for ${label}`);
    }
    return match;
  });
  await user.click(found);
}

/** Opens the form for another one of a list. */
export async function openForm(user: UserEvent, title: string): Promise<HTMLElement> {
  await user.click(await screen.findByRole('button', { name: title }));
  return screen.findByRole('form', { name: title });
}

/** Presses a button that asks first, and says yes. */
export async function confirmed(user: UserEvent, button: HTMLElement, answer: string): Promise<void> {
  await user.click(button);
  const yes = await waitFor(() => {
    const [found] = [...document.querySelectorAll<HTMLElement>('.ant-modal-confirm')].flatMap((question) =>
      within(question).queryAllByRole('button', { name: answer }),
    );
    if (found === undefined) {
      throw new Error(`nothing asks about ${answer}`);
    }
    return found;
  });
  await user.click(yes);
}
