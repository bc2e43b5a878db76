// The real program on a free loopback port with a folder of its own, set up through its API as users set it up.

import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { type AddressInfo, createServer as createSocket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { unzipSync } from 'node:zlib';
import { test as base, expect, type Page, type Request } from '@playwright/test';

const PROGRAM = process.env.CRASHMETER ?? '../target/debug/crashmeter';
const STARTED_MS = 20_000;

async function freePort(): Promise<number> {
  const socket = createSocket();
  await new Promise<void>((done) => socket.listen(0, '127.0.0.1', done));
  const { port } = socket.address() as AddressInfo;
  await new Promise((done) => socket.close(done));
  return port;
}

export class Server {
  private child: ChildProcess | undefined;
  private said = '';
  private constructor(
    readonly url: string,
    private readonly folder: string,
  ) {}

  static async start(): Promise<Server> {
    const folder = mkdtempSync(join(tmpdir(), 'crashmeter-e2e-'));
    const server = new Server(`http://127.0.0.1:${await freePort()}`, folder);
    await server.resume();
    return server;
  }

  async resume() {
    const listen = this.url.replace('http://', '');
    const data = join(this.folder, 'data');
    const child = spawn(
      PROGRAM,
      ['serve', '--data', data, '--listen', listen, '--allow-egress', '127.0.0.0/8', '--disk-reserve', '0'],
      {
        stdio: ['ignore', 'pipe', 'pipe'],
      },
    );
    child.stdout?.on('data', (text) => {
      this.said += text;
    });
    child.stderr?.resume();
    this.child = child;
    const until = Date.now() + STARTED_MS;
    for (;;) {
      const ready = await fetch(`${this.url}/readyz`).then(
        (reply) => reply.ok,
        () => false,
      );
      if (ready) return;
      if (Date.now() > until || child.exitCode !== null) throw new Error(`the server does not start: ${this.said}`);
      await new Promise((done) => setTimeout(done, 50));
    }
  }

  /** Ends it as a power cut would. */
  async kill() {
    const child = this.child;
    if (!child || child.exitCode !== null) return;
    const gone = new Promise((done) => child.once('exit', done));
    child.kill('SIGKILL');
    await gone;
  }

  async end() {
    await this.kill();
    rmSync(this.folder, { recursive: true, force: true });
  }

  /** The password that the first start printed. */
  get password(): string {
    return /password ([0-9a-f]+)/.exec(this.said)?.[1] ?? '';
  }

  get token(): string {
    return readFileSync(join(this.folder, 'data/admin.token'), 'utf8').trim();
  }

  async api<T = Record<string, unknown>>(method: string, path: string, body?: unknown): Promise<T> {
    const reply = await fetch(`${this.url}/api/v1${path}`, {
      method,
      headers: { authorization: `Bearer ${this.token}`, 'content-type': 'application/json' },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await reply.text();
    if (!reply.ok) throw new Error(`${method} ${path}: ${reply.status} ${text}`);
    return (text === '' ? undefined : JSON.parse(text)) as T;
  }

  /** Makes a project and gives its submission URL. */
  async project(name: string): Promise<string> {
    return (await this.api<{ submission_url: string }>('POST', '/projects', { name })).submission_url;
  }
}

export async function submit(url: string, attributes: Record<string, unknown>) {
  const reply = await fetch(url, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ timestamp: Math.floor(Date.now() / 1000), attributes }),
  });
  if (!reply.ok) throw new Error(`refused: ${await reply.text()}`);
}

/** Reports as the demo makes them, always the same. */
export async function populate(url: string, count = 120) {
  const types = ['Exception', 'Crash', 'Hang', 'OOMException'];
  for (let at = 0; at < count; at += 1) {
    await submit(url, {
      application: 'shooter',
      'application.version': ['2.4.0', '2.4.1', '2.5.0'][at % 3],
      'error.type': types[(at * 7) % 4],
      'error.message': `cause ${at % 7}`,
      guid: `player-${at % 23}`,
      'process.age': at * 3,
    });
  }
}

/** An endpoint that stands for a store: answers as it is told, keeps what it got. */
export async function endpoint(): Promise<{
  url: string;
  bodies: string[];
  answer: { status: number; body: string };
  close: () => void;
}> {
  const bodies: string[] = [];
  const answer = { status: 204, body: '' };
  const http = createServer((request, reply) => {
    const parts: Buffer[] = [];
    request.on('data', (part) => parts.push(part));
    request.on('end', () => {
      const body = Buffer.concat(parts);
      bodies.push((request.headers['content-encoding'] === undefined ? body : unzipSync(body)).toString());
      reply.writeHead(answer.status);
      reply.end(answer.body);
    });
  });
  await new Promise<void>((done) => http.listen(0, '127.0.0.1', done));
  return { url: `http://127.0.0.1:${(http.address() as AddressInfo).port}`, bodies, answer, close: () => http.close() };
}

/** A listener that stands for a store which is sent lines over TCP: keeps what it got of each connection. */
export async function listener(): Promise<{ port: number; bodies: string[]; close: () => void }> {
  const bodies: string[] = [];
  const socket = createSocket((connection) => {
    const at = bodies.push('') - 1;
    connection.on('data', (part) => {
      bodies[at] += part.toString();
    });
    connection.on('error', () => undefined);
  });
  await new Promise<void>((done) => socket.listen(0, '127.0.0.1', done));
  return { port: (socket.address() as AddressInfo).port, bodies, close: () => socket.close() };
}

/** Questions of a page that are open, its event stream apart. */
const asked = new WeakMap<Page, Set<Request>>();

/** Waits until a page has what it asked for: nothing was open for a moment. */
export async function settled(page: Page) {
  let since = Date.now();
  await expect
    .poll(
      () => {
        if ((asked.get(page)?.size ?? 0) > 0) since = Date.now();
        return Date.now() - since;
      },
      { timeout: 20_000, intervals: [50] },
    )
    .toBeGreaterThan(400);
}

export async function logIn(page: Page, server: Server) {
  await page.goto(`${server.url}/`);
  await page.getByRole('textbox', { name: 'User', exact: true }).fill('admin');
  await page.getByLabel('Password').fill(server.password);
  await page.getByRole('button', { name: 'Log in' }).click();
  await page.getByRole('button', { name: 'Log out' }).waitFor();
}

/** A server of its own for each test, and a page whose console must stay silent. */
export const test = base.extend<{ server: Server; quiet: string[] }>({
  // biome-ignore lint/correctness/noEmptyPattern: Playwright reads the pattern
  server: async ({}, use) => {
    const server = await Server.start();
    await use(server);
    await server.end();
  },
  quiet: [
    async ({ page }, use) => {
      const faults: string[] = [];
      page.on('console', (message) => {
        // A refusal is logged by the browser itself; pages that provoke one say so.
        if (message.type() === 'error' && !message.text().startsWith('Failed to load resource')) faults.push(message.text());
      });
      page.on('pageerror', (error) => faults.push(String(error)));
      const open = new Set<Request>();
      asked.set(page, open);
      page.on('request', (request) => !request.url().endsWith('/events') && open.add(request));
      page.on('requestfinished', (request) => open.delete(request));
      page.on('requestfailed', (request) => open.delete(request));
      await use(faults);
      if (faults.length > 0) throw new Error(`the console says: ${faults.join('\n')}`);
    },
    { auto: true },
  ],
});

export { expect, type Page } from '@playwright/test';
