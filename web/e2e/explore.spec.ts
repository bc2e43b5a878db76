// Explore: the address is the query, and every state is forced for real.

import { expect, logIn, populate, submit, test } from './server';

test('reload, Back, Forward and a pasted link show the same', async ({ page, server, context }) => {
  await populate(await server.project('shooter'));
  await logIn(page, server);
  const asked =
    '/p/shooter/explore?f=error.type%7Eequal%7ECrash&g=application.version&a=unique%7E_tx&a=max%7Eprocess.age&t=-7d..now';
  await page.goto(server.url + asked);
  const table = page.getByRole('table');
  await expect(table).toContainText('2.4.0');
  const before = await table.innerText();
  await page.reload();
  await expect(table).toHaveText(before.replace(/\s+/g, ' ').trim(), { useInnerText: true });

  await page.getByRole('button', { name: 'Remove application.version' }).click();
  await expect(table).not.toContainText('2.4.0');
  await page.goBack();
  await expect(table).toContainText('2.4.0');
  await page.goForward();
  await expect(table).not.toContainText('2.4.0');

  const other = await context.newPage();
  await other.goto(server.url + asked);
  await expect(other.getByRole('table')).toContainText('2.4.0');
  expect(await other.getByRole('table').innerText()).toBe(before);
});

test('a link that is not understood says what it left out', async ({ page, server }) => {
  await populate(await server.project('shooter'), 3);
  await logIn(page, server);
  await page.goto(`${server.url}/p/shooter/explore?f=nonsense&a=wrong&t=yesterday`);
  for (const part of ['nonsense', 'wrong', 'yesterday']) {
    await expect(page.getByRole('status').filter({ hasText: `"${part}"` })).toBeVisible();
  }
  await expect(page.getByText('3 reports')).toBeVisible();
  await page.goto(`${server.url}/p/nowhere/explore`);
  await expect(page.getByText('There is no project “nowhere”')).toBeVisible();
  await page.goto(`${server.url}/p/shooter/what`);
  await expect(page.getByText('There is no such page')).toBeVisible();
});

test('empty, and no match: the filter that hides most is named', async ({ page, server }) => {
  const url = await server.project('shooter');
  await logIn(page, server);
  await page.goto(`${server.url}/p/shooter/explore`);
  await expect(page.getByText('No report yet')).toBeVisible();
  await populate(url, 12);
  await page.goto(`${server.url}/p/shooter/explore?f=application%7Eequal%7Eshooter&f=error.type%7Eequal%7ENothing`);
  await expect(page.getByText('No report matches')).toBeVisible();
  await expect(page.getByText('there are 12')).toContainText('error.type equal Nothing');
  await page.getByRole('button', { name: 'Remove it' }).click();
  await expect(page.getByText('12 reports')).toBeVisible();
});

test('a faulty pattern is told at once, and mended in its place', async ({ page, server }) => {
  await populate(await server.project('shooter'), 4);
  await logIn(page, server);
  await page.goto(`${server.url}/p/shooter/explore?f=error.type%7Eregular-expression%7E(`);
  await expect(page.getByRole('alert')).toContainText('not a legal pattern');
  await page.getByRole('button', { name: 'error.type matches (', exact: true }).click();
  await page.getByRole('combobox', { name: 'Value' }).fill('Cr.*');
  await page.keyboard.press('Enter');
  await expect(page.getByRole('alert')).toBeHidden();
  await expect(page.getByText(/reports? in/)).toBeVisible();
});

test('the server goes away and comes back', async ({ page, server }) => {
  await populate(await server.project('shooter'), 7);
  await logIn(page, server);
  await page.goto(`${server.url}/p/shooter/explore`);
  await expect(page.getByText('7 reports')).toBeVisible();
  await server.kill();
  await page.getByRole('button', { name: 'Run again' }).click();
  await expect(page.getByText('The server cannot be reached')).toBeVisible();
  await expect(page.getByText('7 reports'), 'what was there stays to be read').toBeVisible();
  await server.resume();
  await page.getByRole('button', { name: 'Try again' }).first().click();
  await expect(page.getByText('The server cannot be reached')).toBeHidden();
  await expect(page.getByText('7 reports')).toBeVisible();
});

test('a long query can be stopped, and is stopped on the server', async ({ page, server }) => {
  await populate(await server.project('shooter'), 3);
  await logIn(page, server);
  // Holds the reply back as a slow server would; the page must give the query up.
  let gone = false;
  await page.route('**/api/v1/projects/shooter/query', async (route) => {
    await new Promise((done) => setTimeout(done, 1_500));
    await route.continue().catch(() => {
      gone = true;
    });
  });
  page.on('requestfailed', (request) => {
    if (request.url().endsWith('/query')) gone = true;
  });
  await page.goto(`${server.url}/p/shooter/explore`);
  await page.getByRole('button', { name: 'Stop' }).click();
  await expect(page.getByRole('button', { name: 'Stop' })).toBeHidden();
  await expect.poll(() => gone).toBe(true);
});

