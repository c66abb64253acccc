/**
 * One turn through a real server: log in, see the list, launch an instance, see it become running live, find it in its
 * VPC's resource map, add a rule to a security group and take it away again, terminate.
 *
 *   GON_URL=http://127.0.0.1:8080 GON_USER=admin GON_PASSWORD=… npm run e2e:smoke
 *
 * GON_IMAGE (gon-linux), GON_INSTANCE_TYPE (the smallest that the image runs on), GON_SUBNET (the first) and
 * GON_KEY (none) choose what is launched; CHROMIUM names the browser; GON_LAUNCH_TIMEOUT is in seconds (120). On a
 * failure `e2e/out/smoke-failed.png` shows what the browser showed.
 */
import { mkdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { openBrowser } from './browser.ts';

const OUT = fileURLToPath(new URL('./out/', import.meta.url));

function required(name: string): string {
  const value = process.env[name];
  if (!value) {
    throw new Error(`${name} is not set`);
  }
  return value;
}

const url = required('GON_URL').replace(/\/$/, '');
const user = required('GON_USER');
const password = required('GON_PASSWORD');
const patience = Number(process.env.GON_LAUNCH_TIMEOUT ?? 120) * 1000;
const name = `console-smoke-${process.pid}-${Date.now().toString(36)}`;

let browser: Browser;
beforeAll(async () => {
  browser = await openBrowser();
});
afterAll(() => browser?.close());

/** Chooses the option that begins with `wanted`, or the first that can be chosen. */
async function choose(page: Page, label: string, wanted: string | undefined): Promise<void> {
  const box = page.getByRole('combobox', { name: label });
  await box.click();
  const popup = page.locator('.ant-select-dropdown:visible');
  const options = popup.locator('.ant-select-item-option:not(.ant-select-item-option-disabled)');
  const option = wanted === undefined ? options : options.filter({ hasText: wanted });
  await option.first().click();
  await popup.waitFor({ state: 'hidden' });
}

async function terminate(page: Page): Promise<void> {
  await page.getByRole('button', { name: `Actions for ${name}` }).click();
  await page.getByRole('menuitem', { name: 'Terminate' }).click();
  await page
    .getByRole('dialog', { name: `Terminate ${name}?` })
    .getByRole('button', { name: 'Terminate' })
    .click();
}

/** "Applied n/n", with the two the same. */
function applied(page: Page) {
  return page.getByText(/^Applied (\d+)\/\1$/);
}

/** Adds a rule to the first security group, sees it in force, and removes it. */
async function changeRules(page: Page): Promise<void> {
  await page.goto(`${url}/security-groups`);
  await page.getByRole('button', { name: 'Expand row' }).first().click();
  const form = page.getByRole('form', { name: 'Add a rule' });
  await form.getByLabel('Ports').fill('8443');
  await form.getByLabel('Source').fill('192.0.2.0/24');
  await form.getByLabel('Description').fill(name);
  await form.getByRole('button', { name: 'Add' }).click();
  const rule = page.getByRole('row', { name });
  await rule.waitFor();
  await applied(page).waitFor();
  await rule.getByRole('button', { name: /^Remove/ }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Remove' }).click();
  await rule.waitFor({ state: 'hidden' });
  await applied(page).waitFor();
}

it('launches and terminates an instance', { timeout: 2 * patience + 60_000 }, async () => {
  const context = await browser.newContext({ locale: 'en-US', viewport: { width: 1440, height: 900 } });
  const page = await context.newPage();
  const complaints: string[] = [];
  page.on('pageerror', (error) => complaints.push(`exception: ${error.message}`));
  page.on('console', (message) => {
    if (message.type() === 'error') {
      complaints.push(`console: ${message.text()}`);
    }
  });
  page.on('request', (request) => {
    if (!request.url().startsWith(url)) {
      complaints.push(`request to ${request.url()}`);
    }
  });
  const row = page.getByRole('row', { name });
  const state = (value: string) => row.locator(`.state-tag[data-state="${value}"]`);
  try {
    await page.goto(url);
    await page.getByLabel('User name').fill(user);
    await page.getByLabel('Password', { exact: true }).fill(password);
    await page.getByRole('button', { name: 'Log in' }).click();
    await page.getByRole('table', { name: 'Instances' }).or(page.locator('.empty-state')).first().waitFor();
    // A console that only polls would pass everything below.
    await page.getByText('Live', { exact: true }).waitFor();

    await page.getByRole('button', { name: 'Launch instance' }).first().click();
    await page.getByRole('textbox', { name: 'Name' }).fill(name);
    await choose(page, 'Image', process.env.GON_IMAGE ?? 'gon-linux');
    await choose(page, 'Instance type', process.env.GON_INSTANCE_TYPE);
    await choose(page, 'Subnet', process.env.GON_SUBNET);
    if (process.env.GON_KEY) {
      await choose(page, 'Key pair', process.env.GON_KEY);
    }
    await page.getByRole('button', { name: 'Launch', exact: true }).click();
    await row.waitFor();
    const launched = Date.now();
    await state('running').waitFor({ timeout: patience });
    console.log(`${name} was running after ${((Date.now() - launched) / 1000).toFixed(1)} s`);

    await page.getByRole('link', { name }).click();
    await page.getByRole('button', { name: 'Console output' }).click();
    await page.getByText(`Console output of ${name}`).waitFor();
    await page.goto(`${url}/instances`);
    await page.getByRole('link', { name }).click();
    await page.locator('.facts a[href^="/vpcs/"]').click();
    await page.locator('.map-instances').getByRole('link', { name }).waitFor();
    await applied(page).first().waitFor();
    await changeRules(page);
    for (const path of ['route-tables', 'network-interfaces', 'network-acls', 'prefix-lists']) {
      await page.goto(`${url}/${path}`);
      await page.getByRole('table').or(page.locator('.empty-state')).first().waitFor();
      await page.locator('[aria-busy="true"]').waitFor({ state: 'hidden' });
    }
    await page.goto(`${url}/instances`);
    await row.waitFor();

    await terminate(page);
    await state('terminated').waitFor({ timeout: patience });
    expect(complaints).toEqual([]);
  } catch (error) {
    mkdirSync(OUT, { recursive: true });
    await page.screenshot({ path: `${OUT}smoke-failed.png` });
    throw error;
  } finally {
    await context.close();
  }
});
