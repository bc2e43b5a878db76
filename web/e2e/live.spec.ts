// The event stream in the page: what changes is shown without a question, a lost server is told and found again, a new one offers itself.

import { expect, logIn, populate, submit, test } from './server';

test('the first report and each refusal are shown as they come', async ({ page, server }) => {
  const url = await server.project('shooter');
  await logIn(page, server);
  let asked = 0;
  page.on('request', (request) => {
    if (request.url().endsWith('/reports')) asked += 1;
  });
  const opened = page.waitForResponse((reply) => reply.url().endsWith('/shooter/events'));
  await page.goto(`${server.url}/p/shooter/start`);
  expect((await opened).status()).toBe(200);
  await expect(page.getByText('Waiting for a report')).toBeVisible();
  const refused = await fetch(url, { method: 'POST', headers: { 'content-type': 'application/json' }, body: '{"timestamp": 1' });
  const said = ((await refused.json()) as { error: { message: string } }).error.message;
  await expect(page.getByText(said)).toBeVisible();
  await submit(url, { 'error.type': 'Boom', 'error.message': 'at last' });
  await expect(page.getByText('Boom: at last')).toBeVisible();
  await expect(page.getByText('1 reports in the last 30 days')).toBeVisible();
  expect(asked, 'once for the page, once for the report, and hardly more').toBeLessThanOrEqual(4);
});

test('without a stream the page asks from time to time', async ({ page, server }) => {
  const url = await server.project('shooter');
  await page.route('**/events', (route) => route.fulfill({ status: 503, body: '{}' }));
  await logIn(page, server);
  await page.goto(`${server.url}/p/shooter/start`);
  await expect(page.getByText('Waiting for a report')).toBeVisible();
  await submit(url, { 'error.type': 'Boom' });
  await expect(page.getByText('Boom', { exact: false }).first()).toBeVisible();
});

test('a server that goes away is told, and found again', async ({ page, server }) => {
  await server.project('shooter');
  await logIn(page, server);
  await page.goto(`${server.url}/p/shooter/settings/metric-export`);
  await expect(page.getByText('Nothing is exported yet')).toBeVisible();
  await server.kill();
  await expect(page.getByText('The server does not answer. What is shown may be old')).toBeVisible({ timeout: 20_000 });
  await server.resume();
  await expect(page.getByText('The server does not answer. What is shown may be old')).toBeHidden({ timeout: 40_000 });
  await server.api('PUT', '/projects/shooter/metric-sets/errors/metrics/all', { query: { fold: { _tx: [['unique']] } } });
  await expect(page.getByRole('link', { name: 'all', exact: true })).toBeVisible();
});

test('a newer server offers its page', async ({ page, server }) => {
  await populate(await server.project('shooter'), 2);
  await logIn(page, server);
  const opened = (page: string) => `event: opened\ndata: {"version":"9","page":"${page}"}\n\n`;
  let edition = 'old';
  // Each stream ends at once, so that the page opens the next.
  await page.route('**/events', (route) =>
    route.fulfill({ status: 200, headers: { 'content-type': 'text/event-stream' }, body: opened(edition) }),
  );
  await page.goto(`${server.url}/p/shooter/explore`);
  await expect(page.getByText('2 reports')).toBeVisible();
  await expect(page.getByText('newer version')).toBeHidden();
  edition = 'new';
  await expect(page.getByText('The server has a newer version of this page.')).toBeVisible({ timeout: 20_000 });
  await page.getByRole('button', { name: 'Reload' }).click();
  await expect(page.getByText('2 reports')).toBeVisible();
  await expect(page.getByText('newer version')).toBeHidden();
});

test('views are saved, opened, replaced and deleted', async ({ page, server }) => {
  await populate(await server.project('shooter'), 12);
  await logIn(page, server);
  const asked = '/p/shooter/explore?g=error.type&t=-7d..now';
  await page.goto(server.url + asked);
  await page.getByText('Views', { exact: true }).click();
  await page.getByLabel('Name of the view').fill('By type');
  await page.keyboard.press('Enter');
  await expect(page.getByText('View: By type')).toBeVisible();
  await page.keyboard.press('Escape');
  await expect(page.getByLabel('Name of the view')).toBeHidden();

  await page.goto(`${server.url}/p/shooter/explore`);
  await page.getByText('Views', { exact: true }).click();
  await page.getByRole('link', { name: 'By type' }).click();
  await expect(page).toHaveURL(server.url + asked);
  await expect(page.getByText('View: By type')).toBeVisible();
  await expect(page.getByRole('table')).toContainText('Crash');

  await page.getByText('View: By type').click();
  await page.getByRole('button', { name: 'Delete By type' }).click();
  await expect(page.getByText('No view is saved yet.')).toBeVisible();
  expect(await server.api('GET', '/projects/shooter/views')).toEqual([]);
});
