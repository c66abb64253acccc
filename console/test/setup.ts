/** What jsdom lacks and the console uses, and the in-memory cloud behind every request. */
import { cleanup, configure } from '@testing-library/react';
import { setupServer } from 'msw/node';
import { afterAll, afterEach, beforeAll, beforeEach } from 'vitest';
import { startI18n } from '../src/i18n';

export const server = setupServer();
// The machine may be busy with a build; a test that fails waits this long, one that passes does not.
configure({ asyncUtilTimeout: 30_000 });

class NoResizeObserver implements ResizeObserver {
  observe() {}
  unobserve() {}
  disconnect() {}
}

window.matchMedia = (query) => ({
  // Without motion: nothing waits for the end of an animation that jsdom never plays.
  matches: query.includes('reduced-motion'),
  media: query,
  onchange: null,
  addEventListener: () => {},
  removeEventListener: () => {},
  addListener: () => {},
  removeListener: () => {},
  dispatchEvent: () => false,
});
window.ResizeObserver = NoResizeObserver;
Element.prototype.scrollIntoView = () => {};
/**
 * jsdom resolves antd's thousands of rules anew for every element that a role query looks at: seconds per query. All
 * that the queries need is what is hidden, which antd says in the element's own style or by a class.
 */
window.getComputedStyle = (element) => {
  const { style } = element as HTMLElement;
  const hidden = /(^|\s)ant-[\w-]+-hidden(\s|$)/.test(element.getAttribute('class') ?? '');
  return new Proxy(style, {
    get: (target, property) => {
      if (property === 'getPropertyValue') {
        return (name: string) => {
          if (name === 'display' && hidden) {
            return 'none';
          }
          // What antd measures text boxes by.
          return target.getPropertyValue(name) || (/padding|border|height/.test(name) ? '0px' : '');
        };
      }
      if (property === 'display') {
        return hidden ? 'none' : target.display;
      }
      return Reflect.get(target, property) as unknown;
    },
  });
};

beforeAll(() => server.listen({ onUnhandledRequest: 'error' }));
beforeEach(async () => {
  localStorage.clear();
  sessionStorage.clear();
  await startI18n('en');
});
afterEach(() => {
  cleanup();
  server.resetHandlers();
});
afterAll(() => server.close());
