// What senders and names may hold, wherever the page shows it; and what a page of another site can do. Numbers are those of the list of
// hostile inputs in docs/reliability.md.

import { endpoint, expect, logIn, type Server, settled, submit, test } from './server';

const HOSTILE = [
  // 45
  '<script>window.hit=1</script>',
  '<img src=x onerror="window.hit=1">',
  '<svg onload="window.hit=1">',
  'javascript:window.hit=1',
  'data:text/html,<script>window.hit=1</script>',
  // 46
  // biome-ignore lint/suspicious/noTemplateCurlyInString: it is one
  '{{7*7}} ${7*7} %0d%0aSet-Cookie:x=1 `id`',
  '</title></script></textarea><b>unclosed',
  'x{background:expression(window.hit=1)}',
  '</script><!--',
  // 48
  '\u202Egnp.exe\u202C',
  `a${'\u0301'.repeat(200)}`,
  'ｐrom\u0435theus',
];

const PAGES = [
  'explore?g=error.type&g=application&a=unique%7E_tx&a=max%7Etimestamp',
  'explore?view=list&c=error.type&c=application&c=timestamp',
  'start',
  'settings/metric-export',
  'settings/attributes',
  'settings/access',
];

async function fill(server: Server) {
  const url = await server.project('p');
  for (const [at, text] of HOSTILE.entries()) {
    await submit(url, { 'error.type': text, application: text, 'error.message': text, [`name ${text}`.slice(0, 100)]: at });
  }
  return url;
}