test('drag on the chart narrows the time frame; a value narrows the query', async ({ page, server }) => {
  await populate(await server.project('shooter'), 60);
  await logIn(page, server);
  await page.goto(`${server.url}/p/shooter/explore?g=error.type&t=-1h..now`);
  const plot = page.locator('.u-over');
  await plot.waitFor();
  const box = await plot.boundingBox();
  if (!box) throw new Error('the chart has no place');
  await page.mouse.move(box.x + box.width * 0.25, box.y + 60);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width * 0.75, box.y + 60, { steps: 5 });
  await page.mouse.up();
  await expect(page).toHaveURL(/t=\d+\.\.\d+/);
  const span = /t=(\d+)\.\.(\d+)/.exec(page.url());
  expect(Math.abs(Number(span?.[2]) - Number(span?.[1]) - 1_800)).toBeLessThan(120);
  await page.goBack();
  await page.getByRole('table').getByRole('button', { name: 'Crash', exact: true }).click();
  await expect(page).toHaveURL(/f=error\.type%7Eequal%7ECrash/);
});

test('a report is read in the drawer, and its attachments are downloads', async ({ page, server }) => {
  const url = await server.project('shooter');
  const form = new FormData();
  form.set('upload_file', new Blob([JSON.stringify({ timestamp: 1, attributes: { 'error.type': 'Crash' } })]), 'upload.json');
  form.set('attachment_log.txt', new Blob(['<script>alert(1)</script>'], { type: 'text/html' }), 'log.txt');
  const reply = await fetch(url, { method: 'POST', body: form });
  expect(reply.status).toBe(200);
  await logIn(page, server);
  await page.goto(`${server.url}/p/shooter/explore?view=list`);
  await page.getByRole('table').getByRole('link').first().click();
  const drawer = page.getByRole('dialog');
  await expect(drawer).toContainText('error.type');
  const arrives = page.waitForEvent('download');
  await drawer.getByRole('button', { name: 'log.txt' }).click();
  expect((await arrives).suggestedFilename()).toContain('log.txt');
  await page.keyboard.press('Escape');
  await expect(drawer).toBeHidden();
});

test('a thousand rows are on the screen soon after the answer', async ({ page, server }) => {
  const url = await server.project('shooter');
  await Promise.all(
    Array.from({ length: 20 }, async (_, lane) => {
      for (let at = 0; at < 55; at += 1) await submit(url, { hostname: `host-${lane}-${at}` });
    }),
  );
  await logIn(page, server);
  await page.goto(`${server.url}/p/shooter/explore?g=hostname`);
  await page.getByRole('button', { name: 'Show up to 1,000' }).click();
  // With the heading and the sum.
  await expect(page.getByRole('table').getByRole('row')).toHaveCount(1_002);
});

test('single letters are keys until they are switched off', async ({ page, server }) => {
  await populate(await server.project('shooter'), 12);
  await logIn(page, server);
  await page.goto(`${server.url}/p/shooter/explore?g=error.type`);
  const rows = page.getByRole('table').locator('tbody tr');
  await expect(rows.first()).toBeVisible();
  const focused = () => page.evaluate(() => document.activeElement?.closest('tr')?.textContent ?? '');
  await page.keyboard.press('j');
  const first = await focused();
  expect(first).toBe(await rows.nth(0).textContent());
  await page.keyboard.press('j');
  expect(await focused()).toBe(await rows.nth(1).textContent());
  await page.keyboard.press('k');
  expect(await focused()).toBe(first);
  await page.keyboard.press('t');
  await expect(page.getByLabel('Time frame')).toBeFocused();
  await page.getByLabel('Time frame').blur();
  await page.keyboard.press('?');
  await expect(page.getByRole('dialog')).toContainText('export as metric');
  await page.getByLabel('Single letters are keys').uncheck();
  await page.keyboard.press('Escape');
  await page.keyboard.press('e');
  await expect(page.getByRole('dialog')).toBeHidden();
  await page.reload();
  await expect(rows.first()).toBeVisible();
  await page.keyboard.press('e');
  await page.keyboard.press('?');
  await expect(page.getByRole('dialog')).toContainText('Single letters');
  await page.getByLabel('Single letters are keys').check();
  await page.keyboard.press('Escape');
  await page.keyboard.press('e');
  await expect(page.getByRole('dialog')).toContainText('Metric set');
});
