// Metric Export: what a store gets is what is shown, and its state changes before one's eyes.

import { endpoint, expect, logIn, submit, test } from './server';

test('the bytes shown of a window are those the store got', async ({ page, server }) => {
  const url = await server.project('shooter');
  const store = await endpoint();
  await server.api('PUT', '/projects/shooter/metric-sets/errors/metrics/by-type', {
    query: { group: ['error.type'], fold: { _tx: [['unique']] } },
  });
  const settings = { adapter: 'influxdb', period: 2, sets: ['errors'], url: `${store.url}/write?db=crashes` };
  await server.api('PUT', '/projects/shooter/metric-stores/influx', settings);
  await expect.poll(() => store.bodies.length, { timeout: 20_000 }).toBeGreaterThan(0);
  await submit(url, { 'error.type': 'a "quoted", spaced = type' });
  await expect.poll(() => store.bodies.some((body) => body.includes('quoted')), { timeout: 20_000 }).toBe(true);
  const sent = store.bodies.find((body) => body.includes('quoted')) as string;

  await logIn(page, server);
  await page.goto(`${server.url}/p/shooter/settings/metric-export/stores/influx?tab=attempts`);
  // The window of that body, by the time stamp of its lines.
  const end = Number(/ (\d+)$/m.exec(sent.trim())?.[1]);
  const seconds = Math.floor(end / 10 ** (String(end).length - 10));
  await page.goto(`${server.url}/p/shooter/settings/metric-export/stores/influx?tab=output&window=${seconds}`);
  await expect(page.locator('pre.code').first()).toBeVisible();
  const shown = await page.locator('pre.code').allTextContents();
  expect(shown.some((text) => text.includes(sent.trim()))).toBe(true);
  store.close();
});

test('a store that refuses its key is told so, and goes on by itself once it is mended, without a reload', async ({
  page,
  server,
}) => {
  await server.project('shooter');
  const store = await endpoint();
  store.answer.status = 401;
  store.answer.body = 'who are you?';
  await server.api('PUT', '/projects/shooter/metric-sets/errors/metrics/all', { query: { fold: { _tx: [['unique']] } } });
  const settings = { adapter: 'influxdb', period: 1, sets: ['errors'], url: `${store.url}/write?db=crashes` };
  await server.api('PUT', '/projects/shooter/metric-stores/influx', settings);
  await logIn(page, server);
  await page.goto(`${server.url}/p/shooter/settings/metric-export`);
  await page.evaluate(() => {
    document.documentElement.dataset.kept = 'yes';
  });
  await expect(page.getByText('Needs attention')).toBeVisible({ timeout: 20_000 });
  await expect(page.getByText('who are you?')).toBeVisible();
  store.answer.status = 204;
  store.answer.body = '';
  await page.getByRole('button', { name: 'Send now' }).click();
  await expect(page.getByText('Sending', { exact: true })).toBeVisible({ timeout: 20_000 });
  expect(await page.evaluate(() => document.documentElement.dataset.kept)).toBe('yes');
  store.close();
});

test('a pull store shows its first read', async ({ page, server }) => {
  await server.project('shooter');
  await server.api('PUT', '/projects/shooter/metric-sets/errors/metrics/all', { query: { fold: { _tx: [['unique']] } } });
  const made = await server.api<{ url: string }>('PUT', '/projects/shooter/metric-stores/prom', {
    adapter: 'prometheus',
    period: 1,
    sets: ['errors'],
  });
  await logIn(page, server);
  await page.goto(`${server.url}/p/shooter/settings/metric-export/stores/prom`);
  await expect(page.getByText('Waiting for the first read')).toBeVisible();
  // As Prometheus does: again and again.
  const reader = setInterval(() => fetch(made.url).catch(() => undefined), 500);
  await expect(page.getByText('Being read')).toBeVisible({ timeout: 20_000 });
  clearInterval(reader);
});