test('45-48: hostile values are text, in every place that shows them', async ({ page, server }) => {
  const url = await fill(server);
  for (const [at, text] of HOSTILE.entries()) {
    // A slash is refused in names: it is the path's own.
    const name = text.slice(0, 60).replaceAll('/', '|');
    const query = { group: ['error.type'], filter: [{ application: [['equal', text]] }], fold: { _tx: [['unique']] } };
    await server.api('PUT', `/projects/p/metric-sets/${encodeURIComponent(name)}/metrics/${encodeURIComponent(name)}`, { query });
    const settings = { adapter: 'prometheus', period: 60, sets: [name] };
    await server.api('PUT', `/projects/p/metric-stores/${encodeURIComponent(`${name} ${at}`)}`, settings);
  }
  const form = new FormData();
  form.set('upload_file', new Blob([JSON.stringify({ timestamp: 1, attributes: { 'error.type': 'file' } })]), 'upload.json');
  form.set(
    'attachment_<img src=x onerror=window.hit=1>.html',
    new Blob(['<script>window.hit=1</script>'], { type: 'text/html' }),
    'x.html',
  );
  expect((await fetch(url, { method: 'POST', body: form })).status).toBe(200);
  await logIn(page, server);
  const hit = () => page.evaluate(() => (window as unknown as { hit?: number }).hit);
  for (const address of PAGES) {
    await page.goto(`${server.url}/p/p/${address}`);
    await expect(page.getByRole('heading').first()).toBeAttached();
    await settled(page);
    expect(await hit(), address).toBeUndefined();
    expect(await page.locator('main script, main img[src="x"], main svg[onload], main b').count(), address).toBe(0);
    const links = await page.locator('a[href]').evaluateAll((all) => all.map((one) => one.getAttribute('href') ?? ''));
    for (const link of links) expect(link, address).toMatch(/^(\/|#)/);
  }
  await page.goto(`${server.url}/p/p/explore?g=error.type`);
  await expect(page.getByRole('table')).toContainText('<script>window.hit=1</script>');
  await page.locator('.u-over').hover();
  expect(await hit()).toBeUndefined();

  // The drawer with the report's files, and the page of a store with such a name.
  await page.goto(`${server.url}/p/p/explore?view=list&f=error.type%7Eequal%7Efile`);
  await page.getByRole('table').getByRole('link').first().click();
  await expect(page.getByRole('dialog')).toContainText('onerror');
  await page.goto(
    `${server.url}/p/p/settings/metric-export/stores/${encodeURIComponent(`${HOSTILE[0]?.replaceAll('/', '|')} 0`)}`,
  );
  await expect(page.getByRole('heading', { level: 1 })).toContainText('<script>');
  expect(await hit()).toBeUndefined();
});

test('49: no frame, no opener, no open redirect', async ({ page, server }) => {
  await server.project('p');
  const frame = await fetch(`${server.url}/p/p/explore`);
  expect(frame.headers.get('content-security-policy')).toContain("frame-ancestors 'none'");
  await page.goto(`${server.url}/login?next=//evil.example&next=javascript:window.hit=1`);
  await page.getByRole('textbox', { name: 'User', exact: true }).fill('admin');
  await page.getByLabel('Password').fill(server.password);
  await page.getByRole('button', { name: 'Log in' }).click();
  await page.getByRole('button', { name: 'Log out' }).waitFor();
  expect(new URL(page.url()).origin).toBe(server.url);
});

test('50: another site can neither read nor change anything with the cookie of a person', async ({ page, server, quiet }) => {
  await server.project('p');
  await logIn(page, server);
  const other = await endpoint();
  other.answer.status = 200;
  other.answer.body = 'another site';
  await page.goto(other.url.replace('127.0.0.1', 'localhost'));
  const tried = await page.evaluate(async (url) => {
    const ask = (init: RequestInit) =>
      fetch(`${url}/api/v1/projects`, { credentials: 'include', ...init }).then(
        (reply) => `${reply.type} ${reply.status}`,
        () => 'refused by the browser',
      );
    return Promise.all([
      ask({}),
      ask({ mode: 'no-cors' }),
      ask({ method: 'POST', mode: 'no-cors', headers: { 'content-type': 'text/plain' }, body: '{"name":"stolen"}' }),
      ask({
        method: 'POST',
        headers: { 'x-crashmeter-page': '1', 'content-type': 'application/json' },
        body: '{"name":"stolen"}',
      }),
    ]);
  }, server.url);
  expect(tried[0]).toBe('refused by the browser');
  expect(tried[3]).toBe('refused by the browser');
  expect(await server.api<string[]>('GET', '/projects')).toEqual(['p']);
  // The browser told the other site why.
  expect(quiet.splice(0).join()).toContain('CORS');
  other.close();
});

test('51-52: other hosts and tossed cookies change nothing', async ({ page, server, context }) => {
  await server.project('p');
  await logIn(page, server);
  const cookies = await context.cookies();
  expect(cookies).toHaveLength(1);
  expect(cookies[0]).toMatchObject({ httpOnly: true, sameSite: 'Strict' });
  expect(await page.evaluate(() => document.cookie)).toBe('');
  const own = `${cookies[0]?.name}=${cookies[0]?.value}`;
  const me = (headers: Record<string, string>) =>
    fetch(`${server.url}/api/v1/me`, { headers: { 'x-crashmeter-page': '1', ...headers } }).then((reply) => reply.status);
  expect(await me({ cookie: own })).toBe(200);
  expect(await me({ cookie: `${cookies[0]?.name}=tossed; ${own}` })).toBe(401);
  expect(await me({ cookie: `x=${'y'.repeat(6_000)}; ${own}` })).toBe(200);
  expect(await me({ cookie: own, origin: 'http://evil.example' })).toBe(403);
});

test('secrets are nowhere: not on a page, not in an address, not in copied commands', async ({ page, server }) => {
  await server.project('p');
  const secrets = ['sesame-0123456789', '0123456789abcdef0123456789abcdef'];
  await server.api('PUT', '/projects/p/metric-sets/s/metrics/m', { query: { fold: { _tx: [['unique']] } } });
  await server.api('PUT', '/projects/p/metric-stores/influx', {
    adapter: 'influxdb',
    period: 1,
    sets: ['s'],
    url: 'http://127.0.0.1:9/write?db=x',
    username: 'u',
    password: secrets[0],
  });
  await server.api('PUT', '/projects/p/metric-stores/dog', { adapter: 'datadog', period: 60, sets: ['s'], api_key: secrets[1] });
  await logIn(page, server);
  const kept: string[] = [];
  page.on('request', (request) => kept.push(request.url()));
  page.on('response', async (reply) => kept.push(await reply.text().catch(() => '')));
  for (const store of ['influx', 'dog']) {
    for (const tab of ['', '?tab=output', '?tab=attempts', '?tab=configure']) {
      await page.goto(`${server.url}/p/p/settings/metric-export/stores/${store}${tab}`);
      await settled(page);
      kept.push(await page.content());
    }
  }
  await page.goto(`${server.url}/p/p/explore`);
  await page.getByRole('button', { name: 'Copy as curl' }).click();
  kept.push(await page.getByRole('dialog').innerText());
  const session = (await page.context().cookies())[0]?.value ?? '';
  expect(session).not.toBe('');
  for (const secret of [...secrets, server.password, session, server.token]) {
    for (const text of kept) expect(text.includes(secret), 'a secret is shown').toBe(false);
  }
});

test('a session that ends asks for the login and goes on where one was', async ({ page, server }) => {
  await server.project('p');
  await logIn(page, server);
  const address = `${server.url}/p/p/explore?g=error.type`;
  await page.goto(address);
  await expect(page.getByText('No report yet')).toBeVisible();
  await page.context().clearCookies();
  await page.getByRole('button', { name: 'Run again' }).click();
  await expect(page.getByText('The session has ended')).toBeVisible();
  await page.getByRole('textbox', { name: 'User', exact: true }).fill('admin');
  await page.getByLabel('Password').fill(server.password);
  await page.getByRole('button', { name: 'Log in' }).click();
  await expect(page.getByRole('button', { name: 'Remove error.type' })).toBeVisible();
  expect(page.url()).toBe(address);
});

test('what a role may not do is not offered, and refused all the same', async ({ page, server }) => {
  await server.project('p');
  await server.api('PUT', '/projects/p/metric-stores/prom', { adapter: 'prometheus', period: 60, sets: [] });
  await server.api('POST', '/users', { name: 'vera', role: 'viewer', password: 'vera-password' });
  await page.goto(`${server.url}/login`);
  await page.getByRole('textbox', { name: 'User', exact: true }).fill('vera');
  await page.getByLabel('Password').fill('vera-password');
  await page.getByRole('button', { name: 'Log in' }).click();
  await page.getByRole('button', { name: 'Log out' }).waitFor();
  await page.goto(`${server.url}/p/p/explore`);
  await expect(page.getByRole('button', { name: 'Export as metric' })).toBeDisabled();
  await page.goto(`${server.url}/p/p/settings/metric-export/stores/prom`);
  await expect(page.getByRole('heading', { level: 1 })).toContainText('prom');
  await expect(page.getByRole('button', { name: 'Delete' })).toBeHidden();
  await expect(page.locator('pre.code').first()).toBeAttached();
  expect(await page.content()).not.toMatch(/pull\/[0-9a-f]{8}/);
  const status = await page.evaluate(() =>
    fetch('/api/v1/projects/p/metric-stores/prom', { method: 'DELETE', headers: { 'x-crashmeter-page': '1' } }).then(
      (reply) => reply.status,
    ),
  );
  expect(status).toBe(403);
});
