// One way to ask the server: JSON in, JSON out, its own words for every fault. Knows no page.

export type Problem = { field: string; detail: string };

/** A refusal in the server's words, or that it could not be reached. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly title: string,
    detail: string,
    readonly field: string = '',
    readonly problems: Problem[] = [],
    readonly requestId: string = '',
  ) {
    super(detail);
  }
}

/** What a refusal is for people; the server's own words follow. */
const TITLES: Record<number, string> = {
  400: 'This cannot be read',
  403: 'Not allowed',
  404: 'It is not there',
  409: 'Not possible now',
  412: 'Somebody changed it meanwhile',
  422: 'Something in it is wrong',
  429: 'Too many at once',
  503: 'The server is busy',
};

/** Set by the shell: what to do when the session has ended. */
export const session = { ended: () => {} };

type Options = { body?: unknown; signal?: AbortSignal; revision?: number };

export async function ask<T>(method: string, path: string, options: Options = {}): Promise<T> {
  const text = await (await answer(method, path, options)).text();
  return (text === '' ? undefined : JSON.parse(text)) as T;
}

/** A file of the server's, such as an attachment. */
export const file = async (path: string): Promise<Blob> => (await answer('GET', path, {})).blob();

async function answer(method: string, path: string, options: Options): Promise<Response> {
  const headers: Record<string, string> = { 'x-crashmeter-page': '1' };
  if (options.body !== undefined) headers['content-type'] = 'application/json';
  if (options.revision !== undefined) headers['if-match'] = `"${options.revision}"`;
  let reply: Response;
  try {
    reply = await fetch(`/api/v1${path}`, {
      method,
      headers,
      credentials: 'same-origin',
      ...(options.body === undefined ? {} : { body: JSON.stringify(options.body) }),
      ...(options.signal ? { signal: options.signal } : {}),
    });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new ApiError(0, 'The server cannot be reached', 'It may be restarting; this page tries again by itself.');
  }
  if (reply.ok) return reply;
  const text = await reply.text();
  let said: { title?: string; detail?: string; field?: string; problems?: Problem[]; request_id?: string } = {};
  try {
    said = JSON.parse(text);
  } catch {
    said = { detail: text };
  }
  if (reply.status === 401 && path !== '/login') session.ended();
  throw new ApiError(
    reply.status,
    TITLES[reply.status] ?? said.title ?? `HTTP ${reply.status}`,
    said.detail ?? '',
    said.field,
    said.problems ?? [],
    said.request_id,
  );
}

export const get = <T>(path: string, signal?: AbortSignal) => ask<T>('GET', path, signal ? { signal } : {});
export const post = <T>(path: string, body: unknown, signal?: AbortSignal) =>
  ask<T>('POST', path, { body, ...(signal ? { signal } : {}) });

/** A path below a project, every part escaped. */
export const of = (project: string, ...parts: string[]) => `/projects/${[project, ...parts].map(encodeURIComponent).join('/')}`;
