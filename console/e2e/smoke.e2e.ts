/**
 * One turn through a real server: log in, make a VPC with a subnet and a way out, launch an instance, see it become
 * running live, find it in its VPC's resource map; make, change and delete one of each other thing of the network;
 * terminate, and delete the network.
 *
 *   GON_URL=http://127.0.0.1:8080 GON_USER=admin GON_PASSWORD=… npm run e2e:smoke
 *
 * GON_IMAGE (gon-linux), GON_INSTANCE_TYPE (the smallest that the image runs on) and GON_KEY (none) choose what is
 * launched; CHROMIUM names the browser; GON_LAUNCH_TIMEOUT is in seconds (120). On a
 * failure `e2e/out/smoke-failed.png` shows what the browser showed.
 */
import { mkdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { Browser, Locator, Page } from 'playwright-core';
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
  await expect.poll(() => box.getAttribute('aria-controls')).toBeTruthy();
  // Its own: that of another box may still be fading.
  const list = page.locator(`[id="${await box.getAttribute('aria-controls')}"]`);
  const popup = page.locator('.ant-select-dropdown').filter({ has: list });
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

/** The form of one line with this name. */
function rowForm(page: Page, label: string): Locator {
  return page.getByRole('form', { name: label, exact: true });
}

/** Presses a button that asks first, and says yes. */
async function confirmed(page: Page, button: Locator, answer: string): Promise<void> {
  await button.click();
  const question = page.locator('.ant-modal-confirm');
  await question.getByRole('button', { name: answer, exact: true }).click();
  await question.waitFor({ state: 'hidden' });
}

/** Makes something with the form of its list, and waits for its page. */
async function make(page: Page, path: string, title: string, fill: (form: Locator) => Promise<void>) {
  await page.goto(`${url}/${path}`);
  await page.getByRole('button', { name: title }).first().click();
  const form = page.getByRole('form', { name: title });
  await fill(form);
  await form.getByRole('button', { name: 'Create', exact: true }).click();
  await page.waitForURL(new RegExp(`/${path}/[a-z]+-[0-9a-f]+`));
  await page.getByRole('heading', { name: 'Summary' }).waitFor();
}

/** Deletes the thing whose page is open, and waits for the list. */
async function remove(page: Page): Promise<void> {
  await confirmed(page, page.getByRole('button', { name: 'Delete', exact: true }), 'Delete');
  await page.waitForURL(/\/[a-z-]+$/);
}

/** A VPC with one subnet and a way out. */
async function makeNetwork(page: Page): Promise<void> {
  await make(page, 'vpcs', 'Create VPC', async (form) => {
    await form.getByLabel('Name').fill(name);
    await form.getByLabel('CIDR block').fill('10.77.0.0/16');
  });
  const subnet = rowForm(page, 'Add a subnet');
  await subnet.getByLabel('Name').fill(`${name}-a`);
  await subnet.getByLabel('CIDR block').fill('10.77.1.0/24');
  await subnet.getByRole('button', { name: 'Add' }).click();
  await page.getByRole('button', { name: `Remove ${name}-a` }).waitFor();
  const gateway = rowForm(page, 'Add an internet gateway');
  await gateway.getByLabel('Name of the gateway').fill(`${name}-out`);
  await gateway.getByRole('button', { name: 'Add' }).click();
  await page.getByText('Attached', { exact: true }).waitFor();
  await make(page, 'route-tables', 'Create route table', async (form) => {
    await choose(page, 'VPC', name);
    await form.getByLabel('Name').fill(`${name}-public`);
  });
  const route = rowForm(page, 'Add a route');
  await route.getByLabel('Destination').fill('0.0.0.0/0');
  await choose(page, 'Target', 'igw-');
  await route.getByRole('button', { name: 'Add' }).click();
  await page.getByRole('button', { name: 'Remove 0.0.0.0/0' }).waitFor();
  await choose(page, 'Subnet', `${name}-a`);
  await rowForm(page, 'Associate a subnet').getByRole('button', { name: 'Add' }).click();
  await page.getByRole('button', { name: `Remove ${name}-a` }).waitFor();
  await applied(page).waitFor();
}

/** Makes a security group, adds a rule and removes it, each seen in force; and deletes the group. */
async function changeRules(page: Page): Promise<void> {
  await make(page, 'security-groups', 'Create security group', async (form) => {
    await choose(page, 'VPC', name);
    await form.getByLabel('Name').fill(`${name}-group`);
  });
  const form = rowForm(page, 'Add a rule');
  await form.getByLabel('Ports').fill('8443');
  await form.getByLabel('Source').fill('192.0.2.0/24');
  await form.getByLabel('Description').fill(`${name} rule`);
  await form.getByRole('button', { name: 'Add' }).click();
  const rule = page.getByRole('row', { name: `${name} rule` });
  await rule.waitFor();
  await applied(page).waitFor();
  await confirmed(page, rule.getByRole('button', { name: /^Remove/ }), 'Remove');
  await rule.waitFor({ state: 'hidden' });
  await applied(page).waitFor();
  await remove(page);
}

/** Makes and deletes one of each other thing of the network. */
async function makeOthers(page: Page): Promise<void> {
  await make(page, 'network-acls', 'Create network ACL', () => choose(page, 'VPC', name));
  const entry = rowForm(page, 'Add an entry');
  await entry.getByLabel('Rule number').fill('100');
  await entry.getByLabel('Ports').fill('443');
  await entry.getByLabel('Source').fill('0.0.0.0/0');
  await entry.getByRole('button', { name: 'Add' }).click();
  await page.getByRole('button', { name: /^Change 100 Inbound/ }).click();
  const changed = page.getByRole('form', { name: /^Change 100 Inbound/ });
  await changed.getByLabel('Ports').fill('8443');
  await changed.getByRole('button', { name: 'Save' }).click();
  await page.getByRole('cell', { name: '8443', exact: true }).waitFor();
  await remove(page);

  await make(page, 'network-interfaces', 'Create network interface', async (form) => {
    await choose(page, 'Subnet', `${name}-a`);
    await form.getByLabel('Description').fill(`${name} loose`);
  });
  await page.getByRole('switch', { name: 'Source/destination check' }).click();
  await page.locator('[role="switch"][aria-checked="false"]').waitFor();
  await remove(page);

  await make(page, 'prefix-lists', 'Create prefix list', async (form) => {
    await form.getByLabel('Name').fill(name);
    await form.getByLabel('Entries', { exact: true }).fill('192.0.2.0/24 documentation\n198.51.100.0/24');
  });
  await page.getByRole('button', { name: 'Remove 198.51.100.0/24' }).waitFor();
  const list = new URL(page.url()).pathname;
  await page.goto(`${url}/route-tables`);
  await page.getByRole('link', { name: `${name}-public` }).click();
  await choose(page, 'Destination', name);
  await choose(page, 'Target', 'igw-');
  await rowForm(page, 'Add a route').getByRole('button', { name: 'Add' }).click();
  const route = page.getByRole('button', { name: `Remove ${name}`, exact: true });
  await applied(page).waitFor();
  await confirmed(page, route, 'Remove');
  await route.waitFor({ state: 'hidden' });
  await page.goto(url + list);
  await remove(page);
}

/** Takes the network down again, from the inside out. */
async function removeNetwork(page: Page): Promise<void> {
  await page.goto(`${url}/route-tables`);
  await page.getByRole('link', { name: `${name}-public` }).click();
  await confirmed(page, page.getByRole('button', { name: `Remove ${name}-a` }), 'Remove');
  await page.getByText('No subnet has this table as its own.').waitFor();
  await remove(page);
  await page.goto(`${url}/vpcs`);
  await page.getByRole('link', { name, exact: true }).click();
  await confirmed(page, page.getByRole('button', { name: 'Detach' }), 'Detach');
  const gateway = page.getByRole('button', { name: `Remove ${name}-out` });
  await confirmed(page, gateway, 'Delete');
  await gateway.waitFor({ state: 'hidden' });
  const subnet = page.getByRole('button', { name: `Remove ${name}-a` });
  await confirmed(page, subnet, 'Delete');
  await subnet.waitFor({ state: 'hidden' });
  await remove(page);
  await page.getByRole('link', { name, exact: true }).waitFor({ state: 'hidden' });
}

it('makes a network, launches and terminates an instance in it, and deletes the network', {
  timeout: 2 * patience + 60_000,
}, async () => {
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

    await makeNetwork(page);
    await page.goto(`${url}/instances`);
    await page.getByRole('button', { name: 'Launch instance' }).first().click();
    await page.getByRole('textbox', { name: 'Name' }).fill(name);
    await choose(page, 'Image', process.env.GON_IMAGE ?? 'gon-linux');
    await choose(page, 'Instance type', process.env.GON_INSTANCE_TYPE);
    await choose(page, 'Subnet', `${name}-a`);
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
    await makeOthers(page);
    await page.goto(`${url}/instances`);
    await row.waitFor();

    await terminate(page);
    await state('terminated').waitFor({ timeout: patience });
    await removeNetwork(page);
    expect(complaints).toEqual([]);
  } catch (error) {
    mkdirSync(OUT, { recursive: true });
    await page.screenshot({ path: `${OUT}smoke-failed.png` });
    throw error;
  } finally {
    await context.close();
  }
});
