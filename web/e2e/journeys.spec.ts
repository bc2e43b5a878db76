// From the first report to a metric in a store, by mouse, with the clicks counted.

import type { Locator, Page } from '@playwright/test';
import { endpoint, expect, logIn, populate, submit, test } from './server';

/** Counts what a person clicks. */
class Hand {
  clicks = 0;

  async click(target: Locator) {
    this.clicks += 1;
    await target.click();
  }
}

const button = (page: Page, name: string | RegExp) => page.getByRole('button', { name, exact: typeof name === 'string' });

test('from nothing to a metric in InfluxDB, in twelve clicks', async ({ page, server }) => {
  const url = await server.project('shooter');
  await logIn(page, server);
  await page.goto(`${server.url}/p/shooter/start`);
  await page.context().grantPermissions(['clipboard-read', 'clipboard-write']);
  const hand = new Hand();

  await hand.click(button(page, 'Copy').first());
  const copied = await page.evaluate(() => navigator.clipboard.readText());
  expect(copied, 'what to run is the whole command').toContain(url);
  await populate(url, 40);
  // The page notices by itself.
  await hand.click(page.getByRole('link', { name: 'Explore', exact: true }).and(page.locator('.button')));

  await hand.click(button(page, '+ Group'));
  await page.keyboard.type('err');
  await page.keyboard.press('ArrowDown');
  await page.keyboard.press('ArrowUp');
  await expect(page.getByRole('option', { name: 'error.type' })).toBeVisible();
  await hand.click(page.getByRole('option', { name: 'error.type' }));
  await hand.click(button(page, '+ Impacted users'));
  await expect(page.getByRole('table')).toContainText('Exception');

  await hand.click(button(page, 'Export as metric'));
  await page.getByLabel('Name', { exact: true }).fill('ByType');
  await hand.click(button(page, 'Save'));
  await expect(page.getByText('goes to no store yet')).toBeVisible();
  await hand.click(page.getByRole('link', { name: 'InfluxDB' }));

  const store = await endpoint();
  await page.getByLabel(/^url/).fill(`${store.url}/write?db=crashes`);
  await page.getByLabel('Period in seconds').fill('1');
  await hand.click(button(page, 'Send a test'));
  await expect(page.getByRole('status').filter({ hasText: 'confirmed' })).toBeVisible();
  expect(store.bodies[0]).toContain('health,store=influxdb test=1');
  await hand.click(button(page, 'Save and start'));

  await expect(page.getByText('Sending')).toBeVisible({ timeout: 20_000 });
  await submit(url, { 'error.type': 'Exception', guid: 'player-1' });
  await expect.poll(() => store.bodies.join('\n'), { timeout: 20_000 }).toContain('error.type=Exception');
  await hand.click(page.locator('summary').first());
  await hand.click(button(page, 'Copy').first());
  expect(await page.evaluate(() => navigator.clipboard.readText())).toContain('crashmeter');
  expect(hand.clicks).toBeLessThanOrEqual(12);
  store.close();
});

test('with the defaults, to Prometheus in six clicks', async ({ page, server }) => {
  await populate(await server.project('shooter'), 10);
  await logIn(page, server);
  await page.goto(`${server.url}/p/shooter/start`);
  const hand = new Hand();
  await hand.click(page.getByRole('link', { name: 'Explore', exact: true }).and(page.locator('.button')));
  await hand.click(button(page, 'Export as metric'));
  await hand.click(button(page, 'Save'));
  await hand.click(page.getByRole('link', { name: 'Prometheus', exact: true }));
  await hand.click(button(page, 'Save and start'));
  await hand.click(page.locator('summary', { hasText: 'scrape_configs' }).first());
  await expect(page.locator('pre.code').first()).toContainText('scrape_configs');
  expect(hand.clicks).toBeLessThanOrEqual(6);
});

test('by keyboard alone: a filter, a group and a metric', async ({ page, server }) => {
  await populate(await server.project('shooter'), 20);
  await logIn(page, server);
  await page.goto(`${server.url}/p/shooter/explore`);
  await expect(page.getByText('20 reports')).toBeVisible();

  await page.keyboard.press('/');
  // Typed without waiting for any list: Enter takes what fits the text, never a row of an older list.
  await page.keyboard.type('error.ty');
  await page.keyboard.press('Enter');
  await expect(page.getByRole('combobox', { name: 'Value' })).toBeFocused();
  await page.keyboard.type('Exception');
  await page.keyboard.press('Enter');
  await expect(page).toHaveURL(/f=error\.type%7Eequal%7EException/);
  await expect(page.getByText('5 reports')).toBeVisible();

  await page.keyboard.press('g');
  await page.keyboard.type('application.v');
  await page.keyboard.press('Enter');
  await expect(page).toHaveURL(/g=application\.version/);

  await page.keyboard.press('e');
  const dialog = page.getByRole('dialog');
  await expect(dialog).toBeVisible();
  await page.getByLabel('Name', { exact: true }).fill('ByVersion');
  await page.keyboard.press('Enter');
  await expect(dialog.getByText('is in the set')).toBeVisible();
  await page.keyboard.press('Escape');
  await expect(dialog).toBeHidden();
  const sets = await server.api<{ metrics: { name: string; query: unknown }[] }[]>('GET', '/projects/shooter/metric-sets');
  expect(sets[0]?.metrics[0]?.name).toBe('ByVersion');
  expect(JSON.stringify(sets[0]?.metrics[0]?.query)).toContain('Exception');
});
