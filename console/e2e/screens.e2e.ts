/**
 * Walks through the built console against the in-memory cloud, in both themes and languages, and leaves a picture of
 * every view in `e2e/out/`. Fails on a message in the browser's console (so on every violation of the content security
 * policy), on a request that leaves the origin, on an accessibility finding, and on a layout that moves.
 *
 * Needs `npm run build` before, and Chromium (`CHROMIUM`, else /usr/bin/chromium).
 */
import { mkdirSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import type { AxeResults } from 'axe-core';
import type { Browser, BrowserContext, Page } from 'playwright-core';
import { type PreviewServer, preview } from 'vite';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { MOCK_LOGIN } from '../mock/cloud.ts';
import { openBrowser } from './browser.ts';

const OUT = fileURLToPath(new URL('./out/', import.meta.url));
const ROOT = fileURLToPath(new URL('..', import.meta.url));
const PORT = 4179;
const ORIGIN = `http://127.0.0.1:${PORT}`;

let server: PreviewServer;
let browser: Browser;
let axeSource: string;

beforeAll(async () => {
  mkdirSync(OUT, { recursive: true });
  axeSource = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
  server = await preview({
    root: ROOT,
    mode: 'mock',
    logLevel: 'warn',
    preview: { host: '127.0.0.1', port: PORT, strictPort: true },
  });
  browser = await openBrowser();
});
afterAll(async () => {
  await browser?.close();
  await server?.close();
});

interface Visit {
  page: Page;
  context: BrowserContext;
  complaints: string[];
}

async function visit(options: {
  locale: string;
  dark?: boolean;
  width?: number;
  height?: number;
  motion?: boolean;
}): Promise<Visit> {
  const context = await browser.newContext({
    locale: options.locale,
    colorScheme: options.dark ? 'dark' : 'light',
    viewport: { width: options.width ?? 1440, height: options.height ?? 900 },
    // With motion and without it: one of the walks has it.
    reducedMotion: options.width === undefined && !options.motion ? 'reduce' : 'no-preference',
  });
  const page = await context.newPage();
  const complaints: string[] = [];
  page.on('console', (message) => {
    // A refused login is part of the walk; the browser reports its status.
    if (['error', 'warning'].includes(message.type()) && !/status of 40[0-9]/.test(message.text())) {
      complaints.push(`console: ${message.text()}`);
    }
  });
  page.on('pageerror', (error) => complaints.push(`exception: ${error.message}`));
  page.on('request', (request) => {
    if (!request.url().startsWith(ORIGIN) && !request.url().startsWith('blob:')) {
      complaints.push(`request to ${request.url()}`);
    }
  });
  await page.addInitScript(() => {
    const shifts: number[] = [];
    Object.assign(window, { shifts });
    new PerformanceObserver((list) => {
      for (const entry of list.getEntries() as (PerformanceEntry & {
        value: number;
        hadRecentInput: boolean;
      })[]) {
        if (!entry.hadRecentInput) {
          shifts.push(entry.value);
        }
      }
    }).observe({ type: 'layout-shift', buffered: true });
  });
  return { page, context, complaints };
}

async function picture({ page }: Visit, name: string): Promise<void> {
  await page.waitForTimeout(250);
  await page.screenshot({ path: `${OUT}${name}.png` });
}

/** Takes a picture and asks axe for everything that WCAG 2.2 A and AA forbid. */
async function look(tab: Visit, name: string): Promise<void> {
  const { page, complaints } = tab;
  await picture(tab, name);
  await page.evaluate(axeSource);
  const result: AxeResults = await page.evaluate(() =>
    (window as unknown as { axe: typeof import('axe-core') }).axe.run(document, {
      runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa'],
    }),
  );
  for (const violation of result.violations) {
    for (const node of violation.nodes.slice(0, 4)) {
      complaints.push(`${name}: ${violation.id}: ${node.html.slice(0, 160)} ${node.any[0]?.message ?? ''}`);
    }
  }
}

async function logIn(page: Page, label: [user: string, password: string, submit: string]): Promise<void> {
  await page.getByLabel(label[0], { exact: true }).fill(MOCK_LOGIN.username);
  await page.getByLabel(label[1], { exact: true }).fill(MOCK_LOGIN.password);
  await page.getByRole('button', { name: label[2] }).click();
}

/** The forms for new things. */
const FORMS = [
  'vpcs',
  'security-groups',
  'network-acls',
  'network-interfaces',
  'route-tables',
  'prefix-lists',
];

/** Opens each form for a new thing and sends it empty: what is missing is said at the fields. */
async function lookAtForms(tab: Visit, prefix: string, create: string, see = look): Promise<void> {
  const { page } = tab;
  for (const path of FORMS) {
    // As a link does, without loading everything again.
    await page.evaluate((to) => {
      window.history.pushState(null, '', to);
      window.dispatchEvent(new PopStateEvent('popstate', { state: null }));
    }, `/${path}/create`);
    await page.locator(`.nav a[aria-current="page"][href="/${path}"]`).waitFor({ state: 'attached' });
    const form = page.getByRole('dialog').getByRole('form');
    await form.getByRole('button', { name: create, exact: true }).click();
    await form.locator('.ant-form-item-explain-error').first().waitFor();
    await see(tab, `${prefix}-create-${path}`);
  }
}

async function movement(page: Page): Promise<number> {
  return page.evaluate(() =>
    (window as unknown as { shifts: number[] }).shifts.reduce((sum, value) => sum + value, 0),
  );
}

const ENGLISH: [string, string, string] = ['User name', 'Password', 'Log in'];
const KOREAN: [string, string, string] = ['사용자 이름', '비밀번호', '로그인'];

// Each in a context of its own; what they change of the cloud is not what another one looks at.
describe.concurrent('the built console', () => {
  it('shows every view in English and light', async () => {
    const tab = await visit({ locale: 'en-US' });
    const { page } = tab;
    await page.goto(`${ORIGIN}/`);
    await look(tab, 'en-login');
    await page.getByLabel('User name').fill('admin');
    await page.getByLabel('Password', { exact: true }).fill('wrong');
    await page.getByRole('button', { name: 'Log in' }).click();
    await page.getByText('The user name or the password is wrong.').waitFor();
    await look(tab, 'en-login-refused');
    await logIn(page, ENGLISH);
    await page.getByRole('link', { name: 'web-1' }).waitFor();
    await page.getByText('Live', { exact: true }).waitFor();
    expect(await movement(page)).toBeLessThan(0.02);
    await look(tab, 'en-list');

    await page.getByRole('button', { name: 'Actions for web-2' }).click();
    await page.getByRole('menuitem', { name: 'Terminate' }).waitFor();
    await look(tab, 'en-actions');
    await page.getByRole('menuitem', { name: 'Terminate' }).click();
    await page.getByRole('dialog', { name: 'Terminate web-2?' }).waitFor();
    await look(tab, 'en-terminate');
    await page.getByRole('button', { name: 'Cancel' }).click();
    await page.getByRole('dialog', { name: 'Terminate web-2?' }).waitFor({ state: 'hidden' });

    await page.getByRole('button', { name: 'API', exact: true }).click();
    await page.getByText('The same with curl').waitFor();
    await look(tab, 'en-api');
    await page.keyboard.press('Escape');

    await page.getByRole('link', { name: 'web-1' }).click();
    await page.getByText('SSH').first().waitFor();
    await page.getByText('Worker node').waitFor();
    await look(tab, 'en-detail');
    await page.getByRole('button', { name: 'Console output' }).click();
    await page.getByText('gon-linux ready').waitFor();
    await look(tab, 'en-console');

    await page.goto(`${ORIGIN}/instances?q=nothing-like-this`);
    await page.getByText('Nothing matches the filter.').waitFor();
    await look(tab, 'en-nomatch');

    await page.goto(`${ORIGIN}/instances/launch`);
    await page.getByLabel('Name').fill('web-1');
    await page.getByLabel('Image').click();
    await page.getByText('Debian 12 with cloud-init').click();
    await page.getByLabel('Instance type').click();
    await look(tab, 'en-launch-open');
    await page.getByText('1 vCPU · 512 MiB').click();
    await page.getByRole('button', { name: 'Launch', exact: true }).click();
    await page.getByText('Choose a subnet.').waitFor();
    await page.getByLabel('Subnet').click();
    await page.getByText('10.0.1.0/24 · gon-1a').click();
    await page.getByLabel('Security groups').click();
    await page.getByText('SSH and web').click();
    await page.keyboard.press('Escape');
    await page.getByRole('button', { name: 'Launch', exact: true }).click();
    await page.getByText('the name is taken').first().waitFor();
    await look(tab, 'en-launch-refused');
    await page.getByLabel('Name').fill('web-9');
    await page.getByRole('button', { name: 'Launch', exact: true }).click();
    await page.getByRole('row', { name: /web-9.*Running/ }).waitFor({ timeout: 10_000 });

    await page.goto(`${ORIGIN}/vpcs`);
    await page
      .getByRole('button', { name: /expand row/i })
      .first()
      .click();
    await look(tab, 'en-vpcs');
    await page.getByRole('link', { name: 'production' }).click();
    await page.getByText('production-out').first().waitFor();
    await page.getByText('Applied 2/2').waitFor();
    await look(tab, 'en-vpc');
    await page.getByRole('button', { name: 'Delete', exact: true }).click();
    await page.getByRole('dialog', { name: 'Delete production?' }).waitFor();
    await look(tab, 'en-vpc-delete');
    await page
      .getByRole('dialog', { name: 'Delete production?' })
      .getByRole('button', { name: 'Delete' })
      .click();
    await page.getByText('DependencyViolation').waitFor();
    await page.getByRole('dialog', { name: 'Delete production?' }).waitFor({ state: 'hidden' });
    await look(tab, 'en-vpc-delete-refused');
    await page.getByRole('form', { name: 'Add a subnet' }).scrollIntoViewIfNeeded();
    await look(tab, 'en-vpc-subnets');
    await page.goto(`${ORIGIN}/security-groups`);
    await page.getByText('SSH and web').waitFor();
    await look(tab, 'en-security-groups');
    await page.getByRole('link', { name: 'web', exact: true }).click();
    await page.getByText('Applied 2/2').waitFor();
    await look(tab, 'en-security-group');
    await page.getByLabel('Source', { exact: true }).click();
    await page.getByText('anywhere').waitFor();
    await look(tab, 'en-security-group-peers');
    await page.goto(`${ORIGIN}/network-acls`);
    await page.getByText('data only').waitFor();
    await look(tab, 'en-network-acls');
    await page.getByRole('link', { name: 'data only' }).click();
    await page.getByText('5432').waitFor();
    await page.getByText('Applied 2/2').waitFor();
    await page.getByRole('button', { name: /^Change 100 Inbound/ }).click();
    await page.getByRole('form', { name: /^Change 100 Inbound/ }).waitFor();
    await look(tab, 'en-network-acl');
    await page.goto(`${ORIGIN}/network-interfaces`);
    await page.getByText('Firewall, inside').waitFor();
    await look(tab, 'en-network-interfaces');
    await page.getByRole('link', { name: /^eni-/ }).first().click();
    await page.getByText('Applied 2/2').waitFor();
    await look(tab, 'en-network-interface');
    await page.goto(`${ORIGIN}/route-tables`);
    await page.getByText('Blackhole').waitFor();
    await look(tab, 'en-route-tables');
    await page.getByRole('link', { name: 'public' }).click();
    await page.getByText('Applied 2/2').waitFor();
    await look(tab, 'en-route-table');
    await page.getByRole('button', { name: 'Remove 192.168.7.0/24' }).click();
    await page.getByRole('dialog', { name: 'Remove 192.168.7.0/24?' }).waitFor();
    await look(tab, 'en-route-remove');
    await page.goto(`${ORIGIN}/prefix-lists`);
    await page.getByText('2 of 5').waitFor();
    await look(tab, 'en-prefix-lists');
    await page.getByRole('link', { name: 'offices' }).click();
    await page.getByText('Applied 2/2').waitFor();
    await page.getByLabel('CIDR block').fill('not a block');
    await page.getByRole('button', { name: 'Add', exact: true }).click();
    await page.getByText('is not an IPv4 block').first().waitFor();
    await look(tab, 'en-prefix-list');
    await lookAtForms(tab, 'en', 'Create');
    await page.goto(`${ORIGIN}/no/such/page`);
    await page.getByText('There is no page at this address.').waitFor();
    await look(tab, 'en-notfound');
    expect(tab.complaints).toEqual([]);
    await tab.context.close();
  });

  it('shows every view in Korean and dark', async () => {
    const tab = await visit({ locale: 'ko-KR', dark: true });
    const { page } = tab;
    await page.goto(`${ORIGIN}/`);
    await look(tab, 'ko-dark-login');
    await logIn(page, KOREAN);
    await page.getByRole('link', { name: 'web-1' }).waitFor();
    await page.getByText('실시간').waitFor();
    await look(tab, 'ko-dark-list');
    await page.getByRole('button', { name: 'web-2 작업' }).click();
    await page.getByRole('menuitem', { name: '종료' }).click();
    await page.getByRole('dialog', { name: 'web-2 인스턴스를 종료할까요?' }).waitFor();
    await look(tab, 'ko-dark-terminate');
    await page.getByRole('button', { name: '취소' }).click();
    await page.getByRole('link', { name: 'web-1' }).click();
    await page.getByText('워커 노드').waitFor();
    await look(tab, 'ko-dark-detail');
    await page.goto(`${ORIGIN}/instances/launch`);
    await page.getByRole('button', { name: '시작', exact: true }).click();
    await page.getByText('서브넷을 선택하세요.', { exact: true }).waitFor();
    await look(tab, 'ko-dark-launch');
    await page.goto(`${ORIGIN}/security-groups`);
    await page.getByRole('link', { name: 'web', exact: true }).click();
    await page.getByText('적용됨 2/2').waitFor();
    await look(tab, 'ko-dark-security-group');
    await page.goto(`${ORIGIN}/network-acls`);
    await page.getByRole('link', { name: 'data only' }).click();
    await page.getByText('적용됨 2/2').waitFor();
    await look(tab, 'ko-dark-network-acl');
    await lookAtForms(tab, 'ko-dark', '생성');
    await page.goto(`${ORIGIN}/vpcs`);
    await page.getByRole('link', { name: 'production' }).click();
    await page.getByText('production-out').first().waitFor();
    await look(tab, 'ko-dark-vpc');
    await page.goto(`${ORIGIN}/network-interfaces`);
    await page.getByRole('link', { name: /^eni-/ }).first().click();
    await page.getByText('적용됨 2/2').waitFor();
    await look(tab, 'ko-dark-network-interface');
    await page.goto(`${ORIGIN}/route-tables`);
    await page.getByRole('link', { name: 'public' }).click();
    await page.getByText('적용됨 2/2').waitFor();
    await look(tab, 'ko-dark-route-table');
    await page.goto(`${ORIGIN}/prefix-lists`);
    await page.getByRole('link', { name: 'offices' }).click();
    await page.getByText('적용됨 2/2').waitFor();
    await look(tab, 'ko-dark-prefix-list');
    expect(tab.complaints).toEqual([]);
    await tab.context.close();
  });

  it('lets a duplicated tab and its original go on, though refresh tokens work only once', async () => {
    const tab = await visit({ locale: 'en-US' });
    const { page, context } = tab;
    await page.goto(`${ORIGIN}/vpcs`);
    await logIn(page, ENGLISH);
    await page.getByText('production').waitFor();
    // What "Duplicate tab" does.
    const copied = await page.evaluate(() => JSON.stringify(sessionStorage));
    const copy = await context.newPage();
    await copy.addInitScript((json) => {
      if (sessionStorage.length === 0) {
        Object.assign(sessionStorage, JSON.parse(json));
      }
    }, copied);
    await copy.goto(`${ORIGIN}/vpcs`);
    await copy.getByText('production').waitFor();
    const reloads = [page.reload(), copy.reload()];
    await Promise.all(reloads);
    await page.getByText('production').waitFor();
    await copy.getByText('production').waitFor();
    expect(tab.complaints).toEqual([]);
    await context.close();
  });

  it('shows menus and questions where they stay, so that no press ends beside its button', async () => {
    const tab = await visit({ locale: 'en-US', motion: true });
    const { page } = tab;
    await page.goto(`${ORIGIN}/instances`);
    await logIn(page, ENGLISH);
    await page.getByRole('link', { name: '데이터베이스' }).waitFor();
    const watched = ['.ant-dropdown-menu-item-danger', '.ant-modal-confirm-btns .ant-btn-dangerous'];
    await page.evaluate((selectors) => {
      const places: Record<string, string[]> = {};
      Object.assign(window, { places });
      const watch = () => {
        for (const selector of selectors) {
          const box = document.querySelector(selector)?.getBoundingClientRect();
          // Before it is placed it is far outside.
          if (box !== undefined && box.x > 0 && box.y > 0) {
            const place = [box.x, box.y, box.width, box.height].map(Math.round).join(' ');
            places[selector] = [...(places[selector] ?? []), place];
          }
        }
        requestAnimationFrame(watch);
      };
      watch();
    }, watched);
    await page.getByRole('button', { name: 'Actions for 데이터베이스' }).click();
    await page.waitForTimeout(400);
    await page.getByRole('menuitem', { name: 'Terminate' }).click();
    await page.getByRole('dialog', { name: 'Terminate 데이터베이스?' }).waitFor();
    await page.waitForTimeout(400);
    const places = await page.evaluate(
      () => (window as unknown as { places: Record<string, string[]> }).places,
    );
    for (const selector of watched) {
      expect(places[selector]?.length, selector).toBeGreaterThan(5);
      expect([...new Set(places[selector])], selector).toHaveLength(1);
    }
    await page
      .getByRole('dialog', { name: 'Terminate 데이터베이스?' })
      .getByRole('button', { name: 'Terminate' })
      .click();
    await page.getByRole('row', { name: /데이터베이스.*Terminated/ }).waitFor({ timeout: 10_000 });
    expect(tab.complaints).toEqual([]);
    await tab.context.close();
  });

  it('fits a telephone', async () => {
    const tab = await visit({ locale: 'en-US', width: 390, height: 844 });
    const { page } = tab;
    await page.goto(`${ORIGIN}/instances`);
    await logIn(page, ENGLISH);
    await page.getByRole('link', { name: 'web-1' }).waitFor();
    await look(tab, 'phone-list');
    await page.getByRole('button', { name: 'Expand navigation' }).click();
    await page.getByRole('link', { name: 'VPCs' }).waitFor();
    await look(tab, 'phone-menu');
    await page.getByRole('link', { name: 'Instances' }).click();
    await page.getByRole('link', { name: 'web-1' }).click();
    await page.getByText('Worker node').waitFor();
    await look(tab, 'phone-detail');
    await page.goto(`${ORIGIN}/instances/launch`);
    await look(tab, 'phone-launch');
    await page.goto(`${ORIGIN}/route-tables`);
    await page.getByRole('link', { name: 'public' }).click();
    await page.getByText('Applied 2/2').waitFor();
    await look(tab, 'phone-route-table');
    await page.goto(`${ORIGIN}/vpcs`);
    await page.getByRole('link', { name: 'production' }).click();
    await page.getByText('production-out').first().waitFor();
    await look(tab, 'phone-vpc');
    await page.getByRole('form', { name: 'Add a subnet' }).scrollIntoViewIfNeeded();
    await look(tab, 'phone-vpc-subnets');
    await page.goto(`${ORIGIN}/network-acls`);
    await page.getByRole('link', { name: 'data only' }).click();
    await page.getByText('Applied 2/2').waitFor();
    await look(tab, 'phone-network-acl');
    // What axe has to say of them does not depend on the width.
    await lookAtForms(tab, 'phone', 'Create', picture);
    expect(tab.complaints).toEqual([]);
    await tab.context.close();
  });
});