test('faults of a form stand at their fields, and nothing is saved', async ({ page, server }) => {
  await server.project('shooter');
  await server.api('PUT', '/projects/shooter/metric-sets/errors/metrics/all', { query: { fold: { _tx: [['unique']] } } });
  await logIn(page, server);
  await page.goto(`${server.url}/p/shooter/settings/metric-export/stores/new?adapter=datadog`);
  await page.getByLabel('Period in seconds').fill('0');
  await page.getByRole('button', { name: 'Save and start' }).click();
  await expect(page.getByRole('alert').first()).toBeVisible();
  expect(await page.getByRole('alert').count()).toBeGreaterThanOrEqual(2);
  const stores = await server.api<unknown[]>('GET', '/projects/shooter/metric-stores');
  expect(stores).toEqual([]);
});

test('names and labels of a store are set in its form, and kept', async ({ page, server }) => {
  await server.project('shooter');
  await server.api('PUT', '/projects/shooter/metric-sets/errors/metrics/all', { query: { fold: { _tx: [['unique']] } } });
  await logIn(page, server);
  await page.goto(`${server.url}/p/shooter/settings/metric-export/stores/new?adapter=prometheus`);
  await page.getByText('Names, labels and how long to try').click();
  await page.getByLabel('labels', { exact: true }).fill('env=prod\nregion');
  await expect(page.getByText('line 2 is not name=value')).toBeVisible();
  await page.getByRole('button', { name: 'Save and start' }).click();
  await page.getByLabel('labels', { exact: true }).fill('env=prod\nregion=eu');
  await page.getByLabel('label_names', { exact: true }).fill('error.type=kind');
  await page.getByLabel('template', { exact: true }).fill('{project}');
  await page.getByRole('button', { name: 'Save and start' }).click();
  await expect(page.getByRole('alert').filter({ hasText: '{set}' })).toBeVisible();
  await page.getByLabel('template', { exact: true }).fill('{project}.{set}.{metric}');
  await page.getByLabel('horizon', { exact: true }).fill('3600');
  await page.getByRole('button', { name: 'Save and start' }).click();
  await expect(page.getByRole('heading', { level: 1, name: 'prometheus' })).toBeVisible();
  const kept = await server.api<Record<string, unknown>>('GET', '/projects/shooter/metric-stores/prometheus');
  const expected = {
    template: '{project}.{set}.{metric}',
    horizon: 3600,
    labels: { env: 'prod', region: 'eu' },
    label_names: { 'error.type': 'kind' },
  };
  expect(kept).toMatchObject(expected);
});

test('a second editor is not overwritten', async ({ page, server }) => {
  await server.project('shooter');
  const settings = { adapter: 'prometheus', period: 60, sets: [], prefix: 'mine' };
  await server.api('PUT', '/projects/shooter/metric-stores/prom', settings);
  await logIn(page, server);
  await page.goto(`${server.url}/p/shooter/settings/metric-export/stores/prom?tab=configure`);
  await expect(page.getByLabel('Prefix')).toHaveValue('mine');
  await server.api('PUT', '/projects/shooter/metric-stores/prom', { ...settings, prefix: 'theirs' });
  await page.getByLabel('Prefix').fill('again-mine');
  await page.getByRole('button', { name: 'Save', exact: true }).click();
  await expect(page.getByRole('alert')).toContainText('changed');
  const kept = await server.api<{ prefix: string }>('GET', '/projects/shooter/metric-stores/prom');
  expect(kept.prefix).toBe('theirs');
});

test('deleting asks first', async ({ page, server }) => {
  await server.project('shooter');
  await server.api('PUT', '/projects/shooter/metric-stores/prom', { adapter: 'prometheus', period: 60, sets: [] });
  await logIn(page, server);
  await page.goto(`${server.url}/p/shooter/settings/metric-export/stores/prom`);
  await page.getByRole('button', { name: 'Delete' }).click();
  await page.getByRole('button', { name: 'Keep it' }).click();
  await page.getByRole('button', { name: 'Delete' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Delete' }).click();
  await expect(page).toHaveURL(/settings\/metric-export$/);
  expect(await server.api<unknown[]>('GET', '/projects/shooter/metric-stores')).toEqual([]);
});
