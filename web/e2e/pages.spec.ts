// Every page and dialog: accessible (WCAG 2.2 AA by axe) in light and dark, usable at 320 px, and pictures of them for people to judge.

import { mkdirSync } from 'node:fs';
import { faultsOf } from './axe';
import { endpoint, expect, logIn, type Page, populate, type Server, settled, test } from './server';

/** Where the pictures go; the guide in docs/ has some of them. */
const PICTURES = process.env.CRASHMETER_PICTURES ?? 'test-results/pictures';

type Shown = [name: string, address: string, prepare?: (page: Page) => Promise<void>];

const SHOWN: Shown[] = [
  ['start', '/p/shooter/start'],
  ['explore', '/p/shooter/explore?g=error.type&a=unique%7E_tx&a=unique%7Eguid&t=-15m..now'],
  ['explore-reports', '/p/shooter/explore?view=list&t=-15m..now'],
  [
    'explore-filter',
    '/p/shooter/explore?g=error.type&t=-15m..now',
    async (page) => {
      await page.getByRole('button', { name: '+ Filter' }).click();
      await page.keyboard.type('err');
      await page.locator('.combo [role="option"]').first().waitFor();
    },
  ],
  [
    'report',
    '/p/shooter/explore?view=list&t=-15m..now',
    async (page) => {
      await page.getByRole('table').getByRole('link').first().click();
      await page.getByText('As the API gives it').waitFor();
    },
  ],
  [
    'export-as-metric',
    '/p/shooter/explore?g=error.type&t=-15m..now',
    async (page) => {
      await page.getByRole('button', { name: 'Export as metric' }).click();
      await page.getByText('to be expected').waitFor();
      await page.locator('pre.code').first().waitFor();
    },
  ],
  ['metric-export', '/p/shooter/settings/metric-export'],
  ['metric', '/p/shooter/settings/metric-export/sets/Errors/metrics/ByType', (page) => page.locator('.chart canvas').waitFor()],
  ['store', '/p/shooter/settings/metric-export/stores/influx'],
  ['store-output', '/p/shooter/settings/metric-export/stores/influx?tab=output'],
  ['store-attempts', '/p/shooter/settings/metric-export/stores/influx?tab=attempts'],
  ['store-configure', '/p/shooter/settings/metric-export/stores/influx?tab=configure'],
  ['store-pull', '/p/shooter/settings/metric-export/stores/prom'],
  ['store-new', '/p/shooter/settings/metric-export/stores/new?adapter=datadog'],
  ['attributes', '/p/shooter/settings/attributes'],
  ['access', '/p/shooter/settings/access'],
  ['account', '/account'],
  ['system', '/system'],
  ['audit-log', '/audit-log'],
  [
    'views',
    '/p/shooter/explore?g=error.type&t=-15m..now',
    async (page) => {
      await page.locator('summary', { hasText: 'View' }).click();
      await page.getByRole('link', { name: 'Players by version' }).waitFor();
    },
  ],
  ['keys', '/p/shooter/explore?t=-15m..now', (page) => page.keyboard.press('?')],
  ['empty', '/p/empty/explore'],
  ['nothing-exported', '/p/empty/settings/metric-export'],
];

async function fill(server: Server) {
  const store = await endpoint();
  await server.project('empty');
  const url = await server.project('shooter');
  await server.api('PUT', '/projects/shooter/metric-sets/Errors/metrics/ByType', {
    query: { group: ['error.type'], fold: { _tx: [['unique']] } },
  });
  const view = { search: '?g=application.version&a=unique%7Eguid&t=-7d..now' };
  await server.api('PUT', '/projects/shooter/views/Players%20by%20version', view);
  const influx = { adapter: 'influxdb', period: 1, sets: ['Errors'], url: `${store.url}/write?db=crashes` };
  await server.api('PUT', '/projects/shooter/metric-stores/influx', influx);
  const prom = { adapter: 'prometheus', period: 1, sets: ['Errors'], username: 'prometheus', password: 'pass-word' };
  await server.api('PUT', '/projects/shooter/metric-stores/prom', prom);
  // Only what comes after a metric's first window is in its points.
  await expect.poll(() => store.bodies.length, { timeout: 20_000 }).toBeGreaterThan(1);
  await populate(url);
  await expect.poll(() => store.bodies.some((body) => body.includes('ByType')), { timeout: 20_000 }).toBe(true);
  return store;
}

for (const scheme of ['light', 'dark'] as const) {
  test(`accessible in ${scheme}, and pictures of it`, async ({ page, server }) => {
    test.setTimeout(180_000);
    mkdirSync(PICTURES, { recursive: true });
    const store = await fill(server);
    await page.emulateMedia({ colorScheme: scheme, reducedMotion: 'reduce' });
    await page.goto(`${server.url}/login`);
    await page.getByRole('button', { name: 'Log in' }).waitFor();
    const faults = [...(await faultsOf(page)).map((fault) => `login: ${fault}`)];
    await logIn(page, server);
    for (const [name, address, prepare] of SHOWN) {
      await page.goto(server.url + address);
      await page.getByRole('heading', { level: 1 }).first().waitFor({ state: 'attached' });
      await prepare?.(page);
      await settled(page);
      faults.push(...(await faultsOf(page)).map((fault) => `${name}: ${fault}`));
      await page.screenshot({ path: `${PICTURES}/${name}-${scheme}.png` });
    }
    store.close();
    expect(faults).toEqual([]);
  });
}

test('at 320 px nothing is wider than the screen, and the first page works by touch', async ({ page, server }) => {
  test.setTimeout(120_000);
  const store = await fill(server);
  await page.setViewportSize({ width: 320, height: 640 });
  await logIn(page, server);
  const wide: string[] = [];
  for (const [name, address, prepare] of SHOWN) {
    await page.goto(server.url + address);
    await page.getByRole('heading', { level: 1 }).first().waitFor({ state: 'attached' });
    await prepare?.(page);
    await settled(page);
    const [content, screen] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
    if (content > screen) wide.push(`${name}: ${content} px`);
  }
  expect(wide).toEqual([]);
  store.close();
});

test('a dialog takes the focus and gives it back', async ({ page, server }) => {
  await populate(await server.project('shooter'), 3);
  await logIn(page, server);
  await page.goto(`${server.url}/p/shooter/explore`);
  const opener = page.getByRole('button', { name: 'Export as metric' });
  await opener.focus();
  await page.keyboard.press('Enter');
  await expect(page.getByRole('dialog')).toBeVisible();
  expect(await page.evaluate(() => document.activeElement?.closest('dialog') !== null)).toBe(true);
  for (let at = 0; at < 30; at += 1) await page.keyboard.press('Tab');
  expect(
    await page.evaluate(() => document.activeElement === document.body || document.activeElement?.closest('dialog') !== null),
  ).toBe(true);
  await page.keyboard.press('Escape');
  await expect(opener).toBeFocused();
});
