// The audit log: administrators read who changed what, page by page and in part; nobody else is led to it.

import { expect, logIn, test } from './server';

test('who changed what is read newest first, by project and by person, and page by page', async ({ page, server }) => {
  await server.project('shooter');
  await server.project('racer');
  await server.api('PUT', '/projects/shooter/metric-sets/errors/metrics/all', { query: { fold: { _tx: [['unique']] } } });
  await server.api('PUT', '/projects/shooter/metric-stores/dog', {
    adapter: 'datadog',
    period: 60,
    sets: ['errors'],
    site: 'datadoghq.eu',
    api_key: 'canary-16180339',
  });
  await logIn(page, server);
  await page.getByRole('link', { name: 'Audit log' }).click();
  const rows = page.getByRole('table').locator('tbody tr');
  await expect(rows.nth(0)).toContainText(/user admin.*logged in/);
  await expect(rows.nth(1)).toContainText(/token \d+shootersaved metric storedog/);
  await expect(rows.nth(2)).toContainText(/token \d+shootersaved metricerrors\/all/);
  expect(await page.content()).not.toContain('canary');
  await expect(page.getByRole('link', { name: 'Older' })).toHaveCount(0);

  await page.getByLabel('Of which project').selectOption('racer');
  await expect(rows).toHaveCount(1);
  await expect(rows.nth(0)).toContainText('made projectracer');
  await page.getByLabel('Of which project').selectOption('');
  await page.getByRole('link', { name: 'user admin' }).first().click();
  await expect(rows).toHaveCount(1);
  await page.getByLabel('Of which project').selectOption('racer');
  await expect(page.getByText('There is nothing of the kind')).toBeVisible();
  await page.getByRole('link', { name: 'To the whole log' }).click();
  await expect(rows.nth(1)).toContainText('saved metric store');

  for (let at = 0; at < 101; at += 1) await server.api('PUT', `/projects/racer/metric-sets/set-${at}`);
  await page.reload();
  await expect(rows).toHaveCount(100);
  await expect(rows.nth(0)).toContainText('set-100');
  await page.getByRole('link', { name: 'Older' }).click();
  await expect(rows.nth(0)).toContainText('set-0');
  await expect(rows.nth(2)).toContainText('saved metric store');
  await page.goBack();
  await expect(rows.nth(0)).toContainText('set-100');
  await page.getByRole('link', { name: 'Older' }).click();
  await page.getByRole('link', { name: 'Newest' }).click();
  await expect(rows.nth(0)).toContainText('set-100');
});

test('an editor is told that the audit log is for administrators', async ({ page, server }) => {
  await server.project('shooter');
  await server.api('POST', '/users', { name: 'ed', role: 'editor', password: 'ed-password' });
  await page.goto(server.url);
  await page.getByRole('textbox', { name: 'User', exact: true }).fill('ed');
  await page.getByLabel('Password').fill('ed-password');
  await page.getByRole('button', { name: 'Log in' }).click();
  await expect(page.getByRole('link', { name: 'System' })).toBeVisible();
  await expect(page.getByRole('link', { name: 'Audit log' })).toHaveCount(0);
  await page.goto(`${server.url}/audit-log`);
  await expect(page.getByText('your role is editor')).toBeVisible();
});
