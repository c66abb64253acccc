/** Opens the whole console in jsdom, in front of a cloud of the test's own. */
import { render } from '@testing-library/react';
import userEvent, { type UserEvent } from '@testing-library/user-event';
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
