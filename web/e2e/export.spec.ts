// Metric Export: what a store gets is what is shown, and its state changes before one's eyes.

import { endpoint, expect, listener, logIn, submit, test } from './server';

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

test('of every adapter the bytes shown of a window are those that went over the wire', async ({ page, server }) => {
  test.setTimeout(90_000);
  const url = await server.project('shooter');
  await server.api('PUT', '/projects/shooter/metric-sets/errors/metrics/by-type', {
    query: { group: ['error.type'], fold: { _tx: [['unique']], 'process.age': [['mean']] } },
  });
  const [influx, datadog, circonus, grafana, graphite] = await Promise.all([
    endpoint(),
    endpoint(),
    endpoint(),
    endpoint(),
    listener(),
  ]);
  datadog.answer.status = 202;
  datadog.answer.body = '{"status": "ok"}';
  for (const store of [circonus, grafana]) store.answer.status = 200;
  const pushed: Record<string, [Record<string, unknown>, { bodies: string[]; close: () => void }]> = {
    influxdb: [{ url: `${influx.url}/write?db=crashes` }, influx],
    datadog: [{ url: datadog.url, version: 'v1', api_key: '0'.repeat(32) }, datadog],
    circonus_push: [{ url: `${circonus.url}/module/httptrap/id/secret` }, circonus],
    grafana: [{ url: `${grafana.url}/metrics`, api_key: 'any' }, grafana],
    graphite: [{ host: '127.0.0.1', port: graphite.port }, graphite],
  };
  for (const [adapter, [fields]] of Object.entries(pushed)) {
    const settings = { adapter, period: 2, sets: ['errors'], ...fields };
    await server.api('PUT', `/projects/shooter/metric-stores/${adapter}`, settings);
  }
  type Pulled = { url: string; username?: string; password?: string };
  const pulled: Record<string, Pulled> = {};
  for (const adapter of ['prometheus', 'circonus_pull']) {
    const settings = { adapter, period: 2, sets: ['errors'] };
    pulled[adapter] = await server.api<Pulled>('PUT', `/projects/shooter/metric-stores/${adapter}`, settings);
  }
  // The first window of all of them is sealed.
  await expect.poll(() => influx.bodies.length, { timeout: 20_000 }).toBeGreaterThan(0);
  await submit(url, { 'error.type': 'loud-one', 'process.age': 7 });
  type Told = { windows: { start: number; matched: number | null }[] };
  let start = 0;
  await expect
    .poll(
      async () => {
        const told = await server.api<Told>('GET', '/projects/shooter/metric-sets/errors/metrics/by-type/values');
        start = told.windows.find((window) => (window.matched ?? 0) > 0)?.start ?? 0;
        return start;
      },
      { timeout: 20_000 },
    )
    .toBeGreaterThan(0);

  await logIn(page, server);
  const shown = async (store: string, window: string) => {
    await page.goto(`${server.url}/p/shooter/settings/metric-export/stores/${store}?tab=output${window}`);
    await page.locator('pre.code').first().waitFor();
    return page.locator('pre.code').allTextContents();
  };
  for (const [adapter, [, store]] of Object.entries(pushed)) {
    await expect.poll(() => store.bodies.some((body) => body.includes('loud-one')), { timeout: 20_000 }).toBe(true);
    const texts = (await shown(adapter, `&window=${start}`)).map((text) => text.slice(text.indexOf('\n\n') + 2).trim());
    // Lines of several windows may go over one connection; what was shown of this one is a part of it.
    const sent = store.bodies.map((body) => body.trim());
    expect(
      texts.some((text) => text.includes('loud-one')),
      `${adapter}: ${texts}`,
    ).toBe(true);
    for (const text of texts) {
      const went = adapter === 'graphite' ? sent.some((body) => body.includes(text)) : sent.includes(text);
      expect(went, `${adapter} was shown\n${text}\nand was sent\n${sent.join('\n')}`).toBe(true);
    }
    store.close();
  }
  for (const [adapter, { url: address, username, password }] of Object.entries(pulled)) {
    const login: Record<string, string> = username
      ? { authorization: `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}` }
      : {};
    // The page changes with each window: the same one before and after is the one between.
    await expect
      .poll(
        async () => {
          const read = async () => (await fetch(address, { headers: login })).text();
          const before = await read();
          const [text] = await shown(adapter, '');
          return before === (await read()) ? text?.trim() === before.trim() : undefined;
        },
        { timeout: 30_000 },
      )
      .toBe(true);
  }
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

test('a metric has a page of what was exported of it, with gaps told', async ({ page, server }) => {
  test.setTimeout(90_000);
  const url = await server.project('shooter');
  await server.api('PUT', '/projects/shooter/metric-sets/errors/metrics/by-type', {
    query: { group: ['error.type'], fold: { _tx: [['unique']], 'process.age': [['max']] } },
  });
  await server.api('PUT', '/projects/shooter/metric-sets/later/metrics/none', { query: { fold: { _tx: [['unique']] } } });
  await server.api('PUT', '/projects/shooter/metric-stores/prom', { adapter: 'prometheus', period: 1, sets: ['errors'] });
  type Told = { windows: { outcome: string }[]; series: { labels: Record<string, string>; sum: number }[] };
  const told = () => server.api<Told>('GET', '/projects/shooter/metric-sets/errors/metrics/by-type/values');
  await expect.poll(async () => (await told()).windows.length, { timeout: 20_000 }).toBeGreaterThan(0);
  for (let at = 0; at < 3; at += 1) await submit(url, { 'error.type': 'Crash', 'process.age': 40 + at });
  await submit(url, { 'error.type': 'Hang', 'process.age': 7 });
  await expect.poll(async () => (await told()).series.reduce((sum, one) => sum + one.sum, 0), { timeout: 20_000 }).toBe(4);
  await logIn(page, server);
  // Down for longer than a window lasts.
  await server.kill();
  const killed = Date.now();
  await expect.poll(() => Date.now() - killed, { timeout: 10_000 }).toBeGreaterThan(2_500);
  await server.resume();
  await expect.poll(async () => (await told()).windows.map((one) => one.outcome), { timeout: 20_000 }).toContain('gap');

  await page.goto(`${server.url}/p/shooter/settings/metric-export`);
  await page.getByRole('link', { name: 'by-type' }).click();
  await expect(page.getByRole('heading', { level: 1 })).toContainText('by-type');
  await expect(page.getByText('Errors, max(process.age) by error.type')).toBeVisible();
  const rows = page.getByRole('region', { name: 'Series' }).locator('tbody tr');
  await expect(rows).toHaveCount(2);
  await expect(rows.nth(0)).toContainText('Crash');
  await expect(rows.nth(1)).toContainText('Hang');
  await expect(page.locator('.chart canvas')).toBeVisible();
  await expect(page.getByText('Gap from')).toBeVisible();
  await page.getByLabel('Aggregate').selectOption({ label: 'max(process.age)' });
  // The greatest of the windows that had reports; the others have none, which is no 0.
  await expect(rows.nth(1).getByRole('cell').nth(1)).toHaveText('7');
  await page.getByRole('link', { name: 'prom' }).last().click();
  await expect(page).toHaveURL(/stores\/prom\?tab=output&window=\d+$/);
  await expect(page.locator('pre.code').first()).toContainText('Crash');

  await page.goto(`${server.url}/p/shooter/settings/metric-export/sets/later/metrics/none`);
  await expect(page.getByText('It goes to no store')).toBeVisible();
  await page.goto(`${server.url}/p/shooter/settings/metric-export/sets/later/metrics/nothing`);
  await expect(page.getByRole('alert')).toContainText('there is no metric');
});
